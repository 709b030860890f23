//! A server whose answers carry a hostile text. The path of a request names the carrier and the
//! text: `/CARRIER/NUMBER/…`.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use serde_json::{Value, json};

/// The parts of an answer that carry a text.
pub(super) const CARRIERS: [&str; 16] = [
    "error_json",
    "error_text",
    "error_in_stream",
    "finish_reason",
    "request_id",
    "unknown_field",
    "model",
    "content",
    "content_type",
    "content_encoding",
    "header",
    "location",
    "reason",
    "retry_after",
    "broken_json",
    "metrics",
];

pub(super) struct HostileServer {
    address: SocketAddr,
}

impl HostileServer {
    pub(super) fn start(texts: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let texts = Arc::new(texts);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let texts = texts.clone();
                thread::spawn(move || answer(socket.unwrap(), &texts));
            }
        });
        Self { address }
    }

    pub(super) fn url(&self, carrier: &str, text: usize) -> String {
        format!("http://{}/{carrier}/{text}", self.address)
    }
}

/// Reads one request, whose body is JSON, answers and closes the connection.
fn answer(mut socket: TcpStream, texts: &[String]) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    // Detection sends an empty list.
    while !request.ends_with(b"}") && !request.ends_with(b"[]") && !request.starts_with(b"GET ") {
        match socket.read(&mut piece) {
            Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
            _ => break,
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut parts = path.split('/').skip(1);
    let (Some(carrier), Some(text)) = (parts.next(), parts.next()) else { return };
    let Some(text) = text.parse().ok().and_then(|nth: usize| texts.get(nth)) else { return };
    let response = match path.ends_with("/metrics") {
        true => metrics(text),
        false => response(carrier, text, path.ends_with("/models")),
    };
    // The client may have gone.
    let _ = socket.write_all(&response);
}

fn response(carrier: &str, text: &str, is_models: bool) -> Vec<u8> {
    let sse = "content-type: text/event-stream\r\n";
    let good = stream(json!({}), json!({}));
    let error = |body: String| http("400 Bad Request", "content-type: application/json\r\n", &body);
    match carrier {
        "models" if is_models => {
            let models = json!({"object": "list", "data": [{"id": text, "object": "model"}]});
            http("200 OK", "content-type: application/json\r\n", &models.to_string())
        }
        "error_json" => error(json!({"error": {"message": text, "code": text}}).to_string()),
        "error_text" => http("500 Oops", "content-type: text/plain\r\n", text),
        "error_in_stream" => {
            let event = json!({"error": {"message": text, "type": text}});
            http("200 OK", sse, &format!("data: {event}\n\n"))
        }
        "finish_reason" => http("200 OK", sse, &stream(json!({}), json!({"finish_reason": text}))),
        "request_id" => http("200 OK", sse, &stream(json!({"id": text}), json!({}))),
        "model" => http("200 OK", sse, &stream(json!({"model": text}), json!({}))),
        "unknown_field" => {
            let delta = json!({"delta": {"content": "a", text: "more text than a token"}});
            http("200 OK", sse, &stream(json!({}), delta))
        }
        "content" => {
            let delta = json!({"delta": {"content": text}, "finish_reason": "stop"});
            http("200 OK", sse, &stream(json!({}), delta))
        }
        "content_type" => http("200 OK", &header("content-type", text), "no stream"),
        "content_encoding" => {
            http("200 OK", &format!("{sse}{}", header("content-encoding", text)), &good)
        }
        "header" => {
            let more = ["server", "x-request-id", "set-cookie", "via"];
            let more: String = more.iter().map(|name| header(name, text)).collect();
            http("200 OK", &format!("{sse}{more}"), &good)
        }
        "location" => http("302 Found", &header("location", text), ""),
        "reason" => http(&format!("503 {text}"), "", ""),
        "retry_after" => http("429 Too Many", &header("retry-after", text), ""),
        "broken_json" => http("200 OK", sse, &format!("data: {{{text}\n\n")),
        _ => http("200 OK", sse, &good),
    }
}

/// A chat of two events; the fields of `event` are in each, and those of `choice` in the last one.
fn stream(event: Value, choice: Value) -> String {
    let merged = |mut base: Value, more: &Value| {
        let fields = more.as_object().unwrap().clone();
        base.as_object_mut().unwrap().extend(fields);
        base
    };
    let last = merged(json!({"index": 0, "delta": {}, "finish_reason": "stop"}), &choice);
    let first = json!({"index": 0, "delta": {"content": "a"}});
    let events = [
        json!({"id": "x", "choices": [first]}),
        json!({"id": "x", "choices": [last]}),
        json!({"id": "x", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}),
    ];
    let events = events.map(|base| format!("data: {}\n\n", merged(base, &event)));
    events.concat() + "data: [DONE]\n\n"
}

/// A header; some texts end it early, and others make the head invalid.
fn header(name: &str, value: &str) -> String {
    format!("{name}: {value}\r\n")
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}");
    format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Prometheus metrics whose names and labels carry `text`.
fn metrics(text: &str) -> Vec<u8> {
    let label = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let body = format!(
        "# HELP {text}\n{text} 1\nvllm:time_to_first_token_seconds_sum{{model_name=\"{label}\"}} 1\n\
         vllm:time_to_first_token_seconds_count{{model_name=\"{label}\"}} 1\n"
    );
    http("200 OK", "content-type: text/plain\r\n", &body)
}
