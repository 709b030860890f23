//! A table of models: each a row with its means, the best marked.

use std::fmt::Write;

use llm_stream_core::{
    interval::Interval,
    metric::{Better, Metric},
    text::counted,
};

use super::{number, table};

/// The width from which a table has more columns.
const WIDE: usize = 120;

/// The number of columns in a narrow table.
const NARROW: usize = 3;

/// The columns of models with prompts, the most important first.
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

/// The same without streams: of generated text, and of items; one by one, and in a workload.
const OF_WHOLE_TEXTS: [&Metric; 3] =
    [Metric::E2E, Metric::TOTAL_TOKENS_PER_SECOND, Metric::RESPONSE_TOKENS];
const OF_ITEMS: [&Metric; 3] = [Metric::E2E, Metric::ITEMS_PER_SECOND, Metric::PROMPT_TOKENS];
const OF_WHOLE_TEXTS_UNDER_LOAD: [&Metric; 3] =
    [Metric::OUTPUT_THROUGHPUT, Metric::REQUEST_THROUGHPUT, Metric::E2E];
const OF_ITEMS_UNDER_LOAD: [&Metric; 3] =
    [Metric::ITEM_THROUGHPUT, Metric::REQUEST_THROUGHPUT, Metric::E2E];

/// The same of a workload with limits for `goodput`.
const WITH_GOODPUT: [&Metric; 5] = [
    Metric::OUTPUT_THROUGHPUT,
    Metric::GOODPUT,
    Metric::TTFT,
    Metric::REQUEST_THROUGHPUT,
    Metric::TPOT,
];

/// The same of a search for a rate, and of one for a number of requests at a time.
const WITH_CAPACITY: [&Metric; 5] = [
    Metric::CAPACITY,
    Metric::TTFT,
    Metric::TPOT,
    Metric::OUTPUT_THROUGHPUT,
    Metric::REQUEST_THROUGHPUT,
];
const WITH_MAX_CONCURRENCY: [&Metric; 5] = [
    Metric::MAX_CONCURRENCY,
    Metric::TTFT,
    Metric::TPOT,
    Metric::OUTPUT_THROUGHPUT,
    Metric::REQUEST_THROUGHPUT,
];

/// Returns the figures of the table of groups that have those of which `has` is true.
pub(super) fn columns(has: impl Fn(&Metric) -> bool, is_load: bool) -> &'static [&'static Metric] {
    match is_load {
        _ if has(Metric::CAPACITY) => &WITH_CAPACITY,
        _ if has(Metric::MAX_CONCURRENCY) => &WITH_MAX_CONCURRENCY,
        _ if has(Metric::GOODPUT) => &WITH_GOODPUT,
        _ if !has(Metric::TTFT) && has(Metric::E2E) => match (has(Metric::ITEMS), is_load) {
            (true, true) => &OF_ITEMS_UNDER_LOAD,
            (true, false) => &OF_ITEMS,
            (false, true) => &OF_WHOLE_TEXTS_UNDER_LOAD,
            (false, false) => &OF_WHOLE_TEXTS,
        },
        true => &OF_WORKLOADS,
        false => &OF_PROMPTS,
    }
}

/// A model in the table.
pub(super) struct ModelRow<'a> {
    pub(super) name: &'a str,
    /// The numbers of its valid and failed requests.
    pub(super) valid: usize,
    pub(super) failed: usize,
    /// A mean of the columns, in their order.
    pub(super) means: Vec<Option<Mean>>,
}

/// The mean of a figure, in its base unit.
#[derive(Clone, Copy)]
pub(super) struct Mean {
    pub(super) value: f64,
    pub(super) interval: Option<Interval>,
}

/// Formats the table of `rows` that can be compared, with means of `metrics`, under the line that
/// describes their load.
pub(super) fn render(
    load: Option<String>,
    rows: &[ModelRow<'_>],
    metrics: &[&'static Metric],
    width: usize,
) -> String {
    let most = if width >= WIDE { metrics.len() } else { NARROW };
    let columns: Vec<_> = metrics
        .iter()
        .enumerate()
        .take(most)
        .map(|(nth, metric)| Column::of(metric, rows.iter().map(|row| row.means[nth])))
        .filter(|column| column.cells.iter().any(Option::is_some))
        .collect();
    let count = same_count(rows);
    let mut heads = vec!["model".to_owned()];
    heads.extend(count.is_none().then(|| ">valid".to_owned()));
    heads.extend(columns.iter().map(Column::head));
    let heads: Vec<_> = heads.iter().map(String::as_str).collect();
    let mut table = table::of_width(&heads, width.min(WIDE));
    for (nth, row) in rows.iter().enumerate() {
        let mut cells = vec![table::name(row.name)];
        cells.extend(count.is_none().then(|| valid(row).into()));
        cells.extend(columns.iter().map(|column| column.cell(nth).into()));
        table.add_row(cells);
    }
    let count = count.map(|count| format!("{} of each model", counted(count, "valid request")));
    let title: Vec<_> = load.into_iter().chain(count).collect();
    let title = if title.is_empty() { String::new() } else { format!("{}\n", title.join("; ")) };
    format!("{title}{}", table::lines(&table))
}

/// Returns the number of valid requests of each model, if it is the same for all and none failed.
fn same_count(rows: &[ModelRow<'_>]) -> Option<usize> {
    let count = rows.first()?.valid;
    let is_same = |row: &ModelRow<'_>| row.valid == count && row.failed == 0;
    (count > 0 && rows.iter().all(is_same)).then_some(count)
}

/// Formats the number of valid requests: `6`, or `5 of 6` if some failed.
fn valid(row: &ModelRow<'_>) -> String {
    match row.failed {
        0 => row.valid.to_string(),
        failed => format!("{} of {}", row.valid, row.valid + failed),
    }
}

/// A figure of all rows of a table.
struct Column {
    metric: &'static Metric,
    cells: Vec<Option<Mean>>,
    /// Whether the mean of a row is the best, or not clearly worse.
    best: Vec<bool>,
}

impl Column {
    fn of(metric: &'static Metric, cells: impl Iterator<Item = Option<Mean>>) -> Self {
        let cells: Vec<_> = cells.collect();
        Self { metric, best: best(metric, &cells), cells }
    }

    fn head(&self) -> String {
        format!(">{}\n{}", self.metric.name, self.metric.unit.display().0)
    }

    /// Formats `255.0 ± 1.7`, with `*` or a blank after it, so that the digits are aligned.
    fn cell(&self, row: usize) -> String {
        let Some(Mean { value, interval }) = self.cells[row] else { return "- ".into() };
        let scale = self.metric.unit.display().1;
        let mut text = number(value * scale);
        if let Some(Interval { low, high }) = interval {
            let _ = write!(text, " ± {}", number((high - low) / 2.0 * scale));
        }
        text.push(if self.best[row] { '*' } else { ' ' });
        text
    }
}

/// Finds the best mean, and the others whose interval overlaps its interval: with these figures none
/// of them is clearly worse. A single mean is not marked.
fn best(metric: &Metric, cells: &[Option<Mean>]) -> Vec<bool> {
    let sign = match metric.better {
        Better::Higher => 1.0,
        Better::Lower => -1.0,
        Better::Neither => return vec![false; cells.len()],
    };
    let known = || cells.iter().flatten();
    let best = known().max_by(|a, b| (sign * a.value).total_cmp(&(sign * b.value)));
    let Some(best) = best.filter(|_| known().count() > 1) else { return vec![false; cells.len()] };
    let overlap = |(of, best): (Interval, Interval)| of.low <= best.high && best.low <= of.high;
    let is_best = |mean: &Mean| {
        mean.value == best.value || mean.interval.zip(best.interval).is_some_and(overlap)
    };
    cells.iter().map(|cell| cell.as_ref().is_some_and(is_best)).collect()
}
