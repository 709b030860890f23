//! `simulate`: the script of a simulated endpoint.

use llm_stream_sim::{Fault, FaultKind, Script, ScriptError, ServerCapacity};

use super::{
    keys::Section,
    reader::{Entry, Fields, Reader},
    suggest::did_you_mean,
    workloads::rate_up_to,
    yaml::Yaml,
};

/// The most prompt tokens per second.
const MOST_PREFILL: f64 = 1e9;

pub(super) fn simulate(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Script {
    if entry.value.value == Yaml::Null {
        reader.error(entry, "`simulate` has no value", "write `simulate: {}` for its defaults");
        return Script::default();
    }
    let before = reader.mistakes();
    let fields = reader.fields(entry, Section::Simulate);
    let default = Script::default();
    let faults = fields.get("faults").map_or_else(Vec::new, |entry| faults(reader, entry));
    let timings = fields.get("timings").and_then(|entry| reader.flag(entry));
    let mut time = |name| reader.duration(fields.get(name)?);
    let (ttft, itl, jitter) = (time("ttft"), time("itl"), time("jitter"));
    let capacity = capacity(reader, &fields);
    let mut count = |name| reader.whole(fields.get(name)?);
    let simulate = Script {
        ttft: ttft.unwrap_or(default.ttft),
        itl: itl.unwrap_or(default.itl),
        jitter: jitter.unwrap_or(default.jitter),
        capacity,
        tokens: count("tokens").unwrap_or(default.tokens),
        tokens_per_event: count("tokens_per_event").unwrap_or(default.tokens_per_event),
        reasoning_tokens: count("reasoning_tokens").unwrap_or(default.reasoning_tokens),
        cached_tokens: count("cached_tokens").unwrap_or(default.cached_tokens),
        timings: timings.unwrap_or(default.timings),
        seed: count("seed").unwrap_or(default.seed),
        faults,
    };
    if reader.mistakes() == before {
        for ScriptError { field, what, help } in simulate.errors() {
            reader.error(fields.get(field).unwrap_or(entry), what, help);
        }
    }
    simulate
}

/// The capacity of the endpoint, if it has `slots`. It then decides the times that `ttft` and `itl`
/// would.
fn capacity(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<ServerCapacity> {
    let entry = fields.get("slots")?;
    for script in ["ttft", "itl"].into_iter().filter_map(|name| fields.get(name)) {
        let what = format!("{} cannot be combined with `slots`", script.label);
        let help = "a server with `slots` takes the times of `prefill_rate` and `decode`; remove \
                    one of them";
        reader.error_at_key(script, what, help);
    }
    let default = ServerCapacity::default();
    let slots = reader.whole(entry);
    let prefill = fields.get("prefill_rate").map(|entry| rate_up_to(reader, entry, MOST_PREFILL));
    let decode = fields.get("decode").map(|entry| {
        let fields = reader.fields(entry, Section::Decode);
        let mut time = |name| reader.duration(fields.get(name)?);
        (time("base"), time("per_running"))
    });
    let (base, per_running) = decode.unwrap_or_default();
    let kv_tokens = fields.get("kv_tokens").map(|entry| reader.whole(entry));
    Some(ServerCapacity {
        slots: slots?,
        prefill_rate: prefill.unwrap_or(Some(default.prefill_rate))?,
        base: base.unwrap_or(default.base),
        per_running: per_running.unwrap_or(default.per_running),
        kv_tokens: kv_tokens.map(|tokens| tokens.unwrap_or(u64::MAX)),
    })
}

fn faults(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<Fault> {
    let items = reader.list(entry, "a list of faults", "[{ stall: 10 }, missing_usage]");
    items.iter().filter_map(|item| fault(reader, item)).collect()
}

fn fault(reader: &mut Reader<'_>, item: &Entry<'_>) -> Option<Fault> {
    if let Yaml::Text(word) = &item.value.value {
        let kind = bare_fault(reader, item, word)?;
        return Some(Fault { kind, request: None });
    }
    let fields = reader.fields(item, Section::Fault);
    let request = fields.get("request").and_then(|entry| reader.whole(entry));
    let mut kinds = fields.iter().filter(|(name, _)| *name != "request");
    let Some((name, entry)) = kinds.next() else {
        if fields.meant.is_empty() && matches!(item.value.value, Yaml::Map(_)) {
            reader.error(
                item,
                "this entry has no fault",
                "for example `- { stall: 10, request: 2 }`",
            );
        }
        return None;
    };
    if let Some((_, second)) = kinds.next() {
        reader.error_at_key(second, "one entry has two faults", "give each fault its own `-`");
    }
    let kind = fault_kind(reader, name, entry)?;
    Some(Fault { kind, request })
}

/// A fault that is a word by itself.
fn bare_fault(reader: &mut Reader<'_>, item: &Entry<'_>, word: &str) -> Option<FaultKind> {
    let flag = FaultKind::flag(word);
    if flag.is_none() {
        let faults = fault_names();
        let known = Section::Fault.key(word).filter(|key| faults.contains(&key.name));
        let (what, help) = match known {
            Some(key) => (
                format!("`{word}` requires a number"),
                format!("for example `- {word}: {}`", key.example),
            ),
            None => (format!("unknown fault `{word}`"), did_you_mean(word, &faults)),
        };
        reader.error(item, what, help);
    }
    flag
}

/// The fault `name` of a map.
fn fault_kind(reader: &mut Reader<'_>, name: &str, entry: &Entry<'_>) -> Option<FaultKind> {
    if let Some(kind) = FaultKind::flag(name) {
        if entry.value.value != Yaml::Bool(true) {
            reader.wrong(entry, "`true`", "true");
        }
        return Some(kind);
    }
    FaultKind::with_number(name, reader.whole(entry)?)
}

/// The names of the faults: the keys of an entry of which exactly one must be there.
fn fault_names() -> Vec<&'static str> {
    Section::Fault.info().one_of.concat()
}
