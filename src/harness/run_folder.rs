//! The files of a run's folder that are written at its end, besides the requested reports.

use std::path::Path;

use llm_stream_core::baseline::Baseline;

use crate::{report::Run, store, whole_file};

/// Limit of the requests whose values are kept to be compared with: the file is read as a whole.
const MOST_COMPARED: usize = 100_000;

/// Writes the values that later runs are compared with, and the report. Fails with a line of the
/// run's outcome.
pub(super) fn finish(folder: &Path, run: &Run) -> Result<(), String> {
    let valid: usize = run.summary.groups.iter().map(|group| group.tally.valid).sum();
    if (1..=MOST_COMPARED).contains(&valid) {
        let path = folder.join(store::BASELINE);
        let baseline = baseline(run).to_json();
        whole_file::write(&path, baseline.as_bytes())
            .map_err(|error| format!("FAILED: cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Returns the values of the run.
fn baseline(run: &Run) -> Baseline {
    let baseline = Baseline::of(&run.summary, &run.machine);
    match &run.setup {
        Some(setup) => baseline.dated(setup.started),
        None => baseline,
    }
}
