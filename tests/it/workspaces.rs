//! Which workspaces a hook hears.

use e2e::{Cluster, Result, admin, wire};
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
