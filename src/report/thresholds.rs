//! The verdicts on the thresholds: limit, actual figure with its interval, verdict.

use llm_stream_core::{
    comparison::{BetweenRuns, Change, MIN_HISTORY},
    interval::Interval,
    metric::{Metric, Unit},
    statistic::{Absent, Statistic},
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
                let outcome = match format_caught(verdict) {
                    Some(caught) => format!("{outcome}; {caught}"),
                    None => outcome,
                };
                let actual = match long_absence(verdict) {
                    Some(_) => "absent".to_owned(),
                    None => format_actual(verdict),
                };
                table.add_row([verdict.threshold.to_string(), actual, outcome]);
            }
            out.push_str(&format!("\n{name}\n{}", table::lines(&table)));
            for note in notes {
                out.push_str(&format!("  note: {note}\n"));
            }
            for variation in format_variations(verdicts) {
                out.push_str(&format!("  {variation}\n"));
            }
            for verdict in verdicts {
                let remarks: String =
                    remarks(verdict).iter().map(|remark| format!("    {remark}\n")).collect();
                if !remarks.is_empty() {
                    out.push_str(&format!("  {}:\n{remarks}", verdict.threshold));
                }
            }
        }
        out
    }
}

/// Describes why a verdict is as it is: the requests that it is of, the reason of a fail, the remedy
/// of an inconclusive one, the smallest share of slow requests that a pass would have caught.
fn remarks(verdict: &Verdict) -> Vec<String> {
    let caught = verdict.beyond.and_then(|_| format_detectable(verdict));
    let circumstances =
        [long_absence(verdict), format_partial(verdict), format_dependence(verdict)];
    circumstances.into_iter().chain([format_why(verdict), caught]).flatten().collect()
}

/// Describes why a figure is absent, if that is too long for a cell of the table.
fn long_absence(verdict: &Verdict) -> Option<String> {
    const SHORT: usize = 26;
    let is_absent = match (&verdict.change, &verdict.trend) {
        (Some(change), _) => change.is_err(),
        (_, Some(trend)) => trend.is_err(),
        _ => verdict.actual.is_err() && verdict.beyond.is_none(),
    };
    is_absent.then(|| format_actual(verdict)).filter(|text| text.chars().count() > SHORT)
}

/// Formats the actual figure with the reason of a fail, or the remedy of an inconclusive verdict:
/// `actual: 412.0 [398.0, 426.0] ms; about 12 more requests would decide it: …`.
pub fn format_actual_and_why(verdict: &Verdict) -> String {
    let why = format_why(verdict).map(|why| format!("; {why}")).unwrap_or_default();
    format!("actual: {}{why}", format_actual(verdict))
}

/// Describes the reason of a fail, or the remedy of an inconclusive verdict. A pass has neither.
pub fn format_why(verdict: &Verdict) -> Option<String> {
    match verdict.outcome() {
        Outcome::Pass => None,
        Outcome::Fail => Some(format_reason(verdict)),
        Outcome::Inconclusive => format_needed(verdict),
    }
}

/// Describes why a threshold failed.
fn format_reason(verdict: &Verdict) -> String {
    if let Some((prompt, change)) = verdict.slower_prompt() {
        return format_prompt_change(prompt, change.relative);
    }
    if let Some(beyond) = verdict.beyond {
        return format_beyond(verdict, beyond);
    }
    let is_absent = |change: &Result<_, NoChange>| change.is_err();
    match (&verdict.change, &verdict.trend) {
        (Some(change), _) if change.is_err() => "an unknown change does not meet a limit".into(),
        (_, Some(trend)) if is_absent(trend) => "an unknown course does not meet a limit".into(),
        (Some(_), _) => format!(
            "it changed beyond chance ({} if nothing changed), and by more than the limit",
            format_p(verdict.p_of_miss().unwrap_or(1.0))
        ),
        (_, Some(Ok(trend))) => {
            let runs = counted(trend.runs_ago, "run");
            format!("it left its best level {runs} ago ({})", format_p(trend.p))
        }
        _ => format_reason_of_figure(verdict),
    }
}

/// Describes why a threshold on a figure of this run failed.
fn format_reason_of_figure(verdict: &Verdict) -> String {
    let side = if verdict.threshold.limits_increase() { "above" } else { "below" };
    let extreme = match verdict.threshold.statistic {
        Statistic::Max => Some("largest"),
        Statistic::Min => Some("smallest"),
        _ => None,
    };
    match (verdict.actual, extreme) {
        (Err(_), _) => "an absent figure does not meet a limit".into(),
        (Ok(Estimate { n, .. }), Some(extreme)) => {
            format!("the {extreme} of {} is {side} the limit", counted(n, "value"))
        }
        (Ok(Estimate { interval: Err(_), .. }), _) => {
            "it misses the limit by far more than runs usually vary".into()
        }
        (Ok(Estimate { interval: Ok(None), .. }), _) => {
            format!("it is {side} the limit, and describes these requests without an interval")
        }
        (Ok(_), _) => format!(
            "it misses the limit beyond chance ({})",
            format_p(verdict.p_of_miss().unwrap_or(1.0))
        ),
    }
}

/// `the prompt `long` changed by +200.0 %, beyond chance`.
pub(super) fn format_prompt_change(prompt: &str, relative: f64) -> String {
    format!("the prompt `{prompt}` changed by {:+.1} %, beyond chance", 100.0 * relative)
}

/// Describes how many requests are beyond the limit, or failed.
fn format_beyond(verdict: &Verdict, of: BeyondLimit) -> String {
    let BeyondLimit { beyond, failed, all, allowed, .. } = of;
    let share = match allowed > 0.0 {
        true => format!("{} % may", percent(allowed)),
        false => "none may".to_owned(),
    };
    let failures = match failed {
        0 => String::new(),
        failed => format!(", {failed} of them failed"),
    };
    let requests = counted(all, "request");
    match verdict.is_success_rate() {
        true if verdict.threshold.limits_increase() => {
            format!("{beyond} of {requests} succeeded, where {share}")
        }
        true => format!("{beyond} of {requests} failed, where {share}"),
        false => {
            let are = if beyond == 1 { "is" } else { "are" };
            format!("{beyond} of {requests} {are} beyond the limit{failures}, where {share} be")
        }
    }
}

/// Formats a share in percent without trailing zeros.
fn percent(share: f64) -> String {
    let text = format!("{:.6}", 100.0 * share);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Describes how much the dependence of neighbouring requests widens an interval, if it is much.
fn format_dependence(verdict: &Verdict) -> Option<String> {
    // An interval that is twice as wide.
    const NOTABLE: f64 = 4.0;
    let (n, effective) = (verdict.requests()?, verdict.effective_requests()?);
    (n as f64 / effective >= NOTABLE).then(|| {
        format!(
            "serial correlation of neighbouring requests: {n} count as {} independent ones",
            number(effective)
        )
    })
}

/// Formats a p value, of which only the size matters.
fn format_p(p: f64) -> String {
    if p < 0.001 { "p < 0.001".into() } else { format!("p = {p:.3}") }
}

/// Describes the smallest change that a passed threshold would have caught, in the words of the
/// table, which has no room for a share of requests.
fn format_caught(verdict: &Verdict) -> Option<String> {
    verdict.beyond.is_none().then(|| format_detectable(verdict))?
}

/// Describes the smallest change that a passed threshold would have caught.
pub fn format_detectable(verdict: &Verdict) -> Option<String> {
    if verdict.outcome() != Outcome::Pass {
        return None;
    }
    let smallest = verdict.smallest_detectable().filter(|share| share.is_finite())?;
    let threshold = &verdict.threshold;
    if verdict.beyond.is_some() {
        let how = match (verdict.is_success_rate(), threshold.metric.unit) {
            (true, _) if threshold.limits_increase() => "had succeeded".to_owned(),
            (true, _) => "had failed".to_owned(),
            (false, unit) => {
                let side = match (unit == Unit::Seconds, threshold.limits_increase()) {
                    (true, true) => "slower than",
                    (true, false) => "faster than",
                    (false, true) => "above",
                    (false, false) => "below",
                };
                format!("were {side} {}", threshold.format_limit())
            }
        };
        let share = 100.0 * smallest;
        return Some(format!("would have caught it if {share:.1} % of the requests {how}"));
    }
    if verdict.change.is_some() {
        return Some(format!("would have caught {:+.1} %", 100.0 * smallest));
    }
    let caught = verdict.actual.ok()?.value * (1.0 + smallest);
    let (unit, scale) = threshold.metric.unit.display();
    (caught > 0.0).then(|| format!("would have caught {} {unit}", number(caught * scale)))
}

/// Describes the variation between runs that the changes of a group are judged with.
fn format_variations(verdicts: &[Verdict]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in verdicts.iter().filter_map(format_variation) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Describes the variation between runs that a change is judged with.
fn format_variation(verdict: &Verdict) -> Option<String> {
    let Some(Ok(Change { variation: Some(variation), .. })) = &verdict.change else { return None };
    let BetweenRuns { share, observed, runs, is_assumed } = *variation;
    if verdict.threshold.against != Against::Baseline {
        return None;
    }
    let (share, stored) = (number(100.0 * share), counted(runs, "stored run"));
    Some(match is_assumed {
        true => format!(
            "runs are assumed to vary by ± {share} % (`run_variation`): {stored}, {MIN_HISTORY} or \
             more give an estimate"
        ),
        false => format!(
            "{}: {stored} differ by ± {} %; with the assumption (`run_variation`) as four more \
             runs, ± {share} % is used",
            verdict.threshold.metric.name,
            number(100.0 * observed.unwrap_or_default())
        ),
    })
}

/// The circumstances of a verdict, a sentence each: the requests that it is of, their dependence, the
/// variation between runs, and, where stored runs are its counterpart, the `notes` on these.
pub fn format_circumstances(verdict: &Verdict, notes: &[String]) -> Vec<String> {
    let own = [format_partial(verdict), format_dependence(verdict), format_variation(verdict)];
    let notes = notes.iter().filter(|_| verdict.threshold.needs_baseline()).cloned();
    own.into_iter().flatten().chain(notes).collect()
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
        false if verdict.simulator > 0.0 => format!(
            "no number of requests would decide it: the simulated endpoint was late by ± {} {unit} \
             against its script, and the instrument has ± {} {unit}",
            number(verdict.simulator * scale),
            number((error - verdict.simulator) * scale)
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
        false if floor > 0.0 => {
            let late = match verdict.simulator > 0.0 {
                true => " and the lateness of the simulated endpoint have",
                false => " has",
            };
            format!(
                "no number of requests would decide it: the instrument{late} ± {shown} % in the change"
            )
        }
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
        (Ok(estimate), Some(beyond)) => format_counted(verdict, estimate, beyond),
        (Ok(estimate), None) => format_estimate(verdict.threshold.metric, estimate),
        (Err(Absent::TooFew { .. }), Some(BeyondLimit { beyond, all, .. })) => {
            format!("{} of {all} within the limit", all - beyond)
        }
        (Err(Absent::Lacking { .. }), _) => verdict.lacking.to_string(),
        (Err(absent), _) => absent.to_string(),
    }
}

/// Formats a figure that is judged by a count, with that count.
fn format_counted(verdict: &Verdict, estimate: &Estimate, of: BeyondLimit) -> String {
    let BeyondLimit { beyond, failed, all, allowed, .. } = of;
    let (unit, scale) = verdict.threshold.metric.unit.display();
    match verdict.is_success_rate() {
        // The interval would say more than a limit asks that allows none.
        true if allowed <= 0.0 => {
            format!("{} %, {failed} of {all} failed", number(estimate.value))
        }
        true => format_estimate(verdict.threshold.metric, estimate),
        false => {
            let value = number(estimate.value * scale);
            format!("{value} {unit}, {} of {all} within", all - beyond)
        }
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
