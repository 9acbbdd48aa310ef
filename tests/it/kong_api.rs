//! The Admin API as Kong's clients ask it.

use anyhow::{Context as _, ensure};
use e2e::{Admin, Cluster, Result, admin};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn create(admin: &Admin, path: &str, entity: Value) -> Result<Value> {
    let made = admin.post(path, &entity).await?;
    made.expect(201).with_context(|| format!("{path} {entity}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_says_what_clients_look_for() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_KONG_VERSION", "3.7.1")
        .gateway_env("HOOKLINE_ADMIN_ORIGINS", "https://console.example.com")
        .start()
        .await?;
    let admin = cluster.admin();
    create(admin, "/plugins", json!({"name": "cors"})).await?;
    for path in ["/", "/kong", "/default/kong"] {
        let root = admin.get(path).await?.expect(200)?;
        assert_eq!(root["version"], "3.7.1");
        assert_eq!(root["edition"], "community");
        assert_eq!(root["configuration"]["database"], "postgres");
        assert_eq!(root["configuration"]["rbac"], "off");
        assert_eq!(root["plugins"]["enabled_in_cluster"], json!(["cors"]));
        let available = &root["plugins"]["available_on_server"];
        ensure!(available["key-auth"]["version"].is_string(), "{available}");
        ensure!(text(&root["node_id"]).len() == 36, "{root}");
        ensure!(!root.to_string().contains("password"), "{root}");
    }
    let status = admin.get("/status").await?.expect(200)?;
    assert_eq!(status["database"]["reachable"], true);
    ensure!(
        status["server"]["total_requests"].as_u64() > Some(3),
        "{status}"
    );
    ensure!(
        status["server"]["connections_active"].as_u64() > Some(0),
        "{status}"
    );
    // Pages of listed origins may read it, and no others.
    let http = admin::http_client()?;
    let url = format!("{}/services", admin.base());
    for (origin, may) in [
        ("https://console.example.com", true),
        ("https://evil.example", false),
    ] {
        let method = reqwest::Method::OPTIONS;
        let answer = http
            .request(method, &url)
            .header("origin", origin)
            .send()
            .await?;
        let headers = answer.headers();
        let allowed = headers.get("access-control-allow-origin");
        assert_eq!(allowed.is_some_and(|allowed| allowed == origin), may);
        assert_eq!(
            headers.contains_key("access-control-allow-credentials"),
            may
        );
        assert_eq!(headers["server"], "kong/3.7.1");
        assert_eq!(answer.status(), 204);
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_have_the_defaults_that_entities_get() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let schema = admin.get("/schemas/services").await?.expect(200)?;
    let fields = schema["fields"].as_array().context("a list")?;
    let default = |name: &str| {
        let mut found = fields.iter().filter_map(|field| field.get(name));
        found.next().map(|field| field["default"].clone())
    };
    let service = create(admin, "/services", json!({"host": "example.com"})).await?;
    for name in ["retries", "protocol", "port", "connect_timeout", "enabled"] {
        assert_eq!(default(name), Some(service[name].clone()), "{name}");
    }
    let plugin = admin.get("/schemas/plugins/key-auth").await?.expect(200)?;
    ensure!(plugin.to_string().contains("apikey"), "{plugin}");
    for (path, says) in [
        ("/schemas/nothing", "No entity named 'nothing'"),
        ("/schemas/plugins/nothing", "No plugin named 'nothing'"),
    ] {
        let none = admin.get(path).await?.expect(404)?;
        assert_eq!(text(&none["message"]), says);
    }
    let valid = json!({"host": "example.com"});
    let valid = admin.post("/schemas/services/validate", &valid).await?;
    let valid = valid.expect(200)?;
    assert_eq!(text(&valid["message"]), "schema validation successful");
    let invalid = json!({"port": -1});
    let invalid = admin.post("/schemas/services/validate", &invalid).await?;
    ensure!(invalid.expect(400)?["code"] == 2);
    let plugin = json!({"name": "acl", "config": {"allow": ["a"], "deny": ["b"]}});
    let invalid = admin.post("/schemas/plugins/validate", &plugin).await?;
    ensure!(invalid.expect(400)?["code"] == 2);
    ensure!(admin.list("/services").await?.len() == 1);
    // The same again is no change, and no event.
    let path = format!("/services/{}", admin::id(&service)?);
    let before = cluster.nats.count(e2e::wire::EVENTS).await?;
    let again = admin.put(&path, &json!({"host": "example.com"})).await?;
    assert_eq!(again.expect(200)?, service);
    let again = admin.patch(&path, &json!({"retries": 5})).await?;
    assert_eq!(again.expect(200)?, service);
    assert_eq!(cluster.nats.count(e2e::wire::EVENTS).await?, before);
    cluster.finish().await
}
