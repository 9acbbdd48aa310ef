//! A change of a hook applies to the next event, on every node.

use std::collections::HashSet;

use e2e::{Builder, Cluster, Request, Result, admin, wire};
use futures::future::try_join_all;
use hookline_shared::subject;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_hook_hears_the_next_change_on_another_gateway() -> Result {
    let cluster = Cluster::double().await?;
    let [first, second] = [0, 1].map(|n| cluster.gateways[n].admin());
    for round in 0..200 {
        // The gateways swap roles every round.
        let (here, there) = if round % 2 == 0 {
            (first, second)
        } else {
            (second, first)
        };
        let path = format!("/round/{round}");
        let hook = here.webhook(&cluster.receiver.url(&path)).await?;
        let consumer = there.create_consumer(&format!("consumer-{round}")).await?;
        let event = cluster.receiver.wait_for_one(&path).await?;
        assert_eq!(event.json["entity"]["id"], consumer["id"], "round {round}");
        let hook = format!("/event-hooks/{}", admin::id(&hook)?);
        there.delete(&hook).await?.expect(204)?;
    }
    cluster.webhook("/control").await?;
    cluster.control("/control").await?;
    for round in 0..200 {
        let events = cluster.receiver.events(&format!("/round/{round}"));
        assert_eq!(events.len(), 1, "round {round}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_created_at_once_share_commits_and_hear_the_next_event() -> Result {
    made_at_once(Cluster::builder()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_created_at_once_share_commits_in_a_cluster_of_servers() -> Result {
    made_at_once(Cluster::builder().nats_servers(3)).await
}

async fn made_at_once(builder: Builder) -> Result {
    const HOOKS: usize = 64;
    let cluster = builder.start().await?;
    let labels = [("writer", "bucket")];
    let commits = async || {
        let gateway = &cluster.gateways[0];
        gateway
            .metric("hookline_batch_messages_count", &labels)
            .await
    };
    let before = commits().await?;
    try_join_all((0..HOOKS).map(|_| cluster.webhook("/hook"))).await?;
    let commits = commits().await? - before;
    assert!(commits < HOOKS as f64, "{commits} commits");
    cluster.admin().create_consumer("one").await?;
    let events = cluster.receiver.wait_for("/hook", HOOKS).await?;
    let hooks: HashSet<_> = events.iter().map(Request::webhook_id).collect();
    assert_eq!(hooks.len(), HOOKS);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hooks_revision_is_not_a_hook() -> Result {
    let cluster = Cluster::single().await?;
    let hook = cluster.webhook("/hook").await?;
    let admin = cluster.admin();
    let (known, revision) = (
        format!("/event-hooks/{}", admin::id(&hook)?),
        "/event-hooks/revision",
    );
    let change = json!({ "event": "routes" });
    admin.get(revision).await?.expect(404)?;
    admin.patch(revision, &change).await?.expect(404)?;
    admin.delete(revision).await?.expect(204)?;
    // It still announces changed hooks to dispatchers.
    admin.patch(&known, &change).await?.expect(200)?;
    admin.create_consumer("one").await?;
    cluster.publish("crud", "routes", &json!({})).await?;
    let events = cluster.receiver.wait_for("/hook", 1).await?;
    let heard: Vec<_> = events.iter().map(|event| &event.json["event"]).collect();
    assert_eq!(heard, ["routes"], "and not consumers");
    let all = admin.get("/event-hooks").await?.expect(200)?;
    assert_eq!(all["data"].as_array().map(Vec::len), Some(1));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_in_a_bucket_without_a_revision_are_found() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.dispatchers[0].stop().await?;
    let bucket = cluster.nats.stream(wire::BUCKET).await?;
    bucket.purge().filter(subject::HOOKS_REVISION).await?;
    cluster.dispatchers[0].start()?;
    cluster.dispatchers[0].ready().await?;
    cluster.admin().create_consumer("one").await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_hook_hears_the_next_nats_publish() -> Result {
    let cluster = Cluster::double().await?;
    for round in 0..50 {
        let path = format!("/round/{round}");
        let admin = cluster.gateways[round % 2].admin();
        let hook = admin.webhook(&cluster.receiver.url(&path)).await?;
        let data = json!({ "round": round });
        cluster.publish("crud", "consumers", &data).await?;
        let event = cluster.receiver.wait_for_one(&path).await?;
        assert_eq!(event.json["round"], round);
        let hook = format!("/event-hooks/{}", admin::id(&hook)?);
        admin.delete(&hook).await?.expect(204)?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_hook_takes_effect_on_the_next_event() -> Result {
    let cluster = Cluster::double().await?;
    let [first, second] = [0, 1].map(|n| cluster.gateways[n].admin());
    let hook = first.webhook(&cluster.receiver.url("/before")).await?;
    cluster.receiver.wait_for_ping("/before").await?;
    let hook = format!("/event-hooks/{}", admin::id(&hook)?);
    for round in 0..50 {
        let path = format!("/round/{round}");
        let config = json!({ "config": { "url": cluster.receiver.url(&path) } });
        first.patch(&hook, &config).await?.expect(200)?;
        second.create_consumer(&format!("consumer-{round}")).await?;
        cluster.receiver.wait_for_one(&path).await?;
    }
    cluster.control("/round/49").await?;
    assert_eq!(cluster.receiver.events("/before").len(), 0);
    for round in 0..50 {
        let events = cluster.receiver.events(&format!("/round/{round}"));
        assert_eq!(events.len(), 1, "round {round}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_hook_hears_nothing_more() -> Result {
    let cluster = Cluster::double().await?;
    let [first, second] = [0, 1].map(|n| cluster.gateways[n].admin());
    // This hook hears every event, and so shows when each is settled.
    first.webhook(&cluster.receiver.url("/control")).await?;
    for round in 0..50 {
        let path = format!("/round/{round}");
        let hook = first.webhook(&cluster.receiver.url(&path)).await?;
        let hook = format!("/event-hooks/{}", admin::id(&hook)?);
        // In every other round the hook has been used before.
        let used = round % 2;
        if used == 1 {
            first.create_consumer(&format!("before-{round}")).await?;
            cluster.receiver.wait_for(&path, 1).await?;
        }
        first.delete(&hook).await?.expect(204)?;
        first.get(&hook).await?.expect(404)?;
        second.create_consumer(&format!("after-{round}")).await?;
    }
    cluster.receiver.wait_for("/control", 75).await?;
    cluster.rest().await?;
    for round in 0..50 {
        let events = cluster.receiver.events(&format!("/round/{round}"));
        assert_eq!(events.len(), round % 2, "round {round}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_does_not_hear_events_from_before_its_creation() -> Result {
    let mut cluster = Cluster::double().await?;
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.stop().await?;
    }
    // A backlog that no dispatcher has seen when the hook is created.
    for n in 0..20 {
        cluster.admin().create_consumer(&format!("old-{n}")).await?;
        let data = json!({ "entity": { "username": "old" } });
        cluster.publish("crud", "consumers", &data).await?;
    }
    cluster.webhook("/hook").await?;
    cluster.admin().create_consumer("new").await?;
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.start()?;
    }
    cluster.ready().await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.rest().await?;
    let events = cluster.receiver.events("/hook");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].json["entity"]["username"], "new");
    cluster.finish().await
}
