//! The CSV files of the results: created before the first request, so that a bad path fails at
//! once.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

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

/// The path of the results, and their writer.
pub(in crate::harness) struct Output {
    pub(in crate::harness) path: PathBuf,
    pub(in crate::harness) results: Results,
}

/// Writes the rows.
pub(in crate::harness) struct Results {
    requests: CsvTable<Row, File>,
    loads: Option<CsvTable<LoadRow, File>>,
    server: Option<CsvTable<ServerMetricRow, File>>,
}

impl Output {
    /// Creates `path` and its folder, or a new folder in cargo's target folder. Loads and server
    /// metrics get files next to it.
    pub(in crate::harness) fn create(path: Option<&Path>, plan: &Plan) -> anyhow::Result<Self> {
        let with_loads = plan.cases.iter().any(|case| case.task.workload().is_some());
        let with_metrics = plan.cases.iter().any(|case| case.target.metrics_url.is_some());
        let path = match path {
            Some(path) => path.to_owned(),
            None => fresh_folder(&target_folder().join("llm-stream-bench"))?.join("results.csv"),
        };
        let requests = table(&path)?;
        let path = std::path::absolute(&path).unwrap_or(path);
        // Devices and pipes have no folder for them.
        let is_file = path.is_file();
        let loads = (with_loads && is_file).then(|| table(&path.with_extension("workloads.csv")));
        let server = (with_metrics && is_file).then(|| table(&path.with_extension("server.csv")));
        let (loads, server) = (loads.transpose()?, server.transpose()?);
        Ok(Self { path, results: Results { requests, loads, server } })
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

/// Creates a file with its folder, and writes the header.
fn table<R: CsvRow>(path: &Path) -> anyhow::Result<CsvTable<R, File>> {
    open(path)
        .and_then(|file| Ok(CsvTable::new(file)?))
        .with_context(|| format!("failed to write the results to {}", path.display()))
}

fn open(path: &Path) -> anyhow::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create the folder {}", folder.display()))?;
    }
    Ok(File::create(path)?)
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
