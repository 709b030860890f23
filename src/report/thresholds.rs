//! What came of the thresholds: limit, actual, verdict.

use super::{Format, Judged, Run, number, table};
use crate::verdict::{Outcome, Verdict};

/// A table a model, a line a threshold.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds;

impl Format for Thresholds {
    fn render(&self, run: &Run) -> String {
        let mut out = String::from("Thresholds\n");
        if run.verdicts.is_empty() {
            out.push_str("\n  none in the config: only that trials succeed is checked\n");
        }
        for Judged { name, verdicts } in &run.verdicts {
            let mut table = table::table(&["limit", ">actual", "verdict"]);
            for verdict in verdicts {
                let word = match verdict.outcome() {
                    Outcome::Pass => "pass",
                    Outcome::Fail => "FAIL",
                    Outcome::Inconclusive => "inconclusive",
                };
                table.add_row([verdict.threshold.to_string(), actual(verdict), word.into()]);
            }
            out.push_str(&format!("\n{name}\n{}", table::lines(&table)));
        }
        out
    }
}

/// The figure in its unit, or why there is none.
pub fn actual(verdict: &Verdict) -> String {
    let (unit, scale) = verdict.threshold.metric.unit.display();
    match &verdict.actual {
        Ok(value) => match verdict.error {
            Some(error) if verdict.outcome() == Outcome::Inconclusive => {
                format!("{} ± {} {unit}", exact(value * scale), exact(error * scale))
            }
            _ => format!("{} {unit}", number(value * scale)),
        },
        Err(absent) => absent.to_string(),
    }
}

/// A figure with more digits than usual, so that it can be told from its limit.
fn exact(value: f64) -> String {
    format!("{value:.4}")
}
