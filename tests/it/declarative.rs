//! `GET` and `POST /config`: a workspace as one document.

use anyhow::{Context as _, ensure};
use e2e::tls::{Authority, Validity};
use e2e::{Admin, Cluster, Result};
use serde_json::{Value, json};

const YAML: &str = "application/yaml";

async fn apply(admin: &Admin, path: &str, document: &str) -> Result<Value> {
    let answer = admin.post_raw(path, YAML, document.into()).await?;
    let expected = if path.contains("dry_run") { 200 } else { 201 };
    answer.expect(expected)
}

async fn export(admin: &Admin) -> Result<Value> {
    admin.get("/config?format=json").await?.expect(200)
}

/// How much a document would change, as `create update delete`.
fn changes(answer: &Value) -> [u64; 3] {
    ["create", "update", "delete"].map(|name| answer["summary"][name].as_u64().unwrap_or(u64::MAX))
}

const WHOLE: &str = r#"
_format_version: "3.0"
services:
- name: orders
  url: http://orders.test/v1
  tags: [shop]
  routes:
  - name: orders
    paths: [/orders]
    plugins:
    - name: rate-limiting-advanced
      config: {limit: [5], window_size: [60]}
consumers:
- username: ada
  groups:
  - name: gold
  keyauth_credentials:
  - key: secret-of-ada
  basicauth_credentials:
  - username: ada
    password: lovelace
  acls:
  - group: staff
  hmacauth_credentials:
  - username: ada
  oauth2_credentials:
  - {name: o, client_id: c, client_secret: once-shown, hash_secret: true}
consumer_groups:
- name: gold
upstreams:
- name: orders.test
  targets:
  - target: 10.0.0.1:80
  - target: 10.0.0.2:80
    weight: 0
plugins:
- name: cors
  service: orders
vaults:
- name: env
  prefix: my-env
  config: {prefix: MY_}
event_hooks:
- source: crud
  event: consumers
  handler: log
  config: {}
- source: balancer
  event: health
  handler: webhook
  config: {url: "http://127.0.0.1:9/", secret: signs-it}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_document_twice_changes_nothing() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let dry = apply(admin, "/config?dry_run=true", WHOLE).await?;
    assert_eq!(changes(&dry), [18, 0, 0], "{dry}");
    ensure!(dry.to_string().contains("\"path\":\"/v1\""), "{dry}");
    ensure!(!dry.to_string().contains("signs-it"), "{dry}");
    ensure!(admin.list("/services").await?.is_empty());
    let done = apply(admin, "/config", WHOLE).await?;
    assert_eq!(changes(&done), [18, 0, 0]);
    let before = export(admin).await?;
    ensure!(!before.to_string().contains("once-shown"), "{before}");
    for path in ["/config", "/config?dry_run=true"] {
        let again = apply(admin, path, WHOLE).await?;
        assert_eq!(changes(&again), [0, 0, 0], "{again}");
    }
    assert_eq!(export(admin).await?, before);
    // A change of one field is one update of it, and what is left out is gone.
    let changed = WHOLE
        .replace("weight: 0", "weight: 7")
        .replace("  tags: [shop]\n", "");
    let changed = changed.replace("  acls:\n  - group: staff\n", "");
    let dry = apply(admin, "/config?dry_run=true", &changed).await?;
    assert_eq!(changes(&dry), [0, 2, 1], "{dry}");
    let list = dry["difference"].as_array().context("a list")?;
    let of = |kind: &str| {
        list.iter()
            .find(|one| one["kind"] == kind)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(
        of("targets")["changes"],
        json!({"weight": {"from": 0, "to": 7}})
    );
    assert_eq!(
        of("services")["changes"],
        json!({"tags": {"from": ["shop"], "to": null}})
    );
    assert_eq!(of("acls")["operation"], "delete");
    apply(admin, "/config", &changed).await?;
    let again = apply(admin, "/config", &changed).await?;
    assert_eq!(changes(&again), [0, 0, 0], "{again}");
    // A document that says nothing of hooks leaves them.
    apply(admin, "/config", "_format_version: '3.0'").await?;
    assert_eq!(admin.list("/event-hooks").await?.len(), 2);
    ensure!(admin.list("/services").await?.is_empty());
    apply(admin, "/config", "_format_version: '3.0'\nevent_hooks: []").await?;
    ensure!(admin.list("/event-hooks").await?.is_empty());
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_imports_to_the_same() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_SHOW_PRIVATE_KEYS", "true")
        .start()
        .await?;
    let admin = cluster.admin();
    let whole = WHOLE.replace(", secret: signs-it", "");
    apply(admin, "/config", &whole).await?;
    let authority = Authority::new(cluster.dir())?;
    let (chain, key) = authority.issue("localhost", Validity::Valid)?;
    let [chain, key] = [chain, key].map(std::fs::read_to_string);
    let certificate = json!({"cert": chain?, "key": key?, "snis": ["a.test", "b.test"]});
    admin
        .post("/certificates", &certificate)
        .await?
        .expect(201)?;
    let jwk = json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0"}).to_string();
    admin
        .post("/keys", &json!({"name": "k", "kid": "k", "jwk": jwk}))
        .await?
        .expect(201)?;
    let exported = export(admin).await?;
    // In each form that it can have.
    let yaml = admin.get("/config").await?.expect(200)?;
    let yaml = yaml["config"].as_str().context("YAML")?.to_owned();
    let nothing = "_format_version: '3.0'\nevent_hooks: []";
    for round in 0..3 {
        let answer = match round {
            0 => admin.post("/config?dry_run=true", &exported).await?,
            1 => {
                admin
                    .post("/config?dry_run=true", &json!({"config": yaml}))
                    .await?
            }
            _ => {
                admin
                    .post_multipart("/config?dry_run=true", &[("config", &yaml)])
                    .await?
            }
        };
        assert_eq!(changes(&answer.expect(200)?), [0, 0, 0], "{round}");
    }
    apply(admin, "/config", nothing).await?;
    ensure!(
        export(admin)
            .await?
            .as_object()
            .is_some_and(|all| all.len() == 3)
    );
    apply(admin, "/config", &yaml).await?;
    let again = export(admin).await?;
    let (mut was, mut is) = (exported, again);
    for document in [&mut was, &mut is] {
        sort(document);
    }
    assert_eq!(is, was);
    // Passwords were not hidden twice.
    let basic = admin
        .get("/consumers/ada/basic-auth/ada")
        .await?
        .expect(200)?;
    ensure!(
        was.to_string()
            .contains(basic["password"].as_str().context("a text")?)
    );
    cluster.finish_unchecked().await
}

/// Those of one second are in no order, and a change of a document is one of now.
fn sort(document: &mut Value) {
    for list in document
        .as_object_mut()
        .into_iter()
        .flat_map(|all| all.values_mut())
    {
        let Some(list) = list.as_array_mut() else {
            continue;
        };
        list.sort_by_key(|one| one["id"].to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_name_is_known_again() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let document = "_format_version: '3.0'\nservices:\n- url: http://a.test/x\n- url: http://a.test/x\n\
        routes:\n- {methods: [GET, GET]}\n- {methods: [PUT], tags: [t]}\n\
        consumers:\n- username: ada\n  keyauth_credentials:\n  - tags: [t]\n  - {}\n\
        upstreams:\n- name: u.test\n  targets:\n  - target: 10.0.0.1\n\
        consumer_groups:\n- name: g\n  consumers: [ada]\n\
        partials:\n- {name: p, type: redis-ce, config: {host: r.test}}\n\
        plugins:\n- {name: rate-limiting, config: {minute: 1}, partials: [{name: p}]}\n\
        event_hooks:\n- {source: crud, event: routes, handler: log, config: {}}\n\
        - {source: crud, event: routes, handler: log, config: {}, snooze: 5}";
    assert_eq!(
        changes(&apply(admin, "/config", document).await?),
        [15, 0, 0]
    );
    let mark = "/upstreams/u.test/targets/10.0.0.1:8000/unhealthy";
    admin.post(mark, &Value::Null).await?.expect(204)?;
    let before = export(admin).await?;
    assert_eq!(
        changes(&apply(admin, "/config", document).await?),
        [0, 0, 0]
    );
    assert_eq!(export(admin).await?, before);
    // The hook that is snoozed stays the one that is.
    let other = document.replace("snooze: 5", "snooze: 6");
    let dry = apply(admin, "/config?dry_run=true", &other).await?;
    assert_eq!(changes(&dry), [0, 1, 0]);
    assert_eq!(
        dry["difference"][0]["changes"]["snooze"],
        json!({"from": 5, "to": 6})
    );
    let wrong = document.replace("consumers: [ada]", "consumers: ada");
    admin
        .post_raw("/config", YAML, wrong.into())
        .await?
        .expect(400)?;
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_document_changes_nothing_and_says_where() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    apply(admin, "/config", WHOLE).await?;
    let before = export(admin).await?;
    for (document, says) in [
        ("", "expected an object"),
        ("services: []", "_format_version: required field missing"),
        (
            "_format_version: '3.0'\nservices:\n- name: a b",
            "services.1.host: required field missing",
        ),
        (
            "_format_version: '3.0'\nroutes:\n- paths: [/]\n  service: nobody",
            "routes.1.service: there is no 'services' named 'nobody'",
        ),
        (
            "_format_version: '3.0'\nconsumers:\n- username: a\n- username: a",
            "consumers.2.username: consumers[0] has the same",
        ),
        (
            "_format_version: '3.0'\nadmins: []",
            "admins: unknown field",
        ),
        (
            "_format_version: '3.0'\nevent_hooks:\n- source: crud\n  handler: webhook\n  config: {}",
            "event_hooks.1.config.url: required field missing",
        ),
        (
            "_format_version: '3.0'\nevent_hooks:\n- {source: crud, handler: webhook, config: {url: 'http://a.test', secret: '[redacted]'}}",
            "there is no stored value to keep",
        ),
        (
            "_format_version: '3.0'\nplugins:\n- name: cors\n  consumer: ada",
            "plugins.1.consumer: the document has no 'consumers' with the id",
        ),
        ("a: [", "failed parsing declarative configuration: line 1"),
    ] {
        let answer = admin.post_raw("/config", YAML, document.into()).await?;
        let error = answer.expect(400)?;
        assert_eq!(error["code"], 14, "{error}");
        let message = error["message"].as_str().unwrap_or_default();
        ensure!(message.contains(says), "{document}: {message}");
    }
    admin
        .post_raw("/consumers", YAML, "username: x".into())
        .await?
        .expect(415)?;
    assert_eq!(export(admin).await?, before);
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_of_one_workspace_and_several_are_applied_in_turn() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    admin
        .post("/workspaces", &json!({"name": "team"}))
        .await?
        .expect(201)?;
    admin.create_consumer("ada").await?;
    let of_team = "_format_version: '3.0'\nconsumers:\n- username: eve\nevent_hooks:\n- source: crud\n  handler: log\n  config: {}";
    apply(admin, "/team/config", of_team).await?;
    assert_eq!(admin.list("/team/consumers").await?.len(), 1);
    assert_eq!(admin.list("/team/event-hooks").await?.len(), 1);
    assert_eq!(admin.list("/consumers").await?.len(), 1);
    // Who has the name of somebody else is told so, before anything changes.
    let id = "0fd2319f-13ea-4582-a448-8d11893026a8";
    let other = format!("_format_version: '3.0'\nconsumers:\n- username: eve\n  id: {id}");
    let refused = admin.post_raw("/team/config", YAML, other.into()).await?;
    let refused = refused.expect(400)?;
    let says = refused["fields"]["consumers"][0]["username"].to_string();
    ensure!(says.contains("has it: give that id, or none"), "{refused}");
    // A large one is applied whole.
    let names: String = (0..2_000).map(|n| format!("- username: u{n}\n")).collect();
    let large = format!("_format_version: '3.0'\nconsumers:\n{names}");
    assert_eq!(
        changes(&apply(admin, "/team/config", &large).await?)[0],
        2_000
    );
    assert_eq!(
        changes(&apply(admin, "/team/config", &large).await?),
        [0, 0, 0]
    );
    // Several at once become what the last of them says.
    let names = ["ada", "bob", "cleo", "dora"];
    let documents =
        names.map(|name| format!("_format_version: '3.0'\nconsumers:\n- username: {name}"));
    let posts = documents
        .iter()
        .map(|document| admin.post_raw("/team/config", YAML, document.clone().into()));
    for answer in futures::future::try_join_all(posts).await? {
        answer.expect(201)?;
    }
    assert_eq!(admin.list("/team/consumers").await?.len(), 1);
    cluster.finish_unchecked().await
}
