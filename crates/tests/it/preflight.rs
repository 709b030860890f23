//! What a run finds wrong with its endpoints before the first trial, through the front door.

use std::{io::Read, net::TcpListener, thread, time::Duration};

use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{Fault, FaultKind, Script, Simulator};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

use crate::{
    bench::{Bench, Ran, ran},
    http::STREAM,
    servers::repeats,
};

/// A bench with these models, each asked one prompt once.
fn bench(models: &str) -> Bench {
    Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n{models}"
    ))
}

/// A server that refuses every completion so, and lists these models at `/v1/models`.
async fn refusing(status: u16, message: &str, models: &[&str]) -> MockServer {
    let server = MockServer::start().await;
    let refusal = ResponseTemplate::new(status).set_body_json(json!({"message": message}));
    Mock::given(method("POST")).respond_with(refusal).mount(&server).await;
    let models: Vec<_> = models.iter().map(|id| json!({"id": id})).collect();
    let list = ResponseTemplate::new(200).set_body_json(json!({"data": models}));
    Mock::given(method("GET")).and(path("/v1/models")).respond_with(list).mount(&server).await;
    server
}

/// What a run says before its first trial, with `PORT` for every port.
fn said(ran: &Ran) -> String {
    let before = ran.stderr.split("Testing").next().unwrap();
    let lines: Vec<_> = before.lines().filter(|line| line.contains(": m")).collect();
    let mut text = lines.join("\n");
    while let Some(at) = text.find("127.0.0.1:") {
        let digits =
            text[at + 10..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - at - 10);
        text.replace_range(at..at + 10 + digits, "LOCAL");
    }
    text
}

#[tokio::test]
async fn each_fault_is_one_line_with_a_likely_fix() {
    let unknown = "The model `m` does not exist.";
    let names = ["Qwen/Qwen3-8B", "Qwen/Qwen3-32B"];
    let listing = refusing(404, unknown, &names).await;
    let bad_key = refusing(401, "Incorrect API key provided.", &[]).await;
    let no_bearer = refusing(401, "Unauthorized", &[]).await;
    let has_it = refusing(404, "Not Found", &["m-path"]).await;
    let busy = refusing(503, "Loading model", &[]).await;
    let bench = bench(&format!(
        "  m-port: {{ base_url: \"http://127.0.0.1:9\" }}\n  \
           m-name: {{ base_url: \"{listing}\", model_name: \"Qwen/Qwen3-8b\" }}\n  \
           m-base: {{ base_url: \"{listing}/api\" }}\n  \
           m-path: {{ base_url: \"{has_it}\" }}\n  \
           m-key: {{ base_url: \"{bad_key}\" }}\n  \
           m-bearer: {{ base_url: \"{no_bearer}\", protocol: anthropic_messages }}\n  \
           m-tls: {{ base_url: \"{}\" }}\n  \
           m-busy: {{ base_url: \"{busy}\" }}\n",
        listing.uri().replace("http:", "https:"),
        listing = listing.uri(),
        has_it = has_it.uri(),
        bad_key = bad_key.uri(),
        no_bearer = no_bearer.uri(),
        busy = busy.uri(),
    ));
    let ran = bench.run_asking_first(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    insta::assert_snapshot!(said(&ran));
    // What would fail for certain is not asked again, and is in the results all the same.
    assert_eq!(bench.results().len(), 8);
    let messages = bench.column("error_message");
    let is_from_preflight = |message: &&String| message.ends_with("(preflight; not asked again)");
    assert_eq!(messages.iter().filter(is_from_preflight).count(), 7, "{messages:?}");
    let posts = |requests: Vec<wiremock::Request>| {
        requests.iter().filter(|request| request.method.as_str() == "POST").count()
    };
    assert_eq!(posts(bad_key.received_requests().await.unwrap()), 1);
    assert_eq!(posts(busy.received_requests().await.unwrap()), 2);
}

#[test]
fn an_endpoint_that_answers_gets_one_request_and_no_message() {
    let simulator = Simulator::start(Script::default(), &OpenAiChat).unwrap();
    let bench = bench(&format!("  m: {{ base_url: \"{}\" }}\n", simulator.url()));
    let ran = bench.run_asking_first(&["--no-warmup"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(said(&ran), "");
    let tokens = |answer: &llm_stream_sim::AnswerLog| {
        answer.writes.iter().map(|write| write.token_events).sum::<u64>()
    };
    let log: Vec<_> = simulator.log().iter().map(tokens).collect();
    assert_eq!(log.len(), 2);
    assert_eq!(log[0], 1, "{log:?}");
    let ran = bench.run_asking_first(&["--no-warmup", "--no-preflight"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(simulator.log().len(), 3);
}

#[test]
fn faults_that_one_token_cannot_show_are_left_to_the_trials() {
    for kind in [FaultKind::MissingEnd, FaultKind::Reset(0)] {
        let faults = vec![Fault { kind, request: Some(1) }];
        let script = Script { faults, ..Script::default() };
        let simulator = Simulator::start(script, &OpenAiChat).unwrap();
        let bench = bench(&format!("  m: {{ base_url: \"{}\" }}\n", simulator.url()));
        let ran = bench.run_asking_first(&["--no-warmup"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(bench.column("error_kind"), [""]);
    }
}

/// A server that refuses fewer tokens than fields of the request demand.
async fn demanding() -> MockServer {
    let server = MockServer::start().await;
    let answer = |request: &wiremock::Request| {
        let body: Value = request.body_json().unwrap();
        let most = body["max_tokens"].as_u64().unwrap();
        let demanded = body["min_tokens"].as_u64().unwrap_or(0);
        let thought = body["thinking"]["budget_tokens"].as_u64().unwrap_or(0);
        match most < demanded || most <= thought {
            true => ResponseTemplate::new(400).set_body_json(json!({"message": "too few tokens"})),
            false => ResponseTemplate::new(200).set_body_raw(STREAM, "text/event-stream"),
        }
    };
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test]
async fn fields_that_demand_more_than_one_token_are_not_a_fault() {
    for (own, warm_up) in
        [("min_tokens: 100", 100), ("thinking: { type: enabled, budget_tokens: 80 }", 81)]
    {
        let server = demanding().await;
        let bench = bench(&format!(
            "  m: {{ base_url: \"{}\", max_tokens: 512, extra_body: {{ {own} }} }}\n",
            server.uri()
        ));
        let ran = bench.run_asking_first(&[]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(said(&ran), "");
        assert!(ran.stderr.contains("Warmup completed"), "{}", ran.stderr);
        let sent = server.received_requests().await.unwrap();
        let tokens = |request: &wiremock::Request| {
            request.body_json::<Value>().unwrap()["max_tokens"].as_u64().unwrap()
        };
        let sent = sent.iter().filter(|request| request.method == "POST");
        let asked: Vec<_> = sent.map(tokens).collect();
        assert_eq!(asked, [1, 512, warm_up, 512]);
    }
}

#[tokio::test]
async fn a_refusal_for_another_reason_than_the_length_remains_a_fault() {
    let server = refusing(400, "no such field: x", &["m"]).await;
    let bench = bench(&format!("  m: {{ base_url: \"{}\" }}\n", server.uri()));
    let ran = bench.run_asking_first(&[]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(said(&ran).contains("no such field: x"), "{}", ran.stderr);
}

#[test]
fn a_request_of_the_trials_length_ends_at_its_first_token() {
    for transport in ["stamped", "reqwest"] {
        let refusal = Fault { kind: FaultKind::Status(400), request: Some(1) };
        let script = Script {
            itl: Duration::from_millis(20),
            tokens: 200,
            faults: vec![refusal],
            ..Script::default()
        };
        let simulator = Simulator::start(script, &OpenAiChat).unwrap();
        let bench = Bench::new(&format!(
            "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\", output_tokens: 40 }}]\n\
             models:\n  m: {{ base_url: \"{}\", transport: {transport} }}\n",
            simulator.url()
        ));
        let ran = bench.run_asking_first(&["--no-warmup"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(said(&ran), "");
        let log = simulator.log();
        let completed: Vec<_> = log.iter().map(|answer| answer.completed).collect();
        assert_eq!(completed, [true, false, true], "{log:?}");
    }
}

/// A server that reads the first bytes of each connection and closes it without a word, as many do
/// that expect TLS.
fn closing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let _ = socket.unwrap().read(&mut [0; 100]);
        }
    });
    address.to_string()
}

#[test]
fn a_connection_that_breaks_without_an_answer_gets_a_tls_hint() {
    let address = closing();
    let bench = bench(&format!(
        "  m-stamped: {{ base_url: \"http://{address}\", transport: stamped }}\n  \
           m-reqwest: {{ base_url: \"http://{address}\", transport: reqwest }}\n"
    ));
    let ran = bench.run_asking_first(&["--no-warmup"]);
    let said = said(&ran);
    let hint = " (or `https://` in `base_url`, if it speaks TLS there); its trials are run";
    assert_eq!(said.matches(hint).count(), 2, "{said}");
}

#[test]
fn failures_of_a_proxy_name_the_proxy() {
    const WANTS: &str = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
    const CANNOT: &str = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    let wants = repeats(WANTS.into()).to_string();
    let cannot = repeats(CANNOT.into()).to_string();
    let model = |name, url, proxy: &str| {
        format!("  {name}: {{ base_url: \"{url}\", proxy: \"http://me:hush@{proxy}\" }}\n")
    };
    let (plain, sealed) = ("http://model.invalid", "https://model.invalid");
    let own = bench(
        &[
            model("m-dead", plain, "127.0.0.1:9"),
            model("m-dead-tls", sealed, "127.0.0.1:9"),
            model("m-wants", plain, &wants),
            model("m-wants-tls", sealed, &wants),
            model("m-cannot-tls", sealed, &cannot),
        ]
        .concat(),
    );
    let ran_own = own.run_asking_first(&["--no-warmup"]);
    assert_eq!(ran_own.code, Some(101), "{}", ran_own.stderr);
    // The message about a proxy of the environment names its variable.
    let other = bench(&format!("  m: {{ base_url: \"{sealed}\" }}\n"));
    let mut command = other.command(&["--no-warmup"]);
    command.env_remove("LLM_STREAM_BENCH_NO_PREFLIGHT");
    for name in ["https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let ran_other = ran(command.env("HTTPS_PROXY", "http://me:hush@127.0.0.1:9"));
    for ran in [&ran_own, &ran_other] {
        assert!(!ran.stderr.contains("hush"), "{}", ran.stderr);
    }
    insta::assert_snapshot!(format!("{}\n{}", said(&ran_own), said(&ran_other)));
}

#[test]
fn a_silent_server_is_reported_with_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bench = bench(&format!(
        "  m: {{ base_url: \"http://{address}\", timeouts: {{ first_token: 300ms }} }}\n"
    ));
    let ran = bench.run_asking_first(&["--no-warmup"]);
    assert!(said(&ran).contains("no token within 300ms: "), "{}", ran.stderr);
}
