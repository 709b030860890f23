//! Aligned tables for the terminal, at most 80 columns wide unless another width is given.

use comfy_table::{
    Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle,
};
use unicode_width::UnicodeWidthStr as _;

/// The width of a table that has no other.
pub(super) const NARROW: usize = 80;

const WIDTH: u16 = NARROW as u16;

/// The blanks before each line, and after each cell.
const INDENT: u16 = 2;
const PADDING: u16 = 2;

const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─'))
    .content_lines(ContentLineStyle::none());

/// Returns an empty table with these column heads; a head that begins with `>` aligns its column right.
pub(super) fn table(heads: &[&str]) -> Table {
    of_width(heads, NARROW)
}

/// Returns the same table with at most `width` columns.
pub(super) fn of_width(heads: &[&str], width: usize) -> Table {
    let width = u16::try_from(width).unwrap_or(WIDTH);
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width.saturating_sub(INDENT))
        .set_header(heads.iter().map(|head| Cell::new(head.trim_start_matches('>'))));
    for (column, head) in table.column_iter_mut().zip(heads) {
        column.set_padding((0, PADDING));
        if head.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Returns a cell with a name, which is wrapped between its parts if it is too long.
pub(super) fn name(name: &str) -> Cell {
    let cell = Cell::new(name);
    match [' ', '-', '/', ':', '_'].into_iter().find(|delimiter| name.contains(*delimiter)) {
        Some(delimiter) => cell.set_delimiter(delimiter),
        None => cell,
    }
}

/// Returns the same table with one line for each row, however wide it gets.
pub(super) fn unwrapped(heads: &[&str]) -> Table {
    let mut table = table(heads);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Wraps `text`; each line begins with `indent`. A longer word keeps its own line.
pub(super) fn paragraph(text: &str, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= usize::from(WIDTH) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns the columns of a line that are left for a last cell next to cells of these widths.
pub(super) fn room_beside(widths: impl Iterator<Item = usize>) -> usize {
    let taken: usize = widths.map(|width| width + usize::from(PADDING)).sum();
    usize::from(WIDTH - INDENT - PADDING).saturating_sub(taken)
}

/// Formats the lines of the table, indented by two, without trailing blanks.
pub(super) fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("  {}\n", line.trim_end())).collect()
}
