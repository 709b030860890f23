//! Stored runs as text, Markdown and CSV. Their figures are those of `run.json`.

use std::fmt::Write;

use llm_stream_core::{
    baseline::{Baseline, GroupBaseline},
    interval::Interval,
    metric::Metric,
    statistic::Statistic,
    text::counted,
};

use super::{
    RunStatus,
    csv::inert,
    json::model::{
        CountedShareReport, FigureReport, GroupReport, IntervalReport, LoadReport, RunReport,
        ServerOverTimeReport,
    },
    models_table::{self, Mean, ModelRow},
    number, step_summary, table,
};
use crate::setup::Setup;

/// A stored run with its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamedRun<'a> {
    /// Its name, such as the time of its start.
    pub(crate) name: &'a str,
    /// Its results.
    pub(crate) report: &'a RunReport<'a>,
}

/// The figures of the tables of requests.
const OF_REQUESTS: [&Metric; 4] =
    [Metric::GENERATION_SPEED, Metric::TTFT, Metric::TPOT, Metric::E2E];

/// The figures of the tables of loads.
const OF_LOADS: [&Metric; 5] = [
    Metric::OUTPUT_THROUGHPUT,
    Metric::REQUEST_THROUGHPUT,
    Metric::GENERATION_SPEED,
    Metric::TTFT,
    Metric::TPOT,
];

/// The figures of what loads cost.
const OF_MACHINES: [&Metric; 4] = [
    Metric::OUTPUT_THROUGHPUT_PER_GPU,
    Metric::COST_PER_MILLION_OUTPUT_TOKENS,
    Metric::ENERGY,
    Metric::ENERGY_PER_OUTPUT_TOKEN,
];

/// A table of a run.
struct Section {
    title: &'static str,
    /// The heads of the columns; a head that begins with `>` aligns its column right.
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Formats the run for a terminal of this width.
pub(crate) fn text(run: NamedRun<'_>, width: usize) -> String {
    let mut out = format!("{}\n", headline(run));
    facts(run.report).iter().for_each(|(name, value)| {
        let _ = writeln!(out, "  {name:<9} {value}");
    });
    let _ = write!(out, "{}", means(run.report, width));
    for section in [
        yields(run.report),
        server_over_time(run.report),
        thresholds(run.report),
        failures(run.report),
    ] {
        out.push_str(&of_groups(&section, width));
    }
    out
}

/// Formats the rows of each group as a table under its name, which has a column in the section.
fn of_groups(Section { title, heads, rows }: &Section, width: usize) -> String {
    let Some(name) = heads.iter().position(|head| head.ends_with(" of")) else {
        return String::new();
    };
    let without = |row: &[String]| -> Vec<String> { [&row[..name], &row[name + 1..]].concat() };
    let mut out = if rows.is_empty() { String::new() } else { format!("\n{title}\n") };
    for rows in rows.chunk_by(|a, b| a[name] == b[name]) {
        let heads = without(heads);
        let heads: Vec<_> = heads.iter().map(String::as_str).collect();
        let mut table = table::of_width(&heads, width);
        table.add_rows(rows.iter().map(|row| without(row)));
        let _ = write!(out, "\n{}\n{}", rows[0][name], table::lines(&table));
    }
    out
}

/// Formats the run as Markdown.
pub(crate) fn markdown(run: NamedRun<'_>) -> String {
    let mut out = format!("### {}\n\n", step_summary::code(&headline(run)));
    for (name, value) in facts(run.report) {
        let _ = writeln!(out, "- {name}: {}", step_summary::code(&value));
    }
    for Section { title, heads, rows } in sections(run.report) {
        let heads: Vec<_> =
            heads.iter().map(|head| head.trim_start_matches('>').to_owned()).collect();
        let rows =
            rows.into_iter().map(|row| row.iter().map(|cell| step_summary::cell(cell)).collect());
        let _ = write!(out, "\n{title}\n\n{}", step_summary::table(&heads, "---", rows));
    }
    out
}

/// The columns of the CSV after the run, the group and the metric.
type StatisticColumn = (&'static str, fn(&FigureReport) -> Option<f64>);

const STATISTICS: &[StatisticColumn] = &[
    ("mean", |figure| figure.mean),
    ("mean_low", |figure| end(&figure.intervals.mean, |of| of.low)),
    ("mean_high", |figure| end(&figure.intervals.mean, |of| of.high)),
    ("median", |figure| figure.median),
    ("median_low", |figure| end(&figure.intervals.median, |of| of.low)),
    ("median_high", |figure| end(&figure.intervals.median, |of| of.high)),
    ("sd", |figure| figure.sd),
    ("min", |figure| figure.min),
    ("max", |figure| figure.max),
    ("p5", |figure| figure.p5),
    ("p25", |figure| figure.p25),
    ("p75", |figure| figure.p75),
    ("p90", |figure| figure.p90),
    ("p95", |figure| figure.p95),
    ("p99", |figure| figure.p99),
];

fn end(interval: &Option<IntervalReport>, of: fn(&IntervalReport) -> f64) -> Option<f64> {
    interval.as_ref().map(of).filter(|end| end.is_finite())
}

/// Formats the figures of the runs as CSV: a row for each run, group and metric, in the units of
/// `run.json`. An unknown value is an empty cell.
pub(crate) fn csv<'a>(runs: impl Iterator<Item = NamedRun<'a>>) -> csv::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let heads = ["run", "started", "ended", "model", "workload", "metric", "unit", "n"];
    let statistics = STATISTICS.iter().map(|(name, _)| *name);
    writer.write_record(heads.into_iter().chain(statistics))?;
    for NamedRun { name, report } in runs {
        let started = report.setup.as_ref().map(|setup| setup.started.to_string());
        for group in &report.groups {
            for (metric, figure) in &group.metrics.0 {
                let unit = report.metrics.get(metric).map_or("", |metric| &metric.unit);
                let workload = group.workload.as_ref().map_or("", |workload| &workload.name);
                let head = [
                    name,
                    started.as_deref().unwrap_or_default(),
                    report.result.ended.name(),
                    &group.model,
                    workload,
                    metric,
                    unit,
                ];
                let head = head.into_iter().map(|cell| inert(cell.to_owned()));
                let statistics = STATISTICS.iter().map(|(_, of)| of(figure));
                let statistics = statistics
                    .map(|value| value.map(|value| value.to_string()).unwrap_or_default());
                writer.write_record(head.chain([figure.n.to_string()]).chain(statistics))?;
            }
        }
    }
    Ok(writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

fn headline(run: NamedRun<'_>) -> String {
    let status = run.report.result.ended;
    let partial = match status {
        RunStatus::Interrupted => " (partial)",
        RunStatus::Passed | RunStatus::Failed => "",
    };
    format!("Run {}: {}{partial}", run.name, status.name())
}

/// The facts about a run, by name.
fn facts(report: &RunReport<'_>) -> Vec<(&'static str, String)> {
    let reasons = report.result.reasons.iter().map(|reason| ("result", reason.clone()));
    let setup = report.setup.as_deref();
    let started = setup.map(|setup| ("started", started(setup)));
    let config = setup.map(|setup| ("config", setup.config.file.clone()));
    let git = setup.and_then(|setup| setup.git.as_ref()).map(|git| {
        let modified = if git.is_modified { ", with changes" } else { "" };
        ("revision", format!("{}{modified}", git.commit))
    });
    let tool = format!("{} {}", report.tool.name, report.tool.version);
    let resumed = setup.and_then(|setup| setup.resumed.as_ref()).map(|resumed| {
        let kept = counted(resumed.kept, "trial");
        ("resumed", format!("with {kept} of the run {}", resumed.run))
    });
    let others = [("machine", report.machine.clone().into_owned()), ("program", tool)];
    reasons.chain(started).chain(resumed).chain(config).chain(git).chain(others).collect()
}

fn started(setup: &Setup) -> String {
    let started = format!("{:.0}", setup.started);
    match setup.ended {
        None => format!("{started}; it has no end"),
        Some(ended) => {
            let seconds = ended.duration_since(setup.started).as_secs_f64().max(0.0);
            format!("{started}, for {seconds:.1} s")
        }
    }
}

fn sections(report: &RunReport<'_>) -> Vec<Section> {
    let (loads, requests): (Vec<_>, Vec<_>) =
        report.groups.iter().partition(|group| group.workload.is_some());
    let mut sections = vec![
        figures("Requests one by one: means", &requests, &OF_REQUESTS),
        figures("Under load: means", &loads, &OF_LOADS),
        yields(report),
        server_over_time(report),
        thresholds(report),
        failures(report),
    ];
    sections.retain(|section| !section.rows.is_empty());
    sections
}

/// Formats the means of the models as at the end of the run: a table of those with prompts, and one of
/// each workload.
fn means(report: &RunReport<'_>, width: usize) -> String {
    let load = |group: &GroupReport<'_>| {
        group.workload.as_ref().map(|workload| format!("{}: {}", workload.name, workload.load))
    };
    let mut tables: Vec<(Option<String>, Vec<&GroupReport<'_>>)> = Vec::new();
    for group in &report.groups {
        let load = load(group);
        match tables.iter_mut().find(|(of, _)| *of == load) {
            Some((_, groups)) => groups.push(group),
            None => tables.push((load, vec![group])),
        }
    }
    if tables.is_empty() {
        return String::new();
    }
    let mut out = "\nMeans ± half of their interval; * best, or not clearly worse\n".to_owned();
    for (load, groups) in tables {
        let has = |metric: &Metric| {
            let figures = |group: &&GroupReport<'_>| {
                group.metrics.get(metric.name).is_some_and(|figure| figure.mean.is_some())
            };
            groups.iter().any(figures)
        };
        let metrics = models_table::columns(has, load.is_some());
        let rows: Vec<_> = groups.into_iter().map(|group| model_row(group, metrics)).collect();
        let _ = write!(out, "\n{}", models_table::render(load, &rows, metrics, width));
    }
    out
}

fn model_row<'a>(group: &'a GroupReport<'_>, metrics: &[&'static Metric]) -> ModelRow<'a> {
    let mean = |metric: &&Metric| {
        let figure = group.metrics.get(metric.name)?;
        let interval = figure.intervals.mean.as_ref();
        let interval =
            interval.map(|IntervalReport { low, high }| Interval { low: *low, high: *high });
        let interval = interval.filter(|of| of.low.is_finite() && of.high.is_finite());
        Some(Mean { value: figure.mean?, interval })
    };
    ModelRow {
        name: &group.model,
        valid: group.requests.valid,
        failed: group.requests.failed,
        means: metrics.iter().map(mean).collect(),
    }
}

fn figures(title: &'static str, groups: &[&GroupReport<'_>], metrics: &[&Metric]) -> Section {
    let has_any =
        |metric: &&&Metric| groups.iter().any(|group| group.metrics.get(metric.name).is_some());
    let metrics: Vec<_> = metrics.iter().filter(has_any).collect();
    let head = |metric: &&&Metric| format!(">{}, {}", metric.name, metric.unit.display().0);
    let heads = ["model".into(), ">valid".into()].into_iter().chain(metrics.iter().map(head));
    let row = |group: &&GroupReport<'_>| {
        let counts = [group.name.clone(), format_counts(group)];
        counts.into_iter().chain(metrics.iter().map(|metric| mean(group, metric))).collect()
    };
    Section { title, heads: heads.collect(), rows: groups.iter().map(row).collect() }
}

/// Returns what the loads cost.
fn yields(report: &RunReport<'_>) -> Section {
    let of_group = |group: &GroupReport<'_>| -> Vec<Vec<String>> {
        let metrics = OF_MACHINES.iter().filter(|metric| group.metrics.get(metric.name).is_some());
        let row = |metric: &&Metric| {
            let unit = metric.unit.display().0;
            vec![group.name.clone(), metric.name.into(), unit.into(), mean(group, metric)]
        };
        metrics.map(row).collect()
    };
    let rows = report.groups.iter().flat_map(of_group).collect();
    let heads = ["cost and energy of", "figure", "unit", ">mean"];
    Section { title: "Cost and energy", heads: heads.map(Into::into).into(), rows }
}

/// Returns the server's gauges and shares over the time of each load.
fn server_over_time(report: &RunReport<'_>) -> Section {
    let of_group = |group: &GroupReport<'_>| -> Vec<Vec<String>> {
        let of_run = |(load, run): (&LoadReport, usize)| {
            let server = load.server.as_ref()?;
            let head = [group.name.clone(), run.to_string()];
            let rows = server_figures(server).into_iter();
            Some(rows.map(|row| head.iter().cloned().chain(row).collect()).collect::<Vec<_>>())
        };
        group.loads.iter().zip(1..).filter_map(of_run).flatten().collect()
    };
    let rows = report.groups.iter().flat_map(of_group).collect();
    let heads = ["server over time of", ">run", "figure", ">mean", ">max"];
    Section { title: "Server over time", heads: heads.map(Into::into).into(), rows }
}

/// Returns a row for each figure of the server: its name, its mean or only value, and its maximum.
fn server_figures(server: &ServerOverTimeReport) -> Vec<[String; 3]> {
    let gauges = [
        ("running", "running", 1.0),
        ("waiting", "waiting", 1.0),
        ("kv_cache_use", "KV cache, %", 100.0),
        ("accept_rate", "accept_rate, %", 100.0),
    ];
    let gauge = |(name, what, scale): (&str, &str, f64)| {
        let of = server.gauges.get(name)?;
        Some([what.to_owned(), number(of.mean * scale), number(of.max * scale)])
    };
    let single = |what: &str, value: String| [what.to_owned(), value, String::new()];
    let share = |what: &str, of: &Option<CountedShareReport>| {
        of.as_ref().map(|of| single(what, number(of.share * 100.0)))
    };
    let accepted = match server.synthetic_text {
        true => "draft tokens accepted, %, of synthetic text",
        false => "draft tokens accepted, %",
    };
    let preemptions = server.preemptions.map(|count| single("preemptions", count.to_string()));
    let failed = (server.failed > 0).then(|| single("failed scrapes", server.failed.to_string()));
    let others = [
        preemptions,
        share("prefix cache hits, %", &server.cache_hits),
        share(accepted, &server.acceptance),
        Some(single("scrapes", server.scrapes.to_string())),
        failed,
    ];
    gauges.into_iter().filter_map(gauge).chain(others.into_iter().flatten()).collect()
}

fn format_counts(group: &GroupReport<'_>) -> String {
    match group.requests.failed {
        0 => group.requests.valid.to_string(),
        failed => format!("{} + {failed} failed", group.requests.valid),
    }
}

/// Formats a mean with half the width of its interval, or with its ends if it is not symmetric.
fn mean(group: &GroupReport<'_>, metric: &Metric) -> String {
    let Some(figure) = group.metrics.get(metric.name) else { return "–".into() };
    let Some(mean) = figure.mean else { return "–".into() };
    let scale = metric.unit.display().1;
    let Some(IntervalReport { low, high }) = &figure.intervals.mean else {
        return number(mean * scale);
    };
    let half = (high - low) / 2.0 * scale;
    match half.is_finite() {
        true => format!("{} ± {}", number(mean * scale), number(half)),
        false => number(mean * scale),
    }
}

fn thresholds(report: &RunReport<'_>) -> Section {
    let row = |of: &super::json::model::ThresholdReport<'_>| {
        vec![
            of.verdict.clone().into_owned(),
            of.group.clone().into_owned(),
            of.threshold.clone(),
            of.told.clone(),
            of.reason.clone().unwrap_or_default(),
        ]
    };
    let heads = ["verdict", "threshold of", "limit", "actual", "why"];
    let rows = report.thresholds.iter().map(row).collect();
    Section { title: "Thresholds", heads: heads.map(Into::into).into(), rows }
}

fn failures(report: &RunReport<'_>) -> Section {
    let of_group = |group: &GroupReport<'_>| -> Vec<Vec<String>> {
        let row = |(kind, count): &(String, usize)| {
            vec![group.name.clone(), kind.clone(), counted(*count, "request")]
        };
        group.requests.failures.0.iter().map(row).collect()
    };
    let rows = report.groups.iter().flat_map(of_group).collect();
    let heads = ["failures of", "kind", "number"];
    Section { title: "Failures", heads: heads.map(Into::into).into(), rows }
}

/// The fastest model of a run and its means, in a line; `None` without a figure.
pub(crate) fn fastest(report: &RunReport<'_>) -> Option<String> {
    let speed = |group: &&GroupReport<'_>| {
        group.metrics.get(Metric::GENERATION_SPEED.name).and_then(|figure| figure.mean)
    };
    let groups = report.groups.iter().filter(|group| speed(group).is_some());
    let (loads, requests): (Vec<_>, Vec<_>) = groups.partition(|group| group.workload.is_some());
    let of = if requests.is_empty() { loads } else { requests };
    let fastest = of
        .into_iter()
        .max_by(|a, b| speed(a).partial_cmp(&speed(b)).unwrap_or(std::cmp::Ordering::Equal))?;
    let figures = [Metric::GENERATION_SPEED, Metric::TTFT].map(|metric| {
        let unit = metric.unit.display().0;
        format!("{} {} {unit}", metric.name, mean(fastest, metric))
    });
    Some(format!("{}: {}", fastest.name, figures.join(", ")))
}

/// A run in the list of runs.
pub(crate) struct ListedRun {
    name: String,
    verdict: String,
    /// The fastest model, or why the run cannot be read.
    figures: String,
    models: usize,
}

impl ListedRun {
    /// The entry of a run.
    pub(crate) fn of(name: &str, report: &RunReport<'_>) -> Self {
        let mut models: Vec<_> = report.groups.iter().map(|group| &group.model).collect();
        models.sort();
        models.dedup();
        Self {
            name: name.to_owned(),
            verdict: report.result.ended.name().to_owned(),
            figures: fastest(report).unwrap_or_else(|| "no valid request".to_owned()),
            models: models.len(),
        }
    }

    /// The entry of a run of the first version, which has only its rows.
    pub(crate) fn of_values(name: &str, values: &Baseline) -> Self {
        let groups = &values.latest().groups;
        let speed = |group: &GroupBaseline| {
            let side = group.side(Metric::GENERATION_SPEED, 0.0)?.ok()?;
            Statistic::Mean.of(side.values()).ok()
        };
        let speeds = groups.iter().filter_map(|group| Some((speed(group)?, &group.name)));
        let fastest = speeds.max_by(|a, b| a.0.total_cmp(&b.0));
        let unit = Metric::GENERATION_SPEED.unit.display().0;
        let figures = fastest.map(|(speed, name)| {
            format!("{name}: {} {} {unit}", Metric::GENERATION_SPEED.name, number(speed))
        });
        let mut models: Vec<_> = groups.iter().filter_map(GroupBaseline::model).collect();
        models.sort_unstable();
        models.dedup();
        Self {
            name: name.to_owned(),
            verdict: "–".to_owned(),
            figures: figures.unwrap_or_else(|| "no valid request".to_owned()),
            models: models.len(),
        }
    }

    /// The entry of a run that cannot be read.
    pub(crate) fn unreadable(name: &str, why: String) -> Self {
        Self { name: name.to_owned(), verdict: "unreadable".to_owned(), figures: why, models: 0 }
    }
}

/// Formats the list of runs.
pub(crate) fn list(runs: &[ListedRun]) -> String {
    let mut table = table::table(&["run", "result", ">models", "fastest"]);
    for ListedRun { name, verdict, figures, models } in runs {
        let models = if *models > 0 { models.to_string() } else { "–".to_owned() };
        table.add_row([name, verdict, &models, figures]);
    }
    table::lines(&table)
}
