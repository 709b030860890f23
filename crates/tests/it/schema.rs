//! The JSON schema of `configs.yaml`, by which tests validate the documents that they use.

use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use llm_stream_bench::config::schema;
use serde_json::Value;

static SCHEMA: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let mut compiler = Compiler::new();
    compiler.add_resource("file:///configs.json", schema()).unwrap();
    let mut schemas = Schemas::new();
    let schema = compiler.compile("file:///configs.json", &mut schemas).unwrap();
    (schemas, schema)
});

/// The first mistake in `text` by the schema; `None` if JSON cannot hold the document, such as one
/// with a list as a key.
pub(crate) fn mistake(text: &str) -> Option<String> {
    let options = serde_saphyr::options! { strict_booleans: true };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document: Value = serde_saphyr::from_str_with_options(text, options).ok()?;
    let (schemas, schema) = &*SCHEMA;
    schemas.validate(&document, *schema).err().map(|error| format!("{error:#}"))
}

/// Panics if the schema refuses `text`, which the reader accepts.
pub(crate) fn assert_valid(text: &str) {
    if let Some(mistake) = mistake(text) {
        panic!("the schema refuses an accepted document: {mistake}\n{text}");
    }
}
