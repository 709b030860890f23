//! The rows of the live view at the end of the terminal, below the lines that are printed.
//!
//! The rows are written with relative movements only, and every row ends with a line feed. No mode
//! of the terminal changes, and no answer of it is read. A process that is killed therefore leaves a
//! terminal that works, with the cursor at the start of a line.

use std::{
    io::{self, Write as _},
    mem,
};

use ratatui_core::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};
use unicode_width::UnicodeWidthStr as _;

/// Where a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::harness) enum StandardStream {
    Stdout,
    Stderr,
}

/// The size of a terminal and its abilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TerminalTraits {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) has_colors: bool,
    /// Whether it wraps lines again when its width changes.
    pub(super) rewraps: bool,
}

/// The rows on the terminal, and the texts that wait to be printed above them.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The widths of the rows on the terminal.
    rows: Vec<usize>,
    /// The terminal's width when they were drawn.
    width: u16,
    waiting: Vec<(StandardStream, Vec<u8>)>,
}

impl Screen {
    /// Adds a text that is printed with the next drawing.
    pub(super) fn push(&mut self, stream: StandardStream, text: &[u8]) {
        match self.waiting.last_mut().filter(|(last, _)| *last == stream) {
            Some((_, texts)) => texts.extend_from_slice(text),
            None => self.waiting.push((stream, text.to_vec())),
        }
    }

    /// Removes the rows, prints the waiting texts, and draws `view`, if there is one. An error of
    /// stdout is returned; without stderr nobody reads the view.
    pub(super) fn update(
        &mut self,
        view: Option<&Buffer>,
        terminal: TerminalTraits,
    ) -> io::Result<()> {
        let mut bytes = self.erase(terminal);
        let mut written = Ok(());
        for (stream, text) in mem::take(&mut self.waiting) {
            match stream {
                StandardStream::Stderr => bytes.extend(text),
                StandardStream::Stdout => {
                    to_stderr(&mem::take(&mut bytes));
                    written = written.and(to_stdout(&text));
                }
            }
        }
        if let Some(view) = view {
            let (drawn, rows) = drawn(view, terminal.has_colors);
            bytes.extend(drawn);
            (self.rows, self.width) = (rows, terminal.width);
        }
        to_stderr(&bytes);
        written
    }

    /// Returns the bytes that remove the rows. The cursor is at the start of the line below them.
    fn erase(&mut self, terminal: TerminalTraits) -> Vec<u8> {
        let width = usize::from(terminal.width.max(1));
        // A terminal that has become narrower may show a row in several lines.
        let is_wrapped = terminal.rewraps && terminal.width < self.width;
        let lines = |row: usize| if is_wrapped { row.div_ceil(width).max(1) } else { 1 };
        let up: usize = self.rows.drain(..).map(lines).sum();
        match up {
            0 => Vec::new(),
            _ => format!("\r\x1b[{up}A\x1b[J").into_bytes(),
        }
    }
}

fn to_stderr(bytes: &[u8]) {
    if !bytes.is_empty() {
        let _ = io::stderr().lock().write_all(bytes);
    }
}

/// Writes to stdout.
pub(in crate::harness) fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Returns the bytes of a view, and the width of each row.
fn drawn(view: &Buffer, has_colors: bool) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut widths) = (Vec::new(), Vec::new());
    for row in view.content().chunks(usize::from(view.area.width).max(1)) {
        let end = row.iter().rposition(|cell| cell.symbol() != " ").map_or(0, |last| last + 1);
        let mut style = String::new();
        let mut column = 0;
        while column < end {
            let cell = &row[column];
            let wanted = if has_colors { escape(cell) } else { String::new() };
            if wanted != style {
                bytes.extend(b"\x1b[0m");
                bytes.extend(wanted.as_bytes());
                style = wanted;
            }
            bytes.extend(cell.symbol().as_bytes());
            // A wide character covers the cell after it.
            column += cell.symbol().width().max(1);
        }
        if !style.is_empty() {
            bytes.extend(b"\x1b[0m");
        }
        bytes.push(b'\n');
        widths.push(end);
    }
    (bytes, widths)
}

/// Returns the escape of a cell's style, for the few styles of the view.
fn escape(cell: &Cell) -> String {
    let color = match cell.fg {
        Color::Red => Some("31"),
        Color::Cyan => Some("36"),
        _ => None,
    };
    let bold = cell.modifier.contains(Modifier::BOLD).then_some("1");
    let dim = cell.modifier.contains(Modifier::DIM).then_some("2");
    let codes: Vec<_> = [bold, dim, color].into_iter().flatten().collect();
    if codes.is_empty() { String::new() } else { format!("\x1b[{}m", codes.join(";")) }
}
