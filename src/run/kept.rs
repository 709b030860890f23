//! Trials of an earlier run that are kept instead of being run again.

use std::{io, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use llm_stream_core::{
    cache_share::CacheTally,
    energy::NoEnergy,
    load_stats::{LoadStats, RequestSpan},
    sample::CountKind,
    summary::Tally,
};

use super::{
    Event, Runner, TrialEnd, TrialOutcome,
    gathered::{self, GatheredRequests},
    workload::traced_lengths,
};
use crate::{
    plan::{Case, Task, Workload},
    report::{TrialResult, loads::LoadRow},
    row::Row,
};

/// The rows of a kept trial in the order in which they ended.
pub(crate) type KeptRows<'a> = Box<dyn Iterator<Item = io::Result<Row>> + 'a>;

/// The trials of an earlier run that need not be run again.
pub(crate) trait KeptTrials: Send {
    /// Returns the rows of a trial, if it is kept.
    fn rows<'a>(&'a mut self, case: &Arc<Case>) -> Option<KeptRows<'a>>;

    /// Returns the fraction of the time in which the receiving thread was busy in a kept load.
    fn busy(&self, case: &Case) -> Option<f64>;
}

impl Runner<'_> {
    /// Counts a trial that is kept; `None` if it must be run.
    pub(super) fn keep_trial(&mut self, case: &Arc<Case>) -> Option<TrialEnd> {
        let mut kept = self.options.kept.take()?;
        let load = (kept.busy(case), measured_from(&mut *kept, case));
        let end = kept.rows(case).map(|rows| match &case.task {
            Task::Prompt(_) => self.keep_requests(case, rows),
            Task::Workload(workload) => self.keep_load(case, workload, rows, load),
        });
        self.options.kept = Some(kept);
        let end = end?;
        Some(end.unwrap_or_else(|error| {
            let failure = format!("its rows in the earlier run cannot be read: {error}");
            self.summary.add(case.group.id, &[]);
            TrialEnd { failure: self.end_trial(case, Err(failure)), tally: None }
        }))
    }

    /// Counts a prompt or a conversation.
    fn keep_requests(&mut self, case: &Arc<Case>, rows: KeptRows<'_>) -> io::Result<TrialEnd> {
        let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
        rows.iter().try_for_each(|row| self.store_again(row))?;
        let requests: Vec<_> = rows.iter().map(Row::request).collect();
        self.summary.add(case.group.id, &requests);
        let ended = rows.last().map_or_else(Timestamp::default, end_of);
        let mut tally = Tally::default();
        rows.iter().for_each(|row| tally.add(&row.prompt, case.run, &row.outcome));
        match &rows[..] {
            [row] if row.prompt.turn.is_none() => {
                self.trials.push(TrialResult::request(row, ended));
                if let Ok(sample) = &row.outcome {
                    self.remember_first(case, sample);
                    self.end_trial(case, Ok(TrialOutcome::Answer(sample)));
                }
            }
            _ => {
                self.trials.extend(TrialResult::conversation(&rows, ended));
                self.end_trial(case, Ok(TrialOutcome::Conversation(&tally)));
            }
        }
        Ok(TrialEnd { failure: None, tally: Some(tally) })
    }

    /// Counts a load that was the load asked for.
    fn keep_load(
        &mut self,
        case: &Arc<Case>,
        workload: &Workload,
        rows: KeptRows<'_>,
        (busy, measured_from): (Option<f64>, Option<Duration>),
    ) -> io::Result<TrialEnd> {
        let mut all = GatheredRequests::new(workload, &self.storage);
        let mut parts = GatheredRequests::of_parts(workload, &self.storage);
        let mut cache = CacheTally::default();
        let mut times: Option<(Timestamp, Timestamp)> = None;
        for row in rows {
            let row = row?;
            self.store_again(&row)?;
            let (started, ended) = (row.started, end_of(&row));
            let (first, last) = times.unwrap_or((started, ended));
            times = Some((first.min(started), last.max(ended)));
            let span = span(&row);
            gathered::add_to_part(&mut parts, &row, span, measured_from);
            all.add(&row, span, measured_from);
            if let (Ok(sample), Some(place)) = (&row.outcome, row.place) {
                cache.add(traced_lengths(case, place.request), sample);
            }
        }
        let (stats, measured) = all.measure(busy, None);
        let parts = gathered::measure_parts(parts, busy, &measured);
        let (Some(stats), Some(times)) = (stats, times) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let tally = measured.map_err(io::Error::other)?.tally;
        let cache = workload.trace.as_ref().and_then(|_| cache.share());
        let stats = LoadStats { cache, ..stats };
        let stats = LoadStats {
            machine: case.target.machine,
            energy: case.target.power_url.is_some().then(|| Err(NoEnergy::of_kept_load())),
            ..stats
        };
        let outcome = Ok((tally, stats.clone()));
        let row = LoadRow::of(case, workload, Some(stats), None);
        self.observer.event(Event::Load { row: &row }).map_err(io::Error::other)?;
        self.end_parts(case, workload, parts, &outcome).map_err(io::Error::other)?;
        if let Ok((tally, stats)) = &outcome {
            self.trials.push(TrialResult::load(case, times, Some(stats), None));
            self.end_trial(case, Ok(TrialOutcome::Load { workload, tally, stats }));
        }
        self.summary.add_load(case.group.id, outcome, false);
        Ok(TrialEnd { failure: None, tally: None })
    }

    /// Has observers store the row in the files of this run.
    fn store_again(&mut self, row: &Row) -> io::Result<()> {
        let name = &row.case.name;
        let event = Event::Request { row, recording: None, name, redactor: None };
        self.observer.event(event).map_err(io::Error::other)
    }
}

/// Returns when the measured part of a kept load began.
fn measured_from(kept: &mut dyn KeptTrials, case: &Arc<Case>) -> Option<Duration> {
    let phases = case.task.workload()?.phases;
    phases.measured_from().or_else(|| {
        let starts = kept.rows(case)?.filter_map(|row| Some(row.ok()?.place?.begun));
        phases.measured_after(starts)
    })
}

/// Returns the end of a request by the wall clock.
fn end_of(row: &Row) -> Timestamp {
    let took = row.outcome.as_ref().map(|sample| sample.end).unwrap_or_default();
    let took = SignedDuration::try_from(took).unwrap_or_default();
    row.started.checked_add(took).unwrap_or(row.started)
}

/// Returns the span of a request of a load.
fn span(row: &Row) -> RequestSpan {
    let place = row.place;
    let sample = row.outcome.as_ref().ok();
    RequestSpan {
        scheduled: place.and_then(|place| place.scheduled),
        begun: place.map(|place| place.begun).unwrap_or_default(),
        ended: place.map(|place| place.ended).unwrap_or_default(),
        tokens: sample.map(|sample| sample.items.unwrap_or(sample.response_tokens)),
        has_items: sample.is_some_and(|sample| sample.items.is_some()),
        refused: sample.and_then(|sample| sample.refused(CountKind::Response)),
        is_good: row.case.group.goodput.are_met(&row.outcome),
    }
}
