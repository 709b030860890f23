//! What came of a load: how much of it was really offered, and what the server made of it. Pure.

use std::time::Duration;

use crate::{
    sample::Note,
    schedule::{Shape, Until},
    statistic::Statistic,
};

/// Least part of the concurrency asked for that must have been under way.
const LEAST_CONCURRENCY: f64 = 0.95;

/// Most that starts may be late by this program's fault, as a part of the mean gap between them
/// (99th percentile).
const LATEST: f64 = 0.1;

/// Lateness that is none, however short the gap.
const LATENESS: f64 = 1e-3;

/// Busiest that the receiving thread may be: beyond it, requests were sent when it had time.
const BUSIEST: f64 = 0.9;

/// One request of a load. All times count from the load's start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestSpan {
    /// When it was due, in an open loop.
    pub scheduled: Option<Duration>,
    /// When it was begun: a connection taken, or the opening of one.
    pub begun: Duration,
    /// When its answer ended, or failed.
    pub ended: Duration,
    /// Tokens generated, of a valid answer.
    pub tokens: Option<u64>,
    /// Why the count is refused.
    pub refused: Option<Note>,
}

/// What a run of a load reached.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadStats {
    /// Requests that ended.
    pub requests: usize,
    /// Valid answers among them.
    pub valid: usize,
    /// From the first request's start to the last valid answer's end or, where it is later, the last
    /// start: a last request that fails by waiting is no part of the load. Seconds.
    pub seconds: f64,
    /// Requests under way, on average from the first start to the last.
    pub concurrency: f64,
    /// Most requests under way.
    pub peak: usize,
    /// Starts a second, where there were several; in an open loop. In a closed one the first requests
    /// start together and the others follow from the answers: `request_throughput` says more.
    pub request_rate: Option<f64>,
    /// Valid requests a second.
    pub request_throughput: f64,
    /// Tokens of valid answers a second; `None` where one of their counts is
    /// [`refused`](Self::refused).
    pub output_throughput: Option<f64>,
    /// Why tokens a second are not known.
    pub refused: Option<Note>,
    /// The same of pieces of the run that follow one another, as its replicates.
    pub batches: Vec<Batch>,
    /// How late requests were begun, 99th percentile (of fewer than 100 the largest), seconds; in
    /// an open loop.
    pub lateness: Option<f64>,
    /// The share of the time in which the receiving thread was busy, where that is known.
    pub busy: Option<f64>,
}

/// A piece of a run: a twentieth of its time, or at least as much as an answer takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// Valid requests a second.
    pub request_throughput: f64,
    /// Tokens of valid answers a second.
    pub output_throughput: f64,
}

impl LoadStats {
    /// What `spans` say together; `None` when there are none.
    pub fn of(spans: &[RequestSpan], busy: Option<f64>) -> Option<Self> {
        let first = spans.iter().map(|span| span.begun).min()?;
        let last_start = spans.iter().map(|span| span.begun).max()?;
        let answers = spans.iter().filter(|span| span.tokens.is_some());
        let end =
            answers.map(|span| span.ended).max().map_or(last_start, |end| end.max(last_start));
        let starting = (last_start - first).as_secs_f64();
        let seconds = (end - first).as_secs_f64();
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let tokens: u64 = spans.iter().filter_map(|span| span.tokens).sum();
        let valid = spans.iter().filter(|span| span.tokens.is_some()).count();
        let refused = spans.iter().find_map(|span| span.refused);
        let is_open = spans.iter().any(|span| span.scheduled.is_some());
        let peak = peak(spans);
        let request_throughput = per_second(valid as f64);
        let output_throughput = per_second(tokens as f64);
        let all = Batch { request_throughput, output_throughput };
        Some(Self {
            requests: spans.len(),
            valid,
            seconds,
            concurrency: match starting > 0.0 {
                true => under_way(spans, last_start) / starting,
                false => peak as f64,
            },
            peak,
            request_rate: (is_open && starting > 0.0).then(|| (spans.len() - 1) as f64 / starting),
            request_throughput,
            output_throughput: refused.is_none().then_some(output_throughput),
            refused,
            batches: batches(spans, (first, last_start, seconds), all),
            lateness: lateness(spans),
            busy,
        })
    }

    /// Why this is not the load that was asked for, if it is not: its figures then say nothing of
    /// the server.
    pub fn shortfall(&self, shape: &Shape, until: &Until) -> Option<String> {
        if let Some(busy) = self.busy.filter(|busy| *busy > BUSIEST) {
            return Some(format!(
                "this machine was too slow for it: the receiving thread was busy {:.0} % of the \
                 time",
                busy * 100.0
            ));
        }
        match *shape {
            Shape::Closed { concurrency } => {
                let asked = until.requests.map_or(concurrency, |most| most.min(concurrency));
                let reached = self.concurrency.max(if self.requests <= asked {
                    self.peak as f64
                } else {
                    0.0
                });
                (reached < LEAST_CONCURRENCY * asked as f64).then(|| {
                    format!("{reached:.1} requests were under way on average, not {asked}")
                })
            }
            Shape::Open { arrivals, max_in_flight } => {
                let most = (LATEST / arrivals.rate).max(LATENESS);
                let late = self.lateness.filter(|lateness| *lateness > most)?;
                let late = format!("requests were begun {:.1} ms late", late * 1e3);
                Some(match self.peak >= max_in_flight {
                    true => format!(
                        "{late}, since `max_in_flight` ({max_in_flight}) were under way: the \
                         server is slower than the rate, or the limit too low"
                    ),
                    false => format!(
                        "{late} (99th percentile), more than a tenth of the mean gap between them"
                    ),
                })
            }
        }
    }
}

/// The run in pieces of equal time: batch means (Schmeiser 1982). Up to the last start, since after
/// it places fall empty for no reason of the server's; their mean is made that of `all` the run. An
/// answer's tokens are spread over the time that it took, as they came, so that it makes no
/// difference on which side of a border it ended.
fn batches(
    spans: &[RequestSpan],
    (first, end, whole): (Duration, Duration, f64),
    all: Batch,
) -> Vec<Batch> {
    // Neighbours share the answers that lie across their border: they are to be few of a piece's
    // answers. Where a run is too short for that, few pieces, whose Student's t is wide, make up.
    const MOST: f64 = 20.0;
    const FEW: f64 = 5.0;
    const LONG: f64 = 4.0;
    let answers: Vec<_> = spans
        .iter()
        .filter_map(|span| {
            let since = |at: Duration| at.saturating_sub(first).as_secs_f64();
            let (begun, ended) = (since(span.begun), since(span.ended));
            (ended > begun).then_some((begun, ended, span.tokens? as f64))
        })
        .collect();
    let taken: f64 = answers.iter().map(|(begun, ended, _)| ended - begun).sum();
    let seconds = (end - first).as_secs_f64();
    let rounds = seconds / (taken / answers.len() as f64);
    let pieces = (rounds / LONG).clamp(rounds.min(FEW), MOST) as usize;
    let length = seconds / pieces as f64;
    let mut batches = vec![Batch { request_throughput: 0.0, output_throughput: 0.0 }; pieces];
    for (begun, ended, tokens) in answers {
        let (from, to) = ((begun / length) as usize, (ended / length).ceil() as usize);
        for (nth, batch) in batches.iter_mut().enumerate().take(to).skip(from) {
            let start = nth as f64 * length;
            let part = (ended.min(start + length) - begun.max(start)).max(0.0) / (ended - begun);
            batch.request_throughput += part;
            batch.output_throughput += part * tokens;
        }
    }
    // When the last answer ended is a chance as well: the largest of ten normal values varies 0.6
    // times as they do.
    let durations: Vec<_> = spans.iter().map(|s| (s.ended - s.begun).as_secs_f64()).collect();
    let end = 0.6 * Statistic::Sd.of(&durations).unwrap_or_default() / whole;
    let requests: Vec<_> = batches.iter().map(|batch| batch.request_throughput).collect();
    let tokens: Vec<_> = batches.iter().map(|batch| batch.output_throughput).collect();
    let requests = around(requests, all.request_throughput, end);
    let tokens = around(tokens, all.output_throughput, end);
    let batch =
        |(request_throughput, output_throughput)| Batch { request_throughput, output_throughput };
    requests.into_iter().zip(tokens).map(batch).collect()
}

/// `values` in proportion, so that their mean is `mean`, and so far from it that the error of that
/// has `end` in it, a relative one of its own.
fn around(values: Vec<f64>, mean: f64, end: f64) -> Vec<f64> {
    let theirs = Statistic::Mean.of(&values).unwrap_or_default();
    let spread = Statistic::Sd.of(&values).unwrap_or_default();
    if theirs <= 0.0 || spread <= 0.0 {
        return vec![mean; values.len()];
    }
    let error = spread / theirs / (values.len() as f64).sqrt();
    let wider = error.hypot(end) / error;
    values.iter().map(|value| mean * (1.0 + wider * (value / theirs - 1.0))).collect()
}

/// Seconds that requests spent under way before `end`, all together.
fn under_way(spans: &[RequestSpan], end: Duration) -> f64 {
    let before = |span: &RequestSpan| span.ended.min(end).saturating_sub(span.begun).as_secs_f64();
    spans.iter().map(before).sum()
}

/// Most requests under way at once.
fn peak(spans: &[RequestSpan]) -> usize {
    let mut begun: Vec<_> = spans.iter().map(|span| span.begun).collect();
    let mut ended: Vec<_> = spans.iter().map(|span| span.ended).collect();
    begun.sort_unstable();
    ended.sort_unstable();
    let mut over = 0;
    let under_way = begun.iter().enumerate().map(|(nth, start)| {
        // One that ends as another starts has made room for it.
        while ended.get(over).is_some_and(|end| end <= start) {
            over += 1;
        }
        nth + 1 - over.min(nth + 1)
    });
    under_way.max().unwrap_or(0)
}

fn lateness(spans: &[RequestSpan]) -> Option<f64> {
    let late: Vec<_> = spans
        .iter()
        .filter_map(|span| Some(span.begun.saturating_sub(span.scheduled?).as_secs_f64()))
        .collect();
    Statistic::Percentile(99.0).of(&late).or_else(|_| Statistic::Max.of(&late)).ok()
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
            refused: None,
        }
    }

    const UNTIL: Until = Until { requests: Some(6), duration: None };

    #[test]
    fn two_at_a_time() {
        let spans: Vec<_> = (0..3)
            .flat_map(|nth| [0, 50].map(|shift| (shift + nth * 100, shift + (nth + 1) * 100)))
            .map(|(begun, ended)| span(None, begun, ended, Some(10)))
            .collect();
        let reached = LoadStats::of(&spans, Some(0.1)).unwrap();
        assert_eq!((reached.requests, reached.valid, reached.peak), (6, 6, 2));
        // 0 to 50 ms one, 50 to 250 ms two.
        assert!((reached.concurrency - 450.0 / 250.0).abs() < 1e-9);
        assert_eq!(reached.seconds, 0.35);
        assert!((reached.output_throughput.unwrap() - 60.0 / 0.35).abs() < 1e-9);
        assert!((reached.request_throughput - 6.0 / 0.35).abs() < 1e-9);
        assert_eq!(reached.request_rate, None);
        let asked = |concurrency| reached.shortfall(&Shape::Closed { concurrency }, &UNTIL);
        assert_eq!(asked(1), None);
        assert_eq!(asked(2).as_deref(), Some("1.8 requests were under way on average, not 2"),);
    }

    #[test]
    fn a_load_of_one_round_has_its_peak() {
        let spans = [span(None, 0, 100, Some(1)), span(None, 0, 90, None)];
        let reached = LoadStats::of(&spans, None).unwrap();
        assert_eq!((reached.valid, reached.concurrency), (1, 2.0));
        assert_eq!(reached.request_rate, None);
        let until = Until { requests: Some(2), duration: None };
        assert_eq!(reached.shortfall(&Shape::Closed { concurrency: 64 }, &until), None);
    }

    #[test]
    fn an_open_loop_must_keep_its_times() {
        let arrivals = ArrivalProcess { rate: 10.0, gaps: Gaps::Constant, seed: 0 };
        let open = |max_in_flight| Shape::Open { arrivals, max_in_flight };
        let late = |late: u64| {
            let spans: Vec<_> = (0..5)
                .map(|nth| span(Some(nth * 100), nth * 100 + late, nth * 100 + 150, Some(1)))
                .collect();
            LoadStats::of(&spans, None).unwrap()
        };
        assert_eq!(late(9).shortfall(&open(500), &UNTIL), None);
        let told = |max| late(11).shortfall(&open(max), &UNTIL).unwrap();
        assert!(told(500).starts_with("requests were begun 11.0 ms late (99th percentile)"));
        assert!(told(2).contains("`max_in_flight` (2) were under way"));
        let busy = LoadStats { busy: Some(0.95), ..late(0) };
        assert!(busy.shortfall(&open(500), &UNTIL).unwrap().contains("busy 95 %"));
    }

    #[test]
    fn a_last_request_that_fails_by_waiting_is_not_waited_for() {
        let answers = (0..10).map(|nth| span(None, nth * 10, nth * 10 + 10, Some(5)));
        let stalled = span(None, 95, 3_000, None);
        let reached = LoadStats::of(&answers.chain([stalled]).collect::<Vec<_>>(), None).unwrap();
        assert_eq!((reached.valid, reached.seconds), (10, 0.1));
        // A server that is gone is asked all the same.
        let gone = [span(None, 0, 10, Some(5)), span(None, 10, 11, None), span(None, 90, 91, None)];
        assert_eq!(LoadStats::of(&gone, None).unwrap().seconds, 0.09);
    }

    #[test]
    fn pieces_of_a_run_have_its_mean_and_hold_its_truth() {
        use crate::interval::{self, CONFIDENCE, StratifiedSample};
        use rand::SeedableRng;
        use rand_distr::{Distribution, Normal};

        let noise: Normal<f64> = Normal::new(1.0, 0.2).unwrap();
        // Eight places, answers of about 100 ms and 50 tokens.
        let run = |requests: u32, random: &mut rand_pcg::Pcg64Mcg| {
            let mut free = [0.0_f64; 8];
            let mut answer = || {
                let place = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
                let begun = *place;
                *place += 0.1 * noise.sample(random).max(0.2);
                let at = Duration::from_secs_f64;
                let (begun, ended) = (at(begun), at(*place));
                RequestSpan { scheduled: None, begun, ended, tokens: Some(50), refused: None }
            };
            LoadStats::of(&(0..requests).map(|_| answer()).collect::<Vec<_>>(), None).unwrap()
        };
        // With the half of the width that it may have: at best it is that of a mean with 20 %.
        for (requests, widest) in [(64, 0.09), (200, 0.04), (2_000, 0.012)] {
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
            assert!((92.0..=98.0).contains(&covered), "{requests}: {covered} %, {width}");
            assert!(width < widest, "{requests}: {width}");
        }
    }

    #[test]
    fn no_request_is_no_load() {
        assert_eq!(LoadStats::of(&[], None), None);
    }
}
