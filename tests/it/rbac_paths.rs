//! What a role says of an entity counts by whatever path the entity is reached.

use anyhow::{Context as _, ensure};
use e2e::admin::{Admin, id};
use e2e::rbac::{closed, first, user};
use e2e::tls::{Authority, Validity};
use e2e::{Cluster, Result};
use reqwest::Method;
use serde_json::{Value, json};

/// A user who may do all in `default` but what is forbidden: each path for all actions.
async fn but(boss: &Admin, name: &str, forbidden: &[&str]) -> Result<Admin> {
    let role = json!({ "name": name });
    boss.post("/rbac/roles", &role).await?.expect(201)?;
    let mut endpoints = vec![("*", false)];
    endpoints.extend(forbidden.iter().map(|path| (*path, true)));
    for (endpoint, negative) in endpoints {
        let endpoint = json!({"workspace": "default", "endpoint": endpoint, "negative": negative});
        let path = format!("/rbac/roles/{name}/endpoints");
        boss.post(&path, &endpoint).await?.expect(201)?;
    }
    user(boss, "", name, name).await
}

async fn create(boss: &Admin, path: &str, entity: Value) -> Result<Value> {
    let made = boss.post(path, &entity).await?;
    made.expect(201).with_context(|| format!("{path} {entity}"))
}

/// A cluster with one of many kinds.
async fn filled() -> Result<(Cluster, Admin)> {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    create(&boss, "/services", json!({"name": "s", "host": "h.test"})).await?;
    create(&boss, "/services", json!({"name": "s2", "host": "h.test"})).await?;
    create(
        &boss,
        "/services/s2/routes",
        json!({"name": "r", "paths": ["/r"]}),
    )
    .await?;
    create(&boss, "/services/s/plugins", json!({"name": "cors"})).await?;
    create(
        &boss,
        "/consumers",
        json!({"username": "ada", "tags": ["t"]}),
    )
    .await?;
    create(
        &boss,
        "/consumers/ada/key-auth",
        json!({"key": "key-of-ada"}),
    )
    .await?;
    create(&boss, "/consumer_groups", json!({"name": "g"})).await?;
    create(
        &boss,
        "/consumer_groups/g/consumers",
        json!({"consumer": "ada"}),
    )
    .await?;
    create(&boss, "/upstreams", json!({"name": "u.test"})).await?;
    create(
        &boss,
        "/upstreams/u.test/targets",
        json!({"target": "10.0.0.1:80"}),
    )
    .await?;
    let hook = json!({"source": "crud", "handler": "webhook-custom", "config": {
        "url": cluster.receiver.url("/hook"), "method": "POST", "headers": {"authorization": "secret-header"},
    }});
    boss.create_hook(&hook).await?;
    Ok((cluster, boss))
}

async fn refused(who: &Admin, method: Method, path: &str, body: &Value) -> Result {
    let answer = who.request(method.clone(), path, body).await?;
    ensure!(
        [403, 404].contains(&answer.status),
        "{method} {path}: {} {}",
        answer.status,
        answer.body
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forbidden_is_forbidden_beneath_others() -> Result {
    let (cluster, boss) = filled().await?;
    let nothing = &Value::Null;
    let cors = &json!({"name": "cors"});
    let rates = &json!({"config": {"limit": [1], "window_size": [1]}});

    let no_plugins = but(&boss, "no-plugins", &["/plugins", "/plugins/*"]).await?;
    refused(&no_plugins, Method::GET, "/services/s/plugins", nothing).await?;
    refused(&no_plugins, Method::POST, "/services/s2/plugins", cors).await?;
    let path = "/consumer_groups/g/overrides/plugins/rate-limiting-advanced";
    refused(&no_plugins, Method::PUT, path, rates).await?;
    let group = no_plugins.get("/consumer_groups/g").await?.expect(200)?;
    assert_eq!(group["plugins"], json!([]));

    let no_keys = but(&boss, "no-keys", &["/key-auths", "/key-auths/*"]).await?;
    refused(&no_keys, Method::GET, "/consumers/ada/key-auth", nothing).await?;
    refused(
        &no_keys,
        Method::GET,
        "/consumers/ada/key-auth/key-of-ada",
        nothing,
    )
    .await?;
    refused(
        &no_keys,
        Method::POST,
        "/consumers/ada/key-auth",
        &json!({}),
    )
    .await?;

    let beneath = but(
        &boss,
        "beneath",
        &["/consumers/*/key-auth", "/consumers/*/key-auth/*"],
    )
    .await?;
    let keys = beneath.get("/key-auths").await?.expect(200)?;
    assert_eq!(keys["data"], json!([]));
    refused(&beneath, Method::DELETE, "/key-auths/key-of-ada", nothing).await?;

    let no_targets = but(
        &boss,
        "no-targets",
        &["/upstreams/*/targets", "/upstreams/*/targets/*"],
    )
    .await?;
    let health = no_targets
        .get("/upstreams/u.test/health")
        .await?
        .expect(200)?;
    assert_eq!(health["data"], json!([]));
    let mark = "/upstreams/u.test/targets/10.0.0.1:80/unhealthy";
    refused(&no_targets, Method::POST, mark, nothing).await?;

    let no_route = but(&boss, "no-route", &["/routes/r"]).await?;
    for path in ["/services/s/routes/r", "/services/s2/routes/r", "/routes/r"] {
        refused(&no_route, Method::PUT, path, &json!({"paths": ["/evil"]})).await?;
    }
    let route = boss.get("/routes/r").await?.expect(200)?;
    assert_eq!(route["paths"], json!(["/r"]));
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_show_nothing_that_is_forbidden() -> Result {
    let (cluster, boss) = filled().await?;
    for (name, forbidden) in [
        ("no-consumers", &["/consumers", "/consumers/*"][..]),
        ("no-ada", &["/consumers/ada"]),
        ("none-by-star", &["/consumers/*"]),
    ] {
        let who = but(&boss, name, forbidden).await?;
        for path in [
            "/consumers",
            "/consumer_groups/g",
            "/consumer_groups/g/consumers",
            "/consumer_groups/g/consumers/ada",
            "/consumers/ada/consumer_groups",
            "/consumers/ada",
            "/tags",
            "/tags/t",
            "/config?format=json",
        ] {
            let answer = who.get(path).await?;
            let shown = answer.body.to_string();
            ensure!(!shown.contains("\"ada\""), "{name} {path}: {shown}");
            ensure!(!shown.contains("\"tag\":\"t\""), "{name} {path}: {shown}");
        }
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_nothing_behind() -> Result {
    let (cluster, boss) = filled().await?;
    // A list that is forbidden is not shown as a part of something else.
    let no_list = but(&boss, "no-list", &["/consumers"]).await?;
    for path in ["/config?format=json", "/tags", "/tags/t"] {
        let shown = no_list.get(path).await?.expect(200)?.to_string();
        ensure!(
            !shown.contains("\"ada\"") && !shown.contains("\"tag\":\"t\""),
            "{path}: {shown}"
        );
    }
    no_list.get("/consumers/ada").await?.expect(200)?;
    // Nor is a certificate stored whose names are.
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let (cert, key) = authority.issue("a.test", Validity::Valid)?;
    let [cert, key] = [cert, key].map(std::fs::read_to_string);
    let (cert, key) = (cert?, key?);
    let pair = json!({"cert": cert, "key": key, "snis": ["a.test"]});
    let no_names = but(&boss, "no-names", &["/snis", "/snis/*"]).await?;
    refused(&no_names, Method::POST, "/certificates", &pair).await?;
    ensure!(boss.list("/certificates").await?.is_empty());
    let made = create(&boss, "/certificates", pair).await?;
    let path = format!("/certificates/{}", id(&made)?);
    refused(&no_names, Method::PATCH, &path, &json!({"snis": []})).await?;
    let shown = no_names.get(&path).await?.expect(200)?;
    assert_eq!(shown["snis"], json!([]));
    // A membership is named by both.
    let no_members = but(
        &boss,
        "no-members",
        &[
            "/consumer_groups/*/consumers",
            "/consumer_groups/*/consumers/*",
        ],
    )
    .await?;
    let group = no_members.get("/consumer_groups/g").await?.expect(200)?;
    assert_eq!(group["consumers"], json!([]));
    let groups = no_members
        .get("/consumers/ada/consumer_groups")
        .await?
        .expect(200)?;
    assert_eq!(groups["data"], json!([]));
    create(&boss, "/consumer_groups", json!({"name": "h"})).await?;
    let join = json!({"group": "h"});
    refused(
        &no_members,
        Method::POST,
        "/consumers/ada/consumer_groups",
        &join,
    )
    .await?;
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_does_what_its_sender_might_do_alone() -> Result {
    let (cluster, boss) = filled().await?;
    let whole = boss.get("/config?format=json").await?.expect(200)?;
    ensure!(whole.to_string().contains("secret-header"), "{whole}");
    // In `default` only: hooks without a workspace are of all.
    let of_default = but(&boss, "of-default", &[]).await?;
    let seen = of_default.get("/config?format=json").await?.expect(200)?;
    ensure!(!seen.to_string().contains("secret-header"), "{seen}");
    ensure!(seen["services"].is_array(), "{seen}");
    let mut other = whole.clone();
    other["event_hooks"][0]["config"]["url"] = "http://127.0.0.1:9/evil".into();
    refused(&of_default, Method::POST, "/config", &other).await?;
    refused(&of_default, Method::POST, "/config?dry_run=true", &other).await?;
    // Of nothing but the document's own path.
    boss.post("/rbac/roles", &json!({"name": "only"}))
        .await?
        .expect(201)?;
    let endpoint = json!({"workspace": "default", "endpoint": "/config"});
    boss.post("/rbac/roles/only/endpoints", &endpoint)
        .await?
        .expect(201)?;
    let only = user(&boss, "", "only", "only").await?;
    let nothing = only.get("/config?format=json").await?.expect(200)?;
    ensure!(nothing.get("services").is_none(), "{nothing}");
    let empty = json!({"_format_version": "3.0"});
    refused(&only, Method::POST, "/config", &empty).await?;
    refused(&only, Method::POST, "/config?dry_run=true", &empty).await?;
    let no_services = but(&boss, "no-services", &["/services/*"]).await?;
    refused(&no_services, Method::POST, "/config", &empty).await?;
    assert_eq!(boss.list("/services").await?.len(), 2);
    // Who may do all of it may do it so.
    let super_admin = user(&boss, "", "super", "super-admin").await?;
    let dry = super_admin
        .post("/config?dry_run=true", &whole)
        .await?
        .expect(200)?;
    assert_eq!(dry["summary"]["update"], 0, "{dry}");
    let service = boss.get("/services/s").await?.expect(200)?;
    ensure!(!id(&service)?.is_empty());
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_changes_are_for_those_who_might_make_the_changes() -> Result {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    let role = json!({ "name": "senders" });
    boss.post("/rbac/roles", &role).await?.expect(201)?;
    let endpoint = json!({ "workspace": "default", "endpoint": "/ingest-tokens/*", "actions": "create,read,update,delete" });
    boss.post("/rbac/roles/senders/endpoints", &endpoint)
        .await?
        .expect(201)?;
    let endpoint = json!({ "workspace": "default", "endpoint": "/ingest-tokens", "actions": "create,read,update,delete" });
    boss.post("/rbac/roles/senders/endpoints", &endpoint)
        .await?
        .expect(201)?;
    let sender = user(&boss, "", "sender", "senders").await?;
    let token =
        |sources: &[&str]| json!({ "name": sources[0].replace(':', "-"), "sources": sources });
    sender
        .post("/ingest-tokens", &token(&["shop", "*"]))
        .await?
        .expect(201)?;
    for sources in [&["crud"][..], &["dao:crud", "shop"]] {
        sender
            .post("/ingest-tokens", &token(sources))
            .await?
            .expect(403)?;
        let change = json!({ "sources": sources });
        sender
            .patch("/ingest-tokens/shop", &change)
            .await?
            .expect(403)?;
    }
    // Nor is such a token theirs to change.
    boss.post("/ingest-tokens", &token(&["crud"]))
        .await?
        .expect(201)?;
    for change in [json!({ "token": "" }), json!({ "sources": ["shop"] })] {
        sender
            .patch("/ingest-tokens/crud", &change)
            .await?
            .expect(403)?;
    }
    let almost = but(&boss, "almost", &["/plugins"]).await?;
    almost
        .post("/ingest-tokens", &token(&["dao:crud"]))
        .await?
        .expect(403)?;
    let all = but(&boss, "all", &["/nothing"]).await?;
    all.post("/ingest-tokens", &token(&["dao:crud"]))
        .await?
        .expect(201)?;
    cluster.finish().await
}
