//! Config × arguments → [`Plan`]: every combination as a [`Case`] with nothing left to decide.

pub mod access;
mod group;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use http::{HeaderName, Uri};
use llm_stream_client::{self as client, AnswerForm, connect_options::Stamps, proxy};
pub use llm_stream_client::{
    connect_options::Secret,
    options::{Access, Timeouts, Transport},
};
use llm_stream_core::unix_url::{self, UnixUrl};
use llm_stream_core::{
    group::GroupSpec,
    lacking::MIN_SHARE,
    metric::Metric,
    prompt::{self, Prompt, Tools},
    protocol::{OpenAiChat, Protocol, TextFields},
    schedule::{Shape, Until},
    text::visible,
    threshold::Threshold,
};
use llm_stream_sim::Script;
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use serde_json::{Map, Value};

use crate::config::{
    self, Config, ConfigError, ConfigErrors, ConnectionMode, EnvTemplate, MetricsUrl,
    NetworkSettings, Order, PrefixCache, Settings, Spanned, TokenCount, sanitise,
};

/// What overrides keys of the config, from the command line or from code.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The models to run, by key or name; empty for all.
    pub models: Vec<String>,
    /// How often each prompt and workload is run at first.
    pub runs: Option<u32>,
    /// How often it is run at most where thresholds are undecided.
    pub max_runs: Option<u32>,
    /// Whether no warm-up request is sent.
    pub no_warmup: bool,
    /// Where recordings are kept.
    pub record: Option<PathBuf>,
}

/// All that a run will do.
#[derive(Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The models, in the config's order.
    pub targets: Vec<Arc<Target>>,
    /// The prompts, in the config's order.
    pub prompts: Vec<Arc<Prompt>>,
    /// The workloads, in the config's order.
    pub workloads: Vec<Arc<Workload>>,
    /// The trials, in the order in which they run: model by model, prompt by prompt, then workload
    /// by workload.
    pub cases: Vec<Arc<Case>>,
    /// In which order they run.
    pub order: Order,
    /// Whether a model is warmed up before its first trial.
    pub warm_up: bool,
    /// How often each model gets each prompt at first.
    pub runs: u32,
    /// How often a prompt or workload is run at most where thresholds are undecided, as a multiple of
    /// its runs; 1 or more.
    pub most_runs: f64,
    /// Where recordings are kept.
    pub record: Option<PathBuf>,
}

/// A model at an endpoint, with all that a request to it needs but the key.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Target {
    /// Its position in the config, from 0.
    pub index: usize,
    /// Its key in the config.
    pub key: String,
    /// Its name in reports. That of a simulated one says so.
    pub name: String,
    /// The same as it is written, with what cannot be shown.
    pub written: String,
    /// Its name in trial names.
    pub trial_name: String,
    /// Its name for the server.
    pub model: String,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// What is spoken there.
    pub protocol: &'static dyn Protocol,
    /// Sampling temperature; `None` leaves it to the server.
    pub temperature: Option<f64>,
    /// Most tokens to generate.
    pub max_tokens: u64,
    /// Whether the model is not to end by itself, whatever a prompt says.
    pub ignore_eos: Option<bool>,
    /// The tools that the model may call, of prompts that say nothing of them.
    pub tools: Tools,
    /// The user's own fields of the request's body.
    pub extra_body: Map<String, Value>,
    /// Headers of every request, besides our own.
    pub headers: Vec<(HeaderName, EnvTemplate)>,
    /// How it is reached.
    pub network: NetworkSettings,
    /// The environment variable that holds the key, where the config names it.
    pub api_key_env: Option<Spanned<String>>,
    /// What carries the requests.
    pub transport: Transport,
    /// Which stamps of the kernel arrivals get.
    pub stamps: Stamps,
    /// What a request finds when it starts.
    pub connection: ConnectionMode,
    /// Whether a server's prefix cache may help.
    pub prefix_cache: PrefixCache,
    /// What fields of the delta hold that the protocol does not know.
    pub text_fields: TextFields,
    /// Who counts tokens when the server does not.
    pub token_count: TokenCount,
    /// Where the server's metrics are, if they are to be read.
    pub metrics_url: Option<MetricsUrl>,
    /// When to give up.
    pub timeouts: Timeouts,
    /// The limits that it is held to.
    pub thresholds: Vec<Threshold>,
    /// The part of the answers that must have a figure for it to be judged.
    pub min_share: f64,
}

impl Target {
    /// Whether its figures are those of a script.
    pub fn is_simulated(&self) -> bool {
        matches!(self.endpoint, Endpoint::Simulated(_))
    }

    /// Whether its answers come encrypted.
    pub fn is_over_tls(&self) -> bool {
        matches!(&self.endpoint, Endpoint::Url(url) if url.starts_with("https://"))
    }

    /// The environment variable with the proxy that its requests do not go through, though they
    /// should: only reqwest knows proxies.
    pub fn bypassed_proxy(&self) -> Option<&'static str> {
        match (&self.endpoint, self.transport, &self.network.proxy) {
            (Endpoint::Url(url), Transport::Stamped, None) => proxy::proxy_variable(url),
            _ => None,
        }
    }

    /// Whether it is not asked to prove who it is, though it could.
    pub fn is_insecure(&self) -> bool {
        let over_tls = matches!(&self.endpoint, Endpoint::Url(url) if is_https(url));
        over_tls && self.network.insecure_tls == Some(true)
    }

    /// Its endpoint in reports.
    pub fn endpoint_name(&self) -> &str {
        match &self.endpoint {
            Endpoint::Url(url) | Endpoint::Socket { url, .. } => url,
            Endpoint::Simulated(_) => "simulated",
        }
    }

    /// Whether it is reached by a socket in the file system.
    pub fn is_by_socket(&self) -> bool {
        matches!(self.endpoint, Endpoint::Socket { .. })
    }

    /// Options of a client that sends to `url`.
    pub(crate) fn client_options<'a>(
        &self,
        access: &'a Access,
        url: &'a str,
    ) -> client::Options<'a> {
        client::Options {
            url,
            headers: &access.headers,
            api_key: access.key.as_ref(),
            timeouts: self.timeouts,
            transport: self.transport,
            connection: self.connection,
            protocol: self.protocol,
            answer: AnswerForm::Stream {
                needs_usage: matches!(self.token_count, TokenCount::Usage),
            },
            route: &access.route,
        }
    }

    /// The `base_url` by which requests go to `url`, which is one of those that they are sent with.
    pub fn base_url_of(&self, url: &str) -> String {
        match &self.endpoint {
            Endpoint::Socket { socket, .. } => {
                unix_url::unix_url(socket, url.strip_prefix(SOCKET_ORIGIN).unwrap_or_default())
            }
            _ => url.to_owned(),
        }
    }
}

/// The endpoint of a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Endpoint {
    /// The URL that requests go to.
    Url(String),
    /// A socket in the file system of this machine.
    Socket {
        /// Its path.
        socket: PathBuf,
        /// The path of requests, with the protocol's own.
        path: String,
        /// Both in one, as reports show them.
        url: String,
    },
    /// The simulator, started for the run.
    Simulated(Script),
}

/// One trial: a model, what it is asked, a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Case {
    /// `MODEL::PROMPT::run-N` or `MODEL::WORKLOAD::run-N`.
    pub name: String,
    /// The group that it is one trial of.
    pub group: Arc<GroupSpec>,
    /// The model.
    pub target: Arc<Target>,
    /// What it is asked.
    pub task: Task,
    /// Which run of it, from 1.
    pub run: u32,
}

impl Case {
    /// The limits of the group that it is one of.
    pub fn thresholds(&self) -> &[Threshold] {
        &self.group.thresholds
    }

    /// The `run`-th run of `task` by `target`.
    pub fn new(group: &Arc<GroupSpec>, target: &Arc<Target>, task: &Task, run: u32) -> Self {
        let name = format!("{}::{}::run-{run}", target.trial_name, sanitise(task.written()));
        let (group, target) = (group.clone(), target.clone());
        Self { name, group, target, task: task.clone(), run }
    }

    /// Another run of the same task by the same model.
    pub fn repeated(&self, run: u32) -> Self {
        Self::new(&self.group, &self.target, &self.task, run)
    }
}

/// What a model is asked in one trial.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Task {
    /// One prompt, by itself.
    Prompt(Arc<Prompt>),
    /// Many requests.
    Workload(Arc<Workload>),
}

impl Task {
    /// Its name in results.
    pub fn name(&self) -> &str {
        match self {
            Self::Prompt(prompt) => &prompt.name,
            Self::Workload(workload) => &workload.name,
        }
    }

    /// Its name as it is written, of which [`sanitise`] makes that in trial names.
    pub fn written(&self) -> &str {
        match self {
            Self::Prompt(prompt) => &prompt.written,
            Self::Workload(workload) => &workload.written,
        }
    }

    /// The prompt; of a workload the first one.
    pub fn prompt(&self) -> &Arc<Prompt> {
        match self {
            Self::Prompt(prompt) => prompt,
            Self::Workload(workload) => &workload.prompts[0],
        }
    }

    /// The workload, if it is one.
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Prompt(_) => None,
            Self::Workload(workload) => Some(workload),
        }
    }

    /// A key that two tasks share if they are the same prompt or workload: its address.
    pub fn key(&self) -> usize {
        match self {
            Self::Prompt(prompt) => Arc::as_ptr(prompt).addr(),
            Self::Workload(workload) => Arc::as_ptr(workload).addr(),
        }
    }

    /// Whether both are the same prompt or workload.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prompt(a), Self::Prompt(b)) => Arc::ptr_eq(a, b),
            (Self::Workload(a), Self::Workload(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// A load of many requests.
#[derive(Debug)]
#[non_exhaustive]
pub struct Workload {
    /// Its position in the config, from 0.
    pub index: usize,
    /// Its name in results.
    pub name: String,
    /// Its name as it is written, with what cannot be shown.
    pub written: String,
    /// When requests are sent.
    pub shape: Shape,
    /// When it is over.
    pub until: Until,
    /// The prompts that it takes, one after the other. Never empty.
    pub prompts: Vec<Arc<Prompt>>,
    /// How often each model gets it.
    pub runs: u32,
    /// The limits that each model is held to under it.
    pub thresholds: Vec<Threshold>,
}

/// Why the config and the arguments make no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A text in the config means nothing.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// `--models` names an unknown model.
    #[error("no model `{name}` in {file}{}\n  models: {}", did_you_mean(name, near), quoted(known))]
    UnknownModel {
        /// The name as it was given.
        name: String,
        /// The config's file.
        file: String,
        /// The name that was probably meant.
        near: Option<String>,
        /// The names that there are.
        known: Vec<String>,
    },
    /// `--models` is there and names none.
    #[error(
        "`--models` names no model\n  models: {}\n  help: leave it out to run every model of {file}",
        quoted(known)
    )]
    NoModelNamed {
        /// The config's file.
        file: String,
        /// The names that there are.
        known: Vec<String>,
    },
}

fn did_you_mean(name: &str, near: &Option<String>) -> String {
    let near = near.as_ref();
    near.map(|near| format!("\n  help: for `{name}`, did you mean `{near}`?")).unwrap_or_default()
}

/// Names may hold commas and blanks.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Plan {
    /// Every combination of what `config` names and `overrides` ask for.
    pub fn new(config: &Config, overrides: &Overrides) -> Result<Self, PlanError> {
        let targets = targets(config)?;
        let targets = chosen(targets, &overrides.models, config.file())?;
        let prompts: Vec<_> = prompts(config).into_iter().map(Arc::new).collect();
        let workloads = workloads(config, overrides, &prompts)?;
        let runs = overrides.runs.unwrap_or(config.runs);
        let mut cases = cases(&targets, &prompts, runs, &workloads);
        arrange(&mut cases, config.order);
        let order = config.order;
        let record = overrides.record.clone();
        let max_runs = overrides.max_runs.or(config.max_runs).unwrap_or(runs).max(runs);
        let most_runs = f64::from(max_runs) / f64::from(runs);
        let warm_up = !overrides.no_warmup;
        Ok(Self { targets, prompts, workloads, cases, order, warm_up, runs, most_runs, record })
    }

    /// Only the cases that `keep` keeps.
    pub fn select(mut self, keep: impl Fn(&Case) -> bool) -> Self {
        self.cases.retain(|case| keep(case));
        self
    }

    /// Whether a selected model is held to a change against a baseline.
    pub fn has_relative_thresholds(&self) -> bool {
        self.cases.iter().any(|case| case.thresholds().iter().any(|limit| limit.is_relative))
    }

    /// How often `workload`, or without one each prompt, is run at first.
    pub fn first_runs(&self, workload: Option<&Workload>) -> u32 {
        workload.map_or(self.runs, |workload| workload.runs)
    }

    /// The models of the cases, in their order.
    pub fn selected_targets(&self) -> Vec<Arc<Target>> {
        let selected: HashSet<_> =
            self.cases.iter().map(|case| Arc::as_ptr(&case.target)).collect();
        let is_selected = |target: &&Arc<Target>| selected.contains(&Arc::as_ptr(target));
        self.targets.iter().filter(is_selected).cloned().collect()
    }
}

fn cases(
    targets: &[Arc<Target>],
    prompts: &[Arc<Prompt>],
    runs: u32,
    workloads: &[Arc<Workload>],
) -> Vec<Arc<Case>> {
    let prompts = prompts.iter().map(|prompt| (Task::Prompt(prompt.clone()), runs));
    let workloads =
        workloads.iter().map(|workload| (Task::Workload(workload.clone()), workload.runs));
    let tasks: Vec<_> = prompts.chain(workloads).collect();
    let mut cases = Vec::new();
    for target in targets {
        let alone = Arc::new(group::spec(target, None));
        for (task, runs) in &tasks {
            let group = match task.workload() {
                None => alone.clone(),
                Some(workload) => Arc::new(group::spec(target, Some(workload))),
            };
            cases.extend((1..=*runs).map(|run| Arc::new(Case::new(&group, target, task, run))));
        }
    }
    cases
}

/// Puts trials, which are as they are listed, into their order.
pub fn arrange(cases: &mut [Arc<Case>], order: Order) {
    match order {
        Order::AsListed => {}
        Order::Interleaved => {
            // Each task by its first place among them; the sort keeps the models' order.
            let mut firsts = HashMap::new();
            for (place, case) in cases.iter().enumerate() {
                firsts.entry(case.task.key()).or_insert(place);
            }
            cases.sort_by_cached_key(|case| (case.run, firsts[&case.task.key()]));
        }
        Order::Shuffled(seed) => {
            let mut random = Pcg64Mcg::seed_from_u64(seed);
            cases.shuffle(&mut random);
        }
    }
}

fn workloads(
    config: &Config,
    overrides: &Overrides,
    prompts: &[Arc<Prompt>],
) -> Result<Vec<Arc<Workload>>, PlanError> {
    let mut errors = Vec::new();
    let workload = |(index, workload): (usize, &config::WorkloadConfig)| {
        let named: HashSet<_> = workload.prompts.iter().map(|name| visible(&name.value)).collect();
        let wanted = |prompt: &&Arc<Prompt>| {
            // When the later turns of an open loop were due, nobody has said.
            let is_able = prompt.turns.is_empty() || matches!(workload.shape, Shape::Closed { .. });
            workload.prompts.is_empty() && is_able
                || prompt.called().any(|name| named.contains(name))
        };
        Arc::new(Workload {
            index,
            name: visible(&workload.name.value).into_owned(),
            written: workload.name.value.clone(),
            shape: workload.shape,
            until: workload.until,
            prompts: prompts.iter().filter(wanted).cloned().collect(),
            runs: overrides.runs.or(workload.runs).unwrap_or(config.runs),
            thresholds: {
                let limits = thresholds(config, &workload.thresholds, &mut errors);
                errors.extend(without_figure(config, workload));
                limits
            },
        })
    };
    let workloads = config.workloads.iter().enumerate().map(workload).collect();
    match errors.is_empty() {
        true => Ok(workloads),
        false => Err(ConfigErrors(errors).into()),
    }
}

/// Thresholds on a figure that the workload does not have.
fn without_figure(config: &Config, workload: &config::WorkloadConfig) -> Vec<ConfigError> {
    if !matches!(workload.shape, Shape::Closed { .. }) {
        return Vec::new();
    }
    let is_absent = |text: &&Spanned<String>| {
        let threshold = Threshold::parse(&text.value).ok();
        threshold.is_some_and(|threshold| threshold.metric == Metric::REQUEST_RATE)
    };
    let error = |text: &Spanned<String>| {
        let what = "a closed loop has no `request_rate`: its requests start when others end";
        config.error_in(text, what, "use `request_throughput`, the valid requests a second")
    };
    workload.thresholds.iter().filter(is_absent).map(error).collect()
}

fn prompts(config: &Config) -> Vec<Prompt> {
    let written = |prompts: &Vec<config::PromptConfig>| {
        prompts.iter().map(|prompt| prompt.prompt.clone().shown()).collect()
    };
    config.prompts.as_ref().map_or_else(prompt::built_in, written)
}

/// The models that `--models` names, by key or name, as they are written or shown; all of them without
/// it.
fn chosen(
    targets: Vec<Arc<Target>>,
    given: &[String],
    file: &str,
) -> Result<Vec<Arc<Target>>, PlanError> {
    if given.is_empty() {
        return Ok(targets);
    }
    let called = |target: &Arc<Target>| {
        let names = [&target.key, &target.name, &target.written, &target.trial_name];
        names.map(Clone::clone).into_iter().chain([sanitise(&target.key)]).collect::<Vec<_>>()
    };
    let is = |target: &Arc<Target>, name: &str| called(target).iter().any(|known| known == name);
    let known = || targets.iter().map(|target| target.key.clone()).collect();
    let pieces: Vec<_> =
        given.iter().map(String::as_str).filter(|it| !it.trim().is_empty()).collect();
    if pieces.is_empty() {
        return Err(PlanError::NoModelNamed { file: file.into(), known: known() });
    }
    let Some(names) = split(&pieces, &|name| targets.iter().any(|target| is(target, name))) else {
        let is_known = |name: &&&str| targets.iter().any(|target| is(target, name.trim()));
        let name = pieces.iter().find(|name| !is_known(name)).unwrap_or(&pieces[0]).trim();
        let all: Vec<_> = targets.iter().flat_map(called).collect();
        let near = config::nearest(name, all.iter().map(String::as_str)).map(str::to_owned);
        let (name, file) = (name.into(), file.into());
        return Err(PlanError::UnknownModel { name, file, near, known: known() });
    };
    let keep = |target: &Arc<Target>| names.iter().any(|name| is(target, name));
    Ok(targets.into_iter().filter(keep).collect())
}

/// The names in `pieces`, which are split at commas: a name may have some itself. `None` where no
/// split gives names that are all known.
fn split(pieces: &[&str], is_known: &dyn Fn(&str) -> bool) -> Option<Vec<String>> {
    if pieces.is_empty() {
        return Some(Vec::new());
    }
    (1..=pieces.len()).find_map(|count| {
        let (first, rest) = pieces.split_at(count);
        let name = first.join(",").trim().to_owned();
        let rest = is_known(&name).then(|| split(rest, is_known))??;
        Some([vec![name], rest].concat())
    })
}

fn targets(config: &Config) -> Result<Vec<Arc<Target>>, PlanError> {
    let mut errors = Vec::new();
    let mut targets: Vec<Arc<Target>> = Vec::new();
    let everywhere = thresholds(config, &config.thresholds, &mut errors);
    for model in &config.models {
        let settings = model.settings.over(&config.defaults);
        let mut limits = everywhere.clone();
        limits.extend(thresholds(config, &settings.thresholds, &mut errors));
        let target = target(targets.len(), model, settings, limits);
        if targets.iter().any(|other| other.trial_name == target.trial_name) {
            let what = format!("two models are called `{}` in the results", target.name);
            let help =
                "give one of them another `name`; that of a simulated one ends in `-simulated`";
            errors.push(config.error_in(model.display_name(), &what, help));
        }
        errors.extend(no_way_through(config, &target));
        errors.extend(no_packets(config, model, &target));
        targets.push(Arc::new(target));
    }
    // A threshold of `defaults` is met once for each model.
    errors.dedup_by_key(|error: &mut ConfigError| error.to_string());
    match errors.is_empty() {
        true => Ok(targets),
        false => Err(ConfigErrors(errors).into()),
    }
}

fn thresholds(
    config: &Config,
    texts: &[Spanned<String>],
    errors: &mut Vec<ConfigError>,
) -> Vec<Threshold> {
    let mut parse = |text: &Spanned<String>| match Threshold::parse(&text.value) {
        Ok(threshold) => Some(threshold),
        Err(error) => {
            errors.push(config.error_at(text, error.offset, &error.message, &error.help));
            None
        }
    };
    texts.iter().filter_map(&mut parse).collect()
}

fn target(
    index: usize,
    model: &config::Model,
    settings: Settings,
    thresholds: Vec<Threshold>,
) -> Target {
    let protocol = settings.protocol.unwrap_or(&OpenAiChat);
    let display = &model.display_name().value;
    let (endpoint, name) = match &model.endpoint {
        config::EndpointConfig::Server { base_url, port } => {
            (endpoint(base_url, *port, protocol), display.clone())
        }
        config::EndpointConfig::Simulate(script) => {
            (Endpoint::Simulated(script.clone()), simulated_name(display))
        }
    };
    let defaults = Timeouts::default();
    let metrics_url = metrics_url(settings.metrics_url.clone(), &endpoint);
    Target {
        index,
        key: model.key.value.clone(),
        trial_name: sanitise(&name),
        name: visible(&name).into_owned(),
        written: name,
        model: settings.model_name.clone().unwrap_or_else(|| model.key.value.clone()),
        protocol,
        transport: transport(&settings, &endpoint),
        stamps: settings.stamps.unwrap_or_default(),
        endpoint,
        temperature: settings.temperature.unwrap_or(Some(0.7)),
        max_tokens: settings.max_tokens.unwrap_or(config::DEFAULT_MAX_TOKENS),
        ignore_eos: settings.ignore_eos,
        tools: settings.tools,
        extra_body: settings.extra_body,
        headers: settings.headers,
        network: settings.network,
        api_key_env: settings.api_key_env,
        connection: settings.connection.unwrap_or_default(),
        prefix_cache: settings.prefix_cache.unwrap_or_default(),
        text_fields: settings.text_fields.unwrap_or_default(),
        token_count: settings.token_count.unwrap_or_default(),
        metrics_url,
        timeouts: Timeouts {
            connect: settings.timeouts.connect.unwrap_or(defaults.connect),
            first_token: settings.timeouts.first_token.unwrap_or(defaults.first_token),
            inter_token: settings.timeouts.inter_token.unwrap_or(defaults.inter_token),
            total: settings.timeouts.total.unwrap_or(defaults.total),
        },
        thresholds,
        min_share: settings.min_share.unwrap_or(MIN_SHARE),
    }
}

/// Where metrics are to be read, if anywhere: a simulated endpoint has none.
fn metrics_url(wanted: Option<MetricsUrl>, endpoint: &Endpoint) -> Option<MetricsUrl> {
    wanted.filter(|wanted| match (wanted, endpoint) {
        (MetricsUrl::Off, _) | (MetricsUrl::Auto, Endpoint::Simulated(_)) => false,
        (MetricsUrl::Auto, Endpoint::Url(_) | Endpoint::Socket { .. }) | (MetricsUrl::At(_), _) => {
            true
        }
    })
}

/// The stamped transport where it can be had: on Linux, and not through a proxy. A socket in the
/// file system is never reached through one.
fn transport(settings: &Settings, endpoint: &Endpoint) -> Transport {
    let through_proxy = || match (endpoint, &settings.network.proxy) {
        (Endpoint::Simulated(_) | Endpoint::Socket { .. }, _)
        | (_, Some(config::ProxySetting::None)) => false,
        (_, Some(config::ProxySetting::Through(_))) => true,
        (Endpoint::Url(url), None) => proxy::proxy_variable(url).is_some(),
    };
    match settings.transport.unwrap_or_default() {
        config::TransportSetting::Stamped => Transport::Stamped,
        config::TransportSetting::Reqwest => Transport::Reqwest,
        config::TransportSetting::Auto if cfg!(target_os = "linux") && !through_proxy() => {
            Transport::Stamped
        }
        config::TransportSetting::Auto => Transport::Reqwest,
    }
}

/// What is wrong with a proxy that is asked for and cannot be gone through.
fn no_way_through(config: &Config, target: &Target) -> Option<ConfigError> {
    let Some(config::ProxySetting::Through(proxy)) = &target.network.proxy else { return None };
    let is_url = matches!(target.endpoint, Endpoint::Url(_));
    (is_url && target.transport == Transport::Stamped).then(|| {
        let what =
            format!("`transport: stamped` goes through no proxy, and {} has both", target.name);
        let help = "`transport: auto` goes through it; `proxy: none` in the model past it";
        config.error_in(proxy.at(), &what, help)
    })
}

/// What is wrong with packets that are asked for where packets are not visible.
fn no_packets(config: &Config, model: &config::Model, target: &Target) -> Option<ConfigError> {
    if target.stamps != Stamps::Packets {
        return None;
    }
    let why = match target.transport {
        Transport::Reqwest => "the transport `reqwest`, which stamps what it has read",
        Transport::Stamped if target.is_by_socket() => "a unix socket, which has no packets",
        Transport::Stamped => return None,
    };
    let what = format!("`stamps: packets` cannot be had with {why}");
    let help = "`stamps: auto` takes them where they can be had";
    Some(config.error_in(model.display_name(), &what, help))
}

/// A figure that is copied out of a report must not pass for one of a real model, so the name of
/// a simulated one says so wherever it goes.
fn simulated_name(name: &str) -> String {
    match name.to_lowercase().contains("simulated") {
        true => name.to_owned(),
        false => format!("{name}-simulated"),
    }
}

fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
}

/// What the URLs of requests to a socket in the file system begin with, as curl has it.
const SOCKET_ORIGIN: &str = "http://localhost";

fn endpoint(base_url: &str, port: Option<u16>, protocol: &dyn Protocol) -> Endpoint {
    let Some(UnixUrl { socket, path }) = UnixUrl::parse(base_url) else {
        return Endpoint::Url(url(base_url, port, protocol));
    };
    let path = format!("{}{}", prefix(path, protocol), protocol.path());
    let socket = PathBuf::from(socket);
    let url = unix_url::unix_url(&socket, &path);
    Endpoint::Socket { socket, path, url }
}

/// The path of a base URL, or instead of none the protocol's prefix. A URL that has the protocol's own
/// path right after the host is complete: for servers without a prefix, such as Perplexity's.
fn prefix<'a>(path: &'a str, protocol: &dyn Protocol) -> &'a str {
    match path.trim_end_matches('/') {
        "" => protocol.prefix(),
        own if own == protocol.path() => "",
        own => own,
    }
}

/// `BASE_URL:PORT` + the protocol's prefix, such as `/v1`, + its path; a base URL with a path
/// keeps it instead of the prefix.
fn url(base_url: &str, port: Option<u16>, protocol: &dyn Protocol) -> String {
    let base = base_url.trim_end_matches('/');
    let uri: Uri = base.parse().unwrap_or_default();
    let (scheme, authority) = (uri.scheme_str().unwrap_or("http"), uri.authority());
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let prefix = prefix(uri.path(), protocol);
    let path = protocol.path();
    format!("{scheme}://{}{port}{prefix}{path}", authority.map_or("", |name| name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_v1_unless_it_has_a_path() {
        let cases = [
            ("http://10.180.116.2", Some(6384), "http://10.180.116.2:6384/v1/chat/completions"),
            ("http://localhost:8000", None, "http://localhost:8000/v1/chat/completions"),
            ("http://localhost:8000/", None, "http://localhost:8000/v1/chat/completions"),
            ("https://api.example.com/v1", None, "https://api.example.com/v1/chat/completions"),
            ("https://h/api/v3/", Some(8443), "https://h:8443/api/v3/chat/completions"),
            ("http://[::1]", Some(8000), "http://[::1]:8000/v1/chat/completions"),
            ("https://h/chat/completions", None, "https://h/chat/completions"),
            ("http://h/chat/completions/", Some(80), "http://h:80/chat/completions"),
        ];
        for (base, port, expected) in cases {
            assert_eq!(url(base, port, &OpenAiChat), expected);
        }
    }

    #[test]
    fn names_with_commas_are_found_among_pieces() {
        let known = |name: &str| ["a", "b", "a, w", "a,b,c"].contains(&name);
        for (pieces, names) in [
            (&["a", "b"][..], Some(&["a", "b"][..])),
            (&["a", " w"], Some(&["a, w"])),
            (&[" b", " a", " w"], Some(&["b", "a, w"])),
            (&["a", "b", "c"], Some(&["a,b,c"])),
            (&["a", "c"], None),
        ] {
            let found = split(pieces, &known);
            let found = found.as_ref().map(|it| it.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), names, "{pieces:?}");
        }
    }

    #[test]
    fn a_socket_gets_v1_unless_another_path_follows_it() {
        let cases = [
            ("unix:///run/x.sock", "unix:///run/x.sock:/v1/chat/completions"),
            ("UNIX:///run/x.sock/", "unix:///run/x.sock:/v1/chat/completions"),
            ("unix:///run/x.sock:/", "unix:///run/x.sock:/v1/chat/completions"),
            ("unix:///run/a:b.sock", "unix:///run/a:b.sock:/v1/chat/completions"),
            ("unix:///run/x.sock:/chat/completions", "unix:///run/x.sock:/chat/completions"),
            ("unix:///run/x.sock:/api/v3/", "unix:///run/x.sock:/api/v3/chat/completions"),
        ];
        for (base, expected) in cases {
            let Endpoint::Socket { url, .. } = endpoint(base, None, &OpenAiChat) else {
                panic!("{base} is a socket");
            };
            assert_eq!(url, expected);
        }
    }
}
