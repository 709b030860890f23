//! A server's Prometheus metrics over the time of a load, one scrape a second. Pure.
//!
//! A gauge has its mean and its maximum over the scrapes within the load's own time. A counter has
//! its growth from the first scrape, before the first request, to the last one, after the last
//! answer. A scrape that failed is a gap: its reason is kept, and no value stands for it.

use crate::server_metrics::Scrape;

/// The columns of a series: counters and gauges by their names in the results.
pub const SERIES: [&str; 9] = [
    "running",
    "waiting",
    "kv_cache_use",
    "preemptions",
    "cache_hits",
    "cache_queries",
    "draft_tokens",
    "accepted_tokens",
    "accept_rate",
];

/// The most scrapes of a load that are kept for a chart.
pub const COURSE: usize = 300;

/// The columns that are gauges.
const GAUGES: [&str; 4] = ["running", "waiting", "kv_cache_use", "accept_rate"];

/// One scrape, at a time relative to the load.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedSample<T> {
    /// The middle of the scrape in seconds since the load began; negative before that.
    pub at: f64,
    /// The duration of the scrape in seconds.
    pub took: f64,
    /// What was read, or why nothing was.
    pub value: Result<T, String>,
}

impl<T> TimedSample<T> {
    /// The scrapes that succeeded, with their times.
    pub(crate) fn known(samples: &[Self]) -> impl DoubleEndedIterator<Item = (f64, &T)> {
        samples.iter().filter_map(|sample| Some((sample.at, sample.value.as_ref().ok()?)))
    }
}

/// The values of [`SERIES`] at one moment; `None` for those that the server does not export.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ServerState {
    values: [Option<f64>; SERIES.len()],
}

impl ServerState {
    /// Reads the text format. If `model` is among the models, only its metrics count.
    pub fn read(text: &str, model: &str) -> Result<Self, String> {
        let scrape = Scrape::read(text, model);
        let cache = cache_counts(&scrape);
        let value = |name: &str| match name {
            "cache_hits" => cache.map(|(hits, _)| hits),
            "cache_queries" => cache.map(|(_, queries)| queries),
            _ => scrape.value(name),
        };
        let state = Self { values: SERIES.map(value) };
        match state.values.iter().any(Option::is_some) {
            true => Ok(state),
            false => Err("none of the metrics is vLLM's, SGLang's or llama.cpp's".into()),
        }
    }

    /// Returns the value of a column.
    pub fn value(&self, name: &str) -> Option<f64> {
        SERIES.iter().position(|known| *known == name).and_then(|nth| self.values[nth])
    }
}

/// Returns the prompt tokens that were in the prefix cache, and all that were looked up.
fn cache_counts(scrape: &Scrape) -> Option<(f64, f64)> {
    let both =
        |hits: &str, queries: &str| Some((scrape.first_of(&[hits])?, scrape.first_of(&[queries])?));
    // llama.cpp counts the tokens that it processed, without the cached ones.
    let of_llama = || {
        let hits = scrape.first_of(&["llamacpp:prompt_tokens_cached_total"])?;
        Some((hits, hits + scrape.first_of(&["llamacpp:prompt_tokens_total"])?))
    };
    both("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
        .or_else(|| both("vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_queries_total"))
        .or_else(|| both("sglang:cached_tokens_total", "sglang:prompt_tokens_total"))
        .or_else(of_llama)
}

/// A gauge over the time of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct GaugeOverTime {
    /// The name of its column.
    pub name: &'static str,
    /// The mean over the scrapes.
    pub mean: f64,
    /// The largest value of a scrape.
    pub max: f64,
    /// The number of scrapes that have it.
    pub n: usize,
}

/// A share of a count over the time of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CountedShare {
    /// The counted part.
    pub part: f64,
    /// The count of all, above 0.
    pub all: f64,
}

impl CountedShare {
    /// Returns the share, 0 to 1.
    pub fn share(self) -> f64 {
        self.part / self.all
    }
}

/// A server's metrics over the time of a load.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerOverTime {
    /// The scrapes that succeeded.
    pub scrapes: usize,
    /// The scrapes that failed.
    pub failed: usize,
    /// Why the first of them failed.
    pub first_failure: Option<String>,
    /// The mean duration of a scrape, in seconds.
    pub scrape_mean: Option<f64>,
    /// The longest duration of a scrape, in seconds.
    pub scrape_max: Option<f64>,
    /// The gauges that the server exports.
    pub gauges: Vec<GaugeOverTime>,
    /// The requests that lost their place, if the server counts them.
    pub preemptions: Option<f64>,
    /// The looked-up prompt tokens that were in the prefix cache.
    pub cache_hits: Option<CountedShare>,
    /// The draft tokens of speculative decoding that the model accepted.
    pub acceptance: Option<CountedShare>,
    /// Whether a prompt is synthetic text, whose acceptance is not that of real text.
    pub is_synthetic: bool,
    /// The scrapes within the load's own time, evenly thinned to at most [`COURSE`].
    pub course: Vec<(f64, ServerState)>,
}

impl ServerOverTime {
    /// Summarizes the scrapes of a load that lasted `seconds` from its first start, to which the
    /// times of `samples` are relative.
    pub fn of(samples: &[TimedSample<ServerState>], seconds: f64, is_synthetic: bool) -> Self {
        let failure = |sample: &TimedSample<_>| sample.value.as_ref().err().cloned();
        let known = || TimedSample::known(samples);
        let took = samples.iter().filter(|sample| sample.value.is_ok()).map(|sample| sample.took);
        let scrapes = known().count();
        let gauge = |name| {
            let within = known().filter(|(at, _)| (0.0..=seconds).contains(at));
            let values: Vec<_> = within.filter_map(|(_, state)| state.value(name)).collect();
            let max = values.iter().copied().reduce(f64::max)?;
            let n = values.len();
            Some(GaugeOverTime { name, mean: values.iter().sum::<f64>() / n as f64, max, n })
        };
        let grown = |name| grown(known().map(|(_, state)| state), name);
        let share = |part: Option<f64>, all: Option<f64>| {
            let (part, all) = part.zip(all)?;
            (all > 0.0).then_some(CountedShare { part, all })
        };
        Self {
            scrapes,
            failed: samples.len() - scrapes,
            first_failure: samples.iter().find_map(failure),
            scrape_mean: (scrapes > 0).then(|| took.clone().sum::<f64>() / scrapes as f64),
            scrape_max: took.reduce(f64::max),
            gauges: GAUGES.into_iter().filter_map(gauge).collect(),
            preemptions: grown("preemptions"),
            cache_hits: share(grown("cache_hits"), grown("cache_queries")),
            acceptance: share(grown("accepted_tokens"), grown("draft_tokens")),
            is_synthetic,
            course: thinned(known().filter(|(at, _)| (0.0..=seconds).contains(at))),
        }
    }

    /// Returns the gauge with this name.
    pub fn gauge(&self, name: &str) -> Option<&GaugeOverTime> {
        self.gauges.iter().find(|gauge| gauge.name == name)
    }
}

fn thinned<'a>(states: impl Iterator<Item = (f64, &'a ServerState)>) -> Vec<(f64, ServerState)> {
    let states: Vec<_> = states.map(|(at, state)| (at, *state)).collect();
    let step = states.len().div_ceil(COURSE).max(1);
    states.into_iter().step_by(step).collect()
}

/// Returns the growth of a counter; `None` if it ever shrank, because the server restarted. A server
/// may omit counters that are zero.
fn grown<'a>(states: impl Iterator<Item = &'a ServerState>, name: &str) -> Option<f64> {
    let values: Vec<_> = states.map(|state| state.value(name)).collect();
    let last = (*values.last()?)?;
    if values.len() < 2 {
        return None;
    }
    let values: Vec<_> = values.into_iter().map(Option::unwrap_or_default).collect();
    values.is_sorted().then(|| last - values[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, text: &str) -> TimedSample<ServerState> {
        let value = match text {
            "" => Err("HTTP 503".to_owned()),
            _ => ServerState::read(text, "m"),
        };
        TimedSample { at, took: 0.01, value }
    }

    fn vllm(running: u32, hits: u32, queries: u32) -> String {
        format!(
            "vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n\
             vllm:kv_cache_usage_perc{{engine=\"0\"}} 0.2\n\
             vllm:kv_cache_usage_perc{{engine=\"1\"}} 0.4\n\
             vllm:prefix_cache_hits_total {hits}\nvllm:prefix_cache_queries_total {queries}\n\
             vllm:spec_decode_num_draft_tokens_total {queries}\n\
             vllm:spec_decode_num_accepted_tokens_total {hits}\n\
             vllm:num_preemptions_total 3\n"
        )
    }

    #[test]
    fn gauges_count_within_the_load_and_counters_over_all_scrapes() {
        let samples = [
            sample(-0.1, &vllm(99, 10, 100)),
            sample(0.9, &vllm(4, 20, 140)),
            sample(1.9, ""),
            sample(2.9, &vllm(8, 20, 160)),
            sample(3.1, &vllm(50, 40, 180)),
        ];
        let over = ServerOverTime::of(&samples, 3.0, true);
        assert_eq!((over.scrapes, over.failed), (4, 1));
        assert_eq!(over.first_failure.as_deref(), Some("HTTP 503"));
        let running = over.gauge("running").expect("exported");
        assert_eq!((running.mean, running.max, running.n), (6.0, 8.0, 2));
        // Two engines: the mean of their shares.
        let kv = over.gauge("kv_cache_use").expect("exported");
        assert!((kv.max - 0.3).abs() < 1e-12);
        assert_eq!(over.preemptions, Some(0.0));
        assert_eq!(over.cache_hits, Some(CountedShare { part: 30.0, all: 80.0 }));
        assert_eq!(over.acceptance.map(CountedShare::share), Some(0.375));
        assert_eq!(over.gauge("accept_rate"), None);
        let course: Vec<_> =
            over.course.iter().map(|(at, state)| (*at, state.value("running"))).collect();
        assert_eq!(course, [(0.9, Some(4.0)), (2.9, Some(8.0))]);
    }

    #[test]
    fn a_server_that_restarted_has_no_rates() {
        let samples = [sample(0.0, &vllm(1, 50, 100)), sample(1.0, &vllm(1, 1, 2))];
        let over = ServerOverTime::of(&samples, 1.0, false);
        assert_eq!((over.cache_hits, over.acceptance), (None, None));
        let once = ServerOverTime::of(&samples[..1], 1.0, false);
        assert_eq!((once.preemptions, once.gauges.len()), (None, 3));
        assert_eq!(ServerOverTime::of(&[], 1.0, false), ServerOverTime::default());
    }

    #[test]
    fn each_server_has_its_own_names() {
        let sglang = "sglang:num_running_reqs 3\nsglang:num_queue_reqs 1\nsglang:token_usage 0.5\n\
                      sglang:cached_tokens_total{cache_source=\"device\"} 20\n\
                      sglang:prompt_tokens_total 80\nsglang:spec_accept_rate 0.55\n\
                      sglang:num_retracted_requests_total 2\n";
        let llama = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 1\n\
                     llamacpp:kv_cache_usage_ratio 0.5\nllamacpp:prompt_tokens_cached_total 20\n\
                     llamacpp:prompt_tokens_total 60\n\
                     llamacpp:spec_decode_num_draft_tokens_total 10\n\
                     llamacpp:spec_decode_num_accepted_tokens_total 7\n";
        let of = |text: &str| ServerState::read(text, "m").map(|state| state.values);
        let some = Some;
        assert_eq!(
            of(sglang),
            Ok([
                some(3.0),
                some(1.0),
                some(0.5),
                some(2.0),
                some(20.0),
                some(80.0),
                None,
                None,
                some(0.55)
            ])
        );
        assert_eq!(
            of(llama),
            Ok([
                some(3.0),
                some(1.0),
                some(0.5),
                None,
                some(20.0),
                some(80.0),
                some(10.0),
                some(7.0),
                None
            ])
        );
        assert!(of("other 1\n").is_err());
    }
}
