//! What makes a trial or a load count: failures, loads that were not offered, and an endpoint of our
//! own that did not keep its script.

use crate::bench::{Bench, NOT_KEPT, Ran};

fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "no `{text}` in\n{}\n{}", ran.stdout, ran.stderr);
}

#[test]
fn a_load_that_the_simulated_endpoint_did_not_keep_is_invalid() {
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
    let ran = Ran::from(bench.command(&["wide", "--json", "run.json"]).output().unwrap());
    assert_eq!(ran.code, Some(101));
    says(
        &ran,
        "Failed: not the load that was asked for: this machine was too slow for the simulated",
    );
    says(&ran, NOT_KEPT);
    says(&ran, "where the script says 14.9 ms");
    says(&ran, "ttft mean <= 3600000 ms  no trial succeeded  FAIL");
    let text = std::fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(run["groups"][0]["simulator"], serde_json::Value::Null);
    assert!(run["groups"][0]["shortfalls"][0].as_str().unwrap().contains("its script"), "{text}");
}
