//! Fetches the Prometheus metrics of a server. All calls block, so that a thread that receives
//! answers must not make them.

use std::{future::Future, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use llm_stream_core::unix_url::unix_url;
use reqwest::{Url, redirect, retry};
use tokio::runtime::Runtime;

use super::{PATIENCE, now, tls, via_reqwest::to_file};
use crate::{
    AnswerObserver, ClientError,
    connect_options::{ProxyMode, Secret},
    options::{Access, MetricsUrl},
    proxy,
};

/// The timeout of one fetch, and of all polls for one answer together.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The time for a server to count an answer in its metrics after the answer's end.
const COUNTED: Duration = Duration::from_millis(500);

/// The pause between two polls.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest accepted body, bytes.
const LIMIT: usize = 16 << 20;

/// Fetches the metrics of one server.
#[derive(Debug)]
pub struct MetricsFetcher {
    http: reqwest::Client,
    runtime: Runtime,
    url: Url,
    headers: HeaderMap,
    /// The URL, as messages print it.
    shown: String,
}

impl MetricsFetcher {
    /// Creates a fetcher for the metrics of an endpoint. Credentials are sent only to the origin of
    /// the endpoint.
    pub fn new(wanted: &MetricsUrl, access: &Access) -> Result<Self, ClientError> {
        let endpoint = Url::parse(&access.url).ok();
        let url = match (wanted, &endpoint) {
            (MetricsUrl::At(url), _) => Url::parse(url).map_err(invalid_url)?,
            (_, Some(endpoint)) => {
                let origin = Url::parse(&endpoint.origin().ascii_serialization());
                origin.and_then(|origin| origin.join("/metrics")).map_err(invalid_url)?
            }
            (_, None) => return Err(ClientError::NoUrl),
        };
        let tls = match url.scheme() {
            "https" => tls::trusting(&access.route.tls, tls::HTTP_2)?,
            _ => tls::trusting_nobody()?,
        };
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            // A trial may outlast an idle connection: vLLM closes one after 5 s.
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .tls_backend_preconfigured(tls);
        // The endpoint's socket serves only the endpoint's own metrics.
        let socket = access.route.socket.as_ref().filter(|_| *wanted == MetricsUrl::Auto);
        builder = match (socket, &access.route.proxy) {
            (Some(path), _) => to_file(builder.no_proxy(), path),
            (_, ProxyMode::Through(Secret(proxy))) => builder.proxy(
                reqwest::Proxy::all(proxy).map_err(|error| ClientError::Proxy(error.into()))?,
            ),
            (_, ProxyMode::Environment) if !proxy::is_loopback(url.as_str()) => builder,
            (_, ProxyMode::Environment | ProxyMode::None) => builder.no_proxy(),
        };
        let is_same_server = socket == access.route.socket.as_ref()
            && endpoint.is_some_and(|endpoint| endpoint.origin() == url.origin());
        let mut headers = HeaderMap::new();
        if is_same_server {
            headers.extend(access.headers.iter().cloned());
            if let Some(Secret(key)) = &access.key {
                let value = HeaderValue::from_str(&format!("Bearer {key}"));
                let mut value = value.map_err(|_| ClientError::Key)?;
                value.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, value);
            }
        }
        let shown = socket.map_or_else(|| url.to_string(), |path| unix_url(path, url.path()));
        let http = builder.build().map_err(|error| ClientError::Http(error.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { http, runtime, url, headers, shown })
    }

    /// The URL of the metrics, for messages.
    pub fn url(&self) -> &str {
        &self.shown
    }

    /// Fetches the metrics. The error says why there are none. `None` if `observer` cancels.
    pub fn read(&self, observer: &dyn AnswerObserver) -> Option<Result<String, String>> {
        self.runtime.block_on(unless_cancelled(self.fetch(), observer))
    }

    /// Polls the metrics until `is_there` accepts them, or half a second has passed: a server may
    /// count an answer a little after its end. Takes two seconds at most.
    pub fn read_until(
        &self,
        is_there: impl Fn(&str) -> bool,
        observer: &dyn AnswerObserver,
    ) -> Option<Result<String, String>> {
        self.runtime.block_on(unless_cancelled(self.poll(is_there), observer))
    }

    async fn fetch(&self) -> Result<String, String> {
        let request = self.http.get(self.url.clone()).headers(self.headers.clone());
        let mut response = request.send().await.map_err(|error| root_cause(&error))?;
        if !response.status().is_success() {
            return Err(format!("HTTP {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| root_cause(&error))? {
            body.extend_from_slice(&piece);
            if body.len() > LIMIT {
                return Err("the metrics are longer than 16 MiB".into());
            }
        }
        String::from_utf8(body).map_err(|_| "the metrics are not UTF-8 text".into())
    }

    async fn poll(&self, is_there: impl Fn(&str) -> bool) -> Result<String, String> {
        let begun = now();
        let mut last = Err("no answer within 2 s".to_owned());
        loop {
            let reading = tokio::time::timeout_at((begun + TIMEOUT).into(), self.fetch());
            match reading.await {
                Ok(Ok(text)) if is_there(&text) || now() >= begun + COUNTED => return Ok(text),
                Ok(Ok(text)) => last = Ok(text),
                // Metrics of an earlier poll are still useful.
                Ok(Err(error)) => return last.map_err(|_| error),
                Err(_) => return last,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Returns the output of `future`, or `None` once `observer` cancels.
async fn unless_cancelled<T>(
    future: impl Future<Output = T>,
    observer: &dyn AnswerObserver,
) -> Option<T> {
    let cancelled = async {
        while !observer.is_cancelled() {
            tokio::time::sleep(PATIENCE).await;
        }
    };
    tokio::select! {
        biased;
        () = cancelled => None,
        output = future => Some(output),
    }
}

fn invalid_url(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Url(error.into())
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
