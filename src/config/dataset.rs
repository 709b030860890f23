//! Data sets: records in JSON Lines or in one JSON list. A record has a `prompt`, OpenAI's
//! `messages`, `turns` as MT-Bench has them, or ShareGPT's `conversations`. Pure.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Map, Value, value::RawValue};

use crate::prompt::{ChatMessage, Image, Piece, Role, Tool};

/// A record.
#[derive(Debug)]
pub(super) struct Record {
    /// What it is called: its `name`, `id` or `question_id`.
    pub(super) name: Option<String>,
    /// The conversation up to the question that is asked.
    pub(super) messages: Vec<ChatMessage>,
    /// The questions of further turns.
    pub(super) later: Vec<ChatMessage>,
    /// Most tokens of the answer.
    pub(super) output_tokens: Option<u64>,
    /// The tools that the model may call, where it says so.
    pub(super) tools: Option<Arc<[Tool]>>,
}

/// What is wrong with a data set.
#[derive(Debug)]
pub(super) struct Mistake {
    /// The byte at which it is.
    pub(super) at: usize,
    /// What is wrong.
    pub(super) what: String,
    /// What would be right.
    pub(super) help: &'static str,
}

const RECORD_HELP: &str = "a record is an object with `prompt`, `messages`, `turns` or \
                           `conversations`,\nfor example `{\"prompt\": \"Say hello.\"}`";
const MESSAGES_HELP: &str =
    "for example `\"messages\": [{\"role\": \"user\", \"content\": \"Say hello.\"}]`";
const COUNT_HELP: &str = "for example `\"output_tokens\": 256`";
const TURNS_HELP: &str = "for example `\"turns\": [\"Say hello.\", \"And goodbye.\"]`";
/// What is sent of a tool.
const TOOL_FIELDS: &[&str] = &["name", "description", "parameters", "strict"];
const TOOLS_HELP: &str = "for example `\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"get_weather\"}}]`";
const SHAREGPT_HELP: &str =
    "for example `\"conversations\": [{\"from\": \"human\", \"value\": \"Say hello.\"}]`";

/// Why a record is refused, and what would be right.
type Refusal = (String, &'static str);

/// The records in `text`, those without a question left out. With `multi_turn`, the questions of
/// a record are turns of a conversation, and the recorded answers are not sent.
pub(super) fn read(text: &str, multi_turn: bool) -> Result<Vec<Record>, Mistake> {
    let is_list = text.trim_start().starts_with('[');
    let pieces = if is_list { listed(text) } else { lines(text) }?;
    let mut records: Vec<Record> = Vec::new();
    let mut names = HashSet::new();
    for (at, piece) in pieces {
        let refused = |(what, help): Refusal| Mistake { at, what, help };
        let record: Map<String, Value> = serde_json::from_str(piece)
            .map_err(|_| refused(("a record is no object".into(), RECORD_HELP)))?;
        let Some(record) = self::record(&record, multi_turn).map_err(refused)? else { continue };
        if let Some(name) = record.name.as_ref().filter(|name| !names.insert((*name).clone())) {
            let what = format!("two records are called `{name}`");
            return Err(refused((what, "their names would be those of two trials: rename one")));
        }
        records.push(record);
    }
    Ok(records)
}

/// The items of a JSON list, each with its place.
fn listed(text: &str) -> Result<Vec<(usize, &str)>, Mistake> {
    let items: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|error| not_json(text, 0, &error))?;
    let place = |item: &str| item.as_ptr() as usize - text.as_ptr() as usize;
    Ok(items.iter().map(|item| (place(item.get()), item.get())).collect())
}

/// The lines that are not blank, each with its place.
fn lines(text: &str) -> Result<Vec<(usize, &str)>, Mistake> {
    let mut at = 0;
    let mut lines = Vec::new();
    for line in text.split_inclusive('\n') {
        if !line.trim().is_empty() {
            let _: &RawValue =
                serde_json::from_str(line).map_err(|error| not_json(line, at, &error))?;
            lines.push((at, line));
        }
        at += line.len();
    }
    Ok(lines)
}

/// What serde says of `text`, which begins at `at`.
fn not_json(text: &str, at: usize, error: &serde_json::Error) -> Mistake {
    let before: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = (before + error.column().saturating_sub(1)).min(text.trim_end().len());
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    let what = format!("this is not JSON: {said}");
    let help = "a data set is JSON Lines, an object a line, or one JSON list of objects";
    Mistake { at: at + text.floor_char_boundary(offset), what, help }
}

/// The record, if it asks something.
fn record(fields: &Map<String, Value>, multi_turn: bool) -> Result<Option<Record>, Refusal> {
    let filled = |key: &str| fields.get(key).filter(|value| !value.is_null());
    let forms = ["prompt", "messages", "turns", "conversations"];
    let mut found = forms.iter().filter_map(|key| Some((*key, filled(key)?)));
    let (form, value) =
        found.next().ok_or_else(|| ("this record asks nothing".to_owned(), RECORD_HELP))?;
    if let Some((other, _)) = found.next() {
        let what = format!("this record has both `{form}` and `{other}`");
        return Err((what, "leave one of them"));
    }
    let messages = match form {
        "prompt" => vec![ChatMessage::text(Role::User, text("`prompt`", value, RECORD_HELP)?)],
        "messages" => messages(value, multi_turn)?,
        "turns" => turns(value)?,
        _ => match conversations(value)? {
            messages if messages.is_empty() => return Ok(None),
            messages => messages,
        },
    };
    let output = ["output_tokens", "max_tokens"].into_iter().find_map(filled);
    let output_tokens = output.map(|count| {
        let whole = count.as_u64().filter(|count| *count > 0);
        whole.ok_or_else(|| (format!("`{count}` is no number of output tokens"), COUNT_HELP))
    });
    let name = ["name", "id", "question_id"].into_iter().find_map(filled).and_then(called);
    let (messages, later) = first_turn(form, messages, multi_turn);
    let output_tokens = output_tokens.transpose()?;
    let tools = filled("tools").map(tools).transpose()?;
    Ok(Some(Record { name, messages, later, output_tokens, tools }))
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
    let tools = tools.ok_or_else(|| ("`tools` is no list of tools".to_owned(), TOOLS_HELP))?;
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
    if form == "messages" && !multi_turn {
        return (messages, Vec::new());
    }
    let first = messages.iter().position(|message| message.role == Role::User);
    let later = messages.split_off(first.map_or(messages.len(), |first| first + 1));
    (messages, if multi_turn { later } else { Vec::new() })
}

/// What a record is called.
fn called(name: &Value) -> Option<String> {
    match name {
        Value::String(name) => Some(name.trim().to_owned()).filter(|name| !name.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
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

/// OpenAI's form, up to the last question: an answer that was recorded after it is not sent.
fn messages(value: &Value, multi_turn: bool) -> Result<Vec<ChatMessage>, Refusal> {
    let refuse = |what: String| Err((what, MESSAGES_HELP));
    let mut messages = Vec::new();
    for message in list("messages", value, MESSAGES_HELP)? {
        let role = match message["role"].as_str() {
            Some("system" | "developer") if messages.is_empty() => Role::System,
            Some("system" | "developer") => {
                return refuse("a system message can only be the first".into());
            }
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some(other) => {
                return refuse(format!("messages of the role `{other}` cannot be sent"));
            }
            None => return refuse("a message has no `role`".into()),
        };
        messages.push(ChatMessage { role, content: content(&message["content"])? });
    }
    if multi_turn {
        messages.retain(|message| message.role != Role::Assistant);
    }
    while messages.last().is_some_and(|last| last.role == Role::Assistant) {
        messages.pop();
    }
    match messages.last() {
        Some(last) if last.role == Role::User => Ok(messages),
        _ => refuse("`messages` has no question of the user".into()),
    }
}

/// A message's content: text, or a list of its pieces.
fn content(value: &Value) -> Result<Vec<Piece>, Refusal> {
    let Value::Array(pieces) = value else {
        return Ok(vec![Piece::Text(text("`content`", value, MESSAGES_HELP)?)]);
    };
    let piece = |piece: &Value| match piece["type"].as_str() {
        Some("text") => Ok(Piece::Text(text("`text`", &piece["text"], MESSAGES_HELP)?)),
        Some("image_url") => {
            let url = piece["image_url"].get("url").unwrap_or(&piece["image_url"]);
            Ok(Piece::Image(image(&text("`image_url`", url, IMAGE_HELP)?)?))
        }
        other => {
            let what = format!("a piece of the type `{}` cannot be sent", other.unwrap_or("none"));
            Err((what, "there are `text` and `image_url`"))
        }
    };
    match pieces.is_empty() {
        true => Err(("`content` is empty".into(), MESSAGES_HELP)),
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

/// A list of questions.
fn turns(value: &Value) -> Result<Vec<ChatMessage>, Refusal> {
    let questions = list("turns", value, TURNS_HELP)?.iter();
    let question = |turn| Ok(ChatMessage::text(Role::User, text("a turn", turn, TURNS_HELP)?));
    questions.map(question).collect()
}

/// ShareGPT's form: its questions, and a system message before them. Many such data sets hold
/// conversations without one.
fn conversations(value: &Value) -> Result<Vec<ChatMessage>, Refusal> {
    let Some(turns) = value.as_array() else {
        return Err(("`conversations` must be a list".into(), SHAREGPT_HELP));
    };
    let mut messages = Vec::new();
    for turn in turns {
        let said = turn["value"].as_str();
        let said = said.ok_or_else(|| ("a turn has no `value`".to_owned(), SHAREGPT_HELP))?;
        let role = match turn["from"].as_str() {
            Some("human" | "user") => Role::User,
            Some("system") => Role::System,
            Some(_) => Role::Assistant,
            None => return Err(("a turn has no `from`".into(), SHAREGPT_HELP)),
        };
        if said.trim().is_empty() || role == Role::Assistant {
            continue;
        }
        if role == Role::User || messages.is_empty() {
            messages.push(ChatMessage::text(role, said));
        }
    }
    match messages.iter().any(|message| message.role == Role::User) {
        true => Ok(messages),
        false => Ok(Vec::new()),
    }
}
