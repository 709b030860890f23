//! Random lengths in tokens: a range and how they are distributed in it. Pure and seeded.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use statrs::distribution::{ContinuousCDF, Normal};

/// A range of lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthRange {
    /// Fewest tokens.
    pub least: u64,
    /// Most tokens.
    pub most: u64,
    /// How lengths are distributed between the two.
    pub distribution: LengthDistribution,
}

/// A distribution of lengths. `mean` and `sd` are those of the distribution without bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LengthDistribution {
    /// All lengths are equally frequent.
    #[default]
    Uniform,
    /// Normal.
    Normal {
        /// The mean.
        mean: u64,
        /// The standard deviation, above 0.
        sd: u64,
    },
    /// Log-normal: few lengths are many times the usual one.
    LogNormal {
        /// The mean of the lengths, not of their logarithms.
        mean: u64,
        /// The standard deviation of the lengths, above 0.
        sd: u64,
    },
}

impl LengthRange {
    /// Creates the range of one length.
    pub const fn fixed(tokens: u64) -> Self {
        Self { least: tokens, most: tokens, distribution: LengthDistribution::Uniform }
    }

    /// Returns the only length, if there is one.
    pub fn only(&self) -> Option<u64> {
        (self.least == self.most).then_some(self.least)
    }

    /// Draws the `nth` length. Lengths outside of the range are not drawn: the distribution is cut at
    /// its bounds.
    pub fn draw(&self, seed: u64, nth: u64) -> u64 {
        let mut random = Pcg64Mcg::seed_from_u64(seed ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        match self.distribution {
            LengthDistribution::Uniform => random.random_range(self.least..=self.most),
            LengthDistribution::Normal { mean, sd } => {
                self.cut(Normal::new(mean as f64, sd as f64), &mut random, |x| x, |x| x)
            }
            LengthDistribution::LogNormal { mean, sd } => {
                let relative = sd as f64 / mean as f64;
                let variance = relative.mul_add(relative, 1.0).ln();
                let normal = Normal::new((mean as f64).ln() - variance / 2.0, variance.sqrt());
                self.cut(normal, &mut random, |x| x.max(0.0).ln(), f64::exp)
            }
        }
    }

    /// Draws a length whose `scaled` value has the distribution `normal`, by the inverse of its
    /// distribution function between the bounds. A length stands for the values that round to it.
    fn cut<E>(
        &self,
        normal: Result<Normal, E>,
        random: &mut Pcg64Mcg,
        scaled: fn(f64) -> f64,
        unscaled: fn(f64) -> f64,
    ) -> u64 {
        let share: f64 = random.random();
        let Ok(normal) = normal else { return self.least };
        let below = |tokens: f64| normal.cdf(scaled(tokens));
        let (low, high) = (below(self.least as f64 - 0.5), below(self.most as f64 + 0.5));
        let share = (low + share * (high - low)).clamp(0.0, 1.0);
        let tokens = unscaled(normal.inverse_cdf(share)).round();
        // At the ends of the scale the inverse is infinite; `as` saturates.
        (tokens as u64).clamp(self.least, self.most)
    }
}

impl fmt::Display for LengthRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most, distribution } = self;
        match distribution {
            LengthDistribution::Uniform if least == most => write!(f, "{least}"),
            LengthDistribution::Uniform => write!(f, "{least} to {most}"),
            LengthDistribution::Normal { mean, sd } => {
                write!(f, "{least} to {most}, normal({mean}, {sd})")
            }
            LengthDistribution::LogNormal { mean, sd } => {
                write!(f, "{least} to {most}, lognormal({mean}, {sd})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(range: LengthRange) -> Vec<f64> {
        (0..40_000).map(|nth| range.draw(7, nth) as f64).collect()
    }

    fn mean_and_sd(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (mean, (variance / values.len() as f64).sqrt())
    }

    #[test]
    fn lengths_have_the_mean_and_the_deviation_of_their_distribution() {
        let wide = |distribution| LengthRange { least: 1, most: 1_000_000, distribution };
        let cases = [
            (
                LengthRange { least: 100, most: 300, distribution: LengthDistribution::Uniform },
                200.0,
                58.02,
            ),
            (wide(LengthDistribution::Normal { mean: 1000, sd: 150 }), 1000.0, 150.0),
            (wide(LengthDistribution::LogNormal { mean: 1000, sd: 500 }), 1000.0, 500.0),
            // Symmetric bounds at one standard deviation: the variance is 0.2911 of the whole.
            (
                LengthRange {
                    least: 900,
                    most: 1100,
                    distribution: LengthDistribution::Normal { mean: 1000, sd: 100 },
                },
                1000.0,
                54.0,
            ),
        ];
        for (range, mean, sd) in cases {
            let (actual, deviation) = mean_and_sd(&drawn(range));
            assert!((actual / mean - 1.0).abs() < 0.01, "{range}: mean {actual}");
            assert!((deviation / sd - 1.0).abs() < 0.03, "{range}: sd {deviation}");
        }
    }

    #[test]
    fn no_length_is_out_of_bounds_and_both_bounds_are_drawn() {
        for distribution in [
            LengthDistribution::Uniform,
            LengthDistribution::Normal { mean: 12, sd: 100 },
            LengthDistribution::LogNormal { mean: 12, sd: 100 },
            LengthDistribution::Normal { mean: 10, sd: 1 },
        ] {
            let range = LengthRange { least: 10, most: 13, distribution };
            let values = drawn(range);
            assert!(values.iter().all(|value| (10.0..=13.0).contains(value)), "{range}");
            assert!(values.contains(&10.0) && values.contains(&13.0), "{range}");
        }
        assert_eq!(LengthRange::fixed(5).draw(0, 9), 5);
        // A time to think can be zero, and a distribution far narrower or wider than its bounds.
        for (mean, sd) in [(3, 1), (1, 1_000_000), (40, 1)] {
            for distribution in [
                LengthDistribution::Normal { mean, sd },
                LengthDistribution::LogNormal { mean, sd },
            ] {
                let range = LengthRange { least: 0, most: 40, distribution };
                let values = drawn(range);
                assert!(values.iter().all(|value| (0.0..=40.0).contains(value)), "{range}");
            }
        }
    }

    #[test]
    fn the_seed_decides_the_lengths() {
        let distribution = LengthDistribution::LogNormal { mean: 500, sd: 500 };
        let range = LengthRange { least: 1, most: 9000, distribution };
        let lengths = |seed| (0..50).map(|nth| range.draw(seed, nth)).collect::<Vec<_>>();
        assert_eq!(lengths(1), lengths(1));
        assert_ne!(lengths(1), lengths(2));
    }
}
