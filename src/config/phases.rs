//! `ramp`, `warm_up` and `steady_state` of a workload: which part of the load its figures are of; and
//! `abort`, which stops it early.

use std::time::Duration;

use llm_stream_core::{
    abort::AbortRule,
    phases::{Phases, WarmUp, WindowRule},
};

use super::{
    keys::{AUTO, Section},
    model,
    reader::{Entry, Fields, Reader},
    yaml::Yaml,
};

/// Reads the keys of a workload that say which part of it is measured.
pub(super) fn phases(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Phases> {
    let ramp = fields.get("ramp").map(|entry| reader.duration(entry));
    let warm_up = fields.get("warm_up").map(|entry| warm_up(reader, entry));
    let window = fields.get("steady_state").map(|entry| window(reader, entry));
    if let (Some(entry), Some(_)) = (fields.get("ramp"), fields.get("trace")) {
        let help = "a trace has the times of its requests; remove `ramp`";
        reader.error_at_key(entry, "`ramp` cannot be combined with `trace`", help);
    }
    if let (Some(entry), Some(Some(WindowRule::Between(..)))) = (fields.get("warm_up"), window) {
        let help = "`from` of `steady_state` is the end of the warm-up; remove one of them";
        reader.error_at_key(entry, "`warm_up` cannot be combined with a `from`", help);
    }
    if let (Some(entry), Some(_)) = (fields.get("steady_state"), fields.get("find")) {
        let help = "the loads of a search are short; cut their start by `warm_up` or `ramp`";
        reader.error_at_key(entry, "`steady_state` cannot be combined with `find`", help);
    }
    Some(Phases {
        ramp: ramp.unwrap_or(Some(Duration::ZERO))?,
        warm_up: warm_up.unwrap_or(Some(WarmUp::None))?,
        window: window.unwrap_or(Some(WindowRule::Rest))?,
    })
}

/// A number of requests, or a time.
fn warm_up(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<WarmUp> {
    match entry.value.value {
        Yaml::Int(_) => {
            let requests = reader.whole(entry)?;
            Some(WarmUp::Requests(usize::try_from(requests).ok()?))
        }
        _ => reader.duration(entry).map(WarmUp::Time),
    }
}

/// `auto`, or a map of `from` and `to`.
fn window(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<WindowRule> {
    match &entry.value.value {
        Yaml::Text(text) if text == AUTO => return Some(WindowRule::Found),
        Yaml::Map(_) => {}
        _ => {
            reader.wrong(entry, "`auto` or a map with `from`", entry.example());
            return None;
        }
    }
    let fields = reader.fields(entry, Section::SteadyState);
    if fields.get("from").is_none() && fields.meant.is_empty() {
        let help = "for example steady_state: { from: 10s, to: 60s }";
        reader.error(entry, "`steady_state` has no `from`", help);
    }
    let from = fields.get("from").map(|entry| reader.duration(entry));
    let to = fields.get("to").map(|entry| reader.duration(entry));
    let (from, to) = (from??, to.map_or(Some(None), |to| to.map(Some))?);
    if to.is_some_and(|to| to <= from) {
        let help = "both count from the start of the load, and `to` is the later one";
        reader.error(entry, "`steady_state` ends before it begins", help);
    }
    Some(WindowRule::Between(from, to))
}

/// Reads `abort`.
pub(super) fn abort(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<AbortRule> {
    let fields = reader.fields(entry, Section::Abort);
    if fields.get("failures").is_none() && fields.meant.is_empty() {
        reader.error(entry, "`abort` has no `failures`", "for example abort: { failures: 10 % }");
    }
    let share = fields.get("failures")?;
    Some(AbortRule { failures: Some(model::share(reader, share, share.example())?) })
}
