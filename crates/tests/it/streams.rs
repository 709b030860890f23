//! What the recorded answers of real servers amount to: the sample with every figure, or why there
//! is none.

use std::{fmt::Write as _, time::Duration};

use llm_stream_bench::config::TokenCount;
use llm_stream_core::{
    metric::{METRICS, Metric},
    protocol::OpenAiChat,
    recording::{Chunk, ErrorKind, MemoryHold, Recording, RequestError, StampedBy, Uncertainty},
    sample::{self, EventPart, EventRun, Note, RequestedTokens, Sample},
    tokenizer::Tokenizer,
};

use crate::protocol::{Fixture, tables};

#[test]
fn recorded_answers_give_the_same_samples() {
    let read =
        |stream: &Fixture| sample::read(&stream.recording, stream.protocol, TokenCount::Usage);
    for (protocol, table) in tables(|stream| Some(described(&read(stream)))) {
        insta::assert_snapshot!(protocol, table);
    }
}

#[test]
fn an_answer_without_usage_is_counted_by_events_if_configured() {
    let by_events = |stream: &Fixture| {
        let read = |count| sample::read(&stream.recording, stream.protocol, count);
        match read(TokenCount::Usage) {
            Err(RequestError { kind: ErrorKind::NoUsage, .. }) => {
                Some(described(&read(TokenCount::Chunks)))
            }
            _ => None,
        }
    };
    let tables = tables(by_events);
    assert!(!tables.is_empty(), "no stream without usage");
    for (protocol, table) in tables {
        insta::assert_snapshot!(format!("{protocol}-chunks"), table);
    }
}

#[test]
fn a_tokenizer_counts_each_kind_of_text_if_the_server_does_not() {
    let bytes = || TokenCount::Tokenizer(Tokenizer::new("bytes", |text| Ok(text.len() as u64)));
    let answer = [(10, ROLE), (20, THOUGHT), (30, TOKEN), (40, TOOL), (50, STOP)];
    let read = |count| sample::read(&stream(&answer), &OpenAiChat, count);
    let sample = read(bytes()).unwrap();
    assert_eq!((sample.response_tokens, sample.token_count.name()), (4, "tokenizer"));
    // The kinds are not one text.
    let calls =
        TokenCount::Tokenizer(Tokenizer::new("filled", |text| Ok((!text.is_empty()).into())));
    assert_eq!(read(calls).unwrap().response_tokens, 3);
    // The server's own count is before any other.
    let counted: Vec<_> = [&answer[..], &[(60, USAGE)]].concat();
    let sample = sample::read(&stream(&counted), &OpenAiChat, bytes()).unwrap();
    assert_eq!((sample.response_tokens, sample.token_count), (4, TokenCount::Usage));
    // What it cannot count is a failure as no usage is.
    let no = TokenCount::Tokenizer(Tokenizer::new("no", |_| Err("no such word".into())));
    let none = TokenCount::Tokenizer(Tokenizer::new("none", |_| Ok(0)));
    let failures = [no, none].map(|count| read(count).unwrap_err().to_string());
    let expected = [
        "the tokenizer `no` counts no tokens of the answer: no such word",
        "the tokenizer `none` counts no tokens of the answer: it counts none",
    ];
    assert_eq!(failures, expected);
}

fn described(outcome: &Result<Sample, RequestError>) -> String {
    match outcome {
        Err(error) => format!("{}: {error}\n", error.kind),
        Ok(sample) => format_sample(sample),
    }
}

fn format_sample(sample: &Sample) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let (unit, scale) = metric.unit.display();
        let value = metric
            .of(sample)
            .map_or("-".to_owned(), |value| format!("{:.6} {unit}", value * scale));
        let _ = writeln!(text, "{}: {value}", metric.name);
    }
    let _ = writeln!(text, "finish_reason: {}", sample.finish_reason);
    let _ = writeln!(text, "token_events: {}", sample.token_events.len());
    let _ = writeln!(text, "events: {}", event_runs(sample));
    let _ = writeln!(text, "first_event_tokens: {:?}", sample.first_event_tokens);
    let _ = writeln!(text, "token_count: {}", sample.token_count.name());
    let _ = writeln!(text, "cached_tokens: {:?}", sample.cached_tokens);
    let _ = writeln!(text, "reasoning_tokens: {:?}", sample.reasoning_tokens);
    let _ = writeln!(text, "notes: {:?}", sample.notes);
    text
}

/// Formats the contents of the events, such as `role, 3 answer, answer+finish, usage, end`.
fn event_runs(sample: &Sample) -> String {
    let run = |EventRun { contents, events }: &EventRun| {
        let parts: Vec<_> = contents.parts().map(EventPart::name).collect();
        let parts = if parts.is_empty() { "nothing".into() } else { parts.join("+") };
        if *events == 1 { parts } else { format!("{events} {parts}") }
    };
    sample.event_log.runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

// -- arithmetic, exact ----------------------------------------------------------------------------

/// A stream with an event at each time, in ms.
pub(crate) fn stream(events: &[(u64, &str)]) -> Recording {
    let chunk = |(at, data): &(u64, &str)| Chunk {
        at: Duration::from_millis(*at),
        uncertainty: Duration::ZERO,
        bytes: format!("data: {data}\n\n").into(),
    };
    let ended_at = events.last().map(|(at, _)| Duration::from_millis(at + 1));
    Recording {
        origin: None,
        status: 200,
        content_type: Some("text/event-stream".into()),
        head_time: None,
        content_encoding: None,
        retry_after: None,
        server: None,
        http_version: "HTTP/1.1".into(),
        connect: None,
        tls: None,
        sent: None,
        headers_at: Duration::from_millis(2),
        chunks: events.iter().map(chunk).collect(),
        ended_at: ended_at.unwrap_or_default(),
        stamped_by: StampedBy::Program,
        uncertainty: Uncertainty::default(),
        broken: None,
        hold: MemoryHold::default(),
    }
}

pub(crate) const ROLE: &str =
    r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
pub(crate) const TOKEN: &str = r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
const THOUGHT: &str = r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#;
pub(crate) const TOOL: &str = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}}]}"#;
pub(crate) const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
pub(crate) const USAGE: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":4,"total_tokens":104}}"#;

pub(crate) fn read(recording: &Recording) -> Result<Sample, RequestError> {
    sample::read(recording, &OpenAiChat, TokenCount::Usage)
}

pub(crate) fn figure(sample: &Sample, name: &str) -> Option<f64> {
    METRICS.iter().find(|metric| metric.name == name).and_then(|metric| metric.of(sample))
}

/// An answer of twenty tokens, 10 ms apart from 50 ms on, whose last chunk says `more`.
fn with_word(tokens: u64, more: &str) -> Sample {
    let usage = format!(
        r#"{{"choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":{tokens}}},{more}}}"#
    );
    let events = (0..20).map(|n| (50 + 10 * n, TOKEN));
    let events: Vec<_> = events.chain([(241, STOP), (241, &usage), (241, "[DONE]")]).collect();
    read(&stream(&events)).unwrap()
}

#[test]
fn the_speed_that_a_server_reports_is_read() {
    let word = |more: &str| {
        let sample = with_word(20, more);
        ["server_queue_time", "server_prompt_time", "server_generation_time"]
            .map(|name| figure(&sample, name))
    };
    let llama = r#""timings":{"cache_n":0,"prompt_n":9,"prompt_ms":40.5,"predicted_n":20,"predicted_ms":190,"predicted_per_second":100.0}"#;
    assert_eq!(word(llama), [None, Some(0.0405), Some(0.190)]);
    let vllm = r#""metrics":{"time_to_first_token_ms":40.5,"generation_time_ms":190.25,"queue_time_ms":2,"mean_itl_ms":null}"#;
    assert_eq!(word(vllm), [Some(0.002), Some(0.0405), Some(0.19025)]);
    let cerebras = r#""time_info":{"queue_time":0.001,"prompt_time":0.04,"completion_time":0.2,"total_time":0.3}"#;
    assert_eq!(word(cerebras), [Some(0.001), Some(0.04), Some(0.2)]);
    // What cannot be read there says nothing, and fails nothing.
    for nonsense in [
        r#""timings":[],"metrics":"fast","time_info":7"#,
        r#""timings":{"prompt_ms":-1,"predicted_ms":"190"},"metrics":{"queue_time_ms":1e300}"#,
        r#""timings":null,"metrics":null"#,
    ] {
        assert_eq!(word(nonsense), [None; 3], "{nonsense}");
    }
}

#[test]
fn groqs_times_are_in_the_usage() {
    let usage = r#"{"choices":[],"x_groq":{"id":"r","usage":{"queue_time":0.03,"prompt_tokens":9,"prompt_time":0.01,"completion_tokens":20,"completion_time":0.2,"total_tokens":29}}}"#;
    let events = (0..20).map(|n| (50 + 10 * n, TOKEN));
    let events: Vec<_> = events.chain([(241, STOP), (241, usage), (241, "[DONE]")]).collect();
    let sample = read(&stream(&events)).unwrap();
    assert_eq!(figure(&sample, "server_ttft"), Some(0.04));
    // 200 ms may hold the first token, which ours do not.
    assert_eq!((figure(&sample, "server_generation_time"), sample.notes), (Some(0.2), vec![]));
}

#[test]
fn a_server_disagrees_by_more_than_the_network_and_silent_tokens_explain() {
    let notes = |tokens, generation: f64| {
        with_word(tokens, &format!(r#""timings":{{"predicted_ms":{generation}}}"#)).notes
    };
    // Ours are 190 ms, and the headers took 2 ms.
    for explained in [190.0, 186.5, 193.5] {
        assert_eq!(notes(20, explained), [], "{explained}");
    }
    for unexplained in [95.0, 184.5, 196.0, 380.0] {
        assert_eq!(notes(20, unexplained), [Note::ServerDisagrees], "{unexplained}");
    }
    // A token without an event, such as the one that ends the answer, is the server's alone …
    assert_eq!(notes(21, 200.0), []);
    // … but not any number of them.
    assert!(notes(60, 400.0).contains(&Note::ServerDisagrees));
    // Of an answer of one token there is no time between tokens.
    let one = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1},"timings":{"predicted_ms":0.001}}"#;
    let sample = read(&stream(&[(50, TOKEN), (51, STOP), (51, one), (51, "[DONE]")])).unwrap();
    assert_eq!((figure(&sample, "server_generation_speed"), sample.notes), (None, vec![]));
}

#[test]
fn impossible_counts_are_noted() {
    let notes = |usages: &[&str]| {
        let usages: Vec<_> =
            usages.iter().map(|usage| format!(r#"{{"choices":[],"usage":{{{usage}}}}}"#)).collect();
        let events = (0..20).map(|n| (50 + 10 * n, TOKEN)).chain([(241, STOP)]);
        let usages = usages.iter().map(|usage| (241, usage.as_str()));
        let events: Vec<_> = events.chain(usages).chain([(241, "[DONE]")]).collect();
        read(&stream(&events)).unwrap().notes
    };
    let of = |more: &str| notes(&[&format!(r#""prompt_tokens":9,"completion_tokens":20{more}"#)]);
    assert_eq!(of(""), []);
    assert_eq!(notes(&[r#""prompt_tokens":0,"completion_tokens":20"#]), [Note::NoPromptTokens]);
    let cached = |n| format!(r#","prompt_tokens_details":{{"cached_tokens":{n}}}"#);
    assert_eq!(of(&cached(9)), [Note::CachedPrefix]);
    assert_eq!(of(&cached(10)), [Note::CachedPrefix, Note::MoreCachedThanPrompt]);
    let reasoning = |n| format!(r#","completion_tokens_details":{{"reasoning_tokens":{n}}}"#);
    assert_eq!(of(&reasoning(20)), []);
    assert_eq!(of(&reasoning(21)), [Note::MoreReasoningThanTokens]);
    assert_eq!(of(r#","total_tokens":28"#), [Note::TotalBelowSum]);
    // The text has 20 bytes; a few tokens may have none, and those of hidden reasoning.
    let counts = |tokens: u64, more: &str| {
        notes(&[&format!(r#""prompt_tokens":9,"completion_tokens":{tokens}{more}"#)])
    };
    assert_eq!(counts(23, ""), []);
    assert_eq!(counts(24, ""), [Note::UncountedTokens]);
    assert_eq!(counts(36, ""), [Note::UncountedTokens]);
    assert_eq!(counts(37, ""), [Note::MoreTokensThanText, Note::UncountedTokens]);
    assert_eq!(counts(120, &reasoning(100)), [Note::HiddenReasoning]);
    assert_eq!(counts(19, ""), [Note::FewerTokensThanEvents]);
    // Usage may be repeated, but must not decrease.
    let again = |tokens: u64| format!(r#""prompt_tokens":9,"completion_tokens":{tokens}"#);
    assert_eq!(notes(&[&again(19), &again(20), &again(20)]), []);
    assert_eq!(notes(&[&again(21), &again(20)]), [Note::UsageShrinks]);
    // Of a tool call only its name and arguments are text.
    let call = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":40}}"#;
    let sample = read(&stream(&[(50, TOOL), (51, STOP), (51, call), (51, "[DONE]")])).unwrap();
    assert_eq!(sample.notes, []);
}

#[test]
fn each_figure_is_its_formula() {
    let recording = stream(&[
        (10, ROLE),
        (50, TOKEN),
        (60, TOKEN),
        (80, TOKEN),
        (90, TOKEN),
        (95, STOP),
        (100, USAGE),
        (100, "[DONE]"),
    ]);
    let sample = read(&recording).unwrap();
    let expected = [
        ("ttft", 0.050),
        ("ttfo", 0.050),
        ("first_byte_time", 0.002),
        ("first_event_time", 0.010),
        ("generation_time", 0.040),
        ("e2e", 0.090),
        ("total_time", 0.101),
        ("generation_speed", 4.0 / 0.040),
        ("tpot", 0.040 / 3.0),
        ("itl", 0.040 / 3.0),
        ("itl_max", 0.020),
        ("preprocess_speed", 100.0 / 0.050),
        ("total_tokens_per_second", 104.0 / 0.101),
        ("response_tokens", 4.0),
        ("prompt_tokens", 100.0),
    ];
    for (name, value) in expected {
        assert_eq!(figure(&sample, name), Some(value), "{name}");
    }
    assert_eq!(figure(&sample, "uncached_preprocess_speed"), None);
    assert_eq!(figure(&sample, "connect_time"), None);
    assert!(sample.notes.is_empty());
}

#[test]
fn ttft_includes_reasoning_and_ttfo_excludes_it() {
    let recording =
        stream(&[(20, THOUGHT), (30, THOUGHT), (70, TOKEN), (80, TOOL), (80, STOP), (81, USAGE)]);
    let sample = read(&recording).unwrap();
    assert_eq!(figure(&sample, "ttft"), Some(0.020));
    assert_eq!(figure(&sample, "ttfo"), Some(0.070));
    assert_eq!(figure(&sample, "generation_time"), Some(0.060));
}

#[test]
fn hidden_reasoning_is_in_ttft_and_not_in_the_speed() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":504,"completion_tokens_details":{"reasoning_tokens":500}}}"#;
    let read = |events: &[(u64, &str)]| read(&stream(events)).unwrap();
    let hidden = [(10, ROLE), (500, TOKEN), (520, TOKEN), (540, TOKEN), (560, TOKEN)];
    let end = [(561, STOP), (561, usage), (561, "[DONE]")];
    let sample = read(&[&hidden[..], &end].concat());
    assert_eq!(sample.notes, [Note::HiddenReasoning]);
    let figures = |sample: &Sample| {
        ["ttft", "generation_speed", "tpot", "response_tokens"].map(|name| figure(sample, name))
    };
    assert_eq!(figures(&sample), [Some(0.5), Some(4.0 / 0.06), Some(0.02), Some(504.0)]);
    // The server may say in each event how many there were.
    let first = r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":100,"completion_tokens":501}}"#;
    let counted = [(10, ROLE), (500, first), (520, TOKEN), (540, TOKEN), (560, TOKEN)];
    let sample = read(&[&counted[..], &end].concat());
    assert_eq!(figure(&sample, "tpot"), Some(0.02));
    // Reasoning that was shown is in the time, by its name or as a part of the answer.
    let shown = [(10, ROLE), (440, THOUGHT), (500, TOKEN), (520, TOKEN), (560, TOKEN)];
    let sample = read(&[&shown[..], &end].concat());
    assert_eq!((sample.streamed_tokens(), sample.notes), (504, vec![Note::UncountedTokens]));
    let five = usage.replace("504", "6").replace("500", "3");
    let end = [(561, STOP), (561, five.as_str()), (561, "[DONE]")];
    let sample = read(&[&hidden[..], &end].concat());
    assert_eq!((sample.streamed_tokens(), sample.notes), (6, vec![]));
}

#[test]
fn a_tool_call_alone_is_an_answer() {
    let recording = stream(&[(20, TOOL), (40, TOOL), (41, STOP), (41, USAGE)]);
    assert_eq!(figure(&read(&recording).unwrap(), "ttfo"), Some(0.020));
}

#[test]
fn usage_on_every_chunk_gives_the_tokens_of_the_first_event() {
    let counted = |tokens: u32| {
        format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"ab"}}}}],"usage":{{"prompt_tokens":9,"completion_tokens":{tokens}}}}}"#
        )
    };
    let (first, second) = (counted(3), counted(7));
    let recording = stream(&[(10, &first), (50, &second), (50, STOP), (51, "[DONE]")]);
    let sample = read(&recording).unwrap();
    assert_eq!(sample.first_event_tokens, Some(3));
    assert_eq!(sample.response_tokens, 7);
    assert_eq!(figure(&sample, "tpot"), Some(0.040 / 4.0));
    assert_eq!(sample.total_tokens, Some(16));
}

#[test]
fn an_answer_in_one_piece_has_no_speed() {
    for events in [
        &[(50, TOKEN), (51, STOP), (51, USAGE)][..],
        &[(50, TOKEN), (50, TOKEN), (50, TOKEN), (51, STOP), (51, USAGE)][..],
    ] {
        let sample = read(&stream(events)).unwrap();
        for name in ["generation_time", "generation_speed", "tpot", "itl", "itl_max"] {
            assert_eq!(figure(&sample, name), None, "{name}");
        }
        assert_eq!(figure(&sample, "ttft"), Some(0.050));
    }
}

#[test]
fn a_held_back_answer_in_few_pieces_has_no_speed() {
    let many = |at: u64| (0..20).map(move |_| (at, TOKEN));
    let events: Vec<_> = many(50).chain(many(52)).chain([(53, STOP), (53, USAGE)]).collect();
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":40}}"#;
    let events = [&events[..41], &[(53, usage)]].concat();
    let sample = read(&stream(&events)).unwrap();
    assert_eq!(figure(&sample, "generation_speed"), None);
    assert!(sample.notes.iter().any(|note| note.name() == "burst"));
}

/// Token events at these times in µs, and what ends an answer.
fn at_micros(events: impl IntoIterator<Item = u64>) -> Sample {
    let mut recording = stream(&[]);
    let end = |at: u64| [(at, STOP), (at, USAGE), (at, "[DONE]")];
    let events: Vec<_> = events.into_iter().map(|at| (at, TOKEN)).collect();
    let last = events.last().expect("an event").0 + 1000;
    recording.chunks = events
        .into_iter()
        .chain(end(last))
        .map(|(at, data)| Chunk {
            at: Duration::from_micros(at),
            uncertainty: Duration::ZERO,
            bytes: format!("data: {data}\n\n").into(),
        })
        .collect();
    recording.ended_at = Duration::from_micros(last);
    sample::read(&recording, &OpenAiChat, TokenCount::Usage).expect("an answer")
}

#[test]
fn a_complete_answer_written_event_by_event_is_doubted() {
    let every = |first: u64, gap: u64, events: u64| {
        at_micros((0..events).map(move |event| first + event * gap))
    };
    for (first, gap, events) in
        [(600_000, 150, 12), (600_000, 60, 60), (1_000_000, 300, 60), (600_000, 60, 200)]
    {
        let sample = every(first, gap, events);
        assert!(sample.notes.contains(&Note::MayBeHeldBack), "{gap} µs: {:?}", sample.notes);
        assert!(
            sample.doubts.iter().any(|doubt| doubt.metrics.contains(&Metric::GENERATION_SPEED))
        );
        assert!(sample.generation_time().is_some());
    }
    // A quick model, a long prompt, and a server that pauses as long as it generates.
    for (first, gap, events) in [(600_000, 1_500, 40), (2_000_000, 20_000, 8), (9_000, 300, 60)] {
        let sample = every(first, gap, events);
        assert!(!sample.notes.contains(&Note::MayBeHeldBack), "{gap} µs: {:?}", sample.notes);
        assert!(sample.doubts.is_empty());
    }
}

#[test]
fn equal_pieces_at_a_models_pace_have_a_speed_after_any_wait() {
    let pieces = |first: u64, gap: u64, pieces: u64, events: u64| {
        at_micros((0..pieces * events).map(move |event| first + event / events * gap))
    };
    // Nagle's algorithm after a long prompt; speculative decoding.
    for (first, gap, count, events) in [(2_000_000, 40_000, 6, 2), (1_000_000, 30_000, 8, 3)] {
        let sample = pieces(first, gap, count, events);
        assert!(!sample.notes.contains(&Note::Burst), "{:?}", sample.notes);
        let span = Duration::from_micros(gap * (count - 1));
        assert_eq!(sample.generation_time(), Some(span));
        assert_eq!(sample.generation_uncertainty(), Duration::from_micros(gap));
    }
    // Pieces of a network, and a first piece that holds most.
    assert!(pieces(2_000_000, 1_500, 6, 20).notes.contains(&Note::Burst));
    let flushed = (0..12).map(|event| if event < 9 { 2_000_000 } else { 2_040_000 });
    assert!(at_micros(flushed).notes.contains(&Note::Burst));
}

#[test]
fn an_answer_without_a_token_is_described() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":64,"completion_tokens_details":{"reasoning_tokens":64}}}"#;
    let length = STOP.replace("stop", "length");
    let thought = r#"{"choices":[{"index":0,"delta":{"mind":"hm"}}]}"#;
    let long = STOP.replace("stop", &"x".repeat(5000));
    for (events, says) in [
        (
            vec![ROLE, &length, usage],
            "the server streamed no text, with the finish reason `length`, though it counted 64 \
             generated tokens, 64 of them hidden reasoning: a larger `max_tokens` leaves room for \
             an answer",
        ),
        (
            vec![ROLE, thought, STOP, USAGE],
            "the stream ended without one generated token in a known field, with the finish reason \
             `stop`; text came in `mind`: name it in `text_fields`",
        ),
        (vec![ROLE], "the stream ended without one generated token"),
    ] {
        let events: Vec<_> = events.into_iter().map(|event| (10, event)).collect();
        assert_eq!(read(&stream(&events)).unwrap_err().message, says);
    }
    let error = read(&stream(&[(10, ROLE), (11, &long)])).unwrap_err();
    assert!(error.message.len() < 200, "{}", error.message);
}

#[test]
fn a_counted_answer_was_not_cut_off() {
    let without_reason = stream(&[(10, TOKEN), (20, TOKEN), (21, USAGE)]);
    let error = read(&without_reason).unwrap_err();
    assert_eq!(
        error.message,
        "the stream ended without a finish reason, after 2 token events, though the server counted \
         its tokens"
    );
}

#[test]
fn invalid_answers_have_no_sample() {
    let error = r#"{"error":{"message":"out of memory"}}"#;
    let nothing = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}"#;
    let abort = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}"#;
    let broken = |mut recording: Recording| {
        recording.broken = Some(RequestError::new(ErrorKind::Broken, "the connection broke"));
        recording
    };
    let cases = [
        ("no token", stream(&[(1, ROLE), (2, STOP), (3, USAGE)])),
        ("no finish reason", stream(&[(1, TOKEN), (3, TOKEN), (4, USAGE), (4, "[DONE]")])),
        ("no usage", stream(&[(1, TOKEN), (3, TOKEN), (4, STOP), (4, "[DONE]")])),
        ("a usage of nothing", stream(&[(1, TOKEN), (3, TOKEN), (4, STOP), (4, nothing)])),
        ("a usage before the last token", stream(&[(1, TOKEN), (2, USAGE), (3, TOKEN), (4, STOP)])),
        ("an abort", stream(&[(1, TOKEN), (3, TOKEN), (4, abort), (4, USAGE), (4, "[DONE]")])),
        ("an error inside", stream(&[(1, TOKEN), (3, error), (4, "[DONE]")])),
        ("an error at once", stream(&[(1, error)])),
        ("no JSON", stream(&[(1, TOKEN), (3, "{\"choices\":[")])),
        ("an empty body", stream(&[])),
        ("a break", broken(stream(&[(1, TOKEN), (3, TOKEN)]))),
        ("a break after all was said", broken(stream(&[(1, TOKEN), (4, STOP), (4, USAGE)]))),
    ];
    let mut text = String::new();
    for (name, recording) in &cases {
        let _ = write!(text, "{name}\n  {}", described(&read(recording)));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_finish_reason_can_be_a_failure() {
    for reason in ["network_error", "ERROR", "abort"] {
        let stop = STOP.replace("\"stop\"", &format!("\"{reason}\""));
        let error = read(&stream(&[(50, TOKEN), (60, TOKEN), (61, &stop), (61, USAGE)]));
        assert_eq!(error.unwrap_err().kind, ErrorKind::InBand, "{reason}");
    }
}

#[test]
fn events_after_the_end_marker_are_not_counted() {
    let end = [(60, STOP), (60, USAGE), (60, "[DONE]")];
    for late in [TOKEN, "junk"] {
        let events = [&[(50, TOKEN), (60, TOKEN)][..], &end, &[(900, late)]].concat();
        let sample = read(&stream(&events)).unwrap();
        assert_eq!(sample.token_events.len(), 2);
        assert_eq!(figure(&sample, "generation_time"), Some(0.010));
        // Which tokens the server counted is not known once text follows.
        let (note, speed) = match late {
            TOKEN => (Note::TextAfterEnd, None),
            _ => (Note::MoreAfterEnd, Some(2.0 / 0.010)),
        };
        assert_eq!(sample.notes, [note]);
        assert_eq!(figure(&sample, "generation_speed").is_some(), speed.is_some());
    }
}

/// Returns the arrivals of all events in milliseconds.
fn event_times(sample: &Sample) -> Vec<u128> {
    sample.events().map(|(at, _)| at.as_millis()).collect()
}

#[test]
fn a_sample_keeps_every_event_in_order() {
    let empty = TOKEN.replace("\"a\"", "\"\"");
    let empty_stop = empty.replace("}]}", r#","finish_reason":"stop"}]}"#);
    let mixed =
        TOKEN.replace("\"content\"", "\"mind\":\"x\",\"reasoning_content\":\"hm\",\"content\"");
    let events = [
        (10, ROLE),
        (20, THOUGHT),
        (30, &*mixed),
        (40, TOKEN),
        (50, TOKEN),
        (55, &*empty),
        (56, r#"{"choices":[]}"#),
        (60, TOOL),
        (70, &*empty_stop),
        (71, USAGE),
        (72, "[DONE]"),
        (73, USAGE),
        (74, TOKEN),
    ];
    let sample = read(&stream(&events)).unwrap();
    let expected = "role, reasoning+reasoning_content, answer+reasoning+unread_text, 2 answer, \
                    empty_text, nothing, tool_call, empty_text+finish, usage, end, \
                    usage+after_end, after_end";
    assert_eq!(event_runs(&sample), expected);
    assert_eq!(event_times(&sample), [10, 20, 30, 40, 50, 55, 56, 60, 70, 71, 72, 73, 74]);
    let tokens = sample.events().filter(|(_, contents)| contents.is_token_event());
    assert!(tokens.map(|(at, _)| at).eq(sample.token_events.iter().copied()));
    // The lag of a scheduled start moves every event.
    let lagged = sample.scheduled_before(Duration::from_millis(100));
    assert_eq!(
        event_times(&lagged),
        [110, 120, 130, 140, 150, 155, 156, 160, 170, 171, 172, 173, 174]
    );
}

#[test]
fn a_role_with_an_empty_text_is_no_empty_text() {
    let with = |delta: &str| {
        let event = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
        let end = [(60, STOP), (60, USAGE), (60, "[DONE]")];
        let events = [&[(5, &*event), (50, TOKEN), (60, TOKEN)][..], &end].concat();
        let sample = read(&stream(&events)).unwrap();
        event_runs(&sample).replace(", 2 answer, finish, usage, end", "")
    };
    assert_eq!(with(r#"{"role":"assistant","content":""}"#), "role");
    assert_eq!(with(r#"{"role":"assistant","content":null}"#), "role");
    assert_eq!(with(r#"{"role":null,"content":""}"#), "nothing");
    assert_eq!(with(r#"{"content":""}"#), "empty_text");
    assert_eq!(with(r#"{"content":null}"#), "nothing");
    assert_eq!(with("{}"), "nothing");
}

#[test]
fn contradictory_counts_are_noted() {
    let notes = |counts: &str, asked: Option<u64>| {
        let usage = format!(r#"{{"choices":[],"usage":{{{counts}}}}}"#);
        let token = TOKEN.replace("\"a\"", "\"a b c d e f g h\"");
        let events = [(50, &*token), (60, &token), (61, STOP), (61, &usage), (61, "[DONE]")];
        let sample = read(&stream(&events))
            .unwrap()
            .checked_against(RequestedTokens { most: asked, ..RequestedTokens::default() });
        let names: Vec<_> = sample.notes.iter().map(|note| note.name()).collect();
        names.join(" ")
    };
    let parts = r#""prompt_tokens":100,"completion_tokens":16"#;
    assert_eq!(notes(parts, Some(16)), "");
    assert_eq!(notes(parts, Some(15)), "more_tokens_than_asked");
    assert_eq!(notes(parts, None), "");
    let with_total = |total: u64| notes(&format!(r#"{parts},"total_tokens":{total}"#), None);
    assert_eq!(with_total(115), "total_below_sum");
    // Where reasoning is counted apart.
    assert_eq!(with_total(200), "");
    // The prompt is not known.
    assert_eq!(notes(r#""completion_tokens":16,"total_tokens":16"#, None), "");
}

#[test]
fn a_missing_end_marker_and_cached_tokens_are_notes() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":96}}}"#;
    let sample = read(&stream(&[(50, TOKEN), (60, TOKEN), (61, STOP), (61, usage)])).unwrap();
    let notes: Vec<_> = sample.notes.iter().map(|note| note.name()).collect();
    assert_eq!(notes, ["no_end_marker", "cached_prefix"]);
    assert_eq!(figure(&sample, "preprocess_speed"), Some(100.0 / 0.050));
    assert_eq!(figure(&sample, "uncached_preprocess_speed"), Some(4.0 / 0.050));
}
