//! Where the results go: a file that is there, and open, before the first request.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use jiff::Timestamp;
use llm_stream_core::server_metrics::MetricComparison;

use crate::{
    plan::Case,
    report::{
        csv,
        loads::{self, LoadRow},
        server,
    },
    row::Row,
};

/// The results' file, and its path.
pub(super) struct Output {
    pub(super) path: PathBuf,
    pub(super) results: Results,
}

/// Where rows go.
pub(super) struct Results {
    requests: csv::Writer<File>,
    loads: Option<loads::Writer<File>>,
    server: Option<server::Writer<File>>,
}

impl Output {
    /// Creates `path` with its folder, or a new file in cargo's target folder; where there are
    /// loads or metrics of servers, others beside it for them.
    pub(super) fn create(
        path: Option<&Path>,
        with_loads: bool,
        with_metrics: bool,
    ) -> anyhow::Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => fresh_folder(&target_folder().join("llm-stream-bench"))?.join("results.csv"),
        };
        let context = |path: &Path| format!("failed to write the results to {}", path.display());
        let requests = open(&path)
            .and_then(|file| Ok(csv::Writer::new(file)?))
            .with_context(|| context(&path))?;
        let path = std::path::absolute(&path).unwrap_or(path);
        let beside = path.with_extension("workloads.csv");
        // Next to a device or a pipe there is no place for it.
        let loads = match with_loads && path.is_file() {
            false => None,
            true => Some(
                open(&beside)
                    .and_then(|file| Ok(loads::Writer::new(file)?))
                    .with_context(|| context(&beside))?,
            ),
        };
        let beside = path.with_extension("server.csv");
        let server = match with_metrics && path.is_file() {
            false => None,
            true => Some(
                open(&beside)
                    .and_then(|file| Ok(server::Writer::new(file)?))
                    .with_context(|| context(&beside))?,
            ),
        };
        Ok(Self { path, results: Results { requests, loads, server } })
    }
}

impl Results {
    /// Writes the row of a request.
    pub(super) fn write(&mut self, row: &Row) -> io::Result<()> {
        self.requests.write(row)
    }

    /// Writes what the server's metrics said of a trial.
    pub(super) fn write_server(
        &mut self,
        case: &Case,
        beside: &MetricComparison,
    ) -> io::Result<()> {
        self.server.as_mut().map_or(Ok(()), |server| server.write(case, beside))
    }

    /// Writes the row of a load.
    pub(super) fn write_load(&mut self, row: &LoadRow<'_>) -> io::Result<()> {
        self.loads.as_mut().map_or(Ok(()), |loads| loads.write(row))
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create the folder {}", folder.display()))?;
    }
    Ok(File::create(path)?)
}

/// A folder of this run alone, named by its start.
fn fresh_folder(parent: &Path) -> anyhow::Result<PathBuf> {
    let stamp = today().strftime("%Y%m%dT%H%M%SZ").to_string();
    let context = || format!("failed to create a folder for the results in {}", parent.display());
    fs::create_dir_all(parent).with_context(context)?;
    let names = std::iter::once(stamp.clone()).chain((2..).map(|n| format!("{stamp}-{n}")));
    for folder in names.map(|name| parent.join(name)) {
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder).with_context(context),
        }
    }
    unreachable!("the names do not end")
}

/// The date, by the wall clock. No figure comes from it.
#[expect(clippy::disallowed_methods, reason = "the harness dates runs and rows")]
pub(super) fn today() -> Timestamp {
    Timestamp::now()
}

/// cargo's target folder: the one that this executable lies in, which cargo marks with a
/// `CACHEDIR.TAG`; else `target` in the current folder.
pub(super) fn target_folder() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    executable
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| PathBuf::from("target"), Path::to_owned)
}
