//! Inputs that are no files, or are too large or too deep, and limits that decide nothing.

use std::{fs, path::Path, process::Command};

use crate::bench::{Bench, executable, passed, ran};

const CONFIG: &str = "runs: 1\nprompts: [{ name: p, text: hi }]\nmodels: { m: { simulate: { ttft: 1ms, tokens: 2 } } }\n";

/// The error of a run that could not start.
fn refused(bench: &Bench, arguments: &[&str]) -> String {
    let ran = bench.run(arguments);
    assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
    ran.stderr
}

#[cfg(unix)]
#[test]
fn pipes_sockets_devices_and_folders_are_refused_as_inputs() {
    let configs = [
        ("config", "models: { m: { simulate: {} } }\n"),
        ("text", "prompts: [{ name: p, file: INPUT }]\nmodels: { m: { simulate: {} } }\n"),
        ("data", "prompts: [{ name: p, dataset: INPUT }]\nmodels: { m: { simulate: {} } }\n"),
        (
            "image",
            "prompts: [{ name: p, text: hi, images: [INPUT] }]\nmodels: { m: { simulate: {} } }\n",
        ),
        ("baseline", CONFIG),
    ];
    for (role, config) in configs {
        for kind in ["named pipe", "socket", "device", "folder"] {
            let path = match kind {
                "device" => "/dev/zero",
                "folder" => "folder.json",
                _ => "input.json",
            };
            let bench = Bench::by_default(&config.replace("INPUT", path));
            let file = bench.folder.path().join(path);
            match kind {
                "named pipe" => {
                    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success())
                }
                "socket" => drop(std::os::unix::net::UnixListener::bind(&file).unwrap()),
                "folder" => fs::create_dir(&file).unwrap(),
                _ => {}
            }
            let arguments = match role {
                "config" => vec!["--config", path],
                "baseline" => vec!["--baseline", path],
                _ => vec!["--list"],
            };
            // A folder of texts is a data set, and this one is empty.
            let expected = match kind {
                "folder" if role == "data" => "folder.json",
                "folder" if role == "baseline" => "directory",
                kind => kind,
            };
            let message = refused(&bench, &arguments);
            assert!(message.to_lowercase().contains(expected), "{role} {kind}: {message}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_that_the_shell_has_opened_is_a_config() {
    let bench = Bench::by_default(CONFIG);
    let program = executable().display().to_string();
    for script in [
        format!("'{program}' --bench --list --config <(cat configs.yaml)"),
        format!("cat configs.yaml | '{program}' --bench --list --config /dev/stdin"),
        format!("'{program}' --bench --list --config /dev/stdin < configs.yaml"),
    ] {
        let mut command = Command::new("bash");
        let ran = ran(command.current_dir(bench.folder.path()).args(["-c", &script]));
        passed(&ran);
        assert_eq!(ran.stdout, "m-simulated::p::run-1: benchmark\n", "{script}");
    }
}

#[test]
fn deep_and_large_documents_are_refused_in_linear_time() {
    let length = 1 << 20;
    let repeated = |text: &str| text.repeat(length / text.len());
    let many = |entry: &dyn Fn(usize) -> String| (0..length / 200).map(entry).collect::<String>();
    let bomb = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        format!("{text}a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1)
    });
    let configs = [
        repeated("{"),
        repeated("["),
        repeated("- "),
        repeated("? "),
        repeated("{a: "),
        repeated("[{"),
        repeated("}"),
        repeated("&a "),
        repeated("*a "),
        repeated("!!"),
        repeated("'"),
        repeated("\""),
        repeated("|\n"),
        repeated("a: {\n"),
        format!("models: {{ m: {{ simulate: {{}}, extra_body: {} }} }}", repeated("[")),
        format!("models: {{ {} }}", repeated("a, ")),
        many(&|n| format!("key{n}: sk-0123456789\n")),
        format!("models:\n{}", many(&|n| format!("  m{n}: {{ api_key: x{n} }}\n"))),
        format!(
            "thresholds: [{}]\nmodels: {{ m: {{ simulate: {{}} }} }}\n",
            many(&|n| format!("x{n}, "))
        ),
        bomb,
        format!("a: &a {{}}\nb:\n{}", repeated("- *a\n")),
        format!("# {}", "x".repeat(17 << 20)),
    ];
    for config in configs {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        fs::write(bench.folder.path().join("configs.yaml"), &config).unwrap();
        let message = refused(&bench, &["--list"]);
        assert!(message.len() < 100_000, "{:.20}: {} bytes", config, message.len());
        assert!(message.starts_with("error: "), "{:.20}: {message:.500}", config);
    }
}

#[test]
fn deep_data_and_baselines_are_refused() {
    let deep = "[".repeat(1 << 20);
    let bench = Bench::by_default(
        "prompts: [{ name: p, dataset: d.json }]\nmodels: { m: { simulate: {} } }\n",
    );
    for text in [deep.clone(), "{\"a\":".repeat(1 << 18), format!("[{{\"prompt\":{deep}")] {
        fs::write(bench.folder.path().join("d.json"), &text).unwrap();
        let message = refused(&bench, &["--list"]);
        assert!(message.contains("d.json"), "{message}");
    }
    let bench = Bench::by_default(CONFIG);
    fs::write(bench.folder.path().join("b.json"), &deep).unwrap();
    let message = refused(&bench, &["--baseline", "b.json"]);
    assert!(message.contains("it is not a baseline"), "{message}");
}

#[test]
fn limits_that_every_run_or_no_run_meets_are_refused_with_their_place() {
    for (threshold, outcome, place) in [
        ("success_rate >= 1000 %", "no run", 17),
        ("success_rate > 100 %", "no run", 16),
        ("success_rate >= 0 %", "every run", 17),
        ("success_rate <= 100 %", "every run", 17),
        ("success_rate < 0 %", "no run", 16),
        ("ttft >= -5 ms", "every run", 9),
        ("ttft <= -5 ms", "no run", 9),
        ("ttft >= 0 ms", "every run", 9),
        ("ttft p95 < 0 ms", "no run", 12),
        ("ttft sd >= 0 ms", "every run", 12),
        ("generation_speed > -1 tok/s", "every run", 20),
        ("generation_speed >= -100 % of baseline", "every run", 21),
        ("ttft < -100 % of baseline", "no run", 8),
        ("generation_speed trend >= -150 %", "every run", 27),
    ] {
        let bench = Bench::by_default(&format!("{CONFIG}thresholds:\n  - \"{threshold}\"\n"));
        let message = refused(&bench, &["--list"]);
        assert!(message.contains(&format!("{outcome} meets this limit")), "{threshold}: {message}");
        let column = place + 5;
        assert!(message.contains(&format!("configs.yaml:5:{column}\n")), "{threshold}: {message}");
    }
    for threshold in [
        "success_rate >= 100 %",
        "success_rate > 0 %",
        "ttft > 0 ms",
        "ttft_beyond_server >= -5 ms",
        "generation_beyond_server >= -5 %",
        "ttft <= -50 % of baseline",
    ] {
        let bench = Bench::by_default(&format!("{CONFIG}thresholds: [\"{threshold}\"]\n"));
        passed(&bench.run(&["--list"]));
    }
    let endless = format!("ttft <= {} ms", "9".repeat(400));
    let bench = Bench::by_default(&format!("{CONFIG}thresholds: [\"{endless}\"]\n"));
    assert!(refused(&bench, &["--list"]).contains("is not a number"));
}

#[test]
fn compare_refuses_numbers_that_no_run_measures() {
    let bench = Bench::by_default(CONFIG);
    passed(&bench.run(&["--save-baseline", "b.json", "--no-warmup"]));
    let stored = fs::read_to_string(bench.folder.path().join("b.json")).unwrap();
    let start = stored.find("\"ttft\":[").unwrap() + "\"ttft\":[".len();
    let end = start + stored[start..].find([',', ']']).unwrap();
    for bad in ["1e300", "-1", "NaN", "Infinity", "1e999", "null"] {
        let text = format!("{}{bad}{}", &stored[..start], &stored[end..]);
        fs::write(bench.folder.path().join("bad.json"), text).unwrap();
        for pair in [["b.json", "bad.json"], ["bad.json", "b.json"]] {
            let program = env!("CARGO_BIN_EXE_llm-stream-bench-under-test");
            let mut command = Command::new(program);
            let ran = ran(command.current_dir(bench.folder.path()).arg("compare").args(pair));
            assert_eq!(ran.code, Some(2), "{bad}: {}{}", ran.stdout, ran.stderr);
            assert!(ran.stderr.contains("cannot use the baseline bad.json"), "{}", ran.stderr);
        }
        assert!(refused(&bench, &["--baseline", "bad.json"]).contains("bad.json"), "{bad}");
    }
}

#[cfg(unix)]
#[test]
fn recordings_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let bench = Bench::by_default(CONFIG);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = bench.folder.path().join("new/kept");
    passed(&bench.run(&["--record", "new/kept", "--no-warmup"]));
    assert_eq!(mode(&folder), 0o700);
    let file = folder.join("m-simulated__p__run-1.jsonl");
    assert_eq!(mode(&file), 0o600);
    // A file of an earlier version becomes private when it is replaced.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    passed(&bench.run(&["--record", "new/kept", "--no-warmup"]));
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn a_key_that_is_too_short_to_be_masked_is_named() {
    let config = "runs: 1\nprompts: [{ name: p, text: hi }]\nmodels:\n  m:\n    \
                  base_url: \"http://127.0.0.1:1\"\n    api_key_env: LLM_TEST_SHORT\n";
    for (key, warns) in [("abc", true), ("abcd", false)] {
        let bench = Bench::by_default(config);
        let ran = ran(bench.command(&["--no-warmup"]).env("LLM_TEST_SHORT", key));
        let warning = "the key of m is not masked in output: it has fewer than 4 characters";
        assert_eq!(ran.stderr.contains(warning), warns, "{}", ran.stderr);
    }
}
