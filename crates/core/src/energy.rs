//! The energy of the GPUs during a load, from the samples of a Prometheus exporter. Pure.
//!
//! DCGM's counter of energy is used if the exporter has it. Otherwise the power is integrated by the
//! trapezoidal rule between samples. An exporter reads the GPUs at its own times, so a value may be
//! up to a sampling interval old. That moves the window by as much, and changes the energy by at most
//! one interval times the range of the power: [`Energy::error`].
//!
//! <https://docs.nvidia.com/datacenter/dcgm/latest/dcgm-api/dcgm-api-field-ids.html>

use std::{collections::BTreeMap, fmt};

use crate::{
    server_metrics::series,
    server_series::{ServerState, TimedSample},
    text::counted,
};

/// The time between two samples in seconds, and the farthest that the window may reach beyond them.
pub const SAMPLING_INTERVAL: f64 = 1.0;

/// The longest accepted time between two different readings, in seconds, and the shortest load that
/// has an energy.
const MAX_GAP: f64 = 3.0;

/// The names of the power of a GPU, in watts.
const WATTS: [&str; 2] = ["DCGM_FI_DEV_POWER_USAGE", "nvidia_smi_power_draw_watts"];

/// The name of DCGM's counter of the energy of a GPU, in millijoules.
const MILLIJOULES: &str = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION";

/// The GPUs of an exporter at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PowerReading {
    /// The power of each GPU, in watts.
    watts: BTreeMap<String, f64>,
    /// The energy counter of each GPU, in joules.
    joules: BTreeMap<String, f64>,
}

impl PowerReading {
    /// Reads the text format. DCGM exports a GPU once for each of its MIG instances and pods; it
    /// counts once.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut reading = Self::default();
        for (name, labels, value) in text.lines().filter_map(series) {
            let (values, value) = match name {
                _ if !value.is_finite() || value < 0.0 => continue,
                MILLIJOULES => (&mut reading.joules, value / 1e3),
                _ if WATTS.contains(&name) => (&mut reading.watts, value),
                _ => continue,
            };
            values.entry(gpu(&labels)).or_insert(value);
        }
        match reading.watts.is_empty() && reading.joules.is_empty() {
            false => Ok(reading),
            true => Err(format!("there is no {MILLIJOULES}, {} or {}", WATTS[0], WATTS[1])),
        }
    }

    /// Returns the power of all GPUs, in watts.
    pub fn watts(&self) -> Option<f64> {
        (!self.watts.is_empty()).then(|| self.watts.values().sum())
    }

    /// Returns the energy counters of all GPUs, in joules.
    pub fn joules(&self) -> Option<f64> {
        (!self.joules.is_empty()).then(|| self.joules.values().sum())
    }

    /// Returns the number of GPUs.
    pub fn gpus(&self) -> usize {
        self.watts.len().max(self.joules.len())
    }
}

/// Returns what identifies the GPU of a line.
fn gpu(labels: &[(&str, String)]) -> String {
    let label = |wanted: &str| labels.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let id = label("uuid").or_else(|| label("gpu"));
    let host = label("hostname").or_else(|| label("instance"));
    let text = |of: Option<&(&str, String)>| of.map(|(_, value)| value.clone()).unwrap_or_default();
    format!("{} {}", text(host), text(id))
}

/// What was scraped while a trial ran, with times relative to its start.
#[derive(Debug, Clone, Default)]
pub struct ServerSamples {
    /// The server's metrics.
    pub metrics: Vec<TimedSample<ServerState>>,
    /// The power of its GPUs.
    pub power: Vec<TimedSample<PowerReading>>,
}

impl ServerSamples {
    /// Returns whether nothing was scraped.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.power.is_empty()
    }

    /// Moves the origin of all times `later` by so many seconds.
    pub fn shift(&mut self, later: f64) {
        self.metrics.iter_mut().for_each(|sample| sample.at -= later);
        self.power.iter_mut().for_each(|sample| sample.at -= later);
    }
}

/// The energy of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Energy {
    /// The energy, in joules.
    pub joules: f64,
    /// The most by which it may be wrong because readings are up to a sampling interval old.
    pub error: f64,
    /// The number of GPUs.
    pub gpus: usize,
    /// Whether it is from the counter of energy, not from the power.
    pub is_counted: bool,
    /// The samples that it was computed from.
    pub samples: usize,
}

/// Why a load has no energy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EnergyGap {
    /// The exporter was never read.
    Unread,
    /// The load was too short.
    Short,
    /// Two samples are too far apart.
    Gap,
    /// The samples do not reach to an end of the load.
    Ends,
    /// The exporter reads the GPUs too rarely.
    Unchanged,
    /// GPUs appeared or disappeared.
    GpusChanged,
    /// The number of GPUs is not that of `gpus`.
    OtherGpus,
    /// The counter of energy shrank.
    Reset,
}

impl EnergyGap {
    /// Returns the name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unread => "power_unread",
            Self::Short => "power_load_too_short",
            Self::Gap => "power_gap",
            Self::Ends => "power_ends_missing",
            Self::Unchanged => "power_unchanged",
            Self::GpusChanged => "power_gpus_changed",
            Self::OtherGpus => "power_of_other_gpus",
            Self::Reset => "power_counter_reset",
        }
    }
}

/// Why a load has no energy, with the details.
#[derive(Debug, Clone, PartialEq)]
pub struct NoEnergy {
    /// The kind of reason.
    pub gap: EnergyGap,
    /// The details.
    pub detail: String,
}

impl NoEnergy {
    /// Returns the reason for a load of an earlier run.
    pub fn of_kept_load() -> Self {
        let detail = "the load is kept from an earlier run, whose samples are not read".to_owned();
        Self { gap: EnergyGap::Unread, detail }
    }
}

impl fmt::Display for NoEnergy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

fn none<T>(gap: EnergyGap, detail: impl Into<String>) -> Result<T, NoEnergy> {
    Err(NoEnergy { gap, detail: detail.into() })
}

impl Energy {
    /// Returns the energy from 0 to `seconds`, to which the times of `samples` are relative. `gpus` is
    /// the number of GPUs that the model uses, if it is known.
    pub fn of(
        samples: &[TimedSample<PowerReading>],
        seconds: f64,
        gpus: Option<u64>,
    ) -> Result<Self, NoEnergy> {
        if seconds < MAX_GAP {
            let why = format!("the load lasted {seconds:.1} s, less than {MAX_GAP} s");
            return none(EnergyGap::Short, why);
        }
        let readings = around(samples, seconds)?;
        let is_counted = readings.iter().all(|(_, reading)| reading.joules().is_some());
        check_gpus(&readings, is_counted, gpus)?;
        let read = |reading: &PowerReading| match is_counted {
            true => reading.joules().unwrap_or_default(),
            false => reading.watts().unwrap_or_default(),
        };
        let curve: Vec<_> = readings.iter().map(|(at, reading)| (*at, read(reading))).collect();
        check_changes(&curve)?;
        let (joules, power) = match is_counted {
            true => counter_growth(&curve, seconds)?,
            false => (integral(&curve, seconds), curve.iter().map(|(_, watts)| *watts).collect()),
        };
        let range = |start: f64, pick: fn(f64, f64) -> f64| power.iter().copied().fold(start, pick);
        let range = range(f64::NEG_INFINITY, f64::max) - range(f64::INFINITY, f64::min);
        Ok(Self {
            joules,
            error: range.max(0.0) * SAMPLING_INTERVAL,
            gpus: readings[0].1.gpus(),
            is_counted,
            samples: readings.len(),
        })
    }
}

/// Returns the readings within the window and the nearest one on each side of it, if they cover it.
fn around(
    samples: &[TimedSample<PowerReading>],
    seconds: f64,
) -> Result<Vec<(f64, &PowerReading)>, NoEnergy> {
    let known: Vec<_> = TimedSample::known(samples).collect();
    if known.is_empty() {
        let why = samples.iter().find_map(|sample| sample.value.as_ref().err().cloned());
        return none(EnergyGap::Unread, why.unwrap_or_else(|| "it was not read".to_owned()));
    }
    let first = known.iter().rposition(|(at, _)| *at <= 0.0).unwrap_or(0);
    let last = known.iter().position(|(at, _)| *at >= seconds).unwrap_or(known.len() - 1);
    let readings = known.get(first..=last).unwrap_or_default().to_vec();
    let (Some(begin), Some(end)) = (readings.first(), readings.last()) else {
        return none(EnergyGap::Ends, "there is no sample of the load");
    };
    if begin.0 > SAMPLING_INTERVAL || end.0 < seconds - SAMPLING_INTERVAL || readings.len() < 2 {
        let why = format!(
            "the samples are from {:.1} s to {:.1} s of a load of {seconds:.1} s",
            begin.0, end.0
        );
        return none(EnergyGap::Ends, why);
    }
    let gap = readings.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(0.0, f64::max);
    if gap > MAX_GAP {
        return none(EnergyGap::Gap, format!("there is no sample for {gap:.1} s"));
    }
    Ok(readings)
}

/// Checks that all readings are of the same GPUs, as many as the model uses.
fn check_gpus(
    readings: &[(f64, &PowerReading)],
    is_counted: bool,
    gpus: Option<u64>,
) -> Result<(), NoEnergy> {
    let of = |reading: &PowerReading| -> Vec<String> {
        let values = if is_counted { &reading.joules } else { &reading.watts };
        values.keys().cloned().collect()
    };
    let first = of(readings[0].1);
    if let Some((_, other)) = readings.iter().find(|(_, reading)| of(reading) != first) {
        let (then, now) = (first.len(), of(other).len());
        let why = format!("the GPUs of the exporter changed: first {then}, then {now}");
        return none(EnergyGap::GpusChanged, why);
    }
    match gpus {
        Some(gpus) if gpus != first.len() as u64 => none(
            EnergyGap::OtherGpus,
            format!("the exporter has {}, and `gpus` is {gpus}", counted(first.len(), "GPU")),
        ),
        _ => Ok(()),
    }
}

/// Checks that the exporter reads the GPUs often enough: readings of working GPUs differ.
fn check_changes(curve: &[(f64, f64)]) -> Result<(), NoEnergy> {
    let mut since = curve[0];
    for (at, value) in curve {
        if *value != since.1 {
            since = (*at, *value);
        }
        if at - since.0 > MAX_GAP {
            let why = format!(
                "the exporter gave the same reading for {:.1} s: let it read the GPUs each second, \
                 as `dcgm-exporter -c 1000` does",
                at - since.0
            );
            return none(EnergyGap::Unchanged, why);
        }
    }
    Ok(())
}

/// Returns the growth of the counter from 0 to `seconds`, and the mean power between samples.
fn counter_growth(curve: &[(f64, f64)], seconds: f64) -> Result<(f64, Vec<f64>), NoEnergy> {
    if !curve.is_sorted_by(|before, after| before.1 <= after.1) {
        return none(EnergyGap::Reset, "the counter of energy shrank");
    }
    let power = curve.windows(2).map(|pair| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0));
    let power: Vec<_> = power.filter(|watts| watts.is_finite()).collect();
    // Beyond the first and last sample the counter goes on as between the two nearest ones.
    let at = |time: f64| {
        let next = curve.iter().position(|(at, _)| *at >= time).unwrap_or(curve.len() - 1).max(1);
        let ((from, low), (to, high)) = (curve[next - 1], curve[next]);
        low + (high - low) * (time - from) / (to - from).max(f64::MIN_POSITIVE)
    };
    Ok((at(seconds) - at(0.0), power))
}

/// Returns the integral of the power from 0 to `seconds` by the trapezoidal rule. Beyond the first
/// and last sample the power stays as it is there.
fn integral(curve: &[(f64, f64)], seconds: f64) -> f64 {
    let at = |time: f64| match curve.iter().position(|(at, _)| *at >= time) {
        None => curve[curve.len() - 1].1,
        Some(0) => curve[0].1,
        Some(next) => {
            let ((from, low), (to, high)) = (curve[next - 1], curve[next]);
            low + (high - low) * (time - from) / (to - from)
        }
    };
    let within = curve.iter().copied().filter(|(time, _)| *time > 0.0 && *time < seconds);
    let ends = [(0.0, at(0.0)), (seconds, at(seconds))];
    let points: Vec<_> = [ends[0]].into_iter().chain(within).chain([ends[1]]).collect();
    points.windows(2).map(|pair| (pair[0].1 + pair[1].1) / 2.0 * (pair[1].0 - pair[0].0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, text: &str) -> TimedSample<PowerReading> {
        TimedSample { at, took: 0.0, value: PowerReading::read(text) }
    }

    fn watts(at: f64, watts: [f64; 2]) -> TimedSample<PowerReading> {
        let line = |gpu, watts| {
            format!("DCGM_FI_DEV_POWER_USAGE{{gpu=\"{gpu}\",UUID=\"GPU-{gpu}\"}} {watts}\n")
        };
        sample(at, &(line(0, watts[0]) + &line(1, watts[1])))
    }

    /// A sample of the counter, in joules.
    fn joules(at: f64, joules: f64) -> TimedSample<PowerReading> {
        let mj = joules * 1e3;
        let name = MILLIJOULES;
        sample(at, &format!("{name}{{gpu=\"0\"}} {mj}\nDCGM_FI_DEV_POWER_USAGE{{gpu=\"0\"}} 9\n"))
    }

    fn joules_of(samples: &[TimedSample<PowerReading>], seconds: f64) -> Result<f64, EnergyGap> {
        Energy::of(samples, seconds, None).map(|of| of.joules).map_err(|none| none.gap)
    }

    #[test]
    fn the_energy_is_the_area_under_the_power_of_all_gpus() {
        // 100 W at 0 s, 200 W at 2 s, 300 W at 4 s, of two GPUs together.
        let samples = [
            watts(-1.0, [25.0, 25.0]),
            watts(1.0, [100.0, 50.0]),
            watts(2.0, [100.0, 100.0]),
            watts(3.0, [150.0, 100.0]),
            watts(5.0, [250.0, 100.0]),
        ];
        let energy = Energy::of(&samples, 4.0, Some(2)).unwrap();
        // 100 to 150, 150 to 200, 200 to 250 and 250 to 300 W, each for a second.
        assert_eq!(energy.joules, 125.0 + 175.0 + 225.0 + 275.0);
        assert_eq!((energy.gpus, energy.samples, energy.is_counted), (2, 5, false));
        assert_eq!(energy.error, 300.0);
        // The window reaches half a second beyond the samples, at the power of the last one.
        assert_eq!(joules_of(&samples[1..4], 3.5), Ok(150.0 + 175.0 + 225.0 + 125.0));
    }

    #[test]
    fn the_counter_is_preferred_and_is_interpolated_at_the_ends() {
        let samples =
            [joules(-1.0, 1000.0), joules(1.0, 1200.0), joules(2.0, 1500.0), joules(5.0, 2100.0)];
        let energy = Energy::of(&samples, 4.0, None).unwrap();
        assert_eq!(energy.joules, 1900.0 - 1100.0);
        assert_eq!((energy.is_counted, energy.error), (true, 200.0));
        // Half a second beyond the last sample, at 200 W.
        assert_eq!(joules_of(&samples, 5.5), Ok(2200.0 - 1100.0));
        let shrunk = [joules(0.0, 10.0), joules(1.0, 20.0), joules(3.0, 5.0)];
        assert_eq!(joules_of(&shrunk, 3.0), Err(EnergyGap::Reset));
    }

    #[test]
    fn samples_that_do_not_cover_the_load_yield_no_energy() {
        let at = |at: f64| watts(at, [50.0 + at, 50.0]);
        let of =
            |times: &[f64]| joules_of(&times.iter().map(|time| at(*time)).collect::<Vec<_>>(), 6.0);
        assert!(of(&[1.0, 2.0, 5.0]).is_ok());
        assert_eq!(of(&[1.1, 2.0, 3.0, 4.0, 5.0, 6.0]), Err(EnergyGap::Ends));
        assert_eq!(of(&[0.0, 2.0, 4.0, 4.9]), Err(EnergyGap::Ends));
        assert_eq!(of(&[0.0, 1.0, 4.1, 6.0]), Err(EnergyGap::Gap));
        assert_eq!(of(&[]), Err(EnergyGap::Unread));
        assert_eq!(joules_of(&[at(0.0), at(1.0)], 2.9), Err(EnergyGap::Short));
        let lost = TimedSample { at: 3.0, took: 2.0, value: Err("timeout".to_owned()) };
        let with_gap = [at(0.0), at(1.0), lost.clone(), at(5.0), at(6.0)];
        assert_eq!(joules_of(&with_gap, 6.0), Err(EnergyGap::Gap));
        let none = Energy::of(&[lost], 6.0, None).unwrap_err();
        assert_eq!((none.gap, none.to_string().as_str()), (EnergyGap::Unread, "timeout"));
    }

    #[test]
    fn other_gpus_and_stale_readings_yield_no_energy() {
        let one =
            |at: f64| sample(at, &format!("nvidia_smi_power_draw_watts{{uuid=\"a\"}} {at}\n"));
        let samples = [one(0.0), one(1.0), one(3.0)];
        assert!(Energy::of(&samples, 3.0, Some(1)).is_ok());
        let other = Energy::of(&samples, 3.0, Some(8)).unwrap_err();
        assert_eq!(other.gap, EnergyGap::OtherGpus);
        assert_eq!(other.to_string(), "the exporter has 1 GPU, and `gpus` is 8");
        let changed = [one(0.0), watts(1.0, [1.0, 2.0]), one(3.0)];
        assert_eq!(joules_of(&changed, 3.0), Err(EnergyGap::GpusChanged));
        let stale: Vec<_> = (0..=6).map(|at| watts(f64::from(at), [70.0, 70.0])).collect();
        assert_eq!(joules_of(&stale, 6.0), Err(EnergyGap::Unchanged));
        assert_eq!(joules_of(&stale[..4], 3.0), Ok(420.0));
    }

    #[test]
    fn a_gpu_counts_once_however_many_instances_it_has() {
        let line = |more: &str, watts: u32| {
            format!("DCGM_FI_DEV_POWER_USAGE{{gpu=\"0\",UUID=\"GPU-a\"{more}}} {watts}\n")
        };
        let text = line(",GPU_I_ID=\"3\"", 100) + &line(",GPU_I_ID=\"5\"", 100) + "up 1\n";
        let reading = PowerReading::read(&text).unwrap();
        assert_eq!((reading.watts(), reading.joules(), reading.gpus()), (Some(100.0), None, 1));
        assert!(PowerReading::read("up 1\n").is_err());
    }
}
