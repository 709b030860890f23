//! Sends one request to an LLM endpoint and returns one [`Recording`]: each chunk of the answer with
//! the time at which it arrived.
//!
//! There are two transports. [`Transport::Stamped`] reads its own sockets and takes the kernel's
//! timestamps; [`Transport::Reqwest`] supports HTTP/2, proxies and other systems, and takes its own
//! timestamps. In both, the receive loop stores bytes and times and parses nothing but HTTP framing,
//! so that parsing never delays a timestamp. It looks for tokens only when no bytes
//! come: when a token limit may have run out, or the answer may have ended.
//!
//! All calls block. A [`RequestSource`] schedules requests and takes their answers; an
//! [`AnswerObserver`] sees bytes as they arrive and may cancel.

mod answer;
mod clock;
pub mod connect_options;
pub mod discover;
mod ending;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod http1;
mod kernel_timed;
mod limits;
pub mod memory;
mod metrics_fetcher;
mod metrics_sampler;
pub mod options;
mod preconnect;
pub mod proxy;
mod redactor;
mod reference;
pub mod secret_names;
mod server_address;
mod socket;
mod system_roots;
mod tap;
mod tls;
mod via_reqwest;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use llm_stream_core::{
    protocol::Protocol,
    recording::{Chunk, ErrorKind, Recording, RequestError},
};

pub use self::{
    answer::AnswerForm,
    error::{ClientError, TooFewFiles},
    metrics_fetcher::MetricsFetcher,
    metrics_sampler::{MetricsReading, MetricsSampler, SamplingTimes},
    preconnect::Preconnect,
    redactor::Redactor,
    reference::{ReferenceReader, ReferenceStream},
    system_roots::has_built_in_roots,
};
use self::{
    answer::AnswerParser, http1::HttpError, kernel_timed::KernelTimedClient,
    via_reqwest::ViaReqwest,
};
use crate::{
    connect_options::{ConnectOptions, Secret},
    memory::MemoryBudget,
    options::{ConnectionMode, Timeouts, Transport},
};

/// Sends requests to one endpoint and keeps its connections open while the server does.
pub struct Client {
    inner: Inner,
    redactor: Redactor,
    memory: MemoryBudget,
}

/// The pause between an answer and the next request on its connection.
///
/// Some servers, llama.cpp among them, close a connection after an answer without announcing it. A
/// request that is sent in that moment is lost.
const SETTLE: Duration = Duration::from_millis(2);

/// The interval at which a wait checks for cancellation.
const PATIENCE: Duration = Duration::from_millis(50);

/// The pause between two rounds of reads when many streams are in flight. One round then reads many
/// streams, which costs less CPU. Kernel timestamps do not depend on when they are read; events of
/// one stream that are closer than this may share a read and so a timestamp.
const REST: Duration = Duration::from_millis(1);

/// The number of streams above which the pause saves more than it costs.
const MANY: usize = 8;

enum Inner {
    Stamped(Box<Mutex<Stamped>>),
    Reqwest(Box<ViaReqwest>),
}

struct Stamped {
    client: KernelTimedClient,
    /// When the last answers ended: see [`SETTLE`].
    last_end: Option<Instant>,
}

/// Longest body that is accepted, bytes. No language model answers with more.
const BODY_LIMIT: usize = 256 << 20;

fn too_long() -> RequestError {
    let message = format!("the answer is longer than {} MiB", BODY_LIMIT >> 20);
    RequestError::new(ErrorKind::TooLong, message)
}

/// The error for bytes that are not valid HTTP, or end too early. The answer has `begun` once its
/// head is complete.
fn unreadable(begun: bool, error: HttpError) -> RequestError {
    match (error.is_cut(), begun) {
        (true, _) => broke_off(begun, &error),
        (false, false) => broken(format!("the answer cannot be read: {error}")),
        (false, true) => broken(format!("the answer cannot be read to its end: {error}")),
    }
}

/// The error for a connection that failed.
fn broke_off(begun: bool, cause: &dyn fmt::Display) -> RequestError {
    broken(match begun {
        false => format!("the connection broke before the answer began: {cause}"),
        true => format!("the connection broke inside the answer: {cause}"),
    })
}

fn broken(message: String) -> RequestError {
    RequestError::new(ErrorKind::Broken, message)
}

/// Where and how to send.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The full URL of the endpoint.
    pub url: &'a str,
    /// Further URLs: replicas of the endpoint. Only [`Transport::Stamped`] sends requests to them.
    pub replicas: &'a [String],
    /// Additional request headers; they replace default ones.
    pub headers: &'a [(HeaderName, HeaderValue)],
    /// Sent in the protocol's header for keys, and never shown.
    pub api_key: Option<&'a Secret>,
    /// When to give up.
    pub timeouts: Timeouts,
    /// The HTTP implementation.
    pub transport: Transport,
    /// Whether connections are reused.
    pub connection: ConnectionMode,
    /// The protocol of requests and answers.
    pub protocol: &'static dyn Protocol,
    /// The form of the answers.
    pub answer: AnswerForm,
    /// TLS, proxy and socket.
    pub route: &'a ConnectOptions,
}

/// Observes answers while they arrive, and may abandon them.
pub trait AnswerObserver {
    /// Takes a chunk that has just arrived. Must return at once.
    fn arrived(&self, _chunk: &Chunk) {}

    /// Whether to abandon the requests in flight and send no more.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Observes nothing.
impl AnswerObserver for () {}

/// Schedules the requests for one server and takes their answers.
pub trait RequestSource {
    /// Returns what to do now. `idle` is the number of open connections that are not in use, or
    /// `usize::MAX` for a transport that cannot open one in advance.
    fn next(&mut self, now: Instant, idle: usize) -> NextAction;

    /// A connection for [`NextAction::Open`] is open, or failed.
    fn opened(&mut self, _: Result<(), RequestError>) {}

    /// Answer `id` has ended by its end marker, and the server keeps the body open. The answer keeps
    /// its connection; another request may be sent.
    fn ending(&mut self, _id: usize) {}

    /// Answer `id` has ended. An error means that no answer began; an answer that broke off is a
    /// recording with an error.
    fn finished(&mut self, id: usize, answer: Result<Recording, RequestError>);
}

/// The next action of a [`RequestSource`].
#[derive(Debug, Clone)]
pub enum NextAction {
    /// Send a request now.
    Send {
        /// Identifies the answer.
        id: usize,
        /// The body of the request.
        body: Vec<u8>,
        /// The replica that is to answer it, from 0.
        replica: usize,
    },
    /// Open a connection and send nothing on it.
    Open,
    /// Ask again at this time.
    At(Instant),
    /// Ask again when an answer has ended. With no answer in flight, the load is complete.
    AfterAnAnswer,
}

/// Statistics of a driven load.
#[derive(Debug, Clone, Copy)]
pub struct DriveStats {
    /// The share of the time in which the driving thread was busy, if the transport measures it.
    /// A thread near 1 was too slow for the load.
    pub busy: Option<f64>,
}

impl DriveStats {
    fn of(elapsed: Duration, waited: Duration) -> Self {
        let (elapsed, waited) = (elapsed.as_secs_f64(), waited.as_secs_f64());
        Self { busy: (elapsed > 0.0).then(|| (1.0 - waited / elapsed).clamp(0.0, 1.0)) }
    }
}

/// A source of one request.
struct Single {
    body: Option<Vec<u8>>,
    answer: Option<Result<Recording, RequestError>>,
}

impl RequestSource for Single {
    fn next(&mut self, _: Instant, _: usize) -> NextAction {
        let send = |body| NextAction::Send { id: 0, body, replica: 0 };
        self.body.take().map_or(NextAction::AfterAnAnswer, send)
    }

    fn finished(&mut self, _: usize, answer: Result<Recording, RequestError>) {
        self.answer = Some(answer);
    }
}

impl Client {
    /// Creates a client for POST requests. It opens no connection yet.
    pub fn new(options: &Options<'_>) -> Result<Self, ClientError> {
        Self::with_method(Method::POST, options)
    }

    /// Creates a client for GET requests, which have no body.
    pub fn getting(options: &Options<'_>) -> Result<Self, ClientError> {
        Self::with_method(Method::GET, options)
    }

    fn with_method(method: Method, options: &Options<'_>) -> Result<Self, ClientError> {
        let parse =
            |url: &str| reqwest::Url::parse(url).map_err(|error| ClientError::Url(error.into()));
        let mut urls = vec![parse(options.url)?];
        for url in options.replicas {
            urls.push(parse(url)?);
        }
        let headers = headers(options)?;
        let secret =
            |(name, _): &&(HeaderName, HeaderValue)| secret_names::is_secret_header(name.as_str());
        let named = options.headers.iter().filter(secret).flat_map(|(name, value)| {
            // A server may quote one cookie of several.
            let cookies = value.as_bytes().split(|byte| *byte == b';');
            let cookies = cookies.filter(|_| *name == header::COOKIE);
            let values = cookies.filter_map(|cookie| cookie.splitn(2, |byte| *byte == b'=').nth(1));
            values.chain([value.as_bytes()])
        });
        let others = options.api_key.into_iter().chain(&options.route.secrets);
        let redactor = Redactor::new(named.chain(others.map(|Secret(secret)| secret.as_bytes())));
        let timeouts = options.timeouts;
        let parser = AnswerParser::new(options.protocol, options.answer);
        let inner = match options.transport {
            Transport::Stamped => {
                let client = KernelTimedClient::new(
                    (method, &urls),
                    &headers,
                    (timeouts, parser),
                    options.connection,
                    options.route,
                )?;
                Inner::Stamped(Box::new(Mutex::new(Stamped { client, last_end: None })))
            }
            Transport::Reqwest => Inner::Reqwest(Box::new(ViaReqwest::new(
                (method, urls.swap_remove(0)),
                headers,
                (timeouts, parser),
                options.connection,
                options.route,
            )?)),
        };
        Ok(Self { inner, redactor, memory: options.route.memory.clone() })
    }

    /// Sends `body` to the first replica and records the answer to its end. Blocks until then, or until `observer`
    /// cancels; must not be called within an async runtime.
    ///
    /// An error means that no answer began. An answer that broke off is a recording with an error,
    /// so that the part before it can be read.
    pub fn send(
        &self,
        body: impl Into<Vec<u8>>,
        observer: &dyn AnswerObserver,
    ) -> Result<Recording, RequestError> {
        let mut single = Single { body: Some(body.into()), answer: None };
        self.drive(&mut single, observer);
        let none = || Err(RequestError::new(ErrorKind::Interrupted, "interrupted"));
        single.answer.unwrap_or_else(none)
    }

    /// Sends the requests of a source at their times, each alone on its connection, until the source
    /// is complete or `observer` cancels. Blocks; must not be called within an async runtime.
    pub fn drive(
        &self,
        requests: &mut dyn RequestSource,
        observer: &dyn AnswerObserver,
    ) -> DriveStats {
        match &self.inner {
            Inner::Stamped(stamped) => {
                let mut stamped = stamped.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(last_end) = stamped.last_end {
                    thread::sleep((last_end + SETTLE).saturating_duration_since(now()));
                }
                let driven = stamped.client.drive(requests, observer);
                stamped.last_end = Some(now());
                driven
            }
            Inner::Reqwest(reqwest) => reqwest.drive(requests, observer),
        }
    }

    /// Whether every read so far could be split by the timestamps of its packets.
    pub fn has_packet_stamps(&self) -> bool {
        match &self.inner {
            Inner::Stamped(stamped) => {
                stamped.lock().unwrap_or_else(PoisonError::into_inner).client.has_packet_stamps()
            }
            Inner::Reqwest(_) => false,
        }
    }

    /// The memory of all answers, those of other clients of the run included.
    pub fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// Masks the secrets of this client's requests, which a server may send back. Answers pass
    /// through it before they are shown or stored.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

/// Leaves out the headers, which may hold secrets.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.inner {
            Inner::Stamped(_) => "Client(Stamped)",
            Inner::Reqwest(_) => "Client(Reqwest)",
        })
    }
}

/// Fails if this process may not open a packet socket, which `stamps: packets` requires.
pub fn check_packet_stamps() -> std::io::Result<()> {
    tap::Tap::check()
}

/// Whether a client tried to capture the packets of this URL's server and saw none, as behind address
/// translation.
pub fn has_unseen_packets(url: &str) -> bool {
    let url = reqwest::Url::parse(url);
    url.is_ok_and(|url| {
        tap::is_lost(&server_address::ServerAddress::of(&url, &ConnectOptions::default()))
    })
}

/// Files that are open next to the connections: results, the terminal, certificates.
const OTHER_FILES: usize = 64;

/// The number of connections that the open-file limit allows, at `files` open files each.
pub fn most_connections(files: usize) -> usize {
    let most = socket::open_files().and_then(|most| usize::try_from(most).ok());
    most.map_or(usize::MAX, |most| (most.saturating_sub(OTHER_FILES) / files).max(1))
}

/// Checks that the open-file limit allows `connections`, at `files` open files each.
pub fn allow(connections: usize, files: usize) -> Result<(), TooFewFiles> {
    let needs = connections.saturating_mul(files).saturating_add(OTHER_FILES);
    match socket::open_files() {
        Some(limit) if limit < needs as u64 => Err(TooFewFiles { connections, needs, limit }),
        _ => Ok(()),
    }
}

/// The monotonic clock of all timestamps.
#[expect(clippy::disallowed_methods, reason = "timestamps are taken here")]
fn now() -> Instant {
    Instant::now()
}

fn headers(options: &Options<'_>) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    let agent = concat!("llm-stream-bench/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accepted = options.protocol.framing().content_type();
    headers.insert(header::ACCEPT, HeaderValue::from_static(accepted));
    for (name, value) in options.protocol.headers() {
        if !options.headers.iter().any(|(own, _)| *own == name) {
            headers.insert(name, value);
        }
    }
    if let Some(Secret(key)) = options.api_key {
        let (name, before) = options.protocol.key_header();
        let value = HeaderValue::try_from(format!("{before}{key}"));
        let mut value = value.map_err(|_| ClientError::Key)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    for (name, value) in options.headers {
        headers.insert(name, value.clone());
    }
    Ok(headers)
}
