//! SVG: a picture with its elements in the order in which they are drawn. Text is escaped here.

use maud::{Escaper, Markup, PreEscaped};
use std::fmt::Write as _;

use super::{keys::ModelKey, scale::AxisScale};

/// Where a text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A picture that is being drawn.
#[derive(Debug)]
pub(super) struct Picture {
    out: String,
}

impl Picture {
    /// Begins a picture. `label` is its text for screen readers.
    pub(super) fn new(class: &str, (width, height): (u32, u32), label: &str) -> Self {
        let mut out = format!(
            r#"<svg class="{class}" viewBox="0 0 {width} {height}" role="img" aria-label=""#
        );
        push_escaped(&mut out, label);
        out.push('"');
        Self { out: out + ">" }
    }

    /// Adds attributes for the page's script, such as `data-x`.
    pub(super) fn data(mut self, attributes: &[(&str, &str)]) -> Self {
        self.out.pop();
        for (name, value) in attributes {
            let _ = write!(self.out, " {name}=\"");
            push_escaped(&mut self.out, value);
            self.out.push('"');
        }
        self.out.push('>');
        self
    }

    /// Draws a path.
    pub(super) fn path(&mut self, class: &str, d: &str) {
        if !d.is_empty() {
            let _ = write!(self.out, r#"<path class="{class}" d="{d}"/>"#);
        }
    }

    /// Draws a path of a model; hovering over it shows `name`.
    pub(super) fn model_path(&mut self, class: &str, d: &str, letter: &str, name: &str) {
        let _ = write!(self.out, r#"<path class="{class}" d="{d}" data-m="{letter}""#);
        if !name.is_empty() {
            self.out.push_str(" data-n=\"");
            push_escaped(&mut self.out, name);
            self.out.push('"');
        }
        self.out.push_str("/>");
    }

    /// Fills a rectangle.
    pub(super) fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let (x, y, width, height) = (px(x), px(y), px(width.max(0.0)), px(height.max(0.0)));
        let _ = write!(
            self.out,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#
        );
    }

    /// Hatches a rectangle: with lines, because patterns are printed as pixels.
    pub(super) fn hatch(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        const STEP: f64 = 7.0;
        let mut lines = PathData::default();
        // Each line rises from the lower edge at `start`, cut at the sides.
        let first = (x / STEP).floor() * STEP - height;
        let mut start = first - first.rem_euclid(STEP);
        while start < x + width {
            let (left, right) = (start.max(x), (start + height).min(x + width));
            if right > left {
                lines
                    .move_to(left, y + height - (left - start))
                    .line_to(right, y + height - (right - start));
            }
            start += STEP;
        }
        self.path(class, &lines.done());
    }

    /// Draws a part of a request, 20 high, with a text that hovering over it shows.
    pub(super) fn phase(&mut self, class: &str, (x, y): (f64, f64), width: f64, tip: &str) {
        let _ = write!(self.out, r#"<rect class="ph {class}" x="{}" y="{}" "#, px(x), px(y));
        let _ = write!(self.out, r#"width="{}" height="20" data-tip=""#, px(width));
        push_escaped(&mut self.out, tip);
        self.out.push_str("\"/>");
    }

    /// Draws a mark with a text that hovering over it shows.
    pub(super) fn mark(
        &mut self,
        class: &str,
        (x, y): (f64, f64),
        radius: f64,
        letter: &str,
        tip: &str,
    ) {
        let _ = write!(self.out, r#"<g class="pp" data-m="{letter}" data-tip=""#);
        push_escaped(&mut self.out, tip);
        let (x, y) = (px(x), px(y));
        let _ =
            write!(self.out, r#""><circle class="{class}" cx="{x}" cy="{y}" r="{radius}"/></g>"#);
    }

    /// Draws a circle.
    pub(super) fn circle(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let (x, y) = (px(x), px(y));
        let _ = write!(self.out, r#"<circle class="{class}" cx="{x}" cy="{y}" r="{radius}"/>"#);
    }

    /// Writes a text.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        if text.is_empty() {
            return;
        }
        let (x, y, anchor) = (px(x), px(y), anchor.name());
        let _ =
            write!(self.out, r#"<text class="{class}" x="{x}" y="{y}" text-anchor="{anchor}">"#);
        push_escaped(&mut self.out, text);
        self.out.push_str("</text>");
    }

    /// Draws a model's letter in a circle.
    pub(super) fn badge(&mut self, key: &ModelKey, (x, y): (f64, f64)) {
        let letter = &key.letter;
        let radius = if letter.len() > 1 { 8.5 } else { 7.0 };
        let (cx, cy, ty) = (px(x), px(y), px(y + 3.4));
        let _ = write!(
            self.out,
            r#"<g class="bd" data-m="{letter}"><circle cx="{cx}" cy="{cy}" r="{radius}"/><text x="{cx}" y="{ty}" text-anchor="middle">{letter}</text></g>"#
        );
    }

    /// Returns the picture as markup.
    pub(super) fn finish(mut self) -> Markup {
        self.out.push_str("</svg>");
        PreEscaped(self.out)
    }
}

fn push_escaped(out: &mut String, text: &str) {
    let _ = Escaper::new(out).write_str(text);
}

/// Formats a position with one decimal, which is enough for a pixel on any screen.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

/// Collects the commands of a path.
#[derive(Debug, Default)]
pub(super) struct PathData {
    d: String,
    at: Option<(String, String)>,
}

impl PathData {
    /// Moves to a point.
    pub(super) fn move_to(&mut self, x: f64, y: f64) -> &mut Self {
        let (x, y) = (px(x), px(y));
        let _ = write!(self.d, "M{x} {y}");
        self.at = Some((x, y));
        self
    }

    /// Draws a line to a point; a point at the same place as the last adds nothing.
    pub(super) fn line_to(&mut self, x: f64, y: f64) -> &mut Self {
        let (x, y) = (px(x), px(y));
        match &self.at {
            None => _ = write!(self.d, "M{x} {y}"),
            Some((old_x, old_y)) if *old_x == x && *old_y == y => return self,
            Some((old_x, _)) if *old_x == x => _ = write!(self.d, "V{y}"),
            Some((_, old_y)) if *old_y == y => _ = write!(self.d, "H{x}"),
            Some(_) => _ = write!(self.d, "L{x} {y}"),
        }
        self.at = Some((x, y));
        self
    }

    /// Draws a line to the position `x` at the height of the last point.
    pub(super) fn across_to(&mut self, x: f64) -> &mut Self {
        let x = px(x);
        if let Some((old_x, y)) = self.at.take() {
            if old_x != x {
                let _ = write!(self.d, "H{x}");
            }
            self.at = Some((x, y));
        }
        self
    }

    /// Draws a dot: with round ends, a line without a length.
    pub(super) fn dot(&mut self, x: f64, y: f64) -> &mut Self {
        let _ = write!(self.d, "M{} {}h0", px(x), px(y));
        self
    }

    /// Closes the shape.
    pub(super) fn close(&mut self) -> &mut Self {
        self.d.push('Z');
        self
    }

    /// Returns the commands.
    pub(super) fn done(&mut self) -> String {
        self.at = None;
        std::mem::take(&mut self.d)
    }
}

/// The frame of a chart: its axes, whose ends are the plot's edges.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlotFrame {
    pub(super) x: AxisScale,
    pub(super) y: AxisScale,
}

impl PlotFrame {
    /// Draws the grid and the labels of the horizontal axis, and its name at the end.
    pub(super) fn draw_x(&self, picture: &mut Picture, ticks: &[f64], name: &str) {
        let (top, bottom) = (self.y.end, self.y.start);
        let mut grid = PathData::default();
        for tick in ticks {
            grid.move_to(self.x.at(*tick), top).line_to(self.x.at(*tick), bottom);
        }
        picture.path("grid", &grid.done());
        for (tick, label) in ticks.iter().zip(tick_labels(ticks)) {
            picture.text("ax", (self.x.at(*tick), bottom + 14.0), Anchor::Middle, &label);
        }
        let line =
            PathData::default().move_to(self.x.start, bottom).line_to(self.x.end, bottom).done();
        picture.path("base", &line);
        picture.text("at", (self.x.end, bottom + 34.0), Anchor::End, name);
    }

    /// Draws the grid and the labels of the vertical axis, and its name above.
    pub(super) fn draw_y(&self, picture: &mut Picture, ticks: &[f64], name: &str) {
        let labels = tick_labels(ticks);
        let labelled: Vec<_> = ticks.iter().copied().zip(labels).collect();
        self.draw_labelled_y(picture, &labelled, name);
    }

    /// Draws the grid of the vertical axis with these labels, and its name above.
    pub(super) fn draw_labelled_y(
        &self,
        picture: &mut Picture,
        ticks: &[(f64, String)],
        name: &str,
    ) {
        let mut grid = PathData::default();
        for (tick, _) in ticks {
            grid.move_to(self.x.start, self.y.at(*tick)).line_to(self.x.end, self.y.at(*tick));
        }
        picture.path("grid", &grid.done());
        for (tick, label) in ticks {
            let at = (self.x.start - 6.0, self.y.at(*tick) + 3.5);
            picture.text("ax", at, Anchor::End, label);
        }
        picture.text("at", (0.0, 9.0), Anchor::Start, name);
    }
}

/// Labels ticks with as many decimals as their steps need.
pub(super) fn tick_labels(ticks: &[f64]) -> Vec<String> {
    let decimals = (0..9).find(|decimals| {
        let unit = 10f64.powi(*decimals);
        ticks.iter().all(|tick| {
            let scaled = tick * unit;
            (scaled - scaled.round()).abs() < 1e-6 * scaled.abs().max(1.0)
        })
    });
    let is_even = ticks
        .windows(3)
        .all(|of| (of[2] - of[1] - (of[1] - of[0])).abs() < 1e-9 * of[2].abs().max(1e-12));
    let decimals = decimals.unwrap_or(9) as usize;
    let one = |tick: &f64| {
        // On a logarithmic axis each label has only its own decimals.
        let own = (0..=decimals).find(|own| {
            let scaled = tick * 10f64.powi(*own as i32);
            (scaled - scaled.round()).abs() < 1e-6 * scaled.abs().max(1.0)
        });
        let decimals = if is_even { decimals } else { own.unwrap_or(decimals) };
        super::numbers::fixed(*tick, decimals)
    };
    ticks.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_inert_in_labels_texts_and_tips() {
        let hostile = "\"><script>alert(1)</script>&'";
        let mut picture = Picture::new("plot", (1, 1), hostile).data(&[("data-u", hostile)]);
        picture.text("ax", (0.0, 0.0), Anchor::Start, hostile);
        picture.mark("dotf", (0.0, 0.0), 1.0, "A", hostile);
        picture.model_path("ln", "M0 0", "A", hostile);
        let svg = picture.finish().into_string();
        assert!(!svg.contains("<script"), "{svg}");
        assert_eq!(svg.matches("&quot;&gt;&lt;script").count(), 5, "{svg}");
    }

    #[test]
    fn paths_are_short() {
        let mut path = PathData::default();
        path.move_to(0.0, 1.0).line_to(5.04, 1.0).line_to(5.04, 2.0).line_to(5.0, 2.0);
        assert_eq!(path.line_to(6.25, 3.0).done(), "M0 1H5V2L6.2 3");
    }

    #[test]
    fn ticks_have_the_decimals_that_their_steps_need() {
        assert_eq!(tick_labels(&[22.5, 25.0, 27.5]), ["22.5", "25.0", "27.5"]);
        assert_eq!(tick_labels(&[0.5, 1.0, 2.0, 5.0]), ["0.5", "1", "2", "5"]);
        assert_eq!(tick_labels(&[500.0, 1000.0]), ["500", "1000"]);
    }
}
