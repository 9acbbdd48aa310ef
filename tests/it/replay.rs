//! Replay keeps to the bounds of parking.

use e2e::{Cluster, Leftovers, Result, SOON, eventually};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_replayed_while_as_many_deliveries_wait_as_may() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_HOOK_BACKLOG", "2")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "0,1,5s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    let base = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    cluster.receiver.answer("/hook", &[410]);
    // The answer pauses the hook, so that what follows waits.
    cluster.admin().create_consumer("dead").await?;
    cluster
        .rest_leaving(Leftovers { dead: 1, parked: 0 })
        .await?;
    for name in ["one", "two"] {
        cluster.admin().create_consumer(name).await?;
    }
    let list = format!("{base}/deliveries");
    eventually(SOON, "two deliveries wait", async || {
        let listed = cluster.admin().get(&list).await?.expect(200)?;
        anyhow::ensure!(
            listed["counts"] == json!({"waiting": 2, "dead": 1}),
            "{listed}"
        );
        Ok(())
    })
    .await?;

    let replay = format!("{base}/dead/replay");
    let refused = cluster
        .admin()
        .post(&replay, &json!({ "all": true }))
        .await?
        .expect(503)?;
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("2 deliveries of this hook wait already"),
        "{message}"
    );
    let listed = cluster.admin().get(&list).await?.expect(200)?;
    assert_eq!(
        listed["counts"],
        json!({"waiting": 2, "dead": 1}),
        "nothing was replayed"
    );

    // Once they are made there is room.
    let resumed = json!({"delivery": {"paused": false}});
    cluster.admin().patch(&base, &resumed).await?.expect(200)?;
    cluster.receiver.answer("/hook", &[200]);
    cluster.receiver.wait_for("/hook", 3).await?;
    eventually(SOON, "the dead letter is replayed", async || {
        let replayed = cluster
            .admin()
            .post(&replay, &json!({ "all": true }))
            .await?
            .expect(200)?;
        anyhow::ensure!(replayed == json!({"replayed": 1}), "{replayed}");
        Ok(())
    })
    .await?;
    cluster.receiver.wait_for("/hook", 4).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_mistyped_or_says_nothing_hits_nothing() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.receiver.answer("/hook", &[500]);
    for n in 0..4 {
        let name = format!("user-{n}");
        cluster.admin().create_consumer(&name).await?;
    }
    let leftovers = Leftovers { dead: 4, parked: 0 };
    cluster.rest_leaving(leftovers).await?;
    let base = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    let path = format!("{base}/dead/replay");
    let replay = async |body: Value| cluster.admin().post(&path, &body).await;
    let list = format!("{base}/deliveries?state=dead");
    let dead = cluster.admin().get(&list).await?.expect(200)?;
    for body in [
        json!({}),
        json!({"sicne": 5}),
        json!({"ids": ["a"]}),
        json!({"all": true, "since": 5}),
    ] {
        replay(body).await?.expect(400)?;
    }
    for query in ["?id=000", "?sicne=5"] {
        let wrong = format!("{path}{query}");
        cluster
            .admin()
            .post(&wrong, &json!({ "all": true }))
            .await?
            .expect(400)?;
    }
    for wrong in [
        "/dead",
        "/dead?id=zzz",
        "/dead?all=false",
        "/dead?all=true&id=zzz",
    ] {
        let wrong = format!("{base}{wrong}");
        cluster.admin().delete(&wrong).await?.expect(400)?;
    }
    for wrong in ["/deliveries?stat=dead", "/attempts?sice=5"] {
        cluster
            .admin()
            .get(&format!("{base}{wrong}"))
            .await?
            .expect(400)?;
    }
    for (selection, count) in [
        (json!({ "all": true }), 4),
        (json!({ "reason": "500" }), 4),
        (json!({ "reason": "503" }), 0),
        (json!({ "source": "crud", "event": "consumers" }), 4),
        (json!({ "event": "services" }), 0),
        (json!({ "since": 0, "until": 4_000_000_000_u64 }), 4),
        (json!({ "until": 5 }), 0),
        (json!({ "id": dead["data"][0]["id"] }), 1),
    ] {
        let mut body = selection.clone();
        body["dry_run"] = json!(true);
        let answer = replay(body).await?.expect(200)?;
        assert_eq!(answer, json!({ "selected": count }), "{selection}");
    }
    cluster.finish_leaving(leftovers).await
}
