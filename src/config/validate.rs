//! Checks beyond the type of a value: URLs, headers, names of variables, names of trials.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use http::{HeaderName, HeaderValue, Uri};
use llm_stream_client::proxy;
use llm_stream_core::unix_url::{self, UnixUrl};
use llm_stream_core::{
    exact,
    prompt::{self, AnswerLength, ChatMessage, Image, Tools},
    protocol::{self, OpenAiChat, Protocol},
    text::visible,
};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{
    Config, DEFAULT_MAX_TOKENS, LONGEST_NAME, Model, PromptConfig, ProxySetting, Settings,
    reader::{Entry, Fields, Reader},
    sanitise, secrets,
    source::ConfigError,
    template::EnvTemplate,
    tools,
    yaml::Yaml,
};

/// Headers that the client sets, and a hint for each.
const RESERVED: &[(&str, &str)] = &[
    ("accept-encoding", "answers are measured uncompressed"),
    ("authorization", "name the variable that holds the key: `api_key_env: MY_API_KEY`"),
    ("connection", "the client sets it"),
    ("content-length", "the client sets it"),
    ("content-type", "the client sets it"),
    ("host", "it is taken from `base_url`"),
    ("transfer-encoding", "the client sets it"),
];

/// A message and a hint.
type Refusal = (String, String);

/// Checks a model's `base_url`, with its `port` and `proxy`.
pub(super) fn url(
    reader: &mut Reader<'_>,
    base_url: (&Entry<'_>, &str),
    fields: &Fields<'_>,
    protocol: &dyn Protocol,
) {
    let (entry, url) = base_url;
    let port = fields.get("port");
    if let Some(rest) = unix_url::unix_rest(url) {
        if let Err((what, help)) = check_unix_url(url, rest, protocol) {
            reader.error(entry, format!("`base_url` {what}"), help);
        }
        return check_keys_of_socket(reader, fields);
    }
    match parse_url(url, protocol) {
        Err((what, help)) => reader.error(entry, what, help),
        Ok(uri) => {
            if let (Some(own), Some(port)) = (uri.port_u16(), port) {
                let what = format!("`base_url` already has a port: {own}");
                reader.error_at_key(port, what, "write the port in one of the two places");
            }
        }
    }
}

/// Notes keys that a model at a Unix socket cannot have.
fn check_keys_of_socket(reader: &mut Reader<'_>, fields: &Fields<'_>) {
    if let Some(port) = fields.get("port") {
        let help = "a Unix socket has no port; remove `port`";
        reader.error_at_key(port, "`port` cannot be combined with `unix://`", help);
    }
    let is_direct =
        |proxy: &Entry<'_>| matches!(&proxy.value.value, Yaml::Text(proxy) if proxy == "none");
    if let Some(proxy) = fields.get("proxy").filter(|proxy| !is_direct(proxy)) {
        let help = "a Unix socket does not use a proxy; remove `proxy`";
        reader.error_at_key(proxy, "`proxy` cannot be combined with `unix://`", help);
    }
}

/// Checks the URL of a Unix socket; `rest` follows its scheme.
fn check_unix_url(url: &str, rest: &str, protocol: &dyn Protocol) -> Result<(), Refusal> {
    let refuse = |what: &str, help: String| Err((what.to_owned(), help));
    if !cfg!(unix) {
        let help = "this system has no Unix sockets: let the server listen on a port";
        return refuse("is a Unix socket", help.to_owned());
    }
    if url.contains("${") {
        return refuse("must not hold a variable", VARIABLE_HELP.to_owned());
    }
    let name = rest.trim_start_matches('/');
    if name.is_empty() || name.starts_with(':') {
        return refuse("has no path of a socket", UNIX_HELP.to_owned());
    }
    let Some(UnixUrl { socket, path }) = UnixUrl::parse(url) else {
        let help = format!("did you mean `unix:///{name}`?");
        return match rest.starts_with('/') && !rest.starts_with("//") {
            true => refuse("lacks `//`", help),
            false => refuse("has a path that is not absolute", help),
        };
    };
    let (own, query) = without_query(path);
    if let Some(end) = Ending::of(own, protocol) {
        let written = |path: &str| unix_url::unix_url(Path::new(socket), path);
        return refuse(&end.what(protocol), end.help(protocol, query, written));
    }
    if let Some((what, base)) = stray_end(own, protocol) {
        let meant = unix_url::unix_url(Path::new(socket), base);
        return refuse(&what, format!("did you mean `{meant}`?"));
    }
    if path.contains(['?', '#']) {
        return refuse("must not have a query or a fragment", query_help(path));
    }
    no_socket(socket).map_or(Ok(()), |why| {
        refuse(
            &format!("has a path that is not possible for a socket: {why}"),
            UNIX_HELP.to_owned(),
        )
    })
}

/// Returns why `path` cannot be the path of a socket.
#[cfg(unix)]
fn no_socket(path: &str) -> Option<String> {
    std::os::unix::net::SocketAddr::from_pathname(path).err().map(|why| why.to_string())
}

#[cfg(not(unix))]
fn no_socket(_: &str) -> Option<String> {
    None
}

fn query_help(url: &str) -> String {
    match url.contains('?') {
        true => format!("write `query: {{ api-version: \"2024-10-21\" }}`;\n{KEY_HELP}"),
        false => format!("remove it; {KEY_HELP}"),
    }
}

fn parse_url(url: &str, protocol: &dyn Protocol) -> Result<Uri, Refusal> {
    let refuse = |what: &str, help: String| Err((format!("`base_url` {what}"), help));
    let lower = url.to_ascii_lowercase();
    if url.contains("${") {
        return refuse("must not hold a variable", VARIABLE_HELP.to_owned());
    }
    if let Some(inner) = without_brackets(url) {
        return refuse("is in quotes or brackets", format!("did you mean `{inner}`?"));
    }
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http+unix") => {
                refuse("has a scheme that is not HTTP", socket_help(rest))
            }
            Some((_, rest)) => refuse(
                "has a scheme that is not HTTP",
                format!("did you mean `http://{rest}` or `https://{rest}`?"),
            ),
            None => refuse("has no scheme", with_scheme(url)),
        };
    }
    if let Some(rest) =
        ["http://unix:/", "https://unix:/"].iter().find_map(|form| lower.strip_prefix(form))
    {
        let path = &url[url.len() - rest.len()..];
        let help = format!("did you mean `unix:///{}`?", path.trim_start_matches('/'));
        return refuse("has a Unix socket as its host", help);
    }
    let after = lower.find("://").map_or(0, |at| at + "://".len());
    if lower[after..].starts_with("http://") || lower[after..].starts_with("https://") {
        return refuse("has two schemes", format!("did you mean `{}`?", &url[after..]));
    }
    if url.contains('@') {
        return refuse("must not hold a user and password", KEY_HELP.to_owned());
    }
    if url.contains(char::is_whitespace) {
        return refuse("has a blank in it", URL_HELP.to_owned());
    }
    check_path(url, protocol)?;
    parse_authority(url)
}

/// Refuses a path that the protocol adds, and a query.
fn check_path(url: &str, protocol: &dyn Protocol) -> Result<(), Refusal> {
    let refuse = |what: &str, help: String| Err((format!("`base_url` {what}"), help));
    let (bare, query) = without_query(url);
    let origin = bare.find("://").map_or(0, |at| at + "://".len());
    let path_at = bare[origin..].find('/').map_or(bare.len(), |at| origin + at);
    if let Some(end) = Ending::of(&bare[path_at..], protocol) {
        let written = |path: &str| format!("{}{path}", &bare[..path_at]);
        return refuse(&end.what(protocol), end.help(protocol, query, written));
    }
    if let Some((what, base)) = stray_end(&bare[path_at..], protocol) {
        return refuse(&what, format!("did you mean `{}{base}`?", &bare[..path_at]));
    }
    if url.contains(['?', '#']) {
        return refuse("must not have a query or a fragment", query_help(url));
    }
    Ok(())
}

/// Parses a URL with a scheme; its host and port must be there.
fn parse_authority(url: &str) -> Result<Uri, Refusal> {
    let refuse = |what: &str, help: String| Err((format!("`base_url` {what}"), help));
    let (bare, _) = without_query(url);
    let origin = bare.find("://").map_or(0, |at| at + "://".len());
    let authority = bare[origin..].split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return refuse("has no host", URL_HELP.to_owned());
    }
    if authority.ends_with(':') {
        let help = "write the port after the `:`, or remove the `:`";
        return refuse("has no port after its `:`", help.to_owned());
    }
    let uri: Uri = match url.parse() {
        Ok(uri) => uri,
        Err(why) => return refuse(&format!("is not a URL: {why}"), URL_HELP.to_owned()),
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let after_host = authority.rsplit(']').next().unwrap_or_default();
    if after_host.contains(':') && uri.port_u16().is_none_or(|port| port == 0) {
        return refuse("has no valid port", "a port is a whole number from 1 to 65535".to_owned());
    }
    if let Err(why) = reqwest::Url::parse(url) {
        return refuse(&format!("is not a URL: {why}"), URL_HELP.to_owned());
    }
    Ok(uri)
}

/// The text in the quotes or brackets around a URL, if there are any.
fn without_brackets(url: &str) -> Option<&str> {
    let inner = url.trim_start_matches(['<', '(', '[', '"', '\'', '`']);
    let is_url = inner.len() < url.len() && inner.contains("://");
    is_url.then(|| inner.trim_end_matches(['>', ')', ']', '"', '\'', '`']))
}

/// A suggestion for `http+unix://` with `rest`: a socket's path as one part of a URL.
fn socket_help(rest: &str) -> String {
    let (socket, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let socket = percent_encoding::percent_decode_str(socket).decode_utf8_lossy();
    let path = match path.trim_end_matches('/') {
        "" => String::new(),
        path => format!(":{path}"),
    };
    format!("did you mean `unix:///{}{path}`?", socket.trim_start_matches('/'))
}

/// Finds the path of another service of the server at the end of `path`. Returns the mistake, and
/// the path that is probably meant.
fn stray_end<'a>(path: &'a str, protocol: &dyn Protocol) -> Option<(String, &'a str)> {
    /// An end, and the length of its part that stays.
    const ENDS: &[(&str, usize)] = &[
        ("/v1/chat", "/v1".len()),
        ("/v1/models", "/v1".len()),
        ("/v1/embeddings", "/v1".len()),
        ("/api/generate", 0),
        ("/api/tags", 0),
    ];
    let own: &[(&str, usize)] = match protocol.name() {
        "ollama_chat" => &[("/api", 0), ("/v1", 0)],
        "tgi_generate_stream" => &[("/generate", 0)],
        _ => &[],
    };
    let path = path.trim_end_matches('/');
    let (end, kept) = ENDS.iter().chain(own).find(|(end, _)| path.ends_with(end))?;
    let base = &path[..path.len() - end.len() + kept];
    let base = if base == protocol.prefix() { "" } else { base };
    let what = format!(
        "must not end with `{end}`: `{}`, the path of `{}`, is added to it",
        protocol.path(),
        protocol.name()
    );
    Some((what, base))
}

/// `url` without its query and its fragment, and whether it has a query.
fn without_query(url: &str) -> (&str, bool) {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    (&url[..end], url[end..].starts_with('?'))
}

/// A protocol's path at the end of a base URL, where the program would add it a second time.
struct Ending<'a> {
    /// The protocol whose path it is.
    of: &'static dyn Protocol,
    /// The path before it.
    base: &'a str,
}

impl<'a> Ending<'a> {
    /// Finds the path of a protocol at the end of `path`: of `preferred`, or of any other. `None`
    /// if it is all of `path` and the URL is complete.
    fn of(path: &'a str, preferred: &dyn Protocol) -> Option<Self> {
        let path = path.trim_end_matches('/');
        let base = |of: &'static dyn Protocol| {
            let start = path.len().checked_sub(of.path().len())?;
            let end = path.get(start..)?;
            let base = path[..start].trim_end_matches('/');
            end.eq_ignore_ascii_case(of.path()).then_some(Self { of, base })
        };
        let found = protocol::ALL.iter().filter_map(|of| base(*of));
        // `/chat/completions` ends with `/completions` as well.
        let end =
            found.max_by_key(|end| (end.of.path().len(), end.of.name() == preferred.name()))?;
        // Right after the host it is the whole path of the requests.
        let is_whole = path == preferred.path() && !preferred.prefix().is_empty();
        (!is_whole).then_some(end)
    }

    fn what(&self, wanted: &dyn Protocol) -> String {
        let Self { of, .. } = self;
        match of.name() == wanted.name() {
            true => format!("must not end with `{}`: that is added to it", of.path()),
            false => format!(
                "must not end with `{}`, the path of `{}`: `{}`, the path of `{}`, is added to it",
                of.path(),
                of.name(),
                wanted.path(),
                wanted.name()
            ),
        }
    }

    /// `written` gives the base URL with a path.
    fn help(
        &self,
        wanted: &dyn Protocol,
        has_query: bool,
        written: impl Fn(&str) -> String,
    ) -> String {
        let Self { of, base } = self;
        let query = if has_query { " with `query: { … }` for what follows the `?`" } else { "" };
        // Without a path the prefix would be added.
        let own = match base.is_empty() && !of.prefix().is_empty() {
            true => written(of.path()),
            false => written(base),
        };
        if of.name() == wanted.name() {
            return format!("did you mean `{own}`{query}?");
        }
        // The prefix of one protocol is not a place of another.
        let other = match *base == of.prefix() && of.prefix() != wanted.prefix() {
            true => written(""),
            false => written(base),
        };
        format!(
            "did you mean `protocol: {}` at `{own}`{query},\nor `{}` at `{other}`?",
            of.name(),
            wanted.name()
        )
    }
}

/// Checks a `metrics_url`, which `has_default`, or a `power_url`.
pub(super) fn metrics_url(url: &str, has_default: bool) -> Result<(), Refusal> {
    let (key, help) = match has_default {
        true => ("metrics_url", "`auto`, `off`, or a URL: `\"http://localhost:8000/metrics\"`"),
        false => ("power_url", "`off`, or a URL: `\"http://localhost:9400/metrics\"`"),
    };
    let parsed = reqwest::Url::parse(url).ok();
    match parsed.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()) {
        None => Err((format!("`{key}` is not a URL of HTTP"), format!("write {help}"))),
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            Err((format!("`{key}` must not hold a user and password"), KEY_HELP.into()))
        }
        Some(url) if url.query().is_some() || url.fragment().is_some() => {
            let help = format!("remove it; {KEY_HELP}");
            Err((format!("`{key}` must not have a query or a fragment"), help))
        }
        Some(_) => Ok(()),
    }
}

const URL_HELP: &str = "for example `base_url: \"http://localhost:8000\"`";
const UNIX_HELP: &str = "for example `base_url: \"unix:///run/vllm.sock\"`";
const VARIABLE_HELP: &str = "`${NAME}` can be in the values of `headers`, `query` and `proxy`";
const KEY_HELP: &str = "a key is read from a variable: `api_key_env: MY_API_KEY`";

/// A suggestion for a URL without a scheme.
fn with_scheme(url: &str) -> String {
    let scheme = url.len() - url.trim_start_matches(|ch: char| ch.is_ascii_alphabetic()).len();
    let rest = match url[..scheme].to_ascii_lowercase().as_str() {
        "http" | "https" => url[scheme..].trim_start_matches([':', '/']),
        _ => url.trim_start_matches('/'),
    };
    format!("did you mean `http://{rest}` or `https://{rest}`?")
}

/// The name of the environment variable that holds a key. A key itself is refused, unseen.
pub(super) fn api_key_env(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Spanned<String>> {
    let name = reader.text(entry)?;
    if secrets::is_variable(&name.value) {
        return Some(name);
    }
    let what = "`api_key_env` is not the name of an environment variable";
    let help = match secrets::variable_in(&name.value) {
        Some(name) => format!("did you mean `api_key_env: {name}`?"),
        None => "put the key into a variable, `export MY_API_KEY=…`, and write\n\
                 `api_key_env: MY_API_KEY`; the key itself does not belong in this file"
            .to_owned(),
    };
    reader.error(entry, what, help);
    None
}

/// The headers that a request gets. Their values are not shown anywhere.
pub(super) fn headers(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
) -> Vec<(HeaderName, EnvTemplate)> {
    let mut headers: Vec<(HeaderName, EnvTemplate)> = Vec::new();
    for (name, field) in reader.map(entry, "a map of headers", entry.example()) {
        let (name, value) = (header_name(reader, name, &field), header_value(reader, &field));
        let (Some(name), Some(value)) = (name, value) else {
            continue;
        };
        if headers.iter().any(|(known, _)| *known == name) {
            let help = "header names are case-insensitive; remove one";
            reader.error_at_key(&field, format!("the header `{name}` is written twice"), help);
        }
        headers.push((name, value));
    }
    headers
}

fn header_name(reader: &mut Reader<'_>, name: &str, field: &Entry<'_>) -> Option<HeaderName> {
    let Ok(header) = name.parse::<HeaderName>() else {
        let what = format!("`{name}` is not the name of a header");
        reader.error_at_key(field, what, "it has letters, digits and `-`: `x-tenant: \"a\"`");
        return None;
    };
    let text = match &field.value.value {
        Yaml::Text(text) => text.as_str(),
        _ => "",
    };
    // A value with a variable has its own scheme: `Basic ${CREDENTIALS}`.
    let is_own = header == "authorization" && text.contains("${");
    let reserved = RESERVED.iter().find(|(reserved, _)| header == *reserved && !is_own);
    if let Some((_, help)) = reserved {
        reader.error_at_key(field, format!("the header `{header}` cannot be set"), *help);
        return None;
    }
    Some(header)
}

fn header_value(reader: &mut Reader<'_>, field: &Entry<'_>) -> Option<EnvTemplate> {
    let node = field.value;
    let text = match &node.value {
        Yaml::Text(text) if text.is_empty() => {
            Spanned::new(String::new(), node.referenced, node.defined)
        }
        _ => reader.text_like(field, "\"a\"")?,
    };
    let value = template(reader, field, text)?;
    if HeaderValue::from_str(&value.with("x")).is_err() {
        let what = format!("the value of {} cannot be sent in a header", field.label);
        reader.error(field, what, "a value is one line of visible ASCII characters");
        return None;
    }
    Some(value)
}

/// `text`, in which `${NAME}` stands for a variable.
pub(super) fn template(
    reader: &mut Reader<'_>,
    field: &Entry<'_>,
    text: Spanned<String>,
) -> Option<EnvTemplate> {
    let template = EnvTemplate::new(text);
    if template.is_err() {
        let what = format!("a `${{` in {} names no environment variable", field.label);
        let help = "`${MY_API_KEY}` stands for the value of MY_API_KEY: a name has letters, digits \
                    and `_`";
        reader.error(field, what, help);
    }
    template.ok()
}

/// `none`, or the URL of a proxy.
pub(super) fn proxy(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<ProxySetting> {
    let text = reader.text(entry)?;
    if text.value == "none" {
        return Some(ProxySetting::None);
    }
    let template = template(reader, entry, text)?;
    // A URL that begins with a variable is checked when it is used.
    let known = !template.with("").is_empty() && !template.at().value.starts_with("${");
    if known && !proxy::is_proxy(&template.with("x")) {
        let help = format!("`none`, or for example `proxy: {}`", entry.example());
        reader.error(entry, "`proxy` is not the URL of an HTTP proxy", help);
        return None;
    }
    Some(ProxySetting::Through(template))
}

/// Notes each field of an `extra_body` that would break the measurement.
pub(super) fn extra_body(reader: &mut Reader<'_>, entry: &Entry<'_>, protocol: &dyn Protocol) {
    let Yaml::Map(_) = &entry.value.value else {
        return;
    };
    for (name, field) in reader.text_keyed(entry) {
        let Some(value) = reader.json(&field) else {
            continue;
        };
        if let Some(why) = protocol.forbidden_field(name, &value) {
            let what = match value {
                Value::Array(_) | Value::Object(_) => {
                    format!("`extra_body` must not hold `{name}`")
                }
                _ => {
                    let value = exact::to_string(&value);
                    format!("`extra_body` must not hold `{name}: {value}`")
                }
            };
            reader.error_at_key(&field, what, why);
        }
    }
}

/// Names that two models, prompts or workloads would share.
pub(super) fn names(config: &Config) -> Vec<ConfigError> {
    let models = config.models.iter().map(Model::display_name);
    let prompts = config.prompts.iter().flatten().map(|prompt| &prompt.name);
    let sets = data_sets(config);
    let mut errors = long_names(config, &sets);
    errors.extend(collisions(config, models, "models", "give one of them another `name`"));
    errors.extend(collisions(config, prompts.chain(&sets), "prompts", "rename one of them"));
    let workloads = config.workloads.iter().map(|workload| &workload.name);
    errors.extend(collisions(config, workloads, "workloads", "rename one of them"));
    errors.extend(prompts_and_workloads(config));
    errors
}

/// Names that are too long for trial names. Those of a set's records are cut when they are read.
fn long_names(config: &Config, sets: &[Spanned<String>]) -> Vec<ConfigError> {
    let models = config.models.iter().map(Model::display_name);
    let prompts = config.prompts.iter().flatten();
    let prompts = prompts.filter(|prompt| prompt.prompt.set.is_none()).map(|prompt| &prompt.name);
    let workloads = config.workloads.iter().map(|workload| &workload.name);
    let error = |name: &Spanned<String>| {
        let length = name.value.chars().count();
        let what = format!("this name has {length} characters");
        let help = format!("a name has at most {LONGEST_NAME}: `name` sets a shorter one");
        (length > LONGEST_NAME).then(|| config.error_in(name, &what, &help))
    };
    models.chain(prompts).chain(sets).chain(workloads).filter_map(error).collect()
}

/// The names of the data sets.
fn data_sets(config: &Config) -> Vec<Spanned<String>> {
    let name = |prompt: &PromptConfig| {
        let set = prompt.prompt.set.clone()?;
        Some(Spanned::new(set, prompt.name.referenced, prompt.name.defined))
    };
    let mut names: Vec<_> = config.prompts.iter().flatten().filter_map(name).collect();
    // Each record has the place of its set.
    names.dedup_by_key(|name| name.defined);
    names
}

/// Finds prompts that cannot be sent to a model.
pub(super) fn prompts_fit(config: &Config) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for model in &config.models {
        let settings = model.settings.over(&config.defaults);
        let protocol = settings.protocol.unwrap_or(&OpenAiChat);
        let max_tokens = settings.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        errors.extend(idle_choice(config, model, &settings));
        errors.extend(without_documents(config, model, protocol));
        // The records of a data set have one place in the config: one of them is enough.
        let mut reported = HashSet::new();
        for prompt in config.prompts.iter().flatten() {
            if prompt.prompt.set.as_deref().is_some_and(|set| reported.contains(set)) {
                continue;
            }
            let refused = refused(&prompt.prompt, protocol, (settings.ignore_eos, max_tokens));
            let refused = refused.or_else(|| tools_refused(&prompt.prompt, protocol, &settings));
            let refused = refused.or_else(|| items_refused(&prompt.prompt, protocol));
            if refused.is_some() {
                reported.extend(prompt.prompt.set.as_deref());
            }
            errors.extend(refused.map(|(what, help)| {
                let what = format!(
                    "`{}` cannot be sent to {}: {what}",
                    prompt.name.value, model.key.value
                );
                config.error_in(&prompt.name, &what, &help)
            }));
        }
    }
    errors
}

/// Returns the reason why `prompt` cannot be sent to a model.
fn refused(
    prompt: &prompt::Prompt,
    protocol: &dyn Protocol,
    (ignore_eos, max_tokens): (Option<bool>, u64),
) -> Option<Refusal> {
    let AnswerLength { tokens, range, min_tokens, ignore_eos: prompt_ignores_eos } = prompt.output;
    let fewest = range.map(|range| range.least).or(tokens);
    let most = fewest.unwrap_or(max_tokens);
    let name = protocol.name();
    let uses = |field: &str| match field {
        "ignore_eos" => ignore_eos.unwrap_or(prompt_ignores_eos),
        _ => min_tokens.is_some(),
    };
    let lacks = |field: &&&str| uses(field) && !protocol.length_fields().contains(*field);
    if let Some(field) = ["ignore_eos", "min_tokens"].iter().find(lacks) {
        return Some(tools::not_supported(field, protocol));
    }
    if let Some(least) = min_tokens.filter(|least| *least > most) {
        let what = format!("`min_tokens` of {least} exceeds the {most} tokens that are allowed");
        return Some((what, format!("give it `output_tokens: {least}`, or fewer `min_tokens`")));
    }
    let mut images = prompt.messages.iter().flat_map(ChatMessage::images);
    images.find(|image| !protocol.takes(image)).map(|_| {
        let data = Image::Data { mime: "image/png".into(), base64: "".into() };
        let sort = if protocol.takes(&data) { "images by their URL" } else { "images" };
        (
            format!("`{name}` does not support {sort}"),
            "leave the prompt or the model out".to_owned(),
        )
    })
}

/// Returns the reason why `prompt` cannot be sent to a protocol of items, or with its documents.
fn items_refused(prompt: &prompt::Prompt, protocol: &dyn Protocol) -> Option<Refusal> {
    let name = protocol.name();
    let (what, help) = match protocol.takes_documents() {
        _ if protocol.has_items() && !prompt.turns.is_empty() => {
            (format!("`{name}` has no conversations"), "leave the prompt or the model out")
        }
        true if prompt.documents.is_empty() => (
            format!("`{name}` scores documents, and the prompt has none"),
            "add them, for example\ndocuments: [\"Paris is the capital of France.\"]",
        ),
        true if prompt.synthetic.is_some() => (
            format!("`{name}` has no prompts of a stated length"),
            "write the query as `text` or `file`, or take it from a data set",
        ),
        // Records of a data set may have them for other models.
        false if !prompt.documents.is_empty() && prompt.set.is_none() => {
            (format!("`{name}` takes no documents"), "leave the prompt or the model out")
        }
        _ => return None,
    };
    Some((what, help.to_owned()))
}

/// A model that scores documents, without prompts that have some.
fn without_documents(
    config: &Config,
    model: &Model,
    protocol: &dyn Protocol,
) -> Option<ConfigError> {
    let what = "the built-in prompts have no documents, which `protocol: rerank` scores";
    let help = "list prompts that have some, for example\n\
                prompts: [{ name: capital, text: \"What is the capital of France?\", \
                documents: [\"Paris\", \"Rome\"] }]";
    let is_without = config.prompts.is_none() && protocol.takes_documents();
    is_without.then(|| config.error_in(&model.key, what, help))
}

/// Returns the reason why `prompt` cannot be sent with its tools.
fn tools_refused(
    prompt: &prompt::Prompt,
    protocol: &dyn Protocol,
    settings: &Settings,
) -> Option<Refusal> {
    if prompt.tools == Tools::default() {
        return None; // The tools of the model are checked in `tools::check`.
    }
    let tools = prompt.tools.over(&settings.tools);
    let sent = || tools::KEYS.into_iter().filter(|key| tools.sends(key));
    if let Some(field) = sent().find(|key| !protocol.tool_fields().contains(key)) {
        return Some(tools::not_supported(field, protocol));
    }
    let has_own = |key: &str| settings.extra_body.get(key).is_some_and(|own| !own.is_null());
    if let Some(field) = sent().find(|key| has_own(key)) {
        let what = format!("`{field}` is also in the `extra_body` of the model");
        return Some((what, "remove one of them".to_owned()));
    }
    // The model's choice is for prompts that have tools.
    let means_choice = prompt.tools.choice.is_some() || !tools.offered().is_empty();
    tools.choice_error().filter(|_| means_choice)
}

/// A model's tool choice without any tools.
fn idle_choice(config: &Config, model: &Model, settings: &Settings) -> Option<ConfigError> {
    let prompts = config.prompts.iter().flatten();
    let offers = |tools: &Tools| !tools.offered().is_empty();
    let idle = settings.tools.choice.is_some()
        && settings.tools.listed.is_none()
        && !prompts.into_iter().any(|prompt| offers(&prompt.prompt.tools));
    let (what, help) = settings.tools.choice_error().filter(|_| idle)?;
    Some(config.error_in(&model.key, &what, &help))
}

/// Workloads with the name of a prompt.
fn prompts_and_workloads(config: &Config) -> Vec<ConfigError> {
    let prompts: HashSet<String> = match &config.prompts {
        Some(prompts) => prompts.iter().map(|prompt| sanitise(&prompt.name.value)).collect(),
        None => prompt::built_in().iter().map(|prompt| sanitise(&prompt.name)).collect(),
    };
    let names = config.workloads.iter().map(|workload| &workload.name);
    let taken = names.filter(|name| prompts.contains(&sanitise(&name.value)));
    let error = |name: &Spanned<String>| {
        let what = format!("the workload `{}` has the name of a prompt", name.value);
        let help = format!(
            "trials of both would be called `MODEL::{}::run-N`; rename one of them",
            sanitise(&name.value)
        );
        config.error_in(name, &what, &help)
    };
    taken.map(error).collect()
}

/// Names that would be equal in trial names, or in the output: a tab is shown as `\t`.
fn collisions<'a>(
    config: &Config,
    names: impl Iterator<Item = &'a Spanned<String>>,
    things: &str,
    advice: &str,
) -> Vec<ConfigError> {
    let forms: [fn(&str) -> String; 2] = [sanitise, |name| visible(name).into_owned()];
    let mut first: [HashMap<String, &Spanned<String>>; 2] = Default::default();
    let mut errors = Vec::new();
    for name in names {
        let called = forms.map(|form| form(&name.value));
        let taken = first
            .iter()
            .zip(&called)
            .find_map(|(first, called)| first.get(called).map(|other| (*other, called.clone())));
        let Some((other, called)) = taken else {
            for (first, called) in first.iter_mut().zip(called) {
                first.insert(called, name);
            }
            continue;
        };
        let what = match name.value == other.value {
            true => format!("two {things} are called `{called}`"),
            false => format!(
                "the {things} `{}` and `{}` would both be called `{called}` in the results",
                other.value, name.value
            ),
        };
        let line = other.defined.line();
        let help = match line == name.defined.line() {
            true => advice.to_owned(),
            false => format!("{advice}; the other is in line {line}"),
        };
        errors.push(config.error_in(name, &what, &help));
    }
    errors
}
