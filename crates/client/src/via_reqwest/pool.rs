//! Sends requests through reqwest, one or many at once, on one thread with its own runtime.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    future, io,
    task::Poll,
    time::Instant,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use llm_stream_core::recording::{ErrorKind, Recording, RequestError};
use tokio::{
    runtime::{Builder, Runtime},
    task, time,
};

use super::{Listener, RequestTarget, ReqwestConnection, pulse::Pulse};
use crate::{AnswerObserver, DriveStats, NextAction, PATIENCE, RequestSource, SETTLE, now};

/// Most sockets that one poll of the system reports.
const SOCKETS: usize = 1 << 16;

/// Most tasks that run before the system is polled again, far more than a turn of a usual load has.
/// Without a limit, a server that floods one answer would starve the others and the timers.
const TURN: u32 = 8192;

/// The idle connections and the runtime that they are tied to.
#[derive(Debug)]
pub(super) struct ReqwestPool {
    runtime: Runtime,
    /// Idle connections with the ends of their last answers, the latest at the end.
    free: Vec<(ReqwestConnection, Instant)>,
}

impl ReqwestPool {
    /// Creates a pool with a first connection, which is not open yet.
    pub(super) fn new(first: ReqwestConnection) -> io::Result<Self> {
        Ok(Self { runtime: runtime()?, free: vec![(first, now())] })
    }

    /// Sends the requests of a source at their times and hands it the answers.
    pub(super) fn drive(
        &mut self,
        target: &RequestTarget,
        source: &mut dyn RequestSource,
        observer: &dyn AnswerObserver,
    ) -> DriveStats {
        let Self { runtime, free } = self;
        runtime.block_on(async {
            // Lets the runtime notice connections that were closed between two loads.
            if !free.is_empty() {
                time::sleep(SETTLE).await;
            }
            drive(target, free, (&RefCell::new(source), observer)).await;
        });
        DriveStats { busy: None }
    }
}

/// A runtime that runs all tasks and reports all sockets before it polls the system again, which
/// [`Pulse`] relies on.
pub(super) fn runtime() -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().event_interval(TURN).max_io_events_per_tick(SOCKETS).build()
}

async fn drive(
    target: &RequestTarget,
    free: &mut Vec<(ReqwestConnection, Instant)>,
    (source, observer): (&RefCell<&mut dyn RequestSource>, &dyn AnswerObserver),
) {
    let (pulse, is_slot_free) = (Pulse::new(), Cell::new(false));
    let beat = pulse.beat();
    tokio::pin!(beat);
    let mut in_flight = FuturesUnordered::new();
    let mut ids = BTreeSet::new();
    loop {
        let next_start = loop {
            // reqwest opens a connection only for a request.
            let next = source.borrow_mut().next(now(), usize::MAX);
            match next {
                NextAction::Open => source.borrow_mut().opened(Ok(())),
                NextAction::Send { id, body, .. } => {
                    let connection = match connection(target, free) {
                        Ok(connection) => connection,
                        Err(error) => {
                            source.borrow_mut().finished(id, Err(error));
                            continue;
                        }
                    };
                    ids.insert(id);
                    let progress = SourceProgress { source, id, is_slot_free: &is_slot_free };
                    let sending = send_on(target, connection, body, (progress, observer), &pulse);
                    // Unconstrained: tokio's budget would leave arrived bytes unread at the next beat.
                    in_flight.push(task::unconstrained(sending));
                }
                NextAction::At(start) => break Some(start),
                NextAction::AfterAnAnswer => break None,
            }
        };
        if observer.is_cancelled() || (in_flight.is_empty() && next_start.is_none()) {
            break;
        }
        let patience = now() + PATIENCE;
        let until = next_start.map_or(patience, |start| start.min(patience));
        tokio::select! {
            biased;
            Some(Finished { connection, id, answer }) = in_flight.next() => {
                ids.remove(&id);
                free.push((connection, now()));
                source.borrow_mut().finished(id, answer);
            }
            // An answer has ended and its body is open: another request may be sent.
            () = future::poll_fn(|_| if is_slot_free.take() { Poll::Ready(()) } else { Poll::Pending }) => {}
            () = &mut beat => unreachable!("a pulse does not end"),
            () = time::sleep_until(until.into()) => {}
        }
    }
    // Closes the connections of cancelled answers.
    drop(in_flight);
    for id in ids {
        let error = RequestError::new(ErrorKind::Interrupted, "interrupted");
        source.borrow_mut().finished(id, Err(error));
    }
}

/// Returns a connection and the time from which it may be used. Connections that have rested for
/// [`SETTLE`] come first, the last used first of all; then the connection that has rested longest; then
/// a new connection.
fn connection(
    target: &RequestTarget,
    free: &mut Vec<(ReqwestConnection, Instant)>,
) -> Result<(ReqwestConnection, Instant), RequestError> {
    let now = now();
    let rested = free.iter().rposition(|(_, end)| *end + SETTLE <= now);
    if free.is_empty() {
        return Ok((target.new_connection()?, now));
    }
    let (connection, end) = free.remove(rested.unwrap_or_default());
    Ok((connection, end + SETTLE))
}

/// The result of a request, and its connection.
struct Finished {
    connection: ReqwestConnection,
    id: usize,
    answer: Result<Recording, RequestError>,
}

/// Tells a source about one of its answers.
struct SourceProgress<'a, 'b> {
    source: &'a RefCell<&'b mut dyn RequestSource>,
    id: usize,
    /// Set when another request may be sent.
    is_slot_free: &'a Cell<bool>,
}

async fn send_on(
    target: &RequestTarget,
    (connection, from): (ReqwestConnection, Instant),
    body: Vec<u8>,
    (progress, observer): (SourceProgress<'_, '_>, &dyn AnswerObserver),
    pulse: &Pulse,
) -> Finished {
    if from > now() {
        time::sleep_until(from.into()).await;
    }
    let SourceProgress { source, id, is_slot_free } = progress;
    let on_end = || {
        source.borrow_mut().ending(id);
        is_slot_free.set(true);
    };
    let listener = Listener { observer, on_end: &on_end };
    let answer = target.send(&connection, body, &listener, pulse).await;
    Finished { connection, id, answer }
}
