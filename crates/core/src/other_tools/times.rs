//! The start, the first token and the end of a request as a tool takes them.

use std::time::Duration;

use super::OtherTool;
use crate::sample::{EventContents, EventPart, Sample};

/// A time in nanoseconds on the axis of the sample. It is negative before the hand-over of the
/// request, such as the start of a connection.
pub(super) type Nanos = i64;

/// Which events count as a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenRule {
    /// Text, reasoning or a tool call, as ours.
    Any,
    /// The same and an empty text, but no reasoning in `reasoning_content`.
    OfVllm,
    /// Text or reasoning. A tool call does not count.
    TextOnly,
}

impl TokenRule {
    /// All rules; the first is ours.
    pub(super) const ALL: [Self; 3] = [Self::Any, Self::OfVllm, Self::TextOnly];

    pub(super) fn counts(self, contents: EventContents) -> bool {
        match self {
            Self::Any => contents.is_token_event(),
            Self::OfVllm => {
                let is_read = !contents.has(EventPart::ReasoningContent);
                contents.has(EventPart::Answer)
                    || contents.has(EventPart::ToolCall)
                    || contents.has(EventPart::EmptyText)
                    || contents.has(EventPart::Reasoning) && is_read
            }
            Self::TextOnly => contents.has(EventPart::Answer) || contents.has(EventPart::Reasoning),
        }
    }
}

/// The event at which a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndRule {
    /// The last event that counts as a token.
    LastToken,
    /// The last event with JSON: the usage, if the server sends it.
    LastJson,
    /// The last event of any kind: `[DONE]`.
    LastEvent,
    /// The end marker, or the end of the stream without one.
    EndMarker,
    /// The usage after the finish reason, the end marker, or the end of the stream, whichever is
    /// first.
    Usage,
    /// The end of the stream.
    StreamEnd,
}

/// How a tool takes the times of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeRules {
    pub(super) tokens: TokenRule,
    pub(super) end: EndRule,
    /// The event at which the last request ends a run.
    pub(super) run_end: EndRule,
    /// Whether a new connection is set up after the start.
    pub(super) includes_connect: bool,
    pub(super) without_token: WithoutToken,
}

/// The time of the first token if no event counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WithoutToken {
    /// None: the request has failed.
    Failure,
    /// The start, so that the time to the first token is zero.
    Zero,
    /// The usage after the finish reason, if it counts several tokens.
    Usage,
}

impl OtherTool {
    pub(super) const fn rules(self) -> TimeRules {
        use {EndRule as End, TokenRule as Tokens};
        let (tokens, end, run_end) = match self {
            Self::VllmBenchServe => (Tokens::OfVllm, End::LastToken, End::StreamEnd),
            Self::SglangBenchServing => (Tokens::TextOnly, End::LastEvent, End::StreamEnd),
            Self::AiPerf => (Tokens::Any, End::LastToken, End::LastToken),
            Self::GuideLlm => (Tokens::Any, End::EndMarker, End::EndMarker),
            Self::EvalScope => (Tokens::Any, End::LastJson, End::LastJson),
            Self::GenAiBench => (Tokens::TextOnly, End::Usage, End::StreamEnd),
        };
        let without_token = match self {
            Self::SglangBenchServing => WithoutToken::Zero,
            Self::GenAiBench => WithoutToken::Usage,
            _ => WithoutToken::Failure,
        };
        let includes_connect = !matches!(self, Self::GuideLlm);
        TimeRules { tokens, end, run_end, includes_connect, without_token }
    }
}

/// The times of a request as a tool takes them, on the axis of the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestTimes {
    pub(super) start: Nanos,
    /// The first event that counts as a token; `None` if no event does.
    pub(super) first: Option<Nanos>,
    /// The last one.
    pub(super) last: Option<Nanos>,
    pub(super) end: Nanos,
    /// When the request ends for the duration of a run.
    pub(super) run_end: Nanos,
}

impl RequestTimes {
    pub(super) fn of(sample: &Sample, rules: TimeRules) -> Self {
        let counted = || sample.events().filter(|(_, contents)| rules.tokens.counts(*contents));
        let connect = sample.connect.filter(|_| rules.includes_connect).unwrap_or_default();
        let start = nanos(sample.lag.unwrap_or_default()) - nanos(connect);
        let first = counted().next().map(|(at, _)| at);
        Self {
            start,
            first: first
                .or_else(|| first_without_token(sample, rules))
                .map_or((rules.without_token == WithoutToken::Zero).then_some(start), |at| {
                    Some(nanos(at))
                }),
            last: counted().last().map(|(at, _)| nanos(at)),
            end: nanos(rules.end.of(sample, rules.tokens)),
            run_end: nanos(rules.run_end.of(sample, rules.tokens)),
        }
    }
}

/// Returns the event that stands for the first token if no event counts as one.
fn first_without_token(sample: &Sample, rules: TimeRules) -> Option<Duration> {
    let is_counted = sample.response_tokens > 1;
    let takes_usage = rules.without_token == WithoutToken::Usage && is_counted;
    usage_or_marker(sample)
        .filter(|(_, contents)| takes_usage && !contents.has(EventPart::Finish))
        .filter(|(_, contents)| contents.has(EventPart::Usage))
        .map(|(at, _)| at)
}

impl EndRule {
    fn of(self, sample: &Sample, tokens: TokenRule) -> Duration {
        let last = |counts: &dyn Fn(EventContents) -> bool| {
            let events = sample.events().filter(|(_, contents)| counts(*contents));
            events.last().map(|(at, _)| at)
        };
        let found = match self {
            // Without one the request has failed, and its end is not used.
            Self::LastToken => last(&|contents| tokens.counts(contents)),
            Self::LastJson => last(&|contents| !is_marker(contents)),
            Self::LastEvent => last(&|_| true),
            Self::EndMarker => {
                let mut events = sample.events();
                events.find(|(_, contents)| contents.has(EventPart::End)).map(|(at, _)| at)
            }
            Self::Usage => usage_or_marker(sample).map(|(at, _)| at),
            Self::StreamEnd => None,
        };
        found.unwrap_or(sample.end)
    }
}

/// Returns whether the event is only an end marker, such as `[DONE]`, which is not JSON.
fn is_marker(contents: EventContents) -> bool {
    contents.parts().all(|part| matches!(part, EventPart::End | EventPart::AfterEnd))
        && contents.has(EventPart::End)
}

/// Returns the first event that ends the answer for genai-bench: a usage without a
/// choice after the finish reason, a usage with the finish reason, or the end marker.
fn usage_or_marker(sample: &Sample) -> Option<(Duration, EventContents)> {
    let mut is_finished = false;
    for (at, contents) in sample.events() {
        let (usage, finish) = (contents.has(EventPart::Usage), contents.has(EventPart::Finish));
        let is_choice = finish
            || contents.is_token_event()
            || contents.has(EventPart::Role)
            || contents.has(EventPart::EmptyText);
        if contents.has(EventPart::End) || (usage && (finish || (is_finished && !is_choice))) {
            return Some((at, contents));
        }
        is_finished = if is_choice { finish } else { is_finished };
    }
    None
}

/// Returns nanoseconds. A recording is shorter than 292 years.
pub(super) fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Returns the seconds from one time to another.
pub(super) fn seconds(from: Nanos, to: Nanos) -> f64 {
    (to - from) as f64 / 1e9
}
