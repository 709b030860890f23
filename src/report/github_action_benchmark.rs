//! The JSON of github-action-benchmark's tools `customBiggerIsBetter` and `customSmallerIsBetter`:
//! a list of name, unit, value, range and extra. The better direction belongs to the tool, not to an
//! entry, so the metrics of each direction have their own file.
//!
//! <https://github.com/benchmark-action/github-action-benchmark#examples>, and the schema
//! `BenchmarkResult` in its `src/extract.ts`.

use llm_stream_core::{
    metric::{Better, Metric, MetricSource},
    summary::{Estimate, Group},
    text::visible_json,
};
use serde_json::{Value, json};

use super::{Exporter, Run, exported, number, tracked, tracked_name};

/// The means of the metrics with this better direction.
#[derive(Debug, Clone, Copy)]
pub struct GithubActionBenchmark(pub Better);

impl Exporter for GithubActionBenchmark {
    fn render(&self, run: &Run) -> String {
        let entries = run.summary.groups.iter().flat_map(|group| {
            let tracked = tracked(group, run.confidence).into_iter();
            let tracked = tracked.filter(|(metric, _)| metric.better == self.0);
            tracked.map(move |(metric, estimate)| entry(group, metric, &estimate))
        });
        visible_json(&format!("{:#}\n", Value::from(entries.collect::<Vec<_>>()))).into_owned()
    }
}

fn entry(group: &Group, metric: &Metric, estimate: &Estimate) -> Value {
    let (unit, scale) = metric.unit.display();
    let extra = match metric.read {
        MetricSource::All => format!("of {} requests", group.tally.finished()),
        MetricSource::Sample(_) | MetricSource::Load(_) => format!("mean, n = {}", estimate.n),
    };
    let mut entry = json!({
        "name": format!("{}: {}", tracked_name(group), metric.name),
        "unit": unit,
        "value": exported(estimate.value * scale),
        "extra": extra,
    });
    if let Ok(Some(interval)) = estimate.interval {
        let [low, high] = [interval.low, interval.high].map(|bound| number(bound * scale));
        entry["range"] = format!("{low} to {high}").into();
    }
    entry
}
