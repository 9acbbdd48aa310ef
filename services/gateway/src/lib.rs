//! A gateway node: the Admin API over entities kept in NATS JetStream. Every change raises its
//! events in the same atomic write.
//!
//! * `schema`: the tables of entity kinds, and all that follows from them;
//! * `store`: the bucket and this node's view of it;
//! * `admin`: the HTTP side;
//! * `error`: what clients are told when something is wrong.

mod admin;
mod config;
mod error;
mod metrics;
mod schema;
mod store;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::{Client, jetstream};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use hookline_shared::status::{self, Readiness};
use hookline_shared::{batch, streams, telemetry};

pub use config::Config;

use admin::Admin;
use metrics::Metrics;
use store::{Origin, Store};

/// How often the state of the connection is noted.
const TICK: Duration = Duration::from_millis(250);
/// How often a store that cannot be reached at the start is tried.
const RETRY: Duration = Duration::from_secs(1);

/// The sockets of a node, bound already.
#[derive(Debug)]
pub struct Listeners {
    /// For the Admin API.
    pub admin: TcpListener,
    /// For the status API.
    pub status: TcpListener,
}

/// Why a node stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The streams cannot be used.
    #[error("cannot use NATS: {0}")]
    Streams(#[source] streams::Error),
    /// The store cannot be set up.
    #[error("cannot set up the store: {0}")]
    Store(#[from] store::Error),
    /// Metrics clash.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    /// A socket failed.
    #[error("a listener failed")]
    Listener(#[from] std::io::Error),
}

/// Runs a node until `shutdown`, then until requests in flight are answered or their time is up.
///
/// # Errors
/// If it can never serve: wrong credentials, a server that is too old, a stream that is refused.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let registry = telemetry::registry()?;
    let metrics = Metrics::register(&registry)?;
    let batches = batch::Metrics::register(&registry, "bucket")?;
    let readiness = Readiness::waiting_for(&["nats", "view"]);
    let mut tasks = JoinSet::new();
    let status_stop = CancellationToken::new();
    tasks.spawn({
        let (readiness, stop) = (readiness.clone(), status_stop.clone());
        // A node that answers is healthy; what it lacks is for readiness to say.
        let health = Readiness::default();
        let served = status::serve(listeners.status, registry, readiness, health, stop);
        async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the status API failed");
            }
        }
    });

    let store = Arc::new(OnceLock::new());
    let admin = Admin::new(Arc::clone(&store), metrics.clone(), &config);
    let mut serving = JoinSet::new();
    serving.spawn(admin::serve(
        listeners.admin,
        admin,
        shutdown.clone(),
        config.shutdown_timeout,
    ));
    let loaded = start(&config, &mut tasks, &readiness, metrics, batches, &shutdown).await;
    if let Some(loaded) = loaded? {
        tracing::info!(
            node = config.node,
            sequence = loaded.view().sequence(),
            "serving the Admin API"
        );
        let _ = store.set(loaded);
        readiness.ready("view");
    }
    while let Some(served) = serving.join_next().await {
        served.unwrap_or_else(|error| Err(std::io::Error::other(error)))?;
    }
    status_stop.cancel();
    tracing::info!("stopped");
    Ok(())
}

/// Connects and loads; `None`: shutdown came first.
async fn start(
    config: &Config,
    tasks: &mut JoinSet<()>,
    readiness: &Readiness,
    metrics: Metrics,
    batches: batch::Metrics,
    shutdown: &CancellationToken,
) -> Result<Option<Arc<Store>>, Error> {
    let (context, asking) = match connect(config, shutdown).await {
        Err(streams::Error::Stopped) => return Ok(None),
        result => result.map_err(Error::Streams)?,
    };
    let writer = batch::Writer::spawn(context.client(), Some(batches));
    let origin = Origin {
        node: config.node.clone(),
        pid: std::process::id(),
    };
    let store = Arc::new(Store::new(&context, asking, writer, origin, metrics.clone()).await?);
    spawn_watches(tasks, &store, &context, readiness, &metrics);
    tokio::select! {
        () = load(&store) => Ok(Some(store)),
        () = shutdown.cancelled() => Ok(None),
    }
}

/// The connection for all that is done, and one for long lists.
async fn connect(
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<(jetstream::Context, Client), streams::Error> {
    let name = format!("hookline-gateway {}", config.node);
    let client = streams::connect(&config.nats, &name, shutdown).await?;
    let context = jetstream::new(client);
    streams::ensure(&context, &config.nats, shutdown).await?;
    let asking = streams::connect(&config.nats, &format!("{name} asking"), shutdown).await?;
    Ok((context, asking))
}

fn spawn_watches(
    tasks: &mut JoinSet<()>,
    store: &Arc<Store>,
    context: &jetstream::Context,
    readiness: &Readiness,
    metrics: &Metrics,
) {
    tasks.spawn({
        let (store, context) = (Arc::clone(store), context.clone());
        async move { store::follow(store.view(), &context).await }
    });
    tasks.spawn({
        let (store, context) = (Arc::clone(store), context.clone());
        async move { store.watch_backlog(&context).await }
    });
    tasks.spawn({
        let (store, readiness, metrics) = (Arc::clone(store), readiness.clone(), metrics.clone());
        async move { note_state(&store, &readiness, &metrics).await }
    });
}

/// Makes what must be there, and waits until the view has everything that is.
async fn load(store: &Store) {
    let mut told = false;
    loop {
        let newest = async {
            store.ensure_default_workspace().await?;
            store.newest().await
        };
        match newest.await {
            Ok(sequence) => {
                while !store
                    .view()
                    .wait_for(sequence, Duration::from_secs(60))
                    .await
                {
                    tracing::warn!(
                        sequence,
                        known = store.view().sequence(),
                        "still loading the entities"
                    );
                }
                return;
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(%error, "the bucket cannot be read yet, trying every second");
            }
            Err(error) => tracing::debug!(%error, "the bucket cannot be read yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Notes for ever how the connection and the view are.
async fn note_state(store: &Store, readiness: &Readiness, metrics: &Metrics) {
    loop {
        let connected = store.is_connected();
        if connected {
            readiness.ready("nats");
        } else {
            readiness.missing("nats", "not connected");
        }
        metrics.connected(connected);
        metrics.view(store.view().sequence());
        tokio::time::sleep(TICK).await;
    }
}
