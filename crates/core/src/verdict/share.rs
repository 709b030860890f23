//! Limits on percentiles and on the success rate: how many requests are beyond the limit, or failed?

use statrs::function::beta::beta_reg;

use crate::{
    metric::MetricSource,
    serial::Dependence,
    statistic::Statistic,
    summary::{Group, Tally},
    threshold::Threshold,
};

/// The requests beyond the limit of a percentile or of the success rate. `ttft p95 <= 500 ms` holds if
/// at most 5 % of the requests take longer; a failed request is slower than any limit.
/// `success_rate >= 99 %` holds if at most 1 % of the requests fail.
///
/// The number of requests beyond it is binomial, whatever the distribution of the times is, so both
/// verdicts are exact: 72 of 72 within the limit pass p95 at 97.5 %, since 0.95⁷² is 2.5 %. A limit
/// that allows none (`success_rate >= 100 %`) is decided by the count: it passes if none is beyond it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeyondLimit {
    /// The requests beyond the limit, failed ones included.
    pub beyond: usize,
    /// The failed requests.
    pub failed: usize,
    /// The requests.
    pub all: usize,
    /// The share that may be beyond it.
    pub allowed: f64,
    /// The p value of the limit being met: small if too many are beyond it.
    pub p_of_miss: f64,
    /// The p value of the limit being missed: small if few enough are beyond it.
    pub p_of_hold: f64,
    /// The number of independent requests that tell as much, divided by the number of requests.
    pub effective: f64,
}

impl BeyondLimit {
    /// Counts the requests of `group`, whose figures can be off by `error`; `None` for thresholds on
    /// other statistics.
    pub(super) fn of(threshold: &Threshold, group: &Group, error: f64) -> Option<Self> {
        if matches!(threshold.metric.read, MetricSource::All) {
            return Some(Self::of_success_rate(threshold, &group.tally));
        }
        let part = match threshold.statistic {
            Statistic::Percentile(percent) => percent / 100.0,
            Statistic::Median => 0.5,
            _ => return None,
        };
        if threshold.is_relative() || !matches!(threshold.metric.read, MetricSource::Sample(_)) {
            return None;
        }
        let allowed = if threshold.limits_increase() { 1.0 - part } else { part };
        let values = group.tally.values(threshold.metric);
        let is_beyond = |value: f64, off: f64| {
            let worse = if threshold.limits_increase() { value + off } else { value - off };
            !threshold.holds(worse)
        };
        let failed = group.tally.failed();
        let count = |off: f64| failed + values.iter().filter(|of| is_beyond(**of, off)).count();
        let all = values.len() + failed;
        let effective = effective(values.iter().map(|value| is_beyond(*value, 0.0)));
        let p = |beyond: usize| {
            let (n, k) = (all as f64 * effective, beyond as f64 * effective);
            (at_least(k, n, allowed), at_most(k, n, allowed))
        };
        Some(Self {
            beyond: count(0.0),
            failed,
            all,
            allowed,
            p_of_miss: p(count(-error)).0,
            p_of_hold: p(count(error)).1,
            effective,
        })
    }

    /// Counts the failed requests, or the successful ones for a limit such as `success_rate <= 50 %`.
    fn of_success_rate(threshold: &Threshold, tally: &Tally) -> Self {
        let (failed, all) = (tally.failed(), tally.finished());
        let (beyond, allowed) = match threshold.limits_increase() {
            true => (tally.valid, threshold.limit / 100.0),
            false => (failed, allowed_failures(threshold)),
        };
        let (k, n) = (beyond as f64, all as f64);
        Self {
            beyond,
            failed,
            all,
            allowed,
            p_of_miss: at_least(k, n, allowed),
            p_of_hold: at_most(k, n, allowed),
            effective: 1.0,
        }
    }

    /// Returns whether a limit that allows none is met.
    pub(super) fn is_certain(&self) -> Option<bool> {
        (self.allowed <= 0.0).then_some(self.beyond == 0)
    }

    /// The same of requests that were in flight together: only the failed ones are certain, because
    /// the others depend on each other in a way that one run does not show.
    pub(super) fn of_failed(mut self) -> Self {
        self.p_of_hold = 1.0;
        self.p_of_miss = at_least(self.failed as f64, self.all as f64, self.allowed);
        self
    }

    /// Returns how many requests would decide it at this share of requests beyond the limit, with
    /// the p values `hold` and `miss`; `None` if the share is so near to the allowed share that
    /// millions would not.
    pub(super) fn needed(&self, hold: f64, miss: f64) -> Option<usize> {
        const MOST: f64 = 1e6;
        let share = self.beyond as f64 / self.all.max(1) as f64;
        let is_decided = |n: f64| {
            let (n, k) = (n * self.effective, (n * share).round() * self.effective);
            match share < self.allowed {
                true => at_most(k, n, self.allowed) <= hold,
                false => at_least(k, n, self.allowed) <= miss,
            }
        };
        let mut n = self.all.max(1) as f64;
        while !is_decided(n) {
            n = (n * 1.02).ceil().max(n + 1.0);
            if n > MOST {
                return None;
            }
        }
        while n > self.all as f64 + 1.0 && is_decided(n - 1.0) {
            n -= 1.0;
        }
        Some(n as usize)
    }

    /// Returns the share of requests beyond the limit that would have been found with a probability
    /// of 95 % at the level `level`.
    pub(super) fn smallest_detectable(&self, level: f64) -> f64 {
        let n = self.all as f64 * self.effective;
        let fails =
            (0..=self.all).map(|k| k as f64).find(|k| at_least(*k, n, self.allowed) <= level);
        let Some(fails) = fails else { return 1.0 };
        let is_found = |share: &f64| at_least(fails, n, *share) >= 0.95;
        (1..=1000).map(|nth| f64::from(nth) / 1000.0).find(is_found).unwrap_or(1.0)
    }
}

/// Returns the p value of a limit such as `success_rate >= 99 %` being met where `failed` of `all`
/// requests failed: small if too many did.
pub fn p_of_failures(threshold: &Threshold, failed: usize, all: usize) -> f64 {
    at_least(failed as f64, all as f64, allowed_failures(threshold))
}

/// The share of requests that may fail. A hundred percent minus a limit in percent is exact, and the
/// share is not.
fn allowed_failures(threshold: &Threshold) -> f64 {
    ((100.0 - threshold.limit) / 100.0).clamp(0.0, 1.0)
}

/// The share of independent requests among these.
fn effective(beyond: impl Iterator<Item = bool>) -> f64 {
    let marks: Vec<_> = beyond.map(|is| f64::from(u8::from(is))).collect();
    let mean = marks.iter().sum::<f64>() / marks.len().max(1) as f64;
    Dependence::of(&marks.iter().map(|mark| mark - mean).collect::<Vec<_>>()).effective
}

/// The probability of `k` or fewer of `n`, continued to fractions by the incomplete beta function.
fn at_most(k: f64, n: f64, share: f64) -> f64 {
    match share {
        _ if k >= n => 1.0,
        share if share >= 1.0 => 0.0,
        share => beta_reg(n - k, k + 1.0, 1.0 - share),
    }
}

/// The probability of `k` or more of `n`.
fn at_least(k: f64, n: f64, share: f64) -> f64 {
    if k <= 0.0 { 1.0 } else { beta_reg(k, (n - k + 1.0).max(1e-9), share) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requirement::{Bound, of_quantile};

    #[test]
    fn binomial_tails_agree_with_scipy() {
        // binom.cdf(3, 60, 0.1), binom.sf(2, 60, 0.1)
        assert!((at_most(3.0, 60.0, 0.1) - 0.137_399).abs() < 1e-5);
        assert!((at_least(3.0, 60.0, 0.1) - 0.946_955).abs() < 1e-5);
        assert_eq!(at_least(0.0, 60.0, 0.1), 1.0);
        assert_eq!(at_most(60.0, 60.0, 0.1), 1.0);
    }

    #[test]
    fn so_many_requests_within_the_limit_pass_a_percentile() {
        for (allowed, needs) in [(0.5, 6), (0.1, 36), (0.05, 72), (0.01, 368)] {
            assert_eq!(of_quantile(1.0 - allowed, Bound::Upper, 0.95), needs);
            assert!(at_most(0.0, needs as f64, allowed) <= 0.025);
            assert!(at_most(0.0, needs as f64 - 1.0, allowed) > 0.025);
        }
    }
}
