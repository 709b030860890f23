//! How many runs are measured, in which order, and what is said of it: `order`, `runs: auto`,
//! `precision`, `max_time`, and the warnings before the first request.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    bench::{Bench, Ran, passed, ran},
    ci::is_by_the_schema,
};

/// One prompt, whose time to the first token varies by a quarter.
const NOISY: &str = "\
prompts: [{ name: hello, text: \"Say hello.\" }]
models: { m: { simulate: { ttft: 40ms, itl: 20ms, jitter: 10ms, tokens: 3, seed: 1 } } }
";

fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "no `{text}` in {}\n{}", ran.stdout, ran.stderr);
}

/// Runs with a JSON report.
fn report(bench: &Bench, arguments: &[&str]) -> (Ran, Value) {
    let ran = bench.run(&[arguments, &["--json", "run.json"]].concat());
    let text = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    (ran, is_by_the_schema(&text))
}

fn trials(report: &Value) -> Vec<&str> {
    let trials = report["trials"].as_array().unwrap().iter();
    trials.map(|trial| trial["name"].as_str().unwrap()).collect()
}

#[test]
fn each_run_asks_every_prompt_once_and_the_seed_is_printed() {
    let bench = Bench::by_default(
        "\
runs: 3
prompts: [{ name: a, text: x }, { name: b, text: x }, { name: c, text: x }]
workloads: { w: { concurrency: 1, requests: 1 } }
models:
  m: { simulate: { ttft: 2ms, itl: 10ms, tokens: 2 } }
  n: { simulate: { ttft: 2ms, itl: 10ms, tokens: 2 } }
",
    );
    let (ran, json) = report(&bench, &[]);
    passed(&ran);
    says(&ran, "Order of the trials: interleaved(0)\n");
    assert_eq!(json["order"], "interleaved(0)");
    let names = trials(&json);
    for (round, run) in names.chunks(8).zip(1..) {
        assert!(round.iter().all(|name| name.ends_with(&format!("run-{run}"))), "{names:?}");
        for pair in round.chunks(2) {
            let task = |name: &str| name.split("::").nth(1).unwrap().to_owned();
            assert_eq!(task(pair[0]), task(pair[1]), "models take turns: {names:?}");
        }
        assert!(round[6].contains("::w::"), "{names:?}");
    }
    // Models are warmed up once: they keep their connections.
    assert_eq!(ran.stderr.matches("Warmup...").count(), 2);
    // The list is that of the config.
    let listed = bench.run(&["--list"]).stdout;
    let listed: Vec<_> = listed.lines().collect();
    assert_eq!(
        listed[..2],
        ["m-simulated::a::run-1: benchmark", "m-simulated::a::run-2: benchmark"]
    );
    assert!(listed[12].starts_with("n-simulated::a::run-1"), "{listed:?}");
}

#[test]
fn runs_are_added_until_the_means_are_known_precisely() {
    let bench = Bench::by_default(&format!("precision: {{ ttft: 15 % }}\n{NOISY}"));
    let (ran, json) = report(&bench, &[]);
    passed(&ran);
    says(&ran, "Continuing, since intervals are wider than `precision`: 3 more trials\n");
    says(&ran, "Precision (half of the mean's interval, as a part of the mean)\n\nm-simulated\n");
    let precision = &json["precision"][0];
    assert_eq!((&precision["metric"], &precision["goal"]), (&"ttft".into(), &0.15.into()));
    let half = precision["actual"].as_f64().unwrap();
    let runs = trials(&json).len();
    assert_eq!(precision["reached"].as_bool(), Some(half <= 0.15), "{precision}");
    // `max_runs` is 30, and the looks have 3, 6, 12, 24 and 30 runs: 1 − 0.05 / 5.
    assert!([6, 12, 24, 30].contains(&runs), "{runs}");
    assert!((json["confidence"].as_f64().unwrap() - 0.99).abs() < 1e-9);
    assert!(precision["reached"] == true || runs == 30, "{precision}");
}

#[test]
fn a_goal_that_is_not_reached_says_why_and_does_not_fail_the_run() {
    let bench = Bench::new(NOISY);
    let (ran, json) = report(&bench, &["--precision", "ttft=0.1%", "--max-runs", "4"]);
    passed(&ran);
    assert_eq!(trials(&json).len(), 4);
    says(&ran, "not reached: max_runs is reached\n");
    assert_eq!(json["precision"][0]["why"], "max_runs is reached");
    // Each run takes at least 80 ms, and the first three are measured anyway.
    let (ran, json) = report(&bench, &["--precision", "0.1 %", "--max-time", "300ms"]);
    passed(&ran);
    let runs = trials(&json).len();
    assert!((3..=6).contains(&runs), "{runs}");
    says(&ran, "No further run would end within max_time\n");
    assert_eq!(json["precision"].as_array().unwrap().len(), 3);
    assert_eq!(json["precision"][0]["why"], "max_time is over");
    // A figure that answers do not have is not waited for.
    let one = Bench::new(&NOISY.replace("tokens: 3", "tokens: 1"));
    let (ran, json) = report(&one, &["--precision", "tpot=1%"]);
    passed(&ran);
    assert_eq!(trials(&json).len(), 3);
    says(&ran, "not reached: 3 of 3 have no such figure\n");
}

#[test]
fn auto_chooses_the_number_of_runs_from_the_noise_of_three() {
    // The limit is 15 % from the mean: three runs cannot decide it, and thirty are too many.
    let bench = Bench::by_default(&format!("runs: auto\nthresholds: [\"ttft <= 46 ms\"]\n{NOISY}"));
    let (ran, json) = report(&bench, &[]);
    let runs = trials(&json).len();
    assert!((4..=30).contains(&runs), "{runs}\n{}", ran.stderr);
    says(&ran, "Continuing, since thresholds are undecided: ");
    // Three looks: after three runs, after the chosen number, and after the most.
    assert!((json["confidence"].as_f64().unwrap() - (1.0 - 0.05 / 3.0)).abs() < 1e-9);
    // What is decided at once needs no more.
    let (ran, json) = report(&Bench::new(NOISY), &["--runs", "auto"]);
    passed(&ran);
    assert_eq!(trials(&json).len(), 3);
}

#[test]
fn check_names_the_range_of_requests() {
    let bench = Bench::new("");
    let check = |more: &str| {
        let config = format!("{more}{NOISY}");
        fs::write(bench.folder.path().join("configs.yaml"), config).unwrap();
        let mut binary = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
        let ran = ran(binary.arg("check").current_dir(bench.folder.path()));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout
    };
    let limit = "thresholds: [\"ttft <= 46 ms\"]\n";
    for (more, requests) in [
        (limit.to_owned(), "about 4\n  3 of trials, 1 of warm-up"),
        (format!("runs: auto\n{limit}"), "about 4 to 31\n  3 to 30 of trials, 1 of warm-up"),
        ("precision: 2 %\nmax_runs: 7\n".to_owned(), "about 4 to 8\n  3 to 7 of trials"),
        // Without a limit or a goal no run is added.
        ("runs: auto\n".to_owned(), "about 4\n  3 of trials"),
    ] {
        let text = check(&more);
        assert!(text.contains(&format!("Requests: {requests}")), "{more}{text}");
    }
}

#[test]
fn arguments_that_mean_nothing_say_what_they_should_be() {
    let bench = Bench::new(NOISY);
    for (arguments, why) in [
        (["--precision", "2"], "`2` is not a percentage above 0 % and up to 100 %, such as `2 %`"),
        (["--precision", "ttfp=2%"], "unknown metric `ttfp`; did you mean `ttft`?"),
        (["--runs", "many"], "expected `auto` or a whole number from 1 to 10000"),
        (["--max-time", "10"], "is not a duration"),
    ] {
        let ran = bench.run(&arguments);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        says(&ran, why);
    }
}

#[test]
fn a_plan_that_cannot_decide_a_threshold_says_so_before_the_first_request() {
    let bench = Bench::new(&format!(
        "\
thresholds: [\"ttft p95 <= 1 s\", \"tpot sd <= 1 s\", \"ttft max <= 1 s\"]
workloads: {{ w: {{ concurrency: 1, requests: 2, runs: 1, thresholds: [\"ttft <= 1 s\"] }} }}
{NOISY}"
    ));
    let ran = bench.run(&["--runs", "2"]);
    let before = ran.stderr.split("Testing ").next().unwrap();
    let warnings: Vec<_> =
        before.lines().filter_map(|line| line.strip_prefix("WARNING: m-simulated")).collect();
    assert_eq!(warnings.len(), 3, "{before}");
    assert!(warnings[0].starts_with(": ttft p95 <= 1000 ms: 2 requests cannot decide it"));
    assert!(warnings[1].contains("at least 8 can: `runs: 8`, or `--runs 8`"), "{warnings:?}");
    assert!(
        warnings[2].starts_with(
            ", w: ttft mean <= 1000 ms: 2 runs cannot decide it, at least 4 can: `runs: 4` for the \
             workload, or `--runs 4`"
        ),
        "{warnings:?}"
    );
    let ran = bench.run(&["--runs", "100"]);
    assert!(!ran.stderr.contains("cannot decide"), "{}", ran.stderr);
}

#[test]
fn a_figure_that_too_few_answers_have_is_named_with_its_reason_and_so_is_a_baseline_without_it() {
    let bench = Bench::new(
        "\
runs: 3
prompts: [{ name: hello, text: \"Say hello.\" }]
models:
  m: { simulate: { ttft: 60ms, itl: 40ms, tokens: 12, faults: [{ merge: 12, request: 1 }] } }
",
    );
    let ran = bench.run(&["--no-warmup", "--save-baseline", "./b.json"]);
    passed(&ran);
    let summary = ran.stderr.lines().find(|line| line.starts_with("  no ")).unwrap_or_default();
    assert!(summary.contains("generation_speed"), "{}", ran.stderr);
    says(&ran, " in 1 of 3 answers: 1 burst; below min_share (90.00 %): not judged\n");
    let note = ran.stderr.lines().find(|line| line.starts_with("note: saved without "));
    let note = note.unwrap_or_else(|| panic!("{}", ran.stderr));
    assert!(
        note.starts_with("note: saved without these of m-simulated: generation_speed, "),
        "{note}"
    );
    assert!(note.ends_with("(1 of 3 answers have none: 1 burst)"), "{note}");
    // Enough answers have it.
    let ran = bench.run(&["--no-warmup", "--save-baseline", "./b.json", "--runs", "20"]);
    passed(&ran);
    says(&ran, " in 1 of 20 answers: 1 burst\n");
    assert!(!ran.stderr.contains("saved without"), "{}", ran.stderr);
}

#[test]
fn the_standard_deviation_is_that_within_prompts() {
    // The two prompts differ by a factor of five in their answers' lengths, and so in `total_time`.
    let bench = Bench::new(
        "\
runs: 2
prompts:
  - { name: short, text: x, output_tokens: 2 }
  - { name: long, text: x, output_tokens: 12 }
models: { m: { simulate: { ttft: 20ms, itl: 20ms, tokens: 12 } } }
",
    );
    let (ran, json) = report(&bench, &[]);
    passed(&ran);
    let total = &json["groups"][0]["metrics"]["total_time"];
    assert!(total["max"].as_f64().unwrap() - total["min"].as_f64().unwrap() > 0.15, "{total}");
    assert!(total["sd"].as_f64().unwrap() < 0.05, "{total}");
    let (_, json) = report(&bench, &["--runs", "1"]);
    let total = &json["groups"][0]["metrics"]["total_time"];
    assert_eq!((&total["sd"], &total["needs"]["sd"]), (&Value::Null, &3.into()), "{total}");
}
