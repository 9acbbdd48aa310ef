//! Results as a table for the terminal, as JSON, and as an HTML page with plots.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::plot::escape;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The ratio is at least this.
    AtLeast(f64),
    /// The ratio is at most this.
    AtMost(f64),
    /// The ratio is at most the first, or the value exceeds the reference by at most the second.
    AtMostOr(f64, f64),
    /// The value itself is at most this.
    Value(f64),
    /// No goal.
    Stated,
}

#[derive(Debug, Clone)]
pub struct Measure {
    pub name: String,
    /// Of value and reference.
    pub unit: &'static str,
    pub value: f64,
    /// The value to compare with, from the same run.
    pub reference: Option<f64>,
    /// Value / reference, or the median of the pairs' ratios.
    pub ratio: Option<f64>,
    pub goal: Goal,
}

impl Measure {
    /// A number without a reference or a goal.
    #[must_use]
    pub fn stated(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            unit,
            value,
            reference: None,
            ratio: None,
            goal: Goal::Stated,
        }
    }

    #[must_use]
    pub fn against(mut self, reference: f64) -> Self {
        self.reference = Some(reference);
        self.ratio = Some(self.value / reference);
        self
    }

    /// Shows the medians of both; the median of the pairs' ratios decides.
    #[must_use]
    pub fn of_pairs(name: impl Into<String>, unit: &'static str, pairs: &[(f64, f64)]) -> Self {
        let values = pairs.iter().map(|(value, _)| *value).collect();
        let references = pairs.iter().map(|(_, reference)| *reference).collect();
        let ratios = pairs.iter().map(|(value, reference)| value / reference);
        Self {
            ratio: Some(median(ratios.collect())),
            ..Self::stated(name, median(values), unit).against(median(references))
        }
    }

    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = goal;
        self
    }

    /// Whether the goal is reached; false for NaN.
    #[must_use]
    pub fn passed(&self) -> bool {
        let ratio = self.ratio.unwrap_or(f64::NAN);
        match self.goal {
            Goal::AtLeast(least) => ratio >= least,
            Goal::AtMost(most) => ratio <= most,
            Goal::AtMostOr(most, more) => {
                ratio <= most || self.value <= self.reference.unwrap_or(f64::NAN) + more
            }
            Goal::Value(most) => self.value <= most,
            Goal::Stated => true,
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::AtLeast(least) => format!("≥ {least}"),
            Goal::AtMost(most) => format!("≤ {most}"),
            Goal::AtMostOr(most, more) => format!("≤ {most}, or {more} {} more", self.unit),
            Goal::Value(most) => format!("≤ {most} {}", self.unit),
            Goal::Stated => "stated".to_owned(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "measure": self.name, "unit": self.unit, "value": self.value,
            "reference": self.reference, "ratio": self.ratio,
            "goal": self.goal_text(), "passed": self.passed(),
        })
    }

    fn result(&self) -> &'static str {
        match (self.goal, self.passed()) {
            (Goal::Stated, _) => "",
            (_, true) => "reached",
            (_, false) => "FAILED",
        }
    }

    /// In the order of [`COLUMNS`].
    fn cells(&self) -> [String; 6] {
        let number = |value: Option<f64>| value.map(|value| with_unit(value, self.unit));
        [
            self.name.clone(),
            with_unit(self.value, self.unit),
            number(self.reference).unwrap_or_default(),
            self.ratio
                .map(|ratio| format!("{ratio:.2}"))
                .unwrap_or_default(),
            self.goal_text(),
            self.result().to_owned(),
        ]
    }
}

/// The answer to one question.
#[derive(Debug, Clone, Default)]
pub struct Section {
    pub title: String,
    /// How it is measured.
    pub about: String,
    pub measures: Vec<Measure>,
    /// As SVG.
    pub plots: Vec<String>,
}

const COLUMNS: [&str; 6] = ["measure", "value", "reference", "ratio", "goal", "result"];

#[must_use]
pub fn table(section: &Section) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(section.measures.iter().map(Measure::cells));
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut table = format!("\n{}\n", section.title);
    for row in &rows {
        // Numbers are aligned right.
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = match column {
                1..=3 => write!(table, "  {cell:>width$}"),
                _ => write!(table, "  {cell:<width$}"),
            };
        }
        let _ = writeln!(table, "  {}", row[5]);
    }
    table
}

/// Writes `<stem>.json` and `<stem>.html` into `out`.
pub fn write(out: &Path, stem: &str, sections: &[Section]) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let measures = sections.iter().flat_map(|section| &section.measures);
    let json: Vec<_> = measures.map(Measure::json).collect();
    let json = serde_json::to_vec_pretty(&json)?;
    std::fs::write(out.join(format!("{stem}.json")), json)?;
    std::fs::write(out.join(format!("{stem}.html")), page(sections))?;
    Ok(())
}

fn page(sections: &[Section]) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>Hookline: speed</title>\
         <style>body{font:14px sans-serif;margin:2em;max-width:960px}td,th{padding:2px 10px;\
         text-align:right}td:first-child,th:first-child{text-align:left}.failed{color:#b00}\
         svg{display:block;margin:4px 0 24px}text{font-size:11px}</style>\
         <h1>Hookline: speed</h1>",
    );
    let _ = write!(page, "<p>{}</p>", escape(&machine()));
    for section in sections {
        let _ = write!(
            page,
            "<h2>{}</h2><p>{}</p><table><tr>",
            escape(&section.title),
            escape(&section.about)
        );
        for column in COLUMNS {
            let _ = write!(page, "<th>{column}");
        }
        for measure in &section.measures {
            let class = if measure.passed() {
                ""
            } else {
                " class=failed"
            };
            let _ = write!(page, "<tr{class}>");
            for cell in measure.cells() {
                let _ = write!(page, "<td>{}", escape(&cell));
            }
        }
        page.push_str("</table>");
        section.plots.iter().for_each(|plot| page.push_str(plot));
    }
    page
}

/// Processor, number of cores, and the measured commit.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    let git = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    let commit = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{cores} cores of {}, shared by servers, services, load and receivers; commit {}",
        model.unwrap_or_else(|| "an unknown processor".to_owned()),
        commit.unwrap_or_else(|_| "unknown".to_owned()),
    )
}

fn with_unit(value: f64, unit: &str) -> String {
    let text = match value.abs() {
        large if large >= 1_000.0 => thousands(value),
        small if small < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    };
    format!("{text} {unit}").trim_end().to_owned()
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        let left = digits.len() - place;
        if place > 0 && left.is_multiple_of(3) && digit != '-' && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// NaN if there are no values.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_by_the_ratio_or_by_the_value() {
        let ten = Measure::stated("ten", 10.0, "ms").against(8.0);
        for (goal, passed) in [
            (Goal::AtLeast(1.25), true),
            (Goal::AtLeast(1.3), false),
            (Goal::AtMost(1.25), true),
            (Goal::AtMost(1.2), false),
            (Goal::AtMostOr(1.2, 2.0), true),
            (Goal::AtMostOr(1.2, 1.0), false),
            (Goal::Value(10.0), true),
            (Goal::Value(9.0), false),
            (Goal::Stated, true),
        ] {
            assert_eq!(ten.clone().goal(goal).passed(), passed, "{goal:?}");
        }
        let none = Measure::stated("none", f64::NAN, "ms").goal(Goal::Value(1.0));
        assert!(!none.passed(), "a NaN reaches no goal");
    }

    #[test]
    fn the_median_of_the_ratios_decides_not_the_ratio_of_the_medians() {
        let pairs = [(1.0, 1.0), (4.0, 2.0), (9.0, 3.0)];
        let measure = Measure::of_pairs("pairs", "/s", &pairs);
        assert_eq!((measure.value, measure.ratio), (4.0, Some(2.0)));
        assert_eq!(measure.reference, Some(2.0));
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(with_unit(1_234_567.8, "/s"), "1,234,568 /s");
        assert_eq!(with_unit(-123_456.0, ""), "-123,456");
        assert_eq!(with_unit(0.123, "ms"), "0.12 ms");
        assert_eq!(with_unit(45.67, "MiB"), "45.7 MiB");
    }
}
