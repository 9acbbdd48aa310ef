//! Tokens: who gets one, where it counts and how long, and what wrong ones cost.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::admin::{Admin, hook};
use e2e::process::Process;
use e2e::rbac::{PASSWORD, closed, first, user};
use e2e::{Cluster, Result, SOON, binaries, eventually};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invited_admin_registers_and_slack_hears_of_the_invitation() -> Result {
    let cluster = closed().gateways(2).start().await?;
    let boss = first(&cluster);
    let slack = json!({
        "url": cluster.receiver.url("/slack"), "method": "POST",
        "headers": { "content-type": "application/json" },
        "payload": { "text": "Admin account `{{ entity.username }}` {{ operation}}d; email address set to `{{ entity.email }}`" },
    });
    let slack = hook("crud", "admins", "webhook-custom", slack);
    boss.create_hook(&slack).await?;
    let ada = json!({ "username": "ada", "email": "ada@example.com" });
    let invited = boss.post("/admins", &ada).await?.expect(200)?;
    assert_eq!(invited["admin"]["status"], 4);
    assert_eq!(invited["admin"]["username"], "ada");
    let heard = cluster.receiver.wait_for("/slack", 1).await?;
    let text = "Admin account `ada` created; email address set to `ada@example.com`";
    assert_eq!(heard[0].json, json!({ "text": text }));
    let given = json!({ "roles": ["read-only"] });
    boss.post("/admins/ada/roles", &given).await?.expect(201)?;
    // Whoever else has the token cannot use it, and the admin can use it once.
    let open = cluster.admin();
    let accept = |username: &str, token: &Value| json!({ "username": username, "email": "ada@example.com", "token": token, "password": "lovelace-1843" });
    for wrong in [
        accept("eve", &invited["token"]),
        accept("ada", &json!("hookline_x")),
    ] {
        let refused = open.post("/admins/register", &wrong).await?;
        assert_eq!(refused.status, 401, "{wrong}");
    }
    let again = boss.get("/admins/ada?generate_register_url=true").await?;
    let again = again.expect(200)?;
    let old = accept("ada", &invited["token"]);
    assert_eq!(open.post("/admins/register", &old).await?.status, 401);
    let accepted = accept("ada", &again["token"]);
    let registered = open
        .post("/admins/register", &accepted)
        .await?
        .expect(201)?;
    assert_eq!(registered["admin"]["status"], 0);
    assert_eq!(open.post("/admins/register", &accepted).await?.status, 401);
    // At once, on the other node as well.
    let ada = cluster.gateways[1].admin().with_token("lovelace-1843");
    ada.get("/consumers").await?.expect(200)?;
    let refused = ada.post("/consumers", &json!({ "username": "x" })).await?;
    let refused = refused.expect(403)?;
    assert_eq!(
        refused["message"],
        "ada, you do not have permissions to create this resource"
    );
    let info = ada.get("/userinfo").await?.expect(200)?;
    assert_eq!(info["admin"]["username"], "ada");
    let workspaces = boss.get("/admins/ada/workspaces").await?.expect(200)?;
    assert_eq!(workspaces["data"][0]["name"], "default");
    // Another token in the place of that one.
    let replaced = ada
        .patch("/admins/self/token", &json!({}))
        .await?
        .expect(200)?;
    let token = replaced["token"].as_str().context("a token")?;
    ada.with_token(token).get("/consumers").await?.expect(200)?;
    assert_eq!(ada.get("/consumers").await?.status, 401);
    cluster.finish().await
}

/// A user, their roles and rights are gone on every node as soon as it has heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_counts_on_all_nodes_at_once_and_no_longer_than_it_should() -> Result {
    let cluster = closed().gateways(2).start().await?;
    let boss = first(&cluster);
    let there = |admin: &Admin| -> Admin {
        let token = admin.token().unwrap_or_default();
        cluster.gateways[1].admin().with_token(token)
    };
    for (name, path, change) in [
        (
            "roles",
            "/rbac/users/roles/roles",
            json!({ "roles": "super-admin" }),
        ),
        ("gone", "/rbac/users/gone", Value::Null),
        ("off", "/rbac/users/off", json!({ "enabled": false })),
    ] {
        let user = user(&boss, "", name, "super-admin").await?;
        there(&user).get("/consumers").await?.expect(200)?;
        let method = if name == "off" {
            Method::PATCH
        } else {
            Method::DELETE
        };
        let changed = boss.request(method, path, &change).await?;
        ensure!(changed.status < 300, "{name}: {}", changed.body);
        eventually(SOON, "it counts no more", async || {
            let status = there(&user).get("/consumers").await?.status;
            ensure!(status == 401 || status == 403, "{name}: {status}");
            Ok(())
        })
        .await?;
    }
    // A chosen token, and another in its place.
    let chosen = json!({ "name": "chosen", "user_token": "swordfish-1" });
    let shown = boss.post("/rbac/users", &chosen).await?.expect(201)?;
    assert_eq!(shown["user_token"], "[redacted]");
    let chosen = cluster.gateways[1].admin().with_token("swordfish-1");
    assert_eq!(chosen.get("/consumers").await?.status, 403);
    let other = json!({ "user_token": "swordfish-2" });
    boss.patch("/rbac/users/chosen", &other)
        .await?
        .expect(200)?;
    eventually(SOON, "the old one counts no more", async || {
        let status = chosen.get("/consumers").await?.status;
        ensure!(status == 401, "{status}");
        Ok(())
    })
    .await?;
    let chosen = chosen.with_token("swordfish-2");
    assert_eq!(chosen.get("/consumers").await?.status, 403);
    for bad in ["short", "with a space", "hookline_x1234567"] {
        let bad = json!({ "name": "bad", "user_token": bad });
        boss.post("/rbac/users", &bad).await?.expect(400)?;
    }
    let same = json!({ "name": "same", "user_token": "swordfish-2" });
    let taken = boss.post("/rbac/users", &same).await?.expect(409)?;
    assert_eq!(taken["fields"]["user_token"], "[redacted]");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_slow_down_the_address_that_sends_them() -> Result {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    boss.get("/consumers").await?.expect(200)?;
    let stranger: IpAddr = "127.0.0.2".parse()?;
    let stranger = cluster.admin().from_address(stranger)?;
    let (mut wrong, mut waited) = (0, 0);
    for number in 0..100 {
        let guess = stranger.with_token(&format!("guess-{number:08}"));
        let answer = guess.get("/consumers").await?;
        match answer.status {
            401 => wrong += 1,
            429 => {
                waited += 1;
                let seconds: u64 = answer.retry_after.context("when to retry")?.parse()?;
                assert!(seconds >= 1);
            }
            status => anyhow::bail!("{status}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ensure!(
        (20..=40).contains(&wrong) && wrong + waited == 100,
        "{wrong} {waited}"
    );
    // Not others, and not whom that address is known to serve.
    boss.get("/consumers").await?.expect(200)?;
    stranger
        .with_token(PASSWORD)
        .get("/consumers")
        .await?
        .expect(200)?;
    let refused = async |reason: &str| {
        let gateway = &cluster.gateways[0];
        let labels = [("reason", reason)];
        gateway
            .metric("hookline_admin_refused_total", &labels)
            .await
    };
    assert_eq!(refused("wrong_token").await?, f64::from(wrong));
    assert_eq!(refused("too_many").await?, f64::from(waited));
    cluster.finish().await
}

/// What a gateway says that ends by itself.
async fn said(cluster: &Cluster, env: &[(&str, &str)]) -> Result<String> {
    let mut gateway = Process::new(
        "refused",
        binaries::service("hookline-gateway")?,
        cluster.dir(),
    )
    .env("HOOKLINE_NATS_URL", cluster.nats.url_as("gateway"))
    .env("HOOKLINE_STATUS_LISTEN", "127.0.0.1:0")
    .env("HOOKLINE_ADMIN_LISTEN", "127.0.0.1:0");
    for (name, value) in env {
        gateway.set_env(name, *value);
    }
    gateway.start()?;
    let code = gateway.exit_code(SOON).await?;
    ensure!(code != 0, "it ends well");
    Ok(gateway.log())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_beyond_loopback_is_closed_or_refuses_to_start() -> Result {
    let cluster = Cluster::single().await?;
    let beyond = ("HOOKLINE_ADMIN_LISTEN", "0.0.0.0:0");
    let open = said(&cluster, &[beyond, ("HOOKLINE_RBAC", "off")]).await?;
    ensure!(open.contains("--insecure"), "{open}");
    let nobody = said(&cluster, &[beyond]).await?;
    ensure!(nobody.contains("HOOKLINE_PASSWORD"), "{nobody}");
    let spaced = said(&cluster, &[beyond, ("HOOKLINE_PASSWORD", "two words")]).await?;
    ensure!(spaced.contains("cannot be sent"), "{spaced}");
    ensure!(!spaced.contains("two words"), "{spaced}");
    cluster.finish().await
}

/// Another bucket has another first super-admin, with the same password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_super_admin_is_made_in_another_bucket_too() -> Result {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    boss.get("/consumers").await?.expect(200)?;
    let jetstream = cluster.nats.jetstream();
    let stream = cluster.nats.stream(e2e::wire::BUCKET).await?;
    let config = stream.cached_info().config.clone();
    jetstream.delete_stream(e2e::wire::BUCKET).await?;
    eventually(SOON, "the bucket is missed", async || {
        let status = cluster.gateways[0].status_of("/readyz").await?;
        ensure!(status == 503, "{status}");
        Ok(())
    })
    .await?;
    jetstream.create_stream(config).await?;
    eventually(SOON, "the gateway serves it", async || {
        let log = cluster.gateways[0].process().log();
        ensure!(log.contains("serving another bucket"), "not yet");
        Ok(())
    })
    .await?;
    // What is changed there is recorded, and its records are removed from it.
    let ada = boss.create_consumer("ada").await?;
    eventually(SOON, "its record", async || {
        let list = boss.get("/audit/requests").await?.expect(200)?;
        ensure!(list["data"][0]["entity"]["id"] == ada["id"], "{list}");
        let left = cluster.nats.entries("$KV.hookline.audit.>").await?;
        ensure!(left == 0, "{left} left in the bucket");
        Ok(())
    })
    .await?;
    cluster.finish_unchecked().await
}

/// An admin who was put in the place of an invited one is invited, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_who_was_not_invited_can_be() -> Result {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    let ada = json!({ "email": "ada@example.com" });
    let put = boss.put("/admins/ada", &ada).await?.expect(200)?;
    assert_eq!(put["status"], 4);
    let again = boss.get("/admins/ada?generate_register_url=true").await?;
    let accept = json!({
        "username": "ada", "email": "ada@example.com", "token": again.expect(200)?["token"],
    });
    let open = cluster.admin();
    let registered = open.post("/admins/register", &accept).await?.expect(201)?;
    let token = registered["user_token"].as_str().context("a token")?;
    let info = open.with_token(token).get("/userinfo").await?.expect(200)?;
    assert_eq!(info["admin"]["status"], 0);
    // Reading is not enough to get an invitation.
    let reader = user(&boss, "", "reader", "read-only").await?;
    boss.put("/admins/eve", &json!({})).await?.expect(200)?;
    let stolen = reader.get("/admins/eve?generate_register_url=true").await?;
    assert_eq!(stolen.status, 403);
    cluster.finish().await
}
