//! What the simulated endpoint did and when. Measurements are compared with this log, not with the
//! script, because a busy machine writes late.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use llm_stream_core::punctuality::{AnswerTiming, EventTiming};

/// The log of one answer so far. The script says when a token was due; the log says when it was
/// written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerLog {
    /// The request's number among the requests for a completion, from 1.
    pub request: u64,
    /// The completion's id in the response.
    pub id: String,
    /// When the whole request had been read. All deadlines count from here.
    pub received: Instant,
    /// The request's body; empty when it was longer than [`BODY_LIMIT`](Self::BODY_LIMIT).
    pub body: Bytes,
    /// When the write of the response's head returned. For an answer that is not streamed: of the
    /// whole response.
    pub head_returned: Option<Instant>,
    /// The writes of the stream, in order. A brief log keeps only those of the first and of the
    /// latest token event.
    pub writes: Vec<Write>,
    /// The largest lateness of a write with a token event.
    pub latest: Duration,
    /// Whether the response ended as HTTP requires, even if a fault truncated the answer. False while
    /// the answer is in progress, after a reset, and after the client left.
    pub completed: bool,
    /// Whether the log is brief, so that a long load fits into memory.
    is_brief: bool,
}

impl AnswerLog {
    /// The longest request body that the log keeps, bytes.
    pub const BODY_LIMIT: usize = 64 << 10;

    /// Returns the write that completed the first token event.
    pub fn first_token(&self) -> Option<&Write> {
        self.writes.iter().find(|write| write.token_events > 0)
    }

    /// Returns the write that completed the latest token event.
    pub fn last_token(&self) -> Option<&Write> {
        self.writes.iter().rfind(|write| write.token_events > 0)
    }

    /// Compares the times of its token events with the script.
    pub fn timing(&self) -> AnswerTiming {
        let event = |write: &Write| EventTiming { due: write.due, began: write.began };
        let (received, latest) = (self.received, self.latest);
        let (first, last) = (self.first_token().map(event), self.last_token().map(event));
        AnswerTiming { received, first, last, latest }
    }

    /// Records a write of the stream.
    pub(super) fn note(&mut self, write: Write) {
        let has_token = write.token_events > 0;
        if has_token {
            self.latest = self.latest.max(write.lateness());
        }
        match (self.is_brief, self.writes.len()) {
            (true, _) if !has_token => {}
            (true, 2) => self.writes[1] = write,
            _ => self.writes.push(write),
        }
    }
}

/// One write of a response's body. On loopback, its bytes reach the client between
/// [`began`](Self::began) and [`returned`](Self::returned).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// When the script scheduled it.
    pub due: Instant,
    /// When it was first handed to the operating system.
    pub began: Instant,
    /// When the operating system had accepted its last byte.
    pub returned: Instant,
    /// Its size on the wire with transfer coding, before encryption.
    pub bytes: usize,
    /// The number of token events that it completes.
    pub token_events: u64,
}

impl Write {
    /// Returns the time from when it was due to when it began.
    pub fn lateness(&self) -> Duration {
        self.began.saturating_duration_since(self.due)
    }
}

/// The answers of one endpoint, shared by its thread and its owner.
///
/// Each answer has its own lock, so that a reader of the log delays a write by the copy of one
/// answer at most.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<AnswerLogs>);

#[derive(Debug, Default)]
struct AnswerLogs {
    entries: Vec<LogEntry>,
    /// Whether the logs are brief.
    is_brief: bool,
}

/// A handle of one answer's log.
#[derive(Debug, Clone)]
pub(super) struct LogEntry(Arc<Mutex<AnswerLog>>);

impl Log {
    /// Opens the log of a new answer.
    pub(super) fn open(
        &self,
        request: u64,
        id: String,
        received: Instant,
        body: &[u8],
    ) -> LogEntry {
        let is_brief = lock(&self.0).is_brief;
        let body = match body.len() <= AnswerLog::BODY_LIMIT && !is_brief {
            true => Bytes::copy_from_slice(body),
            false => Bytes::new(),
        };
        let entry = LogEntry(Arc::new(Mutex::new(AnswerLog {
            request,
            id,
            received,
            body,
            head_returned: None,
            writes: Vec::new(),
            latest: Duration::ZERO,
            completed: false,
            is_brief,
        })));
        lock(&self.0).entries.push(entry.clone());
        entry
    }

    /// Makes the logs brief: each keeps the first and the latest write with a token event.
    pub(super) fn shorten(&self) {
        let mut answers = lock(&self.0);
        answers.is_brief = true;
        drop(mem::take(&mut answers.entries));
    }

    /// Takes every answer out of the log.
    pub(super) fn take(&self) -> Vec<AnswerLog> {
        let entries = mem::take(&mut lock(&self.0).entries);
        entries.iter().map(|entry| entry.lock().clone()).collect()
    }

    /// Takes the answers that have ended out of the log.
    pub(super) fn take_ended(&self) -> Vec<AnswerLog> {
        // An answer that was aborted has no other owner.
        let is_over =
            |entry: &mut LogEntry| entry.lock().completed || Arc::strong_count(&entry.0) == 1;
        let ended: Vec<_> = lock(&self.0).entries.extract_if(.., is_over).collect();
        ended.iter().map(|entry| entry.lock().clone()).collect()
    }

    /// Copies every answer.
    pub(super) fn answers(&self) -> Vec<AnswerLog> {
        let entries = lock(&self.0).entries.clone();
        entries.iter().map(|entry| entry.lock().clone()).collect()
    }
}

impl LogEntry {
    /// Locks the answer's log.
    pub(super) fn lock(&self) -> MutexGuard<'_, AnswerLog> {
        lock(&self.0)
    }
}

/// Locks even if another thread panicked: the log remains readable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace;

    #[test]
    fn long_bodies_are_not_kept() {
        let log = Log::default();
        let open = |number, size| log.open(number, String::new(), pace::now(), &vec![0; size]);
        open(1, AnswerLog::BODY_LIMIT);
        open(2, AnswerLog::BODY_LIMIT + 1);
        let sizes: Vec<usize> = log.answers().iter().map(|a| a.body.len()).collect();
        assert_eq!(sizes, [AnswerLog::BODY_LIMIT, 0]);
    }

    #[test]
    fn a_brief_log_keeps_the_first_and_the_last_token_and_the_latest_write() {
        let log = Log::default();
        log.shorten();
        let begin = pace::now();
        let ms = |ms| begin + Duration::from_millis(ms);
        let write = |due, began, token_events| Write {
            due: ms(due),
            began: ms(began),
            returned: ms(began),
            bytes: 9,
            token_events,
        };
        let entry = log.open(1, String::new(), begin, b"body");
        for (due, began, token_events) in
            [(0, 0, 0), (5, 6, 1), (10, 17, 1), (15, 15, 1), (20, 22, 1), (20, 40, 0)]
        {
            entry.lock().note(write(due, began, token_events));
        }
        let [answer] = &log.take()[..] else { panic!("one answer") };
        assert_eq!(answer.body, "");
        assert_eq!(answer.first_token(), Some(&write(5, 6, 1)));
        assert_eq!(answer.last_token(), Some(&write(20, 22, 1)));
        assert_eq!(answer.latest, Duration::from_millis(7));
        assert_eq!(log.take(), [], "they are taken once");
        // Of the two, one is in progress and one was aborted.
        let runs = log.open(2, String::new(), begin, b"");
        drop(log.open(3, String::new(), begin, b""));
        let requests = || log.take_ended().iter().map(|answer| answer.request).collect::<Vec<_>>();
        assert_eq!(requests(), [3]);
        runs.lock().completed = true;
        assert_eq!(requests(), [2]);
    }
}
