//! `hookline-loadtest`: one subcommand per question.
//!
//! Speed is measured as a ratio to the bare pipe in the same run: an absolute number says more about the
//! machine than about Hookline.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use hookline_loadtest::{
    bench, chaos, entities, fanout, hooks, ingest, latency, limit, neighbours,
    outcome::{self, Outcome},
    publish, rbac, receiver, scaling, soak, throughput,
};

/// A delivery makes some dozens of allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "hookline-loadtest",
    version,
    about = "Measures the speed and the fault tolerance of Hookline on this machine"
)]
struct Arguments {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// All questions about speed, in one report.
    Bench(bench::Options),
    /// The bare pipe (pull, POST, ack) and each of its parts: this machine without Hookline.
    Limit(limit::Options),
    /// Deliveries per second of one dispatcher, by handler, against the bare pipe.
    Throughput(throughput::Options),
    /// Latency at a given rate, from when an event was due to its receipt.
    Latency(latency::Options),
    /// The p99 of a healthy hook beside a sick one and without.
    Neighbours(neighbours::Options),
    /// The cost of many hooks: processor time per event, memory, time until a change is live.
    Hooks(hooks::Options),
    /// One event for many hooks, against one hook.
    Fanout(fanout::Options),
    /// Several dispatchers against one, at a slow receiver.
    Scaling(scaling::Options),
    /// Durable publishing: one event per sync, in groups, and through the Admin API.
    Publish(publish::Options),
    /// Events over HTTP, of one client and of many.
    Ingest(ingest::Options),
    /// The Admin API with tokens, and without.
    Rbac(rbac::Options),
    /// Reads of the Admin API among many entities, memory, and the start of a gateway.
    Entities(entities::Options),
    /// Growth of memory, files and storage in ten minutes at half speed.
    Soak(soak::Options),
    /// A receiver for experiments: counts, verifies, delays, fails, detects repeats.
    Receiver(receiver::Options),
    /// Faults under load: missing, repeated and late deliveries.
    Chaos(chaos::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only if a provider is installed already.
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
        Question::Ingest(options) => bench::one(&options).await,
        Question::Rbac(options) => bench::one(&options).await,
        Question::Entities(options) => bench::one(&options).await,
        Question::Soak(options) => bench::one(&options).await,
        Question::Receiver(options) => receiver::run(&options).await.map(|()| Outcome::Reached),
        Question::Chaos(options) => chaos::run(&options).await,
    }
}
