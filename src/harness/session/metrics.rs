//! The server's metrics before and after a trial.

use std::sync::Arc;

use anyhow::Context as _;

use super::Session;
use crate::{
    client::Scraper,
    metric::Metric,
    plan::{Access, Case, Target},
    server_metrics::{Beside, Scrape},
    statistic::Statistic,
};

/// Reads the metrics of one server, until that fails once.
pub(super) struct Meter {
    scraper: Option<Scraper>,
}

impl Meter {
    /// For `target`, if its metrics are to be read.
    pub(super) fn of(target: &Target, access: &Access) -> anyhow::Result<Self> {
        let wanted = target.metrics_url.as_ref();
        let scraper = wanted.map(|wanted| Scraper::new(wanted, access)).transpose();
        Ok(Self { scraper: scraper.context("failed to prepare for the server's metrics")? })
    }
}

impl Session {
    /// The metrics before a trial.
    pub(super) fn metrics_before(&mut self, case: &Case) -> Option<Scrape> {
        let read = self.live.as_ref()?.meter.scraper.as_ref().map(|scraper| {
            self.runtime
                .block_on(scraper.read())
                .map(|text| Scrape::read(&text, &case.target.model))
        })?;
        let read = read.and_then(|scrape| match scrape.is_known() {
            true => Ok(scrape),
            false => Err("none of them is vLLM's, SGLang's or llama.cpp's".into()),
        });
        read.map_err(|error| self.give_up_metrics(&error)).ok()
    }

    /// Keeps what the metrics say of the trial since `before`.
    pub(super) fn keep_metrics(&mut self, case: &Arc<Case>, before: &Scrape) {
        let Some(tally) = self.measured.take() else { return };
        let Some(scraper) = self.live.as_ref().and_then(|live| live.meter.scraper.as_ref()) else {
            return;
        };
        let model = &case.target.model;
        let wanted = before.answered().map(|answered| answered + tally.finished() as f64);
        let holds_all = |text: &str| {
            wanted.is_none_or(|wanted| Scrape::read(text, model).answered() >= Some(wanted))
        };
        match self.runtime.block_on(scraper.read_until(holds_all)) {
            Err(error) => self.give_up_metrics(&error),
            Ok(text) => {
                let requests = tally.finished();
                let mean = |name: &str| {
                    let values = tally.values(Metric::named(name)?);
                    (values.len() == requests).then(|| Statistic::Mean.of(values).ok())?
                };
                let after = Scrape::read(&text, model);
                let beside = Beside::of(before, &after, requests, mean);
                if let Err(error) = self.results.write_server(case, &beside) {
                    self.give_up_metrics(&format!("they cannot be written: {error}"));
                }
                self.summary.add_server(case, beside);
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
