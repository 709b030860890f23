//! What came of the thresholds: limit, actual, verdict.

use std::sync::Arc;

use super::{Format, Run, number, table};
use crate::threshold::Verdict;

/// A table a model, a line a threshold.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds;

impl Format for Thresholds {
    fn render(&self, run: &Run) -> String {
        let mut out = String::from("Thresholds\n");
        if run.verdicts.is_empty() {
            out.push_str("\n  none in the config: only that trials succeed is checked\n");
        }
        for of_model in run.verdicts.chunk_by(|(a, _), (b, _)| Arc::ptr_eq(a, b)) {
            let mut table = table::table(&["limit", ">actual", "verdict"]);
            for (_, verdict) in of_model {
                let passed = if verdict.passed() { "pass" } else { "FAIL" };
                table.add_row([verdict.threshold.to_string(), actual(verdict), passed.into()]);
            }
            let name = &of_model[0].0.name;
            out.push_str(&format!("\n{name}\n{}", table::lines(&table)));
        }
        out
    }
}

/// The figure in its unit, or why there is none.
pub fn actual(verdict: &Verdict) -> String {
    let (unit, scale) = verdict.threshold.metric.unit.display();
    match &verdict.actual {
        Ok(value) => format!("{} {unit}", number(value * scale)),
        Err(absent) => absent.to_string(),
    }
}
