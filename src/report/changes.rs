//! Two baselines side by side: a table a model, a row a figure.

use std::collections::BTreeMap;

use llm_stream_core::{
    baseline::{Baseline, GroupBaseline},
    comparison::Change,
    interval::CONFIDENCE,
    metric::{Better, METRICS, Metric, MetricSource},
    statistic::{Absent, Statistic},
};

use super::{number, table};

/// What has changed between two baselines.
#[derive(Debug)]
pub struct Compared {
    /// By group, in the order of the later baseline.
    pub groups: Vec<(String, Result<Figures, String>)>,
}

/// What has changed of a figure and what sort of change it is, or why that is not known.
pub type Changed = Result<(Change, Sort), String>;

/// What has changed in one group.
#[derive(Debug)]
pub struct Figures {
    /// What is different and should not be.
    pub notes: Vec<String>,
    /// Each figure that either has, by its mean: what has changed, or why that is not known.
    pub changes: Vec<(&'static Metric, Changed)>,
}

/// What a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Worse by more than the size, and significantly so.
    Regressed,
    /// Better, likewise.
    Improved,
    /// Within the size, with all of its interval.
    Same,
    /// None of these can be told.
    Unclear,
}

impl Compared {
    /// Compares `now` with `before`; a change of `size` or less is none.
    pub fn of(before: &Baseline, now: &Baseline, size: f64) -> Self {
        let group = |now: &GroupBaseline| {
            let figures = before
                .group(now)
                .and_then(|then| Ok((then, then.comparable_to(now)?)))
                .map(|(then, mut notes)| {
                    notes.extend(partly(then, now));
                    Figures { notes, changes: changes(then, now, size) }
                });
            (now.name.clone(), figures.map_err(|error| error.to_string()))
        };
        Self { groups: now.groups.iter().map(group).collect() }
    }

    /// Whether a figure has regressed, or a group or a figure that there was could not be compared.
    pub fn is_worse(&self) -> bool {
        self.groups.iter().any(|(_, figures)| match figures {
            Err(_) => true,
            Ok(figures) => figures.changes.iter().any(|(_, change)| match change {
                Ok((_, sort)) => *sort == Sort::Regressed,
                Err(_) => true,
            }),
        })
    }
}

/// The figures that some requests or runs lack, then or now, and the prompts that are not compared
/// for it.
fn partly(then: &GroupBaseline, now: &GroupBaseline) -> Vec<String> {
    let lines = shown().filter_map(|metric| {
        let have = [then.have(metric)?, now.have(metric)?];
        let shares = have.map(|(have, could)| format!("{have} of {could}"));
        let is_partial = have.iter().any(|(have, could)| have < could);
        let share = now.min_share();
        let sides = then.side(metric, share).zip(now.side(metric, share));
        let left_out = sides.and_then(|(before, later)| {
            let pair = now.pair(before.ok()?, later.ok()?);
            (!pair.left_out.is_empty()).then(|| super::thresholds::without(&pair.left_out))
        });
        let unit = if matches!(metric.read, MetricSource::Load(_)) { "runs" } else { "requests" };
        let [before, later] = shares;
        let left_out = left_out.map(|left_out| format!("; {left_out}")).unwrap_or_default();
        is_partial.then(|| format!("{}: of {before} {unit}, now of {later}{left_out}", metric.name))
    });
    lines.collect()
}

/// The figures that can get worse.
fn shown() -> impl Iterator<Item = &'static Metric> {
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
) -> Vec<(&'static Metric, Changed)> {
    let change = |metric: &'static Metric| {
        // A figure that there was not is no change for the worse.
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
            doubted(then, now, metric)?;
            let pair = now.pair(before, later);
            let (before, later) = (pair.before.stratified(), pair.now.stratified());
            let change = Change::of(Statistic::Mean, before, later, CONFIDENCE);
            let change = change.map_err(|why| format!("it {why}"))?;
            Ok((change, sort(metric, &change, size, pair.uncertainty(Statistic::Mean))))
        });
        Some((metric, changed))
    };
    shown().filter_map(change).collect()
}

/// An error if the figure may be wrong in either run.
fn doubted(then: &GroupBaseline, now: &GroupBaseline, metric: &Metric) -> Result<(), String> {
    let of = |when: &str, kept: &GroupBaseline| {
        let doubts: Vec<_> = kept.doubts(metric).iter().map(|(why, _)| why.clone()).collect();
        (!doubts.is_empty()).then(|| format!("{when} it may be wrong: {}", doubts.join("; ")))
    };
    of("before", then).or_else(|| of("now", now)).map_or(Ok(()), Err)
}

/// What `change` is; `uncertainty` is how large a difference may be by what is known of arrivals.
fn sort(metric: &Metric, change: &Change, size: f64, uncertainty: f64) -> Sort {
    let gain = match metric.better {
        Better::Lower => -change.relative,
        Better::Higher | Better::Neither => change.relative,
    };
    let interval = change.interval.widened(uncertainty / change.before);
    let within = interval.low >= -size && interval.high <= size;
    let is_larger = (change.now - change.before).abs() > uncertainty;
    match change.is_significant() && is_larger {
        true if gain < -size => Sort::Regressed,
        true if gain > size => Sort::Improved,
        _ if within => Sort::Same,
        _ => Sort::Unclear,
    }
}

/// The tables.
pub fn render(compared: &Compared) -> String {
    let mut out = String::from("Changes of means, with their 95 % intervals\n");
    if compared.groups.is_empty() {
        out.push_str("\n  the later baseline has no valid request\n");
    }
    for (name, figures) in &compared.groups {
        out.push_str(&format!("\n{name}\n"));
        match figures {
            Err(why) => out.push_str(&format!("  not comparable: {why}\n")),
            Ok(Figures { notes, changes }) => {
                notes.iter().for_each(|note| out.push_str(&format!("  note: {note}\n")));
                out.push_str(&rows(changes));
            }
        }
    }
    out
}

fn rows(changes: &[(&'static Metric, Changed)]) -> String {
    let mut table = table::table(&["figure", "unit", ">before", ">now", ">change in %", ""]);
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (metric, change) in changes {
        let (unit, scale) = metric.unit.display();
        let (change, sort) = match change {
            Ok(change) => change,
            Err(why) => {
                unknown.entry(why).or_default().push(metric.name);
                continue;
            }
        };
        let word = match sort {
            Sort::Regressed => "REGRESSED",
            Sort::Improved => "improved",
            Sort::Same => "same",
            Sort::Unclear => "",
        };
        table.add_row([
            metric.name.to_owned(),
            unit.to_owned(),
            number(change.before * scale),
            number(change.now * scale),
            super::thresholds::changed(change),
            word.to_owned(),
        ]);
    }
    let mut out = if table.is_empty() { String::new() } else { table::lines(&table) };
    for (why, figures) in unknown {
        out.push_str(&format!("  NOT COMPARED, since {why}: {}\n", figures.join(", ")));
    }
    out
}
