//! The command line: arguments → run → reports → exit code. Only this module uses libtest-mimic and
//! writes to the terminal.

mod baselines;
mod calibrate;
mod clashes;
mod compare;
mod files;
mod github;
mod live;
mod observers;
mod rerun;
mod resume;
mod run_folder;
mod runs;
mod selection;
mod serve;
mod signals;
mod smoke;
mod suite;
mod terminal;
mod worker;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
};

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches};
use libtest_mimic::Arguments;
use llm_stream_client::{
    self as client, Redactor,
    connect_options::{Secret, Stamps},
};
use llm_stream_core::{baseline::Baseline, prompt};

use self::{
    baselines::Baselines,
    files::Files,
    live::LiveView,
    observers::{
        InstrumentFile, LibtestOutput, LibtestTrials, Lines, Output, Recordings, RequestFile,
        ResultsPlace, create_folder, target_folder,
    },
    selection::Selection,
    terminal::Terminal,
};
use crate::{
    bench,
    cli::{self, Cli, Command},
    commands,
    config::{Config, DataNote, Inconclusive},
    env::Github,
    load,
    machine_load::{LoadMeter, MachineLoad},
    plan::{Access, Plan, Target},
    report::{
        Exporter, Run, RunStatus, overview::Overview, precision::PrecisionTables, ranking::Ranking,
        thresholds,
    },
    run::{self, Accesses, Measured, Observer, RunOptions, Runner},
    setup::{Invocation, Setup},
    whole_file,
};

/// The folder of runs and baselines.
const RUNS: &str = "llm-stream-bench";

const FAILED: u8 = 101;
const UNUSABLE: u8 = 2;

/// The bench target: `fn main() -> ExitCode { llm_stream_bench::main() }`.
///
/// With `--bench`, which `cargo bench` passes, it measures. Without it, as under `cargo test`, it
/// tries each case once against the simulated endpoint.
pub fn main() -> ExitCode {
    exit(listened().and_then(|()| {
        let matches = complete(Cli::command()).try_get_matches();
        match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
            Ok(cli) => run(cli, target_folder().join(RUNS)),
            Err(error) => Ok(refuse(&error)),
        }
    }))
}

/// The binary: the same without cargo, and the other commands.
pub fn command(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    exit(listened().and_then(|()| {
        let matches = all_commands().try_get_matches_from(arguments);
        match matches.and_then(|matches| cli::Commands::from_arg_matches(&matches)) {
            Ok(commands) => dispatch(commands.command),
            Err(error) => Ok(refuse(&error)),
        }
    }))
}

fn all_commands() -> clap::Command {
    cli::Commands::command()
        .mut_subcommand("run", complete)
        .mut_subcommand("check", cli::without_empty_variables)
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(mut cli) => {
            cli.libtest.bench = !cli.libtest.test;
            run(*cli, PathBuf::from(RUNS))
        }
        Command::Init(options) => init(&options),
        Command::Check(options) => check(&options),
        Command::Serve(options) => serve::serve(&options),
        Command::List(options) => runs::list(&options),
        Command::Show(options) => runs::show(&options),
        Command::Report(options) => runs::report(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Rerun(options) => rerun::run(&options),
        Command::Calibrate(options) => calibrate::run(&options),
        Command::Completions(options) => {
            terminal::say_all(&commands::shell::completions(all_commands(), options.shell));
            Ok(0)
        }
        Command::Man(options) => man(&options),
        Command::Part(options) => worker::run(&options),
    }
}

fn listened() -> anyhow::Result<()> {
    signals::listen().context("failed to handle signals")
}

/// Prints clap's help, version or error, and returns its exit code.
fn refuse(error: &clap::Error) -> u8 {
    if terminal::report_arguments(error) { UNUSABLE } else { 0 }
}

/// Completes the command that measures with what clap's attributes cannot express.
fn complete(command: clap::Command) -> clap::Command {
    let command = cli::with_short_help(cli::with_test_over_bench(command));
    cli::without_empty_variables(command).after_long_help(cli::glossary())
}

/// Turns the outcome into an exit code. An error means that nothing could run.
fn exit(outcome: anyhow::Result<u8>) -> ExitCode {
    let code = outcome.unwrap_or_else(|error| {
        let message = format!("{error:#}");
        // Errors of the config have their own head.
        match message.starts_with("error: ") {
            true => terminal::note(&message),
            false => terminal::note(&format!("error: {message}")),
        }
        UNUSABLE
    });
    ExitCode::from(match terminal::unwritten() {
        Some(line) => {
            terminal::note(&line);
            if code == 0 { FAILED } else { code }
        }
        None => code,
    })
}

fn man(options: &cli::ManOptions) -> anyhow::Result<u8> {
    match &options.output_dir {
        Some(folder) => commands::shell::write_man_pages(all_commands(), folder)?,
        None => terminal::say_all(&commands::shell::man_page(all_commands())?),
    }
    Ok(0)
}

fn init(options: &cli::InitOptions) -> anyhow::Result<u8> {
    terminal::say(&commands::init::run(options)?);
    Ok(0)
}

fn check(options: &cli::CheckOptions) -> anyhow::Result<u8> {
    let matches = complete(Cli::command()).get_matches_from(["llm"]);
    let checked = commands::check::run(options, &Cli::from_arg_matches(&matches)?)?;
    checked.notes.iter().for_each(|note| terminal::note(note));
    terminal::say(checked.text.trim_end());
    Ok(0)
}

/// Loads the config: of the URLs on the command line, or of the file.
fn config(cli: &mut Cli) -> anyhow::Result<Config> {
    let urls = cli.take_urls();
    if urls.is_empty() {
        commands::refuse_without_url(&cli.server)?;
        return commands::load(cli.config_path(), cli);
    }
    let commands::ServerConfig { config, notes } = commands::ServerConfig::of(&urls, cli)?;
    notes.iter().for_each(|note| terminal::note(note));
    Ok(config)
}

/// What a run is started with, besides its config and options.
struct Start {
    /// The folder in which the folder of the run is made.
    parent: PathBuf,
    invocation: Invocation,
}

/// Runs what the command line asks for; the folder of the run is made in `parent`.
fn run(mut cli: Cli, parent: PathBuf) -> anyhow::Result<u8> {
    // `cargo bench -- --test` passes both.
    cli.libtest.bench &= !cli.libtest.test;
    let config = config(&mut cli)?;
    run_config(cli, config, Start { parent, invocation: Invocation::this() })
}

/// Runs the selected trials of a config.
fn run_config(cli: Cli, mut config: Config, start: Start) -> anyhow::Result<u8> {
    if cli.strict_data {
        config = config.with_all_data()?;
    }
    for line in config.data.iter().flat_map(DataNote::lines) {
        terminal::note(&line);
    }
    // A smoke test tries each case once.
    let measures = cli.libtest.bench;
    // `--concurrency` turns the run into its workload.
    let only_loads = cli.server.concurrency.is_some();
    let plan = Plan::new(&config, &cli.overrides())?
        .select(|case| measures || case.run == 1)
        .select(|case| !only_loads || case.task.workload().is_some());
    let selection = Selection::of(&cli);
    if let Some(mistake) = selection.mistake(&plan) {
        anyhow::bail!(commands::with_url_hint(&mistake, &cli, &config));
    }
    let all = plan.cases.len();
    let plan = plan.select(|case| selection.has(case));
    let filtered_out = all - plan.cases.len();
    if cli.libtest.list {
        list(&cli.libtest, &plan);
        return Ok(0);
    }
    if measures {
        plan.check_counterparts()?;
    }
    match measures {
        true => measure(cli, &config, plan, (filtered_out, start)),
        false => smoke::run(cli.libtest, plan, filtered_out),
    }
}

/// Prints the names in the form that nextest reads. libtest-mimic would write `: bench`, which
/// nextest refuses.
fn list(arguments: &Arguments, plan: &Plan) {
    if arguments.ignored {
        return;
    }
    for case in plan.listed() {
        terminal::say(&format!("{}: benchmark", case.name));
    }
    if let Some(note) = simulated_models(plan).filter(|_| arguments.bench) {
        terminal::note(&note);
    }
}

/// Returns the note that names the simulated models.
fn simulated_models(plan: &Plan) -> Option<String> {
    let targets = plan.selected_targets();
    let names: Vec<_> = targets
        .iter()
        .filter(|target| target.is_simulated())
        .map(|target| target.name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!("note: simulated, so these figures come from a script: {}", names.join(", "))
    })
}

/// Warns of thresholds that the plan cannot decide. Without stored runs, those that need them are not
/// judged.
fn undecidable(plan: &Plan, baseline: Option<&Baseline>) -> Vec<String> {
    let found = plan.undecidable(baseline).into_iter();
    let judged = found.filter(|of| baseline.is_some() || !of.threshold.needs_baseline());
    judged.map(|limit| format!("WARNING: {limit}")).collect()
}

/// Names the order of the trials with its seed, where there is a choice.
fn order(plan: &Plan) -> Option<String> {
    (plan.cases.len() > 1).then(|| format!("Order of the trials: {}", plan.order))
}

/// Returns a note for each model that bypasses the proxy of its environment.
fn bypassed_proxies(plan: &Plan) -> Vec<String> {
    let note = |target: Arc<Target>| {
        let variable = target.bypassed_proxy()?;
        Some(format!(
            "note: `transport: stamped` bypasses the proxy in {variable}: {} (`transport: auto` \
             would use it)",
            target.name
        ))
    };
    plan.selected_targets().into_iter().filter_map(note).collect()
}

/// Returns a note for each model whose `extra_body` replaces or omits the limit of answers that the
/// config's keys set.
fn overridden_limits(plan: &Plan) -> Vec<String> {
    // One prompt with its own limit represents all of them.
    let limited = plan.cases.iter().map(|case| case.task.prompt());
    let limited = limited.filter(|prompt| prompt.output.tokens.is_some());
    let limited = limited.map(|prompt| &**prompt).next();
    let warm_up = prompt::warm_up();
    let note = |target: Arc<Target>| {
        // Answers of items have no limit.
        if target.protocol.has_items() {
            return None;
        }
        let most = |prompt| target.protocol.most_tokens(&load::trial_body(&target, prompt));
        match (most(&warm_up), limited) {
            (None, _) => Some(format!(
                "note: `extra_body` of {} omits the limit of answers: answers, the warm-up's \
                 included, are as long as the model likes, and `max_tokens` and \
                 `output_tokens` have no effect",
                target.name
            )),
            (_, Some(prompt)) if most(prompt) != prompt.output.tokens => Some(format!(
                "note: `extra_body` of {} sets the limit of every answer; `output_tokens` has no \
                 effect",
                target.name
            )),
            _ => None,
        }
    };
    plan.selected_targets().into_iter().filter_map(note).collect()
}

/// Fails if a selected model requires packet timestamps and this process may not receive them.
fn check_packet_stamps(plan: &Plan) -> anyhow::Result<()> {
    let wanted = |target: &Arc<Target>| target.stamps == Stamps::Packets;
    let Some(target) = plan.selected_targets().into_iter().find(wanted) else { return Ok(()) };
    client::check_packet_stamps().map_err(|error| {
        anyhow::anyhow!(
            "`stamps: packets` of {} requires the capability CAP_NET_RAW, on Linux: {error}; start \
             this program with it (root, `docker run --cap-add NET_RAW`, `setcap cap_net_raw+ep \
             PROGRAM`), or write `stamps: auto`, which uses packets where possible",
            target.name
        )
    })
}

/// Returns a warning for each model whose certificates are not verified.
fn insecure(plan: &Plan) -> Vec<String> {
    let warning = |target: Arc<Target>| {
        target.is_insecure().then(|| {
            format!(
                "warning: `insecure_tls: true`: certificates of {} are not verified: its key and \
                 prompts may reach an impostor; prefer `ca_file`",
                target.name
            )
        })
    };
    plan.selected_targets().into_iter().filter_map(warning).collect()
}

/// Returns a note if certificates are verified by the roots in this program.
fn built_in_roots(plan: &Plan) -> Option<String> {
    let verifies = |target: &Arc<Target>| target.is_over_tls() && !target.is_insecure();
    let is_used = plan.selected_targets().iter().any(verifies) && client::has_built_in_roots();
    is_used.then(|| {
        "note: this system has no CA certificates: https servers are verified by Mozilla's, which are \
         part of this program; install `ca-certificates`, or set `SSL_CERT_FILE`, to use others"
            .to_owned()
    })
}

/// Returns a warning for each model whose key is too short to be masked.
fn short_keys(accesses: &Accesses) -> Vec<String> {
    let shortest = Redactor::SHORTEST;
    let is_short = |access: &Access| {
        access.key.as_ref().is_some_and(|Secret(key)| key.trim().len() < shortest)
    };
    let short = accesses.iter().filter(|(_, access)| is_short(access));
    let warning = |(target, _): &(Arc<Target>, Access)| {
        format!(
            "warning: the key of {} is not masked in output: it has fewer than {shortest} \
             characters, which occur in any text",
            target.name
        )
    };
    short.map(warning).collect()
}

/// Fails if the selected cases cannot be measured, before minutes are spent.
fn check_measurable(cli: &Cli, config: &Config, plan: &Plan) -> anyhow::Result<()> {
    if cli.libtest.test_threads.is_some_and(|threads| threads > 1) {
        anyhow::bail!(
            "`--test-threads` must be 1: trials at the same time would measure each other"
        );
    }
    if cli.parquet {
        run_folder::check_parquet()?;
    }
    check_packet_stamps(plan)?;
    clashes::refuse(cli, config, plan)?;
    if let Some(folder) = &cli.record {
        create_folder(folder)
            .with_context(|| format!("failed to create the folder {}", folder.display()))?;
        // The name does not matter: recordings are named by their trials.
        whole_file::check(&folder.join("recording.jsonl"))
            .with_context(|| format!("failed to write recordings to {}", folder.display()))?;
    }
    Ok(())
}

/// Measures the selected cases.
fn measure(
    mut cli: Cli,
    config: &Config,
    plan: Plan,
    (filtered_out, Start { parent, invocation }): (usize, Start),
) -> anyhow::Result<u8> {
    let started = run::today();
    let accesses = bench::accesses(config, &plan)?;
    let short_keys = short_keys(&accesses);
    check_measurable(&cli, config, &plan)?;
    let mut setup = Setup::of(config, &accesses, &invocation, started);
    let kept = resume::trials(&cli, &plan, &mut setup)?;
    let logfile = cli.libtest.logfile.as_ref().map(PathBuf::from);
    let terminal = Arc::new(Terminal::new(logfile.as_deref())?);
    let inconclusive = cli.inconclusive.unwrap_or(config.inconclusive);
    let mut baselines = Baselines::of(&cli, &plan, &terminal)?;
    let undecidable = undecidable(&plan, baselines.compared.as_ref());
    let github = Github::from_env();
    let place = ResultsPlace::of(&cli, &parent, started)?;
    let files = Files::open(&cli, place.folder())?;
    let csv = Output::open(&place, cli.requests, &plan)?;
    let temporary_folder = csv.path.parent().filter(|_| csv.path.is_file()).map(Path::to_owned);
    let output = LibtestOutput::new(&mut cli.libtest, filtered_out, temporary_folder.as_deref())?;
    let checks_instrument = !cli.no_calibration;
    checks_instrument.then(|| InstrumentFile::check(&csv.path)).transpose()?;
    let notes = notes(&plan, &github, &setup).into_iter();
    terminal.lines(notes.chain(short_keys).chain(undecidable));
    // From here on a signal ends the run in order, with reports.
    let cancellation = signals::cancellation();
    // Last, because it replaces existing files.
    let (path, results) = (csv.path.clone(), csv.begin()?);
    let requests = results.request_file();
    files.begin(&Run::unfinished(&plan, &baselines.machine, &setup))?;
    let libtest = LibtestTrials::start((cli.libtest, output), &plan.cases, terminal.clone())?;
    let is_broken = libtest.broken();
    let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(results)];
    observers.extend(plan.record.clone().map(|folder| Box::new(Recordings::new(folder)) as _));
    observers.extend(live_view(cli.no_progress, &plan, &terminal).map(|view| Box::new(view) as _));
    observers.extend(printed(&path, &terminal, libtest));
    let options = RunOptions {
        accesses,
        preflight: !cli.no_preflight,
        checks_instrument,
        baseline: baselines.compared.take(),
        machine: baselines.machine.clone(),
        setup: Some(Box::new(setup)),
        kept: kept.map(|kept| Box::new(kept) as _),
        temporary_folder,
        cancellation,
    };
    let meter = LoadMeter::start();
    let Measured { run, failed } = Runner::new(plan, options, &mut observers).run();
    let load = meter.stop();
    let overview = Overview { width: terminal::width(), is_verbose: cli.verbose };
    let saved = Saved { path, place, requests, with_parquet: cli.parquet, files, baselines };
    let closing = Closing { load, overview, terminal, saved, github, inconclusive };
    Ok(closing.report(run, failed, is_broken.load(Ordering::SeqCst)))
}

/// Starts the live view, if it is possible and wanted.
fn live_view(is_off: bool, plan: &Plan, terminal: &Terminal) -> Option<LiveView> {
    let is_wanted = live::is_possible() && !is_off;
    // Without a thread for it, the run has lines only.
    is_wanted.then(|| LiveView::start("Preflight", &plan.cases, terminal.screen()).ok()).flatten()
}

/// The observers of what a run prints, and of the file of the instrument's error next to `results`.
fn printed(
    results: &Path,
    terminal: &Arc<Terminal>,
    libtest: LibtestTrials,
) -> [Box<dyn Observer>; 3] {
    let file = InstrumentFile { results: results.to_owned(), terminal: terminal.clone() };
    [Box::new(Lines(terminal.clone())), Box::new(file), Box::new(libtest)]
}

/// Notes for the reader before the first trial.
fn notes(plan: &Plan, github: &Github, setup: &Setup) -> Vec<String> {
    let models = simulated_models(plan).into_iter().chain(bypassed_proxies(plan));
    let trust = insecure(plan).into_iter().chain(built_in_roots(plan));
    let notes = models.chain(trust).chain(overridden_limits(plan)).chain(order(plan));
    let resumed = setup.resumed.iter().map(|resumed| resume::note(resumed, plan));
    notes.chain(github::check(github)).chain(resumed).collect()
}

/// The end of a run: reports, verdict, path, exit code.
struct Closing {
    load: MachineLoad,
    overview: Overview,
    terminal: Arc<Terminal>,
    saved: Saved,
    github: Github,
    inconclusive: Inconclusive,
}

/// Where a run is saved.
struct Saved {
    /// The file of the results.
    path: PathBuf,
    place: ResultsPlace,
    requests: RequestFile,
    /// Whether its tables are also written as Parquet.
    with_parquet: bool,
    files: Files,
    baselines: Baselines,
}

impl Saved {
    /// Writes the reports; returns the path of the page, and a line for each file that fails.
    fn write(&self, run: &Run) -> (Option<PathBuf>, Vec<String>) {
        let mut unwritten = self.files.write(run);
        let folder = self.place.folder();
        let finished = folder.map(|folder| run_folder::finish(folder, run, self.with_parquet));
        let (page, lines) = finished.unwrap_or_default();
        unwritten.extend(lines);
        (page, unwritten)
    }
}

impl Closing {
    /// Saves the run, prints the reports and returns the exit code of a run with `failed` trials, or of
    /// an interrupted one if `failed` is `None`. `lacks_lines` tells whether libtest's lines could not be
    /// written.
    fn report(&self, mut run: Run, failed: Option<u64>, lacks_lines: bool) -> u8 {
        self.terminal.end_progress();
        if let Some(setup) = &mut run.setup {
            setup.ended = Some(run::today());
            setup.machine_load = Some(self.load);
        }
        let lines = "FAILED: libtest's lines could not be written: see the panic above";
        let lost = lacks_lines.then(|| lines.to_owned());
        let lost: Vec<_> = lost.into_iter().chain(self.saved.requests.finish()).collect();
        run.decide(failed, self.inconclusive, lost.clone());
        // Only the outcome tells whether the run may be saved, and a run that cannot be saved fails.
        if let Err(error) = self.saved.baselines.save(&run, &self.terminal) {
            let unsaved = format!("FAILED: {error:#}");
            run.decide(failed, self.inconclusive, lost.into_iter().chain([unsaved]).collect());
        }
        let mut code = match run.ending.ended {
            RunStatus::Passed => 0,
            RunStatus::Failed => FAILED,
            RunStatus::Interrupted => signals::exit_code(),
        };
        let mut text = String::new();
        if run.summary.finished() + run.summary.interrupted() > 0 {
            text.push_str(&format!("{}\n{}\n", self.overview.render(&run), Ranking.render(&run)));
        }
        if failed.is_some() {
            text.push_str(&format!("{}\n", thresholds::Thresholds.render(&run)));
            let precision = PrecisionTables.render(&run);
            if !precision.is_empty() {
                text.push_str(&format!("{precision}\n"));
            }
        }
        let (page, mut unwritten) = self.saved.write(&run);
        unwritten.extend(terminal::unwritten());
        if code == 0 && !unwritten.is_empty() {
            code = FAILED;
        }
        for reason in self.load.warning().iter().chain(&run.ending.reasons).chain(&unwritten) {
            text.push_str(&format!("{reason}\n"));
        }
        self.terminal.err(&text);
        github::report(&self.github, &run, &self.terminal);
        self.terminal.err(&format!("Results: {}\n", self.saved.path.display()));
        if let Some(page) = page {
            self.terminal.err(&format!("Report: {}\n", page.display()));
        }
        code
    }
}
