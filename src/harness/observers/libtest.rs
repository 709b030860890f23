//! libtest's lines. libtest-mimic calls trials, and the runner calls observers, so one of them has
//! to wait: libtest-mimic runs on its own thread, and each of its trials blocks until the runner
//! has finished the real one. The runner therefore does not depend on libtest, and a run can end
//! early without ending the process.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use libtest_mimic::{Arguments, Failed, Measurement, Trial};
use llm_stream_core::{metric::Metric, sample::Sample, statistic::Statistic, summary::Tally};

use super::{LibtestOutput, libtest_output::NO_TPOT};
use crate::{
    harness::terminal::Terminal,
    plan::Case,
    run::{Event, Observer, ObserverError, TrialOutcome},
};

/// The result of a trial for libtest-mimic.
type Reported = Result<Option<Measurement>, Failed>;

/// Prints libtest's lines of the trials that were planned at the start. Trials that adaptive runs
/// add have no libtest line.
pub(in crate::harness) struct LibtestTrials {
    output: LibtestOutput,
    terminal: Arc<Terminal>,
    started: mpsc::Receiver<()>,
    finished: mpsc::Sender<Reported>,
    thread: Option<JoinHandle<()>>,
    /// The number of trials that libtest still waits for.
    left: usize,
    /// Whether libtest's lines could not be written.
    is_broken: Arc<AtomicBool>,
}

impl LibtestTrials {
    /// Starts libtest-mimic with a trial for each of `cases`.
    pub(in crate::harness) fn start(
        (arguments, output): (Arguments, LibtestOutput),
        cases: &[Arc<Case>],
        terminal: Arc<Terminal>,
    ) -> anyhow::Result<Self> {
        let (start, started) = mpsc::channel();
        let (finished, finish) = mpsc::channel();
        let finish = Arc::new(Mutex::new(finish));
        let trial = |case: &Arc<Case>| {
            let (start, finish) = (start.clone(), finish.clone());
            Trial::bench(case.name.clone(), move |_| {
                let _ = start.send(());
                let finish = finish.lock().unwrap_or_else(PoisonError::into_inner);
                // The sender is dropped when the run is cancelled.
                finish.recv().unwrap_or_else(|_| Err("interrupted".into()))
            })
        };
        let trials = cases.iter().map(trial).collect();
        let arguments = Arguments {
            filter: None,
            skip: Vec::new(),
            exact: false,
            ignored: false,
            test_threads: Some(1),
            ..arguments
        };
        let run = move || drop(libtest_mimic::run(&arguments, trials));
        let thread = thread::Builder::new().name("libtest".into()).spawn(run);
        Ok(Self {
            output,
            terminal,
            started,
            finished,
            thread: Some(thread.context("failed to start a thread")?),
            left: cases.len(),
            is_broken: Arc::default(),
        })
    }

    /// The flag that is set when libtest's lines could not be written.
    pub(in crate::harness) fn broken(&self) -> Arc<AtomicBool> {
        self.is_broken.clone()
    }

    /// Reports lost lines once. libtest-mimic panics if it cannot write; the run continues, because
    /// its measurements are still valid.
    fn report_loss(&mut self) {
        if !self.is_broken.swap(true, Ordering::SeqCst) {
            let line = "WARNING: libtest's lines could not be written: see the panic above\n";
            self.terminal.err(line);
        }
    }

    /// Waits for libtest's last line.
    fn end(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            self.report_loss();
        }
        self.output.flush_lines(&self.terminal);
    }
}

impl Observer for LibtestTrials {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            // libtest-mimic has started the next trial, so the line of the previous one is
            // complete.
            Event::TrialStarted { .. } if self.left > 0 => match self.started.recv() {
                Ok(()) => self.output.flush_lines(&self.terminal),
                Err(_) => self.report_loss(),
            },
            Event::TrialFinished { outcome, .. } if self.left > 0 => {
                self.left -= 1;
                if self.finished.send(reported(outcome)).is_err() {
                    self.report_loss();
                }
                if self.left == 0 {
                    self.end();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn reported(outcome: TrialOutcome<'_>) -> Reported {
    match outcome {
        TrialOutcome::Failed(message) => Err(message.into()),
        TrialOutcome::Answer(sample) => Ok(Some(of_answer(sample))),
        TrialOutcome::Conversation(tally)
        | TrialOutcome::Load { tally, .. }
        | TrialOutcome::Search { tally, .. } => Ok(Some(of_requests(tally))),
    }
}

/// Returns libtest's figure of one answer: the time per output token, and the spread of the gaps
/// between token events, scaled to a token where events hold several.
fn of_answer(sample: &Sample) -> Measurement {
    let tpot = Metric::TPOT.of(sample);
    let itl = Metric::ITL.of(sample);
    let Some((tpot, itl)) = tpot.zip(itl) else { return NO_TPOT };
    let gaps: Vec<_> = sample.gaps().map(|gap| gap.as_secs_f64()).collect();
    let spread = Statistic::Sd.of(&gaps).unwrap_or_default() * tpot / itl;
    Measurement { avg: nanoseconds(tpot), variance: nanoseconds(spread) }
}

/// Returns libtest's figure of several requests: the mean time per output token, and its spread over
/// the requests.
fn of_requests(tally: &Tally) -> Measurement {
    let values = tally.values(Metric::TPOT);
    let Ok(mean) = Statistic::Mean.of(&values) else { return NO_TPOT };
    let spread = Statistic::Sd.of(&values).unwrap_or_default();
    Measurement { avg: nanoseconds(mean), variance: nanoseconds(spread) }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}
