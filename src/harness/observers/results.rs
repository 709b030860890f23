//! The CSV files of the results: created before the first request, so that a bad path fails at
//! once.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;

use super::{request_file::RequestFile, row_file::RowFile};
use crate::{
    cli::{Cli, RequestsFormat},
    plan::Plan,
    report::{
        csv::{CsvRow, CsvTable},
        loads::LoadRow,
        server::ServerMetricRow,
        server_series::ServerSeriesRow,
    },
    row::Row,
    run::{Event, Observer, ObserverError},
    store,
};

/// Where the results go.
#[derive(Debug, Clone)]
pub(in crate::harness) enum ResultsPlace {
    /// The folder of a run, with all files.
    Folder(PathBuf),
    /// The file that `--output` names, with few files next to it.
    File(PathBuf),
}

impl ResultsPlace {
    /// Returns what the command line asks for; without it, a new folder in `parent`.
    pub(in crate::harness) fn of(
        cli: &Cli,
        parent: &Path,
        started: Timestamp,
    ) -> anyhow::Result<Self> {
        match (&cli.output, &cli.output_dir) {
            (Some(file), _) => Ok(Self::File(file.clone())),
            (None, Some(folder)) => Ok(Self::Folder(folder.clone())),
            (None, None) => store::create(parent, started).map(Self::Folder).with_context(|| {
                format!("failed to create a folder for the results in {}", parent.display())
            }),
        }
    }

    /// The file of the requests' figures.
    fn results(&self) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(store::RESULTS),
            Self::File(file) => file.clone(),
        }
    }

    /// The folder of the run, if there is one.
    pub(in crate::harness) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::File(_) => None,
        }
    }
}

/// The files of the results, opened and locked.
pub(in crate::harness) struct Output {
    pub(in crate::harness) path: PathBuf,
    requests: RowFile,
    loads: Option<RowFile>,
    server: Option<RowFile>,
    series: Option<RowFile>,
    lines: RequestFile,
    folder: Option<PathBuf>,
}

/// Writes the rows.
pub(in crate::harness) struct Results {
    requests: CsvTable<Row, RowFile>,
    lines: RequestFile,
    loads: Option<CsvTable<LoadRow, RowFile>>,
    server: Option<CsvTable<ServerMetricRow, RowFile>>,
    series: Option<CsvTable<ServerSeriesRow, RowFile>>,
}

impl Output {
    /// Opens the files of the place, and keeps their content. Loads and server metrics get files next
    /// to the results.
    pub(in crate::harness) fn open(
        place: &ResultsPlace,
        format: RequestsFormat,
        plan: &Plan,
    ) -> anyhow::Result<Self> {
        let with_loads = plan.cases.iter().any(|case| case.task.workload().is_some());
        let with_metrics = plan.cases.iter().any(|case| case.target.metrics_url.is_some());
        let path = place.results();
        let requests = open(&path)?;
        let path = std::path::absolute(&path).unwrap_or(path);
        // Devices and pipes have no folder for them.
        let is_file = path.is_file();
        let next_to = |ending| open(&path.with_extension(ending));
        let loads = (with_loads && is_file).then(|| next_to("workloads.csv")).transpose()?;
        let server = (with_metrics && is_file).then(|| next_to("server.csv")).transpose()?;
        let is_sampled = plan.cases.iter().any(|case| case.target.is_sampled());
        let series = (is_sampled && is_file).then(|| next_to("server_series.csv")).transpose()?;
        let lines = RequestFile::open(place.folder(), format)?;
        let folder = place.folder().map(Path::to_owned);
        Ok(Self { path, requests, loads, server, series, lines, folder })
    }

    /// Replaces the contents of the files by their headers.
    pub(in crate::harness) fn begin(self) -> anyhow::Result<Results> {
        self.lines.begin(self.folder.as_deref())?;
        Ok(Results {
            requests: table(self.requests)?,
            loads: self.loads.map(table).transpose()?,
            server: self.server.map(table).transpose()?,
            series: self.series.map(table).transpose()?,
            lines: self.lines,
        })
    }
}

impl Results {
    /// The file of the requests with all arrivals.
    pub(in crate::harness) fn request_file(&self) -> RequestFile {
        self.lines.clone()
    }
}

impl Observer for Results {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Request { row, .. } => {
                self.requests.write(row).context("failed to write the row")?;
                Ok(self.lines.write(|| row.line().to_json())?)
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
            Event::ServerSeries { case, samples } => {
                let series = self.series.as_mut();
                Ok(series.map_or(Ok(()), |series| {
                    series.write_all(&ServerSeriesRow::of(case, samples))
                })?)
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn open(path: &Path) -> anyhow::Result<RowFile> {
    RowFile::open(path).with_context(|| failure(path))
}

/// Empties the file.
pub(super) fn emptied(file: &mut RowFile) -> anyhow::Result<()> {
    file.empty().with_context(|| failure(file.path()))
}

/// Empties the file and writes the header.
fn table<R: CsvRow>(mut file: RowFile) -> anyhow::Result<CsvTable<R, RowFile>> {
    let path = file.path().to_owned();
    file.empty().and_then(|()| CsvTable::new(file)).with_context(|| failure(&path))
}

fn failure(path: &Path) -> String {
    format!("failed to write the results to {}", path.display())
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
