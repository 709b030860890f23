//! What real servers and gateways send besides what their protocol says: details that no figure
//! needs cost nothing, text is found wherever it is, and an error is an error in every shape.

use std::{path::Path, time::Duration};

use clap::Parser as _;
use llm_stream_bench::{
    cli::Cli,
    config::{Config, TokenCount},
    plan::Plan,
};
use llm_stream_core::{
    framing::Framing,
    metric::Metric,
    protocol::{self, MessagePart, OpenAiChat, OpenAiResponses, Protocol, TextFields, TokenKind},
    recording::{ErrorKind, Recording, RequestError},
    sample::{self, Note, Sample},
};

use crate::protocols::{ENVELOPE, alone, recording, rhythm, trailer};

type Events = Vec<(u64, Vec<u8>)>;

fn read(protocol: &dyn Protocol, events: Events) -> Result<Sample, RequestError> {
    sample::read(&recording(events), protocol, TokenCount::Usage)
}

#[track_caller]
fn valid(protocol: &dyn Protocol, events: Events) -> Sample {
    let name = protocol.name();
    read(protocol, events).unwrap_or_else(|error| panic!("{name}: {}: {error}", error.kind))
}

fn figure(sample: &Sample, name: &str) -> Option<f64> {
    Metric::named(name).and_then(|metric| metric.of(sample))
}

/// What must be the same whatever else a server sends.
fn figures(sample: &Sample) -> Vec<Option<f64>> {
    let names = ["ttft", "ttfo", "tpot", "generation_speed", "itl_max", "e2e", "response_tokens"];
    names.map(|name| figure(sample, name)).to_vec()
}

/// An answer of twenty tokens from 50 ms on, 10 ms apart, with `data` in an event at 95 ms.
fn with_event(protocol: &dyn Protocol, event: &[u8]) -> Events {
    let mut events = rhythm(protocol);
    events.insert(6, (95, event.to_vec()));
    [events, trailer(protocol)].concat()
}

/// `data` as a frame of the protocol.
fn frame(protocol: &dyn Protocol, data: &str) -> Vec<u8> {
    match protocol.framing() {
        Framing::Events => format!("data: {data}\n\n").into_bytes(),
        Framing::Lines => format!("{data}\n").into_bytes(),
        Framing::Document => data.as_bytes().to_vec(),
    }
}

fn plain(protocol: &dyn Protocol) -> Sample {
    valid(protocol, [rhythm(protocol), trailer(protocol)].concat())
}

// -- what no figure needs -------------------------------------------------------------------------

#[test]
fn events_without_content_change_nothing() {
    for protocol in protocol::ALL {
        for data in [
            "null",
            "ping",
            "PING",
            "\"ping\"",
            "keep-alive",
            "heartbeat",
            "[]",
            "{}",
            "\"\"",
            "[null]",
            "[PING]",
            "[HEARTBEAT]",
            "[KEEP-ALIVE]",
        ] {
            let sample = valid(*protocol, with_event(*protocol, &frame(*protocol, data)));
            assert_eq!(figures(&sample), figures(&plain(*protocol)), "{}: {data}", protocol.name());
            assert_eq!(sample.notes, [], "{}: {data}", protocol.name());
        }
    }
}

#[test]
fn unknown_events_are_skipped_and_noted() {
    for protocol in protocol::ALL {
        for data in ["Processing your request", "123", "true", "\"hello\"", "OK"] {
            let sample = valid(*protocol, with_event(*protocol, &frame(*protocol, data)));
            assert_eq!(figures(&sample), figures(&plain(*protocol)), "{}: {data}", protocol.name());
            assert_eq!(sample.notes, [Note::UnreadEvents], "{}: {data}", protocol.name());
        }
    }
}

#[test]
fn other_named_events_may_hold_anything() {
    for protocol in protocol::ALL.iter().filter(|p| p.framing() == Framing::Events) {
        for (event, notes) in [
            ("event: ping\ndata: hello\n\n", &[][..]),
            ("event: ping\ndata: {\"type\":\"ping\"}\n\n", &[]),
            ("event: heartbeat\ndata\n\n", &[]),
            ("event: metrics\ndata: {\"queue\":3,\"message\":\"busy\"}\n\n", &[]),
            ("event: metrics\ndata: {broken\n\n", &[Note::UnreadEvents]),
            ("event: metrics\ndata: queue is long\n\n", &[Note::UnreadEvents]),
            ("event: \u{1f600}\ndata: {\"a\"\n\n", &[Note::UnreadEvents]),
        ] {
            let sample = valid(*protocol, with_event(*protocol, event.as_bytes()));
            let name = protocol.name();
            assert_eq!(figures(&sample), figures(&plain(*protocol)), "{name}: {event}");
            assert_eq!(sample.notes, notes, "{name}: {event}");
        }
    }
}

#[test]
fn an_event_that_can_hold_a_token_must_be_complete() {
    for protocol in protocol::ALL {
        let (_, token) = rhythm(*protocol).pop().expect("a token");
        let text = String::from_utf8(token).expect("text");
        let broken = text.replace("}\n", "\n");
        assert_ne!(broken, text);
        let error = read(*protocol, with_event(*protocol, broken.as_bytes())).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed, "{}", protocol.name());
        assert!(error.message.starts_with("after 5 token events: an event is not JSON"), "{error}");
    }
}

/// Every event of the answer, its JSON changed by `change`.
fn changed(protocol: &dyn Protocol, change: impl Fn(&str) -> Vec<u8>) -> Events {
    let events = [rhythm(protocol), trailer(protocol)].concat();
    let change = |bytes: Vec<u8>| change(&String::from_utf8(bytes).expect("text"));
    events.into_iter().map(|(at, bytes)| (at, change(bytes))).collect()
}

#[test]
fn unread_fields_may_hold_anything() {
    for protocol in protocol::ALL {
        for field in [
            r#""zz":NaN,"#,
            r#""zz":[-Infinity,Infinity],"#,
            r#""zz":1,"zz":2,"#,
            r#""zz":"\ud83d","#,
            r#""zz":{"a":None,"b":True},"#,
            r#""zz":123456789012345678901234567890,"zy":1e999,"#,
            r#""logprobs":[{"token":"a","logprob":-inf}],"#,
            &format!(r#""zz":{}{},"#, "[".repeat(500), "]".repeat(500)),
        ] {
            let events = changed(*protocol, |text| {
                text.replacen('{', &format!("{{{field}"), 1).into_bytes()
            });
            let sample = valid(*protocol, events);
            assert_eq!(
                figures(&sample),
                figures(&plain(*protocol)),
                "{}: {field}",
                protocol.name()
            );
            assert_eq!(sample.notes, [], "{}: {field}", protocol.name());
        }
    }
}

#[test]
fn invalid_unicode_is_still_a_token() {
    for protocol in protocol::ALL {
        for text in [
            &br"\ud83d"[..],
            br"\ude00",
            b"\xff",
            b"\xed\xa0\xbd",
            br"\u12",
            br"it\'s",
            b"\x01",
            b"caf\xe9",
        ] {
            let events = changed(*protocol, |event| {
                let parts: Vec<_> = event.split("\"a\"").map(str::as_bytes).collect();
                parts.join(&[b"\"", text, b"\""].concat()[..])
            });
            let sample = valid(*protocol, events);
            let name = protocol.name();
            assert_eq!(
                figures(&sample),
                figures(&plain(*protocol)),
                "{name}: {}",
                text.escape_ascii()
            );
        }
    }
}

#[test]
fn the_last_of_two_equal_keys_counts() {
    for protocol in protocol::ALL {
        let events = changed(*protocol, |event| {
            let twice = ["content", "text", "delta"].iter().fold(event.to_owned(), |text, key| {
                text.replace(
                    &format!("\"{key}\":\"a\""),
                    &format!("\"{key}\":null,\"{key}\":\"a\""),
                )
            });
            twice.into_bytes()
        });
        assert_eq!(
            figures(&valid(*protocol, events)),
            figures(&plain(*protocol)),
            "{}",
            protocol.name()
        );
    }
}

#[test]
fn the_end_marker_may_be_written_loosely() {
    for marker in ["[DONE]", "\"[DONE]\"", "DONE", "[Done]", " [DONE] ", "\"DONE\""] {
        let mut events = [rhythm(&OpenAiChat), trailer(&OpenAiChat)].concat();
        events.pop();
        events.push((900, frame(&OpenAiChat, marker)));
        assert_eq!(valid(&OpenAiChat, events).notes, [], "{marker}");
    }
}

// -- chat completions -----------------------------------------------------------------------------

const STOP: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;

/// A chat chunk with this delta.
fn delta(json: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{json},"finish_reason":null}}]}}"#)
}

fn usage(tokens: u64) -> String {
    format!(r#"{{"choices":[],"usage":{{"prompt_tokens":12,"completion_tokens":{tokens}}}}}"#)
}

/// A chat answer: chunks at their times, then whatever `tail` has, then the end marker.
fn chat(chunks: &[(u64, String)], tail: &[String]) -> Events {
    let end = chunks.last().map_or(0, |(at, _)| at + 1);
    let tail = tail.iter().map(|data| (end, data.clone()));
    let all = chunks.iter().cloned().chain(tail).chain([(end, "[DONE]".to_owned())]);
    all.map(|(at, data)| (at, format!("data: {data}\n\n").into_bytes())).collect()
}

fn tail(tokens: u64) -> [String; 2] {
    [STOP.to_owned(), usage(tokens)]
}

/// Twenty chunks of which the first ten have `first` and the others a plain text, 10 ms apart.
fn twenty(first: &str) -> Vec<(u64, String)> {
    let chunk = |n: u64| match n {
        0..10 => (50 + 10 * n, delta(first)),
        _ => (50 + 10 * n, delta(r#"{"content":"a"}"#)),
    };
    (0..20).map(chunk).collect()
}

#[test]
fn reasoning_is_found_in_every_field() {
    for first in [
        r#"{"reasoning_content":"h"}"#,
        r#"{"reasoning":"h"}"#,
        r#"{"reasoning_text":"h"}"#,
        r#"{"thinking":"h"}"#,
        r#"{"thinking":{"content":"h"}}"#,
        r#"{"role":"assistant","content":"","reasoning_details":[{"type":"reasoning.text","id":"r1","format":"x","index":0,"text":"h"}]}"#,
        r#"{"reasoning_details":[{"type":"reasoning.summary","summary":"h"}]}"#,
        r#"{"reasoning_details":{"type":"reasoning.text","text":"h"}}"#,
        r#"{"reasoning":"h","reasoning_details":[{"type":"reasoning.text","text":"h"}]}"#,
        r#"{"thinking_blocks":[{"type":"thinking","thinking":"h","signature":"s"}]}"#,
        r#"{"content":[{"type":"reasoning","summary":[{"type":"summary_text","text":"h","signature":""}]}]}"#,
        r#"{"content":[{"type":"reasoning","text":"h"}]}"#,
        r#"{"content":[{"type":"thinking","thinking":"h"}]}"#,
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"h"}]}]}"#,
        r#"{"content":[{"type":"summary_text","text":"h"}]}"#,
        r#"{"content":{"type":"thinking","thinking":"h"}}"#,
        r#"{"reasoning":{"thought":"h"}}"#,
        r#"{"reasoning_content":{"value":"h"}}"#,
        r#"{"thinking":{"delta":"h"}}"#,
        r#"{"reasoning":[{"type":"x","value":"h"}]}"#,
        r#"{"reasoning_details":[{"type":"reasoning.text","thought":"h"}]}"#,
        r#"{"thinking_blocks":[{"type":"thinking","value":"h","signature":"s"}]}"#,
        r#"{"content":[{"type":"reasoning","summary":[{"type":"summary_text","value":"h"}]}]}"#,
        r#"{"content":[{"type":"reasoning_content","reasoning_content":{"reasoningText":{"text":"h"}}}]}"#,
    ] {
        let sample = valid(&OpenAiChat, chat(&twenty(first), &tail(20)));
        assert_eq!(figure(&sample, "ttft"), Some(0.050), "{first}");
        assert_eq!(figure(&sample, "ttfo"), Some(0.150), "{first}");
        assert_eq!(figure(&sample, "generation_speed"), Some(20.0 / 0.190), "{first}");
        assert_eq!((sample.token_events.len(), sample.notes.as_slice()), (20, &[][..]), "{first}");
    }
}

#[test]
fn answer_text_is_found_in_every_form() {
    for first in [
        r#"{"content":42}"#,
        r#"{"content":4.2}"#,
        r#"{"content":true}"#,
        r#"{"content":[{"type":"text","text":"h"}]}"#,
        r#"{"content":[{"type":"output_text","text":"h"}]}"#,
        r#"{"content":{"type":"text","text":"h"}}"#,
        r#"{"content":["h"]}"#,
        r#"{"content":null,"refusal":"h"}"#,
        r#"{"audio":{"id":"a","transcript":"h"}}"#,
        r#"{"audio":{"id":"a","text":"h","data":"UklGRg=="}}"#,
        r#"{"audio":{"transcript":{"text":"h"}}}"#,
        r#"{"refusal":{"text":"h"}}"#,
        r#"{"refusal":["h"]}"#,
        r#"{"content":[{"type":"text","text":{"value":"h","annotations":[]}}]}"#,
        r#"{"content":{"parts":[{"text":"h"}]}}"#,
        r#"{"tool_calls":[{"type":"code_interpreter","code_interpreter":{"input":"h"}}]}"#,
        r#"{"tool_calls":[{"type":"retrieval","retrieval":{"arguments":"h"}}]}"#,
        r#"{"tool_calls":[{"type":"mcp","mcp":{"arguments":"h"}}]}"#,
        r#"{"tool_calls":[{"custom":{"input_delta":"h"}}]}"#,
        r#"{"tool_calls":[{"index":0,"delta":"h"}]}"#,
        r#"{"tool_calls":[{"function":{"partial_json":"h"}}]}"#,
        r#"{"tool_calls":[{"function":"{\"name\":\"f\"}"}]}"#,
        r#"{"tool_calls":[{"function":[{"arguments":"h"}]}]}"#,
        r#"{"function_call":"h"}"#,
        r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":{"city":"Rome"}}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":["Rome"]}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":42}}]}"#,
        r#"{"tool_calls":[{"name":"f","arguments":"{"}]}"#,
        r#"{"tool_calls":{"function":{"arguments":"{"}}}"#,
        r#"{"function_call":{"arguments":{"a":1}}}"#,
    ] {
        let sample = valid(&OpenAiChat, chat(&twenty(first), &tail(20)));
        assert_eq!(figure(&sample, "ttft"), Some(0.050), "{first}");
        assert_eq!(figure(&sample, "ttfo"), Some(0.050), "{first}");
        assert_eq!((sample.token_events.len(), sample.notes.as_slice()), (20, &[][..]), "{first}");
    }
}

#[test]
fn an_empty_piece_is_not_a_token() {
    for first in [
        "[]",
        "null",
        r#"{"content":[]}"#,
        r#"{"content":{}}"#,
        r#"{"content":""}"#,
        r#"{"reasoning_details":[]}"#,
        r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"gAAAAA"}]}"#,
        r#"{"tool_calls":[]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"name":null,"arguments":""}}]}"#,
        r#"{"role":"assistant","obfuscation":"x4Tz9","id":"c","item_id":"i","signature":"s"}"#,
        r#"{"system_fingerprint":"fp","thought_signature":"abc","metadata":{"a":"b"}}"#,
        r#"{"itemId":"i","item_ids":["i"],"content_hash":"h","thoughtSignature":"s","uuid":"u"}"#,
        r#"{"refusal":false,"reasoning":false,"thinking":true,"reasoning_effort":null}"#,
        r#"{"reasoning":{"effort":"high","summary":null},"audio":{"data":"UklGRg==","expires_at":1}}"#,
        r#"{"content":[{"type":"redacted_thinking","data":"gAAAAA"}]}"#,
        r#"{"usage":{"note":"x"}}"#,
    ] {
        let sample = valid(&OpenAiChat, chat(&twenty(first), &tail(10)));
        assert_eq!(figure(&sample, "ttft"), Some(0.150), "{first}");
        assert_eq!((sample.token_events.len(), sample.unread.len()), (10, 0), "{first}");
    }
}

#[test]
fn text_in_an_unknown_field_is_noted_with_its_name() {
    for (first, name) in [
        (r#"{"thoughts":"h"}"#, "thoughts"),
        (r#"{"content":"","inner":{"parts":["h"]}}"#, "inner"),
        (r#"{"role":"assistant","draft":[{"type":"x","body":"h"}]}"#, "draft"),
        (r#"{"content":[],"note":"h"}"#, "note"),
        (r#"{"content":[{"type":"odd","body":"h"}]}"#, "body"),
        (r#"{"provider_specific_fields":{"musing":"h"}}"#, "provider_specific_fields"),
        (r#"{"reasoning":{"musing":"h"}}"#, "reasoning.musing"),
        (
            r#"{"thinking_blocks":[{"type":"thinking","musing":{"body":"h"}}]}"#,
            "thinking_blocks.musing",
        ),
        (r#"{"content":[{"type":"text","text":{"body":"h"}}]}"#, "body"),
        (r#"{"content":[{"type":"text","data":"h"}]}"#, "data"),
        (r#"{"refusal":{"body":"h"}}"#, "refusal.body"),
        (r#"{"audio":{"body":"h"}}"#, "audio.body"),
        (
            r#"{"tool_calls":[{"type":"web_search","web_search":{"outputs":[{"body":"h"}]}}]}"#,
            "tool_calls",
        ),
        (r#"{"data":"h"}"#, "data"),
        (r#"{"liquid":"h"}"#, "liquid"),
        (r#"{"rehash":"h"}"#, "rehash"),
        (r#"{"metadata":{"reasoning":"h"}}"#, "metadata"),
    ] {
        let read = valid(&OpenAiChat, chat(&twenty(first), &tail(20)));
        assert_eq!(read.token_events.len(), 10, "{first}");
        assert!(read.notes.contains(&Note::UnreadText), "{first}: {:?}", read.notes);
        let unread: Vec<_> = read.unread.iter().map(|f| (f.name.as_str(), f.alone)).collect();
        assert_eq!(unread, [(name, true)], "{first}");
    }
}

#[test]
fn an_answer_of_unread_text_only_fails_with_the_name_of_the_field() {
    let chunks: Vec<_> = (0..4).map(|n| (50 + 10 * n, delta(r#"{"thoughts":"h"}"#))).collect();
    let error = read(&OpenAiChat, chat(&chunks, &tail(4))).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoToken);
    let expected = "; text came in `thoughts`: name it in `text_fields`";
    assert!(error.message.ends_with(expected), "{error}");
    // The events of another protocol.
    let other = r#"{"output":{"finish_reason":"null"},"request_id":"r"}"#;
    let error = read(&OpenAiChat, chat(&[(50, other.to_owned())], &tail(4))).unwrap_err();
    assert!(error.message.ends_with(&format!("; an event was `{other}`")), "{error}");
}

#[test]
fn text_next_to_a_known_token_does_not_affect_figures() {
    let sample = valid(&OpenAiChat, chat(&twenty(r#"{"content":"a","gloss":"b"}"#), &tail(20)));
    assert_eq!(sample.token_events.len(), 20);
    assert!(!sample.unread[0].alone);
}

#[test]
fn the_config_defines_an_unknown_field() {
    let recording = recording(chat(&twenty(r#"{"thoughts":"h"}"#), &tail(20)));
    let read = |fields: &TextFields| {
        sample::read_with(&recording, &OpenAiChat, TokenCount::Usage, fields).expect("valid")
    };
    let text = |kind| TextFields { text: vec![("thoughts".into(), kind)], ..TextFields::default() };
    let reasoning = read(&text(TokenKind::Reasoning));
    assert_eq!(figure(&reasoning, "ttft"), Some(0.050));
    assert_eq!(figure(&reasoning, "ttfo"), Some(0.150));
    let answer = read(&text(TokenKind::Answer));
    assert_eq!(figure(&answer, "ttfo"), Some(0.050));
    let ignored = TextFields { ignored: vec!["thoughts".into()], ..TextFields::default() };
    let ignored = read(&ignored);
    assert_eq!(figure(&ignored, "ttft"), Some(0.150));
    for sample in [reasoning, answer, ignored] {
        assert!(!sample.notes.contains(&Note::UnreadText), "{:?}", sample.notes);
    }
}

#[test]
fn the_config_may_name_any_field() {
    for (first, name) in [
        (r#"{"data":"h"}"#, "data"),
        (r#"{"name":"h"}"#, "name"),
        (r#"{"status":"h"}"#, "status"),
        (r#"{"format":"h"}"#, "format"),
        (r#"{"item_id":"h"}"#, "item_id"),
        (r#"{"metadata":{"musing":"h"}}"#, "metadata"),
        (r#"{"content":[{"type":"x","name":"h"}]}"#, "name"),
        (r#"{"reasoning":{"musing":"h"}}"#, "reasoning.musing"),
        (r#"{"reasoning":{"musing":"h"}}"#, "musing"),
    ] {
        let fields =
            TextFields { text: vec![(name.into(), TokenKind::Answer)], ..TextFields::default() };
        let recording = recording(chat(&twenty(first), &tail(20)));
        let read = sample::read_with(&recording, &OpenAiChat, TokenCount::Usage, &fields);
        let sample = read.unwrap_or_else(|error| panic!("{first}: {error}"));
        assert_eq!(figure(&sample, "ttfo"), Some(0.050), "{first}");
        assert_eq!((sample.token_events.len(), sample.notes.as_slice()), (20, &[][..]), "{first}");
    }
}

#[test]
fn text_next_to_the_field_of_a_protocol_is_noted() {
    let of = |name: &str, event: &str| {
        let protocol = protocol::by_name(name).expect("a protocol");
        let events: Vec<_> = (0..10).map(|n| (50 + 10 * n, frame(protocol, event))).collect();
        let known = rhythm(protocol).into_iter().map(|(at, bytes)| (at + 100, bytes)).take(11);
        let mut all: Events = known.collect();
        let at = usize::from(all[0].0 < 150);
        all.splice(at..at, events);
        valid(protocol, [all, trailer(protocol)].concat())
    };
    for (name, event, field) in [
        ("llamacpp_completion", r#"{"content":"","text":"h","stop":false}"#, "text"),
        (
            "tgi_generate_stream",
            r#"{"token":{"id":1,"text":"","special":false},"text":"h"}"#,
            "text",
        ),
        ("tgi_generate_stream", r#"{"token":{"id":1,"value":"h"}}"#, "value"),
        ("openai_completions", r#"{"choices":[{"text":"","delta":"h"}]}"#, "delta"),
        (
            "openai_chat",
            r#"{"choices":[{"delta":{},"reasoning_content":"h"}]}"#,
            "reasoning_content",
        ),
        ("openai_responses", r#"{"type":"response.output_text.delta","text":"h"}"#, "text"),
        ("ollama_chat", r#"{"message":{"content":{"body":"h"}}}"#, "body"),
        ("ollama_chat", r#"{"response":"h","done":false}"#, "response"),
        (
            "anthropic_messages",
            r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":{"body":"h"}}}"#,
            "text.body",
        ),
    ] {
        let sample = of(name, event);
        let unread: Vec<_> = sample.unread.iter().map(|f| (f.name.as_str(), f.alone)).collect();
        assert_eq!(unread, [(field, true)], "{name}: {event}");
        assert_eq!(sample.doubts.len(), 1, "{name}: {event}");
    }
    for (name, event) in [
        (
            "anthropic_messages",
            r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":{"value":"h"}}}"#,
        ),
        ("ollama_chat", r#"{"message":{"tool_calls":[{"name":"get","arguments":{"a":1}}]}}"#),
    ] {
        let sample = of(name, event);
        assert_eq!(figure(&sample, "ttft"), Some(0.050), "{name}: {event}");
        assert_eq!(sample.unread, [], "{name}: {event}");
    }
}

#[test]
fn several_choices_are_distinguished_from_odd_numbering() {
    let chunk = |n: u64, index: &str| {
        let data = format!(r#"{{"choices":[{{"index":{index},"delta":{{"content":"a"}}}}]}}"#);
        (50 + 10 * n, data)
    };
    let indices: [&[&str]; 9] = [
        &["2", "1", "0"],
        &["1", "1", "1"],
        &["-1", "-1", "-1"],
        &["\"0\"", "\"0\"", "\"0\""],
        &["null", "null", "null"],
        &["0", "1", "2"],
        &["7", "8", "9"],
        &["0.0", "0.0", "0.0"],
        &["{}", "[]", "true"],
    ];
    for of in indices {
        let chunks: Vec<_> = (0..).zip(of).map(|(n, index)| chunk(n, index)).collect();
        let sample = valid(&OpenAiChat, chat(&chunks, &tail(3)));
        assert_eq!(sample.token_events.len(), 3, "{of:?}");
    }
    let with_null = r#"{"choices":[null,{"delta":{"content":"a"}}]}"#;
    assert_eq!(valid(&OpenAiChat, chat(&[(50, with_null.into())], &tail(1))).token_events.len(), 1);
    // Some number the blocks of an answer.
    let piece = |n: u64, index: u64, delta: &str| {
        (50 + 10 * n, format!(r#"{{"choices":[{{"index":{index},"delta":{delta}}}]}}"#))
    };
    let (text, thought) = (r#"{"content":"a"}"#, r#"{"reasoning":"a"}"#);
    let call = r#"{"tool_calls":[{"function":{"arguments":"a"}}]}"#;
    for blocks in [[(1, thought), (0, text), (0, text)], [(0, text), (1, call), (0, text)]] {
        let chunks: Vec<_> =
            (0..).zip(blocks).map(|(n, (index, of))| piece(n, index, of)).collect();
        let sample = valid(&OpenAiChat, chat(&chunks, &tail(3)));
        assert_eq!(sample.token_events.len(), 3, "{blocks:?}");
    }
    let several = "the answer has several choices, whose tokens cannot be counted separately";
    let two =
        r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#;
    let turns: Vec<_> = (0..4).map(|n| chunk(n, ["0", "1"][n as usize % 2])).collect();
    let after_stop = vec![chunk(0, "0"), (60, STOP.to_owned()), chunk(2, "1")];
    for chunks in [vec![(50, two.to_owned())], turns, after_stop] {
        let error = read(&OpenAiChat, chat(&chunks, &tail(4))).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
        assert!(error.message.ends_with(several), "{error}");
    }
}

// -- counts ---------------------------------------------------------------------------------------

#[test]
fn usage_is_read_under_other_names_and_in_other_forms() {
    for (usage, notes) in [
        (r#"{"prompt_tokens":"12","completion_tokens":"8","total_tokens":"20"}"#, &[][..]),
        (r#"{"prompt_tokens":12.0,"completion_tokens":8.0,"total_tokens":20.0}"#, &[]),
        (r#"{"prompt_tokens":12,"completion_tokens":8,"total_tokens":null}"#, &[]),
        (r#"{"prompt_tokens":12,"completion_tokens":8,"prompt_tokens_details":[]}"#, &[]),
        (r#"{"input_tokens":12,"output_tokens":8}"#, &[Note::RenamedUsage]),
        (r#"{"inputTokens":12,"outputTokens":8,"totalTokens":20}"#, &[Note::RenamedUsage]),
        (r#"{"prompt_tokens":12,"generated_tokens":8}"#, &[Note::RenamedUsage]),
        (
            r#"{"promptTokenCount":12,"candidatesTokenCount":5,"thoughtsTokenCount":3}"#,
            &[Note::RenamedUsage],
        ),
        (r#"{"prompt":12,"completion":8}"#, &[Note::RenamedUsage]),
        (r#"{"prompt_eval_count":12,"eval_count":8}"#, &[Note::RenamedUsage]),
        (r#"{"prompt_tokens":12,"completion_tokens":8,"total_tokens":0}"#, &[Note::TotalBelowSum]),
        (r#"{"prompt_tokens":12,"completion_tokens":8,"total_tokens":5}"#, &[Note::TotalBelowSum]),
    ] {
        let chunks: Vec<_> = (0..8).map(|n| (50 + 10 * n, delta(r#"{"content":"a"}"#))).collect();
        let last = format!(r#"{{"choices":[],"usage":{usage}}}"#);
        let sample = valid(&OpenAiChat, chat(&chunks, &[STOP.into(), last]));
        assert_eq!((sample.prompt_tokens, sample.response_tokens), (Some(12), 8), "{usage}");
        assert_eq!(sample.total_tokens, Some(20), "{usage}");
        assert_eq!(sample.notes, notes, "{usage}");
    }
}

#[test]
fn usage_is_read_in_every_position_and_quoted_if_unreadable() {
    let chunks: Vec<_> = (0..8).map(|n| (50 + 10 * n, delta(r#"{"content":"a"}"#))).collect();
    let read = |last: &str| read(&OpenAiChat, chat(&chunks, &[STOP.into(), last.into()]));
    for last in [
        r#"{"choices":[],"usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":8,"totalTokenCount":20}}"#,
        r#"{"choices":[],"usage_metadata":{"input_tokens":12,"output_tokens":8}}"#,
        r#"{"choices":[{"delta":{"usage":{"prompt_tokens":12,"completion_tokens":8}}}]}"#,
        r#"{"response":{"usage":{"prompt_tokens":12,"completion_tokens":8}}}"#,
    ] {
        let sample = read(last).unwrap_or_else(|error| panic!("{last}: {error}"));
        assert_eq!((sample.prompt_tokens, sample.response_tokens), (Some(12), 8), "{last}");
    }
    for usage in [
        r#"{"prompt_tokens":12,"completion_tokens":-1}"#,
        r#"{"prompt_tokens":12,"completion_tokens":8.5}"#,
        r#"{"in":12,"out":8}"#,
    ] {
        let error = read(&format!(r#"{{"choices":[],"usage":{usage}}}"#)).expect_err(usage);
        assert_eq!(error.kind, ErrorKind::NoUsage, "{usage}");
        assert!(error.message.ends_with(&format!("its usage was `{usage}`")), "{error}");
    }
    let error = read(r#"{"choices":[]}"#).expect_err("no usage");
    assert!(!error.message.contains("its usage was"), "{error}");
}

#[test]
fn usage_counts_after_the_end_marker_and_before_the_last_text() {
    let chunks: Vec<_> = (0..8).map(|n| (50 + 10 * n, delta(r#"{"content":"a"}"#))).collect();
    let mut after = chat(&chunks, &[STOP.to_owned()]);
    after.push((130, frame(&OpenAiChat, &usage(8))));
    let sample = valid(&OpenAiChat, after);
    assert_eq!((sample.response_tokens, sample.notes), (8, vec![Note::UsageAfterEnd]));

    let text_last = [STOP.to_owned(), usage(8), delta(r#"{"content":"a"}"#)];
    let sample = valid(&OpenAiChat, chat(&chunks[..7], &text_last));
    assert_eq!((sample.response_tokens, sample.token_events.len()), (8, 8));
    assert!(sample.notes.contains(&Note::TextAfterUsage), "{:?}", sample.notes);

    // A count without a finish reason is one so far.
    let so_far = [usage(7), delta(r#"{"content":"a"}"#), STOP.to_owned()];
    let error = read(&OpenAiChat, chat(&chunks[..7], &so_far)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoUsage);

    let mut text_after = [rhythm(&OpenAiChat), trailer(&OpenAiChat)].concat();
    text_after.push((950, frame(&OpenAiChat, &delta(r#"{"content":"a"}"#))));
    let sample = valid(&OpenAiChat, text_after);
    assert_eq!((sample.token_events.len(), sample.notes), (20, vec![Note::TextAfterEnd]));
}

// -- errors ---------------------------------------------------------------------------------------

#[test]
fn an_error_of_every_form_fails_the_answer() {
    for protocol in protocol::ALL {
        for (shape, words) in [
            (r#"{"error":500}"#, r#"{"error":500}"#),
            (r#"{"error":true}"#, r#"{"error":true}"#),
            (r#"{"error":["W"]}"#, "W"),
            (r#"{"error":{}}"#, r#"{"error":{}}"#),
            (r#"{"error":{"code":503}}"#, r#"{"code":503}"#),
            (r#"{"error":"W"}"#, "W"),
            (r#"{"error":{"message":{"error":{"message":"W"}}}}"#, "W"),
            (r#"{"errors":[{"message":"W"}]}"#, "W"),
            (r#"{"error_code":17,"error_msg":"W"}"#, "W"),
            (r#"{"errorCode":"E1","errorMessage":"W"}"#, "W"),
            (r#"{"Error":"W"}"#, "W"),
            (r#"{"base_resp":{"status_code":1002,"status_msg":"W"}}"#, "W"),
            (r#"{"base_resp":{"status_code":1002}}"#, r#"{"status_code":1002}"#),
            (r#"{"type":"error","errors":[{"message":"W"}]}"#, "W"),
            (r#"{"type":"error","message":"W"}"#, "W"),
            (r#"{"status":"failed","error_message":"W"}"#, "W"),
            (r#"{"object":"error","message":"W","code":50002}"#, "W"),
            (r#"{"code":1301,"msg":"W"}"#, "W"),
            (r#"{"detail":"W"}"#, "W"),
            (r#"{"error":true,"reason":"W"}"#, "W"),
            (r#"{"error":NaN,"error_msg":"W"}"#, "W"),
        ] {
            let outcome = read(*protocol, with_event(*protocol, &frame(*protocol, shape)));
            let name = protocol.name();
            let error = outcome.map(|s| s.notes).expect_err(&format!("{name}: {shape}"));
            assert_eq!(error.kind, ErrorKind::InBand, "{name}: {shape}: {error}");
            let expected = format!(
                "the server reported an error inside the stream, after 5 token events: {words}"
            );
            assert_eq!(error.message, expected, "{name}: {shape}");
        }
    }
}

#[test]
fn placeholders_of_no_error_do_not_fail_the_answer() {
    for protocol in protocol::ALL {
        for field in [
            r#""error":null,"#,
            r#""error":false,"#,
            r#""error":"","#,
            r#""errors":[],"#,
            r#""error_code":0,"error_msg":"","#,
            r#""base_resp":{"status_code":0,"status_msg":"success"},"#,
            r#""code":0,"msg":"ok","#,
            r#""success":true,"#,
        ] {
            let events = changed(*protocol, |text| {
                text.replacen('{', &format!("{{{field}"), 1).into_bytes()
            });
            assert_eq!(valid(*protocol, events).notes, [], "{}: {field}", protocol.name());
        }
    }
}

#[test]
fn an_error_in_an_event_of_a_known_type_is_found() {
    for (name, events) in [
        (
            "anthropic_messages",
            &[
                r#"{"type":"message_start","message":{"id":"a"},"error":{"message":"W"}}"#,
                r#"{"type":"message_start","message":{"id":"a","error":{"message":"W"}}}"#,
                r#"{"type":"content_block_start","content_block":{"type":"error","message":"W"}}"#,
                r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"},"error":"W"}"#,
                r#"{"type":"content_block_delta","delta":{"type":"error","error":{"message":"W"}}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","error":"W"}}"#,
                r#"{"type":"message_stop","error":{"message":"W"}}"#,
            ][..],
        ),
        (
            "openai_responses",
            &[
                r#"{"type":"response.created","error":{"message":"W"}}"#,
                r#"{"type":"response.in_progress","response":{"error":{"message":"W"}}}"#,
                r#"{"type":"response.created","response":{"status":"failed","error":{"message":"W"}}}"#,
                r#"{"type":"response.output_item.added","item":{},"error":{"message":"W"}}"#,
                r#"{"type":"response.completed","response":{"status":"completed","error":{"message":"W"}}}"#,
                r#"{"type":"response.incomplete","error":{"message":"W"},"response":{}}"#,
                r#"{"type":"response.failed","response":{"last_error":{"message":"W"}}}"#,
                r#"{"type":"response.failed","response":{"status_details":{"error":{"message":"W"}}}}"#,
            ],
        ),
        ("ollama_chat", &[r#"{"message":{"content":"a","error":"W"},"done":false}"#]),
        ("llamacpp_completion", &[r#"{"content":"a","error":{"message":"W"},"stop":false}"#]),
        (
            "tgi_generate_stream",
            &[
                r#"{"token":{"text":"a","error":"W"}}"#,
                r#"{"token":{"text":"a"},"details":{"error":"W"}}"#,
            ],
        ),
    ] {
        let protocol = protocol::by_name(name).expect("a protocol");
        for event in events {
            let events = with_event(protocol, &frame(protocol, event));
            let error = read(protocol, events).expect_err(event);
            assert_eq!(error.kind, ErrorKind::InBand, "{event}");
            assert!(error.message.ends_with(": W"), "{event}: {error}");
        }
    }
}

#[test]
fn an_error_outside_of_events_is_found() {
    let sse = |protocol: &&&dyn Protocol| protocol.framing() == Framing::Events;
    for protocol in protocol::ALL.iter().filter(sse) {
        for (lines, words) in [
            ("{\"error\":{\"message\":\"W\"}}\n\n", "W"),
            ("{\n  \"error\": {\n    \"message\": \"W\"\n  }\n}\n\n", "W"),
            ("{\"detail\":\"W\"}\n", "W"),
            ("Internal Server Error\n\n", "Internal Server Error"),
            (
                "<html><title>504 Gateway Time-out</title></html>\n",
                "<html><title>504 Gateway Time-out</title></html>",
            ),
            ("event: error\n\n", "the server sent an error event without data"),
            ("data: [ERROR] the engine died\n\n", "[ERROR] the engine died"),
            ("data: \"Error: died\"\n\n", "Error: died"),
            ("event: exception\ndata: {\"message\":\"W\"}\n\n", "W"),
            ("event: failed\ndata: {\"message\":\"W\"}\n\n", "W"),
            ("event: timeout\ndata: {\"message\":\"W\"}\n\n", "W"),
        ] {
            let name = protocol.name();
            let whole = read(*protocol, with_event(*protocol, lines.as_bytes())).expect_err(lines);
            let cut = rhythm(*protocol).into_iter().chain([(600, lines.as_bytes().to_vec())]);
            let cut = read(*protocol, cut.collect()).expect_err(lines);
            for error in [whole, cut] {
                assert_eq!(error.kind, ErrorKind::InBand, "{name}: {lines}");
                assert!(error.message.ends_with(&format!(": {words}")), "{name}: {lines}: {error}");
            }
        }
        for line in ["DATA: {\"a\":1}\n", " data: {}\n", "server: x\n", "data: [START]\n"] {
            let line = format!("{line}\n");
            let sample = valid(*protocol, with_event(*protocol, line.as_bytes()));
            assert_eq!(figures(&sample), figures(&plain(*protocol)), "{}: {line}", protocol.name());
            assert_eq!(sample.notes, [Note::UnreadEvents], "{}: {line}", protocol.name());
        }
        for event in ["event: on_tool_error", "event: no_error", "event: mcp_call.failed"] {
            let event = format!("{event}\ndata: {{\"message\":\"x\"}}\n\n");
            let sample = valid(*protocol, with_event(*protocol, event.as_bytes()));
            assert_eq!(
                figures(&sample),
                figures(&plain(*protocol)),
                "{}: {event}",
                protocol.name()
            );
        }
    }
}

#[test]
fn different_texts_in_unknown_events_may_be_tokens() {
    for (texts, doubts) in [
        (["alpha", "beta", "gamma", "delta"], 1),
        (["\"alpha\"", "\"beta\"", "\"gamma\"", "\"delta\""], 1),
        (["PROCESSING"; 4], 0),
        (["[PING]"; 4], 0),
        (["alpha", "beta", "beta", "ping"], 0),
    ] {
        let mut events = rhythm(&OpenAiChat);
        let texts = texts.map(|text| frame(&OpenAiChat, text));
        events.splice(1..1, (10..).zip(texts));
        let sample = valid(&OpenAiChat, [events, trailer(&OpenAiChat)].concat());
        assert_eq!(sample.doubts.len(), doubts);
    }
}

#[test]
fn a_finish_reason_is_not_always_a_text() {
    for (reason, read) in [("1", "1"), ("true", "true"), (r#"["stop"]"#, "stop")] {
        let chunks = [(50, delta(r#"{"content":"a"}"#))];
        let stop = format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":{reason}}}]}}"#);
        assert_eq!(valid(&OpenAiChat, chat(&chunks, &[stop, usage(1)])).finish_reason, read);
    }
    let none = r#"{"choices":[{"delta":{},"finish_reason":false}]}"#;
    let chunks = [(50, delta(r#"{"content":"a"}"#))];
    assert!(read(&OpenAiChat, chat(&chunks, &[none.to_owned(), usage(1)])).is_err());
}

#[test]
fn an_empty_whole_text_on_each_token_does_not_end_the_answer() {
    let tgi = protocol::by_name("tgi_generate_stream").expect("a protocol");
    let events = changed(tgi, |text| {
        text.replace("\"generated_text\":null", "\"generated_text\":\"\"").into_bytes()
    });
    let is_empty =
        |bytes: &Vec<u8>| bytes.windows(19).any(|text| text == b"\"generated_text\":\"\"");
    assert_eq!(events.iter().filter(|(_, bytes)| is_empty(bytes)).count(), 21);
    let sample = valid(tgi, events);
    assert_eq!((figures(&sample), sample.notes.as_slice()), (figures(&plain(tgi)), &[][..]));
}

#[test]
fn usage_of_the_last_event_is_read_outside_of_its_response() {
    let responses = r#"{"type":"response.completed","response":{"status":"completed"},"usage":{"input_tokens":7,"output_tokens":20}}"#;
    let anthropic = [
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
        r#"{"type":"message_stop","usage":{"output_tokens":20}}"#,
    ];
    for (name, last) in [("openai_responses", &[responses][..]), ("anthropic_messages", &anthropic)]
    {
        let protocol = protocol::by_name(name).expect("a protocol");
        let last = last.iter().map(|data| (600, frame(protocol, data)));
        let events = rhythm(protocol).into_iter().chain(last).collect();
        assert_eq!(valid(protocol, events).response_tokens, 20, "{name}");
    }
}

#[test]
fn a_long_word_does_not_hide_the_following_text() {
    let message = format!("{} bad image: too large", "A".repeat(900));
    let event = format!(r#"{{"error":{{"message":"{message}"}}}}"#);
    let error =
        read(&OpenAiChat, with_event(&OpenAiChat, &frame(&OpenAiChat, &event))).unwrap_err();
    assert!(error.message.ends_with(": … bad image: too large"), "{error}");
}

#[test]
fn errors_are_found_in_choices_event_names_and_plain_text() {
    let in_choice = r#"{"choices":[{"index":0,"delta":{},"finish_reason":null,"error":{"code":502,"message":"W"}}]}"#;
    for event in [
        &format!("data: {in_choice}\n\n"),
        "data: {\"choices\":[{\"delta\":{\"error\":{\"message\":\"W\"}}}]}\n\n",
        "event: error\ndata: W\n\n",
        "event: error\ndata: {\"message\":\"W\"}\n\n",
        "event: stream_error\ndata: {\"reason\":\"W\"}\n\n",
        "data: {\"choices\":[],\"error\":{\"message\":\"W\"}}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"error\":{\"message\":\"W\"}}\n\n",
    ] {
        let error = read(&OpenAiChat, with_event(&OpenAiChat, event.as_bytes())).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InBand, "{event}");
        assert!(error.message.ends_with(": W"), "{event}: {error}");
    }
    let text = with_event(&OpenAiChat, b"data: Error: out of memory\n\n");
    assert!(read(&OpenAiChat, text).unwrap_err().message.ends_with(": Error: out of memory"));
    let page = with_event(&OpenAiChat, b"data: <html><b>502 Bad Gateway</b></html>\n\n");
    assert!(read(&OpenAiChat, page).unwrap_err().message.contains("502 Bad Gateway"));
}

#[test]
fn an_error_followed_by_stop_is_an_error() {
    for reason in
        ["error", "abort", "ERROR", "server_error", "cancelled", "network_error", "timeout"]
    {
        let chunks = [
            (50, delta(r#"{"content":"a"}"#)),
            (60, STOP.replace("stop", reason)),
            (70, STOP.to_owned()),
        ];
        let error = read(&OpenAiChat, chat(&chunks, &[usage(1)])).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InBand, "{reason}");
        assert!(error.message.contains(&format!("`{reason}`")), "{error}");
    }
}

#[test]
fn an_unusual_end_is_noted() {
    for (reason, notes) in [
        ("stop", &[][..]),
        ("STOP", &[]),
        ("length", &[]),
        ("tool_calls", &[]),
        ("content_filter", &[Note::UnusualFinishReason]),
        ("SAFETY", &[Note::UnusualFinishReason]),
        ("MALFORMED_FUNCTION_CALL", &[Note::UnusualFinishReason]),
        ("RECITATION", &[Note::UnusualFinishReason]),
        ("refusal", &[Note::UnusualFinishReason]),
        ("bored", &[Note::UnusualFinishReason]),
    ] {
        let chunks = [(50, delta(r#"{"content":"a"}"#)), (60, STOP.replace("stop", reason))];
        let sample = valid(&OpenAiChat, chat(&chunks, &[STOP.to_owned(), usage(1)]));
        assert_eq!(sample.notes, notes, "{reason}");
        let is_kept = sample.finish_reason == reason;
        assert_eq!(is_kept, !notes.is_empty() || reason == "stop", "{reason}");
    }
}

#[test]
fn a_missing_finish_reason_is_reported() {
    let chunks = [(50, delta(r#"{"content":"a"}"#)), (60, delta(r#"{"content":"a"}"#))];
    let message = |events: Events| read(&OpenAiChat, events).unwrap_err().message;
    assert_eq!(
        message(chat(&chunks, &[usage(2)])),
        "the server sent its end marker without a finish reason, after 2 token events"
    );
    let mut cut = chat(&chunks, &[]);
    cut.pop();
    assert_eq!(
        message(cut.clone()),
        "the stream ended without a finish reason, after 2 token events: the answer was cut off"
    );
    cut.push((70, frame(&OpenAiChat, "upstream connect failure")));
    assert!(message(cut).ends_with("cut off; the server also sent `upstream connect failure`"));
    let none = STOP.replace("\"stop\"", "\"null\"");
    assert!(message(chat(&chunks, &[none, usage(2)])).contains("without a finish reason"));
}

#[test]
fn data_lines_without_blank_lines_are_reported() {
    let lines = format!("data: {}\ndata: {STOP}\ndata: [DONE]\n", delta(r#"{"content":"a"}"#));
    let error = read(&OpenAiChat, vec![(50, lines.into_bytes())]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed);
    let expected = "before the first token: 3 `data:` lines came without a blank line between them";
    assert!(error.message.starts_with(expected), "{error}");
}

// -- responses, messages --------------------------------------------------------------------------

/// A response whose first ten events are of type `kind` and have `delta`.
fn response(kind: &str, delta: &str) -> Events {
    let event = |n: u64| {
        let data = format!(r#"{{"type":"{kind}","delta":{delta}}}"#);
        (50 + 10 * n, format!("event: {kind}\ndata: {data}\n\n").into_bytes())
    };
    let text = |n: u64| {
        let part = MessagePart::Token(TokenKind::Answer, "a".into());
        (50 + 10 * n, OpenAiResponses.encode(&alone(part), &ENVELOPE))
    };
    let all = (0..10).map(event).chain((10..20).map(text));
    all.chain(trailer(&OpenAiResponses)).collect()
}

#[test]
fn a_response_s_reasoning_has_many_types() {
    for (kind, delta) in [
        ("response.reasoning.delta", "\"h\""),
        ("response.reasoning.delta", r#"{"text":"h"}"#),
        ("response.reasoning_text.delta", "\"h\""),
        ("response.reasoning_summary.delta", r#"{"type":"summary_text","text":"h"}"#),
        ("response.reasoning_summary_text.delta", "\"h\""),
        ("response.thinking.delta", "\"h\""),
    ] {
        let sample = valid(&OpenAiResponses, response(kind, delta));
        assert_eq!(figure(&sample, "ttft"), Some(0.050), "{kind}");
        assert_eq!(figure(&sample, "ttfo"), Some(0.150), "{kind}");
        assert_eq!(sample.notes, [], "{kind}");
    }
    let odd = valid(&OpenAiResponses, response("response.musing.delta", "\"h\""));
    assert_eq!(odd.unread[0].name, "response.musing.delta");
    let audio = valid(&OpenAiResponses, response("response.audio.delta", "\"UklGRg==\""));
    assert_eq!((audio.token_events.len(), audio.unread.len()), (10, 0));
}

#[test]
fn an_events_name_is_its_type_if_its_data_has_none() {
    for protocol in protocol::ALL {
        if !["anthropic_messages", "openai_responses"].contains(&protocol.name()) {
            continue;
        }
        let events = changed(*protocol, |text| {
            let name = text.split(['\n', ' ']).nth(1).unwrap_or_default().to_owned();
            text.replace(&format!("\"type\":\"{name}\","), "")
                .replace(&format!("\"type\":\"{name}\""), "")
                .into_bytes()
        });
        assert_eq!(figures(&valid(*protocol, events)), figures(&plain(*protocol)));
    }
}

#[test]
fn skipped_events_do_not_move_the_last_arrival() {
    let mut events = rhythm(&OpenAiChat);
    events.push((600, frame(&OpenAiChat, "ping")));
    let recording: Recording = recording([events, trailer(&OpenAiChat)].concat());
    let sample = sample::read(&recording, &OpenAiChat, TokenCount::Usage).expect("valid");
    assert_eq!(sample.last_token(), Duration::from_millis(240));
}

#[test]
fn a_total_below_the_answers_count_is_noted_without_a_prompt_count() {
    let chunks = [(50, delta(r#"{"content":"a"}"#)), (60, delta(r#"{"content":"a"}"#))];
    let usage = r#"{"choices":[],"usage":{"completion_tokens":2,"total_tokens":1}}"#;
    let sample = valid(&OpenAiChat, chat(&chunks, &[STOP.to_owned(), usage.to_owned()]));
    assert_eq!((sample.total_tokens, sample.notes), (None, vec![Note::TotalBelowSum]));
}

// -- the config -----------------------------------------------------------------------------------

fn parsed(model: &str) -> Result<TextFields, String> {
    let yaml = format!("models: {{ m: {{ simulate: {{}}, {model} }} }}");
    let config = Config::parse(&yaml, "configs.yaml", Path::new(".")).map_err(|e| e.to_string())?;
    let plan =
        Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).map_err(|e| e.to_string())?;
    Ok(plan.targets[0].text_fields.clone())
}

#[test]
fn fields_are_named_by_the_config() {
    let fields = parsed("text_fields: [a, { b: reasoning }, { c: answer }], ignore_fields: [d]");
    let text = [("a", TokenKind::Answer), ("b", TokenKind::Reasoning), ("c", TokenKind::Answer)];
    let expected = TextFields {
        text: text.map(|(name, kind)| (name.to_owned(), kind)).to_vec(),
        ignored: vec!["d".into()],
    };
    assert_eq!(fields, Ok(expected));
    assert_eq!(parsed(""), Ok(TextFields::default()));
    for (model, problem) in [
        ("text_fields: a", "must be a list of field names"),
        (
            "text_fields: [{ a: prose }]",
            "unknown kind of text `prose`: expected answer or reasoning",
        ),
        ("text_fields: [{ a: answer, b: answer }]", "must be a field name"),
        ("text_fields: [7]", "must be text"),
        (
            "text_fields: [a], ignore_fields: [a]",
            "`a` is in both `text_fields` and `ignore_fields`",
        ),
    ] {
        let error = parsed(model).expect_err(model);
        assert!(error.contains(problem) && error.contains("configs.yaml:1:"), "{error}");
    }
}
