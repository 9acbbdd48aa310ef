//! Line plots as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 36.0;
const COLORS: [&str; 6] = ["#036", "#b50", "#283", "#92a", "#a80", "#666"];

#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// With the unit.
    pub label: &'static str,
    /// Logarithmic.
    pub log: bool,
}

impl Axis {
    #[must_use]
    pub const fn even(label: &'static str) -> Self {
        Self { label, log: false }
    }

    #[must_use]
    pub const fn log(label: &'static str) -> Self {
        Self { label, log: true }
    }

    fn place(self, value: f64) -> f64 {
        if self.log {
            value.max(1e-6).log10()
        } else {
            value
        }
    }
}

/// Name and points of a line.
pub type Series = (String, Vec<(f64, f64)>);

/// A plot of all series, with a legend.
#[must_use]
pub fn lines(title: &str, x: Axis, y: Axis, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|(_, points)| points);
    let (x_low, x_high) = range(points().map(|point| x.place(point.0)), x.log);
    let (y_low, y_high) = range(points().map(|point| y.place(point.1)), y.log);
    let at = |(x_value, y_value): (f64, f64)| {
        let across = (x.place(x_value) - x_low) / (x_high - x_low);
        let up = (y.place(y_value) - y_low) / (y_high - y_low);
        (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )
    };
    let mut svg = format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\"><text x=\"{LEFT}\" y=\"14\">{}</text>",
        escape(title)
    );
    for value in ticks(y_low, y_high, y.log) {
        let (_, height) = at((0.0, value));
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{height:.1}\" y2=\"{height:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            height + 4.0,
            short(value)
        );
    }
    for value in ticks(x_low, x_high, x.log) {
        let (across, _) = at((value, 0.0));
        let _ = write!(
            svg,
            "<text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM + 14.0,
            short(value)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <text x=\"{:.1}\" y=\"14\" text-anchor=\"end\">{}</text>",
        WIDTH - RIGHT,
        HEIGHT - 6.0,
        escape(x.label),
        WIDTH - RIGHT,
        escape(y.label)
    );
    for (number, (name, points)) in series.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let places: Vec<_> = points.iter().map(|point| at(*point)).collect();
        let line: Vec<_> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{color}\" points=\"{}\"/>",
            line.join(" ")
        );
        if places.len() <= 20 {
            for (x, y) in &places {
                let _ = write!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>"
                );
            }
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{}</text>",
            WIDTH - RIGHT + 12.0,
            TOP + 10.0 + 16.0 * number as f64,
            escape(name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The range of an axis, in places. A linear axis includes zero.
fn range(places: impl Iterator<Item = f64>, log: bool) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for place in places.filter(|place| place.is_finite()) {
        (low, high) = (low.min(place), high.max(place));
    }
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    if log {
        (low, high) = (low.floor(), high.ceil());
    } else {
        low = low.min(0.0);
    }
    (low, if high > low { high } else { low + 1.0 })
}

/// The labelled values of an axis.
fn ticks(low: f64, high: f64, log: bool) -> Vec<f64> {
    if log {
        return (low as i32..=high as i32)
            .map(|power| 10_f64.powi(power))
            .collect();
    }
    let rough = (high - low) / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|number| number as f64 * step).collect()
}

fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e3 => format!("{}k", value / 1e3),
        size if size >= 1.0 || size == 0.0 => format!("{value}"),
        _ => format!("{value:.3}").trim_end_matches('0').to_owned(),
    }
}

/// Escapes text for HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_names_round_values() {
        assert_eq!(ticks(0.0, 98.0, false), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(ticks(-1.0, 2.0, true), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!(
            ["0.1", "1", "10", "1k", "2.5M"],
            [0.1, 1.0, 10.0, 1e3, 2.5e6].map(short)
        );
    }

    #[test]
    fn every_series_is_in_the_plot_and_none_breaks_it() {
        let series = [
            ("a<b".to_owned(), vec![(1.0, 1.0), (10.0, 5.0)]),
            ("empty".to_owned(), Vec::new()),
        ];
        let svg = lines("title", Axis::log("x"), Axis::even("y"), &series);
        assert!(
            svg.contains("a&lt;b") && svg.contains("empty") && !svg.contains("NaN"),
            "{svg}"
        );
    }
}
