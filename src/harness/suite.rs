//! `llm-stream-bench calibrate --full`: the instrument next to the reference reader, as tables.

use std::env;

use anyhow::Context as _;

use super::terminal;
use crate::calibrate::{
    suite::{Figure, Full},
    worker::{StreamReader, Trial},
};

pub(super) fn run() -> anyhow::Result<u8> {
    let program = env::current_exe().context("cannot find the path of this executable")?;
    let full =
        Full::measure(&program, &Trial::all(), Trial::RUNS, &mut |what| terminal::note(what))?;
    errors(&full);
    costs(&full);
    limits(&full);
    endpoint(&full);
    terminal::say(&format!(
        "\nMedians of {} runs; × is the ratio to the reference reader.",
        Trial::RUNS
    ));
    terminal::say(&match full.cores {
        Some((server, reader)) => {
            format!("Endpoint on core {server}, readers on core {reader}, each in its own process.")
        }
        None => {
            "Not pinned: this process may use one core only, or the system does not let it pin \
                 itself."
                .to_owned()
        }
    });
    terminal::say(&format!("Machine: {}", full.machine));
    Ok(0)
}

/// The rows of the tables of readers.
fn rows(full: &Full) -> impl Iterator<Item = (usize, StreamReader)> {
    full.streams().into_iter().flat_map(|streams| StreamReader::ALL.map(|reader| (streams, reader)))
}

/// Formats a figure in `unit`s, with its ratio to the reference reader.
fn cell(
    full: &Full,
    (streams, reader): (usize, StreamReader),
    figure: Figure,
    unit: f64,
) -> String {
    let of = |reader| full.of(streams, reader, figure);
    let Some(value) = of(reader) else { return "absent".into() };
    let ratio = match of(StreamReader::Reference).filter(|_| reader != StreamReader::Reference) {
        Some(reference) if reference > 0.0 => format!("{:.1}×", value / reference),
        _ => String::new(),
    };
    let digits = if value / unit < 10.0 { 1 } else { 0 };
    format!("{:.digits$} {ratio:>6}", value / unit)
}

fn errors(full: &Full) {
    const MICROSECOND: f64 = 1e-6;
    terminal::say("Errors, µs: arrival minus the time before the endpoint's write call\n");
    line(["streams", "reader", "clock", "ttft p50", "ttft p99", "gap p99"]);
    for row @ (streams, reader) in rows(full) {
        let micros = |figure| cell(full, row, figure, MICROSECOND);
        line([
            &streams.to_string(),
            reader.name(),
            full.clocks.get(&reader).copied().unwrap_or_default(),
            &micros(Figure::TtftMedian),
            &micros(Figure::TtftP99),
            &micros(Figure::GapP99),
        ]);
    }
}

fn costs(full: &Full) {
    terminal::say("\nCosts: CPU seconds per million tokens, decoding included; peak memory, MB\n");
    line(["streams", "reader", "", "CPU", "memory", ""]);
    for row @ (streams, reader) in rows(full) {
        let cpu = cell(full, row, Figure::Cpu, 1.0);
        let memory = cell(full, row, Figure::Memory, 1e6);
        line([&streams.to_string(), reader.name(), "", &cpu, &memory, ""]);
    }
}

fn limits(full: &Full) {
    terminal::say(
        "\nLimits: thousand tokens per second of one core without delays, decoding included;",
    );
    terminal::say("time from the start of the process to the first request at the endpoint, ms\n");
    line(["", "reader", "", "ceiling", "start", ""]);
    for reader in StreamReader::ALL {
        let of = |reader| full.ceiling(reader).map(|tokens| tokens / 1e3);
        let ceiling = match (of(reader), of(StreamReader::Reference)) {
            (Some(own), Some(reference)) if reader != StreamReader::Reference => {
                format!("{own:.0} {:>6}", format!("{:.2}×", own / reference))
            }
            (Some(own), _) => format!("{own:.0} {:>6}", ""),
            (None, _) => "absent".into(),
        };
        let start = cell(full, (1, reader), Figure::FirstRequest, 1e-3);
        line(["", reader.name(), "", &ceiling, &start, ""]);
    }
}

fn endpoint(full: &Full) {
    terminal::say(
        "\nThe simulated endpoint, read by `stamped`, µs: delay of its writes, and duration of its",
    );
    terminal::say(
        "write calls, which include delivery by the loopback device; its share of a core\n",
    );
    line(["streams", "", "late p50", "late p99", "write p50", "write p99   core"]);
    for streams in full.streams() {
        let micros = |figure| {
            let value = full.of(streams, StreamReader::Stamped, figure);
            value.map_or_else(|| "absent".into(), |seconds| format!("{:.1}", seconds * 1e6))
        };
        let core = full.of(streams, StreamReader::Stamped, Figure::ServerCpu);
        let core = core.map_or_else(|| "absent".into(), |part| format!("{:.0} %", part * 100.0));
        line([
            &streams.to_string(),
            "",
            &micros(Figure::LateMedian),
            &micros(Figure::LateP99),
            &micros(Figure::WriteMedian),
            &format!("{} {core:>6}", micros(Figure::WriteP99)),
        ]);
    }
}

fn line([a, b, c, d, e, f]: [&str; 6]) {
    let line = format!("{a:>7}  {b:<9}  {c:>9}  {d:>15}  {e:>15}  {f:>16}");
    terminal::say(line.trim_end());
}
