//! All questions one after the other, in one report: `make bench` and `make bench-full`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::question::Question;
use crate::report::{self, Goal, Section};
use crate::{fanout, hooks, latency, limit, neighbours, publish, scaling, soak, throughput};

/// What to run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run the long set, the soak included.
    #[arg(long)]
    full: bool,
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// Runs everything.
///
/// # Errors
/// When a question could not be answered, or a goal was not reached.
pub async fn run(options: &Options) -> Result<()> {
    let mut bench = Bench {
        full: options.full,
        out: options.out.clone(),
        answers: Vec::new(),
        unanswered: 0,
    };
    bench.ask::<limit::Options>().await?;
    bench.ask::<throughput::Options>().await?;
    bench.ask::<latency::Options>().await?;
    bench.ask::<neighbours::Options>().await?;
    bench.ask::<hooks::Options>().await?;
    bench.ask::<fanout::Options>().await?;
    bench.ask::<scaling::Options>().await?;
    bench.ask::<publish::Options>().await?;
    if options.full {
        bench.ask::<soak::Options>().await?;
    }
    bench.end()
}

/// Answers one question, in a report of its own.
///
/// # Errors
/// When it could not be answered.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub async fn one<Q: Question>(question: &Q) -> Result<()> {
    let section = question.run().await?;
    println!("{}", report::table(&section));
    let out = PathBuf::from("target/bench");
    report::write(&out, Q::NAME, &[section])?;
    println!(
        "report: {}",
        out.join(Q::NAME).with_extension("html").display()
    );
    Ok(())
}

struct Bench {
    full: bool,
    out: PathBuf,
    answers: Vec<Section>,
    unanswered: usize,
}

#[derive(Parser)]
struct Defaults<Q: clap::Args> {
    #[command(flatten)]
    question: Q,
}

impl Bench {
    /// Asks, and writes the report anew, so that what is known survives whatever comes.
    #[expect(clippy::print_stdout, reason = "it takes minutes")]
    async fn ask<Q: Question>(&mut self) -> Result<()> {
        println!("{}", Q::NAME);
        let question = if self.full {
            Q::full()
        } else {
            Defaults::<Q>::try_parse_from([Q::NAME])?.question
        };
        let section = question.run().await.unwrap_or_else(|error| {
            self.unanswered += 1;
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

    #[expect(clippy::print_stdout, reason = "the result is what the command is for")]
    fn end(self) -> Result<()> {
        let measures = self.answers.iter().flat_map(|section| &section.measures);
        let aiming: Vec<_> = measures.filter(|m| m.goal != Goal::Stated).collect();
        let failed = aiming.iter().filter(|measure| !measure.passed()).count();
        println!("report: {}", self.out.join("report.html").display());
        ensure!(
            failed + self.unanswered == 0,
            "{failed} of {} measures missed their goal, {} questions have no answer",
            aiming.len(),
            self.unanswered
        );
        Ok(())
    }
}
