//! The pure part of `llm-stream-bench`: recordings, their interpretation, statistics and verdicts.
//!
//! ```text
//! Recording ─framing → protocol → sample→ Sample ─metric→ figures ─summary→ Summary
//!     Summary × Threshold (× Baseline) ─verdict→ Verdict
//! ```
//!
//! Nothing here reads a clock, the network, the environment or a terminal. The same input always
//! has the same output, so a recording can be evaluated again years later.

pub mod abort;
pub mod baseline;
pub mod cache_share;
pub mod capacity;
mod coding;
pub mod column;
pub mod comparison;
pub mod drift;
pub mod energy;
pub mod evidence;
pub mod exact;
pub mod framing;
pub mod goodput;
pub mod group;
pub mod interval;
pub mod lacking;
pub mod lengths;
pub mod load_stats;
pub mod metric;
mod moderation;
pub mod other_tools;
pub mod phases;
pub mod precision;
pub mod prompt;
pub mod protocol;
pub mod punctuality;
pub mod recording;
pub mod request_line;
pub mod requirement;
pub mod sample;
pub mod schedule;
pub mod serial;
pub mod server_metrics;
pub mod server_series;
#[cfg(test)]
mod simulations;
pub mod spread;
pub mod statistic;
pub mod steady;
pub mod summary;
pub mod synthetic;
pub mod text;
pub mod threshold;
pub mod tokenizer;
pub mod trace;
pub mod trend;
pub mod uncertainty;
pub mod unix_url;
pub mod verdict;
