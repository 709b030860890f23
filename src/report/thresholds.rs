//! The verdicts on the thresholds: limit, actual figure with its interval, verdict.

use llm_stream_core::{
    comparison::{BetweenRuns, Change, MIN_HISTORY},
    interval::Interval,
    metric::Metric,
    statistic::Absent,
    summary::Estimate,
    threshold::Against,
    verdict::{BeyondLimit, Needed, NoChange, Outcome, Verdict},
};

use super::{Exporter, GroupVerdicts, Run, number, table};
use llm_stream_core::text::counted;

/// A table per group, a row per threshold.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds;

impl Exporter for Thresholds {
    fn render(&self, run: &Run) -> String {
        let percent = format!("{:.3}", run.confidence * 100.0);
        let percent = percent.trim_end_matches('0').trim_end_matches('.');
        let mut out = format!("Thresholds (actual with its {percent} % interval)\n");
        if run.verdicts.is_empty() {
            let limits = run.summary.groups.iter().map(|group| group.thresholds().len());
            out.push_str(&match limits.sum() {
                0 => "\n  none in the config: only that trials succeed is checked\n".to_owned(),
                limits => {
                    let limits = counted(limits, "threshold");
                    format!("\n  {limits} relative to a baseline: not judged without one\n")
                }
            });
        }
        for GroupVerdicts { name, verdicts, notes, .. } in &run.verdicts {
            let mut table = table::table(&["limit", ">actual", "verdict"]);
            for verdict in verdicts {
                let outcome = format_outcome(verdict.outcome()).to_owned();
                let outcome = match format_detectable(verdict) {
                    Some(caught) => format!("{outcome}; {caught}"),
                    None => outcome,
                };
                table.add_row([verdict.threshold.to_string(), format_actual(verdict), outcome]);
            }
            out.push_str(&format!("\n{name}\n{}", table::lines(&table)));
            for note in notes {
                out.push_str(&format!("  note: {note}\n"));
            }
            for variation in format_variations(verdicts) {
                out.push_str(&format!("  {variation}\n"));
            }
            for verdict in verdicts {
                for remark in remarks(verdict) {
                    out.push_str(&format!("  {}:\n    {remark}\n", verdict.threshold));
                }
            }
        }
        out
    }
}

/// Describes why a verdict is as it is: the requests that it is of, the reason of a fail, the remedy
/// of an inconclusive one.
fn remarks(verdict: &Verdict) -> impl Iterator<Item = String> {
    [format_partial(verdict), format_reason(verdict), format_needed(verdict)].into_iter().flatten()
}

/// Formats the actual figure with the reason of a fail, or the remedy of an inconclusive verdict:
/// `actual: 412.0 [398.0, 426.0] ms; about 12 more requests would decide it: …`.
pub fn format_actual_and_why(verdict: &Verdict) -> String {
    let why = format_reason(verdict).or_else(|| format_needed(verdict));
    let why = why.map(|why| format!("; {why}")).unwrap_or_default();
    format!("actual: {}{why}", format_actual(verdict))
}

/// Describes why a threshold failed, if its figure exists.
fn format_reason(verdict: &Verdict) -> Option<String> {
    if verdict.outcome() != Outcome::Fail {
        return None;
    }
    if let Some((prompt, change)) = verdict.slower_prompt() {
        let relative = number(100.0 * change.relative);
        let sign = if change.relative > 0.0 { "+" } else { "" };
        return Some(format!("the prompt `{prompt}` changed by {sign}{relative} %, beyond chance"));
    }
    if let Some(beyond) = verdict.beyond {
        let BeyondLimit { beyond, failed, all, allowed, .. } = beyond;
        let failed = match failed {
            0 => String::new(),
            failed => format!(", {failed} of them failed"),
        };
        let allowed = number(100.0 * allowed);
        return Some(format!(
            "{beyond} of {all} requests are beyond the limit{failed}, where {allowed} % may be"
        ));
    }
    if let Some(Ok(trend)) = &verdict.trend {
        let runs = counted(trend.runs_ago, "run");
        return Some(format!("it left its best level {runs} ago ({})", format_p(trend.p)));
    }
    let p = verdict.p_of_miss()?;
    if verdict.actual.is_ok_and(|actual| actual.interval.is_err()) && verdict.change.is_none() {
        return Some("it misses the limit by far more than runs usually vary".into());
    }
    Some(match &verdict.change {
        Some(Ok(_)) => format!(
            "it changed beyond chance ({} if nothing changed), and by more than the limit",
            format_p(p)
        ),
        _ => format!("it misses the limit beyond chance ({})", format_p(p)),
    })
}

/// Formats a p value, of which only the size matters.
fn format_p(p: f64) -> String {
    if p < 0.001 { "p < 0.001".into() } else { format!("p = {p:.3}") }
}

/// Describes the smallest change that a passed threshold would have caught.
pub fn format_detectable(verdict: &Verdict) -> Option<String> {
    if verdict.outcome() != Outcome::Pass {
        return None;
    }
    let smallest = verdict.smallest_detectable().filter(|share| share.is_finite())?;
    Some(match verdict.beyond {
        Some(_) => {
            format!("would have caught {} % of requests beyond it", number(100.0 * smallest))
        }
        None if verdict.change.is_some() => {
            format!("would have caught {:+.1} %", 100.0 * smallest)
        }
        None => {
            let caught = verdict.actual.ok()?.value * (1.0 + smallest);
            let (unit, scale) = verdict.threshold.metric.unit.display();
            (caught > 0.0)
                .then(|| format!("would have caught {} {unit}", number(caught * scale)))?
        }
    })
}

/// Describes the variation between runs that the changes of a group are judged with.
fn format_variations(verdicts: &[Verdict]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for verdict in verdicts {
        let Some(Ok(Change { variation: Some(variation), .. })) = &verdict.change else { continue };
        let BetweenRuns { share, observed, runs, is_assumed } = *variation;
        if verdict.threshold.against != Against::Baseline {
            continue;
        }
        let (share, stored) = (number(100.0 * share), counted(runs, "stored run"));
        let line = match is_assumed {
            true => format!(
                "runs are assumed to vary by ± {share} % (`run_variation`): {stored}, {MIN_HISTORY} \
                 or more give an estimate"
            ),
            false => format!(
                "{}: {stored} differ by ± {} %; with the assumption (`run_variation`) as four more \
                 runs, ± {share} % is used",
                verdict.threshold.metric.name,
                number(100.0 * observed.unwrap_or_default())
            ),
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
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
            let (more_requests, runs) = (counted(more, "more request"), verdict.runs_for(more));
            format!("about {more_requests} would decide it: `--runs {runs}`")
        }
        Needed::Runs(more) => {
            let (more_runs, runs) = (counted(more, "more run"), verdict.runs_for(more));
            format!("about {more_runs} would decide it: `--runs {runs}`")
        }
        Needed::StoredRuns(more) => {
            let more = counted(more, "more stored run");
            format!(
                "the stored runs are too few: {more} of the earlier build (`--save-baseline`) would \
                 tell how much runs vary"
            )
        }
        Needed::Duet => "it is within the variation between runs, which no number of requests \
                         makes smaller: measure both in one run (`-3 % of MODEL`)"
            .into(),
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
    let absent = |absent: &NoChange| absent.to_string();
    match (&verdict.change, &verdict.trend) {
        (Some(Ok(change)), _) => return format!("{} %", format_change(change)),
        (_, Some(Ok(trend))) => return format!("{:+.1} %", 100.0 * trend.relative),
        (Some(Err(why)), _) | (_, Some(Err(why))) => return absent(why),
        (None, None) if verdict.threshold.is_relative() => return "no baseline".into(),
        (None, None) => {}
    }
    match (&verdict.actual, verdict.beyond) {
        (Ok(estimate), _) => format_estimate(verdict.threshold.metric, estimate),
        (Err(Absent::TooFew { .. }), Some(BeyondLimit { beyond, all, .. })) => {
            format!("{} of {all} within the limit", all - beyond)
        }
        (Err(Absent::Lacking { .. }), _) => verdict.lacking.to_string(),
        (Err(absent), _) => absent.to_string(),
    }
}

/// Formats a change with its interval, in percent.
pub fn format_change(change: &Change) -> String {
    let Change { relative, interval: Interval { low, high }, .. } = change;
    if !change.is_bounded() {
        return format!("{:+.1} [not bounded]", relative * 100.0);
    }
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
