//! The requests of a load, and the part of them that is measured.

use std::time::Duration;

use llm_stream_core::{
    column::Storage,
    load_stats::{LoadStats, MeasuredPart, RequestSpan, RequestSpans},
    steady::{MeasuredRequests, NoWindow, PhasedTally},
    summary::Tally,
};

use crate::{plan::Workload, row::Row};

/// The requests of a load, or of a part of a mix.
pub(super) struct GatheredRequests {
    pub(super) tally: PhasedTally,
    spans: RequestSpans,
}

impl GatheredRequests {
    /// Creates an empty one for `workload`.
    pub(super) fn new(workload: &Workload, storage: &Storage) -> Self {
        let tally = PhasedTally::new(workload.phases, storage);
        Self { tally, spans: RequestSpans::new(storage) }
    }

    /// Creates an empty one for each part of `workload`.
    pub(super) fn of_parts(workload: &Workload, storage: &Storage) -> Vec<Self> {
        workload.parts.iter().map(|part| Self::new(part, storage)).collect()
    }

    /// Adds a request. The measured part began at `measured_from`, if it has begun.
    pub(super) fn add(&mut self, row: &Row, span: RequestSpan, measured_from: Option<Duration>) {
        if let Some(from) = measured_from {
            self.tally.begin_at(from);
        }
        self.tally.add(span.begun, (&row.prompt, row.case.run, &row.outcome));
        self.spans.push(span);
    }

    /// Returns the number of requests.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Returns the statistics of all requests.
    pub(super) fn stats(&self, busy: Option<f64>) -> Option<LoadStats> {
        LoadStats::of(&self.spans, busy)
    }

    /// Returns the measured part, that of the `whole` load for a part of a mix, and its statistics.
    /// Without a measured part the statistics are those of all requests.
    pub(super) fn measure(
        self,
        busy: Option<f64>,
        whole: Option<&MeasuredRequests>,
    ) -> (Option<LoadStats>, Result<MeasuredRequests, NoWindow>) {
        let Self { tally, spans } = self;
        let all = LoadStats::of(&spans, busy);
        let measured = tally.measure(whole);
        let Ok(MeasuredRequests { window: Some(window), of_whole, .. }) = &measured else {
            return (all, measured);
        };
        let part = all.map(|all| MeasuredPart::of(*window, &all, of_whole));
        let stats = LoadStats::in_window(&spans, busy, Some(*window));
        (stats.map(|stats| LoadStats { part, ..stats }), measured)
    }
}

/// A part of a mix that has ended: its statistics, and its measured requests or why there are none.
pub(super) type EndedPart = (Option<LoadStats>, Result<Tally, String>);

/// Measures the parts of a mix like the `whole` load.
pub(super) fn measure_parts(
    parts: Vec<GatheredRequests>,
    busy: Option<f64>,
    whole: &Result<MeasuredRequests, NoWindow>,
) -> Vec<EndedPart> {
    let measure = |part: GatheredRequests| match whole {
        Err(why) => (part.stats(busy), Err(why.to_string())),
        Ok(whole) => {
            let (stats, measured) = part.measure(busy, Some(whole));
            (stats, measured.map(|measured| measured.tally).map_err(|why| why.to_string()))
        }
    };
    parts.into_iter().map(measure).collect()
}

/// Adds a request to its part of a mix.
pub(super) fn add_to_part(
    parts: &mut [GatheredRequests],
    row: &Row,
    span: RequestSpan,
    measured_from: Option<Duration>,
) {
    if let Some(part) = row.part().and_then(|part| parts.get_mut(part)) {
        part.add(row, span, measured_from);
    }
}
