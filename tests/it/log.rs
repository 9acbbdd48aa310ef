//! `log`: a record in the dispatcher's log, in Kong's layout.

use anyhow::{Context, ensure};
use e2e::logs::Line;
use e2e::{Cluster, Result, SOON, eventually};
use serde_json::json;

const MARK: &str = "log callback: ";

/// Waits until the log handler has written `count` records on all dispatchers.
async fn records(cluster: &Cluster, count: usize) -> Result<Vec<Line>> {
    eventually(SOON, "log records", async || {
        let lines = cluster.dispatchers.iter().flat_map(|d| d.log_lines());
        let records: Vec<Line> = lines.filter(|line| line.message().contains(MARK)).collect();
        ensure!(records.len() >= count, "{} of {count}", records.len());
        Ok(records)
    })
    .await
}

/// The Lua table of a record, after the mark.
fn table(record: &Line) -> Result<&str> {
    let start = record.message().find('{').context("no table")?;
    Ok(&record.message()[start..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_hook_writes_a_change_made_through_the_admin_api() -> Result {
    let cluster = Cluster::double().await?;
    cluster.admin().hook_consumers("log", json!({})).await?;

    let consumer = cluster.admin().create_consumer("Elizabeth Bennet").await?;

    let records = records(&cluster, 1).await?;
    let expected = format!(
        r#"{{ "consumers", "crud", {{
    entity = {{
      created_at = {},
      id = {},
      type = 0,
      username = "Elizabeth Bennet"
    }},
    operation = "create",
    schema = "consumers"
  }}, {} }}"#,
        consumer["created_at"],
        consumer["id"],
        cluster.gateways[0].process().pid()?,
    );
    assert_eq!(table(&records[0])?, expected);
    assert_eq!(records[0].level(), "INFO");
    assert_eq!(records[0].field("event"), "consumers");
    assert_eq!(records[0].field("source"), "crud");
    cluster.admin().create_consumer("Jane Bennet").await?;
    let records = self::records(&cluster, 2).await?;
    let names = ["Elizabeth Bennet", "Jane Bennet"];
    for (record, name) in records.iter().zip(names) {
        assert!(record.message().contains(name), "{record:?}");
    }
    assert_eq!(records.len(), 2, "each is logged once");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_hook_writes_a_plain_nats_publish() -> Result {
    let cluster = Cluster::single().await?;
    cluster.admin().hook_consumers("log", json!({})).await?;

    let data = json!({
        "entity": { "username": "Grace \"G\"\nHopper", "tags": ["a", "b"], "n": 1.5, "ok": true },
        "operation": "update",
    });
    cluster.publish("crud", "consumers", &data).await?;

    let records = records(&cluster, 1).await?;
    let table = table(&records[0])?;
    assert!(table.starts_with("{ \"consumers\", \"crud\", {"), "{table}");
    // Without a header, the pid is the dispatcher's.
    let end = format!("}}, {} }}", cluster.dispatchers[0].process().pid()?);
    assert!(table.ends_with(&end), "{table}");
    // Data is quoted, so that it cannot forge a record.
    assert!(
        table.contains(r#"username = 'Grace "G"\nHopper'"#)
            || table.contains(r#"username = "Grace \"G\"\nHopper""#),
        "{table}"
    );
    assert!(table.contains(r#"tags = { "a", "b" }"#), "{table}");
    assert!(
        table.contains("n = 1.5") && table.contains("ok = true"),
        "{table}"
    );
    cluster.finish().await
}
