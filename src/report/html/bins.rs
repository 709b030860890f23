//! Streams and tokens over time: bins of equal width that widen as the load lasts longer.

/// The most bins. With twice the time, neighbouring bins become one.
const MOST: usize = 240;

/// The width of the first bins, in seconds.
const FIRST_WIDTH: f64 = 0.02;

/// What happened in a bin: seconds of streams, and tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct TimeBin {
    /// Seconds that streams waited for their first token.
    pub(super) waiting: f64,
    /// Seconds in which streams received tokens.
    pub(super) receiving: f64,
    /// Tokens that arrived.
    pub(super) tokens: f64,
}

/// A load over time, in seconds since its first request.
#[derive(Debug, Clone)]
pub(super) struct TimeBins {
    width: f64,
    bins: Vec<TimeBin>,
    end: f64,
}

impl Default for TimeBins {
    fn default() -> Self {
        Self { width: FIRST_WIDTH, bins: Vec::new(), end: 0.0 }
    }
}

impl TimeBins {
    /// Adds a stream that waited from `start` to `first` and received until `last`.
    pub(super) fn add_stream(&mut self, start: f64, first: f64, last: f64) {
        if ![start, first, last].iter().all(|time| time.is_finite()) {
            return;
        }
        self.spread(start, first, |bin, seconds| bin.waiting += seconds);
        self.spread(first, last, |bin, seconds| bin.receiving += seconds);
        self.end = self.end.max(last);
    }

    /// Adds tokens that arrived at a time.
    pub(super) fn add_tokens(&mut self, time: f64, tokens: f64) {
        if let Some(bin) = self.bin(time) {
            bin.tokens += tokens;
        }
    }

    /// Adds the time between two moments to the bins that it touches.
    fn spread(&mut self, from: f64, to: f64, add: impl Fn(&mut TimeBin, f64)) {
        let from = from.max(0.0);
        if to <= from || self.bin(to).is_none() {
            return;
        }
        let first = (from / self.width) as usize;
        let last = (to / self.width) as usize;
        for index in first..=last.min(self.bins.len().saturating_sub(1)) {
            let begin = from.max(index as f64 * self.width);
            let end = to.min((index + 1) as f64 * self.width);
            if end > begin {
                add(&mut self.bins[index], end - begin);
            }
        }
    }

    /// Returns the bin of a time, after widening all bins if it lies behind the last possible one.
    fn bin(&mut self, time: f64) -> Option<&mut TimeBin> {
        if !time.is_finite() || time < 0.0 {
            return None;
        }
        while time / self.width >= MOST as f64 {
            self.widen();
        }
        let index = (time / self.width) as usize;
        if self.bins.len() <= index {
            self.bins.resize(index + 1, TimeBin::default());
        }
        self.bins.get_mut(index)
    }

    fn widen(&mut self) {
        let merged = self.bins.chunks(2).map(|pair| {
            pair.iter().fold(TimeBin::default(), |sum, bin| TimeBin {
                waiting: sum.waiting + bin.waiting,
                receiving: sum.receiving + bin.receiving,
                tokens: sum.tokens + bin.tokens,
            })
        });
        self.bins = merged.collect();
        self.width *= 2.0;
    }

    /// Returns the middle of each bin, with the streams that waited and received on average and the
    /// tokens per second.
    pub(super) fn rates(&self) -> Vec<(f64, TimeBin)> {
        let rate = |(index, bin): (usize, &TimeBin)| {
            let start = index as f64 * self.width;
            // The load may end inside the last bin.
            let width = self.width.min((self.end - start).max(self.width * 1e-3));
            let bin = TimeBin {
                waiting: bin.waiting / width,
                receiving: bin.receiving / width,
                tokens: bin.tokens / width,
            };
            (start + width / 2.0, bin)
        };
        self.bins.iter().enumerate().map(rate).collect()
    }

    /// Returns the same load in at most `most` bins.
    pub(super) fn merged(&self, most: usize) -> Self {
        let mut merged = self.clone();
        while merged.bins.len() > most.max(1) {
            merged.widen();
        }
        merged
    }

    /// Returns when the last answer ended.
    pub(super) const fn end(&self) -> f64 {
        self.end
    }

    /// Returns the width of a bin in seconds.
    pub(super) const fn width(&self) -> f64 {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_waiting_then_receiving() {
        let mut bins = TimeBins::default();
        bins.add_stream(0.0, 0.01, 0.03);
        bins.add_tokens(0.025, 4.0);
        let rates = bins.rates();
        assert_eq!(rates.len(), 2);
        assert!((rates[0].1.waiting - 0.5).abs() < 1e-9, "{rates:?}");
        assert!((rates[1].1.receiving - 1.0).abs() < 1e-9, "{rates:?}");
        assert!((rates[1].1.tokens - 400.0).abs() < 1e-6, "{rates:?}");
    }

    #[test]
    fn widening_keeps_every_second_and_token() {
        let mut bins = TimeBins::default();
        for start in 0..100 {
            let start = f64::from(start);
            bins.add_stream(start, start + 0.25, start + 1.75);
            bins.add_tokens(start + 1.0, 3.0);
        }
        assert!(bins.bins.len() <= MOST, "{}", bins.bins.len());
        let sum = |of: fn(&TimeBin) -> f64| bins.bins.iter().map(of).sum::<f64>();
        assert!((sum(|bin| bin.waiting) - 25.0).abs() < 1e-6);
        assert!((sum(|bin| bin.receiving) - 150.0).abs() < 1e-6);
        assert!((sum(|bin| bin.tokens) - 300.0).abs() < 1e-6);
    }

    #[test]
    fn impossible_times_are_left_out() {
        let mut bins = TimeBins::default();
        bins.add_stream(f64::NAN, 1.0, 2.0);
        bins.add_tokens(-1.0, 5.0);
        assert!(bins.rates().is_empty());
    }
}
