//! The command line: libtest's flags and ours in one struct.

use std::{
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{FalseyValueParser, RangedU64ValueParser, Resettable},
};
use llm_stream_core::{
    metric::{METRICS, Metric, SUCCESS_RATE},
    precision::PrecisionGoal,
    protocol,
};
use llm_stream_sim::{Fault, FaultKind, Script, ServerCapacity};

use crate::{
    config::{self, Inconclusive, RunCount},
    env,
    plan::Overrides,
};

/// Measures how fast LLM endpoints stream: a trial for each model, prompt or workload, and run.
///
/// Models come from configs.yaml, or from the server at URL, such as http://localhost:8000: its
/// model and protocol are detected, and the equivalent configs.yaml is printed. A FILTER selects
/// the trials whose name, MODEL::PROMPT::run-N or MODEL::WORKLOAD::run-N, contains it. Of several
/// filters any may match, and each must match a trial.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "llm",
    version,
    disable_version_flag = false,
    help_template = "{about-section}\n{usage-heading} {usage}\n\n{all-args}{after-help}",
    override_usage = "cargo bench -- [OPTIONS] [URL] [FILTER]...\n       \
                      llm-stream-bench run [OPTIONS] [URL] [FILTER]...",
    after_help = AFTER_SHORT_HELP
)]
pub struct Cli {
    /// libtest's own flags.
    #[command(flatten)]
    pub libtest: libtest_mimic::Arguments,

    /// Further filters; a trial runs when any matches.
    #[arg(value_name = "FILTER", hide = true)]
    pub more_filters: Vec<String>,

    /// Run only these models, by their key or name in the config
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        env = "LLM_STREAM_BENCH_MODELS",
        help_heading = OURS
    )]
    pub models: Vec<String>,

    /// Run each prompt this often, or `auto`
    ///
    /// `auto` chooses the number from the noise of the first three runs, the thresholds and --precision.
    /// [default: `runs` of the config, else 3]
    #[arg(
        long,
        value_name = "N|auto",
        env = "LLM_STREAM_BENCH_RUNS",
        value_parser = runs,
        help_heading = OURS
    )]
    pub runs: Option<RunCount>,

    /// Write the run's files to DIR, over those of an earlier run
    ///
    /// The files are the results as CSV and JSON, every arrival, and report.html. [default: a new
    /// folder TIMESTAMP in target/llm-stream-bench under cargo, in ./llm-stream-bench otherwise]
    #[arg(long, value_name = "DIR", env = "LLM_STREAM_BENCH_OUTPUT_DIR", help_heading = OURS)]
    pub output_dir: Option<PathBuf>,

    /// Keep every arrival of the requests as FORMAT
    ///
    /// The file is in the run's folder. Without it a run cannot be resumed, and its report lacks
    /// distributions, requests in time and other figures of single tokens.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "LLM_STREAM_BENCH_REQUESTS",
        value_enum,
        default_value_t,
        conflicts_with = "output",
        help_heading = OURS
    )]
    pub requests: RequestsFormat,

    /// Write the results and the requests as Parquet too
    ///
    /// The files are results.parquet and requests.parquet, in the run's folder. It requires the feature
    /// `parquet`.
    #[arg(
        long,
        env = "LLM_STREAM_BENCH_PARQUET",
        value_parser = FalseyValueParser::new(),
        conflicts_with = "output",
        help_heading = OURS
    )]
    pub parquet: bool,

    /// Resume a run that was interrupted or has failed trials
    ///
    /// Its trials whose requests are all valid are kept, and the others run, with the same config. RUN
    /// is a folder, the beginning of its name, or `latest`.
    #[arg(long, value_name = "RUN", env = "LLM_STREAM_BENCH_RESUME", help_heading = OURS)]
    pub resume: Option<String>,

    /// Write only the CSV of the results, to FILE, and overwrite it
    #[arg(
        long,
        value_name = "FILE",
        env = "LLM_STREAM_BENCH_OUTPUT",
        conflicts_with = "output_dir",
        help_heading = OURS
    )]
    pub output: Option<PathBuf>,

    /// Read the models from FILE [default: configs.yaml]
    #[arg(long, value_name = "FILE", env = "LLM_STREAM_BENCH_CONFIG", help_heading = OURS)]
    pub config: Option<PathBuf>,

    /// Send no warm-up request before a model's first trial
    #[arg(
        long,
        env = "LLM_STREAM_BENCH_NO_WARMUP",
        value_parser = FalseyValueParser::new(),
        help_heading = OURS
    )]
    pub no_warmup: bool,

    /// Skip the preflight
    ///
    /// It requests one token from each endpoint before the first trial, to find errors of its port,
    /// path, key or model.
    #[arg(
        long,
        env = "LLM_STREAM_BENCH_NO_PREFLIGHT",
        value_parser = FalseyValueParser::new(),
        help_heading = OURS
    )]
    pub no_preflight: bool,

    /// Refuse data sets with records that cannot be sent
    ///
    /// Without this option such records are skipped.
    #[arg(
        long,
        env = "LLM_STREAM_BENCH_STRICT_DATA",
        value_parser = FalseyValueParser::new(),
        help_heading = OURS
    )]
    pub strict_data: bool,

    /// Do not measure the instrument's own error
    ///
    /// It then counts as zero in verdicts, and a simulated endpoint that did not keep its script is only
    /// a warning.
    #[arg(
        long,
        env = "LLM_STREAM_BENCH_NO_CALIBRATION",
        value_parser = FalseyValueParser::new(),
        help_heading = OURS
    )]
    pub no_calibration: bool,

    /// With an undecided threshold: pass, warn or fail
    ///
    /// [default: `inconclusive` of the config, else warn]
    #[arg(
        long,
        value_name = "WHAT",
        env = "LLM_STREAM_BENCH_INCONCLUSIVE",
        value_parser = inconclusive,
        help_heading = OURS
    )]
    pub inconclusive: Option<Inconclusive>,

    /// Go on up to N runs to decide thresholds and --precision
    ///
    /// [default: `max_runs` of the config, else 30 with --precision, --max-time or `--runs auto`, else
    /// no more than `runs`]
    #[arg(
        long,
        value_name = "N",
        env = "LLM_STREAM_BENCH_MAX_RUNS",
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        help_heading = OURS
    )]
    pub max_runs: Option<u32>,

    /// Start no additional run that would end later, such as 10m
    ///
    /// The time counts from the start. The first `runs` are always measured. [default: `max_time` of
    /// the config, else no limit]
    #[arg(
        long,
        value_name = "DURATION",
        env = "LLM_STREAM_BENCH_MAX_TIME",
        value_parser = max_time,
        help_heading = OURS
    )]
    pub max_time: Option<Duration>,

    /// Memory of all answers together, such as 2GB
    ///
    /// When it is reached, the answers that hold the most of it fail with `too_long`. [default:
    /// `max_memory` of the config, else 512MB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "LLM_STREAM_BENCH_MAX_MEMORY",
        value_parser = config::parse_size,
        help_heading = OURS
    )]
    pub max_memory: Option<usize>,

    /// Continue until each mean is known within ± this, such as 2%
    ///
    /// The goal is for half of the mean's 95 % interval: `2%` for ttft, tpot and generation_speed, or
    /// `generation_speed=2%,ttft=5%`. [default: `precision` of the config]
    #[arg(
        long,
        value_name = "PERCENT",
        env = "LLM_STREAM_BENCH_PRECISION",
        value_parser = precision,
        help_heading = OURS
    )]
    pub precision: Option<Goals>,

    /// Add the run to a baseline, unless it fails
    ///
    /// NAME is one in the target folder, or a FILE.json to be committed.
    #[arg(long, value_name = "NAME", env = "LLM_STREAM_BENCH_SAVE_BASELINE", help_heading = OURS)]
    pub save_baseline: Option<String>,

    /// Keep only the latest N runs of that baseline [default: 30]
    #[arg(
        long,
        value_name = "N",
        env = "LLM_STREAM_BENCH_KEEP_RUNS",
        value_parser = clap::value_parser!(u32).range(1..=200),
        requires = "save_baseline",
        help_heading = OURS
    )]
    pub keep_runs: Option<u32>,

    /// Add the run to that baseline also if it fails
    ///
    /// Later runs are then compared with its speed.
    #[arg(
        long,
        env = "LLM_STREAM_BENCH_ACCEPT",
        value_parser = FalseyValueParser::new(),
        requires = "save_baseline",
        help_heading = OURS
    )]
    pub accept: bool,

    /// Name the run in that baseline, for example by its commit
    #[arg(
        long,
        value_name = "TEXT",
        env = "LLM_STREAM_BENCH_BASELINE_LABEL",
        requires = "save_baseline",
        help_heading = OURS
    )]
    pub baseline_label: Option<String>,

    /// Compare with this baseline
    ///
    /// Thresholds such as `generation_speed >= -3 % of baseline` need it.
    #[arg(
        long,
        value_name = "NAME",
        env = "LLM_STREAM_BENCH_BASELINE",
        conflicts_with = "baseline_lenient",
        help_heading = OURS
    )]
    pub baseline: Option<String>,

    /// As --baseline; if the baseline does not exist, run without its thresholds
    #[arg(
        long,
        value_name = "NAME",
        env = "LLM_STREAM_BENCH_BASELINE_LENIENT",
        help_heading = OURS
    )]
    pub baseline_lenient: Option<String>,

    /// Save each response byte for byte, with arrival times
    ///
    /// DIR gets a file of JSON lines for each request.
    #[arg(long, value_name = "DIR", env = "LLM_STREAM_BENCH_RECORD", help_heading = OURS)]
    pub record: Option<PathBuf>,

    /// Write trials and thresholds to FILE as JUnit XML
    ///
    /// Each is a test case; inconclusive thresholds are skipped ones.
    #[arg(long, value_name = "FILE", env = "LLM_STREAM_BENCH_JUNIT", help_heading = OURS)]
    pub junit: Option<PathBuf>,

    /// Write all results of the run to FILE as JSON
    ///
    /// fixtures/schema/run.v2.json is its schema.
    #[arg(long, value_name = "FILE", env = "LLM_STREAM_BENCH_JSON", help_heading = OURS)]
    pub json: Option<PathBuf>,

    /// Write the means to FILE for a tool that tracks them
    ///
    /// FORMAT is bencher (Bencher Metric Format), github-action-benchmark-bigger (its
    /// customBiggerIsBetter, for speeds) or github-action-benchmark-smaller (its customSmallerIsBetter,
    /// for times). May be repeated.
    #[arg(
        long = "export",
        value_name = "FORMAT=FILE",
        value_delimiter = ',',
        env = "LLM_STREAM_BENCH_EXPORT",
        value_parser = export,
        help_heading = OURS
    )]
    pub exports: Vec<Export>,

    /// Show no live view on a terminal, only lines
    ///
    /// Without a terminal, with TERM=dumb and in CI (the variable CI is set) there are only lines.
    #[arg(
        long,
        env = "LLM_STREAM_BENCH_NO_PROGRESS",
        value_parser = FalseyValueParser::new(),
        help_heading = OURS
    )]
    pub no_progress: bool,

    /// Print every figure of each model
    ///
    /// Without this option the summary of several models is one table of the main figures.
    #[arg(
        long,
        env = "LLM_STREAM_BENCH_VERBOSE",
        value_parser = FalseyValueParser::new(),
        help_heading = OURS
    )]
    pub verbose: bool,

    /// The options for a server without a config.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// Options for the server at a URL, which replaces a config.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = OF_URL)]
pub struct ServerOptions {
    /// Measure this model [default: the first one that the server lists]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Use this protocol instead of detecting it
    ///
    /// It is openai_chat, openai_completions, openai_responses, anthropic_messages, ollama_chat,
    /// llamacpp_completion or tgi_generate_stream.
    #[arg(long, value_name = "NAME", value_parser = protocol)]
    pub protocol: Option<&'static str>,

    /// Send this prompt; may be repeated [default: the ten built-in prompts]
    #[arg(long = "prompt", value_name = "TEXT", value_parser = prompt)]
    pub prompts: Vec<String>,

    /// Keep N requests in flight
    ///
    /// The prompts are not sent one by one, but as a workload of 4 × N requests, at least 8.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub concurrency: Option<u64>,

    /// Generate at most N tokens per answer [default: 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_tokens: Option<u64>,

    /// Send the key in this environment variable
    ///
    /// Without this option no key is sent, not even OPENAI_API_KEY: the server at URL may belong to
    /// anyone.
    #[arg(long, value_name = "VARIABLE")]
    pub api_key_env: Option<String>,
}

impl ServerOptions {
    /// The options that are given, by their names on the command line.
    pub fn given(&self) -> Vec<&'static str> {
        let given = [
            ("--model", self.model.is_some()),
            ("--protocol", self.protocol.is_some()),
            ("--prompt", !self.prompts.is_empty()),
            ("--concurrency", self.concurrency.is_some()),
            ("--max-tokens", self.max_tokens.is_some()),
            ("--api-key-env", self.api_key_env.is_some()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
    }
}

/// Goals of precision, in one argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Goals(pub Vec<PrecisionGoal>);

fn precision(text: &str) -> Result<Goals, String> {
    config::parse_precision(text).map(Goals)
}

/// A duration longer than zero.
fn max_time(text: &str) -> Result<Duration, String> {
    match config::duration(text)? {
        Duration::ZERO => Err("it must be longer than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// `auto`, or a number of runs.
fn runs(text: &str) -> Result<RunCount, String> {
    if text == "auto" {
        return Ok(RunCount::Auto);
    }
    let number = text.parse().ok().filter(|runs| (1..=10_000).contains(runs));
    number
        .map(RunCount::Fixed)
        .ok_or_else(|| "expected `auto` or a whole number from 1 to 10000".to_owned())
}

/// The name of a protocol.
fn protocol(name: &str) -> Result<&'static str, String> {
    let known = || protocol::ALL.iter().map(|known| known.name()).collect::<Vec<_>>().join(", ");
    let found = protocol::by_name(name).map(|found| found.name());
    found.ok_or_else(|| format!("expected one of {}", known()))
}

/// A prompt that is not blank.
fn prompt(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("expected a text with other characters than blanks".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// A file for a tool that tracks figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The format.
    pub format: ExportFormat,
    /// The file.
    pub path: PathBuf,
}

/// The formats of tools that track figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// Bencher Metric Format.
    Bencher,
    /// github-action-benchmark's `customBiggerIsBetter`.
    GithubActionBenchmarkBigger,
    /// github-action-benchmark's `customSmallerIsBetter`.
    GithubActionBenchmarkSmaller,
}

impl ExportFormat {
    const ALL: [Self; 3] =
        [Self::Bencher, Self::GithubActionBenchmarkBigger, Self::GithubActionBenchmarkSmaller];

    /// Its name in `--export`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bencher => "bencher",
            Self::GithubActionBenchmarkBigger => "github-action-benchmark-bigger",
            Self::GithubActionBenchmarkSmaller => "github-action-benchmark-smaller",
        }
    }
}

const OF_URL: &str = "Options for the server at URL";

const OURS: &str = "Benchmark options (each also as an environment variable)";

const AFTER_SHORT_HELP: &str = "\
Exit codes: 0 success, 101 a trial failed or a threshold was missed, 2 unusable command line or
config, 130, 143 or 129 interrupted. `--help` has the details, the environment variables and the
definitions of the metrics.";

const AFTER_HELP: &str = "\
Exit codes: 0 success, or an inconclusive threshold that only warns; 101 a trial failed, a
threshold was missed, or a report or stdout could not be written; 2 the command line or the
config is unusable, or a filter or --skip matches no trial; 130, 143 or 129 interrupted by Ctrl-C
(SIGINT), SIGTERM or SIGHUP: finished rows are kept, reports are written, and a second signal ends
the process at once.

stdout carries libtest's lines only: one iteration is one output token, so `ns/iter` is the time
per output token (tpot) and `+/-` the standard deviation of the gaps between tokens, or over the
requests of a load or conversation. Everything else goes to stderr and into the CSV.";

impl Cli {
    /// The options that override keys of the config.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            models: self.models.clone(),
            runs: match self.runs {
                Some(RunCount::Fixed(runs)) => Some(runs),
                Some(RunCount::Auto) | None => None,
            },
            auto_runs: self.runs == Some(RunCount::Auto),
            max_runs: self.max_runs,
            max_time: self.max_time,
            max_memory: self.max_memory,
            precision: self.precision.as_ref().map(|goals| goals.0.clone()),
            no_warmup: self.no_warmup,
            record: self.record.clone(),
        }
    }

    /// The options of a run without arguments and environment variables.
    pub fn defaults() -> Result<Self, clap::Error> {
        let command = Self::command().mut_args(|arg| arg.env(None::<&str>));
        Self::from_arg_matches(&command.try_get_matches_from(["llm"])?)
    }

    /// The config's file.
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(default_config())
    }

    /// Removes the URLs from the filters: they begin with http://, https:// or unix://.
    pub fn take_urls(&mut self) -> Vec<String> {
        let filters = self.libtest.filter.take().into_iter().chain(self.more_filters.drain(..));
        let (urls, filters): (Vec<_>, Vec<_>) = filters.partition(|word| is_url(word));
        self.more_filters = filters;
        urls
    }

    /// The filters, of which any may match.
    pub fn filters(&self) -> Vec<&str> {
        self.libtest.filter.iter().chain(&self.more_filters).map(String::as_str).collect()
    }
}

/// The default config.
const CONFIG: &str = "configs.yaml";

/// The path of the default config.
pub fn default_config() -> &'static Path {
    Path::new(CONFIG)
}

/// Whether `word` is the URL of a server.
fn is_url(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    ["http://", "https://", "unix://"].iter().any(|scheme| lower.starts_with(scheme))
}

/// `cargo bench` for LLM endpoints: measures how fast they stream, and fails if they got slower.
#[derive(Debug, Parser)]
#[command(name = "llm-stream-bench", version)]
pub struct Commands {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the binary.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the models of configs.yaml, as `cargo bench` does, or the server at a URL
    Run(Box<Cli>),
    /// Write a commented configs.yaml: for the server at URL, or with a simulated model
    Init(InitOptions),
    /// Validate configs.yaml and print what `run` would do, without a request
    Check(CheckOptions),
    /// Serve a simulated endpoint until Ctrl-C
    Serve(ServeOptions),
    /// List the runs, the latest first
    List(ListOptions),
    /// Print the figures and the verdicts of a run
    Show(ShowOptions),
    /// Write a report of one run, or of several to compare them
    Report(ReportOptions),
    /// Compare runs or baselines, or the runs of one baseline, and fail if a figure got worse
    Compare(CompareOptions),
    /// Repeat a run: the same config, options and order
    Rerun(RerunOptions),
    /// Measure the instrument's own error on this machine, with a simulated endpoint that logs its
    /// writes
    Calibrate(CalibrateOptions),
    /// Print the completions of a shell
    Completions(CompletionsOptions),
    /// Print the man page, or write those of all commands
    Man(ManOptions),
    /// Work for `calibrate --full`
    #[command(hide = true)]
    Part(PartOptions),
}

/// The shell.
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsOptions {
    /// Shell that is to complete options
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// The man pages.
#[derive(Debug, Clone, clap::Args)]
pub struct ManOptions {
    /// Write a page for each command into DIR
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
}

/// The config to write.
#[derive(Debug, Clone, clap::Args)]
pub struct InitOptions {
    /// Server whose model and protocol are detected, such as http://localhost:8000 [default: none;
    /// the config has a simulated model]
    #[arg(value_name = "URL", value_parser = url)]
    pub url: Option<String>,

    /// Write the config to FILE
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,

    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,

    /// The options for the server at the URL.
    #[command(flatten)]
    pub server: ServerOptions,
}

fn url(text: &str) -> Result<String, String> {
    match is_url(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("expected http://, https:// or unix://, such as http://{text}")),
    }
}

/// The config to check.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckOptions {
    /// Read this config
    #[arg(long, value_name = "FILE", env = "LLM_STREAM_BENCH_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
}

/// The task of a worker of `calibrate --full`.
#[derive(Debug, Clone, clap::Args)]
pub struct PartOptions {
    /// The task, as JSON
    pub task: String,
}

/// The folders of runs to list.
#[derive(Debug, Clone, clap::Args)]
pub struct ListOptions {
    /// List the runs in this folder [default: ./llm-stream-bench and cargo's
    /// target/llm-stream-bench]
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,

    /// List at most N runs
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub number: usize,
}

/// The run to print.
#[derive(Debug, Clone, clap::Args)]
pub struct ShowOptions {
    /// The run: a folder, its run.json, the beginning of a name in `list`, `latest`, or `latest~1` for
    /// the one before
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: String,
}

/// The report to write.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportOptions {
    /// The runs, as for `show`; in HTML, several are drawn over each other
    #[arg(value_name = "RUN", default_value = "latest")]
    pub runs: Vec<String>,

    /// The format [default: html; of `--definitions`, text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<ReportFormat>,

    /// The figures by the definitions of vllm bench serve, SGLang bench_serving, AIPerf, GuideLLM,
    /// EvalScope and genai-bench instead, with the reason for each difference; with `--format json` as
    /// JSON
    #[arg(long)]
    pub definitions: bool,

    /// Write to FILE; `-` is stdout [default: for html, report.html in the run's folder or, of several
    /// runs, in the current one; otherwise stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How the requests with every arrival are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum RequestsFormat {
    /// JSON lines: requests.jsonl
    #[default]
    Jsonl,
    /// The same, compressed to a third: requests.jsonl.zst
    Zst,
    /// Not at all
    None,
}

/// A format of `report`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// A page with charts, in one file
    Html,
    /// Markdown
    Md,
    /// The figures: a row for each run, model and metric
    Csv,
    /// The results as in run.json; of several runs, a list of them
    Json,
}

/// The run to repeat.
#[derive(Debug, Clone, clap::Args)]
pub struct RerunOptions {
    /// The run, as for `show`
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: String,

    /// Write the new run's files to DIR [default: a new folder TIMESTAMP next to the run's]
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
}

/// The runs or baselines to compare.
#[derive(Debug, Clone, clap::Args)]
#[command(override_usage = "llm-stream-bench compare [OPTIONS] BEFORE NOW...\n       \
                      llm-stream-bench compare [OPTIONS] --history FILE")]
pub struct CompareOptions {
    /// The earlier run, as for `show`, its results.csv, or a baseline: its NAME or a FILE.json. All runs
    /// of a baseline since the last accepted one count
    #[arg(requires = "now", required_unless_present = "history", conflicts_with = "history")]
    pub before: Option<String>,

    /// The later ones, each of which is compared with the earlier one
    pub now: Vec<String>,

    /// Search the runs of this baseline for a step or a slow trend instead
    #[arg(long, value_name = "FILE")]
    pub history: Option<String>,

    /// Judge these figures, and only print the others
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        default_value = "ttft,tpot,generation_speed",
        value_parser = figure
    )]
    pub figures: Vec<&'static Metric>,

    /// Smallest change for the worse, in percent, that is a regression if it is significant
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = percent)]
    pub size: f64,
}

/// A metric that can get worse.
fn figure(name: &str) -> Result<&'static Metric, String> {
    let found = Metric::comparable().find(|of| of.name == name || of.alias == Some(name));
    found.ok_or_else(|| {
        let names: Vec<_> = Metric::comparable().map(|metric| metric.name).collect();
        format!("`{name}` is none of {}", names.join(", "))
    })
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse::<f64>().ok();
    number
        .filter(|number| (0.0..1000.0).contains(number))
        .ok_or_else(|| format!("`{text}` is not a percentage such as `3`"))
}

/// The calibrations to run.
#[derive(Debug, Clone, clap::Args)]
pub struct CalibrateOptions {
    /// Numbers of streams at the same time
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,16,64,256,1024",
          value_parser = streams)]
    pub streams: Vec<usize>,

    /// Over TLS
    #[arg(long)]
    pub tls: bool,

    /// Over a unix socket
    #[arg(long, conflicts_with = "tls")]
    pub unix: bool,

    /// While the live view of a run is drawn, to measure its cost
    #[arg(long)]
    pub live_view: bool,

    /// For developers: compare both transports with a reference reader
    #[arg(long, hide = true, conflicts_with_all = ["streams", "tls", "unix", "live_view"])]
    pub full: bool,
}

/// A number of streams whose file descriptors, two for each, a process may have.
fn streams(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(streams @ 1..=4096) => Ok(streams),
        _ => Err(format!("`{text}` is not a number from 1 to 4096")),
    }
}

/// The simulated endpoint's rhythm and faults.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeOptions {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,

    /// Listen on a unix socket at PATH, which Ctrl-C removes
    #[arg(long, value_name = "PATH", conflicts_with_all = ["listen", "tls_cert"])]
    pub unix: Option<PathBuf>,

    /// Use TLS with the certificate in this PEM file, followed by its chain
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Protocol: openai_chat, openai_completions, openai_responses, anthropic_messages,
    /// ollama_chat, llamacpp_completion or tgi_generate_stream
    #[arg(long, value_name = "NAME", default_value = "openai_chat")]
    pub protocol: String,

    /// Request → first token
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = config::duration)]
    pub ttft: Duration,

    /// Between token events
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = config::duration)]
    pub itl: Duration,

    /// Random deviation of each time, up to this much in either direction
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = config::duration)]
    pub jitter: Duration,

    /// Run at most N requests together and queue the others: a server with a limited capacity,
    /// which decodes step by step. `--ttft` and `--itl` then do not apply
    #[arg(long, value_name = "N", conflicts_with_all = ["ttft", "itl"], value_parser = tokens())]
    pub slots: Option<u64>,

    /// With --slots: prompt tokens processed per second
    #[arg(long, value_name = "N", default_value_t = 20_000.0, requires = "slots", value_parser = positive)]
    pub prefill_rate: f64,

    /// With --slots: the part of a decoding step that does not depend on the number of requests
    #[arg(long, value_name = "DURATION", default_value = "8ms", requires = "slots", value_parser = config::duration)]
    pub decode_base: Duration,

    /// With --slots: the part of a decoding step that each running request adds
    #[arg(long, value_name = "DURATION", default_value = "0.2ms", requires = "slots", value_parser = config::duration)]
    pub decode_per_running: Duration,

    /// With --slots: the tokens that fit into the KV cache
    #[arg(long, value_name = "N", requires = "slots", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub kv_tokens: Option<u64>,

    /// Generate this many tokens, or fewer if `max_tokens` is less
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = tokens())]
    pub tokens: u64,

    /// Send this many tokens in an event
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = tokens())]
    pub tokens_per_event: u64,

    /// Make the first N tokens reasoning
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub reasoning_tokens: u64,

    /// Report N tokens of the prompt as cached
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cached_tokens: u64,

    /// Report the script's times at the end of an answer, if the protocol has fields for them
    #[arg(long)]
    pub timings: bool,

    /// Seed of the jitter
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Simulate a fault: status=503, stall=N, truncate=N, reset=N or error=N (after N token
    /// events), missing_usage, missing_end, split=BYTES, merge=EVENTS, wrong_timings=PERCENT (of
    /// the true ones), no_stream; with @K only in the K-th request. May be repeated. If one event
    /// has the finish reason, the usage and the end, missing_end omits all three
    #[arg(long = "fault", value_name = "FAULT[@K]", value_parser = fault)]
    pub faults: Vec<Fault>,
}

impl ServeOptions {
    /// Returns the script that the options describe.
    pub fn script(&self) -> Script {
        Script {
            ttft: self.ttft,
            itl: self.itl,
            jitter: self.jitter,
            capacity: self.slots.map(|slots| ServerCapacity {
                slots,
                prefill_rate: self.prefill_rate,
                base: self.decode_base,
                per_running: self.decode_per_running,
                kv_tokens: self.kv_tokens,
            }),
            tokens: self.tokens,
            tokens_per_event: self.tokens_per_event,
            reasoning_tokens: self.reasoning_tokens,
            cached_tokens: self.cached_tokens,
            timings: self.timings,
            seed: self.seed,
            faults: self.faults.clone(),
        }
    }
}

/// A number above zero.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err(format!("`{text}` is not a number above 0")),
    }
}

/// A number of tokens, as in the config.
fn tokens() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..=Script::MOST_TOKENS)
}

/// A fault such as `reset=10@2`.
fn fault(text: &str) -> Result<Fault, String> {
    let number = |digits: &str| {
        digits.parse::<u64>().map_err(|_| format!("`{digits}` in `{text}` is not a number"))
    };
    let (kind, request) = match text.split_once('@') {
        Some((kind, request)) => (kind, Some(number(request)?)),
        None => (text, None),
    };
    let kind = match kind.split_once('=') {
        Some((name, value)) => FaultKind::with_number(name, number(value)?),
        None => FaultKind::flag(kind),
    };
    let kind = kind.ok_or_else(|| {
        format!("`{text}` is not a fault such as `stall=10`, `missing_usage` or `status=503@2`")
    })?;
    Ok(Fault { kind, request })
}

/// Flags of libtest that have no effect here, by their ids: no trial is ignored or captured.
const WITHOUT_EFFECT: [&str; 5] =
    ["include_ignored", "ignored", "nocapture", "show_output", "unstable_flags"];

/// Flags of libtest that few users need, by their ids.
const RARELY_USED: [&str; 4] = ["bench", "test_threads", "logfile", "color"];

/// The other arguments of libtest, by their ids, in words of benchmarks.
const REWORDED: [(&str, &str); 6] = [
    ("filter", "Run only the trials whose name contains FILTER"),
    ("list", "List the trials"),
    ("exact", "Match whole names instead of parts"),
    ("quiet", "Print one character for each trial, as --format=terse"),
    ("skip", "Skip the trials whose name contains FILTER; may be repeated"),
    ("format", "Format of the trials' lines"),
];

/// Hides what `-h` and `--help` need not show, and moves the environment variables to `--help`.
pub fn with_short_help(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let id = arg.get_id().as_str();
        let reworded = REWORDED.iter().find(|(reworded, _)| *reworded == id);
        let (is_hidden, is_rare) = (WITHOUT_EFFECT.contains(&id), RARELY_USED.contains(&id));
        let arg = match reworded {
            Some((_, help)) => arg.help(*help).long_help(*help),
            None => arg,
        };
        let arg = if is_hidden { arg.hide(true) } else { arg };
        with_variable_in_long_help(if is_rare { arg.hide_short_help(true) } else { arg })
    })
}

/// Describes the environment variable of an option only in the long help.
fn with_variable_in_long_help(arg: clap::Arg) -> clap::Arg {
    let Some(variable) = arg.get_env().map(|name| name.to_string_lossy().into_owned()) else {
        return arg;
    };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
    let help = help.unwrap_or_default();
    arg.hide_env(true).long_help(format!("{help}\n\n[env: {variable}=]"))
}

/// Lets `--test` override the `--bench` that `cargo bench` adds, as in libtest. In libtest-mimic
/// the two conflict.
pub fn with_test_over_bench(command: clap::Command) -> clap::Command {
    let help = "Try each case once against the simulated endpoint, also with --bench";
    command.mut_arg("test", |arg| arg.conflicts_with(Resettable::Reset).help(help))
}

/// Treats an empty variable as unset: CI jobs pass on unset inputs as empty variables.
pub fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| match arg.get_env().is_some_and(env::is_empty) {
        true => arg.env(None::<&str>),
        false => arg,
    })
}

/// A file to export to, such as `bencher=bmf.json`.
fn export(text: &str) -> Result<Export, String> {
    let known = ExportFormat::ALL.map(ExportFormat::name).join(", ");
    let named = |name: &str| ExportFormat::ALL.into_iter().find(|format| format.name() == name);
    match text.split_once('=') {
        Some((name, path)) if !path.is_empty() => match named(name) {
            Some(format) => Ok(Export { format, path: path.into() }),
            None => Err(format!("unknown format `{name}`: expected one of {known}")),
        },
        _ => Err(format!("`{text}` is not FORMAT=FILE; formats: {known}")),
    }
}

fn inconclusive(text: &str) -> Result<Inconclusive, String> {
    match text {
        "pass" => Ok(Inconclusive::Pass),
        "warn" => Ok(Inconclusive::Warn),
        "fail" => Ok(Inconclusive::Fail),
        _ => Err(format!("unknown value `{text}`: expected pass, warn or fail")),
    }
}

/// Every metric with its unit and definition, for `--help`.
pub fn glossary() -> String {
    let mut text = format!(
        "{AFTER_HELP}\n\nMetrics, for thresholds such as `ttft p95 <= 500 ms` or\n`generation_speed >= -3 % of baseline`:"
    );
    for metric in METRICS.iter().chain([&SUCCESS_RATE]) {
        let alias = metric.alias.map(|alias| format!(" (also {alias})")).unwrap_or_default();
        let unit = metric.unit.display().0;
        let _ = write!(text, "\n  {} [{unit}]{alias}\n      {}", metric.name, metric.definition);
    }
    text
}
