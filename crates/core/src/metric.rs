//! [`METRICS`]: every figure once, with its name, unit, direction, definition, and how to read it
//! from a [`Sample`] or from the [`LoadStats`] of a load. Help, CSV, summary, thresholds and glossary
//! all read this table. Code refers to a metric by its constant, such as [`Metric::TTFT`]; only text
//! that a user wrote is [looked up by name](Metric::named).
//!
//! Names and formulas are fixed under [`DEFINITIONS`]; changing one needs a new version.

use std::{cmp::Ordering, time::Duration};

use crate::{
    load_stats::LoadStats,
    sample::{CountKind, Note, Sample},
};

/// The version of the definitions and of the built-in prompts. Every row of the results contains
/// it.
pub const DEFINITIONS: &str = "1";

/// A metric: its meaning and its source.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its position in [`METRICS`]; [`SUCCESS_RATE`] has the one after the last.
    pub index: usize,
    /// Its name, everywhere.
    pub name: &'static str,
    /// Another name for the same figure, such as that of one of the 14 leading CSV columns.
    pub alias: Option<&'static str>,
    /// The unit.
    pub unit: Unit,
    /// The better direction.
    pub better: Better,
    /// The error of the instrument that applies to it.
    pub error: ErrorOf,
    /// The count of tokens that it is computed from.
    counted: Option<CountKind>,
    /// Whether the summary on the terminal shows it; the CSV has every figure.
    pub in_summary: bool,
    /// The definition, in one line.
    pub definition: &'static str,
    /// The source, which returns the base unit.
    pub read: MetricSource,
}

/// The source of a figure. The functions return `None` if the source lacks the figure.
#[derive(Debug, Clone, Copy)]
pub enum MetricSource {
    /// One valid answer.
    Sample(fn(&Sample) -> Option<f64>),
    /// One run of a load.
    Load(fn(&LoadStats) -> Option<f64>),
    /// All requests of a group together.
    All,
}

/// The unit of a figure. The base unit of times is the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A time; seconds in files, milliseconds on the terminal.
    Seconds,
    /// Tokens per second.
    TokensPerSecond,
    /// A number of tokens.
    Tokens,
    /// Requests per second.
    RequestsPerSecond,
    /// A number of requests.
    Requests,
    /// A share, in percent.
    Percent,
    /// An energy, in joules.
    Joules,
    /// An energy for each token, in joules.
    JoulesPerToken,
    /// A cost for each million tokens, in the currency of the config.
    CostPerMillionTokens,
    /// A number of items.
    Items,
    /// Items per second.
    ItemsPerSecond,
}

impl Unit {
    /// Returns the unit's name on the terminal and the number of these units in one base unit.
    pub const fn display(self) -> (&'static str, f64) {
        match self {
            Self::Seconds => ("ms", 1e3),
            Self::TokensPerSecond => ("tok/s", 1.0),
            Self::Tokens => ("tokens", 1.0),
            Self::RequestsPerSecond => ("req/s", 1.0),
            Self::Requests => ("req", 1.0),
            Self::Percent => ("%", 1.0),
            Self::Joules => ("J", 1.0),
            Self::JoulesPerToken => ("J/tok", 1.0),
            Self::CostPerMillionTokens => ("/Mtok", 1.0),
            Self::Items => ("items", 1.0),
            Self::ItemsPerSecond => ("items/s", 1.0),
        }
    }
}

/// The error of the instrument that applies to a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorOf {
    /// A time to one arrival: that arrival's.
    Arrival(TimedArrival),
    /// A single gap's.
    Gap,
    /// The relative error of `generation_time`.
    Generation,
    /// The relative error of `ttft`.
    FirstToken,
    /// The relative error of `total_time`.
    Whole,
    /// The error of `generation_time` as a share of the server's time.
    BeyondServer,
    /// No known error: a count, or a time that the instrument sets.
    Nothing,
}

/// The arrival at which a time ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedArrival {
    /// The response headers.
    Headers,
    /// The first event of any kind.
    FirstEvent,
    /// The first reasoning token.
    FirstReasoning,
    /// The first token.
    FirstToken,
    /// The first token of the answer.
    FirstAnswer,
    /// The last token-bearing event.
    LastToken,
    /// The end of the stream.
    End,
}

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither: the figure describes the load.
    Neither,
}

/// Defines [`METRICS`] and, for each entry, the constant of [`Metric`] that refers to it.
macro_rules! metrics {
    ($($constant:ident { $($field:tt)+ })+) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "named as the constants")]
        enum Index { $($constant,)+ COUNT }

        /// Every figure that a sample or a run of a load has.
        pub const METRICS: &[Metric] =
            &[$(Metric { index: Index::$constant as usize, $($field)+ },)+];

        #[expect(missing_docs, reason = "the table has the definitions")]
        impl Metric {
            $(pub const $constant: &'static Self = &METRICS[Index::$constant as usize];)+
        }

        #[cfg(test)]
        const CONSTANTS: &[(&str, &Metric)] = &[$((stringify!($constant), Metric::$constant),)+];
    };
}

metrics! {
    GENERATION_SPEED {
        name: "generation_speed",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::Generation,
        counted: Some(CountKind::Streamed),
        in_summary: true,
        definition: "response_tokens / generation_time; the figure that models are ranked by. Tokens \
                     of reasoning that the server hides came before that time and do not count",
        read: MetricSource::Sample(|sample| per_second(sample.streamed_tokens(), sample.generation_time())),
    }
    TTFT {
        name: "ttft",
        alias: Some("preprocess_time"),
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::FirstToken),
        counted: None,
        in_summary: true,
        definition: "request handed to the connection → first generated token (content, reasoning \
                     or tool call; a role alone is not a token)",
        read: MetricSource::Sample(|sample| seconds(sample.first_token())),
    }
    TTFO {
        name: "ttfo",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::FirstAnswer),
        counted: None,
        in_summary: true,
        definition: "request → first token of the answer, reasoning excluded",
        read: MetricSource::Sample(|sample| sample.first_answer.and_then(seconds)),
    }
    TPOT {
        name: "tpot",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Generation,
        counted: Some(CountKind::Streamed),
        in_summary: true,
        definition: "time per output token: generation_time / (response_tokens − tokens in the \
                     first event and before it)",
        read: MetricSource::Sample(tpot),
    }
    ITL {
        name: "itl",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Generation,
        counted: None,
        in_summary: true,
        definition: "mean gap between successive token-bearing events",
        read: MetricSource::Sample(mean_gap),
    }
    ITL_MAX {
        name: "itl_max",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Gap,
        counted: None,
        in_summary: true,
        definition: "longest gap between successive token-bearing events",
        read: MetricSource::Sample(|sample| {
            sample.generation_time().and(sample.gaps().max()).and_then(seconds)
        }),
    }
    GENERATION_TIME {
        name: "generation_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Generation,
        counted: None,
        in_summary: true,
        definition: "first → last token-bearing event; finish chunk, usage and [DONE] excluded",
        read: MetricSource::Sample(|sample| sample.generation_time().and_then(seconds)),
    }
    E2E {
        name: "e2e",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::LastToken),
        counted: None,
        in_summary: true,
        definition: "request → last token-bearing event; without a stream → last byte of the body",
        read: MetricSource::Sample(|sample| seconds(sample.last_token())),
    }
    TOTAL_TIME {
        name: "total_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::End),
        counted: None,
        in_summary: true,
        definition: "request → end of the stream",
        read: MetricSource::Sample(|sample| seconds(sample.end)),
    }
    TOTAL_TOKENS_PER_SECOND {
        name: "total_tokens_per_second",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::Whole,
        counted: Some(CountKind::Total),
        in_summary: true,
        definition: "total_tokens / total_time",
        read: MetricSource::Sample(|sample| per_second(sample.total_tokens?, Some(sample.end))),
    }
    PREPROCESS_SPEED {
        name: "preprocess_speed",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::FirstToken,
        counted: Some(CountKind::Prompt),
        in_summary: true,
        definition: "prompt_tokens / ttft; not the speed of prefill where part of the prompt was \
                     cached",
        read: MetricSource::Sample(|sample| per_second(sample.prompt_tokens?, Some(sample.first_token()))),
    }
    UNCACHED_PREPROCESS_SPEED {
        name: "uncached_preprocess_speed",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::FirstToken,
        counted: Some(CountKind::Prompt),
        in_summary: true,
        definition: "(prompt_tokens − cached_tokens) / ttft; absent where the server does not \
                     report cached tokens",
        read: MetricSource::Sample(uncached_preprocess_speed),
    }
    RESPONSE_TOKENS {
        name: "response_tokens",
        alias: None,
        unit: Unit::Tokens,
        better: Better::Neither,
        error: ErrorOf::Nothing,
        counted: Some(CountKind::Response),
        in_summary: true,
        definition: "generated tokens, reasoning included, by the server's usage",
        read: MetricSource::Sample(|sample| {
            sample.items.is_none().then_some(sample.response_tokens as f64)
        }),
    }
    PROMPT_TOKENS {
        name: "prompt_tokens",
        alias: None,
        unit: Unit::Tokens,
        better: Better::Neither,
        error: ErrorOf::Nothing,
        counted: Some(CountKind::Prompt),
        in_summary: true,
        definition: "tokens of the prompt, by the server's usage",
        read: MetricSource::Sample(|sample| sample.prompt_tokens.map(|tokens| tokens as f64)),
    }
    FIRST_BYTE_TIME {
        name: "first_byte_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::Headers),
        counted: None,
        in_summary: false,
        definition: "request → response headers",
        read: MetricSource::Sample(|sample| seconds(sample.first_byte)),
    }
    FIRST_EVENT_TIME {
        name: "first_event_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::FirstEvent),
        counted: None,
        in_summary: false,
        definition: "request → first event of any kind, even one without a token",
        read: MetricSource::Sample(|sample| seconds(sample.first_event)),
    }
    CONNECT_TIME {
        name: "connect_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: false,
        definition: "DNS + TCP + TLS of a new connection, in no other figure; absent on a reused \
                     one",
        read: MetricSource::Sample(|sample| sample.connect.and_then(seconds)),
    }
    TLS_TIME {
        name: "tls_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: false,
        definition: "the TLS handshake in connect_time; absent where there was none or the \
                     transport cannot tell",
        read: MetricSource::Sample(|sample| sample.tls.and_then(seconds)),
    }
    SEND_LAG {
        name: "send_lag",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "scheduled start → request handed to the connection, in an open loop, whose \
                     other times count from the scheduled start and so hold it",
        read: MetricSource::Sample(|sample| sample.lag.and_then(seconds)),
    }
    OUTPUT_THROUGHPUT {
        name: "output_throughput",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: tokens generated by all valid requests / time from its first \
                     request to its last valid answer's end or, if later, its last start",
        read: MetricSource::Load(|reached| reached.output_throughput),
    }
    REQUEST_THROUGHPUT {
        name: "request_throughput",
        alias: None,
        unit: Unit::RequestsPerSecond,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: valid requests / the same time",
        read: MetricSource::Load(|reached| Some(reached.request_throughput)),
    }
    GOODPUT {
        name: "goodput",
        alias: None,
        unit: Unit::RequestsPerSecond,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: requests that met every limit of `goodput` / the same time",
        read: MetricSource::Load(|reached| reached.goodput),
    }
    GOODPUT_RATIO {
        name: "goodput_ratio",
        alias: None,
        unit: Unit::Percent,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: requests that met every limit of `goodput` / all requests, \
                     failed ones included",
        read: MetricSource::Load(|reached| reached.goodput_ratio),
    }
    CONCURRENCY {
        name: "concurrency",
        alias: None,
        unit: Unit::Requests,
        better: Better::Neither,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: requests in flight, on average from the first to the last \
                     one's start",
        read: MetricSource::Load(|reached| Some(reached.concurrency)),
    }
    REQUEST_RATE {
        name: "request_rate",
        alias: None,
        unit: Unit::RequestsPerSecond,
        better: Better::Neither,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of an open loop's run: requests started a second",
        read: MetricSource::Load(|reached| reached.request_rate),
    }
    SEND_TIME {
        name: "send_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: false,
        definition: "request → its last byte taken by the kernel; absent where the transport \
                     cannot tell",
        read: MetricSource::Sample(|sample| sample.sent.and_then(seconds)),
    }
    FIRST_REASONING_TIME {
        name: "first_reasoning_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::FirstReasoning),
        counted: None,
        in_summary: false,
        definition: "request → first reasoning token; absent where there was none",
        read: MetricSource::Sample(|sample| sample.first_reasoning.and_then(seconds)),
    }
    SERVER_GENERATION_SPEED {
        name: "server_generation_speed",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: Some(CountKind::Response),
        in_summary: false,
        definition: "response_tokens / server_generation_time: generation_speed by the server's own \
                     clock",
        read: MetricSource::Sample(|sample| {
            per_second(sample.response_tokens, sample.server_generation_time())
        }),
    }
    SERVER_GENERATION_TIME {
        name: "server_generation_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: false,
        definition: "first → last token as the server says in its answer (llama.cpp, Ollama, Groq, \
                     Cerebras, vLLM with --enable-per-request-metrics)",
        read: MetricSource::Sample(|sample| sample.server_generation_time().and_then(seconds)),
    }
    SERVER_TTFT {
        name: "server_ttft",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: false,
        definition: "server_queue_time, if reported, + server_prompt_time",
        read: MetricSource::Sample(|sample| sample.server_first_token().and_then(seconds)),
    }
    SERVER_QUEUE_TIME {
        name: "server_queue_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: false,
        definition: "waiting in the server's queue, or for the model to be loaded, as the server \
                     says; llama.cpp does not",
        read: MetricSource::Sample(|sample| sample.server.queue.and_then(seconds)),
    }
    SERVER_PROMPT_TIME {
        name: "server_prompt_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: false,
        definition: "beginning of the work on the prompt → first token, as the server says",
        read: MetricSource::Sample(|sample| sample.server.prompt.and_then(seconds)),
    }
    TTFT_BEYOND_SERVER {
        name: "ttft_beyond_server",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::FirstToken),
        counted: None,
        in_summary: false,
        definition: "ttft, without send_lag, − server_ttft: the network, and what the server does \
                     before its clock starts",
        read: MetricSource::Sample(|sample| {
            let theirs = sample.server_first_token()?.as_secs_f64();
            Some(sample.first_token_of_request().as_secs_f64() - theirs)
        }),
    }
    SERVER_HEAD_TIME {
        name: "server_head_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: false,
        definition: "request → response headers as those say (openai-processing-ms, \
                     x-envoy-upstream-service-time)",
        read: MetricSource::Sample(|sample| sample.server_head.and_then(seconds)),
    }
    FIRST_BYTE_BEYOND_SERVER {
        name: "first_byte_beyond_server",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival(TimedArrival::Headers),
        counted: None,
        in_summary: false,
        definition: "first_byte_time, without send_lag, − server_head_time: the network, and what \
                     stands before the server",
        read: MetricSource::Sample(|sample| {
            let theirs = sample.server_head?.as_secs_f64();
            Some(sample.head_of_request().as_secs_f64() - theirs)
        }),
    }
    GENERATION_BEYOND_SERVER {
        name: "generation_beyond_server",
        alias: None,
        unit: Unit::Percent,
        better: Better::Neither,
        error: ErrorOf::BeyondServer,
        counted: None,
        in_summary: false,
        definition: "generation_time / server_generation_time − 1; absent where reasoning is hidden",
        read: MetricSource::Sample(|sample| {
            let theirs = sample.server_generation_time()?.as_secs_f64();
            // The server's time includes hidden reasoning, and ours does not.
            if sample.hidden_reasoning_tokens() > 0 {
                return None;
            }
            Some(100.0 * (sample.generation_time()?.as_secs_f64() / theirs - 1.0))
        }),
    }
    CAPACITY {
        name: "capacity",
        alias: None,
        unit: Unit::RequestsPerSecond,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a search with `max: rate`: the highest rate of arrivals that holds the \
                     limits of `subject_to`",
        read: MetricSource::Load(|reached| {
            reached.capacity.filter(|of| !of.is_concurrency).map(|of| of.value)
        }),
    }
    MAX_CONCURRENCY {
        name: "max_concurrency",
        alias: None,
        unit: Unit::Requests,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a search with `max: concurrency`: the most requests at a time that hold \
                     the limits of `subject_to`",
        read: MetricSource::Load(|reached| {
            reached.capacity.filter(|of| of.is_concurrency).map(|of| of.value)
        }),
    }
    OUTPUT_THROUGHPUT_PER_GPU {
        name: "output_throughput_per_gpu",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: output_throughput / `gpus`",
        read: MetricSource::Load(LoadStats::output_throughput_per_gpu),
    }
    COST_PER_MILLION_OUTPUT_TOKENS {
        name: "cost_per_million_output_tokens",
        alias: None,
        unit: Unit::CostPerMillionTokens,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: `cost_per_hour` / 3600 / output_throughput × 1,000,000, in the \
                     currency of `cost_per_hour`; the mean is that of the mean output_throughput",
        read: MetricSource::Load(LoadStats::cost_per_million_output_tokens),
    }
    ENERGY {
        name: "energy",
        alias: None,
        unit: Unit::Joules,
        better: Better::Neither,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: energy of all GPUs that `power_url` exports, over the time of \
                     output_throughput",
        read: MetricSource::Load(LoadStats::joules),
    }
    ENERGY_PER_OUTPUT_TOKEN {
        name: "energy_per_output_token",
        alias: None,
        unit: Unit::JoulesPerToken,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: energy / tokens generated by all valid requests",
        read: MetricSource::Load(LoadStats::joules_per_output_token),
    }
    ITEMS {
        name: "items",
        alias: None,
        unit: Unit::Items,
        better: Better::Neither,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "embeddings, or documents with a score, in the answer; absent for generated text",
        read: MetricSource::Sample(|sample| sample.items.map(|items| items as f64)),
    }
    ITEMS_PER_SECOND {
        name: "items_per_second",
        alias: None,
        unit: Unit::ItemsPerSecond,
        better: Better::Higher,
        error: ErrorOf::Whole,
        counted: None,
        in_summary: true,
        definition: "items / e2e",
        read: MetricSource::Sample(|sample| per_second(sample.items?, Some(sample.last_token()))),
    }
    ITEM_THROUGHPUT {
        name: "item_throughput",
        alias: None,
        unit: Unit::ItemsPerSecond,
        better: Better::Higher,
        error: ErrorOf::Nothing,
        counted: None,
        in_summary: true,
        definition: "of a load's run: items of all valid requests / the time of output_throughput",
        read: MetricSource::Load(|reached| reached.item_throughput),
    }
}

/// The share of successful requests, which is a figure of a whole group.
pub const SUCCESS_RATE: Metric = Metric {
    index: Index::COUNT as usize,
    name: "success_rate",
    alias: None,
    unit: Unit::Percent,
    better: Better::Higher,
    error: ErrorOf::Nothing,
    counted: None,
    in_summary: false,
    definition: "valid requests / all requests",
    read: MetricSource::All,
};

impl Metric {
    /// Returns whether its values can be negative: it is a difference.
    pub fn can_be_negative(&self) -> bool {
        let differences = [
            Self::TTFT_BEYOND_SERVER,
            Self::FIRST_BYTE_BEYOND_SERVER,
            Self::GENERATION_BEYOND_SERVER,
        ];
        differences.contains(&self)
    }
}

/// Metrics are equal if they are the same entry of the table.
impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for Metric {}

/// Metrics are sorted by name.
impl Ord for Metric {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(other.name)
    }
}

impl PartialOrd for Metric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Metric {
    /// Returns the metrics of the summary that can get better or worse.
    pub fn comparable() -> impl Iterator<Item = &'static Self> {
        METRICS.iter().filter(|metric| {
            metric.in_summary
                && metric.better != Better::Neither
                && !matches!(metric.read, MetricSource::All)
        })
    }

    /// Returns the metric with this name or alias.
    pub fn named(name: &str) -> Option<&'static Self> {
        METRICS
            .iter()
            .chain([&SUCCESS_RATE])
            .find(|metric| metric.name == name || metric.alias == Some(name))
    }

    /// Returns the value for one answer; `None` if the metric is not one of answers or its counts
    /// are refused.
    pub fn of(&self, sample: &Sample) -> Option<f64> {
        match self.read {
            MetricSource::Sample(_) if !sample.is_streamed && self.needs_stream() => None,
            MetricSource::Sample(read) if self.refused(sample).is_none() => read(sample),
            MetricSource::Sample(_) | MetricSource::Load(_) | MetricSource::All => None,
        }
    }

    /// Returns the note that refuses the counts of the metric.
    pub fn refused(&self, sample: &Sample) -> Option<Note> {
        // Most answers have no notes, so the metric's name need not be compared.
        let refusing = !sample.notes.is_empty();
        self.counted.filter(|_| refusing).and_then(|count| sample.refused(count))
    }

    /// Returns whether it is a figure of items, which generated text does not have.
    pub fn is_of_items(&self) -> bool {
        self.is_one_of(&[Self::ITEMS, Self::ITEMS_PER_SECOND, Self::ITEM_THROUGHPUT])
    }

    /// Returns whether it counts generated tokens, which an answer of items does not have.
    pub fn is_of_generated_tokens(&self) -> bool {
        self.is_one_of(&[
            Self::RESPONSE_TOKENS,
            Self::OUTPUT_THROUGHPUT,
            Self::SERVER_GENERATION_SPEED,
            Self::SERVER_GENERATION_TIME,
        ])
    }

    /// Returns whether it needs the arrival of a single token or event, which an answer that is not
    /// streamed does not have.
    pub fn needs_stream(&self) -> bool {
        self.is_of_generation()
            || self.is_one_of(&[
                Self::TTFT,
                Self::TTFO,
                Self::FIRST_REASONING_TIME,
                Self::FIRST_EVENT_TIME,
                Self::PREPROCESS_SPEED,
                Self::UNCACHED_PREPROCESS_SPEED,
                Self::TTFT_BEYOND_SERVER,
            ])
    }

    /// Returns whether it is computed from the time between tokens, or from the gaps in it.
    pub fn is_of_generation(&self) -> bool {
        self.is_one_of(&[
            Self::GENERATION_SPEED,
            Self::TPOT,
            Self::ITL,
            Self::ITL_MAX,
            Self::GENERATION_TIME,
            Self::GENERATION_BEYOND_SERVER,
        ])
    }

    /// Returns whether `metrics` contains it.
    pub fn is_one_of(&self, metrics: &[&Self]) -> bool {
        metrics.contains(&self)
    }

    /// Returns every name that [`named`](Self::named) accepts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        METRICS
            .iter()
            .chain([&SUCCESS_RATE])
            .flat_map(|metric| std::iter::once(metric.name).chain(metric.alias))
    }
}

fn seconds(time: Duration) -> Option<f64> {
    Some(time.as_secs_f64())
}

/// Returns `None` if the time is zero: no figure is infinite.
fn per_second(count: u64, time: Option<Duration>) -> Option<f64> {
    let seconds = time?.as_secs_f64();
    (seconds > 0.0).then(|| count as f64 / seconds)
}

fn tpot(sample: &Sample) -> Option<f64> {
    let tokens = sample.tokens_after_first_event();
    let time = sample.generation_time()?;
    (tokens > 0).then(|| time.as_secs_f64() / tokens as f64)
}

fn mean_gap(sample: &Sample) -> Option<f64> {
    let gaps = sample.token_events.len().checked_sub(1)?;
    let time = sample.generation_time()?;
    (gaps > 0).then(|| time.as_secs_f64() / gaps as f64)
}

fn uncached_preprocess_speed(sample: &Sample) -> Option<f64> {
    let uncached = sample.prompt_tokens?.checked_sub(sample.cached_tokens?)?;
    per_second(uncached, Some(sample.first_token()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_constant_refers_to_the_metric_of_its_name() {
        for (index, (constant, metric)) in CONSTANTS.iter().enumerate() {
            assert_eq!(constant.to_lowercase(), metric.name);
            assert_eq!((metric.index, METRICS[index].name), (index, metric.name));
        }
        assert_eq!(SUCCESS_RATE.index, METRICS.len());
    }
}
