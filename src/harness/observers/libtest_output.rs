//! The relay of libtest-mimic's output, in whole lines.
//!
//! libtest-mimic writes `test NAME ... ` before a trial and the rest of the line after it, straight
//! to stdout. Two things break this for parsers of libtest's format. A line on stderr or the
//! progress bar, written to the same terminal in between, tears the line. And names are padded to a
//! common width, so that `test \S+ \.\.\. bench` does not match.
//!
//! libtest-mimic cannot write to anything but stdout or a file. Its output therefore goes to a
//! file in memory, elsewhere to a temporary file, by way of `--logfile`, and
//! [`LibtestOutput::flush_lines`] copies complete lines between trials: at these moments
//! libtest-mimic waits and does not write. Each line is corrected
//! on the way: padding removed, benches without a time per token turned into `ok`, and the number
//! of filtered trials, which libtest-mimic never saw, filled in.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use libtest_mimic::{Arguments, ColorSetting, FormatSetting, Measurement};
use tempfile::NamedTempFile;

use crate::{
    harness::terminal::{Printable, Terminal},
    temporary,
};

/// The placeholder of a trial that has no time per token. libtest-mimic fails a bench that returns
/// no measurement; the relay turns the line into `ok`.
pub(super) const NO_TPOT: Measurement = Measurement { avg: u64::MAX, variance: 0 };

/// The text that libtest-mimic writes for [`NO_TPOT`].
const NO_TPOT_TEXT: &str = "18,446,744,073,709,551,615 ns/iter";

/// The form of the lines.
#[derive(Debug, Clone, Copy)]
enum OutputStyle {
    Plain,
    Colored,
    Json,
}

/// Copies libtest-mimic's output to the terminal.
pub(in crate::harness) struct LibtestOutput {
    /// libtest-mimic opens it by its path.
    written: WrittenFile,
    partial: Vec<u8>,
    /// False for libtest's terse format, which writes single characters.
    whole_lines: bool,
    style: OutputStyle,
    /// Trials that the filters removed before libtest-mimic saw them.
    filtered_out: usize,
}

/// The file that libtest-mimic writes.
enum WrittenFile {
    /// In memory, so that no full disk is in the way.
    #[cfg(target_os = "linux")]
    Memory(File),
    /// In the temporary folder. The path is empty after libtest-mimic has opened it.
    Temporary(NamedTempFile, PathBuf),
}

impl WrittenFile {
    /// Creates the file, and returns it with its path. `last` is the folder to use where the
    /// system has neither files in memory nor a temporary folder: without it, the current one.
    fn create(last: Option<&Path>) -> anyhow::Result<(Self, PathBuf)> {
        #[cfg(target_os = "linux")]
        if let Some((file, path)) = in_memory() {
            return Ok((Self::Memory(file), path));
        }
        let file = temporary::named_file(last)
            .context("failed to create a file in the temporary folder (see TMPDIR)")?;
        let path = file.path().to_owned();
        Ok((Self::Temporary(file, path.clone()), path))
    }

    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Memory(file) => file.read_to_end(bytes),
            Self::Temporary(file, path) => {
                // Unlinked once libtest-mimic has opened it, so that a killed process leaves nothing
                // behind. (Windows does not unlink open files; there it is deleted with the relay.)
                if *path != Path::new("") {
                    let _ = std::fs::remove_file(std::mem::take(path));
                }
                file.as_file().read_to_end(bytes)
            }
        }
    }
}

/// Creates a file in memory, with a path by which this process can open it once more. `None` where
/// `/proc` is not mounted.
#[cfg(target_os = "linux")]
fn in_memory() -> Option<(File, PathBuf)> {
    use std::os::fd::AsRawFd as _;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    let file = File::from(memfd_create("libtest", MFdFlags::MFD_CLOEXEC).ok()?);
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    File::options().write(true).open(&path).ok()?;
    Some((file, path))
}

impl LibtestOutput {
    /// Creates a relay and directs the output of `arguments` to it.
    pub(in crate::harness) fn new(
        arguments: &mut Arguments,
        filtered_out: usize,
        last: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let (written, path) = WrittenFile::create(last)?;
        // `Arguments` holds the path as text.
        let path =
            path.to_str().context("the path of the temporary folder (see TMPDIR) is not UTF-8")?;
        arguments.color = Some(color(arguments));
        arguments.logfile = Some(path.to_owned());
        let style = match (arguments.format, arguments.color) {
            (Some(FormatSetting::Json), _) => OutputStyle::Json,
            (_, Some(ColorSetting::Always)) => OutputStyle::Colored,
            _ => OutputStyle::Plain,
        };
        let terse = arguments.quiet || arguments.format == Some(FormatSetting::Terse);
        Ok(Self { written, partial: Vec::new(), whole_lines: !terse, style, filtered_out })
    }

    /// Prints the lines that are complete.
    pub(in crate::harness) fn flush_lines(&mut self, terminal: &Terminal) {
        // After an error the lines are only missing on the screen; the measurement continues.
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
            terminal.out(&match self.style {
                OutputStyle::Plain => Printable::lines(&corrected),
                OutputStyle::Colored => Printable::colored(&corrected),
                OutputStyle::Json => Printable::json(&corrected),
            });
        }
    }
}

/// Decides about colour, because libtest-mimic sees a file and not the user's terminal.
fn color(arguments: &Arguments) -> ColorSetting {
    match arguments.color {
        Some(ColorSetting::Always) => ColorSetting::Always,
        Some(ColorSetting::Never) => ColorSetting::Never,
        // Output that is not a terminal is read by parsers, so CLICOLOR_FORCE does not apply.
        Some(ColorSetting::Auto) | None => match anstream::AutoStream::choice(&io::stdout()) {
            anstream::ColorChoice::Never => ColorSetting::Never,
            _ if arguments.logfile.is_some() || !io::stdout().is_terminal() => ColorSetting::Never,
            _ => ColorSetting::Always,
        },
    }
}

/// Rewrites a line of libtest-mimic to the form that parsers of libtest's output expect.
fn corrected(line: &str, filtered_out: usize) -> String {
    if line.starts_with("test result: ") {
        return line.replace(" 0 filtered out", &format!(" {filtered_out} filtered out"));
    }
    if line.starts_with('{') {
        return corrected_json(line, filtered_out);
    }
    // The terse format has no names.
    if line.contains(NO_TPOT_TEXT) && !line.starts_with("test ") {
        return "ok\n".into();
    }
    let Some((name, outcome)) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(name, rest)| Some((name, rest.trim_start().strip_prefix("... ")?)))
    else {
        return line.into();
    };
    if outcome.contains(NO_TPOT_TEXT) {
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
