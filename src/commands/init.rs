//! `llm-stream-bench init [URL]`: a commented config to start from.

use std::{fs, io, path::Path};

use super::{CommandError, discover, server_config};
use crate::{cli::InitOptions, whole_file};

const HEAD: &str = "\
# What `llm-stream-bench run` and `cargo bench` measure. `llm-stream-bench check` validates this
# file and prints the plan without a request. The documentation lists every key.
";

const SIMULATED: &str = "\
# This model is simulated: it needs no server, no key and no network. Replace it by your server.
models:
  my-model:
    simulate: { ttft: 60ms, itl: 4ms, jitter: 1ms, tokens: 48, seed: 1 }
";

const SERVER: &str = "\
# A server:
#  my-server:
#    base_url: \"http://localhost:8000\" # with http://, https:// or unix://
#    model_name: \"Qwen/Qwen3-8B\"       # the server's name for the model
#    protocol: openai_chat             # or another one, such as ollama_chat
#    api_key_env: MY_API_KEY           # the variable that holds the key
";

const RUNS: &str = "\
# How often each model gets each prompt and workload.
runs: 3
";

const PROMPTS: &str = "\
# Prompts, sent one by one. Without this key the ten built-in ones are used.
#prompts:
#  - { name: hello, text: \"Say hello.\" }
#  - { name: long, synthetic: { input_tokens: 1000, output_tokens: 100 } }
";

const WORKLOADS: &str = "\
# Workloads: many requests in flight, or a number per second.
#workloads:
#  c16: { concurrency: 16, requests: 64 }
#  rate-5: { rate: 5/s, duration: 60s }
";

const THRESHOLDS: &str = "\
# Limits: a missed one fails the run with exit code 101. `llm-stream-bench run --help` lists the
# metrics.
#thresholds:
#  - \"success_rate >= 100 %\"
#  - \"ttft median <= 500 ms\"
";

/// Writes the config and returns what to do next.
pub(crate) fn run(options: &InitOptions) -> anyhow::Result<String> {
    let path = options.config.as_path();
    if path.exists() && !options.force {
        return Err(exists(path).into());
    }
    let (text, mut lines) = match &options.url {
        None => {
            server_config::refuse_without_url(&options.server)?;
            (sections(SIMULATED, true, true), Vec::new())
        }
        Some(url) => {
            let server = discover::discover(url, &options.server)?;
            let yaml = server_config::yaml(&server, &options.server);
            let has_prompts = !options.server.prompts.is_empty();
            let text = sections(&yaml, !has_prompts, options.server.concurrency.is_none());
            (text, server.notes)
        }
    };
    write(path, &text, options.force)?;
    lines.push(next(path));
    Ok(lines.join("\n"))
}

/// The file: its own sections, and those that are only examples.
fn sections(own: &str, with_prompts: bool, with_workloads: bool) -> String {
    let is_simulated = own == SIMULATED;
    let examples = [
        (is_simulated, SERVER),
        (true, RUNS),
        (with_prompts, PROMPTS),
        (with_workloads, WORKLOADS),
        (true, THRESHOLDS),
    ];
    let examples = examples.into_iter().filter(|(is_there, _)| *is_there).map(|(_, text)| text);
    let mut text = format!("{HEAD}\n{own}");
    examples.for_each(|example| {
        // A further model continues the map above it.
        let gap = if example == SERVER { "" } else { "\n" };
        text.push_str(gap);
        text.push_str(example);
    });
    text
}

/// Writes `text`. Without `force` a file that appeared meanwhile is not overwritten either.
fn write(path: &Path, text: &str, force: bool) -> Result<(), CommandError> {
    let is_stream = || fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
    let written = match force {
        // A device or a pipe cannot be replaced.
        true if is_stream() => fs::write(path, text),
        true => whole_file::write(path, text.as_bytes()),
        false => whole_file::create(path, text.as_bytes()),
    };
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => unwritable(path, &error),
    })
}

fn exists(path: &Path) -> CommandError {
    let what = format!("{} exists; it was not changed", path.display());
    CommandError::new(what, "`--force` overwrites it, `--config FILE` writes another file")
}

fn unwritable(path: &Path, error: &io::Error) -> CommandError {
    let what = format!("failed to write {}: {error}", path.display());
    CommandError::new(what, "check the permissions of its folder")
}

fn next(path: &Path) -> String {
    let file = path.display().to_string();
    let option = match file.as_str() {
        "configs.yaml" => String::new(),
        file => format!(" --config {file}"),
    };
    format!(
        "Wrote {file}. Next:\n  \
         llm-stream-bench check{option}   # validates it and prints the plan\n  \
         llm-stream-bench run{option}     # measures"
    )
}
