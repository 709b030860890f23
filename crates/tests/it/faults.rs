//! Faults of servers, by protocol and transport, through the front door: each has its kind and its
//! row, ends within the limits of the config, and leaves the next trial unharmed.

use std::{fmt::Write as _, thread, time::Duration};

use llm_stream_core::protocol::{self, Envelope, Message, MessagePart, Protocol};

use crate::{
    bench::Bench,
    player::{CHUNKED, Step, chunk, events, plays, unended},
};

/// A fault: its name, the error kinds that tell it, and what the server does instead of answering.
///
/// `valid` as a kind is an answer in spite of the fault.
struct Fault {
    name: &'static str,
    kinds: &'static [&'static str],
    steps: fn(&dyn Protocol) -> Vec<Step>,
}

/// The limits of a request, in seconds: for a token, and for the whole answer.
const TOKEN_LIMIT: f64 = 0.8;
const TOTAL_LIMIT: f64 = 2.0;

const FAULTS: &[Fault] = &[
    Fault { name: "closed-at-once", kinds: &["broken"], steps: |_| Vec::new() },
    Fault { name: "reset-at-once", kinds: &["broken"], steps: |_| vec![Step::Reset] },
    Fault { name: "no-http", kinds: &["broken"], steps: |_| text("SSH-2.0-OpenSSH_9.6\r\n\r\n") },
    Fault { name: "head-cut", kinds: &["broken"], steps: |_| text("HTTP/1.1 200 OK\r\nconte") },
    Fault {
        name: "head-stalls",
        kinds: &["first_token_timeout"],
        steps: |_| [text("HTTP/1.1 200 OK\r\nconte"), vec![Step::Hold]].concat(),
    },
    Fault { name: "silence", kinds: &["first_token_timeout"], steps: |_| vec![Step::Hold] },
    Fault {
        name: "status-500",
        kinds: &["http_status"],
        steps: |_| text("HTTP/1.1 500 Oops\r\ncontent-length: 16\r\n\r\n{\"error\": \"full\"}"),
    },
    Fault {
        name: "status-429",
        kinds: &["http_status"],
        steps: |_| text("HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"),
    },
    Fault {
        name: "status-500-without-end",
        kinds: &["http_status"],
        steps: |_| [text("HTTP/1.1 500 Oops\r\n\r\noops"), vec![Step::Hold]].concat(),
    },
    Fault {
        name: "redirect",
        kinds: &["redirect"],
        steps: |_| text("HTTP/1.1 302 Found\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n"),
    },
    Fault {
        name: "switching-protocols",
        kinds: &["http_status"],
        steps: |_| text("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"),
    },
    Fault {
        name: "nothing",
        kinds: &["not_a_stream", "no_token"],
        steps: |_| text("HTTP/1.1 204 No Content\r\n\r\n"),
    },
    Fault {
        name: "empty-body",
        kinds: &["not_a_stream", "no_token"],
        steps: |_| text("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    },
    Fault {
        name: "a-page",
        kinds: &["not_a_stream", "in_band"],
        steps: |_| {
            text(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 15\r\n\r\n<html>hi</html>",
            )
        },
    },
    Fault {
        name: "compressed",
        kinds: &["not_a_stream", "malformed"],
        steps: |_| {
            let head = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 8\r\n\r\n";
            vec![Step::Write([head.as_bytes(), b"\x1f\x8b\x08\0\0\0\0\0"].concat())]
        },
    },
    Fault {
        name: "stalls",
        kinds: &["inter_token_timeout"],
        steps: |protocol| [first_tokens(protocol, 3), vec![Step::Hold]].concat(),
    },
    Fault {
        name: "never-ends",
        kinds: &["total_timeout"],
        steps: |protocol| {
            let mut steps = vec![Step::Write(CHUNKED.into())];
            for event in events(protocol, 40).0 {
                steps.push(Step::Write(chunk(&event)));
                steps.push(Step::Sleep(Duration::from_millis(120)));
            }
            steps
        },
    },
    Fault {
        name: "keep-alives-only",
        kinds: &["first_token_timeout"],
        steps: |_| {
            let beat = [Step::Write(chunk(b"\n")), Step::Sleep(Duration::from_millis(100))];
            let beats = std::iter::repeat_n(beat, 30).flatten();
            [Step::Write(CHUNKED.into())].into_iter().chain(beats).collect()
        },
    },
    Fault {
        name: "cut-between-events",
        kinds: &["broken"],
        steps: |protocol| first_tokens(protocol, 3),
    },
    Fault {
        name: "cut-in-an-event",
        kinds: &["broken"],
        steps: |protocol| {
            let mut bytes = unended(protocol, 3);
            bytes.truncate(bytes.len() / 2);
            vec![Step::Write(bytes)]
        },
    },
    Fault {
        name: "reset-in-the-answer",
        kinds: &["broken"],
        steps: |protocol| [first_tokens(protocol, 3), vec![Step::Reset]].concat(),
    },
    Fault {
        name: "ends-too-early",
        kinds: &["no_finish_reason"],
        steps: |protocol| [first_tokens(protocol, 3), text("0\r\n\r\n")].concat(),
    },
    Fault {
        name: "no-token",
        kinds: &["no_token"],
        steps: |protocol| {
            let end: Vec<u8> = events(protocol, 3).1.concat();
            vec![Step::Write([CHUNKED.as_bytes(), &chunk(&end), b"0\r\n\r\n"].concat())]
        },
    },
    Fault {
        name: "bad-chunk-size",
        kinds: &["broken"],
        steps: |protocol| [first_tokens(protocol, 3), text("zz\r\nhello\r\n")].concat(),
    },
    Fault {
        name: "body-shorter-than-its-length",
        kinds: &["broken"],
        steps: |protocol| {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
            vec![Step::Write([head.as_bytes(), &events(protocol, 3).0.concat()].concat())]
        },
    },
    Fault {
        name: "broken-json",
        kinds: &["malformed"],
        steps: |protocol| {
            let mut event = events(protocol, 3).0.pop().unwrap_or_default();
            let middle = event.len() / 2;
            event.splice(middle..middle, *b"\"\"}{");
            [first_tokens(protocol, 3), vec![Step::Write(chunk(&event))], text("0\r\n\r\n")]
                .concat()
        },
    },
    Fault {
        name: "error-in-the-stream",
        kinds: &["in_band"],
        steps: |protocol| {
            let error = vec![MessagePart::Error("the engine died".into())];
            let envelope = Envelope { model: "m", created: 1 };
            let event = protocol.encode(&Message { id: None, parts: error }, &envelope);
            [first_tokens(protocol, 3), vec![Step::Write(chunk(&event))], text("0\r\n\r\n")]
                .concat()
        },
    },
    Fault {
        name: "left-open",
        kinds: &["valid"],
        steps: |protocol| vec![Step::Write(unended(protocol, 3)), Step::Hold],
    },
    Fault {
        name: "interim-answers",
        kinds: &["valid"],
        steps: |protocol| {
            let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(50);
            let answer = [unended(protocol, 3), b"0\r\n\r\n".to_vec()].concat();
            vec![Step::Write([interim.as_bytes(), &answer].concat())]
        },
    },
    Fault {
        name: "byte-by-byte",
        kinds: &["valid"],
        steps: |protocol| {
            let answer = [unended(protocol, 2), b"0\r\n\r\n".to_vec()].concat();
            answer.into_iter().map(|byte| Step::Write(vec![byte])).collect()
        },
    },
];

fn text(text: &str) -> Vec<Step> {
    vec![Step::Write(text.into())]
}

/// The head and the first `tokens` of an answer that has more.
fn first_tokens(protocol: &dyn Protocol, tokens: usize) -> Vec<Step> {
    let (begin, _) = events(protocol, tokens as u64 + 2);
    let kept = begin.len() - 2;
    let chunks = begin[..kept].iter().flat_map(|event| chunk(event));
    vec![Step::Write(CHUNKED.bytes().chain(chunks).collect())]
}

/// The steps for a request: those of the fault that its prompt names, or a whole answer.
fn steps(protocol: &dyn Protocol, body: &[u8]) -> Vec<Step> {
    let asked = String::from_utf8_lossy(body);
    match FAULTS.iter().find(|fault| asked.contains(&format!("Show {}.", fault.name))) {
        Some(fault) => (fault.steps)(protocol),
        None => vec![Step::Write([unended(protocol, 3), b"0\r\n\r\n".to_vec()].concat())],
    }
}

/// Runs all faults, each before a whole answer; the differences from the table.
fn differences(protocol: &'static dyn Protocol, transport: &str) -> String {
    let (url, _) = plays(move |body| steps(protocol, body));
    let mut config = format!(
        "runs: 1
order: as-listed
models:
  m:
    base_url: \"{url}\"
    protocol: {}
    transport: {transport}
    timeouts: {{ first_token: {TOKEN_LIMIT}s, inter_token: {TOKEN_LIMIT}s, total: {TOTAL_LIMIT}s }}
prompts:
",
        protocol.name()
    );
    for Fault { name, .. } in FAULTS {
        let _ = writeln!(config, "  - {{ name: {name}, text: \"Show {name}.\" }}");
        let _ = writeln!(config, "  - {{ name: after-{name}, text: \"Hello.\" }}");
    }
    let bench = Bench::new(&config);
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(101), "{}{}", ran.stdout, ran.stderr);
    let columns = ["success", "error_kind", "error_message", "total_time"];
    let [valid, kinds, messages, times] = columns.map(|name| bench.column(name));
    assert_eq!(valid.len(), 2 * FAULTS.len(), "{}{}", ran.stdout, ran.stderr);
    let mut differences = String::new();
    for (nth, fault) in FAULTS.iter().enumerate() {
        let (at, after) = (2 * nth, 2 * nth + 1);
        let kind = if valid[at] == "true" { "valid" } else { kinds[at].as_str() };
        let is_late = times[at].parse::<f64>().is_ok_and(|time| time > 2.0 * TOTAL_LIMIT);
        let has_reason = kind == "valid" || !messages[at].is_empty();
        if !fault.kinds.contains(&kind) || !has_reason || is_late || valid[after] != "true" {
            let _ = writeln!(
                differences,
                "{} by {transport}, {}: {kind} ({}), {} s; then {} ({})",
                protocol.name(),
                fault.name,
                messages[at],
                times[at],
                valid[after],
                messages[after]
            );
        }
    }
    differences
}

#[test]
fn each_fault_has_its_kind_and_harms_no_later_trial() {
    let runs: Vec<_> = protocol::ALL
        .iter()
        .flat_map(|protocol| {
            let of = |transport| thread::spawn(move || differences(*protocol, transport));
            ["stamped", "reqwest"].map(of)
        })
        .collect();
    let count = runs.len() * FAULTS.len();
    let all: String = runs.into_iter().map(|run| run.join().unwrap()).collect();
    let wrong = all.lines().count();
    println!("{count} scenarios, {} right, {wrong} wrong", count - wrong);
    assert!(all.is_empty(), "{all}");
}
