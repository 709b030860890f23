//! Builds the recording of one response while its bytes arrive.
//!
//! Parses only HTTP framing, and gives each chunk the bounds of its arrival.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::header;
use llm_stream_core::recording::{
    self, Chunk, MemoryHold, Recording, RequestError, StampedBy, Uncertainty,
};

use crate::{
    BODY_LIMIT, broke_off,
    clock::{Now, moment},
    ending::is_refusal_over,
    http1::{ResponseHead, ResponseReader},
    memory::{MemoryBudget, MemoryCharge},
    tap::ReadSegment,
    too_long, unreadable,
};

/// Limits of the block that chunks share, bytes.
const SMALLEST_BLOCK: usize = 1 << 10;
const LARGEST_BLOCK: usize = 64 << 10;

/// The response that is being received.
pub(super) struct Incoming {
    origin: Instant,
    pub(super) reader: ResponseReader,
    body: BytesMut,
    received: usize,
    pub(super) chunks: Vec<Chunk>,
    headers_at: Option<Duration>,
    pub(super) last_read: Duration,
    uncertainty: Uncertainty,
    stamped_by: StampedBy,
    /// Whether the connection has ended, or bytes followed the answer: it cannot be reused.
    leftover: bool,
    /// Whether the connection ended without `close_notify`, so that an attacker may have cut it.
    is_cut: bool,
    charge: MemoryCharge,
}

/// The arrival of a read, with bounds and the source of the timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The arrival of the last byte, at the latest.
    pub(super) at: Instant,
    /// The lower bound of all bytes: the socket was empty.
    pub(super) since: Instant,
    pub(super) by: StampedBy,
    /// Whether the last byte arrived at `at`, rather than between `since` and `at`.
    pub(super) is_exact: bool,
}

/// The distance of the bounds above which a read with several events is split at its packets.
const LATE: Duration = Duration::from_micros(250);

/// The time by which a correct timestamp can precede the lower bound: the kernel stamps a packet
/// before the socket receives it.
const HANDED_ON: Duration = Duration::from_millis(3);

impl Arrival {
    /// The arrival of a read that ended `now`. A kernel timestamp before the lower bound is wrong and
    /// is replaced by `now`.
    pub(super) fn new(stamp: Option<Duration>, since: Instant, now: Now) -> Self {
        let by = if stamp.is_some() { StampedBy::Kernel } else { StampedBy::Program };
        let stamped = stamp.map(|stamp| moment(stamp, now));
        match stamped.filter(|at| *at + HANDED_ON >= since) {
            Some(at) => Self { at, since, by, is_exact: true },
            None => Self { at: now.monotonic, since, by, is_exact: false },
        }
    }

    /// The arrivals of a read's first segments, with their lengths. Empty if one precedes the lower
    /// bound: then the packets are not those of the read.
    pub(super) fn of_segments(
        segments: &[ReadSegment],
        since: Instant,
        now: Now,
    ) -> Vec<(usize, Self)> {
        let mut before = since;
        let mut arrivals = Vec::with_capacity(segments.len());
        for segment in segments {
            let at = moment(segment.at, now);
            if at + HANDED_ON < since {
                return Vec::new();
            }
            let since = if segment.is_exact { at } else { before };
            let arrival = Self { at, since, by: StampedBy::Kernel, is_exact: true };
            arrivals.push((segment.bytes, arrival));
            before = at;
        }
        arrivals
    }

    /// Whether the kernel gave a timestamp that cannot be true.
    pub(super) fn is_doubtful(&self) -> bool {
        self.by == StampedBy::Kernel && !self.is_exact
    }

    /// Whether parts of the read may have arrived so much earlier that splitting it is worth it.
    pub(super) fn is_late(&self) -> bool {
        self.at.saturating_duration_since(self.since) > LATE
    }
}

/// The duration of a connection's setup.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetUp {
    /// DNS, TCP and TLS.
    pub(super) total: Duration,
    /// TLS alone.
    pub(super) tls: Option<Duration>,
}

impl Incoming {
    pub(super) fn new(origin: Instant, memory: &MemoryBudget) -> Self {
        Self {
            charge: MemoryCharge::new(memory),
            origin,
            reader: ResponseReader::new(),
            body: BytesMut::new(),
            received: 0,
            chunks: Vec::new(),
            headers_at: None,
            last_read: Duration::ZERO,
            uncertainty: Uncertainty::default(),
            stamped_by: StampedBy::Kernel,
            leftover: false,
            is_cut: false,
        }
    }

    /// The arrival as time since the request, never before the previous one. Two reads of one packet
    /// share a timestamp, but each maps it with its own reading of the clocks.
    fn since_start(&self, arrival: Arrival) -> Duration {
        arrival.at.saturating_duration_since(self.origin).max(self.last_read)
    }

    /// The distance of an arrival to its lower bound.
    fn uncertainty(&self, arrival: Arrival) -> Duration {
        let since = arrival.since.saturating_duration_since(self.origin);
        self.since_start(arrival).saturating_sub(since)
    }

    /// The uncertainty of the last byte of a read: none with a plausible kernel timestamp.
    fn uncertainty_of_last(&self, arrival: Arrival) -> Duration {
        match arrival.is_exact {
            true => Duration::ZERO,
            false => self.uncertainty(arrival),
        }
    }

    /// Parses bytes of a read. Their part of the body is kept also if an error follows.
    pub(super) fn take(&mut self, bytes: &[u8], arrival: Arrival) -> Result<(), RequestError> {
        self.charge.add(bytes.len())?;
        self.make_room(bytes.len());
        let before = self.body.len();
        let taken = self.reader.push(bytes, &mut self.body);
        if self.headers_at.is_none() && self.reader.head().is_some() {
            self.headers_at = Some(self.since_start(arrival));
            // If nothing follows the head, its end is the last byte of the read.
            let is_last = self.body.is_empty() && bytes.ends_with(b"\n\r\n");
            self.uncertainty.headers = match is_last {
                true => self.uncertainty_of_last(arrival),
                false => self.uncertainty(arrival),
            };
        }
        self.received += self.body.len() - before;
        if let Some(over) = self.received.checked_sub(BODY_LIMIT).filter(|&over| over > 0) {
            self.body.truncate(self.body.len() - over);
            return Err(too_long());
        }
        let taken = taken.map_err(|error| unreadable(self.has_begun(), error))?;
        self.leftover |= taken < bytes.len();
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.reader.head().is_some()
    }

    /// Allocates a block for the next chunks, as large as the body so far. So few chunks need an
    /// allocation, and little of the last block is unused.
    fn make_room(&mut self, bytes: usize) {
        if self.body.is_empty() && self.body.capacity() < bytes {
            let block = self.received.clamp(SMALLEST_BLOCK, LARGEST_BLOCK);
            self.body = BytesMut::with_capacity(block.max(bytes));
        }
    }

    /// Ends a read: its part of the body becomes one chunk, since it has one timestamp.
    ///
    /// One program timestamp makes the whole recording program-timed. The head does not count: the
    /// kernel starts to stamp about a millisecond after the first socket requests it.
    pub(super) fn end_read(&mut self, arrival: Arrival) {
        let uncertainty = self.uncertainty(arrival);
        self.uncertainty.end = self.uncertainty_of_last(arrival);
        self.last_read = self.since_start(arrival);
        if !self.body.is_empty() {
            if arrival.by == StampedBy::Program {
                self.stamped_by = StampedBy::Program;
            }
            if arrival.is_doubtful() {
                self.uncertainty.last_bytes = self.uncertainty.last_bytes.max(uncertainty);
            }
            let (at, bytes) = (self.last_read, self.body.split().freeze());
            self.chunks.push(Chunk { at, uncertainty, bytes });
        }
    }

    /// Whether this is an HTTP error that counts as complete.
    pub(super) fn is_refusal_over(&self, now: Duration) -> bool {
        let head = self.reader.head();
        head.is_some_and(|head| is_refusal_over(head.status, self.last_read, now))
    }

    /// Whether the connection can carry another request.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.leftover && self.reader.keeps_alive()
    }

    /// Notes that the server has closed, which ends a body without length or chunks.
    pub(super) fn close(&mut self, arrival: Arrival) -> Result<(), RequestError> {
        self.leftover = true;
        self.uncertainty.end = self.uncertainty_of_last(arrival);
        self.last_read = self.since_start(arrival);
        self.reader.close().map_err(|error| unreadable(self.has_begun(), error))
    }

    /// Notes that a TLS connection ended without `close_notify`, so that an attacker may have cut it. A
    /// body with a length or chunks is then incomplete; for another, see [`confirm`](Self::confirm).
    pub(super) fn cut(&mut self, arrival: Arrival) -> Result<(), RequestError> {
        self.is_cut = !self.reader.is_done();
        match self.is_cut && !self.reader.lasts_until_close() {
            true => Err(self.unsealed()),
            false => self.close(arrival),
        }
    }

    /// Fails if the connection was cut and the answer has no end marker of its protocol.
    pub(super) fn confirm(&self, has_ended: impl Fn(&[Chunk]) -> bool) -> Result<(), RequestError> {
        match self.is_cut && !has_ended(&self.chunks) {
            true => Err(self.unsealed()),
            false => Ok(()),
        }
    }

    fn unsealed(&self) -> RequestError {
        self.broken(&"it was closed without TLS close_notify")
    }

    pub(super) fn broken(&self, cause: &dyn fmt::Display) -> RequestError {
        broke_off(self.has_begun(), cause)
    }

    pub(super) fn into_recording(
        mut self,
        set_up: Option<SetUp>,
        sent: Option<Duration>,
        ended_at: Duration,
        broken: Option<RequestError>,
    ) -> Result<Recording, RequestError> {
        self.charge.end(&mut self.chunks, broken.as_ref());
        let Some(ResponseHead { status, version, headers }) = self.reader.head() else {
            return Err(broken.unwrap_or_else(|| self.broken(&"no bytes arrived")));
        };
        Ok(Recording {
            origin: Some(self.origin),
            status: status.as_u16(),
            content_type: recording::header_text(headers, header::CONTENT_TYPE),
            content_encoding: recording::header_text(headers, header::CONTENT_ENCODING),
            retry_after: recording::retry_after(headers),
            server: recording::header_text(headers, header::SERVER),
            http_version: format!("{version:?}"),
            head_time: recording::head_time(headers),
            connect: set_up.map(|set_up| set_up.total),
            tls: set_up.and_then(|set_up| set_up.tls),
            sent,
            headers_at: self.headers_at.unwrap_or_default(),
            chunks: self.chunks,
            ended_at,
            stamped_by: self.stamped_by,
            uncertainty: self.uncertainty,
            broken,
            hold: MemoryHold::new(self.charge),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A read 500 ms after some moment; the socket was empty after `since` ms.
    fn arrival(stamp: Option<u64>, since: u64) -> (Arrival, u64, u64) {
        let now = socket::now();
        let begin = now.monotonic - ms(500);
        let stamp = stamp.map(|stamp| now.wall - ms(500 - stamp));
        let arrival = Arrival::new(stamp, begin + ms(since), now);
        let at = |time: Instant| (time - begin).as_millis() as u64;
        (arrival, at(arrival.at), at(arrival.since))
    }

    #[test]
    fn a_stamp_of_before_the_socket_was_empty_is_not_the_arrival() {
        let cases = [
            // Stamp, when the socket was empty; arrival, its lower bound, whether it is exact.
            (Some(400), 300, (400, 300, true)),
            (Some(400), 402, (400, 402, true)),
            (Some(100), 300, (500, 300, false)),
            (Some(100), 104, (500, 104, false)),
            (None, 300, (500, 300, false)),
        ];
        for (stamp, since, expected) in cases {
            let (arrival, at, from) = arrival(stamp, since);
            assert_eq!((at, from, arrival.is_exact), expected, "{stamp:?} {since}");
            assert_eq!(arrival.is_doubtful(), stamp.is_some() && !arrival.is_exact);
        }
    }

    #[test]
    fn segments_are_believed_unless_they_are_older_than_the_read() {
        let now = socket::now();
        let begin = now.monotonic - ms(500);
        let segment =
            |at: u64, is_exact| ReadSegment { bytes: 10, at: now.wall - ms(500 - at), is_exact };
        let of = |segments: &[ReadSegment]| {
            let arrivals = Arrival::of_segments(segments, begin + ms(100), now);
            let at = |time: Instant| (time - begin).as_millis() as u64;
            let bounds = |(_, arrival): &(usize, Arrival)| (at(arrival.since), at(arrival.at));
            arrivals.iter().map(bounds).collect::<Vec<_>>()
        };
        let known = [segment(200, true), segment(300, false), segment(400, true)];
        assert_eq!(of(&known), [(200, 200), (200, 300), (400, 400)]);
        assert_eq!(of(&[segment(200, false)]), [(100, 200)]);
        assert_eq!(of(&[segment(90, true), segment(200, true)]), []);
    }

    #[test]
    fn a_doubtful_stamp_is_in_the_recording_and_headers_keep_their_own_bounds() {
        let origin = socket::now().monotonic;
        let read = |incoming: &mut Incoming, bytes: &[u8], (since, at), is_exact| {
            let (at, since) = (origin + ms(at), origin + ms(since));
            let arrival = Arrival { at, since, by: StampedBy::Kernel, is_exact };
            incoming.take(bytes, arrival).expect("HTTP");
            incoming.end_read(arrival);
        };
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let with_size = [&head[..], b"5\r\n"].concat();
        // The first read, and the uncertainty of the headers; a chunk size may follow alone.
        for (first, headers) in [(&head[..], ms(0)), (&with_size, ms(30))] {
            let mut incoming = Incoming::new(origin, &MemoryBudget::default());
            read(&mut incoming, first, (10, 40), true);
            let size: &[u8] = if headers.is_zero() { b"5\r\n" } else { b"" };
            read(&mut incoming, size, (50, 90), true);
            assert_eq!(incoming.uncertainty.headers, headers);
            read(&mut incoming, b"hello\r\n", (100, 104), true);
            assert_eq!(incoming.uncertainty.last_bytes, ms(0));
            read(&mut incoming, b"2\r\nhi\r\n", (200, 205), false);
            assert_eq!(incoming.uncertainty.last_bytes, ms(5));
            assert_eq!(incoming.stamped_by, StampedBy::Kernel);
        }
    }
}
