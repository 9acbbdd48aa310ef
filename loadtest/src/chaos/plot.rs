//! The report as a page: a table, and for each fault two plots, lateness and arrivals over time.

use std::fmt::Write as _;

use super::row::Row;
use crate::plot::escape;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 180.0;
/// Height of the arrivals' plot.
const RATES: f64 = 100.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 24.0;
/// The latency axis, in powers of ten of a millisecond.
const DECADES: (f64, f64) = (-1.0, 6.0);
/// Columns into which events are grouped.
const COLUMNS: usize = 300;

#[must_use]
pub fn page(rows: &[Row]) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>Hookline: faults</title>\
         <style>body{font:14px sans-serif;margin:2em;max-width:960px}td,th{padding:2px 10px;\
         text-align:right}td:first-child,th:first-child{text-align:left}.failed{color:#b00}\
         svg{display:block;margin:4px 0 24px}text{font-size:11px}</style>\
         <h1>Faults under load</h1><table><tr><th>fault<th>sent<th>delivered<th>missing\
         <th>duplicate<th>dead<th>late p99<th>latest<th>result</tr>",
    );
    for row in rows {
        let _ = write!(
            page,
            "<tr{}><td><a href=\"#{}\">{}</a><td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.1} ms\
             <td>{:.1} s<td>{}</tr>",
            if row.passed() { "" } else { " class=failed" },
            row.fault,
            row.fault,
            row.sent,
            row.delivered,
            row.missing,
            row.duplicate,
            row.dead,
            row.late_p99.as_secs_f64() * 1_000.0,
            row.late_max.as_secs_f64(),
            if row.passed() { "held" } else { "failed" },
        );
    }
    page.push_str("</table>");
    for row in rows {
        let _ = write!(
            page,
            "<h2 id=\"{}\">{}</h2><p>{}</p>",
            row.fault,
            row.fault,
            escape(&row.observed)
        );
        for broken in &row.broken {
            let _ = write!(page, "<p class=failed>{}</p>", escape(broken));
        }
        page.push_str(&plot(row));
        page.push_str(&rates(row));
    }
    page
}

/// Median and maximum of the time to arrival, by time of publishing, on a logarithmic axis.
#[must_use]
pub fn plot(row: &Row) -> String {
    let end = row.points.iter().map(|(at, _)| *at).fold(1.0, f64::max);
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - 10.0);
    let y = |ms: f64| {
        let (low, high) = DECADES;
        let part = (ms.max(1e-3).log10().clamp(low, high) - low) / (high - low);
        (HEIGHT - BOTTOM) * (1.0 - part)
    };
    let mut svg = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\">");
    for (ms, label) in [
        (1.0, "1 ms"),
        (100.0, "100 ms"),
        (1e4, "10 s"),
        (1e6, "1000 s"),
    ] {
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\
             <text x=\"4\" y=\"{1:.1}\">{label}</text>",
            y(ms),
            y(ms) + 4.0
        );
    }
    for (at, what) in &row.marks {
        let _ = write!(
            svg,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"{1}\" stroke=\"#b00\" \
             stroke-dasharray=\"3\"/><text x=\"{2:.1}\" y=\"10\" fill=\"#b00\">{3}</text>",
            x(*at),
            HEIGHT - BOTTOM,
            x(*at) + 2.0,
            escape(what)
        );
    }
    let columns = columns(&row.points, end);
    for (color, which) in [("#9bd", 1), ("#036", 0)] {
        let points: Vec<_> = columns
            .iter()
            .map(|(at, values)| format!("{:.1},{:.1}", x(*at), y(values[which])))
            .collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{color}\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{LEFT}\" y=\"{0}\">published at 0 s</text><text x=\"{1}\" y=\"{0}\">{2:.0} s\
         </text><text x=\"300\" y=\"{0}\">time to arrival: dark median, light latest</text></svg>",
        HEIGHT - 8.0,
        WIDTH - 60.0,
        end
    );
    svg
}

/// Arrivals per second: a backlog that arrives all at once stands out.
fn rates(row: &Row) -> String {
    let end = row.arrivals.iter().copied().fold(1.0, f64::max);
    let seconds = per_second(&row.arrivals, end);
    let most = seconds.iter().copied().max().unwrap_or(0).max(1);
    let width = (WIDTH - LEFT - 10.0) / seconds.len() as f64;
    let mut svg = format!(
        "<svg width=\"{WIDTH}\" height=\"{RATES}\"><text x=\"4\" y=\"12\">{most}/s</text>\
         <text x=\"{LEFT}\" y=\"{}\">arrived at 0 s</text><text x=\"{}\" y=\"{0}\">{:.0} s</text>",
        RATES - 8.0,
        WIDTH - 60.0,
        end
    );
    for (second, count) in seconds.iter().enumerate() {
        let height = *count as f64 / most as f64 * (RATES - BOTTOM);
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#9bd\"/>",
            LEFT + second as f64 * width,
            RATES - BOTTOM - height
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Counts per second, from 0 to `end`.
fn per_second(times: &[f64], end: f64) -> Vec<usize> {
    let mut seconds = vec![0; end as usize + 1];
    for at in times {
        seconds[(*at as usize).min(end as usize)] += 1;
    }
    seconds
}

/// Median and maximum per column.
fn columns(points: &[(f64, f64)], end: f64) -> Vec<(f64, [f64; 2])> {
    let mut gathered = vec![Vec::new(); COLUMNS];
    for (at, ms) in points {
        let column = (at / end * COLUMNS as f64) as usize;
        gathered[column.min(COLUMNS - 1)].push(*ms);
    }
    let columns = gathered.into_iter().enumerate();
    columns
        .filter_map(|(column, mut values)| {
            values.sort_by(f64::total_cmp);
            let median = *values.get(values.len() / 2)?;
            let at = (column as f64 + 0.5) / COLUMNS as f64 * end;
            Some((at, [median, *values.last()?]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_its_median_and_its_latest() {
        let points: Vec<_> = (0..3_000)
            .map(|n| (f64::from(n) / 10.0, f64::from(n % 10)))
            .collect();
        let columns = columns(&points, 300.0);
        assert_eq!(columns.len(), COLUMNS);
        assert_eq!(columns[10].1, [5.0, 9.0]);
    }

    #[test]
    fn arrivals_are_counted_by_the_second() {
        assert_eq!(per_second(&[0.1, 0.9, 2.0, 2.5], 2.5), [2, 0, 2]);
        assert_eq!(per_second(&[], 1.0), [0, 0]);
    }
}
