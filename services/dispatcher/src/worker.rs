//! Startup and shutdown of a worker, whose background loops run under supervision.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use hookline_shared::batch::{self, Writer};
use hookline_shared::hook::MAX_TIMEOUT;
use hookline_shared::queues::Queues;
use hookline_shared::status::Readiness;
use hookline_shared::subject;
use hookline_shared::supervisor::Supervisor;
use hookline_shared::workers;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::bulkhead::{Kind, LaneOccupancy};
use crate::admission::circuit_breaker::Circuits;
use crate::admission::return_slot::ReturnSlots;
use crate::attempt::deliver::Deliverer;
use crate::attempt::delivery_log::DeliveryLog;
use crate::attempt::inline_retry::InlineRetries;
use crate::attempt::ping_and_test;
use crate::claims::Claims;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::hooks::Index;
use crate::intake::consumer::{self, Consumer, Lane, Weight};
use crate::intake::dispatch::{Content, Dispatch, Handover, Sink};
use crate::intake::spread_limit::SpreadLimit;
use crate::intake::suspects::Suspects;
use crate::intake::workspaces::Workspaces;
use crate::metrics::{LaneName, Metrics};
use crate::nats::ack_keepalive::AckKeepalive;
use crate::redis::client::RedisClient;
use crate::redis::workers::Workers;
use crate::settle::Settle;
use crate::settle::combiner::Combiner;
use crate::settle::dead_letters::DeadLetters;
use crate::settle::parked::Parked;
use crate::settle::pause_hook::Pauser;
use crate::settle::storage_guard::StorageGuard;
use crate::upkeep::bucket_purge::BucketPurge;
use crate::upkeep::event_purge::EventPurge;
use crate::upkeep::outbox_purge::OutboxPurge;
use crate::upkeep::overdue_sweeper::Sweeper;
use crate::upkeep::watchdog::Watchdog;

/// How long a first attempt waits for its hook's permit, if the hook is not known to be healthy.
const EVENT_PATIENCE: Duration = Duration::from_millis(100);
/// The same for a parked delivery: schedules fall due in bursts of a second.
const RETRY_PATIENCE: Duration = Duration::from_secs(2);
/// Between writes of parked and dead deliveries, unless there are many. Each write costs the server several syncs, for
/// which publishers wait.
const PARK_PACE: Duration = Duration::from_millis(250);
/// At a shutdown, for abandoned deliveries and for the last messages to NATS.
const FLUSH: Duration = Duration::from_secs(2);
/// The background loop that ends when the delivery log is written.
const LOG: &str = "delivery log";
const EVENT_LANE: &str = "event lane";
const RETRY_LANE: &str = "retry lane";
const FANOUT_LANE: &str = "fanout lane";
const PINGS: &str = "pings and tests";
/// The loops that end by themselves once pulling stops.
const LANES: [&str; 4] = [EVENT_LANE, RETRY_LANE, FANOUT_LANE, PINGS];

/// By the names of their metrics.
pub(crate) const WRITERS: [&str; 4] = ["dead", "bucket", "deliveries", "fanout"];

pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) context: &'a jetstream::Context,
    /// Its own connection, for requests that take the server long.
    pub(crate) asking: &'a jetstream::Context,
    /// Those of the writers, see [`WRITERS`].
    pub(crate) batches: [batch::Metrics; WRITERS.len()],
    pub(crate) metrics: Metrics,
    pub(crate) queues: Queues,
    pub(crate) redis: RedisClient,
    pub(crate) cluster: Cluster,
    pub(crate) index: Arc<Index>,
    /// For `/healthz`.
    pub(crate) health: Readiness,
}

/// Shared by the consumers of one lane.
struct Permits {
    all: Arc<Semaphore>,
    weight: Weight,
    occupancy: Arc<LaneOccupancy>,
}

pub(crate) struct Worker {
    client: async_nats::Client,
    claims: Claims,
    workers: Workers,
    keepalive: AckKeepalive,
    /// Messages and deliveries in flight.
    tasks: TaskTracker,
    /// Cancelled when pulling stops.
    pulling: CancellationToken,
    /// Cancelled when attempts in flight are abandoned.
    abandon: CancellationToken,
    rebuild: Arc<Notify>,
    metrics: Metrics,
}

impl Worker {
    pub(crate) async fn start(
        parts: Parts<'_>,
        supervisor: &mut Supervisor,
    ) -> anyhow::Result<Self> {
        let client = parts.context.client();
        let workers = Workers::new(parts.redis.clone());
        let worker = Self {
            claims: Claims::new(
                parts.redis.clone(),
                workers.clone(),
                parts.config.redis.claims(),
                parts.metrics.clone(),
            ),
            workers,
            keepalive: AckKeepalive::new(client.clone(), parts.config.lanes.ack_wait),
            client,
            tasks: TaskTracker::new(),
            pulling: CancellationToken::new(),
            abandon: CancellationToken::new(),
            rebuild: Arc::default(),
            metrics: parts.metrics.clone(),
        };
        let settle = Arc::new(worker.settle(&parts, supervisor));
        let hand_over = worker.deliverer(&parts, &settle, supervisor);
        let dispatch = Arc::new(Dispatch {
            index: Arc::clone(&parts.index),
            claims: worker.claims.clone(),
            settle,
            outbox: OutboxPurge::default(),
            spread: SpreadLimit::default(),
            suspects: Suspects::new(parts.redis.clone()),
            workspaces: Workspaces::new(parts.metrics.clone()),
            hand_over,
            tasks: worker.tasks.clone(),
            metrics: parts.metrics.clone(),
        });
        worker.run_loops(&parts, &dispatch, supervisor);
        worker.pull(&parts, dispatch, supervisor).await?;
        Ok(worker)
    }

    fn settle(&self, parts: &Parts<'_>, supervisor: &mut Supervisor) -> Settle {
        let mut writer = |name: &'static str, pace, metrics| {
            let (writer, run) = Writer::new(self.client.clone(), Some(metrics), pace);
            supervisor.spawn(name, run);
            writer
        };
        let [dead, bucket, deliveries, fanout] = parts.batches.clone();
        let dead = writer("dead", PARK_PACE, dead);
        let bucket = writer("bucket", Duration::ZERO, bucket);
        let deliveries = writer("deliveries", PARK_PACE, deliveries);
        let fanout = writer("fanout", Duration::ZERO, fanout);
        let asking = parts.asking;
        Settle {
            client: self.client.clone(),
            deliveries,
            fanout,
            parked: Parked::new(asking.clone()),
            storage: StorageGuard::default(),
            dead_letters: DeadLetters::new(asking.clone(), dead, parts.metrics.clone()),
            claims: self.claims.clone(),
            workers: self.workers.clone(),
            delivered: (0..self.claims.groups())
                .map(|_| Combiner::default())
                .collect(),
            pauser: Pauser::new(parts.context.clone(), bucket),
            acked_events: Default::default(),
            progress: Default::default(),
            metrics: parts.metrics.clone(),
        }
    }

    /// Returns how lanes hand deliveries over.
    fn deliverer(
        &self,
        parts: &Parts<'_>,
        settle: &Arc<Settle>,
        supervisor: &mut Supervisor,
    ) -> Handover {
        let (redis, metrics) = (&parts.redis, &parts.metrics);
        let (log, run) = DeliveryLog::new(
            parts.config.attempts.logged,
            &parts.config.node(),
            self.client.clone(),
            metrics.clone(),
        );
        supervisor.spawn(LOG, run);
        let permits = parts.config.lanes.event_permits;
        let deliverer = Arc::new(Deliverer {
            index: Arc::clone(&parts.index),
            claims: self.claims.clone(),
            circuits: Circuits::new(redis.clone(), metrics.clone()),
            slots: ReturnSlots::new(redis.clone(), self.workers.clone()),
            settle: Arc::clone(settle),
            inline_retries: InlineRetries::new(permits, self.pulling.clone()),
            log,
            tasks: self.tasks.clone(),
            abandon: self.abandon.clone(),
            metrics: metrics.clone(),
        });
        let tasks = self.tasks.clone();
        Box::new(move |lane, deliveries| {
            tasks.spawn(Arc::clone(&deliverer).deliver(lane, deliveries));
        })
    }

    fn run_loops(&self, parts: &Parts<'_>, dispatch: &Dispatch, supervisor: &mut Supervisor) {
        let settle = &dispatch.settle;
        let (context, asking) = (parts.context, parts.asking);
        supervisor.spawn("ack keepalive", self.keepalive.clone().run());
        supervisor.spawn("leases", self.claims.clone().keep_leases());
        supervisor.spawn(
            "workspaces",
            dispatch.workspaces.clone().run(context.clone()),
        );
        let timeout = parts.config.attempts.timeout;
        let watchdog = Watchdog {
            client: self.client.clone(),
            queues: parts.queues.clone(),
            progress: settle.progress.clone(),
            longest_attempt: timeout.max(MAX_TIMEOUT),
            keepalive: self.keepalive.clone(),
            health: parts.health.clone(),
            rebuild: Arc::clone(&self.rebuild),
            metrics: parts.metrics.clone(),
        };
        supervisor.spawn("watchdog", watchdog.run());
        let storage = settle.storage.clone();
        supervisor.spawn(
            "storage guard",
            storage.run(context.clone(), parts.metrics.clone()),
        );
        let outbox = dispatch.outbox.clone();
        supervisor.spawn("outbox purge", outbox.run(context.clone()));
        let events = EventPurge {
            context: asking.clone(),
            acked: settle.acked_events.clone(),
            workers: self.workers.clone(),
        };
        supervisor.spawn("event purge", events.run());
        let bucket = BucketPurge {
            context: asking.clone(),
            workers: self.workers.clone(),
        };
        supervisor.spawn("bucket purge", bucket.run());
        let sweeper = Sweeper {
            context: asking.clone(),
            settle: Arc::clone(settle),
            index: Arc::clone(&parts.index),
            workers: self.workers.clone(),
            metrics: parts.metrics.clone(),
        };
        supervisor.spawn("overdue sweeper", sweeper.run());
    }

    /// Starts the lanes.
    async fn pull(
        &self,
        parts: &Parts<'_>,
        dispatch: Arc<Dispatch>,
        supervisor: &mut Supervisor,
    ) -> anyhow::Result<()> {
        let lanes = &parts.config.lanes;
        let consumer = |stream, name, filter| Consumer {
            context: parts.context.clone(),
            stream,
            name,
            filter,
            ack_wait: lanes.ack_wait,
        };
        // No filter, which would cost the server a check of each message.
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
        let requests = ping_and_test::serve(
            self.client.clone(),
            Arc::clone(&parts.index),
            parts.cluster.clone(),
            Arc::new(Circuits::new(parts.redis.clone(), parts.metrics.clone())),
            self.pulling.clone(),
        );
        supervisor.spawn(PINGS, requests);
        // If the server refuses a consumer, the start fails.
        for consumer in [&events, &fanout, &retries] {
            consumer.make(&self.keepalive).await?;
        }
        let lane = |kind, permits, patience| Permits {
            all: Arc::new(Semaphore::new(permits as usize)),
            weight: Weight::default(),
            occupancy: Arc::new(LaneOccupancy::new(kind, permits as usize, patience)),
        };
        let event_lane = lane(Kind::Events, lanes.event_permits, EVENT_PATIENCE);
        let retry_lane = lane(Kind::Retries, lanes.retry_permits, RETRY_PATIENCE);
        let permits = lanes.event_permits + lanes.retry_permits;
        let announce = workers::announce(self.client.clone(), permits);
        supervisor.spawn("signs of life", announce);
        self.metrics.permits(LaneName::Events, lanes.event_permits);
        self.metrics.permits(LaneName::Retries, lanes.retry_permits);
        let most = |permits: u32| consumer::PULL.min(permits as usize / 2).max(1);
        // Its pulls wait, with permits that events cannot use.
        let few = consumer::SMALL_PULL
            .min(lanes.event_permits as usize / 8)
            .max(1);
        let sink = |lane: &Permits, content| {
            Arc::new(Sink {
                dispatch: Arc::clone(&dispatch),
                occupancy: Arc::clone(&lane.occupancy),
                content,
            })
        };
        let fanout = self.lane(fanout, few, &event_lane);
        let run = fanout.run(sink(&event_lane, Content::Deliveries), self.pulling.clone());
        supervisor.spawn(FANOUT_LANE, run);
        let retries = self.lane(retries, most(lanes.retry_permits), &retry_lane);
        let run = retries.run(sink(&retry_lane, Content::Deliveries), self.pulling.clone());
        supervisor.spawn(RETRY_LANE, run);
        let events = self.lane(events, most(lanes.event_permits), &event_lane);
        let run = events.run(sink(&event_lane, Content::Events), self.pulling.clone());
        supervisor.spawn(EVENT_LANE, run);
        Ok(())
    }

    fn lane(&self, consumer: Consumer, most: usize, permits: &Permits) -> Lane {
        Lane {
            consumer,
            most,
            rebuild: Arc::clone(&self.rebuild),
            permits: Arc::clone(&permits.all),
            weight: permits.weight.clone(),
            keepalive: self.keepalive.clone(),
            tasks: self.tasks.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Stops pulling and finishes deliveries in flight. After the deadline attempts are abandoned, and their claims and
    /// messages given back, in this order: a message that is redelivered before its claim is free waits for the lease.
    pub(crate) async fn stop(self, deadline: Duration, supervisor: &mut Supervisor) {
        self.pulling.cancel();
        self.tasks.close();
        let finished = async {
            supervisor.finish(&LANES).await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(deadline, finished).await.is_err() {
            let count = self.tasks.len();
            tracing::warn!(
                count,
                "shutdown deadline passed, deliveries in flight are given back"
            );
            self.abandon.cancel();
            if tokio::time::timeout(FLUSH, self.tasks.wait())
                .await
                .is_err()
            {
                self.claims.release_all().await;
                self.keepalive.give_back().await;
            }
        }
        let log = supervisor.finish(&[LOG]);
        if tokio::time::timeout(FLUSH, log).await.is_err() {
            tracing::warn!("cannot write the last records of the delivery log");
        }
        let flushed = tokio::time::timeout(FLUSH, self.client.flush()).await;
        if flushed.is_err() {
            tracing::warn!("cannot send the last acks, those deliveries may be repeated");
        }
    }
}
