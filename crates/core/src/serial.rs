//! The serial dependence of neighbouring requests, and what it costs a mean. Pure.
//!
//! A server that is slow for a minute is slow for all requests of that minute. A mean of such
//! requests varies more than the standard error of independent values says: five times as much in
//! variance for an autocorrelation of 0.7, forty times for 0.95. The variance of a mean is
//! `γ₀ + 2 Σ (1 − k/n) γ_k`, divided by `n` (the long-run variance). It is estimated by two models, and
//! the larger estimate counts:
//!
//! - **AR(1)**: `γ_k = γ₀ φᵏ`. The estimate of `φ` is biased downwards by `(1 + 3 φ) / n` (Marriott
//!   and Pope 1954, Kendall 1954), which is added back with half a standard error.
//! - **AR(1) and white noise**: `γ_k = A φᵏ`, `k ≥ 1`, for a slow component behind the noise of each
//!   request, whose first autocorrelation is small although it lasts. `A` is fitted to the
//!   autocovariances for a few `φ`, and is ignored while it is within `MIN_Z` of its standard
//!   errors under independence.
//!
//! Both correct for the mean that was subtracted, whose variance the autocovariances lack.

/// The fewest values of which dependence can be estimated.
const MIN_VALUES: usize = 8;

/// The standard errors that are added to the estimate of `φ`, and for how many values they double.
const MARGIN: f64 = 0.5;
const DOUBLE_MARGIN: f64 = 8.0;

/// The memory of the slow component, as `φ`.
const MEMORIES: [f64; 4] = [0.6, 0.8, 0.9, 0.95];

/// How significant a slow component must be.
const MIN_Z: f64 = 1.5;

/// The dependence of values in the order of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dependence {
    /// The variance of the mean, divided by that of as many independent values; 1 or more.
    pub inflation: f64,
    /// The number of independent values whose mean varies as much, divided by the number of values;
    /// 1 or less.
    pub effective: f64,
}

impl Dependence {
    /// The dependence of independent values.
    pub const NONE: Self = Self { inflation: 1.0, effective: 1.0 };

    /// Estimates the dependence from `residuals`, whose mean is zero, in the order of time. Fewer
    /// than eight values show none.
    pub fn of(residuals: &[f64]) -> Self {
        let n = residuals.len();
        let covariances = Autocovariances::of(residuals);
        if n < MIN_VALUES || covariances.at(0) <= 0.0 {
            return Self::NONE;
        }
        // A component needs to be seen over most of its memory.
        let seen = MEMORIES.iter().filter(|memory| 3 * lags(**memory) <= 2 * n);
        let slow = seen.filter_map(|memory| covariances.slow(*memory));
        slow.chain([covariances.first_order()])
            .max_by(|a, b| a.inflation.total_cmp(&b.inflation))
            .filter(|of| of.inflation > 1.0)
            .unwrap_or(Self::NONE)
    }
}

/// The autocovariances of values, divided by the number of values.
struct Autocovariances {
    n: f64,
    by_lag: Vec<f64>,
}

impl Autocovariances {
    fn of(values: &[f64]) -> Self {
        let n = values.len();
        let longest = lags(MEMORIES[MEMORIES.len() - 1]).min(2 * n / 3);
        // All lags in one pass: the sums are independent, so the processor computes several at a
        // time, and each has its terms in the same order as alone.
        let mut sums = vec![0.0; longest + 1];
        for (nth, later) in values.iter().enumerate() {
            let earlier = values[nth.saturating_sub(longest)..=nth].iter().rev();
            sums.iter_mut().zip(earlier).for_each(|(sum, earlier)| *sum += earlier * later);
        }
        Self { n: n as f64, by_lag: sums.into_iter().map(|sum| sum / n as f64).collect() }
    }

    fn at(&self, lag: usize) -> f64 {
        self.by_lag.get(lag).copied().unwrap_or_default()
    }

    /// The dependence by the AR(1) model.
    fn first_order(&self) -> Dependence {
        let n = self.n;
        let observed = self.at(1) / self.at(0);
        let unbiased = observed + (1.0 + 3.0 * observed.max(0.0)) / n;
        let margin =
            MARGIN * (1.0 + DOUBLE_MARGIN / n) * ((1.0 - unbiased.powi(2)).max(0.0) / n).sqrt();
        let phi = (unbiased + margin).clamp(0.0, 1.0 - 1.0 / n);
        let inflation = (1.0 + phi) / (1.0 - phi);
        // The subtracted mean has the variance `γ₀ × inflation / n`; independent values lose `γ₀ / n`.
        let lost = (1.0 - 1.0 / n) / (1.0 - (inflation / n).min(0.9));
        Dependence { inflation: inflation * lost, effective: (1.0 / inflation).max(1.0 / n) }
    }

    /// The dependence by a component of the given memory and white noise; `None` if the component
    /// is not significant.
    fn slow(&self, memory: f64) -> Option<Dependence> {
        let (n, variance) = (self.n, self.at(0));
        let used = lags(memory).min(self.by_lag.len() - 1);
        let weights = |lag: usize| memory.powi(lag as i32);
        let (mut fit, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for lag in 1..=used {
            let weight = weights(lag);
            fit += weight * self.at(lag) * n / (n - lag as f64);
            sum += weight;
            squares += weight.powi(2);
        }
        // The subtracted mean lowers each autocovariance by the variance of the mean.
        let amplitude = (fit + sum * variance / n) / squares;
        if amplitude < MIN_Z * variance / (n * squares).sqrt() {
            return None;
        }
        // Σ (1 − k/n) φᵏ over all lags, in closed form.
        let geometric = memory / (1.0 - memory);
        let tail = memory * (1.0 - memory.powf(n)) / (1.0 - memory).powi(2);
        let reach = geometric - tail / n;
        let left = (1.0 - 1.0 / n - 2.0 * reach * sum / (squares * n)).max(0.15);
        let long_run = ((variance + 2.0 * reach * fit / squares) / left)
            .max(variance + 2.0 * reach * amplitude);
        let effective = (variance / long_run).clamp(1.0 / n, 1.0);
        Some(Dependence { inflation: long_run / variance * (1.0 - 1.0 / n), effective })
    }
}

/// The lags over which a component of this memory is seen.
fn lags(memory: f64) -> usize {
    (3.0 / (1.0 - memory)) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_or_equal_values_show_no_dependence() {
        assert_eq!(Dependence::of(&[1.0, -1.0, 1.0]), Dependence::NONE);
        assert_eq!(Dependence::of(&[0.0; 30]), Dependence::NONE);
        assert_eq!(Dependence::of(&[]), Dependence::NONE);
    }

    #[test]
    fn values_that_alternate_have_no_inflation_and_a_slow_wave_has_one() {
        let alternating: Vec<f64> =
            (0..40).map(|nth| if nth % 2 == 0 { 1.0 } else { -1.0 }).collect();
        assert_eq!(Dependence::of(&alternating), Dependence::NONE);
        let wave: Vec<f64> = (0..200).map(|nth| (f64::from(nth) / 15.0).sin()).collect();
        let found = Dependence::of(&wave);
        assert!(found.inflation > 20.0 && found.effective < 0.05, "{found:?}");
    }
}
