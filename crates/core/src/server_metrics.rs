//! A server's Prometheus metrics before and after a trial → what it says of that trial. Pure.
//!
//! Metrics are of all that a server does. Their difference is the trial's own where it counts as
//! many requests as the trial had; with others in it there is nothing to compare.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::{BTreeMap, BTreeSet};

use crate::{metric::Metric, statistic::Statistic};

/// What a server may say of a trial.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name in the results.
    pub name: &'static str,
    /// What sort of metric it is.
    pub sort: MetricKind,
    /// Our metric of the same thing, by request.
    pub ours: Option<&'static Metric>,
    /// The names that servers have for it; the first one that is there is read.
    series: &'static [&'static str],
}

/// A sort of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Times, with how many there were.
    Histogram,
    /// A count that only grows.
    Counter,
    /// A state.
    Gauge,
}

impl MetricKind {
    /// Its name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Histogram => "histogram",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

macro_rules! figures {
    ($($name:literal $sort:ident $ours:expr, [$($series:literal),+];)+) => {
        &[$(Figure { name: $name, sort: MetricKind::$sort, ours: $ours, series: &[$($series),+] },)+]
    };
}

/// What is read: the names of vLLM, of SGLang and of llama.cpp.
const FIGURES: &[Figure] = figures! {
    "ttft" Histogram Some(Metric::TTFT),
        ["vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"];
    "tpot" Histogram Some(Metric::TPOT), ["vllm:request_time_per_output_token_seconds"];
    "e2e" Histogram Some(Metric::E2E),
        ["vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds"];
    "itl" Histogram None,
        ["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds",
         "sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"];
    "queue_time" Histogram None, ["vllm:request_queue_time_seconds", "sglang:queue_time_seconds"];
    "prefill_time" Histogram None, ["vllm:request_prefill_time_seconds"];
    "decode_time" Histogram None, ["vllm:request_decode_time_seconds"];
    "prompt_tokens" Counter None,
        ["vllm:prompt_tokens_total", "sglang:prompt_tokens_total"];
    "uncached_prompt_tokens" Counter None, ["llamacpp:prompt_tokens_total"];
    "generation_tokens" Counter None,
        ["vllm:generation_tokens_total", "sglang:generation_tokens_total",
         "llamacpp:tokens_predicted_total"];
    "cached_tokens" Counter None,
        ["vllm:prompt_tokens_cached_total", "vllm:prefix_cache_hits_total",
         "vllm:gpu_prefix_cache_hits_total", "sglang:cached_tokens_total",
         "llamacpp:prompt_tokens_cached_total"];
    "cache_queries" Counter None,
        ["vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"];
    "preemptions" Counter None, ["vllm:num_preemptions_total"];
    "prompt_seconds" Counter None, ["llamacpp:prompt_seconds_total"];
    "generation_seconds" Counter None, ["llamacpp:tokens_predicted_seconds_total"];
    "running" Gauge None,
        ["vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"];
    "waiting" Gauge None,
        ["vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"];
};

/// All metrics of a server at one moment, those with the same name added up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scrape {
    values: BTreeMap<String, f64>,
    /// The buckets of histograms: upper bounds and how many were below, by ascending bounds.
    buckets: BTreeMap<String, Vec<(f64, f64)>>,
}

/// A line: a name, labels, a value.
type Series<'a> = (&'a str, Vec<(&'a str, String)>, f64);

impl Scrape {
    /// Reads the text format. Of several models only `model` counts, where it is one of them. Lines
    /// that are none of it are left out.
    pub fn read(text: &str, model: &str) -> Self {
        let lines: Vec<_> = text.lines().filter_map(series).collect();
        let names_model = |labels: &[(&str, String)]| {
            labels.iter().find(|(name, _)| *name == "model_name").map(|(_, value)| value == model)
        };
        let knows = lines.iter().any(|(_, labels, _)| names_model(labels) == Some(true));
        // SGLang has the sum of all priorities beside each of them.
        let sums: BTreeSet<&str> = lines
            .iter()
            .filter(|(_, labels, _)| priority(labels) == Some(""))
            .map(|(name, ..)| *name)
            .collect();
        let mut scrape = Self::default();
        for (name, labels, value) in &lines {
            let is_others = knows && names_model(labels) == Some(false);
            let is_part = priority(labels).is_some_and(|of| !of.is_empty()) && sums.contains(name);
            if is_others || is_part {
                continue;
            }
            let bound = labels.iter().find(|(label, _)| *label == "le");
            match (name.strip_suffix("_bucket"), bound.and_then(|(_, bound)| number(bound))) {
                (Some(name), Some(bound)) => scrape.add_bucket(name, bound, *value),
                _ => *scrape.values.entry((*name).into()).or_default() += value,
            }
        }
        scrape
    }

    fn add_bucket(&mut self, name: &str, bound: f64, below: f64) {
        let buckets = self.buckets.entry(name.into()).or_default();
        match buckets.binary_search_by(|(known, _)| known.total_cmp(&bound)) {
            Ok(place) => buckets[place].1 += below,
            Err(place) => buckets.insert(place, (bound, below)),
        }
    }

    /// Requests that the server has answered, where it says so.
    pub fn answered(&self) -> Option<f64> {
        let e2e = FIGURES.iter().find(|figure| figure.name == "e2e")?;
        e2e.series.iter().find_map(|series| self.values.get(&format!("{series}_count")).copied())
    }

    /// Whether there is anything in it that is read.
    pub fn is_known(&self) -> bool {
        FIGURES.iter().any(|figure| figure.in_both(self, self).is_some())
    }
}

/// What SGLang schedules by.
fn priority<'a>(labels: &'a [(&str, String)]) -> Option<&'a str> {
    labels.iter().find(|(name, _)| *name == "priority").map(|(_, value)| value.as_str())
}

/// Reads a line such as `name{label="value"} 1.5 1395066363000`.
fn series(line: &str) -> Option<Series<'_>> {
    let line = line.trim();
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    Some((name, labels, number(rest.split_whitespace().next()?)?))
}

/// Reads labels up to their brace, and gives what comes after it.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        loop {
            match chars.next()? {
                (at, '"') => {
                    rest = &after[at + 1..];
                    break;
                }
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        }
        labels.push((name.trim(), value));
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| !number.is_nan())
}

impl Figure {
    fn in_both(&self, before: &Scrape, after: &Scrape) -> Option<MetricSample> {
        self.series.iter().find_map(|series| self.said(series, before, after))
    }

    fn said(&self, series: &'static str, before: &Scrape, after: &Scrape) -> Option<MetricSample> {
        let counted = format!("{series}_count");
        let name = if self.sort == MetricKind::Histogram { counted.as_str() } else { series };
        // What nobody has asked for yet may be left out.
        let now = *after.values.get(name)?;
        let then = before.values.get(name).copied().unwrap_or(0.0);
        let said = MetricSample { figure: *self, series, before: then, after: now, times: None };
        match self.sort {
            MetricKind::Gauge => Some(said),
            // A server that began anew in between.
            _ if now < then => None,
            MetricKind::Counter => Some(said),
            MetricKind::Histogram => {
                let sum = format!("{series}_sum");
                let sum = after.values.get(&sum)? - before.values.get(&sum).copied().unwrap_or(0.0);
                let buckets = grown(before.buckets.get(series), after.buckets.get(series));
                Some(MetricSample { times: Times::of(now - then, sum, &buckets), ..said })
            }
        }
    }
}

/// How much each bucket has grown.
fn grown(before: Option<&Vec<(f64, f64)>>, after: Option<&Vec<(f64, f64)>>) -> Vec<(f64, f64)> {
    let then = |bound: f64| {
        let bucket = before.into_iter().flatten().find(|(known, _)| *known == bound);
        bucket.map_or(0.0, |(_, below)| *below)
    };
    after.into_iter().flatten().map(|&(bound, below)| (bound, below - then(bound))).collect()
}

/// What a server said of one figure of a trial.
#[derive(Debug, Clone, Copy)]
pub struct MetricSample {
    /// The figure.
    pub figure: Figure,
    /// The server's name for it.
    pub series: &'static str,
    /// Its value, or how many times there were, before the trial.
    pub before: f64,
    /// The same after it.
    pub after: f64,
    /// The times in between, if there were any.
    pub times: Option<Times>,
}

/// The times of a histogram, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// How many there are.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// Where their median is.
    pub median: Option<Between>,
    /// Where their 99th percentile is; `None` where there are too few times for one.
    pub p99: Option<Between>,
}

/// Bounds of buckets: something is above the first and up to the second, which may be infinite.
pub type Between = (f64, f64);

impl Times {
    /// `None` where there are none, or where no times could make such differences: a server that
    /// began anew in between, or several behind one URL.
    fn of(count: f64, sum: f64, buckets: &[(f64, f64)]) -> Option<Self> {
        let grows = buckets.is_sorted_by_key(|(_, below)| *below);
        let shrank = buckets.iter().any(|(_, below)| *below < 0.0);
        let is_possible = count > 0.0 && sum.is_finite() && sum >= 0.0 && grows && !shrank;
        let at = |percent| percentile(buckets, count, percent);
        is_possible.then(|| Self { count, mean: sum / count, median: at(50.0), p99: at(99.0) })
    }
}

/// Between which bounds a percentile is, by the definition of our own: between two of the times,
/// the nearest ranks. A histogram tells no more. Buckets are too wide for an interpolation: where
/// the first ends at 5 ms, it would make a p99 of 4.95 ms of times that all took 1.1 ms. Of too few
/// times there is no percentile, as of ours ([`Statistic::needs`]).
fn percentile(buckets: &[(f64, f64)], count: f64, percent: f64) -> Option<Between> {
    let statistic =
        if percent == 50.0 { Statistic::Median } else { Statistic::Percentile(percent) };
    let last = *buckets.last()?;
    if count < statistic.needs() as f64 {
        return None;
    }
    let rank = percent / 100.0 * (count - 1.0);
    // The bucket of the time that so many others are below.
    let place = |others: f64| buckets.iter().position(|(_, below)| *below > others);
    let above = match place(rank.floor()) {
        None => last.0,
        Some(0) => 0.0,
        Some(place) => buckets[place - 1].0,
    };
    let up_to = place(rank.ceil()).map_or(f64::INFINITY, |place| buckets[place].0);
    Some((above, up_to))
}

/// What a server said of a trial, beside what we measured in it.
#[derive(Debug, Clone, Default)]
pub struct MetricComparison {
    /// What it said, and our mean where the two can be compared.
    pub said: Vec<(MetricSample, Option<f64>)>,
    /// Requests that the trial had.
    pub requests: usize,
    /// Whether earlier answers may be in it that the server had not counted before: there are no
    /// times then, since they may be those of other requests.
    pub is_late: bool,
}

/// Our figure of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ours {
    /// The mean over the requests that can have it.
    pub mean: f64,
    /// How many those are: all but the answers of one token, where it is a time between tokens.
    pub requests: usize,
}

impl Ours {
    /// The server's `times` of the same requests, in a trial of `all`; `None` where others are among
    /// them. vLLM counts the time per token of a one-token answer as 0: such answers add
    /// nothing to the sum and are left out of the number, and percentiles that hold them are not
    /// usable.
    fn comparable(self, times: Times, all: usize) -> Option<Times> {
        let requests = self.requests as f64;
        match times.count {
            count if count == requests => Some(times),
            count if count == all as f64 => Some(Times {
                count: requests,
                mean: times.mean * count / requests,
                median: None,
                p99: None,
            }),
            _ => None,
        }
    }
}

impl MetricComparison {
    /// What is between two scrapes, compared with a trial of so many `requests`; `ours` knows our figure by a
    /// metric's name.
    pub fn of(
        (before, is_late): (&Scrape, bool),
        after: &Scrape,
        requests: usize,
        ours: impl Fn(&Metric) -> Option<Ours>,
    ) -> Self {
        let both = |said: MetricSample| {
            let ours = said.figure.ours.and_then(&ours);
            let compared = ours
                .zip(said.times)
                .and_then(|(ours, times)| Some((ours.comparable(times, requests)?, ours.mean)));
            match compared {
                Some((times, mean)) => (MetricSample { times: Some(times), ..said }, Some(mean)),
                None => (said, None),
            }
        };
        let said = FIGURES.iter().filter_map(|figure| figure.in_both(before, after));
        let said = said.map(|said| match is_late {
            true => (MetricSample { times: None, ..said }, None),
            false => both(said),
        });
        Self { said: said.collect(), requests, is_late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: &str = "\
# HELP vllm:e2e_request_latency_seconds Histogram of e2e request latency in seconds.
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le=\"0.5\",model_name=\"m\"} 2
vllm:e2e_request_latency_seconds_bucket{le=\"1.0\",model_name=\"m\"} 5.0
vllm:e2e_request_latency_seconds_bucket{le=\"+Inf\",model_name=\"m\"} 5.0 1395066363000
vllm:e2e_request_latency_seconds_count{model_name=\"m\"} 5
vllm:e2e_request_latency_seconds_sum{model_name=\"m\"} 3
vllm:e2e_request_latency_seconds_sum{model_name=\"other\"} 1e9
vllm:num_preemptions_total{engine=\"0\",model_name=\"m\"} 2
vllm:num_preemptions_total{engine=\"1\",model_name=\"m\"} 3
vllm:num_requests_running{model_name=\"m\",odd=\"a\\\"}\\n\\\\\"} 1
nonsense
vllm:num_requests_waiting{model_name=\"m\" 7
";

    fn said(before: &str, after: &str, name: &str) -> Option<MetricSample> {
        let figure = FIGURES.iter().find(|figure| figure.name == name)?;
        figure.in_both(&Scrape::read(before, "m"), &Scrape::read(after, "m"))
    }

    #[test]
    fn the_text_format_is_read_with_its_escapes_and_without_other_models() {
        let value = |name: &str| said("", LATER, name).map(|said| said.after);
        assert_eq!(value("e2e"), Some(5.0));
        assert_eq!(value("preemptions"), Some(5.0));
        assert_eq!(value("running"), Some(1.0));
        assert_eq!(value("waiting"), None);
        let mean = said("", LATER, "e2e").and_then(|said| said.times).map(|times| times.mean);
        assert_eq!(mean, Some(0.6));
        // A model that it does not know may go by another name: then all of them count.
        assert_eq!(Scrape::read(LATER, "alias").answered(), Some(5.0));
    }

    #[test]
    fn a_sum_over_priorities_is_not_added_to_its_parts() {
        let of =
            |priority: &str| format!("sglang:num_running_reqs{{model_name=\"m\"{priority}}} 8\n");
        let running = |text: &str| said("", text, "running").map(|said| said.after);
        let parts = of(",priority=\"0\"") + &of(",priority=\"1\"");
        assert_eq!(running(&parts), Some(16.0));
        assert_eq!(running(&(of(",priority=\"\"") + &parts)), Some(8.0));
        assert_eq!(running(&of("")), Some(8.0));
    }

    #[test]
    fn what_is_between_is_the_trials_own() {
        let before = LATER.replace("} 5.0", "} 1.0").replace("\"m\"} 5\n", "\"m\"} 1\n");
        let before = before.replace("\"m\"} 2\n", "\"m\"} 1\n").replace("\"m\"} 3\n", "\"m\"} 1\n");
        let times = said(&before, LATER, "e2e").and_then(|said| said.times).expect("times");
        // Four: one of them below 0.5 s, three between that and 1 s.
        assert_eq!((times.count, times.mean), (4.0, 0.5));
        assert_eq!(times.median, Some((0.5, 1.0)));
        assert_eq!(said(LATER, LATER, "e2e").map(|said| said.times), Some(None));
        // It began anew.
        assert!(said(LATER, &before, "e2e").is_none());
    }

    /// What vLLM 0.32 said on a CPU after some requests, shortened.
    const VLLM: &str = include_str!("../../../fixtures/metrics/vllm-0.32.txt");

    #[test]
    fn all_that_is_read_of_vllm_is_in_its_own_words() {
        let scrape = Scrape::read(VLLM, "gemma-3-270m");
        let known = |figure: &&Figure| figure.series.iter().any(|name| name.starts_with("vllm:"));
        for figure in FIGURES.iter().filter(known) {
            let said = figure.in_both(&Scrape::default(), &scrape).expect(figure.name);
            // The first of the names is that of today.
            assert_eq!(said.series, figure.series[0]);
            assert_eq!(
                said.times.is_some(),
                figure.sort == MetricKind::Histogram,
                "{}",
                figure.name
            );
        }
        assert_eq!(scrape.answered(), Some(124.0));
        let after = |name| said("", VLLM, name).map(|said| said.after);
        assert_eq!(after("prompt_tokens"), Some(7101.0));
        assert_eq!(after("cached_tokens"), Some(256.0));
    }

    #[test]
    fn percentiles_are_between_the_bounds_of_buckets() {
        let infinite = f64::INFINITY;
        let of = |buckets: &[(f64, f64)], count| {
            let times = Times::of(count, 1.6, buckets).expect("times");
            (times.median, times.p99)
        };
        assert_eq!(of(&[(0.3, 8.0), (infinite, 8.0)], 8.0), (Some((0.0, 0.3)), None));
        // The median of two is between both.
        let two = [(0.1, 0.0), (0.2, 1.0), (0.5, 1.0), (1.0, 2.0), (infinite, 2.0)];
        assert_eq!(of(&two, 2.0).0, Some((0.1, 1.0)));
        // 473 times are enough for a p99. Five of them are beyond all bounds.
        let many = [(0.1, 400.0), (0.2, 468.0), (infinite, 473.0)];
        assert_eq!(of(&many, 472.0).1, None);
        assert_eq!(of(&many, 473.0), (Some((0.0, 0.1)), Some((0.1, infinite))));
        let many = [(0.1, 400.0), (0.2, 470.0), (infinite, 473.0)];
        assert_eq!(of(&many, 473.0).1, Some((0.1, 0.2)));
        // Without the bucket of all, and without any.
        assert_eq!(of(&[(0.1, 0.0)], 2.0).0, Some((0.1, infinite)));
        assert_eq!(of(&[], 2.0), (None, None));
    }

    #[test]
    fn answers_of_one_token_have_no_time_per_token_on_either_side() {
        let tpot = |count: u32, sum: f64| {
            let name = "vllm:request_time_per_output_token_seconds";
            format!(
                "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_count {count}\n{name}_sum {sum}\n"
            )
        };
        let compare = |count, sum, requests, ours: Option<Ours>| {
            let after = Scrape::read(&tpot(count, sum), "m");
            let comparison =
                MetricComparison::of((&Scrape::default(), false), &after, requests, |_| ours);
            let (said, ours) = comparison.said[0];
            ours.map(|ours| (said.times.expect("times").mean, ours))
        };
        let ours = |requests| Some(Ours { mean: 0.02, requests });
        // Three answers, one of them of a token: counted as nothing, or not at all.
        assert_eq!(compare(3, 0.042, 3, ours(2)), Some((0.021, 0.02)));
        assert_eq!(compare(2, 0.042, 3, ours(2)), Some((0.021, 0.02)));
        assert_eq!(compare(3, 0.06, 3, ours(3)), Some((0.02, 0.02)));
        assert_eq!(compare(4, 0.06, 3, ours(2)), None, "another client's");
        assert_eq!(compare(3, 0.06, 3, None), None);
    }

    #[test]
    fn what_no_times_could_make_is_not_told() {
        let buckets = [(0.3, 1.0), (f64::INFINITY, 2.0)];
        assert!(Times::of(2.0, 0.5, &buckets).is_some());
        for sum in [-0.49, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(Times::of(2.0, sum, &buckets), None, "{sum}");
        }
        for buckets in [[(0.3, -1.0), (1.0, 2.0)], [(0.3, 2.0), (1.0, 1.0)]] {
            assert_eq!(Times::of(2.0, 0.5, &buckets), None, "{buckets:?}");
        }
        // A sum that falls while the count grows: another server's.
        let before = LATER.replace("} 3\n", "} 9\n").replace("\"m\"} 5\n", "\"m\"} 1\n");
        let after = said(&before, LATER, "e2e").expect("counts");
        assert_eq!((after.before, after.after, after.times), (1.0, 5.0, None));
    }
}
