//! Other gateways that feed Hookline, by the files of deploy/gateways.

use anyhow::ensure;
use e2e::process::Process;
use e2e::{Cluster, Receiver, Result, SOON, Sender, binaries, eventually, ports};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_tells_when_a_server_goes_down_and_comes_up() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({ "url": cluster.receiver.url("/health") });
    let hook =
        json!({ "source": "balancer", "event": "health", "handler": "webhook", "config": config });
    cluster.admin().create_hook(&hook).await?;
    let sender = Sender::new(&cluster.gateways[0], &["balancer"]).await?;
    let servers = [Receiver::start().await?, Receiver::start().await?];
    // The shipped files, with other ports and without a proxy's own.
    let folder = binaries::workspace().join("deploy/gateways");
    let shipped = std::fs::read_to_string(folder.join("haproxy.cfg"))?;
    let lua = folder.join("haproxy.lua").display().to_string();
    let config = shipped
        .replace("deploy/gateways/haproxy.lua", &lua)
        .replace("127.0.0.1:8000", &format!("127.0.0.1:{}", ports::free()?))
        .replace(
            "127.0.0.1:8181",
            &format!("127.0.0.1:{}", servers[0].port()),
        )
        .replace(
            "127.0.0.1:8182",
            &format!("127.0.0.1:{}", servers[1].port()),
        );
    let file = cluster.dir().join("haproxy.cfg");
    std::fs::write(&file, config)?;
    let program = binaries::server("haproxy")?;
    let mut haproxy = Process::new("haproxy", program, cluster.dir())
        .args(["-db", "-f", &file.display().to_string()])
        .env("PATH", "/usr/bin:/bin")
        .env("HOOKLINE_INGEST_URL", cluster.gateways[0].ingest())
        .env("HOOKLINE_INGEST_TOKEN", &sender.token);
    haproxy.start()?;
    eventually(SOON, "HAProxy checks its servers", async || {
        haproxy.check_running()?;
        let checked = servers
            .iter()
            .all(|server| server.requests("/health").len() > 2);
        ensure!(checked, "{}", haproxy.log());
        Ok(())
    })
    .await?;
    for (number, (status, health)) in [(500, "unhealthy"), (200, "healthy")]
        .into_iter()
        .enumerate()
    {
        servers[0].answer("/health", &[status]);
        let events = cluster.receiver.wait_for("/health", number + 1).await?;
        let data = &events[number].json;
        ensure!(
            data["health"] == health && data["upstream_id"] == "orders",
            "{data}"
        );
        ensure!(
            data["port"] == servers[0].port() && data["ip"] == "127.0.0.1",
            "{data}"
        );
        ensure!(data["hostname"] == "orders-1", "{data}");
    }
    haproxy.terminate()?;
    cluster.finish().await
}
