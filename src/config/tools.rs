//! `tools` and `tool_choice`, of a model or a prompt.

use std::{collections::HashSet, sync::Arc};

use llm_stream_core::{
    prompt::{Tool, ToolChoice, Tools},
    protocol::{self, Protocol},
};
use serde_json::{Map, Value};

use super::{
    keys::Section,
    reader::{Entry, Fields, Reader},
    suggest,
    yaml::Yaml,
};

/// The keys.
pub(super) const KEYS: [&str; 2] = ["tools", "tool_choice"];

/// Reads `tools` and `tool_choice`.
pub(super) fn tools(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Tools {
    let listed = fields.get("tools").and_then(|entry| list(reader, entry));
    let choice = fields.get("tool_choice").and_then(|entry| choice(reader, entry));
    let tools = Tools { listed, choice };
    // A choice among the tools of another section is checked when both sections are read.
    if tools.listed.is_some()
        && let Some(entry) = fields.get("tool_choice")
        && let Some((what, help)) = tools.choice_error()
    {
        reader.error(entry, what, help);
    }
    tools
}

/// Notes tools that cannot be sent; `all` are the fields of a model and of `defaults`.
pub(super) fn check(
    reader: &mut Reader<'_>,
    all: [&Fields<'_>; 2],
    tools: &Tools,
    protocol: &dyn Protocol,
) {
    let entry = |key| all.iter().find_map(|fields| fields.get(key));
    for key in KEYS.iter().filter(|key| tools.sends(key)) {
        let Some(written) = entry(key) else { continue };
        if !protocol.tool_fields().contains(key) {
            let (what, help) = not_supported(key, protocol);
            reader.error_at_key(written, what, help);
        }
        for body in all.iter().filter_map(|fields| fields.get("extra_body")) {
            let is_twice =
                |(name, entry): &(&str, Entry<'_>)| name == key && entry.value.value != Yaml::Null;
            let twice = reader.text_keyed(body).into_iter().find(is_twice);
            if let Some((_, twice)) = twice {
                let what = format!("`{key}` is also in `extra_body`");
                reader.error_at_key(&twice, what, "remove one of them");
            }
        }
    }
    if let Some(written) = entry("tool_choice")
        && !tools.offered().is_empty()
        && let Some((what, help)) = tools.choice_error()
    {
        reader.error(written, what, help);
    }
}

fn list(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Arc<[Tool]>> {
    let before = reader.mistakes();
    let items = reader.list(entry, "a list of tools", &format!("[{}]", entry.example()));
    let mut names = HashSet::new();
    let mut tools = Vec::new();
    for item in &items {
        let Some((tool, name)) = tool(reader, item) else { continue };
        if !names.insert(tool.name().to_owned()) {
            let what = format!("two tools are called `{}`", tool.name());
            reader.error_at(name, &item.path, what, "rename one of them");
        }
        tools.push(tool);
    }
    (reader.mistakes() == before).then(|| tools.into())
}

/// A tool, and the place of its name.
fn tool(reader: &mut Reader<'_>, item: &Entry<'_>) -> Option<(Tool, std::ops::Range<usize>)> {
    if let Yaml::Map(_) = item.value.value
        && reader.text_keyed(item).iter().all(|(name, _)| *name != "function")
    {
        let help = format!("write it in OpenAI's form: `- {}`", Section::Tool.info().example);
        reader.error(item, "a tool has no `function`", help);
        return None;
    }
    let fields = reader.fields(item, Section::Tool);
    let kind = match fields.get("type") {
        Some(entry) => reader.text(entry).map(|kind| (entry, kind.value)),
        None => {
            if fields.meant.is_empty() && matches!(item.value.value, Yaml::Map(_)) {
                let help = format!("for example `- {}`", Section::Tool.info().example);
                reader.error(item, "a tool has no `type`", help);
            }
            None
        }
    };
    if let Some((entry, kind)) = kind.filter(|(_, kind)| kind != "function") {
        let help = "the only one is `function`; a tool of the server's own goes into `extra_body`";
        reader.error(entry, format!("unknown type of tool `{kind}`"), help);
    }
    function(reader, fields.get("function")?)
}

fn function(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<(Tool, std::ops::Range<usize>)> {
    let fields = reader.fields(entry, Section::Function);
    let Some(name_entry) = fields.get("name") else {
        if fields.meant.is_empty() && matches!(entry.value.value, Yaml::Map(_)) {
            let help = format!("for example `function: {}`", entry.example());
            reader.error(entry, "a function has no `name`", help);
        }
        return None;
    };
    let mut function = Map::new();
    function.insert("name".into(), reader.text(name_entry)?.value.into());
    if let Some(entry) = fields.get("description") {
        let text = reader.text(entry)?;
        function.insert("description".into(), text.value.into());
    }
    if let Some(entry) = fields.get("parameters") {
        if !matches!(entry.value.value, Yaml::Map(_)) {
            reader.wrong(entry, "a JSON schema", entry.example());
            return None;
        }
        function.insert("parameters".into(), reader.json(entry)?);
    }
    if let Some(entry) = fields.get("strict") {
        function.insert("strict".into(), Value::Bool(reader.flag(entry)?));
    }
    Some((Tool(function), reader.place(name_entry)))
}

/// `auto`, `required`, `none` or `{ name: … }`.
fn choice(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<ToolChoice> {
    let example = entry.example();
    if let Yaml::Map(_) = entry.value.value {
        let fields = reader.fields(entry, Section::ToolChoice);
        let Some(name) = fields.get("name") else {
            if fields.meant.is_empty() {
                let help = format!("for example `tool_choice: {example}`");
                reader.error(entry, "`tool_choice` has no `name`", help);
            }
            return None;
        };
        return reader.text(name).map(|name| ToolChoice::Named(name.value));
    }
    let Yaml::Text(word) = &entry.value.value else {
        let expected = "`auto`, `required`, `none` or the name of a tool";
        reader.wrong(entry, expected, example);
        return None;
    };
    let known = [ToolChoice::Auto, ToolChoice::Required, ToolChoice::None];
    let names = known.each_ref().map(ToolChoice::name);
    let found = known.iter().find(|known| known.name() == word).cloned();
    if found.is_none() {
        let help = match suggest::nearest(word, names) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if word == "any" => "did you mean `required`?".to_owned(),
            None => format!(
                "there are `auto`, `required` and `none`; a tool is chosen by its name:\n\
                 `tool_choice: {{ name: {word} }}`"
            ),
        };
        reader.error(entry, format!("unknown value `{word}` for `tool_choice`"), help);
    }
    found
}

/// The message and the hint for a `field` that `protocol` does not support.
pub(super) fn not_supported(field: &str, protocol: &dyn Protocol) -> (String, String) {
    let knows = |other: &dyn Protocol| {
        other.length_fields().contains(&field) || other.tool_fields().contains(&field)
    };
    let others = protocol::ALL.iter().filter(|other| knows(**other));
    let others: Vec<_> = others.map(|other| other.name()).collect();
    let what = format!("`{}` does not support `{field}`", protocol.name());
    let verb = if others.len() == 1 { "does" } else { "do" };
    let help = format!(
        "{} {verb}; a field that your server supports anyway goes into `extra_body`",
        suggest::list(&others)
    );
    (what, help)
}
