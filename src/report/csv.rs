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
    out: W,
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
        let mut table = Self::after_header(out);
        let header = |writer: &mut csv::Writer<Vec<u8>>| {
            writer.write_record(Row::COLUMNS.iter().map(|(header, _)| header))
        };
        table.append(header)?;
        Ok(table)
    }

    /// Continues a file that has the header.
    pub fn after_header(out: W) -> Self {
        Self { out, rows: PhantomData }
    }

    /// Writes a row: a killed run loses at most the trial in flight.
    pub fn write(&mut self, row: &Row) -> io::Result<()> {
        self.write_all(std::slice::from_ref(row))
    }

    /// Writes the rows of one trial together.
    pub fn write_all(&mut self, rows: &[Row]) -> io::Result<()> {
        self.append(|writer| {
            rows.iter().try_for_each(|row| {
                writer.write_record(Row::COLUMNS.iter().map(|(_, cell)| inert(cell(row))))
            })
        })
    }

    /// Writes whole lines at once. Their buffer is not kept: after an error it would still have them,
    /// and the next row would come after them.
    fn append(
        &mut self,
        lines: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>,
    ) -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        lines(&mut writer)?;
        let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
        self.out.write_all(&bytes)?;
        self.out.flush()
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
pub(super) fn inert(cell: String) -> String {
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
