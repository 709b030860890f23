//! stdout and stderr. Lines are written whole, above the live view while there is one.
//!
//! All output passes [`printable`]: names, files and servers must not move the cursor, and CI
//! systems must not find a command in it. Only [`Terminal::annotate`] writes commands.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;
use llm_stream_core::text::{printable, visible_json};
use terminal_size::{Height, Width, terminal_size_of};
use unicode_width::UnicodeWidthStr as _;

use super::live::{LiveScreen, StandardStream, to_stdout};
use crate::report::{Exporter, Run, annotations::Annotations};

/// Why stdout lacks a text, which belongs to the process as stdout does.
static UNWRITTEN: Mutex<Option<String>> = Mutex::new(None);

/// stdout for libtest's lines, stderr for everything else.
pub(super) struct Terminal {
    screen: Arc<LiveScreen>,
    /// libtest's `--logfile`, which replaces stdout.
    logfile: Option<Mutex<File>>,
}

impl Terminal {
    pub(super) fn new(logfile: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| {
            File::create(path)
                .with_context(|| format!("failed to create the log file {}", path.display()))
        };
        let logfile = logfile.map(create).transpose()?.map(Mutex::new);
        Ok(Self { screen: Arc::default(), logfile })
    }

    /// Where the live view is drawn.
    pub(super) fn screen(&self) -> &Arc<LiveScreen> {
        &self.screen
    }

    /// Writes to stdout. After an error the measurement continues; see [`unwritten`].
    pub(super) fn out(&self, text: &Printable) {
        let bytes = text.0.as_bytes();
        let (of, written) = match &self.logfile {
            Some(file) => {
                let written = file.lock().map_or(Ok(()), |mut file| file.write_all(bytes));
                ("the log file", written)
            }
            None => ("stdout", self.screen.print(StandardStream::Stdout, bytes)),
        };
        keep_error(of, written);
    }

    /// Writes lines to stderr; on a terminal, wrapped to its width.
    pub(super) fn err(&self, text: &str) {
        let text = printable(text);
        match size() {
            Some((width, _)) => self.to_stderr(&wrapped(&text, width.into())),
            None => self.to_stderr(&text),
        }
    }

    /// Writes each of `lines` to stderr.
    pub(super) fn lines(&self, lines: impl IntoIterator<Item = String>) {
        lines.into_iter().for_each(|line| self.err(&format!("{line}\n")));
    }

    /// Writes the annotations of `run` to stderr, as commands of GitHub Actions.
    pub(super) fn annotate(&self, run: &Run) {
        self.to_stderr(&Annotations.render(run));
    }

    /// Removes the live view.
    pub(super) fn end_progress(&self) {
        self.screen.finish();
    }

    fn to_stderr(&self, text: &str) {
        // Without stderr nobody can be told.
        let _ = self.screen.print(StandardStream::Stderr, text.as_bytes());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.end_progress();
    }
}

/// Breaks lines that are wider than `width` between words, and indents what follows. A word that is
/// wider stays whole.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        let (mut rest, mut indent) = (line, 0);
        while let Some(at) = break_of(rest, width.saturating_sub(indent)) {
            out.push_str(rest[..at].trim_end());
            indent = blanks + 2;
            out.push_str(&format!("\n{:indent$}", ""));
            rest = rest[at..].trim_start_matches(' ');
        }
        out.push_str(rest);
    }
    out
}

/// Returns where a line that is wider than `width` is broken: at the last blank that fits, else at the
/// first one. `None` if it fits, or has no blank between words.
fn break_of(line: &str, width: usize) -> Option<usize> {
    let line = line.trim_end();
    if line.width() <= width {
        return None;
    }
    let start = line.len() - line.trim_start_matches(' ').len();
    let blanks = || line[start..].match_indices(' ').map(|(at, _)| start + at);
    let fitting = blanks().take_while(|&at| line[..at].width() <= width).last();
    fitting.or_else(|| blanks().next())
}

/// A text that the terminal may show as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Printable(String);

impl Printable {
    /// Makes plain lines printable.
    pub(super) fn lines(text: &str) -> Self {
        Self(printable(text))
    }

    /// Makes lines printable that this program has coloured. Only escapes of colours remain.
    pub(super) fn colored(text: &str) -> Self {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, len)) = next_color(rest) {
            out.push_str(&printable(&rest[..at]));
            out.push_str(&rest[at..at + len]);
            rest = &rest[at + len..];
        }
        Self(out + &printable(rest))
    }

    /// Makes lines of JSON printable. Their values remain the same.
    pub(super) fn json(text: &str) -> Self {
        Self(visible_json(text).into_owned())
    }
}

/// Returns where the next escape of a colour begins, and its length: `ESC[`, at most 16 digits and
/// semicolons, `m`.
fn next_color(text: &str) -> Option<(usize, usize)> {
    text.match_indices("\u{1b}[").find_map(|(at, start)| {
        let end = text[at + start.len()..].find(|c: char| !c.is_ascii_digit() && c != ';')?;
        let len = start.len() + end;
        (end <= 16 && text[at + len..].starts_with('m')).then_some((at, len + 1))
    })
}

/// Whether stderr is a terminal.
pub(super) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Returns the columns and lines of stderr, if it is a terminal.
pub(super) fn size() -> Option<(u16, u16)> {
    known(terminal_size_of(io::stderr()))
}

/// Returns a size that the terminal knows.
fn known(size: Option<(Width, Height)>) -> Option<(u16, u16)> {
    let (Width(width), Height(height)) = size?;
    (width > 0 && height > 0).then_some((width, height))
}

/// Returns the number of columns of stderr: those of the terminal, else 80.
pub(super) fn width() -> usize {
    size().map_or(80, |(width, _)| width.into())
}

/// Returns the same of stdout.
pub(super) fn stdout_width() -> usize {
    known(terminal_size_of(io::stdout())).map_or(80, |(width, _)| width.into())
}

/// Has a console of Windows interpret escapes on stderr; other terminals do so anyway.
pub(super) fn enable_escapes() {
    let _ = AutoStream::always(io::stderr());
}

/// Whether stderr is a terminal with colours, and neither the user nor the system has turned them
/// off.
pub(super) fn has_colors() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// Writes a line to stdout when no run is in progress.
pub(super) fn say(line: &str) {
    keep_error("stdout", to_stdout(format!("{}\n", printable(line)).as_bytes()));
}

/// Writes a report to stdout, whose format has made texts from outside harmless.
pub(super) fn say_all(report: &[u8]) {
    let end: &[u8] = if report.ends_with(b"\n") { b"" } else { b"\n" };
    keep_error("stdout", to_stdout(report).and_then(|()| to_stdout(end)));
}

/// Returns a line if something could not be written to stdout, and forgets it.
pub(super) fn unwritten() -> Option<String> {
    UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Keeps the first error of stdout for [`unwritten`]. If the reader of a pipe is gone, it has what it
/// needs.
pub(super) fn keep_error(of: &str, written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let mut kept = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert_with(|| format!("FAILED: {of} cannot be written: {error}"));
    }
}

/// Writes a line to stderr when no run is in progress.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// Prints the help, the version or the mistake that clap reports, and returns whether it is a
/// mistake. An argument in a mistake may come from a CI system's variable.
pub(super) fn report_arguments(error: &clap::Error) -> bool {
    let is_mistake = error.use_stderr();
    let is_colored = match is_mistake {
        true => has_colors(),
        false => AutoStream::choice(&io::stdout()) != ColorChoice::Never,
    };
    let text = error.render();
    let text = match is_colored {
        true => Printable::colored(&text.ansi().to_string()),
        false => Printable::lines(&text.to_string()),
    };
    match is_mistake {
        true => drop(io::stderr().lock().write_all(text.0.as_bytes())),
        false => keep_error("stdout", to_stdout(text.0.as_bytes())),
    }
    is_mistake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_between_words() {
        let text =
            "one two three\n  four five sixsixsix seven\n\nshort\nlonglonglong\n千问 千问 千问";
        let expected = "one two\n  three\n  four\n    five\n    sixsixsix\n    seven\n\nshort\n\
                        longlonglong\n千问 千问\n  千问";
        assert_eq!(wrapped(text, 10), expected);
        assert_eq!(wrapped(text, 200), text);
        let table = "  a    ±  b      \n";
        assert_eq!(wrapped(table, 11), table, "blanks at the end have no width");
    }

    #[test]
    fn only_colours_remain_in_coloured_lines() {
        let text = "\u{1b}[1;31mbad\u{1b}[0m \u{1b}[2J\u{1b}]8;;x \u{9b}31m\n::error::x";
        let expected =
            "\u{1b}[1;31mbad\u{1b}[0m \\u{1b}[2J\\u{1b}]8;;x \\u{9b}31m\n\\u{3a}:error::x";
        assert_eq!(Printable::colored(text), Printable(expected.to_owned()));
    }
}
