//! Time to think between turns, and conversations in open loops.

use crate::bench::{Bench, records};

fn bench(workload: &str) -> Bench {
    Bench::new(&format!(
        "runs: 1
prompts: [{{ name: talk, turns: [one, two, three] }}, {{ name: alone, text: hi }}]
models: {{ m: {{ simulate: {{ ttft: 20ms, itl: 10ms, tokens: 3 }} }} }}
workloads:
  w: {{ {workload} }}
"
    ))
}

/// A request: its turn, scheduled start, hand-over and duration in seconds.
#[derive(Debug, Clone)]
struct Sent {
    turn: usize,
    scheduled: Option<f64>,
    sent: f64,
    ended: f64,
}

/// The requests in the order in which they were sent.
fn requests(bench: &Bench) -> Vec<Sent> {
    let columns = ["turn", "scheduled", "sent", "total_time", "send_lag"];
    let [turn, scheduled, sent, total, lag] = columns.map(|name| bench.column(name));
    let number = |text: &String| text.parse::<f64>().ok();
    let mut requests: Vec<_> = (0..turn.len())
        .map(|nth| {
            let sent = number(&sent[nth]).unwrap();
            Sent {
                turn: turn[nth].parse().unwrap_or(1),
                scheduled: number(&scheduled[nth]),
                sent,
                // Times of an open loop count from the scheduled start.
                ended: sent + number(&total[nth]).unwrap() - number(&lag[nth]).unwrap_or(0.0),
            }
        })
        .collect();
    requests.sort_by(|a, b| a.sent.total_cmp(&b.sent));
    requests
}

#[test]
fn a_turn_of_a_closed_loop_starts_after_the_time_to_think() {
    // One request at a time: while a user thinks, another conversation begins.
    let bench = bench("concurrency: 1, requests: 12, think: 150ms, prompts: [talk]");
    bench.run(&["::w::"]);
    let requests = requests(&bench);
    assert_eq!(requests.len(), 12);
    let turns: Vec<_> = requests.iter().map(|request| request.turn).collect();
    assert!(turns[..3].iter().all(|turn| *turn == 1), "{turns:?}");
    assert!(turns.contains(&2), "{turns:?}");
    // The n-th second turn follows the n-th first turn, as all wait equally long.
    let of = |turn: usize| requests.iter().filter(move |request| request.turn == turn);
    for (first, second) in of(1).zip(of(2)) {
        assert!(second.sent >= first.ended + 0.149, "{first:?} {second:?}");
        assert_eq!(second.scheduled, None);
    }
}

#[test]
fn arrivals_of_an_open_loop_start_conversations_whose_turns_follow() {
    let bench = bench(
        "rate: 4/s, arrivals: constant, requests: 9, think: { min: 60ms, max: 140ms }, prompts: [talk]",
    );
    let ran = bench.run(&["::w::"]);
    let requests = requests(&bench);
    assert_eq!(requests.len(), 9);
    let of = |turn: usize| requests.iter().filter(move |request| request.turn == turn);
    let arrivals: Vec<_> = of(1).filter_map(|request| request.scheduled).collect();
    let expected: Vec<_> = (0..arrivals.len()).map(|nth| 0.25 * nth as f64).collect();
    assert_eq!(arrivals, expected, "the rate is that of the conversations");
    for (turn, next) in [(1, 2), (2, 3)] {
        // An answer takes 40 ms and thinking at most 140: turns of one conversation precede the next.
        for (before, after) in of(turn).zip(of(next)) {
            let thought = after.scheduled.unwrap() - before.ended;
            assert!((0.055..0.3).contains(&thought), "{thought} {before:?} {after:?}");
            assert!(after.sent >= after.scheduled.unwrap() - 1e-6, "{after:?}");
        }
    }
    assert!(of(2).count() >= 2 && of(3).count() >= 2, "{requests:?}");
    if ran.code == Some(0) {
        assert!(
            ran.stderr.contains("requests/sec started, 4 arrivals/sec asked for"),
            "{}",
            ran.stderr
        );
    }
    // Without `prompts` all take part.
    let bench = self::bench("rate: 20/s, arrivals: constant, requests: 6");
    bench.run(&["::w::"]);
    let prompts: Vec<_> = bench.column("prompt");
    assert!(
        prompts.iter().any(|prompt| prompt == "talk")
            && prompts.iter().any(|prompt| prompt == "alone")
    );
    assert_eq!(records(&bench.folder.path().join("results.workloads.csv")).len(), 1);
}

#[test]
fn thinking_times_are_seeded() {
    let thought = |seed: u64| {
        let bench = bench(&format!(
            "rate: 2/s, arrivals: constant, requests: 3, seed: {seed}, prompts: [talk], \
             think: {{ min: 0s, max: 300ms, distribution: lognormal, mean: 80ms, sd: 60ms }}"
        ));
        let ran = bench.run(&["::w::"]);
        let requests = requests(&bench);
        assert_eq!(requests.len(), 3, "{}", ran.stderr);
        let gap = |turn: usize| requests[turn].scheduled.unwrap() - requests[turn - 1].ended;
        assert_eq!(requests[1].turn, 2, "{requests:?}");
        gap(1)
    };
    // On a busy machine the end of an answer is noticed late.
    assert!((thought(3) - thought(3)).abs() < 0.02);
    assert!((4..8).any(|seed| (thought(seed) - thought(3)).abs() > 0.02));
}

#[test]
fn an_unusable_time_to_think_is_an_error_where_it_is_written() {
    for (keys, why) in [
        ("think: 5", "`think` requires a unit"),
        ("think: [5s]", "`think` must be a duration"),
        ("think: 0s", "must be longer than zero"),
        ("think: { min: 5s }", "`think` has no `max`"),
        ("think: { min: 5s, max: 2s }", "`min` is more than `max`, which is 2s"),
        ("think: { min: 1s, max: 9s, mean: 2s, sd: 1s }", "`mean` is for `distribution: normal`"),
        (
            "think: { min: 1s, max: 9s, distribution: normal, mean: 20s, sd: 1s }",
            "`mean` is 20s, which is not",
        ),
        ("think: { min: 1s, max: 9s, distribution: normal, mean: 2s }", "`think` has no `sd`"),
        ("think: 5s, prompts: [alone]", "`think` has no effect"),
    ] {
        let ran = bench(&format!("concurrency: 2, requests: 4, {keys}")).run(&["::w::"]);
        assert_eq!(ran.code, Some(2), "{keys}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(why) && ran.stderr.contains("configs.yaml:"),
            "{keys}: {}",
            ran.stderr
        );
    }
}
