//! Runs on disk: a folder for each run, and how runs are found and read again.

mod find;
mod folder;
mod kept;
#[cfg(feature = "parquet")]
pub(crate) mod parquet;
mod record;
mod requests;
mod rows;
pub(crate) mod zst;

pub(crate) use self::{
    find::{FindError, Found, RunFinder},
    folder::{
        BASELINE, REPORT, REQUESTS, REQUESTS_PARQUET, REQUESTS_ZST, RESULTS, RESULTS_PARQUET, RUN,
        create,
    },
    kept::StoredTrials,
    record::{RunRecord, baseline},
};
