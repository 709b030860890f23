//! Determines the uncertainty of an answer's arrival times. Pure.
//!
//! A chunk has one time, that of its last byte. A frame that ends with the chunk arrived at that
//! time, if a valid kernel timestamp says so. Any other frame in the chunk arrived at some time
//! between the chunk's bounds: the client read it late, or the server sent several frames at once.

use std::time::Duration;

use crate::recording::{Chunk, StampedBy, Uncertainty};

/// How much earlier than recorded the parts of an answer can have arrived. None arrived later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArrivalUncertainty {
    /// The response headers.
    pub headers: Duration,
    /// The first event of any kind.
    pub first_event: Duration,
    /// The first token event.
    pub first_token: Duration,
    /// The first reasoning token.
    pub first_reasoning: Duration,
    /// The first answer token.
    pub first_answer: Duration,
    /// The last token event.
    pub last_token: Duration,
    /// The end of the body.
    pub end: Duration,
    /// The largest uncertainty of a token event, which limits the error of `ttft` and of every gap.
    pub largest: Duration,
}

/// Which parts of an answer have begun.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EventProgress {
    pub(super) events: usize,
    pub(super) token_events: usize,
    pub(super) has_reasoning: bool,
    pub(super) has_answer: bool,
}

/// Follows the frames of an answer, chunk by chunk.
#[derive(Debug, Default)]
pub(super) struct ArrivalTracker {
    pub(super) found: ArrivalUncertainty,
    /// What had begun before the latest frame, and after it.
    frame: (EventProgress, EventProgress),
    /// The largest uncertainty of a chunk's last byte with kernel timestamps.
    last_bytes: Duration,
}

impl ArrivalTracker {
    /// Creates a tracker for a recording with these uncertainties at its ends.
    pub(super) fn of(ends: Uncertainty) -> Self {
        Self { last_bytes: ends.last_bytes, ..Self::default() }
    }

    /// Records that a frame of `chunk` has been read.
    pub(super) fn frame(&mut self, chunk: &Chunk, before: EventProgress, after: EventProgress) {
        // The previous frame does not end the chunk.
        self.settle(chunk.uncertainty);
        self.frame = (before, after);
    }

    /// Records the end of `chunk`. With `is_whole`, no frame continues in the next chunk.
    pub(super) fn end(&mut self, chunk: &Chunk, by: StampedBy, is_whole: bool) {
        // The kernel's time is that of the last packet, so only a frame that ends with the chunk
        // has it. Bytes of an incomplete frame after it may have arrived in that packet instead.
        let ends_with_frame = is_whole && by == StampedBy::Kernel;
        self.settle(match ends_with_frame {
            true => chunk.uncertainty.min(self.last_bytes),
            false => chunk.uncertainty,
        });
    }

    /// Sets the uncertainty of the latest frame.
    fn settle(&mut self, uncertainty: Duration) {
        let (before, after) = std::mem::take(&mut self.frame);
        let found = &mut self.found;
        let first = |before: bool, after: bool, of: &mut Duration| {
            if !before && after {
                *of = uncertainty;
            }
        };
        first(before.events > 0, after.events > 0, &mut found.first_event);
        first(before.token_events > 0, after.token_events > 0, &mut found.first_token);
        first(before.has_reasoning, after.has_reasoning, &mut found.first_reasoning);
        first(before.has_answer, after.has_answer, &mut found.first_answer);
        // A frame without a token changes no arrival of tokens, however late it was read.
        if after.token_events > before.token_events {
            found.last_token = uncertainty;
            found.largest = found.largest.max(uncertainty);
        }
    }

    /// Returns the uncertainties at the end of the recording.
    pub(super) fn finish(self, ends: Uncertainty) -> ArrivalUncertainty {
        ArrivalUncertainty { headers: ends.headers, end: ends.end, ..self.found }
    }
}
