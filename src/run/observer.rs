//! What a run tells while it measures: events, in order.
//!
//! The runner prints, writes and draws nothing. Code that needs lines, files or a progress bar
//! implements [`Observer`]; the command line's observers are in `harness`.

use std::{error::Error, sync::Arc};

use llm_stream_client::Redactor;
use llm_stream_core::{
    capacity::{FinishedSearch, Objective, SearchPoint},
    energy::ServerSamples,
    load_stats::LoadStats,
    prompt::{Prompt, Synthetic},
    recording::{Chunk, Recording, RequestError},
    sample::Sample,
    server_metrics::MetricComparison,
    summary::Tally,
    synthetic::LengthSearch,
};

use super::{TrialPosition, instrument::InstrumentSetting};
use crate::{
    calibrate::Calibration,
    load::LoadCounters,
    plan::{Case, Target, Workload},
    report::loads::LoadRow,
    row::Row,
};

/// Why an observer could not take an event.
pub type ObserverError = Box<dyn Error + Send + Sync>;

/// Receives the events of a run.
///
/// Loads deliver [`Event::Request`] on a different thread than other events.
pub trait Observer: Send {
    /// Takes an event.
    ///
    /// An error is part of the result for the events that have to be stored: the request of
    /// [`Event::Request`] fails with `not_written`, the load of [`Event::Load`] is invalid, and
    /// after [`Event::ServerMetrics`] no more metrics are read. Errors of other events are ignored.
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError>;

    /// Bytes of the answer in flight arrived. The receive loop calls this: return at once.
    fn bytes_arrived(&self, _chunk: &Chunk) {}
}

/// Ignores every event.
impl Observer for () {
    fn event(&mut self, _: Event<'_>) -> Result<(), ObserverError> {
        Ok(())
    }
}

/// Passes each event to every observer, in order; the first error counts.
impl Observer for Vec<Box<dyn Observer>> {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        let mut first = Ok(());
        for observer in self {
            let result = observer.event(event);
            first = first.and(result);
        }
        first
    }

    fn bytes_arrived(&self, chunk: &Chunk) {
        self.iter().for_each(|observer| observer.bytes_arrived(chunk));
    }
}

/// Something that happened in a run.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The preflight found that trials will fail, or may.
    PreflightFinding {
        /// The model.
        target: &'a Arc<Target>,
        /// The prompts whose trials are affected; `None` for all trials of the model.
        prompts: Option<&'a [Arc<Prompt>]>,
        /// What is wrong.
        error: &'a RequestError,
        /// Whether the trials fail without being run.
        is_certain: bool,
    },
    /// A trial begins.
    TrialStarted {
        /// The trial.
        case: &'a Arc<Case>,
    },
    /// The run switches to this model: a model's first trial begins, or its turn comes again.
    ModelStarted {
        /// The model.
        target: &'a Arc<Target>,
    },
    /// A warm-up request is sent.
    WarmUpStarted {
        /// The trial that it precedes.
        case: &'a Arc<Case>,
        /// The trial's position.
        position: TrialPosition,
    },
    /// The warm-up request ended.
    WarmUpFinished {
        /// Its answer.
        outcome: &'a Result<Sample, RequestError>,
    },
    /// The first run of a prompt or workload begins.
    TaskStarted {
        /// The trial.
        case: &'a Arc<Case>,
        /// The trial's position.
        position: TrialPosition,
    },
    /// A run of a prompt or workload begins.
    RunStarted {
        /// The trial's position.
        position: TrialPosition,
    },
    /// The length of a synthetic prompt is known.
    LengthMeasured {
        /// The prompt.
        prompt: &'a Prompt,
        /// The length that it was asked to have.
        synthetic: &'a Synthetic,
        /// The counted lengths.
        counts: &'a LengthSearch,
    },
    /// A request is sent, or a load begins.
    RequestStarted {
        /// The trial.
        case: &'a Arc<Case>,
        /// The trial's position.
        position: TrialPosition,
    },
    /// A request ended.
    Request {
        /// The request's row.
        row: &'a Row,
        /// What arrived, as it arrived; `None` when nothing did.
        recording: Option<&'a Recording>,
        /// The name of the recording: the trial's, with the turn or the request's number.
        name: &'a str,
        /// Hides the secrets that the recording may hold.
        redactor: Option<&'a Redactor>,
    },
    /// A turn of a conversation has a valid answer.
    TurnFinished {
        /// Which turn, from 1.
        number: usize,
        /// The answer.
        sample: &'a Sample,
    },
    /// An answer has no text, so the next turn gets a placeholder for it.
    TurnWithoutText {
        /// The turn, from 1.
        number: usize,
    },
    /// A load begins.
    LoadStarted {
        /// The workload.
        workload: &'a Workload,
        /// What the receiving thread counts until the load ends.
        counters: &'a Arc<LoadCounters>,
    },
    /// A request of a load ended.
    LoadProgress {
        /// How many ended.
        ended: usize,
        /// How many there will be, if that is known.
        of: Option<usize>,
        /// The tokens of the last one, if its answer is valid.
        tokens: Option<u64>,
    },
    /// A load ended.
    Load {
        /// The load's row.
        row: &'a LoadRow,
    },
    /// A search measured one of its loads.
    Searched {
        /// What it is for.
        objective: &'a Objective,
        /// The load.
        point: &'a SearchPoint,
    },
    /// The simulated endpoint did not keep its script, and `checks_instrument` is off.
    SimulatorLate {
        /// What it did not keep.
        shortfall: &'a str,
    },
    /// The server's metrics were read before and after a trial.
    ServerMetrics {
        /// The trial.
        case: &'a Arc<Case>,
        /// What they say.
        comparison: &'a MetricComparison,
    },
    /// The server's metrics, or the power of its GPUs, were scraped while a load or a long request
    /// ran.
    ServerSeries {
        /// The trial, or the load of a search.
        case: &'a Arc<Case>,
        /// The scrapes.
        samples: &'a ServerSamples,
    },
    /// The server's metrics cannot be read any more.
    ServerMetricsLost {
        /// Their URL.
        url: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A trial ended.
    TrialFinished {
        /// The trial.
        case: &'a Arc<Case>,
        /// How it ended.
        outcome: TrialOutcome<'a>,
    },
    /// Packets of a model were to be seen and were not.
    PacketsUnseen {
        /// The model.
        target: &'a Arc<Target>,
    },
    /// The instrument's error was measured; empty when there is no group.
    InstrumentMeasured {
        /// Each setting with its error.
        calibrations: &'a [(InstrumentSetting, Calibration)],
    },
    /// The instrument's error could not be measured; figures are judged as if it had none.
    InstrumentUnknown {
        /// Why.
        error: &'a (dyn Error + 'static),
    },
    /// Thresholds are undecided or means are not known precisely, so more trials are run.
    TrialsAdded {
        /// The additional trials.
        cases: &'a [Arc<Case>],
        /// Why they are run.
        reason: AddedBecause,
    },
    /// No further run would end within `max_time`.
    TimeOver,
}

/// Why trials are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AddedBecause {
    /// Thresholds are undecided.
    pub is_undecided: bool,
    /// Means are not known as precisely as `precision` asks.
    pub is_imprecise: bool,
}

/// How a trial ended.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum TrialOutcome<'a> {
    /// A prompt has a valid answer.
    Answer(&'a Sample),
    /// All turns of a conversation have valid answers.
    Conversation(&'a Tally),
    /// A load ran as specified.
    Load {
        /// The workload.
        workload: &'a Workload,
        /// Its requests.
        tally: &'a Tally,
        /// Its throughput and concurrency.
        stats: &'a LoadStats,
    },
    /// A search found the highest load that holds.
    Search {
        /// The workload.
        workload: &'a Workload,
        /// The requests of the highest load that held.
        tally: &'a Tally,
        /// Its throughput and concurrency.
        stats: &'a LoadStats,
        /// What was found.
        finished: &'a FinishedSearch,
    },
    /// The trial failed, with a message of one line.
    Failed(&'a str),
}
