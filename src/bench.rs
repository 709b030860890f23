//! Runs a config from code: what `cargo bench` does, without a terminal, libtest or files.

use std::path::Path;

use llm_stream_client::memory::MemoryBudget;
use llm_stream_core::baseline::Baseline;

use crate::{
    calibrate,
    config::{Config, ConfigErrors, Inconclusive},
    plan::{Overrides, Plan, PlanError, access},
    report::Run,
    run::{self, Accesses, Cancellation, Measured, Observer, RunOptions, Runner},
    setup::{Invocation, Setup},
};

/// A config that is ready to be measured.
///
/// ```no_run
/// use llm_stream_bench::{Bench, Overrides};
///
/// let run = Bench::from_file("configs.yaml")?
///     .overrides(Overrides { runs: Some(5), ..Overrides::default() })
///     .run(&mut ())?;
/// assert!(run.passed(), "{:?}", run.reasons());
/// # Ok::<(), llm_stream_bench::BenchError>(())
/// ```
#[derive(Debug)]
pub struct Bench {
    config: Config,
    overrides: Overrides,
    filters: Vec<String>,
    baseline: Option<Baseline>,
    inconclusive: Option<Inconclusive>,
    preflight: bool,
    checks_instrument: bool,
    cancellation: Cancellation,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The config cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The config and the overrides make no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No trial has one of the filters in its name.
    #[error("no trial has {0} in its name")]
    NothingSelected(String),
}

impl Bench {
    /// Reads a config from a file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, BenchError> {
        Ok(Self::new(Config::load(path.as_ref())?))
    }

    /// Reads a config from text. Files that it names are looked for in the current folder.
    pub fn from_yaml(yaml: &str) -> Result<Self, BenchError> {
        Ok(Self::new(Config::parse(yaml, "<yaml>", Path::new("."))?))
    }

    fn new(config: Config) -> Self {
        Self {
            config,
            overrides: Overrides::default(),
            filters: Vec::new(),
            baseline: None,
            inconclusive: None,
            preflight: true,
            checks_instrument: true,
            cancellation: Cancellation::default(),
        }
    }

    /// Overrides keys of the config.
    #[must_use]
    pub fn overrides(self, overrides: Overrides) -> Self {
        Self { overrides, ..self }
    }

    /// Runs only the trials with `filter` in their names, `MODEL::PROMPT::run-N`; of several
    /// filters, those with any.
    #[must_use]
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filters.push(filter.into());
        self
    }

    /// Judges relative thresholds by this run; without it they are not judged.
    #[must_use]
    pub fn baseline(self, baseline: Baseline) -> Self {
        Self { baseline: Some(baseline), ..self }
    }

    /// What becomes of a run with inconclusive thresholds; default: the config's `inconclusive`.
    #[must_use]
    pub fn inconclusive(self, inconclusive: Inconclusive) -> Self {
        Self { inconclusive: Some(inconclusive), ..self }
    }

    /// Whether every endpoint is asked once before the first trial; default: yes.
    #[must_use]
    pub fn preflight(self, preflight: bool) -> Self {
        Self { preflight, ..self }
    }

    /// Whether the instrument's own error is measured and counts; default: yes.
    #[must_use]
    pub fn checks_instrument(self, checks_instrument: bool) -> Self {
        Self { checks_instrument, ..self }
    }

    /// Ends the run early when `cancellation` is cancelled.
    #[must_use]
    pub fn cancellation(self, cancellation: Cancellation) -> Self {
        Self { cancellation, ..self }
    }

    /// Returns what [`run`](Self::run) will do, without a request.
    pub fn plan(&self) -> Result<Plan, BenchError> {
        let plan = Plan::new(&self.config, &self.overrides)?;
        let is_selected = |name: &str| {
            self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
        };
        let plan = plan.select(|case| is_selected(&case.name));
        plan.check_counterparts()?;
        match plan.cases.is_empty() {
            true => Err(BenchError::NothingSelected(format!("`{}`", self.filters.join("` or `")))),
            false => Ok(plan),
        }
    }

    /// Measures, and tells `observer` what happens.
    pub fn run(self, observer: &mut dyn Observer) -> Result<Run, BenchError> {
        let plan = self.plan()?;
        let accesses = accesses(&self.config, &plan)?;
        let setup = Setup::of(&self.config, &accesses, &Invocation::this(), run::today());
        let options = RunOptions {
            accesses,
            setup: Some(Box::new(setup)),
            preflight: self.preflight,
            checks_instrument: self.checks_instrument,
            baseline: self.baseline,
            machine: calibrate::machine_name(),
            kept: None,
            temporary_folder: None,
            cancellation: self.cancellation,
        };
        let Measured { mut run, failed } = Runner::new(plan, options, observer).run();
        run.decide(failed, self.inconclusive.unwrap_or(self.config.inconclusive), Vec::new());
        Ok(run)
    }
}

/// Keys and all else that the selected models need of the environment. An error here saves minutes.
pub(crate) fn accesses(config: &Config, plan: &Plan) -> Result<Accesses, ConfigErrors> {
    let (mut accesses, mut errors) = (Accesses::new(), Vec::new());
    let memory = MemoryBudget::new(plan.max_memory);
    for target in plan.selected_targets() {
        match access::of(&target, config) {
            Ok(mut access) => {
                access.route.memory = memory.clone();
                accesses.push((target, access));
            }
            Err(more) => errors.extend(more),
        }
    }
    // An error of `defaults` is met once for each model.
    let mut seen = std::collections::HashSet::new();
    errors.retain(|error| seen.insert(error.to_string()));
    match errors.is_empty() {
        true => Ok(accesses),
        false => Err(ConfigErrors(errors)),
    }
}
