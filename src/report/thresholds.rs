//! What came of the thresholds: limit, actual with its interval, verdict.

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

/// A table a model, a line a threshold.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds;

impl Exporter for Thresholds {
    fn render(&self, run: &Run) -> String {
        let percent = run.confidence * 100.0;
        let mut out = format!("Thresholds (actual with its {percent:.3} % interval)\n");
        out = out.replace(".000 %", " %");
        if run.verdicts.is_empty() {
            out.push_str("\n  none in the config: only that trials succeed is checked\n");
        }
        for GroupVerdicts { name, verdicts, notes, .. } in &run.verdicts {
            let mut table = table::table(&["limit", ">actual", "verdict"]);
            for verdict in verdicts {
                let word = word(verdict.outcome());
                table.add_row([verdict.threshold.to_string(), actual(verdict), word.into()]);
            }
            out.push_str(&format!("\n{name}\n{}", table::lines(&table)));
            for note in notes {
                out.push_str(&format!("  note: {note}\n"));
            }
            for verdict in verdicts {
                if let Some(partly) = partly(verdict) {
                    out.push_str(&format!("  {}:\n    {partly}\n", verdict.threshold));
                }
                if let Some(wanting) = needed(verdict) {
                    out.push_str(&format!("  {}:\n    {wanting}\n", verdict.threshold));
                }
            }
        }
        out
    }
}

/// The verdict in a word.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Inconclusive => "inconclusive",
    }
}

/// Of how many answers a figure is that others lack, in words.
pub fn partly(verdict: &Verdict) -> Option<String> {
    let lacking = &verdict.lacking;
    let is_there = match &verdict.change {
        None => verdict.actual.is_ok(),
        Some(change) => change.is_ok(),
    };
    let some = (is_there && lacking.lack() > 0).then(|| {
        let have = lacking.all - lacking.lack();
        format!("of {have} of {} {}: {}", lacking.all, lacking.unit(), lacking.why())
    });
    let left_out = (!verdict.left_out.is_empty()).then(|| without(&verdict.left_out));
    let parts: Vec<_> = some.into_iter().chain(left_out).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// `compared without the prompt `p10`, of which one of the runs has no value`.
pub fn without(prompts: &[String]) -> String {
    let unit = if prompts.len() == 1 { "prompt" } else { "prompts" };
    format!("compared without the {unit} {}, for which one run has no value", some_of(prompts))
}

/// The first names of a list, and how many others there are.
pub(super) fn some_of(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> =
        names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        others => format!("{} and {}", shown.join(", "), counted(others, "other")),
    }
}

/// What would decide an inconclusive verdict, in words.
pub fn needed(verdict: &Verdict) -> Option<String> {
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
        Needed::MorePrecision if let Some(Ok(change)) = &verdict.change => {
            exactness_of_change(verdict, change)
        }
        Needed::MorePrecision => match verdict.error {
            Some(error) => {
                let (unit, scale) = verdict.threshold.metric.unit.display();
                let shown = number(error * scale);
                match verdict.uncertainty > error / 2.0 {
                    true => format!(
                        "these requests cannot decide it: the times of their tokens are known to \
                         ± {shown} {unit} (`arrival_uncertainty` in the results)"
                    ),
                    false => format!(
                        "no number of requests would decide it: the instrument has ± {shown} {unit}"
                    ),
                }
            }
            None => "no number of requests would decide it: it is at its limit".into(),
        },
    })
}

/// What keeps a change from being decided by more requests.
fn exactness_of_change(verdict: &Verdict, change: &Change) -> String {
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

/// The figure in its unit with its interval, or why there is none.
pub fn actual(verdict: &Verdict) -> String {
    match &verdict.change {
        Some(Ok(change)) => return format!("{} %", changed(change)),
        Some(Err(why)) => return why.to_string(),
        None if verdict.threshold.is_relative => return "no baseline".into(),
        None => {}
    }
    match &verdict.actual {
        Ok(estimate) => estimated(verdict.threshold.metric, estimate),
        Err(Absent::Lacking { .. }) => verdict.lacking.to_string(),
        Err(absent) => absent.to_string(),
    }
}

/// A change with its interval, in percent.
pub fn changed(change: &Change) -> String {
    let Change { relative, interval: Interval { low, high }, .. } = change;
    format!("{:+.1} [{:+.1}, {:+.1}]", relative * 100.0, low * 100.0, high * 100.0)
}

/// A figure in its unit with its interval.
pub fn estimated(metric: &Metric, estimate: &Estimate) -> String {
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
