//! Reads Prometheus metrics each second while a trial runs, on its own thread: the thread that
//! receives answers and takes timestamps never waits for it.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::now;
use crate::{AnswerObserver, MetricsFetcher};

/// The time between two reads.
const INTERVAL: Duration = Duration::from_secs(1);

/// One read.
#[derive(Debug, Clone)]
pub struct MetricsReading<T> {
    /// The middle between the request and the end of its answer.
    pub at: Instant,
    /// The time between these two.
    pub took: Duration,
    /// What was read, or why nothing was.
    pub value: Result<T, String>,
}

/// When to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplingTimes {
    /// At once, each second, and once at the end.
    WithEnds,
    /// Each second, from a second after the start. A trial that is shorter is not disturbed.
    EachSecond,
}

/// Ends the sampling; clones share it.
#[derive(Debug, Clone, Default)]
struct SamplingEnd(Arc<(Mutex<bool>, Condvar)>);

impl SamplingEnd {
    fn end(&self) {
        let (is_over, changed) = &*self.0;
        *is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    fn is_over(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `due`; whether the sampling has ended.
    fn wait_until(&self, due: Instant) -> bool {
        let (is_over, changed) = &*self.0;
        let over = is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = due.saturating_duration_since(now());
        let waited = changed.wait_timeout_while(over, rest, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A thread that reads metrics until it is ended or dropped.
#[derive(Debug)]
pub struct MetricsSampler<T> {
    ended: SamplingEnd,
    thread: Option<JoinHandle<Vec<MetricsReading<T>>>>,
}

impl<T: Send + 'static> MetricsSampler<T> {
    /// Starts to read `fetcher`, whose text `parse` reads. If the thread cannot be started, there are
    /// no readings.
    pub fn start(
        fetcher: Arc<MetricsFetcher>,
        times: SamplingTimes,
        parse: impl Fn(&str) -> Result<T, String> + Send + 'static,
        observer: impl AnswerObserver + Clone + Send + 'static,
    ) -> Self {
        let ended = SamplingEnd::default();
        let sampling = Sampling { fetcher, parse, observer, ended: ended.clone() };
        let thread = thread::Builder::new().name("metrics".into());
        let thread = thread.spawn(move || sampling.run(times)).ok();
        Self { ended, thread }
    }

    /// Ends the sampling and returns the readings. It takes as long as the last read of
    /// [`SamplingTimes::WithEnds`].
    pub fn end(mut self) -> Vec<MetricsReading<T>> {
        self.ended.end();
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

/// The thread ends by itself.
impl<T> Drop for MetricsSampler<T> {
    fn drop(&mut self) {
        self.ended.end();
    }
}

/// What the thread needs.
struct Sampling<P, O> {
    fetcher: Arc<MetricsFetcher>,
    parse: P,
    observer: O,
    ended: SamplingEnd,
}

/// Gives up a read when the sampling ends or the run is cancelled.
struct UntilEnd<'a, O>(&'a O, &'a SamplingEnd);

impl<O: AnswerObserver> AnswerObserver for UntilEnd<'_, O> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled() || self.1.is_over()
    }
}

impl<P, O: AnswerObserver> Sampling<P, O> {
    fn run<T>(&self, times: SamplingTimes) -> Vec<MetricsReading<T>>
    where
        P: Fn(&str) -> Result<T, String>,
    {
        let mut readings = Vec::new();
        let has_ends = times == SamplingTimes::WithEnds;
        let mut due = if has_ends { now() } else { now() + INTERVAL };
        while !self.ended.wait_until(due) && !self.observer.is_cancelled() {
            readings.extend(self.read(&UntilEnd(&self.observer, &self.ended)));
            // A slow read does not make the next ones follow each other closely.
            while due <= now() {
                due += INTERVAL;
            }
        }
        if has_ends {
            readings.extend(self.read(&self.observer));
        }
        readings
    }

    /// Reads once; `None` if that was given up.
    fn read<T>(&self, observer: &dyn AnswerObserver) -> Option<MetricsReading<T>>
    where
        P: Fn(&str) -> Result<T, String>,
    {
        let begun = now();
        let text = self.fetcher.read(observer)?;
        let took = now() - begun;
        let value = text.and_then(|text| (self.parse)(&text));
        Some(MetricsReading { at: begun + took / 2, took, value })
    }
}
