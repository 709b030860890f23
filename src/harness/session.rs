//! A measured run, trial by trial: warm-up, request, row, lines.

mod adaptive_runs;
mod metrics;
mod places;
mod turns;
mod workload;

use std::{
    collections::{HashMap, HashSet},
    fs,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use libtest_mimic::Measurement;
use llm_stream_client::{self as client, Client, Redactor};
use llm_stream_core::{
    baseline::GroupBaseline,
    metric::Metric,
    prompt::{Prompt, Synthetic},
    protocol::Protocol,
    punctuality::Punctuality,
    recording::{Chunk, ErrorKind, Recording, RequestError},
    sample::{Note, Sample},
    statistic::Statistic,
    summary::{Group, Summary, Tally},
    synthetic::Counts,
    text::visible_lines,
    verdict::{Reference, Verdict},
};
use llm_stream_sim::{AnswerLog, Simulator};
use tokio::runtime::Runtime;

use self::{
    metrics::{Answered, RequestLedger, ServerMetricsProbe},
    places::Places,
};
use super::{
    baselines::Baselines,
    calibrate::{self, Instruments, Setting},
    interrupt::Interrupt,
    libtest_output::{LibtestOutput, NO_TPOT},
    output::{Results, today},
    preflight::{self, Preflight, Unusable},
    progress::{Progress, TrialPosition},
    terminal::Terminal,
};
use crate::{
    calibrate::Calibration,
    config::Order,
    load::{self, Answer, Follow, PromptSizer},
    plan::{Access, Case, Endpoint, Plan, Target, Task, Workload},
    report::{GroupVerdicts, Instrument, Run, RunOutcome, TrialResult},
    row::Row,
};

/// A run in progress.
pub(super) struct Session {
    plan: Plan,
    places: Places,
    /// Whether the instrument's own error counts, that of a simulated endpoint among it.
    checks_instrument: bool,
    accesses: Accesses,
    terminal: Arc<Terminal>,
    progress: Option<Progress>,
    relay: LibtestOutput,
    interrupt: Interrupt,
    runtime: Runtime,
    results: Results,
    live: Option<Live>,
    /// The models that are measured in turn with it.
    parked: Vec<Live>,
    summary: Summary,
    /// The trials that have finished, in short.
    trials: Vec<TrialResult>,
    /// The last case whose place was told.
    told: Option<Arc<Case>>,
    /// When the first token of each model's first valid answer to a prompt came.
    first_runs: HashMap<(usize, usize), Duration>,
    recordings: Recordings,
    baselines: Baselines,
    unusable: Vec<Unusable>,
    /// The requests of the last trial, for its server's metrics.
    measured: Option<Tally>,
    /// What the servers' metrics must have counted.
    books: RequestLedger,
}

/// What each model needs of the environment.
pub(super) type Accesses = Vec<(Arc<Target>, Access)>;

/// What a session is made of.
pub(super) struct Parts {
    pub(super) plan: Plan,
    pub(super) checks_instrument: bool,
    pub(super) accesses: Accesses,
    pub(super) terminal: Arc<Terminal>,
    pub(super) progress: Option<Progress>,
    pub(super) relay: LibtestOutput,
    pub(super) interrupt: Interrupt,
    pub(super) results: Results,
    pub(super) baselines: Baselines,
}

/// The model that is measured now: its connection, and its server when that is ours.
struct Live {
    target: Arc<Target>,
    client: Client,
    /// How long its texts of stated lengths are.
    lengths: PromptSizer,
    /// The prompts of which it has no text of the right length, and why.
    unmade: Vec<(Arc<Prompt>, RequestError)>,
    meter: ServerMetricsProbe,
    simulator: Option<Simulator>,
}

/// Why there is no row after a trial.
pub(super) enum Stopped {
    /// The user wants it to end.
    Interrupted,
    /// The trial failed, with the line to show.
    Failed(String),
}

impl Session {
    pub(super) fn new(parts: Parts) -> anyhow::Result<Self> {
        let Parts {
            plan,
            checks_instrument,
            accesses,
            terminal,
            progress,
            relay,
            interrupt,
            results,
            baselines,
        } = parts;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the runtime")?;
        let summary = Summary::new(plan.cases.iter().map(|case| &case.group));
        let recordings = Recordings { folder: plan.record.clone(), used: HashSet::new() };
        Ok(Self {
            places: Places::of(&plan.cases),
            plan,
            checks_instrument,
            accesses,
            terminal,
            progress,
            relay,
            interrupt,
            runtime,
            results,
            live: None,
            parked: Vec::new(),
            summary,
            trials: Vec::new(),
            told: None,
            first_runs: HashMap::new(),
            recordings,
            baselines,
            unusable: Vec::new(),
            measured: None,
            books: RequestLedger::default(),
        })
    }

    /// Asks each endpoint once; the trials of those that cannot answer are not run.
    pub(super) fn preflight(&mut self) {
        self.open_books();
        let Preflight { unusable, asked } =
            preflight::run(&self.accesses, &self.plan.cases, &self.interrupt, &self.terminal);
        self.unusable = unusable;
        for (target, preflight::Requests { valid, failed }) in asked {
            let found = self.accesses.iter().find(|(of, _)| Arc::ptr_eq(of, &target));
            let access = found.map(|(_, access)| access.clone()).unwrap_or_default();
            self.count_preflight(&target, &access, Answered { valid, failed });
        }
    }

    /// Runs one trial from the warm-up to its rows.
    pub(super) fn trial(&mut self, case: &Arc<Case>) -> Result<Measurement, Stopped> {
        self.relay.flush_lines(&self.terminal);
        let place = self.places.get(case);
        if self.interrupt.came() {
            return Err(Stopped::Interrupted);
        }
        let prepared = match self.why_unusable(case) {
            Some(error) => {
                self.tell_model(case);
                Err(error)
            }
            None => self
                .prepare(case, place)
                .map_err(|error| RequestError::new(ErrorKind::Connect, format!("{error:#}")))
                .and_then(|()| self.measure_lengths(case)),
        };
        if self.interrupt.came() {
            return Err(Stopped::Interrupted);
        }
        self.measured = None;
        // Of a model that is not asked there is no server: the live one may be another's.
        let before = prepared.as_ref().ok().and_then(|()| self.metrics_before());
        if self.interrupt.came() {
            return Err(Stopped::Interrupted);
        }
        // What was logged before, of the warm-up for one, is not the trial's.
        self.punctuality(Vec::new());
        let ended = match &case.task {
            Task::Prompt(prompt) if prompt.turns.is_empty() => {
                self.ask_one(case, prompt, place, prepared)
            }
            Task::Prompt(prompt) => self.converse(case, prompt, place, prepared),
            Task::Workload(workload) => self.run_load(case, workload, place, prepared),
        };
        if let Some(before) = before.filter(|_| !self.interrupt.came()) {
            self.keep_metrics(case, &before);
        }
        ended
    }

    /// Says whose trials fail, before the first of them.
    fn tell_model(&mut self, case: &Arc<Case>) {
        let told = self.told.replace(case.clone());
        if told.is_none_or(|told| !Arc::ptr_eq(&told.target, &case.target)) {
            self.terminal.err(&format!("Testing {}...\n", case.target.name));
        }
    }

    /// What the preflight found wrong with the case's model.
    fn why_unusable(&self, case: &Case) -> Option<RequestError> {
        let Unusable { error, .. } = self.unusable.iter().find(|one| one.is_of(case))?;
        let message = format!("{} (preflight; not asked again)", error.message);
        Some(RequestError::new(error.kind, message))
    }

    /// One prompt, one row.
    fn ask_one(
        &mut self,
        case: &Arc<Case>,
        prompt: &Arc<Prompt>,
        place: TrialPosition,
        prepared: Result<(), RequestError>,
    ) -> Result<Measurement, Stopped> {
        let started = today();
        let answer = match prepared {
            Ok(()) => self.ask_guarded(case, place),
            Err(error) => Answer { recording: None, outcome: Err(error) },
        };
        if self.interrupt.came() {
            return Err(Stopped::Interrupted);
        }
        self.keep(case, prompt, started, answer)
    }

    /// How the simulated endpoint kept to its script since the last call, if the live model is
    /// simulated; the requests were `handed_over` then.
    fn punctuality(&self, handed_over: Vec<Instant>) -> Option<Punctuality> {
        let simulator = self.live.as_ref()?.simulator.as_ref()?;
        let timings = simulator.take_log().iter().map(AnswerLog::timing).collect();
        Some(Punctuality::of(timings, handed_over))
    }

    /// Passes on what libtest-mimic has still to say.
    pub(super) fn flush_lines(&mut self) {
        self.relay.flush_lines(&self.terminal);
    }

    /// Keeps the run as a baseline, where that is asked for.
    pub(super) fn keep_baseline(&self, run: &Run, well: bool) -> anyhow::Result<()> {
        self.baselines.keep(run, well, &self.terminal)
    }

    /// What the run is compared with, if anything.
    fn reference(&self) -> Option<Reference<'_>> {
        let Baselines { compared, machine, .. } = &self.baselines;
        compared.as_ref().map(|baseline| Reference { baseline, machine })
    }

    /// Whether the user wants it to end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.came()
    }

    /// The plan, with the trials that were added to it.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the trials said so far.
    pub(super) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What the rows say together, by instruments that are as exact as `instruments` says.
    pub(super) fn finish(&mut self, instruments: &Instruments) -> Run {
        self.live = None;
        self.parked.clear();
        let summary = std::mem::take(&mut self.summary);
        let confidence = self.confidence();
        let took_turns = self.plan.order == Order::Interleaved;
        let reference = self.reference();
        let groups = summary.groups.iter();
        let judged = groups.map(|group| judge(group, instruments, reference, confidence));
        let verdicts = judged.filter(|judged| !judged.verdicts.is_empty()).collect();
        let instrument = |&(setting, calibration): &(Setting, Calibration)| Instrument {
            transport: setting.transport,
            calibration,
        };
        Run {
            summary,
            verdicts,
            confidence,
            took_turns,
            trials: std::mem::take(&mut self.trials),
            instruments: instruments.known.iter().map(instrument).collect(),
            machine: self.baselines.machine.clone(),
            ending: RunOutcome::default(),
        }
    }

    /// Makes the case's model the live one, and says where we are.
    fn prepare(&mut self, case: &Arc<Case>, place: TrialPosition) -> anyhow::Result<()> {
        let target = &case.target;
        if !self.live.as_ref().is_some_and(|live| Arc::ptr_eq(&live.target, target)) {
            let before = self.live.take();
            self.told = None;
            self.terminal.err(&format!("Testing {}...\n", target.name));
            // What is measured model by model needs no connections of another model.
            if self.plan.order != Order::AsListed {
                self.parked.extend(before);
            }
            let parked = self.parked.iter().position(|live| Arc::ptr_eq(&live.target, target));
            if let Some(parked) = parked {
                self.live = Some(self.parked.swap_remove(parked));
            } else {
                self.begin(case, place)?;
            }
        }
        if self.interrupt.came() {
            return Ok(());
        }
        let told = self.told.replace(case.clone());
        if told.is_none_or(|told| !told.task.is(&case.task)) {
            let TrialPosition { task, tasks, .. } = place;
            let line = match &case.task {
                Task::Prompt(prompt) => format!("  Prompt {task}/{tasks}: {}\n", prompt.name),
                Task::Workload(workload) => {
                    let Workload { name, shape, until, .. } = &**workload;
                    format!("  Workload {task}/{tasks}: {name}: {shape}, {until}\n")
                }
            };
            self.terminal.err(&line);
        }
        self.terminal.err(&format!("    Run {}/{}\n", place.run, place.runs));
        Ok(())
    }

    /// Has the server count texts for the case's synthetic prompts, where that is still to be done.
    fn measure_lengths(&mut self, case: &Arc<Case>) -> Result<(), RequestError> {
        let prompts = match &case.task {
            Task::Prompt(prompt) => slice::from_ref(prompt),
            Task::Workload(workload) => &workload.prompts,
        };
        for prompt in prompts {
            if let Some(synthetic) = &prompt.synthetic {
                self.measure_length(prompt, synthetic)?;
            }
        }
        Ok(())
    }

    fn measure_length(
        &mut self,
        prompt: &Arc<Prompt>,
        synthetic: &Synthetic,
    ) -> Result<(), RequestError> {
        let Some(live) = &self.live else { return Ok(()) };
        let unmade = live.unmade.iter().find(|(known, _)| Arc::ptr_eq(known, prompt));
        if let Some((_, error)) = unmade {
            return Err(error.clone());
        }
        if self.interrupt.came() || live.lengths.has(prompt) {
            return Ok(());
        }
        let follower = Follower { progress: None, interrupt: &self.interrupt };
        let measuring = load::measure(&live.target, prompt, synthetic, &live.client, &follower);
        let measured = self.runtime.block_on(self.interrupt.or(measuring));
        if synthetic.tokenizer.is_none() {
            let counted = measured.as_ref().and_then(|measured| measured.as_ref().ok());
            let valid = counted.map_or(0, Counts::len);
            self.count(Answered { valid, failed: usize::from(counted.is_none()) });
        }
        let Some(live) = &mut self.live else { return Ok(()) };
        match measured {
            None => Ok(()),
            Some(Ok(counts)) => {
                self.terminal.err(&made(&prompt.name, synthetic, &counts));
                live.lengths.keep(prompt, counts);
                Ok(())
            }
            Some(Err(error)) => {
                // What else went wrong may go right the next time.
                if error.kind == ErrorKind::PromptLength {
                    live.unmade.push((prompt.clone(), error.clone()));
                }
                Err(error)
            }
        }
    }

    /// Connects to the case's model, which is new.
    fn begin(&mut self, case: &Arc<Case>, place: TrialPosition) -> anyhow::Result<()> {
        let target = &case.target;
        let found = self.accesses.iter().find(|(of, _)| Arc::ptr_eq(of, target));
        let (_, access) = found.context("a model that was not selected")?;
        self.live = Some(Live::new(target, access)?);
        self.open_book();
        if self.plan.warm_up {
            let is_valid = self.warm_up(case, place);
            self.count(Answered::one(is_valid));
        }
        Ok(())
    }

    /// Whether there was a valid answer.
    fn warm_up(&self, case: &Arc<Case>, place: TrialPosition) -> bool {
        let Some(live) = &self.live else { return false };
        self.terminal.err("  Warmup...\n");
        if let Some(progress) = &self.progress {
            progress.begin(format!("{}  warm-up", case.target.name), case, place);
        }
        let follower = self.follower();
        let warm_up = load::warm_up(&live.target, &live.client, &follower);
        let warm_up = self.interrupt.or(warm_up);
        let outcome = match self.runtime.block_on(warm_up) {
            Some(answer) if !self.interrupt.came() => answer.outcome,
            _ => return false,
        };
        let line = match &outcome {
            Ok(sample) => format!(
                "    Warmup completed: {} generation tokens/sec\n",
                figure(Metric::GENERATION_SPEED, 1, sample)
            ),
            Err(error) => format!("    Warmup failed: {}: {error}\n", error.kind),
        };
        self.terminal.err(&line);
        outcome.is_ok()
    }

    /// Asks; a panic, which is a defect of ours, is a failed trial with a row like any other.
    fn ask_guarded(&mut self, case: &Arc<Case>, place: TrialPosition) -> Answer {
        let asked = panic::catch_unwind(AssertUnwindSafe(|| self.ask(case, place)));
        asked.unwrap_or_else(|_| {
            // Its connection may be in any state.
            self.live = None;
            failed(ErrorKind::Internal, "a defect of llm-stream-bench: see the panic above")
        })
    }

    fn ask(&self, case: &Arc<Case>, place: TrialPosition) -> Answer {
        let interrupted = || failed(ErrorKind::Interrupted, "interrupted");
        let Some(live) = &self.live else { return interrupted() };
        self.show_progress(case, place);
        let follower = self.follower();
        let asking = self.interrupt.or(load::run(case, &live.lengths, &live.client, &follower));
        let asking = self.runtime.block_on(asking);
        asking.unwrap_or_else(interrupted)
    }

    fn show_progress(&self, case: &Arc<Case>, place: TrialPosition) {
        if let Some(progress) = &self.progress {
            let TrialPosition { task, tasks, run, runs, .. } = place;
            let name = &case.target.name;
            let heading = format!("{name}  prompt {task}/{tasks}  run {run}/{runs}");
            progress.begin(heading, case, place);
        }
    }

    fn follower(&self) -> Follower<'_> {
        Follower { progress: self.progress.as_ref(), interrupt: &self.interrupt }
    }

    /// Writes the row and the recording, and says how it went.
    fn keep(
        &mut self,
        case: &Arc<Case>,
        prompt: &Arc<Prompt>,
        started: Timestamp,
        answer: Answer,
    ) -> Result<Measurement, Stopped> {
        let row = self.write((case, prompt, &case.name), started, answer);
        let mut measured = Tally::default();
        measured.add(&row.prompt, row.case.run, &row.outcome);
        self.measured = Some(measured);
        self.summary.add(case.group.id, &[row.request()]);
        self.trials.push(TrialResult::request(&row, today()));
        match &row.outcome {
            Ok(sample) => {
                self.terminal.err(&success(sample));
                Ok(measurement(sample))
            }
            Err(error) => Err(self.failed(format!("{}: {error}", error.kind))),
        }
    }

    /// Writes the row, and the recording under the name `recorded_as`.
    fn write(
        &mut self,
        (case, prompt, recorded_as): (&Arc<Case>, &Arc<Prompt>, &str),
        started: Timestamp,
        answer: Answer,
    ) -> Row {
        let Answer { recording, mut outcome } = answer;
        // A later turn is meant to be fast.
        if let (Ok(sample), false) = (&mut outcome, prompt.is_later_turn()) {
            self.compare_with_first(case, sample);
        }
        let handed_over = recording.as_ref().and_then(|recording| recording.origin);
        let punctuality = self.punctuality(handed_over.into_iter().collect());
        if let (Ok(sample), Some(punctuality)) = (&mut outcome, punctuality) {
            sample.notes.extend(punctuality.is_late().then_some(Note::SimulatorLate));
            self.summary.add_punctuality(case.group.id, punctuality);
        }
        let mut row =
            Row { case: case.clone(), prompt: prompt.clone(), started, place: None, outcome };
        // Before anyone is told, so that whoever was told finds it.
        let written = self.results.write(&row).context("failed to write the row");
        let recorded = match (recording, &self.live) {
            (Some(recording), Some(live)) => {
                self.recordings.keep(recorded_as, recording, live.client.secrets())
            }
            _ => Ok(()),
        };
        if let Err(error) = written.and(recorded) {
            row.outcome = Err(RequestError::new(ErrorKind::NotWritten, format!("{error:#}")));
        }
        row
    }

    /// `text` without what the live model's requests carry and must not show.
    fn hidden(&self, text: &str) -> String {
        let live = self.live.as_ref();
        live.map_or_else(|| text.to_owned(), |live| live.client.secrets().hidden_in(text))
    }

    /// Says that a trial failed.
    fn failed(&self, message: String) -> Stopped {
        let message = visible_lines(&message).into_owned();
        self.terminal.err(&format!("      Failed: {message}\n"));
        Stopped::Failed(message)
    }

    /// Marks a repeat that came implausibly fast.
    fn compare_with_first(&mut self, case: &Arc<Case>, sample: &mut Sample) {
        // The plan keeps both alive, and so their addresses.
        let key = (Arc::as_ptr(&case.target).addr(), case.task.key());
        match self.first_runs.get(&key) {
            // What was held back says when it was let go, an answer with text that was not read has
            // no certain first token, and an answer that was read late came earlier.
            None if sample.is_held_back()
                || sample.is_client_delayed()
                || !sample.doubts.is_empty() => {}
            None => drop(self.first_runs.insert(key, sample.first_token())),
            Some(first) if sample.is_much_faster_than(*first) => {
                sample.notes.push(Note::MuchFasterRepeat);
            }
            Some(_) => {}
        }
    }
}

/// Where recordings are kept, if they are.
struct Recordings {
    folder: Option<PathBuf>,
    /// The names of this run's recordings.
    used: HashSet<String>,
}

impl Recordings {
    /// Keeps `recording` under the name of its trial.
    fn keep(
        &mut self,
        trial: &str,
        recording: Recording,
        secrets: &Redactor,
    ) -> anyhow::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let name = unused(&file_name(trial), &mut self.used);
        let path = folder.join(format!("{name}.jsonl"));
        let file = secrets.hide(recording).to_jsonl();
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, file))
            .with_context(|| format!("failed to write {}", path.display()))
    }
}

/// What was found for a prompt of a stated length.
fn made(name: &str, synthetic: &Synthetic, counts: &Counts) -> String {
    let mut ends = vec![synthetic.least, synthetic.most];
    ends.dedup();
    let found: Vec<_> = ends
        .iter()
        .filter_map(|wanted| Some((wanted, counts.nearest(*wanted)?)))
        .map(|(wanted, (words, tokens))| format!("{words} words are {tokens} of {wanted} tokens"))
        .collect();
    let by = match &synthetic.tokenizer {
        Some(tokenizer) => format!("by `{}`, a chat template aside", tokenizer.name()),
        None => format!("by the server's count ({} requests)", counts.len()),
    };
    format!("    Length of {name}: {}, {by}\n", found.join(", "))
}

/// An answer of which nothing came.
fn failed(kind: ErrorKind, message: &str) -> Answer {
    Answer { recording: None, outcome: Err(RequestError::new(kind, message)) }
}

/// Shows a request's progress and stops it at the user's wish.
struct Follower<'a> {
    progress: Option<&'a Progress>,
    interrupt: &'a Interrupt,
}

impl Follow for Follower<'_> {
    fn arrived(&self, chunk: &Chunk) {
        if let Some(progress) = self.progress {
            progress.arrived(chunk);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.interrupt.came()
    }
}

impl Live {
    fn new(target: &Arc<Target>, access: &Access) -> anyhow::Result<Self> {
        let (url, simulator) = match &target.endpoint {
            Endpoint::Url(_) | Endpoint::Socket { .. } => (access.url.clone(), None),
            Endpoint::Simulated(script) => {
                let simulator = Simulator::start(script.clone(), target.protocol)
                    .context("failed to start the simulated endpoint")?
                    .briefly_logged();
                (simulated_url(&simulator, target.protocol), Some(simulator))
            }
        };
        let client = Client::new(&client::Options {
            url: &url,
            headers: &access.headers,
            api_key: access.key.as_ref(),
            timeouts: target.timeouts,
            transport: target.transport,
            connection: target.connection,
            protocol: target.protocol,
            route: &access.route,
        })?;
        let meter = ServerMetricsProbe::of(target, access)?;
        Ok(Self {
            target: target.clone(),
            client,
            meter,
            lengths: PromptSizer::default(),
            unmade: Vec::new(),
            simulator,
        })
    }
}

/// Where a simulated endpoint takes requests.
pub(super) fn simulated_url(simulator: &Simulator, protocol: &dyn Protocol) -> String {
    format!("{}{}{}", simulator.url(), protocol.prefix(), protocol.path())
}

/// What came of a group's thresholds.
fn judge(
    group: &Group,
    instruments: &Instruments,
    reference: Option<Reference<'_>>,
    confidence: f64,
) -> GroupVerdicts {
    let instrument = calibrate::calibration_of(group, instruments)
        .map(|known| known.bounds().with_simulator(&group.punctuality));
    let verdict = |&threshold| Verdict::of(threshold, group, instrument, reference, confidence);
    // Without a baseline there is no change: whoever allows that has said so.
    let judged =
        group.thresholds().iter().filter(|limit| reference.is_some() || !limit.is_relative);
    let verdicts: Vec<_> = judged.map(verdict).collect();
    let compares = verdicts.iter().any(|verdict| verdict.change.is_some());
    let notes = reference.filter(|_| compares).and_then(|reference| {
        let now = GroupBaseline::of(group, reference.machine);
        reference.baseline.group(&now).ok()?.comparable_to(&now).ok()
    });
    let notes = notes.unwrap_or_default();
    GroupVerdicts { group: group.spec.id, name: group.name(), verdicts, notes }
}

/// libtest's figure: the time per output token, and the spread of the gaps between token events,
/// scaled to a token where events hold several.
fn measurement(sample: &Sample) -> Measurement {
    let tpot = Metric::TPOT.of(sample);
    let itl = Metric::ITL.of(sample);
    let Some((tpot, itl)) = tpot.zip(itl) else { return NO_TPOT };
    let gaps: Vec<_> = sample.gaps().map(|gap| gap.as_secs_f64()).collect();
    let spread = Statistic::Sd.of(&gaps).unwrap_or_default() * tpot / itl;
    Measurement { avg: nanoseconds(tpot), variance: nanoseconds(spread) }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

fn success(sample: &Sample) -> String {
    format!("      Success: {}", told(sample))
}

/// An answer's figures and notes, in a line.
fn told(sample: &Sample) -> String {
    let mut line = format!(
        "{} total tokens/sec, {} generation tokens/sec, {} preprocess tokens/sec",
        figure(Metric::TOTAL_TOKENS_PER_SECOND, 2, sample),
        figure(Metric::GENERATION_SPEED, 1, sample),
        figure(Metric::PREPROCESS_SPEED, 1, sample),
    );
    let notes: Vec<_> = sample.noted().map(|(_, words)| words).collect();
    if !notes.is_empty() {
        line.push_str(&format!(" ({})", notes.join(", ")));
    }
    line.push('\n');
    line
}

fn figure(metric: &Metric, digits: usize, sample: &Sample) -> String {
    let value = metric.of(sample);
    value.map_or_else(|| "n/a".into(), |value| format!("{value:.digits$}"))
}

/// A trial's name as a file's: without what a file system may refuse, and not too long for one.
pub(super) fn file_name(trial: &str) -> String {
    const LONGEST: usize = 200;
    let safe = |c: char| if c.is_alphanumeric() || "-._".contains(c) { c } else { '_' };
    let mut name: String = trial.chars().map(safe).collect();
    name.truncate(name.floor_char_boundary(LONGEST));
    name
}

/// `name`, or with a number what is not in `used` yet: two trials may have one file name.
fn unused(name: &str, used: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| used.insert(name.clone())).unwrap_or_default()
}
