//! Hooks whose templates and scripts try to stop or slow gateways and dispatchers.

use std::time::Duration;

use anyhow::ensure;
use e2e::{Cluster, Leftovers, Result, admin, eventually};
use hookline_shared::subject;
use serde_json::{Value, json};

/// A generous time for all hostile deliveries to end.
const LONG: Duration = Duration::from_secs(240);

/// Templates whose syntax tree is as deep as they are long.
fn deep_templates() -> Vec<String> {
    let chains = [
        ("{{ 1", "+1", " }}"),
        ("{{ 1", "-1", " }}"),
        ("{{ 1", "*1", " }}"),
        ("{{ 1", "~1", " }}"),
        ("{{ 1", "**1", " }}"),
        ("{{ 1", " and 1", " }}"),
        ("{{ 1", " or 1", " }}"),
        ("{{ a", ".a", " }}"),
        ("{{ a", "[0]", " }}"),
        ("{{ a", "[:]", " }}"),
        ("{{ a", "|upper", " }}"),
        ("{{ a", "()", " }}"),
        ("{{ a", " is odd", " }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ a", " if b else a", " }}"),
        ("{% if 1 %}", "{% elif 1 %}", "{% endif %}"),
        ("{% set ", "(", "a"),
        ("{{ ", "a(", ""),
        ("{{ ", "[", ""),
        ("", "{% if 1 %}", ""),
        ("", "{% filter upper %}", ""),
    ];
    let repeated = |(start, part, end): (&str, &str, &str)| {
        [6_435, 59_000 / part.len()].map(|times| {
            let times = times.min(59_000 / part.len());
            format!("{start}{}{end}", part.repeat(times))
        })
    };
    chains.into_iter().flat_map(repeated).collect()
}

/// Templates whose values grow, or whose work does not end.
fn greedy_templates() -> Vec<String> {
    let doubled =
        |used: &str| "{% set a = [1] %}".to_owned() + &"{% set a = [a, a] %}".repeat(28) + used;
    let mut templates: Vec<_> = [
        "{{ a }}",
        "{{ a|tojson }}",
        "{{ a|string }}",
        "{{ a ~ '' }}",
        "{{ a == a }}",
        "{{ a|join }}",
    ]
    .map(doubled)
    .into();
    templates.extend(
        [
            "{% set s = s ~ s %}".repeat(40) + "{{ s }}",
            "{% set s = s|replace('x', 'xx') %}".repeat(40) + "{{ s }}",
            "{% set a = [] %}".to_owned() + &"{% set a = [a] %}".repeat(900) + "{{ a }}",
            "{{ s|tojson(indent=1000000000) }}".to_owned(),
            "{{ l|batch(4999, s)|list|tojson }}".to_owned(),
            "{{ l|slice(5000, s)|list|tojson }}".to_owned(),
            "{{ '%999999999d'|format(1) }}".to_owned(),
            "{% for a in range(99999) %}{% for b in range(99999) %}{{ s }}{% endfor %}{% endfor %}"
                .to_owned(),
            "{% for a in range(99999) %}{% set b = l|sort %}{% endfor %}".to_owned(),
        ]
        .map(String::from),
    );
    templates
}

fn scripts() -> Vec<String> {
    let set = "'[^' .. ('b'):rep(60000) .. '%z]*x'";
    let bodies = [
        format!("string.match(string.rep('a', 8e6), {set})"),
        format!("string.find(string.rep('a', 8e6), {set})"),
        format!("string.gsub(string.rep('a', 8e6), {set}, '')"),
        format!("string.gmatch(string.rep('a', 8e6), {set})()"),
        format!("local a = ('a'):rep(7e5) {}", "_ = a .. a ".repeat(4_000)),
        format!(
            "local a, b = ('a'):rep(7e6), ('a'):rep(7e6) {}",
            "_ = a < b ".repeat(4_000)
        ),
        format!("local d = ('1'):rep(7e6) {}", "_ = d + 1 ".repeat(4_000)),
        "os.date(string.rep('%c', 1e6))".to_owned(),
        "while true do end".to_owned(),
        "local t = {} while true do t[#t + 1] = ('x'):rep(1e4) .. #t end".to_owned(),
    ];
    bodies
        .map(|body| format!("return function() {body} end"))
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_templates_and_scripts_stop_nobody() -> Result {
    let cluster = Cluster::double().await?;
    cluster.webhook("/healthy").await?;
    cluster.receiver.wait_for_ping("/healthy").await?;
    let url = cluster.receiver.url("/hostile");
    let custom = |config: Value| {
        let mut config = config;
        config["url"] = json!(url);
        config["method"] = json!("POST");
        admin::hook("crud", "consumers", "webhook-custom", config)
    };
    let mut hooks: Vec<_> = deep_templates()
        .iter()
        .map(|body| custom(json!({ "body": body })))
        .collect();
    for body in greedy_templates() {
        hooks.push(custom(
            json!({ "body": body, "headers": { "content-type": "application/json" } }),
        ));
        hooks.push(custom(json!({ "payload": { "text": body } })));
        hooks.push(custom(
            json!({ "headers": { "x-text": body }, "headers_format": true }),
        ));
    }
    hooks.extend(scripts().iter().map(|script| {
        admin::hook(
            "crud",
            "consumers",
            "lambda",
            json!({ "functions": [script] }),
        )
    }));
    let (mut accepted, mut refused) = (0, 0);
    for hook in &hooks {
        let answer = cluster.admin().post("/event-hooks", hook).await?;
        match answer.status {
            201 => accepted += 1,
            400 => {
                refused += 1;
                let text = answer.body.to_string();
                ensure!(
                    text.contains("template") || text.contains("function"),
                    "{text}"
                );
            }
            status => anyhow::bail!("{status} for {hook}"),
        }
    }
    assert!(
        refused >= deep_templates().len(),
        "{refused} of {} are refused",
        hooks.len()
    );
    assert!(accepted >= 20, "{accepted} of {} are accepted", hooks.len());

    let data = json!({ "s": "x".repeat(100_000), "l": (0..1_000).collect::<Vec<_>>() });
    for round in 1..=4 {
        cluster.publish("crud", "consumers", &data).await?;
        cluster.receiver.wait_for("/healthy", round).await?;
    }
    eventually(LONG, "every event is acked", async || {
        let open = cluster.nats.open_events().await?;
        ensure!(open == 0, "{open} events are open");
        Ok(())
    })
    .await?;
    for dispatcher in &cluster.dispatchers {
        let stuck = dispatcher
            .metric("hookline_stuck_threads_total", &[])
            .await?;
        ensure!(stuck < 0.5, "{stuck} threads are stuck");
        let memory = dispatcher
            .metric("process_resident_memory_bytes", &[])
            .await?;
        ensure!(memory < 400e6, "{memory} bytes of memory");
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_hook_that_cannot_be_prepared_stops_no_start_and_its_deliveries_wait() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/healthy").await?;
    cluster.receiver.wait_for_ping("/healthy").await?;
    // As an earlier version accepted it.
    let config = json!({ "url": cluster.receiver.url("/broken"), "method": "POST", "body": "{{ entity.username }}" });
    let mut hook = cluster
        .admin()
        .hook_consumers("webhook-custom", config)
        .await?;
    let path = format!("/event-hooks/{}", admin::id(&hook)?);
    let key = subject::entity_key("default", subject::HOOK_KIND, admin::id(&hook)?);
    hook["config"]["body"] = json!(format!("{{{{ 1{} }}}}", "+1".repeat(6_435)));
    cluster.nats.publish(&key, hook.to_string()).await?;
    cluster.nats.publish(subject::HOOKS_REVISION, "").await?;
    cluster.dispatchers[0].stop().await?;
    cluster.dispatchers[0].start()?;
    cluster.dispatchers[0].ready().await?;
    cluster.admin().create_consumer("one").await?;
    cluster.receiver.wait_for("/healthy", 1).await?;
    let unusable = cluster
        .dispatchers_metric("hookline_hooks_unusable", &[])
        .await?;
    assert!(
        (unusable - 1.0).abs() < 0.1,
        "{unusable} hooks are reported"
    );
    let parked = [("reason", "unusable")];
    eventually(LONG, "its delivery waits", async || {
        let waits = cluster
            .dispatchers_metric("hookline_deferrals_total", &parked)
            .await?;
        ensure!(waits > 0.5, "{waits} deferrals");
        Ok(())
    })
    .await?;
    let mended = json!({ "config": { "body": "{{ entity.username }}" } });
    cluster.admin().patch(&path, &mended).await?.expect(200)?;
    cluster.receiver.wait_for_total(2, LONG).await?;
    assert_eq!(cluster.receiver.events("/broken")[0].text(), "one");
    cluster.finish_leaving(Leftovers::default()).await
}

/// An event at which each process that attempts it ends, among others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_ends_its_workers_is_buried_and_the_others_are_made_once() -> Result {
    const OTHERS: usize = 400;
    let cluster = Cluster::builder()
        .dispatchers(3)
        .dispatcher_env("HOOKLINE_TEST_ABORT", "poison");
    let mut cluster = cluster.start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    for number in 0..OTHERS {
        if number == OTHERS / 2 {
            cluster
                .publish("crud", "consumers", &json!({ "text": "poison" }))
                .await?;
        }
        cluster
            .publish("crud", "consumers", &json!({ "n": number }))
            .await?;
    }
    let mut ends = 0;
    let end = std::time::Instant::now() + LONG;
    while cluster.nats.count(e2e::wire::DEAD).await? == 0 {
        ensure!(
            std::time::Instant::now() < end,
            "it is not buried after {ends} ends"
        );
        for dispatcher in &mut cluster.dispatchers {
            if dispatcher.check_running().is_err() {
                ends += 1;
                dispatcher.start()?;
            }
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(ends, 4, "deaths");
    cluster.receiver.wait_for_total(OTHERS, LONG).await?;
    let dead = cluster.nats.dead_letters(1).await?;
    assert_eq!(e2e::nats::reason(&dead[0]), "it has stopped its workers");
    // What was in flight in a process that ended may be made again, and nothing else.
    let made = cluster.receiver.events("/hook").len();
    assert!(made < OTHERS + 4 * 256, "{made} of {OTHERS}");
    Ok(())
}
