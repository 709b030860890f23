//! Ctrl-C: the request in flight is dropped, what has finished is reported, exit 130. A second one
//! ends the process at once.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// Whether the user wants the run to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt {
    came: Arc<AtomicBool>,
    notify: Arc<Notify>,
}

impl Interrupt {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, ctrlc::Error> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            if handler.came.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            handler.notify.notify_one();
        })?;
        Ok(interrupt)
    }

    pub(super) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }

    /// The future's output, or `None` when the interrupt comes first.
    pub(super) async fn or<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.notify.notified() => None,
        }
    }
}
