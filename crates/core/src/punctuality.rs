//! Compares the log of the simulated endpoint with its script. Pure.
//!
//! On a busy machine the endpoint writes late. Its figures then describe the machine instead of the
//! script, and a calibration against the script would be wrong.

use std::time::{Duration, Instant};

use crate::statistic::Statistic;

/// The lateness that is tolerated with any script, seconds.
const TOLERATED_SECONDS: f64 = 1e-3;

/// The largest deviation of the median answer, as a share of the scripted time.
const TOLERATED_MEDIAN: f64 = 0.01;

/// The largest mean deviation of the answers, as a share of the scripted time. It is larger than
/// for the median because a busy machine delays a few answers now and then.
const TOLERATED_MEAN: f64 = 0.05;

/// The scheduled and the actual times of an answer of the simulated endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerTiming {
    /// When the endpoint had read the whole request.
    pub received: Instant,
    /// The first token event.
    pub first: Option<EventTiming>,
    /// The last token event.
    pub last: Option<EventTiming>,
    /// The largest lateness of a token event.
    pub latest: Duration,
}

/// The scheduled and the actual time of a token event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTiming {
    /// When the script scheduled it.
    pub due: Instant,
    /// When its write began.
    pub began: Instant,
}

impl EventTiming {
    /// Returns the lateness of the write.
    pub fn lateness(&self) -> Duration {
        self.began.saturating_duration_since(self.due)
    }
}

/// The deviations of a simulated endpoint's answers from the script, in seconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Punctuality {
    /// The lateness of each first token, counted from the request.
    first: Vec<f64>,
    /// The scripted time to each first token.
    first_due: Vec<f64>,
    /// The deviation of each time from the first to the last token event, of answers with several
    /// events.
    generation: Vec<f64>,
    /// The scripted time of each of them.
    generation_due: Vec<f64>,
    /// The largest lateness of a token event in each answer.
    latest: Vec<f64>,
}

/// The deviation of a figure from the script, in seconds, over several answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// The median deviation.
    pub median: f64,
    /// The mean deviation.
    pub mean: f64,
    /// The 99th percentile of the absolute deviations; the largest of fewer than 100.
    pub p99: f64,
    /// The mean scripted time.
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

    /// Returns whether the deviation is larger than tolerated.
    fn is_beyond(&self) -> bool {
        let beyond =
            |off: f64, part: f64| off.abs() > (part * self.scripted).max(TOLERATED_SECONDS);
        beyond(self.median, TOLERATED_MEDIAN) || beyond(self.mean, TOLERATED_MEAN)
    }

    /// Returns whether the deviations are negligible.
    pub fn is_none(&self) -> bool {
        self.p99 <= (TOLERATED_MEDIAN * self.scripted).max(TOLERATED_SECONDS)
    }
}

impl Punctuality {
    /// Compares the answers of an endpoint with its script. `handed_over` has the times at which
    /// the requests were handed to the operating system: the delay until the endpoint reads them is
    /// lateness too.
    pub fn of(mut answers: Vec<AnswerTiming>, mut handed_over: Vec<Instant>) -> Self {
        answers.sort_by_key(|answer| answer.received);
        handed_over.sort_unstable();
        // The assignment of requests to answers does not matter: the sum of the delays is the same,
        // and in the order of time no delay is negative.
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
        // An answer without tokens has no times to compare.
        let Some((first, last)) = answer.first.zip(answer.last) else { return };
        self.first.push((first.lateness() + unread).as_secs_f64());
        self.first_due.push((first.due.saturating_duration_since(answer.received)).as_secs_f64());
        self.latest.push(answer.latest.as_secs_f64());
        let due = last.due.saturating_duration_since(first.due).as_secs_f64();
        // An answer with one token event has no generation time.
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

    /// Returns the deviation of the time to the first token.
    pub fn first(&self) -> Option<Deviation> {
        Deviation::of(&self.first, &self.first_due)
    }

    /// Returns the deviation of the time from the first to the last token event.
    pub fn generation(&self) -> Option<Deviation> {
        Deviation::of(&self.generation, &self.generation_due)
    }

    /// Returns the mean over the answers of their largest lateness.
    pub fn latest(&self) -> f64 {
        Statistic::Mean.of(&self.latest).unwrap_or_default()
    }

    /// Returns why the figures do not describe the script, if so.
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

    /// Returns whether an answer was late enough for a note in its row.
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

    /// Returns the punctuality of answers with tokens due at 40 ms and 440 ms, each late by
    /// `lates`, to requests that waited for `unread` before being read.
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
    fn a_few_late_answers_are_noted_and_tolerated() {
        // Two of 40: 0.75 ms on average.
        let mut lates = [(0, 0); 40];
        lates[3..5].fill((15, 15));
        let kept = punctuality(&lates, Duration::ZERO);
        assert_eq!(kept.shortfall(), None);
        assert!(kept.is_late());
        assert!((kept.latest() - 0.015 * 2.0 / 40.0).abs() < 1e-9);
    }

    #[test]
    fn late_tokens_late_starts_and_unread_requests_are_reported() {
        let shortfall = |lates: &[(u64, u64)], unread| {
            punctuality(lates, unread).shortfall().expect("it was not kept")
        };
        let slow = shortfall(&[(0, 119); 10], Duration::ZERO);
        assert!(
            slow.ends_with("generation took 519.0 ms on average, where the script says 400.0 ms")
        );
        let late = shortfall(&[(12, 12); 10], Duration::ZERO);
        assert!(
            late.ends_with(
                "first tokens came 12.0 ms late on average, where the script says 40.0 ms"
            )
        );
        let unread = shortfall(&[(0, 0); 10], ms(5));
        assert!(unread.contains("first tokens came 5.0 ms late"), "{unread}");
        // The median answer is on time, and one of ten is half a second late.
        let mut lates = [(0, 0); 10];
        lates[0] = (500, 500);
        assert!(shortfall(&lates, Duration::ZERO).contains("first tokens came 50.0 ms late"));
    }
}
