//! The server's metrics before and after a trial.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use futures_util::future;
use llm_stream_client::MetricsFetcher;
use llm_stream_core::{
    metric::Metric,
    server_metrics::{MetricComparison, Ours, Scrape},
    statistic::Statistic,
    summary::Tally,
};

use super::{Live, Session};
use crate::plan::{Access, Case, Target};

/// Reads the metrics of one server, until that fails once.
pub(super) struct ServerMetricsProbe {
    scraper: Option<MetricsFetcher>,
}

impl ServerMetricsProbe {
    /// For `target`, if its metrics are to be read.
    pub(super) fn of(target: &Target, access: &Access) -> anyhow::Result<Self> {
        let wanted = target.metrics_url.as_ref();
        let scraper = wanted.map(|wanted| MetricsFetcher::new(wanted, access)).transpose();
        Ok(Self { scraper: scraper.context("failed to prepare for the server's metrics")? })
    }

    /// What the metrics are of: a place and a model there. Several models of the config may be one.
    fn subject(&self, target: &Target) -> Option<Subject> {
        Some((self.scraper.as_ref()?.url().to_owned(), target.model.clone()))
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
    fn add(&mut self, answered: Answered) {
        let Answered { valid, failed } = answered;
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
pub(super) struct Answered {
    /// Those that a server counts.
    pub(super) valid: usize,
    /// Those that it may count or not.
    pub(super) failed: usize,
}

impl Answered {
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

impl Session {
    /// Looks at all metrics before anything is asked. What cannot be had now may be later.
    pub(super) fn open_books(&mut self) {
        let meters = self.accesses.iter().filter_map(|(target, access)| {
            let meter = ServerMetricsProbe::of(target, access).ok()?;
            Some((meter.subject(target)?, meter))
        });
        let meters: Vec<_> = meters.collect();
        let reading = meters.iter().filter_map(|(_, meter)| Some(meter.scraper.as_ref()?.read()));
        let reading = self.interrupt.or(future::join_all(reading));
        let Some(read) = self.runtime.block_on(reading) else { return };
        for ((subject, _), text) in meters.into_iter().zip(read) {
            let counted = text.ok().and_then(|text| Scrape::read(&text, &subject.1).answered());
            let book = self.books.0.entry(subject).or_default();
            // The first of several looks was before all that was asked.
            book.least = [book.least, counted].into_iter().flatten().reduce(f64::min);
        }
    }

    /// The same of the live model, where it has not been done.
    pub(super) fn open_book(&mut self) {
        let Some((scraper, subject)) = self.live.as_ref().and_then(metered) else { return };
        let book = self.books.0.entry(subject.clone()).or_default();
        if book.least.is_none()
            && let Some(Ok(text)) = self.runtime.block_on(self.interrupt.or(scraper.read()))
        {
            book.least = Scrape::read(&text, &subject.1).answered();
        }
    }

    /// Notes requests of the live model, besides those of its trials.
    pub(super) fn count(&mut self, answered: Answered) {
        if let Some((_, subject)) = self.live.as_ref().and_then(metered) {
            self.books.0.entry(subject).or_default().add(answered);
        }
    }

    /// Notes the requests of `target` before the first trial.
    pub(super) fn count_preflight(&mut self, target: &Target, access: &Access, answered: Answered) {
        let subject =
            ServerMetricsProbe::of(target, access).ok().and_then(|meter| meter.subject(target));
        if let Some(subject) = subject {
            self.books.0.entry(subject).or_default().add(answered);
        }
    }

    /// The metrics before a trial, as soon as all earlier answers are counted.
    pub(super) fn metrics_before(&mut self) -> Option<Before> {
        let (scraper, subject) = self.live.as_ref().and_then(metered)?;
        let book = self.books.0.entry(subject.clone()).or_default();
        let read = |text: &str| Scrape::read(text, &subject.1);
        let reading = scraper.read_until(|text| book.is_settled(read(text).answered()));
        let text = self.runtime.block_on(self.interrupt.or(reading))?;
        let scrape = text.and_then(|text| match read(&text) {
            scrape if scrape.is_known() => Ok(scrape),
            _ => Err("none of them is vLLM's, SGLang's or llama.cpp's".into()),
        });
        match scrape {
            Ok(scrape) => Some(Before { is_late: !book.settle(scrape.answered()), scrape }),
            Err(error) => {
                self.give_up_metrics(&error);
                None
            }
        }
    }

    /// Keeps what the metrics say of the trial since `before`.
    pub(super) fn keep_metrics(&mut self, case: &Arc<Case>, before: &Before) {
        let Some((scraper, subject)) = self.live.as_ref().and_then(metered) else { return };
        let book = self.books.0.entry(subject).or_default();
        let Some(tally) = self.measured.take() else {
            book.is_unsure = true;
            return;
        };
        book.add(Answered::of(&tally));
        let (requests, model) = (tally.finished(), &case.target.model);
        let wanted = before.scrape.answered().map(|answered| answered + requests as f64);
        let holds_all = |scrape: &Scrape| wanted.is_none_or(|all| scrape.answered() >= Some(all));
        let reading = scraper.read_until(|text| holds_all(&Scrape::read(text, model)));
        match self.runtime.block_on(self.interrupt.or(reading)) {
            None => {}
            Some(Err(error)) => self.give_up_metrics(&error),
            Some(Ok(text)) => {
                let after = Scrape::read(&text, model);
                if !before.is_late && holds_all(&after) {
                    book.settle(after.answered());
                }
                let before = (&before.scrape, before.is_late);
                let comparison =
                    MetricComparison::of(before, &after, requests, |name| ours(&tally, name));
                if let Err(error) = self.results.write_server(case, &comparison) {
                    self.give_up_metrics(&format!("they cannot be written: {error}"));
                }
                self.summary.add_server(case.group.id, comparison);
            }
        }
    }

    /// Says in one line why there are no more metrics; trials go on without them.
    fn give_up_metrics(&mut self, why: &str) {
        let Some(live) = &mut self.live else { return };
        if let Some(scraper) = live.meter.scraper.take() {
            let why = live.client.secrets().hidden_in(why);
            let url = scraper.url();
            self.terminal.err(&format!("WARNING: no metrics of the server from {url}: {why}\n"));
        }
    }
}

/// Our figure `name` of a trial, where all requests that can have it do: others are in the server's.
fn ours(tally: &Tally, name: &str) -> Option<Ours> {
    let (values, requests) = match name {
        "tpot" => (tally.per_token.as_slice(), tally.several_tokens),
        _ => (tally.values(Metric::named(name)?), tally.valid),
    };
    let is_whole = tally.failed() == 0 && values.len() == requests;
    is_whole.then(|| Some(Ours { mean: Statistic::Mean.of(values).ok()?, requests }))?
}

/// Where the metrics of the live model come from, if they are read, and of what they are.
fn metered(live: &Live) -> Option<(&MetricsFetcher, Subject)> {
    Some((live.meter.scraper.as_ref()?, live.meter.subject(&live.target)?))
}
