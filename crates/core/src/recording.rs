//! What a request received: the bytes with their arrival times, or an error.
//!
//! The client creates a [`Recording`], and everything afterwards reads it. A recording contains no
//! clock and no socket, so every figure can be computed again from a file. Files are JSON lines,
//! see [`Recording::to_jsonl`]; `fixtures/streams` contains recordings of real servers.

use std::{
    any::Any,
    borrow::Cow,
    fmt, str,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

use crate::text::visible_json;

/// The bytes of one read, or a part of them with a known arrival time. The time is taken before the
/// bytes are interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Arrival of the last byte, counted from the start of the request.
    pub at: Duration,
    /// How long before `at` the first byte can have arrived: the time since the socket was last
    /// known to be empty. Zero if all bytes arrived at `at`.
    pub uncertainty: Duration,
    /// The bytes of the body, without transfer coding.
    pub bytes: Bytes,
}

/// One response: its body as it arrived, not interpreted.
///
/// All times count from the moment at which the request was handed to an open connection. Only
/// [`connect`](Self::connect) covers the setup of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The moment from which all times count. Files do not contain it.
    pub origin: Option<Instant>,
    /// HTTP status.
    pub status: u16,
    /// The `content-type` header.
    pub content_type: Option<String>,
    /// The `content-encoding` header.
    pub content_encoding: Option<String>,
    /// When the server allows a retry: [`retry_after`].
    pub retry_after: Option<String>,
    /// The `server` header: the software, which may be that of a proxy.
    pub server: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub http_version: String,
    /// The server's time to the response headers, as reported in them ([`head_time`]).
    pub head_time: Option<Duration>,
    /// DNS, TCP and TLS of a new connection; `None` for a reused one.
    pub connect: Option<Duration>,
    /// The TLS handshake within `connect`, if the transport measures it.
    pub tls: Option<Duration>,
    /// When the kernel had accepted the last byte of the request, if the transport measures it.
    pub sent: Option<Duration>,
    /// Arrival of the response headers ("first byte").
    pub headers_at: Duration,
    /// The body, one chunk per read.
    pub chunks: Vec<Chunk>,
    /// When the body ended or failed.
    pub ended_at: Duration,
    /// Whose clock took the times.
    pub stamped_by: StampedBy,
    /// How much earlier the headers and the end can have arrived.
    pub uncertainty: Uncertainty,
    /// Why the body did not end as HTTP requires; `None` if it did.
    pub broken: Option<RequestError>,
    /// Counts the memory of the body, if the client does.
    pub hold: MemoryHold,
}

/// Something that is dropped with the last copy of a recording. All are equal.
#[derive(Clone, Default)]
pub struct MemoryHold(Option<Arc<dyn Any + Send + Sync>>);

impl MemoryHold {
    /// Holds `counted`.
    pub fn new(counted: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(counted)))
    }
}

impl fmt::Debug for MemoryHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryHold").field(&self.0.is_some()).finish()
    }
}

impl PartialEq for MemoryHold {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for MemoryHold {}

/// How much earlier than recorded the parts of an answer can have arrived. [`Chunk::uncertainty`]
/// covers the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uncertainty {
    /// Of [`Recording::headers_at`].
    pub headers: Duration,
    /// Of [`Recording::ended_at`].
    pub end: Duration,
    /// The largest uncertainty of a chunk's last byte with kernel timestamps. It is zero unless one
    /// of them was impossible.
    pub last_bytes: Duration,
}

impl Recording {
    /// Returns the whole body.
    pub fn body(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|chunk| chunk.bytes.iter().copied()).collect()
    }

    /// Formats the recording as a file: one line for the head and one per chunk, each a JSON
    /// object.
    ///
    /// ```text
    /// {"status":200,"content_type":"text/event-stream","http_version":"HTTP/1.1","connect_ns":1410000,"headers_ns":3443000,"ended_ns":3311100000,"chunks":2}
    /// {"at_ns":138341000,"text":"data: {…}\n\n"}
    /// {"at_ns":162103000,"hex":"646174613a20e2"}
    /// ```
    ///
    /// Times are whole nanoseconds, so the file is exact. Uncertainties that are not zero are in
    /// `uncertainty_ns`, `headers_uncertainty_ns`, `ended_uncertainty_ns` and
    /// `last_bytes_uncertainty_ns`; older files lack them. The bytes of a chunk are in `text`, or
    /// in `hex` if they are not valid UTF-8: a read may end within a character. If the body failed,
    /// the head has `"broken":{"kind":…,"message":…}`. `chunks` is the number of the lines after the
    /// head, by which a reader notices that some are missing; older files lack it. [`from_jsonl`](Self::from_jsonl) also
    /// accepts a free-text `note` in the head.
    pub fn to_jsonl(&self) -> String {
        let mut file = json_line(&RecordingHeader::from(self));
        file.extend(self.chunks.iter().map(|chunk| json_line(&RecordingLine::from(chunk))));
        file
    }

    /// Parses a file that [`to_jsonl`](Self::to_jsonl) formatted. Blank lines are skipped.
    pub fn from_jsonl(file: &str) -> Result<Self, ParseRecordingError> {
        let mut lines = (1..).zip(file.lines()).filter(|(_, line)| !line.trim().is_empty());
        let (number, line) = lines.next().unwrap_or((1, ""));
        let head: RecordingHeader = parse_line(number, line)?;
        let chunks = lines.map(|(number, line)| {
            let line: RecordingLine<'_> = parse_line(number, line)?;
            line.into_chunk().map_err(|problem| bad(number, problem))
        });
        let chunks = chunks.collect::<Result<Vec<_>, _>>()?;
        match head.chunks {
            Some(all) if all != chunks.len() => {
                let problem = format!("the file is incomplete: {} of {all} chunks", chunks.len());
                Err(bad(file.lines().count(), problem))
            }
            _ => Ok(head.with_chunks(chunks)),
        }
    }
}

/// Headers with the server's time to the response headers in milliseconds: OpenAI's header, and
/// that of Envoy, a proxy in front of many servers, which counts from its receipt of the request.
const HEAD_TIMES: &[&str] = &["openai-processing-ms", "x-envoy-upstream-service-time"];

/// Returns the server's time to these response headers, if they report it.
pub fn head_time(headers: &HeaderMap) -> Option<Duration> {
    let value = HEAD_TIMES.iter().find_map(|name| headers.get(*name))?;
    let milliseconds: f64 = value.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1e3).ok()
}

/// Returns when the server allows a retry: seconds or a date. Azure and OpenAI also send
/// milliseconds.
pub fn retry_after(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| {
        let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        value.filter(|value| !value.trim().is_empty()).map(|value| value.trim().to_owned())
    };
    let is_number = |value: &str| value.parse::<f64>().is_ok();
    let with_unit = |value: String, unit: &str| match is_number(&value) {
        true => format!("{value} {unit}"),
        false => value,
    };
    let seconds = text("retry-after").map(|value| with_unit(value, "s"));
    seconds.or_else(|| Some(with_unit(text("retry-after-ms")?, "ms")))
}

/// Returns the value of header `name` as text.
pub fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Whose clock took the arrival times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StampedBy {
    /// The kernel's, when the packet arrived. A read has one timestamp, that of its last packet, so
    /// earlier bytes of a late read are recorded up to [`Chunk::uncertainty`] too late. An
    /// impossible timestamp is replaced by the program's.
    Kernel,
    /// The program's, after the read: late by the scheduling delay.
    #[default]
    Program,
}

impl StampedBy {
    /// Returns the name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Program => "program",
        }
    }
}

/// Why a request has no sample: a kind to count by and a message to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct RequestError {
    /// The kind. The CSV, the summary and the documents use its name.
    pub kind: ErrorKind,
    /// One line: what happened, where, and what to do.
    pub message: String,
}

impl RequestError {
    /// Creates an error.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])+ $kind:ident = $name:literal,)+) => {
        /// The kinds of request errors. Reports print their names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
pub enum ErrorKind { $($(#[$doc])+ #[serde(rename = $name)] $kind,)+ }

        impl ErrorKind {
            /// All kinds, in the order in which a request can encounter them.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// Returns the kind's name in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

error_kinds! {
    /// No connection: DNS failed, refused, unreachable.
    Connect = "connect",
    /// The TLS handshake failed.
    Tls = "tls",
    /// The limit `timeouts.connect` was exceeded.
    ConnectTimeout = "connect_timeout",
    /// The limit `timeouts.first_token` was exceeded without a generated token.
    FirstTokenTimeout = "first_token_timeout",
    /// The limit `timeouts.inter_token` was exceeded after the last token.
    InterTokenTimeout = "inter_token_timeout",
    /// The limit `timeouts.total` was exceeded before the answer ended.
    TotalTimeout = "total_timeout",
    /// An HTTP status other than 2xx.
    HttpStatus = "http_status",
    /// A redirect. The client follows none.
    Redirect = "redirect",
    /// The body is not an event stream.
    NotAStream = "not_a_stream",
    /// The connection failed before the end of the body.
    Broken = "broken",
    /// The answer is longer than the client keeps, or all answers together exceed `max_memory`.
    TooLong = "too_long",
    /// The answer had ended but the server kept its body open, so the client closed the connection.
    LeftOpen = "left_open",
    /// The bytes are not an event stream of this protocol.
    Malformed = "malformed",
    /// An error inside the stream, after a 200.
    InBand = "in_band",
    /// The stream ended without a generated token.
    NoToken = "no_token",
    /// The stream ended without a finish reason, so the answer is incomplete.
    NoFinishReason = "no_finish_reason",
    /// The server sent no token counts, and the config names no other source.
    NoUsage = "no_usage",
    /// No prompt of the requested length was found.
    PromptLength = "prompt_length",
    /// The run was interrupted.
    Interrupted = "interrupted",
    /// The results could not be written, so they lack the trial.
    NotWritten = "not_written",
    /// A defect in this program.
    Internal = "internal",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn json_line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("numbers and strings are JSON");
    visible_json(&json).into_owned() + "\n"
}

fn parse_line<'a, T: Deserialize<'a>>(
    number: usize,
    line: &'a str,
) -> Result<T, ParseRecordingError> {
    serde_json::from_str(line).map_err(|error| bad(number, error))
}

fn bad(line: usize, problem: impl ToString) -> ParseRecordingError {
    ParseRecordingError { line, problem: problem.to_string() }
}

/// Why a file is not a recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the recording is wrong: {problem}")]
pub struct ParseRecordingError {
    /// The line, counted from 1.
    pub line: usize,
    /// The problem in this line.
    pub problem: String,
}

/// The first line of a recording file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordingHeader {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    http_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_ns: Option<u64>,
    headers_ns: u64,
    ended_ns: u64,
    /// The number of chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunks: Option<usize>,
    #[serde(default, skip_serializing_if = "is_default")]
    headers_uncertainty_ns: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    ended_uncertainty_ns: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    last_bytes_uncertainty_ns: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    stamped_by: StampedBy,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<RequestError>,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "for the reader of the file, not for us")]
    note: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A further line: a chunk with its bytes as `text` or `hex`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordingLine<'a> {
    at_ns: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    uncertainty_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl From<&Recording> for RecordingHeader {
    fn from(recording: &Recording) -> Self {
        Self {
            status: recording.status,
            content_type: recording.content_type.clone(),
            content_encoding: recording.content_encoding.clone(),
            retry_after: recording.retry_after.clone(),
            server: recording.server.clone(),
            http_version: recording.http_version.clone(),
            head_ns: recording.head_time.map(nanos),
            connect_ns: recording.connect.map(nanos),
            tls_ns: recording.tls.map(nanos),
            sent_ns: recording.sent.map(nanos),
            headers_ns: nanos(recording.headers_at),
            ended_ns: nanos(recording.ended_at),
            chunks: Some(recording.chunks.len()),
            headers_uncertainty_ns: nanos(recording.uncertainty.headers),
            ended_uncertainty_ns: nanos(recording.uncertainty.end),
            last_bytes_uncertainty_ns: nanos(recording.uncertainty.last_bytes),
            stamped_by: recording.stamped_by,
            broken: recording.broken.clone(),
            note: None,
        }
    }
}

impl RecordingHeader {
    fn with_chunks(self, chunks: Vec<Chunk>) -> Recording {
        Recording {
            origin: None,
            status: self.status,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            retry_after: self.retry_after,
            server: self.server,
            http_version: self.http_version,
            head_time: self.head_ns.map(Duration::from_nanos),
            connect: self.connect_ns.map(Duration::from_nanos),
            tls: self.tls_ns.map(Duration::from_nanos),
            sent: self.sent_ns.map(Duration::from_nanos),
            headers_at: Duration::from_nanos(self.headers_ns),
            chunks,
            ended_at: Duration::from_nanos(self.ended_ns),
            stamped_by: self.stamped_by,
            uncertainty: Uncertainty {
                headers: Duration::from_nanos(self.headers_uncertainty_ns),
                end: Duration::from_nanos(self.ended_uncertainty_ns),
                last_bytes: Duration::from_nanos(self.last_bytes_uncertainty_ns),
            },
            broken: self.broken,
            hold: MemoryHold::default(),
        }
    }
}

impl<'a> From<&'a Chunk> for RecordingLine<'a> {
    fn from(chunk: &'a Chunk) -> Self {
        let text = str::from_utf8(&chunk.bytes).ok();
        let hex = text.is_none().then(|| to_hex(&chunk.bytes));
        let uncertainty_ns = nanos(chunk.uncertainty);
        Self { at_ns: nanos(chunk.at), uncertainty_ns, text: text.map(Cow::from), hex }
    }
}

impl RecordingLine<'_> {
    fn into_chunk(self) -> Result<Chunk, &'static str> {
        let bytes = match (self.text, self.hex) {
            (Some(text), None) => text.into_owned().into_bytes(),
            (None, Some(hex)) => from_hex(&hex).ok_or("`hex` requires pairs of hex digits")?,
            _ => return Err("a chunk requires either `text` or `hex`"),
        };
        let uncertainty = Duration::from_nanos(self.uncertainty_ns);
        Ok(Chunk { at: Duration::from_nanos(self.at_ns), uncertainty, bytes: bytes.into() })
    }
}

/// Returns whole nanoseconds; a `u64` covers 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn any_recording() -> impl Strategy<Value = Recording> {
        let time = || any::<u64>().prop_map(Duration::from_nanos);
        let bytes = prop_oneof![vec(any::<u8>(), 0..40), ".*".prop_map(String::into_bytes)];
        let chunk = (time(), time(), bytes).prop_map(|(at, uncertainty, bytes)| {
            let bytes = bytes.into();
            Chunk { at, uncertainty, bytes }
        });
        let error = (proptest::sample::select(ErrorKind::ALL), ".*")
            .prop_map(|(kind, message)| RequestError::new(kind, message));
        let stamped_by = prop_oneof![Just(StampedBy::Kernel), Just(StampedBy::Program)];
        let uncertainty = (time(), time(), time())
            .prop_map(|(headers, end, last_bytes)| Uncertainty { headers, end, last_bytes });
        let clock = (stamped_by, uncertainty);
        let set_up = (option::of(time()), option::of(time()), option::of(time()), clock);
        let texts = (option::of(".*"), option::of(".*"), option::of(".*"), ".*");
        let described = (texts, option::of(time()));
        let head = (any::<u16>(), described, set_up, time(), time());
        (head, vec(chunk, 0..5), option::of(error)).prop_map(|(head, chunks, broken)| {
            let (status, described, set_up, headers_at, ended_at) = head;
            let (texts, head_time) = described;
            let (content_type, content_encoding, retry_after, http_version) = texts;
            let (connect, tls, sent, (stamped_by, uncertainty)) = set_up;
            Recording {
                origin: None,
                status,
                content_type,
                content_encoding,
                retry_after,
                server: None,
                http_version,
                head_time,
                connect,
                tls,
                sent,
                headers_at,
                chunks,
                ended_at,
                stamped_by,
                uncertainty,
                broken,
                hold: MemoryHold::default(),
            }
        })
    }

    proptest! {
        #[test]
        fn a_file_gives_the_recording_again(recording in any_recording()) {
            prop_assert_eq!(Recording::from_jsonl(&recording.to_jsonl()), Ok(recording));
        }
    }

    const HEAD: &str = r#"{"status":200,"http_version":"HTTP/1.1","headers_ns":1,"ended_ns":2"#;

    #[test]
    fn bytes_that_are_no_text_by_themselves_are_hex() {
        let file = format!("{HEAD}}}\n{}\n", r#"{"at_ns":1,"hex":"e282"}"#);
        let recording = Recording::from_jsonl(&file).expect("a recording");
        assert_eq!(recording.chunks[0].bytes, &b"\xe2\x82"[..]);
        assert_eq!(recording.to_jsonl(), file.replacen("}\n", ",\"chunks\":1}\n", 1));
    }

    #[test]
    fn a_part_of_a_file_is_not_a_recording() {
        let chunk = "{\"at_ns\":1,\"text\":\"a\"}\n";
        let file = format!("{HEAD},\"chunks\":2}}\n{chunk}{chunk}");
        assert!(Recording::from_jsonl(file.trim_end()).is_ok());
        for end in 0..file.len() - 1 {
            assert!(Recording::from_jsonl(&file[..end]).is_err(), "{}", &file[..end]);
        }
        let part = Recording::from_jsonl(&file[..file.len() - chunk.len()]).expect_err("a part");
        let why = "line 2 of the recording is wrong: the file is incomplete: 1 of 2 chunks";
        assert_eq!(part.to_string(), why);
    }

    #[test]
    fn a_note_is_for_the_reader() {
        let file = format!("{HEAD},\"note\":\"by hand\"}}\n");
        assert!(Recording::from_jsonl(&file).is_ok());
    }

    #[test]
    fn a_bad_file_says_which_line() {
        let problem = |file: &str| Recording::from_jsonl(file).map(drop).map_err(|e| e.to_string());
        let [no_bytes, bad_hex, bad_field] = [
            format!("{HEAD}}}\n\n{{\"at_ns\":1}}\n"),
            format!("{HEAD}}}\n{{\"at_ns\":1,\"hex\":\"e2f\"}}\n"),
            format!("{HEAD},\"conect_ns\":1}}\n"),
        ]
        .map(|file| problem(&file).expect_err("bad"));
        let no_bytes_says =
            "line 3 of the recording is wrong: a chunk requires either `text` or `hex`";
        assert_eq!(no_bytes, no_bytes_says);
        assert_eq!(bad_hex, "line 2 of the recording is wrong: `hex` requires pairs of hex digits");
        assert!(
            bad_field.starts_with("line 1 of the recording is wrong: unknown field `conect_ns`")
        );
        assert!(problem("").is_err());
    }

    #[test]
    fn a_body_that_broke_says_its_kind_by_name() {
        let broken = r#""broken":{"kind":"broken","message":"reset"}"#;
        let file = format!("{HEAD},\"chunks\":0,{broken}}}\n");
        let recording = Recording::from_jsonl(&file).expect("a recording");
        assert_eq!(recording.broken, Some(RequestError::new(ErrorKind::Broken, "reset")));
        assert_eq!(recording.to_jsonl(), file);
    }
}
