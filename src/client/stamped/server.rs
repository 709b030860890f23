//! Where to connect to.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use super::{connection::TlsError, incoming::Incoming};
use crate::{
    client::tls,
    recording::{ErrorKind, RequestError},
    route::Route,
};

/// A host and how to speak to it.
pub(super) struct Server {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Server {
    pub(super) fn of(url: &reqwest::Url, route: &Route) -> anyhow::Result<Self> {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let tls = match url.scheme() {
            "https" => {
                let config = tls::trusting(&route.tls, tls::HTTP_1)?;
                Some((Arc::new(config), ServerName::try_from(host.clone())?))
            }
            _ => None,
        };
        Ok(Self { host, port, tls })
    }

    /// The addresses of the host. The system's resolver knows no limit, so it runs beside.
    pub(super) fn resolve(&self, limit: Duration) -> Result<Vec<SocketAddr>, RequestError> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![(address, self.port).into()]);
        }
        let (found, addresses) = mpsc::channel();
        let name = (self.host.clone(), self.port);
        thread::spawn(move || found.send(name.to_socket_addrs().map(Iterator::collect)));
        match addresses.recv_timeout(limit) {
            Ok(Ok(addresses)) if Vec::is_empty(&addresses) => Err(self.failed("it has no address")),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.too_late(limit)),
        }
    }

    pub(super) fn failed(&self, cause: &str) -> RequestError {
        let Self { host, port, .. } = self;
        RequestError::new(ErrorKind::Connect, format!("cannot connect to {host}:{port}: {cause}"))
    }

    pub(super) fn tls_failed(&self, cause: TlsError) -> RequestError {
        let Self { host, port, .. } = self;
        let cause = match cause {
            TlsError::Io(error) => error.to_string(),
            TlsError::Tls(error) => tls::told(&error),
            TlsError::Answer(error) => error.message,
        };
        RequestError::new(ErrorKind::Tls, format!("TLS with {host}:{port} failed: {cause}"))
    }

    /// Why bytes that came over TLS were not understood. Before an answer it is TLS that failed: a
    /// client that lacks a certificate learns it only now.
    pub(super) fn not_taken(&self, cause: TlsError, incoming: &Incoming) -> RequestError {
        match cause {
            TlsError::Answer(error) => error,
            TlsError::Io(error) => incoming.broken(&error),
            TlsError::Tls(error) if incoming.reader.head().is_some() => incoming.broken(&error),
            TlsError::Tls(_) => self.tls_failed(cause),
        }
    }

    pub(super) fn too_late(&self, limit: Duration) -> RequestError {
        let Self { host, port, .. } = self;
        let message = format!("no connection to {host}:{port} within {limit:?} (timeouts.connect)");
        RequestError::new(ErrorKind::ConnectTimeout, message)
    }

    /// The client's side of a TLS handshake, where the server wants one.
    pub(super) fn tls(&self) -> Result<Option<Box<ClientConnection>>, RequestError> {
        let Some((config, name)) = &self.tls else { return Ok(None) };
        match ClientConnection::new(config.clone(), name.clone()) {
            Ok(connection) => Ok(Some(Box::new(connection))),
            Err(error) => Err(self.tls_failed(error.into())),
        }
    }
}
