//! When to give up on an answer.

use std::time::{Duration, Instant};

use super::now;
use crate::{
    plan::Timeouts,
    recording::{ErrorKind, RequestError},
};

/// The limits of one request, counted from its hand-over to an open connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) origin: Instant,
    pub(super) timeouts: Timeouts,
}

impl Limits {
    pub(super) fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.origin)
    }

    /// The first time at which a limit can have run out. A first token may come unseen before it,
    /// and the limit on the next one with it.
    pub(super) fn first_deadline(&self) -> Instant {
        let Timeouts { first_token, inter_token, total, .. } = self.timeouts;
        self.origin + first_token.min(inter_token).min(total)
    }

    /// Which limit has run out, given the last token's arrival; if none has, the time of the next.
    pub(super) fn expired(&self, last_token: Option<Duration>) -> Result<Instant, RequestError> {
        next(self.timeouts, self.elapsed(), last_token).map(|next| self.origin + next)
    }
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
    fn each_limit_runs_out_at_its_time() {
        let timeouts =
            Timeouts { connect: ms(0), first_token: ms(100), inter_token: ms(30), total: ms(200) };
        let told = |elapsed, last: Option<u64>| {
            next(timeouts, ms(elapsed), last.map(ms)).map_err(|error| error.kind.name())
        };
        assert_eq!(told(30, None), Ok(ms(60)), "a token may come now, and the next be late");
        assert_eq!(told(90, None), Ok(ms(100)));
        assert_eq!(told(100, None), Err("first_token_timeout"));
        assert_eq!(told(60, Some(50)), Ok(ms(80)));
        assert_eq!(told(80, Some(50)), Err("inter_token_timeout"));
        assert_eq!(told(190, Some(185)), Ok(ms(200)));
        assert_eq!(told(200, Some(199)), Err("total_timeout"));
    }
}
