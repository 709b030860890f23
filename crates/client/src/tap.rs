//! When did each packet arrive? A packet socket that sees what the server sends, packet(7).
//!
//! A stream's socket has one stamp a read, that of its last segment. A client that reads late gets
//! several segments at once, and their own times are lost: the kernel merges them in the queue. A
//! packet socket keeps each packet with its stamp, however late it is read. It needs CAP_NET_RAW.
//!
//! The stream's socket stays the source of bytes and of the last stamp. The tap only says which
//! bytes of a read arrived when: by TCP's sequence numbers, counted from the SYN-ACK, so it is opened
//! before the connections. What it does not know, since it was full or sees a packet a little after
//! the stream's socket does, arrived between the packets before and behind. TCP hands bytes over in
//! order: a packet that came before a lost one counts from when that one was sent again. If the last
//! packet has another stamp than the read, nothing is used. Only incoming packets are seen, so the
//! loopback has no duplicates.
//!
//! While the client reads in time, packets are not looked at: they are thrown away unread, which
//! costs half as much, once everything that was reported has been read. While the client is idle, the
//! tap is deaf: the filter knows nothing but the port, which several clients may share.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::server_address::ServerAddress;

/// Bytes of a packet that are read: the longest headers of IPv4 and TCP.
const HEADERS: usize = 120;

/// So many packets, or more, may wait in the tap: then they are thrown away, so that its buffer has
/// room for those of a delay.
const WAITING: usize = 256;

/// A connection, by the server's address and our port.
type FlowKey = (IpAddr, u16);

/// How much earlier a packet's stamp may be than that of the read that it ends: the loopback takes
/// one on the way to each socket.
const EARLIER: Duration = Duration::from_micros(300);

/// How much later: the kernel may be held up between the two sockets.
const LATER: Duration = Duration::from_millis(5);

/// How often the tap is asked for the last packet of a read, which it may see a little later.
const TRIES: usize = 8;

/// The servers whose packets were to be seen and are not, by their hosts and ports.
static UNSEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The packets of the server at `place` are not seen.
pub(super) fn lose(place: &ServerAddress) {
    UNSEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_string());
}

/// Whether the packets of the server at `place` were to be seen and are not.
pub(super) fn is_lost(place: &ServerAddress) -> bool {
    UNSEEN.lock().unwrap_or_else(PoisonError::into_inner).contains(&place.to_string())
}

/// A part of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadSegment {
    pub(super) bytes: usize,
    /// When its last byte arrived at the latest, by the wall clock.
    pub(super) at: Duration,
    /// Whether all of it arrived then; else only its last byte, and the rest after the piece before.
    pub(super) is_exact: bool,
}

/// The packets of some connections to one server.
#[derive(Debug)]
pub(super) struct Tap {
    sockets: Vec<sys::PacketSocket>,
    /// Which of the flows a packet is of.
    keys: HashMap<FlowKey, usize>,
    flows: Vec<TappedFlow>,
    /// Whether it sees more than the first packet of each connection.
    listens: bool,
    /// Whether it always did while its client was in use, and saw every connection begin.
    listened: bool,
    /// Connections whose first packet was not seen.
    blind: usize,
    /// Whether any connection's was.
    has_seen: bool,
    /// Reads since the tap was last empty.
    waiting: usize,
    /// Reads that could be divided, and those that could not.
    found: usize,
    missed: usize,
}

/// What the server sent on one connection.
#[derive(Debug, Default)]
struct TappedFlow {
    key: Option<FlowKey>,
    /// The sequence number of the first byte.
    first: Option<u32>,
    /// Whether the connection was made and its first packet was not seen: nothing can be said of it.
    is_blind: bool,
    /// Bytes that the stream's socket has handed over and that are not asked for again.
    read: u64,
    packets: VecDeque<Arrived>,
}

/// Some bytes of a connection, counted from its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arrived {
    from: u64,
    to: u64,
    at: Duration,
}

impl Tap {
    /// Sees the packets that come from these addresses' ports.
    pub(super) fn open(addresses: &[SocketAddr]) -> io::Result<Self> {
        let of = |is_v6: bool| {
            // IPv4 goes by its own packets, however its addresses are written.
            let is_of = |address: &&SocketAddr| address.ip().to_canonical().is_ipv6() == is_v6;
            let port = addresses.iter().find(is_of)?.port();
            Some(sys::PacketSocket::open(is_v6, port))
        };
        let sockets = [of(false), of(true)].into_iter().flatten().collect::<io::Result<_>>()?;
        Ok(Self::of(sockets))
    }

    fn of(sockets: Vec<sys::PacketSocket>) -> Self {
        Self {
            sockets,
            keys: HashMap::new(),
            flows: Vec::new(),
            listens: true,
            listened: true,
            blind: 0,
            has_seen: false,
            waiting: 0,
            found: 0,
            missed: 0,
        }
    }

    /// An error if this process may not have one.
    pub(super) fn check() -> io::Result<()> {
        sys::PacketSocket::open(false, 1).map(drop)
    }

    /// Whether it sees more than the first packet of each connection.
    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    /// Whether it has never missed any on purpose, nor a connection's first packet.
    pub(super) fn always_listened(&self) -> bool {
        self.listened
    }

    /// Whether it can divide the reads of every connection in use.
    pub(super) fn covers_all(&self) -> bool {
        self.listens && self.blind == 0
    }

    /// Has it see all packets, or only the first one of each connection, which costs next to nothing
    /// and is all that is needed to see the others later.
    pub(super) fn listen(&mut self, listens: bool) {
        self.set_filter(listens);
        self.listened &= self.listens;
    }

    /// The client begins to send requests: packets that came since it stopped are not its own.
    pub(super) fn resume(&mut self) {
        self.clear();
        self.set_filter(true);
    }

    /// The client sends nothing more for now: the first packets of its connections are noted, and
    /// later ones, which may be another client's, do not fill the tap.
    pub(super) fn pause(&mut self) {
        if self.flows.iter().any(TappedFlow::begins) {
            self.take();
        }
        self.set_filter(false);
    }

    fn set_filter(&mut self, listens: bool) {
        if listens != self.listens {
            let set = self.sockets.iter().map(|socket| socket.listen(listens));
            self.listens = set.collect::<io::Result<Vec<_>>>().map_or(self.listens, |_| listens);
        }
    }

    /// Lane `nth` has begun to connect from `local` to `peer`.
    pub(super) fn follow(&mut self, nth: usize, local: SocketAddr, peer: SocketAddr) {
        self.flows.resize_with(self.flows.len().max(nth + 1), TappedFlow::default);
        let key = (peer.ip().to_canonical(), local.port());
        self.forget(nth);
        self.keys.insert(key, nth);
        self.flows[nth] = TappedFlow { key: Some(key), ..TappedFlow::default() };
        // There must be room for the first packet.
        self.take();
    }

    /// Lane `nth` has no connection any more.
    pub(super) fn forget(&mut self, nth: usize) {
        let Some(flow) = self.flows.get_mut(nth).map(std::mem::take) else { return };
        self.blind -= usize::from(flow.is_blind);
        // Another lane may have the port by now.
        if let Some(key) = flow.key.filter(|key| self.keys.get(key) == Some(&nth)) {
            self.keys.remove(&key);
        }
    }

    /// Lane `nth` has a connection; false if no connection so far was seen to begin, as where
    /// addresses are translated on the way.
    pub(super) fn connected(&mut self, nth: usize) -> bool {
        for _ in 0..TRIES {
            match self.flows.get(nth) {
                Some(flow) if flow.key.is_some() && flow.first.is_none() => self.take(),
                flow => {
                    self.has_seen |= flow.is_some_and(|flow| flow.first.is_some());
                    return true;
                }
            }
        }
        self.flows[nth].is_blind = true;
        self.blind += 1;
        self.listened = false;
        self.has_seen
    }

    /// Lane `nth` has handed over so many bytes in all; those are not asked for any more.
    pub(super) fn note(&mut self, nth: usize, read: u64) {
        if let Some(flow) = self.flows.get_mut(nth) {
            flow.read = read;
        }
        self.waiting += 1;
    }

    /// Makes room, if that is needed; these packets are not needed if all has been read that
    /// was reported.
    pub(super) fn tidy(&mut self, all_read: bool) {
        if self.waiting < WAITING {
            return;
        }
        // The first packet of a connection is needed.
        match all_read && !self.flows.iter().any(TappedFlow::begins) {
            true => self.clear(),
            false => self.take(),
        }
    }

    /// Throws away what has arrived. What cannot be thrown away stays.
    fn clear(&mut self) {
        self.waiting = 0;
        self.sockets.iter().for_each(|socket| drop(socket.clear()));
    }

    /// The first parts of the last `bytes` that lane `nth` has handed over, `read` in all, whose last
    /// segment has this stamp; `None` where nothing is known of them.
    pub(super) fn divide(
        &mut self,
        nth: usize,
        (bytes, read): (usize, u64),
        stamp: Duration,
    ) -> Option<Vec<ReadSegment>> {
        for _ in 0..TRIES {
            self.take();
            if self.flows.get(nth)?.packets.iter().any(|packet| packet.to >= read) {
                break;
            }
        }
        let flow = self.flows.get_mut(nth)?;
        let pieces = flow.pieces(read - bytes as u64, read, stamp);
        match pieces {
            Some(_) => self.found += 1,
            None => self.missed += 1,
        }
        pieces
    }

    /// Whether the packets of these connections do not come this way, as where they take a short cut
    /// between two sockets.
    pub(super) fn is_useless(&self) -> bool {
        self.missed > 8 + self.found
    }

    /// Takes the packets that have arrived.
    fn take(&mut self) {
        self.waiting = 0;
        let (keys, flows) = (&self.keys, &mut self.flows);
        let mut sink = |headers: &[u8], at: Duration| {
            let Some(packet) = Packet::parse(headers) else { return };
            if let Some(nth) = keys.get(&(packet.from, packet.to_port)) {
                flows[*nth].take(&packet, at);
            }
        };
        for socket in &self.sockets {
            // The tap skips reads it cannot split: they keep their bounds.
            let _ = socket.take(&mut sink);
        }
    }
}

impl TappedFlow {
    /// Whether the connection's first packet is still to come.
    fn begins(&self) -> bool {
        self.key.is_some() && self.first.is_none() && !self.is_blind
    }

    fn take(&mut self, packet: &Packet, at: Duration) {
        if packet.is_syn {
            self.first = Some(packet.sequence.wrapping_add(1));
            self.packets.clear();
            return;
        }
        let Some(first) = self.first else { return };
        // Sequence numbers wrap; the packet is within 2 GiB of what has been read.
        let expected = first.wrapping_add(self.read as u32);
        let distance = i64::from(packet.sequence.wrapping_sub(expected).cast_signed());
        let Some(from) = self.read.checked_add_signed(distance) else { return };
        let to = from + packet.bytes as u64;
        while self.packets.front().is_some_and(|packet| packet.to <= self.read) {
            self.packets.pop_front();
        }
        if to > self.read {
            self.packets.push_back(Arrived { from, to, at });
        }
    }

    /// The first pieces of the bytes between these. Forgets them.
    fn pieces(&mut self, begin: u64, end: u64, stamp: Duration) -> Option<Vec<ReadSegment>> {
        let mut pieces: Vec<ReadSegment> = Vec::new();
        let (mut front, mut delivered) = (begin, Duration::ZERO);
        while front < end {
            // The first that arrived of those with the next byte; a second one was sent in vain.
            let holds = |packet: &&Arrived| packet.from <= front && front < packet.to;
            let follows = |packet: &&Arrived| front < packet.from && packet.from < end;
            let holding = self.packets.iter().find(holds);
            // A hole is one piece with the packet behind it, whose last byte is known.
            let following = || self.packets.iter().filter(follows).min_by_key(|next| next.from);
            let Some(packet) = holding.or_else(following) else { break };
            // The stream's socket stamped the last packet, perhaps a little sooner.
            let is_alike = (stamp.saturating_sub(EARLIER)..=stamp + LATER).contains(&packet.at);
            let at = match packet.to >= end {
                true if !is_alike => return None,
                true => stamp,
                false if is_alike => packet.at.min(stamp),
                false => packet.at,
            };
            delivered = delivered.max(at);
            let to = packet.to.min(end);
            let bytes = (to - front) as usize;
            pieces.push(ReadSegment { bytes, at: delivered, is_exact: holding.is_some() });
            front = to;
        }
        self.packets.retain(|packet| packet.to > end);
        (!pieces.is_empty()).then_some(pieces)
    }
}

/// What the headers of a packet with data, or of a SYN, say.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    from: IpAddr,
    to_port: u16,
    sequence: u32,
    is_syn: bool,
    bytes: usize,
}

impl Packet {
    /// Reads the headers of IPv4 or IPv6, and of TCP.
    fn parse(headers: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(*headers.get(at..)?.first_chunk()?));
        let (from, ip, all): (IpAddr, usize, usize) = match headers.first()? >> 4 {
            4 => {
                let from: [u8; 4] = *headers.get(12..)?.first_chunk()?;
                let ip = usize::from(headers[0] & 0xf) * 4;
                (from.into(), ip, usize::from(word(2)?))
            }
            6 => {
                let from: [u8; 16] = *headers.get(8..)?.first_chunk()?;
                (from.into(), 40, 40 + usize::from(word(4)?))
            }
            _ => return None,
        };
        let tcp = headers.get(ip..)?;
        let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        let is_syn = tcp.get(13)? & 0x02 != 0;
        let bytes = all.checked_sub(ip + header)?;
        Some(Self { from, to_port: word(ip + 2)?, sequence, is_syn, bytes })
    }
}

#[cfg(target_os = "linux")]
mod sys {
    use std::{
        io::{self, IoSliceMut},
        os::fd::AsRawFd as _,
        time::Duration,
    };

    use nix::sys::{
        socket::{
            ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg, setsockopt,
            sockopt::{RcvBufForce, ReceiveTimestampns},
        },
        time::TimeSpec,
    };
    use socket2::{Domain, Protocol, SockFilter, Socket, Type};

    use super::HEADERS;

    /// Room for some thousand packets: that is what the kernel counts a small one for, bytes.
    const BUFFER: usize = 8 << 20;

    /// Most packets that one call takes.
    const BATCH: usize = 64;

    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;

    #[derive(Debug)]
    pub(super) struct PacketSocket {
        socket: Socket,
        is_v6: bool,
        port: u16,
    }

    impl PacketSocket {
        /// Sees packets of TCP that come from `port` with data, and those that begin a connection.
        pub(super) fn open(is_v6: bool, port: u16) -> io::Result<Self> {
            let kind = if is_v6 { IPV6 } else { IPV4 };
            let protocol = Protocol::from(i32::from(kind.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
            socket.attach_filter(&filter(is_v6, port, true))?;
            setsockopt(&socket, ReceiveTimestampns, &true)?;
            // The former needs CAP_NET_ADMIN; the latter is cut to what the system allows.
            if setsockopt(&socket, RcvBufForce, &BUFFER).is_err() {
                socket.set_recv_buffer_size(BUFFER)?;
            }
            let tap = Self { socket, is_v6, port };
            // What came before the filter.
            tap.take(&mut |_, _| {})?;
            Ok(tap)
        }

        /// Sees packets with data from now on, or not.
        pub(super) fn listen(&self, listens: bool) -> io::Result<()> {
            self.socket.attach_filter(&filter(self.is_v6, self.port, listens))
        }

        /// Hands over the headers of each packet that has arrived, and when it did.
        pub(super) fn take(&self, sink: &mut dyn FnMut(&[u8], Duration)) -> io::Result<()> {
            let fd = self.socket.as_raw_fd();
            let mut buffers = [[0; HEADERS]; BATCH];
            loop {
                let mut slices: Vec<_> =
                    buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
                let room = Some(nix::cmsg_space!(TimeSpec));
                let mut headers = MultiHeaders::<()>::preallocate(BATCH, room);
                let flags = MsgFlags::MSG_DONTWAIT;
                let taken = match recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None) {
                    Ok(taken) => taken,
                    Err(nix::Error::EAGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                let mut count = 0;
                for message in taken {
                    count += 1;
                    let stamp = message.cmsgs()?.find_map(|control| match control {
                        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                        _ => None,
                    });
                    let bytes = message.iovs().next();
                    if let (Some(bytes), Some(stamp)) = (bytes, stamp) {
                        sink(bytes, stamp);
                    }
                }
                if count < BATCH {
                    return Ok(());
                }
            }
        }
    }

    impl PacketSocket {
        /// Throws away the packets that have arrived.
        pub(super) fn clear(&self) -> io::Result<()> {
            let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
            loop {
                // A call writes into the headers: they are used once.
                let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
                let mut nothing = [(); BATCH].map(|()| [IoSliceMut::new(&mut [])]);
                let cleared = match recvmmsg(fd, &mut headers, nothing.iter_mut(), flags, None) {
                    Ok(cleared) => cleared.count(),
                    Err(nix::Error::EAGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                if cleared < BATCH {
                    return Ok(());
                }
            }
        }
    }

    // Classic BPF, bpf(4) and linux/filter.h: what an instruction does, and by which code.
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE_AT_X: u16 = 0x50;
    const LOAD_HALF_AT_X: u16 = 0x48;
    const SET_X: u16 = 0x01;
    const SET_X_TO_LENGTH_OF_IPV4: u16 = 0xb1;
    const COPY_TO_X: u16 = 0x07;
    const ADD: u16 = 0x04;
    const ADD_X: u16 = 0x0c;
    const SHIFT_RIGHT: u16 = 0x74;
    const SHIFT_LEFT: u16 = 0x64;
    const IF_EQUAL: u16 = 0x15;
    const IF_ANY_BIT: u16 = 0x45;
    const IF_GREATER_THAN_X: u16 = 0x2d;
    const RETURN: u16 = 0x06;

    const TCP: u32 = 6;
    const SYN: u32 = 0x02;

    /// Keeps packets of TCP from `port` that have SYN, and those `with_data`. Offsets count from the
    /// header of IP; a jump counts the instructions that it leaves out.
    fn filter(is_v6: bool, port: u16, with_data: bool) -> [SockFilter; 17] {
        let (protocol_at, length_at) = if is_v6 { (6, 4) } else { (9, 2) };
        // IPv6 does not count its own header.
        let (set_x, uncounted) = match is_v6 {
            true => ((SET_X, 0, 0, 40), 40),
            false => ((SET_X_TO_LENGTH_OF_IPV4, 0, 0, 0), 0),
        };
        let program: [(u16, u8, u8, u32); 17] = [
            (LOAD_BYTE, 0, 0, protocol_at),
            (IF_EQUAL, 0, 14, TCP),
            set_x,
            (LOAD_HALF_AT_X, 0, 0, 0),
            (IF_EQUAL, 0, 11, u32::from(port)),
            (LOAD_BYTE_AT_X, 0, 0, 13),
            (IF_ANY_BIT, 8, 0, SYN),
            // The length of both headers.
            (LOAD_BYTE_AT_X, 0, 0, 12),
            (SHIFT_RIGHT, 0, 0, 4),
            (SHIFT_LEFT, 0, 0, 2),
            (ADD_X, 0, 0, 0),
            (COPY_TO_X, 0, 0, 0),
            (LOAD_HALF, 0, 0, length_at),
            (ADD, 0, 0, uncounted),
            (IF_GREATER_THAN_X, u8::from(!with_data), 1, 0),
            // All of it: to cut it costs the kernel a copy.
            (RETURN, 0, 0, u32::MAX),
            (RETURN, 0, 0, 0),
        ];
        program.map(|(code, then, or_else, value)| SockFilter::new(code, then, or_else, value))
    }
}

#[cfg(not(target_os = "linux"))]
mod sys {
    use std::{io, time::Duration};

    #[derive(Debug)]
    pub(super) struct PacketSocket;

    impl PacketSocket {
        pub(super) fn open(_: bool, _: u16) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn take(&self, _: &mut dyn FnMut(&[u8], Duration)) -> io::Result<()> {
            Ok(())
        }

        pub(super) fn clear(&self) -> io::Result<()> {
            Ok(())
        }

        pub(super) fn listen(&self, _: bool) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of IPv4 and TCP, without options but with this many bytes of data.
    fn packet(sequence: u32, flags: u8, bytes: u16) -> Vec<u8> {
        let mut headers = vec![0; 40];
        headers[0] = 0x45;
        headers[2..4].copy_from_slice(&(40 + bytes).to_be_bytes());
        headers[12..16].copy_from_slice(&[127, 0, 0, 1]);
        headers[20..22].copy_from_slice(&8000_u16.to_be_bytes());
        headers[22..24].copy_from_slice(&40_000_u16.to_be_bytes());
        headers[24..28].copy_from_slice(&sequence.to_be_bytes());
        headers[32] = 0x50;
        headers[33] = flags;
        headers
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A flow that begins at this sequence number, with these packets: their offsets, lengths and
    /// times.
    fn flow(first: u32, packets: &[(u32, u16, u64)]) -> TappedFlow {
        let mut flow = TappedFlow::default();
        let parse = |headers: &[u8]| Packet::parse(headers).expect("a packet");
        flow.take(&parse(&packet(first.wrapping_sub(1), 0x12, 0)), ms(0));
        for (offset, bytes, at) in packets {
            flow.take(&parse(&packet(first.wrapping_add(*offset), 0x18, *bytes)), ms(*at));
        }
        flow
    }

    #[test]
    fn headers_say_whose_bytes_they_are() {
        let packet = Packet::parse(&packet(7, 0x18, 100)).expect("a packet");
        assert_eq!(packet.from, IpAddr::from([127, 0, 0, 1]));
        let Packet { to_port, sequence, is_syn, bytes, .. } = packet;
        assert_eq!((to_port, sequence, is_syn, bytes), (40_000, 7, false, 100));
        assert_eq!(Packet::parse(&[0x45; 19]), None);
        assert_eq!(Packet::parse(&[]), None);
    }

    const fn exact(bytes: usize, at: u64) -> ReadSegment {
        ReadSegment { bytes, at: ms(at), is_exact: true }
    }

    const fn between(bytes: usize, at: u64) -> ReadSegment {
        ReadSegment { bytes, at: ms(at), is_exact: false }
    }

    #[test]
    fn a_read_is_divided_where_packets_end_also_when_numbers_wrap() {
        for first in [1000, u32::MAX - 150] {
            let mut flow = flow(first, &[(0, 100, 10), (100, 100, 20), (200, 50, 30)]);
            let pieces = vec![exact(100, 10), exact(100, 20), exact(50, 30)];
            assert_eq!(flow.pieces(0, 250, ms(30)), Some(pieces));
            assert!(flow.packets.is_empty());
        }
    }

    #[test]
    fn a_packet_that_two_reads_share_is_in_both() {
        let mut flow = flow(5, &[(0, 100, 10), (100, 100, 20)]);
        assert_eq!(flow.pieces(0, 150, ms(20)), Some(vec![exact(100, 10), exact(50, 20)]));
        flow.read = 150;
        assert_eq!(flow.pieces(150, 200, ms(20)), Some(vec![exact(50, 20)]));
    }

    #[test]
    fn what_was_sent_twice_arrived_the_first_time() {
        let mut flow = flow(5, &[(0, 100, 10), (0, 100, 15), (100, 10, 20)]);
        assert_eq!(flow.pieces(0, 110, ms(20)), Some(vec![exact(100, 10), exact(10, 20)]));
    }

    #[test]
    fn what_is_not_known_arrived_between_the_packets_around_it() {
        let packets = [(0, 100, 10), (150, 50, 20)];
        let pieces = vec![exact(100, 10), between(100, 20)];
        assert_eq!(flow(5, &packets).pieces(0, 200, ms(20)), Some(pieces));
        let pieces = vec![between(200, 10)];
        assert_eq!(flow(5, &[(100, 100, 10)]).pieces(0, 200, ms(10)), Some(pieces));
        // The hole is inside: its packet's last byte is exact, and so is the packet behind.
        let packets = [(100, 100, 10), (200, 50, 30)];
        let pieces = vec![between(200, 10), exact(50, 30)];
        assert_eq!(flow(5, &packets).pieces(0, 250, ms(30)), Some(pieces));
        let packets = [(0, 100, 10), (150, 50, 20)];
        // The tap was full when the rest came.
        assert_eq!(flow(5, &packets[..1]).pieces(0, 200, ms(20)), Some(vec![exact(100, 10)]));
        assert_eq!(TappedFlow::default().pieces(0, 100, ms(11)), None);
    }

    #[test]
    fn what_came_before_a_lost_packet_was_handed_over_after_it() {
        // The first packet was lost and sent again at 300; the kernel's stamp is the early one.
        let packets = [(100, 100, 100), (0, 100, 300), (200, 50, 400)];
        let pieces = vec![exact(100, 300), exact(100, 300)];
        assert_eq!(flow(5, &packets[..2]).pieces(0, 200, ms(100)), Some(pieces));
        let pieces = vec![exact(100, 300), exact(100, 300), exact(50, 400)];
        assert_eq!(flow(5, &packets).pieces(0, 250, ms(400)), Some(pieces));
    }

    #[test]
    fn the_last_packet_has_the_stamp_of_the_read_or_nothing_is_known() {
        let packets = [(0, 100, 10), (100, 100, 20)];
        for stamp in [ms(20) + EARLIER, ms(20) - LATER] {
            let last = ReadSegment { at: stamp, ..exact(100, 0) };
            assert_eq!(flow(5, &packets).pieces(0, 200, stamp), Some(vec![exact(100, 10), last]));
        }
        for stamp in [ms(21) + EARLIER, ms(19) - LATER] {
            assert_eq!(flow(5, &packets).pieces(0, 200, stamp), None);
        }
        // The tap saw all of it later than the stream's socket, which is right.
        let packets = [(0, 100, 21), (100, 100, 22)];
        let pieces = vec![exact(100, 20), exact(100, 20)];
        assert_eq!(flow(5, &packets).pieces(0, 200, ms(20)), Some(pieces));
    }

    #[test]
    fn a_connection_that_is_not_seen_to_begin_is_known_to_be_blind() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut tap = Tap::of(Vec::new());
        tap.follow(0, at(40_000), at(8000));
        assert!(!tap.connected(0), "no connection is seen");
        assert!(!tap.covers_all() && !tap.always_listened());
        // Its packets are no longer waited for.
        assert!(!tap.flows[0].begins());
        tap.forget(0);
        assert!(tap.covers_all());
        tap.follow(1, at(40_001), at(8000));
        tap.flows[1].first = Some(7);
        assert!(tap.connected(1));
        tap.follow(0, at(40_002), at(8000));
        assert!(tap.connected(0), "others are seen");
        assert!(!tap.covers_all());
        // A connection that failed, or has no port, sends no packets.
        tap.forget(0);
        tap.forget(9);
        assert!(tap.connected(0) && tap.connected(9));
        assert!(tap.covers_all() && !tap.flows.iter().any(TappedFlow::begins));
    }

    #[test]
    fn a_port_that_another_lane_has_by_now_stays_its_own() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut tap = Tap::of(Vec::new());
        tap.follow(0, at(40_000), at(8000));
        tap.follow(1, at(40_000), at(8000));
        tap.follow(0, at(40_001), at(8000));
        let key = |port| tap.keys.get(&(IpAddr::from([127, 0, 0, 1]), port)).copied();
        assert_eq!((key(40_000), key(40_001)), (Some(1), Some(0)));
    }

    /// A server on the loopback that writes twice, `apart` from one another; and our end, which has
    /// read nothing.
    #[cfg(target_os = "linux")]
    fn two_writes(address: &str, apart: Duration) -> Option<(Tap, std::net::TcpStream)> {
        use std::{io::Write as _, net};
        let listener = net::TcpListener::bind(address).ok()?;
        let address = listener.local_addr().expect("a port");
        // Without CAP_NET_RAW there is nothing to try.
        let mut tap = Tap::open(&[address]).ok()?;
        let ours = net::TcpStream::connect(address).expect("a connection");
        tap.follow(0, ours.local_addr().expect("a port"), address);
        let (mut theirs, _) = listener.accept().expect("a connection");
        theirs.set_nodelay(true).expect("a socket");
        theirs.write_all(b"one\n").expect("a write");
        std::thread::sleep(apart);
        theirs.write_all(b"three\n").expect("a write");
        Some((tap, ours))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_late_read_is_divided_over_ipv4_and_ipv6() {
        use crate::socket::{Stamping, TimedSocket};
        let apart = ms(20);
        // The kernel takes a while to begin.
        let _stamping = Stamping::begin().expect("a socket");
        std::thread::sleep(ms(20));
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let Some((mut tap, ours)) = two_writes(address, apart) else { continue };
            let mut socket = TimedSocket::of(ours).expect("a socket");
            // The tap may see a packet a little later.
            std::thread::sleep(ms(20));
            let read = socket.read(&mut [0; 64]).expect("a read");
            assert_eq!(read.bytes, 10);
            let stamp = read.arrived.expect("a stamp");
            let pieces = tap.divide(0, (10, 10), stamp).expect("pieces");
            let [first, second] = pieces[..] else { panic!("{pieces:?}") };
            assert_eq!((first.bytes, second.bytes), (4, 6));
            assert!(first.is_exact && second.is_exact);
            assert_eq!(second.at, stamp);
            // The first waited while the second was not written.
            assert!(second.at - first.at + LATER >= apart, "{pieces:?}");
            // What is thrown away is not known any more.
            tap.sockets.iter().for_each(|socket| socket.clear().expect("a tap"));
            assert_eq!(tap.divide(0, (10, 10), stamp), None);
        }
    }
}
