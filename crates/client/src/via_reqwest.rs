//! The `reqwest` transport: HTTP/2, proxies, and systems without kernel timestamps.
//!
//! The program takes the timestamps when it has read the bytes. [`pulse`] bounds how much earlier
//! they may have arrived.

mod failure;
mod pool;
mod pulse;

use std::{
    error::Error as StdError,
    future::Future,
    io,
    path::Path,
    pin::Pin,
    slice,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version, header};
use llm_stream_core::recording::{
    self, Chunk, ErrorKind, MemoryHold, Recording, RequestError, StampedBy, Uncertainty,
};
use reqwest::{Response, redirect, retry};
use rustls::ClientConfig;
use tower_layer::Layer;
use tower_service::Service;

use self::{
    failure::http_error,
    pool::ReqwestPool,
    pulse::{Pulse, Reads},
};
use super::{
    AnswerObserver, BODY_LIMIT, ClientError, DriveStats, RequestSource,
    answer::AnswerParser,
    broke_off,
    ending::{EndProbe as _, EndSearch, QUIET, SOON, SearchOutcome, is_refusal_over, left_open},
    http1::{HEADERS_LIMIT, HttpError},
    limits::Limits,
    memory::{MemoryBudget, MemoryCharge},
    now,
    server_address::ServerAddress,
    tls, too_long, unreadable,
};
use crate::{
    connect_options::{ConnectOptions, ProxyMode, Secret},
    options::{ConnectionMode, Timeouts},
    proxy,
};

/// The time for bytes to pass from the kernel through hyper, a few turns of the runtime. An expired
/// limit is checked again after it.
const UNREAD: Duration = Duration::from_millis(10);

/// Sends requests to one endpoint.
#[derive(Debug)]
pub(super) struct ViaReqwest {
    target: RequestTarget,
    pool: Mutex<ReqwestPool>,
}

/// The destination and settings that all connections share.
#[derive(Debug)]
struct RequestTarget {
    method: Method,
    url: reqwest::Url,
    headers: HeaderMap,
    timeouts: Timeouts,
    parser: AnswerParser,
    connection: ConnectionMode,
    tls: ClientConfig,
    address: ServerAddress,
    proxy: ProxyMode,
    memory: MemoryBudget,
    /// Whether to reuse connections. False once a request has found its kept connection closed.
    keeps: AtomicBool,
}

/// A reqwest client for one connection. Each has its own pool, so that the connection of a request is
/// known.
#[derive(Debug)]
struct ReqwestConnection {
    http: reqwest::Client,
    connects: Connects,
    /// Whether the last answer was complete, so that the connection could be kept.
    answered: AtomicBool,
}

impl ViaReqwest {
    /// Creates a client for `url`. It opens no connection yet.
    pub(super) fn new(
        (method, url): (Method, reqwest::Url),
        headers: HeaderMap,
        (timeouts, parser): (Timeouts, AnswerParser),
        connection: ConnectionMode,
        route: &ConnectOptions,
    ) -> Result<Self, ClientError> {
        let tls = match url.scheme() {
            "https" => tls::trusting(&route.tls, tls::HTTP_2)?,
            _ => tls::trusting_nobody()?,
        };
        let keeps = AtomicBool::new(true);
        let target = RequestTarget {
            method,
            address: ServerAddress::of(&url, route).proxied(&url, &route.proxy),
            url,
            headers,
            timeouts,
            parser,
            connection,
            tls,
            proxy: route.proxy.clone(),
            memory: route.memory.clone(),
            keeps,
        };
        let pool = Mutex::new(ReqwestPool::new(target.new_connection()?)?);
        Ok(Self { target, pool })
    }

    /// Sends the requests of a source at their times and hands it the answers.
    pub(super) fn drive(
        &self,
        source: &mut dyn RequestSource,
        observer: &dyn AnswerObserver,
    ) -> DriveStats {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.drive(&self.target, source, observer)
    }
}

impl RequestTarget {
    /// Creates a client for one connection and opens none yet.
    fn new_connection(&self) -> Result<ReqwestConnection, ClientError> {
        let connects = Connects::default();
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .tcp_nodelay(true)
            .connect_timeout(self.timeouts.connect)
            .tls_backend_preconfigured(self.tls.clone())
            .connector_layer(connects.clone())
            // No figure depends on an invalid header field. http1.rs is as lenient.
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_max_headers(HEADERS_LIMIT);
        if self.connection == ConnectionMode::Cold {
            builder = builder.pool_max_idle_per_host(0);
        }
        builder = match (&self.address, &self.proxy) {
            (ServerAddress::File(path), _) => to_file(builder.no_proxy(), path),
            (_, ProxyMode::Through(Secret(url))) => builder
                .proxy(reqwest::Proxy::all(url).map_err(|error| ClientError::Proxy(error.into()))?),
            (_, ProxyMode::Environment) if !proxy::is_loopback(self.url.as_str()) => builder,
            (_, ProxyMode::Environment | ProxyMode::None) => builder.no_proxy(),
        };
        let http = builder.build().map_err(|error| ClientError::Http(error.into()))?;
        Ok(ReqwestConnection { http, connects, answered: AtomicBool::new(false) })
    }

    /// Sends `body` on `connection`, which must be idle.
    async fn send(
        &self,
        connection: &ReqwestConnection,
        body: Vec<u8>,
        listener: &Listener<'_>,
        pulse: &Pulse,
    ) -> Result<Recording, RequestError> {
        let mut request = connection
            .http
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone())
            .body(body);
        if !self.keeps.load(Ordering::Relaxed) {
            request = request.header(header::CONNECTION, "close");
        }
        // Forgets the connection setup of an earlier request.
        connection.connects.take();
        let begun = now();
        let (response, connect) = self.head(connection, request, begun).await?;
        let origin = connect.map_or(begun, |connect| connect.ended);
        // reqwest had to reconnect after a complete answer: the server does not keep connections.
        if connect.is_some() && connection.answered.load(Ordering::Relaxed) {
            self.keeps.store(false, Ordering::Relaxed);
        }
        let limits = Limits { origin, timeouts: self.timeouts };
        let headers_at = limits.elapsed();
        let mut reads = pulse.reads(origin);
        let mut recording = begin(&response, (origin, headers_at), connect, reads.uncertainty());
        let mut charge = MemoryCharge::new(&self.memory);
        let received = (&mut recording.chunks, &mut charge);
        let received =
            receive(response, (&limits, &self.parser), listener, &mut reads, received).await;
        recording.broken = received.err();
        charge.end(&mut recording.chunks, recording.broken.as_ref());
        recording.hold = MemoryHold::new(charge);
        let is_left_open =
            recording.broken.as_ref().is_some_and(|broken| broken.kind == ErrorKind::LeftOpen);
        let last_read = recording.chunks.last().filter(|_| is_left_open);
        (recording.ended_at, recording.uncertainty.end) = match last_read {
            Some(chunk) => (chunk.at, chunk.uncertainty),
            None => (limits.elapsed(), reads.uncertainty()),
        };
        connection.answered.store(recording.broken.is_none(), Ordering::Relaxed);
        Ok(recording)
    }

    /// Waits for the response head within the limits. Returns it with the setup of its connection, if
    /// one was opened.
    async fn head(
        &self,
        connection: &ReqwestConnection,
        request: reqwest::RequestBuilder,
        begun: Instant,
    ) -> Result<(Response, Option<Connect>), RequestError> {
        let sending = request.send();
        tokio::pin!(sending);
        let limits_from = |origin| Limits { origin, timeouts: self.timeouts };
        let mut deadline = limits_from(begun).first_deadline();
        let mut as_of = None;
        loop {
            let answer = tokio::time::timeout_at(deadline.into(), &mut sending).await;
            let connect = connection.connects.get();
            match answer {
                Ok(Ok(response)) => return Ok((response, connect)),
                Ok(Err(error)) => return Err(self.failure(&error)),
                // During connection setup its own limit holds. The others count from its end.
                Err(_) if connect.is_none() && connection.connects.in_progress() => {
                    deadline = now() + self.timeouts.connect;
                }
                Err(_) => {
                    let limits = limits_from(connect.map_or(begun, |connect| connect.ended));
                    match as_of.take() {
                        None => {
                            as_of = Some(limits.elapsed());
                            deadline = now() + UNREAD;
                        }
                        Some(as_of) => deadline = limits.expired(as_of, &[], |_| None)?,
                    }
                }
            }
        }
    }

    /// The error for a request without a response.
    fn failure(&self, error: &reqwest::Error) -> RequestError {
        if error.is_connect() && error.is_timeout() {
            self.address.too_late(self.timeouts.connect)
        } else if let Some(error) = tls_error(error) {
            self.address.tls_failed(&tls::describe(error))
        } else if error.is_connect() {
            match causes(error).last().and_then(|cause| cause.downcast_ref()) {
                Some(error) => self.address.failed(error),
                None => self.address.failed_for(&root_cause(error)),
            }
        } else {
            let cause = root_cause(error);
            match http_error(&cause) {
                // hyper does not show the bytes. A server that expects TLS answers with a TLS alert.
                Some(wrong @ HttpError::Version) if self.url.scheme() == "http" => {
                    let RequestError { kind, message } = unreadable(false, wrong);
                    let hint = "if the server speaks TLS on that port: `https://` in `base_url`";
                    RequestError::new(kind, format!("{message} ({hint})"))
                }
                Some(wrong) => unreadable(false, wrong),
                None => broke_off(false, &cause),
            }
        }
    }
}

/// The recording of an answer whose head has arrived.
fn begin(
    response: &Response,
    (origin, headers_at): (Instant, Duration),
    connect: Option<Connect>,
    uncertainty: Duration,
) -> Recording {
    let headers = response.headers();
    Recording {
        origin: Some(origin),
        status: response.status().as_u16(),
        content_type: recording::header_text(headers, header::CONTENT_TYPE),
        content_encoding: recording::header_text(headers, header::CONTENT_ENCODING),
        retry_after: recording::retry_after(headers),
        server: recording::header_text(headers, header::SERVER),
        http_version: format!("{:?}", response.version()),
        head_time: recording::head_time(headers),
        connect: connect.map(|connect| connect.ended - connect.begun),
        tls: None,
        sent: None,
        headers_at,
        chunks: Vec::new(),
        ended_at: headers_at,
        stamped_by: StampedBy::Program,
        uncertainty: Uncertainty { headers: uncertainty, ..Uncertainty::default() },
        broken: None,
        hold: MemoryHold::default(),
    }
}

/// Hears of the progress of one answer.
struct Listener<'a> {
    observer: &'a dyn AnswerObserver,
    /// Called when the answer has ended and the server keeps the body open.
    on_end: &'a dyn Fn(),
}

/// Connects to a Unix socket instead of the URL's host.
#[cfg(unix)]
pub(super) fn to_file(builder: reqwest::ClientBuilder, path: &Path) -> reqwest::ClientBuilder {
    builder.unix_socket(path)
}

#[cfg(not(unix))]
pub(super) fn to_file(builder: reqwest::ClientBuilder, _: &Path) -> reqwest::ClientBuilder {
    builder
}

/// Records the body to its end: the loop that every figure depends on. The timestamp is taken before
/// anything else is done with the bytes.
async fn receive(
    mut response: Response,
    (limits, parser): (&Limits, &AnswerParser),
    listener: &Listener<'_>,
    reads: &mut Reads<'_>,
    (chunks, charge): (&mut Vec<Chunk>, &mut MemoryCharge),
) -> Result<(), RequestError> {
    let lasts_until_close = lasts_until_close(&response);
    let (status, headers_at) = (response.status(), limits.elapsed());
    let (limit, search) = (limits.first_deadline(), EndSearch::default());
    let mut wakes = Wakes { limit, as_of: None, search, status, headers_at };
    let mut due = (now() + QUIET).min(wakes.limit);
    let sleep = tokio::time::sleep_until(due.into());
    tokio::pin!(sleep);
    let mut received = 0;
    loop {
        tokio::select! {
            biased;
            read = response.chunk() => match read {
                Ok(Some(bytes)) => {
                    let at = limits.elapsed();
                    let uncertainty = reads.uncertainty();
                    let taken = bytes.len().min(BODY_LIMIT - received);
                    received += taken;
                    // Copies the bytes, because they keep hyper's much larger buffer alive.
                    let kept = Bytes::copy_from_slice(&bytes[..taken]);
                    let chunk = Chunk { at, uncertainty, bytes: kept };
                    listener.observer.arrived(&chunk);
                    if parser.marks.are_in(slice::from_ref(&chunk)) {
                        wakes.search.mark();
                        due = now() + SOON;
                        sleep.as_mut().reset(due.into());
                    }
                    chunks.push(chunk);
                    if taken < bytes.len() {
                        return Err(too_long());
                    }
                    charge.add(bytes.len())?;
                    // A flood leaves the runtime no time for its timers.
                    if limits.origin + at >= due {
                        due = wakes.wake((limits, parser), listener.on_end, chunks)?;
                        sleep.as_mut().reset(due.into());
                    }
                }
                Ok(None) => return Ok(()),
                // Without close_notify an attacker may have cut the connection, but an answer with its
                // end marker is complete.
                Err(error) if lasts_until_close && is_end(&error) && parser.has_ended(chunks, 0) => {
                    return Ok(());
                }
                Err(error) => return Err(broken(&error)),
            },
            () = &mut sleep => {
                due = wakes.wake((limits, parser), listener.on_end, chunks)?;
                sleep.as_mut().reset(due.into());
            }
        }
    }
}

/// The checks to make when no bytes come.
struct Wakes {
    /// The next time at which a limit can expire.
    limit: Instant,
    /// The time at which a limit seems to have expired. It is checked again after [`UNREAD`], when all
    /// bytes that arrived before have passed hyper.
    as_of: Option<Duration>,
    search: EndSearch,
    status: StatusCode,
    headers_at: Duration,
}

impl Wakes {
    /// Fails if a limit has expired or the answer has ended; otherwise returns the time of the next
    /// check.
    fn wake(
        &mut self,
        (limits, parser): (&Limits, &AnswerParser),
        on_end: &dyn Fn(),
        chunks: &[Chunk],
    ) -> Result<Instant, RequestError> {
        let elapsed = limits.elapsed();
        let last = chunks.last().map_or(self.headers_at, |chunk| chunk.at);
        if is_refusal_over(self.status, last, elapsed) {
            return Err(left_open());
        }
        match self.search.look(chunks, elapsed, parser) {
            SearchOutcome::Nothing => {}
            SearchOutcome::Ended => on_end(),
            SearchOutcome::LeftOpen => return Err(left_open()),
        }
        match self.as_of {
            None if now() >= self.limit => {
                self.as_of = Some(elapsed);
                return Ok(now() + UNREAD);
            }
            None => {}
            Some(as_of) => {
                self.as_of = None;
                self.limit = limits.expired(as_of, chunks, |chunks| parser.last_token(chunks))?;
            }
        }
        Ok(self.limit.min(limits.origin + self.search.next(chunks, elapsed)))
    }
}

/// The start and end of a connection's setup.
#[derive(Debug, Clone, Copy)]
struct Connect {
    begun: Instant,
    ended: Instant,
}

/// The setups of a client's connections. Shared with the connector that reports them.
#[derive(Debug, Clone, Default)]
struct Connects(Arc<Mutex<ConnectState>>);

#[derive(Debug, Clone, Copy, Default)]
struct ConnectState {
    begun: Option<Instant>,
    last: Option<Connect>,
}

impl Connects {
    fn state(&self) -> std::sync::MutexGuard<'_, ConnectState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> ConnectState {
        std::mem::take(&mut self.state())
    }

    fn get(&self) -> Option<Connect> {
        self.state().last
    }

    fn in_progress(&self) -> bool {
        self.state().begun.is_some()
    }
}

impl<S> Layer<S> for Connects {
    type Service = TimedConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimedConnector { inner, connects: self.clone() }
    }
}

/// Wraps a connector and reports the start and end of each setup.
#[derive(Debug, Clone)]
struct TimedConnector<S> {
    inner: S,
    connects: Connects,
}

impl<S, R> Service<R> for TimedConnector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let begun = now();
        let connects = self.connects.clone();
        connects.state().begun = Some(begun);
        let connecting = self.inner.call(target);
        Box::pin(async move {
            let connection = connecting.await;
            let ended = now();
            let last = connection.is_ok().then_some(Connect { begun, ended });
            *connects.state() = ConnectState { begun: None, last };
            connection
        })
    }
}

/// Whether the body ends with the connection.
fn lasts_until_close(response: &Response) -> bool {
    let headers = response.headers();
    response.version() < Version::HTTP_2
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether a TLS connection ended without `close_notify`.
fn is_end(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref())
        .any(|cause: &io::Error| cause.kind() == io::ErrorKind::UnexpectedEof)
}

/// The error for a body that broke off. reqwest calls all of them "error decoding response body".
fn broken(error: &reqwest::Error) -> RequestError {
    let cause = root_cause(error);
    match http_error(&cause) {
        Some(wrong) => unreadable(true, wrong),
        None => broke_off(true, &cause),
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), source)
}

fn source<'a>(cause: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let cause: &'a (dyn StdError + 'static) = *cause;
    cause.source()
}

fn root_cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The TLS error behind an error. I/O errors that wrap it do not return it as their source.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    causes(error).find_map(tls_error_in)
}

fn tls_error_in<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    cause.downcast_ref().or_else(|| tls_error_in(wrapped?))
}
