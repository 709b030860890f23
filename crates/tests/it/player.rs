//! A server that plays bytes: what it sends, and when, is the test's.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use llm_stream_core::protocol::{Envelope, Message, MessagePart, Protocol, TokenKind, Usage};

/// One thing that the server does.
#[derive(Clone)]
pub(crate) enum Step {
    Write(Vec<u8>),
    Sleep(Duration),
    /// Waits until the client closes the connection.
    Hold,
    Reset,
    /// Writes these bytes until the client closes the connection.
    Flood(Vec<u8>),
}

/// The address of a server that plays, for each request, the steps that `script` makes of the
/// request's body, then closes the connection. Also returns the number of its connections.
pub(crate) fn plays(
    script: impl Fn(&[u8]) -> Vec<Step> + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    let (script, count) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    let connections = count.clone();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, script) = (socket.expect("a client"), script.clone());
            connections.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                if let Some(body) = request(&mut socket) {
                    play(socket, script(&body));
                }
            });
        }
    });
    (url, count)
}

/// A server that always answers with `bytes` and closes the connection.
pub(crate) fn answers(bytes: Vec<u8>) -> String {
    plays(move |_| vec![Step::Write(bytes.clone())]).0
}

/// Reads a request; its body.
fn request(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut request, mut piece) = (Vec::new(), [0; 1 << 14]);
    loop {
        let read = socket.read(&mut piece).ok().filter(|&read| read > 0)?;
        request.extend_from_slice(&piece[..read]);
        let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        if request.len() >= end + 4 + length {
            return Some(request.split_off(end + 4));
        }
    }
}

fn play(mut socket: TcpStream, steps: Vec<Step>) {
    let _ = socket.set_nodelay(true);
    for step in steps {
        match step {
            // A client may have given up.
            Step::Write(bytes) if socket.write_all(&bytes).is_err() => return,
            Step::Write(_) => {}
            Step::Sleep(time) => thread::sleep(time),
            Step::Flood(bytes) => while socket.write_all(&bytes).is_ok() {},
            Step::Hold => until_closed(&mut socket),
            Step::Reset => {
                let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
    // A close with unread bytes would be a reset.
    let _ = socket.shutdown(Shutdown::Write);
    until_closed(&mut socket);
}

fn until_closed(socket: &mut TcpStream) {
    while socket.read(&mut [0; 1 << 10]).is_ok_and(|read| read > 0) {}
}

const ENVELOPE: Envelope<'static> = Envelope { model: "m", created: 1_795_501_696 };

/// The events of an answer of `tokens` tokens: those before its end, and those that end it.
pub(crate) fn events(protocol: &dyn Protocol, tokens: u64) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let encode = |parts| {
        let id = Some("c1".into());
        protocol.encode(&Message { id, parts }, &ENVELOPE)
    };
    let token = |n| encode(vec![MessagePart::Token(TokenKind::Answer, format!("a{n}").into())]);
    let role = encode(vec![MessagePart::Role]);
    let usage =
        Usage { prompt_tokens: Some(9), completion_tokens: Some(tokens), ..Usage::default() };
    let end = vec![MessagePart::Finish("stop".into()), MessagePart::Usage(usage), MessagePart::End];
    let begin = [role].into_iter().chain((0..tokens).map(token));
    // Not every protocol has a role: an empty chunk would be the last one.
    let begin = begin.filter(|event| !event.is_empty()).collect();
    (begin, protocol.ending(end).into_iter().map(encode).collect())
}

pub(crate) const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// `bytes` as a chunk of a body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A chunked answer of `tokens` tokens, without the last chunk.
pub(crate) fn unended(protocol: &dyn Protocol, tokens: u64) -> Vec<u8> {
    let (begin, end) = events(protocol, tokens);
    let chunks = begin.iter().chain(&end).flat_map(|event| chunk(event));
    CHUNKED.bytes().chain(chunks).collect()
}
