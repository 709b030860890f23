//! The reports that are asked for as files: open before the first request, written after the
//! verdict.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use llm_stream_core::metric::Better;

use crate::{
    cli::{Cli, Export, ExportFormat},
    report::{
        Exporter, Run, bencher::Bencher, github_action_benchmark::GithubActionBenchmark,
        json::JsonReport, junit::Junit,
    },
};

/// Reports with the files that they go to.
pub(super) struct Files(Vec<Report>);

struct Report {
    flag: String,
    path: PathBuf,
    file: File,
    format: &'static (dyn Exporter + Sync),
}

/// A report that is asked for: its flag, its path, its format.
type Asked<'a> = (String, &'a Path, &'static (dyn Exporter + Sync));

impl Files {
    /// Opens them with their folders, and leaves what is in them.
    pub(super) fn open(cli: &Cli) -> anyhow::Result<Self> {
        let mut reports = Vec::new();
        for (flag, path, format) in asked(cli) {
            let file = open(path)
                .with_context(|| format!("failed to write `{flag}` to {}", path.display()))?;
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            reports.push(Report { flag, path, file, format });
        }
        Ok(Self(reports))
    }

    /// Empties them, so that a run which is killed leaves no report of another one.
    pub(super) fn empty(&self) {
        for report in &self.0 {
            // A pipe or a device has nothing to lose.
            let _ = report.file.set_len(0);
        }
    }

    /// Writes them; a line for each that cannot be.
    pub(super) fn write(&self, run: &Run) -> Vec<String> {
        let failure = |report: &Report| {
            let Report { flag, path, .. } = report;
            let error = report.write(run).err()?;
            Some(format!("FAILED: `{flag}` cannot be written to {}: {error}", path.display()))
        };
        self.0.iter().filter_map(failure).collect()
    }
}

impl Report {
    fn write(&self, run: &Run) -> io::Result<()> {
        (&self.file).write_all(self.format.render(run).as_bytes())
    }
}

fn asked(cli: &Cli) -> Vec<Asked<'_>> {
    let mut asked: Vec<Asked<'_>> = Vec::new();
    if let Some(path) = &cli.junit {
        asked.push(("--junit".into(), path, &Junit));
    }
    if let Some(path) = &cli.json {
        asked.push(("--json".into(), path, &JsonReport));
    }
    for Export { format, path } in &cli.exports {
        asked.push((format!("--export {}", format.name()), path, tool(*format)));
    }
    asked
}

fn tool(format: ExportFormat) -> &'static (dyn Exporter + Sync) {
    match format {
        ExportFormat::Bencher => &Bencher,
        ExportFormat::GithubActionBenchmarkBigger => &GithubActionBenchmark(Better::Higher),
        ExportFormat::GithubActionBenchmarkSmaller => &GithubActionBenchmark(Better::Lower),
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create the folder {}", folder.display()))?;
    }
    Ok(File::options().write(true).create(true).truncate(false).open(path)?)
}
