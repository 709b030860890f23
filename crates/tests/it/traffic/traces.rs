//! Replayed traces: what is sent, when, and what is reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use serde_json::{Value, json};

use crate::{
    bench::{Bench, passed, records},
    requests::Picky,
};

/// Writes `lines` as `trace.jsonl` and the config with the workload `w`.
fn replay(server: &str, lines: &str, workload: &str) -> Bench {
    let bench = Bench::by_default("models: { m: { simulate: {} } }\n");
    let config = format!(
        "runs: 1\nmodels: {{ m: {server} }}\nworkloads:\n  w: {{ {workload} }}\norder: as-listed\n"
    );
    fs::write(bench.folder.path().join("configs.yaml"), config).unwrap();
    fs::write(bench.folder.path().join("trace.jsonl"), lines).unwrap();
    bench
}

fn at(server: &Picky, more: &str) -> String {
    format!("{{ base_url: \"{}\"{more} }}", server.server.uri())
}

/// A trace of `count` requests with blocks of 16 tokens: each begins with those of an earlier one.
fn trace(count: u64) -> (String, Vec<(u64, u64, Vec<u64>)>) {
    let (mut text, mut requests) = (String::new(), Vec::<(u64, u64, Vec<u64>)>::new());
    let mut next = 1000;
    for nth in 0..count {
        let mut ids = match nth % 3 {
            0 => Vec::new(),
            kept => requests[(nth / 2) as usize].2.iter().copied().take(kept as usize).collect(),
        };
        for _ in 0..=nth % 4 {
            ids.push(next);
            next += 7;
        }
        // The last block is shorter, unless it is shared and so has its length already.
        let tokens = 16 * ids.len() as u64 - nth % 5;
        let _ = writeln!(
            text,
            "{}",
            json!({"timestamp": nth * 4, "input_length": tokens, "output_length": 1 + nth % 3, "hash_ids": ids})
        );
        requests.push((tokens, 1 + nth % 3, ids));
    }
    (text, requests)
}

fn text_of(body: &Value) -> &str {
    body["messages"][0]["content"].as_str().unwrap()
}

#[test]
fn equal_blocks_are_equal_texts_in_the_same_place() {
    let server = Picky::new(|_| None);
    let (lines, requests) = trace(60);
    let workload = "trace: { file: trace.jsonl, block_size: 16 }, speed: 2x, runs: 2";
    let bench = replay(&at(&server, ""), &lines, workload);
    bench.run(&["::w::", "--no-warmup"]);
    let bodies = server.bodies();
    assert_eq!(bodies.len(), 120);
    let mut firsts = BTreeSet::new();
    for run in bodies.chunks(60) {
        // By the order of arrival: sorted by what was asked for.
        let mut texts: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        let mut sent: Vec<(u64, u64)> = Vec::new();
        let mut bytes_of = BTreeMap::new();
        for body in run {
            let words: Vec<_> = text_of(body).split(' ').collect();
            sent.push((words.len() as u64, body["max_tokens"].as_u64().unwrap()));
            bytes_of.insert(text_of(body).to_owned(), words.len());
        }
        let mut expected: Vec<_> =
            requests.iter().map(|(input, output, _)| (*input, *output)).collect();
        sent.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sent, expected, "as many words and tokens as recorded");
        // The requests of a run arrive in order, at most some at the same time: each recorded request
        // is found by its length among those that begin as its blocks do.
        let blocks: BTreeSet<String> = run
            .iter()
            .flat_map(|body| {
                let words: Vec<_> = text_of(body).split(' ').collect();
                words.chunks_exact(16).map(|block| block.join(" ")).collect::<Vec<_>>()
            })
            .collect();
        let whole: BTreeSet<u64> = requests
            .iter()
            .flat_map(|(input, _, ids)| ids.iter().copied().take((input / 16) as usize))
            .collect();
        assert_eq!(blocks.len(), whole.len(), "the union of the whole blocks");
        for ((_, _, ids), body) in requests.iter().zip(in_order(run, &requests)) {
            let words: Vec<_> = text_of(body).split(' ').collect();
            for (id, block) in ids.iter().zip(words.chunks_exact(16)) {
                texts.entry(*id).or_default().insert(block.join(" "));
            }
        }
        assert_eq!(texts.len(), whole.len());
        assert!(texts.values().all(|texts| texts.len() == 1), "one text for each id");
        firsts.insert(text_of(&run[0]).to_owned());
    }
    assert_eq!(firsts.len(), 2, "with `prefix_cache: fresh` each load has other texts");
}

/// Returns the bodies in the order of the trace: requests that are due within milliseconds can arrive
/// in another one. The first block of a chain and the lengths identify a request.
fn in_order<'a>(run: &'a [Value], requests: &[(u64, u64, Vec<u64>)]) -> Vec<&'a Value> {
    let mut left: Vec<&Value> = run.iter().collect();
    let mut known: BTreeMap<u64, String> = BTreeMap::new();
    let mut ordered = Vec::new();
    for (input, output, ids) in requests {
        let fits = |body: &&Value| {
            let words: Vec<_> = text_of(body).split(' ').collect();
            let begins = ids.iter().zip(words.chunks_exact(16));
            let agrees = begins
                .clone()
                .all(|(id, block)| known.get(id).is_none_or(|text| *text == block.join(" ")));
            words.len() as u64 == *input && body["max_tokens"] == *output && agrees
        };
        let place = left.iter().position(fits).expect("the request was sent");
        let body = left.remove(place);
        for (id, block) in
            ids.iter().zip(text_of(body).split(' ').collect::<Vec<_>>().chunks_exact(16))
        {
            known.entry(*id).or_insert_with(|| block.join(" "));
        }
        ordered.push(body);
    }
    ordered
}

#[test]
fn requests_are_scheduled_by_the_trace_and_its_speed() {
    let lines = "{\"chat_id\": 1, \"timestamp\": 100.5, \"input_length\": 5, \"output_length\": 2, \"hash_ids\": [4]}\n\
                 {\"chat_id\": 2, \"timestamp\": 100.6, \"input_length\": 5, \"output_length\": 2, \"hash_ids\": [4]}\n\
                 {\"chat_id\": 3, \"timestamp\": 100.9, \"input_length\": 20, \"output_length\": 3, \"hash_ids\": [4, 5]}\n";
    let simulated = "{ simulate: { ttft: 30ms, itl: 20ms, tokens: 9, cached_tokens: 5 } }";
    let bench = replay(simulated, lines, "trace: trace.jsonl, speed: [1x, 4x, 0.5x]");
    let ran = bench.run(&["::w@"]);
    let loads = records(&bench.folder.path().join("results.workloads.csv"));
    let names: Vec<_> = loads.iter().map(|load| &load[2]).collect();
    assert_eq!(names, ["w@x1", "w@x4", "w@x0.5"]);
    let loads: Vec<_> = loads.iter().map(|load| load[5].to_owned()).collect();
    assert_eq!(
        loads,
        [
            "5/s, recorded, 3 requests",
            "20/s, recorded at 4x, 3 requests",
            "2.5/s, recorded at 0.5x, 3 requests"
        ]
    );
    let scheduled = bench.column("scheduled");
    let scheduled: Vec<f64> = scheduled.iter().map(|time| time.parse().unwrap()).collect();
    let expected = [0.0, 0.1, 0.4, 0.0, 0.025, 0.1, 0.0, 0.2, 0.8];
    assert_eq!(scheduled.len(), 9, "{}", ran.stderr);
    for (scheduled, expected) in scheduled.iter().zip(expected) {
        assert!((scheduled - expected).abs() < 1e-6, "{scheduled} {expected}");
    }
    assert!(bench.column("prompt").iter().all(|prompt| prompt == "trace"));
    assert_eq!(bench.column("response_tokens")[..3], ["2", "2", "3"]);
}

#[test]
fn the_intended_and_the_achieved_cache_share_are_reported() {
    // 5 + 4 of 30 tokens are shared: those of the first block, as far as an earlier request has them.
    let lines = "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 2, \"hash_ids\": [4]}\n\
                 {\"timestamp\": 500, \"input_length\": 5, \"output_length\": 2, \"hash_ids\": [4]}\n\
                 {\"timestamp\": 1000, \"input_length\": 20, \"output_length\": 2, \"hash_ids\": [4, 5]}\n";
    let cached = "{ simulate: { ttft: 30ms, itl: 20ms, tokens: 2, cached_tokens: 3 } }";
    let silent = "{ simulate: { ttft: 30ms, itl: 20ms, tokens: 2 } }";
    let workload = "trace: { file: trace.jsonl, block_size: 10 }";
    let bench = replay(cached, lines, workload);
    let ran = bench.run(&["::w::", "--json", "run.json"]);
    passed(&ran);
    // Nine of thirty: the second request has all five, the last one five of its twenty.
    let prompt: f64 = bench.column("prompt_tokens").iter().map(|n| n.parse::<f64>().unwrap()).sum();
    let said =
        format!("cached prompt tokens: 33.3 % intended, {:.1} % achieved\n", 100.0 * 9.0 / prompt);
    assert!(ran.stderr.contains(&said), "{said}{}", ran.stderr);
    assert!(ran.stderr.contains("prompt lengths are approximate"), "{}", ran.stderr);
    let loads = fs::read_to_string(bench.folder.path().join("results.workloads.csv")).unwrap();
    assert!(
        loads
            .lines()
            .next()
            .unwrap()
            .contains("prompt_lengths,cache_share_intended,cache_share_achieved")
    );
    assert!(loads.contains(&format!(",approximate,33.333,{:.3}", 100.0 * 9.0 / prompt)), "{loads}");
    let json: Value =
        serde_json::from_str(&fs::read_to_string(bench.folder.path().join("run.json")).unwrap())
            .unwrap();
    let group = &json["groups"][0];
    assert_eq!(group["workload"]["prompt_lengths"], "approximate");
    let share = &group["loads"][0]["cache_share"];
    assert!((share["intended"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12, "{share}");
    assert!((share["achieved"].as_f64().unwrap() - 9.0 / prompt).abs() < 1e-12, "{share}");
    let ran = replay(silent, lines, workload).run(&["::w::"]);
    let said =
        "cached prompt tokens: 33.3 % intended, unknown: the server's usage has no cached tokens";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
}

#[test]
fn a_recorded_body_is_sent_as_it_was_to_the_model_that_is_measured() {
    let server = Picky::new(|_| None);
    let line =
        |nth: u64, body: &str| format!("{{\"timestamp\": {}, \"body\": {body}}}\n", nth * 20);
    let lines = [
        r#"{"model":"old","messages":[{"role":"system","content":"S"},{"role":"user","content":"a"}],"top_p":0.90,"stream":false}"#,
        r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":[{"type":"text","text":"b"}]}],"max_tokens":7,"seed":18446744073709551617}"#,
    ];
    let lines: String = (0..).zip(lines).map(|(nth, body)| line(nth, body)).collect();
    let model = at(&server, ", model_name: new, prefix_cache: reuse, extra_body: { min_p: 0.1 }");
    let bench = replay(&model, &lines, "trace: trace.jsonl");
    bench.run(&["::w::", "--no-warmup"]);
    let raw = |bodies: Vec<Value>| {
        bodies.into_iter().map(|body| body.to_string()).collect::<BTreeSet<_>>()
    };
    let [one, _] = &server.bodies()[..] else { panic!("two requests") };
    assert_eq!(one["model"], "new");
    let common = json!({"model": "new", "stream": true, "stream_options": {"include_usage": true}, "min_p": 0.1});
    assert!(common.as_object().unwrap().iter().all(|(key, value)| one[key] == *value), "{one}");
    assert_eq!(
        one["messages"],
        json!([{"role": "system", "content": "S"}, {"role": "user", "content": "a"}])
    );
    assert_eq!(one.get("max_tokens"), None, "the recorded request had none");
    assert_eq!(raw(server.bodies()).len(), 2);
    // With `fresh` the requests of a load begin with the same mark.
    let server = Picky::new(|_| None);
    let bench = replay(&at(&server, ""), &lines, "trace: trace.jsonl, runs: 2");
    bench.run(&["::w::", "--no-warmup"]);
    let system = |body: &Value| body["messages"][0]["content"].as_str().unwrap().to_owned();
    let marks: Vec<_> = server.bodies().iter().map(system).collect();
    assert_eq!(marks.len(), 4);
    assert!(marks.iter().all(|mark| mark.starts_with('[') && mark.ends_with("]\nS")), "{marks:?}");
    assert_eq!(marks[0], marks[1]);
    assert_ne!(marks[0], marks[2]);
}

#[test]
fn a_trace_ends_at_requests_or_duration() {
    let (lines, _) = trace(50);
    let simulated = "{ simulate: { ttft: 30ms, itl: 20ms, tokens: 2 } }";
    for (workload, sent) in [
        ("trace: { file: trace.jsonl, block_size: 16 }, requests: 7", 7),
        ("trace: { file: trace.jsonl, block_size: 16 }, requests: 700", 50),
        ("trace: { file: trace.jsonl, block_size: 16 }, duration: 41ms", 11),
    ] {
        let bench = replay(simulated, &lines, workload);
        bench.run(&["::w::"]);
        assert_eq!(bench.results().len(), sent, "{workload}");
    }
}

#[test]
fn a_replay_is_late_where_the_limit_of_requests_is_reached() {
    let (lines, _) = trace(30);
    let simulated = "{ simulate: { ttft: 100ms, itl: 2ms, tokens: 2 } }";
    let workload = "trace: { file: trace.jsonl, block_size: 16 }, max_in_flight: 2";
    let bench = replay(simulated, &lines, workload);
    let ran = bench.run(&["::w::"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(ran.stderr.contains("because `max_in_flight` (2) were in flight"), "{}", ran.stderr);
}

#[test]
fn an_unusable_trace_is_an_error_where_it_is_written() {
    let good = "{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 1, \"hash_ids\": [1]}\n";
    let config = "configs.yaml:4:";
    for (workload, lines, why, place) in [
        ("trace: none.jsonl", good, "none.jsonl does not exist", config),
        ("trace: {}", good, "`trace` has no `file`", config),
        ("trace: { file: trace.jsonl, size: 2 }", good, "unknown key `size`", config),
        ("trace: { file: trace.jsonl, format: moon }", good, "unknown value `moon`", config),
        (
            "trace: { file: trace.jsonl, block_size: 0 }",
            good,
            "must be a whole number from 1",
            config,
        ),
        ("trace: trace.jsonl, speed: 2", good, "`speed` requires the unit `x`", config),
        ("trace: trace.jsonl, speed: fast", good, "`speed` must be a speed", config),
        ("trace: trace.jsonl, speed: 0x", good, "above 0 and at most 10000x", config),
        ("trace: trace.jsonl, speed: [2x, 2.0x]", good, "has this value twice", config),
        ("trace: trace.jsonl, rate: 2/s", good, "`rate` cannot be combined with `trace`", config),
        ("trace: trace.jsonl, prompts: [chat-en]", good, "`prompts` cannot be combined", config),
        ("trace: trace.jsonl, arrivals: constant", good, "`arrivals` cannot be combined", config),
        ("rate: 2/s, requests: 2, speed: 2x", good, "`speed` requires `trace`", config),
        ("concurrency: 2, requests: 2, speed: 2x", good, "`speed` requires `trace`", config),
        ("trace: trace.jsonl", "", "trace.jsonl is empty", config),
        (
            "trace: trace.jsonl",
            "{\"timestamp\": 0}\n",
            "`input_length` must be a whole number",
            "trace.jsonl:1:1",
        ),
        (
            "trace: { file: trace.jsonl, block_size: 4 }",
            "{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 1, \"hash_ids\": [1, 2, 3, 4]}\n",
            "4 hash ids for 9 tokens",
            "trace.jsonl:1:1",
        ),
        (
            "trace: trace.jsonl",
            &format!("{good}\n  x\n"),
            "is not a JSON object",
            "trace.jsonl:3:3",
        ),
        (
            "trace: trace.jsonl",
            "{\"timestamp\": 0, \"body\": {\"n\": 2}}\n",
            "request 1 of the trace cannot be measured: `n: 2`",
            config,
        ),
    ] {
        let ran = replay("{ simulate: {} }", lines, workload).run(&["::w::"]);
        assert_eq!(ran.code, Some(2), "{workload}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(why) && ran.stderr.contains(place),
            "{workload}: {}",
            ran.stderr
        );
    }
}
