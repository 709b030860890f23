//! Decides while a load is in progress whether it can still become valid. Pure.
//!
//! A load that cannot is stopped, so that it does not take its whole time for figures that will be
//! refused. The 99th percentiles of the lateness and of `ttft` decide whether starts were late. More
//! late starts than they leave out therefore decide it, whatever comes later, unless the server becomes
//! slower than it was until then.

use std::{collections::BTreeMap, fmt};

use statrs::distribution::{Binomial, DiscreteCDF};

use crate::{
    load_stats::{MAX_P99_LATENESS, MIN_CONNECTED, NEGLIGIBLE_LATENESS},
    schedule::{Shape, Until},
};

/// When a load is stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AbortRule {
    /// The share of requests that may fail, between 0 and 1.
    pub failures: Option<f64>,
}

impl fmt::Display for AbortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failures {
            Some(share) => write!(f, "failures {} %", share * 100.0),
            None => f.write_str("none"),
        }
    }
}

/// Why a load was stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AbortReason {
    /// Too many requests failed.
    #[error("{failed} of {ended} requests failed, more than {percent} % (`abort`)")]
    Failures {
        /// The failed requests.
        failed: usize,
        /// The requests that have ended.
        ended: usize,
        /// The percentage that may fail.
        percent: f64,
    },
    /// Too many requests found no connection.
    #[error("{requests} of {planned} requests found no connection, the first: {first}")]
    Unconnected {
        /// Their number.
        requests: usize,
        /// The requests of the whole load.
        planned: usize,
        /// The reason of the first one.
        first: String,
    },
    /// Too many requests waited for `max_in_flight`.
    #[error(
        "{late} of {planned} requests started late, because `max_in_flight` ({max_in_flight}) were in \
         flight: the server is slower than the rate, or the limit too low"
    )]
    MaxInFlight {
        /// The requests that started late.
        late: usize,
        /// The requests of the whole load.
        planned: usize,
        /// The limit.
        max_in_flight: usize,
    },
    /// The client started too many requests late.
    #[error(
        "{late} of {planned} requests started more than {:.1} ms late, a third of the longest time \
         that the server took to a first token: this machine is too slow or busy",
        than * 1e3
    )]
    Late {
        /// The requests that started late.
        late: usize,
        /// The requests of the whole load.
        planned: usize,
        /// The lateness that they exceed, in seconds.
        than: f64,
    },
}

/// What the decision needs of a request that has ended.
#[derive(Debug, Clone, Default)]
pub struct EndedRequest<'a> {
    /// Whether its answer is valid.
    pub is_valid: bool,
    /// Why it found no connection, if so.
    pub unconnected: Option<&'a str>,
    /// How late it started, in seconds; of an open loop.
    pub lateness: Option<f64>,
    /// Its time to the first token in seconds, which counts from the scheduled start.
    pub ttft: Option<f64>,
    /// The number of requests in flight when it ended.
    pub in_flight: usize,
}

/// The share of requests that the 99th percentile leaves out.
const LEFT_OUT: f64 = 0.01;

/// The fewest requests that failed or were late for which a load is stopped: a short load ends soon
/// anyway.
const FEWEST: f64 = 10.0;

/// The probability of so many failures by chance below which a load is stopped before all its requests
/// are known. It is small, because the decision is taken after each failure.
const BY_CHANCE: f64 = 1e-6;

/// A load in progress.
#[derive(Debug)]
pub struct LoadWatch {
    rule: AbortRule,
    /// The requests of the whole load, if that is known.
    planned: Option<usize>,
    /// The limit of an open loop.
    max_in_flight: Option<usize>,
    ended: usize,
    failed: usize,
    unconnected: usize,
    /// The first reason for which a request found no connection.
    first: Option<String>,
    /// Whether a client that is late stops the load.
    judges_client: bool,
    /// How many requests were how late, by the exponent of a factor of [`BIN`].
    late: BTreeMap<i32, usize>,
    /// The longest time of the server to a first token.
    slowest: f64,
    reached_most: bool,
}

/// The factor between two borders of lateness.
const BIN: f64 = 1.1;

impl LoadWatch {
    /// Watches a load of this shape.
    pub fn new(rule: AbortRule, shape: &Shape, until: &Until) -> Self {
        let (rate, max_in_flight) = match *shape {
            Shape::Open { arrivals, max_in_flight } => (Some(arrivals.rate), Some(max_in_flight)),
            Shape::Closed { .. } => (None, None),
        };
        // Random arrivals are a little more than the rate says.
        let within = |rate: f64, seconds: f64| (rate * seconds * 1.05).ceil() as usize + 10;
        let within = rate.zip(until.duration).map(|(rate, time)| within(rate, time.as_secs_f64()));
        let planned = until.requests.into_iter().chain(within).min();
        Self {
            rule,
            planned,
            max_in_flight,
            ended: 0,
            failed: 0,
            unconnected: 0,
            first: None,
            judges_client: true,
            late: BTreeMap::new(),
            slowest: 0.0,
            reached_most: false,
        }
    }

    /// Watches a load of a search, which counts although the client is late: lateness makes figures only
    /// larger.
    #[must_use]
    pub fn of_search(self) -> Self {
        Self { judges_client: false, ..self }
    }

    /// Adds a request that has ended. Returns why the load is to be stopped, if so.
    pub fn add(&mut self, request: &EndedRequest<'_>) -> Option<AbortReason> {
        self.ended += 1;
        self.failed += usize::from(!request.is_valid);
        if let Some(why) = request.unconnected {
            self.unconnected += 1;
            self.first.get_or_insert_with(|| why.to_owned());
        }
        self.reached_most |= self.max_in_flight.is_some_and(|most| request.in_flight >= most);
        if let Some(lateness) = request.lateness {
            if lateness > NEGLIGIBLE_LATENESS {
                *self.late.entry(lateness.log(BIN).floor() as i32).or_default() += 1;
            }
            let of_server = request.ttft.map_or(0.0, |ttft| ttft - lateness);
            self.slowest = self.slowest.max(of_server);
        }
        self.failures(request).or_else(|| self.unconnected()).or_else(|| self.lateness(request))
    }

    fn failures(&self, request: &EndedRequest<'_>) -> Option<AbortReason> {
        let share = self.rule.failures.filter(|_| !request.is_valid)?;
        let (failed, ended) = (self.failed, self.ended);
        let is_certain = self.planned.is_some_and(|planned| failed as f64 > share * planned as f64);
        let is_beyond_chance = || {
            let by_chance = Binomial::new(share, ended as u64).ok();
            let p = by_chance.map(|of| if failed > 0 { of.sf(failed as u64 - 1) } else { 1.0 });
            failed as f64 >= FEWEST && p.is_some_and(|p| p < BY_CHANCE)
        };
        let reason = AbortReason::Failures { failed, ended, percent: share * 100.0 };
        (is_certain || is_beyond_chance()).then_some(reason)
    }

    fn unconnected(&self) -> Option<AbortReason> {
        let (planned, first) = self.planned.zip(self.first.clone())?;
        let requests = self.unconnected;
        let most = ((1.0 - MIN_CONNECTED) * planned as f64).max(FEWEST);
        (requests as f64 > most).then_some(AbortReason::Unconnected { requests, planned, first })
    }

    fn lateness(&self, request: &EndedRequest<'_>) -> Option<AbortReason> {
        request.lateness.filter(|lateness| *lateness > NEGLIGIBLE_LATENESS)?;
        let planned = self.planned?;
        let most = (LEFT_OUT * planned as f64).max(FEWEST);
        let later = |than: f64| -> usize {
            let bin = than.log(BIN).ceil() as i32;
            self.late.range(bin..).map(|(_, count)| count).sum()
        };
        if let Some(max_in_flight) = self.max_in_flight.filter(|_| self.reached_most) {
            let late = later(NEGLIGIBLE_LATENESS);
            let reason = AbortReason::MaxInFlight { late, planned, max_in_flight };
            return (late as f64 > most).then_some(reason);
        }
        // Late by L, with the server's time S: L / (L + S) is above a quarter from L = S / 3 on.
        let than = self.slowest * MAX_P99_LATENESS / (1.0 - MAX_P99_LATENESS);
        let late = later(than.max(NEGLIGIBLE_LATENESS));
        let is_known = self.judges_client && self.slowest > 0.0;
        let is_late = late as f64 > most;
        (is_known && is_late).then_some(AbortReason::Late { late, planned, than })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::schedule::{ArrivalProcess, Gaps};

    fn open(rate: f64, max_in_flight: usize) -> Shape {
        let arrivals = ArrivalProcess { rate, gaps: Gaps::Poisson, seed: 0 };
        Shape::Open { arrivals, max_in_flight }
    }

    fn requests(requests: usize) -> Until {
        Until { requests: Some(requests), duration: None }
    }

    /// Returns after how many of these requests the load is stopped, and why.
    fn stopped<'a>(
        mut watch: LoadWatch,
        ended: impl IntoIterator<Item = EndedRequest<'a>>,
    ) -> Option<(usize, AbortReason)> {
        let mut after = ended.into_iter().zip(1..);
        after.find_map(|(request, nth)| Some((nth, watch.add(&request)?)))
    }

    fn outcome(is_valid: bool) -> EndedRequest<'static> {
        EndedRequest { is_valid, ..EndedRequest::default() }
    }

    #[test]
    fn failures_stop_a_load_as_soon_as_they_are_beyond_chance_or_certain() {
        let rule = AbortRule { failures: Some(0.1) };
        let closed = Shape::Closed { concurrency: 8 };
        let of = |planned, rule| LoadWatch::new(rule, &closed, &requests(planned));
        // All fail: after ten.
        let (after, reason) = stopped(of(1_000, rule), (0..1_000).map(|_| outcome(false))).unwrap();
        assert_eq!(
            (after, reason.to_string()),
            (10, "10 of 10 requests failed, more than 10 % (`abort`)".into())
        );
        // Of 20 requests, the third failure makes it certain.
        let (after, _) = stopped(of(20, rule), (0..20).map(|nth| outcome(nth % 5 != 0))).unwrap();
        assert_eq!(after, 11);
        // As many as allowed never stop it, and without a rule nothing does.
        assert_eq!(stopped(of(1_000, rule), (0..1_000).map(|nth| outcome(nth % 10 != 0))), None);
        let none = AbortRule::default();
        assert_eq!(stopped(of(1_000, none), (0..1_000).map(|_| outcome(false))), None);
        // A fifth fails, of a load whose number of requests is unknown.
        let endless = Until { requests: None, duration: Some(Duration::from_secs(60)) };
        let watch = LoadWatch::new(rule, &closed, &endless);
        let (after, _) = stopped(watch, (0..10_000).map(|nth| outcome(nth % 5 != 0))).unwrap();
        assert!((100..400).contains(&after), "{after}");
    }

    #[test]
    fn failures_at_the_allowed_share_seldom_stop_a_load() {
        use rand::{RngExt, SeedableRng};
        let rule = AbortRule { failures: Some(0.1) };
        let endless = Until { requests: None, duration: Some(Duration::from_secs(60)) };
        let stops = |seed: u64| {
            let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
            let watch = LoadWatch::new(rule, &Shape::Closed { concurrency: 8 }, &endless);
            stopped(watch, (0..2_000).map(|_| outcome(!random.random_bool(0.1)))).is_some()
        };
        assert_eq!((0..500).filter(|seed| stops(*seed)).count(), 0);
    }

    #[test]
    fn a_client_that_falls_behind_stops_the_load_and_one_that_catches_up_does_not() {
        let late = |lateness: f64| EndedRequest {
            is_valid: true,
            lateness: Some(lateness),
            ttft: Some(0.05 + lateness),
            ..EndedRequest::default()
        };
        let watch =
            || LoadWatch::new(AbortRule::default(), &open(1_000.0, 5_000), &requests(60_000));
        // Each request is 0.1 ms later than the one before: a third of 50 ms after 167 requests.
        let behind = (0..60_000).map(|nth| late(f64::from(nth) * 1e-4));
        let (after, reason) = stopped(watch(), behind).unwrap();
        assert!((767..800).contains(&after), "{after} {reason}");
        assert!(
            reason.to_string().starts_with("601 of 60000 requests started more than 16.7 ms late"),
            "{reason}"
        );
        // 500 requests are late, then none.
        let catches_up = (0..60_000).map(|nth| late(if nth < 500 { 1.0 } else { 0.0 }));
        assert_eq!(stopped(watch(), catches_up), None);
        // Lateness below a third of the server's time is not enough.
        assert_eq!(stopped(watch(), (0..60_000).map(|_| late(0.014))), None);
    }

    #[test]
    fn a_full_load_stops_when_the_percentile_is_late() {
        let waits = |in_flight| EndedRequest {
            is_valid: true,
            lateness: Some(0.01),
            ttft: Some(10.0),
            in_flight,
            ..EndedRequest::default()
        };
        let until = Until { requests: None, duration: Some(Duration::from_secs(100)) };
        let watch = || LoadWatch::new(AbortRule::default(), &open(10.0, 4), &until);
        // 10/s for 100 s are up to 1,060 requests, and 1 % of them are 11.
        let (after, reason) = stopped(watch(), (0..1_000).map(|_| waits(4))).unwrap();
        assert_eq!((after, reason.to_string().contains("`max_in_flight` (4)")), (11, true));
        assert_eq!(stopped(watch(), (0..1_000).map(|_| waits(3))), None);
    }

    #[test]
    fn requests_without_a_connection_stop_the_load() {
        let refused = EndedRequest { unconnected: Some("refused"), ..EndedRequest::default() };
        let closed = Shape::Closed { concurrency: 8 };
        let watch = LoadWatch::new(AbortRule::default(), &closed, &requests(100));
        let (after, reason) = stopped(watch, (0..100).map(|_| refused.clone())).unwrap();
        assert_eq!(after, 11);
        assert_eq!(
            reason.to_string(),
            "11 of 100 requests found no connection, the first: refused"
        );
    }
}
