//! The JSON schema of `configs.yaml` and the reference in the documentation: both derive from the
//! table of keys. `INSTA_UPDATE=always` rewrites them, like the snapshots.

use std::{fs, path::PathBuf};

use llm_stream_bench::config::{Config, reference, schema};

use super::{model, refused::workload, simulated, top};
use crate::{
    bench::REPOSITORY,
    schema::{assert_valid, mistake},
};

/// Whether the file at `path` holds `expected`, after an update if updates are on.
fn assert_file(path: &str, expected: &str) {
    let path = PathBuf::from(REPOSITORY).join(path);
    if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(found == expected, "{} is out of date: INSTA_UPDATE=always updates it", path.display());
}

#[test]
fn the_committed_schema_is_that_of_the_table() {
    let expected = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert_file("fixtures/schema/configs.v1.json", &expected);
}

#[test]
fn the_documentation_has_the_reference_of_the_table() {
    const BEGIN: &str = "<!-- keys: generated -->\n";
    const END: &str = "<!-- /keys -->";
    let page = "docs/en/src/configuration.md";
    let text = fs::read_to_string(PathBuf::from(REPOSITORY).join(page)).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the first marker");
    let (_, after) = rest.split_once(END).expect("the second marker");
    assert_file(page, &format!("{before}{BEGIN}\n{}\n{END}{after}", reference()));
}

#[test]
fn the_config_of_the_repository_is_valid_and_names_its_schema() {
    let text = fs::read_to_string(PathBuf::from(REPOSITORY).join("configs.yaml")).unwrap();
    let first = "# yaml-language-server: $schema=fixtures/schema/configs.v1.json";
    assert_eq!(text.lines().next(), Some(first));
    Config::parse(&text, "configs.yaml", REPOSITORY.as_ref()).unwrap();
    assert_valid(&text);
}

#[test]
fn the_schema_refuses_common_mistakes() {
    for text in [
        "runs: 3\n",
        "models: [a]\n",
        "models: { m: { port: 8000 } }\n",
        "models: { m: { simulate: {}, base_url: \"http://localhost\" } }\n",
        "models: { m: { simulate: {}, port: 8000 } }\n",
        &model("modelname: x"),
        &model("max_tokens: 0"),
        &model("temperature: 2.5"),
        &model("transport: tcp"),
        &model("protocol: grpc"),
        &model("timeouts: { total: 30 }"),
        &model("headers: { x-team: 1 }"),
        &model("min_share: 0.9"),
        &model("thresholds: ttft <= 500 ms"),
        &model("client_key: key.pem"),
        &simulated("faults: [explode]"),
        &simulated("faults: [{ reset: 10, stall: 3 }]"),
        &top("runs: 0"),
        &top("order: random"),
        &top("defaults: { port: 80 }"),
        &top("y-anchor: 1"),
        &top("prompts: []"),
        &top("prompts: [{ name: a, text: b, file: c }]"),
        &top("prompts: [{ name: a, text: b, limit: 3 }]"),
        &top("prompts: [{ name: a, synthetic: { input_tokens: { min: 1 } } }]"),
        &workload("{ concurrency: 5 }"),
        &workload("{ rate: 20, requests: 5 }"),
        &workload("{ concurrency: 5, arrivals: poisson, requests: 5 }"),
    ] {
        assert!(Config::parse(text, "configs.yaml", "".as_ref()).is_err(), "accepted: {text}");
        assert!(mistake(text).is_some(), "valid by the schema: {text}");
    }
}
