//! Output for GitHub Actions that requires no flag: annotations, and the step's summary.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use super::terminal::Terminal;
use crate::{
    env::Github,
    report::{Exporter, Run, step_summary::StepSummary},
    whole_file,
};

/// Writes the annotations and the step's summary.
///
/// The file of the summary comes from the environment, not from a flag, and may be missing in a
/// container. A failure is therefore a warning and does not fail the run.
pub(super) fn report(github: &Github, run: &Run, terminal: &Terminal) {
    if github.reads_commands {
        terminal.annotate(run);
    }
    if let Some(path) = &github.step_summary {
        let text = StepSummary.render(run);
        // A signal that ends the process leaves all of it or nothing.
        let written =
            open(path).and_then(|mut file| whole_file::undivided(|| append(&mut file, &text)));
        if let Err(error) = written {
            terminal.err(&format!("{}\n", unwritten(path, &error)));
        }
    }
}

/// Returns a warning if the step's summary cannot be written. It is known before minutes are spent.
pub(super) fn check(github: &Github) -> Option<String> {
    let path = github.step_summary.as_deref()?;
    open(path).err().map(|error| unwritten(path, &error))
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

/// Appends the text, or nothing of it.
fn append(file: &mut File, text: &str) -> io::Result<()> {
    let before = file.metadata()?;
    file.write_all(text.as_bytes()).inspect_err(|_| {
        if before.is_file() {
            // The first error is the one to report.
            let _ = file.set_len(before.len());
        }
    })
}

fn unwritten(path: &Path, error: &io::Error) -> String {
    format!("WARNING: the step's summary is not written to {}: {error}", path.display())
}
