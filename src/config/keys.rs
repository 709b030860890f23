//! The keys of `configs.yaml`: one table. The reader, the messages about unknown keys, the JSON
//! schema and the reference in the documentation derive from it.

use llm_stream_core::protocol;
use llm_stream_sim::Script;

use llm_stream_core::capacity::MAX_LOADS;

use super::find::LOADS;
use super::words::{
    CONNECTIONS, DISTRIBUTIONS, INCONCLUSIVE, ORDERS, PREFIX_CACHES, STAMPS, TOKEN_COUNTS,
    TOKEN_KINDS, TRACE_FORMATS, TRANSPORTS, names,
};

/// A key: where it may be written, what its value looks like, and what it means.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// The maps that may have it.
    pub(super) sections: &'static [Section],
    /// The form of its value.
    pub(super) shape: ValueShape,
    /// The default value; empty if the key has none.
    pub(super) default: &'static str,
    /// A value for messages; of a list, one item.
    pub(super) example: &'static str,
    /// Its meaning, one line.
    pub(super) help: &'static str,
}

/// A map with fixed keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Top,
    Model,
    Defaults,
    Simulate,
    Decode,
    Fault,
    Timeouts,
    RunVariation,
    TokenCount,
    Prompt,
    Tool,
    Function,
    ToolChoice,
    Synthetic,
    TokenRange,
    Workload,
    Find,
    ConcurrencyRange,
    RateRange,
    Trace,
    ThinkTime,
    SteadyState,
    Abort,
    SharedPrefix,
}

/// The form of a value.
#[derive(Debug)]
pub(super) enum ValueShape {
    /// A text that is not blank.
    Text,
    /// `true` or `false`.
    Flag,
    /// Only this boolean.
    Only(bool),
    /// `null`, written out.
    Null,
    /// A whole number between these bounds.
    Whole(u64, u64),
    /// A number between these bounds.
    Number(f64, f64),
    /// A duration with its unit. `unit` is suggested if the unit is missing.
    Duration { zero: bool, unit: &'static str },
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// A text of this `form`, which the regular expression describes.
    Form { form: &'static str, pattern: &'static str },
    /// A map with any keys and values.
    Fields,
    /// A map from names to texts.
    Texts,
    /// A map from names of metrics to values of this shape.
    Figures(&'static ValueShape),
    /// A map from names of prompts to weights.
    Weights,
    /// A map of one name to one of these words.
    Pair(fn() -> Vec<&'static str>),
    /// A map with the keys of a section.
    Map(Section),
    /// A map from names to maps with the keys of a section.
    Named(Section),
    /// A list of values of this shape, maybe empty.
    List(&'static ValueShape),
    /// A list of at least one value of this shape.
    Some(&'static ValueShape),
    /// A value of one of these shapes.
    Any(&'static [ValueShape]),
}

/// The description of a section.
#[derive(Debug)]
pub(super) struct SectionInfo {
    pub(super) section: Section,
    /// Its name in messages.
    pub(super) name: &'static str,
    /// What messages expect if the value is something else.
    pub(super) expected: &'static str,
    /// A value for messages.
    pub(super) example: &'static str,
    /// Its name in the JSON schema, and its heading in the reference.
    pub(super) title: &'static str,
    /// Groups of keys of which exactly one is required.
    pub(super) one_of: &'static [&'static [&'static str]],
    /// Groups of keys of which at least one is required.
    pub(super) some_of: &'static [&'static [&'static str]],
    /// Keys that are only allowed next to another key.
    pub(super) only_with: &'static [(&'static str, &'static str)],
}

use Section::{
    Abort, ConcurrencyRange, Decode, Defaults, Fault, Find, Function, Model, Prompt, RateRange,
    RunVariation, SharedPrefix, Simulate, SteadyState, Synthetic, ThinkTime, Timeouts, TokenCount,
    TokenRange, Tool, Top, Trace, Workload,
};
use ValueShape::{
    Any, Duration, Fields, Figures, Flag, Form, List, Map, Named, Null, Number, Only, Pair, Some,
    Text, Texts, Weights, Whole, Words,
};

/// No upper bound.
const MAX: u64 = u64::MAX;
/// The most runs of a case.
pub(super) const MOST_RUNS: u64 = 10_000;
/// The value of `runs` that leaves the number to the program.
pub(super) const AUTO: &str = "auto";
/// The longest synthetic prompt, in tokens.
const MOST_INPUT: u64 = 10_000_000;
/// The most records of a data set: each is one trial per run.
const MOST_RECORDS: u64 = 1_000_000;
/// The most requests in flight: each takes a file descriptor, and a second one if the server is
/// simulated.
const MOST_IN_FLIGHT: u64 = 262_144;
/// The most requests of a workload.
const MOST_REQUESTS: u64 = 10_000_000;

// Each pattern accepts what the reader accepts, and refuses common slips.
const SHARE: ValueShape = Form { form: "percentage", pattern: r"[0-9][^%]*%\s*$" };
const PRECISION: ValueShape = Any(&[SHARE, Figures(&SHARE)]);
const RATE: ValueShape = Form { form: "rate", pattern: r"[0-9][^/]*/\s*(s|sec|m|min|h)\s*$" };
const SIZE: ValueShape = Form { form: "size", pattern: r"^\s*[0-9][0-9.]*\s*[MG]B\s*$" };
const INTERLEAVED: ValueShape =
    Form { form: "`interleaved(SEED)`", pattern: r"^interleaved\s*\(.*[0-9].*\)$" };
const SHUFFLED: ValueShape =
    Form { form: "`shuffled(SEED)`", pattern: r"^shuffled\s*\(.*[0-9].*\)$" };
const GAMMA: ValueShape = Form { form: "`gamma(BURSTINESS)`", pattern: r"^gamma\s*\(.*[0-9].*\)$" };
const TIMEOUT: ValueShape = Duration { zero: false, unit: "s" };
const THINK: ValueShape = Duration { zero: false, unit: "s" };
const TIME: ValueShape = Duration { zero: true, unit: "ms" };

/// Makes a table of [`Key`]s: `[sections] { name: shape, default, example => help; … }`.
macro_rules! keys {
    ($($sections:tt {
        $($name:ident: $shape:expr, $default:expr, $example:expr => $help:expr;)+
    })+) => {
        &[$($(Key {
            name: stringify!($name),
            sections: &$sections,
            shape: $shape,
            default: $default,
            example: $example,
            help: $help,
        }),+),+]
    };
}

/// Every key, in the order of the messages and of the reference.
#[rustfmt::skip]
pub(super) static KEYS: &[Key] = keys! {
    [Top] {
        models: Named(Model), "", r#"{ my-model: { base_url: "http://localhost:8000" } }"#
            => "The models to measure, by the names that filters and results use.";
        defaults: Map(Defaults), "none", "{ temperature: 0 }"
            => "Settings for every model that does not set them itself.";
        prompts: Any(&[Some(&Map(Prompt)), Text]), "ten built-in prompts", r#"{ name: hello, text: "Say hello." }"#
            => "The prompts, or a folder whose `.txt` and `.md` files are the prompts.";
        runs: Any(&[Whole(1, MOST_RUNS), Words(|| vec![AUTO])]), "3", "3"
            => "How often each model gets each prompt; `auto` chooses the number from the noise of the first three, the thresholds and `precision`.";
        thresholds: List(&Text), "none", r#""ttft p95 <= 500 ms""#
            => "Limits for every model and its prompts. A missed limit fails the run.";
        goodput: List(&Text), "none", r#""ttft <= 500 ms""#
            => "Limits that each request of a load must meet to count for the metrics `goodput` and `goodput_ratio`.";
        precision: PRECISION, "none", "2 %"
            => "How precisely means are to be known: runs are added until each 95 % interval is within ± this percentage of its mean, up to `max_runs` and `max_time`. A percentage alone is for `ttft`, `tpot` and `generation_speed`.";
        workloads: Named(Workload), "none", "{ chat-c64: { concurrency: 64, requests: 512 } }"
            => "Loads of many requests, by name.";
        inconclusive: Words(|| names(&INCONCLUSIVE)), "warn", "warn"
            => "The result of a threshold that the samples cannot decide: a warning, a pass or a failure.";
        max_runs: Whole(1, MOST_RUNS), "the value of `runs`; 30 with `precision`, `max_time` or `runs: auto`", "30"
            => "How often at most, if thresholds are undecided or `precision` is not reached after `runs`.";
        max_time: TIMEOUT, "none", "10m"
            => "No run after the first `runs` starts that would end later than this after the start.";
        max_memory: SIZE, "512 MB", "2 GB"
            => "The memory of all answers together. When it is reached, the answers that hold the most of it fail with `too_long`.";
        order: Any(&[Words(|| names(&ORDERS)), INTERLEAVED, SHUFFLED]), "interleaved", "interleaved"
            => "The order of the trials: run by run with models in turn, model by model, or random.";
        run_variation: RUN_VARIATION, "prompts 3 %, workloads 20 %", "3 %"
            => "The assumed variation of a figure between runs on an unchanged server (standard deviation), until a baseline holds enough runs to estimate it.";
    }
    [Model] {
        base_url: Any(&[Text, Some(&Text)]), "", r#""http://localhost:8000""#
            => "The server: `http://`, `https://` or `unix://`. `/v1`, or the prefix of the protocol, is added if the URL has no path.";
        port: Whole(1, 65_535), "the port of the scheme", "8000"
            => "The port, if `base_url` has none.";
        name: Text, "the key of the model", r#""My model""#
            => "The name in filters and results.";
        simulate: Map(Simulate), "", "{ ttft: 50ms, itl: 10ms }"
            => "A simulated endpoint instead of a server.";
    }
    [Model, Defaults] {
        model_name: Text, "the key of the model", r#""Qwen/Qwen3-8B""#
            => "The name that the server has for the model.";
        temperature: Any(&[Number(0.0, 2.0), Null]), "0.7", "0.7"
            => "The sampling temperature; `null` leaves it out of the request.";
        max_tokens: Whole(1, MAX), "1024", "1024"
            => "The most tokens that an answer may have.";
        ignore_eos: Flag, "the value of the prompt", "true"
            => "Whether the model must not end its answer itself; overrides the prompts.";
        tools: List(&Map(Tool)), "none", "{ type: function, function: { name: get_weather } }"
            => "The tools for prompts that have none, in OpenAI's form.";
        tool_choice: TOOL_CHOICE, "not sent", "{ name: get_weather }"
            => "Whether the model must call a tool, and which one.";
        extra_body: Fields, "none", "{ top_p: 0.9 }"
            => "Fields that are merged into the request body; `null` leaves a field out.";
        api_key_env: Text, "none", "OPENAI_API_KEY"
            => "The environment variable that holds the API key.";
        headers: Texts, "none", r#"{ x-tenant: "a" }"#
            => "Headers of each request. `${NAME}` in a value stands for an environment variable.";
        query: Texts, "none", r#"{ api-version: "2024-10-21" }"#
            => "Query parameters of the URL. `${NAME}` in a value stands for an environment variable.";
        ca_file: Text, "none", "certs/ca.pem"
            => "A PEM file with certificates to trust in addition to those of the system.";
        client_cert: Text, "none", "certs/client.pem"
            => "A PEM file with the client certificate.";
        client_key: Text, "the key in `client_cert`", "certs/client.key"
            => "A PEM file with the private key of `client_cert`.";
        insecure_tls: Flag, "false", "true"
            => "Whether certificates are not verified. An impostor then gets key and prompts: prefer `ca_file`.";
        proxy: Text, "the proxy of the environment", r#""http://proxy.example.com:3128""#
            => "The URL of an HTTP proxy, or `none`. `${NAME}` stands for an environment variable.";
        protocol: Words(protocols), "openai_chat", "openai_chat"
            => "The protocol of the endpoint.";
        batch: Whole(1, 100_000), "1", "32"
            => "The number of texts in each request for embeddings: the text of the prompt, numbered.";
        stream: Flag, "true", "false"
            => "Whether answers are streamed. Without a stream an answer has `e2e`, counts and throughput, but no times of tokens.";
        token_count: Any(&[Words(|| names(&TOKEN_COUNTS)), Map(TokenCount)]), "usage", "chunks"
            => "The source of token counts: the server's usage, one per event, or a tokenizer.";
        text_fields: List(&Any(&[Text, Pair(|| names(&TOKEN_KINDS))])), "none", "thoughts"
            => "Fields of an event that hold generated text and that the protocol does not define; text of the answer unless `reasoning` is written.";
        ignore_fields: List(&Text), "none", "annotation"
            => "Fields of an event whose text is not generated.";
        metrics_url: Any(&[Words(|| vec!["off", "auto"]), Text, Only(false)]), "off", r#""http://localhost:8000/metrics""#
            => "The Prometheus metrics of the server, which are compared with the measurement: a URL, or `auto` for the usual path.";
        power_url: Any(&[Words(|| vec!["off"]), Text, Only(false)]), "off", r#""http://localhost:9400/metrics""#
            => "The Prometheus metrics of the GPUs' power, by DCGM or nvidia_gpu_exporter, for the energy of loads: a URL.";
        gpus: Whole(1, 1_000_000), "none", "8"
            => "The number of GPUs that serve the model, for the throughput of a GPU.";
        cost_per_hour: Number(0.0001, 1e9), "none", "23.9"
            => "The cost of an hour of the machine that serves the model, in any currency, for the cost of tokens.";
        transport: Words(|| names(&TRANSPORTS)), "auto", "auto"
            => "The HTTP client: `stamped` reads kernel timestamps, `reqwest` does HTTP/2 and proxies.";
        stamps: Words(|| names(&STAMPS)), "auto", "auto"
            => "The source of arrival timestamps of the `stamped` transport.";
        connection: Words(|| names(&CONNECTIONS)), "warm", "warm"
            => "Whether requests use an open connection or each opens its own.";
        prefix_cache: Words(|| names(&PREFIX_CACHES)), "fresh", "fresh"
            => "Whether each request starts with a unique text, so that the server's prefix cache cannot help.";
        timeouts: Map(Timeouts), "see below", "{ first_token: 60s }"
            => "Time limits of a request.";
        thresholds: List(&Text), "none", r#""ttft p95 <= 500 ms""#
            => "Limits for the prompts of this model, in addition to those of the top level.";
        precision: PRECISION, "the value of the top level", "2 %"
            => "How precisely means are to be known, as a percentage of each.";
        min_share: SHARE, "90 %", "90 %"
            => "The share of answers that must have a figure; below it the threshold fails.";
        run_variation: RUN_VARIATION, "the value of the top level", "3 %"
            => "The assumed variation of this model's figures between runs (standard deviation).";
    }
    [Simulate] {
        ttft: TIME, "50ms", "10ms" => "The time to the first token.";
        itl: TIME, "10ms", "10ms" => "The time between tokens.";
        jitter: TIME, "0ms", "10ms" => "The largest random deviation of each token's time.";
        slots: Whole(1, 1_000_000), "no limit", "32"
            => "The most requests that the server runs together; others wait in a queue. It then decodes step by step, as `decode` says, in place of `ttft` and `itl`.";
        prefill_rate: RATE, "20000/s", "20000/s" => "The prompt tokens that a server with `slots` processes per second.";
        decode: Map(Decode), "see below", "{ base: 8ms, per_running: 0.2ms }"
            => "The duration of a step of a server with `slots`.";
        kv_tokens: Whole(1, MAX), "no limit", "100000"
            => "The tokens that fit into the KV cache of a server with `slots`; each request reserves its prompt and its longest answer.";
        tokens: Whole(1, Script::MOST_TOKENS), "64", "64" => "The tokens of an answer.";
        tokens_per_event: Whole(1, Script::MOST_TOKENS), "1", "1" => "The tokens of an event.";
        reasoning_tokens: Whole(0, MAX), "0", "16" => "How many of the first tokens are reasoning.";
        cached_tokens: Whole(0, MAX), "0", "16" => "The cached prompt tokens that the usage reports.";
        timings: Flag, "false", "true" => "Whether the answer reports the server's own times.";
        seed: Whole(0, MAX), "0", "7" => "The seed of the jitter.";
        faults: List(&Any(&[Words(flag_faults), Map(Fault)])), "none", "{ stall: 10 }"
            => "Faults of the answers.";
    }
    [Decode] {
        base: TIME, "8ms", "8ms" => "The part of a step that does not depend on the number of requests.";
        per_running: TIME, "0.2ms", "0.2ms" => "The part of a step that each running request adds.";
    }
    [Fault] {
        status: Whole(400, 599), "", "503" => "Answers with this HTTP status.";
        stall: Whole(0, MAX), "", "10" => "Stops after this many token events and keeps the connection open.";
        truncate: Whole(0, MAX), "", "10" => "Ends the body after this many token events.";
        reset: Whole(0, MAX), "", "10" => "Resets the connection after this many token events.";
        error: Whole(0, MAX), "", "10" => "Sends an error in the stream after this many token events.";
        missing_usage: Only(true), "", "true" => "Leaves the usage out.";
        missing_end: Only(true), "", "true" => "Leaves the end marker out.";
        split: Whole(1, MAX), "", "10" => "Writes each event in pieces of this many bytes.";
        merge: Whole(1, MAX), "", "10" => "Writes this many events at once.";
        wrong_timings: Whole(1, 10_000), "", "10" => "Reports times that are this percentage of the true ones.";
        no_stream: Only(true), "", "true" => "Answers with a complete JSON body.";
        request: Whole(1, MAX), "every request", "2"
            => "Only the request with this number, counted from 1, warm-up included.";
    }
    [Timeouts] {
        connect: TIMEOUT, "10s", "30s" => "DNS, TCP and TLS.";
        first_token: TIMEOUT, "300s", "30s" => "From the request to the first generated token.";
        inter_token: TIMEOUT, "60s", "30s" => "From one token to the next.";
        total: TIMEOUT, "1800s", "30s" => "From the request to the end of the answer.";
    }
    [RunVariation] {
        prompts: SHARE, "3 %", "3 %" => "The variation for prompts that are sent one by one.";
        workloads: SHARE, "20 %", "20 %" => "The variation under load.";
    }
    [TokenCount] {
        tokenizer: Text, "", "path/tokenizer.json"
            => "A `tokenizer.json`; requires the feature `tokenizers`.";
    }
    [Prompt] {
        name: Text, "", "hello" => "The name in trial names.";
        text: Text, "", r#""Say hello.""# => "The text of the prompt.";
        file: Text, "", r#""prompts/hello.txt""# => "A file with the text, relative to the config.";
        dataset: Text, "", "data/prompts.jsonl"
            => "JSON Lines, a JSON list or a folder; each record is a prompt.";
        synthetic: Map(Synthetic), "", "{ input_tokens: 2048, output_tokens: 256 }"
            => "A generated prompt of a stated length.";
        turns: Some(&Text), "", r#""Say hello.", "And goodbye.""#
            => "The questions of a conversation, each sent after the answer to the previous one.";
        images: Some(&Text), "none", r#""picture.png""#
            => "Images after the text: files, or URLs that the server fetches.";
        documents: Some(&Text), "none", r#""Paris is the capital of France.""#
            => "The documents that `protocol: rerank` scores for the text of the prompt.";
        limit: Whole(1, MOST_RECORDS), "all", "20" => "The number of records to take.";
        seed: Whole(0, MAX), "the first records", "7" => "The seed with which `limit` chooses records.";
        multi_turn: Flag, "false", "true" => "Whether all questions of a record are sent, as turns.";
        model_name: Text, "that of the model", r#""my-lora""#
            => "The name that the server has for the model of this prompt, such as a LoRA adapter.";
        system: Text, "none", r#""Be brief.""# => "The system message.";
        output_tokens: Any(&[Whole(1, MAX), Map(TokenRange)]), "the value of `max_tokens`", "256"
            => "The most tokens that an answer may have, or a range from which each request draws the number.";
        min_tokens: Whole(1, MAX), "none", "256"
            => "The fewest tokens of an answer, if the server supports the field.";
        ignore_eos: Flag, "false", "true"
            => "Whether the model must not end its answer itself, if the server supports the field.";
        tools: List(&Map(Tool)), "the tools of the model", "{ type: function, function: { name: get_weather } }"
            => "The tools, in OpenAI's form.";
        tool_choice: TOOL_CHOICE, "the choice of the model", "{ name: get_weather }"
            => "Whether the model must call a tool, and which one.";
    }
    [Tool] {
        type: Words(|| vec!["function"]), "", "function" => "The type of the tool.";
        function: Map(Function), "", "{ name: get_weather }" => "The function.";
    }
    [Function] {
        name: Text, "", "get_weather" => "The name of the function.";
        description: Text, "none", r#""The weather in a city now.""# => "What the function does.";
        parameters: Fields, "none", "{ type: object, properties: { city: { type: string } } }"
            => "The JSON schema of the arguments.";
        strict: Flag, "the default of the server", "true" => "Whether arguments must match the schema.";
    }
    [Section::ToolChoice] {
        name: Text, "", "get_weather" => "The tool that the model must call.";
    }
    [Synthetic] {
        input_tokens: LENGTHS, "", "2048"
            => "The length of the prompt in tokens, or a range from which each request draws its length. A list is a sweep: each value is a prompt `NAME@iVALUE`.";
        output_tokens: LENGTHS, "the value of `max_tokens`", "256"
            => "The most tokens that an answer may have, or a range. A list is a sweep: each value is a prompt `NAME@oVALUE`.";
        seed: Whole(0, MAX), "0", "7" => "The seed of the words.";
        shared_prefix: Map(SharedPrefix), "none", "{ groups: 8, tokens: 1024 }"
            => "The beginnings that requests of a load share; each request chooses one of the groups at random.";
        tokenizer: Text, "the server's count", "path/tokenizer.json"
            => "A `tokenizer.json` that counts instead; requires the feature `tokenizers`.";
    }
    [SharedPrefix] {
        groups: Whole(1, 1_000_000), "", "8" => "The number of different beginnings.";
        tokens: Whole(1, MOST_INPUT), "", "1024" => "The length of a beginning, less than `input_tokens`.";
    }
    [TokenRange] {
        min: Whole(1, MOST_INPUT), "", "1000" => "The fewest tokens.";
        max: Whole(1, MOST_INPUT), "", "2000" => "The most tokens.";
        distribution: Words(|| names(&DISTRIBUTIONS)), "uniform", "lognormal"
            => "How lengths are distributed between the two; lengths outside are not drawn.";
        mean: Whole(1, MOST_INPUT), "", "1500" => "The mean of a normal or log-normal distribution without bounds.";
        sd: Whole(1, MOST_INPUT), "", "400" => "Its standard deviation.";
    }
    [Workload] {
        concurrency: CONCURRENCY, "", "64"
            => "A closed loop with this many requests in flight. A list or a range is a sweep: each value is a workload `NAME@cVALUE`.";
        rate: RATES, "", "20/s"
            => "An open loop with this many requests per second, minute or hour. A list or a range is a sweep: each value is a workload `NAME@rVALUE`, per second.";
        find: Map(Find), "", r#"{ max: rate, subject_to: ["ttft p95 <= 500 ms"] }"#
            => "A search for the highest load that holds its limits, in place of `concurrency` and `rate`. `requests` and `duration` are those of each load near the result.";
    }
    [Workload, Find] {
        arrivals: Any(&[Words(|| vec!["constant", "poisson"]), GAMMA]), "poisson", "poisson"
            => "The distribution of the gaps between arrivals.";
        seed: Whole(0, MAX), "0", "7" => "The seed of the arrivals, of `mix` and of `think`.";
        max_in_flight: Whole(1, MOST_IN_FLIGHT), "1000", "500"
            => "The most requests in flight; a load that reaches it is invalid.";
    }
    [Workload] {
        trace: Any(&[Text, Map(Trace)]), "", "traces/conversation.jsonl"
            => "Recorded traffic that is replayed: a JSON Lines file with the times of its requests, and their lengths or bodies.";
        speed: SPEEDS, "1x", "2x"
            => "How many times as fast as recorded the requests of `trace` arrive. A list is a sweep: each value is a workload `NAME@xVALUE`.";
        requests: Whole(1, MOST_REQUESTS), "", "512" => "Ends the load after this many requests.";
        duration: TIMEOUT, "", "60s" => "Ends the load after this time.";
        ramp: TIMEOUT, "none", "30s"
            => "How long the load grows linearly to its concurrency or rate. Its requests count for no figure, and `requests` and `duration` count from its end.";
        warm_up: Any(&[TIMEOUT, Whole(1, MOST_REQUESTS)]), "none", "10s"
            => "How long after the ramp, or for how many requests, nothing counts for a figure. `requests` and `duration` count from its end.";
        steady_state: Any(&[Words(|| vec![AUTO]), Map(SteadyState)]), "from the end of `warm_up` to the last start", "auto"
            => "The part of the load that its figures are of: `auto` cuts the start and the end by MSER, and the load is invalid if it has no steady state.";
        abort: Map(Abort), "none", "{ failures: 10 % }"
            => "When the load is stopped before its end. It then has no figures.";
        prompts: Some(&Text), "all", "chat-en" => "The prompts that requests take in turn, by name.";
        input_tokens: LENGTHS, "those of the prompts", "2048"
            => "The length of its generated prompts. A list is a sweep: each value is a workload `NAME@iVALUE`.";
        output_tokens: LENGTHS, "those of the prompts", "256"
            => "The most tokens of an answer. A list is a sweep: each value is a workload `NAME@oVALUE`.";
        mix: Weights, "none", "{ chat: 70, rag: 20, code: 10 }"
            => "Groups of prompts with the weights by which requests choose them at random, instead of `prompts`. Each group is a part `NAME@GROUP` with its own figures.";
        think: Any(&[THINK, Map(ThinkTime)]), "none", "5s"
            => "The time from an answer to the next turn of its conversation, or a range from which it is drawn.";
        runs: Whole(1, MOST_RUNS), "the value of the top level", "3" => "How often each model gets the load.";
        thresholds: List(&Text), "none", r#""ttft p95 <= 500 ms""#
            => "Limits for every model under this load; `@GROUP` in front is a limit of a part of `mix`.";
        goodput: List(&Text), "the value of the top level", r#""ttft <= 500 ms""#
            => "Limits that each request must meet to count for `goodput` and `goodput_ratio`.";
        precision: PRECISION, "the value of the top level", "2 %"
            => "How precisely means are to be known, as a percentage of each.";
    }
    [SteadyState] {
        from: TIME, "", "10s" => "The start of the measured part, counted from the start of the load.";
        to: TIMEOUT, "the last start", "60s" => "Its end.";
    }
    [Abort] {
        failures: SHARE, "", "10 %"
            => "The share of requests that may fail. The load stops as soon as more of all its requests have failed, or so many that it is not by chance.";
    }
    [Find] {
        max: Words(|| names(&LOADS)), "", "rate"
            => "The load to maximise: `rate`, in requests per second, or `concurrency`, in requests at a time.";
        subject_to: Some(&Text), "", r#""ttft p95 <= 500 ms""#
            => "The limits that hold under the load: means and percentiles of figures of requests, `success_rate` and `goodput_ratio`.";
        from: Any(&[RATE, Whole(1, MOST_IN_FLIGHT)]), "one a second, or one at a time", "1/s" => "The lowest load.";
        to: Any(&[RATE, Whole(1, MOST_IN_FLIGHT)]), "a thousand a second, or 1024 at a time", "100/s" => "The highest load.";
        precision: SHARE, "5 %", "5 %"
            => "How precisely the result is to be known; the search ends when its interval is as narrow.";
        loads: Whole(4, MAX_LOADS as u64), "12", "12" => "The most loads of a search.";
    }
    [Trace] {
        file: Text, "", "traces/conversation.jsonl" => "The file, relative to the config.";
        format: Words(|| names(&TRACE_FORMATS)), "by the first line", "bailian"
            => "Lengths and blocks with times in milliseconds (`mooncake`) or in seconds (`bailian`), or request bodies with times in milliseconds.";
        block_size: Whole(1, 65_536), "512; 16 with `bailian`", "512"
            => "The tokens that a hash id stands for.";
        tokenizer: Text, "the tokenizer of `token_count`; without one a word stands for a token", "path/tokenizer.json"
            => "A `tokenizer.json` by which prompts have the exact lengths; requires the feature `tokenizers`.";
        seed: Whole(0, MAX), "0", "7" => "The seed of the words, with `prefix_cache: reuse`.";
    }
    [ThinkTime] {
        min: TIME, "", "1s" => "The shortest time.";
        max: THINK, "", "60s" => "The longest time.";
        distribution: Words(|| names(&DISTRIBUTIONS)), "uniform", "lognormal"
            => "How times are distributed between the two; times outside are not drawn.";
        mean: THINK, "", "8s" => "The mean of a normal or log-normal distribution without bounds.";
        sd: THINK, "", "6s" => "Its standard deviation.";
    }
    [ConcurrencyRange] {
        from: Whole(1, MOST_IN_FLIGHT), "", "1" => "The first number of requests in flight.";
        to: Whole(1, MOST_IN_FLIGHT), "", "256" => "The last one.";
    }
    [RateRange] {
        from: RATE, "", "1/s" => "The first rate.";
        to: RATE, "", "64/s" => "The last one.";
    }
    [ConcurrencyRange, RateRange] {
        factor: Number(1.01, 1000.0), "2", "2" => "Each value is the one before times this factor.";
    }
};

const CONCURRENCY: ValueShape =
    Any(&[Whole(1, MOST_IN_FLIGHT), Some(&Whole(1, MOST_IN_FLIGHT)), Map(ConcurrencyRange)]);

const RATES: ValueShape = Any(&[RATE, Some(&RATE), Map(RateRange)]);

const LENGTHS: ValueShape =
    Any(&[Whole(1, MOST_INPUT), Some(&Whole(1, MOST_INPUT)), Map(TokenRange)]);

const SPEED: ValueShape = Form { form: "speed", pattern: r"[0-9]\s*x\s*$" };

const SPEEDS: ValueShape = Any(&[SPEED, Some(&SPEED)]);

const RUN_VARIATION: ValueShape = Any(&[SHARE, Map(RunVariation)]);

const TOOL_CHOICE: ValueShape = Any(&[Words(tool_choices), Map(Section::ToolChoice)]);

/// Every section, in the order of the reference and of the messages.
pub(super) static SECTIONS: &[SectionInfo] = &[
    SectionInfo {
        name: "the top level",
        expected: "a map with the key `models`",
        example: "models: …",
        title: "Top level",
        one_of: &[&["models"]],
        ..section(Top)
    },
    SectionInfo {
        name: "a model",
        expected: "a map of a model's keys",
        example: "{ base_url: \"http://localhost:8000\" }",
        title: "Model",
        one_of: &[&["base_url", "simulate"]],
        only_with: &[("port", "base_url"), ("client_key", "client_cert")],
        ..section(Model)
    },
    SectionInfo {
        name: "`defaults`",
        expected: "a map of a model's keys",
        example: "{ temperature: 0 }",
        title: "Defaults",
        only_with: &[("client_key", "client_cert")],
        ..section(Defaults)
    },
    SectionInfo {
        name: "`simulate`",
        expected: "a map of a rhythm",
        example: "{ ttft: 50ms, itl: 10ms }",
        title: "Simulated endpoint",
        only_with: &[("prefill_rate", "slots"), ("decode", "slots"), ("kv_tokens", "slots")],
        ..section(Simulate)
    },
    SectionInfo {
        name: "`decode`",
        expected: "a map of durations",
        example: "{ base: 8ms, per_running: 0.2ms }",
        title: "Decoding step",
        ..section(Decode)
    },
    SectionInfo {
        name: "a fault",
        expected: "a fault",
        example: "{ stall: 10 }",
        title: "Fault",
        one_of: &[&[
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
        ]],
        ..section(Fault)
    },
    SectionInfo {
        name: "`timeouts`",
        expected: "a map of durations",
        example: "{ first_token: 60s }",
        title: "Timeouts",
        ..section(Timeouts)
    },
    SectionInfo {
        name: "`run_variation`",
        expected: "a percentage or a map of percentages",
        example: "{ prompts: 3 %, workloads: 20 % }",
        title: "Variation between runs",
        ..section(RunVariation)
    },
    SectionInfo {
        name: "`token_count`",
        expected: "a map with `tokenizer`",
        example: "{ tokenizer: path/tokenizer.json }",
        title: "Token count",
        one_of: &[&["tokenizer"]],
        ..section(TokenCount)
    },
    SectionInfo {
        name: "a prompt",
        expected: "a map of a prompt's keys",
        example: "{ name: hello, text: \"Say hello.\" }",
        title: "Prompt",
        one_of: &[&["name"], &["text", "file", "dataset", "synthetic", "turns"]],
        only_with: &[("limit", "dataset"), ("seed", "dataset"), ("multi_turn", "dataset")],
        ..section(Prompt)
    },
    SectionInfo {
        name: "a tool",
        expected: "a tool in OpenAI's form",
        example: "{ type: function, function: { name: get_weather } }",
        title: "Tool",
        one_of: &[&["type"], &["function"]],
        ..section(Tool)
    },
    SectionInfo {
        name: "a function",
        expected: "a map of a function's keys",
        example: "{ name: get_weather }",
        title: "Function",
        one_of: &[&["name"]],
        ..section(Function)
    },
    SectionInfo {
        name: "`tool_choice`",
        expected: "a choice of a tool",
        example: "{ name: get_weather }",
        title: "Tool choice",
        one_of: &[&["name"]],
        ..section(Section::ToolChoice)
    },
    SectionInfo {
        name: "`synthetic`",
        expected: "a map with `input_tokens`",
        example: "{ input_tokens: 2048, output_tokens: 256 }",
        title: "Synthetic prompt",
        one_of: &[&["input_tokens"]],
        ..section(Synthetic)
    },
    SectionInfo {
        name: "a range of tokens",
        expected: "a number or a range",
        example: "{ min: 1000, max: 2000 }",
        title: "Range of tokens",
        one_of: &[&["min"], &["max"]],
        ..section(TokenRange)
    },
    SectionInfo {
        name: "a workload",
        expected: "a map of a workload's keys",
        example: "{ concurrency: 64, requests: 512 }",
        title: "Workload",
        one_of: &[&["concurrency", "rate", "trace", "find"]],
        some_of: &[&["requests", "duration", "trace"]],
        only_with: &[("arrivals", "rate"), ("speed", "trace")],
        ..section(Workload)
    },
    SectionInfo {
        name: "`find`",
        expected: "a map of a search's keys",
        example: "{ max: rate, subject_to: [\"ttft p95 <= 500 ms\"] }",
        title: "Search",
        one_of: &[&["max"], &["subject_to"]],
        ..section(Find)
    },
    SectionInfo {
        name: "a range of `concurrency`",
        expected: "a number, a list of numbers, or a range",
        example: "{ from: 1, to: 256, factor: 2 }",
        title: "Range of concurrency",
        ..section(ConcurrencyRange)
    },
    SectionInfo {
        name: "a range of `rate`",
        expected: "a rate, a list of rates, or a range",
        example: "{ from: 1/s, to: 64/s, factor: 2 }",
        title: "Range of rates",
        ..section(RateRange)
    },
    SectionInfo {
        name: "a trace",
        expected: "a file or a map with `file`",
        example: "{ file: traces/conversation.jsonl, block_size: 512 }",
        title: "Trace",
        one_of: &[&["file"]],
        ..section(Trace)
    },
    SectionInfo {
        name: "`think`",
        expected: "a duration or a range of durations",
        example: "{ min: 1s, max: 60s }",
        title: "Think time",
        one_of: &[&["min"], &["max"]],
        ..section(ThinkTime)
    },
    SectionInfo {
        name: "`steady_state`",
        expected: "`auto` or a map with `from`",
        example: "{ from: 10s, to: 60s }",
        title: "Steady state",
        one_of: &[&["from"]],
        ..section(SteadyState)
    },
    SectionInfo {
        name: "`abort`",
        expected: "a map with `failures`",
        example: "{ failures: 10 % }",
        title: "Abort",
        one_of: &[&["failures"]],
        ..section(Abort)
    },
    SectionInfo {
        name: "`shared_prefix`",
        expected: "a map with `groups` and `tokens`",
        example: "{ groups: 8, tokens: 1024 }",
        title: "Shared prefix",
        one_of: &[&["groups"], &["tokens"]],
        ..section(SharedPrefix)
    },
];

/// A section without a description.
const fn section(section: Section) -> SectionInfo {
    SectionInfo {
        section,
        name: "",
        expected: "",
        example: "",
        title: "",
        one_of: &[],
        some_of: &[],
        only_with: &[],
    }
}

/// The start of top-level keys that only hold YAML anchors.
const EXTENSION: &str = "x-";

/// Whether `key` of the top level only holds a YAML anchor.
pub(super) fn is_extension(key: &str) -> bool {
    key.starts_with(EXTENSION)
}

/// Whether `key` is a key of any section.
pub(super) fn is_known(key: &str) -> bool {
    KEYS.iter().any(|known| known.name == key)
}

impl Section {
    /// Its keys, in the order of the table.
    pub(super) fn keys(self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(move |key| key.sections.contains(&self))
    }

    /// The names of its keys.
    pub(super) fn names(self) -> Vec<&'static str> {
        self.keys().map(|key| key.name).collect()
    }

    /// Its key `name`.
    pub(super) fn key(self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// Returns its description.
    pub(super) fn info(self) -> &'static SectionInfo {
        // The test `each_section_is_described_once` shows that the position is right.
        &SECTIONS[self as usize]
    }

    /// Whether `key` is allowed and has no meaning.
    pub(super) fn ignores(self, key: &str) -> bool {
        self == Self::Top && is_extension(key)
    }
}

impl ValueShape {
    /// The first shape in it that `wanted` recognises.
    fn first<T>(&self, wanted: &impl Fn(&Self) -> Option<T>) -> Option<T> {
        match self {
            Any(shapes) => shapes.iter().find_map(|shape| shape.first(wanted)),
            shape => wanted(shape),
        }
    }

    /// The bounds of its whole numbers.
    pub(super) fn whole(&self) -> Option<(u64, u64)> {
        self.first(&|shape| match shape {
            Whole(low, high) => Option::Some((*low, *high)),
            _ => None,
        })
    }

    /// The bounds of its numbers.
    pub(super) fn number(&self) -> Option<(f64, f64)> {
        self.first(&|shape| match shape {
            Number(low, high) => Option::Some((*low, *high)),
            _ => None,
        })
    }

    /// Whether its durations may be zero, and the unit to suggest.
    pub(super) fn duration(&self) -> Option<(bool, &'static str)> {
        self.first(&|shape| match shape {
            Duration { zero, unit } => Option::Some((*zero, *unit)),
            _ => None,
        })
    }
}

fn protocols() -> Vec<&'static str> {
    protocol::names()
}

fn tool_choices() -> Vec<&'static str> {
    vec!["auto", "required", "none"]
}

fn flag_faults() -> Vec<&'static str> {
    let flags = Fault.keys().filter(|key| matches!(key.shape, Only(true)));
    flags.map(|key| key.name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_section_is_described_once() {
        for (nth, info) in SECTIONS.iter().enumerate() {
            assert_eq!(info.section as usize, nth, "{}", info.name);
            assert!(info.section.keys().next().is_some(), "{}", info.name);
        }
    }

    #[test]
    fn a_section_has_each_key_once_and_rules_name_its_keys() {
        for info in SECTIONS {
            let names = info.section.names();
            let unique: HashSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "{}", info.name);
            let groups = info.one_of.iter().chain(info.some_of).flat_map(|group| group.iter());
            let pairs = info.only_with.iter().flat_map(|(key, of)| [key, of]);
            for name in groups.chain(pairs) {
                assert!(names.contains(name), "{}: {name}", info.name);
            }
        }
    }

    #[test]
    fn each_help_is_a_sentence_in_one_line() {
        for key in KEYS {
            let help = key.help;
            assert!(help.ends_with('.') && !help.contains(['\n', '|']), "{}: {help}", key.name);
            assert!(help.starts_with(|ch: char| ch.is_uppercase()), "{}: {help}", key.name);
        }
    }
}
