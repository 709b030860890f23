//! Files that are replaced as a whole: written to a temporary file in the same folder, then renamed.
//! A reader, a crash or a full disk never leaves a part of a file.

use std::{
    fs::{self, File, Metadata},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tempfile::{Builder, NamedTempFile};

/// Files to remove if a signal ends the process. The lock is held while a file is renamed, so that
/// the end of the process does not fall between the two steps.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Replaces the content of the file. Its permissions stay, and so do symbolic links to it. Missing
/// folders are created.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, &|out| out.write_all(bytes))
}

/// Writes the content of a file.
pub(crate) type Content<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

/// As [`write`], for a content that is not held in memory.
pub(crate) fn write_with(path: &Path, content: Content<'_>) -> io::Result<()> {
    create_folder(path)?;
    let path = resolved(path);
    let unfinished = Unfinished::create(&path)?;
    unfinished.fill(content)?;
    unfinished.replace(&path)
}

/// As [`write`], for a file that only its owner may read, and one of many: it is not forced to the
/// disk, so a crash of the system may leave a part of it.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_folder(path)?;
    let path = resolved(path);
    let unfinished = Unfinished::create_with(&path, Builder::new())?;
    unfinished.0.as_file().write_all(bytes)?;
    unfinished.persist(|file| file.persist(&path).map(drop))
}

/// As [`write`], but fails with [`io::ErrorKind::AlreadyExists`] if there is a file by then.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_folder(path)?;
    let path = resolved(path);
    let unfinished = Unfinished::create(&path)?;
    unfinished.fill(&|out| out.write_all(bytes))?;
    unfinished.persist(|file| file.persist_noclobber(&path).map(drop))
}

/// Fails if [`write`] would, as far as that is known before: the folder is created, a temporary file
/// too, and an existing file is opened. The file keeps its content.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    // A path such as `folder/` has the file name `folder`.
    if path.to_string_lossy().ends_with(std::path::is_separator) {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is the path of a folder"));
    }
    create_folder(path)?;
    let path = resolved(path);
    match File::options().write(true).open(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Unfinished::create(&path).map(drop)
}

/// Creates the folder of the file.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|error| {
        let what = format!("failed to create the folder {}: {error}", folder.display());
        io::Error::new(error.kind(), what)
    })
}

/// Whether the error is that a file does not exist.
pub(crate) fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Follows symbolic links to the file that they lead to, also if it does not exist yet.
fn resolved(path: &Path) -> PathBuf {
    links(path).last().unwrap_or_else(|| path.to_owned())
}

/// Returns the path and, if it is a symbolic link, what it leads to, link by link.
pub(crate) fn links(path: &Path) -> impl Iterator<Item = PathBuf> {
    const MOST_LINKS: usize = 40;
    let next = |path: &PathBuf| {
        let to = fs::read_link(path).ok()?;
        Some(path.parent().unwrap_or(Path::new("")).join(to))
    };
    std::iter::successors(Some(path.to_owned()), next).take(MOST_LINKS)
}

/// Removes the temporary files. It returns with the lock held, so that no file is renamed between
/// this and the end of the process.
pub(crate) fn abandon() {
    const ATTEMPTS: u32 = 100;
    for _ in 0..ATTEMPTS {
        if let Ok(files) = UNFINISHED.try_lock() {
            // Fails if the file is gone.
            files.iter().for_each(|file| drop(fs::remove_file(file)));
            std::mem::forget(files);
            return;
        }
        // A rename is in progress. One on a network may not end.
        thread::sleep(Duration::from_millis(5));
    }
}

/// Creates a file at `path`, which is removed if a signal ends the process.
pub(crate) fn removed_at_end<T>(
    path: &Path,
    create: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let mut files = unfinished();
    create().inspect(|_| files.push(path.to_owned()))
}

/// Does the work at once as seen by signals: none of them ends the process within it.
pub(crate) fn undivided<T>(work: impl FnOnce() -> T) -> T {
    let _held = unfinished();
    work()
}

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file next to its target.
struct Unfinished(NamedTempFile);

impl Unfinished {
    fn create(target: &Path) -> io::Result<Self> {
        let mut builder = Builder::new();
        with_permissions(&mut builder, fs::metadata(target).ok().as_ref());
        Self::create_with(target, builder)
    }

    fn create_with(target: &Path, mut builder: Builder<'_, '_>) -> io::Result<Self> {
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        builder.prefix(".llm-stream-bench-").suffix(".tmp");
        // A signal in between would leave it.
        let mut files = unfinished();
        let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
        files.push(file.path().to_owned());
        Ok(Self(file))
    }

    fn fill(&self, content: Content<'_>) -> io::Result<()> {
        let mut file = self.0.as_file();
        content(&mut file)?;
        file.sync_all()
    }

    fn replace(self, target: &Path) -> io::Result<()> {
        if let Ok(replaced) = fs::metadata(target) {
            keep_access(self.0.as_file(), &replaced);
        }
        self.persist(|file| file.persist(target).map(drop))
    }

    fn persist(
        self,
        rename: impl FnOnce(NamedTempFile) -> Result<(), tempfile::PersistError>,
    ) -> io::Result<()> {
        let Self(file) = self;
        let mut files = unfinished();
        let path = file.path().to_owned();
        // A file that cannot be renamed is removed here, when the error is dropped.
        let renamed = rename(file).map_err(|failed| failed.error);
        files.retain(|unfinished| *unfinished != path);
        renamed
    }
}

/// New files get the usual permissions instead of those of temporary files.
#[cfg(unix)]
fn with_permissions(builder: &mut Builder<'_, '_>, replaced: Option<&Metadata>) {
    use std::os::unix::fs::PermissionsExt;
    let usual = fs::Permissions::from_mode(0o666);
    builder.permissions(replaced.map_or(usual, Metadata::permissions));
}

#[cfg(not(unix))]
fn with_permissions(_: &mut Builder<'_, '_>, _: Option<&Metadata>) {}

/// Gives the file the permissions and, where this process may do that, the owner of the replaced
/// file.
fn keep_access(file: &File, replaced: &Metadata) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let _ = std::os::unix::fs::fchown(file, Some(replaced.uid()), Some(replaced.gid()));
    }
    // After the owner, since a change of that removes some of them.
    let _ = file.set_permissions(replaced.permissions());
}
