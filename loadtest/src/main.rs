//! `hookline-loadtest`: one subcommand a question about speed.
//!
//! Every answer is a ratio within one run, against the bare pipe that the same machine manages at
//! that moment: a figure of its own says more about the machine than about Hookline.

mod limit;
mod receiver;
mod throughput;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "hookline-loadtest",
    version,
    about = "Measures Hookline on this machine"
)]
struct Arguments {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// Webhook deliveries a second of one dispatcher, against the bare pipe.
    Throughput(throughput::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Fails only if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().question {
        Question::Throughput(options) => throughput::run(&options).await,
    }
}
