//! stdout and stderr. Lines are written whole, and the progress line is cleared while they are.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::Mutex,
};

use anyhow::Context as _;
use indicatif::ProgressBar;

use llm_stream_core::text::visible_lines;

/// stdout for libtest's lines, stderr for everything else.
pub(super) struct Terminal {
    bar: Option<ProgressBar>,
    /// libtest's `--logfile`, which replaces stdout.
    logfile: Option<Mutex<File>>,
}

impl Terminal {
    pub(super) fn new(bar: Option<ProgressBar>, logfile: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| {
            File::create(path)
                .with_context(|| format!("failed to create the log file {}", path.display()))
        };
        let logfile = logfile.map(create).transpose()?.map(Mutex::new);
        Ok(Self { bar, logfile })
    }

    /// Writes to stdout. Errors are ignored: the measurement continues if the reader of a pipe is
    /// gone.
    pub(super) fn out(&self, bytes: &[u8]) {
        let write = || match &self.logfile {
            Some(file) => file.lock().map_or(Ok(()), |mut file| file.write_all(bytes)),
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
        };
        let _ = self.suspended(write);
    }

    /// Writes lines to stderr, with control characters escaped: names and server messages must not
    /// move the cursor.
    pub(super) fn err(&self, text: &str) {
        let _ = self.suspended(|| io::stderr().lock().write_all(visible_lines(text).as_bytes()));
    }

    /// Removes the progress line.
    pub(super) fn end_progress(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// Whether stderr is a terminal.
pub(super) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Writes a line to stdout when no run is in progress.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", visible_lines(line));
}

/// Writes a line to stderr when no run is in progress.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible_lines(line));
}
