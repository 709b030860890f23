//! The worker processes of `calibrate --full`: the simulated endpoint, and a reader of its streams.
//! They exchange JSON with the process that started them, with times on a clock that processes
//! share.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use llm_stream_client::{
    AnswerForm, Client, Options, Preconnect, ReferenceReader, ReferenceStream,
    connect_options::{Certificate, ConnectOptions},
};
use llm_stream_core::{
    protocol::{OpenAiChat, Protocol},
    recording::{Recording, StampedBy},
    sample::{self, Sample},
};
use llm_stream_sim::{self as sim, Fault, FaultKind, Script, Simulator};
use serde::{Deserialize, Serialize};

use super::{
    Carrier, Load, Loopback, Streams,
    machine::{self, SharedClock},
};
use crate::{
    config::{ConnectionMode, TokenCount},
    plan::{Timeouts, Transport},
};

/// The task of a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum WorkerTask {
    /// Serve the simulated endpoint of this trial to this reader.
    Serve(Trial, StreamReader),
    /// Read the streams of a trial.
    Read(Reading),
}

/// The streams of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Streams at the same time.
    pub streams: usize,
    /// Rounds of `streams` streams, one after the other.
    pub rounds: usize,
    /// Request → first token.
    pub ttft: Duration,
    /// Between tokens. Zero measures throughput only: single times are not compared.
    pub itl: Duration,
    /// Tokens of each stream.
    pub tokens: u64,
    /// Token events per write.
    pub merged: u64,
}

/// The reader of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StreamReader {
    /// A minimal reader of the sockets, the baseline of the others.
    Reference,
    /// The transport `stamped`.
    Stamped,
    /// The same over TLS.
    Encrypted,
    /// The transport `reqwest`.
    Reqwest,
}

impl StreamReader {
    /// All readers, the baseline first.
    pub const ALL: [Self; 4] = [Self::Reference, Self::Stamped, Self::Encrypted, Self::Reqwest];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Stamped => Transport::Stamped.name(),
            Self::Encrypted => "over TLS",
            Self::Reqwest => Transport::Reqwest.name(),
        }
    }
}

/// The task of a reader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reading {
    pub(super) trial: Trial,
    pub(super) hello: Hello,
    pub(super) reader: StreamReader,
}

/// The endpoint of a trial, in its own process.
#[derive(Debug)]
pub struct EndpointWorker {
    simulator: Simulator,
    hello: Hello,
}

/// The first line of an endpoint's process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    address: SocketAddr,
    /// The certificate of a TLS endpoint, as DER.
    certificate: Option<Vec<u8>>,
    pub(super) core: Option<usize>,
}

/// The log of an endpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Served {
    /// CPU time of the process.
    pub(super) cpu: Option<Duration>,
    pub(super) answers: Vec<Answered>,
}

/// An answer of the endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) id: String,
    pub(super) received: u64,
    /// The writes that held a token.
    pub(super) writes: Vec<Written>,
}

/// A write: when it was due, when the call began, and when it returned.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Written(pub(super) u64, pub(super) u64, pub(super) u64);

impl EndpointWorker {
    /// Starts the endpoint.
    pub fn start(trial: Trial, reader: StreamReader) -> anyhow::Result<Self> {
        let core = machine::pin(0);
        let merge = Fault { kind: FaultKind::Merge(trial.merged), request: None };
        let faults = if trial.merged > 1 { vec![merge] } else { Vec::new() };
        let Trial { ttft, itl, tokens, .. } = trial;
        let script = Script { ttft, itl, tokens, faults, ..Script::default() };
        let carrier = match reader {
            StreamReader::Encrypted => Carrier::Tls,
            StreamReader::Reference | StreamReader::Stamped | StreamReader::Reqwest => Carrier::Tcp,
        };
        let Loopback { simulator, route, .. } = super::endpoint(script, carrier)?;
        let certificate = route.tls.roots.first().map(|certificate| certificate.der().to_vec());
        let address = simulator.addr().context("the endpoint has no port")?;
        let hello = Hello { address, certificate, core };
        Ok(Self { simulator, hello })
    }

    /// Where to connect to.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The log so far.
    pub fn served(&self) -> Served {
        let cpu = machine::cpu_time();
        let clock = SharedClock::new();
        let written = |write: &sim::Write| {
            let [due, began, returned] =
                [write.due, write.began, write.returned].map(|moment| clock.of(moment));
            Written(due, began, returned)
        };
        let answered = |answer: sim::AnswerLog| Answered {
            received: clock.of(answer.received),
            writes: answer.writes.iter().filter(|w| w.token_events > 0).map(written).collect(),
            id: answer.id,
        };
        Served { cpu, answers: self.simulator.log().into_iter().map(answered).collect() }
    }
}

/// The result of a reader.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub(super) core: Option<usize>,
    pub(super) stamped_by: StampedBy,
    pub(super) cpu: Option<Duration>,
    pub(super) took: Duration,
    /// Peak memory beyond the memory of the process before it had a client, in bytes.
    pub(super) memory: Option<u64>,
    pub(super) tokens: u64,
    pub(super) streams: Vec<Streamed>,
}

/// A stream: its id, its start, and the arrival of each token after the start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Streamed {
    pub(super) id: String,
    pub(super) origin: u64,
    pub(super) tokens: Vec<Duration>,
}

/// Reads the streams of a trial. Fails if a stream lacks tokens.
pub fn read(reading: &Reading) -> anyhow::Result<Report> {
    let core = machine::pin(1);
    let before = machine::memory();
    let mut source = Source::of(reading)?;
    let (begun, cpu) = (machine::shared_nanoseconds(), machine::cpu_time());
    let mut read = Vec::new();
    for _ in 0..reading.trial.rounds {
        source.round(reading.trial, &mut read)?;
    }
    let cpu = machine::cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let took = Duration::from_nanos(machine::shared_nanoseconds() - begun);
    let memory = machine::memory().zip(before);
    let streams = read.len();
    anyhow::ensure!(
        streams == reading.trial.rounds * reading.trial.streams
            && read.iter().all(|stream| stream.tokens.len() as u64 == reading.trial.tokens),
        "a stream lacks tokens"
    );
    Ok(Report {
        core,
        stamped_by: match read.iter().all(|stream| stream.by_kernel) {
            true => StampedBy::Kernel,
            false => StampedBy::Program,
        },
        cpu,
        took,
        memory: memory.map(|(after, before)| after.peak.saturating_sub(before.resident)),
        tokens: streams as u64 * reading.trial.tokens,
        streams: match reading.trial.is_timed() {
            true => streamed(read),
            false => Vec::new(),
        },
    })
}

impl Trial {
    /// Whether the times of single tokens are compared.
    pub(super) fn is_timed(&self) -> bool {
        !self.itl.is_zero()
    }

    fn load(&self) -> Load {
        let Self { streams, ttft, itl, tokens, .. } = *self;
        Load { streams, requests: streams, ttft, itl, tokens }
    }
}

fn streamed(read: Vec<Stream>) -> Vec<Streamed> {
    let clock = SharedClock::new();
    let of = |Stream { id, origin, tokens, .. }| Streamed { id, origin: clock.of(origin), tokens };
    read.into_iter().map(of).collect()
}

/// A stream that was read, with times of this process's clock.
struct Stream {
    id: String,
    origin: std::time::Instant,
    tokens: Vec<Duration>,
    by_kernel: bool,
}

/// A running reader.
enum Source {
    ReferenceReader(Box<ReferenceReader>),
    Client(Client),
}

impl Source {
    fn of(reading: &Reading) -> anyhow::Result<Self> {
        let path = format!("/v1{}", OpenAiChat.path());
        let transport = match reading.reader {
            StreamReader::Reference => {
                let body = Streams::new(reading.trial.load()).body;
                return Ok(Self::ReferenceReader(Box::new(ReferenceReader::new(
                    reading.hello.address,
                    &path,
                    &body,
                )?)));
            }
            StreamReader::Stamped | StreamReader::Encrypted => Transport::Stamped,
            StreamReader::Reqwest => Transport::Reqwest,
        };
        let Hello { address, certificate, .. } = &reading.hello;
        let (scheme, route) = match certificate {
            Some(der) => ("https", ConnectOptions::trusting([Certificate::from_der(der.clone())])),
            None => ("http", ConnectOptions::default()),
        };
        let url = format!("{scheme}://{address}{path}");
        let timeouts = Timeouts::default();
        let connection = ConnectionMode::Warm;
        let options = Options {
            replicas: &[],
            url: &url,
            headers: &[],
            api_key: None,
            timeouts,
            transport,
            connection,
            protocol: &OpenAiChat,
            answer: AnswerForm::Stream { needs_usage: true },
            route: &route,
        };
        Ok(Self::Client(Client::new(&options)?))
    }

    /// Reads a round of streams and decodes them.
    fn round(&mut self, trial: Trial, streams: &mut Vec<Stream>) -> anyhow::Result<()> {
        match self {
            Self::ReferenceReader(reader) => {
                for read in reader.round(trial.streams)? {
                    streams.push(Stream::from_reference(read, trial.tokens)?);
                }
            }
            Self::Client(client) => {
                client.drive(&mut Preconnect::new(trial.streams), &());
                let mut jobs = Streams::new(trial.load());
                client.drive(&mut jobs, &());
                for recording in jobs.recordings {
                    let sample = sample::read(&recording, &OpenAiChat, TokenCount::Usage)?;
                    streams.push(Stream::from_recording(&recording, sample)?);
                }
            }
        }
        Ok(())
    }
}

impl Stream {
    fn from_recording(recording: &Recording, sample: Sample) -> anyhow::Result<Self> {
        Ok(Self {
            id: sample.request_id.context("a stream without its id")?,
            origin: recording.origin.context("a recording without its start")?,
            by_kernel: sample.stamped_by == StampedBy::Kernel,
            tokens: sample.token_events,
        })
    }

    /// The first line has only the role; behind the last token follow the finish reason, the usage
    /// and `[DONE]`.
    fn from_reference(read: ReferenceStream, tokens: u64) -> anyhow::Result<Self> {
        let first = String::from_utf8_lossy(&read.first);
        let id = first.split_once("\"id\":\"").and_then(|(_, rest)| rest.split_once('"'));
        let lines = read.lines.iter().skip(1).take(usize::try_from(tokens)?);
        Ok(Self {
            id: id.context("a stream without its id")?.0.to_owned(),
            origin: read.origin,
            by_kernel: read.by_kernel,
            tokens: lines.map(|at| at.saturating_duration_since(read.origin)).collect(),
        })
    }
}
