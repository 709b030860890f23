//! The search for the highest load that holds its limits. Pure: it says which load to measure next,
//! and what the measured ones show.
//!
//! 1. **Bracket**: from the first load upwards, eight times as much each time, until the figures miss
//!    a limit.
//! 2. **Narrow**: between the highest load whose figures hold and the lowest one above it whose
//!    figures miss: at the throughput that an overloaded server reached, then where the line through
//!    both figures crosses the limit.
//! 3. **Refine**: loads around the estimate, until its interval is as narrow as asked.
//!
//! The estimate is where a curve through the loads near it crosses the limit (inverse regression;
//! Fieller 1954 for the interval): in an open loop a logistic curve of the share of requests that miss
//! a percentile, otherwise a straight line through the figures on logarithmic scales. The unit is the
//! load, not the request, because requests of a load wait for each other. The rate of an open loop is
//! measured from its arrivals: a thousand random arrivals are 3 % more or fewer than intended, and a
//! server near its capacity turns that into far more of latency. No estimate is above the most
//! requests per second that the server completed, since what it cannot complete piles up, however
//! short a load is.
//!
//! Where the limits are missed without a figure that could be followed, as with failures, the search
//! halves, and the interval is the range between the neighbouring loads that hold and that miss.
//! A load below the result that missed makes the curve not monotone, which the result says.

mod fit;
mod point;

use std::fmt;

use self::fit::Fit;
pub use self::fit::MissedShare;
pub use self::point::{LimitResult, LimitState, LoadLimits, LoadRequest, Overload, SearchPoint};
use crate::interval::Interval;

/// The factor between loads while no load has missed its limits.
const STEP: f64 = 8.0;

/// The most loads of a search.
pub const MAX_LOADS: usize = 12;

/// An overloaded server completes about what it can sustain; the next load is this share of it.
const OF_THROUGHPUT: f64 = 0.95;

/// The ratio of the bracket below which loads are chosen by the line through the figures.
const NARROW: f64 = 1.25;

/// The logarithm of the largest distance of a load from the estimate with which it counts.
const NEAR: f64 = 0.3;

/// How far the throughput of a short load may be from that of a long one.
const THROUGHPUT_ERROR: f64 = 0.02;

/// The part of a load that is enough while the result is far away.
const FAR_PART: f64 = 0.25;

/// The share of the arrivals above which a server keeps up with them.
const KEEPS_UP: f64 = 0.97;

/// How far below the throughput of the server a queue can be that a load does not show.
const HIDDEN: f64 = 0.06;

/// What a search is for.
#[derive(Debug, Clone)]
pub struct Objective {
    /// Whether loads are numbers of requests at a time; otherwise they are requests per second.
    pub is_concurrency: bool,
    /// The lowest load.
    pub from: f64,
    /// The highest load.
    pub to: f64,
    /// The limits that hold.
    pub limits: LoadLimits,
    /// The asked precision of the result, relative.
    pub precision: f64,
}

/// The next load of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NextLoad {
    /// The load: requests per second, or at a time.
    pub load: f64,
    /// The part of a whole load's requests or duration that it takes.
    pub part: f64,
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_concurrency, from, to, limits, .. } = self;
        match is_concurrency {
            true => write!(f, "most at a time, {from} to {to}, with {limits}"),
            false => write!(f, "highest rate, {from}/s to {to}/s, with {limits}"),
        }
    }
}

/// A search in progress.
#[derive(Debug, Clone)]
pub struct Search {
    objective: Objective,
    /// In ascending order of the load.
    points: Vec<SearchPoint>,
    most: usize,
}

/// The figure of a search among those of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CapacityFigure {
    /// Whether it is a number of requests at a time; otherwise it is requests per second.
    pub is_concurrency: bool,
    /// The highest load that holds.
    pub value: f64,
    /// Its interval.
    pub interval: Interval,
}

/// The result of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// The highest load that holds, or why there is none.
    pub found: SearchFinding,
    /// A load below the result that missed its limits beyond chance.
    pub not_monotone: Option<f64>,
    /// Whether the interval is as narrow as asked.
    pub is_precise: bool,
}

/// A search that has ended.
#[derive(Debug, Clone)]
pub struct FinishedSearch {
    /// What it was for.
    pub objective: Objective,
    /// Its result.
    pub result: SearchResult,
    /// The loads, in ascending order.
    pub points: Vec<SearchPoint>,
    /// Whether it came to its end. Otherwise the result is that of its first loads, and says little.
    pub is_complete: bool,
    /// The name of the load whose requests stand for the search.
    pub shown: Option<String>,
}

impl FinishedSearch {
    /// Returns what a search found.
    pub fn of(search: &Search) -> Self {
        let (objective, points) = (search.objective.clone(), search.points.clone());
        Self { objective, result: search.result(), points, is_complete: true, shown: None }
    }
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SearchFinding {
    /// The highest load that holds, with its 95 % interval.
    Load {
        /// The estimate.
        value: f64,
        /// Its interval.
        interval: Interval,
    },
    /// The highest load that was allowed holds.
    AtLeast(f64),
    /// The lowest load that was allowed misses.
    Below(f64),
}

impl Search {
    /// Creates a search with at most `most` loads.
    pub fn new(objective: Objective, most: usize) -> Self {
        Self { objective, points: Vec::new(), most }
    }

    /// Returns the objective.
    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// Returns the loads that were measured, in ascending order.
    pub fn points(&self) -> &[SearchPoint] {
        &self.points
    }

    /// Adds a load that was measured; returns its results.
    pub fn add(&mut self, next: NextLoad, requests: Vec<LoadRequest>) -> &SearchPoint {
        let point = self.point(next, requests);
        self.insert(point)
    }

    fn point(&self, NextLoad { load, part }: NextLoad, requests: Vec<LoadRequest>) -> SearchPoint {
        let Objective { limits, is_concurrency, .. } = &self.objective;
        let point = SearchPoint::of(load, requests, limits, !is_concurrency);
        SearchPoint { is_whole: part >= 1.0, ..point }
    }

    /// Adds a load whose requests the client sent late, and how. That makes figures larger only: a
    /// load that holds in spite of it holds.
    pub fn add_late(
        &mut self,
        next: NextLoad,
        requests: Vec<LoadRequest>,
        why: String,
    ) -> &SearchPoint {
        let mut point = self.point(next, requests);
        // Requests that fail do so however late they were sent.
        let fails = matches!(point.overload, Some(Overload::Failures(_)));
        if !point.looks_held() && !fails {
            point.overload = Some(Overload::NotReached(why));
        }
        self.insert(point)
    }

    /// Adds a load that was not reached; returns its results.
    pub fn add_not_reached(&mut self, load: f64, why: String) -> &SearchPoint {
        self.insert(SearchPoint::not_reached(load, why))
    }

    fn insert(&mut self, point: SearchPoint) -> &SearchPoint {
        let at = self.points.partition_point(|other| other.rate() <= point.rate());
        self.points.insert(at, point);
        &self.points[at]
    }

    /// Returns the next load to measure; `None` if the search has ended.
    pub fn next(&self) -> Option<NextLoad> {
        let load = self.next_load()?;
        // The highest load is the result if it holds.
        let is_near = load >= self.objective.to
            || match self.bracket() {
                Bracket::Both(held, missed) => {
                    missed.rate() <= held.rate() * NARROW.powi(3) || self.may_hide_a_queue(load)
                }
                _ => false,
            };
        Some(NextLoad { load, part: if is_near { 1.0 } else { FAR_PART } })
    }

    /// Whether a load is so near to the throughput of the server that a part of it can end before its
    /// queue has grown.
    fn may_hide_a_queue(&self, load: f64) -> bool {
        self.most_completed().is_some_and(|most| load > most / NARROW)
    }

    /// Whether the load counts. A quarter of a load can hold near the throughput of the server because
    /// it ends too early, so it does not count there.
    fn counts(&self, point: &SearchPoint) -> bool {
        point.is_whole || !point.looks_held() || !self.may_hide_a_queue(point.rate())
    }

    /// The most requests per second that an overloaded server completed.
    fn most_completed(&self) -> Option<f64> {
        let completed = |point: &SearchPoint| {
            let keeps_up = |completed: &f64| *completed > KEEPS_UP * point.rate();
            point.completed.filter(|completed| !keeps_up(completed))
        };
        let missed = self.points.iter().filter(|point| !point.looks_held());
        missed.filter_map(completed).reduce(f64::max)
    }

    fn next_load(&self) -> Option<f64> {
        if self.points.len() >= self.most {
            return None;
        }
        match self.bracket() {
            Bracket::Nothing => Some(self.objective.from),
            Bracket::Missed(point) => self.above_a_miss(point.load),
            Bracket::Held(point) if point.load >= self.objective.to => None,
            Bracket::Held(point) => Some((point.load * STEP).min(self.objective.to)),
            Bracket::Both(held, missed) => self.between(held, missed),
        }
    }

    /// Returns the result of what was measured.
    pub fn result(&self) -> SearchResult {
        let found = match self.bracket() {
            Bracket::Nothing => SearchFinding::Below(self.objective.from),
            Bracket::Missed(point) => SearchFinding::Below(point.load),
            Bracket::Held(point) => SearchFinding::AtLeast(point.load),
            Bracket::Both(held, missed) => {
                let (value, interval) = self.estimate(held, missed);
                SearchFinding::Load { value, interval }
            }
        };
        let (value, is_precise) = match found {
            SearchFinding::Load { value, interval } => (value, self.is_precise(value, interval)),
            SearchFinding::AtLeast(load) | SearchFinding::Below(load) => (load, true),
        };
        let held = |point: &&SearchPoint| point.rate() < value && point.looks_held();
        let highest = self.points.iter().rfind(held).map_or(0.0, SearchPoint::rate);
        let is_below = |point: &&SearchPoint| point.rate() < highest.min(value / NARROW);
        let mut below = self.points.iter().filter(is_below);
        let not_monotone = below.find(|point| point.state() == LimitState::Missed);
        SearchResult { found, not_monotone: not_monotone.map(|point| point.load), is_precise }
    }

    fn bracket(&self) -> Bracket<'_> {
        let points: Vec<_> = self.points.iter().filter(|point| self.counts(point)).collect();
        let split = split(&points);
        let held = points[..split].iter().copied().rfind(|point| point.looks_held());
        let missed = points[split..].iter().copied().find(|point| !point.looks_held());
        match (held, missed) {
            (Some(held), Some(missed)) => Bracket::Both(held, missed),
            (Some(held), None) => Bracket::Held(held),
            (None, Some(missed)) => Bracket::Missed(missed),
            (None, None) => Bracket::Nothing,
        }
    }

    /// The first load can miss because the server is cold: one more is tried.
    fn above_a_miss(&self, load: f64) -> Option<f64> {
        let next = (load * 2.0).min(self.objective.to);
        (self.points.len() == 1 && next > load).then_some(next)
    }

    /// Returns the next load between the two, or near the estimate; `None` if it is precise.
    fn between(&self, held: &SearchPoint, missed: &SearchPoint) -> Option<f64> {
        let (value, interval) = self.estimate(held, missed);
        if self.has_room(held, missed) && missed.rate() > held.rate() * NARROW {
            return Some(self.inside(held, missed));
        }
        let fit = self.fit(held, missed);
        if self.is_precise(value, interval) && fit.as_ref().is_none_or(Fit::is_reliable) {
            return None;
        }
        match fit {
            None if self.has_room(held, missed) => Some(self.inside(held, missed)),
            _ => Some(self.near(value)),
        }
    }

    /// Returns whether a load fits between the two, and matters.
    fn has_room(&self, held: &SearchPoint, missed: &SearchPoint) -> bool {
        match self.objective.is_concurrency {
            true => missed.load - held.load > 1.0,
            false => missed.rate() > held.rate() * (1.0 + self.objective.precision / 2.0),
        }
    }

    /// Returns a load between the two.
    fn inside(&self, held: &SearchPoint, missed: &SearchPoint) -> f64 {
        let (low, high) = (held.rate().ln(), missed.rate().ln());
        // The limit that is missed first, by a line through both figures.
        let parts = held.limits.iter().zip(&missed.limits).filter_map(|(held, missed)| {
            let (above, below) = (held.margin?, missed.margin?);
            (above > 0.0 && below < 0.0).then(|| above / (above - below))
        });
        let part = parts.reduce(f64::min).unwrap_or(0.5);
        let crossing = (low + (high - low) * part.clamp(0.2, 0.8)).exp();
        // The throughput of an overloaded server is nearer to the capacity.
        let reached = missed.completed.map(|completed| completed * OF_THROUGHPUT);
        let is_inside =
            |load: &f64| *load > held.rate() * NARROW.sqrt() && *load < missed.rate() / NARROW;
        let load = reached.filter(is_inside).unwrap_or(crossing);
        match self.objective.is_concurrency {
            true => load.round().clamp(held.load + 1.0, (missed.load - 1.0).max(held.load + 1.0)),
            false => load,
        }
    }

    /// Returns a load a little below or above the estimate, by turns.
    fn near(&self, value: f64) -> f64 {
        let below = self
            .points
            .iter()
            .filter(|point| point.rate() < value && point.rate() > value / NARROW);
        let above = self
            .points
            .iter()
            .filter(|point| point.rate() > value && point.rate() < value * NARROW);
        let step = 1.0 + self.objective.precision;
        let is_above = above.count() <= below.count();
        let load = if is_above { value * step } else { value / step };
        let Objective { is_concurrency, from, to, .. } = self.objective;
        let load = match (is_concurrency, is_above) {
            (true, true) => load.ceil().max(value.floor() + 1.0),
            (true, false) => load.floor(),
            (false, _) => load,
        };
        load.clamp(from, to)
    }

    /// The line through the figures near the two loads, if there is one.
    fn fit(&self, held: &SearchPoint, missed: &SearchPoint) -> Option<Fit> {
        let mut center = (held.rate() * missed.rate()).sqrt().ln();
        let mut fit = None;
        // The points that count depend on the estimate.
        for _ in 0..3 {
            let is_near = |point: &&SearchPoint| {
                (point.rate().ln() - center).abs() < NEAR && self.counts(point)
            };
            let near = self.points.iter().filter(is_near);
            fit = Fit::of(near, self.objective.limits.len());
            center =
                fit.as_ref().map_or(center, |fit| fit.crossing.clamp(center - NEAR, center + NEAR));
        }
        fit
    }

    /// Returns the estimate and its interval.
    fn estimate(&self, held: &SearchPoint, missed: &SearchPoint) -> (f64, Interval) {
        let (value, interval) = match self.fit(held, missed) {
            Some(fit) => {
                let (value, Interval { low, high }) = fit.estimate();
                // A curve that is not certainly steep has its ends far away, and loads far from the
                // estimate are decided beyond doubt.
                let low = low.max(self.lower(value / NARROW));
                let high = high.min(self.upper(value * NARROW));
                (value, Interval { low, high })
            }
            None => {
                let (value, low) = ((held.rate() * missed.rate()).sqrt(), self.lower(held.rate()));
                (value, Interval { low, high: self.upper(missed.rate()) })
            }
        };
        match self.objective.is_concurrency {
            // Requests at a time are whole, so the estimate is rounded down.
            true => {
                let low = interval.low.floor().max(0.0);
                (value.floor().max(1.0), Interval { low, high: interval.high.ceil() })
            }
            false => self.at_most_completed(value, interval),
        }
    }

    /// Lowers an estimate to the throughput of the server.
    fn at_most_completed(&self, value: f64, interval: Interval) -> (f64, Interval) {
        let Some(most) = self.most_completed() else { return (value, interval) };
        // A server can collapse under overload and then complete less than under a lower load.
        let held = self.points.iter().filter(|point| point.state() == LimitState::Held);
        let more = held.map(SearchPoint::rate).filter(|rate| *rate > most * NARROW.sqrt());
        let most = more.fold(most, f64::max);
        let high = interval.high.min(most * (1.0 + THROUGHPUT_ERROR));
        match value > most {
            // Its queue grows for longer than a load lasts.
            true => (most, Interval { low: interval.low.min(most * (1.0 - HIDDEN)), high }),
            false => (value, Interval { low: interval.low, high: high.max(value) }),
        }
    }

    /// The highest load up to `load` that holds beyond chance.
    fn lower(&self, load: f64) -> f64 {
        let up_to = self.points.iter().rev().filter(|point| point.rate() <= load);
        let mut held = up_to.filter(|point| point.state() == LimitState::Held);
        held.next().map_or(0.0, SearchPoint::rate)
    }

    /// The lowest load from `load` on that is missed beyond chance.
    fn upper(&self, load: f64) -> f64 {
        let from = self.points.iter().filter(|point| point.rate() >= load);
        let mut missed = from.filter(|point| point.state() == LimitState::Missed);
        missed.next().map_or(f64::INFINITY, SearchPoint::rate)
    }

    fn is_precise(&self, value: f64, interval: Interval) -> bool {
        let step = (1.0 + self.objective.precision) * 1.001;
        let whole = if self.objective.is_concurrency { 1.0 } else { 0.0 };
        interval.low >= value / step - whole && interval.high <= value * step + whole
    }
}

/// Returns the number of loads below the border between those that hold and those that miss. A load can
/// be on the wrong side by chance or because the curve is not monotone; the border has the fewest of
/// them, and is the highest such one.
fn split(points: &[&SearchPoint]) -> usize {
    let wrong = |split: usize| {
        let missed = points[..split].iter().filter(|point| !point.looks_held()).count();
        missed + points[split..].iter().filter(|point| point.looks_held()).count()
    };
    (0..=points.len()).rev().min_by_key(|split| wrong(*split)).unwrap_or(0)
}

/// The neighbouring loads between which the result lies.
enum Bracket<'a> {
    /// Nothing was measured.
    Nothing,
    /// No load holds; this is the lowest load.
    Missed(&'a SearchPoint),
    /// The highest load holds.
    Held(&'a SearchPoint),
    /// The highest load that holds, and the lowest load above it that misses.
    Both(&'a SearchPoint, &'a SearchPoint),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objective(limits: &[&str], is_concurrency: bool) -> Objective {
        let limits = limits.iter().map(|text| LoadLimits::parse(text).unwrap()).collect();
        let limits = LoadLimits::new(limits);
        Objective { is_concurrency, from: 1.0, to: 1_000.0, limits, precision: 0.05 }
    }

    /// Requests at an even rate that take `ttft`, which is their only value.
    fn requests(load: f64, ttft: f64, n: usize) -> Vec<LoadRequest> {
        let request = |nth: usize| {
            let start = nth as f64 / load;
            // A little noise, the same each time.
            let value = ttft * (1.0 + (nth * 7 % 11) as f64 / 1_000.0);
            LoadRequest { start, end: start + value, is_valid: true, values: vec![Some(value)] }
        };
        (0..n).map(request).collect()
    }

    /// Searches on a server with this `ttft` under each load.
    fn searched(is_concurrency: bool, ttft: impl Fn(f64) -> f64) -> Search {
        let mut search = Search::new(objective(&["ttft p95 <= 200 ms"], is_concurrency), MAX_LOADS);
        while let Some(next @ NextLoad { load, part }) = search.next() {
            let n = (400.0 * part) as usize;
            search.add(next, requests(load, ttft(load), n));
        }
        search
    }

    fn found(search: &Search) -> (f64, Interval) {
        match search.result().found {
            SearchFinding::Load { value, interval } => (value, interval),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_step_is_found_between_the_loads_around_it() {
        for step in [1.5, 9.0, 40.0, 700.0] {
            let search = searched(false, |load| if load <= step { 0.05 } else { 5.0 });
            let (value, Interval { low, high }) = found(&search);
            assert!((value / step - 1.0).abs() < 0.05, "{step}: {value}");
            assert!(low <= step && step <= high && high / low < 1.11, "{step}: {low} {high}");
        }
    }

    #[test]
    fn a_number_at_a_time_is_whole_and_its_neighbour_misses() {
        let search = searched(true, |load| 0.005 * load);
        // 39 × 5 ms × 1.009 is 197 ms.
        let (value, Interval { low, high }) = found(&search);
        assert!(
            [38.0, 39.0].contains(&value) && low <= 39.0 && high >= 39.0,
            "{value} {low} {high}"
        );
        assert!(search.points().iter().all(|point| point.load.fract() == 0.0));
    }

    #[test]
    fn a_search_within_its_ends_says_which_end_it_met() {
        let search = searched(false, |_| 0.05);
        assert_eq!(search.result().found, SearchFinding::AtLeast(1_000.0));
        let loads: Vec<_> = search.points().iter().map(|point| point.load).collect();
        assert_eq!(loads, [1.0, 8.0, 64.0, 512.0, 1_000.0]);
        let search = searched(false, |_| 0.5);
        assert_eq!(search.result().found, SearchFinding::Below(search.points()[0].rate()));
        // The first load can be slow for other reasons.
        assert_eq!(search.points().len(), 2);
    }

    #[test]
    fn a_curve_that_is_not_monotone_has_its_highest_border_and_a_remark() {
        let slow_start = |load: f64| if (1.5..=40.0).contains(&load) { 0.05 } else { 1.0 };
        let search = searched(false, slow_start);
        let result = search.result();
        let (value, _) = found(&search);
        assert!((value / 40.0 - 1.0).abs() < 0.05, "{value}");
        assert!(result.not_monotone.is_some_and(|load| (load - 1.0).abs() < 0.01), "{result:?}");
        assert_eq!(searched(false, |load| 0.001 * load).result().not_monotone, None);
    }

    #[test]
    fn failures_and_loads_that_were_not_reached_bound_the_result() {
        let mut search = Search::new(objective(&["ttft p95 <= 200 ms"], false), MAX_LOADS);
        while let Some(next @ NextLoad { load, .. }) = search.next() {
            if load > 100.0 {
                search.add_not_reached(load, "busy".to_owned());
                continue;
            }
            let mut requests = requests(load, 0.05, 400);
            // Above 50 a second, one of ten is refused.
            let refused = requests.iter_mut().step_by(10).filter(|_| load > 50.0);
            refused.for_each(|of| (of.is_valid, of.values) = (false, vec![None]));
            search.add(next, requests);
        }
        let (value, Interval { low, high }) = found(&search);
        assert!((value / 50.0 - 1.0).abs() < 0.05, "{value} {low} {high}");
        let refused = search.points().iter().find(|point| point.load > 50.0).unwrap();
        assert!(matches!(refused.overload, Some(Overload::Failures(_))), "{refused:?}");
        assert_eq!(refused.limits[0].figure, Some(f64::INFINITY));
    }

    #[test]
    fn a_late_client_makes_a_load_that_misses_unknown_and_one_that_holds_no_worse() {
        let mut search = Search::new(objective(&["ttft p95 <= 200 ms"], false), MAX_LOADS);
        let whole = |load| NextLoad { load, part: 1.0 };
        let holds = search.add_late(whole(10.0), requests(10.0, 0.1, 400), "late".to_owned());
        assert_eq!((holds.looks_held(), holds.state()), (true, LimitState::Held));
        let misses = search.add_late(whole(80.0), requests(80.0, 0.3, 400), "late".to_owned());
        assert_eq!(misses.overload, Some(Overload::NotReached("late".to_owned())));
    }

    #[test]
    fn a_queue_that_grows_misses_before_the_limit_does() {
        // Twice as many arrivals as the server completes, a second apart from the limit.
        let growing = |nth: usize| {
            let start = nth as f64 / 100.0;
            let end = (nth + 1) as f64 / 50.0;
            LoadRequest { start, end, is_valid: true, values: vec![Some(0.1)] }
        };
        let mut search = Search::new(objective(&["ttft p95 <= 200 ms"], false), MAX_LOADS);
        let point =
            search.add(NextLoad { load: 100.0, part: 1.0 }, (0..1_000).map(growing).collect());
        assert!(matches!(point.overload, Some(Overload::QueueGrows(of)) if of > 0.4), "{point:?}");
        assert!((point.completed.unwrap() - 50.0).abs() < 0.5);
        assert!(!point.looks_held());
    }

    #[test]
    fn limits_are_of_requests_and_have_a_value() {
        for (text, message) in [
            ("request_throughput >= 3 req/s", "not a figure of requests"),
            ("ttft p95 <= +5 % of baseline", "is relative"),
            ("ttft max <= 500 ms", "`max` of a load cannot be searched for"),
            ("ttft", "a comparison is missing"),
        ] {
            let error = LoadLimits::parse(text).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error:?}");
        }
        let limits = ["ttft p95 <= 0.5 s", "success_rate >= 99 %", "goodput_ratio >= 95 %"];
        let limits = LoadLimits::new(limits.map(|text| LoadLimits::parse(text).unwrap()).into());
        assert_eq!(
            limits.to_string(),
            "ttft p95 <= 500 ms, success_rate >= 99 %, goodput_ratio mean >= 95 %"
        );
    }
}
