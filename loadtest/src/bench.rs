//! All questions in one report: `make bench` and `make bench-full`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::outcome::Outcome;
use crate::question::Question;
use crate::report::{self, Goal, Section};
use crate::{
    entities, fanout, hooks, ingest, latency, limit, neighbours, publish, rbac, scaling, soak,
    throughput,
};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run longer, and the soak as well.
    #[arg(long)]
    full: bool,
    /// Folder of the report.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[expect(clippy::print_stdout, reason = "the path is what the command is for")]
pub async fn run(options: &Options) -> Result<Outcome> {
    let mut bench = Bench {
        full: options.full,
        out: options.out.clone(),
        answers: Vec::new(),
        unanswered: Vec::new(),
    };
    bench.ask::<limit::Options>().await?;
    bench.ask::<throughput::Options>().await?;
    bench.ask::<latency::Options>().await?;
    bench.ask::<neighbours::Options>().await?;
    bench.ask::<hooks::Options>().await?;
    bench.ask::<fanout::Options>().await?;
    bench.ask::<scaling::Options>().await?;
    bench.ask::<publish::Options>().await?;
    bench.ask::<rbac::Options>().await?;
    bench.ask::<ingest::Options>().await?;
    bench.ask::<entities::Options>().await?;
    if options.full {
        bench.ask::<soak::Options>().await?;
    }
    println!("report: {}", bench.out.join("report.html").display());
    Ok(outcome(&bench.answers, &bench.unanswered))
}

/// Answers one question, with its own report.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub async fn one<Q: Question>(question: &Q) -> Result<Outcome> {
    let section = question.run().await?;
    println!("{}", report::table(&section));
    let out = PathBuf::from("target/bench");
    let answers = [section];
    report::write(&out, Q::NAME, &answers)?;
    println!(
        "report: {}",
        out.join(Q::NAME).with_extension("html").display()
    );
    Ok(outcome(&answers, &[]))
}

fn outcome(answers: &[Section], unanswered: &[&str]) -> Outcome {
    let measures = answers.iter().flat_map(|section| &section.measures);
    let aiming: Vec<_> = measures.filter(|m| m.goal != Goal::Stated).collect();
    let missed: Vec<_> = aiming
        .iter()
        .filter(|measure| !measure.passed())
        .map(|measure| measure.name.as_str())
        .collect();
    let mut failed = Vec::new();
    if !missed.is_empty() {
        let (count, all) = (missed.len(), aiming.len());
        failed.push(format!(
            "{count} of {all} goals missed: {}",
            missed.join("; ")
        ));
    }
    if !unanswered.is_empty() {
        failed.push(format!("not measured: {}", unanswered.join(", ")));
    }
    if failed.is_empty() {
        return Outcome::Reached;
    }
    Outcome::Missed(failed.join("; "))
}

struct Bench {
    full: bool,
    out: PathBuf,
    answers: Vec<Section>,
    unanswered: Vec<&'static str>,
}

#[derive(Parser)]
struct Defaults<Q: clap::Args> {
    #[command(flatten)]
    question: Q,
}

impl Bench {
    /// Answers a question and rewrites the report, so that an interrupted run keeps its results.
    #[expect(clippy::print_stdout, reason = "progress")]
    async fn ask<Q: Question>(&mut self) -> Result<()> {
        println!("{}", Q::NAME);
        let question = if self.full {
            Q::full()
        } else {
            Defaults::<Q>::try_parse_from([Q::NAME])?.question
        };
        let section = question.run().await.unwrap_or_else(|error| {
            self.unanswered.push(Q::NAME);
            Section {
                title: format!("{} FAILED", Q::NAME),
                about: format!("{error:#}"),
                ..Section::default()
            }
        });
        if section.measures.is_empty() {
            println!("  {}: {}", section.title, section.about);
        } else {
            println!("{}", report::table(&section));
        }
        self.answers.push(section);
        report::write(&self.out, "report", &self.answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Measure;

    #[test]
    fn the_outcome_names_missed_goals_and_questions_without_an_answer() {
        let section = |value: f64| Section {
            measures: vec![
                Measure::stated("rate", value, "/s").goal(Goal::Value(1.0)),
                Measure::stated("size", value, "bytes"),
            ],
            ..Section::default()
        };
        assert_eq!(outcome(&[section(1.0)], &[]), Outcome::Reached);
        let missed = |reason: &str| Outcome::Missed(reason.to_owned());
        assert_eq!(
            outcome(&[section(1.0), section(2.0)], &[]),
            missed("1 of 2 goals missed: rate")
        );
        assert_eq!(
            outcome(&[section(2.0)], &["soak", "limit"]),
            missed("1 of 1 goals missed: rate; not measured: soak, limit")
        );
    }
}
