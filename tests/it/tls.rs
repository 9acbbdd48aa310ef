//! Receivers behind TLS.

use e2e::{Authority, Cluster, Leftovers, Result, Validity, admin};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_retried_unless_it_is_not_verified() -> Result {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let cluster = Cluster::builder()
        .dispatcher_env("SSL_CERT_FILE", &authority.file().display().to_string())
        // Parked deliveries are not retried while the scenario runs.
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    let port = cluster.receiver.port();
    let valid = authority.front(port, Validity::Valid).await?;
    let expired = authority.front(port, Validity::Expired).await?;
    let hook = async |path: &str, port: u16, verify: bool| {
        let config = json!({"url": format!("https://localhost:{port}{path}"),
            "ssl_verify": verify});
        let created = cluster.admin().hook_consumers("webhook", config);
        anyhow::Ok(admin::id(&created.await?)?.to_owned())
    };
    hook("/valid", valid.port(), true).await?;
    hook("/unverified", expired.port(), false).await?;
    let refused = hook("/expired", expired.port(), true).await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/valid", 1).await?;
    cluster.receiver.wait_for("/unverified", 1).await?;

    // The hook's ping and the event.
    let parked = Leftovers { dead: 0, parked: 2 };
    cluster.rest_leaving(parked).await?;
    let path = format!("/event-hooks/{refused}/deliveries");
    let list = cluster.admin().get(&path).await?.expect(200)?;
    let waiting = list["data"].as_array().expect("a list");
    assert_eq!(waiting.len(), 2);
    for delivery in waiting {
        let reason = delivery["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("cannot connect"), "{reason}");
        assert!(reason.contains("expired"), "{reason}");
    }
    assert_eq!(cluster.receiver.requests("/expired").len(), 0);

    // Without verification, the same hook gets through.
    let path = format!("/event-hooks/{refused}");
    let url = format!("https://localhost:{}/expired", expired.port());
    let unverified = json!({"config": {"url": url, "ssl_verify": false}});
    cluster
        .admin()
        .patch(&path, &unverified)
        .await?
        .expect(200)?;
    cluster.control("/expired").await?;
    cluster.finish_leaving(parked).await
}
