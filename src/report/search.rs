//! The text of searches: each load with the limits that it holds or misses, and the result.

use std::fmt::Write as _;

use llm_stream_core::{
    capacity::{
        FinishedSearch, LimitResult, Objective, Overload, SearchFinding, SearchPoint, SearchResult,
    },
    interval::Interval,
    text::counted,
    threshold::Threshold,
};

/// Formats a load with up to three decimals.
pub(crate) fn decimal(load: f64) -> String {
    // Four digits at least.
    let digits = if load >= 1_000.0 {
        0
    } else if load >= 100.0 {
        1
    } else if load >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{load:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// `38.5/s`, or `64 at a time`.
pub(crate) fn load(objective: &Objective, load: f64) -> String {
    match objective.is_concurrency {
        true => format!("{} at a time", decimal(load)),
        false => format!("{}/s", decimal(load)),
    }
}

/// Formats a load of a search: `38.5/s holds: ttft p95 412 ms (<= 500 ms)`. In an open loop it is the
/// rate of the arrivals.
pub(crate) fn point(objective: &Objective, point: &SearchPoint) -> String {
    let mut text = load(objective, point.rate());
    if (point.rate() / point.load - 1.0).abs() > 0.01 {
        let _ = write!(text, " (asked {})", load(objective, point.load));
    }
    text.push_str(if point.looks_held() { " holds" } else { " misses" });
    let limits = objective.limits.iter().zip(&point.limits);
    let reasons = point.overload.iter().map(overload);
    let reasons: Vec<_> = reasons.chain(limits.map(|(of, result)| limit(of, result))).collect();
    if !reasons.is_empty() {
        let _ = write!(text, ": {}", reasons.join(", "));
    }
    text
}

/// `ttft p95 412 ms (<= 500 ms)`.
fn limit(limit: &Threshold, result: &LimitResult) -> String {
    let (unit, scale) = limit.metric.unit.display();
    let name = match limit.metric.name {
        name @ "success_rate" => name.to_owned(),
        name => format!("{name} {}", limit.statistic),
    };
    let figure = match result.figure {
        Some(figure) if figure.is_finite() => format!("{} {unit}", decimal(figure * scale)),
        Some(_) => "beyond any limit (failed requests)".to_owned(),
        None => "absent".to_owned(),
    };
    let not = if result.looks_held { "" } else { "not " };
    format!("{name} {figure} ({not}{} {})", limit.comparison.symbol(), limit.format_limit())
}

/// Says why a load does not hold, other than by a limit.
pub(crate) fn overload(overload: &Overload) -> String {
    match overload {
        Overload::QueueGrows(share) => {
            format!("{:.0} % of the arrivals piled up: the server does not keep up", 100.0 * share)
        }
        Overload::Failures(share) => format!("{:.1} % of the requests failed", 100.0 * share),
        Overload::NotReached(why) => format!("not reached: {why}"),
    }
}

/// Formats the result: `capacity 39.1 req/s (95 % 37.8 to 40.9), ttft p95 <= 500 ms`.
pub(crate) fn result(finished: &FinishedSearch) -> String {
    let FinishedSearch { objective, result, points, is_complete, .. } = finished;
    if !is_complete {
        return format!("not finished: no result after {}", counted(points.len(), "load"));
    }
    let mut text = match result.found {
        SearchFinding::Load { value, interval } => {
            let Interval { low, high } = interval;
            let high = if high.is_finite() { decimal(high) } else { "no upper end".to_owned() };
            format!("{} holds (95 % interval {} to {high})", load(objective, value), decimal(low),)
        }
        SearchFinding::AtLeast(highest) => {
            format!("{} holds, the highest load that `to` allows", load(objective, highest))
        }
        SearchFinding::Below(_) => none_holds(finished),
    };
    let _ = write!(text, ", after {}", counted(points.len(), "load"));
    text.push_str(&remarks(objective, result, points));
    text
}

/// Says why no load holds.
pub(crate) fn none_holds(finished: &FinishedSearch) -> String {
    let objective = &finished.objective;
    let lowest = finished.points.first().map(|of| format!(": {}", point(objective, of)));
    format!("no load holds the limits{}", lowest.unwrap_or_default())
}

/// What a reader of the result must know.
fn remarks(objective: &Objective, result: &SearchResult, points: &[SearchPoint]) -> String {
    let mut text = String::new();
    if let Some(missed) = result.not_monotone {
        let _ = write!(
            text,
            "; {} missed although higher loads hold: the curve is not monotone",
            load(objective, missed)
        );
    }
    if let Some(why) = bottleneck(result, points) {
        let _ = write!(text, "; the next higher load was not reached: {why}");
    }
    if !result.is_precise {
        let percent = decimal(100.0 * objective.precision);
        let _ =
            write!(text, "; known less precisely than {percent} %: give each load more requests");
    }
    text
}

/// Why the lowest load above the result was not reached, if that bounds it.
pub(crate) fn bottleneck<'a>(result: &SearchResult, points: &'a [SearchPoint]) -> Option<&'a str> {
    let SearchFinding::Load { value, .. } = result.found else { return None };
    let above = points.iter().find(|point| point.rate() > value && !point.looks_held())?;
    match &above.overload {
        Some(Overload::NotReached(why)) => Some(why),
        _ => None,
    }
}
