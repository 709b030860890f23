//! A trial that is a load: many requests, a row each, and what they reached together.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::Instant,
};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Measurement;
use llm_stream_core::{
    load_stats::{LoadStats, Span},
    metric::{Metric, SUCCESS_RATE},
    punctuality::Punctuality,
    recording::{ErrorKind, RequestError},
    statistic::Statistic,
    summary::Tally,
    text::counted,
    threshold::Threshold,
};

use super::{Live, NO_TPOT, Recordings, Session, Stopped, TrialPosition, nanoseconds};
use crate::{
    harness::output::{Results, today},
    load::{self, LoadRun, RequestEnd},
    plan::{Case, Workload},
    report::{TrialResult, loads::LoadRow},
    row::Row,
};

/// What a load's requests brought so far.
#[derive(Default)]
struct Gathered {
    tally: Tally,
    spans: Vec<Span>,
    /// When each request was handed to the system.
    handed_over: Vec<Instant>,
    /// The first failure's message.
    failure: Option<String>,
    /// The requests that got no connection, with the first reason.
    unconnected: Option<(usize, String)>,
}

/// Least part of a load's requests that must have had a connection: without one, a request was not
/// offered.
const LEAST_CONNECTED: f64 = 0.95;

/// A load that was offered as it was asked for, or why it was not.
type Outcome = Result<(Tally, LoadStats), String>;

impl Session {
    /// Offers the load, writes a row for each request, and says how it went.
    pub(super) fn run_load(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        place: TrialPosition,
        prepared: Result<(), RequestError>,
    ) -> Result<Measurement, Stopped> {
        let started = today();
        let offered = match prepared {
            Ok(()) => self.offer_guarded(case, workload, place),
            Err(error) => Err(error.into()),
        };
        if self.interrupt.came() {
            return Err(Stopped::Interrupted);
        }
        let (mut gathered, offered) = match offered {
            Ok(offered) => offered,
            Err(error) => return Err(self.not_offered(case, started, format!("{error:#}"))),
        };
        let failure = gathered.failure.clone();
        let reached = LoadStats::of(&gathered.spans, offered.driven.busy);
        self.measured = case.target.metrics_url.as_ref().map(|_| gathered.tally.clone());
        let punctuality = self.punctuality(gathered.handed_over);
        let kept = self.kept(punctuality.as_ref());
        let unconnected = gathered.unconnected.take();
        let outcome = judge((gathered.tally, unconnected), reached.clone(), &offered, workload);
        let outcome = outcome.and_then(|judged| kept.map(|()| judged));
        let outcome = outcome.map_err(|why| self.hidden(&why));
        if let Some(punctuality) = punctuality.filter(|_| outcome.is_ok()) {
            self.summary.add_punctuality(case.group.id, punctuality);
        }
        if let Err(error) = self.results.write_load(&LoadRow::of(case, workload, reached, &outcome))
        {
            let message = format!("failed to write the results: {error}");
            return Err(self.not_offered(case, started, message));
        }
        let failed = failed(&outcome, workload, failure.as_deref());
        let told = match &outcome {
            Ok((tally, reached)) => (success(tally, reached, workload), measurement(tally)),
            Err(_) => (String::new(), NO_TPOT),
        };
        let reached = outcome.as_ref().ok().map(|(_, reached)| reached);
        let times = (started, today());
        self.trials.push(TrialResult::load(case, times, reached, failed.as_deref()));
        self.summary.add_load(case.group.id, outcome, failed.is_some());
        match failed {
            Some(message) => Err(self.failed(message)),
            None => {
                self.terminal.err(&told.0);
                Ok(told.1)
            }
        }
    }

    /// An error where the simulated endpoint did not keep its script; a warning if
    /// `--no-calibration`.
    fn kept(&self, punctuality: Option<&Punctuality>) -> Result<(), String> {
        match punctuality.and_then(Punctuality::shortfall) {
            Some(shortfall) if self.checks_instrument => Err(shortfall),
            Some(shortfall) => {
                self.terminal.err(&format!("      WARNING: {shortfall}\n"));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts a load of which there is nothing.
    fn not_offered(&mut self, case: &Arc<Case>, started: Timestamp, message: String) -> Stopped {
        let message = self.hidden(&message);
        let failure = format!("not offered: {message}");
        self.trials.push(TrialResult::load(case, (started, today()), None, Some(&failure)));
        self.summary.add_load(case.group.id, Err(message), true);
        self.failed(failure)
    }

    /// Offers the load; a panic, which is a defect of ours, is a failed trial like any other.
    fn offer_guarded(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        place: TrialPosition,
    ) -> anyhow::Result<(Gathered, LoadRun)> {
        let offered = panic::catch_unwind(AssertUnwindSafe(|| self.gather(case, workload, place)));
        offered.unwrap_or_else(|_| {
            // Its connections may be in any state.
            self.live = None;
            anyhow::bail!("a defect of llm-stream-bench: see the panic above")
        })
    }

    fn gather(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        place: TrialPosition,
    ) -> anyhow::Result<(Gathered, LoadRun)> {
        if let Some(progress) = &self.progress {
            let TrialPosition { task, tasks, run, runs, .. } = place;
            let name = &case.target.name;
            let heading = format!("{name}  workload {task}/{tasks}  run {run}/{runs}");
            progress.begin(heading, case, place);
        }
        let Self { live, results, recordings, progress, interrupt, .. } = self;
        let live = live.as_ref().context("no connection")?;
        let follower = super::Follower { progress: None, interrupt };
        let mut gathered = Gathered::default();
        let take = |ended: RequestEnd| {
            gathered.take(case, live, (results, recordings), ended);
            if let Some(progress) = progress {
                let Gathered { spans, .. } = &gathered;
                let tokens = spans.last().and_then(|span| span.tokens);
                progress.counted(spans.len(), workload.until.requests, tokens);
            }
        };
        let load = (&*case.target, workload, case.run);
        let offered = load::run_load(load, &live.lengths, &live.client, &follower, take)?;
        Ok((gathered, offered))
    }
}

impl Gathered {
    /// Writes the row and the recording of a request that has ended, and keeps its figures.
    fn take(
        &mut self,
        case: &Arc<Case>,
        live: &Live,
        (results, recordings): (&mut Results, &mut Recordings),
        ended: RequestEnd,
    ) {
        let RequestEnd { prompt, place, span, since_begun, answer } = ended;
        self.handed_over.extend(answer.recording.as_ref().and_then(|recording| recording.origin));
        let secrets = live.client.secrets();
        let outcome = answer.outcome;
        let age = SignedDuration::try_from(since_begun).unwrap_or_default();
        let now = today();
        let started = now.checked_sub(age).unwrap_or(now);
        let mut row = Row { case: case.clone(), prompt, started, place: Some(place), outcome };
        let written = results.write(&row).context("failed to write the row");
        let name = format!("{}::request-{}", case.name, place.request);
        let recorded =
            answer.recording.map_or(Ok(()), |recording| recordings.keep(&name, recording, secrets));
        if let Err(error) = written.and(recorded) {
            row.outcome = Err(RequestError::new(ErrorKind::NotWritten, format!("{error:#}")));
        }
        if let Err(error) = &row.outcome {
            self.failure.get_or_insert_with(|| format!("{}: {error}", error.kind));
            if matches!(error.kind, ErrorKind::Connect | ErrorKind::ConnectTimeout | ErrorKind::Tls)
            {
                self.unconnected.get_or_insert_with(|| (0, error.to_string())).0 += 1;
            }
        }
        self.tally.add(&row.prompt, case.run, &row.outcome);
        self.spans.push(span);
    }
}

/// Whether what was offered is the load that was asked for.
fn judge(
    (tally, unconnected): (Tally, Option<(usize, String)>),
    reached: Option<LoadStats>,
    offered: &LoadRun,
    workload: &Workload,
) -> Outcome {
    if let Some((unopened, error)) = &offered.unopened {
        return Err(format!("{unopened} connections could not be opened: {error}"));
    }
    let reached = reached.ok_or("no request has ended")?;
    let all = tally.finished();
    if let Some((requests, first)) = unconnected
        && ((all - requests) as f64) < LEAST_CONNECTED * all as f64
    {
        return Err(format!(
            "{requests} of {all} requests found no connection, the first: {first}"
        ));
    }
    match reached.shortfall(&workload.shape, &workload.until) {
        Some(shortfall) => Err(shortfall),
        None => Ok((tally, reached)),
    }
}

/// Why the trial failed, if it did. Requests may fail where a threshold says how many.
fn failed(outcome: &Outcome, workload: &Workload, failure: Option<&str>) -> Option<String> {
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
/// runs together, so a run may have more than its share; not so many that the others could not make up
/// for them, and not most of its requests, unless the threshold allows for that.
fn tolerates(workload: &Workload, tally: &Tally) -> bool {
    let limits = || {
        let of_success = |limit: &&Threshold| limit.metric.name == SUCCESS_RATE.name;
        let at_least = |limit: &&Threshold| limit.holds(f64::INFINITY);
        workload.thresholds.iter().filter(of_success).filter(at_least)
    };
    let share = 100.0 * tally.failed() as f64 / tally.finished() as f64;
    let at_best = 100.0 - share / f64::from(workload.runs.max(1));
    let holds =
        |limit: &Threshold| limit.holds(at_best) && (share <= 50.0 || limit.holds(100.0 - share));
    limits().next().is_some() && limits().all(holds)
}

fn success(tally: &Tally, reached: &LoadStats, workload: &Workload) -> String {
    let LoadStats { requests, valid, request_throughput, output_throughput, concurrency, .. } =
        reached;
    let kinds: Vec<_> = tally.failures.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    let done = match tally.failed() {
        0 => format!("Success: {}", counted(*requests, "request")),
        failed => {
            let kinds = kinds.join(", ");
            format!(
                "Finished: {valid} of {requests} requests succeeded, {failed} failed ({kinds})"
            )
        }
    };
    let offered = match (workload.shape.asked_rate(), reached.request_rate) {
        (Some(asked), Some(rate)) => format!("{rate:.2} requests/sec started of {asked}"),
        _ => format!("{concurrency:.1} under way"),
    };
    let output = output_throughput.map_or_else(|| "n/a".into(), |speed| format!("{speed:.1}"));
    format!(
        "      {done}, {output} output tokens/sec, \
         {request_throughput:.2} requests/sec, {offered}\n"
    )
}

/// libtest's figure: the mean time per output token, and its spread over the requests.
pub(super) fn measurement(tally: &Tally) -> Measurement {
    let Some(metric) = Metric::named("tpot") else { return NO_TPOT };
    let values = tally.values(metric);
    let Ok(mean) = Statistic::Mean.of(values) else { return NO_TPOT };
    let spread = Statistic::Sd.of(values).unwrap_or_default();
    Measurement { avg: nanoseconds(mean), variance: nanoseconds(spread) }
}
