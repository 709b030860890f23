//! The library as its users use it: the examples, and a run from code.

use std::process::Command;

use llm_stream_bench::{
    Bench, BenchError, Cancellation, Event, Observer, ObserverError, Overrides, RunStatus,
};
use llm_stream_core::verdict::Outcome;

use crate::{bench::REPOSITORY, wait};

/// The exit code and the output of an example.
fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = wait::output(Command::new(program).args(arguments));
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn the_gate_example_passes_a_fast_endpoint_and_fails_without_a_server() {
    let gate = env!("CARGO_BIN_EXE_example-gate");
    let (code, output) = run(gate, &[]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("endpoint-simulated: success_rate >= 100 %: Pass"), "{output}");
    assert!(output.contains("passed: 8 trials succeeded, "), "{output}");
    let (code, output) = run(gate, &["http://127.0.0.1:1", "m"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("FAILED: 8 of 8 trials failed"), "{output}");
}

#[test]
fn the_observer_example_prints_each_request() {
    let (code, output) = run(env!("CARGO_BIN_EXE_example-observer"), &[]);
    assert_eq!(code, Some(0));
    let lines: Vec<_> = output.lines().filter_map(|line| line.split_once(": ")).collect();
    let names: Vec<_> = lines.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["simulated::hello::run-1", "simulated::hello::run-2"]);
    assert!(lines.iter().all(|(_, ttft)| ttft.ends_with("ms")), "{output}");
}

#[test]
fn the_reread_example_prints_the_figures_of_a_recording() {
    let file = format!("{REPOSITORY}/fixtures/streams/openai_chat/llama-server-chat_usage.jsonl");
    let reread = env!("CARGO_BIN_EXE_example-reread");
    let (code, output) = run(reread, &[&file, "openai_chat"]);
    assert_eq!(code, Some(0), "{file}");
    assert!(output.lines().any(|line| line.starts_with("ttft: ")), "{output}");
    let (code, _) = run(reread, &["no/such/file.jsonl"]);
    assert_eq!(code, Some(1));
}

const TWO_MODELS: &str = "\
runs: 2
prompts: [{ name: p, text: hi }]
thresholds: [\"success_rate >= 100 %\"]
models:
  one: { simulate: { ttft: 5ms, itl: 2ms, tokens: 8 } }
  two: { simulate: { ttft: 5ms, itl: 2ms, tokens: 8, faults: [{ status: 503 }] } }
";

/// Keeps the names of finished trials, and cancels after some.
#[derive(Default)]
struct Finished {
    names: Vec<String>,
    cancels_after: Option<(usize, Cancellation)>,
}

impl Observer for Finished {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        if let Event::TrialFinished { case, .. } = event {
            self.names.push(case.name.clone());
            if let Some((trials, cancellation)) = &self.cancels_after
                && self.names.len() == *trials
            {
                cancellation.cancel();
            }
        }
        Ok(())
    }
}

#[test]
fn a_run_from_code_has_the_trials_the_verdicts_and_the_reasons() {
    let mut finished = Finished::default();
    let bench = Bench::from_yaml(TWO_MODELS).unwrap().checks_instrument(false);
    let run = bench.run(&mut finished).unwrap();
    assert_eq!(finished.names.len(), 4);
    assert!(!run.passed());
    assert_eq!(run.summary.groups.len(), 2);
    assert!(run.reasons()[0].starts_with("FAILED: 2 of 4 trials failed"), "{run:?}");
}

#[test]
fn filters_and_overrides_select_trials() {
    let overrides = Overrides { runs: Some(1), ..Overrides::default() };
    let bench = || Bench::from_yaml(TWO_MODELS).unwrap().overrides(overrides.clone());
    let plan = bench().filter("one").plan().unwrap();
    let names: Vec<_> = plan.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["one-simulated::p::run-1"]);
    let nothing = bench().filter("three").plan().unwrap_err();
    assert!(matches!(nothing, BenchError::NothingSelected(_)), "{nothing}");
    let unknown = Overrides { models: vec!["three".into()], ..Overrides::default() };
    let error = Bench::from_yaml(TWO_MODELS).unwrap().overrides(unknown).plan().unwrap_err();
    assert!(error.to_string().contains("no model `three`"), "{error}");
    assert!(matches!(Bench::from_yaml("models: 1"), Err(BenchError::Config(_))));
}

#[test]
fn a_cancelled_run_keeps_finished_trials_and_has_no_verdicts() {
    let cancellation = Cancellation::default();
    let mut finished =
        Finished { cancels_after: Some((1, cancellation.clone())), ..Finished::default() };
    let bench = Bench::from_yaml(TWO_MODELS).unwrap().cancellation(cancellation);
    let run = bench.run(&mut finished).unwrap();
    assert_eq!((finished.names.len(), run.verdicts.len()), (1, 0));
    assert!(!run.passed());
    assert!(run.reasons()[0].starts_with("interrupted: 1 of 4 trials finished"), "{run:?}");
}

/// Cannot store the rows of one trial.
struct FullDisk;

impl Observer for FullDisk {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Request { name, .. } if name.ends_with("run-1") => {
                Err("the disk is full".into())
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn a_request_that_cannot_be_stored_fails() {
    let bench = Bench::from_yaml(TWO_MODELS).unwrap().filter("one").checks_instrument(false);
    let run = bench.run(&mut FullDisk).unwrap();
    assert!(run.reasons()[0].starts_with("FAILED: 1 of 2 trials failed"), "{run:?}");
}

#[test]
fn a_run_writes_its_reports_and_names_its_groups() {
    let bench = Bench::from_yaml(TWO_MODELS).unwrap().checks_instrument(false);
    let run = bench.run(&mut ()).unwrap();
    assert_eq!(run.verdict(), RunStatus::Failed);
    let groups: Vec<_> = run.groups().map(|(group, verdicts)| (group.name(), verdicts)).collect();
    let outcomes: Vec<_> = groups
        .iter()
        .map(|(name, verdicts)| (name.as_str(), verdicts[0].outcome() == Outcome::Pass))
        .collect();
    assert_eq!(outcomes, [("one-simulated", true), ("two-simulated", false)]);
    let folder = tempfile::tempdir().unwrap();
    let reports = folder.path().join("a/b");
    run.write_to(&reports).unwrap();
    let read = |name: &str| std::fs::read_to_string(reports.join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(json["result"]["ended"], "failed", "{json}");
    assert!(read("junit.xml").contains("one-simulated::p::run-1"));
    for table in ["summary.md", "summary.txt"] {
        assert!(read(table).contains("two-simulated"), "{table}");
    }
    let taken = reports.join("summary.txt");
    let error = run.write_to(&taken).unwrap_err();
    assert_eq!(
        (&error.path, error.to_string()),
        (&taken, format!("failed to write {}", taken.display()))
    );
}
