//! The verdicts on the thresholds: limit, actual figure with its interval, verdict.

use llm_stream_core::{
    comparison::Change,
    interval::Interval,
    metric::Metric,
    statistic::Absent,
    summary::Estimate,
    verdict::{Needed, Outcome, Verdict},
};

use super::{Exporter, GroupVerdicts, Run, number, table};
use llm_stream_core::text::counted;

/// A table per group, a row per threshold.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds;

impl Exporter for Thresholds {
    fn render(&self, run: &Run) -> String {
        let percent = format!("{:.3}", run.confidence * 100.0);
        let percent = percent.trim_end_matches(".000");
        let mut out = format!("Thresholds (actual with its {percent} % interval)\n");
        if run.verdicts.is_empty() {
            out.push_str("\n  none in the config: only that trials succeed is checked\n");
        }
        for GroupVerdicts { name, verdicts, notes, .. } in &run.verdicts {
            let mut table = table::table(&["limit", ">actual", "verdict"]);
            for verdict in verdicts {
                let outcome = format_outcome(verdict.outcome());
                let cells = [verdict.threshold.to_string(), format_actual(verdict), outcome.into()];
                table.add_row(cells);
            }
            out.push_str(&format!("\n{name}\n{}", table::lines(&table)));
            for note in notes {
                out.push_str(&format!("  note: {note}\n"));
            }
            for verdict in verdicts {
                for remark in format_partial(verdict).into_iter().chain(format_needed(verdict)) {
                    out.push_str(&format!("  {}:\n    {remark}\n", verdict.threshold));
                }
            }
        }
        out
    }
}

/// Formats the outcome of a verdict.
pub fn format_outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Inconclusive => "inconclusive",
    }
}

/// Describes how many answers have the figure and which prompts are not compared, if some are missing.
pub fn format_partial(verdict: &Verdict) -> Option<String> {
    let lacking = &verdict.lacking;
    let is_there = match &verdict.change {
        None => verdict.actual.is_ok(),
        Some(change) => change.is_ok(),
    };
    let some = (is_there && lacking.lack() > 0).then(|| {
        let have = lacking.all - lacking.lack();
        format!("of {have} of {} {}: {}", lacking.all, lacking.unit(), lacking.why())
    });
    let left_out = (!verdict.left_out.is_empty()).then(|| format_left_out(&verdict.left_out));
    let parts: Vec<_> = some.into_iter().chain(left_out).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// `compared without the prompt `p10`, for which one run has no value`.
pub fn format_left_out(prompts: &[String]) -> String {
    let unit = if prompts.len() == 1 { "prompt" } else { "prompts" };
    format!("compared without the {unit} {}, for which one run has no value", format_names(prompts))
}

/// Formats the first names of a list and the number of the others.
pub(super) fn format_names(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> =
        names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        others => format!("{} and {}", shown.join(", "), counted(others, "other")),
    }
}

/// Describes what would decide an inconclusive verdict.
pub fn format_needed(verdict: &Verdict) -> Option<String> {
    Some(match verdict.needed()? {
        Needed::Requests(more) => {
            format!("about {} would decide it", counted(more, "more request"))
        }
        Needed::Runs(more) => format!("about {} would decide it", counted(more, "more run")),
        Needed::Baseline => "a baseline of more requests, or more requests, would decide it".into(),
        Needed::Certainty => {
            let of = |(reason, answers): &(String, usize)| {
                format!("{reason} ({})", counted(*answers, "answer"))
            };
            let doubts: Vec<_> = verdict.doubts.iter().map(of).collect();
            format!("the figure may be wrong: {}", doubts.join("; "))
        }
        Needed::MorePrecision => match &verdict.change {
            Some(Ok(change)) => describe_error_of_change(verdict, change),
            _ => describe_error(verdict),
        },
    })
}

/// Describes why more requests cannot decide a figure.
fn describe_error(verdict: &Verdict) -> String {
    let Some(error) = verdict.error else {
        return "no number of requests would decide it: it is at its limit".into();
    };
    let (unit, scale) = verdict.threshold.metric.unit.display();
    let shown = number(error * scale);
    match verdict.uncertainty > error / 2.0 {
        true => format!(
            "these requests cannot decide it: the times of their tokens are known to ± {shown} \
             {unit} (`arrival_uncertainty` in the results)"
        ),
        false => {
            format!("no number of requests would decide it: the instrument has ± {shown} {unit}")
        }
    }
}

/// Describes why more requests cannot decide a change.
fn describe_error_of_change(verdict: &Verdict, change: &Change) -> String {
    let floor = verdict.floor() / change.before;
    let room = (change.relative - verdict.threshold.limit).abs();
    let shown = number(100.0 * floor);
    if floor < room && floor < change.relative.abs() {
        return "no number of requests would decide it: it is at its limit".into();
    }
    match verdict.uncertainty > verdict.floor() / 2.0 {
        true => format!(
            "these requests cannot decide it: the times of their tokens, and of those in the \
             baseline, are known to ± {shown} % (`arrival_uncertainty` in the results)"
        ),
        false if floor > 0.0 => format!(
            "no number of requests would decide it: the instrument has ± {shown} % in the change"
        ),
        false => "no number of requests would decide it: it is at its limit".into(),
    }
}

/// Formats the figure in its unit with its interval, or why it is absent.
pub fn format_actual(verdict: &Verdict) -> String {
    match &verdict.change {
        Some(Ok(change)) => return format!("{} %", format_change(change)),
        Some(Err(why)) => return why.to_string(),
        None if verdict.threshold.is_relative => return "no baseline".into(),
        None => {}
    }
    match &verdict.actual {
        Ok(estimate) => format_estimate(verdict.threshold.metric, estimate),
        Err(Absent::Lacking { .. }) => verdict.lacking.to_string(),
        Err(absent) => absent.to_string(),
    }
}

/// Formats a change with its interval, in percent.
pub fn format_change(change: &Change) -> String {
    let Change { relative, interval: Interval { low, high }, .. } = change;
    format!("{:+.1} [{:+.1}, {:+.1}]", relative * 100.0, low * 100.0, high * 100.0)
}

/// Formats a figure in its unit with its interval.
pub fn format_estimate(metric: &Metric, estimate: &Estimate) -> String {
    let (unit, scale) = metric.unit.display();
    let Estimate { value, interval, .. } = estimate;
    let value = number(value * scale);
    match interval {
        Ok(Some(Interval { low, high })) => {
            format!("{value} [{}, {}] {unit}", number(low * scale), number(high * scale))
        }
        Ok(None) | Err(_) => format!("{value} {unit}"),
    }
}
