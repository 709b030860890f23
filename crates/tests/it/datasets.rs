//! Data sets in the forms people have them: the prompts, the records left out, and the errors.

use std::{fs, time::Instant};

use llm_stream_bench::config::{Config, DataNote};

use crate::bench::Bench;

/// A bench with one prompt, the data set `file`, and these further keys.
fn bench(file: &str, bytes: &[u8], keys: &str) -> Bench {
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: d, dataset: {file}{keys} }}]\n\
         models: {{ m: {{ simulate: {{ ttft: 6ms, itl: 20ms, tokens: 4 }} }} }}\n"
    ));
    fs::write(bench.folder.path().join(file), bytes).unwrap();
    bench
}

/// The prompts as `NAME: QUESTION`, with warnings and notes; or the errors.
fn read_set(file: &str, bytes: &[u8], keys: &str) -> String {
    let bench = bench(file, bytes, keys);
    let folder = bench.folder.path().display().to_string() + "/";
    let output = match Config::load(&bench.folder.path().join("configs.yaml")) {
        Err(errors) => {
            let output = errors.0.iter().map(|error| {
                let place = error.line().map(|line| format!(":{line}")).unwrap_or_default();
                format!("error{place}: {}", error.message())
            });
            output.collect::<Vec<_>>()
        }
        Ok(config) => {
            let asked = config.prompts.iter().flatten().map(|prompt| {
                let messages = prompt.prompt.messages.iter();
                let said: Vec<_> =
                    messages.map(|message| message.joined().escape_debug().to_string()).collect();
                let tokens = prompt.prompt.output.tokens.map(|most| format!(" ({most})"));
                format!("{}: {}{}", prompt.name.value, said.join(" / "), tokens.unwrap_or_default())
            });
            asked.chain(config.data.iter().flat_map(DataNote::lines)).collect()
        }
    };
    output.join("\n").replace(&folder, "")
}

fn utf16(text: &str) -> Vec<u8> {
    let units = std::iter::once(0xfeff).chain(text.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

#[test]
fn each_form_of_data_set_is_sent_or_reported() {
    let files: &[(&str, &[u8])] = &[
        ("autoname.jsonl", b"{\"prompt\":\"a\"}\n{\"id\":\"1\",\"prompt\":\"b\"}\n"),
        ("bom_inside.jsonl", "{\"prompt\":\"a\"}\n\u{feff}{\"prompt\":\"b\"}\n".as_bytes()),
        ("broken_inline.json", br#"[{"prompt":"a"},{"prompt":"b},{"prompt":"c"},{"prompt":"d"}]"#),
        ("broken_lines.json", b"[\n{\"prompt\":\"a\"},\n{\"prompt\":\"a 5\" disk\"},\n{\"prompt\":\"c\"]},\n{\"prompt\":\"d\"}\n]\n"),
        ("broken_pretty.json", b"{\n \"prompt\": \"a\"\n}\n{\n \"prompt\": undefined\n}\n{\n \"prompt\": \"c\"\n} // why\n{\n \"prompt\": \"d\"\n}\n"),
        ("bom.jsonl", "\u{feff}{\"prompt\":\"a\"}\r\n\r\n{\"prompt\":\"b\"}\r\n".as_bytes()),
        ("both.jsonl", br#"{"prompt":"x","prompt_id":"1","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"},{"role":"user","content":"z"}]}"#),
        ("both_empty.jsonl", br#"{"prompt":"x","messages":[]}"#),
        ("comment.jsonl", b"# header\n{\"prompt\":\"a\"}\n"),
        ("convempty.json", br#"[{"id":"1","conversations":[]},{"id":"2","conversations":[{"from":"human","value":"ok"}]}]"#),
        ("convnull.json", br#"[{"id":"1","conversations":null},{"id":"2","conversations":[{"from":"human","value":"ok"}]}]"#),
        ("cr.jsonl", b"{\"prompt\":\"a\"}\r{\"prompt\":\"b\"}\r"),
        ("dict.json", br#"{"data":[{"prompt":"a"}]}"#),
        ("dup.jsonl", b"{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"y\"}\n{\"id\":\"a-2\",\"prompt\":\"z\"}\n"),
        ("dup_in_results.jsonl", b"{\"id\":\"a b\",\"prompt\":\"x\"}\n{\"id\":\"a:b\",\"prompt\":\"y\"}\n"),
        ("dupkey.jsonl", br#"{"prompt":"a","prompt":"b"}"#),
        ("empty.jsonl", b" \n"),
        ("emptylist.json", b"[ ]"),
        ("emptyprompt.jsonl", b"{\"prompt\":\"a\"}\n{\"prompt\":\"\"}\n{\"prompt\":\"   \"}\n{\"prompt\":\"b\"}\n"),
        ("emptyassistant.jsonl", br#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":""},{"role":"user","content":"b"}]}"#),
        ("emptysystem.jsonl", b"{\"messages\":[{\"role\":\"system\",\"content\":\"\"},{\"role\":\"user\",\"content\":\"a\"}]}\n{\"messages\":[{\"role\":\"system\",\"content\":null},{\"role\":\"user\",\"content\":\"b\"}]}\n{\"conversations\":[{\"from\":\"system\",\"value\":\"\"},{\"from\":\"human\",\"value\":\"c\"}]}\n"),
        ("emptyturn.jsonl", b"{\"turns\":[\"a\",\"\"]}\n{\"conversations\":[{\"from\":\"human\",\"value\":\"b\"},{\"from\":\"human\",\"value\":5}]}\n"),
        ("calls.jsonl", br#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]},{"role":"user","content":"b"}]}"#),
        ("float.jsonl", b"{\"prompt\":\"x\",\"output_tokens\":128.0}\n{\"prompt\":\"y\",\"max_tokens\":\"64\"}\n{\"prompt\":\"z\",\"output_tokens\":1e2}\n{\"prompt\":\"no\",\"output_tokens\":1.5}\n"),
        ("gz.jsonl", b"\x1f\x8b\x08\x00 "),
        ("hugeid.jsonl", b"{\"id\":1e400,\"prompt\":\"a\"}\n{\"id\":-7,\"prompt\":\"b\"}\n"),
        ("idobj.jsonl", b"{\"id\":{\"$oid\":\"abc\"},\"prompt\":\"a\"}\n{\"id\":true,\"prompt\":\"b\"}\n{\"name\":\" \",\"id\":null,\"question_id\":7,\"prompt\":\"c\"}\n"),
        ("idweird.jsonl", "{\"id\":\"a/b c::d\",\"prompt\":\"a\"}\n{\"id\":\"x\\ny\",\"prompt\":\"b\"}\n{\"id\":\"../../etc\",\"prompt\":\"c\"}\n{\"id\":\"名前\",\"prompt\":\"c\"}\n".as_bytes()),
        ("latin1.jsonl", b"{\"prompt\":\"caf\xe9\"}\n{\"prompt\":\"tea\"}\n"),
        ("latin1.json", b"[{\"prompt\":\"tea\"},\n{\"prompt\":\"caf\xe9\"}]"),
        ("jointlists.json", b"[\n {\"prompt\":\"a\"}\n]\n[{\"prompt\":\"b\"}]\n"),
        ("linesoflists.jsonl", b"[{\"from\":\"human\",\"value\":\"a\"}]\n[{\"role\":\"user\",\"content\":\"b\"}]\n"),
        ("listoflists.json", br#"[[{"from":"human","value":"foo"},{"from":"gpt","value":"bar"}]]"#),
        ("oneconversation.json", br#"[{"role":"user","content":"foo"},{"role":"assistant","content":"bar"}]"#),
        ("linesofturns.jsonl", b"{\"role\":\"user\",\"content\":\"a\"}\n{\"from\":\"human\",\"value\":\"b\"}\n{\"prompt\":\"c\"}\n"),
        ("linesofrecords.jsonl", b"[{\"prompt\":\"a\"},{\"prompt\":\"b\"}]\n[{\"prompt\":\"c\"}]\n"),
        ("lone.json", br#"[{"id":"x1","conversations":[{"from":"human","value":"hi \ud83d there"},{"from":"gpt","value":"x"}]},{"id":"x2","conversations":[{"from":"human","value":"ok \ud83d\ude00"}]}]"#),
        ("lone.jsonl", b"{\"prompt\":\"hi \\ud83d there\"}\n{\"prompt\":\"b\"}\n"),
        ("ls.jsonl", "{\"prompt\":\"a\u{2028}b\"}\n{\"prompt\":\"b\"}\n".as_bytes()),
        ("nan.jsonl", b"{\"prompt\":\"a NaN\",\"score\":NaN,\"low\":-Infinity}\n{\"prompt\":\"b\"}\n"),
        ("notext.jsonl", b"{\"prompt\":[1,2,3]}\n{\"messages\":[\"a\"]}\n{\"conversations\":[{\"from\":\"human\",\"value\":5}]}\n{\"prompt\":\"b\"}\n"),
        ("nul.jsonl", b"{\"prompt\":\"a\\u0000b\"}\n"),
        ("numid.jsonl", b"{\"id\":1.0,\"prompt\":\"a\"}\n{\"id\":1,\"prompt\":\"b\"}\n{\"id\":12345678901234567890123,\"prompt\":\"b\"}\n"),
        ("outnull.jsonl", br#"{"prompt":"x","output_tokens":null,"tools":null}"#),
        ("parquet.jsonl", b"PAR1 \x15\x04"),
        ("pretty.json", b"[\n  {\n    \"prompt\": \"a\"\n  },\n  {\n    \"prompt\": \"b\"\n  }\n]"),
        ("prettyobjs.json", b"{\n \"prompt\": \"a\"\n}\n{\n \"prompt\": \"b\"\n}\n"),
        ("question.jsonl", br#"{"question":"a","answer":"b"}"#),
        ("rolecontent.json", br#"[{"conversations":[{"role":"user","content":"foo"},{"role":"assistant","content":null}]}]"#),
        ("str.jsonl", b"\"just text\"\n{\"prompt\":\"a\"}\n"),
        ("sys.jsonl", b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"b\"}]}\n{\"messages\":[{\"from\":\"system\",\"value\":\"s\"},{\"from\":\"human\",\"value\":\"b\"}]}\n"),
        ("tool.jsonl", b"{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]},{\"role\":\"tool\",\"content\":\"r\"},{\"role\":\"user\",\"content\":\"and?\"}]}\n{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]},{\"role\":\"tool\",\"content\":\"r\"}]}\n"),
        ("trailing.json", br#"[{"prompt":"a"},{"prompt":"b"},]"#),
        ("trl.jsonl", br#"{"prompt":[{"role":"system","content":"s"},{"role":"user","content":"x"}]}"#),
        ("truncated.json", br#"[{"prompt":"a"},{"prompt":"b"},{"prom"#),
        ("valnull.json", br#"[{"id":"1","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":null}]},{"id":"2","conversations":[{"from":"human","value":"ok"}]}]"#),
        ("humannull.json", br#"[{"conversations":[{"from":"human","value":null}]},{"conversations":[{"from":"human"}]},{"conversations":[{"from":"human","value":"ok"}]}]"#),
        ("zip.jsonl", b"PK\x03\x04 "),
    ];
    let mut output = String::new();
    for (file, bytes) in files {
        output += &format!("{file}\n  {}\n", read_set(file, bytes, "").replace('\n', "\n  "));
    }
    for bytes in [
        &b"BZh91AY"[..],
        b"\xfd7zXZ\0\0",
        b"\x04\x22\x4d\x18d",
        b"ARROW1\0\0",
        b"SQLite format 3\0",
        b"PK\x03\x04 [Content_Types].xml",
        b"\xff\xfe\0\0{\0\0\0",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<!DOCTYPE html>",
    ] {
        output += &format!("{}\n", read_set("d", bytes, ""));
    }
    let deep =
        format!("{{\"messages\":{}{}}}\n{{\"prompt\":\"a\"}}\n", "[".repeat(200), "]".repeat(200));
    output += &format!("deep.jsonl\n  {}\n", read_set("deep.jsonl", deep.as_bytes(), ""));
    let large = b"{\"prompt\":\"a\",\"output_tokens\":1e400}\n{\"prompt\":\"b\"}\n";
    output += &format!("large.jsonl\n  {}\n", read_set("large.jsonl", large, ""));
    let wide = utf16("{\"prompt\":\"a\"}\n");
    output += &format!("utf16.jsonl\n  {}\n", read_set("utf16.jsonl", &wide, ""));
    insta::assert_snapshot!(output);
}

#[test]
fn a_bad_record_is_skipped_with_a_warning_or_refused_by_strict_data() {
    let lines = "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"\n{\"prompt\":\"\"}\n{\"id\":\"d\",\"prompt\":\"d\"}\n";
    let bench = bench("d.jsonl", lines.as_bytes(), "");
    let ran = bench.run(&["--list"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    // Nothing but the list is on stdout.
    let names = "m-simulated::d-1::run-1: benchmark\nm-simulated::d-d::run-1: benchmark\n";
    assert_eq!(ran.stdout, names);
    assert!(ran.stderr.contains("d.jsonl:2: record left out: this is not JSON"), "{}", ran.stderr);
    assert!(ran.stderr.contains("d.jsonl:3: record left out: `prompt` is empty"), "{}", ran.stderr);
    let count = "d.jsonl: 2 of 4 records left out; `--strict-data` refuses such a data set";
    assert!(ran.stderr.contains(count), "{}", ran.stderr);
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(bench.column("prompt"), ["d-1", "d-d"]);
    assert!(ran.stderr.contains(count), "{}", ran.stderr);
    for strict in [
        bench.run(&["--list", "--strict-data"]),
        crate::bench::ran(bench.command(&["--list"]).env("LLM_STREAM_BENCH_STRICT_DATA", "1")),
    ] {
        assert_eq!((strict.code, strict.stdout.as_str()), (Some(2), ""), "{}", strict.stderr);
        assert!(strict.stderr.contains("d.jsonl:2:"), "{}", strict.stderr);
        assert!(strict.stderr.contains("error: `prompt` is empty"), "{}", strict.stderr);
    }
    let off =
        crate::bench::ran(bench.command(&["--list"]).env("LLM_STREAM_BENCH_STRICT_DATA", "0"));
    assert_eq!(off.code, Some(0), "{}", off.stderr);
}

#[test]
fn strict_data_refuses_every_unsent_record() {
    let human = |text: &str| {
        format!("{{\"conversations\":[{{\"from\":\"human\",\"value\":\"{text}\"}}]}}\n")
    };
    let bad = "{\"prompt\":\"\"}\n";
    for (lines, why) in [
        (human("a") + &human(""), "d.jsonl has 1 record without a question"),
        (human("a") + &human("") + &human(""), "d.jsonl has 2 records without a question"),
        (human("a") + &bad.repeat(6), "1 more record of d.jsonl cannot be sent"),
        (human("a") + &bad.repeat(7), "2 more records of d.jsonl cannot be sent"),
    ] {
        let bench = bench("d.jsonl", lines.as_bytes(), "");
        let ran = bench.run(&["--list"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let strict = bench.run(&["--list", "--strict-data"]);
        assert_eq!(strict.code, Some(2), "{}", strict.stderr);
        let folder = bench.folder.path().display().to_string() + "/";
        assert!(strict.stderr.replace(&folder, "").contains(why), "{}", strict.stderr);
    }
}

#[test]
fn a_bad_file_of_a_folder_does_not_affect_the_others() {
    let bench = Bench::new(
        "runs: 1\nprompts: [{ name: d, dataset: texts }]\n\
         models: { m: { simulate: { ttft: 1ms, itl: 1ms, tokens: 4 } } }\n",
    );
    let texts = bench.folder.path().join("texts");
    fs::create_dir(&texts).unwrap();
    for (name, bytes) in [
        ("a.txt", &b"Say a."[..]),
        ("b.txt", b"caf\xe9"),
        ("c.txt", b"\xff\xfeS\0"),
        ("d.md", b" \n"),
        ("e.txt", b"Say e."),
    ] {
        fs::write(texts.join(name), bytes).unwrap();
    }
    let ran = bench.run(&["--list"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let names = "m-simulated::d-a::run-1: benchmark\nm-simulated::d-e::run-1: benchmark\n";
    assert_eq!(ran.stdout, names);
    let strict = bench.run(&["--list", "--strict-data"]);
    assert_eq!(strict.code, Some(2), "{}", strict.stderr);
    for (file, what) in
        [("b.txt", "is not UTF-8 text"), ("c.txt", "is not UTF-8 text"), ("d.md", "is empty")]
    {
        let warning = format!("{file}: record left out: the file {what}\n");
        assert!(ran.stderr.contains(&warning), "{}", ran.stderr);
        assert!(strict.stderr.contains(file), "{}", strict.stderr);
    }
    assert!(ran.stderr.contains("texts: 3 of 5 records left out"), "{}", ran.stderr);
}

#[test]
fn skipped_records_do_not_count_for_the_limit() {
    let lines = b"{\"prompt\":\"\"}\n{\"prompt\":\"a\"}\n{\"prompt\":3}\n{\"prompt\":\"b\"}\n{\"prompt\":\"c\"}\n";
    let output = read_set("d.jsonl", lines, ", limit: 2");
    assert!(output.starts_with("d-1: a\nd-2: b\nwarning: d.jsonl:1: record left out"), "{output}");
}

#[test]
fn a_large_set_is_read_in_linear_time() {
    let good: String =
        (0..30_000).map(|nth| format!("{{\"id\":\"same\",\"prompt\":\"Say {nth}.\"}}\n")).collect();
    let began = Instant::now();
    let output = read_set("d.jsonl", good.as_bytes(), ", limit: 1, seed: 3");
    assert!(
        output.contains("note: d.jsonl: 29999 records with a name that another has: numbered"),
        "{output}"
    );
    let bad: String = (0..30_000)
        .map(|nth| format!("{{\"prompt\":{nth}}}\n"))
        .chain(["{\"prompt\":\"a\"}".into()])
        .collect();
    let output = read_set("d.jsonl", bad.as_bytes(), "");
    assert!(output.contains("30000 of 30001 records left out"), "{output}");
    for broken in ["{\"prompt\":\"a\"", "{\"prompt\":\"a 5\" b\"}", "{\"prompt\":\"a\"]}"] {
        for between in [",", ",\n"] {
            let text =
                format!("[{}{between}{{\"prompt\":\"a\"}}]", vec![broken; 30_000].join(between));
            let output = read_set("d.json", text.as_bytes(), "");
            assert!(output.contains("30000 of 30001 records left out"), "{broken}: {output}");
        }
    }
    // Quadratic, each took minutes.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
