//! The bench target against a server that speaks TLS, with a certificate made for the test.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};

use crate::bench::{Bench, ran};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENTS: [&str; 3] = [
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" you\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
];

/// A server on `localhost` that answers every request, and its certificate as PEM.
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
                thread::sleep(std::time::Duration::from_millis(5));
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

fn column(bench: &Bench, name: &str) -> Vec<String> {
    let file = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap();
    let index = file.lines().next().unwrap().split(',').position(|column| column == name).unwrap();
    bench.results().iter().map(|row| row[index].to_owned()).collect()
}

#[test]
fn both_transports_measure_over_tls_and_keep_the_connection() {
    let (port, certificate) = server();
    let bench = Bench::new(&config(port));
    let trusted = bench.folder.path().join("trusted.pem");
    fs::write(&trusted, certificate).unwrap();
    let ran = ran(bench.command(&["--no-warmup"]).env("SSL_CERT_FILE", &trusted));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(column(&bench, "response_tokens"), ["2"; 4]);
    let there = |name| column(&bench, name).iter().map(|cell| !cell.is_empty()).collect::<Vec<_>>();
    assert_eq!(there("connect_time"), [true, false, true, false]);
    if cfg!(target_os = "linux") {
        assert_eq!(there("tls_time"), [true, false, false, false]);
        assert_eq!(column(&bench, "clock"), ["kernel", "kernel", "program", "program"]);
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_a_tls_failure() {
    let (port, _) = server();
    let bench = Bench::new(&config(port));
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert_eq!(column(&bench, "error_kind"), ["tls"; 4]);
    for message in column(&bench, "error_message") {
        let start = format!("TLS with localhost:{port} failed: invalid peer certificate: ");
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn a_server_that_speaks_no_tls_is_a_tls_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let _ = socket.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let bench = Bench::new(&config(port));
    bench.run(&["--no-warmup"]);
    assert_eq!(column(&bench, "error_kind"), ["tls"; 4], "{:?}", column(&bench, "error_message"));
}
