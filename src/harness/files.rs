//! Reports that go to files: checked before the first request, so that a bad path fails at once, and
//! written after the verdict.

use std::{
    fs::{self, File},
    io::{self, Seek as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use llm_stream_core::metric::Better;

use super::observers::is_stream;
use crate::{
    cli::{Cli, Export, ExportFormat},
    report::{
        Exporter, Run, bencher::Bencher, github_action_benchmark::GithubActionBenchmark,
        json::JsonReport, junit::Junit,
    },
    store,
    whole_file::{self, Content},
};

/// The requested reports.
pub(super) struct Files(Vec<Report>);

struct Report {
    flag: String,
    path: PathBuf,
    way: Way,
    format: &'static (dyn Exporter + Sync),
}

/// How a report gets into its file.
enum Way {
    /// The file is replaced.
    Replace,
    /// The file is written where it is: another process has it open, or it is in a folder in which no
    /// file can be created.
    InPlace(File),
    /// A device or a pipe, which takes one report.
    Stream(File),
}

/// A requested report: flag, path, format.
type Requested<'a> = (String, &'a Path, &'static (dyn Exporter + Sync));

impl Files {
    /// The reports that the command line asks for, and the results in the run's `folder`.
    ///
    /// Checks that the files can be written, creates their folders, and keeps their contents.
    pub(super) fn open(cli: &Cli, folder: Option<&Path>) -> anyhow::Result<Self> {
        let mut reports = Vec::new();
        let results = folder.map(|folder| folder.join(store::RUN));
        let results = results.as_deref().map(|path| (store::RUN.into(), path, &JsonReport as _));
        for (flag, path, format) in results.into_iter().chain(requested(cli)) {
            let flag: String = flag;
            let way = Way::of(path)
                .with_context(|| format!("failed to write `{flag}` to {}", path.display()))?;
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            reports.push(Report { flag, path, way, format });
        }
        Ok(Self(reports))
    }

    /// Replaces the contents of the files by those of `unfinished`, a run without results: a killed run
    /// leaves whole files that say so, instead of the report of an earlier run.
    pub(super) fn begin(&self, unfinished: &Run) -> anyhow::Result<()> {
        let mut files = self.0.iter().filter(|report| !matches!(report.way, Way::Stream(_)));
        files.try_for_each(|report| report.write(unfinished).map_err(anyhow::Error::msg))
    }

    /// Writes the reports; returns a line for each that fails.
    pub(super) fn write(&self, run: &Run) -> Vec<String> {
        let failure = |report: &Report| Some(format!("FAILED: {}", report.write(run).err()?));
        self.0.iter().filter_map(failure).collect()
    }
}

impl Report {
    fn write(&self, run: &Run) -> Result<(), String> {
        let Self { flag, path, .. } = self;
        let written = self.way.write(path, &|out| self.format.write(run, out));
        written
            .map_err(|error| format!("`{flag}` cannot be written to {}: {error}", path.display()))
    }
}

impl Way {
    fn of(path: &Path) -> io::Result<Self> {
        let open = || File::options().write(true).open(path);
        if fs::metadata(path).is_ok_and(|found| is_stream(&found)) {
            return Ok(Self::Stream(open()?));
        }
        if is_descriptor(path) {
            return Ok(Self::InPlace(open()?));
        }
        // The error of the folder is the one to report, unless the file exists.
        whole_file::check(path).map(|()| Self::Replace).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                open().map(Self::InPlace).map_err(|_| error)
            }
            _ => Err(error),
        })
    }

    fn write(&self, path: &Path, content: Content<'_>) -> io::Result<()> {
        match self {
            Self::Replace => {
                whole_file::write_with(path, content).or_else(|error| match error.kind() {
                    // Such as a single file that is mounted into a container.
                    io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => {
                        in_place(&File::options().write(true).open(path)?, content)
                    }
                    _ => Err(error),
                })
            }
            Self::InPlace(file) => in_place(file, content),
            Self::Stream(file) => content(&mut &*file),
        }
    }
}

/// Replaces the content of an open file.
fn in_place(mut file: &File, content: Content<'_>) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    content(&mut file)
}

/// Whether the path leads to an open file of a process, such as `/dev/fd/3`: to replace it would not
/// reach the process.
fn is_descriptor(path: &Path) -> bool {
    let is_of_process = |path: PathBuf| {
        let folder = fs::canonicalize(path.parent().unwrap_or(Path::new("")));
        folder.is_ok_and(|folder| folder.starts_with("/proc") || folder.starts_with("/dev/fd"))
    };
    whole_file::links(path).any(is_of_process)
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
