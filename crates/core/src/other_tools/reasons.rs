//! Why a tool's value differs from ours.

use std::time::Duration;

use serde::Serialize;

use super::times::{EndRule, RequestTimes, TimeRules, TokenRule, nanos};
use crate::sample::{EventContents, EventPart, Sample};

/// A difference between the definitions of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The start is before the connection is set up.
    IncludesConnect,
    /// The start is the hand-over of the request, not the scheduled start of an open loop.
    FromHandOver,
    /// An empty text, such as that of an end token, counts as a token.
    EmptyTextIsToken,
    /// Reasoning in the field `reasoning_content` does not count.
    ReasoningContentIsNoToken,
    /// A tool call does not count as a token.
    ToolCallIsNoToken,
    /// No event counts as a token, so the time to the first token is zero.
    NoTokenIsZero,
    /// The request ends at the last event with JSON.
    EndsAtLastJson,
    /// The request ends at the last event of any kind.
    EndsAtLastEvent,
    /// The request ends at the end marker.
    EndsAtEndMarker,
    /// The request ends at the usage or the end marker.
    EndsAtUsage,
    /// The first event counts as one token, even if the server says that it has more.
    FirstEventIsOneToken,
    /// Tokens of hidden reasoning count.
    CountsHiddenReasoning,
    /// The time to the first token is included.
    IncludesFirstToken,
    /// The speed is that of the tokens after the first one.
    TokensAfterFirst,
    /// The values are the gaps of all requests, not one mean for each request.
    PooledGaps,
    /// Each request has the weight of its tokens.
    WeightedByTokens,
    /// A value that ours does not report.
    NotRefused,
    /// The tool reports no value.
    Omitted,
    /// The run ends at its last token.
    RunEndsAtLastToken,
}

impl Reason {
    /// Returns the difference in words. The subject is the tool.
    pub const fn text(self) -> &'static str {
        match self {
            Self::IncludesConnect => "includes the set-up of a new connection",
            Self::FromHandOver => "counts from sending, not from the scheduled start",
            Self::EmptyTextIsToken => "counts an empty text, such as that of an end token",
            Self::ReasoningContentIsNoToken => {
                "reads reasoning only from `reasoning`, not from `reasoning_content`"
            }
            Self::ToolCallIsNoToken => "does not count a tool call as a token",
            Self::NoTokenIsZero => "reports zero, since no event counts as a token",
            Self::EndsAtLastJson => "ends the request at the last JSON event, such as the usage",
            Self::EndsAtLastEvent => "ends the request at the last event, such as [DONE]",
            Self::EndsAtEndMarker => "ends the request at [DONE], or at the end of the stream",
            Self::EndsAtUsage => "ends the request at the usage, or at [DONE]",
            Self::FirstEventIsOneToken => {
                "takes the first event for one token, though the server says that it has more"
            }
            Self::CountsHiddenReasoning => {
                "counts hidden reasoning, which was generated before the first event"
            }
            Self::IncludesFirstToken => "includes ttft, and divides by all tokens",
            Self::TokensAfterFirst => {
                "divides the tokens after the first one by the time; ours divides all tokens"
            }
            Self::PooledGaps => {
                "takes the gaps of all requests together; ours takes each request's mean"
            }
            Self::WeightedByTokens => "weights each request by its tokens",
            Self::NotRefused => {
                "reports it where ours is absent: a burst, a single event, or impossible counts"
            }
            Self::Omitted => "omits the request",
            Self::RunEndsAtLastToken => "ends the run at its last token, not at its last byte",
        }
    }
}

impl TokenRule {
    /// Returns why an event counts differently from ours.
    pub(super) fn reason(self, contents: EventContents) -> Reason {
        match self {
            Self::OfVllm if contents.has(EventPart::ReasoningContent) => {
                Reason::ReasoningContentIsNoToken
            }
            Self::OfVllm => Reason::EmptyTextIsToken,
            Self::Any | Self::TextOnly => Reason::ToolCallIsNoToken,
        }
    }
}

impl EndRule {
    /// Returns how the end of a run differs from ours by this rule.
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::LastToken => Reason::RunEndsAtLastToken,
            Self::LastJson => Reason::EndsAtLastJson,
            Self::LastEvent => Reason::EndsAtLastEvent,
            Self::EndMarker | Self::StreamEnd => Reason::EndsAtEndMarker,
            Self::Usage => Reason::EndsAtUsage,
        }
    }
}

/// The differences of a request's times from ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeReasons {
    /// At the start: of the connection, and of an open loop.
    pub(super) start: [Option<Reason>; 2],
    pub(super) first: Option<Reason>,
    /// At the last token.
    pub(super) last: Option<Reason>,
    pub(super) end: Option<Reason>,
    /// In the number of tokens after the first one.
    pub(super) divisor: [Option<Reason>; 2],
    /// In the number of all tokens.
    pub(super) tokens: Option<Reason>,
}

impl TimeReasons {
    pub(super) fn of(sample: &Sample, rules: TimeRules, times: RequestTimes) -> Self {
        // The event at which the rules first differ, from the beginning and from the end.
        let differs = |(_, contents): &(Duration, EventContents)| {
            rules.tokens.counts(*contents) != TokenRule::Any.counts(*contents)
        };
        let reason = |(_, contents): (Duration, EventContents)| rules.tokens.reason(contents);
        let first_rule = sample.events().find(differs).map(reason);
        let last_rule = sample.events().filter(differs).last().map(reason);
        let (first, last) = (nanos(sample.first_token()), nanos(sample.last_token()));
        let end =
            if rules.end == EndRule::LastToken { last_rule } else { Some(rules.end.reason()) };
        let hidden = sample.hidden_reasoning_tokens();
        let first_event = sample.first_event_tokens.unwrap_or(0);
        let hidden_reason = (hidden > 0).then_some(Reason::CountsHiddenReasoning);
        let one_token = (first_event > hidden + 1).then_some(Reason::FirstEventIsOneToken);
        let has_connect = sample.connect.is_some_and(|time| !time.is_zero());
        let has_lag = sample.lag.is_some_and(|lag| !lag.is_zero());
        Self {
            start: [
                (has_connect && rules.includes_connect).then_some(Reason::IncludesConnect),
                has_lag.then_some(Reason::FromHandOver),
            ],
            first: match times.first {
                Some(theirs) if theirs == first => None,
                Some(theirs) if theirs == times.start => Some(Reason::NoTokenIsZero),
                _ => first_rule,
            },
            last: last_rule.filter(|_| times.last != Some(last)),
            end: end.filter(|_| times.end != last),
            divisor: [hidden_reason, one_token],
            tokens: hidden_reason,
        }
    }
}
