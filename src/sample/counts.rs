//! Which of a server's counts of generated tokens are figures, and which cannot be. Pure.

use std::time::Duration;

use super::{Note, Sample, text, that_hold};
use crate::config::TokenCount;

/// So many tokens without an event are usual: the one that ends the answer, a character that is not
/// whole yet, an empty block of reasoning.
const FEW: u64 = 3;

/// A larger part of the tokens without an event makes the speed another.
const SMALL_PART: u64 = 10;

/// What ends an answer takes less time than this, in mean gaps between its events.
const TRAILER_GAPS: u32 = 3;

/// The same in time: half of the generation, but so much at least and at most.
const TRAILER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));

/// The part of its tokens that an answer may have after its last event.
const SILENT_PART: f64 = 0.05;

/// No model generates so many tokens a second in one answer.
const FASTEST: f64 = 1e5;

/// What each token event was counted to be, where usage comes with them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct EventCounts {
    /// The count that came with the first token event.
    first: Option<u64>,
    /// The last count, and the number of token events by then.
    last: Option<(u64, u64)>,
    /// How many token events came with a count.
    counted: u64,
    /// How many of these counts were above the one before.
    grew: u64,
    sum: u64,
}

impl EventCounts {
    /// A count that came with the token event of this number, from 1.
    pub(super) fn add(&mut self, event: u64, tokens: u64) {
        if event == 1 {
            self.first = Some(tokens);
        }
        self.grew += u64::from(self.last.is_some_and(|(_, before)| tokens > before));
        self.last = Some((event, tokens));
        self.counted += 1;
        self.sum = self.sum.saturating_add(tokens);
    }

    /// Whether each count is of its own event alone: of `events` with `tokens` together.
    pub(super) fn are_of_events(&self, events: u64, tokens: u64) -> bool {
        self.counted > 1 && self.counted == events && self.sum == tokens
    }

    /// Whether the counts run along with the events. A gateway may repeat the final one with each.
    fn are_running(&self) -> bool {
        self.grew * 2 + 1 >= self.counted
    }

    /// The tokens of the first event, where that is what its count says.
    pub(super) fn of_first(&self, events: u64, tokens: u64) -> Option<u64> {
        // Few events bring no token of their own.
        let others = (events.saturating_sub(1)) * 3;
        let leaves_others = |first: u64| first.saturating_add(others.div_ceil(4)) <= tokens;
        let is_known = |first: &u64| {
            let is_running = self.are_running() && leaves_others(*first);
            self.are_of_events(events, tokens) || is_running
        };
        // A lone event holds all there is, whatever a usage in the same event says.
        self.first.filter(|first| events > 1 && *first > 0 && is_known(first))
    }

    /// The tokens of all events together, where a running count says so.
    fn of_all(&self, events: u64) -> Option<u64> {
        let (event, tokens) = self.last?;
        (event == events && self.counted > 1 && self.are_running()).then_some(tokens)
    }
}

/// What a stream shows of its tokens, besides its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// Bytes of generated text; `None` after a tool call, whose text is not all of it.
    pub(super) text: Option<u64>,
    /// Bytes of all text, that of tool calls included.
    pub(super) bytes: u64,
    /// The most tokens that the events can hold, by their text.
    pub(super) most: u64,
    pub(super) counts: EventCounts,
    /// A later usage counted fewer generated tokens than an earlier one.
    pub(super) shrinks: bool,
    /// From the last token event to the finish reason, or to the end.
    pub(super) tail: Duration,
}

/// Generated tokens without text that are no reason for doubt: the one that ends the answer, tags
/// around its reasoning, headings of channels, calls of a server's own tools.
const SPECIAL_TOKENS: u64 = 16;

/// What of the server's counts cannot be, or is not the count of what was streamed.
pub(super) fn doubts(sample: &Sample, shown: &Shown) -> Vec<Note> {
    let tokens = sample.response_tokens;
    let events = sample.token_events.len() as u64;
    let sum = sample.prompt_tokens.map(|prompt| prompt.saturating_add(tokens));
    let reasoning = sample.reasoning_tokens.unwrap_or(0);
    let with_text = tokens.saturating_sub(reasoning).saturating_sub(SPECIAL_TOKENS);
    let cached = sample.cached_tokens.zip(sample.prompt_tokens);
    let is_short = tokens < events;
    let words = tokens.saturating_mul(text::BYTES_PER_TOKEN);
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
    that_hold(found).collect()
}

/// Whether more tokens than the text can hold were counted than any model generates in that time.
fn is_too_fast(sample: &Sample, shown: &Shown) -> bool {
    let unseen = sample.response_tokens.saturating_sub(shown.most);
    unseen as f64 > most_in(sample.end)
}

/// The same of what the total holds besides the prompt and the answer: some servers count reasoning
/// in the total alone.
fn is_total_too_fast(sample: &Sample, sum: Option<u64>) -> bool {
    let besides = sample.total_tokens.zip(sum).map(|(total, sum)| total.saturating_sub(sum));
    besides.is_some_and(|besides| besides as f64 > most_in(sample.end))
}

fn most_in(time: Duration) -> f64 {
    // A prompt's count may be off by a template or two.
    FASTEST * time.as_secs_f64() + 4096.0
}

/// Whether so many tokens were counted that the events cannot hold them: they were generated before
/// the first event, between events or after the last, and no time that is known is theirs.
fn is_uncounted(sample: &Sample, shown: &Shown) -> bool {
    let events = sample.token_events.len() as u64;
    if sample.token_count != TokenCount::Usage || events < 2 {
        return false;
    }
    let (streamed, hidden) = (sample.streamed_tokens(), sample.hidden_reasoning_tokens());
    let few = FEW.max(streamed / SMALL_PART);
    let first = sample.first_event_tokens.unwrap_or(0).saturating_sub(hidden);
    // The first event may hold as many as the others do.
    let in_others = streamed.saturating_sub(first) / (events - 1);
    let in_first = first.saturating_sub(2 * in_others + 1);
    match shown.counts.of_all(events) {
        Some(held) => sample.response_tokens.saturating_sub(held) > few || in_first > few,
        None => streamed.saturating_sub(shown.most) > few || in_first > few,
    }
}

/// Whether tokens may have been generated after the last event: more were counted than there are
/// events, and what followed took longer than what ends an answer.
///
/// With about one token an event there are none left, and the trailer may take what it likes.
fn is_silent_tail(sample: &Sample, shown: &Shown) -> bool {
    let events = sample.token_events.len() as u64;
    let (time, tail) = (sample.span(), shown.tail);
    let tokens = sample.streamed_tokens();
    let is_told = shown.counts.of_all(events).is_some() || sample.token_count != TokenCount::Usage;
    // The server's own clock may say that it had ended.
    let is_confirmed = sample.server_generation_time().is_some() && !sample.server_disagrees();
    if events < 2 || tokens <= events + FEW || is_told || is_confirmed {
        return false;
    }
    let gaps = u32::try_from(events - 1).unwrap_or(u32::MAX);
    let (least, most) = TRAILER;
    let trailer = (time / 2).clamp(least, most).max(time.saturating_mul(TRAILER_GAPS) / gaps);
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
        // Each of its own event.
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
