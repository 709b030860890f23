//! Finds the fields of a request that a server refuses, and the config that omits them.
//!
//! Servers word refusals in many ways and languages. Any field of the request that a refusal names
//! may be the reason, unless its value is out of range. That is a guess: the preflight repeats the
//! request without the fields and so finds out whether it helps.

use serde_json::{Map, Value};

use llm_stream_core::protocol::NEVER_LEFT_OUT;

/// Maps whose fields are omitted one by one.
const MAPS: &[&str] = &["stream_options", "options", "parameters"];

/// Field names that are also words of a sentence; they count only in quotes.
const AMBIGUOUS: &[&str] =
    &["options", "parameters", "system", "tools", "thinking", "user", "stop"];

/// Words about a field whose value is out of range. The user has to change the value; omitting the
/// field does not help.
const OUT_OF_RANGE: &[&str] = &[
    "below minimum",
    "above maximum",
    "too large",
    "too small",
    "too long",
    "too many",
    "at least",
    "at most",
    "greater than",
    "less than",
    "or equal",
    "context length",
    "context window",
    "maximum",
    "minimum",
    "out of range",
    "must be between",
    "too high",
    "too low",
    "exceed",
    "no more than",
    "no less than",
    "in range",
    "in the range",
    "up to",
    "<=",
    ">=",
    // Chinese and German
    "超出",
    "超过",
    "过大",
    "过长",
    "大于",
    "小于",
    "范围",
    "größer als",
    "kleiner als",
    "höchstens",
    "mindestens",
];

/// Words in front of a list of the fields that the server knows.
const KNOWN: &[&str] = &[
    "expected one of",
    "known:",
    "known fields",
    "known param",
    "supported:",
    "supported fields",
    "supported param",
    "valid fields",
    "valid param",
    "permitted:",
    "allowed:",
    "allowed fields",
    "allowed param",
    "accepted fields",
    "accepted param",
];

/// Words about a field that is refused with any value.
const ALTOGETHER: &[&str] = &[
    "unsupported param",
    "unsupported field",
    "not permitted",
    "extra_forbidden",
    "unexpected",
    "unknown",
    "unrecogni",
];

/// A field of a request, possibly in a map such as `stream_options`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    map: Option<String>,
    name: String,
    /// Whether the server has another name for it: `max_completion_tokens`.
    is_renamed: bool,
}

impl Field {
    fn new(name: &str) -> Self {
        Self { map: None, name: name.into(), is_renamed: false }
    }

    fn within(map: &str, name: &str) -> Self {
        Self { map: Some(map.into()), ..Self::new(name) }
    }

    /// Whether the field requests token counts.
    pub(super) fn is_about_usage(&self) -> bool {
        [self.map.as_deref(), Some(&*self.name)].contains(&Some("stream_options"))
    }
}

/// Returns the fields of the request `sent` that `answer`, the body of a refusal, names.
pub(crate) fn refused(sent: &Value, answer: &str) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for complaint in complaints(answer) {
        for field in named(sent, &complaint) {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
    }
    // A field that is omitted as a whole is not omitted in parts.
    let wholes: Vec<_> = fields.iter().filter(|field| field.map.is_none()).cloned().collect();
    fields.retain(|field| !wholes.iter().any(|whole| field.map.as_ref() == Some(&whole.name)));
    fields
}

/// Returns an `extra_body` that omits `fields`. A limit with another name gets `limit` under that
/// name.
pub(crate) fn left_out(
    extra_body: &Map<String, Value>,
    fields: &[Field],
    limit: u64,
) -> Map<String, Value> {
    let mut own = extra_body.clone();
    for (name, value) in additions(fields, limit) {
        match (own.get_mut(&name), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (_, value) => {
                own.insert(name, value);
            }
        }
    }
    own
}

/// Returns the config line that omits `fields`.
pub(super) fn line(fields: &[Field], limit: u64) -> String {
    format!("extra_body: {}", flow(&additions(fields, limit).into()))
}

/// Formats `value` in YAML's flow style.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

/// Returns the entries to add to `extra_body`.
fn additions(fields: &[Field], limit: u64) -> Map<String, Value> {
    let mut added = Map::new();
    for field in fields {
        match &field.map {
            Some(map) => {
                let map = added.entry(map.clone()).or_insert_with(|| Map::new().into());
                map[&field.name] = Value::Null;
            }
            None if field.is_renamed => {
                added.insert("max_completion_tokens".into(), limit.into());
            }
            None => {
                added.insert(field.name.clone(), Value::Null);
            }
        }
    }
    added
}

/// Returns the fields of `sent` that `complaint` names. Fields in front of a list of known fields
/// are preferred: servers list those that they accept.
fn named(sent: &Value, complaint: &str) -> Vec<Field> {
    let lower = complaint.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(OUT_OF_RANGE) && !says(ALTOGETHER) {
        return Vec::new();
    }
    let list = KNOWN.iter().filter_map(|words| lower.find(words)).min();
    let before = list.and_then(|at| complaint.get(..at)).unwrap_or_default();
    match fields_in(sent, before) {
        fields if fields.is_empty() => fields_in(sent, complaint),
        fields => fields,
    }
}

/// Returns the fields of `sent` whose names are in `complaint`.
fn fields_in(sent: &Value, complaint: &str) -> Vec<Field> {
    let Some(body) = sent.as_object() else { return Vec::new() };
    let mut fields = Vec::new();
    for (name, value) in body.iter().filter(|(name, _)| !NEVER_LEFT_OUT.contains(&name.as_str())) {
        if names(complaint, name) {
            let is_renamed = name == "max_tokens" && names(complaint, "max_completion_tokens");
            fields.push(Field { is_renamed, ..Field::new(name) });
        }
        let inner = value.as_object().filter(|_| MAPS.contains(&name.as_str()));
        for key in inner.into_iter().flat_map(Map::keys) {
            if names(complaint, key) {
                fields.push(Field::within(name, key));
            }
        }
    }
    fields
}

/// Whether `text` contains `name` as a word, and an ambiguous name in quotes.
fn names(text: &str, name: &str) -> bool {
    // Only ASCII counts as part of a word: Chinese has no blanks between words.
    let is_part = |ch: char| ch.is_ascii_alphanumeric() || ch == '_';
    let quotes = |ch: Option<char>| ch.is_some_and(|ch| "\"'`‘’“”„「」【】[]{}".contains(ch));
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        let is_word = !before.is_some_and(is_part) && !after.is_some_and(is_part);
        is_word && (!AMBIGUOUS.contains(&name) || quotes(before) && quotes(after))
    })
}

/// Splits an answer into complaints: the texts of each object of its JSON, without copies of the
/// request.
fn complaints(answer: &str) -> Vec<String> {
    let Ok(document) = serde_json::from_str::<Value>(answer) else {
        return vec![answer.to_owned()];
    };
    let mut complaints = Vec::new();
    let mut own = String::new();
    visit(&document, &mut own, &mut complaints);
    complaints.push(own);
    complaints
}

/// Adds the texts of `value` to `own`, the texts of the object around it, and those of inner
/// objects to `complaints`.
fn visit(value: &Value, own: &mut String, complaints: &mut Vec<String>) {
    /// Keys that hold copies of the request, or no text.
    const REPEATED: &[&str] = &["input", "body", "request", "ctx", "url", "headers", "docs"];
    match value {
        Value::String(text) => {
            // A quoted text counts as a name.
            own.push_str(&format!("'{text}' "));
        }
        Value::Array(items) => items.iter().for_each(|item| visit(item, own, complaints)),
        Value::Object(fields) => {
            let mut texts = String::new();
            let shown = fields.iter().filter(|(key, _)| !REPEATED.contains(&key.as_str()));
            shown.for_each(|(_, value)| visit(value, &mut texts, complaints));
            complaints.push(texts);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent() -> Value {
        json!({
            "model": "m",
            "messages": [],
            "temperature": 0.7,
            "max_tokens": 1,
            "min_tokens": 1,
            "ignore_eos": true,
            "stream": true,
            "stream_options": {"include_usage": true},
            "tools": [],
        })
    }

    fn line_of(sent: &Value, answer: &str) -> String {
        match refused(sent, answer) {
            fields if fields.is_empty() => "-".into(),
            fields => line(&fields, 1024),
        }
    }

    #[test]
    fn fields_are_found_in_the_refusals_of_many_servers() {
        let cases = [
            // OpenAI
            (
                r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#,
                "extra_body: { max_completion_tokens: 1024 }",
            ),
            (
                r#"{"error":{"message":"Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported.","param":"temperature","code":"unsupported_value"}}"#,
                "extra_body: { temperature: null }",
            ),
            (
                r#"{"error":{"message":"Unrecognized request argument supplied: ignore_eos","type":"invalid_request_error","param":null,"code":null}}"#,
                "extra_body: { ignore_eos: null }",
            ),
            // Bedrock
            (
                r#"{"message":"The model returned the following errors: `temperature` is deprecated for this model."}"#,
                "extra_body: { temperature: null }",
            ),
            (
                r#"{"message":"Malformed input request: #: extraneous key [stream_options] is not permitted, please reformat your input and try again."}"#,
                "extra_body: { stream_options: null }",
            ),
            (
                r#"{"error":{"message":"`temperature` and `top_p` cannot both be specified for this model. Please use only one."}}"#,
                "extra_body: { temperature: null }",
            ),
            // Mistral, Azure AI Foundry
            (
                r#"{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted","input":{"include_usage":true}}]}}"#,
                "extra_body: { stream_options: null }",
            ),
            (
                r#"{"detail":[{"loc":["body","stream_options","include_usage"],"msg":"Extra inputs are not permitted"}]}"#,
                "extra_body: { stream_options: null }",
            ),
            (
                r#"{"detail":[{"loc":["body"],"msg":"extra fields not permitted: include_usage","input":{"temperature":0.7,"max_tokens":1}}]}"#,
                "extra_body: { stream_options: { include_usage: null } }",
            ),
            // transformers serve
            (
                r#"{"detail":"Unexpected fields in the request: {'ignore_eos', 'min_tokens'}"}"#,
                "extra_body: { min_tokens: null, ignore_eos: null }",
            ),
            // Groq, Cohere, Vertex, Kimi, LiteLLM, JSON schema, Python
            (
                r#"{"error":{"message":"property 'stream_options' is unsupported"}}"#,
                "extra_body: { stream_options: null }",
            ),
            (
                r#"{"message":"unknown field: parameter 'stream_options' is not a valid field"}"#,
                "extra_body: { stream_options: null }",
            ),
            (
                r#"[{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \"stream_options\": Cannot find field.","status":"INVALID_ARGUMENT"}}]"#,
                "extra_body: { stream_options: null }",
            ),
            (
                r#"{"error":{"message":"invalid temperature: only 1 is allowed for this model","type":"invalid_request_error"}}"#,
                "extra_body: { temperature: null }",
            ),
            (
                r#"{"error":{"message":"litellm.UnsupportedParamsError: openai does not support parameters: ['temperature'], for model=o3"}}"#,
                "extra_body: { temperature: null }",
            ),
            (
                "Additional properties are not allowed ('ignore_eos' was unexpected)",
                "extra_body: { ignore_eos: null }",
            ),
            (
                r#"{"error":"SamplingParams.__init__() got an unexpected keyword argument 'min_tokens'"}"#,
                "extra_body: { min_tokens: null }",
            ),
            // Anthropic
            (
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"`temperature` may only be set to 1 when thinking is enabled."}}"#,
                "extra_body: { temperature: null }",
            ),
            (r#"{"error":"registry does not support 'tools'"}"#, "extra_body: { tools: null }"),
            // serde
            (
                "Failed to deserialize the JSON body into the target type: unknown field \
                 `stream_options`, expected one of `model`, `max_tokens`, `temperature`",
                "extra_body: { stream_options: null }",
            ),
            (
                "unknown field stream_options, expected one of model, max_tokens, temperature",
                "extra_body: { stream_options: null }",
            ),
        ];
        for (answer, expected) in cases {
            assert_eq!(line_of(&sent(), answer), expected, "{answer}");
        }
    }

    #[test]
    fn fields_are_found_in_any_wording() {
        for (said, field) in [
            ("temperature is not applicable for reasoning models", "temperature"),
            ("Please remove 'temperature'", "temperature"),
            ("temperature should be 1", "temperature"),
            ("temperature must be 1", "temperature"),
            ("this model only supports temperature=1", "temperature"),
            ("`temperature` is incompatible with thinking", "temperature"),
            ("You cannot set temperature", "temperature"),
            ("temperature is prohibited", "temperature"),
            ("Invalid value for 'temperature': expected 1", "temperature"),
            ("fixed temperature; got temperature=0.7", "temperature"),
            ("stream_options is only allowed when stream is enabled", "stream_options"),
            ("bad field: temperature", "temperature"),
            ("不支持temperature参数", "temperature"),
            ("Der Parameter „tools“ wird nicht unterstützt", "tools"),
            ("create() got an unexpected keyword argument 'stream_options'", "stream_options"),
        ] {
            let line = format!("extra_body: {{ {field}: null }}");
            assert_eq!(line_of(&sent(), said), line, "{said}");
            let answer = json!({"error": {"message": said}}).to_string();
            assert_eq!(line_of(&sent(), &answer), line, "{answer}");
        }
    }

    #[test]
    fn other_errors_name_no_field() {
        for answer in [
            "",
            "{}",
            r#"{"error":{"message":"The model `m` does not exist"}}"#,
            r#"{"error":{"message":"max_tokens is too large: 100000. This model supports at most 16384 completion tokens"}}"#,
            r#"{"message":"This model's maximum context length is 512 tokens. However, you requested 1024 output tokens (max_tokens)"}"#,
            r#"{"error":{"message":"max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens for m"}}"#,
            r#"{"message":"min_tokens must be less than or equal to max_tokens=1, got 100."}"#,
            r#"{"error":{"message":"`max_tokens` cannot be greater than 4096"}}"#,
            "max_tokens 超出范围",
            "max_tokens=1024 exceeds the limit of 512",
            r#"{"error":{"message":"`system` and `prompt` may not be empty"}}"#,
            r#"{"error":{"message":"Invalid 'max_output_tokens': integer below minimum value."}}"#,
            r#"{"error":{"message":"\"auto\" tool choice is not supported without these parameters"}}"#,
            r#"{"detail":[{"loc":["body","messages"],"msg":"Extra inputs are not permitted","input":{"temperature":1}}]}"#,
        ] {
            assert_eq!(line_of(&sent(), answer), "-", "{answer}");
        }
    }

    #[test]
    fn fields_within_maps_are_left_out_one_by_one() {
        let ollama = json!({"options": {"temperature": 0.7, "num_predict": 1}, "stream": true});
        let answer = r#"{"error":"temperature and num_predict are not supported"}"#;
        let line = line_of(&ollama, answer);
        assert_eq!(line, "extra_body: { options: { temperature: null, num_predict: null } }");
        let own = json!({"options": {"seed": 1}, "think": true});
        let fields = refused(&ollama, answer);
        assert_eq!(
            Value::Object(left_out(own.as_object().unwrap(), &fields, 9)),
            json!({"options": {"seed": 1, "temperature": null, "num_predict": null}, "think": true})
        );
    }
}
