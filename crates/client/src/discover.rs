//! Short requests that detect the kind of a server before its requests are measured.

use std::time::Duration;

use bytes::Bytes;
use llm_stream_core::{
    protocol::Protocol,
    recording::{Chunk, ErrorKind, RequestError},
    sample,
};
use tokio::runtime::Runtime;

use crate::{
    AnswerObserver, Client, Options,
    options::{Access, ConnectionMode, Timeouts, Transport},
};

/// The limits of one such request: a server that runs answers at once.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    first_token: Duration::from_secs(10),
    inter_token: Duration::from_secs(10),
    total: Duration::from_secs(10),
};

/// A complete answer, redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The header `content-type`.
    pub content_type: Option<String>,
    /// The body.
    pub body: String,
    /// The message of the error that the body holds.
    pub error: Option<String>,
}

/// Sends short requests to one server: with the key, the headers, the proxy and the certificates
/// of its measured requests.
#[derive(Debug)]
pub struct Prober<'a> {
    access: &'a Access,
    protocol: &'static dyn Protocol,
    runtime: Runtime,
}

impl<'a> Prober<'a> {
    /// Creates a prober that sends the headers of `protocol`.
    pub fn new(access: &'a Access, protocol: &'static dyn Protocol) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { access, protocol, runtime })
    }

    /// Gets `url`.
    pub fn get(&self, url: &str) -> Result<Reply, RequestError> {
        self.send(url, Bytes::new(), Client::getting)
    }

    /// Posts `body` to `url`.
    pub fn post(&self, url: &str, body: &'static [u8]) -> Result<Reply, RequestError> {
        self.send(url, Bytes::from_static(body), Client::new)
    }

    fn send(
        &self,
        url: &str,
        body: Bytes,
        client: impl Fn(&Options<'_>) -> anyhow::Result<Client>,
    ) -> Result<Reply, RequestError> {
        let options = Options {
            url,
            headers: &self.access.headers,
            api_key: self.access.key.as_ref(),
            timeouts: TIMEOUTS,
            // Only reqwest supports proxies.
            transport: Transport::Reqwest,
            connection: ConnectionMode::Cold,
            protocol: self.protocol,
            route: &self.access.route,
        };
        let client = client(&options)
            .map_err(|error| RequestError::new(ErrorKind::Connect, format!("{error:#}")))?;
        let redactor = client.redactor();
        let hide = |text: &str| redactor.redact(text);
        let recording = self
            .runtime
            .block_on(client.send(body, &WholeAnswer))
            .map_err(|error| RequestError { message: hide(&error.message), ..error })?;
        let body = recording.body();
        Ok(Reply {
            status: recording.status,
            error: self.protocol.decode_error(&body).map(|error| hide(&error)),
            body: hide(&String::from_utf8_lossy(&body)),
            content_type: recording.content_type,
        })
    }
}

/// Waits for the end of an answer that is one JSON document.
struct WholeAnswer;

impl AnswerObserver for WholeAnswer {
    fn arrived(&self, _: &Chunk) {}

    fn last_token(&self, _: &[Chunk]) -> Option<Duration> {
        None
    }

    fn has_ended(&self, chunks: &[Chunk], _: usize) -> bool {
        sample::is_document(chunks)
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}
