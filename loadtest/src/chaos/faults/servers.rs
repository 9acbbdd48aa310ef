//! Faults of NATS, of Redis and of the gateway.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::nats::login;
use e2e::{Cluster, Proxy, RedisCluster, eventually, wire};

use crate::chaos::endpoint::{Endpoint, Mood};
use crate::chaos::load::Offered;
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{Size, Stage};

/// Downtime of a killed server.
const AWAY: Duration = Duration::from_secs(5);
/// How long Redis is frozen, and the network cut.
const LONG_AWAY: Duration = Duration::from_secs(10);
/// Time allowed until deliveries go on.
const RESUMES: Duration = Duration::from_secs(5);
/// The dispatchers' ack wait: deliveries attempted longer ago are settled.
const ACK_WAIT: Duration = Duration::from_secs(8);

const WELL: [Mood; 2] = [Mood::Well, Mood::Well];

fn repeats() -> Evidence {
    Evidence {
        allows_repeats: true,
        ..Evidence::default()
    }
}

/// Waits for new arrivals, and returns how long that took.
async fn resumes(stage: &Stage) -> Result<Duration> {
    let since = Instant::now();
    let count = || stage.endpoints.iter().map(Endpoint::requests).sum::<u64>();
    let before = count();
    eventually(stage.size.deadline, "deliveries go on", async || {
        anyhow::ensure!(count() > before + 5, "nothing arrives");
        Ok(())
    })
    .await?;
    Ok(since.elapsed())
}

async fn finish(
    name: &str,
    stage: Stage,
    load: crate::chaos::load::Load,
    evidence: Evidence,
) -> Result<Row> {
    tokio::time::sleep(stage.size.calm).await;
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}

pub(super) async fn nats_kill(name: &str, size: Size) -> Result<Row> {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let mut stage = Stage::set(cluster, &WELL, size).await?;
    let mut evidence = repeats();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let killed = Instant::now();
    stage.cluster.nats.kill();
    evidence.mark(stage.began, "kill");
    tokio::time::sleep(AWAY).await;
    // Acknowledgements may have been on their way at the kill.
    let since = killed + Duration::from_secs(1);
    let taken: usize = stage
        .endpoints
        .iter()
        .map(|endpoint| endpoint.ledger.acknowledged_in(since..=Instant::now()))
        .sum();
    stage.cluster.nats.start().await?;
    evidence.mark(stage.began, "back");
    let pause = resumes(&stage).await?;
    evidence.require(pause <= RESUMES, || format!("it took {pause:.1?} to go on"));
    evidence.observed =
        (taken == 0).then(|| format!("away {AWAY:?}, delivering {pause:.1?} after its return"));
    // Acks may have been lost with the server.
    evidence
        .repeats
        .push((killed - ACK_WAIT, killed + ACK_WAIT + AWAY));
    finish(name, stage, load, evidence).await
}

/// Loses the leader of the event stream; the other servers elect a new one.
pub(super) async fn nats_leader(name: &str, size: Size) -> Result<Row> {
    let builder = Cluster::builder().nats_servers(3).dispatchers(2);
    let mut stage = Stage::set(builder.start().await?, &WELL, size).await?;
    let mut evidence = repeats();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let killed = Instant::now();
    let leader = stage.cluster.nats.kill_leader(wire::EVENTS).await?;
    evidence.mark(stage.began, "kill");
    tokio::time::sleep(AWAY).await;
    stage.cluster.nats.start_node(leader)?;
    evidence.mark(stage.began, "back");
    let pause = resumes(&stage).await?;
    let after = killed.elapsed();
    evidence.require(pause <= RESUMES, || format!("it took {pause:.1?} to go on"));
    let elected = stage.cluster.nats.leader(wire::EVENTS).await?;
    evidence.observed = (elected != leader).then(|| {
        format!(
            "server {} led and was killed, {} was elected, delivering within {after:.1?} of the kill",
            leader + 1,
            elected + 1
        )
    });
    evidence
        .repeats
        .push((killed - ACK_WAIT, Instant::now() + ACK_WAIT));
    finish(name, stage, load, evidence).await
}

pub(super) async fn nats_cut(name: &str, size: Size) -> Result<Row> {
    let proxy = Proxy::start().await?;
    let url = login("dispatcher", &format!("nats://{}", proxy.address()));
    let mut cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_NATS_URL", &url)
        .prepare()
        .await?;
    proxy.lead_to(cluster.nats.port());
    cluster.start().await?;
    let stage = Stage::set(cluster, &WELL, size).await?;
    let mut evidence = repeats();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let cut = Instant::now();
    proxy.cut();
    evidence.mark(stage.began, "cut");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let passed = proxy.passed();
    tokio::time::sleep(LONG_AWAY - Duration::from_secs(1)).await;
    let silent = proxy.passed() == passed;
    proxy.mend();
    evidence.mark(stage.began, "mended");
    let pause = resumes(&stage).await?;
    evidence.require(pause <= RESUMES, || format!("it took {pause:.1?} to go on"));
    evidence.observed =
        silent.then(|| format!("nothing passed for {LONG_AWAY:?}, delivering {pause:.1?} after"));
    evidence
        .repeats
        .push((cut - ACK_WAIT, cut + ACK_WAIT + LONG_AWAY));
    finish(name, stage, load, evidence).await
}

pub(super) async fn redis_kill(name: &str, size: Size) -> Result<Row> {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let mut stage = Stage::set(cluster, &WELL, size).await?;
    let mut evidence = repeats();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let killed = Instant::now();
    stage.cluster.redis.kill();
    evidence.mark(stage.began, "kill");
    let pause = resumes(&stage).await?;
    evidence.require(pause <= RESUMES, || format!("it took {pause:.1?} to go on"));
    tokio::time::sleep(AWAY).await;
    let skipped = stage
        .metric("hookline_deliveries_unguarded_total", &[])
        .await;
    stage.cluster.redis.start().await?;
    evidence.mark(stage.began, "back, empty");
    evidence.observed = (skipped > 0.0).then(|| format!("{skipped} deliveries without Redis"));
    evidence
        .repeats
        .push((killed - ACK_WAIT, killed + ACK_WAIT + AWAY));
    finish(name, stage, load, evidence).await
}

pub(super) async fn redis_freeze(name: &str, size: Size) -> Result<Row> {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let stage = Stage::set(cluster, &WELL, size).await?;
    let mut evidence = repeats();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let frozen = Instant::now();
    stage.cluster.redis.process().freeze()?;
    evidence.mark(stage.began, "stop");
    let pause = resumes(&stage).await?;
    evidence.require(pause <= RESUMES, || format!("it took {pause:.1?} to go on"));
    tokio::time::sleep(LONG_AWAY.saturating_sub(frozen.elapsed())).await;
    let skipped = stage
        .metric("hookline_deliveries_unguarded_total", &[])
        .await;
    stage.cluster.redis.process().thaw()?;
    evidence.mark(stage.began, "continue");
    evidence.observed = (skipped > 0.0).then(|| format!("{skipped} deliveries without Redis"));
    evidence
        .repeats
        .push((frozen - ACK_WAIT, frozen + ACK_WAIT + LONG_AWAY));
    finish(name, stage, load, evidence).await
}

pub(super) async fn redis_cluster(name: &str, size: Size) -> Result<Row> {
    let mut redis = RedisCluster::start().await?;
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_REDIS_URL", &redis.url())
        .start()
        .await?;
    // Enough hooks for every master to have some.
    let stage = Stage::set(cluster, &[Mood::Well; 12], size).await?;
    let mut evidence = repeats();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let killed = Instant::now();
    redis.nodes[1].kill();
    evidence.mark(stage.began, "kill");
    let pause = resumes(&stage).await?;
    evidence.require(pause <= RESUMES, || format!("it took {pause:.1?} to go on"));
    tokio::time::sleep(AWAY).await;
    let skipped = stage
        .metric("hookline_deliveries_unguarded_total", &[])
        .await;
    redis.nodes[1].start().await?;
    evidence.mark(stage.began, "back, empty");
    evidence.observed = (skipped > 0.0).then(|| format!("{skipped} deliveries without Redis"));
    evidence
        .repeats
        .push((killed - ACK_WAIT, killed + ACK_WAIT + AWAY));
    tokio::time::sleep(size.calm).await;
    let offered = load.stop().await?;
    stage
        .settle(&(0..stage.endpoints.len()).collect::<Vec<_>>())
        .await;
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}

/// Creates consumers one by one while the gateway is killed repeatedly. An entity must exist if and
/// only if its event was delivered.
pub(super) async fn gateway_kill(name: &str, size: Size) -> Result<Row> {
    let mut cluster = Cluster::builder()
        .dispatchers(2)
        .gateways(2)
        .start()
        .await?;
    let began = Instant::now();
    let endpoint = Endpoint::start(Mood::Well).await?;
    let url = endpoint.url.clone();
    let created = serde_json::json!({"source": "crud", "event": "consumers:create",
        "handler": "webhook", "config": {"url": url, "secret": super::super::endpoint::SECRET}});
    cluster.admin().create_hook(&created).await?;
    let mut evidence = Evidence::default();
    let (mut number, mut kills) = (0, 0);
    let end = Instant::now() + size.fault;
    let mut next_kill = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        endpoint.ledger.published(number);
        let body = serde_json::json!({"username": format!("user-{number}"),
            "custom_id": number.to_string()});
        let admin = cluster.gateways[0].admin().clone();
        let request = tokio::spawn(async move { admin.post("/consumers", &body).await });
        if Instant::now() >= next_kill {
            cluster.gateways[0].process_mut().kill();
            evidence.mark(began, "kill");
            kills += 1;
            let _ = request.await;
            cluster.gateways[0].start()?;
            cluster.gateways[0].ready().await?;
            next_kill = Instant::now() + Duration::from_millis(500);
        } else {
            let _ = request.await;
        }
        number += 1;
    }
    evidence.observed = (kills > 0).then(|| format!("{kills} kills, {number} creates"));
    // Whatever was answered, an entity that exists must have its event.
    let all = cluster.gateways[1].admin().list("/consumers").await?;
    for consumer in &all {
        let custom_id = consumer["custom_id"].as_str().context("a custom_id")?;
        endpoint.ledger.acknowledged(custom_id.parse()?);
    }
    let offered = Offered {
        events: number as u64,
        asked: number as u64,
    };
    let arrived = eventually(size.deadline, "everything arrives", async || {
        let (_, open) = endpoint.ledger.open();
        anyhow::ensure!(open == 0, "{open} are missing");
        Ok(())
    });
    let _ = arrived.await;
    cluster.rest().await?;
    let invented = endpoint.ledger.invented();
    evidence.require(invented == 0, || {
        format!("{invented} events of entities that do not exist")
    });
    evidence.require(all.len() > kills * 2, || {
        format!("only {} consumers were created", all.len())
    });
    let row = Row::reconcile(name, &[&endpoint], offered, evidence, began);
    cluster.finish().await?;
    Ok(row)
}
