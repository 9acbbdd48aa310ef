//! The dispatcher process: settings, logs, listener, then [`hookline_dispatcher::run`].

use anyhow::Context as _;
use clap::Parser as _;
use hookline_dispatcher::{Command, Config, SERVICE};
use hookline_shared::{files, shutdown, status, telemetry, trace};
use tokio::net::TcpListener;

/// A delivery makes some dozens of allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    if config.command == Some(Command::Healthcheck) {
        return Ok(status::check(config.status_listen).await?);
    }
    telemetry::init(&config.logs)?;
    config.check()?;
    config.nats.servers()?;
    let shutdown = shutdown::on_signal()?;
    if config.command == Some(Command::ReplaceSettings) {
        return hookline_dispatcher::replace_settings(config, shutdown).await;
    }
    let status = TcpListener::bind(config.status_listen)
        .await
        .with_context(|| {
            format!(
                "cannot listen on {} for the status API",
                config.status_listen
            )
        })?;
    let files = files::raise_limit();
    tracing::info!(status = %status.local_addr()?, version = env!("CARGO_PKG_VERSION"), files, "starting");
    let traces = trace::init(SERVICE, config.node())?;
    let ran = hookline_dispatcher::run(config, status, shutdown).await;
    traces.finish().await;
    ran?;
    tracing::info!("stopped");
    Ok(())
}
