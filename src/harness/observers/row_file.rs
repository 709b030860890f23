//! A file of rows that never has a part of one.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::whole_file;

/// A file to which rows are appended. If a row cannot be written as a whole, such as on a full disk,
/// its beginning is removed again, so that the next row starts on its own line.
pub(in crate::harness) struct RowFile {
    file: File,
    path: PathBuf,
    /// The length of the whole rows; `None` for a device or a pipe, which cannot be shortened.
    whole: Option<u64>,
    /// Whether the file ends with a part of a row.
    is_torn: bool,
}

impl RowFile {
    /// Opens the file for this process alone and keeps its content; creates it with its folder.
    pub(in crate::harness) fn open(path: &Path) -> io::Result<Self> {
        whole_file::create_folder(path)?;
        let is_file = fs::metadata(path).map_or(true, |found| !is_stream(&found));
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        if is_file {
            lock(&file)?;
        }
        Ok(Self { file, path: path.to_owned(), whole: is_file.then_some(0), is_torn: false })
    }

    /// Removes the content.
    pub(in crate::harness) fn empty(&mut self) -> io::Result<()> {
        match self.whole {
            Some(_) => self.shorten(0),
            None => Ok(()),
        }
    }

    /// Keeps the first `length` bytes.
    pub(in crate::harness) fn shorten(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        self.whole = Some(length);
        self.is_torn = false;
        Ok(())
    }

    /// The path.
    pub(in crate::harness) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes as much as possible, with the number of bytes written before an error.
    fn append(&self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match (&self.file).write(&bytes[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

impl Write for RowFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    /// Writes all of `bytes`, or nothing.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match (self.is_torn, self.whole) {
            (true, Some(whole)) => self.shorten(whole)?,
            (true, None) => return Err(io::Error::other("it ends with a part of an earlier row")),
            (false, _) => {}
        }
        match self.append(bytes) {
            Ok(()) => {
                self.whole = self.whole.map(|whole| whole + bytes.len() as u64);
                Ok(())
            }
            Err((written, error)) => {
                self.is_torn = written > 0;
                if let (true, Some(whole)) = (self.is_torn, self.whole) {
                    // If this fails, it is tried again before the next row.
                    let _ = self.shorten(whole);
                }
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether it is a device or a pipe.
pub(in crate::harness) fn is_stream(found: &fs::Metadata) -> bool {
    !found.is_file() && !found.is_dir()
}

/// Locks the file until this process ends, however it ends.
fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::Error::other(
            "another run writes to it: wait for its end, or name another file with `--output`",
        )),
        // Some network file systems have no locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
