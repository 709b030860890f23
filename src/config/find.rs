//! `find` of a workload: a search for the highest load that holds its limits.

use llm_stream_core::{
    capacity::MAX_LOADS,
    schedule::{ArrivalProcess, Gaps, Shape},
};
use serde_saphyr::Spanned;

use super::{
    keys::Section,
    model,
    reader::{Entry, Reader},
    workloads::{gaps, in_flight, rate},
};

/// What `max` names, and whether it is a number of requests at a time.
pub(super) const LOADS: [(&str, bool); 2] = [("rate", false), ("concurrency", true)];

/// `find` of a workload.
#[derive(Debug, Clone)]
pub struct FindConfig {
    /// `max`: whether the load is a number of requests at a time, otherwise a rate.
    pub is_concurrency: bool,
    /// The first load: `from`, with `arrivals`, `seed` and `max_in_flight`.
    pub first: Shape,
    /// `from`: the lowest load.
    pub from: f64,
    /// `to`: the highest load.
    pub to: f64,
    /// `subject_to`: the limits that hold.
    pub subject_to: Vec<Spanned<String>>,
    /// `precision` of the result, as a share.
    pub precision: f64,
    /// `loads`: the most loads of a search.
    pub loads: usize,
}

/// The highest loads that a search tries without `to`.
const TO_RATE: f64 = 1_000.0;
const TO_CONCURRENCY: f64 = 1_024.0;

/// Reads `find`.
pub(super) fn find(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<FindConfig> {
    let fields = reader.fields(entry, Section::Find);
    let help = "for example find: { max: rate, subject_to: [\"ttft p95 <= 500 ms\"] }";
    for name in ["max", "subject_to"] {
        if fields.get(name).is_none() && fields.meant.is_empty() {
            reader.error(entry, format!("{} has no `{name}`", entry.label), help);
        }
    }
    let max = fields.get("max").and_then(|entry| reader.word(entry, &LOADS));
    let limits = fields.get("subject_to");
    let limits = limits.map(|entry| model::thresholds(reader, entry)).unwrap_or_default();
    let precision =
        fields.get("precision").map(|entry| model::share(reader, entry, entry.example()));
    let loads = fields.get("loads").map(|entry| reader.whole(entry));
    let arrivals = fields.get("arrivals").map(|entry| gaps(reader, entry));
    let seed = fields.get("seed").map(|entry| reader.whole(entry));
    let most = fields.get("max_in_flight").map(|entry| in_flight(reader, entry));
    let is_concurrency = max?;
    for entry in ["arrivals", "seed", "max_in_flight"].into_iter().filter_map(|of| fields.get(of)) {
        if is_concurrency {
            let what = format!("{} cannot be combined with `max: concurrency`", entry.label);
            reader.error_at_key(entry, what, "it is for a search of a rate; remove it");
        }
    }
    let mut end = |name: &str, default: f64| match fields.get(name) {
        Some(entry) if is_concurrency => reader.whole(entry).map(|whole| whole as f64),
        Some(entry) => rate(reader, entry),
        None => Some(default),
    };
    let (from, to) = match is_concurrency {
        true => (end("from", 1.0), end("to", TO_CONCURRENCY)),
        false => (end("from", 1.0), end("to", TO_RATE)),
    };
    let (from, to) = (from?, to?);
    if from >= to {
        let what = format!("{} ends before it begins", entry.label);
        let help = format!("`from` ({from}) is the lowest load, `to` ({to}) the highest one");
        reader.error(entry, what, help);
    }
    let gaps = arrivals.unwrap_or(Some(Gaps::Poisson))?;
    let arrivals = ArrivalProcess { rate: from, gaps, seed: seed.unwrap_or(Some(0))? };
    let max_in_flight = most.unwrap_or(Some(1_000))?;
    let first = match is_concurrency {
        true => Shape::Closed { concurrency: from as usize },
        false => Shape::Open { arrivals, max_in_flight },
    };
    Some(FindConfig {
        is_concurrency,
        first,
        from,
        to,
        subject_to: limits,
        precision: precision.unwrap_or(Some(0.05))?,
        loads: loads
            .unwrap_or(Some(MAX_LOADS as u64))
            .and_then(|loads| usize::try_from(loads).ok())?,
    })
}
