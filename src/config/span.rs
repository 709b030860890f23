//! Places in a config's text.

use std::ops::Range;

use serde_saphyr::Location;

/// The bytes of `text` at `location`; the library knows them for values, not for syntax errors.
pub(super) fn bytes(text: &str, location: Location) -> Range<usize> {
    let span = location.span();
    let known = span.byte_offset().zip(span.byte_len()).and_then(|(start, len)| {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        text.get(start..end).map(|_| start..end)
    });
    known.unwrap_or_else(|| {
        let start = byte_at(text, location.line(), location.column());
        let len = text[start..].chars().next().map_or(0, char::len_utf8);
        start..start + len
    })
}

/// The byte at a line and a column that count from 1.
fn byte_at(text: &str, line: u64, column: u64) -> usize {
    let index = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(line) = lines(text).nth(index(line)) else {
        return text.len();
    };
    let mut chars = text[line.clone()].char_indices();
    chars.nth(index(column)).map_or(line.end, |(at, _)| line.start + at)
}

/// The bytes of each line, without its end: LF, CRLF or CR. Never none.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let Some(len) = text[start..].find(['\n', '\r']) else {
            next = None;
            return Some(start..text.len());
        };
        let end = start + len;
        next = Some(end + if text[end..].starts_with("\r\n") { 2 } else { 1 });
        Some(start..end)
    })
}
