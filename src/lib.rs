//! `cargo bench` for LLM endpoints: how fast do they stream, and did they get slower?
//!
//! A bench target of one line turns each model × prompt × run of `configs.yaml` into a libtest
//! trial:
//!
//! ```no_run
//! // benches/llm.rs, with `harness = false`
//! fn main() -> std::process::ExitCode {
//!     llm_stream_bench::main()
//! }
//! ```
//!
//! # The pipeline
//!
//! ```text
//! configs.yaml ─config→ Config ─plan→ Plan{Case…} ─harness→ libtest trials
//!                                       │ one Case
//!                             load + client                async, network, clock
//!                                       ↓
//!                   Result<Recording, RequestError>        raw bytes with arrival times
//!                    framing → protocol → sample           pure
//!                                       ↓
//!                   Result<Sample, RequestError>
//!              metric → statistic → summary → verdict      pure
//!                                       ↓
//!                   Row, Summary, Verdict ─report→ bytes ─harness→ exit code
//! ```
//!
//! Record first, interpret later: the receive loop notes when bytes arrived and looks into none of
//! them. A number is either right or absent with its reason, and an absent number fails the
//! threshold that asks for it.

mod bench;
pub mod calibrate;
pub mod cli;
mod commands;
pub mod config;
mod env;
mod harness;
pub mod load;
pub mod plan;
pub mod preflight;
pub mod report;
pub mod row;
pub mod run;

pub use self::{
    bench::{Bench, BenchError},
    harness::{command, main},
    plan::Overrides,
};
