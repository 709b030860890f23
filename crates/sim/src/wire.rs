//! HTTP/1.1 as bytes: parses the heads of requests, writes answers and chunks. Pure.

use http::StatusCode;
use httparse::{EMPTY_HEADER, Header, Status};

/// The longest head of a request, bytes.
pub(super) const HEAD_LIMIT: usize = 64 << 10;

/// The longest body of a request, bytes.
pub(super) const BODY_LIMIT: usize = 64 << 20;

/// The largest number of header fields of a request.
const FIELD_LIMIT: usize = 128;

/// The end of a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The interim answer to `expect: 100-continue`.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const SERVER: &str = "server: llm-stream-bench-sim\r\n";

/// The fields of a request's head that the simulator uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestHead {
    /// `POST`, `GET`…
    pub(super) method: String,
    /// The path, without query.
    pub(super) path: String,
    /// Size of the body that follows, bytes.
    pub(super) body: usize,
    /// Whether the connection stays open afterwards.
    pub(super) keep_alive: bool,
    /// Whether the client waits for [`CONTINUE`].
    pub(super) expects_continue: bool,
}

/// Why a request cannot be read. The connection must be closed afterwards, because the start of the
/// next request is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HttpRefusal {
    /// HTTP status.
    pub(super) status: u16,
    /// The reason, in the error body.
    pub(super) message: &'static str,
}

const fn refusal(status: u16, message: &'static str) -> HttpRefusal {
    HttpRefusal { status, message }
}

/// Parses a head at the beginning of `bytes` and returns it with its size; `None` if it is
/// incomplete.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, HttpRefusal> {
    let mut fields = [EMPTY_HEADER; FIELD_LIMIT];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Partial) if bytes.len() > HEAD_LIMIT => Err(TOO_LONG),
        Ok(Status::Partial) => Ok(None),
        Ok(Status::Complete(size)) if size > HEAD_LIMIT => Err(TOO_LONG),
        Ok(Status::Complete(size)) => Ok(Some((head(&request)?, size))),
        Err(httparse::Error::TooManyHeaders) => Err(TOO_LONG),
        Err(_) => Err(refusal(400, "this is not an HTTP request")),
    }
}

const TOO_LONG: HttpRefusal = refusal(431, "the request's head is too long");

fn head(request: &httparse::Request<'_, '_>) -> Result<RequestHead, HttpRefusal> {
    if request.version != Some(1) {
        return Err(refusal(505, "only HTTP/1.1 is supported"));
    }
    let method = request.method.unwrap_or_default();
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _query)| path);
    Ok(RequestHead {
        method: method.to_owned(),
        path: path.to_owned(),
        body: body_size(method, request.headers)?,
        keep_alive: !has_word(request.headers, "connection", "close"),
        expects_continue: has_word(request.headers, "expect", "100-continue"),
    })
}

fn body_size(method: &str, fields: &[Header<'_>]) -> Result<usize, HttpRefusal> {
    const LENGTH_REQUIRED: HttpRefusal = refusal(411, "a body requires a content-length");
    if values(fields, "transfer-encoding").next().is_some() {
        return Err(LENGTH_REQUIRED);
    }
    let mut sizes = values(fields, "content-length").map(parse_size);
    let Some(size) = sizes.next() else {
        return if method == "POST" { Err(LENGTH_REQUIRED) } else { Ok(0) };
    };
    match size {
        None => Err(refusal(400, "the content-length is not a number")),
        Some(_) if sizes.any(|other| other != size) => {
            Err(refusal(400, "the content-lengths contradict each other"))
        }
        Some(size) if size > BODY_LIMIT => Err(refusal(413, "the body is too long")),
        Some(size) => Ok(size),
    }
}

/// Parses digits only: the standard parser would accept a sign. A number that overflows exceeds
/// every limit.
fn parse_size(value: &str) -> Option<usize> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(usize::MAX))
}

fn values<'a>(fields: &'a [Header<'_>], name: &str) -> impl Iterator<Item = &'a str> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| str::from_utf8(field.value).unwrap_or_default().trim())
}

fn has_word(fields: &[Header<'_>], name: &str, word: &str) -> bool {
    values(fields, name)
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(word))
}

/// Returns the head of a streamed answer with this content type.
pub(super) fn stream_head(content_type: &str, keep_alive: bool) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\n{SERVER}content-type: {content_type}\r\n\
         cache-control: no-cache\r\ntransfer-encoding: chunked\r\n{}\r\n",
        connection(keep_alive)
    )
    .into_bytes()
}

/// Returns a complete answer with a JSON body. `location` is for redirects.
pub(super) fn json_answer(
    status: u16,
    body: &[u8],
    location: Option<&str>,
    keep_alive: bool,
) -> Vec<u8> {
    whole_answer((status, "application/json"), body, location, keep_alive)
}

/// Returns a complete answer with a body of this status and content type.
pub(super) fn whole_answer(
    (status, content_type): (u16, &str),
    body: &[u8],
    location: Option<&str>,
    keep_alive: bool,
) -> Vec<u8> {
    let location = location.map_or_else(String::new, |to| format!("location: {to}\r\n"));
    let mut answer = format!(
        "HTTP/1.1 {status} {}\r\n{SERVER}content-type: {content_type}\r\n\
         content-length: {}\r\n{location}{}\r\n",
        reason(status),
        body.len(),
        connection(keep_alive),
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn connection(keep_alive: bool) -> &'static str {
    if keep_alive { "" } else { "connection: close\r\n" }
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Simulated")
}

/// Appends `bytes` as one chunk. Does nothing if `bytes` is empty, since an empty chunk ends the
/// body.
pub(super) fn push_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> u16 {
        parse_head(request.as_bytes()).expect_err("must be refused").status
    }

    #[test]
    fn the_case_of_header_names_does_not_matter() {
        let request = b"POST /v1/chat?x=1 HTTP/1.1\r\nCONTENT-Length: 12\r\n\
            Connection: foo, Close\r\nexpect: 100-Continue\r\n\r\n{";
        let head = RequestHead {
            method: "POST".to_owned(),
            path: "/v1/chat".to_owned(),
            body: 12,
            keep_alive: false,
            expects_continue: true,
        };
        assert_eq!(parse_head(request), Ok(Some((head, request.len() - 1))));
        assert_eq!(parse_head(&request[..40]), Ok(None));
    }

    #[test]
    fn a_head_without_a_certain_body_size_is_refused() {
        let post = |fields: &str| status(&format!("POST / HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(post(""), 411);
        assert_eq!(post("transfer-encoding: chunked\r\n"), 411);
        assert_eq!(post("content-length: +1\r\n"), 400);
        assert_eq!(post("content-length: 1\r\ncontent-length: 2\r\n"), 400);
        assert_eq!(post("content-length: 99999999999999999999999\r\n"), 413);
    }

    #[test]
    fn garbage_old_versions_and_endless_heads_are_refused() {
        assert_eq!(status("\u{16}\u{3}\u{1} hello"), 400);
        assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 505);
        let endless = format!("GET / HTTP/1.1\r\na: {}", "a".repeat(HEAD_LIMIT));
        assert_eq!(status(&endless), 431);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
        assert_eq!(status(&many), 431);
    }
}
