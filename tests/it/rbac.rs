//! Who may do what: tokens, roles, workspaces.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::admin::{Admin, hook, id};
use e2e::cluster::Builder;
use e2e::process::Process;
use e2e::{Cluster, Result, SOON, binaries, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const PASSWORD: &str = "correct-horse-battery";

fn closed() -> Builder {
    Cluster::builder()
        .gateway_env("HOOKLINE_RBAC", "on")
        .gateway_env("KONG_PASSWORD", PASSWORD)
}

/// The first super-admin, at the first gateway.
fn first(cluster: &Cluster) -> Admin {
    cluster.admin().with_token(PASSWORD)
}

/// A new user with a role, in the workspace of the prefix, such as `/team`.
async fn user(boss: &Admin, prefix: &str, name: &str, role: &str) -> Result<Admin> {
    let users = format!("{prefix}/rbac/users");
    let user = boss.post(&users, &json!({ "name": name })).await?;
    let user = user.expect(201)?;
    let token = user["user_token"].as_str().context("a token")?;
    let roles = format!("{users}/{name}/roles");
    let given = boss.post(&roles, &json!({ "roles": role })).await?;
    given.expect(201)?;
    Ok(boss.with_token(token))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Let {
    In,
    /// Not known.
    Nobody,
    /// Known, and not permitted.
    Out,
}

/// What a status says, of a path for which there is nothing.
fn let_in(status: u16) -> Let {
    match status {
        401 => Let::Nobody,
        403 => Let::Out,
        _ => Let::In,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    NoToken,
    Wrong,
    Expired,
    Disabled,
    WithoutRole,
    ReadOnly,
    Admin,
    /// A super-admin of the workspace `team`.
    OfTeam,
    SuperAdmin,
}

/// Paths that need no role: of the node, or of whoever asks.
fn is_for_all(pattern: &str) -> bool {
    [
        "/",
        "/status",
        "/endpoints",
        "/userinfo",
        "/admins/self/token",
    ]
    .contains(&pattern)
        || pattern.starts_with("/event-hooks/sources")
}

fn expected(who: Who, method: &str, pattern: &str, prefix: &str) -> Let {
    if pattern == "/admins/register" {
        return Let::In;
    }
    let is_visible = method == "GET" && pattern.starts_with("/workspaces");
    let says_who_may = ["/admins", "/rbac/", "/audit/"]
        .iter()
        .any(|start| pattern.starts_with(start));
    let is_of_node = pattern.starts_with("/dead-events") || pattern.starts_with("/workspaces");
    let is_permitted = match who {
        Who::NoToken | Who::Wrong | Who::Expired | Who::Disabled => return Let::Nobody,
        Who::WithoutRole => false,
        Who::ReadOnly => method == "GET",
        Who::Admin => !says_who_may,
        Who::OfTeam => prefix == "/team" && !is_of_node,
        Who::SuperAdmin => true,
    };
    if is_permitted || is_for_all(pattern) || is_visible {
        Let::In
    } else {
        Let::Out
    }
}

/// The methods that a path has, which a browser may ask without a token.
async fn offered(admin: &Admin, path: &str) -> Result<Vec<Method>> {
    let answer = admin.request(Method::OPTIONS, path, &Value::Null).await?;
    let allow = answer.allow.unwrap_or_default();
    let methods = allow.split(", ").filter_map(|name| name.parse().ok());
    let is_tried = |method: &Method| *method != Method::OPTIONS && *method != Method::HEAD;
    Ok(methods.filter(is_tried).collect())
}

async fn everybody(cluster: &Cluster, boss: &Admin) -> Result<Vec<(Who, Admin)>> {
    let team = boss.post("/workspaces", &json!({ "name": "team" })).await?;
    team.expect(201)?;
    let spoil = async |name: &str, change: Value| {
        let spoiled = user(boss, "", name, "super-admin").await?;
        let path = format!("/rbac/users/{name}");
        boss.patch(&path, &change).await?.expect(200)?;
        Ok::<_, anyhow::Error>(spoiled)
    };
    let plain = user(boss, "", "plain", "read-only").await?;
    let roles = json!({ "roles": "read-only" });
    let taken = boss
        .request(Method::DELETE, "/rbac/users/plain/roles", &roles)
        .await?;
    taken.expect(204)?;
    Ok(vec![
        (Who::NoToken, cluster.admin().clone()),
        (
            Who::Wrong,
            boss.with_token(&format!("hookline_{}", "x".repeat(43))),
        ),
        (
            Who::Expired,
            spoil("expired", json!({ "expires_at": 1_700_000_000 })).await?,
        ),
        (
            Who::Disabled,
            spoil("disabled", json!({ "enabled": false })).await?,
        ),
        (Who::WithoutRole, plain),
        (Who::ReadOnly, user(boss, "", "reader", "read-only").await?),
        (Who::Admin, user(boss, "", "manager", "admin").await?),
        (
            Who::OfTeam,
            user(boss, "/team", "lead", "super-admin").await?,
        ),
        (Who::SuperAdmin, boss.clone()),
    ])
}

/// Every path of the table, by every method, for everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_lets_in_whom_it_should() -> Result {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    let everybody = everybody(&cluster, &boss).await?;
    let patterns = boss.get("/endpoints").await?.expect(200)?;
    let patterns = patterns["data"].as_array().context("a list")?;
    let mut tried = 0;
    for pattern in patterns.iter().filter_map(Value::as_str) {
        let segments = pattern.split('/').map(|segment| match segment {
            open if open.starts_with('{') => "nothing",
            word => word,
        });
        let path = segments.collect::<Vec<_>>().join("/");
        for prefix in ["", "/team", "/nowhere"] {
            let path = format!("{prefix}{path}");
            let offered = offered(cluster.admin(), &path).await?;
            ensure!(
                !prefix.is_empty() || !offered.is_empty(),
                "{path} offers nothing"
            );
            for method in &offered {
                for (who, admin) in &everybody {
                    tried += 1;
                    let admin = match who {
                        // One address would have to wait after some.
                        Who::Wrong | Who::Expired | Who::Disabled => {
                            let [.., high, low] = u32::to_be_bytes(tried);
                            &admin.from_address([127, 1, high, low].into())?
                        }
                        _ => admin,
                    };
                    // Nothing that could be done: a token that is too short, for example.
                    let body = json!({ "token": "x" });
                    let answer = admin.request(method.clone(), &path, &body).await?;
                    let want = expected(*who, method.as_str(), pattern, prefix);
                    ensure!(
                        let_in(answer.status) == want,
                        "{who:?} {method} {path}: {} {}, not {want:?}",
                        answer.status,
                        answer.body
                    );
                    ensure!(answer.status < 500, "{method} {path}: {}", answer.status);
                }
            }
        }
    }
    ensure!(tried > 1_000, "only {tried} were tried");
    cluster.finish_unchecked().await
}

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

/// A role with endpoints, and a user who has it.
async fn with_role(boss: &Admin, name: &str, endpoints: &[Value]) -> Result<Admin> {
    let role = json!({ "name": name });
    boss.post("/rbac/roles", &role).await?.expect(201)?;
    for endpoint in endpoints {
        let path = format!("/rbac/roles/{name}/endpoints");
        boss.post(&path, endpoint).await?.expect(201)?;
    }
    user(boss, "", name, name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_forbids_has_no_other_name() -> Result {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    let secret = boss.create_consumer("secret").await?;
    let plain = boss.create_consumer("plain").await?;
    let reader = with_role(
        &boss,
        "reader",
        &[
            json!({ "endpoint": "*", "actions": "read" }),
            json!({ "endpoint": "/consumers/secret", "actions": "*", "negative": true }),
        ],
    )
    .await?;
    let (secret, plain) = (id(&secret)?, id(&plain)?);
    for path in [
        "/consumers/secret".to_owned(),
        "/consumers/secret/".to_owned(),
        "/consumers/%73ecret".to_owned(),
        "/default/consumers/secret".to_owned(),
        format!("/consumers/{secret}"),
        format!("/default/consumers/{}", secret.to_uppercase()),
    ] {
        assert_eq!(reader.get(&path).await?.status, 403, "{path}");
    }
    reader
        .get(&format!("/consumers/{plain}"))
        .await?
        .expect(200)?;
    let names = |list: Vec<Value>| -> Vec<Value> {
        list.into_iter()
            .map(|one| one["username"].clone())
            .collect()
    };
    assert_eq!(names(reader.list("/consumers").await?), ["plain"]);
    assert_eq!(boss.list("/consumers").await?.len(), 2);
    // Without a prefix, hooks are of all workspaces: rights in the default one are not enough.
    assert_eq!(reader.get("/event-hooks").await?.status, 403);
    reader.get("/default/event-hooks").await?.expect(200)?;
    let shown = boss
        .get("/rbac/users/reader/permissions")
        .await?
        .expect(200)?;
    let of_default = &shown["endpoints"]["default"];
    assert_eq!(of_default["/default/consumers/secret"]["negative"], true);
    assert_eq!(of_default["*"]["actions"], json!(["read"]));
    // An endpoint by its path.
    let endpoint = "/rbac/roles/reader/endpoints/default/consumers/secret";
    let more = json!({ "actions": "update" });
    let changed = boss.patch(endpoint, &more).await?.expect(200)?;
    assert_eq!(changed["actions"], json!(["update"]));
    reader.get("/consumers/secret").await?.expect(200)?;
    boss.delete("/rbac/roles/reader").await?.expect(204)?;
    assert_eq!(reader.get("/consumers").await?.status, 403);
    assert_eq!(boss.get(endpoint).await?.status, 404);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_super_admin_of_a_workspace_stays_in_it() -> Result {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    for name in ["team", "other"] {
        let workspace = json!({ "name": name });
        boss.post("/workspaces", &workspace).await?.expect(201)?;
    }
    let lead = user(&boss, "/team", "lead", "super-admin").await?;
    let forbidden = async |method: Method, path: &str, body: Value| {
        let answer = lead.request(method, path, &body).await?;
        ensure!(answer.status == 403, "{path} {body}: {}", answer.status);
        Ok(())
    };
    // Within: everything.
    lead.post("/team/rbac/roles", &json!({ "name": "mine" }))
        .await?
        .expect(201)?;
    let mine = json!({ "endpoint": "/consumers", "actions": "read" });
    let made = lead.post("/team/rbac/roles/mine/endpoints", &mine).await?;
    assert_eq!(made.expect(201)?["workspace"], "team");
    user(&lead, "/team", "member", "mine").await?;
    let names = |list: Vec<Value>| -> Vec<Value> {
        list.into_iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names(lead.list("/workspaces").await?), ["team"]);
    assert_eq!(lead.get("/workspaces/other").await?.status, 404);
    // Beyond: nothing, not even through one's own roles.
    for workspace in ["*", "other", "default"] {
        let beyond = json!({ "workspace": workspace, "endpoint": "*", "actions": "*" });
        forbidden(Method::POST, "/team/rbac/roles/mine/endpoints", beyond).await?;
    }
    forbidden(Method::POST, "/rbac/users", json!({ "name": "eve" })).await?;
    forbidden(
        Method::POST,
        "/event-hooks",
        hook("crud", "consumers", "log", Value::Null),
    )
    .await?;
    forbidden(Method::GET, "/team/workspaces/../workspaces", Value::Null)
        .await
        .ok();
    // A user of the workspace whom somebody else gave more is out of reach.
    let strong = user(&boss, "/team", "strong", "mine").await?;
    let strong_id = boss.get("/team/rbac/users/strong").await?.expect(200)?;
    let path = format!("/default/rbac/users/{}/roles", id(&strong_id)?);
    let given = boss.post(&path, &json!({ "roles": "super-admin" })).await?;
    given.expect(201)?;
    strong.get("/other/consumers").await?.expect(200)?;
    let stolen = json!({ "user_token": "stolen-token-1" });
    forbidden(Method::PATCH, "/team/rbac/users/strong", stolen).await?;
    forbidden(Method::DELETE, "/team/rbac/users/strong", Value::Null).await?;
    // Built-in roles are as they are.
    for (method, path) in [
        (Method::PATCH, "/rbac/roles/read-only"),
        (Method::DELETE, "/rbac/roles/read-only"),
        (Method::POST, "/rbac/roles/read-only/endpoints"),
    ] {
        let all = json!({ "endpoint": "*" });
        let body = if method == Method::PATCH {
            json!({ "comment": "x" })
        } else {
            all
        };
        let answer = boss.request(method, path, &body).await?;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
    }
    let taken = json!({ "name": "super-admin" });
    boss.post("/rbac/roles", &taken).await?.expect(400)?;
    assert_eq!(boss.list("/team/rbac/roles").await?.len(), 4);
    // They do not keep a workspace from being deleted.
    boss.delete("/workspaces/other").await?.expect(204)?;
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
    cluster.finish().await
}

/// Every command of docs/rbac.md works as it stands there, with the tokens that the ones before it showed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_its_page_works() -> Result {
    let cluster = closed().start().await?;
    let page = std::fs::read_to_string(binaries::workspace().join("docs/rbac.md"))?;
    let blocks = page.split("\n```").skip(1).step_by(2);
    let commands: Vec<_> = blocks
        .flat_map(|block| block.split("\ncurl ").skip(1))
        .collect();
    ensure!(commands.len() > 12, "{commands:?}");
    let address = cluster.admin().base().replace("http://", "");
    let (mut token, mut invitation) = (PASSWORD.to_owned(), String::new());
    for command in commands {
        let command = command.replace("localhost:8001", &address);
        let output = tokio::process::Command::new("bash")
            .arg("-c")
            .arg(format!(
                "curl --fail-with-body --silent --show-error {command}"
            ))
            .env("TOKEN", &token)
            .env("INVITATION", &invitation)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{command}: {said}");
        let answer: Value = serde_json::from_str(&said)?;
        let shown =
            || Ok::<_, anyhow::Error>(answer["token"].as_str().context("a token")?.to_owned());
        if command.contains("/self/token") {
            token = shown()?;
        } else if command.contains("/admins -d") {
            invitation = shown()?;
        }
    }
    cluster.finish().await
}
