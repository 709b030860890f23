//! The stamped transport: HTTP/1.1 over TCP or TLS, arrivals stamped by the kernel.
//!
//! A clock that is read when the program gets round to it says when the program ran, not when the
//! bytes came. The kernel knows the latter; [`socket`](super::socket) asks it. What is left is that
//! a read has the stamp of its last segment, so what came in several has the time of the last of
//! them, and that the stamp is taken on this machine: the network is in it.
//!
//! A connection is set up, TLS included, before a request's clock starts; a kept one that the
//! server has closed is noticed before the request is sent. Nothing is sent twice.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::{HeaderMap, header};
use mio::{Events, Interest, Poll, Token};
use rustls::{ClientConnection, pki_types::ServerName};

use super::{
    Watch,
    clock::{WallClock, moment},
    http1::{Head, ResponseReader},
    limits::Limits,
    now,
    socket::{self, Socket},
    tls,
};
use crate::{
    plan::Timeouts,
    recording::{Chunk, ErrorKind, Recording, RequestError, StampedBy},
};

/// Most that one read takes, bytes.
const READ: usize = 64 << 10;

/// How often a wait looks whether the user has lost patience.
const PATIENCE: Duration = Duration::from_millis(50);

const TOKEN: Token = Token(0);

/// Sends requests to one server over one connection.
pub(super) struct Stamped {
    server: Server,
    /// The head of every request up to its content length.
    head: Vec<u8>,
    timeouts: Timeouts,
    poll: Poll,
    events: Events,
    connection: Option<Connection>,
    wall: WallClock,
    buffer: Vec<u8>,
}

/// Where to connect to.
struct Server {
    host: String,
    port: u16,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

struct Connection {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

/// A response as it comes in.
struct Incoming {
    origin: Instant,
    reader: ResponseReader,
    body: BytesMut,
    chunks: Vec<Chunk>,
    headers_at: Option<Duration>,
    last_read: Duration,
    stamped_by: StampedBy,
    /// Bytes after the answer's end, or the connection's end: it is not to be used again.
    leftover: bool,
}

impl Stamped {
    /// A client for `url` that has no connection yet.
    pub(super) fn new(
        url: &reqwest::Url,
        headers: &HeaderMap,
        timeouts: Timeouts,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            server: Server::of(url)?,
            head: request_head(url, headers),
            timeouts,
            poll: Poll::new()?,
            events: Events::with_capacity(8),
            connection: None,
            wall: WallClock::new(),
            buffer: vec![0; READ],
        })
    }

    /// Sends `body` and records the answer to its end.
    pub(super) fn send(
        &mut self,
        body: &[u8],
        watch: &dyn Watch,
    ) -> Result<Recording, RequestError> {
        let (mut connection, set_up) = self.connected(watch)?;
        let mut request = self.head.clone();
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        let limits = Limits { origin: now(), timeouts: self.timeouts };
        self.write(&mut connection, &request, &limits, watch)?;
        let sent = limits.elapsed();
        let mut incoming = Incoming::new(limits.origin);
        let broken = self.receive(&mut connection, &mut incoming, &limits, watch).err();
        let ended_at = match broken {
            None => incoming.last_read,
            Some(_) => limits.elapsed(),
        };
        if broken.is_none() && !incoming.leftover && incoming.reader.keeps_alive() {
            self.connection = Some(connection);
        }
        incoming.into_recording(set_up, sent, ended_at, broken)
    }

    /// The kept connection if it is still open, else a new one.
    fn connected(
        &mut self,
        watch: &dyn Watch,
    ) -> Result<(Connection, Option<SetUp>), RequestError> {
        if let Some(mut kept) = self.connection.take()
            && kept.is_open(&mut self.buffer)
        {
            return Ok((kept, None));
        }
        let deadline = now() + self.timeouts.connect;
        let (connection, set_up) = self.open(deadline, watch)?;
        Ok((connection, Some(set_up)))
    }

    /// Opens a connection by `deadline`.
    fn open(
        &mut self,
        deadline: Instant,
        watch: &dyn Watch,
    ) -> Result<(Connection, SetUp), RequestError> {
        let begun = now();
        let addresses = self.server.resolve(deadline, self.timeouts.connect)?;
        let socket = self.first_that_answers(&addresses, deadline, watch)?;
        let connected = now();
        let mut connection = Connection { socket, tls: None };
        if let Some((config, name)) = &self.server.tls {
            let tls = ClientConnection::new(config.clone(), name.clone())
                .map_err(|error| self.server.tls_failed(error.into()))?;
            connection.tls = Some(Box::new(tls));
            self.handshake(&mut connection, deadline, watch)?;
        }
        let shaken = now();
        let tls = connection.tls.is_some().then(|| shaken - connected);
        let set_up = SetUp { total: shaken - begun, tls };
        Ok((connection, set_up))
    }

    fn first_that_answers(
        &mut self,
        addresses: &[SocketAddr],
        deadline: Instant,
        watch: &dyn Watch,
    ) -> Result<Socket, RequestError> {
        let mut last = None;
        for &address in addresses {
            match self.connect(address, deadline, watch) {
                Ok(socket) => return Ok(socket),
                Err(error) if error.kind == ErrorKind::Connect => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        let none = || self.server.failed("the name has no address");
        Err(last.unwrap_or_else(none))
    }

    fn connect(
        &mut self,
        address: SocketAddr,
        deadline: Instant,
        watch: &dyn Watch,
    ) -> Result<Socket, RequestError> {
        let failed = |server: &Server, error: &io::Error| server.failed(&error.to_string());
        let mut socket = Socket::connect(address).map_err(|error| failed(&self.server, &error))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry
            .register(&mut socket.stream, TOKEN, interest)
            .map_err(|error| failed(&self.server, &error))?;
        loop {
            if let Ok(Some(error)) = socket.stream.take_error() {
                return Err(failed(&self.server, &error));
            }
            if socket.stream.peer_addr().is_ok() {
                return Ok(socket);
            }
            self.wait_to_connect(deadline, watch)?;
        }
    }

    fn handshake(
        &mut self,
        connection: &mut Connection,
        deadline: Instant,
        watch: &dyn Watch,
    ) -> Result<(), RequestError> {
        while connection.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            let moved = connection.shake().map_err(|error| self.server.tls_failed(error))?;
            if !moved {
                self.wait_to_connect(deadline, watch)?;
            }
        }
        Ok(())
    }

    fn wait_to_connect(
        &mut self,
        deadline: Instant,
        watch: &dyn Watch,
    ) -> Result<(), RequestError> {
        self.wait(deadline, watch)?;
        match now() < deadline {
            true => Ok(()),
            false => Err(self.server.too_late(self.timeouts.connect)),
        }
    }

    /// Waits until something can be read or written, `until`, or a while.
    fn wait(&mut self, until: Instant, watch: &dyn Watch) -> Result<(), RequestError> {
        if watch.is_cancelled() {
            return Err(RequestError::new(ErrorKind::Interrupted, "interrupted"));
        }
        let left = until.saturating_duration_since(now()).min(PATIENCE);
        match self.poll.poll(&mut self.events, Some(left)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let message = format!("waiting for the network failed: {error}");
                Err(RequestError::new(ErrorKind::Broken, message))
            }
            _ => Ok(()),
        }
    }

    /// Hands the request over, all of it.
    fn write(
        &mut self,
        connection: &mut Connection,
        request: &[u8],
        limits: &Limits,
        watch: &dyn Watch,
    ) -> Result<(), RequestError> {
        let mut rest = connection.seal(request).map_err(|error| broke_off(&error))?;
        let mut deadline = limits.first_deadline();
        while connection.write(&mut rest).map_err(|error| broke_off(&error))? {
            self.wait(deadline, watch)?;
            if now() >= deadline {
                deadline = limits.expired(None)?;
            }
        }
        Ok(())
    }

    /// Records the response to its end.
    fn receive(
        &mut self,
        connection: &mut Connection,
        incoming: &mut Incoming,
        limits: &Limits,
        watch: &dyn Watch,
    ) -> Result<(), RequestError> {
        let mut deadline = limits.first_deadline();
        while !incoming.reader.is_done() {
            match connection.socket.read(&mut self.buffer) {
                Ok(read) => {
                    let now = socket::now();
                    let steady = self.wall.round(now);
                    let stamp = read.arrived.filter(|_| steady).map(|stamp| moment(stamp, now));
                    if stamp.is_none() && read.bytes > 0 {
                        incoming.stamped_by = StampedBy::Program;
                    }
                    let at = stamp.unwrap_or(now.monotonic);
                    connection.take(&self.buffer[..read.bytes], at, incoming, watch)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(deadline, watch)?;
                    if now() >= deadline {
                        deadline = limits.expired(watch.last_token(&incoming.chunks))?;
                    }
                }
                Err(error) => return Err(incoming.broken(&error)),
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Whether nothing speaks against sending on a connection that was kept.
    fn is_open(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.socket.read(buffer) {
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                Ok(read) if read.bytes == 0 => return false,
                // TLS sends session tickets unasked; HTTP sends nothing.
                Ok(read) => {
                    let bytes = &buffer[..read.bytes];
                    if !self.tls.as_mut().is_some_and(|tls| takes_silently(tls, bytes)) {
                        return false;
                    }
                }
            }
        }
    }

    /// Moves the TLS handshake on; whether anything moved.
    fn shake(&mut self) -> Result<bool, TlsError> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        let mut moved = false;
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket.stream) {
                Ok(_) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if tls.wants_read() {
            match tls.read_tls(&mut self.socket.stream) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                Err(error) => return Err(error.into()),
            }
            let processed = tls.process_new_packets();
            if processed.is_err() {
                // The server should learn why; it is gone if it does not.
                let _ = tls.write_tls(&mut self.socket.stream);
            }
            processed?;
        }
        Ok(moved)
    }

    /// Encrypts the request where that is wanted; what is then left to write as it is.
    fn seal<'a>(&mut self, request: &'a [u8]) -> io::Result<&'a [u8]> {
        match &mut self.tls {
            None => Ok(request),
            Some(tls) => {
                tls.set_buffer_limit(None);
                tls.writer().write_all(request)?;
                Ok(&[])
            }
        }
    }

    /// Writes what the kernel takes; whether something is left.
    fn write(&mut self, rest: &mut &[u8]) -> io::Result<bool> {
        let blocks = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(written) => *rest = &rest[written..],
                Err(error) if blocks(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            match tls.write_tls(&mut self.socket.stream) {
                Ok(_) => {}
                Err(error) if blocks(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Takes one read, which arrived at `at`; none means that the server has closed.
    fn take(
        &mut self,
        bytes: &[u8],
        at: Instant,
        incoming: &mut Incoming,
        watch: &dyn Watch,
    ) -> Result<(), RequestError> {
        if bytes.is_empty() {
            return incoming.close();
        }
        match &mut self.tls {
            None => incoming.take(bytes, at)?,
            Some(tls) => decrypt(tls, bytes, |plain| incoming.take(plain, at))
                .map_err(|error| incoming.undecrypted(error))?,
        }
        incoming.end_read(at, watch);
        let closed = self.tls.as_mut().is_some_and(|tls| {
            tls.process_new_packets().is_ok_and(|state| state.peer_has_closed())
        });
        match closed && !incoming.reader.is_done() {
            true => incoming.close(),
            false => Ok(()),
        }
    }
}

/// Why a TLS connection failed.
enum TlsError {
    Io(io::Error),
    Tls(rustls::Error),
    /// What was decrypted is no answer.
    Answer(RequestError),
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<RequestError> for TlsError {
    fn from(error: RequestError) -> Self {
        Self::Answer(error)
    }
}

/// Hands the plain text in `bytes` to `sink`, piece by piece.
fn decrypt(
    tls: &mut ClientConnection,
    mut bytes: &[u8],
    mut sink: impl FnMut(&[u8]) -> Result<(), RequestError>,
) -> Result<(), TlsError> {
    let mut plain = [0; 16 << 10];
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        let mut left = tls.process_new_packets()?.plaintext_bytes_to_read();
        while left > 0 {
            let read = tls.reader().read(&mut plain)?;
            sink(&plain[..read])?;
            left -= read;
        }
    }
    Ok(())
}

/// Whether `bytes` are TLS's own affair and the server has not closed.
fn takes_silently(tls: &mut ClientConnection, bytes: &[u8]) -> bool {
    let mut silent = true;
    let taken = decrypt(tls, bytes, |_| {
        silent = false;
        Ok(())
    });
    let closed = tls.process_new_packets().map_or(true, |state| state.peer_has_closed());
    taken.is_ok() && silent && !closed
}

impl Incoming {
    fn new(origin: Instant) -> Self {
        Self {
            origin,
            reader: ResponseReader::new(),
            body: BytesMut::new(),
            chunks: Vec::new(),
            headers_at: None,
            last_read: Duration::ZERO,
            stamped_by: StampedBy::Kernel,
            leftover: false,
        }
    }

    /// Takes a piece of a read.
    fn take(&mut self, bytes: &[u8], at: Instant) -> Result<(), RequestError> {
        let taken = self.reader.push(bytes, &mut self.body).map_err(|error| self.broken(&error))?;
        self.leftover |= taken < bytes.len();
        if self.headers_at.is_none() && self.reader.head().is_some() {
            self.headers_at = Some(at.saturating_duration_since(self.origin));
        }
        Ok(())
    }

    /// All that a read brought of the body is one chunk: it has one stamp.
    fn end_read(&mut self, at: Instant, watch: &dyn Watch) {
        self.last_read = at.saturating_duration_since(self.origin);
        if !self.body.is_empty() {
            let chunk = Chunk { at: self.last_read, bytes: self.body.split().freeze() };
            watch.arrived(&chunk);
            self.chunks.push(chunk);
        }
    }

    fn close(&mut self) -> Result<(), RequestError> {
        self.leftover = true;
        self.reader.close().map_err(|error| self.broken(&error))
    }

    fn broken(&self, cause: &dyn std::fmt::Display) -> RequestError {
        let message = match self.reader.head() {
            None => format!("the connection broke before the answer began: {cause}"),
            Some(_) => format!("the connection broke inside the answer: {cause}"),
        };
        RequestError::new(ErrorKind::Broken, message)
    }

    fn undecrypted(&self, error: TlsError) -> RequestError {
        match error {
            TlsError::Io(error) => self.broken(&error),
            TlsError::Tls(error) => self.broken(&error),
            TlsError::Answer(error) => error,
        }
    }

    fn into_recording(
        self,
        set_up: Option<SetUp>,
        sent: Duration,
        ended_at: Duration,
        broken: Option<RequestError>,
    ) -> Result<Recording, RequestError> {
        let Some(Head { status, version, headers }) = self.reader.head() else {
            return Err(broken.unwrap_or_else(|| self.broken(&"nothing came")));
        };
        let content_type = headers.get(header::CONTENT_TYPE);
        Ok(Recording {
            status: status.as_u16(),
            content_type: content_type.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()),
            http_version: format!("{version:?}"),
            connect: set_up.map(|set_up| set_up.total),
            tls: set_up.and_then(|set_up| set_up.tls),
            sent: Some(sent),
            headers_at: self.headers_at.unwrap_or_default(),
            chunks: self.chunks,
            ended_at,
            stamped_by: self.stamped_by,
            broken,
        })
    }
}

impl Server {
    fn of(url: &reqwest::Url) -> anyhow::Result<Self> {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let tls = match url.scheme() {
            "https" => Some((tls::trusting_the_system()?, ServerName::try_from(host.clone())?)),
            _ => None,
        };
        Ok(Self { host, port, tls })
    }

    /// The addresses of the host. The system's resolver knows no limit, so it runs beside.
    fn resolve(&self, deadline: Instant, limit: Duration) -> Result<Vec<SocketAddr>, RequestError> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![(address, self.port).into()]);
        }
        let (found, addresses) = mpsc::channel();
        let name = (self.host.clone(), self.port);
        thread::spawn(move || found.send(name.to_socket_addrs().map(Iterator::collect)));
        match addresses.recv_timeout(deadline.saturating_duration_since(now())) {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.too_late(limit)),
        }
    }

    fn failed(&self, cause: &str) -> RequestError {
        let Self { host, port, .. } = self;
        RequestError::new(ErrorKind::Connect, format!("cannot connect to {host}:{port}: {cause}"))
    }

    fn tls_failed(&self, cause: TlsError) -> RequestError {
        let Self { host, port, .. } = self;
        let cause = match cause {
            TlsError::Io(error) => error.to_string(),
            TlsError::Tls(error) => error.to_string(),
            TlsError::Answer(error) => error.message,
        };
        RequestError::new(ErrorKind::Tls, format!("TLS with {host}:{port} failed: {cause}"))
    }

    fn too_late(&self, limit: Duration) -> RequestError {
        let Self { host, port, .. } = self;
        let message = format!("no connection to {host}:{port} within {limit:?} (timeouts.connect)");
        RequestError::new(ErrorKind::ConnectTimeout, message)
    }
}

/// A set-up's times.
#[derive(Debug, Clone, Copy)]
struct SetUp {
    total: Duration,
    tls: Option<Duration>,
}

fn broke_off(error: &io::Error) -> RequestError {
    let message = format!("the connection broke while the request was sent: {error}");
    RequestError::new(ErrorKind::Broken, message)
}

/// The head of every request to `url`, but for the length of its body.
fn request_head(url: &reqwest::Url, headers: &HeaderMap) -> Vec<u8> {
    let authority = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let mut head = format!("POST {} HTTP/1.1\r\nhost: {authority}\r\n", url.path()).into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head
}
