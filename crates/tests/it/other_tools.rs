//! The figures of recorded answers by the definitions of other tools, computed by hand.

use std::{collections::BTreeMap, time::Duration};

use llm_stream_bench::{config::TokenCount, report::definitions::render};
use llm_stream_core::{
    column::Storage,
    metric::{Metric, MetricSource},
    other_tools::{
        Definitions, DefinitionsCollector, FIGURES, FigureTable, LoadPlace, OtherTool, Reason,
        ToolFigure, ToolRow,
    },
    recording::Recording,
    sample::{self, Sample},
};
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use crate::{
    protocol::{Fixture, fixtures},
    streams::{ROLE, STOP, TOKEN, TOOL, read, stream},
};

/// The usage of an answer with `tokens` tokens.
fn usage(tokens: u64) -> String {
    format!(r#"{{"choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":{tokens}}}}}"#)
}

/// The finish chunk of vLLM after an end token, whose text is empty.
fn empty_stop() -> String {
    TOKEN.replace("\"a\"", "\"\"").replace("}]}", r#","finish_reason":"stop"}]}"#)
}

fn figure(tool: OtherTool, name: &str) -> &'static ToolFigure {
    let found = FIGURES.iter().find(|figure| figure.tool == tool && figure.name == name);
    found.unwrap_or_else(|| panic!("no figure {name} of {}", tool.name()))
}

/// Returns the value of a request, in milliseconds or tokens per second to nine digits.
fn of(sample: &Sample, tool: OtherTool, name: &str) -> Option<f64> {
    let figure = figure(tool, name);
    let (_, scale) = figure.metric.unit.display();
    figure.of(sample).map(|value| (value * scale * 1e9).round() / 1e9)
}

fn rounded(value: f64) -> Option<f64> {
    Some((value * 1e9).round() / 1e9)
}

#[test]
fn each_figure_is_the_formula_of_its_tool() {
    // Tokens at 50, 60, 80 and 90 ms. The server counts five, because the end token at 95 ms has no
    // text. The usage comes at 100 ms, `[DONE]` at 103 ms, the end of the body at 104 ms.
    let (stop, five) = (empty_stop(), usage(5));
    let sample = read(&stream(&[
        (10, ROLE),
        (50, TOKEN),
        (60, TOKEN),
        (80, TOKEN),
        (90, TOKEN),
        (95, &stop),
        (100, &five),
        (103, "[DONE]"),
    ]));
    let sample = sample.unwrap();
    let ours = |metric: &Metric| metric.of(&sample).unwrap();
    assert_eq!(ours(Metric::TPOT), 0.040 / 4.0);
    assert_eq!(ours(Metric::E2E), 0.090);
    assert_eq!(ours(Metric::GENERATION_SPEED), 5.0 / 0.040);
    for (tool, name, expected) in [
        // vLLM counts the end token at 95 ms.
        (OtherTool::VllmBenchServe, "TTFT", 50.0),
        (OtherTool::VllmBenchServe, "TPOT", (95.0 - 50.0) / 4.0),
        (OtherTool::VllmBenchServe, "E2EL", 95.0),
        // SGLang ends at `[DONE]`.
        (OtherTool::SglangBenchServing, "TTFT", 50.0),
        (OtherTool::SglangBenchServing, "TPOT", (103.0 - 50.0) / 4.0),
        (OtherTool::SglangBenchServing, "E2E latency", 103.0),
        // AIPerf ends at the last text.
        (OtherTool::AiPerf, "TTFT", 50.0),
        (OtherTool::AiPerf, "ITL", (90.0 - 50.0) / 4.0),
        (OtherTool::AiPerf, "Req Latency", 90.0),
        (OtherTool::AiPerf, "Output TPS/User", 4.0 / 0.040),
        // GuideLLM's TPOT includes the first token, and only its latency ends at `[DONE]`.
        (OtherTool::GuideLlm, "TTFT", 50.0),
        (OtherTool::GuideLlm, "ITL", (90.0 - 50.0) / 4.0),
        (OtherTool::GuideLlm, "TPOT", 90.0 / 5.0),
        (OtherTool::GuideLlm, "Request Latency", 103.0),
        // EvalScope ends at the usage, the last JSON.
        (OtherTool::EvalScope, "TTFT", 50.0),
        (OtherTool::EvalScope, "TPOT", (100.0 - 50.0) / 4.0),
        (OtherTool::EvalScope, "Latency", 100.0),
        (OtherTool::EvalScope, "Decode tok/s", 4.0 / 0.050),
        // So does genai-bench.
        (OtherTool::GenAiBench, "ttft", 50.0),
        (OtherTool::GenAiBench, "tpot", (100.0 - 50.0) / 4.0),
        (OtherTool::GenAiBench, "e2e_latency", 100.0),
        (OtherTool::GenAiBench, "inference speed", 4.0 / 0.050),
    ] {
        assert_eq!(of(&sample, tool, name), rounded(expected), "{} {name}", tool.name());
    }
    // Gaps in milliseconds.
    for (tool, name, expected) in [
        (OtherTool::VllmBenchServe, "ITL", &[10.0, 20.0, 10.0, 5.0][..]),
        (OtherTool::SglangBenchServing, "ITL", &[10.0, 20.0, 10.0]),
        (OtherTool::AiPerf, "ICL", &[10.0, 20.0, 10.0]),
        (OtherTool::EvalScope, "ITL", &[10.0, 20.0, 10.0]),
    ] {
        let gaps = figure(tool, name).gaps(&sample);
        let gaps: Vec<_> = gaps.into_iter().map(|gap| (gap * 1e6).round() / 1e3).collect();
        assert_eq!(gaps, expected, "{} {name}", tool.name());
    }
}

/// Returns the reasons for the differences of a request from ours, by tool and name.
fn reasons(sample: &Sample, tool: OtherTool, name: &str) -> Vec<Reason> {
    figure(tool, name).reasons(sample)
}

#[test]
fn a_difference_has_its_reason() {
    let (stop, five) = (empty_stop(), usage(5));
    let events =
        [(50, TOKEN), (60, TOKEN), (90, TOKEN), (95, &*stop), (100, &five), (103, "[DONE]")];
    let sample = read(&stream(&events)).unwrap();
    for (tool, name, expected) in [
        (OtherTool::VllmBenchServe, "TTFT", &[][..]),
        (OtherTool::VllmBenchServe, "TPOT", &[Reason::EmptyTextIsToken]),
        (OtherTool::VllmBenchServe, "ITL", &[Reason::EmptyTextIsToken]),
        (OtherTool::SglangBenchServing, "TPOT", &[Reason::EndsAtLastEvent]),
        (OtherTool::SglangBenchServing, "ITL", &[]),
        (OtherTool::AiPerf, "ITL", &[]),
        (OtherTool::AiPerf, "Output TPS/User", &[Reason::TokensAfterFirst]),
        (OtherTool::GuideLlm, "ITL", &[]),
        (OtherTool::GuideLlm, "TPOT", &[Reason::IncludesFirstToken]),
        (OtherTool::GuideLlm, "Request Latency", &[Reason::EndsAtEndMarker]),
        (OtherTool::EvalScope, "Latency", &[Reason::EndsAtLastJson]),
        (OtherTool::GenAiBench, "e2e_latency", &[Reason::EndsAtUsage]),
    ] {
        assert_eq!(reasons(&sample, tool, name), expected, "{} {name}", tool.name());
    }
}

#[test]
fn a_request_without_an_end_marker_ends_with_its_last_event_or_its_body() {
    let three = usage(3);
    let stop_with_usage = STOP.replace("]}", r#"],"usage":{"completion_tokens":3}}"#);
    let ends = |events: &[(u64, &str)]| {
        let sample = read(&stream(events)).unwrap();
        [
            (OtherTool::SglangBenchServing, "E2E latency"),
            (OtherTool::GuideLlm, "Request Latency"),
            (OtherTool::EvalScope, "Latency"),
            (OtherTool::GenAiBench, "e2e_latency"),
        ]
        .map(|(tool, name)| of(&sample, tool, name).unwrap())
    };
    let tokens = [(50, TOKEN), (60, TOKEN), (70, TOKEN)];
    let with = |end: &[(u64, &'static str)]| [&tokens[..], end].concat();
    // The body ends one millisecond after the last event.
    let with_usage = [&with(&[(80, STOP)])[..], &[(90, &three)]].concat();
    assert_eq!(ends(&with_usage), [90.0, 91.0, 90.0, 90.0]);
    // The finish reason and the usage in one event end the request for genai-bench.
    let together = [&tokens[..], &[(80, &stop_with_usage), (95, "[DONE]")]].concat();
    assert_eq!(ends(&together), [95.0, 95.0, 80.0, 80.0]);
    // A usage after the end marker is read by EvalScope and SGLang, which read on.
    let late = [&with(&[(80, STOP), (85, "[DONE]")])[..], &[(99, &three)]].concat();
    assert_eq!(ends(&late), [99.0, 85.0, 99.0, 85.0]);
}

#[test]
fn a_tool_call_is_no_token_for_two_tools() {
    let four = usage(4);
    let mixed = read(&stream(&[
        (20, TOOL),
        (30, TOKEN),
        (40, TOKEN),
        (50, TOOL),
        (60, STOP),
        (61, &four),
        (62, "[DONE]"),
    ]));
    let mixed = mixed.unwrap();
    for (tool, name, expected) in [
        (OtherTool::VllmBenchServe, "TTFT", 20.0),
        (OtherTool::SglangBenchServing, "TTFT", 30.0),
        (OtherTool::AiPerf, "TTFT", 20.0),
        (OtherTool::GenAiBench, "ttft", 30.0),
        (OtherTool::SglangBenchServing, "TPOT", (62.0 - 30.0) / 3.0),
        (OtherTool::GenAiBench, "tpot", (61.0 - 30.0) / 3.0),
    ] {
        assert_eq!(of(&mixed, tool, name), rounded(expected), "{} {name}", tool.name());
    }
    assert_eq!(figure(OtherTool::SglangBenchServing, "ITL").gaps(&mixed), [0.010]);
    assert_eq!(reasons(&mixed, OtherTool::SglangBenchServing, "TTFT"), [Reason::ToolCallIsNoToken]);
    // Without any text SGLang reports zero, and genai-bench takes the usage for the first token.
    let alone = [(20, TOOL), (50, TOOL), (60, STOP), (61, &four), (62, "[DONE]")];
    let alone = read(&stream(&alone)).unwrap();
    assert_eq!(of(&alone, OtherTool::SglangBenchServing, "TTFT"), Some(0.0));
    assert_eq!(of(&alone, OtherTool::SglangBenchServing, "TPOT"), rounded(62.0 / 3.0));
    assert_eq!(reasons(&alone, OtherTool::SglangBenchServing, "TTFT"), [Reason::NoTokenIsZero]);
    assert_eq!(of(&alone, OtherTool::GenAiBench, "ttft"), Some(61.0));
    // It omits times below a millisecond.
    assert_eq!(of(&alone, OtherTool::GenAiBench, "tpot"), None);
    assert_eq!(reasons(&alone, OtherTool::GenAiBench, "tpot"), [Reason::Omitted]);
    // A usage that counts a single token is an error there, and so is a stream without usage.
    let one = usage(1);
    let events = [(20, TOOL), (50, TOOL), (60, STOP), (61, &*one), (62, "[DONE]")];
    assert_eq!(of(&read(&stream(&events)).unwrap(), OtherTool::GenAiBench, "ttft"), None);
}

#[test]
fn vllm_reads_reasoning_from_one_field_only() {
    let three = usage(3);
    let thought = |field: &str| TOKEN.replace("content", field);
    let sample = |field: &str, last: &str| {
        let thought = thought(field);
        // The second frame has the form of the first, so that it is read without parsing.
        let events = [(20, &*thought), (30, &*thought.replace("\"a\"", "\"b\"")), (40, last)];
        let end = [(50, STOP), (51, &*three), (52, "[DONE]")];
        read(&stream(&[&events[..], &end].concat())).unwrap()
    };
    let ttft = |sample: &Sample| of(sample, OtherTool::VllmBenchServe, "TTFT");
    assert_eq!(ttft(&sample("reasoning", TOKEN)), Some(20.0));
    let other = sample("reasoning_content", TOKEN);
    assert_eq!(ttft(&other), Some(40.0));
    let reason = [Reason::ReasoningContentIsNoToken];
    assert_eq!(reasons(&other, OtherTool::VllmBenchServe, "TTFT"), reason);
    assert_eq!(reasons(&other, OtherTool::VllmBenchServe, "ITL"), reason);
    // A request of such reasoning alone has failed there.
    let alone = sample("reasoning_content", &thought("reasoning_content"));
    for name in ["TTFT", "TPOT", "E2EL"] {
        assert_eq!(of(&alone, OtherTool::VllmBenchServe, name), None, "{name}");
        assert_eq!(reasons(&alone, OtherTool::VllmBenchServe, name), [Reason::Omitted], "{name}");
    }
    assert_eq!(of(&alone, OtherTool::SglangBenchServing, "TTFT"), Some(20.0));
}

#[test]
fn the_start_is_before_the_connection_and_at_the_hand_over() {
    let three = usage(3);
    let events = [(50, TOKEN), (60, TOKEN), (70, TOKEN), (70, STOP), (70, &*three), (70, "[DONE]")];
    let connected = Recording { connect: Some(Duration::from_millis(7)), ..stream(&events) };
    let sample = read(&connected).unwrap();
    for (tool, name, expected) in [
        (OtherTool::VllmBenchServe, "TTFT", 57.0),
        (OtherTool::SglangBenchServing, "TTFT", 57.0),
        (OtherTool::AiPerf, "TTFT", 57.0),
        (OtherTool::GuideLlm, "TTFT", 50.0),
        (OtherTool::EvalScope, "Latency", 77.0),
        (OtherTool::GenAiBench, "tpot", 10.0),
        (OtherTool::GuideLlm, "TPOT", 70.0 / 3.0),
    ] {
        assert_eq!(of(&sample, tool, name), rounded(expected), "{} {name}", tool.name());
    }
    assert_eq!(reasons(&sample, OtherTool::EvalScope, "TTFT"), [Reason::IncludesConnect]);
    // In an open loop ours count from the scheduled start, 100 ms earlier.
    let lagged = sample.scheduled_before(Duration::from_millis(100));
    assert_eq!(Metric::TTFT.of(&lagged), Some(0.150));
    assert_eq!(of(&lagged, OtherTool::VllmBenchServe, "TTFT"), Some(57.0));
    assert_eq!(of(&lagged, OtherTool::GuideLlm, "Request Latency"), Some(70.0));
    let expected = [Reason::IncludesConnect, Reason::FromHandOver];
    assert_eq!(reasons(&lagged, OtherTool::VllmBenchServe, "E2EL"), expected);
}

#[test]
fn recorded_answers_have_the_figures_of_each_tool() {
    let sample = |name: &str| {
        let is_named = |fixture: &&Fixture| fixture.label() == name;
        let fixtures = fixtures();
        let fixture = fixtures.iter().find(is_named).expect("a recording");
        sample::read(&fixture.recording, fixture.protocol, TokenCount::Usage).unwrap()
    };
    // llama.cpp, 64 tokens by its usage: connection in 1.43 ms, first token at 122.643 ms, last one at
    // 43639.164 ms, usage at 43639.276 ms, `[DONE]` at 43639.312 ms.
    let llama = sample("openai_chat llama-server-chat_usage");
    assert_eq!(Metric::TTFT.of(&llama), Some(0.122_643));
    for (tool, name, expected) in [
        (OtherTool::VllmBenchServe, "TTFT", 122.643 + 1.43),
        (OtherTool::VllmBenchServe, "TPOT", (43_639.164 - 122.643) / 63.0),
        (OtherTool::VllmBenchServe, "E2EL", 43_639.164 + 1.43),
        (OtherTool::SglangBenchServing, "TPOT", (43_639.312 - 122.643) / 63.0),
        (OtherTool::AiPerf, "ITL", (43_639.164 - 122.643) / 63.0),
        (OtherTool::AiPerf, "Output TPS/User", 63.0 / (43.639_164 - 0.122_643)),
        (OtherTool::GuideLlm, "TTFT", 122.643),
        (OtherTool::GuideLlm, "TPOT", 43_639.164 / 64.0),
        (OtherTool::EvalScope, "TPOT", (43_639.276 - 122.643) / 63.0),
        (OtherTool::GenAiBench, "e2e_latency", 43_639.276 + 1.43),
    ] {
        let value = of(&llama, tool, name).unwrap();
        assert!((value - expected).abs() < 1e-8, "{} {name}: {value}", tool.name());
    }
    // vLLM, a tool call alone of 45 tokens: the call from 1532.271919 ms to 2572.392754 ms, the end of
    // everything at 3629.668446 ms; the connection in 0.102031 ms.
    let call = sample("openai_chat vllm-gemma-tool_calls");
    for (tool, name, expected) in [
        (OtherTool::VllmBenchServe, "TPOT", Some((2_572.392_754 - 1_532.271_919) / 44.0)),
        (OtherTool::SglangBenchServing, "TTFT", Some(0.0)),
        (OtherTool::SglangBenchServing, "TPOT", Some((3_629.668_446 + 0.102_031) / 44.0)),
        (OtherTool::EvalScope, "TPOT", Some((3_629.668_446 - 1_532.271_919) / 44.0)),
        (OtherTool::GenAiBench, "ttft", Some(3_629.668_446 + 0.102_031)),
        (OtherTool::GenAiBench, "tpot", None),
    ] {
        let value = of(&call, tool, name);
        let near = |value: f64, expected: f64| (value - expected).abs() < 1e-8;
        let is_right = value.zip(expected).map_or(value == expected, |(v, e)| near(v, e));
        assert!(is_right, "{} {name}: {value:?}", tool.name());
    }
    // llama.cpp's completions end with an empty text at the finish reason, which vLLM counts.
    let completion = sample("openai_completions llama-server-completions_stream");
    assert_eq!(
        reasons(&completion, OtherTool::VllmBenchServe, "E2EL")[1..],
        [Reason::EmptyTextIsToken]
    );
}

// -- many requests --------------------------------------------------------------------------------

fn table(definitions: &Definitions, metric: &'static Metric) -> FigureTable {
    let tables = &definitions.groups[0].tables;
    tables.iter().find(|table| table.metric == metric).expect("the metric").clone()
}

fn row(table: &FigureTable, tool: OtherTool) -> ToolRow {
    table.rows.iter().rev().find(|row| row.tool == tool).expect("a row of the tool").clone()
}

/// An answer of `tokens` tokens, one for each event, from 50 ms on.
fn answer(tokens: u64, gap: u64) -> Sample {
    let last = 50 + (tokens - 1) * gap;
    let usage = usage(tokens);
    let events = (0..tokens).map(|n| (50 + n * gap, TOKEN));
    let end = [(last, STOP), (last, usage.as_str()), (last, "[DONE]")];
    let events: Vec<_> = events.chain(end).collect();
    read(&stream(&events)).unwrap()
}

fn definitions<'a>(
    requests: impl IntoIterator<Item = (Option<LoadPlace>, &'a Sample)>,
) -> Definitions {
    let mut collector = DefinitionsCollector::new(&Storage::default());
    for (place, sample) in requests {
        collector.add("model", place, sample);
    }
    collector.finish()
}

fn near(value: Option<f64>, expected: f64) {
    assert!((value.unwrap() - expected).abs() < 1e-12, "{value:?}, not {expected}");
}

#[test]
fn means_and_percentiles_are_taken_as_each_tool_takes_them() {
    // One request of 11 tokens with gaps of 10 ms, one of 21 tokens with gaps of 40 ms.
    let (short, long) = (answer(11, 10), answer(21, 40));
    let found = definitions([(None, &short), (None, &long)]);
    let tpot = table(&found, Metric::TPOT);
    near(tpot.ours.mean, 0.025);
    near(row(&tpot, OtherTool::VllmBenchServe).theirs.mean, 0.025);
    near(row(&tpot, OtherTool::VllmBenchServe).theirs.p50, 0.025);
    // NumPy's p99 of two values is 99 % of the way from the first to the second.
    near(row(&tpot, OtherTool::VllmBenchServe).theirs.p99, 0.010 + 0.99 * 0.030);
    // The nearest rank of the median is ⌈0.5 · 2⌉ = 1.
    near(row(&tpot, OtherTool::EvalScope).theirs.p50, 0.010);
    near(row(&tpot, OtherTool::EvalScope).theirs.p99, 0.040);
    // GuideLLM weights an ITL by N − 1, which is 10 and 20, and a TPOT by N.
    let guidellm: Vec<_> = tpot.rows.iter().filter(|row| row.tool == OtherTool::GuideLlm).collect();
    near(guidellm[0].theirs.mean, (10.0 * 0.010 + 20.0 * 0.040) / 30.0);
    near(guidellm[0].theirs.p50, 0.040);
    let (first, second) = (0.150 / 11.0, 0.850 / 21.0);
    near(guidellm[1].theirs.mean, (11.0 * first + 21.0 * second) / 32.0);
    assert_eq!(guidellm[0].reasons[0].reason, Reason::WeightedByTokens);
    near(guidellm[0].difference, 0.030 / 0.025 - 1.0);
    // Ten gaps of 10 ms and twenty of 40 ms; ours is the mean of the requests' means.
    let itl = table(&found, Metric::ITL);
    near(itl.ours.mean, 0.025);
    near(row(&itl, OtherTool::AiPerf).theirs.mean, 0.030);
    assert_eq!(row(&itl, OtherTool::AiPerf).theirs.n, 30);
    near(row(&itl, OtherTool::EvalScope).theirs.p50, 0.040);
    assert_eq!(itl.without, [OtherTool::GuideLlm, OtherTool::GenAiBench]);
    // Ours has no p99 of two values.
    assert_eq!((tpot.ours.n, tpot.ours.p50, tpot.ours.p99), (2, Some(0.025), None));
    // EvalScope reports no mean of its decode speed, so the medians are compared.
    let speed = table(&found, Metric::GENERATION_SPEED);
    let decode = row(&speed, OtherTool::EvalScope);
    assert_eq!(decode.theirs.mean, None);
    near(decode.theirs.p50, 25.0);
    near(decode.difference, 25.0 / ((11.0 / 0.1 + 21.0 / 0.8) / 2.0) - 1.0);
    near(row(&speed, OtherTool::GenAiBench).theirs.mean, (100.0 + 25.0) / 2.0);
    assert_eq!(
        speed.without,
        [OtherTool::VllmBenchServe, OtherTool::SglangBenchServing, OtherTool::GuideLlm]
    );
}

#[test]
fn throughput_counts_to_the_end_that_each_tool_takes() {
    let (stop, five) = (empty_stop(), usage(5));
    let tokens = [(50, TOKEN), (60, TOKEN), (80, TOKEN), (90, TOKEN)];
    let end = [(95, &*stop), (100, &five), (103, "[DONE]")];
    let sample = read(&stream(&[&tokens[..], &end].concat())).unwrap();
    let place = |run, at| LoadPlace { run, handed_over: Duration::from_millis(at) };
    // The second request starts 20 ms after the first one, which starts 3 ms after the run.
    let run = |run| [(Some(place(run, 3)), &sample), (Some(place(run, 23)), &sample)];
    let found = definitions(run(1));
    let output = table(&found, Metric::OUTPUT_THROUGHPUT);
    near(output.ours.mean, 10.0 / 0.124);
    for (tool, seconds) in [
        (OtherTool::VllmBenchServe, 0.124),
        (OtherTool::SglangBenchServing, 0.124),
        (OtherTool::AiPerf, 0.110),
        (OtherTool::GuideLlm, 0.123),
        (OtherTool::EvalScope, 0.120),
        (OtherTool::GenAiBench, 0.124),
    ] {
        near(row(&output, tool).theirs.mean, 10.0 / seconds);
        let requests = table(&found, Metric::REQUEST_THROUGHPUT);
        near(row(&requests, tool).theirs.mean, 2.0 / seconds);
    }
    assert_eq!(row(&output, OtherTool::AiPerf).reasons[0].reason, Reason::RunEndsAtLastToken);
    assert_eq!(row(&output, OtherTool::VllmBenchServe).reasons, []);
    // Two equal runs have the same throughput: it is a mean over runs.
    let found = definitions(run(1).into_iter().chain(run(2)));
    let output = table(&found, Metric::OUTPUT_THROUGHPUT);
    near(output.ours.mean, 10.0 / 0.124);
    assert_eq!(output.ours.n, 2);
    // Requests without a load have none.
    let found = definitions([(Some(place(1, 0)), &sample), (None, &sample)]);
    let has_load = |table: &FigureTable| matches!(table.metric.read, MetricSource::Load(_));
    assert!(!found.groups[0].tables.iter().any(has_load));
}

#[test]
fn a_figure_that_ours_refuses_is_reported_by_others() {
    // All tokens in one read: the speed is that of a buffer.
    let four = usage(4);
    let tokens = [(50, TOKEN); 4];
    let burst = [&tokens[..], &[(51, STOP), (51, &four), (51, "[DONE]")]].concat();
    let burst = read(&stream(&burst)).unwrap();
    let found = definitions([(None, &burst)]);
    let speed = table(&found, Metric::GENERATION_SPEED);
    assert_eq!((speed.ours.n, speed.ours.mean), (0, None));
    let genai = row(&speed, OtherTool::GenAiBench);
    near(genai.theirs.mean, 3.0 / 0.001);
    assert_eq!((genai.difference, genai.reasons[0].reason), (None, Reason::NotRefused));
    // AIPerf has no speed of a request without time.
    assert_eq!(row(&speed, OtherTool::AiPerf).theirs.n, 0);
}

#[test]
fn groups_are_kept_apart_in_the_order_of_their_first_request() {
    let (short, long) = (answer(11, 10), answer(21, 40));
    let mut collector = DefinitionsCollector::new(&Storage::default());
    for (name, sample) in [("b", &short), ("a", &long), ("b", &short)] {
        collector.add(name, None, sample);
    }
    let found = collector.finish();
    let groups: Vec<_> =
        found.groups.iter().map(|group| (group.name.as_str(), group.requests)).collect();
    assert_eq!(groups, [("b", 2), ("a", 1)]);
    let json = serde_json::to_value(&found).expect("JSON");
    let row = &json["groups"][0]["tables"][1]["rows"][0];
    assert_eq!((&row["tool"], &row["name"]), (&"vllm_bench_serve".into(), &"TPOT".into()));
    assert_eq!(json["groups"][0]["tables"][1]["metric"], "tpot");
}

// -- any stream -----------------------------------------------------------------------------------

/// Events of an answer in any order, with the times between them.
fn any_events() -> impl Strategy<Value = Vec<(u64, String)>> {
    let empty = TOKEN.replace("\"a\"", "\"\"");
    let counted = TOKEN.replace("]}", r#"],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#);
    let thought = TOKEN.replace("content", "reasoning");
    let other = TOKEN.replace("content", "reasoning_content");
    let kinds = [TOKEN, TOOL, ROLE, &empty, &counted, &thought, &other].map(str::to_owned).to_vec();
    let event = (0..40_u64, proptest::sample::select(kinds));
    let end = (0..40_u64, 0..40_u64, 1..30_u64, any::<bool>(), any::<bool>());
    (proptest::collection::vec(event, 1..12), end).prop_map(move |(events, end)| {
        let (stop, marker, tokens, is_marked, has_empty_stop) = end;
        let mut at = 50;
        let mut found: Vec<_> = events
            .into_iter()
            .map(|(gap, event)| {
                at += gap;
                (at, event)
            })
            .collect();
        let stop_event = if has_empty_stop { empty_stop() } else { STOP.to_owned() };
        found.push((at + stop, stop_event));
        found.push((at + stop + marker, usage(tokens)));
        if is_marked {
            found.push((at + stop + 2 * marker, "[DONE]".to_owned()));
        }
        found
    })
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let connect = proptest::option::of((1..9_u64).prop_map(Duration::from_millis));
    let lag = proptest::option::of((0..9_u64).prop_map(Duration::from_millis));
    (any_events(), connect, lag).prop_filter_map("valid", |(events, connect, lag)| {
        let events: Vec<_> = events.iter().map(|(at, event)| (*at, event.as_str())).collect();
        let sample = read(&Recording { connect, ..stream(&events) }).ok()?;
        Some(match lag {
            Some(lag) => sample.scheduled_before(lag),
            None => sample,
        })
    })
}

proptest! {
    /// Without a reason the value is ours, and a value of ours is missing only for a reason.
    #[test]
    fn every_difference_has_a_reason(sample in any_sample()) {
        for figure in FIGURES {
            let ours = figure.metric.of(&sample);
            let theirs = figure.of(&sample);
            let found = figure.reasons(&sample);
            match (ours, theirs) {
                _ if !found.is_empty() => {}
                (Some(ours), Some(theirs)) => {
                    let near = (ours - theirs).abs() <= 1e-9 * ours.abs();
                    prop_assert!(near, "{} {}: {theirs}, ours {ours}", figure.tool.name(), figure.name);
                }
                (Some(ours), None) if figure.metric == Metric::ITL => {
                    let gaps = figure.gaps(&sample);
                    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
                    let near = (ours - mean).abs() <= 1e-9 * ours;
                    prop_assert!(near, "{} {}: {mean}, ours {ours}", figure.tool.name(), figure.name);
                }
                (ours, theirs) => prop_assert!(theirs.is_none(), "{ours:?} {theirs:?}"),
            }
        }
    }

    /// The pooled gaps are those of the requests, whichever of them the rules share.
    #[test]
    fn pooled_gaps_are_those_of_the_requests(samples in prop::collection::vec(any_sample(), 1..5)) {
        let found = definitions(samples.iter().map(|sample| (None, sample)));
        let itl = table(&found, Metric::ITL);
        for row in &itl.rows {
            let figure = figure(row.tool, row.name);
            let gaps: Vec<_> = samples.iter().flat_map(|sample| figure.gaps(sample)).collect();
            prop_assert_eq!(row.theirs.n, gaps.len());
            let mean = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
            prop_assert!((row.theirs.mean.unwrap_or(0.0) - mean).abs() < 1e-12);
        }
    }
}

#[test]
fn each_tool_has_each_figure_once() {
    let mut seen: BTreeMap<(OtherTool, &str, &Metric), usize> = BTreeMap::new();
    for figure in FIGURES {
        *seen.entry((figure.tool, figure.name, figure.metric)).or_default() += 1;
    }
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    for tool in OtherTool::ALL {
        for metric in [Metric::TTFT, Metric::TPOT, Metric::E2E, Metric::OUTPUT_THROUGHPUT] {
            assert!(
                FIGURES.iter().any(|figure| figure.tool == tool && figure.metric == metric),
                "{} {}",
                tool.name(),
                metric.name
            );
        }
    }
}

// -- as text --------------------------------------------------------------------------------------

#[test]
fn the_tables_show_each_difference_with_its_reason() {
    let (stop, five) = (empty_stop(), usage(5));
    let tokens = [(50, TOKEN), (60, TOKEN), (80, TOKEN), (90, TOKEN)];
    let end = [(95, &*stop), (100, &five), (103, "[DONE]")];
    let with_end_token = read(&stream(&[&tokens[..], &end].concat())).unwrap();
    let place = |at| Some(LoadPlace { run: 1, handed_over: Duration::from_millis(at) });
    let requests = [
        ("small under load", place(3), with_end_token),
        ("small under load", place(23), answer(11, 10)),
        ("large", None, answer(21, 40)),
    ];
    let definitions: Definitions = requests.into_iter().collect();
    let text = render(&definitions);
    let widest = text.lines().map(UnicodeWidthStr::width).max();
    assert!(widest <= Some(80), "{widest:?}");
    insta::assert_snapshot!(text);
}

#[test]
fn without_a_valid_answer_there_is_no_table() {
    let none: Definitions = [("model", None, answer(2, 40))].into_iter().take(0).collect();
    assert!(render(&none).ends_with("\nNo request has a valid answer.\n"));
}

// -- against the tools ----------------------------------------------------------------------------

/// `fixtures/other_tools.json` was made by the request functions of the tools, in the versions of
/// [`OtherTool::version`], which read the recordings piece by piece with a clock that showed the
/// arrival of each piece. `null` stands for a request that the tool took for failed.
#[test]
fn recordings_have_the_figures_that_the_clients_of_the_tools_compute() {
    let file = include_str!("fixtures/other_tools.json");
    let of_clients: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(file).expect("the file");
    let fixtures = fixtures();
    let mut compared = 0;
    for (label, tools) in &of_clients {
        let fixture = fixtures.iter().find(|fixture| fixture.label() == *label).expect(label);
        let sample =
            sample::read(&fixture.recording, fixture.protocol, TokenCount::Usage).expect(label);
        for (name, theirs) in tools {
            let (tool, [ttft, e2e]) = match name.as_str() {
                "vllm" => (OtherTool::VllmBenchServe, ["TTFT", "E2EL"]),
                "sglang" => (OtherTool::SglangBenchServing, ["TTFT", "E2E latency"]),
                "evalscope" => (OtherTool::EvalScope, ["TTFT", "Latency"]),
                "genai" => (OtherTool::GenAiBench, ["ttft", "e2e_latency"]),
                "guidellm" => (OtherTool::GuideLlm, ["TTFT", "Request Latency"]),
                _ => panic!("{name}"),
            };
            let ours = |name| figure(tool, name).of(&sample);
            let number = |key: &str| theirs[key].as_f64();
            if theirs.is_null() {
                // A tool can also fail for what the figures do not depend on, such as a comment.
                let may_fail = tool == OtherTool::SglangBenchServing || ours(ttft).is_none();
                assert!(may_fail, "{label} {name}: {:?}", ours(ttft));
                continue;
            }
            let near = |what: &str, ours: Option<f64>, theirs: Option<f64>| {
                let Some(theirs) = theirs else { return 0 };
                let ours = ours.unwrap_or_else(|| panic!("no {what} of {label} {name}"));
                assert!(
                    (ours - theirs / 1e9).abs() < 2e-9,
                    "{what} {label} {name}: {ours}, {theirs}"
                );
                1
            };
            compared += near("ttft", ours(ttft), number("ttft_ns"));
            compared += near("e2e", ours(e2e), number("e2e_ns"));
            let tokens = sample.response_tokens as f64;
            let per_token = number("last_token_ns").map(|last| last / tokens);
            let tpot = (tool == OtherTool::GuideLlm).then(|| ours("TPOT")).flatten();
            compared += near("tpot", tpot, per_token);
            if let Some(gaps) = number("gaps") {
                let found = figure(tool, "ITL").gaps(&sample);
                assert_eq!(found.len() as f64, gaps, "{label} {name}");
                compared += near("gaps", Some(found.iter().sum()), number("gaps_ns"));
            }
        }
    }
    assert!(compared > 200, "{compared}");
}
