//! A finished request as a line of JSON, with all that its figures are computed from. Reading a line
//! returns the same [`Sample`], to the nanosecond.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    metric::Metric,
    protocol::Timings,
    recording::{ErrorKind, RequestError, StampedBy},
    sample::{
        ArrivalUncertainty, Doubt, EventLog, EventRun, Note, Sample, TokenCount, UnreadField,
    },
    text::visible_json,
};

/// A duration in microseconds with up to three decimals, so that no nanosecond is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Micros(pub Duration);

impl Micros {
    /// The longest duration: about 26 days. Its nanoseconds survive the conversion to a decimal number.
    const LONGEST: f64 = (1_u64 << 51) as f64 / 1e3;

    /// Returns the microseconds.
    pub fn as_f64(self) -> f64 {
        self.0.as_nanos() as f64 / 1e3
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = self.0.as_nanos();
        match u64::try_from(nanos / 1000) {
            Ok(micros) if nanos.is_multiple_of(1000) => serializer.serialize_u64(micros),
            _ => serializer.serialize_f64(self.as_f64()),
        }
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let micros = f64::deserialize(deserializer)?;
        match (0.0..=Self::LONGEST).contains(&micros) {
            true => Ok(Self(Duration::from_nanos((micros * 1e3).round() as u64))),
            false => Err(serde::de::Error::custom("not a time in microseconds")),
        }
    }
}

/// A finished request: its place in the run, and its answer or its error. Keys of the answer are null
/// for a failed request. Times count from the moment at which the request was handed to an open
/// connection; in an open loop, from its scheduled start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequestLine<'a> {
    /// The trial's name.
    pub trial: Cow<'a, str>,
    /// The model's name in the results.
    pub model: Cow<'a, str>,
    /// The prompt.
    pub prompt: Cow<'a, str>,
    /// The workload; `None` for prompts one by one.
    pub workload: Option<Cow<'a, str>>,
    /// The part of a mix; left out without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Cow<'a, str>>,
    /// The run, from 1.
    pub run: u32,
    /// The turn of a conversation, from 1.
    pub turn: Option<usize>,
    /// The request's number in its load, from 1, in the order of starts.
    pub request: Option<usize>,
    /// The replica that it was sent to, from 0; `None` without several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<usize>,
    /// The start by the wall clock.
    pub started: Timestamp,
    /// When it was due, since the load's start; only in an open loop.
    pub scheduled_us: Option<Micros>,
    /// When its turn came, since the load's start.
    pub begun_us: Option<Micros>,
    /// When it was handed to an open connection, since the load's start.
    pub handed_over_us: Option<Micros>,
    /// When it ended, since the load's start.
    pub ended_us: Option<Micros>,
    /// Why it failed: the kind.
    pub error_kind: Option<ErrorKind>,
    /// Why it failed: the message.
    pub error_message: Option<Cow<'a, str>>,
    /// [`Sample::is_streamed`]; absent in the files of earlier versions, whose answers all were.
    #[serde(default)]
    pub is_streamed: Option<bool>,
    /// [`Sample::request_id`].
    pub request_id: Option<Cow<'a, str>>,
    /// [`Sample::finish_reason`].
    pub finish_reason: Option<Cow<'a, str>>,
    /// [`Sample::items`].
    #[serde(default)]
    pub items: Option<u64>,
    /// [`Sample::prompt_tokens`].
    pub prompt_tokens: Option<u64>,
    /// [`Sample::response_tokens`].
    pub response_tokens: Option<u64>,
    /// [`Sample::total_tokens`].
    pub total_tokens: Option<u64>,
    /// [`Sample::cached_tokens`].
    pub cached_tokens: Option<u64>,
    /// [`Sample::reasoning_tokens`].
    pub reasoning_tokens: Option<u64>,
    /// The name of [`Sample::token_count`].
    pub token_count: Option<Cow<'a, str>>,
    /// [`Sample::connect`].
    pub connect_us: Option<Micros>,
    /// [`Sample::tls`].
    pub tls_us: Option<Micros>,
    /// [`Sample::sent`].
    pub sent_us: Option<Micros>,
    /// [`Sample::lag`].
    pub lag_us: Option<Micros>,
    /// [`Sample::stamped_by`].
    pub clock: Option<StampedBy>,
    /// [`Sample::first_byte`].
    pub first_byte_us: Option<Micros>,
    /// [`Sample::first_event`].
    pub first_event_us: Option<Micros>,
    /// [`Sample::first_reasoning`].
    pub first_reasoning_us: Option<Micros>,
    /// [`Sample::first_answer`].
    pub first_answer_us: Option<Micros>,
    /// [`Sample::token_events`]; empty for a failed request.
    pub token_arrivals_us: Vec<Micros>,
    /// The contents of all events in order: [`EventLog::runs`].
    pub events: Vec<EventRun>,
    /// The arrivals of the events without a token: [`EventLog::other_arrivals`].
    pub other_arrivals_us: Vec<Micros>,
    /// [`Sample::first_event_tokens`].
    pub first_event_tokens: Option<u64>,
    /// [`Sample::end`].
    pub end_us: Option<Micros>,
    /// [`Sample::uncertainty`].
    pub uncertainty: Option<UncertaintyLine>,
    /// [`Sample::server_head`].
    pub server_head_us: Option<Micros>,
    /// The server's times: [`Timings::queue`].
    pub server_queue_us: Option<Micros>,
    /// [`Timings::prompt`].
    pub server_prompt_us: Option<Micros>,
    /// [`Timings::generation`].
    pub server_generation_us: Option<Micros>,
    /// [`Timings::may_hold_first`].
    pub server_may_hold_first: Option<bool>,
    /// [`Sample::shows_reasoning`].
    pub shows_reasoning: Option<bool>,
    /// [`Sample::is_good`].
    #[serde(default)]
    pub is_good: Option<bool>,
    /// [`Sample::asked_for_one`].
    pub asked_for_one: Option<bool>,
    /// [`Sample::notes`].
    pub notes: Vec<Note>,
    /// [`Sample::unread`].
    pub unread: Vec<UnreadField>,
    /// [`Sample::doubts`].
    pub doubts: Vec<DoubtLine<'a>>,
}

/// How much earlier than noted the parts of an answer may have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `ArrivalUncertainty`")]
pub struct UncertaintyLine {
    pub headers_us: Micros,
    pub first_event_us: Micros,
    pub first_token_us: Micros,
    pub first_reasoning_us: Micros,
    pub first_answer_us: Micros,
    pub last_token_us: Micros,
    pub end_us: Micros,
    pub largest_us: Micros,
}

/// A doubt about figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtLine<'a> {
    /// The metrics that may be affected.
    pub metrics: Vec<Cow<'a, str>>,
    /// The reason, and the remedy.
    pub reason: Cow<'a, str>,
}

/// The place of a request in the run.
#[derive(Debug, Clone, Copy)]
pub struct RequestPlace<'a> {
    /// The trial's name.
    pub trial: &'a str,
    /// The model's name in the results.
    pub model: &'a str,
    /// The prompt.
    pub prompt: &'a str,
    /// The workload.
    pub workload: Option<&'a str>,
    /// The part of a mix.
    pub part: Option<&'a str>,
    /// The run, from 1.
    pub run: u32,
    /// The turn of a conversation, from 1.
    pub turn: Option<usize>,
    /// The request's number in its load.
    pub request: Option<usize>,
    /// The replica that it was sent to, from 0; `None` without several.
    pub replica: Option<usize>,
    /// The start by the wall clock.
    pub started: Timestamp,
    /// When it was due, since the load's start.
    pub scheduled: Option<Duration>,
    /// When its turn came, since the load's start.
    pub begun: Option<Duration>,
    /// When it was handed to an open connection, since the load's start.
    pub handed_over: Option<Duration>,
    /// When it ended, since the load's start.
    pub ended: Option<Duration>,
}

impl<'a> RequestLine<'a> {
    /// Returns the line of a request.
    pub fn of(place: RequestPlace<'a>, outcome: &'a Result<Sample, RequestError>) -> Self {
        let line = Self::at(place);
        match outcome {
            Ok(sample) => line.with_answer(sample),
            Err(error) => Self {
                error_kind: Some(error.kind),
                error_message: Some(error.message.as_str().into()),
                ..line
            },
        }
    }

    /// Returns the line of a request without an outcome.
    fn at(place: RequestPlace<'a>) -> Self {
        Self {
            trial: place.trial.into(),
            model: place.model.into(),
            prompt: place.prompt.into(),
            workload: place.workload.map(Into::into),
            part: place.part.map(Into::into),
            run: place.run,
            turn: place.turn,
            request: place.request,
            replica: place.replica,
            started: place.started,
            scheduled_us: place.scheduled.map(Micros),
            begun_us: place.begun.map(Micros),
            handed_over_us: place.handed_over.map(Micros),
            ended_us: place.ended.map(Micros),
            error_kind: None,
            error_message: None,
            is_streamed: None,
            request_id: None,
            finish_reason: None,
            items: None,
            prompt_tokens: None,
            response_tokens: None,
            total_tokens: None,
            cached_tokens: None,
            reasoning_tokens: None,
            token_count: None,
            connect_us: None,
            tls_us: None,
            sent_us: None,
            lag_us: None,
            clock: None,
            first_byte_us: None,
            first_event_us: None,
            first_reasoning_us: None,
            first_answer_us: None,
            token_arrivals_us: Vec::new(),
            events: Vec::new(),
            other_arrivals_us: Vec::new(),
            first_event_tokens: None,
            end_us: None,
            uncertainty: None,
            server_head_us: None,
            server_queue_us: None,
            server_prompt_us: None,
            server_generation_us: None,
            server_may_hold_first: None,
            shows_reasoning: None,
            is_good: None,
            asked_for_one: None,
            notes: Vec::new(),
            unread: Vec::new(),
            doubts: Vec::new(),
        }
    }

    fn with_answer(self, sample: &'a Sample) -> Self {
        let generated = sample.items.is_none();
        Self {
            is_streamed: Some(sample.is_streamed),
            request_id: sample.request_id.as_deref().map(Into::into),
            finish_reason: generated.then_some(sample.finish_reason.as_str().into()),
            items: sample.items,
            prompt_tokens: sample.prompt_tokens,
            response_tokens: generated.then_some(sample.response_tokens),
            total_tokens: sample.total_tokens,
            cached_tokens: sample.cached_tokens,
            reasoning_tokens: sample.reasoning_tokens,
            token_count: generated.then_some(sample.token_count.name().into()),
            connect_us: sample.connect.map(Micros),
            tls_us: sample.tls.map(Micros),
            sent_us: sample.sent.map(Micros),
            lag_us: sample.lag.map(Micros),
            clock: Some(sample.stamped_by),
            first_byte_us: Some(Micros(sample.first_byte)),
            first_event_us: Some(Micros(sample.first_event)),
            first_reasoning_us: sample.first_reasoning.map(Micros),
            first_answer_us: sample.first_answer.map(Micros),
            token_arrivals_us: arrivals_us(&sample.token_events),
            events: sample.event_log.runs.clone(),
            other_arrivals_us: arrivals_us(&sample.event_log.other_arrivals),
            first_event_tokens: sample.first_event_tokens,
            end_us: Some(Micros(sample.end)),
            uncertainty: Some((&sample.uncertainty).into()),
            server_head_us: sample.server_head.map(Micros),
            server_queue_us: sample.server.queue.map(Micros),
            server_prompt_us: sample.server.prompt.map(Micros),
            server_generation_us: sample.server.generation.map(Micros),
            server_may_hold_first: Some(sample.server.may_hold_first),
            shows_reasoning: Some(sample.shows_reasoning),
            is_good: sample.is_good,
            asked_for_one: Some(sample.asked_for_one),
            notes: sample.notes.clone(),
            unread: sample.unread.clone(),
            doubts: sample.doubts.iter().map(Into::into).collect(),
            ..self
        }
    }

    /// Returns the place of the request.
    pub fn place(&self) -> RequestPlace<'_> {
        RequestPlace {
            trial: &self.trial,
            model: &self.model,
            prompt: &self.prompt,
            workload: self.workload.as_deref(),
            part: self.part.as_deref(),
            run: self.run,
            turn: self.turn,
            request: self.request,
            replica: self.replica,
            started: self.started,
            scheduled: self.scheduled_us.map(|Micros(time)| time),
            begun: self.begun_us.map(|Micros(time)| time),
            handed_over: self.handed_over_us.map(|Micros(time)| time),
            ended: self.ended_us.map(|Micros(time)| time),
        }
    }

    /// Returns the answer or the error. `fallback` is the model's `token_count`, from which tokens were
    /// counted if the line says so.
    pub fn outcome(
        &self,
        fallback: &TokenCount,
    ) -> Result<Result<Sample, RequestError>, ParseLineError> {
        match self.error_kind {
            Some(kind) => Ok(Err(RequestError::new(
                kind,
                self.error_message.as_deref().unwrap_or(kind.name()),
            ))),
            None => self.sample(fallback).map(Ok),
        }
    }

    fn sample(&self, fallback: &TokenCount) -> Result<Sample, ParseLineError> {
        if self.token_arrivals_us.is_empty() {
            return Err(ParseLineError(
                "`token_arrivals_us` is empty, but `error_kind` is null".into(),
            ));
        }
        let time = |time: Option<Micros>| time.map(|Micros(time)| time);
        Ok(Sample {
            is_streamed: self.is_streamed.unwrap_or(true),
            request_id: self.request_id.as_deref().map(str::to_owned),
            finish_reason: match self.items {
                Some(_) => String::new(),
                None => required(self.finish_reason.as_deref(), "finish_reason")?.to_owned(),
            },
            items: self.items,
            prompt_tokens: self.prompt_tokens,
            response_tokens: match self.items {
                Some(_) => 0,
                None => required(self.response_tokens, "response_tokens")?,
            },
            total_tokens: self.total_tokens,
            cached_tokens: self.cached_tokens,
            reasoning_tokens: self.reasoning_tokens,
            token_count: self.token_count(fallback)?,
            connect: time(self.connect_us),
            tls: time(self.tls_us),
            sent: time(self.sent_us),
            lag: time(self.lag_us),
            stamped_by: required(self.clock, "clock")?,
            first_byte: required(self.first_byte_us, "first_byte_us")?.0,
            first_event: required(self.first_event_us, "first_event_us")?.0,
            first_reasoning: time(self.first_reasoning_us),
            first_answer: time(self.first_answer_us),
            token_events: arrivals(&self.token_arrivals_us),
            event_log: self.event_log()?,
            first_event_tokens: self.first_event_tokens,
            end: required(self.end_us, "end_us")?.0,
            uncertainty: required(self.uncertainty, "uncertainty")?.into(),
            server_head: time(self.server_head_us),
            server: Timings {
                queue: time(self.server_queue_us),
                prompt: time(self.server_prompt_us),
                generation: time(self.server_generation_us),
                may_hold_first: self.server_may_hold_first.unwrap_or_default(),
            },
            shows_reasoning: required(self.shows_reasoning, "shows_reasoning")?,
            is_good: self.is_good,
            asked_for_one: required(self.asked_for_one, "asked_for_one")?,
            notes: self.notes.clone(),
            unread: self.unread.clone(),
            doubts: self.doubts.iter().map(Doubt::try_from).collect::<Result<_, _>>()?,
        })
    }

    fn event_log(&self) -> Result<EventLog, ParseLineError> {
        let other_arrivals = arrivals(&self.other_arrivals_us);
        let log = EventLog { runs: self.events.clone(), other_arrivals };
        match log.is_consistent(self.token_arrivals_us.len()) {
            true => Ok(log),
            false => {
                Err(ParseLineError("`events` has other numbers of events than arrivals".into()))
            }
        }
    }

    fn token_count(&self, fallback: &TokenCount) -> Result<TokenCount, ParseLineError> {
        if self.items.is_some() {
            return Ok(TokenCount::Usage);
        }
        let name = required(self.token_count.as_deref(), "token_count")?;
        let known = [&TokenCount::Usage, &TokenCount::Chunks, fallback];
        let found = known.into_iter().find(|known| known.name() == name);
        found.cloned().ok_or_else(|| ParseLineError(format!("`token_count` is `{name}`")))
    }

    /// Formats the line, with its end.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string(self).expect("numbers and strings are JSON");
        visible_json(&json).into_owned() + "\n"
    }

    /// Parses a line.
    pub fn from_json(line: &str) -> Result<RequestLine<'static>, ParseLineError> {
        serde_json::from_str(line).map_err(|error| ParseLineError(error.to_string()))
    }
}

/// Why a line is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseLineError(String);

fn required<T>(value: Option<T>, key: &str) -> Result<T, ParseLineError> {
    value.ok_or_else(|| ParseLineError(format!("`{key}` is null, but `error_kind` is too")))
}

fn arrivals_us(times: &[Duration]) -> Vec<Micros> {
    times.iter().copied().map(Micros).collect()
}

fn arrivals(times: &[Micros]) -> Vec<Duration> {
    times.iter().map(|Micros(time)| *time).collect()
}

impl From<&ArrivalUncertainty> for UncertaintyLine {
    fn from(of: &ArrivalUncertainty) -> Self {
        Self {
            headers_us: Micros(of.headers),
            first_event_us: Micros(of.first_event),
            first_token_us: Micros(of.first_token),
            first_reasoning_us: Micros(of.first_reasoning),
            first_answer_us: Micros(of.first_answer),
            last_token_us: Micros(of.last_token),
            end_us: Micros(of.end),
            largest_us: Micros(of.largest),
        }
    }
}

impl From<UncertaintyLine> for ArrivalUncertainty {
    fn from(line: UncertaintyLine) -> Self {
        Self {
            headers: line.headers_us.0,
            first_event: line.first_event_us.0,
            first_token: line.first_token_us.0,
            first_reasoning: line.first_reasoning_us.0,
            first_answer: line.first_answer_us.0,
            last_token: line.last_token_us.0,
            end: line.end_us.0,
            largest: line.largest_us.0,
        }
    }
}

impl<'a> From<&'a Doubt> for DoubtLine<'a> {
    fn from(doubt: &'a Doubt) -> Self {
        let name = |metric: &&'static Metric| Cow::Borrowed(metric.name);
        Self {
            metrics: doubt.metrics.iter().map(name).collect(),
            reason: doubt.reason.as_str().into(),
        }
    }
}

impl TryFrom<&DoubtLine<'_>> for Doubt {
    type Error = ParseLineError;

    fn try_from(line: &DoubtLine<'_>) -> Result<Self, ParseLineError> {
        let is_named = |metrics: &&[&Metric]| {
            metrics.iter().map(|metric| metric.name).eq(line.metrics.iter().map(|name| &**name))
        };
        let metrics = Self::ALL.iter().copied().find(is_named);
        let metrics = metrics
            .ok_or_else(|| ParseLineError("`doubts` has metrics that no doubt affects".into()))?;
        Ok(Self { metrics, reason: line.reason.clone().into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::EventPart;

    const PLACE: RequestPlace<'_> = RequestPlace {
        trial: "M::p::run-2",
        model: "M",
        prompt: "p",
        workload: Some("load"),
        part: Some("load@a"),
        run: 2,
        turn: Some(1),
        request: Some(17),
        replica: Some(2),
        started: Timestamp::UNIX_EPOCH,
        scheduled: Some(Duration::from_nanos(1_000_001)),
        begun: Some(Duration::from_nanos(7)),
        handed_over: None,
        ended: Some(Duration::from_secs(8)),
    };

    fn reread(outcome: &Result<Sample, RequestError>) -> Result<Sample, RequestError> {
        let json = RequestLine::of(PLACE, outcome).to_json();
        let line = RequestLine::from_json(&json).unwrap();
        assert_eq!(line.place().trial, PLACE.trial);
        assert_eq!(line.place().scheduled, PLACE.scheduled);
        assert_eq!(line.to_json(), json);
        line.outcome(&TokenCount::Usage).unwrap()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sample() -> Sample {
        Sample {
            is_streamed: true,
            request_id: Some("id\u{1b}[31m".into()),
            finish_reason: "stop".into(),
            items: None,
            prompt_tokens: Some(9),
            response_tokens: 3,
            total_tokens: None,
            cached_tokens: Some(0),
            reasoning_tokens: Some(1),
            token_count: TokenCount::Chunks,
            connect: Some(Duration::from_nanos(1)),
            tls: None,
            sent: Some(ms(1)),
            lag: Some(Duration::from_nanos(999)),
            stamped_by: StampedBy::Kernel,
            first_byte: ms(2),
            first_event: ms(3),
            first_reasoning: Some(ms(4)),
            first_answer: Some(ms(5)),
            token_events: [4_000_000, 5_000_001, 5_000_011, 1 << 50]
                .map(Duration::from_nanos)
                .into(),
            event_log: EventLog {
                runs: [(&[EventPart::Role][..], 1), (&[EventPart::Reasoning], 1)]
                    .into_iter()
                    .chain([(&[EventPart::Answer, EventPart::Usage][..], 3), (&[], 2)])
                    .map(|(parts, events)| EventRun {
                        contents: parts.iter().copied().collect(),
                        events,
                    })
                    .collect(),
                other_arrivals: vec![ms(3), ms(6), Duration::from_nanos(6_000_001)],
            },
            first_event_tokens: Some(2),
            end: Duration::from_secs(1_200_000),
            uncertainty: ArrivalUncertainty { largest: ms(7), end: ms(8), ..Default::default() },
            server_head: Some(ms(1)),
            server: Timings { prompt: Some(ms(3)), may_hold_first: true, ..Timings::default() },
            shows_reasoning: true,
            is_good: Some(false),
            asked_for_one: false,
            notes: vec![Note::UnreadText, Note::ClientDelayed],
            unread: vec![UnreadField { name: "thought".into(), alone: true }],
            doubts: Doubt::ALL
                .iter()
                .map(|metrics| Doubt { metrics, reason: "unclear".into() })
                .collect(),
        }
    }

    #[test]
    fn an_answer_is_read_back_to_the_nanosecond() {
        assert_eq!(reread(&Ok(sample())), Ok(sample()));
        let line = RequestLine::of(PLACE, &Ok(sample())).to_json();
        assert!(line.contains(r#""token_arrivals_us":[4000,5000.001,5000.011,"#), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn an_error_is_read_back() {
        for kind in ErrorKind::ALL {
            let error = Err(RequestError::new(*kind, "it\nbroke \u{202e}"));
            assert_eq!(reread(&error), error);
        }
    }

    #[test]
    fn a_note_has_the_name_of_the_results() {
        for note in [Note::UnreadText, Note::SimulatorLate, Note::MoreReasoningThanTokens] {
            assert_eq!(serde_json::to_string(&note).unwrap(), format!("\"{}\"", note.name()));
        }
    }

    #[test]
    fn a_part_of_an_event_has_its_name() {
        for part in EventPart::ALL {
            assert_eq!(serde_json::to_string(&part).unwrap(), format!("\"{}\"", part.name()));
        }
    }

    #[test]
    fn a_line_that_no_request_has_is_an_error() {
        let json = RequestLine::of(PLACE, &Ok(sample())).to_json();
        for (from, to, error) in [
            ("[4000,", "[-1,", "not a time"),
            ("[4000,", "[1e300,", "not a time"),
            ("[4000,", "[null,", "invalid type"),
            (r#"["role"]"#, r#"["answer"]"#, "`events` has other numbers"),
            (r#""events":3"#, r#""events":18446744073709551615"#, "`events` has other numbers"),
            (r#"["role"]"#, r#"["roll"]"#, "unknown variant `roll`"),
            (r#""clock":"kernel""#, r#""clock":null"#, "`clock` is null"),
            (r#""token_count":"chunks""#, r#""token_count":"tokenizer""#, "`token_count` is"),
            (r#"["ttft","#, r#"["other","#, "`doubts`"),
            (r#""trial":"M::p::run-2","#, "", "missing field `trial`"),
        ] {
            let line = RequestLine::from_json(&json.replacen(from, to, 1));
            let result = line.and_then(|line| line.outcome(&TokenCount::Usage));
            let found = result.unwrap_err().to_string();
            assert!(found.contains(error), "{to}: {found}");
        }
        let mut line = RequestLine::from_json(&json).unwrap();
        line.token_arrivals_us.clear();
        assert!(line.outcome(&TokenCount::Usage).is_err());
    }

    proptest! {
        #[test]
        fn no_nanosecond_is_lost(nanos in 0..1_u64 << 51) {
            let micros = Micros(Duration::from_nanos(nanos));
            let json = serde_json::to_string(&micros).unwrap();
            prop_assert_eq!(serde_json::from_str::<Micros>(&json).unwrap(), micros);
        }
    }
}
