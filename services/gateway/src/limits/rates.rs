//! How many requests a second a node answers: for each workspace, in all, and for each address of those that are for no
//! workspace, or not let in. So nobody uses up what others may ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Allowance, Options, PerWorkspace};
use crate::access::place;

/// Addresses that are remembered.
const ADDRESSES: usize = 65_536;
/// When to come back where nothing is answered.
const NEVER: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
pub(crate) struct Rates {
    /// Also of an address.
    node: Option<f64>,
    all: Mutex<Allowance>,
    of_workspace: Option<PerWorkspace>,
    workspaces: Mutex<HashMap<String, Allowance>>,
    addresses: Mutex<HashMap<IpAddr, Allowance>>,
}

/// For whom a request counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who<'a> {
    /// One that there is.
    Workspace(&'a str),
    Address(IpAddr),
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("too many {what}{of}: {most} a second are {done} ({setting}); try again in {wait:.1?}")]
pub(crate) struct TooFast {
    what: &'static str,
    done: &'static str,
    /// Whose, in words.
    of: String,
    most: f64,
    setting: &'static str,
    pub(crate) wait: Duration,
}

impl Rates {
    pub(crate) fn new(options: &Options) -> Self {
        let node = options.admin_max_requests.map(|most| most as f64);
        Self {
            node,
            all: Mutex::new(Allowance::full(node.unwrap_or_default())),
            of_workspace: options.workspace_requests.clone(),
            workspaces: Mutex::default(),
            addresses: Mutex::default(),
        }
    }

    /// Counts a request.
    pub(crate) fn take(&self, who: Who<'_>) -> Result<(), TooFast> {
        match who {
            Who::Workspace(workspace) => {
                // First the workspace: what it may not ask costs the others nothing.
                if let Some(most) = &self.of_workspace {
                    let most = most.of(workspace) as f64;
                    let taken = take(&mut self.workspaces.lock(), workspace.to_owned(), most);
                    taken.map_err(|wait| TooFast {
                        what: "requests",
                        done: "answered",
                        of: format!(" in the workspace {workspace}"),
                        most,
                        setting: "HOOKLINE_WORKSPACE_REQUESTS",
                        wait,
                    })?;
                }
                self.take_of_node(String::new(), |most| self.all.lock().take(most, most))
            }
            Who::Address(address) => self.take_of_node(" from this address".to_owned(), |most| {
                let mut addresses = self.addresses.lock();
                if addresses.len() >= ADDRESSES {
                    addresses.retain(|_, allowance| allowance.refill(most, most) < most);
                }
                if addresses.len() >= ADDRESSES {
                    addresses.clear();
                }
                take(&mut addresses, place(address), most)
            }),
        }
    }

    fn take_of_node(
        &self,
        of: String,
        take: impl FnOnce(f64) -> Result<(), Duration>,
    ) -> Result<(), TooFast> {
        let Some(most) = self.node else {
            return Ok(());
        };
        take(most).map_err(|wait| TooFast {
            what: "requests",
            done: "answered",
            of,
            most,
            setting: "HOOKLINE_ADMIN_MAX_REQUESTS",
            wait,
        })
    }
}

/// Events a second that a node takes for a workspace.
#[derive(Debug)]
pub(crate) struct EventRates {
    of_workspace: Option<PerWorkspace>,
    workspaces: Mutex<HashMap<String, Allowance>>,
}

impl EventRates {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            of_workspace: options.ingest_events.clone(),
            workspaces: Mutex::default(),
        }
    }

    /// Counts events that come at once.
    pub(crate) fn take(&self, workspace: &str, events: usize) -> Result<(), TooFast> {
        let Some(most) = &self.of_workspace else {
            return Ok(());
        };
        let most = most.of(workspace) as f64;
        let mut workspaces = self.workspaces.lock();
        let allowance = workspaces
            .entry(workspace.to_owned())
            .or_insert_with(|| Allowance::full(most));
        let taken = match most {
            0.0 => Err(NEVER),
            most => allowance.take_at_once(events as f64, most, most),
        };
        taken.map_err(|wait| TooFast {
            what: "events",
            done: "taken",
            of: format!(" in the workspace {workspace}"),
            most,
            setting: "HOOKLINE_INGEST_EVENTS",
            wait,
        })
    }
}

fn take<K: Eq + Hash>(
    allowances: &mut HashMap<K, Allowance>,
    key: K,
    most: f64,
) -> Result<(), Duration> {
    if most == 0.0 {
        return Err(NEVER);
    }
    let allowance = allowances.entry(key);
    let allowance = allowance.or_insert_with(|| Allowance::full(most));
    allowance.take(most, most)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::Config;

    #[test]
    fn nobody_uses_up_what_others_may_ask() {
        let config = Config::try_parse_from([
            "hookline-gateway",
            "--workspace-requests=20,noisy=5,closed=0",
            "--admin-max-requests=30",
        ]);
        let rates = Rates::new(&config.expect("settings").limits);
        let answered = |who: Who<'_>, asked: usize| {
            let answers = (0..asked).filter(|_| rates.take(who).is_ok());
            answers.count()
        };
        let strangers = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        for stranger in strangers {
            assert_eq!(answered(Who::Address(stranger), 100), 30);
        }
        assert_eq!(answered(Who::Workspace("noisy"), 100), 5);
        assert_eq!(answered(Who::Workspace("closed"), 100), 0);
        assert_eq!(answered(Who::Workspace("quiet"), 20), 20);
        // The rest of the node's.
        assert_eq!(answered(Who::Workspace("other"), 20), 5);
        let refused = rates.take(Who::Workspace("noisy")).expect_err("too fast");
        assert!(refused.wait <= Duration::from_secs(1), "{refused}");
    }
}
