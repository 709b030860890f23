//! The comparison of two baselines: a table per group, a row per figure.

use std::collections::BTreeMap;

use llm_stream_core::{
    baseline::{Baseline, GroupBaseline, History, RunFigures, Side},
    comparison::{Change, MIN_HISTORY, SIGNIFICANT},
    group::{LOAD_RUN_VARIATION, PROMPT_RUN_VARIATION},
    interval::CONFIDENCE,
    metric::{Better, Metric, MetricSource},
    statistic::{Absent, Statistic},
    text::counted,
};

use super::{number, table, thresholds};

/// The changes from one baseline to a later one.
#[derive(Debug)]
pub struct BaselineComparison {
    /// The groups of the later baseline in its order, each by its name in reports.
    pub groups: Vec<(String, Result<GroupChanges, String>)>,
    /// The figures that decide; the others are only printed.
    judged: Vec<&'static Metric>,
}

/// The change of a figure.
#[derive(Debug, Clone, PartialEq)]
pub enum FigureChange {
    /// The change and its kind.
    Known {
        /// The change.
        change: Box<Change>,
        /// Its kind.
        kind: ChangeKind,
        /// The prompt that is the reason of a regression, with its relative change.
        prompt: Option<(String, f64)>,
    },
    /// Both means are 0, so that their ratio is undefined.
    BothZero,
    /// The earlier baseline has the figure and the later one does not, for this reason.
    Lost(String),
    /// The earlier baseline does not suffice for a comparison, for this reason.
    Unknown(String),
}

/// The changes of one group.
#[derive(Debug)]
pub struct GroupChanges {
    /// Differences that may affect the figures.
    pub notes: Vec<String>,
    /// The change of the mean of each figure that a baseline has.
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
    /// Compares the runs of `now` with the runs of `before`; a change of `size` or less does not
    /// count, and neither does one of a figure that is not `judged`. The figures that are judged
    /// share the level of significance.
    pub fn of(before: &Baseline, now: &Baseline, size: f64, judged: &[&'static Metric]) -> Self {
        let latest = now.latest();
        let tests = latest.groups.len().max(1) * judged.len().max(1);
        let rules = Rules { size, level: SIGNIFICANT / tests as f64 };
        let group = |group: &GroupBaseline| {
            let histories = before.history(group).and_then(|then| Ok((then, now.history(group)?)));
            let figures = histories.map(|(then, now)| {
                let stored = |of: &History<'_>| -> Vec<GroupBaseline> {
                    of.since_accepted().iter().map(|entry| entry.group.clone()).collect()
                };
                let runs = [stored(&then), stored(&now)];
                let mut notes = then.notes;
                notes.extend(runs[0].last().into_iter().flat_map(|of| partial_figures(of, group)));
                notes.push(variation_note(&runs, group));
                GroupChanges { notes, changes: changes(&runs, group, rules) }
            });
            (group.name.clone(), figures.map_err(|error| error.to_string()))
        };
        Self { groups: latest.groups.iter().map(group).collect(), judged: judged.to_vec() }
    }

    /// Returns whether a judged figure has regressed or is lost, or a group of the later baseline
    /// could not be compared.
    pub fn is_worse(&self) -> bool {
        let is_loss = |change: &FigureChange| {
            matches!(
                change,
                FigureChange::Known { kind: ChangeKind::Regressed, .. } | FigureChange::Lost(_)
            )
        };
        self.groups.iter().any(|(_, figures)| figures.is_err())
            || self.judged_changes().any(is_loss)
    }

    /// Returns whether no judged figure could be compared.
    pub fn compares_nothing(&self) -> bool {
        let mut changes = self.judged_changes();
        !changes.any(|change| matches!(change, FigureChange::Known { .. } | FigureChange::BothZero))
    }

    fn judged_changes(&self) -> impl Iterator<Item = &FigureChange> {
        let groups = self.groups.iter().filter_map(|(_, figures)| figures.as_ref().ok());
        let changes = groups.flat_map(|figures| &figures.changes);
        changes.filter(|(metric, _)| self.judged.contains(metric)).map(|(_, change)| change)
    }
}

/// Describes the figures that some requests or runs lack, then or now, and the prompts that are
/// therefore not compared.
fn partial_figures(then: &GroupBaseline, now: &GroupBaseline) -> Vec<String> {
    let lines = Metric::comparable().filter_map(|metric| {
        let have = [then.have(metric)?, now.have(metric)?];
        let shares = have.map(|(have, could)| format!("{have} of {could}"));
        let is_partial = have.iter().any(|(have, could)| have < could);
        let share = now.min_share();
        let sides = then.side(metric, share).zip(now.side(metric, share));
        let left_out = sides.and_then(|(before, later)| {
            let figures = RunFigures::of(metric, now, &[before.ok()?], &[later.ok()?]);
            (!figures.left_out.is_empty()).then(|| thresholds::format_left_out(&figures.left_out))
        });
        let unit = if matches!(metric.read, MetricSource::Load(_)) { "runs" } else { "requests" };
        let [before, later] = shares;
        let left_out = left_out.map(|left_out| format!("; {left_out}")).unwrap_or_default();
        is_partial.then(|| format!("{}: of {before} {unit}, now of {later}{left_out}", metric.name))
    });
    lines.collect()
}

/// The rules of a comparison.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The change that does not count.
    size: f64,
    /// The level of significance of each figure.
    level: f64,
}

/// The assumed variation between runs of a group. Baselines do not hold the config's.
fn assumed_variation(group: &GroupBaseline) -> f64 {
    if group.is_load() { LOAD_RUN_VARIATION } else { PROMPT_RUN_VARIATION }
}

/// Describes how many runs there are, and whether their variation is assumed.
fn variation_note(runs: &[Vec<GroupBaseline>; 2], group: &GroupBaseline) -> String {
    let [before, now] = runs.each_ref().map(|runs| counted(runs.len(), "run"));
    let share = number(100.0 * assumed_variation(group));
    match runs[0].len() < MIN_HISTORY {
        true => format!(
            "before: {before}, now: {now}; runs are assumed to vary by ± {share} %, {MIN_HISTORY} or more \
             give an estimate"
        ),
        false => format!("before: {before}, now: {now}"),
    }
}

fn changes(
    runs: &[Vec<GroupBaseline>; 2],
    group: &GroupBaseline,
    rules: Rules,
) -> Vec<(&'static Metric, FigureChange)> {
    let figures = Metric::comparable();
    figures.filter_map(|metric| Some((metric, change(runs, group, metric, rules)?))).collect()
}

/// Compares a figure; `None` if no baseline has it. The latest runs decide whether there is one.
fn change(
    [before, now]: &[Vec<GroupBaseline>; 2],
    group: &GroupBaseline,
    metric: &'static Metric,
    rules: Rules,
) -> Option<FigureChange> {
    let share = group.min_share();
    let (then, later) = (before.last()?, now.last()?);
    let unit = if matches!(metric.read, MetricSource::Load(_)) { "runs" } else { "requests" };
    let lack = |absent| match absent {
        Absent::Lacking { lack: 1, all } => format!("1 of {all} {unit} lacks it"),
        Absent::Lacking { lack, all } => format!("{lack} of {all} {unit} lack it"),
        absent => absent.to_string(),
    };
    // A figure that the earlier baseline does not have cannot get worse.
    match (then.side(metric, share), later.side(metric, share)) {
        (None, None) => return None,
        (None, Some(_)) => {
            return Some(FigureChange::Unknown("the earlier baseline lacks it".into()));
        }
        (Some(Err(absent)), _) => {
            return Some(FigureChange::Unknown(format!("before {}", lack(absent))));
        }
        (Some(Ok(_)), None) => return Some(FigureChange::Lost(format!("all {unit} now lack it"))),
        (Some(Ok(_)), Some(Err(absent))) => {
            return Some(FigureChange::Lost(format!("now {}", lack(absent))));
        }
        (Some(Ok(_)), Some(Ok(_))) => {}
    }
    let doubts = |of: &GroupBaseline| {
        let doubts: Vec<_> = of.doubts(metric).iter().map(|(why, _)| why.clone()).collect();
        (!doubts.is_empty()).then(|| format!("it may be wrong: {}", doubts.join("; ")))
    };
    let sides = |runs: &[GroupBaseline]| -> Vec<Side> {
        runs.iter().filter_map(|of| of.side(metric, share)?.ok()).collect()
    };
    Some(match (doubts(then), doubts(later)) {
        (Some(doubts), _) => FigureChange::Unknown(format!("before {doubts}")),
        (None, Some(doubts)) => FigureChange::Lost(format!("now {doubts}")),
        (None, None) => {
            let figures = RunFigures::of(metric, group, &sides(before), &sides(now));
            change_of(metric, &figures, group, rules)
        }
    })
}

/// Compares a figure that both baselines have.
fn change_of(
    metric: &Metric,
    figures: &RunFigures,
    group: &GroupBaseline,
    rules: Rules,
) -> FigureChange {
    let Some((before, now)) = figures.latest_means() else {
        return FigureChange::Lost("no prompt has it in both runs".into());
    };
    if before == 0.0 && now == 0.0 {
        return FigureChange::BothZero;
    }
    if before <= 0.0 {
        let why = "its earlier mean is not above 0, so that a change has no percentage";
        return FigureChange::Unknown(why.into());
    }
    match figures.change(Statistic::Mean, assumed_variation(group), CONFIDENCE) {
        Ok(change) => {
            let kind = kind(metric, &change, figures.uncertainty(Statistic::Mean), rules);
            let is_regression = kind == ChangeKind::Regressed;
            let prompt = is_regression.then(|| slower_prompt(metric, &change, group, rules));
            FigureChange::Known { change: Box::new(change), kind, prompt: prompt.flatten() }
        }
        Err(Absent::TooFew { needs, .. }) if figures.fewest_before() < needs => {
            let has = figures.fewest_before();
            FigureChange::Unknown(format!("too few to compare: it needs n = {needs}, has {has}"))
        }
        Err(absent) => FigureChange::Lost(format!("it {absent}")),
    }
}

/// Returns the kind of `change`; `uncertainty` is the largest difference that late reads can cause.
fn kind(metric: &Metric, change: &Change, uncertainty: f64, rules: Rules) -> ChangeKind {
    let Rules { size, level } = rules;
    let is_larger = |relative: f64, before: f64| {
        relative.abs() > size && (relative * before).abs() > uncertainty
    };
    let is_found = |increases: bool| {
        let is_miss = |relative: f64, before: f64| {
            is_larger(relative, before) && (relative > 0.0) == increases
        };
        change.p_of_miss(increases, is_miss) <= level
    };
    let worse_if_larger = metric.better == Better::Lower;
    let interval = change.interval.widened(uncertainty / change.before);
    match interval.low >= -size && interval.high <= size {
        _ if is_found(worse_if_larger) => ChangeKind::Regressed,
        _ if is_found(!worse_if_larger) => ChangeKind::Improved,
        true => ChangeKind::Same,
        false => ChangeKind::Unclear,
    }
}

/// Returns the prompt that stands out as the reason of a regression, as in the verdicts of a run.
fn slower_prompt(
    metric: &Metric,
    change: &Change,
    group: &GroupBaseline,
    rules: Rules,
) -> Option<(String, f64)> {
    let worse_if_larger = metric.better == Better::Lower;
    let misses = |relative: f64| relative.abs() > rules.size && (relative > 0.0) == worse_if_larger;
    let found = change.outstanding_prompt(worse_if_larger, rules.level, misses)?;
    Some((group.prompt_names().get(found.stratum as usize)?.clone(), found.relative))
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
                let is_judged = |metric: &&'static Metric| comparison.judged.contains(metric);
                let (judged, others): (Vec<_>, Vec<_>) =
                    changes.iter().partition(|(metric, _)| is_judged(metric));
                out.push_str(&rows(&judged, true));
                if !others.is_empty() {
                    out.push_str("  Not judged, since `--figures` does not name them:\n");
                    out.push_str(&rows(&others, false));
                }
            }
        }
    }
    if comparison.compares_nothing() && !comparison.is_worse() {
        out.push_str("\nNo judged figure could be compared: no result\n");
    }
    out
}

fn rows(changes: &[&(&'static Metric, FigureChange)], are_judged: bool) -> String {
    let mut table = table::table(&["figure", "unit", ">before", ">now", ">change in %", ""]);
    let mut unknown: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
    let mut reasons = String::new();
    for (metric, change) in changes {
        let (unit, scale) = metric.unit.display();
        let mut row = |before: f64, now: f64, change: String, kind| {
            let word = if are_judged { format_kind(kind) } else { "" };
            let [before, now] = [before, now].map(|figure| number(figure * scale));
            table.add_row([metric.name, unit, &before, &now, &change, word]);
        };
        match change {
            FigureChange::Known { change, kind, prompt } => {
                row(change.before, change.now, thresholds::format_change(change), *kind);
                if let Some((prompt, relative)) = prompt.as_ref().filter(|_| are_judged) {
                    let reason = thresholds::format_prompt_change(prompt, *relative);
                    reasons.push_str(&format!("  {}: {reason}\n", metric.name));
                }
            }
            FigureChange::BothZero => row(0.0, 0.0, "0".to_owned(), ChangeKind::Same),
            FigureChange::Lost(why) => {
                unknown.entry((are_judged, why)).or_default().push(metric.name);
            }
            FigureChange::Unknown(why) => {
                unknown.entry((false, why)).or_default().push(metric.name);
            }
        }
    }
    let mut out = if table.is_empty() { String::new() } else { table::lines(&table) };
    out.push_str(&reasons);
    for ((fails, why), figures) in unknown {
        let what = if fails { "NOT COMPARED" } else { "not compared" };
        out.push_str(&format!("  {what}, since {why}: {}\n", figures.join(", ")));
    }
    out
}

const fn format_kind(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Regressed => "REGRESSED",
        ChangeKind::Improved => "improved",
        ChangeKind::Same => "same",
        ChangeKind::Unclear => "undecided",
    }
}
