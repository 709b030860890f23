//! The integration tests, one binary.

#![expect(clippy::disallowed_methods, reason = "tests set and read what users do")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod architecture;
mod arrivals;
mod baselines;
mod bench;
mod bodies;
mod ci;
mod config;
mod counts;
mod datasets;
#[cfg(target_os = "linux")]
mod disks;
mod documents;
mod drive;
mod faults;
mod first_contact;
mod framing;
mod fuzzed;
mod gate;
mod harness;
mod hostile;
mod http;
mod instrument;
#[cfg(target_os = "linux")]
mod interrupts;
mod library;
mod limits;
#[cfg(target_os = "linux")]
mod live_view;
#[cfg(target_os = "linux")]
mod memory;
mod mutated;
mod names;
mod non_streaming;
mod other_tools;
mod outcomes;
mod page;
mod phases;
mod player;
mod preflight;
mod prompts;
mod protocol;
mod protocols;
#[cfg(target_os = "linux")]
mod pseudo_terminal;
mod real_servers;
mod replicas;
mod reports;
mod request_files;
mod requests;
mod run_count;
mod schema;
mod searches;
mod secrets;
mod server_metrics;
mod server_series;
mod servers;
mod shell;
mod simulations;
mod stored_runs;
mod streams;
mod timing;
mod tls;
mod traffic;
mod trust;
#[cfg(unix)]
mod unix;
mod wait;
mod workloads;
