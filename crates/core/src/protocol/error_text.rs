//! Finds the server's error message, in whichever format the server wraps it.
//!
//! OpenAI's `{"error": {"message": …}}` is one format of many: gateways, FastAPI, Spring, AWS,
//! MiniMax, Baidu and PHP back ends have different ones. A document is an error if it has a field
//! that only errors have (`error`, `error_code`, …). `message` and `code` occur in other documents
//! too, so they indicate an error only in a document without an answer.

use super::json::JsonTree;

/// Fields with an error; null, false, 0 or empty if there is none. This list and the next two are
/// compared without regard to case, `_` and `-`.
const ERRORS: &[&str] =
    &["error", "errors", "err", "exception", "fault", "failure", "fatal", "lasterror"];

/// Suffixes of such names, as in Bedrock's `internalServerException`.
const ERROR_ENDS: &[&str] = &["Exception", "Error"];

/// Fields with the text of an error.
const ERROR_TEXTS: &[&str] = &[
    "errormessage",
    "errormsg",
    "errmsg",
    "errordescription",
    "errordetail",
    "errorinfo",
    "retmsg",
];

/// Fields with the number or the name of an error. 0 and "success" mean none.
const ERROR_CODES: &[&str] = &["errorcode", "errcode", "errno", "retcode"];

/// Fields that wrap an answer, or an error.
const WRAPPERS: &[&str] = &["response", "Response", "data", "result", "header"];

/// Fields with a description, before and after those of [`ERROR_TEXTS`], the most specific first.
const MESSAGES: &[&str] = &["message", "Message", "msg", "Msg"];
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

/// Fields next to a short text that have more details. A gateway's "Provider returned error" has
/// the provider's message there.
const CAUSES: &[&str] = &["metadata", "cause", "innererror", "inner_error", "data"];

/// Fields with a status number or name.
const CODES: &[&str] =
    &["code", "Code", "status_code", "statusCode", "status", "type", "__type", "error_type"];

/// Fields with the kind of a document.
const LABELS: &[&str] = &["type", "__type", "status", "event", "object", "state", "error_type"];

/// Parts of the names of errors.
const FAILING: &[&str] = &[
    "err",
    "exception",
    "fail",
    "invalid",
    "denied",
    "unauthorized",
    "forbidden",
    "timeout",
    "limit",
    "exceed",
    "overload",
    "unavailable",
    "abort",
    "reject",
    "exhausted",
    "throttl",
    "not_found",
];

/// Returns the error in an event of an answer, next to other contents.
pub(super) fn in_event(document: &JsonTree<'_>) -> Option<String> {
    explicit(document)
        .or_else(|| WRAPPERS.iter().find_map(|key| wrapped(document.get(key), key)))
        .or_else(|| refused(document).then(|| described(document)))
}

/// Returns the error of an event without contents. A `message` is an error too, unless the event
/// declares another type.
pub(super) fn in_document(document: &JsonTree<'_>) -> Option<String> {
    if let JsonTree::List(documents) = document {
        return documents.iter().find_map(in_document);
    }
    in_event(document).or_else(|| implied(document).filter(|_| complains(document)))
}

/// Returns the error of `body`, a complete response.
pub(super) fn in_body(body: &JsonTree<'_>) -> Option<String> {
    if let JsonTree::List(documents) = body {
        return documents.iter().find_map(in_body);
    }
    in_event(body).or_else(|| implied(body))
}

/// Returns the text of an event with the name of an error.
pub(super) fn in_error_event(event: &JsonTree<'_>) -> Option<String> {
    in_body(event)
        .or_else(|| words(event, 0))
        .filter(|text| !is_success(&JsonTree::Text(text.into())))
}

/// Returns the text of an error field, if it contains an error.
pub(super) fn in_field(value: &JsonTree<'_>) -> Option<String> {
    is_error(value).then(|| described(value))
}

/// Returns whether `key` is one of `names`, which are in lower case without `_`.
fn is_of(key: &str, names: &[&str]) -> bool {
    let bare = || key.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
    names.iter().any(|name| bare().map(|byte| byte.to_ascii_lowercase()).eq(name.bytes()))
}

/// Returns an error that has a field of errors.
fn explicit(document: &JsonTree<'_>) -> Option<String> {
    let (mut code, mut text) = (None, None);
    for (key, value) in document.fields() {
        // Nearly all keys have another first letter.
        let may_be = key.starts_with(['e', 'E', 'f', 'F', 'r', 'R', 'l', 'L']);
        if may_be && is_of(key, ERRORS) && is_error(value) {
            return Some(with_context(value, document));
        }
        let is_named = ERROR_ENDS.iter().any(|end| key.ends_with(end));
        if is_named && (is_error(value) && value.str().is_some() || is_failure(value)) {
            return Some(with_context(value, document));
        }
        if may_be && is_of(key, ERROR_CODES) && !value.is_null() {
            code = Some(value);
        }
        if may_be && is_of(key, ERROR_TEXTS) && (value.str().is_some() || is_failure(value)) {
            text = Some(value);
        }
    }
    let is_code = code.is_some_and(|code| !is_success(code));
    // Some servers always send both fields, with a code of success.
    let is_text = text.is_some_and(|text| !is_success(text)) && (code.is_none() || is_code);
    if is_code || is_text {
        return Some(described(document));
    }
    let status = document.get("base_resp");
    let is_refusal = status.find("status_code").is_some_and(|code| !is_success(code));
    is_refusal.then(|| described(status))
}

/// Returns whether the value of a field named as an error is one: an object with contents.
fn is_failure(value: &JsonTree<'_>) -> bool {
    matches!(value, JsonTree::Object(_)) && !value.is_empty() && is_error(value)
}

/// Returns an error in the field `key` that wraps an answer. There, a code and a message suffice.
fn wrapped(inner: &JsonTree<'_>, key: &str) -> Option<String> {
    let JsonTree::Object(_) = inner else { return None };
    let code = inner.first(&["code", "Code", "status_code"]);
    let is_refusal = || {
        matches!(key, "header" | "result")
            && matches!(code, JsonTree::Number(_))
            && !is_success(code)
            && MESSAGES.iter().any(|key| inner.get(key).str().is_some())
    };
    explicit(inner).or_else(|| is_refusal().then(|| described(inner)))
}

/// Returns whether the document declares itself an error.
fn refused(document: &JsonTree<'_>) -> bool {
    let is = |key: &str, words: &[&str]| {
        let word = document.get(key).str();
        word.is_some_and(|word| words.iter().any(|other| word.eq_ignore_ascii_case(other)))
    };
    is("type", &["error", "exception"])
        || is("object", &["error"])
        || is("event", &["error"])
        || is("status", &["error", "failed", "failure"])
        || *document.get("success") == JsonTree::Bool(false)
        || *document.get("ok") == JsonTree::Bool(false)
}

/// Returns the message of a document without an answer, if it may be a complaint.
fn implied(document: &JsonTree<'_>) -> Option<String> {
    const WORDS: &[&str] = &["message", "Message", "msg", "detail", "details", "title"];
    let code = document.first(CODES);
    if matches!(code, JsonTree::Number(_)) && is_success(code) {
        return None;
    }
    let is_complaint = |key: &&str| {
        let value = document.get(key);
        value.str().is_some() || matches!(value, JsonTree::List(_)) && !value.is_empty()
    };
    let is_failed = matches!(code, JsonTree::Number(_)) && !document.get("status").is_null();
    (WORDS.iter().any(is_complaint) || is_failed).then(|| described(document))
}

/// Returns whether the message of an event is a complaint: the event has a code of failure,
/// declares itself an error, or has nothing but a message. An event with another type, such as
/// `{"type": "status", "message": "thinking"}`, or with token counts is not a complaint.
fn complains(document: &JsonTree<'_>) -> bool {
    let mut codes = CODES.iter().map(|key| document.get(key));
    if codes.any(|code| matches!(code, JsonTree::Number(_)) && !is_success(code)) {
        return true;
    }
    let is_failing = |text: &str| {
        let text = text.to_ascii_lowercase();
        FAILING.iter().any(|word| text.contains(word))
    };
    let mut labels = LABELS.iter().filter_map(|key| document.get(key).str()).peekable();
    let is_labelled = labels.peek().is_some();
    let names = ["code", "Code"].map(|key| document.get(key));
    let is_named = names.iter().any(|name| name.str().is_some() && !is_success(name));
    let is_complaint =
        ["message", "Message", "msg", "detail"].iter().any(|key| !document.get(key).is_empty());
    is_named
        || labels.any(is_failing)
        || !is_labelled && is_complaint && document.get("usage").is_empty()
}

/// Returns whether the value of an error field is an error. An empty object is one without a text.
/// An object whose fields all mean success is not.
fn is_error(value: &JsonTree<'_>) -> bool {
    match value {
        JsonTree::Null | JsonTree::Bool(false) => false,
        JsonTree::Bool(true) => true,
        JsonTree::Number(_) => !is_success(value),
        JsonTree::Text(_) => !is_success(value),
        JsonTree::List(items) => items.iter().any(is_error),
        JsonTree::Object(fields) => fields.is_empty() || !is_nothing(value),
    }
}

/// Returns whether `value` and its contents are empty or mean success.
fn is_nothing(value: &JsonTree<'_>) -> bool {
    match value {
        JsonTree::List(items) => items.iter().all(is_nothing),
        JsonTree::Object(fields) => fields.iter().all(|(_, value)| is_nothing(value)),
        _ => is_success(value),
    }
}

/// Returns whether a code means success.
fn is_success(code: &JsonTree<'_>) -> bool {
    /// Texts that mean success.
    const WORDS: &[&str] = &[
        "ok",
        "success",
        "succeeded",
        "none",
        "null",
        "nil",
        "undefined",
        "false",
        "no",
        "no error",
    ];
    match code {
        JsonTree::Null | JsonTree::Bool(false) => true,
        JsonTree::Number(number) => matches!(number.as_f64(), Some(0.0 | 200.0..300.0)),
        JsonTree::Text(text) => {
            let word = text.trim();
            let is_number =
                word.parse().is_ok_and(|n: f64| n == 0.0 || (200.0..300.0).contains(&n));
            text.is_empty()
                || is_number
                || WORDS.iter().any(|other| word.eq_ignore_ascii_case(other))
        }
        _ => false,
    }
}

/// Returns the text of an error field. If it is short, the text of the surrounding document is
/// added: frameworks write `{"error": "Bad Request", "message": …}`.
fn with_context(error: &JsonTree<'_>, document: &JsonTree<'_>) -> String {
    let inside = words(error, 0);
    if let (Some(words), JsonTree::Object(_) | JsonTree::List(_)) = (&inside, error) {
        return words.clone();
    }
    let is_short = |value: &JsonTree<'_>| !std::ptr::eq(value, error);
    let keys = MESSAGES.iter().chain(OTHER_TEXTS).filter(|key| !is_of(key, &["error", "text"]));
    let near = error_texts(document).chain(keys.map(|key| document.get(key)));
    let around = near.filter(|value| is_short(value)).find_map(|value| words(value, 0));
    let whole =
        if matches!(error, JsonTree::Object(_)) && !error.is_empty() { error } else { document };
    match (inside, around) {
        (Some(short), Some(long)) => both(short, long),
        (Some(words), None) | (None, Some(words)) => words,
        (None, None) => whole.written(),
    }
}

/// Returns both texts, or only the longer text if it contains the other.
fn both(first: String, second: String) -> String {
    match (first.contains(&second), second.contains(&first)) {
        (true, _) => first,
        (_, true) => second,
        _ => format!("{first}: {second}"),
    }
}

/// Returns the values of the fields in [`ERROR_TEXTS`].
fn error_texts<'d, 'a>(document: &'d JsonTree<'a>) -> impl Iterator<Item = &'d JsonTree<'a>> {
    document.fields().filter(|(key, _)| is_of(key, ERROR_TEXTS)).map(|(_, value)| value)
}

/// Returns the text of `error`, or the whole document if no field has a text.
pub(super) fn described(error: &JsonTree<'_>) -> String {
    words(error, 0).unwrap_or_else(|| error.written())
}

/// Returns the text in `error`: a string, the most specific field, or the texts of a list's items.
fn words(error: &JsonTree<'_>, depth: u8) -> Option<String> {
    if depth > 8 {
        return None;
    }
    match error {
        JsonTree::Text(text) => Some(unwrapped(text, depth)).filter(|text| !text.is_empty()),
        JsonTree::List(items) => {
            let all: Vec<_> = items.iter().filter_map(|item| item_words(item, depth + 1)).collect();
            (!all.is_empty()).then(|| all.join("; "))
        }
        JsonTree::Object(_) => {
            let first = MESSAGES.iter().map(|key| error.get(key));
            let others = OTHER_TEXTS.iter().map(|key| error.get(key));
            let nested =
                error.fields().filter(|(key, _)| is_of(key, ERRORS)).map(|(_, value)| value);
            let mut text = first.chain(error_texts(error)).chain(others).chain(nested);
            let text = text.find_map(|value| words(value, depth + 1));
            let cause = CAUSES.iter().find_map(|key| words(error.get(key), depth + 1));
            match (text, cause) {
                (Some(text), Some(cause)) => Some(both(text, cause)),
                (text, cause) => text.or(cause),
            }
        }
        _ => None,
    }
}

/// Returns the text of one of several problems, such as FastAPI's `{"loc": ["body", "n"], "msg":
/// …}`, with its location.
fn item_words(item: &JsonTree<'_>, depth: u8) -> Option<String> {
    let place: Vec<_> = item.get("loc").items().filter_map(JsonTree::scalar).collect();
    match words(item, depth) {
        Some(words) if place.is_empty() => Some(words),
        Some(words) => Some(format!("{}: {words}", place.join("."))),
        None => (!item.is_empty()).then(|| item.written()),
    }
}

/// Returns the text, or the text within it if it is a JSON document.
fn unwrapped(text: &str, depth: u8) -> String {
    let trimmed = text.trim();
    let tree = trimmed.starts_with(['{', '[']).then(|| JsonTree::parse(trimmed.as_bytes()).ok());
    let inner = tree.flatten().and_then(|tree| words(&tree, depth + 1));
    inner.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Option<String> {
        in_event(&JsonTree::parse(text.as_bytes()).expect("JSON"))
    }

    fn document(text: &str) -> Option<String> {
        in_document(&JsonTree::parse(text.as_bytes()).expect("JSON"))
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
            r#"{"error":{"code":500,"metadata":{"raw":""},"detail":"W"}}"#,
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
            r#"{"internalServerException":{"message":"W"}}"#,
            r#"{"modelStreamErrorException":{"message":"W","originalStatusCode":500}}"#,
            r#"{"throttlingException":{"message":"W"}}"#,
            r#"{"validationException":"W"}"#,
            r#"{"ErrorMsg":{"Msg":"W","Code":4001}}"#,
            r#"{"Response":{"Error":{"Code":"LimitExceeded","Message":"W"},"RequestId":"x"}}"#,
            r#"{"header":{"code":10013,"message":"W","sid":"x"}}"#,
            r#"{"ErrorCode":4,"ErrorMsg":"W"}"#,
            r#"{"retcode":-1,"retmsg":"W"}"#,
            r#"{"data":{"error":"W"}}"#,
            r#"{"response":{"error":{"message":"W"}}}"#,
            r#"{"failure":"W"}"#,
            r#"{"last_error":{"message":"W"}}"#,
        ] {
            assert_eq!(event(shape).as_deref(), Some("W"), "{shape}");
        }
    }

    #[test]
    fn a_short_error_is_completed_by_the_text_around_it() {
        for (shape, text) in [
            (r#"{"statusCode":400,"message":"W","error":"Bad Request"}"#, "Bad Request: W"),
            (
                r#"{"status":500,"error":"Internal Server Error","message":"W"}"#,
                "Internal Server Error: W",
            ),
            (r#"{"error":"invalid_token","error_description":"W"}"#, "invalid_token: W"),
            (r#"{"error":"E1001","detail":"W"}"#, "E1001: W"),
            (r#"{"error":"E1001","reason":"W"}"#, "E1001: W"),
            (r#"{"error":"Bad","errors":[{"message":"W"},{"message":"V"}]}"#, "Bad: W; V"),
            (r#"{"error":"the W","message":"W"}"#, "the W"),
            (
                r#"{"error":{"message":"Provider returned error","metadata":{"raw":"{\"error\":{\"message\":\"W\"}}"}}}"#,
                "Provider returned error: W",
            ),
            (r#"{"error":{"message":"M","cause":"W"}}"#, "M: W"),
            (r#"{"error":{"message":"M","innererror":{"message":"W"}}}"#, "M: W"),
            (r#"{"error":{"message":"M","innererror":{"code":"X"}}}"#, "M"),
            (r#"{"error":{"message":"","innererror":{"message":"W"}}}"#, "W"),
            (r#"{"error":{"name":"N","cause":{"message":"W"}}}"#, "W"),
            (r#"{"error":"W","error_type":"generation"}"#, "W"),
        ] {
            assert_eq!(event(shape).as_deref(), Some(text), "{shape}");
        }
    }

    #[test]
    fn an_event_is_a_complaint_where_it_does_not_call_itself_something_else() {
        for shape in [
            r#"{"type":"status","message":"Thinking"}"#,
            r#"{"type":"heartbeat","message":"alive"}"#,
            r#"{"status":"queued","msg":"waiting in queue"}"#,
            r#"{"status":"processing","message":"queued"}"#,
            r#"{"type":"title_generation","title":"Greeting"}"#,
            r#"{"type":"suggestions","details":["a","b"]}"#,
            r#"{"choices":[],"usage":{"completion_tokens":8},"message":"request completed"}"#,
            r#"{"choices":[],"usage":{"completion_tokens":8},"title":"x","details":"y"}"#,
            r#"{"object":"chat.title","title":"A page"}"#,
        ] {
            assert_eq!(document(shape), None, "{shape}");
        }
        for shape in [
            r#"{"type":"invalid_request_error","message":"W"}"#,
            r#"{"type":"status","code":503,"message":"W"}"#,
            r#"{"code":"InvalidParameter","message":"W","request_id":"x"}"#,
            r#"{"status":"timeout","message":"W"}"#,
            r#"{"message":"W","usage":{"completion_tokens":8},"code":500}"#,
        ] {
            assert_eq!(document(shape).as_deref(), Some("W"), "{shape}");
        }
        // As a whole body it is an error, whatever type it declares.
        let body = in_body(&JsonTree::parse(br#"{"type":"status","message":"W"}"#).expect("JSON"));
        assert_eq!(body.as_deref(), Some("W"));
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
            let text = event(shape).unwrap_or_else(|| panic!("{shape}"));
            assert!(shape.contains(text.as_str()), "{shape}: {text}");
        }
        assert_eq!(
            event(r#"{"base_resp":{"status_code":1002}}"#).as_deref(),
            Some(r#"{"status_code":1002}"#)
        );
    }

    #[test]
    fn values_that_mean_success_are_not_errors() {
        for shape in [
            r#"{"error":null}"#,
            r#"{"error":false}"#,
            r#"{"error":""}"#,
            r#"{"error":0}"#,
            r#"{"error":[],"errors":[]}"#,
            r#"{"error_code":0,"error_msg":"success"}"#,
            r#"{"error_code":"0","error_msg":""}"#,
            r#"{"base_resp":{"status_code":0,"status_msg":"success"}}"#,
            r#"{"error":{"message":"","type":"","param":"","code":null}}"#,
            r#"{"error":{"code":0,"message":""}}"#,
            r#"{"error":{"code":0,"message":"OK"}}"#,
            r#"{"error":{"code":"200","message":"Success","details":[]}}"#,
            r#"{"error":"success"}"#,
            r#"{"error":"0"}"#,
            r#"{"error":"false"}"#,
            r#"{"errmsg":"ok"}"#,
            r#"{"error_msg":"success"}"#,
            r#"{"data":{"error":null},"header":{"code":0,"message":"Success"}}"#,
            r#"{"response":{"error":null,"status":"in_progress"},"noError":true}"#,
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
