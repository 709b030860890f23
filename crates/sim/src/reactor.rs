//! The thread of the simulated endpoint: waits for sockets and deadlines at once, and serves the
//! deadlines of all clients in their order.
//!
//! Each connection has at most one deadline in the heap, and each event costs the same however
//! many connections there are.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Buf;
use llm_stream_core::protocol::{Protocol, RequestIntent};
use llm_stream_socket::Socket;
use mio::{Events, Interest, Poll, Token, event::Event};
use rustls::ServerConfig;

use super::{
    connection::{ClientConnection, NextWrite, Phase, Streaming},
    listener::Listener,
    log::Log,
    pace,
    routing::{self, Route},
    script::{AnswerStream, RequestFacts, Script, ScriptedResponse, StreamEnd},
    tls::ServerTls,
    wire::{self, HttpRefusal, RequestHead},
};

/// The token of the listening socket. Others are places in the list of connections.
const LISTENER: Token = Token(usize::MAX);

/// The token of the waker that tells the thread to look at its `stop` flag.
pub(super) const WAKER: Token = Token(usize::MAX - 1);

/// Longest time for which deadlines that follow one another closely keep new requests waiting.
const POLL_EVERY: Duration = Duration::from_millis(1);

/// A deadline that is nearer than this leaves no time for a poll.
const POLL_TIME: Duration = Duration::from_micros(20);

/// How long the client has to read the last bytes before a reset, which would discard them.
const RESET_DELAY: Duration = Duration::from_millis(100);

/// Events taken from one poll, and bytes read at once.
const EVENTS: usize = 256;
const SCRATCH: usize = 64 << 10;

/// When a connection wants to go on. Ordered by time, then by the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline {
    due: Instant,
    order: u64,
    place: usize,
    serial: u64,
}

/// Whether a connection can go on at once.
enum Advance {
    Continue,
    Wait,
}

/// Everything that the thread owns.
#[derive(Debug)]
pub(super) struct Reactor {
    poll: Poll,
    listener: Listener,
    /// What its own URLs begin with.
    origin: String,
    tls: Option<Arc<ServerConfig>>,
    protocol: &'static dyn Protocol,
    script: Script,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    /// Each at its place, boxed because they are taken out to be served.
    connections: Vec<Option<Box<ClientConnection>>>,
    /// Places without a connection.
    free: Vec<usize>,
    deadlines: BinaryHeap<Reverse<Deadline>>,
    /// Connections accepted and deadlines made so far.
    serial: u64,
    /// Requests for a completion so far.
    requests: u64,
    /// Whether a connection could not be accepted, for lack of descriptors.
    accept_again: bool,
    polled: Instant,
    scratch: Vec<u8>,
}

impl Reactor {
    /// A reactor that accepts from `listener` and ends when `stop` is set and `poll` is woken.
    pub(super) fn new(
        poll: Poll,
        mut listener: Listener,
        tls: Option<Arc<ServerConfig>>,
        script: Script,
        protocol: &'static dyn Protocol,
        log: Arc<Log>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        listener.register(poll.registry(), LISTENER)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Self {
            origin: listener.origin(scheme)?,
            poll,
            listener,
            tls,
            protocol,
            script,
            log,
            stop,
            connections: Vec::new(),
            free: Vec::new(),
            deadlines: BinaryHeap::new(),
            serial: 0,
            requests: 0,
            accept_again: false,
            polled: pace::now(),
            scratch: vec![0; SCRATCH],
        })
    }

    /// Serves until it is stopped, or until nothing more can be learnt of the sockets.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stop.load(Ordering::Acquire) {
            if self.poll_has_time() {
                self.poll(&mut events)?;
            }
            for event in &events {
                self.serve_due();
                self.handle(event);
            }
            events.clear();
            self.await_deadline();
            self.serve_due();
        }
        Ok(())
    }

    /// Time until the next deadline; `None` when there is none.
    fn left(&self) -> Option<Duration> {
        let Reverse(next) = self.deadlines.peek()?;
        Some(next.due.saturating_duration_since(pace::now()))
    }

    fn poll_has_time(&self) -> bool {
        let recent = pace::now() - self.polled < POLL_EVERY;
        !recent || self.left().is_none_or(|left| left >= POLL_TIME)
    }

    fn poll(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.left().map(pace::poll_timeout);
        let polled = self.poll.poll(events, timeout);
        self.polled = pace::now();
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// Waits for a deadline that is too near for a poll.
    fn await_deadline(&self) {
        if let Some(left) = self.left()
            && !left.is_zero()
            && pace::poll_timeout(left).is_zero()
            && let Some(Reverse(next)) = self.deadlines.peek()
        {
            pace::wait_until(next.due);
        }
    }

    /// Serves what is due, in the order of the deadlines; not for longer than sockets may wait,
    /// since what is due may never end.
    fn serve_due(&mut self) {
        let start = pace::now();
        let mut now = start;
        while now - start < POLL_EVERY
            && let Some((place, serial)) = self.next_due(now)
        {
            self.serve(place, serial);
            now = pace::now();
        }
    }

    /// The connection whose turn it is, by its place and serial.
    fn next_due(&mut self, now: Instant) -> Option<(usize, u64)> {
        let next = self.deadlines.peek_mut().filter(|next| next.0.due <= now)?;
        let Reverse(Deadline { place, serial, .. }) = PeekMut::pop(next);
        Some((place, serial))
    }

    fn handle(&mut self, event: &Event) {
        match event.token() {
            WAKER => {}
            LISTENER => self.accept(),
            Token(place) => self.handle_client(place, event.is_writable()),
        }
    }

    fn handle_client(&mut self, place: usize, writable: bool) {
        let Some(mut connection) = self.take(place) else {
            return;
        };
        let filled = connection.fill(&mut self.scratch);
        let waits = matches!(connection.phase, Phase::Head | Phase::Body(_));
        let goes_on = waits || (writable && connection.blocked);
        let served = match filled {
            Ok(()) if goes_on => self.drive(place, &mut connection),
            other => other,
        };
        self.put(place, connection, served);
    }

    /// Lets a connection go on, unless it is gone and another has its place.
    fn serve(&mut self, place: usize, serial: u64) {
        let Some(mut connection) = self.take(place) else {
            return;
        };
        let mut served = Ok(());
        if connection.serial == serial {
            served = self.drive(place, &mut connection);
        }
        self.put(place, connection, served);
    }

    fn take(&mut self, place: usize) -> Option<Box<ClientConnection>> {
        self.connections.get_mut(place)?.take()
    }

    /// Puts a connection back, or frees its place when it broke.
    fn put(&mut self, place: usize, connection: Box<ClientConnection>, served: io::Result<()>) {
        if served.is_ok() {
            self.connections[place] = Some(connection);
            return;
        }
        drop(connection);
        self.free.push(place);
        if self.accept_again {
            self.accept();
        }
    }

    fn accept(&mut self) {
        self.accept_again = false;
        loop {
            match self.listener.accept() {
                Ok(socket) => {
                    self.admit(socket);
                    self.serve_due();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(_) => {
                    self.accept_again = true;
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut socket: Socket) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interests = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        let ready = socket
            .set_nodelay()
            .and_then(|()| registry.register(&mut socket, Token(place), interests));
        self.serial += 1;
        let mut connection = Box::new(ClientConnection::new(socket, self.serial));
        let ready = ready.and_then(|()| {
            connection.outbox.tls = self.tls.clone().map(ServerTls::new).transpose()?;
            Ok(())
        });
        self.put(place, connection, ready);
    }

    /// Takes a connection as far as it can go now.
    fn drive(&mut self, place: usize, connection: &mut ClientConnection) -> io::Result<()> {
        while connection.flush()? {
            match self.advance(place, connection)? {
                Advance::Continue => {}
                Advance::Wait => break,
            }
        }
        Ok(())
    }

    /// The next thing to do once everything owed so far is written.
    fn advance(&mut self, place: usize, connection: &mut ClientConnection) -> io::Result<Advance> {
        match &mut connection.phase {
            Phase::Head => self.read_head(connection),
            Phase::Body(head) if connection.inbox.len() < head.body => self.read_more(connection),
            Phase::Body(_) => {
                self.answer(connection);
                Ok(Advance::Continue)
            }
            Phase::Streaming(streaming) => {
                let turn = streaming.prepare(self.protocol, &mut connection.outbox);
                Ok(self.take_turn(turn, place, connection))
            }
            Phase::Answered => self.next_request(connection),
            Phase::Resetting => {
                connection.reset()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Phase::Stalled | Phase::Draining => Ok(Advance::Wait),
        }
    }

    /// Has a connection go on when something is due. What is late already waits behind all else
    /// that is: a stream without delays must not keep others from theirs.
    fn wake_at(&mut self, due: Instant, place: usize, serial: u64) {
        let due = due.max(pace::now());
        self.serial += 1;
        self.deadlines.push(Reverse(Deadline { due, order: self.serial, place, serial }));
    }

    fn read_head(&mut self, connection: &mut ClientConnection) -> io::Result<Advance> {
        match wire::parse_head(&connection.inbox) {
            Ok(None) => self.read_more(connection),
            Ok(Some((head, size))) => {
                connection.inbox.advance(size);
                connection.keep_alive = head.keep_alive;
                if head.expects_continue && connection.inbox.len() < head.body {
                    connection.outbox.push_head(wire::CONTINUE.to_vec());
                }
                connection.phase = Phase::Body(head);
                Ok(Advance::Continue)
            }
            Err(refusal) => {
                self.refuse(connection, refusal);
                Ok(Advance::Continue)
            }
        }
    }

    fn read_more(&mut self, connection: &mut ClientConnection) -> io::Result<Advance> {
        if !connection.unread {
            return Ok(Advance::Wait);
        }
        connection.fill(&mut self.scratch)?;
        Ok(Advance::Continue)
    }

    fn refuse(&self, connection: &mut ClientConnection, refusal: HttpRefusal) {
        connection.keep_alive = false;
        self.answer_error(connection, refusal.status, refusal.message);
    }

    fn next_request(&mut self, connection: &mut ClientConnection) -> io::Result<Advance> {
        connection.entry = None;
        if connection.keep_alive {
            connection.phase = Phase::Head;
            return Ok(Advance::Continue);
        }
        if connection.outbox.push_goodbye() {
            return Ok(Advance::Continue);
        }
        connection.finish()?;
        connection.fill(&mut self.scratch)?;
        Ok(Advance::Wait)
    }

    /// Waits for a stream's next step, or ends it.
    fn take_turn(
        &mut self,
        turn: NextWrite,
        place: usize,
        connection: &mut ClientConnection,
    ) -> Advance {
        match turn {
            NextWrite::At(due) => self.wake_at(due, place, connection.serial),
            NextWrite::End(StreamEnd::Clean, due) => {
                if !connection.is_whole() {
                    connection.outbox.push_body(wire::LAST_CHUNK.to_vec(), due, 0);
                }
                connection.phase = Phase::Answered;
                return Advance::Continue;
            }
            NextWrite::End(StreamEnd::Reset, due) => {
                connection.phase = Phase::Resetting;
                let after = due.max(pace::now()) + RESET_DELAY;
                self.wake_at(after, place, connection.serial);
            }
            NextWrite::End(StreamEnd::Stall, _) => connection.phase = Phase::Stalled,
        }
        Advance::Wait
    }
}

/// Answers.
impl Reactor {
    /// Begins the answer to the request whose body has been read.
    fn answer(&mut self, connection: &mut ClientConnection) {
        let Some(head) = connection.phase.take_head() else {
            return;
        };
        let received = pace::now();
        let body = connection.inbox.split_to(head.body).freeze();
        match Route::of(&head, self.protocol.path()) {
            Route::Completion => self.complete(connection, received, &body),
            Route::Models => self.answer_json(connection, 200, routing::MODELS),
            Route::Health => self.answer_json(connection, 200, routing::HEALTH),
            Route::Unknown => self.answer_unknown(connection, &head),
        }
    }

    fn complete(&mut self, connection: &mut ClientConnection, received: Instant, body: &[u8]) {
        let intent = match routing::request_intent(body, self.protocol) {
            Ok(intent) => intent,
            Err(message) => return self.answer_error(connection, 400, message),
        };
        self.requests += 1;
        let id = self.script.id(self.requests);
        let entry = self.log.open(self.requests, id.clone(), received, body);
        connection.entry = Some(entry);
        match self.script.answer(&self.facts(&intent)) {
            ScriptedResponse::Stream(stream) => {
                self.begin(connection, stream, id, intent, received)
            }
            ScriptedResponse::Status(status) => {
                self.answer_error(connection, status, "simulated fault")
            }
            ScriptedResponse::Whole(whole) => {
                let created = pace::unix_seconds();
                let body = routing::whole_body(&id, &intent.model, created, &whole);
                self.answer_json(connection, 200, &body);
            }
        }
    }

    fn facts(&self, intent: &RequestIntent) -> RequestFacts {
        RequestFacts {
            number: self.requests,
            max_tokens: intent.max_tokens,
            min_tokens: intent.min_tokens,
            prompt_chars: intent.prompt_chars,
            include_usage: intent.usage,
        }
    }

    fn begin(
        &self,
        connection: &mut ClientConnection,
        stream: AnswerStream,
        id: String,
        intent: RequestIntent,
        received: Instant,
    ) {
        let head = wire::stream_head(self.protocol.framing().content_type(), connection.keep_alive);
        connection.outbox.push_head(head);
        connection.phase = Phase::Streaming(Box::new(Streaming {
            stream,
            id,
            model: intent.model,
            created: pace::unix_seconds(),
            received,
            is_whole: false,
        }));
    }

    fn answer_unknown(&self, connection: &mut ClientConnection, head: &RequestHead) {
        let message = format!("the simulated endpoint has no {} {}", head.method, head.path);
        self.answer_error(connection, 404, &message);
    }

    fn answer_error(&self, connection: &mut ClientConnection, status: u16, message: &str) {
        let body = self.protocol.encode_error(status, message);
        self.answer_json(connection, status, &body);
    }

    fn answer_json(&self, connection: &mut ClientConnection, status: u16, body: &[u8]) {
        let elsewhere = format!("{}/elsewhere", self.origin);
        let location = (300..400).contains(&status).then_some(elsewhere.as_str());
        let answer = wire::json_answer(status, body, location, connection.keep_alive);
        connection.outbox.push_head(answer);
        connection.phase = Phase::Answered;
    }
}
