//! The gate through the front door: duets, histories, trends, percentiles with failed requests.

use crate::bench::{Bench, Ran, ran};

#[track_caller]
fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "no `{text}` in\n{}", ran.stderr);
}

/// The same for a row of a table, whatever its columns are wide.
#[track_caller]
fn row(ran: &Ran, text: &str) {
    let words = ran.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(text), "no `{text}` in\n{}", ran.stderr);
}

/// A model with noise between tokens.
fn model(itl: &str, seed: u32) -> String {
    format!("simulate: {{ ttft: 5ms, itl: {itl}, jitter: 1ms, tokens: 6, seed: {seed} }}")
}

fn write(bench: &Bench, config: &str) {
    std::fs::write(bench.folder.path().join("configs.yaml"), config).unwrap();
}

const PROMPTS: &str = "prompts: [{ name: hi, text: Hi. }, { name: bye, text: Bye. }]\n";

#[test]
fn two_models_of_a_run_are_compared_by_pairs() {
    let config = |itl: &str| {
        let (old, new) = (model("5ms", 1), model(itl, 2));
        format!(
            "runs: 8\n{PROMPTS}models:\n  old: {{ {old} }}\n  new:\n    {new}\n    \
             thresholds: [\"generation_speed >= -8 % of old\"]\n"
        )
    };
    let bench = Bench::by_default(&config("10ms"));
    let slower = bench.run(&["--no-warmup"]);
    assert_eq!(slower.code, Some(101), "{}", slower.stderr);
    says(
        &slower,
        "FAILED: 1 of 1 threshold missed: new-simulated: generation_speed mean >= -8 % of old-simulated\n",
    );
    says(&slower, "beyond chance");
    write(&bench, &config("5ms"));
    let same = bench.run(&["--no-warmup"]);
    assert_eq!(same.code, Some(0), "{}", same.stderr);
    // The other model has to be measured in the same run.
    let alone = bench.run(&["new-simulated"]);
    assert_eq!(alone.code, Some(2), "{}", alone.stderr);
    says(&alone, "needs `old-simulated` in the same run");
}

#[test]
fn an_unknown_model_of_a_threshold_is_refused_with_its_place() {
    let bench = Bench::by_default(&format!(
        "{PROMPTS}models:\n  old build: {{ {} }}\nthresholds: [\"tpot <= +5 % of old biuld\"]\n",
        model("5ms", 1)
    ));
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    says(&ran, "no model `old biuld` to compare with");
    says(&ran, "configs.yaml:4:31");
    says(&ran, "did you mean `old build`?");
}

#[test]
fn a_history_gives_the_variation_between_runs() {
    let config = |itl: &str, seed: u32| {
        format!(
            "runs: 4\n{PROMPTS}models: {{ m: {{ {} }} }}\n\
             thresholds: [\"tpot <= +5 % of baseline\", \"tpot trend <= +5 %\"]\n",
            model(itl, seed)
        )
    };
    let bench = Bench::by_default(&config("5ms", 1));
    for seed in 1..=5 {
        write(&bench, &config("5ms", seed));
        let ran = bench.run(&["--save-baseline", "./main.json", "--no-warmup"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    write(&bench, &config("9ms", 6));
    let ran = bench.run(&["--baseline", "./main.json", "--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "tpot: 5 stored runs differ by ± ");
    says(&ran, "FAILED: 1 of 2 thresholds missed: m-simulated: tpot mean <= +5 % of baseline\n");
    let before = ran.stderr.split("Testing ").next().unwrap();
    let course = "WARNING: m-simulated: tpot trend <= +5 %: a course needs 8 runs, and this one is \
                  number 6: store 2 more runs (`--save-baseline`)\n";
    assert!(before.contains(course), "{before}");
    // Six runs are too few for a course.
    says(&ran, "tpot trend <= +5 %");
    says(&ran, "2 more stored runs of the earlier build (`--save-baseline`) would tell");
}

#[test]
fn failed_requests_are_slower_than_any_limit() {
    let faults = "faults: [{ status: 503, request: 2 }, { status: 503, request: 4 }, { status: 503, request: 6 }]";
    let bench = Bench::by_default(&format!(
        "runs: 6\nprompts: [{{ name: hi, text: Hi. }}]\nmodels:\n  m:\n    \
         simulate: {{ ttft: 5ms, itl: 5ms, tokens: 4, {faults} }}\n\
         thresholds: [\"ttft p95 <= 1 s\", \"ttft p99 <= 1 s\"]\n"
    ));
    let ran = bench.run(&["--no-warmup", "--no-preflight"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "3 of 6 requests are beyond the limit, 3 of them failed, where 5 % may be");
}

#[test]
fn a_word_that_could_be_a_model_or_the_stored_runs_is_refused_and_a_caret_is_under_the_whole_name()
{
    let config = |name: &str, of: &str| {
        format!(
            "{PROMPTS}models:\n  {name}: {{ {} }}\n  new: {{ {} }}\n\
             thresholds: [\"tpot <= +5 % of {of}\"]\n",
            model("5ms", 1),
            model("5ms", 2)
        )
    };
    let bench = Bench::by_default(&config("baseline", "baseline"));
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    says(&ran, "`baseline` is a model here, and the word for stored runs");
    says(&ran, "configs.yaml:5:31");
    says(&ran, " ^^^^^^^^ in thresholds[0]\n");
    write(&bench, &config("baseline", "`baseline`"));
    let ran = bench.run(&["--no-warmup", "--runs", "3"]);
    says(&ran, "  tpot mean <= +5 % of");
    // How the limit is wrapped depends on the width of the figures.
    let rest = |line: &str| line.trim_start().starts_with("baseline-simulated");
    assert!(ran.stderr.lines().any(rest), "{}", ran.stderr);
    write(&bench, &config("old", "the old build"));
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    says(&ran, " ^^^^^^^^^^^^^ in thresholds[0]\n");
}

#[test]
fn a_trend_in_the_better_direction_is_refused_with_the_right_one() {
    for (limit, right) in [
        ("generation_speed trend <= +5 %", "write `generation_speed trend >= -5 %`"),
        ("generation_speed trend >= +5 %", "write `generation_speed trend >= -5 %`"),
        ("ttft trend >= -2.5 %", "write `ttft trend <= +2.5 %`"),
    ] {
        let bench = Bench::by_default(&format!(
            "{PROMPTS}models: {{ m: {{ {} }} }}\nthresholds: [\"{limit}\"]\n",
            model("5ms", 1)
        ));
        let ran = bench.run(&[]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        says(&ran, "` is on the better side: ");
        says(&ran, right);
    }
}

/// A model whose requests with these numbers fail, with more keys at the top level.
fn failing(requests: &[u32], more: &str) -> Bench {
    let faults: Vec<_> =
        requests.iter().map(|nth| format!("{{ status: 503, request: {nth} }}")).collect();
    Bench::by_default(&format!(
        "{PROMPTS}{more}\nmodels:\n  m:\n    \
         simulate: {{ ttft: 2ms, itl: 2ms, tokens: 2, faults: [{}] }}\n",
        faults.join(", ")
    ))
}

#[test]
fn a_success_rate_of_a_hundred_percent_counts_failures_and_others_need_enough_requests() {
    let limits = "thresholds: [\"success_rate >= 100 %\", \"success_rate >= 99 %\", \
                  \"success_rate >= 80 %\"]";
    let run = ["--no-warmup", "--no-preflight", "--runs", "10"];
    let good = failing(&[], limits).run(&run);
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    row(&good, "success_rate >= 100 % 100.0 %, 0 of 20 failed pass");
    says(&good, "would have caught it if 14.0 % of the requests had failed\n");
    says(&good, "success_rate >= 99 %: 20 requests cannot decide it, at least 368 can");
    row(&good, "success_rate >= 99 % 100.0 [83.16, 100.0] % inconclusive");
    says(&good, "about 348 more requests would decide it: `--runs 184`\n");
    row(&good, "success_rate >= 80 % 100.0 [83.16, 100.0] % pass");
    says(&good, "passed: 20 trials succeeded, 2 of 3 thresholds met, 1 inconclusive\n");
    // One failure: too few to miss 99 %, and enough to miss 100 %.
    let one = failing(&[3], limits).run(&run);
    assert_eq!(one.code, Some(101), "{}", one.stderr);
    says(&one, "1 of 20 requests failed, where none may\n");
    says(&one, "FAILED: 1 of 3 thresholds missed: m-simulated: success_rate >= 100 %\n");
    row(&one, "success_rate >= 99 % 95.00 [75.13, 99.87] % inconclusive");
    let many = failing(&[1, 3, 5, 7, 9, 11, 13, 15], limits).run(&run);
    says(&many, "8 of 20 requests failed, where 1 % may\n");
    says(&many, "8 of 20 requests failed, where none may\n");
    let all: Vec<_> = (1..=20).collect();
    let none = failing(&all, "thresholds: [\"success_rate >= 1 %\"]").run(&run);
    assert_eq!(none.code, Some(101), "{}", none.stderr);
    says(&none, "FAILED: 1 of 1 threshold missed");
}

#[test]
fn every_fail_has_a_reason_on_the_terminal_and_in_every_report() {
    let bench = failing(
        &[],
        "thresholds: [\"ttft max <= 1 us\", \"ttft min >= 1 s\", \"ttft p90 <= 1 us\", \"ttfo median >= 1 s\", \
         \"tpot >= 1 s\", \"server_ttft <= 1 s\", \"success_rate >= 100 %\"]",
    );
    let mut command = bench.command(&[
        "--no-warmup",
        "--runs=6",
        "--max-runs=6",
        "--junit=j.xml",
        "--json=run.json",
        "--precision=tpot=90%",
    ]);
    let folder = bench.folder.path();
    std::fs::write(folder.join("summary.md"), "").unwrap();
    let github = [("GITHUB_ACTIONS", "true")];
    let ran = ran(command.envs(github).env("GITHUB_STEP_SUMMARY", folder.join("summary.md")));
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let json = crate::ci::is_by_the_schema(&read("run.json"));
    let (junit, summary) = (read("j.xml"), read("summary.md"));
    let thresholds = json["thresholds"].as_array().unwrap();
    assert_eq!(thresholds.len(), 7);
    for threshold in thresholds {
        let sentence = match threshold["verdict"].as_str().unwrap() {
            "pass" => &threshold["would_have_caught"],
            _ => &threshold["reason"],
        };
        let sentence = sentence.as_str().unwrap_or_else(|| panic!("no reason: {threshold:#}"));
        says(&ran, sentence);
        let escaped = sentence.replace('<', "&lt;").replace('>', "&gt;");
        assert!(junit.contains(&escaped), "no `{sentence}` in {junit}");
        assert!(summary.contains(sentence), "no `{sentence}` in {summary}");
    }
    let reasons: Vec<_> = thresholds.iter().filter_map(|of| of["reason"].as_str()).collect();
    assert_eq!(reasons.len(), 6, "{reasons:?}");
    assert_eq!(reasons[0], "the largest of 12 values is above the limit");
    assert_eq!(reasons[1], "the smallest of 12 values is below the limit");
    assert!(reasons[2].starts_with("12 of 12 requests are beyond the limit"), "{reasons:?}");
    assert_eq!(reasons[5], "an absent figure does not meet a limit");
    // The goals of `precision` as well.
    says(&ran, "tpot    ± 90.00 %");
    assert!(junit.contains("precision of tpot: ± 90.00 %"), "{junit}");
    assert!(summary.contains("| tpot ± 90.00 % | "), "{summary}");
    assert_eq!(json["precision"][0]["goal"], 0.9);
}

#[test]
fn a_limit_within_the_variation_of_the_stored_runs_is_announced() {
    let limit = |of: &str| format!("thresholds: [\"generation_speed >= {of} of baseline\"]");
    let bench = Bench::by_default(&format!(
        "{PROMPTS}{}\nmodels: {{ m: {{ {} }} }}\n",
        limit("-3 %"),
        model("5ms", 1)
    ));
    let run = |arguments: &[&str]| bench.run(&[arguments, &["--no-warmup"]].concat());
    // Without stored runs the threshold is not judged.
    let first = run(&["--save-baseline", "./main.json"]);
    assert!(!first.stderr.contains("run_variation"), "{}", first.stderr);
    let second = run(&["--baseline", "./main.json"]);
    let before = second.stderr.split("Testing ").next().unwrap();
    assert!(
        before.contains(
            "WARNING: m-simulated: generation_speed mean >= -3 % of baseline: runs are assumed to vary \
             by ± 3 % (`run_variation`), so that 1 stored run can decide -8.0 % at best: store 5 or more \
             (`--save-baseline`), or measure both builds in one run (`-3 % of MODEL`)\n"
        ),
        "{before}"
    );
}
