//! The reports of a run as files, for programs that use the library. The command line has its own
//! options, which open their files before the first request.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    Exporter, Run, json::JsonReport, junit::Junit, step_summary::StepSummary,
    summary::SummaryTables, thresholds::Thresholds,
};
use crate::whole_file;

/// A report that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {}", path.display())]
#[non_exhaustive]
pub struct ReportError {
    /// The file, or its folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Run {
    /// Writes the reports to `folder`, which is created if it does not exist: `report.json` (as
    /// `--json`), `junit.xml` (as `--junit`), `summary.md` (as the summary of a GitHub step) and
    /// `summary.txt` (the tables of the terminal). Files with these names are replaced.
    pub fn write_to(&self, folder: impl AsRef<Path>) -> Result<(), ReportError> {
        let folder = folder.as_ref();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ReportError { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let reports: [(&str, &[&dyn Exporter]); 4] = [
            ("report.json", &[&JsonReport]),
            ("junit.xml", &[&Junit]),
            ("summary.md", &[&StepSummary]),
            ("summary.txt", &[&SummaryTables, &Thresholds]),
        ];
        for (name, formats) in reports {
            let path = folder.join(name);
            let content =
                |out: &mut dyn Write| formats.iter().try_for_each(|format| format.write(self, out));
            whole_file::write_with(&path, &content).map_err(failed(&path))?;
        }
        Ok(())
    }
}
