//! A finished request, with the trial that it belongs to.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use llm_stream_core::{prompt::Prompt, recording::RequestError, sample::Sample, summary::Request};

use crate::plan::Case;

/// One finished request.
#[derive(Debug, Clone)]
pub struct Row {
    /// The trial that it belongs to.
    pub case: Arc<Case>,
    /// What was asked.
    pub prompt: Arc<Prompt>,
    /// When the request was begun, by the wall clock.
    pub started: Timestamp,
    /// Its place in a load.
    pub place: Option<LoadPosition>,
    /// What came.
    pub outcome: Result<Sample, RequestError>,
}

/// A request's place in a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadPosition {
    /// Which of its requests, from 1, in the order of their starts.
    pub request: usize,
    /// When it was due, counted from the load's start; in an open loop.
    pub scheduled: Option<Duration>,
    /// When it was handed to an open connection, counted from the load's start; `None` when there
    /// was none.
    pub sent: Option<Duration>,
}

impl Row {
    /// The row as summaries count it.
    pub fn request(&self) -> Request<'_> {
        Request { prompt: &self.prompt, run: self.case.run, outcome: &self.outcome }
    }
}
