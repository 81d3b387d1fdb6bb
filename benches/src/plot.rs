//! Curves as an SVG picture, drawn by hand: no library, the same bytes for the same numbers.

use std::fmt::Write as _;

/// One line of a plot.
#[derive(Debug, Clone)]
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Measured by others: drawn with dashes.
    pub published: bool,
}

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 500.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The range of one axis and where it lies.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    /// In whole fives around the values.
    fn around(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = if low > high { (0.0, 5.0) } else { (low, high) };
        let low = (low / 5.0).floor() * 5.0;
        Self {
            low,
            high: ((high / 5.0).ceil() * 5.0).max(low + 5.0),
            start,
            end,
        }
    }

    fn at(self, value: f64) -> f64 {
        self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(self.low), |tick| Some(tick + 5.0)).take_while(move |tick| *tick <= self.high)
    }
}

/// The whole picture.
pub fn svg(title: &str, across: &str, up: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| curve.points.iter());
    let x = Axis::around(points().map(|point| point.0), MARGIN, WIDTH - MARGIN);
    let y = Axis::around(points().map(|point| point.1), HEIGHT - MARGIN, MARGIN);
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    ));
    line(r#"<rect width="100%" height="100%" fill="white"/>"#.to_owned());
    let middle = WIDTH / 2.0;
    line(text(middle, 30.0, "middle", 16, title));
    line(text(middle, HEIGHT - 15.0, "middle", 12, across));
    line(text(MARGIN, MARGIN - 15.0, "start", 12, up));
    for tick in x.ticks() {
        line(rule(x.at(tick), y.start, x.at(tick), y.end));
        line(text(x.at(tick), y.start + 18.0, "middle", 12, &tick.to_string()));
    }
    for tick in y.ticks() {
        line(rule(x.start, y.at(tick), x.end, y.at(tick)));
        line(text(x.start - 8.0, y.at(tick) + 4.0, "end", 12, &tick.to_string()));
    }
    for (at, (curve, colour)) in (0_u32..).zip(curves.iter().zip(COLOURS.iter().cycle())) {
        let dashes = if curve.published {
            r#" stroke-dasharray="6 4""#
        } else {
            ""
        };
        let mut path = String::new();
        for (across, up) in &curve.points {
            // Writing to a string cannot fail.
            let _ = write!(path, "{:.1},{:.1} ", x.at(*across), y.at(*up));
        }
        let path = path.trim_end();
        line(format!(
            r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>"#
        ));
        let (left, top) = (x.start + 20.0, y.end + 20.0 + 20.0 * f64::from(at));
        line(format!(
            r#"<line x1="{left}" y1="{top}" x2="{}" y2="{top}" stroke="{colour}" stroke-width="2"{dashes}/>"#,
            left + 30.0
        ));
        line(text(left + 38.0, top + 4.0, "start", 12, &curve.name));
    }
    line("</svg>".to_owned());
    out
}

fn text(x: f64, y: f64, anchor: &str, size: u32, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}">{words}</text>"#)
}

fn rule(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!(r##"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#dddddd"/>"##)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_each_curve_and_its_name() {
        let curve = Curve {
            name: "a < b".to_owned(),
            points: vec![(50.0, 50.0), (130.0, 96.1)],
            published: true,
        };
        let svg = svg("title", "x", "y", &[curve]);
        assert!(svg.contains("a &lt; b") && svg.contains("stroke-dasharray"), "{svg}");
        assert!(svg.contains(r#"points="60.0,440.0 740.0,89.6""#), "{svg}");
    }

    #[test]
    fn no_curve_is_still_a_picture() {
        assert!(svg("title", "x", "y", &[]).ends_with("</svg>\n"));
    }
}
