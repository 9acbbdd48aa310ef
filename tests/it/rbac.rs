//! Who may do what: roles and workspaces.

use anyhow::{Context as _, ensure};
use e2e::admin::{Admin, hook, id};
use e2e::rbac::{PASSWORD, closed, first, user};
use e2e::{Cluster, Result, binaries};
use reqwest::Method;
use serde_json::{Value, json};

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
        "/kong",
        "/schemas/{kind}",
        "/schemas/{kind}/validate",
        "/schemas/plugins/validate",
        "/schemas/plugins/{name}",
        "/plugins/schema/{name}",
        "/plugins/enabled",
        "/tags",
        "/tags/{tag}",
        "/endpoints",
        "/userinfo",
        "/admins/self/token",
    ]
    .contains(&pattern)
        || pattern.starts_with("/event-hooks/sources")
}

fn expected(who: Who, method: &str, pattern: &str, prefix: &str) -> Let {
    if ["/admins/register", "/openapi.json", "/docs"].contains(&pattern) {
        return Let::In;
    }
    let is_visible = method == "GET" && ["/workspaces", "/workspaces/{key}"].contains(&pattern);
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
    // By its id too.
    let hidden = boss.create_consumer("hidden").await?;
    let endpoint = format!("/consumers/{}", id(&hidden)?.to_uppercase());
    let forbidden = json!({ "endpoint": endpoint, "actions": "read", "negative": true });
    let made = boss
        .post("/rbac/roles/reader/endpoints", &forbidden)
        .await?;
    made.expect(201)?;
    for path in [
        "/consumers/hidden".to_owned(),
        format!("/consumers/{}", id(&hidden)?),
    ] {
        assert_eq!(reader.get(&path).await?.status, 403, "{path}");
    }
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
    assert_eq!(boss.list("/consumers").await?.len(), 3);
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

/// What a role does not reach it does not reach at any depth, and what one workspace forbids is not given for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forbidden_has_no_way_round() -> Result {
    let cluster = closed().start().await?;
    let boss = first(&cluster);
    let manager = user(&boss, "", "manager", "admin").await?;
    let mut path = "/rbac/roles/read-only/endpoints/default".to_owned();
    for _ in 0..12 {
        path.push_str("/a");
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            let answer = manager.request(method, &path, &json!({})).await?;
            ensure!(
                [403, 404].contains(&answer.status),
                "{path}: {}",
                answer.status
            );
            // Where there is no path, nobody gets further.
            let of_boss = boss.get(&path).await?.body["message"].clone();
            let is_path = of_boss == "Not found" && path.len() < 52;
            ensure!(
                !is_path || answer.status == 403,
                "{path}: {}",
                answer.status
            );
        }
    }
    let prod = json!({ "name": "prod" });
    boss.post("/workspaces", &prod).await?.expect(201)?;
    let but_one = with_role(
        &boss,
        "but-one",
        &[
            json!({ "workspace": "*", "endpoint": "*" }),
            json!({ "workspace": "prod", "endpoint": "*", "negative": true }),
        ],
    )
    .await?;
    but_one.get("/consumers").await?.expect(200)?;
    for path in ["/prod/consumers", "/event-hooks"] {
        assert_eq!(but_one.get(path).await?.status, 403, "{path}");
    }
    // Nor by another user, who would have it all.
    let eve = json!({ "name": "eve" });
    but_one.post("/rbac/users", &eve).await?.expect(201)?;
    let all = json!({ "roles": "super-admin" });
    let given = but_one.post("/rbac/users/eve/roles", &all).await?;
    assert_eq!(given.status, 403, "{}", given.body);
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
