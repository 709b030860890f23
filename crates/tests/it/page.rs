//! `report.html`: the page of a run, and of several runs next to each other. How it looks is checked in
//! a browser, by `crates/tests/browser`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::bench::{Bench, Ran, ran};

const CONFIG: &str = "\
runs: 3
prompts:
  - { name: hello, text: \"Say hello.\" }
  - { name: bye, text: \"Say goodbye.\" }
models:
  Qwen-30B: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6, reasoning_tokens: 2 } }
  Llama-70B: { simulate: { ttft: 8ms, itl: 30ms, tokens: 6 } }
workloads:
  c2: { concurrency: 2, requests: 6, runs: 1 }
thresholds: [\"success_rate >= 50 %\", \"ttft max <= 10 s\", \"generation_speed >= 1\"]
";

/// The text that must not become markup.
const HOSTILE: &str = "a\"><script>alert(1)</script><img src=x onerror=alert(1)>&amp;'";

fn run(bench: &Bench, arguments: &[&str]) -> Ran {
    ran(&mut bench.binary(arguments))
}

/// Measures into the folder `name` and returns its path.
fn measure(bench: &Bench, name: &str) -> PathBuf {
    let ran = run(bench, &["run", "--no-calibration", "--output-dir", name]);
    assert!(matches!(ran.code, Some(0 | 101)), "{}", ran.stderr);
    bench.folder.path().join(name)
}

/// Writes the page of stored runs and returns it.
fn page(bench: &Bench, runs: &[&str]) -> String {
    let arguments = [&["report"], runs, &["--format", "html", "--output", "page.html"]].concat();
    let ran = run(bench, &arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    fs::read_to_string(bench.folder.path().join("page.html")).unwrap()
}

fn results(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("run.json")).unwrap()).unwrap()
}

fn store(folder: &Path, results: &Value) {
    fs::write(folder.join("run.json"), results.to_string()).unwrap();
}

/// The value of an attribute at the beginning of `rest`, which lies within a tag.
fn attribute<'t>(rest: &'t str, name: &str) -> Option<&'t str> {
    let tag = rest.split('>').next()?;
    let (_, value) = tag.split_once(&format!("{name}=\""))?;
    value.split('"').next()
}

/// The figures of a page: the run, the place in its `run.json`, the scale and the text.
fn figures(page: &str) -> Vec<(usize, String, f64, String)> {
    let tags = page.split("<span class=\"v\" ").skip(1);
    tags.map(|rest| {
        let run = attribute(rest, "data-run").map_or(0, |run| run.parse().unwrap());
        let scale = attribute(rest, "data-scale").map_or(1.0, |scale| scale.parse().unwrap());
        let path = attribute(rest, "data-json").unwrap().to_owned();
        let (_, text) = rest.split_once('>').unwrap();
        (run, path, scale, text.split('<').next().unwrap().replace('\u{2212}', "-"))
    })
    .collect()
}

#[test]
fn every_figure_is_that_of_run_json_rounded() {
    let bench = Bench::new(CONFIG);
    let documents = [results(&measure(&bench, "new")), results(&measure(&bench, "newest"))];
    let page = page(&bench, &["new", "newest"]);
    let shown = figures(&page);
    assert!(shown.len() > 100, "{}", shown.len());
    assert!(shown.iter().any(|(run, ..)| *run == 1));
    // The newest run is the first.
    assert_rounded(&page, &[&documents[1], &documents[0]]);
}

/// Checks that every figure of a page is that of `run.json`, rounded. The documents are in the order of
/// the page.
pub(crate) fn assert_rounded(page: &str, documents: &[&Value]) {
    for (run, path, scale, text) in figures(page) {
        let document = documents[run];
        let value = document.pointer(&format!("/{path}")).and_then(Value::as_f64);
        let value = value.unwrap_or_else(|| panic!("{path} is not a number")) * scale;
        let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let half = 0.5 * 10f64.powi(-(decimals as i32));
        let shown: f64 = text.parse().unwrap_or_else(|_| panic!("{path}: {text}"));
        assert!((shown - value).abs() <= half * (1.0 + 1e-9), "{path}: {value} is shown as {text}");
    }
}

#[test]
fn the_page_needs_no_other_file() {
    let bench = Bench::new(CONFIG);
    measure(&bench, "out");
    let page = page(&bench, &["out"]);
    for foreign in ["<link", "<img", "<iframe", "@import", "url(", " src=", "//# source"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let targets: Vec<_> =
        page.split("href=\"").skip(1).map(|rest| rest.split('"').next()).collect();
    assert!(
        targets.iter().all(|target| target.is_some_and(|it| it.starts_with('#'))),
        "{targets:?}"
    );
    assert!(page.len() < 300_000, "{}", page.len());
}

#[test]
fn hostile_names_and_messages_are_inert() {
    let name = serde_json::to_string(HOSTILE).unwrap();
    let workload = serde_json::to_string(&format!("load {HOSTILE}")).unwrap();
    let config = CONFIG.replace("Qwen-30B", &name).replace("c2:", &format!("{workload}:"));
    let bench = Bench::new(&config.replace("name: hello", &format!("name: {name}")));
    let folder = measure(&bench, "out");
    let mut document = results(&folder);
    document["machine"] = json!(HOSTILE);
    document["result"]["reasons"] = json!([HOSTILE]);
    document["setup"]["config"]["text"] = json!(HOSTILE);
    document["setup"]["arguments"] = json!([HOSTILE, "a\u{202e}b"]);
    document["groups"][0]["shortfalls"] = json!([HOSTILE]);
    document["groups"][0]["requests"]["failures"] = json!({ HOSTILE: 1 });
    for threshold in document["thresholds"].as_array_mut().unwrap() {
        threshold["told"] = json!(HOSTILE);
        threshold["remarks"] = json!([HOSTILE]);
    }
    store(&folder, &document);
    let page = page(&bench, &["out"]);
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains("<img") && !page.contains('\u{202e}'));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn an_interrupted_run_says_so_in_place_of_the_verdict() {
    let bench = Bench::new(CONFIG);
    let folder = measure(&bench, "out");
    let mut document = results(&folder);
    document["result"] = json!({ "ended": "interrupted", "reasons": ["interrupted by a signal"] });
    document["thresholds"] = json!([]);
    let group = &mut document["groups"][0]["trials"];
    group["finished"] = json!(group["planned"].as_u64().unwrap() - 2);
    store(&folder, &document);
    let page = page(&bench, &["out"]);
    assert!(page.contains("INTERRUPTED") && page.contains("2 are missing"));
    assert!(page.contains("No limit was judged"));
    assert!(!page.contains("PASS") && !page.contains("exit code"));
}

#[test]
fn a_run_without_its_requests_has_the_figures_and_says_what_is_left_out() {
    let bench = Bench::new(CONFIG);
    let folder = measure(&bench, "out");
    let with = figures(&page(&bench, &["out"]));
    fs::remove_file(folder.join("requests.jsonl")).unwrap();
    let page = page(&bench, &["out"]);
    assert!(page.contains("are left out"));
    assert!(!page.contains("id=\"distributions\"") && !page.contains("id=\"request\""));
    let without = figures(&page);
    let of_ranking = |figures: &[(usize, String, f64, String)]| {
        let speed = figures.iter().filter(|(_, path, ..)| path.ends_with("generation_speed/mean"));
        speed.cloned().collect::<Vec<_>>()
    };
    assert!(!of_ranking(&without).is_empty());
    assert!(of_ranking(&without).iter().all(|figure| with.contains(figure)));
}

#[test]
fn requests_of_a_load_that_was_not_asked_for_are_in_no_distribution() {
    let bench = Bench::new(CONFIG);
    let folder = measure(&bench, "out");
    let before = page(&bench, &["out"]);
    assert!(before.contains("with 2 streams over time (c2)"));
    let mut document = results(&folder);
    for trial in document["trials"].as_array_mut().unwrap() {
        if trial["workload"] == "c2" {
            trial["failure"] = json!({ "kind": "load", "message": "too few in flight" });
        }
    }
    for group in document["groups"].as_array_mut().unwrap() {
        if group["workload"]["name"] == "c2" {
            group["loads"] = json!([]);
            group["metrics"] = json!({});
            group["shortfalls"] = json!(["too few in flight"]);
        }
    }
    store(&folder, &document);
    let after = page(&bench, &["out"]);
    assert!(after.contains("over time (c2, not the load asked for)"));
    assert!(after.contains("Too few in flight."));
    let curves = |page: &str| page.matches("by load. Medians").count();
    assert_eq!((curves(&before), curves(&after)), (4, 4));
    let streams = |page: &str| page.matches("2 streams</th>").count();
    assert!(streams(&before) > 0 && streams(&after) == 0);
}

#[test]
fn several_runs_are_drawn_next_to_each_other() {
    let bench = Bench::new(CONFIG);
    for name in ["first", "second", "third"] {
        measure(&bench, name);
    }
    let page = page(&bench, &["second", "third", "first"]);
    assert!(page.contains("Report of 3 runs") && page.contains("id=\"runs\""));
    assert!(page.contains("s ln old old1") && page.contains("s ln old old2"));
    assert!(!page.contains("old old3"));
}
