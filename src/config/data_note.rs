//! What is to be said of a data set that was read: records that were left out, and why.

use super::source::ConfigError;

/// Most records that are left out that are named.
const NAMED: usize = 3;

/// What is to be said of a data set.
#[derive(Debug, Clone)]
pub struct DataNote {
    file: String,
    /// Records that it holds.
    all: usize,
    /// Records that cannot be asked.
    left_out: usize,
    /// What is wrong with the first of them.
    mistakes: Vec<ConfigError>,
    remarks: Vec<String>,
}

impl DataNote {
    /// Of the data set in `file`, of whose records `left_out` cannot be asked; `mistakes` are those
    /// of the first ones.
    pub(super) fn new(
        file: String,
        all: usize,
        left_out: usize,
        mistakes: Vec<ConfigError>,
    ) -> Self {
        Self { file, all, left_out, mistakes, remarks: Vec::new() }
    }

    /// Adds what is worth knowing.
    pub(super) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// What is said before a run.
    pub fn lines(&self) -> Vec<String> {
        let place = |mistake: &ConfigError| {
            let line = mistake.line().unwrap_or_default();
            format!("warning: {}:{line}: record left out: {}", self.file, mistake.message())
        };
        let mut lines: Vec<_> = self.mistakes.iter().take(NAMED).map(place).collect();
        if self.left_out > 0 {
            lines.push(format!(
                "warning: {}: {} of {} records left out; `--strict-data` refuses such a data set",
                self.file, self.left_out, self.all
            ));
        }
        lines.extend(self.remarks.iter().map(|remark| format!("note: {}: {remark}", self.file)));
        lines
    }

    /// The mistakes as errors.
    pub(super) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = self.mistakes.clone();
        if let Some(more) = self.left_out.checked_sub(errors.len()).filter(|more| *more > 0) {
            let what = format!("{more} more records of {} cannot be asked", self.file);
            let help = "correct them, or leave them out: without `--strict-data`";
            errors.push(ConfigError::of_file(&self.file, what, help));
        }
        errors
    }
}
