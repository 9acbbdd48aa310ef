//! Deliveries through an outbound proxy.

use std::time::Duration;

use anyhow::ensure;
use e2e::{
    Authority, Builder, Cluster, ForwardProxy, Leftovers, Result, SOON, Validity, admin, eventually,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

fn behind(proxy: &str) -> Builder {
    Cluster::builder()
        .dispatcher_env("HOOKLINE_PROXY", proxy)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m,10m")
}

fn at(url: &str) -> Value {
    json!({ "url": url, "method": "POST", "body": "x" })
}

/// Until the only waiting delivery of a hook says why.
async fn waits_because(cluster: &Cluster, hook: &Value, why: &str) -> Result {
    let path = format!("/event-hooks/{}/deliveries", admin::id(hook)?);
    eventually(SOON, why, async || {
        let waiting = cluster.admin().list(&path).await?;
        ensure!(waiting.len() == 1, "{waiting:?}");
        let reason = waiting[0]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains(why), "{reason}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_through_tunnels_to_addresses() -> Result {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let proxy = ForwardProxy::start().await?;
    // `ada:s3 cret`
    proxy.require(Some("YWRhOnMzIGNyZXQ="));
    let cluster = behind(&format!("http://ada:s3%20cret@127.0.0.1:{}", proxy.port()))
        .dispatcher_env("SSL_CERT_FILE", &authority.file().display().to_string())
        .start()
        .await?;
    let port = cluster.receiver.port();
    let front = authority.front(port, Validity::Valid).await?;
    for url in [
        format!("http://127.0.0.1:{port}/plain"),
        format!("https://localhost:{}/tls", front.port()),
        format!("http://user:pass@localhost:{port}/named"),
    ] {
        cluster
            .admin()
            .hook_consumers("webhook-custom", at(&url))
            .await?;
    }
    for _ in 0..3 {
        cluster.publish("crud", "consumers", &json!({})).await?;
    }
    cluster.receiver.wait_for("/plain", 3).await?;
    cluster.receiver.wait_for("/tls", 3).await?;
    let named = cluster.receiver.wait_for("/named", 3).await?;
    // The proxy learns no name, and the receiver nothing of the proxy.
    assert_eq!(named[0].header("host"), format!("localhost:{port}"));
    assert_eq!(named[0].header("authorization"), "Basic dXNlcjpwYXNz");
    assert_eq!(named[0].header("proxy-authorization"), "");
    assert!(named[0].header("user-agent").starts_with("hookline/"));
    let asked = proxy.asked();
    assert!((3..=9).contains(&asked.len()), "{asked:?}");
    for target in asked {
        let address: std::net::SocketAddr = target.parse()?;
        assert!([port, front.port()].contains(&address.port()), "{target}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_egress_policy_holds_for_receivers_and_not_for_the_proxy() -> Result {
    let proxy = ForwardProxy::start().await?;
    let cluster = behind(&format!("http://127.0.0.1:{}", proxy.port()))
        .dispatcher_env("HOOKLINE_EGRESS_ALLOW", "192.0.2.0/24")
        .start()
        .await?;
    let port = cluster.receiver.port();
    let mut hooks = Vec::new();
    for host in ["127.0.0.1", "localhost", "[::1]", "10.1.2.3"] {
        let url = format!("http://{host}:{port}/hook");
        let hook = cluster.admin().hook_consumers("webhook-custom", at(&url));
        hooks.push(hook.await?);
    }
    cluster.publish("crud", "consumers", &json!({})).await?;
    let parked = Leftovers { dead: 0, parked: 4 };
    cluster.rest_leaving(parked).await?;
    for hook in &hooks {
        waits_because(&cluster, hook, "is not a public address").await?;
    }
    assert!(proxy.asked().is_empty() && cluster.receiver.requests("/hook").is_empty());
    cluster.finish_leaving(parked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_receivers_are_reached_past_it() -> Result {
    let proxy = ForwardProxy::start().await?;
    let cluster = behind(&format!("http://127.0.0.1:{}", proxy.port()))
        .dispatcher_env("HOOKLINE_NO_PROXY", "localhost,10.0.0.0/8")
        .start()
        .await?;
    let port = cluster.receiver.port();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("http://{host}:{port}/{host}");
        let hook = cluster.admin().hook_consumers("webhook-custom", at(&url));
        hook.await?;
    }
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/localhost", 1).await?;
    cluster.receiver.wait_for("/127.0.0.1", 1).await?;
    assert_eq!(proxy.asked(), [format!("127.0.0.1:{port}")]);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_fails_is_told_from_a_receiver_that_does() -> Result {
    let proxy = ForwardProxy::start().await?;
    let cluster = behind(&format!("http://127.0.0.1:{}", proxy.port()))
        // Once the receiver fails.
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "1,0.5,60s")
        .start()
        .await?;
    let result = async |result: &str| {
        let labels = [("result", result)];
        let attempts = cluster.dispatchers_metric("hookline_attempts_total", &labels);
        attempts.await
    };
    let url = cluster.receiver.url("/hook");
    let hook = cluster.admin().hook_consumers("webhook-custom", at(&url));
    let hook = hook.await?;
    let retry = format!("/event-hooks/{}/deliveries/retry", admin::id(&hook)?);
    let parked = Leftovers { dead: 0, parked: 1 };
    proxy.require(Some("b3RoZXI6bG9naW4="));
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.rest_leaving(parked).await?;
    waits_because(&cluster, &hook, "the proxy wants another user or password").await?;
    assert_eq!(
        (result("proxy").await?, result("connect").await?),
        (1.0, 0.0)
    );

    proxy.require(None);
    proxy.refuse(Some(502));
    let retried = cluster.admin().post(&retry, &json!({"all": true})).await?;
    retried.expect(200)?;
    cluster.rest_leaving(parked).await?;
    let says = format!(
        "does not connect to 127.0.0.1:{}, it answered 502",
        cluster.receiver.port()
    );
    waits_because(&cluster, &hook, &says).await?;
    assert_eq!(
        (result("proxy").await?, result("connect").await?),
        (1.0, 1.0)
    );
    cluster.finish_leaving(parked).await
}

/// It takes connections, or not even those, and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_hangs_opens_no_circuit() -> Result {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = format!("http://{}", silent.local_addr()?);
    let cluster = behind(&proxy)
        .dispatcher_env("HOOKLINE_CONNECT_TIMEOUT", "1s")
        .start()
        .await?;
    let url = cluster.receiver.url("/hook");
    let hook = cluster.admin().hook_consumers("webhook-custom", at(&url));
    let hook = hook.await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    waits_because(&cluster, &hook, "the proxy does not say in time").await?;
    // However long, what stands before the host leads past it neither.
    let long = format!(
        "http://user:{}@127.0.0.1:{}/past",
        "x".repeat(7_000),
        cluster.receiver.port()
    );
    let hook = cluster.admin().hook_consumers("webhook-custom", at(&long));
    let hook = hook.await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    waits_because(&cluster, &hook, "the proxy does not say in time").await?;
    let longer = at(&format!(
        "http://user:{}@127.0.0.1/past",
        "x".repeat(70_000)
    ));
    let longer = admin::hook("crud", "consumers", "webhook-custom", longer);
    let refused = cluster.admin().post("/event-hooks", &longer).await?;
    let refused = refused.expect(400)?;
    assert_eq!(
        refused["fields"]["config"]["url"],
        "length must be at most 8192"
    );
    assert!(cluster.receiver.requests("/past").is_empty());
    cluster
        .finish_leaving(Leftovers { dead: 0, parked: 3 })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_may_have_tls() -> Result {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let proxy = ForwardProxy::start().await?;
    let over_tls = proxy.over_tls(&authority).await?;
    let cluster = behind(&format!("https://localhost:{}", over_tls.port()))
        .dispatcher_env("SSL_CERT_FILE", &authority.file().display().to_string())
        .start()
        .await?;
    let front = authority
        .front(cluster.receiver.port(), Validity::Valid)
        .await?;
    let url = format!("https://localhost:{}/hook", front.port());
    let hook = cluster.admin().hook_consumers("webhook-custom", at(&url));
    let hook = hook.await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    assert_eq!(proxy.asked().len(), 1);

    drop(over_tls);
    // Connections that are kept have ended by then.
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.publish("crud", "consumers", &json!({})).await?;
    let parked = Leftovers { dead: 0, parked: 1 };
    cluster.rest_leaving(parked).await?;
    waits_because(&cluster, &hook, "the proxy does not answer").await?;
    cluster.finish_leaving(parked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_proxy_ends_the_start_and_changes_nothing() -> Result {
    let mut cluster = Cluster::builder().dispatchers(0).start().await?;
    let wrong = cluster.add_dispatcher()?;
    wrong.set("HOOKLINE_PROXY", "socks5://ada:s3cret@127.0.0.1:1080");
    wrong.start()?;
    let code = wrong.process_mut().exit_code(SOON).await?;
    let log = wrong.process().log();
    ensure!(code != 0 && log.contains("HOOKLINE_PROXY"), "{code}: {log}");
    ensure!(!log.contains("s3cret"), "{log}");
    // It has left no settings for the cluster.
    let proxy = ForwardProxy::start().await?;
    let right = format!("http://127.0.0.1:{}", proxy.port());
    wrong.set("HOOKLINE_PROXY", &right);
    wrong.start()?;
    cluster.ready().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    assert_eq!(proxy.asked().len(), 1);
    cluster.finish().await
}
