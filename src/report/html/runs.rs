//! Several runs next to each other: the figures of each model in each run, with intervals.

use maud::{Markup, html};

use super::{
    numbers::{THIN, signed, with_unit},
    page_run::{PageData, PageGroup, PageRun, ends},
    picture::{Anchor, PathData, Picture, PlotFrame},
    scale::{AxisScale, ScaleKind},
    table::{ChartFrame, folded},
};

/// The figures that are shown next to each other: metric, statistic, name, unit.
const SHOWN: [(&str, &str, &str, &str); 4] = [
    ("ttft", "median", "time to first token, median", "ms"),
    ("tpot", "median", "time per output token, median", "ms"),
    ("generation_speed", "mean", "generation speed, mean", "tok/s"),
    ("output_throughput", "mean", "output throughput, mean", "tok/s"),
];

/// The most groups in a chart; the tables have all.
const MOST_GROUPS: usize = 10;

/// A group of the main run with its counterparts, the oldest run first.
struct RunsRow<'p> {
    name: String,
    groups: Vec<PageGroup<'p>>,
}

/// Returns the section; `None` for a single run.
pub(super) fn section(page: &PageData<'_>) -> Option<Markup> {
    if page.runs.len() < 2 {
        return None;
    }
    let rows: Vec<_> = page.groups(0).map(|group| row(page, group)).collect();
    let charts: Vec<_> = SHOWN.iter().filter_map(|shown| chart(page, &rows, *shown)).collect();
    Some(html! {
        section #runs {
            h2 { (title(&rows)) }
            p.lead {
                "Each row is a run, the oldest first; the newest is filled. Bar: interval. Where two intervals \
                 do not overlap, the runs differ by more than chance within a run; runs also vary among each other."
            }
            @if charts.is_empty() { p { "The runs have no figure in common." } }
            @else { div.grid3 { @for chart in charts { (chart) } } }
            (differences(page))
        }
    })
}

fn row<'p>(page: &'p PageData<'_>, group: PageGroup<'p>) -> RunsRow<'p> {
    let key = page.key(&group);
    let name = match group.workload() {
        None => key.name.clone(),
        Some(workload) => format!("{}, {}", key.name, llm_stream_core::text::visible(workload)),
    };
    let others = (1..page.runs.len()).rev().filter_map(|run| page.counterpart(run, &group));
    RunsRow { name, groups: others.chain([group]).collect() }
}

/// Returns the finding: the largest change of a figure between the oldest and the newest run.
fn title(rows: &[RunsRow<'_>]) -> Markup {
    let mut largest: Option<(f64, Markup)> = None;
    for row in rows.iter().filter(|row| row.groups.len() > 1) {
        for (metric, statistic, name, _) in SHOWN {
            let (Some(first), Some(last)) = (row.groups.first(), row.groups.last()) else {
                continue;
            };
            let (Some(before), Some(now)) =
                (first.shown(metric, statistic), last.shown(metric, statistic))
            else {
                continue;
            };
            let change = now.value() / before.value() - 1.0;
            let is_larger = largest.as_ref().is_none_or(|(size, _)| change.abs() > size.abs());
            if change.is_finite() && is_larger && !overlap(first, last, metric, statistic) {
                let text = html! {
                    (row.name) ": " (name.split(',').next().unwrap_or(name)) " changed by " (signed(100.0 * change, 1)) (THIN) "%, from "
                    (before) " to " (now)
                };
                largest = Some((change, text));
            }
        }
    }
    largest
        .map_or_else(|| html! { "The runs do not differ beyond their intervals" }, |(_, text)| text)
}

fn interval(group: &PageGroup<'_>, metric: &str, statistic: &str) -> Option<(f64, f64)> {
    let figure = group.figure(metric)?;
    super::page_run::interval_of(figure, statistic).map(ends)
}

fn overlap(one: &PageGroup<'_>, other: &PageGroup<'_>, metric: &str, statistic: &str) -> bool {
    match (interval(one, metric, statistic), interval(other, metric, statistic)) {
        (Some((low, high)), Some((other_low, other_high))) => {
            low <= other_high && other_low <= high
        }
        _ => true,
    }
}

fn chart(
    page: &PageData<'_>,
    rows: &[RunsRow<'_>],
    (metric, statistic, name, unit): (&'static str, &'static str, &str, &str),
) -> Option<Markup> {
    let scale = super::page_run::display_scale(metric);
    let has = |row: &&RunsRow<'_>| {
        row.groups.iter().any(|group| group.shown(metric, statistic).is_some())
    };
    let with_figure: Vec<_> = rows.iter().filter(has).collect();
    let drawn = &with_figure[..with_figure.len().min(MOST_GROUPS)];
    if drawn.is_empty() {
        return None;
    }
    let values = drawn.iter().flat_map(|row| &row.groups).flat_map(|group| {
        let (low, high) = interval(group, metric, statistic).unwrap_or((f64::NAN, f64::NAN));
        [
            group.shown(metric, statistic).map_or(f64::NAN, |shown| shown.value()),
            low * scale,
            high * scale,
        ]
    });
    let height: f64 = drawn.iter().map(|row| 22.0 + 13.0 * row.groups.len() as f64).sum();
    let x = AxisScale::around(ScaleKind::Log, values, (14.0, 346.0), 0.05);
    let y =
        AxisScale { kind: ScaleKind::Linear, from: 0.0, to: 1.0, start: 14.0 + height, end: 10.0 };
    let label = format!("{name} of each model in each run");
    let mut picture = Picture::new("plot", (360, (height + 52.0) as u32), &label);
    PlotFrame { x, y }.draw_x(&mut picture, &x.ticks(7), &format!("{unit} (log)"));
    let mut top = 22.0;
    for row in drawn {
        picture.text("lb", (14.0, top), Anchor::Start, &row.name);
        for group in &row.groups {
            top += 13.0;
            draw_run(&mut picture, page, group, (metric, statistic, unit), (&x, top - 3.0));
        }
        top += 22.0;
    }
    let table_rows: Vec<_> =
        with_figure.iter().flat_map(|row| table_rows(page, row, metric, statistic)).collect();
    let frame = ChartFrame {
        title: Some(html! { (chart_title(&with_figure, metric, statistic, name)) }),
        subtitle: Some(
            html! { (super::verdicts::sentence(name).trim_end_matches('.').to_owned()) ", " (unit) ". Bar: interval" },
        ),
        art: Some(picture.finish()),
        table: Some(folded(
            &format!("{name} by run, {unit}"),
            &["Model", "Run", "n", "Value", "±"],
            &table_rows,
        )),
        ..ChartFrame::default()
    };
    Some(frame.render())
}

fn chart_title(rows: &[&RunsRow<'_>], metric: &str, statistic: &str, name: &str) -> String {
    let name = super::verdicts::sentence(name.split(',').next().unwrap_or(name));
    let name = name.trim_end_matches('.');
    let changed = rows.iter().filter(|row| match row.groups.as_slice() {
        [first, .., last] => !overlap(first, last, metric, statistic),
        _ => false,
    });
    match (changed.count(), rows.len()) {
        (0, _) => format!("{name}: no difference beyond the intervals"),
        (_, 1) => format!("{name}: the runs differ"),
        (changed, all) => {
            format!("{name}: {changed} of {all} differ between the oldest and the newest run")
        }
    }
}

fn draw_run(
    picture: &mut Picture,
    page: &PageData<'_>,
    group: &PageGroup<'_>,
    (metric, statistic, unit): (&'static str, &'static str, &str),
    (x, y): (&AxisScale, f64),
) {
    let Some(shown) = group.shown(metric, statistic) else { return };
    let key = page.key(group);
    let scale = super::page_run::display_scale(metric);
    if let Some((low, high)) = interval(group, metric, statistic) {
        let (left, right) = (x.clamped(low * scale), x.clamped(high * scale));
        let mut bar = PathData::default();
        bar.move_to(left, y).line_to(right, y);
        for end in [left, right] {
            bar.move_to(end, y - 3.5).line_to(end, y + 3.5);
        }
        picture.model_path("s wh2", &bar.done(), &key.letter, "");
    }
    let tip =
        format!("{}, {}: {}", key.name, page.run_label(group.run), with_unit(&shown.exact(), unit));
    let class = if group.run == 0 { "s dotf" } else { "s doth" };
    picture.mark(class, (x.clamped(shown.value()), y), 3.6, &key.letter, &tip);
}

fn table_rows(
    page: &PageData<'_>,
    row: &RunsRow<'_>,
    metric: &'static str,
    statistic: &'static str,
) -> Vec<Markup> {
    let one = |group: &PageGroup<'_>| {
        let shown = group.shown(metric, statistic);
        html! {
            th scope="row" { (page.key(group).badge()) (row.name) }
            td.r { (page.run_label(group.run)) }
            td.r { (group.figure(metric).map_or(0, |figure| figure.n)) }
            td.r { @match &shown { Some(shown) => { (shown.exact_element()) } None => { (group.why_absent(metric, statistic)) } } }
            td.r { (shown.as_ref().and_then(|shown| shown.half_text()).unwrap_or_else(|| "–".into())) }
        }
    };
    row.groups.iter().map(one).collect()
}

/// Returns the circumstances in which the runs differ.
fn differences(page: &PageData<'_>) -> Markup {
    let main = page.main();
    let mut lines: Vec<String> = Vec::new();
    for (position, run) in page.runs.iter().enumerate().skip(1) {
        let name = page.run_label(position);
        let mut differs = |what: &str, ours: &str, theirs: &str| {
            if ours != theirs {
                let (ours, theirs) =
                    (llm_stream_core::text::visible(ours), llm_stream_core::text::visible(theirs));
                lines.push(format!("{name}: {what} {theirs}, in the newest run {ours}"));
            }
        };
        differs("machine", &main.report.machine, &run.report.machine);
        differs("definitions", &main.report.definitions, &run.report.definitions);
        differs("tool version", &main.report.tool.version, &run.report.tool.version);
        let config =
            |run: &PageRun<'_>| run.report.setup.as_ref().map(|setup| setup.config.text.clone());
        if config(main) != config(run) && config(main).is_some() && config(run).is_some() {
            lines.push(format!("{name}: another config"));
        }
    }
    html! {
        @if !lines.is_empty() {
            p.note { "The circumstances differ: " (lines.join("; ")) "." }
        }
    }
}
