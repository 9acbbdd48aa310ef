//! Injects faults into real processes under load, and accounts for every delivery at receivers that
//! verify signatures.

pub mod endpoint;
mod faults;
pub mod ledger;
pub mod load;
pub mod plot;
pub mod row;
pub mod stage;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::outcome::Outcome;

pub use faults::{FAULTS, Fault};
pub use row::Row;
pub use stage::Size;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Faults to run, by name; all if none is named.
    faults: Vec<String>,
    /// Run each fault for a few seconds, with little load.
    #[arg(long)]
    short: bool,
    /// Folder of the report.
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
}

#[must_use]
pub fn fault(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

/// Runs faults, prints the table and writes the report.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub async fn run(options: &Options) -> Result<Outcome> {
    let chosen = chosen(&options.faults)?;
    let size = if options.short {
        Size::SHORT
    } else {
        Size::FULL
    };
    let mut rows = Vec::new();
    for (turn, one) in chosen.iter().enumerate() {
        println!("[{}/{}] {}: {}", turn + 1, chosen.len(), one.name, one.what);
        let row = match one.run(size).await {
            Ok(row) => row,
            Err(error) => Row::unfinished(one.name, format!("{error:#}")),
        };
        println!("{}", line(&row));
        for broken in &row.broken {
            println!("      {broken}");
        }
        rows.push(row);
        // After each fault, so that an interrupted run keeps its results.
        report(&options.out, &rows)?;
    }
    println!("\n{HEADER}");
    for row in &rows {
        println!("{}", line(row));
    }
    println!("\nreport: {}", options.out.join("report.html").display());
    Ok(outcome(&rows))
}

fn outcome(rows: &[Row]) -> Outcome {
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| !row.passed())
        .map(|row| row.fault.as_str())
        .collect();
    if failed.is_empty() {
        return Outcome::Reached;
    }
    let (count, all) = (failed.len(), rows.len());
    Outcome::Missed(format!("{count} of {all} faults: {}", failed.join(", ")))
}

const HEADER: &str =
    "fault             sent delivered missing duplicate   dead  late p99    latest  result";

fn line(row: &Row) -> String {
    format!(
        "{:<14} {:>7} {:>9} {:>7} {:>9} {:>6} {:>7.1} ms {:>6.1} s  {}  ({})",
        row.fault,
        row.sent,
        row.delivered,
        row.missing,
        row.duplicate,
        row.dead,
        row.late_p99.as_secs_f64() * 1_000.0,
        row.late_max.as_secs_f64(),
        if row.passed() { "held" } else { "FAILED" },
        row.observed,
    )
}

fn chosen(names: &[String]) -> Result<Vec<&'static Fault>> {
    if names.is_empty() {
        return Ok(FAULTS.iter().collect());
    }
    let find = |name: &String| {
        fault(name).with_context(|| {
            let known: Vec<_> = FAULTS.iter().map(|fault| fault.name).collect();
            format!("there is no fault {name}; there are {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

fn report(out: &Path, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let json: Vec<_> = rows.iter().map(Row::json).collect();
    let json = serde_json::to_vec_pretty(&json)?;
    std::fs::write(out.join("report.json"), json)?;
    std::fs::write(out.join("report.html"), plot::page(rows))?;
    Ok(())
}
