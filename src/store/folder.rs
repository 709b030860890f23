//! The folder of a run and the names of its files.

use std::{
    fs, io, iter,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

/// All results: verdicts, figures with intervals, circumstances.
pub(crate) const RUN: &str = "run.json";

/// One row for each request.
pub(crate) const RESULTS: &str = "results.csv";

/// One line for each request, with every arrival.
pub(crate) const REQUESTS: &str = "requests.jsonl";

/// The same, compressed.
pub(crate) const REQUESTS_ZST: &str = "requests.jsonl.zst";

/// The rows of [`RESULTS`] as Parquet.
pub(crate) const RESULTS_PARQUET: &str = "results.parquet";

/// The requests as Parquet.
pub(crate) const REQUESTS_PARQUET: &str = "requests.parquet";

/// The values that later runs are compared with.
pub(crate) const BASELINE: &str = "baseline.json";

/// The report for people.
pub(crate) const REPORT: &str = "report.html";

/// Returns the path of the requests in `folder`, compressed or not; `None` if there is no such file.
pub(crate) fn requests(folder: &Path) -> Option<PathBuf> {
    [REQUESTS, REQUESTS_ZST].map(|name| folder.join(name)).into_iter().find(|path| path.exists())
}

/// Creates the folder of a run that starts at `started` in `parent`; its name is that time.
pub(crate) fn create(parent: &Path, started: Timestamp) -> io::Result<PathBuf> {
    let stamp = started.strftime("%Y%m%dT%H%M%SZ").to_string();
    fs::create_dir_all(parent)?;
    let names = iter::once(stamp.clone()).chain((2..).map(|n| format!("{stamp}-{n}")));
    for folder in names.map(|name| parent.join(name)) {
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder),
        }
    }
    unreachable!("the names do not end")
}
