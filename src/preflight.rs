//! Checks each endpoint before the first trial, so that an error of the config shows before minutes
//! are spent.
//!
//! Each endpoint gets a request for one token with the fields of its trials. That checks port,
//! certificate, path, key and model. If the endpoint refuses it, fields of the user's `extra_body`
//! may demand a longer answer, and the request is repeated with the limit of the trials. If that is
//! refused too, the list of models tells a wrong path from a wrong model.

mod fields;

use std::{collections::HashMap, sync::Arc, time::Duration};

use llm_stream_client::connect_options::THROUGH;
use llm_stream_core::{
    prompt::{self, AnswerLength, Prompt},
    protocol::{self, Protocol},
    recording::{ErrorKind, Recording, RequestError},
    sample,
};
use serde_json::Value;

use crate::{
    config::{list, nearest},
    plan::{Case, Endpoint, Target, Task, Timeouts},
};

/// Timeout of the request. A busy server, or a server that still loads its model, may take longer and is
/// not a failure.
const PATIENCE: Duration = Duration::from_secs(15);

/// Limit of the model names in a message.
const NAMED: usize = 5;

/// Limit of a model name in a message, in characters.
const LONGEST: usize = 80;

pub(crate) use self::fields::{Field, left_out, refused};

/// A fault of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    /// The error that its trials would have.
    pub(crate) error: RequestError,
    /// Whether they certainly would. Otherwise the fault may have passed by then.
    pub(crate) is_certain: bool,
}

/// A preflight request, with the fields of some of the trials.
#[derive(Debug)]
pub(crate) struct Question {
    /// The prompt, with the fields of the trials' requests.
    pub(crate) prompt: Prompt,
    /// The prompts whose requests have these fields.
    pub(crate) of: Vec<Arc<Prompt>>,
}

/// Returns the requests that cover every field of the requests of `cases` to `target`: one for each
/// combination of fields.
pub(crate) fn questions(target: &Target, cases: &[Arc<Case>]) -> Vec<Question> {
    let mut questions: Vec<Question> = Vec::new();
    let mut places: HashMap<_, usize> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for case in cases.iter().filter(|case| std::ptr::eq(Arc::as_ptr(&case.target), target)) {
        let prompts = match &case.task {
            Task::Prompt(prompt) => std::slice::from_ref(prompt),
            Task::Workload(workload) => &workload.prompts,
        };
        for prompt in prompts.iter().filter(|prompt| seen.insert(Arc::as_ptr(prompt))) {
            let tools = prompt.tools.over(&target.tools);
            let fields = (
                target.ignore_eos.unwrap_or(prompt.output.ignore_eos),
                prompt.output.min_tokens.is_some(),
                !tools.offered().is_empty(),
                tools.chosen().is_some(),
            );
            let place = *places.entry(fields).or_insert_with(|| {
                let AnswerLength { tokens, range, min_tokens, ignore_eos } = prompt.output;
                let output = AnswerLength { tokens, range, min_tokens, ignore_eos };
                let warm_up = prompt::warm_up().with_tools(&prompt.tools);
                questions.push(Question { prompt: Prompt { output, ..warm_up }, of: Vec::new() });
                questions.len() - 1
            });
            questions[place].of.push(prompt.clone());
        }
    }
    questions
}

/// Limits the `timeouts` of a model to those of the preflight.
pub(crate) fn timeouts(timeouts: Timeouts) -> Timeouts {
    Timeouts {
        connect: timeouts.connect.min(PATIENCE),
        first_token: timeouts.first_token.min(PATIENCE),
        inter_token: timeouts.inter_token.min(PATIENCE),
        total: timeouts.total.min(PATIENCE),
    }
}

impl Finding {
    /// Whether the server's message is about a model: some servers answer 404 for an unknown model.
    /// A path such as `/v1/models` does not count.
    pub(crate) fn speaks_of_a_model(&self) -> bool {
        let message = self.without_default_hint().to_lowercase();
        let is_path = |word: &&str| word.starts_with('/') || word.contains("://");
        let mut words = message
            .split(|ch: char| ch.is_whitespace() || "\"'`<>()[]{}=,".contains(ch))
            .filter(|word| !is_path(word));
        words.any(|word| word.contains("model"))
    }

    /// Replaces the default hint of the status with a more likely `hint`.
    #[must_use]
    pub(crate) fn with(mut self, hint: Option<String>) -> Self {
        if let Some(hint) = hint {
            self.error.message = format!("{}; {hint}", self.without_default_hint());
        }
        self
    }

    /// The message without the default hint of the status.
    fn without_default_hint(&self) -> &str {
        let message = self.error.message.as_str();
        let hints = [sample::NOT_FOUND_HINT, sample::KEY_HINT, sample::BEARER_HINT];
        hints.iter().find_map(|hint| message.strip_suffix(hint)).unwrap_or(message)
    }
}

/// Returns what a failed request to `target` for one token means for the trials; `status` is the
/// status of the answer.
///
/// An answer that began is not a fault: a single token may have no text, and an answer cut to that
/// length may have no proper end.
pub(crate) fn finding(
    target: &Target,
    error: RequestError,
    status: Option<u16>,
) -> Option<Finding> {
    use ErrorKind as Kind;
    let is_certain = match error.kind {
        Kind::NoToken if status.is_some_and(|status| (200..300).contains(&status)) => return None,
        Kind::NoFinishReason | Kind::InterTokenTimeout | Kind::TotalTimeout | Kind::Interrupted => {
            return None;
        }
        Kind::HttpStatus => status.is_some_and(|status| !may_pass(status)),
        Kind::FirstTokenTimeout | Kind::Broken | Kind::InBand => false,
        _ => true,
    };
    let message = match status {
        None if error.kind == Kind::Broken => {
            format!("{}{}", error.message, maybe_tls(target, &error))
        }
        _ => explained(target, &error),
    };
    Some(Finding { error: RequestError { message, ..error }, is_certain })
}

/// Returns a hint for a connection that closed without an answer: many servers that speak TLS close
/// it when they read something else.
fn maybe_tls(target: &Target, error: &RequestError) -> &'static str {
    let is_plain = matches!(&target.endpoint, Endpoint::Url(_)) && !target.is_over_tls();
    let is_read = error.message.starts_with("the answer cannot be read");
    match is_plain && !is_read && !error.message.contains("https://") {
        true => " (or `https://` in `base_url`, if it speaks TLS there)",
        false => "",
    }
}

/// Describes the error and its possible cause.
fn explained(target: &Target, error: &RequestError) -> String {
    let message = &error.message;
    match error.kind {
        ErrorKind::FirstTokenTimeout => {
            let patience = timeouts(target.timeouts).first_token;
            format!("no token within {patience:?}: the server is busy, or still loads the model")
        }
        // Errors of a proxy have their own hint.
        ErrorKind::Connect | ErrorKind::ConnectTimeout if message.contains(THROUGH) => {
            message.clone()
        }
        // For unix sockets, the system's reason is more precise.
        ErrorKind::Connect if !message.contains("unix://") => {
            format!("{message}; is the server running there?")
        }
        ErrorKind::ConnectTimeout => format!(
            "{message}; is that its host and port, and `https://` only if it speaks TLS there?"
        ),
        _ => message.clone(),
    }
}

/// Whether the server may answer otherwise a minute later.
fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500..)
}

/// Whether `status` may be a refusal of a field that the answer names: some servers use 404, 500 or
/// 501.
pub(crate) const fn may_refuse_fields(status: u16) -> bool {
    matches!(status, 400 | 402..=406 | 410..=428 | 430..=501)
}

/// Returns the hint if a request without `fields` succeeded. `counts` says whether the answer had a
/// usage, if it was long enough to have one.
pub(crate) fn without(fields: &[Field], target: &Target, counts: Option<bool>) -> String {
    let usage = match counts {
        Some(true) => "",
        Some(false) => ", and `token_count: chunks`, since it then counts no tokens",
        None if fields.iter().any(Field::is_about_usage) => {
            ", and `token_count: chunks` if it then counts no tokens"
        }
        None => "",
    };
    format!("it answers with `{}`{usage}", fields::line(fields, target.max_tokens))
}

/// A URL that may serve a protocol, and the config for it.
#[derive(Debug, Clone)]
pub(crate) struct Elsewhere {
    /// The protocol.
    pub(crate) protocol: &'static dyn Protocol,
    /// The URL of its requests.
    pub(crate) url: String,
    hint: String,
}

/// Returns URLs on the server of `url` that may serve a protocol if `url` does not serve
/// `target`'s: at the same base URL or at the protocol's usual path, never on another host.
pub(crate) fn elsewhere(target: &Target, url: &str) -> Vec<Elsewhere> {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    let Some(base) = path.strip_suffix(target.protocol.path()) else { return Vec::new() };
    let origin = origin(path).unwrap_or(base);
    let mut places: Vec<Elsewhere> = Vec::new();
    for protocol in protocol::ALL {
        // The same base URL, the protocol's usual path, and the root.
        let usual = format!("{origin}{}", protocol.prefix());
        for place in [base, &usual, origin] {
            let other = format!("{place}{}{query}", protocol.path());
            if other == url || places.iter().any(|known| known.url == other) {
                continue;
            }
            let hint = hint_for(target, *protocol, (base, place, origin));
            places.push(Elsewhere { protocol: *protocol, url: other, hint });
        }
    }
    places
}

/// Returns the config lines for `protocol` at `place`; `target`'s requests go to `base`.
fn hint_for(
    target: &Target,
    protocol: &'static dyn Protocol,
    (base, place, origin): (&str, &str, &str),
) -> String {
    let own = target.protocol;
    let prefix = protocol.prefix();
    let written = match place.strip_prefix(origin) {
        Some(path) if path == prefix => target.base_url_of(origin),
        // An empty path would get the prefix.
        Some("") => target.base_url_of(&format!("{origin}{}", protocol.path())),
        _ => target.base_url_of(place),
    };
    let is_whole = place == origin && !prefix.is_empty();
    let is_same_base = place == base && prefix == own.prefix() && !is_whole;
    match (protocol.name() == own.name(), is_same_base) {
        (true, _) => format!("`base_url: \"{written}\"`"),
        (false, true) => format!("`protocol: {}`", protocol.name()),
        (false, false) => format!("`protocol: {}` with `base_url: \"{written}\"`", protocol.name()),
    }
}

/// A body that is not a request of any protocol, so that servers generate nothing.
pub(crate) const NO_REQUEST: &[u8] = b"[]";

/// Whether `protocol` is probably served where [`NO_REQUEST`] gets this `answer`. A web page does
/// not count, and an answer with a status of success must be a stream or an error.
pub(crate) fn is_there(answer: &Recording, protocol: &dyn Protocol) -> bool {
    let body = answer.body();
    let says = |kind: &str| answer.content_type.as_deref().is_some_and(|own| own.contains(kind));
    let is_page = says("text/html") || body.trim_ascii_start().starts_with(b"<");
    match answer.status {
        300..400 | 404 | 405 | 501.. => false,
        200..300 => {
            let is_stream = says("event-stream") || says("ndjson");
            !is_page && (is_stream || protocol.decode_error(&body).is_some())
        }
        _ => !is_page,
    }
}

/// Returns the hint if the path of `target`'s protocol does not exist and the URLs in `found`
/// answer.
pub(crate) fn nothing_there(target: &Target, url: &str, found: &[Elsewhere]) -> String {
    let path_of = |url: &str| {
        let path = url.split('?').next().unwrap_or_default();
        path[origin(path).map_or(0, str::len)..].to_owned()
    };
    let own = target.protocol.name();
    let nothing = format!("nothing is at {}, the path of `{own}`", path_of(url));
    let answers: Vec<_> = found
        .iter()
        .map(|place| format!("{} answers: {}?", path_of(&place.url), place.hint))
        .collect();
    match answers.is_empty() {
        true => nothing,
        false => format!("{nothing}; {}", answers.join(" ")),
    }
}

/// Returns scheme, host and port of a URL.
fn origin(url: &str) -> Option<&str> {
    let host = url.find("://")? + "://".len();
    let end = url[host..].find('/').map_or(url.len(), |slash| host + slash);
    Some(&url[..end])
}

/// Whether the server's list of models can explain `finding`.
pub(crate) fn is_about_path_or_model(finding: &Finding, status: Option<u16>) -> bool {
    matches!(status, Some(400 | 404 | 405 | 422 | 501))
        || finding.error.kind == ErrorKind::NotAStream
}

/// Returns the URLs of the list of models: next to the path of requests, then the usual one.
pub(crate) fn model_lists(url: &str, protocol: &dyn Protocol) -> Vec<String> {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    let list = match protocol.name() {
        "ollama_chat" => "/api/tags",
        _ => "/models",
    };
    let sibling = path.strip_suffix(protocol.path()).map(|base| format!("{base}{list}"));
    let usual = origin(path).map(|origin| format!("{origin}/v1/models"));
    let mut lists: Vec<_> = sibling.into_iter().chain(usual).collect();
    lists.dedup();
    lists.into_iter().map(|list| list + &query).collect()
}

/// `path` where the path of `protocol` is in `url`.
pub(crate) fn root_url(url: &str, protocol: &dyn Protocol, path: &str) -> String {
    let bare = url.split('?').next().unwrap_or_default();
    format!("{}{path}", bare.strip_suffix(protocol.path()).unwrap_or(bare))
}

/// Parses the names in a list of models: OpenAI's `data`, Ollama's and llama.cpp's `models`. `None`
/// if `answer` is not such a list.
pub(crate) fn models(answer: &Recording) -> Option<Vec<String>> {
    let is_whole = answer.broken.as_ref().is_none_or(|end| end.kind == ErrorKind::LeftOpen);
    if is_whole { models_in(answer.status, &answer.body()) } else { None }
}

/// As [`models`], for a whole answer.
pub(crate) fn models_in(status: u16, body: &[u8]) -> Option<Vec<String>> {
    if status != 200 {
        return None;
    }
    let document: Value = serde_json::from_slice(body).ok()?;
    let models = ["data", "models"].iter().find_map(|key| document.get(*key)?.as_array())?;
    let name = |model: &Value| {
        let name = ["id", "name", "model"].iter().find_map(|key| model.get(*key)?.as_str())?;
        Some(name.chars().filter(|c| !c.is_control()).take(LONGEST).collect())
    };
    Some(models.iter().filter_map(name).collect())
}

/// Returns the hint that the lists of models, requested from `asked`, give.
pub(crate) fn hint(
    target: &Target,
    asked: &[String],
    found: &[Option<Vec<String>>],
) -> Option<String> {
    let place = found.iter().position(Option::is_some)?;
    let (url, models) = (asked.get(place)?, found[place].as_ref()?);
    // Adding `/v1` does not fix protocols outside `/v1`.
    if place > 0 && target.protocol.prefix() == "/v1" {
        let url = url.split('?').next().unwrap_or_default();
        let url = target.base_url_of(url);
        let base = url.trim_end_matches("/models");
        return Some(format!("the server lists models at {url}: `base_url: \"{base}\"`?"));
    }
    // In Ollama, a name without a tag means the tag `latest`.
    let is_it = |name: &String| {
        *name == target.model || name.strip_suffix(":latest") == Some(target.model.as_str())
    };
    Some(match models.iter().any(is_it) {
        true => format!(
            "it lists the model `{}`, so that it seems not to speak `protocol: {}`",
            target.model,
            target.protocol.name()
        ),
        false => other_models(&target.model, models),
    })
}

/// Describes a server's models, which do not include `wanted`.
fn other_models(wanted: &str, models: &[String]) -> String {
    let names: Vec<&str> = models.iter().map(String::as_str).collect();
    let meant = match names.as_slice() {
        [] => return "it lists no model".to_owned(),
        [only] => Some(*only),
        names => nearest(wanted, names.iter().copied()),
    };
    let meant = meant.map(|name| format!(": `model_name: \"{name}\"`?")).unwrap_or_default();
    let (shown, more) = names.split_at(names.len().min(NAMED));
    match more.len() {
        0 => format!("its models are {}, not `{wanted}`{meant}", list(shown)),
        more => format!("its models are {} and {more} more, not `{wanted}`{meant}", list(shown)),
    }
}
