//! Stored messages that the NATS client cannot read: it closes its connection at them, or dies.

use std::time::Duration;

use anyhow::ensure;
use e2e::hostile::UNREADABLE;
use e2e::{Cluster, Leftovers, RawNats, Result, SOON, eventually, wire};
use serde_json::json;

const SUBJECT: &[u8] = b"hookline.events.default.crud.consumers";
const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_events_are_dead_letters_and_hold_up_nobody() -> Result {
    let cluster = Cluster::builder().dispatchers(3).start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let mut wire = RawNats::connect(cluster.nats.port(), "operator").await?;
    let (kinds, rounds) = (UNREADABLE, 5);
    for round in 0..rounds {
        for (number, (subject, headers)) in kinds.iter().enumerate() {
            // An id is new in each round.
            let digit = b'0' + round as u8;
            let headers: Vec<_> = headers
                .iter()
                .map(|byte| if *byte == b'#' { digit } else { *byte })
                .collect();
            let body = format!("{{\"bad\":{number}}}");
            wire.publish(subject, &headers, body.as_bytes()).await?;
            let data = json!({ "round": round, "number": number });
            cluster.publish("crud", "consumers", &data).await?;
        }
    }
    let total = rounds * kinds.len();
    cluster.receiver.wait_for_total(total, LONG).await?;
    let dead = eventually(LONG, "all are dead letters", async || {
        let count = cluster.nats.count(wire::DEAD).await?;
        ensure!(count == total as u64, "{count} of {total}");
        cluster.nats.dead_letters(total).await
    })
    .await?;
    let counted = cluster.dispatchers_metric("hookline_unreadable_messages_total", &[]);
    let counted = counted.await?;
    assert!(counted >= 1.0, "{counted} are counted");
    for letter in &dead {
        assert!(
            letter.subject.starts_with("hookline.dead.event."),
            "{}",
            letter.subject
        );
        assert!(
            e2e::nats::reason(letter).len() > 10,
            "{}",
            e2e::nats::reason(letter)
        );
    }
    let listed = cluster.admin().list("/dead-events").await?;
    assert_eq!(listed.len(), total);
    // Where only the headers were wrong, the event can be published again.
    let sound = listed.iter().find(|letter| letter["event"] == "consumers");
    let id = sound.and_then(|letter| letter["id"].as_str());
    let path = format!("/dead-events/{}/publish", id.unwrap_or_default());
    let published = cluster.admin().post(&path, &json!({})).await?;
    published.expect(200)?;
    cluster.receiver.wait_for_total(total + 1, LONG).await?;
    let leftovers = Leftovers {
        dead: total as u64 - 1,
        parked: 0,
    };
    cluster.finish_leaving(leftovers).await
}

/// 3,000 malformed messages of 24 kinds among 3,000 good ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_malformed_messages_holds_up_no_good_one() -> Result {
    const EACH: usize = 125;
    let cluster = Cluster::builder().dispatchers(3).start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let mut kinds: Vec<_> = UNREADABLE
        .into_iter()
        .map(|(subject, headers)| (subject, headers, &b"{}"[..]))
        .collect();
    let plain: &[u8] = b"NATS/1.0\r\n\r\n";
    kinds.extend([
        (SUBJECT, plain, &b"hello"[..]),
        (SUBJECT, plain, b""),
        (SUBJECT, plain, b"[1]"),
        (b"hookline.events.default", plain, b"{}"),
        (
            b"hookline.events.default.kong:event_hooks.ping",
            plain,
            b"{}",
        ),
        (b"hookline.events.default.crud.a%2db", plain, b"{}"),
    ]);
    let total = EACH * kinds.len();
    assert_eq!(total, 3_000);
    let mut wire = RawNats::connect(cluster.nats.port(), "operator").await?;
    for round in 0..EACH {
        for (number, (subject, headers, body)) in kinds.iter().enumerate() {
            let text = String::from_utf8_lossy(headers);
            let id = format!("{round}");
            let headers: Vec<u8> = match text.contains('#') {
                true => headers
                    .iter()
                    .flat_map(|byte| match byte {
                        b'#' => id.clone().into_bytes(),
                        byte => vec![*byte],
                    })
                    .collect(),
                false => headers.to_vec(),
            };
            wire.publish(subject, &headers, body).await?;
            let good = format!("{{\"round\":{round},\"number\":{number}}}");
            wire.publish(SUBJECT, plain, good.as_bytes()).await?;
        }
    }
    cluster.receiver.wait_for_total(total, LONG).await?;
    eventually(LONG, "all others are dead letters", async || {
        let count = cluster.nats.count(wire::DEAD).await?;
        ensure!(count == total as u64, "{count} of {total}");
        Ok(())
    })
    .await?;
    let leftovers = Leftovers {
        dead: total as u64,
        parked: 0,
    };
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_kills_the_client_ends_one_process_and_is_gone() -> Result {
    let mut cluster = Cluster::builder().dispatchers(3).start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let mut wire = RawNats::connect(cluster.nats.port(), "operator").await?;
    wire.publish(SUBJECT, b"NATS/1.0\r\nA: b\rc\r\n\r\n", b"{}")
        .await?;
    let dead = eventually(SOON, "it is a dead letter", async || {
        cluster.nats.dead_letters(1).await
    })
    .await?;
    assert!(e2e::nats::reason(&dead[0]).contains("carriage return"));
    cluster
        .publish("crud", "consumers", &json!({ "n": 1 }))
        .await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    let dispatchers = &mut cluster.dispatchers;
    eventually(SOON, "one process ends", async || {
        let ended = dispatchers
            .iter_mut()
            .filter_map(|one| one.check_running().err())
            .count();
        ensure!(ended == 1, "{ended} have ended");
        Ok(())
    })
    .await?;
    // Its panic is logged, which no other scenario may end with.
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_entities_and_dead_letters_are_removed() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let mut wire = RawNats::connect(cluster.nats.port(), "operator").await?;
    let headers = b"NATS/1.0\r\nX-User: Andr\xe9\r\n\r\n";
    for subject in [
        "$KV.hookline.entity.default.consumers.c57340ab-9fed-40fd-bb7e-1cef8d37c2df",
        "$KV.hookline.entity.default.event_hooks.c57340ab-9fed-40fd-bb7e-1cef8d37c2df",
        "hookline.dead.event.00000000000000000000000000000000",
        "hookline.deliveries.wait.c57340ab-9fed-40fd-bb7e-1cef8d37c2df.1",
        "hookline.deliveries.due.c57340ab-9fed-40fd-bb7e-1cef8d37c2df.1",
        "hookline.attempts.c57340ab-9fed-40fd-bb7e-1cef8d37c2df.1",
    ] {
        wire.publish(subject.as_bytes(), headers, b"{}").await?;
    }
    eventually(LONG, "dead letters can be listed", async || {
        let answer = cluster.admin().get("/dead-events").await?.expect(200)?;
        let listed = answer["data"].as_array().map_or(0, Vec::len);
        ensure!(listed >= 4, "{listed} of them");
        Ok(())
    })
    .await?;
    for number in 0..3 {
        cluster
            .admin()
            .create_consumer(&format!("consumer-{number}"))
            .await?;
    }
    cluster.receiver.wait_for("/hook", 3).await?;
    cluster.finish_unchecked().await
}
