//! One request → one [`Recording`]. Every stamp is taken here.
//!
//! Whatever the transport, the receive loop notes when bytes arrived and keeps both; it looks into
//! nothing but HTTP's own framing. Only when a limit on tokens has run out does it ask what has
//! arrived, which costs no stamp: nothing came.

mod clock;
pub mod connect_options;
pub mod discover;
mod ending;
mod http1;
mod kernel_timed;
mod limits;
mod metrics_fetcher;
pub mod options;
mod preconnect;
pub mod proxy;
mod redactor;
mod reference;
pub mod secret_names;
mod server_address;
mod socket;
mod tap;
mod tls;
mod via_reqwest;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use llm_stream_core::{
    protocol::Protocol,
    recording::{Chunk, ErrorKind, Recording, RequestError},
};

pub use self::metrics_fetcher::MetricsFetcher;
use self::{
    ending::EndMarks, http1::HttpError, kernel_timed::KernelTimedClient, via_reqwest::ViaReqwest,
};
pub use self::{
    preconnect::Preconnect,
    redactor::Redactor,
    reference::{ReferenceReader, ReferenceStream},
};
use crate::{
    connect_options::ConnectOptions,
    connect_options::Secret,
    options::Connection,
    options::{Timeouts, Transport},
};

/// Sends requests to one endpoint, over one connection that is kept while the server keeps it.
pub struct Client {
    inner: Inner,
    secrets: Redactor,
    /// When the last answer ended.
    last_end: Mutex<Option<Instant>>,
}

/// How long a server is given, after an answer, to close a connection that it does not mean to
/// keep. Some close without announcing it, llama.cpp's among them; a request that crosses with the
/// close is lost.
const SETTLE: Duration = Duration::from_millis(2);

/// How often a wait looks whether the user has lost patience.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long to let arrivals gather when many streams are on the way. Their stamps do not suffer;
/// events of one stream closer than this share one.
const REST: Duration = Duration::from_millis(1);

/// From how many streams on a rest is worth it.
const MANY: usize = 8;

enum Inner {
    /// One request at a time, on the caller's thread.
    Stamped(Box<Mutex<KernelTimedClient>>),
    Reqwest(Box<ViaReqwest>),
}

/// Longest body that is kept, bytes: beyond it an answer is none of a language model.
const BODY_LIMIT: usize = 256 << 20;

/// What is wrong with a longer one.
fn too_long() -> RequestError {
    let message = format!("the answer is longer than {} MiB", BODY_LIMIT >> 20);
    RequestError::new(ErrorKind::Malformed, message)
}

/// What is wrong with an answer whose bytes are not HTTP, or not all of it, before or after it has
/// `begun`.
fn unreadable(begun: bool, error: HttpError) -> RequestError {
    match (error.is_cut(), begun) {
        (true, _) => broke_off(begun, &error),
        (false, false) => broken(format!("the answer cannot be read: {error}")),
        (false, true) => broken(format!("the answer cannot be read to its end: {error}")),
    }
}

/// What is wrong when a connection fails before or after the answer has `begun`.
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
    /// Headers besides our own.
    pub headers: &'a [(HeaderName, HeaderValue)],
    /// Sent as the protocol wants it; never shown.
    pub api_key: Option<&'a Secret>,
    /// When to give up.
    pub timeouts: Timeouts,
    /// What carries the request.
    pub transport: Transport,
    /// Whether connections are kept.
    pub connection: Connection,
    /// What is spoken.
    pub protocol: &'static dyn Protocol,
    /// How to get to the endpoint.
    pub route: &'a ConnectOptions,
}

/// What the receive loop needs to know of the bytes that it does not look into.
pub trait AnswerObserver {
    /// Some bytes arrived. Must return at once.
    fn arrived(&self, chunk: &Chunk);

    /// When the last generated token arrived, if one did.
    fn last_token(&self, chunks: &[Chunk]) -> Option<Duration>;

    /// Whether the answer says of itself that it has ended. Asked only where nothing else says so
    /// that can be relied upon, or when bytes stop coming; the first `seen` of the chunks were asked
    /// about before.
    fn has_ended(&self, _: &[Chunk], _seen: usize) -> bool {
        false
    }

    /// Whether an answer that has ended lacks usage that it cannot be read without.
    fn lacks_usage(&self, _: &[Chunk]) -> bool {
        false
    }

    /// The answer has ended by its own word, and its body has not.
    fn ending(&self) {}

    /// Whether the answer is not wanted any more.
    fn is_cancelled(&self) -> bool;
}

/// Requests for one server: what to send when, and who takes the answers.
pub trait RequestSource {
    /// What to send now, if anything, when `idle` connections are open and not in use; where none
    /// can be opened without a request, as if there were any number of them.
    fn next(&mut self, now: Instant, idle: usize) -> NextAction;

    /// Some bytes of answer `id` arrived. Must return at once.
    fn arrived(&mut self, id: usize, chunk: &Chunk);

    /// When the last generated token in `chunks` arrived, if one did.
    fn last_token(&self, chunks: &[Chunk]) -> Option<Duration>;

    /// Whether the answer in `chunks`, the first `seen` of which were asked about before, says of
    /// itself that it has ended.
    fn has_ended(&self, _: &[Chunk], _seen: usize) -> bool {
        false
    }

    /// Whether an answer that has ended lacks usage that it cannot be read without.
    fn lacks_usage(&self, _: &[Chunk]) -> bool {
        false
    }

    /// Answer `id` has ended by its own word, and its body has not: it keeps its connection, and
    /// another request may be sent.
    fn ending(&mut self, _id: usize) {}

    /// Whether no answer is wanted any more.
    fn is_cancelled(&self) -> bool;

    /// A connection that was to be opened is open, or cannot be.
    fn opened(&mut self, _: Result<(), RequestError>) {}

    /// Answer `id` has ended. An error means that there was none; one that broke off is a
    /// recording that says so.
    fn finished(&mut self, id: usize, answer: Result<Recording, RequestError>);
}

/// What [`RequestSource`] have to be sent.
#[derive(Debug, Clone)]
pub enum NextAction {
    /// This, now.
    Send {
        /// By which the answer is told from others.
        id: usize,
        /// The request's body.
        body: Bytes,
    },
    /// Nothing yet, but open a connection.
    Open,
    /// Something, then.
    At(Instant),
    /// Nothing before an answer has ended; nothing at all when none is under way.
    AfterAnAnswer,
}

/// How the requests were driven.
#[derive(Debug, Clone, Copy)]
pub struct DriveStats {
    /// The share of the time in which the driving thread had something to do, where that is known.
    /// Near 1 it was too slow for its load.
    pub busy: Option<f64>,
}

impl DriveStats {
    fn of(elapsed: Duration, waited: Duration) -> Self {
        let (elapsed, waited) = (elapsed.as_secs_f64(), waited.as_secs_f64());
        Self { busy: (elapsed > 0.0).then(|| (1.0 - waited / elapsed).clamp(0.0, 1.0)) }
    }
}

/// One request, its watcher, and its answer.
struct Single<'a> {
    body: Option<Bytes>,
    watch: &'a dyn AnswerObserver,
    answer: Option<Result<Recording, RequestError>>,
}

impl RequestSource for Single<'_> {
    fn next(&mut self, _: Instant, _: usize) -> NextAction {
        self.body.take().map_or(NextAction::AfterAnAnswer, |body| NextAction::Send { id: 0, body })
    }

    fn arrived(&mut self, _: usize, chunk: &Chunk) {
        self.watch.arrived(chunk);
    }

    fn last_token(&self, chunks: &[Chunk]) -> Option<Duration> {
        self.watch.last_token(chunks)
    }

    fn has_ended(&self, chunks: &[Chunk], seen: usize) -> bool {
        self.watch.has_ended(chunks, seen)
    }

    fn lacks_usage(&self, chunks: &[Chunk]) -> bool {
        self.watch.lacks_usage(chunks)
    }

    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }

    fn finished(&mut self, _: usize, answer: Result<Recording, RequestError>) {
        self.answer = Some(answer);
    }
}

impl Client {
    /// A client that has no connection yet.
    pub fn new(options: &Options<'_>) -> anyhow::Result<Self> {
        Self::by(Method::POST, options)
    }

    /// One that asks for what is there already, with requests that have no body.
    pub fn getting(options: &Options<'_>) -> anyhow::Result<Self> {
        Self::by(Method::GET, options)
    }

    fn by(method: Method, options: &Options<'_>) -> anyhow::Result<Self> {
        let url = reqwest::Url::parse(options.url)?;
        let headers = headers(options)?;
        let secret =
            |(name, _): &&(HeaderName, HeaderValue)| secret_names::is_secret_header(name.as_str());
        let named = options.headers.iter().filter(secret).flat_map(|(name, value)| {
            // A server may repeat one of several cookies.
            let cookies = value.as_bytes().split(|byte| *byte == b';');
            let cookies = cookies.filter(|_| *name == header::COOKIE);
            let values = cookies.filter_map(|cookie| cookie.splitn(2, |byte| *byte == b'=').nth(1));
            values.chain([value.as_bytes()])
        });
        let others = options.api_key.into_iter().chain(&options.route.secrets);
        let secrets = Redactor::of(named.chain(others.map(|Secret(secret)| secret.as_bytes())));
        let timeouts = options.timeouts;
        let marks = EndMarks::of(options.protocol.end_marks());
        let inner = match options.transport {
            Transport::Stamped => Inner::Stamped(Box::new(Mutex::new(KernelTimedClient::new(
                (method, &url),
                &headers,
                (timeouts, marks),
                options.connection,
                options.route,
            )?))),
            Transport::Reqwest => Inner::Reqwest(Box::new(ViaReqwest::new(
                (method, url),
                headers,
                (timeouts, marks),
                options.connection,
                options.route,
            )?)),
        };
        Ok(Self { inner, secrets, last_end: Mutex::new(None) })
    }

    /// Sends `body` and records the answer to its end.
    ///
    /// An error means that there was no answer. An answer that broke off is a recording that says
    /// so, since what came before is worth reading.
    pub async fn send(
        &self,
        body: Bytes,
        watch: &dyn AnswerObserver,
    ) -> Result<Recording, RequestError> {
        if let Some(until) = self.settled_at() {
            tokio::time::sleep_until(until.into()).await;
        }
        let answer = self.send_now(body, watch).await;
        self.has_ended();
        answer
    }

    /// Whether it could say when each packet of a read arrived, as far as it has been used.
    pub fn has_packet_stamps(&self) -> bool {
        match &self.inner {
            Inner::Stamped(stamped) => {
                stamped.lock().unwrap_or_else(PoisonError::into_inner).has_packet_stamps()
            }
            Inner::Reqwest(_) => false,
        }
    }

    /// The secrets that this client's requests carry. A server may send them back, so an answer is
    /// not shown or stored before they are hidden in it.
    pub fn secrets(&self) -> &Redactor {
        &self.secrets
    }

    /// When the end of the last answer has had the time to be followed by that of its connection.
    fn settled_at(&self) -> Option<Instant> {
        let last_end = *self.last_end.lock().unwrap_or_else(PoisonError::into_inner);
        last_end.map(|last_end| last_end + SETTLE)
    }

    fn has_ended(&self) {
        *self.last_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(now());
    }

    async fn send_now(
        &self,
        body: Bytes,
        watch: &dyn AnswerObserver,
    ) -> Result<Recording, RequestError> {
        match &self.inner {
            Inner::Stamped(stamped) => {
                let mut single = Single { body: Some(body), watch, answer: None };
                stamped.lock().unwrap_or_else(PoisonError::into_inner).drive(&mut single);
                let none = || Err(RequestError::new(ErrorKind::Interrupted, "interrupted"));
                single.answer.unwrap_or_else(none)
            }
            Inner::Reqwest(reqwest) => reqwest.send(body, watch).await,
        }
    }
}

impl Client {
    /// Sends all that `jobs` has, when it wants it sent, each over a connection that carries nothing
    /// else meanwhile. Not to be called from within a runtime.
    pub fn drive(&self, jobs: &mut dyn RequestSource) -> anyhow::Result<DriveStats> {
        match &self.inner {
            Inner::Stamped(stamped) => {
                if let Some(until) = self.settled_at() {
                    std::thread::sleep(until.saturating_duration_since(now()));
                }
                let driven = stamped.lock().unwrap_or_else(PoisonError::into_inner).drive(jobs);
                self.has_ended();
                Ok(driven)
            }
            Inner::Reqwest(reqwest) => reqwest.drive(jobs),
        }
    }
}

/// Without the headers, which may hold secrets.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.inner {
            Inner::Stamped(_) => "Client(Stamped)",
            Inner::Reqwest(_) => "Client(Reqwest)",
        })
    }
}

/// An error if this process cannot see when each packet arrived, as `stamps: packets` requires it.
pub fn check_packet_stamps() -> std::io::Result<()> {
    tap::Tap::check()
}

/// Whether a client was to see the packets of the server of this URL and did not, as where addresses
/// are translated on the way.
pub fn has_unseen_packets(url: &str) -> bool {
    let url = reqwest::Url::parse(url);
    url.is_ok_and(|url| {
        tap::is_lost(&server_address::ServerAddress::of(&url, &ConnectOptions::default()))
    })
}

/// What else than connections is open: the results, the terminal, a TLS store.
const OTHER_FILES: usize = 64;

/// How many connections this process may have open, each of which takes `files` files.
pub fn most_connections(files: usize) -> usize {
    let most = socket::open_files().and_then(|most| usize::try_from(most).ok());
    most.map_or(usize::MAX, |most| (most.saturating_sub(OTHER_FILES) / files).max(1))
}

/// Lets this process have `connections` open, each of which takes `files` files; an error says why
/// it cannot.
pub fn allow(connections: usize, files: usize) -> anyhow::Result<()> {
    let needs = connections.saturating_mul(files).saturating_add(OTHER_FILES);
    match socket::open_files() {
        Some(most) if most < needs as u64 => anyhow::bail!(
            "{connections} connections need {needs} open files, and this process may have {most}: \
             raise the limit with `ulimit -n {needs}`"
        ),
        _ => Ok(()),
    }
}

/// The clock of every stamp: monotonic.
#[expect(clippy::disallowed_methods, reason = "stamps are taken here")]
fn now() -> Instant {
    Instant::now()
}

fn headers(options: &Options<'_>) -> anyhow::Result<HeaderMap> {
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
        let mut value = HeaderValue::try_from(format!("{before}{key}"))
            .map_err(|_| anyhow::anyhow!("the key has characters that no header may have"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    for (name, value) in options.headers {
        headers.insert(name, value.clone());
    }
    Ok(headers)
}
