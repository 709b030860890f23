//! Output for GitHub Actions that requires no flag: annotations, and the step's summary.

use std::{fs::File, io::Write};

use super::terminal::Terminal;
use crate::{
    env::Github,
    report::{Exporter, Run, step_summary::StepSummary},
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
        let opened = File::options().append(true).create(true).open(path);
        let written =
            opened.and_then(|mut file| file.write_all(StepSummary.render(run).as_bytes()));
        if let Err(error) = written {
            let path = path.display();
            terminal
                .err(&format!("WARNING: the step's summary is not written to {path}: {error}\n"));
        }
    }
}
