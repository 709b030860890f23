//! The models by mean `generation_speed`.

use llm_stream_core::{
    interval::{self, CONFIDENCE, Interval, StratifiedSample},
    metric::Metric,
    statistic::{Absent, Statistic},
    summary::Group,
};

use super::{Exporter, Run, number, thresholds::some_of};
use llm_stream_core::text::counted;

/// `1. name: X generation tokens/sec`, fastest first, and so under each load.
#[derive(Debug, Clone, Copy)]
pub struct Ranking;

impl Exporter for Ranking {
    fn render(&self, run: &Run) -> String {
        let ranked = |groups: &Vec<&Group>| {
            let mut text = ranking(groups);
            if run.took_turns {
                text.push_str(&differences(groups));
            }
            text
        };
        let rankings: Vec<_> = run.summary.comparable().iter().map(ranked).collect();
        rankings.join("\n")
    }
}

/// By how much each model is slower than the first, run by run.
fn differences(groups: &[&Group]) -> String {
    let Some((first, others)) = groups.split_first() else { return String::new() };
    if others.is_empty() || first.spec.workload.is_some() {
        return String::new();
    }
    let mut out = format!("\n  paired with {}, run by run:\n", first.spec.model);
    for other in others {
        let told = difference(other, first).unwrap_or_else(|why| why.to_string());
        out.push_str(&format!("    {}: {told}\n", other.spec.model));
    }
    out
}

fn difference(group: &Group, first: &Group) -> Result<String, NotPaired> {
    let Paired { mean, interval, n } = Paired::of(group, first)?;
    let within = interval.map_or_else(String::new, |Interval { low, high }| {
        format!(" [{:+.2}, {:+.2}]", low * 100.0, high * 100.0)
    });
    Ok(format!("{:+.2}{within} % (n = {n})", mean * 100.0))
}

/// How `generation_speed` differs between two models that took turns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paired {
    /// The mean difference, as a part of the first one's.
    pub(super) mean: f64,
    /// Its interval, where there are enough pairs.
    pub(super) interval: Option<Interval>,
    /// The number of pairs.
    pub(super) n: usize,
}

/// Why there are no pairs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum NotPaired {
    /// One of the models has no such figure.
    #[error("no generation_speed of {0}: {1}")]
    Absent(String, Absent),
    /// Both have answers, to other prompts or in other runs.
    #[error("no prompt has a generation_speed of both in the same run")]
    NoPair,
}

impl Paired {
    pub(super) fn of(group: &Group, first: &Group) -> Result<Self, NotPaired> {
        let metric = Metric::named("generation_speed").ok_or(NotPaired::NoPair)?;
        for of in [group, first] {
            of.figure(metric, Statistic::Mean)
                .map_err(|absent| NotPaired::Absent(of.spec.model.clone(), absent))?;
        }
        let (values, strata) = group.pairs(first, metric);
        let mean = Statistic::Mean.of(&values).map_err(|_| NotPaired::NoPair)?;
        let sampled = StratifiedSample { values: &values, strata: &strata };
        let interval = interval::of(Statistic::Mean, sampled, CONFIDENCE);
        Ok(Self { mean, interval: interval.ok().flatten(), n: values.len() })
    }
}

fn ranking(groups: &[&Group]) -> String {
    let mut out = String::from("Ranking by generation_speed (mean ± standard deviation)");
    if let Some(workload) = groups.first().and_then(|group| group.spec.workload.as_ref()) {
        out.push_str(&format!(" under {}", workload.name));
    }
    out.push_str("\n\n");
    for (place, group) in groups.iter().enumerate() {
        out.push_str(&match line(group) {
            Ok(speed) => format!("  {}. {}: {speed}\n", place + 1, group.spec.model),
            Err(why) => format!("  -. {}: not ranked: {why}\n", group.spec.model),
        });
    }
    out
}

fn line(group: &Group) -> Result<String, String> {
    let metric = Metric::named("generation_speed").ok_or("no such figure")?;
    let lacking = group.lacking(metric);
    let mean = group.figure(metric, Statistic::Mean).map_err(|absent| match absent {
        Absent::Lacking { .. } => lacking.to_string(),
        _ => absent.to_string(),
    })?;
    let spread = group
        .figure(metric, Statistic::Sd)
        .map_or_else(|_| String::new(), |sd| format!(" ± {}", number(sd)));
    let n = group.values(metric).len();
    let (n, comma) = match lacking.lack() {
        0 => (n.to_string(), ","),
        _ => (format!("{n} of {} valid: {}", lacking.all, lacking.why()), ";"),
    };
    let failed = match group.tally.failed() {
        0 => String::new(),
        failed => format!("{comma} {failed} failed"),
    };
    let mut line = format!("{}{spread} generation tokens/sec (n = {n}{failed})", number(mean));
    let throughput = Metric::named("output_throughput")
        .and_then(|metric| group.figure(metric, Statistic::Mean).ok());
    if let Some(throughput) = throughput {
        line.push_str(&format!("; {} output tokens/sec in all", number(throughput)));
    }
    let without = group.tally.prompts_without(metric);
    if !without.is_empty() {
        line.push_str(&format!("; none of {}", some_of(&without)));
    }
    let doubts = group.tally.doubts(metric);
    let doubts: Vec<_> =
        doubts.map(|(why, answers)| format!("{why} ({})", counted(answers, "answer"))).collect();
    if !doubts.is_empty() {
        line.push_str(&format!("; may be wrong: {}", doubts.join("; ")));
    }
    Ok(line)
}
