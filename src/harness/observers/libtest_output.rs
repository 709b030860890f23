//! libtest-mimic's lines, passed on whole.
//!
//! With one thread libtest-mimic writes `test NAME ... ` before a trial and the rest after it, so
//! whatever is written to the same terminal in between tears the line; and it pads names, so that
//! `test \S+ \.\.\. bench` does not match. Its output therefore goes to a file of ours first, from
//! which whole lines are passed on between trials.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use libtest_mimic::{Arguments, ColorSetting, FormatSetting, Measurement};
use tempfile::NamedTempFile;

use crate::harness::terminal::Terminal;

/// Stands for "measured, but not a time per token": libtest-mimic fails a bench without a
/// measurement. Its line is turned into an `ok`.
pub(super) const NO_TPOT: Measurement = Measurement { avg: u64::MAX, variance: 0 };

/// How libtest-mimic writes [`NO_TPOT`].
const SENTINEL: &str = "18,446,744,073,709,551,615 ns/iter";

/// Passes on what libtest-mimic writes.
pub(in crate::harness) struct LibtestOutput {
    written: File,
    path: PathBuf,
    partial: Vec<u8>,
    /// libtest's terse format writes characters, not lines.
    whole_lines: bool,
    /// Trials that the filters left out before libtest-mimic saw them.
    filtered_out: usize,
    // Deletes the file, where it is still there.
    _file: NamedTempFile,
}

impl LibtestOutput {
    /// Turns `arguments` to write into a new relay.
    pub(in crate::harness) fn new(
        arguments: &mut Arguments,
        filtered_out: usize,
    ) -> anyhow::Result<Self> {
        let context = "failed to create a file in the temporary folder (see TMPDIR)";
        let file = NamedTempFile::new().context(context)?;
        // libtest-mimic takes the path as text.
        if file.path().to_str().is_none() {
            anyhow::bail!("{context}: its path is not UTF-8");
        }
        arguments.color = Some(color(arguments));
        arguments.logfile = Some(file.path().to_string_lossy().into_owned());
        let terse = arguments.quiet || arguments.format == Some(FormatSetting::Terse);
        Ok(Self {
            written: file.reopen().context(context)?,
            path: file.path().to_owned(),
            partial: Vec::new(),
            whole_lines: !terse,
            filtered_out,
            _file: file,
        })
    }

    /// Passes on the lines that are whole by now.
    pub(in crate::harness) fn flush_lines(&mut self, terminal: &Terminal) {
        self.forget_path();
        // What cannot be read back is only missing from the screen.
        let _ = self.written.read_to_end(&mut self.partial);
        let end = match self.partial.iter().rposition(|&byte| byte == b'\n') {
            _ if !self.whole_lines => self.partial.len(),
            Some(last) => last + 1,
            None => 0,
        };
        let rest = self.partial.split_off(end);
        let whole = std::mem::replace(&mut self.partial, rest);
        if !whole.is_empty() {
            let text = String::from_utf8_lossy(&whole);
            let corrected: String =
                text.split_inclusive('\n').map(|line| corrected(line, self.filtered_out)).collect();
            terminal.out(corrected.as_bytes());
        }
    }

    /// Once libtest-mimic has opened the file its name is not needed, and nothing is left behind
    /// by a kill. (Windows keeps the name of an open file; there it goes with the relay.)
    fn forget_path(&mut self) {
        if self.path != Path::new("") {
            let _ = std::fs::remove_file(std::mem::take(&mut self.path));
        }
    }
}

/// libtest-mimic sees a file where the user sees a terminal.
fn color(arguments: &Arguments) -> ColorSetting {
    match arguments.color {
        Some(ColorSetting::Always) => ColorSetting::Always,
        Some(ColorSetting::Never) => ColorSetting::Never,
        // Parsers read the output where it is not a terminal, whatever CLICOLOR_FORCE says.
        Some(ColorSetting::Auto) | None => match anstream::AutoStream::choice(&io::stdout()) {
            anstream::ColorChoice::Never => ColorSetting::Never,
            _ if arguments.logfile.is_some() || !io::stdout().is_terminal() => ColorSetting::Never,
            _ => ColorSetting::Always,
        },
    }
}

/// One of libtest-mimic's lines as parsers of libtest expect it.
fn corrected(line: &str, filtered_out: usize) -> String {
    if line.starts_with("test result: ") {
        return line.replace(" 0 filtered out", &format!(" {filtered_out} filtered out"));
    }
    if line.starts_with('{') {
        return corrected_json(line, filtered_out);
    }
    // The terse format has no names.
    if line.contains(SENTINEL) && !line.starts_with("test ") {
        return "ok\n".into();
    }
    let Some((name, outcome)) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(name, rest)| Some((name, rest.trim_start().strip_prefix("... ")?)))
    else {
        return line.into();
    };
    if outcome.contains(SENTINEL) {
        return format!("test {name} ... ok\n");
    }
    format!("test {name} ... {outcome}")
}

fn corrected_json(line: &str, filtered_out: usize) -> String {
    let end = r#""median": 18446744073709551615, "deviation": 0 }"#;
    match line.trim_end().strip_suffix(end) {
        Some(start) => {
            format!("{}\"event\": \"ok\" }}\n", start.replacen("\"bench\"", "\"test\"", 1))
        }
        None => line.replace("\"filtered_out\": 0,", &format!("\"filtered_out\": {filtered_out},")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_padded() {
        assert_eq!(
            corrected("test a::b::run-1     ... bench:       1,234 ns/iter (+/- 56)\n", 0),
            "test a::b::run-1 ... bench:       1,234 ns/iter (+/- 56)\n"
        );
        assert_eq!(corrected("test a::b::run-1 ... FAILED\n", 0), "test a::b::run-1 ... FAILED\n");
    }

    #[test]
    fn a_trial_without_a_time_per_token_is_ok_and_no_figure() {
        let line = format!("test a ... bench: {} ns/iter (+/- 0)\n", "18,446,744,073,709,551,615");
        assert_eq!(corrected(&line, 0), "test a ... ok\n");
        let terse = "bench: 18,446,744,073,709,551,615 ns/iter (+/- 0)\n";
        assert_eq!(corrected(terse, 0), "ok\n");
        let json =
            r#"{ "type": "bench", "name": "a", "median": 18446744073709551615, "deviation": 0 }"#;
        assert_eq!(
            corrected(&format!("{json}\n"), 0),
            "{ \"type\": \"test\", \"name\": \"a\", \"event\": \"ok\" }\n"
        );
    }

    #[test]
    fn the_trials_that_filters_left_out_are_counted() {
        let line = "test result: ok. 0 passed; 0 failed; 0 ignored; 2 measured; 0 filtered out; \
                    finished in 0.50s\n";
        assert!(corrected(line, 28).contains("2 measured; 28 filtered out"));
        let json = "{ \"type\": \"suite\", \"event\": \"ok\", \"filtered_out\": 0, }\n";
        assert!(corrected(json, 28).contains("\"filtered_out\": 28,"));
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        for line in ["\n", "running 3 tests\n", "failures:\n", "    a::b::run-1\n", "test\n"] {
            assert_eq!(corrected(line, 5), line);
        }
    }
}
