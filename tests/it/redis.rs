//! Every kind of Redis: with a user and password, over TLS, a cluster, a master named by sentinels.

use anyhow::ensure;
use e2e::{
    Authority, Cluster, RedisCluster, RedisServer, Result, SOON, Sentinel, Validity, eventually,
};

/// Creates a consumer and waits until every hook has heard of it.
async fn deliver(cluster: &Cluster, username: &str, paths: &[String], count: usize) -> Result {
    cluster.admin().create_consumer(username).await?;
    for path in paths {
        cluster.receiver.wait_for(path, count).await?;
    }
    Ok(())
}

async fn redis_is_up(cluster: &Cluster) -> Result {
    eventually(SOON, "the dispatcher reaches Redis", async || {
        let up = cluster
            .dispatchers_metric("hookline_redis_connected", &[])
            .await?;
        ensure!(up == 1.0, "it does not");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_as_a_user_with_a_password() -> Result {
    let dir = tempfile::tempdir()?;
    let users = "--user hookline on >s3cret ~hookline:* +@all --user default off";
    let users: Vec<_> = users.split(' ').collect();
    let mut redis = RedisServer::with_args(dir.path(), "redis-acl", &users)?;
    redis.start().await?;
    let url = format!("redis://hookline:s3cret@127.0.0.1:{}", redis.port());
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_REDIS_URL", &url)
        .start()
        .await?;
    let paths = ["/hook".to_owned()];
    cluster.webhook(&paths[0]).await?;
    deliver(&cluster, "consumer", &paths, 1).await?;
    redis_is_up(&cluster).await?;
    let skipped = async || {
        let metric = "hookline_deliveries_unguarded_total";
        cluster.dispatchers_metric(metric, &[]).await
    };
    assert_eq!(skipped().await?, 0.0);

    // Without Redis, claims are counted as skipped, and the log names the server.
    redis.kill();
    deliver(&cluster, "another", &paths, 2).await?;
    assert!(skipped().await? > 0.0);
    let log = cluster.dispatchers[0].process().log();
    assert!(log.contains(&redis.port().to_string()), "{log}");
    assert!(!log.contains("s3cret"));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_over_tls_and_only_with_a_valid_certificate() -> Result {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let trusted = authority.file().display().to_string();
    for (validity, skips) in [(Validity::Valid, false), (Validity::Expired, true)] {
        let mut cluster = Cluster::builder()
            .dispatcher_env("SSL_CERT_FILE", &trusted)
            .prepare()
            .await?;
        let front = authority.front(cluster.redis.port(), validity).await?;
        let url = format!("rediss://localhost:{}", front.port());
        cluster.dispatchers[0].set("HOOKLINE_REDIS_URL", &url);
        cluster.start().await?;
        let path = "/hook".to_owned();
        cluster.webhook(&path).await?;
        deliver(&cluster, "consumer", &[path], 1).await?;
        let skipped = cluster.dispatchers_metric("hookline_deliveries_unguarded_total", &[]);
        assert_eq!(skipped.await? > 0.0, skips, "{validity:?}");
        assert!(front.connections() > 0);
        cluster.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_that_loses_a_master_costs_no_delivery() -> Result {
    let mut redis = RedisCluster::start().await?;
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_REDIS_URL", &redis.url())
        .start()
        .await?;
    let paths: Vec<_> = (0..24).map(|n| format!("/hook/{n}")).collect();
    for path in &paths {
        cluster.webhook(path).await?;
    }
    deliver(&cluster, "all-there", &paths, 1).await?;
    cluster.rest().await?;
    let sizes = redis.sizes().await?;
    assert!(
        sizes.iter().all(|size| *size > 0),
        "every node is used: {sizes:?}"
    );

    redis.nodes[1].kill();
    deliver(&cluster, "one-lost", &paths, 2).await?;
    // Hooks whose keys are on other nodes are still protected against repeats.
    let before = redis.nodes[0].ask("DBSIZE").await?;
    deliver(&cluster, "one-still-lost", &paths, 3).await?;
    eventually(SOON, "the nodes that are left take claims", async || {
        let now = redis.nodes[0].ask("DBSIZE").await?;
        ensure!(now != before, "none was taken: {now}");
        Ok(())
    })
    .await?;

    redis.nodes[1].start().await?;
    redis_is_up(&cluster).await?;
    deliver(&cluster, "back", &paths, 4).await?;
    cluster.rest().await?;
    for path in &paths {
        assert_eq!(cluster.receiver.events(path).len(), 4, "{path}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_named_by_sentinels_is_followed() -> Result {
    let mut redis = Sentinel::start().await?;
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_REDIS_URL", &redis.url())
        .start()
        .await?;
    let paths = ["/hook".to_owned()];
    cluster.webhook(&paths[0]).await?;
    deliver(&cluster, "first-master", &paths, 1).await?;
    cluster.rest().await?;
    assert!(redis.master.ask("DBSIZE").await?.trim() != ":0");

    redis.master.kill();
    deliver(&cluster, "no-master", &paths, 2).await?;
    eventually(SOON, "the replica is the master", async || {
        let role = redis.replica.ask("ROLE").await?;
        ensure!(role.contains("master"), "{role}");
        Ok(())
    })
    .await?;
    redis_is_up(&cluster).await?;
    let before = redis.replica.ask("DBSIZE").await?;
    deliver(&cluster, "second-master", &paths, 3).await?;
    cluster.rest().await?;
    assert_ne!(redis.replica.ask("DBSIZE").await?, before);
    assert_eq!(cluster.receiver.events(&paths[0]).len(), 3);
    cluster.finish().await
}
