//! Loads of several groups of prompts by weight.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::bench::{Bench, passed, ran, records};

/// A simulated model, a prompt, a conversation and a data set of two records, with the workload `w`.
fn mixed(workload: &str) -> Bench {
    let bench = Bench::by_default("models: { m: { simulate: {} } }\n");
    let config = format!(
        "runs: 1
prompts:
  - {{ name: chat, text: hi }}
  - {{ name: long chat, text: hello there }}
  - {{ name: docs, dataset: docs.jsonl }}
  - {{ name: talk, turns: [one, two] }}
models: {{ m: {{ simulate: {{ ttft: 20ms, itl: 10ms, tokens: 3 }} }} }}
workloads:
  w: {{ {workload} }}
order: as-listed
"
    );
    fs::write(bench.folder.path().join("configs.yaml"), config).unwrap();
    let records = "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n";
    fs::write(bench.folder.path().join("docs.jsonl"), records).unwrap();
    bench
}

/// How many requests each part has.
fn parts(bench: &Bench) -> BTreeMap<String, usize> {
    let mut parts = BTreeMap::new();
    for part in bench.column("part") {
        *parts.entry(part).or_default() += 1;
    }
    parts
}

#[test]
fn parts_have_their_shares_prompts_figures_and_thresholds() {
    let bench = mixed(
        "concurrency: 8, requests: 400, mix: { chat: 70, docs: 20, long chat: 10 }, thresholds: \
         [\"@long chat success_rate >= 50 %\", \"@docs success_rate >= 90 %\", \
         \"success_rate >= 90 %\", \"@chat ttft max <= 1 ms\"]",
    );
    let ran = bench.run(&["::w::", "--json", "run.json", "--junit", "junit.xml"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 of 4 thresholds"), "{}", ran.stderr);
    let shares = parts(&bench);
    assert_eq!(shares.values().sum::<usize>(), 400);
    for (part, share) in [("w@chat", 0.7), ("w@docs", 0.2), ("w@long chat", 0.1)] {
        // Five standard deviations of a binomial count.
        let (expected, deviation) = (400.0 * share, (400.0 * share * (1.0_f64 - share)).sqrt());
        assert!((shares[part] as f64 - expected).abs() < 5.0 * deviation, "{part}: {shares:?}");
    }
    // The records of a data set take turns.
    let prompts = bench.column("prompt");
    let count = |name: &str| prompts.iter().filter(|prompt| *prompt == name).count();
    assert!(count("docs-1").abs_diff(count("docs-2")) <= 1);
    assert_eq!(count("docs-1") + count("docs-2"), shares["w@docs"]);
    assert_eq!(count("talk"), 0);
    let loads = records(&bench.folder.path().join("results.workloads.csv"));
    let rows: Vec<_> = loads.iter().map(|load| (load[2].to_owned(), load[8].to_owned())).collect();
    let row = |name: &str| (name.to_owned(), shares[name].to_string());
    assert_eq!(
        rows,
        [("w".to_owned(), "400".to_owned()), row("w@chat"), row("w@docs"), row("w@long chat")]
    );
    let json = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let groups = json["groups"].as_array().unwrap();
    let of = |name: &str| groups.iter().find(|group| group["workload"]["name"] == name).unwrap();
    let (whole, docs) = (of("w"), of("w@docs"));
    assert_eq!(whole["workload"]["part"], Value::Null);
    assert_eq!(docs["workload"]["part"], 0.2);
    assert_eq!(docs["metrics"]["ttft"]["n"], shares["w@docs"]);
    // The parts run together: their throughputs add up to that of the load, but for its ends.
    let throughput =
        |name: &str| of(name)["metrics"]["request_throughput"]["mean"].as_f64().unwrap();
    let sum: f64 = shares.keys().map(|part| throughput(part)).sum();
    assert!((sum / throughput("w") - 1.0).abs() < 0.1, "{sum} {}", throughput("w"));
    let limits: Vec<_> = json["thresholds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| {
            (
                limit["workload"].as_str().unwrap().to_owned(),
                limit["verdict"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let limit = |name: &str, verdict: &str| (name.to_owned(), verdict.to_owned());
    assert_eq!(
        limits,
        [
            limit("w", "pass"),
            limit("w@chat", "fail"),
            limit("w@docs", "pass"),
            limit("w@long chat", "pass"),
        ],
        "{}",
        ran.stderr
    );
    assert_eq!(json["trials"].as_array().unwrap().len(), 1, "one trial");
}

#[test]
fn the_choice_is_seeded_and_differs_by_run() {
    let order = |seed: u64| {
        let bench = mixed(&format!(
            "concurrency: 2, requests: 40, runs: 2, seed: {seed}, mix: {{ chat: 0.5, talk: 0.25, docs: 0.25 }}"
        ));
        passed(&bench.run(&["::w::"]));
        let numbers =
            bench.column("request").into_iter().map(|number| number.parse::<usize>().unwrap());
        let mut rows: Vec<_> =
            bench.column("run").into_iter().zip(numbers).zip(bench.column("part")).collect();
        rows.sort();
        // Later turns go to whichever slot is free: only first requests are a choice.
        let turns = bench.column("turn");
        assert!(turns.iter().any(|turn| turn == "2"), "{turns:?}");
        let parts = rows.into_iter().map(|((run, _), part)| (run, part));
        parts.partition::<Vec<_>, _>(|(run, _)| run == "1")
    };
    let names = |rows: &[(String, String)]| {
        rows.iter().take(3).map(|(_, part)| part.clone()).collect::<Vec<_>>()
    };
    let ((first, second), again) = (order(1), order(1));
    assert_eq!(names(&first), names(&again.0));
    assert_eq!(names(&second), names(&again.1));
    let others: Vec<_> = (2..6).map(|seed| names(&order(seed).0)).collect();
    assert!(others.iter().any(|other| *other != names(&first)), "{others:?}");
}

#[test]
fn a_filter_selects_the_whole_load() {
    let bench = mixed("concurrency: 2, requests: 4, mix: { chat: 1, talk: 1 }");
    let list = ran(&mut bench.smoke(&["--list", "::w"]));
    assert_eq!(list.stdout.trim(), "m-simulated::w::run-1: benchmark", "{}", list.stdout);
}

#[test]
fn a_resumed_run_keeps_the_parts() {
    let bench = mixed("concurrency: 4, requests: 40, mix: { chat: 3, docs: 1 }");
    let first = |arguments: &[&str]| {
        ran(bench
            .smoke(arguments)
            .args(["--bench", "--no-calibration"])
            .env("LLM_STREAM_BENCH_NO_PREFLIGHT", "1"))
    };
    passed(&first(&["::w::", "--output-dir", "one"]));
    passed(&first(&["::w::", "--output-dir", "two", "--resume", "one"]));
    let of = |folder: &str| {
        let json = fs::read_to_string(bench.folder.path().join(folder).join("run.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        json["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group["metrics"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("one").len(), 3);
    let figures = |groups: &[Value]| {
        groups
            .iter()
            .map(|group| (group["ttft"]["n"].clone(), group["request_throughput"]["n"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(figures(&of("one")), figures(&of("two")));
    let page = fs::read_to_string(bench.folder.path().join("two/report.html")).unwrap();
    assert!(page.contains("w@docs") && page.contains("1 load (40 requests)"));
}

#[test]
fn an_unusable_mix_is_an_error_where_it_is_written() {
    for (workload, why) in [
        ("mix: { chat: 1 }", "`mix` has fewer than two parts"),
        ("mix: {}", "`mix` has fewer than two parts"),
        ("mix: [chat]", "`mix` must be a map of prompts"),
        ("mix: { chat: 1, doc: 2 }", "unknown prompt `doc`"),
        ("mix: { chat: 1, docs: 0 }", "the weight `docs` must be a number above 0"),
        ("mix: { chat: 1, docs: many }", "the weight `docs` must be a number above 0"),
        ("mix: { chat: 1, docs: .inf }", "must be a number above 0"),
        ("mix: { docs: 1, docs-1: 2 }", "prompts of `docs-1` are also in another part"),
        ("mix: { chat: 1, docs: 2 }, prompts: [chat]", "`prompts` cannot be combined with `mix`"),
        (
            "mix: { chat: 1, docs: 2 }, thresholds: [\"@doc ttft <= 1 s\"]",
            "`mix` has no part `doc`",
        ),
        ("mix: { chat: 1, docs: 2 }, thresholds: [\"@docs tft <= 1 s\"]", "`tft`"),
        (
            "mix: { chat: 1, docs: 2 }, thresholds: [\"@docs request_rate >= 1\"]",
            "a closed loop has no `request_rate`",
        ),
        ("thresholds: [\"@docs ttft <= 1 s\"]", "the workload has no `mix`"),
        ("seed: 3", "`seed` requires"),
    ] {
        let ran = mixed(&format!("concurrency: 2, requests: 4, {workload}")).run(&["::w::"]);
        assert_eq!(ran.code, Some(2), "{workload}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(why) && ran.stderr.contains("configs.yaml:9:"),
            "{workload}: {}",
            ran.stderr
        );
    }
}
