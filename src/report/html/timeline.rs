//! One request, token by token: connect, wait, reasoning, answer, trailer.

use llm_stream_core::text::visible;
use maud::{Markup, html};

use super::{
    distributions::drawn_groups,
    keys::ModelKey,
    numbers::{THIN, percent, plain, with_unit},
    page_run::{PageData, PageGroup},
    picture::{Anchor, PathData, Picture, PlotFrame},
    requests::Timeline,
    scale::{AxisScale, ScaleKind},
    table::{ChartFrame, folded},
};

/// More token events than this are drawn as every n-th one.
const MOST_EVENTS: usize = 250;

/// A part of a request, in milliseconds since it was handed over.
#[derive(Debug, Clone, Copy, PartialEq)]
struct RequestPhase {
    name: &'static str,
    class: &'static str,
    from: f64,
    to: f64,
}

impl RequestPhase {
    fn length(&self) -> f64 {
        self.to - self.from
    }
}

/// Returns the section; `None` without a valid request.
pub(super) fn section(page: &PageData<'_>) -> Option<Markup> {
    let groups = page.one_by_one();
    let groups = if groups.iter().any(|group| group.requests.typical().is_some()) {
        groups
    } else {
        page.loads()
    };
    let drawn = drawn_groups(page, &groups);
    let typical: Vec<_> =
        drawn.iter().filter_map(|group| Some((*group, group.requests.typical()?))).collect();
    let with_reasoning = typical.iter().find(|(_, timeline)| timeline.has_reasoning);
    let (group, timeline) = with_reasoning.or(typical.first())?;
    Some(html! {
        section #request {
            h2 { "One request, token by token" }
            p.lead {
                "The request with about the median duration of its model. "
                code { "ttft" } " is the wait"
                @if timeline.has_reasoning { ", " code { "ttfo" } " the wait and the reasoning, " code { "generation_time" } " reasoning and answer." }
                @else { ", " code { "generation_time" } " the answer." }
            }
            div.grid3 {
                (one(page.key(group), group, timeline))
                @if typical.len() > 1 { (race(page, &typical)) } @else { @if let Some(gaps) = gaps(page.key(group), timeline) { (gaps) } }
            }
        }
    })
}

/// Returns the parts of a request. Parts without a length are left out.
fn phases(of: &Timeline) -> Vec<RequestPhase> {
    let (first, last) = (of.first(), of.last());
    let answer = of.first_answer.filter(|_| of.has_reasoning).unwrap_or(first).clamp(first, last);
    let all = [
        ("connect", "p0", -of.connect.unwrap_or(0.0), 0.0),
        ("wait", "p1", 0.0, first),
        ("reasoning", "p2", first, answer),
        ("answer", "p3", answer, last),
        ("trailer", "p4", last, of.end),
    ];
    let phases = all.map(|(name, class, from, to)| RequestPhase { name, class, from, to });
    phases.into_iter().filter(|phase| phase.length() > 0.0).collect()
}

fn one(key: &ModelKey, group: &PageGroup<'_>, timeline: &Timeline) -> Markup {
    let phases = phases(timeline);
    let whole: f64 = phases.iter().map(RequestPhase::length).sum();
    let shares: Vec<_> = phases
        .iter()
        .filter(|phase| phase.name != "connect" && phase.name != "trailer")
        .map(|phase| {
            let name = if phase.name == "wait" { "waiting" } else { phase.name };
            format!("{} {name}", percent(phase.length() / whole))
        })
        .collect();
    let rows: Vec<_> = phases.iter().map(phase_row).collect();
    let label = label(timeline, &phases);
    let requests = group.requests.points.len();
    ChartFrame {
        title: Some(html! { "One request: " (shares.join(", ")) " of the time" }),
        subtitle: Some(html! {
            (key.named()) ", request " (timeline.number) " of " (requests) ", "
            code { (visible(&timeline.trial)) }
            ": token events received, one mark per event above the curve."
            @if timeline.connect.is_some() { " The connection is opened before the request and is in no other figure." }
        }),
        art: Some(html! { (draw(timeline, &phases, &label, 740)) (draw(timeline, &phases, &label, 360)) }),
        note: note(timeline),
        table: Some(folded("phases of one request, ms", &["Phase", "From", "To", "Duration"], &rows)),
        is_wide: true,
    }
    .render()
}

fn note(timeline: &Timeline) -> Option<Markup> {
    let events = timeline.arrivals.len();
    let tls = timeline
        .tls
        .map(|tls| html! { " The TLS handshake took " (plain(tls)) (THIN) "ms of connect." });
    Some(html! {
        (timeline.tokens) " tokens in " (llm_stream_core::text::counted(events, "event")) "."
        @if events > MOST_EVENTS { " Every " (ordinal(events.div_ceil(MOST_EVENTS))) " event is drawn." }
        @if let Some(tls) = tls { (tls) }
    })
}

fn phase_row(phase: &RequestPhase) -> Markup {
    html! {
        th scope="row" { (phase.name) }
        td.r { (plain(phase.from)) } td.r { (plain(phase.to)) } td.r { (plain(phase.length())) }
    }
}

fn label(timeline: &Timeline, phases: &[RequestPhase]) -> String {
    let parts: Vec<_> =
        phases.iter().map(|phase| format!("{} {} ms", phase.name, plain(phase.length()))).collect();
    let gap = longest_gap(timeline)
        .map_or_else(String::new, |(_, gap)| format!(", longest gap {} ms", plain(gap)));
    format!(
        "Timeline of one request: {}; {} token events{gap}",
        parts.join(", "),
        timeline.arrivals.len()
    )
}

/// Returns the number of the event before the longest gap, and the gap.
fn longest_gap(timeline: &Timeline) -> Option<(usize, f64)> {
    let gaps = timeline.arrivals.windows(2).map(|pair| f64::from(pair[1] - pair[0]));
    gaps.enumerate().map(|(index, gap)| (index + 1, gap)).max_by(|a, b| a.1.total_cmp(&b.1))
}

fn draw(timeline: &Timeline, phases: &[RequestPhase], label: &str, width: u32) -> Markup {
    let is_wide = width > 400;
    let (class, height, top) =
        if is_wide { ("plot wide", 250, 70.0) } else { ("plot narrow", 264, 84.0) };
    let bottom = f64::from(height) - 36.0;
    let right = f64::from(width) - 14.0;
    let from = phases.first().map_or(0.0, |phase| phase.from);
    let to = phases.last().map_or(1.0, |phase| phase.to);
    let pad = (to - from) * 0.01;
    let x = AxisScale {
        kind: ScaleKind::Linear,
        from: from - pad,
        to: to + pad,
        start: 36.0,
        end: right,
    };
    let events = timeline.arrivals.len() as f64;
    let y = AxisScale { kind: ScaleKind::Linear, from: 0.0, to: events, start: bottom, end: top };
    let mut picture = Picture::new(class, (width, height), label);
    let frame = PlotFrame { x, y };
    let ticks = x.ticks(if is_wide { 10 } else { 5 });
    frame.draw_x(&mut picture, &ticks, "ms since the request was sent");
    frame.draw_y(&mut picture, &y.ticks(5), "");
    let bar = if is_wide { 24.0 } else { 38.0 };
    picture.text("at", (0.0, bar + 31.0), Anchor::Start, "events");
    draw_phases(&mut picture, phases, &x, bar);
    draw_events(&mut picture, timeline, &frame, bar + 24.0);
    picture.finish()
}

/// Draws the parts as a bar. A name that does not fit is above, with a line to its part.
fn draw_phases(picture: &mut Picture, phases: &[RequestPhase], x: &AxisScale, top: f64) {
    let mut free = [x.start - 30.0; 2];
    for phase in phases {
        let (left, right) = (x.at(phase.from), x.at(phase.to));
        let tip = format!("{}: {}", phase.name, with_unit(&plain(phase.length()), "ms"));
        picture.phase(phase.class, (left, top), (right - left).max(1.0), &tip);
        let text = format!("{} {}", phase.name, plain(phase.length()));
        let needs = text.len() as f64 * 5.8 + 8.0;
        let middle = f64::midpoint(left, right);
        if right - left >= needs {
            picture.text("on", (middle, top + 14.0), Anchor::Middle, &text);
            continue;
        }
        // Two rows above the bar in the narrow form, one in the wide one.
        let rows = if top > 30.0 { 2 } else { 1 };
        let begin = (middle - needs / 2.0).clamp(0.0, (x.end + 12.0 - needs).max(0.0));
        let Some(row) = (0..rows).find(|row| begin >= free[*row]) else { continue };
        free[row] = begin + needs;
        let line = top - 8.0 - 14.0 * row as f64;
        let d = PathData::default().move_to(middle, top).line_to(middle, line).done();
        picture.path("lead", &d);
        picture.text("lb", (begin + 4.0, line - 3.0), Anchor::Start, &text);
    }
}

fn draw_events(picture: &mut Picture, timeline: &Timeline, frame: &PlotFrame, top: f64) {
    let every = timeline.arrivals.len().div_ceil(MOST_EVENTS).max(1);
    let events: Vec<(f64, f64)> = timeline
        .arrivals
        .iter()
        .zip(1..)
        .map(|(time, count)| (f64::from(*time), f64::from(count)))
        .collect();
    let last = events.len().saturating_sub(1);
    let drawn = events.iter().enumerate().filter(|(index, _)| index % every == 0 || *index == last);
    let (mut marks, mut curve) = (PathData::default(), PathData::default());
    for (index, (_, (time, count))) in drawn.enumerate() {
        let x = frame.x.at(*time);
        marks.move_to(x, top).line_to(x, top + 8.0);
        if index == 0 {
            curve.move_to(x, frame.y.at(0.0));
        }
        curve.across_to(x).line_to(x, frame.y.at(*count));
    }
    picture.path("tick2", &marks.done());
    picture.path("ln tok", &curve.done());
    let Some((number, gap)) = longest_gap(timeline) else { return };
    let y = frame.y.at(number as f64);
    let (from, to) = (events[number - 1].0, events[number].0);
    let (left, right) = (frame.x.at(from), frame.x.at(to));
    picture.path("lead gap", &PathData::default().move_to(left, y).line_to(right, y).done());
    let text = format!("longest gap {}", with_unit(&plain(gap), "ms"));
    match f64::midpoint(left, right) > f64::midpoint(frame.x.start, frame.x.end) {
        true => {
            picture.text("lb", (left - 6.0, (y - 4.0).max(frame.y.end + 10.0)), Anchor::End, &text)
        }
        false => picture.text(
            "lb",
            (right + 6.0, (y + 12.0).min(frame.y.start - 4.0)),
            Anchor::Start,
            &text,
        ),
    }
}

/// Draws each gap of a request by the number of its event.
fn gaps(key: &ModelKey, timeline: &Timeline) -> Option<Markup> {
    let gaps: Vec<f64> =
        timeline.arrivals.windows(2).map(|pair| f64::from(pair[1] - pair[0])).collect();
    let (number, longest) = longest_gap(timeline)?;
    let x = AxisScale {
        kind: ScaleKind::Linear,
        from: 1.0,
        to: (gaps.len() + 1) as f64,
        start: 38.0,
        end: 348.0,
    };
    let y = AxisScale::from_zero(gaps.iter().copied(), (214.0, 18.0));
    let label =
        format!("Gap before each token event of one request; the longest is {} ms", plain(longest));
    let y_ends = format!("{:.1},{:.1},{:.4},{:.4}", y.end, y.start, y.from, y.to);
    let mut picture = Picture::new("plot", (360, 250), &label).data(&[
        ("data-x", &*x.for_script()),
        ("data-hov", "d"),
        ("data-u", "event|ms"),
        ("data-y", &y_ends),
    ]);
    let frame = PlotFrame { x, y };
    let ticks: Vec<_> = x.ticks(6).into_iter().filter(|tick| tick.fract() == 0.0).collect();
    frame.draw_x(&mut picture, &ticks, "token event");
    frame.draw_y(&mut picture, &y.ticks(5), "gap, ms");
    let every = gaps.len().div_ceil(2 * MOST_EVENTS).max(1);
    let mut dots = PathData::default();
    for (index, gap) in
        gaps.iter().enumerate().filter(|(index, _)| index % every == 0 || index + 1 == number)
    {
        dots.dot(x.at((index + 2) as f64), y.at(*gap));
    }
    picture.model_path("s ds", &dots.done(), &key.letter, "");
    let frame = ChartFrame {
        title: Some(html! {
            "The longest gap of this request is " (plain(longest)) (THIN) "ms, before its " (ordinal(number + 1)) " token event"
        }),
        subtitle: Some(html! { "Gap before each token event of the same request" }),
        art: Some(picture.finish()),
        ..ChartFrame::default()
    };
    Some(frame.render())
}

fn ordinal(n: usize) -> String {
    let suffix = match (n % 10, n % 100) {
        (1, tens) if tens != 11 => "st",
        (2, tens) if tens != 12 => "nd",
        (3, tens) if tens != 13 => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

/// Draws the tokens received over time of the typical request of each model.
fn race(page: &PageData<'_>, typical: &[(PageGroup<'_>, &Timeline)]) -> Markup {
    let times = typical.iter().flat_map(|(_, timeline)| [timeline.first(), timeline.last()]);
    let x = AxisScale::around(ScaleKind::Log, times, (32.0, 340.0), 0.04);
    let most = typical.iter().map(|(_, timeline)| timeline.arrivals.len() as f64);
    let y = AxisScale::from_zero(most, (214.0, 18.0));
    let frame = PlotFrame { x, y };
    let described: Vec<_> = typical
        .iter()
        .map(|(group, of)| {
            format!(
                "{}: {} token events in {} ms",
                page.key(group).name,
                of.arrivals.len(),
                plain(of.last())
            )
        })
        .collect();
    let label = format!(
        "Tokens received over time, the median request of each model. {}",
        described.join("; ")
    );
    let y_ends = format!("{:.1},{:.1},{:.4},{:.4}", y.end, y.start, y.from, y.to);
    let mut picture = Picture::new("plot", (360, 250), &label).data(&[
        ("data-x", &*x.for_script()),
        ("data-hov", "y"),
        ("data-u", "ms"),
        ("data-y", &y_ends),
    ]);
    frame.draw_x(&mut picture, &x.ticks(7), "ms since the request was sent (log)");
    frame.draw_y(&mut picture, &y.ticks(5), "token events");
    for (group, timeline) in typical {
        let key = page.key(group);
        picture.model_path("s ln", &race_curve(timeline, &frame), &key.letter, "");
        let at = (frame.x.clamped(timeline.last()), frame.y.at(timeline.arrivals.len() as f64));
        picture.badge(key, at);
    }
    let rows: Vec<_> =
        typical.iter().map(|(group, timeline)| race_row(page.key(group), timeline)).collect();
    ChartFrame {
        title: Some(race_title(page, typical)),
        subtitle: Some(html! { "Token events received, of the request with about the median duration of each model" }),
        art: Some(picture.finish()),
        table: Some(folded("time to the n-th token event, ms", &["Model", "1st", "10th", "20th", "last"], &rows)),
        ..ChartFrame::default()
    }
    .render()
}

fn race_curve(timeline: &Timeline, frame: &PlotFrame) -> String {
    let every = timeline.arrivals.len().div_ceil(MOST_EVENTS / 2).max(1);
    let last = timeline.arrivals.len().saturating_sub(1);
    let mut curve = PathData::default();
    curve.move_to(frame.x.clamped(timeline.first()), frame.y.at(0.0));
    for (index, time) in timeline.arrivals.iter().enumerate() {
        if index % every == 0 || index == last {
            let x = frame.x.clamped(f64::from(*time));
            curve.across_to(x).line_to(x, frame.y.at((index + 1) as f64));
        }
    }
    curve.done()
}

/// Returns the finding: how many events the fastest and the slowest model have sent at one time.
fn race_title(page: &PageData<'_>, typical: &[(PageGroup<'_>, &Timeline)]) -> Markup {
    let ends = typical.iter().map(|(_, timeline)| timeline.last());
    let end = ends.fold(f64::INFINITY, f64::min);
    let sent = |timeline: &Timeline| {
        timeline.arrivals.iter().filter(|time| f64::from(**time) <= end).count()
    };
    let counts = || typical.iter().map(|(group, timeline)| (page.key(group), sent(timeline)));
    match (counts().max_by_key(|(_, n)| *n), counts().min_by_key(|(_, n)| *n)) {
        (Some((fast, many)), Some((slow, few))) => html! {
            "After " (plain(end)) (THIN) "ms " (fast.name) " has sent " (llm_stream_core::text::counted(many, "token event"))
            ", " (slow.name) " " (few)
        },
        _ => html! {},
    }
}

fn race_row(key: &ModelKey, timeline: &Timeline) -> Markup {
    let at = |index: usize| {
        timeline.arrivals.get(index).map_or_else(|| "–".into(), |time| plain(f64::from(*time)))
    };
    html! {
        th scope="row" { (key.named()) }
        td.r { (at(0)) } td.r { (at(9)) } td.r { (at(19)) }
        td.r { (plain(timeline.last())) " (" (timeline.arrivals.len()) ")" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline() -> Timeline {
        Timeline {
            connect: Some(5.0),
            tls: None,
            first_answer: Some(30.0),
            has_reasoning: true,
            end: 60.0,
            arrivals: vec![10.0, 20.0, 30.0, 50.0],
            tokens: 4,
            trial: "m::p::run-1".into(),
            number: 1,
        }
    }

    #[test]
    fn phases_cover_the_request_without_gaps() {
        let phases = phases(&timeline());
        let names: Vec<_> = phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["connect", "wait", "reasoning", "answer", "trailer"]);
        assert!(phases.windows(2).all(|pair| pair[0].to == pair[1].from));
        assert_eq!((phases[0].from, phases[4].to), (-5.0, 60.0));
    }

    #[test]
    fn a_request_without_reasoning_or_connect_has_three_phases() {
        let plain = Timeline {
            connect: None,
            first_answer: Some(10.0),
            has_reasoning: false,
            ..timeline()
        };
        let names: Vec<_> = phases(&plain).iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["wait", "answer", "trailer"]);
    }

    #[test]
    fn the_longest_gap_is_found() {
        assert_eq!(longest_gap(&timeline()), Some((3, 20.0)));
    }
}
