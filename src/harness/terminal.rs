//! The two streams that people and parsers read. Lines are written whole, and the progress line
//! steps aside for them.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::Mutex,
};

use anyhow::Context as _;
use indicatif::ProgressBar;

use llm_stream_core::text::visible_lines;

/// stdout for libtest's lines, stderr for all else.
pub(super) struct Terminal {
    bar: Option<ProgressBar>,
    /// libtest's `--logfile`, which takes the place of stdout.
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

    /// Writes to stdout. The measurement goes on if the reader has gone away.
    pub(super) fn out(&self, bytes: &[u8]) {
        let write = || match &self.logfile {
            Some(file) => file.lock().map_or(Ok(()), |mut file| file.write_all(bytes)),
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
        };
        let _ = self.aside(write);
    }

    /// Writes lines to stderr; names and words of others in them cannot move the cursor.
    pub(super) fn err(&self, text: &str) {
        let _ = self.aside(|| io::stderr().lock().write_all(visible_lines(text).as_bytes()));
    }

    /// Takes the progress line away for good.
    pub(super) fn end_progress(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// Whether someone watches stderr.
pub(super) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Writes a line to stdout, outside any run.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", visible_lines(line));
}

/// Writes a line to stderr, outside any run.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible_lines(line));
}
