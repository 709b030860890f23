//! The feature `tokenizers`: a tokenizer read from its file, through the front door. A binary to
//! itself, so that the other tests need not be built with the feature too.

#![expect(clippy::disallowed_methods, reason = "tests set and read what users do")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{fs, path::Path};

use llm_stream_bench::config::Config;

use crate::{
    bench::{Bench, passed},
    servers::{Counting, counts, repeats},
};

#[expect(dead_code, reason = "shared with the other integration tests")]
#[path = "../it/bench.rs"]
mod bench;
#[path = "../it/schema.rs"]
mod schema;
#[expect(dead_code, reason = "shared with the other integration tests")]
#[path = "../it/servers.rs"]
mod servers;
#[expect(dead_code, reason = "shared with the other integration tests")]
#[path = "../it/wait.rs"]
mod wait;

/// Words, and all else a token a piece.
const TOKENIZER: &str = r#"{
  "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
  "padding": null, "added_tokens": [], "normalizer": null,
  "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
  "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "one": 1, "two": 2}, "unk_token": "[UNK]"}
}"#;

/// What is wrong with a config whose model has this `token_count`.
fn refused(token_count: &str) -> String {
    let text = format!(
        "models:\n  m:\n    base_url: \"http://localhost:8000\"\n    token_count: {token_count}\n"
    );
    let folder = Path::new("it/fixtures/config");
    Config::parse(&text, "configs.yaml", folder).unwrap_err().to_string()
}

#[test]
fn a_missing_or_invalid_tokenizer_is_a_config_error() {
    let missing = refused("{ tokenizer: tokenizer.json }");
    let invalid = refused("{ tokenizer: configs.yaml }");
    insta::assert_snapshot!(format!("{missing}\n\n{invalid}"));
}

#[test]
fn a_tokenizer_counts_if_the_server_does_not() {
    let answer = |usage: &str| {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
             data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"reasoning\":\"hm, two\"}}}}]}}\n\n\
             data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"one two o\"}}}}]}}\n\n\
             data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"ne\"}},\
             \"finish_reason\":\"stop\"}}]}}\n\n{usage}data: [DONE]\n\n"
        );
        repeats(answer.into())
    };
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":50}}\n\n";
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: s, text: Say it. }}]\n\
         defaults: {{ token_count: {{ tokenizer: data/tokenizer.json }} }}\nmodels:\n  \
         silent: {{ base_url: \"http://{}\" }}\n  counting: {{ base_url: \"http://{}\" }}\n",
        answer(""),
        answer(usage)
    ));
    fs::create_dir(bench.folder.path().join("data")).unwrap();
    fs::write(bench.folder.path().join("data/tokenizer.json"), TOKENIZER).unwrap();
    passed(&bench.run(&["--no-warmup"]));
    assert_eq!(bench.column("response_tokens"), ["6", "50"]);
    assert_eq!(bench.column("token_count_source"), ["tokenizer", "usage"]);
}

// -- prompts of a stated length -------------------------------------------------------------------

/// Four letters a token, so that a word is one to three.
const PIECES: &str = r#"{
  "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "WhitespaceSplit"},
    {"type": "Split", "pattern": {"Regex": "\\w{1,4}"}, "behavior": "Isolated", "invert": false}
  ]},
  "post_processor": null, "decoder": null,
  "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
}"#;

/// What it counts.
fn pieces(text: &str) -> u64 {
    text.split(' ').map(|word| word.len().div_ceil(4) as u64).sum()
}

/// A bench that asks `server` prompts of `input_tokens` by PIECES.
fn bench_of(server: &Counting, input_tokens: &str, model: &str) -> Bench {
    let keys = format!("synthetic: {{ input_tokens: {input_tokens}, tokenizer: tokenizer.json }}");
    let bench = server.bench(&keys, model);
    fs::write(bench.folder.path().join("tokenizer.json"), PIECES).unwrap();
    bench
}

#[test]
fn a_tokenizers_text_has_the_stated_length_without_a_request() {
    for wanted in [1, 50, 2048, 30_000] {
        let server = Counting::by(|text| Some(pieces(text) + 37));
        let bench = bench_of(&server, &wanted.to_string(), "");
        let ran = bench.run(&["m", "--no-warmup"]);
        passed(&ran);
        let texts = server.questions();
        assert_eq!(texts.len(), 8, "only the trials");
        for text in texts {
            // A word more is up to three tokens more.
            assert!(pieces(&text).abs_diff(wanted) <= 1, "{} of {wanted}", pieces(&text));
        }
        // The server's count is the row's.
        assert!(counts(&bench).iter().all(|count| count.abs_diff(wanted + 37) <= 1));
        assert!(bench.notes().iter().all(String::is_empty), "{}", ran.stderr);
        let output = ran.stderr.lines().filter(|line| line.contains("Length of"));
        let by = "by `tokenizer.json`, a chat template aside";
        assert!(output.clone().count() == 1 && output.clone().all(|line| line.ends_with(by)));
    }
}

#[test]
fn a_tokenizers_texts_of_a_range_are_within_it() {
    let server = Counting::by(|text| Some(pieces(text)));
    let bench = bench_of(&server, "{ min: 400, max: 800 }", "");
    passed(&bench.run(&["m", "--no-warmup"]));
    let lengths = counts(&bench);
    assert!(lengths.iter().all(|length| (392..=816).contains(length)), "{lengths:?}");
    assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() > 50, "{lengths:?}");
}

#[test]
fn a_server_that_does_not_agree_with_the_tokenizer_is_noted() {
    // What it counts, what it is asked by, and what is noted.
    type Case = (fn(&str) -> Option<u64>, &'static str, &'static str);
    let cases: [Case; 6] = [
        (|text| Some(pieces(text) + 500), "openai_chat", ""),
        (|text| Some(pieces(text) + 600), "openai_chat", "prompt_length_off"),
        (|text| Some(pieces(text) * 9 / 10), "openai_chat", "prompt_length_off"),
        (|text| Some(pieces(text) + 1), "openai_completions", ""),
        (|text| Some(pieces(text) + 60), "openai_completions", "prompt_length_off"),
        (|_| None, "openai_chat", ""),
    ];
    for (count, protocol, note) in cases {
        let server = Counting::by(count);
        let bench = bench_of(&server, "1000", &format!(", protocol: {protocol}"));
        passed(&bench.run(&["m", "--no-warmup"]));
        let notes = bench.notes();
        assert!(notes.iter().all(|notes| notes == note), "{protocol}, {note}: {notes:?}");
    }
}

#[test]
fn a_tokenizer_that_cannot_count_a_prompt_fails_the_trial() {
    let server = Counting::by(|text| Some(pieces(text)));
    let said = |tokenizer: &str, wanted: &str| {
        let bench = bench_of(&server, wanted, "");
        fs::write(bench.folder.path().join("tokenizer.json"), tokenizer).unwrap();
        let ran = bench.run(&["m", "--no-warmup"]);
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        assert_eq!(bench.column("error_kind"), ["prompt_length", "prompt_length"]);
        let output = ran.stderr.lines().filter(|line| line.contains("Failed: "));
        output.map(str::trim).collect::<Vec<_>>().join("\n")
    };
    let output = [
        // It knows two words.
        said(&TOKENIZER.replace("\"[UNK]\": 0", "\"three\": 0"), "50"),
        // All of a text is a word to it.
        said(
            r#"{ "version": "1.0", "model": { "type": "WordLevel", "vocab": { "[UNK]": 0 }, "unk_token": "[UNK]" } }"#,
            "50",
        ),
    ];
    insta::assert_snapshot!(output.join("\n\n"));
    assert!(server.questions().is_empty());
}

// -- traces -----------------------------------------------------------------------------------------

#[test]
fn the_prompts_of_a_trace_have_the_recorded_lengths_by_the_tokenizer() {
    // By the tokenizer of the trace, or by that of the model.
    for (model, trace) in [
        ("", "{ file: trace.jsonl, block_size: 16, tokenizer: tokenizer.json }"),
        (", token_count: { tokenizer: tokenizer.json }", "{ file: trace.jsonl, block_size: 16 }"),
    ] {
        let server = Counting::by(|text| Some(pieces(text) + 30));
        let bench = server.bench("text: hi", model);
        let folder = bench.folder.path();
        let config = fs::read_to_string(folder.join("configs.yaml")).unwrap();
        let workload = format!("workloads: {{ w: {{ trace: {trace}, runs: 1 }},");
        let config = config.replace("workloads: {", &workload);
        fs::write(folder.join("configs.yaml"), config).unwrap();
        fs::write(folder.join("tokenizer.json"), PIECES).unwrap();
        let lengths = [40_u64, 7, 90, 33, 500, 16];
        let line = |(nth, length): (usize, &u64)| {
            let ids: Vec<_> = (0..length.div_ceil(16))
                .map(|block| if block < 2 { block } else { block + 100 * nth as u64 })
                .collect();
            format!(
                "{{\"timestamp\": {}, \"input_length\": {length}, \"output_length\": 3, \"hash_ids\": {ids:?}}}\n",
                nth * 200
            )
        };
        let lines: String = lengths.iter().enumerate().map(line).collect();
        fs::write(folder.join("trace.jsonl"), lines).unwrap();
        let ran = bench.run(&["::w::", "--no-warmup"]);
        let mut sent: Vec<_> = server.questions().iter().map(|text| pieces(text)).collect();
        let mut wanted = lengths.to_vec();
        sent.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(sent, wanted, "{}", ran.stderr);
        assert!(!ran.stderr.contains("approximate"), "{}", ran.stderr);
        let loads = fs::read_to_string(folder.join("results.workloads.csv")).unwrap();
        assert!(loads.contains(",exact,"), "{loads}");
        assert!(bench.notes().iter().all(String::is_empty), "{:?}", bench.notes());
    }
}
