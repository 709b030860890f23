//! How requests get to their server, beyond its URL. Pure.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

/// What stands before a proxy in messages, behind the server that is asked through it.
pub const THROUGH: &str = " through the proxy ";

/// How requests get to their server.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Whom to trust where TLS is spoken, and who we are there.
    pub tls: TlsOptions,
    /// What stands between.
    pub proxy: ProxyMode,
    /// The socket in the file system where the server listens, if it is one: whatever the URL says,
    /// and no proxy stands between.
    pub socket: Option<PathBuf>,
    /// What of all this nobody is to see.
    pub secrets: Vec<Secret>,
    /// Which stamps arrivals get.
    pub stamps: Stamps,
}

/// `stamps`: which stamps of the kernel arrivals get. They are the same while the client reads in
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stamps {
    /// `auto`: those of packets where they can be had and few answers are in flight, else those of
    /// the socket.
    #[default]
    Auto,
    /// `packets`: what a late read took in several packets is divided by their stamps.
    Packets,
    /// `socket`: a read has one stamp, that of its last packet.
    Socket,
}

/// What stands between us and a server.
#[derive(Debug, Clone, Default)]
pub enum ProxyMode {
    /// What the environment says.
    #[default]
    Environment,
    /// Nothing.
    None,
    /// The proxy at this URL, which may hold a password.
    Through(Secret),
}

/// A key. It cannot be printed.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl ConnectOptions {
    /// To a server whose certificate is one of these, or signed by the holder of one.
    pub fn trusting(roots: impl Into<Vec<CertificateDer<'static>>>) -> Self {
        let tls = TlsOptions { roots: roots.into(), ..TlsOptions::default() };
        Self { tls, ..Self::default() }
    }
}

/// Whom to trust, and who we are.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Trusted beside those whom the system trusts.
    pub roots: Vec<CertificateDer<'static>>,
    /// What a server is shown that asks who we are.
    pub identity: Option<TlsIdentity>,
    /// Whether to trust any server: none is asked to prove who it is.
    pub insecure: bool,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct TlsIdentity(Arc<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>);

/// Without the key.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(…)")
    }
}

impl TlsIdentity {
    /// The certificate, those that vouch for it after it, and its key. An error says what is wrong
    /// with them.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, String> {
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider()) {
            Ok(_) => Ok(Self(Arc::new((chain, key)))),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err("the key is not that of the certificate".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The certificate, and those that vouch for it.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.0.clone()
    }

    /// The key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.0.1.clone_key()
    }
}

/// The certificates in a PEM file, or what is wrong with it, "has …".
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("has no certificate in PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("has no readable PEM: {error}")),
    }
}

/// The private key in a PEM file, or what is wrong with it, "has …".
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let has = |label: &[u8]| memchr::memmem::find(pem, label).is_some();
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| match has(b"ENCRYPTED") {
        true => "has a private key that is encrypted, which cannot be read".to_owned(),
        false => "has no private key in PEM".to_owned(),
    })
}
