//! Resolves the addresses of a server and prepares TLS with it.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use llm_stream_core::recording::RequestError;
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use super::{connection::HandshakeError, incoming::Incoming};
use crate::{
    ClientError,
    connect_options::ConnectOptions,
    server_address::{ResolvedAddress, ServerAddress},
    tap, tls,
};

/// The interval at which a wait for the resolver checks for cancellation.
const LOOK: Duration = Duration::from_millis(50);

/// The address of a server and its TLS configuration.
pub(super) struct Connector {
    address: ServerAddress,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connector {
    pub(super) fn of(url: &reqwest::Url, route: &ConnectOptions) -> Result<Self, ClientError> {
        let address = ServerAddress::of(url, route);
        let host = unbracketed(url.host_str().unwrap_or_default());
        let tls = match url.scheme() {
            "https" => {
                let config = tls::trusting(&route.tls, tls::HTTP_1)?;
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|error| ClientError::Url(error.into()))?;
                Some((Arc::new(config), name))
            }
            _ => None,
        };
        Ok(Self { address, tls })
    }

    /// Resolves the server's addresses. The system's resolver has no timeout and cannot be cancelled, so
    /// it runs on its own thread.
    pub(super) fn resolve(
        &self,
        limit: Duration,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<Vec<ResolvedAddress>, RequestError> {
        let (host, port) = match &self.address {
            ServerAddress::Port { host, port, .. } => (unbracketed(host).to_owned(), *port),
            ServerAddress::File(path) => return Ok(vec![ResolvedAddress::File(path.clone())]),
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![ResolvedAddress::Port((ip, port).into())]);
        }
        let (found, addresses) = mpsc::channel();
        let all = move || {
            (host, port).to_socket_addrs().map(|all| all.map(ResolvedAddress::Port).collect())
        };
        thread::spawn(move || found.send(all()));
        let mut left = limit;
        loop {
            return match addresses.recv_timeout(left.min(LOOK)) {
                Ok(Ok(addresses)) if Vec::is_empty(&addresses) => {
                    Err(self.address.failed_for("the name has no address"))
                }
                Ok(Ok(addresses)) => Ok(addresses),
                Ok(Err(error)) => Err(self.failed(&error)),
                Err(RecvTimeoutError::Timeout) if left > LOOK && !is_cancelled() => {
                    left -= LOOK;
                    continue;
                }
                Err(_) => Err(self.too_late(limit)),
            };
        }
    }

    /// Notes that this process cannot capture the packets of the server.
    pub(super) fn lose_packets(&self) {
        tap::lose(&self.address);
    }

    pub(super) fn failed(&self, error: &io::Error) -> RequestError {
        self.address.failed(error)
    }

    pub(super) fn tls_failed(&self, cause: HandshakeError) -> RequestError {
        let cause = match cause {
            HandshakeError::Io(error) => error.to_string(),
            HandshakeError::Tls(error) => tls::describe(&error),
            HandshakeError::Answer(error) => error.message,
        };
        self.address.tls_failed(&cause)
    }

    /// The error for bytes that were refused. Before an answer begins, an error of TLS is a failed
    /// handshake: with TLS 1.3, a server refuses a client certificate only after the handshake.
    pub(super) fn refused(&self, cause: HandshakeError, incoming: &Incoming) -> RequestError {
        match cause {
            HandshakeError::Answer(error) => error,
            HandshakeError::Io(error) => incoming.broken(&error),
            HandshakeError::Tls(error) if incoming.reader.head().is_some() => {
                incoming.broken(&error)
            }
            HandshakeError::Tls(_) => self.tls_failed(cause),
        }
    }

    pub(super) fn too_late(&self, limit: Duration) -> RequestError {
        self.address.too_late(limit)
    }

    /// Creates a TLS session, for an `https` URL.
    pub(super) fn tls(&self) -> Result<Option<Box<ClientConnection>>, RequestError> {
        let Some((config, name)) = &self.tls else { return Ok(None) };
        match ClientConnection::new(config.clone(), name.clone()) {
            Ok(connection) => Ok(Some(Box::new(connection))),
            Err(error) => Err(self.tls_failed(error.into())),
        }
    }
}

/// An IPv6 address without the brackets of URLs.
fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::has_unseen_packets;

    #[test]
    fn a_server_whose_packets_are_not_seen_is_known_by_its_url() {
        let url = reqwest::Url::parse("http://unseen.test/v1/chat/completions").expect("a URL");
        Connector::of(&url, &ConnectOptions::default()).expect("a server").lose_packets();
        assert!(has_unseen_packets("http://unseen.test:80/v1"));
        assert!(!has_unseen_packets("http://unseen.test:8000/v1"));
        assert!(!has_unseen_packets("http://seen.test/v1"));
    }
}
