//! The reference for calibration: the smallest client that can take timestamps.
//!
//! It has sockets, kernel timestamps and a search for `data:` lines, and relies on what the simulated
//! endpoint sends: no HTTP parser, JSON or error handling. The difference of a transport to this
//! reader is the cost of the transport.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};

use super::{
    MANY, REST,
    clock::{Now, moment},
    now,
    socket::{self, Stamping, TimedSocket},
};

/// Longest time without bytes on any stream.
const SILENCE: Duration = Duration::from_secs(10);

/// The reference reader and its connections to one simulated endpoint.
#[derive(Debug)]
pub struct ReferenceReader {
    address: SocketAddr,
    request: Vec<u8>,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    sockets: Vec<TimedSocket>,
    _stamping: Option<Stamping>,
}

/// The timestamps of one stream.
#[derive(Debug)]
pub struct ReferenceStream {
    /// The time of the request.
    pub origin: Instant,
    /// The first `data:` line, which contains the id of the completion.
    pub first: Vec<u8>,
    /// The arrival of each `data:` line.
    pub lines: Vec<Instant>,
    /// Whether the kernel stamped all lines.
    pub by_kernel: bool,
    /// The unfinished line.
    partial: Vec<u8>,
    ended: bool,
}

impl ReferenceReader {
    /// Creates a reader that sends `body` to `path`. It opens no connection yet.
    pub fn new(address: SocketAddr, path: &str, body: &[u8]) -> io::Result<Self> {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}");
        Ok(Self {
            address,
            request: [head.as_bytes(), b"\r\n\r\n", body].concat(),
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; 64 << 10],
            sockets: Vec::new(),
            _stamping: Stamping::begin().ok(),
        })
    }

    /// Sends `streams` requests at once and reads their answers to the end.
    pub fn round(&mut self, streams: usize) -> io::Result<Vec<ReferenceStream>> {
        while self.sockets.len() < streams {
            let mut socket = TimedSocket::of(TcpStream::connect(self.address)?)?;
            let token = Token(self.sockets.len());
            self.poll.registry().register(&mut socket.stream, token, Interest::READABLE)?;
            self.sockets.push(socket);
        }
        let mut answers = Vec::with_capacity(streams);
        for socket in &mut self.sockets[..streams] {
            answers.push(ReferenceStream::from(now()));
            if socket.write(&self.request)? < self.request.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        let mut left = streams;
        while left > 0 {
            left -= self.turn(&mut answers)?;
            if left > MANY {
                thread::sleep(REST);
            }
        }
        Ok(answers)
    }

    /// Reads what has arrived; returns the number of streams that ended.
    fn turn(&mut self, answers: &mut [ReferenceStream]) -> io::Result<usize> {
        self.poll.poll(&mut self.events, Some(SILENCE))?;
        if self.events.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut ended = 0;
        for event in &self.events {
            let Token(slot) = event.token();
            loop {
                let read = match self.sockets[slot].read(&mut self.buffer) {
                    Ok(read) if read.bytes == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                let stream = &mut answers[slot];
                let was_ended = stream.ended;
                stream.take(&self.buffer[..read.bytes], read.arrived, socket::now());
                ended += usize::from(stream.ended && !was_ended);
                if read.bytes < self.buffer.len() {
                    break;
                }
            }
        }
        Ok(ended)
    }
}

impl ReferenceStream {
    fn from(origin: Instant) -> Self {
        let (first, lines, partial) = (Vec::new(), Vec::new(), Vec::new());
        Self { origin, first, lines, by_kernel: true, partial, ended: false }
    }

    fn take(&mut self, bytes: &[u8], arrived: Option<Duration>, now: Now) {
        let at = arrived.map_or(now.monotonic, |stamp| moment(stamp, now));
        // The kernel may not stamp the head yet: it needs about a millisecond to start.
        let lines = self.lines.len();
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            match self.partial.is_empty() {
                true => self.line(line, at),
                false => {
                    let mut whole = std::mem::take(&mut self.partial);
                    whole.extend_from_slice(line);
                    self.line(&whole, at);
                }
            }
            rest = &rest[end + 1..];
        }
        self.partial.extend_from_slice(rest);
        self.by_kernel &= arrived.is_some() || self.lines.len() == lines;
    }

    fn line(&mut self, line: &[u8], at: Instant) {
        if line.starts_with(b"data:") {
            if self.lines.is_empty() {
                self.first = line.to_vec();
            }
            self.lines.push(at);
        }
        // The last chunk of the chunked coding.
        self.ended |= line == b"0\r";
    }
}
