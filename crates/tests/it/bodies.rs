//! Heads and bodies as real servers send them: both transports make the same of each.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use llm_stream_bench::load::{self, Answer};
use llm_stream_client::connect_options::ConnectOptions;
use llm_stream_core::protocol::{self, OpenAiChat, Protocol};

use crate::{
    bench::Bench,
    http::{STREAM, TRANSPORTS, client_by, plan_of},
    player::{CHUNKED, Step, answers, chunk, plays, unended},
    wait,
};

/// Far longer than the client waits for a body's end, far shorter than its limits.
const SOON: Duration = Duration::from_secs(12);

const CHAT: &dyn Protocol = &OpenAiChat;

/// What comes of a request to `url` by `transport`.
fn asked(url: &str, protocol: &dyn Protocol, transport: &str) -> Answer {
    let model = format!("    protocol: {}\n{transport}", protocol.name());
    let case = plan_of(url, &model).cases[0].clone();
    wait::in_thread(move || {
        let client = client_by(&ConnectOptions::default(), &case, None);
        load::run(&case, &load::PromptSizer::default(), &client, &())
    })
}

/// The same in a line, without what depends on time.
fn line(answer: &Answer) -> String {
    match &answer.outcome {
        Ok(sample) => {
            let notes = sample.notes.iter().map(|note| note.name());
            let of_time = ["burst", "may_be_held_back", "client_delayed", "shared_arrivals"];
            let notes: Vec<_> = notes.filter(|note| !of_time.contains(note)).collect();
            let events = sample.token_events.len();
            format!("{} tokens, {events} events {notes:?}", sample.response_tokens)
        }
        Err(error) => format!("{}: {error}", error.kind),
    }
}

/// The line that both transports come to.
fn both(url: &str, protocol: &dyn Protocol) -> String {
    let [stamped, reqwest] = TRANSPORTS.map(|transport| line(&asked(url, protocol, transport)));
    assert_eq!(stamped, reqwest);
    stamped
}

/// The same for an answer of these bytes.
fn both_of(bytes: impl AsRef<[u8]>) -> String {
    both(&answers(bytes.as_ref().to_vec()), CHAT)
}

const WHOLE: &str = "2 tokens, 2 events []";

// -- bodies without an end ------------------------------------------------------------------------

#[test]
fn an_answer_is_complete_at_its_end_marker_even_if_its_body_breaks() {
    for protocol in protocol::ALL {
        let answer = unended(*protocol, 3);
        for (end, note) in [
            (vec![Step::Hold], "body_left_open"),
            (vec![Step::Reset], "body_broken"),
            (vec![], "body_broken"),
            (vec![Step::Write(b"zz\r\n".to_vec())], "body_broken"),
            (vec![Step::Write(chunk(b": bye\n\n")), Step::Hold], "body_left_open"),
        ] {
            // Not a comment where events are lines.
            if note == "body_left_open" && end.len() == 2 && protocol.name() == "ollama_chat" {
                continue;
            }
            let steps: Vec<_> = [vec![Step::Write(answer.clone())], end].concat();
            let begun = Instant::now();
            let (url, _) = plays(move |_| steps.clone());
            let expected = format!("3 tokens, 3 events [{note:?}]");
            assert_eq!(both(&url, *protocol), expected, "{}", protocol.name());
            assert!(begun.elapsed() < 2 * SOON);
        }
    }
}

#[test]
fn no_figure_includes_the_wait_for_the_end_of_a_body() {
    let (url, _) = plays(|_| vec![Step::Write(unended(CHAT, 3)), Step::Hold]);
    for transport in TRANSPORTS {
        let answer = asked(&url, CHAT, transport);
        let sample = answer.outcome.unwrap();
        // All of it was written at once.
        assert!(sample.end - sample.last_token() < Duration::from_millis(200), "{sample:?}");
        assert!(answer.recording.unwrap().ended_at == sample.end);
    }
}

#[test]
fn comments_after_the_end_do_not_hide_it() {
    let ping = || [Step::Write(chunk(b": ping\n\n")), Step::Sleep(Duration::from_millis(50))];
    let (url, _) = plays(move |_| {
        let pings = (0..400).flat_map(|_| ping());
        [Step::Write(unended(CHAT, 3))].into_iter().chain(pings).collect()
    });
    for transport in TRANSPORTS {
        let begun = Instant::now();
        let answer = asked(&url, CHAT, transport);
        assert_eq!(line(&answer), "3 tokens, 3 events [\"body_left_open\"]");
        let sample = answer.outcome.unwrap();
        assert!(sample.end - sample.last_token() < Duration::from_millis(40), "{sample:?}");
        assert!(begun.elapsed() < SOON);
    }
}

#[test]
fn bytes_shortly_after_the_end_marker_are_recorded() {
    let late = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7}}\n\n";
    let (url, _) = plays(|_| {
        let wait = Step::Sleep(Duration::from_millis(60));
        vec![Step::Write(unended(CHAT, 3)), wait, Step::Write(chunk(late)), Step::Hold]
    });
    for transport in TRANSPORTS {
        let body = asked(&url, CHAT, transport).recording.unwrap().body();
        assert!(body.ends_with(late), "{}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn the_client_waits_longer_for_required_usage() {
    let event = |data: &str| chunk(format!("data: {data}\n\n").as_bytes());
    let token = event(r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#);
    let stop = event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    let usage = event(
        r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#,
    );
    let begin = [CHUNKED.as_bytes(), &token, &token, &token, &stop, &event("[DONE]")].concat();
    let (url, _) = plays(move |_| {
        let late = Step::Sleep(Duration::from_millis(600));
        vec![Step::Write(begin.clone()), late, Step::Write(usage.clone()), Step::Hold]
    });
    let line = both(&url, CHAT);
    assert!(line.starts_with("3 tokens, 3 events "), "{line}");
    assert!(line.contains("body_left_open"), "{line}");
}

#[test]
fn the_client_does_not_wait_after_a_failure() {
    let headed = |status: &str, kind: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n\r\n{body}")
    };
    let stream = |body: &str| headed("200 OK", "text/event-stream", body);
    let token = STREAM.split_inclusive("\n\n").next().unwrap();
    let error = "data: {\"error\":{\"message\":\"out of memory\"}}\n\n";
    let json = "{\"error\":{\"message\":\"no such model\"}}";
    for (answer, begins) in [
        (stream(&format!("{token}data: [DONE]\n\n")), "no_finish_reason: "),
        (stream(&format!("{token}{error}")), "in_band: "),
        (headed("400 Bad Request", "application/json", json), "http_status: HTTP 400 Bad Request"),
        (headed("200 OK", "application/json", json), "not_a_stream: "),
        (headed("500 Internal Server Error", "text/plain", "Oops"), "http_status: HTTP 500"),
        (headed("502 Bad Gateway", "text/html", ""), "http_status: HTTP 502"),
    ] {
        let (url, _) = plays(move |_| vec![Step::Write(answer.clone().into()), Step::Hold]);
        let begun = Instant::now();
        let printed = both(&url, CHAT);
        assert!(printed.starts_with(begins), "{printed}");
        assert!(begun.elapsed() < 2 * SOON);
    }
}

#[test]
fn the_client_waits_for_a_stream_that_pauses() {
    let text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"[DONE] error\"}}]}\n\n";
    let (url, _) = plays(move |_| {
        let pause = Step::Sleep(Duration::from_millis(700));
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        vec![Step::Write(format!("{head}{text}").into()), pause, Step::Write(STREAM.into())]
    });
    assert_eq!(both(&url, CHAT), "2 tokens, 3 events [\"fewer_tokens_than_events\"]");
}

#[test]
fn a_load_continues_while_servers_keep_bodies_open() {
    let starts = Arc::new(Mutex::new(Vec::new()));
    let noted = starts.clone();
    let (url, connections) = plays(move |_| {
        noted.lock().expect("starts").push(Instant::now());
        let wait = Step::Sleep(Duration::from_millis(60));
        vec![wait, Step::Write(unended(CHAT, 3)), Step::Hold]
    });
    for transport in ["stamped", "reqwest"] {
        let bench = Bench::new(&format!(
            "prompts: [{{ name: hi, text: Hi. }}]\n\
             workloads:\n  load: {{ concurrency: 2, requests: 6, runs: 1 }}\n\
             models:\n  m: {{ base_url: \"{url}\", transport: {transport} }}\n"
        ));
        let (begun, before) = (Instant::now(), connections.load(Ordering::Relaxed));
        let ran = bench.run(&["load", "--no-warmup"]);
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
        assert!(begun.elapsed() < 2 * SOON);
        // The client waits for the bodies; the next requests do not.
        let starts = std::mem::take(&mut *starts.lock().expect("starts"));
        assert!(starts[5] - starts[0] < Duration::from_millis(400), "{starts:?}");
        assert!(bench.column("notes").iter().all(|notes| notes.contains("body_left_open")));
        assert_eq!(bench.column("success"), vec!["true"; 6]);
        assert_eq!(connections.load(Ordering::Relaxed) - before, 6, "each on its own connection");
    }
}

// -- heads ----------------------------------------------------------------------------------------

/// A whole answer with these lines in its head.
fn with_lines(status_line: &str, lines: &str) -> String {
    let length = STREAM.len();
    format!("{status_line}\r\n{lines}content-length: {length}\r\n\r\n{STREAM}")
}

#[test]
fn odd_heads_fail_nothing() {
    let many: String = (0..150).map(|n| format!("x-h{n}: v\r\n")).collect();
    let long = format!("x-long: {}\r\n", "v".repeat(200 << 10));
    for lines in [
        "",
        "Content-Type : text/event-stream\r\n",
        "x-folded: a\r\n b\r\n",
        "x-empty:\r\n",
        "not a field\r\n",
        "x(y): z\r\n",
        "x-control: a\u{1}b\r\n",
        "content-length: 0304\r\n",
        &many,
        &long,
    ] {
        let lines = lines.replace("0304", &format!("{:05}", STREAM.len()));
        for status_line in [
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200",
            "HTTP/1.1 200 ",
            "HTTP/1.0 200 OK",
            "\r\nHTTP/1.1 200 caf\u{e9}",
        ] {
            let answer = with_lines(status_line, &lines);
            assert_eq!(both_of(&answer), WHOLE, "{answer:.200}");
        }
    }
    let (head, body) = with_lines("HTTP/1.1 200 OK", "a: b\r\n")
        .split_once("\r\n\r\n")
        .map(|(head, body)| (head.replace("\r\n", "\n"), body.to_owned()))
        .unwrap();
    assert_eq!(both_of(format!("{head}\n\n{body}")), WHOLE);
    // A value that is not UTF-8.
    let latin1 = with_lines("HTTP/1.1 200 OK", "x-name: caf?\r\n").replace('?', "\u{e9}");
    let latin1: Vec<u8> = latin1.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    assert_eq!(both_of(latin1), WHOLE);
    // No header at all, and many answers before the answer.
    assert_eq!(both_of(format!("HTTP/1.1 200 OK\r\n\r\n{STREAM}")), WHOLE);
    let early = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(50);
    assert_eq!(both_of(early + &with_lines("HTTP/1.1 200 OK", "")), WHOLE);
}

#[test]
fn odd_bodies_fail_nothing() {
    let chunk = |event: &str| format!("{:X} ;a=\"b\";c\r\n{event}\r\n", event.len());
    let chunks: String = STREAM.split_inclusive("\n\n").map(chunk).collect();
    for (head, end) in [
        ("transfer-encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: gzip, Chunked", "000;x\r\nEnd: 1\r\nserver-timing: a\r\n\r\n"),
        ("transfer-encoding:\r\n chunked\r\ncontent-length: 7", "0\r\n\r\nHTTP/1.1 400 more\r\n"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{chunks}{end}");
        assert_eq!(both_of(&answer), WHOLE, "{head}");
    }
    let until_close = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n{STREAM}");
    assert_eq!(both_of(until_close), WHOLE);
}

#[test]
fn refused_heads_have_a_reason() {
    let mut lines = Vec::new();
    for answer in [
        with_lines("HTTP/1.1 200 OK", "content-length: 5\r\n"),
        with_lines("HTTP/1.1 200 OK", "").replace("length: ", "length: +"),
        with_lines("HTTP/1.1 200 OK", "").replace("length: ", "length: 5, "),
        with_lines("HTTP/1.1 101 Switching Protocols", "upgrade: websocket\r\n"),
        with_lines("HTTP/1.1 2000 OK", ""),
        with_lines("HTTP/1.1  200 OK", ""),
        with_lines("HTTP/1.1 200 OK", "x: \0\r\n"),
        with_lines("HTTP/1.1 200 OK", &"a: b\r\n".repeat(2000)),
        with_lines("HTTP/1.0 200 OK", "transfer-encoding: chunked\r\n"),
        with_lines("HTTP/3 200 OK", ""),
        "SSH-2.0-OpenSSH_9.2\r\n".into(),
        String::new(),
    ] {
        let url = answers(answer.clone().into());
        let [stamped, reqwest] = TRANSPORTS.map(|transport| line(&asked(&url, CHAT, transport)));
        // hyper does not show whether TLS was spoken.
        let hint = " (if the server speaks TLS on that port: `https://` in `base_url`)";
        assert_eq!(stamped, reqwest.replace(hint, ""));
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        lines.push(format!("{:?}\n  {stamped}", head.get(..90).unwrap_or(head)));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn events_before_a_framing_error_are_kept_for_any_segmentation() {
    let begin = STREAM.split_inclusive("\n\n").take(2).map(|event| chunk(event.as_bytes()));
    let begin = [CHUNKED.into(), begin.collect::<Vec<_>>().concat()].concat();
    let mut lines = Vec::new();
    for wrong in ["zz\r\n", "5\nhello", "3\r\nhello\r\n", "5\r\nhel", "-1\r\n"] {
        let (one, two) = (begin.clone(), begin.clone());
        let printed = both_of([&one, wrong.as_bytes()].concat());
        let (url, _) = plays(move |_| {
            let pause = Step::Sleep(Duration::from_millis(20));
            vec![Step::Write(two.clone()), pause, Step::Write(wrong.into())]
        });
        assert_eq!(both(&url, CHAT), printed);
        lines.push(format!("{wrong:?}\n  {printed}"));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

// -- what the head says ---------------------------------------------------------------------------

#[test]
fn compressed_bodies_are_named() {
    let mut lines = Vec::new();
    for (status, header, body) in [
        ("200 OK", "", &b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..]),
        ("200 OK", "content-encoding: br\r\n", b"\x0b\x02\x80hello\x03"),
        ("200 OK", "content-encoding: zstd\r\n", b"\x28\xb5\x2f\xfd\x04\x58"),
        ("200 OK", "", b"\x28\xb5\x2f\xfd\x04\x58"),
        ("200 OK", "", b"\x78\x9c\xab\xae\x05\0"),
        ("200 OK", "", b"\x0b\x02\x80\xff\x01hello\x03"),
        ("500 Internal Server Error", "Content-Encoding: BR\r\n", b"\x0b\x02\x80hello\x03"),
        ("500 Internal Server Error", "", b"\x0b\x02\x80\xff\x01hello\x03"),
        // What is not compressed is read, whatever its header says.
        ("200 OK", "content-encoding: gzip\r\n", STREAM.as_bytes()),
        ("500 Internal Server Error", "content-encoding: gzip\r\n", b"out of memory"),
    ] {
        let answer = [format!("HTTP/1.1 {status}\r\n{header}\r\n").as_bytes(), body].concat();
        lines.push(both_of(answer));
    }
    insta::assert_snapshot!(lines.join("\n"));
    // Where events are lines, too.
    let answer = b"HTTP/1.1 200 OK\r\n\r\n\x1f\x8b\x08\0\n\0\0\0\n\0\x03";
    let printed = both(&answers(answer.to_vec()), protocol::by_name("ollama_chat").unwrap());
    assert!(printed.contains("compressed with gzip"), "{printed}");
}

#[test]
fn when_to_try_again_is_printed() {
    let mut lines = Vec::new();
    for header in [
        "429 Too Many Requests\r\nretry-after: 7",
        "429 Too Many Requests\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT",
        "503 Service Unavailable\r\nretry-after-ms: 1500",
        "503 Service Unavailable\r\nretry-after:",
        "502 Bad Gateway\r\nretry-after: 1\r\nretry-after-ms: 900",
    ] {
        let body = "{\"error\":{\"message\":\"slow down\"}}";
        lines.push(both_of(format!("HTTP/1.1 {header}\r\n\r\n{body}")));
    }
    insta::assert_snapshot!(lines.join("\n"));
}
