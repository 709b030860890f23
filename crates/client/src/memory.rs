//! Bounds the memory of all answers together.
//!
//! A limit per answer does not bound a load: hundreds of answers may be received at a time, and
//! others wait to be interpreted. When the limit is reached, the answer that holds more than its
//! share ends, so that a server that floods one answer does not fail the others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use llm_stream_core::recording::{Chunk, ErrorKind, RequestError};

/// The default limit, bytes.
pub const DEFAULT_MEMORY: usize = 512_000_000;

/// The smallest limit: a small answer and its interpretation fit.
pub const LEAST_MEMORY: usize = 16_000_000;

/// The memory of a chunk beyond its bytes: its times, its handle and its allocation.
const CHUNK: usize = 128;

/// The part of a flood that is kept, bytes.
const KEPT: usize = 64 << 10;

/// Answers below this part of an equal share do not end when the limit is reached.
const FAIR: usize = 4;

/// The limit of the memory of all answers of a run. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: usize,
    /// Bytes of all answers, those that wait to be interpreted included.
    used: AtomicUsize,
    /// Answers that hold bytes and are being received.
    receiving: AtomicUsize,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::new(DEFAULT_MEMORY)
    }
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let (used, receiving) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Account { limit, used, receiving }))
    }

    /// Whether the limit is reached: no request should be sent before answers are interpreted.
    pub fn is_full(&self) -> bool {
        self.0.used.load(Ordering::Relaxed) >= self.0.limit
    }

    /// Bytes of all answers.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

/// The memory of one answer, which is released when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryCharge {
    budget: MemoryBudget,
    bytes: usize,
    is_receiving: bool,
}

impl MemoryCharge {
    pub(crate) fn new(budget: &MemoryBudget) -> Self {
        Self { budget: budget.clone(), bytes: 0, is_receiving: false }
    }

    /// Counts a read of `bytes`. Fails if the limit is reached and this answer holds more than its
    /// share.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), RequestError> {
        let account = &self.budget.0;
        if !self.is_receiving {
            self.is_receiving = true;
            account.receiving.fetch_add(1, Ordering::Relaxed);
        }
        let bytes = bytes + CHUNK;
        self.bytes += bytes;
        let used = account.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let share = account.limit / (FAIR * account.receiving.load(Ordering::Relaxed).max(1));
        match used > account.limit && self.bytes >= share {
            true => Err(self.too_much()),
            false => Ok(()),
        }
    }

    /// Notes that the answer has ended, and drops all but the beginning of a flood: nothing else of
    /// it is interpreted.
    pub(crate) fn end(&mut self, chunks: &mut Vec<Chunk>, broken: Option<&RequestError>) {
        self.ended();
        if broken.is_some_and(|broken| broken.kind == ErrorKind::TooLong) {
            keep_beginning(chunks);
            self.shrink(KEPT);
        }
    }

    /// Notes that the answer is not received any more.
    fn ended(&mut self) {
        if std::mem::take(&mut self.is_receiving) {
            self.budget.0.receiving.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts `bytes` only, because the others were dropped.
    fn shrink(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        self.budget.0.used.fetch_sub(freed, Ordering::Relaxed);
    }

    fn too_much(&self) -> RequestError {
        let megabytes = |bytes: usize| (bytes as f64 / 1e6).ceil();
        let message = format!(
            "the answer was ended after {} MB: all answers together reached {} MB (`max_memory`); \
             raise it if answers are meant to be as long",
            megabytes(self.bytes),
            megabytes(self.budget.0.limit),
        );
        RequestError::new(ErrorKind::TooLong, message)
    }
}

/// Drops the chunks after the first [`KEPT`] bytes.
fn keep_beginning(chunks: &mut Vec<Chunk>) {
    let mut kept = 0;
    chunks.retain_mut(|chunk| {
        let room = KEPT.saturating_sub(kept);
        kept += chunk.bytes.len();
        // Copies the bytes, because a part keeps the whole block alive.
        chunk.bytes = Bytes::copy_from_slice(&chunk.bytes[..chunk.bytes.len().min(room)]);
        room > 0
    });
    chunks.shrink_to_fit();
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.ended();
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_answer_with_more_than_its_share_ends_and_the_others_go_on() {
        let budget = MemoryBudget::new(1_000_000);
        let [mut flood, mut other] = [(); 2].map(|()| MemoryCharge::new(&budget));
        other.add(1_000).unwrap();
        for _ in 0..9 {
            flood.add(100_000).unwrap();
        }
        let error = flood.add(100_000).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLong);
        assert!(error.message.starts_with("the answer was ended after 2 MB"), "{error}");
        assert!(budget.is_full());
        other.add(1_000).unwrap();
        let chunk = |bytes: usize| Chunk {
            at: Duration::ZERO,
            uncertainty: Duration::ZERO,
            bytes: vec![0; bytes].into(),
        };
        let mut chunks = vec![chunk(60_000), chunk(60_000), chunk(60_000)];
        flood.end(&mut chunks, Some(&error));
        let kept: Vec<_> = chunks.iter().map(|chunk| chunk.bytes.len()).collect();
        assert_eq!(kept, [60_000, KEPT - 60_000]);
        assert!(!budget.is_full());
        drop((flood, other));
        assert_eq!(budget.used(), 0);
    }
}
