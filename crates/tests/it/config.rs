//! `configs.yaml`: what is accepted, and every message for what is not.

use std::{path::Path, time::Duration};

use llm_stream_bench::config::{
    Config, ConfigErrors, EndpointConfig, MetricsUrl, PromptConfig, RunCount, Settings,
    TimeoutSettings, TokenCount, sanitise,
};
use llm_stream_core::{
    prompt::{ChatMessage, Role},
    protocol::Protocol,
};
use llm_stream_sim::{Fault, FaultKind, Script};
use proptest::prelude::*;
use serde_json::json;

/// Where the prompts' files of these tests are.
const FIXTURES: &str = "it/fixtures/config";

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "configs.yaml", Path::new(FIXTURES))
}

fn accepted(text: &str) -> Config {
    let config = parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    crate::schema::assert_valid(text);
    config
}

fn rendered(text: &str) -> String {
    match parse(text) {
        Ok(config) => panic!("accepted: {text}\n{config:#?}"),
        Err(errors) => errors.to_string(),
    }
}

/// What a prompt asks last.
fn text(prompt: &PromptConfig) -> &str {
    prompt.prompt.messages.last().unwrap().content[0].as_text().unwrap()
}

mod refused;
pub(crate) mod schema;

/// A config of one model with these lines.
fn model(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("models:\n  m:\n    base_url: \"http://localhost:8000\"\n{lines}")
}

/// A config of one simulated model with these lines.
fn simulated(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("      {line}\n")).collect();
    format!("models:\n  m:\n    simulate:\n{lines}")
}

/// A config with these lines at the top level.
fn top(lines: &str) -> String {
    format!("models: {{ m: {{ simulate: {{}} }} }}\n{lines}\n")
}

/// The example in the documentation of the tool that this one takes over from, word for word.
const SEED: &str = r#"models:
  Qwen_Qwen3-30B-A3B-GPTQ-Int4:
    base_url: "http://10.180.116.2"
    port: 6384
    model_name: "Qwen3-30B-A3B-GPTQ-Int4"
    temperature: 0.7
    max_tokens: 1024
    # 其他自定义请求体参数可放在 extra_body 中
    extra_body:
      chat_template_kwargs:
        enable_thinking: false
"#;

#[test]
fn the_seeds_document_is_accepted() {
    let config = accepted(SEED);
    let model = &config.models[0];
    assert_eq!(config.models.len(), 1);
    assert_eq!(model.key.value, "Qwen_Qwen3-30B-A3B-GPTQ-Int4");
    assert_eq!(model.display_name().value, "Qwen_Qwen3-30B-A3B-GPTQ-Int4");
    assert_eq!(model.settings.model_name.as_deref(), Some("Qwen3-30B-A3B-GPTQ-Int4"));
    let endpoint = EndpointConfig::Server {
        base_url: "http://10.180.116.2".to_owned(),
        replicas: Vec::new(),
        port: Some(6384),
    };
    assert_eq!(model.endpoint, endpoint);
    assert_eq!(model.settings.temperature, Some(Some(0.7)));
    assert_eq!(model.settings.max_tokens, Some(1024));
    let body = json!({ "chat_template_kwargs": { "enable_thinking": false } });
    assert_eq!(serde_json::Value::from(model.settings.extra_body.clone()), body);
    assert_eq!((config.runs, config.prompts), (RunCount::Fixed(3), None));
}

/// Every key there is.
const FULL: &str = r#"
models:
  "Qwen/Qwen3:8b":
    base_url: "https://example.com/v1"
    name: 千问
    model_name: qwen3
    temperature: 0
    max_tokens: 256
    extra_body: { top_p: 0.9, logit_bias: { 50256: -100 }, stop: ["\n"], seed: 18446744073709551615, x: null }
    api_key_env: OPENAI_API_KEY
    headers: { x-team: "hunter2", x-empty: "" }
    protocol: openai_chat
    token_count: chunks
    metrics_url: auto
    timeouts: { connect: 2s, first_token: 1m 30s, inter_token: 500ms, total: 1h }
    thresholds:
      - generation_speed >= 80
  no:
    simulate:
      ttft: 90ms
      itl: 11.5ms
      jitter: 250us
      tokens: 128
      tokens_per_event: 2
      reasoning_tokens: 16
      cached_tokens: 8
      seed: 7
      faults:
        - status: 503
        - { reset: 10, request: 2 }
        - stall: 0
        - truncate: 3
        - error: 4
        - missing_usage
        - { missing_end: true, request: 3 }
        - split: 7
        - merge: 4
        - no_stream
defaults:
  temperature: 1
  headers: { x-team: "other", x-default: "yes" }
  timeouts: { total: 2m, connect: 1s }
  thresholds: ["success_rate >= 99 %"]
prompts:
  - { name: hello, text: "Say hello." }
  - { name: from a file, file: prompts/a-hello.txt, system: Be brief. }
runs: 5
thresholds: ["ttft p95 <= 500 ms"]
"#;

#[test]
fn every_key_is_read() {
    let config = accepted(FULL);
    let [qwen, no] = config.models.as_slice() else { panic!("{:?}", config.models) };
    assert_eq!(qwen.display_name().value, "千问");
    let body = json!({
        "top_p": 0.9, "logit_bias": { "50256": -100 }, "stop": ["\n"], "seed": u64::MAX, "x": null,
    });
    assert_eq!(serde_json::Value::from(qwen.settings.extra_body.clone()), body);
    assert_eq!(qwen.settings.api_key_env.as_ref().unwrap().value, "OPENAI_API_KEY");
    assert_eq!(qwen.settings.protocol.map(Protocol::name), Some("openai_chat"));
    assert_eq!(qwen.settings.token_count, Some(TokenCount::Chunks));
    assert_eq!(qwen.settings.metrics_url, Some(MetricsUrl::Auto));
    let timeouts = TimeoutSettings {
        connect: Some(Duration::from_secs(2)),
        first_token: Some(Duration::from_secs(90)),
        inter_token: Some(Duration::from_millis(500)),
        total: Some(Duration::from_secs(3600)),
    };
    assert_eq!(qwen.settings.timeouts, timeouts);
    assert_eq!(no.key.value, "no");
    let prompts: Vec<_> = config.prompts.as_ref().unwrap().iter().map(text).collect();
    assert_eq!(prompts, ["Say hello.", "Say hello.\n"]);
    let system = ChatMessage::text(Role::System, "Be brief.");
    assert_eq!(config.prompts.as_ref().unwrap()[1].prompt.messages[0], system);
    assert_eq!(
        (config.runs, config.thresholds[0].value.as_str()),
        (RunCount::Fixed(5), "ttft p95 <= 500 ms")
    );
}

#[test]
fn simulate_becomes_a_script() {
    let config = accepted(FULL);
    let EndpointConfig::Simulate(script) = &config.models[1].endpoint else {
        panic!("{:?}", config.models)
    };
    assert_eq!(script.ttft, Duration::from_millis(90));
    assert_eq!(script.itl, Duration::from_micros(11_500));
    assert_eq!(script.jitter, Duration::from_micros(250));
    let counts = (script.tokens, script.tokens_per_event, script.reasoning_tokens);
    assert_eq!(counts, (128, 2, 16));
    assert_eq!((script.cached_tokens, script.seed), (8, 7));
    let fault = |kind, request| Fault { kind, request };
    let faults = [
        fault(FaultKind::Status(503), None),
        fault(FaultKind::Reset(10), Some(2)),
        fault(FaultKind::Stall(0), None),
        fault(FaultKind::Truncate(3), None),
        fault(FaultKind::ErrorInBand(4), None),
        fault(FaultKind::MissingUsage, None),
        fault(FaultKind::MissingEnd, Some(3)),
        fault(FaultKind::Split(7), None),
        fault(FaultKind::Merge(4), None),
        fault(FaultKind::NoStream, None),
    ];
    assert_eq!(script.faults, faults);
}

#[test]
fn a_model_overrides_the_defaults() {
    let config = accepted(FULL);
    let settings = config.models[0].settings.over(&config.defaults);
    assert_eq!(settings.temperature, Some(Some(0.0)));
    let names: Vec<_> = settings.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-default", "x-team", "x-empty"]);
    assert_eq!(settings.headers[1].1.plain(), Some("hunter2"));
    assert_eq!(settings.timeouts.connect, Some(Duration::from_secs(2)));
    assert_eq!(settings.thresholds.len(), 2);
    let inherited = config.models[1].settings.over(&config.defaults);
    assert_eq!(inherited.temperature, Some(Some(1.0)));
    assert_eq!(inherited.timeouts.total, Some(Duration::from_secs(120)));
    assert_eq!(Settings::default().over(&Settings::default()).max_tokens, None);
}

#[test]
fn simulate_has_defaults() {
    let config = accepted("models: { m: { simulate: {} } }");
    let EndpointConfig::Simulate(simulate) = &config.models[0].endpoint else {
        panic!("{:?}", config.models)
    };
    assert_eq!(*simulate, Script::default());
}

#[test]
fn durations_have_units_and_fractions() {
    let durations = [
        ("500ms", 500_000_000),
        ("2s", 2_000_000_000),
        ("11.5ms", 11_500_000),
        ("0.25s", 250_000_000),
        ("1m 30s", 90_000_000_000),
        ("1m30s", 90_000_000_000),
        ("250us", 250_000),
        ("250µs", 250_000),
        ("90 ms", 90_000_000),
        ("1.5 min", 90_000_000_000),
        ("2 seconds", 2_000_000_000),
        ("1ns", 1),
        ("24h", 86_400_000_000_000),
    ];
    for (text, nanos) in durations {
        let config = accepted(&model(&format!("timeouts: {{ total: {text} }}")));
        let total = config.models[0].settings.timeouts.total;
        assert_eq!(total, Some(Duration::from_nanos(nanos)), "{text}");
    }
}

#[test]
fn anchors_aliases_and_merged_maps_work() {
    let config = accepted(
        "defaults: &base { temperature: 0.1, max_tokens: 7 }\n\
         models:\n  a: { <<: *base, max_tokens: 8, base_url: &url \"http://localhost\" }\n  \
         b: { <<: [*base], base_url: *url }\n",
    );
    let tokens: Vec<_> = config.models.iter().map(|m| m.settings.max_tokens).collect();
    assert_eq!(tokens, [Some(8), Some(7)]);
    assert_eq!(config.models[0].endpoint, config.models[1].endpoint);
    assert_eq!(config.models[0].settings.temperature, Some(Some(0.1)));
}

#[test]
fn a_mistake_behind_an_alias_is_reported_once_at_its_anchor() {
    let text = "defaults: &base\n  temperature: 3\nmodels:\n  a: { <<: *base, simulate: {} }\n  b: { <<: *base, simulate: {} }\n";
    insta::assert_snapshot!(rendered(text));
}

#[test]
fn line_ends_and_a_byte_order_mark_do_not_matter() {
    for text in [SEED.replace('\n', "\r\n"), SEED.replace('\n', "\r"), format!("\u{feff}{SEED}")] {
        assert_eq!(
            accepted(&text).models[0].settings.model_name.as_deref(),
            Some("Qwen3-30B-A3B-GPTQ-Int4")
        );
    }
    let errors = parse(&format!("\u{feff}{}", model("prot: 1").replace('\n', "\r\n"))).unwrap_err();
    assert_eq!((errors.0[0].line(), errors.0[0].column()), (Some(4), Some(5)));
}

#[test]
fn fields_that_break_the_measurement_are_refused() {
    let errors = parse(&model("extra_body:\n  top_p: 1\n  stream: false\n  n: 2")).unwrap_err();
    let said: Vec<_> = errors.0.iter().map(|e| (e.line(), e.path(), e.message())).collect();
    let expected = [
        (Some(6), "models.m.extra_body.stream", "`extra_body` must not hold `stream: false`"),
        (Some(7), "models.m.extra_body.n", "`extra_body` must not hold `n: 2`"),
    ];
    assert_eq!(said, expected);
    let errors = parse(&top("defaults: { extra_body: { n: 2 } }")).unwrap_err();
    assert_eq!(errors.0.len(), 1, "{errors}");
}

#[test]
fn a_folder_of_prompts_is_read_by_name() {
    let config = accepted(&top("prompts: prompts"));
    let prompts = config.prompts.unwrap();
    let read: Vec<_> = prompts.iter().map(|p| (p.name.value.as_str(), text(p))).collect();
    assert_eq!(read, [("a-hello", "Say hello.\n"), ("b-诗", "写一首诗。\n")]);
}

#[test]
fn names_become_parts_of_trial_names() {
    let names = [
        ("Qwen/Qwen3-30B.A3B", "Qwen/Qwen3-30B.A3B"),
        ("llama3:8b", "llama3_8b"),
        ("a::b, c", "a_b_c"),
        ("说 \"你好\"", "说_你好_"),
        ("全\u{3000}角\t\n", "全_角_"),
        ("a__b", "a__b"),
    ];
    for (name, sanitised) in names {
        assert_eq!(sanitise(name), sanitised);
    }
}

#[test]
fn a_mistake_in_a_threshold_is_shown_at_its_column() {
    let lines = [
        "thresholds:",
        "  - ttft p59 <= 500 ms",
        "  - \"ttft p59 <= 500 ms\"",
        "  - '速度 p59 <= 500 ms'",
        "  - \"tt\\x66t p59 <= 500 ms\"",
        "  - |",
        "    ttft p59 <= 500 ms",
        "  - ttft",
    ];
    let config = accepted(&top(&lines.join("\n")));
    let errors = config.thresholds.iter().map(|threshold| {
        let offset = threshold.value.find("p59").unwrap_or(threshold.value.len());
        config.error_at(threshold, offset, "there is no statistic `p59`", "did you mean `p95`?")
    });
    insta::assert_snapshot!(ConfigErrors(errors.collect()));
}

#[test]
fn a_key_is_read_from_its_variable() {
    let config = accepted(&model("api_key_env: LLM_STREAM_BENCH_NO_SUCH_VARIABLE"));
    let name = config.models[0].settings.api_key_env.as_ref().unwrap();
    insta::assert_snapshot!(config.api_key(name).unwrap_err());
    let config = accepted(&model("api_key_env: CARGO_PKG_NAME"));
    let name = config.models[0].settings.api_key_env.as_ref().unwrap();
    assert_eq!(config.api_key(name).unwrap(), "llm-stream-tests");
}

#[test]
fn a_config_is_loaded_with_its_files() {
    let path = Path::new(FIXTURES).join("configs.yaml");
    let config = Config::load(&path).unwrap();
    assert_eq!(config.file(), path.display().to_string());
    assert_eq!(text(&config.prompts.unwrap()[0]), "Say hello.\n");
}

#[test]
fn unreadable_files_are_reported() {
    let here = std::env::current_dir().unwrap().display().to_string();
    let load = |name: &str| {
        let errors = Config::load(&Path::new(FIXTURES).join(name)).unwrap_err();
        assert!(errors.0[0].line().is_none_or(|line| line > 0));
        errors.to_string().replace(&here, "[HERE]")
    };
    let cases = [
        ("a missing file", "prompts/configs.yaml"),
        ("a file with another name", "config.yaml"),
        ("a folder", "prompts"),
        ("a file that is not UTF-8", "latin1.yaml"),
    ];
    let cases = cases.map(|(name, file)| (name, load(file) + "\n"));
    insta::assert_snapshot!(crate::bench::table(&cases));
}

#[test]
fn a_config_does_not_print_its_secrets() {
    let printed = format!("{:?}", accepted(FULL).models);
    assert!(!printed.contains("hunter2"), "{printed}");
}

/// A line break or a `#` can cut a secret loose from its key; any other slip leaves it hidden.
#[test]
fn a_typo_shows_no_secret() {
    const SECRETS: &str = "models:
  m:
    base_url: \"http://localhost\"
    headers:
      x-api-key: \"hunter2\"
    api_key_env: sk-hunter2-hunter2
  n: { headers: { Authorization: \"hunter2\" }, simulate: {} }
";
    for (at, _) in SECRETS.char_indices() {
        let replaced = b":- \t\"'{}[]&*!|>%@`,?x".map(|byte| Slip::Replace(at, byte));
        for slip in replaced.into_iter().chain([Slip::Delete(at), Slip::Double(at)]) {
            let text = slipped(SECRETS, &slip);
            let shown = parse(&text).map_or_else(|errors| errors.to_string(), |_| String::new());
            assert!(!shown.contains("hunter2"), "{slip:?}\n{shown}");
        }
    }
}

/// A change to a text that a slip of the finger could make, at a byte or a line.
#[derive(Debug, Clone)]
enum Slip {
    Delete(usize),
    Double(usize),
    Replace(usize, u8),
    DeleteLine(usize),
    DoubleLine(usize),
    Indent(usize, usize),
}

fn slip() -> impl Strategy<Value = Slip> {
    let at = any::<usize>;
    let byte =
        prop_oneof![any::<u8>(), prop::sample::select(b":- \t\n\"'{}[]#&*!|>%@`,?".to_vec())];
    prop_oneof![
        at().prop_map(Slip::Delete),
        at().prop_map(Slip::Double),
        (at(), byte).prop_map(|(at, byte)| Slip::Replace(at, byte)),
        at().prop_map(Slip::DeleteLine),
        at().prop_map(Slip::DoubleLine),
        (at(), 0..9_usize).prop_map(|(at, indent)| Slip::Indent(at, indent)),
    ]
}

fn slipped(text: &str, slip: &Slip) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (byte, line) = (|at: usize| at % bytes.len().max(1), |at: usize| at % lines.len().max(1));
    match *slip {
        _ if text.is_empty() => {}
        Slip::Delete(at) => drop(bytes.remove(byte(at))),
        Slip::Double(at) => bytes.insert(byte(at), bytes[byte(at)]),
        Slip::Replace(at, new) => {
            let at = byte(at);
            bytes[at] = new;
        }
        Slip::DeleteLine(at) => {
            lines.remove(line(at));
            return lines.concat();
        }
        Slip::DoubleLine(at) => {
            lines.insert(line(at), lines[line(at)]);
            return lines.concat();
        }
        Slip::Indent(at, indent) => {
            let line = line(at);
            let indented = format!("{}{}", " ".repeat(indent), lines[line].trim_start_matches(' '));
            lines[line] = &indented;
            return lines.concat();
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slip_of_the_finger_gives_a_place_or_a_config(slips in prop::collection::vec(slip(), 1..4)) {
        let text = slips.iter().fold(FULL.to_owned(), |text, slip| slipped(&text, slip));
        if let Err(errors) = parse(&text).inspect(|_| crate::schema::assert_valid(&text)) {
            prop_assert!(!errors.0.is_empty());
            let lines = text.split("\r\n").flat_map(|line| line.split(['\n', '\r'])).count();
            for error in errors.0 {
                let line = error.line().unwrap();
                prop_assert!((1..=lines).contains(&line), "{error}\n{text}");
                prop_assert!(error.column().unwrap() >= 1);
                prop_assert!(!error.message().is_empty() && !error.help().is_empty());
            }
        }
    }

    #[test]
    fn any_text_gives_a_place_or_a_config(text in "(?s).{0,200}") {
        if let Err(errors) = parse(&text) {
            prop_assert!(errors.0.iter().all(|error| error.line().unwrap() >= 1));
        }
    }
}

mod workloads {
    use llm_stream_core::schedule::{ArrivalProcess, Gaps, Shape, Until};

    use super::{refused::workload, *};

    #[test]
    fn are_closed_or_open_loops() {
        let of = |lines: &str| {
            let workload = accepted(&workload(lines)).workloads.remove(0);
            (workload.shape, workload.until)
        };
        let open = |rate, gaps, seed, max_in_flight| Shape::Open {
            arrivals: ArrivalProcess { rate, gaps, seed },
            max_in_flight,
        };
        let requests = |requests| Until { requests: Some(requests), duration: None };
        let seconds =
            |seconds| Until { requests: None, duration: Some(Duration::from_secs(seconds)) };
        assert_eq!(
            of("{ concurrency: 64, requests: 512 }"),
            (Shape::Closed { concurrency: 64 }, requests(512))
        );
        assert_eq!(
            of("{ rate: 20/s, duration: 60s }"),
            (open(20.0, Gaps::Poisson, 0, 1000), seconds(60))
        );
        assert_eq!(
            of("{ rate: 90/min, arrivals: constant, requests: 9, seed: 3, max_in_flight: 50 }"),
            (open(1.5, Gaps::Constant, 3, 50), requests(9))
        );
        let burstiness = 0.25;
        assert_eq!(
            of("{ rate: \"0.5 / s\", arrivals: gamma(0.25), requests: 9 }"),
            (open(0.5, Gaps::Gamma { burstiness }, 0, 1000), requests(9))
        );
        let both = Until { requests: Some(9), duration: Some(Duration::from_millis(1500)) };
        assert_eq!(of("{ concurrency: 1, requests: 9, duration: 1.5s }").1, both);
    }

    #[test]
    fn thresholds_of_a_workload_are_checked_when_the_plan_is_made() {
        use clap::Parser as _;
        use llm_stream_bench::{cli::Cli, plan::Plan};
        let text = workload("{ concurrency: 5, requests: 5, thresholds: [\"ttft <= 5\"] }");
        let plan = Plan::new(&accepted(&text), &Cli::parse_from(["llm"]).overrides());
        insta::assert_snapshot!(plan.unwrap_err());
    }
}

#[test]
fn a_base_url_with_the_path_of_a_protocol_is_refused_with_suggestions() {
    let mut output = String::new();
    for (protocol, base_url) in [
        ("openai_chat", "http://h:8000/v1/completions"),
        ("openai_chat", "http://h:8000/v1/chat/completions/"),
        ("openai_completions", "http://h:8000/V1/Chat/Completions"),
        ("openai_chat", "https://h/openai/deployments/d/chat/completions?api-version=2024-10-21"),
        ("openai_chat", "http://h:11434/api/chat"),
        ("openai_chat", "http://h:8080/completion"),
        ("openai_chat", "http://h/gateway/v1/messages"),
        ("openai_chat", "http://h/v1/responses"),
        ("openai_chat", "http://h:3000/generate_stream"),
        ("ollama_chat", "http://h:11434/v1/chat/completions"),
        ("anthropic_messages", "http://h/v1//chat/completions"),
        ("ollama_chat", "unix:///run/x.sock:/v1/completions"),
        ("openai_chat", "http://h ost/v1"),
    ] {
        let text =
            format!("models: {{ m: {{ base_url: \"{base_url}\", protocol: {protocol} }} }}\n");
        let errors = parse(&text).unwrap_err().0;
        let [error] = errors.as_slice() else { panic!("{base_url}: {errors:?}") };
        output += &format!("{protocol}: {base_url}\n  {}\n  {}\n", error.message(), error.help());
    }
    insta::assert_snapshot!(output);
}

#[test]
fn blanks_around_a_base_url_are_ignored() {
    let text = "models: { m: { base_url: \" \\thttp://localhost:8000/v1 \\n\" } }\n";
    let EndpointConfig::Server { base_url, .. } = &accepted(text).models[0].endpoint else {
        panic!("a server")
    };
    assert_eq!(base_url, "http://localhost:8000/v1");
}

#[test]
fn a_model_name_can_be_a_default() {
    let config = accepted(
        "defaults: { model_name: qwen3 }\nmodels:\n  a: { base_url: \"http://a\" }\n  \
         b: { base_url: \"http://b\", model_name: no }\n",
    );
    let name = |nth: usize| config.models[nth].settings.over(&config.defaults).model_name;
    assert_eq!((name(0).as_deref(), name(1).as_deref()), (Some("qwen3"), Some("no")));
}

#[test]
fn keys_for_anchors_may_hold_any_value() {
    let config = accepted(
        "x-base: &base { base_url: \"http://h\", extra_body: { n: 1 } }\nx-odd: [1, ~, { 7: .nan }]\n\
         models:\n  a: *base\n  b: { <<: *base, max_tokens: 9 }\n",
    );
    assert_eq!(config.models.len(), 2);
    assert_eq!(config.models[1].settings.max_tokens, Some(9));
    // A mistake is reported where it is written.
    let text = "x-base: &base { base_url: \"http://h\", max_tokens: many }\nmodels: { a: *base }\n";
    let output = rendered(text);
    assert!(output.contains("configs.yaml:1:") && output.contains("max_tokens: many"), "{output}");
    for text in [
        "y-base: 1\nmodels: { m: { simulate: {} } }\n",
        "models: { m: { x-a: 1, simulate: {} } }\n",
    ] {
        assert!(rendered(text).contains("unknown key"), "{text}");
    }
}

#[test]
fn a_number_or_a_name_that_can_be_read_in_two_ways_is_refused() {
    let mut output = String::new();
    for line in [
        "extra_body: { a: 0123 }",
        "extra_body: { a: [1_000] }",
        "extra_body: { a: { b: 0b101 } }",
        "extra_body: { a: .inf }",
        "extra_body: { a: -08.50 }",
        "extra_body: { a: 10_000.5 }",
        "extra_body: { a: [1__0] }",
        "extra_body: { a: { b: 1_ } }",
        "extra_body: { a: 0X1F }",
        "extra_body: { a: 0O17 }",
        "extra_body: { chat_template_kwargs: { enable_thinking: no } }",
        "extra_body: { a: [On] }",
        "extra_body: { a: 1:30 }",
        "extra_body: { a: !!int 1.0 }",
        "extra_body: { a: !!float 0x1F }",
        "max_tokens: 1_0",
        "temperature: 00.5",
        "model_name: 0123",
        "model_name: 4.10",
        "model_name: null",
        "model_name: true",
        "temperature:",
        "max_tokens: null",
    ] {
        let errors = parse(&model(line)).unwrap_err().0;
        let [error] = errors.as_slice() else { panic!("{line}: {errors:?}") };
        let (line_at, column) = (error.line().unwrap(), error.column().unwrap());
        output +=
            &format!("{line}\n  {line_at}:{column} {}\n  {}\n", error.message(), error.help());
    }
    insta::assert_snapshot!(output);
    for (written, text) in [
        ("\"no\"", "no"),
        ("'1_000'", "1_000"),
        ("!!str no", "no"),
        ("|-\n    no", "no"),
        (">-\n    1_000", "1_000"),
        ("&x \"no\"\n  b: *x", "no"),
        ("2024-10-21", "2024-10-21"),
    ] {
        let config = accepted(&model(&format!("extra_body:\n  a: {written}")));
        assert_eq!(config.models[0].settings.extra_body["a"], text, "{written}");
    }
    for name in ["no", "on", "y", "1:30", "2024-10-21", "4.10.1"] {
        let config = accepted(&model(&format!("model_name: {name}")));
        assert_eq!(config.models[0].settings.model_name.as_deref(), Some(name));
    }
}

#[test]
fn a_closed_loop_has_no_request_rate_threshold() {
    let text = |shape: &str| {
        top(&format!(
            "workloads: {{ w: {{ {shape}, requests: 9, thresholds: [\"request_rate >= 5 req/s\"] }} }}"
        ))
    };
    let plan = |shape: &str| {
        let cli = <llm_stream_bench::cli::Cli as clap::Parser>::parse_from(["llm"]);
        llm_stream_bench::plan::Plan::new(&accepted(&text(shape)), &cli.overrides()).map(|_| ())
    };
    assert!(plan("rate: 5/s").is_ok());
    let error = plan("concurrency: 2").unwrap_err().to_string();
    assert!(error.contains("a closed loop has no `request_rate`"), "{error}");
    assert!(error.contains("use `request_throughput`"), "{error}");
}

#[test]
fn the_variation_between_runs_has_a_default_and_may_be_set_by_model() {
    use llm_stream_bench::plan::{Overrides, Plan};

    let variations = |top: &str, defaults: &str, model: &str| -> Vec<f64> {
        let config = accepted(&format!(
            "{top}\ndefaults: {{ {defaults} }}\nworkloads: {{ w: {{ concurrency: 1, requests: 5 }} }}\n\
             models: {{ m: {{ simulate: {{}}, {model} }} }}\n"
        ));
        let plan = Plan::new(&config, &Overrides::default()).unwrap();
        let ends = [plan.cases.first(), plan.cases.last()].into_iter().flatten();
        ends.map(|case| case.group.run_variation).collect()
    };
    assert_eq!(variations("", "", ""), [0.03, 0.2]);
    assert_eq!(variations("run_variation: 5 %", "", ""), [0.05, 0.05]);
    assert_eq!(variations("run_variation: { workloads: 0 % }", "", ""), [0.03, 0.0]);
    let defaults = "run_variation: { prompts: 1.5% }";
    assert_eq!(variations("run_variation: 5 %", defaults, ""), [0.015, 0.05]);
    let model = "run_variation: { prompts: 2 %, workloads: 30 % }";
    assert_eq!(variations("run_variation: 5 %", defaults, model), [0.02, 0.3]);
    for wrong in ["5", "-1 %", "101 %", "{ prompts: 5 }", "{ loads: 5 % }", "many %", "NaN %"] {
        let text = format!("run_variation: {wrong}\nmodels: {{ m: {{ simulate: {{}} }} }}\n");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains("variation") || error.contains("`loads`"), "{wrong}: {error}");
    }
}
