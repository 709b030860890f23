//! Reports that go to files: opened before the first request, so that a bad path fails at once, and
//! written after the verdict.

use std::{
    fs::{self, File},
    io,
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

/// Reports with their open files.
pub(super) struct Files(Vec<Report>);

struct Report {
    flag: String,
    path: PathBuf,
    file: File,
    format: &'static (dyn Exporter + Sync),
}

/// A requested report: flag, path, format.
type Requested<'a> = (String, &'a Path, &'static (dyn Exporter + Sync));

impl Files {
    /// Opens the files, creates their folders, and keeps their contents.
    pub(super) fn open(cli: &Cli) -> anyhow::Result<Self> {
        let mut reports = Vec::new();
        for (flag, path, format) in requested(cli) {
            let file = open(path)
                .with_context(|| format!("failed to write `{flag}` to {}", path.display()))?;
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            reports.push(Report { flag, path, file, format });
        }
        Ok(Self(reports))
    }

    /// Empties the files, so that a killed run does not leave the report of an earlier one.
    pub(super) fn empty(&self) {
        for report in &self.0 {
            // Fails for pipes and devices, which have no contents to keep.
            let _ = report.file.set_len(0);
        }
    }

    /// Writes the reports; returns a line for each that fails.
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
        self.format.write(run, &mut &self.file)
    }
}

fn requested(cli: &Cli) -> Vec<Requested<'_>> {
    let mut requested: Vec<Requested<'_>> = Vec::new();
    if let Some(path) = &cli.junit {
        requested.push(("--junit".into(), path, &Junit));
    }
    if let Some(path) = &cli.json {
        requested.push(("--json".into(), path, &JsonReport));
    }
    for Export { format, path } in &cli.exports {
        requested.push((format!("--export {}", format.name()), path, tool(*format)));
    }
    requested
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
