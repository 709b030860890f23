//! Compares a server's Prometheus metrics before and after a trial with the client's figures. Pure.
//!
//! The metrics cover all requests of a server. Their difference belongs to the trial only if it
//! counts as many requests as the trial sent. If other clients used the server in the meantime,
//! there is nothing to compare.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::{BTreeMap, BTreeSet};

use crate::{metric::Metric, statistic::Statistic};

/// A metric that servers export.
#[derive(Debug, Clone, Copy)]
pub struct ServerMetric {
    /// The name in the results.
    pub name: &'static str,
    /// The kind of metric.
    pub kind: MetricKind,
    /// The client's metric with the same meaning, for each request.
    pub ours: Option<&'static Metric>,
    /// The names in different servers. The first name that the server exports is used.
    series: &'static [&'static str],
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A distribution of times.
    Histogram,
    /// A count that only grows.
    Counter,
    /// A momentary value.
    Gauge,
    /// A momentary share, 0 to 1. That of several engines is their mean.
    Share,
}

impl MetricKind {
    /// Returns the name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Histogram => "histogram",
            Self::Counter => "counter",
            Self::Gauge | Self::Share => "gauge",
        }
    }
}

macro_rules! figures {
    ($($name:literal $kind:ident $ours:expr, [$($series:literal),+];)+) => {
        &[$(ServerMetric { name: $name, kind: MetricKind::$kind, ours: $ours, series: &[$($series),+] },)+]
    };
}

/// The metrics of vLLM, SGLang and llama.cpp that are used.
const FIGURES: &[ServerMetric] = figures! {
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
    "preemptions" Counter None,
        ["vllm:num_preemptions_total", "sglang:num_retracted_requests_total"];
    "draft_tokens" Counter None,
        ["vllm:spec_decode_num_draft_tokens_total", "llamacpp:spec_decode_num_draft_tokens_total",
         "llamacpp:tokens_drafted_total"];
    "accepted_tokens" Counter None,
        ["vllm:spec_decode_num_accepted_tokens_total",
         "llamacpp:spec_decode_num_accepted_tokens_total", "llamacpp:tokens_drafted_accepted_total"];
    "prompt_seconds" Counter None, ["llamacpp:prompt_seconds_total"];
    "generation_seconds" Counter None, ["llamacpp:tokens_predicted_seconds_total"];
    "running" Gauge None,
        ["vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"];
    "waiting" Gauge None,
        ["vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"];
    "kv_cache_use" Share None,
        ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage",
         "llamacpp:kv_cache_usage_ratio"];
    "accept_rate" Share None, ["sglang:spec_accept_rate"];
};

/// All metrics of a server at one moment. Series with the same name are added up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scrape {
    values: BTreeMap<String, f64>,
    /// The number of lines with each name.
    lines: BTreeMap<String, usize>,
    /// The buckets of histograms: upper bounds in ascending order, each with the count below it.
    buckets: BTreeMap<String, Vec<(f64, f64)>>,
}

/// A parsed line: name, labels, value.
type SeriesLine<'a> = (&'a str, Vec<(&'a str, String)>, f64);

impl Scrape {
    /// Parses the text format. If `model` is among the models, only its metrics count. Other lines
    /// are skipped.
    pub fn read(text: &str, model: &str) -> Self {
        let lines: Vec<_> = text.lines().filter_map(series).collect();
        let names_model = |labels: &[(&str, String)]| {
            labels.iter().find(|(name, _)| *name == "model_name").map(|(_, value)| value == model)
        };
        // A server with one model may use another name for it, so an unknown model filters nothing.
        let knows = lines.iter().any(|(_, labels, _)| names_model(labels) == Some(true));
        // SGLang exports the sum over all priorities next to the values of each.
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
                _ => {
                    *scrape.values.entry((*name).into()).or_default() += value;
                    *scrape.lines.entry((*name).into()).or_default() += 1;
                }
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

    /// Returns the number of requests that the server has answered, if it exports it.
    pub fn answered(&self) -> Option<f64> {
        let e2e = FIGURES.iter().find(|figure| figure.ours == Some(Metric::E2E))?;
        e2e.series.iter().find_map(|series| self.values.get(&format!("{series}_count")).copied())
    }

    /// Returns the value of the first of the series `names` that it has.
    pub(crate) fn first_of(&self, names: &[&str]) -> Option<f64> {
        names.iter().find_map(|name| self.values.get(*name).copied())
    }

    /// Returns the value of the counter, gauge or share `figure` by its name in the results.
    pub fn value(&self, figure: &str) -> Option<f64> {
        let figure = FIGURES.iter().find(|known| known.name == figure)?;
        figure.series.iter().find_map(|series| self.value_of(figure.kind, series))
    }

    /// Returns the value of a series: the mean of shares, the sum of everything else.
    fn value_of(&self, kind: MetricKind, series: &str) -> Option<f64> {
        let sum = *self.values.get(series)?;
        match kind {
            MetricKind::Share => Some(sum / self.lines.get(series).copied().unwrap_or(1) as f64),
            _ => Some(sum),
        }
    }

    /// Returns whether it contains a known metric.
    pub fn is_known(&self) -> bool {
        FIGURES.iter().any(|figure| figure.in_both(self, self).is_some())
    }
}

/// Returns the label by which SGLang splits metrics.
fn priority<'a>(labels: &'a [(&str, String)]) -> Option<&'a str> {
    labels.iter().find(|(name, _)| *name == "priority").map(|(_, value)| value.as_str())
}

/// Parses a line such as `name{label="value"} 1.5 1395066363000`.
pub(crate) fn series(line: &str) -> Option<SeriesLine<'_>> {
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

/// Parses labels up to the closing brace and returns the rest of the line.
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

impl ServerMetric {
    fn in_both(&self, before: &Scrape, after: &Scrape) -> Option<MetricSample> {
        self.series.iter().find_map(|series| self.sample(series, before, after))
    }

    fn sample(
        &self,
        series: &'static str,
        before: &Scrape,
        after: &Scrape,
    ) -> Option<MetricSample> {
        let counted = format!("{series}_count");
        let name = if self.kind == MetricKind::Histogram { counted.as_str() } else { series };
        // A server may omit counters that are zero.
        let now = after.value_of(self.kind, name)?;
        let then = before.value_of(self.kind, name).unwrap_or(0.0);
        let sample = MetricSample { figure: *self, series, before: then, after: now, times: None };
        match self.kind {
            MetricKind::Gauge | MetricKind::Share => Some(sample),
            // The server restarted in between.
            _ if now < then => None,
            MetricKind::Counter => Some(sample),
            MetricKind::Histogram => {
                let sum = format!("{series}_sum");
                let sum = after.values.get(&sum)? - before.values.get(&sum).copied().unwrap_or(0.0);
                let buckets = grown(before.buckets.get(series), after.buckets.get(series));
                Some(MetricSample {
                    times: HistogramTimes::of(now - then, sum, &buckets),
                    ..sample
                })
            }
        }
    }
}

/// Returns the growth of each bucket.
fn grown(before: Option<&Vec<(f64, f64)>>, after: Option<&Vec<(f64, f64)>>) -> Vec<(f64, f64)> {
    let then = |bound: f64| {
        let bucket = before.into_iter().flatten().find(|(known, _)| *known == bound);
        bucket.map_or(0.0, |(_, below)| *below)
    };
    after.into_iter().flatten().map(|&(bound, below)| (bound, below - then(bound))).collect()
}

/// A server's metric over a trial.
#[derive(Debug, Clone, Copy)]
pub struct MetricSample {
    /// The metric.
    pub figure: ServerMetric,
    /// The server's name for it.
    pub series: &'static str,
    /// The value, or the count of a histogram, before the trial.
    pub before: f64,
    /// The same after the trial.
    pub after: f64,
    /// The distribution of times during the trial, if there were any.
    pub times: Option<HistogramTimes>,
}

/// Times of a histogram, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistogramTimes {
    /// The number of times.
    pub count: f64,
    /// The mean.
    pub mean: f64,
    /// The bounds of the median.
    pub median: Option<BucketBounds>,
    /// The bounds of the 99th percentile; `None` if there are too few times.
    pub p99: Option<BucketBounds>,
}

/// Bounds of buckets: a value is above the first and at most the second, which may be infinite.
pub type BucketBounds = (f64, f64);

impl HistogramTimes {
    /// Returns `None` if there are no times, or if the differences are impossible, because the
    /// server restarted or the URL leads to several servers.
    fn of(count: f64, sum: f64, buckets: &[(f64, f64)]) -> Option<Self> {
        let grows = buckets.is_sorted_by_key(|(_, below)| *below);
        let shrank = buckets.iter().any(|(_, below)| *below < 0.0);
        let is_possible = count > 0.0 && sum.is_finite() && sum >= 0.0 && grows && !shrank;
        let at = |percent| percentile(buckets, count, percent);
        is_possible.then(|| Self { count, mean: sum / count, median: at(50.0), p99: at(99.0) })
    }
}

/// Returns the bounds of a percentile, defined as for the client's figures: between the two nearest
/// ranks, and `None` for too few times ([`Statistic::needs`]).
///
/// Buckets are too wide for interpolation within a bucket: with a first bucket up to 5 ms, it would
/// turn times of 1.1 ms into a p99 of 4.95 ms.
fn percentile(buckets: &[(f64, f64)], count: f64, percent: f64) -> Option<BucketBounds> {
    let statistic =
        if percent == 50.0 { Statistic::Median } else { Statistic::Percentile(percent) };
    let last = *buckets.last()?;
    if count < statistic.needs() as f64 {
        return None;
    }
    let rank = percent / 100.0 * (count - 1.0);
    // The bucket of the value that has this many values below it.
    let place = |others: f64| buckets.iter().position(|(_, below)| *below > others);
    let above = match place(rank.floor()) {
        None => last.0,
        Some(0) => 0.0,
        Some(place) => buckets[place - 1].0,
    };
    let up_to = place(rank.ceil()).map_or(f64::INFINITY, |place| buckets[place].0);
    Some((above, up_to))
}

/// The server's metrics of a trial next to the client's figures.
#[derive(Debug, Clone, Default)]
pub struct MetricComparison {
    /// The metrics, with the client's mean where the two are comparable.
    pub samples: Vec<(MetricSample, Option<f64>)>,
    /// The number of requests of the trial.
    pub requests: usize,
    /// Whether earlier answers may be included that the server had not yet counted. Times are
    /// omitted then, because they may belong to other requests.
    pub is_late: bool,
}

/// The client's figure of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClientMean {
    /// The mean over the requests that can have it.
    pub mean: f64,
    /// The number of these requests. For times between tokens, answers of one token are excluded.
    pub requests: usize,
}

impl ClientMean {
    /// Returns the server's `times` of the same requests in a trial of `all` requests; `None` if it
    /// counted other requests. vLLM counts an answer of one token with a time of 0. Such answers do
    /// not change the sum, so they are subtracted from the count; percentiles that include them are
    /// unusable.
    fn comparable(self, times: HistogramTimes, all: usize) -> Option<HistogramTimes> {
        let requests = self.requests as f64;
        match times.count {
            count if count == requests => Some(times),
            count if count == all as f64 => Some(HistogramTimes {
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
    /// Compares two scrapes with a trial of `requests`. `ours` returns the client's figure by the
    /// metric's name.
    pub fn of(
        (before, is_late): (&Scrape, bool),
        after: &Scrape,
        requests: usize,
        ours: impl Fn(&Metric) -> Option<ClientMean>,
    ) -> Self {
        let both = |sample: MetricSample| {
            let ours = sample.figure.ours.and_then(&ours);
            let compared = ours
                .zip(sample.times)
                .and_then(|(ours, times)| Some((ours.comparable(times, requests)?, ours.mean)));
            match compared {
                Some((times, mean)) => (MetricSample { times: Some(times), ..sample }, Some(mean)),
                None => (sample, None),
            }
        };
        let samples = FIGURES.iter().filter_map(|figure| figure.in_both(before, after));
        let samples = samples.map(|sample| match is_late {
            true => (MetricSample { times: None, ..sample }, None),
            false => both(sample),
        });
        Self { samples: samples.collect(), requests, is_late }
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

    fn sample(before: &str, after: &str, name: &str) -> Option<MetricSample> {
        let figure = FIGURES.iter().find(|figure| figure.name == name)?;
        figure.in_both(&Scrape::read(before, "m"), &Scrape::read(after, "m"))
    }

    #[test]
    fn the_text_format_is_read_with_its_escapes_and_without_other_models() {
        let value = |name: &str| sample("", LATER, name).map(|sample| sample.after);
        assert_eq!(value("e2e"), Some(5.0));
        assert_eq!(value("preemptions"), Some(5.0));
        assert_eq!(value("running"), Some(1.0));
        assert_eq!(value("waiting"), None);
        let mean = sample("", LATER, "e2e").and_then(|sample| sample.times).map(|times| times.mean);
        assert_eq!(mean, Some(0.6));
        // A model that is not listed may be an alias, so all models count.
        assert_eq!(Scrape::read(LATER, "alias").answered(), Some(5.0));
    }

    #[test]
    fn a_sum_over_priorities_is_not_added_to_its_parts() {
        let of =
            |priority: &str| format!("sglang:num_running_reqs{{model_name=\"m\"{priority}}} 8\n");
        let running = |text: &str| sample("", text, "running").map(|sample| sample.after);
        let parts = of(",priority=\"0\"") + &of(",priority=\"1\"");
        assert_eq!(running(&parts), Some(16.0));
        assert_eq!(running(&(of(",priority=\"\"") + &parts)), Some(8.0));
        assert_eq!(running(&of("")), Some(8.0));
    }

    #[test]
    fn the_difference_of_two_scrapes_is_the_trials() {
        let before = LATER.replace("} 5.0", "} 1.0").replace("\"m\"} 5\n", "\"m\"} 1\n");
        let before = before.replace("\"m\"} 2\n", "\"m\"} 1\n").replace("\"m\"} 3\n", "\"m\"} 1\n");
        let times = sample(&before, LATER, "e2e").and_then(|sample| sample.times).expect("times");
        // Four times: one below 0.5 s, three between 0.5 s and 1 s.
        assert_eq!((times.count, times.mean), (4.0, 0.5));
        assert_eq!(times.median, Some((0.5, 1.0)));
        assert_eq!(sample(LATER, LATER, "e2e").map(|sample| sample.times), Some(None));
        // The server restarted.
        assert!(sample(LATER, &before, "e2e").is_none());
    }

    /// An export of vLLM 0.32 on a CPU after some requests, shortened.
    const VLLM: &str = include_str!("../../../fixtures/metrics/vllm-0.32.txt");

    #[test]
    fn all_that_is_read_of_vllm_is_in_its_own_words() {
        let scrape = Scrape::read(VLLM, "gemma-3-270m");
        // Without speculative decoding vLLM does not export its counters.
        let speculates = |figure: &ServerMetric| figure.series[0].contains("spec_decode");
        let known = |figure: &&ServerMetric| {
            figure.series.iter().any(|name| name.starts_with("vllm:")) && !speculates(figure)
        };
        for figure in FIGURES.iter().filter(known) {
            let sample = figure.in_both(&Scrape::default(), &scrape).expect(figure.name);
            // The first name is the current one.
            assert_eq!(sample.series, figure.series[0]);
            assert_eq!(
                sample.times.is_some(),
                figure.kind == MetricKind::Histogram,
                "{}",
                figure.name
            );
        }
        assert_eq!(scrape.answered(), Some(124.0));
        let after = |name| sample("", VLLM, name).map(|sample| sample.after);
        assert_eq!(after("prompt_tokens"), Some(7101.0));
        assert_eq!(after("cached_tokens"), Some(256.0));
    }

    #[test]
    fn percentiles_are_between_the_bounds_of_buckets() {
        let infinite = f64::INFINITY;
        let of = |buckets: &[(f64, f64)], count| {
            let times = HistogramTimes::of(count, 1.6, buckets).expect("times");
            (times.median, times.p99)
        };
        assert_eq!(of(&[(0.3, 8.0), (infinite, 8.0)], 8.0), (Some((0.0, 0.3)), None));
        // The median of two is between both.
        let two = [(0.1, 0.0), (0.2, 1.0), (0.5, 1.0), (1.0, 2.0), (infinite, 2.0)];
        assert_eq!(of(&two, 2.0).0, Some((0.1, 1.0)));
        // 473 times are enough for a p99. Five of them exceed all bounds.
        let many = [(0.1, 400.0), (0.2, 468.0), (infinite, 473.0)];
        assert_eq!(of(&many, 472.0).1, None);
        assert_eq!(of(&many, 473.0), (Some((0.0, 0.1)), Some((0.1, infinite))));
        let many = [(0.1, 400.0), (0.2, 470.0), (infinite, 473.0)];
        assert_eq!(of(&many, 473.0).1, Some((0.1, 0.2)));
        // Without the infinite bucket, and without any bucket.
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
        let compare = |count, sum, requests, ours: Option<ClientMean>| {
            let after = Scrape::read(&tpot(count, sum), "m");
            let comparison =
                MetricComparison::of((&Scrape::default(), false), &after, requests, |_| ours);
            let (sample, ours) = comparison.samples[0];
            ours.map(|ours| (sample.times.expect("times").mean, ours))
        };
        let ours = |requests| Some(ClientMean { mean: 0.02, requests });
        // Three answers, one of them of one token, which the server counts as zero or not at all.
        assert_eq!(compare(3, 0.042, 3, ours(2)), Some((0.021, 0.02)));
        assert_eq!(compare(2, 0.042, 3, ours(2)), Some((0.021, 0.02)));
        assert_eq!(compare(3, 0.06, 3, ours(3)), Some((0.02, 0.02)));
        assert_eq!(compare(4, 0.06, 3, ours(2)), None, "another client's");
        assert_eq!(compare(3, 0.06, 3, None), None);
    }

    #[test]
    fn impossible_differences_have_no_times() {
        let buckets = [(0.3, 1.0), (f64::INFINITY, 2.0)];
        assert!(HistogramTimes::of(2.0, 0.5, &buckets).is_some());
        for sum in [-0.49, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(HistogramTimes::of(2.0, sum, &buckets), None, "{sum}");
        }
        for buckets in [[(0.3, -1.0), (1.0, 2.0)], [(0.3, 2.0), (1.0, 1.0)]] {
            assert_eq!(HistogramTimes::of(2.0, 0.5, &buckets), None, "{buckets:?}");
        }
        // A sum that falls while the count grows comes from another server.
        let before = LATER.replace("} 3\n", "} 9\n").replace("\"m\"} 5\n", "\"m\"} 1\n");
        let after = sample(&before, LATER, "e2e").expect("counts");
        assert_eq!((after.before, after.after, after.times), (1.0, 5.0, None));
    }
}
