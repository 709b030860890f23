//! `llm-stream-bench calibrate`: the instrument's errors on this machine, as a table.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context as _;
use llm_stream_client::{self as client, connect_options::Stamps};
use llm_stream_core::{
    recording::StampedBy,
    summary::{Group, Summary},
};
use serde::Serialize;

use super::{
    suite,
    terminal::{self, Terminal},
};
use crate::{
    calibrate::{self, Calibration, Carrier, Load},
    cli::CalibrateOptions,
    plan::{Endpoint, Target, Transport},
};

/// The error of each transport in use, by the number of concurrent streams, where it was measured.
#[derive(Debug, Default)]
pub(super) struct Instruments {
    /// The models of the run.
    targets: Vec<Arc<Target>>,
    /// The measured settings.
    pub(super) known: Vec<(Setting, Calibration)>,
}

/// What the instrument's error depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) transport: Transport,
    stamps: Stamps,
    /// What the streams come by.
    carrier: Carrier,
    /// How many at a time.
    streams: usize,
}

/// Most streams at which the instrument is measured, so that it takes a second or two. A load of more
/// is judged by these, which is printed.
const MOST_STREAMS: usize = 4096;

/// After the trials, before they are judged: how exact is each transport under the loads that it
/// was used for? Less than half a second each. The answer is printed and kept beside the results.
///
/// When it cannot be had that is said, and the figures are judged as if they were exact: it is no
/// reason to lose them.
pub(super) fn before_judging(
    summary: &Summary,
    targets: &[Arc<Target>],
    terminal: &Terminal,
    results: &Path,
) -> Instruments {
    let mut instruments = Instruments { targets: targets.to_vec(), known: Vec::new() };
    let calibrations = match calibrations(summary, targets) {
        Ok(calibrations) => calibrations,
        Err(error) => {
            terminal.err(&format!("WARNING: the instrument was not measured: {error:#}\n\n"));
            return instruments;
        }
    };
    calibrations.iter().for_each(|(setting, known)| terminal.err(&line(setting, known)));
    terminal.err("\n");
    // Next to a device or a pipe there is no place for it.
    if results.is_file()
        && let Err(error) = keep(&calibrations, &results.with_extension("instrument.json"))
    {
        terminal.err(&format!("WARNING: the instrument's error is not kept: {error:#}\n\n"));
    }
    instruments.known = calibrations;
    instruments
}

fn has_unseen_packets(target: &Target) -> bool {
    matches!(&target.endpoint, Endpoint::Url(url) if client::has_unseen_packets(url))
}

/// Says which models were to have the stamps of packets and did not get them.
pub(super) fn warn_of_unseen_packets(targets: &[Arc<Target>], terminal: &Terminal) {
    for target in targets {
        if target.stamps == Stamps::Packets && has_unseen_packets(target) {
            terminal.err(&format!(
                "WARNING: {}: `stamps: packets` saw no packets of the server, or not those of its \
                 reads (are addresses translated on the way?): arrivals have one stamp a read\n\n",
                target.name
            ));
        }
    }
}

/// By which calibration a group is judged.
fn setting(group: &Group, targets: &[Arc<Target>]) -> Option<Setting> {
    let streams = group.loads.iter().map(|reached| reached.peak).max().unwrap_or(1);
    let target = targets.iter().find(|target| target.index == group.spec.id.model)?;
    let carrier = match target {
        target if target.is_by_socket() => Carrier::Unix,
        target if target.is_over_tls() => Carrier::Tls,
        _ => Carrier::Tcp,
    };
    let Target { transport, stamps, .. } = **target;
    // On the loopback packets can be seen that are not seen on the way to the server.
    let stamps = if has_unseen_packets(target) { Stamps::Socket } else { stamps };
    Some(Setting { transport, stamps, carrier, streams })
}

/// The calibration by which `group` is judged: that of its number of streams. Further runs of an open
/// loop may reach another number: then that of the next higher one, else of the highest.
pub(super) fn calibration_of<'a>(
    group: &Group,
    instruments: &'a Instruments,
) -> Option<&'a Calibration> {
    let Setting { transport, stamps, carrier, streams } = setting(group, &instruments.targets)?;
    let is_alike =
        |of: &Setting| (of.transport, of.stamps, of.carrier) == (transport, stamps, carrier);
    let known = instruments.known.iter().filter(|(of, _)| is_alike(of));
    let higher = known.clone().filter(|(of, _)| of.streams >= streams);
    let nearest = higher.min_by_key(|(of, _)| of.streams);
    nearest.or_else(|| known.max_by_key(|(of, _)| of.streams)).map(|(_, known)| known)
}

fn calibrations(
    summary: &Summary,
    targets: &[Arc<Target>],
) -> anyhow::Result<Vec<(Setting, Calibration)>> {
    let mut calibrations: Vec<(Setting, Calibration)> = Vec::new();
    for setting in summary.groups.iter().filter_map(|group| setting(group, targets)) {
        if !calibrations.iter().any(|(known, _)| *known == setting) {
            let Setting { transport, stamps, carrier, streams } = setting;
            // The simulated endpoint has the other end of each connection.
            let most = client::most_connections(2).min(MOST_STREAMS);
            let load = Load::short(streams.min(most));
            let known = calibrate::measure(load, (transport, stamps), carrier)?;
            calibrations.push((setting, known));
        }
    }
    Ok(calibrations)
}

fn keep(calibrations: &[(Setting, Calibration)], path: &Path) -> anyhow::Result<()> {
    let kept: Vec<_> = calibrations
        .iter()
        .map(|(setting, calibration)| Kept { transport: setting.transport.name(), calibration })
        .collect();
    fs::write(path, serde_json::to_vec_pretty(&kept)?)
        .with_context(|| format!("failed to write {}", path.display()))
}

/// A calibration as it is kept; times in seconds.
#[derive(Serialize)]
struct Kept<'a> {
    transport: &'static str,
    #[serde(flatten)]
    calibration: &'a Calibration,
}

fn line(setting: &Setting, calibration: &Calibration) -> String {
    let Calibration { streams, tls, unix, stamped_by, packets, ttft, gap, generation } =
        calibration;
    let each = match (stamped_by, packets) {
        (StampedBy::Kernel, true) => ", one a packet",
        (StampedBy::Kernel, false) => ", one a read",
        (StampedBy::Program, _) => "",
    };
    let carrier = match (tls, unix) {
        (true, _) => " over TLS",
        (_, true) => " over a unix socket",
        _ => "",
    };
    let streams = match streams {
        1 => String::new(),
        _ if *streams < setting.streams => {
            format!(", {streams} streams at a time, where the load had {}", setting.streams)
        }
        _ => format!(", {streams} streams at a time"),
    };
    format!(
        "instrument ({}{carrier}{streams}), here and now: stamps by the {}{each}; ttft {:+.3} ms, 99 % within {:.3} ms; \
         gaps within {:.3} ms; generation_speed within {:.2} %\n",
        setting.transport.name(),
        stamped_by.name(),
        ttft.median * 1e3,
        ttft.p99 * 1e3,
        gap.p99 * 1e3,
        generation.p99 * 1e2
    )
}

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
    for &streams in &options.streams {
        let calibration =
            calibrate::measure(Load::of(streams), (Transport::Stamped, Stamps::Auto), carrier)?;
        terminal::say(&told(&calibration));
    }
    Ok(0)
}

fn told(calibration: &Calibration) -> String {
    let Calibration { streams, stamped_by, ttft, gap, generation, .. } = calibration;
    // Adding zero takes the sign off a negative one.
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
