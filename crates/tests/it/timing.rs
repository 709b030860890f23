//! The client against the simulated endpoint, whose log says when each write was made. Nothing
//! here depends on how fast this machine is: what is asserted follows from cause and effect, or
//! from limits that a fault runs into for certain.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use llm_stream_bench::{
    cli::Cli,
    config::Config,
    load::{self, Answer},
    plan::{Case, Endpoint, Plan},
};
use llm_stream_client::{AnswerForm, Client, Options, connect_options::ConnectOptions};
use llm_stream_core::sample::{Note, Sample};
use llm_stream_sim::Simulator;

/// The one case of a config whose model has these lines.
fn case(model: &str) -> Arc<Case> {
    let yaml = format!(
        "runs: 1\nprompts: [{{ name: hi, text: \"Say hi.\" }}]\nmodels:\n  m:\n    {model}\n"
    );
    let config = Config::parse(&yaml, "configs.yaml", Path::new("."))
        .unwrap_or_else(|errors| panic!("{errors}"));
    Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).expect("a plan").cases[0].clone()
}

fn client(case: &Case, url: &str) -> Client {
    let target = &case.target;
    Client::new(&Options {
        replicas: &[],
        url,
        headers: &[],
        api_key: None,
        timeouts: target.timeouts,
        transport: target.transport,
        connection: target.connection,
        protocol: target.protocol,
        answer: AnswerForm::Stream { needs_usage: true },
        route: &ConnectOptions::default(),
    })
    .expect("a client")
}

fn simulator(case: &Case) -> Simulator {
    let Endpoint::Simulated(script) = &case.target.endpoint else { panic!("not simulated") };
    Simulator::start(script.clone(), case.target.protocol).expect("an endpoint")
}

fn answers(model: &str, count: usize) -> (Vec<Answer>, Simulator) {
    let case = case(model);
    let simulator = simulator(&case);
    let client = client(&case, &format!("{}/v1/chat/completions", simulator.url()));
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.push(load::run(&case, &load::PromptSizer::default(), &client, &()));
    }
    (answers, simulator)
}

fn sample(model: &str) -> Sample {
    answers(model, 1).0.remove(0).outcome.expect("a valid answer")
}

/// What `model` comes to, the same by every transport.
fn result_of(model: &str) -> String {
    let keys = model.strip_prefix('{').and_then(|keys| keys.strip_suffix('}')).expect("a map");
    let by = |transport| result_by(&format!("{{ transport: {transport}, {keys} }}"));
    let (stamped, reqwest) = (by("stamped"), by("reqwest"));
    assert_eq!(stamped, reqwest);
    stamped
}

fn result_by(model: &str) -> String {
    match answers(model, 1).0.remove(0).outcome {
        Ok(sample) => {
            // A busy machine can have events arrive together, and be read late.
            let of_load =
                [Note::SharedArrivals, Note::Burst, Note::MayBeHeldBack, Note::ClientDelayed];
            let notes = sample.notes.iter().filter(|note| !of_load.contains(note));
            let notes: Vec<_> = notes.map(|note| note.name()).collect();
            let (tokens, events) = (sample.response_tokens, sample.token_events.len());
            format!("ok: {tokens} tokens in {events} events {notes:?}")
        }
        Err(error) => undated(&format!("{}: {error}", error.kind)),
    }
}

/// Without the second at which a simulated answer says that it was created.
fn undated(text: &str) -> String {
    let (before, after) = text.split_once("\"created\":").unwrap_or((text, ""));
    format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn no_token_is_stamped_before_it_was_written_or_after_it_was_read() {
    let begun = Instant::now();
    let (answers, simulator) =
        answers("simulate: { ttft: 20ms, itl: 5ms, jitter: 4ms, tokens: 16 }", 3);
    let elapsed = begun.elapsed();
    let log = simulator.log();
    assert_eq!(log.len(), 3);
    for (answer, log) in answers.iter().zip(&log) {
        let sample = answer.outcome.as_ref().unwrap();
        let writes: Vec<_> = log.writes.iter().filter(|write| write.token_events > 0).collect();
        assert_eq!(sample.token_events.len(), writes.len());
        assert_eq!(sample.request_id.as_deref(), Some(log.id.as_str()));
        for (arrival, write) in sample.token_events.iter().zip(&writes) {
            // The client's clock starts before the server has read the request.
            assert!(*arrival >= write.began - log.received, "{arrival:?}");
        }
        assert!(sample.first_token() >= Duration::from_millis(16));
        assert!(sample.token_events.is_sorted());
        assert!(sample.end >= sample.last_token() && sample.end <= elapsed);
    }
}

#[test]
fn timestamps_of_a_fast_stream_do_not_decrease() {
    let model = "{ max_tokens: 8000, simulate: { ttft: 1ms, itl: 0, tokens: 8000 } }";
    let (answers, _simulator) = answers(model, 4);
    for answer in answers {
        let recording = answer.recording.unwrap();
        assert!(recording.chunks.is_sorted_by_key(|chunk| chunk.at));
        assert_eq!(answer.outcome.unwrap().token_events.len(), 8_000);
    }
}

#[test]
fn connection_setup_is_in_connect_time_only() {
    let (answers, _simulator) = answers("simulate: { ttft: 5ms, itl: 1ms, tokens: 3 }", 2);
    let samples: Vec<_> = answers.iter().map(|answer| answer.outcome.as_ref().unwrap()).collect();
    assert!(samples[0].connect.is_some());
    assert_eq!(samples[1].connect, None);
}

#[test]
fn reasoning_tokens_and_events_of_several_tokens_are_distinguished() {
    let model = "simulate: { ttft: 5ms, itl: 2ms, tokens: 12, tokens_per_event: 4, \
                 reasoning_tokens: 4, cached_tokens: 1 }";
    let sample = sample(model);
    assert_eq!((sample.response_tokens, sample.token_events.len()), (12, 3));
    assert_eq!((sample.reasoning_tokens, sample.cached_tokens), (Some(4), Some(1)));
    assert_eq!(sample.first_reasoning, Some(sample.token_events[0]));
    assert_eq!(sample.first_answer, Some(sample.token_events[1]));
}

#[test]
fn events_of_one_write_are_counted() {
    let model = "simulate: { ttft: 3ms, itl: 20ms, tokens: 6, faults: [{ merge: 3 }] }";
    let (mut answers, simulator) = answers(model, 1);
    let sample = answers.remove(0).outcome.expect("a valid answer");
    assert!(sample.shared_arrivals() >= 4, "{:?}", sample.token_events);
    // Two pieces do not make a rhythm: the speed has an error, within which the true one is.
    assert!(!sample.notes.contains(&Note::Burst), "{:?}", sample.notes);
    let time = sample.generation_time().expect("a time");
    let truth = Duration::from_millis(5 * 20);
    // A busy machine writes late, the first token as well as the others.
    let late = simulator.log()[0].latest + Duration::from_millis(10);
    let error = sample.generation_uncertainty() + late;
    assert!(time.abs_diff(truth) <= error, "{sample:?}");
}

#[test]
fn max_tokens_ends_the_answer() {
    let sample = sample("{ max_tokens: 3, simulate: { ttft: 5ms, itl: 2ms } }");
    assert_eq!((sample.response_tokens, sample.finish_reason.as_str()), (3, "length"));
}

#[test]
fn faults_are_failures_by_their_kind() {
    let faults = [
        "{ status: 429 }",
        "{ status: 503 }",
        "{ truncate: 3 }",
        "{ truncate: 0 }",
        "{ reset: 3 }",
        "{ reset: 0 }",
        "{ error: 3 }",
        "{ error: 0 }",
        "missing_usage",
        "missing_end",
        "no_stream",
        "{ split: 1 }",
        "{ split: 7 }",
        "{ merge: 3 }",
        "{ merge: 100 }",
    ];
    let mut lines = Vec::new();
    for fault in faults {
        let model =
            format!("{{ simulate: {{ ttft: 3ms, itl: 6ms, tokens: 6, faults: [{fault}] }} }}");
        lines.push(format!("{fault}\n  {}", result_of(&model)));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn each_expired_timeout_has_its_name() {
    let models = [
        "{ timeouts: { first_token: 40ms }, simulate: { ttft: 30s } }",
        "{ timeouts: { inter_token: 40ms }, simulate: { ttft: 3ms, itl: 2ms, faults: [{ stall: 3 }] } }",
        "{ timeouts: { inter_token: 40ms }, simulate: { ttft: 3ms, itl: 30s } }",
        "{ timeouts: { inter_token: 30ms, first_token: 10s }, simulate: { ttft: 120ms, itl: 6ms, tokens: 3 } }",
        "{ timeouts: { total: 300ms }, simulate: { ttft: 3ms, itl: 2ms, faults: [{ stall: 3 }] } }",
        "{ timeouts: { total: 40ms }, simulate: { ttft: 30s } }",
        "{ token_count: chunks, simulate: { ttft: 3ms, itl: 2ms, tokens: 6, faults: [missing_usage] } }",
    ];
    let mut lines = Vec::new();
    for model in models {
        lines.push(format!("{model}\n  {}", result_of(model)));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

/// A server that writes `head`, then keeps the line busy with comments, as some do in a prefill.
fn pings(head: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v1/chat/completions", listener.local_addr().expect("a port"));
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let mut request = [0; 4096];
        let _ = socket.read(&mut request);
        let status = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        let _ = socket.write_all(format!("{status}{head}").as_bytes());
        while socket.write_all(b":\n\n").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    url
}

#[test]
fn comments_and_roles_are_not_tokens() {
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let token = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    let limits = "timeouts: { first_token: 60ms, inter_token: 60ms }";
    for (head, kind) in [(role, "first_token_timeout"), (token, "inter_token_timeout")] {
        let case = case(&format!("{{ base_url: \"http://h\", {limits} }}"));
        let answer =
            load::run(&case, &load::PromptSizer::default(), &client(&case, &pings(head)), &());
        assert_eq!(answer.outcome.unwrap_err().kind.name(), kind);
    }
}

#[test]
fn a_slow_connection_is_a_connect_timeout() {
    // A listener whose queue is full answers no further connection.
    let case = case("{ base_url: \"http://h\", timeouts: { connect: 80ms } }");
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let fill = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50));
    let _held: Vec<_> = (0..4).map(|_| fill()).collect();
    let client = client(&case, &format!("http://{address}/v1/chat/completions"));
    let error = load::run(&case, &load::PromptSizer::default(), &client, &()).outcome.unwrap_err();
    assert_eq!(error.kind.name(), "connect_timeout", "{error}");
    assert!(error.message.ends_with("within 80ms (timeouts.connect)"), "{error}");
}
