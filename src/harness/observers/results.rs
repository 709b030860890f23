//! The CSV files of the results: created before the first request, so that a bad path fails at
//! once.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::row_file::RowFile;
use crate::{
    plan::Plan,
    report::{
        csv::{CsvRow, CsvTable},
        loads::LoadRow,
        server::ServerMetricRow,
    },
    row::Row,
    run::{Event, Observer, ObserverError, today},
};

/// The files of the results, opened and locked.
pub(in crate::harness) struct Output {
    pub(in crate::harness) path: PathBuf,
    requests: RowFile,
    loads: Option<RowFile>,
    server: Option<RowFile>,
}

/// Writes the rows.
pub(in crate::harness) struct Results {
    requests: CsvTable<Row, RowFile>,
    loads: Option<CsvTable<LoadRow, RowFile>>,
    server: Option<CsvTable<ServerMetricRow, RowFile>>,
}

impl Output {
    /// Opens `path`, or `results.csv` in a new folder in cargo's target folder, and keeps its content.
    /// Loads and server metrics get files next to it.
    pub(in crate::harness) fn open(path: Option<&Path>, plan: &Plan) -> anyhow::Result<Self> {
        let with_loads = plan.cases.iter().any(|case| case.task.workload().is_some());
        let with_metrics = plan.cases.iter().any(|case| case.target.metrics_url.is_some());
        let path = match path {
            Some(path) => path.to_owned(),
            None => fresh_folder(&target_folder().join("llm-stream-bench"))?.join("results.csv"),
        };
        let requests = open(&path)?;
        let path = std::path::absolute(&path).unwrap_or(path);
        // Devices and pipes have no folder for them.
        let is_file = path.is_file();
        let next_to = |ending| open(&path.with_extension(ending));
        let loads = (with_loads && is_file).then(|| next_to("workloads.csv")).transpose()?;
        let server = (with_metrics && is_file).then(|| next_to("server.csv")).transpose()?;
        Ok(Self { path, requests, loads, server })
    }

    /// Replaces the contents of the files by their headers.
    pub(in crate::harness) fn begin(self) -> anyhow::Result<Results> {
        Ok(Results {
            requests: table(self.requests)?,
            loads: self.loads.map(table).transpose()?,
            server: self.server.map(table).transpose()?,
        })
    }
}

impl Observer for Results {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Request { row, .. } => {
                Ok(self.requests.write(row).context("failed to write the row")?)
            }
            Event::Load { row } => {
                let written = self.loads.as_mut().map_or(Ok(()), |loads| loads.write(row));
                Ok(written.context("failed to write the results")?)
            }
            Event::ServerMetrics { case, comparison } => {
                let server = self.server.as_mut();
                Ok(server.map_or(Ok(()), |server| {
                    server.write_all(&ServerMetricRow::of(case, comparison))
                })?)
            }
            _ => Ok(()),
        }
    }
}

fn open(path: &Path) -> anyhow::Result<RowFile> {
    RowFile::open(path).with_context(|| failure(path))
}

/// Empties the file and writes the header.
fn table<R: CsvRow>(mut file: RowFile) -> anyhow::Result<CsvTable<R, RowFile>> {
    let path = file.path().to_owned();
    file.empty().and_then(|()| CsvTable::new(file)).with_context(|| failure(&path))
}

fn failure(path: &Path) -> String {
    format!("failed to write the results to {}", path.display())
}

/// Creates a folder for this run, named by its start.
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

/// Returns cargo's target folder: the folder around this executable that cargo marks with a
/// `CACHEDIR.TAG`; otherwise `target` in the current folder.
pub(in crate::harness) fn target_folder() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    executable
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| PathBuf::from("target"), Path::to_owned)
}
