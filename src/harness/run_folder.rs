//! The files of a run's folder that are written at its end, besides the requested reports.

use std::path::{Path, PathBuf};

use llm_stream_core::baseline::Baseline;

use super::runs;
use crate::{
    report::{Run, json},
    store::{self, RunRecord},
    whole_file,
};

/// Limit of the requests whose values are kept to be compared with: the file is read as a whole.
const MOST_COMPARED: usize = 100_000;

/// Writes the values that later runs are compared with, and the report of the run as it is on disk.
/// Returns the path of the report, and a line of the run's outcome for each file that cannot be
/// written.
pub(super) fn finish(
    folder: &Path,
    run: &Run,
    with_parquet: bool,
) -> (Option<PathBuf>, Vec<String>) {
    let failure = |name: &str, error: anyhow::Error| {
        format!("FAILED: cannot write {}: {error:#}", folder.join(name).display())
    };
    let values = write_values(folder, run).err();
    let values = values.map(|error| failure(store::BASELINE, error));
    let (report, error) = match write_report(folder, run) {
        Ok(path) => (Some(path), None),
        Err(error) => (None, Some(failure(store::REPORT, error))),
    };
    let tables = with_parquet.then(|| write_parquet(folder)).and_then(Result::err);
    let tables = tables.map(|error| format!("FAILED: {error:#}"));
    (report, values.into_iter().chain(error).chain(tables).collect())
}

/// Fails if this program cannot write Parquet.
pub(super) fn check_parquet() -> anyhow::Result<()> {
    anyhow::ensure!(
        cfg!(feature = "parquet"),
        "`--parquet` requires the feature `parquet`, without which this program is built: add \
         `--features parquet` to the command of cargo"
    );
    Ok(())
}

#[cfg(feature = "parquet")]
fn write_parquet(folder: &Path) -> anyhow::Result<()> {
    store::parquet::write(folder)
}

#[cfg(not(feature = "parquet"))]
fn write_parquet(_: &Path) -> anyhow::Result<()> {
    check_parquet()
}

fn write_values(folder: &Path, run: &Run) -> anyhow::Result<()> {
    let valid: usize = run.summary.groups.iter().map(|group| group.tally.valid).sum();
    if (1..=MOST_COMPARED).contains(&valid) {
        whole_file::write(&folder.join(store::BASELINE), baseline(run).to_json().as_bytes())?;
    }
    Ok(())
}

fn write_report(folder: &Path, run: &Run) -> anyhow::Result<PathBuf> {
    let path = folder.join(store::RUN);
    let page = runs::page(&[RunRecord { path, report: json::without_requests(run)? }])?;
    let path = folder.join(store::REPORT);
    whole_file::write_with(&path, &|out| out.write_all(page.as_bytes()))?;
    Ok(std::path::absolute(&path).unwrap_or(path))
}

/// Returns the values of the run.
fn baseline(run: &Run) -> Baseline {
    let baseline = Baseline::of(&run.summary, &run.machine);
    match &run.setup {
        Some(setup) => baseline.dated(setup.started),
        None => baseline,
    }
}
