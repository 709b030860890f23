//! Connection settings beyond the URL: TLS, proxy, Unix socket, timestamps. Pure.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use crate::memory::MemoryBudget;

/// The words between server and proxy in messages: `HOST:PORT through the proxy HOST:PORT`.
pub const THROUGH: &str = " through the proxy ";

/// Connection settings beyond the URL.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Trusted certificates and the client certificate.
    pub tls: TlsOptions,
    /// The proxy.
    pub proxy: ProxyMode,
    /// The Unix socket to connect to instead of the URL's host and port. No proxy applies.
    pub socket: Option<PathBuf>,
    /// The secrets in these settings, which are masked in messages and recordings.
    pub secrets: Vec<Secret>,
    /// The source of arrival timestamps.
    pub stamps: Stamps,
    /// The memory of answers, which clients may share.
    pub memory: MemoryBudget,
}

/// `stamps`: the kernel timestamps of arrivals. They differ only where the client reads late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stamps {
    /// `auto`: per packet where the process may capture packets and few answers are in flight, else
    /// per read.
    #[default]
    Auto,
    /// `packets`: per packet. A late read is split at its packets.
    Packets,
    /// `socket`: per read, the timestamp of its last packet.
    Socket,
}

/// The proxy of requests.
#[derive(Debug, Clone, Default)]
pub enum ProxyMode {
    /// The proxy in the environment, such as `HTTPS_PROXY`.
    #[default]
    Environment,
    /// No proxy.
    None,
    /// The proxy at this URL, which may contain a password.
    Through(Secret),
}

/// A secret text. Its `Debug` output does not contain it.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl ConnectOptions {
    /// Trusts these certificates and what they have signed.
    pub fn trusting(roots: impl Into<Vec<Certificate>>) -> Self {
        let tls = TlsOptions { roots: roots.into(), ..TlsOptions::default() };
        Self { tls, ..Self::default() }
    }
}

/// TLS settings.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Certificates that are trusted in addition to the system's.
    pub roots: Vec<Certificate>,
    /// The certificate for a server that requests one.
    pub identity: Option<TlsIdentity>,
    /// Whether to accept any server certificate.
    pub insecure: bool,
}

/// An X.509 certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate(pub(crate) CertificateDer<'static>);

impl Certificate {
    /// Takes a certificate in DER, which is not checked.
    pub fn from_der(der: impl Into<Vec<u8>>) -> Self {
        Self(der.into().into())
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Certificate {
    fn as_ref(&self) -> &[u8] {
        self.der()
    }
}

/// A private key. Its `Debug` output does not contain it.
pub struct PrivateKey(PrivateKeyDer<'static>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// A certificate chain and its private key.
#[derive(Clone)]
pub struct TlsIdentity(Arc<(Vec<Certificate>, PrivateKeyDer<'static>)>);

/// Leaves out the key.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(…)")
    }
}

impl TlsIdentity {
    /// Creates an identity from a certificate followed by its intermediates, and its key. Fails if
    /// they do not match or cannot be used.
    pub fn new(chain: Vec<Certificate>, PrivateKey(key): PrivateKey) -> Result<Self, String> {
        let ders = chain.iter().map(|certificate| certificate.0.clone()).collect();
        match CertifiedKey::from_der(ders, key.clone_key(), &ring::default_provider()) {
            Ok(_) => Ok(Self(Arc::new((chain, key)))),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err("the key is not that of the certificate".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The certificate, then its intermediates.
    pub fn chain(&self) -> &[Certificate] {
        &self.0.0
    }

    /// The private key in DER.
    pub fn key_der(&self) -> &[u8] {
        self.0.1.secret_der()
    }

    /// The private key.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.1.clone_key()
    }
}

/// Reads the certificates of a PEM file. The error continues the file's name: "has …".
pub fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem).map(|found| found.map(Certificate)).collect();
    match found {
        Ok(found) if found.is_empty() => Err("has no certificate in PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("has no readable PEM: {error}")),
    }
}

/// Reads the private key of a PEM file. The error continues the file's name: "has …".
pub fn private_key(pem: &[u8]) -> Result<PrivateKey, String> {
    let has = |label: &[u8]| memchr::memmem::find(pem, label).is_some();
    PrivateKeyDer::from_pem_slice(pem).map(PrivateKey).map_err(|_| match has(b"ENCRYPTED") {
        true => "has a private key that is encrypted, which cannot be read".to_owned(),
        false => "has no private key in PEM".to_owned(),
    })
}
