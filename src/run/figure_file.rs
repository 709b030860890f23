//! The temporary file for the figures of a long run.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use llm_stream_core::column::Spill;

use crate::{report::Unreadable, temporary};

/// A file without a name, so that a killed process leaves nothing behind. It is created with the
/// first block, which short runs do not have. Without it, the figures stay in memory.
#[derive(Debug)]
pub(super) struct FigureFile {
    folder: Option<PathBuf>,
    file: Mutex<Option<(File, u64)>>,
    unreadable: Unreadable,
}

impl FigureFile {
    /// For a file in `folder`, or in the system's temporary folder.
    pub(super) fn new(folder: Option<&Path>, unreadable: &Unreadable) -> Self {
        let (folder, unreadable) = (folder.map(Path::to_owned), unreadable.clone());
        Self { folder, file: Mutex::new(None), unreadable }
    }

    fn create(&self) -> io::Result<File> {
        self.folder.as_ref().map_or_else(temporary::file, tempfile::tempfile_in)
    }

    fn try_read(&self, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, _) = file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(bytes)
    }
}

impl Spill for FigureFile {
    fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, end) = match &mut *file {
            Some(file) => file,
            none => none.insert((self.create()?, 0)),
        };
        // After a failed write the next block replaces the part that was written.
        file.seek(SeekFrom::Start(*end))?;
        file.write_all(bytes)?;
        let position = *end;
        *end += bytes.len() as u64;
        Ok(position)
    }

    fn read(&self, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.try_read(position, bytes).inspect_err(|error| {
            self.unreadable.note(error);
        })
    }
}
