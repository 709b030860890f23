//! The reports for CI: when they are written, and that their readers can read them.

use std::{fs, io::Read, path::Path};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus};
use serde_json::Value;

use crate::bench::{Bench, REPOSITORY, Ran, TWO_MODELS, ran};

/// Every report, with its flag.
const REPORTS: [&str; 5] = [
    "--junit",
    "--json",
    "--export=bencher",
    "--export=github-action-benchmark-bigger",
    "--export=github-action-benchmark-smaller",
];

/// A threshold that fails, one that passes, and a trial that fails.
const TROUBLE: &str = "\
runs: 2
prompts: [{ name: hello, text: \"Say hello.\" }]
workloads: { pair: { concurrency: 2, requests: 4, runs: 1, thresholds: [\"ttft >= 1 ms\"] } }
models:
  slow: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6 }, thresholds: [\"generation_speed >= 1000000\"] }
  breaks: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6, faults: [{ status: 503, request: 2 }] } }
";

/// Arguments that ask for every report, each in a file of that name.
fn asking(folder: &str) -> Vec<String> {
    let ask = |(nth, flag): (usize, &&str)| match flag.split_once('=') {
        Some((flag, format)) => format!("{flag}={format}={folder}/{nth}"),
        None => format!("{flag}={folder}/{nth}"),
    };
    REPORTS.iter().enumerate().map(ask).collect()
}

fn run(bench: &Bench, arguments: &[String]) -> Ran {
    ran(bench.command(&[]).args(arguments))
}

pub(crate) fn junit(path: &Path) -> Report {
    Report::deserialize_from_str(&fs::read_to_string(path).unwrap()).expect("JUnit XML")
}

pub(crate) fn cases(report: &Report) -> impl Iterator<Item = &TestCase> {
    report.test_suites.iter().flat_map(|suite| &suite.test_cases)
}

pub(crate) fn said(case: &TestCase) -> &str {
    match &case.status {
        TestCaseStatus::Success { .. } => "",
        TestCaseStatus::NonSuccess { message, .. } | TestCaseStatus::Skipped { message, .. } => {
            message.as_deref().unwrap_or_default()
        }
    }
}

#[test]
fn a_failing_run_writes_every_report_and_creates_folders() {
    let bench = Bench::new(TROUBLE);
    let ran = run(&bench, &asking("new/folder"));
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let folder = bench.folder.path().join("new/folder");
    for (nth, flag) in REPORTS.iter().enumerate() {
        assert!(fs::metadata(folder.join(nth.to_string())).unwrap().len() > 0, "{flag}");
    }
}

#[test]
fn junit_has_a_case_for_each_trial_and_threshold() {
    let bench = Bench::new(TROUBLE);
    let ran = run(&bench, &["--junit=junit.xml".into(), "--no-warmup".into()]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let report = junit(&bench.folder.path().join("junit.xml"));
    let names: Vec<_> = cases(&report).map(|case| case.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "slow-simulated::hello::run-1",
            "slow-simulated::hello::run-2",
            "generation_speed mean >= 1000000 tok/s",
            "slow-simulated::pair::run-1",
            "pair: ttft mean >= 1 ms",
            "breaks-simulated::hello::run-1",
            "breaks-simulated::hello::run-2",
            "breaks-simulated::pair::run-1",
            "pair: ttft mean >= 1 ms",
        ]
    );
    let messages: Vec<_> = cases(&report).map(said).collect();
    assert!(messages[2].starts_with("missed (actual: "), "{messages:?}");
    assert!(messages[6].starts_with("HTTP 503"), "{messages:?}");
    assert_eq!((report.tests, report.failures, report.errors), (9, 2, 0), "{messages:?}");
    let throughput = cases(&report).nth(3).unwrap().properties.iter();
    assert!(throughput.into_iter().any(|property| property.name == *"output_throughput"));
}

/// The schema, in which nothing is allowed that it does not describe.
fn schema(version: &str) -> Value {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                fields.values_mut().for_each(close);
                if fields.contains_key("properties") {
                    fields.entry("additionalProperties").or_insert(false.into());
                }
            }
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }
    let path = Path::new(REPOSITORY).join(format!("fixtures/schema/run.{version}.json"));
    let mut schema = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    close(&mut schema);
    schema
}

/// The report as a value, if it is by its schema.
pub(crate) fn is_by_the_schema(report: &str) -> Value {
    is_by(report, "v2")
}

fn is_by(report: &str, version: &str) -> Value {
    let mut compiler = boon::Compiler::new();
    compiler.enable_format_assertions();
    compiler.add_resource("file:///run.json", schema(version)).unwrap();
    let mut schemas = boon::Schemas::new();
    let schema = compiler.compile("file:///run.json", &mut schemas).unwrap();
    let report = serde_json::from_str(report).expect("JSON");
    schemas.validate(&report, schema).unwrap_or_else(|error| panic!("{error:#}\n{report:#}"));
    report
}

#[test]
fn a_report_of_version_1_keeps_its_schema() {
    let report = Path::new(REPOSITORY).join("fixtures/runs/v1/run.json");
    is_by(&fs::read_to_string(report).unwrap(), "v1");
}

/// The test writes the file, so a change of a type needs two runs of the test and a review of the
/// difference.
#[test]
fn the_schema_of_the_json_is_generated_from_its_types() {
    let path = Path::new(REPOSITORY).join("fixtures/schema/run.v2.json");
    let schema = format!("{:#}\n", llm_stream_bench::report::json::schema());
    if fs::read_to_string(&path).unwrap() != schema {
        fs::write(&path, schema).unwrap();
        panic!("{} was not up to date and is rewritten", path.display());
    }
}

#[test]
fn json_is_valid_and_has_the_results() {
    let bench = Bench::new(TROUBLE);
    let report = |ran: Ran| {
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        is_by_the_schema(&fs::read_to_string(bench.folder.path().join("run.json")).unwrap())
    };
    let mut command = bench.smoke(&["--bench", "--json=run.json", "--output=results.csv"]);
    let calibrated = report(ran(&mut command));
    assert_eq!(calibrated["instruments"][0]["streams"], 1);
    // On a busy machine the load is invalid, if anyone asks how exact it is.
    let report = report(run(&bench, &["--json=run.json".into()]));
    assert_eq!(report["result"]["ended"], "failed");
    let groups = report["groups"].as_array().unwrap();
    let names: Vec<_> = groups.iter().map(|group| group["name"].as_str().unwrap()).collect();
    let breaks = ["breaks-simulated", "breaks-simulated, pair"];
    assert_eq!(names, [["slow-simulated", "slow-simulated, pair"], breaks].concat());
    assert_eq!(groups[2]["requests"]["failures"]["http_status"], 1);
    assert_eq!(groups[1]["loads"][0]["requests"], 4);
    let ttft = &groups[1]["metrics"]["ttft"];
    assert_eq!(
        (&ttft["n"], &ttft["p99"], &ttft["needs"]["p99"]),
        (&4.into(), &Value::Null, &473.into())
    );
    assert!(ttft["intervals"]["mean"]["low"].as_f64() <= ttft["mean"].as_f64());
    assert_eq!(report["thresholds"][0]["verdict"], "fail");
    assert_eq!(report["trials"].as_array().unwrap().len(), 6);
}

#[test]
fn json_of_a_run_with_a_baseline_is_valid() {
    let config =
        TWO_MODELS.replace("runs: 2", "runs: 5\nthresholds: [\"ttft <= +900 % of baseline\"]");
    let bench = Bench::new(&config);
    run(
        &bench,
        &["--save-baseline=b.json".into(), "--baseline-lenient=b.json".into(), "Qwen".into()],
    );
    let ran = run(&bench, &["--baseline=b.json".into(), "--json=run.json".into(), "Qwen".into()]);
    let text = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let report = is_by_the_schema(&text);
    let threshold = &report["thresholds"][0];
    assert_eq!((&threshold["relative"], &threshold["limit"]), (&true.into(), &9.0.into()));
    assert!(threshold["change"]["before"].as_f64().unwrap() > 0.0, "{}", ran.stderr);
}

#[test]
fn unknown_export_formats_are_refused() {
    let bench = Bench::new(TWO_MODELS);
    for (export, why) in [
        (
            "bencher",
            "`bencher` is not FORMAT=FILE; formats: bencher, github-action-benchmark-bigger,",
        ),
        ("bencher=", "`bencher=` is not FORMAT=FILE;"),
        (
            "criterion=x.json",
            "unknown format `criterion`: expected one of bencher, github-action-benchmark-bigger,",
        ),
    ] {
        let ran = run(&bench, &[format!("--export={export}")]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    let exports = ["bencher=a.json", "github-action-benchmark-smaller=a.json"];
    let ran = run(&bench, &exports.map(|export| format!("--export={export}")));
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let why = "`--export github-action-benchmark-smaller` and `--export bencher` both go to a.json";
    assert!(ran.stderr.contains(why), "{}", ran.stderr);
}

#[test]
fn a_github_job_gets_annotations_and_a_summary_without_an_option() {
    let bench = Bench::new(TROUBLE);
    let summary = bench.folder.path().join("summary.md");
    fs::write(&summary, "of the step before\n").unwrap();
    let github = |actions: &str, summary: &Path| {
        let mut command = bench.command(&["--no-warmup"]);
        ran(command.env("GITHUB_ACTIONS", actions).env("GITHUB_STEP_SUMMARY", summary))
    };
    let on = github("true", &summary);
    let commands: Vec<_> = on.stderr.lines().filter(|line| line.starts_with("::error")).collect();
    assert_eq!(commands.len(), 2, "{}", on.stderr);
    let missed =
        "::error title=Threshold missed%3A slow-simulated::generation_speed mean >= 1000000";
    assert!(commands[0].starts_with(missed), "{commands:?}");
    let failed = "::error title=Trial failed%3A breaks-simulated%3A%3Ahello%3A%3Arun-2::http_status: HTTP 503";
    assert!(commands[1].starts_with(failed), "{commands:?}");
    assert!(on.stdout.lines().all(|line| !line.starts_with("::")), "{}", on.stdout);
    let text = fs::read_to_string(&summary).unwrap();
    assert!(text.starts_with("of the step before\n### llm-stream-bench: failed\n"), "{text}");
    assert!(text.contains("| `breaks-simulated, pair` | 4 | 0 |"), "{text}");
    let nowhere = github("false", Path::new("no/such/summary.md"));
    assert!(!nowhere.stderr.contains("\n::"), "{}", nowhere.stderr);
    let warning = "WARNING: the step's summary is not written to no/such/summary.md: ";
    assert!(nowhere.stderr.contains(warning), "{}", nowhere.stderr);
}

#[test]
fn an_unwritable_report_is_refused_before_the_first_request() {
    for flag in REPORTS {
        let bench = Bench::new(TWO_MODELS);
        fs::write(bench.folder.path().join("file"), "").unwrap();
        fs::write(bench.folder.path().join("results.csv"), "of yesterday").unwrap();
        let ran = run(&bench, &[format!("{flag}=file/report")]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        let why = format!("error: failed to write `{}` to file/report: ", flag.replace('=', " "));
        assert!(ran.stderr.starts_with(&why), "{}", ran.stderr);
        assert!(!ran.stderr.contains("Testing"), "{}", ran.stderr);
        let kept = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap();
        assert_eq!(kept, "of yesterday");
        let onto_results = run(&bench, &[format!("{flag}=results.csv")]);
        assert_eq!(onto_results.code, Some(2), "{}", onto_results.stderr);
        let why = "` and `--output` both go to results.csv: use a different file for each";
        assert!(onto_results.stderr.contains(why), "{}", onto_results.stderr);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_that_cannot_be_written_at_the_end_fails_the_run() {
    let bench = Bench::new(TWO_MODELS);
    for flag in REPORTS {
        let ran = run(&bench, &[format!("{flag}=/dev/full"), "Qwen".into()]);
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        assert!(ran.stderr.contains("\npassed: 4 trials succeeded"), "{}", ran.stderr);
        let flag = flag.replace('=', " ");
        let why = format!("\nFAILED: `{flag}` cannot be written to /dev/full: No space left");
        assert!(ran.stderr.contains(&why), "{}", ran.stderr);
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_reports_of_the_finished_trials() {
    let long = TWO_MODELS.replace("runs: 2", "runs: 500\nthresholds: [\"ttft <= 1 s\"]");
    let bench = Bench::new(&long);
    let arguments = asking("reports");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    fs::create_dir(bench.folder.path().join("reports")).unwrap();
    let old = bench.folder.path().join("reports/0");
    fs::write(&old, "of yesterday ".repeat(10_000)).unwrap();
    let mut child = bench.start(&arguments);
    let mut stderr = child.stderr.take().unwrap();
    let (mut received, mut piece) = (Vec::new(), [0; 256]);
    while String::from_utf8_lossy(&received).matches("Success: ").count() < 2 {
        let read = stderr.read(&mut piece).unwrap();
        assert!(read > 0, "ended early");
        received.extend_from_slice(&piece[..read]);
    }
    let begun = junit(&old);
    let only = cases(&begun).last().unwrap();
    let why = "interrupted: the run has not ended; it is in progress, or was killed";
    assert_eq!((begun.tests, said(only)), (1, why), "no report of another run stays");
    child.signal("INT");
    stderr.read_to_end(&mut received).unwrap();
    assert_eq!(child.end().code(), Some(130));
    let report = junit(&old);
    assert!(report.tests >= 3 && report.tests < 100, "{}", report.tests);
    let last = cases(&report).last().unwrap();
    assert!(said(last).starts_with("interrupted: "), "{}", said(last));
    assert!(matches!(last.status, TestCaseStatus::NonSuccess { kind: NonSuccessKind::Error, .. }));
    assert_eq!(cases(&report).filter(|case| case.name.contains("ttft")).count(), 0, "not judged");
}

#[test]
fn the_action_and_its_example_use_existing_inputs_and_options() {
    let action = include_str!("../../../action.yml");
    let example = include_str!("../../../fixtures/github/llm-bench.yml");
    let help = ran(&mut Bench::new(TWO_MODELS).smoke(&["--help"])).stdout;
    let words =
        |text: &'static str| text.split(|c: char| !(c.is_alphanumeric() || "_-".contains(c)));
    let variables: Vec<_> =
        words(action).filter(|word| word.starts_with("LLM_STREAM_BENCH_")).collect();
    assert_eq!(variables.len(), 5, "{variables:?}");
    for variable in variables {
        assert!(help.contains(&format!("[env: {variable}=")), "{variable}");
    }
    for flag in words(example).filter(|word| word.starts_with("--")) {
        let is_known = [" <", "\n"].map(|end| help.contains(&format!("{flag}{end}")));
        assert!(is_known.contains(&true), "{flag}");
    }
    let (_, step) = example.split_once("uses: OWNER/llm-stream-bench").unwrap();
    let (_, with) = step.split_once("with:\n").unwrap();
    let (with, _) = with.split_once("env:").unwrap();
    let inputs = with.lines().filter_map(|line| line.strip_prefix("          ")?.split_once(": "));
    let inputs: Vec<_> =
        inputs.map(|(input, _)| input).filter(|input| !input.starts_with(' ')).collect();
    assert_eq!(inputs, ["config", "arguments", "export"]);
    for input in inputs {
        assert!(action.contains(&format!("\n  {input}:\n")), "{input}");
    }
}

#[test]
fn json_has_paired_differences_and_drift() {
    let bench = Bench::new(
        "runs: 10
order: interleaved
prompts: [{ name: hello, text: \"Say hello.\" }]
models:
  fast: { simulate: { ttft: 5ms, itl: 20ms, tokens: 4 } }
  slow: { simulate: { ttft: 5ms, itl: 60ms, tokens: 4 } }
",
    );
    let ran = run(&bench, &["--json=run.json".into()]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let text = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let report = is_by_the_schema(&text);
    let [fast, slow] = [&report["groups"][0], &report["groups"][1]];
    assert_eq!(fast["paired"], Value::Null);
    assert_eq!(slow["paired"]["with"], "fast-simulated");
    // Turns in which both have a speed: all of them, unless tokens came together on a busy machine.
    let [models, runs, speeds] =
        ["model_name", "run", "generation_speed"].map(|name| bench.column(name));
    let has_speed = |run: u32, name: &str| {
        let row = (0..speeds.len())
            .find(|&row| models[row].starts_with(name) && runs[row] == run.to_string());
        !speeds[row.expect("a row")].is_empty()
    };
    let both = |run: &u32| ["fast", "slow"].iter().all(|m| has_speed(*run, m));
    let turns = (1..=10).filter(both).count();
    assert!(turns >= 6, "{speeds:?}");
    assert_eq!(slow["paired"]["n"], turns);
    // A third as fast, so that no delay of a busy machine hides it; it can widen the interval.
    let difference = slow["paired"]["generation_speed"].as_f64().unwrap();
    assert!(difference < 0.0, "{slow:#}");
    let end = |name: &str| slow["paired"]["interval"][name].as_f64().unwrap();
    assert!(end("low") < difference && difference < end("high"), "{slow:#}");
    assert!(slow["drift"]["ttft"]["p"].as_f64().is_some(), "{slow:#}");
}
