//! The real bench target, run as cargo runs it: `llm --bench ARGUMENTS` in a folder with a config.

use std::{
    env,
    ffi::OsStr,
    fmt::Display,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use llm_stream_bench::config::Config;
use llm_stream_core::metric::Metric;
use tempfile::TempDir;

use crate::{
    schema,
    wait::{self, Process},
};

/// Two quick models. Not quicker, since a busy machine writes late what is due in less: events
/// come together then, and have no figures.
pub(crate) const TWO_MODELS: &str = "\
runs: 2
prompts:
  - { name: hello, text: \"Say hello.\" }
  - { name: bye, text: \"Say goodbye.\" }
models:
  Qwen-30B: { simulate: { ttft: 6ms, itl: 20ms, tokens: 6 } }
  Llama-70B: { simulate: { ttft: 8ms, itl: 30ms, tokens: 6 } }
";

/// A folder with a config, in which the bench target runs.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
}

/// What a run printed and how it ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A snapshot of many cases: the name of each, and its text.
pub(crate) fn table(cases: &[(impl Display, String)]) -> String {
    cases.iter().map(|(name, text)| format!("========== {name}\n{text}\n")).collect()
}

impl Bench {
    /// A folder with `config`. Unless it says otherwise, trials run in its order: most tests read
    /// results in that order.
    pub(crate) fn new(config: &str) -> Self {
        let is_valid = Config::parse(config, "configs.yaml", Path::new(".")).is_ok();
        // The files of data sets and tokenizers are written later.
        let has_files = config.contains("dataset:") || config.contains("tokenizer:");
        let is_valid = is_valid || has_files;
        match is_valid && !config.contains("order:") {
            true => Self::by_default(&format!("{}\norder: as-listed\n", config.trim_end())),
            false => Self::by_default(config),
        }
    }

    /// A folder with `config` as it is.
    pub(crate) fn by_default(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("configs.yaml"), config).expect("a config");
        if Config::parse(config, "configs.yaml", folder.path()).is_ok() {
            schema::assert_valid(config);
        }
        Self { folder }
    }

    /// The command, with `--bench` as cargo passes it, and results in the folder. What the
    /// instrument's error is does not matter to most tests.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.smoke(arguments);
        command.args(["--bench", "--no-calibration", "--output", "results.csv"]);
        // Most tests count the requests of the trials.
        command.env("LLM_STREAM_BENCH_NO_PREFLIGHT", "1");
        command
    }

    /// The same with a preflight.
    pub(crate) fn run_asking_first(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments).env_remove("LLM_STREAM_BENCH_NO_PREFLIGHT"))
    }

    /// The command without `--bench`: smoke mode.
    pub(crate) fn smoke(&self, arguments: &[&str]) -> Command {
        self.program(executable(), arguments)
    }

    /// The binary with these arguments.
    pub(crate) fn binary(&self, arguments: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"), arguments)
    }

    /// A program in the folder, without the variables of the developer.
    fn program(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("LLM_STREAM_BENCH_") || name_text.starts_with("GITHUB_") {
                command.env_remove(name);
            }
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }

    pub(crate) fn results(&self) -> Vec<csv::StringRecord> {
        records(&self.folder.path().join("results.csv"))
    }

    /// A column of the results, by its name.
    pub(crate) fn column(&self, name: &str) -> Vec<String> {
        let file = fs::read_to_string(self.folder.path().join("results.csv")).expect("results");
        let heads = file.lines().next().expect("heads");
        let index = heads.split(',').position(|head| head == name).expect("a column");
        self.results().iter().map(|row| row[index].to_owned()).collect()
    }

    /// The notes of each row, except those that say how busy the machine was.
    pub(crate) fn notes(&self) -> Vec<String> {
        let kept = |notes: String| {
            let kept = notes.split_whitespace().filter(|note| !OF_A_BUSY_MACHINE.contains(note));
            kept.collect::<Vec<_>>().join(" ")
        };
        self.column("notes").into_iter().map(kept).collect()
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        Process::start(&mut self.command(arguments))
    }
}

/// Two events of a trial that arrive together have the first of these notes, and on a busy machine
/// two do at any rhythm that a test has time for; nor is the client punctual there, or the simulated
/// endpoint. That notes are printed is tested elsewhere.
pub(crate) const OF_A_BUSY_MACHINE: [&str; 3] =
    ["shared_arrivals", "client_delayed", "simulator_late"];

pub(crate) fn ran(command: &mut Command) -> Ran {
    Ran::from(wait::output(command))
}

/// The command on a system where these folders are empty. `None` without the right to mount.
#[cfg(target_os = "linux")]
pub(crate) fn masking(folders: &[&str], command: &Command) -> Option<Command> {
    let masked = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", script]);
        unshare
    };
    let mut tried = masked("mount -t tmpfs none /mnt");
    if !tried.output().is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mounts = folders.iter().map(|folder| {
        format!("if [ -d {folder} ]; then mount -t tmpfs none {folder} || exit 99; fi; ")
    });
    let mut masked = masked(&(mounts.collect::<String>() + "exec \"$0\" \"$@\""));
    masked.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => masked.env(name, value),
            None => masked.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        masked.current_dir(folder);
    }
    masked.stdin(Stdio::null());
    Some(masked)
}

pub(crate) fn passed(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
}

/// What a run says of a load on a simulated endpoint that was too slow for it.
pub(crate) const NOT_KEPT: &str = "which did not keep its script";

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Ran {
    /// All of it, with `#` for every number that differs from run to run.
    pub(crate) fn redacted(&self, folder: &Path) -> String {
        let stderr = self.stderr.replace(&folder.display().to_string(), "FOLDER");
        let stderr =
            stderr.replace(&fs::canonicalize(folder).unwrap().display().to_string(), "FOLDER");
        let all = format!(
            "exit code: {:?}\n--- stdout\n{}--- stderr\n{stderr}",
            self.code.unwrap_or(-1),
            self.stdout
        );
        let all = OF_A_BUSY_MACHINE.iter().fold(all, |all, note| {
            let all = all.replace(&format!("({note}, "), "(").replace(&format!(", {note}"), "");
            all.replace(&format!(" ({note})"), "")
        });
        // A machine that gets busy makes figures drift, which is reported too.
        let noise = |line: &&str| {
            let of_table = |what: &str| {
                line.starts_with(&format!("  {what}")) || line.contains(&format!(": {what}"))
            };
            of_table("drift: ")
                || of_table("simulated endpoint, against ")
                || line.starts_with("WARNING: the machine was busy: ")
                || line.contains(NOT_KEPT)
        };
        let lines = all.split_inclusive('\n').filter(|line| !noise(line));
        mask(&lines.collect::<String>())
    }
}

/// `#` for each number with a fraction or a thousands separator, unless it is the same in each run;
/// widths that depend on them are one.
fn mask(text: &str) -> String {
    text.lines().map(|line| mask_line(line) + "\n").collect()
}

/// Metrics that the script decides.
const SAME_IN_EACH_RUN: [&str; 3] = ["response_tokens", "prompt_tokens", "success_rate"];

fn mask_line(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let (mut before, mut metric) = ("", "");
    // Columns are two blanks or more apart: what follows is not part of a limit.
    let mut is_next_column = false;
    let mut words = Vec::new();
    for word in line[indent..].split(' ') {
        let is_limit = ["<=", ">="].contains(&before) && !is_next_column;
        is_next_column = word.is_empty();
        let is_same = is_limit || SAME_IN_EACH_RUN.contains(&metric);
        let is_spread = before == "(+/-";
        words.push(match is_same {
            true => word.to_owned(),
            false if is_spread => "#)".to_owned(),
            false => mask_word(word),
        });
        if !word.is_empty() {
            before = word;
        }
        if Metric::named(word).is_some() {
            metric = word;
        }
    }
    let mut masked = words.join(" ");
    for (run, single) in [("  ", " "), ("──", "─")] {
        while masked.contains(run) {
            masked = masked.replace(run, single);
        }
    }
    // If two models are equally fast, noise decides the signs of the interval's ends.
    for (signed, masked_end) in [("[-#", "[#"), ("[+#", "[#"), (", -#]", ", #]"), (", +#]", ", #]")]
    {
        masked = masked.replace(signed, masked_end);
    }
    // The units of a table stand above its numbers, whose widths differ.
    let indent = if indent > 20 { 2 } else { indent };
    format!("{}{masked}", &line[..indent])
}

fn mask_word(word: &str) -> String {
    // Which figures are clearly the best depends on noise.
    let is_number = |word: &&str| word.ends_with(|c: char| c.is_ascii_digit());
    let word = word.strip_suffix('*').filter(is_number).unwrap_or(word);
    let core = word.trim_matches(['(', ')', '[', ']', ',', 's', '+', '-']);
    if word.strip_suffix(')').is_some_and(|spread| spread.parse::<u64>().is_ok()) {
        return "#)".into();
    }
    let measured = core.contains(|c: char| c.is_ascii_digit())
        && core.contains(['.', ','])
        && !core.ends_with('.')
        && core.chars().all(|c| c.is_ascii_digit() || ".,".contains(c));
    // Tables show large numbers without a fraction.
    let large = core.len() >= 4 && core.chars().all(|c| c.is_ascii_digit());
    if measured || large { word.replace(core, "#") } else { word.to_owned() }
}

/// `llm-stream-bench serve` on a free port, until it is dropped.
pub(crate) struct Served {
    pub(crate) process: Process,
    pub(crate) base_url: String,
}

impl Served {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
        let command = command.args(["serve", "--listen", "127.0.0.1:0"]).args(options);
        let mut process = Process::start(command);
        let mut first = String::new();
        let mut stderr = BufReader::new(process.stderr.take().expect("a pipe"));
        stderr.read_line(&mut first).expect("a line");
        let url = first.trim().rsplit_once("endpoint: ").map(|(_, url)| url);
        let base_url = url.and_then(|url| url.strip_suffix("/v1/chat/completions"));
        Self { base_url: base_url.expect("its URL").to_owned(), process }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("still there");
        self.process.end();
    }
}

pub(crate) fn records(path: &Path) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_path(path).expect("results");
    reader.records().map(|record| record.expect("a row")).collect()
}

/// The bench target's executable, as a binary of this package, so that cargo says where it is.
pub(crate) fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_llm"))
}

/// The repository's root.
pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// cargo, offline, in `folder`, without the variables that the outer cargo sets for tests: some
/// build scripts watch them, and their crates would be built anew each time.
pub(crate) fn cargo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in env::vars_os() {
        let of_tests = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME"];
        if of_tests.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.arg("--offline").current_dir(folder).stdin(Stdio::null());
    command
}
