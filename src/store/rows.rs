//! Baselines of runs that have no values to compare with: from `results.csv`, or from the trials of
//! a JSON report.

use std::{collections::HashMap, fs::File, path::Path};

use anyhow::Context as _;
use jiff::Timestamp;
use llm_stream_core::{
    baseline::{Baseline, StoredLoad, StoredRow},
    metric::{METRICS, Metric, MetricSource},
};

use crate::{
    report::json::model::{ByName, RunReport, TrialReport, TrialReports},
    whole_file,
};

/// Reads the rows of `results.csv`, and of `results.workloads.csv` next to it if there is one.
pub(super) fn of_csv(path: &Path) -> anyhow::Result<Baseline> {
    let windows = windows(path)?;
    let mut table = Table::open(path)?;
    let (mut rows, mut date) = (Vec::new(), None::<Timestamp>);
    while let Some(row) = table.next_row()? {
        let started = row.get("timestamp").and_then(|date| date.parse().ok());
        date = [date, started].into_iter().flatten().min();
        let window = row.get("trial").and_then(|trial| windows.get(trial));
        if let (Some((from, to)), Some(begun)) = (window, row.number("begun")?)
            && !(*from..=*to).contains(&begun)
        {
            continue;
        }
        let request = row.request()?;
        // A request of a part of a mix is also one of the whole load.
        if let Some(part) = row.get("part") {
            rows.push(StoredRow { workload: Some(part.to_owned()), ..request.clone() });
        }
        rows.push(request);
    }
    let loads = loads_next_to(path, |row| {
        Ok(StoredLoad {
            model: row.required("model_name")?,
            workload: row.required("workload")?,
            figures: row.figures(|read| matches!(read, MetricSource::Load(_)))?,
        })
    })?;
    Ok(Baseline::of_rows(rows, loads, date))
}

/// Returns the measured parts of loads of which not all was measured, by trial: from when to when a
/// request had to start, in seconds.
fn windows(results: &Path) -> anyhow::Result<HashMap<String, (f64, f64)>> {
    let windows = loads_next_to(results, |row| {
        let window = row.number("measured_from")?.zip(row.number("measured_to")?);
        window.map(|window| Ok((row.required("trial")?, window))).transpose()
    })?;
    Ok(windows.into_iter().flatten().collect())
}

/// Returns the loads next to `results` that were the load asked for: the trial, and how busy the
/// receiving thread was.
pub(super) fn valid_loads(results: &Path) -> anyhow::Result<Vec<(String, Option<f64>)>> {
    loads_next_to(results, |row| Ok((row.required("trial")?, row.number("receiver_busy")?)))
}

/// Reads the loads next to `results` that were the load asked for; without such a file, none.
fn loads_next_to<T>(
    results: &Path,
    read: impl Fn(&TableRow<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let mut table = match Table::open(&results.with_extension("workloads.csv")) {
        Ok(table) => table,
        Err(error) if whole_file::is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut loads = Vec::new();
    while let Some(row) = table.next_row()? {
        if row.get("valid") == Some("true") {
            loads.push(read(&row)?);
        }
    }
    Ok(loads)
}

/// A CSV file with a header.
struct Table {
    reader: csv::Reader<File>,
    header: csv::StringRecord,
    record: csv::StringRecord,
    file: String,
}

/// A row of a table.
struct TableRow<'a>(&'a Table);

impl Table {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = path.display().to_string();
        let opened = File::open(path).with_context(|| format!("cannot read {file}"))?;
        let mut reader = csv::Reader::from_reader(opened);
        let header = reader.headers().with_context(|| format!("cannot use {file}"))?.clone();
        anyhow::ensure!(
            header.iter().any(|name| name == "model_name"),
            "cannot use {file}: it has no column `model_name`, so it is not the results of a run"
        );
        Ok(Self { reader, header, record: csv::StringRecord::new(), file })
    }

    fn next_row(&mut self) -> anyhow::Result<Option<TableRow<'_>>> {
        let read = self.reader.read_record(&mut self.record);
        let is_row = read.with_context(|| format!("cannot use {}", self.file))?;
        Ok(is_row.then_some(TableRow(self)))
    }
}

impl TableRow<'_> {
    /// Returns a cell that is not empty.
    fn get(&self, name: &str) -> Option<&str> {
        let place = self.0.header.iter().position(|known| known == name)?;
        self.0.record.get(place).filter(|cell| !cell.is_empty())
    }

    fn required(&self, name: &str) -> anyhow::Result<String> {
        let cell = self.get(name).with_context(|| self.problem(name, "it is empty"))?;
        // Names that begin like a formula have an apostrophe in front.
        Ok(cell.strip_prefix('\'').unwrap_or(cell).to_owned())
    }

    fn problem(&self, column: &str, what: &str) -> String {
        let line = self.0.record.position().map_or(0, csv::Position::line);
        format!("cannot use {}:{line}: column `{column}`: {what}", self.0.file)
    }

    fn number(&self, column: &str) -> anyhow::Result<Option<f64>> {
        let Some(cell) = self.get(column) else { return Ok(None) };
        let number = cell.parse().ok().filter(|number: &f64| number.is_finite());
        let number = number.with_context(|| self.problem(column, "it is not a number"))?;
        Ok(Some(number))
    }

    fn figures(
        &self,
        is_wanted: impl Fn(&MetricSource) -> bool,
    ) -> anyhow::Result<Vec<(&'static Metric, f64)>> {
        let mut figures = Vec::new();
        for metric in METRICS.iter().filter(|metric| is_wanted(&metric.read)) {
            let names = [Some(metric.name), metric.alias];
            for name in names.into_iter().flatten() {
                if let Some(value) = self.number(name)? {
                    figures.push((metric, value));
                    break;
                }
            }
        }
        Ok(figures)
    }

    fn request(&self) -> anyhow::Result<StoredRow> {
        let run = self.number("run")?.unwrap_or(1.0);
        let is_valid = self.get("success") == Some("true");
        let figures =
            is_valid.then(|| self.figures(|read| matches!(read, MetricSource::Sample(_))));
        Ok(StoredRow {
            model: self.required("model_name")?,
            workload: self.get("workload").map(str::to_owned),
            prompt: self.get("prompt").unwrap_or_default().to_owned(),
            run: run as u32,
            figures: figures.transpose()?,
        })
    }
}

/// Returns the baseline of the trials of a report. A load has no requests there.
pub(super) fn of_report(report: &RunReport<'_>) -> Baseline {
    let TrialReports::Stored(trials) = &report.trials else {
        return Baseline::of_rows([], [], None);
    };
    let rows = trials.iter().filter(|trial| trial.workload.is_none()).map(row);
    let date = trials.iter().filter_map(|trial| trial.started.parse().ok()).min();
    Baseline::of_rows(rows, [], date)
}

fn row(trial: &TrialReport<'_>) -> StoredRow {
    StoredRow {
        model: trial.model.clone().into_owned(),
        workload: None,
        prompt: trial.prompt.as_deref().unwrap_or_default().to_owned(),
        run: trial.run,
        figures: trial.failure.is_none().then(|| figures(&trial.figures)),
    }
}

fn figures(by_name: &ByName<f64>) -> Vec<(&'static Metric, f64)> {
    let figure = |(name, value): &(String, f64)| Some((Metric::named(name)?, *value));
    by_name.0.iter().filter_map(figure).collect()
}
