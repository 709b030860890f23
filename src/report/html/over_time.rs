//! A load over time: streams, tokens per second, and the time to the first token.

use llm_stream_core::text::{counted, visible};
use maud::{Markup, html};

use super::{
    bins::TimeBin,
    load::{ModelLoads, size_in_words},
    numbers::{THIN, plain},
    page_run::{PageData, PageGroup, ShownFigure},
    picture::{Anchor, PathData, Picture, PlotFrame},
    scale::{AxisScale, ScaleKind},
    table::{ChartFrame, folded},
};
use crate::report::json::model::ServerOverTimeReport;

/// With more requests, bins of requests are drawn instead of each one.
const MOST_DOTS: usize = 600;

/// The most bins of tokens per second: narrower ones show single token events.
const MOST_TOKEN_BINS: usize = 60;

const LEFT: f64 = 40.0;
const RIGHT: f64 = 350.0;

/// Returns the charts of a model's largest load that was measured.
pub(super) fn of_model(page: &PageData<'_>, model: &ModelLoads<'_>) -> Markup {
    let measured = |group: &&PageGroup<'_>| group.requests.over_time.end() > 0.0;
    let as_asked =
        model.groups.iter().rev().filter(measured).find(|group| group.requests.drawn_run_counts);
    let Some(group) = as_asked.or_else(|| model.groups.iter().rev().find(measured)) else {
        return html! {};
    };
    let runs = group.report.trials.finished;
    html! {
        h3.ov {
            (model.key.badge()) (model.key.name) " with " (size_in_words(group)) " over time"
            " (" (visible(group.workload().unwrap_or_default()))
            @if runs > 1 { ", the first of " (runs) " runs" }
            @if !group.requests.drawn_run_counts { ", not the load asked for" } ")"
        }
        div.grid3 { (streams(page, group)) (tokens(page, group)) (first_tokens(page, group)) }
        @if let Some(server) = group.report.loads.first().and_then(|load| load.server.as_ref()) {
            div.grid3 { (queue(page, group, server)) (kv_cache(page, group, server)) }
        }
    }
}

/// A line of a chart: its values over time, its class and its name.
type CourseLine<'a> = (&'a [Option<f64>], &'static str, &'static str);

/// Draws the server's gauges over time; nothing without two scrapes.
fn course(
    page: &PageData<'_>,
    group: &PageGroup<'_>,
    (at, lines): (&[f64], &[CourseLine<'_>]),
    (label, unit): (&str, &str),
) -> Option<Markup> {
    let values = lines.iter().flat_map(|(values, ..)| values.iter().flatten().copied());
    if at.len() < 2 || values.clone().next().is_none() {
        return None;
    }
    let y = AxisScale::from_zero(values, (170.0, 18.0));
    let (mut picture, frame) = frame(group, y, (label, "y", "s"));
    frame.draw_y(&mut picture, &y.ticks(5), unit);
    let letter = &page.key(group).letter;
    for (values, class, name) in lines {
        let mut line = PathData::default();
        let points = at.iter().zip(*values).filter_map(|(at, value)| Some((*at, (*value)?)));
        points.for_each(|(at, value)| _ = line.line_to(frame.x.at(at), y.at(value)));
        picture.model_path(class, &line.done(), letter, name);
    }
    Some(picture.finish())
}

/// Returns a gauge of the first load in `run.json`.
fn gauge(
    group: &PageGroup<'_>,
    server: &ServerOverTimeReport,
    (name, scale): (&str, f64),
) -> Option<(ShownFigure, ShownFigure)> {
    let of = server.gauges.get(name)?;
    let path = format!("groups/{}/loads/0/server/gauges/{name}", group.position);
    let figure =
        |key: &str, value: f64| ShownFigure::at(group.run, format!("{path}/{key}"), value, scale);
    Some((figure("mean", of.mean), figure("max", of.max)))
}

/// The server's queue and the requests that it runs.
fn queue(page: &PageData<'_>, group: &PageGroup<'_>, server: &ServerOverTimeReport) -> Markup {
    let lines = [
        (&*server.course.running, "s ln", "running"),
        (&*server.course.waiting, "s ln old", "waiting"),
    ];
    let label = "Requests that run and wait in the server over time";
    let Some(art) = course(page, group, (&server.course.at, &lines), (label, "requests")) else {
        return html! {};
    };
    ChartFrame {
        title: Some(match gauge(group, server, ("waiting", 1.0)) {
            Some((mean, max)) => {
                html! { "At most " (max) " requests wait in the server, " (mean) " on average" }
            }
            None => html! { "Requests in the server over time" },
        }),
        subtitle: Some(
            html! { "Requests that run and, dashed, wait, by the server's metrics each second" },
        ),
        art: Some(art),
        note: server.failed.ne(&0).then(|| html! { (counted(server.failed, "scrape")) " failed." }),
        table: Some(course_table(page, group, server)),
        ..ChartFrame::default()
    }
    .render()
}

/// The use of the server's KV cache.
fn kv_cache(page: &PageData<'_>, group: &PageGroup<'_>, server: &ServerOverTimeReport) -> Markup {
    let share = |of: &Option<f64>| of.map(|share| share * 100.0);
    let values: Vec<_> = server.course.kv_cache_use.iter().map(share).collect();
    let lines = [(&*values, "s ln", "KV cache")];
    let label = "Use of the KV cache over time";
    let Some(art) = course(page, group, (&server.course.at, &lines), (label, "%")) else {
        return html! {};
    };
    ChartFrame {
        title: Some(match gauge(group, server, ("kv_cache_use", 100.0)) {
            Some((mean, max)) => html! {
                "The KV cache is at most " (max) (THIN) "% in use, " (mean) (THIN) "% on average"
            },
            None => html! { "Use of the KV cache over time" },
        }),
        subtitle: Some(
            html! { "Share of the KV cache in use, %, by the server's metrics each second" },
        ),
        art: Some(art),
        ..ChartFrame::default()
    }
    .render()
}

/// Returns about a dozen scrapes as a table.
fn course_table(
    page: &PageData<'_>,
    group: &PageGroup<'_>,
    server: &ServerOverTimeReport,
) -> Markup {
    let course = &server.course;
    let step = course.at.len().div_ceil(12).max(1);
    let cell = |values: &[Option<f64>], nth: usize, scale: f64| {
        let value = values.get(nth).copied().flatten();
        value.map_or_else(|| "–".to_owned(), |value| plain(value * scale))
    };
    let row = |nth: usize| {
        html! {
            th scope="row" { (plain(course.at[nth])) }
            td.r { (cell(&course.running, nth, 1.0)) }
            td.r { (cell(&course.waiting, nth, 1.0)) }
            td.r { (cell(&course.kv_cache_use, nth, 100.0)) }
        }
    };
    let rows: Vec<_> = (0..course.at.len()).step_by(step).map(row).collect();
    let name = format!("the server of {} over time", page.key(group).name);
    folded(&name, &["Second", "Running", "Waiting", "KV cache, %"], &rows)
}

/// Returns the figure of the first load of a group in `run.json`.
fn load_figure(group: &PageGroup<'_>, key: &str, value: f64) -> ShownFigure {
    ShownFigure::at(group.run, format!("groups/{}/loads/0/{key}", group.position), value, 1.0)
}

/// Returns the measured part of a load, up to the last start if that is all of it.
fn measured(group: &PageGroup<'_>) -> (f64, f64) {
    let part = group.report.loads.first().and_then(|load| load.measured.as_ref());
    let starts = group.requests.points.iter().filter_map(|point| point.in_load);
    part.map_or_else(|| (0.0, starts.fold(0.0, f64::max)), |part| (part.from, part.to))
}

/// Names the time to which the figures belong.
fn extent(group: &PageGroup<'_>) -> &'static str {
    let part = group.report.loads.first().and_then(|load| load.measured.as_ref());
    if part.is_some() { "the measured part" } else { "the whole load" }
}

/// Says what is grey in the charts.
fn grey(group: &PageGroup<'_>) -> &'static str {
    let part = group.report.loads.first().and_then(|load| load.measured.as_ref());
    if part.is_some() { "not measured" } else { "after the last start" }
}

/// Draws the frame over the time of the load, with the part in grey that is not measured.
fn frame(
    group: &PageGroup<'_>,
    y: AxisScale,
    (label, hover, unit): (&str, &str, &str),
) -> (Picture, PlotFrame) {
    let end = group.requests.over_time.end();
    let x =
        AxisScale { kind: ScaleKind::Linear, from: 0.0, to: end * 1.02, start: LEFT, end: RIGHT };
    let frame = PlotFrame { x, y };
    let y_ends = format!("{:.1},{:.1},{:.4},{:.4}", y.end, y.start, y.from, y.to);
    let mut picture = Picture::new("plot", (360, 206), label).data(&[
        ("data-x", &*x.for_script()),
        ("data-hov", hover),
        ("data-u", unit),
        ("data-y", &y_ends),
    ]);
    let (first, last) = measured(group);
    let mut cut = |from: f64, to: f64| {
        let (left, right) = (x.at(from), x.at(to));
        picture.rect("cut", (left, y.end), (right - left, y.start - y.end));
    };
    if first > 0.0 && first < end {
        cut(0.0, first);
    }
    if last > 0.0 && last < end {
        cut(last, end * 1.02);
    }
    frame.draw_x(&mut picture, &x.ticks(6), "seconds since the first request");
    (picture, frame)
}

fn streams(page: &PageData<'_>, group: &PageGroup<'_>) -> Markup {
    let rates = group.requests.over_time.rates();
    let open = |bin: &TimeBin| bin.waiting + bin.receiving;
    let y = AxisScale::from_zero(rates.iter().map(|(_, bin)| open(bin)), (170.0, 18.0));
    let most = rates.iter().map(|(_, bin)| open(bin)).fold(0.0, f64::max);
    let label = format!("Streams open over time, up to {} on average of a bin", plain(most));
    let (mut picture, frame) = frame(group, y, (&label, "y", "s"));
    frame.draw_y(&mut picture, &y.ticks(5), "streams");
    let line = |path: &mut PathData, value: &dyn Fn(&TimeBin) -> f64| {
        rates.iter().for_each(|(time, bin)| _ = path.line_to(frame.x.at(*time), y.at(value(bin))));
    };
    let back = |path: &mut PathData, value: &dyn Fn(&TimeBin) -> f64| {
        rates
            .iter()
            .rev()
            .for_each(|(time, bin)| _ = path.line_to(frame.x.at(*time), y.at(value(bin))));
    };
    let mut receiving = PathData::default();
    line(&mut receiving, &|bin| bin.receiving);
    back(&mut receiving, &|_| 0.0);
    picture.path("ar1", &receiving.close().done());
    let mut waiting = PathData::default();
    line(&mut waiting, &open);
    back(&mut waiting, &|bin| bin.receiving);
    picture.path("ar2", &waiting.close().done());
    let mut top = PathData::default();
    line(&mut top, &open);
    picture.model_path("ln ink1", &top.done(), "", "open");
    label_areas(&mut picture, &frame, &rates);
    let load = group.report.loads.first();
    let title = load.map(|load| {
        let (peak, mean) = (
            load_figure(group, "peak", load.peak as f64),
            load_figure(group, "concurrency", load.concurrency),
        );
        html! { "At most " (peak) " streams are open, " (mean) " on average" }
    });
    ChartFrame {
        title: title.or_else(|| Some(html! { "Streams over time" })),
        subtitle: Some(html! { "Streams open: waiting for the first token, or receiving. Grey: " (grey(group)) }),
        art: Some(picture.finish()),
        note: failed_note(group),
        table: Some(table(page, group)),
        ..ChartFrame::default()
    }
    .render()
}

fn failed_note(group: &PageGroup<'_>) -> Option<Markup> {
    let failed = group.report.requests.failed;
    (failed > 0).then(
        || html! { "Without " (counted(failed, "failed request")) ", whose ends are not known." },
    )
}

/// Names the two areas where they are highest.
fn label_areas(picture: &mut Picture, frame: &PlotFrame, rates: &[(f64, TimeBin)]) {
    let highest =
        |of: fn(&TimeBin) -> f64| rates.iter().max_by(|a, b| of(&a.1).total_cmp(&of(&b.1)));
    let place = |time: f64| match frame.x.at(time) {
        x if x < LEFT + 85.0 => (LEFT + 6.0, Anchor::Start),
        x if x > RIGHT - 85.0 => (RIGHT - 4.0, Anchor::End),
        x => (x, Anchor::Middle),
    };
    if let Some((time, bin)) = highest(|bin| bin.receiving).filter(|(_, bin)| bin.receiving > 0.0) {
        let (x, anchor) = place(*time);
        picture.text("lb st2", (x, frame.y.at(bin.receiving / 2.0) + 4.0), anchor, "receiving");
    }
    if let Some((time, bin)) = highest(|bin| bin.waiting).filter(|(_, bin)| bin.waiting > 0.0) {
        let (x, anchor) = place(*time);
        let y = frame.y.at(bin.receiving + bin.waiting) - 5.0;
        picture.text("lb st2", (x, y.max(26.0)), anchor, "waiting for the first token");
    }
}

fn tokens(page: &PageData<'_>, group: &PageGroup<'_>) -> Markup {
    let bins = group.requests.over_time.merged(MOST_TOKEN_BINS);
    let rates = bins.rates();
    let y = AxisScale::from_zero(rates.iter().map(|(_, bin)| bin.tokens), (170.0, 18.0));
    let (mut picture, frame) =
        frame(group, y, ("Tokens per second of all streams over time", "y", "s"));
    frame.draw_y(&mut picture, &y.ticks(5), "tok/s");
    let mut line = PathData::default();
    rates.iter().for_each(|(time, bin)| _ = line.line_to(frame.x.at(*time), y.at(bin.tokens)));
    picture.model_path("s ln", &line.done(), &page.key(group).letter, "tok/s");
    let whole = group.report.loads.first().and_then(|load| load.output_throughput);
    if let Some(whole) = whole {
        let at = y.clamped(whole);
        picture.path("hm", &PathData::default().move_to(LEFT, at).line_to(RIGHT, at).done());
    }
    let width = bins.width();
    ChartFrame {
        title: Some(match whole {
            Some(whole) => html! { (load_figure(group, "output_throughput", whole)) (THIN) "tok/s over " (extent(group)) },
            None => html! { "Tokens per second over time" },
        }),
        subtitle: Some(html! {
            "Tokens per second of all streams, in bins of " (plain(width)) (THIN) "s. Dashed: " (extent(group))
        }),
        art: Some(picture.finish()),
        note: Some(html! { "The tokens of a request are spread evenly over its token events." }),
        ..ChartFrame::default()
    }
    .render()
}

fn first_tokens(page: &PageData<'_>, group: &PageGroup<'_>) -> Markup {
    let points = group.requests.points.iter();
    let points = points.filter_map(|point| Some((point.in_load?, f64::from(point.first_token?))));
    let mut points: Vec<_> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let y = AxisScale::from_zero(points.iter().map(|(_, value)| *value), (170.0, 18.0));
    let has_dots = points.len() <= MOST_DOTS;
    let hover = if has_dots { ("d", "s|ms") } else { ("y", "s") };
    let label = "Time to first token of each request by its start";
    let (mut picture, frame) = frame(group, y, (label, hover.0, hover.1));
    frame.draw_y(&mut picture, &y.ticks(5), "ms");
    let letter = &page.key(group).letter;
    if has_dots {
        let mut dots = PathData::default();
        points.iter().for_each(|(time, value)| _ = dots.dot(frame.x.at(*time), y.at(*value)));
        picture.model_path("s ds", &dots.done(), letter, "");
    } else {
        let bins = points.chunks(points.len().div_ceil(100));
        let quantile = |bin: &[(f64, f64)], share: f64| {
            let mut sorted: Vec<_> = bin.iter().map(|(_, value)| *value).collect();
            sorted.sort_by(f64::total_cmp);
            (
                frame.x.at(bin[bin.len() / 2].0),
                y.at(sorted[(share * (sorted.len() - 1) as f64).round() as usize]),
            )
        };
        for (share, class, name) in [(0.95, "s ln old", "p95"), (0.5, "s ln", "median")] {
            let mut line = PathData::default();
            bins.clone().map(|bin| quantile(bin, share)).for_each(|(x, y)| _ = line.line_to(x, y));
            picture.model_path(class, &line.done(), letter, name);
        }
    }
    ChartFrame {
        title: Some(first_tokens_title(group)),
        subtitle: Some(match has_dots {
            true => html! { "Time to first token, ms, by start of the request" },
            false => {
                html! { "Time to first token, ms, by start of the request: median, and p95 dashed" }
            }
        }),
        art: Some(picture.finish()),
        ..ChartFrame::default()
    }
    .render()
}

fn first_tokens_title(group: &PageGroup<'_>) -> Markup {
    match (group.shown("ttft", "median"), group.shown("ttft", "p95")) {
        (Some(median), Some(p95)) => html! {
            "The first token takes " (median) (THIN) "ms in the median, more than " (p95) (THIN) "ms for 5" (THIN) "%"
        },
        (Some(median), None) => {
            html! { "The first token takes " (median) (THIN) "ms in the median" }
        }
        (None, _) => html! { "Time to first token over time" },
    }
}

/// Returns about a dozen moments of the load as a table.
fn table(page: &PageData<'_>, group: &PageGroup<'_>) -> Markup {
    let rates = group.requests.over_time.rates();
    let step = rates.len().div_ceil(12).max(1);
    let row = |(time, bin): &(f64, TimeBin)| {
        html! {
            th scope="row" { (plain(*time)) }
            td.r { (plain(bin.waiting)) } td.r { (plain(bin.receiving)) } td.r { (plain(bin.tokens)) }
        }
    };
    let rows: Vec<_> = rates.iter().step_by(step).map(row).collect();
    let name = format!("streams and tokens of {} over time", page.key(group).name);
    folded(&name, &["Second", "Waiting", "Receiving", "tok/s"], &rows)
}
