//! Recordings: the response of each request, in its own file.

use std::{
    collections::HashSet,
    fs::DirBuilder,
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    run::{Event, Observer, ObserverError},
    whole_file,
};

/// Stores recordings in a folder.
pub(in crate::harness) struct Recordings {
    folder: PathBuf,
    /// The file names of this run.
    used: HashSet<String>,
}

impl Recordings {
    pub(in crate::harness) fn new(folder: PathBuf) -> Self {
        Self { folder, used: HashSet::new() }
    }
}

impl Observer for Recordings {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        let Event::Request { recording: Some(recording), name, redactor: Some(redactor), .. } =
            event
        else {
            return Ok(());
        };
        let name = unused(&file_name(name), &mut self.used);
        let path = self.folder.join(format!("{name}.jsonl"));
        let file = redactor.redact_recording(recording.clone()).to_jsonl();
        let written = create_folder(&self.folder)
            .and_then(|()| whole_file::write_private(&path, file.as_bytes()));
        Ok(written.with_context(|| format!("failed to write {}", path.display()))?)
    }
}

/// Creates a folder for recordings that only its owner can open. An existing folder keeps its mode.
pub(in crate::harness) fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

/// Returns a trial's name as a file name: without characters that a file system may refuse, and short
/// enough for one.
pub(in crate::harness) fn file_name(trial: &str) -> String {
    const LONGEST: usize = 200;
    let safe = |c: char| if c.is_alphanumeric() || "-._".contains(c) { c } else { '_' };
    let mut name = String::new();
    for c in trial.chars().map(safe) {
        if name.len() + c.len_utf8() > LONGEST {
            break;
        }
        name.push(c);
    }
    name
}

/// Returns `name`, with a number if it is in `used`: two trials may have the same file name.
fn unused(name: &str, used: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| used.insert(name.clone())).unwrap_or_default()
}
