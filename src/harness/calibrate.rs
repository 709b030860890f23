//! `llm-stream-bench calibrate`: the instrument's errors on this machine, as a table.

use llm_stream_client::connect_options::Stamps;

use super::{suite, terminal};
use crate::{
    calibrate::{self, Calibration, Carrier, Load},
    cli::CalibrateOptions,
    machine_load::LoadMeter,
    plan::Transport,
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
    let meter = LoadMeter::start();
    for &streams in &options.streams {
        let calibration =
            calibrate::measure(Load::of(streams), (Transport::Stamped, Stamps::Auto), carrier)?;
        terminal::say(&format_row(&calibration));
    }
    if let Some(warning) = meter.stop().warning() {
        terminal::note(&warning);
    }
    Ok(0)
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
