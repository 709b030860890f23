//! How busy the machine is with other work while this program measures. Linux only: other systems have
//! no figures.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::calibrate::machine;

/// From these shares on, figures of the run may be those of the machine's other work.
const OTHERS: f64 = 0.25;
const STOLEN: f64 = 0.02;
const THROTTLED: f64 = 0.01;
const WAITING: f64 = 0.25;

/// How busy the machine was with other work, as shares of the time. Unknown values are null.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MachineLoad {
    /// The share of all cores' time that other processes used.
    pub others: Option<f64>,
    /// The share of all cores' time that the hypervisor gave to other machines.
    pub stolen: Option<f64>,
    /// The share of the time in which this process had reached its limit of processor time.
    pub throttled: Option<f64>,
    /// The share of the time in which a task of the machine waited for a core.
    pub waiting: Option<f64>,
}

/// Measures the load between two moments.
#[derive(Debug)]
pub(crate) struct LoadMeter {
    since: Instant,
    before: Counters,
}

/// Counters of the system since its start.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    cores: Option<CoreTimes>,
    /// Processor time of this process.
    own: Option<Duration>,
    throttled: Option<Duration>,
    waiting: Option<Duration>,
}

/// Times of all cores together, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CoreTimes {
    busy: u64,
    stolen: u64,
    all: u64,
}

impl LoadMeter {
    /// Begins to measure.
    pub(crate) fn start() -> Self {
        Self { since: now(), before: Counters::read() }
    }

    /// Returns the load since the start.
    pub(crate) fn stop(&self) -> MachineLoad {
        MachineLoad::between(self.before, Counters::read(), self.since.elapsed())
    }
}

#[expect(clippy::disallowed_methods, reason = "the length of a run, of which shares are taken")]
fn now() -> Instant {
    Instant::now()
}

impl Counters {
    fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        Self {
            cores: read("/proc/stat").as_deref().and_then(CoreTimes::parse),
            own: machine::cpu_time(),
            throttled: read("/sys/fs/cgroup/cpu.stat").as_deref().and_then(throttled),
            waiting: read("/proc/pressure/cpu").as_deref().and_then(waiting),
        }
    }
}

impl CoreTimes {
    /// Parses the first line of `/proc/stat`: `cpu user nice system idle iowait irq softirq steal …`.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> =
            line.split_whitespace().map(|ticks| ticks.parse().ok()).collect::<Option<_>>()?;
        let [user, nice, system, idle, iowait, irq, softirq, stolen, ..] = ticks[..] else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, stolen, all: busy + stolen + idle + iowait })
    }
}

/// Parses `throttled_usec` of a control group's `cpu.stat`.
fn throttled(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("throttled_usec "))?;
    Some(Duration::from_micros(line.trim().parse().ok()?))
}

/// Parses the total of the line `some` of `/proc/pressure/cpu`, in microseconds.
fn waiting(pressure: &str) -> Option<Duration> {
    let line = pressure.lines().find(|line| line.starts_with("some "))?;
    let total = line.split_whitespace().find_map(|field| field.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

impl MachineLoad {
    fn between(before: Counters, after: Counters, took: Duration) -> Self {
        let of_time = |before: Option<Duration>, after: Option<Duration>| {
            let time = after?.checked_sub(before?)?;
            Some((time.as_secs_f64() / took.as_secs_f64()).min(1.0)).filter(|_| !took.is_zero())
        };
        let cores = before.cores.zip(after.cores);
        let ticks = cores.map(|(before, after)| {
            [(before.busy, after.busy), (before.stolen, after.stolen), (before.all, after.all)]
                .map(|(before, after)| after.saturating_sub(before) as f64)
        });
        let ticks = ticks.filter(|[_, _, all]| *all > 0.0);
        let own = before.own.zip(after.own).and_then(|(before, after)| after.checked_sub(before));
        let all_cores = ticks.map(|[_, _, all]| all / TICKS_PER_SECOND);
        let others = ticks.zip(own).zip(all_cores).map(|(([busy, ..], own), all)| {
            ((busy / TICKS_PER_SECOND - own.as_secs_f64()) / all).clamp(0.0, 1.0)
        });
        Self {
            others,
            stolen: ticks.map(|[_, stolen, all]| stolen / all),
            throttled: of_time(before.throttled, after.throttled),
            waiting: of_time(before.waiting, after.waiting),
        }
    }

    /// Returns why the machine was too busy for figures to be trusted; empty if it was not.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let told = [
            (self.others, OTHERS, "other processes used {} of its cores"),
            (self.stolen, STOLEN, "the hypervisor gave {} of their time to other machines"),
            (self.throttled, THROTTLED, "this process was throttled for {} of the time"),
            (self.waiting, WAITING, "tasks waited for a core for {} of the time"),
        ];
        let told = told.into_iter().filter_map(|(share, limit, words)| {
            let share = share.filter(|share| *share >= limit)?;
            Some(words.replace("{}", &format!("{:.0} %", share * 100.0)))
        });
        told.collect()
    }

    /// Returns a warning with the figures if the machine was too busy.
    pub(crate) fn warning(&self) -> Option<String> {
        let reasons = self.reasons();
        (!reasons.is_empty())
            .then(|| format!("WARNING: the machine was busy: {}", reasons.join("; ")))
    }
}

/// The unit of `/proc/stat`, which Linux fixes for programs.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 20 30 800 50 4 6 90 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";

    #[test]
    fn counters_are_parsed() {
        let times = CoreTimes { busy: 160, stolen: 90, all: 1100 };
        assert_eq!(CoreTimes::parse(STAT), Some(times));
        assert_eq!(CoreTimes::parse("cpu  1 2 3\n"), None);
        assert_eq!(CoreTimes::parse("intr 1\n"), None);
        let stat = "usage_usec 5\nnr_throttled 2\nthrottled_usec 1500\n";
        assert_eq!(throttled(stat), Some(Duration::from_micros(1500)));
        let pressure = "some avg10=1.00 avg60=0.12 avg300=0.02 total=7000\nfull avg10=0 total=1\n";
        assert_eq!(waiting(pressure), Some(Duration::from_millis(7)));
        assert_eq!(waiting("full avg10=0 total=1\n"), None);
    }

    #[test]
    fn shares_are_those_of_the_time_between() {
        let counters = |busy, stolen, own, throttled, waiting| Counters {
            cores: Some(CoreTimes { busy, stolen, all: 1000 + busy }),
            own: Some(Duration::from_millis(own)),
            throttled: Some(Duration::from_millis(throttled)),
            waiting: Some(Duration::from_millis(waiting)),
        };
        // Two busy cores for ten seconds: 2,000 ticks, of which 300 are of this process.
        let (before, after) = (counters(0, 0, 500, 0, 0), counters(2000, 40, 3500, 200, 1000));
        let load = MachineLoad::between(before, after, Duration::from_secs(10));
        assert_eq!(load.others, Some(17.0 / 20.0));
        assert_eq!((load.stolen, load.throttled), (Some(0.02), Some(0.02)));
        assert_eq!(load.waiting, Some(0.1));
        let told = load.warning().unwrap();
        assert_eq!(
            told,
            "WARNING: the machine was busy: other processes used 85 % of its cores; the hypervisor \
             gave 2 % of their time to other machines; this process was throttled for 2 % of the time"
        );
        assert_eq!(
            MachineLoad::between(Counters::default(), after, Duration::ZERO).warning(),
            None
        );
        assert_eq!(MachineLoad::default().warning(), None);
    }
}
