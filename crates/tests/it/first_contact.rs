//! The first contact: `run URL` without a config, `init` and `check`, through the front door.

use std::{fs, path::Path, process::Command, time::Duration};

use llm_stream_core::protocol::{self, OpenAiChat};
use llm_stream_sim::{Script, Simulator, SimulatorTls};
use serde_json::{Value, json};
use tempfile::TempDir;
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{method, path},
};

use crate::{
    bench::{Bench, Ran, Served, passed, ran},
    http::STREAM,
};

/// An empty folder, in which the binary runs.
struct Here(Bench);

impl Here {
    fn new() -> Self {
        let bench = Bench::new("");
        fs::remove_file(bench.folder.path().join("configs.yaml")).unwrap();
        Self(bench)
    }

    fn path(&self) -> &Path {
        self.0.folder.path()
    }

    /// The binary with these arguments, and without the variables of the developer.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
        command.current_dir(self.path()).args(arguments).env_remove("OPENAI_API_KEY");
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_uppercase();
            let is_ours = text.starts_with("LLM_STREAM_BENCH_") || text.starts_with("GITHUB_");
            if is_ours || text.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }

    /// `run` with the arguments, quickly and with its results in the folder.
    fn measure(&self, arguments: &[&str]) -> Ran {
        let quick = ["--no-calibration", "--runs", "1", "--output", "results.csv"];
        self.run(&[&["run"], arguments, &quick].concat())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// The exit code and both streams, with `SERVER` for each address.
    fn shown(&self, ran: &Ran) -> String {
        without_ports(&ran.redacted(self.path()))
    }
}

/// `text` with `SERVER` for each local address.
fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        masked.push_str("SERVER");
        masked.push_str(part.trim_start_matches(|ch: char| ch.is_ascii_digit()));
    }
    masked
}

fn quick() -> Script {
    let (ttft, itl) = (Duration::from_millis(5), Duration::from_millis(20));
    Script { ttft, itl, tokens: 6, ..Script::default() }
}

/// Answers completions with a stream, and what is no request with 400.
fn completion(request: &Request) -> ResponseTemplate {
    match request.body_json::<Value>() {
        Ok(Value::Object(_)) => {
            ResponseTemplate::new(200).set_body_raw(STREAM, "text/event-stream")
        }
        _ => ResponseTemplate::new(400).set_body_json(json!({"message": "not an object"})),
    }
}

async fn mount(server: &MockServer, at: &str, status: u16, body: Value) {
    let answer = ResponseTemplate::new(status).set_body_json(body);
    Mock::given(method("GET")).and(path(at)).respond_with(answer).mount(server).await;
}

/// A server with these answers to GET requests, and completions at `completions`.
async fn server(lists: &[(&str, Value)], completions: &str) -> MockServer {
    let server = MockServer::start().await;
    for (at, body) in lists {
        mount(&server, at, 200, body.clone()).await;
    }
    let post = Mock::given(method("POST")).and(path(completions));
    post.respond_with(completion).mount(&server).await;
    server
}

/// An OpenAI-compatible server with these models.
async fn openai(models: &[&str]) -> MockServer {
    let models: Vec<_> = models.iter().map(|id| json!({"id": id, "object": "model"})).collect();
    let list = json!({"object": "list", "data": models});
    server(&[("/v1/models", list)], "/v1/chat/completions").await
}

#[test]
fn a_url_is_measured_without_a_config() {
    let served = Served::start(&["--ttft", "5ms", "--itl", "20ms", "--tokens", "6"]);
    let here = Here::new();
    let ran = here.measure(&[&served.base_url, "--prompt", "Say \"hello\".", "--prompt", "再见"]);
    passed(&ran);
    insta::assert_snapshot!(here.shown(&ran));
    assert_eq!(here.read("results.csv").lines().count(), 3);
}

#[test]
fn concurrency_makes_a_workload_and_filters_select_its_runs() {
    let served = Served::start(&["--ttft", "5ms", "--itl", "20ms", "--tokens", "6"]);
    let here = Here::new();
    let options = ["--concurrency", "3", "--prompt", "Say hello.", "--max-tokens", "4"];
    let ran = here.measure(&[&[served.base_url.as_str()], &options[..]].concat());
    passed(&ran);
    insta::assert_snapshot!(here.shown(&ran));
    let csv = here.0.column("response_tokens");
    assert!(!csv.is_empty() && csv.iter().all(|tokens| tokens == "4"), "{csv:?}");

    let names = |more: &[&str]| {
        let list = ["run", &served.base_url, "--list", "--concurrency", "3"];
        here.run(&[&list, more].concat()).stdout
    };
    assert_eq!(names(&["run-2"]), "simulated::c3::run-2: benchmark\n");
    assert_eq!(names(&["--runs", "1"]), "simulated::c3::run-1: benchmark\n");
}

#[test]
fn the_printed_config_runs_the_same_trials() {
    let served = Served::start(&["--ttft", "5ms", "--itl", "20ms", "--tokens", "6"]);
    let here = Here::new();
    let list = ["run", &served.base_url, "--list", "--prompt", "a: b", "--prompt", "tab\t# c"];
    let by_url = here.run(&list);
    passed(&by_url);
    let yaml = by_url.stderr.split_once("configs.yaml:\n\n").unwrap().1;
    fs::write(here.path().join("configs.yaml"), yaml).unwrap();
    let by_file = here.run(&["run", "--list"]);
    passed(&by_file);
    assert_eq!(by_file.stdout, by_url.stdout);
    assert!(by_file.stdout.contains("simulated::prompt-2::run-3"), "{}", by_file.stdout);
}

#[tokio::test]
async fn the_first_of_several_models_is_measured_unless_another_is_named() {
    let names = ["Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "b", "c", "d", "e", "f"];
    let server = openai(&names).await;
    let here = Here::new();
    let list =
        |options: &[&str]| {
            here.shown(&here.run(
                &[&["run", &server.uri(), "--list", "--runs", "1", "chat-en"], options].concat(),
            ))
        };
    insta::assert_snapshot!(
        [list(&[]), list(&["--model", "Qwen/Qwen3-32B"]), list(&["--model", "Qwen/Qwen3-23B"]),]
            .join("\n")
    );
}

#[tokio::test]
async fn the_protocol_is_detected() {
    let tags = json!({"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest"}]});
    let props = json!({"default_generation_settings": {}, "model_path": "/models/qwen3.gguf"});
    let info = json!({"model_id": "mistralai/Mistral-7B", "router": "text-generation-router"});
    let list = json!({"object": "list", "data": [{"id": "base"}]});
    let ok = json!({"status": "ok"});
    let cases = [
        ("Ollama", server(&[("/api/tags", tags.clone())], "/api/chat").await, ""),
        ("Ollama with /v1", server(&[("/api/tags", tags.clone())], "/api/chat").await, "/v1"),
        ("llama.cpp", server(&[("/props", props)], "/completion").await, ""),
        ("an old llama.cpp", server(&[("/health", ok)], "/completion").await, ""),
        ("TGI", server(&[("/info", info)], "/generate_stream").await, ""),
        ("a base model", server(&[("/v1/models", list)], "/v1/completions").await, ""),
        ("the path of Ollama", server(&[("/api/tags", tags)], "/api/chat").await, "/api/tags"),
    ];
    let here = Here::new();
    let mut text = String::new();
    for (name, server, path) in &cases {
        let url = format!("{}{path}", server.uri());
        let ran = here.run(&["run", &url, "--list", "--runs", "1", "chat-en"]);
        text.push_str(&format!("## {name}\n{}\n", here.shown(&ran)));
    }
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn anthropic_messages_is_used_only_on_request() {
    let list = json!({"data": [{"type": "model", "id": "claude-x"}], "has_more": false});
    let server = server(&[("/v1/models", list)], "/v1/messages").await;
    let here = Here::new();
    let list = |path: &str, options: &[&str]| {
        let url = format!("{}{path}", server.uri());
        here.shown(
            &here.run(&[&["run", &url, "--list", "--runs", "1", "chat-en"], options].concat()),
        )
    };
    let unasked = list("", &[]);
    assert!(unasked.starts_with("exit code: 2\n"), "{unasked}");
    let asked = list("", &["--protocol", "anthropic_messages"]);
    insta::assert_snapshot!([unasked, asked, list("/v1/messages", &[])].join("\n"));
    let requests = server.received_requests().await.unwrap();
    let versions = requests.iter().filter(|it| it.headers.contains_key("anthropic-version"));
    assert_eq!(versions.count(), 2, "one list for each run that asks for the protocol");
}

#[test]
fn each_named_protocol_is_measured() {
    for of in protocol::ALL {
        let simulator = Simulator::start(quick(), *of).unwrap();
        let here = Here::new();
        let options = ["--protocol", of.name(), "--prompt", "Say hello."];
        let ran = here.measure(&[&[simulator.url().as_str()], &options[..]].concat());
        passed(&ran);
        assert!(ran.stdout.contains("test simulated::prompt::run-1 ... bench:"), "{}", ran.stdout);
        assert_eq!(here.0.column("protocol"), [of.name()]);
    }
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_measured() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("x.sock");
    let _simulator = Simulator::on_file(&socket, quick(), &OpenAiChat).unwrap();
    let here = Here::new();
    for path in ["", ":/v1", ":/v1/chat/completions"] {
        let url = format!("unix://{}{path}", socket.display());
        passed(&here.measure(&[&url, "--prompt", "Say hello."]));
    }
}

#[tokio::test]
async fn a_key_is_sent_only_by_name() {
    let server = openai(&["m"]).await;
    let here = Here::new();
    let run = |options: &[&str]| {
        let url = server.uri();
        let all = [&["run", &url, "--list"], options].concat();
        let mut command = here.command(&all);
        ran(command.env("OPENAI_API_KEY", "sk-secret-1").env("MY_KEY", "sk-secret-2"))
    };
    passed(&run(&[]));
    let keys = |requests: Vec<Request>| -> Vec<String> {
        let keys = requests.iter().filter_map(|request| request.headers.get("authorization"));
        keys.map(|key| key.to_str().unwrap().to_owned()).collect()
    };
    assert!(keys(server.received_requests().await.unwrap()).is_empty());
    let named = run(&["--api-key-env", "MY_KEY"]);
    passed(&named);
    assert!(named.stderr.contains("    api_key_env: MY_KEY\n"), "{}", named.stderr);
    assert!(!named.stderr.contains("secret"), "{}", named.stderr);
    let sent = keys(server.received_requests().await.unwrap());
    assert!(!sent.is_empty() && sent.iter().all(|key| key == "Bearer sk-secret-2"), "{sent:?}");
}

/// A server that repeats the key that it refuses.
async fn refusing() -> MockServer {
    let server = MockServer::start().await;
    let refuse = |request: &Request| {
        let key = request.headers.get("authorization").map(|key| key.to_str().unwrap().to_owned());
        let message = format!("Incorrect API key: {}", key.as_deref().unwrap_or("none"));
        ResponseTemplate::new(401).set_body_json(json!({"error": {"message": message}}))
    };
    Mock::given(method("GET")).respond_with(refuse).mount(&server).await;
    server
}

#[tokio::test]
async fn unusable_urls_are_explained_with_a_fix() {
    let here = Here::new();
    let nothing = MockServer::start().await;
    let empty = openai(&[]).await;
    let refusing = refusing().await;
    let no_list = server(&[], "/v1/chat/completions").await;
    let page = MockServer::start().await;
    let html = ResponseTemplate::new(200).set_body_raw("<html>hello</html>", "text/html");
    Mock::given(method("GET")).respond_with(html).mount(&page).await;
    let moved = MockServer::start().await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(308)).mount(&moved).await;
    let plain = Simulator::start(quick(), &OpenAiChat).unwrap();
    let tls = over_tls();
    let models = openai(&["m"]).await;
    let cases: &[(&str, String, &[&str])] = &[
        ("refused", "http://127.0.0.1:9".to_owned(), &[]),
        ("404 everywhere", nothing.uri(), &[]),
        ("404 everywhere at a path", format!("{}/llm/v1", nothing.uri()), &[]),
        ("a web page", page.uri(), &[]),
        ("moved", moved.uri(), &[]),
        ("no key", refusing.uri(), &[]),
        ("a wrong key", refusing.uri(), &["--api-key-env", "MY_KEY"]),
        ("a key that is not set", refusing.uri(), &["--api-key-env", "LLM_TEST_NO_SUCH_KEY"]),
        ("no models", empty.uri(), &[]),
        ("no list of models", no_list.uri(), &[]),
        ("no list of models and a name", no_list.uri(), &["--model", "m", "--list", "code::run-1"]),
        ("TLS to a plain server", plain.url().replace("http:", "https:"), &[]),
        ("plain to a TLS server", tls.url().replace("https:", "http:"), &[]),
        ("an unknown certificate", tls.url().replace("127.0.0.1", "localhost"), &[]),
        ("/v1", format!("{}/v1", models.uri()), &["--list", "code::run-1"]),
        ("/v1/models", format!("{}/v1/models", models.uri()), &["--list", "code::run-1"]),
        ("a path", format!("{}/v1/chat/completions", models.uri()), &["--list", "code::run-1"]),
        ("another path", format!("{}/llm", models.uri()), &[]),
        ("a user", "http://me:pass@127.0.0.1:9".to_owned(), &[]),
        ("a query", "http://127.0.0.1:9/v1?key=sk-secret-1".to_owned(), &[]),
        ("no port", "http://127.0.0.1:x".to_owned(), &[]),
        ("no host", "http://".to_owned(), &[]),
        ("two URLs", models.uri(), &["http://127.0.0.1:9"]),
        ("a config", models.uri(), &["--config", "configs.yaml"]),
        ("a user and a config", "http://me:pass@h".to_owned(), &["--config", "configs.yaml"]),
        ("a smoke test", models.uri(), &["--test"]),
        ("an unknown protocol", models.uri(), &["--protocol", "openai"]),
        ("a blank prompt", models.uri(), &["--prompt", " "]),
        ("no concurrency", models.uri(), &["--concurrency", "0"]),
        ("a filter that matches nothing", models.uri(), &["no-such-trial"]),
    ];
    let mut text = String::new();
    for (name, url, options) in cases {
        let arguments = [&["run", url.as_str()], *options].concat();
        let ran = ran(here.command(&arguments).env("MY_KEY", "sk-secret-1"));
        assert!(!ran.stderr.contains("secret") && !ran.stderr.contains("pass@"), "{}", ran.stderr);
        text.push_str(&format!(
            "## {name}\n{}\n",
            here.shown(&ran).replace("localhost:", "127.0.0.1:")
        ));
    }
    let port = tls.addr().unwrap().port().to_string();
    insta::assert_snapshot!(without_ports(&text).replace(&port, "PORT"));
    assert!(fs::read_dir(here.path()).unwrap().next().is_none(), "nothing was written");
}

/// An endpoint whose certificate no system trusts.
fn over_tls() -> Simulator {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = signed.signing_key.serialize_der();
    let tls = SimulatorTls::new(&[signed.cert.der()], &key).unwrap();
    Simulator::over_tls("127.0.0.1:0".parse().unwrap(), quick(), &OpenAiChat, tls).unwrap()
}

#[tokio::test]
async fn a_usual_key_is_mentioned_and_not_sent() {
    let server = refusing().await;
    let here = Here::new();
    let mut command = here.command(&["run", &server.uri()]);
    let ran = ran(command.env("OPENAI_API_KEY", "sk-secret-1"));
    insta::assert_snapshot!(here.shown(&ran));
    let requests = server.received_requests().await.unwrap();
    assert!(requests.iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn without_a_config_and_a_url_both_are_explained() {
    let here = Here::new();
    let mut text = String::new();
    for arguments in [
        &["run"][..],
        &["run", "localhost:8000"],
        &["run", "--config", "missing.yaml"],
        &["run", "--model", "m"],
        &["run", "--concurrency", "4"],
        &["init", "localhost:8000"],
        &["init", "--max-tokens", "4"],
        &["init", "http://127.0.0.1:9"],
        &["check"],
    ] {
        text.push_str(&format!("{arguments:?}\n{}\n", here.shown(&here.run(arguments))));
    }
    insta::assert_snapshot!(text);
    assert!(fs::read_dir(here.path()).unwrap().next().is_none(), "nothing was written");
}

// -- init -----------------------------------------------------------------------------------------

/// A config with every example in it.
fn with_examples(config: &str) -> String {
    let example = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') || rest.starts_with("  ") => rest.to_owned(),
        _ => line.to_owned(),
    };
    config.lines().map(|line| example(line) + "\n").collect()
}

#[test]
fn init_writes_a_config_that_runs_at_once() {
    let here = Here::new();
    let ran = here.run(&["init"]);
    passed(&ran);
    let config = here.read("configs.yaml");
    insta::assert_snapshot!(format!("{}\n{config}", here.shown(&ran)));
    let checked = here.run(&["check"]);
    passed(&checked);
    insta::assert_snapshot!("init_check", here.shown(&checked));
    passed(&here.measure(&["chat-en"]));

    fs::write(here.path().join("all.yaml"), with_examples(&config)).unwrap();
    let all = here.run(&["check", "--config", "all.yaml"]);
    passed(&all);
    insta::assert_snapshot!("init_check_with_examples", here.shown(&all));
}

#[test]
fn a_filter_that_is_a_host_and_port_is_recognised() {
    let here = Here::new();
    passed(&here.run(&["init"]));
    let ran = here.run(&["run", "localhost:8000/v1"]);
    assert_eq!(ran.code, Some(2));
    let help = "\n  help: the URL of a server has a scheme: `http://localhost:8000/v1`\n";
    assert!(ran.stderr.ends_with(help), "{}", ran.stderr);
}

#[test]
fn init_overwrites_only_by_force() {
    let here = Here::new();
    fs::write(here.path().join("configs.yaml"), "mine").unwrap();
    let refused = here.run(&["init"]);
    assert_eq!(here.read("configs.yaml"), "mine");
    let other = here.run(&["init", "--config", "sub/bench.yaml"]);
    let forced = here.run(&["init", "--force"]);
    assert_eq!(here.read("configs.yaml"), here.read("sub/bench.yaml"));
    insta::assert_snapshot!([refused, other, forced].map(|ran| here.shown(&ran)).join("\n"));
}

#[tokio::test]
async fn init_detects_the_server_at_a_url() {
    let server = openai(&["Qwen/Qwen3-8B", "other"]).await;
    let here = Here::new();
    let ran = here.run(&["init", &format!("{}/v1/chat/completions", server.uri())]);
    passed(&ran);
    let config = here.read("configs.yaml");
    passed(&here.run(&["check"]));
    passed(&here.measure(&["chat-en"]));
    fs::write(here.path().join("all.yaml"), with_examples(&config)).unwrap();
    passed(&here.run(&["check", "--config", "all.yaml"]));
    let options = ["--force", "--prompt", "Say hello.", "--concurrency", "2", "--max-tokens", "9"];
    passed(&here.run(&[&["init", &server.uri()], &options[..]].concat()));
    passed(&here.run(&["check"]));
    let text =
        format!("{}\n{config}\n## with options\n{}", here.shown(&ran), here.read("configs.yaml"));
    insta::assert_snapshot!(without_ports(&text));
}

// -- check ----------------------------------------------------------------------------------------

#[tokio::test]
async fn check_prints_the_plan_and_sends_nothing() {
    let server = openai(&["m"]).await;
    let here = Here::new();
    let lines = "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n{\"prompt\": \"\"}\n";
    fs::write(here.path().join("questions.jsonl"), lines).unwrap();
    let config = format!(
        "runs: 2
max_runs: 6
thresholds: [\"success_rate >= 100 %\"]
prompts:
  - {{ name: hello, text: \"Say hello.\" }}
  - {{ name: long, synthetic: {{ input_tokens: 100, output_tokens: 10 }} }}
  - {{ name: talk, turns: [\"Hello.\", \"And now?\"] }}
  - {{ name: questions, dataset: questions.jsonl }}
workloads:
  c16: {{ concurrency: 16, requests: 64, prompts: [hello], thresholds: [\"ttft p95 <= 500 ms\"] }}
  rate: {{ rate: 5/s, duration: 60s, runs: 1 }}
defaults:
  headers: {{ x-team: \"${{LLM_TEST_TEAM}}\" }}
models:
  ours:
    base_url: \"{}\"
    model_name: \"Qwen/Qwen3-8B\"
    api_key_env: LLM_TEST_KEY
    thresholds: [\"generation_speed >= 80\"]
  theirs:
    base_url: \"https://api.example.com\"
    protocol: anthropic_messages
    api_key_env: LLM_TEST_OTHER_KEY
    proxy: \"http://me:${{LLM_TEST_PASSWORD}}@proxy.example.com:3128\"
  script: {{ simulate: {{ ttft: 5ms }} }}
",
        server.uri()
    );
    fs::write(here.path().join("configs.yaml"), config).unwrap();
    let mut command = here.command(&["check"]);
    let set =
        [("LLM_TEST_KEY", "sk-secret-1"), ("LLM_TEST_TEAM", "secret"), ("LLM_TEST_OTHER_KEY", "")];
    let ran = ran(command.envs(set));
    assert!(!ran.stdout.contains("secret"), "{}", ran.stdout);
    insta::assert_snapshot!(here.shown(&ran));
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[test]
fn check_refuses_what_run_refuses() {
    let here = Here::new();
    let cases = [
        ("models: { m: { base_url: \"localhost:8000\", modelname: x } }", "keys"),
        ("thresholds: [\"ttft =< 5\"]\nmodels: { m: { simulate: {} } }", "thresholds"),
    ];
    let mut text = String::new();
    for (config, name) in cases {
        fs::write(here.path().join("bench.yaml"), config).unwrap();
        let checked = here.run(&["check", "--config", "bench.yaml"]);
        let run = here.run(&["run", "--config", "bench.yaml"]);
        assert_eq!((checked.code, &checked.stderr), (Some(2), &run.stderr), "{name}");
        text.push_str(&here.shown(&checked));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_commands_explain_themselves() {
    let here = Here::new();
    let help = |arguments: &[&str]| {
        let ran = here.run(arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout
    };
    let all = [help(&["--help"]), help(&["init", "--help"]), help(&["check", "--help"])];
    insta::assert_snapshot!(all.join("\n----\n"));

    // The full calibration is for those who change the instrument.
    let calibrate = help(&["calibrate", "--help"]);
    assert!(!calibrate.contains("--full"), "{calibrate}");
}
