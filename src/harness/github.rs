//! What a job on GitHub Actions is told without being asked: annotations, and the step's summary.

use std::{fs::File, io::Write};

use crate::{
    env::Github,
    report::{Exporter, Run, annotations::Annotations, step_summary::StepSummary},
};

/// Adds to the step's summary; gives the lines for stderr.
///
/// Nobody asked for the file by a flag, and in a container it may not be there: that is told, and
/// fails nothing.
pub(super) fn tell(github: &Github, run: &Run) -> String {
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
