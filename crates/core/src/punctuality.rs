//! Did the simulated endpoint keep to its script? Its log against what was due. Pure.
//!
//! An endpoint that has more to write than this machine can is late, and its figures are then those
//! of the machine and not of the script.

use std::time::{Duration, Instant};

use crate::statistic::Statistic;

/// Tolerated lateness, whatever the script says.
const LEAST: f64 = 1e-3;

/// Most that the median answer may be off, as a part of the scripted time.
const MEDIAN: f64 = 0.01;

/// Most that answers may be off on average, as a part of the scripted time. More than the median:
/// a machine with other things to do holds up a few answers now and then.
const MEAN: f64 = 0.05;

/// When a simulated endpoint wrote an answer, and when its script wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerTiming {
    /// When the endpoint had read the whole request.
    pub received: Instant,
    /// The first token event.
    pub first: Option<EventTiming>,
    /// The last token event.
    pub last: Option<EventTiming>,
    /// The lateness of the latest token event.
    pub latest: Duration,
}

/// When a token event was written, and when the script wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTiming {
    /// When the script wanted it.
    pub due: Instant,
    /// When its write began.
    pub began: Instant,
}

impl EventTiming {
    /// How long after it was due the write began.
    pub fn lateness(&self) -> Duration {
        self.began.saturating_duration_since(self.due)
    }
}

/// By how much the answers of a simulated endpoint differ from its script. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Punctuality {
    /// Of each answer: how late its first token was, counted from the request.
    first: Vec<f64>,
    /// The scripted time to the first token of each of them.
    first_due: Vec<f64>,
    /// Of each answer with several token events: by how much the time from the first of them to the
    /// last differs.
    generation: Vec<f64>,
    /// The scripted time of each of them.
    generation_due: Vec<f64>,
    /// Of each answer: how late the latest of its token events was.
    latest: Vec<f64>,
}

/// How far a figure of several answers is from the script, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// Of the median answer.
    pub median: f64,
    /// On average.
    pub mean: f64,
    /// The 99th percentile of the answers' deviations; of fewer than 100, the largest.
    pub p99: f64,
    /// The scripted time, on average.
    pub scripted: f64,
}

impl Deviation {
    fn of(deviations: &[f64], scripted: &[f64]) -> Option<Self> {
        let sizes: Vec<_> = deviations.iter().map(|deviation| deviation.abs()).collect();
        let largest = |_| Statistic::Max.of(&sizes);
        Some(Self {
            median: Statistic::Median.of(deviations).ok()?,
            mean: Statistic::Mean.of(deviations).ok()?,
            p99: Statistic::Percentile(99.0).of(&sizes).or_else(largest).ok()?,
            scripted: Statistic::Mean.of(scripted).ok()?,
        })
    }

    /// Whether the figure is the machine's and not the script's.
    fn is_beyond(&self) -> bool {
        let beyond = |off: f64, part: f64| off.abs() > (part * self.scripted).max(LEAST);
        beyond(self.median, MEDIAN) || beyond(self.mean, MEAN)
    }

    /// Whether no answer was off by more than nothing to speak of.
    pub fn is_none(&self) -> bool {
        self.p99 <= (MEDIAN * self.scripted).max(LEAST)
    }
}

impl Punctuality {
    /// Compares what an endpoint wrote with what was due. `handed_over` are the moments when its
    /// requests were handed to the system: the time until the endpoint reads them is lateness, too.
    pub fn of(mut answers: Vec<AnswerTiming>, mut handed_over: Vec<Instant>) -> Self {
        answers.sort_by_key(|answer| answer.received);
        handed_over.sort_unstable();
        // Which request is whose answer does not matter: the delays' sum is the same, and in order of
        // time none is negative.
        let is_whole = answers.len() == handed_over.len();
        let mut punctuality = Self::default();
        for (nth, answer) in answers.iter().enumerate() {
            let begun = handed_over.get(nth).filter(|_| is_whole);
            let unread = begun
                .map_or(Duration::ZERO, |begun| answer.received.saturating_duration_since(*begun));
            punctuality.add(answer, unread);
        }
        punctuality
    }

    fn add(&mut self, answer: &AnswerTiming, unread: Duration) {
        let Some((first, last)) = answer.first.zip(answer.last) else { return };
        self.first.push((first.lateness() + unread).as_secs_f64());
        self.first_due.push((first.due.saturating_duration_since(answer.received)).as_secs_f64());
        self.latest.push(answer.latest.as_secs_f64());
        let due = last.due.saturating_duration_since(first.due).as_secs_f64();
        if due > 0.0 {
            let took = last.began.saturating_duration_since(first.began).as_secs_f64();
            self.generation.push(took - due);
            self.generation_due.push(due);
        }
    }

    /// Adds the answers of `other`.
    pub fn merge(&mut self, other: Self) {
        let Self { first, first_due, generation, generation_due, latest } = other;
        self.first.extend(first);
        self.first_due.extend(first_due);
        self.generation.extend(generation);
        self.generation_due.extend(generation_due);
        self.latest.extend(latest);
    }

    /// Of the time to the first token.
    pub fn first(&self) -> Option<Deviation> {
        Deviation::of(&self.first, &self.first_due)
    }

    /// Of the time from the first to the last token event.
    pub fn generation(&self) -> Option<Deviation> {
        Deviation::of(&self.generation, &self.generation_due)
    }

    /// How late token events were, on average over the latest of each answer.
    pub fn latest(&self) -> f64 {
        Statistic::Mean.of(&self.latest).unwrap_or_default()
    }

    /// Why the figures are not those of the script, if they are not.
    pub fn shortfall(&self) -> Option<String> {
        let late = self.first().filter(Deviation::is_beyond).map(|late| {
            format!(
                "first tokens came {:.1} ms late on average, where the script says {:.1} ms",
                late.mean * 1e3,
                late.scripted * 1e3
            )
        });
        let slow = self.generation().filter(Deviation::is_beyond).map(|slow| {
            format!(
                "generation took {:.1} ms on average, where the script says {:.1} ms",
                (slow.scripted + slow.mean) * 1e3,
                slow.scripted * 1e3
            )
        });
        let what: Vec<_> = late.into_iter().chain(slow).collect();
        (!what.is_empty()).then(|| {
            format!(
                "this machine was too slow for the simulated endpoint, which did not keep its \
                 script: {}",
                what.join("; ")
            )
        })
    }

    /// Whether an answer was late enough for its row to say so.
    pub fn is_late(&self) -> bool {
        let deviations = self.first().into_iter().chain(self.generation());
        deviations.into_iter().any(|deviation| !deviation.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[expect(clippy::disallowed_methods, reason = "only as an origin")]
    fn origin() -> Instant {
        Instant::now()
    }

    /// Answers whose tokens are due at 40 ms and at 440 ms, each `late` at both, of requests that
    /// waited `unread` for being read.
    fn punctuality(lates: &[(u64, u64)], unread: Duration) -> Punctuality {
        let begin = origin();
        let received = begin + unread;
        let event = |due: u64, late: u64| {
            let due = received + ms(due);
            EventTiming { due, began: due + ms(late) }
        };
        let answer = |(first, last): &(u64, u64)| {
            let latest = ms(*first.max(last));
            let (first, last) = (event(40, *first), event(440, *last));
            AnswerTiming { received, first: Some(first), last: Some(last), latest }
        };
        Punctuality::of(lates.iter().map(answer).collect(), vec![begin; lates.len()])
    }

    #[test]
    fn an_endpoint_in_time_has_kept_its_script() {
        let kept = punctuality(&[(0, 0); 20], Duration::from_micros(40));
        assert_eq!(kept.shortfall(), None);
        assert!(!kept.is_late());
        let first = kept.first().expect("answers");
        assert!((first.mean - 40e-6).abs() < 1e-9 && (first.scripted - 0.04).abs() < 1e-9);
        assert_eq!(Punctuality::default().shortfall(), None, "no answer, no statement");
    }

    #[test]
    fn a_few_answers_that_were_held_up_are_told_and_leave_the_script_kept() {
        // 2 of 40: 0.75 ms on average.
        let mut lates = [(0, 0); 40];
        lates[3..5].fill((15, 15));
        let kept = punctuality(&lates, Duration::ZERO);
        assert_eq!(kept.shortfall(), None);
        assert!(kept.is_late());
        assert!((kept.latest() - 0.015 * 2.0 / 40.0).abs() < 1e-9);
    }

    #[test]
    fn a_rhythm_first_tokens_or_requests_that_were_not_kept_up_with_are_told() {
        let says = |lates: &[(u64, u64)], unread| {
            punctuality(lates, unread).shortfall().expect("it was not kept")
        };
        let slow = says(&[(0, 119); 10], Duration::ZERO);
        assert!(
            slow.ends_with("generation took 519.0 ms on average, where the script says 400.0 ms")
        );
        let late = says(&[(12, 12); 10], Duration::ZERO);
        assert!(
            late.ends_with(
                "first tokens came 12.0 ms late on average, where the script says 40.0 ms"
            )
        );
        let unread = says(&[(0, 0); 10], ms(5));
        assert!(unread.contains("first tokens came 5.0 ms late"), "{unread}");
        // The median answer is in time, and one of ten is half a second late.
        let mut lates = [(0, 0); 10];
        lates[0] = (500, 500);
        assert!(says(&lates, Duration::ZERO).contains("first tokens came 50.0 ms late"));
    }
}
