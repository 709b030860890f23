//! Prompts by data set, and the length of answers, through the front door.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use llm_stream_bench::config::Config;
use llm_stream_core::{
    lengths::LengthRange,
    prompt::{ChatMessage, ContentPart, Image, Role, Synthetic, ToolChoice},
    synthetic::Length,
    tokenizer::Tokenizer,
};

use crate::{
    bench::{Bench, OF_A_BUSY_MACHINE, passed},
    servers::{Counting, counts, repeats},
};

/// A bench with these prompts, these files beside the config, and a quick model `m`.
fn bench(prompts: &str, files: &[(&str, &str)]) -> Bench {
    let bench = Bench::new(&format!(
        "runs: 1\nprompts:\n{prompts}\nmodels:\n  m: {{ simulate: {{ ttft: 6ms, itl: 20ms, tokens: 6 }} }}\n"
    ));
    for (name, text) in files {
        let path = bench.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    bench
}

/// The names of the prompts, and what they ask.
fn asked(bench: &Bench) -> Vec<(String, Vec<ChatMessage>, Option<u64>)> {
    let config = Config::load(&bench.folder.path().join("configs.yaml"));
    let prompts = config.unwrap_or_else(|errors| panic!("{errors}")).prompts.unwrap();
    let output = prompts.into_iter().map(|prompt| {
        assert_eq!(prompt.name.value, prompt.prompt.name);
        (prompt.name.value, prompt.prompt.messages, prompt.prompt.output.tokens)
    });
    output.collect()
}

/// What is wrong with a config, or in a data set that must be all well.
fn refused(bench: &Bench) -> String {
    let config = Config::load(&bench.folder.path().join("configs.yaml"));
    let errors = config.and_then(Config::with_all_data).unwrap_err();
    errors.to_string().replace(&bench.folder.path().display().to_string(), "FOLDER")
}

// -- data sets ------------------------------------------------------------------------------------

const LINES: &str = r#"{"prompt": "Say one.", "category": "counting"}

{"id": "two", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say two."}, {"role": "assistant", "content": "Two."}, {"role": "user", "content": [{"type": "text", "text": "And this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}}]}, {"role": "assistant", "content": "A recorded answer."}], "max_tokens": 9}
{"question_id": 81, "turns": ["Say three.", "Say it again."], "output_tokens": 7}
"#;

#[test]
fn a_data_set_of_lines_has_a_prompt_for_each_record() {
    let set = "  - { name: set, dataset: data/set.jsonl, system: Be kind., output_tokens: 5 }";
    let asked = asked(&bench(set, &[("data/set.jsonl", LINES)]));
    let text = ChatMessage::text;
    let kind = || text(Role::System, "Be kind.");
    let png = Image::Data { mime: "image/png".into(), base64: "iVBORw0=".into() };
    let mut this = text(Role::User, "And this?");
    this.content.push(ContentPart::Image(png));
    let two = vec![
        text(Role::System, "Be brief."),
        text(Role::User, "Say two."),
        text(Role::Assistant, "Two."),
        this,
    ];
    let expected = [
        ("set-1".to_owned(), vec![kind(), text(Role::User, "Say one.")], Some(5)),
        ("set-two".to_owned(), two, Some(9)),
        ("set-81".to_owned(), vec![kind(), text(Role::User, "Say three.")], Some(7)),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_data_set_can_be_sharegpts_or_a_folder() {
    let sharegpt = r#"[
      {"id": "a_0", "conversations": [{"from": "human", "value": "Say one."}, {"from": "gpt", "value": "One."}]},
      {"id": "b_0", "conversations": []},
      {"id": "c_0", "conversations": [{"from": "gpt", "value": "Well."}]},
      {"id": "d_0", "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Say two."}]}
    ]"#;
    let sets = "  - { name: share, dataset: share.json }\n  - { name: notes, dataset: notes }";
    let files = [("share.json", sharegpt), ("notes/b.md", "Two."), ("notes/a.txt", "One.")];
    let names: Vec<_> = asked(&bench(sets, &files))
        .into_iter()
        .map(|(name, messages, _)| format!("{name}: {}", messages.last().unwrap().joined()))
        .collect();
    let expected = ["share-a_0: Say one.", "share-d_0: Say two.", "notes-a: One.", "notes-b: Two."];
    assert_eq!(names, expected);
}

#[test]
fn a_limit_takes_the_first_records_or_random_ones_by_a_seed() {
    let lines: String = (1..=50).map(|n| format!("{{\"prompt\": \"Say {n}.\"}}\n")).collect();
    let names = |choice: &str| {
        let set = format!("  - {{ name: s, dataset: s.jsonl, {choice} }}");
        let asked = asked(&bench(&set, &[("s.jsonl", &lines)]));
        asked.into_iter().map(|(name, ..)| name).collect::<Vec<_>>()
    };
    assert_eq!(names("limit: 3"), ["s-1", "s-2", "s-3"]);
    assert_eq!(names("limit: 60").len(), 50);
    let some = names("limit: 10, seed: 1");
    assert_eq!(some, names("limit: 10, seed: 1"));
    assert_ne!(some, names("limit: 10, seed: 2"));
    // In the order of the file, with the numbers that they have there.
    let numbers: Vec<u32> = some.iter().map(|name| name[2..].parse().unwrap()).collect();
    assert!(numbers.is_sorted() && numbers.len() == 10 && numbers != (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_workload_takes_the_records_of_a_set_in_turn() {
    let bench = bench(
        "  - { name: other, text: \"Say hello.\" }\n  - { name: set, dataset: set.jsonl, limit: 2 }\n\
         workloads:\n  load: { concurrency: 1, requests: 5, prompts: [set] }",
        &[("set.jsonl", LINES)],
    );
    let ran = bench.run(&["m"]);
    passed(&ran);
    let prompts = bench.column("prompt");
    assert_eq!(prompts[..3], ["other", "set-1", "set-two"]);
    assert_eq!(prompts[3..], ["set-1", "set-two", "set-1", "set-two", "set-1"]);
    assert!(ran.stdout.contains("test m-simulated::set-two::run-1 ... bench:"), "{}", ran.stdout);
    let nothing = bench.run(&["nothing"]);
    assert!(nothing.stderr.contains("prompts: `other`, `set-…`\n"), "{}", nothing.stderr);
}

#[test]
fn mistakes_in_a_data_set_have_a_position() {
    let of = |lines: &str| {
        let bench = bench("  - { name: s, dataset: s.jsonl }", &[("s.jsonl", lines)]);
        refused(&bench)
    };
    let mistakes = [
        "{\"prompt\": \"Say one.\"}\n{\"prompt\": \"Say two.\"\n{\"prompt\": \"Say three.\"}\n",
        "{\"prompt\": \"Say one.\"}\n  \"Say two.\"\n",
        "[{\"prompt\": \"Say one.\"},\n {\"question\": \"Say two.\"}]",
        "[{\"prompt\": \"Say one.\"}, {\"prompt\": 2}]",
        "[{\"prompt\": \"Say one.\"},\n {\"prompt\": \"Say two.\",}]",
        "{\"prompt\": \" \"}",
        "{\"question\": \"Say one.\", \"prompt\": null}",
        "{\"messages\": []}",
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"Say one.\"}]}",
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"One.\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"audio\"}]}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": \"cat.png\"}]}]}",
        "{\"prompt\": \"Say one.\", \"max_tokens\": 0}",
        "{\"prompt\": \"Say one.\"}\n{\"prompt\": \"\\u12\"}\n{\"prompt\": \"\"}\n# well\n",
        "{\"conversations\": [{\"from\": \"human\"}]}",
        "{\"conversations\": []}",
    ];
    let output: Vec<_> = mistakes.iter().map(|lines| of(lines)).collect();
    insta::assert_snapshot!(output.join("\n\n"));
}

#[test]
fn mistakes_in_a_prompt_are_reported() {
    let entries = [
        "  - { name: s, dataset: none.jsonl }",
        "  - { name: s, dataset: s.jsonl, text: \"Say one.\" }",
        "  - { name: s, text: \"Say one.\", limit: 5 }",
        "  - { name: s, dataset: s.jsonl, seed: 5 }",
        "  - { name: s, data: s.jsonl }",
        "  - { name: s, dataset: s.jsonl }\n  - { name: s, dataset: t.jsonl }",
        "  - { name: s, dataset: s.jsonl }\n  - { name: s-1, text: \"Say one.\" }",
        "  - { name: s, text: \"Say one.\", max_tokens: 5 }",
        "  - { name: s, text: \"Say one.\", output_tokens: 5, min_tokens: 9 }",
        "  - { name: s, text: \"Say one.\", min_tokens: 2000 }",
        "  - { name: s, text: \"Say one.\", ignore_eos: 1 }",
        "  - { name: s, text: \"Say one.\", ignore_eos: true }\ndefaults: { protocol: anthropic_messages }",
        "  - { name: s, text: \"Say one.\", min_tokens: 5 }\ndefaults: { protocol: llamacpp_completion }",
        "  - { name: s, dataset: image.jsonl }\ndefaults: { protocol: openai_completions }",
        "  - { name: s, dataset: image.jsonl }\ndefaults: { protocol: ollama_chat }",
    ];
    let image = "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \
         \"text\": \"What is it?\"}, {\"type\": \"image_url\", \"image_url\": {\"url\": \
         \"https://example.com/cat.png\"}}]}]}";
    let files = [
        ("s.jsonl", "{\"prompt\": \"Say one.\"}"),
        ("t.jsonl", "{\"prompt\": \"Say two.\", \"id\": \"two\"}"),
        ("image.jsonl", image),
    ];
    let output: Vec<_> = entries.iter().map(|entry| refused(&bench(entry, &files))).collect();
    insta::assert_snapshot!(output.join("\n\n"));
}

// -- the length of the answer ---------------------------------------------------------------------

#[test]
fn a_prompt_sets_the_length_of_its_answer() {
    let bench = bench(
        "  - { name: short, text: Say it., output_tokens: 3 }\n  \
         - { name: free, text: Say it., output_tokens: 30 }\n  \
         - { name: forced, text: Say it., output_tokens: 30, ignore_eos: true }\n  \
         - { name: least, text: Say it., output_tokens: 30, min_tokens: 9 }",
        &[],
    );
    passed(&bench.run(&[]));
    assert_eq!(bench.column("response_tokens"), ["3", "6", "30", "9"]);
    assert_eq!(bench.column("finish_reason"), ["length", "stop", "length", "stop"]);
    let config = bench.folder.path().join("configs.yaml");
    let text = fs::read_to_string(&config).unwrap() + "defaults: { ignore_eos: false }\n";
    fs::write(&config, text).unwrap();
    passed(&bench.run(&[]));
    assert_eq!(bench.column("response_tokens"), ["3", "6", "6", "9"]);
}

#[test]
fn an_answer_shorter_than_demanded_has_a_note() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n\
         data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":50}}\n\n\
         data: [DONE]\n\n";
    let url = format!("base_url: \"http://{}\"", repeats(answer.into()));
    let bench = Bench::new(&format!(
        "runs: 1\nprompts:\n  - {{ name: free, text: Say it. }}\n  \
         - {{ name: met, text: Say it., min_tokens: 50 }}\n  \
         - {{ name: least, text: Say it., min_tokens: 51 }}\n  \
         - {{ name: forced, text: Say it., output_tokens: 60, ignore_eos: true }}\nmodels:\n  \
         m: {{ {url} }}\n  own: {{ {url}, extra_body: {{ ignore_eos: true }} }}\n"
    ));
    passed(&bench.run(&["--no-warmup"]));
    let notes = bench.column("notes");
    let marked: Vec<_> = notes.iter().map(|notes| notes.contains("shorter_than_asked")).collect();
    assert_eq!(marked, [false, false, true, true, true, true, true, true], "{notes:?}");
}

// -- prompts of a stated length -------------------------------------------------------------------

/// A tokenizer that no line describes: long words are two tokens, long texts more than their words,
/// and the template is 37.
fn uneven(text: &str) -> Option<u64> {
    let words = text.split(' ').count() as u64;
    let pieces: u64 = text.split(' ').map(|word| 1 + word.len() as u64 / 5).sum();
    Some(37 + pieces + words * words / 20_000)
}

#[test]
fn a_synthetic_prompt_has_its_length_by_the_servers_count() {
    let server = Counting::by(uneven);
    for (wanted, requests) in [(50, 4), (2048, 4), (30_000, 5)] {
        let keys = format!("synthetic: {{ input_tokens: {wanted}, output_tokens: 9 }}");
        let bench = server.bench(&keys, "");
        let ran = bench.run(&["m"]);
        passed(&ran);
        let counts = counts(&bench);
        assert_eq!(counts.len(), 8);
        for count in counts {
            assert!(count.abs_diff(wanted) * 50 <= wanted, "{count} of {wanted}: {}", ran.stderr);
        }
        assert!(bench.notes().iter().all(String::is_empty), "{}", ran.stderr);
        // Found once, with few requests.
        let found: Vec<_> = ran.stderr.lines().filter(|line| line.contains("Length of")).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        let asked = found[0].rsplit_once('(').unwrap().1.split(' ').next().unwrap();
        assert!(asked.parse::<usize>().unwrap() <= requests, "{found:?}");
    }
}

#[test]
fn each_request_has_a_new_text_of_the_same_length_unless_the_cache_is_reused() {
    let texts = |model: &str, seed: u64| {
        let server = Counting::by(uneven);
        let keys = format!("synthetic: {{ input_tokens: 300, seed: {seed} }}");
        let bench = server.bench(&keys, model);
        passed(&bench.run(&["load", "--no-warmup"]));
        let lengths = counts(&bench);
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
        let questions = server.questions();
        questions[questions.len() - 6..].to_vec()
    };
    let sorted = |text: &str| {
        let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        words.sort();
        words
    };
    let fresh = texts("", 1);
    for (nth, text) in fresh.iter().enumerate() {
        assert!(fresh[..nth].iter().all(|other| other[..20] != text[..20]), "{fresh:?}");
        assert_eq!(sorted(text), sorted(&fresh[0]));
    }
    let same = texts(", prefix_cache: reuse", 1);
    assert!(same.iter().all(|text| *text == same[0]));
    assert_eq!(same, texts(", prefix_cache: reuse", 1));
    assert_ne!(same, texts(", prefix_cache: reuse", 2));
}

#[test]
fn a_range_gives_random_lengths_within_it() {
    let server = Counting::by(uneven);
    let bench = server.bench("synthetic: { input_tokens: { min: 400, max: 800 } }", "");
    let ran = bench.run(&["m"]);
    passed(&ran);
    let lengths = counts(&bench);
    assert!(lengths.iter().all(|length| (392..=816).contains(length)), "{lengths:?}");
    assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() > 50, "{lengths:?}");
    assert!(bench.notes().iter().all(String::is_empty), "{}", ran.stderr);
}

#[test]
fn every_protocol_sends_synthetic_prompts() {
    for protocol in llm_stream_core::protocol::ALL {
        let bench =
            bench("  - { name: long, synthetic: { input_tokens: 500, output_tokens: 4 } }", &[]);
        let config = bench.folder.path().join("configs.yaml");
        let protocol = protocol.name();
        let text = fs::read_to_string(&config).unwrap() + "defaults: { protocol: PROTOCOL }\n";
        fs::write(&config, text.replace("PROTOCOL", protocol)).unwrap();
        passed(&bench.run(&[]));
        let counts = counts(&bench);
        assert!(counts.iter().all(|count| (490..=510).contains(count)), "{protocol}: {counts:?}");
        let ran = crate::bench::ran(&mut bench.smoke(&[]));
        passed(&ran);
    }
}

#[test]
fn an_impossible_length_fails_the_trial_with_a_reason() {
    let said = |count: fn(&str) -> Option<u64>, wanted: u64| {
        let server = Counting::by(count);
        let bench = server.bench(&format!("synthetic: {{ input_tokens: {wanted} }}"), "");
        let ran = bench.run(&["m", "--no-warmup"]);
        assert_eq!(ran.code, Some(101), "{}", ran.stderr);
        // A second run and the load do not ask again.
        assert!(server.questions().len() <= 8);
        let kinds = bench.column("error_kind");
        assert_eq!(kinds, ["prompt_length", "prompt_length"]);
        let output = ran.stderr.lines().filter(|line| line.contains("Failed: "));
        output.map(str::trim).collect::<Vec<_>>().join("\n")
    };
    let output = [
        // Its template is longer.
        said(uneven, 20),
        // It counts something else.
        said(|_| Some(1000), 2000),
        // It does not count.
        said(|_| None, 2000),
    ];
    insta::assert_snapshot!(output.join("\n\n"));
}

#[test]
fn a_row_whose_prompt_length_is_off_has_a_note() {
    // From the fifth request on, it counts more.
    let asked = std::sync::atomic::AtomicU64::new(0);
    let server = Counting::by(move |text| {
        let nth = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(uneven(text)? * if nth < 5 { 100 } else { 103 } / 100)
    });
    let bench = server.bench("synthetic: { input_tokens: 2000 }", "");
    passed(&bench.run(&["load", "--no-warmup"]));
    let notes = bench.column("notes");
    assert!(notes.contains(&String::new()) && notes.contains(&"prompt_length_off".into()));
}

#[test]
fn a_tokenizer_counts_the_text_and_the_server_the_template_too() {
    let allowed = |length: Length| {
        let fits = |counted: &u64| length.allows(Some(*counted));
        let mut counts = (0..4000).filter(fits);
        (counts.next(), counts.next_back())
    };
    // Two per cent of it, and what may be around it: a chat template, a token or so of the model's
    // own, and tools of unknown length.
    assert_eq!(allowed(Length::Prompt(1000)), (Some(980), Some(1020)));
    let text = |more| Length::Text { tokens: 1000, more };
    assert_eq!(allowed(text(Some(512))), (Some(980), Some(1532)));
    assert_eq!(allowed(text(Some(4))), (Some(980), Some(1024)));
    assert_eq!(allowed(text(None)), (Some(980), Some(3999)));
    // Who does not count denies no tokenizer.
    assert!(text(Some(4)).allows(None) && !Length::Prompt(1000).allows(None));

    let made = |tokenizer, name, has_tools| {
        let protocol = llm_stream_core::protocol::by_name(name).unwrap();
        let synthetic =
            Synthetic { length: LengthRange::fixed(1000), seed: 1, tokenizer, shared: None };
        Length::of(&synthetic, 3, protocol, has_tools)
    };
    let none = || Some(Tokenizer::new("none", |_| Ok(0)));
    assert_eq!(made(None, "openai_completions", true), Length::Prompt(1000));
    for protocol in llm_stream_core::protocol::ALL {
        let plain = ["openai_completions", "llamacpp_completion", "tgi_generate_stream"];
        let more = if plain.contains(&protocol.name()) { 4 } else { 512 };
        assert_eq!(made(none(), protocol.name(), false), text(Some(more)));
        assert_eq!(made(none(), protocol.name(), true), text(None));
    }
}

#[test]
fn a_run_with_a_synthetic_prompt_prints_its_length() {
    let bench = bench(
        "  - { name: long, synthetic: { input_tokens: 600, output_tokens: 4 } }\n  \
         - { name: hello, text: Say hello. }",
        &[],
    );
    insta::assert_snapshot!(bench.run(&[]).redacted(bench.folder.path()));
}

#[test]
fn mistakes_in_a_synthetic_prompt_are_reported() {
    let entries = [
        "synthetic: 2048",
        "synthetic: {}",
        "synthetic: { input_len: 5 }",
        "synthetic: { input_tokens: 0 }",
        "synthetic: { input_tokens: { min: 5 } }",
        "synthetic: { input_tokens: { min: 5, max: 4 } }",
        "synthetic: { input_tokens: 5, output_tokens: 5 }, output_tokens: 6",
        "synthetic: { input_tokens: 5 }, system: Be brief.",
        "synthetic: { input_tokens: 5 }, limit: 5",
        "synthetic: { input_tokens: 5, tokenizer: [a] }",
        "synthetic: { input_tokens: 5, tokeniser: tokenizer.json }",
    ];
    let output = entries.map(|keys| refused(&bench(&format!("  - {{ name: s, {keys} }}"), &[])));
    insta::assert_snapshot!(output.join("\n\n"));
}

// -- conversations of several turns ---------------------------------------------------------------

/// A server that answers the n-th request with `answer n`, of which all but the first message are
/// cached.
fn answering() -> (tokio::runtime::Runtime, wiremock::MockServer) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(wiremock::MockServer::start());
    let asked = std::sync::atomic::AtomicU64::new(0);
    let answer = move |_: &wiremock::Request| {
        let nth = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let body = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"reasoning\":\"hm\"}}}}]}}\n\n\
             data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"answer\"}}}}]}}\n\n\
             data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" {nth}\"}},\
             \"finish_reason\":\"stop\"}}]}}\n\n\
             data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{}0,\"completion_tokens\":3,\
             \"prompt_tokens_details\":{{\"cached_tokens\":{nth}}}}}}}\n\ndata: [DONE]\n\n",
            nth + 1
        );
        // So long that a request is under way all the time.
        wiremock::ResponseTemplate::new(200)
            .set_body_raw(body, "text/event-stream")
            .set_delay(std::time::Duration::from_millis(30))
    };
    let mock = wiremock::Mock::given(wiremock::matchers::method("POST")).respond_with(answer);
    runtime.block_on(mock.mount(&server));
    (runtime, server)
}

#[test]
fn each_turn_carries_the_previous_answers_and_one_unique_line() {
    let (runtime, server) = answering();
    let bench = Bench::new(&format!(
        "runs: 2\nprompts: [{{ name: talk, system: Be brief., turns: [One?, Two?, Three?] }}]\n\
         models: {{ m: {{ base_url: \"{}\" }} }}\n",
        server.uri()
    ));
    passed(&bench.run(&["--no-warmup"]));
    let requests = runtime.block_on(server.received_requests()).unwrap();
    let mut fronts = Vec::new();
    let output = requests.iter().map(|request| {
        let body: serde_json::Value = request.body_json().unwrap();
        let messages = body["messages"].as_array().unwrap();
        let said: Vec<_> =
            messages.iter().map(|message| message["content"].as_str().unwrap()).collect();
        let (front, rest) = said[0].split_once('\n').unwrap();
        fronts.push(front.to_owned());
        assert_eq!(rest, "Be brief.");
        said[1..].join(" / ")
    });
    let expected = [
        "One?",
        "One? / answer 1 / Two?",
        "One? / answer 1 / Two? / answer 2 / Three?",
        "One?",
        "One? / answer 4 / Two?",
        "One? / answer 4 / Two? / answer 5 / Three?",
    ];
    assert_eq!(output.collect::<Vec<_>>(), expected);
    assert!(fronts[..3].iter().all(|front| *front == fronts[0]), "{fronts:?}");
    assert!(fronts[3..].iter().all(|front| *front == fronts[3]), "{fronts:?}");
    assert_ne!(fronts[0], fronts[3]);
    assert_eq!(bench.column("turn"), ["1", "2", "3", "1", "2", "3"]);
    assert!(bench.column("prompt").iter().all(|name| name == "talk"));
    // A later turn is meant to be cached.
    let notes = bench.column("notes");
    let cached: Vec<_> = notes.iter().map(|notes| notes.contains("cached_prefix")).collect();
    assert_eq!(cached, [true, false, false, true, false, false]);
}

#[test]
fn a_run_with_a_conversation_prints_its_turns() {
    let bench = Bench::new(
        "runs: 2\nprompts:\n  - { name: talk, turns: [One?, Two?] }\n  - { name: hello, text: Hello? }\n\
         workloads: { load: { concurrency: 1, requests: 4, runs: 1 } }\n\
         models: { m: { simulate: { ttft: 60ms, itl: 20ms, tokens: 6, cached_tokens: 2 } } }\n",
    );
    insta::assert_snapshot!(bench.run(&[]).redacted(bench.folder.path()));
    // The load asks all of them.
    assert_eq!(bench.column("prompt")[6..], ["talk", "talk", "hello", "talk"]);
}

#[test]
fn users_of_a_closed_loop_send_their_turns_in_order() {
    let (runtime, server) = answering();
    let bench = Bench::new(&format!(
        "prompts: [{{ name: talk, turns: [One?, Two?, Three?] }}, {{ name: hello, text: Hello? }}]\n\
         workloads: {{ load: {{ concurrency: 2, requests: 15, runs: 1 }} }}\n\
         models: {{ m: {{ base_url: \"{}\" }} }}\n",
        server.uri()
    ));
    let ran = bench.run(&["load", "--no-warmup"]);
    passed(&ran);
    // Each request by its conversation, which begins as no other does.
    let requests = runtime.block_on(server.received_requests()).unwrap();
    let mut talks: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for request in &requests {
        let body: serde_json::Value = request.body_json().unwrap();
        let messages = body["messages"].as_array().unwrap();
        let said: Vec<_> =
            messages.iter().map(|message| message["content"].as_str().unwrap()).collect();
        talks.entry(said[0].to_owned()).or_default().push(messages.len());
        for answer in said.iter().skip(1).step_by(2) {
            assert!(answer.starts_with("answer "), "{said:?}");
        }
        assert_eq!(said[1..].iter().step_by(2).collect::<BTreeSet<_>>().len(), said.len() / 2);
    }
    assert_eq!(requests.len(), 15);
    let hellos = talks.keys().filter(|first| first.ends_with("Hello?")).count();
    let mut whole = talks.values().filter(|lengths| lengths.len() > 1);
    // Two users take conversations and the question in turn, until fifteen requests are sent.
    assert!((3..=4).contains(&hellos), "{talks:?}");
    assert!(whole.all(|lengths| [1, 3, 5].starts_with(lengths)), "{talks:?}");
    let turns = bench.column("turn");
    let count = |turn: &str| turns.iter().filter(|other| *other == turn).count();
    assert!(count("1") >= count("2") && count("2") >= count("3") && count("3") >= 2, "{turns:?}");
    assert_eq!(count(""), hellos);
    // What the first turns find in a cache they are not meant to find.
    for (turn, notes) in turns.iter().zip(bench.column("notes")) {
        let is_later = ["2", "3"].contains(&turn.as_str());
        assert_eq!(notes.contains("cached_prefix"), !is_later, "{turn}: {notes}");
    }
    let output = ran.redacted(bench.folder.path());
    assert!(output.contains("\n  turn n ttft, ms prompt tokens"), "{output}");
}

#[test]
fn a_turn_that_fails_under_load_ends_its_conversation() {
    let run = |simulated: &str, code| {
        let bench = Bench::new(&format!(
            "prompts: [{{ name: talk, turns: [One?, Two?, Three?] }}]\n\
             workloads: {{ load: {{ concurrency: 1, requests: 6, runs: 1 }} }}\n\
             models: {{ m: {{ simulate: {{ ttft: 6ms, itl: 30ms, tokens: 6, {simulated} }} }} }}\n"
        ));
        let ran = bench.run(&["load", "--no-warmup"]);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        (bench.column("turn").join(" "), bench.column("error_kind").join(" "))
    };
    let failing = run("faults: [{ status: 503, request: 2 }]", 101);
    assert_eq!(failing, ("1 2 1 2 3 1".into(), " http_status    ".into()));
    // An answer that is all reasoning goes on with another text.
    let silent = run("reasoning_tokens: 6", 0);
    assert_eq!(silent, ("1 2 3 1 2 3".into(), "     ".into()));
}

#[test]
fn a_turn_that_fails_ends_its_conversation() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: talk, turns: [One?, Two?, Three?] }]\nmodels:\n  \
         m: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6, faults: [{ status: 503, request: 2 }] } }\n  \
         n: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6, reasoning_tokens: 6 } }\n",
    );
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(ran.stderr.contains("      Failed: turn 2: http_status: HTTP 503"), "{}", ran.stderr);
    let blank = "      Turn 2 has no answer text: turn 3 is sent `...` for it\n";
    assert!(ran.stderr.contains(blank), "{}", ran.stderr);
    assert!(!ran.stderr.contains("Turn 3 has no answer text"), "{}", ran.stderr);
    assert_eq!(bench.column("turn"), ["1", "2", "1", "2", "3"]);
    assert_eq!(bench.column("success"), ["true", "false", "true", "true", "true"]);
    assert!(ran.stderr.contains("FAILED: 1 of 2 trials failed"), "{}", ran.stderr);
}

/// A server whose answers are these events, by the number of the request.
fn answers_in_turn(
    streams: &'static [&'static str],
) -> (tokio::runtime::Runtime, wiremock::MockServer) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(wiremock::MockServer::start());
    let nth = std::sync::atomic::AtomicUsize::new(0);
    let answer = move |_: &wiremock::Request| {
        let nth = nth.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let events = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}}]}}\n\n\
             data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":1}}}}\n\n\
             data: [DONE]\n\n",
            streams[nth.min(streams.len() - 1)]
        );
        wiremock::ResponseTemplate::new(200).set_body_raw(events, "text/event-stream")
    };
    let mock = wiremock::Mock::given(wiremock::matchers::method("POST")).respond_with(answer);
    runtime.block_on(mock.mount(&server));
    (runtime, server)
}

#[test]
fn an_answer_without_text_is_sent_as_a_placeholder() {
    let (runtime, server) = answers_in_turn(&[
        "{\"reasoning_content\":\"Hm.\"}",
        "{\"reasoning_content\":\"Hm.\",\"content\":\"\\n\\n\"}",
        "{\"content\":\"Three.\"}",
        "{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\"}}]}",
    ]);
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: talk, turns: [One?, Two?, Three?, Four?, Five?] }}]\n\
         models: {{ m: {{ base_url: \"{}\", prefix_cache: reuse }} }}\n",
        server.uri()
    ));
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(bench.column("turn"), ["1", "2", "3", "4", "5"], "{}", ran.stderr);
    let calls = "Failed: turn 5: no_token: the previous answer only calls tools";
    assert!(ran.stderr.contains(calls), "{}", ran.stderr);
    let requests = runtime.block_on(server.received_requests()).unwrap();
    let last: serde_json::Value = requests.last().unwrap().body_json().unwrap();
    let said: Vec<_> = last["messages"].as_array().unwrap().iter().map(|m| &m["content"]).collect();
    assert_eq!(said, ["One?", "...", "Two?", "...", "Three?", "Three.", "Four?"]);
}

#[test]
fn json_has_the_turns_of_a_conversation() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: talk, turns: [One?, Two?, Three?] }, { name: hello, text: Hello? }]\n\
         models:\n  m: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6, cached_tokens: 2, \
         faults: [{ status: 503, request: 3 }] } }\n",
    );
    bench.run(&["--no-warmup", "--no-preflight", "--json=run.json"]);
    let text = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let trials = &crate::ci::is_by_the_schema(&text)["trials"];
    assert_eq!(trials[1]["turns"], serde_json::json!([]));
    let turns = trials[0]["turns"].as_array().unwrap();
    let output: Vec<_> = turns
        .iter()
        .map(|turn| {
            let tokens = &turn["figures"]["response_tokens"];
            let notes = turn["notes"].as_array().unwrap().iter();
            let notes: Vec<_> =
                notes.filter(|note| OF_A_BUSY_MACHINE.iter().all(|busy| note != busy)).collect();
            (&turn["turn"], &turn["failure"]["kind"], notes, tokens)
        })
        .map(|output| serde_json::json!(output).to_string())
        .collect();
    let expected =
        [r#"[1,null,["cached_prefix"],6.0]"#, "[2,null,[],6.0]", r#"[3,"http_status",[],null]"#];
    assert_eq!(output, expected);
    // The trial has the reason of the turn that failed, and no figures of a part of it.
    assert_eq!(trials[0]["failure"], turns[2]["failure"]);
    assert_eq!(trials[0]["figures"], serde_json::json!({}));
}

#[test]
fn the_questions_of_a_data_set_can_be_turns() {
    let share = "{\"conversations\": [{\"from\": \"human\", \"value\": \"Four?\"}, {\"from\": \
         \"gpt\", \"value\": \"4\"}, {\"from\": \"human\", \"value\": \"Five?\"}]}";
    let lines = format!("{LINES}{share}\n");
    let bench =
        bench("  - { name: set, dataset: s.jsonl, multi_turn: true }", &[("s.jsonl", &lines)]);
    let config = Config::load(&bench.folder.path().join("configs.yaml")).unwrap();
    let output = config.prompts.unwrap().into_iter().map(|prompt| {
        let later = prompt.prompt.turns.iter().map(|turn| turn.messages[0].joined().into_owned());
        let first = prompt.prompt.messages.last().unwrap().joined().into_owned();
        format!(
            "{}: {}",
            prompt.name.value,
            [first].into_iter().chain(later).collect::<Vec<_>>().join(" / ")
        )
    });
    let expected = [
        "set-1: Say one.",
        "set-two: Say two. / And this?",
        "set-81: Say three. / Say it again.",
        "set-4: Four? / Five?",
    ];
    assert_eq!(output.collect::<Vec<_>>(), expected);
}

#[test]
fn mistakes_in_turns_are_reported() {
    let entries = [
        "  - { name: s, turns: [] }",
        "  - { name: s, turns: One? }",
        "  - { name: s, turns: [One?], text: Two? }",
        "  - { name: s, text: One?, multi_turn: true }",
    ];
    let output = entries.map(|entry| refused(&bench(entry, &[])));
    insta::assert_snapshot!(output.join("\n\n"));
}

// -- images ---------------------------------------------------------------------------------------

#[test]
fn images_are_relative_to_the_config() {
    let bench = bench(
        "  - { name: s, text: What is it?, images: [cat.png, \"https://example.com/cat.png\"] }\n  \
         - { name: t, turns: [And this?, Why?], images: [cat.png] }",
        &[("cat.png", "")],
    );
    fs::write(bench.folder.path().join("cat.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let png =
        ContentPart::Image(Image::Data { mime: "image/png".into(), base64: "iVBORw0KGgo=".into() });
    let url = ContentPart::Image(Image::Url("https://example.com/cat.png".into()));
    let text = |text: &str| ContentPart::Text(text.into());
    let asked: Vec<_> = asked(&bench)
        .into_iter()
        .map(|(_, mut messages, _)| messages.pop().unwrap().content)
        .collect();
    assert_eq!(asked, [vec![text("What is it?"), png.clone(), url], vec![text("And this?"), png]]);
    passed(&bench.run(&[]));
}

#[test]
fn mistakes_in_images_are_reported() {
    let entries = [
        "  - { name: s, text: What is it?, images: cat.png }",
        "  - { name: s, text: What is it?, images: [] }",
        "  - { name: s, text: What is it?, images: [dog.png] }",
        "  - { name: s, text: What is it?, images: [note.png] }",
        "  - { name: s, synthetic: { input_tokens: 50 }, images: [cat.gif] }",
        "  - { name: s, text: What is it?, images: [cat.gif] }\ndefaults: { protocol: tgi_generate_stream }",
    ];
    let files = [("note.png", "A note."), ("cat.gif", "GIF89a")];
    let output = entries.map(|entry| refused(&bench(entry, &files)));
    insta::assert_snapshot!(output.join("\n\n"));
}

// -- tools ----------------------------------------------------------------------------------------

/// A tool of this name, as it is written.
fn tool(name: &str) -> String {
    format!("{{ type: function, function: {{ name: {name} }} }}")
}

#[test]
fn a_prompts_tools_replace_those_of_the_model() {
    let (runtime, server) = answering();
    let (clock, weather) = (tool("clock"), tool("weather"));
    let bench = Bench::new(&format!(
        "runs: 1\nprompts:\n  - {{ name: plain, text: One? }}\n  \
         - {{ name: own, turns: [Two?, Three?], tools: [{weather}], tool_choice: {{ name: weather }} }}\n  \
         - {{ name: chosen, text: Four?, tool_choice: none }}\n  \
         - {{ name: none, text: Five?, tools: [] }}\n\
         defaults: {{ tools: [{clock}], tool_choice: auto }}\n\
         models: {{ m: {{ base_url: \"{}\" }} }}\n",
        server.uri()
    ));
    // The warm-up has the model's own.
    passed(&bench.run(&[]));
    let requests = runtime.block_on(server.received_requests()).unwrap();
    let sent = requests.iter().map(|request| {
        let body: serde_json::Value = request.body_json().unwrap();
        format!("{} {}", body["tools"][0]["function"]["name"], body["tool_choice"])
    });
    let weather = r#""weather" {"type":"function","function":{"name":"weather"}}"#;
    let expected = [
        r#""clock" "auto""#,
        r#""clock" "auto""#,
        weather,
        weather,
        r#""clock" "none""#,
        "null null",
    ];
    assert_eq!(sent.collect::<Vec<_>>(), expected);
}

#[test]
fn a_record_of_a_data_set_has_its_own_tools() {
    let (runtime, server) = answering();
    let function = r#"{"type":"function","function":{"name":"clock","strict":true,"odd":1}}"#;
    let lines = format!(
        "{{\"prompt\": \"One?\", \"tools\": [{function}]}}\n{{\"prompt\": \"Two?\"}}\n\
         {{\"prompt\": \"Three?\", \"tools\": []}}\n"
    );
    let weather = tool("weather");
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: set, dataset: s.jsonl, tools: [{weather}] }}]\n\
         models: {{ m: {{ base_url: \"{}\" }} }}\n",
        server.uri()
    ));
    fs::write(bench.folder.path().join("s.jsonl"), lines).unwrap();
    passed(&bench.run(&["--no-warmup"]));
    let requests = runtime.block_on(server.received_requests()).unwrap();
    let sent = requests.iter().map(|request| {
        let body: serde_json::Value = request.body_json().unwrap();
        body["tools"][0]["function"].to_string()
    });
    let expected = [r#"{"name":"clock","strict":true}"#, r#"{"name":"weather"}"#, "null"];
    assert_eq!(sent.collect::<Vec<_>>(), expected);
    let output = [r#"{"clock": {}}"#, r#"[{"name": "clock"}]"#, r#"[{"function": {}}]"#]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("[{function}, {function}]")])
        .map(|tools| {
            let line = format!("{{\"prompt\": \"One?\", \"tools\": {tools}}}\n");
            let entry = "  - { name: s, dataset: s.jsonl }";
            refused(&self::bench(entry, &[("s.jsonl", &line)]))
        });
    insta::assert_snapshot!(output.collect::<Vec<_>>().join("\n\n"));
}

#[test]
fn a_model_can_have_tools() {
    let (clock, weather) = (tool("clock"), tool("weather"));
    let config = Config::parse(
        &format!(
            "defaults: {{ tools: [{clock}], tool_choice: required }}\nmodels:\n  \
             m: {{ base_url: \"http://h\", tools: [{weather}] }}\n  \
             n: {{ base_url: \"http://h\", protocol: openai_completions, tools: [] }}\n"
        ),
        "configs.yaml",
        std::path::Path::new("."),
    );
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let tools = config.models.iter().map(|model| model.settings.over(&config.defaults).tools);
    let tools: Vec<_> = tools
        .map(|tools| {
            let names = tools.offered().iter().map(|tool| tool.name().to_owned());
            (names.collect::<Vec<_>>(), tools.chosen().cloned())
        })
        .collect();
    assert_eq!(tools[0], (vec!["weather".to_owned()], Some(ToolChoice::Required)));
    assert_eq!(tools[1], (vec![], None));
}

#[test]
fn mistakes_in_tools_are_reported() {
    let tool = tool("clock");
    let entry = |keys: &str| format!("  - {{ name: s, text: Say it., {keys} }}");
    let entries = [
        entry("tools: clock"),
        entry("tools: [clock]"),
        entry("tools: [{ name: clock, parameters: {} }]"),
        entry("tools: [{ function: { name: clock } }]"),
        entry("tools: [{ type: web_search, function: { name: clock } }]"),
        entry("tools: [{ type: function, function: clock }]"),
        entry("tools: [{ type: function, function: { description: Tells the time. } }]"),
        entry("tools: [{ type: function, function: { name: clock, input_schema: {} } }]"),
        entry("tools: [{ type: function, function: { name: clock, parameters: [city] } }]"),
        entry("tools: [{ type: function, function: { name: clock, strict: 1 } }]"),
        entry(&format!("tools: [{tool}, {tool}]")),
        entry(&format!("tools: [{tool}], tool_choice: any")),
        entry(&format!("tools: [{tool}], tool_choice: require")),
        entry(&format!("tools: [{tool}], tool_choice: 1")),
        entry(&format!("tools: [{tool}], tool_choice: {{}}")),
        entry(&format!("tools: [{tool}], tool_choice: {{ name: watch }}")),
        entry("tool_choice: required"),
        entry(&format!("tools: [{tool}]")) + "\ndefaults: { tool_choice: { name: watch } }",
        entry(&format!("tools: [{tool}]")) + "\ndefaults: { extra_body: { tools: [] } }",
        entry(&format!("tools: [{tool}]")) + "\ndefaults: { protocol: openai_completions }",
        entry(&format!("tools: [{tool}], tool_choice: auto"))
            + "\ndefaults: { protocol: ollama_chat }",
        entry("tools: []") + "\ndefaults: { tool_choice: auto }",
        entry("tools: []")
            + &format!("\ndefaults: {{ protocol: tgi_generate_stream, tools: [{tool}] }}"),
        entry("tools: []")
            + &format!("\ndefaults: {{ extra_body: {{ tools: [] }}, tools: [{tool}] }}"),
    ];
    let output = entries.map(|entry| refused(&bench(&entry, &[])));
    insta::assert_snapshot!(output.join("\n\n"));
}
