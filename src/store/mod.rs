//! Runs on disk: a folder for each run, and how runs are found and read again.

mod find;
mod folder;
mod kept;
mod record;
mod requests;
mod rows;

pub(crate) use self::{
    find::{FindError, Found, RunFinder},
    folder::{BASELINE, REPORT, REQUESTS, RESULTS, RUN, create},
    kept::StoredTrials,
    record::{RunRecord, baseline},
};
