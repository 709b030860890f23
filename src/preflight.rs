//! Before the first trial: is there an endpoint that could answer? What is wrong with a config is
//! better known before minutes are spent.
//!
//! Each endpoint is asked for one token, in the way in which its trials will ask: that meets the
//! port, the certificate, the path, the key and the model. When it refuses the one token, fields of the
//! user's own may demand more, and it is asked for the length of the trials. When it refuses that too,
//! its list of models tells a wrong path from a wrong model.

use std::time::Duration;

use serde_json::Value;

use crate::{
    config::{list, nearest},
    plan::{Endpoint, Target, Timeouts},
    protocol::Protocol,
    recording::{ErrorKind, Recording, RequestError},
    route::THROUGH,
    sample,
};

/// How long an endpoint has for its one token. A server that is busy, or still loads its model,
/// takes longer and is none the worse.
const PATIENCE: Duration = Duration::from_secs(15);

/// Most models of a server that are named.
const NAMED: usize = 5;

/// Longest name of a model that is shown, characters.
const LONGEST: usize = 80;

/// What is wrong with an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What its trials would meet.
    pub error: RequestError,
    /// Whether they would meet it for certain. If not, it may have passed by then.
    pub is_certain: bool,
}

/// When to give up asking, of a model with these `timeouts`.
pub fn timeouts(timeouts: Timeouts) -> Timeouts {
    Timeouts {
        connect: timeouts.connect.min(PATIENCE),
        first_token: timeouts.first_token.min(PATIENCE),
        inter_token: timeouts.inter_token.min(PATIENCE),
        total: timeouts.total.min(PATIENCE),
    }
}

impl Finding {
    /// The same with the likely `mend`, in the place of what a status alone suggests.
    #[must_use]
    pub fn with(mut self, mend: Option<String>) -> Self {
        if let Some(mend) = mend {
            let message = self.error.message.replace(sample::NOT_FOUND_HINT, "");
            self.error.message = format!("{message}; {mend}");
        }
        self
    }
}

/// What a failed request to `target` for one token says of the trials; `status` is that of the answer.
///
/// An answer that began is well: that one token may be no text, and an answer that long may not
/// have a proper end, is no fault.
pub fn finding(target: &Target, error: RequestError, status: Option<u16>) -> Option<Finding> {
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
        _ => explained(&error),
    };
    Some(Finding { error: RequestError { message, ..error }, is_certain })
}

/// What a connection may come from that broke without an answer: many servers that speak TLS just close
/// one on which they hear something else.
fn maybe_tls(target: &Target, error: &RequestError) -> &'static str {
    let is_plain = matches!(&target.endpoint, Endpoint::Url(_)) && !target.is_over_tls();
    let is_read = error.message.starts_with("the answer cannot be read");
    match is_plain && !is_read && !error.message.contains("https://") {
        true => " (or `https://` in `base_url`, if it speaks TLS there)",
        false => "",
    }
}

/// What went wrong, and what it may come from.
fn explained(error: &RequestError) -> String {
    let message = &error.message;
    match error.kind {
        ErrorKind::FirstTokenTimeout => {
            format!("no token within {PATIENCE:?}: the server is busy, or still loads the model")
        }
        // Of a proxy more is said already.
        ErrorKind::Connect | ErrorKind::ConnectTimeout if message.contains(THROUGH) => {
            message.clone()
        }
        // With sockets of the file system the system's reason says more.
        ErrorKind::Connect if !message.contains("unix://") => {
            format!("{message}; is the server running there?")
        }
        ErrorKind::ConnectTimeout => format!(
            "{message}; is that its host and port, and `https://` only if it speaks TLS there?"
        ),
        _ => message.clone(),
    }
}

/// Whether a server that answers with `status` may answer otherwise a minute later.
fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500..)
}

/// Whether the server's list of models can say more about `finding`.
pub fn is_about_path_or_model(finding: &Finding, status: Option<u16>) -> bool {
    matches!(status, Some(400 | 404 | 405 | 422 | 501))
        || finding.error.kind == ErrorKind::NotAStream
}

/// Where the server of `url` may list its models: beside the path that is asked, then where such
/// lists are.
pub fn model_lists(url: &str, protocol: &dyn Protocol) -> Vec<String> {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    let beside = path.strip_suffix(protocol.path()).map(|base| format!("{base}/models"));
    let origin = path.find("://").map(|scheme| {
        let host = scheme + "://".len();
        let end = path[host..].find('/').map_or(path.len(), |slash| host + slash);
        &path[..end]
    });
    let usual = origin.map(|origin| format!("{origin}/v1/models"));
    let mut lists: Vec<_> = beside.into_iter().chain(usual).collect();
    lists.dedup();
    lists.into_iter().map(|list| list + &query).collect()
}

/// The names in a list of models: OpenAI's `data`, Ollama's and llama.cpp's `models`. `None` when
/// `answer` is no such list.
pub fn models(answer: &Recording) -> Option<Vec<String>> {
    let is_whole = answer.broken.as_ref().is_none_or(|end| end.kind == ErrorKind::LeftOpen);
    if answer.status != 200 || !is_whole {
        return None;
    }
    let document: Value = serde_json::from_slice(&answer.body()).ok()?;
    let models = ["data", "models"].iter().find_map(|key| document.get(*key)?.as_array())?;
    let name = |model: &Value| {
        let name = ["id", "name", "model"].iter().find_map(|key| model.get(*key)?.as_str())?;
        Some(name.chars().filter(|c| !c.is_control()).take(LONGEST).collect())
    };
    Some(models.iter().filter_map(name).collect())
}

/// What the lists of models at `asked` say about a refusal: the likely mend.
pub fn mend(target: &Target, asked: &[String], found: &[Option<Vec<String>>]) -> Option<String> {
    let place = found.iter().position(Option::is_some)?;
    let (url, models) = (asked.get(place)?, found[place].as_ref()?);
    if place > 0 {
        let url = url.split('?').next().unwrap_or_default();
        let url = target.base_url_of(url);
        let base = url.trim_end_matches("/models");
        return Some(format!("the server lists models at {url}: `base_url: \"{base}\"`?"));
    }
    Some(match models.contains(&target.model) {
        true => format!(
            "it lists the model `{}`, so that it seems not to speak `protocol: {}`",
            target.model,
            target.protocol.name()
        ),
        false => other_models(&target.model, models),
    })
}

/// A server's models, of which `wanted` is none.
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
