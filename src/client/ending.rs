//! When an answer has ended though its body has not.
//!
//! A server that keeps the body open after the end marker would cost a limit's time and a good
//! answer. The client looks for the end only when bytes stop coming, and looks at each byte once,
//! so that a stream that flows costs nothing.

use std::{mem, time::Duration};

use crate::recording::{Chunk, ErrorKind, RequestError};

/// How long the end marker must be the last that came: usage may follow it.
pub(super) const QUIET: Duration = Duration::from_millis(250);

/// How often to look at a stream that is never quiet: comments may follow the end marker.
const ANYWAY: Duration = Duration::from_secs(1);

/// Looks for the end of one answer.
#[derive(Debug, Default)]
pub(super) struct EndSearch {
    /// How many chunks were looked at.
    seen: usize,
    /// When.
    last_look: Duration,
}

impl EndSearch {
    /// Whether the answer in `chunks` ended [`QUIET`] before `now` or earlier. `has_ended` gets
    /// chunks, and how many of them it was given before.
    pub(super) fn finds(
        &mut self,
        chunks: &[Chunk],
        now: Duration,
        has_ended: impl Fn(&[Chunk], usize) -> bool,
    ) -> bool {
        let is_old = |chunk: &Chunk| chunk.at + QUIET <= now;
        let is_quiet = chunks.last().is_some_and(is_old);
        if self.seen == chunks.len() || !is_quiet && now < self.last_look + ANYWAY {
            return false;
        }
        let old = chunks.partition_point(is_old);
        self.last_look = now;
        let seen = mem::replace(&mut self.seen, old);
        old > seen && has_ended(&chunks[..old], seen)
    }
}

/// How a body ends that the server kept open.
pub(super) fn left_open() -> RequestError {
    let message = "the answer had ended, and the server kept the body open";
    RequestError::new(ErrorKind::LeftOpen, message)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn chunks(times: &[u64]) -> Vec<Chunk> {
        times
            .iter()
            .map(|at| Chunk { at: ms(*at), uncertainty: Duration::ZERO, bytes: "x".into() })
            .collect()
    }

    #[test]
    fn each_chunk_is_looked_at_once_and_only_when_the_stream_is_quiet() {
        let looks = RefCell::new(Vec::new());
        let mut search = EndSearch::default();
        let mut look = |chunks: &[Chunk], now| {
            search.finds(chunks, ms(now), |chunks, seen| {
                looks.borrow_mut().push((chunks.len(), seen));
                chunks.len() == 4
            })
        };
        assert!(!look(&chunks(&[]), 400));
        assert!(!look(&chunks(&[10, 20]), 269), "not quiet");
        assert!(!look(&chunks(&[10, 20]), 270));
        assert!(!look(&chunks(&[10, 20]), 9000), "nothing new");
        assert!(!look(&chunks(&[10, 20, 9100]), 9200), "not quiet");
        assert!(look(&chunks(&[10, 20, 9100, 9200]), 9450));
        assert_eq!(looks.take(), [(2, 0), (4, 2)]);
    }

    #[test]
    fn comments_do_not_hide_an_end() {
        let looks = RefCell::new(Vec::new());
        let mut search = EndSearch::default();
        let pings: Vec<_> = (0..30).map(|n| n * 100).collect();
        for now in 0..30_usize {
            let came = chunks(&pings[..=now]);
            search.finds(&came, ms(100 * now as u64 + 1), |chunks, seen| {
                looks.borrow_mut().push((chunks.len(), seen));
                false
            });
        }
        assert_eq!(looks.take(), [(8, 0), (18, 8)]);
    }
}
