//! Timeouts of one request.
//!
//! Token limits need the arrival of the last token, and finding it means parsing the answer. So the
//! client asks for it only when a limit may have expired, and then of as few chunks as possible.

use std::time::{Duration, Instant};

use llm_stream_core::recording::{Chunk, ErrorKind, RequestError};

use super::now;
use crate::options::Timeouts;

/// The timeouts of one request. They count from its hand-over to an open connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) origin: Instant,
    pub(super) timeouts: Timeouts,
}

impl Limits {
    pub(super) fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.origin)
    }

    /// The earliest time at which a limit can expire. The client does not see tokens arrive, so the
    /// limit between two tokens may count from the start.
    pub(super) fn first_deadline(&self) -> Instant {
        let Timeouts { first_token, inter_token, total, .. } = self.timeouts;
        self.origin + first_token.min(inter_token).min(total)
    }

    /// Fails if a limit had expired at `as_of`; otherwise returns the time to check again. `chunks`
    /// hold everything that had arrived by then; `last_token` returns the arrival of the last token
    /// in some chunks.
    ///
    /// `as_of` is taken before the chunks are read and parsed, because the server may send more
    /// meanwhile.
    pub(super) fn expired(
        &self,
        as_of: Duration,
        chunks: &[Chunk],
        last_token: impl Fn(&[Chunk]) -> Option<Duration>,
    ) -> Result<Instant, RequestError> {
        let inter_token = self.timeouts.inter_token;
        let old = chunks.partition_point(|chunk| chunk.at.saturating_add(inter_token) <= as_of);
        let last_token = match last_of(&chunks[old..], &last_token) {
            None if old > 0 => last_token(chunks),
            recent => recent,
        };
        next(self.timeouts, as_of, last_token).map(|next| self.origin + next)
    }
}

/// The arrival of the last token in `chunks`. Tries the last chunk, then two, four and so on, so that
/// a long answer is not parsed again at each check.
fn last_of(
    chunks: &[Chunk],
    last_token: impl Fn(&[Chunk]) -> Option<Duration>,
) -> Option<Duration> {
    let counts = std::iter::successors(Some(1), |count| Some(count * 2));
    let counts = counts.take_while(|count| count / 2 < chunks.len());
    counts.map(|count| &chunks[chunks.len().saturating_sub(count)..]).find_map(last_token)
}

fn next(
    timeouts: Timeouts,
    elapsed: Duration,
    last_token: Option<Duration>,
) -> Result<Duration, RequestError> {
    let Timeouts { first_token, inter_token, total, .. } = timeouts;
    if elapsed >= total {
        let message = format!("the answer took longer than {total:?} (timeouts.total)");
        return Err(RequestError::new(ErrorKind::TotalTimeout, message));
    }
    let next = match last_token {
        None if elapsed >= first_token => {
            let message = format!("no token within {first_token:?} (timeouts.first_token)");
            return Err(RequestError::new(ErrorKind::FirstTokenTimeout, message));
        }
        Some(at) if elapsed >= at + inter_token => {
            let message = format!("no token for {inter_token:?} (timeouts.inter_token)");
            return Err(RequestError::new(ErrorKind::InterTokenTimeout, message));
        }
        None => first_token.min(elapsed + inter_token),
        Some(at) => at + inter_token,
    };
    Ok(next.min(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn recent_chunks_are_read_first_and_the_rest_only_when_they_have_no_token() {
        let timeouts =
            Timeouts { connect: ms(0), first_token: ms(100), inter_token: ms(30), total: ms(900) };
        let limits = Limits { origin: now(), timeouts };
        let chunks: Vec<_> = [10, 20, 60]
            .map(|at| Chunk { at: ms(at), uncertainty: Duration::ZERO, bytes: "x".into() })
            .into();
        let reads = std::cell::RefCell::new(Vec::new());
        let expired = |as_of, token: u64| {
            let last_token = |chunks: &[Chunk]| {
                reads.borrow_mut().push(chunks.len());
                chunks.iter().map(|chunk| chunk.at).rfind(|at| *at <= ms(token))
            };
            let next = limits.expired(ms(as_of), &chunks, last_token);
            next.map(|at| at - limits.origin).map_err(|error| error.kind.name())
        };
        assert_eq!(expired(62, 60), Ok(ms(90)));
        assert_eq!(expired(45, 20), Ok(ms(50)));
        assert_eq!(expired(62, 20), Err("inter_token_timeout"));
        assert_eq!(expired(95, 0), Ok(ms(100)));
        assert_eq!(reads.take(), [1, 1, 2, 1, 3, 3]);
    }

    #[test]
    fn each_limit_runs_out_at_its_time() {
        let timeouts =
            Timeouts { connect: ms(0), first_token: ms(100), inter_token: ms(30), total: ms(200) };
        let outcome = |elapsed, last: Option<u64>| {
            next(timeouts, ms(elapsed), last.map(ms)).map_err(|error| error.kind.name())
        };
        assert_eq!(outcome(30, None), Ok(ms(60)), "a token may come now, and the next be late");
        assert_eq!(outcome(90, None), Ok(ms(100)));
        assert_eq!(outcome(100, None), Err("first_token_timeout"));
        assert_eq!(outcome(60, Some(50)), Ok(ms(80)));
        assert_eq!(outcome(80, Some(50)), Err("inter_token_timeout"));
        assert_eq!(outcome(190, Some(185)), Ok(ms(200)));
        assert_eq!(outcome(200, Some(199)), Err("total_timeout"));
    }
}
