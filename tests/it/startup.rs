//! Startup, settings and the status API.

use std::process::Command;

use anyhow::ensure;
use e2e::{Cluster, RedisServer, Result, SOON, Service, Store, binaries, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Waits until the service logs that it waits for `address`, and is not ready.
async fn waits_for(service: &mut Service, address: &str) -> Result {
    let what = format!("{} waits for {address}", service.process().name());
    eventually(SOON, &what, async || {
        service.check_running()?;
        let log = service.process().log();
        ensure!(log.contains(address), "it says: {log}");
        // The status API may start later than the log.
        let ready = service.status_of("/readyz").await;
        ensure!(!matches!(ready, Ok(200)), "it says that it is ready");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_wait_for_nats_and_redis() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let nats = cluster.nats.url().replace("nats://", "");
    let redis = cluster.redis.url().replace("redis://", "");
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
    }
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        waits_for(service, &nats).await?;
    }

    cluster.nats.start().await?;
    cluster.gateways[0].ready().await?;
    waits_for(&mut cluster.dispatchers[0], &redis).await?;

    cluster.redis.start().await?;
    cluster.ready().await?;
    cluster.webhook("/hook").await?;
    cluster.admin().create_consumer("Ada").await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_service_ends_on_sigterm() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let nats = cluster.nats.url().replace("nats://", "");
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
        waits_for(service, &nats).await?;
        service.stop().await?;
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_answers_on_its_status_address() -> Result {
    let cluster = Cluster::single().await?;
    for service in cluster.gateways.iter().chain(&cluster.dispatchers) {
        let name = service.process().name();
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(service.status_of(path).await?, 200, "{name} {path}");
        }
        assert!(service.metrics().await?.contains("hookline_"), "{name}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_little_storage_stops_the_start_and_names_the_setting() -> Result {
    let builder = Cluster::builder().nats_store(Store::Server(1 << 30));
    let mut cluster = builder.prepare().await?;
    cluster.nats.start().await?;
    cluster.redis.start().await?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
        let code = service.process_mut().exit_code(SOON).await?;
        assert_ne!(code, 0);
        let said = service.process().log();
        ensure!(said.contains("HOOKLINE_EVENTS_MAX_BYTES"), "{said}");
    }
    cluster.finish_unchecked().await
}

/// What a service says, besides what it logs when all is well.
async fn says(service: &mut Service, wanted: &str) -> Result {
    service.start()?;
    let name = service.process().name().to_owned();
    eventually(SOON, &format!("{name} says: {wanted}"), async || {
        let log = service.process().log();
        ensure!(log.contains(wanted), "it says: {log}");
        ensure!(!log.contains("s3cret"), "it tells the password");
        Ok(())
    })
    .await?;
    service.process_mut().kill();
    Ok(())
}

/// Says hello as an old nats-server does. Returns its port.
async fn old_server() -> Result<u16> {
    let old = TcpListener::bind("127.0.0.1:0").await?;
    let hello = format!(
        "INFO {{\"server_id\":\"A\",\"version\":\"2.10.1\",\"proto\":1,\"host\":\"127.0.0.1\",\"port\":{},\"max_payload\":1048576}}\r\n",
        old.local_addr()?.port()
    );
    let old_port = old.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = old.accept().await {
            let hello = hello.clone();
            tokio::spawn(async move {
                let _ = stream.write_all(hello.as_bytes()).await;
                let mut buffer = [0; 1_024];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let _ = stream.write_all(b"PONG\r\n").await;
                }
            });
        }
    });
    Ok(old_port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_or_login_of_nats_is_named() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    cluster.nats.start().await?;
    cluster.redis.start().await?;
    let old_port = old_server().await?;
    let (nats, redis) = (cluster.nats.port(), cluster.redis.port());
    let cases = [
        ("nats.example.com:4222".to_owned(), "NATS is not reachable"),
        (
            format!("http://127.0.0.1:{nats}"),
            "HOOKLINE_NATS_URL must be nats://HOST:PORT",
        ),
        (
            format!("nats://u:s3cret@127.0.0.1:{nats}x"),
            "HOOKLINE_NATS_URL must be nats://HOST:PORT",
        ),
        (
            "nats://no.such.host.invalid".to_owned(),
            "host and port in HOOKLINE_NATS_URL",
        ),
        (
            "nats://127.0.0.1:1".to_owned(),
            "host and port in HOOKLINE_NATS_URL",
        ),
        (
            format!("nats://127.0.0.1:{redis}"),
            "is it a NATS server? check HOOKLINE_NATS_URL",
        ),
        (
            format!("tls://127.0.0.1:{nats}"),
            "HOOKLINE_NATS_URL should begin with nats://",
        ),
        (
            format!("nats://dispatcher:s3cret@127.0.0.1:{nats}"),
            "check user and password in HOOKLINE_NATS_URL",
        ),
        (
            format!("nats://s3cret@127.0.0.1:{nats}"),
            "check user and password in HOOKLINE_NATS_URL",
        ),
        (
            format!("nats://127.0.0.1:{old_port}"),
            "nats-server 2.10.1 is too old: 2.14 or newer is required",
        ),
    ];
    for (url, wanted) in cases {
        for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
            service.set("HOOKLINE_NATS_URL", &url);
            says(service, wanted).await?;
        }
    }
    let url = cluster.nats.url_as("dispatcher");
    let dispatcher = &mut cluster.dispatchers[0];
    dispatcher.set("HOOKLINE_NATS_URL", &url);
    dispatcher.set("HOOKLINE_REPLICAS", "3");
    says(dispatcher, "HOOKLINE_REPLICAS asks for 3 copies").await?;
    dispatcher.set("HOOKLINE_NATS_CREDENTIALS", "/nonexistent");
    says(dispatcher, "give one of a user in HOOKLINE_NATS_URL").await?;
    let plain = format!("nats://127.0.0.1:{nats}");
    dispatcher.set("HOOKLINE_NATS_URL", &plain);
    says(dispatcher, "/nonexistent").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_or_login_of_redis_is_named() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    cluster.nats.start().await?;
    let dir = tempfile::tempdir()?;
    let mut redis = RedisServer::with_args(dir.path(), "closed", &["--requirepass", "right"])?;
    redis.start().await?;
    let (nats, redis) = (cluster.nats.port(), redis.port());
    let refused = "it refuses the user or password in HOOKLINE_REDIS_URL";
    for (url, wanted) in [
        (
            format!("localhost:{redis}"),
            "HOOKLINE_REDIS_URL must be redis://HOST:PORT",
        ),
        (format!("redis://127.0.0.1:{redis}"), refused),
        (format!("redis://:s3cret@127.0.0.1:{redis}"), refused),
        (format!("redis://s3cret:right@127.0.0.1:{redis}"), refused),
        (format!("redis+sentinel://127.0.0.1:{redis}/main"), refused),
        (
            "redis://no.such.host.invalid".to_owned(),
            "check HOOKLINE_REDIS_URL",
        ),
        (
            "redis://127.0.0.1:1".to_owned(),
            "Connection refused (os error 111); check HOOKLINE_REDIS_URL",
        ),
        (
            format!("redis://:right@127.0.0.1:{redis}/99"),
            "DB index is out of range",
        ),
        (
            format!("rediss://:right@127.0.0.1:{redis}"),
            "with TLS if HOOKLINE_REDIS_URL begins with rediss://",
        ),
        (
            format!("redis://127.0.0.1:{nats}"),
            "it does not answer as Redis does",
        ),
        (
            format!("redis+cluster://:right@127.0.0.1:{redis}"),
            "HOOKLINE_REDIS_URL should begin with redis://",
        ),
    ] {
        let dispatcher = &mut cluster.dispatchers[0];
        dispatcher.set("HOOKLINE_REDIS_URL", &url);
        says(dispatcher, wanted).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named() -> Result {
    let mut cluster = Cluster::single().await?;
    let taken = cluster.receiver.port();
    let second = cluster.add_dispatcher()?;
    second.set("HOOKLINE_STATUS_LISTEN", &format!("127.0.0.1:{taken}"));
    says(
        second,
        &format!("cannot listen on 127.0.0.1:{taken} for the status API"),
    )
    .await?;
    let second = cluster.add_gateway()?;
    second.set("HOOKLINE_ADMIN_LISTEN", &format!("127.0.0.1:{taken}"));
    says(second, &format!("cannot listen on 127.0.0.1:{taken}")).await?;
    cluster.finish_unchecked().await
}

#[test]
fn an_unknown_or_wrong_setting_is_refused() -> Result {
    for (program, argument) in [
        ("hookline-gateway", "--no-such-setting"),
        ("hookline-dispatcher", "--no-such-setting"),
        ("hookline-dispatcher", "--lease=soon"),
        ("hookline-dispatcher", "--egress-allow=everything"),
    ] {
        let output = Command::new(binaries::service(program)?)
            .arg(argument)
            .output()?;
        assert_eq!(output.status.code(), Some(2), "{program} {argument}");
        let said = String::from_utf8(output.stderr)?;
        let name = argument.split('=').next().unwrap_or_default();
        assert!(said.contains(name), "{program} {argument}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_with_keys_of_an_earlier_version_stops_the_start() -> Result {
    let mut cluster = Cluster::single().await?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.stop().await?;
    }
    let key = "$KV.hookline.entity.%2A.workspaces.0fd2319f-13ea-4582-a448-8d11893026a8";
    cluster.nats.publish(key, "{}").await?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
        let code = service.process_mut().exit_code(SOON).await?;
        let log = service.process().log();
        ensure!(
            code != 0 && log.contains("nats stream rm KV_hookline"),
            "{code}: {log}"
        );
    }
    Ok(())
}
