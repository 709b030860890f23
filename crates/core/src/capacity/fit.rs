//! The curve through the results of several loads, and where it crosses a limit.

use statrs::distribution::ContinuousCDF;

use super::SearchPoint;
use crate::interval::{Interval, student};

/// The fewest loads for a curve.
const MIN_LOADS: usize = 3;

/// The fewest loads whose scatter says how far the curve may be off.
const RELIABLE: usize = 5;

/// The distance from the limit, on a logarithmic scale, beyond which a figure does not count: far
/// from it the course is not a line.
const FAR: f64 = 1.6;

/// The assumed standard deviation of a figure on a logarithmic scale, which counts as much as one
/// load: few loads can lie on a line by chance.
const ASSUMED: f64 = 0.05;

/// The assumed variance of a share, as a multiple of that of independent requests, which counts as
/// much as one load.
const ASSUMED_DISPERSION: f64 = 25.0;

/// The confidence of the interval. It is above 95 %, because the search ends when it is narrow, and
/// so more often when it is too narrow.
const CONFIDENCE: f64 = 0.98;

/// The estimate is not more certain than this, on a logarithmic scale.
const LEAST: f64 = 0.005;

/// The rounds after which a logistic curve has converged or never will.
const ROUNDS: usize = 50;

/// Where the curve through the results of a limit crosses it. Loads are logarithms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    /// The crossing.
    pub(super) crossing: f64,
    /// The distance of each end of its 95 % interval.
    low: f64,
    high: f64,
    loads: usize,
}

impl Fit {
    /// Where the first of `limits` limits is crossed; `None` where no curve shows it.
    pub(super) fn of<'a>(
        points: impl Iterator<Item = &'a SearchPoint>,
        limits: usize,
    ) -> Option<Self> {
        let points: Vec<_> = points.collect();
        let mut lowest: Option<Self> = None;
        for nth in 0..limits {
            let of_limit = || {
                points.iter().filter_map(|point| Some((point.rate().ln(), point.limits.get(nth)?)))
            };
            let is_missed = of_limit().any(|(_, limit)| !limit.looks_held);
            if !is_missed {
                continue;
            }
            let shares: Vec<_> = of_limit().filter_map(|(x, of)| Some((x, of.missed?))).collect();
            let margins = of_limit().filter_map(|(x, of)| Some((x, of.margin?)));
            let margins: Vec<_> = margins.filter(|(_, margin)| margin.abs() < FAR).collect();
            let fit = if shares.is_empty() { line(&margins) } else { logistic(&shares) };
            // A limit that is missed without a curve decides by itself.
            let fit = fit?;
            lowest = Some(lowest.filter(|of| of.crossing <= fit.crossing).unwrap_or(fit));
        }
        lowest
    }

    /// Whether there are enough loads for its interval.
    pub(super) fn is_reliable(&self) -> bool {
        self.loads >= RELIABLE
    }

    /// Returns the crossing and its interval as loads.
    pub(super) fn estimate(&self) -> (f64, Interval) {
        let low = (self.crossing - self.low).exp();
        (self.crossing.exp(), Interval { low, high: (self.crossing + self.high).exp() })
    }
}

/// The share of the requests under a load that miss a limit, and the share that may.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MissedShare {
    /// The share, 0 to 1.
    pub share: f64,
    /// The share that the limit allows, 0 to 1.
    pub allowed: f64,
    /// The number of requests.
    pub requests: usize,
}

/// Where the straight line through `points` crosses zero, if it falls.
fn line(points: &[(f64, f64)]) -> Option<Fit> {
    let n = points.len() as f64;
    let crosses = points.iter().any(|(_, y)| *y >= 0.0) && points.iter().any(|(_, y)| *y < 0.0);
    if points.len() < MIN_LOADS || !crosses {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
    let sxx: f64 = points.iter().map(|(of, _)| (of - x).powi(2)).sum();
    let sxy: f64 = points.iter().map(|(of, margin)| (of - x) * (margin - y)).sum();
    let slope = sxy / sxx;
    let residual = |(of, margin): &(f64, f64)| margin - y - slope * (of - x);
    let squares: f64 = points.iter().map(|point| residual(point).powi(2)).sum();
    let freedom = n - 2.0 + 1.0;
    let variance = (squares + ASSUMED.powi(2)) / freedom;
    let errors = (variance / n, variance / sxx);
    // It falls, a rising curve would not be one.
    let (low, high) = fieller((y, -slope), errors, freedom)?;
    Some(Fit { crossing: x - y / slope, low, high, loads: points.len() })
}

/// Where the logistic curve through the shares crosses the allowed share, if it rises. It is fitted
/// by quasi-likelihood (Wedderburn 1974), so that a load with a rare long queue counts with its
/// share, and the dispersion comes from the scatter of the loads.
fn logistic(points: &[(f64, MissedShare)]) -> Option<Fit> {
    let m = points.len() as f64;
    let (_, MissedShare { allowed, .. }) = points.first()?;
    let informative = points.iter().filter(|(_, of)| of.share > 0.0 && of.share < 0.9).count();
    if points.len() < MIN_LOADS || informative < 2 {
        return None;
    }
    let target = (allowed / (1.0 - allowed)).ln();
    let x0 = points.iter().map(|(x, _)| x).sum::<f64>() / m;
    let (mut level, mut slope) = (target, 20.0);
    let mut sums = Sums::default();
    for _ in 0..ROUNDS {
        sums = Sums::default();
        for (x, of) in points {
            let x = x - x0;
            let p = 1.0 / (1.0 + (-(level + slope * x)).exp());
            let weight = (of.requests as f64 * p * (1.0 - p)).max(1e-9);
            sums.add(x, (of.share - p) * of.requests as f64, weight);
        }
        let (of_level, of_slope) = sums.step()?;
        level += of_level.clamp(-3.0, 3.0);
        slope = (slope + of_slope.clamp(-10.0, 10.0)).clamp(1.0, 500.0);
        if of_level.abs() < 1e-9 && of_slope.abs() < 1e-9 {
            break;
        }
    }
    let chi: f64 = points
        .iter()
        .map(|(x, of)| {
            let p = 1.0 / (1.0 + (-(level + slope * (x - x0))).exp());
            let p = p.clamp(1e-4, 1.0 - 1e-4);
            (of.share - p).powi(2) * of.requests as f64 / (p * (1.0 - p))
        })
        .sum();
    let freedom = m - 2.0 + 1.0;
    let dispersion = ((chi + ASSUMED_DISPERSION) / freedom).max(1.0);
    // Centred where level and slope are uncorrelated.
    let center = sums.wx / sums.w;
    let at_center = level + slope * center - target;
    let sxx = sums.wxx - sums.w * center * center;
    let errors = (dispersion / sums.w, dispersion / sxx);
    let (low, high) = fieller((-at_center, slope), errors, freedom)?;
    Some(Fit { crossing: x0 + center - at_center / slope, low, high, loads: points.len() })
}

/// The sums of a round of iteratively reweighted least squares.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    w: f64,
    wx: f64,
    wxx: f64,
    r: f64,
    rx: f64,
}

impl Sums {
    fn add(&mut self, x: f64, residual: f64, weight: f64) {
        self.w += weight;
        self.wx += weight * x;
        self.wxx += weight * x * x;
        self.r += residual;
        self.rx += residual * x;
    }

    /// The step of level and slope.
    fn step(&self) -> Option<(f64, f64)> {
        let determinant = self.w * self.wxx - self.wx * self.wx;
        let of_level = (self.r * self.wxx - self.rx * self.wx) / determinant;
        let of_slope = (self.rx * self.w - self.r * self.wx) / determinant;
        (of_level.is_finite() && of_slope.is_finite()).then_some((of_level, of_slope))
    }
}

/// Returns the distances of the ends of Fieller's interval from `mean / slope`, which are infinite if
/// the slope is not certainly positive; `None` if it is not positive.
fn fieller(
    (mean, slope): (f64, f64),
    (of_mean, of_slope): (f64, f64),
    freedom: f64,
) -> Option<(f64, f64)> {
    let t = student(freedom).inverse_cdf((1.0 + CONFIDENCE) / 2.0);
    let ratio = mean / slope;
    let g = t * t * of_slope / (slope * slope);
    if slope.is_nan() || slope <= 0.0 || g.is_nan() {
        return None;
    }
    if g >= 1.0 {
        return Some((f64::INFINITY, f64::INFINITY));
    }
    let root = t / slope * (of_mean * (1.0 - g) + of_slope * ratio * ratio).sqrt();
    let (low, high) = ((ratio - root) / (1.0 - g), (ratio + root) / (1.0 - g));
    Some(((ratio - low).max(LEAST), (high - ratio).max(LEAST)))
}
