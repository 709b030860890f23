//! The `stamped` transport: HTTP/1.1 over TCP, TLS or a Unix socket, with the kernel's timestamps.
//!
//! A clock that the program reads after a wake-up tells when the program ran, not when the bytes
//! arrived. The kernel stamps packets on arrival, and [`socket`](super::socket) returns the
//! timestamps. Reading late therefore does no harm, and with many streams the thread pauses between
//! rounds and then reads everything at once.
//!
//! **Bounds.** A read has one timestamp, that of its last segment. Bytes in earlier segments of the
//! read arrived before it, and much before it if the program read late: it was stopped, has a CPU
//! quota, or the machine is busy. So each read also has a lower bound, the last moment at which its
//! socket was known to be empty: the start of the last `recvmsg` that emptied it, or of the last
//! `epoll_wait` that did not report it. To keep that bound recent, no wait is longer than [`TICK`]
//! while answers are in flight.
//!
//! **Packets.** Where the process may capture packets, a [`Tap`] knows the arrival of each packet in
//! a late read, and short waits are not needed. Capturing costs 1–2 µs per packet. This is
//! negligible for a few streams and a quarter of all work for many, so with `stamps: auto` packets
//! are captured only while at most [`TAPPED`] answers are in flight.
//!
//! **Doubtful timestamps.** A timestamp before the lower bound is wrong: the kernel gives a
//! retransmitted segment the timestamp of an earlier one, or the wall clock was set. The arrival then
//! comes from the packets, or else from the program's clock.
//!
//! **Requests.** One thread drives all requests. Connections are set up, TLS included, before the
//! clock of a request starts. A kept connection that the server has closed is detected before the
//! request is sent. No request is sent twice.

mod connection;
mod connector;
mod incoming;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    io, thread,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method};
use llm_stream_core::recording::{Chunk, ErrorKind, Recording, RequestError, StampedBy};
use mio::{Events, Interest, Poll, Token};

use self::{
    connection::Connection,
    connector::Connector,
    incoming::{Arrival, Incoming, SetUp},
};
use super::{
    AnswerObserver, ClientError, DriveStats, MANY, NextAction, PATIENCE, REST, RequestSource,
    SETTLE,
    answer::AnswerParser,
    clock::WallClock,
    ending::{EndProbe as _, EndSearch, SOON, SearchOutcome, left_open},
    limits::Limits,
    now,
    server_address::ResolvedAddress,
    socket::{self, Stamping, TimedSocket},
    tap::{ReadSegment, Tap},
};
use crate::{
    connect_options::{ConnectOptions, Stamps},
    memory::MemoryBudget,
    options::{ConnectionMode, Timeouts},
};

/// Size of the read buffer, bytes.
const READ: usize = 64 << 10;

/// The time before a scheduled start at which a sleep ends: a sleep may overrun by that much.
const AWAKE: Duration = Duration::from_micros(100);

/// The resolution of epoll, which rounds timeouts up.
const COARSE: Duration = Duration::from_millis(1);

/// Longest wait while answers are in flight: bytes that are read after a wait may have arrived at its
/// start. With many answers it is twice as long, since a pause precedes it.
const TICK: Duration = Duration::from_millis(1);

/// The time without traffic after which waits are twice as long.
const SILENCE: Duration = Duration::from_millis(200);

/// The duration of a round above which sockets are polled again before the pause. A shorter round
/// makes the lower bounds of the next arrivals older by no more than this.
const BRIEF: Duration = Duration::from_micros(250);

/// The number of reads after which sockets are polled again.
const BATCH: usize = 64;

/// Most answers in flight for which `stamps: auto` captures packets. Capturing resumes at half as
/// many.
const TAPPED: usize = 16;

/// Most full reads of a socket in a row.
const MOST_FULL: usize = 16;

/// Most events that one poll reports.
const EVENTS: usize = 1024;

/// A server that closes a kept connection within this time after an answer does not keep
/// connections; later, it was an idle timeout.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A server that answers the requests: one of several replicas, or the only one.
struct Replica {
    connector: Connector,
    /// Its addresses, once they are known.
    addresses: Vec<ResolvedAddress>,
    /// The head of every request to it up to the content length.
    head: Vec<u8>,
}

/// Sends requests to a server or its replicas.
pub(super) struct KernelTimedClient {
    replicas: Vec<Replica>,
    /// The replica of the next connection that is opened in advance.
    turn: usize,
    timeouts: Timeouts,
    poll: Poll,
    events: Events,
    /// Slots with events, and whether the end of the stream may follow the bytes.
    reported: VecDeque<(usize, bool)>,
    /// The start of the last complete poll. A socket that it did not report was empty then.
    quiet: Instant,
    /// The last reading of the clock.
    seen: Instant,
    /// The time of the last read or sent bytes.
    moved: Instant,
    /// `None` where the kernel gives no timestamps.
    stamping: Option<Stamping>,
    /// Whether to open the tap once the addresses are known.
    should_tap: bool,
    /// Whether to capture packets for any number of answers in flight.
    always_taps: bool,
    tap: Option<Tap>,
    wall: WallClock,
    /// Whether to reuse connections. False once the server has closed a kept one right after an answer.
    keeps: bool,
    /// Whether the server is known to keep connections.
    kept_one: bool,
    buffer: Vec<u8>,
    slots: Vec<Slot>,
    /// Slots with a connection and no request, the last used at the end.
    idle: VecDeque<usize>,
    /// Slots without a connection.
    empty: Vec<usize>,
    /// The time that the thread has spent waiting.
    waited: Duration,
    deadlines: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The next search for answers whose bodies the server keeps open.
    next_search: Instant,
    parser: AnswerParser,
    memory: MemoryBudget,
    /// The next search because of an end mark.
    ending: Option<Instant>,
}

/// The requests to send, and the observer of their answers.
struct DrivenLoad<'a> {
    source: &'a mut dyn RequestSource,
    observer: &'a dyn AnswerObserver,
}

/// Holds one connection and one request on it.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// The replica to which it is connected.
    replica: usize,
    /// The time at which the connection became idle.
    idle_since: Option<Instant>,
    /// The setup of a connection that has carried no request yet.
    fresh: Option<SetUp>,
    /// The last time at which the socket was known to be empty, if events were reported since and the
    /// socket was not emptied.
    quiet: Option<Instant>,
    work: Option<InFlight>,
}

/// A request in flight, or a connection that is being opened in advance.
struct InFlight {
    /// `None` for a connection in advance.
    id: Option<usize>,
    /// The replica that is to answer.
    replica: usize,
    stage: Stage,
    /// The request; empty once it is encrypted.
    request: Vec<u8>,
    written: usize,
    begun: Instant,
    connected: Instant,
    /// The address that is being tried, or that answered.
    address: Option<ResolvedAddress>,
    /// The addresses to try next, once they are resolved.
    untried: Option<VecDeque<ResolvedAddress>>,
    set_up: Option<SetUp>,
    limits: Limits,
    sent: Option<Duration>,
    incoming: Incoming,
    /// The start of the last read that emptied the socket.
    emptied: Instant,
    /// The next time to check the limits.
    deadline: Instant,
    search: EndSearch,
}

/// The result of a read.
enum Received {
    /// The buffer was filled: more bytes may wait.
    Full,
    /// The buffer was not filled: the socket is empty now.
    Short,
    /// The socket was empty before.
    Nothing,
    /// The answer has ended.
    End(Result<(), RequestError>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for [`SETTLE`], in which the server may close the connection.
    Resting,
    Connecting,
    Handshaking,
    Sending,
    Receiving,
}

impl KernelTimedClient {
    /// Creates a client for replicas at `urls`. It opens no connection yet.
    pub(super) fn new(
        (method, urls): (Method, &[reqwest::Url]),
        headers: &HeaderMap,
        (timeouts, parser): (Timeouts, AnswerParser),
        connection: ConnectionMode,
        route: &ConnectOptions,
    ) -> Result<Self, ClientError> {
        // GET requests are for model lists and metrics, which need no exact times.
        let (has_tokens, has_packets) = (method == Method::POST, route.socket.is_none());
        if has_tokens && route.stamps == Stamps::Packets {
            Tap::check().map_err(ClientError::Packets)?;
        }
        let replica = |url: &reqwest::Url| {
            Ok::<_, ClientError>(Replica {
                connector: Connector::of(url, route)?,
                addresses: Vec::new(),
                head: request_head(&method, url, headers),
            })
        };
        // A tap knows the ports of one server.
        let has_one = urls.len() == 1;
        Ok(Self {
            replicas: urls.iter().map(replica).collect::<Result<_, _>>()?,
            turn: 0,
            timeouts,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            reported: VecDeque::new(),
            quiet: now(),
            seen: now(),
            moved: now(),
            stamping: route.socket.is_none().then(Stamping::begin).and_then(Result::ok),
            should_tap: has_tokens && has_packets && has_one && route.stamps != Stamps::Socket,
            always_taps: route.stamps == Stamps::Packets,
            tap: None,
            wall: WallClock::new(),
            keeps: connection == ConnectionMode::Warm,
            kept_one: false,
            buffer: vec![0; READ],
            slots: Vec::new(),
            idle: VecDeque::new(),
            empty: Vec::new(),
            waited: Duration::ZERO,
            deadlines: BinaryHeap::new(),
            next_search: now(),
            parser,
            memory: route.memory.clone(),
            ending: None,
        })
    }

    /// Sends the requests of a source at their times and hands it the answers.
    pub(super) fn drive(
        &mut self,
        source: &mut dyn RequestSource,
        observer: &dyn AnswerObserver,
    ) -> DriveStats {
        let load = &mut DrivenLoad { source, observer };
        let begun = now();
        self.waited = Duration::ZERO;
        if let Some(tap) = &mut self.tap {
            tap.resume();
        }
        loop {
            let next_start = self.start(load);
            let active = self.active();
            let Some(until) = self.next_wake(next_start).filter(|_| !load.observer.is_cancelled())
            else {
                self.abort_all(load);
                if let Some(tap) = &mut self.tap {
                    tap.pause();
                }
                return DriveStats::of(now() - begun, self.waited);
            };
            self.listen(active);
            self.pause(active, next_start);
            self.wait(until, next_start);
            self.take_reported(load);
            self.expire(load);
            self.find_ends(load);
        }
    }

    /// Whether packets were captured the whole time.
    pub(super) fn has_packet_stamps(&self) -> bool {
        self.tap.as_ref().is_some_and(Tap::always_listened)
    }

    /// Captures packets or not, depending on the number of answers in flight.
    fn listen(&mut self, active: usize) {
        if let Some(tap) = &mut self.tap {
            let most = if tap.listens() { TAPPED } else { TAPPED / 2 };
            tap.listen(self.always_taps || active <= most);
        }
    }

    /// The number of slots in use.
    fn active(&self) -> usize {
        self.slots.len() - self.idle.len() - self.empty.len()
    }

    /// Starts what is due; returns the time of the next start, if it is known.
    fn start(&mut self, load: &mut DrivenLoad<'_>) -> Option<Instant> {
        loop {
            match load.source.next(now(), self.idle.len()) {
                NextAction::Send { id, body, replica } => {
                    self.begin((id, replica), &body, load);
                }
                NextAction::Open => self.open(load),
                NextAction::At(start) => return Some(start),
                NextAction::AfterAnAnswer => return None,
            }
        }
    }

    /// The latest end of the next wait; `None` if the load is complete.
    fn next_wake(&self, next_start: Option<Instant>) -> Option<Instant> {
        let deadline = self.deadlines.peek().map(|Reverse((deadline, _))| *deadline);
        let patience = now() + PATIENCE;
        match (next_start, self.active()) {
            (None, 0) => None,
            (start, _) => {
                let times = [start, deadline, self.ending];
                times.into_iter().flatten().chain([patience]).min()
            }
        }
    }

    /// Waits for events until a time. Before a start it returns earlier, because epoll rounds up and a
    /// start must not be late.
    fn wait(&mut self, until: Instant, next_start: Option<Instant>) {
        let begun = now();
        let mut at = begun;
        loop {
            let left = until.saturating_duration_since(at);
            let left = match next_start {
                // Events that the last round has not handled are due now.
                _ if !self.reported.is_empty() => Duration::ZERO,
                Some(start) if start <= until => whole_millis(left.saturating_sub(COARSE)),
                _ => left,
            };
            // A wait is split into ticks, each of which renews the lower bounds.
            let tick = self.tick(at);
            let was_whole = self.poll_sockets(tick.map_or(left, |tick| tick.min(left)));
            let is_tick = tick.is_some_and(|tick| tick < left);
            if !is_tick || !was_whole || !self.reported.is_empty() {
                return;
            }
            at = self.seen;
        }
    }

    /// The longest wait, which bounds the uncertainty of arrivals. Without traffic it is twice as long,
    /// and not longer: the first bytes after a silence count, too.
    fn tick(&self, at: Instant) -> Option<Duration> {
        let active = self.active();
        let is_tapped = self.tap.as_ref().is_some_and(Tap::covers_all);
        let is_silent = at.saturating_duration_since(self.moved) > SILENCE;
        let tick = if active > MANY || is_silent { 2 * TICK } else { TICK };
        (active > 0 && !is_tapped).then_some(tick)
    }

    /// Polls for events and notes their slots; returns false if a signal interrupted the poll.
    fn poll_sockets(&mut self, time: Duration) -> bool {
        let begun = now();
        let looked = self.poll.poll(&mut self.events, Some(time)).is_ok();
        self.seen = now();
        if !time.is_zero() {
            self.waited += self.seen - begun;
        }
        // An interrupted poll says nothing about the sockets.
        if !looked {
            return false;
        }
        let mut reported = 0;
        for event in &self.events {
            let Token(slot) = event.token();
            self.reported.push_back((slot, event.is_read_closed() || event.is_error()));
            // The socket was empty at the last poll and is not now: until it is emptied, that poll
            // remains its lower bound.
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.quiet.get_or_insert(self.quiet);
            }
            reported += 1;
        }
        // A full list may lack a socket, which then was not empty.
        if reported < EVENTS {
            self.quiet = begun;
        }
        true
    }

    /// Pauses so that arrivals of many streams gather, but not past the next start. Also sleeps through
    /// the last millisecond before a start, for which epoll is too coarse.
    fn pause(&mut self, active: usize, next_start: Option<Instant>) {
        // Without kernel timestamps, a pause would delay the program's own.
        if self.stamping.as_ref().is_none_or(|stamping| stamping.by == StampedBy::Program) {
            return;
        }
        let begun = now();
        let left = next_start.map(|start| start.saturating_duration_since(begun + AWAKE));
        let rest = match left {
            Some(left) if active > MANY || left < 2 * COARSE => left.min(REST),
            None if active > MANY => REST,
            _ => return,
        };
        if !rest.is_zero() {
            thread::sleep(rest);
            self.waited += now() - begun;
        }
    }

    /// Reads the reported sockets. Events that are reported meanwhile wait for the next round. The
    /// extra polls within the round and before a pause serve the lower bounds: a socket that they do
    /// not report is known to be empty.
    fn take_reported(&mut self, load: &mut DrivenLoad<'_>) {
        for nth in 1..=self.reported.len() {
            let Some((slot, drain)) = self.reported.pop_front() else { break };
            self.advance(slot, drain, load);
            if nth % BATCH == 0 {
                self.poll_sockets(Duration::ZERO);
            }
        }
        if self.active() > MANY && self.seen.saturating_duration_since(self.quiet) > BRIEF {
            self.poll_sockets(Duration::ZERO);
        }
        if let Some(tap) = &mut self.tap {
            tap.tidy(self.reported.is_empty());
        }
    }

    /// Assigns a request to a slot and starts it.
    fn begin(&mut self, (id, replica): (usize, usize), body: &[u8], load: &mut DrivenLoad<'_>) {
        let replica = replica % self.replicas.len();
        let mut request = self.replicas[replica].head.clone();
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        let begun = now();
        let work = InFlight::new(Some(id), request, begun, (self.timeouts, &self.memory));
        let work = InFlight { replica, ..work };
        // In this order: a connection that is ready, a connection that must rest first, a new connection.
        if let Some(slot) = self.take_idle(begun, replica) {
            let set_up = self.slots[slot].fresh.take();
            self.slots[slot].work = Some(InFlight { set_up, ..work });
            return self.send(slot, load);
        }
        let is_of = |slot: &usize| self.slots[*slot].replica == replica;
        match self.idle.iter().position(is_of).and_then(|at| self.idle.remove(at)) {
            Some(slot) => self.let_rest(slot, work),
            None => self.connect_for(work, load),
        }
    }

    /// Assigns `work` to a slot whose connection has not rested yet.
    fn let_rest(&mut self, slot: usize, work: InFlight) {
        let deadline = self.slots[slot].idle_since.map_or(work.begun, |since| since + SETTLE);
        self.slots[slot].work = Some(InFlight { stage: Stage::Resting, deadline, ..work });
        self.arm(slot);
    }

    /// The connection has rested: uses it, or replaces it if the server has closed it.
    fn rested(&mut self, slot: usize, load: &mut DrivenLoad<'_>) {
        let Some(work) = self.slots[slot].work.take() else { return };
        if self.is_open(slot, now()) {
            self.kept_one = true;
            self.slots[slot].work = Some(work);
            return self.send(slot, load);
        }
        self.empty.push(slot);
        let begun = now();
        let deadline = begun + self.timeouts.connect;
        self.connect_for(InFlight { stage: Stage::Connecting, begun, deadline, ..work }, load);
    }

    /// Opens a connection for a later request.
    fn open(&mut self, load: &mut DrivenLoad<'_>) {
        let work = InFlight::new(None, Vec::new(), now(), (self.timeouts, &self.memory));
        self.turn = (self.turn + 1) % self.replicas.len();
        self.connect_for(InFlight { replica: self.turn, ..work }, load);
    }

    /// Assigns `work` to a slot without a connection and starts to connect.
    fn connect_for(&mut self, work: InFlight, load: &mut DrivenLoad<'_>) {
        let slot = self.empty.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let replica = work.replica;
        self.slots[slot] = Slot { work: Some(work), replica, ..Slot::default() };
        self.connect(slot, load);
    }

    /// Returns a slot with a connection that can be used at once. Until the server is known to keep
    /// connections, only rested connections count.
    fn take_idle(&mut self, now: Instant, replica: usize) -> Option<usize> {
        loop {
            let is_usable = |slot: &usize| {
                let slot = &self.slots[*slot];
                slot.replica == replica && (self.kept_one || slot.has_rested(now))
            };
            let at = self.idle.iter().position(is_usable)?;
            let slot = self.idle.remove(at)?;
            // A used connection that is open after its rest proves that the server keeps connections.
            let was_used = self.slots[slot].fresh.is_none();
            let rested = self.slots[slot].has_rested(now);
            if self.is_open(slot, now) {
                self.kept_one |= was_used && rested;
                return Some(slot);
            }
            self.empty.push(slot);
        }
    }

    /// Whether the connection of an idle slot is still open. Drops a closed one.
    fn is_open(&mut self, slot: usize, now: Instant) -> bool {
        let Slot { connection, idle_since, fresh, .. } = &mut self.slots[slot];
        if connection.as_mut().is_some_and(|kept| kept.is_open(&mut self.buffer)) {
            return true;
        }
        let at_once =
            idle_since.is_some_and(|since| now.saturating_duration_since(since) < AT_ONCE);
        // A connection without a request says nothing about reuse.
        self.keeps &= fresh.is_some() || !at_once;
        self.disconnect(slot);
        false
    }

    /// Drops the connection of a slot.
    fn disconnect(&mut self, slot: usize) {
        self.slots[slot] = Slot::default();
        if let Some(tap) = &mut self.tap {
            tap.forget(slot);
        }
    }

    /// Handles an event of an idle connection.
    fn check_idle(&mut self, slot: usize) {
        if !self.is_open(slot, now()) {
            self.idle.retain(|&idle| idle != slot);
            self.empty.push(slot);
        }
    }

    /// Starts to connect to the next address.
    fn connect(&mut self, slot: usize, load: &mut DrivenLoad<'_>) {
        loop {
            match self.try_connect(slot, || load.observer.is_cancelled()) {
                Ok(()) => return self.arm(slot),
                Err(_) if self.has_address_left(slot) => {}
                Err(error) => return self.finish(slot, Err(error), load),
            }
        }
    }

    /// Whether the slot has an address that was not tried.
    fn has_address_left(&self, slot: usize) -> bool {
        let work = self.slots[slot].work.as_ref();
        work.is_some_and(InFlight::has_address_left)
    }

    fn try_connect(
        &mut self,
        slot: usize,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<(), RequestError> {
        let replica = &mut self.replicas[self.slots[slot].replica];
        if replica.addresses.is_empty() {
            replica.addresses = replica.connector.resolve(self.timeouts.connect, is_cancelled)?;
            self.open_tap();
        }
        let Some(work) = &mut self.slots[slot].work else { return Ok(()) };
        let Replica { connector, addresses, .. } = &self.replicas[work.replica];
        let untried = work.untried.get_or_insert_with(|| addresses.iter().cloned().collect());
        work.deadline = share(now(), work.begun + self.timeouts.connect, untried.len());
        let Some(address) = untried.pop_front() else {
            return Err(connector.too_late(self.timeouts.connect));
        };
        let failed = |error: io::Error| connector.failed(&error);
        let mut connection = Connection::to(work.address.insert(address)).map_err(failed)?;
        let stream = &mut connection.socket.stream;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream, Token(slot), interest).map_err(failed)?;
        let ends = connection
            .socket
            .local_port()
            .zip(work.address.as_ref().and_then(ResolvedAddress::port));
        if let Some((tap, (local, peer))) = self.tap.as_mut().zip(ends) {
            tap.follow(slot, local, peer);
        }
        self.slots[slot].connection = Some(connection);
        Ok(())
    }

    /// Opens the tap, if it is requested and permitted. This precedes the first connection: its SYN
    /// packet has the sequence number from which bytes are counted.
    fn open_tap(&mut self) {
        if std::mem::take(&mut self.should_tap) {
            let addresses = self.replicas.iter().flat_map(|replica| &replica.addresses);
            let ports: Vec<_> = addresses.filter_map(ResolvedAddress::port).collect();
            self.tap = Tap::open(&ports).ok();
            if self.tap.is_none() {
                self.lose_packets();
            }
        }
    }

    /// A slot is connected. If the tap has seen no packet of the server, it is dropped, and waits are
    /// short instead.
    fn follow_up(&mut self, slot: usize) {
        if self.tap.as_mut().is_some_and(|tap| !tap.connected(slot)) {
            self.lose_tap();
        }
    }

    fn lose_tap(&mut self) {
        self.tap = None;
        self.lose_packets();
    }

    fn lose_packets(&self) {
        self.replicas.iter().for_each(|replica| replica.connector.lose_packets());
    }

    /// The connector of the replica of a slot.
    fn connector(&self, slot: usize) -> &Connector {
        &self.replicas[self.slots[slot].replica].connector
    }

    /// Schedules the check of a slot's limits.
    fn arm(&mut self, slot: usize) {
        if let Some(work) = &self.slots[slot].work {
            self.deadlines.push(Reverse((work.deadline, slot)));
        }
    }

    /// Advances a slot's request as far as possible without blocking.
    fn advance(&mut self, slot: usize, drain: bool, load: &mut DrivenLoad<'_>) {
        let stage = self.slots.get(slot).and_then(|slot| slot.work.as_ref()).map(|work| work.stage);
        match stage {
            None if self.slots.get(slot).is_some_and(|slot| slot.connection.is_some()) => {
                self.check_idle(slot);
            }
            None | Some(Stage::Resting) => {}
            Some(Stage::Connecting) => self.connecting(slot, load),
            Some(Stage::Handshaking) => self.handshaking(slot, load),
            Some(Stage::Sending) => self.sending(slot, load),
            Some(Stage::Receiving) => self.receiving(slot, drain, load),
        }
    }

    fn connecting(&mut self, slot: usize, load: &mut DrivenLoad<'_>) {
        let Slot { connection: Some(connection), work: Some(work), .. } = &mut self.slots[slot]
        else {
            return;
        };
        match connection.is_connected() {
            Ok(false) => {}
            Ok(true) => match self.replicas[work.replica].connector.tls() {
                Ok(tls) => {
                    connection.tls = tls;
                    work.connected = now();
                    work.stage = Stage::Handshaking;
                    // This address answers, so the handshake gets all the time that is left.
                    work.deadline = work.begun + self.timeouts.connect;
                    self.arm(slot);
                    self.handshaking(slot, load);
                }
                Err(error) => self.finish(slot, Err(error), load),
            },
            Err(_) if self.has_address_left(slot) => self.connect(slot, load),
            Err(error) => {
                let error = self.connector(slot).failed(&error);
                self.finish(slot, Err(error), load);
            }
        }
    }

    fn handshaking(&mut self, slot: usize, load: &mut DrivenLoad<'_>) {
        let Slot { connection: Some(connection), .. } = &mut self.slots[slot] else { return };
        while connection.is_handshaking() {
            match connection.advance_handshake() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let error = self.connector(slot).tls_failed(error);
                    return self.finish(slot, Err(error), load);
                }
            }
        }
        let opened = now();
        self.follow_up(slot);
        let Slot { connection: Some(connection), work: Some(work), .. } = &mut self.slots[slot]
        else {
            return;
        };
        // The next connection starts with the address that answered.
        let addresses = &mut self.replicas[work.replica].addresses;
        if let Some(at) = addresses.iter().position(|at| Some(at) == work.address.as_ref()) {
            addresses.swap(0, at);
        }
        let tls = connection.tls.is_some().then(|| opened - work.connected);
        let set_up = SetUp { total: opened - work.begun, tls };
        match work.id {
            Some(_) => {
                work.set_up = Some(set_up);
                self.send(slot, load);
            }
            None => {
                let Slot { connection, replica, .. } = std::mem::take(&mut self.slots[slot]);
                self.slots[slot] =
                    Slot { connection, replica, fresh: Some(set_up), ..Slot::default() };
                self.idle.push_back(slot);
                load.source.opened(Ok(()));
            }
        }
    }

    /// Hands the request to the open connection. The clock of the request starts here.
    fn send(&mut self, slot: usize, load: &mut DrivenLoad<'_>) {
        let Slot { connection: Some(connection), work: Some(work), quiet, .. } =
            &mut self.slots[slot]
        else {
            return;
        };
        // Bytes of the answer cannot have arrived before the request.
        *quiet = None;
        work.stage = Stage::Sending;
        work.limits.origin = now();
        (self.seen, self.moved) = (work.limits.origin, work.limits.origin);
        work.incoming = Incoming::new(work.limits.origin, &self.memory);
        work.deadline = work.limits.first_deadline();
        match connection.seal(std::mem::take(&mut work.request)) {
            Ok(request) => {
                work.request = request;
                self.arm(slot);
                self.sending(slot, load);
            }
            Err(error) => self.finish(slot, Err(broke_off(&error)), load),
        }
    }

    fn sending(&mut self, slot: usize, load: &mut DrivenLoad<'_>) {
        let Slot { connection: Some(connection), work: Some(work), .. } = &mut self.slots[slot]
        else {
            return;
        };
        let mut rest = &work.request[work.written..];
        let written = connection.write(&mut rest);
        work.written = work.request.len() - rest.len();
        match written {
            // Some servers answer and close before they have read the whole request.
            Ok(true) => self.receiving(slot, false, load),
            Ok(false) => {
                work.sent = Some(work.limits.elapsed());
                work.stage = Stage::Receiving;
                work.request = Vec::new();
                self.receiving(slot, true, load);
            }
            Err(error) => {
                self.receiving(slot, true, load);
                self.finish(slot, Err(broke_off(&error)), load);
            }
        }
    }

    /// Reads what has arrived: the loop that every figure depends on.
    ///
    /// The loop stores bytes and times. Chunks go to the source after the last read, so that no work
    /// of the source delays a timestamp of this socket. A read that does not fill the buffer has
    /// emptied the socket (epoll(7), question 9), so another read would fail; `drain` requests one
    /// because the end of the stream may follow.
    fn receiving(&mut self, slot: usize, drain: bool, load: &mut DrivenLoad<'_>) {
        let Some(work) = &self.slots[slot].work else { return };
        let before = work.incoming.chunks.len();
        let mut full = 0;
        let ended = loop {
            match self.receive(slot) {
                // A server that sends faster than this loop reads must not starve the others.
                Received::Full if full + 1 >= MOST_FULL => {
                    self.reported.push_back((slot, drain));
                    break None;
                }
                Received::Full => full += 1,
                Received::Short if drain => {}
                Received::Short | Received::Nothing => break None,
                Received::End(ended) => break Some(ended),
            }
        };
        if self.tap.as_ref().is_some_and(Tap::is_useless) {
            self.lose_tap();
        }
        let Some(work) = &mut self.slots[slot].work else { return };
        work.incoming.chunks[before..].iter().for_each(|chunk| load.observer.arrived(chunk));
        match ended {
            Some(ended) => self.finish(slot, ended, load),
            None if self.parser.marks.are_in(&work.incoming.chunks[before..]) => {
                work.search.mark();
                self.ending.get_or_insert(self.seen + SOON);
            }
            None => {}
        }
    }

    /// Reads once, and passes the bytes on with their arrival.
    ///
    /// Invariant: `emptied` and `quiet` are times before the `recvmsg` that found the socket empty.
    /// Bytes of later reads arrived after them, so their maximum is the lower bound of a read.
    fn receive(&mut self, slot: usize) -> Received {
        let Slot { connection: Some(connection), work: Some(work), quiet, .. } =
            &mut self.slots[slot]
        else {
            return Received::Nothing;
        };
        // The last reading of the clock precedes this `recvmsg`, and saves another one.
        let begun = self.seen;
        let read = match connection.socket.read(&mut self.buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                (work.emptied, *quiet) = (begun, None);
                return Received::Nothing;
            }
            Err(error) => return Received::End(Err(work.incoming.broken(&error))),
        };
        let now = socket::now();
        (self.seen, self.moved) = (now.monotonic, now.monotonic);
        // After a step of the wall clock, timestamps cannot be mapped.
        let stamp = read.arrived.filter(|_| self.wall.round(now));
        let since = work.emptied.max(quiet.unwrap_or(self.quiet));
        let bytes = &self.buffer[..read.bytes];
        let arrival = connection.arrival(bytes, Arrival::new(stamp, since, now));
        let is_short = read.bytes < READ;
        if is_short {
            (work.emptied, *quiet) = (begun, None);
        }
        // Packets are parsed only for late reads with several events: parsing costs more than a read.
        let needs = || arrival.is_doubtful() || connection.needs_segments(bytes, &work.incoming);
        let listens = self.tap.as_ref().is_some_and(Tap::listens);
        let stamp = stamp.filter(|_| listens && arrival.is_late() && needs());
        let segments = segments_of(&mut self.tap, (slot, &connection.socket), stamp, bytes);
        let segments = Arrival::of_segments(&segments.unwrap_or_default(), since, now);
        let taken = connection.take_segments(bytes, &segments, arrival, &mut work.incoming);
        let connector = &self.replicas[work.replica].connector;
        let taken = taken.map_err(|error| connector.refused(error, &work.incoming));
        if taken.is_err() || work.incoming.reader.is_done() {
            let has_ended = |chunks: &[Chunk]| self.parser.has_ended(chunks, 0);
            return Received::End(taken.and_then(|()| work.incoming.confirm(has_ended)));
        }
        if is_short { Received::Short } else { Received::Full }
    }

    /// Checks the limits that are due.
    fn expire(&mut self, load: &mut DrivenLoad<'_>) {
        let now = now();
        while let Some(&Reverse((deadline, slot))) = self.deadlines.peek() {
            if deadline > now {
                return;
            }
            self.deadlines.pop();
            let Some(work) = &mut self.slots[slot].work else { continue };
            // A heap entry of an earlier stage or request.
            if work.deadline != deadline {
                continue;
            }
            // Before the read below, so that bytes count that arrived in time and were read late.
            let as_of = work.limits.elapsed();
            if work.stage == Stage::Receiving {
                // This thread may have been busy with other answers while bytes arrived.
                self.receiving(slot, false, load);
            }
            let Some(work) = &mut self.slots[slot].work else { continue };
            let expired = match work.stage {
                Stage::Resting => {
                    self.rested(slot, load);
                    continue;
                }
                // This address does not answer; the next one may.
                Stage::Connecting if work.has_address_left() => {
                    self.connect(slot, load);
                    continue;
                }
                Stage::Connecting | Stage::Handshaking => {
                    Err(self.replicas[work.replica].connector.too_late(self.timeouts.connect))
                }
                Stage::Sending => work.limits.expired(as_of, &[], |_| None),
                Stage::Receiving => {
                    let last_token = |chunks: &[Chunk]| self.parser.last_token(chunks);
                    work.limits.expired(as_of, &work.incoming.chunks, last_token)
                }
            };
            match expired {
                Ok(later) => {
                    work.deadline = later;
                    self.arm(slot);
                }
                Err(error) => self.finish(slot, Err(error), load),
            }
        }
    }

    /// Ends the answers that are complete and whose bodies the server keeps open.
    fn find_ends(&mut self, load: &mut DrivenLoad<'_>) {
        let now = now();
        if now < self.next_search && self.ending.is_none_or(|ending| now < ending) {
            return;
        }
        (self.next_search, self.ending) = (now + PATIENCE, None);
        for slot in 0..self.slots.len() {
            let Some(work) = &mut self.slots[slot].work else { continue };
            if work.stage != Stage::Receiving {
                continue;
            }
            let (chunks, elapsed) = (&work.incoming.chunks, work.limits.elapsed());
            let found = match work.incoming.is_refusal_over(elapsed) {
                true => SearchOutcome::LeftOpen,
                false => work.search.look(chunks, elapsed, &self.parser),
            };
            match found {
                SearchOutcome::Nothing => {}
                SearchOutcome::Ended => work.id.into_iter().for_each(|id| load.source.ending(id)),
                SearchOutcome::LeftOpen => {
                    // Bytes that arrived meanwhile belong to the answer, and may be its proper end.
                    self.receiving(slot, true, load);
                    self.finish(slot, Err(left_open()), load);
                }
            }
            if let Some(InFlight { search, incoming, limits, .. }) = &self.slots[slot].work
                && search.is_marked()
            {
                let next = limits.origin + search.next(&incoming.chunks, elapsed);
                self.ending = Some(self.ending.map_or(next, |ending| ending.min(next)));
            }
        }
    }

    /// Ends the request of a slot and keeps or drops its connection.
    fn finish(&mut self, slot: usize, ended: Result<(), RequestError>, load: &mut DrivenLoad<'_>) {
        let Some(work) = self.slots[slot].work.take() else { return };
        // Without a complete request and a complete answer, bytes of them may still be in flight.
        let keeps =
            self.keeps && ended.is_ok() && work.sent.is_some() && work.incoming.keeps_alive();
        match keeps {
            true => {
                self.slots[slot].idle_since = Some(now());
                self.idle.push_back(slot);
            }
            false => {
                self.disconnect(slot);
                self.empty.push(slot);
            }
        }
        match work.id {
            Some(id) => load.source.finished(id, work.into_answer(ended)),
            None => load.source.opened(ended),
        }
    }

    /// Ends all requests of a load that is complete or cancelled.
    fn abort_all(&mut self, load: &mut DrivenLoad<'_>) {
        for slot in 0..self.slots.len() {
            let error = RequestError::new(ErrorKind::Interrupted, "interrupted");
            self.finish(slot, Err(error), load);
        }
        self.deadlines.clear();
    }
}

impl Slot {
    /// Whether [`SETTLE`] has passed since the last answer.
    fn has_rested(&self, now: Instant) -> bool {
        self.idle_since.is_none_or(|since| now.saturating_duration_since(since) >= SETTLE)
    }
}

impl InFlight {
    fn new(
        id: Option<usize>,
        request: Vec<u8>,
        begun: Instant,
        (timeouts, memory): (Timeouts, &MemoryBudget),
    ) -> Self {
        Self {
            id,
            replica: 0,
            stage: Stage::Connecting,
            request,
            written: 0,
            begun,
            connected: begun,
            address: None,
            untried: None,
            set_up: None,
            limits: Limits { origin: begun, timeouts },
            sent: None,
            incoming: Incoming::new(begun, memory),
            emptied: begun,
            deadline: begun + timeouts.connect,
            search: EndSearch::default(),
        }
    }

    /// Whether an address was not tried.
    fn has_address_left(&self) -> bool {
        self.untried.as_ref().is_some_and(|untried| !untried.is_empty())
    }

    /// Returns the recording, with an error if the answer broke off; or the error if none began.
    fn into_answer(self, ended: Result<(), RequestError>) -> Result<Recording, RequestError> {
        // A body that the client closed ended with its last read, not with the wait for more.
        let ended_at = match ended {
            Err(ref error) if error.kind != ErrorKind::LeftOpen => self.limits.elapsed(),
            _ => self.incoming.last_read,
        };
        match self.stage {
            Stage::Resting | Stage::Connecting | Stage::Handshaking => {
                Err(ended.err().unwrap_or_else(|| self.incoming.broken(&"nothing was sent")))
            }
            Stage::Sending | Stage::Receiving => {
                self.incoming.into_recording(self.set_up, self.sent, ended_at, ended.err())
            }
        }
    }
}

/// The deadline of the first of some `addresses`, which share the time until `end`.
fn share(now: Instant, end: Instant, addresses: usize) -> Instant {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    now + end.saturating_duration_since(now) / addresses
}

/// Splits a read at its packets, if it has a timestamp. Notes the read in the tap.
fn segments_of(
    tap: &mut Option<Tap>,
    (slot, socket): (usize, &TimedSocket),
    stamp: Option<Duration>,
    bytes: &[u8],
) -> Option<Vec<ReadSegment>> {
    let tap = tap.as_mut()?;
    let segments = stamp.and_then(|stamp| tap.split(slot, (bytes.len(), socket.received), stamp));
    tap.note(slot, socket.received);
    segments
}

fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn broke_off(error: &io::Error) -> RequestError {
    let message = format!("the connection broke while the request was sent: {error}");
    RequestError::new(ErrorKind::Broken, message)
}

/// The head of every request to `url`, without its content length.
fn request_head(method: &Method, url: &reqwest::Url, headers: &HeaderMap) -> Vec<u8> {
    let authority = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = url.path();
    let mut head = format!("{method} {path}{query} HTTP/1.1\r\nhost: {authority}\r\n").into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head
}

/// Tests with listeners whose accept queue is full: Linux drops further SYN packets.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener, TcpStream},
    };

    use socket2::{Domain, Socket, Type};

    use llm_stream_core::protocol::OpenAiChat;

    use super::*;
    use crate::AnswerForm;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn addresses_share_the_time_that_is_left() {
        let begun = now();
        let at = |time: u64| begun + ms(time);
        assert_eq!(share(at(0), at(900), 3), at(300));
        assert_eq!(share(at(300), at(900), 2), at(600));
        assert_eq!(share(at(20), at(900), 1), at(900));
        assert_eq!(share(at(950), at(900), 2), at(950));
    }

    /// A source that sends all requests at once.
    struct Together {
        left: usize,
        answers: Vec<Result<Recording, RequestError>>,
    }

    impl RequestSource for Together {
        fn next(&mut self, _: Instant, _: usize) -> NextAction {
            match self.left.checked_sub(1) {
                None => NextAction::AfterAnAnswer,
                Some(id) => {
                    self.left = id;
                    NextAction::Send { id, body: b"{}".to_vec(), replica: 0 }
                }
            }
        }

        fn finished(&mut self, _: usize, answer: Result<Recording, RequestError>) {
            self.answers.push(answer);
        }
    }

    /// The outcomes of three requests at once to a server with these addresses.
    fn ask(addresses: &[SocketAddr]) -> (Vec<Result<u16, String>>, Vec<ResolvedAddress>) {
        let url = reqwest::Url::parse("http://two.test:80").expect("a URL");
        let long = Duration::from_secs(60);
        let timeouts =
            Timeouts { connect: ms(800), first_token: long, inter_token: long, total: long };
        let (headers, route) = (HeaderMap::new(), ConnectOptions::default());
        let asked = (Method::POST, std::slice::from_ref(&url));
        let parser = AnswerParser::new(&OpenAiChat, AnswerForm::Document);
        let mut stamped = KernelTimedClient::new(
            asked,
            &headers,
            (timeouts, parser),
            ConnectionMode::Warm,
            &route,
        )
        .expect("a client");
        stamped.replicas[0].addresses =
            addresses.iter().copied().map(ResolvedAddress::Port).collect();
        let mut requests = Together { left: 3, answers: Vec::new() };
        stamped.drive(&mut requests, &());
        let outcome = |answer: Result<Recording, RequestError>| match answer {
            Ok(recording) => Ok(recording.status),
            Err(error) => Err(format!("{}: {error}", error.kind)),
        };
        (requests.answers.into_iter().map(outcome).collect(), stamped.replicas.remove(0).addresses)
    }

    /// A port that ignores new connections as long as these sockets are open.
    fn silent() -> (SocketAddr, Socket, Vec<TcpStream>) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).expect("a port");
        listener.listen(0).expect("a queue");
        let address = listener.local_addr().expect("a port").as_socket().expect("a port");
        let queued = || TcpStream::connect_timeout(&address, ms(100)).ok();
        let full = std::iter::from_fn(queued).collect();
        (address, listener, full)
    }

    #[test]
    fn an_address_that_is_silent_is_left_for_the_next() {
        let (address, _listener, _full) = silent();
        let answering = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = answering.local_addr().expect("a port");
        thread::spawn(move || {
            for socket in answering.incoming() {
                let mut socket = socket.expect("a client");
                let _ = socket.read(&mut [0; 4096]);
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let (answers, addresses) = ask(&[address, there]);
        assert_eq!(answers, [Ok(200), Ok(200), Ok(200)]);
        assert_eq!(
            addresses,
            [there, address].map(ResolvedAddress::Port),
            "the next connection starts with it"
        );
    }

    #[test]
    fn when_all_are_silent_the_limit_is_named() {
        let (one, other) = (silent(), silent());
        let (answers, _) = ask(&[one.0, other.0]);
        let expected =
            "connect_timeout: no connection to two.test:80 within 800ms (timeouts.connect)";
        assert_eq!(answers, vec![Err(expected.to_owned()); 3]);
    }
}
