//! Limits on figures that the answers of a model cannot have.

use std::sync::Arc;

use llm_stream_core::{metric::Metric, precision::PrecisionGoal, threshold::Threshold};

use super::Target;
use crate::config::{self, Config, ConfigError, Spanned};

/// Finds limits that none of the answers of a target can meet, because it lacks the figure.
pub(super) fn limits(config: &Config, targets: &[Arc<Target>]) -> Vec<ConfigError> {
    // `goodput` of the top level is for the loads without their own.
    let has_default = config.workloads.iter().any(|load| load.goodput.is_none());
    let goodput = has_default.then_some(&config.goodput);
    let shared = [Some(&config.thresholds), goodput].into_iter().flatten();
    let of_load = |load: &config::WorkloadConfig| {
        let searched = load.find.iter().flat_map(|find| &find.subject_to);
        let goodput = load.goodput.iter().flatten();
        let limits = load.thresholds.iter().chain(goodput).chain(searched);
        limits.cloned().collect::<Vec<_>>()
    };
    let loads = config.workloads.iter().flat_map(of_load);
    let shared: Vec<_> = shared.flatten().cloned().chain(loads).collect();
    let shared = shared.iter().filter_map(|text| refusal(config, text, targets));
    let own = targets.iter().flat_map(|target| {
        let texts = &config.models[target.index].settings.over(&config.defaults).thresholds;
        let one = std::slice::from_ref(target);
        texts.iter().filter_map(|text| refusal(config, text, one)).collect::<Vec<_>>()
    });
    let mut errors: Vec<_> = shared.chain(own).collect();
    errors.dedup_by_key(|error| error.to_string());
    errors
}

/// Returns the error for a limit on a figure that a target lacks.
fn refusal(
    config: &Config,
    text: &Spanned<String>,
    targets: &[Arc<Target>],
) -> Option<ConfigError> {
    let metric = metric_of(&text.value)?;
    let why = targets.iter().find_map(|target| {
        let (protocol, name) = (target.protocol, &target.name);
        match protocol.has_items() {
            true if metric.is_of_generated_tokens() => {
                Some(format!("the answers of `{name}` are not generated text"))
            }
            false if metric.is_of_items() => {
                Some(format!("the answers of `{name}` are not embeddings or scores"))
            }
            _ if !protocol.is_streamed() && metric.needs_stream() => {
                Some(format!("the answers of `{name}` are not streamed"))
            }
            _ => None,
        }
    })?;
    let what = format!("{why}, so that they have no `{}`", metric.name);
    let help = match metric.needs_stream() {
        true => {
            "limit `e2e`, the time of the whole answer, or write the limit into the models that \
             stream"
        }
        false => "write the limit into the models whose answers have the figure",
    };
    Some(config.error_in(text, &what, help))
}

/// Returns the metric of a limit, which may begin with the part of a mix.
fn metric_of(text: &str) -> Option<&'static Metric> {
    let parsed = |text: &str| Threshold::parse(text).ok().map(|limit| limit.metric);
    let words = || text.trim_start().strip_prefix('@')?.split_once(char::is_whitespace);
    parsed(text).or_else(|| parsed(words()?.1))
}

/// Returns `goals` with those on figures that the answers of `target` lack replaced by one on the time
/// of the whole answer.
pub(super) fn goals_for(target: &Target, mut goals: Vec<PrecisionGoal>) -> Vec<PrecisionGoal> {
    if target.protocol.is_streamed() {
        return goals;
    }
    let lacking = goals.iter().find(|goal| goal.metric.needs_stream()).copied();
    goals.retain(|goal| !goal.metric.needs_stream());
    let has_e2e = goals.iter().any(|goal| goal.metric == Metric::E2E);
    let goal =
        lacking.filter(|_| !has_e2e).map(|goal| PrecisionGoal { metric: Metric::E2E, ..goal });
    goals.extend(goal);
    goals
}
