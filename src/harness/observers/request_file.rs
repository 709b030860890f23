//! The file of the requests with all arrivals: plain, compressed or none.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::row_file::RowFile;
use crate::{
    cli::RequestsFormat,
    store::{self, zst},
};

/// The bytes of lines that are compressed together, into a frame. Larger frames are hardly smaller.
const FRAME: usize = 1 << 18;

/// The time between two frames that are not full. A line that comes later is written at once: a run
/// that is killed loses few lines.
const INTERVAL: Duration = Duration::from_secs(5);

/// The file of the requests, for the observer that writes it and for the end of the run.
#[derive(Clone)]
pub(in crate::harness) struct RequestFile(Arc<Mutex<Lines>>);

enum Lines {
    None,
    Plain(RowFile),
    Compressed(Frames),
}

/// A compressed file: frames of whole lines.
struct Frames {
    file: RowFile,
    /// The lines that are not in a frame yet.
    waiting: Vec<u8>,
    /// When the last frame was written, or the file was opened.
    since: Instant,
}

impl RequestFile {
    /// Opens the file in `folder` and keeps its content.
    pub(super) fn open(folder: Option<&Path>, format: RequestsFormat) -> anyhow::Result<Self> {
        let Some((folder, name)) = folder.zip(Self::name(format)) else {
            return Ok(Self::of(Lines::None));
        };
        let file = super::results::open(&folder.join(name))?;
        Ok(Self::of(match format {
            RequestsFormat::Zst => {
                Lines::Compressed(Frames { file, waiting: Vec::new(), since: now() })
            }
            _ => Lines::Plain(file),
        }))
    }

    /// The name of the file, if the format has one.
    pub(in crate::harness) fn name(format: RequestsFormat) -> Option<&'static str> {
        match format {
            RequestsFormat::Jsonl => Some(store::REQUESTS),
            RequestsFormat::Zst => Some(store::REQUESTS_ZST),
            RequestsFormat::None => None,
        }
    }

    fn of(lines: Lines) -> Self {
        Self(Arc::new(Mutex::new(lines)))
    }

    /// Empties the file, and removes the files of other formats in `folder`, which are those of an
    /// earlier run.
    pub(super) fn begin(&self, folder: Option<&Path>) -> anyhow::Result<()> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Lines::Plain(file) | Lines::Compressed(Frames { file, .. }) = &mut *lines {
            super::results::emptied(file)?;
        }
        for name in [store::REQUESTS, store::REQUESTS_ZST] {
            let Some(path) = folder.map(|folder| folder.join(name)) else { continue };
            if lines.file().is_none_or(|file| file.path() != path) && path.is_file() {
                std::fs::remove_file(&path).with_context(|| {
                    format!("failed to remove {}, the file of an earlier run", path.display())
                })?;
            }
        }
        Ok(())
    }

    /// Writes a line, unless there is no file. If it fails, the file has no part of the line.
    pub(super) fn write(&self, line: impl FnOnce() -> String) -> anyhow::Result<()> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *lines {
            Lines::None => return Ok(()),
            Lines::Plain(file) => file.write_all(line().as_bytes()),
            Lines::Compressed(frames) => frames.write(line().as_bytes(), now()),
        };
        written.with_context(|| format!("failed to write to {}", lines.name()))
    }

    /// Writes the lines that wait, at the end of the run. Returns a line of the run's outcome if that
    /// fails.
    pub(in crate::harness) fn finish(&self) -> Option<String> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines::Compressed(frames) = &mut *lines else { return None };
        let error = frames.flush().err()?;
        Some(format!("FAILED: cannot write {}: {error}", frames.file.path().display()))
    }
}

impl Lines {
    fn file(&self) -> Option<&RowFile> {
        match self {
            Self::None => None,
            Self::Plain(file) | Self::Compressed(Frames { file, .. }) => Some(file),
        }
    }

    fn name(&self) -> String {
        let name = self.file().and_then(|file| file.path().file_name());
        name.unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Frames {
    fn write(&mut self, line: &[u8], now: Instant) -> io::Result<()> {
        let before = self.waiting.len();
        self.waiting.extend_from_slice(line);
        if self.waiting.len() < FRAME && now.duration_since(self.since) < INTERVAL {
            return Ok(());
        }
        self.since = now;
        // Lines that were taken earlier wait for the next try.
        let flushed = self.flush();
        if flushed.is_err() {
            self.waiting.truncate(before);
        }
        flushed
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.file.write_all(&zst::frame(&self.waiting))?;
            self.waiting.clear();
        }
        Ok(())
    }
}

/// The clock of the frames. No figure comes from it.
#[expect(clippy::disallowed_methods, reason = "lines wait for a bounded time")]
fn now() -> Instant {
    Instant::now()
}
