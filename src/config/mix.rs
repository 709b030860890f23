//! `mix` of a workload: groups of prompts by weight, and the thresholds of one of them.

use std::collections::HashSet;

use serde_saphyr::Spanned;

use super::{
    Config,
    reader::{Entry, Reader},
    source::ConfigError,
    suggest::did_you_mean,
    yaml::Yaml,
};

/// A part of a mix.
#[derive(Debug, Clone)]
pub struct MixPart {
    /// The name of a prompt or a data set.
    pub name: Spanned<String>,
    /// Its weight, above 0: the part gets this share of the sum of all weights.
    pub weight: f64,
}

/// Reads `mix`: two or more of the `known` names of prompts with their weights.
pub(super) fn mix(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    known: &[String],
) -> Option<Vec<MixPart>> {
    let mistakes = reader.mistakes();
    let named = reader.map(entry, "a map of prompts with their weights", entry.example());
    let mut parts = Vec::new();
    for (name, field) in named {
        reader.remember(&field);
        if !known.is_empty() && !known.iter().any(|prompt| prompt == name) {
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            let help = did_you_mean(name, &known);
            reader.error_at_key(&field, format!("unknown prompt `{name}`"), help);
        }
        if let Some(weight) = weight(reader, &field) {
            let key = field.key;
            let name = Spanned::new(name.to_owned(), key.referenced, key.defined);
            parts.push(MixPart { name, weight });
        }
    }
    if reader.mistakes() > mistakes {
        return None;
    }
    if parts.len() < 2 {
        let help = "for one group of prompts write `prompts`";
        reader.error(entry, "`mix` has fewer than two parts", help);
        return None;
    }
    Some(parts)
}

fn weight(reader: &mut Reader<'_>, field: &Entry<'_>) -> Option<f64> {
    let number = match field.value.value {
        Yaml::Int(number) => number as f64,
        Yaml::Float(number) => number,
        _ => f64::NAN,
    };
    if number > 0.0 && number <= 1e9 {
        return Some(number);
    }
    let what = format!("the weight {} must be a number above 0", field.label);
    reader.error(field, what, "for example `mix: { chat: 70, rag: 20, code: 10 }`");
    None
}

/// Splits a threshold of a mixed workload: `@chat ttft p95 <= 1 s` is a limit of the part `chat`.
/// Returns the part and the byte at which the limit begins; `None` for a limit of the whole load.
pub(crate) fn part_of_threshold<'p>(
    config: &Config,
    text: &Spanned<String>,
    parts: &'p [MixPart],
) -> Result<Option<(&'p MixPart, usize)>, ConfigError> {
    let value = &text.value;
    let blank = value.len() - value.trim_start().len();
    let Some(named) = value[blank..].strip_prefix('@') else { return Ok(None) };
    // A name can contain blanks, and be the beginning of another one.
    let is_named = |part: &&MixPart| {
        let rest = named.strip_prefix(part.name.value.as_str());
        rest.is_some_and(|rest| rest.starts_with(char::is_whitespace))
    };
    if let Some(part) = parts.iter().filter(is_named).max_by_key(|part| part.name.value.len()) {
        let rest = &named[part.name.value.len()..];
        let limit = rest.trim_start();
        return Ok(Some((part, value.len() - limit.len())));
    }
    let word = named.split_whitespace().next().unwrap_or_default();
    let names: Vec<_> = parts.iter().map(|part| part.name.value.as_str()).collect();
    let (what, help) = match names.is_empty() {
        true => (
            format!("`@{word}` names a part, and the workload has no `mix`"),
            "remove it, or add `mix: { chat: 70, rag: 30 }`".to_owned(),
        ),
        false => (format!("`mix` has no part `{word}`"), did_you_mean(word, &names)),
    };
    Err(config.error_at_name(text, blank + 1, word, &what, &help))
}

/// Finds prompts that are in two parts of a mix: their requests would count for both.
pub(super) fn overlaps(config: &Config) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for workload in &config.workloads {
        let mut taken: HashSet<&str> = HashSet::new();
        for part in &workload.mix {
            let mut of_part = config
                .prompts
                .iter()
                .flatten()
                .filter(|prompt| prompt.prompt.called().any(|name| name == part.name.value));
            let is_taken = of_part.any(|prompt| !taken.insert(prompt.name.value.as_str()));
            if is_taken {
                let what = format!("prompts of `{}` are also in another part", part.name.value);
                errors.push(config.error_in(&part.name, &what, "a prompt can be in one part only"));
            }
        }
    }
    errors
}
