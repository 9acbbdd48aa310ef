//! What is deleted with what it belongs to, by several nodes, one of which is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{Admin, Cluster, Result, admin, eventually};
use futures::StreamExt as _;
use serde_json::{Value, json};

/// A mark that nobody finishes is taken over after half a minute.
const TAKEN_OVER: Duration = Duration::from_secs(120);
const CHILDREN: usize = 2_000;

/// Creates as many as there are entities, many at a time.
async fn create_all(admin: &Admin, path: &str, entities: Vec<Value>) -> Result {
    let creates = entities.iter().map(async |entity| {
        let made = admin.post(path, entity).await?;
        made.expect(201).map(drop)
    });
    let mut made = futures::stream::iter(creates).buffer_unordered(64);
    while let Some(one) = made.next().await {
        one?;
    }
    Ok(())
}

/// Deletes what has many children by the first node, which is killed midway; the second finishes.
async fn killed_midway(parent: &str, children: &str, kind: &str, all: Vec<Value>) -> Result {
    let mut cluster = Cluster::builder()
        .gateways(2)
        .dispatchers(2)
        .start()
        .await?;
    let hook = json!({"url": cluster.receiver.url("/gone"), "ssl_verify": false});
    let second = cluster.gateways[1].admin().clone();
    let hook = admin::hook("crud", &format!("{kind}:delete"), "webhook", hook);
    second.create_hook(&hook).await?;
    let name = json!({"name": "u.test", "username": "ada"});
    let field = if parent.contains("upstreams") {
        "name"
    } else {
        "username"
    };
    second
        .put(parent, &json!({field: name[field]}))
        .await?
        .expect(200)?;
    create_all(&second, children, all).await?;
    let delete = tokio::spawn({
        let (first, parent) = (cluster.admin().clone(), parent.to_owned());
        async move { first.delete(&parent).await }
    });
    eventually(TAKEN_OVER, "some are deleted", async || {
        let left = second.list(children).await?.len();
        ensure!(left < CHILDREN * 9 / 10, "{left}");
        Ok(())
    })
    .await?;
    cluster.gateways[0].process_mut().kill();
    let answer = delete.await?;
    ensure!(answer.is_err(), "it was killed after its answer");
    let left = second.list(children).await?.len();
    ensure!(left > 0, "it was killed too late");
    // What is going does not come back by a change.
    second
        .patch(parent, &json!({"tags": ["t"]}))
        .await?
        .expect(404)?;
    eventually(TAKEN_OVER, "the other node finishes", async || {
        second.get(parent).await?.expect(404).map(drop)
    })
    .await?;
    second.get(children).await?.expect(404)?;
    cluster.receiver.wait_for("/gone", CHILDREN).await?;
    cluster.gateways[0].start()?;
    cluster.gateways[0].ready().await?;
    cluster.rest().await?;
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    for event in cluster.receiver.events("/gone") {
        let id = event.json["entity"]["id"].as_str().context("an id")?;
        *heard.entry(id.to_owned()).or_default() += 1;
    }
    assert_eq!(heard.len(), CHILDREN);
    ensure!(
        heard.values().all(|times| *times == 1),
        "an event came twice"
    );
    for gateway in &cluster.gateways {
        gateway.admin().get(parent).await?.expect(404)?;
    }
    // The names are free again.
    let (kind, _) = parent.rsplit_once('/').context("a kind")?;
    second
        .post(kind, &json!({field: name[field]}))
        .await?
        .expect(201)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_finishes_the_delete_of_an_upstream() -> Result {
    let targets = (0..CHILDREN).map(|n| {
        let address = format!("10.{}.{}.1:80", n / 250, n % 250);
        json!({ "target": address })
    });
    let targets = targets.collect();
    let parent = "/upstreams/0fd2319f-13ea-4582-a448-8d11893026a8";
    killed_midway(parent, &format!("{parent}/targets"), "targets", targets).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_finishes_the_delete_of_a_consumer() -> Result {
    let keys = (0..CHILDREN).map(|n| json!({ "key": format!("key-{n}") }));
    let parent = "/consumers/0fd2319f-13ea-4582-a448-8d11893026a8";
    let kind = "keyauth_credentials";
    killed_midway(parent, &format!("{parent}/key-auth"), kind, keys.collect()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_acknowledged_is_there_and_pages_are_stable() -> Result {
    let cluster = Cluster::double().await?;
    let [first, second] = [0, 1].map(|n| cluster.gateways[n].admin());
    for n in 0..100 {
        let service = json!({"name": format!("s{n}"), "host": "h.test"});
        let service = first.post("/services", &service).await?.expect(201)?;
        let id = admin::id(&service)?;
        // At once, by id, by name and as a reference.
        second.get(&format!("/services/s{n}")).await?.expect(200)?;
        let route = json!({"paths": [format!("/{n}")], "service": {"id": id}, "tags": ["t"]});
        second.post("/routes", &route).await?.expect(201)?;
        let plugin = json!({"name": "cors"});
        first
            .post(&format!("/services/s{n}/plugins"), &plugin)
            .await?
            .expect(201)?;
    }
    // Whoever pages while others write sees all that was there, each once.
    let (mut seen, mut path) = (Vec::new(), "/routes?size=7&tags=t".to_owned());
    for round in 0.. {
        let page = second.get(&path).await?.expect(200)?;
        let data = page["data"].as_array().context("a list")?;
        seen.extend(data.iter().map(|one| one["paths"][0].to_string()));
        let more = json!({"paths": [format!("/more/{round}")], "tags": ["t"]});
        first.post("/routes", &more).await?.expect(201)?;
        if round % 3 == 0 {
            first
                .delete(&format!("/plugins/{}", plugin_id(first).await?))
                .await?
                .expect(204)?;
        }
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
        ensure!(round < 100, "the list has no end");
    }
    let before = seen.iter().filter(|path| !path.contains("more")).count();
    let unique: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((before, unique.len()), (100, seen.len()));
    cluster.finish().await
}

async fn plugin_id(admin: &Admin) -> Result<String> {
    let page = admin.get("/plugins?size=1").await?.expect(200)?;
    Ok(admin::id(&page["data"][0])?.to_owned())
}
