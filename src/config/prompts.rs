//! `prompts`: by text, file, folder or data set.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use base64::Engine as _;
use llm_stream_core::{
    lengths::LengthRange,
    prompt::{
        self, AnswerLength, ChatMessage, ContentPart, Image, Role, SharedPrefix, Synthetic, Tools,
    },
    text::visible,
};
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use serde_saphyr::Spanned;

use super::{
    LONGEST_NAME, PromptConfig,
    data_note::DataNote,
    dataset::{self, Record, Text},
    files::{read, text_in, text_of, tokenizer, unreadable},
    keys::Section,
    lengths,
    reader::{Entry, Fields, Reader},
    sanitise,
    source::ConfigError,
    tools,
    yaml::Yaml,
};
use llm_stream_core::text::counted;

/// The keys for the source of a prompt's text.
const SOURCES: &[&str] = &["text", "file", "dataset", "synthetic", "turns"];

/// `prompts`: a list, or a folder.
pub(super) fn prompts(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<PromptConfig> {
    match &entry.value.value {
        Yaml::Text(_) => folder(reader, entry),
        Yaml::List(items) if items.is_empty() => {
            let help = "list at least one, or remove `prompts` for the built-in ones";
            reader.error(entry, "`prompts` is empty", help);
            Vec::new()
        }
        _ => {
            let expected = "a list of prompts or the name of a folder";
            let items = reader.list(entry, expected, &format!("[{}]", entry.example()));
            items.iter().flat_map(|item| entry_of(reader, item)).collect()
        }
    }
}

/// The prompts of an entry: one, or those of a data set.
fn entry_of(reader: &mut Reader<'_>, item: &Entry<'_>) -> Vec<PromptConfig> {
    let fields = reader.fields(item, Section::Prompt);
    let name = match fields.get("name") {
        Some(entry) => reader.text(entry),
        None => missing(reader, item, &fields, &["name"], "`name`"),
    };
    let system = fields.get("system").and_then(|entry| reader.text(entry));
    let model = fields.get("model_name").and_then(|entry| reader.text(entry));
    let output = output(reader, &fields);
    let tools = tools::tools(reader, &fields);
    let images = fields.get("images").map(|entry| images(reader, entry)).unwrap_or_default();
    let documents =
        fields.get("documents").map(|entry| documents(reader, entry)).unwrap_or_default();
    let source = source(reader, item, &fields);
    let (Some(name), Some((kind, source))) = (name, source) else { return Vec::new() };
    check_source(reader, &fields, kind);
    let system = system.as_ref().map(|system| system.value.as_str());
    if let Some(entry) = fields.get("images")
        && ["dataset", "synthetic"].contains(&kind)
    {
        let help = "give them to a prompt with `text`, `file` or `turns`";
        reader.error_at_key(entry, format!("`images` cannot be combined with `{kind}`"), help);
        return Vec::new();
    }
    let prompts = match kind {
        "dataset" => data_set(reader, source, &fields, (&name, system, &output)),
        "synthetic" => {
            let made = synthetic(reader, source, &fields, (&name.value, output));
            let named = |prompt: prompt::Prompt| {
                let own = Spanned::new(prompt.name.clone(), name.referenced, name.defined);
                PromptConfig { prompt, name: own }
            };
            made.unwrap_or_default().into_iter().map(named).collect()
        }
        _ => {
            let texts = match kind {
                "turns" => turns(reader, source).into_iter().map(|text| text.value).collect(),
                "file" => file(reader, source).into_iter().collect(),
                _ => reader.text(source).map(|text| text.value).into_iter().collect(),
            };
            let prompt = conversation(texts, images, (&name.value, system, output));
            prompt.map(|prompt| PromptConfig { prompt, name }).into_iter().collect()
        }
    };
    // The tools of a record take precedence.
    let completed = |PromptConfig { name, prompt }| {
        let tools = prompt.tools.over(&tools);
        let model = model.as_ref().map(|model| model.value.as_str());
        let prompt = prompt.with_tools(&tools).with_model(model).with_documents(&documents);
        PromptConfig { name, prompt }
    };
    prompts.into_iter().map(completed).collect()
}

/// The prompt that sends `texts` one after the other, the first of them with `images`.
fn conversation(
    texts: Vec<String>,
    images: Vec<ContentPart>,
    (name, system, output): (&str, Option<&str>, AnswerLength),
) -> Option<prompt::Prompt> {
    let mut texts = texts.into_iter();
    let mut prompt = prompt::Prompt::new(name, system, texts.next()?);
    if let Some(question) = prompt.messages.last_mut() {
        question.content.extend(images);
    }
    prompt.output = output;
    Some(prompt.followed_by(texts.map(|text| ChatMessage::text(Role::User, text)).collect()))
}

/// The one key for the source of the text.
fn source<'f, 'n>(
    reader: &mut Reader<'_>,
    item: &Entry<'_>,
    fields: &'f Fields<'n>,
) -> Option<(&'static str, &'f Entry<'n>)> {
    let mut sources = SOURCES.iter().filter_map(|key| Some((*key, fields.get(key)?)));
    match (sources.next(), sources.next()) {
        (Some((one, _)), Some((other, second))) => {
            let what = format!("a prompt has both `{one}` and `{other}`");
            reader.error_at_key(second, what, "remove one of them");
            None
        }
        (None, _) => missing(
            reader,
            item,
            fields,
            SOURCES,
            "`text`, `file`, `dataset`, `synthetic` nor `turns`",
        ),
        (source, None) => source,
    }
}

/// Notes keys that cannot be combined with the prompt's source.
fn check_source(reader: &mut Reader<'_>, fields: &Fields<'_>, kind: &str) {
    for (key, of) in Section::Prompt.info().only_with.iter().filter(|(_, of)| *of != kind) {
        if let Some(entry) = fields.get(key) {
            let what = format!("`{key}` cannot be combined with `{kind}`");
            reader.error_at_key(entry, what, format!("it is for `{of}`; remove it"));
        }
    }
}

/// The prompts of a stated length: one, or the points of a sweep.
fn synthetic(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    fields: &Fields<'_>,
    (name, output): (&str, AnswerLength),
) -> Option<Vec<prompt::Prompt>> {
    if let Some(system) = fields.get("system") {
        let help = "the whole prompt is generated; remove `system`";
        reader.error_at_key(system, "`system` cannot be combined with `synthetic`", help);
    }
    let own = reader.fields(entry, Section::Synthetic);
    let most = own.get("output_tokens");
    let most = most.map(|entry| lengths::swept(reader, entry, lengths::OUTPUT));
    if let (Some(entry), Some(_)) = (own.get("output_tokens"), output.tokens) {
        let help = "remove it here or next to `synthetic`";
        reader.error_at_key(entry, "`output_tokens` is written twice", help);
    }
    let seed = own.get("seed").and_then(|entry| reader.whole(entry));
    let Some(length) = own.get("input_tokens") else {
        if own.meant.is_empty() && matches!(entry.value.value, Yaml::Map(_)) {
            let help = format!("for example `synthetic: {}`", entry.example());
            reader.error(entry, "`synthetic` has no `input_tokens`", help);
        }
        return None;
    };
    let inputs = lengths::swept(reader, length, lengths::INPUT)?;
    let outputs = match most {
        Some(points) => points?.into_iter().map(|(name, range)| (name, Some(range))).collect(),
        None => vec![(String::new(), None)],
    };
    let points = lengths::combined(reader, entry, (inputs, outputs))?;
    let tokenizer = match own.get("tokenizer") {
        Some(entry) => Some(tokenizer(reader, entry)?),
        None => None,
    };
    let shortest = points.iter().map(|(_, (length, _))| length.least).min();
    let shared = match own.get("shared_prefix") {
        Some(entry) => Some(shared_prefix(reader, entry, shortest.unwrap_or_default())?),
        None => None,
    };
    let is_sweep = points.len() > 1;
    let point = |(suffix, (length, range)): (String, (LengthRange, Option<LengthRange>))| {
        let synthetic =
            Synthetic { length, seed: seed.unwrap_or(0), tokenizer: tokenizer.clone(), shared };
        let mut prompt = prompt::Prompt::new(format!("{name}{suffix}"), None, "");
        prompt.output = output.clone();
        if let Some(range) = range {
            prompt.output.set_range(range);
        }
        // The name of a sweep selects all of its points.
        prompt.set = is_sweep.then(|| name.to_owned());
        prompt::Prompt { synthetic: Some(synthetic), ..prompt }
    };
    Some(points.into_iter().map(point).collect())
}

/// The beginnings that texts share. The shortest text has `shortest` tokens.
fn shared_prefix(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    shortest: u64,
) -> Option<SharedPrefix> {
    let fields = reader.fields(entry, Section::SharedPrefix);
    let mut number = |name: &str| {
        let found = fields.get(name);
        if found.is_none() && fields.meant.is_empty() {
            let help = format!("for example {}", Section::SharedPrefix.info().example);
            reader.error(entry, format!("`shared_prefix` has no `{name}`"), help);
        }
        reader.whole(found?)
    };
    let (groups, tokens) = (number("groups"), number("tokens"));
    let (groups, tokens) = (groups?, tokens?);
    if tokens >= shortest {
        let what = format!("the shared prefix of {tokens} tokens leaves nothing of the prompt");
        reader.error(entry, what, format!("`input_tokens` are {shortest} at least: write fewer"));
        return None;
    }
    Some(SharedPrefix { groups, tokens })
}

/// The length of the answer.
fn output(reader: &mut Reader<'_>, fields: &Fields<'_>) -> AnswerLength {
    let range = fields.get("output_tokens").and_then(|entry| lengths::length(reader, entry));
    let min_tokens = fields.get("min_tokens").and_then(|entry| reader.whole(entry));
    if let (Some(range), Some(least), Some(entry)) = (range, min_tokens, fields.get("min_tokens"))
        && least > range.least
    {
        let most = range.least;
        let what = format!("`min_tokens` is more than `output_tokens`, which is {most}");
        reader.error(entry, what, "`output_tokens` is the most that is generated");
    }
    let ignore_eos = fields.get("ignore_eos").and_then(|entry| reader.flag(entry));
    let mut output = AnswerLength {
        min_tokens,
        ignore_eos: ignore_eos.unwrap_or(false),
        ..AnswerLength::default()
    };
    range.into_iter().for_each(|range| output.set_range(range));
    output
}

/// The questions of a conversation. Never none.
fn turns(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<Spanned<String>> {
    if matches!(&entry.value.value, Yaml::List(items) if items.is_empty()) {
        let help = format!("for example `turns: [{}]`", entry.example());
        reader.error(entry, "`turns` is empty", help);
    }
    reader.texts(entry)
}

/// The documents of a prompt. Never none.
fn documents(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<String> {
    if matches!(&entry.value.value, Yaml::List(items) if items.is_empty()) {
        let help = format!("for example `documents: [{}]`", entry.example());
        reader.error(entry, "`documents` is empty", help);
    }
    reader.texts(entry).into_iter().map(|text| text.value).collect()
}

/// Images: files, or URLs that the server fetches.
fn images(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<ContentPart> {
    if matches!(&entry.value.value, Yaml::List(items) if items.is_empty()) {
        let help = format!("for example `images: [{}]`", entry.example());
        reader.error(entry, "`images` is empty", help);
    }
    let named = reader.texts(entry);
    named
        .iter()
        .filter_map(|name| Some(ContentPart::Image(image(reader, entry, &name.value)?)))
        .collect()
}

fn image(reader: &mut Reader<'_>, entry: &Entry<'_>, name: &str) -> Option<Image> {
    if name.starts_with("https://") || name.starts_with("http://") {
        return Some(Image::Url(name.to_owned()));
    }
    let path = reader.base_dir.join(name);
    let bytes = match read(reader, &path) {
        Ok(bytes) => bytes,
        Err(error) => {
            unreadable(reader, entry, &path, &error);
            return None;
        }
    };
    let Some(mime) = media_type(&bytes) else {
        let what = format!("{} is not an image of a supported format", path.display());
        reader.error(entry, what, "supported formats are PNG, JPEG, GIF and WebP");
        return None;
    };
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    Some(Image::Data { mime: mime.to_owned(), base64: base64.into() })
}

/// The media type of an image, by its first bytes.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// The text of a `file`.
fn file(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<String> {
    let file = reader.text(entry)?.value;
    text_of(reader, entry, &reader.base_dir.join(file))
}

/// The labels of a set's records in trial names: their own names, or their numbers, counted from 1.
/// A name that is taken gets a number appended; the count of those is returned, too.
fn labels(records: &[Record]) -> (Vec<String>, usize) {
    let mut names = Names::default();
    let name_of = |record: &Record| {
        let name = record.name.as_deref()?;
        let cut = name.char_indices().nth(LONGEST_NAME);
        Some(cut.map_or_else(|| name.to_owned(), |(at, _)| format!("{}…", &name[..at])))
    };
    // The first record of each name keeps it; numbers are given after all names.
    let mut labels: Vec<_> =
        records.iter().map(|record| name_of(record).filter(|name| names.is_free(name))).collect();
    let mut renamed = 0;
    for (nth, (label, record)) in labels.iter_mut().zip(records).enumerate() {
        if let (None, Some(name)) = (&label, name_of(record)) {
            *label = Some(names.numbered(&name));
            renamed += 1;
        } else if label.is_none() {
            let number = (nth + 1).to_string();
            let is_free = names.is_free(&number);
            *label = Some(if is_free { number } else { names.numbered(&number) });
        }
    }
    (labels.into_iter().flatten().collect(), renamed)
}

/// Names that are unique in trial names and in the output.
#[derive(Default)]
struct Names {
    sanitised: HashSet<String>,
    shown: HashSet<String>,
    /// The last number behind each name, so that many of one name take no longer.
    last: HashMap<String, usize>,
}

impl Names {
    /// Takes `name`, if no other has.
    fn is_free(&mut self, name: &str) -> bool {
        let (sanitised, shown) = (sanitise(name), visible(name).into_owned());
        let is_free = !self.sanitised.contains(&sanitised) && !self.shown.contains(&shown);
        if is_free {
            self.sanitised.insert(sanitised);
            self.shown.insert(shown);
        }
        is_free
    }

    /// `name`, which is taken, with a number appended.
    fn numbered(&mut self, name: &str) -> String {
        loop {
            let number = self.last.entry(sanitise(name)).or_insert(1);
            *number += 1;
            let numbered = format!("{name}-{number}");
            if self.is_free(&numbered) {
                return numbered;
            }
        }
    }
}

/// The prompts of a data set: a file of records, or a folder of texts.
fn data_set(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    fields: &Fields<'_>,
    (set, system, output): (&Spanned<String>, Option<&str>, &AnswerLength),
) -> Vec<PromptConfig> {
    let chosen = choice(reader, fields);
    let multi_turn = fields.get("multi_turn").and_then(|entry| reader.flag(entry));
    let multi_turn = multi_turn.unwrap_or(false);
    let Some(file) = reader.text(entry) else { return Vec::new() };
    let path = reader.base_dir.join(&file.value);
    let records = match path.is_dir() {
        true => texts(reader, entry, &path),
        false => records(reader, entry, &path, multi_turn),
    };
    let Some(records) = records else { return Vec::new() };
    let (mut labels, renamed) = labels(&records);
    if let Some(note) = reader.data.last_mut().filter(|_| renamed > 0) {
        let count = counted(renamed, "record");
        note.remark(format!("{count} with a name that another has: numbered"));
    }
    let prompt = |(nth, record): (usize, Record)| {
        let name = format!("{}-{}", set.value, std::mem::take(&mut labels[nth]));
        let mut messages = record.messages;
        if let Some(system) = system
            && messages.first().is_some_and(|first| first.role != Role::System)
        {
            messages.insert(0, ChatMessage::text(Role::System, system));
        }
        let mut output = output.clone();
        if let Some(tokens) = record.output_tokens {
            output.set_range(LengthRange::fixed(tokens));
        }
        let mut prompt = prompt::Prompt::new(name.as_str(), None, "");
        (prompt.set, prompt.messages, prompt.output) = (Some(set.value.clone()), messages, output);
        prompt.documents = record.documents;
        let tools = Tools { listed: record.tools, choice: None };

        let prompt = prompt.followed_by(record.later).with_tools(&tools);
        PromptConfig { name: Spanned::new(name, set.referenced, set.defined), prompt }
    };
    chosen.of(records).into_iter().map(prompt).collect()
}

/// The choice of records.
struct Choice {
    limit: Option<usize>,
    seed: Option<u64>,
}

fn choice(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Choice {
    let limit = fields.get("limit").and_then(|entry| reader.whole(entry));
    let seed = fields.get("seed").and_then(|entry| reader.whole(entry));
    if let (Some(entry), None) = (fields.get("seed"), fields.get("limit")) {
        let help = "a seed chooses which records are taken: add `limit: 20`, or remove it";
        reader.error_at_key(entry, "`seed` requires `limit`", help);
    }
    Choice { limit: limit.and_then(|limit| usize::try_from(limit).ok()), seed }
}

impl Choice {
    /// The chosen records with their places in the set, in its order: the first ones, or with a
    /// seed any.
    fn of(&self, records: Vec<Record>) -> Vec<(usize, Record)> {
        let mut records: Vec<_> = records.into_iter().enumerate().collect();
        if let Some(seed) = self.seed {
            records.shuffle(&mut Pcg64Mcg::seed_from_u64(seed));
        }
        records.truncate(self.limit.unwrap_or(usize::MAX));
        records.sort_by_key(|(nth, _)| *nth);
        records
    }
}

/// The records of a file.
fn records(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    path: &Path,
    multi_turn: bool,
) -> Option<Vec<Record>> {
    let text = data_of(reader, entry, path)?;
    let set = dataset::read(&text, multi_turn);
    let file = path.display().to_string();
    let mistakes: Vec<_> = set
        .mistakes
        .into_iter()
        .map(|mistake| {
            (mistake.number, ConfigError::in_data(&file, &text.text, &entry.path, mistake))
        })
        .collect();
    if set.records.is_empty() {
        let what = match (set.all, set.left_out) {
            (0, _) => format!("{file} has no records"),
            (_, 0) => format!("{file} has no conversation that begins with a question"),
            (all, _) => format!("{file} has no record that can be sent, of {all}"),
        };
        reader.error(entry, what, SET_HELP);
        reader.errors_in_data(mistakes.into_iter().map(|(_, error)| error).collect());
        return None;
    }
    let mut note = DataNote::new(file, set.all, set.left_out, mistakes);
    note.without_question(set.without_question);
    let without_calls = set.records.iter().filter(|record| record.drops_calls).count();
    if without_calls > 0 {
        let count = counted(without_calls, "record");
        note.remark(format!("{count} with `tool_calls`, which are not sent"));
    }
    for ((taken, other), count) in set.ambiguous {
        let count = counted(count, "record");
        note.remark(format!("{count} with both `{taken}` and `{other}`: `{taken}` is sent"));
    }
    reader.data.push(note);
    Some(set.records)
}

/// The text of a data file.
fn data_of(reader: &mut Reader<'_>, entry: &Entry<'_>, path: &Path) -> Option<Text> {
    let bytes = match read(reader, path) {
        Ok(bytes) => bytes,
        Err(error) => {
            unreadable(reader, entry, path, &error);
            return None;
        }
    };
    if let Some((what, help)) = not_data(&bytes) {
        reader.error(entry, format!("{} {what}", path.display()), help);
        return None;
    }
    Some(Text::of(bytes))
}

/// The format of `bytes` that are not the text of a data set, and a hint.
pub(super) fn not_data(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const OTHER_FORMS: &[(&[u8], &str, &str)] = &[
        (b"\x1f\x8b", "is compressed (gzip)", "unpack it: `gunzip -k FILE`"),
        (b"\x28\xb5\x2f\xfd", "is compressed (zstd)", "unpack it: `unzstd FILE`"),
        (b"BZh", "is compressed (bzip2)", "unpack it: `bunzip2 -k FILE`"),
        (b"\xfd7zXZ\0", "is compressed (xz)", "unpack it: `unxz -k FILE`"),
        (b"\x04\x22\x4d\x18", "is compressed (lz4)", "unpack it: `unlz4 FILE`"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", "unpack it"),
        (b"PAR1", "is Parquet", AS_LINES),
        (b"ARROW1", "is Arrow", AS_LINES),
        (b"ORC", "is ORC", AS_LINES),
        (b"Obj\x01", "is Avro", AS_LINES),
        (b"\x89HDF", "is HDF5", AS_LINES),
        (b"SQLite format 3\0", "is an SQLite database", AS_LINES),
        (b"\xd0\xcf\x11\xe0", "is a document of Microsoft Office", AS_LINES),
        (b"version https://git-lfs", "is a pointer of Git LFS", "get the file: `git lfs pull`"),
        (b"<", "is HTML or XML", "check where it is downloaded from"),
        (b"\xff\xfe\0\0", "is UTF-32", "save the data set as UTF-8"),
        (b"\0\0\xfe\xff", "is UTF-32", "save the data set as UTF-8"),
        (b"\xff\xfe", "is UTF-16", "save the data set as UTF-8"),
        (b"\xfe\xff", "is UTF-16", "save the data set as UTF-8"),
    ];
    if bytes.trim_ascii().is_empty() {
        return Some(("is empty", "write records into it"));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        let is_office = memchr::memmem::find(bytes, b"[Content_Types].xml").is_some();
        return Some(match is_office {
            true => ("is a document of Microsoft Office", AS_LINES),
            false => ("is a ZIP archive", "unpack it"),
        });
    }
    let form = OTHER_FORMS.iter().find(|(begins, ..)| bytes.starts_with(begins));
    form.map(|(_, what, help)| (*what, *help))
}

/// The hint for a data set without any usable record.
const SET_HELP: &str = "\"Data sets\" in docs/en/src/prompts.md describes the forms of a record";
const AS_LINES: &str =
    "save it as JSON Lines: pandas' `to_json(FILE, orient=\"records\", lines=True)`";

/// The text files of a folder as records.
fn texts(reader: &mut Reader<'_>, entry: &Entry<'_>, folder: &Path) -> Option<Vec<Record>> {
    let files = files_of(reader, entry, folder)?;
    let all = files.len();
    let mut records = Vec::new();
    let mut mistakes = Vec::new();
    for (path, stem) in files {
        let text = match read(reader, &path) {
            Ok(bytes) => text_in(bytes).map_err(|(what, help)| (what.to_owned(), help)),
            Err(error) => Err((format!("cannot be read: {error}"), "check its permissions")),
        };
        match text {
            Ok(text) => records.push(Record {
                name: Some(stem),
                messages: vec![ChatMessage::text(Role::User, text)],
                later: Vec::new(),
                output_tokens: None,
                documents: Vec::new(),
                tools: None,
                drops_calls: false,
            }),
            Err((what, help)) => {
                let file = visible(&path.display().to_string()).into_owned();
                mistakes.push(ConfigError::of_file(file, format!("the file {what}"), help));
            }
        }
    }
    if records.is_empty() {
        let what = format!("{} has no text that can be sent, of {all}", folder.display());
        reader.error(entry, what, SET_HELP);
        reader.errors_in_data(mistakes);
        return None;
    }
    let left_out = mistakes.len();
    let mistakes = mistakes.into_iter().map(|mistake| (None, mistake)).collect();
    reader.data.push(DataNote::new(folder.display().to_string(), all, left_out, mistakes));
    Some(records)
}

/// Notes that a prompt lacks `keys`, unless one of them is misspelt: that is an error already.
fn missing<T>(
    reader: &mut Reader<'_>,
    item: &Entry<'_>,
    fields: &Fields<'_>,
    keys: &[&str],
    lacks: &str,
) -> Option<T> {
    let misspelt = fields.meant.iter().any(|meant| keys.contains(meant));
    if !misspelt && matches!(item.value.value, Yaml::Map(_)) {
        let lacks =
            if keys.len() == 1 { format!("no {lacks}") } else { format!("neither {lacks}") };
        reader.error(
            item,
            format!("a prompt has {lacks}"),
            format!("for example `- {}`", Section::Prompt.info().example),
        );
    }
    None
}

/// A prompt from each text file of a folder.
fn folder(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<PromptConfig> {
    let Some(name) = reader.text_like(entry, "\"prompts\"") else {
        return Vec::new();
    };
    let folder = reader.base_dir.join(&name.value);
    let files = files_of(reader, entry, &folder).unwrap_or_default();
    let prompts = files.into_iter().filter_map(|(file, stem)| {
        let text = text_of(reader, entry, &file)?;
        let prompt = prompt::Prompt::new(stem.as_str(), None, text);
        Some(PromptConfig { name: Spanned::new(stem, name.referenced, name.defined), prompt })
    });
    prompts.collect()
}

/// The text files of `folder`, each with its name without the extension. Never none.
fn files_of(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    folder: &Path,
) -> Option<Vec<(PathBuf, String)>> {
    let files = match text_files(folder) {
        Ok(files) => files,
        Err(error) => {
            unreadable(reader, entry, folder, &error);
            return None;
        }
    };
    if files.is_empty() {
        let what = format!("there is no prompt in the folder {}", folder.display());
        reader.error(entry, what, "each of its files that end in `.txt` or `.md` is a prompt");
        return None;
    }
    let named = |file: PathBuf| {
        let stem = file.file_stem()?.to_string_lossy().into_owned();
        Some((file, stem))
    };
    Some(files.into_iter().filter_map(named).collect())
}

/// The text files of `folder`, by their names.
fn text_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("txt" | "md")) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
