//! Who changed what, and who was refused.

use anyhow::{Context as _, ensure};
use e2e::admin::{Admin, id};
use e2e::rbac::{PASSWORD, closed, first};
use e2e::{Cluster, Result, SOON, eventually};
use serde_json::{Value, json};

/// The newest records first, once there are so many.
async fn records(admin: &Admin, path: &str, count: usize) -> Result<Vec<Value>> {
    eventually(SOON, &format!("{count} records at {path}"), async || {
        let list = admin.get(path).await?.expect(200)?;
        let data = list["data"].as_array().context("a list")?.clone();
        ensure!(data.len() == count, "{}: {data:#?}", data.len());
        Ok(data)
    })
    .await
}

/// A record of a change of a consumer, made by the super-admin.
fn check(record: &Value, consumer: &Value) {
    assert_eq!(record["rbac_user_name"], "kong_admin");
    assert_eq!(record["client_ip"], "127.0.0.1");
    assert_eq!(record["workspace"], "team");
    let entity = json!({ "kind": "consumers", "id": consumer });
    assert_eq!(record["entity"], entity);
    assert!(record["request_timestamp"].as_i64() > Some(1_700_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_and_each_refusal_has_its_record() -> Result {
    let cluster = closed().gateways(2).start().await?;
    let boss = first(&cluster);
    let team = json!({ "name": "team" });
    boss.post("/workspaces", &team).await?.expect(201)?;
    let ada = json!({ "username": "ada" });
    let ada = boss.post("/team/consumers", &ada).await?.expect(201)?;
    let path = format!("/team/consumers/{}", id(&ada)?);
    let changed = json!({ "custom_id": "7" });
    boss.patch(&path, &changed).await?.expect(200)?;
    boss.delete(&path).await?.expect(204)?;
    // What changes nothing has none.
    boss.get("/team/consumers").await?.expect(200)?;
    boss.post("/team/consumers", &json!({}))
        .await?
        .expect(400)?;
    boss.delete(&path).await?.expect(204)?;
    let there = cluster.gateways[1].admin();
    let of_team = records(&there.with_token(PASSWORD), "/team/audit/requests", 3).await?;
    let said =
        |record: &Value| ["operation", "method", "status"].map(|field| record[field].clone());
    let want = [
        [json!("delete"), json!("DELETE"), json!(204)],
        [json!("update"), json!("PATCH"), json!(200)],
        [json!("create"), json!("POST"), json!(201)],
    ];
    assert_eq!(of_team.iter().map(said).collect::<Vec<_>>(), want);
    for record in &of_team {
        check(record, &ada["id"]);
    }
    // What is no entity: dead letters, deliveries, events.
    cluster.nats.publish("hookline.events.nothing", "{").await?;
    eventually(SOON, "a dead event", async || {
        let dead = boss.get("/dead-events").await?.expect(200)?;
        ensure!(dead["counts"]["dead"] == 1);
        Ok(())
    })
    .await?;
    boss.delete("/dead-events?all=true").await?.expect(204)?;
    // Refusals: of nobody, and of a user, whose workspace sees it.
    assert_eq!(cluster.admin().get("/team/consumers").await?.status, 401);
    let member = json!({ "name": "member" });
    let member = boss.post("/team/rbac/users", &member).await?.expect(201)?;
    let member = boss.with_token(member["user_token"].as_str().context("a token")?);
    assert_eq!(member.get("/other/consumers").await?.status, 403);
    let of_team = records(&boss, "/team/audit/requests", 5).await?;
    let refused = of_team.iter().find(|record| record["status"] == 403);
    let refused = refused.context("a refusal")?;
    assert_eq!(refused["rbac_user_name"], "member");
    assert_eq!(refused["path"], "/other/consumers");
    assert_eq!(
        refused["refused"],
        "member, you do not have permissions to read this resource"
    );
    let all = records(&boss, "/audit/requests", 8).await?;
    let nobody = all.iter().find(|record| record["status"] == 401);
    let nobody = nobody.context("a refusal")?;
    assert_eq!(nobody["rbac_user_name"], Value::Null);
    let deleted = all.iter().find(|record| record["path"] == "/dead-events");
    assert_eq!(deleted.context("a deletion")?["method"], "DELETE");
    assert_eq!(in_pages(&boss, 3).await?, all);
    // Records leave the bucket once they are copied.
    eventually(SOON, "none is left in the bucket", async || {
        let left = cluster.nats.entries("$KV.hookline.audit.>").await?;
        ensure!(left == 0, "{left} left");
        Ok(())
    })
    .await?;
    assert_eq!(records(&boss, "/audit/requests", 8).await?, all);
    cluster.finish().await
}

/// A change that was acknowledged has its record, whatever happens to its gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_leaves_no_change_without_its_record() -> Result {
    let mut cluster = Cluster::builder().gateways(2).start().await?;
    let victim = cluster.gateways[0].admin().clone();
    let load = tokio::spawn(async move {
        let mut created = Vec::new();
        for number in 0..1_000 {
            let consumer = json!({ "username": format!("c{number}") });
            match victim.post("/consumers", &consumer).await {
                Ok(answer) if answer.status == 201 => created.push(answer.body["id"].clone()),
                _ => break,
            }
        }
        created
    });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    cluster.gateways[0].process_mut().kill();
    let created = load.await?;
    ensure!(!created.is_empty(), "nothing was created");
    let other = cluster.gateways[1].admin();
    eventually(SOON, "each has its record", async || {
        let recorded = in_pages(other, 1_000).await?;
        let has = |id: &Value| recorded.iter().any(|record| record["entity"]["id"] == *id);
        let missing = created.iter().filter(|id| !has(id)).count();
        ensure!(missing == 0, "{missing} of {} are missing", created.len());
        Ok(())
    })
    .await?;
    cluster.gateways[0].start()?;
    cluster.ready().await?;
    cluster.finish().await
}

/// All records, in pages of a size.
async fn in_pages(admin: &Admin, size: usize) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    let mut next = Some(format!("/audit/requests?size={size}"));
    while let Some(path) = next {
        let page = admin.get(&path).await?.expect(200)?;
        records.extend(page["data"].as_array().context("a list")?.clone());
        next = page["next"].as_str().map(str::to_owned);
    }
    Ok(records)
}
