//! Models under load: throughput against latency, distributions by load, and the load over time.

use llm_stream_core::text::visible;
use maud::{Markup, html};

use super::{
    distributions::{DistributionSpec, TPOT_SPEC, TTFT_SPEC, curve},
    ecdf::{CurveStyle, EcdfChart},
    goodput,
    keys::{ModelKey, legend},
    numbers::{THIN, plain, with_unit},
    over_time,
    page_run::{PageData, PageGroup, ShownFigure},
    picture::{Anchor, PathData, Picture, PlotFrame},
    scale::{AxisScale, ScaleKind},
    table::{ChartFrame, folded},
};

/// The loads of a model, by increasing load.
#[derive(Debug)]
pub(super) struct ModelLoads<'p> {
    pub(super) key: &'p ModelKey,
    pub(super) groups: Vec<PageGroup<'p>>,
}

impl<'p> ModelLoads<'p> {
    /// Returns the closed loops, or the open ones: their sizes have different units.
    fn of_kind(&self, is_closed: bool) -> Self {
        let groups = self.groups.iter().filter(|group| is_closed_loop(group) == is_closed);
        Self { key: self.key, groups: groups.copied().collect() }
    }
}

pub(super) fn is_closed_loop(group: &PageGroup<'_>) -> bool {
    group.report.workload.as_ref().is_some_and(|load| load.concurrency.is_some())
}

/// Names the loads without figures.
fn not_asked(models: &[ModelLoads<'_>]) -> Option<Markup> {
    let groups =
        models.iter().flat_map(|model| model.groups.iter().map(move |group| (model.key, group)));
    let missing = groups.filter(|(_, group)| group.report.loads.is_empty());
    let names: Vec<_> =
        missing.map(|(key, group)| format!("{}, {}", key.name, size_in_words(group))).collect();
    (!names.is_empty()).then(|| html! { "Without " (names.join("; ")) ": not the load asked for." })
}

/// The most curves of a model: a sweep has a load for each value.
const MOST_CURVES: usize = 7;

/// Returns at most `most` of the items, at even distances, with the first and the last.
fn evenly<T: Copy>(items: &[T], most: usize) -> Vec<T> {
    match items.len() {
        n if n <= most => items.to_vec(),
        n => (0..most).map(|index| items[index * (n - 1) / (most - 1)]).collect(),
    }
}

/// The most models whose loads have charts.
const MOST_MODELS: usize = 4;

/// Returns the section; `None` without a load.
pub(super) fn section(page: &PageData<'_>) -> Option<Markup> {
    let models = models(page);
    if models.is_empty() {
        return None;
    }
    let has_points = models.iter().any(|model| model.groups.len() > 1) || models.len() > 1;
    let drawn = &models[..models.len().min(MOST_MODELS)];
    Some(html! {
        section #load {
            h2 { (title(&models)) }
            p.lead {
                "Closed loops keep a number of streams in flight; open loops send at a rate, and latency counts from \
                 the scheduled start."
                @if drawn.len() < models.len() {
                    " Distributions and courses of the first " (drawn.len()) " of " (models.len()) " models."
                }
            }
            (legend(models.iter().map(|model| model.key)))
            div.grid3 {
                @if has_points {
                    @for chart in throughput_charts(&models) { (chart) }
                    @let good = goodput::charts(&models);
                    @for chart in &good { (chart) }
                    @if let (true, Some(chart)) = (good.is_empty(), rate_chart(&models)) { (chart) }
                    @if let Some(chart) = latency_by_rate(&models) { (chart) }
                }
                @for model in drawn {
                    @for spec in [TTFT_SPEC, TPOT_SPEC] { @if let Some(chart) = by_load(page, model, &spec) { (chart) } }
                }
            }
            (table(page, &models))
            @for model in drawn { (over_time::of_model(page, model)) }
        }
    })
}

/// Returns the models that were measured under load.
fn models<'p>(page: &'p PageData<'_>) -> Vec<ModelLoads<'p>> {
    let mut models: Vec<ModelLoads<'p>> = Vec::new();
    for group in page.loads() {
        let key = page.key(&group);
        match models.iter_mut().find(|model| model.key == key) {
            Some(model) => model.groups.push(group),
            None => models.push(ModelLoads { key, groups: vec![group] }),
        }
    }
    for model in &mut models {
        let order = |group: &PageGroup<'_>| !is_closed_loop(group);
        model
            .groups
            .sort_by(|a, b| order(a).cmp(&order(b)).then(offered(a).total_cmp(&offered(b))));
    }
    models
}

/// Returns the size of a load: its streams or its rate.
pub(super) fn offered(group: &PageGroup<'_>) -> f64 {
    let workload = group.report.workload.as_ref();
    let streams = workload.and_then(|load| load.concurrency.map(|streams| streams as f64));
    streams.or(workload.and_then(|load| load.rate)).unwrap_or(f64::INFINITY)
}

/// Returns the size of a load as a label: `16`, or `4 req/s`.
fn size(group: &PageGroup<'_>) -> String {
    let Some(load) = &group.report.workload else { return "1".into() };
    match (load.concurrency, load.rate) {
        (Some(streams), _) => streams.to_string(),
        (None, Some(rate)) => with_unit(&plain_rate(rate), "req/s"),
        (None, None) => visible(&load.name).into_owned(),
    }
}

fn plain_rate(rate: f64) -> String {
    let text = format!("{rate:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the size of a load in words.
pub(super) fn size_in_words(group: &PageGroup<'_>) -> String {
    let Some(load) = &group.report.workload else { return "one stream".into() };
    match load.concurrency {
        Some(1) => "1 stream".into(),
        Some(streams) => format!("{streams} streams"),
        None => size(group),
    }
}

fn title(models: &[ModelLoads<'_>]) -> Markup {
    let throughput = |group: &PageGroup<'_>| group.shown("output_throughput", "mean");
    let best = models.iter().flat_map(|model| model.groups.iter().map(move |group| (model, group)));
    let best = best.filter_map(|(model, group)| Some((model, group, throughput(group)?)));
    match best.max_by(|a, b| a.2.value().total_cmp(&b.2.value())) {
        Some((model, group, value)) => html! {
            "Under load: " (model.key.name) " generates " (value) (THIN) "tok/s with " (size_in_words(group))
        },
        None => html! { "Under load: no run was the load asked for" },
    }
}

/// A load in the chart of throughput against latency.
struct LoadPoint<'p> {
    group: PageGroup<'p>,
    latency: f64,
    tail: Option<f64>,
    throughput: f64,
}

fn points<'p>(model: &ModelLoads<'p>, metric: &'static str) -> Vec<LoadPoint<'p>> {
    let point = |group: &PageGroup<'p>| {
        Some(LoadPoint {
            group: *group,
            latency: group.shown(metric, "median")?.value(),
            tail: group.shown(metric, "p95").map(|shown| shown.value()),
            throughput: group.shown("output_throughput", "mean")?.value(),
        })
    };
    model
        .groups
        .iter()
        .filter_map(point)
        .filter(|point| point.latency > 0.0 && point.throughput > 0.0)
        .collect()
}

fn throughput_charts(models: &[ModelLoads<'_>]) -> Vec<Markup> {
    let is_closed = models.iter().any(|model| model.groups.iter().any(is_closed_loop));
    let what = if is_closed { "streams in flight" } else { "the rate" };
    let models: &[ModelLoads<'_>] =
        &models.iter().map(|model| model.of_kind(is_closed)).collect::<Vec<_>>();
    let chart = |spec: &DistributionSpec| {
        let series: Vec<_> =
            models.iter().map(|model| (model.key, points(model, spec.metric))).collect();
        let art = draw_throughput(spec, &series)?;
        let frame = ChartFrame {
            title: Some(throughput_title(models, spec)),
            subtitle: Some(html! {
                "Output throughput, tok/s (log), against " (spec.name) ". Up and to the left is better. Numbers: " (what)
            }),
            art: Some(art),
            note: not_asked(models),
            ..ChartFrame::default()
        };
        Some(frame.render())
    };
    [TPOT_SPEC, TTFT_SPEC].iter().filter_map(chart).collect()
}

/// Returns the finding: what the largest load of a model gains and costs against the smallest.
fn throughput_title(models: &[ModelLoads<'_>], spec: &DistributionSpec) -> Markup {
    let gain = |model: &ModelLoads<'_>| {
        let points = points(model, spec.metric);
        let (first, last) = (points.first()?, points.last()?);
        let is_one = points.len() < 2;
        let gain = last.throughput / first.throughput;
        let cost = last.latency / first.latency;
        (!is_one).then(|| (gain, cost, size_in_words(&last.group), size(&first.group)))
    };
    let found = models.iter().find_map(|model| Some((model.key, gain(model)?)));
    match (found, spec.metric) {
        (Some((key, (gain, cost, many, few))), "tpot") => html! {
            (key.name) ": " (many) " give " (plain_factor(gain)) "× the tokens of " (few) ", each " (times_as(cost, "slow", "fast"))
        },
        (Some((key, (gain, cost, many, _))), _) => html! {
            (key.name) ": with " (many) " the first token takes " (times_as(cost, "long", "long")) ", for " (plain_factor(gain)) "× the tokens"
        },
        (None, _) => html! { "Throughput against " (spec.name) },
    }
}

/// Describes a ratio of times: `1.7× as slow`, or `about as fast`.
fn times_as(factor: f64, more: &str, same: &str) -> String {
    match factor {
        factor if (0.95..1.05).contains(&factor) => format!("about as {same}"),
        factor => format!("{}× as {more}", plain_factor(factor)),
    }
}

fn plain_factor(factor: f64) -> String {
    if factor >= 9.95 { format!("{factor:.0}") } else { format!("{factor:.1}") }
}

fn draw_throughput(
    spec: &DistributionSpec,
    series: &[(&ModelKey, Vec<LoadPoint<'_>>)],
) -> Option<Markup> {
    let all = || series.iter().flat_map(|(_, points)| points);
    all().next()?;
    let latencies = all().flat_map(|point| [point.latency, point.tail.unwrap_or(point.latency)]);
    let x = AxisScale::around(ScaleKind::Log, latencies, (42.0, 346.0), 0.08);
    let y =
        AxisScale::around(ScaleKind::Log, all().map(|point| point.throughput), (202.0, 18.0), 0.12);
    let described: Vec<_> = series
        .iter()
        .flat_map(|(key, points)| {
            points.iter().map(move |point| {
                format!("{} at {}: {} tok/s", key.name, size(&point.group), plain(point.throughput))
            })
        })
        .collect();
    let label = format!("Output throughput against {}. {}", spec.name, described.join("; "));
    let mut picture = Picture::new("plot", (360, 240), &label).data(&[
        ("data-x", &*x.for_script()),
        ("data-hov", "p"),
        ("data-u", spec.unit),
    ]);
    let frame = PlotFrame { x, y };
    frame.draw_x(
        &mut picture,
        &x.ticks(7),
        &format!("{}, {} (log): median, bar to p95", spec.short, spec.unit),
    );
    frame.draw_y(&mut picture, &y.ticks(7), "tok/s (log)");
    series.iter().for_each(|(key, points)| draw_series(&mut picture, &frame, spec, key, points));
    Some(picture.finish())
}

fn draw_series(
    picture: &mut Picture,
    frame: &PlotFrame,
    spec: &DistributionSpec,
    key: &ModelKey,
    points: &[LoadPoint<'_>],
) {
    let at =
        |point: &LoadPoint<'_>| (frame.x.clamped(point.latency), frame.y.clamped(point.throughput));
    let mut line = PathData::default();
    for point in points {
        let (x, y) = at(point);
        line.line_to(x, y);
        let Some(tail) = point.tail.map(|tail| frame.x.clamped(tail)) else { continue };
        let mut bar = PathData::default();
        bar.move_to(x, y).line_to(tail, y).move_to(tail, y - 3.0).line_to(tail, y + 3.0);
        picture.model_path("s wh", &bar.done(), &key.letter, "");
    }
    picture.model_path("s ln nohov", &line.done(), &key.letter, "");
    for (point, (x, y)) in points.iter().map(|point| (point, at(point))) {
        let tail = point.tail.map_or_else(String::new, |tail| {
            format!(", p95 {}", with_unit(&plain(tail), spec.unit))
        });
        let tip = format!(
            "{}, {}: {} tok/s, median {}{tail}",
            key.name,
            size_in_words(&point.group),
            plain(point.throughput),
            with_unit(&plain(point.latency), spec.unit)
        );
        picture.mark("s dotf", (x, y), 3.6, &key.letter, &tip);
        let is_left = x > frame.x.start + 24.0;
        match is_left {
            true => picture.text("lb", (x - 6.0, y - 5.0), Anchor::End, &size(&point.group)),
            false => picture.text("lb", (x + 6.0, y + 13.0), Anchor::Start, &size(&point.group)),
        }
    }
    if let (true, Some((x, y))) = (key.is_one_of_several, points.last().map(at)) {
        picture.badge(key, ((x + 13.0).min(frame.x.end + 4.0), (y - 9.0).max(20.0)));
    }
}

/// Returns the points of each model that has several.
fn series_of<'p, T>(
    models: &[ModelLoads<'p>],
    point: impl Fn(&PageGroup<'p>) -> Option<T>,
) -> Vec<(&'p ModelKey, Vec<T>)> {
    let points =
        |model: &ModelLoads<'p>| -> Vec<_> { model.groups.iter().filter_map(&point).collect() };
    let series = models.iter().map(|model| (model.key, points(model)));
    series.filter(|(_, points)| points.len() > 1).collect()
}

/// Draws the throughput of requests against the offered rate, of open loops at several rates.
fn rate_chart(models: &[ModelLoads<'_>]) -> Option<Markup> {
    let point = |group: &PageGroup<'_>| {
        let rate = group.report.workload.as_ref()?.rate?;
        Some((rate, group.shown("request_throughput", "mean")?))
    };
    let series = series_of(models, point);
    let (first_key, first_points) = series.first()?;
    let all = || series.iter().flat_map(|(_, points)| points);
    let x = AxisScale::from_zero(all().map(|(rate, _)| *rate), (34.0, 346.0));
    let values = all().flat_map(|(rate, shown)| [*rate, shown.value()]);
    let y = AxisScale::from_zero(values, (202.0, 18.0));
    let frame = PlotFrame { x, y };
    let label =
        format!("Valid requests per second against the offered rate of {} models", series.len());
    let mut picture = Picture::new("plot", (360, 240), &label).data(&[
        ("data-x", &*x.for_script()),
        ("data-hov", "p"),
        ("data-u", "req/s"),
    ]);
    frame.draw_x(&mut picture, &x.ticks(6), "offered rate, req/s");
    frame.draw_y(&mut picture, &y.ticks(5), "valid req/s");
    let end = x.to.min(y.to);
    let all_served =
        PathData::default().move_to(x.at(0.0), y.at(0.0)).line_to(x.at(end), y.at(end)).done();
    picture.path("ref dash", &all_served);
    picture.text("lb mu", (x.at(end) - 8.0, y.at(end) + 4.0), Anchor::End, "all requests served");
    for (key, points) in &series {
        let mut line = PathData::default();
        points.iter().for_each(|(rate, shown)| _ = line.line_to(x.at(*rate), y.at(shown.value())));
        picture.model_path("s ln nohov", &line.done(), &key.letter, "");
        for (rate, shown) in points {
            let tip = format!("{}: {} of {} req/s", key.name, shown.text(), plain_rate(*rate));
            picture.mark("s dotf", (x.at(*rate), y.at(shown.value())), 3.8, &key.letter, &tip);
        }
        if let (true, Some((rate, shown))) = (key.is_one_of_several, points.last()) {
            picture.badge(key, ((x.at(*rate) + 12.0).min(348.0), y.at(shown.value())));
        }
    }
    let (rate, shown) = first_points.iter().max_by(|a, b| a.1.value().total_cmp(&b.1.value()))?;
    let frame = ChartFrame {
        title: Some(html! {
            (first_key.name) " serves " (shown) (THIN) "req/s at most, of " (plain_rate(*rate)) (THIN) "req/s offered"
        }),
        subtitle: Some(
            html! { "Valid requests per second against the rate at which they are sent" },
        ),
        art: Some(picture.finish()),
        ..ChartFrame::default()
    };
    Some(frame.render())
}

/// Draws the time to the first token against the offered rate: the median, and p95 above it.
fn latency_by_rate(models: &[ModelLoads<'_>]) -> Option<Markup> {
    let point = |group: &PageGroup<'_>| {
        let rate = group.report.workload.as_ref()?.rate?;
        Some((rate, group.shown("ttft", "median")?, group.shown("ttft", "p95")))
    };
    let series = series_of(models, point);
    let (first_key, first_points) = series.first()?;
    let all = || series.iter().flat_map(|(_, points)| points);
    let x = AxisScale::from_zero(all().map(|(rate, ..)| *rate), (42.0, 346.0));
    let values =
        all().flat_map(|(_, median, p95)| [median.value(), p95.as_ref().unwrap_or(median).value()]);
    let y = AxisScale::around(ScaleKind::Log, values, (202.0, 18.0), 0.08);
    let frame = PlotFrame { x, y };
    let label = format!("Time to first token against the offered rate of {} models", series.len());
    let mut picture = Picture::new("plot", (360, 240), &label).data(&[
        ("data-x", &*x.for_script()),
        ("data-hov", "p"),
        ("data-u", "ms"),
    ]);
    frame.draw_x(&mut picture, &x.ticks(6), "offered rate, req/s");
    frame.draw_y(&mut picture, &y.ticks(6), "TTFT, ms (log): median, bar to p95");
    for (key, points) in &series {
        let mut line = PathData::default();
        points
            .iter()
            .for_each(|(rate, median, _)| _ = line.line_to(x.at(*rate), y.at(median.value())));
        picture.model_path("s ln nohov", &line.done(), &key.letter, "");
        points.iter().for_each(|point| draw_latency(&mut picture, &frame, key, point));
        if let (true, Some((rate, median, _))) = (key.is_one_of_several, points.last()) {
            picture.badge(key, ((x.at(*rate) + 12.0).min(350.0), y.at(median.value())));
        }
    }
    let (rate, median, _) = first_points.last()?;
    let (least, alone, _) = first_points.first()?;
    let frame = ChartFrame {
        title: Some(html! {
            (first_key.name) ": the first token takes " (median) (THIN) "ms at " (plain_rate(*rate)) (THIN) "req/s, "
            (alone) (THIN) "ms at " (plain_rate(*least)) (THIN) "req/s"
        }),
        subtitle: Some(
            html! { "Time to first token from the scheduled start, against the rate at which requests are sent" },
        ),
        art: Some(picture.finish()),
        ..ChartFrame::default()
    };
    Some(frame.render())
}

fn draw_latency(
    picture: &mut Picture,
    frame: &PlotFrame,
    key: &ModelKey,
    (rate, median, p95): &(f64, ShownFigure, Option<ShownFigure>),
) {
    let (x, y) = (frame.x.at(*rate), frame.y.clamped(median.value()));
    let mut tail = String::new();
    if let Some(p95) = p95 {
        let top = frame.y.clamped(p95.value());
        let mut bar = PathData::default();
        bar.move_to(x, y).line_to(x, top).move_to(x - 3.0, top).line_to(x + 3.0, top);
        picture.model_path("s wh", &bar.done(), &key.letter, "");
        tail = format!(", p95 {}", with_unit(&p95.text(), "ms"));
    }
    let tip = format!(
        "{} at {} req/s: median {}{tail}",
        key.name,
        plain_rate(*rate),
        with_unit(&median.text(), "ms")
    );
    picture.mark("s dotf", (x, y), 3.6, &key.letter, &tip);
}

/// Draws the distributions of a metric by load, of a model.
fn by_load(page: &PageData<'_>, model: &ModelLoads<'_>, spec: &DistributionSpec) -> Option<Markup> {
    let alone = page.one_by_one().into_iter().find(|group| page.key(group) == model.key);
    let groups = alone.into_iter().chain(model.groups.iter().copied());
    let groups: Vec<_> = groups.filter(|group| group.figure(spec.metric).is_some()).collect();
    let drawn = evenly(&groups, MOST_CURVES);
    let of = drawn.len();
    let curves = drawn.iter().enumerate().map(|(index, group)| {
        let label = if group.is_load() { size(group) } else { "alone".into() };
        curve(page, spec, group, CurveStyle::Load(index, of), label)
    });
    let curves: Vec<_> = curves.collect();
    let medians: Vec<_> = curves
        .iter()
        .filter_map(|curve| {
            Some(format!("{}: {}", curve.label, with_unit(&plain(curve.median?), spec.unit)))
        })
        .collect();
    let chart = EcdfChart {
        label: format!(
            "Distribution of {} of {} by load. Medians: {}",
            spec.name,
            model.key.name,
            medians.join(", ")
        ),
        axis: format!("{}, {} (log)", spec.short, spec.unit),
        unit: spec.unit,
        share_of: "requests",
        curves,
    };
    let (art, _) = chart.draw()?;
    let rows: Vec<_> = groups.iter().map(|group| distribution_row(group, spec)).collect();
    let heads = ["Load", "n", "p50", "p95", "p99", "max"];
    let frame = ChartFrame {
        title: Some(html! { (model.key.badge()) (by_load_title(&groups, spec, model.key)) }),
        subtitle: Some(
            html! { (super::verdicts::sentence(spec.name).trim_end_matches('.').to_owned()) ". Labels: streams in flight, or the rate" },
        ),
        art: Some(art),
        table: Some(folded(
            &format!("{} of {} by load, {}", spec.name, model.key.name, spec.unit),
            &heads,
            &rows,
        )),
        ..ChartFrame::default()
    };
    Some(frame.render())
}

fn by_load_title(groups: &[PageGroup<'_>], spec: &DistributionSpec, key: &ModelKey) -> Markup {
    let median = |group: &PageGroup<'_>| group.shown(spec.metric, "median");
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return html! {} };
    match (median(first), median(last), groups.len()) {
        (Some(few), Some(many), 2..) => html! {
            (key.name) ": " (spec.name) " is " (many) (THIN) (spec.unit) " with " (size_in_words(last)) ", "
            (few) (THIN) (spec.unit) " " @if first.is_load() { "with " (size_in_words(first)) } @else { "alone" }
        },
        (_, Some(many), _) => {
            html! { (key.name) ": " (spec.name) " is " (many) (THIN) (spec.unit) " in the median" }
        }
        _ => html! { (key.name) ": " (spec.name) },
    }
}

fn distribution_row(group: &PageGroup<'_>, spec: &DistributionSpec) -> Markup {
    let name = if group.is_load() { size_in_words(group) } else { "alone".into() };
    html! {
        th scope="row" { (name) }
        td.r { (group.figure(spec.metric).map_or(0, |figure| figure.n)) }
        @for statistic in ["median", "p95", "p99", "max"] { (group.cell(spec.metric, statistic)) }
    }
}

/// Returns the table of the loads, each as the config asks for it and as it was reached.
fn table(page: &PageData<'_>, models: &[ModelLoads<'_>]) -> Markup {
    let groups: Vec<_> = models.iter().flat_map(|model| &model.groups).collect();
    let rows: Vec<_> = groups.iter().map(|group| table_row(page, group)).collect();
    let heads = [
        "Workload",
        "Load",
        "Requests",
        "Failed",
        "In flight",
        "req/s",
        "Good, req/s",
        "Output, tok/s",
        "TTFT p50, ms",
        "TTFT p95, ms",
        "TPOT p50, ms",
        "TPOT p95, ms",
        "Result",
    ];
    folded("throughput and latency by load", &heads, &rows)
}

fn table_row(page: &PageData<'_>, group: &PageGroup<'_>) -> Markup {
    let load = group.report.workload.as_ref();
    let counts = &group.report.requests;
    let result = match group.report.shortfalls.first() {
        None => "as asked".to_owned(),
        Some(why) => format!("✕ {}", visible(why)),
    };
    html! {
        th scope="row" { (page.key(group).named()) ", " (visible(group.workload().unwrap_or_default())) }
        td.r { (load.map(|load| visible(&load.load).into_owned()).unwrap_or_default()) }
        td.r { (counts.valid) }
        td.r { (counts.failed) }
        @for metric in ["concurrency", "request_throughput", "goodput", "output_throughput"] { (group.cell(metric, "mean")) }
        (group.cell("ttft", "median")) (group.cell("ttft", "p95"))
        (group.cell("tpot", "median")) (group.cell("tpot", "p95"))
        td.r { (result) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_loads_has_the_first_and_the_last() {
        assert_eq!(evenly(&[1, 2, 3], 7), [1, 2, 3]);
        assert_eq!(evenly(&(0..=20).collect::<Vec<_>>(), 5), [0, 5, 10, 15, 20]);
    }
}
