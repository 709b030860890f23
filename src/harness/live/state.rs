//! What the live view shows: the events of the run so far, and the reads that were counted. Every
//! time is passed in, counted from the start of the run.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use llm_stream_core::{
    group::{GroupId, GroupSpec},
    recording::{ErrorKind, Recording},
    threshold::Threshold,
};

use super::figures::{GroupFigures, Standing};
use crate::{
    load::LoadCounters,
    plan::{Case, Task, Workload},
    row::Row,
    run::{Event, TrialOutcome, TrialPosition},
};

/// The least time of a bar of the throughput.
const BAR: Duration = Duration::from_millis(500);

/// The number of bars that are kept: more than the widest terminal shows.
const BARS: usize = 256;

/// The number of bars whose mean is the throughput now.
const NOW: usize = 4;

/// The state of the run for the live view.
#[derive(Debug)]
pub(super) struct LiveState {
    /// The model, or what happens before and after the trials.
    pub(super) subject: String,
    /// The prompt or workload of the model, and the run.
    pub(super) task: String,
    pub(super) position: Option<TrialPosition>,
    pub(super) load: Option<LoadInFlight>,
    /// The failed requests by kind.
    pub(super) failures: BTreeMap<ErrorKind, usize>,
    /// The requests that have ended.
    pub(super) requests: usize,
    groups: BTreeMap<GroupId, GroupFigures>,
    group: Option<GroupId>,
    /// Whether a request outside of a load is in flight.
    is_asking: bool,
    trial_began: Duration,
    /// The trials that have ended, and the time that they took.
    ended: u32,
    took: Duration,
    /// The reads of requests outside of loads, which the receiving thread counts.
    reads: Arc<AtomicU64>,
    /// The reads when the request began.
    reads_before: u64,
    throughput: Throughput,
}

/// The load in progress.
#[derive(Debug)]
pub(super) struct LoadInFlight {
    counters: Arc<LoadCounters>,
    duration: Option<Duration>,
    began: Duration,
    pub(super) ended: usize,
    pub(super) of: Option<usize>,
}

/// The tokens per second of each half second.
#[derive(Debug, Default)]
struct Throughput {
    bars: VecDeque<f64>,
    /// The tokens since the last bar, and when it ended.
    tokens: f64,
    since: Duration,
    /// The reads that were counted so far.
    seen: u64,
    /// The same of the load in progress.
    seen_of_load: u64,
}

impl LiveState {
    /// Creates the state of a run of `groups` that has not begun, with what happens before it.
    pub(super) fn new(
        subject: &str,
        groups: impl IntoIterator<Item = Arc<GroupSpec>>,
        reads: Arc<AtomicU64>,
    ) -> Self {
        let groups = groups.into_iter().map(|spec| (spec.id, GroupFigures::new(spec)));
        Self {
            subject: subject.into(),
            task: String::new(),
            position: None,
            load: None,
            failures: BTreeMap::new(),
            requests: 0,
            groups: groups.collect(),
            group: None,
            is_asking: false,
            trial_began: Duration::ZERO,
            ended: 0,
            took: Duration::ZERO,
            reads,
            reads_before: 0,
            throughput: Throughput::default(),
        }
    }

    /// Takes an event of the run.
    pub(super) fn take(&mut self, event: Event<'_>, now: Duration) {
        match event {
            Event::TrialStarted { case } => {
                self.trial_began = now;
                self.group = Some(case.group.id);
                self.subject.clone_from(&case.target.name);
                self.task.clear();
            }
            Event::WarmUpStarted { case, position } => {
                self.ask("warm-up".into(), case, position);
                self.is_asking = true;
            }
            Event::WarmUpFinished { outcome } => {
                let tokens = outcome.as_ref().ok().map(|sample| sample.response_tokens);
                self.end_request(tokens);
                self.is_asking = false;
            }
            Event::RequestStarted { case, position } => {
                self.ask(task(case, position), case, position);
                self.is_asking = matches!(case.task, Task::Prompt(_));
            }
            Event::LoadStarted { workload, counters } => self.begin_load(workload, counters, now),
            Event::LoadProgress { ended, of, .. } => {
                self.load.iter_mut().for_each(|load| (load.ended, load.of) = (ended, of));
            }
            Event::Request { row, recording, .. } => self.add(row, recording),
            Event::TrialFinished { case, outcome } => self.end_trial(case, outcome, now),
            _ => {}
        }
    }

    fn ask(&mut self, task: String, case: &Case, position: TrialPosition) {
        self.task = task;
        self.position = Some(position);
        self.group = Some(case.group.id);
        self.reads_before = self.reads.load(Ordering::Relaxed);
    }

    fn begin_load(&mut self, workload: &Workload, counters: &Arc<LoadCounters>, now: Duration) {
        self.is_asking = false;
        self.throughput.seen_of_load = 0;
        self.load = Some(LoadInFlight {
            counters: counters.clone(),
            duration: workload.until.duration,
            began: now,
            ended: 0,
            of: workload.until.requests,
        });
    }

    /// Notes the reads of a request outside of a load, which had `tokens` tokens if it is valid.
    fn end_request(&mut self, tokens: Option<u64>) {
        let reads = self.reads.load(Ordering::Relaxed);
        let took = reads.saturating_sub(self.reads_before);
        self.reads_before = reads;
        let figures = self.group.and_then(|id| self.groups.get_mut(&id));
        if let Some((figures, tokens)) = figures.zip(tokens) {
            figures.count_reads(tokens, took);
        }
    }

    fn add(&mut self, row: &Row, recording: Option<&Recording>) {
        self.requests += 1;
        let tokens = row.outcome.as_ref().ok().map(|sample| sample.response_tokens);
        if let Err(error) = &row.outcome {
            *self.failures.entry(error.kind).or_default() += 1;
        }
        let Some(figures) = self.groups.get_mut(&row.case.group.id) else { return };
        figures.add(&row.outcome);
        let reads = recording.map_or(0, |recording| recording.chunks.len() as u64);
        match (row.place, tokens) {
            (Some(_), Some(tokens)) => figures.count_reads(tokens, reads),
            (Some(_), None) => {}
            (None, tokens) => self.end_request(tokens),
        }
    }

    fn end_trial(&mut self, case: &Case, outcome: TrialOutcome<'_>, now: Duration) {
        if let TrialOutcome::Load { stats, .. } = outcome {
            let figures = self.groups.get_mut(&case.group.id);
            figures.into_iter().for_each(|figures| figures.add_load(stats));
        }
        self.load = None;
        self.is_asking = false;
        self.ended += 1;
        self.took += now.saturating_sub(self.trial_began);
        if self.position.is_some_and(|position| position.trial == position.trials) {
            self.subject = "All trials have ended".into();
            self.task.clear();
            self.position = None;
        }
    }

    /// Counts the reads since the last call.
    pub(super) fn tick(&mut self, now: Duration) {
        let per_read = self.figures().map_or(1.0, GroupFigures::tokens_per_read);
        let reads = self.reads.load(Ordering::Relaxed);
        let of_load = self.load.as_ref().map_or(0, |load| load.counters.reads());
        self.throughput.add((reads, of_load), per_read, now);
    }

    /// The tokens per second of each half second, the latest last.
    pub(super) fn bars(&self) -> impl DoubleEndedIterator<Item = f64> {
        self.throughput.bars.iter().copied()
    }

    /// The tokens per second of the last two seconds; `None` in the first half second.
    pub(super) fn tokens_per_second(&self) -> Option<f64> {
        let last: Vec<_> = self.bars().rev().take(NOW).collect();
        (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64)
    }

    /// The number of requests in flight.
    pub(super) fn streams(&self) -> usize {
        match &self.load {
            Some(load) => load.counters.in_flight(),
            None => usize::from(self.is_asking),
        }
    }

    /// The figures of the trial's group.
    pub(super) fn figures(&self) -> Option<&GroupFigures> {
        self.groups.get(&self.group?)
    }

    /// Whether groups have different names.
    pub(super) fn has_several_groups(&self) -> bool {
        self.groups.len() > 1
    }

    /// Each threshold with its group and how it stands.
    pub(super) fn standings(&self) -> impl Iterator<Item = (&GroupSpec, &Threshold, Standing)> {
        self.groups.values().flat_map(|figures| {
            figures.standings().map(|(threshold, standing)| (&*figures.spec, threshold, standing))
        })
    }

    /// Estimates the remaining time from the load in progress and the mean time of the trials that
    /// have ended.
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        let position = self.position?;
        let after = u32::try_from(position.trials.checked_sub(position.trial)?).ok()?;
        let elapsed = now.saturating_sub(self.trial_began);
        let mean = self.took.checked_div(self.ended);
        let of_load = self.load.as_ref().and_then(|load| load.left(now));
        let current = of_load.or_else(|| Some(mean?.saturating_sub(elapsed)))?;
        let mean = mean.or(Some(elapsed + current).filter(|_| of_load.is_some()));
        if after == 0 { Some(current) } else { current.checked_add(mean?.checked_mul(after)?) }
    }
}

impl LoadInFlight {
    fn left(&self, now: Duration) -> Option<Duration> {
        let elapsed = now.saturating_sub(self.began);
        let in_time = self.duration.map(|duration| duration.saturating_sub(elapsed));
        let in_number = self.of.filter(|_| self.ended > 0).map(|of| {
            let rest = of.saturating_sub(self.ended) as f64 / self.ended as f64;
            elapsed.mul_f64(rest.min(1e6))
        });
        in_time.into_iter().chain(in_number).min()
    }
}

impl Throughput {
    fn add(&mut self, (reads, of_load): (u64, u64), per_read: f64, now: Duration) {
        let more = reads - self.seen + of_load.saturating_sub(self.seen_of_load);
        (self.seen, self.seen_of_load) = (reads, of_load);
        self.tokens += more as f64 * per_read;
        // A bar has as many calls as its time, however late they are: none has those of another.
        let time = now.saturating_sub(self.since);
        if time >= BAR {
            self.bars.push_back(self.tokens / time.as_secs_f64());
            self.bars.drain(..self.bars.len().saturating_sub(BARS));
            (self.tokens, self.since) = (0.0, now);
        }
    }
}

fn task(case: &Case, TrialPosition { task, tasks, run, runs, .. }: TrialPosition) -> String {
    match &case.task {
        Task::Prompt(_) => format!("prompt {task}/{tasks}  run {run}/{runs}"),
        Task::Workload(workload) => format!("{}  run {run}/{runs}", workload.name),
    }
}
