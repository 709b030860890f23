//! Failed requests by kind: how many, when, and what the server said.

use llm_stream_core::{
    recording::ErrorKind,
    text::{counted, cut_lines, visible},
};
use maud::{Markup, html};

use super::{
    page_run::{PageData, PageGroup, ShownFigure},
    picture::{PathData, Picture},
    requests::FailedRequest,
    scale::{AxisScale, ScaleKind},
    table::folded,
    verdicts::{coded, mark, sentence, spelled},
};

/// The most messages of a kind, the longest message in characters, and the most rows of failed trials.
const MOST_MESSAGES: usize = 3;
const LONGEST_MESSAGE: usize = 400;
const MOST_TRIALS: usize = 100;

/// Failures of one kind in one group.
struct KindRow<'p> {
    group: PageGroup<'p>,
    kind: &'p str,
    count: usize,
    requests: Vec<&'p FailedRequest>,
}

/// Returns the section. Without failures it is one sentence.
pub(super) fn section(page: &PageData<'_>) -> Markup {
    let rows = rows(page);
    let valid: usize = page.groups(0).map(|group| group.report.requests.valid).sum();
    let failed: usize = rows.iter().map(|row| row.count).sum();
    let loads: Vec<_> =
        page.loads().into_iter().filter(|group| !group.report.shortfalls.is_empty()).collect();
    html! {
        section #failures {
            h2 { (title(page, &rows, valid)) }
            @if failed > 0 {
                p.lead { "A failed request has no figures, and nothing is retried. " (counted(valid + failed, "request")) " in all." }
                (table(page, &rows))
                (trials(&rows))
            }
            @if !loads.is_empty() { (shortfalls(page, &loads)) }
        }
    }
}

fn rows<'p>(page: &'p PageData<'_>) -> Vec<KindRow<'p>> {
    let of_group = |group: PageGroup<'p>| {
        let kinds = group.report.requests.failures.0.iter();
        kinds.map(move |(kind, count)| KindRow {
            group,
            kind,
            count: *count,
            requests: group.requests.failed.iter().filter(|failed| failed.kind == kind).collect(),
        })
    };
    let mut rows: Vec<_> = page.groups(0).flat_map(of_group).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    rows
}

fn title(page: &PageData<'_>, rows: &[KindRow<'_>], valid: usize) -> String {
    let failed: usize = rows.iter().map(|row| row.count).sum();
    let mut kinds: Vec<_> = rows.iter().map(|row| row.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let ways = match kinds.len() {
        1 => "in one way".to_owned(),
        n => format!("in {} ways", spelled(n).to_lowercase()),
    };
    let mut models: Vec<_> = rows.iter().map(|row| &page.key(&row.group).name).collect();
    models.dedup();
    let all_of_one = models.windows(2).all(|pair| pair[0] == pair[1]);
    let requests = if failed == 1 { "request" } else { "requests" };
    match (failed, valid, models.first()) {
        (0, 0, _) => "No request was finished".into(),
        (0, 1, _) => "The only request succeeded".into(),
        (0, valid, _) => format!("All {valid} requests succeeded"),
        (_, _, Some(model)) if all_of_one => {
            format!("{} {requests} of {model} failed, {ways}", spelled(failed))
        }
        _ => format!("{} {requests} failed, {ways}", spelled(failed)),
    }
}

fn table(page: &PageData<'_>, rows: &[KindRow<'_>]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Failures by kind" {
            table.fails {
                caption.vh { "Failures by kind" }
                thead { tr {
                    th scope="col" { "Kind" }
                    th.r scope="col" { "Requests" }
                    th.pic scope="col" { "When, among the requests of the model" }
                    th scope="col" { "Meaning, and the message as received" }
                } }
                tbody { @for row in rows { (table_row(page, row)) } }
            }
        }
    }
}

fn table_row(page: &PageData<'_>, row: &KindRow<'_>) -> Markup {
    let path = format!("groups/{}/requests/failures/{}", row.group.position, row.kind);
    let count = ShownFigure::at(0, path, row.count as f64, 1.0);
    html! {
        tr {
            th scope="row" {
                (page.key(&row.group).badge()) code { (visible(row.kind)) }
                @if let Some(workload) = row.group.workload() { " " i.tag { (visible(workload)) } }
            }
            td.r { b { (count) } }
            td.pic { @if let Some(picture) = when(row) { (picture) } }
            td { (meaning(row.kind)) span { (messages(row)) } }
        }
    }
}

/// Draws which requests failed; `None` without their lines.
fn when(row: &KindRow<'_>) -> Option<Markup> {
    let all = row.group.requests.points.len();
    let first = row.requests.first()?;
    let numbers: Vec<_> = row.requests.iter().map(|failed| failed.number).collect();
    let shown: Vec<_> = numbers.iter().take(20).map(ToString::to_string).collect();
    let more = if numbers.len() > shown.len() { " and more" } else { "" };
    let label = format!("{}: requests {}{more} of {all}", first.kind, shown.join(", "));
    let to = numbers.iter().copied().max().unwrap_or(1).max(all).max(2);
    let x = AxisScale { kind: ScaleKind::Linear, from: 1.0, to: to as f64, start: 8.0, end: 292.0 };
    let mut picture = Picture::new("vp", (300, 26), &label);
    picture.path("base", "M4 20H296");
    let mut grid = PathData::default();
    for quarter in 0..5 {
        let at = 8.0 + 71.0 * f64::from(quarter);
        grid.move_to(at, 16.0).line_to(at, 20.0);
    }
    picture.path("grid", &grid.done());
    let mut crosses = PathData::default();
    for number in numbers.iter().take(500) {
        let at = x.at(*number as f64);
        crosses
            .move_to(at - 4.0, 7.0)
            .line_to(at + 4.0, 15.0)
            .move_to(at + 4.0, 7.0)
            .line_to(at - 4.0, 15.0);
    }
    picture.path("fx", &crosses.done());
    Some(picture.finish())
}

/// Returns the different messages of a kind.
fn messages(row: &KindRow<'_>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for failed in &row.requests {
        let message = visible(&failed.message);
        let message = cut_lines(&message, LONGEST_MESSAGE).into_owned();
        if !seen.contains(&message) {
            seen.push(message);
        }
    }
    let more = seen.len().saturating_sub(MOST_MESSAGES);
    let shown = seen.iter().take(MOST_MESSAGES).cloned().collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{shown}; and {}", counted(more, "other message")) } else { shown }
}

/// Returns what a kind of failure means.
fn meaning(kind: &str) -> &'static str {
    let known = ErrorKind::ALL.iter().find(|known| known.name() == kind);
    match known {
        Some(ErrorKind::Connect) => {
            "No connection: the name was not found, or the server refused or could not be reached."
        }
        Some(ErrorKind::Tls) => "The TLS handshake failed.",
        Some(ErrorKind::ConnectTimeout) => "No connection within timeouts.connect.",
        Some(ErrorKind::FirstTokenTimeout) => "No token within timeouts.first_token.",
        Some(ErrorKind::InterTokenTimeout) => "No further token within timeouts.inter_token.",
        Some(ErrorKind::TotalTimeout) => "The answer did not end within timeouts.total.",
        Some(ErrorKind::HttpStatus) => "The server answered with an HTTP error status.",
        Some(ErrorKind::Redirect) => {
            "The server answered with a redirect; the client follows none."
        }
        Some(ErrorKind::NotAStream) => "The body is not an event stream.",
        Some(ErrorKind::Broken) => "The connection broke inside the answer.",
        Some(ErrorKind::TooLong) => "The answer is longer than the client keeps.",
        Some(ErrorKind::LeftOpen) => "The server kept the body open after the end of the answer.",
        Some(ErrorKind::Malformed) => "The bytes are not an event stream of this protocol.",
        Some(ErrorKind::InBand) => "The server reported an error inside the stream.",
        Some(ErrorKind::NoToken) => "The stream ended without a token.",
        Some(ErrorKind::NoFinishReason) => "The stream ended without a finish reason.",
        Some(ErrorKind::NoUsage) => "The server sent no token counts.",
        Some(ErrorKind::PromptLength) => "No prompt of the requested length was found.",
        Some(ErrorKind::Interrupted) => "The run was interrupted.",
        Some(ErrorKind::NotWritten) => "The results could not be written.",
        Some(ErrorKind::Internal) => "A defect in llm-stream-bench.",
        Some(_) | None => "A kind of failure that this version does not know.",
    }
}

fn trials(rows: &[KindRow<'_>]) -> Markup {
    let mut all: Vec<_> = rows.iter().flat_map(|row| &row.requests).collect();
    all.sort_by_key(|failed| failed.started);
    let row = |failed: &&&FailedRequest| {
        html! {
            th scope="row" { (visible(&failed.trial)) }
            td.r { (failed.number) }
            td.r { (failed.kind) }
            td.r { (failed.started.strftime("%H:%M:%S")) }
        }
    };
    let shown: Vec<_> = all.iter().take(MOST_TRIALS).map(row).collect();
    let name = match all.len() > shown.len() {
        true => format!("the first {} failed requests", shown.len()),
        false => "failed requests".into(),
    };
    html! { @if !shown.is_empty() { (folded(&name, &["Trial", "Request", "Kind", "Time, UTC"], &shown)) } }
}

/// Returns the loads that were not as asked for.
fn shortfalls(page: &PageData<'_>, loads: &[PageGroup<'_>]) -> Markup {
    html! {
        h3.ov { "Loads that were not reached" }
        ul.plain {
            @for group in loads {
                @for why in group.report.shortfalls.iter() {
                    li {
                        (mark("fail")) " " (page.key(group).named()) ", "
                        (visible(group.workload().unwrap_or_default())) ": " (coded(&sentence(&visible(why))))
                    }
                }
            }
        }
    }
}
