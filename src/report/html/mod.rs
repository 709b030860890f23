//! `report.html`: a run, or several next to each other, as one page for people. It is self-contained,
//! needs no network and no script, and is rendered from the stored files alone: every statistic is
//! that of `run.json`, and distributions and courses come from `requests.jsonl`.

mod bins;
mod distributions;
mod drift;
mod ecdf;
mod failures;
mod goodput;
mod header;
mod histogram;
mod instruments;
mod keys;
mod load;
mod numbers;
mod other_tools;
mod over_time;
mod page_run;
mod picture;
mod ranking;
mod repeat;
mod requests;
mod runs;
mod scale;
mod searches;
mod table;
mod timeline;
mod verdicts;

use std::io;

use llm_stream_core::{request_line::RequestLine, text::visible};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::{
    page_run::{PageData, PageRun},
    requests::RequestTable,
};
use crate::report::json::model::RunReport;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The requests of a stored run.
pub(crate) type StoredRequests<'r> =
    Box<dyn Iterator<Item = io::Result<RequestLine<'static>>> + 'r>;

/// A stored run to render.
pub(crate) struct RunSource<'r> {
    /// The name by which commands find it: that of its folder.
    pub(crate) name: String,
    /// Its `run.json`.
    pub(crate) report: &'r RunReport<'static>,
    /// Its requests; `None` if the run has no such file.
    pub(crate) requests: Option<StoredRequests<'r>>,
}

/// Renders the page. The newest run is its subject; the others are drawn next to it. At least one run
/// is required.
pub(crate) fn render<'r>(runs: impl IntoIterator<Item = RunSource<'r>>) -> io::Result<String> {
    let mut read_runs = Vec::new();
    for RunSource { name, report, requests } in runs {
        let has_requests = requests.is_some();
        let requests = RequestTable::gather(report, requests.into_iter().flatten())?;
        let name = visible(&name).into_owned();
        read_runs.push(PageRun { name, report, requests, has_requests, position: 0 });
    }
    if read_runs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no run to report on"));
    }
    Ok(document(&PageData::new(read_runs)).into_string())
}

fn document(page: &PageData<'_>) -> Markup {
    let sections = sections(page);
    let links: Vec<_> = sections.iter().map(|(id, text, _)| (*id, *text)).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (header::document_title(page)) }
                style { (PreEscaped(STYLE)) (PreEscaped(keys::colour_rules(&page.keys))) }
            }
            body {
                a.skip href="#verdicts" { "Skip to the verdicts" }
                (header::header(page, &links))
                main { @for (_, _, section) in &sections { (section) } }
                footer {
                    "Figures are those of " code { "run.json" } ", rounded; distributions come from " code { "requests.jsonl" }
                    ". Each chart has its data in a table. No script is needed to read this page."
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// Returns the sections that the runs have data for, with the texts of the links to them.
fn sections(page: &PageData<'_>) -> Vec<(&'static str, &'static str, Markup)> {
    let all = [
        ("verdicts", "Which limits were missed, and by how much", Some(verdicts::section(page))),
        ("ranking", "Which model is fastest", ranking::section(page)),
        ("runs", "How the runs differ", runs::section(page)),
        ("distributions", "How latency and speed are distributed", distributions::section(page)),
        ("order", "Whether figures drift", drift::section(page)),
        ("capacity", "Which load is the highest that holds its limits", searches::section(page)),
        ("load", "How much load the servers carry", load::section(page)),
        ("request", "What one request looks like", timeline::section(page)),
        ("failures", "What failed", Some(failures::section(page))),
        ("instrument", "How exact the figures are", Some(instruments::section(page))),
        ("definitions", "What other tools would report", other_tools::section(page)),
        ("repeat", "How to repeat this", Some(repeat::section(page))),
    ];
    all.into_iter().filter_map(|(id, link, section)| Some((id, link, section?))).collect()
}
