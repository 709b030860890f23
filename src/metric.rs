//! [`METRICS`]: every figure once, with its name, unit, direction, definition, and how to read it
//! off a [`Sample`]. Help, CSV, summary, thresholds and glossary all read this table.
//!
//! Names and formulas are fixed under [`DEFINITIONS`]; a change of either is a new version.

use std::time::Duration;

use crate::sample::Sample;

/// Version of the definitions below and of the built-in prompts; in every row of the results.
pub const DEFINITIONS: &str = "1";

/// One figure: what it means and how to read it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, everywhere.
    pub name: &'static str,
    /// Another name for the same figure, such as the one of the 14 leading CSV columns.
    pub alias: Option<&'static str>,
    /// What it is counted in.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
    /// Which error of the instrument it has.
    pub error: ErrorOf,
    /// Whether the summary on the terminal shows it; the CSV has every figure.
    pub in_summary: bool,
    /// Its definition, in one line.
    pub definition: &'static str,
    /// Reads it off a sample, in the base unit; `None` when the sample has no such figure.
    pub read: fn(&Sample) -> Option<f64>,
}

/// What a figure is counted in. The base unit of a time is the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A time; seconds in files, milliseconds on the terminal.
    Seconds,
    /// Tokens a second.
    TokensPerSecond,
    /// A number of tokens.
    Tokens,
    /// A share, in percent.
    Percent,
}

impl Unit {
    /// The unit's name on the terminal, and how much of it one base unit is.
    pub const fn display(self) -> (&'static str, f64) {
        match self {
            Self::Seconds => ("ms", 1e3),
            Self::TokensPerSecond => ("tok/s", 1.0),
            Self::Tokens => ("tokens", 1.0),
            Self::Percent => ("%", 1.0),
        }
    }
}

/// Which of the instrument's errors a figure has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorOf {
    /// A time to one arrival: that arrival's.
    Arrival,
    /// A single gap's.
    Gap,
    /// `generation_time`'s, in proportion.
    Generation,
    /// `ttft`'s, in proportion.
    FirstToken,
    /// `total_time`'s, in proportion.
    Whole,
    /// None that is known: a count, or a time that the instrument sets.
    Nothing,
}

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither: a fact about the load.
    Neither,
}

/// Every figure that a sample has.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "generation_speed",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::Generation,
        in_summary: true,
        definition: "response_tokens / generation_time; the figure that models are ranked by",
        read: |sample| per_second(sample.response_tokens, sample.generation_time()),
    },
    Metric {
        name: "ttft",
        alias: Some("preprocess_time"),
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival,
        in_summary: true,
        definition: "request handed to the connection → first generated token (content, reasoning \
                     or tool call; a role alone is not a token)",
        read: |sample| seconds(sample.first_token()),
    },
    Metric {
        name: "ttfo",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival,
        in_summary: true,
        definition: "request → first token of the answer, reasoning excluded",
        read: |sample| sample.first_answer.and_then(seconds),
    },
    Metric {
        name: "tpot",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Generation,
        in_summary: true,
        definition: "time per output token: generation_time / (response_tokens − tokens in the \
                     first event)",
        read: tpot,
    },
    Metric {
        name: "itl",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Generation,
        in_summary: true,
        definition: "mean gap between successive token-bearing events",
        read: mean_gap,
    },
    Metric {
        name: "itl_max",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Gap,
        in_summary: true,
        definition: "longest gap between successive token-bearing events",
        read: |sample| sample.generation_time().and(sample.gaps().max()).and_then(seconds),
    },
    Metric {
        name: "generation_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Generation,
        in_summary: true,
        definition: "first → last token-bearing event; finish chunk, usage and [DONE] excluded",
        read: |sample| sample.generation_time().and_then(seconds),
    },
    Metric {
        name: "e2e",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival,
        in_summary: true,
        definition: "request → last token-bearing event",
        read: |sample| seconds(sample.last_token()),
    },
    Metric {
        name: "total_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival,
        in_summary: true,
        definition: "request → end of the stream",
        read: |sample| seconds(sample.end),
    },
    Metric {
        name: "total_tokens_per_second",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::Whole,
        in_summary: true,
        definition: "total_tokens / total_time",
        read: |sample| per_second(sample.total_tokens?, Some(sample.end)),
    },
    Metric {
        name: "preprocess_speed",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::FirstToken,
        in_summary: true,
        definition: "prompt_tokens / ttft; not the speed of prefill where part of the prompt was \
                     cached",
        read: |sample| per_second(sample.prompt_tokens?, Some(sample.first_token())),
    },
    Metric {
        name: "uncached_preprocess_speed",
        alias: None,
        unit: Unit::TokensPerSecond,
        better: Better::Higher,
        error: ErrorOf::FirstToken,
        in_summary: true,
        definition: "(prompt_tokens − cached_tokens) / ttft; absent where the server does not \
                     report cached tokens",
        read: uncached_preprocess_speed,
    },
    Metric {
        name: "response_tokens",
        alias: None,
        unit: Unit::Tokens,
        better: Better::Neither,
        error: ErrorOf::Nothing,
        in_summary: true,
        definition: "generated tokens, reasoning included, by the server's usage",
        read: |sample| Some(sample.response_tokens as f64),
    },
    Metric {
        name: "prompt_tokens",
        alias: None,
        unit: Unit::Tokens,
        better: Better::Neither,
        error: ErrorOf::Nothing,
        in_summary: true,
        definition: "tokens of the prompt, by the server's usage",
        read: |sample| sample.prompt_tokens.map(|tokens| tokens as f64),
    },
    Metric {
        name: "first_byte_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival,
        in_summary: false,
        definition: "request → response headers",
        read: |sample| seconds(sample.first_byte),
    },
    Metric {
        name: "first_event_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Arrival,
        in_summary: false,
        definition: "request → first event of any kind, even one without a token",
        read: |sample| seconds(sample.first_event),
    },
    Metric {
        name: "connect_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        in_summary: false,
        definition: "DNS + TCP + TLS of a new connection, in no other figure; absent on a reused \
                     one",
        read: |sample| sample.connect.and_then(seconds),
    },
    Metric {
        name: "tls_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        in_summary: false,
        definition: "the TLS handshake in connect_time; absent where there was none or the \
                     transport cannot tell",
        read: |sample| sample.tls.and_then(seconds),
    },
    Metric {
        name: "send_time",
        alias: None,
        unit: Unit::Seconds,
        better: Better::Lower,
        error: ErrorOf::Nothing,
        in_summary: false,
        definition: "request → its last byte taken by the kernel; absent where the transport \
                     cannot tell",
        read: |sample| sample.sent.and_then(seconds),
    },
];

/// The share of trials that succeeded, in percent: a figure of all trials, not of one.
pub const SUCCESS_RATE: Metric = Metric {
    name: "success_rate",
    alias: None,
    unit: Unit::Percent,
    better: Better::Higher,
    error: ErrorOf::Nothing,
    in_summary: false,
    definition: "valid trials / all trials",
    read: |_| None,
};

impl Metric {
    /// The metric of this name or alias.
    pub fn named(name: &str) -> Option<&'static Self> {
        METRICS
            .iter()
            .chain([&SUCCESS_RATE])
            .find(|metric| metric.name == name || metric.alias == Some(name))
    }

    /// Every name that [`named`](Self::named) knows.
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

/// `None` when the time is nothing: no figure is infinite.
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
