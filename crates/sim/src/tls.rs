//! The TLS layer of the simulated endpoint, from bytes to bytes, without a socket.

use std::{
    error::Error,
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use bytes::BytesMut;
use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};

/// The certificate of a simulated endpoint and its key.
#[derive(Debug, Clone)]
pub struct SimulatorTls(pub(super) Arc<ServerConfig>);

/// A certificate or a key that a server cannot use.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TlsError(Box<dyn Error + Send + Sync>);

impl SimulatorTls {
    /// Uses a certificate chain, leaf first, and its key, all in DER.
    pub fn new(chain: &[impl AsRef<[u8]>], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::try_from(key.to_vec()).map_err(|what| TlsError(what.into()))?;
        let chain = chain.iter().map(|der| CertificateDer::from(der.as_ref().to_vec())).collect();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError(error.into()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| TlsError(error.into()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Makes a self-signed certificate for this machine. Returns it, in DER, for clients to trust.
    pub fn self_signed() -> Result<(Self, Vec<u8>), TlsError> {
        let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
        let made = rcgen::generate_simple_self_signed(names);
        let made = made.map_err(|error| TlsError(error.into()))?;
        let certificate = made.cert.der().to_vec();
        Ok((Self::new(&[&certificate], &made.signing_key.serialize_der())?, certificate))
    }
}

/// For this project's tests.
#[doc(hidden)]
impl From<Arc<ServerConfig>> for SimulatorTls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self(config)
    }
}

/// For this project's tests.
#[doc(hidden)]
impl From<SimulatorTls> for Arc<ServerConfig> {
    fn from(SimulatorTls(config): SimulatorTls) -> Self {
        config
    }
}

/// The server's side of a TLS connection.
#[derive(Debug)]
pub(super) struct ServerTls {
    connection: Box<ServerConnection>,
    /// Whether the close notification has been created.
    sent_close_notify: bool,
}

impl ServerTls {
    /// Creates the state of a new connection.
    pub(super) fn new(SimulatorTls(config): SimulatorTls) -> io::Result<Self> {
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        Ok(Self { connection: Box::new(connection), sent_close_notify: false })
    }

    /// Encrypts `plain`.
    pub(super) fn seal(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        self.connection.writer().write_all(plain)?;
        self.owed()
    }

    /// Returns pending bytes of TLS itself, such as handshake messages and alerts.
    pub(super) fn owed(&mut self) -> io::Result<Vec<u8>> {
        let mut sealed = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut sealed)?;
        }
        Ok(sealed)
    }

    /// Returns the close notification; nothing on later calls.
    pub(super) fn close_notify(&mut self) -> io::Result<Vec<u8>> {
        if !std::mem::replace(&mut self.sent_close_notify, true) {
            self.connection.send_close_notify();
        }
        self.owed()
    }

    /// Decrypts `sealed` into `inbox`. The client's close is an error.
    pub(super) fn open(&mut self, mut sealed: &[u8], inbox: &mut BytesMut) -> io::Result<()> {
        while !sealed.is_empty() {
            self.connection.read_tls(&mut sealed)?;
            let state = self.connection.process_new_packets().map_err(io::Error::other)?;
            let before = inbox.len();
            inbox.resize(before + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut inbox[before..])?;
            if state.peer_has_closed() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}
