//! `llm-stream-bench calibrate`: the instrument's errors on this machine, as a table.

use std::sync::Arc;

use anyhow::Context as _;
use llm_stream_client::{AnswerObserver, connect_options::Stamps};
use llm_stream_core::recording::Chunk;

use super::{
    live::{self, LiveScreen, LiveView},
    suite, terminal,
};
use crate::{
    calibrate::{self, Calibration, Carrier, Load, machine},
    cli::CalibrateOptions,
    machine_load::LoadMeter,
    plan::Transport,
    run::Observer as _,
};

pub(super) fn run(options: &CalibrateOptions) -> anyhow::Result<u8> {
    if options.full {
        return suite::run();
    }
    let head = ["streams", "clock", "ttft error", "", "gap error", "", "generation error", ""];
    terminal::say(&row(head));
    terminal::say(&row(["", "", "median", "p99", "median", "p99", "median", "p99"]));
    let carrier = match (options.tls, options.unix) {
        (true, _) => Carrier::Tls,
        (_, true) => Carrier::Unix,
        _ => Carrier::Tcp,
    };
    let screen = Arc::default();
    let view = options.live_view.then(|| start_view(&screen)).transpose()?;
    let view = view.map(Reads);
    let observer: &dyn AnswerObserver = match &view {
        Some(reads) => reads,
        None => &(),
    };
    let meter = LoadMeter::start();
    let cpu = machine::cpu_time();
    for &streams in &options.streams {
        let connection = (Transport::Stamped, Stamps::Auto);
        let calibration =
            calibrate::measure_with(Load::of(streams), connection, carrier, observer)?;
        screen.say(&format_row(&calibration));
    }
    screen.finish();
    if let Some((before, after)) = cpu.zip(machine::cpu_time()) {
        let seconds = (after - before).as_secs_f64();
        terminal::say(&format!("CPU time, the simulated endpoint included: {seconds:.2} s"));
    }
    if let Some(warning) = meter.stop().warning() {
        terminal::note(&warning);
    }
    Ok(0)
}

/// Starts the live view without a run.
fn start_view(screen: &Arc<LiveScreen>) -> anyhow::Result<LiveView> {
    anyhow::ensure!(
        live::is_possible(),
        "`--live-view` requires a terminal as stderr, TERM other than `dumb`, and no variable CI"
    );
    LiveView::start("Calibration", &[], screen).context("failed to start a thread")
}

/// Feeds the reads to the live view, as a run does.
struct Reads(LiveView);

impl AnswerObserver for Reads {
    fn arrived(&self, chunk: &Chunk) {
        self.0.bytes_arrived(chunk);
    }
}

fn format_row(calibration: &Calibration) -> String {
    let Calibration { streams, stamped_by, ttft, gap, generation, .. } = calibration;
    // Adding zero turns -0 into 0.
    let micros = |seconds: f64| format!("{:.0} µs", (seconds * 1e6).round() + 0.0);
    let percent = |part: f64| format!("{:.3} %", (part * 1e5).round() / 1e3 + 0.0);
    row([
        &streams.to_string(),
        stamped_by.name(),
        &micros(ttft.median),
        &micros(ttft.p99),
        &micros(gap.median),
        &micros(gap.p99),
        &percent(generation.median),
        &percent(generation.p99),
    ])
}

fn row(cells: [&str; 8]) -> String {
    let [streams, clock, a, b, c, d, e, f] = cells;
    format!("{streams:>7}  {clock:<7}  {a:>10} {b:>9}  {c:>9} {d:>9}  {e:>16} {f:>9}")
        .trim_end()
        .to_owned()
}
