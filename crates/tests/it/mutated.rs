//! Answers with random faults: however their bytes are cut into segments, and by either transport,
//! each comes to the same sample or the same error.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use llm_stream_bench::{
    config::{ConnectionMode, TokenCount},
    plan::{Timeouts, Transport},
};
use llm_stream_client::{
    AnswerForm, Client, NextAction, Options, RequestSource, connect_options::ConnectOptions,
};
use llm_stream_core::{
    protocol::{self, Protocol},
    recording::{Recording, RequestError},
    sample::{self, Note, Sample},
};
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_pcg::Pcg64;

use crate::player::{Step, chunk, events, plays};

/// Into how many segments the same bytes are cut: one, two, and one for every few bytes.
const CUTS: usize = 3;

/// How many requests run at the same time.
const AT_ONCE: usize = 24;

const SEED: u64 = 11;

/// One answer with its faults, and the places where it is cut.
struct Mutated {
    protocol: &'static dyn Protocol,
    bytes: Vec<u8>,
    cuts: [Vec<usize>; CUTS],
}

impl Mutated {
    fn new(number: u64) -> Self {
        let mut rng = Pcg64::seed_from_u64(SEED << 32 | number);
        let protocol = protocol::ALL[rng.random_range(0..protocol::ALL.len())];
        let mut bytes = answer(protocol, &mut rng);
        for _ in 0..rng.random_range(1..=4) {
            mutate(&mut bytes, &mut rng);
        }
        let mut cut = |count| {
            let mut cuts: Vec<_> = (0..count).map(|_| rng.random_range(0..=bytes.len())).collect();
            cuts.sort_unstable();
            cuts
        };
        let cuts = [cut(0), cut(1), cut(6)];
        Self { protocol, bytes, cuts }
    }

    fn steps(&self, cut: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut from = 0;
        for to in self.cuts[cut].iter().copied().chain([self.bytes.len()]) {
            steps.push(Step::Write(self.bytes[from..to].to_vec()));
            steps.push(Step::Sleep(Duration::from_micros(300)));
            from = to;
        }
        steps
    }
}

/// A valid answer, in one of the ways in which HTTP carries it.
fn answer(protocol: &dyn Protocol, rng: &mut Pcg64) -> Vec<u8> {
    let (begin, end) = events(protocol, rng.random_range(1..6));
    let events: Vec<_> = begin.into_iter().chain(end).collect();
    let body = events.concat();
    let odd = [
        "",
        "",
        "x-a : b\r\n",
        "x-a: b\r\n c\r\n",
        "x-a:\r\n",
        "content-encoding: identity\r\n",
        "retry-after: 3\r\n",
        "openai-processing-ms: 12\r\n",
    ];
    let odd = odd.choose(rng).copied().unwrap_or_default();
    let interim = ["", "", "", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"];
    let interim = interim.choose(rng).copied().unwrap_or_default();
    let status = ["200 OK", "200 OK", "200", "400 Bad Request"];
    let status = status.choose(rng).copied().unwrap_or_default();
    let head = |version: &str, framing: &str| {
        format!(
            "{interim}HTTP/{version} {status}\r\ncontent-type: text/event-stream\r\n{odd}\
             {framing}\r\n"
        )
        .into_bytes()
    };
    match rng.random_range(0..6) {
        0 => [head("1.1", &format!("Content-Length: {}\r\n", body.len())), body].concat(),
        1 => [head("1.0", ""), body].concat(),
        2 => [head("1.1", "connection: close\r\n"), body].concat(),
        3 => {
            let pieces: Vec<u8> = body.chunks(37).flat_map(chunk).collect();
            let trailer = b"0;x\r\nserver-timing: a\r\n\r\n".to_vec();
            [head("1.1", "transfer-encoding: chunked\r\ntrailer: a\r\n"), pieces, trailer].concat()
        }
        _ => {
            let chunks: Vec<u8> = events.iter().flat_map(|event| chunk(event)).collect();
            [head("1.1", "transfer-encoding: chunked\r\n"), chunks, b"0\r\n\r\n".to_vec()].concat()
        }
    }
}

/// Where a fault is likely to matter: anywhere, in the head, or at a line's end.
fn place(bytes: &[u8], rng: &mut Pcg64) -> usize {
    let ends: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at] == b'\n').collect();
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let at = match rng.random_range(0..3) {
        0 => rng.random_range(0..=head),
        1 => {
            let end = ends.choose(rng).copied().unwrap_or_default();
            (end + rng.random_range(0..6)).saturating_sub(3)
        }
        _ => rng.random_range(0..=bytes.len()),
    };
    at.min(bytes.len())
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut Pcg64) {
    const TELLING: &[u8] = b"\r\n\0 :;,0159afF+-{}[]\"\\\x80\xff";
    let at = place(bytes, rng);
    let to = (at + rng.random_range(1..40)).min(bytes.len());
    let byte = match rng.random_range(0..2) {
        0 => rng.random(),
        _ => TELLING[rng.random_range(0..TELLING.len())],
    };
    match rng.random_range(0..12) {
        0..4 => {
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        4..6 => bytes.insert(at, byte),
        6..8 => drop(bytes.drain(at..(at + 1).min(to))),
        8 => drop(bytes.drain(at..to)),
        9 | 10 => {
            let twice = bytes[at..to].to_vec();
            bytes.splice(to..to, twice);
        }
        _ => bytes.truncate(at),
    }
}

/// What came of an answer by one of the transports, so that both can be compared.
///
/// hyper reads its first piece of a head at once, and later ones only when the head is whole. So its
/// reason why a head is none depends on the segments; ours does not.
fn comparable(printed: &str) -> &str {
    let is_of_head = |why: &&str| printed.starts_with(&format!("broken: {why}: "));
    let headless = ["the connection broke before the answer began", "the answer cannot be read"];
    if headless.iter().any(is_of_head) { "no head" } else { printed }
}

/// What came of an answer, without what depends on time.
fn printed(outcome: &Result<Sample, RequestError>) -> String {
    const OF_TIME: &[Note] = &[
        Note::Burst,
        Note::MayBeHeldBack,
        Note::ClientDelayed,
        Note::SharedArrivals,
        Note::ServerDisagrees,
    ];
    match outcome {
        Err(error) => format!("{}: {error}", error.kind),
        Ok(sample) => {
            let notes: Vec<_> =
                sample.notes.iter().filter(|note| !OF_TIME.contains(note)).collect();
            format!(
                "{} events, {:?} first, {} tokens of {:?} and {:?}, {:?} {:?}, {} {:?} {:?} {:?}",
                sample.token_events.len(),
                sample.first_event_tokens,
                sample.response_tokens,
                sample.prompt_tokens,
                sample.total_tokens,
                sample.cached_tokens,
                sample.reasoning_tokens,
                sample.finish_reason,
                sample.request_id,
                sample.server_head,
                notes,
            )
        }
    }
}

/// Each answer, asked for in each cut, and what came of it.
struct All {
    numbers: Vec<(u64, usize)>,
    sent: usize,
    answers: BTreeMap<usize, Result<Recording, RequestError>>,
}

impl RequestSource for All {
    fn next(&mut self, _: Instant, _: usize) -> NextAction {
        if self.sent - self.answers.len() >= AT_ONCE {
            return NextAction::AfterAnAnswer;
        }
        let Some((number, cut)) = self.numbers.get(self.sent) else {
            return NextAction::AfterAnAnswer;
        };
        self.sent += 1;
        NextAction::Send { id: self.sent - 1, body: format!("{number} {cut}").into(), replica: 0 }
    }

    fn finished(&mut self, id: usize, answer: Result<Recording, RequestError>) {
        self.answers.insert(id, answer);
    }
}

fn client(url: &str, transport: Transport) -> Client {
    Client::new(&Options {
        replicas: &[],
        url,
        headers: &[],
        api_key: None,
        timeouts: Timeouts::default(),
        transport,
        connection: ConnectionMode::Cold,
        protocol: protocol::ALL[0],
        answer: AnswerForm::Document,
        route: &ConnectOptions::default(),
    })
    .unwrap()
}

/// What comes of each of `numbers`, in each cut and by each transport; those whose results differ
/// are listed.
fn differing(numbers: std::ops::Range<u64>) -> (BTreeMap<String, usize>, String) {
    let all: Arc<BTreeMap<_, _>> = Arc::new(numbers.map(|n| (n, Mutated::new(n))).collect());
    let played = all.clone();
    let (url, _) = plays(move |body| {
        let asked = String::from_utf8_lossy(body);
        let (number, cut) = asked.split_once(' ').expect("a number and a cut");
        played[&number.parse().unwrap()].steps(cut.parse().unwrap())
    });
    let cuts = all.keys().flat_map(|&number| (0..CUTS).map(move |cut| (number, cut)));
    let numbers: Vec<_> = cuts.collect();
    let mut results: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for transport in [Transport::Stamped, Transport::Reqwest] {
        let mut jobs = All { numbers: numbers.clone(), sent: 0, answers: BTreeMap::new() };
        client(&url, transport).drive(&mut jobs, &());
        for (id, answer) in jobs.answers {
            let (number, _) = numbers[id];
            let read = |recording: Recording| {
                sample::read(&recording, all[&number].protocol, TokenCount::Usage)
            };
            results.entry(number).or_default().push(printed(&answer.and_then(read)));
        }
    }
    let (mut kinds, mut differing) = (BTreeMap::new(), String::new());
    for (number, results) in &results {
        assert_eq!(results.len(), 2 * CUTS);
        let kind = comparable(&results[0]).split([':', ' ']).next().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
        let (stamped, reqwest) = results.split_at(CUTS);
        let differ = stamped.iter().any(|result| *result != results[0])
            || reqwest.iter().any(|result| comparable(result) != comparable(&results[0]));
        if differ {
            let bytes = String::from_utf8_lossy(&all[number].bytes);
            let _ = writeln!(differing, "{number}: {bytes:?}\n{results:#?}");
        }
    }
    (kinds, differing)
}

fn come_to_the_same(numbers: std::ops::Range<u64>) {
    let count = numbers.end - numbers.start;
    let (kinds, differing) = differing(numbers);
    assert!(differing.is_empty(), "{differing}");
    // The faults are of many sorts, and not all of them matter.
    let of = |kind: &str| kinds.get(kind).copied().unwrap_or(0) as u64;
    let valid: u64 = (1..9).map(|events| of(&events.to_string())).sum();
    assert!(valid * 10 > count && kinds.len() > 6, "{kinds:?}");
    assert!(of("broken") * 50 > count && of("no") * 50 > count, "{kinds:?}");
}

#[test]
fn both_transports_read_mutated_answers_alike_in_any_segments() {
    come_to_the_same(0..1_000);
}

#[test]
#[ignore = "takes a minute; the test above is the beginning of it"]
fn ten_thousand_mutated_answers_are_read_alike() {
    for part in 0..10 {
        come_to_the_same(part * 1_000..(part + 1) * 1_000);
    }
}
