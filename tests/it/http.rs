//! What is sent, and what comes of answers that are no stream, against wiremock.

use std::{net::TcpListener, path::Path};

use clap::Parser;
use llm_stream_bench::{
    cli::Cli,
    client::{Client, Options},
    config::Config,
    load,
    plan::{Case, Endpoint, Plan, Secret},
    recording::RequestError,
    sample::Sample,
};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path},
};

/// An answer of two tokens.
const STREAM: &str = "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n\
    data: [DONE]\n\n";

fn stream() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(STREAM, "text/event-stream")
}

/// The one case of a config with one model, at `server`; `more` are further lines of the model.
fn plan(server: &MockServer, more: &str) -> Plan {
    plan_at(&server.uri(), more)
}

fn plan_at(url: &str, more: &str) -> Plan {
    let yaml = format!(
        "runs: 1\nprompts: [{{ name: hi, text: \"Say hi.\", system: \"Be brief.\" }}]\n\
         models:\n  m:\n    base_url: \"{url}\"\n    timeouts: {{ total: 5s }}\n{more}"
    );
    let config = Config::parse(&yaml, "configs.yaml", Path::new("."))
        .unwrap_or_else(|errors| panic!("{errors}"));
    Plan::new(&config, &Cli::parse_from(["llm"])).expect("a plan")
}

fn client(case: &Case, key: Option<&Secret>) -> Client {
    let Endpoint::Url(url) = &case.target.endpoint else { panic!("not a server") };
    let target = &case.target;
    Client::new(&Options { url, headers: &target.headers, api_key: key, timeouts: target.timeouts })
        .expect("a client")
}

async fn outcome(server: &MockServer, more: &str) -> Result<Sample, RequestError> {
    let plan = plan(server, more);
    let case = &plan.cases[0];
    load::run(case, &client(case, None), &|_| {}).await.outcome
}

/// What `answer` to the request comes to, in a line.
async fn told(answer: ResponseTemplate) -> String {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    match outcome(&server, "").await {
        Ok(sample) => format!("ok: {} tokens", sample.response_tokens),
        Err(error) => format!("{}: {error}", error.kind).replace(&server.uri(), "http://SERVER"),
    }
}

async fn sent(server: &MockServer) -> wiremock::Request {
    let requests = server.received_requests().await.expect("requests are kept");
    assert_eq!(requests.len(), 1, "one request, and no retry");
    requests.into_iter().next().expect("one request")
}

#[tokio::test]
async fn the_body_is_the_seeds_with_extra_body_merged_in() {
    let server = MockServer::start().await;
    Mock::given(path("/v1/chat/completions")).respond_with(stream()).mount(&server).await;
    let more = "    model_name: org/model\n    max_tokens: 99\n    extra_body:\n      \
                chat_template_kwargs: { enable_thinking: false }\n      top_k: 5\n";
    outcome(&server, more).await.unwrap();
    let body: Value = sent(&server).await.body_json().unwrap();
    assert_eq!(
        body,
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
    );
}

#[tokio::test]
async fn the_key_goes_as_a_bearer_token_beside_the_users_headers() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(header("authorization", "Bearer s3cret"))
        .and(header("x-tenant", "a"))
        .and(header("accept", "text/event-stream"))
        .and(header("content-type", "application/json"))
        .respond_with(stream())
        .mount(&server)
        .await;
    let plan = plan(&server, "    headers: { x-tenant: a }\n");
    let (case, key) = (&plan.cases[0], Secret("s3cret".into()));
    let client = client(case, Some(&key));
    load::run(case, &client, &|_| {}).await.outcome.unwrap();
    for shown in [format!("{client:?}"), format!("{key:?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(stream()).mount(&server).await;
    outcome(&server, "").await.unwrap();
    let request = sent(&server).await;
    assert!(!request.headers.contains_key("authorization"));
    assert!(!request.headers.contains_key("accept-encoding"), "a compressed stream is buffered");
}

#[tokio::test]
async fn statuses_are_failures_that_say_what_the_server_says() {
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
        lines.push(told(answer).await);
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_200_without_a_stream_is_reported_as_what_it_says() {
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
        lines.push(told(answer).await);
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_stream_under_another_content_type_is_a_stream() {
    for kind in ["text/plain", "application/octet-stream"] {
        assert_eq!(
            told(ResponseTemplate::new(200).set_body_raw(STREAM, kind)).await,
            "ok: 2 tokens"
        );
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = MockServer::start().await;
    let elsewhere = format!("{}/elsewhere", server.uri());
    let redirect = ResponseTemplate::new(307).insert_header("location", elsewhere.as_str());
    Mock::given(path("/v1/chat/completions")).respond_with(redirect).mount(&server).await;
    let error = outcome(&server, "").await.unwrap_err();
    assert_eq!(
        format!("{}: {error}", error.kind),
        "redirect: HTTP 307 Temporary Redirect (redirects are not followed: name the final URL)"
    );
    assert_eq!(sent(&server).await.url.path(), "/v1/chat/completions");
}

#[tokio::test]
async fn nothing_is_asked_twice() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(503)).mount(&server).await;
    outcome(&server, "").await.unwrap_err();
    sent(&server).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_connect_failure() {
    // Free, since it has just been given back.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let plan = plan_at(&format!("http://{}", port.expect("a port")), "");
    let case = &plan.cases[0];
    let error = load::run(case, &client(case, None), &|_| {}).await.outcome.unwrap_err();
    assert_eq!(error.kind.name(), "connect");
    assert!(error.message.contains("Connection refused"), "{error}");
}
