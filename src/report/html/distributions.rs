//! Distributions of the requests that were sent one by one, by model, and of other runs next to them.

use maud::{Markup, html};

use super::{
    ecdf::{CurveStyle, CurveValues, EcdfChart, EcdfCurve},
    instruments::error_of,
    keys::legend,
    numbers::{THIN, plain, with_unit},
    page_run::{PageData, PageGroup, ShownFigure},
    requests::{E2E, SPEED, TOKENS, TPOT, TTFT},
    table::{ChartFrame, folded},
};

/// A metric whose distribution is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct DistributionSpec {
    /// Its position among the values of a request; `None` for single gaps.
    pub(super) values: Option<usize>,
    pub(super) metric: &'static str,
    pub(super) short: &'static str,
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
}

pub(super) const TTFT_SPEC: DistributionSpec = DistributionSpec {
    values: Some(TTFT),
    metric: "ttft",
    short: "TTFT",
    name: "time to first token",
    unit: "ms",
};
pub(super) const TPOT_SPEC: DistributionSpec = DistributionSpec {
    values: Some(TPOT),
    metric: "tpot",
    short: "TPOT",
    name: "time per output token",
    unit: "ms",
};
const GAPS_SPEC: DistributionSpec = DistributionSpec {
    values: None,
    metric: "itl",
    short: "ITL",
    name: "gaps between token events",
    unit: "ms",
};
const SPEED_SPEC: DistributionSpec = DistributionSpec {
    values: Some(SPEED),
    metric: "generation_speed",
    short: "speed",
    name: "generation speed",
    unit: "tok/s",
};
const E2E_SPEC: DistributionSpec = DistributionSpec {
    values: Some(E2E),
    metric: "e2e",
    short: "E2E",
    name: "time to the last token",
    unit: "ms",
};
const TOKENS_SPEC: DistributionSpec = DistributionSpec {
    values: Some(TOKENS),
    metric: "response_tokens",
    short: "length",
    name: "length of answers",
    unit: "tokens",
};

const SPECS: [DistributionSpec; 6] =
    [TTFT_SPEC, TPOT_SPEC, GAPS_SPEC, SPEED_SPEC, E2E_SPEC, TOKENS_SPEC];

/// The most models whose curves are drawn; the tables have all.
pub(super) const MOST_DRAWN: usize = 8;

/// Returns the section; `None` without requests one by one.
pub(super) fn section(page: &PageData<'_>) -> Option<Markup> {
    let groups = page.one_by_one();
    let drawn = drawn_groups(page, &groups);
    let charts: Vec<Markup> =
        SPECS.iter().filter_map(|spec| chart(page, spec, &groups, &drawn)).collect();
    if charts.is_empty() {
        return None;
    }
    let several_runs = page.runs.len() > 1;
    Some(html! {
        section #distributions {
            h2 { (section_title(page, &groups)) }
            p.lead {
                "Requests sent one by one, on a probability scale. "
                @if drawn.len() > 1 { "The letter is the median; " } @else { "The dot is the median; " }
                "ticks are p95 and p99, where there are enough requests (93 and 473)."
                @if several_runs { " Dashed: the other runs." }
                @if drawn.len() < groups.len() {
                    " The charts have " (drawn.len()) " of " (groups.len())
                    " models: the first ones of the config and those with a missed limit. The tables have all."
                }
            }
            (legend(drawn.iter().map(|group| page.key(group))))
            (runs_key(page))
            div.grid3 { @for chart in charts { (chart) } }
        }
    })
}

/// Returns the line style of each run.
fn runs_key(page: &PageData<'_>) -> Markup {
    let line = |run: usize| match run {
        0 => "ln".to_owned(),
        run => format!("ln old old{}", (run - 1) % 3 + 1),
    };
    html! {
        @if page.runs.len() > 1 {
            ul.runs-key {
                @for run in 0..page.runs.len() {
                    li {
                        svg.run-line viewBox="0 0 26 8" aria-hidden="true" { path class=(line(run)) d="M0 4H26" {} }
                        " " (page.run_label(run)) @if run == 0 { ", the newest" }
                    }
                }
            }
        }
    }
}

/// Returns the finding of the section: the first and the fastest model, or the figures of the only one.
fn section_title(page: &PageData<'_>, groups: &[PageGroup<'_>]) -> Markup {
    let medians = |metric| {
        let of =
            groups.iter().filter_map(move |group| Some((group, group.shown(metric, "median")?)));
        of.collect::<Vec<(&PageGroup<'_>, ShownFigure)>>()
    };
    let least =
        |metric| medians(metric).into_iter().min_by(|a, b| a.1.value().total_cmp(&b.1.value()));
    match (groups.len(), least("ttft"), least("tpot")) {
        (1, Some((_, first)), Some((_, each))) => {
            html! { "The first token comes after " (first) (THIN) "ms, each further one after " (each) (THIN) "ms" }
        }
        (_, Some((first, _)), Some((each, _))) if first.position == each.position => {
            html! { (page.key(first).name) " answers first and takes least time per token" }
        }
        (_, Some((first, _)), Some((each, _))) => {
            html! { (page.key(first).name) " answers first; " (page.key(each).name) " takes least time per token" }
        }
        (_, Some((first, _)), None) => html! { (page.key(first).name) " answers first" },
        (..) => html! { "How latency and speed are distributed" },
    }
}

/// Returns the groups whose curves are drawn: all, or the first ones and those with a missed limit.
pub(super) fn drawn_groups<'p>(
    page: &PageData<'_>,
    groups: &[PageGroup<'p>],
) -> Vec<PageGroup<'p>> {
    if groups.len() <= MOST_DRAWN {
        return groups.to_vec();
    }
    let missed = |group: &PageGroup<'_>| {
        page.main()
            .report
            .thresholds
            .iter()
            .any(|limit| limit.verdict == "fail" && limit.group == *group.report.name)
    };
    let ranked = groups.iter().enumerate().filter(|(index, group)| *index < 5 || missed(group));
    ranked.map(|(_, group)| *group).take(2 * MOST_DRAWN).collect()
}

fn chart(
    page: &PageData<'_>,
    spec: &DistributionSpec,
    groups: &[PageGroup<'_>],
    drawn: &[PageGroup<'_>],
) -> Option<Markup> {
    let mut curves = Vec::new();
    for group in drawn {
        curves.push(curve(page, spec, group, CurveStyle::Model, String::new()));
        for run in 1..page.runs.len() {
            let Some(other) = page.counterpart(run, group) else { continue };
            let name = page.run_label(run);
            curves.push(curve(page, spec, &other, CurveStyle::OtherRun(run), name));
        }
    }
    let chart = EcdfChart {
        label: label(spec, &curves),
        axis: format!("{}, {} (log)", spec.short, spec.unit),
        unit: spec.unit,
        share_of: share_of(spec),
        curves,
    };
    let (art, has_band) = chart.draw()?;
    let note = instrument_note(&chart.curves, spec, has_band);
    let frame = ChartFrame {
        title: title(page, spec, groups),
        subtitle: Some(html! { (subtitle(spec)) }),
        art: Some(art),
        note,
        table: Some(table(page, spec, groups)),
        ..ChartFrame::default()
    };
    Some(frame.render())
}

/// Returns the curve of a group.
pub(super) fn curve<'p>(
    page: &'p PageData<'_>,
    spec: &DistributionSpec,
    group: &PageGroup<'p>,
    style: CurveStyle,
    label: String,
) -> EcdfCurve<'p> {
    let gaps = &group.requests.gaps;
    let values = match spec.values {
        None => CurveValues::Counted(gaps),
        Some(metric) => {
            let mut values = group.requests.values(metric);
            values.sort_by(f64::total_cmp);
            CurveValues::Sorted(values)
        }
    };
    let of = |statistic, share| match spec.values {
        None => gaps.quantile(share),
        Some(_) => group.shown(spec.metric, statistic).map(|shown| shown.value()),
    };
    let median = of("median", 0.5);
    let error = median.and_then(|median| error_of(page, group, error_metric(spec), median));
    EcdfCurve {
        key: page.key(group),
        style,
        label,
        values,
        median,
        p95: of("p95", 0.95),
        p99: of("p99", 0.99),
        error,
    }
}

const fn share_of(spec: &DistributionSpec) -> &'static str {
    if spec.values.is_none() { "gaps" } else { "requests" }
}

fn label(spec: &DistributionSpec, curves: &[EcdfCurve<'_>]) -> String {
    let medians = curves.iter().filter_map(|curve| {
        let run = if curve.label.is_empty() { String::new() } else { format!(", {}", curve.label) };
        Some(format!("{}{run} {}", curve.key.name, with_unit(&plain(curve.median?), spec.unit)))
    });
    let medians: Vec<_> = medians.collect();
    format!("Distribution of {}. Medians: {}", spec.name, medians.join(", "))
}

fn subtitle(spec: &DistributionSpec) -> &'static str {
    match spec.metric {
        "ttft" => "Time to first token. Share of requests that took no longer",
        "tpot" => "Time per output token, after the first. Share of requests that took no longer",
        "itl" => "Gaps between token events, of all requests. Share of gaps up to this length",
        "generation_speed" => "Generation speed. Share of requests that were no faster",
        "e2e" => "Request to last token. Share of requests that took no longer",
        _ => "Tokens of an answer. Share of requests that have no more",
    }
}

/// Returns the finding: which model is best, or the figure of the only model.
fn title(page: &PageData<'_>, spec: &DistributionSpec, groups: &[PageGroup<'_>]) -> Option<Markup> {
    if spec.values.is_none() {
        return gaps_title(page, groups);
    }
    let medians: Vec<(&PageGroup<'_>, ShownFigure)> = groups
        .iter()
        .filter_map(|group| Some((group, group.shown(spec.metric, "median")?)))
        .collect();
    let (group, best) = match spec.metric {
        "generation_speed" => medians.iter().max_by(|a, b| a.1.value().total_cmp(&b.1.value())),
        _ => medians.iter().min_by(|a, b| a.1.value().total_cmp(&b.1.value())),
    }?;
    let name = &page.key(group).name;
    if spec.metric == "response_tokens" {
        return lengths_title(&medians);
    }
    let value = html! { (best) (THIN) (spec.unit) " in the median" };
    if let (1, Some(change)) = (medians.len(), change(page, spec, group)) {
        return Some(html! { (capitalised(spec.name)) ": " (value) ", " (change) });
    }
    Some(match (medians.len(), spec.metric) {
        (1, "ttft") => html! { "The first token comes after " (value) },
        (1, "tpot") => html! { "Each further token takes " (value) },
        (1, "generation_speed") => html! { "Answers are generated at " (value) },
        (1, _) => html! { "An answer is complete after " (value) },
        (_, "ttft") => html! { (name) " answers first: " (value) },
        (_, "tpot") => html! { (name) " takes least time per token: " (value) },
        (_, "generation_speed") => html! { (name) " generates fastest: " (value) },
        (_, _) => html! { (name) " is complete first: " (value) },
    })
}

/// Returns how the median of another run differs.
fn change(page: &PageData<'_>, spec: &DistributionSpec, group: &PageGroup<'_>) -> Option<Markup> {
    let other =
        page.counterpart(page.runs.len().checked_sub(1).filter(|last| *last > 0)?, group)?;
    let before = other.shown(spec.metric, "median")?;
    Some(html! { "in the run of " (page.run_label(other.run)) " " (before) (THIN) (spec.unit) })
}

fn lengths_title(medians: &[(&PageGroup<'_>, ShownFigure)]) -> Option<Markup> {
    let extreme = |statistic| {
        let all = medians.iter().filter_map(|(group, _)| group.shown("response_tokens", statistic));
        let order = |a: &ShownFigure, b: &ShownFigure| a.value().total_cmp(&b.value());
        if statistic == "min" { all.min_by(order) } else { all.max_by(order) }
    };
    let (least, most) = (extreme("min")?, extreme("max")?);
    Some(match least.value() == most.value() {
        true => html! { "All answers have " (least) " tokens" },
        false => html! { "Answers have " (least) " to " (most) " tokens" },
    })
}

/// Returns the finding on gaps: the model with the widest spread.
fn gaps_title(page: &PageData<'_>, groups: &[PageGroup<'_>]) -> Option<Markup> {
    let spread = |group: &PageGroup<'_>| {
        let gaps = &group.requests.gaps;
        let (median, p99) = (gaps.quantile(0.5)?, gaps.quantile(0.99)?);
        Some((p99 / median, median, p99))
            .filter(|(ratio, ..)| ratio.is_finite() && gaps.total() >= 473)
    };
    let all: Vec<_> = groups.iter().filter_map(|group| Some((group, spread(group)?))).collect();
    let Some((group, (ratio, median, p99))) = all.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0))
    else {
        let is_few = groups.iter().all(|group| group.requests.gaps.total() < 473);
        return Some(match is_few {
            true => html! { "Too few gaps between tokens for a p99" },
            false => html! { "Half of the gaps are zero: tokens arrive together" },
        });
    };
    let (median, p99) = (with_unit(&plain(*median), "ms"), with_unit(&plain(*p99), "ms"));
    let ratio = plain(*ratio);
    Some(match all.len() {
        1 => html! { "1" (THIN) "% of the gaps last " (p99) " or longer; the median is " (median) },
        _ => {
            html! { (page.key(group).name) " has the most uneven gaps: p99 is " (ratio) "× the median" }
        }
    })
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Describes the error of the instrument in the chart.
fn instrument_note(
    curves: &[EcdfCurve<'_>],
    spec: &DistributionSpec,
    has_band: bool,
) -> Option<Markup> {
    let own = curves.iter().filter(|curve| !matches!(curve.style, CurveStyle::OtherRun(_)));
    let largest = own.filter_map(|curve| curve.error).max_by(f64::total_cmp)?;
    let shown = with_unit(&plain(largest), spec.unit);
    Some(match has_band {
        true => {
            html! { i.sw.err {} "Instrument error, up to ±" (THIN) (shown) ": the grey band, where it is wider than a line." }
        }
        false => html! { "Instrument error ±" (THIN) (shown) ": narrower than a line." },
    })
}

fn table(page: &PageData<'_>, spec: &DistributionSpec, groups: &[PageGroup<'_>]) -> Markup {
    let heads = ["Model", "n", "p50", "p95", "p99", "min", "max"];
    let name = format!("{}, {}", spec.name, spec.unit);
    let rows = groups.iter().flat_map(|group| {
        let others = (1..page.runs.len()).filter_map(|run| page.counterpart(run, group));
        std::iter::once(*group)
            .chain(others)
            .map(|group| row(page, spec, &group))
            .collect::<Vec<_>>()
    });
    let rows: Vec<Markup> = rows.collect();
    folded(&name, &heads, &rows)
}

fn row(page: &PageData<'_>, spec: &DistributionSpec, group: &PageGroup<'_>) -> Markup {
    let head = html! {
        th scope="row" {
            (page.key(group).named())
            @if page.runs.len() > 1 { ", " (page.run_label(group.run)) }
        }
    };
    let gaps = &group.requests.gaps;
    if spec.values.is_some() {
        let n = group.figure(spec.metric).map_or(0, |figure| figure.n);
        return html! {
            (head) td.r { (n) }
            @for statistic in ["median", "p95", "p99", "min", "max"] { (group.cell(spec.metric, statistic)) }
        };
    }
    let of = |share: f64, needs: u64| match gaps.quantile(share) {
        Some(_) if gaps.total() < needs => format!("needs {needs}"),
        Some(value) => plain(value),
        None => "–".into(),
    };
    let range =
        gaps.range().map_or(["–".into(), "–".into()], |(low, high)| [plain(low), plain(high)]);
    html! {
        (head) td.r { (gaps.total()) }
        td.r { (of(0.5, 1)) } td.r { (of(0.95, 93)) } td.r { (of(0.99, 473)) }
        @for end in range { td.r { (end) } }
    }
}

/// Returns the metric whose error a curve has: `itl` is a mean, and the curve shows single gaps.
const fn error_metric(spec: &DistributionSpec) -> &'static str {
    if spec.values.is_none() { "itl_max" } else { spec.metric }
}
