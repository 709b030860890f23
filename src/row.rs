//! A finished request, with its trial.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use llm_stream_core::{
    prompt::Prompt,
    recording::RequestError,
    request_line::{RequestLine, RequestPlace},
    sample::Sample,
    summary::Request,
};

use crate::plan::Case;

/// One finished request.
#[derive(Debug, Clone)]
pub struct Row {
    /// The trial.
    pub case: Arc<Case>,
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// When the request started, by the wall clock.
    pub started: Timestamp,
    /// Its position in a load.
    pub place: Option<LoadPosition>,
    /// The result.
    pub outcome: Result<Sample, RequestError>,
}

/// A request's position in a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadPosition {
    /// Its number, from 1, in the order of starts.
    pub request: usize,
    /// The replica that it was sent to, from 0.
    pub replica: usize,
    /// When it was due, counted from the load's start; only in an open loop.
    pub scheduled: Option<Duration>,
    /// When it was handed to an open connection, counted from the load's start; `None` without a
    /// connection.
    pub sent: Option<Duration>,
    /// When its turn came, counted from the load's start: it then got or opened a connection.
    pub begun: Duration,
    /// When it ended, counted from the load's start.
    pub ended: Duration,
}

impl Row {
    /// The line of `requests.jsonl`.
    pub(crate) fn line(&self) -> RequestLine<'_> {
        let place = RequestPlace {
            trial: &self.case.name,
            model: &self.case.target.name,
            prompt: self.prompt.title(),
            workload: self.case.task.workload().map(|workload| workload.name.as_str()),
            part: self.part_name(),
            run: self.case.run,
            turn: self.prompt.turn.as_ref().map(|turn| turn.number),
            request: self.place.map(|place| place.request),
            replica: self
                .place
                .map(|place| place.replica)
                .filter(|_| !self.case.target.replicas.is_empty()),
            started: self.started,
            scheduled: self.place.and_then(|place| place.scheduled),
            begun: self.place.map(|place| place.begun),
            handed_over: self.place.and_then(|place| place.sent),
            ended: self.place.map(|place| place.ended),
        };
        RequestLine::of(place, &self.outcome)
    }

    /// Returns the number of its part of a mix, from 0.
    pub(crate) fn part(&self) -> Option<usize> {
        self.case.task.workload()?.part_of(self.prompt.title())
    }

    /// Returns the name of its part of a mix: `WORKLOAD@GROUP`.
    pub(crate) fn part_name(&self) -> Option<&str> {
        let workload = self.case.task.workload()?;
        Some(&workload.parts.get(self.part()?)?.name)
    }

    /// The data of the row that summaries count.
    pub fn request(&self) -> Request<'_> {
        Request { prompt: &self.prompt, run: self.case.run, outcome: &self.outcome }
    }
}
