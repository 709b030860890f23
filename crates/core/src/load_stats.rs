//! Statistics of one run of a load: whether the requested load was reached, and the throughput that
//! the server reached under it. Pure.

use std::time::Duration;

use crate::{
    cache_share::CacheShare,
    capacity::CapacityFigure,
    column::{Storage, ValueColumn},
    energy::{Energy, NoEnergy},
    metric::Metric,
    phases::Window,
    sample::Note,
    schedule::{Shape, Until},
    server_series::ServerOverTime,
    statistic::Statistic,
};

/// The smallest share of the requested concurrency that counts as reached.
const MIN_CONCURRENCY_SHARE: f64 = 0.95;

/// The largest lateness of starts that is harmless, as a share of the time to the first token, which
/// counts from the scheduled start: on average, and of the 99th percentiles.
const MAX_MEAN_LATENESS: f64 = 0.05;
pub(crate) const MAX_P99_LATENESS: f64 = 0.25;

/// Lateness below this (99th percentile) is negligible, however fast the answers are, in seconds.
pub(crate) const NEGLIGIBLE_LATENESS: f64 = 1e-3;

/// The smallest share of a load's requests that must have had a connection: without one, a request was
/// not sent.
pub const MIN_CONNECTED: f64 = 0.95;

/// The largest utilization of the receiving thread. Above it, requests start late because the
/// thread is busy.
const MAX_BUSY: f64 = 0.9;

/// One request of a load. All times count from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestSpan {
    /// When it was scheduled, in an open loop.
    pub scheduled: Option<Duration>,
    /// When it started: a pooled connection was taken, or a new one was opened.
    pub begun: Duration,
    /// When its answer ended or failed.
    pub ended: Duration,
    /// Generated tokens of a valid answer, or its items.
    pub tokens: Option<u64>,
    /// Whether answers are items.
    pub has_items: bool,
    /// Why the token count is refused.
    pub refused: Option<Note>,
    /// Whether it met all limits of `goodput`; `None` without limits.
    pub is_good: Option<bool>,
}

/// The requests of a load that have ended. A long list goes to the [`Storage`].
#[derive(Debug, Clone, Default)]
pub struct RequestSpans {
    /// The times in nanoseconds, the tokens, and whether it was good; [`u64::MAX`] stands for none.
    rows: ValueColumn<[u64; 5]>,
    /// The first reason for which a token count is refused.
    refused: Option<Note>,
    /// Whether answers are items.
    has_items: bool,
}

impl RequestSpans {
    /// Creates an empty list.
    pub fn new(storage: &Storage) -> Self {
        Self { rows: ValueColumn::new(storage), refused: None, has_items: false }
    }

    /// Returns the number of requests.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there are no requests.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a request.
    pub fn push(&mut self, span: RequestSpan) {
        let RequestSpan { scheduled, begun, ended, tokens, has_items, refused, is_good } = span;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1);
        let scheduled = scheduled.map_or(u64::MAX, nanos);
        let is_good = is_good.map_or(u64::MAX, u64::from);
        let tokens = tokens.unwrap_or(u64::MAX);
        self.rows.push([scheduled, nanos(begun), nanos(ended), tokens, is_good]);
        self.refused = self.refused.or(refused);
        self.has_items |= has_items;
    }

    /// Returns the requests in the order in which they ended.
    fn iter(&self) -> impl Iterator<Item = RequestSpan> + Clone {
        let known = |number: u64| (number < u64::MAX).then_some(number);
        self.rows.iter().map(move |[scheduled, begun, ended, tokens, is_good]| RequestSpan {
            scheduled: known(scheduled).map(Duration::from_nanos),
            begun: Duration::from_nanos(begun),
            ended: Duration::from_nanos(ended),
            tokens: known(tokens),
            has_items: self.has_items,
            refused: self.refused,
            is_good: known(is_good).map(|good| good == 1),
        })
    }
}

impl FromIterator<RequestSpan> for RequestSpans {
    fn from_iter<I: IntoIterator<Item = RequestSpan>>(spans: I) -> Self {
        let mut list = Self::default();
        spans.into_iter().for_each(|span| list.push(span));
        list
    }
}

/// The statistics of one run of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadStats {
    /// Requests that ended.
    pub requests: usize,
    /// Valid answers among them.
    pub valid: usize,
    /// Seconds from the first start to the end of the last valid answer or, if later, to the last
    /// start. A last request that fails by timeout does not lengthen the run.
    pub seconds: f64,
    /// Mean number of requests in flight between the first and the last start.
    pub concurrency: f64,
    /// The largest number of requests in flight.
    pub peak: usize,
    /// Starts per second in an open loop with several starts. A closed loop has no arrival rate:
    /// starts follow from the answers, so `request_throughput` describes it.
    pub request_rate: Option<f64>,
    /// Valid requests per second.
    pub request_throughput: f64,
    /// Tokens of valid answers per second; `None` if a token count is [`refused`](Self::refused), or
    /// if the answers are items.
    pub output_throughput: Option<f64>,
    /// Items of valid answers per second; `None` for generated text, which has
    /// `output_throughput`.
    pub item_throughput: Option<f64>,
    /// Valid requests per second that met all limits of `goodput`; `None` without limits.
    pub goodput: Option<f64>,
    /// Those as a percentage of all requests.
    pub goodput_ratio: Option<f64>,
    /// Why `output_throughput` is unknown.
    pub refused: Option<Note>,
    /// Throughput in successive parts of the run. They serve as replicates.
    pub batches: Vec<Batch>,
    /// Lateness of starts in an open loop in seconds: the 99th percentile, or the largest of fewer
    /// than 100.
    pub lateness: Option<f64>,
    /// Lateness of starts in an open loop in seconds, on average.
    pub mean_lateness: Option<f64>,
    /// The utilization of the receiving thread, if known.
    pub busy: Option<f64>,
    /// The share of cached prompt tokens, of a replayed trace with valid answers.
    pub cache: Option<CacheShare>,
    /// The result of a search, whose highest load that held this is.
    pub capacity: Option<CapacityFigure>,
    /// The part of the load that was measured, if it was not all of it.
    pub part: Option<MeasuredPart>,
    /// When the first request started, counted from the beginning of the load.
    pub first_start: Duration,
    /// The machine that served it.
    pub machine: ServerMachine,
    /// The server's metrics over the time of the load, if they were scraped.
    pub server: Option<ServerOverTime>,
    /// The energy of the GPUs, or why it is unknown; `None` if it was not asked for.
    pub energy: Option<Result<Energy, NoEnergy>>,
}

/// The measured part of a load, next to the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredPart {
    /// When it was.
    pub window: Window,
    /// The requests of the whole load.
    pub requests: usize,
    /// Its time in seconds.
    pub seconds: f64,
    /// The means of the whole load: of figures of its requests, and its throughputs.
    pub means: Vec<(&'static Metric, f64)>,
}

impl MeasuredPart {
    /// Returns the part of a load whose statistics as a whole are `whole`, with the means over all of
    /// its requests.
    pub fn of(window: Window, whole: &LoadStats, of_requests: &[(&'static Metric, f64)]) -> Self {
        let throughputs = [
            (Metric::REQUEST_THROUGHPUT, Some(whole.request_throughput)),
            (Metric::OUTPUT_THROUGHPUT, whole.output_throughput),
            (Metric::ITEM_THROUGHPUT, whole.item_throughput),
            (Metric::GOODPUT, whole.goodput),
            (Metric::GOODPUT_RATIO, whole.goodput_ratio),
        ];
        let throughputs =
            throughputs.into_iter().filter_map(|(metric, mean)| Some((metric, mean?)));
        let means = of_requests.iter().copied().chain(throughputs).collect();
        Self { window, requests: whole.requests, seconds: whole.seconds, means }
    }

    /// Returns the mean of a metric over the whole load.
    pub fn mean(&self, metric: &Metric) -> Option<f64> {
        self.means.iter().find(|(of, _)| *of == metric).map(|(_, mean)| *mean)
    }
}

/// The time of a load, or of the part of it that is measured.
struct Extent {
    first: Duration,
    last_start: Duration,
    /// The end of the last valid answer or, if later, the last start; of a window its end.
    end: Duration,
    window: Option<Window>,
}

impl Extent {
    fn of(requests: &RequestSpans, window: Option<Window>) -> Option<Self> {
        if let Some(Window { from, to }) = window {
            let is_empty = !requests.iter().any(|span| from <= span.begun && span.begun <= to);
            let extent = Self { first: from, last_start: to, end: to, window };
            return (!is_empty).then_some(extent);
        }
        let first = requests.iter().map(|span| span.begun).min()?;
        let last_start = requests.iter().map(|span| span.begun).max()?;
        // The last valid answer ends the run. An invalid answer often ends by a timeout, which says
        // nothing about throughput.
        let answers = requests.iter().filter(|span| span.tokens.is_some());
        let end =
            answers.map(|span| span.ended).max().map_or(last_start, |end| end.max(last_start));
        Some(Self { first, last_start, end, window })
    }

    /// Returns whether a request started in it.
    fn holds(&self, span: &RequestSpan) -> bool {
        self.window.is_none_or(|window| window.holds(span.begun))
    }

    /// Returns whether a request was in flight in it.
    fn touches(&self, span: &RequestSpan) -> bool {
        span.begun <= self.end && span.ended >= self.first
    }

    /// Returns the share of a request's time that is in it.
    fn share_of(&self, span: &RequestSpan) -> f64 {
        let whole = span.ended.saturating_sub(span.begun).as_secs_f64();
        match whole > 0.0 {
            true => self.overlap(span, self.end) / whole,
            false => f64::from(u8::from(self.touches(span))),
        }
    }

    /// Returns the seconds of a request from the first start to `end`.
    fn overlap(&self, span: &RequestSpan, end: Duration) -> f64 {
        span.ended.min(end).saturating_sub(span.begun.max(self.first)).as_secs_f64()
    }

    fn starting(&self) -> f64 {
        self.last_start.saturating_sub(self.first).as_secs_f64()
    }

    fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.first).as_secs_f64()
    }

    /// Returns the gaps between `starts`: those of a whole load begin and end with a start.
    fn gaps(&self, starts: usize) -> usize {
        if self.window.is_some() { starts } else { starts - 1 }
    }
}

/// What the config says about the machine that serves a model.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ServerMachine {
    /// The number of GPUs that the model uses.
    pub gpus: Option<u64>,
    /// The cost of an hour, in any currency.
    pub cost_per_hour: Option<f64>,
}

impl ServerMachine {
    /// Returns the cost of a million tokens at `throughput`, in tokens per second; `None` at 0.
    pub fn cost_of_million(self, throughput: f64) -> Option<f64> {
        let per_second = self.cost_per_hour? / 3600.0;
        (throughput > 0.0).then(|| per_second / throughput * 1e6)
    }
}

/// Throughput in a part of a run: a twentieth of the time, or several answer times if that is
/// longer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// Valid requests per second.
    pub request_throughput: f64,
    /// Tokens of valid answers per second, or their items.
    pub output_throughput: f64,
    /// Requests per second that met all limits of `goodput`.
    pub goodput: f64,
    /// Those as a percentage of all requests.
    pub goodput_ratio: f64,
}

impl LoadStats {
    /// Returns the statistics of `spans`; `None` if there are none.
    pub fn of(requests: &RequestSpans, busy: Option<f64>) -> Option<Self> {
        Self::in_window(requests, busy, None)
    }

    /// Returns the statistics of the `window` of a load, or of all of it; `None` if no request
    /// started then. A request that is only partly in the window counts for the throughput by that
    /// part of its time.
    pub fn in_window(
        requests: &RequestSpans,
        busy: Option<f64>,
        window: Option<Window>,
    ) -> Option<Self> {
        let extent = Extent::of(requests, window)?;
        // Each figure reads the list once more, so that a long one is never in memory.
        let spans = || requests.iter().filter(|span| extent.holds(span));
        let sum = |of: fn(&RequestSpan) -> f64| -> f64 {
            requests.iter().map(|span| of(&span) * extent.share_of(&span)).sum()
        };
        let (starting, seconds) = (extent.starting(), extent.seconds());
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let started = spans().count();
        let valid = spans().filter(|span| span.tokens.is_some()).count();
        let refused = requests.refused;
        let is_open = spans().any(|span| span.scheduled.is_some());
        let peak = peak(requests.iter().filter(|span| extent.touches(span)));
        let request_throughput = per_second(sum(|span| f64::from(u8::from(span.tokens.is_some()))));
        let output_throughput = per_second(sum(|span| span.tokens.unwrap_or_default() as f64));
        let goodput = per_second(sum(|span| f64::from(u8::from(span.is_good == Some(true)))));
        let good = spans().filter(|span| span.is_good == Some(true)).count() as f64;
        let has_limits = spans().any(|span| span.is_good.is_some());
        let goodput_ratio = 100.0 * good / started as f64;
        let all = Batch { request_throughput, output_throughput, goodput, goodput_ratio };
        Some(Self {
            requests: started,
            valid,
            seconds,
            // From first to last start: afterwards the load drains and the concurrency
            // falls.
            concurrency: match starting > 0.0 {
                true => seconds_in_flight(requests.iter(), &extent) / starting,
                false => peak as f64,
            },
            peak,
            request_rate: (is_open && starting > 0.0)
                .then(|| extent.gaps(started) as f64 / starting),
            request_throughput,
            output_throughput: (refused.is_none() && !requests.has_items)
                .then_some(output_throughput),
            item_throughput: requests.has_items.then_some(output_throughput),
            goodput: has_limits.then_some(goodput),
            goodput_ratio: has_limits.then_some(goodput_ratio),
            refused,
            batches: batches(&|| requests.iter(), &extent, all),
            lateness: p99(late(spans())),
            mean_lateness: Statistic::Mean.of(&late(spans())).ok(),
            busy,
            cache: None,
            capacity: None,
            part: None,
            first_start: extent.first,
            machine: ServerMachine::default(),
            server: None,
            energy: None,
        })
    }

    /// Returns the throughput of a GPU, in tokens per second.
    pub fn output_throughput_per_gpu(&self) -> Option<f64> {
        Some(self.output_throughput? / self.machine.gpus? as f64)
    }

    /// Returns the cost of a million output tokens; `None` also if there were none.
    pub fn cost_per_million_output_tokens(&self) -> Option<f64> {
        self.machine.cost_of_million(self.output_throughput?)
    }

    /// Returns the energy in joules.
    pub fn joules(&self) -> Option<f64> {
        Some(self.energy.as_ref()?.as_ref().ok()?.joules)
    }

    /// Returns the energy of an output token, in joules; `None` also if there were none.
    pub fn joules_per_output_token(&self) -> Option<f64> {
        let tokens = self.output_throughput? * self.seconds;
        Some(self.joules()? / tokens).filter(|_| tokens > 0.0)
    }

    /// Returns why the run did not reach the requested load, if so. Its figures then do not
    /// describe the server. `ttft` are the times to the first token of an open loop, in seconds.
    pub fn shortfall(&self, shape: &Shape, until: &Until, ttft: &[f64]) -> Option<Shortfall> {
        // Checked first, because a busy client explains every other shortfall.
        if let Some(busy) = self.busy.filter(|busy| *busy > MAX_BUSY) {
            return Some(Shortfall::Busy(busy));
        }
        match *shape {
            Shape::Closed { concurrency } => {
                // A load of fewer requests than its concurrency cannot reach the concurrency.
                let asked = until.requests.map_or(concurrency, |most| most.min(concurrency));
                // If all requests start at once, the mean counts answers of different lengths; the
                // peak shows that the load was reached.
                let reached = self.concurrency.max(if self.requests <= asked {
                    self.peak as f64
                } else {
                    0.0
                });
                (reached < MIN_CONCURRENCY_SHARE * asked as f64)
                    .then_some(Shortfall::Concurrency { reached, asked })
            }
            Shape::Open { max_in_flight, .. } => {
                let p99 = self.lateness.filter(|lateness| *lateness > NEGLIGIBLE_LATENESS)?;
                if self.peak >= max_in_flight {
                    return Some(Shortfall::MaxInFlight { p99, max_in_flight });
                }
                let share = self.share_of_lateness(ttft);
                (share > 1.0).then_some(Shortfall::Late { p99, mean: self.mean_lateness? })
            }
        }
    }

    /// Returns the lateness as a multiple of what is harmless. It is a part of each time that counts
    /// from the scheduled start, and the client's, not the server's.
    fn share_of_lateness(&self, ttft: &[f64]) -> f64 {
        let of = |lateness: Option<f64>, figure: Option<f64>, most: f64| match (lateness, figure) {
            (Some(lateness), Some(figure)) if figure > 0.0 => lateness / (most * figure),
            (Some(lateness), _) if lateness > 0.0 => f64::INFINITY,
            _ => 0.0,
        };
        let mean = Statistic::Mean.of(ttft).ok();
        let of_mean = of(self.mean_lateness, mean, MAX_MEAN_LATENESS);
        of_mean.max(of(self.lateness, p99(ttft.to_vec()), MAX_P99_LATENESS))
    }
}

/// Why a run did not reach the requested load.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Shortfall {
    /// The receiving thread had no time to spare.
    #[error(
        "this machine was too slow for it: the receiving thread was busy {:.0} % of the time",
        .0 * 100.0
    )]
    Busy(f64),
    /// Fewer requests were in flight.
    #[error("{reached:.1} requests were in flight on average, not {asked}")]
    Concurrency {
        /// The mean.
        reached: f64,
        /// The number that was asked for.
        asked: usize,
    },
    /// Requests waited for `max_in_flight`.
    #[error(
        "requests started {:.1} ms late, because `max_in_flight` ({max_in_flight}) were in flight: \
         the server is slower than the rate, or the limit too low",
        p99 * 1e3
    )]
    MaxInFlight {
        /// The lateness of starts, 99th percentile, in seconds.
        p99: f64,
        /// The limit.
        max_in_flight: usize,
    },
    /// The client started requests late, which is a considerable part of their times.
    #[error(
        "requests started {:.1} ms late on average and {:.1} ms at the 99th percentile, more than \
         5 % of the mean or 25 % of the 99th percentile of `ttft`: this machine was too slow or busy",
        mean * 1e3, p99 * 1e3
    )]
    Late {
        /// The 99th percentile, in seconds.
        p99: f64,
        /// The mean, in seconds.
        mean: f64,
    },
}

/// Splits the run into batches of equal length, for the method of batch means (Schmeiser 1982).
///
/// Throughput is one number per run, so its error must come from within the run. Successive answers
/// are correlated, because they share the server's queue, and an interval that treats them as
/// independent is too narrow. Means over long batches are nearly independent. Two measures keep
/// them so. An answer's tokens are spread evenly over its duration, so that it does not matter on
/// which side of a border the answer ends. And a batch lasts several (`MIN_ANSWER_TIMES`) mean answer times, so
/// that few answers cross its borders. A run too short for that gets fewer batches, whose larger
/// Student's t makes the interval wider.
///
/// The batches end with the last start. After it the load drains, which says nothing about the
/// server. They are rescaled to the mean of the whole run (`all`), so that the interval is centred
/// on the reported figure.
fn batches<I: Iterator<Item = RequestSpan> + Clone>(
    spans: &impl Fn() -> I,
    extent: &Extent,
    all: Batch,
) -> Vec<Batch> {
    // 20 batches for a long run. Fewer if a batch would be shorter than `MIN_ANSWER_TIMES` mean
    // answer times, but at least `MIN_BATCHES` unless even those are shorter than one answer.
    const MAX_BATCHES: f64 = 20.0;
    const MIN_BATCHES: f64 = 5.0;
    const MIN_ANSWER_TIMES: f64 = 4.0;
    let timed = spans().filter_map(|span| {
        let since = |at: Duration| at.as_secs_f64() - extent.first.as_secs_f64();
        let (begun, ended) = (since(span.begun), since(span.ended));
        (ended > begun && extent.touches(&span)).then_some((begun, ended, span))
    });
    let answers = timed.clone().filter(|(_, _, span)| span.tokens.is_some());
    let taken: f64 = answers.clone().map(|(begun, ended, _)| ended - begun).sum();
    let seconds = extent.starting();
    let rounds = seconds / (taken / answers.count() as f64);
    let count = (rounds / MIN_ANSWER_TIMES).clamp(rounds.min(MIN_BATCHES), MAX_BATCHES) as usize;
    let length = seconds / count as f64;
    let mut parts = vec![BatchParts::default(); count];
    for (begun, ended, span) in timed {
        let (from, to) = ((begun / length) as usize, (ended / length).ceil() as usize);
        for (nth, batch) in parts.iter_mut().enumerate().take(to).skip(from) {
            let start = nth as f64 * length;
            let part = (ended.min(start + length) - begun.max(start)).max(0.0) / (ended - begun);
            batch.add(part, &span);
        }
    }
    // The end of a whole run is random too, since it is the end of the last answer. The largest of
    // about ten normal values has 0.6 times their standard deviation.
    let durations: Vec<_> = spans().map(|s| (s.ended - s.begun).as_secs_f64()).collect();
    let end = match extent.window {
        None => 0.6 * Statistic::Sd.of(&durations).unwrap_or_default() / extent.seconds(),
        Some(_) => 0.0,
    };
    let of = |read: fn(&BatchParts) -> f64, all: f64, end: f64| {
        rescaled(parts.iter().map(read).collect(), all, end)
    };
    let requests = of(|batch| batch.valid, all.request_throughput, end);
    let tokens = of(|batch| batch.tokens, all.output_throughput, end);
    let good = of(|batch| batch.good, all.goodput, end);
    // A share does not depend on the length of the run.
    let shares = of(BatchParts::share, all.goodput_ratio, 0.0);
    let rates = requests.into_iter().zip(tokens).zip(good.into_iter().zip(shares));
    rates
        .map(|((request_throughput, output_throughput), (goodput, goodput_ratio))| Batch {
            request_throughput,
            output_throughput,
            goodput,
            goodput_ratio,
        })
        .collect()
}

/// The parts of requests that are in a batch.
#[derive(Debug, Clone, Copy, Default)]
struct BatchParts {
    all: f64,
    valid: f64,
    tokens: f64,
    good: f64,
}

impl BatchParts {
    fn add(&mut self, part: f64, span: &RequestSpan) {
        self.all += part;
        if let Some(tokens) = span.tokens {
            self.valid += part;
            self.tokens += part * tokens as f64;
        }
        if span.is_good == Some(true) {
            self.good += part;
        }
    }

    /// The good requests as a share of all.
    fn share(&self) -> f64 {
        if self.all > 0.0 { self.good / self.all } else { 0.0 }
    }
}

/// Rescales `values` to mean `mean` and widens their spread so that the standard error also covers
/// the relative end effect `end`.
fn rescaled(values: Vec<f64>, mean: f64, end: f64) -> Vec<f64> {
    let theirs = Statistic::Mean.of(&values).unwrap_or_default();
    let spread = Statistic::Sd.of(&values).unwrap_or_default();
    if theirs <= 0.0 || spread <= 0.0 {
        return vec![mean; values.len()];
    }
    let error = spread / theirs / (values.len() as f64).sqrt();
    let wider = error.hypot(end) / error;
    // A batch without any answer cannot have less than none.
    let value = |value: &f64| mean * (1.0 + wider * (value / theirs - 1.0));
    values.iter().map(|of| value(of).max(0.0)).collect()
}

/// Returns the request-seconds in flight up to the last start.
fn seconds_in_flight(spans: impl Iterator<Item = RequestSpan>, extent: &Extent) -> f64 {
    spans.map(|span| extent.overlap(&span, extent.last_start)).sum()
}

/// Returns the largest number of requests in flight.
fn peak(spans: impl Iterator<Item = RequestSpan> + Clone) -> usize {
    let nanos = |time: Duration| time.as_nanos() as u64;
    let mut begun: Vec<_> = spans.clone().map(|span| nanos(span.begun)).collect();
    let mut ended: Vec<_> = spans.map(|span| nanos(span.ended)).collect();
    begun.sort_unstable();
    ended.sort_unstable();
    let mut over = 0;
    let in_flight = begun.iter().enumerate().map(|(nth, start)| {
        // A request that ends as another one starts makes room for it.
        while ended.get(over).is_some_and(|end| end <= start) {
            over += 1;
        }
        nth + 1 - over.min(nth + 1)
    });
    in_flight.max().unwrap_or(0)
}

/// The lateness of each start, in seconds.
fn late(spans: impl Iterator<Item = RequestSpan>) -> Vec<f64> {
    spans
        .filter_map(|span| Some(span.begun.saturating_sub(span.scheduled?).as_secs_f64()))
        .collect()
}

/// The 99th percentile, or the largest of few values.
fn p99(values: Vec<f64>) -> Option<f64> {
    Statistic::Percentile(99.0).of(&values).or_else(|_| Statistic::Max.of(&values)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{ArrivalProcess, Gaps};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn span(scheduled: Option<u64>, begun: u64, ended: u64, tokens: Option<u64>) -> RequestSpan {
        RequestSpan {
            scheduled: scheduled.map(ms),
            begun: ms(begun),
            ended: ms(ended),
            tokens,
            has_items: false,
            refused: None,
            is_good: None,
        }
    }

    fn stats(spans: &[RequestSpan], busy: Option<f64>) -> Option<LoadStats> {
        LoadStats::of(&spans.iter().copied().collect(), busy)
    }

    const UNTIL: Until = Until { requests: Some(6), duration: None };

    #[test]
    fn two_at_a_time() {
        let spans: Vec<_> = (0..3)
            .flat_map(|nth| [0, 50].map(|shift| (shift + nth * 100, shift + (nth + 1) * 100)))
            .map(|(begun, ended)| span(None, begun, ended, Some(10)))
            .collect();
        let reached = stats(&spans, Some(0.1)).unwrap();
        assert_eq!((reached.requests, reached.valid, reached.peak), (6, 6, 2));
        // One request in flight from 0 to 50 ms, two from 50 to 250 ms.
        assert!((reached.concurrency - 450.0 / 250.0).abs() < 1e-9);
        assert_eq!(reached.seconds, 0.35);
        assert!((reached.output_throughput.unwrap() - 60.0 / 0.35).abs() < 1e-9);
        assert!((reached.request_throughput - 6.0 / 0.35).abs() < 1e-9);
        assert_eq!(reached.request_rate, None);
        let asked = |concurrency| {
            let shortfall = reached.shortfall(&Shape::Closed { concurrency }, &UNTIL, &[]);
            shortfall.map(|of| of.to_string())
        };
        assert_eq!(asked(1), None);
        assert_eq!(asked(2).as_deref(), Some("1.8 requests were in flight on average, not 2"),);
    }

    #[test]
    fn a_load_of_one_round_has_its_peak() {
        let spans = [span(None, 0, 100, Some(1)), span(None, 0, 90, None)];
        let reached = stats(&spans, None).unwrap();
        assert_eq!((reached.valid, reached.concurrency), (1, 2.0));
        assert_eq!(reached.request_rate, None);
        let until = Until { requests: Some(2), duration: None };
        assert_eq!(reached.shortfall(&Shape::Closed { concurrency: 64 }, &until, &[]), None);
    }

    #[test]
    fn an_open_loop_must_keep_its_times() {
        let arrivals = ArrivalProcess { rate: 10.0, gaps: Gaps::Constant, seed: 0 };
        let open = |max_in_flight| Shape::Open { arrivals, max_in_flight };
        let late = |late: u64| {
            let spans: Vec<_> = (0..5)
                .map(|nth| span(Some(nth * 100), nth * 100 + late, nth * 100 + 150, Some(1)))
                .collect();
            stats(&spans, None).unwrap()
        };
        let shortfall = |of: &LoadStats, max, ttft: f64| {
            of.shortfall(&open(max), &UNTIL, &[ttft; 5]).map(|of| of.to_string())
        };
        // 11 ms are much of 100 ms and little of 300 ms; below 1 ms they are nothing.
        assert_eq!(shortfall(&late(11), 500, 0.3), None);
        assert_eq!(shortfall(&late(1), 500, 0.001), None);
        let of_fast = shortfall(&late(11), 500, 0.1).unwrap();
        assert!(of_fast.starts_with("requests started 11.0 ms late on average"), "{of_fast}");
        assert!(shortfall(&late(11), 500, f64::NAN).is_some());
        let limited = shortfall(&late(11), 2, 0.3).unwrap();
        assert!(limited.contains("`max_in_flight` (2) were in flight"));
        let busy = LoadStats { busy: Some(0.95), ..late(0) };
        assert!(shortfall(&busy, 500, 0.3).unwrap().contains("busy 95 %"));
    }

    #[test]
    fn a_last_request_that_fails_by_waiting_is_not_waited_for() {
        let answers = (0..10).map(|nth| span(None, nth * 10, nth * 10 + 10, Some(5)));
        let stalled = span(None, 95, 3_000, None);
        let reached = stats(&answers.chain([stalled]).collect::<Vec<_>>(), None).unwrap();
        assert_eq!((reached.valid, reached.seconds), (10, 0.1));
        // The load continues although the server is gone.
        let gone = [span(None, 0, 10, Some(5)), span(None, 10, 11, None), span(None, 90, 91, None)];
        assert_eq!(stats(&gone, None).unwrap().seconds, 0.09);
    }

    #[test]
    fn pieces_of_a_run_have_its_mean_and_hold_its_truth() {
        use crate::interval::{self, CONFIDENCE, StratifiedSample};
        use rand::SeedableRng;
        use rand_distr::{Distribution, Normal};

        let noise: Normal<f64> = Normal::new(1.0, 0.2).unwrap();
        // Eight requests in flight, with answers of about 100 ms and 50 tokens.
        let run = |requests: u32, random: &mut rand_pcg::Pcg64Mcg| {
            let mut free = [0.0_f64; 8];
            let mut answer = || {
                let place = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
                let begun = *place;
                *place += 0.1 * noise.sample(random).max(0.2);
                let at = Duration::from_secs_f64;
                let (begun, ended) = (at(begun), at(*place));
                RequestSpan {
                    scheduled: None,
                    begun,
                    ended,
                    tokens: Some(50),
                    has_items: false,
                    refused: None,
                    is_good: None,
                }
            };
            stats(&(0..requests).map(|_| answer()).collect::<Vec<_>>(), None).unwrap()
        };
        // The widest acceptable half-width. The optimum is that of a mean with a 20 % standard
        // deviation.
        for (requests, widest) in [(64, 0.09), (200, 0.05), (2_000, 0.015)] {
            let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(1);
            let runs: Vec<_> = (0..600).map(|_| run(requests, &mut random)).collect();
            let truth = runs.iter().filter_map(|run| run.output_throughput).sum::<f64>() / 600.0;
            let (mut held, mut width) = (0, 0.0);
            for run in &runs {
                let values: Vec<_> =
                    run.batches.iter().map(|batch| batch.output_throughput).collect();
                let mean = Statistic::Mean.of(&values).unwrap();
                assert!((mean / run.output_throughput.unwrap() - 1.0).abs() < 1e-9, "{mean}");
                let sampled = StratifiedSample { values: &values, strata: &[] };
                let interval = interval::of(Statistic::Mean, sampled, CONFIDENCE).unwrap().unwrap();
                held += usize::from(interval.holds(truth));
                width += (interval.high - interval.low) / 2.0 / truth / 600.0;
            }
            let covered = f64::from(u32::try_from(held).unwrap()) / 6.0;
            assert!((92.0..=99.0).contains(&covered), "{requests}: {covered} %, {width}");
            assert!(width < widest, "{requests}: {width}");
        }
    }

    #[test]
    fn a_load_without_requests_has_no_statistics() {
        assert_eq!(stats(&[], None), None);
    }
}
