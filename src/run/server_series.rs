//! The server's metrics and the power of its GPUs while a trial runs, read each second.

use std::{sync::Arc, time::Instant};

use llm_stream_client::{MetricsFetcher, MetricsReading, MetricsSampler, Redactor, SamplingTimes};
use llm_stream_core::{
    energy::{Energy, PowerReading, ServerSamples},
    load_stats::LoadStats,
    server_series::{ServerOverTime, ServerState, TimedSample},
};

use super::{Cancellation, begin, models::ConnectedModel};
use crate::plan::{Target, Workload};

/// Reads while a trial runs. When it is dropped, the reading ends.
pub(super) struct ServerSampling {
    /// When it started.
    begun: Instant,
    redactor: Redactor,
    metrics: Option<MetricsSampler<ServerState>>,
    power: Option<MetricsSampler<PowerReading>>,
}

impl ServerSampling {
    /// Starts to read what the config asks for of the server of `model`.
    pub(super) fn start(
        model: &ConnectedModel,
        times: SamplingTimes,
        cancellation: &Cancellation,
    ) -> Self {
        let (metrics, name) = (model.metrics.fetcher(), model.target.model.clone());
        let parse = move |text: &str| ServerState::read(text, &name);
        let begun = begin();
        let start = |fetcher: &Arc<MetricsFetcher>| {
            MetricsSampler::start(fetcher.clone(), times, parse, cancellation.clone())
        };
        let metrics = metrics.map(start);
        let power = model.power.as_ref().map(|fetcher| {
            let (fetcher, observer) = (fetcher.clone(), cancellation.clone());
            MetricsSampler::start(fetcher, times, PowerReading::read, observer)
        });
        Self { begun, redactor: model.client.redactor().clone(), metrics, power }
    }

    /// Ends the reading and returns the samples, with times since `start` or, without it, since the
    /// reading began.
    pub(super) fn end(self, start: Option<Instant>) -> ServerSamples {
        let from = (start.unwrap_or(self.begun), &self.redactor);
        ServerSamples {
            metrics: timed(self.metrics.map(MetricsSampler::end), from),
            power: timed(self.power.map(MetricsSampler::end), from),
        }
    }
}

fn timed<T>(
    readings: Option<Vec<MetricsReading<T>>>,
    (start, redactor): (Instant, &Redactor),
) -> Vec<TimedSample<T>> {
    let since = |at: Instant| match at.checked_duration_since(start) {
        Some(after) => after.as_secs_f64(),
        None => -(start - at).as_secs_f64(),
    };
    let sample = |MetricsReading { at, took, value }| TimedSample {
        at: since(at),
        took: took.as_secs_f64(),
        value: value.map_err(|why| redactor.redact(&why)),
    };
    readings.unwrap_or_default().into_iter().map(sample).collect()
}

/// Returns `stats` of a load with what `samples` say, whose times are relative to its beginning.
pub(super) fn with_server(
    stats: LoadStats,
    samples: &ServerSamples,
    (target, workload): (&Target, &Workload),
) -> LoadStats {
    let mut samples = samples.clone();
    samples.shift(stats.first_start.as_secs_f64());
    let (seconds, machine) = (stats.seconds, target.machine);
    let is_synthetic = workload.trace.is_some()
        || workload.prompts.iter().any(|prompt| prompt.synthetic.is_some());
    let over_time = || ServerOverTime::of(&samples.metrics, seconds, is_synthetic);
    let energy = || Energy::of(&samples.power, seconds, machine.gpus);
    LoadStats {
        machine,
        server: (!samples.metrics.is_empty()).then(over_time),
        energy: target.power_url.is_some().then(energy),
        ..stats
    }
}
