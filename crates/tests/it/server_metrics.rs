//! The metrics of a server before and after each trial.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::bench::{Bench, records};

/// A server that answers `GET /metrics` as vLLM does, an answer more each time, and whatever is
/// asked of it with a chat of twelve tokens, 20 ms apart from 60 ms on. By its own word the first
/// one waited for 1 s, the second one for 2 s, and so on.
#[derive(Clone, Copy, Default)]
struct Metered {
    /// Requests that others have made between two looks.
    others: u64,
    /// How long after its end it counts an answer.
    lateness: Duration,
    /// How long it takes to tell its metrics.
    slowness: Duration,
}

impl Metered {
    fn start(self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let answered = Arc::new(AtomicU64::new(0));
            for socket in listener.incoming().map_while(Result::ok) {
                let answered = answered.clone();
                thread::spawn(move || self.serve(socket, &answered));
            }
        });
        port
    }

    fn serve(self, mut socket: TcpStream, answered: &Arc<AtomicU64>) {
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        loop {
            let (mut first, mut size) = (String::new(), 0);
            for line in reader.by_ref().lines().map_while(Result::ok) {
                if first.is_empty() {
                    first.clone_from(&line);
                }
                if let Some(length) = line.to_lowercase().strip_prefix("content-length:") {
                    size = length.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            if first.is_empty() {
                return;
            }
            reader.read_exact(&mut vec![0; size]).unwrap();
            if first.starts_with("GET /metrics ") {
                thread::sleep(self.slowness);
                let body = self.metrics(answered.load(Ordering::Relaxed));
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                // It may have waited long enough.
                let _ = socket.write_all((head + &body).as_bytes());
                // As servers do with an idle connection: vLLM after 5 s.
                socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                continue;
            }
            if first.starts_with("GET ") {
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nother 1\n").unwrap();
                continue;
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                        transfer-encoding: chunked\r\n\r\n";
            socket.write_all(head.as_bytes()).unwrap();
            let mut say = |data: &str| {
                let event = format!("data: {data}\n\n");
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                socket.write_all(chunk.as_bytes()).unwrap();
            };
            for n in 0..12 {
                let wait = if n == 0 { 60 } else { 20 };
                thread::sleep(Duration::from_millis(wait));
                say(r#"{"choices":[{"index":0,"delta":{"content":"word"}}]}"#);
            }
            say(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
            say(
                r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}"#,
            );
            say("[DONE]");
            socket.write_all(b"0\r\n\r\n").unwrap();
            let (answered, lateness) = (answered.clone(), self.lateness);
            thread::spawn(move || {
                thread::sleep(lateness);
                answered.fetch_add(1 + self.others, Ordering::Relaxed);
            });
        }
    }

    fn metrics(self, answered: u64) -> String {
        let of = |series: &str, sum: f64| {
            format!(
                "# TYPE vllm:{series} histogram\n\
                 vllm:{series}_bucket{{model_name=\"m\",le=\"1.0\"}} {answered}.0\n\
                 vllm:{series}_bucket{{model_name=\"m\",le=\"+Inf\"}} {answered}.0\n\
                 vllm:{series}_count{{model_name=\"m\"}} {answered}.0\n\
                 vllm:{series}_sum{{model_name=\"m\"}} {sum}\n"
            )
        };
        let count = answered as f64;
        [
            of("time_to_first_token_seconds", 0.060 * count),
            of("request_time_per_output_token_seconds", 0.020 * count),
            of("e2e_request_latency_seconds", 0.280 * count),
            of("request_queue_time_seconds", count * (count + 1.0) / 2.0),
            "vllm:num_preemptions_total{model_name=\"m\"} 7.0\n".into(),
            "vllm:num_requests_running{model_name=\"m\"} 0.0\n".into(),
        ]
        .concat()
    }
}

fn metered(port: u16, metrics_url: &str) -> Bench {
    Bench::new(&format!(
        "runs: 2\norder: interleaved\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n  \
         m: {{ base_url: \"http://127.0.0.1:{port}\", metrics_url: {metrics_url} }}\n"
    ))
}

#[test]
fn a_servers_metrics_are_compared_with_the_measured_ones() {
    let bench = metered(Metered::default().start(), "auto");
    let ran = bench.run(&["--json", "run.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let message = "  server's metrics: ttft 60.00 ms, ours ";
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
    let rows = records(&bench.folder.path().join("results.server.csv"));
    let of = |figure: &str| -> Vec<_> {
        let rows = rows.iter().filter(|row| &row[4] == figure);
        rows.map(|row| [7, 8, 9].map(|place| row[place].to_owned())).collect()
    };
    // The warm-up was before the first look.
    assert_eq!(of("ttft"), [["1", "2", "0.060000000"], ["2", "3", "0.060000000"]]);
    assert_eq!(of("preemptions"), [["7", "7", ""], ["7", "7", ""]]);
    let ours = rows.iter().filter(|row| !row[14].is_empty()).count();
    assert_eq!(ours, 6, "ttft, tpot and e2e of both trials");
    let json = fs::read(bench.folder.path().join("run.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let metrics = &json["groups"][0]["server"]["metrics"];
    assert_eq!(metrics["e2e"]["requests"], 2);
    assert!((metrics["tpot"]["server"].as_f64().unwrap() - 0.020).abs() < 1e-9, "{metrics}");
}

/// The means of what the server says of `figure`, a trial each.
fn means(bench: &Bench, figure: &str) -> Vec<String> {
    let rows = records(&bench.folder.path().join("results.server.csv"));
    rows.iter().filter(|row| &row[4] == figure).map(|row| row[9].to_owned()).collect()
}

#[test]
fn an_answer_that_is_counted_late_is_not_assigned_to_the_next_trial() {
    let lateness = Duration::from_millis(250);
    let start = || Metered { lateness, ..Metered::default() }.start();
    // After the warm-up come the second answer and the third; a preflight is one more before them.
    let bench = metered(start(), "auto");
    assert_eq!(bench.run(&[]).code, Some(0));
    assert_eq!(means(&bench, "queue_time"), ["2.000000000", "3.000000000"]);
    let bench = metered(start(), "auto");
    let ran = bench.run_asking_first(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(means(&bench, "queue_time"), ["3.000000000", "4.000000000"]);
    assert!(ran.stderr.contains("server's metrics: ttft 60.00 ms"), "{}", ran.stderr);
}

#[test]
fn answers_that_are_counted_too_late_leave_nothing_to_compare() {
    let lateness = Duration::from_secs(60);
    let bench = metered(Metered { lateness, ..Metered::default() }.start(), "auto");
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let message = "  server's metrics: nothing to compare, since it counts answers more than half a \
                second late\n";
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
    assert_eq!(means(&bench, "queue_time"), ["", ""]);
}

#[test]
fn metrics_that_take_too_long_are_one_warning() {
    let slowness = Duration::from_secs(60);
    let ran = metered(Metered { slowness, ..Metered::default() }.start(), "auto").run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let message = |line: &&str| line.starts_with("WARNING: no metrics of");
    assert_eq!(ran.stderr.lines().filter(message).count(), 1, "{}", ran.stderr);
}

#[test]
fn requests_of_other_clients_leave_nothing_to_compare() {
    let bench = metered(Metered { others: 1, ..Metered::default() }.start(), "auto");
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let message = "  server's metrics: nothing to compare, see results.server.csv\n";
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
}

#[test]
fn unavailable_metrics_are_one_warning_and_no_failure() {
    let port = Metered::default().start();
    for (url, why) in [
        ("\"http://127.0.0.1:1/metrics\"".to_owned(), "Connection refused"),
        (format!("\"http://127.0.0.1:{port}/elsewhere\""), "none of them is vLLM's"),
    ] {
        let ran = metered(port, &url).run(&[]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let warnings: Vec<_> =
            ran.stderr.lines().filter(|line| line.starts_with("WARNING: no metrics of")).collect();
        assert!(matches!(warnings[..], [line] if line.contains(why)), "{}", ran.stderr);
    }
}

#[test]
fn a_model_without_requests_has_no_server_metrics() {
    let port = Metered::default().start();
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\n\
         defaults: {{ metrics_url: auto }}\nmodels:\n  \
         m: {{ base_url: \"http://127.0.0.1:{port}\" }}\n  \
         dead: {{ base_url: \"http://127.0.0.1:9\" }}\n"
    ));
    let ran = bench.run_asking_first(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let rows = records(&bench.folder.path().join("results.server.csv"));
    assert!(!rows.is_empty());
    assert!(rows.iter().all(|row| &row[0] == "m"), "{rows:?}");
}
