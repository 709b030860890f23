//! What each server says about itself: version, models, software.

use std::{collections::BTreeMap, sync::Arc, thread};

use llm_stream_client::discover::{Prober, Reply};
use serde_json::Value;

use crate::{
    plan::{Access, Target},
    preflight,
    setup::ServerRecord,
};

/// Limit of the models in a record: some providers list hundreds.
const MOST_MODELS: usize = 100;

/// Limit of a text of the server, in characters.
const LONGEST: usize = 200;

/// The paths with the version of a server, each with its key: vLLM, llama.cpp, SGLang.
const OF_OPENAI: &[(&str, &str)] =
    &[("/version", "version"), ("/props", "build_info"), ("/get_server_info", "version")];

const OF_OLLAMA: &[(&str, &str)] = &[("/api/version", "version")];

const OF_TGI: &[(&str, &str)] = &[("/info", "version")];

const OF_LLAMACPP: &[(&str, &str)] = &[("/props", "build_info")];

/// Asks each endpoint, all at the same time. An endpoint that does not answer has an empty record.
pub(super) fn of(accesses: &[(Arc<Target>, Access)]) -> Vec<ServerRecord> {
    let mut by_endpoint: BTreeMap<&str, Vec<&(Arc<Target>, Access)>> = BTreeMap::new();
    let real = accesses.iter().filter(|(target, _)| !target.is_simulated());
    for access in real {
        by_endpoint.entry(access.0.endpoint_name()).or_default().push(access);
    }
    thread::scope(|scope| {
        let asking: Vec<_> =
            by_endpoint.into_values().map(|models| scope.spawn(move || ask(&models))).collect();
        asking.into_iter().filter_map(|asked| asked.join().ok().flatten()).collect()
    })
}

/// Asks the endpoint of these models.
fn ask(models: &[&(Arc<Target>, Access)]) -> Option<ServerRecord> {
    let (target, access) = models.first()?;
    let mut record = ServerRecord {
        endpoint: target.endpoint_name().to_owned(),
        models: models.iter().map(|(target, _)| target.name.clone()).collect(),
        version: None,
        lists: Vec::new(),
        software: None,
    };
    fill(&mut record, target, access);
    Some(record)
}

/// Sends the requests, up to the first that gets no answer.
fn fill(record: &mut ServerRecord, target: &Target, access: &Access) {
    let prober = Prober::new(access, target.protocol);
    for url in preflight::model_lists(&access.url, target.protocol) {
        let Ok(reply) = prober.get(&url) else { return };
        record.software = record.software.take().or_else(|| reply.server.as_deref().map(short));
        record.lists = models(&reply);
        if !record.lists.is_empty() {
            break;
        }
    }
    for (path, key) in versions(target) {
        let base = preflight::root_url(&access.url, target.protocol, "");
        let root = base.strip_suffix(target.protocol.prefix()).unwrap_or(&base);
        let url = format!("{root}{path}");
        let Ok(reply) = prober.get(&url) else { return };
        record.version = version(&reply, key);
        if record.version.is_some() {
            return;
        }
    }
}

fn versions(target: &Target) -> &'static [(&'static str, &'static str)] {
    match target.protocol.name() {
        "ollama_chat" => OF_OLLAMA,
        "tgi_generate_stream" => OF_TGI,
        "llamacpp_completion" => OF_LLAMACPP,
        "anthropic_messages" => &[("/version", "version")],
        _ => OF_OPENAI,
    }
}

fn models(reply: &Reply) -> Vec<String> {
    let names = preflight::models_in(reply.status, reply.body.as_bytes()).unwrap_or_default();
    names.iter().take(MOST_MODELS).map(|name| short(name)).collect()
}

fn version(reply: &Reply, key: &str) -> Option<String> {
    let document: Value = serde_json::from_str(&reply.body).ok()?;
    let version = document.get(key)?.as_str()?;
    (reply.status == 200 && !version.is_empty()).then(|| short(version))
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
