//! Traces: from a request to the Admin API to its deliveries, by OTLP and W3C contexts.

use anyhow::{Context as _, ensure};
use e2e::cluster::Builder;
use e2e::collector::Span;
use e2e::{Cluster, Collector, Result, SOON, Service, eventually};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";
const SPANS: &str = "hookline_trace_spans_total";

fn traced(endpoint: &str) -> Builder {
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let builder = Cluster::builder();
    settings
        .into_iter()
        .fold(builder, |builder, (name, value)| {
            builder.gateway_env(name, value).dispatcher_env(name, value)
        })
}

fn one<'a>(spans: &'a [Span], what: &str, is: impl Fn(&Span) -> bool) -> Result<&'a Span> {
    let mut found = spans.iter().filter(|span| is(span));
    let first = found
        .next()
        .with_context(|| format!("no span {what} in {spans:#?}"))?;
    ensure!(found.next().is_none(), "more than one {what}");
    Ok(first)
}

/// A request of a client that traces, with `flags`.
async fn create_consumer(cluster: &Cluster, name: &str, flags: &str) -> Result {
    let url = format!("{}/consumers", cluster.admin().base());
    let request = e2e::admin::http_client()?
        .post(url)
        .json(&json!({ "username": name }))
        .header("traceparent", format!("00-{TRACE}-{CLIENT}-{flags}"));
    request.send().await?.error_for_status()?;
    Ok(())
}

fn own(kind: SpanKind) -> impl Fn(&Span) -> bool {
    move |span| span.kind == kind && span.trace == TRACE
}

/// Checks the spans between the request and its first delivery, which carried `traceparent`. Returns its links.
fn first_attempt(
    spans: &[Span],
    server: &Span,
    hook: &str,
    traceparent: &str,
) -> Result<Vec<(String, String)>> {
    let first = one(spans, "of the first attempt", own(SpanKind::Consumer))?;
    let sent = one(spans, "of the event", |span| span.id == first.parent)?;
    assert_eq!(
        (sent.kind, &*sent.name),
        (SpanKind::Producer, "send hookline.events")
    );
    assert_eq!(sent.parent, server.id);
    assert_eq!(first.name, "process hookline.events");
    assert_eq!(first.links, [(TRACE.to_owned(), sent.id.clone())]);
    assert!(first.is_failed);
    assert_eq!(first.resource["service.name"], "hookline-dispatcher");
    for (name, value) in [
        ("messaging.system", "nats"),
        ("messaging.consumer.group.name", "dispatchers"),
        (
            "messaging.message.id",
            sent.attribute("messaging.message.id"),
        ),
        ("hookline.hook.id", hook),
        ("hookline.attempt", "1"),
        ("hookline.outcome", "http_5xx"),
    ] {
        assert_eq!(first.attribute(name), value, "{name}");
    }
    let call = one(spans, "of the first call", own(SpanKind::Client))?;
    assert_eq!(call.parent, first.id);
    assert_eq!(call.attribute("http.response.status_code"), "500");
    assert_eq!(call.attribute("server.address"), "127.0.0.1");
    assert_eq!(traceparent, format!("00-{TRACE}-{}-01", call.id));
    Ok(first.links.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_leads_from_a_request_to_its_delivery_and_a_retry_links_to_it() -> Result {
    let collector = Collector::start().await?;
    let cluster = traced(&collector.endpoint())
        .dispatcher_env("HOOKLINE_LOG", "info,hookline_dispatcher=debug")
        // Long enough to be parked.
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "3s")
        .start()
        .await?;
    let config = json!({"url": cluster.receiver.url("/hook/s3cret?token=s3cret"), "method": "POST",
        "body": "{{ entity.username }}"});
    let hook = cluster
        .admin()
        .hook_consumers("webhook-custom", config)
        .await?;
    let id = e2e::admin::id(&hook)?;
    cluster.receiver.answer("/hook/s3cret", &[500, 200]);
    create_consumer(&cluster, "Ada", "01").await?;
    let requests = cluster.receiver.wait_for("/hook/s3cret", 2).await?;
    cluster.rest().await?;

    let spans = eventually(SOON, "all spans are there", async || {
        let spans = collector.spans()?;
        let calls = spans.iter().filter(|span| span.kind == SpanKind::Client);
        ensure!(calls.count() == 2);
        let server = |span: &Span| span.kind == SpanKind::Server && span.trace == TRACE;
        one(&spans, "of the request", server)?;
        Ok(spans)
    })
    .await?;
    let server = one(&spans, "of the request", own(SpanKind::Server))?;
    assert_eq!(
        (&*server.name, &*server.parent),
        ("POST /consumers", CLIENT)
    );
    assert_eq!(server.attribute("http.response.status_code"), "201");
    assert_eq!(server.resource["service.name"], "hookline-gateway");

    let links = first_attempt(&spans, server, id, requests[0].header("traceparent"))?;

    // The retry has a trace of its own, with a link.
    let retry = one(&spans, "of the retry", |span| {
        span.attribute("hookline.attempt") == "2"
    })?;
    assert_ne!(retry.trace, TRACE);
    assert_eq!((&*retry.parent, &retry.links), ("", &links));
    assert_eq!(retry.attribute("messaging.consumer.group.name"), "retries");
    assert!(!retry.is_failed);
    let again = one(&spans, "of the retry's call", |span| {
        span.parent == retry.id
    })?;
    assert_eq!(again.attribute("http.request.resend_count"), "1");
    assert_eq!(
        requests[1].header("traceparent"),
        format!("00-{}-{}-01", retry.trace, again.id)
    );

    // What a trace is found by, and what is in none.
    let path = format!("/event-hooks/{id}/attempts");
    eventually(SOON, "the delivery log has both traces", async || {
        let attempts = cluster.admin().list(&path).await?;
        let traces: Vec<_> = attempts
            .iter()
            .map(|attempt| &attempt["trace_id"])
            .collect();
        ensure!(traces == [&json!(retry.trace), &json!(TRACE)], "{traces:?}");
        Ok(())
    })
    .await?;
    let lines = cluster.dispatchers[0].log_lines();
    let failed = lines.iter().find(|line| line.message() == "attempt failed");
    let failed = failed.context("the failure is logged")?.json();
    assert_eq!(failed["span"]["trace_id"], TRACE, "{failed}");
    assert!(!collector.has("s3cret"), "a URL's secret is in a span");
    assert!(!collector.has("Ada"), "an event's data is in a span");
    assert!(
        cluster
            .dispatchers_metric(SPANS, &[("outcome", "exported")])
            .await?
            >= 4.0
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_stays_so_and_its_context_is_passed_on() -> Result {
    let collector = Collector::start().await?;
    let cluster = traced(&collector.endpoint())
        .dispatcher_env("OTEL_SERVICE_NAME", "deliveries")
        .start()
        .await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    create_consumer(&cluster, "Ada", "00").await?;
    let request = cluster.receiver.wait_for_one("/hook").await?;
    let context = request.header("traceparent");
    ensure!(context.starts_with(&format!("00-{TRACE}-")), "{context}");
    ensure!(context.ends_with("-00"), "{context}");
    // A control, whose spans come after.
    create_consumer(&cluster, "Grace", "01").await?;
    eventually(SOON, "the control's spans are there", async || {
        let spans = collector.spans()?;
        let calls = spans
            .iter()
            .filter(|span| span.kind == SpanKind::Client && span.trace == TRACE);
        ensure!(calls.clone().count() == 1);
        ensure!(
            calls
                .clone()
                .all(|call| call.resource["service.name"] == "deliveries")
        );
        Ok(())
    })
    .await?;
    let events = cluster.receiver.events("/hook");
    assert_eq!(events.len(), 2);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_traces_a_clients_context_is_passed_on_unchanged() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    create_consumer(&cluster, "Ada", "01").await?;
    let request = cluster.receiver.wait_for_one("/hook").await?;
    let given = format!("00-{TRACE}-{CLIENT}-01");
    assert_eq!(request.header("traceparent"), given);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_does_not_answer_costs_spans_and_no_delivery() -> Result {
    const EVENTS: usize = 200;
    // It accepts connections, and that is all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let cluster = traced(&format!("http://{}", silent.local_addr()?))
        .dispatcher_env("OTEL_BSP_MAX_QUEUE_SIZE", "64")
        .dispatcher_env("OTEL_EXPORTER_OTLP_TIMEOUT", "2000")
        .start()
        .await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    for _ in 0..EVENTS {
        cluster.publish("crud", "consumers", &json!({})).await?;
    }
    cluster.receiver.wait_for("/hook", EVENTS).await?;
    eventually(SOON, "spans are dropped, and not exported", async || {
        for outcome in ["dropped", "failed"] {
            let spans = cluster
                .dispatchers_metric(SPANS, &[("outcome", outcome)])
                .await?;
            ensure!(spans > 0.0, "none {outcome}");
        }
        Ok(())
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_that_is_not_spoken_is_named() -> Result {
    let mut cluster = Cluster::builder()
        .dispatcher_env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .dispatcher_env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .prepare()
        .await?;
    let dispatcher: &mut Service = &mut cluster.dispatchers[0];
    dispatcher.start()?;
    let code = dispatcher.process_mut().exit_code(SOON).await?;
    let log = dispatcher.process().log();
    ensure!(code != 0 && log.contains("http/protobuf"), "{code}: {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_change_does_not_look_as_if_its_events_were_sent() -> Result {
    let collector = Collector::start().await?;
    let attributes = "my.service.name=x,deployment.environment.name=here";
    let cluster = traced(&collector.endpoint())
        .gateway_env("OTEL_RESOURCE_ATTRIBUTES", attributes)
        .start()
        .await?;
    cluster.admin().create_consumer("Ada").await?;
    let refused = create_consumer(&cluster, "Ada", "01").await;
    ensure!(refused.is_err(), "the name is taken");
    let spans = eventually(SOON, "the refusal is there", async || {
        let spans = collector.spans()?;
        one(&spans, "of the request", own(SpanKind::Server))?;
        Ok(spans)
    })
    .await?;
    let sent = |span: &&Span| span.kind == SpanKind::Producer;
    let of_both: Vec<_> = spans.iter().filter(sent).collect();
    let refused = of_both.iter().filter(|span| span.trace == TRACE);
    ensure!(refused.clone().count() == 2, "{of_both:#?}");
    ensure!(refused.clone().all(|span| span.is_failed), "{of_both:#?}");
    // A control: those of the first change were sent.
    let made = of_both.iter().filter(|span| span.trace != TRACE);
    ensure!(
        made.clone().count() >= 2 && made.clone().all(|span| !span.is_failed),
        "{of_both:#?}"
    );
    let of_process = &of_both[0].resource;
    assert_eq!(of_process["service.name"], "hookline-gateway");
    assert_eq!(of_process["deployment.environment.name"], "here");
    cluster.finish().await
}
