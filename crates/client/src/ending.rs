//! Finds the end of an answer whose body the server keeps open.
//!
//! Some servers send the end marker and leave the HTTP body open. Waiting for the body's end would
//! run into a timeout, fail a good answer and, in a load, block the slot of the next request. So the
//! client parses the answer for its end, in two cases: shortly after bytes that look like an end
//! marker ([`SOON`]), or when no bytes come ([`QUIET`]). Each chunk is parsed once, so a stream
//! that flows costs next to nothing.

use std::{mem, time::Duration};

use http::StatusCode;
use llm_stream_core::recording::{Chunk, ErrorKind, RequestError};
use memchr::memmem::Finder;

use super::PATIENCE;

/// The time for the body to end by itself after an end marker, before the slot of the request is
/// free.
pub(super) const SOON: Duration = Duration::from_millis(5);

/// The silence after an end marker before the client closes the body: usage may follow the marker.
/// Without a visible end marker, the silence before the answer is parsed.
pub(super) const QUIET: Duration = Duration::from_millis(250);

/// The time for usage to arrive after the end marker, where token counts depend on it.
const USAGE: Duration = Duration::from_secs(2);

/// The interval of parsing a stream that is never silent: comments may follow the end marker.
const ANYWAY: Duration = Duration::from_secs(1);

/// The silence after which the body of an HTTP error counts as complete.
const REFUSAL: Duration = Duration::from_secs(1);

/// Whether an answer with this status and its last byte at `last` is an HTTP error that counts as
/// complete. Its body is read for the message only.
pub(super) fn is_refusal_over(status: StatusCode, last: Duration, now: Duration) -> bool {
    !status.is_success() && last + REFUSAL <= now
}

/// Texts of which the last event of an answer contains one.
#[derive(Debug, Clone)]
pub(super) struct EndMarks(Vec<Finder<'static>>);

impl EndMarks {
    /// The end marks of a protocol.
    pub(super) fn of(marks: &'static [&'static str]) -> Self {
        Self(marks.iter().map(|mark| Finder::new(*mark)).collect())
    }

    /// Whether a chunk contains a mark, which is far cheaper than parsing it. A mark that lies across two
    /// chunks is missed here and found when the stream is silent.
    pub(super) fn are_in(&self, chunks: &[Chunk]) -> bool {
        chunks.iter().any(|chunk| self.0.iter().any(|mark| mark.find(&chunk.bytes).is_some()))
    }
}

/// The state of the search in one answer.
#[derive(Debug, Default)]
pub(super) struct EndSearch {
    /// The number of chunks that were parsed.
    seen: usize,
    /// The time of the last parse.
    last_look: Duration,
    /// Whether a chunk that was not parsed yet contains an end mark.
    is_marked: bool,
    /// The arrival of the chunk in which the answer ended.
    ended: Option<Duration>,
}

/// Parses an answer for the search.
pub(super) trait EndProbe {
    /// Whether `chunks` hold the end of the answer. The first `seen` chunks were passed before.
    ///
    /// The client asks only when bytes stop coming, or when the end of the connection proves
    /// nothing.
    fn has_ended(&self, chunks: &[Chunk], seen: usize) -> bool;

    /// Whether an answer that has ended still lacks the usage that its token counts come from.
    fn lacks_usage(&self, chunks: &[Chunk]) -> bool;
}

/// The result of one search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SearchOutcome {
    /// Nothing new.
    Nothing,
    /// The answer has ended; its body may still end by itself.
    Ended,
    /// The answer has ended, and the client has to close the body.
    LeftOpen,
}

impl EndSearch {
    /// Notes that a chunk contains an end mark: the next search is [`SOON`].
    pub(super) fn mark(&mut self) {
        self.is_marked = true;
    }

    /// Whether a search is due [`SOON`].
    pub(super) fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// Searches `chunks`, all that has arrived of the answer.
    pub(super) fn look(
        &mut self,
        chunks: &[Chunk],
        now: Duration,
        answer: &impl EndProbe,
    ) -> SearchOutcome {
        let Some(last) = chunks.last() else { return SearchOutcome::Nothing };
        if let Some(ended) = self.ended {
            let is_over = last.at + QUIET <= now || ended + ANYWAY <= now;
            let is_closed = is_over && (ended + USAGE <= now || !answer.lacks_usage(chunks));
            return if is_closed { SearchOutcome::LeftOpen } else { SearchOutcome::Nothing };
        }
        let least = if self.is_marked { SOON } else { QUIET };
        let is_old = |chunk: &Chunk| chunk.at + least <= now;
        let is_due = is_old(last) || now >= self.last_look + ANYWAY;
        if self.seen == chunks.len() || !is_due {
            return SearchOutcome::Nothing;
        }
        // Younger chunks wait for the next search: the body may end by itself meanwhile.
        let old = chunks.partition_point(is_old);
        (self.last_look, self.is_marked) = (now, false);
        let seen = mem::replace(&mut self.seen, old);
        if old == seen || !answer.has_ended(&chunks[..old], seen) {
            return SearchOutcome::Nothing;
        }
        self.ended = chunks[..old].last().map(|chunk| chunk.at);
        match last.at + QUIET <= now {
            true => self.look(chunks, now, answer).at_least_ended(),
            false => SearchOutcome::Ended,
        }
    }

    /// The time of the next search if no bytes come.
    pub(super) fn next(&self, chunks: &[Chunk], now: Duration) -> Duration {
        let least = if self.is_marked { SOON } else { QUIET };
        let due = chunks.last().map_or(now + QUIET, |chunk| chunk.at + least);
        // The last chunk was searched already; what remains is to wait for usage or silence.
        if due > now { due } else { now + PATIENCE }
    }
}

impl SearchOutcome {
    /// At least [`SearchOutcome::Ended`].
    fn at_least_ended(self) -> Self {
        if self == Self::Nothing { Self::Ended } else { self }
    }
}

/// The note of a recording whose body the client closed.
pub(super) fn left_open() -> RequestError {
    let message = "the answer had ended, and the server kept the body open";
    RequestError::new(ErrorKind::LeftOpen, message)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn chunks(times: &[u64]) -> Vec<Chunk> {
        times
            .iter()
            .map(|at| Chunk { at: ms(*at), uncertainty: Duration::ZERO, bytes: "x".into() })
            .collect()
    }

    /// An answer that ends with `end` chunks and has its usage with `usage` chunks; notes its probes.
    struct Answer {
        end: usize,
        usage: usize,
        looks: RefCell<Vec<(usize, usize)>>,
    }

    impl Answer {
        fn new(end: usize, usage: usize) -> Self {
            Self { end, usage, looks: RefCell::default() }
        }
    }

    impl EndProbe for Answer {
        fn has_ended(&self, chunks: &[Chunk], seen: usize) -> bool {
            self.looks.borrow_mut().push((chunks.len(), seen));
            chunks.len() >= self.end
        }

        fn lacks_usage(&self, chunks: &[Chunk]) -> bool {
            chunks.len() < self.usage
        }
    }

    use SearchOutcome::{Ended, LeftOpen, Nothing};

    #[test]
    fn each_chunk_is_looked_at_once_and_only_when_the_stream_is_quiet() {
        let (mut search, answer) = (EndSearch::default(), Answer::new(4, 0));
        let mut look = |times: &[u64], now| search.look(&chunks(times), ms(now), &answer);
        assert_eq!(look(&[], 400), Nothing);
        assert_eq!(look(&[10, 20], 269), Nothing, "not quiet");
        assert_eq!(look(&[10, 20], 270), Nothing);
        assert_eq!(look(&[10, 20], 9000), Nothing, "nothing new");
        assert_eq!(look(&[10, 20, 9100], 9200), Nothing, "not quiet");
        assert_eq!(look(&[10, 20, 9100, 9200], 9450), LeftOpen);
        assert_eq!(answer.looks.take(), [(2, 0), (4, 2)]);
    }

    #[test]
    fn comments_do_not_hide_an_end() {
        let (mut search, answer) = (EndSearch::default(), Answer::new(99, 0));
        let pings: Vec<_> = (0..30).map(|n| n * 100).collect();
        for now in 0..30_usize {
            search.look(&chunks(&pings[..=now]), ms(100 * now as u64 + 1), &answer);
        }
        assert_eq!(answer.looks.take(), [(8, 0), (18, 8)]);
        // A marker among them is found soon, and the body is closed though they go on.
        let (mut search, answer) = (EndSearch::default(), Answer::new(2, 0));
        search.mark();
        assert_eq!(search.look(&chunks(&[0, 100]), ms(110), &answer), Ended);
        assert_eq!(search.look(&chunks(&pings[..11]), ms(1001), &answer), Nothing);
        assert_eq!(search.look(&chunks(&pings[..12]), ms(1101), &answer), LeftOpen);
    }

    #[test]
    fn an_end_marker_frees_the_place_soon_and_the_body_may_end_later() {
        // Chunks so far, time of the search, expected outcome.
        type Look = (&'static [u64], u64, SearchOutcome);
        let cases: [(usize, &[Look]); 3] = [
            // With its usage.
            (
                2,
                &[
                    (&[10, 20], 24, Nothing),
                    (&[10, 20], 25, Ended),
                    (&[10, 20], 269, Nothing),
                    (&[10, 20], 270, LeftOpen),
                ],
            ),
            // Usage comes late.
            (
                3,
                &[
                    (&[10, 20], 30, Ended),
                    (&[10, 20], 1900, Nothing),
                    (&[10, 20, 1900], 1901, LeftOpen),
                ],
            ),
            // It never comes.
            (9, &[(&[10, 20], 40, Ended), (&[10, 20], 2019, Nothing), (&[10, 20], 2020, LeftOpen)]),
        ];
        for (usage, looks) in cases {
            let (mut search, answer) = (EndSearch::default(), Answer::new(2, usage));
            search.mark();
            for (times, now, found) in looks {
                assert_eq!(search.look(&chunks(times), ms(*now), &answer), *found, "{usage} {now}");
            }
        }
    }

    #[test]
    fn it_is_looked_when_something_may_be_found() {
        let mut search = EndSearch::default();
        assert_eq!(search.next(&chunks(&[]), ms(5)), ms(5) + QUIET);
        assert_eq!(search.next(&chunks(&[100]), ms(200)), ms(100) + QUIET);
        assert_eq!(search.next(&chunks(&[100]), ms(400)), ms(400) + PATIENCE);
        search.mark();
        assert_eq!(search.next(&chunks(&[100]), ms(101)), ms(100) + SOON);
    }

    #[test]
    fn a_refusal_is_over_when_its_body_says_nothing_more() {
        let is_over = |status, now| {
            is_refusal_over(StatusCode::from_u16(status).expect("a status"), ms(10), ms(now))
        };
        assert!(is_over(500, 1010) && is_over(404, 5000) && is_over(302, 1010));
        assert!(!is_over(500, 1009) && !is_over(200, 5000));
    }

    #[test]
    fn marks_are_found_in_any_of_the_chunks() {
        let marks = EndMarks::of(&["DONE", "stop"]);
        let of = |texts: &[&'static str]| -> Vec<Chunk> {
            let chunk = |text: &&'static str| Chunk {
                at: ms(0),
                uncertainty: ms(0),
                bytes: (*text).into(),
            };
            texts.iter().map(chunk).collect()
        };
        assert!(marks.are_in(&of(&["a", "b [DONE]"])));
        assert!(marks.are_in(&of(&["stop", "a"])));
        assert!(!marks.are_in(&of(&["DO", "NE"])));
        assert!(!marks.are_in(&[]));
    }
}
