//! `hookline-loadtest`: one subcommand a question.
//!
//! Every answer about speed is a ratio within one run, against the bare pipe that the same machine
//! manages at that moment: a figure of its own says more about the machine than about Hookline.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use hookline_loadtest::{
    bench, chaos, fanout, hooks, latency, limit, neighbours,
    outcome::{self, Outcome},
    publish, receiver, scaling, soak, throughput,
};

/// A delivery allocates some dozens of times.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "hookline-loadtest",
    version,
    about = "Measures Hookline on this machine, and what it survives"
)]
struct Arguments {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// All questions about speed, in one report.
    Bench(bench::Options),
    /// What this machine does without Hookline: the bare pipe, and each of its parts.
    Limit(limit::Options),
    /// Deliveries a second of one dispatcher, by handler, against the bare pipe.
    Throughput(throughput::Options),
    /// From when an event was due to its receipt, at a given rate.
    Latency(latency::Options),
    /// What a healthy hook notices of a sick one.
    Neighbours(neighbours::Options),
    /// What many hooks cost: per event, in memory, and until a change is live.
    Hooks(hooks::Options),
    /// One event for many hooks.
    Fanout(fanout::Options),
    /// Several dispatchers against one, where the receiver takes its time.
    Scaling(scaling::Options),
    /// Durable publishing, one by one, in groups, and through the Admin API.
    Publish(publish::Options),
    /// Whether anything grows in ten minutes at half speed.
    Soak(soak::Options),
    /// A receiver to try things with: it counts, verifies, delays, fails, and keeps a ledger.
    Receiver(receiver::Options),
    /// Faults under load: what is missing, what came twice, how late.
    Chaos(chaos::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    outcome::end(run(Arguments::parse().question).await)
}

async fn run(question: Question) -> Result<Outcome> {
    match question {
        Question::Bench(options) => bench::run(&options).await,
        Question::Limit(options) => bench::one(&options).await,
        Question::Throughput(options) => bench::one(&options).await,
        Question::Latency(options) => bench::one(&options).await,
        Question::Neighbours(options) => bench::one(&options).await,
        Question::Hooks(options) => bench::one(&options).await,
        Question::Fanout(options) => bench::one(&options).await,
        Question::Scaling(options) => bench::one(&options).await,
        Question::Publish(options) => bench::one(&options).await,
        Question::Soak(options) => bench::one(&options).await,
        Question::Receiver(options) => receiver::run(&options).await.map(|()| Outcome::Reached),
        Question::Chaos(options) => chaos::run(&options).await,
    }
}
