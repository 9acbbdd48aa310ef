//! Entry point of `hookline-gateway`: settings, logs and sockets, then the library.

use anyhow::Context as _;
use clap::Parser as _;
use tokio::net::TcpListener;

use hookline_gateway::{Config, Listeners, SERVICE};
use hookline_shared::{files, shutdown, telemetry, trace};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    telemetry::init(&config.telemetry)?;
    config.nats.servers()?;
    config.rbac()?;
    config.admin_tls.files().read()?;
    config.warn();
    files::raise_limit();
    let shutdown = shutdown::on_signal().context("cannot wait for signals")?;
    let bind = async |address| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))
    };
    let listeners = Listeners {
        admin: bind(config.admin_listen).await?,
        status: bind(config.status_listen).await?,
    };
    let traces = trace::init(SERVICE, config.node())?;
    let ran = hookline_gateway::run(config, listeners, shutdown).await;
    traces.finish().await;
    Ok(ran?)
}
