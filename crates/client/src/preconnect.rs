//! Opens connections before a load starts, so that no request pays for connection setup.

use std::time::Instant;

use llm_stream_core::recording::{Recording, RequestError};

use super::{NextAction, RequestSource};

/// Most connections that are opened at the same time: the accept queues of servers are short.
const MOST: usize = 64;

/// A request source that sends nothing and opens a number of connections.
#[derive(Debug)]
pub struct Preconnect {
    left: usize,
    under_way: usize,
    /// The number of failed connections, and the first error.
    pub failed: Option<(usize, RequestError)>,
}

impl Preconnect {
    /// Opens `connections` connections.
    pub fn new(connections: usize) -> Self {
        Self { left: connections, under_way: 0, failed: None }
    }

    /// Whether another connection may be opened while `under_way` are in progress.
    pub fn may_open(under_way: usize) -> bool {
        under_way < MOST
    }
}

impl RequestSource for Preconnect {
    fn next(&mut self, _: Instant, idle: usize) -> NextAction {
        // Idle connections of an earlier load count.
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

    fn finished(&mut self, _: usize, _: Result<Recording, RequestError>) {}
}
