//! Empirical distributions on a logarithmic axis. The vertical axis is a normal probability scale, so
//! that the median, p95 and p99 are apart and a normal distribution is a straight line.

use maud::Markup;

use super::{
    histogram::TimeHistogram,
    keys::ModelKey,
    picture::{Anchor, PathData, Picture, PlotFrame},
    scale::{AxisScale, ScaleKind, probit},
};

/// The values of a curve.
#[derive(Debug)]
pub(super) enum CurveValues<'p> {
    /// All values, sorted.
    Sorted(Vec<f64>),
    /// Counts by size.
    Counted(&'p TimeHistogram),
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CurveStyle {
    /// In the model's colour.
    Model,
    /// Another run, dashed: its position, from 1.
    OtherRun(usize),
    /// A load of one model: its position and the number of loads.
    Load(usize, usize),
}

/// A distribution.
#[derive(Debug)]
pub(super) struct EcdfCurve<'p> {
    pub(super) key: &'p ModelKey,
    pub(super) style: CurveStyle,
    /// What distinguishes it from other curves of the model.
    pub(super) label: String,
    pub(super) values: CurveValues<'p>,
    /// The percentiles of `run.json` in the unit of the axis; `None` without enough values.
    pub(super) median: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
    /// The error of the instrument, in the unit of the axis.
    pub(super) error: Option<f64>,
}

/// A chart of distributions.
#[derive(Debug)]
pub(super) struct EcdfChart<'p> {
    /// What the picture shows, for screen readers.
    pub(super) label: String,
    /// The name of the horizontal axis, with its unit.
    pub(super) axis: String,
    pub(super) unit: &'static str,
    /// What the shares are shares of.
    pub(super) share_of: &'static str,
    pub(super) curves: Vec<EcdfCurve<'p>>,
}

/// Curves with more values are drawn by this many quantiles.
const QUANTILES: usize = 90;

/// The most values that are drawn one by one.
const STEPS: usize = 600;

/// The ends of the probability scale: 0.4 % and 99.6 %.
const EDGE: f64 = 0.996;

/// The last quantile that is drawn.
const LAST: f64 = 0.998;

const HEIGHT: u32 = 240;

impl CurveValues<'_> {
    fn range(&self) -> Option<(f64, f64)> {
        match self {
            Self::Sorted(values) => {
                let first = values.iter().copied().find(|value| *value > 0.0)?;
                Some((first, *values.last()?))
            }
            Self::Counted(histogram) => {
                // A few gaps of nearly zero, of tokens that came together, would take half the axis.
                let low = [0.005, 0.05, 0.25, 0.5].map(|share| histogram.quantile(share));
                let high = histogram.quantile(LAST)?;
                let low = low.into_iter().flatten().find(|low| *low > high * 1e-3)?;
                Some((low, high))
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Sorted(values) => values.is_empty(),
            Self::Counted(histogram) => histogram.total() == 0,
        }
    }

    /// Returns the points of the curve, as value and share, and whether they are steps.
    fn points(&self) -> (Vec<(f64, f64)>, bool) {
        let shares = || (1..=QUANTILES).map(|i| (i as f64 - 0.5) / QUANTILES as f64).chain([LAST]);
        match self {
            Self::Sorted(values) if values.len() <= STEPS => {
                let n = values.len() as f64;
                let steps = values.iter().enumerate();
                (steps.map(|(index, value)| (*value, (index + 1) as f64 / n)).collect(), true)
            }
            Self::Sorted(values) => {
                let of = |share: f64| {
                    values[((share * values.len() as f64) as usize).min(values.len() - 1)]
                };
                (shares().map(|share| (of(share), share)).collect(), false)
            }
            Self::Counted(histogram) => {
                let of = |share| Some((histogram.quantile(share)?, share));
                (shares().filter_map(of).collect(), false)
            }
        }
    }
}

impl EcdfChart<'_> {
    /// Draws the chart; `None` if no curve has a value. Also returns whether it has a band of the
    /// instrument's error.
    pub(super) fn draw(&self) -> Option<(Markup, bool)> {
        let shown = || self.curves.iter().filter(|curve| !curve.values.is_empty());
        let extremes: Vec<f64> = shown()
            .filter_map(|curve| curve.values.range())
            .flat_map(|(low, high)| [low, high])
            .collect();
        if extremes.is_empty() {
            return None;
        }
        let x = AxisScale::around(ScaleKind::Log, extremes, (38.0, 350.0), 0.04);
        let edge = probit(EDGE);
        let y =
            AxisScale { kind: ScaleKind::Linear, from: -edge, to: edge, start: 202.0, end: 18.0 };
        let frame = PlotFrame { x, y };
        let ends = format!("{:.1},{:.1},{:.4},{:.4}", y.end, y.start, y.from, y.to);
        let mut picture = Picture::new("plot", (360, HEIGHT), &self.label).data(&[
            ("data-x", &x.for_script()),
            ("data-hov", "q"),
            ("data-u", self.unit),
            ("data-y", &ends),
        ]);
        frame.draw_x(&mut picture, &x.ticks(8), &self.axis);
        self.draw_shares(&mut picture, &frame);
        let bands = shown()
            .map(|curve| curve.draw_error(&mut picture, &frame))
            .filter(|has_band| *has_band);
        let has_band = bands.count() > 0;
        // The other runs lie below the main one.
        let (main, other): (Vec<_>, Vec<_>) =
            shown().partition(|curve| !matches!(curve.style, CurveStyle::OtherRun(_)));
        other.iter().chain(&main).for_each(|curve| curve.draw_line(&mut picture, &frame));
        main.iter().for_each(|curve| curve.draw_percentiles(&mut picture, &frame));
        draw_medians(&mut picture, &frame, &main);
        Some((picture.finish(), has_band))
    }

    fn draw_shares(&self, picture: &mut Picture, frame: &PlotFrame) {
        const LABELS: [(f64, &str); 7] = [
            (0.01, "1 %"),
            (0.05, "5 %"),
            (0.25, "25 %"),
            (0.5, "p50"),
            (0.75, "75 %"),
            (0.95, "p95"),
            (0.99, "p99"),
        ];
        let ticks = LABELS.map(|(share, label)| (probit(share), label.replace(' ', "\u{202f}")));
        frame.draw_labelled_y(picture, &ticks, &format!("share of {}", self.share_of));
        for share in [0.5, 0.95, 0.99] {
            let at = frame.y.at(probit(share));
            let d = PathData::default().move_to(frame.x.start, at).line_to(frame.x.end, at).done();
            picture.path("pl", &d);
        }
    }
}

impl EcdfCurve<'_> {
    fn draw_line(&self, picture: &mut Picture, frame: &PlotFrame) {
        let (points, are_steps) = self.values.points();
        let (low, high) = (frame.y.start, frame.y.end);
        let mut path = PathData::default();
        for (index, (value, share)) in points.into_iter().enumerate() {
            let x = frame.x.clamped(value);
            let y = frame.y.at(probit(share)).clamp(high, low);
            match (index, are_steps) {
                (0, true) => _ = path.move_to(x, low).line_to(x, y),
                (0, false) => _ = path.move_to(x, y),
                (_, true) => {
                    // Across at the height of the step before, then up.
                    path.across_to(x).line_to(x, y);
                }
                (_, false) => _ = path.line_to(x, y),
            }
        }
        let class = match self.style {
            CurveStyle::Model => "s ln".to_owned(),
            CurveStyle::OtherRun(run) => format!("s ln old old{}", (run - 1) % 3 + 1),
            CurveStyle::Load(index, of) => format!("s ln o{}", shade(index, of)),
        };
        picture.model_path(&class, &path.done(), &self.key.letter, &self.label);
    }

    /// Draws the error of the instrument around the median, where it is wide enough to be seen, and
    /// returns whether it is.
    fn draw_error(&self, picture: &mut Picture, frame: &PlotFrame) -> bool {
        let Some((left, right)) = self.error_band(frame) else { return false };
        let is_visible =
            right - left >= WIDE_ENOUGH && !matches!(self.style, CurveStyle::OtherRun(_));
        if is_visible {
            let size = (right - left, frame.y.start - frame.y.end);
            picture.rect("err", (left, frame.y.end), size);
        }
        is_visible
    }

    fn error_band(&self, frame: &PlotFrame) -> Option<(f64, f64)> {
        let (median, error) = (self.median?, self.error?);
        let left = frame.x.clamped((median - error).max(frame.x.from));
        Some((left, frame.x.clamped(median + error)))
    }

    fn draw_percentiles(&self, picture: &mut Picture, frame: &PlotFrame) {
        for (share, value) in [(0.95, self.p95), (0.99, self.p99)] {
            let Some(value) = value else { continue };
            let (x, y) = (frame.x.clamped(value), frame.y.at(probit(share)));
            let d = PathData::default().move_to(x, y - 5.0).line_to(x, y + 5.0).done();
            picture.model_path("s tk", &d, &self.key.letter, "");
        }
    }
}

/// Bands of the instrument's error that are narrower are not drawn.
const WIDE_ENOUGH: f64 = 1.5;

/// Returns the shade of a load: light for the first, full for the last.
fn shade(index: usize, of: usize) -> usize {
    if of < 2 { 3 } else { (index * 3 + (of - 1) / 2) / (of - 1) }
}

/// Draws the mark of each median: the model's letter, or the load's name. Marks that would cover each
/// other move apart, with a line to their place.
fn draw_medians(picture: &mut Picture, frame: &PlotFrame, curves: &[&EcdfCurve<'_>]) {
    let y = frame.y.at(0.0);
    let marked: Vec<_> =
        curves.iter().filter_map(|curve| Some((*curve, frame.x.clamped(curve.median?)))).collect();
    let badges: Vec<_> = marked
        .iter()
        .filter(|(curve, _)| curve.style == CurveStyle::Model && curve.key.is_one_of_several)
        .collect();
    let places = spread(
        &badges.iter().map(|(_, x)| *x).collect::<Vec<_>>(),
        16.0,
        (frame.x.start + 8.0, frame.x.end),
    );
    for ((curve, x), place) in badges.iter().zip(places) {
        let letter = &curve.key.letter;
        if (place - x).abs() > 2.0 {
            let d = PathData::default().move_to(*x, y).line_to(place, y).done();
            picture.model_path("s wh", &d, letter, "");
            picture.mark("s dotf", (*x, y), 2.5, letter, &curve.key.name);
        }
        picture.badge(curve.key, (place, y));
    }
    let others = marked
        .iter()
        .filter(|(curve, _)| curve.style == CurveStyle::Model && !curve.key.is_one_of_several);
    others.for_each(|(curve, x)| picture.mark("s dotf", (*x, y), 4.0, &curve.key.letter, "median"));
    draw_load_labels(picture, frame, &marked);
}

/// Writes the name of each load next to its curve, each a line lower than the last, so that names of
/// curves that lie close together do not cover each other.
fn draw_load_labels(picture: &mut Picture, frame: &PlotFrame, marked: &[(&EcdfCurve<'_>, f64)]) {
    let loads: Vec<_> =
        marked.iter().filter(|(curve, _)| matches!(curve.style, CurveStyle::Load(..))).collect();
    for (index, (curve, x)) in loads.iter().enumerate() {
        let share = [0.25, 0.12, 0.5, 0.05, 0.75, 0.9, 0.02, 0.97][index % 8];
        let (points, _) = curve.values.points();
        let at = points
            .iter()
            .find(|(_, p)| *p >= share)
            .map_or(*x, |(value, _)| frame.x.clamped(*value));
        let y = frame.y.at(probit(share)) + 3.5;
        let width = curve.label.chars().count() as f64 * 6.2 + 6.0;
        match at + width > frame.x.end {
            true => picture.text("lb st2", (at - 5.0, y), Anchor::End, &curve.label),
            false => picture.text("lb st2", (at + 5.0, y), Anchor::Start, &curve.label),
        }
    }
}

/// Moves positions apart so that neighbours have at least `gap` between them, as little as possible,
/// within the bounds.
pub(super) fn spread(positions: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by(|a, b| positions[*a].total_cmp(&positions[*b]));
    // Clusters of touching marks, each centred on the mean of its positions.
    let mut clusters: Vec<(Vec<usize>, f64)> = Vec::new();
    for index in order {
        clusters.push((vec![index], positions[index]));
        while let [.., (left, left_at), (right, right_at)] = clusters.as_slice() {
            let reach = gap * (left.len() + right.len()) as f64 / 2.0;
            if right_at - left_at >= reach {
                break;
            }
            let members: Vec<_> = left.iter().chain(right).copied().collect();
            let sum: f64 = members.iter().map(|index| positions[*index]).sum();
            let half = gap * (members.len() - 1) as f64 / 2.0;
            let centre = (sum / members.len() as f64).min(high - half).max(low + half);
            clusters.truncate(clusters.len() - 2);
            clusters.push((members, centre));
        }
    }
    let mut places = positions.to_vec();
    for (members, centre) in clusters {
        let first = centre - gap * (members.len() - 1) as f64 / 2.0;
        members
            .iter()
            .enumerate()
            .for_each(|(rank, index)| places[*index] = first + gap * rank as f64);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(curves: Vec<EcdfCurve<'_>>) -> EcdfChart<'_> {
        EcdfChart {
            label: "Distribution".into(),
            axis: "TTFT, ms (log)".into(),
            unit: "ms",
            share_of: "requests",
            curves,
        }
    }

    fn curve<'k>(key: &'k ModelKey, values: CurveValues<'static>) -> EcdfCurve<'k> {
        let (median, p95) = (Some(20.0), Some(30.0));
        EcdfCurve {
            key,
            style: CurveStyle::Model,
            label: String::new(),
            values,
            median,
            p95,
            p99: None,
            error: None,
        }
    }

    #[test]
    fn a_curve_has_a_step_for_each_value() {
        let key = ModelKey::new(0, "m", false, true);
        let svg =
            chart(vec![curve(&key, CurveValues::Sorted(vec![10.0, 20.0, 40.0]))]).draw().unwrap();
        let svg = svg.0.into_string();
        let line = svg.split(r#"class="s ln" d=""#).nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(line.matches('V').count(), 3, "{line}");
        assert!(svg.contains("TTFT, ms (log)") && svg.contains("share of requests"), "{svg}");
        assert_eq!(svg.matches("s tk").count(), 1, "p95 has a tick, p99 has none: {svg}");
    }

    #[test]
    fn many_values_become_quantiles() {
        let key = ModelKey::new(0, "m", false, true);
        let values = (1..=10_000).map(f64::from).collect();
        let svg =
            chart(vec![curve(&key, CurveValues::Sorted(values))]).draw().unwrap().0.into_string();
        assert!(svg.len() < 5_000, "{}", svg.len());
    }

    #[test]
    fn a_chart_without_values_is_not_drawn() {
        let key = ModelKey::new(0, "m", false, true);
        assert!(chart(vec![curve(&key, CurveValues::Sorted(vec![]))]).draw().is_none());
        assert!(chart(vec![curve(&key, CurveValues::Sorted(vec![0.0]))]).draw().is_none());
    }

    #[test]
    fn marks_move_apart_and_stay_inside() {
        let places = spread(&[100.0, 102.0, 300.0, 101.0], 16.0, (0.0, 310.0));
        assert_eq!(places, [85.0, 117.0, 300.0, 101.0]);
        let places = spread(&[309.0, 309.0], 16.0, (0.0, 310.0));
        assert_eq!(places, [294.0, 310.0]);
    }

    #[test]
    fn shades_reach_from_light_to_full() {
        assert_eq!([0, 1, 2, 3].map(|index| shade(index, 4)), [0, 1, 2, 3]);
        assert_eq!(shade(0, 1), 3);
        assert_eq!(shade(6, 7), 3);
    }
}
