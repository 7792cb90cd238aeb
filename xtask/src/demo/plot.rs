//! Curves over time as a small SVG file.

use std::fmt::Write as _;

use anyhow::Result;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 16.0;
/// Height of a panel: its title and legend, its curves, and what is below them.
const TITLE: f64 = 34.0;
const CURVES: f64 = 130.0;
const BELOW: f64 = 26.0;
const COLOURS: [&str; 3] = ["#1f6feb", "#d9570a", "#2a8a4a"];
/// Lines across a panel, besides the lowest.
const LINES: f64 = 4.0;

/// Curves with one scale.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) curves: Vec<Curve>,
}

/// What a query has given over time.
pub(super) struct Curve {
    name: &'static str,
    pub(super) query: &'static str,
    /// Seconds since the start, and value.
    points: Vec<(f64, f64)>,
}

impl Curve {
    pub(super) fn new(name: &'static str, query: &'static str) -> Self {
        Self { name, query, points: Vec::new() }
    }
}

impl Panel {
    /// The panel with the points that `read` gives for each query.
    pub(super) fn read(mut self, read: impl Fn(&str) -> Result<Vec<(f64, f64)>>) -> Result<Self> {
        for curve in &mut self.curves {
            curve.points = read(curve.query)?;
        }
        Ok(self)
    }

    /// The highest value of the scale, 4 at least: one whose quarters are whole numbers, so that replicas can be read off.
    fn top(&self) -> f64 {
        let values = self.curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| *value);
        let highest = values.fold(LINES, f64::max);
        let power = 10_f64.powf(highest.log10().floor());
        [1.2, 2.0, 4.0, 8.0].into_iter().map(|step| step * power).find(|top| *top >= highest).unwrap_or(12.0 * power)
    }
}

/// The panels one below the other, over `seconds`.
pub(super) fn svg(panels: &[Panel], seconds: f64) -> String {
    let height = (TITLE + CURVES + BELOW) * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let top = (TITLE + CURVES + BELOW) * index as f64;
        draw(&mut svg, panel, top, seconds);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel, top: f64, seconds: f64) {
    let scale = panel.top();
    let floor = top + TITLE + CURVES;
    let x = |time: f64| LEFT + time / seconds * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| floor - value / scale * CURVES;
    // Writing to a text cannot fail.
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>", top + 20.0, panel.title);
    let mut legend = LEFT + 160.0;
    for (curve, colour) in panel.curves.iter().zip(COLOURS) {
        let (line, word) = (top + 16.0, top + 20.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{legend} {line}h18\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" y=\"{word}\">{}</text>",
            legend + 24.0,
            curve.name
        );
        legend += 200.0;
    }
    for line in 0..=4 {
        let value = scale * f64::from(line) / LINES;
        let height = y(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {height:.1}H{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            height + 4.0,
            (value * 100.0).round() / 100.0
        );
    }
    let minutes = (0..).map(|half| f64::from(half) * 30.0).take_while(|time| *time <= seconds);
    for time in minutes {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{}:{:02}</text>",
            x(time),
            floor + 16.0,
            (time / 60.0).floor(),
            time % 60.0
        );
    }
    for (curve, colour) in panel.curves.iter().zip(COLOURS) {
        let path = path(&curve.points, x, y);
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    }
}

/// A line through the points: a step where a value holds, and nothing drawn twice.
fn path(points: &[(f64, f64)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut last: Option<f64> = None;
    for (index, (time, value)) in points.iter().enumerate() {
        let holds = last == Some(*value) && points.get(index + 1).is_some_and(|(_, next)| next == value);
        if !holds {
            let letter = if last.is_none() { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", x(*time), y(*value));
        }
        last = Some(*value);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_is_drawn_by_its_ends() {
        let points = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 4.0), (4.0, 4.0)];
        assert_eq!(path(&points, |x| x, |y| y), "M0.0 1.0L2.0 1.0L3.0 4.0L4.0 4.0");
    }

    #[test]
    fn the_scale_holds_the_highest_value_with_even_lines() {
        let top = |value: f64| {
            let curve = Curve { points: vec![(0.0, value)], ..Curve::new("", "") };
            Panel { title: "", curves: vec![curve] }.top()
        };
        assert_eq!([0.3, 4.5, 10.0, 37.0, 100.0, 101.0].map(top), [4.0, 8.0, 12.0, 40.0, 120.0, 120.0]);
    }
}
