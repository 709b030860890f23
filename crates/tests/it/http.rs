//! Requests and their results against wiremock and raw sockets, by both transports.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use llm_stream_bench::{
    cli::Cli,
    config::Config,
    load,
    plan::{Case, Endpoint, Plan, Secret, access},
};
use llm_stream_client::{
    AnswerForm, AnswerObserver, Client, Options, connect_options::ConnectOptions,
};
use llm_stream_core::{recording::RequestError, sample::Sample};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path},
};

use crate::wait;

/// A stream of two tokens.
pub(crate) const STREAM: &str = "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n\
    data: [DONE]\n\n";

fn stream() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(STREAM, "text/event-stream")
}

/// The plan of one case with one model at `server`; `more` are additional lines of the model.
fn plan(server: &MockServer, more: &str) -> Plan {
    plan_at(&server.uri(), more)
}

pub(crate) fn plan_at(url: &str, more: &str) -> Plan {
    plan_of(url, &format!("    timeouts: {{ total: 5s }}\n{more}"))
}

/// The same plan with the default timeouts.
pub(crate) fn plan_of(url: &str, more: &str) -> Plan {
    let yaml = format!(
        "runs: 1\nprompts: [{{ name: hi, text: \"Say hi.\", system: \"Be brief.\" }}]\n\
         models:\n  m:\n    base_url: \"{url}\"\n{more}"
    );
    let config = Config::parse(&yaml, "configs.yaml", Path::new("."))
        .unwrap_or_else(|errors| panic!("{errors}"));
    Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).expect("a plan")
}

fn client(case: &Case, key: Option<&Secret>) -> Client {
    client_by(&ConnectOptions::default(), case, key)
}

pub(crate) fn client_by(route: &ConnectOptions, case: &Case, key: Option<&Secret>) -> Client {
    let Endpoint::Url(url) = &case.target.endpoint else { panic!("not a server") };
    let target = &case.target;
    let access = access::simulated(target);
    Client::new(&Options {
        replicas: &[],
        url,
        headers: &access.headers,
        api_key: key,
        timeouts: target.request_timeouts(),
        transport: target.transport,
        connection: target.connection,
        protocol: target.protocol,
        answer: match target.protocol.is_streamed() {
            true => AnswerForm::Stream { needs_usage: true },
            false => AnswerForm::Document,
        },
        route,
    })
    .expect("a client")
}

async fn outcome(server: &MockServer, more: &str) -> Result<Sample, RequestError> {
    let plan = plan(server, more);
    let case = &plan.cases[0];
    blocking(|| ask(case, None)).outcome
}

/// Runs what blocks outside the runtime of an async test.
pub(crate) fn blocking<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).expect("no panic")
}

/// The answer to the prompt of a case, by a new client.
fn ask(case: &Case, key: Option<&Secret>) -> load::Answer {
    load::run(case, &load::PromptSizer::default(), &client(case, key), &())
}

/// The lines of the config that choose a transport.
pub(crate) const TRANSPORTS: [&str; 2] = ["    transport: stamped\n", "    transport: reqwest\n"];

/// The result of `answer` in a line, which must be the same by both transports.
async fn result_line(answer: ResponseTemplate) -> String {
    let mut lines = Vec::new();
    for transport in TRANSPORTS {
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(answer.clone()).mount(&server).await;
        let line = match outcome(&server, transport).await {
            Ok(sample) => format!("ok: {} tokens", sample.response_tokens),
            Err(error) => format!("{}: {error}", error.kind),
        };
        lines.push(line.replace(&server.uri(), "http://SERVER"));
    }
    assert_eq!(lines[0], lines[1]);
    lines.swap_remove(0)
}

async fn sent(server: &MockServer) -> wiremock::Request {
    let requests = server.received_requests().await.expect("requests are kept");
    assert_eq!(requests.len(), 1, "one request, and no retry");
    requests.into_iter().next().expect("one request")
}

#[tokio::test]
async fn the_body_has_the_defaults_and_extra_body() {
    let more = "    model_name: org/model\n    prefix_cache: reuse\n    max_tokens: 99\n    extra_body:\n      \
                chat_template_kwargs: { enable_thinking: false }\n      top_k: 5\n";
    for transport in TRANSPORTS {
        let server = MockServer::start().await;
        Mock::given(path("/v1/chat/completions")).respond_with(stream()).mount(&server).await;
        outcome(&server, &format!("{more}{transport}")).await.unwrap();
        let body: Value = sent(&server).await.body_json().unwrap();
        assert_eq!(body, expected_body());
    }
}

fn expected_body() -> Value {
    json!({
        "model": "org/model",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hi."},
        ],
        "temperature": 0.7,
        "max_tokens": 99,
        "stream": true,
        "stream_options": {"include_usage": true},
        "chat_template_kwargs": {"enable_thinking": false},
        "top_k": 5,
    })
}

#[tokio::test]
async fn each_request_starts_with_a_unique_text() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(stream()).mount(&server).await;
    for _ in 0..3 {
        outcome(&server, "").await.unwrap();
    }
    let requests = server.received_requests().await.unwrap();
    let mut nonces: Vec<_> = requests
        .iter()
        .map(|request| {
            let body: Value = request.body_json().unwrap();
            assert_eq!(body["messages"][1]["content"], "Say hi.");
            let system = body["messages"][0]["content"].as_str().unwrap();
            let (nonce, rest) = system.split_at("[0123456789ab]\n".len());
            assert_eq!(rest, "Be brief.");
            nonce.to_owned()
        })
        .collect();
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
}

#[tokio::test]
async fn the_key_is_sent_as_a_bearer_token_next_to_other_headers() {
    for transport in TRANSPORTS {
        let server = MockServer::start().await;
        Mock::given(method("POST"))
            .and(header("authorization", "Bearer s3cret"))
            .and(header("x-tenant", "a"))
            .and(header("accept", "text/event-stream"))
            .and(header("content-type", "application/json"))
            .and(header("user-agent", concat!("llm-stream-bench/", env!("CARGO_PKG_VERSION"))))
            .and(header("host", server.address().to_string().as_str()))
            .respond_with(stream())
            .mount(&server)
            .await;
        let plan = plan(&server, &format!("    headers: {{ x-tenant: a }}\n{transport}"));
        let (case, key) = (&plan.cases[0], Secret("s3cret".into()));
        let shown_client = blocking(|| {
            let client = client(case, Some(&key));
            load::run(case, &load::PromptSizer::default(), &client, &()).outcome.unwrap();
            format!("{client:?}")
        });
        for shown in [shown_client, format!("{key:?}")] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent() {
    for transport in TRANSPORTS {
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(stream()).mount(&server).await;
        outcome(&server, transport).await.unwrap();
        let request = sent(&server).await;
        assert!(!request.headers.contains_key("authorization"));
        let buffers = request.headers.contains_key("accept-encoding");
        assert!(!buffers, "a compressed stream is held back");
    }
}

#[tokio::test]
async fn an_error_status_fails_with_the_message_of_the_server() {
    let openai = |message: &str| json!({"error": {"message": message, "type": "t", "code": 1}});
    let answers = [
        ResponseTemplate::new(400).set_body_json(openai("max_tokens is too large")),
        ResponseTemplate::new(401).set_body_json(json!({"error": "Unauthorized"})),
        ResponseTemplate::new(403).set_body_string("no"),
        ResponseTemplate::new(404).set_body_json(openai("The model `m` does not exist.")),
        ResponseTemplate::new(422).set_body_json(json!({"detail": "Unexpected fields"})),
        ResponseTemplate::new(429).set_body_json(openai("slow down")),
        ResponseTemplate::new(500).set_body_string("Internal Server Error"),
        ResponseTemplate::new(503),
        ResponseTemplate::new(502).set_body_raw("<html>\n<h1>Bad\tGateway</h1>", "text/html"),
    ];
    let mut lines = Vec::new();
    for answer in answers {
        lines.push(result_line(answer).await);
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_200_without_a_stream_is_reported_with_its_content() {
    let completion = json!({"id": "c", "choices": [{"message": {"content": "Hi."}}]});
    let answers = [
        ResponseTemplate::new(200).set_body_json(json!({"error": {"message": "no such model"}})),
        ResponseTemplate::new(200).set_body_json(completion),
        ResponseTemplate::new(200).set_body_raw("<html>Sign in</html>", "text/html"),
        ResponseTemplate::new(200).set_body_raw("", "text/event-stream"),
        ResponseTemplate::new(200).set_body_raw("OK", "text/plain"),
        ResponseTemplate::new(204),
    ];
    let mut lines = Vec::new();
    for answer in answers {
        lines.push(result_line(answer).await);
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_stream_under_another_content_type_is_a_stream() {
    for kind in ["text/plain", "application/octet-stream"] {
        assert_eq!(
            result_line(ResponseTemplate::new(200).set_body_raw(STREAM, kind)).await,
            "ok: 2 tokens"
        );
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for transport in TRANSPORTS {
        let server = MockServer::start().await;
        let elsewhere = format!("{}/elsewhere", server.uri());
        let redirect = ResponseTemplate::new(307).insert_header("location", elsewhere.as_str());
        Mock::given(path("/v1/chat/completions")).respond_with(redirect).mount(&server).await;
        let error = outcome(&server, transport).await.unwrap_err();
        assert_eq!(
            format!("{}: {error}", error.kind),
            "redirect: HTTP 307 Temporary Redirect (redirects are not followed: name the final \
             URL)"
        );
        assert_eq!(sent(&server).await.url.path(), "/v1/chat/completions");
    }
}

#[tokio::test]
async fn no_request_is_retried() {
    for transport in TRANSPORTS {
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(ResponseTemplate::new(503)).mount(&server).await;
        outcome(&server, transport).await.unwrap_err();
        sent(&server).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_running_is_a_connect_failure() {
    for transport in TRANSPORTS {
        // A free port, since the listener is closed.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = address.expect("a port");
        for (host, why) in [
            (format!("http://{address}"), "Connection refused"),
            ("http://no-such-host.invalid".to_owned(), "no-such-host.invalid:80: "),
        ] {
            let plan = plan_at(&host, transport);
            let case = &plan.cases[0];
            let error = blocking(|| ask(case, None)).outcome.unwrap_err();
            assert_eq!(error.kind.name(), "connect", "{error}");
            assert!(error.message.contains(why), "{error}");
        }
    }
}

// -- the same bytes by both transports ------------------------------------------------------------

/// A server that sends `answer` on each connection and closes it.
fn raw(answer: Vec<u8>) -> String {
    in_pieces(vec![answer])
}

/// A server that sends an answer in pieces, with time to read each one alone.
fn in_pieces(pieces: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    thread::spawn(move || {
        for socket in listener.incoming().take(TRANSPORTS.len()) {
            let mut socket = socket.expect("a client");
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !request.windows(8).any(|bytes| bytes == b"\"stream\"") {
                let read = socket.read(&mut piece).expect("a request");
                request.extend_from_slice(&piece[..read]);
            }
            socket.set_nodelay(true).expect("a client");
            for (number, piece) in pieces.iter().enumerate() {
                if number > 0 {
                    thread::sleep(Duration::from_micros(300));
                }
                socket.write_all(piece).expect("a client");
            }
            // The whole request has to be read, or the close is a reset.
            let _ = socket.shutdown(std::net::Shutdown::Write);
            while socket.read(&mut piece).is_ok_and(|read| read > 0) {}
        }
    });
    url
}

/// The result of `answer` by each transport.
async fn both(answer: &[u8]) -> [String; 2] {
    both_at(&raw(answer.to_vec()))
}

/// The result by each transport of a server that answers twice.
fn both_at(url: &str) -> [String; 2] {
    TRANSPORTS.map(|transport| plan_at(url, transport)).map(|plan| {
        let case = plan.cases[0].clone();
        came_to(wait::in_thread(move || blocking(|| ask(&case, None)).outcome))
    })
}

/// The result of a request in a line, without values that differ between runs.
pub(crate) fn came_to(outcome: Result<Sample, RequestError>) -> String {
    match outcome {
        Err(error) => error.kind.name().to_owned(),
        Ok(sample) => format!(
            "{} tokens in {} events, {}, {:?}",
            sample.response_tokens,
            sample.token_events.len(),
            sample.finish_reason,
            sample.request_id
        ),
    }
}

pub(crate) fn chunked(stream: &str) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
        Transfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for event in stream.split_inclusive("\n\n") {
        answer.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer
}

#[tokio::test]
async fn both_transports_give_the_same_result_for_a_stream_cut_at_any_byte() {
    let whole = chunked(STREAM);
    for end in 0..=whole.len() {
        let [stamped, reqwest] = both(&whole[..end]).await;
        assert_eq!(stamped, reqwest, "{:?}", String::from_utf8_lossy(&whole[..end]));
        // Only the end of the body follows the end marker.
        let is_whole = String::from_utf8_lossy(&whole[..end]).contains("data: [DONE]");
        assert_eq!(stamped == "2 tokens in 2 events, stop, Some(\"c1\")", is_whole, "{stamped}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_in_any_pieces_gives_the_same_result_by_both_transports(
        cuts in vec(any::<Index>(), 0..24),
    ) {
        let whole = chunked(&mixed_stream());
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(whole.len())).collect();
        ends.extend([0, whole.len()]);
        ends.sort();
        ends.dedup();
        let pieces = ends.windows(2).map(|ends| whole[ends[0]..ends[1]].to_vec()).collect();
        let expected = "4 tokens in 4 events, stop, Some(\"c1\")";
        prop_assert_eq!(both_at(&in_pieces(pieces)), [expected, expected]);
    }
}

/// A stream with multi-byte characters, a comment, and both kinds of line ends.
fn mixed_stream() -> String {
    let token = |text: &str| {
        format!(
            "data: {{\"id\":\"c1\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}"
        )
    };
    let (a, b, c, d) = (token("Grüße"), token("，"), token("一个"), token("🙂"));
    format!(
        ": ping\n\n{a}\n\n{b}\r\n\r\n{c}\n\n{d}\n\n\
         data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":4}}}}\n\n\
         data: [DONE]\n\n"
    )
}

/// A server that answers each connection once and closes it without announcing the close.
fn closes_silently(requests: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{STREAM}", STREAM.len());
    thread::spawn(move || {
        for socket in listener.incoming().take(requests) {
            let mut socket = socket.expect("a client");
            let _ = socket.read(&mut [0; 1 << 16]);
            socket.write_all(answer.as_bytes()).expect("a client");
        }
    });
    url
}

#[test]
fn no_request_is_lost_when_the_server_closes_a_kept_connection() {
    const REQUESTS: usize = 20;
    for transport in TRANSPORTS {
        let plan = plan_at(&closes_silently(REQUESTS), transport);
        let case = &plan.cases[0];
        let client = client(case, None);
        for _ in 0..REQUESTS {
            load::run(case, &load::PromptSizer::default(), &client, &()).outcome.unwrap();
        }
    }
}

#[test]
fn a_body_may_end_with_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a client");
            let _ = socket.read(&mut [0; 1 << 16]);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            let _ = socket.write_all(format!("{head}{STREAM}").as_bytes());
            thread::sleep(Duration::from_millis(100));
        }
    });
    for transport in TRANSPORTS {
        let plan = plan_at(&url, transport);
        let case = &plan.cases[0];
        let sample = ask(case, None).outcome.unwrap();
        // The server closes the connection 100 ms after the last token.
        assert!(sample.end - sample.last_token() >= Duration::from_millis(90), "{sample:?}");
    }
}

/// Cancels the answer after 100 ms.
struct Impatient(Instant);

impl AnswerObserver for Impatient {
    fn is_cancelled(&self) -> bool {
        self.0.elapsed() > Duration::from_millis(100)
    }
}

#[test]
fn a_cancelled_answer_ends_at_once() {
    for begun in ["", "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: ping\n\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("a port"));
        thread::spawn(move || {
            let mut held = Vec::new();
            for socket in listener.incoming() {
                let mut socket = socket.expect("a client");
                let _ = socket.read(&mut [0; 1 << 16]);
                socket.write_all(begun.as_bytes()).expect("a client");
                held.push(socket);
            }
        });
        for transport in TRANSPORTS {
            let plan = plan_at(&url, transport);
            let case = &plan.cases[0];
            let (client, observer) = (client(case, None), Impatient(Instant::now()));
            let answer = load::run(case, &load::PromptSizer::default(), &client, &observer);
            let error = answer.outcome.unwrap_err();
            // Without the cancellation, a timeout would end it.
            assert_eq!(error.kind.name(), "interrupted", "{error}");
        }
    }
}

#[tokio::test]
async fn every_kind_of_body_end_is_read() {
    let length = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{STREAM}", STREAM.len());
    let close = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{STREAM}");
    let old = format!("HTTP/1.0 200 OK\r\n\r\n{STREAM}");
    let early = format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{length}");
    for answer in [length, close, old, early] {
        let expected = "2 tokens in 2 events, stop, Some(\"c1\")";
        assert_eq!(both(answer.as_bytes()).await, [expected, expected], "{answer}");
    }
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "", "HTTP/1.1 200 OK\r\ncontent-le"] {
        assert_eq!(both(answer.as_bytes()).await, ["broken", "broken"], "{answer}");
    }
}
