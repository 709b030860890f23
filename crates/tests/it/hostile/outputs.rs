//! The checks of outputs.

use std::{fs, path::Path};

use quick_junit::Report;
use serde_json::Value;

use super::ci_parsers::{github, has_gitlab_section, is_azure_or_teamcity, lines};

/// The longest line of a log: the longest text with the words around it.
const LONGEST: usize = 4_200;

/// Titles of annotations.
const TITLES: [&str; 4] =
    ["Trial failed", "Threshold missed", "Threshold inconclusive", "And more"];

/// Checks an output that a terminal shows and a CI system reads.
pub(super) fn check_log(text: &str, about: &str) {
    check_lines(text, LONGEST, about);
}

fn check_lines(text: &str, longest: usize, about: &str) {
    let mut annotations = 0;
    for line in lines(text) {
        match github(line) {
            Some(command) if ["error", "warning"].contains(&command.name.as_str()) => {
                let title = command.properties.strip_prefix("title=").unwrap_or_default();
                let is_ours = TITLES.iter().any(|own| title.starts_with(own));
                assert!(is_ours && line.starts_with("::"), "{about}: {command:?}");
                assert!(!title.contains([',', ':']), "{about}: {title}");
                annotations += 1;
            }
            Some(command) => panic!("{about}: {command:?}"),
            None => assert!(!line.trim_start().starts_with("::"), "{about}: {line}"),
        }
        assert!(line.chars().count() <= longest, "{about}: a line of {}", line.len());
    }
    assert!(annotations <= 20, "{about}: {annotations} annotations");
    check_text(text, about);
}

/// Checks a text that someone may print.
fn check_text(text: &str, about: &str) {
    let is_hidden = |ch: char| {
        (ch.is_control() && ch != '\n')
            || matches!(ch, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{fe0f}' | '\u{feff}')
    };
    if let Some(at) = text.find(is_hidden) {
        let around: String = text[at..].chars().take(40).collect();
        panic!("{about}: a hidden character at {at}: {around:?}");
    }
    for line in lines(text) {
        assert!(!is_azure_or_teamcity(line), "{about}: {line}");
    }
    assert!(!has_gitlab_section(text), "{about}: {text}");
    assert!(text.len() < 400_000, "{about}: {} bytes", text.len());
}

/// Checks the files that a run has written to `folder`.
pub(super) fn check_files(folder: &Path, about: &str) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_input = ["configs.yaml", "made.yaml", "d.json", "folder"].contains(&name.as_str());
        if is_input {
            continue;
        }
        let about = format!("{about}: {}", path.display());
        if path.is_dir() {
            check_files(&path, &about);
            continue;
        }
        let text = String::from_utf8(fs::read(&path).unwrap()).expect("UTF-8");
        check_file(&path, &text, &about);
    }
}

fn check_file(path: &Path, text: &str, about: &str) {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => {
            // A row has several texts.
            check_lines(text, 4 * LONGEST, about);
            check_csv(path, about);
        }
        Some("json") => {
            check_text(text, about);
            assert!(text.is_empty() || serde_json::from_str::<Value>(text).is_ok(), "{about}");
        }
        Some("jsonl") => {
            // A recording has the whole answer.
            check_text(&text.chars().take(100_000).collect::<String>(), about);
            for line in text.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok(), "{about}: {line:.200}");
            }
        }
        Some("xml") if !text.is_empty() => {
            check_log(text, about);
            Report::deserialize_from_str(text).unwrap_or_else(|e| panic!("{about}: {e}"));
        }
        Some("md") => {
            check_log(text, about);
            check_markdown(text, about);
        }
        Some("xml" | "lock") => {}
        other => panic!("{about}: an unexpected file {other:?}"),
    }
}

fn check_csv(path: &Path, about: &str) {
    // The reader refuses rows of another length.
    let mut reader = csv::Reader::from_path(path).unwrap();
    for row in reader.records() {
        let row = row.unwrap_or_else(|error| panic!("{about}: {error}"));
        for cell in &row {
            let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
            assert!(!is_formula || cell.parse::<f64>().is_ok(), "{about}: {cell}");
            assert!(cell.chars().count() <= LONGEST, "{about}: a cell of {}", cell.len());
        }
    }
}

/// Checks that nothing outside of code spans is markup, and that each row of a table has the cells
/// of its head.
fn check_markdown(text: &str, about: &str) {
    let mut cells = 0;
    for line in text.lines() {
        if line.starts_with('|') {
            let found = cells_of(line);
            if cells == 0 {
                cells = found;
            }
            assert_eq!(found, cells, "{about}: {line}");
        } else {
            cells = 0;
        }
        let outside = outside_code(&line.replace("\\|", " "));
        let active = ["<", "](", "@", "http", "![", "&", "#1"];
        let active = active.iter().find(|markup| outside.contains(**markup));
        assert_eq!(active, None, "{about}: {line}");
    }
}

/// The cells of a row by the rules of GitHub's Markdown: a backslash escapes any punctuation.
fn cells_of(line: &str) -> usize {
    let mut chars = line.chars();
    let mut bars = 0;
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => _ = chars.next(),
            '|' => bars += 1,
            _ => {}
        }
    }
    bars - 1
}

/// `line` without its code spans: a run of backticks ends at the next run of the same length.
fn outside_code(line: &str) -> String {
    let mut outside = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        outside.push_str(&rest[..at]);
        rest = &rest[at..];
        let fence = rest.len() - rest.trim_start_matches('`').len();
        let after = &rest[fence..];
        let mut end = None;
        let mut from = 0;
        while let Some(start) = after[from..].find('`').map(|start| from + start) {
            let run = after[start..].len() - after[start..].trim_start_matches('`').len();
            if run == fence {
                end = Some(start + run);
                break;
            }
            from = start + run;
        }
        match end {
            Some(end) => rest = &after[end..],
            None => {
                outside.push_str(&rest[..fence]);
                rest = after;
            }
        }
    }
    outside + rest
}

/// `text` without escapes of colours.
pub(super) fn without_colors(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('m') {
            Some((digits, rest)) if digits.chars().all(|c| c.is_ascii_digit() || c == ';') => {
                out.push_str(rest);
            }
            _ => out.push_str(&format!("\u{1b}[{part}")),
        }
    }
    out
}

#[test]
fn the_checks_find_markup_and_rows_of_another_length() {
    assert_eq!(outside_code("a `b` c ``d ` e`` f `g"), "a  c  f `g");
    assert_eq!(cells_of("| a | b\\|c |"), 2);
    assert_eq!(cells_of("| a | b\\\\|c |"), 3, "the backslash is escaped, not the bar");
    for bad in ["| a | b |\n| c |\n", "x @y\n", "<b>\n", "[a](b)\n"] {
        assert!(std::panic::catch_unwind(|| check_markdown(bad, "")).is_err(), "{bad}");
    }
    for bad in ["::error::x", "##[x", "a\u{1b}[0m", "\u{202e}", "::warning title=Owned::x"] {
        assert!(std::panic::catch_unwind(|| check_log(bad, "")).is_err(), "{bad}");
    }
}
