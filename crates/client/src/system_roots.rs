//! The roots that a server's certificate may end at: the system's, or those in this program where
//! the system has none, such as in a container from scratch.

use std::sync::Arc;

use rustls::{
    client::danger::ServerCertVerifier, crypto::CryptoProvider, pki_types::CertificateDer,
};
use rustls_platform_verifier::Verifier;

use crate::ClientError;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Whether certificates are verified by the roots of Mozilla in this program: the system has none,
/// and neither `SSL_CERT_FILE` nor `SSL_CERT_DIR` is set.
pub fn has_built_in_roots() -> bool {
    built_in::is_used()
}

/// Verifies chains that end at a root of the system or of `extra`.
pub(super) fn verifier(
    extra: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ClientError> {
    if has_built_in_roots() {
        return built_in::verifier(extra, provider).map_err(ClientError::Tls);
    }
    let verifier = Verifier::new_with_extra_roots(extra.iter().cloned(), provider.clone());
    Ok(Arc::new(verifier.map_err(|error| ClientError::SystemRoots(error.into()))?))
}

/// Systems whose certificates are files, which may be missing.
#[cfg(all(unix, not(target_vendor = "apple"), not(target_os = "android")))]
mod built_in {
    use std::{
        env,
        sync::{Arc, OnceLock},
    };

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::CryptoProvider,
        pki_types::CertificateDer,
    };
    use rustls_native_certs::{CertificateResult, load_native_certs};

    use super::Error;

    /// Reads the system's certificates once in a process.
    pub(super) fn is_used() -> bool {
        static IS_USED: OnceLock<bool> = OnceLock::new();
        *IS_USED.get_or_init(|| !is_set_by_user() && is_missing(&load_native_certs()))
    }

    /// Whether the user chose the roots. With an empty choice every certificate is refused.
    #[expect(clippy::disallowed_methods, reason = "the crates for TLS read these variables too")]
    fn is_set_by_user() -> bool {
        ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| env::var_os(name).is_some())
    }

    /// Whether there are no certificates. Those that cannot be read are not missing: the system's
    /// owner may trust fewer roots than Mozilla.
    fn is_missing(found: &CertificateResult) -> bool {
        found.certs.is_empty() && found.errors.is_empty()
    }

    pub(super) fn verifier(
        extra: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        extra.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
        let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        Ok(builder.build()?)
    }

    #[cfg(test)]
    mod tests {
        use rustls::crypto::ring;

        use super::*;

        #[test]
        fn certificates_that_cannot_be_read_are_not_missing() {
            let folder = env::temp_dir();
            let missing = folder.join("no such certificates.pem");
            let load = rustls_native_certs::load_certs_from_paths;
            assert!(is_missing(&load(None, None)));
            assert!(!is_missing(&load(Some(&missing), None)));
        }

        #[test]
        fn the_roots_in_the_program_are_usable() {
            let provider = Arc::new(ring::default_provider());
            assert!(verifier(&[], &provider).is_ok());
            assert!(webpki_roots::TLS_SERVER_ROOTS.len() > 50);
        }
    }
}

/// Systems whose store always has roots.
#[cfg(not(all(unix, not(target_vendor = "apple"), not(target_os = "android"))))]
mod built_in {
    use std::sync::Arc;

    use rustls::{
        client::danger::ServerCertVerifier, crypto::CryptoProvider, pki_types::CertificateDer,
    };

    use super::Error;

    pub(super) fn is_used() -> bool {
        false
    }

    pub(super) fn verifier(
        _: &[CertificateDer<'static>],
        _: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        Err("this program has no certificates for this system".into())
    }
}
