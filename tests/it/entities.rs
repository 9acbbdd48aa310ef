//! An entity and its event are written atomically.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use e2e::{Cluster, Request, Result, SOON, eventually};
use futures::StreamExt;
use serde_json::{Value, json};

/// The id of an event's entity.
fn entity(event: &Request) -> String {
    text(&event.json["entity"]["id"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_username_is_refused_without_an_event() -> Result {
    let cluster = Cluster::double().await?;
    let [first, second] = [0, 1].map(|n| cluster.gateways[n].admin());
    first.webhook(&cluster.receiver.url("/hook")).await?;

    let ada = first.create_consumer("Ada").await?;
    for admin in [first, second] {
        let taken = json!({ "username": "Ada" });
        let error = admin.post("/consumers", &taken).await?.expect(409)?;
        assert_eq!(error["name"], "unique constraint violation");
        assert_eq!(error["code"], 5);
        assert_eq!(error["fields"], json!({ "username": "Ada" }));
    }
    let bob = second.create_consumer("Bob").await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    cluster.rest().await?;

    let events = cluster.receiver.events("/hook");
    let heard: BTreeSet<String> = events.iter().map(entity).collect();
    let made = [text(&ada["id"]), text(&bob["id"])];
    assert_eq!(events.len(), 2);
    assert_eq!(heard, BTreeSet::from(made));

    // An update cannot take the name either.
    let path = format!("/consumers/{}", text(&bob["id"]));
    let taken = first.patch(&path, &json!({ "username": "Ada" })).await?;
    taken.expect(409)?;
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 2);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_username_can_be_taken_again() -> Result {
    let cluster = Cluster::double().await?;
    let [first, second] = [0, 1].map(|n| cluster.gateways[n].admin());
    first.webhook(&cluster.receiver.url("/hook")).await?;
    for round in 1..=3 {
        first.create_consumer("Ada").await?;
        second.delete("/consumers/Ada").await?.expect(204)?;
        second.get("/consumers/Ada").await?.expect(404)?;
        cluster.receiver.wait_for("/hook", 2 * round).await?;
    }
    second.create_consumer("Ada").await?;
    // A name that an update gave up is free too.
    let other = json!({ "username": "Countess" });
    first.patch("/consumers/Ada", &other).await?.expect(200)?;
    second.create_consumer("Ada").await?;
    cluster.receiver.wait_for("/hook", 9).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creates_of_one_name_one_succeeds() -> Result {
    let cluster = Cluster::double().await?;
    cluster.webhook("/hook").await?;
    let ada = json!({ "username": "Ada" });
    let creates = (0..20).map(|n| cluster.gateways[n % 2].admin().post("/consumers", &ada));
    let answers = futures::future::try_join_all(creates).await?;
    let mut codes: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    codes.sort_unstable();
    assert_eq!(codes[0], 201);
    assert_eq!(codes[1..], [409; 19]);
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 1);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_leaves_no_entity_without_its_event() -> Result {
    const CREATES: usize = 200;
    const BEFORE_THE_KILL: usize = 80;

    let mut cluster = Cluster::builder().dispatchers(2).start().await?;
    let admin = cluster.admin().clone();
    admin.webhook(&cluster.receiver.url("/hook")).await?;

    let done = AtomicUsize::new(0);
    let creates = async {
        let results: Vec<Result<Value>> = futures::stream::iter(0..CREATES)
            .map(|n| {
                let (admin, done) = (&admin, &done);
                async move {
                    let created = admin.create_consumer(&format!("consumer-{n}")).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    created
                }
            })
            .buffer_unordered(8)
            .collect()
            .await;
        results
    };
    let gateway = &mut cluster.gateways[0];
    let kill = async {
        eventually(SOON, "some creates are answered", async || {
            let done = done.load(Ordering::Relaxed);
            ensure!(done >= BEFORE_THE_KILL, "{done}");
            Ok(())
        })
        .await?;
        gateway.process_mut().kill();
        Result::Ok(())
    };
    let (results, killed) = tokio::join!(creates, kill);
    killed?;

    let answered: BTreeSet<String> = results.iter().flatten().map(|c| text(&c["id"])).collect();
    assert!(answered.len() >= BEFORE_THE_KILL);
    assert!(answered.len() < CREATES, "it was killed midway");

    cluster.gateways[0].start()?;
    cluster.gateways[0].ready().await?;
    let consumers = cluster.admin().list("/consumers").await?;
    let existing: BTreeSet<String> = consumers.iter().map(|c| text(&c["id"])).collect();
    cluster.receiver.wait_for("/hook", existing.len()).await?;
    cluster.rest().await?;

    let events = cluster.receiver.events("/hook");
    let heard: BTreeSet<String> = events.iter().map(entity).collect();
    assert_eq!(
        heard, existing,
        "an entity exists if and only if it has an event"
    );
    assert_eq!(events.len(), heard.len(), "each has one event");
    assert!(answered.is_subset(&existing), "answered entities exist");

    // Names are taken if and only if their consumers exist.
    for n in 0..CREATES {
        let username = format!("consumer-{n}");
        let exists = consumers.iter().any(|c| c["username"] == *username);
        let body = json!({ "username": username });
        let again = cluster.admin().post("/consumers", &body).await?;
        assert_eq!(again.status, if exists { 409 } else { 201 }, "{username}");
    }
    cluster.receiver.wait_for("/hook", CREATES).await?;
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), CREATES);
    cluster.finish().await
}
