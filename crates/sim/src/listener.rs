//! Where the simulated endpoint is to be found: a port, or a socket in the file system.

#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::{io, net::SocketAddr};

#[cfg(unix)]
use mio::net::UnixListener;
use mio::{Interest, Registry, Token, net::TcpListener};
use socket2::{Domain, Type};

use llm_stream_socket::Socket;

/// Connections that may wait to be accepted: a whole wave of clients at once.
const BACKLOG: i32 = 4096;

/// Accepts connections.
#[derive(Debug)]
pub(super) enum Listener {
    Port(TcpListener),
    #[cfg(unix)]
    File(UnixListener),
}

impl Listener {
    /// One on a port, which is told: 0 stands for any free one.
    pub(super) fn on_port(addr: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        // Elsewhere than on Unix, the option would let two endpoints have one port.
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

    /// One on a socket that is made at `path`, and that is removed with the [`SocketFile`].
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

    /// The next connection that waits; `WouldBlock` when none does.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Port(listener) => Ok(Socket::Tcp(listener.accept()?.0)),
            #[cfg(unix)]
            Self::File(listener) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }

    /// What URLs begin with by which an endpoint here refers to itself.
    pub(super) fn origin(&self, scheme: &str) -> io::Result<String> {
        match self {
            Self::Port(listener) => Ok(format!("{scheme}://{}", listener.local_addr()?)),
            #[cfg(unix)]
            Self::File(_) => Ok(format!("{scheme}://localhost")),
        }
    }
}

/// A socket's file, which is removed when this is dropped.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct SocketFile(pub(super) PathBuf);

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        // Who has removed it before has done no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes the socket at `path` if it was left by an endpoint that has ended. An error says why not.
#[cfg(unix)]
fn remove_left_over(path: &Path) -> io::Result<()> {
    use std::os::unix::{fs::FileTypeExt as _, net::UnixStream};
    let in_use = |why| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("that file is no socket; take another path");
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => in_use("another server listens there; end it, or take another path"),
    }
}
