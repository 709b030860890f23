//! Ends a run early: one flag for everything that waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use llm_stream_client::AnswerObserver;

/// A flag that ends a run early. Clones share it.
///
/// The request in flight is dropped; rows of finished requests are kept.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Cancels; false if it was cancelled before.
    pub fn cancel(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }

    /// Whether the run is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Abandons answers when the run is cancelled, and ignores their bytes.
impl AnswerObserver for Cancellation {
    fn is_cancelled(&self) -> bool {
        self.is_cancelled()
    }
}
