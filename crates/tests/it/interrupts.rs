//! Signals at every moment of a run: the exit code, and that every file can be read afterwards.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use llm_stream_core::recording::Recording;
use rand::{RngExt as _, SeedableRng};
use serde_json::Value;

use crate::{
    bench::{Bench, Served},
    ci::{cases, is_by_the_schema, junit, said},
    wait::{self, Process},
};

/// The signals that end a run in order, with the exit codes.
const SIGNALS: [(&str, i32); 3] = [("INT", 130), ("TERM", 143), ("HUP", 129)];

/// The signals that are tried. A program under `nohup` ignores SIGHUP, and so do those that it starts.
fn signals() -> impl Iterator<Item = (&'static str, i32)> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let ignores_hang_up = ignored.is_some_and(|mask| mask & 1 != 0);
    SIGNALS.into_iter().filter(move |(name, _)| !(ignores_hang_up && *name == "HUP"))
}

/// A moment of a run: the config of its model, the filter, and when it has come.
struct Moment {
    name: &'static str,
    model: &'static str,
    filter: &'static str,
    has_come: fn(&Path) -> bool,
    /// The requests that have finished: at least so many have rows.
    rows: usize,
}

const MOMENTS: [Moment; 4] = [
    Moment {
        name: "before the first token",
        model: "{ simulate: { ttft: 10m } }",
        filter: "hello",
        has_come: |folder| rows(folder) == Some(0),
        rows: 0,
    },
    Moment {
        name: "in the middle of an answer",
        model: "{ simulate: { ttft: 1ms, itl: 20ms, tokens: 100000 } }",
        filter: "hello",
        has_come: |folder| rows(folder) == Some(0),
        rows: 0,
    },
    Moment {
        name: "between answers",
        model: "{ simulate: { ttft: 1ms, itl: 5ms, tokens: 4 } }",
        filter: "hello",
        has_come: |folder| rows(folder) >= Some(3),
        rows: 3,
    },
    Moment {
        name: "in the middle of a load",
        model: "{ simulate: { ttft: 5ms, itl: 5ms, tokens: 6 } }",
        filter: "load",
        has_come: |folder| rows(folder) >= Some(5),
        rows: 5,
    },
];

fn bench(model: &str) -> Bench {
    Bench::new(&format!(
        "runs: 1000
prompts: [{{ name: hello, text: \"Say hello.\" }}]
thresholds: [\"ttft <= 1000 s\"]
workloads: {{ load: {{ concurrency: 2, duration: 10m, runs: 1 }} }}
models:
  m: {model}
"
    ))
}

/// A run that writes every file.
fn command(bench: &Bench, filter: &str) -> Command {
    let reports = ["--json=run.json", "--junit=junit.xml", "--export=bencher=bencher.json"];
    let mut command = bench.command(&[filter, "--no-warmup", "--record=recordings"]);
    command.args(reports).env("GITHUB_STEP_SUMMARY", "summary.md");
    command
}

/// The rows so far; `None` before the header.
fn rows(folder: &Path) -> Option<usize> {
    fs::read_to_string(folder.join("results.csv")).ok()?.lines().count().checked_sub(1)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Reads every file that a run left. `csv` rows have all columns, or the last one has no line end.
fn all_is_whole(folder: &Path) {
    let text = fs::read_to_string(folder.join("run.json")).unwrap();
    is_by_the_schema(&text);
    junit(&folder.join("junit.xml"));
    assert!(json(&folder.join("bencher.json")).is_object());
    for table in ["results.csv", "results.workloads.csv"].map(|name| folder.join(name)) {
        let Ok(mut reader) = csv::Reader::from_path(&table) else { continue };
        let whole = reader.records().all(|row| row.is_ok());
        let text = fs::read_to_string(&table).unwrap();
        assert!(text.is_empty() || (whole && text.ends_with('\n')), "{}", table.display());
    }
    for file in fs::read_dir(folder.join("recordings")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            let recording = Recording::from_jsonl(&fs::read_to_string(&path).unwrap());
            assert!(recording.is_ok(), "{}: {recording:?}", path.display());
        }
    }
}

/// The temporary files in the folder.
fn temporary(folder: &Path) -> usize {
    let files = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".tmp")).count()
    };
    files(folder) + files(&folder.join("recordings"))
}

#[test]
fn each_signal_at_each_moment_leaves_whole_files_marked_as_interrupted() {
    for Moment { name, model, filter, has_come, rows: least } in MOMENTS {
        for (signal, code) in signals() {
            let bench = bench(model);
            let folder = bench.folder.path();
            let child = Process::start(&mut command(&bench, filter));
            wait::until(name, || has_come(folder) && folder.join("run.json").exists());
            child.signal(signal);
            let output = child.output();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let at = format!("{signal} {name}\n{stderr}");
            assert_eq!(output.status.code(), Some(code), "{at}");
            all_is_whole(folder);
            assert_eq!(temporary(folder), 0, "{at}");
            let rows = rows(folder).unwrap();
            assert!(rows >= least, "{at}");
            let report = json(&folder.join("run.json"));
            assert_eq!(report["result"]["ended"], "interrupted", "{at}");
            assert_eq!(report["thresholds"], Value::Array(Vec::new()), "{at}");
            let valid = report["groups"][0]["requests"]["valid"].as_u64();
            assert_eq!(valid, Some(rows as u64), "all finished requests are summed up: {at}");
            let suites = junit(&folder.join("junit.xml"));
            assert!(said(cases(&suites).last().unwrap()).starts_with("interrupted: "), "{at}");
            let exported = fs::read_to_string(folder.join("bencher.json")).unwrap();
            assert_eq!(exported.contains("(interrupted)\": {"), rows > 0, "{exported}");
            let summary = fs::read_to_string(folder.join("summary.md")).unwrap();
            assert!(
                summary.contains("llm-stream-bench: interrupted\n\n`interrupted: "),
                "{summary}"
            );
        }
    }
}

#[test]
fn an_interrupted_load_is_summed_up_and_marked_in_every_report() {
    let load = &MOMENTS[3];
    let bench = bench(load.model);
    let folder = bench.folder.path();
    let child = Process::start(&mut command(&bench, load.filter));
    wait::until(load.name, || (load.has_come)(folder));
    child.signal("TERM");
    let output = child.output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let rows = rows(folder).unwrap();
    for line in [
        "  interrupted: with the finished requests of 1 trial that did not end\n".to_owned(),
        format!("  {rows} requests successful, 0 failed\n"),
        "interrupted: 0 of 1 trials finished, their rows are kept; 1 trial in part; thresholds not \
         judged\n"
            .to_owned(),
    ] {
        assert!(stderr.contains(&line), "{line}\n{stderr}");
    }
    let why = format!("interrupted after {rows} requests");
    let report = json(&folder.join("run.json"));
    let trial = &report["trials"][0];
    assert_eq!(
        (&trial["failure"]["kind"], &trial["failure"]["message"]),
        (&"interrupted".into(), &why.as_str().into())
    );
    assert_eq!(report["groups"][0]["trials"]["interrupted"], 1);
    assert_eq!(report["groups"][0]["trials"]["finished"], 0);
    let mut loads = csv::Reader::from_path(folder.join("results.workloads.csv")).unwrap();
    let row = loads.records().next().unwrap().unwrap();
    assert_eq!((&row[6], &row[7], &row[8]), ("false", why.as_str(), rows.to_string().as_str()));
}

#[test]
fn an_interrupted_conversation_keeps_the_figures_of_its_turns() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: talk, turns: [\"Hello.\", \"More.\"] }]\nmodels:\n  \
         m: { simulate: { ttft: 2ms, itl: 2ms, tokens: 4, faults: [{ stall: 2, request: 2 }] } }\n",
    );
    let folder = bench.folder.path();
    let child = Process::start(&mut command(&bench, "talk"));
    wait::until("the first turn has ended", || rows(folder) == Some(1));
    child.signal("INT");
    let output = child.output();
    assert_eq!(output.status.code(), Some(130));
    let report = json(&folder.join("run.json"));
    assert_eq!(report["groups"][0]["requests"]["valid"], 1, "{report:#}");
    assert_eq!(report["trials"][0]["failure"]["message"], "interrupted after 1 turn");
}

#[test]
fn a_killed_run_leaves_reports_that_say_so() {
    for Moment { name, model, filter, has_come, .. } in MOMENTS {
        let bench = bench(model);
        let folder = bench.folder.path();
        for report in ["run.json", "junit.xml", "bencher.json"] {
            fs::write(folder.join(report), "of yesterday").unwrap();
        }
        let child = Process::start(&mut command(&bench, filter));
        wait::until(name, || {
            has_come(folder) && fs::read_to_string(folder.join("bencher.json")).unwrap() == "{}\n"
        });
        child.signal("KILL");
        assert_eq!(child.output().status.code(), None);
        all_is_whole(folder);
        let report = json(&folder.join("run.json"));
        let why = "interrupted: the run has not ended; it is in progress, or was killed";
        assert_eq!(report["result"]["reasons"][0], why, "{name}");
    }
}

/// A run whose JSON goes to a pipe without a reader: it stops while it writes its reports.
fn stopped_while_writing(bench: &Bench) -> (Process, File) {
    let folder = bench.folder.path();
    let pipe = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = bench.command(&["hello", "--junit=junit.xml", "--json=pipe"]);
    let mut child = Process::start(command.args(["--export=bencher=bencher.json", "--no-warmup"]));
    // A full pipe would stop it earlier.
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
    // Opening it lets the run begin.
    let pipe = File::open(&pipe).unwrap();
    wait::until("the first report is written", || {
        let report = fs::read_to_string(folder.join("junit.xml")).unwrap_or_default();
        report.contains("run-1000")
    });
    (child, pipe)
}

#[test]
fn a_second_signal_ends_the_process_while_it_writes_reports() {
    for (signal, code) in signals() {
        let bench = bench("{ simulate: { ttft: 0ms, itl: 0ms, tokens: 2 } }");
        let folder = bench.folder.path();
        let (mut child, pipe) = stopped_while_writing(&bench);
        child.signal("TERM");
        // Signals of one kind that are pending at once are one.
        thread::sleep(Duration::from_secs(1));
        assert!(child.try_wait().unwrap().is_none(), "the first one lets it write");
        child.signal(signal);
        assert_eq!(child.end().code(), Some(code));
        drop(pipe);
        assert_eq!(fs::read_to_string(folder.join("bencher.json")).unwrap(), "{}\n");
        junit(&folder.join("junit.xml"));
        assert_eq!(temporary(folder), 0);
    }
}

#[test]
fn a_signal_after_the_last_trial_leaves_the_verdict() {
    let bench = bench("{ simulate: { ttft: 0ms, itl: 0ms, tokens: 2 } }");
    let (mut child, mut pipe) = stopped_while_writing(&bench);
    child.signal("TERM");
    let mut report = String::new();
    pipe.read_to_string(&mut report).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let status = child.end();
    assert_ne!(report["result"]["ended"], "interrupted");
    assert!(matches!(status.code(), Some(0 | 101)), "{status}");
}

#[test]
fn a_run_under_nohup_ignores_the_hang_up() {
    let bench = Bench::new(crate::bench::TWO_MODELS);
    let plain = bench.command(&["--runs=20"]);
    let mut command = Command::new("nohup");
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(bench.folder.path());
    let child = Process::start(&mut command);
    wait::until("3 rows", || rows(bench.folder.path()) >= Some(3));
    child.signal("HUP");
    let output = child.output();
    let code = output.status.code();
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rows(bench.folder.path()), Some(80));
}

#[test]
fn serve_ends_by_each_signal_and_removes_its_socket() {
    for (signal, code) in signals() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let mut command = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
        let mut child = Process::start(command.arg("serve").arg("--unix").arg(&socket));
        wait::until("the socket", || socket.exists());
        child.signal(signal);
        assert_eq!(child.end().code(), Some(code));
        assert!(!socket.exists(), "{signal}");
        let served = Served::start(&[]);
        served.process.signal(signal);
        let mut served = served;
        assert_eq!(served.process.end().code(), Some(code));
    }
}

#[test]
fn a_reader_of_stdout_that_is_gone_changes_nothing() {
    let bench = Bench::new(crate::bench::TWO_MODELS);
    for arguments in [&["--list"][..], &["--help"], &[]] {
        let mut command = bench.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?} {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    assert_eq!(bench.results().len(), 8);
}

/// How a run of the random kills ended.
#[derive(Debug, Default)]
struct Ends {
    by_itself: usize,
    interrupted: usize,
    killed: usize,
}

impl Ends {
    fn add(&mut self, status: ExitStatus) {
        match status.code() {
            None => self.killed += 1,
            Some(129 | 130 | 143) => self.interrupted += 1,
            Some(_) => self.by_itself += 1,
        }
    }
}

/// `cargo test -p llm-stream-tests --test it -- --ignored random_moments --nocapture`
#[test]
#[ignore = "several minutes"]
fn random_moments() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(14);
    println!("SEED={seed}");
    let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
    let signals = [("KILL", 200), ("INT", 40), ("TERM", 30), ("HUP", 30)];
    for (signal, count) in signals {
        let mut ends = Ends::default();
        let mut torn = 0;
        for _ in 0..count {
            let bench = Bench::new(
                "runs: 8\nprompts: [{ name: hello, text: \"Say hello.\" }]\n\
                 workloads: { load: { concurrency: 8, requests: 200, runs: 1 } }\nmodels:\n  \
                 m: { simulate: { ttft: 2ms, itl: 1ms, tokens: 8 } }\n",
            );
            let child = Process::start(&mut command(&bench, "m-simulated"));
            thread::sleep(Duration::from_micros(random.random_range(0..1_200_000)));
            // It may have ended before.
            let _ = Command::new("kill")
                .args([&format!("-{signal}"), &child.id().to_string()])
                .status();
            let output = child.output();
            ends.add(output.status);
            let folder = bench.folder.path();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("panicked"), "{said}");
            if folder.join("run.json").exists() && folder.join("bencher.json").exists() {
                torn += is_torn(folder);
            }
            if signal != "KILL" {
                assert_eq!(temporary(folder), 0, "{said}");
            }
        }
        println!("{signal:<5} {count:>4} runs: {ends:?}, files with a part of a row: {torn}");
    }
}

/// Reads the files as [`all_is_whole`], where SIGKILL may leave a part of the last row, which readers
/// recognize by its missing line end.
fn is_torn(folder: &Path) -> usize {
    let mut torn = 0;
    for name in ["results.csv", "results.workloads.csv"] {
        let path = folder.join(name);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        torn += usize::from(whole < text.len());
        fs::write(&path, &text[..whole]).unwrap();
    }
    all_is_whole(folder);
    torn
}
