//! Many requests at once, by both transports, against the simulated endpoint and raw sockets.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use llm_stream_bench::{
    config::{ConnectionMode, TokenCount},
    plan::{Secret, Timeouts, Transport},
};
use llm_stream_client::{
    AnswerForm, AnswerObserver, Client, NextAction, Options, RequestSource,
    connect_options::ConnectOptions,
};
use llm_stream_core::{
    protocol::OpenAiChat,
    recording::{Chunk, ErrorKind, Recording, RequestError},
    sample::{self, Sample},
};
use llm_stream_sim::{AnswerLog, Fault, FaultKind, Script, Simulator};

const TRANSPORTS: [Transport; 2] = [Transport::Stamped, Transport::Reqwest];

/// A source with a number of requests, some of them at once, and their answers.
#[derive(Default)]
struct Load {
    requests: usize,
    at_once: usize,
    /// Scheduled starts; without them, a request starts when another one has ended.
    starts: Vec<Instant>,
    sent: usize,
    answers: BTreeMap<usize, Result<Recording, RequestError>>,
}

impl Load {
    fn of(requests: usize, at_once: usize) -> Self {
        Self { requests, at_once, ..Self::default() }
    }

    fn driven(mut self, client: &Client) -> Self {
        client.drive(&mut self, &());
        self
    }

    fn recordings(&self) -> Vec<&Recording> {
        self.answers.values().map(|answer| answer.as_ref().unwrap()).collect()
    }
}

impl RequestSource for Load {
    fn next(&mut self, now: Instant, _: usize) -> NextAction {
        if self.sent == self.requests || self.sent - self.answers.len() == self.at_once {
            return NextAction::AfterAnAnswer;
        }
        match self.starts.get(self.sent) {
            Some(&start) if start > now => return NextAction::At(start),
            _ => self.sent += 1,
        }
        let body = r#"{"stream":true,"stream_options":{"include_usage":true}}"#;
        NextAction::Send { id: self.sent, body: body.into(), replica: 0 }
    }

    fn finished(&mut self, id: usize, answer: Result<Recording, RequestError>) {
        assert!(self.answers.insert(id, answer).is_none(), "an answer ends once");
    }
}

/// Cancels after a number of chunks.
struct CancelAfter(Cell<usize>);

impl AnswerObserver for CancelAfter {
    fn arrived(&self, _: &Chunk) {
        self.0.set(self.0.get().saturating_sub(1));
    }

    fn is_cancelled(&self) -> bool {
        self.0.get() == 0
    }
}

fn client_of(url: &str, transport: Transport, timeouts: Timeouts) -> Client {
    let url = format!("{url}/v1/chat/completions");
    let connection = ConnectionMode::Warm;
    Client::new(&Options {
        replicas: &[],
        url: &url,
        headers: &[],
        api_key: None,
        timeouts,
        transport,
        connection,
        protocol: &OpenAiChat,
        answer: AnswerForm::Stream { needs_usage: true },
        route: &ConnectOptions::default(),
    })
    .unwrap()
}

fn client(url: &str, transport: Transport) -> Client {
    client_of(url, transport, Timeouts::default())
}

fn simulator(ttft: u64, itl: u64, tokens: u64, faults: Vec<Fault>) -> Simulator {
    let (ttft, itl) = (Duration::from_millis(ttft), Duration::from_millis(itl));
    let script = Script { ttft, itl, tokens, faults, ..Script::default() };
    Simulator::start(script, &OpenAiChat).expect("an endpoint")
}

fn read(recording: &Recording) -> Sample {
    sample::read(recording, &OpenAiChat, TokenCount::Usage).expect("a valid answer")
}

/// The largest number of answers that the endpoint wrote at the same time.
fn most_at_once(log: &[AnswerLog]) -> usize {
    let span = |answer: &AnswerLog| (answer.received, answer.writes.last().unwrap().returned);
    let spans: Vec<_> = log.iter().map(span).collect();
    let at = |moment| spans.iter().filter(|(from, to)| *from <= moment && moment <= *to).count();
    spans.iter().map(|(from, _)| at(*from)).max().unwrap()
}

#[test]
fn the_requested_number_of_requests_run_each_on_its_own_connection() {
    for transport in TRANSPORTS {
        let simulator = simulator(150, 2, 10, Vec::new());
        let client = client(&simulator.url(), transport);
        let load = Load::of(32, 16).driven(&client);
        let log = simulator.log();
        assert_eq!(most_at_once(&log), 16);
        let written: BTreeMap<_, _> =
            log.iter().map(|answer| (answer.id.as_str(), answer)).collect();
        let mut seen = HashSet::new();
        for recording in load.recordings() {
            let sample = read(recording);
            let answer = written[sample.request_id.as_deref().unwrap()];
            assert!(seen.insert(answer.id.clone()));
            assert_eq!(sample.token_events.len(), 10);
            // Figures include neither the connection setup nor the wait for a slot.
            let origin = recording.origin.unwrap();
            assert!(origin <= answer.received);
            let first = answer.first_token().unwrap();
            assert!(origin + sample.first_token() >= first.began, "stamped before it was written");
        }
        let connects = load.recordings().iter().filter(|r| r.connect.is_some()).count();
        assert_eq!(connects, 16, "one for each slot, and all are kept");

        // A second load finds them open.
        let again = Load::of(16, 16).driven(&client);
        assert!(again.recordings().iter().all(|recording| recording.connect.is_none()));
    }
}

#[test]
fn no_request_is_sent_before_its_start() {
    for transport in TRANSPORTS {
        let simulator = simulator(5, 1, 3, Vec::new());
        let begun = Instant::now();
        let starts: Vec<_> = (0..8).map(|n| begun + Duration::from_millis(30 + 7 * n)).collect();
        let load = Load { starts: starts.clone(), ..Load::of(8, 8) };
        let load = load.driven(&client(&simulator.url(), transport));
        for (recording, start) in load.recordings().iter().zip(starts) {
            assert!(recording.origin.unwrap() >= start);
        }
    }
}

#[test]
fn a_failure_does_not_affect_other_requests() {
    for transport in TRANSPORTS {
        let fault = |kind, request| Fault { kind, request: Some(request) };
        let faults = vec![
            fault(FaultKind::Reset(3), 2),
            fault(FaultKind::Status(503), 5),
            fault(FaultKind::Stall(2), 7),
        ];
        let simulator = simulator(5, 2, 8, faults);
        let timeouts = Timeouts { inter_token: Duration::from_millis(400), ..Timeouts::default() };
        let client = client_of(&simulator.url(), transport, timeouts);
        let load = Load::of(24, 6).driven(&client);
        let outcome = |recording: &Recording| {
            sample::read(recording, &OpenAiChat, TokenCount::Usage).err().map(|error| error.kind)
        };
        let mut kinds: Vec<_> = load.recordings().into_iter().filter_map(outcome).collect();
        kinds.sort();
        let expected = [ErrorKind::InterTokenTimeout, ErrorKind::HttpStatus, ErrorKind::Broken];
        assert_eq!(kinds, expected);
    }
}

#[test]
fn after_a_cancellation_each_answer_ends_once() {
    for transport in TRANSPORTS {
        let stall = Fault { kind: FaultKind::Stall(2), request: None };
        let simulator = simulator(5, 1, 8, vec![stall]);
        let mut load = Load::of(100, 4);
        let observer = CancelAfter(Cell::new(4));
        client(&simulator.url(), transport).drive(&mut load, &observer);
        let kind = |answer: &Result<Recording, RequestError>| match answer {
            Ok(recording) => recording.broken.as_ref().map(|error| error.kind),
            Err(error) => Some(error.kind),
        };
        let kinds: Vec<_> = load.answers.values().map(kind).collect();
        assert_eq!(kinds, [Some(ErrorKind::Interrupted); 4]);
    }
}

#[test]
fn no_request_is_lost_to_an_unannounced_close() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || {
                let mut socket = socket.expect("a client");
                let _ = socket.read(&mut [0; 1 << 16]);
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\ndata: [DONE]\n\n";
                let _ = socket.write_all(answer.as_bytes());
            });
        }
    });
    let load = Load::of(60, 4).driven(&client(&url, Transport::Reqwest));
    assert_eq!(load.recordings().len(), 60);
    // The server closes each connection, so each request opens one.
    let connects = load.recordings().iter().filter(|r| r.connect.is_some()).count();
    assert_eq!(connects, 60);
}

#[test]
fn a_firehose_on_64_streams_loses_no_event() {
    // 750 events of about 230 bytes per second and stream, 11 MB/s in all; then as fast as possible.
    let script = |itl, tokens| {
        let merge = Fault { kind: FaultKind::Merge(16), request: None };
        let faults = if itl == 0 { vec![merge] } else { Vec::new() };
        Script {
            ttft: Duration::ZERO,
            itl: Duration::from_micros(itl),
            tokens,
            faults,
            ..Script::default()
        }
    };
    for (itl, tokens) in [(1333, 150), (0, 480)] {
        for transport in TRANSPORTS {
            let simulator =
                Simulator::start(script(itl, tokens), &OpenAiChat).expect("an endpoint");
            let load = Load::of(64, 64).driven(&client(&simulator.url(), transport));
            let recordings = load.recordings();
            assert_eq!(recordings.len(), 64);
            for sample in recordings.into_iter().map(read) {
                assert_eq!(sample.token_events.len() as u64, tokens);
                assert_eq!(sample.response_tokens, tokens);
                assert!(sample.token_events.is_sorted());
            }
        }
    }
}

#[test]
fn a_key_that_a_server_sends_back_can_be_masked() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a client");
            let mut request = [0; 1 << 16];
            let read = socket.read(&mut request).expect("a request");
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            let _ = socket.write_all(&[head.as_bytes(), &request[..read]].concat());
        }
    });
    for transport in TRANSPORTS {
        let key = Secret("s3cret-key".into());
        let (timeouts, api_key) = (Timeouts::default(), Some(&key));
        let connection = ConnectionMode::Warm;
        let protocol = &OpenAiChat;
        let route = &ConnectOptions::default();
        let options = Options {
            replicas: &[],
            url: &url,
            headers: &[],
            api_key,
            timeouts,
            transport,
            connection,
            protocol,
            answer: AnswerForm::Stream { needs_usage: false },
            route,
        };
        let client = Client::new(&options).unwrap();
        let load = Load::of(1, 1).driven(&client);
        let hidden = client.redactor().redact_recording(load.recordings()[0].clone());
        let body = String::from_utf8(hidden.body()).unwrap();
        assert!(body.contains("Bearer ") && !body.contains("s3cret-key"), "{body}");
    }
}
