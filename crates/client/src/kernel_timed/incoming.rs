//! A response as it comes in.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::header;
use llm_stream_core::recording::{self, Chunk, Recording, RequestError, StampedBy, Uncertainty};

use crate::{
    BODY_LIMIT, broke_off,
    clock::{Now, moment},
    ending::is_refusal_over,
    http1::{ResponseHead, ResponseReader},
    tap::ReadSegment,
    too_long, unreadable,
};

/// How much of a body's chunks is allocated at once, bytes.
const SMALLEST_BLOCK: usize = 1 << 10;
const LARGEST_BLOCK: usize = 64 << 10;

/// A response as it comes in.
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
    /// Bytes after the answer's end, or the connection's end: it is not to be used again.
    leftover: bool,
    /// Whether the connection's end is the answer's, and anyone could have made it.
    is_cut: bool,
}

/// When a read's bytes came, and whose clock says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// When the last of them came.
    pub(super) at: Instant,
    /// None of them came before this moment: the socket was empty.
    pub(super) since: Instant,
    pub(super) by: StampedBy,
    /// Whether the last of them came at `at`, rather than between `since` and `at`.
    pub(super) is_exact: bool,
}

/// A read may have been so late that its packets are looked up, if it holds several events.
const LATE: Duration = Duration::from_micros(250);

/// How long before a socket was empty a stamp of what it then got can be: the kernel takes a stamp
/// before it hands the packet on.
const HANDED_ON: Duration = Duration::from_millis(3);

impl Arrival {
    /// Of a read that ended `now`, with this stamp of the kernel, if any.
    pub(super) fn new(stamp: Option<Duration>, since: Instant, now: Now) -> Self {
        let by = if stamp.is_some() { StampedBy::Kernel } else { StampedBy::Program };
        let stamped = stamp.map(|stamp| moment(stamp, now));
        match stamped.filter(|at| *at + HANDED_ON >= since) {
            Some(at) => Self { at, since, by, is_exact: true },
            None => Self { at: now.monotonic, since, by, is_exact: false },
        }
    }

    /// Of the first parts of such a read; none if a stamp is of before the read.
    pub(super) fn of_pieces(
        pieces: &[ReadSegment],
        since: Instant,
        now: Now,
    ) -> Vec<(usize, Self)> {
        let mut before = since;
        let mut arrivals = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let at = moment(piece.at, now);
            if at + HANDED_ON < since {
                return Vec::new();
            }
            let since = if piece.is_exact { at } else { before };
            let arrival = Self { at, since, by: StampedBy::Kernel, is_exact: true };
            arrivals.push((piece.bytes, arrival));
            before = at;
        }
        arrivals
    }

    /// Whether the kernel's stamp cannot be true.
    pub(super) fn is_doubtful(&self) -> bool {
        self.by == StampedBy::Kernel && !self.is_exact
    }

    /// Whether parts of the read may have arrived so much before its stamp that their packets are
    /// looked up.
    pub(super) fn is_late(&self) -> bool {
        self.at.saturating_duration_since(self.since) > LATE
    }
}

/// A connection's set-up.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetUp {
    /// DNS, TCP and TLS.
    pub(super) total: Duration,
    /// TLS alone.
    pub(super) tls: Option<Duration>,
}

impl Incoming {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
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

    /// The arrival of the next read, as time since the start. Reads of what came in one piece share
    /// a stamp, and each is moved by clocks of its own: time must not run backwards for that.
    fn since_start(&self, arrival: Arrival) -> Duration {
        arrival.at.saturating_duration_since(self.origin).max(self.last_read)
    }

    /// How long before it an arrival can have been.
    fn uncertainty(&self, arrival: Arrival) -> Duration {
        let since = arrival.since.saturating_duration_since(self.origin);
        self.since_start(arrival).saturating_sub(since)
    }

    /// The same of the last byte of a read: a kernel's stamp that can be true is its arrival.
    fn uncertainty_of_last(&self, arrival: Arrival) -> Duration {
        match arrival.is_exact {
            true => Duration::ZERO,
            false => self.uncertainty(arrival),
        }
    }

    /// Takes a piece of a read. What of it is body is kept also when an error follows.
    pub(super) fn take(&mut self, bytes: &[u8], arrival: Arrival) -> Result<(), RequestError> {
        self.make_room(bytes.len());
        let before = self.body.len();
        let taken = self.reader.push(bytes, &mut self.body);
        if self.headers_at.is_none() && self.reader.head().is_some() {
            self.headers_at = Some(self.since_start(arrival));
            // Where nothing follows the headers, their end is the last byte.
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

    /// Begins a block that the next chunks share, as large as what came before: a chunk has no
    /// allocation of its own, and little is left over at the end.
    fn make_room(&mut self, bytes: usize) {
        if self.body.is_empty() && self.body.capacity() < bytes {
            let block = self.received.clamp(SMALLEST_BLOCK, LARGEST_BLOCK);
            self.body = BytesMut::with_capacity(block.max(bytes));
        }
    }

    /// All that a read brought of the body is one chunk: it has one stamp.
    ///
    /// Whoever stamped the worst of them stamped the answer. The head does not count: the kernel
    /// takes about a millisecond to begin, after the first socket has asked.
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

    /// Whether this is a refusal of which nothing more is waited for.
    pub(super) fn is_refusal_over(&self, now: Duration) -> bool {
        let head = self.reader.head();
        head.is_some_and(|head| is_refusal_over(head.status, self.last_read, now))
    }

    /// Whether the connection may carry another request.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.leftover && self.reader.keeps_alive()
    }

    /// The server has closed: the end of a body that says of no other.
    pub(super) fn close(&mut self, arrival: Arrival) -> Result<(), RequestError> {
        self.leftover = true;
        self.uncertainty.end = self.uncertainty_of_last(arrival);
        self.last_read = self.since_start(arrival);
        self.reader.close().map_err(|error| unreadable(self.has_begun(), error))
    }

    /// The same, over TLS and without its own end: only what was encrypted says that it was the server.
    /// A body that says how it ends has not ended, and of another it is to be asked what it says.
    pub(super) fn cut(&mut self, arrival: Arrival) -> Result<(), RequestError> {
        self.is_cut = !self.reader.is_done();
        match self.is_cut && !self.reader.lasts_until_close() {
            true => Err(self.unsealed()),
            false => self.close(arrival),
        }
    }

    /// An error when the end may be anyone's, unless the body `has_ended` by what it says itself.
    pub(super) fn confirm(&self, has_ended: impl Fn(&[Chunk]) -> bool) -> Result<(), RequestError> {
        match self.is_cut && !has_ended(&self.chunks) {
            true => Err(self.unsealed()),
            false => Ok(()),
        }
    }

    fn unsealed(&self) -> RequestError {
        self.broken(&"it was closed without TLS's own end")
    }

    pub(super) fn broken(&self, cause: &dyn fmt::Display) -> RequestError {
        broke_off(self.has_begun(), cause)
    }

    pub(super) fn into_recording(
        self,
        set_up: Option<SetUp>,
        sent: Option<Duration>,
        ended_at: Duration,
        broken: Option<RequestError>,
    ) -> Result<Recording, RequestError> {
        let Some(ResponseHead { status, version, headers }) = self.reader.head() else {
            return Err(broken.unwrap_or_else(|| self.broken(&"nothing came")));
        };
        Ok(Recording {
            origin: Some(self.origin),
            status: status.as_u16(),
            content_type: recording::header_text(headers, header::CONTENT_TYPE),
            content_encoding: recording::header_text(headers, header::CONTENT_ENCODING),
            retry_after: recording::retry_after(headers),
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

    /// A read of 500 ms after some moment; the socket was empty after so many.
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
    fn pieces_are_believed_unless_they_are_older_than_the_read() {
        let now = socket::now();
        let begin = now.monotonic - ms(500);
        let piece =
            |at: u64, is_exact| ReadSegment { bytes: 10, at: now.wall - ms(500 - at), is_exact };
        let of = |pieces: &[ReadSegment]| {
            let arrivals = Arrival::of_pieces(pieces, begin + ms(100), now);
            let at = |time: Instant| (time - begin).as_millis() as u64;
            let bounds = |(_, arrival): &(usize, Arrival)| (at(arrival.since), at(arrival.at));
            arrivals.iter().map(bounds).collect::<Vec<_>>()
        };
        let known = [piece(200, true), piece(300, false), piece(400, true)];
        assert_eq!(of(&known), [(200, 200), (200, 300), (400, 400)]);
        assert_eq!(of(&[piece(200, false)]), [(100, 200)]);
        assert_eq!(of(&[piece(90, true), piece(200, true)]), []);
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
        // What comes with the head; how much earlier it can have come; then a chunk's size alone.
        for (first, headers) in [(&head[..], ms(0)), (&with_size, ms(30))] {
            let mut incoming = Incoming::new(origin);
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
