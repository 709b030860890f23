//! Baselines: kept, compared with, refused.

use std::process::Command;

use crate::bench::{Bench, Ran, ran};

/// A model with this time between tokens, and these keys, held to its baseline.
fn bench(itl: &str, more: &str) -> Bench {
    let bench = Bench::new("");
    write(&bench, itl, more);
    bench
}

fn write(bench: &Bench, itl: &str, more: &str) {
    let config = format!(
        "runs: 4
prompts: [{{ name: hello, text: \"Say hello.\" }}, {{ name: bye, text: \"Say goodbye.\" }}]
thresholds: [\"generation_speed >= -20 % of baseline\"]
models:
  m: {{ simulate: {{ ttft: 5ms, itl: {itl}, tokens: 6 }}, {more} }}
"
    );
    std::fs::write(bench.folder.path().join("configs.yaml"), config).unwrap();
}

fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "{}\n{}", ran.stdout, ran.stderr);
}

fn compare(bench: &Bench, arguments: &[&str]) -> Ran {
    let mut binary = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
    ran(binary.arg("compare").args(arguments).current_dir(bench.folder.path()))
}

#[test]
fn a_regression_fails_the_run_and_an_equal_run_passes() {
    let bench = bench("30ms", "");
    let first = bench.run(&["--save-baseline", "./a/main.json"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    says(&first, "note: thresholds relative to a baseline are not judged");
    says(&first, "Baseline saved: ./a/main.json");
    let same = bench.run(&["--baseline", "a/main.json", "--save-baseline", "./same.json"]);
    assert_eq!(same.code, Some(0), "{}", same.stderr);
    says(&same, "passed: 8 trials, 1 threshold");
    write(&bench, "45ms", "");
    let slower =
        bench.run(&["--baseline-lenient", "a/main.json", "--save-baseline", "./slow.json"]);
    assert_eq!(slower.code, Some(101), "{}", slower.stderr);
    says(
        &slower,
        "FAILED: 1 of 1 thresholds missed: m-simulated: generation_speed mean >= -20 % of",
    );
    let compared = compare(&bench, &["./a/main.json", "./slow.json"]);
    assert_eq!(compared.code, Some(101), "{}", compared.stdout);
    let line = |name: &str| {
        let lines = compared.stdout.lines();
        lines.map(str::trim).find(|line| line.starts_with(name)).unwrap().to_owned()
    };
    assert!(line("generation_speed").ends_with("REGRESSED"), "{}", compared.stdout);
    assert!(line("tpot").ends_with("REGRESSED"), "{}", compared.stdout);
    let back = compare(&bench, &["./slow.json", "./a/main.json"]);
    assert_eq!(back.code, Some(0), "{}", back.stdout);
    assert!(back.stdout.contains("improved"), "{}", back.stdout);
    let tolerant = compare(&bench, &["./a/main.json", "./slow.json", "--size", "80%"]);
    assert_eq!(tolerant.code, Some(0), "{}", tolerant.stdout);
}

#[test]
fn runs_with_different_settings_are_not_compared() {
    let bench = bench("15ms", "");
    assert_eq!(bench.run(&["--save-baseline", "./main.json"]).code, Some(0));
    let differing = |more: &str| {
        write(&bench, "15ms", more);
        let ran = bench.run(&["--baseline", "./main.json"]);
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        ran.stderr.lines().find(|line| line.starts_with("FAILED")).unwrap_or_default().to_owned()
    };
    let tokens = differing("max_tokens: 5");
    assert!(tokens.contains("the baseline has another max_tokens: 1024, not 5"), "{tokens}");
    let transport = differing("transport: reqwest");
    assert!(transport.contains("another transport: stamped, not reqwest"), "{transport}");
    let name = differing("name: other");
    assert!(name.contains("the baseline has no `other-simulated`"), "{name}");
    // Other prompts are another load.
    write(&bench, "15ms", "");
    let ran = bench.run(&["--baseline", "./main.json", "bye"]);
    assert_eq!(ran.code, Some(101));
    says(&ran, "the baseline has another set of prompts: bye (");
    let file = bench.folder.path().join("main.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"definitions\":\"1\"", "\"definitions\":\"0\"")).unwrap();
    let ran = bench.run(&["--baseline", "./main.json"]);
    assert_eq!(ran.code, Some(2));
    says(&ran, "its figures have the definitions 0, not 1");
}

#[test]
fn a_missing_baseline_is_reported_before_the_first_request() {
    let bench = bench("10ms", "");
    for (arguments, says_so) in [
        (&[][..], "error: the config has thresholds relative to a baseline, and none is named"),
        (&["--baseline", "./no.json"], "error: cannot read the baseline ./no.json"),
        (&["--baseline", "configs.yaml/x"], "error: cannot read the baseline configs.yaml/x"),
    ] {
        let ran = bench.run(arguments);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        says(&ran, says_so);
    }
    let lenient = bench.run(&["--baseline-lenient", "./no.json"]);
    assert_eq!(lenient.code, Some(0), "{}", lenient.stderr);
    says(&lenient, "nothing is compared with it");
    std::fs::write(bench.folder.path().join("other.json"), "{}").unwrap();
    let ran = bench.run(&["--baseline-lenient", "./other.json"]);
    assert_eq!(ran.code, Some(2));
    says(&ran, "it is ``, not `llm-stream-bench/baseline/2`");
}

#[test]
fn a_failed_run_is_not_saved_as_a_baseline() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  m: { simulate: { ttft: \
         5ms, itl: 15ms, tokens: 4, faults: [missing_usage] } }\n",
    );
    let ran = bench.run(&["--save-baseline", "./main.json"]);
    assert_eq!(ran.code, Some(101));
    says(&ran, "note: the baseline is not saved, since a trial failed");
    assert!(!bench.folder.path().join("main.json").exists());
}

#[test]
fn figures_that_cannot_be_compared_are_listed_and_fail() {
    let bench = bench("2ms", "");
    let run = |arguments: &[&str]| {
        let ran = bench.run(arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    };
    let config = |more: &str| {
        let config = format!(
            "prompts: [{{ name: hello, text: \"Say hello.\" }}]\n\
             models: {{ m: {{ simulate: {{ ttft: 5ms, itl: 15ms, tokens: 6{more} }} }} }}\n"
        );
        std::fs::write(bench.folder.path().join("configs.yaml"), config).unwrap();
    };
    config("");
    run(&["--runs", "4", "--save-baseline", "./few.json"]);
    run(&["--runs", "6", "--save-baseline", "./all.json"]);
    let few = compare(&bench, &["./all.json", "./few.json"]);
    assert_eq!(few.code, Some(101), "{}", few.stdout);
    assert!(
        few.stdout.contains("NOT COMPARED, since it needs n = 5, has 4: generation_speed, ttft"),
        "{}",
        few.stdout
    );
    // It came in one piece now and has no speed.
    config(", faults: [{ merge: 10 }]");
    run(&["--runs", "6", "--save-baseline", "./burst.json"]);
    let burst = compare(&bench, &["./all.json", "./burst.json", "--size", "90"]);
    assert_eq!(burst.code, Some(101), "{}", burst.stdout);
    let speed = "  NOT COMPARED, since all requests now lack it: generation_speed";
    assert!(burst.stdout.contains(speed), "{}", burst.stdout);
    // What there was not before is no loss.
    let back = compare(&bench, &["./burst.json", "./all.json", "--size", "90"]);
    assert_eq!(back.code, Some(0), "{}", back.stdout);
}

#[test]
fn a_baseline_that_cannot_be_saved_fails_the_run_in_every_report() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\n\
         models: { m: { simulate: { ttft: 5ms, itl: 15ms, tokens: 4 } } }\n",
    );
    let folder = bench.folder.path();
    std::fs::create_dir(folder.join("main.json")).unwrap();
    let ran = bench.run(&["--save-baseline", "./main.json", "--json", "run.json"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "FAILED: failed to save the baseline ./main.json: ");
    assert!(!ran.stderr.contains("passed: "), "{}", ran.stderr);
    let json = std::fs::read_to_string(folder.join("run.json")).unwrap();
    let result = &crate::ci::is_by_the_schema(&json)["result"];
    assert_eq!(result["ended"], "failed");
    assert!(result["reasons"].to_string().contains("failed to save the baseline"), "{result}");
}

#[test]
fn undecided_thresholds_add_runs_up_to_max_runs_and_then_warn() {
    let bench = Bench::new(
        "runs: 2\nmax_runs: 5\nprompts: [{ name: hello, text: \"Say hello.\" }]\n\
         models:\n  m: { simulate: { ttft: 20ms, itl: 15ms, tokens: 4 } }\n\
         thresholds: [\"ttft p90 <= 1 s\", \"generation_speed >= 1\"]\n",
    );
    // Nothing decides p90 with so few.
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert_eq!(bench.results().len(), 5);
    says(&ran, "Continuing, since thresholds are undecided: 2 more trials");
    says(&ran, "Continuing, since thresholds are undecided: 1 more trial");
    says(&ran, "Thresholds (actual with its 98.333 % interval)");
    says(&ran, "needs n = 46, has 5");
    // libtest knows of the first runs only.
    assert_eq!(ran.stdout.lines().filter(|line| line.contains("... bench:")).count(), 2);
    let enough = bench.run(&["--runs", "5"]);
    assert!(!enough.stderr.contains("Continuing"), "{}", enough.stderr);
}

#[test]
fn inconclusive_thresholds_warn_pass_or_fail_as_configured() {
    // One request says nothing of the next.
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\n\
         models:\n  m: { simulate: { ttft: 5ms, itl: 15ms, tokens: 4 } }\n\
         thresholds: [\"ttft <= 1 s\"]\n",
    );
    let message = "1 of 1 thresholds inconclusive: m-simulated: ttft mean <= 1000 ms";
    for (way, code, line) in [
        ("warn", 0, format!("WARNING: {message}")),
        ("pass", 0, message.to_owned()),
        ("fail", 101, format!("FAILED: {message}")),
    ] {
        let ran = bench.run(&["--inconclusive", way]);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.lines().any(|said| said.starts_with(&line)), "{}", ran.stderr);
        says(&ran, "about 1 more request would decide it");
    }
    let ran = bench.run(&["--inconclusive", "maybe"]);
    assert_eq!(ran.code, Some(2));
    says(&ran, "unknown value `maybe`: expected pass, warn or fail");
}
