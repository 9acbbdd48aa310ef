//! Whether this dispatcher's Redis is the cluster's. It holds the id of its cluster. An empty one may also be that of
//! another host, so this dispatcher leaves a sign there and asks another dispatcher whether it sees the sign.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use async_nats::client::Request;
use hookline_shared::{clock, rpc};
use redis::Script;
use uuid::Uuid;

use super::Error;
use crate::redis::client::RedisClient;
use crate::redis::keys::Key;
use crate::redis::script_call::{ScriptCall, millis};

/// Another Redis is one that was seen so often: one of several servers may have lost a sign.
const SIGNS: usize = 3;
const BETWEEN_SIGNS: Duration = Duration::from_secs(1);
/// How long a sign stays.
const SIGN: Duration = Duration::from_secs(10);
/// For another dispatcher's answer.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) struct RedisCheck {
    client: Client,
    redis: RedisClient,
    /// Whether Redis ever was the cluster's.
    checked: AtomicBool,
    identity: Script,
    hello: Script,
    sees: Script,
    time: Script,
}

impl RedisCheck {
    pub(super) fn new(client: Client, redis: RedisClient) -> Self {
        Self {
            client,
            redis,
            checked: AtomicBool::new(false),
            identity: Script::new(include_str!("identity.lua")),
            hello: Script::new(include_str!("hello.lua")),
            sees: Script::new(include_str!("sees.lua")),
            time: Script::new(include_str!("time.lua")),
        }
    }

    pub(super) fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
    }

    /// `cluster`: the bucket's. Another bucket may have taken the place of the first.
    /// `starts`: this dispatcher answers no requests yet, so whoever sees its sign is another one.
    pub(super) async fn check(&self, cluster: Uuid, starts: bool) -> Result<(), Error> {
        let Some(owner) = self.claim(cluster, false).await else {
            return Ok(());
        };
        let address = || self.redis.address().to_owned();
        if owner != cluster.to_string() {
            // What another dispatcher of this NATS uses as well belongs to it.
            if starts && self.is_seen().await == Some(true) {
                self.claim(cluster, true).await;
                self.checked.store(true, Ordering::Relaxed);
                return Ok(());
            }
            return Err(Error::Foreign {
                address: address(),
                other: owner,
                own: cluster.to_string(),
            });
        }
        for _ in 0..SIGNS {
            if self.is_seen().await != Some(false) {
                self.checked.store(true, Ordering::Relaxed);
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_SIGNS).await;
        }
        Err(Error::AnotherRedis(address()))
    }

    /// Takes Redis from whatever cluster it belongs to. False: it does not answer.
    pub(super) async fn take(&self, cluster: Uuid) -> bool {
        self.claim(cluster, true).await.is_some()
    }

    /// Returns the cluster that Redis belongs to. None: it does not answer.
    async fn claim(&self, cluster: Uuid, take: bool) -> Option<String> {
        let mut call = ScriptCall::new(&self.identity, 1);
        let (cluster, take) = (cluster.to_string(), u8::from(take));
        call.key(Key::Cluster).arg(cluster).arg(take);
        self.redis.call("cluster", &call).await
    }

    /// Whether another dispatcher sees a sign left here. None: there is no other, or it cannot tell.
    async fn is_seen(&self) -> Option<bool> {
        let sign = Uuid::new_v4();
        let mut call = ScriptCall::new(&self.hello, 1);
        call.key(Key::Sign(sign)).arg(millis(SIGN));
        let _: u8 = self.redis.call("cluster", &call).await?;
        let request = Request::new()
            .payload(sign.to_string().into())
            .timeout(Some(ANSWER));
        let answer = self.client.send_request(rpc::subject(rpc::REDIS), request);
        let reply: rpc::Reply = serde_json::from_slice(&answer.await.ok()?.payload).ok()?;
        reply.body["seen"].as_bool()
    }

    /// How far Redis' clock is ahead of NATS', in seconds.
    pub(super) async fn ahead(&self) -> Option<f64> {
        let call = ScriptCall::new(&self.time, 0);
        let time: i64 = self.redis.call("cluster", &call).await?;
        Some((time - clock::unix_millis() as i64) as f64 / 1_000.0)
    }

    pub(super) async fn sees(&self, sign: Uuid) -> Option<bool> {
        let mut call = ScriptCall::new(&self.sees, 1);
        call.key(Key::Sign(sign));
        let seen: u8 = self.redis.call("cluster", &call).await?;
        Some(seen == 1)
    }
}
