//! Detects the protocol and the models of a server by short requests.
//!
//! A GET shows which server it may be. A POST with a body that is not a request of any protocol
//! then shows whether the path of completions exists: the server generates nothing, and answers 404
//! or 405 if it does not have the path.

use llm_stream_client::{
    discover::{Prober, Reply},
    options::Access,
};
use llm_stream_core::{
    protocol::{
        self, LlamaCppCompletion, OllamaChat, OpenAiChat, OpenAiCompletions, OpenAiResponses,
        Protocol, TgiGenerateStream,
    },
    recording::{ErrorKind, RequestError},
};
use serde_json::Value;

use super::{CommandError, address::Address, server_config::access};
use crate::{cli::ServerOptions, config, preflight};

/// Limit of the models that are named.
const NAMED: usize = 5;

/// The facts about a server that its config needs.
#[derive(Debug)]
pub(super) struct DiscoveredServer {
    /// Its base URL.
    pub(super) base_url: String,
    /// Its protocol.
    pub(super) protocol: &'static dyn Protocol,
    /// Its name for the model.
    pub(super) model: String,
    /// The choices that the detection made, one line each.
    pub(super) notes: Vec<String>,
}

/// Detects the server at `url`. A protocol and a model in `options` are taken instead of the
/// detected ones.
pub(super) fn discover(url: &str, options: &ServerOptions) -> anyhow::Result<DiscoveredServer> {
    let address = Address::of(url);
    let named = options.protocol.and_then(protocol::by_name).or_else(|| address.protocol());
    let discovery = Discovery { url, address, options };
    let (protocol, listed) = match named {
        Some(protocol) => (protocol, discovery.models_of(protocol)?),
        None => discovery.detect()?,
    };
    let base_url = discovery.address.base_url(protocol);
    let (model, note) = chosen(options.model.as_deref(), listed, url, &base_url)?;
    let removed = discovery
        .address
        .removed
        .map(|path| format!("note: removed `{path}` from the URL: `base_url` is {base_url}"));
    let notes = removed.into_iter().chain(note).collect();
    Ok(DiscoveredServer { base_url, protocol, model, notes })
}

/// The requests to one server.
struct Discovery<'a> {
    /// The URL as given, for messages.
    url: &'a str,
    address: Address,
    options: &'a ServerOptions,
}

/// A protocol, and the models that the server lists, if it has a list.
type Detected = (&'static dyn Protocol, Option<Vec<String>>);

impl Discovery<'_> {
    /// The models of a server that speaks `protocol`.
    fn models_of(&self, protocol: &'static dyn Protocol) -> anyhow::Result<Option<Vec<String>>> {
        let access = self.access(protocol)?;
        let mut lists = preflight::model_lists(&access.url, protocol);
        if protocol.name() == TgiGenerateStream.name() {
            lists.insert(0, preflight::root_url(&access.url, protocol, "/info"));
        }
        for list in lists {
            if let Some(models) = models(&self.get(&access, protocol, &list)?) {
                return Ok(Some(models));
            }
        }
        Ok(None)
    }

    /// The first protocol that the server speaks.
    fn detect(&self) -> anyhow::Result<Detected> {
        let mut seen = Vec::new();
        let access = self.access(&OpenAiChat)?;
        let mut lists = preflight::model_lists(&access.url, &OpenAiChat).into_iter();
        let mut list = || -> anyhow::Result<Option<(String, Option<Vec<String>>)>> {
            let Some(url) = lists.next() else { return Ok(None) };
            let reply = self.get(&access, &OpenAiChat, &url)?;
            seen.push(answered(&url, &reply));
            Ok(Some((url, models(&reply))))
        };
        let listed = list()?.and_then(|(_, models)| models);
        if let Some(protocol) = self.openai_protocol()? {
            return Ok((protocol, listed));
        }
        if listed.is_none()
            && let Some((url, Some(_))) = list()?
        {
            return Err(self.other_path(&url).into());
        }
        match self.other_protocol(&mut seen)? {
            Some(detected) => Ok(detected),
            None if listed.is_some() => Err(self.unknown_protocol().into()),
            None => Err(self.unknown(&seen).into()),
        }
    }

    /// The protocol of OpenAI whose path exists.
    fn openai_protocol(&self) -> anyhow::Result<Option<&'static dyn Protocol>> {
        let of_openai: [&'static dyn Protocol; 3] =
            [&OpenAiChat, &OpenAiCompletions, &OpenAiResponses];
        for protocol in of_openai {
            if self.speaks(protocol)? {
                return Ok(Some(protocol));
            }
        }
        Ok(None)
    }

    /// Returns the first other protocol whose server is recognised. Adds its requests to `seen`.
    fn other_protocol(&self, seen: &mut Vec<String>) -> anyhow::Result<Option<Detected>> {
        for (protocol, path, read) in OTHERS {
            let access = self.access(*protocol)?;
            let url = preflight::root_url(&access.url, *protocol, path);
            let reply = self.get(&access, *protocol, &url)?;
            seen.push(answered(&url, &reply));
            if let Some(models) = read(&reply).filter(|_| reply.status == 200)
                && self.speaks(*protocol)?
            {
                return Ok(Some((*protocol, Some(models))));
            }
        }
        Ok(None)
    }

    fn access(&self, protocol: &'static dyn Protocol) -> anyhow::Result<Access> {
        let base_url = self.address.base_url(protocol);
        access(&base_url, protocol, self.options.api_key_env.as_deref())
    }

    /// Whether the path of `protocol` exists. A server that is busy, or still loads its model, has
    /// it too, and answers with another error.
    fn speaks(&self, protocol: &'static dyn Protocol) -> anyhow::Result<bool> {
        let access = self.access(protocol)?;
        let prober = Prober::new(&access, protocol);
        Ok(match prober.post(&access.url, preflight::NO_REQUEST) {
            Ok(reply) => !matches!(reply.status, 300..400 | 404 | 405 | 501) && !is_page(&reply),
            Err(_) => true,
        })
    }

    /// Returns the answer of `url`. A failed connection, a missing key and a redirect end the
    /// detection: requests to other paths would end the same way.
    fn get(
        &self,
        access: &Access,
        protocol: &'static dyn Protocol,
        url: &str,
    ) -> anyhow::Result<Reply> {
        let prober = Prober::new(access, protocol);
        let reply = prober.get(url).map_err(|error| unreachable(self.url, &error))?;
        match reply.status {
            401 | 403 => Err(self.no_access(&reply).into()),
            300..400 => Err(CommandError::new(
                format!(
                    "{} answers GET {} with a redirect (HTTP {})",
                    self.url,
                    path(url),
                    reply.status
                ),
                "give the URL that it leads to",
            )
            .into()),
            400 if reply.body.contains("HTTPS port") => Err(CommandError::new(
                format!("{} speaks TLS on that port", self.url),
                "write `https://` instead of `http://`",
            )
            .into()),
            _ => Ok(reply),
        }
    }

    /// The error for a server that requires a key, or another key.
    fn no_access(&self, reply: &Reply) -> CommandError {
        let words = reply.error.as_deref().map(|words| format!(": {words}")).unwrap_or_default();
        let status = reply.status;
        match &self.options.api_key_env {
            Some(variable) => CommandError::new(
                format!("{} refuses the key in `{variable}` (HTTP {status}){words}", self.url),
                format!("check what `{variable}` holds, and that the key is one of this server"),
            ),
            None => CommandError::new(
                format!("{} requires a key (HTTP {status}){words}", self.url),
                key_help(),
            ),
        }
    }

    /// The error for a server that lists its models where OpenAI does, and has none of OpenAI's
    /// paths.
    fn unknown_protocol(&self) -> CommandError {
        let what = format!("{} lists models, but has none of OpenAI's paths", self.url);
        CommandError::new(what, "name the protocol, such as `--protocol anthropic_messages`")
    }

    /// The error for a path that the server does not have, while it lists its models at `list`.
    fn other_path(&self, list: &str) -> CommandError {
        let list = path(list);
        let what = format!("{} has a path without models: they are listed at {list}", self.url);
        CommandError::new(what, "remove the path from the URL")
    }

    /// The error for a server that answers, but is not recognised.
    fn unknown(&self, seen: &[String]) -> CommandError {
        let what = format!("no LLM server detected at {}: {}", self.url, seen.join(", "));
        let protocols: Vec<_> = protocol::ALL.iter().map(|known| known.name()).collect();
        let help = format!(
            "check the port and the path; a server behind a proxy may have a path before `/v1`;\n\
             to skip the detection: `--protocol NAME --model NAME`, with one of {}",
            protocols.join(", ")
        );
        CommandError::new(what, help)
    }
}

/// How to send a key.
fn key_help() -> String {
    const USUAL: &str = "OPENAI_API_KEY";
    match crate::env::is_set(USUAL) {
        true => format!(
            "`{USUAL}` is set, but no key is sent unasked: `--api-key-env {USUAL}` sends it to this \
             server"
        ),
        false => "export the key and name its variable: `export MY_KEY=…`, `--api-key-env MY_KEY`"
            .to_owned(),
    }
}

/// Reads the models of an answer; `None` if it is of another server.
type ReadModels = fn(&Reply) -> Option<Vec<String>>;

/// The protocols besides OpenAI's, each with a path that only its servers have.
const OTHERS: &[(&dyn Protocol, &str, ReadModels)] = &[
    (&OllamaChat, "/api/tags", models),
    (&LlamaCppCompletion, "/props", props),
    (&LlamaCppCompletion, "/health", health),
    (&TgiGenerateStream, "/info", models),
];

/// The names in a list of models: OpenAI's `data`, Ollama's `models`, TGI's `model_id`.
fn models(reply: &Reply) -> Option<Vec<String>> {
    let document: Value = serde_json::from_str(&reply.body).ok()?;
    if reply.status != 200 {
        return None;
    }
    if let Some(id) = document.get("model_id").and_then(Value::as_str) {
        return Some(vec![id.to_owned()]);
    }
    let models = ["data", "models"].iter().find_map(|key| document.get(*key)?.as_array())?;
    let name = |model: &Value| {
        let name = ["id", "name", "model"].iter().find_map(|key| model.get(*key)?.as_str())?;
        Some(name.to_owned()).filter(|name| !name.trim().is_empty())
    };
    Some(models.iter().filter_map(name).collect())
}

/// The model of a llama.cpp server, which serves one and does not ask for its name.
fn props(reply: &Reply) -> Option<Vec<String>> {
    let document: Value = serde_json::from_str(&reply.body).ok()?;
    let is_llama = document.get("default_generation_settings").is_some();
    let name = ["model_alias", "model_path"].iter().find_map(|key| {
        let name = document.get(*key)?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    });
    is_llama.then(|| vec![name.unwrap_or_else(|| "llama.cpp".to_owned())])
}

fn health(reply: &Reply) -> Option<Vec<String>> {
    let document: Value = serde_json::from_str(&reply.body).ok()?;
    document.get("status")?.as_str()?;
    Some(vec!["llama.cpp".to_owned()])
}

/// The model to measure, and a note on the choice.
fn chosen(
    wanted: Option<&str>,
    listed: Option<Vec<String>>,
    url: &str,
    base_url: &str,
) -> Result<(String, Option<String>), CommandError> {
    let Some(listed) = listed else {
        let no_list = || {
            CommandError::new(
                format!("{url} lists no models that can be read"),
                "name the model as the server calls it: `--model NAME`",
            )
        };
        return wanted.map(|name| (name.to_owned(), None)).ok_or_else(no_list);
    };
    if let Some(long) = listed.iter().find(|name| name.chars().count() > config::LONGEST_NAME) {
        let what =
            format!("{base_url} lists a model whose name has {} characters", long.chars().count());
        let help = format!(
            "a name has at most {}: this is not the list of a server",
            config::LONGEST_NAME
        );
        return Err(CommandError::new(what, help));
    }
    match (wanted, listed.as_slice()) {
        (Some(wanted), listed) => Ok((wanted.to_owned(), unlisted(wanted, listed))),
        (None, []) => Err(CommandError::new(
            format!("the list of models of {base_url} is empty"),
            "load a model in the server, or name one that it loads on demand: `--model NAME`",
        )),
        (None, [only]) => Ok((only.clone(), None)),
        (None, [first, ..]) => {
            let names = some_of(&listed);
            let note = format!(
                "note: the server lists {} models: {names}. `{first}` is measured; `--model NAME` \
                 chooses another",
                listed.len()
            );
            Ok((first.clone(), Some(note)))
        }
    }
}

/// The note on a model that the server does not list.
fn unlisted(wanted: &str, listed: &[String]) -> Option<String> {
    // In Ollama, a name without a tag means the tag `latest`.
    let is_it = |name: &String| name == wanted || name.strip_suffix(":latest") == Some(wanted);
    if listed.iter().any(is_it) {
        return None;
    }
    let meant = config::nearest(wanted, listed.iter().map(String::as_str));
    let meant = meant.map(|meant| format!(" Did you mean `--model {meant}`?")).unwrap_or_default();
    Some(match listed {
        [] => format!("note: the server lists no model; `{wanted}` is measured anyway"),
        _ => format!(
            "note: the server does not list `{wanted}`; it is measured anyway. Listed: {}.{meant}",
            some_of(listed)
        ),
    })
}

/// The first few names.
fn some_of(names: &[String]) -> String {
    let (named, more) = names.split_at(names.len().min(NAMED));
    let named: Vec<_> = named.iter().map(|name| format!("`{name}`")).collect();
    match more.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The error for a server that does not answer.
fn unreachable(url: &str, error: &RequestError) -> CommandError {
    let what = error.message.replace("`base_url`", "the URL").replace(" (timeouts.connect)", "");
    let help = match error.kind {
        ErrorKind::Connect => "start the server, or check the host and port of the URL",
        ErrorKind::ConnectTimeout => "check the host, the port and the firewall before the server",
        ErrorKind::Tls if what.contains("`ca_file`") => {
            "set `ca_file` in a config: `llm-stream-bench init` writes one to start from"
        }
        ErrorKind::Tls => "check the scheme and the port of the URL",
        ErrorKind::FirstTokenTimeout | ErrorKind::TotalTimeout | ErrorKind::InterTokenTimeout => {
            return CommandError::new(
                format!("no answer from {url} within 10 s"),
                "the server is busy or still loads the model: wait until it is ready",
            );
        }
        ErrorKind::Broken if url.to_ascii_lowercase().starts_with("http://") => {
            "check the port; if the server speaks TLS there, write `https://`"
        }
        _ => "check the host, the port and the scheme of the URL",
    };
    CommandError::new(what, help)
}

/// One request and its status, for the message of a failed detection.
fn answered(url: &str, reply: &Reply) -> String {
    let page = if is_page(reply) && reply.status == 200 { " (a web page)" } else { "" };
    format!("GET {} → HTTP {}{page}", path(url), reply.status)
}

fn is_page(reply: &Reply) -> bool {
    let is_html = reply.content_type.as_deref().is_some_and(|kind| kind.contains("text/html"));
    is_html || reply.body.trim_start().starts_with('<')
}

fn path(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + "://".len());
    url[host..].find('/').map_or("/", |at| &url[host + at..])
}
