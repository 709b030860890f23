//! Parses one HTTP/1.1 response from bytes that arrive in pieces. Pure.
//!
//! A body is chunked, has a length, or ends with the connection (RFC 9112). Only the last kind can
//! be truncated without a sign.
//!
//! The parser accepts and refuses the same bytes as hyper with the options that via_reqwest sets, so
//! that both transports give the same result. Header fields are parsed leniently, because no figure
//! depends on them. The framing of the body is parsed strictly, because every figure does. There is
//! one difference: hyper allows 16 KiB of chunk extensions per body, this parser per chunk.

use std::borrow::Cow;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use httparse::{EMPTY_HEADER, Error as ParseError, Header, ParserConfig, Status};

/// Longest head, bytes: hyper's limit.
const HEAD_LIMIT: usize = 8192 + 4096 * 100;

/// Most fields of a head or a trailer.
pub(super) const HEADERS_LIMIT: usize = 1024;

/// Most fields that are parsed without an allocation, enough for nearly every head.
const USUAL_HEADERS: usize = 64;

/// The first bytes of a TLS alert, which a TLS server sends to a client that does not use TLS.
const TLS_ALERT: &[u8] = &[21, 3];

/// The first bytes of every head.
const BEGINNING: &[u8] = b"HTTP/1.";

/// Longest extensions of a chunk and longest trailer, bytes.
const LINE_LIMIT: usize = 16 << 10;

/// Largest content length that hyper accepts; it reserves larger numbers.
const LENGTH_LIMIT: u64 = u64::MAX - 2;

/// A response's status line and headers.
#[derive(Debug, Clone)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
}

impl ResponseHead {
    fn has(&self, name: HeaderName, token: &str) -> bool {
        let values = self.headers.get_all(name).into_iter();
        let mut tokens = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        tokens.any(|other| other.trim().eq_ignore_ascii_case(token))
    }

    /// Whether the body is chunked: the last transfer coding decides.
    fn is_chunked(&self) -> bool {
        let last = self.headers.get_all(header::TRANSFER_ENCODING).into_iter().next_back();
        let coding = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
    }
}

/// The reason why bytes are not a valid response, or not a complete one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the server closed it before the end of the HTTP head")]
    HeadCut,
    #[error("the server closed it before the end of the body")]
    BodyCut,
    #[error("the server speaks TLS on that port: use `https://` in `base_url`")]
    SpeaksTls,
    #[error("it is not HTTP/1.1")]
    Version,
    #[error("its status line is not valid HTTP/1.1")]
    StatusLine,
    #[error("a header field has a NUL, or a CR without an LF")]
    Field,
    #[error("its head is longer than 408 KiB or has more than 1,024 fields")]
    TooLarge,
    #[error("its content-length is not a number, or has several different values")]
    Length,
    #[error("it has a transfer-encoding, which HTTP/1.0 does not allow")]
    TransferEncoding,
    #[error("a chunk of the body has no valid size line")]
    ChunkSize,
    #[error("a chunk of the body does not end where its size says")]
    ChunkEnd,
    #[error("the lines after the body's last chunk are not header fields")]
    Trailer,
}

impl HttpError {
    /// Whether the bytes are valid and only the rest is missing.
    pub(super) fn is_cut(self) -> bool {
        matches!(self, Self::HeadCut | Self::BodyCut)
    }
}

impl From<ParseError> for HttpError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Version => Self::Version,
            ParseError::Status => Self::StatusLine,
            ParseError::TooManyHeaders => Self::TooLarge,
            _ => Self::Field,
        }
    }
}

/// The parser of one response.
#[derive(Debug)]
pub(super) struct ResponseReader {
    state: State,
    head: Option<ResponseHead>,
    /// An incomplete head or trailer.
    partial: Vec<u8>,
    /// The number of trailer lines so far.
    trailer_lines: usize,
}

/// The next byte that the parser expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// The first digit of a chunk size.
    Size,
    /// Another digit; the size so far.
    Digits(u64),
    /// A blank after the size.
    Blanks(u64),
    /// An extension after the size; its length so far.
    Extension(u64, usize),
    /// The LF after the size.
    SizeEnd(u64),
    /// Bytes of a chunk; the number left.
    Chunk(u64),
    /// The CR after a chunk, then the LF.
    ChunkCr,
    ChunkLf,
    /// The start of a line after the last chunk, the rest of the line, and its LF.
    Trailer,
    TrailerLine,
    TrailerLf,
    /// The LF that ends the response.
    LastLf,
    /// Bytes of a body with a content length; the number left.
    Length(u64),
    UntilClose,
    Done,
}

impl ResponseReader {
    pub(super) fn new() -> Self {
        Self { state: State::Head, head: None, partial: Vec::new(), trailer_lines: 0 }
    }

    /// Parses the next bytes and appends their part of the body to `body`, also before an error.
    /// Returns the number of bytes parsed: fewer than all if the response ends in them.
    pub(super) fn push(&mut self, bytes: &[u8], body: &mut BytesMut) -> Result<usize, HttpError> {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != State::Done {
            let taken = match self.state {
                State::Head => self.take_head(rest)?,
                State::Chunk(left) => {
                    let taken = take_body(rest, left, body);
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::ChunkCr } else { State::Chunk(left) };
                    taken
                }
                State::Length(left) => {
                    let taken = take_body(rest, left, body);
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    taken
                }
                State::UntilClose => take_body(rest, u64::MAX, body),
                State::Done => break,
                _ => match usual_line(self.state, rest) {
                    Some((next, taken)) => {
                        self.state = next;
                        taken
                    }
                    None => {
                        self.state = self.after_byte(rest[0])?;
                        1
                    }
                },
            };
            rest = &rest[taken..];
        }
        Ok(bytes.len() - rest.len())
    }

    /// The head, once it is complete.
    pub(super) fn head(&self) -> Option<&ResponseHead> {
        self.head.as_ref()
    }

    /// Whether the response is complete.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the response ends with the connection.
    pub(super) fn lasts_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Whether the connection may be reused after the response.
    pub(super) fn keeps_alive(&self) -> bool {
        let head = self.head.as_ref();
        self.is_done()
            && head.is_some_and(|head| match head.version {
                _ if head.status == StatusCode::SWITCHING_PROTOCOLS => false,
                Version::HTTP_11 => !head.has(header::CONNECTION, "close"),
                _ => head.has(header::CONNECTION, "keep-alive"),
            })
    }

    /// Notes the end of the connection. Fails if the response is incomplete.
    pub(super) fn close(&mut self) -> Result<(), HttpError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Head if self.partial.is_empty() => Err(HttpError::HeadCut),
            // An error in the head explains more than its missing end.
            State::Head => Err(parse_head(&self.partial).err().unwrap_or(HttpError::HeadCut)),
            _ => Err(HttpError::BodyCut),
        }
    }

    /// Collects the head up to its blank line. Skips blank lines before it.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let blank = self.partial.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        check_beginning(&self.partial[blank..])?;
        let searched = before.saturating_sub(blank);
        let Some(end) = head_end(&self.partial[blank..], searched).map(|end| blank + end) else {
            return match self.partial.len() < HEAD_LIMIT {
                true => Ok(bytes.len()),
                false => Err(HttpError::TooLarge),
            };
        };
        if end > HEAD_LIMIT {
            return Err(HttpError::TooLarge);
        }
        let head = parse_head(&self.partial[..end])?.ok_or(HttpError::Field)?;
        self.partial.clear();
        // Other informational responses precede the final one; 101 is final.
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            self.state = body_of(&head)?;
            self.head = Some(head);
        }
        Ok(end - before)
    }

    /// The state after a byte of the chunked coding.
    fn after_byte(&mut self, byte: u8) -> Result<State, HttpError> {
        match (self.state, byte) {
            (State::Size, byte) => digit(0, byte).map(State::Digits),
            (State::Digits(size) | State::Blanks(size), b' ' | b'\t') => Ok(State::Blanks(size)),
            (State::Digits(size) | State::Blanks(size), b';') => Ok(State::Extension(size, 0)),
            (State::Digits(size) | State::Blanks(size), b'\r') => Ok(State::SizeEnd(size)),
            (State::Digits(size), byte) => digit(size, byte).map(State::Digits),
            (State::Extension(size, _), b'\r') => Ok(State::SizeEnd(size)),
            (State::Extension(size, length), byte) if byte != b'\n' && length < LINE_LIMIT => {
                Ok(State::Extension(size, length + 1))
            }
            (State::SizeEnd(0), b'\n') => Ok(State::Trailer),
            (State::SizeEnd(size), b'\n') => Ok(State::Chunk(size)),
            (State::ChunkCr, b'\r') => Ok(State::ChunkLf),
            (State::ChunkLf, b'\n') => Ok(State::Size),
            (State::ChunkCr | State::ChunkLf, _) => Err(HttpError::ChunkEnd),
            (State::Trailer | State::TrailerLine | State::TrailerLf | State::LastLf, byte) => {
                self.after_trailer_byte(byte)
            }
            _ => Err(HttpError::ChunkSize),
        }
    }

    /// The state after a byte behind the last chunk. The trailer is collected and checked at its end.
    fn after_trailer_byte(&mut self, byte: u8) -> Result<State, HttpError> {
        if self.state != State::Trailer || byte != b'\r' || !self.partial.is_empty() {
            self.partial.push(byte);
        }
        let is_too_long = self.partial.len() >= LINE_LIMIT || self.trailer_lines > HEADERS_LIMIT;
        match (self.state, byte) {
            _ if is_too_long => Err(HttpError::Trailer),
            (State::Trailer, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') if self.has_valid_trailer() => Ok(State::Done),
            (State::TrailerLine, b'\r') => Ok(State::TrailerLf),
            (State::Trailer | State::TrailerLine, _) => Ok(State::TrailerLine),
            (State::TrailerLf, b'\n') => {
                self.trailer_lines += 1;
                Ok(State::Trailer)
            }
            _ => Err(HttpError::Trailer),
        }
    }

    fn has_valid_trailer(&self) -> bool {
        let mut fields = vec![EMPTY_HEADER; self.trailer_lines];
        // Without a trailer, `partial` holds the last LF only.
        self.trailer_lines == 0
            || httparse::parse_headers(&self.partial, &mut fields).is_ok_and(|s| s.is_complete())
    }
}

/// Refuses bytes that cannot become a head as early as possible.
fn check_beginning(bytes: &[u8]) -> Result<(), HttpError> {
    let is_begun = |whole: &[u8]| bytes.starts_with(&whole[..bytes.len().min(whole.len())]);
    match bytes {
        _ if bytes.starts_with(TLS_ALERT) => Err(HttpError::SpeaksTls),
        _ if is_begun(BEGINNING) || is_begun(TLS_ALERT) => Ok(()),
        _ => Err(HttpError::Version),
    }
}

/// The fast path for a complete line between two chunks without blanks or extensions: the next state
/// and the length of the line. Other lines are parsed byte by byte, which takes several times as long.
fn usual_line(state: State, bytes: &[u8]) -> Option<(State, usize)> {
    match state {
        State::ChunkCr => bytes.starts_with(b"\r\n").then_some((State::Size, 2)),
        State::Size => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16).map(u64::from);
            let digits = bytes.iter().take(8).map_while(digit);
            let (size, length) = digits.fold((0, 0), |(size, n), digit| (size * 16 + digit, n + 1));
            let is_usual = size > 0 && bytes[length..].starts_with(b"\r\n");
            is_usual.then_some((State::Chunk(size), length + 2))
        }
        _ => None,
    }
}

/// Appends a hexadecimal digit to a size.
fn digit(size: u64, byte: u8) -> Result<u64, HttpError> {
    let digit = char::from(byte).to_digit(16).ok_or(HttpError::ChunkSize)?;
    let size = size.checked_mul(16).and_then(|size| size.checked_add(digit.into()));
    size.ok_or(HttpError::ChunkSize)
}

fn take_body(bytes: &[u8], left: u64, body: &mut BytesMut) -> usize {
    let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    body.extend_from_slice(&bytes[..taken]);
    taken
}

/// The end of a head, including its blank line. The first `searched` bytes were searched before; a
/// blank line may begin in them.
fn head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    memchr::memchr_iter(b'\n', bytes.get(from..)?).map(|at| from + at + 1).find(|&end| {
        let before = &bytes[..end - 1];
        let before = before.strip_suffix(b"\r").unwrap_or(before);
        before.ends_with(b"\n")
    })
}

/// Parses a head; `None` if it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<ResponseHead>, HttpError> {
    match parse_fields(bytes, &mut [EMPTY_HEADER; USUAL_HEADERS]) {
        Err(ParseError::TooManyHeaders) => {
            Ok(parse_fields(bytes, &mut vec![EMPTY_HEADER; HEADERS_LIMIT])?)
        }
        parsed => Ok(parsed?),
    }
}

fn parse_fields<'a>(
    bytes: &'a [u8],
    fields: &mut [Header<'a>],
) -> Result<Option<ResponseHead>, ParseError> {
    let mut response = httparse::Response::new(fields);
    let parsed = ParserConfig::default()
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .parse_response(&mut response, bytes)?;
    if parsed == Status::Partial {
        return Ok(None);
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(ParseError::Status)?;
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        // httparse checked the characters: only the length can be wrong.
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| ParseError::TooManyHeaders)?;
        let value = HeaderValue::from_bytes(&unfolded(field.value));
        headers.append(name, value.map_err(|_| ParseError::HeaderValue)?);
    }
    Ok(Some(ResponseHead { status, version, headers }))
}

/// Joins the lines of a folded field value: RFC 9112, section 5.2.
fn unfolded(value: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr(b'\n', value) {
        None => value.into(),
        Some(_) => {
            let lines: Vec<_> =
                value.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).collect();
            lines.join(&b' ').into()
        }
    }
}

/// The state after `head`, which depends on how the body ends.
fn body_of(head: &ResponseHead) -> Result<State, HttpError> {
    let has_none =
        [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    if has_none.contains(&head.status) {
        return Ok(State::Done);
    }
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return match head.version {
            Version::HTTP_10 => Err(HttpError::TransferEncoding),
            _ if head.is_chunked() => Ok(State::Size),
            _ => Ok(State::UntilClose),
        };
    }
    Ok(match content_length(head)? {
        None => State::UntilClose,
        Some(0) => State::Done,
        Some(length) => State::Length(length),
    })
}

/// The content length, on which all fields and all values of a field must agree: RFC 9110, section
/// 8.6.
fn content_length(head: &ResponseHead) -> Result<Option<u64>, HttpError> {
    let mut length = None;
    for value in head.headers.get_all(header::CONTENT_LENGTH) {
        for digits in value.to_str().map_err(|_| HttpError::Length)?.split(',') {
            let digits = digits.trim();
            // `parse` also takes a sign.
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse().ok().filter(|&number| is_number && number <= LENGTH_LIMIT);
            let number = number.ok_or(HttpError::Length)?;
            if *length.get_or_insert(number) != number {
                return Err(HttpError::Length);
            }
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
        Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;name=\"x\"\r\n world\r\n0\r\nEnd: 1\r\n\r\n";
    const LENGTH: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\n\r\nhello world";
    const CLOSE: &str = "HTTP/1.0 200 OK\n\nhello world";
    const CONTINUED: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\
        connection: Close\r\ncontent-length: 11\r\n\r\nhello world";

    /// Status, body, and whether the connection may be kept.
    fn read(pieces: &[&[u8]]) -> Result<(u16, String, bool), HttpError> {
        let mut reader = ResponseReader::new();
        let mut body = BytesMut::new();
        for piece in pieces {
            reader.push(piece, &mut body)?;
        }
        reader.close()?;
        let status = reader.head().map_or(0, |head| head.status.as_u16());
        Ok((status, String::from_utf8_lossy(&body).into_owned(), reader.keeps_alive()))
    }

    #[test]
    fn bodies_end_as_their_heads_say() {
        let expected = |status, keeps| Ok((status, "hello world".to_owned(), keeps));
        assert_eq!(read(&[CHUNKED.as_bytes()]), expected(200, true));
        assert_eq!(read(&[LENGTH.as_bytes()]), expected(400, true));
        assert_eq!(read(&[CLOSE.as_bytes()]), expected(200, false));
        assert_eq!(read(&[CONTINUED.as_bytes()]), expected(200, false));
    }

    #[test]
    fn what_follows_the_end_is_not_taken() {
        let mut reader = ResponseReader::new();
        let two = format!("{LENGTH}{CHUNKED}");
        let taken = reader.push(two.as_bytes(), &mut BytesMut::new());
        assert_eq!(taken, Ok(LENGTH.len()));
        assert!(reader.is_done());
    }

    #[test]
    fn a_body_that_is_cut_is_an_error_unless_it_ends_with_the_connection() {
        for text in [CHUNKED, LENGTH] {
            for end in 0..text.len() {
                assert!(read(&[&text.as_bytes()[..end]]).is_err(), "{:?}", &text[..end]);
            }
        }
        assert!(read(&[&CLOSE.as_bytes()[..CLOSE.len() - 3]]).is_ok());
    }

    /// The error of a whole response that the connection's end follows.
    fn error(text: &str) -> Option<HttpError> {
        read(&[text.as_bytes()]).err()
    }

    #[test]
    fn bytes_that_are_not_a_response_are_refused_with_the_reason() {
        let headed = |head: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nhello world");
        let chunked = |body: &str| headed(&format!("transfer-encoding: chunked\r\n\r\n{body}"));
        let long = "a".repeat(HEAD_LIMIT);
        for (text, wrong) in [
            ("SSH-2.0-OpenSSH\r\n\r\n".into(), HttpError::Version),
            ("HTTP/2 200\r\n\r\n".into(), HttpError::Version),
            ("HTTP/1.2 200 OK\r\n\r\n".into(), HttpError::Version),
            ("ICY 200 OK\r\n\r\n".into(), HttpError::Version),
            ("\x15\x03\x01\0\x02\x02\x46".into(), HttpError::SpeaksTls),
            ("HTTP/1.1 2000 OK\r\n\r\n".into(), HttpError::StatusLine),
            ("HTTP/1.1 OK\r\n\r\n".into(), HttpError::StatusLine),
            ("HTTP/1.1 099 OK\r\n\r\n".into(), HttpError::StatusLine),
            (headed("x: a\0"), HttpError::Field),
            (headed("x: a\rb: c"), HttpError::Field),
            (headed(&format!("x: {long}")), HttpError::TooLarge),
            (headed(&"a: b\r\n".repeat(HEADERS_LIMIT + 1)), HttpError::TooLarge),
            (headed(&format!("{}: b", "a".repeat(1 << 16))), HttpError::TooLarge),
            (headed("content-length: many"), HttpError::Length),
            (headed("content-length: +5"), HttpError::Length),
            (headed("content-length: -5"), HttpError::Length),
            (headed("content-length: 5 5"), HttpError::Length),
            (headed("content-length:"), HttpError::Length),
            (headed("content-length: 5,"), HttpError::Length),
            (headed("content-length: 5, 6"), HttpError::Length),
            (headed("content-length: 5\r\ncontent-length: 6"), HttpError::Length),
            (headed("content-length: 18446744073709551616"), HttpError::Length),
            (chunked("").replace("1.1", "1.0"), HttpError::TransferEncoding),
            (chunked("xyz\r\n"), HttpError::ChunkSize),
            (chunked(" 5\r\nhello\r\n"), HttpError::ChunkSize),
            (chunked("+5\r\nhello\r\n"), HttpError::ChunkSize),
            (chunked("5\nhello\r\n"), HttpError::ChunkSize),
            (chunked("5 5\r\nhello\r\n"), HttpError::ChunkSize),
            (chunked("fffffffffffffffff\r\n"), HttpError::ChunkSize),
            (chunked(&format!("5;{}\r\nhello", "a".repeat(LINE_LIMIT + 1))), HttpError::ChunkSize),
            (chunked("2\r\nhello\r\n"), HttpError::ChunkEnd),
            (chunked("0\r\nno field\r\n\r\n"), HttpError::Trailer),
            (chunked("0\r\na: b\r\n\rx"), HttpError::Trailer),
            (chunked(&format!("0\r\na: {}", "b".repeat(LINE_LIMIT))), HttpError::Trailer),
            ("".into(), HttpError::HeadCut),
            ("HTTP/1.1 200 OK\r\n".into(), HttpError::HeadCut),
            (headed("content-length: 12"), HttpError::BodyCut),
        ] {
            assert_eq!(error(&text), Some(wrong), "{:?}", text.get(..80).unwrap_or(&text));
        }
    }

    #[test]
    fn a_header_that_no_figure_depends_on_fails_nothing() {
        let many: String = (0..150).map(|n| format!("x-{n}: v\r\n")).collect();
        let long = format!("x: {}\r\n", "a".repeat(300 << 10));
        for fields in [
            "",
            "X-Odd : a\r\n",
            "x-folded: a\r\n b\r\n\tc\r\n",
            "x-latin: caf\u{e9}\r\n",
            "x-empty:\r\n",
            "x y: not a name\r\n",
            "no colon\r\n",
            ": no name\r\n",
            " begins with a blank\r\n",
            "x\u{e9}: not a name\r\n",
            "x-control: a\u{1}b\r\n",
            &many,
            &long,
        ] {
            for length in [
                "content-length: 11",
                "Content-Length:11",
                "CONTENT-LENGTH : 11, 11",
                "content-length: 11\r\ncontent-length: 011",
                "content-length:\r\n 11",
                "content-length: 5\r\ntransfer-encoding: gzip,\r\n chunked",
            ] {
                let body = match length.contains("chunked") {
                    true => "b \r\nhello world\r\n0\r\n\r\n",
                    false => "hello world",
                };
                let text = format!("HTTP/1.1 200\r\n{fields}{length}\r\n\r\n{body}");
                let expected = Ok((200, "hello world".to_owned(), true));
                assert_eq!(read(&[text.as_bytes()]), expected, "{fields:.80?} {length:?}");
                // Lines of a head may end with LF alone, and blank ones come before it.
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let text = format!("\r\n\n{}\n\n{body}", head.replace("\r\n", "\n"));
                assert_eq!(read(&[text.as_bytes()]), expected, "{fields:.80?} {length:?}");
            }
        }
    }

    #[test]
    fn any_number_of_interim_answers_is_skipped_and_another_protocol_is_an_answer() {
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(1000);
        let expected = Ok((400, "hello world".to_owned(), true));
        assert_eq!(read(&[interim.as_bytes(), LENGTH.as_bytes()]), expected);
        let switched = format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n{LENGTH}");
        assert_eq!(read(&[switched.as_bytes()]), Ok((101, String::new(), false)));
    }

    #[test]
    fn what_came_before_an_error_is_kept() {
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz";
        for cut in 0..text.len() {
            let (mut reader, mut body) = (ResponseReader::new(), BytesMut::new());
            let [one, other] = [&text[..cut], &text[cut..]];
            let pushed = [one, other].map(|piece| reader.push(piece.as_bytes(), &mut body));
            assert!(pushed.iter().any(Result::is_err));
            assert_eq!(body, "hello");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            which in 0_usize..4,
            mut cuts in prop::collection::vec(0_usize..200, 0..12),
        ) {
            let bytes = [CHUNKED, LENGTH, CLOSE, CONTINUED][which].as_bytes();
            cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(read(&pieces), read(&[bytes]));
        }
    }
}
