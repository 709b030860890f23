//! Answers that are not streamed: `stream: false`, embeddings and reranking.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use llm_stream_bench::load::{self, Answer};
use llm_stream_client::connect_options::ConnectOptions;
use llm_stream_core::protocol;
use serde_json::{Value, json};

use crate::{
    bench::{Bench, passed, ran},
    http::{TRANSPORTS, client_by, plan_of},
    player::{Step, answers, chunk, plays},
    wait,
};

// -- the simulated endpoint -----------------------------------------------------------------------

/// Columns that need the arrival of a token, or an event.
const OF_TOKENS: [&str; 14] = [
    "preprocess_time",
    "generation_time",
    "preprocess_speed",
    "generation_speed",
    "ttfo",
    "tpot",
    "itl",
    "itl_max",
    "first_event_time",
    "uncached_preprocess_speed",
    "first_reasoning_time",
    "token_events",
    "shared_arrivals",
    "tokens_per_event",
];

/// A config with a model for each protocol of generated text, without streams.
fn each_protocol() -> String {
    let model = |protocol: &&dyn protocol::Protocol| {
        let name = protocol.name();
        format!(
            "  {name}:\n    simulate: {{ ttft: 30ms, itl: 1ms, tokens: 20, timings: true }}\n    \
             stream: false\n    protocol: {name}\n"
        )
    };
    let models: String = protocol::ALL.iter().map(model).collect();
    format!(
        "runs: 1\nmodels:\n{models}  by-reqwest:\n    simulate: {{ ttft: 30ms, itl: 1ms, tokens: 20 }}\n    \
         stream: false\n    transport: reqwest\nprompts: [{{ name: hi, text: Say hi. }}]\n\
         thresholds: [\"e2e mean <= 60 s\", \"response_tokens min >= 20\"]\n"
    )
}

#[test]
fn each_protocol_has_answers_without_a_stream() {
    let bench = Bench::new(&each_protocol());
    let ran = bench.run(&[]);
    passed(&ran);
    let count = protocol::ALL.len() + 1;
    assert_eq!(bench.column("response_tokens"), vec!["20"; count]);
    assert_eq!(bench.column("streaming_used"), vec!["false"; count]);
    for column in OF_TOKENS {
        assert_eq!(bench.column(column), vec![""; count], "{column}");
    }
    // Written as a whole with the last token: 30 ms + 19 × 1 ms.
    for column in ["e2e", "total_time", "first_byte_time"] {
        for value in bench.column(column) {
            assert!(value.parse::<f64>().unwrap() >= 0.049, "{column}: {value}");
        }
    }
    for speed in bench.column("total_tokens_per_second") {
        assert!(speed.parse::<f64>().unwrap() > 0.0);
    }
    assert_eq!(bench.notes(), vec![""; count]);
    for text in [
        "ms, not streamed\n",
        "Ranking by e2e (mean ± standard deviation), since no answer was streamed",
    ] {
        assert!(ran.stderr.contains(text), "{text}\n{}", ran.stderr);
    }
}

#[test]
fn the_results_say_that_a_figure_is_absent_without_a_stream() {
    let config = "runs: 2\nmodels:\n  whole:\n    simulate: { ttft: 20ms, itl: 1ms, tokens: 8 }\n    \
                  stream: false\n  streamed:\n    simulate: { ttft: 20ms, itl: 10ms, tokens: 8 }\n\
                  prompts: [{ name: hi, text: Say hi. }]\n";
    let bench = Bench::new(config);
    let ran = bench.run(&["--json", "run.json"]);
    passed(&ran);
    for text in [
        "whole-simulated: no generation_speed, ttft, tpot, preprocess_speed: 2 not streamed",
        "-. whole-simulated: not ranked: 2 of 2 answers have no generation_speed: 2 not streamed",
        "1. streamed-simulated: ",
    ] {
        assert!(ran.stderr.contains(text), "{text}\n{}", ran.stderr);
    }
    let json = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let groups = json["groups"].as_array().unwrap();
    let whole = groups.iter().find(|group| group["model"] == "whole-simulated").unwrap();
    for metric in ["ttft", "ttfo", "tpot", "itl", "generation_speed", "preprocess_speed"] {
        let figure = &whole["metrics"][metric];
        assert_eq!((&figure["mean"], &figure["n"]), (&Value::Null, &json!(0)), "{metric}");
        assert_eq!(figure["lacking_because"], json!({"not_streamed": 2}), "{metric}: {figure}");
    }
    assert_eq!(whole["metrics"]["e2e"]["n"], 2);
}

#[test]
fn a_load_without_streams_has_throughput() {
    let config = "runs: 1\nmodels:\n  whole:\n    simulate: { ttft: 30ms, itl: 1ms, tokens: 10 }\n    \
                  stream: false\n  embed:\n    simulate: { ttft: 30ms, itl: 1ms }\n    \
                  protocol: openai_embeddings\n    batch: 4\n\
                  prompts: [{ name: hi, text: Say hi. }]\nworkloads:\n  w: { concurrency: 2, requests: 8 }\n  \
                  o: { rate: 40/s, requests: 8 }\n";
    let bench = Bench::new(config);
    let ran = bench.run(&["::w::", "::o::"]);
    let loads = bench.folder.path().join("results.workloads.csv");
    let mut loads = csv::Reader::from_path(loads).unwrap_or_else(|_| panic!("{}", ran.stderr));
    let heads = loads.headers().unwrap().clone();
    let at = |name: &str| heads.iter().position(|head| head == name).unwrap();
    let rows: Vec<_> = loads.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 4, "{}", ran.stderr);
    for row in rows {
        let number = |name: &str| row[at(name)].parse::<f64>().ok();
        let requests = number("request_throughput").unwrap();
        let (items, tokens) = (number("item_throughput"), number("output_throughput"));
        let (given, each, absent) = match row[0].starts_with("embed") {
            true => (items, 4.0, tokens),
            false => (tokens, 10.0, items),
        };
        assert_eq!(absent, None);
        // Both are written with three digits.
        assert!((given.unwrap() - each * requests).abs() < 0.001 * (each + 1.0), "{row:?}");
    }
}

#[test]
fn smoke_mode_tries_answers_without_a_stream() {
    let config = "models:\n  whole: { base_url: \"http://127.0.0.1:1\", stream: false }\n  \
                  embed: { base_url: \"http://127.0.0.1:1\", protocol: openai_embeddings, batch: 3 }\n  \
                  rank: { base_url: \"http://127.0.0.1:1\", protocol: rerank }\n\
                  prompts: [{ dataset: set.jsonl, name: set }]\n";
    let bench = Bench::new(config);
    let record = r#"{"query": "Which city?", "documents": ["Paris", {"text": "Rome"}]}"#;
    fs::write(bench.folder.path().join("set.jsonl"), record).unwrap();
    passed(&ran(&mut bench.smoke(&[])));
}

#[test]
fn faults_of_the_simulated_endpoint_apply_to_whole_answers() {
    let whole = "stream: false";
    let embed = "protocol: openai_embeddings";
    for (model, fault, kind) in [
        (whole, "{ truncate: 3 }", "malformed"),
        (whole, "{ truncate: 0 }", "no_token"),
        (whole, "{ reset: 3 }", "broken"),
        (whole, "{ stall: 3 }", "total_timeout"),
        (whole, "{ status: 503 }", "http_status"),
        (whole, "{ error: 3 }", "in_band"),
        (whole, "missing_usage", "no_usage"),
        (embed, "{ truncate: 1 }", "malformed"),
        (embed, "{ reset: 1 }", "broken"),
        (embed, "{ error: 1 }", "in_band"),
    ] {
        for transport in ["stamped", "reqwest"] {
            let bench = Bench::new(&format!(
                "runs: 1\nmodels:\n  m:\n    simulate: {{ ttft: 5ms, itl: 1ms, tokens: 6, faults: [{fault}] }}\n    \
                 {model}\n    transport: {transport}\n    timeouts: {{ total: 1s }}\n\
                 prompts: [{{ name: hi, text: Say hi. }}]\n"
            ));
            let ran = bench.run(&["--no-warmup"]);
            assert_eq!(ran.code, Some(101), "{fault}: {}", ran.stderr);
            assert_eq!(bench.column("error_kind"), [kind], "{fault} {transport}: {}", ran.stdout);
        }
    }
    let bench = Bench::new(
        "runs: 1\nmodels:\n  m:\n    simulate: { ttft: 5ms, itl: 1ms, tokens: 6, faults: [{ split: 7 }] }\n    \
         stream: false\nprompts: [{ name: hi, text: Say hi. }]\n",
    );
    passed(&bench.run(&[]));
    assert_eq!(bench.column("response_tokens"), ["6"]);
}

// -- configs --------------------------------------------------------------------------------------

/// What the bench target says of a config that it refuses.
fn refused(config: &str) -> String {
    let ran = Bench::by_default(config).run(&[]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    ran.stderr
}

#[test]
fn limits_that_an_answer_without_a_stream_cannot_meet_are_refused() {
    let models = "models:\n  m:\n    simulate: {}\n    stream: false\n";
    for (more, place, metric) in [
        ("    thresholds: [\"tpot p95 <= 25 ms\"]\n", "configs.yaml:5:18", "tpot"),
        ("thresholds: [\"ttft p95 <= 25 ms\"]\n", "configs.yaml:5:14", "ttft"),
        (
            "workloads: { w: { concurrency: 1, requests: 9, goodput: [\"itl <= 9 ms\"] } }\n",
            "configs.yaml:5:58",
            "itl",
        ),
        (
            "workloads: { w: { requests: 9, find: { max: concurrency, subject_to: [\"ttfo p95 <= 9 ms\"] } } }\n",
            "configs.yaml:5:71",
            "ttfo",
        ),
    ] {
        let stderr = refused(&format!("{models}{more}"));
        let what = format!(
            "the answers of `m-simulated` are not streamed, so that they have no `{metric}`"
        );
        assert!(stderr.contains(&what) && stderr.contains(place), "{stderr}");
        assert!(stderr.contains("limit `e2e`"), "{stderr}");
    }
    let config = format!("{models}    thresholds: [\"items_per_second >= 9\"]\n");
    let stderr = refused(&config);
    assert!(stderr.contains("`m-simulated` are not embeddings or scores"), "{stderr}");
    let config = "models:\n  m:\n    simulate: {}\n    protocol: openai_embeddings\n    \
                  thresholds: [\"response_tokens >= 9\"]\n";
    assert!(refused(config).contains("`m-simulated` are not generated text"));
}

#[test]
fn settings_that_do_not_apply_are_refused() {
    let of = |more: &str| refused(&format!("models:\n  m:\n    simulate: {{}}\n    {more}\n"));
    let stderr = of("stream: false\n    token_count: chunks");
    assert!(stderr.contains("`token_count: chunks` counts the events of a stream"), "{stderr}");
    assert!(stderr.contains("configs.yaml:5:5"), "{stderr}");
    let stderr = of("stream: false\n    extra_body: { stream_options: { include_usage: true } }");
    assert!(stderr.contains("`stream_options` is for streams"), "{stderr}");
    let stderr = of("stream: true\n    protocol: openai_embeddings");
    assert!(stderr.contains("the answers of `protocol: openai_embeddings` are never"), "{stderr}");
    let stderr = of("batch: 3");
    assert!(stderr.contains("`batch` is for `protocol: openai_embeddings`"), "{stderr}");
    let stderr = of("protocol: rerank");
    assert!(stderr.contains("the built-in prompts have no documents"), "{stderr}");
    let stderr = of("protocol: rerank\n    extra_body: { top_n: 1 }");
    assert!(stderr.contains("would leave documents out of the answer"), "{stderr}");
    let prompt = "prompts: [{ name: hi, text: Say hi. }]";
    let stderr = of(&format!("protocol: rerank\n{prompt}"));
    assert!(stderr.contains("`rerank` scores documents, and the prompt has none"), "{stderr}");
    let prompt = "prompts: [{ name: hi, text: Say hi., documents: [a] }]";
    let stderr = of(&format!("stream: false\n{prompt}"));
    assert!(stderr.contains("`openai_chat` takes no documents"), "{stderr}");
    let prompt = "prompts: [{ name: hi, turns: [a, b] }]";
    let stderr = of(&format!("protocol: openai_embeddings\n{prompt}"));
    assert!(stderr.contains("`openai_embeddings` has no conversations"), "{stderr}");
}

// -- bodies, by both transports -------------------------------------------------------------------

/// What comes of a request to `url` by `transport`.
fn asked(url: &str, model: &str, transport: &str) -> Answer {
    let case = plan_of(url, &format!("    {model}\n{transport}")).cases[0].clone();
    wait::in_thread(move || {
        let client = client_by(&ConnectOptions::default(), &case, None);
        load::run(&case, &load::PromptSizer::default(), &client, &())
    })
}

/// The same in a line, without what depends on time.
fn line(answer: &Answer) -> String {
    match &answer.outcome {
        Ok(sample) => {
            let notes: Vec<_> = sample.notes.iter().map(|note| note.name()).collect();
            let notes: Vec<_> =
                notes.into_iter().filter(|note| *note != "client_delayed").collect();
            assert!(!sample.is_streamed && sample.token_events.len() == 1);
            assert_eq!((sample.first_answer, sample.first_reasoning), (None, None));
            match sample.items {
                Some(items) => format!("{items} items, {:?} {notes:?}", sample.prompt_tokens),
                None => {
                    let finish = &sample.finish_reason;
                    format!("{} tokens, {finish} {notes:?}", sample.response_tokens)
                }
            }
        }
        Err(error) => format!("{}: {error}", error.kind),
    }
}

/// The line that both transports come to.
fn both(url: &str, model: &str) -> String {
    let [stamped, reqwest] =
        TRANSPORTS.map(|transport| line(&asked(url, model, transport)).replace(url, "URL"));
    assert_eq!(stamped, reqwest);
    stamped
}

const CHAT: &str = "stream: false";
const EMBED: &str = "protocol: openai_embeddings\n    batch: 2";
const RERANK: &str = "protocol: rerank";

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
}

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";

/// The answer with this body and its length.
fn sized(body: &str) -> Vec<u8> {
    [head(body.len()).as_bytes(), body.as_bytes()].concat()
}

/// The line for a body with its length, and for the same one in chunks.
fn of_body(model: &str, body: &str) -> String {
    let whole = both(&answers(sized(body)), model);
    let (begin, end) = body.split_at(body.len() / 2);
    let pieces = [CHUNKED.as_bytes(), &chunk_of(begin), &chunk_of(end), b"0\r\n\r\n"].concat();
    assert_eq!(both(&answers(pieces), model), whole);
    whole
}

/// A chunk; none for an empty text, which would end the body.
fn chunk_of(text: &str) -> Vec<u8> {
    if text.is_empty() { Vec::new() } else { chunk(text.as_bytes()) }
}

/// An answer of vLLM 0.32, one of llama-server, and one of transformers serve 5.19.
const REAL: [&str; 3] = [
    r#"{"id":"chatcmpl-952a1d5a1d726b22","object":"chat.completion","created":1795501708,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Write a long story.","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0","usage":{"prompt_tokens":39,"total_tokens":55,"completion_tokens":16,"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":0,"multimodal_tokens":null},"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}"#,
    r#"{"choices":[{"finish_reason":"length","index":0,"message":{"role":"assistant","content":"Write a long story."}}],"created":1795502109,"model":"m","system_fingerprint":"b0-0c1e57098","object":"chat.completion","usage":{"completion_tokens":16,"prompt_tokens":39,"total_tokens":55},"id":"chatcmpl-m"}"#,
    r#"{"id":"dc094442","choices":[{"finish_reason":"length","index":0,"message":{"content":"Write a long story.","role":"assistant"}}],"created":1795502771,"model":"m@main","object":"chat.completion","usage":{"completion_tokens":16,"prompt_tokens":39,"total_tokens":55}}"#,
];

#[test]
fn answers_of_real_servers_are_read() {
    for body in REAL {
        assert_eq!(of_body(CHAT, body), "16 tokens, length []");
    }
}

#[test]
fn a_body_that_ends_early_is_a_failure_wherever_it_ends() {
    let body = REAL[2];
    let chunked = [CHUNKED.as_bytes(), &chunk(body.as_bytes()), b"0\r\n\r\n"].concat();
    let json_ends = chunked.len() - b"\r\n0\r\n\r\n".len();
    for transport in TRANSPORTS {
        let kind = |answer: &[u8]| {
            let answer = asked(&answers(answer.to_vec()), CHAT, transport);
            line(&answer).split(':').next().unwrap_or_default().to_owned()
        };
        for end in [0, 1, 2, body.len() / 3, body.len() / 2, body.len() - 2, body.len() - 1] {
            // Less than the length says; less of a body that ends with its connection.
            let announced = [head(body.len()).as_bytes(), &body.as_bytes()[..end]].concat();
            assert_eq!(kind(&announced), "broken", "{end}");
            let ends = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
            let without_length = [&ends[..], &body.as_bytes()[..end]].concat();
            let expected = if end == 0 { "no_token" } else { "malformed" };
            assert_eq!(kind(&without_length), expected, "{end}");
            assert_eq!(kind(&chunked[..json_ends - body.len() + end]), "broken", "{end}");
        }
        // The document is complete, and no later byte could change it.
        for end in json_ends..chunked.len() {
            let of = kind(&chunked[..end]);
            assert_eq!(of, "16 tokens, length [\"body_broken\"]", "{end} {transport}");
        }
        assert_eq!(kind(&chunked), "16 tokens, length []");
    }
}

#[test]
fn a_body_that_the_server_keeps_open_ends_with_its_document() {
    let open = [CHUNKED.as_bytes(), &chunk(REAL[2].as_bytes())].concat();
    let (url, _) = plays(move |_| vec![Step::Write(open.clone()), Step::Hold]);
    assert_eq!(both(&url, CHAT), "16 tokens, length [\"body_left_open\"]");
}

#[test]
fn the_time_of_an_answer_ends_with_its_last_byte() {
    let pause = std::time::Duration::from_millis(80);
    let (url, _) = plays(move |_| {
        let (begin, end) = REAL[2].split_at(100);
        let begin = format!("{}{begin}", head(REAL[2].len()));
        vec![Step::Write(begin.into_bytes()), Step::Sleep(pause), Step::Write(end.into())]
    });
    for transport in TRANSPORTS {
        let sample = asked(&url, CHAT, transport).outcome.unwrap();
        assert!(sample.last_token() >= pause && sample.end >= sample.last_token(), "{sample:?}");
        assert!(sample.first_byte < sample.last_token());
    }
}

fn chat(choices: &Value) -> String {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 3});
    json!({"id": "c1", "choices": choices, "usage": usage}).to_string()
}

#[test]
fn an_answer_without_text_a_finish_reason_or_json_is_a_failure() {
    let message = |message: &Value, finish: &Value| {
        chat(&json!([{"index": 0, "message": message, "finish_reason": finish}]))
    };
    let stop = json!("stop");
    let text = json!({"content": "Hi."});
    let two = json!([
        {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
        {"index": 1, "message": {"content": "b"}, "finish_reason": "stop"},
    ]);
    let without_usage =
        json!({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]});
    for (body, expected) in [
        (message(&text, &stop), "3 tokens, stop []"),
        (message(&json!({"content": null, "reasoning": "Hm."}), &stop), "3 tokens, stop []"),
        (
            message(
                &json!({"content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}),
                &json!("tool_calls"),
            ),
            "3 tokens, tool_calls []",
        ),
        (
            message(&json!({"content": ""}), &stop),
            "no_token: the server sent no text, with the finish reason `stop`, though it counted 3 generated tokens",
        ),
        (message(&text, &Value::Null), "no_finish_reason: the answer has no finish reason"),
        (
            message(&text, &json!("abort")),
            "in_band: the server ended the answer with the finish reason `abort`",
        ),
        (
            without_usage.to_string(),
            "no_usage: the server sent no usage that counts the whole answer; a `tokenizer` in `token_count` of the model's config would count them",
        ),
        (
            chat(&two),
            "malformed: the answer has several choices, whose tokens cannot be counted separately",
        ),
        (
            r#"{"error": {"message": "Out of memory.", "code": 500}}"#.into(),
            "in_band: the server answered with an error: Out of memory.",
        ),
        (r#"{"error": "Busy."}"#.into(), "in_band: the server answered with an error: Busy."),
        ("[1, 2]".into(), "malformed: the answer is not a JSON object: [1, 2]"),
        (
            "data: {\"choices\": []}\n\n".into(),
            "malformed: the server streamed its answer, although the request has `stream: false`: data: {\"choices\": []}",
        ),
        (" \n".into(), "no_token: the server answered with an empty body"),
    ] {
        assert_eq!(of_body(CHAT, &body), expected, "{body}");
    }
    for (body, begin) in [
        ("<html>Bad gateway</html>", "malformed: the answer is not JSON ("),
        (r#"{"choices": [{"message"#, "malformed: the JSON of the answer is cut ("),
        (r#"{"choices": []} {"choices": []}"#, "malformed: the answer is not JSON ("),
        (r#"{"object": "nothing"}"#, "no_token: the answer has no generated token: `{"),
    ] {
        let line = of_body(CHAT, body);
        assert!(line.starts_with(begin), "{line}");
    }
}

fn vectors(vectors: &Value) -> String {
    let data: Vec<_> = vectors
        .as_array()
        .unwrap()
        .iter()
        .zip(0..)
        .map(|(vector, nth)| json!({"object": "embedding", "index": nth, "embedding": vector}))
        .collect();
    json!({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 8, "total_tokens": 8}}).to_string()
}

#[test]
fn embeddings_are_as_many_as_asked_and_finite() {
    let nan = vectors(&json!([[1.5], ["NaN"]])).replace("\"NaN\"", "NaN");
    let swapped = r#"{"data": [{"index": 1, "embedding": [1]}, {"index": 0, "embedding": [1]}]}"#;
    let twice = swapped.replace("\"index\": 1", "\"index\": 0");
    let beyond = swapped.replace("\"index\": 1", "\"index\": 2");
    for (body, expected) in [
        (vectors(&json!([[0.5, -1], [1e-3, 0]])), "2 items, Some(8) []"),
        (vectors(&json!(["AACAPwAAAMA=", "AACAPw=="])), "2 items, Some(8) []"),
        (swapped.into(), "2 items, None []"),
        (swapped.replace("\"index\": 1, ", "").replace("\"index\": 0, ", ""), "2 items, None []"),
        (vectors(&json!([[1]])), "malformed: the answer has 1 result for 2 inputs"),
        (vectors(&json!([[1], [1], [1]])), "malformed: the answer has 3 results for 2 inputs"),
        (vectors(&json!([])), "malformed: the answer has 0 results for 2 inputs"),
        (vectors(&json!([[1], []])), "malformed: embedding 1 is empty"),
        (vectors(&json!([[1], null])), "malformed: embedding 1 is not a list of numbers"),
        (
            vectors(&json!([[1], [1, null]])),
            "malformed: embedding 1 has values that are not finite numbers",
        ),
        (nan, "malformed: embedding 1 has values that are not finite numbers"),
        (
            vectors(&json!([[1], "AADAfw=="])),
            "malformed: embedding 1 has values that are not finite numbers",
        ),
        (vectors(&json!([[1], "???"])), "malformed: embedding 1 is not base64 of 32-bit numbers"),
        (
            twice,
            "malformed: the answer does not have each embedding once: the index 0 occurs twice",
        ),
        (
            beyond,
            "malformed: the answer does not have each embedding once: an index is 2, with 2 results",
        ),
        (
            r#"{"error": {"message": "No such model."}}"#.into(),
            "in_band: the server answered with an error: No such model.",
        ),
        (
            r#"{"object": "list"}"#.into(),
            "malformed: the answer has no list `data`: {\"object\":\"list\"}",
        ),
    ] {
        assert_eq!(of_body(EMBED, &body), expected, "{body}");
    }
}

#[test]
fn reranking_scores_each_document_once() {
    let (answer, bodies) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(Vec::new())));
    let (played, seen) = (answer.clone(), bodies.clone());
    let (url, _) = plays(move |body| {
        seen.lock().unwrap().push(serde_json::from_slice::<Value>(body).unwrap());
        vec![Step::Write(sized(&played.lock().unwrap()))]
    });
    let config = |transport: &str| {
        format!(
            "runs: 1\nmodels:\n  m:\n    base_url: \"{url}\"\n    {RERANK}\n{transport}\
             prompts: [{{ name: hi, text: Which city?, documents: [Paris, Rome] }}]\n"
        )
    };
    let two = r#"{"id": "r1", "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": -2}], "usage": {"total_tokens": 8}}"#;
    let missing = two.replace("\"index\": 1, ", "");
    for (body, items, error) in [
        (two.to_owned(), "2", ""),
        (two.replace("\"index\": 1", "\"index\": 0"), "", "the index 0 occurs twice"),
        (two.replace("\"index\": 1", "\"index\": 2"), "", "an index is 2, with 2 results"),
        (missing, "", "an index is missing, with 2 results"),
        (two.replace("0.9", "null"), "", "a `relevance_score` is not a number: null"),
        (two.replace("0.9", "NaN"), "", "a `relevance_score` is not a number"),
        (
            r#"{"results": [{"index": 0, "relevance_score": 1}]}"#.into(),
            "",
            "the answer has 1 result for 2 inputs",
        ),
        (r#"{"error": {"message": "Not a reranker."}}"#.into(), "", "Not a reranker."),
    ] {
        answer.lock().unwrap().clone_from(&body);
        for transport in TRANSPORTS {
            let bench = Bench::new(&config(transport));
            let ran = bench.run(&["--no-warmup"]);
            assert_eq!(ran.code, Some(if error.is_empty() { 0 } else { 101 }), "{}", ran.stderr);
            assert_eq!(bench.column("items"), [items], "{body}");
            assert!(bench.column("error_message")[0].contains(error), "{body}: {}", ran.stdout);
            if error.is_empty() {
                assert_eq!(bench.column("prompt_tokens"), ["8"]);
                for column in ["response_tokens", "finish_reason", "token_count_source"] {
                    assert_eq!(bench.column(column), [""], "{column}");
                }
                let [rate, e2e] = ["items_per_second", "e2e"]
                    .map(|column| bench.column(column)[0].parse::<f64>().unwrap());
                assert!((rate - 2.0 / e2e).abs() < 0.001, "{rate} {e2e}");
            }
        }
    }
    let sent = bodies.lock().unwrap().pop().unwrap();
    assert_eq!(sent["documents"], json!(["Paris", "Rome"]));
    assert!(sent["query"].as_str().unwrap().ends_with("Which city?"), "{sent}");
    assert_eq!(sent.as_object().unwrap().len(), 3, "{sent}");
}

#[test]
fn requests_say_that_they_want_no_stream() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let (url, _) = plays(move |body| {
        seen.lock().unwrap().push(serde_json::from_slice::<Value>(body).unwrap());
        vec![Step::Write(sized("{}"))]
    });
    let sent = |model: &str| {
        let _ = asked(&url, model, TRANSPORTS[0]);
        bodies.lock().unwrap().pop().unwrap()
    };
    for protocol in protocol::ALL {
        let body = sent(&format!("stream: false\n    protocol: {}", protocol.name()));
        assert!(body.get("stream_options").is_none(), "{body}");
        // The path of TGI says it.
        let expected = (protocol.name() != "tgi_generate_stream").then_some(&Value::Bool(false));
        assert_eq!(body.get("stream"), expected, "{body}");
    }
    let body = sent("protocol: openai_embeddings\n    batch: 3\n    prefix_cache: reuse");
    assert_eq!(
        body["input"],
        json!(["1: Be brief.\n\nSay hi.", "2: Be brief.\n\nSay hi.", "3: Be brief.\n\nSay hi."])
    );
    let body = sent("protocol: openai_embeddings\n    prefix_cache: reuse");
    assert_eq!(body["input"], "Be brief.\n\nSay hi.");
}
