//! What holds for every protocol alike: both directions, one definition of each figure, what is
//! sent and where to.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, fs, path::Path, time::Duration};

use clap::Parser as _;
use llm_stream_bench::{
    cli::Cli,
    config::{Config, ConnectionMode, TokenCount},
    load,
    plan::{Endpoint, Plan, Secret, Timeouts, Transport},
};
use llm_stream_client::{AnswerForm, Client, Options, connect_options::ConnectOptions};
use llm_stream_core::{
    framing::Frame,
    metric::Metric,
    prompt::{ChatMessage, ContentPart, Image, Prompt, Role, Tool, ToolChoice, Tools},
    protocol::{
        self, ChatRequest, DecodeError, Envelope, Message, MessagePart, OpenAiChat, Protocol,
        Timings, TokenKind, Usage,
    },
    recording::{Chunk, ErrorKind, MemoryHold, Recording, StampedBy, Uncertainty},
    sample::{self, Note, Sample},
};
use llm_stream_sim::Simulator;
use proptest::{option, prelude::*};
use serde_json::{Map, Value, json};

use crate::protocol::fixtures;

pub(crate) const ENVELOPE: Envelope<'static> = Envelope { model: "m", created: 1_795_501_696 };

// -- both directions ------------------------------------------------------------------------------

/// What a protocol's frames can say, as its documentation has it.
#[derive(Debug, Clone, Copy)]
struct Scope {
    kinds: &'static [TokenKind],
    /// Whether one frame holds tokens of several kinds, and what ends an answer beside them.
    together: bool,
    role: bool,
    /// Frames that have an id: all, none, or those that begin or end an answer.
    ids: Ids,
    /// Whether one frame says how the answer ended and is the end marker.
    one_ending: bool,
    total: bool,
    cached: bool,
    reasoning: bool,
    times: Times,
}

/// What a protocol has a place for: no times, those of the work, or also that of the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Times {
    None,
    Work,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ids {
    All,
    Start,
    Ends,
    None,
}

fn scope(protocol: &dyn Protocol) -> Scope {
    use TokenKind::{Answer, Reasoning, ToolCall};
    let text = Scope {
        kinds: &[Answer],
        together: true,
        role: false,
        ids: Ids::None,
        one_ending: true,
        total: false,
        cached: false,
        reasoning: false,
        times: Times::None,
    };
    let all = Scope {
        kinds: &[Reasoning, Answer, ToolCall],
        role: true,
        cached: true,
        reasoning: true,
        ..text
    };
    match protocol.name() {
        "openai_chat" => {
            Scope { ids: Ids::All, one_ending: false, total: true, times: Times::All, ..all }
        }
        "openai_completions" => Scope {
            ids: Ids::All,
            one_ending: false,
            total: true,
            cached: true,
            reasoning: true,
            times: Times::All,
            ..text
        },
        "openai_responses" => {
            Scope { ids: Ids::Ends, together: false, total: true, times: Times::All, ..all }
        }
        "anthropic_messages" => {
            Scope { ids: Ids::Start, together: false, one_ending: false, ..all }
        }
        "ollama_chat" => Scope { reasoning: false, times: Times::All, ..all },
        "llamacpp_completion" => Scope { cached: true, times: Times::Work, ..text },
        "tgi_generate_stream" => text,
        other => panic!("no scope for {other}"),
    }
}

/// Errors. "0", "ok" and the like stand for none.
const ERROR: &str = "[W{\\[\"].*";

/// The messages that one frame of any protocol can say, with it.
fn any_message() -> impl Strategy<Value = (&'static dyn Protocol, Message<'static>)> {
    prop::sample::select(protocol::ALL).prop_flat_map(|protocol| {
        let scope = scope(protocol);
        let message = prop_oneof![
            1 => ERROR.prop_map(|error| alone(MessagePart::Error(error))),
            2 => start(scope),
            4 => option::of(".*".prop_map(Cow::Owned)).prop_flat_map(move |id| middle(scope, id)),
            2 => ending(scope),
        ];
        message.prop_map(move |message| (protocol, message))
    })
}

pub(crate) fn alone(part: MessagePart<'static>) -> Message<'static> {
    Message { id: None, parts: vec![part] }
}

fn start(scope: Scope) -> BoxedStrategy<Message<'static>> {
    let id = option::of(".*".prop_map(Cow::Owned));
    if !scope.role {
        return middle(scope, None).boxed();
    }
    id.prop_map(move |id: Option<Cow<'static, str>>| Message {
        id: id.filter(|_| scope.ids != Ids::None),
        parts: vec![MessagePart::Role],
    })
    .boxed()
}

/// Tokens, one of a kind.
fn middle(scope: Scope, id: Option<Cow<'static, str>>) -> BoxedStrategy<Message<'static>> {
    let id = id.filter(|_| scope.ids == Ids::All);
    let most = if scope.together { scope.kinds.len() } else { 1 };
    let kinds = prop::sample::subsequence(scope.kinds, 1..=most);
    let texts = prop::collection::vec(".+", most);
    (kinds, texts)
        .prop_map(move |(kinds, texts)| {
            let tokens = kinds.into_iter().zip(texts);
            let parts = tokens.map(|(kind, text)| MessagePart::Token(kind, text.into())).collect();
            Message { id: id.clone(), parts }
        })
        .boxed()
}

/// A finish reason, a usage and the end, as far as one frame says them.
fn ending(scope: Scope) -> BoxedStrategy<Message<'static>> {
    let id = option::of(".*".prop_map(Cow::Owned));
    let finish = ".+".prop_map(|reason| MessagePart::Finish(reason.into()));
    let usage = option::of(any_usage(scope).prop_map(MessagePart::Usage));
    let counted = (usage, option::of(any_timings(scope)))
        .prop_map(|(usage, times)| usage.into_iter().chain(times.flatten()).collect::<Vec<_>>());
    if !scope.one_ending {
        let said =
            (id, option::of(finish), counted).prop_map(move |(id, finish, counted)| Message {
                id: id.filter(|_| scope.ids == Ids::All),
                parts: finish.into_iter().chain(counted).collect(),
            });
        let said = said.prop_filter("something", |message| !message.parts.is_empty());
        return prop_oneof![said, Just(alone(MessagePart::End))].boxed();
    }
    let said = (id, finish, counted).prop_map(move |(id, finish, counted)| Message {
        id: id.filter(|_| scope.ids == Ids::Ends),
        parts: [finish].into_iter().chain(counted).chain([MessagePart::End]).collect(),
    });
    said.boxed()
}

/// A usage that counts the answer at least.
fn any_usage(scope: Scope) -> impl Strategy<Value = Usage> {
    let count = || option::of(any::<u64>());
    // Anthropic's prompt is a sum, of which the cached tokens are a part.
    let prompt = (any::<u64>(), any::<u64>());
    (prompt, any::<u64>(), count(), any::<bool>(), count()).prop_map(
        move |((a, b), completion_tokens, total, has_cached, reasoning)| Usage {
            prompt_tokens: Some(a.max(b)),
            completion_tokens: Some(completion_tokens),
            total_tokens: total.filter(|_| scope.total),
            cached_tokens: Some(a.min(b)).filter(|_| scope.cached && has_cached),
            reasoning_tokens: reasoning.filter(|_| scope.reasoning),
            renamed: false,
        },
    )
}

/// Times of up to a month, where there is a place for any.
fn any_timings(scope: Scope) -> impl Strategy<Value = Option<MessagePart<'static>>> {
    let time = || option::of((0..1_u64 << 51).prop_map(Duration::from_nanos));
    (time(), time(), time()).prop_map(move |(queue, prompt, generation)| {
        let queue = queue.filter(|_| scope.times == Times::All);
        let timings = Timings { queue, prompt, generation, may_hold_first: false };
        (scope.times != Times::None && timings != Timings::default())
            .then_some(MessagePart::Timings(timings))
    })
}

/// What the events of `bytes` say. A body that is one document has none.
fn decoded(protocol: &dyn Protocol, bytes: &[u8]) -> Vec<Result<Message<'static>, DecodeError>> {
    let mut messages = Vec::new();
    let mut decoder = protocol.framing().decoder();
    let mut sink = |frame: Frame<'_>| match frame {
        Frame::Stray(_) => {}
        frame => messages.push(protocol.decode(&frame).map(owned)),
    };
    decoder.push(bytes, &mut sink).expect("short lines");
    decoder.finish(&mut sink);
    messages
}

fn owned(message: Message<'_>) -> Message<'static> {
    let text = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    let part = |part| match part {
        MessagePart::Token(kind, said) => MessagePart::Token(kind, text(said)),
        MessagePart::Finish(reason) => MessagePart::Finish(text(reason)),
        MessagePart::Role => MessagePart::Role,
        MessagePart::Usage(usage) => MessagePart::Usage(usage),
        MessagePart::Timings(timings) => MessagePart::Timings(timings),
        MessagePart::Error(error) => MessagePart::Error(error),
        MessagePart::End => MessagePart::End,
        MessagePart::Choice(index) => MessagePart::Choice(index),
        MessagePart::Items(items) => MessagePart::Items(items),
        MessagePart::UnreadUsage(usage) => MessagePart::UnreadUsage(usage),
        MessagePart::Unread(field, said) => MessagePart::Unread(text(field), text(said)),
        MessagePart::Unknown(excerpt) => MessagePart::Unknown(excerpt),
    };
    Message { id: message.id.map(text), parts: message.parts.into_iter().map(part).collect() }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same_message((protocol, message) in any_message()) {
        let bytes = protocol.encode(&message, &ENVELOPE);
        prop_assert_eq!(decoded(protocol, &bytes), [Ok(message)], "{}", protocol.name());
    }

    #[test]
    fn an_error_body_is_read_back(status in 400..600_u16, message in ERROR) {
        for protocol in protocol::ALL {
            let body = protocol.encode_error(status, &message);
            prop_assert_eq!(protocol.decode_error(&body), Some(message.clone()));
        }
    }

    #[test]
    fn anything_is_decoded_without_a_panic(name in "(error|)", data in prop::collection::vec(any::<u8>(), 0..64)) {
        for protocol in protocol::ALL {
            let _ = protocol.decode(&Frame::Event { name: &name, data: &data, terminated: true });
        }
    }
}

#[test]
fn the_recorded_streams_survive_decoding_and_encoding() {
    for fixture in fixtures() {
        let protocol = fixture.protocol;
        for message in decoded(protocol, &fixture.body()).into_iter().flatten() {
            let parts = || message.parts.iter();
            let tokens = parts().filter(|part| matches!(part, MessagePart::Token(..))).count();
            // Which of several tokens stand in one frame differs between servers.
            // The simulated endpoint has one choice.
            let is_of_another = matches!(message.parts.first(), Some(MessagePart::Choice(_)));
            if tokens > 1 || message.parts.is_empty() || is_of_another {
                continue;
            }
            let bytes = protocol.encode(&message, &ENVELOPE);
            assert_eq!(decoded(protocol, &bytes), [Ok(message)], "{}", fixture.label());
        }
    }
}

#[test]
fn a_text_without_escapes_is_not_copied() {
    for protocol in protocol::ALL {
        let message = Message {
            id: None,
            parts: vec![MessagePart::Token(TokenKind::Answer, "Grüße".into())],
        };
        let bytes = protocol.encode(&message, &ENVELOPE);
        let mut decoder = protocol.framing().decoder();
        let mut seen = 0;
        let mut sink = |frame: Frame<'_>| {
            let message = protocol.decode(&frame).expect("a token");
            assert!(
                matches!(&message.parts[..], [MessagePart::Token(_, Cow::Borrowed("Grüße"))]),
                "{}",
                protocol.name()
            );
            seen += 1;
        };
        decoder.push(&bytes, &mut sink).expect("short");
        assert_eq!(seen, 1);
    }
}

// -- one definition -------------------------------------------------------------------------------

/// An answer with an event at each time, in ms.
pub(crate) fn recording(events: Vec<(u64, Vec<u8>)>) -> Recording {
    let ended_at = events.last().map(|(at, _)| Duration::from_millis(*at)).unwrap_or_default();
    let chunk = |(at, bytes): (u64, Vec<u8>)| Chunk {
        at: Duration::from_millis(at),
        uncertainty: Duration::ZERO,
        bytes: bytes.into(),
    };
    Recording {
        origin: None,
        status: 200,
        content_type: None,
        head_time: None,
        content_encoding: None,
        retry_after: None,
        server: None,
        http_version: "HTTP/1.1".into(),
        connect: None,
        tls: None,
        sent: None,
        headers_at: Duration::from_millis(1),
        chunks: events.into_iter().map(chunk).collect(),
        ended_at,
        stamped_by: StampedBy::Program,
        uncertainty: Uncertainty::default(),
        broken: None,
        hold: MemoryHold::default(),
    }
}

/// The start of an answer: a role at 5 ms, then twenty tokens from 50 ms on, 10 ms apart.
pub(crate) fn rhythm(protocol: &dyn Protocol) -> Vec<(u64, Vec<u8>)> {
    let encode = |part| protocol.encode(&alone(part), &ENVELOPE);
    let token = |n: u64| (50 + 10 * n, encode(MessagePart::Token(TokenKind::Answer, "a".into())));
    [(5, encode(MessagePart::Role))].into_iter().chain((0..20).map(token)).collect()
}

/// The end of an answer, long after its last token.
pub(crate) fn trailer(protocol: &dyn Protocol) -> Vec<(u64, Vec<u8>)> {
    trailer_with(protocol, None)
}

/// The same with the server's own times.
fn trailer_with(protocol: &dyn Protocol, times: Option<Timings>) -> Vec<(u64, Vec<u8>)> {
    let usage = Usage { prompt_tokens: Some(7), completion_tokens: Some(20), ..Usage::default() };
    let times = times.map(MessagePart::Timings);
    let parts =
        [MessagePart::Finish("stop".into()), MessagePart::Usage(usage)].into_iter().chain(times);
    let parts = parts.chain([MessagePart::End]).collect();
    let encode = |parts| (900, protocol.encode(&Message { id: None, parts }, &ENVELOPE));
    protocol.ending(parts).into_iter().map(encode).collect()
}

fn read(
    protocol: &dyn Protocol,
    events: Vec<(u64, Vec<u8>)>,
) -> Result<Sample, llm_stream_core::recording::RequestError> {
    sample::read(&recording(events), protocol, TokenCount::Usage)
}

#[test]
fn equal_timing_gives_equal_figures_in_every_protocol() {
    for protocol in protocol::ALL {
        let events = [rhythm(*protocol), trailer(*protocol)].concat();
        let sample = read(*protocol, events).unwrap_or_else(|e| panic!("{}: {e}", protocol.name()));
        let figure = |name| Metric::named(name).and_then(|metric| metric.of(&sample));
        let expected = [
            ("ttft", 0.050),
            ("ttfo", 0.050),
            ("generation_time", 0.190),
            ("generation_speed", 20.0 / 0.190),
            ("tpot", 0.190 / 19.0),
            ("e2e", 0.240),
            ("total_time", 0.900),
            ("preprocess_speed", 7.0 / 0.050),
            ("response_tokens", 20.0),
        ];
        for (name, value) in expected {
            assert_eq!(figure(name), Some(value), "{}: {name}", protocol.name());
        }
        assert_eq!(sample.notes, [], "{}", protocol.name());
    }
}

#[test]
fn the_servers_times_are_read_in_every_protocol_that_has_them() {
    let ms = |ms| Some(Duration::from_millis(ms));
    let times = |prompt, generation| Timings { prompt, generation, ..Timings::default() };
    let read = |protocol: &dyn Protocol, times| {
        let events = [rhythm(protocol), trailer_with(protocol, Some(times))].concat();
        read(protocol, events).unwrap_or_else(|e| panic!("{}: {e}", protocol.name()))
    };
    for protocol in protocol::ALL {
        let name = protocol.name();
        let sample = read(*protocol, times(ms(45), ms(200)));
        let figure = |name| Metric::named(name).and_then(|metric| metric.of(&sample));
        if scope(*protocol).times == Times::None {
            assert_eq!((figure("server_ttft"), sample.notes.as_slice()), (None, &[][..]), "{name}");
            continue;
        }
        assert_eq!(figure("server_ttft"), Some(0.045), "{name}");
        assert_eq!(figure("server_generation_time"), Some(0.200), "{name}");
        assert_eq!(figure("server_generation_speed"), Some(100.0), "{name}");
        assert_eq!(figure("ttft_beyond_server"), Some(0.050 - 0.045), "{name}");
        assert_eq!(
            figure("generation_beyond_server"),
            Some(100.0 * (0.190 / 0.200 - 1.0)),
            "{name}"
        );
        // 10 ms are more than a hundredth and the millisecond to the headers.
        assert_eq!(sample.notes, [Note::ServerDisagrees], "{name}");
        assert_eq!(read(*protocol, times(ms(50), ms(192))).notes, [], "{name}");
        assert_eq!(
            read(*protocol, times(ms(60), ms(190))).notes,
            [Note::ServerDisagrees],
            "{name}"
        );
        assert_eq!(read(*protocol, times(ms(10), None)).notes, [], "{name}");
    }
}

#[test]
fn an_error_in_the_stream_fails_in_every_protocol() {
    for protocol in protocol::ALL {
        let error = protocol.encode(&alone(MessagePart::Error("out of memory".into())), &ENVELOPE);
        let outcome = read(*protocol, [rhythm(*protocol), vec![(300, error)]].concat());
        let error = outcome.expect_err(protocol.name());
        assert_eq!(error.kind, ErrorKind::InBand, "{}", protocol.name());
        assert!(error.message.contains("out of memory"), "{error}");
    }
}

#[test]
fn an_answer_without_a_finish_reason_fails_in_every_protocol() {
    for protocol in protocol::ALL {
        let error = read(*protocol, rhythm(*protocol)).expect_err(protocol.name());
        assert_eq!(error.kind, ErrorKind::NoFinishReason, "{}: {error}", protocol.name());
    }
}

// -- the simulated endpoint -----------------------------------------------------------------------

fn plan(yaml: &str) -> Plan {
    let config = Config::parse(yaml, "configs.yaml", Path::new("."))
        .unwrap_or_else(|errors| panic!("{errors}"));
    Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).expect("a plan")
}

/// What a case's simulated endpoint answers.
fn simulated(protocol: &dyn Protocol, script: &str) -> Result<Sample, String> {
    let yaml = format!(
        "prompts: [{{ name: p, system: Be brief., text: Hello }}]\nmodels:\n  m:\n    protocol: {}\n    \
         simulate: {{ ttft: 5ms, itl: 2ms, tokens: 30, {script} }}\n",
        protocol.name()
    );
    let case = plan(&yaml).cases[0].clone();
    let target = &case.target;
    let Endpoint::Simulated(script) = &target.endpoint else { panic!("not simulated") };
    let simulator = Simulator::start(script.clone(), target.protocol).expect("an endpoint");
    let url = format!("{}{}{}", simulator.url(), protocol.prefix(), protocol.path());
    let client = Client::new(&Options {
        replicas: &[],
        url: &url,
        headers: &[],
        api_key: None,
        timeouts: target.timeouts,
        transport: target.transport,
        connection: target.connection,
        protocol: target.protocol,
        answer: AnswerForm::Stream { needs_usage: true },
        route: &ConnectOptions::default(),
    })
    .expect("a client");
    load::run(&case, &load::PromptSizer::default(), &client, &())
        .outcome
        .map_err(|error| error.to_string())
}

#[test]
fn the_simulated_endpoint_speaks_every_protocol() {
    let mut output = String::new();
    for protocol in protocol::ALL {
        let sample = simulated(*protocol, "reasoning_tokens: 10, cached_tokens: 2").unwrap();
        let _ = writeln!(
            output,
            "{}: {} events, {} tokens of {:?} prompt tokens, {:?} cached, {:?} reasoning, {}, {}",
            protocol.name(),
            sample.token_events.len(),
            sample.response_tokens,
            sample.prompt_tokens,
            sample.cached_tokens,
            sample.reasoning_tokens,
            sample.finish_reason,
            sample.request_id.as_deref().unwrap_or("no id"),
        );
    }
    insta::assert_snapshot!(output);
}

#[test]
fn the_faults_of_the_simulated_endpoint_show_in_every_protocol() {
    let mut output = String::new();
    for fault in ["status: 503", "truncate: 3", "error: 3", "missing_usage", "missing_end"] {
        let _ = writeln!(output, "{fault}");
        for protocol in protocol::ALL {
            let fault = if fault.contains(':') { format!("{{ {fault} }}") } else { fault.into() };
            let outcome = simulated(*protocol, &format!("faults: [{fault}]"));
            let ended = |sample: Sample| !sample.notes.contains(&Note::NoEndMarker);
            let said = outcome.map(|sample| format!("valid, end marker: {}", ended(sample)));
            let _ = writeln!(output, "  {}: {}", protocol.name(), said.unwrap_or_else(|e| e));
        }
    }
    insta::assert_snapshot!(output);
}

// -- what is sent, and where to -------------------------------------------------------------------

#[test]
fn each_protocol_sends_the_same_settings() {
    let extra = json!({
        "seed": 1,
        "options": {"top_k": 1},
        "parameters": {"top_k": 1},
        "stream_options": {"continuous_usage_stats": true},
    });
    let mut output = String::new();
    for protocol in protocol::ALL {
        let own: Map<_, _> = extra
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| match key.as_str() {
                "options" => protocol.name() == "ollama_chat",
                "parameters" => protocol.name() == "tgi_generate_stream",
                "stream_options" => protocol.name() == "openai_completions",
                _ => true,
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (temperature, system) in [(0.0, Some("Be brief.")), (0.7, None)] {
            let body = protocol.body(&ChatRequest {
                documents: &[],
                batch: 1,
                model: "m",
                messages: &Prompt::new("p", system, "Hello").messages,
                temperature: Some(temperature),
                max_tokens: 64,
                min_tokens: None,
                ignore_eos: false,
                tools: &Tools::default(),
                extra_body: &own,
            });
            let _ = writeln!(output, "{}: {body}", protocol.name());
            let intent = protocol.request_intent(body.as_object().unwrap());
            assert_eq!(intent.max_tokens, Some(64), "{}", protocol.name());
            assert!(intent.stream && intent.usage, "{}", protocol.name());
            assert!(intent.prompt_chars >= 5, "{}", protocol.name());
        }
    }
    insta::assert_snapshot!(output);
}

#[test]
fn each_protocol_sends_a_conversation_with_an_image() {
    let image = Image::Data { mime: "image/png".into(), base64: "iVBORw0=".into() };
    let mut last = ChatMessage::text(Role::User, "And this?");
    last.content.push(ContentPart::Image(image.clone()));
    let messages = [
        ChatMessage::text(Role::System, "Be brief."),
        ChatMessage::text(Role::User, "What is it?"),
        ChatMessage::text(Role::Assistant, "A cat."),
        last,
    ];
    let mut output = String::new();
    for protocol in protocol::ALL {
        let body = protocol.body(&ChatRequest {
            documents: &[],
            batch: 1,
            model: "m",
            messages: &messages,
            temperature: Some(0.0),
            max_tokens: 64,
            min_tokens: None,
            ignore_eos: false,
            tools: &Tools::default(),
            extra_body: &Map::new(),
        });
        let _ = writeln!(output, "{}: {body}", protocol.name());
        // The image is sent wherever that is said.
        assert_eq!(body.to_string().contains("iVBORw0="), protocol.takes(&image));
        let chars = protocol.request_intent(body.as_object().unwrap()).prompt_chars;
        assert!((35..45).contains(&chars), "{}: {chars}", protocol.name());
    }
    insta::assert_snapshot!(output);
    let url = Image::Url("https://example.com/cat.png".into());
    let fetched = protocol::ALL.iter().filter(|protocol| protocol.takes(&url));
    let fetched: Vec<_> = fetched.map(|protocol| protocol.name()).collect();
    assert_eq!(fetched, ["openai_chat", "openai_responses", "anthropic_messages"]);
}

#[test]
fn each_protocol_sends_tools_in_its_own_way() {
    let tool = |fields: Value| Tool(fields.as_object().unwrap().clone());
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let weather =
        json!({"name": "weather", "description": "Now.", "parameters": city, "strict": true});
    let choices = [
        None,
        Some(ToolChoice::Auto),
        Some(ToolChoice::Required),
        Some(ToolChoice::None),
        Some(ToolChoice::Named("time".into())),
    ];
    let some = [tool(weather), tool(json!({"name": "time"}))];
    let mut output = String::new();
    for protocol in protocol::ALL {
        let fields = |listed: &[Tool], choice: Option<ToolChoice>| {
            let body = protocol.body(&ChatRequest {
                documents: &[],
                batch: 1,
                model: "m",
                messages: &Prompt::new("p", None, "Hello").messages,
                temperature: Some(0.0),
                max_tokens: 64,
                min_tokens: None,
                ignore_eos: false,
                tools: &Tools { listed: Some(listed.into()), choice },
                extra_body: &Map::new(),
            });
            let mut fields = body.as_object().unwrap().clone();
            fields.retain(|key, _| key.starts_with("tool"));
            fields
        };
        for choice in choices.clone() {
            let sent = fields(&some, choice.clone());
            let sends = |key| sent.contains_key(key);
            let knows = |key| protocol.tool_fields().contains(&key);
            assert_eq!(sends("tools"), knows("tools"), "{}", protocol.name());
            let chooses = knows("tool_choice") && choice.is_some();
            assert_eq!(sends("tool_choice"), chooses, "{}", protocol.name());
            let sent = match choice {
                None => sent.get("tools"),
                Some(_) => sent.get("tool_choice"),
            };
            if let Some(sent) = sent {
                let _ = writeln!(output, "{}: {sent}", protocol.name());
            }
        }
        // An empty list is no tools, and what is chosen of it nothing.
        assert_eq!(fields(&[], Some(ToolChoice::Required)), Map::new(), "{}", protocol.name());
    }
    insta::assert_snapshot!(output);
}

/// The body of a request with these the user's own fields, of a model without a temperature or
/// with one.
fn body_with(protocol: &dyn Protocol, extra: &Value, temperature: Option<f64>) -> Value {
    protocol.body(&ChatRequest {
        documents: &[],
        batch: 1,
        model: "m",
        messages: &Prompt::new("p", Some("Be brief."), "Hello").messages,
        temperature,
        max_tokens: 7,
        min_tokens: protocol.length_fields().contains(&"min_tokens").then_some(3),
        ignore_eos: protocol.length_fields().contains(&"ignore_eos"),
        tools: &Tools {
            listed: Some([Tool(json!({"name": "f"}).as_object().unwrap().clone())].into()),
            choice: Some(ToolChoice::Required),
        },
        extra_body: extra.as_object().unwrap(),
    })
}

#[test]
fn null_omits_every_field_except_the_prompt() {
    const STAYS: [&str; 8] =
        ["model", "messages", "prompt", "input", "inputs", "system", "instructions", "stream"];
    for protocol in protocol::ALL {
        let whole = body_with(*protocol, &json!({"top_k": 1}), Some(0.7));
        let fields = whole.as_object().unwrap();
        for (key, value) in fields {
            let refused = protocol.forbidden_field(key, &Value::Null).is_some();
            assert_eq!(refused, STAYS.contains(&key.as_str()), "{}: {key}", protocol.name());
            if refused {
                continue;
            }
            let mut expected = fields.clone();
            expected.shift_remove(key);
            let body = body_with(*protocol, &json!({"top_k": 1, key: null}), Some(0.7));
            assert_eq!(body.as_object(), Some(&expected), "{}: {key}", protocol.name());
            // One by one, where a field holds several of ours.
            let inner = value
                .as_object()
                .filter(|_| ["stream_options", "options", "parameters"].contains(&key.as_str()));
            for inner in inner.into_iter().flat_map(Map::keys) {
                let own = json!({key: {inner: null}});
                assert_eq!(
                    protocol.forbidden_field(key, &own[key]),
                    None,
                    "{}: {key}",
                    protocol.name()
                );
                let body = body_with(*protocol, &own, Some(0.7));
                let rest = body.get(key).and_then(|rest| rest.get(inner));
                assert_eq!(rest, None, "{}: {key}.{inner}", protocol.name());
                let is_empty = body.get(key).is_some_and(|rest| *rest == json!({}));
                assert!(!is_empty, "{}: {key}.{inner}", protocol.name());
            }
        }
    }
}

#[test]
fn null_within_a_field_of_the_user_is_sent() {
    for protocol in protocol::ALL {
        let own = json!({"response_format": {"default": null}, "stop": null});
        let body = body_with(*protocol, &own, Some(0.7));
        assert_eq!(body["response_format"], json!({"default": null}), "{}", protocol.name());
        assert_eq!(body.get("stop"), None, "{}", protocol.name());
    }
}

#[test]
fn a_model_without_a_temperature_sends_none() {
    for protocol in protocol::ALL {
        let without = body_with(*protocol, &json!({}), None).to_string();
        assert!(!without.contains("temperature"), "{}: {without}", protocol.name());
        assert!(!without.contains("do_sample"), "{}: {without}", protocol.name());
        assert!(!without.contains("null"), "{}: {without}", protocol.name());
        let body = body_with(*protocol, &json!({}), Some(0.7)).to_string();
        assert!(body.contains("\"temperature\":0.7"), "{}: {body}", protocol.name());
    }
}

#[test]
fn the_sent_limit_of_an_answer_applies() {
    for protocol in protocol::ALL {
        let most = |own: &Value| protocol.most_tokens(&body_with(*protocol, own, Some(0.7)));
        assert_eq!(most(&json!({})), Some(7), "{}", protocol.name());
        let left_out = json!({
            "max_tokens": null,
            "max_output_tokens": null,
            "n_predict": null,
            "options": null,
            "parameters": null,
        });
        assert_eq!(most(&left_out), None, "{}", protocol.name());
    }
    let most = |own: Value| OpenAiChat.most_tokens(&body_with(&OpenAiChat, &own, None));
    assert_eq!(most(json!({"max_completion_tokens": 9})), Some(9));
    assert_eq!(most(json!({"max_completion_tokens": null})), Some(7));
}

#[test]
fn fields_that_would_break_the_measurement_are_refused_in_every_protocol() {
    let fields = [
        ("stream", json!(false)),
        ("messages", json!([])),
        ("prompt", json!("a")),
        ("input", json!("a")),
        ("inputs", json!("a")),
        ("system", json!("a")),
        ("instructions", json!("a")),
        ("model", json!("m")),
        ("temperature", json!(1)),
        ("max_tokens", json!(1)),
        ("max_output_tokens", json!(1)),
        ("n_predict", json!(1)),
        ("options", json!({"num_predict": 1})),
        ("options", json!({"temperature": 1})),
        ("options", json!(1)),
        ("parameters", json!({"max_new_tokens": 1})),
        ("parameters", json!({"details": false})),
        ("parameters", json!({"best_of": 2})),
        ("parameters", json!(1)),
        ("n", json!(2)),
        ("n_cmpl", json!(2)),
        ("background", json!(true)),
        ("response_fields", json!(["content"])),
    ];
    let mut output = String::new();
    for protocol in protocol::ALL {
        let _ = writeln!(output, "{}", protocol.name());
        for (key, value) in &fields {
            if let Some(why) = protocol.forbidden_field(key, value) {
                let _ = writeln!(output, "  {why}");
            }
        }
        for (key, value) in [("seed", json!(1)), ("stream", json!(true))] {
            assert_eq!(protocol.forbidden_field(key, &value), None, "{}: {key}", protocol.name());
        }
    }
    insta::assert_snapshot!(output);
}

#[test]
fn each_protocol_has_its_url() {
    let mut output = String::new();
    for protocol in protocol::ALL {
        for base in ["http://localhost:8000", "https://example.com/api/v3/"] {
            let yaml = format!(
                "models:\n  m: {{ base_url: \"{base}\", protocol: {} }}\n",
                protocol.name()
            );
            let plan = plan(&yaml);
            let _ = writeln!(output, "{}", plan.targets[0].endpoint_name());
        }
    }
    insta::assert_snapshot!(output);
}

#[test]
fn each_protocol_sends_its_headers_and_the_key() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut output = String::new();
    for protocol in protocol::ALL {
        let server = runtime.block_on(wiremock::MockServer::start());
        let url = server.uri();
        let key = Secret("s3cret-key".into());
        let client = Client::new(&Options {
            replicas: &[],
            url: &url,
            headers: &[],
            api_key: Some(&key),
            timeouts: Timeouts::default(),
            transport: Transport::Reqwest,
            connection: ConnectionMode::Warm,
            protocol: *protocol,
            answer: AnswerForm::Document,
            route: &ConnectOptions::default(),
        })
        .unwrap();
        assert_eq!(client.redactor().redact("a s3cret-key"), "a ***", "{}", protocol.name());
        assert!(!format!("{client:?}").contains("s3cret"));
        let _ = client.send("{}", &());
        let sent = runtime.block_on(server.received_requests()).unwrap();
        let _ = writeln!(output, "{}", protocol.name());
        for name in ["accept", "anthropic-version", "authorization", "x-api-key"] {
            if let Some(value) = sent[0].headers.get(name) {
                let _ = writeln!(output, "  {name}: {}", value.to_str().unwrap());
            }
        }
    }
    insta::assert_snapshot!(output);
}

// -- the table of the documentation ---------------------------------------------------------------

/// What the streams of each protocol show, as a row of the documentation's table.
fn rows() -> BTreeMap<&'static str, String> {
    let mut shown: BTreeMap<&str, [bool; 8]> = BTreeMap::new();
    for fixture in fixtures() {
        let shows = shown.entry(fixture.protocol.name()).or_default();
        for message in decoded(fixture.protocol, &fixture.body()).into_iter().flatten() {
            for part in &message.parts {
                match part {
                    MessagePart::Token(TokenKind::Answer, _) => shows[0] = true,
                    MessagePart::Token(TokenKind::Reasoning, _) => shows[1] = true,
                    MessagePart::Token(TokenKind::ToolCall, _) => shows[2] = true,
                    MessagePart::Usage(usage) => {
                        shows[3] |= usage.completion_tokens.is_some();
                        shows[4] |= usage.cached_tokens.is_some();
                    }
                    MessagePart::Timings(_) => shows[5] = true,
                    MessagePart::Error(_) => shows[6] |= fixture.recording.status == 200,
                    MessagePart::End => shows[7] = true,
                    MessagePart::Role
                    | MessagePart::Finish(_)
                    | MessagePart::Choice(_)
                    | MessagePart::Items(_) => {}
                    MessagePart::Unread(..)
                    | MessagePart::Unknown(_)
                    | MessagePart::UnreadUsage(_) => {
                        panic!("not read: {part:?}")
                    }
                }
            }
        }
    }
    let cell = |shows: bool| if shows { "✓" } else { "–" };
    let row = |(name, shows): (_, [bool; 8])| {
        (name, format!("| `{name}` | {} |", shows.map(cell).join(" | ")))
    };
    shown.into_iter().map(row).collect()
}

#[test]
fn the_documented_table_agrees_with_the_streams() {
    for language in ["en", "zh"] {
        let file = format!("docs/{language}/src/protocols.md");
        let path = Path::new(crate::bench::REPOSITORY).join(&file);
        let page = fs::read_to_string(path).expect("the page");
        for (name, row) in rows() {
            assert!(page.contains(&row), "{file} says other of {name} than\n{row}");
        }
    }
}
