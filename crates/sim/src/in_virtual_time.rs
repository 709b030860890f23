//! Runs a script without a server and without a clock: each event has its scheduled time.
//! Simulations of many runs use it.

use std::{collections::BTreeMap, time::Duration};

use llm_stream_core::{
    protocol::{Envelope, Message, Protocol},
    recording::{Chunk, ErrorKind, MemoryHold, Recording, RequestError, StampedBy, Uncertainty},
    schedule::{Shape, Starts},
};

use crate::{
    Script,
    batching::{Job, ServerBatch, Step},
    script::{RequestFacts, ScriptedResponse, StreamEnd},
};

/// A request of a load in virtual time. Times count from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualRequest {
    /// When it arrived.
    pub arrived: Duration,
    /// When its first event was due.
    pub first: Duration,
    /// When its last event was due.
    pub last: Duration,
    /// The events of its answer.
    pub events: u64,
}

impl Script {
    /// Returns the requests of a load of `requests` requests with `prompt_tokens` tokens each, in the
    /// order of their arrival; `None` if the script has no capacity. `run` chooses the arrivals.
    pub fn under_load(
        &self,
        shape: &Shape,
        run: u32,
        requests: usize,
        prompt_tokens: u64,
    ) -> Option<Vec<VirtualRequest>> {
        let seed = self.seed.wrapping_add(run.into());
        let batch = ServerBatch::new(self.capacity?, self.jitter, seed);
        let events = self.tokens.div_ceil(self.tokens_per_event.max(1)).max(1);
        let reserved = prompt_tokens.saturating_add(self.tokens);
        let prompt = prompt_tokens.saturating_sub(self.cached_tokens);
        let job = Job { id: 0, prompt, reserved, events };
        let requests = requests as u64;
        let mut load = VirtualLoad { batch, job, requests, sent: 0, done: BTreeMap::new() };
        match *shape {
            Shape::Closed { concurrency } => load.closed(concurrency as u64),
            Shape::Open { arrivals, .. } => load.open(Starts::new(arrivals, run)),
        }
        Some(load.done.into_values().collect())
    }

    /// Returns the recording of request `number`, or `None` if the script does not answer it with a
    /// stream.
    pub fn recorded(&self, number: u64, protocol: &dyn Protocol) -> Option<Recording> {
        let facts = RequestFacts {
            number,
            max_tokens: None,
            min_tokens: 0,
            prompt_chars: 40,
            include_usage: true,
            streamed: true,
        };
        let ScriptedResponse::Stream(mut stream) = self.answer(&facts) else { return None };
        let (id, envelope) = (self.id(number), Envelope { model: "simulated", created: 0 });
        let mut chunks = Vec::new();
        for step in stream.by_ref() {
            let encoded = step.messages.into_iter().map(|parts| {
                let message = Message { id: Some(id.as_str().into()), parts };
                protocol.encode(&message, &envelope)
            });
            let bytes = encoded.collect::<Vec<_>>().concat().into();
            chunks.push(Chunk { at: step.at, uncertainty: Duration::ZERO, bytes });
        }
        let ended_at = chunks.last().map(|chunk| chunk.at).unwrap_or_default();
        let broken = match stream.ending() {
            StreamEnd::Clean => None,
            StreamEnd::Stall => Some((ErrorKind::InterTokenTimeout, "the script stalls")),
            StreamEnd::Reset => Some((ErrorKind::Broken, "the script resets")),
        };
        Some(Recording {
            origin: None,
            status: 200,
            content_type: Some("text/event-stream".into()),
            head_time: None,
            content_encoding: None,
            retry_after: None,
            server: None,
            http_version: "HTTP/1.1".into(),
            connect: None,
            tls: None,
            sent: None,
            headers_at: ended_at.min(self.ttft),
            chunks,
            ended_at,
            stamped_by: StampedBy::Kernel,
            uncertainty: Uncertainty::default(),
            broken: broken.map(|(kind, message)| RequestError::new(kind, message)),
            hold: MemoryHold::default(),
        })
    }
}

/// A load on a batch.
#[derive(Debug)]
struct VirtualLoad {
    batch: ServerBatch,
    /// Every request, except for its id.
    job: Job,
    /// The number of requests to send, and of those sent.
    requests: u64,
    sent: u64,
    /// The requests by their ids; `last` is that of the latest event.
    done: BTreeMap<u64, VirtualRequest>,
}

impl VirtualLoad {
    /// Sends each request at its start.
    fn open(&mut self, starts: Starts) {
        for start in starts.take(usize::try_from(self.requests).unwrap_or(usize::MAX)) {
            while self.batch.end().is_some_and(|end| end <= start) {
                self.end_step();
            }
            self.send(start);
        }
        while self.end_step().is_some() {}
    }

    /// Sends a request for each that ends.
    fn closed(&mut self, concurrency: u64) {
        for _ in 0..concurrency.min(self.requests) {
            self.send(Duration::ZERO);
        }
        while let Some(end) = self.end_step() {
            let in_flight = (self.batch.running() + self.batch.waiting()) as u64;
            for _ in in_flight..concurrency.min(in_flight + self.requests - self.sent) {
                self.send(end);
            }
        }
    }

    fn send(&mut self, at: Duration) {
        let job = Job { id: self.sent, ..self.job };
        self.sent += 1;
        let request = VirtualRequest { arrived: at, first: at, last: at, events: job.events };
        self.done.insert(job.id, request);
        if let Some(step) = self.batch.arrive(at, job) {
            self.note(&step);
        }
    }

    /// Ends the current step; returns when it ended, or `None` if no request ran.
    fn end_step(&mut self) -> Option<Duration> {
        let end = self.batch.end()?;
        if let Some(step) = self.batch.ended(end) {
            self.note(&step);
        }
        Some(end)
    }

    fn note(&mut self, step: &Step) {
        for id in &step.ids {
            if let Some(request) = self.done.get_mut(id) {
                if request.first == request.arrived {
                    request.first = step.end;
                }
                request.last = step.end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use llm_stream_core::schedule::{ArrivalProcess, Gaps};

    use super::*;
    use crate::ServerCapacity;

    fn script() -> Script {
        Script { tokens: 16, capacity: Some(ServerCapacity::default()), ..Script::default() }
    }

    #[test]
    fn a_closed_loop_within_the_slots_waits_for_the_running_step_only() {
        let load = script().under_load(&Shape::Closed { concurrency: 8 }, 1, 400, 0).unwrap();
        assert_eq!(load.len(), 400);
        // 8 ms + 8 × 0.2 ms.
        let step = Duration::from_micros(9_600);
        assert!(load.iter().all(|of| of.first - of.arrived <= 2 * step));
        assert!(load.iter().all(|of| of.last - of.first <= 15 * step && of.events == 16));
    }

    #[test]
    fn a_closed_loop_beyond_the_slots_reaches_the_capacity() {
        let load = script().under_load(&Shape::Closed { concurrency: 64 }, 1, 4_000, 64).unwrap();
        let end = load.iter().map(|of| of.last).max().unwrap().as_secs_f64();
        let most = ServerCapacity::default().most_requests(64, 16);
        assert!((4_000.0 / end / most - 1.0).abs() < 0.02, "{} {most}", 4_000.0 / end);
    }

    #[test]
    fn the_queue_of_an_open_loop_grows_beyond_the_capacity_only() {
        let most = ServerCapacity::default().most_requests(64, 16);
        let median_ttft = |part: f64| {
            let arrivals = ArrivalProcess { rate: part * most, gaps: Gaps::Poisson, seed: 3 };
            let shape = Shape::Open { arrivals, max_in_flight: usize::MAX };
            let load = script().under_load(&shape, 1, 4_000, 64).unwrap();
            let mut ttft: Vec<_> = load.iter().map(|of| of.first - of.arrived).collect();
            ttft.sort();
            ttft[2_000]
        };
        assert!(median_ttft(0.7) < Duration::from_millis(40), "{:?}", median_ttft(0.7));
        assert!(median_ttft(1.2) > Duration::from_secs(1), "{:?}", median_ttft(1.2));
    }
}
