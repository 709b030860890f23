//! A baseline from rows: those of `results.csv`, or the trials of a JSON report. Rows do not have the
//! settings of the run.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Baseline, GroupBaseline, LoadRun, Partial, StoredRun};
use crate::{metric::Metric, summary::group_name};

/// A finished request.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// The model's name in the results.
    pub model: String,
    /// The workload's name.
    pub workload: Option<String>,
    /// The prompt's name.
    pub prompt: String,
    /// The run, from 1.
    pub run: u32,
    /// Its figures in base units; `None` if it failed.
    pub figures: Option<Vec<(&'static Metric, f64)>>,
}

/// A run of a load that was the load asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLoad {
    /// The model's name in the results.
    pub model: String,
    /// The workload's name.
    pub workload: String,
    /// Its throughputs in base units.
    pub figures: Vec<(&'static Metric, f64)>,
}

/// The rows of one group.
#[derive(Default)]
struct GroupRows {
    rows: Vec<StoredRow>,
    loads: Vec<StoredLoad>,
}

impl Baseline {
    /// Returns the baseline of a run with these rows. Requests of a workload without a load count
    /// nothing: the load was not the one asked for.
    pub fn of_rows(
        rows: impl IntoIterator<Item = StoredRow>,
        loads: impl IntoIterator<Item = StoredLoad>,
        date: Option<Timestamp>,
    ) -> Self {
        let mut order = Vec::new();
        let mut groups: BTreeMap<(String, Option<String>), GroupRows> = BTreeMap::new();
        for row in rows {
            let key = (row.model.clone(), row.workload.clone());
            if !groups.contains_key(&key) {
                order.push(key.clone());
            }
            groups.entry(key).or_default().rows.push(row);
        }
        for load in loads {
            let key = (load.model.clone(), Some(load.workload.clone()));
            groups.entry(key).or_default().loads.push(load);
        }
        let groups = order.into_iter().filter_map(|key| {
            let rows = groups.remove(&key)?;
            (key.1.is_none() || !rows.loads.is_empty()).then(|| group(key, rows))
        });
        let groups = groups.filter(|group| !group.strata.is_empty()).collect();
        let latest = StoredRun {
            version: String::new(),
            machine: String::new(),
            date,
            label: None,
            accepted: false,
            groups,
        };
        Self { earlier: Vec::new(), latest }
    }
}

fn group((model, workload): (String, Option<String>), of: GroupRows) -> GroupBaseline {
    let GroupRows { rows, loads } = of;
    let failed = rows.iter().filter(|row| row.figures.is_none()).count();
    let mut names: Vec<_> = rows.iter().map(|row| row.prompt.clone()).collect();
    names.sort();
    names.dedup();
    let (mut strata, mut runs) = (Vec::new(), Vec::new());
    let mut columns: BTreeMap<&str, Partial> = BTreeMap::new();
    for StoredRow { prompt, run, figures, .. } in rows {
        let Some(figures) = figures else { continue };
        let place = names.binary_search(&prompt).unwrap_or_default();
        let stratum = u32::try_from(place).unwrap_or(u32::MAX);
        for (metric, value) in figures {
            let column = columns.entry(metric.name).or_default();
            column.values.push(value);
            column.strata.push(stratum);
            column.runs.push(run);
        }
        strata.push(stratum);
        runs.push(run);
    }
    let (mut figures, mut partial) = (BTreeMap::new(), BTreeMap::new());
    for (name, column) in columns {
        match column.values.len() == strata.len() {
            true => drop(figures.insert(name.to_owned(), column.values)),
            false => drop(partial.insert(name.into(), Partial { could: strata.len(), ..column })),
        }
    }
    let loads = throughputs(&loads, &mut figures);
    GroupBaseline {
        name: group_name(&model, workload.as_deref()),
        model: Some(model),
        workload,
        prompts: names.into_iter().map(|name| (name, String::new())).collect(),
        strata,
        runs,
        failed,
        figures,
        partial,
        loads,
        ..GroupBaseline::default()
    }
}

/// Adds the throughputs that every run of the load has to `figures`, a value each, and returns them
/// by run.
fn throughputs(
    loads: &[StoredLoad],
    figures: &mut BTreeMap<String, Vec<f64>>,
) -> BTreeMap<String, Vec<LoadRun>> {
    let mut by_metric: BTreeMap<String, Vec<LoadRun>> = BTreeMap::new();
    for (load, run) in loads.iter().zip(1..) {
        for (metric, value) in &load.figures {
            let runs = by_metric.entry(metric.name.to_owned()).or_default();
            runs.push(LoadRun { run, value: *value, batches: 1 });
        }
    }
    by_metric.retain(|_, runs| runs.len() == loads.len());
    let values = |(name, runs): (&String, &Vec<LoadRun>)| {
        (name.clone(), runs.iter().map(|run| run.value).collect())
    };
    figures.extend(by_metric.iter().map(values));
    by_metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistic::Statistic;

    fn row(prompt: &str, run: u32, ttft: Option<f64>) -> StoredRow {
        let figures = ttft.map(|ttft| {
            let mut figures = vec![(Metric::TTFT, ttft)];
            figures.extend((run == 1).then_some((Metric::TPOT, 0.5)));
            figures
        });
        StoredRow { model: "M".into(), workload: None, prompt: prompt.into(), run, figures }
    }

    #[test]
    fn rows_have_the_values_of_the_run_but_not_its_settings() {
        let rows = [
            row("b", 1, Some(1.0)),
            row("a", 1, Some(2.0)),
            row("b", 2, Some(3.0)),
            row("a", 2, None),
        ];
        let baseline = Baseline::of_rows(rows, [], None);
        let [group] = &baseline.latest().groups[..] else { panic!() };
        assert_eq!((group.name.as_str(), group.failed), ("M", 1));
        let side = group.side(Metric::TTFT, 0.5).unwrap().unwrap();
        assert_eq!(
            (side.values(), side.strata(), side.runs()),
            (&[1.0, 2.0, 3.0][..], &[1, 0, 1][..], &[1, 1, 2][..])
        );
        assert_eq!(group.side(Metric::TPOT, 0.5).unwrap().unwrap().values(), [0.5, 0.5]);
        assert_eq!(Statistic::Mean.of(side.values()), Ok(2.0));
        // A run with known settings can be compared with it.
        let mut known = group.clone();
        known.setting.insert("max_tokens".into(), "8".into());
        known.prompts = vec![("a".into(), "1f".into()), ("b".into(), "2f".into())];
        for (then, now) in [(group, &known), (&known, group)] {
            let notes = then.comparable_to(now).unwrap();
            assert!(notes[0].starts_with("the settings of"), "{notes:?}");
        }
        known.prompts.pop();
        assert!(group.comparable_to(&known).is_err());
    }

    #[test]
    fn a_load_that_was_not_the_one_asked_for_is_left_out() {
        let of = |workload: &str| StoredRow {
            workload: Some(workload.into()),
            ..row("a", 1, Some(1.0))
        };
        let load = |throughput| StoredLoad {
            model: "M".into(),
            workload: "c2".into(),
            figures: vec![(Metric::REQUEST_THROUGHPUT, throughput)],
        };
        let baseline = Baseline::of_rows([of("c1"), of("c2")], [load(5.0), load(7.0)], None);
        let [group] = &baseline.latest().groups[..] else { panic!() };
        assert_eq!(group.name, "M, c2");
        let side = group.side(Metric::REQUEST_THROUGHPUT, 0.5).unwrap().unwrap();
        assert_eq!(side.of_runs(), [(1, 5.0), (2, 7.0)]);
    }
}
