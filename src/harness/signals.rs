//! Ctrl-C: the request in flight is dropped, finished rows are reported, exit 130. A second one ends
//! the process at once.

use crate::run::Cancellation;

/// Cancels the returned token at the first interrupt.
pub(super) fn listen() -> Result<Cancellation, ctrlc::Error> {
    let cancellation = Cancellation::default();
    let handler = cancellation.clone();
    ctrlc::set_handler(move || {
        if !handler.cancel() {
            std::process::exit(i32::from(super::INTERRUPTED));
        }
    })?;
    Ok(cancellation)
}
