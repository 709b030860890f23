//! The schedule of a load: when each request starts. Pure and seeded: the same load has the same
//! starts.

use std::{fmt, time::Duration};

use rand::SeedableRng;
use rand_distr::{Distribution, Exp, Gamma};
use rand_pcg::Pcg64Mcg;

/// What triggers a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// A closed loop with a constant number of requests in flight: the next one starts when one
    /// ends.
    Closed {
        /// The number of requests in flight.
        concurrency: usize,
    },
    /// An open loop: requests start at scheduled times, independent of earlier answers.
    Open {
        /// The arrival process.
        arrivals: ArrivalProcess,
        /// The largest number of requests in flight. A request beyond it waits, and the load is not
        /// reached.
        max_in_flight: usize,
    },
}

/// The arrival process of an open loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArrivalProcess {
    /// The mean number per second.
    pub rate: f64,
    /// The distribution of the gaps.
    pub gaps: Gaps,
    /// The seed of the gaps.
    pub seed: u64,
}

/// The distribution of the gaps between arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gaps {
    /// All equal.
    Constant,
    /// Exponential: a Poisson process, as independent users produce it.
    Poisson,
    /// Gamma with this shape parameter, which vLLM calls burstiness. 1 is a Poisson process,
    /// smaller values are burstier, larger ones more regular.
    Gamma {
        /// The shape parameter, above 0.
        burstiness: f64,
    },
    /// Those of a trace; [`Starts`] does not draw them.
    Recorded {
        /// How many times as fast as recorded the requests arrive.
        speed: f64,
    },
}

/// The end of a load, at the first of these limits. At least one is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// The number of requests.
    pub requests: Option<usize>,
    /// The time since the load's start after which no request starts.
    pub duration: Option<Duration>,
}

impl Shape {
    /// Returns the requested rate of an open loop, in requests per second.
    pub const fn asked_rate(&self) -> Option<f64> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { arrivals, .. } => Some(arrivals.rate),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { concurrency } => write!(f, "{concurrency} at a time"),
            Self::Open { arrivals, .. } => {
                write!(f, "{}/s, {}", arrivals.rate, arrivals.gaps)
            }
        }
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Poisson => f.write_str("poisson"),
            Self::Gamma { burstiness } => write!(f, "gamma({burstiness})"),
            Self::Recorded { speed: 1.0 } => f.write_str("recorded"),
            Self::Recorded { speed } => write!(f, "recorded at {speed}x"),
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.requests, self.duration) {
            (Some(requests), Some(duration)) => {
                write!(f, "{requests} requests or {duration:?}")
            }
            (Some(requests), None) => write!(f, "{requests} requests"),
            (None, Some(duration)) => write!(f, "{duration:?}"),
            (None, None) => f.write_str("no end"),
        }
    }
}

/// The endless starts of an open loop, counted from the load's start. Each is a sum of scheduled
/// gaps, so a late start does not delay later ones.
#[derive(Debug)]
pub struct Starts {
    arrivals: ArrivalProcess,
    random: Pcg64Mcg,
    /// The next start, seconds.
    next: f64,
}

impl Starts {
    /// Creates the starts of run `run`. Each run has different gaps; all models have the same.
    pub fn new(arrivals: ArrivalProcess, run: u32) -> Self {
        let random = Pcg64Mcg::seed_from_u64(arrivals.seed.wrapping_add(run.into()));
        Self { arrivals, random, next: 0.0 }
    }

    /// Returns the next gap, in seconds.
    fn gap(&mut self) -> f64 {
        let ArrivalProcess { rate, gaps, .. } = self.arrivals;
        let drawn = match gaps {
            Gaps::Constant | Gaps::Recorded { .. } => None,
            Gaps::Poisson => Exp::new(rate).ok().map(|exp| exp.sample(&mut self.random)),
            Gaps::Gamma { burstiness } => Gamma::new(burstiness, 1.0 / (rate * burstiness))
                .ok()
                .map(|gamma| gamma.sample(&mut self.random)),
        };
        drawn.unwrap_or(1.0 / rate)
    }
}

impl Iterator for Starts {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let start = Duration::try_from_secs_f64(self.next).ok();
        self.next += self.gap();
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(gaps: Gaps, run: u32) -> Vec<f64> {
        let arrivals = ArrivalProcess { rate: 20.0, gaps, seed: 7 };
        Starts::new(arrivals, run).take(20_001).map(|start| start.as_secs_f64()).collect()
    }

    /// Returns the mean and the coefficient of variation of the gaps.
    fn spread(gaps: Gaps) -> (f64, f64) {
        let starts = starts(gaps, 1);
        let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn constant_starts_do_not_drift() {
        let starts = starts(Gaps::Constant, 1);
        assert_eq!(starts[0], 0.0);
        assert!((starts[20_000] - 1000.0).abs() < 1e-6, "{}", starts[20_000]);
    }

    #[test]
    fn gaps_are_spread_as_their_name_says() {
        let cases = [
            (Gaps::Constant, 0.0),
            (Gaps::Poisson, 1.0),
            (Gaps::Gamma { burstiness: 1.0 }, 1.0),
            (Gaps::Gamma { burstiness: 0.25 }, 2.0),
            (Gaps::Gamma { burstiness: 4.0 }, 0.5),
        ];
        for (gaps, variation) in cases {
            let (mean, actual) = spread(gaps);
            assert!((mean - 0.05).abs() < 0.002, "{gaps}: mean {mean}");
            assert!((actual - variation).abs() < 0.06, "{gaps}: variation {actual}");
        }
    }

    #[test]
    fn a_run_is_the_same_again_and_another_is_not() {
        assert_eq!(starts(Gaps::Poisson, 1), starts(Gaps::Poisson, 1));
        assert_ne!(starts(Gaps::Poisson, 1), starts(Gaps::Poisson, 2));
    }
}
