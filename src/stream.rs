//! A connection's socket, be it of TCP or of the file system. Non-blocking.

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

/// One of the two.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Does the same with either.
macro_rules! either {
    ($stream:expr, $either:ident => $does:expr) => {
        match $stream {
            Stream::Tcp($either) => $does,
            #[cfg(unix)]
            Stream::Unix($either) => $does,
        }
    };
}

impl Stream {
    /// Begins to connect to a port.
    pub(crate) fn to_port(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Tcp(TcpStream::connect(address)?))
    }

    /// Has it send at once what it is given.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            #[cfg(unix)]
            Self::Unix(_) => Ok(()),
        }
    }

    /// Connects to a file.
    #[cfg(unix)]
    pub(crate) fn to_file(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix(UnixStream::connect(path)?))
    }

    /// Whether the connection has been made; an error when it cannot be.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        match either!(self, stream => stream.take_error())? {
            Some(error) => Err(error),
            None => Ok(either!(self, stream => stream.peer_addr().is_ok())),
        }
    }

    /// Closes the sending side.
    pub(crate) fn end(&self) -> io::Result<()> {
        either!(self, stream => stream.shutdown(Shutdown::Write))
    }

    /// Makes the close that follows a reset. Sockets of the file system have none: their close is an
    /// end.
    pub(crate) fn end_in_a_reset(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            #[cfg(unix)]
            Self::Unix(_) => Ok(()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(buffer))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        either!(self, stream => stream.flush())
    }
}

impl Source for Stream {
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
