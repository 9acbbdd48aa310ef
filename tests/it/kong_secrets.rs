//! Secrets of Kong's entities: sealed in files, in no event, and not in the audit records of paths that name them.

use anyhow::{Context as _, ensure};
use e2e::rbac::{closed, first};
use e2e::{Result, admin};
use serde_json::{Value, json};

use crate::keyring::files_with;

const ENTITIES: &str = r#"
/consumers/ada/key-auth {"key": "marker-key"}
/consumers/ada/basic-auth {"username": "u", "password": "marker-password"}
/consumers/ada/hmac-auth {"username": "h", "secret": "marker-hmac"}
/consumers/ada/jwt {"key": "j", "secret": "marker-jwt"}
/consumers/ada/oauth2 {"name": "o", "client_id": "plain", "client_secret": "marker-oauth"}
/consumers/ada/oauth2 {"name": "o", "client_id": "hashed", "client_secret": "marker-hashed", "hash_secret": true}
/plugins {"name": "rate-limiting", "config": {"minute": 1, "redis": {"host": "r.test", "password": "marker-redis"}}}
/plugins {"name": "http-log", "config": {"http_endpoint": "http://user:marker-endpoint@127.0.0.1:9/", "headers": {"authorization": "marker-header"}}}
/plugins {"name": "request-transformer", "config": {"add": {"headers": ["x-key:marker-added"]}}}
/plugins {"name": "oauth2", "config": {"enable_client_credentials": true, "provision_key": "marker-provision"}}
/partials {"name": "p", "type": "redis-ce", "config": {"host": "r.test", "password": "marker-partial"}}
/keys {"name": "k", "kid": "k", "jwk": "{\"kty\": \"oct\", \"kid\": \"k\", \"k\": \"marker-jwk\"}"}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_credentials_and_plugins_are_sealed_and_in_no_record() -> Result {
    let key = "a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let cluster = closed()
        .gateway_env("HOOKLINE_KEYRING", key)
        .dispatcher_env("HOOKLINE_KEYRING", key)
        .start()
        .await?;
    let boss = first(&cluster);
    boss.webhook(&cluster.receiver.url("/hook")).await?;
    let mut of_all = admin::hook("crud", "", "log", json!({}));
    of_all["event"] = Value::Null;
    boss.create_hook(&of_all).await?;
    boss.post("/consumers", &json!({"username": "ada"}))
        .await?
        .expect(201)?;
    let mut entities = Vec::new();
    for line in ENTITIES.lines().filter(|line| !line.is_empty()) {
        let (path, entity) = line.split_once(' ').context("a path")?;
        entities.push((path, serde_json::from_str::<Value>(entity)?));
    }
    for (path, entity) in &entities {
        let made = boss.post(path, entity).await?.expect(201)?;
        // What is hashed is shown this once.
        if entity["client_id"] == "hashed" {
            assert_eq!(made["client_secret"], "marker-hashed");
        }
    }
    let hashed = boss.get("/oauth2/hashed").await?.expect(200)?;
    ensure!(!hashed.to_string().contains("marker"), "{hashed}");
    let made_up = json!({"name": "o", "client_id": "made-up", "hash_secret": true});
    let made_up = boss
        .post("/consumers/ada/oauth2", &made_up)
        .await?
        .expect(201)?;
    let shown = boss.get("/oauth2/made-up").await?.expect(200)?;
    ensure!(
        made_up["client_secret"] != shown["client_secret"],
        "{made_up}"
    );
    let key = boss.get("/keys/k").await?.expect(200)?;
    assert_eq!(key["jwk"], "[redacted]");
    // Paths may have keys.
    for path in [
        "/key-auths/marker-key",
        "/consumers/ada/key-auth/marker-key",
        "/key-auths/marker-key/consumer",
    ] {
        boss.get(path).await?.expect(200)?;
        cluster.admin().get(path).await?.expect(401)?;
    }
    boss.patch(
        "/consumers/ada/key-auth/marker-key",
        &json!({"tags": ["t"]}),
    )
    .await?
    .expect(200)?;
    boss.delete("/key-auths/marker-key").await?.expect(204)?;
    cluster.rest().await?;
    let records = boss.get("/audit/requests?size=100").await?.expect(200)?;
    ensure!(
        records.to_string().contains("/key-auths/[redacted]"),
        "{records}"
    );
    ensure!(!records.to_string().contains("marker"), "{records}");
    for rest in ENTITIES.split("marker-").skip(1) {
        let name: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
        let found = files_with(cluster.dir(), &format!("marker-{name}"))?;
        assert_eq!(found, [""; 0], "{name}");
    }
    for dispatcher in &cluster.dispatchers {
        let log: Vec<_> = dispatcher
            .log_lines()
            .iter()
            .map(|line| line.json().to_string())
            .collect();
        ensure!(!log.concat().contains("marker-"), "a log has a secret");
    }
    cluster.finish_unchecked().await
}
