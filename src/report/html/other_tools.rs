//! The recorded arrivals by the definitions of other benchmark tools.

use llm_stream_core::{
    metric::{Metric, MetricSource},
    other_tools::{FIGURES, FigureTable, GroupTables, OtherTool, ReasonCount, Statistics, ToolRow},
    text::{counted, visible},
};
use maud::{Markup, html};

use super::{
    numbers::{THIN, plain, signed},
    page_run::PageData,
    table::scrolling,
    verdicts::sentence,
};

/// The most groups with tables: the command has all.
const MOST_GROUPS: usize = 3;

/// A relative difference below this is a rounding error.
const SAME: f64 = 1e-9;

/// Returns the section; `None` without the requests.
pub(super) fn section(page: &PageData<'_>) -> Option<Markup> {
    let run = page.main();
    if !run.has_requests {
        return None;
    }
    let groups = run.requests.definitions.as_ref().map(|of| of.groups.as_slice());
    if groups.is_some_and(<[_]>::is_empty) {
        return None;
    }
    let command = format!("llm-stream-bench report {} --definitions", run.name);
    Some(html! {
        section #definitions {
            h2 { (title(groups)) }
            p.lead {
                "The arrivals of this run by the formulas of other benchmark tools. The delays of their clients are not reproduced."
            }
            @match groups {
                None => { p { "The requests have too many tokens for this page: " code { (command) } " computes the figures." } }
                Some(groups) => {
                    @for group in groups.iter().take(MOST_GROUPS) { (group_tables(group)) }
                    @if groups.len() > MOST_GROUPS { p.note { "The other groups: " code { (command) } } }
                    (formulas(groups))
                }
            }
        }
    })
}

/// Returns the finding: the largest difference of a mean.
fn title(groups: Option<&[GroupTables]>) -> Markup {
    let tables = groups.unwrap_or_default().iter().flat_map(|group| &group.tables);
    let rows = tables.flat_map(|table| table.rows.iter().map(move |row| (table, row)));
    let different = rows.filter_map(|(table, row)| {
        Some((table, row, row.difference.filter(|of| of.abs() > 0.005)?))
    });
    match different.max_by(|a, b| a.2.abs().total_cmp(&b.2.abs())) {
        Some((table, row, difference)) => html! {
            "By other definitions figures differ by up to " (signed(100.0 * difference, 1)) (THIN) "%: "
            (table.metric.name) " as " (row.tool.name()) " defines it"
        },
        None => html! { "By the definitions of other tools the means are the same" },
    }
}

fn group_tables(group: &GroupTables) -> Markup {
    html! {
        details {
            summary { "Table: " (visible(&group.name)) ", " (counted(group.requests, "valid answer")) }
            @for table in &group.tables { (figure_table(group, table)) }
        }
    }
}

fn figure_table(group: &GroupTables, table: &FigureTable) -> Markup {
    let (unit, scale) = table.metric.unit.display();
    let ours = html! {
        th scope="row" { "llm-stream-bench" }
        td.r { (table.metric.name) } (values(table.ours, scale)) td.r { } td { }
    };
    let rows = table.rows.iter().map(|row| tool_row(group, table, row, scale));
    let rows: Vec<_> = std::iter::once(ours).chain(rows).collect();
    let heads = ["Tool", "Called", "Mean", "p50", "p99", "Mean against ours", "Reason"];
    let name = format!("{}, {unit}, of {}, by tool", table.metric.name, visible(&group.name));
    html! {
        h3.ov { (table.metric.name) ", " (unit) }
        (scrolling(&name, &heads, &rows))
        @if !table.without.is_empty() {
            p.note { "Not in " (table.without.iter().map(|tool| tool.name()).collect::<Vec<_>>().join(", ")) "." }
        }
    }
}

fn values(of: Statistics, scale: f64) -> Markup {
    let shown = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| plain(value * scale));
    html! { @for value in [of.mean, of.p50, of.p99] { td.r { (shown(value)) } } }
}

fn tool_row(group: &GroupTables, table: &FigureTable, row: &ToolRow, scale: f64) -> Markup {
    let difference = match row.difference {
        None => "–".to_owned(),
        Some(difference) if difference.abs() < SAME => "same".into(),
        Some(difference) => format!("{}{THIN}%", signed(100.0 * difference, 2)),
    };
    let all = match table.metric.read {
        MetricSource::Load(_) => (table.ours.n.max(1), "run"),
        MetricSource::Sample(_) | MetricSource::All => (group.requests, "answer"),
    };
    let reasons: Vec<_> = row.reasons.iter().map(|reason| reason_in_words(reason, all)).collect();
    html! {
        th scope="row" { (row.tool.name()) }
        td.r { (row.name) } (values(row.theirs, scale)) td.r { (difference) } td.reason { (reasons.join(" ")) }
    }
}

fn reason_in_words(of: &ReasonCount, (all, what): (usize, &str)) -> String {
    let count = match of.count {
        Some(count) if count < all => format!(" ({count} of {})", counted(all, what)),
        _ => String::new(),
    };
    sentence(&format!("{}{count}", of.reason.text()))
}

/// Returns the formulas of the figures that the tables show, and what is not reproduced.
fn formulas(groups: &[GroupTables]) -> Markup {
    let is_shown = |metric: &Metric| {
        groups.iter().flat_map(|group| &group.tables).any(|table| table.metric == metric)
    };
    html! {
        details {
            summary { "Formulas, versions, and what is not reproduced" }
            table.env {
                caption.vh { "Formulas of other tools" }
                tbody {
                    @for figure in FIGURES.iter().filter(|figure| is_shown(figure.metric)) {
                        tr { th scope="row" { (figure.tool.name()) " " code { (figure.name) } } td { (sentence(figure.formula)) } }
                    }
                    @for tool in OtherTool::ALL {
                        tr {
                            th scope="row" { (tool.name()) " " (tool.version()) }
                            td { "Percentiles: " (tool.percentiles().text()) ". Not reproduced: it " (tool.not_reproduced()) "." }
                        }
                    }
                }
            }
        }
    }
}
