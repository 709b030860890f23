//! A trial that searches for the highest load that holds its limits: one load after the other, each
//! with its rows, until the result is known well enough.

use std::sync::Arc;

use jiff::Timestamp;
use llm_stream_core::{
    capacity::{
        CapacityFigure, FinishedSearch, Found, LoadRequest, NextLoad, Objective, Search,
        SearchPoint,
    },
    interval::Interval,
    load_stats::LoadStats,
    recording::RequestError,
    schedule::{ArrivalProcess, Shape, Until},
    summary::Tally,
};

use super::{
    Cancelled, Event, Runner, TrialEnd, TrialOutcome, TrialPosition, today,
    workload::{Gathered, judge},
};
use crate::{
    load::LoadRun,
    plan::{Case, Task, Workload},
    report::{TrialResult, loads::LoadRow, search},
};

/// The requests of a closed loop for each of those at a time: fewer would mostly be its start and its
/// end.
const LEAST_ROUNDS: usize = 4;

/// A search in progress.
struct Searching {
    search: Search,
    /// The highest load that holds so far, with its requests.
    held: Option<(f64, Tally, LoadStats)>,
    /// All requests, if the server's metrics are compared with them.
    all: Option<Tally>,
}

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
        let mut searching = Searching { search, held: None, all };
        while let Some(next) = searching.search.next() {
            let nth = searching.search.points().len() as u64;
            let load = Arc::new(load(workload, next, nth));
            let of = Arc::new(case.under(&load));
            self.measure(&of, &load, position, &mut searching)?;
        }
        Ok(self.end_search(case, workload, started, searching))
    }

    /// Measures one load of the search.
    fn measure(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        position: TrialPosition,
        searching: &mut Searching,
    ) -> Result<(), Cancelled> {
        let asked = asked(workload);
        let limits = searching.search.objective().limits.clone();
        let run = self.drive_guarded(case, workload, position, Some(limits));
        self.check_cancelled()?;
        let point = match run {
            Err(error) => searching.search.add_not_reached(asked, self.hidden(&error)),
            Ok((gathered, run)) => {
                let (outcome, stats, requests) = self.judge_load(case, workload, gathered, &run);
                let row = LoadRow::of(case, workload, stats, &outcome);
                self.tell(Event::Load { row: &row });
                searching.take(asked, outcome, requests)
            }
        };
        let (point, objective) = (point.clone(), searching.search.objective());
        self.tell(Event::Searched { objective, point: &point });
        Ok(())
    }

    /// Judges a load, whose shortfall does not fail the search.
    fn judge_load(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        mut gathered: Gathered,
        run: &LoadRun,
    ) -> (Result<(Tally, LoadStats), String>, Option<LoadStats>, Vec<LoadRequest>) {
        let stats = LoadStats::of(&gathered.spans, run.driven.busy);
        let punctuality = self
            .models
            .active
            .as_ref()
            .and_then(|model| model.punctuality(std::mem::take(&mut gathered.handed_over)));
        let kept = self.script_kept(punctuality.as_ref());
        let unconnected = gathered.unconnected.take();
        let requests = gathered.searched.take().map(|(_, requests)| requests).unwrap_or_default();
        let outcome = judge((gathered.tally, unconnected), stats.clone(), run, workload);
        let outcome = outcome.and_then(|judged| kept.map(|()| judged));
        if let Some(punctuality) = punctuality.filter(|_| outcome.is_ok()) {
            self.summary.add_punctuality(case.group.id, punctuality);
        }
        (outcome.map_err(|why| self.hidden(&why)), stats, requests)
    }

    fn end_search(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        started: Timestamp,
        searching: Searching,
    ) -> TrialEnd {
        let Searching { search, held, all } = searching;
        let finished = FinishedSearch::of(&search);
        let figure = figure(search.objective(), &finished.result.found);
        let reached = held.zip(figure).map(|((_, tally, stats), figure)| {
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
    /// Takes the requests of a load; keeps those of the highest one that holds.
    fn take(
        &mut self,
        asked: f64,
        outcome: Result<(Tally, LoadStats), String>,
        requests: Vec<LoadRequest>,
    ) -> &SearchPoint {
        let (tally, stats) = match outcome {
            Ok(reached) => reached,
            Err(shortfall) => return self.search.add_not_reached(asked, shortfall),
        };
        if let Some(all) = &mut self.all {
            all.merge(tally.clone());
        }
        let point = self.search.add(asked, requests);
        let is_higher = self.held.as_ref().is_none_or(|(load, ..)| point.rate() > *load);
        if point.looks_held() && is_higher {
            self.held = Some((point.rate(), tally, stats));
        }
        point
    }
}

/// The load that a workload asks for.
fn asked(workload: &Workload) -> f64 {
    match workload.shape {
        Shape::Closed { concurrency } => concurrency as f64,
        Shape::Open { arrivals, .. } => arrivals.rate,
    }
}

/// The result of a search as a figure; `None` if no load holds.
fn figure(objective: &Objective, found: &Found) -> Option<CapacityFigure> {
    let is_concurrency = objective.is_concurrency;
    match *found {
        Found::Load { value, interval } => Some(CapacityFigure { is_concurrency, value, interval }),
        Found::AtLeast(value) => {
            let interval = Interval { low: value, high: f64::INFINITY };
            Some(CapacityFigure { is_concurrency, value, interval })
        }
        Found::Below(_) => None,
    }
}

/// The `nth` load of the search of `workload`.
fn load(workload: &Workload, NextLoad { load, part }: NextLoad, nth: u64) -> Workload {
    let (shape, suffix) = match workload.shape {
        Shape::Closed { .. } => (Shape::Closed { concurrency: load as usize }, format!("@c{load}")),
        Shape::Open { arrivals, max_in_flight } => {
            // Each load has its own arrivals.
            let seed = arrivals.seed.wrapping_add(nth << 16);
            let arrivals = ArrivalProcess { rate: load, seed, ..arrivals };
            (Shape::Open { arrivals, max_in_flight }, format!("@r{}", search::decimal(load)))
        }
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
