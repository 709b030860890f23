//! Models that thresholds compare with: `generation_speed >= -3 % of MODEL`.

use llm_stream_core::threshold::{Against, Threshold};

use super::{Plan, PlanError, Target, quoted, simulated_name};
use crate::config::{self, Config, ConfigError, Spanned, list, nearest};

/// Replaces the model's name in the threshold `text` by its name in results.
pub(super) fn resolve(
    config: &Config,
    text: &Spanned<String>,
    mut threshold: Threshold,
) -> Result<Threshold, ConfigError> {
    if threshold.against == Against::Baseline {
        return refuse_ambiguous(config, text).map(|()| threshold);
    }
    let Against::Model(name) = &threshold.against else { return Ok(threshold) };
    let is_called =
        |model: &&config::Model| model.is_called(name) || name_in_results(model) == *name;
    let found = config.models.iter().find(is_called);
    let Some(found) = found else {
        let names: Vec<_> =
            config.models.iter().map(|model| model.display_name().value.as_str()).collect();
        let help = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the models are {}; stored runs are `of baseline`", list(&names)),
        };
        let offset = text.value.rfind(name.as_str()).unwrap_or_default();
        let what = format!("no model `{name}` to compare with");
        return Err(config.error_at_name(text, offset, name, &what, &help));
    };
    threshold.against = Against::Model(name_in_results(found));
    Ok(threshold)
}

/// Refuses `% of baseline` where a model has that name: it could mean the model or the stored runs.
fn refuse_ambiguous(config: &Config, text: &Spanned<String>) -> Result<(), ConfigError> {
    const NAME: &str = "baseline";
    if !config.models.iter().any(|model| model.is_called(NAME)) {
        return Ok(());
    }
    let offset = text.value.rfind(NAME).unwrap_or_default();
    let what = "`baseline` is a model here, and the word for stored runs";
    let help =
        "write `` % of `baseline` `` for the model; for stored runs give the model another name";
    Err(config.error_at_name(text, offset, NAME, what, help))
}

/// Refuses thresholds that stand in a model and compare it with itself.
pub(super) fn of_itself(config: &Config, model: &config::Model) -> Vec<ConfigError> {
    let name = name_in_results(model);
    let compares = |text: &&Spanned<String>| {
        let threshold = Threshold::parse(&text.value).ok();
        let resolved = threshold.and_then(|threshold| resolve(config, text, threshold).ok());
        resolved.is_some_and(|threshold| threshold.against == Against::Model(name.clone()))
    };
    let error = |text: &Spanned<String>| {
        let what = "a model cannot be compared with itself";
        config.error_in(text, what, "name the other model, or `of baseline` for stored runs")
    };
    model.settings.thresholds.iter().filter(compares).map(error).collect()
}

fn name_in_results(model: &config::Model) -> String {
    let display = &model.display_name().value;
    match model.endpoint {
        config::EndpointConfig::Simulate(_) => simulated_name(display),
        config::EndpointConfig::Server { .. } => display.clone(),
    }
}

/// The thresholds of a model, without those that compare it with itself.
pub(super) fn without_itself(target: &Target, thresholds: &[Threshold]) -> Vec<Threshold> {
    let is_itself = |limit: &&Threshold| limit.against == Against::Model(target.written.clone());
    thresholds.iter().filter(|limit| !is_itself(limit)).cloned().collect()
}

impl Plan {
    /// Fails if a selected model is compared with a model outside the selection: the threshold could not
    /// be checked.
    pub fn check_counterparts(&self) -> Result<(), PlanError> {
        for case in &self.cases {
            for (group, limit) in
                case.groups().flat_map(|of| of.thresholds.iter().map(move |limit| (of, limit)))
            {
                let Against::Model(other) = &limit.against else { continue };
                let is_measured = self.cases.iter().any(|of| {
                    of.target.written == *other
                        && of.groups().any(|other| other.id.workload == group.id.workload)
                });
                if !is_measured {
                    return Err(PlanError::MissingCounterpart {
                        model: case.target.name.clone(),
                        threshold: limit.to_string(),
                        other: quoted(std::slice::from_ref(other)),
                    });
                }
            }
        }
        Ok(())
    }
}
