//! Secrets of hooks at rest: sealed in NATS, in no other place, opened by whoever has the key.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{Authority, Cluster, Leftovers, Result, SOON, Validity, admin, eventually};
use serde_json::{Value, json};

/// Parts of the hook's config that only its receiver may see.
const SECRETS: [&str; 5] = [
    "whsec_bWFya2VyMXNlY3JldC1vZi1hLWhvb2s=",
    "marker2token",
    "marker3user",
    "marker4password",
    "marker5query",
];

fn hook(cluster: &Cluster, path: &str) -> Value {
    let url = cluster.receiver.url(path);
    let url = url.replace("http://", "http://marker3user:marker4password@");
    let config = json!({
        "url": format!("{url}?key=marker5query"), "secret": SECRETS[0],
        "headers": { "authorization": "Bearer marker2token" },
    });
    admin::hook("crud", "consumers", "webhook", config)
}

fn new_key() -> Result<String> {
    let program = e2e::binaries::service("hookline-gateway")?;
    let output = std::process::Command::new(program)
        .arg("new-key")
        .output()?;
    ensure!(output.status.success());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Files under a folder that have a text in them.
pub(crate) fn files_with(dir: &Path, text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, text)?);
        } else {
            // Files of a running server come and go.
            let content = std::fs::read(&path).unwrap_or_default();
            let bytes = text.as_bytes();
            if content.windows(bytes.len()).any(|part| part == bytes) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
}

/// What is planted in a cluster, by what it is.
struct Planted(Vec<(&'static str, String)>);

impl Planted {
    /// In the services' settings, and of hooks.
    fn new(key: &str) -> Self {
        let of_hooks = [
            "a secret",
            "a header",
            "a URL's user",
            "its password",
            "its query",
        ];
        let of_hooks = of_hooks.into_iter().zip(SECRETS.map(str::to_owned));
        let mut planted: Vec<_> = of_hooks.collect();
        planted.extend([
            (
                "a key",
                key.split(':').next_back().unwrap_or_default().to_owned(),
            ),
            ("a vault's secret", "marker6vault".to_owned()),
            ("the first password", "marker7password".to_owned()),
            ("a chosen token", "marker8chosen".to_owned()),
            ("a password of an admin", "marker9password".to_owned()),
            (
                "a private key",
                "whsk_KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=".to_owned(),
            ),
        ]);
        Self(planted)
    }

    fn get(&self, what: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| *known == what);
        found.map_or("", |(_, secret)| secret)
    }

    /// Neither in files nor in what was said, by where it was said.
    fn are_in_nothing(&self, dir: &Path, said: &[(String, String)]) -> Result {
        for (what, secret) in &self.0 {
            assert_eq!(files_with(dir, secret)?, [""; 0], "{what}");
            // Responses show URLs and headers, as Kong's.
            let is_shown = SECRETS[1..].contains(&secret.as_str());
            let found = said.iter().find(|(place, text)| {
                text.contains(secret) && !(is_shown && place.starts_with("/event-hooks"))
            });
            assert_eq!(found.map(|(place, _)| place), None, "{what}");
        }
        Ok(())
    }

    fn add(&mut self, what: &'static str, shown: &Value) {
        let shown = shown.as_str().unwrap_or_default().to_owned();
        assert!(!shown.is_empty(), "{what}");
        self.0.push((what, shown));
    }
}

/// A certificate and its key.
fn pair() -> Result<(String, String)> {
    let dir = tempfile::tempdir()?;
    let (cert, key) = Authority::new(dir.path())?.issue("own", Validity::Valid)?;
    let (cert, key) = (std::fs::read(cert)?, std::fs::read(key)?);
    Ok((String::from_utf8(cert)?, String::from_utf8(key)?))
}

/// A certificate, and a hook that shows it.
async fn certificate(cluster: &Cluster, boss: &admin::Admin, planted: &mut Planted) -> Result {
    let (cert, key) = pair()?;
    let own = json!({ "cert": cert, "key": key });
    let made = boss.post("/certificates", &own).await?.expect(201)?;
    // One line of it, since texts end lines in different ways.
    planted.add("a certificate's key", &json!(key.lines().nth(2)));
    let url = cluster.receiver.url("/shown");
    let config = json!({ "url": url, "client_certificate": { "id": made["id"] } });
    boss.hook_consumers("webhook", config).await?;
    cluster.receiver.wait_for_ping("/shown").await?;
    Ok(())
}

/// An admin who was invited and has registered, and two users.
async fn tokens(boss: &admin::Admin, planted: &mut Planted) -> Result {
    let ada = json!({ "username": "ada" });
    let invited = boss.post("/admins", &ada).await?.expect(200)?;
    planted.add("a registration token", &invited["token"]);
    let password = planted.get("a password of an admin");
    let accept = json!({ "username": "ada", "token": invited["token"], "password": password });
    boss.post("/admins/register", &accept).await?.expect(201)?;
    let generated = boss.post("/rbac/users", &json!({ "name": "ci" })).await?;
    planted.add("a generated token", &generated.expect(201)?["user_token"]);
    let chosen = json!({ "name": "own", "user_token": planted.get("a chosen token") });
    boss.post("/rbac/users", &chosen).await?.expect(201)?;
    let used = boss.with_token(planted.get("a chosen token"));
    used.get("/consumers").await?.expect(403)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_in_no_file_metric_or_answer_and_reach_their_receiver() -> Result {
    let key = new_key()?;
    let mut planted = Planted::new(&key);
    let mut cluster = Cluster::builder()
        .gateways(2)
        .gateway_env("HOOKLINE_RBAC", "on")
        .gateway_env("KONG_PASSWORD", planted.get("the first password"))
        .gateway_env("HOOKLINE_KEYRING", &key)
        .dispatcher_env("HOOKLINE_KEYRING", &key)
        .dispatcher_env("HOOKLINE_VAULT_X", planted.get("a vault's secret"))
        .gateway_env("HOOKLINE_LOG", "debug")
        .dispatcher_env("HOOKLINE_LOG", "debug")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .start()
        .await?;
    let boss = cluster
        .admin()
        .with_token(planted.get("the first password"));
    tokens(&boss, &mut planted).await?;
    certificate(&cluster, &boss, &mut planted).await?;
    let created = boss.create_hook(&hook(&cluster, "/hook")).await?;
    let failing = boss.create_hook(&hook(&cluster, "/failing")).await?;
    let url = cluster.receiver.url("/signed");
    let config = json!({
        "url": url, "secret": planted.get("a private key"),
        "headers": { "x-vault": "{vault://env/x}" },
    });
    boss.hook_consumers("webhook", config).await?;
    for path in ["/hook", "/failing", "/signed"] {
        cluster.receiver.wait_for_ping(path).await?;
    }
    cluster.receiver.answer("/failing", &[500]);
    boss.create_consumer("ada").await?;
    let got = cluster.receiver.wait_for_one("/hook").await?;
    assert_eq!(got.header("authorization"), "Bearer marker2token");
    assert!(!got.header("webhook-signature").is_empty());
    let got = cluster.receiver.wait_for_one("/signed").await?;
    assert_eq!(got.header("x-vault"), planted.get("a vault's secret"));
    // A change by the other node keeps what it does not name; a secret that is replaced stays for a while.
    let path = format!("/event-hooks/{}", admin::id(&created)?);
    let change = json!({ "config": {
        "ssl_verify": false, "secret": "marker10next", "previous_secret_until": 4_000_000_000_u64,
    } });
    planted
        .0
        .push(("the next secret", "marker10next".to_owned()));
    let other = cluster.gateways[1]
        .admin()
        .with_token(planted.get("the first password"));
    other.patch(&path, &change).await?.expect(200)?;
    boss.create_consumer("grace").await?;
    let got = cluster.receiver.wait_for("/hook", 2).await?;
    assert_eq!(got[1].header("authorization"), "Bearer marker2token");
    let dead = Leftovers { dead: 2, parked: 0 };
    cluster.rest_leaving(dead).await?;
    let said = said(&cluster, &boss).await?;
    // Redis writes what it knows to a file in its folder.
    cluster.redis.ask("SAVE").await?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.stop().await?;
    }
    assert_eq!(planted.0.len(), 15);
    planted.are_in_nothing(cluster.dir(), &said)?;
    // The check itself finds what is there.
    let id = admin::id(&failing)?;
    ensure!(
        !files_with(cluster.dir(), id)?.is_empty(),
        "{id} is nowhere"
    );
    ensure!(
        said.iter().any(|(_, text)| text.contains(id)),
        "{id} is nowhere"
    );
    // The next processes open them.
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
    }
    cluster.ready().await?;
    boss.create_consumer("barbara").await?;
    let got = cluster.receiver.wait_for("/hook", 3).await?;
    assert_eq!(got[2].header("authorization"), "Bearer marker2token");
    cluster.finish_unchecked().await
}

/// What the Admin API answers to a super-admin, and the metrics of each service.
async fn said(cluster: &Cluster, boss: &admin::Admin) -> Result<Vec<(String, String)>> {
    let mut said = Vec::new();
    for path in [
        "/event-hooks",
        "/certificates",
        "/admins",
        "/rbac/users",
        "/rbac/roles",
        "/userinfo",
        "/audit/requests",
        "/consumers",
        "/dead-events",
        "/status",
    ] {
        said.push((path.to_owned(), boss.get(path).await?.body.to_string()));
    }
    for hook in boss.list("/event-hooks").await? {
        for more in ["", "/deliveries?state=dead", "/attempts", "/status"] {
            let path = format!("/event-hooks/{}{more}", admin::id(&hook)?);
            let shown = boss.get(&path).await?.body.to_string();
            // Only the hook itself shows what it has.
            let place = if more.is_empty() {
                path
            } else {
                format!("of{path}")
            };
            said.push((place, shown));
        }
    }
    for service in cluster.gateways.iter().chain(&cluster.dispatchers) {
        let name = service.process().name().to_owned();
        said.push((name, service.metrics().await?));
    }
    Ok(said)
}

/// Keys change under load, and no attempt fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyring_is_rotated_under_load() -> Result {
    let (old, new) = (new_key()?, new_key()?);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("keyring");
    std::fs::write(&file, format!("# of the test\n{old}\n"))?;
    let text = file.display().to_string();
    let mut cluster = Cluster::builder()
        .dispatchers(2)
        .gateway_env("HOOKLINE_KEYRING_FILE", &text)
        .dispatcher_env("HOOKLINE_KEYRING_FILE", &text)
        .start()
        .await?;
    for number in 0..20 {
        let hook = hook(&cluster, &format!("/hook/{number}"));
        cluster.admin().create_hook(&hook).await?;
    }
    let (going, client) = (
        Arc::new(AtomicBool::new(true)),
        cluster.nats.client().clone(),
    );
    let load = tokio::spawn({
        let going = Arc::clone(&going);
        async move {
            let mut sent = 0_usize;
            while going.load(Ordering::Relaxed) {
                let body = json!({ "n": sent }).to_string();
                let subject = e2e::wire::event("crud", "consumers");
                client.publish(subject, body.into()).await?;
                sent += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            client.flush().await?;
            Ok::<_, anyhow::Error>(sent)
        }
    });
    std::fs::write(&file, format!("{new}\n{old}\n"))?;
    let mut command = cluster.gateways[0]
        .process()
        .again("rotates", &["rotate-keys"]);
    command.start()?;
    let code = command.exit_code(SOON).await?;
    let log = command.log();
    ensure!(code == 0 && log.contains("all secrets are sealed"), "{log}");
    std::fs::write(&file, format!("{new}\n"))?;
    // Whoever starts from now on has the new key only.
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.stop().await?;
        dispatcher.start()?;
        dispatcher.ready().await?;
    }
    going.store(false, Ordering::Relaxed);
    let sent = load.await??;
    cluster.receiver.wait_for_total(sent * 20, SOON).await?;
    let failed = cluster.dispatchers_metric("hookline_attempts_total", &[("outcome", "retry")]);
    assert_eq!(failed.await?, 0.0);
    for number in 0..20 {
        let events = cluster.receiver.events(&format!("/hook/{number}"));
        let has = |event: &e2e::Request| event.header("authorization") == "Bearer marker2token";
        assert!(events.len() == sent && events.iter().all(has), "{number}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_key_nothing_starts_and_what_is_lost_can_be_dropped() -> Result {
    let (old, new) = (new_key()?, new_key()?);
    let mut cluster = Cluster::builder()
        .gateway_env("HOOKLINE_KEYRING", &old)
        .dispatcher_env("HOOKLINE_KEYRING", &old)
        .start()
        .await?;
    let created = cluster
        .admin()
        .create_hook(&hook(&cluster, "/hook"))
        .await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.stop().await?;
    }
    let name = old.split(':').next().context("a name")?.to_owned();
    for keyring in ["", new.as_str()] {
        for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
            if keyring.is_empty() {
                service.process_mut().remove_env("HOOKLINE_KEYRING");
            } else {
                service.set("HOOKLINE_KEYRING", keyring);
            }
            service.start()?;
            let code = service.process_mut().exit_code(SOON).await?;
            let log = service.process().log();
            let says = log.contains(&name) && log.contains("HOOKLINE_KEYRING");
            ensure!(code != 0 && says, "{code}: {log}");
            ensure!(!log.contains(old.split(':').next_back().unwrap_or_default()));
        }
    }
    // Recovery.
    let rotate = |name: &str, args: &[&str]| cluster.gateways[0].process().again(name, args);
    let mut kept = rotate("keeps", &["rotate-keys"]);
    kept.start()?;
    let code = kept.exit_code(SOON).await?;
    ensure!(
        code != 0 && kept.log().contains("--drop-lost"),
        "{}",
        kept.log()
    );
    let mut drops = rotate("drops", &["rotate-keys", "--drop-lost"]);
    drops.start()?;
    ensure!(drops.exit_code(SOON).await? == 0, "{}", drops.log());
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
    }
    cluster.ready().await?;
    let path = format!("/event-hooks/{}", admin::id(&created)?);
    let found = cluster.admin().get(&path).await?.expect(200)?;
    assert_eq!(found["delivery"]["paused"], true);
    assert_eq!(found["config"]["headers"], json!({}));
    let again = json!({
        "config": { "url": cluster.receiver.url("/hook") }, "delivery": { "paused": false },
    });
    cluster.admin().patch(&path, &again).await?.expect(200)?;
    cluster.control("/hook").await?;
    cluster.finish().await
}

/// A node that still seals with the old key while all hooks are sealed anew is found by a second look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_finds_what_a_node_seals_with_the_old_key_meanwhile() -> Result {
    let (old, new) = (new_key()?, new_key()?);
    let both = format!("{old},{new}");
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_KEYRING", &both)
        .dispatcher_env("HOOKLINE_KEYRING", &both)
        .start()
        .await?;
    let created = cluster
        .admin()
        .create_hook(&hook(&cluster, "/hook"))
        .await?;
    let mut command = cluster.gateways[0]
        .process()
        .again("rotates", &["rotate-keys"]);
    command.set_env("HOOKLINE_KEYRING", format!("{new},{old}"));
    command.start()?;
    eventually(SOON, "all are sealed for the first time", async || {
        ensure!(command.log().contains("looking once more"), "not yet");
        Ok(())
    })
    .await?;
    let path = format!("/event-hooks/{}", admin::id(&created)?);
    let change = json!({ "config": { "ssl_verify": false } });
    cluster.admin().patch(&path, &change).await?.expect(200)?;
    ensure!(command.exit_code(SOON).await? == 0, "{}", command.log());
    let name = new.split(':').next().context("a name")?.to_owned();
    let bucket = cluster.nats.messages(e2e::wire::BUCKET).await?;
    let stored = bucket.iter().rev().find_map(|message| {
        let stored: Value = serde_json::from_slice(&message.payload).ok()?;
        (stored["id"] == created["id"]).then_some(stored)
    });
    let sealed = stored.context("the hook")?["sealed"].clone();
    let sealed = sealed.as_str().context("it is sealed")?;
    ensure!(sealed.starts_with(&format!("v1.{name}.")), "{sealed}");
    cluster.finish().await
}

/// A keyring that comes later opens what was stored before, and a rotation seals it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_without_a_keyring_is_sealed_by_a_rotation() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster
        .admin()
        .create_hook(&hook(&cluster, "/hook"))
        .await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let mut planted = Planted(Vec::new());
    let boss = cluster.admin().clone();
    certificate(&cluster, &boss, &mut planted).await?;
    let of_certificate = planted.get("a certificate's key").to_owned();
    let key = new_key()?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.stop().await?;
        service.set("HOOKLINE_KEYRING", &key);
        service.start()?;
    }
    cluster.ready().await?;
    let sealed = async || {
        let bucket = cluster.nats.messages(e2e::wire::BUCKET).await?;
        let is_plain = |secret: &str| {
            let mut bodies = bucket.iter().map(|message| &message.payload);
            bodies.any(|body| String::from_utf8_lossy(body).contains(secret))
        };
        let mut secrets = SECRETS.into_iter().chain([of_certificate.as_str()]);
        Ok::<_, anyhow::Error>(!secrets.any(is_plain))
    };
    ensure!(!sealed().await?, "it was sealed before");
    let mut command = cluster.gateways[0]
        .process()
        .again("rotates", &["rotate-keys"]);
    command.start()?;
    ensure!(command.exit_code(SOON).await? == 0, "{}", command.log());
    eventually(SOON, "it is sealed", async || {
        ensure!(sealed().await?);
        Ok(())
    })
    .await?;
    cluster.control("/hook").await?;
    // With another keyring its key is lost, like the hook's secrets, and may be given again.
    let shown = boss.list("/certificates").await?;
    let path = format!("/certificates/{}", admin::id(&shown[0])?);
    let another = new_key()?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.stop().await?;
        service.set("HOOKLINE_KEYRING", &another);
    }
    let mut command = cluster.gateways[0]
        .process()
        .again("drops", &["rotate-keys", "--drop-lost"]);
    command.start()?;
    ensure!(command.exit_code(SOON).await? == 0, "{}", command.log());
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
    }
    cluster.ready().await?;
    let without = boss.patch(&path, &json!({ "tags": ["a"] })).await?;
    without.expect(400)?;
    let (cert, key) = pair()?;
    let again = json!({ "cert": cert, "key": key });
    boss.patch(&path, &again).await?.expect(200)?;
    cluster.finish().await
}

/// References are replaced by the dispatcher, for hooks of the workspace that a variable is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_to_a_vault_are_replaced_on_the_way_to_the_receiver() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let url = cluster.receiver.url("/of-vault");
    cluster.dispatchers[0].set("HOOKLINE_VAULT_MY_URL", &url);
    cluster.dispatchers[0].set("HOOKLINE_VAULT_MY_TOKEN", "Bearer marker2token");
    cluster.start().await?;
    let admin = cluster.admin();
    let headers = json!({ "authorization": "{vault://env/my-token}" });
    let config = json!({ "url": "{vault://env/my-url}", "headers": headers });
    let made = admin.hook_consumers("webhook", config).await?;
    assert_eq!(made["config"]["url"], "{vault://env/my-url}");
    cluster.control("/of-vault").await?;
    let got = cluster.receiver.controls("/of-vault");
    assert_eq!(got[0].header("authorization"), "Bearer marker2token");
    // Another workspace has variables of its own.
    admin
        .post("/workspaces", &json!({ "name": "team" }))
        .await?
        .expect(201)?;
    let config = json!({ "url": cluster.receiver.url("/team"), "headers": headers });
    let stolen = admin::hook("crud", "consumers", "webhook", config);
    admin
        .post("/team/event-hooks", &stolen)
        .await?
        .expect(201)?;
    let ada = json!({ "username": "ada" });
    admin.post("/team/consumers", &ada).await?.expect(201)?;
    cluster.receiver.wait_for("/of-vault", 1).await?;
    eventually(SOON, "it is said", async || {
        let log = cluster.dispatchers[0].process().log();
        ensure!(log.contains("no HOOKLINE_VAULT_TEAM__MY_TOKEN"), "not yet");
        Ok(())
    })
    .await?;
    assert_eq!(cluster.receiver.requests("/team").len(), 0);
    // Its delivery waits for the variable.
    cluster.dispatchers[0].stop().await?;
    cluster.dispatchers[0].set("HOOKLINE_VAULT_TEAM__MY_TOKEN", "of the team");
    cluster.dispatchers[0].start()?;
    cluster.ready().await?;
    let got = cluster.receiver.wait_for("/team", 1).await?;
    assert_eq!(got[0].header("authorization"), "of the team");
    for wrong in ["{vault://env/}", "{vault://aws/x}", "{vault://env/a__b}"] {
        let config = json!({ "url": wrong });
        let hook = admin::hook("crud", "consumers", "webhook", config);
        let admin = cluster.admin();
        admin.post("/event-hooks", &hook).await?.expect(400)?;
    }
    cluster.finish_unchecked().await
}
