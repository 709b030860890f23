//! Many requests at the same time, on one thread.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    future, io,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use llm_stream_core::recording::{Chunk, ErrorKind, Recording, RequestError};
use tokio::{
    runtime::{Builder, Runtime},
    task, time,
};

use super::{RequestTarget, ReqwestConnection, pulse::Pulse};
use crate::{AnswerObserver, DriveStats, NextAction, PATIENCE, RequestSource, SETTLE, now};

/// Most sockets that the system reports at once.
const SOCKETS: usize = 1 << 16;

/// The connections without work, and the runtime that serves their connections.
#[derive(Debug)]
pub(super) struct ReqwestPool {
    runtime: Runtime,
    /// Each with the end of its last answer, the latest on top.
    free: Vec<(ReqwestConnection, Instant)>,
}

impl ReqwestPool {
    /// Nothing that is open yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { runtime: runtime()?, free: Vec::new() })
    }

    /// Sends all that `jobs` has, when it wants it sent, and gives it each answer.
    pub(super) fn drive(
        &mut self,
        target: &RequestTarget,
        jobs: &mut dyn RequestSource,
    ) -> anyhow::Result<DriveStats> {
        let Self { runtime, free } = self;
        runtime.block_on(async {
            // Closes that came while nobody looked are to be noticed first.
            if !free.is_empty() {
                time::sleep(SETTLE).await;
            }
            drive(target, free, &RefCell::new(jobs)).await?;
            Ok(DriveStats { busy: None })
        })
    }
}

/// The pulse counts on it that all tasks have run and all sockets were asked about before the system
/// is asked again.
pub(super) fn runtime() -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().event_interval(u32::MAX).max_io_events_per_tick(SOCKETS).build()
}

async fn drive(
    target: &RequestTarget,
    free: &mut Vec<(ReqwestConnection, Instant)>,
    jobs: &RefCell<&mut dyn RequestSource>,
) -> anyhow::Result<()> {
    let (pulse, has_place) = (Pulse::new(), Cell::new(false));
    let beat = pulse.beat();
    tokio::pin!(beat);
    let mut under_way = FuturesUnordered::new();
    let mut ids = BTreeSet::new();
    loop {
        let next_start = loop {
            // reqwest opens a connection with its request only.
            let next = jobs.borrow_mut().next(now(), usize::MAX);
            match next {
                NextAction::Open => jobs.borrow_mut().opened(Ok(())),
                NextAction::Send { id, body } => {
                    ids.insert(id);
                    let watch = JobWatch { jobs, id, has_place: &has_place };
                    let carry = carry(target, connection(target, free)?, body, watch, &pulse);
                    // All that has arrived is read before the pulse beats.
                    under_way.push(task::unconstrained(carry));
                }
                NextAction::At(start) => break Some(start),
                NextAction::AfterAnAnswer => break None,
            }
        };
        if jobs.borrow().is_cancelled() || (under_way.is_empty() && next_start.is_none()) {
            break;
        }
        let patience = now() + PATIENCE;
        let until = next_start.map_or(patience, |start| start.min(patience));
        tokio::select! {
            biased;
            Some(Finished { connection, id, answer }) = under_way.next() => {
                ids.remove(&id);
                free.push((connection, now()));
                jobs.borrow_mut().finished(id, answer);
            }
            // An answer has ended in its own words, and its body has not.
            () = future::poll_fn(|_| if has_place.take() { Poll::Ready(()) } else { Poll::Pending }) => {}
            () = &mut beat => unreachable!("a pulse does not end"),
            () = time::sleep_until(until.into()) => {}
        }
    }
    // The connections of those that are not wanted any more end here.
    drop(under_way);
    for id in ids {
        let error = RequestError::new(ErrorKind::Interrupted, "interrupted");
        jobs.borrow_mut().finished(id, Err(error));
    }
    Ok(())
}

/// A connection, and when it may be used: the one that was used last among those whose server had time to
/// close the connection, else the one that has waited longest; a new one when none is free.
fn connection(
    target: &RequestTarget,
    free: &mut Vec<(ReqwestConnection, Instant)>,
) -> anyhow::Result<(ReqwestConnection, Instant)> {
    let now = now();
    let place = free.iter().rposition(|(_, end)| *end + SETTLE <= now);
    if free.is_empty() {
        return Ok((target.new_connection()?, now));
    }
    let (connection, end) = free.remove(place.unwrap_or_default());
    Ok((connection, end + SETTLE))
}

/// A request that has ended, and the connection that it leaves.
struct Finished {
    connection: ReqwestConnection,
    id: usize,
    answer: Result<Recording, RequestError>,
}

async fn carry(
    target: &RequestTarget,
    (connection, from): (ReqwestConnection, Instant),
    body: Bytes,
    watch: JobWatch<'_, '_>,
    pulse: &Pulse,
) -> Finished {
    if from > now() {
        time::sleep_until(from.into()).await;
    }
    let answer = target.send(&connection, body, &watch, pulse).await;
    Finished { connection, id: watch.id, answer }
}

/// One of the jobs, followed.
struct JobWatch<'a, 'b> {
    jobs: &'a RefCell<&'b mut dyn RequestSource>,
    id: usize,
    /// Set when another request may be sent.
    has_place: &'a Cell<bool>,
}

impl AnswerObserver for JobWatch<'_, '_> {
    fn arrived(&self, chunk: &Chunk) {
        self.jobs.borrow_mut().arrived(self.id, chunk);
    }

    fn last_token(&self, chunks: &[Chunk]) -> Option<Duration> {
        self.jobs.borrow().last_token(chunks)
    }

    fn has_ended(&self, chunks: &[Chunk], seen: usize) -> bool {
        self.jobs.borrow().has_ended(chunks, seen)
    }

    fn lacks_usage(&self, chunks: &[Chunk]) -> bool {
        self.jobs.borrow().lacks_usage(chunks)
    }

    fn ending(&self) {
        self.jobs.borrow_mut().ending(self.id);
        self.has_place.set(true);
    }

    fn is_cancelled(&self) -> bool {
        self.jobs.borrow().is_cancelled()
    }
}
