//! Markdown for the summary of a step on GitHub: the main figures, the verdicts, why trials failed.
//!
//! Whatever a config or a server names stands in code spans, so that nothing of it is a link or any
//! other markup.

use llm_stream_core::{
    metric::Metric,
    statistic::Statistic,
    summary::Group,
    text::visible_lines,
    verdict::{Outcome, Verdict},
};

use super::{Exporter, Run, TrialResult, number, thresholds};

/// Tables for people in a hurry.
#[derive(Debug, Clone, Copy)]
pub struct StepSummary;

const FIGURES: [&str; 5] = ["generation_speed", "ttft", "tpot", "e2e", "output_throughput"];

/// Rows of a table, and failed trials: the summary of a step may have a mebibyte.
const MOST_ROWS: usize = 200;
const MOST_TRIALS: usize = 10;

/// Longest text of a server, in characters.
const LONGEST: usize = 300;

impl Exporter for StepSummary {
    fn render(&self, run: &Run) -> String {
        let ended = run.ending.ended.name();
        let mut out = format!("### llm-stream-bench: {ended}\n\n");
        out.push_str(&figures(run));
        out.push_str(&verdicts(run));
        out.push_str(&failures(run));
        out
    }
}

fn figures(run: &Run) -> String {
    let groups = || run.summary.groups.iter();
    let metrics: Vec<_> = FIGURES
        .iter()
        .filter_map(|name| Metric::named(name))
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
        let word = match verdict.outcome() {
            Outcome::Fail => format!("**{}**", thresholds::word(Outcome::Fail)),
            outcome => thresholds::word(outcome).to_owned(),
        };
        let limit = cell(&verdict.threshold.to_string());
        vec![cell(name), limit, cell(&thresholds::actual(verdict)), word]
    };
    let rows = run
        .verdicts
        .iter()
        .flat_map(|judged| judged.verdicts.iter().map(move |verdict| row(&judged.name, verdict)));
    let heads = ["threshold of", "limit", "actual", "verdict"].map(str::to_owned);
    if run.verdicts.is_empty() { String::new() } else { table(&heads, "---", rows) }
}

fn failures(run: &Run) -> String {
    let failure = |trial: &TrialResult| {
        let failure = trial.failure.as_ref()?;
        let message: String = failure.message.chars().take(LONGEST).collect();
        let said = code(&format!("{}: {message}", failure.kind));
        Some(format!("- {} {said}\n", code(&trial.case.name)))
    };
    let mut lines: Vec<_> = run.trials.iter().filter_map(failure).collect();
    if lines.is_empty() {
        return String::new();
    }
    let more = lines.len().saturating_sub(MOST_TRIALS);
    lines.truncate(MOST_TRIALS);
    let more = if more > 0 { format!("- and {more} more\n") } else { String::new() };
    format!("Failed trials:\n\n{}{more}\n", lines.concat())
}

/// A table whose first column is text; `rest` is how the others are aligned.
fn table(heads: &[String], rest: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut rules = vec![rest.to_owned(); heads.len()];
    rules[0] = "---".into();
    let rows: Vec<_> = rows.collect();
    let more = rows.len().saturating_sub(MOST_ROWS);
    let shown: String = rows.iter().take(MOST_ROWS).map(|row| line(row)).collect();
    let more = if more > 0 { format!("\nand {more} more\n") } else { String::new() };
    format!("{}{}{shown}{more}\n", line(heads), line(&rules))
}

/// A code span in a table, where a bar would end the cell.
fn cell(text: &str) -> String {
    code(text).replace('|', "\\|")
}

/// The text as a code span, on one line, within more backticks than it has itself.
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
