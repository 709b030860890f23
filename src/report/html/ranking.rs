//! The models by generation speed, with intervals.

use maud::{Markup, html};

use super::{
    numbers::{THIN, plain},
    page_run::{PageData, PageGroup, confidence, ends},
    picture::{Anchor, PathData, Picture, tick_labels},
    scale::{AxisScale, ScaleKind},
};

const SPEED: &str = "generation_speed";

/// A ranking of models that were measured alike: one by one, or under one workload.
#[derive(Debug)]
pub(super) struct PageRanking<'p> {
    workload: Option<&'p str>,
    pub(super) groups: Vec<PageGroup<'p>>,
}

/// Returns the rankings of the main run, fastest model first. Single models are not ranked.
pub(super) fn rankings<'p>(page: &'p PageData<'_>) -> Vec<PageRanking<'p>> {
    let mut rankings: Vec<PageRanking<'p>> = Vec::new();
    for group in page.groups(0) {
        let workload = group.workload();
        match rankings.iter_mut().find(|ranking| ranking.workload == workload) {
            Some(ranking) => ranking.groups.push(group),
            None => rankings.push(PageRanking { workload, groups: vec![group] }),
        }
    }
    let speed = |group: &PageGroup<'_>| mean(group).unwrap_or(f64::NEG_INFINITY);
    rankings.iter_mut().for_each(|of| of.groups.sort_by(|a, b| speed(b).total_cmp(&speed(a))));
    rankings.retain(|ranking| ranking.groups.len() > 1);
    rankings.sort_by_key(|ranking| ranking.workload.is_some());
    rankings
}

fn mean(group: &PageGroup<'_>) -> Option<f64> {
    group.figure(SPEED)?.mean
}

/// Returns the section; `None` without several models.
pub(super) fn section(page: &PageData<'_>) -> Option<Markup> {
    let rankings = rankings(page);
    let (first, others) = rankings.split_first()?;
    Some(html! {
        section #ranking {
            h2 { (title(page, first)) }
            p.lead { (lead(page, first)) }
            (table(page, first))
            @for ranking in others {
                details {
                    summary { "Ranking under " (llm_stream_core::text::visible(ranking.workload.unwrap_or_default())) }
                    (table(page, ranking))
                }
            }
        }
    })
}

fn title(page: &PageData<'_>, ranking: &PageRanking<'_>) -> Markup {
    let [first, second, ..] = ranking.groups.as_slice() else { return html! {} };
    let (Some(best), Some(next)) = (first.shown(SPEED, "mean"), second.shown(SPEED, "mean")) else {
        return match first.shown(SPEED, "mean") {
            Some(best) => {
                html! { "Only " (page.key(first).name) " has a generation speed: " (best) (THIN) "tok/s" }
            }
            None => html! { "No model has a generation speed" },
        };
    };
    let name = &page.key(first).name;
    if overlap(first, second) {
        return html! {
            (name) " is ahead with " (best) (THIN) "tok/s; its interval overlaps that of " (page.key(second).name)
        };
    }
    let ratio = best.value() / next.value();
    html! {
        (name) " generates fastest: " (best) (THIN) "tok/s, "
        @if ratio < 1.095 { (super::numbers::percent(ratio - 1.0)) " more than " } @else { (plain_ratio(ratio)) "× as fast as " }
        (page.key(second).name)
    }
}

fn plain_ratio(ratio: f64) -> String {
    if ratio >= 9.95 { format!("{ratio:.0}") } else { format!("{ratio:.1}") }
}

fn interval(group: &PageGroup<'_>) -> Option<(f64, f64)> {
    group.figure(SPEED)?.intervals.mean.as_ref().map(ends)
}

fn overlap(one: &PageGroup<'_>, other: &PageGroup<'_>) -> bool {
    match (interval(one), interval(other)) {
        (Some((low, high)), Some((other_low, other_high))) => {
            low <= other_high && other_low <= high
        }
        // Without intervals nothing tells the models apart.
        _ => true,
    }
}

fn lead(page: &PageData<'_>, ranking: &PageRanking<'_>) -> Markup {
    let pairs = ranking.groups.windows(2).filter(|pair| {
        interval(&pair[0]).is_some() && interval(&pair[1]).is_some() && overlap(&pair[0], &pair[1])
    });
    let overlapping = pairs.count();
    html! {
        "Mean of " code { (SPEED) }
        @match ranking.workload {
            None => ", requests one by one. ",
            Some(workload) => { ", requests under " (llm_stream_core::text::visible(workload)) ". " }
        }
        @if overlapping == 0 { "No two neighbouring intervals overlap. " }
        @else { "Neighbouring models whose intervals overlap: " (overlapping) (if overlapping == 1 { " pair. " } else { " pairs. " }) }
        "± is half of the " (confidence(page)) (THIN) "% interval."
        @if ranking.groups.iter().any(|group| group.requests.points.iter().any(|point| point.failed)) {
            " A failed request has no figures."
        }
    }
}

fn axis(ranking: &PageRanking<'_>) -> AxisScale {
    let values = ranking.groups.iter().filter_map(|group| group.figure(SPEED)).flat_map(|figure| {
        let (low, high) = figure.intervals.mean.as_ref().map_or((f64::NAN, f64::NAN), ends);
        [figure.mean, figure.min, figure.max].into_iter().flatten().chain([low, high])
    });
    AxisScale::around(ScaleKind::Log, values, (6.0, 314.0), 0.05)
}

fn table(page: &PageData<'_>, ranking: &PageRanking<'_>) -> Markup {
    let x = axis(ranking);
    let has_baseline = ranking.groups.iter().any(|group| change(page, group).is_some());
    html! {
        table.rank {
            caption.vh { "Ranking by generation speed" }
            thead { tr {
                th.r.rk scope="col" { "#" }
                th scope="col" { "Model" }
                th.pic scope="col" { "Mean, interval (thick), all requests (thin), tok/s" (axis_picture(&x)) }
                th.r scope="col" { "Speed, tok/s" }
                @if has_baseline { th.r scope="col" { "Against baseline" } }
                th.r scope="col" { "TTFT median, ms" }
                th.r scope="col" { "TPOT median, ms" }
                th.r scope="col" { "Longest gap, median, ms" }
                th.r scope="col" { "Requests" }
            } }
            tbody {
                @for (place, group) in ranking.groups.iter().enumerate() {
                    (row(page, ranking, (place, group), &x, has_baseline))
                }
            }
        }
        div.rax { (axis_picture(&x)) }
    }
}

fn axis_picture(x: &AxisScale) -> Markup {
    let mut picture = Picture::new(
        "rp",
        (320, 16),
        "Axis of the generation speed in tokens per second, logarithmic",
    );
    let ticks = x.ticks(6);
    for (tick, label) in ticks.iter().zip(tick_labels(&ticks)) {
        let at = x.at(*tick);
        let anchor = match at {
            at if at < 16.0 => Anchor::Start,
            at if at > 304.0 => Anchor::End,
            _ => Anchor::Middle,
        };
        picture.text("ax", (at, 11.0), anchor, &label);
    }
    picture.finish()
}

/// Returns the change of the speed against the baseline, with its place in `run.json`.
fn change(page: &PageData<'_>, group: &PageGroup<'_>) -> Option<super::page_run::ShownFigure> {
    let thresholds = page.main().report.thresholds.iter().enumerate();
    let mut of = thresholds.filter(|(_, limit)| {
        limit.group == *group.report.name
            && limit.metric == SPEED
            && limit.threshold.trim_end().ends_with("baseline")
    });
    of.find_map(|(position, limit)| {
        let relative = limit.change.as_ref()?.relative;
        let path = format!("thresholds/{position}/change/relative");
        Some(super::page_run::ShownFigure::at(0, path, relative, 100.0).with_decimals(1))
    })
}

fn row(
    page: &PageData<'_>,
    ranking: &PageRanking<'_>,
    (place, group): (usize, &PageGroup<'_>),
    x: &AxisScale,
    has_baseline: bool,
) -> Markup {
    let speed = group.shown(SPEED, "mean");
    let counts = &group.report.requests;
    html! {
        tr data-m=(page.key(group).letter) {
            td.r.rk { @if speed.is_some() { (place + 1) } @else { "–" } }
            th scope="row" { (page.key(group).tagged()) }
            td.pic { @if let Some(picture) = bar(page, group, x) { (picture) } }
            td.r data-l="speed, tok/s" {
                @match &speed {
                    Some(speed) => { b { (speed.exact_element()) } @if let Some(half) = speed.half_text() { " " span { (half) } } }
                    None => { (group.why_absent(SPEED, "mean")) }
                }
            }
            @if has_baseline { (baseline_cell(page, group)) }
            @for (metric, label) in [("ttft", "TTFT, ms"), ("tpot", "TPOT, ms"), ("itl_max", "longest gap, ms")] {
                (compared_cell(ranking, group, metric, label))
            }
            td.r data-l="requests" {
                (counts.valid) @if counts.failed > 0 { " + " (counts.failed) " failed" }
            }
        }
    }
}

fn baseline_cell(page: &PageData<'_>, group: &PageGroup<'_>) -> Markup {
    let missed = page.main().report.thresholds.iter().any(|limit| {
        limit.group == *group.report.name
            && limit.metric == SPEED
            && limit.relative
            && limit.verdict == "fail"
    });
    html! {
        td.r.worse[missed] data-l="baseline" {
            @match change(page, group) {
                Some(change) => { @if change.value() >= 0.0 { "+" } (change.exact_element()) (THIN) "%" }
                None => { "–" }
            }
        }
    }
}

/// Returns the cell of a median; the smallest one is marked.
fn compared_cell(
    ranking: &PageRanking<'_>,
    group: &PageGroup<'_>,
    metric: &'static str,
    label: &str,
) -> Markup {
    let value = |group: &PageGroup<'_>| group.figure(metric).and_then(|figure| figure.median);
    let least = ranking.groups.iter().filter_map(value).min_by(f64::total_cmp);
    let is_best = value(group).is_some() && value(group) == least;
    html! {
        td.r data-l=(label) {
            @match group.shown(metric, "median") {
                Some(shown) if is_best => { b.best { (shown) span.vh { " best" } } }
                Some(shown) => { (shown) }
                None => { (group.why_absent(metric, "median")) }
            }
        }
    }
}

fn bar(page: &PageData<'_>, group: &PageGroup<'_>, x: &AxisScale) -> Option<Markup> {
    let figure = group.figure(SPEED)?;
    let mean = figure.mean?;
    let key = page.key(group);
    let bounds = figure.intervals.mean.as_ref().map(ends);
    let interval = bounds.map_or_else(String::new, |(low, high)| {
        format!(", interval {} to {}", plain(low), plain(high))
    });
    let range = figure.min.zip(figure.max);
    let requests = range.map_or_else(String::new, |(low, high)| {
        format!("; requests from {} to {}", plain(low), plain(high))
    });
    let label = format!("{}: mean {} tok/s{interval}{requests}", key.name, plain(mean));
    let mut picture = Picture::new("rp", (320, 24), &label);
    let mut grid = PathData::default();
    x.ticks(6)
        .iter()
        .for_each(|tick| _ = grid.move_to(x.at(*tick), 0.0).line_to(x.at(*tick), 24.0));
    picture.path("grid", &grid.done());
    let mut between = |class: &str, (low, high): (f64, f64), least: f64| {
        let (left, right) = (x.clamped(low), x.clamped(high));
        let widen = ((least - (right - left)) / 2.0).max(0.0);
        let d = PathData::default().move_to(left - widen, 12.0).line_to(right + widen, 12.0).done();
        picture.model_path(class, &d, &key.letter, "");
    };
    range.into_iter().for_each(|range| between("rng s", range, 0.0));
    bounds.into_iter().for_each(|bounds| between("ivb s", bounds, 3.0));
    picture.mark("dot s", (x.clamped(mean), 12.0), 4.4, &key.letter, &label);
    Some(picture.finish())
}
