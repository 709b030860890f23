//! What decides how a client sends requests.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::connect_options::{ConnectOptions, Secret};

/// What carries a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1 over a socket of ours, arrivals stamped by the kernel where it does.
    Stamped,
    /// reqwest: HTTP/2 and proxies, arrivals stamped by the program.
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

/// When to give up on a request, each limit by its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// DNS, TCP and TLS of a new connection.
    pub connect: Duration,
    /// Request → first generated token.
    pub first_token: Duration,
    /// Between generated tokens.
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

/// `connection`: what a request finds when it starts. Setting a connection up is in no figure but
/// its own either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectionMode {
    /// `warm`: one that is open, kept from the request before or opened for this one beforehand.
    #[default]
    Warm,
    /// `cold`: none; each request opens its own.
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
    /// `off`: they are not read.
    Off,
    /// `auto`: at `/metrics` of the endpoint's host and port, or socket.
    Auto,
    /// There.
    At(String),
}

/// What a request needs that is not to be seen, and how it gets there.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Where it goes, if that is no simulated endpoint.
    pub url: String,
    /// The key, if there is one.
    pub key: Option<Secret>,
    /// Headers besides our own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How it gets there.
    pub route: ConnectOptions,
}
