//! Everything a scenario needs, started together and checked at the end.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::Admin;
use crate::nats::{NatsServer, Store};
use crate::process::Process;
use crate::receiver::Receiver;
use crate::redis::RedisServer;
use crate::secrets::Secrets;
use crate::service::Service;
use crate::wait::eventually;
use crate::{SOON, wire};

/// Log lines that a failed scenario prints of each process.
const TAIL: usize = 12;

/// Messages that a scenario leaves behind on purpose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Leftovers {
    pub dead: u64,
    pub parked: u64,
}

/// Which services and servers to start, with which settings.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    gateways: usize,
    dispatchers: usize,
    nats_store: Store,
    nats_servers: usize,
    is_production: bool,
    gateway_env: Vec<(String, String)>,
    dispatcher_env: Vec<(String, String)>,
}

impl Builder {
    /// Default: 1.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// Default: 1.
    #[must_use]
    pub fn dispatchers(mut self, count: usize) -> Self {
        self.dispatchers = count;
        self
    }

    #[must_use]
    pub fn nats_store(mut self, store: Store) -> Self {
        self.nats_store = store;
        self
    }

    /// Default: 1. Each has a copy of every stream.
    #[must_use]
    pub fn nats_servers(mut self, count: usize) -> Self {
        self.nats_servers = count;
        let count = count.to_string();
        self.gateway_env("HOOKLINE_REPLICAS", &count)
            .dispatcher_env("HOOKLINE_REPLICAS", &count)
    }

    /// With the configuration for production: TLS, users of Redis, a keyring, tokens, and three copies of all in NATS.
    #[must_use]
    pub fn production(mut self) -> Self {
        self.is_production = true;
        self.nats_servers(3)
    }

    /// Sets a variable of every gateway.
    #[must_use]
    pub fn gateway_env(mut self, name: &str, value: &str) -> Self {
        self.gateway_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a variable of every dispatcher.
    #[must_use]
    pub fn dispatcher_env(mut self, name: &str, value: &str) -> Self {
        self.dispatcher_env
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts everything and waits until it is ready.
    pub async fn start(self) -> Result<Cluster> {
        let mut cluster = self.prepare().await?;
        cluster.start().await?;
        Ok(cluster)
    }

    /// Prepares everything, but starts only the receiver.
    pub async fn prepare(mut self) -> Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("hookline-").tempdir()?;
        let secrets = match self.is_production {
            true => Some(Secrets::make(dir.path())?),
            false => None,
        };
        let (nats, redis) = if let Some(secrets) = &secrets {
            self = secrets.for_services(self);
            let nats = NatsServer::production(dir.path(), self.nats_servers, secrets)?;
            (nats, RedisServer::production(dir.path(), secrets)?)
        } else if self.nats_servers > 1 {
            let nats = NatsServer::cluster(dir.path(), self.nats_servers)?;
            (nats, RedisServer::new(dir.path())?)
        } else {
            let nats = NatsServer::with_store(dir.path(), self.nats_store)?;
            (nats, RedisServer::new(dir.path())?)
        };
        let mut cluster = Cluster {
            receiver: Receiver::start().await?,
            gateways: Vec::new(),
            dispatchers: Vec::new(),
            nats,
            redis,
            secrets,
            builder: self,
            finished: false,
            dir,
        };
        for _ in 0..cluster.builder.gateways {
            cluster.add_gateway()?;
        }
        for _ in 0..cluster.builder.dispatchers {
            cluster.add_dispatcher()?;
        }
        Ok(cluster)
    }
}

/// The servers, services and receiver of one scenario. Fields are dropped in this order: the folder goes
/// last.
#[derive(Debug)]
pub struct Cluster {
    pub gateways: Vec<Service>,
    pub dispatchers: Vec<Service>,
    pub receiver: Receiver,
    pub nats: NatsServer,
    pub redis: RedisServer,
    secrets: Option<Secrets>,
    builder: Builder,
    finished: bool,
    dir: TempDir,
}

impl Cluster {
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            gateways: 1,
            dispatchers: 1,
            ..Builder::default()
        }
    }

    /// One gateway and one dispatcher.
    pub async fn single() -> Result<Self> {
        Self::builder().start().await
    }

    /// Two gateways and two dispatchers.
    pub async fn double() -> Result<Self> {
        Self::builder().gateways(2).dispatchers(2).start().await
    }

    /// Starts everything that was prepared, and waits until it is ready.
    pub async fn start(&mut self) -> Result<()> {
        self.nats.start().await?;
        self.redis.start().await?;
        for service in self.services_mut() {
            service.start()?;
        }
        self.ready().await
    }

    /// Prepares another gateway, without starting it.
    pub fn add_gateway(&mut self) -> Result<&mut Service> {
        let name = format!("gateway-{}", self.gateways.len() + 1);
        let mut gateway = Service::gateway(&name, self.dir.path(), &self.nats.url_as("gateway"))?;
        for (name, value) in &self.builder.gateway_env {
            gateway.set(name, value);
        }
        if let Some(secrets) = &self.secrets {
            gateway.log_in(&secrets.variable("HOOKLINE_PASSWORD"));
        }
        self.gateways.push(gateway);
        self.gateways.last_mut().context("it was just added")
    }

    /// Prepares another dispatcher, without starting it.
    pub fn add_dispatcher(&mut self) -> Result<&mut Service> {
        let name = format!("dispatcher-{}", self.dispatchers.len() + 1);
        let (nats, redis) = (self.nats.url_as("dispatcher"), self.redis.url());
        let mut dispatcher = Service::dispatcher(&name, self.dir.path(), &nats, &redis)?;
        for (name, value) in &self.builder.dispatcher_env {
            dispatcher.set(name, value);
        }
        self.dispatchers.push(dispatcher);
        self.dispatchers.last_mut().context("it was just added")
    }

    /// Waits until every service is ready.
    pub async fn ready(&mut self) -> Result<()> {
        for service in self.services_mut() {
            service.ready().await?;
        }
        Ok(())
    }

    /// Of a cluster with the configuration for production.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        let secrets = self.secrets.as_ref();
        secrets.expect("it has the configuration for production")
    }

    /// Where the logs of servers and services are.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The Admin API of the first gateway.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        self.gateways[0].admin()
    }

    /// Creates a `webhook` on `crud`/`consumers` that calls this path of the receiver.
    pub async fn webhook(&self, path: &str) -> Result<Value> {
        self.admin().webhook(&self.receiver.url(path)).await
    }

    /// Publishes an event as `nats pub` does: without headers, not waiting for an answer.
    pub async fn publish(&self, source: &str, event: &str, data: &Value) -> Result<()> {
        let subject = wire::event(source, event);
        self.nats.publish(subject, data.to_string()).await
    }

    /// Summed over all dispatchers.
    pub async fn dispatchers_metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let mut sum = 0.0;
        for dispatcher in &self.dispatchers {
            sum += dispatcher.metric(name, labels).await?;
        }
        Ok(sum)
    }

    /// The positive control for an absence: publishes another event on `crud`/`consumers`, and waits until it
    /// has reached `path` and every event is settled. Whatever is still missing was not just late, and the
    /// set-up works.
    pub async fn control(&self, path: &str) -> Result<()> {
        let before = self.receiver.controls(path).len();
        let data = json!({ "control": true });
        self.publish("crud", "consumers", &data).await?;
        eventually(SOON, &format!("a control event at {path}"), async || {
            ensure!(self.receiver.controls(path).len() > before, "none yet");
            let open = self.nats.open_events().await?;
            ensure!(open == 0, "{open} events open");
            let unacked = self.nats.unacked(wire::DELIVERIES).await?;
            ensure!(unacked == 0, "{unacked} parked deliveries unacked");
            Ok(())
        })
        .await
    }

    /// Waits until no event is open and nothing is parked or dead.
    pub async fn rest(&self) -> Result<()> {
        self.rest_leaving(Leftovers::default()).await
    }

    /// Waits until every event is settled, and exactly `leftovers` are parked and dead.
    pub async fn rest_leaving(&self, leftovers: Leftovers) -> Result<()> {
        eventually(SOON, "the cluster comes to rest", async || {
            let unsourced = self.nats.unsourced().await?;
            ensure!(unsourced == 0, "{unsourced} events in the outbox");
            let open = self.nats.open_events().await?;
            ensure!(open == 0, "{open} events open");
            let unacked = self.nats.unacked(wire::DELIVERIES).await?;
            ensure!(unacked == 0, "{unacked} parked deliveries unacked");
            let parked = self.nats.count(wire::DELIVERIES).await?;
            let expected = leftovers.parked;
            ensure!(parked == expected, "{parked} parked, expected {expected}");
            let dead = self.nats.count(wire::DEAD).await?;
            let expected = leftovers.dead;
            ensure!(dead == expected, "{dead} dead letters, expected {expected}");
            Ok(())
        })
        .await
    }

    /// Ends a scenario. Fails if messages are left over, or a service panicked or does not exit cleanly.
    pub async fn finish(self) -> Result<()> {
        self.finish_leaving(Leftovers::default()).await
    }

    /// As [`Self::finish`], with messages left over on purpose.
    pub async fn finish_leaving(mut self, leftovers: Leftovers) -> Result<()> {
        self.rest_leaving(leftovers).await?;
        self.stop().await?;
        self.finished = true;
        Ok(())
    }

    /// As [`Self::finish`], without a look at the streams.
    pub async fn finish_unchecked(mut self) -> Result<()> {
        self.stop().await?;
        self.finished = true;
        Ok(())
    }

    /// Stops all running services at once.
    async fn stop(&mut self) -> Result<()> {
        let stops = self.services_mut().map(async |service| {
            service.check_log()?;
            if service.process().pid().is_ok() && service.check_running().is_ok() {
                service.stop().await?;
            }
            service.check_log()
        });
        futures::future::try_join_all(stops).await?;
        Ok(())
    }

    fn services_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        self.gateways.iter_mut().chain(&mut self.dispatchers)
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        let services = self.gateways.iter().chain(&self.dispatchers);
        let servers = self.nats.processes().chain([self.redis.process()]);
        servers.chain(services.map(Service::process))
    }
}

impl Drop for Cluster {
    #[allow(
        clippy::print_stderr,
        reason = "a failed scenario shows what the services said"
    )]
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for process in self.processes() {
            eprintln!("--- {}: last lines", process.name());
            eprintln!("{}", process.tail(TAIL));
        }
    }
}
