//! A trial that searches for the highest load that holds its limits: one load after the other, each
//! with its rows, until the result is known well enough.

use std::sync::Arc;

use jiff::Timestamp;
use llm_stream_core::{
    capacity::{
        CapacityFigure, FinishedSearch, LoadRequest, NextLoad, Objective, Overload, Search,
        SearchFinding, SearchPoint,
    },
    interval::Interval,
    load_stats::{LoadStats, Shortfall},
    recording::RequestError,
    schedule::{ArrivalProcess, Shape, Until},
    summary::Tally,
};

use super::{
    Cancelled, Event, Runner, TrialEnd, TrialOutcome, TrialPosition, today,
    workload::{Gathered, shortfall},
};
use crate::{
    load::LoadRun,
    plan::{Case, Task, Workload},
    report::{TrialResult, loads::LoadRow, search},
};

/// The requests of a closed loop for each of those at a time: fewer would mostly be its start and its
/// end.
const LEAST_ROUNDS: usize = 4;

/// A load that ran.
struct MeasuredLoad {
    tally: Tally,
    stats: LoadStats,
    requests: Vec<LoadRequest>,
    /// How the client or the simulated endpoint was late, which adds to the figures.
    late: Option<String>,
}

/// A load that holds, with its requests.
struct HeldLoad {
    /// The name of the load.
    name: String,
    is_whole: bool,
    rate: f64,
    tally: Tally,
    stats: LoadStats,
}

/// A search in progress.
struct Searching {
    search: Search,
    /// The load whose requests are reported for the search: the highest whole load that holds or,
    /// without one, the highest part of a load.
    held: Option<HeldLoad>,
    /// All requests, if the server's metrics are compared with them.
    all: Option<Tally>,
    /// How many loads in a row had no valid answer.
    silent: usize,
    /// Why the load measured last is overloaded, if it is.
    last: Option<Overload>,
}

/// The loads in a row without a valid answer after which the server counts as gone.
const MAX_SILENT: usize = 2;

impl Runner<'_> {
    /// Runs the search of `workload`; observers get a row for each request and one for each load.
    pub(super) fn run_search(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        (objective, most): &(Objective, usize),
        position: TrialPosition,
        prepared: Result<(), RequestError>,
    ) -> Result<TrialEnd, Cancelled> {
        let started = today();
        if let Err(error) = prepared {
            return Ok(self.not_run(case, started, &error.to_string(), None));
        }
        let all = case.target.metrics_url.as_ref().map(|_| Tally::new(&self.storage));
        let search = Search::new(objective.clone(), *most);
        let mut searching = Searching { search, held: None, all, silent: 0, last: None };
        while let Some(next) = searching.search.next() {
            let load = Arc::new(load(workload, next, searching.search.points()));
            let of = Arc::new(case.under(&load));
            if let Err(Cancelled) = self.measure((&of, &load, next), position, &mut searching) {
                let finished = FinishedSearch { is_complete: false, ..searching.finished() };
                self.summary.add_search(case.group.id, finished);
                return Err(Cancelled);
            }
            if searching.silent >= MAX_SILENT {
                return Ok(self.end_silent(case, started, searching));
            }
        }
        Ok(self.end_search(case, workload, started, searching))
    }

    /// Measures one load of the search.
    fn measure(
        &mut self,
        (case, workload, next): (&Arc<Case>, &Workload, NextLoad),
        position: TrialPosition,
        searching: &mut Searching,
    ) -> Result<(), Cancelled> {
        let limits = searching.search.objective().limits.clone();
        let run = self.drive_guarded(case, workload, position, Some(limits));
        self.check_cancelled()?;
        let point = match run {
            Err(error) => searching.search.add_not_reached(next.load, self.hidden(&error)),
            Ok((gathered, run)) => {
                let stats = gathered.all.stats(run.driven.busy);
                let has_answer = stats.as_ref().is_some_and(|stats| stats.valid > 0);
                searching.silent = if has_answer { 0 } else { searching.silent + 1 };
                let (stats, measured) = self.judge_load((case, workload), gathered, &run);
                let outcome = measured.map_err(|why| self.hidden(&why));
                self.tell_load(case, workload, stats, &outcome);
                searching.take((next, &workload.name), outcome)
            }
        };
        let point = point.clone();
        searching.last.clone_from(&point.overload);
        let objective = searching.search.objective();
        self.tell(Event::Searched { objective, point: &point });
        Ok(())
    }

    /// Judges a load, whose shortfall does not fail the search.
    fn judge_load(
        &mut self,
        (case, workload): (&Arc<Case>, &Workload),
        mut gathered: Gathered,
        run: &LoadRun,
    ) -> (Option<LoadStats>, Result<MeasuredLoad, String>) {
        let handed_over = std::mem::take(&mut gathered.handed_over);
        let model = self.models.active.as_ref();
        let punctuality = model.and_then(|model| model.punctuality(handed_over));
        let late = self.script_kept(punctuality.as_ref()).err();
        let requests = gathered.searched.as_mut().map(|(_, requests)| std::mem::take(requests));
        let requests = requests.unwrap_or_default();
        let (stats, tally, _) = gathered.measure(&case.target, workload, run);
        let reached = tally.and_then(|tally| {
            let stats = stats.clone().ok_or("no request has ended")?;
            match shortfall(&tally, &stats, workload) {
                Some(shortfall @ Shortfall::Late { .. }) => {
                    Ok((tally, stats, Some(shortfall.to_string())))
                }
                Some(shortfall) => Err(shortfall.to_string()),
                None => Ok((tally, stats, late)),
            }
        });
        if let (Ok(_), Some(punctuality)) = (&reached, punctuality) {
            self.summary.add_punctuality(case.group.id, punctuality);
        }
        let measured =
            reached.map(|(tally, stats, late)| MeasuredLoad { tally, stats, requests, late });
        (stats, measured)
    }

    /// Gives observers the row of a load.
    fn tell_load(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        stats: Option<LoadStats>,
        outcome: &Result<MeasuredLoad, String>,
    ) {
        let shortfall = match outcome {
            Ok(measured) => measured.late.clone(),
            Err(why) => Some(why.clone()),
        };
        let row = LoadRow::of(case, workload, stats, shortfall);
        self.tell(Event::Load { row: &row });
    }

    /// Ends a search whose server is gone: what it found until then may be anything.
    fn end_silent(
        &mut self,
        case: &Arc<Case>,
        started: Timestamp,
        searching: Searching,
    ) -> TrialEnd {
        let why = searching.last.as_ref().map(search::overload).unwrap_or_default();
        let message = format!(
            "the last {MAX_SILENT} loads had no valid answer, so the server is gone: {why}"
        );
        let finished = FinishedSearch { is_complete: false, ..searching.finished() };
        self.summary.add_search(case.group.id, finished);
        self.not_run(case, started, &message, searching.all)
    }

    fn end_search(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        started: Timestamp,
        searching: Searching,
    ) -> TrialEnd {
        let finished = searching.finished();
        let Searching { search, held, all, .. } = searching;
        let figure = figure(search.objective(), &finished.result.found);
        let reached = held.zip(figure).map(|(HeldLoad { tally, stats, .. }, figure)| {
            (tally, LoadStats { capacity: Some(figure), ..stats })
        });
        let reached = reached.ok_or_else(|| search::none_holds(&finished));
        let times = (started, today());
        let stats = reached.as_ref().ok().map(|(_, stats)| stats);
        let failed = reached.as_ref().err().cloned();
        self.trials.push(TrialResult::load(case, times, stats, failed.as_deref()));
        let outcome = match &reached {
            Ok((tally, stats)) => {
                Ok(TrialOutcome::Search { workload, tally, stats, finished: &finished })
            }
            Err(message) => Err(message.clone()),
        };
        let failure = self.end_trial(case, outcome);
        self.summary.add_search(case.group.id, finished);
        self.summary.add_load(case.group.id, reached, failure.is_some());
        TrialEnd { failure, tally: all }
    }
}

impl Searching {
    fn finished(&self) -> FinishedSearch {
        let shown = self.held.as_ref().map(|held| held.name.clone());
        FinishedSearch { shown, ..FinishedSearch::of(&self.search) }
    }

    /// Takes the requests of a load, and keeps them if they are to be reported for the search.
    fn take(
        &mut self,
        (next, name): (NextLoad, &str),
        outcome: Result<MeasuredLoad, String>,
    ) -> &SearchPoint {
        let MeasuredLoad { tally, stats, requests, late } = match outcome {
            Ok(measured) => measured,
            Err(shortfall) => return self.search.add_not_reached(next.load, shortfall),
        };
        if let Some(all) = &mut self.all {
            all.merge(tally.clone());
        }
        let point = match late {
            None => self.search.add(next, requests),
            Some(why) => self.search.add_late(next, requests, why),
        };
        let (is_whole, rate) = (point.is_whole, point.rate());
        let is_better = |held: &HeldLoad| (is_whole, rate) > (held.is_whole, held.rate);
        if point.looks_held() && self.held.as_ref().is_none_or(is_better) {
            let name = name.to_owned();
            self.held = Some(HeldLoad { name, is_whole, rate, tally, stats });
        }
        point
    }
}

/// The result of a search as a figure; `None` if no load holds.
fn figure(objective: &Objective, found: &SearchFinding) -> Option<CapacityFigure> {
    let is_concurrency = objective.is_concurrency;
    match *found {
        SearchFinding::Load { value, interval } => {
            Some(CapacityFigure { is_concurrency, value, interval })
        }
        SearchFinding::AtLeast(value) => {
            let interval = Interval { low: value, high: f64::INFINITY };
            Some(CapacityFigure { is_concurrency, value, interval })
        }
        SearchFinding::Below(_) => None,
    }
}

/// The next load of the search of `workload`, after those at `points`. A load that is measured again
/// has its number in its name.
fn load(
    workload: &Workload,
    NextLoad { load, part }: NextLoad,
    points: &[SearchPoint],
) -> Workload {
    let suffix = |load: f64| match workload.shape {
        Shape::Closed { .. } => format!("@c{load}"),
        Shape::Open { .. } => format!("@r{}", search::decimal(load)),
    };
    let shape = match workload.shape {
        Shape::Closed { .. } => Shape::Closed { concurrency: load as usize },
        Shape::Open { arrivals, max_in_flight } => {
            // Each load has its own arrivals.
            let seed = arrivals.seed.wrapping_add((points.len() as u64) << 16);
            Shape::Open { arrivals: ArrivalProcess { rate: load, seed, ..arrivals }, max_in_flight }
        }
    };
    let earlier = points.iter().filter(|point| suffix(point.load) == suffix(load)).count();
    let suffix = match earlier {
        0 => suffix(load),
        _ => format!("{}-{}", suffix(load), earlier + 1),
    };
    let least = match shape {
        Shape::Closed { concurrency } => LEAST_ROUNDS * concurrency,
        Shape::Open { .. } => 1,
    };
    let until = Until {
        requests: workload
            .until
            .requests
            .map(|all| ((all as f64 * part).ceil() as usize).max(least)),
        duration: workload.until.duration.map(|duration| duration.mul_f64(part)),
    };
    Workload {
        index: workload.index,
        name: format!("{}{suffix}", workload.name),
        written: format!("{}{suffix}", workload.written),
        shape,
        search: None,
        until,
        phases: workload.phases,
        abort: workload.abort,
        prompts: workload.prompts.clone(),
        runs: 1,
        thresholds: Vec::new(),
        goodput: workload.goodput.clone(),
        precision: Vec::new(),
        trace: None,
        seed: workload.seed,
        think: workload.think,
        parts: workload.parts.clone(),
        share: 1.0,
    }
}

impl Case {
    /// The same run under a load of its search.
    fn under(&self, load: &Arc<Workload>) -> Self {
        Self::new((&self.group, &self.parts), &self.target, &Task::Workload(load.clone()), self.run)
    }
}
