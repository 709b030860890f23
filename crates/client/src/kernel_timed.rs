//! The stamped transport: HTTP/1.1 over TCP or TLS, arrivals stamped by the kernel; and over sockets
//! in the file system, where it stamps none.
//!
//! A clock that is read after the program has been scheduled says when the program ran, not when
//! the bytes arrived. The kernel notes the arrival; [`socket`](super::socket) asks for it. With many
//! streams the program therefore rests between rounds and takes all that has arrived at once.
//!
//! One read has one stamp, that of its last segment. What came in earlier segments of the same read
//! is noted too late where the program reads late: it was stopped, it has a CPU quota, the machine
//! is busy. So each read also has a lower bound, the last moment at which its socket is known to
//! have been empty: the start of the last `recvmsg` that emptied it, or the start of the last
//! `epoll_wait` that did not report it. The latter is recent only if such waits are: while answers
//! are in flight, none is longer than [`TICK`].
//!
//! Where the process may see packets, a [`Tap`] says when each packet of a late read arrived, and
//! such ticks are not needed. It takes the system a microsecond or two a packet, which is negligible
//! compared with a few streams, and a quarter of what many take: unless they are asked for, packets
//! are not looked at while more than [`TAPPED`] answers are in flight.
//!
//! A stamp from before the lower bound is not the arrival: the kernel gives a segment that was sent
//! again the stamp of one that came early, or the wall clock was set. The packets say when it came,
//! else the program's clock.
//!
//! One thread drives all requests. A connection is set up, TLS included, before its request's
//! clock starts; a kept one that the server has closed is noticed before the request is sent.
//! Nothing is sent twice.

mod connection;
mod connector;
mod incoming;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    io, thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::{HeaderMap, Method};
use llm_stream_core::recording::{Chunk, ErrorKind, Recording, RequestError, StampedBy};
use mio::{Events, Interest, Poll, Token};

use self::{
    connection::Connection,
    connector::Connector,
    incoming::{Arrival, Incoming, SetUp},
};
use super::{
    DriveStats, MANY, NextAction, PATIENCE, REST, RequestSource, SETTLE,
    clock::WallClock,
    ending::{EndMarks, EndProbe, EndSearch, SOON, SearchOutcome, left_open},
    limits::Limits,
    now,
    server_address::Address,
    socket::{self, Stamping, TimedSocket},
    tap::{ReadSegment, Tap},
};
use crate::{
    connect_options::{ConnectOptions, Stamps},
    options::{ConnectionMode, Timeouts},
};

/// Most that one read takes, bytes.
const READ: usize = 64 << 10;

/// How long before a start the thread is awake: a sleep may be that much too long.
const AWAKE: Duration = Duration::from_micros(100);

/// epoll counts in milliseconds and rounds up.
const COARSE: Duration = Duration::from_millis(1);

/// Longest wait while answers are in flight: what is read after a wait may have arrived at its
/// beginning. With many answers it is twice as long, since the thread rests before it as well.
const TICK: Duration = Duration::from_millis(1);

/// When nothing has come or been sent for so long, a longer wait does as well.
const SILENCE: Duration = Duration::from_millis(200);

/// A round that took no longer needs no extra look before the rest: the lower bounds of the next
/// arrivals are this much older without it.
const BRIEF: Duration = Duration::from_micros(250);

/// After so many reads sockets are looked at again.
const BATCH: usize = 64;

/// With more answers in flight packets are not looked at, unless they are asked for; they are again
/// when only half as many are.
const TAPPED: usize = 16;

/// Most events that one wait reports.
const EVENTS: usize = 1024;

/// A kept connection that is closed this soon after an answer was closed for the answer's end, not
/// for having been idle.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Sends requests to one server.
pub(super) struct KernelTimedClient {
    connector: Connector,
    /// The server's addresses, once they are known.
    addresses: Vec<Address>,
    /// The head of every request up to its content length.
    head: Vec<u8>,
    timeouts: Timeouts,
    poll: Poll,
    events: Events,
    /// The slots that something has happened to, and whether their ends are to be looked for.
    reported: VecDeque<(usize, bool)>,
    /// When sockets were last looked at, all of them: one that was not reported then was empty.
    quiet: Instant,
    /// The last reading of the clock.
    seen: Instant,
    /// When bytes of an answer were last read, or a request was sent.
    moved: Instant,
    /// `None` where the kernel gives no stamps.
    stamping: Option<Stamping>,
    /// Whether packets are to be seen once the addresses are known.
    should_tap: bool,
    /// Whether they are to be seen however many answers are in flight.
    always_taps: bool,
    tap: Option<Tap>,
    wall: WallClock,
    /// Whether connections are kept: not once the server has closed one that was.
    keeps: bool,
    /// Whether the server has been seen to keep a connection.
    kept_one: bool,
    buffer: Vec<u8>,
    slots: Vec<Slot>,
    /// The slots with a connection and without work, the one that was used last at the end.
    idle: VecDeque<usize>,
    /// The slots with neither.
    empty: Vec<usize>,
    /// How long this thread has waited since it began to drive.
    waited: Duration,
    deadlines: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When to look for answers whose bodies the server keeps open.
    next_search: Instant,
    marks: EndMarks,
    /// When to look at an answer that seems to have ended.
    ending: Option<Instant>,
}

/// A place for one connection and one request on it.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// When the connection became idle.
    idle_since: Option<Instant>,
    /// How a connection was set up that has carried no request yet.
    fresh: Option<SetUp>,
    /// When its socket was last known to be empty, if it has been reported since and not emptied.
    quiet: Option<Instant>,
    work: Option<InFlight>,
}

/// A request on its way, or a connection that is opened for later ones.
struct InFlight {
    /// `None` when there is no request.
    id: Option<usize>,
    stage: Stage,
    /// The request; once it is encrypted, nothing.
    request: Vec<u8>,
    written: usize,
    begun: Instant,
    connected: Instant,
    /// The address that is tried, or was the right one.
    address: Option<Address>,
    /// The addresses to try after it, once they are known.
    untried: Option<VecDeque<Address>>,
    set_up: Option<SetUp>,
    limits: Limits,
    sent: Option<Duration>,
    incoming: Incoming,
    /// When the socket was last emptied.
    emptied: Instant,
    /// The next time to see whether a limit has run out.
    deadline: Instant,
    search: EndSearch,
}

/// What came of a read.
enum Received {
    /// As much as one read takes.
    Full,
    /// Less: the socket is empty.
    Short,
    /// The socket was empty.
    Nothing,
    /// The answer's end.
    End(Result<(), RequestError>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The server may still be about to close the connection.
    Resting,
    Connecting,
    Handshaking,
    Sending,
    Receiving,
}

impl KernelTimedClient {
    /// A client for `url` that has no connection yet.
    pub(super) fn new(
        (method, url): (Method, &reqwest::Url),
        headers: &HeaderMap,
        (timeouts, marks): (Timeouts, EndMarks),
        connection: ConnectionMode,
        route: &ConnectOptions,
    ) -> anyhow::Result<Self> {
        // What is fetched of metrics needs no exact times.
        let (has_tokens, has_packets) = (method == Method::POST, route.socket.is_none());
        if has_tokens && route.stamps == Stamps::Packets {
            Tap::check().context("`stamps: packets` cannot be had")?;
        }
        Ok(Self {
            connector: Connector::of(url, route)?,
            addresses: Vec::new(),
            head: request_head(&method, url, headers),
            timeouts,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            reported: VecDeque::new(),
            quiet: now(),
            seen: now(),
            moved: now(),
            stamping: route.socket.is_none().then(Stamping::begin).and_then(Result::ok),
            should_tap: has_tokens && has_packets && route.stamps != Stamps::Socket,
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
            marks,
            ending: None,
        })
    }

    /// Sends all that `jobs` has, when it wants it sent, and gives it each answer.
    pub(super) fn drive(&mut self, jobs: &mut dyn RequestSource) -> DriveStats {
        let begun = now();
        self.waited = Duration::ZERO;
        if let Some(tap) = &mut self.tap {
            tap.resume();
        }
        loop {
            let next_start = self.start(jobs);
            let active = self.active();
            let Some(until) = self.next_look(next_start).filter(|_| !jobs.is_cancelled()) else {
                self.abandon(jobs);
                if let Some(tap) = &mut self.tap {
                    tap.pause();
                }
                return DriveStats::of(now() - begun, self.waited);
            };
            self.listen(active);
            self.rest(active, next_start);
            self.wait(until, next_start);
            self.take_reported(jobs);
            self.expire(jobs);
            self.find_ends(jobs);
        }
    }

    /// Whether it could say when each packet of a read arrived, all the time.
    pub(super) fn has_packet_stamps(&self) -> bool {
        self.tap.as_ref().is_some_and(Tap::always_listened)
    }

    /// Looks at packets or not, depending on the number of answers in flight.
    fn listen(&mut self, active: usize) {
        if let Some(tap) = &mut self.tap {
            let most = if tap.listens() { TAPPED } else { TAPPED / 2 };
            tap.listen(self.always_taps || active <= most);
        }
    }

    /// The slots that have work.
    fn active(&self) -> usize {
        self.slots.len() - self.idle.len() - self.empty.len()
    }

    /// Starts what is due; when the next is, if that is known.
    fn start(&mut self, jobs: &mut dyn RequestSource) -> Option<Instant> {
        loop {
            match jobs.next(now(), self.idle.len()) {
                NextAction::Send { id, body } => self.begin(id, &body, jobs),
                NextAction::Open => self.open(jobs),
                NextAction::At(start) => return Some(start),
                NextAction::AfterAnAnswer => return None,
            }
        }
    }

    /// When to look again at the latest; `None` when there is nothing to look for.
    fn next_look(&self, next_start: Option<Instant>) -> Option<Instant> {
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

    /// Waits for something to happen, until then at most; for a start not quite so long, since it
    /// must not be late.
    fn wait(&mut self, until: Instant, next_start: Option<Instant>) {
        let begun = now();
        let mut at = begun;
        loop {
            let left = until.saturating_duration_since(at);
            let left = match next_start {
                _ if !self.reported.is_empty() => Duration::ZERO,
                Some(start) if start <= until => whole_millis(left.saturating_sub(COARSE)),
                _ => left,
            };
            let tick = self.tick(at);
            let was_whole = self.look(tick.map_or(left, |tick| tick.min(left)));
            let is_tick = tick.is_some_and(|tick| tick < left);
            if !is_tick || !was_whole || !self.reported.is_empty() {
                return;
            }
            at = self.seen;
        }
    }

    /// How long to wait at most: what arrives then arrived within it. After a silence it may be twice
    /// as long, and no longer: what then comes in one piece has a gap as well.
    fn tick(&self, at: Instant) -> Option<Duration> {
        let active = self.active();
        let is_tapped = self.tap.as_ref().is_some_and(Tap::covers_all);
        let is_silent = at.saturating_duration_since(self.moved) > SILENCE;
        let tick = if active > MANY || is_silent { 2 * TICK } else { TICK };
        (active > 0 && !is_tapped).then_some(tick)
    }

    /// Waits so long for something to happen, and notes what it happened to; false when it was
    /// interrupted.
    fn look(&mut self, time: Duration) -> bool {
        let begun = now();
        let looked = self.poll.poll(&mut self.events, Some(time)).is_ok();
        self.seen = now();
        if !time.is_zero() {
            self.waited += self.seen - begun;
        }
        // An interrupted wait is over sooner, and reports nothing.
        if !looked {
            return false;
        }
        let mut reported = 0;
        for event in &self.events {
            let Token(slot) = event.token();
            self.reported.push_back((slot, event.is_read_closed() || event.is_error()));
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.quiet.get_or_insert(self.quiet);
            }
            reported += 1;
        }
        // A full list may lack some.
        if reported < EVENTS {
            self.quiet = begun;
        }
        true
    }

    /// Lets arrivals gather, but not past the next start; and sleeps through the last of the time
    /// before it.
    fn rest(&mut self, active: usize, next_start: Option<Instant>) {
        // What the program stamps it must see at once.
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

    /// Takes what has been reported. What is reported meanwhile waits for the next round; looking
    /// for it now and then, and before a rest, only keeps short how long ago sockets were empty.
    fn take_reported(&mut self, jobs: &mut dyn RequestSource) {
        for nth in 1..=self.reported.len() {
            let Some((slot, drain)) = self.reported.pop_front() else { break };
            self.advance(slot, drain, jobs);
            if nth % BATCH == 0 {
                self.look(Duration::ZERO);
            }
        }
        if self.active() > MANY && self.seen.saturating_duration_since(self.quiet) > BRIEF {
            self.look(Duration::ZERO);
        }
        if let Some(tap) = &mut self.tap {
            tap.tidy(self.reported.is_empty());
        }
    }

    /// Gives a request a slot and takes its first step.
    fn begin(&mut self, id: usize, body: &[u8], jobs: &mut dyn RequestSource) {
        let mut request = self.head.clone();
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        let begun = now();
        let work = InFlight::new(Some(id), request, begun, self.timeouts);
        if let Some(slot) = self.take_idle(begun) {
            let set_up = self.slots[slot].fresh.take();
            self.slots[slot].work = Some(InFlight { set_up, ..work });
            return self.send(slot, jobs);
        }
        match self.idle.pop_front() {
            Some(slot) => self.let_rest(slot, work),
            None => self.connect_for(work, jobs),
        }
    }

    /// Gives `work` a slot whose connection has not rested yet.
    fn let_rest(&mut self, slot: usize, work: InFlight) {
        let deadline = self.slots[slot].idle_since.map_or(work.begun, |since| since + SETTLE);
        self.slots[slot].work = Some(InFlight { stage: Stage::Resting, deadline, ..work });
        self.arm(slot);
    }

    /// The slot's connection has rested: it is used, or replaced when the server has closed it.
    fn rested(&mut self, slot: usize, jobs: &mut dyn RequestSource) {
        let Some(work) = self.slots[slot].work.take() else { return };
        if self.is_open(slot, now()) {
            self.kept_one = true;
            self.slots[slot].work = Some(work);
            return self.send(slot, jobs);
        }
        self.empty.push(slot);
        let begun = now();
        let deadline = begun + self.timeouts.connect;
        self.connect_for(InFlight { stage: Stage::Connecting, begun, deadline, ..work }, jobs);
    }

    /// Opens a connection for a later request.
    fn open(&mut self, jobs: &mut dyn RequestSource) {
        self.connect_for(InFlight::new(None, Vec::new(), now(), self.timeouts), jobs);
    }

    /// Gives `work` a slot without a connection, and begins to make one.
    fn connect_for(&mut self, work: InFlight, jobs: &mut dyn RequestSource) {
        let slot = self.empty.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.slots[slot] = Slot { work: Some(work), ..Slot::default() };
        self.connect(slot, jobs);
    }

    /// A slot with a connection that can be used at once: not one that the server may still be about
    /// to close, before it is known to keep them.
    fn take_idle(&mut self, now: Instant) -> Option<usize> {
        loop {
            let is_usable = |slot: &usize| self.kept_one || self.slots[*slot].has_rested(now);
            let at = self.idle.iter().position(is_usable)?;
            let slot = self.idle.remove(at)?;
            let was_used = self.slots[slot].fresh.is_none();
            let rested = self.slots[slot].has_rested(now);
            if self.is_open(slot, now) {
                self.kept_one |= was_used && rested;
                return Some(slot);
            }
            self.empty.push(slot);
        }
    }

    /// Whether the idle slot's connection is still open; if it is not, it is gone.
    fn is_open(&mut self, slot: usize, now: Instant) -> bool {
        let Slot { connection, idle_since, fresh, .. } = &mut self.slots[slot];
        if connection.as_mut().is_some_and(|kept| kept.is_open(&mut self.buffer)) {
            return true;
        }
        let at_once =
            idle_since.is_some_and(|since| now.saturating_duration_since(since) < AT_ONCE);
        self.keeps &= fresh.is_some() || !at_once;
        self.disconnect(slot);
        false
    }

    /// The slot's connection is over.
    fn disconnect(&mut self, slot: usize) {
        self.slots[slot] = Slot::default();
        if let Some(tap) = &mut self.tap {
            tap.forget(slot);
        }
    }

    /// Something happened to a connection that is not in use.
    fn idling(&mut self, slot: usize) {
        if !self.is_open(slot, now()) {
            self.idle.retain(|&idle| idle != slot);
            self.empty.push(slot);
        }
    }

    /// Begins to connect to the next address that can be tried.
    fn connect(&mut self, slot: usize, jobs: &mut dyn RequestSource) {
        loop {
            match self.try_connect(slot, || jobs.is_cancelled()) {
                Ok(()) => return self.arm(slot),
                Err(_) if self.has_address_left(slot) => {}
                Err(error) => return self.finish(slot, Err(error), jobs),
            }
        }
    }

    /// Whether the slot has not tried every address.
    fn has_address_left(&self, slot: usize) -> bool {
        let work = self.slots[slot].work.as_ref();
        work.is_some_and(InFlight::has_address_left)
    }

    fn try_connect(
        &mut self,
        slot: usize,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<(), RequestError> {
        if self.addresses.is_empty() {
            self.addresses = self.connector.resolve(self.timeouts.connect, is_cancelled)?;
            self.open_tap();
        }
        let Some(work) = &mut self.slots[slot].work else { return Ok(()) };
        let untried = work.untried.get_or_insert_with(|| self.addresses.iter().cloned().collect());
        work.deadline = share(now(), work.begun + self.timeouts.connect, untried.len());
        let Some(address) = untried.pop_front() else {
            return Err(self.connector.too_late(self.timeouts.connect));
        };
        let failed = |error: io::Error| self.connector.failed(&error);
        let mut connection = Connection::to(work.address.insert(address)).map_err(failed)?;
        let stream = &mut connection.socket.stream;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream, Token(slot), interest).map_err(failed)?;
        let ends =
            connection.socket.local_port().zip(work.address.as_ref().and_then(Address::port));
        if let Some((tap, (local, peer))) = self.tap.as_mut().zip(ends) {
            tap.follow(slot, local, peer);
        }
        self.slots[slot].connection = Some(connection);
        Ok(())
    }

    /// Sees packets from now on, if that is wanted and allowed: before the first connection, whose
    /// first packet says how the others are counted.
    fn open_tap(&mut self) {
        if std::mem::take(&mut self.should_tap) {
            let ports: Vec<_> = self.addresses.iter().filter_map(Address::port).collect();
            self.tap = Tap::open(&ports).ok();
            if self.tap.is_none() {
                self.connector.lose_packets();
            }
        }
    }

    /// The slot has a connection. If no packet of the server is seen, the tap is of no use: without
    /// it, waits are short.
    fn follow_up(&mut self, slot: usize) {
        if self.tap.as_mut().is_some_and(|tap| !tap.connected(slot)) {
            self.lose_tap();
        }
    }

    fn lose_tap(&mut self) {
        self.tap = None;
        self.connector.lose_packets();
    }

    /// Notes when to look at the slot's limits.
    fn arm(&mut self, slot: usize) {
        if let Some(work) = &self.slots[slot].work {
            self.deadlines.push(Reverse((work.deadline, slot)));
        }
    }

    /// Takes a slot's request as far as it goes.
    fn advance(&mut self, slot: usize, drain: bool, jobs: &mut dyn RequestSource) {
        let stage = self.slots.get(slot).and_then(|slot| slot.work.as_ref()).map(|work| work.stage);
        match stage {
            None if self.slots.get(slot).is_some_and(|slot| slot.connection.is_some()) => {
                self.idling(slot);
            }
            None | Some(Stage::Resting) => {}
            Some(Stage::Connecting) => self.connecting(slot, jobs),
            Some(Stage::Handshaking) => self.handshaking(slot, jobs),
            Some(Stage::Sending) => self.sending(slot, jobs),
            Some(Stage::Receiving) => self.receiving(slot, drain, jobs),
        }
    }

    fn connecting(&mut self, slot: usize, jobs: &mut dyn RequestSource) {
        let Slot { connection: Some(connection), work: Some(work), .. } = &mut self.slots[slot]
        else {
            return;
        };
        match connection.is_connected() {
            Ok(false) => {}
            Ok(true) => match self.connector.tls() {
                Ok(tls) => {
                    connection.tls = tls;
                    work.connected = now();
                    work.stage = Stage::Handshaking;
                    // It has all the time that is left: this is the address.
                    work.deadline = work.begun + self.timeouts.connect;
                    self.arm(slot);
                    self.handshaking(slot, jobs);
                }
                Err(error) => self.finish(slot, Err(error), jobs),
            },
            Err(_) if self.has_address_left(slot) => self.connect(slot, jobs),
            Err(error) => {
                let error = self.connector.failed(&error);
                self.finish(slot, Err(error), jobs);
            }
        }
    }

    fn handshaking(&mut self, slot: usize, jobs: &mut dyn RequestSource) {
        let Slot { connection: Some(connection), .. } = &mut self.slots[slot] else { return };
        while connection.is_handshaking() {
            match connection.shake() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let error = self.connector.tls_failed(error);
                    return self.finish(slot, Err(error), jobs);
                }
            }
        }
        let opened = now();
        self.follow_up(slot);
        let Slot { connection: Some(connection), work: Some(work), .. } = &mut self.slots[slot]
        else {
            return;
        };
        // The next connection need not try those that failed.
        if let Some(at) = self.addresses.iter().position(|at| Some(at) == work.address.as_ref()) {
            self.addresses.swap(0, at);
        }
        let tls = connection.tls.is_some().then(|| opened - work.connected);
        let set_up = SetUp { total: opened - work.begun, tls };
        match work.id {
            Some(_) => {
                work.set_up = Some(set_up);
                self.send(slot, jobs);
            }
            None => {
                let connection = self.slots[slot].connection.take();
                self.slots[slot] = Slot { connection, fresh: Some(set_up), ..Slot::default() };
                self.idle.push_back(slot);
                jobs.opened(Ok(()));
            }
        }
    }

    /// Hands the request to the open connection: its clock starts.
    fn send(&mut self, slot: usize, jobs: &mut dyn RequestSource) {
        let Slot { connection: Some(connection), work: Some(work), quiet, .. } =
            &mut self.slots[slot]
        else {
            return;
        };
        // What is read from now on arrives from now on.
        *quiet = None;
        work.stage = Stage::Sending;
        work.limits.origin = now();
        (self.seen, self.moved) = (work.limits.origin, work.limits.origin);
        work.incoming = Incoming::new(work.limits.origin);
        work.deadline = work.limits.first_deadline();
        match connection.seal(std::mem::take(&mut work.request)) {
            Ok(request) => {
                work.request = request;
                self.arm(slot);
                self.sending(slot, jobs);
            }
            Err(error) => self.finish(slot, Err(broke_off(&error)), jobs),
        }
    }

    fn sending(&mut self, slot: usize, jobs: &mut dyn RequestSource) {
        let Slot { connection: Some(connection), work: Some(work), .. } = &mut self.slots[slot]
        else {
            return;
        };
        let mut rest = &work.request[work.written..];
        let written = connection.write(&mut rest);
        work.written = work.request.len() - rest.len();
        match written {
            // Some servers answer, and close, before they have read it all.
            Ok(true) => self.receiving(slot, false, jobs),
            Ok(false) => {
                work.sent = Some(work.limits.elapsed());
                work.stage = Stage::Receiving;
                work.request = Vec::new();
                self.receiving(slot, true, jobs);
            }
            Err(error) => {
                self.receiving(slot, true, jobs);
                self.finish(slot, Err(broke_off(&error)), jobs);
            }
        }
    }

    /// Takes what has arrived. The loop that every figure rests on.
    ///
    /// A read that is short has emptied the socket (epoll(7), question 9), so that another one
    /// would be for nothing, unless the end of the stream may lie behind it: `drain`.
    fn receiving(&mut self, slot: usize, drain: bool, jobs: &mut dyn RequestSource) {
        let Some(work) = &self.slots[slot].work else { return };
        let before = work.incoming.chunks.len();
        let ended = loop {
            match self.receive(slot, jobs) {
                Received::Full => {}
                Received::Short if drain => {}
                Received::Short | Received::Nothing => break None,
                Received::End(ended) => break Some(ended),
            }
        };
        if self.tap.as_ref().is_some_and(Tap::is_useless) {
            self.lose_tap();
        }
        let Some(work) = &mut self.slots[slot].work else { return };
        if let Some(id) = work.id {
            work.incoming.chunks[before..].iter().for_each(|chunk| jobs.arrived(id, chunk));
        }
        match ended {
            Some(ended) => self.finish(slot, ended, jobs),
            None if self.marks.are_in(&work.incoming.chunks[before..]) => {
                work.search.mark();
                self.ending.get_or_insert(self.seen + SOON);
            }
            None => {}
        }
    }

    /// Reads once.
    fn receive(&mut self, slot: usize, jobs: &dyn RequestSource) -> Received {
        let Slot { connection: Some(connection), work: Some(work), quiet, .. } =
            &mut self.slots[slot]
        else {
            return Received::Nothing;
        };
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
        let stamp = read.arrived.filter(|_| self.wall.round(now));
        let since = work.emptied.max(quiet.unwrap_or(self.quiet));
        let bytes = &self.buffer[..read.bytes];
        let arrival = connection.arrival(bytes, Arrival::new(stamp, since, now));
        let is_short = read.bytes < READ;
        if is_short {
            (work.emptied, *quiet) = (begun, None);
        }
        let needs = || arrival.is_doubtful() || connection.needs_pieces(bytes, &work.incoming);
        let listens = self.tap.as_ref().is_some_and(Tap::listens);
        let stamp = stamp.filter(|_| listens && arrival.is_late() && needs());
        let pieces = pieces(&mut self.tap, (slot, &connection.socket), stamp, bytes);
        let pieces = Arrival::of_pieces(&pieces.unwrap_or_default(), since, now);
        let taken = connection.take_pieces(bytes, &pieces, arrival, &mut work.incoming);
        let taken = taken.map_err(|error| self.connector.not_taken(error, &work.incoming));
        if taken.is_err() || work.incoming.reader.is_done() {
            let has_ended = |chunks: &[Chunk]| jobs.has_ended(chunks, 0);
            return Received::End(taken.and_then(|()| work.incoming.confirm(has_ended)));
        }
        if is_short { Received::Short } else { Received::Full }
    }

    /// Looks at the limits whose time has come.
    fn expire(&mut self, jobs: &mut dyn RequestSource) {
        let now = now();
        while let Some(&Reverse((deadline, slot))) = self.deadlines.peek() {
            if deadline > now {
                return;
            }
            self.deadlines.pop();
            let Some(work) = &mut self.slots[slot].work else { continue };
            // An entry of an earlier stage or request.
            if work.deadline != deadline {
                continue;
            }
            let as_of = work.limits.elapsed();
            if work.stage == Stage::Receiving {
                // Other answers may have kept this thread from reading.
                self.receiving(slot, false, jobs);
            }
            let Some(work) = &mut self.slots[slot].work else { continue };
            let expired = match work.stage {
                Stage::Resting => {
                    self.rested(slot, jobs);
                    continue;
                }
                // This address is silent; the next one may not be.
                Stage::Connecting if work.has_address_left() => {
                    self.connect(slot, jobs);
                    continue;
                }
                Stage::Connecting | Stage::Handshaking => {
                    Err(self.connector.too_late(self.timeouts.connect))
                }
                Stage::Sending => work.limits.expired(as_of, &[], |_| None),
                Stage::Receiving => {
                    let last_token = |chunks: &[Chunk]| jobs.last_token(chunks);
                    work.limits.expired(as_of, &work.incoming.chunks, last_token)
                }
            };
            match expired {
                Ok(later) => {
                    work.deadline = later;
                    self.arm(slot);
                }
                Err(error) => self.finish(slot, Err(error), jobs),
            }
        }
    }

    /// Ends the answers that say that they have ended and whose bodies the server keeps open.
    fn find_ends(&mut self, jobs: &mut dyn RequestSource) {
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
                false => work.search.look(chunks, elapsed, &SourceProbe(jobs)),
            };
            match found {
                SearchOutcome::Nothing => {}
                SearchOutcome::Ended => work.id.into_iter().for_each(|id| jobs.ending(id)),
                SearchOutcome::LeftOpen => {
                    // What has come meanwhile is still a part of it, and may be its proper end.
                    self.receiving(slot, true, jobs);
                    self.finish(slot, Err(left_open()), jobs);
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

    /// Ends a slot's request, well or not.
    fn finish(
        &mut self,
        slot: usize,
        ended: Result<(), RequestError>,
        jobs: &mut dyn RequestSource,
    ) {
        let Some(work) = self.slots[slot].work.take() else { return };
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
            Some(id) => jobs.finished(id, work.into_answer(ended)),
            None => jobs.opened(ended),
        }
    }

    /// Ends what is left of a run that is over or not wanted any more.
    fn abandon(&mut self, jobs: &mut dyn RequestSource) {
        for slot in 0..self.slots.len() {
            let error = RequestError::new(ErrorKind::Interrupted, "interrupted");
            self.finish(slot, Err(error), jobs);
        }
        self.deadlines.clear();
    }
}

/// What is asked of answers, as their ends are looked for.
struct SourceProbe<'a>(&'a dyn RequestSource);

impl EndProbe for SourceProbe<'_> {
    fn has_ended(&self, chunks: &[Chunk], seen: usize) -> bool {
        self.0.has_ended(chunks, seen)
    }

    fn lacks_usage(&self, chunks: &[Chunk]) -> bool {
        self.0.lacks_usage(chunks)
    }
}

impl Slot {
    /// Whether its server has had the time to close the connection after the last answer.
    fn has_rested(&self, now: Instant) -> bool {
        self.idle_since.is_none_or(|since| now.saturating_duration_since(since) >= SETTLE)
    }
}

impl InFlight {
    fn new(id: Option<usize>, request: Vec<u8>, begun: Instant, timeouts: Timeouts) -> Self {
        Self {
            id,
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
            incoming: Incoming::new(begun),
            emptied: begun,
            deadline: begun + timeouts.connect,
            search: EndSearch::default(),
        }
    }

    /// Whether there is an address that has not been tried.
    fn has_address_left(&self) -> bool {
        self.untried.as_ref().is_some_and(|untried| !untried.is_empty())
    }

    /// What came of it: an error when there was no answer, a broken recording when there was one.
    fn into_answer(self, ended: Result<(), RequestError>) -> Result<Recording, RequestError> {
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

/// Until when the first of these `addresses` is tried, if all are silent and the last is to have been
/// tried by `end`.
fn share(now: Instant, end: Instant, addresses: usize) -> Instant {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    now + end.saturating_duration_since(now) / addresses
}

/// The first parts of a read with this stamp, as far as its packets are known; none without one.
/// Notes the read.
fn pieces(
    tap: &mut Option<Tap>,
    (slot, socket): (usize, &TimedSocket),
    stamp: Option<Duration>,
    bytes: &[u8],
) -> Option<Vec<ReadSegment>> {
    let tap = tap.as_mut()?;
    let pieces = stamp.and_then(|stamp| tap.divide(slot, (bytes.len(), socket.received), stamp));
    tap.note(slot, socket.received);
    pieces
}

fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn broke_off(error: &io::Error) -> RequestError {
    let message = format!("the connection broke while the request was sent: {error}");
    RequestError::new(ErrorKind::Broken, message)
}

/// The head of every request to `url`, but for the length of its body.
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

/// With listeners whose queue is full: Linux drops what comes then.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener, TcpStream},
    };

    use bytes::Bytes;
    use socket2::{Domain, Socket, Type};

    use super::*;

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

    /// Requests that are all to be sent at once, and their answers.
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
                    NextAction::Send { id, body: Bytes::from_static(b"{}") }
                }
            }
        }

        fn arrived(&mut self, _: usize, _: &Chunk) {}

        fn last_token(&self, _: &[Chunk]) -> Option<Duration> {
            None
        }

        fn is_cancelled(&self) -> bool {
            false
        }

        fn finished(&mut self, _: usize, answer: Result<Recording, RequestError>) {
            self.answers.push(answer);
        }
    }

    /// What three requests at once come to, at a server with these addresses.
    fn ask(addresses: &[SocketAddr]) -> (Vec<Result<u16, String>>, Vec<Address>) {
        let url = reqwest::Url::parse("http://two.test:80").expect("a URL");
        let long = Duration::from_secs(60);
        let timeouts =
            Timeouts { connect: ms(800), first_token: long, inter_token: long, total: long };
        let (headers, route) = (HeaderMap::new(), ConnectOptions::default());
        let asked = (Method::POST, &url);
        let mut stamped = KernelTimedClient::new(
            asked,
            &headers,
            (timeouts, EndMarks::of(&[])),
            ConnectionMode::Warm,
            &route,
        )
        .expect("a client");
        stamped.addresses = addresses.iter().copied().map(Address::Port).collect();
        let mut jobs = Together { left: 3, answers: Vec::new() };
        stamped.drive(&mut jobs);
        let told = |answer: Result<Recording, RequestError>| match answer {
            Ok(recording) => Ok(recording.status),
            Err(error) => Err(format!("{}: {error}", error.kind)),
        };
        (jobs.answers.into_iter().map(told).collect(), stamped.addresses)
    }

    /// A port that takes no more connections and does not say so, as long as these are kept.
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
        assert_eq!(addresses, [there, address].map(Address::Port), "the next begins with it");
    }

    #[test]
    fn when_all_are_silent_the_limit_is_named() {
        let (one, other) = (silent(), silent());
        let (answers, _) = ask(&[one.0, other.0]);
        let told = "connect_timeout: no connection to two.test:80 within 800ms (timeouts.connect)";
        assert_eq!(answers, vec![Err(told.to_owned()); 3]);
    }
}
