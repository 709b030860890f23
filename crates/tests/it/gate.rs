//! The gate through the front door: duets, histories, trends, percentiles with failed requests.

use crate::bench::{Bench, Ran};

#[track_caller]
fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "no `{text}` in\n{}", ran.stderr);
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
    let bench = Bench::by_default(&config("6.5ms"));
    let slower = bench.run(&["--no-warmup"]);
    assert_eq!(slower.code, Some(101), "{}", slower.stderr);
    says(&slower, "FAILED: 1 of 1 thresholds missed: new-simulated: generation_speed mean >= -8 %");
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
    says(&ran, "tpot mean <= +5 % of baseline (actual: ");
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
    says(&ran, "3 of 6 requests are beyond the limit, 3 of them failed, where 5.00 % may be");
}
