//! Suggestions for unknown keys and words.

use super::keys::{SECTIONS, Section};

/// The keys of other tools, and ours.
const SYNONYMS: &[(&str, &str)] = &[
    ("api_base", "base_url"),
    ("burstiness", "arrivals"),
    ("ca", "ca_file"),
    ("ca_bundle", "ca_file"),
    ("ca_cert", "ca_file"),
    ("cacert", "ca_file"),
    ("cert", "client_cert"),
    ("http_proxy", "proxy"),
    ("https_proxy", "proxy"),
    ("insecure", "insecure_tls"),
    ("params", "query"),
    ("query_params", "query"),
    ("ssl_verify", "insecure_tls"),
    ("verify", "insecure_tls"),
    ("verify_ssl", "insecure_tls"),
    ("max_concurrency", "max_in_flight"),
    ("num_prompts", "requests"),
    ("num_requests", "requests"),
    ("qps", "rate"),
    ("request_rate", "rate"),
    ("rps", "rate"),
    ("users", "concurrency"),
    ("api_key", "api_key_env"),
    ("api_url", "base_url"),
    ("apikey", "api_key_env"),
    ("display_name", "name"),
    ("endpoint", "base_url"),
    ("host", "base_url"),
    ("functions", "tools"),
    ("function_call", "tool_choice"),
    ("input_len", "input_tokens"),
    ("input_schema", "parameters"),
    ("isl", "input_tokens"),
    ("image", "images"),
    ("key", "api_key_env"),
    ("label", "name"),
    ("data", "dataset"),
    ("data_set", "dataset"),
    ("max_completion_tokens", "max_tokens"),
    ("max_new_tokens", "max_tokens"),
    ("max_tokens", "output_tokens"),
    ("model", "model_name"),
    ("osl", "output_tokens"),
    ("output_len", "output_tokens"),
    ("random_input_len", "input_tokens"),
    ("random_output_len", "output_tokens"),
    ("repeat", "runs"),
    ("repetitions", "runs"),
    ("samples", "limit"),
    ("server", "base_url"),
    ("socket", "base_url"),
    ("system_prompt", "system"),
    ("token", "api_key_env"),
    ("uds", "base_url"),
    ("unix_socket", "base_url"),
    ("url", "base_url"),
];

/// Fields of the request body, which go under `extra_body`.
const BODY: &[&str] = &[
    "chat_template_kwargs",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "min_p",
    "presence_penalty",
    "reasoning",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "seed",
    "stop",
    "thinking",
    "top_k",
    "top_p",
    "user",
];

impl Section {
    /// The known key that was probably meant by `key`.
    pub(super) fn meant(self, key: &str) -> Option<&'static str> {
        let key = plain(key);
        let synonym = SYNONYMS.iter().find(|(theirs, _)| *theirs == key);
        synonym
            .map(|(_, ours)| *ours)
            .filter(|ours| self.key(ours).is_some())
            .or_else(|| nearest(&key, self.names()))
    }

    /// The help for the unknown key `key`.
    pub(super) fn help(self, key: &str) -> String {
        let takes_body = self.key("extra_body").is_some();
        if takes_body && BODY.contains(&key) {
            return format!(
                "fields of the request body go under `extra_body`: `extra_body: {{ {key}: … }}`"
            );
        }
        if let Some(meant) = self.meant(key) {
            return match meant {
                "api_key_env" => {
                    "did you mean `api_key_env`? It names the variable that holds the key"
                        .to_owned()
                }
                meant => format!("did you mean `{meant}`?"),
            };
        }
        if self == Self::Top && Self::Defaults.key(key).is_some() {
            return format!(
                "`{key}` is a key of a model; for every model, put it under `defaults`"
            );
        }
        let name = self.info().name;
        if let Some(owner) = SECTIONS.iter().find(|info| info.section.key(key).is_some()) {
            return format!("`{key}` is a key of {}, not of {name}", owner.name);
        }
        let keys = format!("the keys of {name} are {}", list(&self.names()));
        match takes_body {
            true => format!("{keys};\nfields of the request body go under `extra_body`"),
            false => keys,
        }
    }
}

/// Returns the word of `known` that is close enough to `word` to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    known
        .into_iter()
        .map(|known| (strsim::osa_distance(&word, &plain(known)), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The help for `word`, which is not in `known`.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.len() == 1 => format!("the only one is {}", list(known)),
        None => format!("there are {}", list(known)),
    }
}

/// "`a`, `b` and `c`".
pub(crate) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// "`a`, `b` or `c`".
pub(super) fn one_of_these(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    any_of(&quoted.iter().map(String::as_str).collect::<Vec<_>>())
}

/// "a, b or c".
pub(super) fn any_of(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.concat(),
    }
}

/// `word` in the spelling of keys: `Model-Name` → `model_name`.
fn plain(word: &str) -> String {
    word.trim().to_lowercase().replace(['-', ' '], "_")
}
