//! A real OpenTelemetry Collector takes the spans from a request to its delivery, with a retry that links to them.

use anyhow::ensure;
use e2e::process::Process;
use e2e::{Cluster, Result, SOON, admin, eventually, ports};
use serde_json::{Value, json};

/// All spans that a collector wrote.
fn spans(file: &std::path::Path) -> Result<Vec<Value>> {
    let mut spans = Vec::new();
    for line in std::fs::read_to_string(file)?.lines() {
        // The last line may be half written.
        let Ok(export) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let all = |of: &Value, what: &str| of[what].as_array().cloned().unwrap_or_default();
        for resource in all(&export, "resourceSpans") {
            for scope in all(&resource, "scopeSpans") {
                spans.extend(all(&scope, "spans"));
            }
        }
    }
    Ok(spans)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_collector_gets_one_trace_and_a_linked_retry() -> Result {
    let dir = tempfile::tempdir()?;
    let (port, written) = (ports::free()?, dir.path().join("traces.json"));
    let config = json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
        "exporters": {"file": {"path": written, "flush_interval": "100ms"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
        },
    });
    let settings = dir.path().join("collector.yaml");
    std::fs::write(&settings, config.to_string())?;
    let program = crate::program("COLLECTOR")?;
    let mut collector = Process::new("collector", program, dir.path())
        .args([format!("--config=file:{}", settings.display())]);
    collector.start()?;
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut builder = Cluster::builder().dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "3s");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ] {
        builder = builder.gateway_env(name, value).dispatcher_env(name, value);
    }
    let cluster = builder.start().await?;
    let config = json!({"url": cluster.receiver.url("/hook"), "method": "POST", "body": "x"});
    let hook = admin::hook("crud", "consumers", "webhook-custom", config);
    cluster.admin().create_hook(&hook).await?;
    cluster.receiver.answer("/hook", &[500, 200]);
    cluster.admin().create_consumer("Ada").await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    eventually(SOON, "the collector has the whole trace", async || {
        collector.check_running()?;
        let spans = spans(&written)?;
        let attempt = |number: &str| {
            let is_it = |attribute: &Value| {
                attribute["key"] == "hookline.attempt" && attribute["value"]["intValue"] == number
            };
            let has = |span: &&Value| {
                span["attributes"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(is_it))
            };
            spans.iter().find(has)
        };
        let (Some(first), Some(retry)) = (attempt("1"), attempt("2")) else {
            anyhow::bail!("{} spans", spans.len());
        };
        let by_id = |id: &Value| spans.iter().find(|span| span["spanId"] == *id);
        let sent = by_id(&first["parentSpanId"]);
        ensure!(
            sent.is_some_and(|span| span["name"] == "send hookline.events"),
            "{sent:?}"
        );
        let request = sent.and_then(|sent| by_id(&sent["parentSpanId"]));
        ensure!(
            request.is_some_and(|span| span["name"] == "POST /consumers"),
            "{request:?}"
        );
        ensure!(retry["traceId"] != first["traceId"], "{retry}");
        let link = &retry["links"][0];
        ensure!(link["traceId"] == first["traceId"], "{link}");
        ensure!(link["spanId"] == first["parentSpanId"], "{link}");
        let calls = spans
            .iter()
            .filter(|span| span["kind"] == 3 && span["name"] == "POST");
        ensure!(calls.count() == 2);
        Ok(())
    })
    .await?;
    cluster.finish().await
}
