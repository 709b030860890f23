//! The bench target as its user and their CI see it: names, lines, files, exit codes.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::Command,
    time::Duration,
};

use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{Script, Simulator};

use crate::{
    bench::{Bench, Ran, Served, TWO_MODELS, executable, ran, records},
    servers::repeats,
    wait::{self, Process},
};

fn names(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().filter_map(|line| line.strip_suffix(": benchmark")).collect()
}

/// The trials that libtest's lines say were measured.
fn measured(ran: &Ran) -> Vec<&str> {
    ran.stdout
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... bench: "))
        .map(|(name, _)| name)
        .collect()
}

// -- whole outputs --------------------------------------------------------------------------------

#[test]
fn a_run_prints_its_progress_and_results() {
    let bench = Bench::by_default(TWO_MODELS);
    let ran = bench.run(&[]);
    insta::assert_snapshot!(ran.redacted(bench.folder.path()));
}

#[test]
fn a_run_with_every_kind_of_failure_prints_the_reasons() {
    let bench = Bench::new(
        "runs: 2
prompts: [{ name: hello, text: \"Say hello.\" }]
thresholds: [\"success_rate >= 100 %\", \"ttft p95 <= 1 s\"]
models:
  good: { simulate: { ttft: 5ms, itl: 15ms, tokens: 4 }, thresholds: [\"generation_speed max >= 1\"] }
  breaks: { simulate: { ttft: 5ms, itl: 30ms, tokens: 4, faults: [{ reset: 2, request: 2 }] } }
  refuses: { simulate: { faults: [{ status: 503 }] }, thresholds: [\"ttft <= 1s\"] }
  too slow: { simulate: { ttft: 5ms, itl: 60ms, tokens: 4 }, thresholds: [\"generation_speed >= 1000000\"] }
",
    );
    let ran = bench.run(&[]);
    insta::assert_snapshot!(ran.redacted(bench.folder.path()));
}

#[test]
fn a_server_with_wrong_times_gets_one_line_in_the_summary() {
    let bench = Bench::new(
        "runs: 2\nprompts: [{ name: hello, text: \"Say hello.\" }]\n\
         thresholds: [\"generation_beyond_server max <= 1000 %\"]\nmodels:\n  \
         says: { simulate: { ttft: 6ms, itl: 20ms, tokens: 12, timings: true } }\n  \
         boasts: { simulate: { ttft: 6ms, itl: 20ms, tokens: 12, faults: [{ wrong_timings: 10 }] } }\n  \
         silent: { simulate: { ttft: 6ms, itl: 20ms, tokens: 12 } }\n",
    );
    let ran = bench.run(&[]);
    let count = |start: &str| ran.stderr.lines().filter(|line| line.starts_with(start)).count();
    // 12 tokens in 22 ms, which arrived in 220.
    let disagrees = "  boasts-simulated: server disagrees in 2 of 2 requests, by more than the network explains: \
                     generation_speed 545.5 tok/s, ours ";
    assert_eq!(count(disagrees), 1, "{}", ran.stderr);
    let times = bench.column("server_generation_time");
    assert_eq!(times, ["0.220000000", "0.220000000", "0.022000000", "0.022000000", "", ""]);
    let notes = bench.column("notes");
    let disagrees: Vec<_> = notes.iter().map(|row| row.contains("server_disagrees")).collect();
    assert_eq!(disagrees[2..], [true, true, false, false], "{notes:?}");
    // A limit to what no server said is missed, not passed.
    assert_eq!(ran.code, Some(101));
    assert!(ran.stderr.contains("1 of 3 thresholds missed: silent-simulated: "), "{}", ran.stderr);
}

#[test]
fn the_line_of_a_trial_has_its_notes() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  \
         m: { simulate: { ttft: 5ms, itl: 1ms, tokens: 4, faults: [{ merge: 4 }, missing_end] } }\n",
    );
    let ran = bench.run(&["--no-warmup"]);
    let line = ran.stderr.lines().find(|line| line.contains("Success: ")).unwrap_or_default();
    assert!(line.contains(" n/a generation tokens/sec, "), "{}", ran.stderr);
    let line = line.replace(", simulator_late)", ")");
    assert!(line.ends_with(" preprocess tokens/sec (no_end_marker, burst)"), "{line}");
}

#[test]
fn help_lists_options_and_metrics() {
    let bench = Bench::new(TWO_MODELS);
    let ran = bench.run(&["--help"]);
    assert_eq!(ran.code, Some(0));
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn short_help_has_a_line_for_most_options_and_no_variables() {
    let bench = Bench::new(TWO_MODELS);
    let ran = bench.run(&["-h"]);
    assert_eq!(ran.code, Some(0));
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn flags_of_libtest_without_effect_are_accepted_and_not_in_the_help() {
    let bench = Bench::new(TWO_MODELS);
    let [short, long] = [["-h"], ["--help"]].map(|arguments| bench.run(&arguments).stdout);
    let listed = bench.run(&["--list"]).stdout;
    for flag in ["--nocapture", "--show-output", "--include-ignored", "-Zunstable-options"] {
        let name = &flag[..flag.len().min(12)];
        assert!(!short.contains(name) && !long.contains(name), "{flag}");
        assert_eq!(bench.run(&["--list", flag]).stdout, listed, "{flag}");
    }
}

// -- names and filters ----------------------------------------------------------------------------

#[test]
fn the_list_has_a_trial_for_each_model_prompt_and_run_in_the_configs_order() {
    let bench = Bench::new(TWO_MODELS);
    let ran = bench.run(&["--list"]);
    insta::assert_snapshot!(ran.redacted(bench.folder.path()));
    assert!(!bench.folder.path().join("results.csv").exists());
}

#[test]
fn filters_select_as_libtest_does_and_any_of_several_may_match() {
    let bench = Bench::new(TWO_MODELS);
    let selected = |arguments: &[&str]| {
        let ran = bench.run(&[&["--list"], arguments].concat());
        (ran.code, names(&ran).join(" "))
    };
    let qwen = "Qwen-30B-simulated::hello::run-1 Qwen-30B-simulated::hello::run-2 \
                Qwen-30B-simulated::bye::run-1 Qwen-30B-simulated::bye::run-2";
    let one = "Llama-70B-simulated::bye::run-2";
    let cases: &[(&[&str], &str)] = &[
        (&["Qwen"], qwen),
        (&["Qwen", one], &format!("{qwen} {one}")),
        (&["--exact", one], one),
        (&["--skip", "Llama"], qwen),
        (&["Qwen", "--skip", "hello", "--skip", "run-1"], "Qwen-30B-simulated::bye::run-2"),
        (&["--models", "Qwen-30B"], qwen),
        (
            &["--models", "Qwen-30B-simulated", "run-1", "--skip", "bye"],
            "Qwen-30B-simulated::hello::run-1",
        ),
        (&["--runs", "1", "Llama", "--skip", "hello"], "Llama-70B-simulated::bye::run-1"),
        (&["--ignored"], ""),
    ];
    for (arguments, expected) in cases {
        assert_eq!(selected(arguments), (Some(0), (*expected).to_owned()), "{arguments:?}");
    }
}

#[test]
fn a_filter_that_selects_nothing_is_an_error() {
    let bench = Bench::new(TWO_MODELS);
    let mut text = String::new();
    for arguments in [
        &["Mistral"][..],
        &["Mistral", "Gemma", "--skip", "x"],
        &["--exact", "Qwen"],
        &["--skip", "run"],
        &["Qwne-30B", "--skip", "Lama-70B"],
        &["Qwen", "hello", "--skip", "bey"],
        &["Qwen", "Gemma"],
        &["--models", "Qwen-30B", "Llama"],
        &["Mistral", "--list"],
    ] {
        let ran = bench.run(arguments);
        text.push_str(&format!("{arguments:?}\n{}", ran.redacted(bench.folder.path())));
    }
    insta::assert_snapshot!(text);
    assert!(!bench.folder.path().join("results.csv").exists());
}

#[test]
fn unusable_arguments_and_configs_exit_with_2_before_the_first_request() {
    let bench = Bench::new(TWO_MODELS);
    fs::write(bench.folder.path().join("file"), "").unwrap();
    fs::write(
        bench.folder.path().join("key.yaml"),
        "models:\n  m:\n    base_url: \"http://127.0.0.1:9\"\n    api_key_env: LLM_TEST_NO_SUCH_KEY\n",
    )
    .unwrap();
    fs::write(
        bench.folder.path().join("limits.yaml"),
        "thresholds: [\"speed >= 80\"]\nmodels:\n  m:\n    simulate: {}\n    thresholds:\n      \
         - \"ttft <= 500\"\n      - 'ttft p95 =< 500ms'\n",
    )
    .unwrap();
    fs::write(
        bench.folder.path().join("same.yaml"),
        "models:\n  m: { simulate: {} }\n  m-simulated: { base_url: \"http://h\" }\n",
    )
    .unwrap();
    let mut text = String::new();
    for arguments in [
        &["--models", "Qwen-30B,Qwne"][..],
        &["--models", ""],
        &["--models", " , "],
        &["--runs", "0"],
        &["--runs", "many"],
        &["--no-such-flag"],
        &["--test-threads", "4"],
        &["--config", "missing.yaml"],
        &["--config", "key.yaml"],
        &["--config", "limits.yaml"],
        &["--config", "same.yaml"],
    ] {
        let ran = bench.run(arguments);
        text.push_str(&format!("{arguments:?}\n{}\n", ran.redacted(bench.folder.path())));
    }
    let mut unwritable =
        bench.smoke(&["--bench", "--no-calibration", "--output", "file/results.csv"]);
    text.push_str(&ran(&mut unwritable).redacted(bench.folder.path()));
    insta::assert_snapshot!(text);
    assert!(!bench.folder.path().join("results.csv").exists());
}

#[test]
fn each_option_has_an_environment_variable() {
    let bench = Bench::new(TWO_MODELS);
    fs::rename(bench.folder.path().join("configs.yaml"), bench.folder.path().join("my.yaml"))
        .unwrap();
    let mut command = bench.smoke(&["--bench", "hello"]);
    command
        .env("LLM_STREAM_BENCH_CONFIG", "my.yaml")
        .env("LLM_STREAM_BENCH_MODELS", "Llama-70B")
        .env("LLM_STREAM_BENCH_RUNS", "3")
        .env("LLM_STREAM_BENCH_OUTPUT", "a/b/out.csv")
        .env("LLM_STREAM_BENCH_NO_WARMUP", "1")
        .env("LLM_STREAM_BENCH_NO_CALIBRATION", "true")
        .env("LLM_STREAM_BENCH_RECORD", "recordings")
        .env("LLM_STREAM_BENCH_JUNIT", "reports/junit.xml")
        .env("LLM_STREAM_BENCH_JSON", "reports/run.json")
        .env(
            "LLM_STREAM_BENCH_EXPORT",
            "bencher=reports/bmf.json,github-action-benchmark-bigger=reports/bigger.json",
        );
    let ran = ran(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(measured(&ran).len(), 3);
    assert!(!ran.stderr.contains("Warmup") && !ran.stderr.contains("instrument"));
    assert_eq!(records(&bench.folder.path().join("a/b/out.csv")).len(), 3);
    assert_eq!(fs::read_dir(bench.folder.path().join("recordings")).unwrap().count(), 3);
    assert_eq!(fs::read_dir(bench.folder.path().join("reports")).unwrap().count(), 4);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let bench = Bench::new(TWO_MODELS);
    let twins = [
        "MODELS",
        "RUNS",
        "OUTPUT",
        "CONFIG",
        "NO_WARMUP",
        "NO_CALIBRATION",
        "RECORD",
        "JUNIT",
        "JSON",
        "EXPORT",
    ];
    let empty = |command: &mut Command| {
        ran(command.envs(twins.map(|twin| (format!("LLM_STREAM_BENCH_{twin}"), ""))))
    };
    let of_target = empty(&mut bench.command(&[]));
    assert_eq!(of_target.code, Some(0), "{}", of_target.stderr);
    assert_eq!(measured(&of_target).len(), 8);
    assert!(of_target.stderr.contains("Warmup"), "{}", of_target.stderr);
    let mut binary = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
    let of_binary = empty(binary.args(["run", "--list"]).current_dir(bench.folder.path()));
    assert_eq!(names(&of_binary).len(), 8, "{}", of_binary.stderr);
}

#[test]
fn a_simulated_model_needs_no_key_and_an_unusable_logfile_empties_no_results() {
    let key =
        TWO_MODELS.replace("models:", "defaults: { api_key_env: LLM_TEST_NO_SUCH_KEY }\nmodels:");
    let bench = Bench::new(&key);
    fs::write(bench.folder.path().join("results.csv"), "of yesterday").unwrap();
    let ran = bench.run(&["--logfile", "no/such/folder/log.txt"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("failed to create the log file"), "{}", ran.stderr);
    let kept = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap();
    assert_eq!(kept, "of yesterday");
    assert_eq!(bench.run(&["Qwen"]).code, Some(0));
}

#[test]
fn a_run_without_trials_is_an_error() {
    let bench = Bench::new(TWO_MODELS);
    assert_eq!(bench.run(&["--ignored"]).code, Some(2));
    assert_eq!(bench.run(&["--ignored", "--list"]).code, Some(0));
}

#[test]
fn output_to_a_pipe_has_no_colours() {
    let bench = Bench::new(TWO_MODELS);
    let ran = ran(bench.command(&["Qwen"]).env("CLICOLOR_FORCE", "1"));
    assert_eq!(
        ran.stdout.lines().filter(|line| is_libtest_line(line)).count(),
        4,
        "{}",
        ran.stdout
    );
}

#[test]
fn trials_with_similar_names_have_separate_recordings() {
    let long = "x".repeat(300);
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: p, text: hi }}]\ndefaults: {{ max_tokens: 2 }}\nmodels:\n  \
         a/b: {{ simulate: {{ ttft: 2ms }} }}\n  a_b: {{ simulate: {{ ttft: 2ms }} }}\n  \
         {long}: {{ simulate: {{ ttft: 2ms }} }}\n"
    ));
    let ran = bench.run(&["--record", "kept"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fs::read_dir(bench.folder.path().join("kept")).unwrap().count(), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn a_trial_whose_row_cannot_be_written_fails_in_every_report() {
    // A file system that is full after the head: the limit on the size of files.
    let bench = Bench::new(TWO_MODELS);
    let command = bench.command(&["Qwen"]);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let script = format!("trap '' XFSZ; ulimit -f 1; exec {}", words.join(" "));
    let mut shell = Command::new("bash");
    let ran = ran(shell.args(["-c", &script]).current_dir(bench.folder.path()));
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("not_written: failed to write the row: File too large"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("4 successful, 0 failed"), "{}", ran.stderr);
}

// -- lines ----------------------------------------------------------------------------------------

/// `^test \S+ \.\.\. bench: +[0-9,]+ ns/iter \(\+/- [0-9,]+\)$`
fn is_libtest_line(line: &str) -> bool {
    let number =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == ',');
    let parts = || {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ... bench: ")?;
        let (time, spread) = rest.trim_start().split_once(" ns/iter (+/- ")?;
        Some((name, time, spread.strip_suffix(')')?))
    };
    parts().is_some_and(|(name, time, spread)| {
        !name.contains(char::is_whitespace) && number(time) && number(spread)
    })
}

#[test]
fn stdout_has_only_libtest_lines() {
    let bench = Bench::new(TWO_MODELS);
    let ran = bench.run(&["Qwen"]);
    let lines: Vec<_> = ran.stdout.lines().filter(|line| is_libtest_line(line)).collect();
    assert_eq!(lines.len(), 4, "{}", ran.stdout);
    let others: Vec<_> =
        ran.stdout.lines().filter(|line| !line.is_empty() && !is_libtest_line(line)).collect();
    assert_eq!(others[0], "running 4 tests");
    assert!(others[1].starts_with(
        "test result: ok. 0 passed; 0 failed; 0 ignored; 4 measured; 4 filtered out; "
    ));
    assert_eq!(others.len(), 2, "{others:?}");
}

#[test]
fn a_trial_without_a_time_per_token_is_ok() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  \
         m: { max_tokens: 1, simulate: { ttft: 5ms } }\n",
    );
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("test m-simulated::hello::run-1 ... ok\n"), "{}", ran.stdout);
    let json = bench.run(&["--format", "json", "-Z", "unstable-options"]);
    for line in json.stdout.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{line}"));
    }
    assert!(
        json.stdout.contains(r#""name": "m-simulated::hello::run-1", "event": "ok""#),
        "{}",
        json.stdout
    );
}

#[test]
fn a_logfile_replaces_stdout() {
    let bench = Bench::new(TWO_MODELS);
    let ran = bench.run(&["Qwen", "--logfile", "log.txt"]);
    assert_eq!(ran.stdout, "");
    let log = fs::read_to_string(bench.folder.path().join("log.txt")).unwrap();
    assert_eq!(log.lines().filter(|line| is_libtest_line(line)).count(), 4, "{log}");
}

// -- order ----------------------------------------------------------------------------------------

#[test]
fn order_interleaves_or_shuffles_the_models() {
    let bench = Bench::new(TWO_MODELS);
    let ordered = |order: &str| {
        fs::write(bench.folder.path().join("o.yaml"), format!("{TWO_MODELS}order: {order}\n"))
            .unwrap();
        let ran = bench.run(&["--config", "o.yaml"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        measured(&ran).join(" ")
    };
    let shuffled = ordered("shuffled(3)");
    assert_eq!(shuffled, ordered("shuffled(3)"));
    assert_ne!(shuffled, ordered("shuffled(4)"));
    assert_eq!(shuffled.split(' ').count(), 8);
    ordered("interleaved");
    let ran = bench.run(&["--config", "o.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    // Each is warmed up once, on the connection that it keeps while the other is measured.
    assert_eq!(ran.stderr.matches("Warmup...").count(), 2);
    assert!(ran.stderr.contains("paired with Qwen-30B-simulated, run by run:"), "{}", ran.stderr);
    let paired = ran.stderr.lines().find(|line| line.ends_with("% (n = 4)")).unwrap_or_default();
    assert!(paired.starts_with("    Llama-70B-simulated: -"), "{}", ran.stderr);
}

// -- files ----------------------------------------------------------------------------------------

#[test]
fn the_leading_columns_are_fixed_and_rows_are_marked_as_simulated() {
    let bench = Bench::new(TWO_MODELS);
    bench.run(&["Qwen"]);
    let file = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap();
    let seed = "model_name,prompt_tokens,response_tokens,total_tokens,total_time,preprocess_time,\
                generation_time,total_tokens_per_second,preprocess_speed,generation_speed,\
                timestamp,success,error_message,streaming_used,";
    assert!(file.starts_with(seed), "{}", file.lines().next().unwrap());
    insta::assert_snapshot!("columns", file.lines().next().unwrap().replace(',', "\n"));
    let rows = bench.results();
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(&row[0], "Qwen-30B-simulated");
        assert_eq!((&row[2], &row[11], &row[12], &row[13]), ("6", "true", "", "true"));
        assert!(row.iter().any(|cell| cell == "simulated"));
        let number = |index: usize| row[index].parse::<f64>().unwrap();
        let (response, generation, speed) = (number(2), number(6), number(9));
        assert!((response / generation - speed).abs() < 0.001);
        assert!(number(5) >= 0.006, "no token comes before it is written");
    }
}

#[test]
fn the_instruments_error_is_measured_before_the_verdict_and_saved() {
    let bench = Bench::new(TWO_MODELS);
    let mut command = bench.smoke(&["--bench", "--output", "my/results.csv", "Qwen"]);
    let ran = ran(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let said = ran.stderr.find("instrument (").unwrap();
    assert!(said < ran.stderr.find("Thresholds").unwrap(), "{}", ran.stderr);
    let kept = fs::read_to_string(bench.folder.path().join("my/results.instrument.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert!(kept[0]["ttft"]["p99"].as_f64().unwrap() > 0.0, "{kept}");
}

#[test]
fn results_go_to_the_target_folder_and_their_path_is_printed_last() {
    let bench = Bench::new(TWO_MODELS);
    let ran = ran(&mut bench.smoke(&["--bench", "--no-calibration", "Qwen", "--skip", "bye"]));
    let [.., results, report] = &ran.stderr.lines().collect::<Vec<_>>()[..] else { panic!() };
    assert!(report.starts_with("Report: ") && report.ends_with("report.html"), "{report}");
    let path = results.strip_prefix("Results: ").unwrap();
    let path = Path::new(path);
    assert!(path.ends_with("results.csv") && path.is_absolute(), "{path:?}");
    let run = path.parent().unwrap();
    assert!(run.parent().unwrap().ends_with("llm-stream-bench"));
    assert!(executable().starts_with(run.parent().unwrap().parent().unwrap()));
    assert_eq!(records(path).len(), 2);
    fs::remove_dir_all(run).unwrap();
}

#[test]
fn recordings_give_the_same_sample_again() {
    use llm_stream_bench::config::TokenCount;
    use llm_stream_core::{protocol::OpenAiChat, recording::Recording, sample};
    let bench = Bench::new(TWO_MODELS);
    bench.run(&["Qwen", "--skip", "run-2", "--skip", "bye", "--record", "kept"]);
    let file =
        fs::read_to_string(bench.folder.path().join("kept/Qwen-30B-simulated__hello__run-1.jsonl"))
            .unwrap();
    let recording = Recording::from_jsonl(&file).unwrap();
    let sample = sample::read(&recording, &OpenAiChat, TokenCount::Usage).unwrap();
    let row = &bench.results()[0];
    assert_eq!(format!("{:.9}", sample.first_token().as_secs_f64()), row[5]);
    assert_eq!(format!("{:.9}", sample.generation_time().unwrap().as_secs_f64()), row[6]);
}

// -- exit codes -----------------------------------------------------------------------------------

fn code_with(threshold: &str, simulate: &str) -> (Option<i32>, String) {
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nthresholds: [\"{threshold}\"]\n\
         models:\n  m: {{ simulate: {{ ttft: 5ms, itl: 30ms, tokens: 4, {simulate} }} }}\n"
    ));
    let ran = bench.run(&["--no-warmup"]);
    let why = ran.stderr.lines().find(|line| line.starts_with("FAILED: ")).unwrap_or_default();
    (ran.code, why.to_owned())
}

#[test]
fn a_missed_or_missing_figure_fails_the_run() {
    assert_eq!(code_with("generation_speed >= 1", ""), (Some(0), String::new()));
    let (code, why) = code_with("generation_speed >= 1000000", "");
    assert_eq!(code, Some(101));
    let missed = "FAILED: 1 of 1 threshold missed: m-simulated: generation_speed mean >= ";
    assert_eq!(why, format!("{missed}1000000 tok/s"));
    // One request cannot decide it, and says so.
    assert_eq!(code_with("ttft p95 <= 1 s", ""), (Some(0), String::new()));
    // All in one write: there is no generation to time.
    let (code, why) = code_with("generation_speed >= 1", "faults: [{ merge: 4 }]");
    assert_eq!(code, Some(101));
    assert_eq!(why, format!("{missed}1 tok/s"));
    let (code, why) = code_with("generation_speed >= 1", "faults: [{ status: 500 }]");
    assert_eq!(code, Some(101));
    assert_eq!(why, "FAILED: 1 of 1 trials failed");
}

#[test]
fn a_failed_trial_fails_the_run_without_any_threshold_and_the_others_still_run() {
    let bench = Bench::new(
        "runs: 3\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  m:\n    \
         simulate: { ttft: 5ms, itl: 2ms, tokens: 4, faults: [{ reset: 2, request: 2 }] }\n",
    );
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101));
    let rows = bench.results();
    let success: Vec<_> = rows.iter().map(|row| &row[11]).collect();
    assert_eq!(success, ["true", "false", "true"]);
    let failed = &rows[1];
    assert!(failed[12].starts_with("the connection broke inside the answer: "), "{failed:?}");
    assert_eq!(failed.iter().filter(|cell| *cell == "broken").count(), 1);
    assert!(
        (1..=9).all(|index| failed[index].is_empty()),
        "no figure of a failed trial: {failed:?}"
    );
}

#[test]
fn an_implausibly_fast_repeat_has_a_note() {
    // The first request is answered after a pause, the others at once.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let event = |delta: &str| format!("data: {{\"choices\":[{{\"index\":0,{delta}}}]}}\n\n");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{}{}\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":1}}}}\n\n",
        event("\"delta\":{\"content\":\"a\"}"),
        event("\"delta\":{},\"finish_reason\":\"stop\""),
    );
    std::thread::spawn(move || {
        for (nth, socket) in listener.incoming().enumerate() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 1 << 16]);
            std::thread::sleep(Duration::from_millis(if nth == 0 { 500 } else { 0 }));
            let _ = std::io::Write::write_all(&mut socket, answer.as_bytes());
        }
    });
    let bench = Bench::new(&format!(
        "runs: 2\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n  \
         m: {{ base_url: \"http://{address}\" }}\n"
    ));
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let marked: Vec<_> = bench
        .results()
        .iter()
        .map(|row| row.iter().any(|cell| cell.contains("much_faster_repeat")))
        .collect();
    assert_eq!(marked, [false, true], "{}", ran.stderr);
}

/// A run of these models, which nobody can reach, in an environment with this proxy.
fn with_proxy(models: &str, variable: &str, proxy: &str, no_proxy: &str) -> (Bench, Ran) {
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\n\
         defaults: {{ timeouts: {{ connect: 50ms }} }}\nmodels:\n{models}"
    ));
    let mut command = bench.command(&["--no-warmup"]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let ran = ran(command.env(variable, proxy).env("NO_PROXY", no_proxy));
    (bench, ran)
}

// On Windows a variable has one spelling.
#[cfg(unix)]
#[test]
fn a_bypassed_proxy_is_noted_unless_the_host_is_exempt() {
    let models = "  ip: { base_url: \"http://192.0.2.7\" }\n  \
                  net: { base_url: \"http://198.51.100.7\" }\n  \
                  domain: { base_url: \"http://corp.invalid\" }\n  \
                  host: { base_url: \"http://llm.corp.invalid\" }\n  \
                  other: { base_url: \"http://notcorp.invalid\" }\n  \
                  tls: { base_url: \"https://notcorp.invalid\" }\n  \
                  own: { base_url: \"http://127.0.0.1:9\" }\n"
        .replace(" }", ", transport: stamped }");
    let noted = |variable: &str, no_proxy: &str| {
        let (_, ran) = with_proxy(&models, variable, "http://user:hush@127.0.0.1:9", no_proxy);
        assert!(!ran.stderr.contains("hush"), "{}", ran.stderr);
        let start = format!("note: `transport: stamped` bypasses the proxy in {variable}: ");
        let notes = ran.stderr.lines().filter_map(|line| line.strip_prefix(&start));
        let notes: Vec<_> = notes.filter_map(|rest| rest.split(' ').next()).collect();
        notes.join(" ")
    };
    let exempt = "192.0.2.7, 198.51.100.0/24,.corp.invalid";
    assert_eq!(noted("HTTP_PROXY", exempt), "other");
    assert_eq!(noted("https_proxy", exempt), "tls");
    assert_eq!(noted("all_proxy", exempt), "other tls");
    assert_eq!(noted("all_proxy", ""), "ip net domain host other tls");
    // To reqwest, every name is every name: addresses are not in it.
    assert_eq!(noted("all_proxy", "*"), "ip net");
}

#[test]
fn transport_auto_uses_the_proxy_unless_the_host_is_exempt() {
    let models = "  ip: { base_url: \"http://192.0.2.7\" }\n  \
                  other: { base_url: \"http://notcorp.invalid\" }\n";
    let proxy = format!("http://{}", echo());
    let (bench, ran) = with_proxy(models, "http_proxy", &proxy, "192.0.2.0/24");
    assert!(!ran.stderr.contains("note: "), "{}", ran.stderr);
    let rows = bench.results();
    let proxied = |row: &csv::StringRecord| row[12].starts_with("HTTP 401 ");
    assert_eq!(rows.iter().map(proxied).collect::<Vec<_>>(), [false, true], "{rows:?}");
}

#[test]
fn the_servers_time_in_a_header_is_next_to_the_measured_one() {
    let answer = |header: &str| {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{header}\r\n\r\n\
             data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"a\"}},\"finish_reason\":\"stop\"}}]}}\n\n\
             data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":1}}}}\n\n\
             data: [DONE]\n\n"
        );
        format!("base_url: \"http://{}\"", repeats(answer.into()))
    };
    let (told, odd, late) = (
        answer("openai-processing-ms: 0.001"),
        answer("openai-processing-ms: soon"),
        // No header can have taken longer than it took to come.
        answer("x-envoy-upstream-service-time: 60000"),
    );
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n  \
         told: {{ {told} }}\n  same: {{ {told}, transport: reqwest }}\n  \
         odd: {{ {odd} }}\n  late: {{ {late} }}\n"
    ));
    let ran = bench.run(&["--no-warmup", "--verbose"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let times = ["0.000001000", "0.000001000", "", "60.000000000"];
    assert_eq!(bench.column("server_head_time"), times);
    let beyond = bench.column("first_byte_beyond_server");
    assert!(!beyond[0].starts_with('-') && beyond[3].starts_with("-5"), "{beyond:?}");
    let marked: Vec<_> =
        bench.column("notes").iter().map(|notes| notes.contains("server_disagrees")).collect();
    assert_eq!(marked, [false, false, false, true]);
    let word = "  reported by the server: first_byte_time 0.001 ms, ours ";
    assert!(ran.stderr.contains(word), "{}", ran.stderr);
}

#[test]
fn a_count_above_the_limit_has_a_note() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n\
         data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5000}}\n\n\
         data: [DONE]\n\n";
    let url = format!("base_url: \"http://{}\"", repeats(answer.into()));
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n  \
         default: {{ {url} }}\n  more: {{ {url}, max_tokens: 5000 }}\n  \
         other: {{ {url}, extra_body: {{ max_completion_tokens: 6000 }} }}\n"
    ));
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let notes = bench.column("notes");
    let marked: Vec<_> =
        notes.iter().map(|notes| notes.contains("more_tokens_than_asked")).collect();
    assert_eq!(marked, [true, false, false], "{}", ran.stderr);
}

#[test]
fn a_failed_warm_up_is_printed_and_does_not_fail_the_run() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  m:\n    \
         simulate: { ttft: 5ms, itl: 2ms, tokens: 4, faults: [{ status: 503, request: 1 }] }\n",
    );
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("    Warmup failed: http_status: HTTP 503 "), "{}", ran.stderr);
}

#[test]
fn the_warm_up_opens_the_connection_that_the_trials_use() {
    let bench = Bench::new(TWO_MODELS);
    let connects = |arguments: &[&str]| {
        bench.run(arguments);
        let file = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap();
        let column =
            file.lines().next().unwrap().split(',').position(|name| name == "connect_time");
        let rows = bench.results();
        rows.iter().map(|row| !row[column.unwrap()].is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(connects(&["Qwen"]), [false, false, false, false]);
    assert_eq!(connects(&["Qwen", "--no-warmup"]), [true, false, false, false]);
}

// -- ends before the end --------------------------------------------------------------------------

const LONG: &str = "runs: 50\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  \
                    m: { simulate: { ttft: 20ms, itl: 5ms, tokens: 6 } }\n";

/// Reads the child's stderr up to the line that has `text` for the `count`th time.
fn wait_for(child: &mut Process, text: &str, count: usize) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = 0;
    while seen < count {
        let line = lines.next().expect("more to come").unwrap();
        seen += usize::from(line.contains(text));
    }
    // A full pipe would stop the child.
    std::thread::spawn(move || lines.for_each(drop));
}

#[cfg(unix)]
#[test]
fn a_kill_loses_at_most_the_trial_in_flight() {
    let bench = Bench::new(LONG);
    let mut child = bench.start(&[]);
    wait_for(&mut child, "Success: ", 5);
    child.kill().unwrap();
    child.end();
    let file = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap();
    assert!(file.ends_with('\n'));
    let rows = bench.results();
    assert!(rows.len() >= 5 && rows.iter().all(|row| &row[11] == "true"), "{}", rows.len());
}

#[cfg(unix)]
#[test]
fn ctrl_c_reports_what_has_finished_and_exits_130() {
    let bench = Bench::new(LONG);
    let mut child = bench.start(&[]);
    let mut stderr = child.stderr.take().unwrap();
    // Enough of it to know that trials have finished.
    let mut said = Vec::new();
    let mut piece = [0; 256];
    while String::from_utf8_lossy(&said).matches("Success: ").count() < 3 {
        let read = stderr.read(&mut piece).unwrap();
        assert!(read > 0, "ended early");
        said.extend_from_slice(&piece[..read]);
    }
    child.signal("INT");
    stderr.read_to_end(&mut said).unwrap();
    let code = child.end().code();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(code, Some(130), "{said}");
    let rows = bench.results().len();
    assert!(rows >= 3);
    assert!(
        said.contains(&format!("interrupted: {rows} of 50 trials finished, their rows are kept")),
        "{said}"
    );
    assert!(said.contains("\nRanking by generation_speed"), "{said}");
    assert!(said.trim_end().lines().last().unwrap().starts_with("Results: "), "{said}");
}

// -- smoke mode -----------------------------------------------------------------------------------

#[test]
fn without_bench_each_case_is_tried_once_and_no_real_endpoint_is_called() {
    // Nothing listens there: a call would fail.
    let config = "runs: 5\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  \
                  real: { base_url: \"http://127.0.0.1:9\", api_key_env: LLM_TEST_NO_SUCH_KEY }\n  \
                  sim: { simulate: { ttft: 30s } }\n";
    let bench = Bench::new(config);
    let ran = ran(&mut bench.smoke(&[]));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    insta::assert_snapshot!(ran.redacted(bench.folder.path()));
    let left: Vec<_> = fs::read_dir(bench.folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the config: {left:?}");
}

#[test]
fn the_smoke_test_counts_filtered_trials_and_writes_to_the_logfile() {
    let bench = Bench::new(TWO_MODELS);
    let smoke = |arguments: &[&str]| ran(&mut bench.smoke(arguments));
    let filtered = smoke(&["Qwen", "--skip", "bye", "--test-threads", "2"]);
    let line = "test Qwen-30B-simulated::hello::run-1 ... ok\n";
    assert!(filtered.stdout.contains(line), "{}", filtered.stdout);
    let end = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; ";
    assert!(filtered.stdout.contains(end), "{}", filtered.stdout);
    let nowhere = smoke(&["--logfile", "no/such/folder/log.txt"]);
    assert_eq!(nowhere.code, Some(2), "{}", nowhere.stderr);
    let why = "error: failed to create the log file no/such/folder/log.txt: ";
    assert!(nowhere.stderr.starts_with(why), "{}", nowhere.stderr);
    let logged = smoke(&["--logfile", "log.txt"]);
    assert_eq!((logged.code, logged.stdout.as_str()), (Some(0), ""));
    let log = fs::read_to_string(bench.folder.path().join("log.txt")).unwrap();
    assert!(log.contains("4 passed; 0 failed"), "{log}");
}

#[test]
fn test_overrides_the_bench_that_cargo_adds() {
    let bench = Bench::new(TWO_MODELS);
    let ran = bench.run(&["--test"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("4 passed; 0 failed; 0 ignored; 0 measured"), "{}", ran.stdout);
    assert!(!bench.folder.path().join("results.csv").exists());
}

#[test]
fn nextest_can_list_and_run_single_trials() {
    let bench = Bench::new(TWO_MODELS);
    let list = ran(&mut bench.smoke(&["--list", "--format", "terse"]));
    assert_eq!(names(&list).len(), 4, "each case once: {}", list.stdout);
    assert_eq!(list.stderr, "");
    let ignored = ran(&mut bench.smoke(&["--list", "--format", "terse", "--ignored"]));
    assert_eq!((ignored.code, ignored.stdout.as_str()), (Some(0), ""));
    let one = ran(&mut bench.smoke(&["--exact", names(&list)[3], "--nocapture"]));
    assert_eq!(one.code, Some(0));
    assert!(one.stdout.contains("1 passed; 0 failed"), "{}", one.stdout);
    let none = ran(&mut bench.smoke(&["a_test_of_another_target"]));
    assert_eq!(none.code, Some(0), "a filter of `cargo test` is meant for other targets too");
}

// -- other ways in --------------------------------------------------------------------------------

#[test]
fn the_binary_runs_the_same() {
    let bench = Bench::new(TWO_MODELS);
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
    command.args(["run", "--output", "results.csv", "Qwen"]).current_dir(bench.folder.path());
    let ran = ran(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(measured(&ran).len(), 4);
    assert_eq!(bench.results().len(), 4);
}

#[test]
fn the_binary_has_a_smoke_test() {
    let bench = Bench::new(TWO_MODELS);
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
    command.args(["run", "--test"]).current_dir(bench.folder.path());
    let ran = ran(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("4 passed; 0 failed; 0 ignored"), "{}", ran.stdout);
}

#[test]
fn the_served_endpoint_can_be_measured() {
    let served = Served::start(&[
        "--ttft=5ms",
        "--itl=2ms",
        "--tokens=5",
        "--fault=stall=2@3",
        "--reasoning-tokens=2",
    ]);
    let bench = Bench::new(&format!(
        "runs: 3\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n  m:\n    \
         base_url: \"{}\"\n    timeouts: {{ inter_token: 60ms }}\n",
        served.base_url
    ));
    let ran = bench.run(&[]);
    let rows = bench.results();
    let success: Vec<_> = rows.iter().map(|row| &row[11]).collect();
    // The warm-up was the first request.
    assert_eq!(success, ["true", "false", "true"], "{}", ran.stderr);
    assert_eq!(&rows[1][12], "no token for 60ms (timeouts.inter_token), after 2 token events");
    assert_eq!(&rows[0][0], "m");
}

#[test]
fn serve_and_the_config_refuse_the_same_scripts() {
    let mut text = String::new();
    for arguments in [
        &["--ttft", "99999999999999h"][..],
        &["--itl=500"],
        &["--jitter=-5ms"],
        &["--itl=5ms", "--jitter=6ms"],
        &["--tokens=8", "--reasoning-tokens=9"],
        &["--tokens=18446744073709551615"],
        &["--tokens-per-event=0"],
        &["--protocol=smoke_signals"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
        let ran = ran(command.args(["serve", "--listen=127.0.0.1:0"]).args(arguments));
        text.push_str(&format!("{arguments:?}\n{}\n", ran.redacted(Path::new("/"))));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_server_that_stops_fails_the_trial_and_the_others_run() {
    let (ttft, itl) = (Duration::from_millis(5), Duration::from_millis(20));
    let script = Script { ttft, itl, tokens: 20, ..Script::default() };
    let simulator = Simulator::start(script, &OpenAiChat).unwrap();
    let bench = Bench::new(&format!(
        "runs: 4\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n  m: {{ base_url: \"{}\" }}\n",
        simulator.url()
    ));
    let child = bench.start(&["--no-warmup"]);
    wait::until("the second answer has begun", || {
        simulator.log().get(1).is_some_and(|answer| answer.writes.len() > 2)
    });
    drop(simulator);
    assert_eq!(child.output().status.code(), Some(101));
    let rows = bench.results();
    assert_eq!(rows.len(), 4);
    let kinds: Vec<_> = rows
        .iter()
        .map(|row| {
            ["broken", "connect"].into_iter().find(|kind| row.iter().any(|cell| cell == *kind))
        })
        .collect();
    // The third may still reach a socket that is about to close.
    assert_eq!((kinds[0], kinds[1], kinds[3]), (None, Some("broken"), Some("connect")));
    assert!(kinds[2].is_some());
}

// -- secrets --------------------------------------------------------------------------------------

/// A server whose answer is what it was sent.
fn echo() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = vec![0; 1 << 16];
            let read = socket.read(&mut request).unwrap();
            let head = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {read}\r\n\r\n");
            let _ = std::io::Write::write_all(&mut socket, head.as_bytes());
            let _ = std::io::Write::write_all(&mut socket, &request[..read]);
        }
    });
    address
}

#[test]
fn a_key_that_a_server_repeats_is_masked_in_every_output() {
    let key = "sk-very-secret-0123456789";
    let stream = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; x={key}\r\n\r\n\
         data: {{\"id\":\"req-{key}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{key}\"}}}}]}}\n\n\
         data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"b\"}},\"finish_reason\":\"stop-{key}\"}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":2}}}}\n\n"
    );
    // The cut of a long message falls inside the key.
    let long = format!("HTTP/1.1 400 Bad Request\r\n\r\n{} {key}", "x".repeat(288));
    let binary = [b"HTTP/1.1 400 Bad Request\r\n\r\n\xff\xfe ", key.as_bytes()].concat();
    let answers = [stream.into_bytes(), long.into_bytes(), binary];
    let models = answers.map(repeats).map(|address| {
        format!(
            "  m{}: {{ base_url: \"http://{address}\", api_key_env: LLM_TEST_KEY }}\n",
            address.port()
        )
    });
    for transport in ["stamped", "reqwest"] {
        let bench = Bench::new(&format!(
            "runs: 1\nprompts: [{{ name: p, text: hi }}]\ndefaults: {{ transport: {transport} }}\nmodels:\n{}",
            models.concat()
        ));
        let ran = ran(bench.command(&["--record", "kept"]).env("LLM_TEST_KEY", key));
        let rows = bench.results();
        let success: Vec<_> = rows.iter().map(|row| &row[11]).collect();
        assert_eq!(success, ["true", "false", "false"], "{}", ran.stderr);
        let mut texts = vec![ran.stdout, ran.stderr, format!("{rows:?}")];
        let kept = fs::read_dir(bench.folder.path().join("kept")).unwrap();
        texts.extend(kept.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()));
        assert_eq!(texts.len(), 6);
        for text in texts {
            assert!(!text.contains("sk-very"), "{text}");
            // Nor as hexadecimal digits.
            assert!(!text.contains("736b2d76657279") && !text.contains("303132333435"), "{text}");
        }
    }
}

#[test]
fn no_output_has_a_key() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  m:\n    \
         base_url: \"http://127.0.0.1:9\"\n    api_key_env: LLM_TEST_KEY\n    \
         headers: { x-secret: \"hush-hush\" }\n"
            .replace("127.0.0.1:9", &echo().to_string())
            .as_str(),
    );
    for arguments in [&[][..], &["--list"], &["--format", "json"]] {
        let mut command = bench.command(&[arguments, &["--record", "kept"]].concat());
        let ran = ran(command.env("LLM_TEST_KEY", "sk-very-secret"));
        let file = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap_or_default();
        let kept = bench.folder.path().join("kept/m__hello__run-1.jsonl");
        let kept = fs::read_to_string(kept).unwrap_or_default();
        for text in [ran.stdout, ran.stderr, file, kept] {
            assert!(!text.contains("very-secret") && !text.contains("hush"), "{text}");
        }
    }
}
