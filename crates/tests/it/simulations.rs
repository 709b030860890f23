//! Are the verdicts right as often as they say? Many runs of the simulated endpoint, whose
//! distribution is known, in virtual time and seeded.

use std::{path::Path, sync::Arc, time::Duration};

use clap::Parser as _;
use llm_stream_bench::{
    cli::Cli,
    config::{Config, TokenCount},
    plan::{Case, Plan},
    report::changes::{BaselineComparison, ChangeKind, FigureChange},
};
use llm_stream_core::{
    baseline::Baseline,
    interval::CONFIDENCE,
    metric::Metric,
    protocol::OpenAiChat,
    recording::{ErrorKind, Recording, RequestError},
    requirement::confidence_of,
    sample::{self, Doubt, Sample},
    statistic::Statistic,
    summary::{Request, Summary},
    threshold::Threshold,
    verdict::{Judge, Needed, Outcome, Reference, Verdict},
};
use llm_stream_sim::Script;
use rand::SeedableRng as _;
use rand_distr::{Distribution as _, Normal};
use rand_pcg::Pcg64Mcg;

const RUNS: u64 = 200;

/// A run of `runs` of each of ten prompts; every request has a rhythm of its own, `slower` times
/// 10 ms a token with a standard deviation of a tenth. Prompts differ in their first token.
struct Endpoint {
    cases: Vec<Arc<Case>>,
    slower: f64,
    /// An answer of four tokens, with a token each second. `sample` changes its times: encoding the
    /// same text again for each request takes most of a simulation's time.
    recorded: Arc<Recording>,
}

const SECOND: Duration = Duration::from_secs(1);

impl Endpoint {
    fn new(runs: u32, slower: f64) -> Self {
        let yaml = format!(
            "runs: {runs}\norder: as-listed\nrun_variation: 0 %\nmodels: {{ m: {{ simulate: {{}} }} }}"
        );
        let config = Config::parse(&yaml, "configs.yaml", Path::new(".")).unwrap();
        let cases = Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).unwrap().cases;
        let script = Script { ttft: SECOND, itl: SECOND, tokens: 4, ..Script::default() };
        let recorded = Arc::new(script.recorded(1, &OpenAiChat).unwrap());
        Self { cases, slower, recorded }
    }

    /// The same endpoint at another speed.
    fn at(&self, slower: f64) -> Self {
        Self { cases: self.cases.clone(), slower, recorded: self.recorded.clone() }
    }

    fn sample(&self, case: usize, random: &mut Pcg64Mcg) -> Sample {
        let noise: Normal<f64> = Normal::new(1.0, 0.1).unwrap();
        let factor = self.slower * noise.sample(random).max(0.1);
        let prompt = case / (self.cases.len() / 10);
        let ttft = 20.0 * (1 + prompt) as f64 * noise.sample(random).max(0.1);
        let (ttft, itl) =
            (Duration::from_secs_f64(ttft / 1e3), Duration::from_secs_f64(10e-3 * factor));
        let at = |recorded: Duration| ttft + itl * (recorded.as_secs() as u32 - 1);
        let mut recording = Recording::clone(&self.recorded);
        recording.headers_at = at(recording.headers_at);
        recording.chunks.iter_mut().for_each(|chunk| chunk.at = at(chunk.at));
        recording.ended_at = at(recording.ended_at);
        sample::read(&recording, &OpenAiChat, TokenCount::Usage).unwrap()
    }

    /// What the `seed`-th run measures.
    fn run(&self, seed: u64) -> Summary {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut summary = Summary::new(self.cases.iter().map(|case| &case.group));
        for (nth, case) in self.cases.iter().enumerate() {
            add(&mut summary, case, &Ok(self.sample(nth, &mut random)));
        }
        summary
    }
}

fn add(summary: &mut Summary, case: &Case, outcome: &Result<Sample, RequestError>) {
    let (prompt, run) = (case.task.prompt(), case.run);
    summary.add(case.group.id, &[Request { prompt, run, outcome }]);
}

fn verdict(text: &str, summary: &Summary, confidence: f64) -> Outcome {
    let threshold = Threshold::parse(text).unwrap();
    let judge = Judge { instrument: None, reference: None, groups: &[], confidence };
    judge.verdict(&threshold, &summary.groups[0]).outcome()
}

fn against(text: &str, before: &Summary, now: &Summary) -> Outcome {
    against_baseline(text, &Baseline::of(before, "here"), now)
}

fn against_baseline(text: &str, baseline: &Baseline, now: &Summary) -> Outcome {
    let reference = Some(Reference { baseline, machine: "here" });
    let threshold = Threshold::parse(text).unwrap();
    let judge = Judge { instrument: None, reference, groups: &[], confidence: CONFIDENCE };
    judge.verdict(&threshold, &now.groups[0]).outcome()
}

/// How many in a hundred runs `is` so.
fn percent(times: u64, is: impl Fn(u64) -> bool) -> f64 {
    (0..times).filter(|seed| is(*seed)).count() as f64 * 100.0 / times as f64
}

#[test]
fn intervals_cover_the_truth() {
    let endpoint = Endpoint::new(3, 1.0);
    // The mean of 20, 40, … 200 ms, and the rhythm.
    let truths = [
        ("ttft", Statistic::Mean, 0.110),
        ("tpot", Statistic::Mean, 0.010),
        ("tpot", Statistic::Median, 0.010),
    ];
    let runs: Vec<_> = (0..2 * RUNS).map(|seed| endpoint.run(seed)).collect();
    let mut table = String::new();
    for (name, statistic, truth) in truths {
        let metric = Metric::named(name).unwrap();
        let covered = percent(2 * RUNS, |seed| {
            let group = &runs[seed as usize].groups[0];
            let estimate = group.estimate(metric, statistic, CONFIDENCE).unwrap();
            estimate.interval.unwrap().unwrap().holds(truth)
        });
        assert!((93.0..=99.0).contains(&covered), "{name} {statistic}: {covered}");
        table.push_str(&format!("{name} {statistic}: {covered} %\n"));
    }
    insta::assert_snapshot!(table);
}

#[test]
fn an_endpoint_at_its_baseline_does_not_fail_and_a_slower_one_does() {
    let limit = "tpot <= +3 % of baseline";
    let mut table = String::from("runs  requests   0 % fails   5 % found   10 % found\n");
    let mut shares = Vec::new();
    for (runs, times) in [(3, RUNS), (8, 100), (20, 100)] {
        let same = Endpoint::new(runs, 1.0);
        let baseline = |seed| Baseline::of(&same.run(2 * seed), "here");
        let before: Vec<_> = (0..times).map(baseline).collect();
        let found = |slower: f64| {
            let slower = same.at(slower);
            percent(times, |seed| {
                let now = slower.run(2 * seed + 1);
                against_baseline(limit, &before[seed as usize], &now) == Outcome::Fail
            })
        };
        let (none, five, ten) = (found(1.0), found(1.05), found(1.1));
        assert!(none <= 1.0, "false fails at the baseline: {none} %");
        shares.push((five, ten));
        let requests = 10 * runs;
        table.push_str(&format!("{runs:>4} {requests:>9} {none:>9} % {five:>9} % {ten:>10} %\n"));
    }
    insta::assert_snapshot!(table);
    assert!(shares[2].0 >= 95.0 && shares[1].1 >= 95.0, "{table}");
}

#[test]
fn looking_often_does_not_make_more_verdicts_wrong() {
    // Exactly at the limit, every verdict but inconclusive is wrong.
    const LOOKS: [u32; 4] = [3, 6, 12, 24];
    let confidence = 1.0 - (1.0 - CONFIDENCE) / LOOKS.len() as f64;
    let endpoint = Endpoint::new(24, 1.0);
    let wrong = percent(RUNS, |seed| {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut summary = Summary::new(endpoint.cases.iter().map(|case| &case.group));
        let mut looked = 0;
        LOOKS.into_iter().any(|runs| {
            for (nth, case) in endpoint.cases.iter().enumerate() {
                if (looked + 1..=runs).contains(&case.run) {
                    add(&mut summary, case, &Ok(endpoint.sample(nth, &mut random)));
                }
            }
            looked = runs;
            verdict("tpot <= 10 ms", &summary, confidence) != Outcome::Inconclusive
        })
    });
    assert!(wrong < 5.0, "{wrong}");
    insta::assert_snapshot!(format!("wrong: {wrong} %"));
}

#[test]
fn the_number_of_runs_that_a_verdict_names_decides_it() {
    // Limits on both sides of the mean, 3 and 4 % away from it.
    for limit in ["tpot <= 10.3 ms", "tpot <= 9.6 ms"] {
        let threshold = Threshold::parse(limit).unwrap();
        let judge =
            Judge { instrument: None, reference: None, groups: &[], confidence: CONFIDENCE };
        let few = Endpoint::new(3, 1.0);
        let (mut asked, mut decided) = (0, 0);
        for seed in 0..RUNS {
            let verdict = judge.verdict(&threshold, &few.run(seed).groups[0]);
            let Some(Needed::Requests(more)) = verdict.needed() else { continue };
            // A figure that happens to lie at its limit asks for thousands of runs.
            let runs = verdict.runs_for(more);
            if runs > 100 {
                continue;
            }
            asked += 1;
            let again = Endpoint::new(runs, 1.0).run(seed + 1_000_000);
            let outcome = judge.verdict(&threshold, &again.groups[0]).outcome();
            decided += usize::from(outcome != Outcome::Inconclusive);
        }
        let share = decided as f64 * 100.0 / asked as f64;
        assert!(asked > 50 && share >= 80.0, "{limit}: {decided} of {asked}");
    }
}

#[test]
fn a_number_of_runs_chosen_from_the_noise_does_not_make_more_verdicts_wrong() {
    // `runs: auto`: a look after three runs, one after the number that they ask for, one after 30.
    const MOST: u32 = 30;
    let chosen = |verdict: &Verdict| match (verdict.needed(), verdict.actual) {
        (Some(Needed::Requests(more)), Ok(actual)) => {
            let times = 1.0 + more as f64 / actual.n as f64;
            (3.0 * times * 1.15).ceil().min(f64::from(MOST)) as u32
        }
        _ => MOST,
    };
    let confidence = confidence_of(3);
    let endpoint = Endpoint::new(MOST, 1.0);
    let threshold = Threshold::parse("tpot <= 10 ms").unwrap();
    let wrong = percent(RUNS, |seed| {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut summary = Summary::new(endpoint.cases.iter().map(|case| &case.group));
        let (mut looked, mut runs) = (0, 3);
        loop {
            for (nth, case) in endpoint.cases.iter().enumerate() {
                if (looked + 1..=runs).contains(&case.run) {
                    add(&mut summary, case, &Ok(endpoint.sample(nth, &mut random)));
                }
            }
            let judge = Judge { instrument: None, reference: None, groups: &[], confidence };
            let verdict = judge.verdict(&threshold, &summary.groups[0]);
            if verdict.outcome() != Outcome::Inconclusive {
                return true;
            }
            looked = runs;
            runs = match runs {
                3 => chosen(&verdict),
                MOST => return false,
                _ => MOST,
            };
        }
    });
    assert!(wrong <= 5.0, "{wrong}");
}

#[test]
fn what_is_not_there_never_passes() {
    let endpoint = Endpoint::new(1, 1.0);
    let limits = [
        "ttft <= 3600 s",
        "generation_speed >= 0.001",
        "success_rate >= 1 %",
        "ttft max <= 3600 s",
    ];
    let with = |outcome: &dyn Fn() -> Option<Result<Sample, RequestError>>| {
        let mut summary = Summary::new(endpoint.cases.iter().map(|case| &case.group));
        for case in &endpoint.cases {
            if let Some(outcome) = outcome() {
                add(&mut summary, case, &outcome);
            }
        }
        summary
    };
    let failed = |kind: ErrorKind| move || Some(Err(RequestError::new(kind, "failed")));
    for summary in
        [with(&|| None), with(&failed(ErrorKind::Connect)), with(&failed(ErrorKind::NoUsage))]
    {
        for limit in limits {
            assert_eq!(verdict(limit, &summary, CONFIDENCE), Outcome::Fail, "{limit}");
        }
    }
}

#[test]
fn drift_is_seen_where_it_is_and_not_where_there_is_none() {
    let endpoint = Endpoint::new(8, 1.0);
    let metric = Metric::named("tpot").unwrap();
    // A line from the first of eight runs to the last.
    let seen = |drift: f64| {
        percent(RUNS, |seed| {
            let mut random = Pcg64Mcg::seed_from_u64(seed);
            let mut summary = Summary::new(endpoint.cases.iter().map(|case| &case.group));
            for (nth, case) in endpoint.cases.iter().enumerate() {
                let late = 1.0 + drift * f64::from(case.run - 1) / 7.0;
                add(&mut summary, case, &Ok(endpoint.at(late).sample(nth, &mut random)));
            }
            summary.groups[0].drift(metric).unwrap().is_significant()
        })
    };
    let (none, some) = (seen(0.0), seen(0.2));
    assert!(none <= 5.0 && some >= 95.0, "{none} {some}");
}

/// Twelve runs of each of ten prompts, the last of which is three times slower; each sample as
/// `change` makes it, which gets whether its prompt is the last one.
fn ten_prompts(seed: u64, change: impl Fn(bool, &mut Sample)) -> Summary {
    let endpoint = Endpoint::new(12, 1.0);
    let slow = endpoint.at(3.0);
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut summary = Summary::new(endpoint.cases.iter().map(|case| &case.group));
    for (nth, case) in endpoint.cases.iter().enumerate() {
        let is_last = nth / 12 == 9;
        let of = if is_last { &slow } else { &endpoint };
        let mut sample = of.sample(nth, &mut random);
        change(is_last, &mut sample);
        add(&mut summary, case, &Ok(sample));
    }
    summary
}

/// What `compare` finds of `metric`.
fn compared(metric: &str, before: &Summary, now: &Summary) -> Result<ChangeKind, String> {
    let [before, now] = [before, now].map(|summary| Baseline::of(summary, "here"));
    let compared = BaselineComparison::of(&before, &now, 0.05, &[]);
    let figures = compared.groups[0].1.as_ref().unwrap();
    let change = figures.changes.iter().find(|(of, _)| of.name == metric).unwrap();
    match &change.1 {
        FigureChange::Known { kind, .. } => Ok(*kind),
        FigureChange::BothZero => Ok(ChangeKind::Same),
        FigureChange::Lost(why) | FigureChange::Unknown(why) => Err(why.clone()),
    }
}

#[test]
fn a_prompt_without_a_figure_in_one_run_changes_no_comparison() {
    let whole = ten_prompts(1, |_, _| ());
    let partial = ten_prompts(2, |is_last, sample| {
        if is_last {
            sample.token_events = vec![sample.first_token(); 4];
        }
    });
    let slower = ten_prompts(3, |is_last, sample| match is_last {
        true => sample.token_events = vec![sample.first_token(); 4],
        false => {
            let first = sample.first_token();
            let later = |at: &mut Duration| *at = first + (*at - first).mul_f64(1.3);
            sample.token_events.iter_mut().for_each(later);
        }
    });
    for (before, now) in [(&whole, &partial), (&partial, &whole)] {
        assert_eq!(against("tpot <= +8 % of baseline", before, now), Outcome::Pass);
        // Between two runs, 3 % are assumed to come from the runs.
        assert_eq!(compared("tpot", before, now), Ok(ChangeKind::Unclear));
        assert_eq!(compared("generation_speed", before, now), Ok(ChangeKind::Unclear));
    }
    // A change in the other prompts is one, although the slow one is gone.
    assert_eq!(against("tpot <= +8 % of baseline", &whole, &slower), Outcome::Fail);
    assert_eq!(compared("tpot", &whole, &slower), Ok(ChangeKind::Regressed));
    let baseline = Baseline::of(&whole, "here");
    let reference = Some(Reference { baseline: &baseline, machine: "here" });
    let threshold = Threshold::parse("tpot <= +8 % of baseline").unwrap();
    let judge = Judge { instrument: None, reference, groups: &[], confidence: CONFIDENCE };
    let verdict = judge.verdict(&threshold, &slower.groups[0]);
    let last = slower.groups[0].tally.prompts().last().unwrap().name.clone();
    assert_eq!(verdict.left_out, [last]);
}

#[test]
fn a_baseline_that_may_be_wrong_decides_nothing() {
    let good = ten_prompts(1, |_, _| ());
    let doubted = ten_prompts(2, |_, sample| {
        // Some of the text came in an unknown field.
        sample.token_events.drain(..2);
        let (metrics, reason) = (Doubt::ARRIVALS, "text in an unknown field".into());
        sample.doubts.push(Doubt { metrics, reason });
    });
    let late = ten_prompts(3, |_, sample| {
        // The client was stopped over the first token.
        sample.uncertainty.first_token = Duration::from_millis(1200);
        sample.token_events.iter_mut().for_each(|at| *at += Duration::from_secs(1));
    });
    let (up, down) = ("ttft <= +3 % of baseline", "ttft <= -3 % of baseline");
    for (before, now, limit) in [
        (&doubted, &good, up),
        (&doubted, &good, down),
        (&good, &doubted, up),
        (&good, &doubted, down),
        (&good, &late, up),
        (&late, &good, down),
    ] {
        assert_eq!(against(limit, before, now), Outcome::Inconclusive, "{limit}");
    }
    // It came no later than it was read.
    assert_eq!(against("ttft <= +50 % of baseline", &late, &good), Outcome::Pass);
    let why = "before it may be wrong: text in an unknown field".to_owned();
    assert_eq!(compared("ttft", &doubted, &good), Err(why));
    assert_eq!(compared("ttft", &late, &good), Ok(ChangeKind::Unclear));
    assert_eq!(compared("ttft", &good, &late), Ok(ChangeKind::Unclear));
    // What the text cannot have changed is compared.
    assert_eq!(compared("total_time", &doubted, &good), Ok(ChangeKind::Unclear));
    // A file from before doubts were kept is read.
    let json = Baseline::of(&good, "here").to_json();
    assert!(!json.contains("doubts"));
    assert_eq!(Baseline::from_json(&json).unwrap().latest().groups.len(), 1);
}
