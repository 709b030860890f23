//! Secrets are sent to their servers and appear in no output: files, messages or recordings.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use llm_stream_bench::config::TokenCount;
use llm_stream_core::{protocol::OpenAiChat, recording::Recording, sample};

use crate::{
    bench::{Bench, Ran, ran},
    servers::repeats,
};

/// An endpoint that quotes the head of each request in its answer, and keeps it.
struct EchoServer {
    address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
}

impl EchoServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<String>>>::default();
        let kept = received.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (mut socket, kept) = (socket.unwrap(), kept.clone());
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                while !request.ends_with(b"}") {
                    match socket.read(&mut piece) {
                        Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
                        _ => break,
                    }
                }
                let request = String::from_utf8(request).unwrap();
                let head = request.split("\r\n\r\n").next().unwrap_or_default().to_owned();
                let answer = answer(&head, request.contains("in-stream"));
                kept.lock().unwrap().push(head);
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        Self { address, received }
    }

    fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

/// `head` in an error, or in a stream as token, id and finish reason.
fn answer(head: &str, in_stream: bool) -> String {
    let quoted = forms(head).map(|form| serde_json::Value::from(form).to_string());
    let quoted = [quoted[0].as_str(), &quoted[1], &quoted[2], &escaped(head)].map(|quoted| {
        let inner = &quoted[1..quoted.len() - 1];
        inner.to_owned()
    });
    let quoted = format!("\"{}\"", quoted.join(" "));
    if !in_stream {
        let body = format!("{{\"error\":{{\"message\":{quoted}}}}}");
        let length = body.len();
        // The server closes each connection. Unannounced, a request that crosses with it is lost.
        let head = "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n";
        return format!("{head}content-length: {length}\r\n\r\n{body}");
    }
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
         data: {{\"id\":{quoted},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{quoted}}}}}]}}\n\n\
         data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"b\"}},\"finish_reason\":{quoted}}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":2}}}}\n\n\
         data: [DONE]\n\n"
    )
}

/// `head` in plain, URL-encoded, and with its values in Base64.
fn forms(head: &str) -> [String; 3] {
    let values = head.lines().filter_map(|line| line.split_once(": "));
    let in_base64: Vec<_> = values.map(|(_, value)| BASE64_STANDARD.encode(value)).collect();
    let in_url: String = head
        .bytes()
        .map(|byte| match char::from(byte) {
            letter if letter.is_ascii_alphanumeric() => letter.to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect();
    [head.to_owned(), in_url, in_base64.join(" ")]
}

/// `head` with every character escaped that may be escaped, in several ways.
fn escaped(head: &str) -> String {
    let escape = |(place, character): (usize, char)| match (character, place % 4) {
        (letter, _) if letter.is_ascii_alphanumeric() => letter.to_string(),
        ('/', 0 | 1) => "\\/".to_owned(),
        (other, 0) => format!("\\u{:04x}", u32::from(other)),
        (other, 1) => format!("\\u{:04X}", u32::from(other)),
        (other, 2) => format!("&#{};", u32::from(other)),
        (other, _) => format!("&#x{:X};", u32::from(other)),
    };
    format!("\"{}\"", head.char_indices().map(escape).collect::<String>())
}

const KEYS: [(&str, &str); 5] = [
    ("LLM_TEST_KEY", "sk-alpha-0123456789"),
    ("LLM_TEST_HEADER", "bravo/+=9876 54321"),
    ("LLM_TEST_QUERY", "charlie&?%/=13579"),
    ("LLM_TEST_PASSWORD", "fulcrum:@/24680"),
    ("LLM_TEST_BASIC", "ZWNobzpodXNoLWh1c2g="),
];

/// Parts of the secrets that no output may contain, in any form.
const TRACES: [&str; 12] = [
    "alpha-0123",
    "bravo",
    "charlie",
    "fulcrum",
    // `user:fulcrum:@/24680`
    "dXNlcjpmdWxjcnVtOkAvMjQ2ODA",
    "ZWNobzpodXNo",
    "written-out",
    // The rest of a key of which one character was not recognized.
    "0123456789",
    "54321",
    "13579",
    "24680",
    // `-alpha-` in the Base64 of `Bearer sk-alpha-0123456789`.
    "LWFscGhhLT",
];

/// Whether `trace` is in `text`. The digits of a key are a short number, unlike those of a time.
fn holds(text: &str, trace: &str) -> bool {
    if !trace.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.contains(trace);
    }
    // Up to two digits more: those of a blank that is escaped in a URL.
    let numbers = text.split(|ch: char| !ch.is_ascii_digit() && ch != '.');
    let mut short = numbers.filter(|number| number.len() <= trace.len() + 2);
    short.any(|number| !number.contains('.') && number.contains(trace))
}

#[test]
fn the_digits_of_a_key_are_distinguished_from_those_of_a_time() {
    for text in ["key=13579&", "%3D13579", "\"***13579\"", "%2013579", "13579"] {
        assert!(holds(text, "13579"), "{text}");
    }
    for text in ["0.001135793,", "\"at_ns\":1135790000", "1.13579"] {
        assert!(!holds(text, "13579"), "{text}");
    }
}

fn config(server: &EchoServer) -> String {
    let address = server.address;
    let secrets = "    api_key_env: LLM_TEST_KEY
    headers: { x-key: \"Token ${LLM_TEST_HEADER}\", x-service-token: \"written-out-1\", x-plain: \"shown-1\" }
    query: { api-version: \"2024-10-21\", key: \"${LLM_TEST_QUERY}\", token: written-out-2 }
";
    let mut config = String::from(
        "runs: 1\nprompts:\n  - { name: refused, text: hi }\n  - { name: told, text: in-stream }\n\
         thresholds: [\"success_rate >= 99 %\"]\nmodels:\n",
    );
    for transport in ["stamped", "reqwest"] {
        config += &format!(
            "  {transport}:\n    base_url: \"http://{address}/openai/deployments/d\"\n    \
             transport: {transport}\n{secrets}"
        );
    }
    config += &format!(
        "  proxied:\n    base_url: \"http://model.invalid\"\n    \
         proxy: \"http://user:${{LLM_TEST_PASSWORD}}@{address}\"\n{secrets}\
         \x20 basic:\n    base_url: \"http://{address}\"\n    \
         headers: {{ authorization: \"Basic ${{LLM_TEST_BASIC}}\" }}\n"
    );
    config
}

/// A run with all outputs.
fn run(bench: &Bench) -> Ran {
    let mut command = bench.command(&[
        "--record",
        "kept",
        "--junit",
        "junit.xml",
        "--json",
        "run.json",
        "--export",
        "bencher=bmf.json",
        "--export",
        "github-action-benchmark-bigger=gab.json",
        "--save-baseline",
        "main",
    ]);
    command.envs(KEYS).env("GITHUB_ACTIONS", "true");
    ran(command.env("GITHUB_STEP_SUMMARY", bench.folder.path().join("step.md")))
}

/// The files under `folder` with their contents.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
    found
}

#[test]
fn a_run_leaves_no_key_behind() {
    let server = EchoServer::start();
    let bench = Bench::new(&config(&server));
    let ran = run(&bench);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let rows = bench.results();
    let valid = rows.iter().filter(|row| row[12].is_empty()).count();
    assert_eq!((rows.len(), valid), (8, 4), "each is refused once: {rows:?}\n{}", ran.stderr);
    let mut left = files(bench.folder.path());
    left.retain(|(name, _)| !name.ends_with("configs.yaml"));
    let names: Vec<_> = left.iter().map(|(name, _)| name.rsplit('/').next().unwrap()).collect();
    for name in ["results.csv", "junit.xml", "run.json", "bmf.json", "gab.json", "step.md"] {
        assert!(names.contains(&name), "{name} in {names:?}\n{}", ran.stderr);
    }
    assert!(names.iter().filter(|name| name.ends_with(".jsonl")).count() >= 4, "{names:?}");
    left.extend([("stdout".into(), ran.stdout.into()), ("stderr".into(), ran.stderr.into())]);
    for (name, bytes) in left {
        let text = String::from_utf8_lossy(&bytes);
        for trace in TRACES {
            assert!(!holds(&text, trace), "`{trace}` is in {name}:\n{text}");
        }
        // Other values are shown.
        if name.ends_with(".jsonl") {
            assert!(text.contains("shown-1") || name.contains("basic"), "{name}:\n{text}");
        }
    }
}

#[test]
fn a_name_chosen_by_the_user_does_not_make_a_value_secret() {
    const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";
    let names = [
        "Mixtral-8x-7B",
        "lynx-7b",
        "gpt-x-pro",
        "mon-key",
        "my-token",
        "header-llm",
        "llama-cookie",
        "hf_internal-testing/tiny",
        "sk-telecom/A.X-4.0-Light",
        REVISION,
    ];
    let of_model = |name: &&str| {
        format!("models: {{ \"{name}\": {{ base_url: \"http://h\", temperature: 77 }} }}\n")
    };
    let mut configs: Vec<_> = names.iter().map(of_model).collect();
    let one = "models: { m: { simulate: {} } }\n";
    configs.push(format!("{one}workloads: {{ max-token: {{ concurrency: x77 }} }}\n"));
    let body = "pad_token: x, eos_token: [y], prompt_cache_key: 1000, n: 77";
    configs
        .push(format!("models: {{ m: {{ base_url: \"http://h\", extra_body: {{ {body} }} }} }}\n"));
    configs.push(format!("{one}prompts: [{{ name: x77, dataset: hf_rows.json }}]\n"));
    for config in configs {
        let bench = Bench::new(&config);
        fs::write(bench.folder.path().join("hf_rows.json"), "[]").unwrap();
        let ran = bench.run(&["--list"]);
        assert_eq!(ran.code, Some(2), "{config}{}", ran.stdout);
        assert!(!ran.stderr.contains("***"), "{}", ran.stderr);
        assert!(ran.stderr.contains("77") || ran.stderr.contains("hf_rows"), "{}", ran.stderr);
    }
    // A secret in an invalid place is masked, too.
    for settings in [
        "headers: { sessionToken: hunter2 }, query: x",
        "query: { clientSecret: hunter2 }, headers: x",
        "extra_body: { api_key: hunter2, n: 77 }",
        "api_key: hunter2",
        "x-api-key: hunter2",
        "proxy: \"http://me:hunter2@proxy\", transport: x",
        "base_url: \"http://h?key=hunter2\"",
        "model_name: hf_hunter2AbCdEfGhIjKlMnOpQrStUv, temperature: 77",
    ] {
        let ran =
            Bench::new(&format!("models: {{ mon-key: {{ {settings} }} }}\n")).run(&["--list"]);
        assert_eq!(ran.code, Some(2), "{settings}");
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
}

#[test]
fn the_password_of_the_proxy_in_the_environment_is_masked() {
    let server = EchoServer::start();
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: p, text: hi }]\nmodels:\n  m:\n    \
         base_url: \"http://model.invalid\"\n    transport: reqwest\n",
    );
    // With and without a scheme.
    for scheme in ["http://", ""] {
        let mut command = bench.command(&["--no-warmup", "--record", "kept"]);
        let proxy = format!("{scheme}user:fulcrum%3A24680@{}", server.address);
        let ran = ran(command.env("http_proxy", proxy));
        assert!(ran.stderr.contains("401 Unauthorized"), "{}", ran.stderr);
        let mut left = files(bench.folder.path());
        left.extend([("stdout".into(), ran.stdout.into()), ("stderr".into(), ran.stderr.into())]);
        for (name, bytes) in left {
            let text = String::from_utf8_lossy(&bytes);
            // The last one is `user:fulcrum:24680` in Base64.
            for trace in ["fulcrum", "24680", "dXNlcjpmdWxjcnVtOjI0Njgw"] {
                assert!(!holds(&text, trace), "`{trace}` is in {name}:\n{text}");
            }
        }
    }
    assert!(server.received().iter().any(|head| head.contains("dXNlcjpmdWxjcnVtOjI0Njgw")));
}

#[test]
fn a_key_that_is_a_word_is_masked_in_a_cut_message() {
    for (key, status) in [
        ("abcdefghijklmnopqrst", "400 Bad Request"),
        ("98765432101234567890", "400 Bad Request"),
        ("abcdefghijklmnopqrst", "200 OK\r\ncontent-type: text/event-stream"),
    ] {
        let message = format!("{}{key} is no key", "no ".repeat(97));
        let error = format!("{{\"error\":{{\"message\":\"{message}\"}}}}");
        let body = if status.starts_with("200") { format!("data: {error}\n\n") } else { error };
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
        let address = repeats((head + &body).into());
        let bench = Bench::new(&format!(
            "runs: 1\nprompts: [{{ name: p, text: hi }}]\nmodels:\n  m:\n    \
             base_url: \"http://{address}\"\n    api_key_env: LLM_TEST_KEY\n"
        ));
        let ran = ran(bench.command(&["--no-warmup"]).env("LLM_TEST_KEY", key));
        assert!(ran.stderr.contains("no no no"), "{}", ran.stderr);
        let output =
            fs::read_to_string(bench.folder.path().join("results.csv")).unwrap() + &ran.stderr;
        assert!(!output.contains(&key[..8]), "{output}");
    }
}

#[test]
fn keys_are_sent_to_their_servers() {
    let server = EchoServer::start();
    let bench = Bench::new(&config(&server));
    run(&bench);
    let query = "api-version=2024-10-21&key=charlie%26%3F%25%2F%3D13579&token=written-out-2";
    let own = format!("POST /openai/deployments/d/chat/completions?{query} HTTP/1.1\r\n");
    let proxied = format!("POST http://model.invalid/v1/chat/completions?{query} HTTP/1.1\r\n");
    let mut counts = [0; 3];
    for head in server.received() {
        if head.starts_with(&own) || head.starts_with(&proxied) {
            assert!(head.contains("authorization: Bearer sk-alpha-0123456789"), "{head}");
            assert!(head.contains("x-key: Token bravo/+=9876 54321"), "{head}");
        }
        if head.starts_with(&own) {
            counts[0] += 1;
        } else if head.starts_with(&proxied) {
            let basic = "proxy-authorization: Basic dXNlcjpmdWxjcnVtOkAvMjQ2ODA";
            assert!(head.to_ascii_lowercase().contains(&basic.to_ascii_lowercase()), "{head}");
            counts[1] += 1;
        } else {
            assert!(head.contains("authorization: Basic ZWNobzpodXNoLWh1c2g="), "{head}");
            counts[2] += 1;
        }
    }
    // Two prompts and a warm-up each.
    assert_eq!(counts, [6, 3, 3]);
}

#[test]
fn an_unset_variable_is_reported_with_its_position_if_it_is_required() {
    let server = EchoServer::start();
    let bench = Bench::new(&config(&server));
    let mut command = bench.command(&["--no-warmup"]);
    command.env("LLM_TEST_KEY", "sk-alpha-0123456789").env("LLM_TEST_PASSWORD", "  ");
    let ran_all = ran(&mut command);
    assert_eq!(ran_all.code, Some(2), "{}", ran_all.stderr);
    let stderr = ran_all.stderr.replace(&server.address.to_string(), "ADDRESS");
    insta::assert_snapshot!(stderr);
    assert_eq!(server.received().len(), 0);
    // Models that are not selected need no variables.
    let mut command = bench.command(&["--no-warmup", "basic"]);
    let ran_one = ran(command.env("LLM_TEST_BASIC", "ZWNobzpodXNoLWh1c2g="));
    assert_eq!(ran_one.code, Some(101), "{}", ran_one.stderr);
    assert_eq!(server.received().len(), 2, "{}", ran_one.stderr);
    // Smoke mode needs none: it sends no request.
    let smoke = ran(&mut bench.smoke(&[]));
    assert_eq!(smoke.code, Some(0), "{}{}", smoke.stdout, smoke.stderr);
}

#[test]
fn the_stamped_transport_and_proxy_none_use_no_proxy() {
    let server = EchoServer::start();
    let proxy = format!("http://{}", server.address);
    let config = |keys: &str| {
        format!(
            "runs: 1\nprompts: [{{ name: p, text: hi }}]\ndefaults: {{ proxy: \"{proxy}\" }}\n\
             models:\n  m:\n    base_url: \"http://model.invalid\"\n    {keys}\n"
        )
    };
    let run = |bench: &Bench| ran(bench.command(&["--no-warmup"]).env("http_proxy", &proxy));
    let refused = run(&Bench::new(&config("transport: stamped")));
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    insta::assert_snapshot!(refused.stderr.replace(&server.address.to_string(), "ADDRESS"));
    let bench = Bench::new(&config("proxy: none"));
    let ran = run(&bench);
    assert!(
        bench.results()[0][12].starts_with("cannot connect to model.invalid:80"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("note: `transport"), "{}", ran.stderr);
    assert_eq!(server.received().len(), 0);
}

#[test]
fn other_values_are_shown_and_recordings_can_be_read_again() {
    let server = EchoServer::start();
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: told, text: in-stream }}]\nmodels:\n  m:\n    \
         base_url: \"http://{}\"\n    api_key_env: LLM_TEST_KEY\n    \
         headers: {{ x-env: \"content\", x-plain: \"shown-everywhere\", x-auth-token: \"finish_reason\" }}\n",
        server.address
    ));
    for (key, shows) in [("choices", true), ("content", true), ("sk-alpha-0123456789", false)] {
        let mut command = bench.command(&["--no-warmup", "--record", "kept"]);
        let ran = ran(command.env("LLM_TEST_KEY", key));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let (name, bytes) = files(&bench.folder.path().join("kept")).remove(0);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("shown-everywhere"), "{name}: {text}");
        assert_eq!(text.contains(&format!("Bearer {key}")), shows, "{text}");
        let recording = Recording::from_jsonl(&text).unwrap();
        let sample = sample::read(&recording, &OpenAiChat, TokenCount::Usage).unwrap();
        assert_eq!(sample.token_events.len(), 2);
    }
}
