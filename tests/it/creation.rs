//! What is wrong with a hook is said when it is made, not when it fires.

use e2e::{Cluster, Result};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_with_line_and_name() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let url = cluster.receiver.url("/hook");
    let body = |body: &str| json!({ "url": url, "method": "POST", "body": body });
    let lambda = |script: &str| json!({ "functions": [script] });
    for (handler, config, says) in [
        (
            "webhook-custom",
            body("{{ name|uper }}"),
            "line 1: there is no filter `uper`, did you mean `upper`?",
        ),
        (
            "webhook-custom",
            body("\n{{ a is nope }}"),
            "line 2: there is no test `nope`",
        ),
        (
            "webhook-custom",
            body("{{ now() }}"),
            "there is no function `now`",
        ),
        (
            "webhook-custom",
            body("{{ a|replace('b') }}"),
            "'replace' takes 2 to 3 arguments, not 1",
        ),
        ("webhook-custom", body("{{ a"), "invalid template"),
        (
            "lambda",
            lambda("return 5"),
            "expected function type, got number",
        ),
        (
            "lambda",
            lambda("return {}"),
            "expected function type, got table",
        ),
        (
            "lambda",
            lambda("-- nothing"),
            "expected function type, got nil",
        ),
        (
            "lambda",
            lambda("return function( end"),
            "Error parsing function",
        ),
        (
            "lambda",
            lambda("local x = nil + 1 return function() end"),
            "attempt to perform arithmetic",
        ),
        (
            "webhook",
            json!({ "url": "http://example.com/{{ entity.id }}" }),
            "a url is no template",
        ),
        (
            "webhook-custom",
            json!({ "url": "http://example.com/{% if a %}b{% endif %}", "method": "GET" }),
            "a url is no template",
        ),
    ] {
        let hook = e2e::admin::hook("crud", "consumers", handler, config.clone());
        let refused = admin.post("/event-hooks", &hook).await?.expect(400)?;
        let said = refused["message"].as_str().unwrap_or_default();
        assert!(said.contains(says), "{config}: {said}");
    }
    // What never ends at once is not run for long, and may be made.
    let endless = lambda("while true do end return function() end");
    let hook = e2e::admin::hook("other", "x", "lambda", endless);
    admin.post("/event-hooks", &hook).await?.expect(201)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_probably_does_not_work_is_accepted_with_a_warning() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let config = |url: &str| json!({ "url": url });
    let own = cluster.receiver.url("/hook");
    let public = "https://example.com/hook";
    for (source, event, config, warns) in [
        (
            "curd",
            "consumers",
            config(&own),
            Some("there is no source 'curd', did you mean 'crud'?"),
        ),
        (
            "crud",
            "consmers",
            config(&own),
            Some("no event 'consmers', did you mean 'consumers'?"),
        ),
        (
            "crud",
            "consumers:updat",
            config(&own),
            Some("no operation 'updat', did you mean 'consumers:update'?"),
        ),
        (
            "payments",
            "paid",
            config(&own),
            Some("source 'payments' is not built in"),
        ),
        (
            "crud",
            "consumers",
            config("http://10.0.0.1/"),
            Some("dispatchers refuse config.url: 10.0.0.1 is not a public address"),
        ),
        (
            "crud",
            "consumers",
            config("http://[::ffff:a9fe:a9fe]/"),
            Some("169.254.169.254 is not a public address"),
        ),
        ("crud", "consumers", config(&own), None),
        ("crud", "consumers:create", config(public), None),
        ("balancer", "health", config(public), None),
    ] {
        let hook = e2e::admin::hook(source, event, "webhook", config);
        let made = admin.post("/event-hooks", &hook).await?.expect(201)?;
        let warning = made["warning"].as_str();
        match warns {
            None => assert_eq!(warning, None, "{hook}"),
            Some(warns) => assert!(warning.is_some_and(|said| said.contains(warns)), "{made}"),
        }
        let path = format!("/event-hooks/{}", e2e::admin::id(&made)?);
        let shown = admin.get(&path).await?.expect(200)?;
        assert_eq!(shown.get("warning"), None, "it is no field");
        // The answer may be sent back as it is.
        let mut back = made.clone();
        back["snooze"] = json!(2);
        admin.put(&path, &back).await?.expect(200)?;
        // The warning comes again with each change.
        let change = admin
            .patch(&path, &json!({ "snooze": 1 }))
            .await?
            .expect(200)?;
        assert_eq!(change["warning"], made["warning"]);
        admin.delete(&path).await?.expect(204)?;
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_json_with_an_example_is_warned_of() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let url = cluster.receiver.url("/hook");
    let comma = r#"{"n": 1{% if old_entity %},{% endif %}}"#;
    for (body, source, event, warns) in [
        (
            r#"{"n": {{ entity.count }}, "m": {{ entity }}"#,
            "crud",
            "consumers",
            Some("(create), config.body is not JSON: EOF while parsing"),
        ),
        (
            comma,
            "crud",
            "consumers",
            Some("(update), config.body is not JSON: key must be a string"),
        ),
        (comma, "crud", "consumers:create", None),
        (
            comma,
            "dao:crud",
            "update",
            Some("(update), config.body is not JSON"),
        ),
        (r#"{"n": {{ entity.count }}}"#, "crud", "consumers", None),
        (
            r#"{"h": "{{ health }}", "p": {{ port }}}"#,
            "balancer",
            "health",
            None,
        ),
        (
            r#"{"h": {{ health }} {{ ip }}}"#,
            "balancer",
            "health",
            Some("with an example of an event, config.body is not JSON"),
        ),
        (
            r#"{"a": {{ a }}}"#,
            "payments",
            "paid",
            Some("is not built in"),
        ),
        ("{{ entity.username }} is here", "crud", "consumers", None),
    ] {
        let config = json!({ "url": url, "method": "POST", "body": body });
        let hook = e2e::admin::hook(source, event, "webhook-custom", config);
        let made = admin.post("/event-hooks", &hook).await?.expect(201)?;
        let warning = made["warning"].as_str();
        match warns {
            None => assert_eq!(warning, None, "{body}"),
            Some(warns) => assert!(
                warning.is_some_and(|said| said.contains(warns)),
                "{body}: {made}"
            ),
        }
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_are_listed_as_kong_lists_them() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let all = admin.get("/event-hooks/sources/").await?.expect(200)?;
    let crud = json!(["operation", "entity", "old_entity", "schema"]);
    assert_eq!(all["data"]["crud"]["consumers"]["fields"], crud);
    assert_eq!(
        all["data"]["rate-limiting-advanced"]["rate-limit-exceeded"]["unique"],
        json!(["consumer", "ip", "service"])
    );
    let dao = admin
        .get("/event-hooks/sources/dao:crud")
        .await?
        .expect(200)?;
    let events: Vec<_> = dao["data"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(events, ["create", "update", "delete"]);
    assert_eq!(dao["data"]["delete"]["fields"], crud);
    let health = admin
        .get("/event-hooks/sources/balancer/health")
        .await?
        .expect(200)?;
    assert_eq!(
        health["data"]["fields"],
        json!(["upstream_id", "ip", "port", "hostname", "health"])
    );
    assert!(
        health["data"]["example"]["hostname"].is_string(),
        "{health}"
    );
    let update = admin
        .get("/event-hooks/sources/crud/consumers:update")
        .await?
        .expect(200)?;
    assert_eq!(update["data"]["example"]["operation"], "update");
    for path in [
        "nope",
        "crud/nope",
        "crud/consumers:nope",
        "balancer/health/x",
    ] {
        let path = format!("/event-hooks/sources/{path}");
        admin.get(&path).await?.expect(404)?;
    }
    let post = admin.post("/event-hooks/sources", &Value::Null).await?;
    post.expect(405)?;
    admin
        .get("/nobody/event-hooks/sources")
        .await?
        .expect(404)?;
    admin
        .get("/default/event-hooks/sources")
        .await?
        .expect(200)?;
    // What an example says is what arrives.
    let example = admin
        .get("/event-hooks/sources/crud/consumers:create")
        .await?
        .expect(200)?;
    let example = &example["data"]["example"];
    cluster.webhook("/hook").await?;
    cluster.publish("crud", "consumers", example).await?;
    let event = cluster.receiver.wait_for_one("/hook").await?;
    assert_eq!(event.json["entity"], example["entity"]);
    cluster.finish().await
}
