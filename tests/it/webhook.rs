//! `webhook`: the event as a JSON POST.

use anyhow::ensure;
use e2e::{Cluster, Result, SOON, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_posts_a_change_made_through_the_admin_api() -> Result {
    let cluster = Cluster::double().await?;
    let config = json!({
        "url": cluster.receiver.url("/hook"),
        "headers": { "x-custom-header": "My Value", "x-second": "2" },
    });
    cluster.admin().hook_consumers("webhook", config).await?;

    let consumer = cluster.admin().create_consumer("Ada Lovelace").await?;

    let event = cluster.receiver.wait_for_one("/hook").await?;
    assert_eq!(event.method, "POST");
    assert_eq!(event.header("content-type"), "application/json");
    assert_eq!(event.header("x-custom-header"), "My Value");
    assert_eq!(event.header("x-second"), "2");
    assert!(event.header("user-agent").starts_with("hookline/"));
    assert_eq!(event.json["entity"]["id"], consumer["id"]);
    assert_eq!(event.json["entity"]["username"], "Ada Lovelace");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_posts_a_plain_nats_publish() -> Result {
    let cluster = Cluster::double().await?;
    let config = json!({
        "url": cluster.receiver.url("/hook?key=value"),
        "headers": { "x-custom-header": "My Value" },
    });
    cluster.admin().hook_consumers("webhook", config).await?;

    let data = json!({ "entity": { "username": "Grace", "n": 1.5 }, "operation": "create" });
    cluster.publish("crud", "consumers", &data).await?;

    let event = cluster.receiver.wait_for_one("/hook").await?;
    assert_eq!(event.method, "POST");
    assert_eq!(event.query.as_deref(), Some("key=value"));
    assert_eq!(event.header("content-type"), "application/json");
    assert_eq!(event.header("x-custom-header"), "My Value");
    let expected = json!({
        "entity": { "username": "Grace", "n": 1.5 }, "operation": "create",
        "source": "crud", "event": "consumers",
    });
    assert_eq!(event.json, expected);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_hears_the_events_it_asked_for_and_no_others() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let asked = [
        ("/created", json!("consumers:create")),
        ("/deleted", json!("consumers:delete")),
        ("/routes", json!("routes")),
        ("/all", json!(null)),
    ];
    for (path, event) in &asked {
        let url = cluster.receiver.url(path);
        let hook = json!({
            "source": "crud", "event": event, "handler": "webhook", "config": { "url": url },
        });
        admin.create_hook(&hook).await?;
    }
    // Events of the source `dao:crud` are named after the operation.
    let url = cluster.receiver.url("/dao");
    let hook = e2e::admin::hook("dao:crud", "create", "webhook", json!({ "url": url }));
    admin.create_hook(&hook).await?;

    let consumer = admin.create_consumer("Ada").await?;
    let path = format!("/consumers/{}", e2e::admin::id(&consumer)?);
    admin.delete(&path).await?.expect(204)?;
    cluster.rest().await?;
    // A later event, which `/routes` does hear.
    cluster.publish("crud", "routes", &json!({})).await?;
    cluster.receiver.wait_for("/routes", 1).await?;
    cluster.rest().await?;

    let heard = |path: &str| -> Vec<String> {
        let events = cluster.receiver.events(path);
        let name = |event: &e2e::Request| {
            format!("{} {}", event.json["event"], event.json["operation"]).replace('"', "")
        };
        let mut names: Vec<String> = events.iter().map(name).collect();
        names.sort();
        names
    };
    assert_eq!(heard("/created"), ["consumers:create create"]);
    assert_eq!(heard("/deleted"), ["consumers:delete delete"]);
    assert_eq!(heard("/routes"), ["routes null"]);
    // Hooks are entities too: the one on `dao:crud` was created after this one. No hook hears its own
    // creation.
    let all = [
        "consumers create",
        "consumers delete",
        "event_hooks create",
        "routes null",
    ];
    assert_eq!(heard("/all"), all);
    assert_eq!(heard("/dao"), ["create create"]);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_that_share_a_receiver_reuse_its_connections() -> Result {
    let cluster = Cluster::builder().start().await?;
    let paths: Vec<String> = (0..8).map(|n| format!("/hook-{n}")).collect();
    for path in &paths {
        cluster.webhook(path).await?;
        cluster.receiver.wait_for_ping(path).await?;
    }
    let mut opened = Vec::new();
    for _ in 0..2 {
        // As many at once as the hooks' permits allow.
        let holds: Vec<_> = paths.iter().map(|p| cluster.receiver.hold(p, 32)).collect();
        for n in 0..32 {
            cluster
                .publish("crud", "consumers", &json!({ "n": n }))
                .await?;
        }
        eventually(SOON, "all are under way", async || {
            let count = cluster.receiver.in_flight();
            ensure!(count == 8 * 32, "{count} are");
            Ok(())
        })
        .await?;
        opened.push(cluster.receiver.connections());
        holds.into_iter().for_each(|hold| hold.release(200));
        cluster.rest().await?;
    }
    let more = opened[1] - opened[0];
    assert!(more < 16, "{more} more than {}", opened[0]);
    cluster.finish().await
}
