//! How exact the figures are: the errors of the instrument next to the intervals and the limits.

use llm_stream_core::metric::{ErrorOf, Metric};
use maud::{Markup, html};

use super::{
    numbers::{THIN, plain},
    page_run::{PageData, PageGroup, ShownFigure},
    picture::{Anchor, PathData, Picture, PlotFrame},
    scale::{AxisScale, ScaleKind},
    table::{ChartFrame, folded, scrolling},
    verdicts::{PageVerdict, verdicts},
};
use crate::report::json::model::InstrumentReport;

/// Returns the error of the instrument for a value of a metric, both in the unit of the page: that of
/// the group's transport with about as many streams.
pub(super) fn error_of(
    page: &PageData<'_>,
    group: &PageGroup<'_>,
    metric: &str,
    value: f64,
) -> Option<f64> {
    let workload = group.report.workload.as_ref();
    let streams = workload.map_or(1, |load| load.concurrency.or(load.max_in_flight).unwrap_or(1));
    let of_transport = page.runs[group.run].report.instruments.iter();
    let of_transport = of_transport.filter(|of| of.transport == group.report.transport);
    let nearest = of_transport.min_by_key(|of| of.calibration.streams.abs_diff(streams))?;
    let calibration = &nearest.calibration;
    match Metric::named(metric)?.error {
        ErrorOf::Arrival(_) => Some(calibration.ttft.p99 * 1e3),
        ErrorOf::Gap => Some(calibration.gap.p99 * 1e3),
        ErrorOf::Generation => Some(value.abs() * calibration.generation.p99),
        ErrorOf::FirstToken | ErrorOf::Whole | ErrorOf::BeyondServer | ErrorOf::Nothing => None,
    }
}

/// A threshold in the chart: three distances, in percent of the value.
struct ErrorRow<'p> {
    verdict: PageVerdict<'p>,
    error: Option<f64>,
    half: f64,
    to_limit: f64,
}

/// Returns the section.
pub(super) fn section(page: &PageData<'_>) -> Markup {
    let instruments = &page.main().report.instruments;
    let rows = rows(page);
    html! {
        section #instrument {
            h2 { (title(page, &rows)) }
            @if instruments.is_empty() {
                p.lead { "The run was started with " code { "--no-calibration" } ", so its errors are unknown." }
            } @else {
                p.lead { "Measured in this run, against an endpoint that logs when it writes each token." }
            }
            div.grid3 {
                @if !rows.is_empty() { (distances(page, &rows)) }
                @if !instruments.is_empty() { (errors(page)) }
            }
        }
    }
}

fn rows<'p>(page: &'p PageData<'_>) -> Vec<ErrorRow<'p>> {
    let row = |verdict: PageVerdict<'p>| {
        // A count of requests has no error.
        let value = verdict.value.filter(|_| verdict.report.metric != "success_rate")?;
        let (low, high) = verdict.interval?;
        // A change is in percent of its counterpart already.
        let of = if verdict.report.relative { 100.0 } else { value.abs() };
        let share = |size: f64| Some(100.0 * size / of).filter(|share| share.is_finite());
        let half = share((high - low) / 2.0)?;
        let to_limit = share((verdict.limit - value).abs())?;
        let error = verdict.error.and_then(share);
        Some(ErrorRow { verdict, error, half, to_limit })
    };
    verdicts(page).into_iter().filter_map(row).take(40).collect()
}

fn title(page: &PageData<'_>, rows: &[ErrorRow<'_>]) -> String {
    let known = rows.iter().filter_map(|row| Some((row.error?, row.to_limit)));
    let (mut all, mut blurred) = (0, 0);
    for (error, to_limit) in known {
        all += 1;
        blurred += usize::from(error >= to_limit);
    }
    match (page.main().report.instruments.is_empty(), all, blurred) {
        (true, ..) => "The error of the instrument was not measured".into(),
        (false, 0, _) => "The error of the instrument".into(),
        (false, _, 0) => "The instrument is exact enough for every verdict".into(),
        (false, _, blurred) => format!(
            "The instrument’s error reaches the limit of {}",
            llm_stream_core::text::counted(blurred, "threshold")
        ),
    }
}

fn distances(page: &PageData<'_>, rows: &[ErrorRow<'_>]) -> Markup {
    let ratios = rows.iter().filter_map(|row| Some(row.error? / row.half));
    let worst = ratios.filter(|ratio| ratio.is_finite()).fold(None, |worst: Option<f64>, ratio| {
        Some(worst.map_or(ratio, |worst| worst.max(ratio)))
    });
    let title = match worst {
        None => html! { "Half the interval and the distance to the limit" },
        Some(ratio) if ratio < 1.0 => html! {
            "The instrument’s error is at most " (super::numbers::percent(ratio))
            " of half an interval: noise decides, not the instrument"
        },
        Some(ratio) => html! {
            "The instrument’s error is up to " (plain(ratio)) "× half an interval: there, more requests do not help"
        },
    };
    let label = "Instrument error, half interval and distance to the limit of each threshold, in percent of the value";
    let art = html! {
        (chart(page, rows, label, true)) (chart(page, rows, label, false))
    };
    let table_rows: Vec<_> = rows.iter().map(|row| table_row(page, row)).collect();
    let heads =
        ["Threshold", "Instrument error, %", "Half interval, %", "Distance to the limit, %"];
    ChartFrame {
        title: Some(title),
        subtitle: Some(html! {
            "For each threshold with an interval. A limit nearer than the interval is inconclusive; a limit nearer \
             than the instrument’s error would be too"
        }),
        art: Some(art),
        table: Some(folded("instrument error by threshold", &heads, &table_rows)),
        is_wide: true,
        ..ChartFrame::default()
    }
    .render()
}

fn table_row(page: &PageData<'_>, row: &ErrorRow<'_>) -> Markup {
    let model = row.verdict.report.model.as_deref();
    html! {
        th scope="row" {
            @if let Some(model) = model { (page.key_named(model).badge()) }
            (row.verdict.threshold())
        }
        td.r { (row.error.map_or_else(|| "–".into(), plain)) }
        td.r { (plain(row.half)) }
        td.r { (plain(row.to_limit)) }
    }
}

/// Draws the rows; the wide form has the names next to the bars, the narrow one above them.
fn chart(page: &PageData<'_>, rows: &[ErrorRow<'_>], label: &str, is_wide: bool) -> Markup {
    let (width, left, step) = if is_wide { (740, 262.0, 22.0) } else { (360, 26.0, 34.0) };
    let top = 30.0;
    let bottom = top + rows.len() as f64 * step + 2.0;
    let values =
        rows.iter().flat_map(|row| [row.error.unwrap_or(f64::NAN), row.half, row.to_limit]);
    let x = AxisScale::around(ScaleKind::Log, values, (left, f64::from(width) - 16.0), 0.06);
    let y = AxisScale { kind: ScaleKind::Linear, from: 0.0, to: 1.0, start: bottom, end: top };
    let class = if is_wide { "plot wide" } else { "plot narrow" };
    let mut picture = Picture::new(class, (width, (bottom + 38.0) as u32), label);
    let ticks = x.ticks(if is_wide { 7 } else { 5 });
    PlotFrame { x, y }.draw_x(&mut picture, &ticks, "percent of the measured value (log)");
    for (index, row) in rows.iter().enumerate() {
        let middle = top + step * (index as f64 + if is_wide { 0.5 } else { 0.72 });
        draw_row(&mut picture, page, row, (&x, middle), is_wide);
    }
    draw_key(&mut picture, left, is_wide);
    picture.finish()
}

fn draw_row(
    picture: &mut Picture,
    page: &PageData<'_>,
    row: &ErrorRow<'_>,
    (x, y): (&AxisScale, f64),
    is_wide: bool,
) {
    let most = if is_wide { 36 } else { 48 };
    let name: String = row.verdict.threshold().chars().take(most).collect();
    let at = if is_wide { (8.0, y + 3.5) } else { (30.0, y - 9.0) };
    picture.text("lb", at, Anchor::Start, &name);
    let key = row.verdict.report.model.as_deref().map(|model| page.key_named(model));
    if let Some(key) = key.filter(|key| key.is_one_of_several) {
        picture.badge(key, (x.start - 14.0, y));
    }
    let line = |to: f64| PathData::default().move_to(x.start, y).line_to(x.clamped(to), y).done();
    picture.path("base", &line(row.to_limit));
    picture.path("wid", &line(row.half));
    if let Some(error) = row.error {
        let at = x.clamped(error);
        let mut path = PathData::default();
        path.move_to(x.start, y).line_to(at, y).move_to(at, y - 5.0).line_to(at, y + 5.0);
        picture.path("ieb", &path.done());
    }
    picture.circle("pt0", (x.clamped(row.half), y), 4.0);
    let limit = x.clamped(row.to_limit);
    picture
        .path("lim", &PathData::default().move_to(limit, y - 7.0).line_to(limit, y + 7.0).done());
}

fn draw_key(picture: &mut Picture, left: f64, is_wide: bool) {
    let (a, b, c) = if is_wide { (left, left + 118.0, left + 234.0) } else { (2.0, 120.0, 236.0) };
    let line =
        |from: f64, to: f64| PathData::default().move_to(from, 11.0).line_to(to, 11.0).done();
    let mut error = PathData::default();
    error.move_to(a, 11.0).line_to(a + 12.0, 11.0).move_to(a + 12.0, 6.0).line_to(a + 12.0, 16.0);
    picture.path("ieb", &error.done());
    picture.text("lb mu", (a + 18.0, 15.0), Anchor::Start, "instrument error");
    picture.path("wid", &line(b, b + 8.0));
    picture.circle("pt0", (b + 10.0, 11.0), 4.0);
    picture.text("lb mu", (b + 18.0, 15.0), Anchor::Start, "half the interval");
    picture.path("base", &line(c, c + 12.0));
    picture.path("lim", &PathData::default().move_to(c + 12.0, 4.0).line_to(c + 12.0, 18.0).done());
    picture.text("lb mu", (c + 18.0, 15.0), Anchor::Start, "distance to limit");
}

/// Returns the errors of each transport as a table.
fn errors(page: &PageData<'_>) -> Markup {
    let instruments = &page.main().report.instruments;
    let rows: Vec<_> =
        instruments.iter().enumerate().map(|(position, of)| instrument_row(position, of)).collect();
    let largest = instruments.iter().map(|of| of.calibration.gap.p99).fold(0.0, f64::max);
    let first = instruments.iter().map(|of| of.calibration.ttft.p99).fold(0.0, f64::max);
    let heads = ["Transport", "TTFT, ms", "Gap, ms", "Speed, %"];
    ChartFrame {
        title: Some(html! {
            "A first token is uncertain by " (plain(first * 1e3)) (THIN) "ms, a gap by " (plain(largest * 1e3)) (THIN) "ms at most"
        }),
        subtitle: Some(html! {
            "99" (THIN) "% of the errors are smaller. stamped: timed by the kernel; reqwest: by the program"
        }),
        art: Some(scrolling("errors of the instrument", &heads, &rows)),
        ..ChartFrame::default()
    }
    .render()
}

fn instrument_row(position: usize, of: &InstrumentReport) -> Markup {
    let calibration = &of.calibration;
    let cell = |place: &str, value: f64, scale: f64| {
        ShownFigure::at(0, format!("instruments/{position}/{place}/p99"), value, scale).cell()
    };
    let streams = llm_stream_core::text::counted(calibration.streams, "stream");
    html! {
        th scope="row" {
            (of.transport) ", " (streams)
            @if calibration.tls { ", TLS" } @if calibration.unix { ", unix socket" }
        }
        (cell("ttft", calibration.ttft.p99, 1e3))
        (cell("gap", calibration.gap.p99, 1e3))
        (cell("generation", calibration.generation.p99, 100.0))
    }
}
