//! A gateway node: the Admin API over entities kept in NATS JetStream. A change and its events are
//! one atomic write.
//!
//! * `schema`: entity kinds as tables;
//! * `store`: the bucket and this node's view of it;
//! * `admin`: routes and handlers;
//! * `ingest`: events over HTTP;
//! * `access`: who may do what;
//! * `scaling`: how many dispatchers are wanted;
//! * `error`: error responses.

mod access;
mod admin;
mod config;
mod error;
mod ingest;
mod limits;
mod metrics;
mod migrate;
mod rotate_keys;
mod scaling;
mod schema;
mod store;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::{Client, jetstream};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use hookline_shared::keyring;
use hookline_shared::queues::Queues;
use hookline_shared::service_metrics::ServiceMetrics;
use hookline_shared::status::{self, Readiness};
use hookline_shared::subject::ENTITY_SUBJECTS;
use hookline_shared::supervisor::{Stopped, Supervisor};
use hookline_shared::tls::{self, ServerTls};
use hookline_shared::unreadable::{self, Reads};
use hookline_shared::workers::Workers;
use hookline_shared::{batch, clock, connection, streams, subject, telemetry};

pub use access::Rbac;
pub use config::{Command, Config};
pub use migrate::{Migrate, migrate};
pub use rotate_keys::{print_new_key, rotate_keys};

use admin::{Admin, Refusals};
use ingest::Ingest;
use limits::Quotas;
use metrics::Metrics;
use store::{Origin, Store};

/// Between updates of readiness and gauges.
const STATE_INTERVAL: Duration = Duration::from_millis(250);
/// Between attempts to read the bucket at startup.
const STARTUP_RETRY: Duration = Duration::from_secs(1);

/// The bound sockets of a node.
#[derive(Debug)]
pub struct Listeners {
    pub admin: TcpListener,
    /// `None` if events do not come in over HTTP.
    pub ingest: Option<TcpListener>,
    pub status: TcpListener,
}

/// Why a node stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use NATS: {0}")]
    Streams(#[source] streams::Error),
    #[error("cannot set up the store: {0}")]
    Store(#[from] store::Error),
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(
        "HOOKLINE_RBAC is on and nobody can log in: set HOOKLINE_PASSWORD to the token of the first super-admin"
    )]
    NobodyCanLogIn,
    #[error(transparent)]
    Closed(#[from] keyring::Closed),
    #[error("there is no keyring to seal with: set HOOKLINE_KEYRING or HOOKLINE_KEYRING_FILE")]
    NoKeyring,
    #[error("stopped before all secrets were sealed: start it again")]
    Unfinished,
    #[error(
        "{0} hooks and certificates have secrets whose keys the keyring lacks, and stay as they were: add the keys, or drop the secrets with --drop-lost"
    )]
    Lost(usize),
    #[error("{0} streams are not as the settings want them")]
    NotMigrated(usize),
    #[error("a listener failed")]
    Listener(#[from] std::io::Error),
}

/// Runs a node until `shutdown`, then until requests in flight are answered or the shutdown timeout
/// passes. Fails only if the node can never serve: wrong credentials, a server that is too old, a
/// stream that is refused.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let registry = telemetry::registry()?;
    config.allowances.apply();
    if config.show_private_keys {
        schema::show_private_keys();
    }
    let parts = Parts::register(&registry)?;
    let readiness = Readiness::waiting_for(&["nats", "view"]);
    // A node that answers is healthy unless a loop stopped; readiness says what it lacks.
    let health = Readiness::default();
    let mut supervisor = Supervisor::new(health.clone());
    let stop = shutdown.child_token();
    let status_stop = CancellationToken::new();
    let served = status::serve(
        listeners.status,
        registry,
        readiness.clone(),
        health,
        scaling::routes(
            parts.queues.clone(),
            parts.workers.clone(),
            config.worker_messages,
        ),
        status_stop.clone(),
    );
    supervisor.spawn("status API", served);

    let store = Arc::new(OnceLock::new());
    let rbac = config.rbac()?;
    let (refusals, recorder) = Refusals::new(parts.metrics.clone());
    supervisor.spawn("audit recorder", recorder.run(Arc::clone(&store)));
    let admin = Admin::new(
        Arc::clone(&store),
        parts.metrics.clone(),
        &config,
        rbac,
        refusals,
    );
    let tls = follow_tls(config.admin_tls.files(), &mut supervisor)?;
    let mut serving = JoinSet::new();
    if let Some(listener) = listeners.ingest {
        let metrics = parts.ingest.clone();
        let ingest = Ingest::new(Arc::clone(&store), metrics, &config, &listener)?;
        let tls = follow_tls(config.ingest.tls(), &mut supervisor)?;
        let (stop, timeout) = (stop.clone(), config.shutdown_timeout);
        serving.spawn(ingest::serve(listener, ingest, tls, stop, timeout));
    }
    serving.spawn(admin::serve(
        listeners.admin,
        admin,
        tls,
        stop.clone(),
        config.shutdown_timeout,
    ));
    let loaded = start(&config, &mut supervisor, &readiness, parts, &stop).await;
    if let Some(loaded) = loaded? {
        keyring::check()?;
        supervisor.spawn("keyring", keyring::follow());
        first_admin(&loaded, &config).await?;
        tracing::info!(
            node = config.node(),
            sequence = loaded.view().sequence(),
            "serving the Admin API"
        );
        let _ = store.set(loaded);
        readiness.ready("view");
    }
    let stopped = until_served(serving, &mut supervisor, &stop).await?;
    status_stop.cancel();
    if let Some(stopped) = stopped {
        return Err(stopped.into());
    }
    tracing::info!("stopped");
    Ok(())
}

/// The TLS of a listener, whose files are read again when they change.
fn follow_tls(
    files: tls::Files,
    supervisor: &mut Supervisor,
) -> Result<Option<Arc<ServerTls>>, tls::Error> {
    let tls = ServerTls::load(files)?.map(Arc::new);
    if let Some(tls) = tls.clone() {
        supervisor.spawn("certificate watch", async move { tls.follow().await });
    }
    Ok(tls)
}

/// Waits until the Admin API is no longer served: after `stop`, or a loop that stopped.
async fn until_served(
    mut serving: JoinSet<()>,
    supervisor: &mut Supervisor,
    stop: &CancellationToken,
) -> Result<Option<Stopped>, Error> {
    let mut stopped = None;
    loop {
        let served = tokio::select! {
            served = serving.join_next() => served,
            loop_stopped = supervisor.stopped(), if stopped.is_none() => {
                stopped = Some(loop_stopped);
                stop.cancel();
                continue;
            }
        };
        match served {
            Some(served) => served.map_err(std::io::Error::other)?,
            None => break,
        }
    }
    Ok(stopped)
}

pub const SERVICE: &str = "gateway";
const READS: Reads = Reads {
    service: SERVICE,
    consumers: &[],
    streams: &[
        subject::BUCKET_STREAM,
        subject::DEAD_STREAM,
        subject::DELIVERIES_STREAM,
        subject::ATTEMPTS_STREAM,
        subject::AUDIT_STREAM,
    ],
};

/// What the loops of a node report to.
struct Parts {
    metrics: Metrics,
    ingest: ingest::Metrics,
    of_service: ServiceMetrics,
    /// Of the writers.
    bucket: batch::Metrics,
    deliveries: batch::Metrics,
    events: batch::Metrics,
    queues: Queues,
    workers: Workers,
}

impl Parts {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let [bucket, deliveries, events] =
            batch::Metrics::register(registry, ["bucket", "deliveries", "events"])?;
        let workers = Workers::default();
        metrics::register_workers(registry, &workers)?;
        Ok(Self {
            metrics: Metrics::register(registry)?,
            ingest: ingest::Metrics::register(registry)?,
            of_service: ServiceMetrics::register(registry, SERVICE)?,
            bucket,
            deliveries,
            events,
            queues: Queues::register(registry)?,
            workers,
        })
    }
}

/// Connects and loads the view. `None` if shutdown came first.
async fn start(
    config: &Config,
    supervisor: &mut Supervisor,
    readiness: &Readiness,
    parts: Parts,
    shutdown: &CancellationToken,
) -> Result<Option<Arc<Store>>, Error> {
    let (context, lists) = match connect(config, shutdown).await {
        Err(streams::Error::Connection(connection::Error::Stopped)) => return Ok(None),
        result => result.map_err(Error::Streams)?,
    };
    let clients = vec![context.client(), lists.clone()];
    let health = supervisor.health();
    supervisor.spawn(
        "NATS client",
        unreadable::watch(config.nats.clone(), clients, READS, health),
    );
    supervisor.spawn("clock", clock::follow(context.client()));
    let (writer, run) = batch::Writer::new(context.client(), Some(parts.bucket), Duration::ZERO);
    supervisor.spawn("bucket writer", run);
    let (deliveries, run) =
        batch::Writer::new(context.client(), Some(parts.deliveries), Duration::ZERO);
    supervisor.spawn("deliveries writer", run);
    let (events, run) = batch::Writer::new(context.client(), Some(parts.events), Duration::ZERO);
    supervisor.spawn("events writer", run);
    let origin = Origin {
        node: config.node(),
        pid: std::process::id(),
    };
    let store = Arc::new(
        Store::new(
            &context,
            lists,
            (writer, deliveries, events),
            origin,
            (
                config.parking.hook_backlog,
                config.streams.max_event_bytes(&context.client()),
                Quotas::new(&config.limits),
            ),
            parts.metrics.clone(),
        )
        .await?,
    );
    let queues = parts.queues.follow(context.client(), ENTITY_SUBJECTS);
    supervisor.spawn("queue watch", queues);
    supervisor.spawn("worker watch", parts.workers.follow(context.client()));
    spawn_watches(
        supervisor,
        &store,
        &context,
        readiness,
        (parts.metrics, parts.of_service),
    );
    let another = set_up_again(Arc::clone(&store), context, config.clone());
    supervisor.spawn("bucket set-up", another);
    tokio::select! {
        () = load(&store) => Ok(Some(store)),
        () = shutdown.cancelled() => Ok(None),
        stopped = supervisor.stopped() => Err(stopped.into()),
    }
}

/// Makes the first super-admin, unless there is a user.
async fn first_admin(store: &Store, config: &Config) -> Result<(), Error> {
    let password = config.first_password()?;
    if store.has_users() {
        if password.is_some() {
            tracing::info!("there are users: the password of the first super-admin counts no more");
        }
        return Ok(());
    }
    match password {
        Some(password) => Ok(store.make_first_admin(&password).await?),
        None if config.rbac()? == Rbac::On => Err(Error::NobodyCanLogIn),
        None => Ok(()),
    }
}

/// The main connection, and a second one for long lists.
async fn connect(
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<(jetstream::Context, Client), streams::Error> {
    let connect =
        async |name: &str| connection::connect(&config.nats, SERVICE, name, shutdown).await;
    let client = connect(&config.node()).await?;
    let context = jetstream::new(client);
    streams::ensure(&context, &config.streams, shutdown).await?;
    clock::measure(&context.client()).await;
    let lists = connect(&format!("{} lists", config.node())).await?;
    Ok((context, lists))
}

fn spawn_watches(
    supervisor: &mut Supervisor,
    store: &Arc<Store>,
    context: &jetstream::Context,
    readiness: &Readiness,
    (metrics, of_service): (Metrics, ServiceMetrics),
) {
    let (view, watched) = (Arc::clone(store.view()), context.clone());
    supervisor.spawn("entity watch", async move {
        store::follow(&view, &watched).await;
    });
    let (counted, context) = (Arc::clone(store), context.clone());
    let finishing = Arc::clone(store);
    supervisor.spawn("unfinished deletions", async move {
        finishing.finish_deletions().await;
    });
    supervisor.spawn("backlog watch", async move {
        counted.watch_backlog(&context).await;
    });
    let recorded = Arc::clone(store);
    supervisor.spawn("audit purge", async move { recorded.purge_records().await });
    let (store, readiness) = (Arc::clone(store), readiness.clone());
    supervisor.spawn("state report", async move {
        report_state(&store, &readiness, &metrics, &of_service).await;
    });
}

/// Creates the default workspace and waits until the view has caught up with the bucket.
async fn load(store: &Store) {
    let mut warned = false;
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
            Err(error) if !warned => {
                warned = true;
                tracing::warn!(%error, "cannot read the bucket yet, retrying every second");
            }
            Err(error) => tracing::debug!(%error, "cannot read the bucket yet"),
        }
        tokio::time::sleep(STARTUP_RETRY).await;
    }
}

/// Sets another bucket up when it takes the place of the first; never returns.
async fn set_up_again(store: Arc<Store>, context: jetstream::Context, config: Config) {
    let never = CancellationToken::new();
    loop {
        store.view().cleared.notified().await;
        if let Err(error) = streams::ensure(&context, &config.streams, &never).await {
            tracing::error!(%error, "cannot use the streams");
        }
        load(&store).await;
        if let Err(error) = first_admin(&store, &config).await {
            tracing::error!("{error}");
        }
        tracing::info!(sequence = store.view().sequence(), "serving another bucket");
    }
}

/// Keeps readiness and gauges up to date; never returns.
async fn report_state(
    store: &Store,
    readiness: &Readiness,
    metrics: &Metrics,
    of_service: &ServiceMetrics,
) {
    loop {
        let connected = store.is_connected();
        if connected {
            readiness.ready("nats");
        } else {
            readiness.missing("nats", "not connected");
        }
        if store.view().is_bucket_missing() {
            readiness.missing("bucket", "there is none in NATS");
        } else {
            readiness.ready("bucket");
        }
        of_service.nats_connected(connected);
        metrics.view(store.view().sequence());
        tokio::time::sleep(STATE_INTERVAL).await;
    }
}
