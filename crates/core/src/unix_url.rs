//! URLs of sockets in the file system.

use std::path::Path;

/// A URL of a socket in the file system, `unix:///run/x.sock`, maybe with the path of requests to
/// its server, `unix:///run/x.sock:/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixUrl<'a> {
    /// The socket, an absolute path.
    pub socket: &'a str,
    /// The path of requests, with a slash at the front and none at the end; or nothing.
    pub path: &'a str,
}

impl<'a> UnixUrl<'a> {
    /// The parts of `url`, unless it is none.
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

/// What follows the scheme in what is, or was probably to be, a URL of a socket in the file system.
pub fn unix_rest(url: &str) -> Option<&str> {
    let scheme = url.get(.."unix:".len())?;
    scheme.eq_ignore_ascii_case("unix:").then(|| &url[scheme.len()..])
}

/// The URL of `socket`, with the `path` of requests if that is not empty.
pub fn unix_url(socket: &Path, path: &str) -> String {
    let colon = if path.is_empty() { "" } else { ":" };
    format!("unix://{}{colon}{path}", socket.display())
}
