//! A non-blocking socket, TCP or Unix domain.
//!
//! The client and the simulator both read and write through [`Socket`], so that every transport
//! works over both kinds.

#[cfg(unix)]
use std::path::Path;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    time::Duration,
};

#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry, Token, event::Source, net::TcpStream};
use socket2::SockRef;

/// A socket of either kind.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Evaluates the same expression for either kind.
macro_rules! either {
    ($stream:expr, $either:ident => $does:expr) => {
        match $stream {
            Socket::Tcp($either) => $does,
            #[cfg(unix)]
            Socket::Unix($either) => $does,
        }
    };
}

impl Socket {
    /// Starts to connect to a TCP port.
    pub fn to_port(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Tcp(TcpStream::connect(address)?))
    }

    /// Disables Nagle's algorithm, so that each write is sent at once.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            #[cfg(unix)]
            Self::Unix(_) => Ok(()),
        }
    }

    /// Connects to a Unix domain socket.
    #[cfg(unix)]
    pub fn to_file(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix(UnixStream::connect(path)?))
    }

    /// Returns whether the connection is established; an error if it failed.
    pub fn is_connected(&self) -> io::Result<bool> {
        match either!(self, stream => stream.take_error())? {
            Some(error) => Err(error),
            None => Ok(either!(self, stream => stream.peer_addr().is_ok())),
        }
    }

    /// Closes the sending side.
    pub fn end(&self) -> io::Result<()> {
        either!(self, stream => stream.shutdown(Shutdown::Write))
    }

    /// Makes the coming close reset the connection. A Unix domain socket has no reset and closes.
    pub fn end_in_a_reset(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            #[cfg(unix)]
            Self::Unix(_) => Ok(()),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(buffer))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        either!(self, stream => stream.flush())
    }
}

impl Source for Socket {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        either!(self, stream => stream.register(registry, token, interests))
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        either!(self, stream => stream.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        either!(self, stream => stream.deregister(registry))
    }
}
