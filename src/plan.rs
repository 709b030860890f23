//! Config × overrides → [`Plan`]: every combination as a [`Case`], with nothing left to decide.

mod absent_figures;
pub mod access;
mod counterparts;
mod group;
mod lengths;
mod mix;
mod order;
pub(crate) mod requirements;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, Uri};
use llm_stream_client::{
    self as client, AnswerForm, connect_options::Stamps, memory::DEFAULT_MEMORY, proxy,
};
pub use llm_stream_client::{
    connect_options::Secret,
    options::{Access, Timeouts, Transport},
};
use llm_stream_core::unix_url::{self, UnixUrl};
use llm_stream_core::{
    abort::AbortRule,
    capacity::{LoadLimits, Objective},
    goodput::RequestLimits,
    group::{GroupId, GroupSpec, load_text},
    lacking::MIN_SHARE,
    lengths::LengthRange,
    load_stats::ServerMachine,
    metric::Metric,
    phases::Phases,
    precision::PrecisionGoal,
    prompt::{self, Prompt, Tools},
    protocol::{OpenAiChat, Protocol, TextFields},
    requirement,
    schedule::{Shape, Until},
    text::visible,
    threshold::Threshold,
};
use llm_stream_sim::Script;
use serde_json::{Map, Value};

pub(crate) use self::order::arrange;
pub use self::requirements::{Undecidable, UndecidableCause};
use crate::config::{
    self, Config, ConfigError, ConfigErrors, ConnectionMode, EnvTemplate, MetricsUrl,
    NetworkSettings, Order, PrefixCache, RunCount, RunVariation, Settings, Spanned, TokenCount,
    TraceReplay, sanitise,
};

/// Values that override keys of the config, from the command line or from code.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The models to run, by key or name; empty for all.
    pub models: Vec<String>,
    /// The number of runs of each prompt and workload.
    pub runs: Option<u32>,
    /// Whether the number of runs is chosen from the noise of the first three; `runs` is then
    /// ignored.
    pub auto_runs: bool,
    /// The limit of runs while thresholds are undecided or `precision` is not reached.
    pub max_runs: Option<u32>,
    /// The time from the start within which additional runs end.
    pub max_time: Option<Duration>,
    /// The memory of all answers together, in bytes.
    pub max_memory: Option<usize>,
    /// The precision of the means of every model and workload.
    pub precision: Option<Vec<PrecisionGoal>>,
    /// Whether to skip the warm-up requests.
    pub no_warmup: bool,
    /// The folder for recordings.
    pub record: Option<PathBuf>,
}

/// Everything that a run does.
#[derive(Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The models, in the config's order.
    pub targets: Vec<Arc<Target>>,
    /// The prompts, in the config's order.
    pub prompts: Vec<Arc<Prompt>>,
    /// The workloads, in the config's order.
    pub workloads: Vec<Arc<Workload>>,
    /// The trials, in the order in which they run.
    pub cases: Vec<Arc<Case>>,
    /// The order of the trials.
    pub order: Order,
    /// Whether a model is warmed up before its first trial.
    pub warm_up: bool,
    /// The number of runs of each prompt.
    pub runs: u32,
    /// The limit of runs while thresholds are undecided or `precision` is not reached, as a multiple
    /// of the runs of a prompt or workload; 1 or more.
    pub most_runs: f64,
    /// Whether the number of runs is chosen from the noise of the first ones.
    pub is_auto: bool,
    /// The time from the start within which additional runs end.
    pub max_time: Option<Duration>,
    /// The memory of all answers together, in bytes.
    pub max_memory: usize,
    /// The folder for recordings.
    pub record: Option<PathBuf>,
}

/// A model at an endpoint, with everything that a request requires except secrets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Target {
    /// Its position in the config, from 0.
    pub index: usize,
    /// Its key in the config.
    pub key: String,
    /// Its name in reports, printable. The name of a simulated model says that it is simulated.
    pub name: String,
    /// The same name with unprintable characters, as the config has it.
    pub written: String,
    /// Its name in trial names.
    pub trial_name: String,
    /// Its name for the server.
    pub model: String,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// The URLs of further replicas, which requests of a load go to as well.
    pub replicas: Vec<String>,
    /// The protocol of the endpoint.
    pub protocol: &'static dyn Protocol,
    /// The number of texts in one request for embeddings.
    pub batch: u64,
    /// Sampling temperature; `None` leaves it to the server.
    pub temperature: Option<f64>,
    /// Limit of the answer, in tokens.
    pub max_tokens: u64,
    /// Whether the model generates up to the limit; `None` leaves it to each prompt.
    pub ignore_eos: Option<bool>,
    /// Tools for prompts that do not state any.
    pub tools: Tools,
    /// Additional fields of the request's body.
    pub extra_body: Map<String, Value>,
    /// Additional headers of every request.
    pub headers: Vec<(HeaderName, EnvTemplate)>,
    /// Proxy, TLS and query settings.
    pub network: NetworkSettings,
    /// The environment variable of the key, if the config names one.
    pub api_key_env: Option<Spanned<String>>,
    /// The client implementation.
    pub transport: Transport,
    /// Which of the kernel's timestamps arrivals get.
    pub stamps: Stamps,
    /// Whether requests find an open connection.
    pub connection: ConnectionMode,
    /// Whether requests may hit the server's prefix cache.
    pub prefix_cache: PrefixCache,
    /// The meaning of delta fields that the protocol does not define.
    pub text_fields: TextFields,
    /// The source of token counts if the server sends none.
    pub token_count: TokenCount,
    /// The URL of the server's metrics, if they are to be read.
    pub metrics_url: Option<MetricsUrl>,
    /// The URL of the power of the server's GPUs, if it is to be read.
    pub power_url: Option<MetricsUrl>,
    /// The machine that serves it.
    pub machine: ServerMachine,
    /// The timeouts.
    pub timeouts: Timeouts,
    /// The thresholds of its prompts.
    pub thresholds: Vec<Threshold>,
    /// The precision of its means.
    pub precision: Vec<PrecisionGoal>,
    /// The share of answers that must have a figure for its threshold to be judged.
    pub min_share: f64,
    /// How much its figures are assumed to vary between runs.
    pub run_variation: RunVariation,
}

impl Target {
    /// Whether the endpoint is simulated.
    pub fn is_simulated(&self) -> bool {
        matches!(self.endpoint, Endpoint::Simulated(_))
    }

    /// Whether its server is scraped while trials run.
    pub fn is_sampled(&self) -> bool {
        self.metrics_url.is_some() || self.power_url.is_some()
    }

    /// Whether its connections use TLS.
    pub fn is_over_tls(&self) -> bool {
        matches!(&self.endpoint, Endpoint::Url(url) if url.starts_with("https://"))
    }

    /// Returns the environment variable of a proxy that applies to the URL but is not used: only
    /// the transport `reqwest` supports proxies.
    pub fn bypassed_proxy(&self) -> Option<&'static str> {
        match (&self.endpoint, self.transport, &self.network.proxy) {
            (Endpoint::Url(url), Transport::Stamped, None) => proxy::proxy_variable(url),
            _ => None,
        }
    }

    /// Whether certificates are not verified.
    pub fn is_insecure(&self) -> bool {
        let over_tls = matches!(&self.endpoint, Endpoint::Url(url) if is_https(url));
        over_tls && self.network.insecure_tls == Some(true)
    }

    /// The endpoint in reports.
    pub fn endpoint_name(&self) -> &str {
        match &self.endpoint {
            Endpoint::Url(url) | Endpoint::Socket { url, .. } => url,
            Endpoint::Simulated(_) => "simulated",
        }
    }

    /// The endpoint of a replica in reports; the first one is 0.
    pub fn replica_name(&self, replica: usize) -> &str {
        let further = replica.checked_sub(1).and_then(|nth| self.replicas.get(nth));
        further.map_or_else(|| self.endpoint_name(), String::as_str)
    }

    /// The endpoints of all replicas in reports.
    pub fn endpoint_names(&self) -> String {
        let further = self.replicas.iter().map(String::as_str);
        [self.endpoint_name()].into_iter().chain(further).collect::<Vec<_>>().join(", ")
    }

    /// Whether the endpoint is a unix socket.
    pub fn is_by_socket(&self) -> bool {
        matches!(self.endpoint, Endpoint::Socket { .. })
    }

    /// Returns the options of a client that sends to `url`.
    pub(crate) fn client_options<'a>(
        &self,
        access: &'a Access,
        url: &'a str,
    ) -> client::Options<'a> {
        client::Options {
            url,
            replicas: &[],
            headers: &access.headers,
            api_key: access.key.as_ref(),
            timeouts: self.request_timeouts(),
            transport: self.transport,
            connection: self.connection,
            protocol: self.protocol,
            answer: match self.protocol.is_streamed() {
                true => {
                    let needs_usage = matches!(self.token_count, TokenCount::Usage);
                    AnswerForm::Stream { needs_usage }
                }
                false => AnswerForm::Document,
            },
            route: &access.route,
        }
    }

    /// Returns the timeouts of requests. The tokens of an answer that is not streamed do not arrive one
    /// by one, so only the limit of the whole answer applies.
    pub fn request_timeouts(&self) -> Timeouts {
        let Timeouts { connect, total, .. } = self.timeouts;
        match self.protocol.is_streamed() {
            true => self.timeouts,
            false => Timeouts { connect, first_token: total, inter_token: total, total },
        }
    }

    /// Returns the `base_url` to write into the config for requests to `url`.
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
    /// A unix socket.
    Socket {
        /// The path of the socket.
        socket: PathBuf,
        /// The path of requests, the protocol's path included.
        path: String,
        /// Both as a `unix://` URL, for reports.
        url: String,
    },
    /// The simulator, started for the run.
    Simulated(Script),
}

/// One trial: a model, a task and the number of the run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Case {
    /// `MODEL::PROMPT::run-N` or `MODEL::WORKLOAD::run-N`.
    pub name: String,
    /// The group of trials that are judged together.
    pub group: Arc<GroupSpec>,
    /// The groups of the parts of a mix.
    pub parts: Arc<[Arc<GroupSpec>]>,
    /// The model.
    pub target: Arc<Target>,
    /// The prompt or workload.
    pub task: Task,
    /// The number of the run, from 1.
    pub run: u32,
}

impl Case {
    /// The thresholds of the group.
    pub fn thresholds(&self) -> &[Threshold] {
        &self.group.thresholds
    }

    /// Returns its groups: that of the trial, and those of the parts of a mix.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<GroupSpec>> {
        std::iter::once(&self.group).chain(self.parts.iter())
    }

    /// Whether figures of the trial belong to this group.
    pub fn is_in(&self, group: GroupId) -> bool {
        self.groups().any(|own| own.id == group)
    }

    /// Creates the `run`-th run of `task` by `target`.
    pub fn new(
        (group, parts): (&Arc<GroupSpec>, &Arc<[Arc<GroupSpec>]>),
        target: &Arc<Target>,
        task: &Task,
        run: u32,
    ) -> Self {
        let name = format!("{}::{}::run-{run}", target.trial_name, sanitise(task.written()));
        let (group, parts, target) = (group.clone(), parts.clone(), target.clone());
        Self { name, group, parts, target, task: task.clone(), run }
    }

    /// Another run of the same task by the same model.
    pub fn repeated(&self, run: u32) -> Self {
        Self::new((&self.group, &self.parts), &self.target, &self.task, run)
    }
}

/// What a trial sends.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Task {
    /// One request.
    Prompt(Arc<Prompt>),
    /// A load of many requests.
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

    /// Its name in the config, from which [`sanitise`] makes the name in trial names.
    pub fn written(&self) -> &str {
        match self {
            Self::Prompt(prompt) => &prompt.written,
            Self::Workload(workload) => &workload.written,
        }
    }

    /// The prompt; of a workload, the first one.
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

    /// Identifies the prompt or workload by its address.
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
    /// Its number among the workloads and the parts of mixes, in the order of the config, from 0.
    pub index: usize,
    /// Its name in results.
    pub name: String,
    /// Its name in the config, with unprintable characters.
    pub written: String,
    /// Closed or open loop.
    pub shape: Shape,
    /// The search for the highest load, of which `shape` is the first one.
    pub search: Option<(Objective, usize)>,
    /// When the load ends.
    pub until: Until,
    /// Which part of the load its figures are of.
    pub phases: Phases,
    /// When it is stopped before its end.
    pub abort: AbortRule,
    /// The recorded traffic that it replays; its requests replace `prompts`.
    pub trace: Option<TraceReplay>,
    /// The prompts, used in turn. Never empty.
    pub prompts: Vec<Arc<Prompt>>,
    /// The number of runs by each model.
    pub runs: u32,
    /// The thresholds of each model under this load.
    pub thresholds: Vec<Threshold>,
    /// The limits of each request, for `goodput`.
    pub goodput: RequestLimits,
    /// How precisely means are to be known under it.
    pub precision: Vec<PrecisionGoal>,
    /// The seed of the random choices.
    pub seed: u64,
    /// The time between an answer and the next turn of its conversation, in milliseconds.
    pub think: Option<LengthRange>,
    /// The parts of a mix, each with its own prompts and thresholds. They run together.
    pub parts: Vec<Arc<Self>>,
    /// The share of the requests, of a part of a mix; otherwise 1.
    pub share: f64,
}

impl Workload {
    /// Returns the number of the part that sends the prompt with this title, from 0.
    pub fn part_of(&self, title: &str) -> Option<usize> {
        // Without a mix no prompt is compared.
        self.parts.iter().position(|part| part.prompts.iter().any(|one| one.title() == title))
    }
}

impl Workload {
    /// The load in words.
    pub fn load(&self) -> String {
        let search = self.search.as_ref().map(|(search, _)| search);
        load_text(&self.shape, search, &self.until, &self.phases)
    }
}

/// Why config and overrides do not give a plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A value of the config is not valid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// `--models` names an unknown model.
    #[error("no model `{name}` in {file}{}\n  models: {}", did_you_mean(name, near), quoted(known))]
    UnknownModel {
        /// The unknown name.
        name: String,
        /// The config's file.
        file: String,
        /// The most similar known name.
        near: Option<String>,
        /// The known names.
        known: Vec<String>,
    },
    /// `--models` has no name.
    #[error(
        "`--models` names no model\n  models: {}\n  help: leave it out to run every model of {file}",
        quoted(known)
    )]
    NoModelNamed {
        /// The config's file.
        file: String,
        /// The known names.
        known: Vec<String>,
    },
    /// A model is compared with a model outside the run.
    #[error(
        "`{threshold}` of `{model}` needs {other} in the same run\n  help: select both, or run \
         without a filter"
    )]
    MissingCounterpart {
        /// The model with the threshold.
        model: String,
        /// The threshold.
        threshold: String,
        /// The model that it is compared with, quoted.
        other: String,
    },
}

fn did_you_mean(name: &str, near: &Option<String>) -> String {
    let near = near.as_ref();
    near.map(|near| format!("\n  help: for `{name}`, did you mean `{near}`?")).unwrap_or_default()
}

/// Quotes each name: names may contain commas and blanks.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Plan {
    /// Combines everything that `config` names and `overrides` select.
    pub fn new(config: &Config, overrides: &Overrides) -> Result<Self, PlanError> {
        let targets = targets(config, overrides)?;
        let targets = chosen(targets, &overrides.models, config.file())?;
        let prompts: Vec<_> = prompts(config).into_iter().map(Arc::new).collect();
        let workloads = workloads(config, overrides, &prompts)?;
        let unmet = absent_figures::limits(config, &targets);
        if !unmet.is_empty() {
            return Err(ConfigErrors(unmet).into());
        }
        let count = run_count(config, overrides);
        let runs = count.first();
        let mut cases = cases(&targets, &prompts, runs, &workloads);
        arrange(&mut cases, config.order);
        let order = config.order;
        let record = overrides.record.clone();
        let is_auto = count == RunCount::Auto;
        let max_time = overrides.max_time.or(config.max_time);
        let has_goal = targets.iter().any(|target| !target.precision.is_empty())
            || workloads.iter().any(|workload| !workload.precision.is_empty());
        let unwritten = if is_auto || has_goal || max_time.is_some() { MOST_ADDED } else { runs };
        let max_runs = overrides.max_runs.or(config.max_runs).unwrap_or(unwritten).max(runs);
        Ok(Self {
            targets,
            prompts,
            workloads,
            cases,
            order,
            warm_up: !overrides.no_warmup,
            runs,
            most_runs: f64::from(max_runs) / f64::from(runs),
            is_auto,
            max_time,
            max_memory: overrides.max_memory.or(config.max_memory).unwrap_or(DEFAULT_MEMORY),
            record,
        })
    }

    /// Keeps only the cases for which `keep` returns true.
    pub fn select(mut self, keep: impl Fn(&Case) -> bool) -> Self {
        self.cases.retain(|case| keep(case));
        self
    }

    /// Returns the trials in the order of the config, in whatever order they run: model by model,
    /// prompt by prompt, then workload by workload.
    pub fn listed(&self) -> Vec<Arc<Case>> {
        let prompts = self.prompts.iter().map(|prompt| Task::Prompt(prompt.clone()));
        let workloads = self.workloads.iter().map(|workload| Task::Workload(workload.clone()));
        let tasks = prompts.chain(workloads).zip(0_usize..);
        let places: HashMap<_, _> = tasks.map(|(task, place)| (task.key(), place)).collect();
        let mut cases = self.cases.clone();
        cases.sort_by_key(|case| (case.target.index, places[&case.task.key()], case.run));
        cases
    }

    /// Returns the confidence of each interval, given the number of looks.
    pub(crate) fn confidence(&self) -> f64 {
        requirement::confidence_of(self.looks().len() + 1)
    }

    /// Returns the looks at the verdicts after the first one.
    pub(crate) fn looks(&self) -> Vec<Look> {
        match (self.is_auto, self.most_runs > 1.0) {
            (false, _) => factors(self.most_runs).into_iter().map(Look::Times).collect(),
            (true, true) => vec![Look::AsNeeded, Look::Times(self.most_runs)],
            (true, false) => Vec::new(),
        }
    }

    /// Whether a selected case has a threshold relative to a baseline.
    pub fn has_relative_thresholds(&self) -> bool {
        let mut limits =
            self.cases.iter().flat_map(|case| case.groups()).flat_map(|group| &group.thresholds);
        limits.any(Threshold::needs_baseline)
    }

    /// Returns the number of runs of `workload`, or of each prompt.
    pub fn first_runs(&self, workload: Option<&Workload>) -> u32 {
        workload.map_or(self.runs, |workload| workload.runs)
    }

    /// Returns the models of the cases, in the config's order.
    pub fn selected_targets(&self) -> Vec<Arc<Target>> {
        let selected: HashSet<_> =
            self.cases.iter().map(|case| Arc::as_ptr(&case.target)).collect();
        let is_selected = |target: &&Arc<Target>| selected.contains(&Arc::as_ptr(target));
        self.targets.iter().filter(is_selected).cloned().collect()
    }
}

/// How many runs a further look at the verdicts has, as a multiple of the first ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Look {
    /// This many times as many.
    Times(f64),
    /// As many as each group needs.
    AsNeeded,
}

/// By how much the runs are multiplied at each further look: 2, 4, … and the most at last.
fn factors(most: f64) -> Vec<f64> {
    let doubled = std::iter::successors(Some(2.0), |factor| Some(factor * 2.0));
    let mut factors: Vec<_> = doubled.take_while(|factor| *factor < most).collect();
    if most > 1.0 {
        factors.push(most);
    }
    factors
}

/// The default of `max_runs` where something asks for more runs.
const MOST_ADDED: u32 = 30;

/// How often each prompt is run.
fn run_count(config: &Config, overrides: &Overrides) -> RunCount {
    match overrides.runs {
        _ if overrides.auto_runs => RunCount::Auto,
        Some(runs) => RunCount::Fixed(runs),
        None => config.runs,
    }
}

/// The goals of a model or workload: those of the command line, its own, or those of the top level.
fn goals(
    config: &Config,
    overrides: &Overrides,
    own: Option<&Vec<PrecisionGoal>>,
) -> Vec<PrecisionGoal> {
    let goals = overrides.precision.as_ref().or(own).or(config.precision.as_ref());
    goals.cloned().unwrap_or_default()
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
            // Of a search only the load that it finds has figures.
            let mixed = task.workload().filter(|workload| workload.search.is_none());
            let parts = mixed.into_iter().flat_map(|workload| &workload.parts);
            let parts = parts.map(|part| Arc::new(group::spec(target, Some(part)))).collect();
            let groups = (&group, &parts);
            cases.extend((1..=*runs).map(|run| Arc::new(Case::new(groups, target, task, run))));
        }
    }
    cases
}

fn workloads(
    config: &Config,
    overrides: &Overrides,
    prompts: &[Arc<Prompt>],
) -> Result<Vec<Arc<Workload>>, PlanError> {
    let mut errors = Vec::new();
    let mut index = 0;
    let workload = |workload: &config::WorkloadConfig| {
        let limits = mix::MixedThresholds::of(config, workload, &mut errors);
        let mut planned = Workload {
            index,
            name: visible(&workload.name.value).into_owned(),
            written: workload.name.value.clone(),
            shape: workload.shape,
            search: workload.find.as_ref().map(|find| objective(config, find, &mut errors)),
            until: workload.until,
            phases: workload.phases,
            abort: workload.abort,
            trace: workload.trace.clone(),
            prompts: prompts_of(config, workload, prompts, &mut errors),
            runs: match workload.runs {
                Some(runs) if overrides.runs.is_none() && !overrides.auto_runs => runs,
                // A search has several loads already.
                None if workload.find.is_some() && !overrides.auto_runs => {
                    overrides.runs.unwrap_or(1)
                }
                _ => run_count(config, overrides).first(),
            },
            precision: goals(config, overrides, workload.precision.as_ref()),
            thresholds: limits.whole.clone(),
            goodput: {
                let texts = workload.goodput.as_ref().unwrap_or(&config.goodput);
                request_limits(config, texts, &mut errors)
            },
            seed: workload.seed,
            think: workload.think,
            parts: Vec::new(),
            share: 1.0,
        };
        planned.parts = mix::parts(&planned, workload, limits);
        index += 1 + planned.parts.len();
        Arc::new(planned)
    };
    let workloads = config.workloads.iter().map(workload).collect();
    // Every workload parses the limits of the top level again and repeats their errors.
    errors.dedup_by_key(|error: &mut ConfigError| error.to_string());
    match errors.is_empty() {
        true => Ok(workloads),
        false => Err(ConfigErrors(errors).into()),
    }
}

/// Returns the prompts of a workload, with its own lengths.
fn prompts_of(
    config: &Config,
    workload: &config::WorkloadConfig,
    prompts: &[Arc<Prompt>],
    errors: &mut Vec<ConfigError>,
) -> Vec<Arc<Prompt>> {
    if let Some(replay) = &workload.trace {
        return vec![Arc::new(trace_prompt(replay))];
    }
    let parts = workload.mix.iter().map(|part| &part.name);
    let named: HashSet<_> =
        workload.prompts.iter().chain(parts).map(|name| visible(&name.value)).collect();
    let wanted = |prompt: &&Arc<Prompt>| {
        named.is_empty() || prompt.called().any(|name| named.contains(name))
    };
    let wanted: Vec<_> = prompts.iter().filter(wanted).cloned().collect();
    if workload.think.is_some() && wanted.iter().all(|prompt| prompt.turns.is_empty()) {
        let what = "`think` has no effect: no prompt of the workload has several turns";
        let help = "add a prompt with `turns`, or a data set with `multi_turn: true`, or remove it";
        errors.push(config.error_in(&workload.name, what, help));
    }
    lengths::applied(config, workload, wanted, errors)
}

/// Returns the prompt that stands for the requests of a trace in results. The preflight sends it
/// instead of them.
fn trace_prompt(replay: &TraceReplay) -> Prompt {
    Prompt { name: visible(&replay.name).into_owned(), ..prompt::warm_up() }
}

/// Finds thresholds on a metric that the workload does not have.
fn undefined_metrics(
    config: &Config,
    workload: &config::WorkloadConfig,
    texts: &[Spanned<String>],
) -> Vec<ConfigError> {
    let is_closed = matches!(workload.shape, Shape::Closed { .. });
    let has_limits = !workload.goodput.as_ref().unwrap_or(&config.goodput).is_empty();
    let error = |text: &Spanned<String>| {
        let metric = Threshold::parse(&text.value).ok()?.metric;
        let searched = workload.find.as_ref().map(|find| find.is_concurrency);
        for (of_search, is_concurrency, max) in
            [(Metric::CAPACITY, false, "rate"), (Metric::MAX_CONCURRENCY, true, "concurrency")]
        {
            if metric == of_search && searched != Some(is_concurrency) {
                let what = format!("`{}` is the result of a search with `max: {max}`", metric.name);
                let help = format!(
                    "for example\nfind: {{ max: {max}, subject_to: [\"ttft p95 <= 500 ms\"] }}"
                );
                return Some(config.error_in(text, &what, &help));
            }
        }
        if metric == Metric::REQUEST_RATE && is_closed {
            let what = "a closed loop has no `request_rate`: its requests start when others end";
            let help = "use `request_throughput`, the valid requests a second";
            return Some(config.error_in(text, what, help));
        }
        if [Metric::GOODPUT, Metric::GOODPUT_RATIO].contains(&metric) && !has_limits {
            let what = format!("`{}` needs the limits that a good request meets", metric.name);
            let help = "add them to the workload or at the top level, for example\n\
                        goodput: [\"ttft <= 500 ms\", \"tpot <= 25 ms\"]";
            return Some(config.error_in(text, &what, help));
        }
        None
    };
    texts.iter().filter_map(error).collect()
}

/// The objective of a search, and the most loads that it has.
fn objective(
    config: &Config,
    find: &config::FindConfig,
    errors: &mut Vec<ConfigError>,
) -> (Objective, usize) {
    let parse = |text: &Spanned<String>| {
        LoadLimits::parse(&text.value)
            .map_err(|error| config.error_at(text, error.offset, &error.message, &error.help))
    };
    let parsed = find.subject_to.iter().map(parse);
    let limits = parsed.filter_map(|limit| limit.map_err(|error| errors.push(error)).ok());
    let objective = Objective {
        is_concurrency: find.is_concurrency,
        from: find.from,
        to: find.to,
        limits: LoadLimits::new(limits.collect()),
        precision: find.precision,
    };
    (objective, find.loads)
}

fn request_limits(
    config: &Config,
    texts: &[Spanned<String>],
    errors: &mut Vec<ConfigError>,
) -> RequestLimits {
    let parse = |text: &Spanned<String>| {
        RequestLimits::parse(&text.value)
            .map_err(|error| config.error_at(text, error.offset, &error.message, &error.help))
    };
    let parsed = texts.iter().map(parse);
    let limits = parsed.filter_map(|limit| limit.map_err(|error| errors.push(error)).ok());
    RequestLimits::new(limits.collect())
}

fn prompts(config: &Config) -> Vec<Prompt> {
    let takes_documents = |model: &config::Model| {
        let protocol = model.settings.over(&config.defaults).protocol;
        protocol.is_some_and(Protocol::takes_documents)
    };
    let takes_documents = config.models.iter().any(takes_documents);
    // Records of a data set may have documents for other purposes.
    let with_documents = |prompt: Prompt| match takes_documents {
        true => prompt,
        false => Prompt { documents: Vec::new(), ..prompt },
    };
    let written = |prompts: &Vec<config::PromptConfig>| {
        prompts.iter().map(|prompt| prompt.prompt.clone().shown()).map(with_documents).collect()
    };
    config.prompts.as_ref().map_or_else(prompt::built_in, written)
}

/// Returns the models that `--models` names, by key or name, as written or as shown; without it,
/// all.
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

/// Joins `pieces`, the argument split at commas, to known names: a name may contain commas. `None`
/// if no way of joining gives known names only.
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

fn targets(config: &Config, overrides: &Overrides) -> Result<Vec<Arc<Target>>, PlanError> {
    let mut errors = Vec::new();
    let mut targets: Vec<Arc<Target>> = Vec::new();
    let everywhere = thresholds(config, &config.thresholds, &mut errors);
    for model in &config.models {
        let mut settings = model.settings.over(&config.defaults);
        settings.run_variation = settings.run_variation.over(config.run_variation);
        settings.precision = Some(goals(config, overrides, settings.precision.as_ref()));
        let mut limits = everywhere.clone();
        limits.extend(thresholds(config, &settings.thresholds, &mut errors));
        let target = target(targets.len(), model, settings, limits);
        if targets.iter().any(|other| other.trial_name == target.trial_name) {
            let what = format!("two models are called `{}` in the results", target.name);
            let help =
                "give one of them another `name`; names of simulated models end in `-simulated`";
            errors.push(config.error_in(model.display_name(), &what, help));
        }
        errors.extend(counterparts::of_itself(config, model));
        errors.extend(unsupported_proxy(config, &target));
        errors.extend(unavailable_packets(config, model, &target));
        targets.push(Arc::new(target));
    }
    // Every model parses the thresholds of `defaults` again and repeats their errors.
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
    let parse = |text: &Spanned<String>| {
        let threshold = Threshold::parse(&text.value)
            .map_err(|error| config.error_at(text, error.offset, &error.message, &error.help))?;
        counterparts::resolve(config, text, threshold)
    };
    let parsed = texts.iter().map(parse);
    parsed.filter_map(|threshold| threshold.map_err(|error| errors.push(error)).ok()).collect()
}

/// Returns the protocol of a model, in the form of answers that it asks for.
fn protocol(settings: &Settings) -> &'static dyn Protocol {
    let protocol = settings.protocol.unwrap_or(&OpenAiChat);
    match settings.stream {
        // A protocol without such answers was refused with the config.
        Some(false) => protocol.unstreamed().unwrap_or(protocol),
        _ => protocol,
    }
}

fn target(
    index: usize,
    model: &config::Model,
    settings: Settings,
    thresholds: Vec<Threshold>,
) -> Target {
    let protocol = protocol(&settings);
    let display = &model.display_name().value;
    let (endpoint, name) = match &model.endpoint {
        config::EndpointConfig::Server { base_url, port, .. } => {
            (endpoint(base_url, *port, protocol), display.clone())
        }
        config::EndpointConfig::Simulate(script) => {
            (Endpoint::Simulated(script.clone()), simulated_name(display))
        }
    };
    let defaults = Timeouts::default();
    let replicas = replicas(model, protocol);
    let metrics_url = metrics_url(settings.metrics_url.clone(), &endpoint, &replicas);
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
        replicas,
        batch: settings.batch.unwrap_or(1),
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
        power_url: settings.power_url.filter(|url| *url != MetricsUrl::Off),
        machine: ServerMachine { gpus: settings.gpus, cost_per_hour: settings.cost_per_hour },
        timeouts: Timeouts {
            connect: settings.timeouts.connect.unwrap_or(defaults.connect),
            first_token: settings.timeouts.first_token.unwrap_or(defaults.first_token),
            inter_token: settings.timeouts.inter_token.unwrap_or(defaults.inter_token),
            total: settings.timeouts.total.unwrap_or(defaults.total),
        },
        thresholds,
        precision: settings.precision.unwrap_or_default(),
        min_share: settings.min_share.unwrap_or(MIN_SHARE),
        run_variation: settings.run_variation,
    }
}

/// Returns the URLs of the replicas besides the first one.
fn replicas(model: &config::Model, protocol: &dyn Protocol) -> Vec<String> {
    match &model.endpoint {
        config::EndpointConfig::Server { replicas, port, .. } => {
            replicas.iter().map(|base_url| url(base_url, *port, protocol)).collect()
        }
        config::EndpointConfig::Simulate(_) => Vec::new(),
    }
}

/// Returns the URL of metrics to read; a simulated endpoint has none. The metrics of one replica are
/// not those of the load.
fn metrics_url(
    wanted: Option<MetricsUrl>,
    endpoint: &Endpoint,
    replicas: &[String],
) -> Option<MetricsUrl> {
    wanted.filter(|wanted| match (wanted, endpoint) {
        (MetricsUrl::Off, _) | (MetricsUrl::Auto, Endpoint::Simulated(_)) => false,
        (MetricsUrl::Auto, _) if !replicas.is_empty() => false,
        (MetricsUrl::Auto, Endpoint::Url(_) | Endpoint::Socket { .. }) | (MetricsUrl::At(_), _) => {
            true
        }
    })
}

/// Chooses the kernel-timed transport if possible: on Linux, and not through a proxy. Unix sockets
/// never use a proxy.
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

/// Reports a proxy that the chosen transport does not support.
fn unsupported_proxy(config: &Config, target: &Target) -> Option<ConfigError> {
    let Some(config::ProxySetting::Through(proxy)) = &target.network.proxy else { return None };
    let is_url = matches!(target.endpoint, Endpoint::Url(_));
    (is_url && target.transport == Transport::Stamped).then(|| {
        let what =
            format!("`transport: stamped` does not support a proxy, and {} has both", target.name);
        let help = "`transport: auto` uses the proxy; `proxy: none` in the model connects directly";
        config.error_in(proxy.at(), &what, help)
    })
}

/// Reports `stamps: packets` where single packets are not visible.
fn unavailable_packets(
    config: &Config,
    model: &config::Model,
    target: &Target,
) -> Option<ConfigError> {
    if target.stamps != Stamps::Packets {
        return None;
    }
    let why = match target.transport {
        Transport::Reqwest => "the transport `reqwest`, which timestamps reads",
        Transport::Stamped if target.is_by_socket() => "a unix socket, which has no packets",
        Transport::Stamped => return None,
    };
    let what = format!("`stamps: packets` is not possible with {why}");
    let help = "`stamps: auto` uses them where possible";
    Some(config.error_in(model.display_name(), &what, help))
}

/// Marks the name of a simulated model. A figure that is copied out of a report must not be
/// mistaken for one of a real model.
fn simulated_name(name: &str) -> String {
    match name.to_lowercase().contains("simulated") {
        true => name.to_owned(),
        false => format!("{name}-simulated"),
    }
}

fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
}

/// The origin of request URLs to a unix socket, as curl has it.
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

/// Returns the path of a base URL, or the protocol's prefix if it has none. A URL with the
/// protocol's own path right after the host is complete: some servers, such as Perplexity's, have
/// no prefix.
fn prefix<'a>(path: &'a str, protocol: &dyn Protocol) -> &'a str {
    match path.trim_end_matches('/') {
        "" => protocol.prefix(),
        own if own == protocol.path() => "",
        own => own,
    }
}

/// Returns `BASE_URL:PORT`, the protocol's prefix, such as `/v1`, and its path. A path of the base
/// URL replaces the prefix.
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
    fn looks_double_up_to_the_most() {
        assert_eq!(factors(1.0), [0.0; 0]);
        assert_eq!(factors(1.5), [1.5]);
        assert_eq!(factors(2.0), [2.0]);
        assert_eq!(factors(10.0), [2.0, 4.0, 8.0, 10.0]);
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
