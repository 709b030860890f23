//! Splits a body into frames: server-sent events as specified by WHATWG, lines of JSON, or one
//! document.
//!
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>
//!
//! A benchmark must see more than a browser does, so the decoder differs in four points. It returns
//! comments. It returns an event that the end of the body truncated, marked as such. It returns
//! lines that are not fields, because proxies and back ends write their errors into a stream that
//! way. And it skips a byte order mark before every line, not only before the first.
//!
//! The caller notes the arrival time of each read and pushes the bytes afterwards. The result must
//! therefore not depend on how the network split the body: any split gives the same frames in the
//! same order.

use std::{mem, str};

use memchr::{memchr, memchr2};

/// A byte order mark.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The fields of an event. llama.cpp once sent errors in a separate field, `error`.
const FIELDS: &[&[u8]] = &[b"data", b"event", b"id", b"retry", b"error"];

/// A frame of an event stream. It borrows from the pushed bytes or from the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An event: its `event:` name (empty when there is none) and its `data:` lines, joined by LF.
    Event {
        /// The `event:` field's value; empty when there is none.
        name: &'a str,
        /// The `data:` fields' values, joined by LF.
        data: &'a [u8],
        /// Whether a blank line ended the event. `false` only if the body ended before it.
        terminated: bool,
    },
    /// A comment line, without its colon: a keep-alive.
    Comment(&'a [u8]),
    /// Lines that are not fields of an event, up to a blank line, joined by LF: their first
    /// [`SseDecoder::STRAY_LIMIT`] bytes.
    Stray(&'a [u8]),
}

/// The stream cannot be framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A line exceeds the limit, which no event of a real server reaches.
    #[error("a line of the event stream is longer than {limit} bytes")]
    LineTooLong {
        /// The limit, bytes.
        limit: usize,
    },
}

/// How a body is split into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Events,
    /// One JSON document per line.
    Lines,
    /// One JSON document. Its only frame comes at the end of the body.
    Document,
}

impl Framing {
    /// Returns the media type of such a body.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
            Self::Document => "application/json",
        }
    }

    /// Creates a decoder for the start of a body, with lines of at most [`SseDecoder::LINE_LIMIT`].
    pub fn decoder(self) -> Decoder {
        match self {
            Self::Events => Decoder::Events(SseDecoder::new(SseDecoder::LINE_LIMIT)),
            Self::Lines => Decoder::Lines(LineDecoder::new(SseDecoder::LINE_LIMIT)),
            Self::Document => Decoder::Document(Vec::new()),
        }
    }
}

/// Decodes frames from bytes that arrive in arbitrary pieces.
#[derive(Debug)]
pub enum Decoder {
    /// Server-sent events.
    Events(SseDecoder),
    /// One JSON document per line.
    Lines(LineDecoder),
    /// The bytes of one document so far.
    Document(Vec<u8>),
}

impl Decoder {
    /// Pushes the next bytes; `sink` gets every frame that they complete. Errors are permanent.
    pub fn push(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(), FramingError> {
        match self {
            Self::Events(decoder) => decoder.push(bytes, sink),
            Self::Lines(decoder) => decoder.push(bytes, sink),
            Self::Document(body) => {
                body.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Returns whether the last frame ended with the last byte.
    pub(crate) fn is_between_frames(&self) -> bool {
        match self {
            Self::Events(decoder) => decoder.line.is_empty() && decoder.data.is_empty(),
            Self::Lines(decoder) => decoder.line.is_empty(),
            Self::Document(body) => body.is_empty(),
        }
    }

    /// Ends the body; `sink` gets the incomplete frames.
    pub fn finish(self, sink: &mut dyn FnMut(Frame<'_>)) {
        match self {
            Self::Events(decoder) => decoder.finish(sink),
            Self::Lines(decoder) => decoder.finish(sink),
            Self::Document(body) => hand_over(&body, true, sink),
        }
    }
}

/// Decodes lines from bytes that arrive in arbitrary pieces, each as an event without a name. Blank
/// lines are skipped. A line within one push is not copied.
#[derive(Debug)]
pub struct LineDecoder {
    limit: usize,
    failed: bool,
    /// The incomplete line.
    line: Vec<u8>,
}

impl LineDecoder {
    /// Creates a decoder for the start of a body, with lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, failed: false, line: Vec::new() }
    }

    /// Pushes the next bytes; `sink` gets every line that they complete. Errors are permanent.
    pub fn push(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(), FramingError> {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            self.check_length(end)?;
            let tail = &rest[..end];
            rest = &rest[end + 1..];
            if self.line.is_empty() {
                hand_over(tail, true, sink);
            } else {
                self.line.extend_from_slice(tail);
                hand_over(&self.line, true, sink);
                self.line.clear();
            }
        }
        self.check_length(rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// Ends the body; `sink` gets the incomplete line.
    pub fn finish(self, sink: &mut dyn FnMut(Frame<'_>)) {
        if !self.failed {
            hand_over(&self.line, false, sink);
        }
    }

    /// Fails if the incomplete line exceeds the limit with `more` bytes.
    fn check_length(&mut self, more: usize) -> Result<(), FramingError> {
        self.failed |= self.line.len() + more > self.limit;
        match self.failed {
            true => Err(FramingError::LineTooLong { limit: self.limit }),
            false => Ok(()),
        }
    }
}

fn hand_over(line: &[u8], terminated: bool, sink: &mut dyn FnMut(Frame<'_>)) {
    let data = line.strip_prefix(BOM).unwrap_or(line).trim_ascii();
    if !data.is_empty() {
        sink(Frame::Event { name: "", data, terminated });
    }
}

/// Decodes server-sent events from bytes that arrive in arbitrary pieces.
///
/// Each byte is searched for a line end only once: between two pushes the decoder keeps the
/// incomplete line and the incomplete event. The common case, an event with a single `data:` line
/// within one push, is not copied. Invariant: the event's data is either in `held`, a line that is
/// still in the pushed bytes, or in `data`, the copied lines, and never in both. `held` is copied
/// before its push returns.
#[derive(Debug)]
pub struct SseDecoder {
    line_limit: usize,
    failed: bool,
    /// Whether the last line ended with CR. An LF at the start of the next push then belongs to it.
    after_cr: bool,
    /// The incomplete line.
    line: Vec<u8>,
    /// The name of the incomplete event.
    name: String,
    /// The data lines of the incomplete event, each followed by LF.
    data: Vec<u8>,
    /// The lines since the last event that are not fields, each followed by LF.
    stray: Vec<u8>,
}

impl SseDecoder {
    /// The default limit of a line, bytes.
    pub const LINE_LIMIT: usize = 16 << 20;

    /// The number of bytes that are kept of lines that are not fields.
    pub const STRAY_LIMIT: usize = 16 << 10;

    /// Creates a decoder for the start of a stream, with lines of at most `line_limit` bytes.
    pub fn new(line_limit: usize) -> Self {
        Self {
            line_limit,
            failed: false,
            after_cr: false,
            line: Vec::new(),
            name: String::new(),
            data: Vec::new(),
            stray: Vec::new(),
        }
    }

    /// Pushes the next bytes; `sink` gets every frame that they complete.
    ///
    /// Errors are permanent: each further push returns the error again, and
    /// [`finish`](Self::finish) returns no frames.
    pub fn push(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(), FramingError> {
        // The event's only data line, as long as it is within `bytes` and needs no copy.
        let mut held = None;
        let mut rest = self.skip_lf(bytes);
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            self.check_length(end)?;
            // A CR ends the line at once. Waiting for a possible LF would delay the frame by one
            // read.
            let line = &rest[..end];
            self.after_cr = rest[end] == b'\r';
            rest = self.skip_lf(&rest[end + 1..]);
            if self.line.is_empty() {
                self.take_line(line, &mut held, sink);
            } else {
                self.take_split_line(line, sink);
            }
        }
        // `held` borrows from `bytes`, which the caller may drop.
        self.keep(held);
        self.check_length(rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// Ends the stream; `sink` gets an incomplete comment and an incomplete event.
    pub fn finish(mut self, sink: &mut dyn FnMut(Frame<'_>)) {
        if self.failed {
            return;
        }
        let line = mem::take(&mut self.line);
        let mut held = None;
        // A line like `dat` is a truncated field, not a message of a proxy.
        let is_cut_field = FIELDS.iter().any(|field| field.starts_with(&line));
        if !is_cut_field || FIELDS.contains(&line.as_slice()) {
            self.take_line(&line, &mut held, sink);
        }
        self.dispatch(held, false, sink);
    }

    /// Skips the LF of a CRLF. The CR ended the line, and the LF may arrive one push later.
    fn skip_lf<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if bytes.is_empty() || !mem::take(&mut self.after_cr) {
            return bytes;
        }
        bytes.strip_prefix(b"\n").unwrap_or(bytes)
    }

    /// Fails if the incomplete line exceeds the limit with `more` bytes.
    fn check_length(&mut self, more: usize) -> Result<(), FramingError> {
        self.failed |= self.line.len() + more > self.line_limit;
        match self.failed {
            true => Err(FramingError::LineTooLong { limit: self.line_limit }),
            false => Ok(()),
        }
    }

    /// Reads a line whose first bytes arrived with an earlier push.
    fn take_split_line(&mut self, tail: &[u8], sink: &mut dyn FnMut(Frame<'_>)) {
        let mut line = mem::take(&mut self.line);
        line.extend_from_slice(tail);
        let mut held = None;
        self.take_line(&line, &mut held, sink);
        self.keep(held);
        line.clear();
        // The buffer keeps its capacity for the next split line.
        self.line = line;
    }

    /// Reads one line without its end.
    fn take_line<'a>(
        &mut self,
        line: &'a [u8],
        held: &mut Option<&'a [u8]>,
        sink: &mut dyn FnMut(Frame<'_>),
    ) {
        match line.strip_prefix(BOM).unwrap_or(line) {
            [] => self.dispatch(held.take(), true, sink),
            [b':', comment @ ..] => sink(Frame::Comment(comment)),
            line => self.take_field(line, held),
        }
    }

    fn take_field<'a>(&mut self, line: &'a [u8], held: &mut Option<&'a [u8]>) {
        match split_field(line) {
            // The common case: the only data line of an event is not copied.
            (b"data", value) if held.is_none() && self.data.is_empty() => *held = Some(value),
            (b"data", value) => {
                self.keep(held.take());
                self.keep(Some(value));
            }
            (b"event", value) => {
                self.name.clear();
                self.name.push_str(str::from_utf8(value).unwrap_or_default());
            }
            (b"error", value) => {
                self.name.clear();
                self.name.push_str("error");
                self.keep(held.take());
                self.keep(Some(value));
            }
            (b"id" | b"retry", _) => {} // for reconnecting
            _ => self.keep_stray(line),
        }
    }

    /// Copies a line that is not a field, up to the limit.
    fn keep_stray(&mut self, line: &[u8]) {
        let room = Self::STRAY_LIMIT.saturating_sub(self.stray.len());
        self.stray.extend(line.iter().chain(b"\n").take(room));
    }

    /// Copies a data line into the incomplete event.
    fn keep(&mut self, data_line: Option<&[u8]>) {
        if let Some(value) = data_line {
            self.data.extend_from_slice(value);
            self.data.push(b'\n');
        }
    }

    /// Emits the event, if it has a data line or is an error, and starts the next one. `held` is
    /// its only data line if that was not copied.
    fn dispatch(&mut self, held: Option<&[u8]>, terminated: bool, sink: &mut dyn FnMut(Frame<'_>)) {
        if !self.stray.is_empty() {
            sink(Frame::Stray(self.stray.strip_suffix(b"\n").unwrap_or(&self.stray)));
            self.stray.clear();
        }
        let bare = || (terminated && self.name.eq_ignore_ascii_case("error")).then_some(&b""[..]);
        if let Some(data) = held.or_else(|| self.data.strip_suffix(b"\n")).or_else(bare) {
            sink(Frame::Event { name: &self.name, data, terminated });
        }
        self.name.clear();
        self.data.clear();
    }
}

/// Splits a line into the field's name and its value, without one space before the value.
fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b':', line) {
        Some(colon) => {
            let value = &line[colon + 1..];
            (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
        }
        None => (line, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `pieces` and formats each frame as `name|data`, `name|data…` (truncated) or
    /// `:comment`.
    fn frames(pieces: &[&[u8]]) -> Vec<String> {
        let mut frames = Vec::new();
        let mut sink = |frame: Frame<'_>| frames.push(written(frame));
        let mut decoder = SseDecoder::new(SseDecoder::LINE_LIMIT);
        for piece in pieces {
            decoder.push(piece, &mut sink).expect("lines are short");
        }
        decoder.finish(&mut sink);
        frames
    }

    fn written(frame: Frame<'_>) -> String {
        match frame {
            Frame::Comment(text) => format!(":{}", text.escape_ascii()),
            Frame::Stray(lines) => format!("?{}", lines.escape_ascii()),
            Frame::Event { name, data, terminated } => {
                let end = if terminated { "" } else { "…" };
                format!("{name}|{}{end}", data.escape_ascii())
            }
        }
    }

    fn of(stream: &str) -> Vec<String> {
        frames(&[stream.as_bytes()])
    }

    /// Decodes `pieces` as lines and formats each with `written`.
    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut sink = |frame: Frame<'_>| lines.push(written(frame));
        let mut decoder = Framing::Lines.decoder();
        for piece in pieces {
            decoder.push(piece, &mut sink).expect("lines are short");
        }
        decoder.finish(&mut sink);
        lines
    }

    #[test]
    fn lines_are_the_same_wherever_they_are_cut() {
        let body = "{\"a\":\"é\"}\n\n{\"b\":1}\r\n{\"c\":2}\n{\"cut".as_bytes();
        let whole = lines(&[body]);
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[1..], ["|{\\\"b\\\":1}", "|{\\\"c\\\":2}", "|{\\\"cut…"]);
        for cut in 0..body.len() {
            assert_eq!(lines(&[&body[..cut], &body[cut..]]), whole, "{cut}");
        }
        let bytes: Vec<_> = body.chunks(1).collect();
        assert_eq!(lines(&bytes), whole);
    }

    #[test]
    fn a_json_line_over_the_limit_fails_the_decoder_for_good() {
        for pieces in [&[&b"{}\n1234567890\n"[..]][..], &[b"{}\n12345", b"67890"]] {
            let mut decoder = LineDecoder::new(9);
            let mut count = 0;
            let mut sink = |_: Frame<'_>| count += 1;
            let results: Vec<_> =
                pieces.iter().map(|piece| decoder.push(piece, &mut sink)).collect();
            let error = Err(FramingError::LineTooLong { limit: 9 });
            assert_eq!(results.last(), Some(&error));
            assert_eq!(decoder.push(b"\n", &mut sink), error);
            decoder.finish(&mut sink);
            assert_eq!(count, 1);
        }
    }

    #[test]
    fn lines_end_with_lf_crlf_or_cr() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = ["data: a", "", "event: e", "data: b", "", ""].join(end);
            assert_eq!(of(&stream), ["|a", "e|b"], "{end:?}");
        }
        assert_eq!(of("data: a\r\n\rdata: b\n\r\ndata: c\r\r"), ["|a", "|b", "|c"]);
    }

    #[test]
    fn a_cr_at_the_end_of_a_push_ends_the_event_at_once() {
        let mut decoder = SseDecoder::new(SseDecoder::LINE_LIMIT);
        let mut seen = Vec::new();
        let mut sink = |frame: Frame<'_>| seen.push(written(frame));
        decoder.push(b"data: a\r\n\r", &mut sink).expect("short");
        assert_eq!(mem::take(&mut seen), ["|a"]);
        let mut sink = |frame: Frame<'_>| seen.push(written(frame));
        for piece in [&b""[..], b"\n", b"data: b\n\n"] {
            decoder.push(piece, &mut sink).expect("short");
        }
        assert_eq!(seen, ["|b"]);
    }

    #[test]
    fn a_byte_order_mark_is_dropped_before_each_line_wherever_it_is_cut() {
        let stream = "\u{feff}data: a\n\n\u{feff}data: b\n\n".as_bytes();
        for cut in 0..stream.len() {
            assert_eq!(frames(&[&stream[..cut], &stream[cut..]]), ["|a", "|b"], "{cut}");
        }
        assert_eq!(of("\u{feff}:hello\n"), [":hello"]);
        assert_eq!(lines(&["\u{feff}{}\n1\n".as_bytes()]), ["|{}", "|1"]);
    }

    #[test]
    fn comments_are_handed_over_as_they_come_and_end_no_event() {
        assert_eq!(of(":\n\n: ping\n\n"), [":", ": ping"]);
        assert_eq!(of("data: a\n:between\ndata: b\n\n"), [":between", "|a\\nb"]);
    }

    #[test]
    fn data_lines_are_joined_by_lf() {
        assert_eq!(of("data: a\ndata:\ndata: b\n\n"), ["|a\\n\\nb"]);
        assert_eq!(of("data\n\n"), ["|"]);
        assert_eq!(of("data:\ndata\n\n"), ["|\\n"]);
    }

    #[test]
    fn one_space_after_the_colon_is_dropped() {
        assert_eq!(
            of("data:a\n\ndata: a\n\ndata:  a\n\ndata:\ta\n\n"),
            ["|a", "|a", "| a", "|\\ta"]
        );
        assert_eq!(of("data: a: b\n\n"), ["|a: b"]);
    }

    #[test]
    fn lines_that_are_not_fields_are_handed_over_at_the_next_blank_line() {
        let stream = "id: 7\nretry: 1\n data: x\nDATA: y\ndatas: z\ndata: a\n\n";
        assert_eq!(of(stream), ["? data: x\\nDATA: y\\ndatas: z", "|a"]);
        for cut in 0..stream.len() {
            let split = frames(&[&stream.as_bytes()[..cut], &stream.as_bytes()[cut..]]);
            assert_eq!(split, of(stream), "{cut}");
        }
        assert_eq!(
            of("{\"error\": {\n  \"a\": 1\n}}"),
            ["?{\\\"error\\\": {\\n  \\\"a\\\": 1\\n}}"]
        );
        // A prefix of a field's name is not a stray line yet.
        assert_eq!(of("data: a\n\nret"), ["|a"]);
    }

    #[test]
    fn of_many_lines_that_are_not_fields_the_beginning_is_kept() {
        let mut decoder = SseDecoder::new(SseDecoder::LINE_LIMIT);
        for _ in 0..SseDecoder::STRAY_LIMIT {
            decoder.push(b"{\"a\":1}\n", &mut |frame| panic!("{frame:?}")).expect("short");
        }
        assert_eq!(decoder.stray.len(), SseDecoder::STRAY_LIMIT);
    }

    #[test]
    fn an_event_without_a_data_line_is_not_dispatched_and_leaves_no_name() {
        assert_eq!(of("event: ping\n\ndata: a\n\n\n\n"), ["|a"]);
        // A name alone can report an error.
        assert_eq!(of("event: error\n\ndata: a\n\n"), ["error|", "|a"]);
        assert_eq!(of("event: error"), [""; 0]);
    }

    #[test]
    fn the_last_event_field_names_the_event() {
        assert_eq!(of("event: a\ndata: x\nevent: b\n\ndata: y\n\n"), ["b|x", "|y"]);
        assert_eq!(of("event: a\nevent\ndata: x\n\n"), ["|x"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_pass_in_data_and_not_in_a_name() {
        assert_eq!(frames(&[b"event: \xff\ndata: \0\xff\n\n"]), ["|\\x00\\xff"]);
    }

    #[test]
    fn a_tail_without_its_blank_line_is_handed_over_as_cut_off() {
        assert_eq!(of("data: a\n\ndata: b\n"), ["|a", "|b…"]);
        assert_eq!(of("event: e\ndata: b\nda"), ["e|b…"]);
        assert_eq!(of("data: {\"cut"), ["|{\\\"cut…"]);
        assert_eq!(of(":pi"), [":pi"]);
        assert_eq!(of("event: e"), [""; 0]);
    }

    #[test]
    fn a_line_over_the_limit_fails_the_decoder_for_good() {
        for pieces in
            [&[&b"data: ok\n\ndata: 12345\n\n"[..]][..], &[b"data: ok\n\ndata: ", b"12345"]]
        {
            let mut decoder = SseDecoder::new(10);
            let mut count = 0;
            let mut sink = |_: Frame<'_>| count += 1;
            let results: Vec<_> =
                pieces.iter().map(|piece| decoder.push(piece, &mut sink)).collect();
            let error = Err(FramingError::LineTooLong { limit: 10 });
            assert_eq!(results.last(), Some(&error));
            assert_eq!(decoder.push(b"\n", &mut sink), error);
            decoder.finish(&mut sink);
            assert_eq!(count, 1);
        }
    }

    #[test]
    fn an_event_within_one_push_is_not_copied() {
        let pushed = b"data: a\n\ndata: b\n\n";
        let mut decoder = SseDecoder::new(SseDecoder::LINE_LIMIT);
        decoder
            .push(pushed, &mut |frame| {
                let Frame::Event { data, .. } = frame else { panic!("{frame:?}") };
                assert!(pushed.as_ptr_range().contains(&data.as_ptr()));
            })
            .expect("short");
    }
}
