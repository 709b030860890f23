//! Names and words of others: what selects by them, and how they are shown.

use std::fs;

use crate::{
    bench::{Bench, Ran},
    servers::repeats,
};

/// Models as Ollama calls them, prompts and a workload with what trial names replace.
const COLONS: &str = "runs: 1
prompts:
  - { name: \"say: hello\", text: x }
  - { name: bye, text: x }
workloads:
  \"one, two\": { concurrency: 1, requests: 1 }
models:
  \"llama3.1:8b\": { simulate: { tokens: 4, ttft: 1ms, itl: 1ms } }
  \"qwen2.5:7b\": { simulate: { tokens: 4, ttft: 1ms, itl: 1ms } }
  key: { name: \"given, name\", simulate: { tokens: 4, ttft: 1ms, itl: 1ms } }
";

fn list(bench: &Bench, arguments: &[&str]) -> Ran {
    bench.run(&[arguments, &["--list"]].concat())
}

#[test]
fn a_filter_matches_the_written_and_the_shown_name() {
    let bench = Bench::new(COLONS);
    let llama = "llama3.1_8b-simulated::say_hello::run-1";
    for (arguments, selected) in [
        (&["llama3.1:8b::say: hello"][..], vec![llama]),
        (&["llama3.1_8b-simulated::say: hello"], vec![llama]),
        (&["llama3.1:8b-simulated::say_hello"], vec![llama]),
        (&["--exact", "llama3.1:8b::say: hello::run-1"], vec![llama]),
        (&["--exact", "llama3.1:8b-simulated::say: hello::run-1"], vec![llama]),
        (&["--exact", llama], vec![llama]),
        (
            &["bye", "--skip", "qwen2.5:7b", "--skip", "given, name"],
            vec!["llama3.1_8b-simulated::bye::run-1"],
        ),
        (
            &["llama3.1:8b::bye", "qwen2.5_7b-simulated::bye"],
            vec!["llama3.1_8b-simulated::bye::run-1", "qwen2.5_7b-simulated::bye::run-1"],
        ),
        (&["key::one, two"], vec!["given_name-simulated::one_two::run-1"]),
        (
            &["given, name", "--skip", "hello", "--skip", "one, two"],
            vec!["given_name-simulated::bye::run-1"],
        ),
    ] {
        let ran = list(&bench, arguments);
        let names: Vec<_> = ran.stdout.lines().collect();
        let wanted: Vec<_> = selected.iter().map(|name| format!("{name}: benchmark")).collect();
        assert_eq!(
            (ran.code, names),
            (Some(0), wanted.iter().map(String::as_str).collect()),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn each_word_that_matches_no_trial_is_an_error() {
    let bench = Bench::new(COLONS);
    for (arguments, why) in [
        (&["llama3.1:8b", "Mistral"][..], "error: no trial matches `Mistral`: they are called"),
        (&["--skip", "qwen2.5:8b"], "error: no trial matches `--skip` `qwen2.5:8b`: "),
        (&["--skip", "qwen2.5:8b"], "help: for `qwen2.5:8b`, did you mean `qwen2.5:7b`?"),
        (&["byee", "--skip", "nothing"], "no trial matches `byee`, nor `--skip` `nothing`: "),
        (&["byee", "--skip", "nothing"], "help: for `byee`, did you mean `bye`?"),
        (&["--exact", "llama3.1_8b"], "did you mean `llama3.1_8b-simulated::say_hello::run-1`?"),
        (&["--exact", "llama3.1:8b"], "did you mean `llama3.1_8b-simulated::say_hello::run-1`?"),
        (&["--models", "key", "llama3.1:8b"], "no trial matches `llama3.1:8b`: "),
        (&["bye", "--skip", "bye"], "no trial matches `bye` and is left by `--skip bye`: they are"),
        (&["--skip", "y", "--skip", "one"], "`--skip y --skip one` leaves no trial: "),
        (&["--exact", "nothing"], ", and `--exact` requires the full name"),
        (&["--models", "llama3.1_8"], "help: for `llama3.1_8`, did you mean `llama3.1_8b`?"),
        (&["--models", "x"], "models: `llama3.1:8b`, `qwen2.5:7b`, `key`"),
    ] {
        let ran = list(&bench, arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(why), "{arguments:?}: {}", ran.stderr);
    }
    // Under `cargo test` the words are for other targets, too.
    let smoke = crate::bench::ran(&mut bench.smoke(&["Mistral", "--skip", "nothing"]));
    assert_eq!(smoke.code, Some(0), "{}", smoke.stderr);
}

#[test]
fn a_model_is_selected_by_its_written_or_shown_name() {
    let bench = Bench::new(COLONS);
    for (models, begins) in [
        ("llama3.1_8b", "llama3.1_8b-simulated::"),
        ("llama3.1_8b-simulated", "llama3.1_8b-simulated::"),
        ("key", "given_name-simulated::"),
        ("given, name-simulated", "given_name-simulated::"),
    ] {
        let ran = list(&bench, &["--models", models]);
        assert_eq!(ran.code, Some(0), "{models}: {}", ran.stderr);
        assert!(ran.stdout.lines().count() > 0);
        assert!(ran.stdout.lines().all(|line| line.starts_with(begins)), "{}", ran.stdout);
    }
}

#[test]
fn a_recording_does_not_overwrite_a_file_of_the_run() {
    for folder in [".", "./", "kept/.."] {
        let bench = Bench::new(
            "runs: 1\nprompts: [{ name: p, dataset: m-simulated__p-1__run-1.jsonl }]\n\
             models: { m: { simulate: { tokens: 4 } } }\n",
        );
        let set = bench.folder.path().join("m-simulated__p-1__run-1.jsonl");
        let record = "{\"prompt\":\"x\"}\n";
        fs::write(&set, record).unwrap();
        fs::create_dir(bench.folder.path().join("kept")).unwrap();
        let ran = bench.run(&["--record", folder, "--no-warmup"]);
        assert_eq!(ran.code, Some(2), "{folder}: {}", ran.stderr);
        assert!(ran.stderr.contains("a recording of `--record` would overwrite"), "{}", ran.stderr);
        assert_eq!(fs::read_to_string(&set).unwrap(), record);
    }
}

#[test]
fn unprintable_names_are_selected_by_their_written_or_shown_form() {
    let odd = ["a\tb", "c\nd", "rtl\u{202e}x", "e\u{1b}[1mf"];
    let yaml = ["a\\tb", "c\\nd", "rtl\\u202Ex", "e\\x1b[1mf"];
    let prompts = yaml.map(|name| format!("  - {{ name: \"{name}\", turns: [x, y] }}\n")).concat();
    let models = yaml.map(|name| {
        format!("  \"{name}\": {{ name: \"m {name}\", simulate: {{ tokens: 4, ttft: 1ms, itl: 1ms }} }}\n")
    });
    let loads = yaml.map(|name| format!("  \"w {name}\": {{ concurrency: 1, requests: 1 }}\n"));
    let bench = Bench::new(&format!(
        "runs: 1\nprompts:\n{prompts}  - {{ name: set, dataset: set.jsonl }}\nworkloads:\n{}models:\n{}",
        loads.concat(),
        models.concat()
    ));
    let records: String = odd
        .iter()
        .map(|name| serde_json::json!({"id": name, "prompt": "x"}).to_string() + "\n")
        .collect();
    fs::write(bench.folder.path().join("set.jsonl"), records).unwrap();
    for (nth, written) in odd.into_iter().enumerate() {
        let sanitised = ["a_b", "c_d", "rtl_x", "e_[1mf"][nth];
        let shown = ["a\\tb", "c\\nd", "rtl\\u{202e}x", "e\\u{1b}[1mf"][nth];
        for form in [written, sanitised, shown] {
            for (word, selected) in [
                (format!("::{form}::"), format!("::{sanitised}::")),
                (format!("::w {form}::"), format!("::w_{sanitised}::")),
                (format!("::set-{form}::"), format!("::set-{sanitised}::")),
                (format!("m {form}-"), format!("m_{sanitised}-")),
            ] {
                // What is shown of a model is written with `_` for a blank.
                let word = if form == sanitised {
                    word.replace("m ", "m_").replace("w ", "w_")
                } else {
                    word
                };
                let ran = list(&bench, &[&word]);
                assert_eq!(ran.code, Some(0), "{word:?}: {}", ran.stderr);
                assert!(ran.stdout.lines().all(|line| line.contains(&selected)), "{}", ran.stdout);
            }
        }
        let ran = list(&bench, &["--models", &format!("m {written}-simulated")]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
}

#[test]
fn names_with_equal_shown_forms_are_refused_or_numbered() {
    let simulated = "{ simulate: { tokens: 4 } }";
    for (config, things) in [
        (
            format!(
                "prompts: [{{ name: \"a\\tb\", text: x }}, {{ name: 'a\\tb', text: x }}]\nmodels: {{ m: {simulated} }}\n"
            ),
            "the prompts ",
        ),
        (format!("models:\n  \"a\\tb\": {simulated}\n  'a\\tb': {simulated}\n"), "the models "),
        (
            format!(
                "workloads:\n  \"a\\tb\": {{ concurrency: 1, requests: 1 }}\n  'a\\tb': {{ concurrency: 1, requests: 1 }}\nmodels: {{ m: {simulated} }}\n"
            ),
            "the workloads ",
        ),
    ] {
        let ran = list(&Bench::new(&config), &[]);
        assert_eq!(ran.code, Some(2), "{config}: {}", ran.stdout);
        assert!(ran.stderr.contains(things), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("would both be called `a\\tb` in the results"),
            "{}",
            ran.stderr
        );
    }
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: d, dataset: d.jsonl }}]\nmodels: {{ m: {simulated} }}\n"
    ));
    let records = "{\"id\":\"a\\tb\",\"prompt\":\"x\"}\n{\"id\":\"a\\\\tb\",\"prompt\":\"y\"}\n";
    fs::write(bench.folder.path().join("d.jsonl"), records).unwrap();
    let ran = list(&bench, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("1 record with a name that another has: numbered"),
        "{}",
        ran.stderr
    );
}

/// What no terminal and no XML is to get.
fn is_harmless(text: &str) -> bool {
    text.chars().all(|ch| {
        let is_seen = !ch.is_control() || matches!(ch, '\n' | '\t');
        is_seen && !matches!(ch, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{fffe}' | '\u{ffff}')
    })
}

#[test]
fn names_and_server_texts_are_printed_without_control_characters() {
    let said = "\\u001b[31mboom\\u0000 \\ufffe \\uffff ]]> & < \\u0085 \\u202e \\u2028 end";
    let body = format!("{{\"error\":{{\"message\":\"{said}\"}}}}");
    let length = body.len();
    let head = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\n";
    let address = repeats(format!("{head}content-length: {length}\r\n\r\n{body}").into());
    let odd = "\\e[2Jmo\\u202Edel\\nx\\uFFFE\\x9B";
    let bench = Bench::new(&format!(
        "runs: 1
prompts: [{{ name: \"{odd}\", text: x }}, {{ name: \"se\\x1bt\", dataset: set.jsonl }}]
thresholds: [\"ttft <= 1 s\"]
workloads: {{ \"{odd} load\": {{ concurrency: 1, requests: 1, thresholds: [\"ttft <= 1 s\"] }} }}
models: {{ \"{odd}\": {{ base_url: \"http://{address}\" }} }}
"
    ));
    let record = "{\"id\":\"i\\u001b[1m\\u202ed\\n2\",\"prompt\":\"x\"}\n";
    fs::write(bench.folder.path().join("set.jsonl"), record).unwrap();
    let mut command = bench.command(&["--junit", "j.xml", "--json", "r.json"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", "step.md");
    command.env_remove("LLM_STREAM_BENCH_NO_PREFLIGHT");
    let ran = crate::bench::ran(&mut command);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let text = |name: &str| fs::read_to_string(bench.folder.path().join(name)).unwrap();
    for (name, text) in [
        ("stdout", ran.stdout.clone()),
        ("stderr", ran.stderr.clone()),
        ("junit", text("j.xml")),
        ("step", text("step.md")),
    ] {
        assert!(is_harmless(&text), "{name}: {}", text.escape_debug());
    }
    assert!(ran.stderr.contains("Testing \\u{1b}[2Jmo\\u{202e}del\\nx\\u{fffe}\\u{9b}...\n"));
    assert!(ran.stderr.contains("\\u{1b}[31mboom\\u{0}"), "{}", ran.stderr);
    assert!(text("j.xml").contains("\\u{fffe} \\u{ffff} ]]&gt; &amp; &lt;"), "{}", text("j.xml"));
    serde_json::from_str::<serde_json::Value>(&text("r.json")).unwrap();
    // So are lists and mistakes.
    for arguments in [&["--list"][..], &["nothing"], &["\u{1b}[31m"], &["--models", "\u{202e}"]] {
        let ran = bench.run(arguments);
        assert!(is_harmless(&(ran.stdout + &ran.stderr)), "{arguments:?}");
    }
}
