//! Data sets: records in JSON Lines or in one JSON list. A record has a `prompt`, OpenAI's
//! `messages`, `turns` as MT-Bench has them, or ShareGPT's `conversations`. Pure.
//!
//! A record that cannot be sent is skipped with a reason; the others are sent.

mod pieces;
mod split;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use llm_stream_core::{
    exact,
    prompt::{ChatMessage, ContentPart, Image, Role, Tool},
};
use serde_json::{Map, Value, value::RawValue};

pub(super) use self::pieces::Text;

/// Limit of the mistakes of a set that are kept and shown. Further mistakes are only counted.
const MOST_SHOWN: usize = 5;

/// The content of a data set.
#[derive(Debug, Default)]
pub(super) struct Set {
    /// The records that can be sent.
    pub(super) records: Vec<Record>,
    /// The number of records, skipped ones included.
    pub(super) all: usize,
    /// The first skipped records, each with its reason.
    pub(super) mistakes: Vec<Mistake>,
    /// The number of skipped records.
    pub(super) left_out: usize,
    /// Conversations without a first question. They are skipped and are not mistakes.
    pub(super) without_question: usize,
    /// Records with two forms of a question: the form that is sent and the other one, with their
    /// number.
    pub(super) ambiguous: Vec<((&'static str, &'static str), usize)>,
}

/// A record.
#[derive(Debug)]
pub(super) struct Record {
    /// Its `name`, `id` or `question_id`.
    pub(super) name: Option<String>,
    /// The conversation up to the question that is sent.
    pub(super) messages: Vec<ChatMessage>,
    /// The questions of further turns.
    pub(super) later: Vec<ChatMessage>,
    /// Limit of the answer, in tokens.
    pub(super) output_tokens: Option<u64>,
    /// The documents that are scored for the question.
    pub(super) documents: Vec<String>,
    /// The tools of the record, if it has any.
    pub(super) tools: Option<Arc<[Tool]>>,
    /// Whether answers in it have tool calls, which are not sent.
    pub(super) drops_calls: bool,
}

/// A mistake in a data set.
#[derive(Debug)]
pub(super) struct Mistake {
    /// The byte where it is.
    pub(super) at: usize,
    /// The number of the record, from 1, if a line may have several records.
    pub(super) number: Option<usize>,
    /// The message.
    pub(super) what: String,
    /// The hint.
    pub(super) help: &'static str,
}

/// The fields of a record that are read.
struct Fields {
    values: Map<String, Value>,
    /// Its name.
    name: Option<String>,
    /// The names of all its fields.
    keys: Vec<String>,
}

/// The forms of a question. If a record has several, the first one in this order is sent.
const FORMS: [&str; 4] = ["messages", "conversations", "turns", "prompt"];

/// The form of a question in sets for reranking, if a record has no other.
const QUERY: &str = "query";

const RECORD_HELP: &str = "a record is an object with `prompt`, `messages`, `turns` or \
                           `conversations`,\nfor example `{\"prompt\": \"Say hello.\"}`";
const MESSAGES_HELP: &str =
    "for example `\"messages\": [{\"role\": \"user\", \"content\": \"Say hello.\"}]`";
const COUNT_HELP: &str = "for example `\"output_tokens\": 256`";
const TURNS_HELP: &str = "for example `\"turns\": [\"Say hello.\", \"And goodbye.\"]`";
/// The fields of a tool that are sent.
const TOOL_FIELDS: &[&str] = &["name", "description", "parameters", "strict"];
const TOOLS_HELP: &str = "for example `\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"get_weather\"}}]`";
const SHAREGPT_HELP: &str =
    "for example `\"conversations\": [{\"from\": \"human\", \"value\": \"Say hello.\"}]`";

/// The message and the hint for a record that cannot be sent.
type Refusal = (String, &'static str);

/// The records in `text`. With `multi_turn`, the questions of a record are turns of a conversation,
/// and the recorded answers are not sent.
pub(super) fn read(text: &Text, multi_turn: bool) -> Set {
    let pieces = text.pieces();
    let mut set = Set { all: pieces.records.len(), ..Set::default() };
    for (nth, (at, piece)) in pieces.records.into_iter().enumerate() {
        match read_record(text, (at, piece), multi_turn) {
            Ok((Some(record), ambiguity)) => {
                set.records.push(record);
                if let Some(pair) = ambiguity {
                    set.note_ambiguous(pair);
                }
            }
            Ok((None, _)) => set.without_question += 1,
            Err(mistake) => {
                set.left_out += 1;
                if set.mistakes.len() < MOST_SHOWN {
                    let number = pieces.in_list.then_some(nth + 1);
                    set.mistakes.push(Mistake { number, ..mistake });
                }
            }
        }
    }
    set
}

impl Set {
    fn note_ambiguous(&mut self, pair: (&'static str, &'static str)) {
        match self.ambiguous.iter_mut().find(|(known, _)| *known == pair) {
            Some((_, count)) => *count += 1,
            None => self.ambiguous.push((pair, 1)),
        }
    }
}

/// The fields of the object `json`.
type RawFields<'j> = HashMap<Cow<'j, str>, &'j RawValue>;

/// Whether `json` is an object with a question.
fn is_record(json: &str) -> bool {
    let fields: Option<RawFields<'_>> = serde_json::from_str(json).ok();
    fields.is_some_and(|fields| FORMS.iter().chain(&[QUERY]).any(|form| fields.contains_key(*form)))
}

/// Whether `json` is a message of a conversation rather than a record.
fn is_turn(json: &str) -> bool {
    let fields: Option<RawFields<'_>> = serde_json::from_str(json).ok();
    let has = |key: &str| fields.as_ref().is_some_and(|fields| fields.contains_key(key));
    let is_turn = has("role") && has("content") || has("from") && has("value");
    is_turn && !FORMS.iter().any(|form| has(form))
}

/// Returns the question of a record, if it has one, and the two forms if it has a second.
type Asking = (Option<Record>, Option<(&'static str, &'static str)>);

fn read_record(
    text: &Text,
    (at, piece): (usize, &str),
    multi_turn: bool,
) -> Result<Asking, Mistake> {
    if !text.is_clean(at, piece) {
        let what = "this record is not UTF-8 text".to_owned();
        return Err(Mistake { at, number: None, what, help: "save the data set as UTF-8" });
    }
    let fields = match fields(piece) {
        Ok(fields) => fields,
        Err(error) => {
            let repaired = pieces::repaired(piece).and_then(|repaired| fields(&repaired).ok());
            repaired.ok_or_else(|| not_json(piece, at, &error))?
        }
    };
    let refused = |(what, help): Refusal| Mistake { at, number: None, what, help };
    let fields =
        fields.ok_or_else(|| refused(("a record is not an object".into(), RECORD_HELP)))?;
    record(&fields, multi_turn).map_err(refused)
}

/// The fields of the record `piece`; `None` if it is not a record. A list is a conversation.
fn fields(piece: &str) -> Result<Option<Fields>, serde_json::Error> {
    if piece.trim_start().starts_with('[') {
        let turns: Value = serde_json::from_str(piece)?;
        let is_conversation =
            turns.as_array().is_some_and(|turns| turns.iter().all(Value::is_object));
        let values = Map::from_iter([("conversations".to_owned(), turns)]);
        return Ok(is_conversation.then(|| Fields { values, name: None, keys: Vec::new() }));
    }
    if !piece.trim_start().starts_with('{') {
        let _: &RawValue = serde_json::from_str(piece)?;
        return Ok(None);
    }
    // Other fields of a record are often large and never sent: answers, scores and sources.
    const READ: &[&str] = &[
        "messages",
        "conversations",
        "turns",
        "prompt",
        QUERY,
        "documents",
        "output_tokens",
        "max_tokens",
        "tools",
    ];
    let raw: RawFields<'_> = serde_json::from_str(piece)?;
    let mut values = Map::new();
    for key in READ {
        if let Some(value) = raw.get(*key) {
            values.insert((*key).to_owned(), serde_json::from_str(value.get())?);
        }
    }
    let mut name = None;
    for key in ["name", "id", "question_id"] {
        if let (None, Some(value)) = (&name, raw.get(key)) {
            name = called(value.get())?;
        }
    }
    let mut keys: Vec<_> = raw.into_keys().map(Cow::into_owned).collect();
    keys.sort_unstable();
    Ok(Some(Fields { values, name, keys }))
}

/// Returns the name in this JSON: a text, or a number as it is written.
fn called(json: &str) -> Result<Option<String>, serde_json::Error> {
    if json.starts_with(|ch: char| ch.is_ascii_digit() || ch == '-') {
        return Ok(Some(json.to_owned()));
    }
    if !json.starts_with('"') {
        return Ok(None);
    }
    let name: String = serde_json::from_str(json)?;
    Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty()))
}

/// The mistake for an error of serde in `text`, which begins at `at`.
fn not_json(text: &str, at: usize, error: &serde_json::Error) -> Mistake {
    let before: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = match error.is_eof() {
        true => text.len(),
        false => (before + error.column().saturating_sub(1)).min(text.len()),
    };
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let what = match message {
        "number out of range" => "a number is too large".to_owned(),
        "recursion limit exceeded" => "this record is nested too deeply".to_owned(),
        _ => format!("this is not JSON: {message}"),
    };
    let help = "a data set is JSON Lines, an object a line, or one JSON list of objects";
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    let at = at + (0..=offset).rev().find(is_boundary).unwrap_or_default();
    Mistake { at, number: None, what, help }
}

/// The question of the record, if it has one.
fn record(fields: &Fields, multi_turn: bool) -> Result<Asking, Refusal> {
    let filled = |key: &str| fields.values.get(key).filter(|value| !value.is_null());
    let has_content = |value: &Value| match value {
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let found = || FORMS.iter().filter_map(|key| Some((*key, filled(key)?)));
    let mut with_content = found().filter(|(_, value)| has_content(value));
    let query = || filled(QUERY).filter(|value| value.is_string()).map(|value| (QUERY, value));
    let form = with_content.next().or_else(|| found().next()).or_else(query);
    let (form, value) = form.ok_or_else(|| no_question(fields))?;
    let ambiguity = with_content.next().map(|(other, _)| (form, other));
    let messages = match (form, value) {
        ("messages", _) | ("prompt", Value::Array(_)) => messages(form, value, multi_turn)?,
        ("prompt" | QUERY, _) => {
            let name = format!("`{form}`");
            vec![ChatMessage::text(Role::User, text(&name, value, RECORD_HELP)?)]
        }
        ("turns", _) => turns(value, multi_turn)?,
        _ => match conversations(value, multi_turn)? {
            messages if messages.is_empty() => return Ok((None, ambiguity)),
            messages => messages,
        },
    };
    let output = ["output_tokens", "max_tokens"].into_iter().find_map(filled);
    let output_tokens = output.map(|count| {
        let digits = count.as_str().and_then(|digits| digits.trim().parse().ok());
        let whole = digits.or_else(|| exact::whole(count)).filter(|count| *count > 0);
        whole.ok_or_else(|| (format!("`{count}` is not a number of output tokens"), COUNT_HELP))
    });
    let (messages, later) = first_turn(form, messages, multi_turn);
    let output_tokens = output_tokens.transpose()?;
    let tools = filled("tools").map(tools).transpose()?;
    let documents = filled("documents").map(documents).unwrap_or_default();
    let name = fields.name.clone();
    let sends_answers = messages.iter().any(|message| message.role == Role::Assistant);
    let has_calls = |message: &Value| !message["tool_calls"].as_array().is_none_or(Vec::is_empty);
    let drops_calls =
        sends_answers && value.as_array().is_some_and(|listed| listed.iter().any(has_calls));
    let record = Record { name, messages, later, output_tokens, documents, tools, drops_calls };
    Ok((Some(record), ambiguity))
}

fn no_question(fields: &Fields) -> Refusal {
    const MOST: usize = 6;
    let keys: Vec<_> = fields.keys.iter().take(MOST).map(|key| format!("`{key}`")).collect();
    let more = if fields.keys.len() > MOST { ", …" } else { "" };
    let has = match keys.is_empty() {
        true => String::new(),
        false => format!(": it has {}{more}", keys.join(", ")),
    };
    (format!("this record has no question{has}"), RECORD_HELP)
}

/// The documents of a record: texts, or objects with a `text`. Records for other purposes have other
/// things there, which are not sent.
fn documents(value: &Value) -> Vec<String> {
    let text = |document: &Value| {
        let text = document.as_str().or_else(|| document.get("text")?.as_str());
        text.map(str::to_owned)
    };
    let listed = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Option<_> = listed.iter().map(text).collect();
    texts.unwrap_or_default()
}

/// The tools of a record, in OpenAI's form.
fn tools(value: &Value) -> Result<Arc<[Tool]>, Refusal> {
    let tool = |tool: &Value| {
        let function = tool.get("function").and_then(Value::as_object)?;
        let kept = |(key, _): &(&String, &Value)| TOOL_FIELDS.contains(&key.as_str());
        let fields = function.iter().filter(kept);
        Some(Tool(fields.map(|(key, field)| (key.clone(), field.clone())).collect()))
    };
    let mut names = HashSet::new();
    let tools: Option<Vec<_>> = value.as_array().map(Vec::as_slice).and_then(|listed| {
        listed.iter().map(|item| tool(item).filter(|tool| !tool.name().is_empty())).collect()
    });
    let tools = tools.ok_or_else(|| ("`tools` is not a list of tools".to_owned(), TOOLS_HELP))?;
    match tools.iter().find(|tool| !names.insert(tool.name())) {
        Some(twice) => Err((format!("two tools are called `{}`", twice.name()), "rename one")),
        None => Ok(tools.into()),
    }
}

/// The messages of the first turn, and the questions of the others.
fn first_turn(
    form: &str,
    mut messages: Vec<ChatMessage>,
    multi_turn: bool,
) -> (Vec<ChatMessage>, Vec<ChatMessage>) {
    // A recorded conversation is one turn with a past.
    if ["messages", "prompt", QUERY].contains(&form) && !multi_turn {
        return (messages, Vec::new());
    }
    let first = messages.iter().position(|message| message.role == Role::User);
    let later = messages.split_off(first.map_or(messages.len(), |first| first + 1));
    (messages, if multi_turn { later } else { Vec::new() })
}

fn text(what: &str, value: &Value, help: &'static str) -> Result<String, Refusal> {
    match value.as_str() {
        Some(text) if text.trim().is_empty() => Err((format!("{what} is empty"), help)),
        Some(text) => Ok(text.to_owned()),
        None => Err((format!("{what} must be text"), help)),
    }
}

fn list<'v>(what: &str, value: &'v Value, help: &'static str) -> Result<&'v Vec<Value>, Refusal> {
    match value.as_array() {
        Some(items) if items.is_empty() => Err((format!("`{what}` is empty"), help)),
        Some(items) => Ok(items),
        None => Err((format!("`{what}` must be a list"), help)),
    }
}

/// OpenAI's form, up to the last question: recorded messages after it are not sent.
fn messages(form: &str, value: &Value, multi_turn: bool) -> Result<Vec<ChatMessage>, Refusal> {
    let refuse = |what: String| Err((what, MESSAGES_HELP));
    let listed = list(form, value, MESSAGES_HELP)?;
    if !listed.iter().all(Value::is_object) {
        return refuse(match form {
            "prompt" => "`prompt` must be text or a list of messages".to_owned(),
            _ => "a message is not an object".to_owned(),
        });
    }
    let is_question = |message: &Value| speaker(message) == Some(Role::User);
    let Some(last) = listed.iter().rposition(is_question) else {
        return refuse(format!("`{form}` has no question of the user"));
    };
    let mut messages = Vec::new();
    for message in &listed[..=last] {
        let role = match (speaker(message), who(message)) {
            (Some(Role::System), _) if !messages.is_empty() => {
                return refuse("a system message can only be the first".into());
            }
            (Some(role), _) => role,
            (None, Some(other)) => {
                return refuse(format!("messages of the role `{other}` cannot be sent"));
            }
            (None, None) => return refuse("a message has no `role`".into()),
        };
        if multi_turn && role == Role::Assistant {
            continue;
        }
        let (key, value) = content_value(message);
        match role {
            // Many data sets have an empty system message in every record.
            Role::System if is_nothing(value) => {}
            // An answer of tool calls, or of reasoning alone, has no text.
            Role::Assistant if is_nothing(value) => messages.push(ChatMessage::text(role, "")),
            _ => messages.push(ChatMessage { role, content: content(key, value)? }),
        }
    }
    Ok(messages)
}

/// The role of a message by the words of OpenAI, ShareGPT or OpenAssistant; `None` for others.
fn speaker(message: &Value) -> Option<Role> {
    match who(message)?.to_ascii_lowercase().as_str() {
        "user" | "human" | "prompter" => Some(Role::User),
        "assistant" | "gpt" | "chatgpt" | "bot" | "model" => Some(Role::Assistant),
        "system" | "developer" => Some(Role::System),
        _ => None,
    }
}

fn who(message: &Value) -> Option<&str> {
    ["role", "from"].iter().find_map(|key| message[*key].as_str())
}

/// The content of a message, after the key that holds it.
fn content_value(message: &Value) -> (&'static str, &Value) {
    let is_of_sharegpt = message["content"].is_null() && !message["value"].is_null();
    let key = if is_of_sharegpt { "value" } else { "content" };
    (key, &message[key])
}

/// Whether the content of a message is empty.
fn is_nothing(content: &Value) -> bool {
    content.is_null() || content.as_str().is_some_and(|text| text.trim().is_empty())
}

/// The content of a message: text, or a list of its pieces.
fn content(key: &str, value: &Value) -> Result<Vec<ContentPart>, Refusal> {
    let help = if key == "value" { SHAREGPT_HELP } else { MESSAGES_HELP };
    let Value::Array(pieces) = value else {
        return Ok(vec![ContentPart::Text(text(&format!("`{key}`"), value, help)?)]);
    };
    let piece = |piece: &Value| match piece["type"].as_str() {
        Some("text") => Ok(ContentPart::Text(text("`text`", &piece["text"], MESSAGES_HELP)?)),
        Some("image_url") => {
            let url = piece["image_url"].get("url").unwrap_or(&piece["image_url"]);
            Ok(ContentPart::Image(image(&text("`image_url`", url, IMAGE_HELP)?)?))
        }
        other => {
            let what = format!("a piece of the type `{}` cannot be sent", other.unwrap_or("none"));
            Err((what, "there are `text` and `image_url`"))
        }
    };
    match pieces.is_empty() {
        true => Err((format!("`{key}` is empty"), help)),
        false => pieces.iter().map(piece).collect(),
    }
}

const IMAGE_HELP: &str = "an image is `{\"type\": \"image_url\", \"image_url\": {\"url\": \"…\"}}`,\nthe URL \
                          being `https://…` or `data:image/png;base64,…`";

fn image(url: &str) -> Result<Image, Refusal> {
    let data = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    match data {
        Some((mime, base64)) if mime.starts_with("image/") => {
            Ok(Image::Data { mime: mime.to_owned(), base64: base64.into() })
        }
        None if url.starts_with("https://") || url.starts_with("http://") => {
            Ok(Image::Url(url.to_owned()))
        }
        _ => Err(("this image has no URL that can be sent".into(), IMAGE_HELP)),
    }
}

/// A list of questions. Without `multi_turn` only the first one is sent.
fn turns(value: &Value, multi_turn: bool) -> Result<Vec<ChatMessage>, Refusal> {
    let questions = list("turns", value, TURNS_HELP)?.iter();
    let question = |turn| Ok(ChatMessage::text(Role::User, text("a turn", turn, TURNS_HELP)?));
    questions.take(if multi_turn { usize::MAX } else { 1 }).map(question).collect()
}

/// ShareGPT's form: its questions, and a system message before them. Without `multi_turn` only the
/// first question is sent. Many such data sets have conversations without a question.
fn conversations(value: &Value, multi_turn: bool) -> Result<Vec<ChatMessage>, Refusal> {
    let Some(turns) = value.as_array() else {
        return Err(("`conversations` must be a list".into(), SHAREGPT_HELP));
    };
    let mut messages: Vec<ChatMessage> = Vec::new();
    for turn in turns {
        let is_asked = messages.last().is_some_and(|last| last.role == Role::User);
        if is_asked && !multi_turn {
            break;
        }
        if who(turn).is_none() {
            return Err(("a turn has no `from`".into(), SHAREGPT_HELP));
        }
        // Answers are not sent, whatever they hold.
        let Some(role @ (Role::User | Role::System)) = speaker(turn) else { continue };
        let (key, content_value) = content_value(turn);
        if content_value.is_null() && turn.get("value").is_none() && turn.get("content").is_none() {
            return Err(("a turn has no `value`".to_owned(), SHAREGPT_HELP));
        }
        if is_nothing(content_value) {
            continue;
        }
        if role == Role::User || messages.is_empty() {
            messages.push(ChatMessage { role, content: content(key, content_value)? });
        }
    }
    match messages.iter().any(|message| message.role == Role::User) {
        true => Ok(messages),
        false => Ok(Vec::new()),
    }
}
