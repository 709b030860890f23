//! The config's text, places in it, and errors that show them.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use llm_stream_core::text::{counted, is_unprintable};
use serde_saphyr::Location;
use unicode_width::UnicodeWidthStr;

use super::{
    dataset::Mistake,
    secrets,
    span::{bytes, lines},
};

/// Characters of a line that are shown before and after the caret.
const CONTEXT: usize = 60;

/// The shortest secret that is hidden in messages: a shorter one could be a word of the message.
const SHORTEST_SECRET: usize = 4;

/// Most mistakes that are shown.
const MOST_SHOWN: usize = 50;

/// Columns of a help line.
const HELP_WIDTH: usize = 90;

/// Renders errors. Lines are cut before: the renderer must not cut them again.
const RENDERER: Renderer = Renderer::plain().term_width(1_000);

/// The text of a config, and the secrets in it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    file: String,
    text: String,
    /// The bytes of each line, without its end.
    lines: Vec<Range<usize>>,
    /// The bytes of secrets, in order and apart from each other.
    masks: Vec<Range<usize>>,
}

impl Source {
    /// `text` as it was read from `file`.
    pub(super) fn new(file: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        let masks = merged(secrets::in_text(&text));
        let lines = lines(&text).collect();
        let file = file.to_owned();
        Self { file, text, lines, masks }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text with `***` in place of secrets, and whether there are any.
    pub(super) fn masked_text(&self) -> (String, bool) {
        let (mut text, mut end) = (String::new(), 0);
        for mask in &self.masks {
            text.push_str(self.text.get(end..mask.start).unwrap_or_default());
            text.push_str("***");
            end = mask.end;
        }
        text.push_str(self.text.get(end..).unwrap_or_default());
        (text, !self.masks.is_empty())
    }

    /// Hides these bytes in messages.
    pub(super) fn hide(&mut self, masks: Vec<Range<usize>>) {
        let all = std::mem::take(&mut self.masks).into_iter().chain(masks).collect();
        self.masks = merged(all);
    }

    /// The bytes at `location`.
    pub(super) fn bytes(&self, location: Location) -> Range<usize> {
        bytes(&self.text, location)
    }

    /// The text at `bytes`, as one line of a message.
    pub(super) fn shown(&self, bytes: Range<usize>) -> String {
        let shown = self.show(bytes.clone(), bytes);
        match shown.text.char_indices().nth(CONTEXT) {
            Some((at, _)) => format!("{}…", &shown.text[..at]),
            None => shown.text,
        }
    }

    /// The error `what` at `bytes`.
    pub(super) fn error(
        &self,
        bytes: Range<usize>,
        path: &str,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> ConfigError {
        let (number, line) = self.line(bytes.start);
        let start = bytes.start.min(line.end);
        let end = bytes.end.clamp(start, line.end);
        ConfigError {
            file: self.file.clone(),
            message: visible(&self.without_secrets(what.into())),
            help: self.without_secrets(help.into()),
            path: visible(&self.without_secrets(path.to_owned())),
            at: Some(Box::new(At {
                line: number,
                column: self.text[line.start..start].chars().count() + 1,
                shown: self.show(line, start..end).around_the_caret(),
            })),
        }
    }

    /// `message` with its secrets hidden.
    fn without_secrets(&self, message: String) -> String {
        let secrets = self.masks.iter().filter_map(|mask| self.text.get(mask.clone()));
        let secrets = secrets.filter(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.fold(message, |message, secret| match message.contains(secret) {
            true => message.replace(secret, "***"),
            false => message,
        })
    }

    /// The number of the line that holds the byte `at`, and its bytes without the line end.
    fn line(&self, at: usize) -> (usize, Range<usize>) {
        let begun = |line: &Range<usize>| line.start <= at && line.start < self.text.len();
        let index = self.lines.partition_point(begun).saturating_sub(1);
        (index + 1, self.lines.get(index).cloned().unwrap_or(0..0))
    }

    /// `bytes` of the text, secrets hidden, and where `caret` is in that.
    fn show(&self, bytes: Range<usize>, caret: Range<usize>) -> Shown {
        let mut text = String::new();
        let (mut from, mut to) = (None, None);
        let mut hidden = false;
        for (index, ch) in self.text[bytes.clone()].char_indices() {
            let at = bytes.start + index;
            if at >= caret.start {
                from.get_or_insert(text.len());
            }
            if at >= caret.end {
                to.get_or_insert(text.len());
            }
            let next = self.masks.partition_point(|mask| mask.end <= at);
            let hide = self.masks.get(next).is_some_and(|mask| mask.contains(&at));
            match hide {
                true if !hidden => text.push_str("***"),
                true => {}
                false => push_visible(&mut text, ch),
            }
            hidden = hide;
        }
        let from = from.unwrap_or(text.len());
        let to = to.unwrap_or(text.len()).max(from);
        let caret = from..to;
        Shown { text, caret }
    }
}

/// The ranges in order, with those that meet as one, and without empty ones.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// `text` as one line without control characters.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    text.chars().for_each(|ch| push_visible(&mut visible, ch));
    visible
}

/// Adds `ch`, escaped if it is a control character.
fn push_visible(text: &mut String, ch: char) {
    match ch {
        '\t' => text.push_str("    "),
        '\n' | '\r' => text.push(' '),
        _ if is_unprintable(ch) => text.extend(ch.escape_unicode()),
        _ => text.push(ch),
    }
}

/// A piece of the text as it is shown, and the caret's bytes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    text: String,
    caret: Range<usize>,
}

impl Shown {
    /// Cuts a long line to the surroundings of the caret.
    fn around_the_caret(self) -> Self {
        let (before, after) = self.text.split_at(self.caret.start);
        let cut = before.char_indices().rev().nth(CONTEXT - 1).map_or(0, |(at, _)| at);
        let keep = after.char_indices().nth(CONTEXT).map_or(after.len(), |(at, _)| at);
        let (head, tail) =
            (if cut > 0 { "…" } else { "" }, if keep < after.len() { "…" } else { "" });
        let start = head.len() + before.len() - cut;
        let len = (self.caret.end - self.caret.start).min(keep);
        Self {
            text: format!("{head}{}{}{tail}", &before[cut..], &after[..keep]),
            caret: start..start + len,
        }
    }
}

/// A mistake in a config, with its place and a hint. It is displayed as
///
/// ```text
/// error: unknown key `modelname`
///  --> configs.yaml:5:5
///   |
/// 5 |     modelname: "Qwen3"
///   |     ^^^^^^^^^ in models.Qwen3
///   |
///   = help: did you mean `model_name`?
/// ```
///
/// Keys, passwords and the values of headers are shown as `***`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: String,
    message: String,
    help: String,
    path: String,
    at: Option<Box<At>>,
}

/// The place of an error in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct At {
    line: usize,
    column: usize,
    shown: Shown,
}

impl ConfigError {
    /// An error of the file as a whole.
    pub(super) fn of_file(
        file: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            message: message.into(),
            help: help.into(),
            path: String::new(),
            at: None,
        }
    }

    /// The `mistake` in the data file `file`, all of which is `text`; `path` leads to where the
    /// config names it.
    pub(super) fn in_data(file: &str, text: &str, path: &str, mistake: Mistake) -> Self {
        let Mistake { at, what, help, number: _ } = mistake;
        let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        let column = (at - start).min(line.len());
        let before = visible(&line[..column]);
        let pointed = line[column..].chars().next().map_or(0, char::len_utf8);
        let caret = before.len()..before.len() + visible(&line[column..column + pointed]).len();
        let shown = Shown { text: before + &visible(&line[column..]), caret };
        Self {
            file: file.to_owned(),
            message: visible(&what),
            help: help.to_owned(),
            path: path.to_owned(),
            at: Some(Box::new(At {
                line: text[..start].matches('\n').count() + 1,
                column: line[..column].chars().count() + 1,
                shown: shown.around_the_caret(),
            })),
        }
    }

    /// The file, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from 1; `None` when the file could not be read.
    pub fn line(&self) -> Option<usize> {
        self.at.as_ref().map(|at| at.line)
    }

    /// The column, in characters, counted from 1; `None` when the file could not be read.
    pub fn column(&self) -> Option<usize> {
        self.at.as_ref().map(|at| at.column)
    }

    /// The path in the document, such as `models.Qwen3.port`; empty for the document itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The mistake, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The hint.
    pub fn help(&self) -> &str {
        &self.help
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let help: Vec<_> = self.help.lines().flat_map(wrapped).collect();
        let rendered = RENDERER.render(&[self.group(&help.join("\n"))]);
        let (title, rest) = rendered.split_once('\n').unwrap_or((&rendered, ""));
        // The renderer would count the column in the line as it is shown, where secrets are hidden
        // and long lines are cut.
        match self.at.as_deref() {
            None => write!(f, "{title}\n --> {}\n{rest}", self.file),
            Some(At { line, column, .. }) => {
                let margin = " ".repeat(line.to_string().len());
                write!(f, "{title}\n{margin}--> {}:{line}:{column}\n{rest}", self.file)
            }
        }
    }
}

impl ConfigError {
    /// The parts of the message, without the place.
    fn group<'a>(&'a self, help: &'a str) -> Group<'a> {
        let title = Level::ERROR.primary_title(&self.message);
        let snippet = self.at.as_deref().map(|at| {
            let label = match self.path.as_str() {
                "" => None,
                path => Some(format!("in {path}")),
            };
            let caret = AnnotationKind::Primary.span(at.shown.caret.clone()).label(label);
            Snippet::source(&at.shown.text).line_start(at.line).fold(false).annotation(caret)
        });
        title.elements(snippet).element(Level::HELP.message(help))
    }
}

/// Wraps `line` at [`HELP_WIDTH`] columns; a longer word keeps its own line.
fn wrapped(line: &str) -> Vec<String> {
    if line.width() <= HELP_WIDTH {
        return vec![line.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let last = lines.last().map_or(0, |last| last.width());
        if last > 0 && last + word.trim_end().width() > HELP_WIDTH {
            lines.push(String::new());
        }
        if let Some(last) = lines.last_mut() {
            last.push_str(word);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

impl std::error::Error for ConfigError {}

/// Every mistake that was found in a config, in the order of the text. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().take(MOST_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        match self.0.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n\nand {}", counted(more, "more mistake")),
        }
    }
}

impl std::error::Error for ConfigErrors {}
