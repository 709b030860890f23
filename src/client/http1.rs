//! One HTTP/1.1 response, read from bytes that come in any pieces. Pure.
//!
//! RFC 9112: a body is chunked, of a stated length, or ends with the connection. Only the last of
//! these can be cut without a sign.

use std::fmt;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};

/// Longest head accepted, bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Most header fields accepted.
const HEADERS_LIMIT: usize = 128;

/// How a TLS server begins to say that it was not spoken to in TLS.
const TLS_ALERT: &[u8] = &[21, 3];

/// What is then wrong.
const SPEAKS_TLS: &str = "the server speaks TLS on that port: `https://` in `base_url`";

/// Longest line of a chunked coding: a chunk's size with its extensions, or a trailer field.
const LINE_LIMIT: usize = 16 << 10;

/// A response's status line and headers.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
}

impl Head {
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn has(&self, name: HeaderName, token: &str) -> bool {
        let values = self.headers.get_all(name).into_iter();
        let mut tokens = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        tokens.any(|other| other.trim().eq_ignore_ascii_case(token))
    }
}

/// Bytes that are no HTTP/1.1 response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotHttp(pub(super) &'static str);

impl fmt::Display for NotHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Reads a response.
#[derive(Debug)]
pub(super) struct ResponseReader {
    state: State,
    head: Option<Head>,
    /// A head or a line of the chunked coding that is not whole yet.
    partial: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// The size of the next chunk.
    Size,
    /// This many bytes of a chunk are left.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailer,
    /// This many bytes of the body are left.
    Length(u64),
    UntilClose,
    Done,
}

impl ResponseReader {
    pub(super) fn new() -> Self {
        Self { state: State::Head, head: None, partial: Vec::new() }
    }

    /// Takes the next bytes and appends what of them is body to `body`. What follows the
    /// response's end is left out; see [`push`](Self::push)'s value: how many were taken.
    pub(super) fn push(&mut self, bytes: &[u8], body: &mut BytesMut) -> Result<usize, NotHttp> {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != State::Done {
            let taken = match self.state {
                State::Head => self.take_head(rest)?,
                State::Chunk(left) => {
                    let taken = take_body(rest, left, body);
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    taken
                }
                State::Length(left) => {
                    let taken = take_body(rest, left, body);
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    taken
                }
                State::UntilClose => take_body(rest, u64::MAX, body),
                State::Size | State::ChunkEnd | State::Trailer => self.take_line(rest)?,
                State::Done => break,
            };
            rest = &rest[taken..];
        }
        Ok(bytes.len() - rest.len())
    }

    /// The head, once it is whole.
    pub(super) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Whether the response is whole.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether only the connection's end can be the response's.
    pub(super) fn lasts_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Whether the connection may be used again after the response.
    pub(super) fn keeps_alive(&self) -> bool {
        let head = self.head.as_ref();
        self.is_done()
            && head.is_some_and(|head| match head.version {
                Version::HTTP_11 => !head.has(header::CONNECTION, "close"),
                _ => head.has(header::CONNECTION, "keep-alive"),
            })
    }

    /// The connection has ended: whether that is the response's end.
    pub(super) fn close(&mut self) -> Result<(), NotHttp> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Head if self.partial.is_empty() => {
                Err(NotHttp("the server closed the connection without an answer"))
            }
            State::Head => Err(NotHttp("the connection ended inside the response's head")),
            _ => Err(NotHttp("the connection ended before the body did")),
        }
    }

    /// Gathers a head until its blank line.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, NotHttp> {
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        if self.partial.starts_with(TLS_ALERT) {
            return Err(NotHttp(SPEAKS_TLS));
        }
        let Some(end) = head_end(&self.partial, before) else {
            return match self.partial.len() > HEAD_LIMIT {
                true => Err(NotHttp("the response's head is longer than 64 KiB")),
                false => Ok(bytes.len()),
            };
        };
        let head = parse_head(&self.partial[..end])?;
        self.partial.clear();
        if !head.status.is_informational() {
            self.state = body_of(&head)?;
            self.head = Some(head);
        }
        Ok(end - before)
    }

    /// Gathers a line of the chunked coding.
    fn take_line(&mut self, bytes: &[u8]) -> Result<usize, NotHttp> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.partial.extend_from_slice(bytes);
            return match self.partial.len() > LINE_LIMIT {
                true => Err(NotHttp("a line of the chunked coding is longer than 16 KiB")),
                false => Ok(bytes.len()),
            };
        };
        let next = match self.partial.is_empty() {
            true => line(self.state, &bytes[..end])?,
            false => {
                self.partial.extend_from_slice(&bytes[..end]);
                let next = line(self.state, &self.partial)?;
                self.partial.clear();
                next
            }
        };
        self.state = next;
        Ok(end + 1)
    }
}

/// What follows a line of the chunked coding.
fn line(state: State, line: &[u8]) -> Result<State, NotHttp> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match state {
        State::Size => Ok(match chunk_size(line)? {
            0 => State::Trailer,
            size => State::Chunk(size),
        }),
        State::ChunkEnd if line.is_empty() => Ok(State::Size),
        State::ChunkEnd => Err(NotHttp("a chunk of the body is longer than it says")),
        _ if line.is_empty() => Ok(State::Done),
        _ => Ok(State::Trailer),
    }
}

/// The size in hexadecimal digits; extensions after a semicolon are ignored.
fn chunk_size(line: &[u8]) -> Result<u64, NotHttp> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let text = str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(NotHttp("a chunk of the body has no size"))
}

fn take_body(bytes: &[u8], left: u64, body: &mut BytesMut) -> usize {
    let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    body.extend_from_slice(&bytes[..taken]);
    taken
}

/// Where a head ends, blank line included; all before `searched` is known to hold no end but a
/// begun one.
fn head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1).find(|&end| {
        let before = &bytes[..end - 1];
        let before = before.strip_suffix(b"\r").unwrap_or(before);
        before.ends_with(b"\n")
    })
}

fn parse_head(bytes: &[u8]) -> Result<Head, NotHttp> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(NotHttp("the answer is not HTTP/1.1")),
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
            headers.append(name, value);
        }
    }
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let status = status.ok_or(NotHttp("the answer's status is none of HTTP's"))?;
    Ok(Head { status, version, headers })
}

/// How the body that follows `head` ends.
fn body_of(head: &Head) -> Result<State, NotHttp> {
    if head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED {
        return Ok(State::Done);
    }
    if head.has(header::TRANSFER_ENCODING, "chunked") {
        return Ok(State::Size);
    }
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(NotHttp("the body has a transfer coding other than chunked"));
    }
    match head.header(header::CONTENT_LENGTH) {
        None => Ok(State::UntilClose),
        Some(length) => match length.trim().parse() {
            Ok(0) => Ok(State::Done),
            Ok(length) => Ok(State::Length(length)),
            Err(_) => Err(NotHttp("the body's length is not a number")),
        },
    }
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
    fn read(pieces: &[&[u8]]) -> Result<(u16, String, bool), NotHttp> {
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

    #[test]
    fn bytes_that_are_no_response_are_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(HEAD_LIMIT));
        for text in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            &long,
        ] {
            let mut reader = ResponseReader::new();
            assert!(reader.push(text.as_bytes(), &mut BytesMut::new()).is_err(), "{text:?}");
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
