//! Ends a run early: one flag for everything that waits.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// A flag that ends a run early. Clones share it.
///
/// The request in flight is dropped; rows of finished requests are kept.
#[derive(Debug, Clone, Default)]
pub struct Cancellation {
    is_cancelled: Arc<AtomicBool>,
    notify: Arc<Notify>,
}

impl Cancellation {
    /// Cancels; false if it was cancelled before.
    pub fn cancel(&self) -> bool {
        let is_first = !self.is_cancelled.swap(true, Ordering::SeqCst);
        self.notify.notify_one();
        is_first
    }

    /// Whether the run is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }

    /// Returns the future's output, or `None` when the cancellation comes first.
    pub(super) async fn or<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.notify.notified() => None,
        }
    }
}
