//! Captures the server's packets with their arrival times, by a packet socket: packet(7).
//!
//! **Why.** A read of a stream's socket has one timestamp, that of its last segment. A client that
//! reads late gets several segments at once, and the times of the earlier ones are lost, because the
//! kernel merges segments in the receive queue. A packet socket keeps each packet with its
//! timestamp. It requires CAP_NET_RAW.
//!
//! **How.** The stream's socket remains the source of the bytes and of the last timestamp. The tap
//! only splits a read by arrival times. It maps packets to bytes by TCP sequence numbers, which
//! count from the SYN-ACK, so the tap is opened before the connections. Three rules keep the times
//! correct:
//! - Bytes without a packet, because the buffer was full or the packet is captured a little later,
//!   arrived between their neighbours.
//! - TCP delivers in order: bytes that arrived before a lost packet count from its retransmission.
//! - If the timestamps of the last packet and of the read differ, nothing is split.
//!
//! **Cost.** While the client reads in time, the packets are discarded unread, which costs half as
//! much as reading them. While the client is idle, a filter drops them in the kernel: it matches only
//! the server's port, which other clients may use. Outgoing packets are not captured, so packets on
//! the loopback interface are not seen twice.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::server_address::ServerAddress;

/// Bytes that are read of a packet: the longest headers of IPv4 and TCP.
const HEADERS: usize = 120;

/// Reads after which the waiting packets are discarded, so that the buffer has room for the packets
/// of a delay.
const WAITING: usize = 256;

/// Identifies a connection: the server's address and the local port.
type FlowKey = (IpAddr, u16);

/// The time by which a packet's timestamp may precede that of the read which the packet ends: on the
/// loopback, the kernel stamps a packet for each socket.
const EARLIER: Duration = Duration::from_micros(300);

/// The time by which it may follow: the kernel may be interrupted between the two sockets.
const LATER: Duration = Duration::from_millis(5);

/// Attempts to read the last packet of a read, which may reach the tap a little later.
const TRIES: usize = 8;

/// The servers whose packets could not be captured, by host and port.
static UNSEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Notes that the packets of a server cannot be captured.
pub(super) fn lose(server: &ServerAddress) {
    UNSEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_string());
}

/// Whether the packets of a server could not be captured.
pub(super) fn is_lost(server: &ServerAddress) -> bool {
    UNSEEN.lock().unwrap_or_else(PoisonError::into_inner).contains(&server.to_string())
}

/// A part of a read with its own arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadSegment {
    pub(super) bytes: usize,
    /// The arrival of the last byte at the latest, by the wall clock.
    pub(super) at: Duration,
    /// Whether all bytes arrived at `at`; otherwise only the last one did, and the others after the
    /// segment before.
    pub(super) is_exact: bool,
}

/// Captures the packets of some connections to one server.
#[derive(Debug)]
pub(super) struct Tap {
    sockets: Vec<sys::PacketSocket>,
    /// Indices into `flows`.
    keys: HashMap<FlowKey, usize>,
    flows: Vec<TappedFlow>,
    /// Whether all packets are captured, not only SYN packets.
    listens: bool,
    /// Whether all packets were captured the whole time the client was in use.
    listened: bool,
    /// The number of connections whose SYN packet was missed.
    blind: usize,
    /// Whether the SYN packet of any connection was captured.
    has_seen: bool,
    /// Reads since the tap was last emptied.
    waiting: usize,
    /// Reads that could be split, and reads that could not.
    found: usize,
    missed: usize,
}

/// The packets of one connection that are still needed.
#[derive(Debug, Default)]
struct TappedFlow {
    key: Option<FlowKey>,
    /// The sequence number of the first byte.
    first: Option<u32>,
    /// Whether the SYN packet was missed, so that no byte can be mapped.
    is_blind: bool,
    /// Bytes that the stream's socket has read; their packets are not needed any more.
    read: u64,
    packets: VecDeque<Arrived>,
}

/// A packet: its range of bytes, counted from the connection's first byte, and its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arrived {
    from: u64,
    to: u64,
    at: Duration,
}

impl Tap {
    /// Captures packets from the ports of these addresses.
    pub(super) fn open(addresses: &[SocketAddr]) -> io::Result<Self> {
        let of = |is_v6: bool| {
            // An IPv4-mapped IPv6 address uses IPv4 packets.
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

    /// Fails if this process may not open a packet socket.
    pub(super) fn check() -> io::Result<()> {
        sys::PacketSocket::open(false, 1).map(drop)
    }

    /// Whether all packets are captured, not only SYN packets.
    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    /// Whether all packets of all connections were captured so far.
    pub(super) fn always_listened(&self) -> bool {
        self.listened
    }

    /// Whether the reads of every connection can be split.
    pub(super) fn covers_all(&self) -> bool {
        self.listens && self.blind == 0
    }

    /// Captures all packets, or SYN packets only. These cost next to nothing and suffice to capture the
    /// others later.
    pub(super) fn listen(&mut self, listens: bool) {
        self.set_filter(listens);
        self.listened &= self.listens;
    }

    /// Resumes before a load. Packets that were captured since the last one belong to other clients.
    pub(super) fn resume(&mut self) {
        self.clear();
        self.set_filter(true);
    }

    /// Pauses after a load: notes the SYN packets, then captures no other packets, which may belong to
    /// other clients and would fill the buffer.
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

    /// Slot `nth` has started to connect from `local` to `peer`.
    pub(super) fn follow(&mut self, nth: usize, local: SocketAddr, peer: SocketAddr) {
        self.flows.resize_with(self.flows.len().max(nth + 1), TappedFlow::default);
        let key = (peer.ip().to_canonical(), local.port());
        self.forget(nth);
        self.keys.insert(key, nth);
        self.flows[nth] = TappedFlow { key: Some(key), ..TappedFlow::default() };
        // Makes room for the SYN packet.
        self.take();
    }

    /// The connection of slot `nth` is gone.
    pub(super) fn forget(&mut self, nth: usize) {
        let Some(flow) = self.flows.get_mut(nth).map(std::mem::take) else { return };
        self.blind -= usize::from(flow.is_blind);
        // Another slot may use the port by now.
        if let Some(key) = flow.key.filter(|key| self.keys.get(key) == Some(&nth)) {
            self.keys.remove(&key);
        }
    }

    /// Slot `nth` is connected. Returns false if no SYN packet was captured so far, as behind address
    /// translation.
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
        // The SYN packet was lost or is not routed here, so the bytes of this connection cannot be
        // counted.
        self.flows[nth].is_blind = true;
        self.blind += 1;
        self.listened = false;
        self.has_seen
    }

    /// Slot `nth` has read this many bytes in all; their packets are not needed any more.
    pub(super) fn note(&mut self, nth: usize, read: u64) {
        if let Some(flow) = self.flows.get_mut(nth) {
            flow.read = read;
        }
        self.waiting += 1;
    }

    /// Empties the buffer now and then. The packets are discarded if every reported socket was read.
    pub(super) fn tidy(&mut self, all_read: bool) {
        if self.waiting < WAITING {
            return;
        }
        // A SYN packet is always needed.
        match all_read && !self.flows.iter().any(TappedFlow::begins) {
            true => self.clear(),
            false => self.take(),
        }
    }

    /// Discards the captured packets. Errors are ignored: the packets then stay.
    fn clear(&mut self) {
        self.waiting = 0;
        self.sockets.iter().for_each(|socket| drop(socket.clear()));
    }

    /// Splits the last `bytes` that slot `nth` has read, `read` in all. `stamp` is the timestamp of the
    /// read. Returns the first segments; `None` if no packet is known.
    pub(super) fn split(
        &mut self,
        nth: usize,
        (bytes, read): (usize, u64),
        stamp: Duration,
    ) -> Option<Vec<ReadSegment>> {
        // The last packet of the read may reach the tap a little later than the stream's socket.
        for _ in 0..TRIES {
            self.take();
            if self.flows.get(nth)?.packets.iter().any(|packet| packet.to >= read) {
                break;
            }
        }
        let flow = self.flows.get_mut(nth)?;
        let segments = flow.segments(read - bytes as u64, read, stamp);
        match segments {
            Some(_) => self.found += 1,
            None => self.missed += 1,
        }
        segments
    }

    /// Whether the packets of most reads are missing, as where the kernel short-cuts two local sockets.
    pub(super) fn is_useless(&self) -> bool {
        self.missed > 8 + self.found
    }

    /// Reads the captured packets.
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
            // Without the packets, reads are not split and keep their bounds.
            let _ = socket.take(&mut sink);
        }
    }
}

impl TappedFlow {
    /// Whether the SYN packet is still expected.
    fn begins(&self) -> bool {
        self.key.is_some() && self.first.is_none() && !self.is_blind
    }

    fn take(&mut self, packet: &Packet, at: Duration) {
        if packet.is_syn {
            self.first = Some(packet.sequence.wrapping_add(1));
            self.packets.clear();
            return;
        }
        // Without the SYN packet, sequence numbers have no origin.
        let Some(first) = self.first else { return };
        // Sequence numbers wrap at 4 GiB, so the signed distance to the bytes read is unambiguous.
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

    /// The first segments of the bytes from `begin` to `end`, whose packets are then dropped.
    ///
    /// Invariant: arrivals do not decrease, because `delivered` holds the latest so far: TCP delivers
    /// no byte before the bytes in front of it.
    fn segments(&mut self, begin: u64, end: u64, stamp: Duration) -> Option<Vec<ReadSegment>> {
        let mut segments: Vec<ReadSegment> = Vec::new();
        let (mut front, mut delivered) = (begin, Duration::ZERO);
        while front < end {
            // Of several packets with the next byte, the first one counts: others are retransmissions.
            let holds = |packet: &&Arrived| packet.from <= front && front < packet.to;
            let follows = |packet: &&Arrived| front < packet.from && packet.from < end;
            let holding = self.packets.iter().find(holds);
            // A hole is one segment with the packet after it: only its last byte has a known arrival.
            let following = || self.packets.iter().filter(follows).min_by_key(|next| next.from);
            let Some(packet) = holding.or_else(following) else { break };
            // The read's timestamp must be the last packet's.
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
            segments.push(ReadSegment { bytes, at: delivered, is_exact: holding.is_some() });
            front = to;
        }
        self.packets.retain(|packet| packet.to > end);
        (!segments.is_empty()).then_some(segments)
    }
}

/// The parsed headers of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    from: IpAddr,
    to_port: u16,
    sequence: u32,
    is_syn: bool,
    bytes: usize,
}

impl Packet {
    /// Parses the headers of IPv4 or IPv6, and of TCP.
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

    /// Size of the kernel's buffer, bytes: some thousand packets, of which each counts as about 1 KiB.
    const BUFFER: usize = 8 << 20;

    /// Most packets of one system call.
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
        /// Captures TCP packets from `port` that have data or SYN.
        pub(super) fn open(is_v6: bool, port: u16) -> io::Result<Self> {
            let kind = if is_v6 { IPV6 } else { IPV4 };
            let protocol = Protocol::from(i32::from(kind.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
            socket.attach_filter(&filter(is_v6, port, true))?;
            setsockopt(&socket, ReceiveTimestampns, &true)?;
            // The first call requires CAP_NET_ADMIN; the second is limited by net.core.rmem_max.
            if setsockopt(&socket, RcvBufForce, &BUFFER).is_err() {
                socket.set_recv_buffer_size(BUFFER)?;
            }
            let tap = Self { socket, is_v6, port };
            // Discards what arrived before the filter was attached.
            tap.take(&mut |_, _| {})?;
            Ok(tap)
        }

        /// Captures packets with data from now on, or SYN packets only.
        pub(super) fn listen(&self, listens: bool) -> io::Result<()> {
            self.socket.attach_filter(&filter(self.is_v6, self.port, listens))
        }

        /// Passes the headers and the arrival of each captured packet to `sink`.
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
        /// Discards the captured packets.
        pub(super) fn clear(&self) -> io::Result<()> {
            let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
            loop {
                // The call writes into the headers, so they cannot be reused.
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

    // Opcodes of classic BPF: bpf(4), linux/filter.h.
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

    /// Accepts TCP packets from `port` that have SYN or, if `with_data`, data. Offsets count from the IP
    /// header; a jump is the number of instructions to skip.
    fn filter(is_v6: bool, port: u16, with_data: bool) -> [SockFilter; 17] {
        let (protocol_at, length_at) = if is_v6 { (6, 4) } else { (9, 2) };
        // The length field of IPv6 excludes its own header.
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
            // X = the length of both headers.
            (LOAD_BYTE_AT_X, 0, 0, 12),
            (SHIFT_RIGHT, 0, 0, 4),
            (SHIFT_LEFT, 0, 0, 2),
            (ADD_X, 0, 0, 0),
            (COPY_TO_X, 0, 0, 0),
            (LOAD_HALF, 0, 0, length_at),
            (ADD, 0, 0, uncounted),
            (IF_GREATER_THAN_X, u8::from(!with_data), 1, 0),
            // Accepts the whole packet: to truncate it costs the kernel a copy.
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

    /// A flow with this first sequence number and packets with these offsets, lengths and times.
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
    fn headers_are_parsed() {
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
    fn a_read_is_split_where_packets_end_also_when_numbers_wrap() {
        for first in [1000, u32::MAX - 150] {
            let mut flow = flow(first, &[(0, 100, 10), (100, 100, 20), (200, 50, 30)]);
            let segments = vec![exact(100, 10), exact(100, 20), exact(50, 30)];
            assert_eq!(flow.segments(0, 250, ms(30)), Some(segments));
            assert!(flow.packets.is_empty());
        }
    }

    #[test]
    fn a_packet_that_two_reads_share_is_in_both() {
        let mut flow = flow(5, &[(0, 100, 10), (100, 100, 20)]);
        assert_eq!(flow.segments(0, 150, ms(20)), Some(vec![exact(100, 10), exact(50, 20)]));
        flow.read = 150;
        assert_eq!(flow.segments(150, 200, ms(20)), Some(vec![exact(50, 20)]));
    }

    #[test]
    fn a_retransmitted_packet_arrived_the_first_time() {
        let mut flow = flow(5, &[(0, 100, 10), (0, 100, 15), (100, 10, 20)]);
        assert_eq!(flow.segments(0, 110, ms(20)), Some(vec![exact(100, 10), exact(10, 20)]));
    }

    #[test]
    fn bytes_without_a_packet_arrived_between_their_neighbours() {
        let packets = [(0, 100, 10), (150, 50, 20)];
        let segments = vec![exact(100, 10), between(100, 20)];
        assert_eq!(flow(5, &packets).segments(0, 200, ms(20)), Some(segments));
        let segments = vec![between(200, 10)];
        assert_eq!(flow(5, &[(100, 100, 10)]).segments(0, 200, ms(10)), Some(segments));
        // A hole in the middle: the packet after it ends at an exact time, and so does the next one.
        let packets = [(100, 100, 10), (200, 50, 30)];
        let segments = vec![between(200, 10), exact(50, 30)];
        assert_eq!(flow(5, &packets).segments(0, 250, ms(30)), Some(segments));
        let packets = [(0, 100, 10), (150, 50, 20)];
        // The buffer was full when the rest arrived.
        assert_eq!(flow(5, &packets[..1]).segments(0, 200, ms(20)), Some(vec![exact(100, 10)]));
        assert_eq!(TappedFlow::default().segments(0, 100, ms(11)), None);
    }

    #[test]
    fn bytes_before_a_lost_packet_are_delivered_after_its_retransmission() {
        // The first packet was lost and retransmitted at 300; the kernel's timestamp is the early one.
        let packets = [(100, 100, 100), (0, 100, 300), (200, 50, 400)];
        let segments = vec![exact(100, 300), exact(100, 300)];
        assert_eq!(flow(5, &packets[..2]).segments(0, 200, ms(100)), Some(segments));
        let segments = vec![exact(100, 300), exact(100, 300), exact(50, 400)];
        assert_eq!(flow(5, &packets).segments(0, 250, ms(400)), Some(segments));
    }

    #[test]
    fn a_read_is_not_split_if_the_last_packet_has_another_timestamp() {
        let packets = [(0, 100, 10), (100, 100, 20)];
        for stamp in [ms(20) + EARLIER, ms(20) - LATER] {
            let last = ReadSegment { at: stamp, ..exact(100, 0) };
            assert_eq!(flow(5, &packets).segments(0, 200, stamp), Some(vec![exact(100, 10), last]));
        }
        for stamp in [ms(21) + EARLIER, ms(19) - LATER] {
            assert_eq!(flow(5, &packets).segments(0, 200, stamp), None);
        }
        // The tap captured all packets after the stream's socket, whose timestamp is correct.
        let packets = [(0, 100, 21), (100, 100, 22)];
        let segments = vec![exact(100, 20), exact(100, 20)];
        assert_eq!(flow(5, &packets).segments(0, 200, ms(20)), Some(segments));
    }

    #[test]
    fn a_connection_without_a_syn_packet_is_blind() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut tap = Tap::of(Vec::new());
        tap.follow(0, at(40_000), at(8000));
        assert!(!tap.connected(0), "no SYN packet was captured");
        assert!(!tap.covers_all() && !tap.always_listened());
        // Its SYN packet is not expected any more.
        assert!(!tap.flows[0].begins());
        tap.forget(0);
        assert!(tap.covers_all());
        tap.follow(1, at(40_001), at(8000));
        tap.flows[1].first = Some(7);
        assert!(tap.connected(1));
        tap.follow(0, at(40_002), at(8000));
        assert!(tap.connected(0), "another SYN packet was captured");
        assert!(!tap.covers_all());
        // A failed connection and a Unix socket have no packets.
        tap.forget(0);
        tap.forget(9);
        assert!(tap.connected(0) && tap.connected(9));
        assert!(tap.covers_all() && !tap.flows.iter().any(TappedFlow::begins));
    }

    #[test]
    fn a_port_that_another_slot_reuses_belongs_to_it() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut tap = Tap::of(Vec::new());
        tap.follow(0, at(40_000), at(8000));
        tap.follow(1, at(40_000), at(8000));
        tap.follow(0, at(40_001), at(8000));
        let key = |port| tap.keys.get(&(IpAddr::from([127, 0, 0, 1]), port)).copied();
        assert_eq!((key(40_000), key(40_001)), (Some(1), Some(0)));
    }

    /// A loopback connection whose server has written twice, `apart` in time. The client has read nothing.
    #[cfg(target_os = "linux")]
    fn two_writes(address: &str, apart: Duration) -> Option<(Tap, std::net::TcpStream)> {
        use std::{io::Write as _, net};
        let listener = net::TcpListener::bind(address).ok()?;
        let address = listener.local_addr().expect("a port");
        // Without CAP_NET_RAW there is nothing to test.
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
    fn a_late_read_is_split_over_ipv4_and_ipv6() {
        use crate::socket::{Stamping, TimedSocket};
        let apart = ms(20);
        // The kernel needs about a millisecond to start.
        let _stamping = Stamping::begin().expect("a socket");
        std::thread::sleep(ms(20));
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let Some((mut tap, ours)) = two_writes(address, apart) else { continue };
            let mut socket = TimedSocket::of(ours).expect("a socket");
            // A packet may reach the tap a little later.
            std::thread::sleep(ms(20));
            let read = socket.read(&mut [0; 64]).expect("a read");
            assert_eq!(read.bytes, 10);
            let stamp = read.arrived.expect("a stamp");
            let segments = tap.split(0, (10, 10), stamp).expect("segments");
            let [first, second] = segments[..] else { panic!("{segments:?}") };
            assert_eq!((first.bytes, second.bytes), (4, 6));
            assert!(first.is_exact && second.is_exact);
            assert_eq!(second.at, stamp);
            // The read took both writes, and their times are those of the writes.
            assert!(second.at - first.at + LATER >= apart, "{segments:?}");
            // Discarded packets are unknown.
            tap.sockets.iter().for_each(|socket| socket.clear().expect("a tap"));
            assert_eq!(tap.split(0, (10, 10), stamp), None);
        }
    }
}
