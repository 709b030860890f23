//! The variances of several groups of few values each, which borrow from each other. Pure.
//!
//! Three values say little about their variance. Where prompts vary alike, the variance of all prompts
//! together is better; where they do not, each has its own. Smyth (2004, "Linear models and empirical
//! Bayes methods for assessing differential expression", section 6.2) finds out how alike they are:
//! the prior counts as many degrees of freedom as the spread of the variances allows.

use statrs::function::gamma::digamma;

use crate::statistic::{Statistic, mean};

/// The fewest groups from which a prior is estimated.
const MIN_GROUPS: usize = 3;

/// The prior of the variances of groups.
pub(crate) struct Moderation {
    /// The variance before any value of a group is seen.
    prior: f64,
    /// The degrees of freedom that it counts as.
    prior_freedom: f64,
    /// The variance of all groups together, with its degrees of freedom.
    pooled: (f64, f64),
}

impl Moderation {
    /// Estimates the prior from the groups, each given as its sum of squared deviations with the
    /// degrees of freedom.
    pub(crate) fn of(squares: impl Iterator<Item = (f64, f64)>) -> Self {
        let known: Vec<_> = squares.filter(|(_, freedom)| *freedom > 0.0).collect();
        let (sum, all) = known.iter().fold((0.0, 0.0), |(a, b), (of, n)| (a + of, b + n));
        let pooled = (if all > 0.0 { sum / all } else { 0.0 }, all);
        let positive: Vec<_> = known.into_iter().filter(|(of, _)| *of > 0.0).collect();
        if positive.len() < MIN_GROUPS {
            return Self { prior: 0.0, prior_freedom: 0.0, pooled };
        }
        let log = |(of, freedom): &(f64, f64)| {
            (of / freedom).ln() - digamma(freedom / 2.0) + (freedom / 2.0).ln()
        };
        let logs: Vec<_> = positive.iter().map(log).collect();
        let sampling: Vec<_> = positive.iter().map(|(_, of)| trigamma(of / 2.0)).collect();
        let excess = Statistic::Sd.of(&logs).unwrap_or_default().powi(2) - mean(&sampling);
        if excess <= 0.0 {
            // They vary alike: one variance for all.
            return Self { prior: pooled.0, prior_freedom: f64::INFINITY, pooled };
        }
        let freedom = 2.0 * inverse_trigamma(excess);
        let prior = (mean(&logs) + digamma(freedom / 2.0) - (freedom / 2.0).ln()).exp();
        Self { prior, prior_freedom: freedom, pooled }
    }

    /// Returns the variance of a group, with its degrees of freedom.
    pub(crate) fn variance(&self, (squares, freedom): (f64, f64)) -> (f64, f64) {
        let all = self.prior_freedom + freedom;
        if all.is_infinite() {
            return self.pooled;
        }
        ((self.prior_freedom * self.prior + squares) / all.max(1.0), all.min(self.pooled.1))
    }

    /// Returns whether all groups share one variance.
    pub(crate) fn is_shared(&self) -> bool {
        self.prior_freedom.is_infinite()
    }

    /// The same, or the variance of all groups if it is larger: few values of a
    /// group can be alike by chance.
    pub(crate) fn variance_or_more(&self, group: (f64, f64)) -> (f64, f64) {
        let own = self.variance(group);
        if own.0 > self.pooled.0 { own } else { self.pooled }
    }
}

/// The second derivative of the logarithm of the gamma function, by recurrence and its asymptotic
/// series (Abramowitz and Stegun 6.4.6, 6.4.12).
fn trigamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 8.0 {
        sum += x.powi(-2);
        x += 1.0;
    }
    let square = x.powi(-2);
    sum + 1.0 / x + square / 2.0 + square / x * (1.0 / 6.0 - square * (1.0 / 30.0 - square / 42.0))
}

/// Returns `x` with `trigamma(x) = y`, by bisection: it falls steadily.
fn inverse_trigamma(y: f64) -> f64 {
    let (mut low, mut high) = (1e-3_f64, 1e7_f64);
    for _ in 0..80 {
        let middle = (low * high).sqrt();
        match trigamma(middle) > y {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigamma_agrees_with_its_known_values() {
        let pi = std::f64::consts::PI;
        assert!((trigamma(1.0) - pi * pi / 6.0).abs() < 1e-9);
        assert!((trigamma(0.5) - pi * pi / 2.0).abs() < 1e-9);
        assert!((inverse_trigamma(trigamma(3.7)) - 3.7).abs() < 1e-6);
    }

    #[test]
    fn groups_that_vary_alike_share_a_variance_and_others_keep_theirs() {
        let alike = Moderation::of((0..10).map(|nth| (2.0 + 0.01 * f64::from(nth), 2.0)));
        assert!((alike.variance((8.0, 2.0)).0 - 1.02).abs() < 0.05);
        let different = Moderation::of((0..10).map(|nth| (10.0_f64.powi(nth - 5), 2.0)));
        let (variance, freedom) = different.variance((1e4, 2.0));
        assert!(variance > 2e3 && freedom < 4.0, "{variance} {freedom}");
        assert!(different.variance_or_more((1e-5, 2.0)).0 > 100.0);
    }
}
