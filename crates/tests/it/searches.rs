//! Searches for the highest load that holds its limits, through the front door.

use std::fs;

use serde_json::Value;

use crate::bench::{Bench, Ran};

/// A simulated server `m` with this capacity, and a search.
fn bench(simulate: &str, search: &str) -> Bench {
    Bench::new(&format!(
        "prompts: [{{ name: hello, text: \"Say hello.\" }}]
workloads:
  find: {search}
models:
  m: {{ simulate: {simulate} }}
"
    ))
}

fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "{}\n{}", ran.stdout, ran.stderr);
}

fn run_json(bench: &Bench) -> Value {
    let text = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_most_requests_at_a_time_are_found_with_their_loads() {
    // A step takes 20 ms and 2 ms for each request: with 7 of them 34 ms.
    let bench = bench(
        "{ slots: 16, tokens: 6, decode: { base: 20ms, per_running: 2ms } }",
        "{ find: { max: concurrency, from: 2, to: 32, subject_to: [\"tpot p95 <= 35 ms\"], loads: 6 }, \
         requests: 40, thresholds: [\"max_concurrency >= 2 req\"] }",
    );
    let ran = bench.run(&["find", "--json", "run.json"]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    says(
        &ran,
        "  Workload 1/1: find: most at a time, 2 to 32, with tpot p95 <= 35 ms, 40 requests each",
    );
    says(&ran, "      2 at a time holds: tpot p95 2");
    says(&ran, "      16 at a time misses: tpot p95 ");
    says(&ran, " at a time holds (95 % interval ");
    assert!(!ran.stderr.contains("capacity "), "no rate of a closed loop: {}", ran.stderr);
    let run = run_json(&bench);
    let group = &run["groups"][0];
    let search = &group["searches"][0];
    let found = search["found"].as_f64().unwrap();
    // A busy machine writes late, which makes it fewer.
    assert!((2.0..=7.0).contains(&found), "{search}");
    assert_eq!(group["metrics"]["max_concurrency"]["mean"], search["found"]);
    assert_eq!(search["subject_to"][0], "tpot p95 <= 35 ms");
    assert!(search["shown"].as_str().unwrap().starts_with("find@c"), "{search}");
    let points = search["points"].as_array().unwrap();
    assert!(points.len() <= 6 && points.is_sorted_by_key(|of| of["load"].as_f64().unwrap() as u64));
    // Each load has its rows, under its name.
    let folder = bench.folder.path();
    let rows = fs::read_to_string(folder.join("results.csv")).unwrap();
    assert!(rows.contains("m-simulated::find@c2::run-1"), "{rows}");
    let loads = fs::read_to_string(folder.join("results.workloads.csv")).unwrap();
    assert_eq!(loads.lines().count(), 1 + points.len());
}

#[test]
fn a_search_that_meets_its_ends_says_so() {
    let quick = "{ slots: 8, tokens: 4, decode: { base: 3ms } }";
    let generous = bench(
        quick,
        "{ find: { max: rate, from: 10/s, to: 40/s, subject_to: [\"ttft p95 <= 5000 ms\"] }, \
         requests: 80, thresholds: [\"capacity >= 30 req/s\", \"capacity <= 39 req/s\"] }",
    );
    let ran = generous.run(&["find", "--json", "run.json"]);
    says(&ran, "40/s holds, the highest load that `to` allows, after 2 loads");
    says(&ran, "capacity mean >= 30 req/s  40.00 [40.00, ∞] req/s  pass");
    // It may be higher, and is certainly not lower.
    says(&ran, "capacity mean <= 39 req/s  40.00 [40.00, ∞] req/s  FAIL");
    assert_eq!(run_json(&generous)["groups"][0]["searches"][0]["interval"]["high"], Value::Null);
    let strict = bench(
        quick,
        "{ find: { max: rate, from: 10/s, to: 40/s, subject_to: [\"ttft p95 <= 1 ms\"] }, \
         requests: 80, thresholds: [\"capacity >= 1 req/s\"] }",
    );
    let ran = strict.run(&["find"]);
    assert_eq!(ran.code, Some(101));
    says(&ran, "Failed: no load holds the limits: ");
    says(&ran, "(not <= 1 ms)");
    says(&ran, "capacity mean >= 1 req/s  no trial succeeded  FAIL");
}

#[test]
fn failures_that_begin_with_a_load_bound_the_capacity() {
    // At most 20 in flight: a server that queues makes later ones late.
    let bench = bench(
        "{ slots: 2, tokens: 4, decode: { base: 10ms } }",
        "{ find: { max: rate, from: 5/s, to: 400/s, max_in_flight: 20, \
         subject_to: [\"ttft p95 <= 60000 ms\"], loads: 5 }, requests: 160 }",
    );
    let ran = bench.run(&["find"]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    says(&ran, "misses: not reached: requests started ");
    says(&ran, "because `max_in_flight` (20) were in flight");
    says(&ran, "; the next higher load was not reached: ");
}

#[test]
fn a_server_that_goes_away_gives_no_capacity() {
    // The 60th request and all later ones get an error: the first load has 40.
    let faults: Vec<_> =
        (60..=700).map(|nth| format!("{{ status: 503, request: {nth} }}")).collect();
    let simulate = format!(
        "{{ slots: 8, tokens: 4, decode: {{ base: 3ms }}, faults: [{}] }}",
        faults.join(", ")
    );
    let bench = bench(
        &simulate,
        "{ find: { max: rate, from: 20/s, to: 400/s, subject_to: [\"ttft p95 <= 500 ms\"] }, \
         requests: 160, thresholds: [\"capacity >= 1 req/s\"] }",
    );
    let ran = bench.run(&["find", "--no-warmup", "--json", "run.json"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "the last 2 loads had no valid answer, so the server is gone: ");
    says(&ran, "% of the requests failed");
    says(&ran, "not finished: no result after ");
    says(&ran, "capacity mean >= 1 req/s  no trial succeeded  FAIL");
    assert_eq!(run_json(&bench)["groups"][0]["searches"][0]["found"], Value::Null);
}

#[test]
fn an_unusable_search_is_an_error_where_it_is_written() {
    let error = |workload: &str| {
        let ran = bench("{ slots: 8 }", workload).run(&["--list"]);
        assert_eq!(ran.code, Some(2), "{workload}: {}", ran.stderr);
        ran.stderr
    };
    let limit = "subject_to: [\"ttft p95 <= 1 s\"]";
    for (workload, what) in [
        (
            format!("{{ find: {{ max: rate, {limit} }}, rate: 3/s, requests: 9 }}"),
            "`rate` cannot be combined with `find`",
        ),
        (format!("{{ find: {{ {limit} }}, requests: 9 }}"), "`find` has no `max`"),
        ("{ find: { max: rate }, requests: 9 }".into(), "`find` has no `subject_to`"),
        (format!("{{ find: {{ max: rat, {limit} }}, requests: 9 }}"), "did you mean `rate`?"),
        (
            format!("{{ find: {{ max: rate, {limit}, from: 9/s, to: 9/s }}, requests: 9 }}"),
            "`find` ends before it begins",
        ),
        (format!("{{ find: {{ max: concurrency, {limit}, from: 2/s }}, requests: 9 }}"), "`from`"),
        (
            format!("{{ find: {{ max: concurrency, {limit}, max_in_flight: 9 }}, requests: 9 }}"),
            "`max_in_flight` cannot be combined with `max: concurrency`",
        ),
        (
            format!("{{ find: {{ max: rate, {limit} }}, arrivals: constant, requests: 9 }}"),
            "are written in `find`",
        ),
        (
            "{ find: { max: rate, subject_to: [\"ttft max <= 1 s\"] }, requests: 9 }".into(),
            "`max` of a load cannot be searched for",
        ),
        (
            "{ find: { max: rate, subject_to: [\"capacity >= 1 req/s\"] }, requests: 9 }".into(),
            "`capacity` is not a figure of requests",
        ),
        (format!("{{ find: {{ max: rate, {limit}, loads: 13 }}, requests: 9 }}"), "`loads`"),
        (
            "{ rate: 3/s, requests: 9, thresholds: [\"capacity >= 1 req/s\"] }".into(),
            "`capacity` is the result of a search with `max: rate`",
        ),
        (
            format!(
                "{{ find: {{ max: rate, {limit} }}, requests: 9, thresholds: [\"max_concurrency >= 1 req\"] }}"
            ),
            "`max_concurrency` is the result of a search with `max: concurrency`",
        ),
    ] {
        let text = error(&workload);
        assert!(text.contains(what), "{workload}: {text}");
        assert!(text.contains("configs.yaml:"), "{workload}: {text}");
    }
}

#[test]
fn a_capacity_has_no_rhythm_and_a_rhythm_no_capacity() {
    let error =
        |simulate: &str| bench(simulate, "{ concurrency: 1, requests: 1 }").run(&["--list"]).stderr;
    for (simulate, what) in [
        ("{ slots: 8, ttft: 9ms }", "`ttft` cannot be combined with `slots`"),
        ("{ kv_tokens: 8 }", "`kv_tokens` needs `slots`"),
        ("{ slots: 8, prefill_rate: 20 }", "`prefill_rate` requires a unit"),
        ("{ slots: 0 }", "`slots`"),
        ("{ slots: 8, jitter: 9ms }", "`jitter` is longer than `base` of `decode`, which is 8ms"),
    ] {
        let text = error(simulate);
        assert!(text.contains(what), "{simulate}: {text}");
    }
}
