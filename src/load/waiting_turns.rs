//! The next turns of conversations, which start after the time to think.

use std::{collections::BTreeMap, time::Duration};

use llm_stream_core::lengths::LengthRange;

use crate::plan::Workload;

/// Conversations by the time of their next turn, from the start of the load.
pub(super) struct WaitingTurns<T> {
    think: Option<LengthRange>,
    seed: u64,
    /// The number of turns so far. It keeps turns of the same time in order and selects their times to
    /// think.
    count: u64,
    waiting: BTreeMap<(Duration, u64), T>,
}

impl<T> WaitingTurns<T> {
    pub(super) fn new(workload: &Workload, run: u32) -> Self {
        let seed = workload.seed.wrapping_add(run.into()) ^ 0x7468_696e_6b00;
        Self { think: workload.think, seed, count: 0, waiting: BTreeMap::new() }
    }

    /// Adds a conversation whose last answer ended at `ended`.
    pub(super) fn push(&mut self, ended: Duration, conversation: T) {
        let millis = self.think.map_or(0, |think| think.draw(self.seed, self.count));
        let due = ended.saturating_add(Duration::from_millis(millis));
        self.waiting.insert((due, self.count), conversation);
        self.count += 1;
    }

    /// Returns when the next turn is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the next turn.
    pub(super) fn pop(&mut self) -> Option<(Duration, T)> {
        self.waiting.pop_first().map(|((due, _), conversation)| (due, conversation))
    }
}
