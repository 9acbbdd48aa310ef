//! Limits on what workspaces have, and on what the Admin API is asked.

use anyhow::ensure;
use e2e::{Cluster, Result, admin};
use futures::future::join_all;
use serde_json::{Value, json};

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }))
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bound_of_a_request_has_its_error() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_ADMIN_MAX_HEADERS", "20")
        .gateway_env("HOOKLINE_ADMIN_MAX_ARGUMENTS", "10")
        .gateway_env("HOOKLINE_ADMIN_MAX_NESTING", "5")
        .gateway_env("HOOKLINE_ADMIN_MAX_BODY", "65536")
        .gateway_env("HOOKLINE_MAX_EVENT", "16384")
        .dispatcher_env("HOOKLINE_MAX_EVENT", "16384")
        .start()
        .await?;
    let admin = cluster.admin();
    let http = admin::http_client()?;
    let url = format!("{}/consumers", admin.base());
    for (headers, status) in [(15, 200), (30, 431)] {
        let mut request = http.get(&url);
        for number in 0..headers {
            request = request.header(format!("x-{number}"), "1");
        }
        let answer = request.send().await?;
        assert_eq!(answer.status(), status, "{headers}");
        let body: Value = serde_json::from_str(&answer.text().await?)?;
        let says = message(&body).contains("HOOKLINE_ADMIN_MAX_HEADERS");
        assert_eq!(says, status == 431, "{body}");
    }

    let refused = async |path: &str, body: Value, status: u16, setting: &str| {
        let answer = admin.post(path, &body).await?.expect(status)?;
        ensure!(message(&answer).contains(setting), "{answer}");
        Ok(())
    };
    let long = "x".repeat(70_000);
    let body = json!({ "username": long });
    refused("/consumers", body, 413, "HOOKLINE_ADMIN_MAX_BODY").await?;
    refused("/consumers", nested(6), 400, "HOOKLINE_ADMIN_MAX_NESTING").await?;
    let shallow = admin.post("/consumers", &nested(5)).await?.expect(400)?;
    assert!(message(&shallow).contains("unknown field"), "{shallow}");
    let tags = json!({ "username": "ada", "tags": vec!["x".repeat(15_000), "y".repeat(2_000)] });
    refused("/consumers", tags, 413, "HOOKLINE_MAX_EVENT").await?;

    let arguments: Vec<_> = (0..11).map(|_| ("tags[]", "x")).collect();
    let answer = admin.post_form("/consumers", &arguments).await?;
    let answer = answer.expect(400)?;
    assert!(
        message(&answer).contains("HOOKLINE_ADMIN_MAX_ARGUMENTS"),
        "{answer}"
    );
    let query = "&size=1".repeat(11);
    for path in ["/consumers", "/audit/requests", "/nothing"] {
        let answer = admin.get(&format!("{path}?{query}")).await?.expect(400)?;
        assert!(
            message(&answer).contains("HOOKLINE_ADMIN_MAX_ARGUMENTS"),
            "{answer}"
        );
    }
    // The server itself refuses what is published elsewhere.
    let event = json!({ "text": "x".repeat(20_000) }).to_string();
    let context = cluster.nats.jetstream();
    let stored = context.publish("hookline.events.default.crud.consumers", event.into());
    let refused = stored.await?.await.expect_err("it is too large");
    assert!(refused.to_string().contains("exceed"), "{refused}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_workspace_has_more_than_it_may() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_WORKSPACE_HOOKS", "3,small=1")
        .gateway_env("HOOKLINE_WORKSPACE_ENTITIES", "6")
        .gateway_env("HOOKLINE_MAX_HOOKS", "5")
        .start()
        .await?;
    let admin = cluster.admin();
    for name in ["small", "large", "third"] {
        let workspace = json!({ "name": name });
        admin.post("/workspaces", &workspace).await?.expect(201)?;
    }
    let hook = admin::hook("here", "there", "log", json!({}));
    let create = async |workspace: &str| {
        let path = format!("/{workspace}/event-hooks");
        admin.post(&path, &hook).await
    };
    // However many ask at once, none is refused for one that is not there.
    let answers = join_all((0..20).map(|_| create("large"))).await;
    let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|one| one.status == 201);
    assert_eq!((made.len(), refused.len()), (3, 17));
    for answer in &refused {
        assert_eq!(answer.status, 403);
        let says = "at most 3 hooks and certificates may be in the workspace large";
        assert!(message(&answer.body).starts_with(says), "{}", answer.body);
    }
    create("small").await?.expect(201)?;
    create("small").await?.expect(403)?;
    create("third").await?.expect(201)?;
    let all = create("third").await?.expect(403)?;
    assert!(message(&all).contains("HOOKLINE_MAX_HOOKS"), "{all}");
    // Existing ones can still be changed, or deleted to make room.
    let path = format!("/large/event-hooks/{}", admin::id(&made[0].body)?);
    let change = json!({ "snooze": 5 });
    admin.patch(&path, &change).await?.expect(200)?;
    admin.put(&path, &hook).await?.expect(200)?;
    admin.delete(&path).await?.expect(204)?;
    let again = admin.put(&path, &hook).await?;
    again.expect(200)?;

    for number in 0..4 {
        let consumer = json!({ "username": format!("ada-{number}") });
        let answer = admin.post("/large/consumers", &consumer).await?;
        let expected = if number < 3 { 201 } else { 403 };
        let answer = answer.expect(expected)?;
        let says = message(&answer).contains("HOOKLINE_WORKSPACE_ENTITIES");
        assert_eq!(says, number == 3, "{answer}");
    }
    let consumer = json!({ "username": "grace" });
    let elsewhere = admin.post("/small/consumers", &consumer).await?;
    elsewhere.expect(201)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_asks_too_much_slows_only_itself() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_WORKSPACE_REQUESTS", "1000,noisy=1")
        .start()
        .await?;
    let admin = cluster.admin();
    let noisy = json!({ "name": "noisy" });
    admin.post("/workspaces", &noisy).await?.expect(201)?;
    let answers = join_all((0..40).map(|_| admin.get("/noisy/consumers"))).await;
    let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
    let refused: Vec<_> = answers.iter().filter(|one| one.status == 429).collect();
    // More than one on a slow machine.
    assert!((20..=39).contains(&refused.len()), "{}", refused.len());
    for answer in &refused {
        let says = "too many requests in the workspace noisy: 1 a second are answered";
        assert!(message(&answer.body).starts_with(says), "{}", answer.body);
    }
    for _ in 0..40 {
        admin.get("/consumers").await?.expect(200)?;
    }
    let counted =
        cluster.gateways[0].metric("hookline_admin_refused_total", &[("reason", "too_fast")]);
    assert_eq!(counted.await?, refused.len() as f64);
    // It says when to come back.
    let url = format!("{}/noisy/consumers", admin.base());
    let http = admin::http_client()?;
    let mut waits = None;
    for _ in 0..20 {
        let answer = http.get(&url).send().await?;
        waits = waits.or(answer.headers().get("retry-after").cloned());
    }
    assert_eq!(
        waits
            .map(|wait| wait.to_str().map(str::to_owned))
            .transpose()?
            .as_deref(),
        Some("1")
    );
    cluster.finish().await
}

/// What nobody needs a role for counts for whoever asks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_answers_no_more_than_it_may() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_ADMIN_MAX_REQUESTS", "2")
        .start()
        .await?;
    let admin = cluster.admin();
    for path in ["/status", "/consumers"] {
        let answers = join_all((0..40).map(|_| admin.get(path))).await;
        let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
        let refused: Vec<_> = answers.iter().filter(|one| one.status == 429).collect();
        // The first path's requests leave the second's two a second untouched.
        assert!(
            (20..=38).contains(&refused.len()),
            "{path} {}",
            refused.len()
        );
        let is_for_address = path == "/status";
        for answer in refused {
            let says = message(&answer.body);
            assert_eq!(says.contains("from this address"), is_for_address, "{says}");
        }
    }
    cluster.finish().await
}
