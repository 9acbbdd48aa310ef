//! Services on hosts whose clocks are wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use e2e::{Cluster, Leftovers, Result, SOON, eventually, wire};
use serde_json::{Value, json};

const WRONG: [i64; 2] = [600, -600];

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

fn assert_now(seconds: f64, what: &str) {
    let off = now() - seconds;
    assert!((-2.0..60.0).contains(&off), "{what} is {off} s ago");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_with_a_wrong_clock_retries_and_logs_in_time() -> Result {
    for ahead in WRONG {
        let mut cluster = Cluster::builder()
            .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "3s,3s")
            .dispatcher_env("HOOKLINE_MAX_AGE", "60s")
            .prepare()
            .await?;
        cluster.dispatchers[0]
            .process_mut()
            .set_clock_ahead(ahead)?;
        cluster.start().await?;
        let hook = cluster.webhook("/hook").await?;
        cluster.receiver.wait_for_ping("/hook").await?;
        cluster.rest().await?;
        cluster.receiver.answer("/hook", &[503, 503, 200]);
        cluster.admin().create_consumer("Ada").await?;
        cluster.receiver.wait_for("/hook", 3).await?;
        cluster.rest().await?;
        let requests = cluster.receiver.events("/hook");
        for pair in requests.windows(2) {
            let wait = pair[1].at - pair[0].at;
            let expected = Duration::from_secs(2)..Duration::from_secs(10);
            assert!(expected.contains(&wait), "{ahead}: {wait:?}");
        }
        let sent = requests[0].header("webhook-timestamp").parse::<f64>()?;
        assert_now(sent, "webhook-timestamp");
        let path = format!("/event-hooks/{}/attempts", e2e::admin::id(&hook)?);
        let logged = eventually(SOON, "three attempts are logged", async || {
            let logged = cluster.admin().get(&path).await?.expect(200)?;
            let events = logged["data"].as_array().context("a list")?.len();
            ensure!(events >= 3, "{logged}");
            Ok(logged)
        })
        .await?;
        let at = logged["data"][0]["attempted_at"].as_f64();
        assert_now(at.with_context(|| logged.to_string())?, "the attempt");
        let log = cluster.dispatchers[0].process().log();
        let direction = if ahead > 0 {
            "600 s ahead of"
        } else {
            "600 s behind"
        };
        assert!(
            log.contains(&format!("this host's clock is {direction}")),
            "{log}"
        );
        cluster.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_a_wrong_clock_dates_and_replays_in_time() -> Result {
    for ahead in WRONG {
        let mut cluster = Cluster::builder().prepare().await?;
        cluster.gateways[0].process_mut().set_clock_ahead(ahead)?;
        cluster.start().await?;
        let mut hook = e2e::admin::hook("crud", "consumers", "webhook", Value::Null);
        hook["config"] = json!({ "url": cluster.receiver.url("/hook") });
        hook["delivery"] = json!({ "retry": [] });
        let hook = cluster.admin().create_hook(&hook).await?;
        assert_now(hook["created_at"].as_f64().context("a time")?, "the hook");
        cluster.receiver.wait_for_ping("/hook").await?;
        cluster.rest().await?;
        cluster.receiver.answer("/hook", &[503, 200]);
        cluster.admin().create_consumer("Ada").await?;
        let dead = Leftovers { dead: 1, parked: 0 };
        cluster.rest_leaving(dead).await?;
        let path = format!("/event-hooks/{}/dead/replay", e2e::admin::id(&hook)?);
        let all = json!({ "all": true });
        cluster.admin().post(&path, &all).await?.expect(200)?;
        cluster.receiver.wait_for("/hook", 2).await?;
        cluster.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_parked_for_an_absurd_time_is_made_soon() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "5000years")
        .dispatcher_env("HOOKLINE_MAX_AGE", "9000years")
        .start()
        .await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.receiver.answer("/hook", &[503, 200]);
    cluster.admin().create_consumer("Ada").await?;
    let parked = Leftovers { dead: 0, parked: 1 };
    // In a year: NATS would fire a later time at once.
    cluster.rest_leaving(parked).await?;
    let stream = cluster.nats.stream(wire::DELIVERIES).await?;
    let waiting = stream.get_last_raw_message_by_subject("hookline.deliveries.wait.>");
    let waiting = waiting.await?;
    let due = waiting.headers.get("Nats-Schedule").context("a schedule")?;
    let year = 1970.0 + now() / (365.25 * 86_400.0);
    let years = [year.floor() as u64 + 1, year.floor() as u64 + 2];
    assert!(
        years
            .iter()
            .any(|year| due.as_str().starts_with(&format!("@at {year}-"))),
        "{due:?}"
    );
    // As a dispatcher with a wrong clock would have done.
    let mut headers = HeaderMap::new();
    for (name, values) in waiting.headers.iter() {
        let name: &str = name.as_ref();
        if let Some(value) = values.first()
            && !name.starts_with("Nats-Expected")
        {
            headers.insert(name, value.as_str());
        }
    }
    headers.insert("Nats-Schedule", "@at 2200-01-01T00:00:00Z");
    let jetstream = cluster.nats.jetstream();
    let subject = waiting.subject.to_string();
    let sent = jetstream.publish_with_headers(subject, headers, waiting.payload.clone());
    sent.await?.await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_with_a_wrong_clock_is_reported_and_costs_nothing() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    cluster.redis.process_mut().set_clock_ahead(600)?;
    cluster.start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.receiver.answer("/hook", &[503, 200]);
    cluster.admin().create_consumer("Ada").await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    eventually(SOON, "it is reported", async || {
        let reported = cluster.dispatchers[0].log_lines().into_iter().any(|line| {
            let ahead = line.field("ahead_s").as_f64().unwrap_or_default();
            (590.0..610.0).contains(&ahead)
        });
        ensure!(reported, "{}", cluster.dispatchers[0].process().log());
        Ok(())
    })
    .await?;
    cluster.finish().await
}
