//! The address of a server: for sockets, and in error messages with a hint.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use llm_stream_core::recording::{ErrorKind, RequestError};
use llm_stream_core::unix_url::unix_url;
use llm_stream_socket::Socket;

use crate::{
    connect_options::{ConnectOptions, ProxyMode, Secret, THROUGH},
    proxy,
};

/// The address of a server, as messages print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerAddress {
    /// A TCP port.
    Port {
        /// A name or an address, an IPv6 one in brackets.
        host: String,
        port: u16,
        /// The proxy on the way.
        through: Option<Through>,
    },
    /// A Unix socket.
    File(PathBuf),
}

/// A proxy, as messages print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Through {
    /// Host and port, without user and password.
    address: String,
    /// The setting that names the proxy.
    set_by: String,
}

/// An address to connect a socket to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResolvedAddress {
    Port(SocketAddr),
    File(PathBuf),
}

impl ServerAddress {
    /// The address of the server of `url`.
    pub(super) fn of(url: &reqwest::Url, route: &ConnectOptions) -> Self {
        match &route.socket {
            Some(path) => Self::File(path.clone()),
            None => Self::Port {
                host: url.host_str().unwrap_or_default().to_owned(),
                port: url.port_or_known_default().unwrap_or(80),
                through: None,
            },
        }
    }

    /// Adds the proxy to the messages: it may be the proxy that cannot be reached.
    pub(super) fn proxied(mut self, url: &reqwest::Url, proxy: &ProxyMode) -> Self {
        if let Self::Port { through, .. } = &mut self {
            *through = Through::of(url, proxy);
        }
        self
    }

    /// The error for a connection that failed.
    pub(super) fn failed(&self, error: &io::Error) -> RequestError {
        match (self, socket_hint(error)) {
            (Self::File(_), Some(hint)) => self.failed_for(&format!("{error}; {hint}")),
            _ => self.failed_for(&error.to_string()),
        }
    }

    /// The error for a connection that failed for a cause in words.
    pub(super) fn failed_for(&self, cause: &str) -> RequestError {
        let hint = match self {
            Self::Port { through: Some(through), .. } => format!("; {}", through.hint(cause)),
            _ => String::new(),
        };
        RequestError::new(ErrorKind::Connect, format!("cannot connect to {self}: {cause}{hint}"))
    }

    /// The error for a connection that took longer than `limit`.
    pub(super) fn too_late(&self, limit: Duration) -> RequestError {
        let message = format!("no connection to {self} within {limit:?} (timeouts.connect)");
        RequestError::new(ErrorKind::ConnectTimeout, message)
    }

    /// The error for a failed TLS handshake.
    pub(super) fn tls_failed(&self, cause: &str) -> RequestError {
        RequestError::new(ErrorKind::Tls, format!("TLS with {self} failed: {cause}"))
    }
}

impl Through {
    /// The proxy on the way to `url`, if there is one.
    fn of(url: &reqwest::Url, proxy: &ProxyMode) -> Option<Self> {
        let (set_by, address) = match proxy {
            ProxyMode::None => return None,
            ProxyMode::Through(Secret(proxy)) => {
                ("`proxy` in the config".to_owned(), proxy::place_of_proxy(proxy)?)
            }
            ProxyMode::Environment => {
                let (variable, address) = proxy::proxy_of_environment(url.as_str())?;
                (format!("{variable} in the environment"), address)
            }
        };
        Some(Self { address, set_by })
    }

    /// The probable fix. hyper reports an answer of the proxy as a tunnel error; any other error means
    /// that the proxy itself was not reached.
    fn hint(&self, cause: &str) -> String {
        let Self { set_by, .. } = self;
        match cause.strip_prefix("tunnel error: ") {
            Some("proxy authorization required") => {
                format!("the proxy requires a user and password, or refuses these: see {set_by}")
            }
            Some(_) => {
                format!("the proxy refuses the server or cannot reach it: see {set_by}")
            }
            None => format!("check that the proxy is running: see {set_by}"),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port, through: None } => write!(f, "{host}:{port}"),
            Self::Port { host, port, through: Some(Through { address, .. }) } => {
                write!(f, "{host}:{port}{THROUGH}{address}")
            }
            Self::File(path) => f.write_str(&unix_url(path, "")),
        }
    }
}

/// The probable fix for a Unix socket that accepts no connection.
fn socket_hint(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => Some(
            "the server creates this file when it starts: check the path, and that it is running",
        ),
        Kind::NotADirectory => {
            Some("separate the path of requests by a colon, as in `unix:///run/x.sock:/v1`")
        }
        Kind::PermissionDenied => Some(
            "this user must be able to write to the file and enter its folders: use `chmod`, or join \
             the group of the server",
        ),
        Kind::ConnectionRefused => Some(
            "no server listens there: the file is a leftover of a stopped server, or not a socket",
        ),
        Kind::WouldBlock => {
            Some("the accept queue of the server is full: configure a longer backlog")
        }
        _ => None,
    }
}

impl ResolvedAddress {
    /// The address of a TCP port.
    pub(super) fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Port(address) => Some(*address),
            Self::File(_) => None,
        }
    }

    /// Starts to connect.
    pub(super) fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Port(address) => Socket::to_port(*address),
            Self::File(path) => to_file(path),
        }
    }
}

#[cfg(unix)]
fn to_file(path: &Path) -> io::Result<Socket> {
    Socket::to_file(path)
}

#[cfg(not(unix))]
fn to_file(_: &Path) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `idna_adapter` is pinned in Cargo.toml: not every version converts names in Unicode.
    #[test]
    fn a_host_name_in_unicode_is_converted() {
        let url = reqwest::Url::parse("http://Bücher.example:8000/v1").expect("a URL");
        let address = ServerAddress::of(&url, &ConnectOptions::default());
        assert_eq!(address.to_string(), "xn--bcher-kva.example:8000");
    }

    #[test]
    fn a_unix_socket_that_cannot_be_used_has_a_hint() {
        let file = ServerAddress::File("/run/x.sock".into());
        let message = |kind: io::ErrorKind| file.failed(&kind.into()).message;
        assert_eq!(
            message(io::ErrorKind::PermissionDenied),
            "cannot connect to unix:///run/x.sock: permission denied; this user must be able to write \
             to the file and enter its folders: use `chmod`, or join the group of the server"
        );
        assert_eq!(
            message(io::ErrorKind::WouldBlock),
            "cannot connect to unix:///run/x.sock: operation would block; the accept queue of the \
             server is full: configure a longer backlog"
        );
        let port = ServerAddress::Port { host: "h".to_owned(), port: 80, through: None };
        let refused = io::ErrorKind::ConnectionRefused.into();
        assert_eq!(port.failed(&refused).message, "cannot connect to h:80: connection refused");
    }
}
