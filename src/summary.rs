//! Rows → [`Summary`]: what a model's trials say together. Pure.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    metric::{Metric, SUCCESS_RATE},
    plan::{Case, Target},
    recording::{ErrorKind, RequestError},
    sample::Sample,
    statistic::{Absent, Statistic},
};

/// One finished trial.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was asked.
    pub case: Arc<Case>,
    /// When the request was begun, by the wall clock.
    pub started: Timestamp,
    /// What came.
    pub outcome: Result<Sample, RequestError>,
}

/// All models of a run, in the config's order.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// One entry for each model that was selected.
    pub models: Vec<ModelSummary>,
}

/// One model's trials.
#[derive(Debug, Clone)]
pub struct ModelSummary {
    /// The model.
    pub target: Arc<Target>,
    /// Trials that were selected.
    pub planned: usize,
    /// Failures by kind.
    pub failures: BTreeMap<ErrorKind, usize>,
    /// The valid trials.
    pub samples: Vec<Sample>,
}

impl Summary {
    /// Gathers `rows` by the models of `cases`, the trials that were selected.
    pub fn new(cases: &[Arc<Case>], rows: &[Row]) -> Self {
        let mut models: Vec<ModelSummary> = Vec::new();
        for case in cases {
            match models.iter_mut().find(|model| Arc::ptr_eq(&model.target, &case.target)) {
                Some(model) => model.planned += 1,
                None => models.push(ModelSummary::of(&case.target, rows)),
            }
        }
        Self { models }
    }

    /// The models by mean `generation_speed`, fastest first; those without one last, as they came.
    pub fn ranking(&self) -> Vec<&ModelSummary> {
        let mut ranked: Vec<_> = self.models.iter().collect();
        ranked.sort_by(|a, b| b.speed().total_cmp(&a.speed()));
        ranked
    }

    /// Trials that finished.
    pub fn finished(&self) -> usize {
        self.models.iter().map(ModelSummary::finished).sum()
    }

    /// Trials that failed.
    pub fn failed(&self) -> usize {
        self.models.iter().map(ModelSummary::failed).sum()
    }
}

impl ModelSummary {
    fn of(target: &Arc<Target>, rows: &[Row]) -> Self {
        let mut failures = BTreeMap::new();
        let mut samples = Vec::new();
        for row in rows.iter().filter(|row| Arc::ptr_eq(&row.case.target, target)) {
            match &row.outcome {
                Ok(sample) => samples.push(sample.clone()),
                Err(error) => *failures.entry(error.kind).or_default() += 1,
            }
        }
        Self { target: target.clone(), planned: 1, failures, samples }
    }

    /// Trials that failed.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Trials that finished, well or not.
    pub fn finished(&self) -> usize {
        self.samples.len() + self.failed()
    }

    /// The figure of each valid trial that has it.
    pub fn values(&self, metric: &Metric) -> Vec<f64> {
        self.samples.iter().filter_map(metric.read).collect()
    }

    /// `statistic` of `metric` over the valid trials, in the metric's base unit.
    ///
    /// A figure that some valid trials lack is absent as a whole: the rest would be a selection.
    pub fn figure(&self, metric: &Metric, statistic: Statistic) -> Result<f64, Absent> {
        if metric.name == SUCCESS_RATE.name {
            return self.success_rate();
        }
        let values = self.values(metric);
        match self.samples.len() {
            0 => Err(Absent::NoValidTrial { failed: self.failed() }),
            all if values.len() < all => Err(Absent::Lacking { lack: all - values.len(), all }),
            _ => statistic.of(&values),
        }
    }

    fn success_rate(&self) -> Result<f64, Absent> {
        match self.finished() {
            0 => Err(Absent::NoValidTrial { failed: 0 }),
            all => Ok(100.0 * self.samples.len() as f64 / all as f64),
        }
    }

    /// Mean `generation_speed`, for the ranking; below every speed when there is none.
    fn speed(&self) -> f64 {
        Metric::named("generation_speed")
            .and_then(|metric| self.figure(metric, Statistic::Mean).ok())
            .unwrap_or(-1.0)
    }
}
