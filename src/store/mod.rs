//! Runs on disk: a folder for each run, and how runs are found and read again.

mod find;
mod folder;
mod kept;
mod requests;
mod rows;
mod stored;

pub(crate) use self::{
    find::{FindError, Found, RunFinder},
    folder::{BASELINE, REPORT, REQUESTS, RESULTS, RUN, create},
    kept::StoredTrials,
    stored::{StoredRun, baseline},
};
