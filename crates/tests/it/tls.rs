//! The bench target against TLS servers with certificates that the test creates.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};

use llm_stream_bench::load;
use llm_stream_client::connect_options::{Certificate, ConnectOptions};
use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{self as sim, Fault, FaultKind, Script, Simulator, SimulatorTls};

use crate::{
    bench::{Bench, Served, masking, ran},
    http::{STREAM, TRANSPORTS, came_to, chunked, client_by, plan_at},
};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENTS: [&str; 3] = [
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" you\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
];

/// Starts a server on `localhost` that answers every request; returns its port and certificate.
fn server() -> (u16, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a config");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let config = Arc::new(config);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, config) = (socket.expect("a client"), config.clone());
            thread::spawn(move || serve(socket, config));
        }
    });
    (port, cert.pem())
}

/// Answers the requests of one connection until it ends.
fn serve(socket: TcpStream, config: Arc<ServerConfig>) {
    let _ = socket.set_nodelay(true);
    let mut stream = StreamOwned::new(ServerConnection::new(config).expect("a server"), socket);
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        request.extend_from_slice(&piece[..read]);
        if request.ends_with(b"}") {
            request.clear();
            let chunks = EVENTS.map(|event| format!("{:x}\r\n{event}\r\n", event.len()));
            let [first, second, last] = chunks;
            for piece in [HEAD.to_owned(), first, second, last + "0\r\n\r\n"] {
                if stream.write_all(piece.as_bytes()).and_then(|()| stream.flush()).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn config(port: u16) -> String {
    format!(
        "runs: 2\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\nmodels:\n  \
         stamped: {{ base_url: \"https://localhost:{port}\", transport: stamped }}\n  \
         reqwest: {{ base_url: \"https://localhost:{port}\", transport: reqwest }}\n"
    )
}

#[test]
fn both_transports_measure_over_tls_and_keep_the_connection() {
    let (port, certificate) = server();
    let bench = Bench::new(&config(port));
    let trusted = bench.folder.path().join("trusted.pem");
    fs::write(&trusted, certificate).unwrap();
    let ran = ran(bench.command(&["--no-warmup"]).env("SSL_CERT_FILE", &trusted));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(bench.column("response_tokens"), ["2"; 4]);
    let there = |name| bench.column(name).iter().map(|cell| !cell.is_empty()).collect::<Vec<_>>();
    assert_eq!(there("connect_time"), [true, false, true, false]);
    if cfg!(target_os = "linux") {
        assert_eq!(there("tls_time"), [true, false, false, false]);
        assert_eq!(bench.column("clock"), ["kernel", "kernel", "program", "program"]);
    }
}

#[test]
fn an_untrusted_certificate_is_a_tls_failure() {
    let (port, _) = server();
    let bench = Bench::new(&config(port));
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert_eq!(bench.column("error_kind"), ["tls"; 4]);
    for message in bench.column("error_message") {
        let start = format!("TLS with localhost:{port} failed: invalid peer certificate: ");
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn a_server_without_tls_is_a_tls_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let _ = socket.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let bench = Bench::new(&config(port));
    bench.run(&["--no-warmup"]);
    assert_eq!(bench.column("error_kind"), ["tls"; 4], "{:?}", bench.column("error_message"));
}

// -- the simulated endpoint over TLS -----------------------------------------------------------------

/// The results of two requests, one after the other.
fn outcomes(url: &str, route: &ConnectOptions, transport: &str) -> Vec<String> {
    let plan = plan_at(url, transport);
    let case = &plan.cases[0];
    let client = client_by(route, case, None);
    let ask = |_| came_to(load::run(case, &load::PromptSizer::default(), &client, &()).outcome);
    (0..2).map(ask).collect()
}

#[test]
fn every_answer_of_the_simulated_endpoint_gives_the_same_result_over_tls() {
    let faults = [
        None,
        Some(FaultKind::Status(503)),
        Some(FaultKind::Truncate(2)),
        Some(FaultKind::Reset(2)),
        FaultKind::with_number("error", 2),
        Some(FaultKind::MissingUsage),
        Some(FaultKind::MissingEnd),
        Some(FaultKind::Split(3)),
        Some(FaultKind::Merge(4)),
        Some(FaultKind::NoStream),
    ];
    for kind in faults {
        let faults = kind.map(|kind| Fault { kind, request: None }).into_iter().collect();
        let (ttft, itl) = (Duration::from_millis(5), Duration::from_millis(2));
        let script = Script { ttft, itl, tokens: 8, faults, ..Script::default() };
        let (tls, certificate) = SimulatorTls::self_signed().expect("a certificate");
        let address = "127.0.0.1:0".parse().unwrap();
        let sealed =
            Simulator::over_tls(address, script.clone(), &OpenAiChat, tls).expect("an endpoint");
        let plain = Simulator::start(script, &OpenAiChat).expect("an endpoint");
        let route = ConnectOptions::trusting([Certificate::from_der(certificate)]);
        for transport in TRANSPORTS {
            let expected = outcomes(&plain.url(), &ConnectOptions::default(), transport);
            assert_eq!(outcomes(&sealed.url(), &route, transport), expected, "{kind:?}");
        }
        let log = |simulator: &Simulator| {
            let of = |answer: sim::AnswerLog| {
                let sizes: Vec<_> =
                    answer.writes.iter().map(|write| (write.bytes, write.token_events)).collect();
                (answer.completed, answer.head_returned.is_some(), sizes)
            };
            simulator.log().into_iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(log(&sealed), log(&plain), "{kind:?}");
    }
}

/// The result of the complete `STREAM`.
const WHOLE: &str = "2 tokens in 2 events, stop, Some(\"c1\")";

/// The end of a connection.
#[derive(Debug, Clone, Copy)]
enum End {
    /// With `close_notify`.
    Closed,
    /// With `close_notify` and bytes after it.
    Followed,
    /// Without `close_notify`.
    Cut,
    /// Within the last record.
    Torn,
}

/// A server that sends these answers in order, one per connection.
fn answering(answers: Vec<(Vec<u8>, End)>, tls: SimulatorTls) -> String {
    let tls: Arc<ServerConfig> = tls.into();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("a port"));
    thread::spawn(move || {
        for (answer, end) in answers {
            let (mut socket, _) = listener.accept().expect("a client");
            let mut server = ServerConnection::new(tls.clone()).expect("a server");
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                server.complete_io(&mut socket).expect("a client");
                let mut piece = [0; 4096];
                if let Ok(read) = server.reader().read(&mut piece) {
                    request.extend_from_slice(&piece[..read]);
                }
            }
            server.writer().write_all(&answer).expect("room");
            if matches!(end, End::Closed | End::Followed) {
                server.send_close_notify();
            }
            let mut sealed = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut sealed).expect("room");
            }
            match end {
                End::Torn => drop(sealed.pop()),
                // More than one TLS read, so that bytes are left when `close_notify` is processed.
                End::Followed => sealed.resize(sealed.len() + 40_000, 0x17),
                End::Closed | End::Cut => {}
            }
            let _ = socket.write_all(&sealed);
            // The whole request has to be read, or the close is a reset.
            let _ = socket.shutdown(std::net::Shutdown::Write);
            while socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
        }
    });
    url
}

#[test]
fn both_transports_give_the_same_result_for_a_tls_stream_cut_anywhere() {
    let (tls, certificate) = SimulatorTls::self_signed().expect("a certificate");
    let route = ConnectOptions::trusting([Certificate::from_der(certificate)]);
    let until_close = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{STREAM}");
    let mut answers = Vec::new();
    for whole in [chunked(STREAM), until_close.into_bytes()] {
        for end in [End::Closed, End::Cut, End::Torn] {
            let lengths = (0..whole.len()).step_by(13).chain([whole.len()]);
            answers.extend(lengths.map(|length| (whole[..length].to_vec(), end)));
        }
    }
    let [stamped, reqwest] = TRANSPORTS.map(|transport| {
        let plan = plan_at(&answering(answers.clone(), tls.clone()), transport);
        let case = &plan.cases[0];
        let client = client_by(&route, case, None);
        let ask =
            |_: &_| came_to(load::run(case, &load::PromptSizer::default(), &client, &()).outcome);
        answers.iter().map(ask).collect::<Vec<_>>()
    });
    for ((answer, end), (stamped, reqwest)) in answers.iter().zip(stamped.iter().zip(&reqwest)) {
        assert_eq!(stamped, reqwest, "{end:?} {:?}", String::from_utf8_lossy(answer));
    }
    // An answer with its end marker is complete, with `close_notify` and without: an attacker may have
    // cut the connection, but nothing is missing.
    let is_whole = |answer: &[u8]| String::from_utf8_lossy(answer).contains("data: [DONE]");
    let mut whole = 0;
    for ((answer, end), came_to) in answers.iter().zip(&stamped) {
        let text = String::from_utf8_lossy(answer);
        match end {
            End::Closed | End::Cut if is_whole(answer) => {
                whole += 1;
                assert_eq!(came_to, WHOLE, "{end:?} {text:?}");
            }
            // An answer that ends with a proper close may lack its end marker.
            End::Closed => {}
            _ => assert_eq!(came_to, "broken", "{end:?} {text:?}"),
        }
    }
    assert!(whole > 4, "some are cut between the end marker and the end of the body: {whole}");
}

#[test]
fn bytes_after_close_notify_are_ignored() {
    let (tls, certificate) = SimulatorTls::self_signed().expect("a certificate");
    let (ended, all) = mpsc::channel();
    // On its own thread: a request that never ends would block the test.
    thread::spawn(move || {
        let route = ConnectOptions::trusting([Certificate::from_der(certificate)]);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        let whole = [chunked(STREAM), format!("{head}{STREAM}").into_bytes()];
        let cut = chunked(STREAM)[..200].to_vec();
        for answer in whole.into_iter().chain([cut]) {
            for transport in TRANSPORTS {
                // Twice by one client, which must not reuse the connection.
                let answers = vec![(answer.clone(), End::Followed); 2];
                ended.send(outcomes(&answering(answers, tls.clone()), &route, transport)).unwrap();
            }
        }
    });
    for expected in [WHOLE, WHOLE, WHOLE, WHOLE, "broken", "broken"] {
        let outcomes = all.recv_timeout(Duration::from_secs(60)).expect("an end of the request");
        assert_eq!(outcomes, [expected; 2]);
    }
}

/// A system without CA certificates, such as a container from scratch.
#[cfg(target_os = "linux")]
#[test]
fn without_certificates_of_the_system_those_in_the_program_are_used() {
    const NOTE: &str = "note: this system has no CA certificates";
    let (port, certificate) = server();
    let bench = Bench::new(&config(port));
    let trusted = bench.folder.path().join("trusted.pem");
    fs::write(&trusted, certificate).unwrap();
    let stores = ["/etc/ssl", "/etc/pki", "/etc/security", "/usr/share/ssl", "/var/ssl"];
    let plain = bench.command(&["--no-warmup"]);
    let Some(mut masked) = masking(&stores, &plain) else { return };
    let refused = ran(masked.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR"));
    assert_eq!(refused.code, Some(101), "{}", refused.stderr);
    assert_eq!(refused.stderr.matches(NOTE).count(), 1, "{}", refused.stderr);
    for message in bench.column("error_message") {
        assert!(message.contains("UnknownIssuer"), "{message}");
    }
    // The user's certificates replace them, also if there are none.
    let accepted = ran(masked.env("SSL_CERT_FILE", &trusted));
    assert_eq!(accepted.code, Some(0), "{}{}", accepted.stdout, accepted.stderr);
    assert!(!accepted.stderr.contains(NOTE), "{}", accepted.stderr);
    let nobody = ran(masked.env("SSL_CERT_FILE", "/dev/null"));
    assert_eq!(nobody.code, Some(101), "{}", nobody.stderr);
    assert!(!nobody.stderr.contains(NOTE), "{}", nobody.stderr);
    for message in bench.column("error_message") {
        assert!(message.contains("cannot read the trusted certificates"), "{message}");
    }
}

/// `ca_file` is trusted in addition to the certificates in the program.
#[cfg(target_os = "linux")]
#[test]
fn a_ca_file_is_accepted_without_certificates_of_the_system() {
    let (port, certificate) = server();
    let bench = Bench::new(&config(port).replace("transport", "ca_file: trusted.pem, transport"));
    fs::write(bench.folder.path().join("trusted.pem"), certificate).unwrap();
    let plain = bench.command(&["--no-warmup"]);
    let Some(mut masked) = masking(&["/etc/ssl", "/etc/pki"], &plain) else { return };
    let ran = ran(masked.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn serve_uses_the_given_certificate() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    fs::write(&certificate, cert.pem()).unwrap();
    fs::write(&key, signing_key.serialize_pem()).unwrap();
    let served = Served::start(&[
        "--ttft=5ms",
        "--itl=5ms",
        "--tokens=6",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
    ]);
    assert!(served.base_url.starts_with("https://127.0.0.1:"), "{}", served.base_url);
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\n\
         models: {{ m: {{ base_url: \"{}\" }} }}\n",
        served.base_url
    ));
    let ran = ran(bench.command(&[]).env("SSL_CERT_FILE", &certificate));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(bench.column("response_tokens"), ["6"]);
}

#[test]
fn serve_explains_an_unusable_certificate() {
    let make = || generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (one, other) = (make(), make());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    file("cert.pem", &one.cert.pem());
    file("key.pem", &one.signing_key.serialize_pem());
    file("other.pem", &other.signing_key.serialize_pem());
    file("notes.txt", "no certificate");
    let mut stderr = String::new();
    for (certificate, key) in [
        ("missing.pem", "key.pem"),
        ("notes.txt", "key.pem"),
        ("cert.pem", "cert.pem"),
        ("cert.pem", "other.pem"),
    ] {
        let ran =
            ran(std::process::Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"))
                .current_dir(folder.path())
                .args(["serve", "--listen", "127.0.0.1:0"])
                .args(["--tls-cert", certificate, "--tls-key", key]));
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        stderr += &ran.stderr;
    }
    insta::assert_snapshot!(stderr);
}
