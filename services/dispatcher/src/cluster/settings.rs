//! The settings that all dispatchers must have in common, by name, and the id of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Config;

/// Of what is stored.
const MAX_BYTES: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) cluster: Uuid,
    #[serde(rename = "settings")]
    pub(super) values: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {own:?} here and {clusters:?} in the cluster")]
pub(crate) struct Difference {
    name: String,
    own: String,
    clusters: String,
}

impl Settings {
    /// Those of this dispatcher, as the first of a new cluster.
    pub(super) fn of(config: &Config) -> Self {
        let duration = |duration| humantime::format_duration(duration).to_string();
        let (redis, hooks, attempts) = (&config.redis, &config.hooks, &config.attempts);
        let mut networks: Vec<_> = attempts
            .egress_allow
            .iter()
            .map(|net| net.trunc())
            .collect();
        networks.sort_unstable();
        networks.dedup();
        let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
        let schedule: Vec<_> = attempts
            .retry_schedule
            .iter()
            .copied()
            .map(duration)
            .collect();
        let proxy = attempts.proxy().ok().flatten();
        let proxy = proxy.map(|proxy| proxy.address());
        let past: BTreeSet<_> = attempts.no_proxy.split(',').map(str::trim).collect();
        let past: Vec<_> = past.into_iter().filter(|host| !host.is_empty()).collect();
        let values = [
            // Otherwise one gives up what another would deliver.
            ("HOOKLINE_EGRESS_ALLOW", networks.join(",")),
            ("HOOKLINE_RETRY_SCHEDULE", schedule.join(",")),
            ("HOOKLINE_MAX_AGE", duration(hooks.max_age)),
            (
                "HOOKLINE_HOOK_BACKLOG",
                hooks.parking.hook_backlog.to_string(),
            ),
            ("HOOKLINE_LAMBDA_MEMORY", attempts.lambda_memory.to_string()),
            (
                "HOOKLINE_ALLOW_HOST_HEADER",
                hooks.allowances.allow_host_header.to_string(),
            ),
            (
                "HOOKLINE_ALLOW_UNVERIFIED_TLS",
                hooks.allowances.allow_unverified_tls.to_string(),
            ),
            // Otherwise one goes past it.
            ("HOOKLINE_PROXY", proxy.unwrap_or_default()),
            ("HOOKLINE_NO_PROXY", past.join(",")),
            // Otherwise one repeats what another is doing or has done.
            ("HOOKLINE_ACK_WAIT", duration(config.lanes.ack_wait)),
            ("HOOKLINE_LEASE", duration(redis.lease)),
            ("HOOKLINE_DEDUPE_WINDOW", duration(redis.dedupe_window)),
        ];
        Self {
            cluster: Uuid::new_v4(),
            values: values.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let body = Some(body).filter(|body| body.len() <= MAX_BYTES)?;
        serde_json::from_slice(body).ok()
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What the cluster has otherwise.
    pub(super) fn differences(&self, cluster: &Self) -> Vec<Difference> {
        let difference = |(name, own): (&String, &String)| {
            let clusters = cluster
                .values
                .get(name)
                .filter(|clusters| *clusters != own)?;
            Some(Difference {
                name: name.clone(),
                own: own.clone(),
                clusters: clusters.clone(),
            })
        };
        self.values.iter().filter_map(difference).collect()
    }

    /// With what it does not have.
    pub(super) fn with(&self, others: &Self) -> Self {
        let mut together = self.clone();
        for (name, value) in &others.values {
            together
                .values
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        together
    }
}

pub(super) fn list(differences: &[Difference]) -> String {
    let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn settings(arguments: &[&str]) -> Settings {
        let arguments = std::iter::once(&"hookline-dispatcher").chain(arguments);
        Settings::of(&Config::try_parse_from(arguments).expect("valid arguments"))
    }

    #[test]
    fn another_spelling_is_no_difference() {
        let one = settings(&[
            "--egress-allow",
            "10.0.0.0/8,127.0.0.1",
            "--no-proxy",
            "a.test,b.test",
        ]);
        let other = [
            "--egress-allow",
            "127.0.0.1/32,10.1.2.3/8,127.0.0.1",
            "--lease",
            "6000ms",
            "--no-proxy",
            "b.test, a.test,",
        ];
        assert_eq!(list(&one.differences(&settings(&other))), "");
    }

    #[test]
    fn a_difference_names_the_setting_and_both_values() {
        let here = settings(&["--retry-schedule", "1s,5s"]);
        let cluster = settings(&["--egress-allow", "::1", "--retry-schedule", "1s"]);
        assert_eq!(
            list(&here.differences(&cluster)),
            "HOOKLINE_EGRESS_ALLOW is \"\" here and \"::1/128\" in the cluster; \
             HOOKLINE_RETRY_SCHEDULE is \"1s,5s\" here and \"1s\" in the cluster"
        );
    }

    #[test]
    fn what_is_stored_keeps_its_values_and_gets_new_ones() {
        let mut stored = settings(&["--lease", "5s"]);
        stored.values.remove("HOOKLINE_ACK_WAIT");
        stored
            .values
            .insert("HOOKLINE_OF_TOMORROW".to_owned(), "1".to_owned());
        let read = Settings::read(stored.text().as_bytes());
        assert_eq!(read.as_ref(), Some(&stored));
        let together = stored.with(&settings(&[]));
        assert_eq!(together.values["HOOKLINE_LEASE"], "5s");
        assert_eq!(together.values["HOOKLINE_ACK_WAIT"], "8s");
        assert_eq!(together.values["HOOKLINE_OF_TOMORROW"], "1");
        assert_eq!(Settings::read(b"{}"), None);
        assert_eq!(Settings::read(b"\xff"), None);
    }
}
