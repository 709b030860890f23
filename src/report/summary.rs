//! The summary for the terminal: a table per group, a row per figure.

use std::{collections::BTreeMap, fmt::Write};

use llm_stream_core::{
    column::ValueColumn,
    drift::Drift,
    energy::Energy,
    interval::Interval,
    lacking::MissingFigures,
    load_stats::LoadStats,
    metric::{METRICS, Metric},
    punctuality::Deviation,
    server_metrics::MetricComparison,
    server_series::{CountedShare, ServerOverTime},
    statistic::Statistic,
    summary::{Group, ServerComparison, Tally},
    text::counted,
    trace::PromptLengths,
};

use super::{Exporter, Run, number, search, table};

/// Every figure of every group.
#[derive(Debug, Clone, Copy)]
pub struct SummaryTables;

const STATISTICS: [Statistic; 5] =
    [Statistic::Mean, Statistic::Sd, Statistic::Min, Statistic::Median, Statistic::Max];

impl Exporter for SummaryTables {
    fn render(&self, run: &Run) -> String {
        format!("Summary\n{}", tables(run))
    }
}

/// Formats the table of each group, with an empty line before each.
pub(super) fn tables(run: &Run) -> String {
    let mut out = String::new();
    for group in &run.summary.groups {
        out.push('\n');
        out.push_str(&heading(group));
        out.push_str(&searches(group));
        if group.tally.valid > 0 {
            out.push_str(&figures(group));
            out.push_str(&drifts(group));
            out.push_str(&simulator(group));
            out.push_str(&server_timings(group));
            out.push_str(&server_metrics(group));
            out.push_str(&server_over_time(group));
            out.push_str(&turns(group));
        }
    }
    out
}

/// Describes what searches found, each load on a line.
pub(super) fn searches(group: &Group) -> String {
    let mut out = String::new();
    for finished in &group.searches {
        for point in &finished.points {
            let _ = writeln!(out, "  {}", search::point(&finished.objective, point));
        }
        let _ = writeln!(out, "  {}", search::result(finished));
    }
    out
}

fn heading(group: &Group) -> String {
    let mut out = group.name();
    if group.spec.is_simulated {
        out.push_str(" (simulated: figures of a script, not of a model)");
    }
    out.push('\n');
    if let Some(workload) = &group.spec.workload {
        let runs = format_runs(group.loads.len(), group.planned);
        let part = workload.part;
        let part =
            part.map_or_else(String::new, |share| format!("{} % of ", number(share * 100.0)));
        let _ = writeln!(out, "  {part}{}: {runs}", workload.load());
        if workload.trace == Some(PromptLengths::Approximate) {
            out.push_str("  prompt lengths are approximate: without a tokenizer, a word stands for a token\n");
        }
        out.push_str(&cache_shares(group));
        out.push_str(&measured_parts(group));
    }
    out.push_str(&invalid(group));
    let requests = if group.spec.workload.is_some() { " requests" } else { "" };
    let _ = writeln!(out, "  {}{requests} successful, {}", group.tally.valid, failed(group));
    out
}

/// Describes the share of cached prompt tokens in each run that replays a trace; equal ones once.
fn cache_shares(group: &Group) -> String {
    let shares = group.loads.iter().filter_map(|stats| stats.cache);
    let mut lines: Vec<_> = shares.map(|share| format!("  {share}\n")).collect();
    lines.dedup();
    lines.concat()
}

/// Describes the measured part of each run, and the means of the whole load.
fn measured_parts(group: &Group) -> String {
    let part = |(nth, stats): (usize, &LoadStats)| {
        let part = stats.part.as_ref()?;
        let run = if group.loads.len() > 1 { format!("run {}: ", nth + 1) } else { String::new() };
        let mean = |metric: &'static Metric| {
            let (unit, scale) = metric.unit.display();
            Some(format!("{} {} {unit}", metric.name, number(part.mean(metric)? * scale)))
        };
        let whole: Vec<_> = OF_WHOLE.into_iter().filter_map(mean).collect();
        Some(format!(
            "  {run}measured {} to {} s of {} s, {} of {}; the whole load: {}\n",
            number(part.window.from.as_secs_f64()),
            number(part.window.to.as_secs_f64()),
            number(part.seconds),
            stats.requests,
            counted(part.requests, "request"),
            whole.join(", ")
        ))
    };
    group.loads.iter().enumerate().filter_map(part).collect()
}

/// Describes the runs of a load that count for nothing, and trials that an interrupt ended.
fn invalid(group: &Group) -> String {
    let mut out = String::new();
    for shortfall in &group.shortfalls {
        let _ = writeln!(out, "  invalid: {shortfall}");
    }
    if group.interrupted > 0 {
        let trials = counted(group.interrupted, "trial");
        let _ =
            writeln!(out, "  interrupted: with the finished requests of {trials} that did not end");
    }
    out
}

/// `2 failed, 1 not run (timeout 2)`.
fn failed(group: &Group) -> String {
    let failed = format!("{} failed", group.tally.failed());
    let not_run = match group.spec.workload {
        None => group.planned.saturating_sub(group.finished),
        Some(_) => 0,
    };
    let not_run = if not_run > 0 { format!(", {not_run} not run") } else { String::new() };
    let kinds = group.tally.failures.iter();
    let kinds: Vec<_> = kinds.map(|(kind, n)| format!("{kind} {n}")).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
    format!("{failed}{not_run}{kinds}")
}

/// Describes the trials and requests without figures; empty if there are none.
pub(super) fn losses(group: &Group) -> String {
    let mut out = invalid(group);
    let is_load = group.spec.workload.is_some();
    if is_load && group.loads.len() < group.planned {
        let _ = writeln!(out, "  {}", format_runs(group.loads.len(), group.planned));
    }
    let failed = failed(group);
    let lost = failed.strip_prefix("0 failed, ").unwrap_or(&failed);
    if lost != "0 failed" {
        let _ = writeln!(out, "  {lost}");
    }
    out
}

/// `2 runs`, or `1 of 2 runs`.
fn format_runs(valid: usize, planned: usize) -> String {
    match (valid, planned) {
        (1, 1) => "1 run".into(),
        _ if valid == planned => format!("{planned} runs"),
        (_, 1) => "0 of 1 run".into(),
        _ => format!("{valid} of {planned} runs"),
    }
}

/// The means of the whole load that are shown next to a measured part.
const OF_WHOLE: [&Metric; 4] = [Metric::TTFT, Metric::TPOT, Metric::E2E, Metric::OUTPUT_THROUGHPUT];

/// Smaller changes are not reported, even if they are significant.
const SMALL: f64 = 0.01;

/// Describes the changes over the requests.
pub(super) fn drifts(group: &Group) -> String {
    let lines = [Metric::GENERATION_SPEED, Metric::TTFT].into_iter().filter_map(|metric| {
        let change = group.drift(metric).ok()?;
        let drifts = change.is_significant() && change.relative.abs() > SMALL;
        drifts.then(|| {
            let Drift { relative, interval: Interval { low, high }, .. } = change;
            let [relative, low, high] = [relative, low, high].map(|part| part * 100.0);
            let name = metric.name;
            format!("  drift: {name} {relative:+.1} [{low:+.1}, {high:+.1}] % from start to end\n")
        })
    });
    lines.collect()
}

/// Describes the deviation of the simulated endpoint from its script, if it is not negligible.
fn simulator(group: &Group) -> String {
    let punctuality = &group.punctuality;
    let what = [("first tokens", punctuality.first()), ("generation", punctuality.generation())];
    let deviations = what.into_iter().filter_map(|(what, deviation)| {
        let Deviation { mean, p99, .. } = deviation.filter(|deviation| !deviation.is_none())?;
        let (mean, p99) = (mean * 1e3, p99 * 1e3);
        Some(format!("{what} {mean:+.2} ms on average, 99 % within {p99:.2} ms"))
    });
    let deviations: Vec<_> = deviations.collect();
    match deviations.is_empty() {
        true => String::new(),
        false => format!("  simulated endpoint, against its script: {}\n", deviations.join("; ")),
    }
}

/// Describes the speed that the server reports in its answers and ours, by medians, and the number of
/// requests in which the two disagree.
pub(super) fn server_timings(group: &Group) -> String {
    let comparisons = ServerComparison::ALL.into_iter();
    let timings: Vec<_> =
        comparisons.filter_map(|comparison| describe_server_timing(group, comparison)).collect();
    if timings.is_empty() {
        return String::new();
    }
    let Tally { valid, server_disagrees, .. } = group.tally;
    match server_disagrees {
        0 => timings.iter().map(|timing| format!("  reported by the server: {timing}\n")).collect(),
        _ => format!(
            "  server disagrees in {server_disagrees} of {valid} requests, by more than the network \
             explains: {}\n",
            timings.join("; ")
        ),
    }
}

/// `generation_speed 40.03 tok/s, ours 40.01 (generation_time +0.1 %)`, with the number of requests if
/// some do not have both.
fn describe_server_timing(group: &Group, comparison: ServerComparison) -> Option<String> {
    let ([theirs, ours, beyond], n) = group.tally.server_timing(comparison)?;
    let [_, metric, metric_beyond] = comparison.metrics();
    let (unit, scale) = metric.unit.display();
    let (unit_of_beyond, scale_of_beyond) = metric_beyond.unit.display();
    let what = if metric == Metric::GENERATION_SPEED { "generation_time " } else { "" };
    let sign = if beyond < 0.0 { "" } else { "+" };
    let of = match group.tally.valid {
        valid if valid == n => String::new(),
        valid => format!(", {n} of {valid} requests"),
    };
    Some(format!(
        "{} {} {unit}, ours {} ({what}{sign}{} {unit_of_beyond}{of})",
        metric.name,
        number(theirs * scale),
        number(ours * scale),
        number(beyond * scale_of_beyond),
    ))
}

/// Describes the same by its Prometheus metrics, by means over the trials during which the server had
/// no other requests.
fn server_metrics(group: &Group) -> String {
    if group.server.is_empty() {
        return String::new();
    }
    let means = [Metric::TTFT, Metric::TPOT, Metric::E2E].into_iter().filter_map(|metric| {
        let (theirs, ours, _) = group.by_metrics(metric)?;
        let (theirs, ours) = (theirs * 1e3, ours * 1e3);
        Some(format!("{} {} ms, ours {}", metric.name, number(theirs), number(ours)))
    });
    let means: Vec<_> = means.collect();
    let alone = |trial: &&MetricComparison| trial.samples.iter().any(|(_, ours)| ours.is_some());
    let (all, alone) = (group.server.len(), group.server.iter().filter(alone).count());
    match (means.is_empty(), alone == all) {
        (true, _) if group.server.iter().all(|trial| trial.is_late) => {
            "  server's metrics: nothing to compare, since it counts answers more than half a second \
             late\n"
                .into()
        }
        (true, _) => "  server's metrics: nothing to compare, see results.server.csv\n".into(),
        (false, true) => format!("  server's metrics: {}\n", means.join("; ")),
        (false, false) => format!(
            "  server's metrics, of {alone} of {all} trials (others had requests of other clients or \
             some that were not counted in time): {}\n",
            means.join("; ")
        ),
    }
}

/// Describes what a load costs, by means.
pub(super) fn yields(group: &Group) -> String {
    let metrics = [
        Metric::OUTPUT_THROUGHPUT_PER_GPU,
        Metric::COST_PER_MILLION_OUTPUT_TOKENS,
        Metric::ENERGY_PER_OUTPUT_TOKEN,
    ];
    let mean = |metric: &Metric| {
        let value = group.figure(metric, Statistic::Mean).ok()?;
        Some(format!("{} {} {}", metric.name, number(value), metric.unit.display().0))
    };
    let means: Vec<_> = metrics.into_iter().filter_map(mean).collect();
    if means.is_empty() { String::new() } else { format!("  {}\n", means.join("; ")) }
}

/// Describes the server over the time of each load: a line for a run, and one for its energy.
pub(super) fn server_over_time(group: &Group) -> String {
    let runs = group.loads.len();
    let mut out = String::new();
    for (stats, run) in group.loads.iter().zip(1..) {
        let of = if runs > 1 { format!(", run {run}") } else { String::new() };
        if let Some(over) = &stats.server {
            let _ = writeln!(out, "  server over time{of}: {}", describe_server(over));
        }
        match &stats.energy {
            Some(Ok(energy)) => {
                let _ = writeln!(out, "  energy{of}: {}", describe_energy(energy, stats.seconds));
            }
            Some(Err(missing)) => {
                let _ = writeln!(out, "  no energy{of}: {missing}");
            }
            None => {}
        }
    }
    out
}

/// `running 7.5 (max 8); KV cache 42 % (max 61); 3 preemptions; 20 scrapes of 2.1 ms (max 4.0)`.
fn describe_server(over: &ServerOverTime) -> String {
    let gauge = |(name, what, scale, unit): (&str, &str, f64, &str)| {
        let of = over.gauge(name)?;
        let (mean, max) = (number(of.mean * scale), number(of.max * scale));
        Some(format!("{what} {mean}{unit} (max {max})"))
    };
    let gauges = [
        ("running", "running", 1.0, ""),
        ("waiting", "waiting", 1.0, ""),
        ("kv_cache_use", "KV cache", 100.0, " %"),
        ("accept_rate", "acceptance by the server's gauge", 100.0, " %"),
    ];
    let share = |what: &str, of: CountedShare| format!("{what} {} %", number(of.share() * 100.0));
    let synthetic = if over.is_synthetic { ", of synthetic text" } else { "" };
    let mut parts: Vec<_> = gauges.into_iter().filter_map(gauge).collect();
    parts.extend(over.preemptions.map(|count| counted(count as usize, "preemption")));
    parts.extend(over.cache_hits.map(|of| share("prefix cache hits", of)));
    parts.extend(over.acceptance.map(|of| share("draft tokens accepted", of) + synthetic));
    if let Some((mean, max)) = over.scrape_mean.zip(over.scrape_max) {
        let (mean, max) = (number(mean * 1e3), number(max * 1e3));
        parts.push(format!("{} of {mean} ms (max {max})", counted(over.scrapes, "scrape")));
    }
    if let Some(why) = &over.first_failure {
        parts.push(format!("{} failed, the first: {why}", counted(over.failed, "scrape")));
    }
    parts.join("; ")
}

/// `12300 J ± 200 J, 4100 W on average, of 8 GPUs by the energy counter`.
fn describe_energy(energy: &Energy, seconds: f64) -> String {
    let Energy { joules, error, gpus, is_counted, .. } = energy;
    let source = if *is_counted { "energy counter" } else { "power" };
    format!(
        "{} J ± {} J, {} W on average, of {} by the {source}",
        number(*joules),
        number(*error),
        number(joules / seconds),
        counted(*gpus, "GPU")
    )
}

/// The table of the turns of conversations, each by its means.
fn turns(group: &Group) -> String {
    if group.tally.turns().is_empty() {
        return String::new();
    }
    let heads = ["turn", ">n", ">ttft, ms", ">prompt tokens", ">of them cached"];
    let mut table = table::table(&heads);
    for (turn, nth) in group.tally.turns().iter().zip(1..) {
        let mean = |values: &ValueColumn<f64>, scale: f64| {
            Statistic::Mean
                .of(&values.load())
                .map_or_else(|_| "-".into(), |mean| number(mean * scale))
        };
        table.add_row([
            nth.to_string(),
            turn.ttft.len().to_string(),
            mean(&turn.ttft, 1e3),
            mean(&turn.prompt_tokens, 1.0),
            mean(&turn.cached_tokens, 1.0),
        ]);
    }
    format!("\n{}", table::lines(&table))
}

fn figures(group: &Group) -> String {
    let mut heads = vec!["figure", "unit", ">n"];
    let names: Vec<_> = STATISTICS.iter().map(|statistic| format!(">{statistic}")).collect();
    heads.extend(names.iter().map(String::as_str));
    let mut table = table::table(&heads);
    for metric in METRICS.iter().filter(|metric| metric.in_summary) {
        let n = group.count(metric);
        if n > 0 {
            table.add_row(row(group, metric, n));
        }
    }
    table::lines(&table) + &absent(group, &|metric| metric.in_summary)
}

/// Describes the figures of `are_shown` that all answers, or runs, lack for a reason, and those that
/// some lack.
pub(super) fn absent(group: &Group, are_shown: &dyn Fn(&Metric) -> bool) -> String {
    let mut by_reason: BTreeMap<(bool, String), Vec<&str>> = BTreeMap::new();
    for metric in METRICS.iter().filter(|metric| are_shown(metric)) {
        let lacking = group.lacking(metric);
        if lacking.has_reason() {
            let is_partial = group.count(metric) > 0;
            let why = if is_partial { format_partial(group, &lacking) } else { lacking.why() };
            by_reason.entry((is_partial, why)).or_default().push(metric.name);
        }
    }
    let line = |((is_partial, why), names): ((bool, String), Vec<&str>)| {
        let link = if is_partial { " in" } else { ":" };
        format!("  no {}{link} {why}\n", names.join(", "))
    };
    by_reason.into_iter().map(line).collect()
}

/// `1 of 3 answers: 1 burst`, with the consequence if these are too many.
fn format_partial(group: &Group, lacking: &MissingFigures) -> String {
    let head =
        format!("{} of {} {}: {}", lacking.lack(), lacking.all, lacking.unit(), lacking.why());
    let share = group.spec.min_share;
    match lacking.leaves(share) {
        true => head,
        false => format!("{head}; below min_share ({} %): not judged", number(share * 100.0)),
    }
}

fn row(group: &Group, metric: &Metric, n: usize) -> Vec<String> {
    let (unit, scale) = metric.unit.display();
    let mut cells = vec![metric.name.to_owned(), unit.to_owned(), n.to_string()];
    cells.extend(STATISTICS.iter().map(|statistic| {
        group
            .statistic(metric, *statistic)
            .map_or_else(|_| "-".into(), |value| number(value * scale))
    }));
    cells
}
