//! The server's own words for what went wrong, in whatever shape it wraps them.
//!
//! OpenAI's `{"error": {"message": …}}` is one shape of many: gateways, FastAPI, Spring, AWS,
//! MiniMax, Baidu and PHP back ends each have their own. A document is an error by a field that
//! only errors have (`error`, `error_code`, …), whatever else is in it. `message` or `code` also
//! stand in documents that are not errors, so they count only where there is no answer.

use super::json::Json;

/// Fields that hold an error, or null, false, 0 or nothing where there is none.
const ERRORS: &[&str] =
    &["error", "errors", "Error", "ERROR", "err", "exception", "fault", "Fault"];

/// Fields that hold an error's text.
const ERROR_TEXTS: &[&str] = &[
    "error_message",
    "error_msg",
    "errorMessage",
    "errorMsg",
    "errmsg",
    "err_msg",
    "error_description",
    "error_detail",
];

/// Fields that hold an error's number or name; 0 and "success" stand for none.
const ERROR_CODES: &[&str] = &["error_code", "errorCode", "errcode", "err_code", "errno"];

/// Fields whose text says what happened: before and after those of [`ERROR_TEXTS`], the most telling
/// first.
const MESSAGES: &[&str] = &["message", "Message", "msg"];
const OTHER_TEXTS: &[&str] = &[
    "status_msg",
    "faultstring",
    "detail",
    "details",
    "description",
    "reason",
    "title",
    "text",
    "error",
    "errors",
    "raw",
];

/// All of them.
fn texts() -> impl Iterator<Item = &'static str> {
    MESSAGES.iter().chain(ERROR_TEXTS).chain(OTHER_TEXTS).copied()
}

/// Fields that hold a number or name of what happened.
const CODES: &[&str] =
    &["code", "Code", "status_code", "statusCode", "status", "type", "__type", "error_type"];

/// The error that `document` reports, whatever else it says: one of an answer's events.
pub(super) fn in_event(document: &Json<'_>) -> Option<String> {
    explicit(document).or_else(|| refused(document).then(|| described(document)))
}

/// The error that `document` is: it holds no answer, so a `message` alone is one, too.
pub(super) fn in_document(document: &Json<'_>) -> Option<String> {
    if let Json::List(documents) = document {
        return documents.iter().find_map(in_document);
    }
    in_event(document).or_else(|| implied(document))
}

/// What an error field says, if it holds an error.
pub(super) fn in_field(value: &Json<'_>) -> Option<String> {
    is_error(value).then(|| described(value))
}

/// An error by a field that only errors have.
fn explicit(document: &Json<'_>) -> Option<String> {
    for (key, value) in document.fields() {
        if ERRORS.contains(&key) && is_error(value) {
            return Some(with_context(value, document));
        }
    }
    let code = document.first(ERROR_CODES);
    let text = document.first(ERROR_TEXTS);
    let is_code = !code.is_null() && !is_success(code);
    // Some always send both, with the code of success.
    let is_text = text.str().is_some() && (code.is_null() || is_code);
    if is_code || is_text {
        return Some(described(document));
    }
    let status = document.get("base_resp");
    let is_refusal = status.find("status_code").is_some_and(|code| !is_success(code));
    is_refusal.then(|| described(status))
}

/// Whether the document says of itself that it is an error.
fn refused(document: &Json<'_>) -> bool {
    let is = |key: &str, words: &[&str]| {
        let word = document.get(key).str().map(str::to_ascii_lowercase);
        word.is_some_and(|word| words.contains(&word.as_str()))
    };
    is("type", &["error", "exception"])
        || is("object", &["error"])
        || is("event", &["error"])
        || is("status", &["error", "failed", "failure"])
        || *document.get("success") == Json::Bool(false)
        || *document.get("ok") == Json::Bool(false)
}

/// What a document without an answer complains of.
fn implied(document: &Json<'_>) -> Option<String> {
    const WORDS: &[&str] = &["message", "Message", "msg", "detail", "details", "title"];
    let code = document.first(CODES);
    if matches!(code, Json::Number(_)) && is_success(code) {
        return None;
    }
    let says = |key: &&str| {
        let value = document.get(key);
        value.str().is_some() || matches!(value, Json::List(_)) && !value.is_empty()
    };
    let is_failed = matches!(code, Json::Number(_)) && !document.get("status").is_null();
    (WORDS.iter().any(says) || is_failed).then(|| described(document))
}

/// Whether the value of an error field is one: an empty object is, as an error without words.
fn is_error(value: &Json<'_>) -> bool {
    match value {
        Json::Null | Json::Bool(false) => false,
        Json::Bool(true) | Json::Object(_) => true,
        Json::Number(_) => !is_success(value),
        Json::Text(text) => !matches!(text.as_ref(), "" | "null" | "none" | "None"),
        Json::List(items) => !items.is_empty(),
    }
}

/// Whether a code stands for success.
fn is_success(code: &Json<'_>) -> bool {
    match code {
        Json::Null | Json::Bool(false) => true,
        Json::Number(number) => matches!(number.as_f64(), Some(0.0 | 200.0..300.0)),
        Json::Text(text) => {
            let word = text.trim().to_ascii_lowercase();
            let is_number =
                word.parse().is_ok_and(|n: f64| n == 0.0 || (200.0..300.0).contains(&n));
            is_number || matches!(word.as_str(), "" | "ok" | "success" | "none" | "null")
        }
        _ => false,
    }
}

/// What an error field says, or the document around it where the field has no words.
fn with_context(error: &Json<'_>, document: &Json<'_>) -> String {
    if let Some(words) = words(error, 0) {
        return words;
    }
    let around = texts().filter(|key| !ERRORS.contains(key));
    let around = around.map(|key| document.get(key)).find_map(|value| words(value, 0));
    let whole =
        if matches!(error, Json::Object(_)) && !error.is_empty() { error } else { document };
    around.unwrap_or_else(|| whole.written())
}

/// What `error` says, or all of it where none of its fields has words.
pub(super) fn described(error: &Json<'_>) -> String {
    words(error, 0).unwrap_or_else(|| error.written())
}

/// The words in `error`: a text, that of the most telling field, or those of a list's items.
fn words(error: &Json<'_>, depth: u8) -> Option<String> {
    if depth > 8 {
        return None;
    }
    match error {
        Json::Text(text) => Some(unwrapped(text, depth)).filter(|text| !text.is_empty()),
        Json::List(items) => {
            let all: Vec<_> = items.iter().filter_map(|item| item_words(item, depth + 1)).collect();
            (!all.is_empty()).then(|| all.join("; "))
        }
        Json::Object(_) => texts().find_map(|key| words(error.get(key), depth + 1)),
        _ => None,
    }
}

/// One of several problems: FastAPI's `{"loc": ["body", "n"], "msg": …}` with its place.
fn item_words(item: &Json<'_>, depth: u8) -> Option<String> {
    let place: Vec<_> = item.get("loc").items().filter_map(Json::scalar).collect();
    match words(item, depth) {
        Some(words) if place.is_empty() => Some(words),
        Some(words) => Some(format!("{}: {words}", place.join("."))),
        None => (!item.is_empty()).then(|| item.written()),
    }
}

/// The text itself, or the words inside it where it is a JSON document.
fn unwrapped(text: &str, depth: u8) -> String {
    let trimmed = text.trim();
    let tree = trimmed.starts_with(['{', '[']).then(|| Json::parse(trimmed.as_bytes()).ok());
    let inner = tree.flatten().and_then(|tree| words(&tree, depth + 1));
    inner.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Option<String> {
        in_event(&Json::parse(text.as_bytes()).expect("JSON"))
    }

    fn document(text: &str) -> Option<String> {
        in_document(&Json::parse(text.as_bytes()).expect("JSON"))
    }

    #[test]
    fn an_error_is_seen_in_every_shape_and_says_the_servers_words() {
        for shape in [
            r#"{"error":"W"}"#,
            r#"{"error":["W"]}"#,
            r#"{"error":{"message":"W","code":500}}"#,
            r#"{"error":{"message":{"error":{"message":"W"}}}}"#,
            r#"{"error":{"message":"{\"error\":{\"message\":\"W\"}}"}}"#,
            r#"{"error":{"msg":"W"}}"#,
            r#"{"error":{"code":500,"metadata":{"raw":"x"},"detail":"W"}}"#,
            r#"{"error":true,"message":"W"}"#,
            r#"{"error":500,"msg":"W"}"#,
            r#"{"error":{},"detail":"W"}"#,
            r#"{"error":{"errors":[{"message":"W"}]}}"#,
            r#"{"errors":[{"message":"W"}]}"#,
            r#"{"errors":["W"]}"#,
            r#"{"Error":{"Message":"W"}}"#,
            r#"{"error_code":17,"error_msg":"W"}"#,
            r#"{"error_code":"50001","message":"W"}"#,
            r#"{"errcode":40001,"errmsg":"W"}"#,
            r#"{"error_message":"W"}"#,
            r#"{"errorMessage":"W"}"#,
            r#"{"base_resp":{"status_code":1002,"status_msg":"W"},"choices":null}"#,
            r#"{"type":"error","message":"W"}"#,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"W"}}"#,
            r#"{"object":"error","message":"W","code":40303}"#,
            r#"{"success":false,"msg":"W"}"#,
            r#"{"status":"error","detail":"W"}"#,
            r#"{"fault":{"faultstring":"W"}}"#,
            r#"{"error":{"description":"W"},"choices":[{"delta":{"content":"a"}}]}"#,
        ] {
            assert_eq!(event(shape).as_deref(), Some("W"), "{shape}");
        }
    }

    #[test]
    fn an_error_without_words_is_shown_whole() {
        for shape in [
            r#"{"error":500}"#,
            r#"{"error":true}"#,
            r#"{"error":{}}"#,
            r#"{"error":{"code":500}}"#,
            r#"{"error_code":17}"#,
            r#"{"type":"error"}"#,
        ] {
            let said = event(shape).unwrap_or_else(|| panic!("{shape}"));
            assert!(shape.contains(said.as_str()), "{shape}: {said}");
        }
        assert_eq!(
            event(r#"{"base_resp":{"status_code":1002}}"#).as_deref(),
            Some(r#"{"status_code":1002}"#)
        );
    }

    #[test]
    fn what_stands_for_no_error_is_not_one() {
        for shape in [
            r#"{"error":null}"#,
            r#"{"error":false}"#,
            r#"{"error":""}"#,
            r#"{"error":0}"#,
            r#"{"error":[],"errors":[]}"#,
            r#"{"error_code":0,"error_msg":"success"}"#,
            r#"{"error_code":"0","error_msg":""}"#,
            r#"{"base_resp":{"status_code":0,"status_msg":"success"}}"#,
            r#"{"code":0,"msg":"ok"}"#,
            r#"{"message":{"content":"hi"},"done":false}"#,
            r#"{"type":"message_start","status":"ok","success":true}"#,
            "[]",
            "null",
        ] {
            assert_eq!(event(shape), None, "{shape}");
        }
    }

    #[test]
    fn a_document_without_an_answer_complains_by_a_message_alone() {
        for shape in [
            r#"{"message":"W","code":400}"#,
            r#"{"msg":"W","code":400}"#,
            r#"{"detail":"W"}"#,
            r#"{"detail":[{"msg":"W"}]}"#,
            r#"{"title":"W","status":503}"#,
            r#"{"Message":"W"}"#,
            r#"[{"error":{"message":"W"}}]"#,
        ] {
            assert_eq!(document(shape).as_deref(), Some("W"), "{shape}");
        }
        let located = r#"{"detail":[{"loc":["body","n"],"msg":"bad"},{"loc":[],"msg":"worse"}]}"#;
        assert_eq!(document(located).as_deref(), Some("body.n: bad; worse"));
        assert_eq!(document(r#"{"code":0,"message":"success"}"#), None);
        assert_eq!(document(r#"{"code":200,"msg":"ok"}"#), None);
        assert_eq!(document(r#"{"id":"a","usage":{"total_tokens":1}}"#), None);
    }
}
