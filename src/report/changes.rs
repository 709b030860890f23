//! Two baselines side by side: a table a model, a row a figure.

use super::{number, table};
use crate::{
    baseline::{Baseline, Kept},
    change::Change,
    interval::CONFIDENCE,
    metric::{Better, METRICS, Metric, Read},
    statistic::Statistic,
};

/// What has changed between two baselines.
#[derive(Debug)]
pub struct Compared {
    /// By group, in the order of the later baseline.
    pub groups: Vec<(String, Result<Figures, String>)>,
}

/// What has changed in one group.
#[derive(Debug)]
pub struct Figures {
    /// What is different and should not be.
    pub notes: Vec<String>,
    /// Each figure that both have, by its mean.
    pub changes: Vec<(&'static Metric, Change, Sort)>,
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
        let group = |now: &Kept| {
            let figures = before
                .group(&now.name)
                .and_then(|then| Ok((then, then.comparable_to(now)?)))
                .map(|(then, notes)| Figures { notes, changes: changes(then, now, size) });
            (now.name.clone(), figures.map_err(|error| error.to_string()))
        };
        Self { groups: now.groups.iter().map(group).collect() }
    }

    /// Whether a figure has regressed, or a group could not be compared.
    pub fn is_worse(&self) -> bool {
        self.groups.iter().any(|(_, figures)| match figures {
            Err(_) => true,
            Ok(figures) => figures.changes.iter().any(|(.., sort)| *sort == Sort::Regressed),
        })
    }
}

fn changes(then: &Kept, now: &Kept, size: f64) -> Vec<(&'static Metric, Change, Sort)> {
    let told = METRICS.iter().filter(|metric| {
        metric.in_summary && metric.better != Better::Neither && !matches!(metric.read, Read::All)
    });
    let change = |metric: &'static Metric| {
        let (before, now) = then.sampled(metric).zip(now.sampled(metric))?;
        let change = Change::of(Statistic::Mean, before, now, CONFIDENCE).ok()?;
        Some((metric, change, sort(metric, &change, size)))
    };
    told.filter_map(change).collect()
}

fn sort(metric: &Metric, change: &Change, size: f64) -> Sort {
    let gain = match metric.better {
        Better::Lower => -change.relative,
        Better::Higher | Better::Neither => change.relative,
    };
    let within = change.interval.low >= -size && change.interval.high <= size;
    match change.is_significant() {
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

fn rows(changes: &[(&'static Metric, Change, Sort)]) -> String {
    let mut table = table::table(&["figure", "unit", ">before", ">now", ">change in %", ""]);
    for (metric, change, sort) in changes {
        let (unit, scale) = metric.unit.display();
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
    table::lines(&table)
}
