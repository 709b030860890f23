//! cargo ⇄ us: arguments → trials → reports → exit code. The only module that knows libtest-mimic
//! and the only one that writes to the terminal.

mod baselines;
mod calibrate;
mod clashes;
mod compare;
mod files;
mod github;
mod interrupt;
mod libtest_output;
mod output;
mod preflight;
mod progress;
mod selection;
mod serve;
mod session;
mod smoke;
mod suite;
mod terminal;
mod worker;

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches};
use libtest_mimic::{Arguments, Conclusion, Trial};
use llm_stream_client::{self as client, connect_options::Stamps};
use llm_stream_core::{
    prompt,
    text::counted,
    verdict::{Outcome, Verdict},
};

use self::{
    baselines::Baselines,
    calibrate::Instruments,
    files::Files,
    interrupt::Interrupt,
    libtest_output::LibtestOutput,
    output::Output,
    progress::Progress,
    selection::Selection,
    session::{Accesses, Parts, Session, Stopped},
    terminal::Terminal,
};
use crate::{
    cli::{self, Cli, Command},
    config::{Config, ConfigErrors, DataNote, Inconclusive},
    env::Github,
    load,
    plan::{Case, Plan, Target, access},
    report::{
        Exporter, GroupVerdicts, Run, RunOutcome, RunStatus, ranking::Ranking,
        summary::SummaryTables, thresholds,
    },
};

const FAILED: u8 = 101;
const UNUSABLE: u8 = 2;
const INTERRUPTED: u8 = 130;

/// What the bench target does: `fn main() -> ExitCode { llm_stream_bench::main() }`.
///
/// With `--bench`, which `cargo bench` passes, it measures; without, as under `cargo test`, each
/// case is tried once against the simulated endpoint.
pub fn main() -> ExitCode {
    let matches = complete(Cli::command()).get_matches();
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => exit(run(cli)),
        Err(error) => error.exit(),
    }
}

/// What the binary does: the same without cargo, and the simulated endpoint on a port.
pub fn command(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches =
        cli::Commands::command().mut_subcommand("run", complete).get_matches_from(arguments);
    let commands = match cli::Commands::from_arg_matches(&matches) {
        Ok(commands) => commands,
        Err(error) => error.exit(),
    };
    match commands.command {
        Command::Run(mut cli) => {
            cli.libtest.bench = !cli.libtest.test;
            exit(run(*cli))
        }
        Command::Serve(options) => exit(serve::serve(&options)),
        Command::Compare(options) => exit(compare::run(&options)),
        Command::Calibrate(options) => exit(calibrate::run(&options)),
        Command::Part(options) => exit(worker::run(&options)),
    }
}

/// The command that measures, with what no attribute can say.
fn complete(command: clap::Command) -> clap::Command {
    let command = cli::without_empty_variables(cli::with_test_over_bench(command));
    command.after_long_help(cli::glossary())
}

/// An error here means that nothing could be run.
fn exit(outcome: anyhow::Result<u8>) -> ExitCode {
    ExitCode::from(outcome.unwrap_or_else(|error| {
        let message = format!("{error:#}");
        // An error of the config brings its own head and place.
        match message.starts_with("error: ") {
            true => terminal::note(&message),
            false => terminal::note(&format!("error: {message}")),
        }
        UNUSABLE
    }))
}

fn run(mut cli: Cli) -> anyhow::Result<u8> {
    // `cargo bench -- --test` passes both.
    cli.libtest.bench &= !cli.libtest.test;
    let mut config = Config::load(&cli.config)?;
    if cli.strict_data {
        config = config.with_all_data()?;
    }
    for line in config.data.iter().flat_map(DataNote::lines) {
        terminal::note(&line);
    }
    // A smoke test tries each case once.
    let measures = cli.libtest.bench;
    let plan = Plan::new(&config, &cli)?.select(|case| measures || case.run == 1);
    let selection = Selection::of(&cli);
    if let Some(mistake) = selection.mistake(&plan) {
        anyhow::bail!(mistake);
    }
    let all = plan.cases.len();
    let plan = plan.select(|case| selection.has(case));
    let filtered_out = all - plan.cases.len();
    if cli.libtest.list {
        list(&cli.libtest, &plan);
        return Ok(0);
    }
    match measures {
        true => measure(cli, &config, plan, filtered_out),
        false => smoke::run(cli.libtest, plan, filtered_out),
    }
}

/// Prints the names as nextest reads them: libtest-mimic writes `: bench`, which it refuses.
fn list(arguments: &Arguments, plan: &Plan) {
    if arguments.ignored {
        return;
    }
    for case in &plan.cases {
        terminal::say(&format!("{}: benchmark", case.name));
    }
    if let Some(note) = simulated(plan).filter(|_| arguments.bench) {
        terminal::note(&note);
    }
}

/// Says which of the selected models are simulated.
fn simulated(plan: &Plan) -> Option<String> {
    let targets = plan.selected_targets();
    let names: Vec<_> = targets
        .iter()
        .filter(|target| target.is_simulated())
        .map(|target| target.name.as_str())
        .collect();
    (!names.is_empty())
        .then(|| format!("note: simulated, so these are figures of a script: {}", names.join(", ")))
}

/// Says which of the selected models do without the proxy that the environment names for them.
fn past_proxies(plan: &Plan) -> Vec<String> {
    let note = |target: Arc<Target>| {
        let variable = target.bypassed_proxy()?;
        Some(format!(
            "note: `transport: stamped` goes past the proxy in {variable}: {} (`transport: auto` \
             would go through it)",
            target.name
        ))
    };
    plan.selected_targets().into_iter().filter_map(note).collect()
}

/// Says to which of the selected models another limit of the answer is sent than the config's keys
/// name, or none.
fn other_limits(plan: &Plan) -> Vec<String> {
    // One prompt with its own limit shows it for all of them.
    let limited = plan.cases.iter().map(|case| case.task.prompt());
    let limited = limited.filter(|prompt| prompt.output.tokens.is_some());
    let limited = limited.map(|prompt| &**prompt).next();
    let warm_up = prompt::warm_up();
    let note = |target: Arc<Target>| {
        let most = |prompt| target.protocol.most_tokens(&load::trial_body(&target, prompt));
        match (most(&warm_up), limited) {
            (None, _) => Some(format!(
                "note: `extra_body` of {} leaves out the limit of an answer: answers, that of the \
                 warm-up too, are as long as the model likes, whatever `max_tokens` and \
                 `output_tokens` say",
                target.name
            )),
            (_, Some(prompt)) if most(prompt) != prompt.output.tokens => Some(format!(
                "note: `extra_body` of {} sets the limit of every answer, whatever `output_tokens` \
                 says",
                target.name
            )),
            _ => None,
        }
    };
    plan.selected_targets().into_iter().filter_map(note).collect()
}

/// An error if a selected model requires packet stamps and this process may not see any.
fn check_packet_stamps(plan: &Plan) -> anyhow::Result<()> {
    let wanted = |target: &Arc<Target>| target.stamps == Stamps::Packets;
    let Some(target) = plan.selected_targets().into_iter().find(wanted) else { return Ok(()) };
    client::check_packet_stamps().map_err(|error| {
        anyhow::anyhow!(
            "`stamps: packets` of {} needs the capability CAP_NET_RAW, on Linux: {error}; start \
             this program with it (root, `docker run --cap-add NET_RAW`, `setcap cap_net_raw+ep \
             PROGRAM`), or write `stamps: auto`, which takes packets where they can be seen",
            target.name
        )
    })
}

/// Says which of the selected models could be anyone.
fn insecure(plan: &Plan) -> Vec<String> {
    let warning = |target: Arc<Target>| {
        target.is_insecure().then(|| {
            format!(
                "warning: `insecure_tls: true`: whoever answers is taken for {}, and is sent its key \
                 and prompts (`ca_file` would trust the one that you mean)",
                target.name
            )
        })
    };
    plan.selected_targets().into_iter().filter_map(warning).collect()
}

/// Measures the selected cases.
fn measure(cli: Cli, config: &Config, plan: Plan, filtered_out: usize) -> anyhow::Result<u8> {
    if cli.libtest.test_threads.is_some_and(|threads| threads > 1) {
        anyhow::bail!(
            "`--test-threads` must be 1: trials at the same time would measure each other"
        );
    }
    let accesses = accesses(config, &plan)?;
    check_packet_stamps(&plan)?;
    clashes::refuse(&cli, config, &plan)?;
    if let Some(folder) = &cli.record {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create the folder {}", folder.display()))?;
    }
    let (calibrates, preflights) = (!cli.no_calibration, !cli.no_preflight);
    let output = cli.output.clone();
    let files = Arc::new(Files::open(&cli)?);
    let progress = terminal::is_watched().then(Progress::new);
    let logfile = cli.libtest.logfile.as_ref().map(PathBuf::from);
    let bar = progress.as_ref().map(Progress::bar);
    let terminal = Arc::new(Terminal::new(bar, logfile.as_deref())?);
    let inconclusive = cli.inconclusive.unwrap_or(config.inconclusive);
    let baselines = Baselines::of(&cli, &plan, &terminal)?;
    let mut arguments = cli.libtest;
    let relay = LibtestOutput::new(&mut arguments, filtered_out)?;
    let notes = simulated(&plan).into_iter().chain(past_proxies(&plan)).chain(insecure(&plan));
    for note in notes.chain(other_limits(&plan)) {
        terminal.err(&format!("{note}\n"));
    }
    let cases = plan.cases.clone();
    let interrupt = Interrupt::listen()?;
    // Last, since it empties a file that may be there.
    let with_loads = cases.iter().any(|case| case.task.workload().is_some());
    let with_metrics = cases.iter().any(|case| case.target.metrics_url.is_some());
    let Output { path, results } = Output::create(output.as_deref(), with_loads, with_metrics)?;
    files.empty();
    let parts = Parts {
        plan,
        checks_instrument: calibrates,
        accesses,
        terminal: terminal.clone(),
        progress,
        relay,
        interrupt,
        results,
        baselines,
    };
    let mut session = Session::new(parts)?;
    if preflights {
        session.preflight();
    }
    let session = Arc::new(Mutex::new(session));
    let closing = Closing { terminal, path, files, github: Github::from_env(), inconclusive };
    let failed = run_trials(&arguments, &cases, &session, &closing);
    let mut session = lock(&session);
    session.flush_lines();
    Ok(conclude(&mut session, &closing, failed, calibrates))
}

/// What follows the trials that libtest knows of: the instrument, more runs, the verdict.
fn conclude(session: &mut Session, closing: &Closing, failed: u64, calibrates: bool) -> u8 {
    let targets = session.plan().selected_targets();
    calibrate::warn_of_unseen_packets(&targets, &closing.terminal);
    let instruments = match calibrates {
        true => {
            let summary = session.summary();
            calibrate::before_judging(summary, &targets, &closing.terminal, &closing.path)
        }
        false => Instruments::default(),
    };
    let more = session.run_until_decided(&instruments);
    let failed = more.ok().filter(|_| !session.is_interrupted()).map(|more| failed + more);
    let run = session.finish(&instruments);
    let kept = session.keep_baseline(&run, failed == Some(0));
    closing.report(run, failed, kept.err())
}

/// Keys and all else that the selected models need of the environment. What is missing is better
/// known before minutes are spent.
fn accesses(config: &Config, plan: &Plan) -> Result<Accesses, ConfigErrors> {
    let (mut accesses, mut errors) = (Accesses::new(), Vec::new());
    for target in plan.selected_targets() {
        match access::of(&target, config) {
            Ok(access) => accesses.push((target, access)),
            Err(more) => errors.extend(more),
        }
    }
    // What `defaults` says is met once for each model.
    let mut seen = HashSet::new();
    errors.retain(|error| seen.insert(error.to_string()));
    match errors.is_empty() {
        true => Ok(accesses),
        false => Err(ConfigErrors(errors)),
    }
}

fn lock(session: &Mutex<Session>) -> std::sync::MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the trials and gives the number of those that failed.
fn run_trials(
    arguments: &Arguments,
    cases: &[Arc<Case>],
    session: &Arc<Mutex<Session>>,
    closing: &Closing,
) -> u64 {
    // libtest-mimic panics when it cannot write: what was measured is still worth reporting.
    let trials = || offer_trials(arguments, cases, session, closing).num_failed;
    panic::catch_unwind(AssertUnwindSafe(trials)).unwrap_or_else(|_| {
        let line = "FAILED: the trials' lines could not be written: see the panic above\n";
        closing.terminal.err(line);
        1
    })
}

/// Gives every case to libtest-mimic as a trial, one after the other on this thread.
fn offer_trials(
    arguments: &Arguments,
    cases: &[Arc<Case>],
    session: &Arc<Mutex<Session>>,
    closing: &Closing,
) -> Conclusion {
    let trial = |case: &Arc<Case>| {
        let (case, session, closing) = (case.clone(), session.clone(), closing.clone());
        Trial::bench(case.name.clone(), move |_| {
            let mut session = lock(&session);
            session.trial(&case).map(Some).map_err(|stopped| match stopped {
                Stopped::Failed(message) => message.into(),
                // libtest-mimic has no way to end early.
                Stopped::Interrupted => {
                    let code = closing.report(session.finish(&Instruments::default()), None, None);
                    std::process::exit(code.into())
                }
            })
        })
    };
    let arguments = Arguments {
        filter: None,
        skip: Vec::new(),
        exact: false,
        ignored: false,
        test_threads: Some(1),
        ..arguments.clone()
    };
    libtest_mimic::run(&arguments, cases.iter().map(trial).collect())
}

/// The end of a run: reports, verdict, path, exit code.
#[derive(Clone)]
struct Closing {
    terminal: Arc<Terminal>,
    path: PathBuf,
    files: Arc<Files>,
    github: Github,
    inconclusive: Inconclusive,
}

impl Closing {
    /// Prints the reports and gives the exit code of a run with `failed` trials; without a number,
    /// of an interrupted one. `unkept` is why its baseline is not saved.
    fn report(&self, mut run: Run, failed: Option<u64>, unkept: Option<anyhow::Error>) -> u8 {
        self.terminal.end_progress();
        let mut code = self.end(&mut run, failed, unkept);
        let mut text = String::new();
        if run.summary.finished() > 0 {
            text.push_str(&format!("{}\n{}\n", SummaryTables.render(&run), Ranking.render(&run)));
        }
        if failed.is_some() {
            text.push_str(&format!("{}\n", thresholds::Thresholds.render(&run)));
        }
        let unwritten = self.files.write(&run);
        if code == 0 && !unwritten.is_empty() {
            code = FAILED;
        }
        for reason in run.ending.reasons.iter().chain(&unwritten) {
            text.push_str(&format!("{reason}\n"));
        }
        text.push_str(&github::tell(&self.github, &run));
        text.push_str(&format!("Results: {}\n", self.path.display()));
        self.terminal.err(&text);
        code
    }

    /// Notes how the run ended; the exit code of that.
    fn end(&self, run: &mut Run, failed: Option<u64>, unkept: Option<anyhow::Error>) -> u8 {
        let (code, reasons) = match failed {
            Some(failed) => verdict(run, failed, unkept, self.inconclusive),
            None => (INTERRUPTED, vec![interrupted(run)]),
        };
        let ended = match code {
            0 => RunStatus::Passed,
            INTERRUPTED => RunStatus::Interrupted,
            _ => RunStatus::Failed,
        };
        if ended == RunStatus::Interrupted {
            // Of fewer requests than were to decide.
            run.verdicts.clear();
        }
        run.ending = RunOutcome { ended, reasons, inconclusive: self.inconclusive };
        code
    }
}

fn interrupted(run: &Run) -> String {
    format!(
        "interrupted: {} of {} trials finished, their rows are kept; thresholds not judged",
        run.summary.finished(),
        run.summary.planned()
    )
}

/// The exit code, and a line for each reason that it is not 0.
fn verdict(
    run: &Run,
    failed: u64,
    unkept: Option<anyhow::Error>,
    inconclusive: Inconclusive,
) -> (u8, Vec<String>) {
    let mut reasons = Vec::new();
    if failed > 0 {
        let all = run.summary.finished();
        reasons.push(format!("FAILED: {failed} of {all} trials failed"));
    }
    let missed = judged(run, Outcome::Fail);
    let all = number_of_thresholds(run);
    if !missed.is_empty() {
        let count = missed.len();
        reasons.push(format!("FAILED: {count} of {all} thresholds missed: {}", why(&missed)));
    }
    let unclear = judged(run, Outcome::Inconclusive);
    let undecided = (!unclear.is_empty())
        .then(|| format!("{} of {all} thresholds inconclusive: {}", unclear.len(), why(&unclear)));
    if let (Some(undecided), Inconclusive::Fail) = (&undecided, inconclusive) {
        reasons.push(format!("FAILED: {undecided}"));
    }
    reasons.extend(unkept.map(|error| format!("FAILED: {error:#}")));
    if !reasons.is_empty() {
        return (FAILED, reasons);
    }
    let warning = match (undecided, inconclusive) {
        (Some(undecided), Inconclusive::Warn) => Some(format!("WARNING: {undecided}")),
        (Some(undecided), _) => Some(undecided),
        (None, _) => None,
    };
    (0, warning.into_iter().chain([passed(run, unclear.len())]).collect())
}

/// How many thresholds there are.
fn number_of_thresholds(run: &Run) -> usize {
    run.verdicts.iter().map(|judged| judged.verdicts.len()).sum()
}

/// The verdicts of one sort, each with the name of its group.
fn judged(run: &Run, outcome: Outcome) -> Vec<(&str, &Verdict)> {
    let verdicts = run.verdicts.iter().flat_map(|GroupVerdicts { name, verdicts, .. }| {
        verdicts.iter().map(move |verdict| (name.as_str(), verdict))
    });
    verdicts.filter(|(_, verdict)| verdict.outcome() == outcome).collect()
}

/// The first few of these thresholds; the table has the others.
fn why(missed: &[(&str, &Verdict)]) -> String {
    const SHOWN: usize = 3;
    let one = |(name, verdict): &(&str, &Verdict)| {
        let actual = thresholds::actual(verdict);
        let wanting = thresholds::needed(verdict).map(|wanting| format!("; {wanting}"));
        format!("{name}: {} (actual: {actual}{})", verdict.threshold, wanting.unwrap_or_default())
    };
    let mut words: Vec<_> = missed.iter().take(SHOWN).map(one).collect();
    if missed.len() > SHOWN {
        words.push(format!("and {} more", missed.len() - SHOWN));
    }
    words.join("; ")
}

fn passed(run: &Run, undecided: usize) -> String {
    let trials = counted(run.summary.finished(), "trial");
    match (number_of_thresholds(run), undecided) {
        (0, _) => format!("passed: {trials}"),
        (all, 0) => format!("passed: {trials}, {}", counted(all, "threshold")),
        (all, undecided) => {
            let decided = all - undecided;
            format!("passed: {trials}, {decided} of {}", counted(all, "threshold"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;
    use llm_stream_core::{
        interval::Interval,
        lacking::Lacking,
        statistic::Absent,
        summary::{Estimate, Summary},
        threshold::Threshold,
    };

    use super::*;
    use crate::report::thresholds::Thresholds;

    /// The exit code of a run with one threshold, `ttft <= 500 ms`.
    fn code(
        actual: Result<(f64, Result<Option<Interval>, Absent>), Absent>,
        error: Option<f64>,
        inconclusive: Inconclusive,
    ) -> u8 {
        doubtful(actual, error, inconclusive, Vec::new()).0
    }

    /// The same of a figure that may be wrong, with the lines that say so.
    fn doubtful(
        actual: Result<(f64, Result<Option<Interval>, Absent>), Absent>,
        error: Option<f64>,
        inconclusive: Inconclusive,
        doubts: Vec<(String, usize)>,
    ) -> (u8, String) {
        let yaml = "models: { m: { simulate: {} } }";
        let config = Config::parse(yaml, "configs.yaml", Path::new(".")).unwrap();
        let plan = Plan::new(&config, &Cli::parse_from(["llm"])).unwrap();
        let threshold = Threshold::parse("ttft <= 500 ms").unwrap();
        let actual = actual.map(|(value, interval)| Estimate { value, interval, n: 20 });
        let verdicts = vec![Verdict {
            threshold,
            actual,
            error,
            uncertainty: 0.0,
            change: None,
            lacking: Lacking::default(),
            doubts,
            left_out: Vec::new(),
        }];
        let verdicts = vec![GroupVerdicts {
            group: 0,
            name: plan.targets[0].name.clone(),
            verdicts,
            notes: Vec::new(),
        }];
        let run = Run {
            summary: Summary::default(),
            verdicts,
            confidence: 0.95,
            took_turns: false,
            trials: Vec::new(),
            instruments: Vec::new(),
            machine: String::new(),
            ending: RunOutcome::default(),
        };
        (verdict(&run, 0, None, inconclusive).0, Thresholds.render(&run))
    }

    #[test]
    fn what_may_be_wrong_decides_nothing_and_what_is_absent_still_fails() {
        let doubts = || vec![("text in the unknown field `x`".to_owned(), 2)];
        for actual in [0.4, 0.6] {
            let actual = Ok((actual, within(actual - 0.05, actual + 0.05)));
            let of = |inconclusive| doubtful(actual, None, inconclusive, doubts());
            let (code, told) = of(Inconclusive::Warn);
            assert_eq!((code, of(Inconclusive::Fail).0), (0, FAILED));
            let why = "the figure may be wrong: text in the unknown field `x` (2 answers)";
            assert!(told.contains("inconclusive") && told.contains(why), "{told}");
        }
        let absent = Err(Absent::Lacking { lack: 1, all: 2 });
        assert_eq!(doubtful(absent, None, Inconclusive::Warn, doubts()).0, FAILED);
    }

    const fn within(low: f64, high: f64) -> Result<Option<Interval>, Absent> {
        Ok(Some(Interval { low, high }))
    }

    #[test]
    fn only_a_limit_that_is_clearly_met_passes() {
        // What is inconclusive has all three exit codes.
        let codes = |actual, error| {
            [Inconclusive::Pass, Inconclusive::Warn, Inconclusive::Fail]
                .map(|inconclusive| code(actual, error, inconclusive))
        };
        let (pass, fail, inconclusive) = ([0; 3], [FAILED; 3], [0, 0, FAILED]);
        assert_eq!(codes(Ok((0.4, within(0.35, 0.45))), Some(0.001)), pass);
        assert_eq!(codes(Ok((0.6, within(0.55, 0.65))), Some(0.001)), fail);
        assert_eq!(codes(Ok((0.49, within(0.45, 0.53))), Some(0.001)), inconclusive);
        assert_eq!(codes(Ok((0.51, within(0.45, 0.53))), Some(0.001)), inconclusive);
        assert_eq!(codes(Ok((0.4, within(0.35, 0.499))), Some(0.01)), inconclusive, "instrument");
        assert_eq!(codes(Ok((0.6, within(0.55, 0.65))), Some(10.0)), inconclusive, "no instrument");
        let few = Err(Absent::TooFew { needs: 8, has: 3 });
        assert_eq!(codes(Ok((0.4, few)), None), inconclusive, "too few to tell");
        assert_eq!(codes(Ok((0.6, few)), None), fail, "too few, and on the wrong side");
        assert_eq!(codes(Ok((0.4, Ok(None))), None), pass, "a statement on these requests alone");
        assert_eq!(codes(Ok((0.6, Ok(None))), None), fail);
        assert_eq!(codes(Err(Absent::NoValidTrial { failed: 1 }), None), fail);
        assert_eq!(codes(Err(Absent::TooFew { needs: 93, has: 3 }), None), fail);
    }
}
