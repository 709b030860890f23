//! A connection's socket, of TCP or of the file system. Non-blocking.
//!
//! The client and the simulator both read and write through [`Socket`], so that either works over both.

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
    /// A socket in the file system.
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Evaluates the same expression with either.
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
    /// Begins to connect to a port.
    pub fn to_port(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Tcp(TcpStream::connect(address)?))
    }

    /// Sends each write at once: no Nagle's algorithm.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            #[cfg(unix)]
            Self::Unix(_) => Ok(()),
        }
    }

    /// Connects to a socket in the file system.
    #[cfg(unix)]
    pub fn to_file(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix(UnixStream::connect(path)?))
    }

    /// Whether the connection is established; an error when it cannot be.
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

    /// Makes the close that follows a reset. Sockets of the file system have no reset: they end.
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
