//! Bencher Metric Format: JSON of benchmark → measure → value with its interval, for `bencher run
//! --adapter json --file FILE`.
//!
//! A group is a benchmark, the mean of a metric is a measure. Measures carry their unit in their name,
//! since the format has no place for it: `ttft (ms)`, whose slug is `ttft-ms`.
//!
//! <https://bencher.dev/docs/reference/bencher-metric-format>

use llm_stream_core::{metric::Metric, summary::Estimate, text::visible_json};
use serde_json::{Map, Value, json};

use super::{Exporter, Run, exported, tracked, tracked_name};

/// The means of the metrics with a better direction.
#[derive(Debug, Clone, Copy)]
pub struct Bencher;

impl Exporter for Bencher {
    fn render(&self, run: &Run) -> String {
        let benchmark = |group| {
            let measures: Map<_, _> = tracked(group, run.confidence).iter().map(measure).collect();
            (!measures.is_empty()).then_some(measures)
        };
        let groups = run.summary.groups.iter();
        let benchmarks: Map<_, _> = groups
            .filter_map(|group| Some((tracked_name(group), Value::from(benchmark(group)?))))
            .collect();
        visible_json(&format!("{:#}\n", Value::from(benchmarks))).into_owned()
    }
}

fn measure((metric, estimate): &(&Metric, Estimate)) -> (String, Value) {
    let (unit, scale) = metric.unit.display();
    let mut measure =
        Map::from_iter([("value".to_owned(), json!(exported(estimate.value * scale)))]);
    if let Ok(Some(interval)) = estimate.interval {
        for (name, bound) in [("lower_value", interval.low), ("upper_value", interval.high)] {
            if bound.is_finite() {
                measure.insert(name.into(), json!(exported(bound * scale)));
            }
        }
    }
    (format!("{} ({unit})", metric.name), measure.into())
}
