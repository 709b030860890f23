//! TLS: which server certificates are accepted, and hints for failed handshakes.
//!
//! rustls names what failed. A user has to know which setting changes it.

use std::sync::Arc;

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature,
        verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::{
    ClientError,
    connect_options::{Certificate, TlsOptions},
    system_roots,
};

/// ALPN for a client that speaks HTTP/1.1 only.
pub(super) const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// ALPN for a client that speaks HTTP/2 as well.
pub(super) const HTTP_2: &[&[u8]] = &[b"h2", b"http/1.1"];

/// TLS that trusts the roots of the system and of `tls`, and offers these versions of HTTP, the best
/// first.
pub(super) fn trusting(tls: &TlsOptions, versions: &[&[u8]]) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(ServerVerifier::new(tls, &provider)?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.identity {
        Some(identity) => builder
            .with_client_auth_cert(ders(identity.chain()), identity.key())
            .map_err(unusable)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = versions.iter().map(|version| version.to_vec()).collect();
    Ok(config)
}

/// TLS without a trusted root, for endpoints without TLS: the system's certificates take longer to
/// read than a first request may.
pub(super) fn trusting_nobody() -> Result<ClientConfig, ClientError> {
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn ders(certificates: &[Certificate]) -> Vec<CertificateDer<'static>> {
    certificates.iter().map(|certificate| certificate.0.clone()).collect()
}

fn unusable(error: rustls::Error) -> ClientError {
    ClientError::Tls(error.into())
}

/// The error, and the setting that would probably fix it.
pub(super) fn describe(error: &rustls::Error) -> String {
    match hint(error) {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

fn hint(error: &rustls::Error) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error {
        InvalidCertificate(error) => certificate_hint(error),
        InvalidMessage(_) => {
            Some("the server does not speak TLS on that port: use `http://` in `base_url`")
        }
        AlertReceived(alert) => alert_hint(*alert),
        _ => None,
    }
}

fn certificate_hint(error: &CertificateError) -> Option<&'static str> {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match error {
        UnknownIssuer => Some("set `ca_file` to the certificate of the CA that signed it"),
        NotValidForName | NotValidForNameContext { .. } => {
            Some("the host in `base_url` must be a name in the certificate")
        }
        Expired | ExpiredContext { .. } => {
            Some("renew the certificate of the server, or check the clock of this machine")
        }
        NotValidYet | NotValidYetContext { .. } => Some("check the clock of this machine"),
        other if is_ca(other) => Some("the certificate is its own CA: set `ca_file` to it"),
        _ => None,
    }
}

fn alert_hint(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => {
            Some("the server requires a client certificate: set `client_cert` and `client_key`")
        }
        Alert::HandshakeFailure => Some(
            "the server may require a client certificate (`client_cert`, `client_key`), or TLS older \
             than 1.2",
        ),
        Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown => {
            Some("the server does not accept the `client_cert`")
        }
        Alert::CertificateExpired | Alert::CertificateRevoked | Alert::AccessDenied => {
            Some("the server does not accept the `client_cert`")
        }
        Alert::UnrecognisedName => Some("the server has no certificate for the host in `base_url`"),
        _ => None,
    }
}

/// Whether the server's certificate was refused because it is a CA's.
fn is_ca(error: &CertificateError) -> bool {
    // webpki knows the reason; rustls has no variant for it.
    matches!(error, CertificateError::Other(_))
        && format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// Verifies the server's certificate, and the proof that the server holds its key.
///
/// One type for all policies: with `insecure_tls` any certificate is accepted, but the handshake is
/// still checked.
#[derive(Debug)]
struct ServerVerifier {
    /// `None` accepts any certificate.
    trust: Option<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The certificates that are accepted.
#[derive(Debug)]
struct Trust {
    /// Chains that end at a root of the system or of `ca_file`.
    chains: Arc<dyn ServerCertVerifier>,
    /// The certificates of `ca_file`, accepted as they are. `openssl req -x509`
    /// makes a self-signed certificate a CA, and a chain may not end with a CA.
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerVerifier {
    fn new(tls: &TlsOptions, provider: &Arc<CryptoProvider>) -> Result<Self, ClientError> {
        let algorithms = provider.signature_verification_algorithms;
        if tls.insecure {
            return Ok(Self { trust: None, algorithms });
        }
        let pinned = ders(&tls.roots);
        let chains = system_roots::verifier(&pinned, provider)?;
        Ok(Self { trust: Some(Trust { chains, pinned }), algorithms })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        match trust.chains.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(error))
                if is_ca(&error) && trust.pinned.contains(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
