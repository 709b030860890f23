//! Files that a config names.

use std::{
    fs::{self, File, FileType},
    io::{self, Read as _},
    path::Path,
};

use llm_stream_core::tokenizer::{Tokenizer, TokenizerError};

use super::reader::{Entry, Reader};

/// The size limit of a config, bytes.
pub(super) const CONFIG_LIMIT: u64 = 16 << 20;

/// The size limit of every other file that is read at once, bytes.
pub(crate) const FILE_LIMIT: u64 = 1 << 30;

/// Reads a file that the document names.
pub(super) fn read(reader: &mut Reader<'_>, path: &Path) -> io::Result<Vec<u8>> {
    reader.files.push(path.to_owned());
    read_input(path, FILE_LIMIT)
}

/// Reads a file of at most `limit` bytes. A device, a socket or a named pipe is refused: opening or
/// reading it may never end. A pipe that the shell has opened, `<(…)` or `/dev/stdin`, is read.
pub(crate) fn read_input(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    check_kind(path)?;
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        true => Ok(bytes),
        false => {
            let what = format!("it is larger than {} MiB", limit >> 20);
            Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
        }
    }
}

/// Refuses what is not a file. Folders are refused when they are read.
fn check_kind(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    let is_open = ["/dev/fd", "/dev/stdin", "/proc"].iter().any(|open| path.starts_with(open));
    match special(kind) {
        Some(Special::Pipe) if is_open => Ok(()),
        Some(special) => {
            let what = match special {
                Special::Pipe => "it is a named pipe, not a file",
                Special::Socket => "it is a socket, not a file",
                Special::Device => "it is a device, not a file",
            };
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
        None => Ok(()),
    }
}

/// A path that is neither a file nor a folder.
enum Special {
    Pipe,
    Socket,
    Device,
}

#[cfg(unix)]
fn special(kind: FileType) -> Option<Special> {
    use std::os::unix::fs::FileTypeExt as _;

    match kind {
        kind if kind.is_fifo() => Some(Special::Pipe),
        kind if kind.is_socket() => Some(Special::Socket),
        kind if kind.is_char_device() || kind.is_block_device() => Some(Special::Device),
        _ => None,
    }
}

#[cfg(not(unix))]
fn special(kind: FileType) -> Option<Special> {
    (!kind.is_file() && !kind.is_dir()).then_some(Special::Device)
}

/// The hint for an input that [`read_input`] refuses; `None` for other errors.
pub(super) fn hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::InvalidInput => Some("copy the content to a file and name that"),
        io::ErrorKind::FileTooLarge => Some("make the file smaller"),
        _ => None,
    }
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
    if let Err(error) = check_kind(&path)
        && error.kind() == io::ErrorKind::InvalidInput
    {
        unreadable(reader, entry, &path, &error);
        return None;
    }
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
            hint(error).unwrap_or("check its permissions").to_owned(),
        ),
    };
    reader.error(entry, what, help);
}
