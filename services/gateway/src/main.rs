//! Entry point of `hookline-gateway`: settings, logs and sockets, then the library.

use anyhow::Context as _;
use clap::Parser as _;
use tokio::net::TcpListener;

use hookline_gateway::{Command, Config, Listeners, Migrate, SERVICE};
use hookline_shared::{files, shutdown, status, telemetry, trace};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    if config.command == Some(Command::NewKey) {
        return hookline_gateway::print_new_key();
    }
    if config.command == Some(Command::Healthcheck) {
        return Ok(status::check(config.status_listen).await?);
    }
    telemetry::init(&config.telemetry)?;
    config.nats.servers()?;
    config.rbac()?;
    config.first_password()?;
    config.admin_tls.files().read()?;
    config.ingest.tls().read()?;
    config.keyring.apply()?;
    files::raise_limit();
    let shutdown = shutdown::on_signal().context("cannot wait for signals")?;
    if let Some(Command::RotateKeys { drop_lost }) = config.command {
        return Ok(hookline_gateway::rotate_keys(&config, drop_lost, shutdown).await?);
    }
    if let Some(Command::Migrate {
        dry_run,
        shrink,
        drop_delivery_log,
    }) = config.command
    {
        let how = Migrate {
            dry_run,
            shrink,
            drop_delivery_log,
        };
        return Ok(hookline_gateway::migrate(&config, how, shutdown).await?);
    }
    config.warn();
    let bind = async |address| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))
    };
    let listeners = Listeners {
        admin: bind(config.admin_listen).await?,
        ingest: match config.ingest.ingest_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        },
        status: bind(config.status_listen).await?,
    };
    let traces = trace::init(SERVICE, config.node())?;
    let ran = hookline_gateway::run(config, listeners, shutdown).await;
    traces.finish().await;
    Ok(ran?)
}
