//! Endpoints on sockets of the file system: measured, served, and their errors.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{Script, Simulator};
use tempfile::TempDir;

use crate::{
    bench::{Bench, Ran, ran},
    http::{STREAM, chunked},
    wait::{self, Process},
};

/// A config with a model for each transport; `more` are further lines at its top.
fn asking(base_url: &str, more: &str) -> Bench {
    Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\n{more}models:\n  \
         stamped: {{ base_url: \"{base_url}\", transport: stamped }}\n  \
         reqwest: {{ base_url: \"{base_url}\", transport: reqwest }}\n"
    ))
}

fn at(path: &Path) -> String {
    format!("unix://{}", path.display())
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    (folder, path)
}

fn quick() -> Script {
    let (ttft, itl) = (Duration::from_millis(5), Duration::from_millis(5));
    Script { ttft, itl, tokens: 6, ..Script::default() }
}

/// The text without the names of the folder.
fn without(folder: &Path, text: &str) -> String {
    text.replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn both_transports_measure_over_a_unix_socket_with_program_timestamps() {
    let (_folder, path) = folder();
    // Long answers, in which the time to start the next one does not count: on a busy machine the
    // load would be another one.
    let (ttft, itl) = (Duration::from_millis(60), Duration::from_millis(40));
    let script = Script { ttft, itl, tokens: 6, ..Script::default() };
    let simulator = Simulator::on_file(&path, script, &OpenAiChat).unwrap();
    // A proxy that others are reached through does not matter, nor that its variable is not set.
    // The load is long enough for 16 in flight on average even if a busy machine starts it slowly.
    let more = "defaults: { proxy: \"http://${NOT_SET}:9\" }\n\
                workloads: { many: { concurrency: 16, requests: 160 } }\n";
    let bench = asking(&simulator.url(), more);
    let ran = ran(bench.command(&["--no-warmup"]).env("HTTP_PROXY", "http://127.0.0.1:9"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stderr.contains("PROXY"), "{}", ran.stderr);
    let rows = 2 * (1 + 160);
    assert_eq!(bench.column("response_tokens"), vec!["6"; rows]);
    assert_eq!(bench.column("clock"), vec!["program"; rows]);
    let url = format!("{}:/v1/chat/completions", at(&path));
    assert_eq!(bench.column("endpoint"), vec![url.as_str(); rows]);
    let opened = bench.column("connect_time").iter().filter(|cell| !cell.is_empty()).count();
    assert!((2..=34).contains(&opened), "{opened} connections");
    drop(simulator);
    assert!(!path.exists());
}

#[test]
fn a_unix_url_has_the_path_after_the_colon() {
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    let heads = thread::spawn(move || {
        let head = |_| {
            let mut socket = BufReader::new(listener.accept().unwrap().0);
            let head = head(&mut socket);
            let _ = socket.get_mut().write_all(&chunked(STREAM));
            head
        };
        (0..2).map(head).collect::<Vec<_>>()
    });
    let bench = asking(&format!("{}:/openai/v1", at(&path)), "defaults: { query: { a: b } }\n");
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for head in wait::joined(heads) {
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("POST /openai/v1/chat/completions?a=b HTTP/1.1"));
        assert!(lines.any(|line| line.eq_ignore_ascii_case("host: localhost")), "{head}");
    }
}

/// The head of a request; its body is read as well.
fn head(socket: &mut BufReader<UnixStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(socket.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    socket.read_exact(&mut body).unwrap();
    head
}

// Each system has numbers of its own for what goes wrong.
#[cfg(target_os = "linux")]
#[test]
fn an_unreachable_unix_socket_is_reported_with_a_fix() {
    let (folder, path) = folder();
    fs::write(folder.path().join("notes.txt"), "no socket").unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let mut output = String::new();
    for name in ["missing.sock", "x.sock", "x.sock/v1", "notes.txt"] {
        let bench = asking(&at(&folder.path().join(name)), "");
        let ran = bench.run(&["--no-warmup"]);
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        assert_eq!(bench.column("error_kind"), ["connect"; 2]);
        let messages = bench.column("error_message");
        assert_eq!(messages[0], messages[1], "both transports say the same");
        output += &format!("{}\n", without(folder.path(), &messages[0]));
        let asked = bench.run_asking_first(&["--no-warmup"]).stderr;
        let line = asked.lines().find(|line| line.starts_with("ERROR: stamped")).unwrap();
        output += &format!("  {}\n", without(folder.path(), line));
    }
    insta::assert_snapshot!(output.replace("-under-test", ""));
}

#[test]
fn the_preflight_lists_models_over_the_unix_socket() {
    let (folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || {
                let mut socket = BufReader::new(socket.unwrap());
                let (status, body) = match head(&mut socket).starts_with("GET /v1/models ") {
                    true => ("200 OK", "{\"data\":[{\"id\":\"m\"}]}"),
                    false => ("404 Not Found", "{}"),
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = socket.get_mut().write_all(answer.as_bytes());
            });
        }
    });
    let bench = asking(&format!("{}:/api", at(&path)), "");
    let ran = bench.run_asking_first(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("ERROR: ")).collect();
    insta::assert_snapshot!(without(folder.path(), &lines.join("\n")));
}

#[test]
fn the_instruments_error_is_measured_over_a_unix_socket() {
    let (_folder, path) = folder();
    let simulator = Simulator::on_file(&path, quick(), &OpenAiChat).unwrap();
    let bench = asking(&simulator.url(), "");
    let arguments = ["--bench", "--no-preflight", "--output", "results.csv"];
    let ran = ran(&mut bench.smoke(&arguments));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for transport in ["stamped", "reqwest"] {
        let start = format!(
            "instrument ({transport} over a unix socket), measured in this run: timestamps by the program"
        );
        assert!(ran.stderr.contains(&start), "{}", ran.stderr);
    }
    let kept = fs::read_to_string(bench.folder.path().join("results.instrument.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept[0]["unix"], true, "{kept}");
}

#[test]
fn the_servers_metrics_are_read_over_the_unix_socket() {
    let (folder, path) = folder();
    let simulator = Simulator::on_file(&path, quick(), &OpenAiChat).unwrap();
    let bench = asking(&simulator.url(), "defaults: { metrics_url: auto }\n");
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    // The simulated endpoint has none, and it is what answers.
    let said = without(folder.path(), &ran.stderr);
    let warning = "WARNING: no metrics of the server from unix://FOLDER/x.sock:/metrics: HTTP 404";
    assert_eq!(said.matches(warning).count(), 2, "{said}");
}

// -- serve --unix ------------------------------------------------------------------------------------

fn serve(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
    command.current_dir(folder).args(["serve", "--ttft=5ms", "--itl=5ms", "--tokens=6"]);
    command.args(arguments);
    command
}

/// An endpoint at `x.sock` of `folder`, which listens, and what it says.
fn serving(folder: &Path) -> (Process, String) {
    let mut process = Process::start(&mut serve(folder, &["--unix", "x.sock"]));
    let mut stderr = BufReader::new(process.stderr.take().expect("a pipe"));
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        assert!(stderr.read_line(&mut said).expect("a line") > 0, "ended early: {said}");
    }
    (process, said)
}

#[test]
fn serve_creates_and_removes_its_socket() {
    let (folder, path) = folder();
    let (mut killed, _) = serving(folder.path());
    killed.kill().unwrap();
    killed.end();
    assert!(path.exists(), "nobody could remove it");
    let (mut process, said) = serving(folder.path());
    let base_url = said.split("base_url: \"").nth(1).unwrap().split('"').next().unwrap();
    let bench = asking(base_url, "");
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(bench.column("response_tokens"), ["6"; 2]);
    process.signal("INT");
    assert_eq!(process.end().code(), Some(130));
    assert!(!path.exists(), "it is removed");
    let folder = fs::canonicalize(folder.path()).unwrap();
    insta::assert_snapshot!(without(&folder, &said));
}

#[test]
fn serve_does_not_replace_a_socket_in_use_or_another_file() {
    let (folder, path) = folder();
    let _listener = UnixListener::bind(&path).unwrap();
    fs::write(folder.path().join("notes.txt"), "no socket").unwrap();
    let mut output = String::new();
    for arguments in [
        &["--unix", "x.sock"][..],
        &["--unix", "notes.txt"],
        &["--unix", "missing/x.sock"],
        &["--unix", "y.sock", "--listen", "127.0.0.1:0"],
    ] {
        let Ran { code, stderr, .. } = ran(&mut serve(folder.path(), arguments));
        output += &format!("{arguments:?} {code:?}\n{}\n", without(folder.path(), &stderr));
    }
    assert!(path.exists() && folder.path().join("notes.txt").exists());
    insta::assert_snapshot!(output.replace("-under-test", ""));
}
