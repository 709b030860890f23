//! Steps and slow trends in the runs of a baseline: a table per group, a row per figure.

use llm_stream_core::{
    baseline::{self, Baseline, GroupBaseline, HistoryEntry, StoredRun},
    metric::{Better, Metric},
    statistic::Statistic,
    text::counted,
    trend::{self, FEWEST, Levels, SIGNIFICANT, Trend, TrendKind},
    verdict::significant_levels,
};

use super::{number, table};

/// The search for steps and trends in the runs of a baseline.
#[derive(Debug)]
pub struct HistoryTrends {
    /// The groups of the latest run, each by its name in reports.
    pub groups: Vec<GroupTrends>,
}

/// The series of a group.
#[derive(Debug)]
pub struct GroupTrends {
    /// The name of the group.
    pub name: String,
    /// The names of the runs, oldest first.
    pub runs: Vec<String>,
    /// The runs that are not used, and differences that may affect the figures.
    pub notes: Vec<String>,
    /// The series of each figure that the runs have.
    pub series: Vec<Series>,
}

/// The series of a figure.
#[derive(Debug)]
pub struct Series {
    /// The figure.
    pub metric: &'static Metric,
    /// The index of the run of each value.
    runs: Vec<usize>,
    /// The value of each run, oldest first.
    pub values: Vec<f64>,
    /// The p value of the hypothesis that the order of the runs does not matter, if it was tested.
    pub p: Option<f64>,
    /// The changes, if one is significant.
    pub levels: Option<Levels>,
    /// The change from the best level to the latest one, if the latest is worse by more than the
    /// size.
    pub loss: Option<f64>,
}

impl HistoryTrends {
    /// Searches the runs since the last accepted one. Over all series, the probability of a finding
    /// in unchanged runs is [`SIGNIFICANT`] (Holm 1979). A loss of `size` or less does not count.
    pub fn of(baseline: &Baseline, size: f64, figures: &[&'static Metric]) -> Self {
        let groups = baseline.latest().groups.iter();
        let mut found = Self {
            groups: groups.filter_map(|group| GroupTrends::of(baseline, group, figures)).collect(),
        };
        let series = found.groups.iter().flat_map(|group| &group.series);
        let levels = holm(&series.map(|series| series.p).collect::<Vec<_>>());
        let series = found.groups.iter_mut().flat_map(|group| &mut group.series);
        for (series, level) in series.zip(levels) {
            series.levels = level.and_then(|level| Levels::of(&series.values, level));
            series.loss = series.loss(size);
        }
        found
    }

    /// Returns whether a figure got worse.
    pub fn is_worse(&self) -> bool {
        self.groups.iter().flat_map(|group| &group.series).any(|series| series.loss.is_some())
    }
}

impl GroupTrends {
    fn of(baseline: &Baseline, group: &GroupBaseline, figures: &[&'static Metric]) -> Option<Self> {
        let history = baseline.history(group).ok()?;
        let entries = history.since_accepted();
        let mut notes = history.notes.clone();
        if entries.len() < history.entries.len() {
            let dropped = counted(history.entries.len() - entries.len(), "run");
            notes.push(format!("{dropped} before the last accepted run not used"));
        }
        let series = figures.iter().filter_map(|metric| Series::of(metric, entries, group));
        Some(Self {
            name: group.name.clone(),
            runs: entries.iter().map(|entry| name(entry.run)).collect(),
            notes,
            series: series.collect(),
        })
    }
}

/// Returns the label and the date of a run.
fn name(run: &StoredRun) -> String {
    let date = run.date.map(|date| date.strftime("%Y-%m-%d %H:%M").to_string());
    match (&run.label, date) {
        (Some(label), Some(date)) => format!("{label} ({date})"),
        (Some(label), None) => label.clone(),
        (None, Some(date)) => date,
        (None, None) => "without date".to_owned(),
    }
}

impl Series {
    /// Returns the series of a figure; `None` if no run has it.
    fn of(
        metric: &'static Metric,
        entries: &[HistoryEntry<'_>],
        latest: &GroupBaseline,
    ) -> Option<Self> {
        let groups: Vec<_> = entries.iter().map(|entry| entry.group).collect();
        let figures = baseline::series(&groups, metric, latest.min_share());
        let known = figures.iter().enumerate().filter_map(|(run, value)| Some((run, (*value)?)));
        let (runs, values): (Vec<_>, Vec<_>) = known.unzip();
        let p = trend::test(&values).map(|trend| trend.p);
        (!values.is_empty()).then_some(Self { metric, runs, values, p, levels: None, loss: None })
    }

    /// Returns the change since the best level, if it is worse by more than `size`.
    fn loss(&self, size: f64) -> Option<f64> {
        let lower_is_better = self.metric.better == Better::Lower;
        let (_, change) = self.levels.as_ref()?.since_best(lower_is_better);
        (change.abs() > size).then_some(change)
    }
}

/// Returns the level of each p value that is significant. A series that was not tested has no p value.
fn holm(p_values: &[Option<f64>]) -> Vec<Option<f64>> {
    let tested: Vec<_> = p_values.iter().flatten().copied().collect();
    let mut levels = significant_levels(&tested, SIGNIFICANT).into_iter();
    p_values.iter().map(|p| p.and_then(|_| levels.next().flatten())).collect()
}

/// Formats the tables and the findings.
pub fn render(found: &HistoryTrends) -> String {
    let mut out = String::from("Steps and trends over the stored runs, oldest first\n");
    if found.groups.is_empty() {
        out.push_str("\n  the latest run has no valid request\n");
    }
    for group in &found.groups {
        out.push_str(&format!("\n{}\n", group.name));
        out.push_str(&format!("  {}\n", format_runs(&group.runs)));
        group.notes.iter().for_each(|note| out.push_str(&format!("  note: {note}\n")));
        out.push_str(&rows(group));
        for series in &group.series {
            out.push_str(&findings(series, &group.runs));
        }
    }
    out
}

fn format_runs(runs: &[String]) -> String {
    match runs {
        [] => "no run".to_owned(),
        [only] => format!("1 run: {only}"),
        [first, .., last] => format!("{}: {first} to {last}", counted(runs.len(), "run")),
    }
}

fn rows(group: &GroupTrends) -> String {
    let heads = ["figure", "unit", ">first", ">median", ">last", "series"];
    let row = |Series { metric, values, .. }: &Series| {
        let (unit, scale) = metric.unit.display();
        let of = |value: Option<f64>| value.map_or_else(String::new, |value| number(value * scale));
        let median = Statistic::Median.of(values).ok();
        let [first, last] = [values.first(), values.last()].map(|value| of(value.copied()));
        [metric.name.to_owned(), unit.to_owned(), first, of(median), last]
    };
    let cells: Vec<_> = group.series.iter().map(row).collect();
    let width = |column: usize| {
        let of_cells = cells.iter().map(|row| row[column].chars().count());
        of_cells.max().unwrap_or_default().max(heads[column].trim_start_matches('>').len())
    };
    let room = table::room_beside((0..heads.len() - 1).map(width));
    let mut table = table::table(&heads);
    for (cells, series) in cells.into_iter().zip(&group.series) {
        table.add_row(cells.into_iter().chain([spark(&series.values, room)]));
    }
    if table.is_empty() { String::new() } else { table::lines(&table) }
}

/// Draws the values as bars between the smallest and the largest one. If they do not fit into `room`
/// columns, the latest ones are drawn after `…`.
fn spark(values: &[f64], room: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        });
    let bar = |value: &f64| match high > low {
        true => BARS[((value - low) / (high - low) * 7.0).round() as usize % BARS.len()],
        false => BARS[0],
    };
    let fits = values.len() <= room;
    let shown = if fits { values.len() } else { room.saturating_sub(1) };
    let head = if fits { "" } else { "…" };
    let bars: String = values[values.len() - shown..].iter().map(bar).collect();
    format!("{head}{bars}")
}

/// Formats a line for each change of a figure and one for the result.
fn findings(series: &Series, runs: &[String]) -> String {
    let name = series.metric.name;
    if series.values.len() < FEWEST {
        let has = series.values.len();
        return format!("  {name}: not tested, since it needs {FEWEST} runs and has {has}\n");
    }
    let Some(levels) = &series.levels else {
        return match series.p {
            Some(p) => format!("  {name}: no step and no trend (p = {p:.3})\n"),
            None => format!("  {name}: not tested, since a figure is not above 0\n"),
        };
    };
    let change = |Trend { kind, since, change, p }: &Trend| {
        let kind = match kind {
            TrendKind::Step => "step",
            TrendKind::Slope => "trend",
        };
        let run = series.runs.get(*since).and_then(|run| runs.get(*run));
        let run = run.map_or("", String::as_str);
        let number = since + 1;
        format!(
            "  {name}: {kind} of {:+.1} % since run {number}, {run} (p = {p:.4})\n",
            change * 100.0
        )
    };
    let mut out: String = levels.changes.iter().map(change).collect();
    if let Some(loss) = series.loss {
        let percent = loss * 100.0;
        out.push_str(&format!("  {name}: REGRESSED, {percent:+.1} % since its best level\n"));
    }
    out
}
