//! Kong's entities by the Admin API: their rules, their nested paths, and what goes with what.

use anyhow::{Context as _, bail, ensure};
use e2e::{Admin, Cluster, Result, admin};
use reqwest::Method;
use serde_json::{Value, json};

async fn create(admin: &Admin, path: &str, entity: Value) -> Result<Value> {
    let made = admin.post(path, &entity).await?;
    made.expect(201).with_context(|| format!("{path} {entity}"))
}

/// Whether a value has all of another.
fn has(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => part
            .iter()
            .all(|(name, part)| value.get(name).is_some_and(|value| has(value, part))),
        (Value::String(value), Value::String(part)) => value.contains(part.as_str()),
        _ => value == part,
    }
}

/// Makes requests, one a line: method, path, body, status and a part of the answer.
async fn check(admin: &Admin, table: &str) -> Result {
    for line in table.lines().filter(|line| !line.is_empty()) {
        let parts: Vec<_> = line.split(" | ").collect();
        let [method, path, body, status, part] = parts[..] else {
            bail!("five parts: {line}");
        };
        let (body, part): (Value, Value) =
            (serde_json::from_str(body)?, serde_json::from_str(part)?);
        let answer = admin
            .request(method.parse::<Method>()?, path, &body)
            .await?;
        let (got, shown) = (answer.status, answer.body);
        ensure!(
            got == status.parse::<u16>()? && has(&shown, &part),
            "{line}: {got} {shown}"
        );
    }
    Ok(())
}

const ROUTES: &str = r#"
POST | /routes | {"protocols": ["tcp"], "paths": ["/"]} | 400 | {"code": 2, "message": "paths"}
POST | /routes | {"protocols": ["http"], "paths": ["/"], "sources": [{"port": 1}]} | 400 | {"code": 2, "message": "sources"}
POST | /routes | {"protocols": ["http"], "paths": ["/"], "snis": ["a.test"]} | 400 | {"code": 2, "message": "snis"}
POST | /routes | {"protocols": ["http", "tcp"], "paths": ["/"]} | 400 | {"code": 2, "name": "schema violation"}
POST | /routes | {"protocols": [], "paths": ["/"]} | 400 | {"code": 2}
POST | /routes | {"headers": {"Host": ["a.test"]}} | 400 | {"code": 2, "message": "host"}
POST | /routes | {"protocols": ["tcp"], "sources": [{"ip": "300.1.1.1"}]} | 400 | {"code": 2, "message": "300.1.1.1"}
POST | /routes | {"protocols": ["grpc"], "paths": ["/"], "strip_path": true} | 400 | {"code": 2, "message": "strip_path"}
POST | /routes | {"protocols": ["grpc"], "paths": ["/"], "methods": ["GET"]} | 400 | {"code": 2, "message": "methods"}
POST | /routes | {"protocols": ["grpcs"], "paths": ["/"]} | 201 | {"strip_path": false}
POST | /routes | {"protocols": ["https"], "snis": ["*.a.test"]} | 201 | {"snis": ["*.a.test"]}
POST | /routes | {"protocols": ["tls"], "snis": ["*.b.test"]} | 201 | {}
POST | /routes | {"protocols": ["tls_passthrough"], "snis": ["c.test"]} | 201 | {}
POST | /routes | {"protocols": ["tcp", "tls"], "snis": ["d.test"], "sources": [{"ip": "10.0.0.0/8"}]} | 201 | {}
POST | /routes | {"protocols": ["udp"], "destinations": [{"port": 53}]} | 201 | {}
POST | /routes | {} | 400 | {"code": 2}
"#;

const WRONG: &str = r#"
GET | /consumers?tags=%ff | null | 400 | {"message": "invalid option (tags: must not contain invalid utf-8 sequences)"}
GET | /consumers?tags=a,b/c | null | 400 | {"code": 11, "message": "invalid option (tags: invalid filter syntax)"}
GET | /consumers?size=x | null | 400 | {"code": 9, "message": "size must be a number"}
GET | /consumers?size=0 | null | 400 | {"code": 9, "message": "size must be an integer between 1 and 1000"}
GET | /consumers?offset=x | null | 400 | {"code": 7, "message": "'x' is not a valid offset: bad base64 encoding"}
GET | /services/s/routes?offset=x | null | 400 | {"code": 7}
GET | /services/s/routes?tags=a,b/c | null | 400 | {"code": 11}
GET | /nothing | null | 404 | {"message": "Not found"}
GET | /schemas | null | 404 | {"message": "Not found"}
GET | /consumers/ada/nothing | null | 404 | {"message": "Not found"}
DELETE | /consumers | null | 405 | {"message": "Method not allowed"}
POST | /services | {} | 400 | {"code": 2, "fields": {"host": "required field missing"}}
POST | /services | {"host": ""} | 400 | {"fields": {"host": "length must be at least 1"}}
POST | /services | {"url": "h.test"} | 400 | {"fields": {"url": "missing scheme in url"}}
POST | /services | {"url": "http://"} | 400 | {"fields": {"url": "missing host in url"}}
POST | /services | {"host": "h", "tls_verify": true} | 400 | {"code": 2}
POST | /services | {"host": "h", "protocol": "https", "tls_verify": true} | 201 | {"tls_verify": true}
POST | /services | {"host": "h", "protocol": "https", "client_certificate": {"id": "0fd2319f-13ea-4582-a448-8d11893026a8"}} | 400 | {"code": 4, "message": "the foreign key"}
POST | /services | {"host": "h", "protocol": "https", "ca_certificates": ["0fd2319f-13ea-4582-a448-8d11893026a8"]} | 400 | {"code": 4}
POST | /routes | {"paths": ["/a"], "service": {"id": "0fd2319f-13ea-4582-a448-8d11893026a8"}} | 400 | {"code": 4, "message": "the foreign key"}
POST | /routes | {"paths": ["/a"], "service": {"name": "nobody"}} | 400 | {"code": 13, "message": "foreign keys unresolved"}
DELETE | /services/s | null | 400 | {"code": 4, "fields": {"@referenced_by": "routes"}}
POST | /plugins | {"name": "nothing"} | 400 | {"fields": {"name": "plugin 'nothing' not enabled"}}
POST | /plugins | {} | 400 | {"fields": {"name": "required field missing"}}
POST | /upstreams | {"name": "a b"} | 400 | {"code": 2}
POST | /workspaces | {"name": "vaults"} | 400 | {"fields": {"name": "reserved"}}
POST | /workspaces | {"name": "schemas"} | 400 | {"fields": {"name": "reserved"}}
POST | /consumers/ada/basic-auth | {"username": "u"} | 400 | {"fields": {"password": "required field missing"}}
"#;

/// Lists beneath another, one of what they have, a change of it and what names it.
const PAIRS: &str = r#"
/services/s/routes | {"name": "new", "hosts": ["a.test"]} | {"hosts": ["b.test"]} | new
/services/s/plugins | {"name": "cors", "instance_name": "one"} | {"enabled": false} | one
/routes/r/plugins | {"name": "acl", "config": {"allow": ["x"]}} | {"config": {"allow": ["y"]}} |
/consumers/c/plugins | {"name": "rate-limiting", "config": {"minute": 5}} | {"config": {"minute": 6}} |
/consumer_groups/g/plugins | {"name": "rate-limiting-advanced", "config": {"limit": [1], "window_size": [2]}} | {"enabled": false} |
/consumers/c/key-auth | {"key": "secret-1"} | {"tags": ["t"]} | secret-1
/consumers/c/basic-auth | {"username": "u", "password": "p"} | {"tags": ["t"]} | u
/consumers/c/acls | {"group": "staff"} | {"tags": ["t"]} | staff
/consumers/c/jwt | {"key": "jk"} | {"tags": ["t"]} | jk
/consumers/c/hmac-auth | {"username": "h"} | {"tags": ["t"]} | h
/consumers/c/oauth2 | {"name": "o", "redirect_uris": ["http://x.test/"]} | {"name": "p"} |
/upstreams/u.test/targets | {"target": "10.0.0.1:80"} | {"weight": 5} | 10.0.0.1:80
/key-sets/ks/keys | {"name": "k", "kid": "k1", "jwk": "{\"kty\": \"oct\", \"kid\": \"k1\", \"k\": \"c2VjcmV0\"}"} | {"tags": ["t"]} | k
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_take_what_their_protocols_can_match() -> Result {
    let cluster = Cluster::single().await?;
    check(cluster.admin(), ROUTES).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_wrong_are_told_so_in_kongs_words() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    create(
        admin,
        "/consumers",
        json!({"username": "ada", "custom_id": "1", "tags": ["a"]}),
    )
    .await?;
    create(
        admin,
        "/consumers",
        json!({"username": "bob", "custom_id": "2"}),
    )
    .await?;
    let service = create(admin, "/services", json!({"name": "s", "host": "h.test"})).await?;
    // A whole entity stands for its id.
    let route = create(
        admin,
        "/routes",
        json!({"paths": ["/a"], "service": service}),
    )
    .await?;
    assert_eq!(route["service"], json!({"id": service["id"]}));
    check(admin, WRONG).await?;
    for (content_type, body, says) in [
        ("application/json", "", "Cannot parse JSON body"),
        ("application/json", "{", "Cannot parse JSON body"),
    ] {
        let answer = admin
            .post_raw("/consumers", content_type, body.into())
            .await?;
        assert_eq!(answer.expect(400)?["message"], says);
    }
    let found = admin.get("/consumers?custom_id=2").await?.expect(200)?;
    assert_eq!(found["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["data"][0]["username"], "bob");
    ensure!(found["data"][0]["updated_at"].is_u64(), "{found}");
    let none = admin.get("/consumers?custom_id=3").await?.expect(200)?;
    assert_eq!(none["data"], json!([]));
    // Clients put the workspace before it.
    let page = admin.get("/default/consumers?size=1").await?.expect(200)?;
    ensure!(
        page["next"]
            .as_str()
            .is_some_and(|next| next.starts_with("/consumers?")),
        "{page}"
    );
    let workspace = create(
        admin,
        "/workspaces",
        json!({"name": "team", "meta": {"color": "#fff"}}),
    )
    .await?;
    ensure!(
        workspace["meta"]["color"] == "#fff" && workspace.get("config").is_some(),
        "{workspace}"
    );
    create(admin, "/team/consumers", json!({"username": "eve"})).await?;
    let counts = admin.get("/workspaces/team/meta").await?.expect(200)?;
    assert_eq!(counts["counts"]["consumers"], 1);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_has_nested_paths_with_all_methods() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    create(admin, "/services", json!({"name": "s", "host": "h.test"})).await?;
    create(
        admin,
        "/services",
        json!({"name": "other", "host": "h.test"}),
    )
    .await?;
    create(
        admin,
        "/routes",
        json!({"name": "r", "paths": ["/"], "service": {"name": "s"}}),
    )
    .await?;
    create(admin, "/consumers", json!({"username": "c"})).await?;
    create(admin, "/consumer_groups", json!({"name": "g"})).await?;
    create(admin, "/upstreams", json!({"name": "u.test"})).await?;
    create(admin, "/key-sets", json!({"name": "ks"})).await?;
    for pair in PAIRS.lines().filter(|line| !line.is_empty()) {
        let parts: Vec<_> = pair.split(" |").map(str::trim).collect();
        let [path, entity, change, name] = parts[..] else {
            bail!("four parts: {pair}");
        };
        let (entity, change): (Value, Value) =
            (serde_json::from_str(entity)?, serde_json::from_str(change)?);
        let made = create(admin, path, entity.clone()).await?;
        let id = admin::id(&made)?;
        let listed = admin.get(path).await?.expect(200)?;
        ensure!(listed["data"].to_string().contains(id), "{path} {listed}");
        for key in [id, name].into_iter().filter(|key| !key.is_empty()) {
            let one = format!("{path}/{key}");
            assert_eq!(admin.get(&one).await?.expect(200)?["id"], *id, "{one}");
            let changed = admin.patch(&one, &change).await?.expect(200)?;
            ensure!(has(&changed, &change), "{one} {changed}");
        }
        let one = format!("{path}/{id}");
        let replaced = admin.put(&one, &entity).await?.expect(200)?;
        assert_eq!(replaced["id"], *id, "{one}");
        admin.delete(&one).await?.expect(204)?;
        admin.get(&one).await?.expect(404)?;
        admin.delete(&one).await?.expect(204)?;
    }
    // What belongs to another is not found here.
    for (path, status) in [
        ("/services/s/routes/r", 200),
        ("/services/other/routes/r", 404),
    ] {
        assert_eq!(admin.get(path).await?.status, status, "{path}");
    }
    let service = admin.get("/routes/r/service").await?.expect(200)?;
    assert_eq!(service["name"], "s");
    let changed = admin
        .patch("/routes/r/service", &json!({"retries": 1}))
        .await?;
    assert_eq!(changed.expect(200)?["retries"], 1);
    let known = admin.get("/plugins/enabled").await?.expect(200)?;
    assert_eq!(known["enabled_plugins"].as_array().map(Vec::len), Some(16));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_join_groups() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    for name in ["ada", "bob"] {
        create(admin, "/consumers", json!({"username": name})).await?;
    }
    for name in ["gold", "silver"] {
        create(admin, "/consumer_groups", json!({"name": name})).await?;
    }
    let added = create(
        admin,
        "/consumer_groups/gold/consumers",
        json!({"consumer": "ada"}),
    )
    .await?;
    assert_eq!(added["consumer_group"]["name"], "gold");
    assert_eq!(added["consumers"][0]["username"], "ada");
    // Once more is nothing new.
    create(
        admin,
        "/consumer_groups/gold/consumers",
        json!({"consumer": ["ada", "bob"]}),
    )
    .await?;
    create(
        admin,
        "/consumers/ada/consumer_groups",
        json!({"group": "silver"}),
    )
    .await?;
    let members = admin
        .get("/consumer_groups/gold/consumers")
        .await?
        .expect(200)?;
    assert_eq!(members["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(members["consumers"], members["data"]);
    let groups = admin
        .get("/consumers/ada/consumer_groups")
        .await?
        .expect(200)?;
    assert_eq!(groups["consumer_groups"].as_array().map(Vec::len), Some(2));
    create(
        admin,
        "/consumer_groups/gold/plugins",
        json!({"name": "cors"}),
    )
    .await?;
    let group = admin.get("/consumer_groups/gold").await?.expect(200)?;
    assert_eq!(group["consumer_group"]["name"], "gold");
    assert_eq!(group["consumers"].as_array().map(Vec::len), Some(2));
    assert_eq!(group["plugins"][0]["name"], "cors");
    let without = admin
        .get("/consumer_groups/gold?list_consumers=false")
        .await?
        .expect(200)?;
    ensure!(without.get("consumers").is_none(), "{without}");
    admin
        .delete("/consumer_groups/gold/consumers/bob")
        .await?
        .expect(204)?;
    admin
        .get("/consumer_groups/gold/consumers/bob")
        .await?
        .expect(404)?;
    admin
        .get("/consumer_groups/gold/consumers/ada")
        .await?
        .expect(200)?;
    // Memberships go with either.
    admin.delete("/consumers/ada").await?.expect(204)?;
    let members = admin
        .get("/consumer_groups/gold/consumers")
        .await?
        .expect(200)?;
    assert_eq!(members["data"], json!([]));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partials_say_which_plugins_they_are_part_of() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let config = json!({"host": "redis.test", "password": "s3cret"});
    let partial = json!({"name": "p", "type": "redis-ce", "config": config});
    let partial = create(admin, "/partials", partial).await?;
    let plugin = json!({"name": "rate-limiting", "config": {"minute": 1}, "partials": [{"id": partial["id"]}]});
    let plugin = create(admin, "/plugins", plugin).await?;
    let links = admin.get("/partials/p/links").await?.expect(200)?;
    assert_eq!(links["data"][0]["id"], plugin["id"]);
    assert_eq!(links["data"][0]["name"], "rate-limiting");
    let refused = admin.delete("/partials/p").await?.expect(400)?;
    assert_eq!(refused["fields"]["@referenced_by"], "plugins");
    admin
        .delete(&format!("/plugins/{}", admin::id(&plugin)?))
        .await?
        .expect(204)?;
    admin.delete("/partials/p").await?.expect(204)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_targets_health_is_an_event() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let config = json!({"url": cluster.receiver.url("/hook"), "ssl_verify": false});
    admin
        .create_hook(&admin::hook("balancer", "health", "webhook", config))
        .await?;
    let config = json!({"url": cluster.receiver.url("/crud"), "ssl_verify": false});
    admin
        .create_hook(&admin::hook("crud", "targets", "webhook", config))
        .await?;
    create(admin, "/upstreams", json!({"name": "u.test"})).await?;
    let target = create(
        admin,
        "/upstreams/u.test/targets",
        json!({"target": "10.0.0.1"}),
    )
    .await?;
    assert_eq!(target["target"], "10.0.0.1:8000");
    let health = async |path: &str| -> Result<Value> { admin.get(path).await?.expect(200) };
    let off = health("/upstreams/u.test/health").await?;
    assert_eq!(off["data"][0]["health"], "HEALTHCHECKS_OFF");
    ensure!(
        off["node_id"].as_str().is_some_and(|id| id.len() == 36),
        "{off}"
    );
    let checks = json!({"healthchecks": {"passive": {"unhealthy": {"http_failures": 3}}}});
    admin
        .patch("/upstreams/u.test", &checks)
        .await?
        .expect(200)?;
    assert_eq!(
        health("/upstreams/u.test/health").await?["data"][0]["health"],
        "HEALTHY"
    );
    let id = admin::id(&target)?;
    for path in [
        "10.0.0.1:8000/unhealthy",
        &format!("{id}/10.0.0.1:8000/unhealthy"),
    ] {
        let path = format!("/upstreams/u.test/targets/{path}");
        admin.post(&path, &Value::Null).await?.expect(204)?;
        admin.put(&path, &Value::Null).await?.expect(204)?;
    }
    let shown = health("/upstreams/u.test/health").await?;
    assert_eq!(shown["data"][0]["health"], "UNHEALTHY");
    assert_eq!(shown["data"][0]["data"]["weight"]["available"], 0);
    let whole = health("/upstreams/u.test/health?balancer_health=1").await?;
    assert_eq!(whole["data"]["health"], "UNHEALTHY");
    admin
        .get("/upstreams/u.test/targets/all")
        .await?
        .expect(200)?;
    admin
        .post("/upstreams/u.test/targets/10.0.0.9:1/healthy", &Value::Null)
        .await?
        .expect(404)?;
    // One event of its own kind for one change, and the mark is no field of the target.
    let events = cluster.receiver.wait_for("/hook", 1).await?;
    assert_eq!(
        events[0].json,
        json!({"source": "balancer", "event": "health", "upstream_id": target["upstream"]["id"],
               "ip": "10.0.0.1", "port": 8000, "hostname": "10.0.0.1", "health": "unhealthy"})
    );
    cluster.rest().await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 1);
    assert_eq!(cluster.receiver.events("/crud").len(), 1);
    let path = format!("/upstreams/u.test/targets/{id}");
    let shown = admin.get(&path).await?.expect(200)?;
    ensure!(shown.get("health").is_none(), "{shown}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_asks_for_no_more_than_a_node_does_quickly() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let many = |what: &str, count: usize| vec![what; count].join("/");
    let tags = admin
        .get(&format!("/consumers?tags={}", many("a", 51)))
        .await?;
    assert_eq!(
        tags.expect(400)?["message"],
        "invalid option (tags: at most 50 tags may be given)"
    );
    admin
        .get(&format!("/consumers?tags={}", many("a", 50)))
        .await?
        .expect(200)?;
    create(admin, "/consumer_groups", json!({"name": "g"})).await?;
    create(admin, "/consumers", json!({"username": "ada"})).await?;
    let same: Vec<_> = (0..1_000).map(|_| "ada").collect();
    let added = create(
        admin,
        "/consumer_groups/g/consumers",
        json!({"consumer": same}),
    )
    .await?;
    assert_eq!(added["consumers"].as_array().map(Vec::len), Some(1));
    let others: Vec<_> = (0..101).map(|n| format!("c{n}")).collect();
    let too_many = json!({"consumer": others});
    admin
        .post("/consumer_groups/g/consumers", &too_many)
        .await?
        .expect(400)?;
    let partial = json!({"name": "p", "type": "redis-ce", "config": {"host": "r.test"}});
    let partial = create(admin, "/partials", partial).await?;
    let partials: Vec<_> = (0..1_200).map(|_| json!({"id": partial["id"]})).collect();
    create(
        admin,
        "/plugins",
        json!({"name": "cors", "partials": partials}),
    )
    .await?;
    let ids: Vec<_> = (0..501)
        .map(|n| format!("0fd2319f-13ea-4582-a448-{n:012}"))
        .collect();
    let service = json!({"host": "h.test", "protocol": "https", "ca_certificates": ids});
    let refused = admin.post("/services", &service).await?.expect(400)?;
    assert_eq!(
        refused["message"],
        "an entity may refer to at most 500 others"
    );
    cluster.finish().await
}
