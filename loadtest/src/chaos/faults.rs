//! The list of faults. Each runs on servers and processes of its own and yields one row of the report.

mod backlog;
mod elastic;
mod endpoints;
mod neighbours;
mod servers;
mod storage;
mod workers;

use anyhow::Result;

use super::row::Row;
use super::stage::Size;

pub struct Fault {
    /// As in `make chaos FAULT=name`.
    pub name: &'static str,
    /// One line for the report.
    pub what: &'static str,
    /// Too long for a test.
    pub long: bool,
    run: Run,
}

type Run = for<'a> fn(&'a str, Size) -> futures::future::LocalBoxFuture<'a, Result<Row>>;

impl Fault {
    /// Requirements that did not hold are in the row; an error is a fault of the harness.
    pub async fn run(&self, size: Size) -> Result<Row> {
        (self.run)(self.name, size).await
    }
}

/// In the order of the report.
pub static FAULTS: &[Fault] = &[
    Fault {
        name: "kill",
        what: "SIGKILL one of three dispatchers every two seconds",
        long: false,
        run: |name, size| Box::pin(workers::kill(name, size)),
    },
    Fault {
        name: "freeze",
        what: "SIGSTOP a dispatcher past its leases, then continue it",
        long: false,
        run: |name, size| Box::pin(workers::freeze(name, size)),
    },
    Fault {
        name: "rolling",
        what: "restart all dispatchers in turn with SIGTERM",
        long: false,
        run: |name, size| Box::pin(workers::rolling(name, size)),
    },
    Fault {
        name: "elastic",
        what: "the load rises and falls tenfold, and dispatchers are added and removed as /scaling wants",
        long: false,
        run: |name, size| Box::pin(elastic::elastic(name, size)),
    },
    Fault {
        name: "nats-kill",
        what: "SIGKILL nats-server, and start it again after five seconds",
        long: false,
        run: |name, size| Box::pin(servers::nats_kill(name, size)),
    },
    Fault {
        name: "nats-leader",
        what: "SIGKILL the leader of three NATS servers, and start it again after five seconds",
        long: true,
        run: |name, size| Box::pin(servers::nats_leader(name, size)),
    },
    Fault {
        name: "nats-cut",
        what: "cut the network between dispatchers and NATS for ten seconds",
        long: false,
        run: |name, size| Box::pin(servers::nats_cut(name, size)),
    },
    Fault {
        name: "redis-kill",
        what: "SIGKILL Redis, and start it again empty",
        long: false,
        run: |name, size| Box::pin(servers::redis_kill(name, size)),
    },
    Fault {
        name: "redis-freeze",
        what: "SIGSTOP Redis for ten seconds",
        long: false,
        run: |name, size| Box::pin(servers::redis_freeze(name, size)),
    },
    Fault {
        name: "redis-cluster",
        what: "a Redis Cluster of three loses a master",
        long: false,
        run: |name, size| Box::pin(servers::redis_cluster(name, size)),
    },
    Fault {
        name: "gateway-kill",
        what: "SIGKILL a gateway during writes",
        long: false,
        run: |name, size| Box::pin(servers::gateway_kill(name, size)),
    },
    Fault {
        name: "refusing",
        what: "half of the events go to an endpoint that refuses connections",
        long: false,
        run: |name, size| Box::pin(neighbours::refusing(name, size)),
    },
    Fault {
        name: "silent",
        what: "half of the events go to an endpoint that never answers",
        long: false,
        run: |name, size| Box::pin(neighbours::silent(name, size)),
    },
    Fault {
        name: "slow",
        what: "half of the events go to an endpoint that answers 500 after five seconds",
        long: false,
        run: |name, size| Box::pin(neighbours::slow(name, size)),
    },
    Fault {
        name: "many-sick",
        what: "200 sick hooks at once beside ten healthy ones",
        long: false,
        run: |name, size| Box::pin(neighbours::many(name, size)),
    },
    Fault {
        name: "hostile",
        what: "hostile hooks, requests and events beside a healthy hook",
        long: false,
        run: |name, size| Box::pin(neighbours::hostile(name, size)),
    },
    Fault {
        name: "down",
        what: "an endpoint is down for a while, then recovers",
        long: false,
        run: |name, size| Box::pin(endpoints::down(name, size)),
    },
    Fault {
        name: "bad-answers",
        what: "endpoints break off, send garbage, endless bodies or huge headers, or have an expired certificate",
        long: false,
        run: |name, size| Box::pin(endpoints::bad_answers(name, size)),
    },
    Fault {
        name: "events-full",
        what: "the event stream is full, then dispatchers make room",
        long: false,
        run: |name, size| Box::pin(storage::events_full(name, size)),
    },
    Fault {
        name: "storage-full",
        what: "NATS has no storage left while schedules fall due, then there is room",
        long: false,
        run: |name, size| Box::pin(storage::full(name, size)),
    },
    Fault {
        name: "million",
        what: "a million deliveries wait for an endpoint that is gone",
        long: true,
        run: |name, size| Box::pin(backlog::million(name, size)),
    },
];
