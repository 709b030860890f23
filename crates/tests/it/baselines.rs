//! Baselines: kept, compared with, refused.

use std::process::Command;

use crate::{
    bench::{Bench, Ran, ran},
    wait,
};

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

fn stored(bench: &Bench, name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(bench.folder.path().join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
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
    says(&same, "passed: 8 trials succeeded, 1 threshold met");
    write(&bench, "45ms", "");
    let mut arguments = vec!["--baseline-lenient", "a/main.json", "--save-baseline", "./slow.json"];
    let slower = bench.run(&arguments);
    let refused =
        "note: the run is not added to the baseline ./slow.json: it failed; `--accept` adds";
    says(&slower, refused);
    assert!(!bench.folder.path().join("slow.json").exists());
    arguments.push("--accept");
    let slower = bench.run(&arguments);
    says(&slower, "Baseline saved: ./slow.json (1 run)");
    assert_eq!(stored(&bench, "slow.json")["runs"][0]["accepted"], true);
    assert_eq!(slower.code, Some(101), "{}", slower.stderr);
    says(
        &slower,
        "FAILED: 1 of 1 threshold missed: m-simulated: generation_speed mean >= -20 % of",
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
        // The table wraps its cells.
        let (_, thresholds) = ran.stderr.split_once("Thresholds").unwrap();
        thresholds.split_whitespace().collect::<Vec<_>>().join(" ")
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
    let words = ran.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the baseline has another set of prompts: bye ("), "{words}");
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
fn a_run_without_figures_is_never_stored() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n\
         \x20 m: { simulate: { ttft: 5ms, itl: 15ms, tokens: 4 } }\n\
         \x20 n: { simulate: { ttft: 5ms, itl: 15ms, tokens: 4, faults: [missing_usage] } }\n",
    );
    for accept in [&[][..], &["--accept"]] {
        let ran = bench.run(&[&["--save-baseline", "./main.json"], accept].concat());
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        let why = "is not added to the baseline ./main.json: n-simulated has no valid request";
        says(&ran, why);
        assert!(!bench.folder.path().join("main.json").exists());
    }
}

#[test]
fn an_inconclusive_run_is_stored_unless_it_fails() {
    // One request says nothing of the next.
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\n\
         models:\n  m: { simulate: { ttft: 5ms, itl: 15ms, tokens: 4 } }\n\
         thresholds: [\"ttft <= 1 s\"]\n",
    );
    let save = ["--save-baseline", "./main.json", "--inconclusive"];
    let failed = bench.run(&[&save[..], &["fail"]].concat());
    assert_eq!(failed.code, Some(101), "{}", failed.stderr);
    says(&failed, "it failed; `--accept` adds it anyway");
    let warned = bench.run(&[&save[..], &["warn"]].concat());
    assert_eq!(warned.code, Some(0), "{}", warned.stderr);
    says(&warned, "Baseline saved: ./main.json (1 run)");
}

#[test]
fn a_baseline_keeps_the_last_runs_with_label_and_date() {
    let bench = bench("10ms", "");
    for label in ["first", "second", "third"] {
        let arguments = ["--save-baseline", "./main.json", "--keep-runs", "2"];
        let ran = bench.run(&[&arguments[..], &["--baseline-label", label, "--runs=1"]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let count = if label == "first" { "1 run" } else { "2 runs" };
        says(&ran, &format!("Baseline saved: ./main.json ({count})"));
    }
    let file = stored(&bench, "main.json");
    assert_eq!(file["schema"], "llm-stream-bench/baseline/2");
    let runs = file["runs"].as_array().unwrap();
    let labels: Vec<_> = runs.iter().map(|run| run["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["second", "third"]);
    let dates: Vec<jiff::Timestamp> =
        runs.iter().map(|run| run["date"].as_str().unwrap().parse().unwrap()).collect();
    assert!(dates[0] < dates[1], "{dates:?}");
    let group = &runs[1]["groups"][0];
    assert_eq!((&group["runs"], &group["failed"]), (&serde_json::json!([1, 1]), &0.into()));
    // The file is replaced at once.
    let names = std::fs::read_dir(bench.folder.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{names:?}");
    for (arguments, why) in [
        (&["--keep-runs", "0", "--save-baseline", "./main.json"][..], "0 is not in 1..=200"),
        (&["--accept"], "--save-baseline <NAME>"),
        (&["--keep-runs", "3"], "--save-baseline <NAME>"),
        (&["--baseline-label", "x"], "--save-baseline <NAME>"),
    ] {
        let ran = bench.run(arguments);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        says(&ran, why);
    }
}

#[test]
fn a_file_that_no_run_can_be_added_to_is_known_before_anything_runs() {
    let bench = bench("10ms", "");
    let folder = bench.folder.path();
    std::fs::write(folder.join("broken.json"), "{\"schema\":").unwrap();
    std::fs::create_dir(folder.join("folder.json")).unwrap();
    for (name, why) in [("./broken.json", "it is not a baseline"), ("./folder.json", "not a file")]
    {
        let ran = bench.run(&["--save-baseline", name]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        let what = format!("cannot add a run to the baseline {name}: remove it or choose another");
        says(&ran, &what);
        says(&ran, why);
        // Once, whether the file is written to or read.
        let read = bench.run(&["--baseline", name]);
        for text in [&ran.stderr, &read.stderr] {
            assert!(text.matches("EOF while parsing").count() <= 1, "{text}");
        }
    }
    assert_eq!(std::fs::read_to_string(folder.join("broken.json")).unwrap(), "{\"schema\":");
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
    run(&["--runs", "2", "--save-baseline", "./few.json"]);
    run(&["--runs", "6", "--save-baseline", "./all.json"]);
    let few = compare(&bench, &["./all.json", "./few.json"]);
    assert_eq!(few.code, Some(101), "{}", few.stdout);
    assert!(
        few.stdout.contains("NOT COMPARED, since it needs n = 3, has 2: generation_speed, ttft"),
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
    // Only a figure that is judged fails.
    let unjudged = ["./all.json", "./burst.json", "--size", "90", "--figures", "e2e"];
    let unjudged = compare(&bench, &unjudged);
    assert_eq!(unjudged.code, Some(0), "{}", unjudged.stdout);
    let speed = "  not compared, since all requests now lack it: generation_speed";
    assert!(unjudged.stdout.contains(speed), "{}", unjudged.stdout);
    // A baseline with too few requests does not regress against itself: nothing is compared.
    let same = compare(&bench, &["./few.json", "./few.json"]);
    assert_eq!(same.code, Some(2), "{}", same.stdout);
    let why =
        "not compared, since too few to compare: it needs n = 3, has 2: generation_speed, ttft";
    assert!(same.stdout.contains(why), "{}", same.stdout);
    assert!(same.stdout.contains("No judged figure could be compared"), "{}", same.stdout);
    // What there was not before is no loss.
    let back = compare(&bench, &["./burst.json", "./all.json", "--size", "90"]);
    assert_eq!(back.code, Some(0), "{}", back.stdout);
}

#[test]
fn a_baseline_that_cannot_be_saved_fails_the_run_in_every_report() {
    let bench = Bench::new(
        "runs: 2\nprompts: [{ name: hello, text: \"Say hello.\" }]\n\
         models: { m: { simulate: { ttft: 500ms, itl: 15ms, tokens: 4 } } }\n",
    );
    let folder = bench.folder.path();
    let early = bench.run(&["--save-baseline", "configs.yaml/main.json"]);
    assert_eq!(early.code, Some(2), "{}", early.stderr);
    says(&early, "cannot add a run to the baseline configs.yaml/main.json: ");
    let child = bench.start(&["--save-baseline", "./kept/main.json", "--json", "run.json"]);
    let rows = || std::fs::read_to_string(folder.join("results.csv")).unwrap_or_default();
    wait::until("a row", || rows().lines().count() > 1);
    // A file where the baseline needs a folder.
    std::fs::remove_dir_all(folder.join("kept")).unwrap();
    std::fs::write(folder.join("kept"), "").unwrap();
    let ran = Ran::from(child.output());
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "FAILED: failed to save the baseline ./kept/main.json: ");
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
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(bench.results().len(), 5);
    says(&ran, "Continuing, since thresholds are undecided: 2 more trials");
    says(&ran, "Continuing, since thresholds are undecided: 1 more trial");
    says(&ran, "Thresholds (actual with its 98.333 % interval)");
    says(&ran, "5 of 5 within the limit  inconclusive");
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
    let message = "1 of 1 threshold inconclusive: m-simulated: ttft mean <= 1000 ms";
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

#[test]
fn a_baseline_equals_itself() {
    // One run of a load has too few batches, and a mean can be 0.
    let bench = Bench::new(
        "runs: 6\nprompts: [{ name: hello, text: \"Say hello.\" }]\n\
         workloads: { c2: { concurrency: 2, requests: 6, runs: 1 } }\n\
         models: { m: { simulate: { ttft: 20ms, itl: 10ms, tokens: 4 } } }\n",
    );
    let ran = bench.run(&["--save-baseline", "./a.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let file = bench.folder.path().join("a.json");
    let mut zero = stored(&bench, "a.json");
    for value in zero["runs"][0]["groups"][0]["figures"]["ttft"].as_array_mut().unwrap() {
        *value = 0.0.into();
    }
    for value in zero["runs"][0]["groups"][1]["loads"]["output_throughput"].as_array().unwrap() {
        assert!(value["batches"].as_u64() < Some(5) && value["value"].as_f64() > Some(0.0));
    }
    std::fs::write(&file, zero.to_string()).unwrap();
    let all = "ttft,tpot,generation_speed,e2e,total_time,output_throughput";
    for figures in [&[][..], &["--figures", all]] {
        let same = compare(&bench, &[&["./a.json", "./a.json"], figures].concat());
        assert_eq!(same.code, Some(0), "{}", same.stdout);
        assert!(!same.stdout.contains("NOT COMPARED"), "{}", same.stdout);
        let mut lines = same.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert!(lines.any(|line| line == ["ttft", "ms", "0.000", "0.000", "0", "same"]));
    }
}

#[test]
fn only_the_named_figures_decide() {
    let bench = bench("10ms", "");
    let config = |tokens: u32| {
        let config = format!(
            "runs: 6\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\n\
             models: {{ m: {{ simulate: {{ ttft: 50ms, itl: 20ms, tokens: {tokens} }} }} }}\n"
        );
        std::fs::write(bench.folder.path().join("configs.yaml"), config).unwrap();
    };
    for (tokens, name) in [(6, "./short.json"), (18, "./long.json")] {
        config(tokens);
        let ran = bench.run(&["--save-baseline", name]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    // Answers got longer, which is not a slower server.
    let files = ["./short.json", "./long.json", "--size", "20"];
    let default = compare(&bench, &files);
    assert_eq!(default.code, Some(0), "{}", default.stdout);
    assert!(default.stdout.contains("Not judged, since `--figures` does not name them:"));
    let unjudged = default.stdout.lines().find(|line| line.trim().starts_with("total_time"));
    assert!(unjudged.is_some_and(|line| line.ends_with(']')), "{}", default.stdout);
    let named = compare(&bench, &[&files[..], &["--figures", "total_time"]].concat());
    assert_eq!(named.code, Some(101), "{}", named.stdout);
    let unknown = compare(&bench, &[&files[..], &["--figures", "speed"]].concat());
    assert_eq!(unknown.code, Some(2));
    says(&unknown, "`speed` is none of ");
    for arguments in [&[][..], &["./short.json"], &["--history", "./a.json", "b", "c"]] {
        assert_eq!(compare(&bench, arguments).code, Some(2), "{arguments:?}");
    }
}

/// A file of as many runs as `levels`: the run in `one.json`, with its times multiplied.
fn write_history(bench: &Bench, levels: &[f64], change: impl Fn(usize, &mut serde_json::Value)) {
    let mut file = stored(bench, "one.json");
    let run = |(nth, level): (usize, &f64)| {
        let mut run = file["runs"][0].clone();
        run["label"] = format!("commit-{nth}").into();
        for (name, factor) in
            [("ttft", *level), ("tpot", *level), ("generation_speed", 1.0 / level)]
        {
            for value in run["groups"][0]["figures"][name].as_array_mut().unwrap() {
                *value = (value.as_f64().unwrap() * factor).into();
            }
        }
        change(nth, &mut run);
        run
    };
    file["runs"] = levels.iter().enumerate().map(run).collect::<Vec<_>>().into();
    std::fs::write(bench.folder.path().join("history.json"), file.to_string()).unwrap();
}

/// A series with 2 % noise around 1.
fn noise(runs: usize) -> Vec<f64> {
    const NOISE: [f64; 7] = [0.3, -1.0, 0.8, 1.1, -0.6, -0.9, 0.2];
    (0..runs).map(|run| 1.0 + NOISE[run % NOISE.len()] / 50.0).collect()
}

#[test]
fn a_step_and_a_slow_trend_in_the_history_fail() {
    let bench = bench("10ms", "");
    let ran = bench.run(&["--save-baseline", "./one.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let history = |levels: &[f64], change: &dyn Fn(usize, &mut serde_json::Value)| {
        write_history(&bench, levels, change);
        compare(&bench, &["--history", "./history.json"])
    };
    let same = history(&noise(20), &|_, _| ());
    assert_eq!(same.code, Some(0), "{}", same.stdout);
    assert!(same.stdout.contains("20 runs: commit-0 ("), "{}", same.stdout);
    assert!(same.stdout.contains("ttft: no step and no trend"), "{}", same.stdout);
    let step: Vec<_> =
        noise(20).iter().enumerate().map(|(n, of)| if n < 12 { *of } else { of * 1.2 }).collect();
    let found = history(&step, &|_, _| ());
    assert_eq!(found.code, Some(101), "{}", found.stdout);
    assert!(found.stdout.contains("% since run 13, commit-12 ("), "{}", found.stdout);
    assert!(found.stdout.contains("tpot: REGRESSED, +19"), "{}", found.stdout);
    // Ten commits of +2 %, none of which is beyond the noise.
    let ramp: Vec<_> = noise(20)
        .iter()
        .enumerate()
        .map(|(n, of)| of * 1.02_f64.powi(n.saturating_sub(9) as i32))
        .collect();
    let found = history(&ramp, &|_, _| ());
    assert_eq!(found.code, Some(101), "{}", found.stdout);
    assert!(found.stdout.contains("ttft: trend of +"), "{}", found.stdout);
    // It got faster; and the step is accepted; and there are too few runs.
    let faster: Vec<_> = step.iter().map(|of| 1.0 / of).collect();
    let found = history(&faster, &|_, _| ());
    assert_eq!(found.code, Some(0), "{}", found.stdout);
    assert!(found.stdout.contains("ttft: step of -"), "{}", found.stdout);
    let accepted = history(&step, &|nth, run| {
        if nth == 12 {
            run["accepted"] = true.into();
        }
    });
    assert_eq!(accepted.code, Some(0), "{}", accepted.stdout);
    let note = "note: 12 runs before the last accepted run not used";
    assert!(accepted.stdout.contains(note), "{}", accepted.stdout);
    let few = history(&step[8..15], &|_, _| ());
    assert_eq!(few.code, Some(0), "{}", few.stdout);
    assert!(few.stdout.contains("not tested, since it needs 8 runs and has 7"), "{}", few.stdout);
    // Runs with other settings are left out.
    let other = history(&noise(20), &|nth, run| {
        if nth < 3 {
            run["groups"][0]["setting"]["max_tokens"] = "7".into();
        }
    });
    let note = "note: 3 stored runs of 20 not used: the baseline has another max_tokens: 7, not";
    assert!(other.stdout.contains(note), "{}", other.stdout);
    assert!(other.stdout.contains("17 runs: commit-3 ("), "{}", other.stdout);
}
