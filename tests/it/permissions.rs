//! The accounts and permissions that are shipped: documented, sufficient, and no more than that.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use e2e::service::FORBIDDEN;
use e2e::{Cluster, NatsServer, RawNats, Result, SOON, binaries, eventually, nats, wire};
use futures::StreamExt as _;

const USERS: [&str; 4] = ["gateway", "dispatcher", "injector", "observer"];

/// User, what it may do, and a filter of subjects.
type Right = (String, String, String);

/// The table of docs/security.md.
fn documented() -> Result<BTreeSet<Right>> {
    let path = binaries::workspace().join("docs/security.md");
    let mut rights = BTreeSet::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [subject, users @ ..] = &cells[..] else {
            continue;
        };
        let is_subject = subject.starts_with('`') && users.len() == USERS.len();
        for (user, may) in USERS.iter().zip(users.iter().filter(|_| is_subject)) {
            for verb in may.split(" and ").filter(|verb| !verb.is_empty()) {
                let subject = subject.trim_matches('`').to_owned();
                rights.insert(((*user).to_owned(), verb.to_owned(), subject));
            }
        }
    }
    Ok(rights)
}

/// The lists of deploy/nats/accounts.conf.
fn shipped() -> Result<BTreeSet<Right>> {
    let text = std::fs::read_to_string(nats::accounts())?;
    let (mut user, mut verb, mut rights) = (String::new(), String::new(), BTreeSet::new());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("user: ") {
            name.clone_into(&mut user);
        }
        for list in ["publish", "subscribe"] {
            if line.starts_with(&format!("{list}: [")) {
                list.clone_into(&mut verb);
            }
        }
        if !verb.is_empty() && !line.starts_with('#') {
            let quoted = line.split('"').skip(1).step_by(2);
            rights.extend(quoted.map(|s| (user.clone(), verb.clone(), s.to_owned())));
        }
        if line.ends_with(']') {
            verb.clear();
        }
    }
    Ok(rights)
}

#[test]
fn the_documented_permissions_are_the_shipped_ones() -> Result {
    let (documented, shipped) = (documented()?, shipped()?);
    ensure!(shipped.len() > 70, "{} rights", shipped.len());
    let missing: Vec<_> = shipped.difference(&documented).collect();
    let more: Vec<_> = documented.difference(&shipped).collect();
    ensure!(missing.is_empty(), "not in docs/security.md: {missing:?}");
    ensure!(more.is_empty(), "not in accounts.conf: {more:?}");
    Ok(())
}

/// What none of them may publish to.
const NEVER: [&str; 23] = [
    "$JS.API.STREAM.DELETE.KV_hookline",
    "$JS.API.STREAM.DELETE.HOOKLINE_EVENTS",
    "$JS.API.STREAM.UPDATE.KV_hookline",
    "$JS.API.STREAM.UPDATE.HOOKLINE_EVENTS",
    "$JS.API.STREAM.UPDATE.HOOKLINE_DELIVERIES",
    "$JS.API.STREAM.CREATE.another",
    "$JS.API.STREAM.SNAPSHOT.KV_hookline",
    "$JS.API.STREAM.RESTORE.KV_hookline",
    "$JS.API.STREAM.LEADER.STEPDOWN.KV_hookline",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.CONSUMER.DELETE.HOOKLINE_EVENTS.dispatchers",
    "$JS.API.CONSUMER.PAUSE.HOOKLINE_EVENTS.dispatchers",
    "$JS.API.CONSUMER.CREATE.HOOKLINE_DEAD.another",
    "$JS.API.CONSUMER.CREATE.HOOKLINE_EVENTS.another",
    "$JS.API.CONSUMER.DURABLE.CREATE.HOOKLINE_EVENTS.dispatchers",
    "$SYS.REQ.SERVER.PING",
    "$KV.hookline.another",
    "hookline.deliveries.due.h.d",
    "hookline.watch.default.crud.consumers",
    "_INBOX.gateway.1",
    "_INBOX.dispatcher.1",
    "_R_.1",
];

/// Events of another workspace, which only gateways may raise.
const ANOTHER: &str = "hookline.events.another.crud.consumers";

/// What none of them may listen to.
const UNHEARD: [&str; 8] = [
    ">",
    "hookline.>",
    "hookline.events.>",
    "hookline.deliveries.>",
    "$KV.>",
    "$JS.>",
    "$SYS.>",
    "_INBOX.another.>",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_right_that_is_not_listed_is_refused() -> Result {
    let mut cluster = Cluster::builder().production().start().await?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.stop().await?;
    }
    let rights = documented()?;
    let mut tried = 0;
    for user in USERS {
        let (port, secrets) = (cluster.nats.port(), cluster.secrets());
        let mut raw = RawNats::connect_securely(port, user, secrets).await?;
        let inbox = format!("_INBOX.{user}.1");
        for (verb, never) in [("publish", &NEVER[..]), ("subscribe", &UNHEARD[..])] {
            let of_all = rights.iter().filter(|right| right.1 == verb);
            let listed = of_all.map(|right| right.2.replace('*', "x").replace('>', "x.y"));
            let subjects: BTreeSet<_> = listed
                .chain(never.iter().map(ToString::to_string))
                .chain([ANOTHER.to_owned()])
                .collect();
            for subject in subjects {
                let covers = |right: &Right| {
                    right.0 == user && right.1 == verb && covers(&right.2, &subject)
                };
                let expected = rights.iter().any(covers);
                // An inbox of clients that are not ours is theirs to share.
                let is_never = never.contains(&&*subject) && !subject.starts_with("_INBOX");
                ensure!(!(expected && is_never), "{user} may {verb} {subject}");
                let is_injected = user == "injector" && subject == ANOTHER;
                ensure!(!(expected && is_injected), "{user} may {verb} {subject}");
                let may = match verb {
                    "publish" => raw.may_publish(&subject, &inbox).await?,
                    _ => raw.may_subscribe(&subject).await?,
                };
                ensure!(may == expected, "{user}, {verb} {subject}: {may}");
                tried += 1;
            }
        }
    }
    ensure!(tried > 300, "{tried}");
    cluster.finish_unchecked().await
}

/// Whether a filter covers a subject, which may be a filter itself.
fn covers(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", token) => return token.is_some(),
            ("*", Some(token)) if token != ">" => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injectors_raise_events_and_observers_watch_them() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    let observer = cluster.nats.client_as("observer").await?;
    let mut watch = observer.subscribe("hookline.watch.>").await?;
    observer.flush().await?;
    let injector = cluster.nats.client_as("injector").await?;
    let subject = wire::event("crud", "consumers");
    // The subscription of another connection may take effect a moment later.
    let seen = eventually(SOON, "the observer sees an event", async || {
        let stored = injector
            .request(subject.clone(), "{\"n\":1}".into())
            .await?;
        let answer: serde_json::Value = serde_json::from_slice(&stored.payload)?;
        ensure!(answer["seq"].is_u64(), "{answer}");
        let next = tokio::time::timeout(std::time::Duration::from_secs(1), watch.next()).await;
        next?.context("the watch ended")
    })
    .await?;
    assert_eq!(&*seen.subject, "hookline.watch.default.crud.consumers");
    cluster.receiver.wait_for("/hook", 1).await?;

    let info = "$JS.HOOKLINE.API.STREAM.INFO.HOOKLINE_EVENTS";
    let answer = observer.request(info, "".into()).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    assert_eq!(answer["config"]["name"], wire::EVENTS);
    // The bucket's keys hold names and ids.
    let bucket = "$JS.HOOKLINE.API.STREAM.INFO.KV_hookline";
    assert!(observer.request(bucket, "".into()).await.is_err());
    cluster.finish().await
}

/// How many messages each stream holds or held.
async fn written(nats: &NatsServer) -> Result<Vec<u64>> {
    let mut written = Vec::new();
    for name in [wire::BUCKET, wire::EVENTS, wire::DELIVERIES, wire::DEAD] {
        written.push(nats.stream(name).await?.cached_info().state.last_sequence);
    }
    Ok(written)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_writes_no_answer_into_a_stream() -> Result {
    let mut cluster = Cluster::single().await?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.stop().await?;
    }
    let replies = [
        "$KV.hookline.entity.default.consumers.x",
        "hookline.events.another.crud.consumers",
        "hookline.events.default.crud.consumers",
        "hookline.deliveries.wait.h.d",
        "hookline.deliveries.due.h.d",
        "hookline.dead.h.d",
        "hookline.rpc.ping",
    ];
    let event = wire::event("crud", "consumers");
    let info = "$JS.HOOKLINE.API.STREAM.INFO.HOOKLINE_EVENTS";
    let port = cluster.nats.port();
    let mut injector = RawNats::connect(port, "injector").await?;
    let mut observer = RawNats::connect(port, "observer").await?;
    let mut operator = RawNats::connect(port, "operator").await?;
    // A request that is answered after all before.
    let mut settled = async || {
        operator
            .publish(b"hookline.dead.settled.d", b"NATS/1.0\r\n\r\n", b"{}")
            .await
    };
    settled().await?;
    for reply in replies {
        let before = written(&cluster.nats).await?;
        assert!(injector.may_publish(&event, reply).await?);
        assert!(observer.may_publish(info, reply).await?);
        settled().await?;
        let after = written(&cluster.nats).await?;
        let [bucket, events, deliveries, dead] = before[..] else {
            anyhow::bail!("four streams");
        };
        assert_eq!(after, [bucket, events + 1, deliveries, dead + 1], "{reply}");
    }
    // The control: within the account the server does so.
    let before = written(&cluster.nats).await?;
    let mut operator = RawNats::connect(port, "operator").await?;
    assert!(operator.may_publish(&event, "hookline.dead.h.d").await?);
    eventually(SOON, "the server's answer is stored", async || {
        let after = written(&cluster.nats).await?;
        ensure!(after[3] > before[3], "not yet");
        Ok(())
    })
    .await?;
    // By now a late answer of one of the others would be stored as well.
    let after = written(&cluster.nats).await?;
    assert_eq!(after, [before[0], before[1] + 1, before[2], before[3] + 1]);
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_named() -> Result {
    let rights = [
        ("gateway", "$JS.API.STREAM.INFO.*", true),
        ("gateway", "$JS.API.STREAM.CREATE.HOOKLINE_EVENTS", true),
        ("gateway", "_INBOX.gateway.>", true),
        ("gateway", "$JS.API.CONSUMER.CREATE.KV_hookline", false),
        ("gateway", "$KV.hookline.entity.>", false),
        ("dispatcher", "$JS.API.STREAM.INFO.*", true),
        ("dispatcher", "_INBOX.dispatcher.>", true),
        ("dispatcher", "hookline.rpc.*", false),
        ("dispatcher", "$JS.API.STREAM.MSG.GET.KV_hookline", true),
        ("dispatcher", "$KV.hookline.cluster.dispatchers", true),
        (
            "dispatcher",
            "$JS.API.CONSUMER.MSG.NEXT.HOOKLINE_EVENTS.dispatchers",
            false,
        ),
    ];
    for (user, right, ends) in rights {
        let mut cluster = Cluster::builder().prepare().await?;
        cluster.nats.forbid(user, right)?;
        cluster.nats.start().await?;
        cluster.redis.start().await?;
        let service = match user {
            "gateway" => &mut cluster.gateways[0],
            _ => &mut cluster.dispatchers[0],
        };
        service.start()?;
        eventually(SOON, right, async || {
            let log = service.process().log();
            let named = right.trim_end_matches(['*', '>']);
            let line = log.lines().find(|line| line.contains(FORBIDDEN));
            ensure!(line.is_some_and(|line| line.contains(named)), "{log}");
            Ok(())
        })
        .await?;
        if ends {
            assert_ne!(service.process_mut().exit_code(SOON).await?, 0, "{right}");
        }
        let log = service.process().log();
        assert!(!log.contains("JetStream is not ready"), "{right}: {log}");
        service.process_mut().kill();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_ends_a_service() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    cluster.nats.start().await?;
    let url = cluster
        .nats
        .url()
        .replace("nats://", "nats://gateway:wrong@");
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.set("HOOKLINE_NATS_URL", &url);
        service.start()?;
        assert_ne!(service.process_mut().exit_code(SOON).await?, 0);
        let log = service.process().log();
        assert!(log.contains("NATS refused the credentials"), "{log}");
        assert!(!log.contains("wrong"), "{log}");
    }
    Ok(())
}
