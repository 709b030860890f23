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
//! # From code
//!
//! [`Bench`] measures a config and returns a [`Run`]; it prints nothing. An [`Observer`] receives the
//! [`Event`]s of the run, and a [`Cancellation`] ends it early.
//!
//! ```no_run
//! use llm_stream_bench::Bench;
//!
//! let run = Bench::from_file("configs.yaml")?.run(&mut ())?;
//! run.write_to("reports")?;
//! assert!(run.passed(), "{:?}", run.reasons());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The pipeline
//!
//! ```text
//! configs.yaml ─config→ Config ─plan→ Plan { cases } ─run::Runner→ trials
//!                                       │ one case
//!                             load + client                network, clock
//!                                       ↓
//!                   Result<Recording, RequestError>        raw bytes with arrival times
//!                    framing → protocol → sample           pure
//!                                       ↓
//!                   Result<Sample, RequestError> ─Event::Request→ Observer
//!              metric → statistic → summary → verdict      pure
//!                                       ↓
//!                             Run ─report→ bytes
//! ```
//!
//! The receive loop stores bytes with their times of arrival and interprets nothing. A figure is
//! right or absent with its reason, and an absent figure fails the threshold that asks for it.
//!
//! Modules without documentation here are internal: they have no stability and exist for this
//! project's tests.

mod bench;
#[doc(hidden)]
pub mod calibrate;
#[doc(hidden)]
pub mod cli;
mod commands;
#[doc(hidden)]
pub mod config;
mod env;
mod harness;
#[doc(hidden)]
pub mod load;
#[doc(hidden)]
pub mod machine_load;
#[doc(hidden)]
pub mod plan;
mod preflight;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod row;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod setup;
mod store;
mod temporary;
mod whole_file;

pub use llm_stream_core::{
    baseline::Baseline,
    metric::{METRICS, Metric},
    protocol::Protocol,
    recording::{Recording, RequestError},
    sample::Sample,
    summary::{Group, Summary},
    threshold::Threshold,
    verdict::Verdict,
};
pub use llm_stream_sim::{Fault, FaultKind, Script, Simulator};

#[doc(inline)]
pub use self::{
    bench::{Bench, BenchError},
    calibrate::Calibration,
    config::{ConfigError, ConfigErrors, Inconclusive},
    harness::{command, main},
    load::LoadCounters,
    plan::{Case, Overrides, Plan, PlanError, Target, Task, Workload},
    report::{
        GroupVerdicts, Instrument, ReportError, Run, RunOutcome, RunStatus, TrialResult,
        loads::LoadRow,
    },
    row::{LoadPosition, Row},
    run::{
        AddedBecause, Cancellation, Event, InstrumentSetting, Observer, ObserverError,
        TrialOutcome, TrialPosition,
    },
};
