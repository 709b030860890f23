//! What a request's body holds and leaves out, and what the preflight says of fields and paths that
//! a server refuses, through the front door.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{method, path},
};

use crate::{
    bench::{Bench, Ran, passed},
    http::STREAM,
    servers::{Counting, counts},
};

/// A server that answers with a stream unless it refuses the body.
pub(crate) struct Picky {
    runtime: tokio::runtime::Runtime,
    pub(crate) server: MockServer,
}

pub(crate) type Refusal = (u16, Value);

/// `stream`, in which `WORDS` stands for the number of words of the question.
fn with_count(stream: &str, sent: &Value) -> String {
    let words = sent["messages"][0]["content"].as_str().unwrap_or_default().split(' ').count();
    stream.replace("WORDS", &words.to_string())
}

impl Picky {
    /// A server that counts a token for each word of the question.
    pub(crate) fn counting() -> Self {
        Self::answering(
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
             data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
             data: {\"choices\":[],\"usage\":{\"prompt_tokens\":WORDS,\"completion_tokens\":2}}\n\n\
             data: [DONE]\n\n",
            |_| None,
        )
    }

    pub(crate) fn new(refuses: impl Fn(&Value) -> Option<Refusal> + Send + Sync + 'static) -> Self {
        Self::answering(STREAM, refuses)
    }

    fn answering(
        stream: &'static str,
        refuses: impl Fn(&Value) -> Option<Refusal> + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(MockServer::start());
        // So long that a request is under way all the time.
        let delay = Duration::from_millis(30);
        let answer = move |request: &Request| {
            // Some numbers are more than a `Value` takes.
            let sent = request.body_json().unwrap_or_default();
            match refuses(&sent) {
                Some((status, body)) => ResponseTemplate::new(status).set_body_json(body),
                None => ResponseTemplate::new(200)
                    .set_body_raw(with_count(stream, &sent), "text/event-stream")
                    .set_delay(delay),
            }
        };
        let mock = Mock::given(method("POST")).respond_with(answer);
        runtime.block_on(mock.mount(&server));
        Self { runtime, server }
    }

    /// A bench of a model `m` at this server, with these lines, and prompts with these.
    pub(crate) fn bench(&self, prompts: &str, model: &str) -> Bench {
        Bench::new(&format!(
            "runs: 1\nprompts: [{prompts}]\nmodels:\n  m:\n    base_url: \"{}\"\n{}",
            self.server.uri(),
            model.lines().map(|line| format!("    {line}\n")).collect::<String>()
        ))
    }

    fn requests(&self) -> Vec<Request> {
        let requests = self.runtime.block_on(self.server.received_requests()).unwrap();
        requests.into_iter().filter(|request| request.method.as_str() == "POST").collect()
    }

    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.requests().iter().map(|request| request.body_json().unwrap()).collect()
    }
}

const HELLO: &str = "{ name: hello, text: Say hello. }";

/// What the preflight says of `m`.
fn preflight(ran: &Ran) -> String {
    let lines = ran.stderr.lines().take_while(|line| !line.starts_with("Testing"));
    let lines: Vec<_> = lines.filter(|line| line.contains(": m: ")).collect();
    lines.join("\n")
}

/// What is in backquotes in `said` and begins with `extra_body`.
fn line_in(said: &str) -> String {
    let mut quoted = said.split('`').filter(|quoted| quoted.starts_with("extra_body: "));
    quoted.next().unwrap_or_else(|| panic!("no line: {said}")).to_owned()
}

// -- what is left out -----------------------------------------------------------------------------

#[test]
fn omitted_fields_are_omitted_from_every_request() {
    let server = Picky::new(|_| None);
    let bench = server.bench(
        HELLO,
        "temperature: null\nextra_body: { stream_options: null, top_p: 0.5, ignore_eos: null }\n\
         ignore_eos: true\ntoken_count: chunks",
    );
    let config = bench.folder.path().join("configs.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let load = "workloads: { load: { concurrency: 2, requests: 3 } }\n";
    std::fs::write(&config, format!("{text}{load}")).unwrap();
    let ran = bench.run_asking_first(&[]);
    passed(&ran);
    let bodies = server.bodies();
    // The preflight, the warm-up, the prompt and the load.
    assert_eq!(bodies.len(), 6, "{bodies:?}");
    for body in bodies {
        let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["model", "messages", "max_tokens", "stream", "top_p"]);
    }
    // A field that was not sent demands no length.
    assert!(bench.column("notes").iter().all(|notes| !notes.contains("shorter")), "{}", ran.stderr);
}

#[test]
fn without_stream_options_usage_is_used_if_sent() {
    const UNCOUNTED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
        data: [DONE]\n\n";
    let run = |stream, more: &str| {
        let server = Picky::answering(stream, |_| None);
        let bench = server.bench(HELLO, &format!("extra_body: {{ stream_options: null }}\n{more}"));
        let ran = bench.run(&["--no-warmup"]);
        let cells = ["response_tokens", "token_count_source", "error_kind"]
            .map(|name| bench.column(name).join(" "));
        (ran.code, cells.join(","))
    };
    assert_eq!(run(STREAM, ""), (Some(0), "2,usage,".into()));
    assert_eq!(run(UNCOUNTED, "token_count: chunks"), (Some(0), "2,chunks,".into()));
    assert_eq!(run(UNCOUNTED, ""), (Some(101), ",,no_usage".into()));
}

#[test]
fn without_a_limit_the_preflight_stops_at_the_first_token() {
    let script = llm_stream_sim::Script {
        itl: Duration::from_millis(20),
        tokens: 200,
        ..Default::default()
    };
    let simulator =
        llm_stream_sim::Simulator::start(script, &llm_stream_core::protocol::OpenAiChat).unwrap();
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{HELLO}]\nmodels:\n  \
         m: {{ base_url: \"{}\", extra_body: {{ max_tokens: null }} }}\n",
        simulator.url()
    ));
    let ran = bench.run_asking_first(&["--no-warmup"]);
    passed(&ran);
    assert!(ran.stderr.contains("note: `extra_body` of m omits the limit"), "{}", ran.stderr);
    let log = simulator.log();
    let completed: Vec<_> = log.iter().map(|answer| answer.completed).collect();
    assert_eq!(completed, [false, true], "{log:?}");
    assert_eq!(bench.notes(), [""]);
}

#[test]
fn a_limit_in_extra_body_applies_to_every_prompt_with_a_note() {
    let server = Picky::new(|_| None);
    let note = "note: `extra_body` of m sets the limit of every answer";
    let own = "extra_body: { max_completion_tokens: 64 }";
    let short = "{ name: short, text: Say it., output_tokens: 5 }";
    let ran = server.bench(&format!("{HELLO}, {short}"), own).run(&["--no-warmup"]);
    passed(&ran);
    assert!(ran.stderr.contains(note), "{}", ran.stderr);
    let sent = server.bodies();
    assert!(sent.iter().all(|body| body["max_completion_tokens"] == 64), "{sent:?}");
    assert!(sent.iter().all(|body| body.get("max_tokens").is_none()), "{sent:?}");
    for (prompt, model) in [(HELLO, own), (short, "")] {
        let ran = server.bench(prompt, model).run(&["--no-warmup"]);
        assert!(!ran.stderr.contains("note: `extra_body`"), "{}", ran.stderr);
    }
}

#[test]
fn numbers_reach_the_server_as_written() {
    let server = Picky::new(|_| None);
    let bench = server.bench(
        HELLO,
        "extra_body:\n  big: 123456789012345678901234567890\n  exponent: 1e5\n  zero: 1.10\n  \
         hex: 0x1F\n  point: .5\n  plus: +1\n  huge: 1e400\n  minus: -0\n  \
         pi: 3.14159265358979323846264338\n  inner: { list: [1.0, 2.50, 0o17] }\n  \
         keys: { 0123: 1, 1e5: 2 }\n  text: \"0123\"\n  no: \"no\"\n  date: 2024-10-21",
    );
    passed(&bench.run(&["--no-warmup"]));
    let body = String::from_utf8(server.requests()[0].body.clone()).unwrap();
    let own = body.split_once("\"big\"").unwrap().1;
    assert_eq!(
        own,
        ":123456789012345678901234567890,\"exponent\":1e5,\"zero\":1.10,\"hex\":31,\"point\":0.5,\
         \"plus\":1,\"huge\":1e400,\"minus\":-0,\"pi\":3.14159265358979323846264338,\
         \"inner\":{\"list\":[1.0,2.50,15]},\"keys\":{\"0123\":1,\"1e5\":2},\"text\":\"0123\",\
         \"no\":\"no\",\"date\":\"2024-10-21\"}"
    );
}

// -- what a server refuses ------------------------------------------------------------------------

/// A refusal of `field` in the words of many servers.
fn refusals(field: &str) -> Vec<Refusal> {
    vec![
        (
            400,
            json!({"error": {"message": format!("Unsupported parameter: '{field}' is not supported with this model."), "param": field, "code": "unsupported_parameter"}}),
        ),
        (
            422,
            json!({"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", field], "msg": "Extra inputs are not permitted", "input": {"temperature": 0.7, "max_tokens": 1, "stream_options": {}}}]}}),
        ),
        (422, json!({"detail": format!("Unexpected fields in the request: {{'{field}'}}")})),
        (400, json!({"message": format!("`{field}` is deprecated for this model.")})),
        (400, json!({"error": format!("property '{field}' is unsupported")})),
    ]
}

#[test]
fn a_refused_field_is_reported_with_a_fix() {
    for (field, wordings) in
        [("temperature", 5), ("stream_options", 2), ("max_tokens", 1), ("ignore_eos", 1)]
    {
        for (status, body) in refusals(field).into_iter().take(wordings) {
            let refusal = (status, body.clone());
            let server = Picky::new(move |sent| sent.get(field).map(|_| refusal.clone()));
            let model = "ignore_eos: true";
            let ran = server.bench(HELLO, model).run_asking_first(&["--no-warmup"]);
            assert_eq!(ran.code, Some(101), "{}", ran.stderr);
            let said = preflight(&ran);
            let line = line_in(&said);
            assert_eq!(line, format!("extra_body: {{ {field}: null }}"), "{body}");
            assert!(said.starts_with("ERROR: m: http_status: HTTP 4"), "{said}");
            assert!(said.contains("; it answers with `extra_body"), "{said}");
            let ran = server.bench(HELLO, &format!("{model}\n{line}")).run_asking_first(&[]);
            passed(&ran);
            assert_eq!(preflight(&ran), "");
        }
    }
}

#[test]
fn several_refused_fields_are_reported_in_one_line() {
    // One at a time, as OpenAI does, and the one with its other name.
    let server = Picky::new(|sent| {
        let refused = |field, more: &str| {
            sent.get(field).map(|_| {
                let message = format!(
                    "Unsupported parameter: '{field}' is not supported with this model.{more}"
                );
                (400, json!({"error": {"message": message, "param": field}}))
            })
        };
        refused("max_tokens", " Use 'max_completion_tokens' instead.")
            .or_else(|| refused("temperature", ""))
    });
    let ran = server.bench(HELLO, "max_tokens: 64").run_asking_first(&["--no-warmup"]);
    let line = line_in(&preflight(&ran));
    assert_eq!(line, "extra_body: { max_completion_tokens: 64, temperature: null }");
    passed(&server.bench(HELLO, &line).run_asking_first(&[]));
    // A server that lists what it knows refuses none of that.
    let server = Picky::new(|sent| {
        sent.get("ignore_eos").map(|_| {
            let message = "Unknown field `ignore_eos`. Known: `temperature`, `max_tokens`, `seed`";
            (400, json!({"error": {"message": message}}))
        })
    });
    let ran = server.bench(HELLO, "ignore_eos: true").run_asking_first(&["--no-warmup"]);
    assert_eq!(line_in(&preflight(&ran)), "extra_body: { ignore_eos: null }");
}

#[test]
fn a_server_without_counts_is_reported_with_token_count() {
    const UNCOUNTED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\
        \"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let server = Picky::answering(UNCOUNTED, |sent| {
        let detail = "Unexpected fields in the request: {'stream_options'}";
        sent.get("stream_options").map(|_| (422, json!({"detail": detail})))
    });
    let said = preflight(&server.bench(HELLO, "").run_asking_first(&["--no-warmup"]));
    assert!(
        said.contains("`extra_body: { stream_options: null }`, and `token_count: chunks`"),
        "{said}"
    );
}

#[test]
fn the_suggested_request_shows_whether_tokens_are_counted() {
    const UNCOUNTED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
        data: [DONE]\n\n";
    for refusal in [
        "unknown field `stream_options`, expected one of `model`, `max_tokens`, `temperature`",
        "bad request: stream_options, max_tokens and temperature were sent",
    ] {
        let server = Picky::answering(UNCOUNTED, move |sent| {
            sent.get("stream_options").map(|_| (422, json!(refusal)))
        });
        let said = preflight(&server.bench(HELLO, "").run_asking_first(&["--no-warmup"]));
        let lines = "`extra_body: { stream_options: null }`, and `token_count: chunks`";
        assert!(said.contains(lines), "{said}");
        let model = "extra_body: { stream_options: null }\ntoken_count: chunks";
        passed(&server.bench(HELLO, model).run_asking_first(&[]));
    }
}

#[test]
fn a_field_is_found_in_a_refusal_of_any_status() {
    for (status, said, field) in [
        (404, "The following fields are unknown: temperature", "temperature"),
        (500, "create() got an unexpected keyword argument 'stream_options'", "stream_options"),
        (501, "stream_options", "stream_options"),
        (403, "temperature is not applicable for this model", "temperature"),
        (405, "不支持temperature", "temperature"),
    ] {
        let server =
            Picky::new(move |sent| sent.get(field).map(|_| (status, json!({"detail": said}))));
        let ran = server.bench(HELLO, "").run_asking_first(&["--no-warmup"]);
        let said = preflight(&ran);
        assert_eq!(line_in(&said), format!("extra_body: {{ {field}: null }}"), "{said}");
        assert!(!said.contains("see `"), "{said}");
        passed(&server.bench(HELLO, &line_in(&said)).run_asking_first(&[]));
    }
}

#[test]
fn a_refusal_in_an_answer_with_status_200_is_one() {
    // A line is printed where it helps, and only there.
    for helps in [true, false] {
        let server = Picky::new(move |sent| {
            let is_refused = !helps || sent.get("temperature").is_some();
            let error = json!({"error": {"message": "temperature is not supported"}});
            is_refused.then_some((200, error))
        });
        let ran = server.bench(HELLO, "").run_asking_first(&["--no-warmup"]);
        let said = preflight(&ran);
        assert!(said.contains("temperature is not supported"), "{said}");
        assert_eq!(said.contains("extra_body: { temperature: null }"), helps, "{said}");
        if helps {
            passed(&server.bench(HELLO, &line_in(&said)).run_asking_first(&[]));
        }
    }
}

#[test]
fn a_fix_that_does_not_help_is_not_printed() {
    let message = "model m is not available; temperature ok";
    let server = Picky::new(move |_| Some((400, json!({"error": {"message": message}}))));
    let list = ResponseTemplate::new(200).set_body_json(json!({"data": [{"id": "other"}]}));
    let mock = Mock::given(method("GET")).and(path("/v1/models")).respond_with(list);
    server.runtime.block_on(mock.mount(&server.server));
    let said = preflight(&server.bench(HELLO, "").run_asking_first(&["--no-warmup"]));
    assert!(said.contains(message) && !said.contains("extra_body"), "{said}");
    assert!(said.contains("its models are `other`, not `m`"), "{said}");
}

#[test]
fn the_text_of_a_prompt_cannot_be_omitted() {
    for (protocol, field) in [
        ("anthropic_messages", "system"),
        ("openai_responses", "instructions"),
        ("openai_responses", "input"),
        ("openai_completions", "prompt"),
        ("tgi_generate_stream", "inputs"),
        ("ollama_chat", "messages"),
    ] {
        let server = Picky::new(|_| None);
        let model = format!("protocol: {protocol}\nextra_body: {{ {field}: null }}");
        let ran = server.bench(HELLO, &model).run(&[]);
        assert_eq!(ran.code, Some(2), "{field}: {}", ran.stderr);
        let why = format!("`extra_body` must not hold `{field}: null`");
        assert!(ran.stderr.contains(&why), "{}", ran.stderr);
    }
}

#[test]
fn a_refusal_of_a_value_is_printed_unchanged() {
    let message = "max_tokens is too large: 1024. This model supports at most 512 tokens.";
    let server = Picky::new(move |_| Some((400, json!({"error": {"message": message}}))));
    let said = preflight(&server.bench(HELLO, "").run_asking_first(&["--no-warmup"]));
    assert!(said.contains(message) && !said.contains("extra_body"), "{said}");
}

#[test]
fn fields_that_only_some_prompts_demand_fail_only_these() {
    let server = Picky::new(|sent| {
        let detail = "Unexpected fields in the request: {'ignore_eos'}";
        sent.get("ignore_eos").map(|_| (422, json!({"detail": detail})))
    });
    let forced = "{ name: forced, text: Say it., ignore_eos: true, output_tokens: 5 }";
    let ran = server.bench(&format!("{HELLO}, {forced}"), "").run_asking_first(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let said = preflight(&ran);
    assert!(said.contains("it answers with `extra_body: { ignore_eos: null }`"), "{said}");
    assert!(said.ends_with("; its trials with `forced` are not run"), "{said}");
    assert!(ran.stderr.contains("FAILED: 1 of 2 trials failed"), "{}", ran.stderr);
    // All of them demand it: one question, and none of the trials is run.
    let server_requests = server.bodies().len();
    let ran = server.bench(forced, "").run_asking_first(&[]);
    assert!(preflight(&ran).ends_with("; its trials are not run"), "{}", ran.stderr);
    let sent = &server.bodies()[server_requests..];
    assert_eq!(sent[0]["ignore_eos"], true, "{sent:?}");
    assert!(sent.iter().all(|body| body["max_tokens"] != 64), "no warm-up: {sent:?}");
}

#[test]
fn each_refusal_is_printed_if_every_prompt_is_refused() {
    let server = Picky::new(|sent| {
        let refused = |field| {
            let detail = format!("Unexpected fields in the request: {{'{field}'}}");
            sent.get(field).map(|_| (422, json!({"detail": detail})))
        };
        refused("ignore_eos").or_else(|| refused("tools"))
    });
    let tool = "{ type: function, function: { name: get_weather } }";
    let prompts = format!(
        "{{ name: forced, text: Say it., ignore_eos: true, output_tokens: 5 }}, \
         {{ name: tool, text: Say it., tools: [{tool}] }}"
    );
    let said = preflight(&server.bench(&prompts, "").run_asking_first(&["--no-warmup"]));
    for field in ["ignore_eos", "tools"] {
        let hint = format!("it answers with `extra_body: {{ {field}: null }}`");
        assert!(said.contains(&hint), "{said}");
    }
    assert!(said.ends_with("; its trials are not run"), "{said}");
}

// -- where nothing is -----------------------------------------------------------------------------

#[tokio::test]
async fn a_404_names_the_path_and_where_other_protocols_answer() {
    let server = MockServer::start().await;
    let bad = || ResponseTemplate::new(400).set_body_json(json!({"error": "model is required"}));
    Mock::given(method("POST")).and(path("/api/chat")).respond_with(bad()).mount(&server).await;
    let uri = server.uri();
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{HELLO}]\nmodels:\n  m: {{ base_url: \"{uri}\" }}\n  \
         n: {{ base_url: \"{uri}/api\", protocol: openai_completions }}\n"
    ));
    let ran = bench.run_asking_first(&["--no-warmup"]);
    let nothing = "nothing is at /v1/chat/completions, the path of `openai_chat`; /api/chat answers: \
                   `protocol: ollama_chat`";
    assert!(ran.stderr.contains(nothing), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("with `base_url: \"{uri}\"`?")), "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing is at /api/completions"), "{}", ran.stderr);
    // What is asked of other paths is not a request.
    let others = server.received_requests().await.unwrap();
    let others = others.iter().filter(|request| request.url.path() == "/api/chat");
    assert!(others.map(|request| &request.body[..]).all(|body| body == b"[]"));
}

#[tokio::test]
async fn a_path_that_contains_model_and_a_web_page_are_recognised() {
    for said in ["Cannot POST /model-gw/chat/completions", "Not found: see /v1/models"] {
        let server = MockServer::start().await;
        let missing = ResponseTemplate::new(404).set_body_string(said);
        let missing = Mock::given(path("/model-gw/chat/completions")).respond_with(missing);
        missing.mount(&server).await;
        let page = ResponseTemplate::new(200).set_body_raw("<html></html>", "text/html");
        Mock::given(wiremock::matchers::any()).respond_with(page).mount(&server).await;
        let bench = Bench::new(&format!(
            "runs: 1\nprompts: [{HELLO}]\nmodels:\n  m: {{ base_url: \"{}/model-gw\" }}\n",
            server.uri()
        ));
        let said = preflight(&bench.run_asking_first(&["--no-warmup"]));
        let nothing = "nothing is at /model-gw/chat/completions, the path of `openai_chat`";
        assert!(said.contains(nothing), "{said}");
        assert!(!said.contains("answers"), "{said}");
    }
}

#[tokio::test]
async fn a_path_without_v1_is_found_and_can_be_written() {
    let server = MockServer::start().await;
    let answer = |request: &Request| match request.body_json::<Value>() {
        Ok(Value::Object(_)) => {
            ResponseTemplate::new(200).set_body_raw(STREAM, "text/event-stream")
        }
        _ => ResponseTemplate::new(422).set_body_json(json!({"detail": "no object"})),
    };
    let mock = Mock::given(method("POST")).and(path("/chat/completions"));
    mock.respond_with(answer).mount(&server).await;
    let bench = |url: &str| {
        Bench::new(&format!(
            "runs: 1\nprompts: [{HELLO}]\nmodels:\n  m: {{ base_url: \"{url}\" }}\n"
        ))
    };
    let uri = server.uri();
    let said = preflight(&bench(&uri).run_asking_first(&["--no-warmup"]));
    let hint = format!("/chat/completions answers: `base_url: \"{uri}/chat/completions\"`?");
    assert!(said.contains(&hint), "{said}");
    passed(&bench(&format!("{uri}/chat/completions")).run_asking_first(&[]));
}

#[test]
fn mistakes_in_a_base_url_are_reported_with_a_suggestion() {
    for (url, protocol, what, help) in [
        ("http://127.0.0.1:", "openai_chat", "has no port after its `:`", "write the port"),
        ("http://:8000", "openai_chat", "has no host", "for example"),
        ("${URL}", "openai_chat", "must not hold a variable", "`headers`, `query` and `proxy`"),
        (
            "http+unix://%2Ftmp%2Fx.sock/v1",
            "openai_chat",
            "has a scheme that is not HTTP",
            "`unix:///tmp/x.sock:/v1`",
        ),
        ("http://http://127.0.0.1", "openai_chat", "has two schemes", "`http://127.0.0.1`"),
        ("<http://h:80>", "openai_chat", "is in quotes or brackets", "`http://h:80`"),
        ("http://h/v1/chat", "openai_chat", "must not end with `/v1/chat`", "`http://h`"),
        ("http://h/a/v1/models/", "openai_chat", "end with `/v1/models`", "`http://h/a/v1`"),
        ("http://h/v1/embeddings", "openai_responses", "`/v1/embeddings`", "`http://h`"),
        ("http://h/api/generate", "ollama_chat", "`/api/generate`", "`http://h`"),
        ("http://h/generate", "tgi_generate_stream", "end with `/generate`", "`http://h`"),
        ("http://h/v1", "ollama_chat", "must not end with `/v1`", "`http://h`"),
        ("http://h/x/api/", "ollama_chat", "must not end with `/api`", "`http://h/x`"),
        (
            "http://h/completions",
            "openai_chat",
            "the path of `openai_completions`",
            "at `http://h/completions`",
        ),
    ] {
        let bench = Bench::new(&format!(
            "runs: 1\nprompts: [{HELLO}]\nmodels:\n  \
             m: {{ base_url: \"{url}\", protocol: {protocol} }}\n"
        ));
        let ran = bench.run(&["--list"]);
        assert_eq!(ran.code, Some(2), "{url}: {}", ran.stderr);
        let error = ran.stderr.lines().next().unwrap_or_default();
        let (_, after) = ran.stderr.split_once("= help: ").unwrap();
        assert!(error.contains(what) && after.contains(help), "{url}: {}", ran.stderr);
    }
    for (url, protocol) in [
        ("http://h/chat/completions", "openai_chat"),
        ("http://h/messages", "anthropic_messages"),
        ("http://h/models", "openai_chat"),
        ("http://h/api", "openai_chat"),
        ("http://h/generate", "openai_chat"),
    ] {
        let bench = Bench::new(&format!(
            "runs: 1\nprompts: [{HELLO}]\nmodels:\n  \
             m: {{ base_url: \"{url}\", protocol: {protocol} }}\n"
        ));
        assert_eq!(bench.run(&["--list"]).code, Some(0), "{url}");
    }
}

#[tokio::test]
async fn ollama_without_the_model_gets_no_other_path_suggested() {
    let server = MockServer::start().await;
    let missing = json!({"error": "model 'm' not found"});
    let missing = ResponseTemplate::new(404).set_body_json(missing);
    Mock::given(method("POST")).and(path("/api/chat")).respond_with(missing).mount(&server).await;
    for (list, body) in [
        ("/api/tags", json!({"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}]})),
        ("/v1/models", json!({"data": [{"id": "qwen3:8b"}]})),
    ] {
        let answer = ResponseTemplate::new(200).set_body_json(body);
        Mock::given(method("GET")).and(path(list)).respond_with(answer).mount(&server).await;
    }
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{HELLO}]\nmodels:\n  \
         m: {{ base_url: \"{}\", protocol: ollama_chat }}\n",
        server.uri()
    ));
    let said = preflight(&bench.run_asking_first(&["--no-warmup"]));
    assert!(
        said.contains("its models are `qwen3:8b`, not `m`: `model_name: \"qwen3:8b\"`?"),
        "{said}"
    );
    assert!(!said.contains("/v1"), "{said}");
}

// -- a prompt as long as the model takes ----------------------------------------------------------

/// Tokens of a text: five for four words, and a template of 37.
fn five_for_four(text: &str) -> u64 {
    37 + text.split(' ').count() as u64 * 5 / 4
}

#[test]
fn a_length_near_the_end_of_the_context_is_found() {
    for wanted in [3300, 4000, 4085] {
        let server = Counting::limited(five_for_four, 4096);
        let bench = server.bench(&format!("synthetic: {{ input_tokens: {wanted} }}"), "");
        let ran = bench.run(&["long", "--no-warmup"]);
        passed(&ran);
        for count in counts(&bench) {
            assert!(count.abs_diff(wanted) * 50 <= wanted, "{count} of {wanted}");
        }
    }
    // Two tokens a word: the first guess is already too long.
    let server = Counting::limited(|text| 600 + text.split(' ').count() as u64 * 2, 4096);
    let bench = server.bench("synthetic: { input_tokens: 4050 }", "");
    passed(&bench.run(&["long", "--no-warmup"]));
    // A prompt longer than the context fails the trial, with the server's message.
    let server = Counting::limited(five_for_four, 4096);
    let bench = server.bench("synthetic: { input_tokens: 5000 }", "");
    let ran = bench.run(&["long", "--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let said = "prompt_length: no text of 5000 tokens can be sent: the server refuses ";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert!(ran.stderr.contains("maximum context length is 4096 tokens"), "{}", ran.stderr);
    assert!(server.questions().len() <= 8);
}

// -- many prompts ---------------------------------------------------------------------------------

#[test]
fn a_large_interleaved_set_is_listed_quickly() {
    let bench = Bench::new(
        "runs: 3\norder: interleaved\nprompts: [{ name: d, dataset: d.jsonl }]\n\
         models: { m: { simulate: {} }, n: { simulate: {} } }\n",
    );
    const COUNT: usize = 16_000;
    let line = |nth| format!("{{\"id\":\"q{nth}\",\"prompt\":\"Say {nth}.\"}}\n");
    let lines: String = (0..COUNT).map(line).collect();
    std::fs::write(bench.folder.path().join("d.jsonl"), lines).unwrap();
    let began = Instant::now();
    let ran = bench.run(&["--list"]);
    let took = began.elapsed();
    let names: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(names.len(), COUNT * 6);
    // In the order of the config, whatever the order of the trials.
    assert!(names[1].starts_with("m-simulated::d-q0::run-2"), "{}", names[1]);
    assert!(names[COUNT * 3].starts_with("n-simulated::d-q0::run-1"), "{}", names[COUNT * 3]);
    // Two seconds by a debug build; quadratic, it took minutes.
    assert!(took < Duration::from_secs(40), "{took:?}");
}
