//! Temporary files and folders, also where the system has no temporary folder: a container from
//! scratch has only what its image lists.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Creates a file without a name, so that a killed process leaves nothing behind.
pub(crate) fn file() -> io::Result<File> {
    in_first(&folders(Path::new(".")), tempfile::tempfile_in)
}

/// Creates a file with a name: in the temporary folder, in memory, or in `last`, by default the
/// current folder.
pub(crate) fn named_file(last: Option<&Path>) -> io::Result<NamedTempFile> {
    in_first(&folders(last.unwrap_or(Path::new("."))), NamedTempFile::new_in)
}

/// Creates a folder with a short path, as sockets require.
#[cfg(unix)]
pub(crate) fn folder() -> io::Result<tempfile::TempDir> {
    in_first(&folders(Path::new(".")), tempfile::TempDir::new_in)
}

/// The folders to try, the best first.
fn folders(last: &Path) -> [PathBuf; 3] {
    [tempfile::env::temp_dir(), PathBuf::from("/dev/shm"), last.to_owned()]
}

/// Creates something in the first folder that allows it. The error is that of the first folder,
/// which users know.
fn in_first<'a, T>(
    folders: &'a [PathBuf],
    create: impl Fn(&'a PathBuf) -> io::Result<T>,
) -> io::Result<T> {
    let (first, others) = folders.split_first().ok_or(io::ErrorKind::NotFound)?;
    create(first).or_else(|error| others.iter().find_map(|it| create(it).ok()).ok_or(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_exists_has_the_file() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let missing = one.path().join("missing");
        let folders = [missing.clone(), other.path().to_owned(), one.path().to_owned()];
        let file = in_first(&folders, NamedTempFile::new_in).unwrap();
        assert_eq!(file.path().parent(), Some(other.path()));
        let error = in_first(std::slice::from_ref(&missing), NamedTempFile::new_in).unwrap_err();
        assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
    }
}
