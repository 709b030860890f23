//! The reports of a run whose every time is known.

use std::{path::Path, sync::Arc, time::Duration};

use clap::Parser;
use llm_stream_bench::{
    cli::Cli,
    config::{Config, Inconclusive, TokenCount},
    plan::{Case, Plan},
    report::{
        Exporter, GroupVerdicts, Run, RunOutcome, RunStatus, TrialResult, Unreadable,
        annotations::Annotations, bencher::Bencher, csv::CsvTable,
        github_action_benchmark::GithubActionBenchmark, json::JsonReport, junit::Junit,
        overview::Overview, ranking::Ranking, step_summary::StepSummary, summary::SummaryTables,
        thresholds::Thresholds,
    },
    row::Row,
};
use llm_stream_core::{
    interval::CONFIDENCE,
    load_stats::{LoadStats, RequestSpan},
    metric::Better,
    prompt,
    protocol::OpenAiChat,
    recording::{ErrorKind, RequestError},
    sample,
    summary::{Group, Summary, Tally},
    verdict::{InstrumentError, Judge},
};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::streams::{STOP, TOKEN, USAGE, stream};

const CONFIG: &str = "
runs: 3
order: as-listed
prompts:
  - { name: hello, text: \"Say hello.\" }
  - { name: \"=1+1\", text: \"Add.\" }
thresholds: [\"success_rate >= 100 %\", \"ttft median <= 60 ms\", \"ttft p95 <= 1 s\"]
models:
  fast: { base_url: \"http://10.0.0.1:8000\", thresholds: [\"generation_speed >= 100.5\", \"ttft median <= 53.02 ms\"] }
  '@formula': { simulate: {} }
  通义千问-一个名字很长很长很长很长很长很长很长很长很长很长的模型: { base_url: \"https://api.example.com\" }
  broken: { base_url: \"http://10.0.0.3:8000\" }
  never-run: { base_url: \"http://10.0.0.4:8000\" }
";

const INSTRUMENT: Option<InstrumentError> =
    Some(InstrumentError { arrival: 50e-6, gap: 20e-6, generation: 0.0002 });

/// Each model with answers of its own pace; the one called `broken` with none, and the last not
/// begun.
fn rows() -> (Vec<Arc<Case>>, Vec<Row>) {
    let config = Config::parse(CONFIG, "configs.yaml", Path::new("."))
        .unwrap_or_else(|errors| panic!("{errors}"));
    let cases = Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).expect("a plan").cases;
    let rows = cases.iter().enumerate().filter_map(|(nth, case)| row(nth, case)).collect();
    (cases, rows)
}

fn run() -> Run {
    let (cases, rows) = rows();
    let mut summary = Summary::new(cases.iter().map(|case| &case.group));
    rows.iter().for_each(|row| summary.add(row.case.group.id, &[row.request()]));
    let verdicts = |group: &Group| {
        let judge = Judge {
            instrument: INSTRUMENT,
            reference: None,
            groups: &summary.groups,
            confidence: CONFIDENCE,
        };
        let limits = group.thresholds().iter();
        let verdicts = limits.map(|limit| judge.verdict(limit, group)).collect();
        GroupVerdicts { group: group.spec.id, name: group.name(), verdicts, notes: Vec::new() }
    };
    let verdicts = summary.groups.iter().map(verdicts).collect();
    let ended = |row: &Row| row.started + Duration::from_millis(120);
    Run {
        summary,
        verdicts,
        confidence: CONFIDENCE,
        precision: Vec::new(),
        is_out_of_time: false,
        order: "interleaved(0)".into(),
        took_turns: true,
        trials: rows.iter().map(|row| TrialResult::request(row, ended(row))).collect(),
        instruments: Vec::new(),
        machine: "EPYC <9>, 2 cores, linux 6".into(),
        setup: None,
        unreadable: Unreadable::default(),
        ending: RunOutcome {
            ended: RunStatus::Failed,
            reasons: vec!["FAILED: 7 of 24 trials failed".into()],
            inconclusive: Inconclusive::Warn,
        },
    }
}

fn csv() -> String {
    let mut bytes = Vec::new();
    let mut writer = CsvTable::new(&mut bytes).unwrap();
    rows().1.iter().for_each(|row| writer.write(row).unwrap());
    String::from_utf8(bytes).unwrap()
}

fn row(nth: usize, case: &Arc<Case>) -> Option<Row> {
    let nth = nth as u64;
    let outcome = match case.target.key.as_str() {
        "never-run" => return None,
        "broken" => Err(RequestError::new(ErrorKind::Broken, "=the connection\nbroke, \"so\"")),
        "fast" if nth == 2 => Err(RequestError::new(ErrorKind::NoUsage, "no usage")),
        _ => {
            let (first, gap) = (50 + nth, 10 + 3 * (nth / 6));
            let events = [
                (first, TOKEN),
                (first + gap, TOKEN),
                (first + 2 * gap, TOKEN),
                (first + 3 * gap + nth % 3, TOKEN),
                (first + 3 * gap + 5, STOP),
                (first + 3 * gap + 6, USAGE),
                (first + 3 * gap + 6, "[DONE]"),
            ];
            sample::read(&stream(&events), &OpenAiChat, TokenCount::Usage)
        }
    };
    let started = jiff::Timestamp::from_second(1_795_500_000 + nth as i64).expect("a time");
    let prompt = case.task.prompt().clone();
    Some(Row { case: case.clone(), prompt, started, place: None, outcome })
}

#[test]
fn the_summary_lists_every_figure_of_every_group() {
    insta::assert_snapshot!(SummaryTables.render(&run()));
}

/// Returns the text, each line of which fits `width`.
fn overview(run: &Run, width: usize, is_verbose: bool) -> String {
    let text = Overview { width, is_verbose }.render(run);
    let widest = text.lines().map(UnicodeWidthStr::width).max();
    assert!(widest <= Some(width), "{widest:?}:\n{text}");
    text
}

#[test]
fn several_models_are_one_table_with_remarks() {
    insta::assert_snapshot!(overview(&run(), 80, false));
}

#[test]
fn a_wide_terminal_has_more_columns() {
    insta::assert_snapshot!(overview(&run(), 120, false));
    // Up to it there is only more room for names. Nothing is wider than that, or narrower than 80.
    let narrower = overview(&run(), 119, false);
    assert!(narrower.contains(" tpot\n") && !narrower.contains(" e2e"), "{narrower}");
    assert_eq!(overview(&run(), 400, false), overview(&run(), 120, false));
    assert_eq!(
        Overview { width: 20, is_verbose: false }.render(&run()),
        overview(&run(), 80, false)
    );
}

/// Two models under a load of three requests, of whose second runs one did not reach the load.
fn run_with_loads() -> Run {
    let config = "
runs: 1
prompts: [{ name: hello, text: \"Say hello.\" }]
models:
  fast: { base_url: \"http://10.0.0.1:8000\" }
  slow: { base_url: \"http://10.0.0.2:8000\" }
workloads: { at-once: { concurrency: 3, requests: 3, runs: 2 } }
";
    let config = Config::parse(config, "configs.yaml", Path::new("."))
        .unwrap_or_else(|errors| panic!("{errors}"));
    let cases = Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).expect("a plan").cases;
    let loads = || cases.iter().filter(|case| case.group.workload.is_some());
    let mut summary = Summary::new(loads().map(|case| &case.group));
    for case in loads() {
        let slow = u64::from(case.target.key == "slow");
        if slow > 0 && case.run == 2 {
            let shortfall = "run 2 reached 1.2 of 3 in flight".to_owned();
            summary.add_load(case.group.id, Err(shortfall), true);
            continue;
        }
        let prompt = Arc::new(prompt::warm_up());
        let mut tally = Tally::default();
        let spans = (0..3).map(|nth| {
            let at = 40 + 40 * slow + nth;
            let tokens = [at, at + 20, at + 40, at + 60].map(|at| (at, TOKEN));
            let end = [(at + 61, STOP), (at + 62, USAGE), (at + 63, "[DONE]")];
            let events: Vec<_> = tokens.into_iter().chain(end).collect();
            let sample = sample::read(&stream(&events), &OpenAiChat, TokenCount::Usage);
            tally.add(&prompt, case.run, &sample);
            RequestSpan {
                scheduled: None,
                begun: Duration::ZERO,
                ended: Duration::from_millis(at + 64),
                tokens: Some(4),
                has_items: false,
                refused: None,
                is_good: None,
            }
        });
        let stats = LoadStats::of(&spans.collect(), None).expect("requests");
        summary.add_load(case.group.id, Ok((tally, stats)), false);
    }
    Run { summary, ..run() }
}

#[test]
fn a_workload_has_its_own_table() {
    // 12 tokens in 106 ms, and in 146 ms.
    insta::assert_snapshot!(overview(&run_with_loads(), 80, false));
    let wide = overview(&run_with_loads(), 120, false);
    assert!(wide.contains(" e2e\n"), "{wide}");
}

#[test]
fn every_figure_follows_on_request_and_is_all_there_is_of_one_model() {
    let long = SummaryTables.render(&run());
    let tables = long.strip_prefix("Summary\n").expect("the title");
    let verbose = overview(&run(), 80, true);
    assert!(verbose.ends_with(&format!("\nAll figures\n{tables}")), "{verbose}");
    let mut single = run();
    single.summary.groups.truncate(1);
    for is_verbose in [false, true] {
        assert_eq!(overview(&single, 80, is_verbose), SummaryTables.render(&single));
    }
}

#[test]
fn the_ranking_is_by_speed_with_reasons_for_missing_ones() {
    insta::assert_snapshot!(Ranking.render(&run()));
}

#[test]
fn the_thresholds_have_figure_interval_and_verdict() {
    insta::assert_snapshot!(Thresholds.render(&run()));
}

#[test]
fn junit_xml_has_a_case_for_each_trial_and_threshold() {
    insta::assert_snapshot!(junit(&run()));
}

/// The report without the version, which changes.
fn junit(run: &Run) -> String {
    Junit.render(run).replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn an_interrupted_run_is_an_error_in_junit_xml() {
    let mut run = run();
    let count = |run: &Run, what: &str| junit(run).matches(what).count();
    let failures = count(&run, "<failure ");
    let undecided = count(&run, "<skipped ");
    assert!(undecided > 0);
    run.ending.inconclusive = Inconclusive::Fail;
    assert_eq!(count(&run, "<skipped "), 0);
    assert_eq!(count(&run, "<failure "), failures + undecided);
    assert_eq!(count(&run, "<error "), 0);
    run.ending.ended = RunStatus::Interrupted;
    assert_eq!(count(&run, "<error "), 1);
}

#[test]
fn the_json_has_the_whole_run() {
    let mut run = run();
    run.verdicts[0].verdicts[0].error = Some(f64::INFINITY);
    let mut json = crate::ci::is_by_the_schema(&JsonReport.render(&run));
    // One of each is enough to see it.
    for list in ["groups", "thresholds"] {
        json[list].as_array_mut().unwrap().truncate(1);
    }
    json["trials"].as_array_mut().unwrap().truncate(3);
    for figures in ["/metrics", "/groups/0/metrics", "/trials/0/figures", "/trials/1/figures"] {
        let figures = json.pointer_mut(figures).unwrap().as_object_mut().unwrap();
        figures.retain(|name, _| name == "ttft");
    }
    json["tool"]["version"] = "VERSION".into();
    round(&mut json);
    insta::assert_snapshot!(format!("{json:#}"));
}

/// Rounds to the nanosecond, beyond which platforms differ.
fn round(json: &mut Value) {
    match json {
        Value::Number(number) if number.is_f64() => {
            *json = ((number.as_f64().unwrap() * 1e9).round() / 1e9).into();
        }
        Value::Array(values) => values.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        _ => {}
    }
}

#[test]
fn annotations_name_missed_and_undecided_thresholds() {
    let mut run = run();
    // A name and a message that would end a command, were they not escaped.
    run.verdicts[0].name = "100 %: a, b\r\nc".into();
    let mut all = String::new();
    for inconclusive in [Inconclusive::Warn, Inconclusive::Fail, Inconclusive::Pass] {
        run.ending.inconclusive = inconclusive;
        all.push_str(&format!("{inconclusive:?}\n{}", Annotations.render(&run)));
    }
    run.verdicts.clear();
    all.push_str(&format!("of trials alone\n{}", Annotations.render(&run)));
    insta::assert_snapshot!(all);
}

#[test]
fn the_step_summary_has_figures_verdicts_and_failures() {
    insta::assert_snapshot!(StepSummary.render(&run()));
}

#[test]
fn exports_have_the_means_in_each_format() {
    let mut run = run();
    run.summary.groups.truncate(1);
    let tools: [(&str, &dyn Exporter); 3] = [
        ("bencher", &Bencher),
        ("github-action-benchmark-bigger", &GithubActionBenchmark(Better::Higher)),
        ("github-action-benchmark-smaller", &GithubActionBenchmark(Better::Lower)),
    ];
    let texts = tools.map(|(name, tool)| format!("{name}\n{}", tool.render(&run)));
    insta::assert_snapshot!(texts.concat());
}

#[test]
fn a_run_without_valid_answers_exports_only_its_failures() {
    let mut run = run();
    run.summary.groups.retain(|group| group.spec.model.starts_with("broken"));
    assert_eq!(GithubActionBenchmark(Better::Lower).render(&run), "[]\n");
    let bmf: Value = serde_json::from_str(&Bencher.render(&run)).unwrap();
    // None of six: by the exact interval up to 46 % may succeed.
    let rate = &bmf["broken"]["success_rate (%)"];
    assert_eq!((&rate["value"], &rate["lower_value"]), (&0.0.into(), &0.0.into()), "{bmf}");
    assert!((rate["upper_value"].as_f64().unwrap() - 45.925_813).abs() < 1e-6, "{bmf}");
    assert_eq!(bmf["broken"].as_object().map(serde_json::Map::len), Some(1));
}

#[test]
fn the_csv_has_a_row_for_each_request() {
    insta::assert_snapshot!(csv());
}

#[test]
fn tables_fit_80_columns() {
    let run = run();
    for report in [SummaryTables.render(&run), Thresholds.render(&run)] {
        for line in report.lines().filter(|line| line.starts_with("  ")) {
            assert!(line.width() <= 80, "{} columns: {line}", line.width());
        }
    }
}

#[test]
fn no_cell_begins_like_a_formula() {
    let text = csv();
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 1 + 24);
    for cell in records.iter().flat_map(::csv::StringRecord::iter) {
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell:?}");
    }
}
