//! The listening socket of the simulated endpoint: a TCP port or a Unix domain socket.

#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::{io, net::SocketAddr};

#[cfg(unix)]
use mio::net::UnixListener;
use mio::{Interest, Registry, Token, net::TcpListener};
use socket2::{Domain, Type};

use llm_stream_socket::Socket;

/// Connections that may wait to be accepted. A load opens hundreds of connections at once.
const BACKLOG: i32 = 4096;

/// Accepts connections.
#[derive(Debug)]
pub(super) enum Listener {
    Port(TcpListener),
    #[cfg(unix)]
    File(UnixListener),
}

impl Listener {
    /// Listens on `addr` and returns the address with the actual port. Port 0 selects a free one.
    pub(super) fn on_port(addr: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        // On other systems than Unix, the option would let two endpoints share a port.
        if cfg!(unix) {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into());
        let addr = listener.local_addr()?;
        Ok((Self::Port(listener), addr))
    }

    /// Listens on a Unix domain socket at `path`. Dropping the [`SocketFile`] removes the file.
    #[cfg(unix)]
    pub(super) fn on_file(path: &Path) -> io::Result<(Self, SocketFile)> {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = socket2::SockAddr::unix(path)?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error);
            }
            remove_left_over(path)?;
            socket.bind(&address)?;
        }
        let file = SocketFile(path.to_owned());
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok((Self::File(UnixListener::from_std(socket.into())), file))
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Port(listener) => registry.register(listener, token, Interest::READABLE),
            #[cfg(unix)]
            Self::File(listener) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// Accepts the next waiting connection; `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Port(listener) => Ok(Socket::Tcp(listener.accept()?.0)),
            #[cfg(unix)]
            Self::File(listener) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }

    /// Returns the beginning of URLs by which the endpoint refers to itself.
    pub(super) fn origin(&self, scheme: &str) -> io::Result<String> {
        match self {
            Self::Port(listener) => Ok(format!("{scheme}://{}", listener.local_addr()?)),
            #[cfg(unix)]
            Self::File(_) => Ok(format!("{scheme}://localhost")),
        }
    }
}

/// The file of a Unix domain socket. Dropping it removes the file.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct SocketFile(pub(super) PathBuf);

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        // The file may already have been removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes the socket at `path` if its endpoint has ended; an error says why that is not possible.
#[cfg(unix)]
fn remove_left_over(path: &Path) -> io::Result<()> {
    use std::os::unix::{fs::FileTypeExt as _, net::UnixStream};
    let in_use = |why| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("the file is not a socket: choose another path");
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => in_use("another server listens there: stop it or choose another path"),
    }
}
