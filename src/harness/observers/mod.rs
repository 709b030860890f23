//! Observers of a run: CSV rows, recordings, lines, and libtest's lines. Each is a
//! separate [`Observer`](crate::run::Observer).

mod instrument_file;
mod libtest;
mod libtest_output;
mod lines;
mod recordings;
mod request_file;
mod results;
mod row_file;

pub(super) use self::{
    instrument_file::InstrumentFile,
    libtest::LibtestTrials,
    libtest_output::LibtestOutput,
    lines::Lines,
    recordings::{Recordings, create_folder, file_name},
    request_file::RequestFile,
    results::{Output, ResultsPlace, target_folder},
    row_file::is_stream,
};
