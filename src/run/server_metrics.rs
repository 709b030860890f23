//! The server's metrics before and after a trial.

use std::{collections::HashMap, sync::Arc, thread};

use llm_stream_client::{ClientError, MetricsFetcher};
use llm_stream_core::{
    metric::Metric,
    recording::{ErrorKind, RequestError},
    server_metrics::{ClientMean, MetricComparison, Scrape},
    statistic::Statistic,
    summary::Tally,
    text::error_chain,
};

use super::{Cancellation, Event, Runner, models::ConnectedModel};
use crate::plan::{Access, Case, Target};

/// Reads the metrics of one server, until that fails once.
pub(super) struct ServerMetricsProbe {
    fetcher: Option<Arc<MetricsFetcher>>,
}

impl ServerMetricsProbe {
    /// For `target`, if its metrics are to be read.
    pub(super) fn of(target: &Target, access: &Access) -> Result<Self, RequestError> {
        let wanted = target.metrics_url.as_ref();
        let fetcher = wanted.map(|wanted| MetricsFetcher::new(wanted, access)).transpose();
        let failed = |error: ClientError| {
            let message =
                format!("failed to prepare for the server's metrics: {}", error_chain(&error));
            RequestError::new(ErrorKind::Connect, message)
        };
        Ok(Self { fetcher: fetcher.map_err(failed)?.map(Arc::new) })
    }

    /// Returns what reads the metrics, until that failed once.
    pub(super) const fn fetcher(&self) -> Option<&Arc<MetricsFetcher>> {
        self.fetcher.as_ref()
    }

    /// The metrics now, if they can be read.
    fn read(&self, cancellation: &Cancellation) -> Option<String> {
        self.fetcher.as_ref()?.read(cancellation)?.ok()
    }

    /// What the metrics are of: a place and a model there. Several models of the config may be one.
    fn subject(&self, target: &Target) -> Option<Subject> {
        Some((self.fetcher.as_ref()?.url().to_owned(), target.model.clone()))
    }
}

type Subject = (String, String);

/// Of each server and model, what must have been counted by now. A server may count an answer a
/// while after its end. Unless all answers before a trial are known to be counted when it begins,
/// the trial's figures may be those of another request.
#[derive(Default)]
pub(super) struct RequestLedger(HashMap<Subject, LedgerEntry>);

#[derive(Default)]
struct LedgerEntry {
    /// So many answers at least: those at the first look and our own since. `None` before that
    /// look.
    least: Option<f64>,
    /// How many there were at the last look.
    seen: f64,
    /// Whether there are answers of ours that may be counted or not, such as those that failed.
    is_unsure: bool,
}

impl LedgerEntry {
    /// Our own answers since the last look.
    fn add(&mut self, answered: AnswerCount) {
        let AnswerCount { valid, failed } = answered;
        self.least = self.least.map(|least| least + valid as f64);
        self.is_unsure |= failed > 0;
    }

    /// Whether no other answers than these `counted` ones can be on the way, so that no further look
    /// is needed. More than there must be are of other clients, or the late ones that are unsure.
    fn is_settled(&self, counted: Option<f64>) -> bool {
        counted.is_none() || (!self.is_unsure && counted == self.least)
    }

    /// Takes what is `counted` when it has settled, or patience is over. Whether that is all that
    /// must be there.
    fn settle(&mut self, counted: Option<f64>) -> bool {
        let Some(counted) = counted else { return true };
        let began_anew = counted < self.seen;
        let is_all = !began_anew && self.least.is_none_or(|least| counted >= least);
        self.seen = counted;
        if is_all || began_anew {
            self.least = Some(counted);
        }
        // Of a server that began anew some may still come.
        self.is_unsure = began_anew || (self.is_unsure && !is_all);
        is_all
    }
}

/// Requests that have ended.
#[derive(Default, Clone, Copy)]
pub(super) struct AnswerCount {
    /// Those that a server counts.
    pub(super) valid: usize,
    /// Those that it may count or not.
    pub(super) failed: usize,
}

impl AnswerCount {
    /// One of which there is a valid answer, or none.
    pub(super) const fn one(is_valid: bool) -> Self {
        Self { valid: is_valid as usize, failed: !is_valid as usize }
    }

    fn of(tally: &Tally) -> Self {
        Self { valid: tally.valid, failed: tally.failed() }
    }
}

/// What the metrics said before a trial.
pub(super) struct Before {
    scrape: Scrape,
    /// Whether earlier answers may not have been counted yet.
    is_late: bool,
}

impl Runner<'_> {
    /// Looks at all metrics before anything is asked. What cannot be had now may be later.
    pub(super) fn open_ledger(&mut self) {
        let probes = self.options.accesses.iter().filter_map(|(target, access)| {
            let probe = ServerMetricsProbe::of(target, access).ok()?;
            Some((probe.subject(target)?, probe))
        });
        let probes: Vec<_> = probes.collect();
        let cancellation = &self.options.cancellation;
        let read: Vec<_> = thread::scope(|scope| {
            let read = |probe| move || ServerMetricsProbe::read(probe, cancellation);
            let reading: Vec<_> =
                probes.iter().map(|(_, probe)| scope.spawn(read(probe))).collect();
            reading.into_iter().map(|reading| reading.join().unwrap_or_default()).collect()
        });
        for ((subject, _), text) in probes.into_iter().zip(read) {
            let counted = text.and_then(|text| Scrape::read(&text, &subject.1).answered());
            let entry = self.ledger.0.entry(subject).or_default();
            // The first of several looks was before all that was asked.
            entry.least = [entry.least, counted].into_iter().flatten().reduce(f64::min);
        }
    }

    /// The same of the live model, where it has not been done.
    pub(super) fn open_ledger_entry(&mut self) {
        let Some((fetcher, subject)) = self.models.active.as_ref().and_then(metered) else {
            return;
        };
        let entry = self.ledger.0.entry(subject.clone()).or_default();
        if entry.least.is_none()
            && let Some(Ok(text)) = fetcher.read(&self.options.cancellation)
        {
            entry.least = Scrape::read(&text, &subject.1).answered();
        }
    }

    /// Notes requests of the live model, besides those of its trials.
    pub(super) fn count(&mut self, answered: AnswerCount) {
        if let Some((_, subject)) = self.models.active.as_ref().and_then(metered) {
            self.ledger.0.entry(subject).or_default().add(answered);
        }
    }

    /// Notes the requests of `target` before the first trial.
    pub(super) fn count_preflight(
        &mut self,
        target: &Target,
        access: &Access,
        answered: AnswerCount,
    ) {
        let subject =
            ServerMetricsProbe::of(target, access).ok().and_then(|probe| probe.subject(target));
        if let Some(subject) = subject {
            self.ledger.0.entry(subject).or_default().add(answered);
        }
    }

    /// The metrics before a trial, as soon as all earlier answers are counted.
    pub(super) fn metrics_before(&mut self) -> Option<Before> {
        let (fetcher, subject) = self.models.active.as_ref().and_then(metered)?;
        let entry = self.ledger.0.entry(subject.clone()).or_default();
        let read = |text: &str| Scrape::read(text, &subject.1);
        let is_settled = |text: &str| entry.is_settled(read(text).answered());
        let text = fetcher.read_until(is_settled, &self.options.cancellation)?;
        let scrape = text.and_then(|text| match read(&text) {
            scrape if scrape.is_known() => Ok(scrape),
            _ => Err("none of them is vLLM's, SGLang's or llama.cpp's".into()),
        });
        match scrape {
            Ok(scrape) => Some(Before { is_late: !entry.settle(scrape.answered()), scrape }),
            Err(error) => {
                self.give_up_metrics(&error);
                None
            }
        }
    }

    /// Keeps what the metrics say of the trial since `before`.
    pub(super) fn compare_metrics(
        &mut self,
        case: &Arc<Case>,
        before: &Before,
        tally: Option<&Tally>,
    ) {
        let Some((fetcher, subject)) = self.models.active.as_ref().and_then(metered) else {
            return;
        };
        let entry = self.ledger.0.entry(subject).or_default();
        let Some(tally) = tally else {
            entry.is_unsure = true;
            return;
        };
        entry.add(AnswerCount::of(tally));
        let (requests, model) = (tally.finished(), &case.target.model);
        let wanted = before.scrape.answered().map(|answered| answered + requests as f64);
        let holds_all = |scrape: &Scrape| wanted.is_none_or(|all| scrape.answered() >= Some(all));
        let is_there = |text: &str| holds_all(&Scrape::read(text, model));
        match fetcher.read_until(is_there, &self.options.cancellation) {
            None => {}
            Some(Err(error)) => self.give_up_metrics(&error),
            Some(Ok(text)) => {
                let after = Scrape::read(&text, model);
                if !before.is_late && holds_all(&after) {
                    entry.settle(after.answered());
                }
                let before = (&before.scrape, before.is_late);
                let comparison =
                    MetricComparison::of(before, &after, requests, |metric| ours(tally, metric));
                let event = Event::ServerMetrics { case, comparison: &comparison };
                if let Err(error) = self.observer.event(event) {
                    self.give_up_metrics(&format!(
                        "they cannot be written: {}",
                        error_chain(&*error)
                    ));
                }
                self.summary.add_server(case.group.id, comparison);
            }
        }
    }

    /// Reads no more metrics of the active model's server; trials go on without them.
    fn give_up_metrics(&mut self, why: &str) {
        let Some(model) = &mut self.models.active else { return };
        if let Some(fetcher) = model.metrics.fetcher.take() {
            let reason = model.client.redactor().redact(why);
            let _ = self
                .observer
                .event(Event::ServerMetricsLost { url: fetcher.url(), reason: &reason });
        }
    }
}

/// Our figure `metric` of a trial, where all requests that can have it do: others are in the server's.
fn ours(tally: &Tally, metric: &Metric) -> Option<ClientMean> {
    let (values, requests) = match metric == Metric::TPOT {
        true => (tally.per_token.load(), tally.several_tokens),
        false => (tally.values(metric), tally.valid),
    };
    let is_whole = tally.failed() == 0 && values.len() == requests;
    is_whole.then(|| Some(ClientMean { mean: Statistic::Mean.of(&values).ok()?, requests }))?
}

/// The fetcher of the model's metrics, if they are read, and what they are of.
fn metered(model: &ConnectedModel) -> Option<(&MetricsFetcher, Subject)> {
    Some((model.metrics.fetcher.as_ref()?, model.metrics.subject(&model.target)?))
}
