//! Prompts that share their beginnings, and prompts of other models.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{
    bench::{Bench, passed},
    requests::Picky,
};

/// The texts that a load with this model and synthetic prompt sends, run by run.
fn texts(model: &str, made: &str, workload: &str) -> Vec<Vec<String>> {
    let server = Picky::counting();
    let bench = server.bench(&format!("{{ name: made, synthetic: {{ {made} }} }}"), model);
    let config = bench.folder.path().join("configs.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let load = format!("workloads: {{ load: {{ concurrency: 3, requests: 40, {workload} }} }}\n");
    fs::write(&config, text + &load).unwrap();
    passed(&bench.run(&["::load::", "--no-warmup"]));
    let bodies = server.bodies();
    // Before the load come the requests that measure the length: they have shorter answers.
    let texts = bodies.iter().filter(|body| body["max_tokens"] == 77);
    let texts: Vec<_> =
        texts.map(|body| body["messages"][0]["content"].as_str().unwrap().to_owned()).collect();
    texts.chunks(40).map(<[_]>::to_vec).collect()
}

/// The first `words` words of each text, with the number of texts that begin with them.
fn beginnings(texts: &[String], words: usize) -> BTreeMap<String, usize> {
    let mut beginnings = BTreeMap::new();
    for text in texts {
        let words: Vec<_> = text.split(' ').take(words).collect();
        *beginnings.entry(words.join(" ")).or_default() += 1;
    }
    beginnings
}

#[test]
fn requests_of_a_group_share_their_beginning_and_nothing_else() {
    let made = "input_tokens: 60, output_tokens: 77, shared_prefix: { groups: 4, tokens: 40 }";
    let runs = texts("", made, "runs: 2");
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert!(run.iter().all(|text| text.split(' ').count() == 60));
        let groups = beginnings(run, 40);
        assert!(beginnings(run, 44).len() > 30, "the rest differs");
        assert_eq!(groups.len(), 4, "{groups:?}");
        assert!(groups.values().all(|texts| *texts >= 3), "{groups:?}");
        let words = |text: &String| {
            let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
            words.sort();
            words
        };
        assert!(run.iter().all(|text| words(text) == words(&run[0])), "the same words");
    }
    let of = |run: &[String]| beginnings(run, 40).into_keys().collect::<BTreeSet<_>>();
    assert!(of(&runs[0]).is_disjoint(&of(&runs[1])), "each load has other beginnings");
    let again = texts("prefix_cache: reuse", made, "runs: 2");
    assert_eq!(of(&again[0]), of(&again[1]), "with `reuse` they are the same");
    assert!(again[0].iter().collect::<BTreeSet<_>>().len() > 4, "the rest differs");
}

#[test]
fn a_prompt_can_name_another_model_of_the_server() {
    let server = Picky::new(|_| None);
    let prompts = "{ name: base, text: a }, { name: lora, text: b, model_name: my-lora }, \
                   { name: talk, turns: [c, d], model_name: other }";
    let bench = server.bench(prompts, "model_name: base-model");
    let ran = bench.run(&["--no-warmup"]);
    passed(&ran);
    let sent: Vec<_> =
        server.bodies().iter().map(|body| body["model"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sent, ["base-model", "my-lora", "other", "other"]);
    assert_eq!(bench.column("model"), sent);
}

#[test]
fn an_unusable_shared_prefix_is_an_error_where_it_is_written() {
    for (keys, why) in [
        ("shared_prefix: { groups: 8 }", "`shared_prefix` has no `tokens`"),
        ("shared_prefix: { groups: 0, tokens: 8 }", "must be a whole number from 1"),
        ("shared_prefix: 8", "`shared_prefix` must be a map"),
        ("shared_prefix: { groups: 8, tokens: 100 }", "leaves nothing of the prompt"),
        ("shared_prefix: { groups: 8, tokens: 50, size: 1 }", "unknown key `size`"),
    ] {
        let config = format!(
            "models: {{ m: {{ simulate: {{}} }} }}\nprompts:\n  - {{ name: a, synthetic: {{ input_tokens: {{ min: 100, max: 200 }}, {keys} }} }}\n"
        );
        let ran = Bench::new(&config).run(&["::"]);
        assert_eq!(ran.code, Some(2), "{keys}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(why) && ran.stderr.contains("configs.yaml:3:"),
            "{keys}: {}",
            ran.stderr
        );
    }
}
