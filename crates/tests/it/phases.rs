//! The phases of a load, and loads that stop before their end, through the front door.

use std::fs;

use serde_json::Value;

use crate::bench::{Bench, Ran, passed, ran, records};

/// A simulated server `m` with this load.
fn bench(load: &str) -> Bench {
    with_server("{ ttft: 20ms, itl: 5ms, tokens: 5 }", load)
}

/// An open loop on a server so slow that a busy client is not late.
fn open(load: &str) -> Bench {
    with_server("{ ttft: 400ms, itl: 5ms, tokens: 5 }", load)
}

fn with_server(simulate: &str, load: &str) -> Bench {
    Bench::new(&format!(
        "prompts: [{{ name: hello, text: \"Say hello.\" }}, {{ name: bye, text: \"Say bye.\" }}]\n\
         runs: 1\nmodels: {{ m: {{ simulate: {simulate} }} }}\nworkloads:\n  w: {load}\n"
    ))
}

fn run(bench: &Bench) -> Ran {
    bench.run(&["::w::", "--json", "run.json"])
}

fn run_json(bench: &Bench) -> Value {
    let text = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A row of the requests, as far as phases are concerned.
#[derive(Debug, Clone)]
struct Span {
    begun: f64,
    ended: f64,
    ttft: f64,
    e2e: f64,
}

fn spans(bench: &Bench) -> Vec<Span> {
    let numbers = |name: &str| -> Vec<f64> {
        bench.column(name).iter().map(|cell| cell.parse().unwrap()).collect()
    };
    let (begun, total) = (numbers("begun"), numbers("total_time"));
    let (ttft, e2e) = (numbers("preprocess_time"), numbers("e2e"));
    let span = |nth: usize| Span {
        begun: begun[nth],
        ended: begun[nth] + total[nth],
        ttft: ttft[nth],
        e2e: e2e[nth],
    };
    (0..begun.len()).map(span).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<_> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Checks that the figures are those of the requests that started in the measured part, and returns
/// when that was.
fn check(bench: &Bench) -> (f64, f64) {
    let (json, spans) = (run_json(bench), spans(bench));
    let group = &json["groups"][0];
    let load = &group["loads"][0];
    let part = &load["measured"];
    let time = |name: &str| part[name].as_f64().unwrap();
    let (from, to) = (time("from"), time("to"));
    let inside: Vec<_> =
        spans.iter().filter(|span| span.begun >= from - 1e-9 && span.begun <= to + 1e-9).collect();
    assert_eq!(load["requests"], inside.len());
    assert_eq!(part["requests_of_load"], spans.len());
    assert!(inside.len() < spans.len(), "{part}");
    let figures = &group["metrics"];
    assert_eq!(figures["ttft"]["n"], inside.len());
    let close = |value: &Value, expected: f64| {
        assert!((value.as_f64().unwrap() / expected - 1.0).abs() < 1e-6, "{value} {expected}");
    };
    close(&figures["ttft"]["mean"], mean(inside.iter().map(|span| span.ttft)));
    close(&figures["e2e"]["mean"], mean(inside.iter().map(|span| span.e2e)));
    close(&part["means_of_load"]["ttft"], mean(spans.iter().map(|span| span.ttft)));
    // A request that is partly inside counts by that part of its time.
    let share = |span: &Span| {
        (span.ended.min(to) - span.begun.max(from)).max(0.0) / (span.ended - span.begun)
    };
    let requests: f64 = spans.iter().map(share).sum();
    let throughput = load["request_throughput"].as_f64().unwrap();
    // The end of a request and that of its span differ by microseconds.
    assert!((requests / (to - from) / throughput - 1.0).abs() < 0.01, "{requests} {throughput}");
    let row = &records(&bench.folder.path().join("results.workloads.csv"))[0];
    let header = fs::read_to_string(bench.folder.path().join("results.workloads.csv")).unwrap();
    let place = header.lines().next().unwrap().split(',').position(|it| it == "measured_from");
    assert_eq!(row[place.unwrap()].parse::<f64>().unwrap(), (from * 1e9).round() / 1e9);
    (from, to)
}

#[test]
fn a_warm_up_by_time_counts_for_no_figure_and_the_duration_follows_it() {
    let bench = bench("{ concurrency: 4, duration: 500ms, warm_up: 300ms }");
    let ran = run(&bench);
    passed(&ran);
    let (from, to) = check(&bench);
    assert_eq!(from, 0.3);
    assert!((0.7..0.8).contains(&to), "{to}");
    assert!(ran.stderr.contains("4 at a time, 500ms, warm-up 0.3 s: 1 run"), "{}", ran.stderr);
    assert!(ran.stderr.contains("  measured 0.300 to 0."), "{}", ran.stderr);
    assert!(ran.stderr.contains("; the whole load: ttft "), "{}", ran.stderr);
}

#[test]
fn a_warm_up_by_number_counts_for_no_figure_and_the_requests_follow_it() {
    let bench = bench("{ concurrency: 4, requests: 30, warm_up: 12 }");
    passed(&run(&bench));
    check(&bench);
    assert_eq!(spans(&bench).len(), 42);
    let mut numbers: Vec<_> = bench.column("request").into_iter().zip(spans(&bench)).collect();
    numbers.sort_by_key(|(number, _)| number.parse::<usize>().unwrap());
    // Counting begins with the 13th request.
    let (number, first) = &numbers[12];
    let from = run_json(&bench)["groups"][0]["loads"][0]["measured"]["from"].as_f64().unwrap();
    assert!((first.begun - from).abs() < 1e-6, "{number} {first:?} {from}");
}

#[test]
fn a_closed_loop_grows_over_its_ramp() {
    let bench = bench("{ concurrency: 10, requests: 100, ramp: 1s }");
    passed(&run(&bench));
    let (from, _) = check(&bench);
    assert_eq!(from, 1.0);
    let spans = spans(&bench);
    for start in spans.iter().filter(|span| span.begun < 1.0) {
        let at = start.begun;
        let open = spans.iter().filter(|span| span.begun <= at && span.ended > at + 1e-3).count();
        assert!(open as f64 <= 10.0 * at + 1.0, "{open} at {at}");
    }
    assert!(spans.iter().filter(|span| span.begun < 1.0).count() > 20);
    assert_eq!(spans.iter().filter(|span| span.begun >= 1.0).count(), 100);
}

#[test]
fn the_arrivals_of_an_open_loop_grow_over_its_ramp() {
    let scheduled = |ramp: &str| -> Vec<f64> {
        let bench = open(&format!("{{ rate: 60/s, requests: 60{ramp} }}"));
        passed(&run(&bench));
        let mut times: Vec<f64> =
            bench.column("scheduled").iter().map(|cell| cell.parse().unwrap()).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let (plain, ramped) = (scheduled(""), scheduled(", ramp: 1s"));
    assert!(ramped.iter().filter(|at| **at >= 1.0).count() >= 60, "{}", ramped.len());
    for (plain, ramped) in plain.iter().zip(&ramped) {
        let expected = if *plain < 0.5 { (2.0 * plain).sqrt() } else { plain + 0.5 };
        assert!((ramped - expected).abs() < 1e-6, "{plain} {ramped}");
    }
}

#[test]
fn a_window_set_by_hand_and_parts_of_a_mix_have_the_same_time() {
    let bench = open(
        "{ rate: 80/s, requests: 80, steady_state: { from: 200ms, to: 700ms }, \
         mix: { hello: 1, bye: 1 }, thresholds: [\"@bye ttft median <= 100 s\"] }",
    );
    passed(&run(&bench));
    let (from, to) = check(&bench);
    assert_eq!((from, to), (0.2, 0.7));
    let json = run_json(&bench);
    let n = |nth: usize| json["groups"][nth]["metrics"]["ttft"]["n"].as_u64().unwrap();
    assert_eq!(n(1) + n(2), n(0));
    for part in [1, 2] {
        let load = &json["groups"][part]["loads"][0];
        assert_eq!(load["measured"]["from"], 0.2);
        assert_eq!(load["requests"], n(part));
    }
}

#[test]
fn a_steady_state_is_found_and_a_growing_queue_has_none() {
    let steady = bench("{ concurrency: 4, requests: 200, steady_state: auto }");
    passed(&run(&steady));
    let (_, to) = check(&steady);
    let last = spans(&steady).iter().map(|span| span.begun).fold(0.0, f64::max);
    assert!(to < last - 0.03, "the drain is cut: {to} {last}");
    // Two requests at a time take 50 ms each: 40 a second.
    let queue = with_server(
        "{ slots: 2, tokens: 5, decode: { base: 10ms } }",
        "{ rate: 70/s, requests: 200, steady_state: auto }",
    );
    let ran = run(&queue);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("no steady state: `ttft` keeps changing during the load"),
        "{}",
        ran.stderr
    );
    assert_eq!(run_json(&queue)["groups"][0]["metrics"].get("ttft"), None);
    let short = bench("{ concurrency: 4, requests: 8, steady_state: auto }");
    let ran = run(&short);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(ran.stderr.contains("too few to find a steady state"), "{}", ran.stderr);
}

#[test]
fn a_load_that_ends_within_its_warm_up_is_invalid() {
    let bench = bench("{ concurrency: 2, duration: 100ms, steady_state: { from: 10s } }");
    let ran = run(&bench);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let why = "no request started after the ramp and the warm-up";
    assert!(ran.stderr.contains(why), "{}", ran.stderr);
}

#[test]
fn a_resumed_load_has_the_measured_part_of_the_first_run() {
    for load in [
        "{ concurrency: 4, requests: 150, warm_up: 10, steady_state: auto }",
        "{ concurrency: 4, requests: 30, warm_up: 12, ramp: 100ms }",
    ] {
        let bench = bench(load);
        let arguments = ["run", "--no-calibration", "::w::", "--output-dir"];
        let first = ran(&mut bench.binary(&[&arguments[..], &["first"]].concat()));
        passed(&first);
        let again = [&arguments[..], &["again", "--resume", "first"]].concat();
        passed(&ran(&mut bench.binary(&again)));
        let read = |folder: &str| -> Value {
            let path = bench.folder.path().join(folder).join("run.json");
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
        };
        let load = |folder: &str| {
            let mut load = read(folder)["groups"][0]["loads"][0].clone();
            // The table has four digits of it.
            load["receiver_busy"] = Value::Null;
            load
        };
        assert_eq!(load("first"), load("again"));
    }
}

#[test]
fn the_page_draws_the_requests_of_the_measured_part() {
    let bench = bench("{ concurrency: [2, 4], requests: 30, warm_up: 20 }");
    let arguments = ["run", "--no-calibration", "::w@", "--output-dir", "first"];
    passed(&ran(&mut bench.binary(&arguments)));
    let folder = bench.folder.path().join("first");
    let page = || {
        passed(&ran(&mut bench.binary(&["report", "first", "--output", "page.html"])));
        let page = fs::read_to_string(bench.folder.path().join("page.html")).unwrap();
        // The load over time has all requests.
        let (start, end) = (page.find("id=\"load\""), page.find("over time ("));
        let charts = page[start.unwrap()..end.unwrap()].to_owned();
        assert!(charts.contains("Table: time to first token of m by load"), "{charts}");
        charts
    };
    let before = page();
    // Requests of the warm-up take a hundred times as long.
    let path = folder.join("requests.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    let edited = lines.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if line["request"].as_u64().unwrap() <= 20 {
            for time in line["token_arrivals_us"].as_array_mut().unwrap() {
                *time = (time.as_f64().unwrap() * 100.0).into();
            }
            line["end_us"] = (line["end_us"].as_f64().unwrap() * 100.0).into();
        }
        line.to_string() + "\n"
    });
    fs::write(&path, edited.collect::<String>()).unwrap();
    assert_eq!(page(), before);
}

#[test]
fn rows_outside_the_measured_part_count_for_no_baseline() {
    let bench = bench("{ concurrency: 4, requests: 40, warm_up: 20 }");
    let arguments = ["run", "--no-calibration", "::w::", "--output-dir", "first"];
    passed(&ran(&mut bench.binary(&arguments)));
    let folder = bench.folder.path().join("first");
    let compared = || {
        let ran = ran(&mut bench.binary(&["compare", "first/results.csv", "first/results.csv"]));
        let line = ran.stdout.lines().find(|line| line.contains("ttft")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{}{}", ran.stdout, ran.stderr))
    };
    let before = compared();
    // Requests of the warm-up become a thousand times as slow.
    let csv = fs::read_to_string(folder.join("results.csv")).unwrap();
    let mut lines = csv.lines();
    let header: Vec<_> = lines.next().unwrap().split(',').collect();
    let place = |name: &str| header.iter().position(|it| *it == name).unwrap();
    let (ttft, request) = (place("preprocess_time"), place("request"));
    let slower = lines.map(|line| {
        let mut cells: Vec<_> = line.split(',').map(str::to_owned).collect();
        if cells[request].parse::<usize>().unwrap() <= 20 {
            cells[ttft] = "20".into();
        }
        cells.join(",")
    });
    let edited: Vec<_> = [header.join(",")].into_iter().chain(slower).collect();
    fs::write(folder.join("results.csv"), edited.join("\n")).unwrap();
    assert_eq!(compared(), before);
}

#[test]
fn failures_stop_a_load_only_as_its_config_says() {
    let faults: Vec<_> =
        (1..=300).map(|nth| format!("{{ status: 503, request: {nth} }}")).collect();
    let server = format!("{{ ttft: 5ms, itl: 2ms, tokens: 3, faults: [{}] }}", faults.join(", "));
    let stopped =
        with_server(&server, "{ concurrency: 4, requests: 300, abort: { failures: 10 % } }");
    let ran = run(&stopped);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    // More requests have ended until the load has stopped.
    for part in [
        "not the load that was asked for: stopped after ",
        " requests: 10 of 10 requests failed, more than 10 % (`abort`), the first: http_status: ",
    ] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    let rows = bench_rows(&stopped);
    assert!((10..300).contains(&rows), "{rows}");
    let whole = with_server(&server, "{ concurrency: 4, requests: 100 }");
    assert_eq!(run(&whole).code, Some(101));
    assert_eq!(bench_rows(&whole), 100);
}

fn bench_rows(bench: &Bench) -> usize {
    bench.column("success").len()
}

#[test]
fn a_load_that_its_limit_holds_back_stops_before_its_end() {
    let bench = with_server(
        "{ slots: 2, tokens: 5, decode: { base: 10ms } }",
        "{ rate: 200/s, requests: 2000, max_in_flight: 6 }",
    );
    let ran = run(&bench);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("not the load that was asked for: stopped after "),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("`max_in_flight` (6) were in flight"), "{}", ran.stderr);
    assert!(bench_rows(&bench) < 500);
}

#[test]
fn mistakes_in_phases_are_refused_where_they_are() {
    for (load, what) in [
        ("{ concurrency: 1, requests: 1, warm_up: 0 }", "configs.yaml:5:46"),
        (
            "{ concurrency: 1, requests: 1, warm_up: [] }",
            "`warm_up` must be a duration, not a list",
        ),
        ("{ concurrency: 1, requests: 1, ramp: 10 }", "`ramp` requires a unit"),
        (
            "{ concurrency: 1, requests: 1, steady_state: yes }",
            "must be `auto` or a map with `from`",
        ),
        (
            "{ concurrency: 1, requests: 1, steady_state: { to: 3s } }",
            "`steady_state` has no `from`",
        ),
        (
            "{ concurrency: 1, requests: 1, steady_state: { from: 3s, to: 2s } }",
            "ends before it begins",
        ),
        (
            "{ concurrency: 1, requests: 1, warm_up: 5, steady_state: { from: 3s } }",
            "`warm_up` cannot be combined with a `from`",
        ),
        (
            "{ find: { max: rate, subject_to: [\"ttft p95 <= 1 s\"] }, requests: 9, steady_state: auto }",
            "`steady_state` cannot be combined with `find`",
        ),
        ("{ concurrency: 1, requests: 1, abort: {} }", "`abort` has no `failures`"),
        ("{ concurrency: 1, requests: 1, abort: { failures: 0 % } }", "a share above 0 %"),
        ("{ concurrency: 1, requests: 1, abort: { failures: 0.1 } }", "a share above 0 %"),
    ] {
        let bench = bench(load);
        let ran = bench.run(&["--list"]);
        assert_eq!(ran.code, Some(2), "{load}: {}", ran.stderr);
        assert!(ran.stderr.contains(what), "{load}: {what}\n{}", ran.stderr);
    }
}
