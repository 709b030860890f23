//! URLs of Unix domain sockets.

use std::path::Path;

/// The URL of a Unix domain socket, `unix:///run/x.sock`, optionally with the path of requests,
/// `unix:///run/x.sock:/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixUrl<'a> {
    /// The absolute path of the socket.
    pub socket: &'a str,
    /// The path of requests without a trailing slash; can be empty.
    pub path: &'a str,
}

impl<'a> UnixUrl<'a> {
    /// Parses `url`.
    pub fn parse(url: &'a str) -> Option<Self> {
        let rest = unix_rest(url)?.strip_prefix("//")?;
        let (socket, path) = match rest.find(":/") {
            Some(colon) => (&rest[..colon], &rest[colon + 1..]),
            None => (rest, ""),
        };
        let socket = socket.trim_end_matches('/');
        socket.starts_with('/').then(|| Self { socket, path: path.trim_end_matches('/') })
    }
}

/// Returns the part after the scheme if `url` begins with `unix:`, even if the rest is malformed.
pub fn unix_rest(url: &str) -> Option<&str> {
    let scheme = url.get(.."unix:".len())?;
    scheme.eq_ignore_ascii_case("unix:").then(|| &url[scheme.len()..])
}

/// Returns the URL of `socket`, with the `path` of requests unless it is empty.
pub fn unix_url(socket: &Path, path: &str) -> String {
    let colon = if path.is_empty() { "" } else { ":" };
    format!("unix://{}{colon}{path}", socket.display())
}
