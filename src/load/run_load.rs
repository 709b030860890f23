//! Load runs: a closed loop keeps a number of requests in flight, an open loop sends them on a
//! schedule.
//!
//! One thread sends and takes timestamps; another interprets the answers. Interpreting takes up to
//! milliseconds, and on the first thread it would delay the next request and its timestamp.

use std::{
    collections::HashMap,
    iter::Peekable,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use llm_stream_client::{
    self as client, AnswerObserver, Client, DriveStats, NextAction, Preconnect, Redactor,
    RequestSource, TooFewFiles, memory::MemoryBudget,
};
use llm_stream_core::{
    load_stats::RequestSpan,
    prompt::Prompt,
    recording::{Chunk, ErrorKind, Recording, RequestError},
    sample::{self, CountKind, RequestedTokens},
    schedule::{Shape, Starts},
};

use super::{
    Answer, Conversation, PromptSizer, drawn_tokens,
    phase::LoadPhase,
    prompt_choice::PromptChoice,
    replay::{Replay, RequestMaker},
    replicas::ReplicaTurns,
    request, salt,
    waiting_turns::WaitingTurns,
};
use crate::{
    config::ConnectionMode,
    plan::{Target, Workload},
    row::LoadPosition,
};

/// How long before its requests an open loop opens their connections, in seconds.
const AHEAD: f64 = 0.25;

/// The pause before a request that finds the memory of answers full.
const FULL: Duration = Duration::from_millis(5);

/// A request of a load that has ended, interpreted.
#[derive(Debug)]
pub struct RequestEnd {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// Its position in the load.
    pub place: LoadPosition,
    /// When it started and ended.
    pub span: RequestSpan,
    /// When the measured part of the load began, if it had when the request ended.
    pub measured_from: Option<Duration>,
    /// How long ago it started.
    pub since_begun: Duration,
    /// The answer.
    pub answer: Answer,
}

/// A load that has ended.
#[derive(Debug)]
pub struct LoadRun {
    /// What the event loop counted.
    pub driven: DriveStats,
    /// When it began: spans count from then. `None` if it never did.
    pub started: Option<Instant>,
    /// The number of connections that could not be opened in advance, with the first reason.
    pub unopened: Option<(usize, RequestError)>,
}

/// Why a load cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The process may not open enough files.
    #[error(transparent)]
    TooFewFiles(#[from] TooFewFiles),
    /// The prompts of a trace cannot be made.
    #[error(transparent)]
    Unmakable(#[from] RequestError),
}

/// Runs `workload` on `target` for the `run`-th time, and gives each request that has ended to
/// `take`, on another thread. Requests that are cancelled are left out. `counters` change while the
/// load is in progress.
pub fn run_load(
    (target, workload, run): (&Target, &Workload, u32),
    lengths: &PromptSizer,
    client: &Client,
    (cancelled, counters): (&dyn AnswerObserver, &LoadCounters),
    mut take: impl FnMut(RequestEnd) + Send,
) -> Result<LoadRun, LoadError> {
    // A simulated endpoint holds the other end of each connection in this process.
    client::allow(slots(workload), if target.is_simulated() { 2 } else { 1 })?;
    let ahead = match target.connection {
        ConnectionMode::Warm => slots(workload),
        ConnectionMode::Cold => 0,
    };
    let maker = workload.trace.as_ref().map(|replay| RequestMaker::new(replay, target));
    let maker = maker.transpose()?;
    let mut opening = Preconnect::new(ahead);
    let observer = &CountReads { cancelled, counters };
    client.drive(&mut opening, observer);
    let (sender, receiver) = mpsc::channel::<RawResult>();
    let (driven, started) = thread::scope(|scope| {
        let reading = scope.spawn(move || {
            for over in receiver {
                take(over.read(target, client.redactor(), workload.trace.is_some()));
            }
        });
        let senders = (sender, counters);
        let mut jobs = Load::new((target, workload, run), (lengths, client.memory()), senders);
        if let Some(maker) = &maker {
            jobs.replay = Some(Replay::start(scope, target, &workload.prompts[0], maker)?);
        }
        let driven = client.drive(&mut jobs, observer);
        let started = jobs.started;
        drop(jobs);
        if let Err(panic) = reading.join() {
            std::panic::resume_unwind(panic);
        }
        Ok::<_, RequestError>((driven, started))
    })?;
    Ok(LoadRun { driven, started, unopened: opening.failed })
}

/// What the receiving thread counts while a load is in progress. Other threads may read it at any
/// time: each count is one atomic write.
#[derive(Debug, Default)]
pub struct LoadCounters {
    in_flight: AtomicUsize,
    reads: AtomicU64,
}

impl LoadCounters {
    /// Sets the counts.
    #[cfg(test)]
    pub(crate) fn set(&self, in_flight: usize, reads: u64) {
        self.in_flight.store(in_flight, Ordering::Relaxed);
        self.reads.store(reads, Ordering::Relaxed);
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns how many reads returned bytes of an answer so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

/// Counts the reads of a load's answers.
struct CountReads<'a> {
    cancelled: &'a dyn AnswerObserver,
    counters: &'a LoadCounters,
}

impl AnswerObserver for CountReads<'_> {
    fn arrived(&self, _: &Chunk) {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }
}

/// Returns the number of connections that a load requires at its start.
fn slots(workload: &Workload) -> usize {
    let most = workload.until.requests.unwrap_or(usize::MAX);
    match workload.shape {
        Shape::Closed { concurrency } => concurrency.min(most),
        Shape::Open { .. } => reserve(workload).min(most),
    }
}

/// Returns the number of idle connections that an open loop keeps ready.
fn reserve(workload: &Workload) -> usize {
    match (workload.shape, &workload.trace) {
        (Shape::Closed { .. }, _) => 0,
        // A trace can have many requests at the same time.
        (Shape::Open { max_in_flight, .. }, Some(replay)) => {
            let ahead = Duration::from_secs_f64(AHEAD * replay.speed);
            (replay.trace.burst(ahead) + 1).min(max_in_flight)
        }
        (Shape::Open { arrivals, max_in_flight }, None) => {
            ((arrivals.rate * AHEAD).ceil() as usize + 1).min(max_in_flight)
        }
    }
}

/// Returns the scheduled starts of an open loop.
fn starts(
    workload: &Workload,
    run: u32,
) -> Option<Peekable<Box<dyn Iterator<Item = Duration> + '_>>> {
    let starts: Box<dyn Iterator<Item = Duration>> = match (workload.shape, &workload.trace) {
        (Shape::Closed { .. }, _) => return None,
        (Shape::Open { .. }, Some(replay)) => {
            let requests = replay.trace.requests.iter();
            Box::new(requests.map(|request| request.at.div_f64(replay.speed)))
        }
        (Shape::Open { arrivals, .. }, None) => {
            let phases = workload.phases;
            Box::new(Starts::new(arrivals, run).map(move |at| phases.ramped_arrival(at)))
        }
    };
    Some(starts.peekable())
}

/// A load in progress.
struct Load<'a> {
    target: &'a Target,
    workload: &'a Workload,
    run: u32,
    lengths: &'a PromptSizer,
    memory: &'a MemoryBudget,
    started: Option<Instant>,
    /// The remaining start times of an open loop.
    starts: Option<Peekable<Box<dyn Iterator<Item = Duration> + 'a>>>,
    /// The requests of a trace.
    replay: Option<Replay>,
    /// Selects the beginnings that prompts share.
    salt: u64,
    sent: usize,
    /// The phase of the load.
    phase: LoadPhase,
    /// The replicas that answer the requests.
    replicas: ReplicaTurns,
    /// The prompts of the requests that begin; a conversation is one of them.
    prompts: PromptChoice<'a>,
    /// Conversations that wait for their next turn.
    waiting: WaitingTurns<ConversationState>,
    under_way: HashMap<usize, Question>,
    /// Requests in flight whose answers are complete but whose bodies the server keeps open, with
    /// the time since when they no longer count as in flight.
    ending: HashMap<usize, Instant>,
    /// Limit of `ending`: each of them occupies a connection.
    most_ending: usize,
    opening: usize,
    reserve: usize,
    over: mpsc::Sender<RawResult>,
    counters: &'a LoadCounters,
}

/// A request that was sent.
struct Question {
    prompt: Arc<Prompt>,
    tokens: RequestedTokens,
    scheduled: Option<Duration>,
    begun: Instant,
    /// The replica that answers it.
    replica: usize,
    state: Option<ConversationState>,
}

/// A conversation in progress.
struct ConversationState {
    so_far: Conversation,
    /// Its first turn, which has the others.
    prompt: Arc<Prompt>,
    /// The number of turns that were sent.
    asked: usize,
    /// The replica that answers it, once there was a turn.
    replica: Option<usize>,
}

/// A request that has ended and is not interpreted yet.
struct RawResult {
    id: usize,
    asked: Question,
    started: Instant,
    ended: Instant,
    /// When the measured part began, if it has.
    measured_from: Option<Duration>,
    answer: Result<Recording, RequestError>,
}

impl<'a> Load<'a> {
    fn new(
        (target, workload, run): (&'a Target, &'a Workload, u32),
        (lengths, memory): (&'a PromptSizer, &'a MemoryBudget),
        (over, counters): (mpsc::Sender<RawResult>, &'a LoadCounters),
    ) -> Self {
        let reserve = match target.connection {
            ConnectionMode::Warm => reserve(workload),
            ConnectionMode::Cold => 0,
        };
        Self {
            target,
            workload,
            run,
            lengths,
            memory,
            started: None,
            starts: starts(workload, run),
            replay: None,
            salt: salt(target.prefix_cache),
            sent: 0,
            phase: LoadPhase::of(workload),
            replicas: ReplicaTurns::new(1 + target.replicas.len()),
            prompts: PromptChoice::new(workload, run),
            waiting: WaitingTurns::new(workload, run),
            under_way: HashMap::new(),
            ending: HashMap::new(),
            most_ending: most_ending(target, workload),
            opening: 0,
            reserve,
            over,
            counters,
        }
    }

    /// Returns when the next request is due, counted from the start of the load; `None` after the
    /// last one.
    fn next_start(&mut self, elapsed: Duration) -> Option<Duration> {
        let until = self.workload.until;
        let arrival = match &mut self.starts {
            None => Some(elapsed),
            Some(starts) => starts.peek().copied(),
        };
        let start = arrival.into_iter().chain(self.waiting.next_due()).min()?;
        let in_time = until.duration.is_none_or(|duration| self.phase.is_before(start, duration));
        (in_time && self.is_in_number()).then_some(start)
    }

    /// Returns when the ramp of a closed loop allows for one more than `in_flight` requests.
    fn grows_at(&self, in_flight: usize) -> Option<Duration> {
        let Shape::Closed { concurrency } = self.workload.shape else { return None };
        Some(self.workload.phases.ramp.mul_f64(in_flight as f64 / concurrency as f64))
    }

    /// The number of requests in flight, without those whose servers only keep the bodies open.
    fn in_flight(&self) -> usize {
        self.under_way.len() - self.ending.len()
    }

    fn count_in_flight(&self) {
        self.counters.in_flight.store(self.in_flight(), Ordering::Relaxed);
    }

    /// Returns the number of the request that is sent. It is unique over all runs, so that two requests
    /// never get the same length from a range.
    fn nth(&self) -> u64 {
        u64::from(self.run) << 32 | self.sent as u64
    }

    fn is_in_number(&self) -> bool {
        let counting = self.phase.counting(self.sent);
        self.workload.until.requests.is_none_or(|requests| counting < requests)
    }

    fn send(&mut self, now: Instant) -> NextAction {
        self.sent += 1;
        self.phase.begin(self.started.map_or(Duration::ZERO, |started| now - started));
        let (mut state, scheduled) = self.next_turn(now);
        let (prompt, (body, tokens)) = match &mut state {
            Some(state) => state.go_on(self.target),
            None => self.begin(&mut state),
        };
        // The turns of a conversation go to one replica, whose cache has the turns before.
        let replica = match &mut state {
            Some(state) => *state.replica.get_or_insert_with(|| self.replicas.choose()),
            None => self.replicas.choose(),
        };
        self.replicas.begin(replica);
        let question = Question { prompt, tokens, scheduled, begun: now, replica, state };
        self.under_way.insert(self.sent, question);
        self.count_in_flight();
        NextAction::Send { id: self.sent, body, replica }
    }

    /// Returns the conversation whose turn is next, if a turn is due before the next arrival, and the
    /// scheduled time of an open loop.
    fn next_turn(&mut self, now: Instant) -> (Option<ConversationState>, Option<Duration>) {
        let elapsed = self.started.map_or(Duration::ZERO, |started| now - started);
        let is_open = self.starts.is_some();
        // A closed loop has a free place, for a turn that is due or a new prompt.
        let arrival = self.starts.as_mut().map_or(Some(elapsed), |starts| starts.peek().copied());
        let is_first = |due: Duration| arrival.is_none_or(|arrival| due <= arrival);
        match self.waiting.next_due().is_some_and(is_first) {
            true => {
                let (due, state) = self.waiting.pop().unzip();
                (state, due.filter(|_| is_open))
            }
            false => (None, self.starts.as_mut().and_then(Iterator::next)),
        }
    }

    /// Returns the request for the next prompt. For a conversation, stores its state in `state` and
    /// returns the request of the first turn.
    fn begin(
        &mut self,
        state: &mut Option<ConversationState>,
    ) -> (Arc<Prompt>, (Vec<u8>, RequestedTokens)) {
        let prompt = self.prompts.next();
        if let Some(request) = self.replay.as_mut().and_then(Replay::next) {
            return (prompt, request);
        }
        if !prompt.turns.is_empty() {
            let so_far = Conversation::numbered(self.nth());
            let begun = ConversationState { so_far, prompt, asked: 0, replica: None };
            return state.insert(begun).go_on(self.target);
        }
        let nth = self.nth();
        let max_tokens = drawn_tokens(self.target, &prompt, nth);
        let request = request(self.target, &prompt, max_tokens, (self.lengths, nth, self.salt));
        (prompt, request)
    }

    /// Continues a conversation after an answer: queues its next turn, if it has one. Returns the
    /// failed result of a turn that cannot be sent.
    fn go_on(
        &mut self,
        mut state: ConversationState,
        recording: &Recording,
        started: Instant,
    ) -> Option<RawResult> {
        // A turn that fails ends its conversation.
        let is_valid = super::read(recording, self.target).is_ok();
        let prompt = state.next().filter(|_| is_valid)?.clone();
        state.so_far.push_answer(recording, self.target);
        let Err(error) = state.so_far.can_go_on() else {
            self.waiting.push(now().saturating_duration_since(started), state);
            return None;
        };
        if !self.is_in_number() {
            return None;
        }
        self.sent += 1;
        self.phase.begin(now().saturating_duration_since(started));
        let (tokens, begun) = (RequestedTokens::default(), now());
        let replica = state.replica.unwrap_or_default();
        let asked = Question { prompt, tokens, scheduled: None, begun, replica, state: None };
        let measured_from = self.phase.measured_from;
        let (id, ended, answer) = (self.sent, begun, Err(error));
        Some(RawResult { id, asked, started, ended, measured_from, answer })
    }

    fn give(&self, over: RawResult) {
        // The receiver is gone only if its thread panicked, which `join` reports.
        let _ = self.over.send(over);
    }
}

impl ConversationState {
    /// The next turn.
    fn next(&self) -> Option<&Arc<Prompt>> {
        match self.asked {
            0 => Some(&self.prompt),
            asked => self.prompt.turns.get(asked - 1),
        }
    }

    /// Returns the next turn and its request.
    fn go_on(&mut self, target: &Target) -> (Arc<Prompt>, (Vec<u8>, RequestedTokens)) {
        let turn = self.next().unwrap_or(&self.prompt).clone();
        self.asked += 1;
        let request = self.so_far.question(target, &turn);
        (turn, request)
    }
}

impl RequestSource for Load<'_> {
    fn next(&mut self, now: Instant, idle: usize) -> NextAction {
        let started = *self.started.get_or_insert(now);
        let Some(start) = self.next_start(now - started) else { return NextAction::AfterAnAnswer };
        let in_flight = self.in_flight();
        let most = match self.workload.shape {
            Shape::Closed { concurrency } => concurrency,
            Shape::Open { max_in_flight, .. } => max_in_flight,
        };
        if in_flight >= most {
            return NextAction::AfterAnAnswer;
        }
        if let Some(grown) = self.grows_at(in_flight).filter(|at| *at > now - started) {
            return NextAction::At(started + grown);
        }
        if started + start <= now {
            // Answers wait to be interpreted. Without more requests there will be fewer.
            if self.memory.is_full() {
                return NextAction::At(now + FULL);
            }
            return self.send(now);
        }
        let wanted = self.reserve.min(most - in_flight);
        if idle.saturating_add(self.opening) < wanted && Preconnect::may_open(self.opening) {
            self.opening += 1;
            return NextAction::Open;
        }
        NextAction::At(started + start)
    }

    fn opened(&mut self, opened: Result<(), RequestError>) {
        self.opening -= 1;
        // The requests that open their own connections then report why.
        if opened.is_err() {
            self.reserve = 0;
        }
    }

    fn ending(&mut self, id: usize) {
        if self.ending.len() < self.most_ending {
            self.ending.insert(id, now());
            self.count_in_flight();
        }
    }

    fn finished(&mut self, id: usize, answer: Result<Recording, RequestError>) {
        let Some((mut asked, started)) = self.under_way.remove(&id).zip(self.started) else {
            return;
        };
        let freed = self.ending.remove(&id);
        self.replicas.end(asked.replica);
        self.count_in_flight();
        if was_interrupted(&answer) {
            return;
        }
        let ended = freed.or_else(|| end_of(&answer)).unwrap_or_else(now);
        let failed_turn = match (asked.state.take(), &answer) {
            (Some(state), Ok(recording)) => self.go_on(state, recording, started),
            _ => None,
        };
        let measured_from = self.phase.measured_from;
        self.give(RawResult { id, asked, started, ended, measured_from, answer });
        failed_turn.into_iter().for_each(|over| self.give(over));
    }
}

/// Returns when an answer ended whose body the server kept open. The time for which the client
/// waits for the end of the body is not part of the load.
fn end_of(answer: &Result<Recording, RequestError>) -> Option<Instant> {
    let recording = answer.as_ref().ok()?;
    let is_left_open = recording.broken.as_ref()?.kind == ErrorKind::LeftOpen;
    Some(recording.origin? + recording.ended_at).filter(|_| is_left_open)
}

/// Limit of the completed answers whose connections stay open, so that the process has enough file
/// descriptors for the requests in flight.
fn most_ending(target: &Target, workload: &Workload) -> usize {
    /// Open bodies for each request in flight. A server that answers within 0.1 s requires fewer.
    const EACH: usize = 4;
    let counting = match workload.shape {
        Shape::Closed { concurrency } => concurrency,
        Shape::Open { max_in_flight, .. } => max_in_flight,
    };
    let open_files = client::most_connections(if target.is_simulated() { 2 } else { 1 });
    counting.saturating_mul(EACH).min(open_files.saturating_sub(counting))
}

fn was_interrupted(answer: &Result<Recording, RequestError>) -> bool {
    let error = match answer {
        Ok(recording) => recording.broken.as_ref(),
        Err(error) => Some(error),
    };
    error.is_some_and(|error| error.kind == ErrorKind::Interrupted)
}

impl RawResult {
    /// Interprets the answer. The times of an open loop count from the scheduled start. The requests
    /// of a trace are expected to find their beginnings in a cache.
    fn read(self, target: &Target, secrets: &Redactor, is_replayed: bool) -> RequestEnd {
        let Self { id, asked, started, ended, measured_from, answer } = self;
        let Question { prompt, tokens, scheduled, begun, replica, .. } = asked;
        let since_start = |at: Instant| at.saturating_duration_since(started);
        let sent = answer.as_ref().ok().and_then(|recording| recording.origin).map(since_start);
        let mut answer = Answer::of(answer, target, tokens, secrets);
        if let Some((scheduled, sent)) = scheduled.zip(sent) {
            let lag = sent.saturating_sub(scheduled);
            answer.outcome = answer.outcome.map(|sample| sample.scheduled_before(lag));
        }
        if prompt.expects_cache() || is_replayed {
            answer.outcome = answer.outcome.map(sample::Sample::of_later_turn);
        }
        let sample = answer.outcome.as_ref().ok();
        let span = RequestSpan {
            scheduled,
            begun: since_start(begun),
            ended: since_start(ended),
            tokens: sample.map(|sample| sample.items.unwrap_or(sample.response_tokens)),
            has_items: sample.is_some_and(|sample| sample.items.is_some()),
            refused: sample.and_then(|sample| sample.refused(CountKind::Response)),
            is_good: None,
        };
        let place = LoadPosition {
            request: id,
            replica,
            scheduled,
            sent,
            begun: span.begun,
            ended: span.ended,
        };
        RequestEnd {
            prompt,
            place,
            span,
            measured_from,
            since_begun: now().saturating_duration_since(begun),
            answer,
        }
    }
}

/// The clock of all timestamps of a load.
#[expect(clippy::disallowed_methods, reason = "a load has its times")]
fn now() -> Instant {
    Instant::now()
}
