//! The JSON schema of `configs.yaml` and the reference in the documentation: both derive from the
//! table of keys. `INSTA_UPDATE=always` rewrites them, like the snapshots. The Chinese reference is
//! written by hand, and compared with the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

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

/// The headings of the Chinese page whose tables have the keys of a section.
const CHINESE: &[(&str, &[&str])] = &[
    ("Top level", &["顶层"]),
    ("Model", &["端点", "请求", "认证与网络", "测量"]),
    ("Simulated endpoint", &["模拟端点"]),
    ("Decoding step", &["decode"]),
    ("Fault", &["故障"]),
    ("Timeouts", &["timeouts"]),
    ("Token count", &["token_count"]),
    ("Prompt", &["提示词"]),
    ("Tool", &["工具"]),
    ("Function", &["function"]),
    ("Tool choice", &["tool_choice"]),
    ("Synthetic prompt", &["synthetic"]),
    ("Range of tokens", &["input_tokens"]),
    ("Variation between runs", &["run_variation"]),
    ("Workload", &["负载"]),
    ("Steady state", &["steady_state"]),
    ("Abort", &["abort"]),
    ("Search", &["find"]),
    ("Range of concurrency", &["并发数的范围"]),
    ("Range of rates", &["到达率的范围"]),
    ("Trace", &["记录"]),
    ("Think time", &["思考时间"]),
    ("Shared prefix", &["shared_prefix"]),
];

/// The keys under each heading of a page, with the cells of their values and defaults. A table of
/// keys has `first` as its first head.
fn keys_of(page: &str, first: &str) -> BTreeMap<String, BTreeMap<String, [String; 2]>> {
    let mut keys: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    let (mut heading, mut is_table) = ("", false);
    for line in page.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        match cells[..] {
            ["", head, _, _, _, ""] if head == first => is_table = true,
            ["", name, values, default, _, ""] if is_table && name.starts_with('`') => {
                let name = name.split('`').nth(1).unwrap().to_owned();
                let section = keys.entry(heading.to_owned()).or_default();
                section.insert(name, [values, default].map(str::to_owned));
            }
            ["", rule, ..] if rule.starts_with("---") => {}
            _ => is_table = false,
        }
    }
    keys
}

/// The words in backticks and the numbers in a cell of values, which are the same in any language.
fn facts(values: &str) -> BTreeSet<String> {
    let values = values.split(", such as").next().unwrap_or_default();
    let (mut words, mut numbers) = (BTreeSet::new(), String::new());
    for (nth, part) in values.split('`').enumerate() {
        match nth % 2 {
            0 => numbers.push_str(&part.replace(',', "")),
            _ => _ = words.insert(part.to_owned()),
        }
    }
    let numbers = numbers.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    words.extend(numbers.map(str::to_owned));
    words
}

#[test]
fn the_chinese_page_has_every_key_with_its_values_and_default() {
    let page = PathBuf::from(REPOSITORY).join("docs/zh/src/configuration.md");
    let chinese = keys_of(&fs::read_to_string(page).unwrap(), "键");
    let table = keys_of(&reference(), "key");
    assert_eq!(
        table.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        CHINESE.iter().map(|(section, _)| *section).collect()
    );
    for (section, headings) in CHINESE {
        let tables = headings.iter().map(|heading| chinese.get(*heading).expect(heading));
        let written: BTreeMap<_, _> = tables.flatten().collect();
        let names: BTreeSet<_> = table[*section].keys().collect();
        assert_eq!(written.keys().copied().collect::<BTreeSet<_>>(), names, "{section}");
        for (name, [values, default]) in &table[*section] {
            let [ours, our_default] = written[name];
            let missing: Vec<_> = facts(values).difference(&facts(ours)).cloned().collect();
            assert!(missing.is_empty(), "{section}: {name}: {ours}: without {missing:?}");
            match default.as_str() {
                "" => {}
                "required" => assert_eq!(our_default, "必填", "{section}: {name}"),
                value if value.starts_with('`') => {
                    let plain = |cell: &str| cell.replace('`', "");
                    assert_eq!(plain(our_default), plain(value), "{section}: {name}");
                }
                _ => assert!(!our_default.is_empty(), "{section}: {name}"),
            }
        }
    }
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
