//! stdout and stderr. Lines are written whole, and the progress line is cleared while they are.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use indicatif::ProgressBar;

use llm_stream_core::text::visible_lines;

/// Why stdout lacks a text, which belongs to the process as stdout does.
static UNWRITTEN: Mutex<Option<String>> = Mutex::new(None);

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

    /// Writes to stdout. After an error the measurement continues; see [`unwritten`].
    pub(super) fn out(&self, bytes: &[u8]) {
        let write = || match &self.logfile {
            Some(file) => file.lock().map_or(Ok(()), |mut file| file.write_all(bytes)),
            None => to_stdout(bytes),
        };
        let written = self.suspended(write);
        keep_error(if self.logfile.is_some() { "the log file" } else { "stdout" }, written);
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
    keep_error("stdout", to_stdout(format!("{}\n", visible_lines(line)).as_bytes()));
}

/// Returns a line if something could not be written to stdout, and forgets it.
pub(super) fn unwritten() -> Option<String> {
    UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Keeps the first error of stdout for [`unwritten`]. If the reader of a pipe is gone, it has what it
/// needs.
pub(super) fn keep_error(of: &str, written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let mut kept = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert_with(|| format!("FAILED: {of} cannot be written: {error}"));
    }
}

fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Writes a line to stderr when no run is in progress.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible_lines(line));
}
