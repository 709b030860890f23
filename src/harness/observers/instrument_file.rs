//! The file of the instrument's error, next to the results.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    calibrate::Calibration,
    harness::terminal::Terminal,
    run::{Event, InstrumentSetting, Observer, ObserverError},
    whole_file,
};

/// Writes `RESULTS.instrument.json`.
pub(in crate::harness) struct InstrumentFile {
    /// The path of the results.
    pub(in crate::harness) results: PathBuf,
    pub(in crate::harness) terminal: Arc<Terminal>,
}

impl Observer for InstrumentFile {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        // Devices and pipes have no folder for it.
        if let Event::InstrumentMeasured { calibrations } = event
            && self.results.is_file()
            && let Err(error) = self.write(calibrations)
        {
            let line = format!("WARNING: the instrument's error is not saved: {error:#}\n\n");
            self.terminal.err(&line);
        }
        Ok(())
    }
}

impl InstrumentFile {
    /// Checks before the first request that the file next to `results` can be written.
    pub(in crate::harness) fn check(results: &Path) -> anyhow::Result<()> {
        if !results.is_file() {
            return Ok(());
        }
        let path = path(results);
        whole_file::check(&path).with_context(|| format!("failed to write {}", path.display()))
    }

    fn write(&self, calibrations: &[(InstrumentSetting, Calibration)]) -> anyhow::Result<()> {
        let path = path(&self.results);
        let stored: Vec<_> = calibrations
            .iter()
            .map(|(setting, calibration)| Stored {
                transport: setting.transport.name(),
                calibration,
            })
            .collect();
        whole_file::write(&path, &serde_json::to_vec_pretty(&stored)?)
            .with_context(|| format!("failed to write {}", path.display()))
    }
}

fn path(results: &Path) -> PathBuf {
    results.with_extension("instrument.json")
}

/// A calibration as it is stored; times in seconds.
#[derive(Serialize)]
struct Stored<'a> {
    transport: &'static str,
    #[serde(flatten)]
    calibration: &'a Calibration,
}
