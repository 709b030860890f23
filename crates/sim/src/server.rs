//! The public interface of the simulated endpoint: start it, find its address, read its log.

#[cfg(unix)]
use std::path::Path;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mio::{Poll, Waker};

#[cfg(unix)]
use llm_stream_core::unix_url::unix_url;
use llm_stream_core::{protocol::Protocol, punctuality::Punctuality};

#[cfg(unix)]
use super::listener::SocketFile;
use super::{
    listener::Listener,
    log::{AnswerLog, Log},
    reactor::{Reactor, WAKER},
    script::Script,
    tls::SimulatorTls,
};

/// A running simulated endpoint. Dropping it closes all connections and ends its thread.
///
/// One thread serves every client. It uses no CPU time while nothing is due.
#[derive(Debug)]
pub struct Simulator {
    address: BoundAddress,
    scheme: &'static str,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
enum BoundAddress {
    Port(SocketAddr),
    #[cfg(unix)]
    File(SocketFile),
}

impl Simulator {
    /// Starts an endpoint on a free port of the loopback interface.
    pub fn start(script: Script, protocol: &'static dyn Protocol) -> io::Result<Self> {
        Self::bind((Ipv4Addr::LOCALHOST, 0).into(), script, protocol)
    }

    /// Starts an endpoint on `addr`. Port 0 selects a free one.
    pub fn bind(
        addr: SocketAddr,
        script: Script,
        protocol: &'static dyn Protocol,
    ) -> io::Result<Self> {
        Self::on_port(addr, script, protocol, None)
    }

    /// Starts an endpoint on `addr` with TLS.
    pub fn over_tls(
        addr: SocketAddr,
        script: Script,
        protocol: &'static dyn Protocol,
        tls: SimulatorTls,
    ) -> io::Result<Self> {
        Self::on_port(addr, script, protocol, Some(tls))
    }

    /// Starts an endpoint on a Unix domain socket at the absolute path `path`, which is removed at
    /// the end. The socket of an endpoint that was killed is replaced.
    #[cfg(unix)]
    pub fn on_file(
        path: &Path,
        script: Script,
        protocol: &'static dyn Protocol,
    ) -> io::Result<Self> {
        let (listener, file) = Listener::on_file(path)?;
        Self::spawn((listener, BoundAddress::File(file)), script, protocol, None)
    }

    fn on_port(
        addr: SocketAddr,
        script: Script,
        protocol: &'static dyn Protocol,
        tls: Option<SimulatorTls>,
    ) -> io::Result<Self> {
        let (listener, addr) = Listener::on_port(addr)?;
        Self::spawn((listener, BoundAddress::Port(addr)), script, protocol, tls)
    }

    fn spawn(
        (listener, address): (Listener, BoundAddress),
        script: Script,
        protocol: &'static dyn Protocol,
        tls: Option<SimulatorTls>,
    ) -> io::Result<Self> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let log = Arc::<Log>::default();
        let stop = Arc::<AtomicBool>::default();
        let reactor =
            Reactor::new(poll, listener, tls, script, protocol, log.clone(), stop.clone())?;
        let thread = thread::Builder::new().name("simulator".to_owned()).spawn(|| reactor.run())?;
        Ok(Self { address, scheme, log, stop, waker, thread: Some(thread) })
    }

    /// Returns the address of its port; `None` for a Unix domain socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        match &self.address {
            BoundAddress::Port(addr) => Some(*addr),
            #[cfg(unix)]
            BoundAddress::File(_) => None,
        }
    }

    /// Returns its base URL without a path: `http://127.0.0.1:PORT`, `https://…` with TLS, or
    /// `unix:///FILE`.
    pub fn url(&self) -> String {
        match &self.address {
            BoundAddress::Port(addr) => format!("{}://{addr}", self.scheme),
            #[cfg(unix)]
            BoundAddress::File(file) => unix_url(&file.0, ""),
        }
    }

    /// Keeps only the scheduled and the actual times of the first and the last token of each
    /// answer. That suffices for [`Punctuality`] and fits into memory after many requests.
    pub fn briefly_logged(self) -> Self {
        self.log.shorten();
        self
    }

    /// Takes all answers out of the log.
    pub fn take_log(&self) -> Vec<AnswerLog> {
        self.log.take()
    }

    /// Returns the log: every request for a completion in the order of arrival, including those in
    /// progress.
    pub fn log(&self) -> Vec<AnswerLog> {
        self.log.answers()
    }

    /// Waits until the endpoint fails. Once per second, `report` gets the punctuality of the
    /// answers that have ended.
    pub fn wait(mut self, mut report: impl FnMut(&Punctuality)) -> io::Result<()> {
        const PERIOD: Duration = Duration::from_secs(1);
        self.log.shorten();
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            thread::sleep(PERIOD);
            let ended = self.log.take_ended();
            if !ended.is_empty() {
                let timings = ended.iter().map(AnswerLog::timing).collect();
                report(&Punctuality::of(timings, Vec::new()));
            }
        }
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let ended = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        ended.unwrap_or_else(|_| {
            Err(io::Error::other(
                "the thread of the simulated endpoint panicked: see the message above",
            ))
        })
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if self.waker.wake().is_ok() {
            // The result has no receiver any more.
            let _ = self.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write as _},
        net::TcpStream,
        time::Duration,
    };

    use llm_stream_core::{
        framing::Frame,
        protocol::{
            ChatRequest, DecodeError, Envelope, Message, MessagePart, RequestIntent, TextFields,
        },
    };
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::{Fault, FaultKind, ServerCapacity, Write, wire};

    /// A protocol whose frames are readable text.
    #[derive(Debug)]
    struct Plain {
        /// Whether encoding the first token panics.
        breaks: bool,
    }

    impl Protocol for Plain {
        fn name(&self) -> &'static str {
            "plain"
        }

        fn path(&self) -> &'static str {
            "/chat"
        }

        fn body(&self, _: &ChatRequest<'_>) -> Value {
            Value::Null
        }

        fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
            let max_tokens = body.get("max_tokens").and_then(Value::as_u64);
            let usage = body.contains_key("stream_options");
            RequestIntent { max_tokens, usage, ..RequestIntent::of(body) }
        }

        fn forbidden_field(&self, _: &str, _: &Value) -> Option<String> {
            None
        }

        fn decode_with<'a>(
            &self,
            _: &Frame<'a>,
            _: &TextFields,
        ) -> Result<Message<'a>, DecodeError> {
            Err(DecodeError(String::new()))
        }

        fn encode(&self, message: &Message<'_>, _: &Envelope<'_>) -> Vec<u8> {
            let text = match &message.parts[..] {
                [MessagePart::Token(..)] if self.breaks => panic!("a panic of the test"),
                [MessagePart::Token(_, text)] => text,
                [MessagePart::Role] => "ROLE",
                [MessagePart::Finish(reason)] => reason,
                [MessagePart::Usage(_)] => "USAGE",
                [MessagePart::Timings(_)] => "TIMINGS",
                [MessagePart::Error(_)] => "ERROR",
                [MessagePart::End] => "END",
                other => panic!("unexpected parts: {other:?}"),
            };
            format!("data:{text}\n\n").into_bytes()
        }

        fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
            json!({"status": status, "message": message}).to_string().into_bytes()
        }

        fn decode_error(&self, _: &[u8]) -> Option<String> {
            None
        }
    }

    const STREAM: &str = "data:ROLE\n\ndata: the\n\ndata: stream\n\ndata: keeps\n\n\
        data: its\n\ndata: pace\n\ndata:，\n\ndata:一个\n\ndata:stop\n\ndata:END\n\n";

    fn simulator(faults: &[FaultKind]) -> Simulator {
        let fault = |&kind| Fault { kind, request: None };
        start(faults.iter().map(fault).collect())
    }

    fn start(faults: Vec<Fault>) -> Simulator {
        with(script(faults))
    }

    fn with(script: Script) -> Simulator {
        Simulator::start(script, &Plain { breaks: false }).expect("the simulator starts")
    }

    fn script(faults: Vec<Fault>) -> Script {
        Script {
            ttft: Duration::from_millis(5),
            itl: Duration::from_millis(2),
            jitter: Duration::ZERO,
            capacity: None,
            tokens: 7,
            tokens_per_event: 1,
            reasoning_tokens: 0,
            cached_tokens: 0,
            timings: false,
            seed: 1,
            faults,
        }
    }

    fn connect(simulator: &Simulator) -> TcpStream {
        let addr = simulator.addr().expect("a port");
        let client = TcpStream::connect(addr).expect("it accepts");
        let patience = Some(Duration::from_secs(10));
        client.set_read_timeout(patience).expect("a timeout");
        client
    }

    fn request(fields: &str, body: &str) -> String {
        let length = body.len();
        format!("POST /v1/chat HTTP/1.1\r\ncontent-length: {length}\r\n{fields}\r\n{body}")
    }

    fn ask(client: &mut TcpStream, request: &str) {
        client.write_all(request.as_bytes()).expect("it is sent");
    }

    const STREAMED: &str = r#"{"stream":true}"#;

    /// Sends one request and reads until the server closes.
    fn exchange(simulator: &Simulator, body: &str) -> Vec<u8> {
        let mut client = connect(simulator);
        ask(&mut client, &request("connection: close\r\n", body));
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("a whole answer");
        answer
    }

    /// Reads up to `end` and leaves the connection open.
    fn read_until(client: &mut TcpStream, end: &str) -> String {
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(end.as_bytes()) {
            client.read_exact(&mut byte).expect("more of the answer");
            answer.push(byte[0]);
        }
        String::from_utf8(answer).expect("text")
    }

    /// Returns the sizes of an answer's chunks and their joined contents.
    fn unchunk(answer: &[u8]) -> (Vec<usize>, String) {
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let mut rest = &answer[head.expect("a head") + 4..];
        let (mut sizes, mut body) = (Vec::new(), Vec::new());
        while let Ok(httparse::Status::Complete((start, size @ 1..))) =
            httparse::parse_chunk_size(rest)
        {
            let end = start + size as usize;
            sizes.push(end - start);
            body.extend_from_slice(&rest[start..end]);
            assert_eq!(rest[end..end + 2], *b"\r\n");
            rest = &rest[end + 2..];
        }
        assert_eq!(rest, wire::LAST_CHUNK);
        (sizes, String::from_utf8(body).expect("text"))
    }

    fn token_events(writes: &[Write]) -> Vec<u64> {
        writes.iter().map(|write| write.token_events).collect()
    }

    #[test]
    fn requests_that_follow_one_another_on_a_connection_are_streamed_and_logged() {
        let simulator = simulator(&[]);
        let mut client = connect(&simulator);
        ask(&mut client, &request("", STREAMED).repeat(2));
        for _ in 0..2 {
            let answer = read_until(&mut client, "\r\n0\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\nserver: llm-stream-bench-sim\r\n"));
            let (sizes, body) = unchunk(answer.as_bytes());
            assert_eq!(body, STREAM);
            assert_eq!(sizes.len(), 10, "a chunk an event");
        }
        let wanted = request("connection: close\r\n", STREAMED);
        ask(&mut client, &wanted);
        client.read_to_end(&mut Vec::new()).expect("a close");

        let log = simulator.log();
        assert_eq!(log.len(), 3);
        for (number, answer) in (1..).zip(&log) {
            assert_eq!(answer.request, number);
            assert_eq!(answer.id, format!("chatcmpl-sim-1-{number}"));
            assert_eq!(answer.body, STREAMED);
            assert!(answer.completed);
            assert!(answer.head_returned > Some(answer.received));
            let events = token_events(&answer.writes);
            assert_eq!(events, [1, 1, 1, 1, 1, 1, 1, 0]);
            assert!(
                answer
                    .writes
                    .iter()
                    .all(|write| write.due <= write.began && write.began <= write.returned)
            );
            assert!(answer.writes.is_sorted_by_key(|write| write.returned));
            let first = answer.first_token().expect("a token");
            assert_eq!(first.due - answer.received, Duration::from_millis(5));
        }
    }

    /// Returns a server with one slot that takes 3 ms for each token and 2 ms for the prompt.
    fn one_at_a_time() -> Simulator {
        let capacity = ServerCapacity {
            slots: 1,
            prefill_rate: 500.0,
            base: Duration::from_millis(3),
            per_running: Duration::ZERO,
            kv_tokens: None,
        };
        with(Script { capacity: Some(capacity), ..script(Vec::new()) })
    }

    #[test]
    fn a_server_with_one_slot_answers_one_request_after_the_other() {
        let simulator = one_at_a_time();
        let mut clients = [connect(&simulator), connect(&simulator), connect(&simulator)];
        for client in &mut clients {
            ask(client, &request("connection: close\r\n", STREAMED));
        }
        let mut metrics = connect(&simulator);
        ask(&mut metrics, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let text = read_until(&mut metrics, "kv_cache_usage_perc{model_name=\"simulated\"} 0\n");
        assert!(text.contains("vllm:num_requests_running{model_name=\"simulated\"} 1\n"), "{text}");
        for client in &mut clients {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("a close");
            assert_eq!(unchunk(&answer).1, STREAM);
        }
        let log = simulator.log();
        let mut due: Vec<Vec<_>> =
            log.iter().map(|of| of.writes.iter().map(|write| write.due).collect()).collect();
        due.sort();
        let times = |from: usize| (0..7).map(move |nth| 5 + 3 * nth + 23 * from as u64);
        let start = due[0][0] - Duration::from_millis(5);
        for (nth, due) in due.iter().enumerate() {
            let wanted: Vec<_> = times(nth).map(|at| start + Duration::from_millis(at)).collect();
            // The trailer is due with the last token.
            assert_eq!(due[..7], wanted, "{nth}");
            assert_eq!(due[7], wanted[6]);
        }
    }

    #[test]
    fn a_client_that_leaves_the_queue_or_its_slot_makes_room() {
        let simulator = one_at_a_time();
        let mut clients = [connect(&simulator), connect(&simulator), connect(&simulator)];
        for client in &mut clients {
            ask(client, &request("connection: close\r\n", STREAMED));
            read_until(client, "\r\n\r\n");
        }
        let [first, second, mut third] = clients;
        drop((first, second));
        let mut answer = Vec::new();
        third.read_to_end(&mut answer).expect("a close");
        let log = simulator.log();
        let ended: Vec<_> = log.iter().map(|answer| answer.completed).collect();
        assert_eq!(ended, [false, false, true]);
        let spent = log[2].writes[7].due - log[0].received;
        assert!(spent < Duration::from_millis(3 * 23), "{spent:?}");
    }

    #[test]
    fn merged_events_of_a_batch_are_due_with_the_last_of_them() {
        let capacity =
            ServerCapacity { base: Duration::from_millis(3), ..ServerCapacity::default() };
        let faults = vec![Fault { kind: FaultKind::Merge(4), request: None }];
        let simulator = with(Script { capacity: Some(capacity), ..script(faults) });
        let (sizes, body) = unchunk(&exchange(&simulator, STREAMED));
        assert_eq!((sizes.len(), body.as_str()), (3, STREAM));
        let log = simulator.log();
        let between = log[0].writes[1].due - log[0].writes[0].due;
        assert_eq!(between, 3 * Duration::from_micros(3_200));
    }

    #[test]
    fn split_pieces_join_to_the_same_stream() {
        let simulator = simulator(&[FaultKind::Split(3)]);
        let answer = exchange(&simulator, STREAMED);
        let (sizes, body) = unchunk(&answer);
        assert_eq!(body, STREAM);
        assert!(sizes.iter().all(|&size| size <= 3));
        let writes = &simulator.log()[0].writes;
        assert_eq!(writes.len(), sizes.len(), "a write a piece");
        assert_eq!(token_events(writes).iter().sum::<u64>(), 7);
    }

    #[test]
    fn merged_events_come_in_one_chunk() {
        let simulator = simulator(&[FaultKind::Merge(4)]);
        let (sizes, body) = unchunk(&exchange(&simulator, STREAMED));
        assert_eq!(body, STREAM);
        assert_eq!(sizes.len(), 3);
        assert_eq!(token_events(&simulator.log()[0].writes), [4, 3, 0]);
    }

    #[test]
    fn a_truncated_answer_ends_as_if_it_were_complete() {
        let simulator = simulator(&[FaultKind::Truncate(1)]);
        let (_, body) = unchunk(&exchange(&simulator, STREAMED));
        assert_eq!(body, "data:ROLE\n\ndata: the\n\n");
    }

    #[test]
    fn a_reset_is_an_error_for_the_client_after_it_read_every_event() {
        let simulator = simulator(&[FaultKind::Reset(2)]);
        let mut client = connect(&simulator);
        ask(&mut client, &request("", STREAMED));
        let mut answer = Vec::new();
        let error = client.read_to_end(&mut answer).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(answer.ends_with(b"data: stream\n\n\r\n"));
        assert!(!simulator.log()[0].completed);
    }

    #[test]
    fn a_client_that_leaves_midway_is_forgotten_and_the_next_is_served() {
        let simulator = start(vec![Fault { kind: FaultKind::Stall(1), request: Some(1) }]);
        let mut leaver = connect(&simulator);
        ask(&mut leaver, &request("", STREAMED));
        read_until(&mut leaver, "data: the\n\n\r\n");
        drop(leaver);
        let mut hasty = connect(&simulator);
        ask(&mut hasty, &request("", STREAMED));
        drop(hasty);

        let (_, body) = unchunk(&exchange(&simulator, STREAMED));
        assert_eq!(body, STREAM);
        let completed: Vec<bool> = simulator.log().iter().map(|a| a.completed).collect();
        assert_eq!(completed.first(), Some(&false));
        assert_eq!(completed.last(), Some(&true));
    }

    #[test]
    fn statuses_and_whole_answers_leave_the_connection_open() {
        let simulator = start(vec![
            Fault { kind: FaultKind::Status(302), request: Some(1) },
            Fault { kind: FaultKind::NoStream, request: Some(2) },
        ]);
        let mut client = connect(&simulator);
        ask(&mut client, &request("", STREAMED));
        let redirect = read_until(&mut client, "}");
        assert!(redirect.starts_with("HTTP/1.1 302 Found\r\n"));
        assert!(redirect.contains(&format!("location: {}/elsewhere\r\n", simulator.url())));
        ask(&mut client, &request("", STREAMED));
        let whole = read_until(&mut client, "}}");
        assert!(whole.contains("content-type: application/json\r\n"));
        assert!(whole.contains(r#""content":" the stream keeps its pace，一个""#));
        assert!(simulator.log().iter().all(|answer| answer.completed));
    }

    #[test]
    fn a_request_that_does_not_ask_for_a_stream_gets_an_error() {
        let simulator = simulator(&[]);
        assert!(exchange(&simulator, "{").starts_with(b"HTTP/1.1 400 "));
        assert!(exchange(&simulator, "{}").starts_with(b"HTTP/1.1 400 "));
        let plain = |request: &str| {
            let mut client = connect(&simulator);
            ask(&mut client, request);
            read_until(&mut client, "}")
        };
        let get = |path: &str| plain(&format!("GET {path} HTTP/1.1\r\n\r\n"));
        assert!(get("/v1/models").ends_with(r#"[{"id":"simulated","object":"model"}"#));
        assert!(get("/health").starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(get("/v1/chat").starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(plain("POST /v1/chat HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 411 "));
        assert!(plain("\u{16}\u{3}\u{1}\r\n\r\n").contains("connection: close\r\n"));
        assert_eq!(simulator.log(), []);
    }

    #[test]
    fn a_client_that_expects_continue_gets_an_interim_answer() {
        let simulator = simulator(&[]);
        let mut client = connect(&simulator);
        let whole = request("expect: 100-continue\r\n", STREAMED);
        let (head, body) = whole.split_at(whole.len() - STREAMED.len());
        ask(&mut client, head);
        let interim = read_until(&mut client, "\r\n\r\n");
        assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
        ask(&mut client, body);
        let answer = read_until(&mut client, "\r\n0\r\n\r\n");
        assert_eq!(unchunk(answer.as_bytes()).1, STREAM);
    }

    #[test]
    fn a_body_in_pieces_larger_than_any_buffer_is_read() {
        let simulator = simulator(&[]);
        let prompt = "x".repeat(400_000);
        let body = json!({"stream": true, "max_tokens": 1, "messages": [{"content": prompt}]});
        let (_, answer) = unchunk(&exchange(&simulator, &body.to_string()));
        assert!(answer.ends_with("data: the\n\ndata:length\n\ndata:END\n\n"));
        assert_eq!(simulator.log()[0].body, "", "too long to keep");
    }

    #[test]
    fn a_client_that_reads_late_gets_everything() {
        let simulator = with(Script {
            itl: Duration::ZERO,
            tokens: Script::MOST_TOKENS,
            tokens_per_event: Script::MOST_TOKENS / 40,
            ..script(Vec::new())
        });
        let mut client = connect(&simulator);
        ask(&mut client, &request("connection: close\r\n", STREAMED));
        read_until(&mut client, "data:");
        let early = simulator.log()[0].writes.len();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("a whole answer");

        let log = simulator.log().remove(0);
        assert!(early < log.writes.len(), "the socket took it all at once");
        assert!(answer.ends_with(b"data:END\n\n\r\n0\r\n\r\n"));
        assert_eq!(token_events(&log.writes).iter().sum::<u64>(), 40);
        assert!(log.completed);
    }

    #[test]
    fn a_panic_of_the_thread_is_an_error() {
        let simulator = Simulator::start(script(Vec::new()), &Plain { breaks: true });
        let simulator = simulator.expect("the simulator starts");
        let mut client = connect(&simulator);
        ask(&mut client, &request("", STREAMED));
        let error = simulator.wait(|_| ()).expect_err("it panicked");
        assert_eq!(
            error.to_string(),
            "the thread of the simulated endpoint panicked: see the message above"
        );
    }

    #[test]
    fn dropping_it_closes_the_connections_and_the_port() {
        let simulator = simulator(&[FaultKind::Stall(1)]);
        let addr = simulator.addr().expect("a port");
        let mut client = connect(&simulator);
        ask(&mut client, &request("", STREAMED));
        read_until(&mut client, "data: the\n\n\r\n");
        drop(simulator);
        assert_eq!(client.read(&mut [0]).expect("a close"), 0);
        TcpStream::connect(addr).expect_err("the port is closed");
    }
}
