//! Where a server is, in messages and for sockets.

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

/// A server's place, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerAddress {
    /// A port.
    Port {
        /// A name or an address, an IPv6 one in brackets.
        host: String,
        port: u16,
        /// What stands between.
        through: Option<Through>,
    },
    /// A socket in the file system.
    File(PathBuf),
}

/// A proxy, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Through {
    /// Host and port: not its user, not its password.
    place: String,
    /// Who says that it is to be gone through.
    named_by: String,
}

/// What a socket connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Port(SocketAddr),
    File(PathBuf),
}

impl ServerAddress {
    /// That of the server of `url`.
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

    /// The same, through what stands between: it may be that what is not reached.
    pub(super) fn proxied(mut self, url: &reqwest::Url, proxy: &ProxyMode) -> Self {
        if let Self::Port { through, .. } = &mut self {
            *through = Through::of(url, proxy);
        }
        self
    }

    /// Why there is no connection.
    pub(super) fn failed(&self, error: &io::Error) -> RequestError {
        match (self, mend(error)) {
            (Self::File(_), Some(mend)) => self.failed_for(&format!("{error}; {mend}")),
            _ => self.failed_for(&error.to_string()),
        }
    }

    /// The same, of another cause.
    pub(super) fn failed_for(&self, cause: &str) -> RequestError {
        let mend = match self {
            Self::Port { through: Some(through), .. } => format!("; {}", through.mend(cause)),
            _ => String::new(),
        };
        RequestError::new(ErrorKind::Connect, format!("cannot connect to {self}: {cause}{mend}"))
    }

    /// There is none in time.
    pub(super) fn too_late(&self, limit: Duration) -> RequestError {
        let message = format!("no connection to {self} within {limit:?} (timeouts.connect)");
        RequestError::new(ErrorKind::ConnectTimeout, message)
    }

    /// TLS failed there.
    pub(super) fn tls_failed(&self, cause: &str) -> RequestError {
        RequestError::new(ErrorKind::Tls, format!("TLS with {self} failed: {cause}"))
    }
}

impl Through {
    /// The proxy on the way to `url`, if there is one.
    fn of(url: &reqwest::Url, proxy: &ProxyMode) -> Option<Self> {
        let (named_by, place) = match proxy {
            ProxyMode::None => return None,
            ProxyMode::Through(Secret(proxy)) => {
                ("`proxy` in the config".to_owned(), proxy::place_of_proxy(proxy)?)
            }
            ProxyMode::Environment => {
                let (variable, place) = proxy::proxy_of_environment(url.as_str())?;
                (format!("{variable} in the environment"), place)
            }
        };
        Some(Self { place, named_by })
    }

    /// What would probably make it one that is gone through. To hyper, the answers of a proxy are
    /// failed tunnels; whatever else fails is the way to the proxy itself.
    fn mend(&self, cause: &str) -> String {
        let Self { named_by, .. } = self;
        match cause.strip_prefix("tunnel error: ") {
            Some("proxy authorization required") => {
                format!("it wants a user and password, or others: see {named_by}")
            }
            Some(_) => format!("it does not let us through, or does not get there: see {named_by}"),
            None => format!("is the proxy running there? See {named_by}"),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port, through: None } => write!(f, "{host}:{port}"),
            Self::Port { host, port, through: Some(Through { place, .. }) } => {
                write!(f, "{host}:{port}{THROUGH}{place}")
            }
            Self::File(path) => f.write_str(&unix_url(path, "")),
        }
    }
}

/// What would probably make a socket of the file system one that takes connections.
fn mend(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => {
            Some("the server makes this file when it starts: is it running, and is this its path?")
        }
        Kind::NotADirectory => {
            Some("a path of requests follows a colon, as in `unix:///run/x.sock:/v1`")
        }
        Kind::PermissionDenied => Some(
            "this user needs the right to write to the file and to enter its folders: `chmod`, or the \
             group of the server",
        ),
        Kind::ConnectionRefused => Some(
            "nobody listens there: the file is left of a server that has ended, or is no socket",
        ),
        Kind::WouldBlock => {
            Some("more connections wait than the server lets: give it a longer backlog")
        }
        _ => None,
    }
}

impl Address {
    /// The port, if it is one.
    pub(super) fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Port(address) => Some(*address),
            Self::File(_) => None,
        }
    }

    /// Begins to connect.
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

    #[test]
    fn what_a_socket_lacks_is_told() {
        let file = ServerAddress::File("/run/x.sock".into());
        let told = |kind: io::ErrorKind| file.failed(&kind.into()).message;
        assert_eq!(
            told(io::ErrorKind::PermissionDenied),
            "cannot connect to unix:///run/x.sock: permission denied; this user needs the right to \
             write to the file and to enter its folders: `chmod`, or the group of the server"
        );
        assert_eq!(
            told(io::ErrorKind::WouldBlock),
            "cannot connect to unix:///run/x.sock: operation would block; more connections wait \
             than the server lets: give it a longer backlog"
        );
        let port = ServerAddress::Port { host: "h".to_owned(), port: 80, through: None };
        let refused = io::ErrorKind::ConnectionRefused.into();
        assert_eq!(port.failed(&refused).message, "cannot connect to h:80: connection refused");
    }
}
