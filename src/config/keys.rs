//! The keys of each part of a config, and what is suggested for one that is not among them.

/// A map with fixed keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    /// What it is called in a message.
    pub(super) name: &'static str,
    /// Its keys.
    pub(super) keys: &'static [&'static str],
}

/// The keys of a model that `defaults` may not have.
pub(super) const OWN: &[&str] = &["base_url", "port", "name", "simulate"];

/// The keys of a model.
pub(super) const MODEL: &[&str] = &[
    "base_url",
    "port",
    "name",
    "simulate",
    "model_name",
    "temperature",
    "max_tokens",
    "ignore_eos",
    "tools",
    "tool_choice",
    "extra_body",
    "api_key_env",
    "headers",
    "query",
    "ca_file",
    "client_cert",
    "client_key",
    "insecure_tls",
    "proxy",
    "protocol",
    "token_count",
    "text_fields",
    "ignore_fields",
    "metrics_url",
    "transport",
    "stamps",
    "connection",
    "prefix_cache",
    "timeouts",
    "thresholds",
    "min_share",
];

pub(super) const TOP_SECTION: Section = Section {
    name: "the top level",
    keys: &[
        "models",
        "defaults",
        "prompts",
        "runs",
        "thresholds",
        "workloads",
        "inconclusive",
        "max_runs",
        "order",
    ],
};
pub(super) const MODEL_SECTION: Section = Section { name: "a model", keys: MODEL };
pub(super) const DEFAULTS_SECTION: Section =
    Section { name: "`defaults`", keys: MODEL.split_at(OWN.len()).1 };
pub(super) const SIMULATE_SECTION: Section = Section {
    name: "`simulate`",
    keys: &[
        "ttft",
        "itl",
        "jitter",
        "tokens",
        "tokens_per_event",
        "reasoning_tokens",
        "cached_tokens",
        "timings",
        "seed",
        "faults",
    ],
};
pub(super) const FAULT_SECTION: Section = Section {
    name: "a fault",
    keys: &[
        "status",
        "stall",
        "truncate",
        "reset",
        "error",
        "missing_usage",
        "missing_end",
        "split",
        "merge",
        "wrong_timings",
        "no_stream",
        "request",
    ],
};
/// The faults by themselves.
pub(super) const FAULTS: &[&str] = FAULT_SECTION.keys.split_at(11).0;
pub(super) const TOKEN_COUNT_SECTION: Section =
    Section { name: "`token_count`", keys: &["tokenizer"] };
pub(super) const TIMEOUTS_SECTION: Section =
    Section { name: "`timeouts`", keys: &["connect", "first_token", "inter_token", "total"] };
pub(super) const PROMPT_SECTION: Section = Section {
    name: "a prompt",
    keys: &[
        "name",
        "text",
        "file",
        "dataset",
        "synthetic",
        "turns",
        "images",
        "limit",
        "seed",
        "multi_turn",
        "system",
        "output_tokens",
        "min_tokens",
        "ignore_eos",
        "tools",
        "tool_choice",
    ],
};
pub(super) const TOOL_SECTION: Section = Section { name: "a tool", keys: &["type", "function"] };
pub(super) const FUNCTION_SECTION: Section =
    Section { name: "a function", keys: &["name", "description", "parameters", "strict"] };
pub(super) const CHOICE_SECTION: Section = Section { name: "`tool_choice`", keys: &["name"] };

pub(super) const SYNTHETIC_SECTION: Section =
    Section { name: "`synthetic`", keys: &["input_tokens", "output_tokens", "seed", "tokenizer"] };
pub(super) const RANGE_SECTION: Section =
    Section { name: "a range of `input_tokens`", keys: &["min", "max"] };

pub(super) const WORKLOAD_SECTION: Section = Section {
    name: "a workload",
    keys: &[
        "concurrency",
        "rate",
        "arrivals",
        "seed",
        "max_in_flight",
        "requests",
        "duration",
        "prompts",
        "runs",
        "thresholds",
    ],
};

const SECTIONS: &[Section] = &[
    TOP_SECTION,
    MODEL_SECTION,
    SIMULATE_SECTION,
    FAULT_SECTION,
    TIMEOUTS_SECTION,
    TOKEN_COUNT_SECTION,
    PROMPT_SECTION,
    TOOL_SECTION,
    FUNCTION_SECTION,
    CHOICE_SECTION,
    SYNTHETIC_SECTION,
    RANGE_SECTION,
    WORKLOAD_SECTION,
];

/// Words that other tools use, and ours.
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

/// Fields of a request's body that go under `extra_body`.
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

/// What the top-level keys begin with that are only there for their anchors.
const EXTENSION: &str = "x-";

/// Whether `key` of the top level is only there for its anchor.
pub(super) fn is_extension(key: &str) -> bool {
    key.starts_with(EXTENSION)
}

impl Section {
    /// Whether `key` may be there and means nothing.
    pub(super) fn ignores(&self, key: &str) -> bool {
        self.name == TOP_SECTION.name && is_extension(key)
    }

    /// The known key that was probably meant by `key`.
    pub(super) fn meant(&self, key: &str) -> Option<&'static str> {
        let key = plain(key);
        let synonym = SYNONYMS.iter().find(|(theirs, _)| *theirs == key);
        synonym
            .map(|(_, ours)| *ours)
            .filter(|ours| self.keys.contains(ours))
            .or_else(|| nearest(&key, self.keys.iter().copied()))
    }

    /// The help for `key`, which is not among the keys.
    pub(super) fn help(&self, key: &str) -> String {
        let takes_body = self.keys.contains(&"extra_body");
        if takes_body && BODY.contains(&key) {
            return format!(
                "what the server should get goes under `extra_body`: `extra_body: {{ {key}: … }}`"
            );
        }
        match self.meant(key) {
            Some("api_key_env") => {
                return "did you mean `api_key_env`? It names the variable that holds the key"
                    .to_owned();
            }
            Some(meant) => return format!("did you mean `{meant}`?"),
            None => {}
        }
        if self.keys.contains(&"defaults") && DEFAULTS_SECTION.keys.contains(&key) {
            return format!(
                "`{key}` is a key of a model; for every model, put it under `defaults`"
            );
        }
        if let Some(owner) = SECTIONS.iter().find(|section| section.keys.contains(&key)) {
            return format!("`{key}` is a key of {}, not of {}", owner.name, self.name);
        }
        let keys = format!("the keys of {} are {}", self.name, list(self.keys));
        match takes_body {
            true => format!("{keys};\nwhat the server should get goes under `extra_body`"),
            false => keys,
        }
    }
}

/// Whether `key` is a key of any section.
pub(super) fn is_known(key: &str) -> bool {
    SECTIONS.iter().any(|section| section.keys.contains(&key))
}

/// The one of `known` that is so near to `word` that it was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    known
        .into_iter()
        .map(|known| (strsim::osa_distance(&word, &plain(known)), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A help line for `word`, which is none of `known`.
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

/// "a, b or c".
pub(super) fn any_of(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.concat(),
    }
}

/// `word` without what people write differently: `Model-Name` → `model_name`.
fn plain(word: &str) -> String {
    word.trim().to_lowercase().replace(['-', ' '], "_")
}

const TAG: &str = "this value is not of the type that its tag states";
const TAG_HELP: &str = "remove the tag: `1.0` instead of `!!int 1.0`";

/// What the YAML parser says → our words, and what is probably to be done.
const SYNTAX: &[(&str, &str, &str)] = &[
    (
        "mapping values are not allowed",
        "this colon cannot be here",
        "put a text with a colon in quotes, a space after each key's colon,\nand the keys of one map at the same indentation",
    ),
    (
        "simple key expected",
        "there is no colon after this key",
        "a key is followed by a colon and a space: `port: 8000`",
    ),
    ("tabs disallowed", "there is a tab in the indentation", "YAML is indented with spaces only"),
    ("unclosed quote", "this quote is not closed", "end the text with the same quote"),
    ("unclosed bracket", "this bracket is not closed", "end the list with `]`, the map with `}`"),
    (
        "did not find expected key",
        "this line is not at the indentation of the lines around it",
        "give the keys of one map the same indentation",
    ),
    (
        "did not find expected '-'",
        "this line is not an item of the list above it",
        "begin each item with `- `, or indent the line more to continue the item",
    ),
    (
        "did not find expected ','",
        "a comma or a closing bracket is missing before this",
        "end the list with `]`, the map with `}`, and put a text with a colon in quotes",
    ),
    (
        "unknown escape",
        "there is an unknown escape in this text",
        "in double quotes write `\\\\` for a backslash, or use single quotes",
    ),
    ("unexpected character", "a value cannot begin with this character", "put the value in quotes"),
    (
        "unknown value",
        "there is no anchor of this name",
        "define it above with `&name`, or put a text that begins with `*` in quotes",
    ),
    (
        "only single YAML document",
        "there is a second document in this file",
        "remove the line `---`",
    ),
    (
        "merge value must be",
        "`<<` merges maps only",
        "write `<<: *name`, where `&name` is before a map",
    ),
    ("invalid u64", TAG, TAG_HELP),
    ("invalid i64", TAG, TAG_HELP),
    ("invalid floating point", TAG, TAG_HELP),
    ("invalid bool", TAG, TAG_HELP),
    ("ecursive reference", "this alias is within what it stands for", "write the value out"),
];

/// What is wrong with a text that is no YAML, and what is probably to be done.
pub(super) fn syntax(said: &str) -> (String, String) {
    let known = SYNTAX.iter().find(|(theirs, ..)| said.contains(theirs));
    match known {
        Some((_, what, help)) => ((*what).to_owned(), (*help).to_owned()),
        None => (
            format!("this is not YAML: {said}"),
            "check quotes, colons and indentation here and in the line above".to_owned(),
        ),
    }
}
