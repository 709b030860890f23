//! What the protocols read in frames: in the recorded streams of real servers, and in each sort of
//! frame by itself.

use std::{borrow::Cow, fmt::Write as _, fs, path::Path};

use llm_stream_core::{
    framing::Frame,
    prompt::{Prompt, Tools},
    protocol::{
        self, ChatRequest, DecodeError, Envelope, EventTemplate, Message, MessagePart, OpenAiChat,
        OpenAiResponses, Protocol, Timings, TokenKind, Usage,
    },
    recording::Recording,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A recorded answer of a real server, or one that was written after documentation.
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) protocol: &'static dyn Protocol,
    pub(crate) recording: Recording,
}

impl Fixture {
    pub(crate) fn body(&self) -> Vec<u8> {
        self.recording.chunks.iter().flat_map(|chunk| chunk.bytes.iter().copied()).collect()
    }

    /// The name of the stream, with its protocol.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.protocol.name(), self.name)
    }
}

/// All of `fixtures/streams`, by protocol and name.
pub(crate) fn fixtures() -> Vec<Fixture> {
    protocol::ALL.iter().flat_map(|protocol| fixtures_of(*protocol)).collect()
}

/// A table for each protocol with the `text` of each of its streams that has one.
pub(crate) fn tables(text: impl Fn(&Fixture) -> Option<String>) -> Vec<(&'static str, String)> {
    let table = |protocol: &&'static dyn Protocol| {
        let streams = fixtures_of(*protocol);
        let cases: Vec<_> =
            streams.iter().filter_map(|stream| Some((&stream.name, text(stream)?))).collect();
        (protocol.name(), crate::bench::table(&cases))
    };
    protocol::ALL.iter().map(table).filter(|(_, table)| !table.is_empty()).collect()
}

fn fixtures_of(protocol: &'static dyn Protocol) -> Vec<Fixture> {
    let folder = Path::new(crate::bench::REPOSITORY).join("fixtures/streams");
    let files = fs::read_dir(folder.join(protocol.name())).expect("a folder of fixtures");
    let mut paths: Vec<_> = files.map(|file| file.expect("a readable folder").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no fixtures of {}", protocol.name());
    paths.iter().map(|path| fixture(path, protocol)).collect()
}

fn fixture(path: &Path, protocol: &'static dyn Protocol) -> Fixture {
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a plain name").to_owned();
    let file = fs::read_to_string(path).expect("a readable file");
    let recording = Recording::from_jsonl(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
    Fixture { name, protocol, recording }
}

// -- recorded streams -----------------------------------------------------------------------------

#[test]
fn recorded_answers_decode_as_before() {
    let text = |fixture: &Fixture| Some(decoded(&fixture.recording, fixture.protocol));
    for (protocol, table) in tables(text) {
        insta::assert_snapshot!(protocol, table);
    }
}

/// What `sample::read` takes from a template, it would have read frame by frame.
#[test]
fn a_template_decodes_like_the_protocol() {
    let mut by_template = 0;
    for fixture in fixtures() {
        let mut template = EventTemplate::default();
        let mut sink = |frame: Frame<'_>| {
            let decoded = fixture.protocol.decode(&frame);
            if let Some((kind, text)) = template.read(&frame) {
                let parts = decoded.expect("a frame like one that was read").parts;
                assert_eq!(parts, [MessagePart::Token(kind, text.into())], "{}", fixture.label());
                by_template += 1;
            } else if let Ok(message) = decoded {
                template.learn(&frame, &message);
            }
        };
        let mut decoder = fixture.protocol.framing().decoder();
        decoder.push(&fixture.body(), &mut sink).expect("short lines");
        decoder.finish(&mut sink);
    }
    assert!(by_template > 100, "{by_template} frames were like the one before");
}

/// A line a frame, with its time in ms.
fn decoded(recording: &Recording, protocol: &dyn Protocol) -> String {
    let mut text = format!("{} {:?}\n", recording.status, recording.content_type);
    writeln!(text, "{:>9}  headers", ms(recording.headers_at)).expect("a string");
    let streamed = protocol.framing().content_type();
    let is_stream = recording.content_type.as_ref().is_some_and(|t| t.contains(streamed));
    text += &match is_stream {
        true => decoded_frames(recording, protocol),
        false => decoded_body(recording, protocol),
    };
    let end = recording.broken.as_ref().map_or("end".into(), |broken| format!("{broken:?}"));
    writeln!(text, "{:>9}  {end}", ms(recording.ended_at)).expect("a string");
    text
}

fn decoded_body(recording: &Recording, protocol: &dyn Protocol) -> String {
    let body: Vec<_> = recording.chunks.iter().flat_map(|chunk| chunk.bytes.clone()).collect();
    let at = recording.chunks.last().map_or_else(String::new, |chunk| ms(chunk.at));
    format!("{at:>9}  body says {:?}\n", protocol.decode_error(&body))
}

fn decoded_frames(recording: &Recording, protocol: &dyn Protocol) -> String {
    let mut lines = Vec::new();
    let mut decoder = protocol.framing().decoder();
    for chunk in &recording.chunks {
        let mut sink =
            |frame: Frame<'_>| lines.push((ms(chunk.at), decoded_frame(&frame, protocol)));
        decoder.push(&chunk.bytes, &mut sink).expect("short lines");
    }
    decoder.finish(&mut |frame| {
        lines.push((ms(recording.ended_at), decoded_frame(&frame, protocol)));
    });
    lines.chunk_by(|(_, a), (_, b)| is_token(a) && is_token(b)).map(format_run).collect()
}

/// The lines of a run of token events, its middle left out.
fn format_run(run: &[(String, String)]) -> String {
    let line = |(at, said): &(String, String)| format!("{at:>9}  {said}\n");
    if run.len() < 12 {
        return run.iter().map(line).collect();
    }
    let (first, last) = (&run[..4], &run[run.len() - 4..]);
    let middle = format!("        …  {} more token events\n", run.len() - 8);
    first.iter().map(line).chain([middle]).chain(last.iter().map(line)).collect()
}

fn is_token(said: &str) -> bool {
    ["Answer ", "Reasoning ", "ToolCall "].iter().any(|kind| said.starts_with(kind))
        && !said.contains(" + ")
}

fn decoded_frame(frame: &Frame<'_>, protocol: &dyn Protocol) -> String {
    if let Frame::Comment(text) = frame {
        return format!("comment \"{}\"", text.escape_ascii());
    }
    match protocol.decode(frame) {
        Ok(message) if message.parts.is_empty() => "nothing".into(),
        Ok(message) => message.parts.iter().map(format_part).collect::<Vec<_>>().join(" + "),
        Err(error) => format!("undecodable: {error}"),
    }
}

fn format_part(part: &MessagePart<'_>) -> String {
    match part {
        MessagePart::Token(kind, text) => format!("{kind:?} {text:?}"),
        MessagePart::Finish(reason) => format!("Finish {reason:?}"),
        MessagePart::Usage(usage) => format_usage(usage),
        MessagePart::Timings(timings) => format_timings(timings),
        MessagePart::Error(message) => format!("Error {message:?}"),
        MessagePart::Role | MessagePart::End => format!("{part:?}"),
        MessagePart::Choice(index) => format!("Choice {index}"),
        MessagePart::Items(items) => format!("Items {items}"),
        MessagePart::UnreadUsage(usage) => format!("UnreadUsage {usage}"),
        MessagePart::Unread(field, text) => format!("Unread {field} {text:?}"),
        MessagePart::Unknown(excerpt) => format!("Unknown {excerpt:?}"),
    }
}

fn format_timings(timings: &Timings) -> String {
    let times =
        [("queue", timings.queue), ("prompt", timings.prompt), ("generation", timings.generation)];
    let times = times.iter().filter_map(|(name, time)| Some(format!("{name} {:?}", (*time)?)));
    format!("Timings {}", times.collect::<Vec<_>>().join(", "))
}

fn format_usage(usage: &Usage) -> String {
    let counts = [
        ("prompt", usage.prompt_tokens),
        ("completion", usage.completion_tokens),
        ("total", usage.total_tokens),
        ("cached", usage.cached_tokens),
        ("reasoning", usage.reasoning_tokens),
    ];
    let counts = counts.iter().filter_map(|(name, count)| Some(format!("{name} {}", (*count)?)));
    format!("Usage {}", counts.collect::<Vec<_>>().join(", "))
}

fn ms(time: std::time::Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

// -- decode ---------------------------------------------------------------------------------------

fn event<'a>(name: &'a str, data: &'a str, terminated: bool) -> Frame<'a> {
    Frame::Event { name, data: data.as_bytes(), terminated }
}

fn decode(data: &str) -> Result<Vec<MessagePart<'_>>, DecodeError> {
    OpenAiChat.decode(&event("", data, true)).map(|message| message.parts)
}

fn token(kind: TokenKind, text: &str) -> MessagePart<'_> {
    MessagePart::Token(kind, text.into())
}

fn answer(text: &str) -> MessagePart<'_> {
    token(TokenKind::Answer, text)
}

fn error(message: &str) -> MessagePart<'_> {
    MessagePart::Error(message.into())
}

fn delta(delta: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#)
}

#[track_caller]
fn assert_says(data: &str, parts: &[MessagePart<'_>]) {
    assert_eq!(decode(data).as_deref(), Ok(parts), "{data}");
}

#[test]
fn a_role_without_text_is_not_a_token() {
    for rest in ["", r#","content":null"#, r#","content":"""#, r#","reasoning_content":"""#] {
        assert_says(&delta(&format!(r#"{{"role":"assistant"{rest}}}"#)), &[MessagePart::Role]);
    }
    assert_says(&delta(r#"{"role":"assistant","content":"Hi"}"#), &[answer("Hi")]);
}

#[test]
fn an_empty_delta_has_no_parts() {
    assert_says(&delta("{}"), &[]);
    assert_says(&delta(r#"{"content":""}"#), &[]);
    assert_says(&delta("null"), &[]);
    assert_says(
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        &[MessagePart::Finish("stop".into())],
    );
    assert_says(r#"{"choices":[{"delta":{},"finish_reason":""}]}"#, &[]);
}

#[test]
fn reasoning_has_two_names_and_comes_first() {
    let thinks = |text| token(TokenKind::Reasoning, text);
    assert_says(&delta(r#"{"reasoning_content":"hm"}"#), &[thinks("hm")]);
    assert_says(&delta(r#"{"reasoning":"hm"}"#), &[thinks("hm")]);
    assert_says(&delta(r#"{"reasoning":"hm","reasoning_content":"hm"}"#), &[thinks("hm")]);
    assert_says(&delta(r#"{"reasoning":null,"content":"a"}"#), &[answer("a")]);
    assert_says(&delta(r#"{"content":"a","reasoning":"hm"}"#), &[thinks("hm"), answer("a")]);
}

#[test]
fn content_in_parts_is_answer_and_reasoning() {
    let thinks = |text| token(TokenKind::Reasoning, text);
    let says = |content: &str, parts: &[MessagePart<'_>]| {
        assert_says(&delta(&format!(r#"{{"content":{content}}}"#)), parts);
    };
    let text = r#"{"type":"text","text":"a"}"#;
    let thinking =
        r#"{"type":"thinking","thinking":[{"type":"text","text":"h"},{"type":"text","text":"m"}]}"#;
    says(&format!("[{text}]"), &[answer("a")]);
    says(&format!("[{text},{text}]"), &[answer("aa")]);
    says(&format!("[{thinking}]"), &[thinks("hm")]);
    says(&format!("[{text},{thinking}]"), &[thinks("hm"), answer("a")]);
    says(r#"[{"type":"thinking","thinking":"hm"}]"#, &[thinks("hm")]);
    says("[]", &[]);
    says(r#"[{"type":"text","text":""},{"type":"thinking","thinking":[]}]"#, &[]);
    says(r#"[{"type":"reference","reference_ids":[1]},{"type":"text","text":null}]"#, &[]);
    assert_says(&delta(r#"{"role":"assistant","content":[]}"#), &[MessagePart::Role]);
}

#[test]
fn an_id_may_be_a_number() {
    for (id, read) in [("17", "17"), ("\"17\"", "17"), ("-1", "-1"), ("1.5", "1.5")] {
        let data = format!(r#"{{"id":{id},"choices":[{{"delta":{{"content":"a"}}}}]}}"#);
        let message = OpenAiChat.decode(&event("", &data, true)).expect("decodable");
        assert_eq!(message.id.as_deref(), Some(read), "{data}");
        assert_eq!(message.parts, [answer("a")]);
    }
}

#[test]
fn counts_may_be_floats_and_negative_ones_are_unknown() {
    let usage = |completion: &str| {
        format!(
            r#"{{"choices":[],"usage":{{"prompt_tokens":9.0,"completion_tokens":{completion},
                "prompt_tokens_details":{{"cached_tokens":-1}}}}}}"#
        )
    };
    for (written, completion_tokens) in [
        ("12.0", Some(12)),
        ("1.2e1", Some(12)),
        ("0.0", Some(0)),
        ("-1", None),
        ("-1.0", None),
        ("12.5", None),
        ("1e300", None),
    ] {
        let read = Usage { prompt_tokens: Some(9), completion_tokens, ..Usage::default() };
        let event = usage(written);
        let parts = OpenAiChat.decode(&self::event("", &event, true)).expect("decodable").parts;
        assert_eq!(parts.first(), Some(&MessagePart::Usage(read)), "{event}");
        // What is not a count is kept to be quoted.
        let quotes = parts.iter().any(|part| matches!(part, MessagePart::UnreadUsage(_)));
        assert_eq!((quotes, parts.len()), (completion_tokens.is_none(), 1 + usize::from(quotes)));
    }
    assert_says(
        r#"{"choices":[],"usage":{"completion_tokens":-1}}"#,
        &[MessagePart::UnreadUsage(r#"{"completion_tokens":-1}"#.into())],
    );
}

#[test]
fn a_refusal_is_an_answer() {
    assert_says(&delta(r#"{"content":null,"refusal":"I can't"}"#), &[answer("I can't")]);
}

#[test]
fn tool_calls_are_tokens_by_name_and_by_arguments() {
    let calls = |text| token(TokenKind::ToolCall, text);
    let call = |function: &str| {
        delta(&format!(
            r#"{{"tool_calls":[{{"index":0,"id":"c","type":"function","function":{function}}}]}}"#
        ))
    };
    assert_says(&call(r#"{"name":"f","arguments":""}"#), &[calls("f")]);
    assert_says(&call(r#"{"arguments":"{\"a\""}"#), &[calls(r#"{"a""#)]);
    assert_says(&call(r#"{"name":"f","arguments":"{}"}"#), &[calls("f{}")]);
    assert_says(&call(r#"{"name":null,"arguments":""}"#), &[]);
    assert_says(&delta(r#"{"function_call":{"name":"f"}}"#), &[calls("f")]);
    // A custom tool, and the only call that TGI knew.
    let custom =
        r#"{"tool_calls":[{"index":0,"type":"custom","custom":{"name":"f","input":"x"}}]}"#;
    assert_says(&delta(custom), &[calls("fx")]);
    let alone = r#"{"tool_calls":{"index":0,"function":{"name":"f","arguments":"{"}}}"#;
    assert_says(&delta(alone), &[calls("f{")]);
    assert_says(&delta(r#"{"tool_calls":"f"}"#), &[calls("f")]);
}

#[test]
fn usage_is_read_wherever_servers_put_it() {
    let reads = |usage: &str, expected: Usage| {
        let chunk = format!(r#"{{"choices":[],"usage":{{"prompt_tokens":32,{usage}}}}}"#);
        let expected = Usage { prompt_tokens: Some(32), ..expected };
        assert_says(&chunk, &[MessagePart::Usage(expected)]);
    };
    let four = Usage { completion_tokens: Some(4), total_tokens: Some(36), ..Usage::default() };
    let cached = Usage { cached_tokens: Some(16), ..four };
    // Kimi, DeepSeek, Mistral; what has details is before them.
    let counts = r#""completion_tokens":4,"total_tokens":36"#;
    for name in ["cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens"] {
        reads(&format!(r#"{counts},"{name}":16"#), cached);
        let details = r#""prompt_tokens_details":{"cached_tokens":16}"#;
        reads(&format!(r#"{counts},"{name}":17,{details}"#), cached);
    }
    // SGLang before it had details.
    let thought = Usage { reasoning_tokens: Some(3), ..four };
    reads(&format!(r#"{counts},"reasoning_tokens":3"#), thought);
    // xAI counts reasoning beside the completion, and its total tells; others count it in it.
    let details = r#""completion_tokens_details":{"reasoning_tokens":3}"#;
    reads(&format!(r#"{counts},{details}"#), thought);
    let apart = format!(r#""completion_tokens":4,"total_tokens":39,{details}"#);
    let all = Usage { completion_tokens: Some(7), total_tokens: Some(39), ..thought };
    reads(&apart, all);
    // Kimi has it in the choice.
    let finish = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":32,"completion_tokens":4,"total_tokens":36}}]}"#;
    let usage = Usage { prompt_tokens: Some(32), ..four };
    assert_says(finish, &[MessagePart::Finish("stop".into()), MessagePart::Usage(usage)]);
}

#[test]
fn the_last_event_has_the_finish_reason() {
    let says = |name: &str, response: &str| {
        let data = format!(r#"{{"type":"response.{name}","response":{{{response}}}}}"#);
        let message = OpenAiResponses.decode(&event("", &data, true)).expect("decodable");
        message.parts.iter().map(format_part).collect::<Vec<_>>()
    };
    assert_eq!(says("completed", r#""status":"completed""#), ["Finish \"completed\"", "End"]);
    assert_eq!(says("completed", ""), ["Finish \"completed\"", "End"]);
    assert_eq!(says("completed", r#""status":"incomplete""#), ["Finish \"incomplete\"", "End"]);
    let cancelled = r#"Error "the server cancelled the response without a reason""#;
    assert_eq!(says("completed", r#""status":"cancelled""#), [cancelled]);
    let failed = says("completed", r#""status":"failed","error":{"message":"no memory"}"#);
    assert_eq!(failed, [r#"Error "no memory""#]);
}

#[test]
fn the_last_chunk_may_hold_text_finish_and_usage() {
    assert_says(
        r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"length"}],
            "usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,
                     "prompt_tokens_details":{"cached_tokens":1},
                     "completion_tokens_details":{"reasoning_tokens":0}}}"#,
        &[
            answer("a"),
            MessagePart::Finish("length".into()),
            MessagePart::Usage(Usage {
                prompt_tokens: Some(3),
                completion_tokens: Some(2),
                total_tokens: Some(5),
                cached_tokens: Some(1),
                reasoning_tokens: Some(0),
                renamed: false,
            }),
        ],
    );
}

#[test]
fn a_choice_other_than_the_first_is_marked() {
    let data = r#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#;
    assert_says(data, &[MessagePart::Choice(1), answer("b")]);
}

#[test]
fn a_chunk_without_choices_may_hold_the_usage_or_nothing() {
    let usage = Usage { completion_tokens: Some(2), ..Usage::default() };
    assert_says(r#"{"choices":[],"usage":{"completion_tokens":2}}"#, &[MessagePart::Usage(usage)]);
    assert_says(
        r#"{"choices":null,"usage":{"completion_tokens":2}}"#,
        &[MessagePart::Usage(usage)],
    );
    assert_says(r#"{"choices":[],"usage":null}"#, &[]);
    assert_says(r#"{"choices":[],"usage":{"prompt_tokens":null}}"#, &[]);
    assert_says(r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#, &[]);
}

#[test]
fn errors_inside_the_stream_come_in_several_shapes() {
    assert_says(
        r#"{"error":{"message":"no memory","type":"e","code":500}}"#,
        &[error("no memory")],
    );
    assert_says(r#"{"error":"no memory"}"#, &[error("no memory")]);
    assert_says(r#"{"error":{"code":7}}"#, &[error(r#"{"code":7}"#)]);
    assert_says(r#"{"object":"error","message":"no memory","code":40303}"#, &[error("no memory")]);
    assert_says(
        r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"message":"gone"}}"#,
        &[MessagePart::Finish("error".into()), error("gone")],
    );
    assert_says(r#"{"choices":[{"delta":{"content":"a"}}],"error":null}"#, &[answer("a")]);
}

#[test]
fn an_event_named_error_is_always_an_error() {
    for (data, message) in [
        (r#"{"error":{"message":"no memory"}}"#, "no memory"),
        (r#"{"detail":"no memory"}"#, "no memory"),
        ("no memory\u{7}", "no memory\\u{7}"),
        ("", "the server sent an error event without data"),
    ] {
        let said = OpenAiChat.decode(&event("error", data, true)).expect("decodable");
        assert_eq!(said.parts, [error(message)], "{data}");
    }
    // llama.cpp wrote a field of that name in place of the two lines.
    let mut said = Vec::new();
    let mut sink = |frame: Frame<'_>| {
        let message = OpenAiChat.decode(&frame).expect("decodable");
        said.extend(message.parts.iter().map(format_part));
    };
    let mut decoder = OpenAiChat.framing().decoder();
    decoder.push(b"error: {\"code\":500,\"message\":\"no memory\"}\n\n", &mut sink).unwrap();
    assert_eq!(said, [r#"Error "no memory""#]);
}

#[test]
fn comments_and_empty_data_have_no_parts_and_done_is_the_end() {
    assert_eq!(OpenAiChat.decode(&Frame::Comment(b" ping")), Ok(Message::default()));
    assert_says("", &[]);
    assert_says("[DONE]", &[MessagePart::End]);
    assert_says(" [DONE] ", &[MessagePart::End]);
}

#[test]
fn the_id_and_the_text_are_borrowed_when_they_have_no_escapes() {
    let data = r#"{"id":"c-1","choices":[{"delta":{"content":"Grüße"},"finish_reason":"stop"}]}"#;
    let message = OpenAiChat.decode(&event("", data, true)).expect("decodable");
    assert!(matches!(message.id, Some(Cow::Borrowed("c-1"))));
    assert!(matches!(&message.parts[0], MessagePart::Token(_, Cow::Borrowed("Grüße"))));
    assert!(matches!(&message.parts[1], MessagePart::Finish(Cow::Borrowed("stop"))));
    assert_says(&delta(r#"{"content":"\n\ud83e\udd80"}"#), &[answer("\n🦀")]);
}

#[test]
fn data_that_is_not_a_chunk_is_quoted() {
    let problem =
        |frame: Frame<'_>| OpenAiChat.decode(&frame).expect_err("undecodable").to_string();
    insta::assert_snapshot!(problem(event("", r#"{"choices":[{"del"#, true)), @r#"an event is not JSON (EOF while parsing a string at line 1 column 17): {"choices":[{"del"#);
    insta::assert_snapshot!(problem(event("", r#"{"choices":[{"del"#, false)), @r#"the stream was cut in the middle of an event: {"choices":[{"del"#);
    let long = problem(event("", &format!("{{{}", "é".repeat(121)), true));
    assert!(long.ends_with(&format!(": {{{}…", "é".repeat(119))), "{long}");
}

#[test]
fn a_whole_event_without_its_blank_line_is_read() {
    let frame = event("", r#"{"choices":[{"delta":{"content":"a"}}]}"#, false);
    assert_eq!(OpenAiChat.decode(&frame).map(|message| message.parts), Ok(vec![answer("a")]));
}

// -- error bodies ---------------------------------------------------------------------------------

#[test]
fn an_error_body_has_a_message() {
    let says = |body: &str| OpenAiChat.decode_error(body.as_bytes());
    for (body, message) in [
        (
            r#"{"error":{"message":"no such model","type":"NotFoundError","code":404}}"#,
            "no such model",
        ),
        (r#"{"error":"Unauthorized"}"#, "Unauthorized"),
        (r#"{"detail":"Invalid API key"}"#, "Invalid API key"),
        (
            r#"{"detail":[{"loc":["body","messages",0],"msg":"Field required"},{"msg":"and more"}]}"#,
            "body.messages.0: Field required; and more",
        ),
        (r#"{"detail":[7]}"#, "7"),
        (r#"{"object":"error","message":"too long"}"#, "too long"),
        (r#"[{"error":{"code":400,"message":"no key"}}]"#, "no key"),
    ] {
        assert_eq!(says(body).as_deref(), Some(message), "{body}");
    }
    for body in ["", "Internal Server Error", "{}", r#"{"choices":[]}"#, r#"{"error":null}"#, "[]"]
    {
        assert_eq!(says(body), None, "{body}");
    }
}

proptest! {
    #[test]
    fn an_error_body_is_read_back(status in 400..600_u16, message in ".+") {
        let body = OpenAiChat.encode_error(status, &message);
        prop_assert_eq!(OpenAiChat.decode_error(&body), Some(message));
    }
}

// -- encode ---------------------------------------------------------------------------------------

const ENVELOPE: Envelope<'static> = Envelope { model: "m", created: 1_795_501_696 };

fn encoded(message: &Message<'_>) -> String {
    String::from_utf8(OpenAiChat.encode(message, &ENVELOPE)).expect("JSON is UTF-8")
}

#[test]
fn messages_are_written_as_vllm_writes_them() {
    let id = Some("chatcmpl-1".into());
    let usage = Usage { prompt_tokens: Some(39), cached_tokens: Some(0), ..Usage::default() };
    let messages = [
        vec![MessagePart::Role],
        vec![token(TokenKind::Reasoning, "hm")],
        vec![answer("Grü\"ße"), MessagePart::Finish("length".into())],
        vec![token(TokenKind::ToolCall, "{}")],
        vec![MessagePart::Usage(usage)],
        vec![answer("a"), answer("b"), error("gone"), MessagePart::End],
    ];
    let written = messages.map(|parts| encoded(&Message { id: id.clone(), parts })).concat();
    insta::assert_snapshot!(written);
    insta::assert_snapshot!(encoded(&Message { id: None, parts: vec![MessagePart::End] }), @"data: [DONE]");
}

// -- the request ----------------------------------------------------------------------------------

fn body(extra: Value) -> Value {
    let extra_body = extra.as_object().expect("an object");
    OpenAiChat.body(&ChatRequest {
        documents: &[],
        batch: 1,
        model: "m",
        messages: &Prompt::new("p", Some("Be brief."), "Hello").messages,
        temperature: Some(0.0),
        max_tokens: 64,
        min_tokens: None,
        ignore_eos: false,
        tools: &Tools::default(),
        extra_body,
    })
}

#[test]
fn the_body_requests_a_stream_with_usage() {
    insta::assert_snapshot!(body(json!({})), @r#"{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hello"}],"temperature":0.0,"max_tokens":64,"stream":true,"stream_options":{"include_usage":true}}"#);
    let ask = ChatRequest {
        documents: &[],
        batch: 1,
        model: "m",
        messages: &Prompt::new("p", None, "Hello").messages,
        temperature: Some(0.7),
        max_tokens: 1,
        min_tokens: None,
        ignore_eos: false,
        tools: &Tools::default(),
        extra_body: &Map::new(),
    };
    insta::assert_snapshot!(OpenAiChat.body(&ask)["messages"], @r#"[{"role":"user","content":"Hello"}]"#);
}

#[test]
fn the_users_own_fields_are_added_last() {
    let written = body(json!({
        "top_k": 1,
        "chat_template_kwargs": {"enable_thinking": false},
        "stream_options": {"continuous_usage_stats": true},
    }));
    insta::assert_snapshot!(written, @r#"{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hello"}],"temperature":0.0,"max_tokens":64,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"top_k":1,"chat_template_kwargs":{"enable_thinking":false}}"#);
}

#[test]
fn max_completion_tokens_replaces_max_tokens() {
    let written = body(json!({"max_completion_tokens": 9}));
    assert_eq!(written.get("max_tokens"), None);
    assert_eq!(written["max_completion_tokens"], 9);
}

#[test]
fn fields_that_would_break_the_measurement_are_refused() {
    let refused = [
        ("stream", json!(false)),
        ("stream_options", json!({"include_usage": false})),
        ("stream_options", json!(false)),
        ("n", json!(2)),
        ("best_of", json!(2)),
        ("use_beam_search", json!(true)),
        ("echo", json!(true)),
        ("messages", json!([])),
        ("model", json!("m")),
        ("temperature", json!(0)),
        ("max_tokens", json!(9)),
    ];
    let why = |(key, value): &(&str, Value)| {
        OpenAiChat.forbidden_field(key, value).expect("refused") + "\n"
    };
    insta::assert_snapshot!(refused.iter().map(why).collect::<String>(), @r#"
    `stream: false` would turn off the stream that is measured: write it as a field of the model instead
    `stream_options: {"include_usage":false}` would turn off the token counts that the speeds are computed from; for a server that refuses the field, `stream_options: null` leaves it out, and `token_count` says who counts then
    `stream_options: false` is not a mapping; for a server that refuses the field, `stream_options: null` leaves it out
    `n: 2` would mix several answers in the stream that is measured
    `best_of: 2` would have answers generated that are never streamed
    `use_beam_search: true` would hold tokens back until the search ends
    `echo: true` would stream the prompt as if it were generated
    `messages` is made from the prompts: use `prompts`
    `model` is set by the model's field `model_name`
    `temperature` is set by the model's field `temperature`
    `max_tokens` is set by the model's field `max_tokens`
    "#);
    for (key, value) in [
        ("stream", json!(true)),
        ("stream_options", json!({"include_usage": true, "continuous_usage_stats": true})),
        ("stream_options", json!({"continuous_usage_stats": true})),
        ("n", json!(1)),
        ("n", json!(null)),
        ("stream_options", json!(null)),
        ("stream_options", json!({"include_usage": null})),
        ("echo", json!(false)),
        ("return_progress", json!(true)),
        ("max_completion_tokens", json!(9)),
    ] {
        assert_eq!(OpenAiChat.forbidden_field(key, &value), None, "{key}: {value}");
    }
}
