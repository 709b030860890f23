//! A histogram of positive values that takes the same memory for ten of them and for ten million.

use llm_stream_core::statistic::Statistic;

/// The ratio of the two ends of a bin: percentiles are exact within 2 %.
const RATIO: f64 = 1.02;

/// The lower end of the second bin; the first one has all smaller values.
const LEAST: f64 = 1e-6;

/// The number of bins. The last one begins at 10¹⁰.
const BINS: usize = 1862;

/// Counts values in bins of equal width on a log axis.
#[derive(Debug, Clone)]
pub(super) struct LogHistogram {
    bins: Vec<u32>,
    count: usize,
    sum: f64,
    squares: f64,
    least: f64,
    most: f64,
}

impl Default for LogHistogram {
    fn default() -> Self {
        let (least, most) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { bins: vec![0; BINS], count: 0, sum: 0.0, squares: 0.0, least, most }
    }
}

impl LogHistogram {
    /// Counts `value`.
    pub(super) fn add(&mut self, value: f64) {
        let bin = bin(value);
        self.bins[bin] = self.bins[bin].saturating_add(1);
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    /// The number of values.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns a statistic of the values and of `infinite` further ones that are larger than any;
    /// `None` if it needs more values. Mean, standard deviation and extremes leave those out.
    pub(super) fn statistic(&self, statistic: Statistic, infinite: usize) -> Option<f64> {
        let percent = match statistic {
            Statistic::Median => 50.0,
            Statistic::Percentile(percent) => percent,
            _ => return self.moment(statistic),
        };
        let all = self.count + infinite;
        if all < statistic.needs() {
            return None;
        }
        let rank = ((percent / 100.0 * all as f64).ceil() as usize).clamp(1, all);
        let mut below = 0;
        let bin = self.bins.iter().position(|&count| {
            below += count as usize;
            below >= rank
        });
        Some(bin.map_or(f64::INFINITY, |bin| middle(bin).clamp(self.least, self.most)))
    }

    fn moment(&self, statistic: Statistic) -> Option<f64> {
        let count = self.count as f64;
        let value = match statistic {
            Statistic::Min => self.least,
            Statistic::Max => self.most,
            Statistic::Sd => {
                ((self.squares - self.sum * self.sum / count).max(0.0) / (count - 1.0)).sqrt()
            }
            _ => self.sum / count,
        };
        (self.count >= statistic.needs()).then_some(value)
    }

    /// Returns how many values each of `columns` has that divide the range of the values into equal
    /// parts of the log axis. A bin that two columns share is divided between them.
    pub(super) fn columns(&self, columns: usize) -> Vec<f64> {
        let mut heights = vec![0.0; columns];
        let first = self.bins.iter().position(|&count| count > 0);
        let last = self.bins.iter().rposition(|&count| count > 0);
        let (Some((first, last)), true) = (first.zip(last), columns > 0) else { return heights };
        // Narrow ranges are not stretched: each column has at least one bin.
        let width = columns as f64 / (last - first + 1).max(columns) as f64;
        for (bin, &count) in self.bins[first..=last].iter().enumerate() {
            let (low, high) = (bin as f64 * width, (bin + 1) as f64 * width);
            let column = (low as usize).min(columns - 1);
            let beyond = ((high - (column + 1) as f64) / width).clamp(0.0, 1.0);
            heights[column] += f64::from(count) * (1.0 - beyond);
            if let Some(next) = heights.get_mut(column + 1) {
                *next += f64::from(count) * beyond;
            }
        }
        heights
    }
}

fn bin(value: f64) -> usize {
    if value.is_nan() || value < LEAST {
        return 0;
    }
    let bin = (value / LEAST).ln() / RATIO.ln();
    1 + (bin as usize).min(BINS - 2)
}

/// Returns the value in the middle of a bin.
fn middle(bin: usize) -> f64 {
    LEAST * RATIO.powf(bin as f64 - 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> LogHistogram {
        let mut histogram = LogHistogram::default();
        values.into_iter().for_each(|value| histogram.add(value));
        histogram
    }

    #[test]
    fn statistics_are_those_of_the_values_within_the_width_of_a_bin() {
        let values: Vec<_> = (1..=1000).map(|n| f64::from(n) * 1e-3).collect();
        let histogram = of(values.iter().copied());
        for statistic in ["mean", "median", "min", "max", "sd", "p90", "p99"] {
            let statistic = Statistic::by_name(statistic).unwrap();
            let exact = statistic.of(&values).unwrap();
            let binned = histogram.statistic(statistic, 0).unwrap();
            assert!((binned / exact - 1.0).abs() < RATIO - 1.0, "{statistic}: {binned} {exact}");
        }
    }

    #[test]
    fn failed_requests_are_slower_than_any() {
        let histogram = of((0..185).map(|_| 0.05));
        let p95 = Statistic::Percentile(95.0);
        assert_eq!(histogram.statistic(p95, 15), Some(f64::INFINITY));
        assert!((histogram.statistic(p95, 9).unwrap() - 0.05).abs() < 1e-12);
        assert!((histogram.statistic(Statistic::Mean, 15).unwrap() - 0.05).abs() < 1e-12);
    }

    #[test]
    fn a_statistic_of_too_few_values_is_absent() {
        let none = LogHistogram::default();
        for name in ["mean", "median", "min", "max", "sd", "p95"] {
            assert_eq!(none.statistic(Statistic::by_name(name).unwrap(), 0), None, "{name}");
        }
        assert_eq!(of([1.0]).statistic(Statistic::Sd, 0), None);
        assert_eq!(of([1.0; 92]).statistic(Statistic::Percentile(95.0), 0), None);
        assert!(of([1.0; 93]).statistic(Statistic::Percentile(95.0), 0).is_some());
    }

    #[test]
    fn columns_have_every_value() {
        assert_eq!(of([1.0, 1.0, 1.001]).columns(4), [3.0, 0.0, 0.0, 0.0]);
        let ends = of([1.0, 100.0]).columns(4);
        assert!((ends[0] - 1.0).abs() < 1e-9 && (ends[3] - 1.0).abs() < 1e-9, "{ends:?}");
        // Values that are even on the log axis have columns of one height.
        let even = of((0..10_000).map(|n| 1.0008_f64.powi(n))).columns(60);
        let (inner, sum) = (&even[1..59], even.iter().sum::<f64>());
        assert!((sum - 10_000.0).abs() < 1e-6, "{sum}");
        assert!(inner.iter().all(|height| (height / 168.0 - 1.0).abs() < 0.1), "{inner:?}");
        let extremes = of([0.0, f64::MAX, f64::NAN, 1.0]).columns(5);
        assert!((extremes.iter().sum::<f64>() - 4.0).abs() < 1e-9, "{extremes:?}");
        assert!(of([1.0]).columns(0).is_empty());
        assert_eq!(LogHistogram::default().columns(2), [0.0, 0.0]);
    }
}
