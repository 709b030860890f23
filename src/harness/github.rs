//! What a job on GitHub Actions gets without a flag: annotations, and the step's summary.

use std::{fs::File, io::Write};

use crate::{
    env::Github,
    report::{Exporter, Run, annotations::Annotations, step_summary::StepSummary},
};

/// Adds to the step's summary; gives the lines for stderr.
///
/// Writes the annotations and the step's summary; returns the lines for the terminal. No flag asked for
/// the summary's file, and in a container it may be missing: a note says so, and the run does not fail.
pub(super) fn report(github: &Github, run: &Run) -> String {
    let mut lines = match github.reads_commands {
        true => Annotations.render(run),
        false => String::new(),
    };
    if let Some(path) = &github.step_summary {
        let opened = File::options().append(true).create(true).open(path);
        let written =
            opened.and_then(|mut file| file.write_all(StepSummary.render(run).as_bytes()));
        if let Err(error) = written {
            let path = path.display();
            let line = format!("WARNING: the step's summary is not written to {path}: {error}\n");
            lines.push_str(&line);
        }
    }
    lines
}
