//! Connections that are closed to others: the Admin API, NATS and Redis over TLS, with certificates of clients, and all ways
//! in which NATS lets clients in.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use e2e::process::Process;
use e2e::{
    Admin, Authority, Cluster, Result, SOON, Service, Validity, binaries, eventually, ports,
};
use nkeys::KeyPair;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_over_tls_from_those_with_a_certificate() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let authority = Authority::new(cluster.dir())?;
    let server = authority.issue("server", Validity::Valid)?;
    let client = authority.issue("client", Validity::Valid)?;
    let authority_file = authority.file().to_owned();
    for (name, file) in [
        ("CERT", &server.0),
        ("KEY", &server.1),
        ("CA", &authority_file),
    ] {
        let name = format!("HOOKLINE_INGEST_TLS_{name}");
        cluster.gateways[0].set(&name, &file.display().to_string());
    }
    cluster.start().await?;
    let plain = Admin::new(cluster.gateways[0].ingest())?;
    let path = "/events/s/e";
    let answer = plain
        .over_tls(&authority, Some(&client))?
        .post(path, &json!({}))
        .await?;
    ensure!(answer.status == 401, "{answer:?}");
    let without = plain
        .over_tls(&authority, None)?
        .post(path, &json!({}))
        .await;
    ensure!(without.is_err(), "without a certificate: {without:?}");
    ensure!(plain.post(path, &json!({})).await.is_err(), "without TLS");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_takes_a_changed_certificate_without_a_restart() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let dir = cluster.dir().to_owned();
    let [old, new] = ["old", "new"].map(|name| dir.join(name));
    for place in [&old, &new] {
        std::fs::create_dir(place)?;
    }
    let (old, new) = (Authority::new(&old)?, Authority::new(&new)?);
    let server = old.issue("server", Validity::Valid)?;
    cluster.gateways[0].serve_tls(&old, &server, None)?;
    cluster.start().await?;
    let by_old = cluster.admin().clone();
    let by_new = by_old.over_tls(&new, None)?;
    by_old.create_consumer("ada").await?;
    ensure!(
        by_new.get("/consumers").await.is_err(),
        "of another authority"
    );
    // Half a change, and one that cannot be used, leave the last certificate in place.
    let (certificate, key) = new.issue("server", Validity::Valid)?;
    std::fs::copy(&certificate, &server.0)?;
    eventually(SOON, "it is said", async || {
        let log = cluster.gateways[0].process().log();
        ensure!(
            log.contains("cannot take the changed certificate"),
            "not yet"
        );
        Ok(())
    })
    .await?;
    by_old.get("/consumers").await?.expect(200)?;
    std::fs::copy(&key, &server.1)?;
    eventually(SOON, "the new certificate is served", async || {
        by_new.get("/consumers").await?.expect(200)?;
        Ok(())
    })
    .await?;
    ensure!(
        by_old.get("/consumers").await.is_err(),
        "the old one still is"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_may_want_certificates_of_clients() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let dir = cluster.dir().join("certificates");
    std::fs::create_dir(&dir)?;
    let authority = Authority::new(&dir)?;
    let server = authority.issue("server", Validity::Valid)?;
    let client = authority.issue("client", Validity::Valid)?;
    let expired = authority.issue("expired", Validity::Expired)?;
    let file = authority.file().display().to_string();
    cluster.gateways[0].set("HOOKLINE_ADMIN_TLS_CA", &file);
    cluster.gateways[0].serve_tls(&authority, &server, Some(&client))?;
    cluster.start().await?;
    cluster.admin().create_consumer("ada").await?;
    for other in [None, Some(&expired)] {
        let other = cluster.admin().over_tls(&authority, other)?;
        ensure!(other.get("/consumers").await.is_err(), "let in");
    }
    // The status port has no TLS.
    ensure!(cluster.gateways[0].status_of("/readyz").await? == 200);
    cluster.finish().await
}

/// A nats-server with JetStream and these lines of configuration.
struct Nats {
    process: Process,
    port: u16,
}

impl Nats {
    fn start(dir: &Path, lines: &str) -> Result<Self> {
        let port = ports::free()?;
        let config = dir.join(format!("nats-{port}.conf"));
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n{lines}\n",
            dir.join(format!("nats-{port}")).display()
        );
        std::fs::write(&config, text)?;
        let server = binaries::server("nats-server")?;
        let mut process = Process::new(&format!("nats-{port}"), server, dir)
            .args(["-c".to_owned(), config.display().to_string()]);
        process.start()?;
        Ok(Self { process, port })
    }
}

fn gateway(dir: &Path, url: &str, env: &[(&str, &str)]) -> Result<Service> {
    let name = format!("gateway-{}", ports::free()?);
    let mut gateway = Service::gateway(&name, dir, url)?;
    for (name, value) in env {
        gateway.set(name, value);
    }
    gateway.start()?;
    Ok(gateway)
}

/// A user in the URL, settings, and what is said of them.
type Wrong<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// A gateway with this URL and settings gets ready; with the others it says what is wrong.
async fn lets_in(
    dir: &Path,
    nats: &Nats,
    (user, env): (&str, &[(&str, &str)]),
    wrong: &[Wrong<'_>],
) -> Result {
    let url = |user: &str| format!("nats://{user}localhost:{}", nats.port);
    let mut right = gateway(dir, &url(user), env)?;
    let ready = right.ready().await;
    ready.with_context(|| format!("{}\n{}", right.process().log(), nats.process.log()))?;
    right.admin().create_consumer("ada").await?;
    right.stop().await?;
    for (user, env, says) in wrong {
        let gateway = gateway(dir, &url(user), env)?;
        eventually(SOON, &format!("{says:?} is said"), async || {
            let log = gateway.process().log();
            ensure!(log.contains(says), "{log}");
            Ok(())
        })
        .await?;
        let log = gateway.process().log();
        ensure!(!log.contains("s3cret"), "{log}");
    }
    Ok(())
}

fn file(dir: &Path, name: &str, text: &str) -> Result<String> {
    let file = dir.join(name);
    std::fs::write(&file, text)?;
    Ok(file.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_lets_in_by_token_and_by_nkey() -> Result {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let nats = Nats::start(dir, "authorization { token: \"s3cret-token\" }")?;
    lets_in(
        dir,
        &nats,
        ("s3cret-token@", &[]),
        &[
            ("", &[], "NATS refused the credentials"),
            ("s3cret-other@", &[], "NATS refused the credentials"),
        ],
    )
    .await?;
    drop(nats.process);

    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let lines = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}",
        user.public_key()
    );
    let nats = Nats::start(dir, &lines)?;
    let seed = file(dir, "user.nk", &format!("{}\n", user.seed()?))?;
    let wrong = file(dir, "other.nk", &other.seed()?)?;
    let account = file(dir, "account.nk", &KeyPair::new_account().public_key())?;
    let nkey = "HOOKLINE_NATS_NKEY";
    lets_in(
        dir,
        &nats,
        ("", &[(nkey, &seed)]),
        &[
            ("", &[(nkey, &wrong)], "NATS refused the credentials"),
            ("", &[(nkey, &account)], "holds no seed of a user"),
            ("", &[(nkey, "/nowhere.nk")], "/nowhere.nk"),
            ("a:s3cret@", &[(nkey, &seed)], "give one of"),
        ],
    )
    .await
}

/// A JWT as NATS' operators, accounts and users have them.
fn jwt(issuer: &KeyPair, subject: &str, name: &str, claims: Value) -> Result<String> {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let body = json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name,
        "sub": subject, "nats": claims,
    });
    let signed = format!("{}.{}", encode(&head), encode(&body));
    let signature = issuer.sign(signed.as_bytes())?;
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
    Ok(format!("{signed}.{signature}"))
}

fn credentials(jwt: &str, seed: &str) -> String {
    let part = |what: &str, text: &str| {
        format!("-----BEGIN {what}-----\n{text}\n------END {what}------\n\n")
    };
    part("NATS USER JWT", jwt) + &part("USER NKEY SEED", seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_lets_in_by_a_credentials_file() -> Result {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let (operator, account, user) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    );
    let of_operator = json!({ "type": "operator", "version": 2 });
    let operator_jwt = jwt(&operator, &operator.public_key(), "operator", of_operator)?;
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
        "consumer": -1,
    });
    let of_account = json!({ "type": "account", "version": 2, "limits": unlimited });
    let account_jwt = jwt(&operator, &account.public_key(), "account", of_account)?;
    let system = KeyPair::new_account().public_key();
    let system_jwt = jwt(
        &operator,
        &system,
        "system",
        json!({ "type": "account", "version": 2 }),
    )?;
    let of_user = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let user_jwt = jwt(&account, &user.public_key(), "user", of_user.clone())?;
    let forged = jwt(&KeyPair::new_account(), &user.public_key(), "user", of_user)?;
    let lines = format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nsystem_account: {system}\n\
         resolver_preload: {{ {system}: {system_jwt}, {}: {account_jwt} }}",
        account.public_key()
    );
    let nats = Nats::start(dir, &lines)?;
    let right = file(dir, "user.creds", &credentials(&user_jwt, &user.seed()?))?;
    let forged = file(dir, "forged.creds", &credentials(&forged, &user.seed()?))?;
    let junk = file(dir, "junk.creds", "nothing")?;
    let creds = "HOOKLINE_NATS_CREDENTIALS";
    lets_in(
        dir,
        &nats,
        ("", &[(creds, &right)]),
        &[
            ("", &[], "NATS refused the credentials"),
            ("", &[(creds, &forged)], "NATS refused the credentials"),
            ("", &[(creds, &junk)], "junk.creds"),
            ("", &[(creds, "/nowhere.creds")], "/nowhere.creds"),
        ],
    )
    .await
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_lets_in_by_a_certificate() -> Result {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let authority = Authority::new(dir)?;
    let (certificate, key) = authority.issue("server", Validity::Valid)?;
    let lines = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        text(&certificate),
        text(&key),
        authority.file().display()
    );
    let nats = Nats::start(dir, &lines)?;
    let (certificate, key) = authority.issue("client", Validity::Valid)?;
    let (certificate, key) = (text(&certificate), text(&key));
    let junk = file(dir, "junk.pem", "s3cret")?;
    let authority = authority.file().display().to_string();
    let (ca, cert, pem_key) = (
        ("HOOKLINE_NATS_TLS_CA", authority.as_str()),
        ("HOOKLINE_NATS_TLS_CERT", certificate.as_str()),
        ("HOOKLINE_NATS_TLS_KEY", key.as_str()),
    );
    lets_in(
        dir,
        &nats,
        ("", &[ca, cert, pem_key]),
        &[
            ("", &[], "certificate"),
            ("", &[ca], "NATS is not reachable"),
            ("", &[ca, cert], "belong together"),
            (
                "",
                &[("HOOKLINE_NATS_TLS_CA", &junk)],
                "holds no certificate",
            ),
            (
                "",
                &[ca, cert, ("HOOKLINE_NATS_TLS_KEY", &junk)],
                "holds no private key",
            ),
            (
                "",
                &[("HOOKLINE_NATS_TLS_CA", "/nowhere.pem")],
                "/nowhere.pem",
            ),
        ],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_lets_in_by_a_certificate() -> Result {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let (certificate, key) = authority.issue("client", Validity::Valid)?;
    let mut cluster = Cluster::builder().prepare().await?;
    let front = authority.front_for_clients(cluster.redis.port()).await?;
    let url = format!("rediss://localhost:{}", front.port());
    let dispatcher = &mut cluster.dispatchers[0];
    dispatcher.set("HOOKLINE_REDIS_URL", &url);
    dispatcher.set(
        "HOOKLINE_REDIS_TLS_CA",
        &authority.file().display().to_string(),
    );
    dispatcher.set("HOOKLINE_REDIS_TLS_CERT", &text(&certificate));
    dispatcher.set("HOOKLINE_REDIS_TLS_KEY", &text(&key));
    cluster.start().await?;
    cluster.webhook("/hook").await?;
    cluster.control("/hook").await?;
    let skipped = "hookline_deliveries_unguarded_total";
    assert_eq!(cluster.dispatchers_metric(skipped, &[]).await?, 0.0);
    // Without its certificate it goes on without Redis.
    let stranger = cluster.add_dispatcher()?;
    stranger.set("HOOKLINE_REDIS_URL", &url);
    stranger.set(
        "HOOKLINE_REDIS_TLS_CA",
        &authority.file().display().to_string(),
    );
    stranger.start()?;
    eventually(SOON, "it goes on without Redis", async || {
        let stranger = &cluster.dispatchers[1];
        ensure!(stranger.status_of("/readyz").await? == 200, "not ready");
        let connected = stranger.metric("hookline_redis_connected", &[]).await?;
        ensure!(connected == 0.0, "it is let in");
        Ok(())
    })
    .await?;
    let connected = cluster.dispatchers[0].metric("hookline_redis_connected", &[]);
    assert_eq!(connected.await?, 1.0);
    // Certificates without TLS are a mistake.
    let plain = cluster.redis.url();
    let refused = cluster.add_dispatcher()?;
    refused.set("HOOKLINE_REDIS_URL", &plain);
    refused.set(
        "HOOKLINE_REDIS_TLS_CA",
        &authority.file().display().to_string(),
    );
    refused.start()?;
    let code = refused
        .process_mut()
        .exit_code(Duration::from_secs(20))
        .await?;
    let log = refused.process().log();
    ensure!(code != 0 && log.contains("rediss"), "{code}: {log}");
    let last = cluster
        .dispatchers
        .pop()
        .context("the one that was refused")?;
    drop(last);
    cluster.finish().await
}
