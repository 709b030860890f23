//! How exact are the arrivals of an answer's events? Pure.
//!
//! A chunk has one time, that of its last byte. An event that ends there arrived then, if the kernel
//! says so and can be right. What other bytes follow in the chunk arrived between the chunk's bounds: the client read
//! it late, or the server sent several events at once.

use std::time::Duration;

use crate::recording::{Chunk, StampedBy, Uncertainty};

/// How much earlier than noted the parts of an answer can have arrived. None arrived later.
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
    /// The token event with the largest uncertainty: so much `ttft` and every gap between tokens can
    /// be off.
    pub largest: Duration,
}

/// What of an answer has begun by now.
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
    /// What had begun before the last frame, and after it.
    frame: (EventProgress, EventProgress),
    /// How uncertain the last byte of a chunk can be, by the kernel's stamps.
    last_bytes: Duration,
}

impl ArrivalTracker {
    /// Of a recording whose ends are as uncertain as this.
    pub(super) fn of(ends: Uncertainty) -> Self {
        Self { last_bytes: ends.last_bytes, ..Self::default() }
    }

    /// A frame of `chunk` has been read.
    pub(super) fn frame(&mut self, chunk: &Chunk, before: EventProgress, after: EventProgress) {
        // The frame before it does not end the chunk.
        self.settle(chunk.uncertainty);
        self.frame = (before, after);
    }

    /// `chunk` has been read, and nothing of it is left for a later frame if `is_whole`.
    pub(super) fn end(&mut self, chunk: &Chunk, by: StampedBy, is_whole: bool) {
        let ends_with_frame = is_whole && by == StampedBy::Kernel;
        self.settle(match ends_with_frame {
            true => chunk.uncertainty.min(self.last_bytes),
            false => chunk.uncertainty,
        });
    }

    /// The last frame can have arrived so much earlier.
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
        if after.token_events > before.token_events {
            found.last_token = uncertainty;
            found.largest = found.largest.max(uncertainty);
        }
    }

    /// What is known at the end of a recording.
    pub(super) fn finish(self, ends: Uncertainty) -> ArrivalUncertainty {
        ArrivalUncertainty { headers: ends.headers, end: ends.end, ..self.found }
    }
}
