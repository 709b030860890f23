//! `configs.yaml` as written: checked, not resolved.
//!
//! ```text
//! text ─yaml→ tree with places ─reader→ Config
//!                                  └─ every mistake → ConfigErrors
//! ```

mod data_note;
mod dataset;
mod files;
mod find;
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod lengths;
pub(crate) mod mix;
mod model;
mod network;
mod numbers;
mod phases;
mod precision;
mod prompts;
mod reader;
mod reference;
mod schema;
mod secrets;
mod simulate;
mod size;
mod source;
mod span;
mod suggest;
mod sweep;
mod syntax;
mod template;
mod text_fields;
mod think;
mod tools;
mod trace;
mod validate;
mod words;
mod workloads;
mod yaml;

use std::{
    collections::BTreeMap,
    env::VarError,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use llm_stream_client::connect_options::Stamps;
pub use llm_stream_client::{
    options::{ConnectionMode, MetricsUrl},
    secret_names::is_secret_header,
};
pub use llm_stream_core::sample::TokenCount;
use llm_stream_core::{
    abort::AbortRule,
    lengths::LengthRange,
    phases::Phases,
    precision::PrecisionGoal,
    prompt,
    protocol::{Protocol, TextFields},
    schedule::{Shape, Until},
    text::{is_unprintable, without_commands},
};
use llm_stream_sim::Script;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
pub use serde_saphyr::Spanned;

pub(crate) use self::files::{FILE_LIMIT, read_input};
pub(crate) use self::{
    precision::parse as parse_precision,
    size::parse_size,
    suggest::{list, nearest},
};

pub use self::{
    data_note::DataNote,
    find::FindConfig,
    mix::MixPart,
    network::NetworkSettings,
    reference::reference,
    schema::schema,
    source::{ConfigError, ConfigErrors},
    template::{EnvTemplate, Expanded},
    trace::TraceReplay,
};
use crate::env;

use self::{
    keys::{MOST_RUNS, Section},
    reader::{Entry, Fields, Reader},
    source::Source,
    yaml::{Node, Yaml},
};

/// The smallest config, for the help of messages.
const MINIMAL: &str = "\
a minimal config:
models:
  my-model:
    base_url: \"http://localhost:8000\"";

/// The default of `max_tokens`.
pub const DEFAULT_MAX_TOKENS: u64 = 1024;

/// A config as written.
#[derive(Debug, Clone)]
pub struct Config {
    /// `models`, in the order in which they are written. Never empty.
    pub models: Vec<Model>,
    /// `defaults`: the settings of every model that does not override them.
    pub defaults: Settings,
    /// `prompts`, files already read; `None` for the built-in ones. Never empty.
    pub prompts: Option<Vec<PromptConfig>>,
    /// `runs`: the number of runs of each prompt by each model, 1 to 10,000, or `auto`. Default: 3.
    pub runs: RunCount,
    /// `thresholds` of every model. Default: none.
    pub thresholds: Vec<Spanned<String>>,
    /// `goodput` of every workload that has none itself. Default: none.
    pub goodput: Vec<Spanned<String>>,
    /// `order`. Default: `interleaved`.
    pub order: Order,
    /// `inconclusive`. Default: `warn`.
    pub inconclusive: Inconclusive,
    /// `max_runs`, `runs` to 10,000: the limit of runs while thresholds are undecided or `precision`
    /// is not reached.
    pub max_runs: Option<u32>,
    /// `max_time`: how long runs are added at most, from the start. Default: no limit.
    pub max_time: Option<Duration>,
    /// `max_memory`: the memory of all answers together, in bytes. Default: 512 MB.
    pub max_memory: Option<usize>,
    /// `precision` of every model and workload that has none itself. Default: none.
    pub precision: Option<Vec<PrecisionGoal>>,
    /// `workloads`, in the order in which they are written. Default: none.
    pub workloads: Vec<WorkloadConfig>,
    /// The notes on the data sets.
    pub data: Vec<DataNote>,
    /// `run_variation` of models that do not set it.
    pub run_variation: RunVariation,
    source: Source,
    /// The path of each text in the document, by its first byte.
    paths: BTreeMap<usize, String>,
    files: Vec<PathBuf>,
}

/// An entry of `models`.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its key.
    pub key: Spanned<String>,
    /// `name`: its name in the results. Default: the key.
    pub name: Option<Spanned<String>>,
    /// Its endpoint.
    pub endpoint: EndpointConfig,
    /// The keys that `defaults` may have as well.
    pub settings: Settings,
}

/// The endpoint of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum EndpointConfig {
    /// A server.
    Server {
        /// `base_url`: `http://` or `https://`, without user, query and fragment, or `unix://` and an
        /// absolute path. As it is written, so with or without a port, a path and a slash at the end.
        base_url: String,
        /// The other URLs of a list: replicas.
        replicas: Vec<String>,
        /// `port`, 1 to 65,535; `None` when `base_url` has one. Default: that of the scheme.
        port: Option<u16>,
    },
    /// `simulate`: the script of a simulated server. Durations are at most a day, the
    /// jitter is not longer than `ttft` and `itl`; for defaults see [`Script::default`].
    Simulate(Script),
}

/// The keys that a model and `defaults` share. A key that is not written is `None` or empty.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `model_name`: the server's name for the model. Default: the model's key.
    pub model_name: Option<String>,
    /// `temperature`, 0 to 2; `null` leaves it out of the request. Default: 0.7.
    pub temperature: Option<Option<f64>>,
    /// `max_tokens`: the most tokens to generate, 1 or more. Default: 1024.
    pub max_tokens: Option<u64>,
    /// `ignore_eos`: whether the model must not end its answer itself; overrides the prompts.
    /// Default: the value of the prompt.
    pub ignore_eos: Option<bool>,
    /// `tools` and `tool_choice` of prompts that have none. Default: none.
    pub tools: prompt::Tools,
    /// `extra_body`: fields that are merged into the request's body. Default: none.
    pub extra_body: Map<String, Value>,
    /// `api_key_env`: the environment variable that holds the key. Default: no key is sent.
    pub api_key_env: Option<Spanned<String>>,
    /// `headers` of each request. Default: none.
    pub headers: Vec<(HeaderName, EnvTemplate)>,
    /// `protocol`. Default: `openai_chat`.
    pub protocol: Option<&'static dyn Protocol>,
    /// `batch`: the number of texts in a request for embeddings. Default: 1.
    pub batch: Option<u64>,
    /// `stream`: whether answers are streamed. Default: true.
    pub stream: Option<bool>,
    /// `transport`. Default: `auto`.
    pub transport: Option<TransportSetting>,
    /// `stamps`. Default: `auto`.
    pub stamps: Option<Stamps>,
    /// `connection`. Default: `warm`.
    pub connection: Option<ConnectionMode>,
    /// `prefix_cache`. Default: `fresh`.
    pub prefix_cache: Option<PrefixCache>,
    /// `text_fields` and `ignore_fields`: fields of the delta that the protocol does not define.
    /// Default: none.
    pub text_fields: Option<TextFields>,
    /// `token_count`. Default: `usage`.
    pub token_count: Option<TokenCount>,
    /// `metrics_url`. Default: `off`.
    pub metrics_url: Option<MetricsUrl>,
    /// `power_url`: the exporter of the GPUs' power. Default: `off`.
    pub power_url: Option<MetricsUrl>,
    /// `gpus`: the number of GPUs that serve the model. Default: unknown.
    pub gpus: Option<u64>,
    /// `cost_per_hour` of the machine that serves the model. Default: unknown.
    pub cost_per_hour: Option<f64>,
    /// `timeouts`.
    pub timeouts: TimeoutSettings,
    /// `thresholds`, in addition to those of the top level. Default: none.
    pub thresholds: Vec<Spanned<String>>,
    /// `precision`: how precisely means are to be known. Default: that of the top level.
    pub precision: Option<Vec<PrecisionGoal>>,
    /// `min_share`, above 0 to 1: the share of the answers that must have a figure, or its
    /// threshold fails. Default: 0.9.
    pub min_share: Option<f64>,
    /// `run_variation`. Default: that of the top level.
    pub run_variation: RunVariation,
    /// The network settings.
    pub network: NetworkSettings,
}

/// `run_variation`: the assumed relative standard deviation of a figure between runs on an
/// unchanged server, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RunVariation {
    /// Of prompts that are sent one by one. Default: 0.03.
    pub prompts: Option<f64>,
    /// Under load. Default: 0.2.
    pub workloads: Option<f64>,
}

/// `proxy`: the HTTP proxy of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxySetting {
    /// `none`: no proxy; the environment is ignored.
    None,
    /// A URL, `http://` or `https://`, with or without user and password.
    Through(EnvTemplate),
}

/// `transport`: the HTTP client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportSetting {
    /// `auto`: `stamped` where it is available, else `reqwest`.
    #[default]
    Auto,
    /// `stamped`: HTTP/1.1 over our own socket, with kernel timestamps where available.
    Stamped,
    /// `reqwest`: HTTP/2 and proxies, with user-space timestamps.
    Reqwest,
}

/// `runs`: how often each model gets each prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunCount {
    /// This often, 1 to 10,000.
    Fixed(u32),
    /// `auto`: three times, and then as often as the noise of these requires.
    Auto,
}

impl RunCount {
    /// The default, and how often `auto` runs a prompt before it chooses.
    const FIRST: u32 = 3;

    /// How often each prompt is run at first.
    pub const fn first(self) -> u32 {
        match self {
            Self::Fixed(runs) => runs,
            Self::Auto => Self::FIRST,
        }
    }
}

impl Default for RunCount {
    fn default() -> Self {
        Self::Fixed(Self::FIRST)
    }
}

/// `order`: the order of the trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `as-listed`: model by model.
    AsListed,
    /// `interleaved(SEED)`: run by run. Each run asks every prompt once, in random order, and the
    /// models take turns, so that a drift affects all prompts and models alike.
    Interleaved(u64),
    /// `shuffled(SEED)`: random.
    Shuffled(u64),
}

impl Default for Order {
    fn default() -> Self {
        Self::Interleaved(0)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsListed => f.write_str("as-listed"),
            Self::Interleaved(seed) => write!(f, "interleaved({seed})"),
            Self::Shuffled(seed) => write!(f, "shuffled({seed})"),
        }
    }
}

/// `inconclusive`: the result of a run with an undecided threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Inconclusive {
    /// `pass`: the run passes.
    Pass,
    /// `warn`: a warning, and exit code 0.
    #[default]
    Warn,
    /// `fail`: the run fails.
    Fail,
}

/// `prefix_cache`: whether a server's prefix cache can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrefixCache {
    /// `fresh`: each request begins with a unique text, so that prefill is measured.
    #[default]
    Fresh,
    /// `reuse`: a prompt is sent unchanged, so that the cache can serve repeats.
    Reuse,
}

impl PrefixCache {
    /// The name in the config and the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Reuse => "reuse",
        }
    }
}

/// `timeouts`, each longer than zero and at most a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeoutSettings {
    /// `connect`: DNS, TCP and TLS.
    pub connect: Option<Duration>,
    /// `first_token`: request sent → first generated token.
    pub first_token: Option<Duration>,
    /// `inter_token`: from one token to the next.
    pub inter_token: Option<Duration>,
    /// `total`: request sent → end of the answer.
    pub total: Option<Duration>,
}

/// An entry of `prompts`, or a file of its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptConfig {
    /// `name`; of a folder's file, its name without the extension; of a record, the `name` of the
    /// data set, and its own or its number.
    pub name: Spanned<String>,
    /// The messages: `system`, and `text`, the whole of `file`, or a record of `dataset`.
    pub prompt: prompt::Prompt,
}

/// An entry of `workloads`.
#[derive(Debug, Clone)]
pub struct WorkloadConfig {
    /// Its key.
    pub name: Spanned<String>,
    /// `concurrency`, or `rate` with `arrivals`, `seed` and `max_in_flight`, or the recorded arrivals
    /// of `trace`.
    pub shape: Shape,
    /// `find`: the search for the highest load, of which `shape` is the first one.
    pub find: Option<FindConfig>,
    /// `trace`, whose arrivals are those of `shape`. Default: none.
    pub trace: Option<TraceReplay>,
    /// `requests`, `duration`, or both; of a trace, also its number of requests.
    pub until: Until,
    /// `ramp`, `warm_up` and `steady_state`. Default: the whole load is measured.
    pub phases: Phases,
    /// `abort`. Default: only a load that can no longer become valid is stopped.
    pub abort: AbortRule,
    /// `input_tokens`, instead of those of its generated prompts.
    pub input_tokens: Option<LengthRange>,
    /// `output_tokens`, instead of those of its prompts.
    pub output_tokens: Option<LengthRange>,
    /// `prompts`: the names of the prompts that requests take in turn. Default: all.
    pub prompts: Vec<Spanned<String>>,
    /// `think`, in milliseconds. Default: no time.
    pub think: Option<LengthRange>,
    /// `seed` of `arrivals`, `mix` and `think`. Default: 0.
    pub seed: u64,
    /// `mix`: groups of prompts by weight, instead of `prompts`. Default: none.
    pub mix: Vec<MixPart>,
    /// `runs`. Default: that of the top level.
    pub runs: Option<u32>,
    /// `thresholds` of each model under this load. Default: none.
    pub thresholds: Vec<Spanned<String>>,
    /// `goodput` under this load. Default: that of the top level.
    pub goodput: Option<Vec<Spanned<String>>>,
    /// `precision` of each model under this load. Default: that of the top level.
    pub precision: Option<Vec<PrecisionGoal>>,
}

impl Config {
    /// Reads the config at `path`, and the prompts that it names.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let bytes =
            read_input(path, files::CONFIG_LIMIT).map_err(|error| unreadable(path, &error))?;
        let text = String::from_utf8(bytes).map_err(|error| not_utf8(&file, &error))?;
        Self::parse(&text, &file, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads the config `text`, which came from `file_name`; paths in it are relative to
    /// `base_dir`.
    pub fn parse(text: &str, file_name: &str, base_dir: &Path) -> Result<Self, ConfigErrors> {
        let mut source = Source::new(file_name, text);
        let root = yaml::parse(source.text()).map_err(|error| not_yaml(&mut source, &error))?;
        source.hide(secrets::in_tree(&root, source.text()));
        let config = Self::of_tree(source, &root, base_dir)?;
        let mut errors = validate::names(&config);
        errors.extend(validate::prompts_fit(&config));
        errors.extend(trace::bodies_fit(&config));
        errors.extend(mix::overlaps(&config));
        match errors.is_empty() {
            true => Ok(config),
            false => Err(ConfigErrors(errors)),
        }
    }

    fn of_tree(source: Source, root: &Node, base_dir: &Path) -> Result<Self, ConfigErrors> {
        if root.value == Yaml::Null {
            let comments = source.text().contains('#');
            let holds = if comments { "holds nothing but comments" } else { "is empty" };
            let what = format!("{} {holds}", source.file());
            return Err(source.error(0..0, "", what, MINIMAL).into());
        }
        let mut reader = Reader::new(&source, base_dir);
        let root = Entry::root(root);
        let fields = reader.fields(&root, Section::Top);
        let (defaults, default_fields) = match fields.get("defaults") {
            Some(entry) => model::defaults(&mut reader, entry),
            None => (Settings::default(), Fields::default()),
        };
        let models = match fields.get("models") {
            Some(entry) => model::models(&mut reader, entry, (&defaults, &default_fields)),
            None => no_models(&mut reader, &root, &fields),
        };
        let prompts = fields.get("prompts").map(|entry| prompts::prompts(&mut reader, entry));
        let runs = fields.get("runs").and_then(|entry| model::runs(&mut reader, entry));
        let thresholds = fields.get("thresholds");
        let thresholds = thresholds.map(|entry| model::thresholds(&mut reader, entry));
        let goodput = fields.get("goodput").map(|entry| model::thresholds(&mut reader, entry));
        let workloads = fields.get("workloads");
        let has_prompts = fields.get("prompts").is_some();
        let workloads = workloads
            .map(|entry| workloads::workloads(&mut reader, entry, has_prompts, prompts.as_deref()));
        let order = fields.get("order").and_then(|entry| model::order(&mut reader, entry));
        let inconclusive = fields.get("inconclusive");
        let inconclusive = inconclusive.and_then(|entry| model::inconclusive(&mut reader, entry));
        let run_variation = fields.get("run_variation");
        let run_variation = run_variation.map(|entry| model::run_variation(&mut reader, entry));
        let runs = runs.unwrap_or_default();
        let (max_runs, max_time) = limits(&mut reader, &fields, runs);
        let max_memory = fields.get("max_memory").and_then(|entry| size::size(&mut reader, entry));
        let precision = fields.get("precision");
        let precision = precision.and_then(|entry| precision::precision(&mut reader, entry));
        let files = std::mem::take(&mut reader.files);
        let (paths, data) = reader.finish()?;
        Ok(Self {
            models,
            defaults,
            prompts,
            runs,
            thresholds: thresholds.unwrap_or_default(),
            goodput: goodput.unwrap_or_default(),
            order: order.unwrap_or_default(),
            inconclusive: inconclusive.unwrap_or_default(),
            max_runs,
            max_time,
            max_memory,
            precision,
            workloads: workloads.unwrap_or_default(),
            data,
            run_variation: run_variation.unwrap_or_default(),
            source,
            paths,
            files,
        })
    }

    /// Fails with an error for each skipped record of a data set, for `--strict-data`.
    pub fn with_all_data(self) -> Result<Self, ConfigErrors> {
        let errors: Vec<_> = self.data.iter().flat_map(DataNote::errors).collect();
        match errors.is_empty() {
            true => Ok(self),
            false => Err(ConfigErrors(errors)),
        }
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        self.source.file()
    }

    /// Returns its text with `***` in place of secrets, and whether there are any.
    pub(crate) fn masked_text(&self) -> (String, bool) {
        self.source.masked_text()
    }

    /// The files that it names and that were read: prompts, data sets, images, certificates.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// An error in a text of this config, such as a threshold: `offset` is the byte of its value
    /// at which it begins.
    pub fn error_at(
        &self,
        at: &Spanned<String>,
        offset: usize,
        message: &str,
        help: &str,
    ) -> ConfigError {
        let length = at.value.get(offset..).map_or(0, first_word);
        self.error_of(at, offset..offset + length, message, help)
    }

    /// An error in a text of this config, at `name` in it, which can be several words.
    pub(crate) fn error_at_name(
        &self,
        at: &Spanned<String>,
        offset: usize,
        name: &str,
        message: &str,
        help: &str,
    ) -> ConfigError {
        self.error_of(at, offset..offset + name.len(), message, help)
    }

    /// An error at these bytes of a text.
    fn error_of(
        &self,
        at: &Spanned<String>,
        part: Range<usize>,
        message: &str,
        help: &str,
    ) -> ConfigError {
        let whole = self.source.bytes(at.defined);
        let written = &self.source.text()[whole.clone()];
        let quote = usize::from(written.starts_with(['"', '\'']));
        let value = at.value.as_str();
        // An escaped or folded text has other columns: the caret marks the whole text.
        let place = match (written[quote..].get(..part.end), value.get(..part.end)) {
            (Some(before), Some(same)) if before == same => {
                let start = whole.start + quote;
                start + part.start..start + part.end
            }
            _ => whole.clone(),
        };
        let path = self.paths.get(&whole.start).map_or("", String::as_str);
        self.source.error(place, path, message, help)
    }

    /// An error in a text of this config as a whole.
    pub fn error_in(&self, at: &Spanned<String>, message: &str, help: &str) -> ConfigError {
        let place = self.source.bytes(at.defined);
        let path = self.paths.get(&place.start).map_or("", String::as_str);
        self.source.error(place, path, message, help)
    }

    /// The key in the environment variable that an `api_key_env` of this config names.
    pub fn api_key(&self, api_key_env: &Spanned<String>) -> Result<String, ConfigError> {
        let name = &api_key_env.value;
        let what = match env::variable(name) {
            Ok(key) if key.trim().is_empty() => "is empty",
            Ok(key) if HeaderValue::from_str(key.trim()).is_ok() => {
                return Ok(key.trim().to_owned());
            }
            Err(VarError::NotPresent) => "is not set",
            Ok(_) | Err(VarError::NotUnicode(_)) => "holds characters that a key cannot have",
        };
        let what = format!("the environment variable `{name}` {what}");
        Err(self.error_in(api_key_env, &what, &format!("set it: `export {name}=…`")))
    }
}

impl Model {
    /// Its name in the results.
    pub fn display_name(&self) -> &Spanned<String> {
        self.name.as_ref().unwrap_or(&self.key)
    }

    /// Returns whether it has this name or this key.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.key.value == name || self.display_name().value == name
    }
}

impl Settings {
    /// These settings, completed by those of `defaults`. Fields of `extra_body` and headers are
    /// merged one by one; thresholds add up.
    pub fn over(&self, defaults: &Self) -> Self {
        let mut extra_body = defaults.extra_body.clone();
        extra_body.extend(self.extra_body.clone());
        let overridden = |name| self.headers.iter().any(|(own, _)| own == name);
        let inherited = defaults.headers.iter().filter(|(name, _)| !overridden(name));
        Self {
            model_name: self.model_name.clone().or_else(|| defaults.model_name.clone()),
            temperature: self.temperature.or(defaults.temperature),
            max_tokens: self.max_tokens.or(defaults.max_tokens),
            ignore_eos: self.ignore_eos.or(defaults.ignore_eos),
            tools: self.tools.over(&defaults.tools),
            extra_body,
            api_key_env: self.api_key_env.clone().or_else(|| defaults.api_key_env.clone()),
            headers: inherited.chain(&self.headers).cloned().collect(),
            protocol: self.protocol.or(defaults.protocol),
            batch: self.batch.or(defaults.batch),
            stream: self.stream.or(defaults.stream),
            transport: self.transport.or(defaults.transport),
            stamps: self.stamps.or(defaults.stamps),
            connection: self.connection.or(defaults.connection),
            prefix_cache: self.prefix_cache.or(defaults.prefix_cache),
            text_fields: self.text_fields.clone().or_else(|| defaults.text_fields.clone()),
            token_count: self.token_count.clone().or_else(|| defaults.token_count.clone()),
            metrics_url: self.metrics_url.clone().or_else(|| defaults.metrics_url.clone()),
            power_url: self.power_url.clone().or_else(|| defaults.power_url.clone()),
            gpus: self.gpus.or(defaults.gpus),
            cost_per_hour: self.cost_per_hour.or(defaults.cost_per_hour),
            timeouts: self.timeouts.over(defaults.timeouts),
            thresholds: defaults.thresholds.iter().chain(&self.thresholds).cloned().collect(),
            precision: self.precision.clone().or_else(|| defaults.precision.clone()),
            min_share: self.min_share.or(defaults.min_share),
            run_variation: self.run_variation.over(defaults.run_variation),
            network: self.network.over(&defaults.network),
        }
    }
}

impl RunVariation {
    /// These variations, completed by those of `defaults`.
    pub fn over(self, defaults: Self) -> Self {
        Self {
            prompts: self.prompts.or(defaults.prompts),
            workloads: self.workloads.or(defaults.workloads),
        }
    }
}

impl TimeoutSettings {
    /// These timeouts, completed by those of `defaults`.
    pub fn over(self, defaults: Self) -> Self {
        Self {
            connect: self.connect.or(defaults.connect),
            first_token: self.first_token.or(defaults.first_token),
            inter_token: self.inter_token.or(defaults.inter_token),
            total: self.total.or(defaults.total),
        }
    }
}

/// The length of the longest name of a model, a prompt or a workload, in characters.
pub(crate) const LONGEST_NAME: usize = 500;

/// `name` as a part of a trial's name: each run of blanks, invisible characters and
/// `:` `,` `"` `'` `` ` `` becomes one `_`, and so does the bracket of a command such as `##[error]`;
/// other characters, such as `/`, `.` and `中`, stay.
pub fn sanitise(name: &str) -> String {
    let splits = |ch: char| ch.is_whitespace() || is_unprintable(ch) || ":,\"'`".contains(ch);
    let mut sanitised = String::with_capacity(name.len());
    let mut in_run = false;
    for ch in name.chars() {
        let replaced = splits(ch);
        match replaced {
            true if !in_run => sanitised.push('_'),
            true => {}
            false => sanitised.push(ch),
        }
        in_run = replaced;
    }
    without_commands(&sanitised).into_owned()
}

/// A duration with its unit, at most a day, as in the config; or the mistake, "it is …".
pub fn duration(text: &str) -> Result<Duration, String> {
    reader::parse_duration(text, true).map_err(|(what, help)| format!("it {what}; {help}`50ms`"))
}

/// Escapes `text` for a component of a URL.
pub fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The length of the word that `text` begins with.
fn first_word(text: &str) -> usize {
    text.find(char::is_whitespace).unwrap_or(text.len())
}

/// `max_runs` and `max_time`.
fn limits(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    runs: RunCount,
) -> (Option<u32>, Option<Duration>) {
    let range = u64::from(runs.first())..=MOST_RUNS;
    let max_runs = fields.get("max_runs").and_then(|entry| reader.whole_in(entry, range));
    let max_time = fields.get("max_time").and_then(|entry| reader.duration(entry));
    (max_runs.and_then(|runs| u32::try_from(runs).ok()), max_time)
}

fn no_models(reader: &mut Reader<'_>, root: &Entry<'_>, fields: &Fields<'_>) -> Vec<Model> {
    if matches!(root.value.value, Yaml::Map(_)) && !fields.meant.contains(&"models") {
        reader.error(root, "there are no `models`", MINIMAL);
    }
    Vec::new()
}

/// The error for a config that cannot be read.
fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    let looked_for = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let place = looked_for.display().to_string();
    let name = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            let help = match sibling(path) {
                Some(sibling) => format!("did you mean `{}`?", sibling.display()),
                None => MINIMAL.to_owned(),
            };
            ConfigError::of_file(place, format!("there is no config `{name}`"), help)
        }
        io::ErrorKind::IsADirectory => {
            let help = format!("name the file: `{}`", path.join("configs.yaml").display());
            ConfigError::of_file(place, format!("the config `{name}` is a folder"), help)
        }
        _ => {
            let what = format!("the config `{name}` cannot be read: {error}");
            let help = files::hint(error);
            let help = help.unwrap_or("check its permissions, and those of its folder");
            ConfigError::of_file(place, what, help)
        }
    }
}

/// A config next to `path` that has another of the usual names.
fn sibling(path: &Path) -> Option<PathBuf> {
    let names = ["configs.yaml", "configs.yml", "config.yaml", "config.yml"];
    let mut siblings = names.iter().map(|name| path.with_file_name(name));
    siblings.find(|sibling| sibling.is_file())
}

fn not_utf8(file: &str, error: &std::string::FromUtf8Error) -> ConfigError {
    let text = String::from_utf8_lossy(error.as_bytes());
    let mut source = Source::new(file, &text);
    let mark = text.len() - source.text().len();
    let at = error.utf8_error().valid_up_to() - mark;
    source.hide(secrets::in_lines(source.text()));
    let help = "save the file as UTF-8";
    source.error(at..at + 3, "", format!("{file} is not UTF-8 text"), help)
}

/// The error of the YAML parser, explained.
fn not_yaml(source: &mut Source, error: &serde_saphyr::Error) -> ConfigError {
    source.hide(secrets::in_lines(source.text()));
    let place = error.location().map_or(0..0, |location| source.bytes(location));
    let message = error.render_with_options(serde_saphyr::render_options! {
        formatter: &serde_saphyr::UserMessageFormatter,
        snippets: serde_saphyr::SnippetMode::Off,
    });
    let message = message.split(" at line ").next().unwrap_or_default();
    let tabs = source.text()[..place.start].len()
        - source.text()[..place.start].trim_end_matches('\t').len();
    let place = place.start - tabs..place.end;
    let (what, help) = syntax::explain(message);
    source.error(place, "", what, help)
}
