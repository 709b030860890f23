//! The verdicts: limit, value and interval as a picture, with the reason in words.

use llm_stream_core::text::visible;
use maud::{Markup, html};

use super::{
    numbers::{THIN, decimals_for, fixed, plain, signed, with_unit},
    page_run::{PageData, ShownFigure, confidence, display_name, display_scale, ends},
    picture::{Anchor, PathData, Picture},
    scale::{AxisScale, ScaleKind},
};
use crate::report::json::model::ThresholdReport;

/// With more limits than this, the passed ones are folded, and the undecided ones behind the first.
const MOST_SHOWN: usize = 20;
const MOST_UNDECIDED: usize = 10;

/// A verdict, with the place of its figures in `run.json` and the units of the page.
#[derive(Debug)]
pub(super) struct PageVerdict<'p> {
    pub(super) position: usize,
    pub(super) report: &'p ThresholdReport<'static>,
    /// The number of units of the page in one of the file.
    scale: f64,
    unit: &'p str,
    /// The limit, the value and the interval in the unit of the page.
    pub(super) limit: f64,
    pub(super) value: Option<f64>,
    pub(super) interval: Option<(f64, f64)>,
    /// The error of the instrument in the unit of the page.
    pub(super) error: Option<f64>,
}

impl<'p> PageVerdict<'p> {
    pub(super) fn new(position: usize, report: &'p ThresholdReport<'static>) -> Self {
        let percent = report.relative;
        let scale = if percent { 100.0 } else { display_scale(&report.metric) };
        let unit = if percent { "%" } else { display_name(&report.unit) };
        let (value, interval) = match (&report.change, &report.trend) {
            (Some(change), _) => (Some(change.relative), Some(ends(&change.interval))),
            (None, Some(trend)) => (Some(trend.relative), None),
            (None, None) if report.relative => (None, None),
            // Where no request may fail, the interval says more than the limit asks.
            (None, None) if report.beyond.as_ref().is_some_and(|of| of.allowed <= 0.0) => {
                (report.actual, None)
            }
            (None, None) => (report.actual, report.interval.as_ref().map(ends)),
        };
        // Of a change, the error is in the unit of the figure.
        let share = report.change.as_ref().map_or(1.0, |change| change.before.abs());
        let error = report.instrument_error.filter(|_| !report.relative || report.change.is_some());
        Self {
            position,
            report,
            scale,
            unit,
            limit: report.limit * scale,
            value: value.map(|value| value * scale),
            interval: interval.map(|(low, high)| (low * scale, high * scale)),
            error: error.map(|error| error / share * scale).filter(|error| error.is_finite()),
        }
    }

    /// Returns whether larger values fail.
    fn fails_above(&self) -> bool {
        self.report.comparison.starts_with('<')
    }

    fn decimals(&self) -> usize {
        let value = self.value.unwrap_or(self.limit);
        let half =
            self.interval.map(|(low, high)| (high - low) / 2.0).filter(|half| half.is_finite());
        match (half, self.report.relative) {
            (Some(half), _) if half > 0.0 => decimals_for(half, value),
            (_, true) => 1,
            (_, false) => plain(value).split_once('.').map_or(0, |(_, decimals)| decimals.len()),
        }
    }

    /// Formats a value with its sign if the threshold limits a change.
    fn number(&self, value: f64) -> String {
        match self.report.relative {
            true => signed(value, self.decimals()),
            false if !value.is_finite() => plain(value),
            false => fixed(value, self.decimals()),
        }
    }

    /// Formats the limit as it is written in the config.
    fn limit_text(&self) -> String {
        let text = format!("{:.6}", self.limit);
        let text = text.trim_end_matches('0').trim_end_matches('.').replace('-', "−");
        with_unit(&text, self.unit)
    }

    fn shown(&self) -> Option<ShownFigure> {
        let place = match (&self.report.change, &self.report.trend) {
            (Some(_), _) => "change/relative",
            (None, Some(_)) => "trend/relative",
            (None, None) => "actual",
        };
        let path = format!("thresholds/{}/{place}", self.position);
        let shown = ShownFigure::at(0, path, self.value? / self.scale, self.scale);
        Some(shown.with_decimals(self.decimals()))
    }

    /// Returns the group as readers of the page know it: the model and the workload.
    fn place(&self, page: &PageData<'_>) -> Markup {
        let model = self.report.model.as_deref();
        html! {
            @match model {
                Some(model) => { (page.key_named(model).named()) }
                None => { (visible(&self.report.group)) }
            }
            @if let Some(workload) = &self.report.workload { ", " (visible(workload)) }
            @if let Some(n) = self.requests() { " · n" (THIN) "=" (THIN) (n) }
        }
    }

    /// Returns the number of values: for a success rate, that of all requests.
    fn requests(&self) -> Option<usize> {
        let all = self.report.beyond.as_ref().filter(|_| self.report.metric == "success_rate");
        all.map(|of| of.requests).or(self.report.n)
    }

    /// Returns the threshold in mathematical signs.
    pub(super) fn threshold(&self) -> String {
        let text = visible(&self.report.threshold).into_owned();
        text.replace(">=", "≥").replace("<=", "≤").replace(" -", " −")
    }

    fn class(&self) -> &'static str {
        match &*self.report.verdict {
            "pass" => "pass",
            "inconclusive" => "inc",
            _ => "fail",
        }
    }
}

/// Returns the verdicts of the main run: missed limits first, then undecided ones.
pub(super) fn verdicts<'p>(page: &'p PageData<'_>) -> Vec<PageVerdict<'p>> {
    let all = page.main().report.thresholds.iter().enumerate();
    let mut verdicts: Vec<_> =
        all.map(|(position, report)| PageVerdict::new(position, report)).collect();
    verdicts.sort_by_key(|verdict| match verdict.class() {
        "fail" => 0,
        "inc" => 1,
        _ => 2,
    });
    verdicts
}

/// Returns the section; without limits, a sentence.
pub(super) fn section(page: &PageData<'_>) -> Markup {
    let verdicts = verdicts(page);
    let folded = |class: &str| -> Vec<&PageVerdict<'_>> {
        let of_class = verdicts.iter().filter(|verdict| verdict.class() == class);
        // The first undecided ones say which limit lacks requests.
        let kept = if class == "inc" { MOST_UNDECIDED } else { 0 };
        if verdicts.len() > MOST_SHOWN { of_class.skip(kept).collect() } else { Vec::new() }
    };
    let (undecided, met) = (folded("inc"), folded("pass"));
    let is_folded = |verdict: &PageVerdict<'_>| {
        undecided.iter().chain(&met).any(|folded| folded.position == verdict.position)
    };
    let shown: Vec<_> = verdicts.iter().filter(|verdict| !is_folded(verdict)).collect();
    html! {
        section #verdicts {
            h2 { (title(page, &verdicts)) }
            @if verdicts.is_empty() {
                p.lead { (without_limits(page)) }
            } @else {
                p.lead {
                    "Hatched: values that fail. Bar: " (confidence(page)) (THIN) "% interval. "
                    b { "●" } " pass, " b { "✕" } " FAIL, " b { "◇" } " inconclusive. Grey band at the limit: "
                    "error of the instrument. “Would have been found”: with a probability of 95" (THIN) "%."
                }
                @if !shown.is_empty() { (table(page, &shown, "Thresholds, with limit, measured value, interval and verdict")) }
                @for (verdicts, name) in [(&undecided, "more limits inconclusive"), (&met, "limits met")] {
                    @if !verdicts.is_empty() {
                        details {
                            summary { (verdicts.len()) " " (name) }
                            (table(page, verdicts, name))
                        }
                    }
                }
            }
        }
    }
}

fn title(page: &PageData<'_>, verdicts: &[PageVerdict<'_>]) -> String {
    let count = |class| verdicts.iter().filter(|verdict| verdict.class() == class).count();
    let (failed, undecided, met) = (count("fail"), count("inc"), count("pass"));
    let limits = |n: usize| if n == 1 { "limit" } else { "limits" };
    match (failed, undecided) {
        _ if verdicts.is_empty() && is_interrupted(page) => "No limit was judged".into(),
        _ if verdicts.is_empty() => "No limits".into(),
        (0, 0) if met == 1 => "The limit is met".into(),
        (0, 0) => format!("All {met} limits are met"),
        (0, _) => format!("{} {} inconclusive", spelled(undecided), limits(undecided)),
        (_, 0) => format!("{} {} missed", spelled(failed), limits(failed)),
        (_, _) => format!(
            "{} {} missed, {} inconclusive",
            spelled(failed),
            limits(failed),
            spelled(undecided).to_lowercase()
        ),
    }
}

fn is_interrupted(page: &PageData<'_>) -> bool {
    page.main().report.result.ended == crate::report::RunStatus::Interrupted
}

fn without_limits(page: &PageData<'_>) -> &'static str {
    match is_interrupted(page) {
        true => "The run was interrupted. Limits are judged only when all trials have ended.",
        false => {
            "The config has no threshold for these requests, so the run fails only if a request fails. \
                  A key `thresholds` of the config sets limits."
        }
    }
}

/// Returns a small number in words, as the beginning of a sentence.
pub(super) fn spelled(n: usize) -> String {
    const WORDS: [&str; 13] = [
        "No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten",
        "Eleven", "Twelve",
    ];
    WORDS.get(n).map_or_else(|| n.to_string(), |word| (*word).to_owned())
}

fn table(page: &PageData<'_>, verdicts: &[&PageVerdict<'_>], caption: &str) -> Markup {
    html! {
        table.verd {
            caption.vh { (caption) }
            thead { tr {
                th scope="col" { "Verdict" }
                th scope="col" { "Limit" }
                th scope="col" { "Limit, value and interval" }
                th scope="col" { "Measured" }
                th scope="col" { "Why, and what would have been found" }
            } }
            tbody { @for verdict in verdicts { (row(page, verdict)) } }
        }
    }
}

fn row(page: &PageData<'_>, verdict: &PageVerdict<'_>) -> Markup {
    let class = verdict.class();
    html! {
        tr class=(class) {
            th scope="row" { (mark(class)) }
            td.who { code { (verdict.threshold()) } span { (verdict.place(page)) } }
            td.pic { @if let Some(picture) = picture(page, verdict) { (picture) } }
            td.val { (measured(verdict)) }
            td.why { (why(verdict)) }
        }
    }
}

/// Returns a verdict as symbol and word.
pub(super) fn mark(class: &str) -> Markup {
    let (symbol, word) = match class {
        "pass" => ("✓", "Pass"),
        "inc" => ("?", "Inconclusive"),
        _ => ("✕", "FAIL"),
    };
    html! { span class={ "st " (class) } { b aria-hidden="true" { (symbol) } " " (word) } }
}

fn measured(verdict: &PageVerdict<'_>) -> Markup {
    let Some(shown) = verdict.shown() else {
        return html! { b { "–" } span.told { (visible(&verdict.report.told)) } };
    };
    let sign =
        if verdict.report.relative && verdict.value.unwrap_or(0.0) >= 0.0 { "+" } else { "" };
    let range = match verdict.interval {
        Some((low, high)) => format!("{} to {}", verdict.number(low), verdict.number(high)),
        None => "no interval".into(),
    };
    let unit = if verdict.interval.is_some() { verdict.unit } else { "" };
    html! { b { (sign) (shown.exact_element()) (THIN) (verdict.unit) } span { (with_unit(&range, unit)) } }
}

/// Draws limit, value and interval; `None` without a value.
fn picture(page: &PageData<'_>, verdict: &PageVerdict<'_>) -> Option<Markup> {
    let value = verdict.value.filter(|value| value.is_finite())?;
    let (low, high) = verdict.interval.unwrap_or((value, value));
    let x =
        AxisScale::around(ScaleKind::Linear, [verdict.limit, value, low, high], (8.0, 292.0), 0.16);
    let mut picture = Picture::new("vp", (300, 46), &picture_label(page, verdict, value));
    let limit = x.at(verdict.limit);
    let (bad_from, bad_to) = if verdict.fails_above() { (limit, 292.0) } else { (8.0, limit) };
    picture.hatch("bad", (bad_from, 4.0), (bad_to - bad_from, 24.0));
    if bad_to - bad_from > 38.0 {
        match verdict.fails_above() {
            true => picture.text("lb ax", (289.0, 15.0), Anchor::End, "fails"),
            false => picture.text("lb ax", (11.0, 15.0), Anchor::Start, "fails"),
        }
    }
    picture.path("base", "M8 28H292");
    draw_error(&mut picture, verdict, &x);
    picture.path("lim", &PathData::default().move_to(limit, 1.0).line_to(limit, 31.0).done());
    draw_interval(&mut picture, verdict, &x);
    let anchor = match limit {
        at if at > 230.0 => Anchor::End,
        at if at < 70.0 => Anchor::Start,
        _ => Anchor::Middle,
    };
    let at = if anchor == Anchor::Middle { limit } else { limit.clamp(8.0, 292.0) };
    picture.text("ax", (at, 42.0), anchor, &format!("limit {}", verdict.limit_text()));
    draw_value(&mut picture, verdict.class(), x.at(value));
    Some(picture.finish())
}

fn draw_error(picture: &mut Picture, verdict: &PageVerdict<'_>, x: &AxisScale) {
    let Some(error) = verdict.error else { return };
    let (left, right) = (x.clamped(verdict.limit - error), x.clamped(verdict.limit + error));
    if right - left >= 1.0 {
        picture.rect("err", (left, 4.0), (right - left, 24.0));
    }
}

/// Draws the interval; an end that the sample does not bound has no cap.
fn draw_interval(picture: &mut Picture, verdict: &PageVerdict<'_>, x: &AxisScale) {
    let Some((low, high)) = verdict.interval else { return };
    let at = |end: f64, edge: f64| if end.is_finite() { x.at(end) } else { edge };
    let (left, right) = (at(low, 8.0), at(high, 292.0));
    let mut path = PathData::default();
    path.move_to(left, 18.0).line_to(right, 18.0);
    for (end, at) in [(low, left), (high, right)] {
        if end.is_finite() {
            path.move_to(at, 13.0).line_to(at, 23.0);
        }
    }
    picture.path(&format!("iv {}", verdict.class()), &path.done());
}

fn draw_value(picture: &mut Picture, class: &str, x: f64) {
    let mut path = PathData::default();
    match class {
        "pass" => picture.circle("pt pass", (x, 18.0), 4.5),
        "inc" => {
            path.move_to(x, 12.0).line_to(x + 6.0, 18.0).line_to(x, 24.0).line_to(x - 6.0, 18.0);
            picture.path("pt inc", &path.close().done());
        }
        _ => {
            path.move_to(x - 4.5, 13.5).line_to(x + 4.5, 22.5);
            path.move_to(x + 4.5, 13.5).line_to(x - 4.5, 22.5);
            picture.path("pt fail", &path.done());
        }
    }
}

fn picture_label(page: &PageData<'_>, verdict: &PageVerdict<'_>, value: f64) -> String {
    let unit = verdict.unit;
    let name = verdict.report.model.as_deref().map_or_else(
        || visible(&verdict.report.group).into_owned(),
        |model| page.key_named(model).name.clone(),
    );
    let interval = verdict.interval.map_or_else(String::new, |(low, high)| {
        let (low, high) = (verdict.number(low), verdict.number(high));
        format!(", interval {} to {}", with_unit(&low, unit), with_unit(&high, unit))
    });
    let word = match verdict.class() {
        "pass" => "Pass",
        "inc" => "Inconclusive",
        _ => "FAIL",
    };
    let (threshold, limit) = (visible(&verdict.report.threshold), verdict.limit_text());
    let value = with_unit(&verdict.number(value), unit);
    format!("{name}, {threshold}: measured {value}{interval}, limit {limit}: {word}")
}

/// Describes why the verdict is as it is.
fn why(verdict: &PageVerdict<'_>) -> Markup {
    let report = verdict.report;
    let sentences = match verdict.class() {
        "pass" => passed(verdict),
        "inc" => undecided(verdict),
        _ => failed(verdict),
    };
    html! {
        (coded(&sentences))
        @if let Some(found) = would_have_found(verdict) { " " span { (found) } }
        @for remark in &report.remarks { " " span { (coded(&sentence(&visible(remark)))) } }
    }
}

/// Returns a text whose parts in backquotes are code.
pub(super) fn coded(text: &str) -> Markup {
    let parts: Vec<_> = text.split('`').collect();
    // Pairs of backquotes leave an odd number of parts.
    let is_paired = parts.len() % 2 == 1;
    html! {
        @if is_paired {
            @for (index, part) in parts.iter().enumerate() {
                @if index % 2 == 1 { code { (part) } } @else { (part) }
            }
        } @else { (text) }
    }
}

/// Returns the text as a sentence.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let text: String = match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => return String::new(),
    };
    if text.ends_with(['.', '!', '?']) { text } else { text + "." }
}

fn passed(verdict: &PageVerdict<'_>) -> String {
    let side = if verdict.fails_above() { "below" } else { "above" };
    if let Some(counted) = counted(verdict) {
        return counted;
    }
    match (verdict.value, verdict.interval) {
        (Some(_), Some((low, high))) if verdict.report.relative && low <= 0.0 && high >= 0.0 => {
            format!("No change: the interval contains 0 and lies {side} the limit.")
        }
        (Some(_), Some(_)) if verdict.report.relative => {
            format!("{} All of the interval is {side} the limit.", change_in_words(verdict))
        }
        (Some(value), Some(_)) => {
            format!("All of the interval is {side} the limit{}.", distance(verdict, value))
        }
        (Some(value), None) => {
            format!("The figure is {side} the limit{}.", distance(verdict, value))
        }
        (None, _) => sentence(&visible(&verdict.report.told)),
    }
}

/// Describes the distance from the value to the limit, as a share of the value.
fn distance(verdict: &PageVerdict<'_>, value: f64) -> String {
    let ratio = (verdict.limit / value).max(value / verdict.limit);
    let share = (verdict.limit - value).abs() / value.abs();
    match (ratio, share) {
        (ratio, _) if ratio.is_finite() && ratio >= 3.0 => format!(": {}×", plain(ratio)),
        (_, share) if share.is_finite() && share > 0.0 => {
            format!(", by {}", super::numbers::percent(share))
        }
        _ => String::new(),
    }
}

fn undecided(verdict: &PageVerdict<'_>) -> String {
    let report = verdict.report;
    let inside = verdict.interval.is_some_and(|(low, high)| (low..=high).contains(&verdict.limit));
    let place = if inside { "The limit lies inside the interval. " } else { "" };
    let wanting = match (report.more_requests, report.more_runs) {
        (Some(more), _) => format!("About {more} more requests would decide it."),
        (None, Some(more)) => format!("About {more} more runs of the load would decide it."),
        (None, None) => {
            let words = report.wanting.as_deref().or(report.reason.as_deref());
            sentence(&visible(words.unwrap_or(&report.told)))
        }
    };
    format!("{place}{wanting}")
}

fn failed(verdict: &PageVerdict<'_>) -> String {
    let report = verdict.report;
    let side = if verdict.fails_above() { "above" } else { "below" };
    let Some(value) = verdict.value else {
        return sentence(&visible(report.reason.as_deref().unwrap_or(&report.told)));
    };
    if let Some(counted) = counted(verdict) {
        return counted;
    }
    let is_clear = verdict.interval.is_some_and(|(low, high)| match verdict.fails_above() {
        true => low > verdict.limit,
        false => high < verdict.limit,
    });
    let interval = match is_clear {
        true => format!(" All of the interval is {side} the limit."),
        false => report
            .reason
            .as_deref()
            .map_or_else(String::new, |reason| format!(" {}", sentence(&visible(reason)))),
    };
    match report.relative {
        true => format!("{}{interval}", change_in_words(verdict)),
        false => format!("The figure is {side} the limit{}.{interval}", distance(verdict, value)),
    }
}

/// Describes a change: slower or faster where the metric says so.
fn change_in_words(verdict: &PageVerdict<'_>) -> String {
    let report = verdict.report;
    let value = verdict.value.unwrap_or_default();
    let size = with_unit(&fixed(value.abs(), verdict.decimals()), "%");
    let is_speed = report.unit.contains("/s");
    let word = match (report.unit.as_ref(), is_speed, value < 0.0) {
        (_, true, true) | ("s", _, false) => "slower",
        (_, true, false) | ("s", _, true) => "faster",
        (_, _, true) => "less",
        (_, _, false) => "more",
    };
    let allowed = verdict.limit_text().replace('−', "");
    let allows = if verdict.limit == 0.0 { "no change".to_owned() } else { allowed };
    format!("{size} {word} than {}; the limit allows {allows}.", counterpart(report))
}

/// Returns what a change is measured against, from the words of the threshold.
pub(super) fn counterpart(report: &ThresholdReport<'_>) -> String {
    let text = visible(&report.threshold);
    match text.rsplit_once(" of ").map(|(_, against)| against.trim()) {
        Some("baseline") | None => "the baseline".into(),
        Some(other) => other.to_owned(),
    }
}

/// Describes a verdict that a count of requests decides.
fn counted(verdict: &PageVerdict<'_>) -> Option<String> {
    let of = verdict.report.beyond.as_ref()?;
    let allowed = (of.allowed * of.requests as f64 + 1e-9).floor() as usize;
    let allows = if allowed == 0 { "none".to_owned() } else { allowed.to_string() };
    let what = match (verdict.report.metric.as_ref(), verdict.fails_above()) {
        ("success_rate", false) => "failed",
        ("success_rate", true) => "succeeded",
        (_, true) => "are above the limit",
        (_, false) => "are below the limit",
    };
    let n = of.requests;
    let failures = match (of.failed, verdict.report.metric.as_ref()) {
        (0, _) | (_, "success_rate") => String::new(),
        (failed, _) => format!(", {failed} of them because they failed"),
    };
    Some(match of.beyond {
        0 => format!("None of {n} requests {what}."),
        beyond => format!("{beyond} of {n} requests {what}{failures}; the limit allows {allows}."),
    })
}

/// Describes the smallest change that a pass would have found.
fn would_have_found(verdict: &PageVerdict<'_>) -> Option<String> {
    let report = verdict.report;
    let smallest = report.smallest_detectable?;
    let found = if report.beyond.is_some() {
        let share = super::numbers::percent(smallest);
        let what = if report.metric == "success_rate" {
            "failed requests"
        } else {
            "requests beyond the limit"
        };
        format!("{share} of {what}")
    } else if report.relative {
        let size = with_unit(&plain(100.0 * smallest.abs()), "%");
        format!("a change of {}{size}", if smallest < 0.0 { "−" } else { "+" })
    } else {
        let value =
            with_unit(&fixed(verdict.value? * (1.0 + smallest), verdict.decimals()), verdict.unit);
        let side = if verdict.fails_above() { "more" } else { "less" };
        format!("a {} of {value} or {side}", report.statistic)
    };
    Some(format!("Would have been found: {found}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backquotes_become_code_if_they_are_paired() {
        assert_eq!(coded("a `b<` c").into_string(), "a <code>b&lt;</code> c");
        assert_eq!(coded("a ` b").into_string(), "a ` b");
    }
}
