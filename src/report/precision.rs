//! How precisely means are known, next to the goals of the config.

use llm_stream_core::{group::GroupId, precision::Precision, summary::Summary};

use super::{Exporter, Run, number, table};

/// The precision of a group's means.
#[derive(Debug)]
pub struct GroupPrecision {
    /// The group.
    pub group: GroupId,
    /// Its name in reports.
    pub name: String,
    /// One entry per goal.
    pub figures: Vec<Precision>,
}

impl GroupPrecision {
    /// Compares the intervals of each group that has goals with them.
    pub(crate) fn of(summary: &Summary, confidence: f64) -> Vec<Self> {
        let measured = summary.groups.iter().map(|group| {
            let goals = group.spec.precision.iter();
            let figures = goals.map(|goal| goal.measure(group, confidence)).collect();
            Self { group: group.spec.id, name: group.name(), figures }
        });
        measured.filter(|of| !of.figures.is_empty()).collect()
    }
}

/// A table per group, a row per goal. Empty if there are no goals.
#[derive(Debug, Clone, Copy)]
pub struct PrecisionTables;

impl Exporter for PrecisionTables {
    fn render(&self, run: &Run) -> String {
        if run.precision.is_empty() {
            return String::new();
        }
        let mut out =
            String::from("Precision (half of the mean's interval, as a part of the mean)\n");
        for GroupPrecision { name, figures, .. } in &run.precision {
            let mut table = table::table(&["figure", ">goal", ">actual", "result"]);
            for figure in figures {
                table.add_row([
                    figure.goal.metric.name.to_owned(),
                    format_share(figure.goal.share),
                    format_actual(figure),
                    format_result(figure, run),
                ]);
            }
            out.push_str(&format!("\n{name}\n{}", table::lines(&table)));
        }
        out
    }
}

/// Formats how precisely a mean is known.
pub(super) fn format_actual(figure: &Precision) -> String {
    figure.share.map_or_else(|_| "-".into(), format_share)
}

/// `± 2.00 %`.
pub(super) fn format_share(share: f64) -> String {
    format!("± {} %", number(share * 100.0))
}

/// `reached`, or why not.
pub(super) fn format_result(figure: &Precision, run: &Run) -> String {
    why_missed(figure, run).map_or_else(|| "reached".into(), |why| format!("not reached: {why}"))
}

/// Why a goal is not reached; `None` if it is.
pub(super) fn why_missed(figure: &Precision, run: &Run) -> Option<String> {
    if figure.is_reached() {
        return None;
    }
    Some(match figure.share {
        Err(absent) => absent.to_string(),
        Ok(_) if run.is_out_of_time => "max_time is over".into(),
        Ok(_) => "max_runs is reached".into(),
    })
}
