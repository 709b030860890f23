//! One client connection of the simulated endpoint: the bytes it sent, the bytes it is still owed,
//! and the phase of its current request.

use std::{
    collections::VecDeque,
    io::{self, Read, Write as _},
    mem,
    time::Instant,
};

use bytes::BytesMut;
use llm_stream_core::protocol::{Envelope, Message, MessagePart, Protocol};
use llm_stream_socket::Socket;

use super::{
    log::{AnswerLog, LogEntry, Write},
    pace,
    script::{AnswerStream, ScriptStep, StreamEnd},
    tls::ServerTls,
    wire::{self, HEAD_LIMIT, RequestHead},
};

/// The phase of a connection.
#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for the head of a request.
    Head,
    /// Waits for the body of this one.
    Body(RequestHead),
    /// Writes an answer step by step.
    Streaming(Box<Streaming>),
    /// Writes the last bytes of an answer.
    Answered,
    /// Waits until the client has surely read the last write, then resets the connection.
    Resetting,
    /// Owes more bytes and never writes them.
    Stalled,
    /// Has sent everything and waits until the client closes.
    Draining,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct ClientConnection {
    /// The socket, non-blocking.
    pub(super) socket: Socket,
    /// Distinguishes the connection from earlier and later ones in the same slot.
    pub(super) serial: u64,
    /// The current phase.
    pub(super) phase: Phase,
    /// Bytes read from the socket and not yet parsed.
    pub(super) inbox: BytesMut,
    /// Whether unread bytes may remain in the socket. The poll is edge-triggered, so no further
    /// event announces them.
    pub(super) unread: bool,
    /// Bytes to be written.
    pub(super) outbox: Outbox,
    /// Whether the last write returned `WouldBlock`.
    pub(super) blocked: bool,
    /// Whether another request may follow the current one.
    pub(super) keep_alive: bool,
    /// The log of the current answer.
    pub(super) entry: Option<LogEntry>,
    /// The request in the server's batch.
    pub(super) job: Option<u64>,
}

impl ClientConnection {
    /// Creates the state of a connection that has just been accepted.
    pub(super) fn new(socket: Socket, serial: u64) -> Self {
        Self {
            socket,
            serial,
            phase: Phase::Head,
            inbox: BytesMut::new(),
            unread: false,
            outbox: Outbox::default(),
            blocked: false,
            keep_alive: true,
            entry: None,
            job: None,
        }
    }

    /// Reads from the socket, up to what the current phase can use. The client's close is an error,
    /// even if only of its sending side: a client that has left does not need its answer.
    pub(super) fn fill(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        self.unread = true;
        while self.has_room() {
            match self.socket.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if matches!(self.phase, Phase::Draining) => {}
                Ok(read) => self.take(&scratch[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unread = false;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stores received bytes, decrypted if the connection uses TLS.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.outbox.tls else {
            self.inbox.extend_from_slice(bytes);
            return Ok(());
        };
        let opened = tls.open(bytes, &mut self.inbox);
        let owed = tls.owed()?;
        if opened.is_err() {
            // The alert tells the client why; if this write fails, the client has already left.
            let _ = self.socket.write(&owed);
        }
        self.outbox.push(owed, Mark::Tls);
        opened
    }

    fn has_room(&self) -> bool {
        match &self.phase {
            Phase::Body(head) => self.inbox.len() < head.body,
            Phase::Draining => true,
            _ => self.inbox.len() <= HEAD_LIMIT,
        }
    }

    /// Writes the queued bytes. Returns `false` if the socket accepts no more for now.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        // Locked before the first byte is written, so that a client that has read an answer finds
        // all of it in the log.
        let mut log = self.entry.as_ref().map(LogEntry::lock);
        let flushed = self.outbox.flush(&mut self.socket, log.as_deref_mut())?;
        if let Some(log) = &mut log {
            log.completed = flushed && self.is_whole();
        }
        self.blocked = !flushed;
        Ok(flushed)
    }

    /// Returns whether the queued bytes complete the answer.
    pub(super) fn is_whole(&self) -> bool {
        match &self.phase {
            Phase::Streaming(streaming) => streaming.is_whole,
            phase => matches!(phase, Phase::Answered),
        }
    }

    /// Closes the sending side, so that the client can still read everything. Closing both sides
    /// with unread bytes would reset the connection.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.phase = Phase::Draining;
        self.inbox.clear();
        self.socket.end()
    }

    /// Makes the coming close reset the connection.
    pub(super) fn reset(&self) -> io::Result<()> {
        self.socket.end_in_a_reset()
    }
}

/// The queue of bytes to a client. Each entry is written and timed on its own.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Encrypts the entries, in order, if the connection uses TLS.
    pub(super) tls: Option<ServerTls>,
    pieces: VecDeque<QueuedWrite>,
    /// Bytes of the first entry that the socket has accepted.
    written: usize,
    /// When the first entry was first tried.
    began: Option<Instant>,
    /// The latest period in which the socket accepted nothing because the client did not read:
    /// start and end.
    refused: Option<(Instant, Instant)>,
    /// Whether that period is still running.
    is_refusing: bool,
}

#[derive(Debug)]
struct QueuedWrite {
    bytes: Vec<u8>,
    mark: Mark,
}

impl QueuedWrite {
    fn note(&self, log: &mut AnswerLog, began: Instant, returned: Instant) {
        match self.mark {
            Mark::Tls => {}
            Mark::Head => log.head_returned = Some(returned),
            Mark::Body { due, bytes, token_events } => {
                log.note(Write { due, began, returned, bytes, token_events })
            }
        }
    }
}

/// What the log records about a queued write.
#[derive(Debug, Clone, Copy)]
enum Mark {
    /// Nothing: the bytes belong to TLS itself.
    Tls,
    Head,
    Body {
        due: Instant,
        bytes: usize,
        token_events: u64,
    },
}

impl Outbox {
    fn flush(&mut self, socket: &mut Socket, mut log: Option<&mut AnswerLog>) -> io::Result<bool> {
        // The socket refused bytes until now, so the refusal lasted at least until now.
        if let Some((_, until)) = self.refused.as_mut().filter(|_| self.is_refusing) {
            *until = pace::now();
        }
        while let Some(piece) = self.pieces.front() {
            // The first attempt counts as the start, even if only part of the bytes is accepted: a
            // client cannot have read any of them before.
            let began = *self.began.get_or_insert_with(|| begin(piece.mark, self.refused));
            match socket.write(&piece.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Successive refusals form one period if this write was already waiting in the
                    // previous one.
                    let now = pace::now();
                    let goes_on = self.refused.filter(|(_, until)| began <= *until);
                    self.refused = Some((goes_on.map_or(now, |(from, _)| from), now));
                    self.is_refusing = true;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
            if self.written == piece.bytes.len() {
                // The clock is read after each write and before the next one, so that the log
                // brackets when the bytes can have reached the client.
                let returned = pace::now();
                if let Some(log) = log.as_deref_mut() {
                    piece.note(log, began, returned);
                }
                self.pieces.pop_front();
                self.written = 0;
                self.began = None;
            }
        }
        self.is_refusing = false;
        Ok(true)
    }

    /// Queues the head of a response, or a complete short answer.
    pub(super) fn push_head(&mut self, bytes: Vec<u8>) {
        self.push_sealed(bytes, Mark::Head);
    }

    /// Queues a part of a response's body. Does nothing if `bytes` is empty.
    pub(super) fn push_body(&mut self, bytes: Vec<u8>, due: Instant, token_events: u64) {
        let mark = Mark::Body { due, bytes: bytes.len(), token_events };
        self.push_sealed(bytes, mark);
    }

    /// Queues the TLS close notification. Returns whether there was one to queue.
    pub(super) fn push_close_notify(&mut self) -> bool {
        let notification = self.tls.as_mut().map(ServerTls::close_notify).transpose();
        // After a TLS failure the client gets no notification, and sees a truncated stream.
        let notification = notification.ok().flatten().unwrap_or_default();
        let has_one = !notification.is_empty();
        self.push(notification, Mark::Tls);
        has_one
    }

    /// Queues bytes, encrypted if the connection uses TLS. Encryption happens here, ahead of time,
    /// so that a due write is only a system call.
    fn push_sealed(&mut self, bytes: Vec<u8>, mark: Mark) {
        let sealed = match &mut self.tls {
            Some(tls) if !bytes.is_empty() => tls.seal(&bytes).unwrap_or_default(),
            _ => bytes,
        };
        self.push(sealed, mark);
    }

    /// Queues bytes as they are. Does nothing if `bytes` is empty.
    fn push(&mut self, bytes: Vec<u8>, mark: Mark) {
        if !bytes.is_empty() {
            self.pieces.push_back(QueuedWrite { bytes, mark });
        }
    }
}

/// Returns the time at which a write that is first tried now counts as begun.
///
/// A client that does not read blocks the socket. A write that fell due in the meantime was delayed
/// by the client, so it counts as begun when it was due, and the log shows no lateness of the
/// endpoint. A write that was already late when the socket blocked keeps its lateness up to that
/// moment.
fn begin(mark: Mark, refused: Option<(Instant, Instant)>) -> Instant {
    let now = pace::now();
    match (mark, refused) {
        (Mark::Body { due, .. }, Some((from, until))) if due <= until => due.max(from).min(now),
        _ => now,
    }
}

/// When a stream continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextWrite {
    /// At this time, when the next step is due.
    At(Instant),
    /// Once the server's batch has generated the next event.
    Granted,
    /// Never: the stream has ended like this, and its last step was due at this time.
    End(StreamEnd, Instant),
}

/// A streamed answer in progress.
#[derive(Debug)]
pub(super) struct Streaming {
    /// The remaining steps.
    pub(super) stream: AnswerStream,
    /// The completion's id.
    pub(super) id: String,
    /// The model's name from the request.
    pub(super) model: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// The number of items of the answer, if it is not generated text.
    pub(super) items: Option<u64>,
    /// When the request had been read completely.
    pub(super) received: Instant,
    /// Whether the whole answer, to the end of its body, has been queued.
    pub(super) is_whole: bool,
    /// Whether a step has been queued.
    pub(super) is_begun: bool,
    /// Whether the connection stays open afterwards.
    pub(super) keep_alive: bool,
    /// When the next events are due, as far as the server's batch has decided it; `None` if the
    /// script decides.
    pub(super) grants: Option<VecDeque<Instant>>,
    /// Whether a step is queued whose time has not come.
    pub(super) is_prepared: bool,
}

impl Streaming {
    /// Queues the next step and returns when to write it. Encoding happens before the step is due,
    /// so that only the write remains.
    ///
    /// The trailer is due with the last token event and follows it at once, as a separate write. A
    /// reader that gets both in one read is wrong by the duration of that write at most.
    pub(super) fn prepare(&mut self, protocol: &dyn Protocol, outbox: &mut Outbox) -> NextWrite {
        self.is_prepared = false;
        if !self.is_granted() {
            return NextWrite::Granted;
        }
        let (is_intact, is_cut) = (self.stream.is_intact(), self.stream.is_cut());
        let Some(step) = self.stream.next() else {
            if self.stream.is_document() && !self.is_begun {
                outbox.push_head(wire::stream_head("application/json", self.keep_alive));
            }
            return NextWrite::End(self.stream.ending(), self.received + self.stream.at());
        };
        let due = self.received + step.at;
        self.is_begun = true;
        if self.stream.is_document() {
            let trailer = self.stream.next().into_iter().flat_map(|trailer| trailer.messages);
            let messages = step.messages.into_iter().chain(trailer).collect();
            self.prepare_document(messages, (due, is_intact, is_cut), protocol, outbox);
            self.is_prepared = true;
            return NextWrite::At(due);
        }
        for (bytes, token_events) in self.pieces(step, protocol) {
            outbox.push_body(bytes, due, token_events);
        }
        if self.stream.is_past_tokens()
            && let Some(trailer) = self.stream.next()
        {
            let mut pieces = self.pieces(trailer, protocol);
            self.is_whole = self.stream.ending() == StreamEnd::Clean;
            if let Some((bytes, _)) = pieces.last_mut().filter(|_| self.is_whole) {
                bytes.extend_from_slice(wire::LAST_CHUNK);
            }
            pieces.into_iter().for_each(|(bytes, events)| outbox.push_body(bytes, due, events));
        }
        self.is_prepared = true;
        NextWrite::At(due)
    }

    /// Queues an answer that is one document. A fault that ends a stream after some tokens cuts a
    /// document in its middle.
    fn prepare_document(
        &mut self,
        messages: Vec<Vec<MessagePart<'static>>>,
        (due, is_intact, is_cut): (Instant, bool, bool),
        protocol: &dyn Protocol,
        outbox: &mut Outbox,
    ) {
        let ended = with_ending(messages, protocol).into_iter().flatten();
        let items = self.items.map(MessagePart::Items);
        let parts: Vec<_> = items.into_iter().chain(ended).collect();
        let (document, _) = self.frame(parts, protocol);
        if is_intact {
            self.is_whole = true;
            let answer = wire::json_answer(200, &document, None, self.keep_alive);
            return outbox.push_body(answer, due, 1);
        }
        let kept = if is_cut { &document[..document.len() / 2] } else { &document[..] };
        let size = self.stream.split().unwrap_or(usize::MAX).max(1);
        let mut pieces: Vec<_> = kept.chunks(size).collect();
        let last = pieces.pop().unwrap_or_default();
        let mut head = wire::stream_head("application/json", self.keep_alive);
        for piece in pieces {
            wire::push_chunk(&mut head, piece);
            outbox.push_body(mem::take(&mut head), due, 0);
        }
        wire::push_chunk(&mut head, last);
        self.is_whole = !is_cut;
        if self.is_whole {
            head.extend_from_slice(wire::LAST_CHUNK);
        }
        outbox.push_body(head, due, u64::from(!is_cut));
    }

    /// Returns whether it is known when the next step is due. A batch decides that for each event,
    /// and a step of several events is due with the last of them.
    fn is_granted(&mut self) -> bool {
        let Some(grants) = &mut self.grants else { return true };
        let events = usize::try_from(self.stream.next_events()).unwrap_or(usize::MAX);
        if events == 0 {
            return true;
        }
        let Some(due) = grants.get(events - 1).copied() else { return false };
        grants.drain(..events);
        self.stream.set_due(due.saturating_duration_since(self.received));
        true
    }

    /// Returns the writes that carry a step.
    fn pieces(&self, step: ScriptStep, protocol: &dyn Protocol) -> Vec<EncodedWrite> {
        let messages = with_ending(step.messages, protocol).into_iter();
        let frames = messages.map(|parts| self.frame(parts, protocol)).collect();
        pieces(frames, self.stream.is_merged(), self.stream.split())
    }

    fn frame(&self, parts: Vec<MessagePart<'_>>, protocol: &dyn Protocol) -> EncodedWrite {
        let token = parts.iter().any(|part| matches!(part, MessagePart::Token(..)));
        let message = Message { id: Some(self.id.as_str().into()), parts };
        let envelope = Envelope { model: &self.model, created: self.created };
        (protocol.encode(&message, &envelope), u64::from(token))
    }
}

/// Returns the messages of a step, with the final ones arranged as the protocol sends them.
fn with_ending(
    mut messages: Vec<Vec<MessagePart<'static>>>,
    protocol: &dyn Protocol,
) -> Vec<Vec<MessagePart<'static>>> {
    let ends = |parts: &Vec<MessagePart<'_>>| {
        matches!(
            parts[..],
            [
                MessagePart::Finish(_)
                    | MessagePart::Usage(_)
                    | MessagePart::Timings(_)
                    | MessagePart::End,
                ..
            ]
        )
    };
    let first = messages.iter().position(ends).unwrap_or(messages.len());
    let ending = messages.split_off(first).into_iter().flatten().collect();
    messages.extend(protocol.ending(ending));
    messages
}

/// Encoded bytes, and the number of token events that they complete.
type EncodedWrite = (Vec<u8>, u64);

/// Returns the writes that carry `frames`, in chunked transfer coding.
fn pieces(frames: Vec<EncodedWrite>, merged: bool, split: Option<usize>) -> Vec<EncodedWrite> {
    let frames =
        if merged { vec![frames] } else { frames.into_iter().map(|frame| vec![frame]).collect() };
    match split {
        Some(size) => frames.iter().flat_map(|frames| cut(frames, size)).collect(),
        None => vec![gather(&frames)],
    }
}

/// Returns one write with a chunk for each list of frames.
fn gather(chunks: &[Vec<EncodedWrite>]) -> EncodedWrite {
    let mut bytes = Vec::new();
    for chunk in chunks {
        wire::push_chunk(&mut bytes, &joined(chunk));
    }
    let token_events = chunks.iter().flatten().map(|(_, events)| events).sum();
    (bytes, token_events)
}

/// Splits frames into writes of `size` bytes, each one a chunk.
fn cut(frames: &[EncodedWrite], size: usize) -> Vec<EncodedWrite> {
    let mut frames_left = frames.iter();
    let mut next = frames_left.next();
    let mut next_end = next.map_or(0, |(bytes, _)| bytes.len());
    let mut end = 0;
    let mut piece = |bytes: &[u8]| {
        let mut chunk = Vec::new();
        wire::push_chunk(&mut chunk, bytes);
        end += bytes.len();
        let mut completed = 0;
        while let Some((_, events)) = next.filter(|_| next_end <= end) {
            completed += events;
            next = frames_left.next();
            next_end += next.map_or(0, |(bytes, _)| bytes.len());
        }
        (chunk, completed)
    };
    joined(frames).chunks(size).map(&mut piece).collect()
}

fn joined(frames: &[EncodedWrite]) -> Vec<u8> {
    let bytes: Vec<&[u8]> = frames.iter().map(|(bytes, _)| bytes.as_slice()).collect();
    bytes.concat()
}

impl Phase {
    /// Takes the request's head out of the phase, which becomes [`Phase::Head`].
    pub(super) fn take_head(&mut self) -> Option<RequestHead> {
        match mem::replace(self, Self::Head) {
            Self::Body(head) => Some(head),
            other => {
                *self = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns both ends of a connection.
    #[cfg(unix)]
    fn pair() -> (Socket, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
        ours.set_nonblocking(true).expect("a socket");
        (Socket::Unix(mio::net::UnixStream::from_std(ours)), theirs)
    }

    #[cfg(unix)]
    #[test]
    fn a_write_due_while_the_client_does_not_read_is_not_late() {
        use std::io::Read as _;

        use crate::log::Log;

        const LARGE: usize = 4 << 20;
        let ms = std::time::Duration::from_millis;
        let (mut ours, mut theirs) = pair();
        let (log, mut outbox) = (Log::default(), Outbox::default());
        let start = pace::now();
        let entry = log.open(1, String::new(), start, b"");
        outbox.push_body(vec![0; LARGE], start, 1);
        assert!(!outbox.flush(&mut ours, Some(&mut entry.lock())).expect("a write"));
        let blocked = pace::now();
        // One write is already late, the other falls due while the socket is blocked.
        let meanwhile = blocked + ms(10);
        outbox.push_body(vec![0; 10], start, 1);
        outbox.push_body(vec![0; 10], meanwhile, 1);
        std::thread::sleep(ms(30));
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; LARGE + 40];
            theirs.read_exact(&mut buffer).expect("bytes");
        });
        while !outbox.flush(&mut ours, Some(&mut entry.lock())).expect("a write") {
            std::thread::yield_now();
        }
        // The next steps are prepared after the socket has drained; the last one is due later.
        let drained = pace::now();
        for due in [meanwhile + ms(5), drained] {
            outbox.push_body(vec![0; 10], due, 1);
            assert!(outbox.flush(&mut ours, Some(&mut entry.lock())).expect("a write"));
        }
        reader.join().expect("a reader");
        let writes = entry.lock().writes.clone();
        assert!(writes[1].began <= blocked, "the endpoint would have tried it");
        assert_eq!(writes[2].began, meanwhile);
        assert_eq!(writes[3].began, meanwhile + ms(5));
        assert!(writes[4].began >= drained);
    }

    fn frames() -> Vec<EncodedWrite> {
        vec![(b"role".to_vec(), 0), (b"ab".to_vec(), 1), (b"c".to_vec(), 1)]
    }

    #[test]
    fn a_step_is_one_write_with_a_chunk_a_frame() {
        assert_eq!(
            pieces(frames(), false, None),
            [(b"4\r\nrole\r\n2\r\nab\r\n1\r\nc\r\n".to_vec(), 2)]
        );
    }

    #[test]
    fn a_merged_step_is_one_chunk() {
        assert_eq!(pieces(frames(), true, None), [(b"7\r\nroleabc\r\n".to_vec(), 2)]);
    }

    #[test]
    fn split_pieces_count_an_event_where_its_last_byte_is() {
        let chunk = |text: &str, events| (text.as_bytes().to_vec(), events);
        assert_eq!(
            pieces(frames(), false, Some(3)),
            [
                chunk("3\r\nrol\r\n", 0),
                chunk("1\r\ne\r\n", 0),
                chunk("2\r\nab\r\n", 1),
                chunk("1\r\nc\r\n", 1),
            ]
        );
        assert_eq!(
            pieces(frames(), true, Some(5)),
            [chunk("5\r\nrolea\r\n", 0), chunk("2\r\nbc\r\n", 2)]
        );
    }
}
