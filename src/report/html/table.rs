//! The frame of a chart: title, subtitle, picture, note, and its data as a table.

use maud::{Markup, html};

/// A chart with its texts.
#[derive(Debug, Default)]
pub(super) struct ChartFrame {
    /// The finding.
    pub(super) title: Option<Markup>,
    /// The metric, and how to read the chart.
    pub(super) subtitle: Option<Markup>,
    pub(super) art: Option<Markup>,
    pub(super) note: Option<Markup>,
    pub(super) table: Option<Markup>,
    /// Whether it takes two columns.
    pub(super) is_wide: bool,
}

impl ChartFrame {
    /// Returns the chart as markup.
    pub(super) fn render(self) -> Markup {
        html! {
            figure class=[self.is_wide.then_some("two")] {
                figcaption {
                    @if let Some(title) = self.title { h3 { (title) } }
                    @if let Some(subtitle) = self.subtitle { p.sub { (subtitle) } }
                }
                div.art { @if let Some(art) = self.art { (art) } }
                @if let Some(note) = self.note { p.note { (note) } }
                @if let Some(table) = self.table { div.tabs { (table) } }
            }
        }
    }
}

/// Returns a table that is folded until a reader opens it. The first column has the rows' names.
pub(super) fn folded(name: &str, heads: &[&str], rows: &[Markup]) -> Markup {
    html! {
        details {
            summary { "Table: " (name) }
            (scrolling(name, heads, rows))
        }
    }
}

/// Returns a table that scrolls where it is wider than the page.
pub(super) fn scrolling(name: &str, heads: &[&str], rows: &[Markup]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(name) {
            table.data {
                caption.vh { (name) }
                thead { tr {
                    @for (index, head) in heads.iter().enumerate() {
                        th scope="col" class=[(index > 0).then_some("r")] { (head) }
                    }
                } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}
