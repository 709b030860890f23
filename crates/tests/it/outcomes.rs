//! What makes a trial or a load count: failures, loads that were not offered, and an endpoint of our
//! own that did not keep its script.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::Command,
    thread,
};

use crate::{
    bench::{Bench, NOT_KEPT, Ran, ran},
    streams::{STOP, TOKEN, USAGE},
    wait::Process,
};

fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "no `{text}` in\n{}\n{}", ran.stdout, ran.stderr);
}

#[test]
fn a_load_is_invalid_if_the_simulated_endpoint_falls_behind() {
    // Two million tokens a second, which no machine writes one by one.
    let bench = Bench::new(
        "runs: 1
prompts: [{ name: hello, text: \"Say hello.\" }]
workloads:
  wide: { concurrency: 150, requests: 150, thresholds: [\"ttft <= 3600 s\"] }
  narrow: { concurrency: 1, requests: 2 }
models: { m: { simulate: { ttft: 100ms, itl: 0.075ms, tokens: 200 } } }
",
    );
    let arguments = ["--bench", "--output", "results.csv", "wide", "--json", "run.json"];
    let ran = ran(&mut bench.smoke(&arguments));
    assert_eq!(ran.code, Some(101));
    says(
        &ran,
        "Failed: not the load that was asked for: this machine was too slow for the simulated",
    );
    says(&ran, NOT_KEPT);
    says(&ran, "where the script says 14.9 ms");
    says(&ran, "ttft mean <= 3600000 ms  no trial succeeded  FAIL");
    let text = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(run["groups"][0]["simulator"], serde_json::Value::Null);
    assert!(run["groups"][0]["shortfalls"][0].as_str().unwrap().contains("its script"), "{text}");
    // With `--no-calibration` there are figures and a warning.
    let ran = bench.run(&["wide"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    says(
        &ran,
        "      WARNING: this machine was too slow for the simulated endpoint, which did not keep",
    );
    says(&ran, "  simulated endpoint, against its script: ");
}

/// A quick model with faults, and a load on it.
fn faulty(faults: &str, load: &str) -> Bench {
    Bench::new(&format!(
        "prompts: [{{ name: hello, text: \"Say hello.\" }}]
workloads: {{ load: {{ concurrency: 2, {load} }} }}
models: {{ m: {{ simulate: {{ ttft: 60ms, itl: 20ms, tokens: 6, faults: [{faults}] }} }} }}
"
    ))
}

/// A status of 503 for each of these requests.
fn refused(requests: std::ops::RangeInclusive<u32>) -> String {
    let fault = |request| format!("{{ status: 503, request: {request} }}");
    requests.map(fault).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_load_counts_failed_requests_and_fails_if_most_failed() {
    let run = |faults: &str, load: &str| faulty(faults, load).run(&["load", "--no-warmup"]);
    let with = |limit: &str| {
        let load = format!("requests: 8, runs: 1, thresholds: [\"success_rate >= {limit} %\"]");
        run(&refused(2..=6), &load)
    };
    let ran = with("99");
    assert_eq!(ran.code, Some(101));
    says(&ran, "Failed: 5 of 8 requests failed, the first: http_status: HTTP 503");
    assert!(
        !ran.stderr.contains("Success:") && !ran.stdout.contains("... bench:"),
        "{}",
        ran.stderr
    );
    // A `success_rate` limit allows it.
    let ran = with("30");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    says(&ran, "Finished: 3 of 8 requests succeeded, 5 failed (http_status 5), ");
    assert!(!ran.stderr.contains("Success:"), "{}", ran.stderr);
    // A limit is of all runs: one of two may have all of the failures, but not most of its requests.
    let of_two = |failed: u32| {
        let load = "requests: 8, runs: 2, thresholds: [\"success_rate >= 60 %\"]";
        run(&refused(1..=failed), load)
    };
    let ran = of_two(4);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    says(&ran, "Finished: 4 of 8 requests succeeded, 4 failed (http_status 4), ");
    let ran = of_two(5);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "Failed: 5 of 8 requests failed");
}

/// Answers the first `times` requests, each on its own connection, and then listens no more.
fn leaves_after(times: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for _ in 0..times {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut piece = [0; 4096];
                match socket.read(&mut piece) {
                    Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{}",
                [TOKEN, TOKEN, STOP, USAGE].map(|data| format!("data: {data}\n\n")).concat()
            );
            socket.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn a_load_without_connections_is_invalid() {
    let address = leaves_after(4);
    let bench = Bench::new(&format!(
        "runs: 1
prompts: [{{ name: hello, text: \"Say hello.\" }}]
workloads: {{ load: {{ concurrency: 1, requests: 8, thresholds: [\"success_rate >= 10 %\"] }} }}
models: {{ m: {{ base_url: \"http://{address}\", connection: cold }} }}
"
    ));
    let ran = bench.run(&["load", "--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "not the load that was asked for: 4 of 8 requests found no connection, the first: ");
    says(&ran, "success_rate >= 10 %  no trial succeeded  FAIL");
}

#[test]
fn a_model_without_a_speed_is_not_paired_and_the_reason_is_printed() {
    let bench = Bench::new(
        "runs: 2
order: interleaved
prompts: [{ name: hello, text: \"Say hello.\" }]
models:
  quick: { simulate: { ttft: 5ms, itl: 20ms, tokens: 4 } }
  short: { simulate: { ttft: 5ms, tokens: 1 } }
",
    );
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    says(&ran, "    short-simulated: no generation_speed of short-simulated: ");
    assert!(!ran.stderr.contains("no trial has finished"), "{}", ran.stderr);
}

#[test]
fn a_held_back_answer_is_not_a_reference_for_repeats() {
    let bench = Bench::new(
        "runs: 3
prompts: [{ name: hello, text: \"Say hello.\" }]
models:
  m: { simulate: { ttft: 60ms, itl: 40ms, tokens: 12, faults: [{ merge: 12, request: 1 }] } }
",
    );
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let notes = bench.column("notes");
    assert!(notes[0].contains("burst"), "{notes:?}");
    assert!(notes.iter().all(|notes| !notes.contains("much_faster_repeat")), "{notes:?}");
}

#[test]
fn reported_and_measured_speeds_are_of_the_same_requests() {
    let bench = Bench::new(
        "runs: 2
prompts: [{ name: hello, text: \"Say hello.\" }]
models:
  m:
    simulate:
      { ttft: 40ms, itl: 20ms, tokens: 12, timings: true, faults: [{ merge: 12, request: 1 }] }
",
    );
    let ran = bench.run(&["--no-warmup"]);
    let speeds = ran.stderr.lines().find(|line| line.contains("generation_speed 5"));
    assert!(speeds.is_some_and(|line| line.contains(", 1 of 2 requests)")), "{}", ran.stderr);
}

#[test]
fn files_that_would_overwrite_one_another_are_refused_before_the_first_request() {
    let bench = Bench::new(
        "runs: 1
prompts: [{ name: set, dataset: set.jsonl }]
workloads: { load: { concurrency: 1, requests: 1 } }
models: { m: { base_url: \"http://127.0.0.1:9\" } }
",
    );
    let folder = bench.folder.path();
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    fs::write(folder.join("set.jsonl"), "{\"id\":1,\"prompt\":\"hi\"}\n").unwrap();
    fs::write(folder.join("old.csv"), "kept").unwrap();
    fs::write(folder.join("base.json"), "kept").unwrap();
    fs::create_dir(folder.join("kept")).unwrap();
    let mut cases = vec![
        ("--json ./new.csv --output new.csv", "`--json` and `--output` both go to"),
        ("--json sub/../new.csv --junit new.csv", "`--json` and `--junit` both go to"),
        ("--json new.csv --junit sub/../new.csv", "both go to"),
        ("--json old.csv --export bencher=./old.csv", "`--export bencher` and `--json` both go to"),
        ("--json new.json --save-baseline ./new.json", "`--save-baseline` and `--json` both go to"),
        ("--json new.json --logfile ./new.json", "`--logfile` and `--json` both go to"),
        ("--output new.csv --json new.workloads.csv", "both go to new.workloads.csv"),
        ("--output new --record new", "`--record` and `--output` both go to"),
        ("--record old.csv", "`--record` is old.csv, which is not a folder"),
        (
            "--json ./configs.yaml",
            "`--json` would overwrite configs.yaml, which is read as the config",
        ),
        (
            "--output set.jsonl",
            "`--output` would overwrite set.jsonl, which is read as a file of the",
        ),
        ("--logfile base.json --baseline ./base.json", "which is read as the baseline"),
        (
            "--record kept --json kept/m__set-1__run-1.jsonl",
            "a recording of `--record` would overwrite",
        ),
    ];
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink("old.csv", folder.join("link.csv")).unwrap();
        symlink("new.csv", folder.join("dangling.csv")).unwrap();
        symlink(".", folder.join("here")).unwrap();
        fs::hard_link(folder.join("old.csv"), folder.join("hard.csv")).unwrap();
        cases.extend([
            ("--json link.csv --junit old.csv", "both go to"),
            ("--json hard.csv --junit old.csv", "both go to"),
            ("--json dangling.csv --junit new.csv", "both go to"),
            ("--json here/new.csv --junit new.csv", "both go to"),
            ("--json here/deep/new.csv --junit deep/new.csv", "both go to"),
        ]);
    }
    for (arguments, why) in cases {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let mut command = bench.smoke(&arguments);
        let ran = ran(command.args(["--bench", "--no-calibration", "--no-preflight"]));
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(why), "{arguments:?}: {}", ran.stderr);
        assert_eq!((text("old.csv"), text("base.json")), ("kept".into(), "kept".into()));
        assert!(!folder.join("new.csv").exists() && !folder.join("sub").exists(), "{arguments:?}");
    }
}

#[test]
fn different_files_are_not_refused() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: hi }]\n\
         models: { m: { simulate: { ttft: 5ms, itl: 20ms, tokens: 4 } } }\n",
    );
    // A device; a file of the same name in another folder, and in another case; the baseline that is
    // compared with, kept anew.
    let arguments =
        ["--json", "/dev/null", "--junit", "/dev/null", "--save-baseline", "./base.json"];
    let ran = bench.run(&arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let mut arguments = vec!["--baseline", "base.json", "--save-baseline", "./base.json"];
    arguments.extend(["--json", "sub/results.csv", "--junit", "configs.xml"]);
    let ran = bench.run(&arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn groups_with_equal_names_are_distinguished() {
    // `a` is called `a-simulated`, and under its load as the other model.
    let bench = Bench::new(
        "runs: 1
prompts: [{ name: hello, text: \"Say hello.\" }]
workloads:
  w-simulated: { concurrency: 1, requests: 5, thresholds: [\"ttft <= 3600 s\"] }
models:
  a: { thresholds: [\"ttft <= 1 ms\"], simulate: { ttft: 300ms, itl: 20ms, tokens: 4 } }
  \"a-simulated, w-simulated\": { thresholds: [\"e2e <= 1 ms\"], simulate: { ttft: 300ms, itl: 20ms, tokens: 4 } }
",
    );
    let ran = bench.run(&[
        "--junit",
        "j.xml",
        "--json",
        "r.json",
        "--export",
        "bencher=b.json",
        "a-simulated::w-simulated",
        "w-simulated::hello",
        "--save-baseline",
        "./base.json",
        "--accept",
    ]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let text = |name: &str| fs::read_to_string(bench.folder.path().join(name)).unwrap();
    let junit = text("j.xml");
    let suites: Vec<_> = junit.split("<testsuite ").skip(1).collect();
    let has = |suite: &str, limit: &str| suite.contains(limit);
    assert_eq!(suites.len(), 2, "{junit}");
    assert!(has(suites[0], "ttft mean &lt;= 3600000 ms") && !has(suites[0], "e2e mean"), "{junit}");
    assert!(has(suites[1], "e2e mean &lt;= 1") && !has(suites[1], "3600000"), "{junit}");
    let report = crate::ci::is_by_the_schema(&text("r.json"));
    let names: Vec<_> =
        report["groups"].as_array().unwrap().iter().map(|group| &group["name"]).collect();
    assert_eq!(names, ["a-simulated, w-simulated", "a-simulated, w-simulated (model)"]);
    assert_eq!(report["thresholds"][0]["workload"], "w-simulated");
    assert_eq!(report["thresholds"][1]["workload"], serde_json::Value::Null);
    let exported: serde_json::Value = serde_json::from_str(&text("b.json")).unwrap();
    assert_eq!(exported.as_object().unwrap().len(), 2);
    // As it was written before a file had many runs.
    let base: serde_json::Value = serde_json::from_str(&text("base.json")).unwrap();
    let mut old = base["runs"][0].clone();
    old["schema"] = "llm-stream-bench/baseline/1".into();
    old["definitions"] = base["definitions"].clone();
    for group in old["groups"].as_array_mut().unwrap() {
        let group = group.as_object_mut().unwrap();
        assert!(group.remove("model").is_some());
        group.remove("workload");
        group.insert("name".into(), "a-simulated, w-simulated".into());
    }
    fs::write(bench.folder.path().join("old.json"), old.to_string()).unwrap();
    let command = || Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
    for before in ["base.json", "old.json"] {
        let mut command = command();
        let paths = [before, "base.json"].map(|name| bench.folder.path().join(name));
        let ran = crate::bench::ran(command.arg("compare").args(paths));
        assert!(!ran.stdout.contains("not comparable"), "{before}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("a-simulated, w-simulated (model)"), "{}", ran.stdout);
    }
}

#[test]
fn serve_warns_if_it_does_not_keep_its_script() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--ttft", "100ms", "--itl", "0.075ms"]);
    let mut served = Process::start(command.args(["--tokens", "200"]));
    let mut lines = BufReader::new(served.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let url = first.split("endpoint: ").nth(1).unwrap().strip_suffix("/v1/chat/completions");
    let bench = Bench::new(&format!(
        "runs: 1
prompts: [{{ name: hello, text: hi }}]
workloads: {{ load: {{ concurrency: 150, requests: 150 }} }}
models: {{ m: {{ base_url: \"{}\" }} }}
",
        url.unwrap()
    ));
    bench.run(&["load", "--no-warmup"]);
    let warning = lines.find(|line| line.starts_with("WARNING: "));
    assert!(warning.is_some_and(|line| line.contains(NOT_KEPT)));
}
