//! The comparison of two baselines: a table per group, a row per figure.

use std::collections::BTreeMap;

use llm_stream_core::{
    baseline::{Baseline, GroupBaseline},
    comparison::Change,
    interval::CONFIDENCE,
    metric::{Better, METRICS, Metric, MetricSource},
    statistic::{Absent, Statistic},
};

use super::{number, table, thresholds};

/// The changes from one baseline to a later one.
#[derive(Debug)]
pub struct BaselineComparison {
    /// The groups of the later baseline in its order, each by its name in reports.
    pub groups: Vec<(String, Result<GroupChanges, String>)>,
}

/// The change of a figure and its kind, or why it is unknown.
pub type FigureChange = Result<(Change, ChangeKind), String>;

/// The changes of one group.
#[derive(Debug)]
pub struct GroupChanges {
    /// Differences that may affect the figures.
    pub notes: Vec<String>,
    /// The change of the mean of each figure that the earlier baseline has.
    pub changes: Vec<(&'static Metric, FigureChange)>,
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Worse by more than the size, and significant.
    Regressed,
    /// Better by more than the size, and significant.
    Improved,
    /// Within the size, with its whole interval.
    Same,
    /// None of these is certain.
    Unclear,
}

impl BaselineComparison {
    /// Compares `now` with `before`; a change of `size` or less does not count.
    pub fn of(before: &Baseline, now: &Baseline, size: f64) -> Self {
        let group = |now: &GroupBaseline| {
            let figures = before
                .group(now)
                .and_then(|then| Ok((then, then.comparable_to(now)?)))
                .map(|(then, mut notes)| {
                    notes.extend(partial_figures(then, now));
                    GroupChanges { notes, changes: changes(then, now, size) }
                });
            (now.name.clone(), figures.map_err(|error| error.to_string()))
        };
        Self { groups: now.latest().groups.iter().map(group).collect() }
    }

    /// Returns whether a figure has regressed, or a group or figure of the earlier baseline could not be
    /// compared.
    pub fn is_worse(&self) -> bool {
        self.groups.iter().any(|(_, figures)| match figures {
            Err(_) => true,
            Ok(figures) => figures.changes.iter().any(|(_, change)| match change {
                Ok((_, kind)) => *kind == ChangeKind::Regressed,
                Err(_) => true,
            }),
        })
    }
}

/// Describes the figures that some requests or runs lack, then or now, and the prompts that are
/// therefore not compared.
fn partial_figures(then: &GroupBaseline, now: &GroupBaseline) -> Vec<String> {
    let lines = compared_metrics().filter_map(|metric| {
        let have = [then.have(metric)?, now.have(metric)?];
        let shares = have.map(|(have, could)| format!("{have} of {could}"));
        let is_partial = have.iter().any(|(have, could)| have < could);
        let share = now.min_share();
        let sides = then.side(metric, share).zip(now.side(metric, share));
        let left_out = sides.and_then(|(before, later)| {
            let pair = now.pair(before.ok()?, later.ok()?);
            (!pair.left_out.is_empty()).then(|| thresholds::format_left_out(&pair.left_out))
        });
        let unit = if matches!(metric.read, MetricSource::Load(_)) { "runs" } else { "requests" };
        let [before, later] = shares;
        let left_out = left_out.map(|left_out| format!("; {left_out}")).unwrap_or_default();
        is_partial.then(|| format!("{}: of {before} {unit}, now of {later}{left_out}", metric.name))
    });
    lines.collect()
}

/// Returns the metrics that can get worse.
fn compared_metrics() -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().filter(|metric| {
        metric.in_summary
            && metric.better != Better::Neither
            && !matches!(metric.read, MetricSource::All)
    })
}

fn changes(
    then: &GroupBaseline,
    now: &GroupBaseline,
    size: f64,
) -> Vec<(&'static Metric, FigureChange)> {
    let change = |metric: &'static Metric| {
        // A figure that the earlier baseline does not have cannot get worse.
        let share = now.min_share();
        let before = then.side(metric, share)?.ok()?;
        let unit = if matches!(metric.read, MetricSource::Load(_)) { "runs" } else { "requests" };
        let lack = |absent| match absent {
            Absent::Lacking { lack: 1, all } => format!("1 of {all} {unit} now lacks it"),
            Absent::Lacking { lack, all } => format!("{lack} of {all} {unit} now lack it"),
            absent => absent.to_string(),
        };
        let later = now.side(metric, share).ok_or(format!("all {unit} now lack it"));
        let changed = later.and_then(|later| later.map_err(lack)).and_then(|later| {
            undoubted(then, now, metric)?;
            let pair = now.pair(before, later);
            let (before, later) = (pair.before.stratified(), pair.now.stratified());
            let change = Change::of(Statistic::Mean, before, later, CONFIDENCE);
            let change = change.map_err(|why| format!("it {why}"))?;
            Ok((change, kind(metric, &change, size, pair.uncertainty(Statistic::Mean))))
        });
        Some((metric, changed))
    };
    compared_metrics().filter_map(change).collect()
}

/// Fails if the figure may be wrong in either run.
fn undoubted(then: &GroupBaseline, now: &GroupBaseline, metric: &Metric) -> Result<(), String> {
    let of = |when: &str, baseline: &GroupBaseline| {
        let doubts: Vec<_> = baseline.doubts(metric).iter().map(|(why, _)| why.clone()).collect();
        (!doubts.is_empty()).then(|| format!("{when} it may be wrong: {}", doubts.join("; ")))
    };
    of("before", then).or_else(|| of("now", now)).map_or(Ok(()), Err)
}

/// Returns the kind of `change`; `uncertainty` is the largest difference that late reads can cause.
fn kind(metric: &Metric, change: &Change, size: f64, uncertainty: f64) -> ChangeKind {
    let gain = match metric.better {
        Better::Lower => -change.relative,
        Better::Higher | Better::Neither => change.relative,
    };
    let interval = change.interval.widened(uncertainty / change.before);
    let within = interval.low >= -size && interval.high <= size;
    let is_larger = (change.now - change.before).abs() > uncertainty;
    match change.is_significant() && is_larger {
        true if gain < -size => ChangeKind::Regressed,
        true if gain > size => ChangeKind::Improved,
        _ if within => ChangeKind::Same,
        _ => ChangeKind::Unclear,
    }
}

/// Formats the tables.
pub fn render(comparison: &BaselineComparison) -> String {
    let mut out = String::from("Changes of means, with their 95 % intervals\n");
    if comparison.groups.is_empty() {
        out.push_str("\n  the later baseline has no valid request\n");
    }
    for (name, figures) in &comparison.groups {
        out.push_str(&format!("\n{name}\n"));
        match figures {
            Err(why) => out.push_str(&format!("  not comparable: {why}\n")),
            Ok(GroupChanges { notes, changes }) => {
                notes.iter().for_each(|note| out.push_str(&format!("  note: {note}\n")));
                out.push_str(&rows(changes));
            }
        }
    }
    out
}

fn rows(changes: &[(&'static Metric, FigureChange)]) -> String {
    let mut table = table::table(&["figure", "unit", ">before", ">now", ">change in %", ""]);
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (metric, change) in changes {
        let (unit, scale) = metric.unit.display();
        let (change, kind) = match change {
            Ok(change) => change,
            Err(why) => {
                unknown.entry(why).or_default().push(metric.name);
                continue;
            }
        };
        let word = match kind {
            ChangeKind::Regressed => "REGRESSED",
            ChangeKind::Improved => "improved",
            ChangeKind::Same => "same",
            ChangeKind::Unclear => "",
        };
        table.add_row([
            metric.name.to_owned(),
            unit.to_owned(),
            number(change.before * scale),
            number(change.now * scale),
            thresholds::format_change(change),
            word.to_owned(),
        ]);
    }
    let mut out = if table.is_empty() { String::new() } else { table::lines(&table) };
    for (why, figures) in unknown {
        out.push_str(&format!("  NOT COMPARED, since {why}: {}\n", figures.join(", ")));
    }
    out
}
