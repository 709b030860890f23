//! A histogram of times with fine logarithmic bins, so that millions of gaps need a few kilobytes.

/// Bins per factor of ten: neighbouring bins differ by 0.6 %, less than a pixel of any chart.
const PER_DECADE: f64 = 400.0;

/// The smallest time that has its own bin, in milliseconds; shorter ones are in the first.
const LEAST: f64 = 1e-4;

/// Counts of times by size.
#[derive(Debug, Clone, Default)]
pub(super) struct TimeHistogram {
    counts: Vec<u32>,
    total: u64,
    least: Option<f64>,
    most: Option<f64>,
}

impl TimeHistogram {
    /// Counts a time in milliseconds.
    pub(super) fn add(&mut self, millis: f64) {
        if !millis.is_finite() {
            return;
        }
        let bin = ((millis.max(LEAST) / LEAST).log10() * PER_DECADE).round() as usize;
        if self.counts.len() <= bin {
            self.counts.resize(bin + 1, 0);
        }
        self.counts[bin] = self.counts[bin].saturating_add(1);
        self.total += 1;
        self.least = Some(self.least.map_or(millis, |least| least.min(millis)));
        self.most = Some(self.most.map_or(millis, |most| most.max(millis)));
    }

    /// Returns the number of times.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Returns the shortest and the longest time.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        self.least.zip(self.most)
    }

    /// Returns the time that a share of the times does not exceed, to within half a bin.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let (least, most) = self.range()?;
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bin = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        let value = LEAST * 10f64.powf(bin as f64 / PER_DECADE);
        Some(value.clamp(least, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_values_to_half_a_percent() {
        let mut histogram = TimeHistogram::default();
        (1..=1000).for_each(|value| histogram.add(f64::from(value)));
        for (share, exact) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile(share).unwrap();
            assert!((found / exact - 1.0).abs() < 0.005, "{share}: {found}");
        }
        assert_eq!(histogram.range(), Some((1.0, 1000.0)));
        assert_eq!(histogram.total(), 1000);
    }

    #[test]
    fn zero_and_infinite_times_do_no_harm() {
        let mut histogram = TimeHistogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.add(0.0);
        histogram.add(f64::INFINITY);
        assert_eq!((histogram.total(), histogram.quantile(0.5)), (1, Some(0.0001_f64.min(0.0))));
    }
}
