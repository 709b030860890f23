//! The parts of a config, each read from its entry.

use llm_stream_core::protocol::{self, OpenAiChat, OpenAiEmbeddings, Protocol};
use serde_json::Map;
use serde_saphyr::Spanned;

use super::{
    EndpointConfig, Inconclusive, MetricsUrl, Model, Order, RunCount, RunVariation, Settings,
    TimeoutSettings, TokenCount,
    files::tokenizer,
    keys::{AUTO, Section},
    network, precision,
    reader::{Entry, Fields, Reader},
    simulate::simulate,
    suggest::{did_you_mean, nearest},
    text_fields, tools, validate,
    words::{
        self, CONNECTIONS, INCONCLUSIVE, ORDERS, PREFIX_CACHES, STAMPS, TOKEN_COUNTS, TRANSPORTS,
    },
    yaml::Yaml,
};

/// `defaults`, with its entries.
pub(super) fn defaults<'n>(reader: &mut Reader<'_>, entry: &Entry<'n>) -> (Settings, Fields<'n>) {
    let fields = reader.fields(entry, Section::Defaults);
    let settings = settings(reader, &fields);
    if let Some(body) = fields.get("extra_body") {
        validate::extra_body(reader, body, settings.protocol.unwrap_or(&OpenAiChat));
    }
    (settings, fields)
}

/// `models`.
pub(super) fn models(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    defaults: (&Settings, &Fields<'_>),
) -> Vec<Model> {
    let named = reader.map(entry, "a map of models by their names", entry.example());
    if named.is_empty() && matches!(&entry.value.value, Yaml::Map(entries) if entries.is_empty()) {
        let help = format!("for example `models: {}`", entry.example());
        reader.error_at_key(entry, "`models` has no model", help);
    }
    let models = named.into_iter();
    models.filter_map(|(name, field)| model(reader, name, &field, defaults)).collect()
}

fn model(
    reader: &mut Reader<'_>,
    key: &str,
    entry: &Entry<'_>,
    defaults: (&Settings, &Fields<'_>),
) -> Option<Model> {
    let key = Spanned::new(key.to_owned(), entry.key.referenced, entry.key.defined);
    reader.remember(entry);
    if key.value.trim().is_empty() {
        reader.error_at_key(entry, "a model has an empty name", "write its name before the colon");
    }
    let fields = reader.fields(entry, Section::Model);
    let settings = settings(reader, &fields);
    let protocol = settings.protocol.or(defaults.0.protocol).unwrap_or(&OpenAiChat);
    if settings.ignore_eos == Some(true)
        && !protocol.length_fields().contains(&"ignore_eos")
        && let Some(entry) = fields.get("ignore_eos")
    {
        let (what, help) = tools::not_supported("ignore_eos", protocol);
        reader.error_at_key(entry, what, help);
    }
    check_stream(reader, [&fields, defaults.1], &settings, (defaults.0, protocol));
    let protocol = match settings.stream.or(defaults.0.stream) {
        Some(false) => protocol.unstreamed().unwrap_or(protocol),
        _ => protocol,
    };
    let effective = settings.tools.over(&defaults.0.tools);
    tools::check(reader, [&fields, defaults.1], &effective, protocol);
    for fields in [defaults.1, &fields] {
        if let Some(body) = fields.get("extra_body") {
            validate::extra_body(reader, body, protocol);
        }
    }
    Some(Model {
        name: fields.get("name").and_then(|entry| reader.text(entry)),
        endpoint: endpoint(reader, entry, &fields, protocol)?,
        settings,
        key,
    })
}

/// Reports `stream` and `batch` where the protocol or the count of tokens needs a stream.
fn check_stream(
    reader: &mut Reader<'_>,
    fields: [&Fields<'_>; 2],
    settings: &Settings,
    (defaults, protocol): (&Settings, &dyn Protocol),
) {
    let entry_of = |key: &str| fields.iter().find_map(|fields| fields.get(key));
    let stream = settings.stream.or(defaults.stream);
    if let (Some(true), false, Some(entry)) = (stream, protocol.is_streamed(), entry_of("stream")) {
        let what = format!("the answers of `protocol: {}` are never streamed", protocol.name());
        reader.error_at_key(entry, what, "remove `stream: true`");
    }
    if let Some(entry) = fields[0].get("batch")
        && protocol.name() != OpenAiEmbeddings.name()
    {
        let what = format!("a request of `protocol: {}` has one text", protocol.name());
        reader.error_at_key(entry, what, "`batch` is for `protocol: openai_embeddings`; remove it");
    }
    if !protocol.is_streamed() {
        return;
    }
    let (Some(false), Some(entry)) = (stream, entry_of("stream")) else {
        return;
    };
    if protocol.unstreamed().is_none() {
        let what = format!("`protocol: {}` has no answers without a stream", protocol.name());
        reader.error_at_key(entry, what, "remove `stream: false`");
    }
    let count = settings.token_count.as_ref().or(defaults.token_count.as_ref());
    if let (Some(TokenCount::Chunks), Some(entry)) = (count, entry_of("token_count")) {
        let what = "`token_count: chunks` counts the events of a stream, and the model has \
                    `stream: false`";
        let help = "`usage` takes the server's count, `{ tokenizer: FILE }` counts the text";
        reader.error_at_key(entry, what, help);
    }
}

/// The endpoint of a model: exactly one of `base_url` and `simulate`.
fn endpoint(
    reader: &mut Reader<'_>,
    model: &Entry<'_>,
    fields: &Fields<'_>,
    protocol: &dyn Protocol,
) -> Option<EndpointConfig> {
    let base_url = fields.get("base_url");
    let simulated = fields.get("simulate");
    let port = fields.get("port");
    match (base_url, simulated) {
        (Some(entry), None) => {
            let number = port.and_then(|port| reader.whole(port));
            let mut urls = base_urls(reader, entry, fields, protocol)?.into_iter();
            let base_url = urls.next()?;
            let port = number.and_then(|port| u16::try_from(port).ok());
            Some(EndpointConfig::Server { base_url, replicas: urls.collect(), port })
        }
        (None, Some(entry)) => {
            if let Some(port) = port {
                let help = "a simulated endpoint chooses its own port; remove `port` or `simulate`";
                reader.error_at_key(port, "`port` cannot be combined with `simulate`", help);
            }
            Some(EndpointConfig::Simulate(simulate(reader, entry)))
        }
        (Some(_), Some(entry)) => {
            let what = format!("{} has both `base_url` and `simulate`", model.label);
            reader.error_at_key(
                entry,
                what,
                "keep `base_url` for a real server, `simulate` for none",
            );
            None
        }
        (None, None) => {
            no_endpoint(reader, model, fields);
            None
        }
    }
}

/// The URL of a server, or those of its replicas.
fn base_urls(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    fields: &Fields<'_>,
    protocol: &dyn Protocol,
) -> Option<Vec<String>> {
    let Yaml::List(items) = &entry.value.value else {
        let url = reader.text(entry)?.value.trim().to_owned();
        validate::url(reader, (entry, &url), fields, protocol);
        return Some(vec![url]);
    };
    if items.is_empty() {
        let help = format!("name at least one, for example base_url: {}", entry.example());
        reader.error(entry, "`base_url` is empty", help);
    }
    let mut urls: Vec<String> = Vec::new();
    for item in entry.items(items) {
        let Some(url) = reader.text(&item) else { continue };
        let url = url.value.trim().to_owned();
        validate::url(reader, (&item, &url), fields, protocol);
        if url.starts_with("unix:") {
            let help = "a replica listens on a port; a unix socket is written alone";
            reader.error(&item, "a unix socket cannot be one of several addresses", help);
        }
        if urls.contains(&url) {
            reader.error(&item, format!("`{url}` is written twice"), "remove one of them");
        }
        urls.push(url);
    }
    for key in ["transport", "proxy"] {
        let Some(other) = fields.get(key) else { continue };
        if matches!(&other.value.value, Yaml::Text(word) if word == "stamped" || word == "none" || word == "auto")
        {
            continue;
        }
        let help = "a list of addresses requires `transport: stamped`, which has no proxy";
        let what = format!("`{key}` cannot be combined with a list of addresses");
        reader.error_at_key(other, what, help);
    }
    Some(urls)
}

fn no_endpoint(reader: &mut Reader<'_>, model: &Entry<'_>, fields: &Fields<'_>) {
    let misspelt = fields.meant.iter().any(|meant| ["base_url", "simulate"].contains(meant));
    if misspelt || !matches!(model.value.value, Yaml::Map(_)) {
        return; // the misspelt key is an error already
    }
    let what = format!("{} has neither `base_url` nor `simulate`", model.label);
    let help = "add `base_url: \"http://localhost:8000\"`, or `simulate: {}` for no real server";
    reader.error_at_key(model, what, help);
}

/// The keys that a model and `defaults` share.
fn settings(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Settings {
    let temperature = fields.get("temperature");
    let max_tokens = fields.get("max_tokens");
    let thresholds = fields.get("thresholds");
    let model_name = fields.get("model_name");
    let model_name = model_name.and_then(|entry| reader.text(entry));
    Settings {
        model_name: model_name.map(|name| name.value),
        temperature: temperature.and_then(|entry| self::temperature(reader, entry)),
        max_tokens: max_tokens.and_then(|entry| self::max_tokens(reader, entry)),
        ignore_eos: fields.get("ignore_eos").and_then(|entry| reader.flag(entry)),
        tools: tools::tools(reader, fields),
        extra_body: fields
            .get("extra_body")
            .map_or_else(Map::new, |entry| extra_body(reader, entry)),
        api_key_env: fields
            .get("api_key_env")
            .and_then(|entry| validate::api_key_env(reader, entry)),
        headers: fields
            .get("headers")
            .map_or_else(Vec::new, |entry| validate::headers(reader, entry)),
        protocol: fields.get("protocol").and_then(|entry| protocol(reader, entry)),
        batch: fields.get("batch").and_then(|entry| reader.whole(entry)),
        stream: fields.get("stream").and_then(|entry| reader.flag(entry)),
        transport: fields.get("transport").and_then(|entry| reader.word(entry, &TRANSPORTS)),
        stamps: fields.get("stamps").and_then(|entry| reader.word(entry, &STAMPS)),
        connection: fields.get("connection").and_then(|entry| reader.word(entry, &CONNECTIONS)),
        prefix_cache: fields
            .get("prefix_cache")
            .and_then(|entry| reader.word(entry, &PREFIX_CACHES)),
        text_fields: text_fields::text_fields(reader, fields),
        token_count: fields.get("token_count").and_then(|entry| token_count(reader, entry)),
        metrics_url: fields.get("metrics_url").and_then(|entry| metrics_url(reader, entry)),
        power_url: fields.get("power_url").and_then(|entry| metrics_url(reader, entry)),
        gpus: fields.get("gpus").and_then(|entry| reader.whole(entry)),
        cost_per_hour: fields.get("cost_per_hour").and_then(|entry| reader.number(entry)),
        timeouts: fields
            .get("timeouts")
            .map_or_else(TimeoutSettings::default, |entry| timeouts(reader, entry)),
        thresholds: thresholds.map_or_else(Vec::new, |entry| self::thresholds(reader, entry)),
        precision: fields.get("precision").and_then(|entry| precision::precision(reader, entry)),
        min_share: fields.get("min_share").and_then(|entry| share(reader, entry, entry.example())),
        run_variation: fields
            .get("run_variation")
            .map_or_else(RunVariation::default, |entry| run_variation(reader, entry)),
        network: network::settings(reader, fields),
    }
}

fn max_tokens(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<u64> {
    if entry.value.value == Yaml::Null {
        let help = "for example `max_tokens: 1024`; `extra_body: { max_tokens: null }` leaves it out of \
                    requests,\nand answers are then as long as the model likes";
        reader.error(entry, "`max_tokens` has no value", help);
        return None;
    }
    reader.whole(entry)
}

/// A number, or `null`, written out: a missing value is a mistake.
fn temperature(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Option<f64>> {
    if reader.is_written_null(entry) {
        return Some(None);
    }
    if entry.value.value == Yaml::Null {
        let help = "for example `temperature: 0.7`; `temperature: null` leaves it out of requests";
        reader.error(entry, "`temperature` has no value", help);
        return None;
    }
    reader.number(entry).map(Some)
}

fn extra_body(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Map<String, serde_json::Value> {
    let Yaml::Map(_) = &entry.value.value else {
        reader.wrong(entry, "a map of fields for the request's body", entry.example());
        return Map::new();
    };
    match reader.json(entry) {
        Some(serde_json::Value::Object(body)) => body,
        _ => Map::new(),
    }
}

/// A list of thresholds, here or at the top level.
pub(super) fn thresholds(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<Spanned<String>> {
    reader.texts(entry)
}

/// `runs` of the top level: a number or `auto`.
pub(super) fn runs(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<RunCount> {
    match &entry.value.value {
        Yaml::Text(text) if text == AUTO => Some(RunCount::Auto),
        Yaml::Text(text) if text.parse::<f64>().is_err() => {
            let what = format!("unknown value `{text}` for `runs`");
            reader.error(entry, what, "write a whole number, such as `runs: 3`, or `runs: auto`");
            None
        }
        _ => u32::try_from(reader.whole(entry)?).ok().map(RunCount::Fixed),
    }
}

/// A part of a whole in percent, as a fraction. `example` is for messages.
pub(super) fn share(reader: &mut Reader<'_>, entry: &Entry<'_>, example: &str) -> Option<f64> {
    let share = match &entry.value.value {
        Yaml::Text(text) => parse_share(text),
        _ => None,
    };
    if share.is_none() {
        reader.wrong(entry, "a share above 0 % and up to 100 %", example);
    }
    share
}

/// The fraction that a percentage such as `2 %` is, above 0 and up to 1.
pub(super) fn parse_share(text: &str) -> Option<f64> {
    let percent = text.trim().strip_suffix('%')?.trim().parse::<f64>().ok();
    let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
    percent.map(|percent| percent / 100.0)
}

/// The number in `3 %`.
fn percent(entry: &Entry<'_>) -> Option<f64> {
    let Yaml::Text(text) = &entry.value.value else { return None };
    text.trim().strip_suffix('%')?.trim().parse().ok()
}

/// `3 %`, or `{ prompts: 3 %, workloads: 20 % }`.
pub(super) fn run_variation(reader: &mut Reader<'_>, entry: &Entry<'_>) -> RunVariation {
    if let Yaml::Map(_) = entry.value.value {
        let fields = reader.fields(entry, Section::RunVariation);
        let mut get = |name| variation(reader, fields.get(name)?);
        return RunVariation { prompts: get("prompts"), workloads: get("workloads") };
    }
    let both = variation(reader, entry);
    RunVariation { prompts: both, workloads: both }
}

/// A percentage from 0 % to 100 %, as a fraction.
fn variation(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<f64> {
    let variation = percent(entry).filter(|percent| (0.0..=100.0).contains(percent));
    if variation.is_none() {
        reader.wrong(entry, "a percentage from 0 % to 100 %", entry.example());
    }
    variation.map(|percent| percent / 100.0)
}

fn protocol(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<&'static dyn Protocol> {
    let name = reader.text(entry)?.value;
    let protocol = protocol::by_name(&name);
    if protocol.is_none() {
        let help = did_you_mean(&name, &protocol::names());
        reader.error(entry, format!("unknown value `{name}` for `protocol`"), help);
    }
    protocol
}

/// `as-listed`, or `interleaved` or `shuffled`, each with a seed in parentheses or without.
pub(super) fn order(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Order> {
    let text = reader.text(entry)?.value;
    let seeded = |word: &str| match text.strip_prefix(word)?.trim() {
        "" => Some(0),
        rest => rest.strip_prefix('(')?.strip_suffix(')')?.trim().parse().ok(),
    };
    let order = match text.as_str() {
        "as-listed" => Some(Order::AsListed),
        _ => {
            let interleaved = seeded("interleaved").map(Order::Interleaved);
            interleaved.or_else(|| seeded("shuffled").map(Order::Shuffled))
        }
    };
    if order.is_none() {
        let help = match nearest(&text, words::names(&ORDERS)) {
            Some(meant) if meant != text => format!("did you mean `{meant}`?"),
            _ => {
                "there are `interleaved(7)`, `shuffled(7)`, 7 being a seed, and `as-listed`".into()
            }
        };
        reader.error(entry, format!("unknown value `{text}` for `order`"), help);
    }
    order
}

pub(super) fn inconclusive(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Inconclusive> {
    reader.word(entry, &INCONCLUSIVE)
}

/// `usage`, `chunks` or `{ tokenizer: FILE }`.
fn token_count(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<TokenCount> {
    if let Yaml::Map(_) = entry.value.value {
        let fields = reader.fields(entry, Section::TokenCount);
        let Some(file) = fields.get("tokenizer") else {
            if fields.meant.is_empty() {
                let help =
                    format!("for example `token_count: {}`", Section::TokenCount.info().example);
                reader.error(entry, "`token_count` has no `tokenizer`", help);
            }
            return None;
        };
        return tokenizer(reader, file).map(TokenCount::Tokenizer);
    }
    let name = reader.text(entry)?.value;
    let count = words::value_of(&name, &TOKEN_COUNTS);
    if count.is_none() {
        let help = match nearest(&name, words::names(&TOKEN_COUNTS)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                format!("there are `usage`, `chunks` and `{}`", Section::TokenCount.info().example)
            }
        };
        reader.error(entry, format!("unknown value `{name}` for `token_count`"), help);
    }
    count
}

/// `off` or a URL; of `metrics_url` also `auto`.
fn metrics_url(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<MetricsUrl> {
    let has_default = entry.rule.is_some_and(|rule| rule.name == "metrics_url");
    if entry.value.value == Yaml::Bool(false) {
        return Some(MetricsUrl::Off);
    }
    let text = reader.text(entry)?.value;
    match text.as_str() {
        "off" => Some(MetricsUrl::Off),
        "auto" if has_default => Some(MetricsUrl::Auto),
        _ => match validate::metrics_url(&text, has_default) {
            Ok(()) => Some(MetricsUrl::At(text)),
            Err((what, help)) => {
                reader.error(entry, what, help);
                None
            }
        },
    }
}

fn timeouts(reader: &mut Reader<'_>, entry: &Entry<'_>) -> TimeoutSettings {
    let fields = reader.fields(entry, Section::Timeouts);
    let mut get = |name| reader.duration(fields.get(name)?);
    TimeoutSettings {
        connect: get("connect"),
        first_token: get("first_token"),
        inter_token: get("inter_token"),
        total: get("total"),
    }
}
