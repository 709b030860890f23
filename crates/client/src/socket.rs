//! A socket whose reads return the kernel's arrival timestamp.
//!
//! Linux stamps each packet on arrival (`SO_TIMESTAMPNS`, socket(7)) and returns the timestamp with
//! the bytes, so a late read does not make the timestamp late. A read has one timestamp, that of its
//! last segment. Unix sockets accept the option and return none; then, and on other systems, the
//! time of the read is all there is.

use std::{
    io::{self, Read as _, Write},
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use llm_stream_core::recording::StampedBy;
use llm_stream_socket::Socket;
use mio::net::TcpStream;

use super::{clock::Now, server_address::ResolvedAddress};

/// The result of one read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadResult {
    /// The number of bytes; 0 at the end of the stream.
    pub(super) bytes: usize,
    /// The kernel's timestamp of the last byte, by the wall clock.
    pub(super) arrived: Option<Duration>,
}

/// A socket that is connected or connecting.
#[derive(Debug)]
pub(super) struct TimedSocket {
    pub(super) stream: Socket,
    /// All bytes read so far.
    pub(super) received: u64,
    control: Vec<u8>,
}

impl TimedSocket {
    /// Starts to connect.
    pub(super) fn connect(address: &ResolvedAddress) -> io::Result<Self> {
        Self::over(address.connect()?)
    }

    /// Wraps a connected socket.
    pub(super) fn of(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Self::over(Socket::Tcp(TcpStream::from_std(stream)))
    }

    fn over(stream: Socket) -> io::Result<Self> {
        stream.set_nodelay()?;
        let control = match &stream {
            Socket::Tcp(stream) => ask_for_stamps(stream),
            #[cfg(unix)]
            Socket::Unix(_) => Vec::new(),
        };
        Ok(Self { stream, received: 0, control })
    }

    /// The local address of a TCP socket.
    pub(super) fn local_port(&self) -> Option<SocketAddr> {
        match &self.stream {
            Socket::Tcp(stream) => stream.local_addr().ok(),
            #[cfg(unix)]
            Socket::Unix(_) => None,
        }
    }

    /// Reads what has arrived; fails with `WouldBlock` if nothing has.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<ReadResult> {
        loop {
            match self.read_once(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    self.received += read.as_ref().map_or(0, |read| read.bytes as u64);
                    return read;
                }
            }
        }
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> io::Result<ReadResult> {
        match &mut self.stream {
            Socket::Tcp(stream) if !self.control.is_empty() => {
                read_stamped(stream, buffer, &mut self.control)
            }
            stream => Ok(ReadResult { bytes: stream.read(buffer)?, arrived: None }),
        }
    }

    /// Writes what the kernel accepts of `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }
}

impl io::Read for TimedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::read(self, buffer).map(|read| read.bytes)
    }
}

/// Keeps the kernel's timestamping enabled.
///
/// The kernel stops to stamp packets when no socket requests timestamps, and takes about a
/// millisecond to start again. So this socket requests them as long as it exists.
#[derive(Debug)]
pub(super) struct Stamping {
    #[expect(dead_code, reason = "held only to stay open")]
    socket: std::net::UdpSocket,
    /// Whether the kernel accepts the option.
    pub(super) by: StampedBy,
}

impl Stamping {
    pub(super) fn begin() -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))?;
        let by = match ask_for_stamps(&socket).is_empty() {
            true => StampedBy::Program,
            false => StampedBy::Kernel,
        };
        Ok(Self { socket, by })
    }
}

/// Raises the open-file limit to its maximum and returns it; `None` where it is not known.
#[cfg(target_os = "linux")]
pub(super) fn open_files() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    Some(if raised { hard } else { soft })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_files() -> Option<u64> {
    None
}

/// Reads both clocks within 5 µs of each other, or as close as some tries allow: the thread may be
/// preempted between the two readings.
#[expect(clippy::disallowed_methods, reason = "timestamps are taken here")]
pub(super) fn now() -> Now {
    const CLOSE: Duration = Duration::from_micros(5);
    const TRIES: usize = 8;
    let mut before = Instant::now();
    for attempt in 1.. {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let after = Instant::now();
        if after - before <= CLOSE || attempt == TRIES {
            return Now { monotonic: after, wall };
        }
        before = after;
    }
    unreachable!("the tries end")
}

/// Requests timestamps; returns a buffer for one, or an empty one if the kernel refuses.
#[cfg(target_os = "linux")]
fn ask_for_stamps(socket: &impl std::os::fd::AsFd) -> Vec<u8> {
    use nix::sys::{
        socket::{setsockopt, sockopt::ReceiveTimestampns},
        time::TimeSpec,
    };
    match setsockopt(socket, ReceiveTimestampns, &true) {
        Ok(()) => nix::cmsg_space!(TimeSpec),
        Err(_) => Vec::new(),
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_stamps<T>(_: &T) -> Vec<u8> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn read_stamped(
    stream: &TcpStream,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<ReadResult> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

    let mut parts = [io::IoSliceMut::new(buffer)];
    let fd = stream.as_raw_fd();
    let message = recvmsg::<()>(fd, &mut parts, Some(control), MsgFlags::empty())?;
    let arrived = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    Ok(ReadResult { bytes: message.bytes, arrived })
}

#[cfg(not(target_os = "linux"))]
fn read_stamped(_: &TcpStream, _: &mut [u8], _: &mut [u8]) -> io::Result<ReadResult> {
    Err(io::ErrorKind::Unsupported.into())
}
