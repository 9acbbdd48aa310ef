//! A Redis Cluster of three masters.

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::RedisServer;
use crate::SOON;
use crate::wait::eventually;

const SLOTS: u32 = 16_384;
const NODES: u32 = 3;

/// A lost node takes its third of the keys with it; the others go on.
#[derive(Debug)]
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
    _dir: TempDir,
}

impl RedisCluster {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hookline-").tempdir()?;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let (name, state) = (format!("redis-{number}"), format!("nodes-{number}.conf"));
            // The default, 10,000 above the port, may be taken.
            let bus = crate::ports::free()?.to_string();
            let args = [
                ["--cluster-enabled", "yes"],
                ["--cluster-config-file", &state],
                ["--cluster-node-timeout", "2000"],
                ["--cluster-require-full-coverage", "no"],
                ["--cluster-port", &bus],
            ];
            let mut node = RedisServer::with_args(dir.path(), &name, args.as_flattened())?;
            node.start().await?;
            let (first, last) = (SLOTS * number / NODES, SLOTS * (number + 1) / NODES - 1);
            let take = format!("CLUSTER ADDSLOTSRANGE {first} {last}");
            ensure!(node.ask(&take).await?.starts_with("+OK"), "no slots");
            nodes.push((node, bus));
        }
        let (first, others) = nodes.split_first().expect("there are three");
        for (node, bus) in others {
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port());
            ensure!(first.0.ask(&meet).await?.starts_with("+OK"), "no meeting");
        }
        let nodes: Vec<_> = nodes.into_iter().map(|(node, _)| node).collect();
        eventually(SOON, "the Redis Cluster is whole", async || {
            for node in &nodes {
                let info = node.ask("CLUSTER INFO").await?;
                ensure!(info.contains("cluster_state:ok"), "{info}");
                ensure!(info.contains("cluster_known_nodes:3"), "{info}");
                ensure!(info.contains("cluster_slots_ok:16384"), "{info}");
            }
            Ok(())
        })
        .await?;
        Ok(Self { nodes, _dir: dir })
    }

    /// As a dispatcher is given it.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()));
        format!("redis+cluster://{}", hosts.collect::<Vec<_>>().join(","))
    }

    /// The number of keys on each node.
    pub async fn sizes(&self) -> Result<Vec<u64>> {
        let mut sizes = Vec::new();
        for node in &self.nodes {
            let answer = node.ask("DBSIZE").await?;
            sizes.push(answer.trim().trim_start_matches(':').parse()?);
        }
        Ok(sizes)
    }
}
