//! Counts of tokens that give no figures, figures that some answers lack, and what thresholds and
//! reports say of both.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use llm_stream_core::sample::{Note, RequestedTokens, Sample};

use crate::{
    bench::{Bench, Ran, ran},
    ci::is_by_the_schema,
    streams::{ROLE, STOP, TOOL, figure, read, stream},
};

const WORDS: [&str; 8] = [" alpha", " beta", " gamma", " delta", " eps", " zeta", " eta", " theta"];

const DONE: &str = "[DONE]";

fn token(text: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#)
}

/// The same with a count of the generated tokens next to it.
fn counted(text: &str, tokens: u64) -> String {
    let usage = format!(r#","usage":{{"prompt_tokens":12,"completion_tokens":{tokens}}}}}"#);
    token(text).strip_suffix('}').unwrap().to_owned() + &usage
}

fn usage(tokens: u64, more: &str) -> String {
    format!(r#"{{"choices":[],"usage":{{"prompt_tokens":12,"completion_tokens":{tokens}{more}}}}}"#)
}

fn reasoning(tokens: u64) -> String {
    format!(r#","completion_tokens_details":{{"reasoning_tokens":{tokens}}}"#)
}

/// Texts, an event each, so many ms apart from 60 ms on.
fn paced(texts: &[impl AsRef<str>], gap: u64) -> Vec<(u64, String)> {
    let times = (0..).map(|nth| 60 + nth * gap);
    times.zip(texts.iter().map(|text| token(text.as_ref()))).collect()
}

/// The events, then the finish reason after `pause` ms, and the usage with the end `later` ms after.
fn ended(
    mut events: Vec<(u64, String)>,
    (pause, later): (u64, u64),
    usage: String,
) -> Vec<(u64, String)> {
    let at = events.last().unwrap().0 + pause;
    events.push((at, STOP.into()));
    events.extend([(at + later, usage), (at + later, DONE.into())]);
    events
}

fn sample(events: &[(u64, String)]) -> Sample {
    let events: Vec<_> = events.iter().map(|(at, data)| (*at, data.as_str())).collect();
    read(&stream(&events)).unwrap()
}

fn notes(sample: &Sample) -> Vec<&str> {
    sample.notes.iter().map(|note| note.name()).collect()
}

const SPEEDS: [&str; 2] = ["generation_speed", "tpot"];

// -- tokens that brought no event -----------------------------------------------------------------

#[test]
fn tokens_after_the_last_event_make_the_speed_absent() {
    // 40 tokens in 800 ms, of which eight brought an event: 50 tok/s, and not 285.7.
    let silent = sample(&ended(paced(&WORDS, 20), (660, 0), usage(40, "")));
    assert_eq!(notes(&silent), ["uncounted_tokens", "silent_tail"]);
    assert_eq!(SPEEDS.map(|name| figure(&silent, name)), [None; 2]);
    // The count itself may be right, and so are the times.
    assert_eq!(figure(&silent, "response_tokens"), Some(40.0));
    assert_eq!(figure(&silent, "total_tokens_per_second"), Some(52.0 / 0.861));
    assert_eq!(figure(&silent, "generation_time"), Some(0.14));
    assert_eq!(figure(&silent, "itl"), Some(0.02));
    // Text enough for all tokens does not say that they came in time.
    let long: Vec<_> = WORDS.iter().map(|word| word.repeat(3)).collect();
    let silent = sample(&ended(paced(&long, 20), (660, 0), usage(40, "")));
    assert_eq!(notes(&silent), ["silent_tail"]);
    assert_eq!(SPEEDS.map(|name| figure(&silent, name)), [None; 2]);
    // At another pace: 1 ms and 1 s.
    for gap in [1, 1000] {
        let silent = sample(&ended(paced(&long, gap), (33 * gap, 0), usage(40, "")));
        assert_eq!(notes(&silent), ["silent_tail"], "{gap}");
    }
}

#[test]
fn a_slow_trailer_does_not_remove_the_speed() {
    let words = |count: usize| -> Vec<String> {
        let words = WORDS.iter().map(|word| word.repeat(count));
        words.collect()
    };
    // Each event a token, or nearly so, and a trailer of any length.
    for (tokens, pause, later) in
        [(8, 0, 0), (8, 20, 0), (8, 2_000, 0), (9, 2_000, 0), (8, 0, 2_000)]
    {
        let sample = sample(&ended(paced(&WORDS, 20), (pause, later), usage(tokens, "")));
        assert_eq!((notes(&sample), pause), (vec![], pause));
        assert_eq!(figure(&sample, "generation_speed"), Some(tokens as f64 / 0.14));
    }
    // Five tokens an event: a gap or two until the end, or a usage that comes late.
    for (pause, later) in [(0, 0), (20, 0), (50, 0), (0, 3_000)] {
        let sample = sample(&ended(paced(&words(5), 20), (pause, later), usage(40, "")));
        assert_eq!((notes(&sample), pause), (vec![], pause));
        assert_eq!(figure(&sample, "generation_speed"), Some(40.0 / 0.14));
    }
    // A pause that is a small part of a long answer.
    let many: Vec<_> = words(2).into_iter().cycle().take(400).collect();
    let sample = sample(&ended(paced(&many, 20), (200, 0), usage(800, "")));
    assert_eq!(notes(&sample), [""; 0]);
}

#[test]
fn tokens_before_or_between_events_make_the_speed_absent() {
    // 32 tokens that came as nothing, then eight.
    let mut late = paced(&WORDS, 20);
    late.iter_mut().for_each(|(at, _)| *at += 640);
    late.insert(0, (10, ROLE.into()));
    let mut between = paced(&WORDS, 20);
    between[4..].iter_mut().for_each(|(at, _)| *at += 640);
    for events in [late, between] {
        let sample = sample(&ended(events, (20, 0), usage(40, "")));
        assert_eq!(notes(&sample), ["uncounted_tokens"]);
        assert_eq!(SPEEDS.map(|name| figure(&sample, name)), [None; 2]);
    }
    // What is around a tool call is counted, and not sent.
    let call = [(10, ROLE.into()), (1532, TOOL.into()), (2379, TOOL.into()), (2572, TOOL.into())];
    let sample = sample(&ended(call.to_vec(), (1057, 0), usage(45, "")));
    assert_eq!(notes(&sample), ["uncounted_tokens"]);
}

#[test]
fn events_of_several_tokens_have_a_speed() {
    // As vLLM with `--stream-interval 4`: one token, then four an event.
    let mut interval = vec![WORDS[0].to_owned()];
    interval.extend((0..8).map(|_| WORDS[..4].concat()));
    let sample_of =
        |texts: &[String], tokens| sample(&ended(paced(texts, 80), (0, 0), usage(tokens, "")));
    let interval = sample_of(&interval, 33);
    assert_eq!((notes(&interval), figure(&interval, "tpot")), (vec![], Some(0.64 / 32.0)));
    // As many as a draft model guesses right.
    let drafted: Vec<_> =
        [1, 3, 5, 2, 4, 5, 1, 3].iter().map(|count| WORDS[..*count].concat()).collect();
    let drafted = sample_of(&drafted, 24);
    assert_eq!(
        (notes(&drafted), figure(&drafted, "generation_speed")),
        (vec![], Some(24.0 / 0.56))
    );
    // Digits and characters of several bytes are tokens by themselves.
    for text in ["1, 2, 3", "你好。", "🙂🙂", "a1b2c3", "{\\\"a\\\":1}"] {
        let texts = vec![text.to_owned(); 8];
        assert_eq!(notes(&sample_of(&texts, 48)), [""; 0], "{text}");
    }
    // A few tokens without an event: special ones, parts of a character.
    assert_eq!(notes(&sample_of(&WORDS.map(str::to_owned), 11)), [""; 0]);
    // A tool call that is held back and comes whole, after some text or alone.
    let mut call = paced(&WORDS, 20);
    call.push((900, TOOL.replace(r#""arguments":"""#, r#""arguments":"{\"city\":\"Paris\"}""#)));
    let call = sample(&ended(call, (0, 0), usage(24, "")));
    assert_eq!((notes(&call), figure(&call, "generation_speed")), (vec![], Some(24.0 / 0.84)));
    let alone = sample(&ended(vec![(900, TOOL.to_owned())], (0, 0), usage(45, "")));
    assert_eq!((notes(&alone), figure(&alone, "tpot")), (vec![], None));
}

#[test]
fn running_counts_give_the_tokens_of_each_event() {
    let with = |counts: &[u64], tokens: u64, text: &str| {
        let events =
            counts.iter().zip(0..).map(|(count, nth)| (60 + nth * 20, counted(text, *count)));
        sample(&ended(events.collect(), (20, 0), usage(tokens, "")))
    };
    // Running totals: 5, 10, and so on. However short the text is, it is so.
    let running: Vec<_> = (1..=8).map(|nth| nth * 5).collect();
    let sample = with(&running, 40, " alpha");
    assert_eq!((notes(&sample), figure(&sample, "tpot")), (vec![], Some(0.14 / 35.0)));
    // All but eight tokens after the last of them, or before the first.
    let one_each: Vec<_> = (1..=8).collect();
    assert_eq!(notes(&with(&one_each, 40, " alpha beta gamma")), ["uncounted_tokens"]);
    let late: Vec<_> = (33..=40).collect();
    assert_eq!(notes(&with(&late, 40, " alpha beta gamma")), ["uncounted_tokens"]);
    // Each event by itself.
    let sample = with(&[5; 8], 40, " alpha beta gamma delta eps");
    assert_eq!((notes(&sample), sample.first_event_tokens), (vec![], Some(5)));
    let sample = with(&[5, 3, 4, 4, 1, 6, 5, 2], 30, " alpha beta gamma delta eps");
    assert_eq!((notes(&sample), sample.first_event_tokens), (vec![], Some(5)));
}

#[test]
fn a_repeated_final_count_is_not_the_count_of_the_first_event() {
    let with = |counts: &[u64], tokens: u64| {
        let times = (0..).map(|nth| (60 + nth * 20, nth as usize));
        let events = times.zip(counts).map(|((at, nth), count)| (at, counted(WORDS[nth], *count)));
        let mut events: Vec<_> = events.collect();
        let role = ROLE.strip_suffix('}').unwrap().to_owned();
        let role = format!(r#"{role},"usage":{{"completion_tokens":{}}}}}"#, counts[0]);
        events.insert(0, (40, role));
        sample(&ended(events, (20, 0), usage(tokens, "")))
    };
    for (counts, tokens) in [
        (&[8; 8][..], 8),
        // Off by one, at either end or throughout.
        (&[8; 8], 9),
        (&[7, 8, 8, 8, 8, 8, 8, 8], 8),
        (&[8, 8, 8, 8, 8, 8, 8, 9], 9),
    ] {
        let sample = with(counts, tokens);
        let expected = (None, Some(0.14 / (tokens - 1) as f64));
        assert_eq!(notes(&sample), [""; 0], "{counts:?}");
        assert_eq!((sample.first_event_tokens, figure(&sample, "tpot")), expected, "{counts:?}");
    }
    // What is more than the final count contradicts it.
    let over = with(&[9; 8], 8);
    assert_eq!((notes(&over), figure(&over, "tpot")), (vec!["usage_shrinks"], None));
    // Counts that begin late say nothing of the first event.
    let mut events = paced(&WORDS[..4], 20);
    events.extend((5..=8).map(|nth| (40 + nth * 20, counted(WORDS[nth as usize - 1], nth))));
    let sample = sample(&ended(events, (20, 0), usage(8, "")));
    assert_eq!((sample.first_event_tokens, notes(&sample)), (None, vec![]));
}

// -- reasoning ------------------------------------------------------------------------------------

#[test]
fn reasoning_in_the_text_is_not_hidden() {
    let words = |first: &str, last: &str| -> Vec<String> {
        let texts = WORDS.iter().zip(0..).map(|(word, nth)| {
            let tag = if nth == 0 {
                first
            } else if nth == 6 {
                last
            } else {
                ""
            };
            format!("{tag}{}", word.repeat(5))
        });
        texts.collect()
    };
    let read = |texts: &[String], tokens, thought| {
        sample(&ended(paced(texts, 50), (50, 0), usage(tokens, &reasoning(thought))))
    };
    // Five tokens an event, 32 of 40 counted as reasoning.
    for (open, close) in [
        ("<think>", "</think>"),
        ("<thought>", "</thought>"),
        ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
        ("◁think▷", "◁/think▷"),
        ("[THINK]", "[/THINK]"),
        ("", "</think>"),
        // By its length alone.
        ("", ""),
    ] {
        let sample = read(&words(open, close), 40, 32);
        let figures = SPEEDS.map(|name| figure(&sample, name));
        assert_eq!(figures[0], Some(40.0 / 0.35), "{open}");
        assert_eq!(figures[1], Some(0.35 / 39.0), "{open}");
        assert_eq!(notes(&sample), [""; 0], "{open}");
    }
    // A short one, by its tag.
    let short: Vec<_> = ["<think>", " so", "</think>", " yes"].map(str::to_owned).into();
    assert_eq!(notes(&read(&short, 8, 4)), [""; 0]);
    // Reasoning that is not shown: as many events as there are other tokens.
    for (tokens, thought) in [(508, 500), (72, 64), (16, 8), (12, 4)] {
        let sample = read(&WORDS.map(str::to_owned), tokens, thought);
        assert_eq!(notes(&sample), ["hidden_reasoning"]);
        assert_eq!(figure(&sample, "generation_speed"), Some(8.0 / 0.35));
        assert_eq!(figure(&sample, "tpot"), Some(0.35 / 7.0));
    }
    // Several tokens an event, and an answer that speaks of tags.
    let mut texts = vec![WORDS.concat(); 8];
    texts[3] = " write <think> first and </think> after it".into();
    assert_eq!(notes(&read(&texts, 164, 100)), ["hidden_reasoning"]);
}

// -- counts that cannot be ------------------------------------------------------------------------

#[test]
fn impossible_counts_give_no_figure() {
    let counts = |usages: &[String]| {
        let mut events = paced(&WORDS, 20);
        events.push((220, STOP.into()));
        events.extend(usages.iter().map(|usage| (220, usage.clone())));
        events.push((220, DONE.into()));
        sample(&events)
    };
    let response = ["generation_speed", "tpot", "response_tokens", "total_tokens_per_second"];
    let prompt = ["preprocess_speed", "prompt_tokens", "total_tokens_per_second"];
    let absent =
        |sample: &Sample, names: &[&str]| names.iter().all(|name| figure(sample, name).is_none());
    let huge = 1_000_000_000_000_000;
    for (note, usages) in [
        ("more_tokens_than_text", vec![usage(huge, "")]),
        ("more_tokens_than_text", vec![usage(80, "")]),
        ("more_tokens_than_time", vec![usage(huge, &reasoning(huge - 8))]),
        ("usage_shrinks", vec![usage(9, ""), usage(8, "")]),
        ("more_reasoning_than_tokens", vec![usage(8, &reasoning(9))]),
        ("fewer_tokens_than_text", vec![usage(1, "")]),
    ] {
        let sample = counts(&usages);
        assert!(notes(&sample).contains(&note), "{note}: {:?}", notes(&sample));
        assert!(absent(&sample, &response), "{note}");
        assert_eq!(figure(&sample, "ttft"), Some(0.06));
        assert_eq!(figure(&sample, "preprocess_speed"), Some(200.0));
    }
    for (note, usages) in [
        ("no_prompt_tokens", usage(8, "").replace(":12", ":0")),
        ("more_cached_than_prompt", usage(8, r#","prompt_tokens_details":{"cached_tokens":13}"#)),
    ] {
        let sample = counts(&[usages]);
        assert!(notes(&sample).contains(&note), "{note}");
        assert!(absent(&sample, &prompt), "{note}");
        assert_eq!(figure(&sample, "generation_speed"), Some(8.0 / 0.14), "{note}");
    }
    let sum = Some(20.0 / 0.221);
    for (note, total, figured) in
        [("total_below_sum", 19, sum), ("total_below_sum", 0, sum), ("total_above_sum", huge, None)]
    {
        let sample = counts(&[usage(8, &format!(r#","total_tokens":{total}"#))]);
        assert_eq!(notes(&sample), [note]);
        assert_eq!(figure(&sample, "total_tokens_per_second"), figured);
        assert_eq!(figure(&sample, "generation_speed"), Some(8.0 / 0.14));
    }
    // Some servers count reasoning in the total alone.
    let sample = counts(&[usage(8, r#","total_tokens":520"#)]);
    assert_eq!(notes(&sample), [""; 0]);
    // A count above the limit is a note alone: some servers ignore the limit.
    let asked = |most, bytes| RequestedTokens {
        most: Some(most),
        bytes: Some(bytes),
        ..RequestedTokens::default()
    };
    let sample = counts(&[usage(8, "")]).checked_against(asked(4, 100));
    assert_eq!(notes(&sample), ["more_tokens_than_asked"]);
    assert_eq!(figure(&sample, "generation_speed"), Some(8.0 / 0.14));
    // A prompt of 100 bytes, with whatever the server puts before it.
    let of_prompt = |tokens: u64| {
        counts(&[usage(8, "").replace(":12", &format!(":{tokens}"))]).checked_against(asked(8, 100))
    };
    assert_eq!(notes(&of_prompt(20_000)), [""; 0]);
    let sample = of_prompt(huge);
    assert_eq!(sample.notes, [Note::MorePromptThanText]);
    assert!(absent(&sample, &prompt));
}

// -- the front door -------------------------------------------------------------------------------

type Events = Vec<(u64, String)>;

/// A server that answers the nth request with the nth of `answers`, around and around.
fn serve(answers: Vec<Events>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (answers, asked) = (Arc::new(answers), Arc::new(AtomicUsize::new(0)));
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (answers, asked) = (answers.clone(), asked.clone());
            thread::spawn(move || answer(socket, &answers, &asked));
        }
    });
    port
}

fn answer(mut socket: TcpStream, answers: &[Events], asked: &AtomicUsize) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let _ = socket.set_nodelay(true);
    loop {
        let mut size = 0;
        let mut lines = reader.by_ref().lines().map_while(Result::ok);
        if lines.next().is_none() {
            return;
        }
        for line in lines.take_while(|line| !line.is_empty()) {
            if let Some(length) = line.to_lowercase().strip_prefix("content-length:") {
                size = length.trim().parse().unwrap();
            }
        }
        reader.read_exact(&mut vec![0; size]).unwrap();
        let begun = Instant::now();
        let events = &answers[asked.fetch_add(1, Ordering::Relaxed) % answers.len()];
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        socket.write_all(head.as_bytes()).unwrap();
        for (at, data) in events {
            let due = Duration::from_millis(*at);
            thread::sleep(due.saturating_sub(begun.elapsed()));
            let event = format!("data: {data}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            if socket.write_all(chunk.as_bytes()).is_err() {
                return;
            }
        }
        socket.write_all(b"0\r\n\r\n").unwrap();
    }
}

/// A bench that asks such a server; `more` are keys of the model.
fn bench(answers: Vec<Events>, runs: usize, more: &str) -> Bench {
    Bench::new(&format!(
        "runs: {runs}\nprompts: [{{ name: p, text: \"Say hello.\" }}]\nmodels:\n  m:\n    \
         base_url: \"http://127.0.0.1:{}\"\n    {more}\n",
        serve(answers)
    ))
}

fn good() -> Events {
    ended(paced(&WORDS, 10), (10, 0), usage(8, ""))
}

fn silent() -> Events {
    let long: Vec<_> = WORDS.iter().map(|word| word.repeat(3)).collect();
    ended(paced(&long, 10), (330, 0), usage(40, ""))
}

fn uncounted() -> Events {
    ended(paced(&WORDS, 10), (10, 0), usage(40, ""))
}

fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "{text}\n{}\n{}", ran.stdout, ran.stderr);
}

fn mixed(runs: &[(usize, Events)]) -> Vec<Events> {
    runs.iter().flat_map(|(count, events)| vec![events.clone(); *count]).collect()
}

#[test]
fn a_threshold_on_refused_figures_fails_with_the_reasons() {
    let answers = mixed(&[(3, good()), (2, uncounted()), (1, silent())]);
    let keys = "thresholds: [\"generation_speed >= 1\", \"ttft <= 5 s\"]";
    let bench = bench(answers, 6, keys);
    let ran = bench.run(&["--no-warmup", "--json", "run.json", "--junit", "run.xml"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let why = "3 of 6 answers have no generation_speed: 2 uncounted_tokens, 1 silent_tail";
    says(&ran, "FAILED: 1 of 2 thresholds missed: m: generation_speed mean >= 1 tok/s\n");
    let words = ran.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("an absent figure does not meet a limit"), "{words}");
    says(&ran, &format!("-. m: not ranked: {why}"));
    let speeds = bench.column("generation_speed");
    assert_eq!(speeds.iter().filter(|cell| cell.is_empty()).count(), 3, "{speeds:?}");
    assert_eq!(bench.column("tokens_per_event")[3..], ["", "", ""]);
    assert_eq!(bench.column("response_tokens")[3..], ["40"; 3]);
    assert_eq!(bench.notes()[3..], ["uncounted_tokens", "uncounted_tokens", "silent_tail"]);
    let report = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let report = is_by_the_schema(&report);
    let threshold = &report["thresholds"][0];
    assert_eq!((&threshold["lacking"], &threshold["told"]), (&3.into(), &why.into()));
    assert_eq!(threshold["lacking_because"]["uncounted_tokens"], 2);
    let figures = &report["groups"][0]["metrics"]["tpot"];
    assert_eq!((&figures["n"], &figures["lacking"]), (&3.into(), &3.into()));
    assert_eq!(figures["lacking_because"]["silent_tail"], 1);
    let junit = fs::read_to_string(bench.folder.path().join("run.xml")).unwrap();
    assert!(junit.contains(why), "{junit}");
}

#[test]
fn a_figure_that_few_answers_lack_is_computed_from_the_others() {
    let answers = mixed(&[(9, good()), (1, uncounted())]);
    let keys = "thresholds: [\"generation_speed >= 20\"]";
    let bench = bench(answers, 10, keys);
    let ran = bench.run(&["--no-warmup", "--json", "run.json", "--save-baseline", "./a.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    says(&ran, "generation_speed mean >= 20 tok/s:\n    of 9 of 10 answers: 1 uncounted_tokens");
    says(&ran, " generation tokens/sec (n = 9 of 10 valid: 1 uncounted_tokens)");
    let report = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let threshold = &is_by_the_schema(&report)["thresholds"][0];
    assert_eq!((&threshold["n"], &threshold["lacking"]), (&9.into(), &1.into()));
    // As a baseline as well.
    let config = bench.folder.path().join("configs.yaml");
    let relative = fs::read_to_string(&config).unwrap();
    let relative = relative.replace(">= 20", ">= -50 % of baseline");
    fs::write(&config, &relative).unwrap();
    let arguments = ["--no-warmup", "--baseline", "./a.json", "--save-baseline", "./b.json"];
    let ran = bench.run(&arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    says(&ran, "of 9 of 10 answers: 1 uncounted_tokens");
    let mut binary = Command::new(env!("CARGO_BIN_EXE_llm-stream-bench-under-test"));
    let compare = binary.args(["compare", "a.json", "b.json", "--size", "80%"]);
    let compared = crate::bench::ran(compare.current_dir(bench.folder.path()));
    assert_eq!(compared.code, Some(0), "{}", compared.stdout);
    let note = "  note: generation_speed: of 9 of 10 requests, now of 9 of 10\n";
    assert!(compared.stdout.contains(note), "{}", compared.stdout);
    // All of them are wanted, where the config says so: now, and in the baseline.
    let strict = "min_share: 100 %\n    thresholds";
    fs::write(&config, relative.replacen("thresholds", strict, 1)).unwrap();
    let ran = bench.run(&["--no-warmup", "--baseline", "./a.json"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "in the baseline 1 of 10 has no such figure");
}

#[test]
fn answers_limited_to_one_token_do_not_count_as_missing() {
    let one = || ended(vec![(60, token(" alpha"))], (0, 0), usage(1, ""));
    let config = |second: &str| {
        format!(
            "runs: 3\nprompts:\n  - {{ name: long, text: \"Say hello.\" }}\n  \
             - {{ name: short, text: \"Say a.\"{second} }}\nmodels:\n  m:\n    \
             base_url: \"http://127.0.0.1:{}\"\n    thresholds: [\"tpot <= 1 s\"]\n",
            serve(mixed(&[(3, good()), (3, one())]))
        )
    };
    let bench = Bench::new(&config(", output_tokens: 1"));
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    says(&ran, "tpot mean <= 1000 ms:\n    of 3 of 6 answers: 3 asked for one token");
    // A model that ends at once is missing half of its answers.
    let bench = Bench::new(&config(""));
    let ran = bench.run(&["--no-warmup"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "3 of 6 answers have no tpot: 3 with one token event");
}

#[test]
fn an_impossible_speed_is_not_ranked_and_not_part_of_a_load() {
    let huge = ended(paced(&WORDS, 10), (10, 0), usage(1_000_000_000_000_000, ""));
    let (fast, slow) = (serve(vec![huge]), serve(vec![good()]));
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: p, text: \"Say hello.\" }}]\nworkloads:\n  load:\n    \
         {{ concurrency: 2, requests: 4, thresholds: [\"output_throughput >= 1\"] }}\n\
         defaults: {{ thresholds: [\"generation_speed >= 20\"] }}\nmodels:\n  \
         fast: {{ base_url: \"http://127.0.0.1:{fast}\" }}\n  \
         slow: {{ base_url: \"http://127.0.0.1:{slow}\" }}\n"
    ));
    let ran = bench.run(&["--no-warmup", "--json", "run.json"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    says(&ran, "1. slow: ");
    says(
        &ran,
        "-. fast: not ranked: 1 of 1 answers has no generation_speed: 1 more_tokens_than_text",
    );
    says(&ran, "1 of 1 runs has no output_throughput: 1 more_tokens_than_text");
    says(&ran, "Success: 4 requests, n/a output tokens/sec, ");
    let report = fs::read_to_string(bench.folder.path().join("run.json")).unwrap();
    let report = is_by_the_schema(&report);
    let groups = report["groups"].as_array().unwrap();
    let load = groups.iter().find(|group| group["name"] == "fast, load").unwrap();
    assert!(load["loads"][0]["output_throughput"].is_null(), "{load}");
    assert!(load["loads"][0]["request_throughput"].is_number(), "{load}");
}

#[test]
fn text_in_an_unknown_field_leaves_thresholds_undecided_until_the_config_names_it() {
    let unknown = r#"{"choices":[{"index":0,"delta":{"musing":"well"}}]}"#;
    let mut events = vec![(20, unknown.to_owned())];
    events.extend(paced(&WORDS, 20));
    let answer = ended(events, (20, 0), usage(9, ""));
    let keys = |more: &str| {
        format!(
            "{more}\n    thresholds: [\"ttft max <= 5 s\", \"generation_speed min >= 1\", \"response_tokens min >= 1\"]"
        )
    };
    let unnamed = bench(vec![answer.clone()], 2, &keys(""));
    let ran = unnamed.run(&["--no-warmup", "--json", "run.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    says(&ran, "WARNING: 2 of 3 thresholds inconclusive: ");
    says(&ran, "the figure may be wrong: text in the unknown field `musing`, to be named in");
    let report = fs::read_to_string(unnamed.folder.path().join("run.json")).unwrap();
    let doubts = &is_by_the_schema(&report)["thresholds"][0]["doubts"];
    assert_eq!(doubts[0]["answers"], 2, "{doubts}");
    for named in ["ignore_fields: [musing]", "text_fields: [{ musing: reasoning }]"] {
        let named = bench(vec![answer.clone()], 2, &keys(named));
        let ran = named.run(&["--no-warmup"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        says(&ran, "passed: 2 trials succeeded, all 3 thresholds met");
    }
}

#[test]
fn a_share_is_written_in_percent() {
    for (written, says) in [
        ("90 %", None),
        ("\"99.5%\"", None),
        ("0.9", Some("`min_share`")),
        ("0 %", Some("`min_share`")),
        ("101 %", Some("a share above 0 % and up to 100 %")),
        ("most", Some("for example `min_share: 90 %`")),
    ] {
        let bench = Bench::new(&format!(
            "defaults: {{ min_share: {written} }}\nmodels: {{ m: {{ simulate: {{}} }} }}\n"
        ));
        let ran = ran(&mut bench.command(&["--list"]));
        let code = if says.is_some() { 2 } else { 0 };
        assert_eq!(ran.code, Some(code), "{written}: {}", ran.stderr);
        assert!(ran.stderr.contains(says.unwrap_or_default()), "{}", ran.stderr);
    }
}
