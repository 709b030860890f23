//! The data of a model and its workload for summaries, verdicts and baselines.

use std::collections::BTreeMap;

use llm_stream_core::{
    baseline::hash,
    group::{GroupId, GroupSpec, LOAD_RUN_VARIATION, PROMPT_RUN_VARIATION, WorkloadSpec},
    sample::TokenCount,
    trace::{PromptLengths, TraceFormat},
};

use super::{Target, Workload, absent_figures, counterparts};
use crate::config::RunVariation;

/// Returns the group of `target` with single prompts, or under `workload`.
pub(super) fn spec(target: &Target, workload: Option<&Workload>) -> GroupSpec {
    GroupSpec {
        id: GroupId { model: target.index, workload: workload.map(|workload| workload.index) },
        model: target.name.clone(),
        served_model: target.model.clone(),
        endpoint: target.endpoint_names(),
        is_simulated: target.is_simulated(),
        protocol: target.protocol.name(),
        transport: target.transport.name(),
        connection: target.connection.name(),
        prefix_cache: target.prefix_cache.name(),
        workload: workload.map(|workload| workload_spec(target, workload)),
        thresholds: counterparts::without_itself(
            target,
            workload.map_or(&target.thresholds, |workload| &workload.thresholds),
        ),
        goodput: workload.map(|workload| workload.goodput.clone()).unwrap_or_default(),
        precision: absent_figures::goals_for(
            target,
            workload.map_or(&target.precision, |workload| &workload.precision).clone(),
        ),
        min_share: target.min_share,
        run_variation: run_variation(target, workload),
        settings: settings(target, workload),
    }
}

/// The variation between runs that `target` is assumed to have one by one, or under a workload.
fn run_variation(target: &Target, workload: Option<&Workload>) -> f64 {
    let RunVariation { prompts, workloads } = target.run_variation;
    match workload {
        None => prompts.unwrap_or(PROMPT_RUN_VARIATION),
        Some(_) => workloads.unwrap_or(LOAD_RUN_VARIATION),
    }
}

fn workload_spec(target: &Target, workload: &Workload) -> WorkloadSpec {
    let Workload { name, shape, until, phases, prompts, .. } = workload;
    let prompts = prompts.iter().map(|prompt| prompt.name.clone()).collect();
    let search = workload.search.as_ref().map(|(search, _)| search.clone());
    let trace = workload.trace.as_ref().map(|replay| {
        let has_tokenizer =
            replay.vocabulary.is_some() || matches!(target.token_count, TokenCount::Tokenizer(_));
        match (replay.trace.format, has_tokenizer) {
            (TraceFormat::Bodies, _) => PromptLengths::Recorded,
            (_, true) => PromptLengths::Exact,
            (_, false) => PromptLengths::Approximate,
        }
    });
    let part = (workload.share < 1.0).then_some(workload.share);
    WorkloadSpec {
        name: name.clone(),
        shape: *shape,
        search,
        until: *until,
        phases: *phases,
        prompts,
        trace,
        part,
    }
}

fn part_share(workload: &Workload) -> Option<String> {
    (workload.share < 1.0).then(|| format!("{:.4}", workload.share))
}

/// Returns the settings that must be equal in two runs for their figures to be comparable.
fn settings(target: &Target, workload: Option<&Workload>) -> BTreeMap<String, String> {
    let mut settings = vec![
        ("transport", target.transport.name().to_owned()),
        ("protocol", target.protocol.name().to_owned()),
        (
            "temperature",
            target.temperature.map_or_else(|| "not sent".into(), |value| value.to_string()),
        ),
        ("max_tokens", target.max_tokens.to_string()),
        ("extra_body", hash(&serde_json::to_string(&target.extra_body).unwrap_or_default())),
        ("tools", target.tools.identity().map_or_else(|| "none".into(), |tools| hash(&tools))),
        ("prefix_cache", target.prefix_cache.name().to_owned()),
        ("connection", target.connection.name().to_owned()),
        ("token_count", target.token_count.name().to_owned()),
    ];
    if !target.protocol.is_streamed() && !target.protocol.has_items() {
        settings.push(("stream", "false".to_owned()));
    }
    if target.batch > 1 {
        settings.push(("batch", target.batch.to_string()));
    }
    // Otherwise each prompt decides.
    if let Some(ignores) = target.ignore_eos {
        settings.push(("ignore_eos", ignores.to_string()));
    }
    if let Some(workload) = workload {
        settings.push(("load", workload.load()));
        let shares = workload.parts.iter().map(|part| format!("{}: {:.4}", part.name, part.share));
        let shares: Vec<_> = shares.chain(part_share(workload)).collect();
        if !shares.is_empty() {
            settings.push(("mix", format!("{}, seed {}", shares.join(", "), workload.seed)));
        }
        if let Some(think) = workload.think {
            settings.push(("think", format!("{think} ms, seed {}", workload.seed)));
        }
        if let Some(replay) = &workload.trace {
            settings.push(("trace", replay.identity.clone()));
        }
        if !workload.goodput.is_empty() {
            settings.push(("goodput", workload.goodput.to_string()));
        }
    }
    settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
