//! Requests in order of time, so that drift is visible.

use maud::{Markup, html};

use super::{
    distributions::drawn_groups,
    numbers::{THIN, signed},
    page_run::{PageData, PageGroup, ends},
    picture::{PathData, Picture, PlotFrame},
    requests::SPEED,
    scale::{AxisScale, ScaleKind},
    table::{ChartFrame, folded},
};
use crate::report::json::model::DriftReport;

/// With more models than this, only those that drift have a chart.
const MOST_CHARTS: usize = 6;

/// With fewer requests nothing can be seen.
const FEWEST: usize = 5;

/// With more requests, bins of requests are drawn instead of each one.
const MOST_DOTS: usize = 500;

/// Returns the section; `None` without two requests of a model in order.
pub(super) fn section(page: &PageData<'_>) -> Option<Markup> {
    let one_by_one = page.one_by_one();
    let loads = page.loads();
    let drawn = drawn_groups(page, &one_by_one);
    let mut shown: Vec<PageGroup<'_>> = match drawn.len() {
        0..=MOST_CHARTS => drawn,
        _ => drawn.into_iter().filter(drifts).collect(),
    };
    shown.extend(loads.iter().filter(|group| drifts(group)).take(MOST_CHARTS));
    let all: Vec<_> = one_by_one.iter().chain(&loads).copied().collect();
    let charts: Vec<_> = shown.iter().filter_map(|group| chart(page, group)).collect();
    if charts.is_empty() && !all.iter().any(|group| drift(group).is_some()) {
        return None;
    }
    Some(html! {
        section #order {
            h2 { (title(page, &all)) }
            p.lead {
                "Requests in order of time. Line: running median. ✕: failed. "
                "The change is that of a line fitted to all requests, with its interval in brackets."
            }
            @if !charts.is_empty() { div.grid3 { @for chart in charts { (chart) } } }
            (table(page, &all))
        }
    })
}

fn drift<'p>(group: &PageGroup<'p>) -> Option<&'p DriftReport> {
    group.report.drift.generation_speed.as_ref()
}

fn drifts(group: &PageGroup<'_>) -> bool {
    let of = &group.report.drift;
    [&of.generation_speed, &of.ttft].into_iter().flatten().any(|drift| drift.significant)
}

fn title(page: &PageData<'_>, groups: &[PageGroup<'_>]) -> String {
    let drifting: Vec<_> = groups.iter().filter(|group| drifts(group)).collect();
    let known = groups.iter().filter(|group| drift(group).is_some()).count();
    match (drifting.as_slice(), known) {
        ([], 0) => "Too few requests to tell whether figures drift".into(),
        ([], _) => "No drift".into(),
        ([one], _) => format!("{} drifts", place(page, one)),
        (several, _) => format!("{} of {} groups drift", several.len(), groups.len()),
    }
}

fn place(page: &PageData<'_>, group: &PageGroup<'_>) -> String {
    let name = &page.key(group).name;
    match group.workload() {
        None => name.clone(),
        Some(workload) => format!("{name} under {}", llm_stream_core::text::visible(workload)),
    }
}

/// Formats a change with its interval, in percent.
fn change(drift: &DriftReport) -> String {
    let Some(relative) = drift.relative else { return "–".into() };
    let (low, high) = ends(&drift.interval);
    let (low, high) = (signed(100.0 * low, 1), signed(100.0 * high, 1));
    format!("{}{THIN}% [{low}, {high}]", signed(100.0 * relative, 1))
}

fn chart(page: &PageData<'_>, group: &PageGroup<'_>) -> Option<Markup> {
    let points = &group.requests.points;
    if points.len() < FEWEST {
        return None;
    }
    let failed = points.iter().filter(|point| point.failed).count();
    let verdict = match drift(group) {
        None => "too few requests to tell".to_owned(),
        Some(drift) if drift.significant => {
            let by = drift
                .relative
                .map_or_else(String::new, |by| format!(" by {}{THIN}%", signed(100.0 * by, 1)));
            format!("drifts{by}")
        }
        Some(_) => "no drift".into(),
    };
    let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    let finding = format!("{}: {verdict}{failures}", place(page, group));
    let subtitle =
        drift(group).map_or_else(|| format!("n{THIN}={THIN}{}", points.len() - failed), change);
    let art = draw(page, group, &format!("{finding}. Generation speed. {subtitle}"))?;
    let frame = ChartFrame {
        title: Some(html! { (page.key(group).badge()) (finding) }),
        subtitle: Some(html! { "Generation speed. " (subtitle) }),
        art: Some(art),
        ..ChartFrame::default()
    };
    Some(frame.render())
}

fn draw(page: &PageData<'_>, group: &PageGroup<'_>, label: &str) -> Option<Markup> {
    let points = &group.requests.points;
    let numbered = points
        .iter()
        .zip(1..)
        .map(|(point, number)| (f64::from(number), f64::from(point.values[SPEED])));
    let values: Vec<(f64, f64)> = numbered.filter(|(_, value)| value.is_finite()).collect();
    if values.is_empty() {
        return None;
    }
    let x = AxisScale {
        kind: ScaleKind::Linear,
        from: 1.0,
        to: points.len() as f64,
        start: 38.0,
        end: 350.0,
    };
    let y = AxisScale::around(
        ScaleKind::Linear,
        values.iter().map(|(_, value)| *value),
        (116.0, 18.0),
        0.06,
    );
    let frame = PlotFrame { x, y };
    let y_ends = format!("{:.1},{:.1},{:.5},{:.5}", y.end, y.start, y.from, y.to);
    let has_dots = values.len() <= MOST_DOTS;
    let mut picture = Picture::new("plot", (360, 150), label);
    if has_dots {
        let data = [
            ("data-x", &*x.for_script()),
            ("data-hov", "d"),
            ("data-u", "request|tok/s"),
            ("data-y", &y_ends),
        ];
        picture = picture.data(&data);
    }
    let ticks: Vec<_> = x.ticks(6).into_iter().filter(|tick| tick.fract() == 0.0).collect();
    frame.draw_x(&mut picture, &ticks, "request, in order of time");
    frame.draw_y(&mut picture, &y.ticks(4), "tok/s");
    let letter = &page.key(group).letter;
    match has_dots {
        true => {
            let mut dots = PathData::default();
            values.iter().for_each(|(number, value)| _ = dots.dot(x.at(*number), y.at(*value)));
            picture.model_path("s ds", &dots.done(), letter, "");
        }
        false => draw_band(&mut picture, &frame, &values, letter),
    }
    draw_running_median(&mut picture, &frame, &values);
    let mut crosses = PathData::default();
    for (point, number) in points.iter().zip(1..).take(2000) {
        if point.failed {
            let at = x.at(f64::from(number));
            crosses.move_to(at - 3.5, 106.5).line_to(at + 3.5, 113.5);
            crosses.move_to(at + 3.5, 106.5).line_to(at - 3.5, 113.5);
        }
    }
    picture.path("fx", &crosses.done());
    Some(picture.finish())
}

/// Draws the range from p10 to p90 of each bin of requests.
fn draw_band(picture: &mut Picture, frame: &PlotFrame, values: &[(f64, f64)], letter: &str) {
    let bins: Vec<_> = values.chunks(values.len().div_ceil(120)).collect();
    let edge = |share: f64| {
        move |bin: &&[(f64, f64)]| {
            let mut sorted: Vec<_> = bin.iter().map(|(_, value)| *value).collect();
            sorted.sort_by(f64::total_cmp);
            let at = (share * (sorted.len() - 1) as f64).round() as usize;
            (frame.x.at(bin[bin.len() / 2].0), frame.y.at(sorted[at]))
        }
    };
    let mut band = PathData::default();
    bins.iter().map(edge(0.9)).for_each(|(x, y)| _ = band.line_to(x, y));
    bins.iter().rev().map(edge(0.1)).for_each(|(x, y)| _ = band.line_to(x, y));
    picture.model_path("s area", &band.close().done(), letter, "p10 to p90");
}

/// Draws the median of the requests around each one.
fn draw_running_median(picture: &mut Picture, frame: &PlotFrame, values: &[(f64, f64)]) {
    if values.len() < 20 {
        return;
    }
    let half = (values.len() / 14).clamp(3, 500);
    let mut path = PathData::default();
    for middle in (0..values.len()).step_by(values.len().div_ceil(100)) {
        let window = &values[middle.saturating_sub(half)..(middle + half + 1).min(values.len())];
        let mut sorted: Vec<_> = window.iter().map(|(_, value)| *value).collect();
        sorted.sort_by(f64::total_cmp);
        path.line_to(frame.x.at(values[middle].0), frame.y.at(sorted[sorted.len() / 2]));
    }
    picture.path("ln med", &path.done());
}

fn table(page: &PageData<'_>, groups: &[PageGroup<'_>]) -> Markup {
    let cells = |drift: &Option<DriftReport>| {
        let (text, significant) = match drift {
            None => ("too few requests".into(), "–"),
            Some(drift) => (change(drift), if drift.significant { "yes" } else { "no" }),
        };
        html! { td.r { (text) } td.r { (significant) } }
    };
    let rows: Vec<Markup> = groups
        .iter()
        .map(|group| {
            let key = page.key(group);
            html! {
                th scope="row" {
                    (key.named())
                    @match group.workload() {
                        None => ", one by one",
                        Some(workload) => { ", " (llm_stream_core::text::visible(workload)) }
                    }
                }
                (cells(&group.report.drift.generation_speed))
                (cells(&group.report.drift.ttft))
            }
        })
        .collect();
    let heads = ["Group", "Generation speed", "Significant", "TTFT", "Significant"];
    folded("change over the requests of each group", &heads, &rows)
}
