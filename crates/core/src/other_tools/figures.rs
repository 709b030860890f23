//! [`FIGURES`]: every figure of every tool once, with its name there, its formula, and our metric with
//! the same meaning.

use super::{
    OtherTool,
    reasons::{Reason, TimeReasons},
    times::{RequestTimes, TokenRule, WithoutToken, seconds},
};
use crate::{metric::Metric, sample::Sample};

/// A figure by the definition of a tool.
#[derive(Debug, Clone, Copy)]
pub struct ToolFigure {
    /// The tool.
    pub tool: OtherTool,
    /// The name in the tool's output.
    pub name: &'static str,
    /// Our metric with the same meaning.
    pub metric: &'static Metric,
    /// The formula in words. N is the number of generated tokens.
    pub formula: &'static str,
    /// Whether the tool reports the mean.
    pub has_mean: bool,
    pub(super) value: Value,
}

/// How a value is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// start → first token
    Ttft,
    /// start → end
    E2e,
    /// (end − first token) / (N − 1)
    Tpot,
    /// (last token − first token) / (N − 1)
    TpotToLast,
    /// (last token − start) / N
    TpotFromStart,
    /// 1 / `Tpot`
    SpeedAfterFirst,
    /// The gaps between successive events with a token
    Gaps,
    /// N of all requests / duration of the run
    OutputThroughput,
    /// Requests / duration of the run
    RequestThroughput,
}

/// How a tool computes percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PercentileMethod {
    /// Interpolates linearly between the closest ranks, as NumPy does by default, and as ours.
    Linear,
    /// Takes the value at rank ⌈p · n⌉.
    NearestRank,
    /// Takes the smallest value whose cumulative weight reaches p.
    CumulativeWeight,
}

impl PercentileMethod {
    /// Returns the method in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Linear => "linear between the closest ranks, as ours",
            Self::NearestRank => "the value at rank ⌈p · n⌉",
            Self::CumulativeWeight => "the smallest value whose cumulative weight reaches p",
        }
    }
}

impl OtherTool {
    /// Returns how the tool computes percentiles. It does so from any number of values.
    pub const fn percentiles(self) -> PercentileMethod {
        match self {
            Self::GuideLlm => PercentileMethod::CumulativeWeight,
            Self::EvalScope => PercentileMethod::NearestRank,
            _ => PercentileMethod::Linear,
        }
    }
}

/// Returns a figure of which the tool reports the mean.
const fn figure(
    tool: OtherTool,
    name: &'static str,
    metric: &'static Metric,
    value: Value,
    formula: &'static str,
) -> ToolFigure {
    ToolFigure { tool, name, metric, formula, has_mean: true, value }
}

/// Every figure of every tool, by metric.
pub const FIGURES: &[ToolFigure] = {
    use OtherTool::{AiPerf, EvalScope, GenAiBench, GuideLlm, SglangBenchServing as Sglang};
    use {OtherTool::VllmBenchServe as Vllm, Value as V};
    const TTFT: &Metric = Metric::TTFT;
    const TPOT: &Metric = Metric::TPOT;
    const ITL: &Metric = Metric::ITL;
    const E2E: &Metric = Metric::E2E;
    const SPEED: &Metric = Metric::GENERATION_SPEED;
    const OUTPUT: &Metric = Metric::OUTPUT_THROUGHPUT;
    const REQUESTS: &Metric = Metric::REQUEST_THROUGHPUT;
    &[
        figure(
            Vllm,
            "TTFT",
            TTFT,
            V::Ttft,
            "sending → first event with text, `reasoning` or a tool call, or with an empty text and \
             no role",
        ),
        figure(
            Sglang,
            "TTFT",
            TTFT,
            V::Ttft,
            "sending → first event with text or reasoning; 0 without one",
        ),
        figure(
            AiPerf,
            "TTFT",
            TTFT,
            V::Ttft,
            "sending → first event with text, reasoning or a tool call",
        ),
        figure(
            GuideLlm,
            "TTFT",
            TTFT,
            V::Ttft,
            "first byte of the request → first event with text, reasoning or a tool call",
        ),
        figure(
            EvalScope,
            "TTFT",
            TTFT,
            V::Ttft,
            "sending → first event with text, reasoning or a tool call",
        ),
        figure(
            GenAiBench,
            "ttft",
            TTFT,
            V::Ttft,
            "sending → first event with text or reasoning, or the usage without one",
        ),
        figure(Vllm, "TPOT", TPOT, V::Tpot, "(E2EL − TTFT) / (N − 1), for N > 1"),
        figure(Sglang, "TPOT", TPOT, V::Tpot, "(E2E latency − TTFT) / (N − 1), for N > 1"),
        figure(
            AiPerf,
            "ITL",
            TPOT,
            V::Tpot,
            "(Req Latency − TTFT) / (N − 1); with --per-chunk-usage / (N − tokens \
             in the first event), as ours",
        ),
        figure(
            GuideLlm,
            "ITL",
            TPOT,
            V::TpotToLast,
            "(last token − first token) / (N − 1), each request weighted by N − 1",
        ),
        figure(
            GuideLlm,
            "TPOT",
            TPOT,
            V::TpotFromStart,
            "(last token − sending) / N, each request weighted by N",
        ),
        figure(EvalScope, "TPOT", TPOT, V::Tpot, "(Latency − TTFT) / (N − 1), for N > 1"),
        figure(
            GenAiBench,
            "tpot",
            TPOT,
            V::Tpot,
            "(e2e_latency − ttft) / (N − 1); omitted if that time is below 1 ms",
        ),
        figure(
            Vllm,
            "ITL",
            ITL,
            V::Gaps,
            "gaps between successive events that count as a token, of all requests together",
        ),
        figure(
            Sglang,
            "ITL",
            ITL,
            V::Gaps,
            "gaps between successive events with text or reasoning, of all requests together",
        ),
        figure(
            AiPerf,
            "ICL",
            ITL,
            V::Gaps,
            "gaps between successive events with text, reasoning or a tool call, of all requests \
             together",
        ),
        figure(
            EvalScope,
            "ITL",
            ITL,
            V::Gaps,
            "gaps between successive events with text, reasoning or a tool call, of all requests \
             together",
        ),
        figure(Vllm, "E2EL", E2E, V::E2e, "sending → last event that counts as a token"),
        figure(
            Sglang,
            "E2E latency",
            E2E,
            V::E2e,
            "sending → last event of any kind, such as [DONE]",
        ),
        figure(
            AiPerf,
            "Req Latency",
            E2E,
            V::E2e,
            "sending → last event with text, reasoning or a tool call",
        ),
        figure(
            GuideLlm,
            "Request Latency",
            E2E,
            V::E2e,
            "first byte of the request → [DONE], or the end of the stream",
        ),
        figure(
            EvalScope,
            "Latency",
            E2E,
            V::E2e,
            "sending → last event with JSON, such as the usage",
        ),
        figure(
            GenAiBench,
            "e2e_latency",
            E2E,
            V::E2e,
            "sending → usage after the finish reason, or [DONE]",
        ),
        figure(AiPerf, "Output TPS/User", SPEED, V::SpeedAfterFirst, "1 / ITL"),
        ToolFigure {
            has_mean: false,
            ..figure(
                EvalScope,
                "Decode tok/s",
                SPEED,
                V::SpeedAfterFirst,
                "1 / TPOT; only percentiles are reported",
            )
        },
        figure(GenAiBench, "inference speed", SPEED, V::SpeedAfterFirst, "1 / tpot"),
        figure(
            Vllm,
            "output tok/s",
            OUTPUT,
            V::OutputThroughput,
            "N of all requests / time from the first start to the end of the last stream",
        ),
        figure(
            Sglang,
            "output tok/s",
            OUTPUT,
            V::OutputThroughput,
            "N of all requests / time from the first start to the end of the last stream",
        ),
        figure(
            AiPerf,
            "Output TPS",
            OUTPUT,
            V::OutputThroughput,
            "N of all requests / time from the first start to the last event with a token",
        ),
        figure(
            GuideLlm,
            "Output Tok/s",
            OUTPUT,
            V::OutputThroughput,
            "N of all requests / time from the first start to the last end of a request",
        ),
        figure(
            EvalScope,
            "Output tok/s",
            OUTPUT,
            V::OutputThroughput,
            "N of all requests / time from the first start to the last end of a request",
        ),
        figure(
            GenAiBench,
            "output tok/s",
            OUTPUT,
            V::OutputThroughput,
            "N of all requests / duration of the run",
        ),
        figure(
            Vllm,
            "requests/s",
            REQUESTS,
            V::RequestThroughput,
            "requests / time from the first start to the end of the last stream",
        ),
        figure(
            Sglang,
            "requests/s",
            REQUESTS,
            V::RequestThroughput,
            "requests / time from the first start to the end of the last stream",
        ),
        figure(
            AiPerf,
            "Req/sec",
            REQUESTS,
            V::RequestThroughput,
            "requests / time from the first start to the last event with a token",
        ),
        figure(
            GuideLlm,
            "Requests/s",
            REQUESTS,
            V::RequestThroughput,
            "requests / time from the first start to the last end of a request",
        ),
        figure(
            EvalScope,
            "Req/s",
            REQUESTS,
            V::RequestThroughput,
            "requests / time from the first start to the last end of a request",
        ),
        figure(
            GenAiBench,
            "requests/s",
            REQUESTS,
            V::RequestThroughput,
            "requests / duration of the run",
        ),
    ]
};

/// The shortest time after the first token from which genai-bench computes a `tpot`.
const GENAI_SHORTEST: f64 = 0.001;

impl ToolFigure {
    /// Returns the value for one request; `None` if the tool reports none, or if the figure is not one
    /// value for each request.
    pub fn of(&self, sample: &Sample) -> Option<f64> {
        self.value(sample, RequestTimes::of(sample, self.tool.rules()))
    }

    pub(super) fn value(&self, sample: &Sample, times: RequestTimes) -> Option<f64> {
        let tokens = sample.response_tokens;
        let per_token = |from, to| {
            let divisor = tokens.checked_sub(1).filter(|tokens| *tokens > 0)?;
            Some(seconds(from, to) / divisor as f64)
        };
        match self.value {
            Value::Ttft => Some(seconds(times.start, times.first?)),
            Value::E2e => {
                let has_failed = times.first.is_none()
                    && self.tool.rules().without_token == WithoutToken::Failure;
                (!has_failed).then(|| seconds(times.start, times.end))
            }
            Value::Tpot | Value::SpeedAfterFirst => {
                let first = times.first?;
                let is_omitted = self.tool == OtherTool::GenAiBench
                    && seconds(first, times.end) < GENAI_SHORTEST;
                let tpot = per_token(first, times.end).filter(|_| !is_omitted)?;
                match self.value {
                    Value::Tpot => Some(tpot),
                    _ => (tpot > 0.0).then(|| 1.0 / tpot),
                }
            }
            Value::TpotToLast => per_token(times.first?, times.last?),
            Value::TpotFromStart => {
                (tokens > 0).then(|| Some(seconds(times.start, times.last?) / tokens as f64))?
            }
            Value::Gaps | Value::OutputThroughput | Value::RequestThroughput => None,
        }
    }

    /// Returns the gaps of one request; empty if the figure is not made of gaps.
    pub fn gaps(&self, sample: &Sample) -> Vec<f64> {
        let rule = self.tool.rules().tokens;
        match self.value {
            Value::Gaps => gaps(sample, rule),
            _ => Vec::new(),
        }
    }

    /// Returns the weight of a request in the statistics.
    pub(super) fn weight(&self, sample: &Sample) -> f64 {
        match self.value {
            Value::TpotToLast => sample.response_tokens.saturating_sub(1) as f64,
            Value::TpotFromStart => sample.response_tokens as f64,
            _ => 1.0,
        }
    }

    /// Returns whether requests have different weights.
    pub(super) fn is_weighted(&self) -> bool {
        matches!(self.value, Value::TpotToLast | Value::TpotFromStart)
    }

    /// Returns why the value of a request differs from ours; empty if the definitions agree for it.
    pub fn reasons(&self, sample: &Sample) -> Vec<Reason> {
        let rules = self.tool.rules();
        let times = RequestTimes::of(sample, rules);
        self.reasons_at(sample, times, &TimeReasons::of(sample, rules, times))
    }

    pub(super) fn reasons_at(
        &self,
        sample: &Sample,
        times: RequestTimes,
        at: &TimeReasons,
    ) -> Vec<Reason> {
        let theirs = self.value(sample, times).is_some();
        let ours = self.metric.of(sample).is_some();
        match (theirs, ours) {
            (true, false) => return vec![Reason::NotRefused],
            (false, true) if self.has_value() => return vec![Reason::Omitted],
            (false, _) if self.has_value() => return Vec::new(),
            _ => {}
        }
        let [connect, hand_over] = at.start;
        let [hidden, first_event] = at.divisor;
        let found: Vec<Option<Reason>> = match self.value {
            Value::Ttft => vec![connect, hand_over, at.first],
            Value::E2e => vec![connect, hand_over, at.end],
            Value::Tpot => vec![at.first, at.end, hidden, first_event],
            Value::TpotToLast => vec![at.first, at.last, hidden, first_event],
            Value::TpotFromStart => {
                vec![Some(Reason::IncludesFirstToken), connect, hand_over, at.last, hidden]
            }
            Value::SpeedAfterFirst => {
                vec![Some(Reason::TokensAfterFirst), at.first, at.end, at.tokens]
            }
            Value::Gaps => vec![at.first, at.last.or(self.other_gaps(sample))],
            Value::OutputThroughput | Value::RequestThroughput => Vec::new(),
        };
        let mut reasons: Vec<_> = found.into_iter().flatten().collect();
        let mut seen = Vec::new();
        reasons.retain(|reason| {
            !seen.contains(reason) && {
                seen.push(*reason);
                true
            }
        });
        reasons
    }

    /// Whether the figure is one value for each request.
    fn has_value(&self) -> bool {
        !matches!(self.value, Value::Gaps | Value::OutputThroughput | Value::RequestThroughput)
    }

    /// Returns why the gaps differ from ours, if the first and the last token agree.
    fn other_gaps(&self, sample: &Sample) -> Option<Reason> {
        let rule = self.tool.rules().tokens;
        let mut events = sample.events();
        let other =
            events.find(|(_, contents)| rule.counts(*contents) != TokenRule::Any.counts(*contents));
        other.map(|(_, contents)| rule.reason(contents))
    }
}

/// Returns the gaps between successive events that count by `rule`, in seconds.
fn gaps(sample: &Sample, rule: TokenRule) -> Vec<f64> {
    let counted = sample.events().filter(|(_, contents)| rule.counts(*contents));
    let times: Vec<_> = counted.map(|(at, _)| at).collect();
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs_f64()).collect()
}
