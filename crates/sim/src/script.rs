//! The script of the simulated endpoint: when each event of an answer is due, and which faults
//! occur. Pure; the server only keeps to the schedule.

use std::{borrow::Cow, mem, ops::Range, time::Duration};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use llm_stream_core::protocol::{MessagePart, Timings, TokenKind, Usage};

use super::batching::{Job, ServerCapacity};

/// The schedule of every answer and its faults.
///
/// Token event k, counted from 0, is due `ttft + k × itl` after the request was read. All times are
/// on this grid, so that one late write does not delay the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Time from the end of the request to the write of the first token event.
    pub ttft: Duration,
    /// Time between token events.
    pub itl: Duration,
    /// The largest deviation of a token event from the grid. The deviations are uniform and
    /// independent, so jitter does not add up over an answer. Where it would put an event before
    /// its predecessor, both are due together.
    pub jitter: Duration,
    /// The capacity of the server, which then decides when each event is due: `ttft` and `itl` do
    /// not count, and `jitter` is the largest deviation of a step. `None` answers every request as
    /// if it were alone.
    pub capacity: Option<ServerCapacity>,
    /// Tokens to generate. The request's `max_tokens` can lower the number, and its `min_tokens`
    /// and `ignore_eos` can raise it, up to [`MOST_TOKENS`](Self::MOST_TOKENS).
    pub tokens: u64,
    /// Tokens per token event. The last event of a kind holds the rest. 0 counts as 1.
    pub tokens_per_event: u64,
    /// The number of leading tokens that are reasoning. No event mixes reasoning and answer.
    pub reasoning_tokens: u64,
    /// Tokens of the prompt that the usage reports as cached.
    pub cached_tokens: u64,
    /// Whether the answer ends with the scripted times, as some servers report their own.
    pub timings: bool,
    /// Seed of the jitter and of the answers' ids. With the same seed, the n-th request of every
    /// run gets the same answer.
    pub seed: u64,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// A fault, and the request that it applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The number of the affected request, counted from 1 since the start of the endpoint, warm-up
    /// included. `None` affects every request.
    pub request: Option<u64>,
}

/// The kinds of faults. Several can affect one request. Among those that decide how it is answered
/// or ends, the first in the list applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Answers with this HTTP status and the protocol's error body.
    Status(u16),
    /// Writes this many token events, then nothing more, and keeps the connection open.
    Stall(u64),
    /// Writes this many token events, then ends the body as if it were complete.
    Truncate(u64),
    /// Writes this many token events, then resets the connection.
    Reset(u64),
    /// Writes this many token events, then an error inside the stream.
    ErrorInBand(u64),
    /// Omits the usage.
    MissingUsage,
    /// Omits the end marker and the other contents of that event.
    MissingEnd,
    /// Writes every event in pieces of this many bytes, each as a separate write.
    Split(u64),
    /// Gathers this many events into each write, which is due with the last of them.
    Merge(u64),
    /// Reports times that are this percentage of the true ones.
    WrongTimings(u64),
    /// Answers with a complete JSON body instead of a stream.
    NoStream,
}

impl FaultKind {
    /// Returns the fault without a number, such as `missing_usage`.
    pub fn flag(name: &str) -> Option<Self> {
        match name {
            "missing_usage" => Some(Self::MissingUsage),
            "missing_end" => Some(Self::MissingEnd),
            "no_stream" => Some(Self::NoStream),
            _ => None,
        }
    }

    /// Returns the fault with a number, such as `stall: 10`.
    pub fn with_number(name: &str, number: u64) -> Option<Self> {
        match name {
            "status" => u16::try_from(number).ok().map(Self::Status),
            "stall" => Some(Self::Stall(number)),
            "truncate" => Some(Self::Truncate(number)),
            "reset" => Some(Self::Reset(number)),
            "error" => Some(Self::ErrorInBand(number)),
            "split" => Some(Self::Split(number)),
            "merge" => Some(Self::Merge(number)),
            "wrong_timings" => Some(Self::WrongTimings(number)),
            _ => None,
        }
    }
}

impl Default for Script {
    fn default() -> Self {
        Self {
            ttft: Duration::from_millis(50),
            itl: Duration::from_millis(10),
            jitter: Duration::ZERO,
            capacity: None,
            tokens: 64,
            tokens_per_event: 1,
            reasoning_tokens: 0,
            cached_tokens: 0,
            timings: false,
            seed: 0,
            faults: Vec::new(),
        }
    }
}

/// The facts about a request that the answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestFacts {
    /// The request's number among the requests for a completion, from 1.
    pub(super) number: u64,
    /// The largest number of tokens that it allows.
    pub(super) max_tokens: Option<u64>,
    /// Characters of its messages' text.
    pub(super) prompt_chars: u64,
    /// The smallest number of tokens that it demands.
    pub(super) min_tokens: u64,
    /// Whether it asks for the usage.
    pub(super) include_usage: bool,
    /// Whether it asks for a stream.
    pub(super) streamed: bool,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum ScriptedResponse {
    /// An error body with this HTTP status, at once.
    Status(u16),
    /// One JSON body, at once.
    Whole(WholeAnswer),
    /// A stream.
    Stream(AnswerStream),
}

/// A completion that is not streamed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WholeAnswer {
    /// The reasoning before the answer.
    pub(super) reasoning: String,
    /// The answer.
    pub(super) text: String,
    /// Why generation ended.
    pub(super) finish: &'static str,
    /// The token counts.
    pub(super) usage: Usage,
}

/// One step of a stream.
#[derive(Debug, PartialEq)]
pub(super) struct ScriptStep {
    /// When it is due, counted from the moment at which the request was read.
    pub(super) at: Duration,
    /// The parts of the messages that it carries. At most one part of a message is a token event.
    pub(super) messages: Vec<Vec<MessagePart<'static>>>,
}

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The body ends as HTTP requires.
    Clean,
    /// Nothing follows, and the connection stays open.
    Stall,
    /// The connection is reset.
    Reset,
}

/// A setting of a [`Script`] that is impossible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    /// The field to change.
    pub field: &'static str,
    /// The problem.
    pub what: String,
    /// The fix.
    pub help: &'static str,
}

impl Script {
    /// The longest answer. `merge` and answers that are not streamed keep all of it in memory.
    pub const MOST_TOKENS: u64 = 1_000_000;

    /// Returns the impossible settings.
    pub fn errors(&self) -> Vec<ScriptError> {
        let mut errors = Vec::new();
        let shortest = self.itl.min(self.ttft);
        let step = self.capacity.map(|capacity| capacity.base);
        if let Some(base) = step.filter(|base| self.jitter > *base) {
            errors.push(ScriptError {
                field: "jitter",
                what: format!("`jitter` is longer than `base` of `decode`, which is {base:?}"),
                help: "it is taken from and added to each step, so it can be as long as `base`",
            });
        }
        if step.is_none() && self.jitter > shortest {
            let limit = if self.itl <= self.ttft { "itl" } else { "ttft" };
            errors.push(ScriptError {
                field: "jitter",
                what: format!("`jitter` is longer than `{limit}`, which is {shortest:?}"),
                help: "it is taken from and added to `ttft` and `itl`, so it can be as long as the shorter one",
            });
        }
        if self.reasoning_tokens > self.tokens {
            errors.push(ScriptError {
                field: "reasoning_tokens",
                what: format!("there are more `reasoning_tokens` than `tokens`, {}", self.tokens),
                help: "reasoning tokens are the first ones of `tokens`",
            });
        }
        errors
    }

    /// Returns the id of the answer to request `number`.
    pub(super) fn id(&self, number: u64) -> String {
        format!("chatcmpl-sim-{:x}-{number}", self.seed)
    }

    /// Returns the answer to a request.
    pub(super) fn answer(&self, facts: &RequestFacts) -> ScriptedResponse {
        let whole = |kind| match kind {
            FaultKind::Status(code) => Some(ScriptedResponse::Status(code)),
            FaultKind::NoStream => Some(ScriptedResponse::Whole(self.whole(facts))),
            _ => None,
        };
        // The first fault that replaces the whole answer applies; faults of the stream are applied
        // by `AnswerStream::new`.
        self.faults_of(facts.number)
            .find_map(whole)
            .unwrap_or_else(|| ScriptedResponse::Stream(AnswerStream::new(self, facts)))
    }

    /// Returns the request for the server's batch, if its capacity is limited.
    pub(super) fn job(&self, facts: &RequestFacts, stream: &AnswerStream) -> Job {
        let prompt = prompt_tokens(facts);
        Job {
            id: facts.number,
            prompt: prompt.saturating_sub(self.cached_tokens),
            reserved: prompt.saturating_add(self.tokens_for(facts)),
            events: stream.events.left().max(1),
        }
    }

    fn whole(&self, facts: &RequestFacts) -> WholeAnswer {
        let tokens = self.tokens_for(facts);
        let border = self.reasoning_tokens.min(tokens);
        WholeAnswer {
            reasoning: words(0..border),
            text: words(border..tokens),
            finish: self.finish(facts),
            usage: self.usage(facts),
        }
    }

    fn faults_of(&self, number: u64) -> impl Iterator<Item = FaultKind> {
        self.faults
            .iter()
            .filter(move |fault| fault.request.is_none_or(|only| only == number))
            .map(|fault| fault.kind)
    }

    fn tokens_for(&self, facts: &RequestFacts) -> u64 {
        // The request's limit has the last word, as with real servers.
        let most = facts.max_tokens.unwrap_or(u64::MAX);
        self.tokens.max(facts.min_tokens).min(Self::MOST_TOKENS).min(most)
    }

    fn finish(&self, facts: &RequestFacts) -> &'static str {
        // An answer that may not end by itself ends at its limit.
        let forced = facts.min_tokens >= facts.max_tokens.unwrap_or(u64::MAX);
        if forced || self.tokens_for(facts) < self.tokens { "length" } else { "stop" }
    }

    /// Returns the token counts. Those of the answer are exact. The prompt's is an estimate of four
    /// characters per token, because the simulator has no tokenizer.
    fn usage(&self, facts: &RequestFacts) -> Usage {
        let some = |count: u64| (count > 0).then_some(count);
        let completion = self.tokens_for(facts);
        let prompt = prompt_tokens(facts);
        Usage {
            prompt_tokens: Some(prompt),
            completion_tokens: Some(completion),
            total_tokens: Some(prompt.saturating_add(completion)),
            cached_tokens: some(self.cached_tokens),
            reasoning_tokens: some(self.reasoning_tokens.min(completion)),
            renamed: false,
        }
    }

    /// Returns the messages after the last token event.
    fn tail(&self, facts: &RequestFacts) -> Vec<MessagePart<'static>> {
        let has = |fault| self.faults_of(facts.number).any(|kind| kind == fault);
        let mut tail = vec![MessagePart::Finish(self.finish(facts).into())];
        if facts.include_usage && !has(FaultKind::MissingUsage) {
            tail.push(MessagePart::Usage(self.usage(facts)));
        }
        if !has(FaultKind::MissingEnd) {
            tail.push(MessagePart::End);
        }
        tail
    }
}

/// Returns the tokens of a prompt, four characters each.
fn prompt_tokens(facts: &RequestFacts) -> u64 {
    facts.prompt_chars.div_ceil(4).max(1)
}

/// The steps of a streamed answer. They are created on demand, so that an answer of any length
/// takes the same memory.
#[derive(Debug)]
pub(super) struct AnswerStream {
    events: TokenEvents,
    /// Token events per step; 0 without `merge`.
    merge: u64,
    split: Option<usize>,
    /// Whether all of the answer is one document, which is due with the last token.
    is_document: bool,
    role: bool,
    tail: Vec<MessagePart<'static>>,
    ending: StreamEnd,
    /// The reported times as a percentage of the true ones.
    timings: Option<u64>,
    /// When the first token event was due.
    first: Option<Duration>,
    /// When the latest step is due.
    at: Duration,
}

impl AnswerStream {
    fn new(script: &Script, facts: &RequestFacts) -> Self {
        let mut stream = Self {
            events: TokenEvents::new(script, facts),
            merge: 0,
            split: None,
            is_document: !facts.streamed,
            role: true,
            tail: script.tail(facts),
            ending: StreamEnd::Clean,
            timings: script.timings.then_some(100),
            first: None,
            at: Duration::from_nanos(nanoseconds(script.ttft)),
        };
        // Faults that change the writes combine. Of those that end the answer, only the first one
        // applies.
        let mut cut = None;
        for kind in script.faults_of(facts.number) {
            match kind {
                FaultKind::Split(bytes) => {
                    stream.split = Some(usize::try_from(bytes).unwrap_or(usize::MAX).max(1));
                }
                FaultKind::Merge(events) => stream.merge = events.max(1),
                FaultKind::WrongTimings(percent) => stream.timings = Some(percent),
                other => cut = cut.or_else(|| Cut::by(other)),
            }
        }
        if let Some(cut) = cut {
            cut.apply(&mut stream);
        }
        if stream.is_document {
            stream.merge = u64::MAX;
        }
        stream
    }

    /// Returns whether all of the answer is one document.
    pub(super) fn is_document(&self) -> bool {
        self.is_document
    }

    /// Returns whether the document is written as a whole: no fault cuts or splits it.
    pub(super) fn is_intact(&self) -> bool {
        self.split.is_none() && !self.is_cut()
    }

    /// Returns whether a fault ends the answer early.
    pub(super) fn is_cut(&self) -> bool {
        self.tail.is_empty()
    }

    /// Returns whether a step is one write, instead of a write per message.
    pub(super) fn is_merged(&self) -> bool {
        self.merge > 0
    }

    /// Returns the size of the pieces that everything is split into, bytes.
    pub(super) fn split(&self) -> Option<usize> {
        self.split
    }

    /// Returns the token events of the next step; 0 if only messages without tokens follow. Where an
    /// answer has no token, its end takes the place of an event.
    pub(super) fn next_events(&self) -> u64 {
        let events = self.merge.max(1).min(self.events.left());
        if events == 0 { u64::from(self.role) } else { events }
    }

    /// Makes the next step due at `at`, whatever the script says.
    pub(super) fn set_due(&mut self, at: Duration) {
        self.at = at;
        self.events.set_due = Some(at);
    }

    /// Returns whether all token events have been taken.
    pub(super) fn is_past_tokens(&self) -> bool {
        self.events.index > 0 && self.events.is_over()
    }

    /// Returns what follows the last step.
    pub(super) fn ending(&self) -> StreamEnd {
        self.ending
    }

    /// Returns when the latest step was due; before the first step, the time to the first token.
    pub(super) fn at(&self) -> Duration {
        self.at
    }

    /// Returns the reported times. They are those of the scripted tokens, whatever the size of the
    /// writes.
    fn reported_timings(&self) -> Option<MessagePart<'static>> {
        let (part, first) = (self.timings? as f64 / 100.0, self.first?);
        let of = |time: Duration| Duration::try_from_secs_f64(time.as_secs_f64() * part).ok();
        Some(MessagePart::Timings(Timings {
            prompt: of(first),
            generation: of(self.at.saturating_sub(first)),
            ..Timings::default()
        }))
    }

    /// Returns the messages after the last token event, with the times in front of the end marker.
    fn trailer(&mut self) -> Vec<Vec<MessagePart<'static>>> {
        let timings = self.reported_timings();
        let timings = timings.filter(|_| matches!(self.tail.first(), Some(MessagePart::Finish(_))));
        let mut tail = mem::take(&mut self.tail);
        let end = tail.iter().position(|part| *part == MessagePart::End).unwrap_or(tail.len());
        tail.splice(end..end, timings);
        tail.into_iter().map(|part| vec![part]).collect()
    }

    /// Returns the role, which precedes the first message.
    fn role(&mut self) -> Option<Vec<MessagePart<'static>>> {
        mem::take(&mut self.role).then(|| vec![MessagePart::Role])
    }
}

impl Iterator for AnswerStream {
    type Item = ScriptStep;

    fn next(&mut self) -> Option<ScriptStep> {
        let mut messages = Vec::new();
        for _ in 0..self.merge.max(1) {
            let Some(event) = self.events.next() else {
                break;
            };
            self.at = event.at;
            self.first.get_or_insert(event.at);
            messages.extend(self.role());
            messages.push(vec![MessagePart::Token(event.kind, Cow::Owned(event.text))]);
        }
        // The trailer is a separate step, so that it can be due with the last token event and still
        // be a separate write.
        if messages.is_empty() && !self.tail.is_empty() {
            messages.extend(self.role());
            messages.extend(self.trailer());
        }
        (!messages.is_empty()).then_some(ScriptStep { at: self.at, messages })
    }
}

/// How a fault ends an answer early.
#[derive(Debug)]
struct Cut {
    after: u64,
    ending: StreamEnd,
    error: bool,
}

impl Cut {
    fn by(kind: FaultKind) -> Option<Self> {
        let (after, ending, error) = match kind {
            FaultKind::Stall(after) => (after, StreamEnd::Stall, false),
            FaultKind::Truncate(after) => (after, StreamEnd::Clean, false),
            FaultKind::Reset(after) => (after, StreamEnd::Reset, false),
            FaultKind::ErrorInBand(after) => (after, StreamEnd::Clean, true),
            _ => return None,
        };
        Some(Self { after, ending, error })
    }

    fn apply(self, stream: &mut AnswerStream) {
        stream.events.most = self.after;
        stream.ending = self.ending;
        if self.error {
            let message = format!(
                "simulated fault: error after {} token events",
                self.after.min(stream.events.in_all())
            );
            // An error replaces the finish reason and the usage; the end marker stays, as servers
            // send it.
            stream.tail.retain(|part| *part == MessagePart::End);
            stream.tail.insert(0, MessagePart::Error(message));
        } else {
            stream.tail.clear();
        }
    }
}

/// Generated text and the time when it is due.
#[derive(Debug)]
struct TokenEvent {
    at: Duration,
    kind: TokenKind,
    text: String,
}

/// The token events of an answer.
#[derive(Debug)]
struct TokenEvents {
    ttft: u64,
    itl: u64,
    jitter: i64,
    per_event: u64,
    /// The index of the first token that is not reasoning.
    border: u64,
    tokens: u64,
    /// The number of token events that a fault allows.
    most: u64,
    random: Pcg64Mcg,
    /// The number of events so far.
    index: u64,
    /// The number of tokens so far.
    token: u64,
    /// When the latest event is due, ns.
    latest: u64,
    /// When the next events are due, if the script does not decide that.
    set_due: Option<Duration>,
}

impl TokenEvents {
    fn new(script: &Script, facts: &RequestFacts) -> Self {
        let tokens = script.tokens_for(facts);
        Self {
            ttft: nanoseconds(script.ttft),
            itl: nanoseconds(script.itl),
            jitter: i64::try_from(script.jitter.as_nanos()).unwrap_or(i64::MAX),
            per_event: script.tokens_per_event.max(1),
            border: script.reasoning_tokens.min(tokens),
            tokens,
            most: u64::MAX,
            // Seeded by the request, not by the order of draws, so that concurrent requests cannot
            // change each other's jitter.
            random: Pcg64Mcg::seed_from_u64(script.seed.wrapping_add(facts.number)),
            index: 0,
            token: 0,
            latest: 0,
            set_due: None,
        }
    }

    fn is_over(&self) -> bool {
        self.token == self.tokens || self.index == self.most
    }

    /// Returns the number of token events that follow.
    fn left(&self) -> u64 {
        self.in_all().min(self.most).saturating_sub(self.index)
    }

    /// Returns the number of token events without faults.
    fn in_all(&self) -> u64 {
        let events = |tokens: u64| tokens.div_ceil(self.per_event);
        events(self.border) + events(self.tokens - self.border)
    }

    fn due(&mut self) -> Duration {
        if let Some(at) = self.set_due {
            return at;
        }
        // The position on the grid depends only on the index. A sum of jittered gaps would drift.
        let due = self.ttft.saturating_add(self.itl.saturating_mul(self.index));
        let off = match self.jitter {
            0 => 0,
            most => self.random.random_range(-most..=most),
        };
        // Two events can be due together, but none before its predecessor.
        self.latest = self.latest.max(due.saturating_add_signed(off));
        Duration::from_nanos(self.latest)
    }
}

impl Iterator for TokenEvents {
    type Item = TokenEvent;

    fn next(&mut self) -> Option<TokenEvent> {
        if self.is_over() {
            return None;
        }
        let (kind, end) = if self.token < self.border {
            (TokenKind::Reasoning, self.border)
        } else {
            (TokenKind::Answer, self.tokens)
        };
        let end = self.token.saturating_add(self.per_event).min(end);
        let event = TokenEvent { at: self.due(), kind, text: words(self.token..end) };
        self.index += 1;
        self.token = end;
        Some(event)
    }
}

/// Some words have multi-byte characters, so that pieces can end inside a character.
const WORDS: &[&str] = &[
    " the", " stream", " keeps", " its", " pace", "，", "一个", "字", " after", " another", "🙂",
    ".",
];

/// Returns the text of the tokens with these indices.
fn words(tokens: Range<u64>) -> String {
    let length = WORDS.len() as u64;
    tokens.map(|token| WORDS[(token % length) as usize]).collect()
}

/// Returns the nanoseconds, five centuries at most, which can be added to any `Instant`.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: RequestFacts = RequestFacts {
        number: 1,
        max_tokens: None,
        min_tokens: 0,
        prompt_chars: 9,
        include_usage: true,
        streamed: true,
    };

    fn script(tokens: u64, faults: &[FaultKind]) -> Script {
        Script {
            ttft: ms(50),
            itl: ms(10),
            jitter: ms(0),
            capacity: None,
            tokens,
            tokens_per_event: 1,
            reasoning_tokens: 0,
            cached_tokens: 0,
            timings: false,
            seed: 0xab,
            faults: faults.iter().map(|&kind| Fault { kind, request: None }).collect(),
        }
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn stream(script: &Script, facts: &RequestFacts) -> AnswerStream {
        match script.answer(facts) {
            ScriptedResponse::Stream(stream) => stream,
            other => panic!("not a stream: {other:?}"),
        }
    }

    fn steps(script: &Script) -> Vec<ScriptStep> {
        stream(script, &FACTS).collect()
    }

    fn answer(text: &'static str) -> Vec<MessagePart<'static>> {
        vec![MessagePart::Token(TokenKind::Answer, text.into())]
    }

    fn usage(prompt: u64, completion: u64) -> Usage {
        Usage {
            prompt_tokens: Some(prompt),
            completion_tokens: Some(completion),
            total_tokens: Some(prompt + completion),
            ..Usage::default()
        }
    }

    fn token_events(steps: &[ScriptStep]) -> usize {
        let parts = steps.iter().flat_map(|step| step.messages.iter().flatten());
        parts.filter(|part| matches!(part, MessagePart::Token(..))).count()
    }

    #[test]
    fn an_answer_is_the_role_with_the_first_token_then_tokens_on_a_grid_then_the_trailer() {
        assert_eq!(
            steps(&script(2, &[])),
            [
                ScriptStep { at: ms(50), messages: vec![vec![MessagePart::Role], answer(" the")] },
                ScriptStep { at: ms(60), messages: vec![answer(" stream")] },
                ScriptStep {
                    at: ms(60),
                    messages: vec![
                        vec![MessagePart::Finish("stop".into())],
                        vec![MessagePart::Usage(usage(3, 2))],
                        vec![MessagePart::End],
                    ],
                },
            ]
        );
    }

    #[test]
    fn max_tokens_cuts_the_answer_and_the_finish_reason_says_so() {
        let facts = RequestFacts { max_tokens: Some(1), include_usage: false, ..FACTS };
        let steps: Vec<ScriptStep> = stream(&script(2, &[]), &facts).collect();
        assert_eq!(
            steps[1].messages,
            [vec![MessagePart::Finish("length".into())], vec![MessagePart::End]]
        );
        assert_eq!(token_events(&steps), 1);
    }

    #[test]
    fn an_answer_without_tokens_has_a_role_and_a_trailer_at_the_time_of_the_first_token() {
        let steps = steps(&script(0, &[]));
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].at, ms(50));
        assert_eq!(steps[0].messages[0], [MessagePart::Role]);
    }

    #[test]
    fn an_event_never_mixes_reasoning_and_answer() {
        let script =
            Script { tokens_per_event: 2, reasoning_tokens: 3, cached_tokens: 7, ..script(6, &[]) };
        let steps = steps(&script);
        let tokens: Vec<_> = steps.iter().flat_map(|step| step.messages.iter()).collect();
        let reasoning =
            |text: &'static str| vec![MessagePart::Token(TokenKind::Reasoning, text.into())];
        assert_eq!(
            tokens[1..5],
            [&reasoning(" the stream"), &reasoning(" keeps"), &answer(" its pace"), &answer("，"),]
        );
        let MessagePart::Usage(usage) = &tokens[6][0] else {
            panic!("no usage: {tokens:?}");
        };
        assert_eq!((usage.reasoning_tokens, usage.cached_tokens), (Some(3), Some(7)));
    }

    #[test]
    fn jitter_stays_near_the_grid_keeps_the_order_and_is_the_same_each_time() {
        let script = Script { jitter: ms(8), ..script(500, &[]) };
        let at: Vec<Duration> = steps(&script).iter().map(|step| step.at).collect();
        assert!(at.is_sorted());
        for (index, at) in (0u64..500).zip(&at) {
            assert!(at.abs_diff(ms(50 + 10 * index)) <= ms(8), "{index}: {at:?}");
        }
        assert!(at[499].abs_diff(ms(5040)) > Duration::ZERO);
        assert_eq!(at, steps(&script).iter().map(|s| s.at).collect::<Vec<_>>());
        let second = RequestFacts { number: 2, ..FACTS };
        assert_ne!(at, stream(&script, &second).map(|s| s.at).collect::<Vec<_>>());
    }

    #[test]
    fn stall_truncate_and_reset_keep_their_events_and_leave_the_trailer_out() {
        for (kind, ending) in [
            (FaultKind::Stall(2), StreamEnd::Stall),
            (FaultKind::Truncate(2), StreamEnd::Clean),
            (FaultKind::Reset(2), StreamEnd::Reset),
        ] {
            let mut stream = stream(&script(5, &[kind]), &FACTS);
            let steps: Vec<ScriptStep> = stream.by_ref().collect();
            assert_eq!((steps.len(), token_events(&steps)), (2, 2));
            assert_eq!((stream.ending(), stream.at()), (ending, ms(60)));
        }
    }

    #[test]
    fn a_fault_before_the_first_token_leaves_nothing() {
        assert_eq!(steps(&script(5, &[FaultKind::Truncate(0)])), []);
    }

    #[test]
    fn a_fault_later_than_the_last_token_still_replaces_the_trailer() {
        let steps = steps(&script(2, &[FaultKind::Truncate(9)]));
        assert_eq!((steps.len(), token_events(&steps)), (2, 2));
    }

    #[test]
    fn reported_times_are_those_of_the_script() {
        let reported = |faults: &[FaultKind]| {
            let steps = steps(&Script { timings: true, ..script(3, faults) });
            let parts = steps.last().unwrap().messages.concat();
            parts.into_iter().find_map(|part| match part {
                MessagePart::Timings(timings) => Some((timings.prompt?, timings.generation?)),
                _ => None,
            })
        };
        assert_eq!(reported(&[]), Some((ms(50), ms(20))));
        assert_eq!(reported(&[FaultKind::Merge(2)]), Some((ms(50), ms(20))));
        assert_eq!(reported(&[FaultKind::WrongTimings(150)]), Some((ms(75), ms(30))));
        assert_eq!(reported(&[FaultKind::ErrorInBand(3)]), None);
    }

    #[test]
    fn an_error_in_the_stream_comes_instead_of_finish_and_usage() {
        let steps = steps(&script(5, &[FaultKind::ErrorInBand(1)]));
        let error = "simulated fault: error after 1 token events".to_owned();
        assert_eq!(
            steps[1..],
            [ScriptStep {
                at: ms(50),
                messages: vec![vec![MessagePart::Error(error)], vec![MessagePart::End]]
            }]
        );
    }

    #[test]
    fn usage_and_end_marker_can_be_missing_together() {
        let faults = [FaultKind::MissingUsage, FaultKind::MissingEnd];
        let steps = steps(&script(1, &faults));
        assert_eq!(steps[1].messages, [vec![MessagePart::Finish("stop".into())]]);
    }

    #[test]
    fn merged_events_are_due_with_the_last_of_them() {
        let steps = steps(&script(5, &[FaultKind::Merge(2)]));
        let at: Vec<Duration> = steps.iter().map(|step| step.at).collect();
        assert_eq!(at, [ms(60), ms(80), ms(90), ms(90)]);
        assert_eq!(token_events(&steps[..1]), 2);
        assert_eq!(token_events(&steps[2..3]), 1);
    }

    #[test]
    fn a_fault_of_one_request_does_not_affect_others() {
        let mut script = script(5, &[FaultKind::Status(503)]);
        script.faults[0].request = Some(2);
        let second = RequestFacts { number: 2, ..FACTS };
        assert!(matches!(script.answer(&FACTS), ScriptedResponse::Stream(_)));
        assert!(matches!(script.answer(&second), ScriptedResponse::Status(503)));
    }

    #[test]
    fn an_answer_that_is_not_streamed_says_the_same() {
        let script = Script { reasoning_tokens: 1, ..script(3, &[FaultKind::NoStream]) };
        let ScriptedResponse::Whole(whole) = script.answer(&FACTS) else {
            panic!("not whole");
        };
        assert_eq!(
            whole,
            WholeAnswer {
                reasoning: " the".to_owned(),
                text: " stream keeps".to_owned(),
                finish: "stop",
                usage: Usage { reasoning_tokens: Some(1), ..usage(3, 3) },
            }
        );
    }

    #[test]
    fn settings_beyond_the_longest_answer_are_limited() {
        let boundless = |kind| Script {
            ttft: Duration::MAX,
            itl: Duration::MAX,
            jitter: Duration::MAX,
            capacity: None,
            tokens: u64::MAX,
            tokens_per_event: u64::MAX,
            reasoning_tokens: 1,
            cached_tokens: u64::MAX,
            timings: true,
            seed: u64::MAX,
            faults: vec![Fault { kind, request: None }],
        };
        let mut stream = stream(&boundless(FaultKind::Merge(u64::MAX)), &FACTS);
        let _ = super::super::pace::now() + stream.at();
        let first = stream.next().expect("the tokens");
        assert_eq!(first.messages.len(), 3, "a role, a token of reasoning, the answer");
        let _ = super::super::pace::now() + first.at;
        assert_eq!(stream.next().map(|tail| tail.at), Some(first.at));
        let ScriptedResponse::Whole(whole) = boundless(FaultKind::NoStream).answer(&FACTS) else {
            panic!("a stream");
        };
        assert_eq!(whole.finish, "length");
        assert_eq!(whole.usage.completion_tokens, Some(Script::MOST_TOKENS));
    }

    #[test]
    fn an_id_names_the_seed_and_the_request() {
        assert_eq!(script(1, &[]).id(12), "chatcmpl-sim-ab-12");
    }
}
