//! Signals: SIGINT (Ctrl-C), SIGTERM and SIGHUP.
//!
//! During a measurement the first signal cancels the run: the requests in flight are dropped, the
//! finished ones are reported. A second signal ends the process at once, also while reports are
//! written, and so does the first one outside of a measurement. The exit code is 128 + the signal's
//! number, as a shell reports it.
//!
//! Signals belong to the process, and so does the state here.

use std::{
    io, process,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use super::live;
use crate::{run::Cancellation, whole_file};

/// The exit code of Ctrl-C.
const INTERRUPTED: u8 = 130;

/// The run that the first signal cancels.
static RUN: OnceLock<Cancellation> = OnceLock::new();

/// The exit code of the first signal; 0 before it.
static RECEIVED: AtomicU8 = AtomicU8::new(0);

/// Returns the token that the first signal cancels from now on.
pub(super) fn cancellation() -> Cancellation {
    RUN.get_or_init(Cancellation::default).clone()
}

/// Returns the exit code of a cancelled run.
pub(super) fn exit_code() -> u8 {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => INTERRUPTED,
        code => code,
    }
}

/// Handles the signals in a thread, for the rest of the process.
#[cfg(unix)]
pub(super) fn listen() -> io::Result<()> {
    use std::{sync::Arc, thread};

    use signal_hook::{consts, flag, iterator::Signals};

    let mut signals = vec![consts::SIGINT, consts::SIGTERM];
    signals.extend(Some(consts::SIGHUP).filter(|_| !is_hang_up_ignored()));
    let mut signals = Signals::new(signals)?;
    // By default a file that exceeds `ulimit -f` ends the process. With a handler the write fails.
    flag::register(consts::SIGXFSZ, Arc::default())?;
    let handle = move || {
        for signal in signals.forever() {
            received(128 + u8::try_from(signal).unwrap_or_default());
        }
    };
    thread::Builder::new().name("signals".into()).spawn(handle)?;
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn listen() -> io::Result<()> {
    ctrlc::set_handler(|| received(INTERRUPTED)).map_err(io::Error::other)
}

/// Whether SIGHUP is ignored, as under `nohup`, or its disposition is unknown: it then stays as it
/// is. Only Linux has a file with the disposition; other systems need unsafe code.
#[cfg(unix)]
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask & 1 != 0)
}

/// Takes a signal with this exit code.
fn received(code: u8) {
    let _ = RECEIVED.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
    if RUN.get().is_none_or(|run| !run.cancel()) {
        whole_file::abandon();
        live::erase_view();
        process::exit(code.into());
    }
}
