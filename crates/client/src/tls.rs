//! Whom to trust.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use rustls_platform_verifier::Verifier;

use crate::connect_options::TlsOptions;

/// What to offer a server that may speak HTTP/1.1 only.
pub(super) const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// What to offer a server that may speak HTTP/2 as well.
pub(super) const HTTP_2: &[&[u8]] = &[b"h2", b"http/1.1"];

/// TLS that trusts whom the system and `tls` trust, for these versions of HTTP, the best first.
pub(super) fn trusting(tls: &TlsOptions, versions: &[&[u8]]) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match tls.insecure {
        true => Arc::new(Anyone(provider.clone())),
        false => {
            let known = Verifier::new_with_extra_roots(tls.roots.clone(), provider.clone())
                .context("whom to trust over TLS is not known (`ca_file` names a CA)")?;
            Arc::new(Named { known, named: tls.roots.clone() })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = versions.iter().map(|version| version.to_vec()).collect();
    Ok(config)
}

/// TLS that trusts nobody, for endpoints without TLS: reading the system's certificates takes
/// longer than the first request may.
pub(super) fn trusting_nobody() -> anyhow::Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// What went wrong, and what would probably mend it.
pub(super) fn told(error: &rustls::Error) -> String {
    match mend(error) {
        Some(mend) => format!("{error} ({mend})"),
        None => error.to_string(),
    }
}

fn mend(error: &rustls::Error) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error {
        InvalidCertificate(error) => mend_certificate(error),
        InvalidMessage(_) => {
            Some("the server speaks no TLS on that port; `http://` in `base_url`?")
        }
        AlertReceived(alert) => mend_alert(*alert),
        _ => None,
    }
}

fn mend_certificate(error: &CertificateError) -> Option<&'static str> {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match error {
        UnknownIssuer => Some("name the certificate of the CA that signed it as `ca_file`"),
        NotValidForName | NotValidForNameContext { .. } => {
            Some("`base_url` must name the server as its certificate does")
        }
        Expired | ExpiredContext { .. } => {
            Some("the server needs a new one, if this clock is right")
        }
        NotValidYet | NotValidYetContext { .. } => Some("is this machine's clock right?"),
        other if is_ca(other) => Some("it is its own CA: name it as `ca_file`"),
        _ => None,
    }
}

fn mend_alert(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => {
            Some("the server wants a client's certificate: `client_cert` and `client_key`")
        }
        Alert::HandshakeFailure => Some(
            "the server may want a client's certificate (`client_cert`, `client_key`), or TLS older \
             than 1.2",
        ),
        Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown => {
            Some("the server does not accept the `client_cert`")
        }
        Alert::CertificateExpired | Alert::CertificateRevoked | Alert::AccessDenied => {
            Some("the server does not accept the `client_cert`")
        }
        Alert::UnrecognisedName => Some("the server does not know the name in `base_url`"),
        _ => None,
    }
}

/// Whether a server's certificate is one that signs others.
fn is_ca(error: &CertificateError) -> bool {
    // webpki has the reason, and rustls no name for it.
    matches!(error, CertificateError::Other(_))
        && format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// Takes those servers for the wanted one whom someone known vouches for, and those whose very
/// certificate the user names, be it a CA's, as `openssl req -x509` makes them.
#[derive(Debug)]
struct Named {
    known: Verifier,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.known.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(error))
                if is_ca(&error) && self.named.contains(certificate) =>
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
        self.known.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.known.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.known.supported_verify_schemes()
    }
}

/// Takes every server for the one that is wanted, as the user asked for.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
