//! The models by mean `generation_speed` or, where nothing is streamed, by another figure.

use llm_stream_core::{
    comparison::Change,
    interval::{CONFIDENCE, Interval, StratifiedSample},
    metric::{Metric, Unit},
    statistic::{Absent, Statistic},
    summary::{Group, ranking_metric},
};

use super::{Exporter, Run, number, thresholds::format_names};
use llm_stream_core::text::counted;

/// `1. name: X generation tokens/sec`, fastest first; then the same under each load.
#[derive(Debug, Clone, Copy)]
pub struct Ranking;

impl Exporter for Ranking {
    fn render(&self, run: &Run) -> String {
        let ranking = |groups: &Vec<&Group>| {
            let mut text = format_ranking(groups);
            if run.took_turns && ranking_metric(groups) == Metric::GENERATION_SPEED {
                text.push_str(&format_differences(groups));
            }
            text
        };
        let rankings: Vec<_> = run.summary.comparable().iter().map(ranking).collect();
        rankings.join("\n")
    }
}

/// Formats the difference of each model from the first, run by run.
fn format_differences(groups: &[&Group]) -> String {
    let Some((first, others)) = groups.split_first() else { return String::new() };
    if others.is_empty() || first.spec.workload.is_some() {
        return String::new();
    }
    let mut out = format!("\n  paired with {}, run by run:\n", first.spec.model);
    for other in others {
        let difference = format_difference(other, first).unwrap_or_else(|why| why.to_string());
        out.push_str(&format!("    {}: {difference}\n", other.spec.model));
    }
    out
}

fn format_difference(group: &Group, first: &Group) -> Result<String, NotPaired> {
    let PairedDifference { relative, interval, n } = PairedDifference::of(group, first)?;
    let within = interval.map_or_else(String::new, |Interval { low, high }| {
        format!(" [{:+.2}, {:+.2}]", low * 100.0, high * 100.0)
    });
    Ok(format!("{:+.2}{within} % (n = {n})", relative * 100.0))
}

/// The difference of `generation_speed` between two models that were measured in turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairedDifference {
    /// The difference by the geometric mean of the ratios, as a fraction of the first model's speed.
    pub(super) relative: f64,
    /// Its interval, if there are enough pairs.
    pub(super) interval: Option<Interval>,
    /// The number of pairs.
    pub(super) n: usize,
}

/// The reason why there are no pairs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum NotPaired {
    /// One of the models does not have the figure.
    #[error("no generation_speed of {0}: {1}")]
    Absent(String, Absent),
    /// The models have answers to different prompts or in different runs.
    #[error("no prompt has a generation_speed of both in the same run")]
    NoPair,
}

impl PairedDifference {
    /// Pairs the answers of `group` with those of `first` to the same prompt in the same run, as a
    /// threshold `>= -3 % of MODEL` does.
    pub(super) fn of(group: &Group, first: &Group) -> Result<Self, NotPaired> {
        for group in [group, first] {
            group
                .figure(Metric::GENERATION_SPEED, Statistic::Mean)
                .map_err(|absent| NotPaired::Absent(group.spec.model.clone(), absent))?;
        }
        let (logs, strata) = group.log_ratios(first, Metric::GENERATION_SPEED, Statistic::Mean);
        let center = Statistic::Mean.of(&logs).map_err(|_| NotPaired::NoPair)?;
        let pairs = StratifiedSample { values: &logs, strata: &strata };
        let figures = (f64::NAN, f64::NAN);
        let interval = Change::of_pairs(pairs, figures, CONFIDENCE).ok().map(|of| of.interval);
        Ok(Self { relative: center.exp_m1(), interval, n: logs.len() })
    }
}

fn format_ranking(groups: &[&Group]) -> String {
    let metric = ranking_metric(groups);
    let mut out = format!("Ranking by {} (mean ± standard deviation)", metric.name);
    if let Some(workload) = groups.first().and_then(|group| group.spec.workload.as_ref()) {
        out.push_str(&format!(" under {}", workload.name));
    }
    if metric != Metric::GENERATION_SPEED {
        out.push_str(", since no answer was streamed");
    }
    out.push_str("\n\n");
    for (place, group) in groups.iter().enumerate() {
        out.push_str(&match format_mean(group, metric) {
            Ok(speed) => format!("  {}. {}: {speed}\n", place + 1, group.spec.model),
            Err(why) => format!("  -. {}: not ranked: {why}\n", group.spec.model),
        });
    }
    out
}

/// Formats the mean of a group, or why it is not ranked.
fn format_mean(group: &Group, metric: &Metric) -> Result<String, String> {
    let lacking = group.lacking(metric);
    let mean = group.figure(metric, Statistic::Mean).map_err(|absent| match absent {
        Absent::Lacking { .. } => lacking.to_string(),
        _ => absent.to_string(),
    })?;
    let (unit, scale) = match metric.unit {
        Unit::TokensPerSecond => ("generation tokens/sec", 1.0),
        unit => unit.display(),
    };
    let spread = group
        .figure(metric, Statistic::Sd)
        .map_or_else(|_| String::new(), |sd| format!(" ± {}", number(sd * scale)));
    let n = group.count(metric);
    let (n, comma) = match lacking.lack() {
        0 => (n.to_string(), ","),
        _ => (format!("{n} of {} valid: {}", lacking.all, lacking.why()), ";"),
    };
    let failed = match group.tally.failed() {
        0 => String::new(),
        failed => format!("{comma} {failed} failed"),
    };
    let mut line = format!("{}{spread} {unit} (n = {n}{failed})", number(mean * scale));
    for (metric, unit) in
        [(Metric::OUTPUT_THROUGHPUT, "output tokens"), (Metric::ITEM_THROUGHPUT, "items")]
    {
        if let Ok(throughput) = group.figure(metric, Statistic::Mean) {
            line.push_str(&format!("; {} {unit}/sec in all", number(throughput)));
        }
    }
    let without = group.tally.prompts_without(metric);
    if !without.is_empty() {
        line.push_str(&format!("; none of {}", format_names(&without)));
    }
    let doubts = group.tally.doubts(metric);
    let doubts: Vec<_> =
        doubts.map(|(why, answers)| format!("{why} ({})", counted(answers, "answer"))).collect();
    if !doubts.is_empty() {
        line.push_str(&format!("; may be wrong: {}", doubts.join("; ")));
    }
    Ok(line)
}
