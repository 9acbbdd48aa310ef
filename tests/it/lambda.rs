//! `lambda`: the user's Lua functions.

use anyhow::ensure;
use e2e::logs::Line;
use e2e::nats::reason;
use e2e::{Cluster, Leftovers, Result, SOON, eventually};
use serde_json::json;

/// Kong's example.
const RAISES: &str = "return function (data, event, source, pid)\n  \
    local user = data.entity.username\n  \
    error(\"Event hook on consumer \" .. user .. \"\")\n\
    end";

fn lines_with(cluster: &Cluster, text: &str) -> Vec<Line> {
    let lines = cluster.dispatchers.iter().flat_map(|d| d.log_lines());
    lines
        .filter(|line| line.json().to_string().contains(text))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_logged_once_with_the_line_of_the_script() -> Result {
    let cluster = Cluster::double().await?;
    // As `curl -F` sends it: a field with a single value becomes a list.
    let fields = [
        ("source", "crud"),
        ("event", "consumers"),
        ("handler", "lambda"),
        ("config.functions", RAISES),
    ];
    let answer = cluster.admin().post_multipart("/event-hooks", &fields);
    let hook = answer.await?.expect(201)?;
    assert_eq!(hook["config"]["functions"], json!([RAISES]));

    cluster.admin().create_consumer("Lois Lane").await?;
    let data = json!({ "entity": { "username": "Clark Kent" } });
    cluster.publish("crud", "consumers", &data).await?;

    cluster.nats.dead_letters(2).await?;
    // Repeats would precede the error of a later event.
    cluster.admin().create_consumer("Diana Prince").await?;
    let dead = cluster.nats.dead_letters(3).await?;
    for message in &dead {
        assert!(!reason(message).is_empty());
    }
    for user in ["Lois Lane", "Clark Kent", "Diana Prince"] {
        let text = format!("Event hook on consumer {user}");
        let lines = lines_with(&cluster, &text);
        assert_eq!(lines.len(), 1, "{text}: {lines:?}");
        assert_eq!(lines[0].level(), "ERROR");
        let located = format!(":3: {text}");
        assert!(
            lines[0].json().to_string().contains(&located),
            "{:?}",
            lines[0]
        );
    }
    let leftovers = Leftovers { dead: 3, parked: 0 };
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_returns_true_or_nil_has_delivered() -> Result {
    let cluster = Cluster::single().await?;
    let functions = [
        "return function (data, event, source, pid)\n\
           if event ~= 'consumers' or source ~= 'crud' then error('wrong arguments') end\n\
           if data.entity.username == nil or type(pid) ~= 'number' then error('wrong data') end\n\
           return true\n\
         end",
        "return function () end",
    ];
    let config = json!({ "functions": functions });
    cluster.admin().hook_consumers("lambda", config).await?;

    cluster.admin().create_consumer("Ada").await?;
    let data = json!({ "entity": { "username": "Grace" } });
    cluster.publish("crud", "consumers", &data).await?;

    let labels = [("handler", "lambda"), ("outcome", "delivered")];
    eventually(SOON, "two deliveries", async || {
        let metric = "hookline_deliveries_total";
        let delivered = cluster.dispatchers_metric(metric, &labels).await?;
        ensure!(delivered > 1.5, "{delivered}");
        Ok(())
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_script_does_not_stall_other_hooks() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let functions = json!({ "functions": ["return function () while true do end end"] });
    let endless = admin.hook_consumers("lambda", functions).await?;
    let greedy = json!({ "functions": [
        "return function () local t = {} while true do t[#t+1] = string.rep('x', 1e6) .. #t end end"
    ] });
    let greedy = admin.hook_consumers("lambda", greedy).await?;
    admin.webhook(&cluster.receiver.url("/hook")).await?;

    for n in 0..20 {
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }
    cluster.receiver.wait_for("/hook", 20).await?;

    // Their deliveries are parked or dead by now. Deleting the hooks deletes those too.
    for hook in [&endless, &greedy] {
        let path = format!("/event-hooks/{}", e2e::admin::id(hook)?);
        admin.delete(&path).await?.expect(204)?;
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_does_not_compile_is_refused() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({ "functions": ["return function ("] });
    let hook = e2e::admin::hook("crud", "consumers", "lambda", config);
    let error = cluster.admin().post("/event-hooks", &hook).await?;
    let error = error.expect(400)?;
    assert_eq!(error["name"], "schema violation");
    assert_eq!(error["code"], 2);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_logs_with_its_hook_and_its_level() -> Result {
    let cluster = Cluster::single().await?;
    let script = "return function (data) kong.log.warn('hears ', data.entity.username, ' ', 1e15) \
                  print('pr' .. 'inted') return data.entity.owner.name end";
    let config = json!({ "functions": [script] });
    let hook = cluster.admin().hook_consumers("lambda", config).await?;
    cluster.admin().create_consumer("Ada").await?;
    let dead = cluster.nats.dead_letters(1).await?;
    let said = reason(&dead[0]);
    let named = "attempt to index nil with 'name' (data.entity.owner is nil)";
    assert!(said.contains(named), "{said}");
    for (text, level) in [("hears Ada 1e+15", "WARN"), ("printed", "INFO")] {
        let lines = lines_with(&cluster, text);
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!(lines[0].level(), level);
        assert_eq!(*lines[0].field("hook"), hook["id"]);
        let delivery = lines[0].field("delivery").to_string();
        assert!(
            dead[0].subject.contains(delivery.trim_matches('"')),
            "{delivery}"
        );
    }
    let leftovers = Leftovers { dead: 1, parked: 0 };
    cluster.finish_leaving(leftovers).await
}
