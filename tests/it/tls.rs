//! Receivers behind TLS.

use std::time::Duration;

use e2e::{Admin, Authority, Cluster, Leftovers, Result, Validity, admin};
use futures::FutureExt as _;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_retried_unless_it_is_not_verified() -> Result {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let cluster = Cluster::builder()
        .dispatcher_env("SSL_CERT_FILE", &authority.file().display().to_string())
        .gateway_env("HOOKLINE_ALLOW_UNVERIFIED_TLS", "true")
        .dispatcher_env("HOOKLINE_ALLOW_UNVERIFIED_TLS", "true")
        // Parked deliveries are not retried while the scenario runs.
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    let port = cluster.receiver.port();
    let valid = authority.front(port, Validity::Valid).await?;
    let expired = authority.front(port, Validity::Expired).await?;
    let hook = async |path: &str, port: u16, verify: bool| {
        let config = json!({"url": format!("https://localhost:{port}{path}"),
            "ssl_verify": verify});
        let created = cluster.admin().hook_consumers("webhook", config);
        anyhow::Ok(admin::id(&created.await?)?.to_owned())
    };
    hook("/valid", valid.port(), true).await?;
    hook("/unverified", expired.port(), false).await?;
    let refused = hook("/expired", expired.port(), true).await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/valid", 1).await?;
    cluster.receiver.wait_for("/unverified", 1).await?;

    // The hook's ping and the event.
    let parked = Leftovers { dead: 0, parked: 2 };
    cluster.rest_leaving(parked).await?;
    let path = format!("/event-hooks/{refused}/deliveries");
    let list = cluster.admin().get(&path).await?.expect(200)?;
    let waiting = list["data"].as_array().expect("a list");
    assert_eq!(waiting.len(), 2);
    for delivery in waiting {
        let reason = delivery["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("cannot connect"), "{reason}");
        assert!(reason.contains("expired"), "{reason}");
    }
    assert_eq!(cluster.receiver.requests("/expired").len(), 0);

    // Without verification, the same hook gets through.
    let path = format!("/event-hooks/{refused}");
    let url = format!("https://localhost:{}/expired", expired.port());
    let unverified = json!({"config": {"url": url, "ssl_verify": false}});
    cluster
        .admin()
        .patch(&path, &unverified)
        .await?
        .expect(200)?;
    cluster.control("/expired").await?;
    cluster.finish_leaving(parked).await
}

/// Posts an authority's certificate, and returns its id.
async fn trust(admin: &Admin, authority: &Authority) -> Result<String> {
    let cert = std::fs::read_to_string(authority.file())?;
    let made = admin
        .post("/ca_certificates", &json!({ "cert": cert }))
        .await?;
    Ok(admin::id(&made.expect(201)?)?.to_owned())
}

/// A certificate of an authority, with its key, as `certificates` has it.
fn pair(authority: &Authority, name: &str) -> Result<Value> {
    let (cert, key) = authority.issue(name, Validity::Valid)?;
    let (cert, key) = (
        std::fs::read_to_string(cert)?,
        std::fs::read_to_string(key)?,
    );
    Ok(json!({ "cert": cert, "key": key }))
}

/// Two authorities, none of which the host trusts.
fn two_authorities() -> Result<(tempfile::TempDir, Authority, Authority)> {
    let dir = tempfile::tempdir()?;
    let authority = |name: &str| {
        let place = dir.path().join(name);
        std::fs::create_dir(&place)?;
        Authority::new(&place)
    };
    let (one, other) = (authority("one")?, authority("other")?);
    Ok((dir, one, other))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_trusts_its_authorities_and_shows_its_certificate() -> Result {
    let (_dir, authority, stranger) = two_authorities()?;
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    let admin = cluster.admin();
    let front = authority.front_for_clients(cluster.receiver.port()).await?;
    let trusted = trust(admin, &authority).await?;
    let strange = trust(admin, &stranger).await?;
    let own = admin
        .post("/certificates", &pair(&authority, "own")?)
        .await?;
    let own = own.expect(201)?;
    // What was sent comes back, and no more.
    assert!(
        own["key"]
            .as_str()
            .is_some_and(|key| key.contains("PRIVATE KEY"))
    );
    let own = admin::id(&own)?;
    let shown = admin
        .get(&format!("/certificates/{own}"))
        .await?
        .expect(200)?;
    assert_eq!(shown["key"], "[redacted]");
    let hook = async |path: &str, config: Value| {
        let mut hook = admin::hook("crud", "consumers", "webhook-custom", config);
        hook["config"]["url"] = format!("https://localhost:{}{path}", front.port()).into();
        hook["config"]["method"] = "POST".into();
        cluster.admin().create_hook(&hook).await
    };
    // In capitals, as some clients write ids.
    let both = json!({"ca_certificates": [strange.clone(), trusted.to_uppercase()],
        "client_certificate": {"id": own.to_uppercase()}});
    let both = hook("/both", both).await?;
    assert_eq!(both["config"]["client_certificate"]["id"], own);
    hook("/unshown", json!({"ca_certificates": [trusted]})).await?;
    hook("/untrusted", json!({"client_certificate": {"id": own}})).await?;
    let other = json!({"ca_certificates": [strange], "client_certificate": {"id": own}});
    let other = hook("/other", other).await?;

    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/both", 1).await?;
    let parked = Leftovers { dead: 0, parked: 3 };
    cluster.rest_leaving(parked).await?;
    for path in ["/unshown", "/untrusted", "/other"] {
        assert_eq!(cluster.receiver.requests(path).len(), 0, "{path}");
    }
    // Changed, it gets through.
    let path = format!("/event-hooks/{}", admin::id(&other)?);
    let change = json!({"config": {"ca_certificates": [trusted]}});
    admin.patch(&path, &change).await?.expect(200)?;
    admin
        .post(&format!("{path}/deliveries/retry"), &json!({"all": true}))
        .await?
        .expect(200)?;
    cluster.receiver.wait_for("/other", 1).await?;
    cluster
        .finish_leaving(Leftovers { dead: 0, parked: 2 })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_taken_by_its_hooks() -> Result {
    let (_dir, authority, stranger) = two_authorities()?;
    let cluster = Cluster::builder()
        .gateways(2)
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    let (admin, beside) = (cluster.admin(), cluster.gateways[1].admin());
    let front = authority.front_for_clients(cluster.receiver.port()).await?;
    let trusted = trust(admin, &authority).await?;
    let made = admin
        .post("/certificates", &pair(&stranger, "strange")?)
        .await?;
    let own = admin::id(&made.expect(201)?)?.to_owned();
    let path = format!("/certificates/{own}");
    let url = format!("https://localhost:{}/hook", front.port());
    let config = json!({"url": url, "method": "POST", "ca_certificates": [trusted],
        "client_certificate": {"id": own}});
    let hook = beside.hook_consumers("webhook-custom", config).await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster
        .rest_leaving(Leftovers { dead: 0, parked: 1 })
        .await?;
    assert_eq!(cluster.receiver.requests("/hook").len(), 0);

    let other = pair(&authority, "right")?;
    admin.patch(&path, &other).await?.expect(200)?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    // Its key alone, and half of another pair.
    let refused = pair(&stranger, "half")?;
    for half in ["cert", "key"] {
        let change = json!({ half: refused[half] });
        let refused = admin.patch(&path, &change).await?.expect(400)?;
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("certificate does not match key"),
            "{message}"
        );
    }

    // As the answer shows it, it keeps what is stored.
    let shown = admin.get(&path).await?.expect(200)?;
    assert_eq!(shown["key"], "[redacted]");
    admin.put(&path, &shown).await?.expect(200)?;
    let tagged = json!({"key": "[redacted]", "tags": ["mine"]});
    admin.patch(&path, &tagged).await?.expect(200)?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/hook", 2).await?;

    for used in [path.clone(), format!("/ca_certificates/{trusted}")] {
        let refused = beside.delete(&used).await?.expect(400)?;
        assert_eq!(refused["code"], 4);
        assert_eq!(refused["fields"]["@referenced_by"], "event_hooks");
    }
    let hook = format!("/event-hooks/{}", admin::id(&hook)?);
    admin.delete(&hook).await?.expect(204)?;
    beside.delete(&path).await?.expect(204)?;
    // Of the delivery that waited.
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_name_only_certificates_of_their_workspace() -> Result {
    let (_dir, authority, _) = two_authorities()?;
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    for name in ["one", "two"] {
        let workspace = json!({ "name": name });
        admin.post("/workspaces", &workspace).await?.expect(201)?;
    }
    let made = admin
        .post("/one/certificates", &pair(&authority, "own")?)
        .await?;
    let own = admin::id(&made.expect(201)?)?.to_owned();
    let cert = std::fs::read_to_string(authority.file())?;
    let made = admin
        .post("/one/ca_certificates", &json!({ "cert": cert }))
        .await?;
    let trusted = admin::id(&made.expect(201)?)?.to_owned();
    for (named, kind) in [
        (json!({"client_certificate": {"id": own}}), "certificates"),
        (json!({"ca_certificates": [trusted]}), "ca_certificates"),
    ] {
        let mut hook = admin::hook("crud", "consumers", "webhook", named);
        hook["config"]["url"] = cluster.receiver.url("/hook").into();
        for place in ["/two", ""] {
            let refused = admin.post(&format!("{place}/event-hooks"), &hook).await?;
            let refused = refused.expect(400)?;
            assert_eq!(refused["code"], 4, "{refused}");
            let message = refused["message"].as_str().unwrap_or_default();
            assert!(
                message.contains(&format!("existing '{kind}' entity")),
                "{message}"
            );
        }
        admin.post("/one/event-hooks", &hook).await?.expect(201)?;
    }
    for kind in ["certificates", "ca_certificates"] {
        assert_eq!(admin.list(&format!("/two/{kind}")).await?.len(), 0);
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_certificate_is_refused() -> Result {
    let (_dir, authority, stranger) = two_authorities()?;
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let (own, other) = (pair(&authority, "own")?, pair(&stranger, "other")?);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let two = text(&own["cert"]) + &text(&other["cert"]);
    let wrong = [
        (
            "certificates",
            json!({"key": own["key"]}),
            "cert: required field missing",
        ),
        (
            "certificates",
            json!({"cert": own["cert"]}),
            "key: required field missing",
        ),
        (
            "certificates",
            json!({"cert": "x", "key": own["key"]}),
            "invalid certificate",
        ),
        (
            "certificates",
            json!({"cert": own["key"], "key": own["key"]}),
            "invalid certificate",
        ),
        (
            "certificates",
            json!({"cert": own["cert"], "key": own["cert"]}),
            "invalid key",
        ),
        (
            "certificates",
            json!({"cert": own["cert"], "key": other["key"]}),
            "does not match key",
        ),
        (
            "certificates",
            json!({"cert": own["cert"], "key": own["key"], "cert_alt": own["cert"]}),
            "all or none",
        ),
        (
            "certificates",
            json!({"cert": own["cert"], "key": "{vault://x}"}),
            "key: ",
        ),
        (
            "certificates",
            json!({"cert": text(&own["cert"]) + &text(&own["key"]), "key": own["key"]}),
            "other parts",
        ),
        (
            "ca_certificates",
            json!({ "cert": "x".repeat(20_000) }),
            "length must be at most",
        ),
        ("ca_certificates", json!({}), "cert: required field missing"),
        (
            "ca_certificates",
            json!({"cert": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}),
            "invalid certificate",
        ),
        (
            "ca_certificates",
            json!({ "cert": two }),
            "only one certificate",
        ),
    ];
    for (kind, entity, says) in wrong {
        let refused = admin
            .post(&format!("/{kind}"), &entity)
            .await?
            .expect(400)?;
        let message = text(&refused["message"]);
        assert!(message.contains(says), "{says}: {message}");
        assert!(!message.contains("BEGIN PRIVATE KEY-----\n"), "{message}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_there_once() -> Result {
    let (_dir, authority, _) = two_authorities()?;
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let cert = std::fs::read_to_string(authority.file())?;
    let made = admin
        .post(
            "/ca_certificates",
            &json!({"cert": cert, "cert_digest": "x"}),
        )
        .await?;
    let made = made.expect(201)?;
    assert_eq!(text(&made["cert_digest"]).len(), 64);
    let again = admin
        .post("/ca_certificates", &json!({ "cert": cert }))
        .await?;
    assert_eq!(
        again.expect(409)?["fields"]["cert_digest"],
        made["cert_digest"]
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_is_turned_off_only_where_the_operator_lets_hooks() -> Result {
    let mut cluster = Cluster::builder()
        // As stored before the operator changed their mind.
        .gateway_env("HOOKLINE_ALLOW_UNVERIFIED_TLS", "true")
        .start()
        .await?;
    let (_dir, authority, _) = two_authorities()?;
    let front = authority
        .front(cluster.receiver.port(), Validity::Valid)
        .await?;
    let url = |path: &str| format!("https://localhost:{}{path}", front.port());
    let unverified = |path: &str| json!({"url": url(path), "ssl_verify": false, "method": "POST"});
    let stored = cluster
        .admin()
        .hook_consumers("webhook-custom", unverified("/stored"));
    let stored = format!("/event-hooks/{}", admin::id(&stored.await?)?);
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster
        .rest_leaving(Leftovers { dead: 0, parked: 1 })
        .await?;
    assert_eq!(front.connections(), 0);

    let gateway = cluster.add_gateway()?;
    gateway.set("HOOKLINE_ALLOW_UNVERIFIED_TLS", "false");
    gateway.start()?;
    gateway.ready().await?;
    let strict = gateway.admin().clone();
    for config in [
        unverified("/new"),
        json!({"url": url("/new"), "ssl_verify": false}),
    ] {
        let handler = if config.get("method").is_some() {
            "webhook-custom"
        } else {
            "webhook"
        };
        let hook = admin::hook("crud", "consumers", handler, config);
        let refused = strict.post("/event-hooks", &hook).await?.expect(400)?;
        let says = refused["fields"]["config"]["ssl_verify"].as_str();
        assert!(
            says.is_some_and(|says| says.contains("ca_certificates")),
            "{refused}"
        );
    }
    // There is nothing to verify.
    let plain = json!({"url": cluster.receiver.url("/plain"), "ssl_verify": false});
    let plain = admin::hook("crud", "consumers", "webhook", plain);
    strict.post("/event-hooks", &plain).await?.expect(201)?;
    cluster.receiver.wait_for_ping("/plain").await?;
    let verified = json!({"config": {"ssl_verify": true}});
    strict.patch(&stored, &verified).await?.expect(200)?;
    cluster
        .finish_leaving(Leftovers { dead: 0, parked: 1 })
        .await
}

/// A hook that names several, and a deletion of one of them at the same moment by another node: one of both wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hook_names_is_never_gone() -> Result {
    let dir = tempfile::tempdir()?;
    let cluster = Cluster::builder().gateways(2).start().await?;
    let (admin, beside) = (cluster.admin(), cluster.gateways[1].admin());
    let (mut kept, mut lost) = (0, 0);
    for round in 0..20 {
        let mut trusted = Vec::new();
        for number in 0..4 {
            let place = dir.path().join(format!("{round}-{number}"));
            std::fs::create_dir(&place)?;
            trusted.push(trust(admin, &Authority::new(&place)?).await?);
        }
        let mut hook = admin::hook("here", "there", "webhook-custom", json!({}));
        hook["config"] = json!({"url": cluster.receiver.url("/hook"), "method": "POST",
            "ca_certificates": trusted});
        let path = format!("/ca_certificates/{}", trusted[round % 4]);
        // Each is first in some rounds, and they meet in others.
        let (late_hook, late_deletion) = [(round as u64, 0), (0, round as u64)][round % 2];
        let after = async |ms: u64| tokio::time::sleep(Duration::from_millis(ms)).await;
        let (made, deleted) = tokio::join!(
            after(late_hook).then(|()| admin.post("/event-hooks", &hook)),
            after(late_deletion).then(|()| beside.delete(&path)),
        );
        let there = beside.get(&path).await?.status;
        let made = made?;
        match (made.status, deleted?.status, there) {
            (201, 400, 200) => kept += 1,
            (400, 204, 404) => lost += 1,
            all => anyhow::bail!("{round} {kept} {lost} {all:?} {made:?}"),
        }
    }
    // Otherwise they never met.
    assert!(kept > 0 && lost > 0, "{kept} {lost}");
    cluster.finish().await
}
