//! Several addresses of one model, through the front door.

use std::{collections::BTreeMap, fs};

use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{Script, Simulator};
use serde_json::Value;

use crate::bench::{Bench, Ran, passed, ran};

const TURNS: &str = "prompts:\n  - { name: talk, turns: [One, Two, Three] }\n";

fn servers(count: usize) -> Vec<Simulator> {
    let script = Script { tokens: 4, ..Script::default() };
    let server = |_| Simulator::start(script.clone(), &OpenAiChat).unwrap().briefly_logged();
    (0..count).map(server).collect()
}

fn bench(servers: &[Simulator], prompts: &str, load: &str) -> Bench {
    let urls: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.url())).collect();
    Bench::new(&format!(
        "{prompts}runs: 1\nmodels: {{ m: {{ base_url: [{}], proxy: none }} }}\n\
         workloads: {{ w: {load} }}\n",
        urls.join(", ")
    ))
}

/// The number of rows with each value of a column.
fn counts(bench: &Bench, column: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in bench.column(column) {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

fn answered(servers: &[Simulator]) -> Vec<usize> {
    servers.iter().map(|server| server.take_log().len()).collect()
}

const HELLO: &str = "prompts: [{ name: hello, text: Hello }]\n";

#[test]
fn a_load_goes_to_all_replicas_evenly_on_kept_connections() {
    let servers = servers(3);
    let bench = bench(&servers, HELLO, "{ concurrency: 6, requests: 60 }");
    let ran = bench.run(&["::w::", "--no-warmup", "--no-preflight", "--json", "run.json"]);
    passed(&ran);
    let counts = counts(&bench, "endpoint");
    assert_eq!(counts.values().sum::<usize>(), 60);
    for server in &servers {
        let url = format!("{}/v1/chat/completions", server.url());
        assert!((15..=25).contains(&counts[&url]), "{counts:?}");
    }
    let answered = answered(&servers);
    assert_eq!(answered.iter().sum::<usize>(), 60, "{answered:?}");
    // Two connections to each are opened in advance, and no request opens one.
    assert!(bench.column("connect_time").iter().filter(|cell| !cell.is_empty()).count() <= 6);
    let json = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let endpoint = json["groups"][0]["endpoint"].as_str().unwrap();
    assert!(servers.iter().all(|server| endpoint.contains(&server.url())), "{endpoint}");
}

#[test]
fn an_open_loop_takes_turns() {
    let servers = servers(2);
    let bench = bench(&servers, HELLO, "{ rate: 50/s, requests: 20, arrivals: constant }");
    let ran = bench.run(&["::w::", "--no-warmup", "--no-preflight"]);
    assert_ne!(ran.code, Some(2), "{}", ran.stderr);
    let answered = answered(&servers);
    assert!(answered[0].abs_diff(answered[1]) <= 4, "{answered:?}");
}

#[test]
fn the_turns_of_a_conversation_stay_at_a_replica() {
    let servers = servers(3);
    let bench = bench(&servers, TURNS, "{ concurrency: 3, requests: 27 }");
    passed(&bench.run(&["::w::", "--no-warmup", "--no-preflight"]));
    let rows: Vec<_> = bench.column("endpoint").into_iter().zip(bench.column("turn")).collect();
    let mut by_server: BTreeMap<_, BTreeMap<_, usize>> = BTreeMap::new();
    for (server, turn) in rows {
        *by_server.entry(server).or_default().entry(turn).or_default() += 1;
    }
    assert_eq!(by_server.len(), 3, "{by_server:?}");
    // A server that had the first turn of a conversation has its others.
    for turns in by_server.values() {
        assert!(turns["1"].abs_diff(turns["3"]) <= 1, "{by_server:?}");
    }
}

#[test]
fn prompts_one_by_one_go_to_the_first_address() {
    let servers = servers(2);
    let bench = bench(&servers, HELLO, "{ concurrency: 1, requests: 1 }");
    passed(&bench.run(&["::hello::", "--no-warmup", "--no-preflight", "--runs", "3"]));
    assert_eq!(answered(&servers), [3, 0]);
}

#[test]
fn a_dead_replica_is_named_and_makes_the_load_invalid() {
    let servers = servers(1);
    let bench = Bench::new(&format!(
        "{HELLO}runs: 1\nmodels: {{ m: {{ base_url: [\"{}\", \"http://127.0.0.1:9\"], proxy: none }} }}\n\
         workloads: {{ w: {{ concurrency: 4, requests: 20 }} }}\n",
        servers[0].url()
    ));
    let ran = bench.run(&["::w::", "--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot connect to 127.0.0.1:9"), "{}", ran.stderr);
}

#[test]
fn a_resumed_load_keeps_the_replica_of_each_request() {
    let servers = servers(2);
    let bench = bench(&servers, HELLO, "{ concurrency: 2, requests: 8 }");
    let arguments = ["run", "--no-calibration", "--no-warmup", "::w::", "--output-dir"];
    passed(&ran(&mut bench.binary(&[&arguments[..], &["first"]].concat())));
    passed(&ran(&mut bench.binary(&[&arguments[..], &["again", "--resume", "first"]].concat())));
    let endpoints = |folder: &str| {
        let path = bench.folder.path().join(folder).join("results.csv");
        let mut reader = csv::Reader::from_path(path).unwrap();
        let heads = reader.headers().unwrap().clone();
        let place = heads.iter().position(|head| head == "endpoint").unwrap();
        reader.records().map(|row| row.unwrap()[place].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(endpoints("first"), endpoints("again"));
    assert!(endpoints("first").windows(2).any(|pair| pair[0] != pair[1]));
}

fn refused(model: &str) -> Ran {
    let bench = Bench::new(&format!("models: {{ m: {{ {model} }} }}\n"));
    let ran = bench.run(&["--list"]);
    assert_eq!(ran.code, Some(2), "{model}: {}", ran.stderr);
    ran
}

#[test]
fn mistakes_in_a_list_of_addresses_are_refused_where_they_are() {
    for (model, what) in [
        ("base_url: []", "`base_url` is empty"),
        ("base_url: [3]", "configs.yaml:1:27"),
        ("base_url: [\"http://a\", \"htp://b\"]", "configs.yaml:1:39"),
        ("base_url: [\"http://a\", \"http://a\"]", "`http://a` is written twice"),
        ("base_url: [\"http://a\", \"unix:///tmp/s\"]", "a unix socket cannot be one of several"),
        (
            "base_url: [\"http://a\", \"http://b\"], transport: reqwest",
            "`transport` cannot be combined with a list of addresses",
        ),
        (
            "base_url: [\"http://a\", \"http://b\"], proxy: \"http://p\"",
            "`proxy` cannot be combined with a list of addresses",
        ),
    ] {
        let ran = refused(model);
        assert!(ran.stderr.contains(what), "{model}: {what}\n{}", ran.stderr);
    }
}
