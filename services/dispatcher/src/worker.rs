//! What runs while a dispatcher works, put together and taken apart again.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_nats::jetstream;
use hookline_shared::batch::{self, Writer};
use hookline_shared::status::Readiness;
use hookline_shared::subject;
use prometheus::Registry;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::bulkhead::{Kind, LaneOccupancy};
use crate::attempt::delivery_log::DeliveryLog;
use crate::attempt::inline_retry::InlineRetries;
use crate::attempt::ping_and_test;
use crate::claims::Claims;
use crate::config::Config;
use crate::hooks::Index;
use crate::intake::consumer::{self, Consumer, Lane, Weight};
use crate::intake::dispatch::{Deliveries, Dispatch, Events};
use crate::metrics::Metrics;
use crate::nats::ack_keepalive::AckKeepalive;
use crate::settle::Settle;
use crate::settle::combiner::Combiner;
use crate::settle::dead_letters::DeadLetters;
use crate::settle::parked::Parked;
use crate::settle::pause_hook::Pauser;
use crate::settle::storage_guard::StorageGuard;
use crate::upkeep::event_purge::EventPurge;
use crate::upkeep::outbox_purge::OutboxPurge;
use crate::upkeep::overdue_sweeper::Sweeper;
use crate::upkeep::watchdog::{Progress, Watchdog};

/// How long a first attempt waits for its hook's permit before it is parked.
const EVENT_PATIENCE: Duration = Duration::from_millis(100);
/// The same for what was parked already: schedules fall due in bursts of a second.
const RETRY_PATIENCE: Duration = Duration::from_secs(2);
/// How often what is parked or dead is written, unless it is much. Each write is several syncs of the
/// server's disk, for which publishers wait: more often, more of them do, and more rarely, each waits
/// for longer.
const PARK_PACE: Duration = Duration::from_millis(250);
/// How long the last messages to NATS may take at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// What a worker is made of.
pub(crate) struct Parts<'a> {
    /// Settings.
    pub config: &'a Config,
    /// The connection to NATS.
    pub context: &'a jetstream::Context,
    /// A connection for what takes the server long to answer.
    pub asking: &'a jetstream::Context,
    /// Where metrics are registered.
    pub registry: &'a Registry,
    /// Metrics.
    pub metrics: Metrics,
    /// Claims.
    pub accept: Claims,
    /// The hooks.
    pub index: Arc<Index>,
    /// Where it says what is wrong.
    pub health: Readiness,
}

/// What the consumers of one lane share.
struct Permits {
    all: Arc<Semaphore>,
    weight: Weight,
    room: Arc<LaneOccupancy>,
}

/// What runs while a dispatcher works.
pub(crate) struct Worker {
    client: async_nats::Client,
    accept: Claims,
    in_flight: AckKeepalive,
    tasks: TaskTracker,
    pulling: CancellationToken,
    rebuild: Arc<Notify>,
    lanes: TaskTracker,
    metrics: Metrics,
}

impl Worker {
    /// Starts to work.
    ///
    /// # Errors
    /// If NATS refuses the consumers.
    pub(crate) async fn start(parts: Parts<'_>) -> anyhow::Result<Self> {
        let client = parts.context.client();
        let worker = Self {
            in_flight: AckKeepalive::new(client.clone()),
            client: client.clone(),
            accept: parts.accept.clone(),
            tasks: TaskTracker::new(),
            pulling: CancellationToken::new(),
            rebuild: Arc::default(),
            lanes: TaskTracker::new(),
            metrics: parts.metrics.clone(),
        };
        let progress = Progress::default();
        let dispatch = Arc::new(dispatch(&parts, progress.clone(), &worker)?);
        worker.keep(&parts, &dispatch, progress);
        worker.lanes.spawn(ping_and_test::serve(
            client,
            Arc::clone(&parts.index),
            worker.pulling.clone(),
        ));
        worker.pull(&parts, dispatch).await?;
        Ok(worker)
    }

    /// Starts what runs beside the lanes.
    fn keep(&self, parts: &Parts<'_>, dispatch: &Dispatch, progress: Progress) {
        let (in_flight, leases) = (self.in_flight.clone(), self.accept.clone());
        let ack_wait = parts.config.lanes.ack_wait;
        tokio::spawn(async move { in_flight.keep_alive(ack_wait).await });
        tokio::spawn(async move { leases.keep_leases().await });
        let watchdog = Watchdog {
            context: parts.context.clone(),
            progress,
            health: parts.health.clone(),
            rebuild: Arc::clone(&self.rebuild),
            metrics: parts.metrics.clone(),
        };
        tokio::spawn(async move { watchdog.watch().await });
        let (storage, metrics) = (dispatch.settle.storage.clone(), parts.metrics.clone());
        let context = parts.context.clone();
        tokio::spawn(async move { storage.watch(&context, &metrics).await });
        let (outbox, context) = (dispatch.outbox.clone(), parts.context.clone());
        tokio::spawn(async move { outbox.purge(&context).await });
        let (trim, context) = (dispatch.settle.trim.clone(), parts.asking.clone());
        let accept = parts.accept.clone();
        tokio::spawn(async move { trim.trim(&context, &accept).await });
        let sweeper = Sweeper {
            context: parts.asking.clone(),
            deliveries: dispatch.settle.deliveries.clone(),
            index: Arc::clone(&parts.index),
            accept: parts.accept.clone(),
            metrics: parts.metrics.clone(),
        };
        tokio::spawn(async move { sweeper.sweep().await });
    }

    /// Starts the lanes.
    async fn pull(&self, parts: &Parts<'_>, dispatch: Arc<Dispatch>) -> anyhow::Result<()> {
        let lanes = &parts.config.lanes;
        let consumer = |stream, name, filter| Consumer {
            context: parts.context.clone(),
            stream,
            name,
            filter,
            ack_wait: lanes.ack_wait,
        };
        // Without a filter, which costs the server a look at each message.
        let events = consumer(subject::EVENTS_STREAM, subject::DISPATCHERS_CONSUMER, "");
        let retries = consumer(
            subject::DELIVERIES_STREAM,
            subject::RETRIES_CONSUMER,
            subject::DUE_SUBJECTS,
        );
        let fanout = consumer(
            subject::DELIVERIES_STREAM,
            subject::FANOUT_CONSUMER,
            subject::NOW_SUBJECTS,
        );
        // A server that refuses them for good is told at the start.
        for consumer in [&events, &fanout, &retries] {
            consumer.make().await?;
        }
        let lane = |kind, permits, patience| Permits {
            all: Arc::new(Semaphore::new(permits as usize)),
            weight: Weight::default(),
            room: Arc::new(LaneOccupancy::new(kind, permits as usize, patience)),
        };
        let first = lane(Kind::Events, lanes.event_permits, EVENT_PATIENCE);
        let again = lane(Kind::Retries, lanes.retry_permits, RETRY_PATIENCE);
        let most = |permits: u32| consumer::PULL.min(permits as usize / 2).max(1);
        // Its pulls wait, and what they hold events cannot have.
        let few = consumer::SMALL_PULL
            .min(lanes.event_permits as usize / 8)
            .max(1);
        let deliveries = |lane: &Permits| Deliveries {
            dispatch: Arc::clone(&dispatch),
            room: Arc::clone(&lane.room),
        };
        self.lane("fanout", fanout, few, &first, deliveries(&first));
        self.lane(
            "retries",
            retries,
            most(lanes.retry_permits),
            &again,
            deliveries(&again),
        );
        let work = Events {
            dispatch: Arc::clone(&dispatch),
            room: Arc::clone(&first.room),
        };
        let most = most(lanes.event_permits);
        self.lane("events", events, most, &first, work);
        Ok(())
    }

    fn lane(
        &self,
        name: &'static str,
        consumer: Consumer,
        most: usize,
        permits: &Permits,
        work: impl consumer::MessageSink,
    ) {
        let lane = Lane {
            name,
            consumer,
            most,
            rebuild: Arc::clone(&self.rebuild),
            permits: Arc::clone(&permits.all),
            weight: permits.weight.clone(),
            in_flight: self.in_flight.clone(),
            tasks: self.tasks.clone(),
            gauge: self.metrics.in_flight(name),
        };
        self.lanes
            .spawn(lane.run(Arc::new(work), self.pulling.clone()));
    }

    /// Stops pulling, gives unstarted messages back, finishes what is in flight within the
    /// deadline and gives back what is not finished then.
    pub(crate) async fn stop(self, deadline: Duration) {
        self.pulling.cancel();
        self.lanes.close();
        self.tasks.close();
        let finished = async {
            self.lanes.wait().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(deadline, finished).await.is_err() {
            let count = self.in_flight.give_back().await;
            self.accept.release_all().await;
            tracing::warn!(
                count,
                "the deadline passed, what was in flight is given back"
            );
        }
        if tokio::time::timeout(FLUSH, self.client.flush())
            .await
            .is_err()
        {
            tracing::warn!("NATS did not take the last acks, those deliveries may be repeated");
        }
    }
}

fn dispatch(parts: &Parts<'_>, progress: Progress, worker: &Worker) -> anyhow::Result<Dispatch> {
    let writer = |name: &str, pace: Duration| -> anyhow::Result<Writer> {
        let metrics = batch::Metrics::register(parts.registry, name)?;
        let client = parts.context.client();
        Ok(Writer::spawn_paced(client, Some(metrics), pace))
    };
    let settle = Settle {
        client: parts.context.client(),
        deliveries: writer("deliveries", PARK_PACE)?,
        fanout: writer("fanout", Duration::ZERO)?,
        parked: Parked::new(parts.asking.clone()),
        storage: StorageGuard::default(),
        dead: DeadLetters::new(
            parts.asking.clone(),
            writer("dead", PARK_PACE)?,
            parts.metrics.clone(),
        ),
        accept: parts.accept.clone(),
        delivered: (0..parts.accept.groups())
            .map(|_| Combiner::default())
            .collect(),
        pauser: Pauser::new(parts.context.clone(), writer("bucket", Duration::ZERO)?),
        trim: EventPurge::default(),
        progress,
        metrics: parts.metrics.clone(),
    };
    Ok(Dispatch {
        index: Arc::clone(&parts.index),
        accept: parts.accept.clone(),
        settle,
        soon: InlineRetries::new(parts.config.lanes.event_permits, worker.pulling.clone()),
        log: DeliveryLog::start(
            parts.config.attempts.logged,
            &parts.config.node,
            parts.context.client(),
            &worker.tasks,
            parts.metrics.clone(),
        ),
        outbox: OutboxPurge::default(),
        spread: AtomicU64::new(0),
        tasks: worker.tasks.clone(),
        metrics: parts.metrics.clone(),
    })
}
