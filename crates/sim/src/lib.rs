//! The simulated endpoint: a real HTTP server, on loopback or a socket in the file system, that
//! streams answers at a stated rhythm, with faults on request, and logs when each write returned.
//!
//! In reading order: [`Script`] says what is due when; `routing` says which answer a request gets;
//! `wire` is HTTP as bytes, `tls` the same encrypted; `listener` is where clients come in; `connection`
//! is one client; `reactor` is the thread that keeps every deadline of every client; `pace` is its
//! clock; [`AnswerLog`] is what it really did, and [`Punctuality`](llm_stream_core::punctuality::Punctuality) how that differs from the script.

mod connection;
mod in_virtual_time;
mod listener;
mod log;
mod pace;
mod reactor;
mod routing;
mod script;
mod server;
mod tls;
mod wire;

pub use self::{
    log::{AnswerLog, Write},
    script::{Fault, FaultKind, Script, ScriptError},
    server::Simulator,
    tls::{SimulatorTls, TlsError},
};
