//! The summary for the terminal: a table a model, a row a figure.

use std::fmt::Write;

use super::{Format, Run, number, table};
use crate::{
    metric::{METRICS, Metric},
    statistic::Statistic,
    summary::ModelSummary,
};

/// Every figure of every model.
#[derive(Debug, Clone, Copy)]
pub struct SummaryTables;

const STATISTICS: [Statistic; 5] =
    [Statistic::Mean, Statistic::Sd, Statistic::Min, Statistic::Median, Statistic::Max];

impl Format for SummaryTables {
    fn render(&self, run: &Run) -> String {
        let mut out = String::from("Summary\n");
        for model in &run.summary.models {
            out.push('\n');
            out.push_str(&heading(model));
            if !model.samples.is_empty() {
                out.push_str(&figures(model));
            }
        }
        out
    }
}

fn heading(model: &ModelSummary) -> String {
    let mut out = model.target.name.clone();
    if model.target.is_simulated() {
        out.push_str(" (simulated: figures of a script, not of a model)");
    }
    out.push('\n');
    let _ = write!(out, "  {} successful, {} failed", model.samples.len(), model.failed());
    if model.finished() < model.planned {
        let _ = write!(out, ", {} not run", model.planned - model.finished());
    }
    let kinds: Vec<_> = model.failures.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    if !kinds.is_empty() {
        let _ = write!(out, " ({})", kinds.join(", "));
    }
    out.push('\n');
    out
}

fn figures(model: &ModelSummary) -> String {
    let mut heads = vec!["figure", "unit", ">n"];
    let names: Vec<_> = STATISTICS.iter().map(|statistic| format!(">{statistic}")).collect();
    heads.extend(names.iter().map(String::as_str));
    let mut table = table::table(&heads);
    for metric in METRICS.iter().filter(|metric| metric.in_summary) {
        let values = model.values(metric);
        if !values.is_empty() {
            table.add_row(row(metric, &values));
        }
    }
    table::lines(&table)
}

fn row(metric: &Metric, values: &[f64]) -> Vec<String> {
    let (unit, scale) = metric.unit.display();
    let mut cells = vec![metric.name.to_owned(), unit.to_owned(), values.len().to_string()];
    cells.extend(STATISTICS.iter().map(|statistic| {
        statistic.of(values).map_or_else(|_| "-".into(), |value| number(value * scale))
    }));
    cells
}
