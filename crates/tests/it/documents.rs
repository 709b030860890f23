//! The documents and the words: links lead somewhere, README fits on a screen, and the dialect of the
//! house style's rule 3 does not come back.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::bench::REPOSITORY;

/// The Markdown files of the repository.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(REPOSITORY);
    let names = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    let mut pages: Vec<_> = names.iter().map(|name| root.join(name)).collect();
    for language in ["en", "zh"] {
        let folder = root.join("docs").join(language).join("src");
        let files = fs::read_dir(folder).expect("the book").map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|it| it == "md")));
    }
    pages
}

/// A page without its blocks of code.
fn prose(page: &Path) -> String {
    let text =
        fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// The targets of the links in a text.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// The anchors of a page, as mdBook makes them of headings.
fn anchors(page: &Path) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let plain = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    plain.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_has_a_target() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in links(&prose(&page)).into_iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            let is_there = target.exists()
                && (heading.is_empty() || anchors(&target).contains(&heading.to_lowercase()));
            if !is_there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_readme_is_at_most_10_kb_and_the_books_have_the_same_pages() {
    for name in ["README.md", "README.zh-CN.md"] {
        let size = fs::metadata(Path::new(REPOSITORY).join(name)).expect("a README").len();
        assert!(size <= 10_240, "{name}: {size} bytes");
    }
    let pages = |language: &str| -> BTreeSet<_> {
        let folder = Path::new(REPOSITORY).join("docs").join(language).join("src");
        let summary = fs::read_to_string(folder.join("SUMMARY.md")).expect("a table of contents");
        let listed: BTreeSet<_> = links(&summary).into_iter().map(str::to_owned).collect();
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let files: BTreeSet<_> = files.map(|name| name.into_string().unwrap()).collect();
        for file in files.iter().filter(|file| *file != "SUMMARY.md") {
            assert!(listed.contains(file), "{language}: {file} is not in SUMMARY.md");
        }
        files
    };
    assert_eq!(pages("en"), pages("zh"));
}

/// Phrases that the house style replaces, in lower case.
const DIALECT: &[&str] = &[
    "whoever",
    "of its own",
    "of their own",
    "of our own",
    "in its place",
    "in their place",
    "all the same",
    "beside",
    "under way",
    "is told",
    "are told",
    "wants",
    "mend",
    "is no",
    "are no",
];

/// Where a phrase is right: the beginning of the line's text after the phrase's place is not
/// looked at, only whether the line has the whole of one of these.
const ALLOWED: &[&str] = &["there is no", "there are no", "besides", "is not", "are not"];

/// The phrases of [`DIALECT`] in a line.
fn dialect(line: &str) -> Vec<&'static str> {
    let mut line = line.to_lowercase();
    for allowed in ALLOWED {
        line = line.replace(allowed, "");
    }
    let is_word = |phrase: &str, at: usize| {
        let is_letter = |c: char| c.is_alphanumeric() || c == '_';
        let before = line[..at].chars().next_back().is_some_and(is_letter);
        let after = line[at + phrase.len()..].chars().next().is_some_and(is_letter);
        !before && !after
    };
    let is_in = |phrase: &&&str| line.match_indices(**phrase).any(|(at, _)| is_word(phrase, at));
    DIALECT.iter().filter(is_in).copied().collect()
}

#[test]
fn a_phrase_is_found_as_whole_words() {
    assert_eq!(dialect("A thread of its own, which is no thread"), ["of its own", "is no"]);
    assert_eq!(dialect("There is no reason; besides, recommended amendments"), [""; 0]);
}

/// The files whose words are checked.
fn written_files() -> Vec<PathBuf> {
    let root = Path::new(REPOSITORY);
    let mut files = Vec::new();
    for folder in [
        "src",
        "benches",
        "examples",
        "crates/core",
        "crates/client",
        "crates/sim",
        "crates/socket",
    ] {
        collect(&root.join(folder), &mut files);
    }
    let is_english = |page: &PathBuf| !page.to_string_lossy().contains("zh");
    files.extend(pages().into_iter().filter(is_english));
    files.extend(["configs.yaml", "action.yml"].map(|name| root.join(name)));
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn no_text_has_a_phrase_of_the_dialect() {
    let mut found = Vec::new();
    for path in written_files() {
        let text = fs::read_to_string(&path).unwrap();
        for (line, number) in text.lines().zip(1..) {
            for phrase in dialect(line) {
                found.push(format!("{}:{number}: \"{phrase}\": {}", path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_page_named_by_a_message_or_comment_exists() {
    let mut broken = Vec::new();
    for path in written_files() {
        let text = fs::read_to_string(&path).unwrap();
        let is_around = |c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c));
        for name in text.split(is_around).filter(|it| it.starts_with("docs/")) {
            if !Path::new(REPOSITORY).join(name.trim_end_matches('.')).exists() {
                broken.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The lengths of the functions in a file that rustfmt has formatted: from `fn` to the line with the
/// closing brace of the same indentation. Test modules are left out.
fn function_lengths(text: &str) -> Vec<(String, usize)> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines: Vec<_> = code.lines().collect();
    let mut lengths = Vec::new();
    for (nth, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<_> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        let is_definition = words[..at]
            .iter()
            .all(|word| ["pub", "const", "async"].contains(word) || word.starts_with("pub("));
        if !is_definition {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let is_body = lines[nth..]
            .iter()
            .take_while(|line| !line.ends_with(';'))
            .any(|line| line.ends_with('{'));
        if !is_body {
            continue;
        }
        if let Some(length) = lines[nth..].iter().position(|line| **line == end) {
            lengths.push((words[at + 1].to_owned(), length + 1));
        }
    }
    lengths
}

#[test]
fn functions_are_short() {
    let mut lengths = Vec::new();
    for path in written_files().into_iter().filter(|path| path.extension().unwrap() == "rs") {
        let text = fs::read_to_string(&path).unwrap();
        for (name, length) in function_lengths(&text) {
            assert!(length <= 60, "{}: {name}: {length} lines", path.display());
            lengths.push(length);
        }
    }
    lengths.sort_unstable();
    assert!(lengths.len() > 1_000, "{}", lengths.len());
    assert!(lengths[lengths.len() / 2] <= 10, "median {}", lengths[lengths.len() / 2]);
}
