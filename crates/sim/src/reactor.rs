//! The thread of the simulated endpoint: one reactor for all sockets and all deadlines.
//!
//! Two rules keep writes on time. Steps are encoded before they are due, so that a deadline costs
//! one write. And each connection has at most one deadline in the heap, so that the cost of an
//! event hardly depends on the number of connections.
//!
//! Two rules keep the reactor fair. Deadlines run in the order of time and never for longer than
//! `POLL_EVERY` without a look at the sockets. A deadline that is already past is moved to the
//! present (`Reactor::wake_at`), so that a stream without delays queues behind the others. The
//! log compares each write with its scheduled time, not with the moved deadline, so lateness is
//! never hidden.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque, binary_heap::PeekMut},
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

use super::{
    batching::{ServerBatch, Step},
    connection::{ClientConnection, NextWrite, Phase, Streaming},
    listener::Listener,
    log::Log,
    pace,
    routing::{self, Route},
    script::{AnswerStream, RequestFacts, Script, ScriptedResponse, StreamEnd},
    tls::{ServerTls, SimulatorTls},
    wire::{self, HttpRefusal, RequestHead},
};

/// The token of the listening socket. Other tokens are slots in the list of connections.
const LISTENER: Token = Token(usize::MAX);

/// The token of the waker, which makes the thread check its `stop` flag.
pub(super) const WAKER: Token = Token(usize::MAX - 1);

/// The slot of a deadline at which a step of the server's batch ends.
const BATCH: usize = usize::MAX;

/// The longest time that deadlines may keep new requests waiting.
const POLL_EVERY: Duration = Duration::from_millis(1);

/// A deadline that is nearer than this leaves no time for a poll.
const POLL_TIME: Duration = Duration::from_micros(20);

/// The time that the client has to read the last bytes; a reset discards unread ones.
const RESET_DELAY: Duration = Duration::from_millis(100);

/// The number of events per poll; below, the number of bytes per read.
const EVENTS: usize = 256;
const SCRATCH: usize = 64 << 10;

/// When a connection continues. Ordered by time, then by the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline {
    due: Instant,
    order: u64,
    slot: usize,
    serial: u64,
}

/// Whether a connection can continue at once.
enum Advance {
    Continue,
    Wait,
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Reactor {
    poll: Poll,
    listener: Listener,
    /// The beginning of its URLs.
    origin: String,
    tls: Option<SimulatorTls>,
    protocol: &'static dyn Protocol,
    script: Script,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    /// The connections by slot, boxed because they are taken out while they are served.
    connections: Vec<Option<Box<ClientConnection>>>,
    /// The slots without a connection.
    free: Vec<usize>,
    deadlines: BinaryHeap<Reverse<Deadline>>,
    /// The number of connections accepted and deadlines created so far, as a source of serial
    /// numbers.
    serial: u64,
    /// The number of requests for a completion so far.
    requests: u64,
    /// The server's batch, if its capacity is limited.
    batch: Option<ServedBatch>,
    /// Whether `accept` failed for lack of file descriptors and must be repeated.
    accept_again: bool,
    polled: Instant,
    scratch: Vec<u8>,
}

/// The batch of a server with a limited capacity.
#[derive(Debug)]
struct ServedBatch {
    batch: ServerBatch,
    /// When its time began.
    origin: Instant,
    /// The slot and the serial number of the connection of each request.
    places: HashMap<u64, (usize, u64)>,
}

impl ServedBatch {
    fn of(script: &Script) -> Option<Self> {
        let batch = ServerBatch::new(script.capacity?, script.jitter, script.seed);
        Some(Self { batch, origin: pace::now(), places: HashMap::new() })
    }
}

impl Reactor {
    /// Creates a reactor that accepts from `listener`. It ends when `stop` is set and `poll` is
    /// woken.
    pub(super) fn new(
        poll: Poll,
        mut listener: Listener,
        tls: Option<SimulatorTls>,
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
            batch: ServedBatch::of(&script),
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

    /// Serves until it is stopped or the poll fails.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stop.load(Ordering::Acquire) {
            // Deadlines that follow each other closely leave no time for a poll, but after
            // POLL_EVERY new requests have waited long enough.
            if self.poll_has_time() {
                self.poll(&mut events)?;
            }
            for event in &events {
                // Between two events too, because handling 256 events takes longer than a deadline
                // may be late.
                self.serve_due();
                self.handle(event);
            }
            events.clear();
            // The poll ended early on purpose (see `pace`); the rest of the wait is exact.
            self.await_deadline();
            self.serve_due();
        }
        Ok(())
    }

    /// Returns the time until the next deadline.
    fn left(&self) -> Option<Duration> {
        let Reverse(next) = self.deadlines.peek()?;
        Some(next.due.saturating_duration_since(pace::now()))
    }

    fn poll_has_time(&self) -> bool {
        // A clock read and a heap peek cost far less than the system call that they save.
        let recent = pace::now() - self.polled < POLL_EVERY;
        !recent || self.left().is_none_or(|left| left >= POLL_TIME)
    }

    fn poll(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.left().map(pace::poll_timeout);
        let polled = self.poll.poll(events, timeout);
        self.polled = pace::now();
        match polled {
            // By a signal. The loop continues with an empty list of events.
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

    /// Serves due connections in the order of their deadlines, for [`POLL_EVERY`] at most: there
    /// may always be another one.
    fn serve_due(&mut self) {
        let start = pace::now();
        let mut now = start;
        while now - start < POLL_EVERY
            && let Some((slot, serial)) = self.next_due(now)
        {
            match slot {
                BATCH => self.end_steps(now),
                slot => self.serve(slot, serial),
            }
            now = pace::now();
        }
    }

    /// Removes the next due deadline and returns the slot and the serial number of its connection.
    fn next_due(&mut self, now: Instant) -> Option<(usize, u64)> {
        let next = self.deadlines.peek_mut().filter(|next| next.0.due <= now)?;
        let Reverse(Deadline { slot, serial, .. }) = PeekMut::pop(next);
        Some((slot, serial))
    }

    fn handle(&mut self, event: &Event) {
        match event.token() {
            WAKER => {}
            LISTENER => self.accept(),
            // A client's events can arrive after its connection has been dropped and the slot
            // reused. That is harmless: reading from the new connection finds nothing.
            Token(slot) => self.handle_client(slot, event.is_writable()),
        }
    }

    fn handle_client(&mut self, slot: usize, writable: bool) {
        let Some(mut connection) = self.take(slot) else {
            return;
        };
        // Reading comes first, also in phases that send: it notices a client that has left, and the
        // poll is edge-triggered, so unread bytes would not be announced again.
        let filled = connection.fill(&mut self.scratch);
        let waits = matches!(connection.phase, Phase::Head | Phase::Body(_));
        // A streaming connection continues at its deadline, not because its socket is writable;
        // otherwise a step would be written early.
        let goes_on = waits || (writable && connection.blocked);
        let served = match filled {
            Ok(()) if goes_on => self.drive(slot, &mut connection),
            other => other,
        };
        self.put(slot, connection, served);
    }

    /// Continues a connection, unless the slot now belongs to another one.
    fn serve(&mut self, slot: usize, serial: u64) {
        let Some(mut connection) = self.take(slot) else {
            // A deadline stays in the heap after its connection has ended. The serial number tells
            // whether the slot has a new owner.
            return;
        };
        let mut served = Ok(());
        if connection.serial == serial {
            served = self.drive(slot, &mut connection);
        }
        self.put(slot, connection, served);
    }

    fn take(&mut self, slot: usize) -> Option<Box<ClientConnection>> {
        self.connections.get_mut(slot)?.take()
    }

    /// Puts a connection back into its slot, or frees the slot if the connection failed.
    fn put(&mut self, slot: usize, connection: Box<ClientConnection>, served: io::Result<()>) {
        if served.is_ok() {
            self.connections[slot] = Some(connection);
            return;
        }
        if let (Some(job), Some(served)) = (connection.job, &mut self.batch) {
            served.batch.leave(job);
            served.places.remove(&job);
        }
        // Dropping the socket frees a file descriptor, so a refused `accept` can be repeated.
        drop(connection);
        self.free.push(slot);
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
                    // A wave of new clients must not delay the due writes of others.
                    self.serve_due();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                // Too many open files. The client stays in the backlog until a descriptor is free.
                Err(_) => {
                    self.accept_again = true;
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut socket: Socket) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        // Registered once for both directions. Edge-triggered events cost nothing while nothing
        // changes, and re-registering would be a system call per write.
        let interests = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        let ready = socket
            .set_nodelay()
            .and_then(|()| registry.register(&mut socket, Token(slot), interests));
        self.serial += 1;
        let mut connection = Box::new(ClientConnection::new(socket, self.serial));
        let ready = ready.and_then(|()| {
            connection.outbox.tls = self.tls.clone().map(ServerTls::new).transpose()?;
            Ok(())
        });
        self.put(slot, connection, ready);
    }

    /// Advances a connection until it has to wait.
    fn drive(&mut self, slot: usize, connection: &mut ClientConnection) -> io::Result<()> {
        while connection.flush()? {
            match self.advance(slot, connection)? {
                Advance::Continue => {}
                Advance::Wait => break,
            }
        }
        Ok(())
    }

    /// Performs the next action of a connection whose queued bytes are all written.
    fn advance(&mut self, slot: usize, connection: &mut ClientConnection) -> io::Result<Advance> {
        match &mut connection.phase {
            Phase::Head => self.read_head(connection),
            Phase::Body(head) if connection.inbox.len() < head.body => self.read_more(connection),
            Phase::Body(_) => {
                self.answer(slot, connection);
                Ok(Advance::Continue)
            }
            Phase::Streaming(streaming) => {
                let protocol = match streaming.stream.is_document() {
                    true => self.protocol.unstreamed().unwrap_or(self.protocol),
                    false => self.protocol,
                };
                let turn = streaming.prepare(protocol, &mut connection.outbox);
                Ok(self.take_turn(turn, slot, connection))
            }
            Phase::Answered => self.next_request(connection),
            Phase::Resetting => {
                connection.reset()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Phase::Stalled | Phase::Draining => Ok(Advance::Wait),
        }
    }

    /// Schedules a connection. A time in the past becomes the present, so that a stream without
    /// delays queues behind connections that are already due.
    fn wake_at(&mut self, due: Instant, slot: usize, serial: u64) {
        let due = due.max(pace::now());
        self.serial += 1;
        self.deadlines.push(Reverse(Deadline { due, order: self.serial, slot, serial }));
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
        if let (Some(job), Some(served)) = (connection.job.take(), &mut self.batch) {
            served.places.remove(&job);
        }
        if connection.keep_alive {
            connection.phase = Phase::Head;
            return Ok(Advance::Continue);
        }
        if connection.outbox.push_close_notify() {
            return Ok(Advance::Continue);
        }
        connection.finish()?;
        connection.fill(&mut self.scratch)?;
        Ok(Advance::Wait)
    }

    /// Waits for the next step of a stream, or ends the stream.
    fn take_turn(
        &mut self,
        turn: NextWrite,
        slot: usize,
        connection: &mut ClientConnection,
    ) -> Advance {
        match turn {
            NextWrite::At(due) => self.wake_at(due, slot, connection.serial),
            NextWrite::Granted => {}
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
                self.wake_at(after, slot, connection.serial);
            }
            NextWrite::End(StreamEnd::Stall, _) => connection.phase = Phase::Stalled,
        }
        Advance::Wait
    }
}

/// The server's batch.
impl Reactor {
    /// Adds a request to the batch, if there is one. Returns when its first events are due, as far as
    /// that is known.
    fn join_batch(
        &mut self,
        (slot, connection): (usize, &mut ClientConnection),
        received: Instant,
        facts: &RequestFacts,
        stream: &AnswerStream,
    ) -> Option<VecDeque<Instant>> {
        let served = self.batch.as_mut()?;
        let job = self.script.job(facts, stream);
        served.places.insert(job.id, (slot, connection.serial));
        connection.job = Some(job.id);
        let begun = served.batch.arrive(received.saturating_duration_since(served.origin), job);
        // The server was idle, so the step is of this request alone.
        let due = begun.map(|step| served.origin + step.end);
        if let Some(due) = due {
            self.wake_at(due, BATCH, 0);
        }
        Some(due.into_iter().collect())
    }

    /// Ends the steps that are over at `now`, and grants the events of the next ones.
    fn end_steps(&mut self, now: Instant) {
        while let Some(served) = &mut self.batch
            && let Some(step) = served.batch.ended(now.saturating_duration_since(served.origin))
        {
            let origin = served.origin;
            self.grant(origin, &step);
        }
    }

    fn grant(&mut self, origin: Instant, step: &Step) {
        let due = origin + step.end;
        for id in &step.ids {
            let place = self.batch.as_ref().and_then(|served| served.places.get(id));
            if let Some((slot, serial)) = place.copied() {
                self.grant_one(slot, serial, due);
            }
        }
        // After the deadlines of the connections, so that their events are written before the next
        // step is prepared.
        self.wake_at(due, BATCH, 0);
    }

    fn grant_one(&mut self, slot: usize, serial: u64, due: Instant) {
        let Some(mut connection) = self.take(slot) else { return };
        let mut served = Ok(());
        if connection.serial == serial
            && let Phase::Streaming(streaming) = &mut connection.phase
            && let Some(grants) = &mut streaming.grants
        {
            grants.push_back(due);
            if !streaming.is_prepared {
                served = self.drive(slot, &mut connection);
            }
        }
        self.put(slot, connection, served);
    }
}

/// Requests and their answers.
impl Reactor {
    /// Starts the answer to a request whose body has been read.
    fn answer(&mut self, slot: usize, connection: &mut ClientConnection) {
        let Some(head) = connection.phase.take_head() else {
            return;
        };
        let received = pace::now();
        self.end_steps(received);
        let body = connection.inbox.split_to(head.body).freeze();
        let protocol = routing::protocol_at(&head, self.protocol);
        match Route::of(&head, protocol.path()) {
            Route::Completion => self.complete((slot, connection), received, (&body, protocol)),
            Route::Models => self.answer_json(connection, 200, routing::MODELS),
            Route::Health => self.answer_json(connection, 200, routing::HEALTH),
            Route::Metrics => match &self.batch {
                Some(served) => {
                    let body = routing::metrics_body(&served.batch).into_bytes();
                    let form = (200, routing::METRICS_TYPE);
                    let answer = wire::whole_answer(form, &body, None, connection.keep_alive);
                    connection.outbox.push_head(answer);
                    connection.phase = Phase::Answered;
                }
                None => self.answer_unknown(connection, &head),
            },
            Route::Unknown => self.answer_unknown(connection, &head),
        }
    }

    fn complete(
        &mut self,
        (slot, connection): (usize, &mut ClientConnection),
        received: Instant,
        (body, protocol): (&[u8], &dyn Protocol),
    ) {
        let intent = match routing::request_intent(body, protocol) {
            Ok(intent) => intent,
            Err(message) => return self.answer_error(connection, 400, message),
        };
        self.requests += 1;
        let id = self.script.id(self.requests);
        let entry = self.log.open(self.requests, id.clone(), received, body);
        connection.entry = Some(entry);
        let facts = self.facts(&intent);
        match self.script.answer(&facts) {
            ScriptedResponse::Stream(stream) => {
                let grants = self.join_batch((slot, connection), received, &facts, &stream);
                self.begin(connection, (stream, grants), id, intent, received)
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
            streamed: intent.stream,
        }
    }

    fn begin(
        &self,
        connection: &mut ClientConnection,
        (stream, grants): (AnswerStream, Option<VecDeque<Instant>>),
        id: String,
        intent: RequestIntent,
        received: Instant,
    ) {
        // The head of a document comes with it, as servers send it.
        if !stream.is_document() {
            let kind = self.protocol.framing().content_type();
            connection.outbox.push_head(wire::stream_head(kind, connection.keep_alive));
        }
        connection.phase = Phase::Streaming(Box::new(Streaming {
            stream,
            id,
            model: intent.model,
            items: intent.items,
            created: pace::unix_seconds(),
            received,
            is_whole: false,
            is_begun: false,
            keep_alive: connection.keep_alive,
            grants,
            is_prepared: false,
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
