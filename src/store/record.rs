//! A stored run, read again.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use llm_stream_core::baseline::Baseline;

use super::{
    folder::{self, BASELINE, RESULTS, RUN},
    requests::RequestReader,
    rows,
};
use crate::{
    config,
    report::json::{self, model::RunReport},
};

/// A run in a folder, or its `run.json` alone.
pub(crate) struct RunRecord {
    /// Its `run.json`.
    pub(crate) path: PathBuf,
    /// Its results.
    pub(crate) report: RunReport<'static>,
}

impl RunRecord {
    /// Reads the run in `path`: a folder with `run.json`, or such a file.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let path = if path.is_dir() { path.join(RUN) } else { path.to_owned() };
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let report = json::read(BufReader::with_capacity(1 << 16, file))
            .with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Self { path, report })
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }

    /// Its name: that of its folder or, of a file by itself, that of the file.
    pub(crate) fn name(&self) -> String {
        let is_in_folder = self.path.file_name().is_some_and(|name| name == RUN);
        let absolute = std::path::absolute(self.folder()).unwrap_or_default();
        let name = if is_in_folder { absolute.file_name() } else { self.path.file_name() };
        name.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The requests with all arrivals; `None` if the run has no such file.
    pub(crate) fn requests(&self) -> anyhow::Result<Option<RequestReader>> {
        let Some(path) = folder::requests(self.folder()) else { return Ok(None) };
        let reader = RequestReader::open(&path);
        reader.map(Some).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Returns the values that other runs are compared with, of the run in `path`: a folder, its
/// `run.json` or its `results.csv`.
pub(crate) fn baseline(path: &Path) -> anyhow::Result<Baseline> {
    if path.extension().is_some_and(|extension| extension == "csv") {
        return rows::of_csv(path);
    }
    let is_folder = path.is_dir();
    let folder = if is_folder { path } else { path.parent().unwrap_or(Path::new("")) };
    let is_in_folder = is_folder || path.file_name().is_some_and(|name| name == RUN);
    let values = folder.join(BASELINE);
    if is_in_folder && values.is_file() {
        return read_baseline(&values);
    }
    // Runs of the first version have only rows, and long runs have too many values.
    let results = folder.join(RESULTS);
    if is_in_folder && results.is_file() {
        return rows::of_csv(&results);
    }
    Ok(rows::of_report(&RunRecord::open(path)?.report))
}

fn read_baseline(path: &Path) -> anyhow::Result<Baseline> {
    let bytes = config::read_input(path, config::FILE_LIMIT)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Baseline::from_json(&String::from_utf8_lossy(&bytes))
        .with_context(|| format!("cannot use {}", path.display()))
}
