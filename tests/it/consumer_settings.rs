//! Dispatchers with different settings share the consumers.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use async_nats::jetstream::consumer::{FromConsumer as _, Info, pull};
use e2e::{Cluster, Result, SOON, eventually, wire};
use serde_json::json;

/// How many more messages the consumer delivered than the stream had for it.
fn redelivered(info: &Info) -> i128 {
    i128::from(info.delivered.consumer_sequence) - i128::from(info.delivered.stream_sequence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_keeps_to_the_ack_wait_of_an_existing_consumer() -> Result {
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_LEASE", "1s")
        .dispatcher_env("HOOKLINE_ACK_WAIT", "10m")
        .start()
        .await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.dispatchers[0].stop().await?;
    // Somebody tunes it.
    let stream = cluster.nats.stream(wire::EVENTS).await?;
    let mut tuned = stream.consumer_info(wire::DISPATCHERS).await?.config;
    tuned.ack_wait = Duration::from_secs(3);
    let tuned = pull::Config::try_from_consumer_config(tuned).map_err(|why| anyhow!("{why}"))?;
    stream.update_consumer(tuned).await?;
    let second = cluster.add_dispatcher()?;
    second.start()?;
    second.ready().await?;

    let consumer = async || -> Result<_> {
        let stream = cluster.nats.stream(wire::EVENTS).await?;
        Ok(stream.consumer_info(wire::DISPATCHERS).await?)
    };
    let info = consumer().await?;
    assert_eq!(
        info.config.ack_wait,
        Duration::from_secs(3),
        "it is not overwritten"
    );
    eventually(SOON, "the difference is logged", async || {
        let reported = cluster.dispatchers[1].log_lines().iter().any(|line| {
            let difference = line.field("difference").as_str().unwrap_or_default();
            line.field("consumer") == wire::DISPATCHERS && difference.starts_with("ack_wait is")
        });
        ensure!(reported);
        Ok(())
    })
    .await?;

    // An attempt that outlasts the ack wait, though not this dispatcher's own.
    cluster.receiver.delay("/hook", Duration::from_secs(5));
    cluster
        .publish("crud", "consumers", &json!({"n": 1}))
        .await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.rest().await?;
    assert_eq!(
        redelivered(&consumer().await?),
        redelivered(&info),
        "its message was kept alive"
    );

    // The message of a killed dispatcher is redelivered.
    cluster.receiver.delay("/hook", Duration::ZERO);
    let hold = cluster.receiver.hold("/hook", 1);
    cluster
        .publish("crud", "consumers", &json!({"n": 2}))
        .await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    cluster.dispatchers[1].process_mut().kill();
    hold.release(200);
    cluster.dispatchers[0].start()?;
    cluster.receiver.wait_for("/hook", 3).await?;
    cluster.rest().await?;
    assert_eq!(redelivered(&consumer().await?), redelivered(&info) + 1);
    cluster.finish().await
}
