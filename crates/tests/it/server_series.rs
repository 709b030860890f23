//! The server's metrics and the power of its GPUs while a load runs, and what they cost.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{Script, ServerCapacity, Simulator};
use serde_json::Value;

use crate::{
    bench::{Bench, ran, records},
    page::assert_rounded,
    wait,
};

/// A server with two slots whose answers of 20 tokens take about 0.2 s.
fn two_slots() -> Simulator {
    let base = Duration::from_millis(10);
    let capacity = ServerCapacity { slots: 2, base, ..ServerCapacity::default() };
    let script = Script { capacity: Some(capacity), tokens: 20, ..Script::default() };
    Simulator::start(script, &OpenAiChat).unwrap()
}

/// The URL of an exporter that answers each request with `text` of the seconds since its start.
fn exporter(text: impl Fn(f64) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    let (started, text) = (Instant::now(), Arc::new(text));
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let text = text.clone();
            thread::spawn(move || answer(socket, &text(started.elapsed().as_secs_f64())));
        }
    });
    url
}

/// Answers one request with `body`, or with an error if that is empty.
fn answer(mut socket: TcpStream, body: &str) {
    let reader = BufReader::new(socket.try_clone().unwrap());
    if reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count() == 0 {
        return;
    }
    let status = if body.is_empty() { "503 Service Unavailable" } else { "200 OK" };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    // The client may have waited long enough.
    let _ = socket.write_all((head + body).as_bytes());
}

/// Two GPUs, of which one takes 100 W and 40 W more each second.
fn watts(second: f64) -> String {
    let line = |gpu: u32, watts: f64| {
        format!("DCGM_FI_DEV_POWER_USAGE{{gpu=\"{gpu}\",UUID=\"GPU-{gpu}\"}} {watts:.6}\n")
    };
    line(0, 100.0 + 40.0 * second) + &line(1, 60.0)
}

/// A bench of one model with these lines, and one load.
fn bench(url: &str, model: &str, load: &str) -> Bench {
    Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n  \
         m: {{ base_url: \"{url}\", max_tokens: 20, {model} }}\nworkloads:\n  load: {{ {load} }}\n"
    ))
}

/// The rows of `results.server_series.csv` as maps from column to cell.
fn series(bench: &Bench) -> Vec<Vec<(String, String)>> {
    let path = bench.folder.path().join("results.server_series.csv");
    let text = fs::read_to_string(&path).unwrap();
    let heads: Vec<_> = text.lines().next().unwrap().split(',').map(str::to_owned).collect();
    let named = |row: &csv::StringRecord| {
        heads.iter().cloned().zip(row.iter().map(str::to_owned)).collect()
    };
    records(&path).iter().map(named).collect()
}

/// The rows of a source that have a value in a column, with their times.
fn values(bench: &Bench, source: &str, column: &str) -> Vec<(f64, f64)> {
    let cell = |row: &[(String, String)], name: &str| {
        row.iter().find(|(head, _)| head == name).map(|(_, cell)| cell.clone()).unwrap()
    };
    let rows = series(bench);
    let rows = rows.iter().filter(|row| cell(row, "source") == source);
    let rows = rows.filter(|row| !cell(row, column).is_empty());
    rows.map(|row| (cell(row, "at").parse().unwrap(), cell(row, column).parse().unwrap())).collect()
}

fn json(bench: &Bench) -> Value {
    serde_json::from_slice(&fs::read(bench.folder.path().join("run.json")).unwrap()).unwrap()
}

/// The integral of the power from 0 to `end` by the trapezoidal rule, of samples that reach beyond
/// both.
fn area(samples: &[(f64, f64)], end: f64) -> f64 {
    let mut sum = 0.0;
    for pair in samples.windows(2) {
        let ((from, low), (to, high)) = (pair[0], pair[1]);
        let at = |time: f64| low + (high - low) * (time - from) / (to - from);
        let (begin, end) = (from.clamp(0.0, end), to.clamp(0.0, end));
        sum += (at(begin) + at(end)) / 2.0 * (end - begin);
    }
    sum
}

#[test]
fn a_load_has_the_servers_state_over_its_time_and_its_energy_and_cost() {
    let (simulator, power) = (two_slots(), exporter(watts));
    let model = format!("metrics_url: auto, power_url: \"{power}\", gpus: 2, cost_per_hour: 36");
    let thresholds = "thresholds: [\"output_throughput_per_gpu >= 1\", \
                      \"cost_per_million_output_tokens <= 1000000\"]";
    let load = format!("concurrency: 4, duration: 4s, {thresholds}");
    let bench = bench(&simulator.url(), &model, &load);
    let ran = bench.run(&["load", "--json", "run.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    let json = json(&bench);
    let (group, load) = (&json["groups"][0], &json["groups"][0]["loads"][0]);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number: {load}"));
    // Two of four run and two wait, whenever the server is asked.
    let gauges = &load["server"]["gauges"];
    assert_eq!(number(&gauges["running"]["max"]), 2.0);
    assert_eq!(number(&gauges["waiting"]["max"]), 2.0);
    let waiting = values(&bench, "metrics_url", "waiting");
    let within = waiting.iter().filter(|(at, _)| *at >= 0.0 && *at <= number(&load["seconds"]));
    let within: Vec<_> = within.map(|(_, waiting)| *waiting).collect();
    assert!(within.len() >= 3, "{waiting:?}");
    let mean = within.iter().sum::<f64>() / within.len() as f64;
    assert!((number(&gauges["waiting"]["mean"]) - mean).abs() < 1e-9);
    assert_eq!(load["server"]["scrapes"], waiting.len());
    assert_eq!(load["server"]["synthetic_text"], false);
    assert!(load["server"]["acceptance"].is_null(), "{load}");

    // The area under the samples' power: the CSV has three decimals of each.
    let samples = values(&bench, "power_url", "power");
    let joules = number(&load["energy"]["joules"]);
    let expected = area(&samples, number(&load["seconds"]));
    assert!((joules / expected - 1.0).abs() < 1e-3, "{joules} {expected}");
    assert_eq!(load["energy"]["gpus"], 2);
    let tokens = number(&load["output_throughput"]) * number(&load["seconds"]);
    let mean = |metric: &str| number(&group["metrics"][metric]["mean"]);
    assert!((mean("energy_per_output_token") / (joules / tokens) - 1.0).abs() < 1e-9);

    // The cost, and its interval, are those of the throughput.
    let throughput = &group["metrics"]["output_throughput"];
    let cost = |throughput: &Value| 36.0 / 3600.0 / number(throughput) * 1e6;
    let found = &group["metrics"]["cost_per_million_output_tokens"];
    let (of, by) = (&throughput["intervals"]["mean"], &found["intervals"]["mean"]);
    for (found, expected) in [
        (&found["mean"], cost(&throughput["mean"])),
        (&by["low"], cost(&of["high"])),
        (&by["high"], cost(&of["low"])),
    ] {
        assert!((number(found) / expected - 1.0).abs() < 1e-9, "{found} {expected}");
    }
    assert!(
        (mean("output_throughput_per_gpu") * 2.0 / mean("output_throughput") - 1.0).abs() < 1e-9
    );
    let per_gpu = &group["metrics"]["output_throughput_per_gpu"]["intervals"]["mean"]["low"];
    assert!((number(per_gpu) * 2.0 / number(&of["low"]) - 1.0).abs() < 1e-9);
    for line in ["  server over time: running ", "  energy: "] {
        assert!(ran.stderr.contains(line), "{line}: {}", ran.stderr);
    }
}

#[test]
fn an_energy_that_is_unknown_is_absent_with_its_reason_and_harms_no_load() {
    let simulator = two_slots();
    let threshold = "concurrency: 2, duration: 3500ms, \
                     thresholds: [\"energy_per_output_token <= 1000 J/tok\"]";
    for (text, gpus, why, reason) in [
        (String::new(), 2, "HTTP 503 Service Unavailable", "power_unread"),
        (
            "up 1\n".to_owned(),
            2,
            "there is no DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
            "power_unread",
        ),
        (watts(1.0), 8, "the exporter has 2 GPUs, and `gpus` is 8", "power_of_other_gpus"),
    ] {
        let power = exporter(move |_| text.clone());
        let model = format!("power_url: \"{power}\", gpus: {gpus}");
        let bench = bench(&simulator.url(), &model, threshold);
        let ran = bench.run(&["load", "--json", "run.json"]);
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        assert!(ran.stdout.contains("test m::load::run-1 ... bench:"), "{}", ran.stdout);
        let json = json(&bench);
        let energy = &json["groups"][0]["loads"][0]["energy"];
        assert!(energy["missing"].as_str().unwrap().starts_with(why), "{energy}");
        assert!(energy["joules"].is_null(), "{energy}");
        let because = &json["groups"][0]["metrics"]["energy"]["lacking_because"];
        assert_eq!(because[reason], 1, "{because}");
        assert!(ran.stderr.contains(&format!("  no energy: {why}")), "{}", ran.stderr);
    }
}

#[test]
fn a_scrape_that_takes_too_long_is_a_gap_of_the_series() {
    let simulator = two_slots();
    let power = exporter(|_| {
        thread::sleep(Duration::from_secs(60));
        String::new()
    });
    let model = format!("metrics_url: auto, power_url: \"{power}\"");
    let bench = bench(&simulator.url(), &model, "concurrency: 2, duration: 3500ms");
    let ran = bench.run(&["load", "--json", "run.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let rows = series(&bench);
    let gaps: Vec<_> = rows
        .iter()
        .filter(|row| row.contains(&("source".into(), "power_url".into())))
        .map(|row| row.iter().find(|(head, _)| head == "gap").unwrap().1.clone())
        .collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| !gap.is_empty()), "{gaps:?}");
    assert!(values(&bench, "metrics_url", "running").len() >= 3);
    assert!(ran.stderr.contains("  no energy: "), "{}", ran.stderr);
}

#[test]
fn a_request_is_scraped_only_after_its_first_second_and_has_no_cost() {
    let slow = Script { ttft: Duration::from_millis(2500), tokens: 2, ..Script::default() };
    let slow = Simulator::start(slow, &OpenAiChat).unwrap();
    let quick = Script { tokens: 2, ..Script::default() };
    let quick = Simulator::start(quick, &OpenAiChat).unwrap();
    for (simulator, is_scraped) in [(slow, true), (quick, false)] {
        let power = exporter(watts);
        let model = format!("power_url: \"{power}\", gpus: 2, cost_per_hour: 36");
        let threshold = "thresholds: [\"cost_per_million_output_tokens <= 1000000\"]";
        let model = format!("{model}, {threshold}");
        let bench = bench(&simulator.url(), &model, "concurrency: 1, requests: 1");
        let ran = bench.run(&["hello", "--no-warmup"]);
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        assert!(ran.stderr.contains("cost_per_million_output_tokens"), "{}", ran.stderr);
        let at = values(&bench, "power_url", "power");
        assert_eq!(!at.is_empty(), is_scraped, "{at:?}");
        assert!(at.iter().all(|(at, _)| *at >= 1.0), "{at:?}");
    }
}

#[test]
fn the_page_and_the_stored_run_show_the_server_over_time() {
    let (simulator, power) = (two_slots(), exporter(watts));
    let model = format!("metrics_url: auto, power_url: \"{power}\", gpus: 2, cost_per_hour: 36");
    let bench = bench(&simulator.url(), &model, "concurrency: 4, duration: 3500ms");
    let run = ["run", "--no-calibration", "--output-dir", "out", "load"];
    let ended = ran(&mut bench.binary(&run));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let folder = bench.folder.path().join("out");
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    let json = fs::read_to_string(folder.join("run.json")).unwrap();
    assert_rounded(&page, &[&serde_json::from_str(&json).unwrap()]);
    for part in
        ["/server/gauges/waiting/max", "/server/gauges/kv_cache_use/max", "data-n=\"waiting\""]
    {
        assert!(page.contains(part), "{part}");
    }
    let shown = ran(&mut bench.binary(&["show", "out"]));
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    for part in ["Cost and energy", "cost_per_million_output_tokens", "Server over time"] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
}

#[test]
fn a_figure_of_the_machine_is_absent_without_its_key_and_for_a_part_of_a_load() {
    let bench = Bench::new(
        "runs: 1\nprompts:\n  - { name: chat, text: \"Say hello.\" }\n  \
         - { name: code, text: \"Say goodbye.\" }\n\
         models: { m: { cost_per_hour: 36, simulate: { ttft: 5ms, itl: 5ms, tokens: 6 } } }\n\
         workloads:\n  load:\n    concurrency: 2\n    requests: 8\n    mix: { chat: 1, code: 1 }\n    \
         thresholds: [\"output_throughput_per_gpu >= 1\", \
         \"@chat cost_per_million_output_tokens <= 1000000\"]\n",
    );
    let ran = bench.run(&["load"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    for why in ["1 without `gpus`", "1 of a part of a load, which shares its machine"] {
        assert!(ran.stderr.contains(why), "{why}: {}", ran.stderr);
    }
    assert!(ran.stderr.contains("  cost_per_million_output"), "{}", ran.stderr);
}

#[cfg(unix)]
#[test]
fn a_cancelled_load_does_not_wait_for_an_exporter_that_hangs() {
    let simulator = two_slots();
    let power = exporter(|_| {
        thread::sleep(Duration::from_secs(60));
        String::new()
    });
    let model = format!("metrics_url: auto, power_url: \"{power}\"");
    let bench = bench(&simulator.url(), &model, "concurrency: 4, duration: 10m");
    let mut child = bench.start(&["load"]);
    wait::until("rows", || {
        let rows = fs::read_to_string(bench.folder.path().join("results.csv"));
        rows.is_ok_and(|rows| rows.lines().count() > 4)
    });
    child.signal("INT");
    assert_eq!(child.end().code(), Some(130));
    // What was scraped until then is kept.
    assert!(!values(&bench, "metrics_url", "running").is_empty());
}

#[test]
fn counters_become_shares_over_the_load_and_synthetic_text_is_marked() {
    let simulator = two_slots();
    let metrics = exporter(|second| {
        let line = |name: &str, each_second: f64| format!("vllm:{name} {}\n", each_second * second);
        [
            line("spec_decode_num_draft_tokens_total", 1000.0),
            line("spec_decode_num_accepted_tokens_total", 600.0),
            line("prefix_cache_queries_total", 1000.0),
            line("prefix_cache_hits_total", 250.0),
            "vllm:num_preemptions_total 7\n".to_owned(),
        ]
        .concat()
    });
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: made, synthetic: {{ input_tokens: 200 }} }}]\n\
         models: {{ m: {{ base_url: \"{}\", max_tokens: 20, metrics_url: \"{metrics}\" }} }}\n\
         workloads: {{ load: {{ concurrency: 2, duration: 1200ms }} }}\n",
        simulator.url()
    ));
    let ran = bench.run(&["load", "--json", "run.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let server = &json(&bench)["groups"][0]["loads"][0]["server"];
    let share = |name: &str| server[name]["share"].as_f64().unwrap_or_else(|| panic!("{server}"));
    assert!((share("acceptance") - 0.6).abs() < 1e-9, "{server}");
    assert!((share("cache_hits") - 0.25).abs() < 1e-9, "{server}");
    assert_eq!((&server["preemptions"], &server["synthetic_text"]), (&0.0.into(), &true.into()));
    let line = "0 preemptions; prefix cache hits 25.00 %; draft tokens accepted 60.00 %, of synthetic text";
    assert!(ran.stderr.contains(line), "{}", ran.stderr);
}
