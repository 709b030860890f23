//! Settings of requests: transport, timeouts, connection reuse, credentials.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::connect_options::{ConnectOptions, Secret};

/// The HTTP implementation that sends requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1 over our own socket. The kernel timestamps arrivals where it can.
    Stamped,
    /// reqwest: HTTP/2 and proxies. The program timestamps arrivals when it reads them.
    Reqwest,
}

impl Transport {
    /// The name in the config and the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stamped => "stamped",
            Self::Reqwest => "reqwest",
        }
    }
}

/// Timeouts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// DNS, TCP and TLS of a new connection.
    pub connect: Duration,
    /// Request → first generated token.
    pub first_token: Duration,
    /// Between two generated tokens.
    pub inter_token: Duration,
    /// Request → end of the answer.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_token: Duration::from_secs(300),
            inter_token: Duration::from_secs(60),
            total: Duration::from_secs(1800),
        }
    }
}

/// `connection`: whether requests reuse connections. Connection setup is never part of another
/// figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectionMode {
    /// `warm`: a request uses an open connection, kept or opened in advance.
    #[default]
    Warm,
    /// `cold`: each request opens its own connection.
    Cold,
}

impl ConnectionMode {
    /// The name in the config and the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// `metrics_url`: where the server's Prometheus metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsUrl {
    /// `off`: not fetched.
    Off,
    /// `auto`: at `/metrics` of the endpoint's host and port, or socket.
    Auto,
    /// At this URL.
    At(String),
}

/// The URL of an endpoint, its credentials and the connection settings.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The URL; empty for a simulated endpoint.
    pub url: String,
    /// The URLs of further replicas.
    pub replicas: Vec<String>,
    /// The API key.
    pub key: Option<Secret>,
    /// Additional request headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// TLS, proxy and socket.
    pub route: ConnectOptions,
}
