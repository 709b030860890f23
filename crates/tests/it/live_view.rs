//! The live view in a real terminal: what is on the screen during a run, and what is left after it.

use std::{process::Command, time::Instant};

use unicode_width::UnicodeWidthStr as _;

use crate::{
    bench::{Bench, Served},
    pseudo_terminal::{Left, PseudoTerminal},
    wait,
};

/// A prompt and a load. The long name is cut in narrow terminals.
const CONFIG: &str = "\
runs: 2
prompts: [{ name: hello, text: \"Say hello.\" }]
thresholds: [\"ttft <= 1 s\"]
workloads: { chat: { concurrency: 4, requests: 12, runs: 1 } }
models:
  Qwen-30B-with-a-name-that-is-longer-than-narrow-terminals: { simulate: { ttft: 20ms, itl: 20ms, tokens: 40 } }
";

/// The beginnings of the rows of the view; all other lines that begin so are indented.
const OF_THE_VIEW: [&str; 6] =
    ["throughput  ", "ttft  ", "tpot  ", "errors  ", "thresholds  ", "All trials have ended"];

fn command(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = bench.binary(&["run", "--no-calibration", "--output=results.csv"]);
    command.args(arguments);
    command
}

fn start(bench: &Bench, columns: u16) -> PseudoTerminal {
    PseudoTerminal::start(&command(bench, &[]), columns, 30)
}

/// The run is over, its lines are complete, and nothing of the view is left.
fn is_clean(left: &Left, code: i32) {
    let all = left.lines.join("\n");
    assert_eq!(left.status.code(), Some(code), "{all}");
    let is_of_view = |line: &&String| OF_THE_VIEW.iter().any(|of| line.starts_with(of));
    let rest: Vec<_> = left.lines.iter().filter(is_of_view).collect();
    assert!(rest.is_empty(), "{rest:#?} is left in\n{all}");
    assert!(all.contains("Results: "), "{all}");
    assert_eq!(left.column, 0, "the cursor is not at the start of a line\n{all}");
    no_mode_has_changed(&left.bytes);
}

/// The program wrote no escape but colours, movements up and removals below the cursor.
fn no_mode_has_changed(bytes: &str) {
    for (at, _) in bytes.match_indices('\u{1b}') {
        let escape = &bytes[at + 1..];
        let end = escape.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        let is_known = escape.starts_with('[')
            && escape[1..end].bytes().all(|byte| byte.is_ascii_digit() || byte == b';')
            && matches!(escape.as_bytes()[end], b'm' | b'A' | b'J');
        assert!(is_known, "{:?}", &escape[..=end]);
    }
}

/// The lines that a run prints when nobody watches, for comparison: the beginnings that do not depend
/// on times.
fn printed(lines: &[String]) -> Vec<&str> {
    const LINES: [&str; 7] = [
        "Testing",
        "  Warmup...",
        "  Prompt 1/1",
        "  Workload 1/1",
        "    Run ",
        "      Success: ",
        "test result: ok",
    ];
    let known = |line: &String| LINES.into_iter().find(|known| line.starts_with(known));
    lines.iter().filter_map(known).collect()
}

#[test]
fn the_view_is_below_the_lines_and_gone_after_the_run() {
    let bench = Bench::new(CONFIG);
    let plain = crate::bench::ran(&mut command(&bench, &[]));
    let plain: Vec<_> =
        plain.stdout.lines().chain(plain.stderr.lines()).map(str::to_owned).collect();
    for columns in [60, 80, 120] {
        let terminal = start(&bench, columns);
        let begun = Instant::now();
        terminal.wait_for("1 stream open");
        terminal.wait_for("4 streams open");
        let screen = terminal.screen();
        let rows: Vec<_> = screen.lines().collect();
        let view = &rows[rows.len() - 6..];
        assert!(view[0].starts_with("Qwen-30B-"), "{screen}");
        assert!(view[0].contains("chat  run 1/1"), "{screen}");
        assert!(view[5].starts_with("thresholds  1 hold so far"), "{screen}");
        let left = terminal.end();
        let seconds = begun.elapsed().as_secs() as usize + 1;
        is_clean(&left, 0);
        // Order apart, since the two streams have one order on a terminal only.
        let (mut shown, mut expected) = (printed(&left.lines), printed(&plain));
        shown.sort_unstable();
        expected.sort_unstable();
        assert_eq!(shown, expected, "{columns}");
        let drawings = left.bytes.matches("throughput").count();
        assert!((1..=4 * seconds).contains(&drawings), "{drawings} in {seconds} s");
    }
}

#[test]
fn a_terminal_may_change_its_size() {
    let bench = Bench::new(CONFIG);
    let terminal = start(&bench, 120);
    terminal.wait_for("1 stream open");
    terminal.resize(60, 30);
    terminal.wait_for("4 streams open");
    terminal.resize(100, 4);
    terminal.wait_for("/12 requests");
    terminal.resize(80, 24);
    let left = terminal.end();
    assert_eq!(left.status.code(), Some(0));
    let all = left.lines.join("\n");
    assert!(all.contains("Results: "), "{all}");
    let view = all.matches("hold so far").count();
    assert_eq!(view, 0, "{all}");
    no_mode_has_changed(&left.bytes);
}

#[test]
fn control_c_leaves_a_clean_terminal() {
    let bench = Bench::new(&CONFIG.replace("tokens: 40", "tokens: 4000"));
    let mut terminal = start(&bench, 80);
    terminal.wait_for("1 stream open");
    terminal.type_text("\u{3}");
    is_clean(&terminal.end(), 130);
}

#[test]
fn a_killed_process_leaves_a_terminal_that_works() {
    let bench = Bench::new(&CONFIG.replace("tokens: 40", "tokens: 4000"));
    let terminal = start(&bench, 80);
    terminal.wait_for("1 stream open");
    terminal.signal("KILL");
    let left = terminal.end();
    assert_eq!(left.status.code(), None);
    assert_eq!(left.column, 0);
    no_mode_has_changed(&left.bytes);
}

#[test]
fn an_endpoint_that_is_killed_is_an_error_of_the_view() {
    let mut served = Served::start(&["--itl", "20ms", "--tokens", "2000"]);
    let bench = Bench::new(&format!(
        "runs: 3\nprompts: [{{ name: hello, text: Hi. }}]\nmodels:\n  m: {{ base_url: \"{}\" }}\n",
        served.base_url
    ));
    let terminal = start(&bench, 80);
    terminal.wait_for("1 stream open");
    served.kill();
    let left = terminal.end();
    is_clean(&left, 101);
}

#[test]
fn colours_can_be_turned_off() {
    let bench = Bench::new(CONFIG);
    for (variable, is_colored) in [(None, true), (Some(("NO_COLOR", "1")), false)] {
        let mut command = command(&bench, &["hello"]);
        command.envs(variable);
        let terminal = PseudoTerminal::start(&command, 80, 30);
        terminal.wait_for("1 stream open");
        let left = terminal.end();
        is_clean(&left, 0);
        assert_eq!(left.bytes.contains("\u{1b}[36m"), is_colored, "{variable:?}");
    }
}

#[test]
fn there_are_only_lines_where_no_person_watches() {
    let bench = Bench::new(CONFIG);
    let variables = [("TERM", "dumb"), ("CI", "true"), ("LLM_STREAM_BENCH_NO_PROGRESS", "1")];
    for (name, value) in variables {
        let mut command = command(&bench, &["hello", "--color=never"]);
        command.env(name, value);
        let left = PseudoTerminal::start(&command, 80, 30).end();
        is_clean(&left, 0);
        assert!(!left.bytes.contains('\u{1b}'), "{name}: {}", left.bytes);
    }
    let left = PseudoTerminal::start(&command(&bench, &["hello", "--no-progress"]), 80, 30).end();
    assert!(!left.bytes.contains("\u{1b}[J"), "{}", left.bytes);
    let piped = wait::output(&mut command(&bench, &["hello"]));
    assert!(!piped.stderr.contains(&0x1b) && !piped.stdout.contains(&0x1b));
}

/// Models with long names, failures, thresholds of every kind, and a workload with `goodput`.
const WIDE: &str = "\
runs: 3
prompts: [{ name: hello, text: \"Say hello.\" }]
thresholds: [\"ttft <= 1 s\", \"ttft p95 <= 500 ms\", \"generation_speed >= 1000\", \"success_rate >= 50 %\"]
workloads:
  a-workload-of-chats-with-a-long-name:
    concurrency: 4
    requests: 12
    runs: 3
    goodput: [\"ttft <= 100 ms\", \"tpot <= 50 ms\"]
    thresholds: [\"output_throughput >= 100000\", \"goodput >= 1\", \"success_rate >= 50 %\"]
models:
  Qwen3-235B-A22B-Instruct-2507-FP8-on-eight-GPUs: { simulate: { ttft: 20ms, itl: 20ms, tokens: 8 } }
  meta-llama/Llama-3.3-70B-Instruct-with-speculative-decoding: { simulate: { ttft: 25ms, itl: 25ms, tokens: 8, faults: [{ status: 500, request: 4 }] } }
";

#[test]
fn nothing_that_a_run_prints_is_wider_than_the_terminal() {
    let bench = Bench::new(WIDE);
    for columns in [80, 120] {
        for more in [&["--verbose"][..], &[], &["Qwen"]] {
            let command = command(&bench, &[&["--no-progress"], more].concat());
            let left = PseudoTerminal::start(&command, columns, 30).end();
            assert!(left.bytes.contains("Ranking") && left.bytes.contains("Thresholds"));
            assert!(left.bytes.contains("goodput"), "{}", left.bytes);
            for line in left.bytes.lines().map(|line| line.trim_end_matches('\r')) {
                let is_of_libtest = ["test ", "---- "].iter().any(|of| line.starts_with(of));
                // A word has no place where it can be broken.
                let is_one_word = !line.trim().contains(' ');
                let is_narrow = line.width() <= usize::from(columns);
                assert!(is_narrow || is_of_libtest || is_one_word, "{columns}: {line}");
            }
        }
    }
}

#[test]
fn show_has_the_tables_of_the_run() {
    let bench = Bench::new(WIDE);
    let mut command = bench.binary(&["run", "--no-calibration", "--output-dir=out"]);
    command.arg("--runs=1");
    let ran = crate::bench::ran(&mut command);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    for columns in [80, 120] {
        let left = PseudoTerminal::start(&bench.binary(&["show", "out"]), columns, 60).end();
        assert_eq!(left.status.code(), Some(0), "{}", left.bytes);
        // The name is in the first column, which is wrapped between its words.
        let wide = left.lines.iter().any(|line| line.contains("Qwen3-235B-A22B-Instruct"));
        assert!(wide, "{}", left.lines.join("\n"));
        for head in ["generation_speed", "output_throughput", "goodput", "ttft"] {
            assert!(left.bytes.contains(head), "{head}: {}", left.bytes);
        }
        assert_eq!(left.bytes.contains("preprocess_speed"), columns == 120);
    }
}
