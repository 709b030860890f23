//! The summary on a terminal: one table of the models, and one for each workload. The long table of
//! each model follows on request.

use std::fmt::Write;

use llm_stream_core::{
    group::WorkloadSpec,
    interval::Interval,
    metric::{Better, Metric},
    statistic::Statistic,
    summary::Group,
    text::counted,
};

use super::{
    Exporter, Run, number,
    summary::{self, SummaryTables},
    table,
};

/// The width from which a table has more columns.
const WIDE: usize = 120;

/// The columns of models with prompts, the most important first; from the fourth one only in a wide
/// table.
const OF_PROMPTS: [&Metric; 5] =
    [Metric::GENERATION_SPEED, Metric::TTFT, Metric::TPOT, Metric::E2E, Metric::PREPROCESS_SPEED];

/// The same of a workload.
const OF_WORKLOADS: [&Metric; 5] = [
    Metric::OUTPUT_THROUGHPUT,
    Metric::REQUEST_THROUGHPUT,
    Metric::TTFT,
    Metric::TPOT,
    Metric::E2E,
];

/// The number of columns in a narrow table.
const NARROW: usize = 3;

/// The figures of a run for people: the models next to each other, or all figures of a single model.
#[derive(Debug, Clone, Copy)]
pub struct Overview {
    /// The number of columns of the terminal.
    pub width: usize,
    /// Whether all figures of each model follow.
    pub is_verbose: bool,
}

impl Exporter for Overview {
    fn render(&self, run: &Run) -> String {
        let groups = &run.summary.groups;
        let is_single = |pair: &[Group]| pair[0].spec.id.model == pair[1].spec.id.model;
        if groups.windows(2).all(is_single) {
            return SummaryTables.render(run);
        }
        let confidence = number(run.confidence * 100.0);
        let confidence = confidence.trim_end_matches('0').trim_end_matches('.');
        let mut out = format!(
            "Summary (mean ± half of its {confidence} % interval; * best, or not clearly worse)\n"
        );
        for compared in run.summary.comparable() {
            out.push_str(&self.render_table(&compared, run.confidence));
        }
        let remarks: String = match self.is_verbose {
            true => String::new(),
            false => groups.iter().map(remarks).collect(),
        };
        let remarks = simulated(groups) + &remarks;
        if !remarks.is_empty() {
            out.push_str(&format!("\n{remarks}"));
        }
        if self.is_verbose {
            out.push_str(&format!("\nAll figures\n{}", summary::tables(run)));
        }
        out
    }
}

impl Overview {
    /// Formats the table of groups that can be compared.
    fn render_table(&self, groups: &[&Group], confidence: f64) -> String {
        let workload = groups.first().and_then(|group| group.spec.workload.as_ref());
        let of = if workload.is_some() { OF_WORKLOADS } else { OF_PROMPTS };
        let most = if self.width >= WIDE { of.len() } else { NARROW };
        let columns: Vec<_> = of
            .into_iter()
            .take(most)
            .map(|metric| Column::of(metric, groups, confidence))
            .filter(|column| column.cells.iter().any(Option::is_some))
            .collect();
        let count = same_count(groups);
        let mut heads = vec!["model".to_owned()];
        heads.extend(count.is_none().then(|| ">valid".to_owned()));
        heads.extend(columns.iter().map(Column::head));
        let heads: Vec<_> = heads.iter().map(String::as_str).collect();
        let mut table = table::of_width(&heads, self.width.clamp(table::NARROW, WIDE));
        for (row, group) in groups.iter().enumerate() {
            let mut cells = vec![table::name(&group.spec.model)];
            cells.extend(count.is_none().then(|| valid(group).into()));
            cells.extend(columns.iter().map(|column| column.cell(row).into()));
            table.add_row(cells);
        }
        format!("\n{}{}", title(workload, count), table::lines(&table))
    }
}

/// Returns the number of valid requests of each group, if it is the same for all and none failed.
fn same_count(groups: &[&Group]) -> Option<usize> {
    let count = groups.first()?.tally.valid;
    let is_same = |group: &&Group| group.tally.valid == count && group.tally.failed() == 0;
    (count > 0 && groups.iter().all(is_same)).then_some(count)
}

/// Formats the line above a table: the workload, and the number of requests if no column has it.
fn title(workload: Option<&WorkloadSpec>, count: Option<usize>) -> String {
    let load =
        workload.map(|WorkloadSpec { name, shape, until, .. }| format!("{name}: {shape}, {until}"));
    let count = count.map(|count| format!("{} of each model", counted(count, "valid request")));
    let parts: Vec<_> = load.into_iter().chain(count).collect();
    if parts.is_empty() { String::new() } else { format!("{}\n", parts.join("; ")) }
}

/// Formats the number of valid requests: `6`, or `5 of 6` if some failed.
fn valid(group: &Group) -> String {
    match group.tally.failed() {
        0 => group.tally.valid.to_string(),
        _ => format!("{} of {}", group.tally.valid, group.tally.finished()),
    }
}

/// A figure of all groups of a table.
struct Column {
    metric: &'static Metric,
    cells: Vec<Option<Cell>>,
}

/// The mean of a group.
#[derive(Clone, Copy)]
struct Cell {
    value: f64,
    interval: Option<Interval>,
    is_best: bool,
}

impl Column {
    fn of(metric: &'static Metric, groups: &[&Group], confidence: f64) -> Self {
        let cell = |group: &&Group| {
            let estimate = group.estimate(metric, Statistic::Mean, confidence).ok()?;
            let interval = estimate.interval.ok().flatten();
            let interval = interval.filter(|of| of.low.is_finite() && of.high.is_finite());
            Some(Cell { value: estimate.value, interval, is_best: false })
        };
        let mut column = Self { metric, cells: groups.iter().map(cell).collect() };
        column.mark_best();
        column
    }

    /// Marks the best mean, and the others whose interval overlaps its interval: with these figures
    /// none of them is clearly worse.
    fn mark_best(&mut self) {
        let sign = match self.metric.better {
            Better::Higher => 1.0,
            Better::Lower => -1.0,
            Better::Neither => return,
        };
        let known = || self.cells.iter().flatten().copied();
        let best = known().max_by(|a, b| (sign * a.value).total_cmp(&(sign * b.value)));
        let Some(best) = best.filter(|_| known().count() > 1) else { return };
        for cell in self.cells.iter_mut().flatten() {
            let overlap =
                |(of, best): (Interval, Interval)| of.low <= best.high && best.low <= of.high;
            cell.is_best =
                cell.value == best.value || cell.interval.zip(best.interval).is_some_and(overlap);
        }
    }

    fn head(&self) -> String {
        format!(">{}\n{}", self.metric.name, self.metric.unit.display().0)
    }

    /// Formats `255.0 ± 1.7`, with `*` or a blank after it, so that the digits are aligned.
    fn cell(&self, row: usize) -> String {
        let Some(Cell { value, interval, is_best }) = self.cells[row] else { return "- ".into() };
        let scale = self.metric.unit.display().1;
        let mut text = number(value * scale);
        if let Some(Interval { low, high }) = interval {
            let _ = write!(text, " ± {}", number((high - low) / 2.0 * scale));
        }
        text.push(if is_best { '*' } else { ' ' });
        text
    }
}

/// Names the simulated models.
fn simulated(groups: &[Group]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for group in groups.iter().filter(|group| group.spec.is_simulated) {
        if !names.contains(&group.spec.model.as_str()) {
            names.push(&group.spec.model);
        }
    }
    let all = groups.iter().all(|group| group.spec.is_simulated);
    match (names.is_empty(), all) {
        (true, _) => String::new(),
        (false, true) => "  simulated: figures of a script, not of a model\n".into(),
        (false, false) => {
            let text =
                format!("simulated: figures of a script, not of a model: {}", names.join(", "));
            table::paragraph(&text, "  ")
        }
    }
}

/// Formats what a reader of the table must know about a group, each in a line with its name.
fn remarks(group: &Group) -> String {
    let mut lines = summary::losses(group);
    if group.tally.valid > 0 {
        lines.push_str(&summary::drifts(group));
        if group.tally.server_disagrees > 0 {
            lines.push_str(&summary::server_timings(group));
        }
        let of = if group.spec.workload.is_some() { OF_WORKLOADS } else { OF_PROMPTS };
        lines.push_str(&summary::absent(group, &|metric| metric.is_one_of(&of)));
    }
    let name = group.name();
    lines.lines().map(|line| format!("  {name}: {}\n", line.trim_start())).collect()
}
