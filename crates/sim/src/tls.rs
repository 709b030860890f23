//! The TLS layer of the simulated endpoint, from bytes to bytes, without a socket.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use bytes::BytesMut;
use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};

/// Returns the configuration of a server with this certificate chain, leaf first, and this key.
pub fn server_tls(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Returns the configuration of a server on this machine with a new self-signed certificate, and
/// the certificate for clients to trust.
pub fn self_signed() -> anyhow::Result<(Arc<ServerConfig>, CertificateDer<'static>)> {
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let made = rcgen::generate_simple_self_signed(names)?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    Ok((server_tls(vec![certificate.clone()], key)?, certificate))
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
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
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
