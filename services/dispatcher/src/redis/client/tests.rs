//! What the client believes of Redis, on a real server.

use anyhow::ensure;
use e2e::{RedisServer, Result};
use futures::FutureExt as _;
use prometheus::Registry;
use redis::Script;

use super::*;

const HOOK: &str = "hook";

struct Stage {
    redis: RedisServer,
    client: RedisClient,
    registry: Registry,
    _dir: tempfile::TempDir,
}

fn client(url: &str, registry: &Registry) -> (RedisClient, impl Future<Output = ()> + use<>) {
    let url = RedisUrl::parse(url).expect("a URL");
    let metrics = Metrics::register(registry, 0).expect("metrics");
    RedisClient::new(&url, metrics).expect("a client")
}

impl Stage {
    /// A server that is not started yet, and a client that tries to connect.
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let redis = RedisServer::new(dir.path())?;
        let registry = Registry::new();
        let (client, keep_up) = client(&redis.url(), &registry);
        tokio::spawn(keep_up);
        Ok(Self {
            redis,
            client,
            registry,
            _dir: dir,
        })
    }

    async fn is_up(&self) -> Result {
        e2e::eventually(e2e::SOON, "the client has Redis", async || {
            ensure!(self.client.is_up());
            ensure!(self.gauge() == 1.0);
            Ok(())
        })
        .await
    }

    /// A call that took very long says nothing, so there may be several.
    async fn is_lost(&self) -> Result {
        e2e::eventually(e2e::SOON, "the client loses Redis", async || {
            ensure!(self.call("return 1").await.is_none());
            ensure!(!self.client.is_up());
            ensure!(self.gauge() == 0.0);
            Ok(())
        })
        .await
    }

    /// The value of `hookline_redis_connected`.
    fn gauge(&self) -> f64 {
        let families = self.registry.gather();
        let gauge = families
            .iter()
            .find(|family| family.name() == "hookline_redis_connected");
        gauge.expect("the gauge").get_metric()[0]
            .get_gauge()
            .get_value()
    }

    async fn call(&self, script: &str) -> Option<u64> {
        let script = Script::new(script);
        let mut call = ScriptCall::new(&script, 1);
        call.key(Key::Rate(HOOK)).arg(7);
        self.client.call(HOOK, &call).await
    }
}

#[tokio::test]
async fn a_client_is_up_lost_and_up_again() -> Result {
    let mut stage = Stage::new()?;
    let echo = "return tonumber(ARGV[1])";
    assert_eq!(stage.call(echo).await, None, "there is no server yet");
    assert_eq!(stage.gauge(), 0.0);
    stage.redis.start().await?;
    stage.is_up().await?;
    assert_eq!(stage.call(echo).await, Some(7));

    stage.redis.kill();
    stage.is_lost().await?;
    stage.redis.start().await?;
    stage.is_up().await?;
    assert_eq!(stage.call(echo).await, Some(7), "it is loaded again");
    Ok(())
}

#[tokio::test]
async fn after_a_call_without_an_answer_others_are_skipped() -> Result {
    let mut stage = Stage::new()?;
    stage.redis.start().await?;
    stage.is_up().await?;
    stage.redis.process().freeze()?;
    stage.is_lost().await?;
    let call = stage.call("return 1");
    assert_eq!(call.now_or_never(), Some(None), "it does not wait");
    stage.redis.process().thaw()?;
    stage.is_up().await?;
    assert_eq!(stage.call("return 1").await, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_script_that_fails_on_its_data_is_no_outage() -> Result {
    let mut stage = Stage::new()?;
    stage.redis.start().await?;
    stage.is_up().await?;
    for script in [
        "redis.call('SET', KEYS[1], 'text') return redis.call('INCR', KEYS[1])",
        "redis.call('SET', KEYS[1], 'text') return redis.call('RPUSH', KEYS[1], 1)",
        "return redis.error_reply('ERR own')",
        "return nil .. 1",
        "return 'text'",
    ] {
        assert_eq!(stage.call(script).await, None, "{script}");
        assert!(stage.client.is_up(), "{script}");
        assert_eq!(stage.gauge(), 1.0, "{script}");
    }
    assert_eq!(stage.call("return 1").await, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_write_is_an_outage() -> Result {
    let mut stage = Stage::new()?;
    stage.redis.start().await?;
    stage.is_up().await?;
    stage.redis.ask("REPLICAOF 127.0.0.1 1").await?;
    let write = "return redis.call('SET', KEYS[1], 1) and 1";
    assert_eq!(stage.call(write).await, None);
    assert!(!stage.client.is_up());
    stage.redis.ask("REPLICAOF NO ONE").await?;
    stage.is_up().await
}

#[test]
fn only_a_cluster_has_groups_that_are_lost_one_by_one() {
    let one = client("redis://127.0.0.1:1", &Registry::new()).0;
    assert_eq!((one.is_cluster(), one.groups()), (false, 1));
    assert_eq!(one.group_of("any"), 0);

    let registry = Registry::new();
    let cluster = client("redis+cluster://127.0.0.1:1", &registry).0;
    assert_eq!((cluster.is_cluster(), cluster.groups()), (true, GROUPS));
    let mut hooks = vec![0; GROUPS];
    for number in 0..64 * GROUPS {
        let hook = format!("hook-{number}");
        let group = cluster.group_of(&hook);
        assert_eq!(group, cluster.group_of(&hook), "it stays in its group");
        hooks[group] += 1;
    }
    assert!(hooks.iter().all(|count| (16..256).contains(count)));

    let inner = &cluster.0;
    for group in &inner.groups {
        group.up.store(true, Ordering::Relaxed);
    }
    assert!(cluster.is_up());
    let lost = cluster.group_of(HOOK);
    inner.lost(&inner.groups[lost], HOOK, "a test");
    assert!(!cluster.is_up(), "a part of it is away");
    for (number, group) in inner.groups.iter().enumerate() {
        assert_eq!(group.up.load(Ordering::Relaxed), number != lost);
    }
    assert_eq!(*inner.groups[lost].hook.lock(), HOOK, "it is probed by");
}
