//! The file of the requests in its formats: plain, compressed, and none.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{Script, Simulator};
use serde_json::Value;

use crate::{
    bench::{Bench, Ran, passed, ran},
    wait::{self, Process},
};

/// The first bytes of a frame: <https://datatracker.ietf.org/doc/html/rfc8878#section-3.1.1>
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A prompt, a conversation and a load.
const CONFIG: &str = "\
runs: 2
prompts: [{ name: a, text: hi }, { name: talk, turns: [Hello., Go on.] }]
workloads: { c2: { concurrency: 2, requests: 6, runs: 2 } }
models:
  A: { simulate: { ttft: 6ms, itl: 20ms, tokens: 4 } }
";

fn run(bench: &Bench, arguments: &[&str]) -> Ran {
    ran(&mut bench.binary(arguments))
}

/// A run whose files go to `folder`.
fn measure(bench: &Bench, folder: &str, more: &[&str]) -> Ran {
    let arguments = ["run", "--no-calibration", "--no-preflight", "--output-dir", folder];
    run(bench, &[&arguments, more].concat())
}

fn path(bench: &Bench, file: &str) -> PathBuf {
    bench.folder.path().join(file)
}

/// The figures of the recorded arrivals, computed again from the file of the requests.
fn figures(bench: &Bench, folder: &str) -> Value {
    let ran = run(bench, &["report", folder, "--definitions", "--format=json"]);
    passed(&ran);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn frames(path: &Path) -> usize {
    fs::read(path).unwrap().windows(4).filter(|bytes| *bytes == MAGIC).count()
}

#[test]
fn every_reader_opens_compressed_requests() {
    let bench = Bench::new(CONFIG);
    passed(&measure(&bench, "plain", &[]));
    // A resumed run that lacks nothing copies all requests.
    let packed = measure(&bench, "packed", &["--resume=plain", "--requests=zst"]);
    passed(&packed);
    assert!(packed.stderr.contains("keeps 6 of 6 trials"), "{}", packed.stderr);
    assert!(!path(&bench, "packed/requests.jsonl").exists());
    assert_eq!(frames(&path(&bench, "packed/requests.jsonl.zst")), 1);
    assert_eq!(figures(&bench, "packed"), figures(&bench, "plain"));
    let page = |folder: &str| {
        passed(&run(&bench, &["report", folder, "--output=page.html"]));
        fs::read_to_string(path(&bench, "page.html")).unwrap()
    };
    let charts = |folder: &str| page(folder).matches("<svg").count();
    assert_eq!(charts("packed"), charts("plain"));
    passed(&run(&bench, &["show", "packed"]));
    passed(&run(&bench, &["compare", "plain", "packed"]));
    passed(&measure(&bench, "again", &["--resume=packed"]));
    let lines = |folder: &str| fs::read_to_string(path(&bench, folder)).unwrap();
    assert_eq!(lines("again/requests.jsonl"), lines("plain/requests.jsonl"));
}

#[test]
fn another_format_replaces_the_file_of_an_earlier_run() {
    let bench = Bench::new(CONFIG);
    let files = [("jsonl", "requests.jsonl"), ("zst", "requests.jsonl.zst")];
    for format in ["jsonl", "zst", "jsonl", "zst", "none"] {
        passed(&measure(&bench, "out", &["--requests", format, "a"]));
        for (of, file) in files {
            assert_eq!(path(&bench, "out").join(file).exists(), of == format, "{format}: {file}");
        }
    }
}

#[test]
fn a_run_without_requests_says_so_where_they_are_needed() {
    let bench = Bench::new(CONFIG);
    passed(&measure(&bench, "out", &["--requests=none"]));
    for arguments in [&["show", "out"][..], &["report", "out"], &["compare", "out", "out"]] {
        passed(&run(&bench, arguments));
    }
    let refused = measure(&bench, "next", &["--resume=out"]);
    assert_eq!(refused.code, Some(2));
    let why = "out has no requests.jsonl, which has the requests to keep (a run with `--requests \
               none` has none)";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    let refused = run(&bench, &["report", "out", "--definitions"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("out has no requests.jsonl"), "{}", refused.stderr);
    let clash = run(&bench, &["run", "--requests=zst", "--output=o.csv"]);
    assert_eq!(clash.code, Some(2));
}

#[test]
fn a_killed_run_has_all_whole_frames() {
    let bench = Bench::new(
        "prompts: [{ name: a, text: hi }]\nworkloads: { load: { concurrency: 64, requests: 100000 } }\n\
         models:\n  A: { simulate: { ttft: 2ms, itl: 1ms, tokens: 200 } }\n",
    );
    let arguments =
        ["run", "--no-calibration", "--no-preflight", "--output-dir=out", "--requests=zst", "load"];
    let process = Process::start(&mut bench.binary(&arguments));
    let file = path(&bench, "out/requests.jsonl.zst");
    wait::until("four frames", || file.exists() && frames(&file) >= 4);
    process.signal("KILL");
    assert_eq!(process.output().status.code(), None);
    let whole = fs::read(&file).unwrap();
    let has_requests = || figures(&bench, "out").to_string().contains("A-simulated");
    assert!(has_requests());
    // A write that was cut, after the first frames, and damage, which is not the end of a file.
    for cut in [whole.len() - 1, whole.len() - 1000, whole.len() / 2] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(has_requests(), "{cut}");
    }
    let mut damaged = whole;
    let middle = damaged.len() / 4;
    damaged[middle] ^= 0xff;
    fs::write(&file, damaged).unwrap();
    let refused = run(&bench, &["report", "out", "--definitions"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    assert!(refused.stderr.contains("requests.jsonl.zst:"), "{}", refused.stderr);
}

#[test]
fn an_interrupted_run_has_its_requests() {
    let simulator = Simulator::start(
        Script { itl: Duration::from_millis(5), ..Script::default() },
        &OpenAiChat,
    );
    let simulator = simulator.unwrap();
    let bench = Bench::new(&format!(
        "runs: 1000\nprompts: [{{ name: a, text: hi }}]\nmodels:\n  A: {{ base_url: \"{}\" }}\n",
        simulator.url()
    ));
    let arguments =
        ["run", "--no-calibration", "--no-preflight", "--output-dir=out", "--requests=zst"];
    let process = Process::start(&mut bench.binary(&arguments));
    wait::until("requests", || simulator.log().len() > 4);
    process.signal("INT");
    assert_eq!(process.output().status.code(), Some(130));
    figures(&bench, "out");
    assert_eq!(frames(&path(&bench, "out/requests.jsonl.zst")), 1);
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_requires_its_feature() {
    let bench = Bench::new(CONFIG);
    let refused = measure(&bench, "out", &["--parquet"]);
    assert_eq!(refused.code, Some(2));
    let why = "error: `--parquet` requires the feature `parquet`, without which this program is built: \
               add `--features parquet` to the command of cargo";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    assert!(!path(&bench, "out").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn requests_that_cannot_be_written_fail_the_run() {
    let bench = Bench::new(CONFIG);
    fs::create_dir(path(&bench, "out")).unwrap();
    std::os::unix::fs::symlink("/dev/full", path(&bench, "out/requests.jsonl.zst")).unwrap();
    let ran = measure(&bench, "out", &["--requests=zst", "a"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(ran.stderr.contains("FAILED: cannot write "), "{}", ran.stderr);
    assert!(ran.stderr.contains("out/requests.jsonl.zst: No space left"), "{}", ran.stderr);
}
