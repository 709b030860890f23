//! Connections that are open before the clock starts.

use std::time::{Duration, Instant};

use llm_stream_core::recording::{Chunk, Recording, RequestError};

use super::{NextAction, RequestSource};

/// Most connections that are being opened at the same time: servers queue no more than some.
const MOST: usize = 64;

/// A request source that sends nothing: it opens connections until so many are open.
pub struct Preconnect<'a> {
    left: usize,
    under_way: usize,
    is_cancelled: &'a dyn Fn() -> bool,
    /// How many could not be opened, with the first reason.
    pub failed: Option<(usize, RequestError)>,
}

impl<'a> Preconnect<'a> {
    /// Of as many connections, until `is_cancelled`.
    pub fn new(connections: usize, is_cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { left: connections, under_way: 0, is_cancelled, failed: None }
    }

    /// Whether one more may be opened while so many are.
    pub fn may_open(under_way: usize) -> bool {
        under_way < MOST
    }
}

impl RequestSource for Preconnect<'_> {
    fn next(&mut self, _: Instant, idle: usize) -> NextAction {
        // Some may be open already.
        if self.left <= idle.saturating_add(self.under_way) || !Self::may_open(self.under_way) {
            return NextAction::AfterAnAnswer;
        }
        self.under_way += 1;
        NextAction::Open
    }

    fn opened(&mut self, opened: Result<(), RequestError>) {
        self.under_way -= 1;
        if let Err(error) = opened {
            self.left -= 1;
            self.failed.get_or_insert((0, error)).0 += 1;
        }
    }

    fn arrived(&mut self, _: usize, _: &Chunk) {}

    fn last_token(&self, _: &[Chunk]) -> Option<Duration> {
        None
    }

    fn is_cancelled(&self) -> bool {
        (self.is_cancelled)()
    }

    fn finished(&mut self, _: usize, _: Result<Recording, RequestError>) {}
}
