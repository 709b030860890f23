//! The remedies for inconclusive verdicts.

use statrs::distribution::ContinuousCDF;

use super::{NoChange, Outcome, Verdict};
use crate::{
    comparison::{Change, MIN_HISTORY},
    interval::student,
    metric::MetricSource,
    statistic::Absent,
    summary::Estimate,
    threshold::Against,
};

/// The power with which the requests that are named decide a verdict, so that a figure that lies
/// somewhat nearer to its limit than it was seen is decided as well.
const POWER: f64 = 0.9;

/// The remedy for an inconclusive verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// About this many more requests of the same kind.
    Requests(usize),
    /// About this many more runs of the load.
    Runs(usize),
    /// This many more stored runs: the variation between runs is larger than the distance to the
    /// limit.
    StoredRuns(usize),
    /// A baseline with more requests, or more of these: the present ones do not bound the change.
    Baseline,
    /// Both models in turns in one run: the variation between runs is larger than the distance to
    /// the limit, and more stored runs would not help.
    Duet,
    /// A remedy for the doubts about the figure.
    Certainty,
    /// A more precise instrument, or another limit: more requests would not help.
    MorePrecision,
}

impl Verdict {
    /// Returns what an inconclusive verdict needs. The standard error is assumed to shrink with the
    /// square root of the number of requests.
    pub fn needed(&self) -> Option<Needed> {
        if self.outcome() != Outcome::Inconclusive {
            return None;
        }
        if self.is_doubtful() {
            return Some(Needed::Certainty);
        }
        if let Some(change) = &self.change {
            return match change {
                Ok(change) => Some(self.needed_for_change(change)),
                Err(NoChange::Absent(absent)) => self.needed_for(*absent),
                Err(_) => None,
            };
        }
        if let Some(trend) = &self.trend {
            return match trend {
                Err(NoChange::Absent(Absent::TooFew { needs, has })) => {
                    Some(Needed::StoredRuns(needs - has))
                }
                _ => Some(Needed::StoredRuns(1)),
            };
        }
        if let Some(beyond) = self.beyond {
            let needed = beyond.needed(self.tail(), self.level);
            return Some(needed.map_or(Needed::MorePrecision, |all| {
                self.in_unit(all.saturating_sub(beyond.all).max(1))
            }));
        }
        match self.actual {
            Ok(actual) => self.needed_for_figure(&actual),
            Err(absent) => self.needed_for(absent),
        }
    }

    /// Returns the total number of `runs` that this many more requests or runs amount to.
    pub fn runs_for(&self, more: usize) -> u32 {
        let runs = self.runs.max(1);
        if let Some(Needed::Runs(more)) = self.needed() {
            return runs + u32::try_from(more).unwrap_or(u32::MAX - runs);
        }
        let has = match (&self.actual, self.beyond, &self.change) {
            (_, Some(beyond), _) => beyond.all,
            (Ok(actual), None, _) => actual.n,
            (Err(Absent::TooFew { has, .. }), None, _)
            | (_, _, Some(Err(NoChange::Absent(Absent::TooFew { has, .. })))) => *has,
            (Err(_), None, _) => runs as usize,
        };
        let a_run = has as f64 / f64::from(runs);
        ((has + more) as f64 / a_run.max(1.0)).ceil().min(f64::from(u32::MAX)) as u32
    }

    fn in_unit(&self, more: usize) -> Needed {
        // A figure of loads has one value per run.
        match self.threshold.metric.read {
            MetricSource::Load(_) => Needed::Runs(more),
            _ => Needed::Requests(more),
        }
    }

    fn needed_for(&self, absent: Absent) -> Option<Needed> {
        match absent {
            Absent::TooFewRuns { needs, has } => Some(Needed::Runs(needs - has)),
            Absent::TooFew { needs, has } if self.is_of_load => {
                Some(Needed::Runs(needs.saturating_sub(has).max(1)))
            }
            Absent::TooFew { needs, has } => Some(self.in_unit(needs.saturating_sub(has).max(1))),
            _ => None,
        }
    }

    fn needed_for_figure(&self, actual: &Estimate) -> Option<Needed> {
        let limit = self.threshold.limit;
        let room = (actual.value - limit).abs() - self.error.unwrap_or(0.0);
        if self.uncertainty > 0.0 && room <= 0.0 {
            return Some(Needed::MorePrecision);
        }
        let interval = match actual.interval {
            Ok(Some(interval)) => interval,
            Ok(None) => return Some(Needed::MorePrecision),
            // For a load, these are batches of its runs.
            Err(Absent::TooFew { needs, has }) if self.is_of_batches() => {
                let a_run = (has / actual.n.max(1)).max(1);
                return Some(Needed::Runs((needs - has).div_ceil(a_run)));
            }
            Err(absent) => return self.needed_for(absent),
        };
        let normal = student(1e6);
        let is_above = actual.value > limit;
        let half =
            if is_above { actual.value - interval.low } else { interval.high - actual.value };
        let error = actual.mean_error.map_or(half / normal.inverse_cdf(0.975), |of| of.error);
        let quantile = self.quantile(self.threshold.holds(actual.value));
        Some(match room > 0.0 {
            true => self.more((quantile * error / room).powi(2), actual.n),
            false => Needed::MorePrecision,
        })
    }

    fn is_of_batches(&self) -> bool {
        matches!(self.threshold.metric.read, MetricSource::Load(_))
    }

    /// The standard errors between a figure and its limit that decide it with the power [`POWER`].
    fn quantile(&self, is_held: bool) -> f64 {
        let normal = student(1e6);
        let tail = if is_held { self.tail() } else { self.level };
        normal.inverse_cdf(1.0 - tail) + normal.inverse_cdf(POWER)
    }

    /// Returns what a change needs to pass or to become significant.
    fn needed_for_change(&self, change: &Change) -> Needed {
        if !change.is_bounded() {
            return Needed::Baseline;
        }
        let floor = self.floor() / change.before.abs();
        let is_held = self.threshold.holds(change.relative);
        // A change that misses its limit has to differ from none.
        let room = match is_held {
            true => (change.relative - self.threshold.limit).abs() - floor,
            false => change.relative.abs() - floor,
        };
        if room <= 0.0 {
            return Needed::MorePrecision;
        }
        let n = self.actual.map_or(1, |actual| actual.n);
        match (change.times_for(room / self.quantile(is_held)), change.variation) {
            (Some(times), _) => self.more(times, n),
            (None, Some(variation)) if variation.is_assumed => {
                Needed::StoredRuns(MIN_HISTORY - variation.runs)
            }
            (None, _) if self.threshold.against == Against::Baseline => Needed::Duet,
            (None, _) => Needed::MorePrecision,
        }
    }

    /// Returns how many requests, in addition to `n`, make `times` as many.
    fn more(&self, times: f64, n: usize) -> Needed {
        // So many more would only tell that the figure is at its limit.
        const MOST_TIMES: f64 = 100.0;
        let more = (times - 1.0) * n as f64;
        match times < MOST_TIMES {
            true => self.in_unit((more.ceil() as usize).max(1)),
            false => Needed::MorePrecision,
        }
    }
}
