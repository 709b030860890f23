//! The parts of a mixed workload. Each is planned like a workload: it has a group with its prompts,
//! figures and thresholds, and it runs together with the others.

use std::sync::Arc;

use llm_stream_core::{prompt::Prompt, text::visible, threshold::Threshold};

use super::{Workload, thresholds, undefined_metrics};
use crate::config::{self, Config, ConfigError, Spanned, mix::part_of_threshold};

/// The thresholds of a workload: those of the whole load, and those of each part.
pub(super) struct MixedThresholds {
    pub(super) whole: Vec<Threshold>,
    parts: Vec<Vec<Threshold>>,
}

impl MixedThresholds {
    pub(super) fn of(
        config: &Config,
        workload: &config::WorkloadConfig,
        errors: &mut Vec<ConfigError>,
    ) -> Self {
        let mut whole = Vec::new();
        let mut parts = vec![Vec::new(); workload.mix.len()];
        for text in &workload.thresholds {
            match part_of_threshold(config, text, &workload.mix) {
                Ok(None) => whole.push(text.clone()),
                Ok(Some(_)) if workload.find.is_some() => {
                    let what = "a part of a search has no figures, so no thresholds";
                    let help = "remove `@` and the name; `subject_to` limits all requests";
                    errors.push(config.error_in(text, what, help));
                }
                Ok(Some((part, begin))) => {
                    let position = workload.mix.iter().position(|of| std::ptr::eq(of, part));
                    let limit = text.value[begin..].to_owned();
                    let limit = Spanned::new(limit, text.referenced, text.defined);
                    parts[position.unwrap_or_default()].push(limit);
                }
                Err(error) => errors.push(error),
            }
        }
        let mut read = |texts: &[Spanned<String>]| {
            let limits = thresholds(config, texts, errors);
            errors.extend(undefined_metrics(config, workload, texts));
            limits
        };
        Self { whole: read(&whole), parts: parts.iter().map(|texts| read(texts)).collect() }
    }
}

/// Returns the parts of `whole`, whose indices follow its own.
pub(super) fn parts(
    whole: &Workload,
    workload: &config::WorkloadConfig,
    limits: MixedThresholds,
) -> Vec<Arc<Workload>> {
    let weights: f64 = workload.mix.iter().map(|part| part.weight).sum();
    let part = |((part, thresholds), nth): ((&config::MixPart, Vec<Threshold>), usize)| {
        let name = visible(&part.name.value);
        let is_in = |prompt: &&Arc<Prompt>| prompt.called().any(|called| *called == *name);
        Arc::new(Workload {
            index: whole.index + 1 + nth,
            name: format!("{}@{name}", whole.name),
            written: format!("{}@{}", whole.written, part.name.value),
            shape: whole.shape,
            search: None,
            until: whole.until,
            phases: whole.phases,
            abort: whole.abort,
            trace: None,
            prompts: whole.prompts.iter().filter(is_in).cloned().collect(),
            runs: whole.runs,
            thresholds,
            goodput: whole.goodput.clone(),
            precision: Vec::new(),
            seed: whole.seed,
            think: whole.think,
            parts: Vec::new(),
            share: part.weight / weights,
        })
    };
    workload.mix.iter().zip(limits.parts).zip(0..).map(part).collect()
}
