//! Where a load is: in its ramp, its warm-up, or the part that `requests` and `duration` count.

use std::time::Duration;

use llm_stream_core::phases::{WarmUp, WindowRule};

use crate::plan::Workload;

/// The phase of a load in progress.
#[derive(Debug)]
pub(super) struct LoadPhase {
    /// When the measured part begins or began, once that is known.
    pub(super) measured_from: Option<Duration>,
    /// The end of the ramp.
    ramp: Duration,
    /// The requests of the warm-up that are not sent yet.
    warm_up: usize,
    /// The requests that are sent before those that `requests` counts.
    uncounted: usize,
    /// Whether `requests` and `duration` count from the start of the measured part.
    counts_measured: bool,
}

impl LoadPhase {
    /// The start of a load.
    pub(super) fn of(workload: &Workload) -> Self {
        let phases = workload.phases;
        // A trace has a fixed number of requests, and a window is a part of the load as it is written.
        let is_part = workload.trace.is_some() || matches!(phases.window, WindowRule::Between(..));
        Self {
            measured_from: phases.measured_from(),
            ramp: phases.ramp,
            warm_up: match phases.warm_up {
                WarmUp::Requests(requests) => requests,
                WarmUp::None | WarmUp::Time(_) => 0,
            },
            uncounted: 0,
            counts_measured: !is_part,
        }
    }

    /// Notes a request that begins now.
    pub(super) fn begin(&mut self, elapsed: Duration) {
        if self.measured_from.is_none() && elapsed >= self.ramp {
            match self.warm_up.checked_sub(1) {
                Some(left) => self.warm_up = left,
                None => self.measured_from = Some(elapsed),
            }
        }
        let is_measured = self.measured_from.is_some_and(|from| elapsed >= from);
        self.uncounted += usize::from(self.counts_measured && !is_measured);
    }

    /// Returns how many of `sent` requests count for `requests`.
    pub(super) fn counting(&self, sent: usize) -> usize {
        sent - self.uncounted
    }

    /// Returns whether `start` is within `duration`.
    pub(super) fn is_before(&self, start: Duration, duration: Duration) -> bool {
        match (self.counts_measured, self.measured_from) {
            (true, Some(from)) => start < from + duration,
            (true, None) => true,
            (false, _) => start < duration,
        }
    }
}
