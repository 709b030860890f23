//! A trial that is a load: many requests, a row each, and what they reached together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use llm_stream_client::{AnswerObserver, SamplingTimes};
use llm_stream_core::{
    abort::{AbortReason, EndedRequest, LoadWatch},
    cache_share::{CacheShare, CacheTally},
    capacity::{LoadLimits, LoadRequest},
    column::Storage,
    comparison::SIGNIFICANT,
    energy::ServerSamples,
    load_stats::{LoadStats, MIN_CONNECTED, RequestSpan, Shortfall},
    metric::{Metric, SUCCESS_RATE},
    punctuality::Punctuality,
    recording::{ErrorKind, RequestError},
    summary::Tally,
    text::{counted, error_chain},
    threshold::Threshold,
    trace::TracedLengths,
    verdict::p_of_failures,
};

use super::{
    Cancellation, Cancelled, Event, Observer, ObserverError, Runner, TrialEnd, TrialOutcome,
    TrialPosition,
    gathered::{self, EndedPart, GatheredRequests},
    guarded,
    models::ConnectedModel,
    server_series::{ServerSampling, with_server},
    today,
};
use crate::{
    load::{self, LoadCounters, LoadRun, RequestEnd},
    plan::{Case, Target, Workload},
    report::{TrialResult, loads::LoadRow},
    row::Row,
};

/// What a load's requests brought so far.
pub(super) struct Gathered {
    /// The requests.
    pub(super) all: GatheredRequests,
    /// The requests of each part of a mix.
    parts: Vec<GatheredRequests>,
    /// When each request was handed to the system; of a simulated endpoint only.
    pub(super) handed_over: Vec<Instant>,
    /// The first failure's message.
    failure: Option<String>,
    /// The requests that got no connection, with the first reason.
    pub(super) unconnected: Option<(usize, String)>,
    /// The limits of a search, with what it needs of each request.
    pub(super) searched: Option<(LoadLimits, Vec<LoadRequest>)>,
    /// The cached prompt tokens.
    cache: CacheTally,
    /// Why the load was stopped before its end.
    aborted: Option<AbortReason>,
    /// What was scraped of the server.
    sampled: ServerSamples,
}

/// A load that ran as specified, or why it did not.
pub(super) type LoadOutcome = Result<(Tally, LoadStats), String>;

impl Runner<'_> {
    /// Runs the load; observers get a row for each request, and one for the load.
    pub(super) fn run_load(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        position: TrialPosition,
        prepared: Result<(), RequestError>,
    ) -> Result<TrialEnd, Cancelled> {
        if let Some(search) = &workload.search {
            return self.run_search(case, workload, search, position, prepared);
        }
        let started = today();
        let run = match prepared {
            Ok(()) => self.drive_guarded(case, workload, position, None),
            Err(error) => Err(error.to_string()),
        };
        if self.is_cancelled() {
            if let Ok((gathered, run)) = run {
                self.end_interrupted_load(case, workload, started, (gathered, run));
            }
            return Err(Cancelled);
        }
        Ok(match run {
            Ok((gathered, run)) => self.end_load(case, workload, started, (gathered, run)),
            Err(error) => self.not_run(case, started, &error, None),
        })
    }

    /// Judges a load that has ended.
    fn end_load(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        started: Timestamp,
        (mut gathered, run): (Gathered, LoadRun),
    ) -> TrialEnd {
        let failure = gathered.failure.clone();
        let tally = case.target.metrics_url.as_ref().map(|_| gathered.all.tally.all());
        let model = self.models.active.as_ref();
        let handed_over = std::mem::take(&mut gathered.handed_over);
        let punctuality = model.and_then(|model| model.punctuality(handed_over));
        let kept = self.script_kept(punctuality.as_ref());
        let (stats, tally_or_why, parts) = gathered.measure(&case.target, workload, &run);
        let judged = tally_or_why.and_then(|tally| judge(tally, stats.clone(), workload));
        let judged = judged.and_then(|judged| kept.map(|()| judged));
        let outcome = judged.map_err(|why| self.hidden(&why));
        if let Some(punctuality) = punctuality.filter(|_| outcome.is_ok()) {
            self.summary.add_punctuality(case.group.id, punctuality);
        }
        let row = LoadRow::of(case, workload, stats, outcome.as_ref().err().cloned());
        if let Err(error) = self.observer.event(Event::Load { row: &row }) {
            return self.not_run(case, started, &error_chain(&*error), tally);
        }
        if let Err(error) = self.end_parts(case, workload, parts, &outcome) {
            return self.not_run(case, started, &error_chain(&*error), tally);
        }
        let failed = failed(&outcome, workload, failure.as_deref());
        let stats = outcome.as_ref().ok().map(|(_, stats)| stats);
        let times = (started, today());
        self.trials.push(TrialResult::load(case, times, stats, failed.as_deref()));
        let ended = match (&outcome, failed) {
            (Ok((tally, stats)), None) => Ok(TrialOutcome::Load { workload, tally, stats }),
            (_, failed) => Err(failed.unwrap_or_default()),
        };
        let failure = self.end_trial(case, ended);
        self.summary.add_load(case.group.id, outcome, failure.is_some());
        TrialEnd { failure, tally }
    }

    /// Counts the parts of a mix, whose requests are valid if the `whole` load is. Observers get a row
    /// for each.
    pub(super) fn end_parts(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        parts: Vec<EndedPart>,
        whole: &LoadOutcome,
    ) -> Result<(), ObserverError> {
        for ((part, group), ended) in workload.parts.iter().zip(case.parts.iter()).zip(parts) {
            let (stats, tally) = ended;
            let outcome = match whole {
                Err(shortfall) => Err(shortfall.clone()),
                Ok(_) => {
                    let stats = stats.clone().ok_or("no request of this part has ended");
                    stats.map_err(str::to_owned).and_then(|stats| Ok((tally?, stats)))
                }
            };
            let row = LoadRow::of(case, part, stats, outcome.as_ref().err().cloned());
            self.observer.event(Event::Load { row: &row })?;
            self.summary.add_load(group.id, outcome, false);
        }
        Ok(())
    }

    /// Sums up a load that an interrupt ended. Its finished requests have figures; the load itself was
    /// not the one asked for.
    fn end_interrupted_load(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        started: Timestamp,
        (gathered, run): (Gathered, LoadRun),
    ) {
        let stats = gathered.stats(&case.target, workload, &run);
        let Gathered { all, handed_over, parts, .. } = gathered;
        if all.len() == 0 {
            return;
        }
        let model = self.models.active.as_ref();
        if let Some(punctuality) = model.and_then(|model| model.punctuality(handed_over)) {
            self.summary.add_punctuality(case.group.id, punctuality);
        }
        let why = format!("interrupted after {}", counted(all.len(), "request"));
        let row = LoadRow::of(case, workload, stats.clone(), Some(why.clone()));
        self.tell(Event::Load { row: &row });
        let times = (started, today());
        self.trials.push(TrialResult::load(case, times, stats.as_ref(), None).interrupted(why));
        self.summary.add_interrupted(case.group.id, all.tally.all());
        for (group, part) in case.parts.iter().zip(parts) {
            self.summary.add_interrupted(group.id, part.tally.all());
        }
    }

    /// An error where the simulator did not keep its script; observers get an event if the instrument
    /// is not checked.
    pub(super) fn script_kept(&mut self, punctuality: Option<&Punctuality>) -> Result<(), String> {
        match punctuality.and_then(Punctuality::shortfall) {
            Some(shortfall) if self.options.checks_instrument => Err(shortfall),
            Some(shortfall) => {
                self.tell(Event::SimulatorLate { shortfall: &shortfall });
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts a load that has no figures.
    pub(super) fn not_run(
        &mut self,
        case: &Arc<Case>,
        started: Timestamp,
        message: &str,
        tally: Option<Tally>,
    ) -> TrialEnd {
        let message = self.hidden(message);
        let failure = format!("not offered: {message}");
        self.trials.push(TrialResult::load(case, (started, today()), None, Some(&failure)));
        for group in case.groups() {
            self.summary.add_load(group.id, Err(message.clone()), true);
        }
        TrialEnd { failure: self.end_trial(case, Err(failure)), tally }
    }

    /// Drives the load; after a panic there are no connections, which may be in any state.
    pub(super) fn drive_guarded(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        position: TrialPosition,
        limits: Option<LoadLimits>,
    ) -> Result<(Gathered, LoadRun), String> {
        self.tell(Event::RequestStarted { case, position });
        guarded(|| self.drive(case, workload, limits)).unwrap_or_else(|panic| {
            self.models.active = None;
            Err(panic.message)
        })
    }

    fn drive(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        limits: Option<LoadLimits>,
    ) -> Result<(Gathered, LoadRun), String> {
        let Self { models, observer, options, storage, .. } = self;
        let model = models.active.as_ref().ok_or("no connection")?;
        let mut gathered = Gathered::new(workload, storage, limits);
        let counters = Arc::new(LoadCounters::default());
        let _ = observer.event(Event::LoadStarted { workload, counters: &counters });
        let mut watch = LoadWatch::new(workload.abort, &workload.shape, &workload.until);
        if gathered.searched.is_some() {
            watch = watch.of_search();
        }
        let stop = StopLoad { run: &options.cancellation, load: Cancellation::default() };
        let on_result = |ended: RequestEnd| {
            let tokens = ended.span.tokens;
            gathered.take(case, model, &mut **observer, (ended, counters.in_flight()), &mut watch);
            if gathered.aborted.is_some() {
                stop.load.cancel();
            }
            let (ended, of) = (gathered.all.len(), workload.until.requests);
            let _ = observer.event(Event::LoadProgress { ended, of, tokens });
        };
        let load = (&*case.target, workload, case.run);
        let observed = (&stop as _, &*counters);
        let sampling = ServerSampling::start(model, SamplingTimes::WithEnds, &options.cancellation);
        let run = load::run_load(load, &model.sizer, &model.client, observed, on_result);
        let samples = sampling.end(run.as_ref().ok().and_then(|run| run.started));
        if !samples.is_empty() {
            let _ = observer.event(Event::ServerSeries { case, samples: &samples });
        }
        gathered.sampled = samples;
        Ok((gathered, run.map_err(|error| error.to_string())?))
    }
}

/// Ends a load with the run, or because it can no longer become valid.
struct StopLoad<'a> {
    run: &'a Cancellation,
    load: Cancellation,
}

impl AnswerObserver for StopLoad<'_> {
    fn is_cancelled(&self) -> bool {
        self.run.is_cancelled() || self.load.is_cancelled()
    }
}

impl Gathered {
    fn new(workload: &Workload, storage: &Storage, limits: Option<LoadLimits>) -> Self {
        Self {
            all: GatheredRequests::new(workload, storage),
            parts: GatheredRequests::of_parts(workload, storage),
            searched: limits.map(|limits| (limits, Vec::new())),
            handed_over: Vec::new(),
            failure: None,
            unconnected: None,
            cache: CacheTally::default(),
            aborted: None,
            sampled: ServerSamples::default(),
        }
    }

    /// Returns the statistics of all requests.
    fn stats(&self, target: &Target, workload: &Workload, run: &LoadRun) -> Option<LoadStats> {
        let cache = self.cache(workload);
        let stats = self.all.stats(run.driven.busy).map(|stats| LoadStats { cache, ..stats })?;
        Some(with_server(stats, &self.sampled, (target, workload)))
    }

    fn cache(&self, workload: &Workload) -> Option<CacheShare> {
        workload.trace.as_ref().and_then(|_| self.cache.share())
    }

    /// Returns the statistics of the measured part, its requests or why there are none, and the parts of
    /// a mix.
    pub(super) fn measure(
        self,
        target: &Target,
        workload: &Workload,
        run: &LoadRun,
    ) -> (Option<LoadStats>, Result<Tally, String>, Vec<EndedPart>) {
        let (ended, cache) = (self.all.len(), self.cache(workload));
        let stopped = self.stopped();
        let (stats, measured) = self.all.measure(run.driven.busy, None);
        let stats = stats.map(|stats| LoadStats { cache, ..stats });
        let stats = stats.map(|stats| with_server(stats, &self.sampled, (target, workload)));
        let parts = gathered::measure_parts(self.parts, run.driven.busy, &measured);
        let ran = opened(run).and_then(|()| stopped.map_or(Ok(()), Err));
        let ran = ran.and_then(|()| connected(ended, self.unconnected));
        let tally = ran.and_then(|()| Ok(measured.map_err(|why| why.to_string())?.tally));
        (stats, tally, parts)
    }

    /// Why the load was stopped before its end, if that makes it invalid: failures are a result of a
    /// search.
    fn stopped(&self) -> Option<String> {
        let reason = self.aborted.as_ref()?;
        let of_failures = matches!(reason, AbortReason::Failures { .. });
        if of_failures && self.searched.is_some() {
            return None;
        }
        let first = self.failure.as_ref().filter(|_| of_failures);
        let first = first.map(|first| format!(", the first: {first}")).unwrap_or_default();
        Some(format!("stopped after {}: {reason}{first}", counted(self.all.len(), "request")))
    }

    /// Has observers store the row and the recording of a request that has ended, and keeps its
    /// figures.
    fn take(
        &mut self,
        case: &Arc<Case>,
        model: &ConnectedModel,
        observer: &mut dyn Observer,
        (ended, in_flight): (RequestEnd, usize),
        watch: &mut LoadWatch,
    ) {
        let RequestEnd { prompt, place, mut span, measured_from, since_begun, mut answer } = ended;
        span.is_good = case.group.goodput.are_met(&answer.outcome);
        if let Ok(sample) = &mut answer.outcome {
            sample.is_good = span.is_good;
            self.cache.add(traced_lengths(case, place.request), sample);
        }
        let recording = answer.recording.as_ref();
        if case.target.is_simulated() {
            self.handed_over.extend(recording.and_then(|recording| recording.origin));
        }
        let age = SignedDuration::try_from(since_begun).unwrap_or_default();
        let now = today();
        let started = now.checked_sub(age).unwrap_or(now);
        let (outcome, name) = (answer.outcome, format!("{}::request-{}", case.name, place.request));
        let mut row = Row { case: case.clone(), prompt, started, place: Some(place), outcome };
        let redactor = Some(model.client.redactor());
        let event = Event::Request { row: &row, recording, name: &name, redactor };
        if let Err(error) = observer.event(event) {
            row.outcome = Err(RequestError::new(ErrorKind::NotWritten, error_chain(&*error)));
        }
        self.count(&row, span, measured_from);
        let aborted = watch.add(&ended_request(&row, &span, in_flight));
        self.aborted = self.aborted.take().or(aborted);
    }

    /// Counts a request.
    fn count(&mut self, row: &Row, span: RequestSpan, measured_from: Option<Duration>) {
        if let Err(error) = &row.outcome {
            self.failure.get_or_insert_with(|| format!("{}: {error}", error.kind));
            if is_unconnected(error) {
                self.unconnected.get_or_insert_with(|| (0, error.to_string())).0 += 1;
            }
        }
        let is_measured = measured_from.is_some_and(|from| from <= span.begun);
        if let (true, Some((limits, requests))) = (is_measured, &mut self.searched) {
            requests.push(LoadRequest {
                start: span.scheduled.unwrap_or(span.begun).as_secs_f64(),
                end: span.ended.as_secs_f64(),
                is_valid: row.outcome.is_ok(),
                values: limits.values(&row.outcome, span.is_good),
            });
        }
        gathered::add_to_part(&mut self.parts, row, span, measured_from);
        self.all.add(row, span, measured_from);
    }
}

/// Whether a request found no connection.
fn is_unconnected(error: &RequestError) -> bool {
    matches!(error.kind, ErrorKind::Connect | ErrorKind::ConnectTimeout | ErrorKind::Tls)
}

/// What the decision to stop a load needs of a request.
fn ended_request<'a>(row: &'a Row, span: &RequestSpan, in_flight: usize) -> EndedRequest<'a> {
    let error = row.outcome.as_ref().err().filter(|error| is_unconnected(error));
    EndedRequest {
        is_valid: row.outcome.is_ok(),
        unconnected: error.map(|error| error.message.as_str()),
        lateness: span.scheduled.map(|at| span.begun.saturating_sub(at).as_secs_f64()),
        ttft: row.outcome.as_ref().ok().and_then(|sample| Metric::TTFT.of(sample)),
        in_flight,
    }
}

/// Returns the recorded lengths of the request with this number, from 1, if it replays a trace.
pub(super) fn traced_lengths(case: &Case, request: usize) -> Option<&TracedLengths> {
    let replay = case.task.workload()?.trace.as_ref()?;
    replay.trace.lengths(request.checked_sub(1)?)
}

/// Whether the load ran as specified.
fn judge(tally: Tally, stats: Option<LoadStats>, workload: &Workload) -> LoadOutcome {
    let stats = stats.ok_or("no request has ended")?;
    match shortfall(&tally, &stats, workload) {
        Some(shortfall) => Err(shortfall.to_string()),
        None => Ok((tally, stats)),
    }
}

/// Whether the connections could be opened in advance.
fn opened(run: &LoadRun) -> Result<(), String> {
    match &run.unopened {
        Some((unopened, error)) => {
            Err(format!("{unopened} connections could not be opened: {error}"))
        }
        None => Ok(()),
    }
}

/// Whether the requests, of which so many have ended, were sent.
fn connected(all: usize, unconnected: Option<(usize, String)>) -> Result<(), String> {
    match unconnected {
        Some((requests, first)) if ((all - requests) as f64) < MIN_CONNECTED * all as f64 => {
            Err(format!("{requests} of {all} requests found no connection, the first: {first}"))
        }
        _ => Ok(()),
    }
}

/// Why the load was not the one asked for.
pub(super) fn shortfall(
    tally: &Tally,
    stats: &LoadStats,
    workload: &Workload,
) -> Option<Shortfall> {
    // Without a stream the whole answer is the first that arrives.
    let metric = match tally.count(Metric::TTFT) > 0 {
        true => Metric::TTFT,
        false => Metric::E2E,
    };
    stats.shortfall(&workload.shape, &workload.until, &tally.values(metric))
}

/// Why the trial failed, if it did. Requests may fail where a threshold says how many.
fn failed(outcome: &LoadOutcome, workload: &Workload, failure: Option<&str>) -> Option<String> {
    let (tally, _) = match outcome {
        Ok(reached) => reached,
        Err(shortfall) => return Some(format!("not the load that was asked for: {shortfall}")),
    };
    if tally.failed() == 0 || (tally.valid > 0 && tolerates(workload, tally)) {
        return None;
    }
    let first = failure.map(|message| format!(", the first: {message}")).unwrap_or_default();
    Some(format!("{} of {} requests failed{first}", tally.failed(), tally.finished()))
}

/// Whether thresholds of the workload allow for the failures of one of its runs. A threshold is of all
/// runs together, so a run may have more than its share: as many as the others can make up for, or as
/// chance explains; not most of its requests, unless the threshold allows for that.
fn tolerates(workload: &Workload, tally: &Tally) -> bool {
    let limits = || {
        let of_success = |limit: &&Threshold| *limit.metric == SUCCESS_RATE;
        let at_least = |limit: &&Threshold| limit.holds(f64::INFINITY);
        workload.thresholds.iter().filter(of_success).filter(at_least)
    };
    let share = 100.0 * tally.failed() as f64 / tally.finished() as f64;
    let at_best = 100.0 - share / f64::from(workload.runs.max(1));
    let by_chance =
        |limit: &Threshold| p_of_failures(limit, tally.failed(), tally.finished()) > SIGNIFICANT;
    let holds = |limit: &Threshold| {
        (limit.holds(at_best) || by_chance(limit)) && (share <= 50.0 || limit.holds(100.0 - share))
    };
    limits().next().is_some() && limits().all(holds)
}
