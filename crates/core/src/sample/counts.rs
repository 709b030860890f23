//! Checks of a server's token counts: which counts are impossible, and which ones the streamed
//! events do not account for. Pure.

use std::time::Duration;

use super::{Note, Sample, TokenCount, applicable, text};

/// Tokens without an event that are normal in any answer: the end token, an incomplete character, an
/// empty reasoning block.
const FEW: u64 = 3;

/// One token in so many may have no event without a noticeable change of the speed.
const SMALL_PART: u64 = 10;

/// Longest usual trailer (last token to finish reason), in mean gaps between events.
const TRAILER_GAPS: u32 = 3;

/// The same as a time: half of the generation time, within these bounds.
const TRAILER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));

/// Largest part of the tokens that may be generated in the tail without a refusal.
const SILENT_PART: f64 = 0.05;

/// Upper bound of the speed of any model in one answer, in tokens per second.
const FASTEST: f64 = 1e5;

/// The token counts that arrived in the same events as tokens.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct EventCounts {
    /// The count that came with the first token event.
    first: Option<u64>,
    /// The last count, and the number of token events by then.
    last: Option<(u64, u64)>,
    /// How many token events came with a count.
    counted: u64,
    /// How many of these counts were higher than the previous one.
    grew: u64,
    sum: u64,
}

impl EventCounts {
    /// Adds the count that arrived with the nth token event, from 1.
    pub(super) fn add(&mut self, event: u64, tokens: u64) {
        if event == 1 {
            self.first = Some(tokens);
        }
        self.grew += u64::from(self.last.is_some_and(|(_, before)| tokens > before));
        self.last = Some((event, tokens));
        self.counted += 1;
        self.sum = self.sum.saturating_add(tokens);
    }

    /// Returns whether each count is a per-event count. Together the `events` then have
    /// `tokens`.
    pub(super) fn are_of_events(&self, events: u64, tokens: u64) -> bool {
        self.counted > 1 && self.counted == events && self.sum == tokens
    }

    /// Returns whether the counts are running totals. Some gateways repeat the final count instead.
    fn are_running(&self) -> bool {
        self.grew * 2 + 1 >= self.counted
    }

    /// Returns the tokens of the first event, if its count is a running total or its own.
    pub(super) fn of_first(&self, events: u64, tokens: u64) -> Option<u64> {
        // Most later events add at least one token.
        let others = (events.saturating_sub(1)) * 3;
        // Otherwise the count is a final total that the server repeats in every event.
        let leaves_others = |first: u64| first.saturating_add(others.div_ceil(4)) <= tokens;
        let is_known = |first: &u64| {
            let is_running = self.are_running() && leaves_others(*first);
            self.are_of_events(events, tokens) || is_running
        };
        // A single event holds all tokens, whatever its usage says.
        self.first.filter(|first| events > 1 && *first > 0 && is_known(first))
    }

    /// Returns the tokens of all events together, if a running total says so.
    fn of_all(&self, events: u64) -> Option<u64> {
        let (event, tokens) = self.last?;
        (event == events && self.counted > 1 && self.are_running()).then_some(tokens)
    }
}

/// Evidence about the tokens of a stream, next to its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenEvidence {
    /// Bytes of generated text; `None` after a tool call, whose text is not all of it.
    pub(super) text: Option<u64>,
    /// Bytes of all text, that of tool calls included.
    pub(super) bytes: u64,
    /// Upper estimate of the tokens in that text.
    pub(super) most: u64,
    pub(super) counts: EventCounts,
    /// A later usage counted fewer generated tokens than an earlier one.
    pub(super) shrinks: bool,
    /// From the last token event to the finish reason, or to the end.
    pub(super) tail: Duration,
}

/// Generated tokens without text that are expected: the one that ends the answer, tags
/// around its reasoning, headings of channels, calls of a server's own tools.
const SPECIAL_TOKENS: u64 = 16;

/// Returns a note for each count that is impossible or that the stream does not account for.
pub(super) fn doubts(sample: &Sample, shown: &TokenEvidence) -> Vec<Note> {
    let tokens = sample.response_tokens;
    let events = sample.token_events.len() as u64;
    let sum = sample.prompt_tokens.map(|prompt| prompt.saturating_add(tokens));
    let reasoning = sample.reasoning_tokens.unwrap_or(0);
    // Reasoning may have been hidden, so only the other tokens need text.
    let with_text = tokens.saturating_sub(reasoning).saturating_sub(SPECIAL_TOKENS);
    let cached = sample.cached_tokens.zip(sample.prompt_tokens);
    let is_short = tokens < events && sample.items.is_none();
    let words = tokens.saturating_mul(text::BYTES_PER_TOKEN);
    // Per-event counts go up and down; only a total must not shrink.
    let shrinks = shown.shrinks && !shown.counts.are_of_events(events, tokens);
    let found = [
        (is_short, Note::FewerTokensThanEvents),
        (is_short && shown.bytes > words, Note::FewerTokensThanText),
        (shown.text.is_some_and(|bytes| with_text > bytes), Note::MoreTokensThanText),
        (is_too_fast(sample, shown), Note::MoreTokensThanTime),
        (shrinks, Note::UsageShrinks),
        (reasoning > tokens, Note::MoreReasoningThanTokens),
        (is_uncounted(sample, shown), Note::UncountedTokens),
        (is_silent_tail(sample, shown), Note::SilentTail),
        (cached.is_some_and(|(cached, prompt)| cached > prompt), Note::MoreCachedThanPrompt),
        (sample.prompt_tokens == Some(0), Note::NoPromptTokens),
        (is_total_too_fast(sample, sum), Note::TotalAboveSum),
    ];
    applicable(found).collect()
}

/// Returns whether the tokens without text are more than any model generates in that time.
fn is_too_fast(sample: &Sample, shown: &TokenEvidence) -> bool {
    let unseen = sample.response_tokens.saturating_sub(shown.most);
    unseen as f64 > most_in(sample.end)
}

/// The same for the tokens that only the total includes. Some servers count reasoning only there.
fn is_total_too_fast(sample: &Sample, sum: Option<u64>) -> bool {
    let besides = sample.total_tokens.zip(sum).map(|(total, sum)| total.saturating_sub(sum));
    besides.is_some_and(|besides| besides as f64 > most_in(sample.end))
}

fn most_in(time: Duration) -> f64 {
    // The prompt's count may leave out a chat template or a system prompt.
    FASTEST * time.as_secs_f64() + 4096.0
}

/// Returns whether the server counted more tokens than the events can hold. The others were
/// generated before the first event, between events or after the last one, in an unknown time.
fn is_uncounted(sample: &Sample, shown: &TokenEvidence) -> bool {
    let events = sample.token_events.len() as u64;
    if sample.token_count != TokenCount::Usage || events < 2 {
        return false;
    }
    let (streamed, hidden) = (sample.streamed_tokens(), sample.hidden_reasoning_tokens());
    let few = FEW.max(streamed / SMALL_PART);
    let first = sample.first_event_tokens.unwrap_or(0).saturating_sub(hidden);
    // The first event may hold as many tokens as later events do.
    let in_others = streamed.saturating_sub(first) / (events - 1);
    let in_first = first.saturating_sub(2 * in_others + 1);
    match shown.counts.of_all(events) {
        Some(held) => sample.response_tokens.saturating_sub(held) > few || in_first > few,
        None => streamed.saturating_sub(shown.most) > few || in_first > few,
    }
}

/// Returns whether tokens may have been generated after the last event: the server counted more
/// tokens than events, and the finish reason came later than a usual trailer.
///
/// With about one token per event, no tokens are left for the tail, and its length does not matter.
fn is_silent_tail(sample: &Sample, shown: &TokenEvidence) -> bool {
    let events = sample.token_events.len() as u64;
    let (time, tail) = (sample.span(), shown.tail);
    let tokens = sample.streamed_tokens();
    // If the server counts in each event, or not at all, the tail is accounted for.
    let is_told = shown.counts.of_all(events).is_some() || sample.token_count != TokenCount::Usage;
    // The server's own clock may show that the generation had ended.
    let is_confirmed = sample.server_generation_time().is_some() && !sample.server_disagrees();
    if events < 2 || tokens <= events + FEW || is_told || is_confirmed {
        return false;
    }
    let gaps = u32::try_from(events - 1).unwrap_or(u32::MAX);
    let (least, most) = TRAILER;
    // A trailer takes longer on a slow server, so the limit grows with the answer and its gaps.
    let trailer = (time / 2).clamp(least, most).max(time.saturating_mul(TRAILER_GAPS) / gaps);
    // The tokens that would fit into the tail at the mean speed of generation and tail together.
    let at_one_pace = (tokens - 1) as f64 * tail.div_duration_f64(time + tail);
    let silent = at_one_pace.min((tokens - events) as f64);
    tail > trailer && silent > SILENT_PART * tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: &[u64]) -> EventCounts {
        let mut counted = EventCounts::default();
        (1..).zip(counts).for_each(|(event, tokens)| counted.add(event, *tokens));
        counted
    }

    #[test]
    fn a_count_of_the_first_event_is_one_that_runs_along() {
        let of_first =
            |counts: &[u64], tokens| counted(counts).of_first((counts.len() as u64).max(4), tokens);
        assert_eq!(of_first(&[1, 2, 3, 4], 4), Some(1));
        assert_eq!(of_first(&[3, 7, 9, 12], 12), Some(3));
        assert_eq!(of_first(&[5, 5, 7, 12], 12), Some(5));
        // With the first event alone.
        assert_eq!(of_first(&[3], 9), Some(3));
        // Each in a separate event.
        assert_eq!(of_first(&[3, 4, 3, 2], 12), Some(3));
        assert_eq!(of_first(&[3, 3, 3, 3], 12), Some(3));
        // The final count, or one that is off by one.
        for repeated in [&[8; 8][..], &[9; 8], &[7, 8, 8, 8, 8, 8, 8, 8], &[8]] {
            assert_eq!(of_first(repeated, 8), None, "{repeated:?}");
        }
        assert_eq!(of_first(&[8; 8], 9), None);
        assert_eq!(of_first(&[0, 1, 2, 3], 4), None);
        assert_eq!(counted(&[4]).of_first(1, 4), None);
    }

    #[test]
    fn a_running_count_says_what_all_events_hold() {
        assert_eq!(counted(&[1, 4, 8]).of_all(3), Some(8));
        assert_eq!(counted(&[1, 4, 8]).of_all(4), None);
        assert_eq!(counted(&[8, 8, 8, 8]).of_all(4), None);
        assert_eq!(counted(&[]).of_all(4), None);
    }
}
