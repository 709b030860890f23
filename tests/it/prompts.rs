//! Prompts by data set, and the length of answers, through the front door.

use std::fs;

use llm_stream_bench::{
    config::Config,
    prompt::{ChatMessage, Image, Piece, Role},
};

use crate::{
    bench::{Bench, Ran},
    harness::repeats,
};

/// A bench with these prompts, these files beside the config, and a quick model `m`.
fn bench(prompts: &str, files: &[(&str, &str)]) -> Bench {
    let bench = Bench::new(&format!(
        "runs: 1\nprompts:\n{prompts}\nmodels:\n  m: {{ simulate: {{ ttft: 6ms, itl: 2ms, tokens: 6 }} }}\n"
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
    let told = prompts.into_iter().map(|prompt| {
        assert_eq!(prompt.name.value, prompt.prompt.name);
        (prompt.name.value, prompt.prompt.messages, prompt.prompt.output.tokens)
    });
    told.collect()
}

fn refused(bench: &Bench) -> String {
    let errors = Config::load(&bench.folder.path().join("configs.yaml")).unwrap_err();
    errors.to_string().replace(&bench.folder.path().display().to_string(), "FOLDER")
}

fn column(bench: &Bench, name: &str) -> Vec<String> {
    let text = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap();
    let place = text.lines().next().unwrap().split(',').position(|head| head == name).expect(name);
    bench.results().iter().map(|row| row[place].to_owned()).collect()
}

fn passed(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
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
    this.content.push(Piece::Image(png));
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
fn a_limit_takes_the_first_records_or_by_a_seed_any() {
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
    let prompts = column(&bench, "prompt");
    assert_eq!(prompts[..3], ["other", "set-1", "set-two"]);
    assert_eq!(prompts[3..], ["set-1", "set-two", "set-1", "set-two", "set-1"]);
    assert!(ran.stdout.contains("test m-simulated::set-two::run-1 ... bench:"), "{}", ran.stdout);
    let nothing = bench.run(&["nothing"]);
    assert!(nothing.stderr.contains("prompts: other, set-…\n"), "{}", nothing.stderr);
}

#[test]
fn what_is_wrong_with_a_data_set_is_told_with_its_place_in_the_file() {
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
        "{\"prompt\": \"Say one.\", \"messages\": []}",
        "{\"messages\": []}",
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"Say one.\"}]}",
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"One.\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"audio\"}]}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": \"cat.png\"}]}]}",
        "{\"prompt\": \"Say one.\", \"max_tokens\": 0}",
        "{\"prompt\": \"Say one.\", \"id\": 7}\n{\"prompt\": \"Say two.\", \"id\": \"7\"}",
        "{\"conversations\": [{\"from\": \"human\"}]}",
        "{\"conversations\": []}",
    ];
    let told: Vec<_> = mistakes.iter().map(|lines| of(lines)).collect();
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn what_is_wrong_with_a_prompt_is_told() {
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
    let told: Vec<_> = entries.iter().map(|entry| refused(&bench(entry, &files))).collect();
    insta::assert_snapshot!(told.join("\n\n"));
}

// -- the length of the answer ---------------------------------------------------------------------

#[test]
fn a_prompt_says_how_long_its_answer_is_to_be() {
    let bench = bench(
        "  - { name: short, text: Say it., output_tokens: 3 }\n  \
         - { name: free, text: Say it., output_tokens: 30 }\n  \
         - { name: forced, text: Say it., output_tokens: 30, ignore_eos: true }\n  \
         - { name: least, text: Say it., output_tokens: 30, min_tokens: 9 }",
        &[],
    );
    passed(&bench.run(&[]));
    assert_eq!(column(&bench, "response_tokens"), ["3", "6", "30", "9"]);
    assert_eq!(column(&bench, "finish_reason"), ["length", "stop", "length", "stop"]);
    let config = bench.folder.path().join("configs.yaml");
    let text = fs::read_to_string(&config).unwrap() + "defaults: { ignore_eos: false }\n";
    fs::write(&config, text).unwrap();
    passed(&bench.run(&[]));
    assert_eq!(column(&bench, "response_tokens"), ["3", "6", "6", "9"]);
}

#[test]
fn an_answer_that_is_shorter_than_was_demanded_is_marked() {
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
    let notes = column(&bench, "notes");
    let marked: Vec<_> = notes.iter().map(|note| note == "shorter_than_asked").collect();
    assert_eq!(marked, [false, false, true, true, true, true, true, true], "{notes:?}");
}
