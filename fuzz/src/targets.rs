//! A function for each parser of outside data: it must neither panic nor break a law that holds for
//! any input, such as that the cuts between network reads change nothing.
//!
//! `cargo fuzz` calls these with new inputs, and the tests with the kept ones.

use std::{path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use llm_stream_bench::config::{Config, fuzzing::read_data_set};
use llm_stream_client::{Redactor, fuzzing::read_response};
use llm_stream_core::{
    baseline::Baseline,
    framing::{Decoder, Frame, Framing},
    metric::METRICS,
    protocol::{self, Protocol, TextFields},
    recording::{Chunk, MemoryHold, Recording, StampedBy, Uncertainty},
    sample::{self, TokenCount},
    server_metrics::{MetricComparison, Scrape},
    threshold::Threshold,
};

/// A parser of outside data.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name, also of its folder of inputs.
    pub name: &'static str,
    /// Parses an input.
    pub parse: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "framing", parse: framing },
    Target { name: "http", parse: http },
    Target { name: "openai_chat", parse: |data| stream("openai_chat", data) },
    Target { name: "openai_completions", parse: |data| stream("openai_completions", data) },
    Target { name: "openai_responses", parse: |data| stream("openai_responses", data) },
    Target { name: "anthropic_messages", parse: |data| stream("anthropic_messages", data) },
    Target { name: "ollama_chat", parse: |data| stream("ollama_chat", data) },
    Target { name: "llamacpp_completion", parse: |data| stream("llamacpp_completion", data) },
    Target { name: "tgi_generate_stream", parse: |data| stream("tgi_generate_stream", data) },
    Target { name: "config", parse: config },
    Target { name: "threshold", parse: threshold },
    Target { name: "data_set", parse: data_set },
    Target { name: "baseline", parse: baseline },
    Target { name: "recording", parse: recording },
    Target { name: "server_metrics", parse: server_metrics },
    Target { name: "redactor", parse: redactor },
];

/// Parses `data` with the target `name`.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of this name").parse)(data);
}

/// Splits `data` into its first byte, which is a choice, and the rest.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Cuts `data` into pieces of `1 + length` bytes.
fn pieces(data: &[u8], length: u8) -> impl Iterator<Item = &[u8]> {
    data.chunks(1 + usize::from(length))
}

fn frames<'a>(framing: Framing, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut decoder = framing.decoder();
    let mut frames = Vec::new();
    let mut keep = |frame: Frame<'_>| frames.push(format!("{frame:?}"));
    for piece in pieces {
        if let Err(error) = Decoder::push(&mut decoder, piece, &mut keep) {
            keep(Frame::Comment(error.to_string().as_bytes()));
            return frames;
        }
    }
    decoder.finish(&mut keep);
    frames
}

/// The cuts between reads do not change the frames.
fn framing(data: &[u8]) {
    let (length, data) = choice(data);
    for framing in [Framing::Events, Framing::Lines] {
        let whole = frames(framing, [data].into_iter());
        assert_eq!(whole, frames(framing, pieces(data, length)));
        assert_eq!(whole, frames(framing, pieces(data, 0)));
    }
}

/// The cuts between reads change neither the body nor the error of an HTTP response.
fn http(data: &[u8]) {
    let (length, data) = choice(data);
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut body = BytesMut::new();
        let ending = read_response(pieces, &mut body);
        (ending, body)
    };
    let whole = read(&mut [data].into_iter());
    assert_eq!(whole, read(&mut pieces(data, length)));
    assert_eq!(whole, read(&mut pieces(data, 0)));
}

/// A recording of a stream that arrived in pieces of `1 + length` bytes, a millisecond apart.
fn recorded(data: &[u8], length: usize, status: u16, framing: Framing) -> Recording {
    let at = |nth: usize| Duration::from_millis(1 + nth as u64);
    let chunks: Vec<_> = data
        .chunks(length)
        .enumerate()
        .map(|(nth, piece)| Chunk {
            at: at(nth),
            uncertainty: Duration::ZERO,
            bytes: Bytes::copy_from_slice(piece),
        })
        .collect();
    Recording {
        origin: None,
        status,
        content_type: Some(framing.content_type().to_owned()),
        content_encoding: None,
        retry_after: None,
        server: None,
        http_version: "HTTP/1.1".to_owned(),
        head_time: None,
        connect: None,
        tls: None,
        sent: None,
        headers_at: Duration::from_micros(500),
        ended_at: at(chunks.len()),
        chunks,
        stamped_by: StampedBy::Kernel,
        uncertainty: Uncertainty::default(),
        broken: None,
        hold: MemoryHold::default(),
    }
}

/// The outcome of a stream, without what depends on arrival times.
fn outcome(recording: &Recording, protocol: &dyn Protocol) -> Result<(usize, u64), String> {
    match sample::read(recording, protocol, TokenCount::Chunks) {
        Ok(sample) => {
            let end = recording.ended_at;
            assert!(sample.first_token() <= sample.last_token() && sample.last_token() <= end);
            for metric in METRICS {
                let figure = metric.of(&sample);
                assert!(figure.is_none_or(f64::is_finite), "{}: {figure:?}", metric.name);
            }
            Ok((sample.token_events.len(), sample.response_tokens))
        }
        Err(error) => Err(error.kind.to_string()),
    }
}

/// A stream is read alike wherever it is cut, and its figures are finite.
fn stream(name: &str, data: &[u8]) {
    let protocol = *protocol::ALL.iter().find(|known| known.name() == name).expect("known");
    let (first, data) = choice(data);
    let status = if first == 255 { 500 } else { 200 };
    let read = |length: usize| recorded(data, length, status, protocol.framing());
    let whole = read(data.len().max(1));
    assert_eq!(outcome(&whole, protocol), outcome(&read(1 + usize::from(first)), protocol));
    let fields = TextFields::default();
    let text = sample::answer_text(&whole, protocol, &fields);
    assert!(text.len() <= 4 * data.len(), "the answer is longer than its bytes");
    sample::calls_tools(&whole, protocol, &fields);
    sample::prompt_tokens(&whole, protocol);
    sample::tokens_so_far(&whole.chunks, protocol);
    sample::has_ended(&whole.chunks, 0, protocol);
    sample::lacks_usage(&whole.chunks, protocol);
}

/// A config is read, or refused with a text. It may name files, which do not exist.
fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Err(errors) = Config::parse(text, "configs.yaml", Path::new("/nonexistent")) {
        assert!(!errors.to_string().is_empty());
    }
}

/// A threshold is written as it is read.
fn threshold(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Threshold::parse(text) {
        Ok(threshold) => {
            let written = threshold.to_string();
            let again = Threshold::parse(&written).map(|threshold| threshold.to_string());
            assert_eq!(again.as_deref(), Ok(written.as_str()), "{text:?}");
        }
        Err(error) => assert!(text.is_char_boundary(error.offset), "{text:?}: {error:?}"),
    }
}

/// A data set is read, and each mistake has its place in it.
fn data_set(data: &[u8]) {
    let (multi_turn, data) = choice(data);
    let (records, mistakes) = read_data_set(data, multi_turn & 1 == 1);
    assert!(records <= data.len() && mistakes.iter().all(|at| *at <= 3 * data.len()));
}

/// A baseline is written as it is read, and nothing got slower between two equal ones.
fn baseline(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(baseline) = Baseline::from_json(text) else { return };
    let written = baseline.to_json();
    let again = Baseline::from_json(&written).expect("it is read again");
    assert_eq!(written, again.to_json());
    for group in &baseline.latest().groups {
        let _ = baseline.history(group);
    }
}

/// A recording is written as it is read.
fn recording(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(recording) = Recording::from_jsonl(text) else { return };
    let again = Recording::from_jsonl(&recording.to_jsonl()).expect("it is read again");
    assert_eq!(recording, again);
    for protocol in protocol::ALL {
        let _ = sample::read(&recording, *protocol, TokenCount::Chunks);
    }
}

/// Two looks at metrics are compared, and their figures are finite.
fn server_metrics(data: &[u8]) {
    let (at, data) = choice(data);
    let Ok(text) = str::from_utf8(data) else { return };
    let middle = text.len() * usize::from(at) / 256;
    let middle = (0..=middle).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let (before, after) = text.split_at(middle);
    let (before, after) = (Scrape::read(before, "m"), Scrape::read(after, "m"));
    let compared = MetricComparison::of((&before, false), &after, 3, |_| None);
    for (sample, _) in &compared.samples {
        if let Some(times) = &sample.times {
            assert!(times.mean.is_finite() && times.count.is_finite(), "{sample:?}");
        }
    }
}

/// A key of eight or more characters is in no text that was redacted.
fn redactor(data: &[u8]) {
    let (length, data) = choice(data);
    let Some((key, text)) = data.split_at_checked(8 + usize::from(length % 32)) else { return };
    let (Ok(key), Ok(text)) = (str::from_utf8(key), str::from_utf8(text)) else { return };
    let is_key = key.bytes().all(|byte| byte.is_ascii_graphic())
        && key.bytes().any(|byte| byte.is_ascii_digit())
        && key.bytes().any(|byte| byte.is_ascii_alphabetic())
        && key.parse::<f64>().is_err();
    if is_key {
        let text = format!("{text}{key}{text}");
        let shown = Redactor::new([key.as_bytes()]).redact(&text);
        assert!(!shown.contains(key), "{key:?} in {shown:?}");
    }
}
