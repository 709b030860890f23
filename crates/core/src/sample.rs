//! A recording read as a chat: [`Recording`] × [`Protocol`] → [`Sample`], or the reason why there
//! is nothing to measure. Pure: the same recording gives the same sample for ever.

mod arrivals;
mod counts;
mod text;

use std::{borrow::Cow, fmt, iter, mem, time::Duration};

use serde::de::IgnoredAny;

pub use self::arrivals::ArrivalUncertainty;
use self::{
    arrivals::{ArrivalTracker, EventProgress},
    counts::{EventCounts, TokenEvidence},
};
use crate::{
    coding,
    framing::{Frame, Framing},
    protocol::{
        DecodeError, EventTemplate, Message, MessagePart, Protocol, TextFields, Timings, TokenKind,
        Usage,
    },
    recording::{Chunk, ErrorKind, Recording, RequestError, StampedBy},
    synthetic::Length,
    text::visible,
    tokenizer::Tokenizer,
};

/// A generation shorter than this cannot be told from one that a proxy held back and delivered in
/// one piece, so nothing that divides by it is reported.
pub const SHORTEST_GENERATION: Duration = Duration::from_millis(1);

/// With fewer pieces than this, one piece more or less at either end is a tenth of the generation:
/// it counts as an uncertainty.
pub const FEWEST_ARRIVALS: usize = 10;

/// An answer was held back if its tokens can have been gathered for more than so many times as long
/// as they took to arrive, and they arrived faster than any model generates: its speed is that of
/// the network.
const HELD_BACK: u32 = 4;

/// Token events of one answer that follow each other faster than this come from a buffer rather than
/// from a model, unless the server's own clock says otherwise.
const FASTEST_EVENTS: Duration = Duration::from_millis(1);

/// A client that reads as it means to is this late at most: it looks at its sockets every
/// millisecond, every two with many answers in flight, and reading takes some time.
const PUNCTUAL: Duration = Duration::from_millis(3);

/// The same where the program stamps the arrivals, with timers that are up to a millisecond late.
const PUNCTUAL_PROGRAM: Duration = Duration::from_millis(4);

/// The part of a figure by which a late client may change it without a note.
const NEGLIGIBLE: f64 = 0.01;

/// Token events closer together than this came out of one read or were held back together: their
/// gap is no time between tokens.
pub const SHARED_ARRIVAL: Duration = Duration::from_micros(50);

/// A server may put so many tokens before a prompt that its request does not show.
const UNSEEN_PROMPT: u64 = 65_536;

/// How many tokens a request wants to have generated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestedTokens {
    /// The most that it allows.
    pub most: Option<u64>,
    /// The fewest that it demands.
    pub least: Option<u64>,
    /// How long the prompt is to be.
    pub prompt: Option<Length>,
    /// Bytes of the request, where each token of the prompt is a byte of it at least: one with
    /// pictures has more.
    pub bytes: Option<u64>,
}

/// How far a server's word may be from ours without being another: it rounds, and takes its times a
/// little before it sends.
const SERVERS_MARGIN: f64 = 0.01;

/// The same of short times: what an instrument may be off, and a server between its clock and its
/// socket.
const SERVERS_LEAST: Duration = Duration::from_millis(1);

/// One valid answer: what the server counted and when its tokens arrived.
///
/// All times count from the moment the request was handed to an open connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The completion's id.
    pub request_id: Option<String>,
    /// Why generation ended.
    pub finish_reason: String,
    /// Tokens of the prompt, by the server.
    pub prompt_tokens: Option<u64>,
    /// Generated tokens, reasoning included.
    pub response_tokens: u64,
    /// Both together, as the server states it, else their sum.
    pub total_tokens: Option<u64>,
    /// Tokens of the prompt that came from a cache.
    pub cached_tokens: Option<u64>,
    /// Generated tokens that were reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Who counted the generated tokens.
    pub token_count: TokenCount,
    /// DNS, TCP and TLS of a new connection; `None` on a reused one.
    pub connect: Option<Duration>,
    /// The TLS handshake in it, where the transport can tell.
    pub tls: Option<Duration>,
    /// When the request was handed to the kernel, whole, where the transport can tell.
    pub sent: Option<Duration>,
    /// In an open loop: how long after its scheduled start the request was handed over. All other
    /// times then count from the scheduled start, so that they hold it.
    pub lag: Option<Duration>,
    /// Whose clock stamped the arrivals.
    pub stamped_by: StampedBy,
    /// Arrival of the response headers.
    pub first_byte: Duration,
    /// Arrival of the first event of any kind.
    pub first_event: Duration,
    /// Arrival of the first reasoning token, if there was one.
    pub first_reasoning: Option<Duration>,
    /// Arrival of the first answer or tool-call token; `None` when all was reasoning.
    pub first_answer: Option<Duration>,
    /// Arrival of each event that held a generated token. Never empty.
    pub token_events: Vec<Duration>,
    /// Tokens of the first token event, where the server says so with usage on every chunk.
    pub first_event_tokens: Option<u64>,
    /// End of the body.
    pub end: Duration,
    /// How much earlier than all these the arrivals can have been.
    pub uncertainty: ArrivalUncertainty,
    /// Response headers by the server's own word, where they say so: [`Recording::head_time`].
    pub server_head: Option<Duration>,
    /// What the server says of its own speed.
    pub server: Timings,
    /// Whether what was streamed holds the reasoning, as part of the answer.
    pub shows_reasoning: bool,
    /// Whether the request allowed one token only, so that there is no time between tokens.
    pub asked_for_one: bool,
    /// What a reader of the figures should know.
    pub notes: Vec<Note>,
    /// Fields of the delta that the protocol does not know and that held text.
    pub unread: Vec<UnreadField>,
    /// What may make figures that there are wrong: no threshold on one of these is decided.
    pub doubts: Vec<Doubt>,
}

/// `token_count`: who counts a response's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TokenCount {
    /// `usage`: the server; an answer without its usage is a failure.
    #[default]
    Usage,
    /// `chunks`: the server, and where it does not, each event with a token counts as one token.
    Chunks,
    /// `{ tokenizer: FILE }`: the server, and where it does not, this tokenizer counts the text.
    Tokenizer(Tokenizer),
}

impl TokenCount {
    /// The name in the config and the results.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Chunks => "chunks",
            Self::Tokenizer(_) => "tokenizer",
        }
    }
}

/// A field of the delta that the protocol does not know and that held text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadField {
    /// Its name, as in `text_fields` and `ignore_fields` of the config.
    pub name: String,
    /// Whether it held text in an event without a known token. Such an event may be an arrival of
    /// a token; next to a known token, the text moves no figure.
    pub alone: bool,
}

/// Why figures of an answer may be wrong, though they are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// The names of the metrics that it may have changed.
    pub metrics: &'static [&'static str],
    /// What is doubted and what would settle it.
    pub reason: String,
}

/// As many different events that are not of the protocol may be tokens.
const UNKNOWN_TEXTS: usize = 3;

impl Doubt {
    /// Text in events that the protocol does not know.
    fn of_unknown_events() -> Self {
        Self {
            metrics: Self::ARRIVALS,
            reason: "different texts in events that are not of the protocol, which may be tokens"
                .into(),
        }
    }

    /// An answer that [may have been held back](Sample::may_be_held_back).
    fn of_held_back() -> Self {
        Self {
            metrics: Self::HELD_BACK,
            reason: "token events faster than a model generates, after a much longer wait: the \
                     server or a proxy may have held the answer back"
                .into(),
        }
    }

    /// The metrics that are made of the arrivals of tokens: all of them change with a token that was
    /// not seen.
    pub const ARRIVALS: &'static [&'static str] = &[
        "ttft",
        "ttfo",
        "first_reasoning_time",
        "generation_time",
        "generation_speed",
        "tpot",
        "itl",
        "itl_max",
        "e2e",
        "preprocess_speed",
        "uncached_preprocess_speed",
        "ttft_beyond_server",
        "generation_beyond_server",
    ];

    /// The same, and those that are made of the number of generated tokens.
    pub const ARRIVALS_AND_COUNTS: &'static [&'static str] = &[
        "ttft",
        "ttfo",
        "first_reasoning_time",
        "generation_time",
        "generation_speed",
        "tpot",
        "itl",
        "itl_max",
        "e2e",
        "preprocess_speed",
        "uncached_preprocess_speed",
        "ttft_beyond_server",
        "generation_beyond_server",
        "response_tokens",
        "total_tokens",
        "total_tokens_per_second",
        "output_throughput",
    ];

    /// The metrics of an answer that may have been generated before its first event.
    const HELD_BACK: &'static [&'static str] =
        &["generation_time", "generation_speed", "tpot", "itl", "itl_max", "ttft", "ttfo"];
}

/// A count of tokens that figures are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountKind {
    /// The tokens that were streamed.
    Streamed,
    /// All that were generated.
    Response,
    /// Those of the prompt.
    Prompt,
    /// Both together.
    Total,
}

impl UnreadField {
    /// What its text may have changed: also the number of tokens, unless the server counted them.
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

    /// Its name, which is the server's: short, and without blanks and control characters.
    fn shown(&self) -> String {
        let is_plain = |c: &char| !c.is_control() && !c.is_whitespace();
        self.name.chars().filter(is_plain).take(60).collect()
    }
}

impl Sample {
    /// Arrival of the first generated token.
    pub fn first_token(&self) -> Duration {
        self.token_events.first().copied().unwrap_or_default()
    }

    /// Arrival of the last token-bearing event.
    pub fn last_token(&self) -> Duration {
        self.token_events.last().copied().unwrap_or_default()
    }

    /// First → last token-bearing event; `None` for a single event, or when they were held back
    /// ([`is_burst`](Self::is_burst)).
    pub fn generation_time(&self) -> Option<Duration> {
        (self.token_events.len() > 1 && !self.is_burst()).then(|| self.span())
    }

    /// Whether several token events came at once ([`SHORTEST_GENERATION`]), or in few pieces that
    /// were held back: the time between those is not that of generation.
    pub fn is_burst(&self) -> bool {
        let several = self.token_events.len() > 1;
        let is_held_back = || {
            // What is known at once comes first: most answers need no more.
            self.gathered_first() > self.span() * HELD_BACK
                && self.is_in_few_pieces()
                && (self.is_faster_than_models() || self.has_large_first_piece())
        };
        several && (self.span() < SHORTEST_GENERATION || is_held_back())
    }

    /// Whether the whole answer may have been generated before its first event and then written
    /// event by event: the events followed each other faster than a model generates, after a much
    /// longer wait. A server that states its own time and agrees has generated them that fast.
    pub fn may_be_held_back(&self) -> bool {
        let is_confirmed = || self.server_generation_time().is_some() && !self.server_disagrees();
        self.token_events.len() > 2
            && self.is_faster_than_models()
            && self.first_token_of_request() > self.span() * HELD_BACK
            && !self.is_burst()
            && !is_confirmed()
    }

    /// Whether token events followed each other faster than [`FASTEST_EVENTS`].
    fn is_faster_than_models(&self) -> bool {
        let gaps = u32::try_from(self.token_events.len()).unwrap_or(u32::MAX).saturating_sub(1);
        self.span() < FASTEST_EVENTS.saturating_mul(gaps)
    }

    /// Whether most token events came in fewer than [`FEWEST_ARRIVALS`] pieces.
    fn is_in_few_pieces(&self) -> bool {
        let gaps = self.token_events.len().saturating_sub(1);
        let shared = self.shared_arrivals();
        shared * 2 > gaps && gaps - shared < FEWEST_ARRIVALS
    }

    /// The token events that arrived together, piece by piece.
    fn pieces(&self) -> impl Iterator<Item = &[Duration]> {
        self.token_events.chunk_by(|before, after| after.saturating_sub(*before) < SHARED_ARRIVAL)
    }

    /// Whether the first piece holds more than twice as many events as any later one, so that it was
    /// gathered for longer.
    fn has_large_first_piece(&self) -> bool {
        let mut sizes = self.pieces().map(<[_]>::len);
        let first = sizes.next().unwrap_or_default();
        first > 2 * sizes.max().unwrap_or_default()
    }

    /// How long tokens can have been gathered for the first piece: since what came before it, or
    /// since the request. Nothing, if it is a single event.
    fn gathered_first(&self) -> Duration {
        let first = self.first_token();
        let is_before = |time: &Duration| *time + SHARED_ARRIVAL < first;
        let before = [self.first_event, self.first_byte].into_iter().find(is_before);
        match self.gaps().next() {
            Some(gap) if gap < SHARED_ARRIVAL => first - before.or(self.lag).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// The same for the last piece.
    fn gathered_last(&self) -> Duration {
        let last = self.last_token();
        let mut pieces = self.token_events.iter().rev().skip(1);
        let is_before = |time: &&Duration| **time + SHARED_ARRIVAL < last;
        match self.gaps().last() {
            Some(gap) if gap < SHARED_ARRIVAL => last - *pieces.find(is_before).unwrap_or(&last),
            _ => Duration::ZERO,
        }
    }

    /// How much longer or shorter `generation_time` can have been: what its ends can have arrived
    /// earlier, and what pieces can have been gathered for, where the answer came in few of them.
    pub fn generation_uncertainty(&self) -> Duration {
        let ArrivalUncertainty { first_token, last_token, .. } = self.uncertainty;
        let arrival = first_token.max(last_token);
        match self.is_in_few_pieces() {
            true => arrival.max(self.first_piece_uncertainty()).max(self.gathered_last()),
            false => arrival,
        }
    }

    /// How long tokens were probably gathered for the first piece: no longer than for any later one,
    /// if it is about as small as they are.
    fn first_piece_uncertainty(&self) -> Duration {
        let gathered = self.gathered_first();
        match self.has_large_first_piece() {
            true => gathered,
            false => gathered.min(self.gaps().max().unwrap_or_default()),
        }
    }

    /// Whether this program read so late that a reader of the figures should know.
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

    /// Whether its tokens came later than they were generated: in a burst, or several in the only
    /// event. Its time to the first token is then that to the last one.
    pub fn is_held_back(&self) -> bool {
        self.is_burst() || (self.token_events.len() == 1 && self.streamed_tokens() > 1)
    }

    fn span(&self) -> Duration {
        self.last_token().saturating_sub(self.first_token())
    }

    /// Its notes in words, as in the results: their names, and those of unread fields.
    pub fn noted(&self) -> impl Iterator<Item = (Note, String)> {
        let words = |note: Note| match note {
            Note::UnreadText => format!("{note}({})", self.unread_names()),
            _ => note.name().to_owned(),
        };
        self.notes.iter().map(move |note| (*note, words(*note)))
    }

    /// The fields with text that was not read. Their names are the server's, so they are short and
    /// without blanks and control characters here.
    pub fn unread_names(&self) -> String {
        self.unread.iter().take(8).map(UnreadField::shown).collect::<Vec<_>>().join(",")
    }

    /// This sample, with a note where the server counted other numbers of tokens than the request
    /// allowed or demanded.
    pub fn checked_against(mut self, asked: RequestedTokens) -> Self {
        if asked.most.is_some_and(|most| self.response_tokens > most) {
            self.notes.push(Note::MoreTokensThanAsked);
        }
        if asked.least.is_some_and(|least| self.response_tokens < least) {
            self.notes.push(Note::ShorterThanAsked);
        }
        if let Some(wanted) = asked.prompt
            && !wanted.allows(self.prompt_tokens)
        {
            self.notes.push(Note::PromptLengthOff);
        }
        let most = asked.bytes.map(|bytes| bytes.saturating_add(UNSEEN_PROMPT));
        if self.prompt_tokens.zip(most).is_some_and(|(tokens, most)| tokens > most) {
            self.notes.push(Note::MorePromptThanText);
        }
        self.asked_for_one = asked.most == Some(1);
        self
    }

    /// Why the count is refused.
    pub fn refused(&self, count: CountKind) -> Option<Note> {
        self.notes.iter().copied().find(|note| note.refused_counts().contains(&count))
    }

    /// This sample of a later turn, whose prompt is meant to be cached.
    #[must_use]
    pub fn of_later_turn(mut self) -> Self {
        self.notes.retain(|note| *note != Note::CachedPrefix);
        self
    }

    /// The gaps between successive token-bearing events.
    pub fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.token_events.windows(2).map(|pair| pair[1].saturating_sub(pair[0]))
    }

    /// The same with its times counted from a scheduled start that was `lag` before the request was
    /// handed over.
    #[must_use]
    pub fn scheduled_before(mut self, lag: Duration) -> Self {
        let times = [&mut self.first_byte, &mut self.first_event, &mut self.end].into_iter();
        let optional =
            [self.first_reasoning.as_mut(), self.first_answer.as_mut(), self.sent.as_mut()];
        let optional = optional.into_iter().flatten();
        for time in times.chain(optional).chain(&mut self.token_events) {
            *time += lag;
        }
        self.lag = Some(lag);
        self
    }

    /// Whether this is a repeat whose first token came implausibly fast, given that of the first.
    pub fn is_much_faster_than(&self, first: Duration) -> bool {
        first >= Duration::from_millis(10) && self.first_token() * 5 < first
    }

    /// How many of the gaps are none: events that arrived together with the one before.
    pub fn shared_arrivals(&self) -> usize {
        self.gaps().filter(|gap| *gap < SHARED_ARRIVAL).count()
    }

    /// The time to the first token by the server's own clock: what it tells of its queue, and its work
    /// on the prompt.
    pub fn server_first_token(&self) -> Option<Duration> {
        Some(self.server.prompt? + self.server.queue.unwrap_or_default())
    }

    /// The time from the first to the last token by the server's own clock, of an answer with both.
    pub fn server_generation_time(&self) -> Option<Duration> {
        self.server.generation.filter(|time| self.response_tokens > 1 && !time.is_zero())
    }

    /// Arrival of the first token counted from the moment when the request was handed over, also in
    /// an open loop.
    pub fn first_token_of_request(&self) -> Duration {
        self.first_token().saturating_sub(self.lag.unwrap_or_default())
    }

    /// Whether the server's word and ours differ by more than the network explains.
    ///
    /// What lies between the two clocks is the way of the first and of the last token. It can make
    /// `generation_time` longer or shorter by no more than one way takes, and a round trip is in
    /// the time to the response headers. Tokens at the ends that brought no event, such as the one
    /// that ends the answer, are the server's alone; those of a tool call that it holds back until
    /// it knows what they are, are so many that ours is no speed of generation. A first token that arrives before the server
    /// has made it is impossible; one that arrives later says nothing, since what the server does
    /// before it takes its time is not told.
    pub fn server_disagrees(&self) -> bool {
        let is_early = |ours: Duration, theirs: Option<Duration>| {
            theirs.is_some_and(|t| ours + SERVERS_LEAST < t.mul_f64(1.0 - SERVERS_MARGIN))
        };
        let early = is_early(self.first_token_of_request(), self.server_first_token())
            || is_early(self.head_of_request(), self.server_head);
        let is_whole = self.hidden_reasoning_tokens() == 0;
        let other = self.generation_time().zip(self.server_generation_time());
        let other = other.filter(|_| is_whole);
        early || other.is_some_and(|(ours, theirs)| ours.abs_diff(theirs) > self.explained(theirs))
    }

    /// Arrival of the response headers counted from the moment when the request was handed over.
    pub fn head_of_request(&self) -> Duration {
        self.first_byte.saturating_sub(self.lag.unwrap_or_default())
    }

    /// By how much `generation_time` may differ from the server's.
    fn explained(&self, theirs: Duration) -> Duration {
        let events = (self.token_events.len() as u64).max(1);
        let silent = self.response_tokens.saturating_sub(events);
        let at_ends = silent.min(2 * self.response_tokens.div_ceil(events));
        let at_ends = at_ends + u64::from(self.server.may_hold_first);
        let of_token = theirs.as_secs_f64() / self.response_tokens.saturating_sub(1).max(1) as f64;
        let way = self.head_of_request();
        theirs.mul_f64(SERVERS_MARGIN)
            + SERVERS_LEAST
            + way
            + self.generation_uncertainty()
            + Duration::from_secs_f64(of_token * at_ends as f64)
    }

    /// Tokens of reasoning that the server counted and did not show: they were generated before the
    /// first event, and no time that `generation_time` spans is theirs. Where more events came than
    /// there are other tokens, or their text shows it, the reasoning was among the answer and is
    /// not hidden.
    pub fn hidden_reasoning_tokens(&self) -> u64 {
        let is_hidden = !self.shows_reasoning && self.answer_tokens().is_some();
        self.reasoning_tokens.filter(|_| is_hidden).unwrap_or(0)
    }

    /// The tokens that are not reasoning, where reasoning was counted and may be hidden.
    fn answer_tokens(&self) -> Option<u64> {
        let reasoning = self.reasoning_tokens.filter(|tokens| *tokens > 0)?;
        let others = self.response_tokens.checked_sub(reasoning)?;
        let may_hide = self.first_reasoning.is_none() && self.token_events.len() as u64 <= others;
        may_hide.then_some(others)
    }

    /// The tokens of what was streamed.
    pub fn streamed_tokens(&self) -> u64 {
        self.response_tokens - self.hidden_reasoning_tokens()
    }

    /// Tokens that arrived after the first event: those whose time `generation_time` spans. The
    /// first event is taken to hold one token unless the server said otherwise.
    pub fn tokens_after_first_event(&self) -> u64 {
        let hidden = self.hidden_reasoning_tokens();
        let first = self.first_event_tokens.unwrap_or(0).max(hidden + 1);
        self.response_tokens.saturating_sub(first)
    }
}

/// Words in finish reasons by which a server says that it failed: vLLM's and SGLang's `abort`,
/// DeepSeek's `insufficient_system_resource`, GLM's `network_error`, and what gateways make of errors
/// behind them.
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

/// Finish reasons of an answer that the model ended or that ran into the limit it was given.
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

/// Those of an answer that ran into its limit.
const USUAL_LIMITS: &[&str] =
    &["length", "limit", "max_length", "max_output_tokens", "max_tokens", "model_length"];

/// What a finish reason says of the answer, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FinishClass {
    Usual,
    /// Filtered, refused, a malformed call, or a word that is not known.
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

/// What may be wrong where there is nothing.
pub const NOT_FOUND_HINT: &str = " (see `base_url`, `port` and `model_name` in the config)";

/// Something that a reader of a row should know before using it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// The delta held text in a field that the protocol does not know: [`Sample::unread`] names it.
    UnreadText,
    /// Events that are not of the protocol were skipped.
    UnreadEvents,
    /// The answer ended for a reason other than its own end, its limit or a tool call: a filter, a
    /// refusal, a malformed call, or a word that is not known.
    UnusualFinishReason,
    /// The token counts stood under the names of another protocol.
    RenamedUsage,
    /// The token counts came after the end marker.
    UsageAfterEnd,
    /// Text came after the finish reason and the token counts, which are taken to include it.
    TextAfterUsage,
    /// The stream ended without its end marker (`[DONE]`).
    NoEndMarker,
    /// More came after the end marker; it is not counted.
    MoreAfterEnd,
    /// Text came after the end marker, so the server's count of tokens is not that of the events
    /// before it.
    TextAfterEnd,
    /// The server kept the body open after the answer's end: the client closed the connection.
    BodyLeftOpen,
    /// The answer was whole by its end marker, and then the connection broke instead of the body's
    /// end.
    BodyBroken,
    /// The server counted tokens of reasoning that it did not show: they are in `ttft`, and not in
    /// `generation_speed` and `tpot`.
    HiddenReasoning,
    /// Part of the prompt came from a cache: `preprocess_speed` is not the speed of prefill.
    CachedPrefix,
    /// Its first token came in less than a fifth of the time that this prompt's first run took, and
    /// that was ten milliseconds at least: the server seems to have cached the prompt, whether it
    /// says so or not.
    MuchFasterRepeat,
    /// The token events arrived within a millisecond, or in few pieces after a wait of more than four
    /// times as long, with most of them in the first piece or faster than a model generates: the
    /// server or a proxy held the answer back, so the speed is absent.
    Burst,
    /// The token events followed each other within a millisecond on average, after a wait of more than
    /// four times as long as all of them took: the whole answer may have been generated in that
    /// wait. See [`Sample::may_be_held_back`].
    MayBeHeldBack,
    /// More than a tenth of the token events arrived together with the one before: `itl` and
    /// `itl_max` are those of reads, and the ends of `generation_time` may be off by such a read.
    /// Where most arrived in fewer than ten pieces, that counts as its uncertainty.
    SharedArrivals,
    /// The server counted fewer tokens than token-bearing events arrived.
    FewerTokensThanEvents,
    /// The same, and fewer than that much text can have.
    FewerTokensThanText,
    /// The server counted more generated tokens than the request allowed: its count, and every
    /// speed made of it, is in doubt. Some servers leave reasoning out of the limit.
    MoreTokensThanAsked,
    /// The answer has fewer tokens than the request demanded by `ignore_eos` or `min_tokens`: the
    /// server does not know them, or ended the answer all the same.
    ShorterThanAsked,
    /// A prompt of a stated length has 2 % more or fewer tokens, by the server.
    PromptLengthOff,
    /// The server counted more generated tokens than their text has bytes, besides those of hidden
    /// reasoning and a few special ones: each other token is a byte at least.
    MoreTokensThanText,
    /// More generated tokens were counted than a model makes in that time, and they brought no text.
    MoreTokensThanTime,
    /// A later count of the generated tokens was less than an earlier one.
    UsageShrinks,
    /// The server counted more tokens of reasoning than it counted in all.
    MoreReasoningThanTokens,
    /// The server counted more tokens than the events can hold: when the others were generated is
    /// not known.
    UncountedTokens,
    /// The server counted more tokens than there are events, and what followed the last event took
    /// longer than what ends an answer: tokens may have been generated in that time.
    SilentTail,
    /// The server counted more cached tokens than the prompt has.
    MoreCachedThanPrompt,
    /// The server counted many more tokens of the prompt than its request has bytes.
    MorePromptThanText,
    /// The server counted no token of a prompt that was not empty.
    NoPromptTokens,
    /// The server's total is less than its two counts together: one of them is wrong, and so may
    /// be `total_tokens_per_second`.
    TotalBelowSum,
    /// The server's total is so much more than its two counts together that no model generates that
    /// many tokens in that time.
    TotalAboveSum,
    /// By the server's own clock the answer took another time than by ours, and the network does not
    /// explain it: see [`Sample::server_disagrees`].
    ServerDisagrees,
    /// This program read late, since it was stopped or had no processor, and took several events at
    /// once: their arrivals are known to within `arrival_uncertainty`, which is more than 1 % of a
    /// figure and more than a millisecond beyond what a punctual reader needs.
    ClientDelayed,
    /// The simulated endpoint wrote the first token late, or took another time from the first token
    /// to the last, by more than a millisecond and 1 % of what its script says: the machine had other
    /// things to do.
    SimulatorLate,
}

impl Note {
    /// The note's name in the results.
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

    /// The counts that cannot be, or are not of what they should be: figures made of them are
    /// refused.
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

/// Reads `recording`; `fallback` says who counts when the server does not.
pub fn read(
    recording: &Recording,
    protocol: &dyn Protocol,
    fallback: TokenCount,
) -> Result<Sample, RequestError> {
    read_with(recording, protocol, fallback, &TextFields::default())
}

/// The same where the config says what `fields` of the delta hold.
pub fn read_with(
    recording: &Recording,
    protocol: &dyn Protocol,
    fallback: TokenCount,
    fields: &TextFields,
) -> Result<Sample, RequestError> {
    refuse_status(recording, protocol)?;
    let arrivals = ArrivalTracker::of(recording.uncertainty);
    let mut stream =
        StreamReader { text: Some(0), fields: Some(fields), arrivals, ..StreamReader::default() };
    let decoded = stream.read(&recording.chunks, recording.stamped_by, protocol);
    if let Some((events, message)) = stream.in_band {
        let message = one_line(&message, 300);
        let after = after_tokens(events);
        let message = format!("the server reported an error inside the stream, {after}: {message}");
        return Err(RequestError::new(ErrorKind::InBand, message));
    }
    if let Some(error) = compressed(recording).filter(|_| stream.token_events.is_empty()) {
        return Err(error);
    }
    if let Some(broken) = recording.broken.as_ref().filter(|broken| stream.is_cut_by(broken)) {
        let after = after_tokens(stream.token_events.len());
        return Err(RequestError::new(broken.kind, format!("{}, {after}", broken.message)));
    }
    if stream.events == 0 {
        return Err(no_events(recording, protocol));
    }
    decoded?;
    stream.into_sample(recording, fallback, &|| texts(recording, protocol, fields))
}

/// The text of the answer, without the reasoning before it.
pub fn answer_text(recording: &Recording, protocol: &dyn Protocol, fields: &TextFields) -> String {
    let [answer, ..] = texts(recording, protocol, fields);
    answer
}

/// Whether a tool is called in the answer.
pub fn calls_tools(recording: &Recording, protocol: &dyn Protocol, fields: &TextFields) -> bool {
    let [_, _, calls] = texts(recording, protocol, fields);
    !calls.is_empty()
}

/// The generated text: the answer's, the reasoning's, that of tool calls.
fn texts(recording: &Recording, protocol: &dyn Protocol, fields: &TextFields) -> [String; 3] {
    let mut texts = [const { String::new() }; 3];
    let mut decoder = protocol.framing().decoder();
    let mut read = |frame: Frame<'_>| {
        let message = protocol.decode_with(&frame, fields).unwrap_or_default();
        for part in message.parts.into_iter().filter_map(|part| fields.resolve(part)) {
            match part {
                MessagePart::Token(TokenKind::Answer, said) => texts[0].push_str(&said),
                MessagePart::Token(TokenKind::Reasoning, said) => texts[1].push_str(&said),
                MessagePart::Token(TokenKind::ToolCall, said) => texts[2].push_str(&said),
                _ => {}
            }
        }
    };
    // An answer that cannot be read has the text that could be.
    for chunk in &recording.chunks {
        if decoder.push(&chunk.bytes, &mut read).is_err() {
            break;
        }
    }
    decoder.finish(&mut read);
    texts
}

/// The prompt's tokens by the server, whatever else the answer says.
pub fn prompt_tokens(recording: &Recording, protocol: &dyn Protocol) -> Option<u64> {
    let mut stream = StreamReader::default();
    // What was counted before the answer became unreadable is counted.
    let _ = stream.read(&recording.chunks, recording.stamped_by, protocol);
    let is_good = (200..300).contains(&recording.status) && stream.in_band.is_none();
    stream.usage.prompt_tokens.filter(|_| is_good)
}

/// The arrival of the last token-bearing event of an unfinished answer, and how many there were.
/// Text in an unknown field is a sign of life, so it counts here.
pub fn tokens_so_far(chunks: &[Chunk], protocol: &dyn Protocol) -> (Option<Duration>, usize) {
    let mut stream = StreamReader { text: Some(0), counts_unread: true, ..StreamReader::default() };
    // An answer that cannot be read has the tokens that could be.
    let _ = stream.read(chunks, StampedBy::Program, protocol);
    (stream.token_events.last().copied(), stream.token_events.len())
}

/// Whether an answer says of itself that it has ended: by its end marker, by an error, or because
/// it is one JSON document instead of a stream. The first `seen` of the chunks have been asked about
/// before.
pub fn has_ended(chunks: &[Chunk], seen: usize, protocol: &dyn Protocol) -> bool {
    let is_document = protocol.framing() == Framing::Events && is_document(chunks);
    is_document
        || may_have_ended(chunks, seen, protocol) && {
            let mut stream = StreamReader::default();
            let is_read = stream.read(chunks, StampedBy::Program, protocol).is_ok();
            is_read && stream.ended || stream.in_band.is_some()
        }
}

/// Whether an answer that has ended well has no count of its tokens.
pub fn lacks_usage(chunks: &[Chunk], protocol: &dyn Protocol) -> bool {
    let mut stream = StreamReader::default();
    let is_read = stream.read(chunks, StampedBy::Program, protocol).is_ok();
    let is_good = is_read && stream.finish_reason().is_ok() && stream.in_band.is_none();
    is_good && stream.usage.completion_tokens.is_none()
}

/// Whether the new chunks hold what an end holds: far cheaper than to decode all of them.
fn may_have_ended(chunks: &[Chunk], seen: usize, protocol: &dyn Protocol) -> bool {
    /// A mark may lie across two chunks.
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

/// Whether the body is one JSON document, whole.
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

/// What a stream said, gathered frame by frame.
#[derive(Debug, Default)]
struct StreamReader<'f> {
    /// What the config says of fields that the protocol does not know.
    fields: Option<&'f TextFields>,
    /// Whether text in an unknown field counts as a token.
    counts_unread: bool,
    id: Option<String>,
    events: usize,
    first_event: Option<Duration>,
    last_event: Option<Duration>,
    first_reasoning: Option<Duration>,
    first_answer: Option<Duration>,
    token_events: Vec<Duration>,
    counts: EventCounts,
    finish_reason: Option<String>,
    /// When the finish reason came, after the last token.
    finished: Option<Duration>,
    usage: Usage,
    /// The most generated tokens that any usage counted, and whether a later one counted fewer.
    counted: (u64, bool),
    timings: Timings,
    /// Bytes of generated text; `None` after a tool call, whose text is not all of it.
    text: Option<u64>,
    /// Bytes of all generated text, and the most tokens that it can have.
    all_text: (u64, u64),
    /// The first error in the stream, and how many token events came before it.
    in_band: Option<(usize, String)>,
    /// The same in lines that are not of an event.
    stray_error: Option<(usize, String)>,
    ended: bool,
    more_after_end: bool,
    text_after_end: bool,
    usage_after_end: bool,
    text_after_usage: bool,
    /// Whether the usage came with or after the finish reason.
    usage_is_final: bool,
    /// The choice of the last token, and whether there are tokens of others.
    choice: Option<i64>,
    /// The first and the last choice of each kind of token.
    choices: [Option<(i64, i64)>; 3],
    has_several_choices: bool,
    unread: Vec<UnreadField>,
    /// The first event that is not of the protocol, in short.
    unknown: Option<String>,
    last_unknown: Option<String>,
    /// The first document of which nothing was read, in short.
    silent: Option<String>,
    /// The last usage that could not be read, in short.
    unread_usage: Option<String>,
    /// How many such events differ from the one before.
    unknown_texts: usize,
    template: EventTemplate,
    arrivals: ArrivalTracker,
}

/// What [`StreamReader::read_event`] has read of one event so far.
#[derive(Default)]
struct EventState {
    /// Token events before it.
    events_before: usize,
    /// The choice of the parts that follow.
    choice: i64,
    /// The choice of its first token.
    chosen: Option<i64>,
    usage: Option<Usage>,
    /// Fields that hold text and are not known.
    unread: Vec<String>,
}

impl StreamReader<'_> {
    /// Reads the body up to its end or to the first frame that cannot be read.
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
                let before = self.begun();
                self.frame(chunk.at, &frame, protocol, &mut failure);
                self.arrivals.frame(chunk, before, self.begun());
            };
            decoder
                .push(&chunk.bytes, &mut sink)
                .map_err(|error| RequestError::new(ErrorKind::Malformed, error.to_string()))?;
            self.arrivals.end(chunk, by, decoder.is_between_frames());
        }
        if let Some(chunk) = chunks.last() {
            decoder.finish(&mut |frame| {
                let before = self.begun();
                self.frame(chunk.at, &frame, protocol, &mut failure);
                self.arrivals.frame(chunk, before, self.begun());
            });
            self.arrivals.end(chunk, by, true);
        }
        if self.events > 0 {
            self.in_band = self.in_band.take().or(self.stray_error.take());
        }
        if self.has_several_choices && failure.is_none() {
            let why = "the answer has several choices, whose tokens are not counted apart";
            failure = Some(DecodeError(why.into()));
        }
        match failure {
            None => Ok(()),
            Some(DecodeError(message)) => {
                let after = after_tokens(self.token_events.len());
                let message = one_line(&message, 300);
                Err(RequestError::new(ErrorKind::Malformed, format!("{after}: {message}")))
            }
        }
    }

    /// What has begun by now.
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
        // The end marker is the end of the answer.
        if self.ended {
            return self.after_end(protocol.decode(frame));
        }
        if let Frame::Stray(_) = frame {
            return self.stray(protocol.decode(frame).unwrap_or_default());
        }
        self.events += 1;
        self.first_event.get_or_insert(at);
        if let Some((kind, text)) = self.template.read(frame) {
            return self.read_event(at, [MessagePart::Token(kind, Cow::Borrowed(text))]);
        }
        match protocol.decode_with(frame, self.fields.unwrap_or(TextFields::NONE)) {
            Ok(message) => {
                self.template.learn(frame, &message);
                self.note_silent(frame, &message);
                if self.id.is_none() {
                    self.id = message.id.map(|id| id.into_owned());
                }
                self.read_event(at, message.parts);
            }
            Err(error) => *failure = Some(error),
        }
    }

    /// Takes what lines say that are not of an event. A body of such lines alone is not a stream.
    fn stray(&mut self, said: Message<'_>) {
        for part in said.parts {
            match part {
                MessagePart::Error(message) => {
                    self.stray_error.get_or_insert((self.token_events.len(), message));
                }
                MessagePart::Unknown(excerpt) => self.note_unknown(excerpt),
                _ => {}
            }
        }
    }

    /// Takes what comes after the end marker. Some servers count the tokens only there; vLLM sends
    /// `[DONE]` after Anthropic's `message_stop`.
    fn after_end(&mut self, decoded: Result<Message<'_>, DecodeError>) {
        for part in
            decoded.map_or_else(|_| vec![MessagePart::Unknown(String::new())], |said| said.parts)
        {
            match part {
                MessagePart::End | MessagePart::Role | MessagePart::Choice(_) => {}
                MessagePart::UnreadUsage(excerpt) => self.unread_usage = Some(excerpt),
                MessagePart::Timings(timings) => self.timings = timings,
                MessagePart::Usage(usage) => {
                    self.usage_after_end |= usage.completion_tokens.is_some();
                    self.count(usage);
                }
                MessagePart::Finish(reason) => {
                    self.more_after_end = true;
                    self.finish(&reason);
                }
                MessagePart::Token(..) | MessagePart::Unread(..) => self.text_after_end = true,
                MessagePart::Unknown(_) | MessagePart::Error(_) => self.more_after_end = true,
            }
        }
    }

    fn read_event<'a>(&mut self, at: Duration, parts: impl IntoIterator<Item = MessagePart<'a>>) {
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
        let has_token = self.token_events.len() > event.events_before;
        if has_token {
            self.outdate_usage();
        }
        if let Some(usage) = event.usage {
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
            MessagePart::Role => {}
            MessagePart::Choice(index) => event.choice = index,
            MessagePart::Token(kind, text) => {
                self.choose(event, kind);
                self.token(at, (kind, &text), event.events_before);
            }
            MessagePart::Unread(_, text) if self.counts_unread => {
                self.token(at, (TokenKind::Reasoning, &text), event.events_before);
            }
            MessagePart::Unread(field, text) => {
                self.text = self.text.map(|bytes| bytes + text.len() as u64);
                self.hold(&text);
                event.unread.push(field.into_owned());
            }
            MessagePart::Unknown(excerpt) => self.note_unknown(excerpt),
            MessagePart::Finish(reason) => {
                self.finished.get_or_insert(at);
                self.finish(&reason);
            }
            MessagePart::Usage(usage) => event.usage = Some(usage),
            MessagePart::UnreadUsage(excerpt) => self.unread_usage = Some(excerpt),
            MessagePart::Timings(timings) => self.timings = timings,
            MessagePart::Error(message) => {
                self.in_band.get_or_insert((self.token_events.len(), message));
            }
            MessagePart::End => self.ended = true,
        }
    }

    /// Notes of which choice a token is. Only one is ever asked for, and some servers number it as
    /// they like, each event anew or the answer after the reasoning; but two in one event, texts of
    /// one kind that take turns, or another one after the finish reason are those of several
    /// answers.
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

    /// Keeps the worst reason that was given: an error that is followed by `stop` is an error.
    fn finish(&mut self, reason: &str) {
        let before = self.finish_reason.as_deref().map(FinishClass::of);
        if before.is_none_or(|before| before <= FinishClass::of(reason)) {
            self.finish_reason = Some(reason.to_owned());
        }
    }

    /// Counts from before a token are not those of the whole answer, unless they came with the
    /// finish reason: then the server had counted all of it and was late with a piece of text.
    fn outdate_usage(&mut self) {
        if self.usage_is_final && self.usage.completion_tokens.is_some() {
            self.text_after_usage = true;
            return;
        }
        let Usage { prompt_tokens, cached_tokens, renamed, .. } = self.usage;
        self.usage = Usage { prompt_tokens, cached_tokens, renamed, ..Usage::default() };
    }

    /// Keeps the first document of which nothing was read, for an answer without any token.
    fn note_silent(&mut self, frame: &Frame<'_>, message: &Message<'_>) {
        let says = !message.parts.is_empty() || !self.token_events.is_empty();
        let Frame::Event { data: data @ [b'{', ..], .. } = frame else { return };
        if !says && data.len() > 2 && self.silent.is_none() {
            self.silent = Some(one_line(&String::from_utf8_lossy(data), 120));
        }
    }

    /// Keeps the first event that is not of the protocol, and how many differ from the one before:
    /// a server's status is repeated, tokens are not.
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

    /// What a later usage counts again holds; what it leaves out was said before, as Anthropic does
    /// with the prompt.
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

    /// One event is one arrival, however many tokens or kinds of token it holds.
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

    /// Whether `broken` cut the answer off. An answer with its end marker is whole, however its body
    /// ended; other defects have their own errors.
    fn is_cut_by(&self, broken: &RequestError) -> bool {
        match broken.kind {
            ErrorKind::LeftOpen => false,
            kind => !self.ended || kind == ErrorKind::Interrupted,
        }
    }

    fn into_sample(
        self,
        recording: &Recording,
        fallback: TokenCount,
        texts: &dyn Fn() -> [String; 3],
    ) -> Result<Sample, RequestError> {
        let finish_reason = self.finish_reason()?.to_owned();
        let body_end = body_end(recording);
        let said = NoteEvidence::by(&self);
        let events = self.token_events.len() as u64;
        let usage = self.usage;
        let (response_tokens, token_count) =
            count(usage.completion_tokens, events, fallback, texts)
                .map_err(|error| with_usage(error, self.unread_usage.as_deref()))?;
        let sum = usage.prompt_tokens.map(|prompt| prompt.saturating_add(response_tokens));
        // A total that is less than what it is the total of, such as FastDeploy's 0, is ignored.
        let least = sum.unwrap_or(response_tokens);
        let below_sum = usage.total_tokens.is_some_and(|total| total < least);
        let mut sample = Sample {
            request_id: self.id,
            finish_reason,
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
            first_reasoning: self.first_reasoning,
            first_answer: self.first_answer,
            token_events: self.token_events,
            first_event_tokens: self.counts.of_first(events, response_tokens),
            end: match body_end {
                // After its last event the client only waited.
                Some(Note::BodyLeftOpen) => self.last_event.unwrap_or(recording.ended_at),
                _ => recording.ended_at,
            },
            uncertainty: self.arrivals.finish(recording.uncertainty),
            server_head: recording.head_time,
            server: self.timings,
            shows_reasoning: false,
            asked_for_one: false,
            notes: Vec::new(),
            unread: self.unread,
            doubts: Vec::new(),
        };
        if let Some(others) = sample.answer_tokens() {
            let [answer, ..] = texts();
            sample.shows_reasoning = text::shows_reasoning(&answer, others);
        }
        sample.doubts = said.doubts(&sample);
        sample.notes = said.notes(&sample, body_end);
        sample.notes.extend(below_sum.then_some(Note::TotalBelowSum));
        Ok(sample)
    }

    /// Why generation ended, of an answer that was generated to its end.
    fn finish_reason(&self) -> Result<&str, RequestError> {
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
                (ErrorKind::NoToken, format!("{}{unknown}{silent}", self.without_token()))
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

    /// What is known of an answer without a token.
    fn without_token(&self) -> String {
        let begin = "the stream ended without one generated token";
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
                    "the server streamed no text{ended}, though it counted {tokens} generated \
                     tokens{hidden}{help}"
                )
            }
            _ => format!("{begin}{ended}"),
        }
    }
}

/// What of a [`StreamReader`] becomes notes and doubts of its sample.
struct NoteEvidence {
    text: Option<u64>,
    /// Bytes of all generated text, and the most tokens that it can have.
    all_text: (u64, u64),
    counts: EventCounts,
    shrinks: bool,
    finished: Option<Duration>,
    ended: bool,
    more_after_end: bool,
    /// Whether so many events that are not of the protocol had text that they may be tokens.
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
        let is_unusual = FinishClass::of(&sample.finish_reason) == FinishClass::Unusual;
        let first = [
            (!sample.unread.is_empty(), Note::UnreadText),
            (is_unusual, Note::UnusualFinishReason),
        ];
        let mut found: Vec<_> = that_hold(first.into_iter().chain(self.read_leniently)).collect();
        found.sort_unstable();
        found.extend(notes(sample, self.ended, self.more_after_end));
        found.extend(body_end);
        found.extend(counts::doubts(sample, &shown));
        found
    }
}

/// How the body of a whole answer ended, where it did not end as HTTP defines it.
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
    // Events that this program took at once need not have been held back.
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
    that_hold(found).collect()
}

/// The notes that are true.
fn that_hold(notes: impl IntoIterator<Item = (bool, Note)>) -> impl Iterator<Item = Note> {
    notes.into_iter().filter_map(|(holds, note)| holds.then_some(note))
}

/// The number of generated tokens and who counted them.
fn count(
    by_server: Option<u64>,
    events: u64,
    fallback: TokenCount,
    texts: &dyn Fn() -> [String; 3],
) -> Result<(u64, TokenCount), RequestError> {
    match (by_server, fallback) {
        (Some(tokens), _) if tokens > 0 => Ok((tokens, TokenCount::Usage)),
        (_, TokenCount::Chunks) => Ok((events, TokenCount::Chunks)),
        (_, TokenCount::Tokenizer(tokenizer)) => {
            // Each apart: special tokens stand between them.
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
            let message = format!(
                "{what}; `token_count: chunks` in the model's config would take each event for \
                 a token"
            );
            Err(RequestError::new(ErrorKind::NoUsage, message))
        }
    }
}

/// `error` with the usage that could not be read, where that is why there is no count.
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

/// For servers such as vLLM, which take the key of each protocol in one header.
pub const BEARER_HINT: &str = " (see `api_key_env` in the config; for a server that wants a bearer \
                           token: `headers: { authorization: \"Bearer ${MY_API_KEY}\" }`)";

/// For what only proxies say.
const PROXY_HINT: &str = " (a proxy wants a user and password: see `proxy` in the config, or the \
                          variable of the environment that names it)";

/// For what speaks of a key.
pub const KEY_HINT: &str = " (see `api_key_env` in the config)";

/// An answer with another status than 2xx, as what it says.
fn refuse_status(recording: &Recording, protocol: &dyn Protocol) -> Result<(), RequestError> {
    let status = recording.status;
    if (200..300).contains(&status) {
        return Ok(());
    }
    let body = recording.body();
    let says = match coding::name(recording.content_encoding.as_deref(), &body) {
        Some(coding) => format!(" (the body is compressed with {})", one_line(&coding, 40)),
        None if !coding::is_text(&body) => " (the body is not text)".into(),
        None => says(&body, protocol),
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

/// A body that is compressed.
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

/// A 2xx body in which there is no event.
fn no_events(recording: &Recording, protocol: &dyn Protocol) -> RequestError {
    let body = recording.body();
    if body.trim_ascii().is_empty() {
        return RequestError::new(
            ErrorKind::NoToken,
            "the server answered with an empty stream (some servers do so when the prompt is too \
             long for the model)",
        );
    }
    let what = match recording.content_type.as_deref() {
        Some(kind) if kind.contains("event-stream") => "there is no event in the answer".into(),
        Some(kind) => format!("the answer is `{}`, not an event stream", one_line(kind, 60)),
        None => "the answer is not an event stream".into(),
    };
    let says = match coding::is_text(&body) {
        true => says(&body, protocol),
        false => ": its bytes are not text (compressed with Brotli, which leaves no mark?)".into(),
    };
    RequestError::new(ErrorKind::NotAStream, format!("{what}{says}"))
}

/// `: what the body says`, or nothing.
fn says(body: &[u8], protocol: &dyn Protocol) -> String {
    let text = protocol
        .decode_error(body)
        .unwrap_or_else(|| String::from_utf8_lossy(body.trim_ascii()).into_owned());
    let line = one_line(&text, 300);
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

/// `text` on one line, at most `limit` characters of it. No word is cut in two: it may be a secret,
/// and half of one is none that is known and masked. A word that is too long is left out.
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

/// `line` with `…` for each word longer than `limit` bytes.
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
