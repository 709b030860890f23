//! The figures of a recorded answer by the definitions of other benchmark tools. Pure.
//!
//! The same stream has another "TTFT", "TPOT" or throughput in each tool, because the tools differ in
//! the event that counts as the first token, in the end of a request, and in the divisor. This module
//! applies their definitions to the arrivals that this program recorded. It reproduces the
//! definitions, not the delays of the tools' clients: see [`OtherTool::not_reproduced`].
//!
//! - `figures`: each figure of each tool with its formula, and its value for one request
//! - `times`: the start, the first token and the end of a request as a tool takes them
//! - `reasons`: why a value differs from ours
//! - `definitions`: the statistics over many requests, next to ours

mod definitions;
mod figures;
mod reasons;
mod times;

use serde::Serialize;

pub use self::{
    definitions::{
        Definitions, DefinitionsCollector, FigureTable, GroupTables, LoadPlace, ReasonCount,
        Statistics, ToolRow,
    },
    figures::{FIGURES, PercentileMethod, ToolFigure},
    reasons::Reason,
};

/// Another benchmark tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherTool {
    /// vLLM's `vllm bench serve`.
    VllmBenchServe,
    /// SGLang's `bench_serving`.
    SglangBenchServing,
    /// NVIDIA's AIPerf.
    AiPerf,
    /// GuideLLM of the vLLM project.
    GuideLlm,
    /// EvalScope's `perf`, of ModelScope.
    EvalScope,
    /// genai-bench of the SGLang project.
    GenAiBench,
}

impl OtherTool {
    /// All tools, in the order of the tables.
    pub const ALL: [Self; 6] = [
        Self::VllmBenchServe,
        Self::SglangBenchServing,
        Self::AiPerf,
        Self::GuideLlm,
        Self::EvalScope,
        Self::GenAiBench,
    ];

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VllmBenchServe => "vllm bench serve",
            Self::SglangBenchServing => "SGLang bench_serving",
            Self::AiPerf => "AIPerf",
            Self::GuideLlm => "GuideLLM",
            Self::EvalScope => "EvalScope perf",
            Self::GenAiBench => "genai-bench",
        }
    }

    /// Returns the version whose definitions are reproduced.
    pub const fn version(self) -> &'static str {
        match self {
            Self::VllmBenchServe => "0.33.0",
            Self::SglangBenchServing => "0.5.23",
            Self::AiPerf => "0.13.0",
            Self::GuideLlm => "0.8.1",
            Self::EvalScope => "1.14.1",
            Self::GenAiBench => "0.0.5",
        }
    }

    /// Returns what the tool's own figures also contain, which recorded arrivals cannot show.
    pub const fn not_reproduced(self) -> &'static str {
        match self {
            Self::VllmBenchServe => {
                "takes the time after it has decoded and split the bytes; counts tokens with a \
                 tokenizer if the usage comes with a choice; a request that waits for \
                 `--max-concurrency` has not started"
            }
            Self::SglangBenchServing => {
                "opens a connection for each request, whose time is in its figures; takes the time \
                 after JSON is parsed; without usage from the server it divides by the length that \
                 was requested"
            }
            Self::AiPerf => {
                "counts tokens with its own tokenizer unless `--use-server-token-count` is set"
            }
            Self::GuideLlm => {
                "takes the time by the wall clock, after a line is decoded; by default it counts \
                 only requests inside its measurement window"
            }
            Self::EvalScope => "takes the time after JSON is parsed",
            Self::GenAiBench => {
                "opens a connection for each request, whose time is in its figures; its duration is \
                 that of the whole run, with the start of its workers"
            }
        }
    }
}
