//! The search for the capacity of servers whose capacity is known, in virtual time.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "tests, which print what they simulate"
)]

use std::time::Duration;

use llm_stream_core::{
    capacity::{LoadLimits, LoadRequest, MAX_LOADS, NextLoad, Objective, Search, SearchFinding},
    schedule::{ArrivalProcess, Gaps, Shape},
};
use llm_stream_sim::{Script, ServerCapacity, VirtualRequest};

/// The tokens of each prompt.
const PROMPT: u64 = 128;

fn script() -> Script {
    let capacity = ServerCapacity { slots: 32, ..ServerCapacity::default() };
    let jitter = Duration::from_millis(2);
    Script { tokens: 24, jitter, capacity: Some(capacity), ..Script::default() }
}

fn objective(limits: &[&str], is_concurrency: bool) -> Objective {
    let limits = limits.iter().map(|text| LoadLimits::parse(text).unwrap()).collect();
    Objective {
        is_concurrency,
        from: 1.0,
        to: 10_000.0,
        limits: LoadLimits::new(limits),
        precision: 0.05,
    }
}

fn shape(load: f64, is_concurrency: bool) -> Shape {
    match is_concurrency {
        true => Shape::Closed { concurrency: load as usize },
        false => Shape::Open {
            arrivals: ArrivalProcess { rate: load, gaps: Gaps::Poisson, seed: 0 },
            max_in_flight: usize::MAX,
        },
    }
}

/// The value of a limit's metric.
fn value(limit: &str, of: &VirtualRequest) -> f64 {
    match limit.split(' ').next() {
        Some("ttft") => (of.first - of.arrived).as_secs_f64(),
        Some("tpot") => (of.last - of.first).as_secs_f64() / (of.events - 1) as f64,
        Some("e2e") => (of.last - of.arrived).as_secs_f64(),
        other => panic!("{other:?}"),
    }
}

fn requests(load: &[VirtualRequest], limits: &[&str]) -> Vec<LoadRequest> {
    let request = |of: &VirtualRequest| LoadRequest {
        start: of.arrived.as_secs_f64(),
        end: of.last.as_secs_f64(),
        is_valid: true,
        values: limits.iter().map(|limit| Some(value(limit, of))).collect(),
    };
    load.iter().map(request).collect()
}

/// A search on the server with `each` requests under each load; returns the result and the loads.
fn search(limits: &[&str], is_concurrency: bool, seed: u32, each: usize) -> (Search, usize) {
    let mut search = Search::new(objective(limits, is_concurrency), MAX_LOADS);
    let mut loads = 0;
    while let Some(next @ NextLoad { load, part }) = search.next() {
        loads += 1;
        let run = seed * 100 + loads as u32;
        let of = script()
            .under_load(&shape(load, is_concurrency), run, (each as f64 * part) as usize, PROMPT)
            .unwrap();
        search.add(next, requests(&of, limits));
    }
    (search, loads)
}

/// The share of the steady state's requests that miss a limit of the form `METRIC pNN <= N ms`.
fn missed_share(load: f64, is_concurrency: bool, limit: &str) -> (f64, f64) {
    let words: Vec<_> = limit.split(' ').collect();
    let (part, most) = (&words[1][1..], words[3].parse::<f64>().unwrap() / 1e3);
    let all = 60_000;
    let of = script().under_load(&shape(load, is_concurrency), 7, all, PROMPT).unwrap();
    let steady = &of[all / 10..];
    let missed = steady.iter().filter(|of| value(limit, of) > most).count();
    (missed as f64 / steady.len() as f64, 1.0 - part.parse::<f64>().unwrap() / 100.0)
}

/// The highest load that holds the limits in the long run.
fn truth(limits: &[&str], is_concurrency: bool) -> f64 {
    let holds = |load: f64| {
        limits.iter().all(|limit| {
            let (missed, most) = missed_share(load, is_concurrency, limit);
            missed <= most
        })
    };
    let (mut low, mut high) = (1.0, 2_000.0);
    while high / low > 1.002 && (!is_concurrency || high - low > 1.0) {
        let middle = f64::sqrt(low * high);
        let middle = if is_concurrency { middle.round() } else { middle };
        *(if holds(middle) { &mut low } else { &mut high }) = middle;
    }
    if is_concurrency { low } else { f64::sqrt(low * high) }
}

/// Runs `count` searches and prints how they went.
fn simulate(limits: &[&str], is_concurrency: bool, count: u32, each: usize) -> (f64, f64) {
    let truth = truth(limits, is_concurrency);
    let (mut near, mut covered, mut precise, mut most, mut sum) = (0, 0, 0, 0, 0);
    for seed in 0..count {
        let (search, loads) = search(limits, is_concurrency, seed, each);
        let result = search.result();
        most = most.max(loads);
        sum += loads;
        let SearchFinding::Load { value, interval } = result.found else {
            println!("{:?}", result.found);
            continue;
        };
        near += u32::from((value / truth - 1.0).abs() <= 0.05);
        covered += u32::from(interval.low <= truth && truth <= interval.high);
        precise += u32::from(result.is_precise);
    }
    let percent = |of: u32| 100.0 * f64::from(of) / f64::from(count);
    println!(
        "{limits:?} {each} requests: truth {truth:.1}, within 5 % {:.1} %, covered {:.1} %, precise \
         {:.1} %, loads {:.1} (most {most})",
        percent(near),
        percent(covered),
        percent(precise),
        sum as f64 / f64::from(count),
    );
    assert!(most <= MAX_LOADS);
    (percent(near), percent(covered))
}

const RATES: [&[&str]; 5] = [
    &["ttft p95 <= 100 ms"],
    &["ttft p95 <= 500 ms"],
    &["ttft p99 <= 200 ms"],
    &["ttft p95 <= 200 ms", "tpot p95 <= 25 ms"],
    &["e2e p95 <= 2000 ms"],
];

const CONCURRENCIES: [&[&str]; 2] = [&["tpot p95 <= 12 ms"], &["ttft p95 <= 100 ms"]];

/// A server that queues needs loads that last longer than its queue grows.
#[test]
#[ignore = "a simulation of 200 searches each"]
fn simulations_of_searches() {
    for limits in RATES {
        simulate(limits, false, 200, 1_200);
        let (near, covered) = simulate(limits, false, 200, 2_400);
        assert!(near >= 90.0 && covered >= 90.0, "{limits:?}: {near} % near, {covered} % covered");
    }
    for limits in CONCURRENCIES {
        let (near, covered) = simulate(limits, true, 200, 1_200);
        assert!(near >= 95.0 && covered >= 95.0, "{limits:?}: {near} % near, {covered} % covered");
    }
}

#[test]
fn the_capacity_is_found_within_its_interval() {
    let (near, covered) = simulate(&["ttft p95 <= 100 ms"], false, 20, 1_200);
    assert!(near >= 80.0 && covered >= 80.0, "{near} % near, {covered} % covered");
    let (near, covered) = simulate(&["tpot p95 <= 12 ms"], true, 3, 600);
    assert_eq!((near, covered), (100.0, 100.0));
}
