//! When each request of a load starts. Pure and seeded: the same load gives the same starts.

use std::{fmt, time::Duration};

use rand::SeedableRng;
use rand_distr::{Distribution, Exp, Gamma};
use rand_pcg::Pcg64Mcg;

/// What decides when a request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// A closed loop: so many requests under way, the next as soon as one has ended.
    Closed {
        /// How many.
        concurrency: usize,
    },
    /// An open loop: requests come at their times, whatever became of those before.
    Open {
        /// When.
        arrivals: ArrivalProcess,
        /// How many may be under way before the next has to wait, which spoils the load.
        max_in_flight: usize,
    },
}

/// How requests come in an open loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArrivalProcess {
    /// Mean number a second.
    pub rate: f64,
    /// How the gaps between them are spread.
    pub gaps: Gaps,
    /// Seed of the gaps.
    pub seed: u64,
}

/// How the gaps between arrivals are spread around their mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gaps {
    /// All the same.
    Constant,
    /// Exponential: a Poisson process, as independent users make it.
    Poisson,
    /// Gamma with this shape parameter, which vLLM calls burstiness: 1 is a Poisson process, less
    /// is burstier, more is more even.
    Gamma {
        /// The shape parameter, above 0.
        burstiness: f64,
    },
}

/// When a load is over: at whichever comes first. At least one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// When so many requests have been sent.
    pub requests: Option<usize>,
    /// When no request is to start any more, counted from the load's start.
    pub duration: Option<Duration>,
}

impl Shape {
    /// The rate that is asked for, requests a second; in an open loop.
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

/// The starts of an open loop, counted from the load's start, without end. Each is the sum of the
/// gaps before it, so that none carries the lateness of another.
#[derive(Debug)]
pub struct Starts {
    arrivals: ArrivalProcess,
    random: Pcg64Mcg,
    /// Seconds.
    next: f64,
}

impl Starts {
    /// Those of the `run`-th run: each has gaps of its own, the same for every model.
    pub fn new(arrivals: ArrivalProcess, run: u32) -> Self {
        let random = Pcg64Mcg::seed_from_u64(arrivals.seed.wrapping_add(run.into()));
        Self { arrivals, random, next: 0.0 }
    }

    /// Seconds to the start after the next.
    fn gap(&mut self) -> f64 {
        let ArrivalProcess { rate, gaps, .. } = self.arrivals;
        let drawn = match gaps {
            Gaps::Constant => None,
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

    /// Mean and coefficient of variation of the gaps.
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
