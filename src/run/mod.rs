//! The engine: [`Runner`] measures a [`Plan`] and returns a [`Run`].
//!
//! It knows no terminal, no libtest and no file. It sends events to an [`Observer`], and a
//! [`Cancellation`] ends it early.

mod adaptive_runs;
mod cancellation;
mod conversation;
mod figure_file;
mod gathered;
mod identity;
mod instrument;
mod judge;
mod kept;
mod models;
mod observer;
mod outcome;
mod position;
mod preflight;
mod prompt_length;
mod search;
mod server_metrics;
mod server_series;
mod trial;
mod workload;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use llm_stream_client::AnswerObserver;
use llm_stream_core::{
    baseline::Baseline,
    column::Storage,
    recording::{Chunk, ErrorKind, RequestError},
    summary::{Summary, Tally},
    verdict::Reference,
};

pub use self::{
    cancellation::Cancellation,
    instrument::InstrumentSetting,
    observer::{AddedBecause, Event, Observer, ObserverError, TrialOutcome},
    position::TrialPosition,
};
use self::{
    figure_file::FigureFile,
    instrument::Instruments,
    models::Models,
    position::Positions,
    preflight::Unusable,
    server_metrics::{AnswerCount, RequestLedger},
};
pub(crate) use self::{
    kept::{KeptRows, KeptTrials},
    models::simulated_url,
};
use crate::{
    config::Order,
    plan::{Access, Case, Plan, Target},
    report::{GroupPrecision, Instrument, Run, RunOutcome, TrialList, Unreadable},
    setup::Setup,
};

/// Each model with its key, its headers and the options of its connection.
pub type Accesses = Vec<(Arc<Target>, Access)>;

/// What decides how a plan is measured, besides the plan.
#[derive(Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// What each model of the plan needs of the environment.
    pub accesses: Accesses,
    /// Whether every endpoint is asked once before the first trial.
    pub preflight: bool,
    /// Whether the instrument's own error is measured and counts, and a simulated load that the
    /// simulator did not keep is invalid.
    pub checks_instrument: bool,
    /// The run that relative thresholds refer to.
    pub baseline: Option<Baseline>,
    /// The machine that measures, in a line.
    pub machine: String,
    /// The circumstances of the run, for its report.
    pub(crate) setup: Option<Box<Setup>>,
    /// The trials of an earlier run that are not run again.
    pub(crate) kept: Option<Box<dyn KeptTrials>>,
    /// The folder of a temporary file for the figures of a long run; `None` for the system's.
    pub temporary_folder: Option<PathBuf>,
    /// Ends the run early.
    pub cancellation: Cancellation,
}

/// A run, and how many of its trials failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Measured {
    /// The run; its outcome is still to be decided.
    pub run: Run,
    /// How many trials failed; `None` when the run was cancelled.
    pub failed: Option<u64>,
}

/// Measures a plan.
pub struct Runner<'a> {
    plan: Plan,
    positions: Positions,
    options: RunOptions,
    observer: &'a mut dyn Observer,
    models: Models,
    summary: Summary,
    trials: TrialList,
    /// The last trial that was announced by its model and task.
    announced: Option<Arc<Case>>,
    /// The time to the first token of the first valid answer of each model to each prompt.
    first_ttft: HashMap<(usize, usize), Duration>,
    unusable: Vec<Unusable>,
    ledger: RequestLedger,
    /// When the run began.
    started: Instant,
    /// Where long columns of figures are kept.
    storage: Storage,
    unreadable: Unreadable,
    /// Whether `max_time` kept further runs from being measured.
    is_out_of_time: bool,
}

/// The run was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cancelled;

/// How a trial ended.
struct TrialEnd {
    /// Why it failed, if it did.
    failure: Option<String>,
    /// Its requests, for the server's metrics; `None` when none was sent.
    tally: Option<Tally>,
}

impl<'a> Runner<'a> {
    /// Prepares to measure `plan`.
    pub fn new(plan: Plan, options: RunOptions, observer: &'a mut dyn Observer) -> Self {
        let unreadable = Unreadable::default();
        let folder = options.temporary_folder.as_deref();
        let storage = Storage::new(FigureFile::new(folder, &unreadable));
        let listed = plan.listed();
        let groups = listed.iter().flat_map(|case| case.groups());
        Self {
            positions: Positions::of(&plan.cases),
            summary: Summary::in_storage(groups, storage.clone()),
            plan,
            options,
            observer,
            models: Models::default(),
            trials: TrialList::new(&storage),
            announced: None,
            first_ttft: HashMap::new(),
            unusable: Vec::new(),
            ledger: RequestLedger::default(),
            started: begin(),
            storage,
            unreadable,
            is_out_of_time: false,
        }
    }

    /// Measures: preflight, trials, the instrument, more trials where thresholds are undecided.
    pub fn run(mut self) -> Measured {
        if self.options.preflight {
            self.preflight();
        }
        let Ok(first) = self.run_trials(&self.plan.cases.clone()) else {
            return Measured { run: self.finish(&Instruments::default()), failed: None };
        };
        let instruments = self.measure_instrument();
        let more = self.run_until_decided(&instruments);
        let failed = more.ok().filter(|_| !self.is_cancelled()).map(|more| first + more);
        Measured { run: self.finish(&instruments), failed }
    }

    /// Runs trials; returns how many failed.
    fn run_trials(&mut self, cases: &[Arc<Case>]) -> Result<u64, Cancelled> {
        let mut failed = 0;
        for case in cases {
            failed += u64::from(self.trial(case)?.failure.is_some());
        }
        Ok(failed)
    }

    /// Asks each endpoint once; the trials of those that cannot answer are not run.
    fn preflight(&mut self) {
        self.open_ledger();
        let accesses = &self.options.accesses;
        let (cases, cancellation) = (self.plan.listed(), &self.options.cancellation);
        let (servers, preflight::Preflight { unusable, asked }) = thread::scope(|scope| {
            let identities = scope.spawn(|| identity::of(accesses));
            let preflight = preflight::run(accesses, &cases, cancellation, self.observer);
            (identities.join().unwrap_or_default(), preflight)
        });
        if let Some(setup) = &mut self.options.setup {
            setup.servers = servers;
        }
        self.unusable = unusable;
        for (target, preflight::Requests { valid, failed }) in asked {
            let found = self.options.accesses.iter().find(|(of, _)| Arc::ptr_eq(of, &target));
            let access = found.map(|(_, access)| access.clone()).unwrap_or_default();
            self.count_preflight(&target, &access, AnswerCount { valid, failed });
        }
    }

    /// What the rows say together, judged with `instruments`.
    fn finish(mut self, instruments: &Instruments) -> Run {
        let confidence = self.confidence();
        let verdicts = self.judge_all(instruments, confidence);
        let instrument = |(setting, calibration): &(InstrumentSetting, _)| Instrument {
            transport: setting.transport,
            calibration: *calibration,
        };
        let precision = GroupPrecision::of(&self.summary, confidence);
        Run {
            precision,
            summary: std::mem::take(&mut self.summary),
            verdicts: verdicts.into_iter().filter(|of| !of.verdicts.is_empty()).collect(),
            confidence,
            is_out_of_time: self.is_out_of_time,
            order: self.plan.order.to_string(),
            took_turns: matches!(self.plan.order, Order::Interleaved(_)),
            trials: std::mem::take(&mut self.trials),
            instruments: instruments.known.iter().map(instrument).collect(),
            machine: self.options.machine.clone(),
            setup: self.options.setup.take(),
            ending: RunOutcome::default(),
            unreadable: self.unreadable.clone(),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.options.cancellation.is_cancelled()
    }

    /// An error when the run is cancelled.
    fn check_cancelled(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Tells the observer something whose failure changes nothing.
    fn tell(&mut self, event: Event<'_>) {
        let _ = self.observer.event(event);
    }

    /// What the run is compared with, if anything.
    fn reference(&self) -> Option<Reference<'_>> {
        let RunOptions { baseline, machine, .. } = &self.options;
        baseline.as_ref().map(|baseline| Reference { baseline, machine })
    }

    /// `text` without the secrets of the active model's requests.
    fn hidden(&self, text: &str) -> String {
        let active = self.models.active.as_ref();
        active.map_or_else(|| text.to_owned(), |model| model.client.redactor().redact(text))
    }
}

/// Passes arriving bytes to the run's observer, and abandons the answer with the run.
struct RunObserver<'a> {
    observer: &'a dyn Observer,
    cancellation: &'a Cancellation,
}

impl AnswerObserver for RunObserver<'_> {
    fn arrived(&self, chunk: &Chunk) {
        self.observer.bytes_arrived(chunk);
    }

    fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }
}

/// A panic, which is a defect of this program, as a failed request like any other: the run goes on
/// and its rows are kept. The panic's own message is on stderr.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, RequestError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|_| {
        let message = "a defect of llm-stream-bench: see the panic above";
        RequestError::new(ErrorKind::Internal, message)
    })
}

/// When a run begins. No figure comes from it.
#[expect(clippy::disallowed_methods, reason = "`max_time` limits the run")]
fn begin() -> Instant {
    Instant::now()
}

/// The date, by the wall clock. No figure comes from it.
#[expect(clippy::disallowed_methods, reason = "runs and rows are dated here")]
pub(crate) fn today() -> Timestamp {
    Timestamp::now()
}
