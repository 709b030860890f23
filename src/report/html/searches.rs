//! Searches for the highest load that holds its limits: the result, and each load with its figures.

use llm_stream_core::{text::visible, threshold::Threshold};
use maud::{Markup, html};

use super::{
    page_run::{PageData, PageGroup},
    table::scrolling,
};
use crate::report::{
    json::model::{SearchPointReport, SearchReport},
    search::decimal,
};

/// Returns the section, if there was a search.
pub(super) fn section(page: &PageData<'_>) -> Option<Markup> {
    let searched = page.groups(0).flat_map(|group| {
        let searches = group.report.searches.iter();
        searches.map(move |search| (group, search))
    });
    let searched: Vec<_> = searched.collect();
    let (first, search) = searched.first()?;
    Some(html! {
        section #capacity {
            h2 { (title(page, first, search)) }
            p.lead {
                "A load holds if its figures meet every limit. Loads count with the rate of their "
                "arrivals."
            }
            @for (group, search) in &searched {
                h3 {
                    (page.key(group).named()) ", " (visible(group.workload().unwrap_or_default()))
                    ": " (visible(&search.summary))
                }
                (table(page, group, search))
            }
        }
    })
}

fn title(page: &PageData<'_>, group: &PageGroup<'_>, search: &SearchReport) -> Markup {
    let name = &page.key(group).name;
    html! {
        @match search.found {
            Some(found) => { (name) " carries " (load(search, found)) }
            None => { "No load was found that " (name) " carries" }
        }
    }
}

fn load(search: &SearchReport, load: f64) -> String {
    let unit = if search.of_concurrency { " requests at a time" } else { " req/s" };
    format!("{}{unit}", decimal(load))
}

fn table(page: &PageData<'_>, group: &PageGroup<'_>, search: &SearchReport) -> Markup {
    let limits: Vec<_> = search.subject_to.iter().map(|of| visible(of).into_owned()).collect();
    let mut heads = vec!["Load", "Asked", "Requests"];
    heads.extend(limits.iter().map(String::as_str));
    heads.push("Result");
    let rows: Vec<_> = search.points.iter().map(|point| row(search, point)).collect();
    let name = format!("loads of the search of {}", page.key(group).name);
    scrolling(&name, &heads, &rows)
}

fn row(search: &SearchReport, point: &SearchPointReport) -> Markup {
    let result = match (point.holds, &point.overload) {
        (true, _) => "holds".to_owned(),
        (false, Some(why)) => format!("✕ {}", visible(why)),
        (false, None) => "✕ misses".to_owned(),
    };
    html! {
        th scope="row" { (load(search, point.arrival_rate.unwrap_or(point.load))) }
        td.r { (decimal(point.load)) }
        td.r { (point.requests) }
        @for (nth, limit) in search.subject_to.iter().enumerate() {
            td.r { (figure(limit, point.figures.get(nth).copied().flatten())) }
        }
        td.r { (result) }
    }
}

/// Formats the figure that a limit is on, in the unit of the limit.
fn figure(limit: &str, figure: Option<f64>) -> String {
    let unit = Threshold::parse(limit).map(|limit| limit.metric.unit.display());
    match (figure, unit) {
        (Some(figure), Ok((unit, scale))) => format!("{} {unit}", decimal(figure * scale)),
        (Some(figure), Err(_)) => decimal(figure),
        (None, _) => "–".to_owned(),
    }
}
