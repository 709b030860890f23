//! The head of the page: the finding, the verdict on the run, what was measured, and where.

use llm_stream_core::text::{counted, visible};
use maud::{Markup, html};

use super::{
    numbers::{THIN, fixed, plain},
    page_run::{PageData, PageRun},
    ranking,
    verdicts::{PageVerdict, coded, counterpart, sentence, verdicts},
};
use crate::report::RunStatus;

/// Returns the header.
pub(super) fn header(page: &PageData<'_>, links: &[(&str, &str)]) -> Markup {
    html! {
        header {
            div.eyebrow {
                b { "llm-stream-bench" }
                span { (kind(page)) }
                span { (times(page)) }
            }
            h1 { (finding(page)) }
            (verdict(page))
            (without_requests(page))
            (meta(page))
            nav aria-label="Sections" {
                ul.read { @for (target, text) in links { li { a href={ "#" (target) } { (text) } } } }
            }
        }
    }
}

fn kind(page: &PageData<'_>) -> String {
    match page.runs.len() {
        1 => "Report of one run".into(),
        n => format!("Report of {n} runs"),
    }
}

/// Returns the start of a run, or the name of its folder.
pub(super) fn time(run: &PageRun<'_>) -> String {
    run.started().map_or_else(
        || visible(&run.name).into_owned(),
        |at| format!("{} UTC", at.strftime("%Y-%m-%d %H:%M")),
    )
}

fn times(page: &PageData<'_>) -> String {
    match page.runs.len() {
        1 => time(page.main()),
        n => {
            let day = page
                .main()
                .started()
                .map_or_else(String::new, |at| format!("{}: ", at.strftime("%Y-%m-%d")));
            let labels: Vec<_> = (0..n).rev().map(|run| page.run_label(run)).collect();
            let day =
                if labels.iter().any(|label| label.contains('-')) { String::new() } else { day };
            format!("{day}{} UTC", labels.join(", "))
        }
    }
}

/// Returns the title of the document: the verdict and the time.
pub(super) fn document_title(page: &PageData<'_>) -> String {
    let (word, ..) = status(page);
    format!("{word} · llm-stream-bench · {}", time(page.main()))
}

/// Returns the word, the symbol and the class of the run's status, and how the program ended.
fn status(page: &PageData<'_>) -> (&'static str, &'static str, &'static str, &'static str) {
    match page.main().report.result.ended {
        RunStatus::Passed => ("PASS", "✓", "pass", "exit code 0"),
        RunStatus::Failed => ("FAIL", "✕", "fail", "exit code 101"),
        RunStatus::Interrupted => ("INTERRUPTED", "◼", "inc", "ended by a signal"),
    }
}

/// Returns the page's title: the worst miss, then the next; without a miss, what was measured.
fn finding(page: &PageData<'_>) -> String {
    let misses: Vec<_> =
        verdicts(page).into_iter().filter(|verdict| verdict.report.verdict == "fail").collect();
    let of_change = |verdict: &&PageVerdict<'_>| verdict.report.relative;
    let (relative, absolute): (Vec<_>, Vec<_>) = misses.iter().partition(of_change);
    let mut sentences: Vec<String> = Vec::new();
    for miss in relative.into_iter().chain(absolute) {
        let sentence = miss_in_words(page, miss);
        if !sentences.contains(&sentence) && sentences.len() < 2 {
            sentences.push(sentence);
        }
    }
    if !sentences.is_empty() {
        return sentences.join("; ");
    }
    if page.main().report.result.ended == RunStatus::Interrupted {
        return "The run was interrupted: figures of a part of the requests".into();
    }
    without_miss(page)
}

fn without_miss(page: &PageData<'_>) -> String {
    let failed: usize = page.groups(0).map(|group| group.report.requests.failed).sum();
    let valid: usize = page.groups(0).map(|group| group.report.requests.valid).sum();
    let limits = &page.main().report.thresholds;
    let undecided = limits.iter().filter(|limit| limit.verdict == "inconclusive").count();
    match (failed, limits.len(), undecided) {
        (1.., ..) => format!("{failed} of {} requests failed", valid + failed),
        (0, 0, _) => headline(page),
        (0, 1, 0) => "The limit is met".into(),
        (0, all, 0) => format!("All {all} limits are met"),
        (0, all, undecided) => {
            format!("{undecided} of {} inconclusive; no limit is missed", counted_are(all, "limit"))
        }
    }
}

fn counted_are(n: usize, thing: &str) -> String {
    format!("{} {}", counted(n, thing), if n == 1 { "is" } else { "are" })
}

/// Returns the main figure of a run without limits.
fn headline(page: &PageData<'_>) -> String {
    let rankings = ranking::rankings(page);
    let fastest = rankings.first().and_then(|ranking| ranking.groups.first().copied());
    let Some(group) = fastest.or_else(|| page.groups(0).next()) else {
        return "Nothing was measured".into();
    };
    let name = &page.key(&group).name;
    let speed = group.shown("generation_speed", "mean").map(|shown| shown.text());
    let first = group.shown("ttft", "median").map(|shown| shown.text());
    match (fastest.is_some(), speed, first) {
        (true, Some(speed), _) => format!("{name} generates fastest: {speed}{THIN}tok/s"),
        (false, Some(speed), Some(first)) => {
            format!("{name} generates {speed}{THIN}tok/s; the first token takes {first}{THIN}ms")
        }
        (_, _, _) => format!("{name} was measured"),
    }
}

fn miss_in_words(page: &PageData<'_>, miss: &PageVerdict<'_>) -> String {
    let report = miss.report;
    let name = match report.model.as_deref() {
        Some(model) => page.key_named(model).name.clone(),
        None => visible(&report.group).into_owned(),
    };
    let place = match &report.workload {
        None => name.clone(),
        Some(workload) => format!("{name} under {}", visible(workload)),
    };
    match (&report.beyond, miss.value) {
        (Some(of), _) if report.metric == "success_rate" && report.comparison.starts_with('>') => {
            format!("{place} lost {} of {}", of.beyond, counted(of.requests, "request"))
        }
        (_, Some(value)) if report.relative => change_in_words(miss, &place, value),
        (_, Some(value)) => {
            let side = if report.comparison.starts_with('<') { "above" } else { "below" };
            let unit = super::page_run::display_name(&report.unit);
            let metric = match report.statistic.as_str() {
                "mean" => report.metric.to_string(),
                statistic => format!("{} {statistic}", report.metric),
            };
            format!(
                "{metric} of {place} is {}{THIN}{unit}, {side} its limit of {}{THIN}{unit}",
                plain(value),
                plain(miss.limit)
            )
        }
        (_, None) => format!("{} of {place} has no figure", report.metric),
    }
}

fn change_in_words(miss: &PageVerdict<'_>, place: &str, value: f64) -> String {
    let report = miss.report;
    let size = fixed(value.abs(), 1);
    let against = match counterpart(report).as_str() {
        "the baseline" => "its baseline".to_owned(),
        other => other.to_owned(),
    };
    let metric = &report.metric;
    match (metric.as_ref(), value < 0.0) {
        ("generation_speed", true) => format!("{place} is {size}{THIN}% slower than {against}"),
        (_, true) => format!("{metric} of {place} is {size}{THIN}% below {against}"),
        (_, false) => format!("{metric} of {place} is {size}{THIN}% above {against}"),
    }
}

fn verdict(page: &PageData<'_>) -> Markup {
    let (word, symbol, class, ending) = status(page);
    let reasons = &page.main().report.result.reasons;
    html! {
        div class={ "verdict " (class) } {
            div.big { span aria-hidden="true" { (symbol) } " " (word) small { (ending) } }
            div {
                p { b { (limits_in_words(page)) } " " (requests_in_words(page)) }
                @if page.main().report.result.ended == RunStatus::Interrupted { p { (missing(page)) } }
                @if !reasons.is_empty() {
                    details {
                        summary { (counted(reasons.len(), "reason")) }
                        ul.plain { @for reason in reasons.iter() { li { (coded(&sentence(&visible(reason)))) } } }
                    }
                }
            }
        }
    }
}

/// Returns `{n} of {m} limits missed, {k} inconclusive, {p} met.`
fn limits_in_words(page: &PageData<'_>) -> String {
    let limits = &page.main().report.thresholds;
    let count = |name: &str| limits.iter().filter(|limit| limit.verdict == name).count();
    let (failed, undecided, met) = (count("fail"), count("inconclusive"), count("pass"));
    match limits.len() {
        0 if page.main().report.result.ended == RunStatus::Interrupted => {
            "No limit was judged.".into()
        }
        0 => "No limits.".into(),
        all if failed == 0 && undecided == 0 => format!("{} met.", counted(all, "limit")),
        all => format!(
            "{failed} of {} missed, {undecided} inconclusive, {met} met.",
            counted(all, "limit")
        ),
    }
}

fn requests_in_words(page: &PageData<'_>) -> String {
    let sum = |is_load: bool| {
        let groups = page.groups(0).filter(|group| group.is_load() == is_load);
        groups.fold((0, 0), |(all, failed), group| {
            let of = &group.report.requests;
            (all + of.valid + of.failed, failed + of.failed)
        })
    };
    let words = |(all, failed): (usize, usize), how: &str| match (all, failed) {
        (0, _) => String::new(),
        (1, 0) => format!("The request {how} succeeded. "),
        (all, 0) => format!("None of {all} requests {how} failed. "),
        (all, failed) => format!("{failed} of {all} requests {how} failed. "),
    };
    let text = words(sum(false), "sent one by one") + &words(sum(true), "under load");
    text.trim_end().to_owned()
}

/// Describes the trials that an interrupted run lacks.
fn missing(page: &PageData<'_>) -> String {
    let (planned, finished) = page.groups(0).fold((0, 0), |(planned, finished), group| {
        let of = &group.report.trials;
        (planned + of.planned, finished + of.finished)
    });
    let not_run = planned.saturating_sub(finished);
    format!(
        "{finished} of {} finished; {not_run} are missing from the figures.",
        counted(planned, "trial")
    )
}

/// Names the runs whose single requests are not known.
fn without_requests(page: &PageData<'_>) -> Markup {
    let missing = (0..page.runs.len()).filter(|run| !page.runs[*run].has_requests);
    let names: Vec<_> = missing.map(|run| page.runs[run].name.as_str()).collect();
    html! {
        @if !names.is_empty() {
            p.note {
                "No " code { "requests.jsonl" } " of " (names.join(", "))
                ": distributions, courses and the timeline of a request are left out."
            }
        }
    }
}

fn meta(page: &PageData<'_>) -> Markup {
    let report = page.main().report;
    html! {
        dl.meta {
            div { dt { "Measured" } dd { (measured(page)) } }
            div { dt { "Against" } dd { (against(page)) } }
            div { dt { "Where" } dd { (visible(&report.machine)) } }
            div { dt { "Instrument error" } dd { (instrument(page)) } }
        }
    }
}

fn measured(page: &PageData<'_>) -> String {
    let count = |is_load: bool| {
        // The requests of the parts of a mix are in the whole load.
        let is_part = |group: &super::page_run::PageGroup<'_>| {
            group.report.workload.as_ref().is_some_and(|load| load.part.is_some())
        };
        let groups = page.groups(0).filter(|group| group.is_load() == is_load && !is_part(group));
        let groups: Vec<_> = groups.collect();
        let requests: usize = groups
            .iter()
            .map(|group| group.report.requests.valid + group.report.requests.failed)
            .sum();
        (groups.len(), requests)
    };
    let ((models, one_by_one), (loads, under_load)) = (count(false), count(true));
    let requests = |n: usize| counted(n, "request");
    match (models, loads) {
        (0, loads) => format!("{} ({})", counted(loads, "load"), requests(under_load)),
        (models, 0) => {
            format!("{} one by one ({})", counted(models, "model"), requests(one_by_one))
        }
        (models, loads) => format!(
            "{} one by one ({}), {} ({})",
            counted(models, "model"),
            requests(one_by_one),
            counted(loads, "load"),
            requests(under_load)
        ),
    }
}

fn against(page: &PageData<'_>) -> String {
    let limits = &page.main().report.thresholds;
    let mut parts: Vec<String> = Vec::new();
    let has_baseline =
        limits.iter().any(|limit| limit.relative && limit.threshold.contains("baseline"));
    if has_baseline {
        parts.push("a baseline".into());
    }
    parts.extend((1..page.runs.len()).map(|run| format!("the run of {}", page.run_label(run))));
    if !limits.is_empty() {
        parts.push(counted(limits.len(), "limit"));
    }
    if parts.is_empty() { "nothing: no limits, no baseline".into() } else { parts.join(", ") }
}

fn instrument(page: &PageData<'_>) -> String {
    let instruments = &page.main().report.instruments;
    let most = |of: fn(&crate::calibrate::Calibration) -> f64| {
        instruments.iter().map(|instrument| of(&instrument.calibration)).fold(0.0, f64::max)
    };
    match instruments.is_empty() {
        true => "not measured".into(),
        false => format!(
            "TTFT ≤ {}{THIN}ms, gaps ≤ {}{THIN}ms",
            plain(most(|of| of.ttft.p99) * 1e3),
            plain(most(|of| of.gap.p99) * 1e3)
        ),
    }
}
