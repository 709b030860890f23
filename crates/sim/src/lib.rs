//! The simulated endpoint: an HTTP server, on loopback or on a Unix domain socket, that streams
//! answers with a scripted rhythm and scripted faults, and logs every write.
//!
//! In reading order: [`Script`] is the schedule of an answer; `batching` is a
//! server with a limited capacity; `routing` selects the answer of a
//! request; `wire` is HTTP as bytes, `tls` encrypts it; `listener` accepts clients; `connection` is
//! one client; `reactor` is the thread that keeps the deadlines of all clients; `pace` is its
//! clock; [`AnswerLog`] is what the endpoint did, and
//! [`Punctuality`](llm_stream_core::punctuality::Punctuality) its deviation from the script.

mod batching;
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
    batching::ServerCapacity,
    in_virtual_time::VirtualRequest,
    log::{AnswerLog, Write},
    script::{Fault, FaultKind, Script, ScriptError},
    server::Simulator,
    tls::{SimulatorTls, TlsError},
};
