//! Memory: flat in the number of requests and trials, and bounded in total when servers flood their
//! answers. The peak of a process is its `VmHWM`.

use std::{fs, thread, time::Duration};

use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{Script, Simulator};

use crate::{
    bench::{Bench, Ran},
    http::{STREAM, chunked},
    player::{CHUNKED, Step, chunk, plays},
    wait::{self, Process},
};

/// Runs the config, and returns the peak of its memory in kB.
fn peak(bench: &Bench, arguments: &[&str]) -> (Ran, u64) {
    let process = Process::start(&mut bench.command(arguments));
    let status = format!("/proc/{}/status", process.id());
    let watch = thread::spawn(move || {
        let mut peak = 0;
        // A process that has ended has no memory any more.
        while let Some(now) = fs::read_to_string(&status).ok().as_deref().and_then(high_water) {
            peak = now.max(peak);
            thread::sleep(Duration::from_millis(5));
        }
        peak
    });
    let ended = process.output();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran =
        Ran { code: ended.status.code(), stdout: text(ended.stdout), stderr: text(ended.stderr) };
    (ran, wait::joined(watch))
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// A simulated endpoint that answers at once, in this process.
fn quick() -> Simulator {
    let script =
        Script { ttft: Duration::ZERO, itl: Duration::ZERO, tokens: 4, ..Script::default() };
    Simulator::start(script, &OpenAiChat).unwrap().briefly_logged()
}

#[test]
fn the_memory_of_a_load_does_not_grow_with_its_requests() {
    let server = quick();
    let of = |requests: u32| {
        let bench = Bench::new(&format!(
            "models: {{ m: {{ base_url: \"{}\", max_tokens: 4 }} }}\n\
             prompts: [{{ name: hello, text: Hello }}]\n\
             thresholds: [\"ttft p99 <= 10 s\"]\n\
             workloads:\n  \
               flood: {{ concurrency: 16, requests: {requests}, runs: 1, thresholds: [\"ttft median <= 10 s\"] }}\n",
            server.url()
        ));
        let (ran, peak) = peak(&bench, &["flood", "--json", "run.json", "--junit", "run.xml"]);
        let rows = bench.column("success");
        assert_eq!(rows.len(), requests as usize, "{}", ran.stderr);
        assert!(rows.iter().all(|success| success == "true"));
        peak
    };
    let (few, many) = (of(2_000), of(20_000));
    assert!(many < few + few / 8, "{few} kB with 2,000 requests, {many} kB with 20,000");
}

#[test]
fn figures_of_a_long_run_are_those_of_its_rows() {
    let server = quick();
    let url = server.url();
    // The models take turns.
    let bench = Bench::by_default(&format!(
        "models: {{ a: {{ base_url: \"{url}\" }}, b: {{ base_url: \"{url}\" }} }}\n\
         prompts: [{{ name: hello, text: Hello }}]\n\
         runs: 1300\n"
    ));
    let ran = bench.run(&["--json", "run.json", "--junit", "run.xml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let all: Vec<f64> =
        bench.column("preprocess_time").iter().map(|cell| cell.parse().unwrap()).collect();
    let models = bench.column("model_name");
    let read = |name: &str| fs::read_to_string(bench.folder.path().join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("run.json")).unwrap();
    for (nth, model) in ["a", "b"].into_iter().enumerate() {
        let ttft = &json["groups"][nth]["metrics"]["ttft"];
        let rows = models.iter().zip(&all).filter(|(of, _)| *of == model);
        let mut rows: Vec<f64> = rows.map(|(_, value)| *value).collect();
        let mean = rows.iter().sum::<f64>() / 1_300.0;
        rows.sort_by(f64::total_cmp);
        assert_eq!((&ttft["n"], rows.len()), (&1_300.into(), 1_300));
        let figure = |name: &str| ttft[name].as_f64().unwrap();
        assert_eq!((figure("min"), figure("max")), (rows[0], rows[1_299]));
        assert!((figure("median") - f64::midpoint(rows[649], rows[650])).abs() < 1e-12);
        assert!((figure("mean") - mean).abs() < 1e-12);
    }
    // Each trial has its entry, in the order of the run, with the figure of its row.
    let trials = json["trials"].as_array().unwrap();
    let figures: Vec<_> = trials.iter().map(|of| of["figures"]["ttft"].as_f64().unwrap()).collect();
    assert_eq!(figures, all);
    let names: Vec<_> = trials.iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert_eq!(names, bench.column("trial"));
    let xml = read("run.xml");
    assert_eq!(xml.matches("<testcase ").count(), 2_600);
    assert!(xml.contains("tests=\"2600\" skipped=\"0\""), "{}", &xml[..400]);
}

/// Bytes that a server repeats for ever, after a beginning.
struct Flood {
    name: &'static str,
    /// The kind of failure, or none for a valid answer.
    kind: &'static str,
    begin: Vec<u8>,
    piece: Vec<u8>,
}

fn floods() -> Vec<Flood> {
    let of =
        |name, kind, begin: &[u8], piece: Vec<u8>| Flood { name, kind, begin: begin.into(), piece };
    let stream = CHUNKED.as_bytes();
    let event = |delta: &str| {
        chunk(
            format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{{delta}}}}}]}}\n\n").as_bytes(),
        )
    };
    let long = "word ".repeat(8_000);
    let many = |piece: Vec<u8>| piece.repeat((1 << 16) / piece.len() + 1);
    let error = "HTTP/1.1 500 Internal Server Error\r\ntransfer-encoding: chunked\r\n\r\n";
    let junk = [STREAM.as_bytes(), b"data: [DONE]\n\n"].concat();
    let whole = [stream, &chunk(&junk)].concat();
    vec![
        of("content", "too_long", stream, event(&format!("\"content\":\"{long}\""))),
        of("line", "too_long", stream, chunk(long.as_bytes())),
        of("comments", "too_long", stream, many(chunk(b": ping\n\n"))),
        of("tokens", "too_long", stream, many(event("\"content\":\"a\""))),
        of("reasoning", "too_long", stream, event(&format!("\"reasoning_content\":\"{long}\""))),
        of(
            "tools",
            "too_long",
            stream,
            event(&format!(
                "\"tool_calls\":[{{\"index\":0,\"function\":{{\"arguments\":\"{long}\"}}}}]"
            )),
        ),
        of("extension", "broken", &[stream, b"1;"].concat(), long.as_bytes().to_vec()),
        of("head", "broken", b"HTTP/1.1 200 OK\r\n", many(b"a: bbbbbbbbbbbbbbbb\r\n".to_vec())),
        of("error", "http_status", error.as_bytes(), chunk(long.as_bytes())),
        of("junk", "", &whole, many(chunk(b"data: junk\n\n"))),
    ]
}

/// A server that floods the answers to requests that name a flood, and answers the others.
fn flooding() -> String {
    plays(|body| {
        let body = String::from_utf8_lossy(body);
        let asked = |flood: &Flood| body.contains(&format!("flood-{}", flood.name));
        match floods().into_iter().find(asked) {
            Some(Flood { begin, piece, .. }) => vec![Step::Write(begin), Step::Flood(piece)],
            // Faster than the client may wait, and smaller than its limits.
            None if body.contains("flood-drip") => {
                let ping = Step::Write(chunk(": ping\n\n".repeat(500).as_bytes()));
                let pings = (0..20_000)
                    .flat_map(|_| [ping.clone(), Step::Sleep(Duration::from_micros(100))]);
                [Step::Write(CHUNKED.into())].into_iter().chain(pings).collect()
            }
            None => vec![Step::Write(chunked(STREAM))],
        }
    })
    .0
}

#[test]
fn floods_fail_by_name_within_the_memory_and_later_trials_go_on() {
    let url = flooding();
    let floods = floods();
    let mut config = "max_memory: 16 MB\ndefaults: { prefix_cache: reuse }\nmodels:\n".to_owned();
    for transport in ["stamped", "reqwest"] {
        config.push_str(&format!(
            "  {transport}: {{ base_url: \"{url}\", transport: {transport} }}\n"
        ));
    }
    config.push_str("prompts:\n  - { name: calm, text: Hello }\n");
    for Flood { name, .. } in &floods {
        config.push_str(&format!("  - {{ name: {name}, text: flood-{name} }}\n"));
    }
    config.push_str("runs: 1\nworkloads:\n");
    for Flood { name, .. } in &floods {
        config.push_str(&format!(
            "  all-{name}: {{ concurrency: 4, requests: 4, runs: 1, prompts: [{name}] }}\n  \
             after-{name}: {{ concurrency: 2, requests: 4, runs: 1, prompts: [calm] }}\n"
        ));
    }
    let bench = Bench::new(&config);
    let (ran, peak) = peak(&bench, &["all-", "after-"]);
    let (loads, kinds) = (bench.column("workload"), bench.column("error_kind"));
    let (models, messages) = (bench.column("model_name"), bench.column("error_message"));
    for transport in ["stamped", "reqwest"] {
        for Flood { name, kind, .. } in &floods {
            let of = |load: String| -> Vec<_> {
                let is_of = |nth: &usize| models[*nth] == transport && loads[*nth] == load;
                (0..loads.len()).filter(is_of).map(|nth| kinds[nth].as_str()).collect()
            };
            assert_eq!(of(format!("all-{name}")), [*kind; 4], "{transport} {}", ran.stderr);
            assert_eq!(of(format!("after-{name}")), [""; 4], "{transport} {name} {}", ran.stderr);
        }
    }
    let told = messages.iter().find(|message| message.contains("max_memory")).expect("a message");
    assert!(told.contains("all answers together reached 16 MB (`max_memory`)"), "{told}");
    // The process itself takes 25 MB; without a limit there are 4 answers of 256 MiB.
    assert!(peak < 130_000, "{peak} kB");
}

#[test]
fn a_flood_does_not_outlive_its_timeouts_nor_starve_its_neighbours() {
    let url = flooding();
    let mut config = "defaults: { timeouts: { total: 2s } }\nmodels:\n".to_owned();
    for transport in ["stamped", "reqwest"] {
        config.push_str(&format!(
            "  {transport}: {{ base_url: \"{url}\", transport: {transport} }}\n"
        ));
    }
    config.push_str(
        "max_memory: 20 GB\nruns: 1\n\
         prompts: [{ name: calm, text: Hello }, { name: slow, text: flood-drip }]\n\
         workloads: { mixed: { concurrency: 2, requests: 6, runs: 1 } }\n",
    );
    let bench = Bench::new(&config);
    let ran = bench.run(&["mixed"]);
    let (names, kinds) = (bench.column("prompt"), bench.column("error_kind"));
    assert_eq!(kinds.len(), 12, "{}", ran.stderr);
    for (name, kind) in names.iter().zip(&kinds) {
        let expected = if name == "slow" { "total_timeout" } else { "" };
        assert_eq!(kind, expected, "{name} {}", ran.stderr);
    }
}
