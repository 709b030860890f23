//! The tree → typed values. Every mistake is collected.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::fmt::friendly::SpanParser;
use llm_stream_core::{exact, tokenizer::Tokenizer};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::{
    data_note::DataNote,
    keys::{Key, Section},
    numbers,
    source::{ConfigError, ConfigErrors, Source},
    suggest::{any_of, did_you_mean},
    words,
    yaml::{Node, Yaml},
};

/// Most mistakes that are kept. A file with more is not a config, and each takes time.
const MOST_MISTAKES: usize = 200;

/// Longest duration that is accepted.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads values of a document and gathers the mistakes.
#[derive(Debug)]
pub(super) struct Reader<'s> {
    pub(super) source: &'s Source,
    /// The folder that the config's paths are relative to.
    pub(super) base_dir: &'s Path,
    errors: Vec<ConfigError>,
    /// The path of each text that was read, by its first byte.
    paths: BTreeMap<usize, String>,
    /// The tokenizers that were read, by file: loading one takes long, and several prompts may name
    /// it.
    pub(super) tokenizers: HashMap<PathBuf, Tokenizer>,
    /// The notes on the data sets that were read.
    pub(super) data: Vec<DataNote>,
    /// The files that the document names and that were read.
    pub(super) files: Vec<PathBuf>,
}

/// A value, with its names for messages.
#[derive(Debug, Clone)]
pub(super) struct Entry<'n> {
    /// Its name in messages: "`port`".
    pub(super) label: String,
    /// Its path in the document.
    pub(super) path: String,
    /// The text before it in its line: `port: `.
    pub(super) lead: String,
    /// Its key; for an item of a list, itself.
    pub(super) key: &'n Node,
    pub(super) value: &'n Node,
    /// The row of the table of keys; of an item, the row of its list.
    pub(super) rule: Option<&'static Key>,
}

/// The entries of a map whose keys are known.
#[derive(Debug, Default)]
pub(super) struct Fields<'n> {
    entries: Vec<(&'n str, Entry<'n>)>,
    /// The known keys that unknown keys are probably meant to be.
    pub(super) meant: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&Entry<'n>> {
        let mut entries = self.entries.iter();
        entries.find(|(known, _)| *known == key).map(|(_, entry)| entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(&'n str, Entry<'n>)> {
        self.entries.iter()
    }
}

impl<'n> Entry<'n> {
    /// The document itself.
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            label: "the config".to_owned(),
            path: String::new(),
            lead: String::new(),
            key: node,
            value: node,
            rule: None,
        }
    }

    fn child(&self, name: &str, key: &'n Node, value: &'n Node) -> Self {
        Self {
            label: format!("`{name}`"),
            path: join(&self.path, name),
            lead: format!("{}: ", quoted_key(name)),
            key,
            value,
            rule: None,
        }
    }

    /// The items of the list `items`, which is this entry's value.
    pub(super) fn items(&self, items: &'n [Node]) -> impl Iterator<Item = Self> {
        items.iter().enumerate().map(|(index, item)| Self {
            label: format!("an entry of {}", self.label),
            path: format!("{}[{index}]", self.path),
            lead: "- ".to_owned(),
            key: item,
            value: item,
            rule: self.rule,
        })
    }

    /// A value for messages, from the table.
    pub(super) fn example(&self) -> &'static str {
        self.rule.map_or("", |rule| rule.example)
    }
}

impl<'s> Reader<'s> {
    pub(super) fn new(source: &'s Source, base_dir: &'s Path) -> Self {
        let (errors, paths, tokenizers, data, files) = Default::default();
        Self { source, base_dir, errors, paths, tokenizers, data, files }
    }

    /// The paths of the texts and the notes on data sets; or every mistake once, in the order of
    /// the text.
    pub(super) fn finish(
        mut self,
    ) -> Result<(BTreeMap<usize, String>, Vec<DataNote>), ConfigErrors> {
        if self.errors.is_empty() {
            return Ok((self.paths, self.data));
        }
        self.errors.sort_by_key(|error| (error.line(), error.column()));
        let mut seen = HashSet::new();
        self.errors.retain(|error| {
            seen.insert((error.line(), error.column(), error.message().to_owned()))
        });
        Err(ConfigErrors(self.errors))
    }

    /// The place of the value; of an empty value, the place of its key.
    pub(super) fn place(&self, entry: &Entry<'_>) -> Range<usize> {
        let place = self.source.bytes(entry.value.defined);
        match entry.value.value {
            Yaml::Null if place.is_empty() => self.source.bytes(entry.key.defined),
            _ => place,
        }
    }

    /// Notes a mistake in an entry's value.
    pub(super) fn error(
        &mut self,
        entry: &Entry<'_>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place = self.place(entry);
        self.error_at(place, &entry.path, what, help);
    }

    /// Notes a mistake in an entry as a whole, at its key.
    pub(super) fn error_at_key(
        &mut self,
        entry: &Entry<'_>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.error_at(self.source.bytes(entry.key.defined), &entry.path, what, help);
    }

    pub(super) fn error_at(
        &mut self,
        place: Range<usize>,
        path: &str,
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.errors.len() < MOST_MISTAKES {
            let error = self.source.error(place, path, what, help);
            self.errors.push(error);
        }
    }

    /// Notes mistakes in a data file.
    pub(super) fn errors_in_data(&mut self, mistakes: Vec<ConfigError>) {
        self.errors.extend(mistakes);
    }

    /// Notes that a value is not `expected`.
    pub(super) fn wrong(&mut self, entry: &Entry<'_>, expected: &str, example: &str) {
        let (label, lead) = (&entry.label, &entry.lead);
        if entry.value.value == Yaml::Null {
            let example = format!("for example `{lead}{example}`");
            let help = match expected.len() + example.len() {
                ..70 => format!("it must be {expected}, {example}"),
                _ => format!("it must be {expected},\n{example}"),
            };
            return self.error(entry, format!("{label} has no value"), help);
        }
        let what = format!("{label} must be {expected}, not {}", self.described(entry));
        self.error(entry, what, format!("for example `{lead}{example}`"));
    }

    /// A value in a few words.
    fn described(&self, entry: &Entry<'_>) -> String {
        match &entry.value.value {
            Yaml::Null => "nothing".to_owned(),
            Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => format!("`{}`", self.written(entry)),
            Yaml::Text(_) => format!("the text `{}`", self.written(entry)),
            Yaml::List(_) => "a list".to_owned(),
            Yaml::Map(_) => "a map".to_owned(),
        }
    }

    /// A value as it is written.
    pub(super) fn written(&self, entry: &Entry<'_>) -> String {
        let place = self.source.bytes(entry.value.defined);
        self.source.shown(place)
    }

    /// The entries of a map of any text keys.
    pub(super) fn map<'n>(
        &mut self,
        entry: &Entry<'n>,
        expected: &str,
        example: &str,
    ) -> Vec<(&'n str, Entry<'n>)> {
        let Yaml::Map(entries) = &entry.value.value else {
            self.wrong(entry, expected, example);
            return Vec::new();
        };
        for (key, _) in entries {
            if !matches!(key.value, Yaml::Text(_)) {
                self.key_is_no_text(key, entry);
            }
        }
        let named = self.text_keyed(entry);
        self.without_duplicates(named)
    }

    fn key_is_no_text(&mut self, key: &Node, of: &Entry<'_>) {
        let place = self.source.bytes(key.defined);
        let what = format!("a key of {} must be text", of.label);
        let help = match key.value {
            Yaml::Null | Yaml::List(_) | Yaml::Map(_) => "write a name before the colon".to_owned(),
            _ => format!("put it in quotes: `\"{}\":`", self.source.shown(place.clone())),
        };
        self.error_at(place, &of.path, what, help);
    }

    /// Notes each key that comes a second time.
    fn without_duplicates<'n>(
        &mut self,
        entries: Vec<(&'n str, Entry<'n>)>,
    ) -> Vec<(&'n str, Entry<'n>)> {
        let mut first: HashMap<&str, u64> = HashMap::new();
        let mut unique = Vec::new();
        for (name, entry) in entries {
            match first.get(name) {
                Some(line) => {
                    let what = format!("{} is written twice", entry.label);
                    let help = match *line == entry.key.defined.line() {
                        true => "it is already written before, in the same line".to_owned(),
                        false => format!("it is already written in line {line}"),
                    };
                    self.error_at_key(&entry, what, help);
                }
                None => {
                    first.insert(name, entry.key.defined.line());
                    unique.push((name, entry));
                }
            }
        }
        unique
    }

    /// The entries of a map with text keys; other keys are skipped.
    pub(super) fn text_keyed<'n>(&self, entry: &Entry<'n>) -> Vec<(&'n str, Entry<'n>)> {
        let Yaml::Map(entries) = &entry.value.value else {
            return Vec::new();
        };
        let named = entries.iter().filter_map(|(key, value)| match &key.value {
            Yaml::Text(name) => Some((name.as_str(), entry.child(name, key, value))),
            _ => None,
        });
        named.collect()
    }

    /// Keeps the path of an entry whose key is a text of the config.
    pub(super) fn remember(&mut self, entry: &Entry<'_>) {
        let start = self.source.bytes(entry.key.defined).start;
        self.paths.insert(start, entry.path.clone());
    }

    /// How many mistakes there are so far.
    pub(super) fn mistakes(&self) -> usize {
        self.errors.len()
    }

    /// The entries of a map with the keys of `section`.
    pub(super) fn fields<'n>(&mut self, entry: &Entry<'n>, section: Section) -> Fields<'n> {
        let mut fields = Fields::default();
        let info = section.info();
        for (name, field) in self.map(entry, info.expected, info.example) {
            if let Some(key) = section.key(name) {
                fields.entries.push((name, Entry { rule: Some(key), ..field }));
                continue;
            }
            if section.ignores(name) {
                continue;
            }
            fields.meant.extend(section.meant(name));
            let place = self.source.bytes(field.key.defined);
            let what = format!("unknown key `{}`", self.source.shown(place.clone()));
            self.error_at(place, &entry.path, what, section.help(name));
        }
        fields
    }

    /// Whether `null` or `~` is written; false for an empty value.
    pub(super) fn is_written_null(&self, entry: &Entry<'_>) -> bool {
        entry.value.value == Yaml::Null
            && !self.source.bytes(entry.value.defined).is_empty()
            && !self.written(entry).trim().is_empty()
    }

    /// The items of a list.
    pub(super) fn list<'n>(
        &mut self,
        entry: &Entry<'n>,
        expected: &str,
        example: &str,
    ) -> Vec<Entry<'n>> {
        match &entry.value.value {
            Yaml::List(items) => entry.items(items).collect(),
            _ => {
                self.wrong(entry, expected, example);
                Vec::new()
            }
        }
    }

    /// A text that is not blank.
    pub(super) fn text(&mut self, entry: &Entry<'_>) -> Option<Spanned<String>> {
        self.text_like(entry, entry.example())
    }

    /// A text that is not blank; `example` is for messages.
    pub(super) fn text_like(
        &mut self,
        entry: &Entry<'_>,
        example: &str,
    ) -> Option<Spanned<String>> {
        match &entry.value.value {
            Yaml::Text(text) if text.trim().is_empty() => {
                let help = format!("for example `{}{example}`", entry.lead);
                self.error(entry, format!("{} is empty", entry.label), help);
                None
            }
            Yaml::Text(text) => {
                let node = entry.value;
                let start = self.source.bytes(node.defined).start;
                self.paths.insert(start, entry.path.clone());
                Some(Spanned::new(text.clone(), node.referenced, node.defined))
            }
            Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => {
                let written = self.written(entry);
                let what = format!("{} must be text, not `{written}`", entry.label);
                let help = format!("put it in quotes: `{}\"{written}\"`", entry.lead);
                self.error(entry, what, help);
                None
            }
            _ => {
                self.wrong(entry, "text", example);
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, entry: &Entry<'_>) -> Vec<Spanned<String>> {
        let example = entry.example();
        let items = self.list(entry, "a list", &format!("[{example}]"));
        let texts = items.iter().filter_map(|item| match item.value.value {
            Yaml::Text(_) => self.text(item),
            _ => {
                self.wrong(item, "text", example);
                None
            }
        });
        texts.collect()
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, entry: &Entry<'_>) -> Option<bool> {
        match entry.value.value {
            Yaml::Bool(flag) => Some(flag),
            _ => {
                self.wrong(entry, "`true` or `false`", "true");
                None
            }
        }
    }

    /// One of the words of the table; `values` has the value of each.
    pub(super) fn word<T: Clone>(
        &mut self,
        entry: &Entry<'_>,
        values: &[(&'static str, T)],
    ) -> Option<T> {
        let word = self.text(entry)?.value;
        let value = words::value_of(&word, values);
        if value.is_none() {
            let known = words::names(values);
            let expected = any_of(&known);
            let what = format!("unknown value `{word}` for {}: expected {expected}", entry.label);
            self.error(entry, what, did_you_mean(&word, &known));
        }
        value
    }

    /// A whole number in the range of the table.
    pub(super) fn whole(&mut self, entry: &Entry<'_>) -> Option<u64> {
        let (low, high) = entry.rule.and_then(|rule| rule.shape.whole()).unwrap_or((0, u64::MAX));
        self.whole_in(entry, low..=high)
    }

    /// A whole number in `range`.
    pub(super) fn whole_in(
        &mut self,
        entry: &Entry<'_>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = match entry.value.value {
            Yaml::Int(value) => u64::try_from(value).ok(),
            _ => None,
        };
        if let Some(value) = value.filter(|value| range.contains(value)) {
            return self.is_unambiguous(entry).then_some(value);
        }
        let (low, high) = (range.start(), range.end());
        let expected = match *high {
            u64::MAX => format!("a whole number, {low} or more"),
            _ => format!("a whole number from {low} to {high}"),
        };
        self.not_a_number(entry, &expected);
        None
    }

    /// A number in the range of the table.
    pub(super) fn number(&mut self, entry: &Entry<'_>) -> Option<f64> {
        let (low, high) =
            entry.rule.and_then(|rule| rule.shape.number()).unwrap_or((f64::MIN, f64::MAX));
        let value = match entry.value.value {
            #[expect(clippy::cast_precision_loss, reason = "far beyond the range of any key")]
            Yaml::Int(value) => Some(value as f64),
            Yaml::Float(value) => Some(value),
            _ => None,
        };
        if let Some(value) = value.filter(|value| (low..=high).contains(value)) {
            return self.is_unambiguous(entry).then_some(value);
        }
        self.not_a_number(entry, &format!("a number from {low} to {high}"));
        None
    }

    /// Notes that a value is not the expected number.
    fn not_a_number(&mut self, entry: &Entry<'_>, expected: &str) {
        match &entry.value.value {
            Yaml::Text(text) if text.parse::<f64>().is_ok() => {
                let what = format!("{} must be {expected}, not text", entry.label);
                let help = format!("leave the quotes out: `{}{text}`", entry.lead);
                self.error(entry, what, help);
            }
            _ => self.wrong(entry, expected, entry.example()),
        }
    }

    /// A duration with its unit, at most a day.
    pub(super) fn duration(&mut self, entry: &Entry<'_>) -> Option<Duration> {
        let shape = entry.rule.and_then(|rule| rule.shape.duration());
        let (zero, unit) = shape.unwrap_or((false, "s"));
        let number = match &entry.value.value {
            Yaml::Int(0) if zero => return Some(Duration::ZERO),
            Yaml::Int(_) | Yaml::Float(_) => Some(self.written(entry)),
            Yaml::Text(text) if text.parse::<f64>().is_ok() => Some(text.clone()),
            _ => None,
        };
        if let Some(number) = number {
            let help = format!("did you mean `{}{number}{unit}`?", entry.lead);
            self.error(entry, format!("{} requires a unit", entry.label), help);
            return None;
        }
        let Yaml::Text(text) = &entry.value.value else {
            self.wrong(entry, "a duration", entry.example());
            return None;
        };
        match parse_duration(text, zero) {
            Ok(duration) => Some(duration),
            Err((what, help)) => {
                let what = format!("{} {what}", entry.label);
                self.error(entry, what, format!("{help}`{}{}`", entry.lead, entry.example()));
                None
            }
        }
    }

    /// Any value as JSON.
    pub(super) fn json(&mut self, entry: &Entry<'_>) -> Option<Value> {
        match &entry.value.value {
            Yaml::Null => Some(Value::Null),
            Yaml::Bool(value) => Some(Value::Bool(*value)),
            Yaml::Int(_) | Yaml::Float(_) => self.json_number(entry),
            Yaml::Text(text) => self.json_text(entry, text),
            Yaml::List(items) => {
                let items = entry.items(items);
                items.map(|item| self.json(&item)).collect::<Option<_>>().map(Value::Array)
            }
            Yaml::Map(entries) => self.json_map(entry, entries).map(Value::Object),
        }
    }

    /// A text. Without quotes it must be text in every version of YAML.
    fn json_text(&mut self, entry: &Entry<'_>, text: &str) -> Option<Value> {
        match numbers::of_text(text).filter(|_| self.is_plain(entry, text)) {
            None => Some(Value::String(text.to_owned())),
            Some(Ok(number)) => Some(exact::number(&number)),
            Some(Err(refusal)) => {
                self.unsent(entry, text, refusal);
                None
            }
        }
    }

    /// Whether `text` is written without quotes and without a tag.
    fn is_plain(&self, entry: &Entry<'_>, text: &str) -> bool {
        let place = self.source.bytes(entry.value.defined);
        let before = self.source.text()[..place.start].split_whitespace().next_back();
        let is_styled = before.is_some_and(|word| word.starts_with(['!', '|', '>']));
        !is_styled && self.source.text()[place].trim() == text
    }

    /// A number as it is written.
    fn json_number(&mut self, entry: &Entry<'_>) -> Option<Value> {
        let written = self.number_written(entry);
        match numbers::json(&written) {
            Ok(number) => Some(exact::number(&number)),
            Err(refusal) => {
                self.unsent(entry, &written, refusal);
                None
            }
        }
    }

    /// The number `entry` as it is written; a tagged one, such as `!!float 1`, by its value.
    fn number_written(&self, entry: &Entry<'_>) -> String {
        let written = self.source.text()[self.source.bytes(entry.value.defined)].trim();
        match &entry.value.value {
            Yaml::Int(value) if !numbers::is_one(written) => value.to_string(),
            Yaml::Float(value) if !numbers::is_one(written) => format!("{value:?}"),
            _ => written.to_owned(),
        }
    }

    /// Whether the number `entry` is the same in every version of YAML; notes a mistake if not.
    fn is_unambiguous(&mut self, entry: &Entry<'_>) -> bool {
        let written = self.number_written(entry);
        let Err((why, meant)) = numbers::json(&written) else { return true };
        let what = format!("{} cannot be `{written}`: {why}", entry.label);
        let meant = meant.unwrap_or_else(|| "1".to_owned());
        self.error(entry, what, format!("write `{}{meant}`", entry.lead));
        false
    }

    /// Notes that `written` cannot be sent.
    fn unsent(&mut self, entry: &Entry<'_>, written: &str, (why, meant): numbers::Refusal) {
        let what = format!("{} cannot be sent as `{written}`: {why}", entry.label);
        let text = format!("`{}\"{written}\"` for text", entry.lead);
        let help = match meant {
            Some(meant) => format!("write `{}{meant}`, or {text}", entry.lead),
            None => format!("write a finite number, or {text}"),
        };
        self.error(entry, what, help);
    }

    /// A map as JSON, whose keys are text: `50256:` is the key `"50256"`.
    fn json_map<'n>(
        &mut self,
        entry: &Entry<'n>,
        entries: &'n [(Node, Node)],
    ) -> Option<Map<String, Value>> {
        let mut named = Vec::new();
        for (key, value) in entries {
            match &key.value {
                Yaml::Text(name) => named.push((name.clone(), key, value)),
                Yaml::Int(_) | Yaml::Float(_) | Yaml::Bool(_) => {
                    let written = self.source.bytes(key.defined);
                    named.push((self.source.text()[written].to_owned(), key, value));
                }
                _ => self.key_is_no_text(key, entry),
            }
        }
        let children =
            named.iter().map(|(name, key, value)| (name.as_str(), entry.child(name, key, value)));
        let children = self.without_duplicates(children.collect());
        let pairs =
            children.iter().map(|(name, child)| Some(((*name).to_owned(), self.json(child)?)));
        pairs.collect()
    }
}

/// A duration; or the mistake, "is …", and a hint that ends before an example.
pub(super) fn parse_duration(text: &str, zero: bool) -> Result<Duration, (String, &'static str)> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(("must not be negative".to_owned(), "for example "));
    }
    let Ok(duration) = SpanParser::new().parse_unsigned_duration(text) else {
        let help = "a number with its unit, such as `11.5ms` or `1m 30s`; for example ";
        return Err((format!("is not a duration: `{text}`"), help));
    };
    match duration {
        Duration::ZERO if !zero => {
            let help = "leave it out for the default, or write for example ";
            Err(("must be longer than zero".to_owned(), help))
        }
        duration if duration > LONGEST => {
            let help = "the longest is `24h`; for example ";
            Err((format!("is longer than a day: `{text}`"), help))
        }
        duration => Ok(duration),
    }
}

/// The path of `name` in `path`; a name with other than letters, digits, `_` and `-` is quoted.
fn join(path: &str, name: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{dot}{}", quoted_key(name))
}

fn quoted_key(name: &str) -> String {
    let plain = |ch: char| ch.is_alphanumeric() || ch == '_' || ch == '-';
    match name.chars().all(plain) && !name.is_empty() {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}
