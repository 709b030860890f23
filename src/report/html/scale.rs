//! Scales of axes: linear, logarithmic, and the normal probability scale. Pure.

use statrs::distribution::{ContinuousCDF as _, Normal};

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScaleKind {
    Linear,
    Log,
}

/// An axis: the values `from` and `to` lie at the positions `start` and `end` of the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct AxisScale {
    pub(super) kind: ScaleKind,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) start: f64,
    pub(super) end: f64,
}

impl AxisScale {
    /// Returns an axis for the finite values among `values`, with a margin of `margin` of its length
    /// at each end. Logarithmic axes need values above zero; without any, they reach from 1 to 10.
    pub(super) fn around(
        kind: ScaleKind,
        values: impl IntoIterator<Item = f64>,
        (start, end): (f64, f64),
        margin: f64,
    ) -> Self {
        let is_usable =
            |value: &f64| value.is_finite() && (kind == ScaleKind::Linear || *value > 0.0);
        let (low, high) = values
            .into_iter()
            .filter(is_usable)
            .map(|value| kind.forward(value))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        // A single value still needs a width.
        let least = match kind {
            ScaleKind::Log => 0.08,
            ScaleKind::Linear => (low.abs().max(high.abs()) * 0.02).max(1e-9),
        };
        let pad = ((high - low) * margin).max((least - (high - low)) / 2.0).max(0.0);
        Self { kind, from: kind.back(low - pad), to: kind.back(high + pad), start, end }
    }

    /// Returns an axis from zero to the largest of `values`, with a margin above.
    pub(super) fn from_zero(
        values: impl IntoIterator<Item = f64>,
        (start, end): (f64, f64),
    ) -> Self {
        let high = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let to = if high > 0.0 { high * 1.1 } else { 1.0 };
        Self { kind: ScaleKind::Linear, from: 0.0, to, start, end }
    }

    /// Returns the position of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let (low, high) = (self.kind.forward(self.from), self.kind.forward(self.to));
        let share = (self.kind.forward(value) - low) / (high - low);
        self.start + share * (self.end - self.start)
    }

    /// Returns the position of a value, or that of the nearest end of the axis.
    pub(super) fn clamped(&self, value: f64) -> f64 {
        let (low, high) = (self.start.min(self.end), self.start.max(self.end));
        let at = self.at(value);
        if at.is_nan() { self.start } else { at.clamp(low, high) }
    }

    /// Returns at most about `most` round values on the axis.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        match self.kind {
            ScaleKind::Linear => linear_ticks(self.from, self.to, most),
            ScaleKind::Log => log_ticks(self.from, self.to, most),
        }
    }

    /// Returns the axis for the script of the page: positions and transformed values of its ends.
    pub(super) fn for_script(&self) -> String {
        let log = u8::from(self.kind == ScaleKind::Log);
        let (low, high) = (self.kind.forward(self.from), self.kind.forward(self.to));
        format!("{:.1},{:.1},{low:.6},{high:.6},{log}", self.start, self.end)
    }
}

impl ScaleKind {
    fn forward(self, value: f64) -> f64 {
        if self == Self::Log { value.log10() } else { value }
    }

    fn back(self, value: f64) -> f64 {
        if self == Self::Log { 10f64.powf(value) } else { value }
    }
}

/// Returns multiples of 1, 2, 2.5 or 5 times a power of ten.
fn linear_ticks(from: f64, to: f64, most: usize) -> Vec<f64> {
    let span = to - from;
    if !(span.is_finite() && span > 0.0) {
        return Vec::new();
    }
    let raw = span / most.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|step| step * power >= raw * 0.999);
    let step = step.unwrap_or(10.0) * power;
    let first = (from / step - 1e-9).ceil();
    let last = (to / step + 1e-9).floor();
    (0..=(last - first).max(-1.0) as i64).map(|i| (first + i as f64) * step).collect()
}

/// Returns 1, 2, 5 of each power of ten; fewer on a long axis, more on a short one.
fn log_ticks(from: f64, to: f64, most: usize) -> Vec<f64> {
    const SETS: [&[f64]; 4] =
        [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]];
    let within = |value: &f64| *value >= from * 0.999_999 && *value <= to * 1.000_001;
    let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
    let of = |set: &[f64]| -> Vec<f64> {
        let all = decades.clone().flat_map(|power| set.iter().map(move |m| m * 10f64.powi(power)));
        all.filter(within).collect()
    };
    let candidates = SETS.iter().rev().map(|set| of(set));
    let finest = candidates.into_iter().find(|ticks| ticks.len() <= most);
    match finest {
        Some(ticks) if ticks.len() >= 3 => ticks,
        // Less than a factor of about 3, or many decades.
        Some(ticks) if to / from > 10.0 => ticks,
        Some(_) => linear_ticks(from, to, most),
        None => {
            let powers = of(&[1.0]);
            let every = powers.len().div_ceil(most.max(1));
            powers.into_iter().step_by(every.max(1)).collect()
        }
    }
}

/// Returns the position of a probability on the normal probability scale, in standard deviations.
pub(super) fn probit(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability.clamp(1e-9, 1.0 - 1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(from: f64, to: f64) -> AxisScale {
        AxisScale { kind: ScaleKind::Log, from, to, start: 0.0, end: 100.0 }
    }

    #[test]
    fn a_log_axis_places_factors_at_equal_distances() {
        let axis = log(1.0, 100.0);
        assert_eq!(axis.at(1.0), 0.0);
        assert!((axis.at(10.0) - 50.0).abs() < 1e-9);
        assert_eq!(axis.clamped(0.0), 0.0);
        assert_eq!(axis.clamped(1e9), 100.0);
    }

    #[test]
    fn ticks_are_round_and_not_too_many() {
        assert_eq!(log(15.0, 120.0).ticks(8), [15.0, 20.0, 30.0, 40.0, 50.0, 70.0, 100.0]);
        assert_eq!(log(1.0, 1000.0).ticks(4), [1.0, 10.0, 100.0, 1000.0]);
        assert!(log(1e-3, 1e9).ticks(5).len() <= 5);
        let ticks = linear_ticks(493.0, 533.0, 4);
        assert_eq!(ticks, [500.0, 510.0, 520.0, 530.0]);
        assert!(linear_ticks(1.0, 1.0, 4).is_empty());
    }

    #[test]
    fn a_narrow_log_axis_has_linear_ticks() {
        let ticks = log(10.0, 10.9).ticks(6);
        assert!(ticks.len() >= 3, "{ticks:?}");
        assert!(ticks.iter().all(|tick| (10.0..=10.9).contains(tick)), "{ticks:?}");
    }

    #[test]
    fn an_axis_without_usable_values_is_still_an_axis() {
        let axis = AxisScale::around(ScaleKind::Log, [0.0, f64::NAN], (0.0, 10.0), 0.05);
        assert!(axis.to > axis.from && axis.from > 0.0);
        let single = AxisScale::around(ScaleKind::Linear, [5.0], (0.0, 10.0), 0.05);
        assert!((single.at(5.0) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn the_probability_scale_is_symmetric() {
        assert!(probit(0.5).abs() < 1e-9);
        assert!((probit(0.95) - 1.644_853_6).abs() < 1e-5);
        assert!((probit(0.05) + probit(0.95)).abs() < 1e-9);
        assert!(probit(0.0).is_finite() && probit(1.0).is_finite());
    }
}
