//! Completions and man pages, as a package installs them.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use crate::bench::{Bench, passed, ran};

/// The commands that `--help` lists.
fn commands(bench: &Bench) -> Vec<String> {
    let help = ran(&mut bench.binary(&["--help"])).stdout;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let lines = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn completions_know_the_commands_and_options_of_every_shell() {
    let bench = Bench::new("models: { m: { simulate: {} } }\n");
    let commands = commands(&bench);
    assert!(commands.contains(&"run".to_owned()) && commands.len() > 10, "{commands:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = ran(&mut bench.binary(&["completions", shell]));
        passed(&script);
        for name in commands.iter().filter(|name| *name != "help") {
            assert!(script.stdout.contains(name.as_str()), "{shell}: {name}");
        }
        assert!(script.stdout.contains("max-runs"), "{shell}");
        assert!(!script.stdout.contains("\nWARNING"), "{shell}");
    }
    let script = ran(&mut bench.binary(&["completions", "bash"])).stdout;
    let checked = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn();
    let Ok(mut checked) = checked else { return }; // no bash here
    checked.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(checked.wait().unwrap().success());
    let unknown = ran(&mut bench.binary(&["completions", "tcsh"]));
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("possible values: bash, elvish, fish, powershell, zsh"));
}

#[test]
fn every_command_has_a_man_page() {
    let bench = Bench::new("models: { m: { simulate: {} } }\n");
    let page = ran(&mut bench.binary(&["man"]));
    assert!(page.stdout.contains(".TH llm-stream-bench 1"), "{}", page.stdout);
    passed(&ran(&mut bench.binary(&["man", "--output-dir", "share/man"])));
    let folder = bench.folder.path().join("share/man");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    assert!(read("llm-stream-bench.1").contains(".TH llm-stream-bench 1"));
    for name in commands(&bench).iter().filter(|name| *name != "help") {
        assert!(read(&format!("llm-stream-bench-{name}.1")).contains("\n.SH SYNOPSIS"), "{name}");
    }
    assert!(read("llm-stream-bench-run.1").contains("max\\-runs"));
    // A hidden command has none.
    assert!(!folder.join("llm-stream-bench-part.1").exists());
    fs::write(bench.folder.path().join("taken"), "").unwrap();
    let refused = ran(&mut bench.binary(&["man", "--output-dir", "taken"]));
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("failed to write the man pages into taken"));
}
