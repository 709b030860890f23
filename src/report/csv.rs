//! CSV files: a table of columns per kind of row. Times are in seconds, speeds in tokens per second;
//! an unknown value is an empty cell.

use std::{
    fmt,
    io::{self, Write},
    marker::PhantomData,
    time::Duration,
};

use llm_stream_core::text::printable;

/// A header and the function that formats the cell of a row.
pub type Column<Row> = (&'static str, fn(&Row) -> String);

/// A kind of row.
pub trait CsvRow: Sized + 'static {
    /// The columns of its file, in their order.
    const COLUMNS: &'static [Column<Self>];
}

/// A CSV file of one kind of row.
pub struct CsvTable<Row, W: Write> {
    writer: csv::Writer<W>,
    rows: PhantomData<fn(&Row)>,
}

impl<Row, W: Write> fmt::Debug for CsvTable<Row, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvTable").finish_non_exhaustive()
    }
}

impl<Row: CsvRow, W: Write> CsvTable<Row, W> {
    /// Writes the header to `out`.
    pub fn new(out: W) -> io::Result<Self> {
        // The buffer must hold the largest row, so that each flush writes whole rows.
        let mut writer = csv::WriterBuilder::new().buffer_capacity(1 << 20).from_writer(out);
        writer.write_record(Row::COLUMNS.iter().map(|(header, _)| header))?;
        writer.flush()?;
        Ok(Self { writer, rows: PhantomData })
    }

    /// Writes a row and flushes it: a killed run loses at most the trial in flight.
    pub fn write(&mut self, row: &Row) -> io::Result<()> {
        self.write_all(std::slice::from_ref(row))
    }

    /// Writes the rows of one trial and flushes them together.
    pub fn write_all(&mut self, rows: &[Row]) -> io::Result<()> {
        for row in rows {
            self.writer.write_record(Row::COLUMNS.iter().map(|(_, cell)| inert(cell(row))))?;
        }
        self.writer.flush()
    }
}

/// Formats a time to the nanosecond.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.9}", time.as_secs_f64())
}

/// Formats a value if it is known.
pub(super) fn optional<T: fmt::Display>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Returns a text that no spreadsheet evaluates: one that begins like a formula gets a leading
/// apostrophe.
///
/// <https://owasp.org/www-community/attacks/CSV_Injection>
pub(super) fn text(text: &str) -> String {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '|' | '＝' | '＋' | '－' | '＠') => {
            format!("'{text}")
        }
        _ => text.to_owned(),
    }
}

/// Returns a cell as the file has it, whichever column it is of: printable, of limited length, and
/// without a formula.
fn inert(cell: String) -> String {
    let cell = if cell.parse::<f64>().is_ok() { cell } else { text(&cell) };
    printable(&cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_no_command() {
        for (cell, expected) in [
            ("-0.25", "-0.25"),
            ("=1+1", "'=1+1"),
            ("-1+2", "'-1+2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\\t=1"),
            ("::error::x\n::y::z", "\\u{3a}:error::x\n\\u{3a}:y::z"),
            ("a\u{1b}[31m ##[error]", "a\\u{1b}[31m ##\\u{5b}error]"),
        ] {
            assert_eq!(inert(cell.to_owned()), expected);
        }
        assert_eq!(text("-5"), "'-5");
        let long = inert("x".repeat(1_000_000));
        assert!(long.len() < 5_000 && long.ends_with("… (996000 more characters)"));
    }
}
