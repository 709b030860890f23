//! Hostile texts from servers, configs, files and the environment, through the front door with all
//! outputs. No output has an active command of a CI system, a control character or an unbounded
//! line; every output can be parsed, and no exit code is better than with a plain text.

mod ci_parsers;
mod outputs;
mod server;
mod texts;

use std::{fs, path::Path, process::Command, thread};

use serde_json::Value;

use self::{
    outputs::{check_files, check_log},
    server::{CARRIERS, HostileServer},
    texts::{PLAIN, texts},
};
use crate::bench::{Bench, Ran, ran};

/// The models of one run: GitHub shows ten annotations, and the step summary ten failures.
const MODELS: usize = 9;

/// The arguments for all outputs.
const OUTPUTS: [&str; 11] = [
    "--no-warmup",
    "--record=kept",
    "--junit=junit.xml",
    "--json=run.json",
    "--export=bencher=bmf.json",
    "--export=github-action-benchmark-bigger=bigger.json",
    "--export=github-action-benchmark-smaller=smaller.json",
    "--save-baseline=main",
    "--accept",
    "--inconclusive=warn",
    "--color=never",
];

/// `text` as a text of YAML.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    json.chars()
        .map(|ch| match ch.is_control() || ('\u{2028}'..='\u{2029}').contains(&ch) {
            true => format!("\\u{:04x}", u32::from(ch)),
            false => ch.to_string(),
        })
        .collect()
}

fn on_github<'c>(command: &'c mut Command, folder: &Path) -> &'c mut Command {
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", folder.join("step.md"))
}

/// Runs `bench` with all outputs, checks them, and returns the run.
fn measured(bench: &Bench, more: &[&str], about: &str) -> Ran {
    let mut command = bench.command(&OUTPUTS);
    let ran = ran(on_github(command.args(more), bench.folder.path()));
    check(bench, &ran, about);
    ran
}

fn check(bench: &Bench, ran: &Ran, about: &str) {
    check_log(&ran.stdout, about);
    check_log(&ran.stderr, about);
    check_files(bench.folder.path(), about);
}

/// Whether `code` is not better than `plain`, the exit code with a plain text.
fn assert_not_better(code: Option<i32>, plain: Option<i32>, about: &str) {
    assert!([Some(0), Some(2), Some(101)].contains(&code), "{about}: {code:?}");
    assert!(plain == Some(0) || code != Some(0), "{about}: {code:?}, with a plain text {plain:?}");
}

#[test]
fn texts_of_servers_are_inert() {
    let texts = texts();
    let server = HostileServer::start(texts.clone());
    for carrier in CARRIERS {
        let plain = of_server(&server, carrier, &[PLAIN]);
        let all: Vec<_> = (0..texts.len()).filter(|nth| *nth != PLAIN).collect();
        for some in all.chunks(MODELS) {
            let ran = of_server(&server, carrier, some);
            assert_not_better(ran.code, plain.code, carrier);
        }
    }
    assert!(texts.len() * CARRIERS.len() >= 400, "{} texts", texts.len() * CARRIERS.len());
}

/// A run with a model for each of the texts `some`, which `carrier` carries.
fn of_server(server: &HostileServer, carrier: &str, some: &[usize]) -> Ran {
    let mut config = String::from(
        "runs: 1\nprompts: [{ name: p, text: hi }]\n\
         thresholds: [\"success_rate >= 100 %\"]\nmodels:\n",
    );
    for nth in some {
        let url = server.url(carrier, *nth);
        let metrics = match carrier {
            "metrics" => format!(", metrics_url: \"{url}/metrics\""),
            _ => String::new(),
        };
        config += &format!("  m{nth}: {{ base_url: \"{url}\"{metrics} }}\n");
    }
    let bench = Bench::by_default(&config);
    let about = format!("{carrier} {some:?}");
    let ran = measured(&bench, &[], &about);
    assert!(bench.folder.path().join("results.csv").exists(), "{about}: {}", ran.stderr);
    let stored = bench.folder.path().join("results.csv");
    assert!(fs::read_to_string(stored).unwrap().len() > 1_000, "{about}: {}", ran.stderr);
    ran
}

#[test]
fn names_of_models_that_a_server_lists_are_inert() {
    let texts = texts();
    let server = HostileServer::start(texts.clone());
    thread::scope(|scope| {
        for (nth, text) in texts.iter().enumerate() {
            let url = server.url("models", nth);
            scope.spawn(move || listed_model_is_inert(&url, &format!("models {nth}: {text:.40?}")));
        }
    });
}

fn listed_model_is_inert(url: &str, about: &str) {
    let bench = Bench::by_default("models: { unused: { simulate: {} } }\n");
    let program = env!("CARGO_BIN_EXE_llm-stream-bench-under-test");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.current_dir(bench.folder.path()).args(arguments);
        command
    };
    let init = ran(&mut command(&["init", url, "--config", "made.yaml"]));
    check(&bench, &init, about);
    if init.code == Some(0) {
        let made = fs::read_to_string(bench.folder.path().join("made.yaml")).unwrap();
        check_log(&made, about);
        let checked = ran(&mut command(&["check", "--config", "made.yaml"]));
        assert_eq!(checked.code, Some(0), "{about}: {}\n{made}", checked.stderr);
        check(&bench, &checked, about);
    }
    let arguments =
        ["run", url, "--prompt=hi", "--runs=1", "--no-calibration", "--output=results.csv"];
    let mut command = command(&arguments);
    let ran = ran(on_github(command.args(OUTPUTS), bench.folder.path()));
    check(&bench, &ran, about);
}

#[test]
fn names_in_a_config_and_in_data_are_inert() {
    for (nth, text) in texts().iter().enumerate() {
        let about = format!("config {nth}: {text:.40?}");
        let text = quoted(text);
        // A name may be refused, so that each has its own config.
        let simulated = "simulate: { ttft: 1ms, itl: 0ms, tokens: 2, faults: [{ status: 503 }] }";
        let configs = [
            format!(
                "models: {{ {text}: {{ {simulated} }} }}\nprompts: [{{ name: p, text: hi }}]\n"
            ),
            format!(
                "models: {{ m: {{ {simulated}, model_name: {text} }} }}\n\
                 prompts: [{{ name: {text}, text: hi }}]\n"
            ),
            format!(
                "models: {{ m: {{ {simulated} }} }}\nprompts: [{{ name: p, text: hi }}]\n\
                 workloads: {{ {text}: {{ concurrency: 1, requests: 1 }} }}\n"
            ),
            format!(
                "models: {{ m: {{ {simulated} }} }}\nprompts: [{{ name: s, dataset: d.json }}]\n"
            ),
            format!("models: {{ m: {{ {text}: 1, transport: {text} }} }}\n"),
            format!("models: {{ m: {{ {simulated}, api_key_env: {text} }} }}\n"),
            format!("models: {{ m: {{ {simulated} }} }}\nthresholds: [{text}]\n"),
        ];
        for config in configs {
            let bench = Bench::by_default(&format!("runs: 1\n{config}"));
            let record = format!("[{{\"id\": {text}, \"prompt\": {text}}}]");
            fs::write(bench.folder.path().join("d.json"), record).unwrap();
            let ran = measured(&bench, &[], &about);
            assert!([Some(2), Some(101)].contains(&ran.code), "{about}: {}{config}", ran.stderr);
            let listed = bench.run(&["--list"]);
            check(&bench, &listed, &about);
        }
    }
}

#[cfg(unix)]
#[test]
fn file_names_arguments_and_variables_are_inert() {
    for (nth, text) in texts().iter().enumerate() {
        let about = format!("argument {nth}: {text:.40?}");
        let argument = text.replace('\0', "").chars().take(2_000).collect::<String>();
        let file: String = argument.replace('/', "_").chars().take(60).collect();
        let bench = Bench::by_default(
            "runs: 1\nprompts: folder\nmodels: { m: { simulate: { ttft: 1ms, tokens: 2 } } }\n",
        );
        let folder = bench.folder.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(format!("{file}.txt")), "hi").unwrap();
        fs::write(folder.join("z.txt"), "hi").unwrap();
        let ran_all = measured(&bench, &[], &about);
        assert!([Some(0), Some(101)].contains(&ran_all.code), "{about}: {}", ran_all.stderr);
        for arguments in [
            vec!["--config", &argument],
            vec!["--models", &argument],
            vec!["--inconclusive", &argument],
            vec![&argument],
            vec!["--baseline", &argument],
            vec!["--baseline-label", &argument, "--save-baseline=b"],
        ] {
            let mut command = bench.smoke(&[]);
            command.args(["--bench", "--no-calibration", "--output=other.csv"]).args(&arguments);
            let ran = ran(on_github(&mut command, bench.folder.path()));
            check(&bench, &ran, &format!("{about} {arguments:.60?}"));
        }
        let mut command = bench.command(&["--no-warmup"]);
        command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", format!("/no/{argument}"));
        check(&bench, &ran(command.env("LLM_STREAM_BENCH_INCONCLUSIVE", &argument)), &about);
        command.env_remove("LLM_STREAM_BENCH_INCONCLUSIVE");
        check(&bench, &ran(&mut command), &about);
    }
}

#[test]
fn libtest_formats_remain_valid() {
    let texts = texts();
    let server = HostileServer::start(texts.clone());
    for nth in 0..texts.len() {
        let bench = Bench::by_default(&format!(
            "runs: 1\nprompts: [{{ name: p, text: hi }}]\nmodels: {{ m: {{ base_url: \"{}\" }} }}\n",
            server.url("error_json", nth)
        ));
        let about = format!("json {nth}");
        let ran = bench.run(&["--no-warmup", "--format=json", "-Zunstable-options"]);
        check_log(&ran.stdout, &about);
        for line in ran.stdout.lines() {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{about}: {line}");
        }
        let ran = bench.run(&["--no-warmup", "--color=always"]);
        let uncolored = outputs::without_colors(&ran.stdout);
        assert_ne!(uncolored, ran.stdout, "our own colours remain");
        check_log(&uncolored, &about);
    }
}
