//! `hookline-loadtest`: one subcommand a question.
//!
//! Every answer about speed is a ratio within one run, against the bare pipe that the same machine
//! manages at that moment: a figure of its own says more about the machine than about Hookline.

use clap::{Parser, Subcommand};
use hookline_loadtest::{chaos, throughput};

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
    /// Webhook deliveries a second of one dispatcher, against the bare pipe.
    Throughput(throughput::Options),
    /// Faults under load: what is missing, what came twice, how late.
    Chaos(chaos::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Fails only if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().question {
        Question::Throughput(options) => throughput::run(&options).await,
        Question::Chaos(options) => chaos::run(&options).await,
    }
}
