//! The JSON schema of `configs.yaml`, from the table of keys.
//!
//! It accepts every document that the reader accepts. The reader also checks rules that a schema
//! cannot express, such as files, URLs and relations between values.

use serde_json::{Map, Value, json};

use super::{
    keys::{Key, SECTIONS, Section, SectionInfo, ValueShape},
    reader::parse_duration,
};

/// A digit and then a unit: `10ms`, `1m 30s`.
const DURATION: &str = "[0-9].*[A-Za-zµμ:]";

/// The JSON schema (draft 2020-12) of `configs.yaml`.
pub fn schema() -> Value {
    let parts = SECTIONS.iter().filter(|info| info.section != Section::Top);
    let parts: Map<_, _> = parts.map(|info| (id(info), Value::Object(of_section(info)))).collect();
    let mut schema = Map::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.extend(of_section(Section::Top.info()));
    schema.insert("title".into(), "configs.yaml of llm-stream-bench".into());
    schema.insert("patternProperties".into(), json!({ "^x-": true }));
    schema.insert("$defs".into(), parts.into());
    schema.into()
}

/// The name of a section in `$defs`.
fn id(info: &SectionInfo) -> String {
    info.title.to_lowercase().replace(' ', "_")
}

fn of_section(info: &SectionInfo) -> Map<String, Value> {
    let properties: Map<_, _> =
        info.section.keys().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let mut schema = Map::new();
    schema.insert("title".into(), info.title.into());
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), properties.into());
    schema.insert("additionalProperties".into(), false.into());
    let (required, choices): (Vec<_>, Vec<_>) =
        info.one_of.iter().partition(|group| group.len() == 1);
    if !required.is_empty() {
        schema.insert("required".into(), json!(required.concat()));
    }
    let choices = choices.into_iter().map(|group| json!({ "oneOf": required_each(group) }));
    let choices = choices
        .chain(info.some_of.iter().map(|group| json!({ "anyOf": required_each(group) })))
        .collect::<Vec<_>>();
    if !choices.is_empty() {
        schema.insert("allOf".into(), choices.into());
    }
    if !info.only_with.is_empty() {
        let pairs = info.only_with.iter().map(|(key, with)| ((*key).to_owned(), json!([with])));
        schema.insert("dependentRequired".into(), Value::Object(pairs.collect()));
    }
    schema
}

/// A schema for each of `keys` that requires it.
fn required_each(keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| json!({ "required": [key] })).collect()
}

fn of_key(key: &Key) -> Value {
    let mut schema = Map::new();
    schema.insert("description".into(), key.help.into());
    if let Some(default) = default_of(key) {
        schema.insert("default".into(), default);
    }
    schema.extend(of_shape(&key.shape));
    schema.into()
}

/// The default of `key` as JSON, if it is a value and not a description.
pub(super) fn default_of(key: &Key) -> Option<Value> {
    value_of(key.default, &key.shape)
}

fn value_of(text: &str, shape: &ValueShape) -> Option<Value> {
    match shape {
        ValueShape::Flag => text.parse::<bool>().ok().map(Value::from),
        ValueShape::Whole(..) => text.parse::<u64>().ok().map(Value::from),
        ValueShape::Number(..) => text.parse::<f64>().ok().map(Value::from),
        ValueShape::Duration { zero, .. } => parse_duration(text, *zero).ok().map(|_| text.into()),
        ValueShape::Words(words) => words().contains(&text).then(|| text.into()),
        ValueShape::Form { .. } => {
            text.starts_with(|ch: char| ch.is_ascii_digit()).then(|| text.into())
        }
        ValueShape::Any(shapes) => shapes.iter().find_map(|shape| value_of(text, shape)),
        _ => None,
    }
}

fn of_shape(shape: &ValueShape) -> Map<String, Value> {
    let schema = match shape {
        ValueShape::Text => json!({ "type": "string", "pattern": "\\S" }),
        ValueShape::Flag => json!({ "type": "boolean" }),
        ValueShape::Only(value) => json!({ "const": value }),
        ValueShape::Null => json!({ "type": "null" }),
        ValueShape::Whole(low, u64::MAX) => json!({ "type": "integer", "minimum": low }),
        ValueShape::Whole(low, high) => {
            json!({ "type": "integer", "minimum": low, "maximum": high })
        }
        ValueShape::Number(low, high) => {
            json!({ "type": "number", "minimum": low, "maximum": high })
        }
        ValueShape::Duration { zero: false, .. } => {
            json!({ "type": "string", "pattern": DURATION })
        }
        ValueShape::Duration { zero: true, .. } => {
            json!({ "anyOf": [{ "type": "string", "pattern": DURATION }, { "const": 0 }] })
        }
        ValueShape::Words(words) => json!({ "enum": words() }),
        ValueShape::Form { pattern, .. } => json!({ "type": "string", "pattern": pattern }),
        ValueShape::Fields => json!({ "type": "object" }),
        ValueShape::Texts => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        ValueShape::Figures(value) => {
            json!({ "type": "object", "additionalProperties": of_shape(value) })
        }
        ValueShape::Weights => json!({
            "type": "object",
            "minProperties": 2,
            "additionalProperties": { "type": "number", "exclusiveMinimum": 0 },
        }),
        ValueShape::Pair(words) => json!({
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": { "enum": words() },
        }),
        ValueShape::Map(section) => reference_to(*section),
        ValueShape::Named(section) => {
            json!({ "type": "object", "additionalProperties": reference_to(*section) })
        }
        ValueShape::List(item) => json!({ "type": "array", "items": of_shape(item) }),
        ValueShape::Some(item) => {
            json!({ "type": "array", "minItems": 1, "items": of_shape(item) })
        }
        ValueShape::Any(shapes) => {
            json!({ "anyOf": shapes.iter().map(of_shape).collect::<Vec<_>>() })
        }
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn reference_to(section: Section) -> Value {
    json!({ "$ref": format!("#/$defs/{}", id(section.info())) })
}
