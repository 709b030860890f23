//! The lines on stderr that report the progress of a run.

use std::sync::Arc;

use llm_stream_core::{
    load_stats::LoadStats,
    metric::Metric,
    prompt::{Prompt, Synthetic},
    recording::{RequestError, StampedBy},
    sample::Sample,
    summary::Tally,
    synthetic::LengthSearch,
    text::{counted, error_chain},
};

use crate::{
    calibrate::Calibration,
    harness::terminal::Terminal,
    load::NO_TEXT,
    plan::{Case, Target, Task, Workload},
    report::search,
    run::{
        AddedBecause, Event, InstrumentSetting, Observer, ObserverError, TrialOutcome,
        TrialPosition,
    },
};

/// Limit of the prompts that a line names.
const NAMED: usize = 3;

/// Prints a line for each event that has one.
pub(in crate::harness) struct Lines(pub(in crate::harness) Arc<Terminal>);

impl Observer for Lines {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        if let Some(line) = line(event) {
            self.0.err(&line);
        }
        Ok(())
    }
}

/// Returns the line of an event, if it has one.
fn line(event: Event<'_>) -> Option<String> {
    Some(match event {
        Event::PreflightFinding { target, prompts, error, is_certain } => {
            finding((target, prompts), error, is_certain)
        }
        Event::ModelStarted { target } => format!("Testing {}...\n", target.name),
        Event::WarmUpStarted { .. } => "  Warmup...\n".into(),
        Event::WarmUpFinished { outcome } => warm_up(outcome),
        Event::TaskStarted { case, position } => task(case, position),
        Event::RunStarted { position } => format!("    Run {}/{}\n", position.run, position.runs),
        Event::LengthMeasured { prompt, synthetic, counts } => length(prompt, synthetic, counts),
        Event::TurnFinished { number, sample } => {
            format!("      Turn {number}: {}\n", figures(sample))
        }
        Event::TurnWithoutText { number } => {
            let next = number + 1;
            format!(
                "      Turn {number} has no answer text: turn {next} is sent `{NO_TEXT}` for it\n"
            )
        }
        Event::Searched { objective, point } => {
            format!("      {}\n", search::point(objective, point))
        }
        Event::SimulatorLate { shortfall } => format!("      WARNING: {shortfall}\n"),
        Event::ServerMetricsLost { url, reason } => {
            format!("WARNING: no metrics of the server from {url}: {reason}\n")
        }
        Event::TrialFinished { outcome, .. } => return end(outcome),
        Event::PacketsUnseen { target } => packets_unseen(target),
        Event::InstrumentMeasured { calibrations } => {
            calibrations.iter().map(instrument).collect::<String>() + "\n"
        }
        Event::InstrumentUnknown { error } => {
            format!("WARNING: the instrument was not measured: {}\n\n", error_chain(error))
        }
        Event::TrialsAdded { cases, reason } => trials_added(cases.len(), reason),
        Event::TimeOver => "No further run would end within max_time\n".into(),
        _ => return None,
    })
}

fn trials_added(
    trials: usize,
    AddedBecause { is_undecided, is_imprecise, .. }: AddedBecause,
) -> String {
    let why = match (is_undecided, is_imprecise) {
        (true, false) => "thresholds are undecided",
        (false, _) => "intervals are wider than `precision`",
        (true, true) => "thresholds are undecided and intervals are wider than `precision`",
    };
    format!("Continuing, since {why}: {}\n", counted(trials, "more trial"))
}

fn finding(
    (target, prompts): (&Target, Option<&[Arc<Prompt>]>),
    error: &RequestError,
    is_certain: bool,
) -> String {
    let (head, tail) = match is_certain {
        true => ("ERROR", "not run"),
        false => ("WARNING", "run anyway"),
    };
    let trials = match prompts {
        None => "its trials are".to_owned(),
        Some(prompts) => format!("its trials with {} are", names(prompts)),
    };
    format!("{head}: {}: {}: {}; {trials} {tail}\n", target.name, error.kind, error.message)
}

fn names(prompts: &[Arc<Prompt>]) -> String {
    let named: Vec<_> =
        prompts.iter().take(NAMED).map(|prompt| format!("`{}`", prompt.name)).collect();
    match prompts.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more prompts", named.join(", ")),
    }
}

fn warm_up(outcome: &Result<Sample, RequestError>) -> String {
    match outcome {
        Ok(sample) if !sample.is_streamed => {
            format!("    Warmup completed: {}\n", whole_figures(sample))
        }
        Ok(sample) => {
            let speed = figure(Metric::GENERATION_SPEED, 1, sample);
            format!("    Warmup completed: {speed} generation tokens/sec\n")
        }
        Err(error) => format!("    Warmup failed: {}: {error}\n", error.kind),
    }
}

fn task(case: &Case, TrialPosition { task, tasks, .. }: TrialPosition) -> String {
    match &case.task {
        Task::Prompt(prompt) => format!("  Prompt {task}/{tasks}: {}\n", prompt.name),
        Task::Workload(workload) => {
            let (name, load) = (&workload.name, workload.load());
            format!("  Workload {task}/{tasks}: {name}: {load}\n")
        }
    }
}

/// Reports the length that the search found for a prompt.
fn length(prompt: &Prompt, synthetic: &Synthetic, counts: &LengthSearch) -> String {
    let mut ends = vec![synthetic.length.least, synthetic.length.most];
    ends.dedup();
    let found: Vec<_> = ends
        .iter()
        .filter_map(|wanted| Some((wanted, counts.nearest(*wanted)?)))
        .map(|(wanted, (words, tokens))| format!("{words} words are {tokens} of {wanted} tokens"))
        .collect();
    let by = match &synthetic.tokenizer {
        Some(tokenizer) => format!("by `{}`, a chat template aside", tokenizer.name()),
        None => format!("by the server's count ({} requests)", counts.len()),
    };
    format!("    Length of {}: {}, {by}\n", prompt.name, found.join(", "))
}

fn end(outcome: TrialOutcome<'_>) -> Option<String> {
    match outcome {
        TrialOutcome::Answer(sample) => Some(format!("      Success: {}\n", figures(sample))),
        TrialOutcome::Load { workload, tally, stats } => Some(load(workload, tally, stats)),
        TrialOutcome::Search { finished, .. } => {
            Some(format!("      Found: {}\n", search::result(finished)))
        }
        TrialOutcome::Failed(message) => Some(format!("      Failed: {message}\n")),
        // Each turn had its own line.
        TrialOutcome::Conversation(_) => None,
    }
}

/// Formats the figures and notes of an answer.
fn figures(sample: &Sample) -> String {
    let mut line = match sample.is_streamed {
        true => streamed_figures(sample),
        false => whole_figures(sample),
    };
    let notes: Vec<_> = sample.noted().map(|(_, words)| words).collect();
    if !notes.is_empty() {
        line.push_str(&format!(" ({})", notes.join(", ")));
    }
    line
}

fn streamed_figures(sample: &Sample) -> String {
    format!(
        "{} total tokens/sec, {} generation tokens/sec, {} preprocess tokens/sec",
        figure(Metric::TOTAL_TOKENS_PER_SECOND, 2, sample),
        figure(Metric::GENERATION_SPEED, 1, sample),
        figure(Metric::PREPROCESS_SPEED, 1, sample),
    )
}

/// Formats the figures of an answer that was not streamed.
fn whole_figures(sample: &Sample) -> String {
    let e2e = Metric::E2E.of(sample).unwrap_or_default();
    let (rate, unit) = match sample.items {
        Some(_) => (Metric::ITEMS_PER_SECOND, "items"),
        None => (Metric::TOTAL_TOKENS_PER_SECOND, "total tokens"),
    };
    format!("{} {unit}/sec, {:.1} ms, not streamed", figure(rate, 2, sample), e2e * 1e3)
}

fn figure(metric: &Metric, digits: usize, sample: &Sample) -> String {
    metric.of(sample).map_or_else(|| "n/a".into(), |value| format!("{value:.digits$}"))
}

fn load(workload: &Workload, tally: &Tally, stats: &LoadStats) -> String {
    let LoadStats { requests, valid, request_throughput, output_throughput, concurrency, .. } =
        stats;
    let kinds: Vec<_> = tally.failures.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    let done = match tally.failed() {
        0 => format!("Success: {}", counted(*requests, "request")),
        failed => {
            let kinds = kinds.join(", ");
            format!("Finished: {valid} of {requests} requests succeeded, {failed} failed ({kinds})")
        }
    };
    let offered = match (workload.shape.asked_rate(), stats.request_rate) {
        // Each arrival starts a conversation, which has several requests.
        (Some(asked), Some(rate))
            if workload.prompts.iter().any(|prompt| !prompt.turns.is_empty()) =>
        {
            format!("{rate:.2} requests/sec started, {asked} arrivals/sec asked for")
        }
        (Some(asked), Some(rate)) => format!("{rate:.2} requests/sec started of {asked}"),
        _ => format!("{concurrency:.1} in flight"),
    };
    let (output, unit) = match stats.item_throughput {
        Some(items) => (Some(items), "items"),
        None => (*output_throughput, "output tokens"),
    };
    let output = output.map_or_else(|| "n/a".into(), |speed| format!("{speed:.1}"));
    format!(
        "      {done}, {output} {unit}/sec, \
         {request_throughput:.2} requests/sec, {offered}\n"
    )
}

fn packets_unseen(target: &Target) -> String {
    format!(
        "WARNING: {}: `stamps: packets` received no packets of the server, or packets that do not match the reads (are \
         addresses translated on the way?): arrivals have one timestamp per read\n\n",
        target.name
    )
}

fn instrument((setting, calibration): &(InstrumentSetting, Calibration)) -> String {
    let Calibration { streams, tls, unix, stamped_by, packets, ttft, gap, generation } =
        calibration;
    let each = match (stamped_by, packets) {
        (StampedBy::Kernel, true) => ", one per packet",
        (StampedBy::Kernel, false) => ", one per read",
        (StampedBy::Program, _) => "",
    };
    let carrier = match (tls, unix) {
        (true, _) => " over TLS",
        (_, true) => " over a unix socket",
        _ => "",
    };
    let streams = match streams {
        1 => String::new(),
        _ if *streams < setting.streams => {
            format!(", {streams} streams at a time, where the load had {}", setting.streams)
        }
        _ => format!(", {streams} streams at a time"),
    };
    format!(
        "instrument ({}{carrier}{streams}), measured in this run: timestamps by the {}{each}; ttft {:+.3} ms, 99 % within {:.3} ms; \
         gaps within {:.3} ms; generation_speed within {:.2} %\n",
        setting.transport.name(),
        stamped_by.name(),
        ttft.median * 1e3,
        ttft.p99 * 1e3,
        gap.p99 * 1e3,
        generation.p99 * 1e2
    )
}
