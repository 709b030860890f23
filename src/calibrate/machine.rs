//! Facts about this process and this machine, as far as the system reports them.

use std::{fs, thread, time::Instant};

/// Memory of this process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// The resident set.
    pub(super) resident: u64,
    /// The peak of the resident set.
    pub(super) peak: u64,
}

/// Memory of this process; Linux only.
pub(super) fn memory() -> Option<Memory> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bytes =
        |name| Some(value(&status, name)?.strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10);
    Some(Memory { resident: bytes("VmRSS")?, peak: bytes("VmHWM")? })
}

/// Describes the machine in a line: processor, cores that this process may use, system.
pub(super) fn description() -> String {
    let model = processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let kernel = kernel().unwrap_or_default();
    format!("{model}, {cores} cores, {} {kernel}", std::env::consts::OS)
}

/// The processor's name; Linux only.
pub(crate) fn processor() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    value(&cpuinfo, "model name").map(str::to_owned)
}

/// The kernel's release; Linux only.
pub(crate) fn kernel() -> Option<String> {
    first_line("/proc/sys/kernel/osrelease")
}

/// The machine's name; Linux only.
pub(crate) fn host_name() -> Option<String> {
    first_line("/proc/sys/kernel/hostname")
}

/// The memory of the machine in bytes; Linux only.
pub(crate) fn total_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = value(&meminfo, "MemTotal")?.strip_suffix("kB")?.trim();
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|line| !line.is_empty())
}

/// Returns the value after `name:` in a file of such lines.
fn value<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    file.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// A clock that processes share: nanoseconds since a moment that is the same for all of them. An
/// [`Instant`] cannot be sent to another process.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedClock {
    at: Instant,
    nanoseconds: u64,
}

impl SharedClock {
    /// Relates the two clocks by the fastest of some pairs of readings: the faster the pair, the
    /// smaller its error.
    #[expect(clippy::disallowed_methods, reason = "stamps of two processes are to be compared")]
    pub(super) fn new() -> Self {
        let pair = || {
            let before = Instant::now();
            let nanoseconds = shared_nanoseconds();
            let took = before.elapsed();
            (took, Self { at: before + took / 2, nanoseconds })
        };
        let pairs = (0..32).map(|_| pair());
        pairs.min_by_key(|(took, _)| *took).map_or_else(|| pair().1, |(_, clock)| clock)
    }

    /// Converts `moment` to this clock.
    pub(super) fn of(self, moment: Instant) -> u64 {
        let nanoseconds = |duration: std::time::Duration| duration.as_nanos() as u64;
        match moment.checked_duration_since(self.at) {
            Some(after) => self.nanoseconds + nanoseconds(after),
            None => self.nanoseconds.saturating_sub(nanoseconds(self.at - moment)),
        }
    }
}

pub(crate) use system::cpu_time;
pub(super) use system::{pin, shared_nanoseconds};

#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use nix::{
        sched::{CpuSet, sched_getaffinity, sched_setaffinity},
        time::{ClockId, clock_gettime},
        unistd::Pid,
    };

    fn read(clock: ClockId) -> Option<Duration> {
        clock_gettime(clock).ok().map(Duration::from)
    }

    pub(in super::super) fn shared_nanoseconds() -> u64 {
        read(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.as_nanos() as u64)
    }

    /// CPU time of this process on all cores so far.
    pub(crate) fn cpu_time() -> Option<Duration> {
        read(ClockId::CLOCK_PROCESS_CPUTIME_ID)
    }

    /// Pins this process, and all threads that it starts, to the `nth` core that it may use.
    /// Returns the core; `None` if the process has fewer cores or the system forbids it.
    pub(in super::super) fn pin(nth: usize) -> Option<usize> {
        let this = Pid::from_raw(0);
        let allowed = sched_getaffinity(this).ok()?;
        let core =
            (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).nth(nth)?;
        let mut only = CpuSet::new();
        only.set(core).ok()?;
        sched_setaffinity(this, &only).ok()?;
        Some(core)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::{Duration, SystemTime};

    #[expect(clippy::disallowed_methods, reason = "the one clock that processes share here")]
    pub(in super::super) fn shared_nanoseconds() -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as u64)
    }

    pub(crate) fn cpu_time() -> Option<Duration> {
        None
    }

    pub(in super::super) fn pin(_: usize) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_moment_is_later_on_the_shared_clock_by_as_much() {
        let clock = SharedClock::new();
        let second = std::time::Duration::from_secs(1);
        assert_eq!(clock.of(clock.at + second) - clock.of(clock.at), 1_000_000_000);
        assert_eq!(clock.of(clock.at) - clock.of(clock.at - second), 1_000_000_000);
        assert!(clock.of(clock.at) <= shared_nanoseconds());
    }

    #[test]
    fn values_are_found_by_their_names() {
        let file = "Name:\tx\nVmHWM:\t    1234 kB\nmodel name\t: EPYC 9:1\n";
        assert_eq!(value(file, "VmHWM"), Some("1234 kB"));
        assert_eq!(value(file, "model name"), Some("EPYC 9:1"));
        assert_eq!(value(file, "VmRSS"), None);
    }
}
