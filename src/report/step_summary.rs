//! Markdown for the step summary on GitHub: the main figures, the verdicts with their reasons, the
//! precision, the failures of trials.
//!
//! Text from the config or a server is in code spans, so that it cannot contain links or other markup.

use llm_stream_core::{
    metric::Metric,
    precision::Precision,
    statistic::Statistic,
    summary::Group,
    text::{cut_lines, visible_lines},
    verdict::{Outcome, Verdict},
};

use super::{
    Exporter, GroupVerdicts, Run, RunStatus, TrialResult, number,
    precision::{self, format_result, format_share},
    thresholds,
};

/// The main tables.
#[derive(Debug, Clone, Copy)]
pub struct StepSummary;

/// The metrics of the first table.
const FIGURES: [&Metric; 7] = [
    Metric::GENERATION_SPEED,
    Metric::TTFT,
    Metric::TPOT,
    Metric::E2E,
    Metric::OUTPUT_THROUGHPUT,
    Metric::ITEMS_PER_SECOND,
    Metric::ITEM_THROUGHPUT,
];

/// The largest numbers of table rows and of failed trials: GitHub limits a step summary to 1 MiB.
const MAX_ROWS: usize = 200;
const MAX_TRIALS: usize = 10;

/// The largest length of a text, in characters.
const MAX_TEXT: usize = 300;

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
        out.push_str(&precision(run));
        out.push_str(&failures(run));
        out
    }
}

fn figures(run: &Run) -> String {
    let groups = || run.summary.groups.iter();
    let metrics: Vec<_> = FIGURES
        .into_iter()
        .filter(|metric| groups().any(|group| group.count(metric) > 0))
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
    let row = |of: &GroupVerdicts, verdict: &Verdict| {
        let outcome = match verdict.outcome() {
            Outcome::Fail => format!("**{}**", thresholds::format_outcome(Outcome::Fail)),
            outcome => thresholds::format_outcome(outcome).to_owned(),
        };
        let limit = cell(&verdict.threshold.to_string());
        let actual = cell(&thresholds::format_actual(verdict));
        vec![cell(&of.name), limit, actual, outcome, why(verdict, &of.notes)]
    };
    let rows =
        run.verdicts.iter().flat_map(|of| of.verdicts.iter().map(move |verdict| row(of, verdict)));
    let heads = ["threshold of", "limit", "actual", "verdict", "why"].map(str::to_owned);
    if run.verdicts.is_empty() { String::new() } else { table(&heads, "---", rows) }
}

/// The reason of a verdict, what a pass would have caught, and the circumstances.
fn why(verdict: &Verdict, notes: &[String]) -> String {
    let why = thresholds::format_why(verdict).or_else(|| thresholds::format_detectable(verdict));
    let parts = why.into_iter().chain(thresholds::format_circumstances(verdict, notes));
    parts.map(|part| cell(&part)).collect::<Vec<_>>().join("<br>")
}

fn precision(run: &Run) -> String {
    let row = |name: &str, figure: &Precision| {
        let goal = format!("{} {}", figure.goal.metric.name, format_share(figure.goal.share));
        let result = cell(&format_result(figure, run));
        vec![cell(name), goal, precision::format_actual(figure), result]
    };
    let rows = run
        .precision
        .iter()
        .flat_map(|of| of.figures.iter().map(move |figure| row(&of.name, figure)));
    let heads = ["precision of", "goal", "actual", "result"].map(str::to_owned);
    if run.precision.is_empty() { String::new() } else { table(&heads, "---", rows) }
}

fn failures(run: &Run) -> String {
    let failure = |trial: &TrialResult| {
        let failure = trial.failure.as_ref()?;
        let failure = code(&format!("{}: {}", failure.kind, failure.message));
        Some(format!("- {} {failure}\n", code(&trial.case.name)))
    };
    let failed = || run.trials.iter().filter(|trial| trial.failure.is_some());
    let lines: Vec<_> = failed().take(MAX_TRIALS).filter_map(|trial| failure(&trial)).collect();
    if lines.is_empty() {
        return String::new();
    }
    let more = failed().count() - lines.len();
    let more = if more > 0 { format!("- and {more} more\n") } else { String::new() };
    format!("Failed trials:\n\n{}{more}\n", lines.concat())
}

/// Formats a table whose first column is text; `rest` is the alignment of the others.
pub(super) fn table(
    heads: &[String],
    rest: &str,
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut rules = vec![rest.to_owned(); heads.len()];
    rules[0] = "---".into();
    let rows: Vec<_> = rows.collect();
    let more = rows.len().saturating_sub(MAX_ROWS);
    let shown: String = rows.iter().take(MAX_ROWS).map(|row| line(row)).collect();
    let more = if more > 0 { format!("\nand {more} more\n") } else { String::new() };
    format!("{}{}{shown}{more}\n", line(heads), line(&rules))
}

/// Formats a code span in a table, where a bar would end the cell. A backslash does not protect a bar
/// behind a backslash.
pub(super) fn cell(text: &str) -> String {
    code(text).replace("\\|", "\\\\u{7c}").replace('|', "\\|")
}

/// Formats the text as a code span on one line, between more backticks than it contains. Nothing in
/// it becomes a link, an image, a mention or HTML.
pub(super) fn code(text: &str) -> String {
    let text = visible_lines(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let text = cut_lines(&text, MAX_TEXT);
    if text.is_empty() {
        return "–".to_owned(); // two backticks would begin a code span
    }
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
        assert_eq!(cell("a\\|b\\\\|"), r"`a\\u{7c}b\\\u{7c}`");
        assert_eq!(code(""), "–");
        assert_eq!(code(" ::error::x ##[y] "), r"`\u{3a}:error::x ##\u{5b}y]`");
        assert!(code(&"x".repeat(1000)).ends_with("… (700 more characters)`"));
    }
}
