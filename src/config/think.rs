//! `think` of a workload: the time between an answer and the next turn, in milliseconds.

use std::time::Duration;

use llm_stream_core::lengths::LengthRange;

use super::{
    keys::Section,
    lengths::{self, EndReader},
    reader::{Entry, Reader},
    yaml::Yaml,
};

/// Reads a duration, or a range of durations.
pub(super) fn think(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<LengthRange> {
    let read: EndReader = |reader, entry| reader.duration(entry).map(millis);
    match entry.value.value {
        Yaml::Map(_) => lengths::range(reader, entry, (Section::ThinkTime, read)),
        _ => read(reader, entry).map(LengthRange::fixed),
    }
}

/// Returns whole milliseconds, at least one of a time that is not zero.
fn millis(time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    millis.max(u64::from(!time.is_zero()))
}
