//! Whom to trust.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// What to offer a server that may speak HTTP/1.1 only.
pub(super) const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// What to offer a server that may speak HTTP/2 as well.
pub(super) const HTTP_2: &[&[u8]] = &[b"h2", b"http/1.1"];

/// TLS that trusts whom the system trusts, for these versions of HTTP, the best first.
pub(super) fn trusting_the_system(versions: &[&[u8]]) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
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
