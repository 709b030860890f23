//! Warnings about a data set: skipped records, and why.

use super::source::ConfigError;
use llm_stream_core::text::counted;

/// Limit of the skipped records that are named.
const NAMED: usize = 3;

/// Warnings about a data set.
#[derive(Debug, Clone)]
pub struct DataNote {
    file: String,
    /// The number of records.
    all: usize,
    /// Records that cannot be sent.
    left_out: usize,
    /// The first mistakes, each with the number of the record if a line may have several records.
    mistakes: Vec<(Option<usize>, ConfigError)>,
    /// Conversations without a question.
    without_question: usize,
    remarks: Vec<String>,
}

impl DataNote {
    /// Creates the note on the data set in `file` with `left_out` skipped records; `mistakes` are
    /// the first mistakes.
    pub(super) fn new(
        file: String,
        all: usize,
        left_out: usize,
        mistakes: Vec<(Option<usize>, ConfigError)>,
    ) -> Self {
        Self { file, all, left_out, mistakes, without_question: 0, remarks: Vec::new() }
    }

    /// Adds a remark.
    pub(super) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// Sets the number of conversations without a question. `--strict-data` refuses them too,
    /// because they are not sent.
    pub(super) fn without_question(&mut self, count: usize) {
        self.without_question = count;
    }

    /// The lines that are printed before a run.
    pub fn lines(&self) -> Vec<String> {
        let place = |(number, mistake): &(Option<usize>, ConfigError)| {
            let line = mistake.line().map(|line| format!(":{line}")).unwrap_or_default();
            let number = number.map(|number| format!(" {number}")).unwrap_or_default();
            let (file, message) = (mistake.file(), mistake.message());
            format!("warning: {file}{line}: record{number} left out: {message}")
        };
        let mut lines: Vec<_> = self.mistakes.iter().take(NAMED).map(place).collect();
        if self.left_out > 0 {
            lines.push(format!(
                "warning: {}: {} of {} left out; `--strict-data` refuses such a data set",
                self.file,
                self.left_out,
                counted(self.all, "record")
            ));
        }
        let unasked = (self.without_question > 0).then(|| self.unasked() + " left out");
        let remarks = unasked.iter().chain(&self.remarks);
        lines.extend(remarks.map(|remark| format!("note: {}: {remark}", self.file)));
        lines
    }

    fn unasked(&self) -> String {
        format!("{} without a question", counted(self.without_question, "record"))
    }

    /// The mistakes as errors.
    pub(super) fn errors(&self) -> Vec<ConfigError> {
        let help = "correct them, or leave them out: without `--strict-data`";
        let mut errors: Vec<_> = self.mistakes.iter().map(|(_, error)| error.clone()).collect();
        if let Some(more) = self.left_out.checked_sub(errors.len()).filter(|more| *more > 0) {
            let what = format!("{} of {} cannot be sent", counted(more, "more record"), self.file);
            errors.push(ConfigError::of_file(&self.file, what, help));
        }
        if self.without_question > 0 {
            let what = format!("{} has {}", self.file, self.unasked());
            errors.push(ConfigError::of_file(&self.file, what, help));
        }
        errors
    }
}
