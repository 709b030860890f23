//! The JSON schema of the report, generated from its types.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::SchemaSettings,
    transform::{Transform as _, transform_subschemas},
};
use serde_json::{Map, Value};

use super::model::{ByName, RunReport};

impl<T: JsonSchema> JsonSchema for ByName<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        BTreeMap::<String, T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }
}

/// Returns the schema of the JSON report.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<RunReport<'_>>();
    tidy.transform(&mut schema);
    let mut schema = schema.to_value();
    schema["$id"] = "llm-stream-bench/run.v2".into();
    schema["title"] = "A run of llm-stream-bench".into();
    leading_first(schema)
}

/// Moves the keys that identify the schema to its beginning.
fn leading_first(mut schema: Value) -> Value {
    const LEADING: [&str; 4] = ["$schema", "$id", "title", "description"];
    let mut ordered = Map::from_iter(LEADING.map(|key| (key.to_owned(), schema[key].take())));
    let rest = schema.as_object_mut().map(std::mem::take).unwrap_or_default();
    ordered.extend(rest.into_iter().filter(|(key, _)| !LEADING.contains(&key.as_str())));
    ordered.into()
}

/// Joins the lines of descriptions, and removes the formats of numbers, which JSON does not know.
fn tidy(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if schema.get("format").is_some_and(|format| format != "date-time") {
        schema.remove("format");
    }
    transform_subschemas(&mut tidy, schema);
}
