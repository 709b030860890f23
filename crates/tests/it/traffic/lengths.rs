//! Random lengths, and sweeps over lengths.

use std::collections::BTreeSet;

use crate::{
    bench::{Bench, passed, ran},
    requests::Picky,
};

/// The prompt and answer lengths of each request, by what was sent: words and `max_tokens`.
fn sent(server: &Picky) -> Vec<(usize, u64)> {
    let bodies = server.bodies().into_iter();
    let lengths = bodies.map(|body| {
        let text = body["messages"][0]["content"].as_str().unwrap();
        (text.split(' ').count(), body["max_tokens"].as_u64().unwrap())
    });
    lengths.collect()
}

#[test]
fn requests_of_a_load_draw_both_lengths_within_their_bounds() {
    let lengths = |seed: u64| {
        let server = Picky::new(|_| None);
        let prompts = format!(
            "{{ name: gen, output_tokens: {{ min: 5, max: 900, distribution: lognormal, mean: 100, sd: 90 }}, text: hi }}, \
             {{ name: made, synthetic: {{ input_tokens: 9, seed: {seed}, output_tokens: {{ min: 20, max: 40 }} }} }}"
        );
        let load = "prefix_cache: reuse\nmax_tokens: 7";
        let bench = server.bench(&prompts, load);
        let config = bench.folder.path().join("configs.yaml");
        let text = std::fs::read_to_string(&config).unwrap();
        let load = "workloads: { load: { concurrency: 4, requests: 120, runs: 2 } }\n";
        std::fs::write(&config, text + load).unwrap();
        passed(&bench.run(&["::load::", "--no-warmup"]));
        let (mut log, mut uniform) = (Vec::new(), Vec::new());
        for (words, tokens) in sent(&server).into_iter().filter(|(_, tokens)| *tokens > 4) {
            if words == 1 { log.push(tokens) } else { uniform.push(tokens) }
        }
        assert_eq!(log.len(), 120, "half of two runs");
        log.sort_unstable();
        uniform.sort_unstable();
        (log, uniform)
    };
    let (log, uniform) = lengths(1);
    assert!(log.iter().all(|tokens| (5..=900).contains(tokens)), "{log:?}");
    assert!(uniform.iter().all(|tokens| (7..=40).contains(tokens)), "{uniform:?}");
    // The median of this log-normal distribution is 74, its mean 100: five standard errors are 40.
    let mean = log.iter().sum::<u64>() as f64 / log.len() as f64;
    assert!((60.0..=140.0).contains(&mean) && log[60] < 100, "{log:?}");
    assert!(log.iter().collect::<BTreeSet<_>>().len() > 40, "{log:?}");
    assert_eq!(lengths(1), (log, uniform.clone()), "the same requests again");
    assert_ne!(lengths(2).1, uniform);
}

#[test]
fn a_list_of_lengths_is_a_sweep() {
    let config = |prompt: &str, workloads: &str| {
        format!(
            "runs: 1\nprompts: [{prompt}]\nmodels: {{ m: {{ simulate: {{ ttft: 20ms, itl: 10ms, tokens: 9 }} }} }}\n{workloads}"
        )
    };
    let names = |bench: &Bench| {
        let list = ran(&mut bench.smoke(&["--list", "--bench"])).stdout;
        let names = list.lines().filter_map(|line| line.strip_suffix("::run-1: benchmark"));
        names.map(|name| name.trim_start_matches("m-simulated::").to_owned()).collect::<Vec<_>>()
    };
    let prompt = "{ name: gen, synthetic: { input_tokens: [40, 80], output_tokens: [2, 3] } }";
    let bench = Bench::new(&config(
        prompt,
        "workloads: { w: { concurrency: 1, requests: 8, prompts: [gen] } }\n",
    ));
    assert_eq!(names(&bench), ["gen@i40@o2", "gen@i40@o3", "gen@i80@o2", "gen@i80@o3", "w"]);
    passed(&bench.run(&[]));
    let of = |name: &str, column: &str| {
        let rows = bench.column("prompt").into_iter().zip(bench.column(column));
        rows.filter(|(prompt, _)| prompt == name).map(|(_, cell)| cell).collect::<BTreeSet<_>>()
    };
    assert_eq!(of("gen@i80@o3", "response_tokens"), BTreeSet::from(["3".to_owned()]));
    let tokens: Vec<f64> =
        of("gen@i80@o2", "prompt_tokens").iter().map(|n| n.parse().unwrap()).collect();
    assert!(tokens.iter().all(|tokens| (78.0..=82.0).contains(tokens)), "{tokens:?}");
    // The name of the sweep selects all of its points.
    assert_eq!(bench.column("workload").iter().filter(|name| *name == "w").count(), 8);

    let prompt = "{ name: gen, synthetic: { input_tokens: 40 } }";
    let workloads = "workloads:\n  w: { concurrency: [1, 2], requests: 4, input_tokens: [40, 90], output_tokens: 4 }\n";
    let bench = Bench::new(&config(prompt, workloads));
    assert_eq!(names(&bench), ["gen", "w@c1@i40", "w@c1@i90", "w@c2@i40", "w@c2@i90"]);
    passed(&bench.run(&["@i90"]));
    assert_eq!(bench.results().len(), 8);
    assert!(bench.column("response_tokens").iter().all(|tokens| tokens == "4"));
    let near = |tokens: &String| (88..=92).contains(&tokens.parse::<u64>().unwrap());
    assert!(bench.column("prompt_tokens").iter().all(near), "{:?}", bench.column("prompt_tokens"));
}

#[test]
fn unusable_lengths_are_errors_where_they_are_written() {
    let made = |keys: &str| format!("{{ name: a, synthetic: {{ {keys} }} }}");
    for (prompt, workload, why) in [
        (made("input_tokens: { min: 9 }"), "", "`input_tokens` has no `max`"),
        (made("input_tokens: { min: 9, max: 8 }"), "", "`min` is more than `max`"),
        (
            made("input_tokens: { min: 9, max: 19, mean: 10, sd: 1 }"),
            "",
            "`mean` is for `distribution: normal`",
        ),
        (
            made("input_tokens: { min: 9, max: 19, distribution: normal, mean: 10 }"),
            "",
            "`input_tokens` has no `sd`",
        ),
        (
            made("input_tokens: { min: 9, max: 19, distribution: normal, mean: 10, sd: 0 }"),
            "",
            "must be a whole number from 1",
        ),
        (
            made("input_tokens: { min: 9, max: 19, distribution: normal, mean: 20, sd: 3 }"),
            "",
            "`mean` is 20, which is not from",
        ),
        (
            made("input_tokens: { min: 9, max: 19, distribution: gauss }"),
            "",
            "unknown value `gauss`",
        ),
        (made("input_tokens: [9, 9]"), "", "has this value twice"),
        (made("input_tokens: []"), "", "`input_tokens` is an empty list"),
        (made("input_tokens: 9, output_tokens: { max: 8 }"), "", "`output_tokens` has no `min`"),
        (
            made("input_tokens: [1,2,3,4,5,6,7,8,9], output_tokens: [1,2,3,4,5,6,7,8]"),
            "",
            "more than 64 points",
        ),
        ("{ name: a, text: x, output_tokens: [1, 2] }".into(), "", "must be a whole number"),
        (
            "{ name: a, text: x, min_tokens: 9, output_tokens: { min: 8, max: 20 } }".into(),
            "",
            "`min_tokens` is more than",
        ),
        (
            "{ name: a, text: x }".into(),
            "input_tokens: 9",
            "no prompt of the workload is generated",
        ),
        (
            "{ name: a, text: x, min_tokens: 9 }".into(),
            "output_tokens: [20, 8]",
            "is less than `min_tokens` of `a`",
        ),
    ] {
        let config = format!(
            "models: {{ m: {{ simulate: {{}} }} }}\nprompts:\n  - {prompt}\nworkloads:\n  w: {{ concurrency: 1, requests: 2, {workload} }}\n"
        );
        let ran = Bench::new(&config).run(&["::"]);
        assert_eq!(ran.code, Some(2), "{prompt} {workload}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(why) && ran.stderr.contains("configs.yaml:"),
            "{prompt}: {}",
            ran.stderr
        );
    }
}
