//! The figures of a run by the definitions of other benchmark tools, for the terminal.

use std::fmt::Write;

use llm_stream_core::{
    metric::{Metric, MetricSource},
    other_tools::{
        Definitions, FIGURES, FigureTable, GroupTables, OtherTool, ReasonCount, Statistics, ToolRow,
    },
    text::counted,
};

use super::{number, table};

/// A relative difference below this is a rounding error.
const SAME: f64 = 1e-9;

/// The name of this program in the tables.
const OURS: &str = "llm-stream-bench";

/// Formats the figures of each group, and the formulas.
pub fn render(definitions: &Definitions) -> String {
    let mut out = String::from("Definitions of other tools\n\n");
    out.push_str(&table::paragraph(
        "The arrivals that this program recorded, by the definitions of other benchmark tools. The \
         delays of their clients are not reproduced.",
        "",
    ));
    if definitions.groups.is_empty() {
        out.push_str("\nNo request has a valid answer.\n");
        return out;
    }
    for group in &definitions.groups {
        out.push_str(&render_group(group));
    }
    out.push_str(&formulas(definitions));
    out.push_str(&percentiles());
    out.push_str(&not_reproduced());
    out
}

fn render_group(group: &GroupTables) -> String {
    let requests = counted(group.requests, "valid answer");
    let mut out = format!("\n{} ({requests})\n", group.name);
    for figure in &group.tables {
        out.push_str(&render_figure(figure, group.requests));
    }
    out
}

/// Formats a table of one figure. The reasons for a difference follow the row of the tool.
fn render_figure(figure: &FigureTable, requests: usize) -> String {
    let (unit, scale) = figure.metric.unit.display();
    let head = format!("{}, {unit}", figure.metric.name);
    let mut table = table::unwrapped(&[&head, "called", ">mean", ">vs ours", ">p50", ">p99"]);
    table.add_row(cells((OURS, figure.metric.name), figure.ours, "", scale));
    for row in &figure.rows {
        let difference = format_difference(row, figure.ours);
        table.add_row(cells((row.tool.name(), row.name), row.theirs, &difference, scale));
    }
    let lines = table::lines(&table);
    let mut lines = lines.lines();
    let mut out = String::from("\n");
    // The head, its line, and our row.
    for line in lines.by_ref().take(3) {
        let _ = writeln!(out, "{line}");
    }
    let all = |reason: &ReasonCount| match figure.metric.read {
        MetricSource::Load(_) => counted_of(reason, figure.ours.n.max(1), "run"),
        _ => counted_of(reason, requests, "answer"),
    };
    for (line, row) in lines.zip(&figure.rows) {
        let _ = writeln!(out, "{line}");
        for reason in &row.reasons {
            let text = format!("{}{}", reason.reason.text(), all(reason));
            out.push_str(&table::paragraph(&text, "      "));
        }
    }
    if !figure.without.is_empty() {
        let names: Vec<_> = figure.without.iter().map(|tool| tool.name()).collect();
        out.push_str(&table::paragraph(&format!("not in {}", names.join(", ")), "  "));
    }
    out
}

/// Returns the cells of a row: the tool, its name of the figure, and the values.
fn cells(
    (tool, name): (&str, &str),
    values: Statistics,
    difference: &str,
    scale: f64,
) -> [String; 6] {
    let value = |value: Option<f64>| value.map_or("-".into(), |value| number(value * scale));
    let Statistics { mean, p50, p99, .. } = values;
    [tool.into(), name.into(), value(mean), difference.into(), value(p50), value(p99)]
}

/// Formats the difference from ours: `same`, `+1.2 %`, or `-` if one of the two is absent.
fn format_difference(row: &ToolRow, ours: Statistics) -> String {
    match row.difference {
        Some(difference) if difference.abs() < SAME => "same".into(),
        Some(difference) if difference.abs() < 5e-5 => {
            if difference > 0.0 {
                "+0.00 %".into()
            } else {
                "-0.00 %".into()
            }
        }
        Some(difference) => format!("{:+.2} %", difference * 100.0),
        None if ours.mean == Some(0.0) && row.theirs.mean == Some(0.0) => "same".into(),
        None => "-".into(),
    }
}

/// Formats how many of the requests or runs have the reason: nothing if all of them do.
fn counted_of(reason: &ReasonCount, all: usize, what: &str) -> String {
    match reason.count {
        Some(count) if count < all => format!(" ({count} of {})", counted(all, what)),
        _ => String::new(),
    }
}

/// Formats the formula of each figure that the tables show.
fn formulas(definitions: &Definitions) -> String {
    let mut out = String::from("\nFormulas (N: generated tokens, by the server's count)\n");
    let is_shown = |metric: &Metric| {
        let mut tables = definitions.groups.iter().flat_map(|group| &group.tables);
        tables.any(|table| table.metric == metric)
    };
    let mut shown: Vec<&Metric> = Vec::new();
    for figure in FIGURES.iter().filter(|figure| is_shown(figure.metric)) {
        let metric = figure.metric;
        if !shown.contains(&metric) {
            shown.push(metric);
            let _ = writeln!(out, "\n  {}", metric.name);
            out.push_str(&entry(OURS, metric.definition));
        }
        out.push_str(&entry(&format!("{} {}", figure.tool.name(), figure.name), figure.formula));
    }
    out
}

fn percentiles() -> String {
    let mut out = String::from("\nPercentiles\n");
    out.push_str(&entry(
        OURS,
        "linear between the closest ranks, and only of enough values: a p99 needs 473",
    ));
    for tool in OtherTool::ALL {
        out.push_str(&entry(tool.name(), tool.percentiles().text()));
    }
    out
}

fn not_reproduced() -> String {
    let mut out = String::from("\nNot reproduced\n");
    for tool in OtherTool::ALL {
        let name = format!("{} {}", tool.name(), tool.version());
        out.push_str(&entry(&name, tool.not_reproduced()));
    }
    out
}

/// Formats `NAME: TEXT`, wrapped, with the following lines indented further.
fn entry(name: &str, text: &str) -> String {
    table::paragraph(&format!("{name}: {text}"), "    ").replacen("    ", "  ", 1)
}
