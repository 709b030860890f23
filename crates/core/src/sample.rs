//! Interprets a recording as a chat completion: [`Recording`] × [`Protocol`] → [`Sample`], or the
//! reason why there is none. Pure: the same recording always has the same sample.

mod arrivals;
mod counts;
mod events;
mod text;

use std::{borrow::Cow, fmt, iter, mem, time::Duration};

use serde::{Deserialize, Serialize, de::IgnoredAny};

pub use self::{
    arrivals::ArrivalUncertainty,
    events::{EventContents, EventLog, EventPart, EventRun},
};
use self::{
    arrivals::{ArrivalTracker, EventProgress},
    counts::{EventCounts, TokenEvidence},
};
use crate::{
    coding,
    framing::{Frame, Framing},
    metric::Metric,
    protocol::{
        DecodeError, EventTemplate, Message, MessagePart, Protocol, TextFields, TextTraits,
        Timings, TokenKind, Usage,
    },
    recording::{Chunk, ErrorKind, Recording, RequestError, StampedBy},
    synthetic::Length,
    text::{counted, visible},
    tokenizer::Tokenizer,
};

/// The shortest generation time that is reported. A shorter one may be the delivery of an answer
/// that a proxy buffered.
pub const SHORTEST_GENERATION: Duration = Duration::from_millis(1);

/// The smallest number of arrivals that adds no uncertainty. With fewer, one arrival more
/// or less at an end is a tenth of the generation time.
pub const FEWEST_ARRIVALS: usize = 10;

/// An answer counts as held back if its tokens may have been gathered for more than this many times
/// the time in which they arrived, and they arrived faster than any model generates. Its speed is
/// then that of the network.
const HELD_BACK: u32 = 4;

/// Token events of an answer at a shorter distance come from a buffer instead of a model, unless
/// the server's own clock says otherwise.
const FASTEST_EVENTS: Duration = Duration::from_millis(1);

/// The largest delay of a client that reads on time. It polls its sockets every millisecond, every
/// two with many answers in flight, and reading takes time.
const PUNCTUAL: Duration = Duration::from_millis(3);

/// The same with timestamps of the program, whose timers are up to a millisecond late.
const PUNCTUAL_PROGRAM: Duration = Duration::from_millis(4);

/// The share of a figure that a late read may change without a note.
const NEGLIGIBLE: f64 = 0.01;

/// Token events at a shorter distance share one arrival: they came from one read or were held back
/// together.
pub const SHARED_ARRIVAL: Duration = Duration::from_micros(50);

/// The largest number of tokens that a server may add to a prompt without showing them.
const UNSEEN_PROMPT: u64 = 65_536;

/// The token counts that a request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestedTokens {
    /// The largest number of generated tokens that it allows.
    pub most: Option<u64>,
    /// The smallest number of generated tokens that it demands.
    pub least: Option<u64>,
    /// The requested length of the prompt.
    pub prompt: Option<Length>,
    /// The number of items that it asks for, if the answer is items.
    pub items: Option<u64>,
    /// Bytes of the request, if they limit the tokens of the prompt. Images have more tokens than
    /// bytes.
    pub bytes: Option<u64>,
}

/// The relative difference between the server's times and ours that is not a contradiction. Servers
/// round, and they take times shortly before they send.
const SERVER_TOLERANCE: f64 = 0.01;

/// The same as an absolute time: the error of the instrument, and the server's delay between its
/// clock and its socket.
const SERVER_TOLERANCE_TIME: Duration = Duration::from_millis(1);

/// One valid answer: token counts and arrival times.
///
/// All times count from the moment at which the request was handed to an open connection.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Whether the answer was streamed. Otherwise all of it counts as one token event, which arrived
    /// with the last byte, and no figure of single tokens exists.
    pub is_streamed: bool,
    /// The completion's id.
    pub request_id: Option<String>,
    /// Why generation ended; empty for an answer of items.
    pub finish_reason: String,
    /// The items of the answer, embeddings or documents with a score; `None` for generated text.
    pub items: Option<u64>,
    /// Tokens of the prompt, as the server counts.
    pub prompt_tokens: Option<u64>,
    /// Generated tokens, reasoning included; 0 for an answer of items.
    pub response_tokens: u64,
    /// The server's total, or the sum of both counts.
    pub total_tokens: Option<u64>,
    /// Tokens of the prompt from a cache.
    pub cached_tokens: Option<u64>,
    /// Generated tokens of reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Who counted the generated tokens.
    pub token_count: TokenCount,
    /// DNS, TCP and TLS of a new connection; `None` for a reused one.
    pub connect: Option<Duration>,
    /// The TLS handshake within `connect`, if the transport measures it.
    pub tls: Option<Duration>,
    /// When the kernel had accepted the whole request, if the transport measures it.
    pub sent: Option<Duration>,
    /// The delay between the scheduled start in an open loop and the handover of the request. All
    /// other times then count from the scheduled start and include it.
    pub lag: Option<Duration>,
    /// Whose clock took the arrival times.
    pub stamped_by: StampedBy,
    /// Arrival of the response headers.
    pub first_byte: Duration,
    /// Arrival of the first event of any kind.
    pub first_event: Duration,
    /// Arrival of the first reasoning token, if there is one in a stream.
    pub first_reasoning: Option<Duration>,
    /// Arrival of the first answer or tool-call token; `None` if all tokens are reasoning, or without
    /// a stream.
    pub first_answer: Option<Duration>,
    /// Arrival of each event with a generated token. Never empty.
    pub token_events: Vec<Duration>,
    /// All events with their contents, in order: see [`Self::events`].
    pub event_log: EventLog,
    /// Tokens of the first token event, if the server sends usage with every chunk.
    pub first_event_tokens: Option<u64>,
    /// End of the body.
    pub end: Duration,
    /// How much earlier the parts can have arrived.
    pub uncertainty: ArrivalUncertainty,
    /// The server's time to the response headers, if they report it: [`Recording::head_time`].
    pub server_head: Option<Duration>,
    /// The times that the server reports about itself.
    pub server: Timings,
    /// Whether the streamed answer includes the reasoning.
    pub shows_reasoning: bool,
    /// Whether it met all limits of `goodput`; `None` without limits.
    pub is_good: Option<bool>,
    /// Whether the request allowed a single token. Then no time between tokens exists.
    pub asked_for_one: bool,
    /// Notes for readers of the figures.
    pub notes: Vec<Note>,
    /// Unknown fields of the delta that contained text.
    pub unread: Vec<UnreadField>,
    /// Doubts about the figures. No threshold on a doubtful figure is decided.
    pub doubts: Vec<Doubt>,
}

/// The setting `token_count`: the source of the number of generated tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TokenCount {
    /// `usage`: the server. An answer without usage is a failure.
    #[default]
    Usage,
    /// `chunks`: the server or, if it does not count, one token per token event.
    Chunks,
    /// `{ tokenizer: FILE }`: the server or, if it does not count, this tokenizer.
    Tokenizer(Tokenizer),
}

impl TokenCount {
    /// Returns the name in the config and the results.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Chunks => "chunks",
            Self::Tokenizer(_) => "tokenizer",
        }
    }
}

/// An unknown field of the delta that contained text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadField {
    /// The name, as in `text_fields` and `ignore_fields` of the config.
    pub name: String,
    /// Whether it contained text in an event without a known token. Such an event may be the
    /// arrival of a token. Text next to a known token changes no figure.
    pub alone: bool,
}

/// Why figures of an answer, although reported, may be wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// The metrics that may be affected.
    pub metrics: &'static [&'static Metric],
    /// The reason, and the remedy.
    pub reason: String,
}

/// The number of different unknown events that may be tokens.
const UNKNOWN_TEXTS: usize = 3;

impl Doubt {
    /// Returns the doubt about text in unknown events.
    fn of_unknown_events() -> Self {
        Self {
            metrics: Self::ARRIVALS,
            reason: "different texts in events that are not of the protocol, which may be tokens"
                .into(),
        }
    }

    /// Returns the doubt about an answer that [may have been held back](Sample::may_be_held_back).
    fn of_held_back() -> Self {
        Self {
            metrics: Self::HELD_BACK,
            reason: "token events faster than a model generates, after a much longer wait: the \
                     server or a proxy may have held the answer back"
                .into(),
        }
    }

    /// The metrics that depend on the arrivals of tokens. An unseen token changes all of them.
    pub const ARRIVALS: &'static [&'static Metric] = &[
        Metric::TTFT,
        Metric::TTFO,
        Metric::FIRST_REASONING_TIME,
        Metric::GENERATION_TIME,
        Metric::GENERATION_SPEED,
        Metric::TPOT,
        Metric::ITL,
        Metric::ITL_MAX,
        Metric::E2E,
        Metric::PREPROCESS_SPEED,
        Metric::UNCACHED_PREPROCESS_SPEED,
        Metric::TTFT_BEYOND_SERVER,
        Metric::GENERATION_BEYOND_SERVER,
    ];

    /// The same, and the metrics that depend on the number of generated tokens.
    pub const ARRIVALS_AND_COUNTS: &'static [&'static Metric] = &[
        Metric::TTFT,
        Metric::TTFO,
        Metric::FIRST_REASONING_TIME,
        Metric::GENERATION_TIME,
        Metric::GENERATION_SPEED,
        Metric::TPOT,
        Metric::ITL,
        Metric::ITL_MAX,
        Metric::E2E,
        Metric::PREPROCESS_SPEED,
        Metric::UNCACHED_PREPROCESS_SPEED,
        Metric::TTFT_BEYOND_SERVER,
        Metric::GENERATION_BEYOND_SERVER,
        Metric::RESPONSE_TOKENS,
        Metric::TOTAL_TOKENS_PER_SECOND,
        Metric::OUTPUT_THROUGHPUT,
    ];

    /// The sets of metrics that doubts affect.
    pub(crate) const ALL: &'static [&'static [&'static Metric]] =
        &[Self::ARRIVALS, Self::ARRIVALS_AND_COUNTS, Self::HELD_BACK];

    /// The metrics of an answer that may have been generated before its first event.
    const HELD_BACK: &'static [&'static Metric] = &[
        Metric::GENERATION_TIME,
        Metric::GENERATION_SPEED,
        Metric::TPOT,
        Metric::ITL,
        Metric::ITL_MAX,
        Metric::TTFT,
        Metric::TTFO,
    ];
}

/// A token count that figures depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountKind {
    /// Streamed tokens.
    Streamed,
    /// All generated tokens.
    Response,
    /// Tokens of the prompt.
    Prompt,
    /// Tokens of the prompt and generated tokens.
    Total,
}

impl UnreadField {
    /// Returns the doubt that its text causes. It affects the number of tokens too, unless the
    /// server counts them.
    fn doubt(&self, token_count: &TokenCount) -> Doubt {
        let name = self.shown();
        Doubt {
            metrics: match token_count {
                TokenCount::Usage => Doubt::ARRIVALS,
                _ => Doubt::ARRIVALS_AND_COUNTS,
            },
            reason: format!(
                "text in the unknown field `{name}`, to be named in `text_fields` or `ignore_fields`"
            ),
        }
    }

    /// Returns the name, which comes from the server, shortened and without blanks and control
    /// characters.
    fn shown(&self) -> String {
        let is_plain = |c: &char| !c.is_control() && !c.is_whitespace();
        self.name.chars().filter(is_plain).take(60).collect()
    }
}

impl Sample {
    /// Returns the arrival of the first generated token.
    pub fn first_token(&self) -> Duration {
        self.token_events.first().copied().unwrap_or_default()
    }

    /// Returns the arrival of the last token event.
    pub fn last_token(&self) -> Duration {
        self.token_events.last().copied().unwrap_or_default()
    }

    /// Returns the time from the first to the last token event; `None` for a single event, or if
    /// the events were [held back](Self::is_burst).
    pub fn generation_time(&self) -> Option<Duration> {
        (self.token_events.len() > 1 && !self.is_burst()).then(|| self.span())
    }

    /// Returns whether the token events arrived at once ([`SHORTEST_GENERATION`]), or in few pieces
    /// that were held back. The time between them is then not the generation time.
    pub fn is_burst(&self) -> bool {
        let several = self.token_events.len() > 1;
        let is_held_back = || {
            // Ordered by cost: the first condition excludes most answers.
            self.gathered_first() > self.span() * HELD_BACK
                && self.is_in_few_pieces()
                && (self.is_faster_than_models() || self.has_large_first_piece())
        };
        several && (self.span() < SHORTEST_GENERATION || is_held_back())
    }

    /// Returns whether the whole answer may have been generated before its first event and then
    /// been written event by event: the events followed each other faster than a model generates,
    /// after a much longer wait. If the server reports the same time, it did generate that fast.
    pub fn may_be_held_back(&self) -> bool {
        let is_confirmed = || self.server_generation_time().is_some() && !self.server_disagrees();
        self.token_events.len() > 2
            && self.is_faster_than_models()
            && self.first_token_of_request() > self.span() * HELD_BACK
            && !self.is_burst()
            && !is_confirmed()
    }

    /// Returns whether token events followed each other faster than [`FASTEST_EVENTS`].
    fn is_faster_than_models(&self) -> bool {
        let gaps = u32::try_from(self.token_events.len()).unwrap_or(u32::MAX).saturating_sub(1);
        self.span() < FASTEST_EVENTS.saturating_mul(gaps)
    }

    /// Returns whether most token events arrived in fewer than [`FEWEST_ARRIVALS`] pieces.
    fn is_in_few_pieces(&self) -> bool {
        let gaps = self.token_events.len().saturating_sub(1);
        let shared = self.shared_arrivals();
        shared * 2 > gaps && gaps - shared < FEWEST_ARRIVALS
    }

    /// Returns the groups of token events that arrived together.
    fn pieces(&self) -> impl Iterator<Item = &[Duration]> {
        self.token_events.chunk_by(|before, after| after.saturating_sub(*before) < SHARED_ARRIVAL)
    }

    /// Returns whether the first piece has more than twice as many events as any later piece, so
    /// that it was gathered for longer.
    fn has_large_first_piece(&self) -> bool {
        let mut sizes = self.pieces().map(<[_]>::len);
        let first = sizes.next().unwrap_or_default();
        first > 2 * sizes.max().unwrap_or_default()
    }

    /// Returns how long tokens may have been gathered for the first piece: since the previous
    /// arrival, or since the request. Zero if it is a single event.
    fn gathered_first(&self) -> Duration {
        let first = self.first_token();
        let is_before = |time: &Duration| *time + SHARED_ARRIVAL < first;
        let before = [self.first_event, self.first_byte].into_iter().find(is_before);
        match self.gaps().next() {
            Some(gap) if gap < SHARED_ARRIVAL => first - before.or(self.lag).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// Returns how long tokens may have been gathered for the last piece.
    fn gathered_last(&self) -> Duration {
        let last = self.last_token();
        let mut pieces = self.token_events.iter().rev().skip(1);
        let is_before = |time: &&Duration| **time + SHARED_ARRIVAL < last;
        match self.gaps().last() {
            Some(gap) if gap < SHARED_ARRIVAL => last - *pieces.find(is_before).unwrap_or(&last),
            _ => Duration::ZERO,
        }
    }

    /// Returns how far `generation_time` can be off: the uncertainty of the arrivals at its ends
    /// and, if the answer arrived in few pieces, the time for which those were gathered.
    pub fn generation_uncertainty(&self) -> Duration {
        let ArrivalUncertainty { first_token, last_token, .. } = self.uncertainty;
        let arrival = first_token.max(last_token);
        match self.is_in_few_pieces() {
            true => arrival.max(self.first_piece_uncertainty()).max(self.gathered_last()),
            false => arrival,
        }
    }

    /// Returns how long tokens were probably gathered for the first piece. A piece that is about as
    /// small as the others was gathered no longer than they were.
    fn first_piece_uncertainty(&self) -> Duration {
        let gathered = self.gathered_first();
        match self.has_large_first_piece() {
            true => gathered,
            false => gathered.min(self.gaps().max().unwrap_or_default()),
        }
    }

    /// Returns whether late reads of this program affect the figures.
    pub fn is_client_delayed(&self) -> bool {
        let punctual = match self.stamped_by {
            StampedBy::Kernel => PUNCTUAL,
            StampedBy::Program => PUNCTUAL_PROGRAM,
        };
        let matters =
            |late: Duration, figure: Duration| late > punctual && late > figure.mul_f64(NEGLIGIBLE);
        let longest = self.gaps().max().unwrap_or_default();
        matters(self.uncertainty.first_token, self.first_token_of_request())
            || matters(self.uncertainty.largest, longest)
    }

    /// Returns whether tokens arrived later than they were generated: in a burst, or several in a
    /// single event. `ttft` is then the time to the last token.
    pub fn is_held_back(&self) -> bool {
        let is_one = self.is_streamed && self.token_events.len() == 1;
        self.is_burst() || (is_one && self.streamed_tokens() > 1)
    }

    fn span(&self) -> Duration {
        self.last_token().saturating_sub(self.first_token())
    }

    /// Returns the notes with their text in the results: the name and, for unread text, the fields.
    pub fn noted(&self) -> impl Iterator<Item = (Note, String)> {
        let words = |note: Note| match note {
            Note::UnreadText => format!("{note}({})", self.unread_names()),
            _ => note.name().to_owned(),
        };
        self.notes.iter().map(move |note| (*note, words(*note)))
    }

    /// Returns the names of the unread fields. They come from the server, so they are shortened and
    /// stripped of blanks and control characters.
    pub fn unread_names(&self) -> String {
        self.unread.iter().take(8).map(UnreadField::shown).collect::<Vec<_>>().join(",")
    }

    /// Adds notes if the server's token counts violate the limits of the request.
    pub fn checked_against(mut self, requested: RequestedTokens) -> Self {
        if requested.most.is_some_and(|most| self.response_tokens > most) {
            self.notes.push(Note::MoreTokensThanAsked);
        }
        if requested.least.is_some_and(|least| self.response_tokens < least) {
            self.notes.push(Note::ShorterThanAsked);
        }
        if let Some(wanted) = requested.prompt
            && !wanted.allows(self.prompt_tokens)
        {
            self.notes.push(Note::PromptLengthOff);
        }
        let most = requested.bytes.map(|bytes| bytes.saturating_add(UNSEEN_PROMPT));
        if self.prompt_tokens.zip(most).is_some_and(|(tokens, most)| tokens > most) {
            self.notes.push(Note::MorePromptThanText);
        }
        self.asked_for_one = requested.most == Some(1);
        self
    }

    /// Fails if the answer has another number of items than `asked`.
    pub fn with_items_of(self, asked: Option<u64>) -> Result<Self, RequestError> {
        match (self.items, asked) {
            (Some(items), Some(asked)) if items != asked => {
                let count =
                    |count: u64, of| counted(usize::try_from(count).unwrap_or(usize::MAX), of);
                let (results, inputs) = (count(items, "result"), count(asked, "input"));
                let message = format!("the answer has {results} for {inputs}");
                Err(RequestError::new(ErrorKind::Malformed, message))
            }
            _ => Ok(self),
        }
    }

    /// Returns the note that refuses a count.
    pub fn refused(&self, count: CountKind) -> Option<Note> {
        self.notes.iter().copied().find(|note| note.refused_counts().contains(&count))
    }

    /// Adapts the notes to a later turn of a conversation, whose prompt is expected to be cached.
    #[must_use]
    pub fn of_later_turn(mut self) -> Self {
        self.notes.retain(|note| *note != Note::CachedPrefix);
        self
    }

    /// Returns the arrival and the contents of each event, in order. Comments are not events.
    pub fn events(&self) -> impl Iterator<Item = (Duration, EventContents)> {
        self.event_log.events(&self.token_events)
    }

    /// Returns the gaps between successive token events.
    pub fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.token_events.windows(2).map(|pair| pair[1].saturating_sub(pair[0]))
    }

    /// Returns the sample with times that count from a scheduled start, `lag` before the request
    /// was handed over.
    #[must_use]
    pub fn scheduled_before(mut self, lag: Duration) -> Self {
        let times = [&mut self.first_byte, &mut self.first_event, &mut self.end].into_iter();
        let optional =
            [self.first_reasoning.as_mut(), self.first_answer.as_mut(), self.sent.as_mut()];
        let optional = optional.into_iter().flatten();
        let events = self.token_events.iter_mut().chain(&mut self.event_log.other_arrivals);
        for time in times.chain(optional).chain(events) {
            *time += lag;
        }
        self.lag = Some(lag);
        self
    }

    /// Returns whether the first token came so much faster than in the `first` run that the prompt
    /// was probably cached.
    pub fn is_much_faster_than(&self, first: Duration) -> bool {
        first >= Duration::from_millis(10) && self.first_token() * 5 < first
    }

    /// Returns the number of token events that arrived together with the previous one.
    pub fn shared_arrivals(&self) -> usize {
        self.gaps().filter(|gap| *gap < SHARED_ARRIVAL).count()
    }

    /// Returns the server's time to the first token: queue and prompt processing.
    pub fn server_first_token(&self) -> Option<Duration> {
        Some(self.server.prompt? + self.server.queue.unwrap_or_default())
    }

    /// Returns the server's time from the first to the last token, if there are several.
    pub fn server_generation_time(&self) -> Option<Duration> {
        self.server.generation.filter(|time| self.response_tokens > 1 && !time.is_zero())
    }

    /// Returns the arrival of the first token since the handover of the request, without lag.
    pub fn first_token_of_request(&self) -> Duration {
        self.first_token().saturating_sub(self.lag.unwrap_or_default())
    }

    /// Returns whether the server's times contradict ours, beyond what the network explains.
    ///
    /// The network delays the first and the last token differently. That changes `generation_time`
    /// by one trip at most, and the time to the response headers includes a round trip. Tokens at
    /// the ends that have no event, such as the end token, are only in the server's time. A tool
    /// call that the server holds back until it is complete can have many such tokens; our time is
    /// then not a generation time. A first token that arrives before the server has generated it is
    /// a contradiction. A later arrival is not, because the server's clock may start late.
    pub fn server_disagrees(&self) -> bool {
        let is_early = |ours: Duration, theirs: Option<Duration>| {
            theirs.is_some_and(|t| ours + SERVER_TOLERANCE_TIME < t.mul_f64(1.0 - SERVER_TOLERANCE))
        };
        let early = is_early(self.first_token_of_request(), self.server_first_token())
            || is_early(self.head_of_request(), self.server_head);
        let is_whole = self.hidden_reasoning_tokens() == 0;
        let other = self.generation_time().zip(self.server_generation_time());
        let other = other.filter(|_| is_whole);
        early || other.is_some_and(|(ours, theirs)| ours.abs_diff(theirs) > self.explained(theirs))
    }

    /// Returns the arrival of the response headers since the handover of the request, without lag.
    pub fn head_of_request(&self) -> Duration {
        self.first_byte.saturating_sub(self.lag.unwrap_or_default())
    }

    /// Returns the explicable difference between `generation_time` and the server's time.
    fn explained(&self, theirs: Duration) -> Duration {
        let events = (self.token_events.len() as u64).max(1);
        let silent = self.response_tokens.saturating_sub(events);
        let at_ends = silent.min(2 * self.response_tokens.div_ceil(events));
        let at_ends = at_ends + u64::from(self.server.may_hold_first);
        let of_token = theirs.as_secs_f64() / self.response_tokens.saturating_sub(1).max(1) as f64;
        let way = self.head_of_request();
        theirs.mul_f64(SERVER_TOLERANCE)
            + SERVER_TOLERANCE_TIME
            + way
            + self.generation_uncertainty()
            + Duration::from_secs_f64(of_token * at_ends as f64)
    }

    /// Returns the number of reasoning tokens that the server counted but did not stream. They were
    /// generated before the first event, so `generation_time` does not include them. Reasoning is
    /// not hidden if there are more events than other tokens, or if the streamed text contains it.
    pub fn hidden_reasoning_tokens(&self) -> u64 {
        let is_hidden = !self.shows_reasoning && self.answer_tokens().is_some();
        self.reasoning_tokens.filter(|_| is_hidden).unwrap_or(0)
    }

    /// Returns the number of tokens that are not reasoning, if reasoning was counted and may be
    /// hidden. Only a stream can hide when it was generated.
    fn answer_tokens(&self) -> Option<u64> {
        let reasoning = self.reasoning_tokens.filter(|tokens| *tokens > 0 && self.is_streamed)?;
        let others = self.response_tokens.checked_sub(reasoning)?;
        let may_hide = self.first_reasoning.is_none() && self.token_events.len() as u64 <= others;
        may_hide.then_some(others)
    }

    /// Returns the number of streamed tokens.
    pub fn streamed_tokens(&self) -> u64 {
        self.response_tokens - self.hidden_reasoning_tokens()
    }

    /// Returns the number of tokens that arrived after the first event, which `generation_time`
    /// covers. The first event counts as one token unless the server says otherwise.
    pub fn tokens_after_first_event(&self) -> u64 {
        let hidden = self.hidden_reasoning_tokens();
        let first = self.first_event_tokens.unwrap_or(0).max(hidden + 1);
        self.response_tokens.saturating_sub(first)
    }
}

/// Words in finish reasons that mean a failure: vLLM's and SGLang's `abort`, DeepSeek's
/// `insufficient_system_resource`, GLM's `network_error`, and those of gateways.
const FAILURES: &[&str] = &[
    "abort",
    "cancel",
    "error",
    "exception",
    "fail",
    "insufficient",
    "overload",
    "timeout",
    "timed_out",
    "unavailable",
];

/// Finish reasons of an answer that the model or the limit ended.
const USUAL: &[&str] = &[
    "complete",
    "completed",
    "end_turn",
    "eos",
    "eos_token",
    "function_call",
    "length",
    "limit",
    "max_length",
    "max_output_tokens",
    "max_tokens",
    "model_length",
    "stop",
    "stop_sequence",
    "stop_token",
    "tool_call",
    "tool_calls",
    "tool_use",
    "word",
];

/// Finish reasons of an answer that the limit ended.
const USUAL_LIMITS: &[&str] =
    &["length", "limit", "max_length", "max_output_tokens", "max_tokens", "model_length"];

/// The class of a finish reason, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FinishClass {
    Usual,
    /// A filter, a refusal, a malformed call, or an unknown reason.
    Unusual,
    Failed,
}

impl FinishClass {
    fn of(reason: &str) -> Self {
        let reason = reason.to_ascii_lowercase();
        if FAILURES.iter().any(|word| reason.contains(word)) {
            Self::Failed
        } else if USUAL.contains(&reason.as_str()) {
            Self::Usual
        } else {
            Self::Unusual
        }
    }
}

/// The hint for a missing resource.
pub const NOT_FOUND_HINT: &str = " (see `base_url`, `port` and `model_name` in the config)";

/// A fact that a reader of a row should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// An unknown field of the delta contained text; [`Sample::unread`] has its name.
    UnreadText,
    /// Unknown events were skipped.
    UnreadEvents,
    /// The answer did not end by itself, by its limit or with a tool call, but by a filter, a
    /// refusal, a malformed call or for an unknown reason.
    UnusualFinishReason,
    /// The token counts have the names of another protocol.
    RenamedUsage,
    /// The token counts came after the end marker.
    UsageAfterEnd,
    /// Text came after the finish reason and the token counts. The counts are assumed to include
    /// it.
    TextAfterUsage,
    /// The stream ended without its end marker (`[DONE]`).
    NoEndMarker,
    /// More events came after the end marker. They are ignored.
    MoreAfterEnd,
    /// Text came after the end marker, so the server's count includes tokens without events.
    TextAfterEnd,
    /// The server kept the body open after the end of the answer, so the client closed the
    /// connection.
    BodyLeftOpen,
    /// The connection failed after the end marker, before the end of the body.
    BodyBroken,
    /// The server counted reasoning tokens that it did not stream. `ttft` includes them;
    /// `generation_speed` and `tpot` do not.
    HiddenReasoning,
    /// Part of the prompt came from a cache, so `preprocess_speed` is not the prefill speed.
    CachedPrefix,
    /// The first token took less than a fifth of the time of this prompt's first run, which was at
    /// least ten milliseconds. The server probably cached the prompt, even if it does not report
    /// that.
    MuchFasterRepeat,
    /// The token events arrived within a millisecond, or in few pieces after a wait of more than
    /// four times as long, most of them in the first piece or faster than a model generates. The
    /// server or a proxy held the answer back, so the speed is absent.
    Burst,
    /// The token events followed each other within a millisecond on average, after a wait of more
    /// than four times the time of all of them. The whole answer may have been generated before.
    /// See [`Sample::may_be_held_back`].
    MayBeHeldBack,
    /// More than a tenth of the token events arrived together with the previous one. `itl` and
    /// `itl_max` then describe reads, and the ends of `generation_time` can be off by one read. If
    /// most events arrived in fewer than ten pieces, that counts as uncertainty.
    SharedArrivals,
    /// The server counted fewer tokens than token events arrived.
    FewerTokensThanEvents,
    /// The server counted fewer tokens than events, and too few for that much text.
    FewerTokensThanText,
    /// The server counted more generated tokens than the request allowed, so its count and every
    /// speed based on it are doubtful. Some servers exclude reasoning from the limit.
    MoreTokensThanAsked,
    /// The answer has fewer tokens than `ignore_eos` or `min_tokens` demanded. The server ignored
    /// the field.
    ShorterThanAsked,
    /// By the server's count, the prompt's length is off by more than 2 %.
    PromptLengthOff,
    /// The server counted more generated tokens than their text has bytes, hidden reasoning and a
    /// few special tokens aside. A token has at least one byte.
    MoreTokensThanText,
    /// The count exceeds what a model generates in that time, and the tokens had no text.
    MoreTokensThanTime,
    /// A later usage counted fewer generated tokens than an earlier one.
    UsageShrinks,
    /// The server counted more reasoning tokens than tokens.
    MoreReasoningThanTokens,
    /// The server counted more tokens than the events can hold, so the time of the others is
    /// unknown.
    UncountedTokens,
    /// The server counted more tokens than events, and the end of the answer took longer than a
    /// trailer. Tokens may have been generated in that time.
    SilentTail,
    /// The server counted more cached tokens than the prompt has.
    MoreCachedThanPrompt,
    /// The server counted many more tokens of the prompt than the request has bytes.
    MorePromptThanText,
    /// The server counted no tokens of a prompt that was not empty.
    NoPromptTokens,
    /// The server's total is less than the sum of its counts. One of them is wrong, so
    /// `total_tokens_per_second` may be wrong too.
    TotalBelowSum,
    /// The server's total exceeds the sum of its counts by more than a model generates in that
    /// time.
    TotalAboveSum,
    /// The server's times contradict ours: see [`Sample::server_disagrees`].
    ServerDisagrees,
    /// This program read late, because it was suspended or had no processor, and got several events
    /// at once. Their arrivals have an uncertainty of `arrival_uncertainty`, which is more than 1 %
    /// of a figure and at least a millisecond more than with reads on time.
    ClientDelayed,
    /// The simulated endpoint wrote the first token late, or took another time from the first token
    /// to the last, by more than a millisecond and 1 % of the scripted time. The machine was busy.
    SimulatorLate,
}

impl Note {
    /// Returns the name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnreadText => "unread_text",
            Self::UnreadEvents => "unread_events",
            Self::UnusualFinishReason => "unusual_finish_reason",
            Self::RenamedUsage => "renamed_usage",
            Self::UsageAfterEnd => "usage_after_end",
            Self::TextAfterUsage => "text_after_usage",
            Self::NoEndMarker => "no_end_marker",
            Self::MoreAfterEnd => "more_after_end",
            Self::TextAfterEnd => "text_after_end",
            Self::BodyLeftOpen => "body_left_open",
            Self::BodyBroken => "body_broken",
            Self::HiddenReasoning => "hidden_reasoning",
            Self::CachedPrefix => "cached_prefix",
            Self::MuchFasterRepeat => "much_faster_repeat",
            Self::Burst => "burst",
            Self::MayBeHeldBack => "may_be_held_back",
            Self::SharedArrivals => "shared_arrivals",
            Self::FewerTokensThanEvents => "fewer_tokens_than_events",
            Self::MoreTokensThanAsked => "more_tokens_than_asked",
            Self::ShorterThanAsked => "shorter_than_asked",
            Self::PromptLengthOff => "prompt_length_off",
            Self::FewerTokensThanText => "fewer_tokens_than_text",
            Self::MoreTokensThanText => "more_tokens_than_text",
            Self::MoreTokensThanTime => "more_tokens_than_time",
            Self::UncountedTokens => "uncounted_tokens",
            Self::SilentTail => "silent_tail",
            Self::MorePromptThanText => "more_prompt_than_text",
            Self::TotalAboveSum => "total_above_sum",
            Self::UsageShrinks => "usage_shrinks",
            Self::MoreReasoningThanTokens => "more_reasoning_than_tokens",
            Self::MoreCachedThanPrompt => "more_cached_than_prompt",
            Self::NoPromptTokens => "no_prompt_tokens",
            Self::TotalBelowSum => "total_below_sum",
            Self::ServerDisagrees => "server_disagrees",
            Self::ClientDelayed => "client_delayed",
            Self::SimulatorLate => "simulator_late",
        }
    }

    /// Returns the token counts that are impossible or inapplicable, so that figures based on them
    /// are refused.
    pub const fn refused_counts(self) -> &'static [CountKind] {
        use CountKind::{Prompt, Response, Streamed, Total};
        match self {
            Self::UncountedTokens | Self::SilentTail | Self::TextAfterEnd => &[Streamed],
            Self::FewerTokensThanText
            | Self::MoreTokensThanText
            | Self::MoreTokensThanTime
            | Self::UsageShrinks
            | Self::MoreReasoningThanTokens => &[Streamed, Response, Total],
            Self::MoreCachedThanPrompt | Self::MorePromptThanText | Self::NoPromptTokens => {
                &[Prompt, Total]
            }
            Self::TotalAboveSum => &[Total],
            _ => &[],
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Interprets `recording`. `fallback` counts the tokens if the server does not.
pub fn read(
    recording: &Recording,
    protocol: &dyn Protocol,
    fallback: TokenCount,
) -> Result<Sample, RequestError> {
    read_with(recording, protocol, fallback, &TextFields::default())
}

/// Interprets `recording`, with the config's meaning of unknown `fields`.
pub fn read_with(
    recording: &Recording,
    protocol: &dyn Protocol,
    fallback: TokenCount,
    fields: &TextFields,
) -> Result<Sample, RequestError> {
    refuse_status(recording, protocol)?;
    let arrivals = ArrivalTracker::of(recording.uncertainty);
    let mut stream = StreamReader {
        is_document: !protocol.is_streamed(),
        text: Some(0),
        fields: Some(fields),
        arrivals,
        ..StreamReader::default()
    };
    // The order of the following checks decides which error a broken answer gets: the most specific
    // one. The server's error message explains more than the connection failure that follows it,
    // and a failure explains more than the JSON that it truncated.
    let decoded = stream.read(&recording.chunks, recording.stamped_by, protocol);
    if let Some((events, message)) = stream.in_band {
        let message = one_line(&message, 300);
        let message = match stream.is_document {
            true => format!("the server answered with an error: {message}"),
            false => {
                let after = after_tokens(events);
                format!("the server reported an error inside the stream, {after}: {message}")
            }
        };
        return Err(RequestError::new(ErrorKind::InBand, message));
    }
    if let Some(error) = compressed(recording).filter(|_| stream.token_events.is_empty()) {
        return Err(error);
    }
    if let Some(broken) = recording.broken.as_ref().filter(|broken| stream.is_cut_by(broken)) {
        let after = match stream.is_document {
            true => String::new(),
            false => format!(", {}", after_tokens(stream.token_events.len())),
        };
        return Err(RequestError::new(broken.kind, format!("{}{after}", broken.message)));
    }
    if stream.events == 0 {
        return Err(no_events(recording, protocol));
    }
    // Only now: a decoding error behind an error message or a failure is its consequence.
    decoded?;
    stream.into_sample(recording, fallback, &|| texts(recording, protocol, fields))
}

/// Returns the text of the answer, without reasoning.
pub fn answer_text(recording: &Recording, protocol: &dyn Protocol, fields: &TextFields) -> String {
    let [answer, ..] = texts(recording, protocol, fields);
    answer
}

/// Returns whether the answer calls a tool.
pub fn calls_tools(recording: &Recording, protocol: &dyn Protocol, fields: &TextFields) -> bool {
    let [_, _, calls] = texts(recording, protocol, fields);
    !calls.is_empty()
}

/// Returns the generated text of the answer, of the reasoning and of tool calls.
fn texts(recording: &Recording, protocol: &dyn Protocol, fields: &TextFields) -> [String; 3] {
    let mut texts = [const { String::new() }; 3];
    let mut decoder = protocol.framing().decoder();
    let mut read = |frame: Frame<'_>| {
        let message = protocol.decode_with(&frame, fields).unwrap_or_default();
        for part in message.parts.into_iter().filter_map(|part| fields.resolve(part)) {
            match part {
                MessagePart::Token(TokenKind::Answer, text) => texts[0].push_str(&text),
                MessagePart::Token(TokenKind::Reasoning, text) => texts[1].push_str(&text),
                MessagePart::Token(TokenKind::ToolCall, text) => texts[2].push_str(&text),
                _ => {}
            }
        }
    };
    // A malformed answer has the text up to the defect.
    for chunk in &recording.chunks {
        if decoder.push(&chunk.bytes, &mut read).is_err() {
            break;
        }
    }
    decoder.finish(&mut read);
    texts
}

/// Returns the server's token count of the prompt, even if the answer is invalid.
pub fn prompt_tokens(recording: &Recording, protocol: &dyn Protocol) -> Option<u64> {
    let mut stream = StreamReader::default();
    // Counts before a defect are valid.
    let _ = stream.read(&recording.chunks, recording.stamped_by, protocol);
    let is_good = (200..300).contains(&recording.status) && stream.in_band.is_none();
    stream.usage.prompt_tokens.filter(|_| is_good)
}

/// Returns the arrival of the last token event of an unfinished answer, and the number of token
/// events. Text in unknown fields counts, because it shows that the server is generating.
pub fn tokens_so_far(chunks: &[Chunk], protocol: &dyn Protocol) -> (Option<Duration>, usize) {
    let mut stream = StreamReader { text: Some(0), counts_unread: true, ..StreamReader::default() };
    // A malformed answer has the tokens up to the defect.
    let _ = stream.read(chunks, StampedBy::Program, protocol);
    (stream.token_events.last().copied(), stream.token_events.len())
}

/// Returns whether an answer has ended by its own contents: an end marker, an error, or a complete
/// JSON document, also instead of a stream. Earlier calls covered the first `seen` chunks.
pub fn has_ended(chunks: &[Chunk], seen: usize, protocol: &dyn Protocol) -> bool {
    if !protocol.is_streamed() {
        return is_document(chunks);
    }
    let is_document = protocol.framing() == Framing::Events && is_document(chunks);
    is_document
        || may_have_ended(chunks, seen, protocol) && {
            let mut stream = StreamReader::default();
            let is_read = stream.read(chunks, StampedBy::Program, protocol).is_ok();
            is_read && stream.ended || stream.in_band.is_some()
        }
}

/// Returns whether an answer ended well but without a token count.
pub fn lacks_usage(chunks: &[Chunk], protocol: &dyn Protocol) -> bool {
    let mut stream = StreamReader::default();
    let is_read = stream.read(chunks, StampedBy::Program, protocol).is_ok();
    let is_good = is_read && stream.finish_reason().is_ok() && stream.in_band.is_none();
    is_good && stream.usage.completion_tokens.is_none()
}

/// Returns whether the new chunks may contain an end. A text search is far cheaper than decoding
/// all chunks, which would be quadratic over an answer.
fn may_have_ended(chunks: &[Chunk], seen: usize, protocol: &dyn Protocol) -> bool {
    /// A mark may span two chunks.
    const OVERLAP: usize = 64;
    let (mut from, mut before) = (seen.min(chunks.len()), 0);
    while from > 0 && before < OVERLAP {
        from -= 1;
        before += chunks[from].bytes.len();
    }
    let new: Vec<_> = chunks[from..].iter().flat_map(|chunk| &chunk.bytes[..]).copied().collect();
    let mut marks = protocol.end_marks().iter().chain(&["error"]);
    marks.any(|mark| memchr::memmem::find(&new, mark.as_bytes()).is_some())
}

/// Returns whether the body is one complete JSON document.
pub fn is_document(chunks: &[Chunk]) -> bool {
    let mut bytes = chunks.iter().flat_map(|chunk| &chunk.bytes[..]).copied();
    match bytes.by_ref().find(|byte| !byte.is_ascii_whitespace()) {
        Some(first @ (b'{' | b'[')) => {
            let body: Vec<_> = iter::once(first).chain(bytes).collect();
            serde_json::from_slice::<IgnoredAny>(&body).is_ok()
        }
        _ => false,
    }
}

/// Collects the contents of a stream, frame by frame.
#[derive(Debug, Default)]
struct StreamReader<'f> {
    /// Whether the only frame is the whole answer.
    is_document: bool,
    items: Option<u64>,
    /// The config's meaning of unknown fields.
    fields: Option<&'f TextFields>,
    /// Whether text in unknown fields counts as tokens.
    counts_unread: bool,
    id: Option<String>,
    events: usize,
    first_event: Option<Duration>,
    last_event: Option<Duration>,
    first_reasoning: Option<Duration>,
    first_answer: Option<Duration>,
    token_events: Vec<Duration>,
    event_log: EventLog,
    counts: EventCounts,
    finish_reason: Option<String>,
    /// When the finish reason came, if no token came after it.
    finished: Option<Duration>,
    usage: Usage,
    /// The largest usage of generated tokens so far, and whether a later one was smaller.
    counted: (u64, bool),
    timings: Timings,
    /// Bytes of generated text; `None` after a tool call, whose text is incomplete.
    text: Option<u64>,
    /// Bytes of all generated text, and the largest number of tokens that it can have.
    all_text: (u64, u64),
    /// The first error in the stream, and the number of token events before it.
    in_band: Option<(usize, String)>,
    /// The first error in stray lines, and the number of token events before it.
    stray_error: Option<(usize, String)>,
    ended: bool,
    more_after_end: bool,
    text_after_end: bool,
    usage_after_end: bool,
    text_after_usage: bool,
    /// Whether the usage came with or after the finish reason.
    usage_is_final: bool,
    /// The choice of the last token; below, whether tokens of other choices came.
    choice: Option<i64>,
    /// The first and the last choice of each kind of token.
    choices: [Option<(i64, i64)>; 3],
    has_several_choices: bool,
    unread: Vec<UnreadField>,
    /// An excerpt of the first unknown event.
    unknown: Option<String>,
    last_unknown: Option<String>,
    /// An excerpt of the first document that contained nothing known.
    silent: Option<String>,
    /// An excerpt of the last unreadable usage.
    unread_usage: Option<String>,
    /// The number of unknown events that differ from their predecessor.
    unknown_texts: usize,
    template: EventTemplate,
    template_traits: TextTraits,
    arrivals: ArrivalTracker,
}

/// The state of [`StreamReader::read_event`] within one event.
#[derive(Default)]
struct EventState {
    /// The number of token events before it.
    events_before: usize,
    /// The choice of the following parts.
    choice: i64,
    /// The choice of its first token.
    chosen: Option<i64>,
    usage: Option<Usage>,
    /// Unknown fields with text.
    unread: Vec<String>,
    contents: EventContents,
}

impl StreamReader<'_> {
    /// Reads the body up to its end or to the first malformed frame.
    fn read(
        &mut self,
        chunks: &[Chunk],
        by: StampedBy,
        protocol: &dyn Protocol,
    ) -> Result<(), RequestError> {
        let mut decoder = protocol.framing().decoder();
        let mut failure = None;
        for chunk in chunks {
            let mut sink = |frame: Frame<'_>| {
                // The state before and after the frame tells the tracker which arrivals the frame
                // determines.
                let before = self.begun();
                self.frame(chunk.at, &frame, protocol, &mut failure);
                self.arrivals.frame(chunk, before, self.begun());
            };
            decoder
                .push(&chunk.bytes, &mut sink)
                .map_err(|error| RequestError::new(ErrorKind::Malformed, error.to_string()))?;
            self.arrivals.end(chunk, by, decoder.is_between_frames());
        }
        // The body can end without the blank line or the line end of its last frame.
        if let Some(chunk) = chunks.last() {
            decoder.finish(&mut |frame| {
                let before = self.begun();
                self.frame(chunk.at, &frame, protocol, &mut failure);
                self.arrivals.frame(chunk, before, self.begun());
            });
            self.arrivals.end(chunk, by, true);
        }
        // A lone stray line is a body that is not a stream, which gets a more specific error.
        if self.events > 0 {
            self.in_band = self.in_band.take().or(self.stray_error.take());
        }
        if self.has_several_choices && failure.is_none() {
            let why = "the answer has several choices, whose tokens cannot be counted separately";
            failure = Some(DecodeError(why.into()));
        }
        match failure {
            None => Ok(()),
            Some(DecodeError(message)) => {
                let message = one_line(&message, 300);
                let message = match self.is_document {
                    true => message,
                    false => format!("{}: {message}", after_tokens(self.token_events.len())),
                };
                Err(RequestError::new(ErrorKind::Malformed, message))
            }
        }
    }

    /// Returns what has begun so far.
    fn begun(&self) -> EventProgress {
        EventProgress {
            events: self.events,
            token_events: self.token_events.len(),
            has_reasoning: self.first_reasoning.is_some(),
            has_answer: self.first_answer.is_some(),
        }
    }

    fn frame(
        &mut self,
        at: Duration,
        frame: &Frame<'_>,
        protocol: &dyn Protocol,
        failure: &mut Option<DecodeError>,
    ) {
        if failure.is_some() || matches!(frame, Frame::Comment(_)) {
            return;
        }
        self.last_event = Some(at);
        // Later frames are not part of the answer.
        if self.ended {
            return self.after_end(at, protocol.decode(frame));
        }
        if let Frame::Stray(_) = frame {
            return self.stray(protocol.decode(frame).unwrap_or_default());
        }
        self.events += 1;
        // The event's time is the chunk's. The tracker knows how much earlier it can have arrived.
        self.first_event.get_or_insert(at);
        // Most frames of a stream differ from the previous one only in their text.
        if let Some((kind, text)) = self.template.read(frame) {
            // A frame of the template has the traits of the frame from which it was learned.
            let traits = self.template_traits;
            let part = MessagePart::Token(kind, Cow::Borrowed(text));
            return self.read_event(at, [part], || traits);
        }
        match protocol.decode_with(frame, self.fields.unwrap_or(TextFields::NONE)) {
            Ok(message) => {
                let is_reasoning =
                    matches!(message.parts[..], [MessagePart::Token(TokenKind::Reasoning, _)]);
                let traits = is_reasoning.then(|| protocol.text_traits(frame));
                if self.template.learn(frame, &message) {
                    self.template_traits = traits.unwrap_or_default();
                }
                self.note_silent(frame, &message);
                if self.id.is_none() {
                    self.id = message.id.map(|id| id.into_owned());
                }
                let traits = || traits.unwrap_or_else(|| protocol.text_traits(frame));
                self.read_event(at, message.parts, traits);
            }
            Err(error) => *failure = Some(error),
        }
    }

    /// Reads stray lines. A body of only such lines is not a stream.
    fn stray(&mut self, message: Message<'_>) {
        for part in message.parts {
            match part {
                MessagePart::Error(message) => {
                    self.stray_error.get_or_insert((self.token_events.len(), message));
                }
                MessagePart::Unknown(excerpt) => self.note_unknown(excerpt),
                _ => {}
            }
        }
    }

    /// Reads what comes after the end marker. Some servers send the usage only there, and vLLM
    /// sends `[DONE]` after Anthropic's `message_stop`.
    fn after_end(&mut self, at: Duration, decoded: Result<Message<'_>, DecodeError>) {
        let mut contents = EventContents::from_iter([EventPart::AfterEnd]);
        for part in decoded
            .map_or_else(|_| vec![MessagePart::Unknown(String::new())], |message| message.parts)
        {
            match part {
                MessagePart::Role | MessagePart::Choice(_) => {}
                MessagePart::End => contents.insert(EventPart::End),
                MessagePart::UnreadUsage(excerpt) => self.unread_usage = Some(excerpt),
                MessagePart::Timings(timings) => self.timings = timings,
                MessagePart::Usage(usage) => {
                    contents.insert(EventPart::Usage);
                    self.usage_after_end |= usage.completion_tokens.is_some();
                    self.count(usage);
                }
                MessagePart::Finish(reason) => {
                    contents.insert(EventPart::Finish);
                    self.more_after_end = true;
                    self.finish(&reason);
                }
                MessagePart::Token(..) | MessagePart::Unread(..) => self.text_after_end = true,
                MessagePart::Items(_) => {}
                MessagePart::Unknown(_) | MessagePart::Error(_) => self.more_after_end = true,
            }
        }
        self.event_log.push(at, contents);
    }

    /// Reads an event. `traits` is only called for an event without answer tokens.
    fn read_event<'a>(
        &mut self,
        at: Duration,
        parts: impl IntoIterator<Item = MessagePart<'a>>,
        traits: impl FnOnce() -> TextTraits,
    ) {
        let mut event =
            EventState { events_before: self.token_events.len(), ..EventState::default() };
        for part in parts {
            let part = match self.fields {
                Some(fields) => fields.resolve(part),
                None => Some(part),
            };
            if let Some(part) = part {
                self.read_part(at, part, &mut event);
            }
        }
        // Usage is read after the tokens of the event: a count in the same event includes them.
        let has_token = self.token_events.len() > event.events_before;
        if has_token {
            self.outdate_usage();
        }
        event.contents.add_traits(traits);
        self.event_log.push(at, event.contents);
        if let Some(usage) = event.usage {
            // Counts next to tokens show whether they are running totals, and how many tokens the
            // first event has.
            if let Some(tokens) = usage.completion_tokens.filter(|_| has_token) {
                self.counts.add(self.token_events.len() as u64, tokens);
            }
            self.usage_is_final = self.finish_reason.is_some();
            self.count(usage);
        }
        for name in event.unread {
            self.note_unread(name, !has_token);
        }
    }

    fn read_part(&mut self, at: Duration, part: MessagePart<'_>, event: &mut EventState) {
        match part {
            MessagePart::Role => event.contents.insert(EventPart::Role),
            MessagePart::Choice(index) => event.choice = index,
            MessagePart::Token(kind, text) => {
                event.contents.insert(kind.into());
                self.choose(event, kind);
                self.token(at, (kind, &text), event.events_before);
            }
            MessagePart::Items(items) => {
                event.contents.insert(EventPart::Answer);
                self.items = Some(items);
                self.token(at, (TokenKind::Answer, ""), event.events_before);
            }
            MessagePart::Unread(_, text) if self.counts_unread => {
                event.contents.insert(EventPart::Reasoning);
                self.token(at, (TokenKind::Reasoning, &text), event.events_before);
            }
            MessagePart::Unread(field, text) => {
                self.text = self.text.map(|bytes| bytes + text.len() as u64);
                self.hold(&text);
                event.contents.insert(EventPart::UnreadText);
                event.unread.push(field.into_owned());
            }
            MessagePart::Unknown(excerpt) => self.note_unknown(excerpt),
            MessagePart::Finish(reason) => {
                event.contents.insert(EventPart::Finish);
                self.finished.get_or_insert(at);
                self.finish(&reason);
            }
            MessagePart::Usage(usage) => {
                event.contents.insert(EventPart::Usage);
                event.usage = Some(usage);
            }
            MessagePart::UnreadUsage(excerpt) => self.unread_usage = Some(excerpt),
            MessagePart::Timings(timings) => self.timings = timings,
            MessagePart::Error(message) => {
                self.in_band.get_or_insert((self.token_events.len(), message));
            }
            MessagePart::End => {
                event.contents.insert(EventPart::End);
                self.ended = true;
            }
        }
    }

    /// Tracks the choice of a token, to detect several answers in one stream.
    ///
    /// The client always requests one choice, but some servers number it arbitrarily: each event
    /// anew, or the answer differently from the reasoning. Two choices in one event, choices of one
    /// kind that alternate, or a new choice after the finish reason can only be several answers.
    fn choose(&mut self, event: &mut EventState, kind: TokenKind) {
        let index = event.choice;
        let in_event = event.chosen.replace(index).is_some_and(|before| before != index);
        let (first, last) = self.choices[kind as usize].unwrap_or((index, index));
        let returns = index == first && last != first;
        self.choices[kind as usize] = Some((first, index));
        let is_other = self.choice.replace(index).is_some_and(|before| before != index);
        let after_finish = is_other && self.finish_reason.is_some();
        self.has_several_choices |= in_event || returns || after_finish;
    }

    /// Keeps the worst reason: an error that is followed by `stop` is an error.
    fn finish(&mut self, reason: &str) {
        let before = self.finish_reason.as_deref().map(FinishClass::of);
        if before.is_none_or(|before| before <= FinishClass::of(reason)) {
            self.finish_reason = Some(reason.to_owned());
        }
    }

    /// Discards counts from before a token, which do not cover the whole answer. Counts that came
    /// with the finish reason are kept: the server had counted everything and sent a piece of text
    /// late.
    fn outdate_usage(&mut self) {
        if self.usage_is_final && self.usage.completion_tokens.is_some() {
            self.text_after_usage = true;
            return;
        }
        let Usage { prompt_tokens, cached_tokens, renamed, .. } = self.usage;
        self.usage = Usage { prompt_tokens, cached_tokens, renamed, ..Usage::default() };
    }

    /// Keeps the first document that contained nothing known, for the message about an answer
    /// without tokens.
    fn note_silent(&mut self, frame: &Frame<'_>, message: &Message<'_>) {
        // A document is its answer's end, whatever it has.
        let is_content = |part: &MessagePart<'_>| !self.is_document || *part != MessagePart::End;
        let is_known = message.parts.iter().any(is_content) || !self.token_events.is_empty();
        let Frame::Event { data: data @ [b'{', ..], .. } = frame else { return };
        if !is_known && data.len() > 2 && self.silent.is_none() {
            self.silent = Some(one_line(&String::from_utf8_lossy(data), 120));
        }
    }

    /// Keeps the first unknown event and counts changes between unknown events. A server repeats a
    /// status; tokens differ.
    fn note_unknown(&mut self, excerpt: String) {
        self.unknown_texts += usize::from(self.last_unknown.as_ref() != Some(&excerpt));
        self.unknown.get_or_insert_with(|| excerpt.clone());
        self.last_unknown = Some(excerpt);
    }

    fn note_unread(&mut self, name: String, alone: bool) {
        match self.unread.iter_mut().find(|field| field.name == name) {
            Some(field) => field.alone |= alone,
            None => self.unread.push(UnreadField { name, alone }),
        }
    }

    /// Merges a usage into earlier ones. A later count replaces an earlier one; a missing count
    /// keeps it, because Anthropic counts the prompt only at the start.
    fn count(&mut self, usage: Usage) {
        if let Some(tokens) = usage.completion_tokens {
            let (most, shrank) = self.counted;
            self.counted = (most.max(tokens), shrank || tokens < most);
        }
        let before = mem::take(&mut self.usage);
        self.usage = Usage {
            prompt_tokens: usage.prompt_tokens.or(before.prompt_tokens),
            completion_tokens: usage.completion_tokens.or(before.completion_tokens),
            total_tokens: usage.total_tokens.or(before.total_tokens),
            cached_tokens: usage.cached_tokens.or(before.cached_tokens),
            reasoning_tokens: usage.reasoning_tokens.or(before.reasoning_tokens),
            renamed: usage.renamed || before.renamed,
        };
    }

    /// Records a token. An event is one arrival, however many tokens or kinds of tokens it has.
    fn token(&mut self, at: Duration, (kind, text): (TokenKind, &str), events_before: usize) {
        if self.token_events.len() == events_before {
            self.token_events.push(at);
        }
        self.finished = None;
        let bytes = text.len() as u64;
        self.hold(text);
        self.text = self.text.filter(|_| kind != TokenKind::ToolCall).map(|text| text + bytes);
        let first = match kind {
            TokenKind::Reasoning => &mut self.first_reasoning,
            TokenKind::Answer | TokenKind::ToolCall => &mut self.first_answer,
        };
        first.get_or_insert(at);
    }

    fn hold(&mut self, text: &str) {
        let (bytes, most) = self.all_text;
        self.all_text = (bytes + text.len() as u64, most + text::most_tokens(text));
    }

    /// Returns whether the failure `broken` truncated the answer. An answer with an end marker is
    /// complete, however the body ended.
    fn is_cut_by(&self, broken: &RequestError) -> bool {
        match broken.kind {
            ErrorKind::LeftOpen => false,
            kind => !self.ended || kind == ErrorKind::Interrupted,
        }
    }

    /// Returns the end of the answer. If the server left the body open, the client only waited after
    /// the last event.
    fn end(&self, recording: &Recording, body_end: Option<Note>) -> Duration {
        let last_event = self.last_event.filter(|_| body_end == Some(Note::BodyLeftOpen));
        last_event.unwrap_or(recording.ended_at)
    }

    fn into_sample(
        self,
        recording: &Recording,
        fallback: TokenCount,
        texts: &dyn Fn() -> [String; 3],
    ) -> Result<Sample, RequestError> {
        let finish_reason = self.finish_reason()?.to_owned();
        let body_end = body_end(recording);
        let end = self.end(recording, body_end);
        let evidence = NoteEvidence::by(&self);
        let events = self.token_events.len() as u64;
        let usage = self.usage;
        let (response_tokens, token_count) = self.count_tokens(fallback, texts)?;
        let sum = usage.prompt_tokens.map(|prompt| prompt.saturating_add(response_tokens));
        // A total below its parts, such as FastDeploy's 0, is ignored.
        let least = sum.unwrap_or(response_tokens);
        let below_sum = usage.total_tokens.is_some_and(|total| total < least);
        let mut sample = Sample {
            is_streamed: !self.is_document,
            request_id: self.id,
            finish_reason,
            items: self.items,
            prompt_tokens: usage.prompt_tokens,
            response_tokens,
            total_tokens: usage.total_tokens.filter(|_| !below_sum).or(sum),
            cached_tokens: usage.cached_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            token_count,
            connect: recording.connect,
            tls: recording.tls,
            sent: recording.sent,
            lag: None,
            stamped_by: recording.stamped_by,
            first_byte: recording.headers_at,
            first_event: self.first_event.unwrap_or_default(),
            first_reasoning: self.first_reasoning.filter(|_| !self.is_document),
            first_answer: self.first_answer.filter(|_| !self.is_document),
            token_events: self.token_events,
            event_log: self.event_log,
            first_event_tokens: self.counts.of_first(events, response_tokens),
            end,
            uncertainty: self.arrivals.finish(recording.uncertainty),
            server_head: recording.head_time,
            server: self.timings,
            shows_reasoning: false,
            is_good: None,
            asked_for_one: false,
            notes: Vec::new(),
            unread: self.unread,
            doubts: Vec::new(),
        };
        if let Some(others) = sample.answer_tokens() {
            let [answer, ..] = texts();
            sample.shows_reasoning = text::shows_reasoning(&answer, others);
        }
        sample.doubts = evidence.doubts(&sample);
        sample.notes = evidence.notes(&sample, body_end);
        sample.notes.extend(below_sum.then_some(Note::TotalBelowSum));
        Ok(sample)
    }

    /// Returns the number of generated tokens and its source.
    fn count_tokens(
        &self,
        fallback: TokenCount,
        texts: &dyn Fn() -> [String; 3],
    ) -> Result<(u64, TokenCount), RequestError> {
        if self.items.is_some() {
            return Ok((0, TokenCount::Usage));
        }
        let by_server = self.usage.completion_tokens;
        let events = self.token_events.len() as u64;
        count((by_server, self.is_document), events, fallback, texts)
            .map_err(|error| with_usage(error, self.unread_usage.as_deref()))
    }

    /// Returns the finish reason of an answer that was generated to its end.
    fn finish_reason(&self) -> Result<&str, RequestError> {
        if self.is_document {
            return self.finish_reason_of_document();
        }
        let after = after_tokens(self.token_events.len());
        let unknown = self.unknown.as_ref().map_or_else(String::new, |excerpt| {
            format!("; the server also sent `{}`", one_line(excerpt, 120))
        });
        let unread = self.unread.first().map(|field| {
            format!("; there was text in the unknown field `{}`, for `text_fields`", field.shown())
        });
        let also = if unknown.is_empty() { unread.unwrap_or_default() } else { unknown.clone() };
        let silent = self.silent.as_ref().filter(|_| also.is_empty());
        let silent = silent.map(|event| format!("; an event was `{event}`")).unwrap_or_default();
        let (kind, message) = match self.finish_reason.as_deref() {
            _ if self.token_events.is_empty() => {
                (ErrorKind::NoToken, format!("{}{unknown}{silent}", self.describe_without_token()))
            }
            None if self.ended => (
                ErrorKind::NoFinishReason,
                format!("the server sent its end marker without a finish reason, {after}{also}"),
            ),
            None if self.usage.completion_tokens.is_some() => (
                ErrorKind::NoFinishReason,
                format!(
                    "the stream ended without a finish reason, {after}, though the server counted \
                     its tokens{also}"
                ),
            ),
            None => (
                ErrorKind::NoFinishReason,
                format!(
                    "the stream ended without a finish reason, {after}: the answer was cut off{also}"
                ),
            ),
            Some(reason) if FinishClass::of(reason) == FinishClass::Failed => {
                let reason = one_line(reason, 60);
                let message = format!(
                    "the server ended the answer with the finish reason `{reason}`, {after}"
                );
                (ErrorKind::InBand, message)
            }
            Some(reason) => return Ok(reason),
        };
        Err(RequestError::new(kind, message))
    }

    /// Returns the finish reason of an answer that was not streamed.
    fn finish_reason_of_document(&self) -> Result<&str, RequestError> {
        if self.items.is_some() {
            return Ok("");
        }
        let silent = self.silent.as_ref().map(|document| format!(": `{document}`"));
        let (kind, message) = match self.finish_reason.as_deref() {
            _ if self.token_events.is_empty() => {
                let silent = silent.unwrap_or_default();
                (ErrorKind::NoToken, format!("{}{silent}", self.describe_without_token()))
            }
            None => (ErrorKind::NoFinishReason, "the answer has no finish reason".to_owned()),
            Some(reason) if FinishClass::of(reason) == FinishClass::Failed => {
                let reason = one_line(reason, 60);
                let message =
                    format!("the server ended the answer with the finish reason `{reason}`");
                (ErrorKind::InBand, message)
            }
            Some(reason) => return Ok(reason),
        };
        Err(RequestError::new(kind, message))
    }

    /// Describes an answer without tokens.
    fn describe_without_token(&self) -> String {
        let (begin, sent) = match self.is_document {
            true => ("the answer has no generated token", "sent"),
            false => ("the stream ended without one generated token", "streamed"),
        };
        let reason = self.finish_reason.as_deref().map(|reason| one_line(reason, 60));
        let ended = reason.map(|reason| format!(", with the finish reason `{reason}`"));
        let ended = ended.unwrap_or_default();
        if !self.unread.is_empty() {
            let names: Vec<_> =
                self.unread.iter().map(|field| format!("`{}`", field.shown())).collect();
            let names = names.join(", ");
            return format!(
                "{begin} in a known field{ended}; text came in {names}: name it in `text_fields`"
            );
        }
        match (self.usage.completion_tokens, self.usage.reasoning_tokens) {
            (Some(tokens @ 1..), reasoning) => {
                let hidden = reasoning.filter(|tokens| *tokens > 0);
                let hidden = hidden.map(|tokens| format!(", {tokens} of them hidden reasoning"));
                let hidden = hidden.unwrap_or_default();
                let help = match USUAL_LIMITS.contains(&self.finish_reason.as_deref().unwrap_or(""))
                {
                    true => ": a larger `max_tokens` leaves room for an answer",
                    false => "",
                };
                format!(
                    "the server {sent} no text{ended}, though it counted {tokens} generated \
                     tokens{hidden}{help}"
                )
            }
            _ => format!("{begin}{ended}"),
        }
    }
}

/// The parts of a [`StreamReader`] that notes and doubts depend on.
struct NoteEvidence {
    text: Option<u64>,
    /// Bytes of all generated text, and the largest number of tokens that it can have.
    all_text: (u64, u64),
    counts: EventCounts,
    shrinks: bool,
    finished: Option<Duration>,
    ended: bool,
    more_after_end: bool,
    /// Whether enough unknown events had different texts to be tokens.
    has_unknown_texts: bool,
    read_leniently: [(bool, Note); 5],
}

impl NoteEvidence {
    fn by(stream: &StreamReader<'_>) -> Self {
        Self {
            text: stream.text,
            all_text: stream.all_text,
            counts: stream.counts,
            shrinks: stream.counted.1,
            finished: stream.finished,
            ended: stream.ended,
            more_after_end: stream.more_after_end,
            has_unknown_texts: stream.unknown_texts >= UNKNOWN_TEXTS,
            read_leniently: [
                (stream.unknown.is_some(), Note::UnreadEvents),
                (stream.usage.renamed, Note::RenamedUsage),
                (stream.usage_after_end, Note::UsageAfterEnd),
                (stream.text_after_usage, Note::TextAfterUsage),
                (stream.text_after_end, Note::TextAfterEnd),
            ],
        }
    }

    fn doubts(&self, sample: &Sample) -> Vec<Doubt> {
        let unread = sample.unread.iter().filter(|field| field.alone);
        let unread = unread.map(|field| field.doubt(&sample.token_count));
        let unknown = self.has_unknown_texts.then(Doubt::of_unknown_events);
        let held_back = sample.may_be_held_back().then(Doubt::of_held_back);
        unread.chain(unknown).chain(held_back).collect()
    }

    fn notes(&self, sample: &Sample, body_end: Option<Note>) -> Vec<Note> {
        let (bytes, most) = self.all_text;
        let ended = self.finished.unwrap_or(sample.end);
        let shown = TokenEvidence {
            text: self.text,
            bytes,
            most,
            counts: self.counts,
            shrinks: self.shrinks,
            tail: ended.saturating_sub(sample.last_token()),
        };
        let is_unusual = sample.items.is_none()
            && FinishClass::of(&sample.finish_reason) == FinishClass::Unusual;
        let first = [
            (!sample.unread.is_empty(), Note::UnreadText),
            (is_unusual, Note::UnusualFinishReason),
        ];
        let mut found: Vec<_> = applicable(first.into_iter().chain(self.read_leniently)).collect();
        found.sort_unstable();
        found.extend(notes(sample, self.ended, self.more_after_end));
        found.extend(body_end);
        found.extend(counts::doubts(sample, &shown));
        found
    }
}

/// Returns the note about a complete answer whose body did not end as HTTP requires.
fn body_end(recording: &Recording) -> Option<Note> {
    let kind = recording.broken.as_ref()?.kind;
    let limits =
        [ErrorKind::FirstTokenTimeout, ErrorKind::InterTokenTimeout, ErrorKind::TotalTimeout];
    match kind == ErrorKind::LeftOpen || limits.contains(&kind) {
        true => Some(Note::BodyLeftOpen),
        false => Some(Note::BodyBroken),
    }
}

fn notes(sample: &Sample, ended: bool, more_after_end: bool) -> Vec<Note> {
    let events = sample.token_events.len();
    let delayed = sample.is_client_delayed();
    // Events that this program read late need not have been held back.
    let burst = sample.is_burst() && !delayed;
    let found = [
        (!ended, Note::NoEndMarker),
        (more_after_end, Note::MoreAfterEnd),
        (sample.hidden_reasoning_tokens() > 0, Note::HiddenReasoning),
        (sample.cached_tokens.is_some_and(|tokens| tokens > 0), Note::CachedPrefix),
        (burst, Note::Burst),
        (sample.may_be_held_back(), Note::MayBeHeldBack),
        (!burst && sample.shared_arrivals() * 10 > events, Note::SharedArrivals),
        (delayed, Note::ClientDelayed),
        (sample.server_disagrees(), Note::ServerDisagrees),
    ];
    applicable(found).collect()
}

/// Returns the notes whose condition holds.
fn applicable(notes: impl IntoIterator<Item = (bool, Note)>) -> impl Iterator<Item = Note> {
    notes.into_iter().filter_map(|(holds, note)| holds.then_some(note))
}

/// Returns the number of generated tokens and its source.
fn count(
    (by_server, is_document): (Option<u64>, bool),
    events: u64,
    fallback: TokenCount,
    texts: &dyn Fn() -> [String; 3],
) -> Result<(u64, TokenCount), RequestError> {
    match (by_server, fallback) {
        (Some(tokens), _) if tokens > 0 => Ok((tokens, TokenCount::Usage)),
        (_, TokenCount::Chunks) => Ok((events, TokenCount::Chunks)),
        (_, TokenCount::Tokenizer(tokenizer)) => {
            // Counted separately, because special tokens separate the texts.
            let counts: Result<u64, String> =
                texts().iter().map(|text| tokenizer.count(text)).sum();
            let counted = counts.and_then(|tokens| match tokens {
                0 => Err("it counts none".to_owned()),
                tokens => Ok(tokens),
            });
            let tokens = counted.map_err(|why| {
                let name = tokenizer.name();
                let message =
                    format!("the tokenizer `{name}` counts no tokens of the answer: {why}");
                RequestError::new(ErrorKind::NoUsage, message)
            })?;
            Ok((tokens, TokenCount::Tokenizer(tokenizer)))
        }
        (counted, TokenCount::Usage) => {
            let what = match counted {
                None => "the server sent no usage that counts the whole answer",
                Some(_) => "the server's usage counts no generated token, though tokens arrived",
            };
            let help = match is_document {
                true => "a `tokenizer` in `token_count` of the model's config would count them",
                false => {
                    "`token_count: chunks` in the model's config would count each event as a token"
                }
            };
            let message = format!("{what}; {help}");
            Err(RequestError::new(ErrorKind::NoUsage, message))
        }
    }
}

/// Adds the unreadable usage to an error about missing usage.
fn with_usage(error: RequestError, unread: Option<&str>) -> RequestError {
    match unread.filter(|_| error.kind == ErrorKind::NoUsage) {
        Some(usage) => {
            let usage = one_line(usage, 120);
            let message = format!("{}; its usage was `{usage}`", error.message);
            RequestError::new(error.kind, message)
        }
        None => error,
    }
}

/// The hint for servers such as vLLM, which accept the key of every protocol in one header.
pub const BEARER_HINT: &str = " (see `api_key_env` in the config; for a server that requires a bearer \
                           token: `headers: { authorization: \"Bearer ${MY_API_KEY}\" }`)";

/// The hint for statuses that only proxies send.
const PROXY_HINT: &str = " (a proxy requires a user and password: see `proxy` in the config, or the \
                          variable of the environment that names it)";

/// The hint for statuses about keys.
pub const KEY_HINT: &str = " (see `api_key_env` in the config)";

/// Returns the error for a status other than 2xx.
fn refuse_status(recording: &Recording, protocol: &dyn Protocol) -> Result<(), RequestError> {
    let status = recording.status;
    if (200..300).contains(&status) {
        return Ok(());
    }
    let body = recording.body();
    let says = match coding::name(recording.content_encoding.as_deref(), &body) {
        Some(coding) => format!(" (the body is compressed with {})", one_line(&coding, 40)),
        None if !coding::is_text(&body) => " (the body is not text)".into(),
        None => format_body(&body, protocol),
    };
    let later = recording.retry_after.as_deref().map(|after| one_line(after, 60));
    let later = later.map(|after| format!(" (retry-after: {after})")).unwrap_or_default();
    let (kind, hint) = match status {
        300..=399 => (ErrorKind::Redirect, " (redirects are not followed: name the final URL)"),
        401 | 403 if protocol.key_header().0 != http::header::AUTHORIZATION => {
            (ErrorKind::HttpStatus, BEARER_HINT)
        }
        401 | 403 => (ErrorKind::HttpStatus, KEY_HINT),
        404 => (ErrorKind::HttpStatus, NOT_FOUND_HINT),
        407 => (ErrorKind::HttpStatus, PROXY_HINT),
        _ => (ErrorKind::HttpStatus, ""),
    };
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason())
        .map(|reason| format!(" {reason}"))
        .unwrap_or_default();
    Err(RequestError::new(kind, format!("HTTP {status}{reason}{says}{later}{hint}")))
}

/// Returns the error for a compressed body.
fn compressed(recording: &Recording) -> Option<RequestError> {
    let bytes = recording.chunks.iter().flat_map(|chunk| &chunk.bytes[..]).copied();
    let beginning: Vec<_> = bytes.take(coding::SAMPLE).collect();
    let coding = coding::name(recording.content_encoding.as_deref(), &beginning)?;
    let coding = one_line(&coding, 40);
    let message = format!(
        "the answer is compressed with {coding}, which the request did not allow and which hides \
         when tokens came: turn compression off at the server or the proxy before it"
    );
    Some(RequestError::new(ErrorKind::NotAStream, message))
}

/// Returns the error for a 2xx body without events.
fn no_events(recording: &Recording, protocol: &dyn Protocol) -> RequestError {
    let body = recording.body();
    if body.trim_ascii().is_empty() {
        if !protocol.is_streamed() {
            return RequestError::new(ErrorKind::NoToken, "the server answered with an empty body");
        }
        return RequestError::new(
            ErrorKind::NoToken,
            "the server answered with an empty stream (some servers do so when the prompt is too \
             long for the model)",
        );
    }
    let what = match recording.content_type.as_deref() {
        Some(kind) if kind.contains("event-stream") => "the answer contains no events".into(),
        Some(kind) => format!("the answer is `{}`, not an event stream", one_line(kind, 60)),
        None => "the answer is not an event stream".into(),
    };
    let says = match coding::is_text(&body) {
        true => format_body(&body, protocol),
        false => ": its bytes are not text (compressed with Brotli, which leaves no mark?)".into(),
    };
    RequestError::new(ErrorKind::NotAStream, format!("{what}{says}"))
}

/// Formats a body for the end of a message: `: TEXT`, or nothing.
fn format_body(body: &[u8], protocol: &dyn Protocol) -> String {
    let text = protocol
        .decode_error(body)
        .unwrap_or_else(|| String::from_utf8_lossy(body.trim_ascii()).into_owned());
    let line = one_line(&text, 300);
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

/// Returns `text` on one line of at most `limit` characters. Words are never split: a word may be a
/// secret, and half of it would escape redaction. Words that are too long are omitted.
fn one_line(text: &str, limit: usize) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line = visible(&line).into_owned();
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if line.chars().nth(limit).is_some() {
        line = without_long_words(&line, limit / 3, is_of_word);
    }
    if let Some((cut, next)) = line.char_indices().nth(limit) {
        let whole =
            if is_of_word(next) { line[..cut].trim_end_matches(is_of_word).len() } else { cut };
        line.truncate(whole);
        line.push('…');
    }
    line
}

/// Replaces words longer than `limit` bytes by `…`.
fn without_long_words(line: &str, limit: usize, is_of_word: impl Fn(char) -> bool) -> String {
    let mut short = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let next = rest[end..].chars().next().map_or(end, |c| end + c.len_utf8());
        short.push_str(if end > limit { "…" } else { &rest[..end] });
        short.push_str(&rest[end..next]);
        rest = &rest[next..];
    }
    short
}

fn after_tokens(events: usize) -> String {
    match events {
        0 => "before the first token".into(),
        1 => "after 1 token event".into(),
        _ => format!("after {events} token events"),
    }
}
