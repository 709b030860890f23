//! Requests within every stated limit, against the load.

use llm_stream_core::text::visible;
use maud::{Markup, html};

use super::{
    keys::ModelKey,
    load::{ModelLoads, is_closed_loop, offered, size_in_words},
    numbers::{THIN, percent, plain},
    page_run::{PageGroup, ShownFigure, ends},
    picture::{Anchor, PathData, Picture, PlotFrame},
    scale::{AxisScale, ScaleKind},
    table::ChartFrame,
};

/// The share of good requests from which a point is filled.
const MOSTLY: f64 = 0.95;

/// A load in the chart.
struct GoodPoint<'p> {
    group: PageGroup<'p>,
    offered: f64,
    good: ShownFigure,
    share: Option<f64>,
    interval: Option<(f64, f64)>,
}

/// Draws the goodput against the rate, or against the streams, of models with several such loads.
pub(super) fn charts(models: &[ModelLoads<'_>]) -> Vec<Markup> {
    [false, true].into_iter().filter_map(|is_closed| chart(models, is_closed)).collect()
}

fn points<'p>(model: &ModelLoads<'p>, is_closed: bool) -> Vec<GoodPoint<'p>> {
    let point = |group: &PageGroup<'p>| {
        let good = group.shown("goodput", "mean")?;
        let interval = group.figure("goodput").and_then(|figure| figure.intervals.mean.as_ref());
        Some(GoodPoint {
            group: *group,
            offered: offered(group),
            good,
            share: group
                .figure("goodput_ratio")
                .and_then(|figure| figure.mean)
                .map(|of| of / 100.0),
            interval: interval.map(ends),
        })
    };
    let groups = model.groups.iter().filter(|group| is_closed_loop(group) == is_closed);
    groups.filter_map(point).collect()
}

fn chart(models: &[ModelLoads<'_>], is_closed: bool) -> Option<Markup> {
    let series = models.iter().map(|model| (model.key, points(model, is_closed)));
    let series: Vec<_> = series.filter(|(_, points)| points.len() > 1).collect();
    let all = || series.iter().flat_map(|(_, points)| points);
    let best = all().max_by(|a, b| a.good.value().total_cmp(&b.good.value()))?;
    let (key, _) =
        series.iter().find(|(_, points)| points.iter().any(|it| std::ptr::eq(it, best)))?;
    let limits = best.group.report.workload.as_ref().and_then(|load| load.goodput.as_deref());
    let axis = if is_closed { "streams in flight (log)" } else { "offered rate, req/s" };
    let frame = ChartFrame {
        title: Some(html! {
            (key.name) " serves at most " (best.good) (THIN) "good req/s, with " (size_in_words(&best.group))
        }),
        subtitle: Some(html! {
            "Requests per second that meet " (limits_in_words(limits)) ". Bar: interval"
        }),
        art: Some(draw(&series, is_closed, axis)),
        note: Some(html! {
            "Filled: " (percent(MOSTLY)) " or more of the requests are good. Hollow: fewer."
        }),
        ..ChartFrame::default()
    };
    Some(frame.render())
}

fn draw(series: &[(&ModelKey, Vec<GoodPoint<'_>>)], is_closed: bool, axis: &str) -> Markup {
    let all = || series.iter().flat_map(|(_, points)| points);
    let loads = all().map(|point| point.offered);
    let x = match is_closed {
        true => AxisScale::around(ScaleKind::Log, loads, (38.0, 340.0), 0.06),
        false => AxisScale::from_zero(loads, (38.0, 340.0)),
    };
    let tops =
        all().flat_map(|point| [point.good.value(), point.interval.map_or(0.0, |(_, high)| high)]);
    let y = AxisScale::from_zero(tops, (202.0, 18.0));
    let described = series.iter().flat_map(|(key, points)| {
        points.iter().map(|point| {
            format!("{} with {}: {}", key.name, size_in_words(&point.group), point.good.text())
        })
    });
    let label = format!(
        "Good requests per second against the load. {}",
        described.collect::<Vec<_>>().join("; ")
    );
    let mut picture = Picture::new("plot", (360, 240), &label).data(&[
        ("data-x", &*x.for_script()),
        ("data-hov", "p"),
        ("data-u", "req/s"),
    ]);
    let frame = PlotFrame { x, y };
    frame.draw_x(&mut picture, &ticks(&x, series, is_closed), axis);
    frame.draw_y(&mut picture, &y.ticks(5), "good req/s");
    if !is_closed {
        let end = x.to.min(y.to);
        let line =
            PathData::default().move_to(x.at(0.0), y.at(0.0)).line_to(x.at(end), y.at(end)).done();
        picture.path("ref dash", &line);
        picture.text("lb mu", (x.at(end) - 8.0, y.at(end) + 4.0), Anchor::End, "all good");
    }
    series.iter().for_each(|(key, points)| draw_series(&mut picture, &frame, key, points));
    picture.finish()
}

/// Formats the limits in mathematical signs.
fn limits_in_words(limits: Option<&str>) -> String {
    let limits = limits.map(|limits| visible(limits).replace("<=", "≤").replace(">=", "≥"));
    limits.unwrap_or_else(|| "every limit of goodput".into())
}

/// Returns the ticks of the load: the numbers of streams that were measured, if they are few.
fn ticks(x: &AxisScale, series: &[(&ModelKey, Vec<GoodPoint<'_>>)], is_closed: bool) -> Vec<f64> {
    let mut streams: Vec<f64> =
        series.iter().flat_map(|(_, points)| points.iter().map(|point| point.offered)).collect();
    streams.sort_by(f64::total_cmp);
    streams.dedup();
    let has_room = streams.windows(2).all(|pair| x.at(pair[1]) - x.at(pair[0]) > 26.0);
    if is_closed && streams.len() > 2 && has_room { streams } else { x.ticks(6) }
}

fn draw_series(picture: &mut Picture, frame: &PlotFrame, key: &ModelKey, points: &[GoodPoint<'_>]) {
    let at =
        |point: &GoodPoint<'_>| (frame.x.at(point.offered), frame.y.clamped(point.good.value()));
    let mut line = PathData::default();
    for point in points {
        let (x, y) = at(point);
        line.line_to(x, y);
        let Some((low, high)) = point.interval else { continue };
        let bar = PathData::default()
            .move_to(x, frame.y.clamped(low))
            .line_to(x, frame.y.clamped(high))
            .done();
        picture.model_path("s wh", &bar, &key.letter, "");
    }
    picture.model_path("s ln nohov", &line.done(), &key.letter, "");
    for point in points {
        let share = point.share.map_or_else(String::new, |share| format!(", {}", percent(share)));
        let tip = format!(
            "{}, {}: {} good req/s{share}",
            key.name,
            size_in_words(&point.group),
            plain(point.good.value())
        );
        let is_filled = point.share.is_none_or(|share| share >= MOSTLY);
        picture.mark(
            if is_filled { "s dotf" } else { "s doth" },
            at(point),
            3.8,
            &key.letter,
            &tip,
        );
    }
    if let (true, Some((x, y))) = (key.is_one_of_several, points.last().map(at)) {
        picture.badge(key, ((x + 12.0).min(350.0), y));
    }
}
