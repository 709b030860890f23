//! A server with a limited capacity, as a pure model of time: requests wait in a queue, and those
//! that run are decoded together, step by step (continuous batching; Yu et al. 2022, "Orca").
//!
//! A step begins when the previous one has ended and a request waits or runs. It first takes
//! requests from the queue, in the order of their arrival, while there is a free slot and room for
//! their tokens in the KV cache. It then processes the prompts of the requests that it took and
//! generates one event for each running request, so it lasts
//!
//! `decode.base + decode.per_running × running + new prompt tokens / prefill_rate`.
//!
//! The event of every running request is due at the end of the step. Times count from the creation
//! of the endpoint.

use std::{collections::VecDeque, time::Duration};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// The capacity of a simulated server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerCapacity {
    /// The largest number of requests that run together.
    pub slots: u64,
    /// Prompt tokens that are processed per second.
    pub prefill_rate: f64,
    /// The part of a decoding step that does not depend on the number of requests.
    pub base: Duration,
    /// The part of a decoding step that each running request adds.
    pub per_running: Duration,
    /// The tokens that fit into the KV cache. A request reserves its prompt and the most tokens that
    /// it can generate. `None` stands for no limit. A request that is larger than the cache runs
    /// alone.
    pub kv_tokens: Option<u64>,
}

impl Default for ServerCapacity {
    fn default() -> Self {
        Self {
            slots: 32,
            prefill_rate: 20_000.0,
            base: Duration::from_millis(8),
            per_running: Duration::from_micros(200),
            kv_tokens: None,
        }
    }
}

impl ServerCapacity {
    /// Returns how long a step with `running` requests lasts, of which new ones have `prompt` tokens.
    pub fn step(&self, running: usize, prompt: u64) -> Duration {
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        let prefill = Duration::try_from_secs_f64(prompt as f64 / self.prefill_rate);
        let decode = self.base.saturating_add(self.per_running.saturating_mul(running));
        decode.saturating_add(prefill.unwrap_or(Duration::MAX))
    }

    /// Returns the most requests per second that the server completes, given the prompt tokens and
    /// the events of each: all slots are in use, and each step completes and takes
    /// `slots / events` requests on average.
    pub fn most_requests(&self, prompt: u64, events: u64) -> f64 {
        let each = prompt.saturating_add(events).max(1);
        let slots = self.kv_tokens.map_or(self.slots, |all| self.slots.min((all / each).max(1)));
        let events = events.max(1) as f64;
        let taken = slots as f64 / events;
        let decode = self.base.as_secs_f64() + self.per_running.as_secs_f64() * slots as f64;
        taken / (decode + taken * prompt as f64 / self.prefill_rate)
    }
}

/// A request to the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    /// Identifies it.
    pub(super) id: u64,
    /// Prompt tokens that have to be processed.
    pub(super) prompt: u64,
    /// Tokens that it reserves in the KV cache.
    pub(super) reserved: u64,
    /// The events of its answer, 1 or more.
    pub(super) events: u64,
}

/// A step that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// When it ends: the events of its requests are due.
    pub(super) end: Duration,
    /// The running requests.
    pub(super) ids: Vec<u64>,
}

/// The queue and the running requests.
#[derive(Debug)]
pub(super) struct ServerBatch {
    capacity: ServerCapacity,
    /// The largest deviation of a step from its duration.
    jitter: Duration,
    random: Pcg64Mcg,
    waiting: VecDeque<Job>,
    running: Vec<Job>,
    /// The tokens that running requests have reserved.
    reserved: u64,
    /// When the current step ends.
    end: Option<Duration>,
}

impl ServerBatch {
    /// Creates an idle server.
    pub(super) fn new(capacity: ServerCapacity, jitter: Duration, seed: u64) -> Self {
        Self {
            capacity,
            jitter,
            random: Pcg64Mcg::seed_from_u64(seed),
            waiting: VecDeque::new(),
            running: Vec::new(),
            reserved: 0,
            end: None,
        }
    }

    /// Returns the number of requests in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of running requests.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns the used share of the KV cache, 0 to 1.
    pub(super) fn cache_use(&self) -> f64 {
        let all = self.capacity.kv_tokens.filter(|all| *all > 0);
        all.map_or(0.0, |all| (self.reserved as f64 / all as f64).min(1.0))
    }

    /// Returns when the current step ends; `None` if no request runs.
    pub(super) fn end(&self) -> Option<Duration> {
        self.end
    }

    /// Adds a request that arrived at `now`; returns the step that it begins on an idle server.
    /// The steps that ended before are to be taken with [`ended`](Self::ended) first.
    pub(super) fn arrive(&mut self, now: Duration, job: Job) -> Option<Step> {
        self.waiting.push_back(job);
        if self.end.is_some() { None } else { self.begin(now) }
    }

    /// Removes a request whose client has left. A step that has begun is not shortened.
    pub(super) fn leave(&mut self, id: u64) {
        self.waiting.retain(|job| job.id != id);
        if let Some(at) = self.running.iter().position(|job| job.id == id) {
            let job = self.running.remove(at);
            self.reserved -= job.reserved;
        }
    }

    /// Ends the current step if it is over at `now`, and begins the next one at the moment at which
    /// it ended. Returns the step that has begun.
    pub(super) fn ended(&mut self, now: Duration) -> Option<Step> {
        let end = self.end.filter(|end| *end <= now)?;
        self.end = None;
        for job in &mut self.running {
            job.events -= 1;
        }
        let is_over = |job: &Job| job.events == 0;
        self.reserved -=
            self.running.iter().filter(|job| is_over(job)).map(|job| job.reserved).sum::<u64>();
        self.running.retain(|job| !is_over(job));
        self.begin(end)
    }

    fn begin(&mut self, now: Duration) -> Option<Step> {
        let mut prompt = 0u64;
        while let Some(job) = self.next_that_fits() {
            prompt = prompt.saturating_add(job.prompt);
            self.reserved += job.reserved;
            self.running.push(job);
        }
        if self.running.is_empty() {
            return None;
        }
        let lasts = self.capacity.step(self.running.len(), prompt);
        let most = i64::try_from(self.jitter.as_nanos()).unwrap_or(i64::MAX);
        let off = if most == 0 { 0 } else { self.random.random_range(-most..=most) };
        let lasts = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX).saturating_add_signed(off);
        let end = now.saturating_add(Duration::from_nanos(lasts));
        self.end = Some(end);
        Some(Step { end, ids: self.running.iter().map(|job| job.id).collect() })
    }

    /// Takes the first request of the queue if it can run.
    fn next_that_fits(&mut self) -> Option<Job> {
        let job = self.waiting.front()?;
        let has_slot = (self.running.len() as u64) < self.capacity.slots.max(1);
        let all = self.capacity.kv_tokens.unwrap_or(u64::MAX);
        let has_room = self.reserved.saturating_add(job.reserved) <= all || self.running.is_empty();
        if has_slot && has_room { self.waiting.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: ServerCapacity = ServerCapacity {
        slots: 2,
        prefill_rate: 1_000.0,
        base: Duration::from_millis(8),
        per_running: Duration::from_millis(1),
        kv_tokens: None,
    };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn job(id: u64, prompt: u64, events: u64) -> Job {
        Job { id, prompt, reserved: prompt + events, events }
    }

    fn step(end: u64, ids: &[u64]) -> Option<Step> {
        Some(Step { end: ms(end), ids: ids.to_vec() })
    }

    #[test]
    fn requests_run_together_and_wait_for_a_slot() {
        let mut batch = ServerBatch::new(CAPACITY, ms(0), 0);
        // 8 + 1 + 10 tokens / 1 per ms.
        assert_eq!(batch.arrive(ms(100), job(1, 10, 2)), step(119, &[1]));
        assert_eq!(batch.arrive(ms(101), job(2, 20, 2)), None);
        assert_eq!(batch.arrive(ms(102), job(3, 0, 1)), None);
        assert_eq!((batch.waiting(), batch.running()), (2, 1));
        assert_eq!(batch.ended(ms(118)), None);
        // 8 + 2 × 1 + 20; the third one has no slot.
        assert_eq!(batch.ended(ms(119)), step(149, &[1, 2]));
        // The first has its two events.
        assert_eq!(batch.ended(ms(150)), step(159, &[2, 3]));
        assert_eq!(batch.ended(ms(159)), None);
        assert_eq!((batch.waiting(), batch.running(), batch.end()), (0, 0, None));
        assert_eq!(batch.arrive(ms(500), job(4, 0, 1)), step(509, &[4]));
    }

    #[test]
    fn requests_wait_for_room_in_the_cache_and_one_too_large_runs_alone() {
        let capacity = ServerCapacity { kv_tokens: Some(30), ..CAPACITY };
        let mut batch = ServerBatch::new(capacity, ms(0), 0);
        assert_eq!(batch.arrive(ms(0), job(1, 18, 2)), step(27, &[1]));
        assert_eq!(batch.arrive(ms(1), job(2, 18, 1)), None);
        assert_eq!(batch.ended(ms(27)), step(36, &[1]));
        assert!((batch.cache_use() - 20.0 / 30.0).abs() < 1e-12);
        assert_eq!(batch.ended(ms(36)), step(36 + 27, &[2]));
        assert_eq!(batch.ended(ms(63)), None);
        assert_eq!(batch.arrive(ms(100), job(3, 100, 1)), step(209, &[3]));
        assert_eq!(batch.cache_use(), 1.0);
    }

    #[test]
    fn a_client_that_leaves_frees_its_place() {
        let mut batch = ServerBatch::new(CAPACITY, ms(0), 0);
        assert_eq!(batch.arrive(ms(0), job(1, 0, 5)), step(9, &[1]));
        let others = [job(2, 0, 5), job(3, 0, 5), job(4, 0, 1)];
        assert!(others.into_iter().all(|job| batch.arrive(ms(1), job).is_none()));
        batch.leave(1);
        batch.leave(3);
        batch.leave(9);
        assert_eq!(batch.ended(ms(9)), step(19, &[2, 4]));
    }

    #[test]
    fn a_saturated_server_completes_as_many_requests_as_its_formula_says() {
        let capacity =
            ServerCapacity { slots: 32, kv_tokens: Some(3_000), ..ServerCapacity::default() };
        for (prompt, events) in [(64, 16), (512, 32), (0, 1)] {
            let mut batch = ServerBatch::new(capacity, ms(1), 7);
            let (mut now, mut done) = (ms(0), 0u64);
            for id in 0..20_000 {
                let _ = batch.arrive(now, job(id, prompt, events));
            }
            while batch.waiting() > 0 {
                now = batch.end().unwrap();
                let before = batch.running() + batch.waiting();
                let _ = batch.ended(now);
                done += (before - batch.running() - batch.waiting()) as u64;
            }
            let (found, said) =
                (done as f64 / now.as_secs_f64(), capacity.most_requests(prompt, events));
            assert!((found / said - 1.0).abs() < 0.01, "{prompt} + {events}: {found} {said}");
        }
    }
}
