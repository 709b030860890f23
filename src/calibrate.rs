//! The error of the instrument, on this machine, now: streams of the simulated endpoint, whose log
//! has the time of each write, measured by the code that measures every endpoint.
//!
//! The endpoint runs in this process, so both sides use one clock, and it takes CPU time from the
//! client that a remote server would not. The start of a request has no error by definition: the
//! client reads the clock, then sends. An arrival can have one. Its true time is taken before the
//! endpoint's write call, because no byte arrives earlier. The error therefore includes the time in
//! the loopback device, and is an upper bound.

pub(crate) mod machine;
pub mod suite;
pub mod worker;

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use llm_stream_client::{
    self as client, AnswerForm, AnswerObserver, Client, NextAction, Options, Preconnect,
    RequestSource,
    connect_options::{Certificate, ConnectOptions, Stamps},
};
use llm_stream_core::{
    prompt::{ChatMessage, Role, Tools},
    protocol::{ChatRequest, OpenAiChat, Protocol},
    recording::{Recording, RequestError, StampedBy},
    sample::{self, Sample},
    statistic::Statistic,
    verdict::InstrumentError,
};
use llm_stream_sim::{AnswerLog, Script, Simulator, SimulatorTls};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use tempfile::TempDir;

use crate::{
    config::{ConnectionMode, TokenCount},
    plan::{Timeouts, Transport},
};

/// Describes the measuring machine in a line.
pub fn machine_name() -> String {
    machine::description()
}

/// The streams to measure.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Streams at the same time.
    pub streams: usize,
    /// Streams in total.
    pub requests: usize,
    /// Request → first token.
    pub ttft: Duration,
    /// Between tokens.
    pub itl: Duration,
    /// Tokens of each stream.
    pub tokens: u64,
}

impl Load {
    /// A few short streams, one at a time; takes a third of a second.
    pub const SHORT: Self = Self {
        streams: 1,
        requests: 6,
        ttft: Duration::from_millis(5),
        itl: Duration::from_millis(2),
        tokens: 20,
    };

    /// A short load for `streams` streams at a time: one round of them.
    pub const fn short(streams: usize) -> Self {
        match streams {
            0 | 1 => Self::SHORT,
            _ => Self {
                streams,
                requests: streams,
                ttft: Duration::from_millis(20),
                itl: Duration::from_millis(if streams < 1024 { 10 } else { 20 }),
                tokens: 20,
            },
        }
    }

    /// The load of a row of `calibrate`: first token after 50 ms, then one every 10 ms, or every 20
    /// ms from 1,024 streams on; two rounds of streams, at least eight.
    pub fn of(streams: usize) -> Self {
        let itl = if streams < 1024 { 10 } else { 20 };
        Self {
            streams,
            requests: (2 * streams).max(8),
            ttft: Duration::from_millis(50),
            itl: Duration::from_millis(itl),
            tokens: 64,
        }
    }
}

/// The connection that carries the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// A unix socket.
    Unix,
}

/// The errors of the instrument: measured figure minus the figure of the endpoint's log.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Calibration {
    /// Streams at the same time.
    pub streams: usize,
    /// Whether they were encrypted.
    pub tls: bool,
    /// Whether they came through a unix socket.
    pub unix: bool,
    /// The clock of the timestamps: the kernel's or this program's.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("enum" = ["kernel", "program"])))]
    pub stamped_by: StampedBy,
    /// Whether each packet has a timestamp; otherwise each read has one.
    pub packets: bool,
    /// Error of `ttft`, in seconds.
    pub ttft: Spread,
    /// Error of a single gap between tokens, in seconds.
    pub gap: Spread,
    /// Relative error of `generation_time`, which is that of `generation_speed` too.
    pub generation: Spread,
}

impl Calibration {
    /// The bounds of the error of each kind of figure.
    pub fn bounds(&self) -> InstrumentError {
        InstrumentError {
            arrival: self.ttft.p99,
            gap: self.gap.p99,
            generation: self.generation.p99,
        }
    }
}

/// A distribution of errors.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Spread {
    /// The signed median: the bias.
    pub median: f64,
    /// The 99th percentile of the absolute error; of fewer than 100 errors, the largest.
    pub p99: f64,
}

impl Spread {
    fn of(errors: &[f64]) -> anyhow::Result<Self> {
        let sizes: Vec<_> = errors.iter().map(|error| error.abs()).collect();
        let of = |statistic: Statistic, values: &[f64]| {
            statistic.of(values).map_err(|absent| anyhow::anyhow!("no calibration: {absent}"))
        };
        let p99 =
            of(Statistic::Percentile(99.0), &sizes).or_else(|_| of(Statistic::Max, &sizes))?;
        Ok(Self { median: of(Statistic::Median, errors)?, p99 })
    }
}

/// Measures the instrument's errors with `transport` and `stamps` over `carrier` under `load`.
pub fn measure(
    load: Load,
    connection: (Transport, Stamps),
    carrier: Carrier,
) -> anyhow::Result<Calibration> {
    measure_with(load, connection, carrier, &())
}

/// As [`measure`], while `observer` sees every read.
pub fn measure_with(
    load: Load,
    (transport, stamps): (Transport, Stamps),
    carrier: Carrier,
    observer: &dyn AnswerObserver,
) -> anyhow::Result<Calibration> {
    let Load { ttft, itl, tokens, .. } = load;
    // The simulated endpoint holds the other end of each connection in this process.
    client::allow(load.streams, 2)?;
    let script = Script { ttft, itl, tokens, ..Script::default() };
    let Loopback { simulator, route, _folder } =
        endpoint(script, carrier).context("failed to start the simulated endpoint")?;
    let origin = match carrier {
        Carrier::Unix => "http://localhost".to_owned(),
        Carrier::Tcp | Carrier::Tls => simulator.url(),
    };
    let url = format!("{origin}/v1{}", OpenAiChat.path());
    let timeouts = Timeouts::default();
    let route = ConnectOptions { stamps, ..route };
    let client = Client::new(&Options {
        replicas: &[],
        url: &url,
        headers: &[],
        api_key: None,
        timeouts,
        transport,
        connection: ConnectionMode::Warm,
        protocol: &OpenAiChat,
        answer: AnswerForm::Stream { needs_usage: true },
        route: &route,
    })?;
    client.drive(&mut Preconnect::new(load.streams), &());
    let mut streams = Streams::new(load);
    client.drive(&mut streams, observer);
    let packets = client.has_packet_stamps();
    let calibration = compare(load.streams, carrier, &streams.recordings, &simulator.log())?;
    Ok(Calibration { packets, ..calibration })
}

/// The simulated endpoint, and the options to connect to it.
struct Loopback {
    simulator: Simulator,
    route: ConnectOptions,
    /// The folder of its unix socket.
    _folder: Option<TempDir>,
}

fn endpoint(script: Script, carrier: Carrier) -> anyhow::Result<Loopback> {
    match carrier {
        Carrier::Tcp => {
            let simulator = Simulator::start(script, &OpenAiChat)?;
            Ok(Loopback { simulator, route: ConnectOptions::default(), _folder: None })
        }
        Carrier::Tls => {
            let (config, certificate) = SimulatorTls::self_signed()?;
            let address = (Ipv4Addr::LOCALHOST, 0).into();
            let simulator = Simulator::over_tls(address, script, &OpenAiChat, config)?;
            Ok(Loopback {
                simulator,
                route: ConnectOptions::trusting([Certificate::from_der(certificate)]),
                _folder: None,
            })
        }
        Carrier::Unix => on_file(script),
    }
}

#[cfg(unix)]
fn on_file(script: Script) -> anyhow::Result<Loopback> {
    let folder = crate::temporary::folder()?;
    let path = folder.path().join("s");
    let simulator = Simulator::on_file(&path, script, &OpenAiChat)?;
    let route = ConnectOptions { socket: Some(path), ..ConnectOptions::default() };
    Ok(Loopback { simulator, route, _folder: Some(folder) })
}

#[cfg(not(unix))]
fn on_file(_: Script) -> anyhow::Result<Loopback> {
    anyhow::bail!("this system does not support unix sockets")
}

/// Keeps `load.streams` streams in flight until all have been sent.
struct Streams {
    load: Load,
    body: Vec<u8>,
    sent: usize,
    in_flight: usize,
    recordings: Vec<Recording>,
}

impl Streams {
    fn new(load: Load) -> Self {
        let request = ChatRequest {
            documents: &[],
            batch: 1,
            model: "calibration",
            messages: &[ChatMessage::text(Role::User, "How late are you?")],
            temperature: Some(0.0),
            max_tokens: load.tokens,
            min_tokens: None,
            ignore_eos: false,
            tools: &Tools::default(),
            extra_body: &Map::new(),
        };
        let body = OpenAiChat.body(&request).to_string().into();
        Self { load, body, sent: 0, in_flight: 0, recordings: Vec::new() }
    }
}

impl RequestSource for Streams {
    fn next(&mut self, _: Instant, _: usize) -> NextAction {
        if self.in_flight == self.load.streams || self.sent == self.load.requests {
            return NextAction::AfterAnAnswer;
        }
        self.in_flight += 1;
        self.sent += 1;
        NextAction::Send { id: self.sent, body: self.body.clone(), replica: 0 }
    }

    fn finished(&mut self, _: usize, answer: Result<Recording, RequestError>) {
        self.in_flight -= 1;
        self.recordings.extend(answer);
    }
}

/// Compares the recordings with the endpoint's log.
fn compare(
    streams: usize,
    carrier: Carrier,
    recordings: &[Recording],
    log: &[AnswerLog],
) -> anyhow::Result<Calibration> {
    let written: HashMap<_, _> = log.iter().map(|answer| (answer.id.as_str(), answer)).collect();
    let (mut ttft, mut gap, mut generation) = (Vec::new(), Vec::new(), Vec::new());
    let mut stamped_by = StampedBy::Kernel;
    for recording in recordings {
        let sample = sample::read(recording, &OpenAiChat, TokenCount::Usage)
            .context("calibration: a stream of the simulated endpoint is not valid")?;
        if sample.stamped_by == StampedBy::Program {
            stamped_by = StampedBy::Program;
        }
        let answer = sample.request_id.as_deref().and_then(|id| written.get(id));
        let answer = answer.context("calibration: a stream is not in the endpoint's log")?;
        let origin = recording.origin.context("calibration: a recording without its start")?;
        errors(origin, &sample, answer, (&mut ttft, &mut gap, &mut generation));
    }
    Ok(Calibration {
        streams,
        tls: carrier == Carrier::Tls,
        unix: carrier == Carrier::Unix,
        stamped_by,
        packets: false,
        ttft: Spread::of(&ttft)?,
        gap: Spread::of(&gap)?,
        generation: Spread::of(&generation)?,
    })
}

/// Adds the errors of one stream.
fn errors(
    origin: Instant,
    sample: &Sample,
    answer: &AnswerLog,
    (ttft, gap, generation): (&mut Vec<f64>, &mut Vec<f64>, &mut Vec<f64>),
) {
    let writes = answer.writes.iter().filter(|write| write.token_events > 0);
    let truth: Vec<_> = writes.map(|write| write.began.saturating_duration_since(origin)).collect();
    let (Some(first), Some(last)) = (truth.first(), truth.last()) else { return };
    let less = |figure: Duration, truth: Duration| figure.as_secs_f64() - truth.as_secs_f64();
    ttft.push(less(sample.first_token(), *first));
    let gaps = sample.gaps().zip(truth.windows(2).map(|pair| pair[1] - pair[0]));
    gap.extend(gaps.map(|(figure, truth)| less(figure, truth)));
    let (figure, truth) = (sample.last_token() - sample.first_token(), *last - *first);
    generation.push(less(figure, truth) / truth.as_secs_f64());
}
