//! Events of an entity's life, in the shapes of Kong's reference.

use e2e::{Cluster, Result};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_consumer_gives_the_documents_example() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;

    let fields = [("username", "Ada Lovelace")];
    let consumer = cluster.admin().post_form("/consumers", &fields).await?;
    let consumer = consumer.expect(201)?;

    let event = cluster.receiver.wait_for_one("/hook").await?;
    // The reference's body with this consumer's id and time, and nothing else: no nulls, no `old_entity`.
    let expected = json!({
        "source": "crud",
        "entity": {
            "created_at": consumer["created_at"],
            "type": 0,
            "username": "Ada Lovelace",
            "id": consumer["id"],
        },
        "event": "consumers",
        "operation": "create",
        "schema": "consumers",
    });
    assert_eq!(event.json, expected);
    assert!(consumer["created_at"].is_u64(), "{consumer}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_carries_the_entity_before_and_after() -> Result {
    let cluster = Cluster::double().await?;
    let consumer = cluster.admin().create_consumer("Ada").await?;
    let id = e2e::admin::id(&consumer)?;
    cluster.webhook("/hook").await?;

    let path = format!("/consumers/{id}");
    let change = json!({ "custom_id": "countess" });
    let other = cluster.gateways[1].admin();
    other.patch(&path, &change).await?.expect(200)?;
    let update = cluster.receiver.wait_for_one("/hook").await?.json;
    assert_eq!(update["operation"], "update");
    assert_eq!(update["schema"], "consumers");
    assert_eq!(update["entity"]["custom_id"], "countess");
    assert_eq!(update["entity"]["username"], "Ada");
    assert_eq!(update["old_entity"]["id"], id);
    assert_eq!(update["old_entity"].get("custom_id"), None);

    other.delete("/consumers/Ada").await?.expect(204)?;
    let events = cluster.receiver.wait_for("/hook", 2).await?;
    let delete = &events[1].json;
    assert_eq!(delete["operation"], "delete");
    assert_eq!(delete["entity"]["id"], id);
    assert_eq!(delete.get("old_entity"), None);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_body_changes_nothing_and_raises_no_event() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    admin.webhook(&cluster.receiver.url("/hook")).await?;

    let unknown = json!({ "username": "Ada", "no_such_field": 1 });
    let error = admin.post("/consumers", &unknown).await?.expect(400)?;
    assert_eq!(
        error["message"],
        "schema violation (no_such_field: unknown field)"
    );
    let deep = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let deep = admin.post_raw("/consumers", "application/json", deep.into_bytes());
    deep.await?.expect(400)?;
    let broken = admin.post_raw("/consumers", "application/json", b"{\"a".to_vec());
    let broken = broken.await?.expect(400)?;
    assert_eq!(broken["message"], "Cannot parse JSON body");
    let other = admin.post_raw("/consumers", "text/yaml", b"a: b".to_vec());
    other.await?.expect(415)?;

    admin.create_consumer("Ada").await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.rest().await?;
    let events = cluster.receiver.events("/hook");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].json["entity"]["username"], "Ada");
    assert_eq!(admin.list("/consumers").await?.len(), 1);
    cluster.finish().await
}
