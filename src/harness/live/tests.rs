//! The view as ratatui's `TestBackend` shows it, from events with times that the tests choose.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use llm_stream_core::{
    load_stats::{LoadStats, RequestSpan, RequestSpans},
    metric::Metric,
    protocol::OpenAiChat,
    recording::{ErrorKind, Recording, RequestError},
    sample::{self, Sample, TokenCount},
    summary::Tally,
    threshold::Threshold,
};
use ratatui_core::{backend::TestBackend, terminal::Terminal};

use super::{draw, figures::Standing, state::LiveState};
use crate::{
    config::Config,
    load::LoadCounters,
    plan::{Case, Overrides, Plan, Task},
    row::{LoadPosition, Row},
    run::{Event, TrialOutcome, TrialPosition},
};

const CONFIG: &str = "\
order: as-listed
runs: 2
prompts: [{ name: hello, text: Say hello. }]
thresholds: [\"ttft <= 200 ms\", \"ttft p95 <= 200 ms\", \"tpot <= +5 % of baseline\"]
workloads:
  chat: { concurrency: 8, requests: 200, runs: 1, thresholds: [\"success_rate >= 99 %\", \
        \"ttft p95 <= 200 ms\", \"output_throughput >= 100\"] }
models:
  Qwen: { simulate: { ttft: 1ms } }
";

/// A run whose time and reads the test decides.
struct Fake {
    plan: Plan,
    state: LiveState,
    reads: Arc<AtomicU64>,
    now: Duration,
}

impl Fake {
    fn new(config: &str) -> Self {
        let config = Config::parse(config, "configs.yaml", Path::new(".")).unwrap();
        let plan = Plan::new(&config, &Overrides::default()).unwrap();
        let reads = Arc::<AtomicU64>::default();
        let groups = plan.cases.iter().map(|case| case.group.clone());
        let state = LiveState::new("Preflight", groups, reads.clone());
        Self { plan, state, reads, now: Duration::ZERO }
    }

    fn case(&self, trial: usize) -> (Arc<Case>, TrialPosition) {
        let trials = self.plan.cases.len();
        let case = self.plan.cases[trial - 1].clone();
        let runs = self.plan.cases.iter().filter(|other| other.task.is(&case.task)).count();
        let run = case.run as usize;
        (case, TrialPosition { trial, trials, task: 1, tasks: 1, run, runs })
    }

    fn take(&mut self, event: Event<'_>) {
        self.state.take(event, self.now);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.state.tick(self.now);
    }

    fn begin(&mut self, trial: usize) -> Arc<Case> {
        let (case, position) = self.case(trial);
        self.take(Event::TrialStarted { case: &case });
        self.take(Event::RequestStarted { case: &case, position });
        case
    }

    fn request(&mut self, case: &Arc<Case>, outcome: Result<(Recording, Sample), ErrorKind>) {
        let place = LoadPosition {
            replica: 0,
            request: 1,
            scheduled: None,
            sent: None,
            begun: Duration::ZERO,
            ended: Duration::ZERO,
        };
        let is_load = case.task.workload().is_some();
        let (recording, outcome) = match outcome {
            Ok((recording, sample)) => (Some(recording), Ok(sample)),
            Err(kind) => (None, Err(RequestError::new(kind, "a test"))),
        };
        let (prompt, started) = (case.task.prompt().clone(), jiff::Timestamp::UNIX_EPOCH);
        let place = is_load.then_some(place);
        let row = Row { case: case.clone(), prompt, started, place, outcome };
        let recording = recording.as_ref();
        self.take(Event::Request { row: &row, recording, name: "", redactor: None });
    }

    fn prompt(&mut self, trial: usize, ttft: u64) {
        let case = self.begin(trial);
        self.reads.fetch_add(4, Ordering::Relaxed);
        self.pass(500);
        let (recording, sample) = answer(ttft, 20);
        self.request(&case, Ok((recording, sample.clone())));
        let outcome = TrialOutcome::Answer(&sample);
        self.take(Event::TrialFinished { case: &case, outcome });
    }

    fn lines(&self, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let frame = terminal
            .draw(|frame| draw::draw(&self.state, self.now, frame.area(), frame.buffer_mut()));
        let frame = frame.unwrap();
        let rows = frame.buffer.content().chunks(width.into());
        let row = |cells: &[ratatui_core::buffer::Cell]| {
            let text: String = cells.iter().map(|cell| cell.symbol()).collect();
            text.trim_end().to_owned()
        };
        rows.map(row).collect()
    }
}

/// An answer of 8 tokens in 4 reads.
fn answer(ttft: u64, gap: u64) -> (Recording, Sample) {
    let mut lines = vec![format!(
        r#"{{"status":200,"content_type":"text/event-stream","http_version":"HTTP/1.1","headers_ns":1000000,"ended_ns":{}000000,"chunks":4}}"#,
        ttft + 3 * gap
    )];
    let token = r#"data: {"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    let end = r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":8,"total_tokens":12}}"#;
    for read in 0..4 {
        let mut text = format!("{token}\n\n{token}\n\n");
        if read == 3 {
            text.push_str(&format!("{end}\n\ndata: [DONE]\n\n"));
        }
        let at = (ttft + read * gap) * 1_000_000;
        lines.push(serde_json::json!({ "at_ns": at, "text": text }).to_string());
    }
    let recording = Recording::from_jsonl(&(lines.join("\n") + "\n")).unwrap();
    let sample = sample::read(&recording, &OpenAiChat, TokenCount::Usage).unwrap();
    (recording, sample)
}

/// A load after two trials of a prompt: 199 requests, the last ones failed.
fn in_a_load() -> Fake {
    let mut run = Fake::new(CONFIG);
    run.prompt(1, 100);
    run.prompt(2, 300);
    let case = run.begin(3);
    let Task::Workload(workload) = &case.task else { panic!("{case:?}") };
    let counters = Arc::new(LoadCounters::default());
    run.take(Event::LoadStarted { workload, counters: &counters });
    for ended in 1..=199 {
        let outcome = match ended {
            190.. => Err(if ended < 193 { ErrorKind::HttpStatus } else { ErrorKind::TotalTimeout }),
            _ => Ok(answer(50 + ended, 20)),
        };
        run.request(&case, outcome);
        run.take(Event::LoadProgress { ended: ended as usize, of: Some(200), tokens: None });
        if ended % 10 == 0 {
            counters.set(8, ended * (30 + ended) / 2);
            run.pass(500);
        }
    }
    run
}

#[test]
fn before_the_first_trial_there_is_no_figure() {
    let run = Fake::new(CONFIG);
    assert_eq!(
        run.lines(60, 6),
        [
            "Preflight",
            "throughput                      -  0 streams open",
            "ttft                            -",
            "tpot                            -",
            "errors      -",
            "thresholds  0 hold so far, 6 open",
        ]
    );
}

#[test]
fn a_prompt_has_its_figures_after_its_request() {
    let mut run = Fake::new(CONFIG);
    run.prompt(1, 100);
    run.begin(2);
    // 8 tokens in 4 reads: the next 10 reads count as 20 tokens.
    run.reads.fetch_add(10, Ordering::Relaxed);
    run.pass(500);
    assert_eq!(
        run.lines(80, 6),
        [
            "Qwen-simulated  prompt 1/1  run 2/2                         trial 2/3  0:00 left",
            "throughput  ▁█                            24.0 tok/s  1 stream open",
            "ttft        █                             median 100  max 100 ms",
            "tpot        █                             median 8.57  max 8.57 ms",
            "errors      none in 1",
            "thresholds  1 hold so far, 5 open",
        ]
    );
}

#[test]
fn a_load_shows_distributions_errors_and_missed_thresholds() {
    let run = in_a_load();
    for (width, expected) in LOAD {
        assert_eq!(run.lines(width, 6), expected, "{width}");
        // Without room for all rows the first ones remain.
        assert_eq!(run.lines(width, 2), expected[..2], "{width}");
    }
}

const LOAD: [(u16, [&str; 6]); 3] = [
    (
        60,
        [
            "Qwen-simu…  chat  run 1/1  199/200 re…  trial 3/3  0:00 left",
            "throughput  ▁▁▂▂▂▃▃▄▄▄▅▅▆▆▆▇▇█  7400 tok/s  8 streams open",
            "ttft        ▁▂▂▂▂▂▃▃▃▄▄▅▅▆▆▇█▇  median 146  max 239 ms",
            "tpot        █                   median 8.57  max 8.57 ms",
            "errors      10 of 201: total_timeout 7, http_status 3",
            "thresholds  1 hold so far, 3 open, 2 missed: success_rate >…",
        ],
    ),
    (
        80,
        [
            "Qwen-simulated  chat  run 1/1  199/200 requests             trial 3/3  0:00 left",
            "throughput  ▁▁▁▁▁▂▂▂▃▃▄▄▄▅▅▆▆▆▇▇█         7400 tok/s  8 streams open",
            "ttft        ▁▂▂▂▂▂▃▂▃▃▃▃▃▃▄▄▄▅▅▅▅▆▆▆▇▇█▇  median 146  p95 230  max 239 ms",
            "tpot        █                             median 8.57  p95 8.57  max 8.57 ms",
            "errors      10 of 201: total_timeout 7, http_status 3",
            "thresholds  1 hold so far, 3 open, 2 missed: success_rate >= 99 %: 95.0 % (Qwen…",
        ],
    ),
    (
        120,
        [
            "Qwen-simulated  chat  run 1/1  199/200 requests                                                     trial 3/3  0:00 left",
            "throughput  ▁▁▁▁▁▂▂▂▃▃▄▄▄▅▅▆▆▆▇▇█                                           7400 tok/s  8 streams open",
            "ttft        ▁▁▁▁▂▁▁▁▂▂▁▂▁▂▁▂▂▂▃▂▂▃▁▃▃▃▃▃▃▃▃▃▄▃▃▃▄▃▄▃▄▄▄▄▄▄▅▄▅▅▆▆▅▆▆▆▆▇▆▆█▄  median 146  p95 230  max 239 ms",
            "tpot        █                                                               median 8.57  p95 8.57  max 8.57 ms",
            "errors      10 of 201: total_timeout 7, http_status 3",
            "thresholds  1 hold so far, 3 open, 2 missed: success_rate >= 99 %: 95.0 % (Qwen-simulated, chat); ttft p95 <= 200 ms: t…",
        ],
    ),
];

#[test]
fn a_load_that_has_ended_decides_its_thresholds() {
    let mut run = in_a_load();
    let (case, _) = run.case(3);
    let span = |n: u64| RequestSpan {
        scheduled: None,
        begun: Duration::from_millis(100 * n),
        ended: Duration::from_millis(100 * n + 100),
        tokens: Some(8),
        has_items: false,
        refused: None,
        is_good: None,
    };
    let mut spans = RequestSpans::default();
    (0..10).for_each(|n| spans.push(span(n)));
    let stats = LoadStats::of(&spans, None).unwrap();
    let (tally, Task::Workload(workload)) = (Tally::default(), &case.task) else {
        panic!("{case:?}")
    };
    let outcome = TrialOutcome::Load { workload, tally: &tally, stats: &stats };
    run.take(Event::TrialFinished { case: &case, outcome });
    let lines = run.lines(120, 6);
    assert_eq!(lines[0], "All trials have ended");
    assert!(lines[1].ends_with("0 streams open"), "{lines:#?}");
    let of_load = |threshold: &Threshold| *threshold.metric == *Metric::OUTPUT_THROUGHPUT;
    let standing = run.state.standings().find(|(_, threshold, _)| of_load(threshold));
    assert_eq!(standing.map(|(.., standing)| standing), Some(Standing::Missed(80.0)));
}

#[test]
fn the_remaining_time_is_that_of_the_load_and_of_the_other_trials() {
    let left = |run: &Fake| run.state.left(run.now).map(|left| left.as_millis());
    let mut run = Fake::new(CONFIG);
    assert_eq!(left(&run), None);
    run.begin(1);
    assert_eq!(left(&run), None, "nothing is known of a first prompt");
    run.prompt(1, 100);
    run.begin(2);
    run.pass(100);
    assert_eq!(left(&run), Some(400 + 500), "two trials of half a second");
    let mut run = Fake::new(
        "prompts: [{ name: a, text: b }]\nworkloads: { load: { concurrency: 1, duration: 10s, \
         runs: 2 } }\nmodels: { m: { simulate: { ttft: 1ms } } }\n",
    );
    run.plan = run.plan.select(|case| case.task.workload().is_some());
    let case = run.begin(1);
    let Task::Workload(workload) = &case.task else { panic!("{case:?}") };
    run.take(Event::LoadStarted { workload, counters: &Arc::default() });
    run.pass(4000);
    assert_eq!(left(&run), Some(6_000 + 10_000), "the second run takes as long");
}

#[test]
fn names_cannot_move_the_cursor_and_wide_ones_are_cut() {
    let wide = CONFIG.replace("Qwen", "\"\\u001b[2J千问千问千问千问千问千问千问千问千问千问\"");
    let mut run = Fake::new(&wide);
    run.begin(1);
    for width in [1, 2, 10, 12, 20, 40, 60] {
        for height in [1, 3, 6, 9] {
            let lines = run.lines(width, height);
            assert_eq!(lines.len(), usize::from(height));
            assert!(!lines.concat().contains('\u{1b}'), "{lines:#?}");
        }
    }
    assert!(run.lines(60, 6)[0].contains('…'), "{:#?}", run.lines(60, 6));
}
