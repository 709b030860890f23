//! Short requests that detect the kind of a server before its requests are measured.

use std::time::Duration;

use llm_stream_core::{protocol::Protocol, recording::RequestError};

use crate::{
    AnswerForm, Client, ClientError, Options,
    connect_options::ConnectOptions,
    memory::{LEAST_MEMORY, MemoryBudget},
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
    /// The header `server`.
    pub server: Option<String>,
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
}

impl<'a> Prober<'a> {
    /// Creates a prober that sends the headers of `protocol`.
    pub fn new(access: &'a Access, protocol: &'static dyn Protocol) -> Self {
        Self { access, protocol }
    }

    /// Gets `url`.
    pub fn get(&self, url: &str) -> Result<Reply, RequestError> {
        self.send(url, b"", Client::getting)
    }

    /// Posts `body` to `url`.
    pub fn post(&self, url: &str, body: &'static [u8]) -> Result<Reply, RequestError> {
        self.send(url, body, Client::new)
    }

    fn send(
        &self,
        url: &str,
        body: &[u8],
        client: impl Fn(&Options<'_>) -> Result<Client, ClientError>,
    ) -> Result<Reply, RequestError> {
        // A list of models or a message of an error is short.
        let memory = MemoryBudget::new(LEAST_MEMORY);
        let route = ConnectOptions { memory, ..self.access.route.clone() };
        let options = Options {
            url,
            replicas: &[],
            headers: &self.access.headers,
            api_key: self.access.key.as_ref(),
            timeouts: TIMEOUTS,
            // Only reqwest supports proxies.
            transport: Transport::Reqwest,
            connection: ConnectionMode::Cold,
            protocol: self.protocol,
            answer: AnswerForm::Document,
            route: &route,
        };
        let client = client(&options)?;
        let redactor = client.redactor();
        let hide = |text: &str| redactor.redact(text);
        let recording = client
            .send(body, &())
            .map_err(|error| RequestError { message: hide(&error.message), ..error })?;
        let body = recording.body();
        Ok(Reply {
            status: recording.status,
            error: self.protocol.decode_error(&body).map(|error| hide(&error)),
            body: hide(&String::from_utf8_lossy(&body)),
            content_type: recording.content_type,
            server: recording.server.map(|server| hide(&server)),
        })
    }
}
