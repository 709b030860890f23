//! Runs on disk: the folder of a run, and the commands that read it again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use llm_stream_core::{
    metric::Metric, protocol::OpenAiChat, request_line::RequestLine, sample::TokenCount,
    statistic::Statistic,
};
use llm_stream_sim::{Script, Simulator};
use serde_json::Value;

use crate::{
    bench::{Bench, Ran, TWO_MODELS, passed, ran, records},
    wait,
};

/// Two models, one by one and under a load.
const WITH_LOAD: &str = "\
runs: 3
prompts:
  - { name: hello, text: \"Say hello.\" }
  - { name: bye, text: \"Say goodbye.\" }
models:
  Qwen-30B: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6 } }
  Llama-70B: { simulate: { ttft: 8ms, itl: 30ms, tokens: 6 } }
workloads:
  c2: { concurrency: 2, requests: 6, runs: 2 }
thresholds: [\"success_rate >= 90 %\"]
";

fn run(bench: &Bench, arguments: &[&str]) -> Ran {
    ran(&mut bench.binary(arguments))
}

/// A run whose files go to `folder`.
fn measure(bench: &Bench, folder: &str, more: &[&str]) -> Ran {
    let arguments = ["run", "--no-calibration", "--output-dir", folder];
    run(bench, &[&arguments, more].concat())
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The only folder of a run in `parent`.
fn only(parent: &Path) -> PathBuf {
    let names = names(parent);
    let [name] = &names[..] else { panic!("{names:?}") };
    parent.join(name)
}

#[test]
fn a_run_of_the_binary_is_a_folder_where_it_runs() {
    let bench = Bench::new(WITH_LOAD);
    let ran = run(&bench, &["run", "--no-calibration"]);
    passed(&ran);
    let folder = only(&bench.folder.path().join("llm-stream-bench"));
    let expected = [
        "baseline.json",
        "report.html",
        "requests.jsonl",
        "results.csv",
        "results.workloads.csv",
        "run.json",
    ];
    assert_eq!(names(&folder), expected);
    let report = folder.join("report.html");
    let last = ran.stderr.lines().last().unwrap();
    assert_eq!(last, format!("Report: {}", report.display()), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("Results: {}\n", folder.join("results.csv").display())));
}

#[test]
fn every_figure_of_a_run_can_be_computed_from_its_requests() {
    let bench = Bench::new(WITH_LOAD);
    passed(&measure(&bench, "out", &[]));
    let folder = bench.folder.path().join("out");
    let results = json(&folder.join("run.json"));
    assert_eq!(results["version"], 2);
    let lines = fs::read_to_string(folder.join("requests.jsonl")).unwrap();
    let lines: Vec<_> = lines.lines().map(|line| RequestLine::from_json(line).unwrap()).collect();
    assert_eq!(lines.len(), 2 * 2 * 3 + 2 * 2 * 6);
    for group in results["groups"].as_array().unwrap() {
        let workload = group["workload"]["name"].as_str();
        let of_group = lines.iter().filter(|line| {
            line.model == group["model"].as_str().unwrap() && line.workload.as_deref() == workload
        });
        let samples: Vec<_> =
            of_group.map(|line| line.outcome(&TokenCount::Usage).unwrap().unwrap()).collect();
        assert_eq!(samples.len(), group["requests"]["valid"].as_u64().unwrap() as usize);
        for metric in [Metric::TTFT, Metric::TPOT, Metric::GENERATION_SPEED, Metric::E2E] {
            let values: Vec<_> = samples.iter().filter_map(|sample| metric.of(sample)).collect();
            let mean = Statistic::Mean.of(&values).unwrap();
            let told = group["metrics"][metric.name]["mean"].as_f64().unwrap();
            assert!((mean / told - 1.0).abs() < 1e-12, "{}: {mean} {told}", metric.name);
        }
    }
}

#[test]
fn a_run_tells_what_it_was_measured_with() {
    let bench = Bench::new(TWO_MODELS);
    let data = bench.folder.path().join("set.jsonl");
    fs::write(&data, "{\"prompt\": \"Hello\"}\n").unwrap();
    let config = "runs: 1\nprompts: [{ name: set, dataset: set.jsonl }]\n\
                  models: { A: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6 } } }\n";
    fs::write(bench.folder.path().join("configs.yaml"), config).unwrap();
    let mut command = bench.binary(&["run", "--output-dir", "out", "--no-calibration"]);
    passed(&ran(command.env("LLM_STREAM_BENCH_NO_WARMUP", "1")));
    let setup = &json(&bench.folder.path().join("out/run.json"))["setup"];
    assert_eq!(setup["config"]["text"], config);
    assert_eq!(setup["config"]["has_secrets"], false);
    let data = &setup["config"]["data"][0];
    // `printf '{"prompt": "Hello"}\n' | sha256sum`
    assert_eq!(data["sha256"], "ca42d24f46a63742f4462ab210a9207b5a6e6684b6ad2d6f6f13b4b84eb0b735");
    assert_eq!(data["bytes"], 20);
    assert_eq!(setup["variables"]["LLM_STREAM_BENCH_NO_WARMUP"], "1");
    assert_eq!(setup["arguments"][2], "--output-dir");
    assert!(setup["started"].as_str() < setup["ended"].as_str(), "{setup}");
    assert_eq!(setup["host"]["system"], std::env::consts::OS);
}

#[test]
fn a_server_tells_its_models_and_version_before_the_run() {
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{method, path},
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(async {
        let server = MockServer::start().await;
        let models = r#"{"data":[{"id":"served/model"},{"id":"other"}]}"#;
        let models = ResponseTemplate::new(200).set_body_string(models);
        let models = models.insert_header("server", "uvicorn");
        Mock::given(method("GET"))
            .and(path("/v1/models"))
            .respond_with(models)
            .mount(&server)
            .await;
        let version = ResponseTemplate::new(200).set_body_string(r#"{"version":"0.11.2"}"#);
        Mock::given(method("GET")).and(path("/version")).respond_with(version).mount(&server).await;
        let answer =
            ResponseTemplate::new(200).set_body_raw(crate::http::STREAM, "text/event-stream");
        Mock::given(method("POST")).respond_with(answer).mount(&server).await;
        server
    });
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: a, text: hi }}]\nmodels:\n  A: {{ base_url: \"{}\" }}\n  B: {{ \
         base_url: \"{}\" }}\n",
        server.uri(),
        server.uri()
    ));
    passed(&measure(&bench, "out", &[]));
    let servers = &json(&bench.folder.path().join("out/run.json"))["setup"]["servers"];
    let [only] = &servers.as_array().unwrap()[..] else { panic!("{servers}") };
    assert_eq!(only["models"], serde_json::json!(["A", "B"]));
    assert_eq!(only["lists"], serde_json::json!(["served/model", "other"]));
    assert_eq!((&only["version"], &only["software"]), (&"0.11.2".into(), &"uvicorn".into()));
}

#[test]
fn stored_runs_are_listed_shown_reported_and_compared() {
    let bench = Bench::new(WITH_LOAD);
    for _ in 0..2 {
        passed(&run(&bench, &["run", "--no-calibration"]));
    }
    let list = run(&bench, &["list", "llm-stream-bench"]);
    passed(&list);
    let names = names(&bench.folder.path().join("llm-stream-bench"));
    let listed: Vec<_> = list.stdout.lines().filter(|line| line.contains("passed")).collect();
    assert_eq!(listed.len(), 2, "{}", list.stdout);
    // The latest is the first.
    assert!(listed[0].contains(&names[1]) && listed[1].contains(&names[0]), "{}", list.stdout);
    assert!(list.stdout.contains("Qwen-30B-simulated"), "{}", list.stdout);

    let show = run(&bench, &["show", "latest~1"]);
    passed(&show);
    assert!(show.stdout.starts_with(&format!("Run {}: passed\n", names[0])), "{}", show.stdout);
    assert!(show.stdout.contains("success_rate >= 90 %"), "{}", show.stdout);

    let results =
        json(&bench.folder.path().join("llm-stream-bench").join(&names[1]).join("run.json"));
    let told = run(&bench, &["report", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&told.stdout).unwrap(), results);
    let both = run(&bench, &["report", "--format", "json", "latest~1", &names[1]]);
    assert_eq!(serde_json::from_str::<Value>(&both.stdout).unwrap()[1], results);

    passed(&run(&bench, &["report", "--format", "csv", "latest", "-o", "figures.csv"]));
    let rows = records(&bench.folder.path().join("figures.csv"));
    let ttft = rows.iter().find(|row| &row[5] == "ttft" && &row[4] == "c2").unwrap();
    let group = results["groups"].as_array().unwrap().iter();
    let group =
        group.clone().find(|group| group["model"] == ttft[3] && !group["workload"].is_null());
    let mean = &group.unwrap()["metrics"]["ttft"]["mean"];
    assert_eq!(ttft[8].parse::<f64>().unwrap(), mean.as_f64().unwrap());

    let markdown = run(&bench, &["report", "--format", "md"]);
    assert!(markdown.stdout.contains("| `Qwen-30B-simulated` |"), "{}", markdown.stdout);

    for operands in [["latest~1", "latest"], [&names[0], "llm-stream-bench/../llm-stream-bench"]] {
        let compared = run(&bench, &["compare", operands[0], operands[1]]);
        let is_folder = operands[1].contains("..");
        assert_eq!(compared.code, Some(if is_folder { 2 } else { 0 }), "{}", compared.stderr);
        assert_eq!(compared.stdout.contains("Qwen-30B-simulated, c2"), !is_folder);
    }
    let three = run(&bench, &["compare", "latest", "latest", "latest~1"]);
    passed(&three);
    assert!(three.stdout.contains("latest → latest~1"), "{}", three.stdout);
}

#[test]
fn a_run_serves_as_a_baseline() {
    let bench = Bench::new(
        &WITH_LOAD.replace("\"success_rate >= 90 %\"", "\"ttft mean <= +900 % of baseline\""),
    );
    let missing = measure(&bench, "first", &[]);
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    passed(&measure(&bench, "first", &["--baseline-lenient", "none"]));
    for baseline in ["first", "first/run.json", "first/baseline.json"] {
        let ran = measure(&bench, "second", &["--baseline", baseline]);
        passed(&ran);
        assert!(ran.stderr.contains("all 2 thresholds met"), "{}", ran.stderr);
    }
}

#[test]
fn a_run_of_an_earlier_version_opens() {
    let bench = Bench::new(TWO_MODELS);
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/runs/v1");
    let show = run(&bench, &["show", old]);
    passed(&show);
    assert!(show.stdout.contains("Run v1: passed") && show.stdout.contains("A-simulated"));
    let rows = format!("{old}/results.csv");
    // The same run with and without its settings.
    let compared = run(&bench, &["compare", &format!("{old}/run.json"), &rows]);
    passed(&compared);
    assert!(compared.stdout.contains("the settings of the earlier run are unknown"));
    // The folder has rows only.
    let folder = bench.folder.path().join("old");
    fs::create_dir(&folder).unwrap();
    for file in ["results.csv", "results.workloads.csv"] {
        fs::copy(Path::new(old).join(file), folder.join(file)).unwrap();
    }
    passed(&run(&bench, &["compare", "old", old]));
    let list = run(&bench, &["list", "."]);
    assert!(list.stdout.contains("A-simulated"), "{}", list.stdout);
    let show = run(&bench, &["show", "old"]);
    assert_eq!(show.code, Some(2));
    assert!(show.stderr.contains("has no run.json"), "{}", show.stderr);
    let rerun = run(&bench, &["rerun", old]);
    assert_eq!(rerun.code, Some(2));
    assert!(rerun.stderr.contains("cannot be repeated"), "{}", rerun.stderr);
}

#[test]
fn unusable_runs_are_errors_that_say_why() {
    let bench = Bench::new(TWO_MODELS);
    let file = |name: &str, text: &str| {
        fs::write(bench.folder.path().join(name), text).unwrap();
        name.to_owned()
    };
    let cases = [
        (file("a.json", "{"), "it is not the results of a run"),
        (file("b.json", "{}"), "it has no `schema`"),
        (file("c.json", r#"{"schema":"llm-stream-bench/run","version":9}"#), "version 9"),
        (file("d.json", r#"{"schema":"other","version":1}"#), "it is `other`"),
        ("nothing".to_owned(), "no run `nothing`"),
        (".".to_owned(), "has no run.json"),
    ];
    for (name, why) in cases {
        for command in ["show", "report", "rerun"] {
            let ran = run(&bench, &[command, &name]);
            assert_eq!(ran.code, Some(2), "{command} {name}: {}", ran.stdout);
            assert!(ran.stderr.contains(why), "{command} {name}: {}", ran.stderr);
        }
        assert_eq!(run(&bench, &["compare", &name, &name]).code, Some(2), "{name}");
    }
}

#[test]
fn a_rerun_measures_the_same_trials_in_the_same_order() {
    let bench = Bench::by_default(TWO_MODELS);
    let mut command =
        bench.binary(&["run", "--runs", "1", "--no-calibration", "--json", "x.json", "Qwen"]);
    passed(&ran(command.env("LLM_STREAM_BENCH_NO_WARMUP", "true")));
    let parent = bench.folder.path().join("llm-stream-bench");
    let first = only(&parent);
    fs::remove_file(bench.folder.path().join("x.json")).unwrap();
    // From elsewhere, and after a change of the config.
    let config = bench.folder.path().join("configs.yaml");
    fs::write(&config, "models: { A: { simulate: {} } }").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = bench.binary(&["rerun", first.to_str().unwrap()]);
    let again = ran(command.current_dir(elsewhere.path()));
    passed(&again);
    assert!(again.stderr.contains("configs.yaml has changed"), "{}", again.stderr);
    assert!(!bench.folder.path().join("x.json").exists(), "files of the first run are kept");
    let [_, second] = &names(&parent)[..] else { panic!() };
    let trials = |folder: &Path| -> Vec<String> {
        let rows = records(&folder.join("results.csv"));
        rows.iter().map(|row| row[14].to_owned()).collect()
    };
    assert_eq!(trials(&first), trials(&parent.join(second)));
    assert!(!again.stderr.contains("Warmup"), "{}", again.stderr);
    // A rerun can be repeated too.
    passed(&run(&bench, &["rerun", "latest"]));
    assert_eq!(names(&parent).len(), 3);
}

#[test]
fn an_interrupted_run_is_stored_as_partial() {
    let script = Script { ttft: Duration::from_secs(60), ..Script::default() };
    let simulator = Simulator::start(script, &OpenAiChat).unwrap();
    let bench = Bench::new(&format!(
        "runs: 2\nprompts: [{{ name: a, text: hi }}]\nmodels:\n  A: {{ base_url: \"{}\" }}\n",
        simulator.url()
    ));
    let mut process = wait::Process::start(&mut bench.binary(&[
        "run",
        "--no-calibration",
        "--no-preflight",
        "--no-warmup",
        "--output-dir",
        "out",
    ]));
    let results = bench.folder.path().join("out/run.json");
    wait::until("run.json", || results.exists());
    assert_eq!(json(&results)["result"]["ended"], "interrupted", "before the first result");
    wait::until("a request", || !simulator.log().is_empty());
    process.signal("INT");
    assert_eq!(process.end().code(), Some(130));
    assert_eq!(json(&results)["result"]["ended"], "interrupted");
    let report = fs::read_to_string(bench.folder.path().join("out/report.html")).unwrap();
    assert!(report.contains("INTERRUPTED"), "the report does not say that it is partial");
    let show = run(&bench, &["show", "out"]);
    assert!(show.stdout.contains("interrupted (partial)"), "{}", show.stdout);
    let compared = run(&bench, &["compare", "out", "out"]);
    assert_eq!(compared.code, Some(2));
    assert!(compared.stderr.contains("it was interrupted"), "{}", compared.stderr);
}

/// A run of a server that fails after some answers, and the command that resumes it.
#[test]
fn a_resumed_run_keeps_valid_trials_and_runs_the_others() {
    let simulator = Simulator::start(
        Script { ttft: ms(6), itl: ms(20), tokens: 4, ..Script::default() },
        &OpenAiChat,
    );
    let simulator = simulator.unwrap();
    let config = |runs: u32| {
        format!(
            "runs: {runs}\nprompts:\n  - {{ name: a, text: hi }}\n  - {{ name: talk, turns: [Hello., \
             Go on.] }}\nworkloads: {{ c2: {{ concurrency: 2, requests: 4, runs: 2 }} }}\nmodels:\n  A: \
             {{ base_url: \"{}\" }}\n",
            simulator.url()
        )
    };
    let bench = Bench::new(&config(2));
    let quiet = ["--no-preflight", "--no-warmup"];
    passed(&measure(&bench, "whole", &quiet));
    // What a killed process leaves: some rows, the last one torn, and no result.
    let part = bench.folder.path().join("part");
    fs::create_dir(&part).unwrap();
    let whole = bench.folder.path().join("whole");
    let lines = fs::read_to_string(whole.join("requests.jsonl")).unwrap();
    let lines: Vec<_> = lines.split_inclusive('\n').collect();
    let is_kept = |line: &&&str| line.contains("A::a::run-1\"") || line.contains("A::c2::run-1\"");
    let kept: String = lines.iter().filter(is_kept).copied().collect();
    // One turn of two, and a part of a line.
    let first_turn = lines.iter().find(|line| line.contains("A::talk::run-1\"")).unwrap();
    fs::write(part.join("requests.jsonl"), format!("{kept}{first_turn}{{\"trial\":\"A::a"))
        .unwrap();
    for file in ["run.json", "results.workloads.csv"] {
        fs::copy(whole.join(file), part.join(file)).unwrap();
    }
    simulator.take_log();
    let resumed = measure(&bench, "resumed", &[&quiet[..], &["--resume", "part"]].concat());
    passed(&resumed);
    assert!(
        resumed.stderr.contains("Resumes the run part: keeps 2 of 6 trials"),
        "{}",
        resumed.stderr
    );
    // Two turns twice, the second run of the prompt, and of the load.
    assert_eq!(simulator.take_log().len(), 4 + 1 + 4);
    let folder = bench.folder.path().join("resumed");
    let results = json(&folder.join("run.json"));
    assert_eq!(results["setup"]["resumed"]["run"], "part");
    assert_eq!(results["setup"]["resumed"]["kept"], 2);
    assert_eq!(results["trials"].as_array().unwrap().len(), 6);
    // The rows of kept trials are those of the earlier run, in each file.
    let rows = |folder: &Path, file: &str| -> Vec<String> {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        text.lines()
            .filter(|line| line.contains("A::a::run-1") || line.contains("A::c2::run-1"))
            .map(str::to_owned)
            .collect()
    };
    for file in ["requests.jsonl", "results.csv", "results.workloads.csv"] {
        assert_eq!(rows(&folder, file), rows(&whole, file), "{file}");
    }
    let show = run(&bench, &["show", "resumed"]);
    assert!(show.stdout.contains("resumed   with 2 trials of the run part"), "{}", show.stdout);

    // A complete run has nothing to run, and the figures are the same.
    let again = measure(&bench, "again", &[&quiet[..], &["--resume", "whole"]].concat());
    passed(&again);
    assert_eq!(simulator.take_log().len(), 0);
    let figures = |run: &str| {
        let mut results = json(&bench.folder.path().join(run).join("run.json"));
        // The table of loads has four digits of it.
        for load in results["groups"][1]["loads"].as_array_mut().unwrap() {
            load["receiver_busy"] = Value::Null;
        }
        [results["groups"].to_string(), results["thresholds"].to_string()]
    };
    let is_same = figures("whole") == figures("again");
    assert!(is_same, "the figures of a resumed run that lacks nothing differ");

    for (change, why) in [
        (config(3), "configs.yaml:1: it had `runs: 2` and has `runs: 3`"),
        (config(2), "would overwrite it"),
    ] {
        fs::write(bench.folder.path().join("configs.yaml"), change + "order: as-listed\n").unwrap();
        let refused = measure(&bench, "whole", &["--resume", "whole"]);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(why), "{why}: {}", refused.stderr);
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
