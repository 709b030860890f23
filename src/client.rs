//! One request → one [`Recording`]. Every stamp is taken here.
//!
//! The receive loop awaits bytes, notes the time and pushes both; it looks into nothing. Only when
//! a limit on tokens has run out does it ask what has arrived, which costs no stamp: nothing came.

use std::{
    error::Error as StdError,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::{Response, redirect, retry};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    plan::{Secret, Timeouts},
    recording::{Chunk, ErrorKind, Recording, RequestError},
};

/// Sends requests to one endpoint, over one connection that is kept while the server keeps it.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: reqwest::Url,
    headers: HeaderMap,
    timeouts: Timeouts,
    connects: Connects,
}

/// Where and how to send.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The full URL of the endpoint.
    pub url: &'a str,
    /// Headers besides our own.
    pub headers: &'a [(HeaderName, HeaderValue)],
    /// Sent as a bearer token; never shown.
    pub api_key: Option<&'a Secret>,
    /// When to give up.
    pub timeouts: Timeouts,
}

/// What the receive loop needs to know of the bytes that it does not look into.
pub trait Watch {
    /// Some bytes arrived.
    fn arrived(&self, chunk: &Chunk);

    /// When the last generated token arrived, if one did.
    fn last_token(&self, chunks: &[Chunk]) -> Option<Duration>;
}

impl Client {
    /// A client that has no connection yet.
    pub fn new(options: &Options<'_>) -> anyhow::Result<Self> {
        let url = reqwest::Url::parse(options.url)?;
        let connects = Connects::default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("llm-stream-bench/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .tcp_nodelay(true)
            .connect_timeout(options.timeouts.connect)
            .connector_layer(connects.clone());
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        // Reading the system's certificates takes longer than the first request may.
        builder = match url.scheme() {
            "https" => {
                // An error says that another crate has chosen a provider before us.
                let _ = rustls::crypto::ring::default_provider().install_default();
                builder
            }
            _ => builder.tls_backend_preconfigured(no_tls()?),
        };
        Ok(Self {
            http: builder.build()?,
            url,
            headers: headers(options)?,
            timeouts: options.timeouts,
            connects,
        })
    }

    /// Sends `body` and records the answer to its end.
    ///
    /// An error means that there was no answer. An answer that broke off is a recording that says
    /// so, since what came before is worth reading.
    pub async fn send(&self, body: Bytes, watch: &dyn Watch) -> Result<Recording, RequestError> {
        let request = self.http.post(self.url.clone()).headers(self.headers.clone()).body(body);
        self.connects.take();
        let begun = now();
        let mut clock = Clock { begun, timeouts: self.timeouts, connect: None };
        let response = self.head(request, &mut clock).await?;
        let headers_at = clock.elapsed();
        let mut recording = Recording {
            status: response.status().as_u16(),
            content_type: content_type(&response),
            http_version: format!("{:?}", response.version()),
            connect: clock.connect.map(|connect| connect.ended - connect.begun),
            headers_at,
            chunks: Vec::new(),
            ended_at: headers_at,
            broken: None,
        };
        recording.broken = receive(response, &clock, watch, &mut recording.chunks).await.err();
        recording.ended_at = clock.elapsed();
        Ok(recording)
    }

    /// Awaits the response's headers, within the limits that can run out before them.
    async fn head(
        &self,
        request: reqwest::RequestBuilder,
        clock: &mut Clock,
    ) -> Result<Response, RequestError> {
        let sending = request.send();
        tokio::pin!(sending);
        let mut deadline = clock.begun + self.timeouts.first_token.min(self.timeouts.total);
        loop {
            let answer = tokio::time::timeout_at(deadline.into(), &mut sending).await;
            clock.connect = self.connects.get().filter(|connect| connect.ended >= clock.begun);
            match answer {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(self.failure(&error)),
                // While a connection is made, its own limit holds; these count from its end.
                Err(_) if clock.connect.is_none() && self.connects.in_progress() => {
                    deadline = now() + self.timeouts.connect;
                }
                Err(_) => match clock.expired(None) {
                    Ok(later) => deadline = later,
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Why there is no response, in our words.
    fn failure(&self, error: &reqwest::Error) -> RequestError {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        let cause = root_cause(error);
        let (kind, message) = if error.is_connect() && error.is_timeout() {
            let limit = self.timeouts.connect;
            let message =
                format!("no connection to {host}:{port} within {limit:?} (timeouts.connect)");
            (ErrorKind::ConnectTimeout, message)
        } else if is_tls(error) {
            (ErrorKind::Tls, format!("TLS with {host}:{port} failed: {cause}"))
        } else if error.is_connect() {
            (ErrorKind::Connect, format!("cannot connect to {host}:{port}: {cause}"))
        } else {
            (ErrorKind::Broken, format!("the connection broke before the answer began: {cause}"))
        };
        RequestError::new(kind, message)
    }
}

/// Records the body to its end. The loop that every figure rests on.
async fn receive(
    mut response: Response,
    clock: &Clock,
    watch: &dyn Watch,
    chunks: &mut Vec<Chunk>,
) -> Result<(), RequestError> {
    let limit = tokio::time::sleep_until(clock.first_deadline().into());
    tokio::pin!(limit);
    loop {
        tokio::select! {
            biased;
            read = response.chunk() => match read {
                Ok(Some(bytes)) => {
                    let chunk = Chunk { at: clock.elapsed(), bytes };
                    watch.arrived(&chunk);
                    chunks.push(chunk);
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(broken(&error)),
            },
            () = &mut limit => {
                let later = clock.expired(watch.last_token(chunks))?;
                limit.as_mut().reset(later.into());
            }
        }
    }
}

/// The request's own time: it runs from the hand-over to an open connection.
#[derive(Debug)]
struct Clock {
    begun: Instant,
    timeouts: Timeouts,
    connect: Option<Connect>,
}

impl Clock {
    fn origin(&self) -> Instant {
        self.connect.map_or(self.begun, |connect| connect.ended)
    }

    fn elapsed(&self) -> Duration {
        self.origin().elapsed()
    }

    /// The first time at which a limit can have run out. A first token may come unseen before it,
    /// and the limit on the next one with it.
    fn first_deadline(&self) -> Instant {
        let Timeouts { first_token, inter_token, total, .. } = self.timeouts;
        self.origin() + first_token.min(inter_token).min(total)
    }

    /// Which limit has run out, given the last token's arrival; if none has, the time of the next.
    fn expired(&self, last_token: Option<Duration>) -> Result<Instant, RequestError> {
        let Timeouts { first_token, inter_token, total, .. } = self.timeouts;
        let elapsed = self.elapsed();
        if elapsed >= total {
            let message = format!("the answer took longer than {total:?} (timeouts.total)");
            return Err(RequestError::new(ErrorKind::TotalTimeout, message));
        }
        let next = match last_token {
            None if elapsed >= first_token => {
                let message = format!("no token within {first_token:?} (timeouts.first_token)");
                return Err(RequestError::new(ErrorKind::FirstTokenTimeout, message));
            }
            Some(at) if elapsed >= at + inter_token => {
                let message = format!("no token for {inter_token:?} (timeouts.inter_token)");
                return Err(RequestError::new(ErrorKind::InterTokenTimeout, message));
            }
            None => first_token.min(elapsed + inter_token),
            Some(at) => at + inter_token,
        };
        Ok(self.origin() + next.min(total))
    }
}

/// A connection's set-up.
#[derive(Debug, Clone, Copy)]
struct Connect {
    begun: Instant,
    ended: Instant,
}

/// Notes when the client opens a connection. Shared with the connector that it wraps.
#[derive(Debug, Clone, Default)]
struct Connects(Arc<Mutex<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    begun: Option<Instant>,
    last: Option<Connect>,
}

impl Connects {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> State {
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

/// A connector that notes when it began and ended.
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
            *connects.state() = State { begun: None, last };
            connection
        })
    }
}

/// The clock of every stamp: monotonic.
#[expect(clippy::disallowed_methods, reason = "stamps are taken here")]
fn now() -> Instant {
    Instant::now()
}

fn headers(options: &Options<'_>) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(Secret(key)) = options.api_key {
        let mut value = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| anyhow::anyhow!("the key has characters that no header may have"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    headers.extend(options.headers.iter().cloned());
    Ok(headers)
}

/// A TLS set-up that trusts nobody, for endpoints without TLS.
fn no_tls() -> anyhow::Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// Whether `url` is on this machine, so that no proxy can stand between.
fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn content_type(response: &Response) -> Option<String> {
    let value = response.headers().get(header::CONTENT_TYPE)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A body that broke off. reqwest calls all of these "error decoding response body".
fn broken(error: &reqwest::Error) -> RequestError {
    let message = format!("the connection broke inside the answer: {}", root_cause(error));
    RequestError::new(ErrorKind::Broken, message)
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

fn is_tls(error: &reqwest::Error) -> bool {
    let inner = |cause: &(dyn StdError + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.and_then(std::io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>())
    };
    causes(error).any(|cause| cause.is::<rustls::Error>() || inner(cause))
}
