//! `llm-stream-bench check`: the plan of a config, without a request.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use llm_stream_client::proxy;
use llm_stream_core::{schedule::Shape, text::counted, threshold::Threshold};

use crate::{
    cli::{CheckOptions, Cli},
    config::{self, DataNote},
    plan::{Endpoint, Plan, Target, Transport, Workload, requirements::requests_of},
    preflight,
};

/// Limit of the prompts that are named.
const NAMED: usize = 12;

/// A valid config.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The warnings about data sets.
    pub(crate) notes: Vec<String>,
    /// The plan.
    pub(crate) text: String,
}

/// Validates the config and describes its plan.
pub(crate) fn run(options: &CheckOptions, cli: &Cli) -> anyhow::Result<Checked> {
    let config = super::load(&options.config, cli)?;
    let plan = Plan::new(&config, &cli.overrides())?;
    let notes = config.data.iter().flat_map(DataNote::lines).collect();
    let parts = [
        format!("{} is valid.\n", config.file()),
        models(&plan),
        prompts(&plan),
        workloads(&plan),
        trials(&plan),
        undecidable(&plan),
        variables(&plan),
    ];
    Ok(Checked { notes, text: parts.concat() })
}

fn models(plan: &Plan) -> String {
    let mut text = format!("\nModels: {}\n", plan.targets.len());
    for target in &plan.targets {
        let _ = write!(text, "  {}\n{}", target.name, model(target));
    }
    text
}

fn model(target: &Target) -> String {
    let mut lines = vec![("endpoint", target.endpoint_name().to_owned())];
    if !target.is_simulated() {
        lines.push(("model", target.model.clone()));
    }
    lines.push(("protocol", target.protocol.name().to_owned()));
    lines.push(("transport", transport(target)));
    if !target.thresholds.is_empty() {
        lines.push(("thresholds", thresholds(&target.thresholds)));
    }
    lines.iter().map(|(name, value)| format!("    {name:<10}  {value}\n")).collect()
}

fn transport(target: &Target) -> String {
    let name = target.transport.name();
    let through = match (&target.endpoint, target.transport, &target.network.proxy) {
        (Endpoint::Url(_), Transport::Reqwest, Some(config::ProxySetting::Through(_))) => {
            Some("`proxy`".to_owned())
        }
        (Endpoint::Url(url), Transport::Reqwest, None) => {
            proxy::proxy_variable(url).map(str::to_owned)
        }
        _ => None,
    };
    match (through, target.bypassed_proxy()) {
        (Some(proxy), _) => format!("{name}, through the proxy of {proxy}"),
        (None, Some(variable)) => format!("{name}, bypasses the proxy of {variable}"),
        (None, None) => name.to_owned(),
    }
}

fn thresholds(thresholds: &[Threshold]) -> String {
    thresholds.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn prompts(plan: &Plan) -> String {
    // A data set may have thousands of records.
    let mut names: Vec<(String, usize)> = Vec::new();
    for prompt in &plan.prompts {
        let name = prompt.set.clone().unwrap_or_else(|| prompt.name.clone());
        match names.last_mut().filter(|(last, _)| *last == name && prompt.set.is_some()) {
            Some((_, count)) => *count += 1,
            None => names.push((name, 1)),
        }
    }
    let (named, more) = names.split_at(names.len().min(NAMED));
    let name = |(name, count): &(String, usize)| match count {
        1 => name.clone(),
        count => format!("{name} ({})", counted(*count, "record")),
    };
    let named: Vec<_> = named.iter().map(name).collect();
    let more = match more.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("\nPrompts: {}\n  {}{more}\n", plan.prompts.len(), named.join(", "))
}

fn workloads(plan: &Plan) -> String {
    if plan.workloads.is_empty() {
        return String::new();
    }
    let mut text = format!("\nWorkloads: {}\n", plan.workloads.len());
    for workload in &plan.workloads {
        let _ = writeln!(text, "  {}\n    load        {}", workload.name, load(workload));
        let _ = writeln!(text, "    prompts     {}", workload.prompts.len());
        let _ = writeln!(text, "    runs        {}", workload.runs);
        if !workload.thresholds.is_empty() {
            let _ = writeln!(text, "    thresholds  {}", thresholds(&workload.thresholds));
        }
    }
    text
}

fn load(workload: &Workload) -> String {
    let limit = match workload.shape {
        Shape::Closed { .. } => String::new(),
        Shape::Open { max_in_flight, .. } => format!(", at most {max_in_flight} in flight"),
    };
    format!("{}{limit}", workload.load())
}

fn trials(plan: &Plan) -> String {
    let mut text = format!("\nTrials: {}\n", plan.cases.len());
    let prompts = plan.cases.iter().filter(|case| case.task.workload().is_none()).count();
    if prompts > 0 {
        let _ = writeln!(
            text,
            "  {prompts} of single prompts: {} × {} × {}",
            counted(plan.targets.len(), "model"),
            counted(plan.prompts.len(), "prompt"),
            counted(plan.runs as usize, "run"),
        );
    }
    if prompts < plan.cases.len() {
        let _ = writeln!(text, "  {} of workloads", plan.cases.len() - prompts);
    }
    let _ = writeln!(text, "  order: {}", plan.order);
    if plan.most_runs > 1.0 {
        let goal = if has_goals(plan) { " or an interval too wide" } else { "" };
        let _ = writeln!(
            text,
            "  up to {} × as many while a threshold is undecided{goal} (max_runs)",
            plan.most_runs
        );
    }
    if let Some(most) = plan.max_time {
        let _ = writeln!(text, "  no additional run ends later than {most:.0?} after the start");
    }
    text + &requests(plan)
}

/// Whether a model or workload has a goal of precision.
fn has_goals(plan: &Plan) -> bool {
    plan.cases.iter().any(|case| !case.group.precision.is_empty())
}

/// The thresholds that the plan cannot decide.
fn undecidable(plan: &Plan) -> String {
    let lines = plan.undecidable(None).into_iter().map(|limit| format!("  {limit}\n"));
    let lines: String = lines.collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("\nThresholds that cannot be decided:\n{lines}"),
    }
}

/// Estimates the number of requests, and names those that cannot be counted beforehand.
fn requests(plan: &Plan) -> String {
    let of_cases = plan.cases.iter().filter_map(|case| requests_of(&case.task)).sum::<usize>();
    let preflight: usize = plan
        .targets
        .iter()
        .filter(|target| !target.is_simulated())
        .map(|target| preflight::questions(target, &plan.cases).len())
        .sum();
    let warm_up = if plan.warm_up { plan.targets.len() } else { 0 };
    let most = most_requests(plan);
    let range = |least: usize, most: usize| match least == most {
        true => least.to_string(),
        false => format!("{least} to {most}"),
    };
    let others = warm_up + preflight;
    let mut text = format!(
        "\nRequests: about {}\n  {} of trials, {warm_up} of warm-up, {preflight} of the preflight\n",
        range(of_cases + others, most + others),
        range(of_cases, most),
    );
    if plan.cases.iter().any(|case| requests_of(&case.task).is_none()) {
        text.push_str("  plus those of workloads that only `duration` ends\n");
    }
    let is_sized = |prompt: &Arc<llm_stream_core::prompt::Prompt>| {
        prompt.synthetic.as_ref().is_some_and(|synthetic| synthetic.tokenizer.is_none())
    };
    if plan.prompts.iter().any(is_sized) {
        text.push_str("  plus a few for the length of each synthetic prompt\n");
    }
    text
}

/// The most requests of trials: additional runs are of groups with thresholds or goals of precision.
fn most_requests(plan: &Plan) -> usize {
    let requests = plan.cases.iter().map(|case| {
        let first = plan.first_runs(case.task.workload().map(|workload| &**workload));
        let can_grow = !case.thresholds().is_empty() || !case.group.precision.is_empty();
        let most = (f64::from(first) * plan.most_runs).ceil() / f64::from(first);
        let factor = if can_grow { most } else { 1.0 };
        requests_of(&case.task).unwrap_or_default() as f64 * factor
    });
    requests.sum::<f64>().round() as usize
}

/// Lists the environment variables that the models require, and whether they are set. Values are
/// not printed.
fn variables(plan: &Plan) -> String {
    let mut needed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for target in plan.targets.iter().filter(|target| !target.is_simulated()) {
        let key = target.api_key_env.iter().map(|name| name.value.as_str());
        let headers = target.headers.iter().map(|(_, value)| value);
        let query = target.network.query.iter().map(|(_, value)| value);
        let proxy = target.network.proxy.iter().filter_map(|proxy| match proxy {
            config::ProxySetting::Through(url) => Some(url),
            config::ProxySetting::None => None,
        });
        let templates = headers.chain(query).chain(proxy);
        for name in key.chain(templates.flat_map(config::EnvTemplate::variables)) {
            let models = needed.entry(name).or_default();
            if models.last() != Some(&target.name.as_str()) {
                models.push(&target.name);
            }
        }
    }
    if needed.is_empty() {
        return "\nEnvironment variables: none required\n".to_owned();
    }
    let mut text = "\nEnvironment variables:\n".to_owned();
    for (name, models) in needed {
        let state = match crate::env::is_set(name) {
            true => "set",
            false => "not set or empty: `run` requires it",
        };
        let _ = writeln!(text, "  {name} ({}): {state}", models.join(", "));
    }
    text
}
