//! Draws the state of the run. Pure: from state, time and area to a buffer.

use std::{cmp::Reverse, time::Duration};

use llm_stream_core::{
    metric::Metric, statistic::Statistic, summary::group_name, text::visible, threshold::Threshold,
};
use ratatui_core::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Widget,
};
use ratatui_widgets::sparkline::Sparkline;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{figures::Standing, histogram::LogHistogram, state::LiveState};

/// The widest view. Wider terminals leave the rest blank.
pub(super) const WIDEST: u16 = 120;

/// The column in which figures begin.
const LABEL: u16 = 12;

/// The blanks between the bars and their figures.
const GAP: u16 = 2;

/// The columns that remain of a model's name.
const SHORTEST_NAME: usize = 10;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const BAD: Style = Style::new().fg(Color::Red);
const BARS: Style = Style::new().fg(Color::Cyan);

/// Returns the number of rows of the view.
pub(super) fn rows(state: &LiveState) -> u16 {
    if state.standings().next().is_some() { 6 } else { 5 }
}

/// Draws the view; rows that do not fit are left out.
pub(super) fn draw(state: &LiveState, now: Duration, area: Rect, buffer: &mut Buffer) {
    let area = Rect { width: area.width.min(WIDEST), ..area };
    let draw: [fn(&LiveState, Duration, Rect, &mut Buffer); 6] =
        [heading, throughput, ttft, tpot, errors, thresholds];
    for (draw, row) in draw.into_iter().zip(area.rows()).take(rows(state).into()) {
        draw(state, now, row, buffer);
    }
}

/// The model, the prompt or workload and the run; on the right the trial and the remaining time.
fn heading(state: &LiveState, now: Duration, area: Rect, buffer: &mut Buffer) {
    let mut right = String::new();
    if let Some(position) = state.position {
        right = format!("  trial {}/{}", position.trial, position.trials);
    }
    if let Some(left) = state.left(now) {
        right.push_str(&format!("  {} left", clock(left)));
    }
    let mut task = visible(&state.task).into_owned();
    if let Some(load) = &state.load {
        let of = load.of.map(|of| format!("/{of}")).unwrap_or_default();
        task.push_str(&format!("  {}{of} requests", load.ended));
    }
    let room = usize::from(area.width).saturating_sub(right.width());
    let left = if task.is_empty() { String::new() } else { format!("  {task}") };
    // A long name is cut before the rest is.
    let name = room.saturating_sub(left.width()).max(SHORTEST_NAME);
    let left = shortened(&visible(&state.subject), name) + &left;
    Line::styled(shortened(&left, room), BOLD).render(area, buffer);
    Line::raw(right).right_aligned().render(area, buffer);
}

/// The tokens of the last seconds.
fn throughput(state: &LiveState, _: Duration, area: Rect, buffer: &mut Buffer) {
    let mut text = match state.tokens_per_second() {
        Some(speed) => format!("{} tok/s", number(speed)),
        None => "-".into(),
    };
    let streams = state.streams();
    let unit = if streams == 1 { "stream" } else { "streams" };
    text.push_str(&format!("  {streams} {unit} open"));
    let columns = labelled("throughput", text, area, buffer);
    let bars: Vec<_> = state.bars().collect();
    let shown = bars.len().min(usize::from(columns.width));
    bars_in(&bars[bars.len() - shown..], columns, buffer);
}

fn ttft(state: &LiveState, _: Duration, area: Rect, buffer: &mut Buffer) {
    distribution(Metric::TTFT, state.figures().map(|figures| &figures.ttft), area, buffer);
}

fn tpot(state: &LiveState, _: Duration, area: Rect, buffer: &mut Buffer) {
    distribution(Metric::TPOT, state.figures().map(|figures| &figures.tpot), area, buffer);
}

/// A metric of the group: its values on a log axis from the least to the largest.
fn distribution(metric: &Metric, values: Option<&LogHistogram>, area: Rect, buffer: &mut Buffer) {
    let (unit, scale) = metric.unit.display();
    let figure = |name: &str, statistic| {
        let value = values?.statistic(statistic, 0)?;
        Some(format!("{name} {}", number(value * scale)))
    };
    let p95 = figure("p95", Statistic::Percentile(95.0)).filter(|_| area.width >= 80);
    let figures = [figure("median", Statistic::Median), p95, figure("max", Statistic::Max)];
    let figures: Vec<_> = figures.into_iter().flatten().collect();
    let text = match figures.is_empty() {
        true => "-".to_owned(),
        false => format!("{} {unit}", figures.join("  ")),
    };
    let columns = labelled(metric.name, text, area, buffer);
    let heights = values.map(|values| values.columns(columns.width.into())).unwrap_or_default();
    bars_in(&heights, columns, buffer);
}

/// The failed requests by kind.
fn errors(state: &LiveState, _: Duration, area: Rect, buffer: &mut Buffer) {
    let failed: usize = state.failures.values().sum();
    let mut kinds: Vec<_> = state.failures.iter().collect();
    kinds.sort_by_key(|(_, count)| Reverse(**count));
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let text = match (failed, state.requests) {
        (0, 0) => Span::raw("-"),
        (0, requests) => Span::raw(format!("none in {requests}")),
        (_, requests) => Span::styled(format!("{failed} of {requests}: {}", kinds.join(", ")), BAD),
    };
    labelled_line("errors", Line::from(text), area, buffer);
}

/// How many thresholds hold so far, and the missed ones.
fn thresholds(state: &LiveState, _: Duration, area: Rect, buffer: &mut Buffer) {
    let (mut hold, mut open, mut missed) = (0, 0, Vec::new());
    for (spec, threshold, standing) in state.standings() {
        match standing {
            Standing::Holds => hold += 1,
            Standing::Open => open += 1,
            Standing::Missed(figure) => {
                let name = group_name(&spec.model, spec.workload_name());
                let name = Some(name).filter(|_| state.has_several_groups());
                missed.push(missed_text(name.as_deref(), threshold, figure));
            }
        }
    }
    let mut counts = vec![format!("{hold} hold so far")];
    counts.extend((open > 0).then(|| format!("{open} open")));
    let mut line = Line::from(counts.join(", "));
    if !missed.is_empty() {
        line.push_span(Span::raw(", "));
        let text = format!("{} missed: {}", missed.len(), missed.join("; "));
        line.push_span(Span::styled(text, BAD));
    }
    labelled_line("thresholds", line, area, buffer);
}

fn missed_text(group: Option<&str>, threshold: &Threshold, figure: f64) -> String {
    let (unit, scale) = threshold.metric.unit.display();
    let group = group.map(|name| format!(" ({})", visible(name))).unwrap_or_default();
    let figure = match figure.is_finite() {
        true => format!("{} {unit}", number(figure * scale)),
        false => "too many failures".into(),
    };
    format!("{threshold}: {figure}{group}")
}

/// Draws a label and, at the right of the bars, a text; returns the area of the bars.
fn labelled(label: &str, text: String, area: Rect, buffer: &mut Buffer) -> Rect {
    let most = match area.width {
        0..80 => 28,
        80..100 => 38,
        _ => 44,
    };
    let [label_area, bars, _, text_area] = Layout::horizontal([
        Constraint::Length(LABEL),
        Constraint::Fill(1),
        Constraint::Length(GAP),
        Constraint::Length(most),
    ])
    .areas(area);
    Line::styled(label.to_owned(), DIM).render(label_area, buffer);
    Line::raw(shortened(&text, text_area.width.into())).render(text_area, buffer);
    bars
}

fn labelled_line(label: &str, line: Line<'_>, area: Rect, buffer: &mut Buffer) {
    let [label_area, rest] =
        Layout::horizontal([Constraint::Length(LABEL), Constraint::Fill(1)]).areas(area);
    Line::styled(label.to_owned(), DIM).render(label_area, buffer);
    let mut room = usize::from(rest.width);
    let mut shown = Line::default();
    for span in line.spans {
        let text = shortened(&span.content, room);
        room -= text.width().min(room);
        shown.push_span(Span::styled(text, span.style));
    }
    shown.render(rest, buffer);
}

fn bars_in(heights: &[f64], area: Rect, buffer: &mut Buffer) {
    const STEPS: f64 = 800.0;
    let most = heights.iter().copied().fold(0.0, f64::max);
    let height = |&height: &f64| match height > 0.0 {
        // The lowest bars are visible too: a value is not the same as none.
        true => (height / most * STEPS).max(STEPS / 8.0) as u64,
        false => 0,
    };
    let heights: Vec<u64> = heights.iter().map(height).collect();
    Sparkline::default().data(heights).max(STEPS as u64).style(BARS).render(area, buffer);
}

/// Returns the text, or its beginning with `…` if it is wider than `room`.
fn shortened(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut width = 0;
    let fits = |c: &char| {
        width += c.width().unwrap_or(0);
        width < room
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.extend((room > 0).then_some('…'));
    short
}

/// Formats a figure with at least three digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        magnitude if magnitude >= 99.95 || magnitude == 0.0 => 0,
        magnitude if magnitude >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}
