//! Which workspaces a hook hears.

use anyhow::ensure;
use e2e::{Cluster, Result, SOON, admin, eventually, wire};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_hears_every_workspace_or_its_own() -> Result {
    let cluster = Cluster::double().await?;
    let [first, second] = [0, 1].map(|n| cluster.gateways[n].admin());
    let team = json!({ "name": "team-a" });
    first.post("/workspaces", &team).await?.expect(201)?;
    first.webhook(&cluster.receiver.url("/all")).await?;
    let config = json!({ "url": cluster.receiver.url("/team") });
    let hook = admin::hook("crud", "consumers", "webhook", config);
    let hook = first.post("/team-a/event-hooks", &hook).await?;
    hook.expect(201)?;

    second.create_consumer("Ada").await?;
    let grace = json!({ "username": "Ada" });
    let grace = second.post("/team-a/consumers", &grace).await?;
    grace.expect(201)?;
    // Published without a gateway, also in a workspace that none knows.
    for workspace in ["team-a", "elsewhere"] {
        let subject = wire::event_in(workspace, "crud", "consumers");
        let data = json!({ "workspace": workspace });
        cluster.nats.publish(subject, data.to_string()).await?;
    }

    cluster.receiver.wait_for("/all", 4).await?;
    cluster.receiver.wait_for("/team", 2).await?;
    cluster.rest().await?;
    // The last event is the team's.
    let subject = wire::event_in("team-a", "crud", "consumers");
    let data = json!({ "workspace": "team-a" });
    cluster.nats.publish(subject, data.to_string()).await?;
    cluster.receiver.wait_for("/all", 5).await?;
    cluster.receiver.wait_for("/team", 3).await?;
    cluster.rest().await?;
    assert_eq!(cluster.receiver.events("/all").len(), 5);
    assert_eq!(cluster.receiver.events("/team").len(), 3);

    let unknown = json!({ "username": "Bob" });
    let unknown = first.post("/no-such-workspace/consumers", &unknown).await?;
    unknown.expect(404)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_hook_hears_is_in_the_answer_and_unknown_workspaces_are_reported() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    for name in ["team-a", "team-b"] {
        let team = json!({ "name": name });
        admin.post("/workspaces", &team).await?.expect(201)?;
    }
    let hook = |path: &str| {
        let config = json!({ "url": cluster.receiver.url(path) });
        admin::hook("crud", "consumers", "webhook", config)
    };
    let all = admin
        .post("/event-hooks", &hook("/all"))
        .await?
        .expect(201)?;
    assert_eq!(all["hears"], "all workspaces");
    let team = admin
        .post("/team-a/event-hooks", &hook("/team"))
        .await?
        .expect(201)?;
    assert_eq!(team["hears"], "workspace team-a");
    let default = admin
        .post("/default/event-hooks", &hook("/default"))
        .await?
        .expect(201)?;
    assert_eq!(default["hears"], "workspace default");
    let publish = async |workspace: &str, count: usize| {
        for n in 0..count {
            let subject = wire::event_in(workspace, "crud", "consumers");
            let data = json!({ "n": n });
            cluster.nats.publish(subject, data.to_string()).await?;
        }
        Result::Ok(())
    };
    publish("team-a", 1).await?;
    publish("team-b", 1).await?;
    publish("default", 1).await?;
    publish("taem-a", 5).await?;
    publish("gone", 1).await?;
    cluster.receiver.wait_for("/all", 9).await?;
    cluster.receiver.wait_for("/team", 1).await?;
    cluster.receiver.wait_for("/default", 1).await?;
    eventually(SOON, "six are counted", async || {
        let name = "hookline_events_unknown_workspace_total";
        let counted = cluster.dispatchers_metric(name, &[]).await?;
        ensure!((counted - 6.0).abs() < 0.1, "{counted}");
        Ok(())
    })
    .await?;
    for (workspace, warnings) in [("taem-a", 1), ("gone", 1), ("team-a", 0), ("team-b", 0)] {
        let lines = cluster.dispatchers[0].log_lines().into_iter();
        let lines = lines
            .filter(|line| line.level() == "WARN" && *line.field("workspace") == json!(workspace));
        assert_eq!(lines.count(), warnings, "{workspace}");
    }
    cluster.finish().await
}
