//! The config of a server that is given by its URL.

use std::{fmt::Write, path::Path};

use llm_stream_client::options::Access;
use llm_stream_core::{
    protocol::{OpenAiChat, Protocol},
    text::shown_url,
};

use super::{
    CommandError,
    discover::{self, DiscoveredServer},
    yaml,
};
use crate::{
    cli::{self, Cli, ServerOptions},
    config::{Config, ConfigErrors},
    plan::{Plan, access},
};

/// The file name in messages about a config that comes from the command line.
pub(crate) const COMMAND_LINE: &str = "<command line>";

/// Minimum of the requests of `--concurrency`'s workload.
const FEWEST_REQUESTS: u64 = 8;

/// Requests of that workload for each one in flight.
const REQUESTS_EACH: u64 = 4;

/// A config for one server.
#[derive(Debug)]
pub(crate) struct ServerConfig {
    /// The config.
    pub(crate) config: Config,
    /// The choices that the detection made, and the equivalent file.
    pub(crate) notes: Vec<String>,
}

impl ServerConfig {
    /// Detects the server at the one URL in `urls`.
    pub(crate) fn of(urls: &[String], cli: &Cli) -> anyhow::Result<Self> {
        let [url] = urls else {
            let what = format!("a run measures one URL, and {} are given", urls.len());
            let help = "a config has as many models as you like: `llm-stream-bench init`";
            return Err(CommandError::new(what, help).into());
        };
        refuse_smoke_test(url, cli)?;
        refuse_config(url, cli)?;
        let server = discover::discover(url, &cli.server)?;
        let yaml = yaml(&server, &cli.server);
        let config = Config::parse(&yaml, COMMAND_LINE, Path::new(""))?;
        let mut notes = server.notes;
        notes.push(equivalent(&yaml, &cli.server));
        Ok(Self { config, notes })
    }
}

/// Refuses a smoke test of `url`, because it calls no real server.
fn refuse_smoke_test(url: &str, cli: &Cli) -> Result<(), CommandError> {
    match cli.libtest.bench {
        true => Ok(()),
        false => {
            let what = format!("a smoke test sends no request to {}", shown_url(url));
            Err(CommandError::new(what, "leave out `--test` to measure the server"))
        }
    }
}

/// Refuses a config next to `url`.
fn refuse_config(url: &str, cli: &Cli) -> Result<(), CommandError> {
    let Some(config) = &cli.config else { return Ok(()) };
    let config = config.display();
    let url = shown_url(url);
    let what = format!("`--config {config}` and {url} are given: a URL replaces the config");
    let help = "leave out one of them; `--config` may also come from LLM_STREAM_BENCH_CONFIG";
    Err(CommandError::new(what, help))
}

/// Refuses options for a URL if no URL is given.
pub(crate) fn refuse_without_url(options: &ServerOptions) -> Result<(), CommandError> {
    let given = options.given();
    let Some(first) = given.first() else { return Ok(()) };
    let what = format!("`{first}` is an option of a URL, and no URL is given");
    let help = match *first {
        "--model" => "`--models NAME` selects models of the config",
        _ => {
            "without a URL the config decides: put it there, or add a URL: `http://localhost:8000`"
        }
    };
    Err(CommandError::new(what, help))
}

/// Loads the config at `path`. If `configs.yaml` is missing, the error names the alternatives.
pub(crate) fn load(path: &Path, cli: &Cli) -> anyhow::Result<Config> {
    Config::load(path).map_err(|errors| match path == cli::default_config() && !path.exists() {
        true => anyhow::anyhow!(
            "{errors}\n  = help: `llm-stream-bench init` writes a configs.yaml to start from;\n          \
             a server is measured without one by its URL: `{}`",
            host_in(cli).unwrap_or_else(|| "http://localhost:8000".to_owned())
        ),
        false => errors.into(),
    })
}

/// Adds the probable URL to a `mistake` in the filters.
pub(crate) fn with_url_hint(mistake: &str, cli: &Cli, config: &Config) -> String {
    match host_in(cli).filter(|_| config.file() != COMMAND_LINE) {
        Some(url) => format!("{mistake}\n  help: the URL of a server has a scheme: `{url}`"),
        None => mistake.to_owned(),
    }
}

/// The URL of the filter that is a host and a port.
fn host_in(cli: &Cli) -> Option<String> {
    let host = cli.filters().into_iter().find(|word| is_host_and_port(word));
    host.map(|host| format!("http://{host}"))
}

/// Whether `word` has the form of `localhost:8000` or `10.0.0.1:8000/v1`.
fn is_host_and_port(word: &str) -> bool {
    let Some((host, rest)) = word.split_once(':') else { return false };
    let port = rest.split('/').next().unwrap_or_default();
    !host.is_empty() && port.len() >= 2 && port.parse::<u16>().is_ok()
}

/// The equivalent file, as it is printed before the run.
fn equivalent(yaml: &str, options: &ServerOptions) -> String {
    let filter = options
        .concurrency
        .map(|n| format!(" (with it, the filter `{}` selects this workload)", workload_filter(n)));
    let lines: String = yaml.lines().map(|line| format!("    {line}\n")).collect();
    format!("Equivalent configs.yaml{}:\n\n{lines}", filter.unwrap_or_default())
}

/// The filter that selects the workload of `--concurrency`.
fn workload_filter(concurrency: u64) -> String {
    format!("::{}::", workload_name(concurrency))
}

fn workload_name(concurrency: u64) -> String {
    format!("c{concurrency}")
}

/// The config of `server`.
pub(super) fn yaml(server: &DiscoveredServer, options: &ServerOptions) -> String {
    let mut text = model(server, options);
    text.push_str(&prompts(&options.prompts));
    if let Some(n) = options.concurrency {
        let requests = n.saturating_mul(REQUESTS_EACH).max(FEWEST_REQUESTS);
        let name = workload_name(n);
        let _ =
            writeln!(text, "workloads:\n  {name}: {{ concurrency: {n}, requests: {requests} }}");
    }
    text
}

fn model(server: &DiscoveredServer, options: &ServerOptions) -> String {
    let DiscoveredServer { base_url, protocol, model, .. } = server;
    let key = short_name(model);
    let mut text =
        format!("models:\n  {}:\n    base_url: {}\n", yaml::key(key), yaml::quoted(base_url));
    if key != model {
        let _ = writeln!(text, "    model_name: {}", yaml::quoted(model));
    }
    if protocol.name() != OpenAiChat.name() {
        let _ = writeln!(text, "    protocol: {}", protocol.name());
    }
    if let Some(tokens) = options.max_tokens {
        let _ = writeln!(text, "    max_tokens: {tokens}");
    }
    if let Some(variable) = &options.api_key_env {
        let _ = writeln!(text, "    api_key_env: {}", yaml::key(variable));
    }
    text
}

fn prompts(texts: &[String]) -> String {
    let name = |index: usize| match texts.len() {
        1 => "prompt".to_owned(),
        _ => format!("prompt-{}", index + 1),
    };
    let prompt = |(index, text): (usize, &String)| {
        format!("  - {{ name: {}, text: {} }}\n", name(index), yaml::quoted(text))
    };
    match texts.is_empty() {
        true => String::new(),
        false => format!("prompts:\n{}", texts.iter().enumerate().map(prompt).collect::<String>()),
    }
}

/// A name for reports: `Qwen3-8B` of `Qwen/Qwen3-8B`, the file of a path.
fn short_name(model: &str) -> &str {
    let last = model.rsplit(['/', '\\']).find(|part| !part.trim().is_empty());
    last.unwrap_or(model)
}

/// Access to the server at `base_url`: its URL with the path of `protocol`, its key, its proxy.
pub(super) fn access(
    base_url: &str,
    protocol: &'static dyn Protocol,
    api_key_env: Option<&str>,
) -> anyhow::Result<Access> {
    let server = DiscoveredServer {
        base_url: base_url.to_owned(),
        protocol,
        model: "model".to_owned(),
        notes: Vec::new(),
    };
    let options =
        ServerOptions { api_key_env: api_key_env.map(str::to_owned), ..ServerOptions::default() };
    let of_url = |errors: ConfigErrors| of_command_line(base_url, &errors);
    let config =
        Config::parse(&yaml(&server, &options), COMMAND_LINE, Path::new("")).map_err(of_url)?;
    let plan = Plan::new(&config, &Cli::defaults()?.overrides())?;
    let access = access::of(&plan.targets[0], &config);
    Ok(access.map_err(|errors| of_url(ConfigErrors(errors)))?)
}

/// Rewords the first mistake for the command line.
fn of_command_line(url: &str, errors: &ConfigErrors) -> CommandError {
    let Some(error) = errors.0.first() else {
        return CommandError::new(format!("{url} cannot be measured"), "");
    };
    let what = error.message().replace("`base_url`", "the URL");
    let is_of_url = what != error.message();
    let what = if is_of_url { format!("{what}: {}", shown_url(url)) } else { what };
    let help = error.help().replace("`base_url: \"", "`").replace("8000\"`", "8000`");
    let help = help.replace("write `query:", "in a configs.yaml write `query:");
    CommandError::new(what, help.replace("`api_key_env: MY_API_KEY`", "`--api-key-env MY_API_KEY`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_a_short_name() {
        let cases = [
            ("Qwen/Qwen3-8B", "Qwen3-8B"),
            ("llama3.2:latest", "llama3.2:latest"),
            ("/models/x.gguf", "x.gguf"),
            ("a/", "a"),
            ("/", "/"),
        ];
        for (model, name) in cases {
            assert_eq!(short_name(model), name);
        }
    }

    #[test]
    fn a_workload_has_four_requests_for_each_in_flight_and_at_least_eight() {
        for (concurrency, requests) in [(1, 8), (2, 8), (3, 12), (64, 256)] {
            let options =
                ServerOptions { concurrency: Some(concurrency), ..ServerOptions::default() };
            let server = DiscoveredServer {
                base_url: "http://localhost:8000".to_owned(),
                protocol: &OpenAiChat,
                model: "m".to_owned(),
                notes: Vec::new(),
            };
            let yaml = yaml(&server, &options);
            assert!(yaml.contains(&format!("requests: {requests} ")), "{yaml}");
        }
    }
}
