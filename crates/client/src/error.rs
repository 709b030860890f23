//! Why a client cannot be created.

use std::{error::Error, io};

use llm_stream_core::{
    recording::{ErrorKind, RequestError},
    text::error_chain,
};

/// An error of a library that a client uses.
type Source = Box<dyn Error + Send + Sync>;

/// Why a client cannot be created. No request was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL, or a host in it, is not valid.
    #[error(transparent)]
    Url(Source),
    /// The endpoint of a metrics fetcher has no URL.
    #[error("the endpoint has no URL to fetch metrics from")]
    NoUrl,
    /// The API key cannot be sent.
    #[error("the API key has a character that no HTTP header may have")]
    Key,
    /// The system's trusted certificates cannot be read.
    #[error("cannot read the trusted certificates of this system: name a CA as `ca_file`")]
    SystemRoots(#[source] Source),
    /// The TLS settings cannot be used.
    #[error(transparent)]
    Tls(Source),
    /// The proxy cannot be used.
    #[error(transparent)]
    Proxy(Source),
    /// The process may not capture packets, which `stamps: packets` requires.
    #[error("cannot capture packets for `stamps: packets`")]
    Packets(#[source] io::Error),
    /// The HTTP library refuses the settings.
    #[error(transparent)]
    Http(Source),
    /// The system refuses a resource.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A client that cannot be created is a server that cannot be reached.
impl From<ClientError> for RequestError {
    fn from(error: ClientError) -> Self {
        Self::new(ErrorKind::Connect, error_chain(&error))
    }
}

/// The open-file limit of the process is too low for a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{connections} connections need {needs} open files, and this process may have {limit}: raise \
     the limit with `ulimit -n {needs}`"
)]
#[non_exhaustive]
pub struct TooFewFiles {
    /// The connections of the load.
    pub connections: usize,
    /// The open files that they need, together with those of the process itself.
    pub needs: usize,
    /// The limit.
    pub limit: u64,
}
