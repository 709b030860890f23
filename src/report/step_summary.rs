//! Markdown for the step summary on GitHub: the main figures, the verdicts, the failures of trials.
//!
//! Text from the config or a server is in code spans, so that it cannot contain links or other markup.

use llm_stream_core::{
    metric::Metric,
    statistic::Statistic,
    summary::Group,
    text::visible_lines,
    verdict::{Outcome, Verdict},
};

use super::{Exporter, Run, RunStatus, TrialResult, number, thresholds};

/// The main tables.
#[derive(Debug, Clone, Copy)]
pub struct StepSummary;

/// The metrics of the first table.
const FIGURES: [&Metric; 5] =
    [Metric::GENERATION_SPEED, Metric::TTFT, Metric::TPOT, Metric::E2E, Metric::OUTPUT_THROUGHPUT];

/// The largest numbers of table rows and of failed trials: GitHub limits a step summary to 1 MiB.
const MAX_ROWS: usize = 200;
const MAX_TRIALS: usize = 10;

/// The largest length of an error message, in characters.
const MAX_MESSAGE: usize = 300;

impl Exporter for StepSummary {
    fn render(&self, run: &Run) -> String {
        let ended = run.ending.ended.name();
        let mut out = format!("### llm-stream-bench: {ended}\n\n");
        if run.ending.ended == RunStatus::Interrupted {
            run.ending
                .reasons
                .iter()
                .for_each(|reason| out.push_str(&format!("{}\n\n", code(reason))));
        }
        out.push_str(&figures(run));
        out.push_str(&verdicts(run));
        out.push_str(&failures(run));
        out
    }
}

fn figures(run: &Run) -> String {
    let groups = || run.summary.groups.iter();
    let metrics: Vec<_> = FIGURES
        .into_iter()
        .filter(|metric| groups().any(|group| !group.values(metric).is_empty()))
        .collect();
    let heads =
        metrics.iter().map(|metric| format!("{} ({})", metric.name, metric.unit.display().0));
    let heads: Vec<_> =
        ["mean".into(), "valid".into(), "failed".into()].into_iter().chain(heads).collect();
    let row = |group: &Group| {
        let failed = group.tally.failed();
        let counts = [cell(&group.name()), group.tally.valid.to_string(), failed.to_string()];
        let means = metrics.iter().map(|metric| {
            let scale = metric.unit.display().1;
            let is_doubtful = group.tally.doubts(metric).next().is_some();
            let remark = if is_doubtful { " (may be wrong)" } else { "" };
            group
                .figure(metric, Statistic::Mean)
                .map_or_else(|_| "–".into(), |mean| number(mean * scale) + remark)
        });
        counts.into_iter().chain(means).collect::<Vec<_>>()
    };
    table(&heads, "---:", groups().map(row))
}

fn verdicts(run: &Run) -> String {
    let row = |name: &str, verdict: &Verdict| {
        let outcome = match verdict.outcome() {
            Outcome::Fail => format!("**{}**", thresholds::format_outcome(Outcome::Fail)),
            outcome => thresholds::format_outcome(outcome).to_owned(),
        };
        let limit = cell(&verdict.threshold.to_string());
        vec![cell(name), limit, cell(&thresholds::format_actual(verdict)), outcome]
    };
    let rows = run
        .verdicts
        .iter()
        .flat_map(|group| group.verdicts.iter().map(move |verdict| row(&group.name, verdict)));
    let heads = ["threshold of", "limit", "actual", "verdict"].map(str::to_owned);
    if run.verdicts.is_empty() { String::new() } else { table(&heads, "---", rows) }
}

fn failures(run: &Run) -> String {
    let failure = |trial: &TrialResult| {
        let failure = trial.failure.as_ref()?;
        let message: String = failure.message.chars().take(MAX_MESSAGE).collect();
        let failure = code(&format!("{}: {message}", failure.kind));
        Some(format!("- {} {failure}\n", code(&trial.case.name)))
    };
    let mut lines: Vec<_> = run.trials.iter().filter_map(failure).collect();
    if lines.is_empty() {
        return String::new();
    }
    let more = lines.len().saturating_sub(MAX_TRIALS);
    lines.truncate(MAX_TRIALS);
    let more = if more > 0 { format!("- and {more} more\n") } else { String::new() };
    format!("Failed trials:\n\n{}{more}\n", lines.concat())
}

/// Formats a table whose first column is text; `rest` is the alignment of the others.
fn table(heads: &[String], rest: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut rules = vec![rest.to_owned(); heads.len()];
    rules[0] = "---".into();
    let rows: Vec<_> = rows.collect();
    let more = rows.len().saturating_sub(MAX_ROWS);
    let shown: String = rows.iter().take(MAX_ROWS).map(|row| line(row)).collect();
    let more = if more > 0 { format!("\nand {more} more\n") } else { String::new() };
    format!("{}{}{shown}{more}\n", line(heads), line(&rules))
}

/// Formats a code span in a table, where a bar would end the cell.
fn cell(text: &str) -> String {
    code(text).replace('|', "\\|")
}

/// Formats the text as a code span on one line, between more backticks than it contains.
fn code(text: &str) -> String {
    let text = visible_lines(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let runs = text.split(|c| c != '`').map(str::len);
    let fence = "`".repeat(runs.max().unwrap_or_default() + 1);
    match text.contains('`') {
        true => format!("{fence} {text} {fence}"),
        false => format!("{fence}{text}{fence}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_its_code_span_or_its_cell() {
        assert_eq!(code("a  b\n# c"), "`a b # c`");
        assert_eq!(code("`<b>` ``"), "``` `<b>` `` ```");
        assert_eq!(cell("a|b"), "`a\\|b`");
    }
}
