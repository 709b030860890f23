//! What is known of arrivals when this program reads late: their bounds hold the truth, and a figure
//! says how far it may be off. Programs are stopped and continued, so nothing here depends on
//! how fast the machine is.

use std::{path::Path, time::Duration};

use clap::Parser as _;
use llm_stream_bench::{
    cli::Cli,
    config::{Config, TokenCount},
    plan::Plan,
};
use llm_stream_client::connect_options::Stamps;
use llm_stream_core::{
    metric::METRICS,
    protocol::OpenAiChat,
    recording::{Chunk, Recording, StampedBy, Uncertainty},
    sample::{self, Note, Sample},
    uncertainty,
};

use crate::streams::{STOP, TOKEN, USAGE, stream};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Of a chunk: its arrival, how much earlier it may have been, and its events.
type Piece<'a> = (Duration, Duration, &'a [&'a str]);

fn recording(by: StampedBy, pieces: &[Piece<'_>]) -> Recording {
    let chunk = |(at, uncertainty, events): &Piece<'_>| Chunk {
        at: *at,
        uncertainty: *uncertainty,
        bytes: events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into(),
    };
    Recording {
        chunks: pieces.iter().map(chunk).collect(),
        stamped_by: by,
        uncertainty: Uncertainty { headers: ms(1), end: ms(2), ..Uncertainty::default() },
        ..stream(&[(1000, USAGE)])
    }
}

fn read(recording: &Recording) -> Sample {
    sample::read(recording, &OpenAiChat, TokenCount::Chunks).expect("an answer")
}

fn of(by: StampedBy, pieces: &[Piece<'_>]) -> Sample {
    read(&recording(by, pieces))
}

const END: &[&str] = &[STOP, "[DONE]"];

fn figure(sample: &Sample, name: &str) -> (f64, f64) {
    let metric = METRICS.iter().find(|metric| metric.name == name).expect("a metric");
    (metric.of(sample).expect("a figure"), uncertainty::of(metric, sample))
}

fn error(sample: &Sample, name: &str) -> f64 {
    (figure(sample, name).1 * 1e6).round() / 1e3
}

// -- the arithmetic, exact ------------------------------------------------------------------------

#[test]
fn with_a_kernel_timestamp_only_the_event_at_the_end_of_a_read_is_exact() {
    let pieces: &[Piece<'_>] = &[
        (ms(100), ms(90), &[TOKEN, TOKEN, TOKEN]),
        (ms(200), ms(80), &[TOKEN]),
        (ms(300), ms(70), &[TOKEN, STOP]),
        (ms(300), ms(0), END),
    ];
    let sample = of(StampedBy::Kernel, pieces);
    let known = sample.uncertainty;
    assert_eq!((known.first_token, known.last_token, known.largest), (ms(90), ms(70), ms(90)));
    assert_eq!((known.first_event, known.first_answer), (ms(90), ms(90)));
    assert_eq!((known.headers, known.end), (ms(1), ms(2)));
    // A lone event that ends its read is as exact as the kernel's stamp, however late it was read.
    let alone: &[Piece<'_>] =
        &[(ms(100), ms(90), &[TOKEN]), (ms(200), ms(90), &[TOKEN]), (ms(300), ms(90), END)];
    let sample = of(StampedBy::Kernel, alone);
    assert_eq!(sample.uncertainty.largest, Duration::ZERO);
    assert_eq!(sample.notes, []);
}

#[test]
fn an_impossible_timestamp_bounds_the_precision_of_every_event() {
    let pieces: &[Piece<'_>] = &[
        (ms(100), ms(5), &[TOKEN]),
        (ms(200), ms(80), &[TOKEN]),
        (ms(300), ms(2), &[TOKEN]),
        (ms(301), ms(0), END),
    ];
    for (last_bytes, first, largest) in [(0, 0, 0), (5, 5, 5), (90, 5, 80)] {
        let mut recording = recording(StampedBy::Kernel, pieces);
        recording.uncertainty.last_bytes = ms(last_bytes);
        let known = read(&recording).uncertainty;
        assert_eq!((known.first_token, known.largest), (ms(first), ms(largest)), "{last_bytes}");
    }
}

#[test]
fn with_the_programs_clock_no_event_is_exact() {
    let alone: &[Piece<'_>] =
        &[(ms(100), ms(30), &[TOKEN]), (ms(200), ms(40), &[TOKEN]), (ms(300), ms(0), END)];
    let known = of(StampedBy::Program, alone).uncertainty;
    assert_eq!((known.first_token, known.last_token, known.largest), (ms(30), ms(40), ms(40)));
}

#[test]
fn an_event_followed_by_part_of_the_next_one_is_not_exact() {
    let mut cut = recording(StampedBy::Kernel, &[(ms(100), ms(90), &[TOKEN, TOKEN])]);
    let whole = cut.chunks[0].bytes.clone();
    let at = |at, uncertainty, bytes| Chunk { at, uncertainty, bytes };
    cut.chunks = vec![
        at(ms(100), ms(90), whole.slice(..whole.len() - 5)),
        at(ms(150), ms(10), whole.slice(whole.len() - 5..)),
        at(ms(200), ms(0), format!("data: {STOP}\n\ndata: [DONE]\n\n").into()),
    ];
    let known = read(&cut).uncertainty;
    assert_eq!((known.first_token, known.last_token), (ms(90), ms(0)));
}

#[test]
fn each_figure_has_the_uncertainty_of_its_arrivals() {
    let pieces: &[Piece<'_>] = &[
        (ms(100), ms(50), &[TOKEN, TOKEN]),
        (ms(200), ms(30), &[TOKEN, STOP]),
        (ms(201), ms(0), &["[DONE]"]),
    ];
    let sample = of(StampedBy::Kernel, pieces);
    assert_eq!(error(&sample, "ttft"), 50.0);
    assert_eq!(error(&sample, "e2e"), 30.0);
    assert_eq!(error(&sample, "total_time"), 2.0);
    assert_eq!(error(&sample, "first_byte_time"), 1.0);
    assert_eq!(error(&sample, "itl_max"), 50.0);
    assert_eq!(error(&sample, "generation_time"), 50.0);
    assert_eq!(error(&sample, "response_tokens"), 0.0);
}

#[test]
fn the_true_speed_is_within_the_bounds() {
    // Four tokens, 50 ms apart; the client took the first two at once.
    let pieces: &[Piece<'_>] = &[
        (ms(150), ms(60), &[TOKEN, TOKEN]),
        (ms(200), ms(0), &[TOKEN]),
        (ms(250), ms(0), &[TOKEN]),
        (ms(251), ms(0), END),
    ];
    let sample = of(StampedBy::Kernel, pieces);
    let (speed, error) = figure(&sample, "generation_speed");
    let truth = 4.0 / 0.150;
    assert!((speed - truth).abs() <= error, "{speed} ± {error}");
    assert!(sample.notes.contains(&Note::ClientDelayed));
}

#[test]
fn a_delay_is_noted_if_it_exceeds_the_limits_of_a_punctual_client_and_one_percent() {
    let delayed = |by, at: u64, late: Duration| {
        let pieces: &[Piece<'_>] = &[
            (ms(at), late, &[TOKEN, TOKEN]),
            (ms(at + 20), ms(0), &[TOKEN]),
            (ms(at + 40), ms(0), END),
        ];
        of(by, pieces).notes.contains(&Note::ClientDelayed)
    };
    // It looks every millisecond or two, and reads for some time.
    assert!(!delayed(StampedBy::Kernel, 100, ms(3)));
    assert!(delayed(StampedBy::Kernel, 100, ms(4)));
    assert!(!delayed(StampedBy::Program, 100, ms(4)));
    assert!(delayed(StampedBy::Program, 100, ms(5)));
    // The first token is late by less than 1 % of ttft, but the gap behind it is off by as much.
    assert!(delayed(StampedBy::Kernel, 1000, ms(4)));
}

// -- an answer in few pieces ----------------------------------------------------------------------

/// Pieces of tokens, each with its time and its number of events.
fn in_pieces(headers: u64, pieces: &[(u64, usize)]) -> Sample {
    let tokens = [TOKEN; 200];
    let mut all: Vec<Piece<'_>> =
        pieces.iter().map(|(at, count)| (ms(*at), ms(0), &tokens[..*count])).collect();
    let last = all.last().map_or(ms(0), |(at, ..)| *at + ms(1));
    all.push((last, ms(0), END));
    let mut recording = recording(StampedBy::Kernel, &all);
    recording.headers_at = ms(headers);
    read(&recording)
}

/// Whether the row has a speed, and whether the true one is within its error.
fn holds(sample: &Sample, truth: f64) -> bool {
    let (speed, error) = figure(sample, "generation_speed");
    (speed - truth).abs() <= error
}

#[test]
fn an_answer_delayed_by_nagles_algorithm_has_a_speed() {
    // Twelve tokens, 13 ms apart, that wait for an acknowledgement each 40 ms.
    let sample = in_pieces(5, &[(100, 1), (140, 3), (180, 3), (220, 3), (243, 2)]);
    assert_eq!(sample.notes, [Note::SharedArrivals]);
    assert!(holds(&sample, 12.0 / (11.0 * 0.013)), "{sample:?}");
}

#[test]
fn an_answer_through_a_buffering_proxy_has_a_speed() {
    // Twelve tokens, 10 ms apart, the first at 100 ms; four of them fill the proxy's buffer.
    let sample = in_pieces(5, &[(130, 4), (170, 4), (210, 4)]);
    assert_eq!(sample.notes, [Note::SharedArrivals]);
    assert!(holds(&sample, 12.0 / 0.110), "{sample:?}");
    // A flush each 50 ms, five tokens in it.
    let sample = in_pieces(5, &[(100, 1), (150, 5), (200, 5), (250, 5)]);
    assert!(holds(&sample, 16.0 / 0.150), "{sample:?}");
}

#[test]
fn a_held_back_answer_has_no_speed() {
    let held_back: [&[(u64, usize)]; 4] = [
        &[(1000, 40)],
        // Within a millisecond of one another, to the reader.
        &[(1000, 20), (1000, 20)],
        // Over a long line, in windows of TCP.
        &[(5000, 70), (5100, 140), (5200, 90)],
        &[(2000, 100), (2004, 100), (2008, 100), (2012, 100)],
    ];
    for pieces in held_back {
        let sample = in_pieces(5, pieces);
        assert_eq!(sample.notes, [Note::Burst], "{pieces:?}");
        assert_eq!(sample.generation_time(), None, "{pieces:?}");
    }
}

#[test]
fn events_of_several_tokens_in_many_steps_add_no_error() {
    // Speculative decoding: three events a step.
    let steps: Vec<_> = (0..30).map(|step| (100 + 30 * step, 3)).collect();
    let sample = in_pieces(5, &steps);
    assert_eq!(sample.notes, [Note::SharedArrivals]);
    assert_eq!(figure(&sample, "generation_speed").1, 0.0);
}

#[test]
fn events_that_a_delayed_client_reads_together_are_not_a_burst() {
    let pieces: &[Piece<'_>] = &[(ms(800), ms(700), &[TOKEN, TOKEN, TOKEN]), (ms(801), ms(0), END)];
    let sample = of(StampedBy::Kernel, pieces);
    assert_eq!(sample.notes, [Note::SharedArrivals, Note::ClientDelayed]);
    assert_eq!(sample.generation_time(), None);
}

// -- which stamps ---------------------------------------------------------------------------------

fn plan(model: &str) -> Result<Plan, String> {
    let yaml = format!("prompts: [{{ name: p, text: hi }}]\nmodels: {{ m: {{ {model} }} }}\n");
    let config = Config::parse(&yaml, "configs.yaml", Path::new(".")).map_err(|e| e.to_string())?;
    Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).map_err(|error| error.to_string())
}

#[test]
fn stamps_are_auto_unless_the_config_says_otherwise() {
    let server = "base_url: \"http://h\"";
    let of = |keys: &str| plan(&format!("{server}{keys}")).map(|plan| plan.targets[0].stamps);
    assert_eq!(of(""), Ok(Stamps::Auto));
    assert_eq!(of(", stamps: socket"), Ok(Stamps::Socket));
    assert_eq!(of(", stamps: packets, transport: stamped"), Ok(Stamps::Packets));
    let misspelt = of(", stamps: packet").unwrap_err();
    assert!(
        misspelt.contains("unknown value `packet` for `stamps`: expected auto, packets or socket"),
        "{misspelt}"
    );
    assert!(misspelt.contains("did you mean `packets`"), "{misspelt}");
}

#[test]
fn unavailable_packet_timestamps_are_an_error() {
    let by_reqwest = "base_url: \"http://h\", transport: reqwest, stamps: packets";
    let error = plan(by_reqwest).unwrap_err();
    assert!(
        error.contains("`stamps: packets` is not possible with the transport `reqwest`"),
        "{error}"
    );
    let by_socket = "base_url: \"unix:///run/x.sock\", transport: stamped, stamps: packets";
    let error = plan(by_socket).unwrap_err();
    assert!(error.contains("`stamps: packets` is not possible with a unix socket"), "{error}");
}

// -- a client that is stopped ---------------------------------------------------------------------

#[cfg(target_os = "linux")]
mod stopped {
    use std::{
        fs,
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        sync::mpsc,
        thread,
        time::Instant,
    };

    use llm_stream_client as client;

    use super::*;
    use crate::{
        bench::{Bench, Ran},
        wait,
    };

    /// When a write began and when it had ended.
    type Written = (Instant, Instant);

    /// What a server does.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// Writes so many token events in one piece.
        Tokens(usize),
        Wait(Duration),
        Stop,
        Continue,
    }
    use Step::{Continue, Stop, Tokens, Wait};

    fn chunk(text: &str) -> Vec<u8> {
        format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
    }

    /// Stops a process, and waits until no thread of it runs.
    fn stop(process: u32) {
        wait::signal(process, "STOP");
        let is_stopped = || {
            let threads = fs::read_dir(format!("/proc/{process}/task")).expect("threads");
            threads.flatten().all(|thread| {
                let state = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
            })
        };
        wait::until("every thread is stopped", is_stopped);
    }

    /// Answers one request, of a process whose id comes by `client`; says when it wrote each token.
    fn serve(listener: TcpListener, client: mpsc::Receiver<u32>, steps: &[Step]) -> Vec<Written> {
        let (mut socket, _) = listener.accept().expect("a client");
        let process = client.recv_timeout(wait::PATIENCE).expect("an id");
        socket.set_nodelay(true).expect("a socket");
        read_request(&mut socket);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        socket.write_all(head.as_bytes()).expect("a write");
        let mut written = Vec::new();
        for step in steps {
            match step {
                Wait(time) => thread::sleep(*time),
                Stop => stop(process),
                Continue => wait::signal(process, "CONT"),
                Tokens(count) => {
                    let bytes = chunk(&format!("data: {TOKEN}\n\n")).repeat(*count);
                    let begun = Instant::now();
                    socket.write_all(&bytes).expect("a write");
                    written.extend(vec![(begun, Instant::now()); *count]);
                }
            }
        }
        thread::sleep(ms(5));
        let end = [STOP, USAGE, "[DONE]"].map(|data| chunk(&format!("data: {data}\n\n"))).concat();
        socket.write_all(&[&end[..], b"0\r\n\r\n"].concat()).expect("a write");
        written
    }

    fn read_request(socket: &mut TcpStream) {
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.ends_with(b"}") {
            let read = socket.read(&mut buffer).expect("a request");
            request.extend_from_slice(&buffer[..read]);
        }
    }

    /// A run of one request under these keys of the model, its recording, and the truth.
    fn run(keys: &str, steps: &'static [Step]) -> (Bench, Ran, Recording, Vec<Written>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let bench = Bench::new(&format!(
            "runs: 1\nprompts: [{{ name: p, text: hi }}]\n\
             models: {{ m: {{ base_url: \"http://127.0.0.1\", port: {port}, {keys} }} }}\n"
        ));
        let (sender, receiver) = mpsc::channel();
        let server = thread::spawn(move || serve(listener, receiver, steps));
        let child = bench.start(&["--no-warmup", "--record", "recordings"]);
        sender.send(child.id()).expect("a server");
        let ran = Ran::from(child.output());
        let written = wait::joined(server);
        let recorded = fs::read_dir(bench.folder.path().join("recordings"));
        let file = recorded.expect("recordings").flatten().next().expect("a recording").path();
        let text = fs::read_to_string(file).expect("a recording");
        (bench, ran, Recording::from_jsonl(&text).expect("a recording"), written)
    }

    /// The bounds of each token's arrival, by what the recording says of its chunks.
    fn bounds(recording: &Recording) -> Vec<(Duration, Duration)> {
        let of = |chunk: &Chunk| {
            let tokens = String::from_utf8_lossy(&chunk.bytes).matches("content").count();
            vec![(chunk.at.saturating_sub(chunk.uncertainty), chunk.at); tokens]
        };
        recording.chunks.iter().flat_map(of).collect()
    }

    /// By how much arrivals and writes cannot be on one clock, whatever lies between the two clocks:
    /// nothing, where every arrival is within its bounds.
    fn contradiction(written: &[Written], bounds: &[(Duration, Duration)]) -> Duration {
        assert_eq!(written.len(), bounds.len());
        let origin = written[0].0;
        let since = |time: Instant| (time - origin).as_secs_f64();
        // Clock of the client = that of the server + offset.
        let pairs = || written.iter().zip(bounds);
        let least = pairs().map(|((_, ended), (from, _))| from.as_secs_f64() - since(*ended));
        let most = pairs().map(|((begun, _), (_, to))| to.as_secs_f64() - since(*begun));
        let (least, most) = (least.fold(f64::MIN, f64::max), most.fold(f64::MAX, f64::min));
        Duration::from_secs_f64((least - most).max(0.0))
    }

    /// What the loopback may take, on a machine that is busy.
    const DELIVERY: Duration = ms(10);

    /// Stopped from before the first token until after the tenth.
    const OVER_FIRST: &[Step] = &[
        Wait(ms(20)),
        Stop,
        Wait(ms(30)),
        Tokens(1),
        Wait(ms(30)),
        Tokens(1),
        Wait(ms(30)),
        Tokens(1),
        Wait(ms(30)),
        Tokens(1),
        Wait(ms(30)),
        Tokens(1),
        Wait(ms(30)),
        Continue,
        Wait(ms(60)),
        Tokens(1),
        Wait(ms(30)),
        Tokens(1),
    ];

    #[test]
    fn a_stopped_client_notes_it_and_leaves_thresholds_undecided() {
        for keys in ["stamps: socket", "transport: reqwest"] {
            let limit = "thresholds: [\"ttft <= 130 ms\", \"itl_max <= 1 s\"]";
            let (bench, ran, recording, written) = run(&format!("{keys}, {limit}"), OVER_FIRST);
            assert_eq!(ran.code, Some(0), "{keys}: {}{}", ran.stdout, ran.stderr);
            let notes = bench.column("notes").remove(0);
            assert!(notes.split(' ').any(|note| note == "client_delayed"), "{keys}: {notes}");
            assert!(!notes.contains("burst"), "{keys}: {notes}");
            let contradiction = contradiction(&written, &bounds(&recording));
            assert!(contradiction < DELIVERY, "{keys}: {contradiction:?}");
            let uncertainty: f64 = bench.column("arrival_uncertainty")[0].parse().unwrap();
            let ttft: f64 = bench.column("preprocess_time")[0].parse().unwrap();
            // The first token was written 120 ms before the last that was read with it.
            assert!(uncertainty > 0.1 && ttft > 0.15, "{keys}: {uncertainty} {ttft}");
            assert!(ran.stderr.contains("arrival_uncertainty"), "{keys}: {}", ran.stderr);
            // More requests would not make this one exact.
            assert!(ran.stderr.contains("ttft mean <= 130 ms:\n    these requests cannot decide"));
            let lines: Vec<_> = ran.stderr.lines().filter(|line| line.contains("<=")).collect();
            assert!(lines.iter().any(|line| line.contains("inconclusive")), "{keys}: {lines:?}");
        }
    }

    #[test]
    fn with_packet_timestamps_every_token_has_its_own_time() {
        if client::check_packet_stamps().is_err() {
            return; // needs CAP_NET_RAW
        }
        // Stopped again and again, as under a quota of processor time.
        const AGAIN_AND_AGAIN: &[Step] = &[
            Tokens(1),
            Stop,
            Wait(ms(40)),
            Tokens(1),
            Wait(ms(40)),
            Tokens(2),
            Wait(ms(40)),
            Tokens(1),
            Continue,
            Wait(ms(5)),
            Tokens(1),
            Stop,
            Wait(ms(40)),
            Tokens(1),
            Wait(ms(40)),
            Tokens(1),
            Wait(ms(40)),
            Continue,
            Wait(ms(20)),
            Tokens(1),
        ];
        for steps in [OVER_FIRST, AGAIN_AND_AGAIN] {
            let (bench, _, recording, written) = run("stamps: packets", steps);
            let bounds = bounds(&recording);
            let contradiction = contradiction(&written, &bounds);
            assert!(contradiction < DELIVERY, "{contradiction:?}");
            let uncertainty: f64 = bench.column("arrival_uncertainty")[0].parse().unwrap();
            assert!(uncertainty < 0.01, "{uncertainty}");
            let notes = bench.column("notes").remove(0);
            assert!(!notes.contains("client_delayed"), "{notes}");
        }
    }

    #[test]
    fn bursts_of_a_server_do_not_count_as_a_late_client() {
        const BURSTS: &[Step] =
            &[Wait(ms(500)), Tokens(5), Wait(ms(500)), Tokens(5), Wait(ms(500)), Tokens(5)];
        for keys in ["stamps: socket", "stamps: auto", "transport: reqwest"] {
            let (bench, _, recording, written) = run(keys, BURSTS);
            let contradiction = contradiction(&written, &bounds(&recording));
            assert!(contradiction < DELIVERY, "{keys}: {contradiction:?}");
            // Some milliseconds; a busy machine may make it more, but not the time between them.
            let uncertainty: f64 = bench.column("arrival_uncertainty")[0].parse().unwrap();
            assert!(uncertainty < 0.25, "{keys}: {uncertainty}");
        }
    }
}
