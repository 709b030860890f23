//! Files that a config names.

use std::{fs, io, path::Path};

use llm_stream_core::tokenizer::{Tokenizer, TokenizerError};

use super::reader::{Entry, Reader};

/// Reads a file that the document names.
pub(super) fn read(reader: &mut Reader<'_>, path: &Path) -> io::Result<Vec<u8>> {
    reader.files.push(path.to_owned());
    fs::read(path)
}

/// The text of a prompt's file, unchanged.
pub(super) fn text_of(reader: &mut Reader<'_>, entry: &Entry<'_>, path: &Path) -> Option<String> {
    let bytes = match read(reader, path) {
        Ok(bytes) => bytes,
        Err(error) => {
            unreadable(reader, entry, path, &error);
            return None;
        }
    };
    match text_in(bytes) {
        Ok(text) => Some(text),
        Err((what, help)) => {
            reader.error(entry, format!("{} {what}", path.display()), help);
            None
        }
    }
}

/// The text of a prompt's file; or the mistake, "is …", and a hint.
pub(super) fn text_in(bytes: Vec<u8>) -> Result<String, (&'static str, &'static str)> {
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(("is not UTF-8 text", "save the prompt as UTF-8"));
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match text.trim().is_empty() {
        true => Err(("is empty", "write the prompt into it, or remove it")),
        false => Ok(text.to_owned()),
    }
}

/// The tokenizer in the file that is named.
pub(super) fn tokenizer(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Tokenizer> {
    let name = reader.text(entry)?.value;
    let path = reader.base_dir.join(&name);
    if let Some(loaded) = reader.tokenizers.get(&path) {
        return Some(loaded.clone());
    }
    reader.files.push(path.clone());
    match Tokenizer::load(&path, &name) {
        Ok(tokenizer) => {
            reader.tokenizers.insert(path, tokenizer.clone());
            return Some(tokenizer);
        }
        Err(TokenizerError::NoFeature) => {
            let help = "`cargo bench --features tokenizers`; in a crate of your own,\n\
                        `llm-stream-bench = { …, features = [\"tokenizers\"] }`";
            let what = "this llm-stream-bench is built without the feature `tokenizers`";
            reader.error_at_key(entry, what, help);
        }
        Err(TokenizerError::File(error)) => unreadable(reader, entry, &path, &error),
        Err(TokenizerError::Unfit(why)) => {
            let what = format!("{} is not a `tokenizer.json`: {why}", path.display());
            let help =
                "use the file of this name next to the model's weights, in Hugging Face's format";
            reader.error(entry, what, help);
        }
    }
    None
}

/// Notes that `path` cannot be read.
pub(super) fn unreadable(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    path: &Path,
    error: &io::Error,
) {
    let (what, help) = match error.kind() {
        io::ErrorKind::NotFound => (
            format!("{} does not exist", path.display()),
            "a path is relative to the folder of the config".to_owned(),
        ),
        io::ErrorKind::IsADirectory => (
            format!("{} is a folder", path.display()),
            match entry.label.as_str() {
                "`file`" => "for every file of a folder write `prompts: FOLDER`".to_owned(),
                _ => "name a file in it".to_owned(),
            },
        ),
        io::ErrorKind::NotADirectory => (
            format!("{} is not a folder", path.display()),
            format!(
                "for a single file write `prompts: [{{ name: hello, file: {} }}]`",
                reader.written(entry)
            ),
        ),
        _ => (
            format!("{} cannot be read: {error}", path.display()),
            "check its permissions".to_owned(),
        ),
    };
    reader.error(entry, what, help);
}
