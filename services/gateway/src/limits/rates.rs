//! How many requests a second a node answers, for each workspace and in all.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Allowance, Options, PerWorkspace};

/// Workspaces that are remembered. Paths may name some that do not exist.
const WORKSPACES: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Rates {
    node: Option<(f64, Mutex<Allowance>)>,
    workspaces: Option<(PerWorkspace, Mutex<HashMap<String, Allowance>>)>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("too many requests{of}: {most} a second are answered ({setting}); try again in {wait:.1?}")]
pub(crate) struct TooFast {
    /// Of which workspace, in words.
    of: String,
    most: f64,
    setting: &'static str,
    pub(crate) wait: Duration,
}

impl Rates {
    pub(crate) fn new(options: &Options) -> Self {
        let node = options.admin_max_requests.map(|most| {
            let most = most as f64;
            (most, Mutex::new(Allowance::full(most)))
        });
        let workspaces = options.workspace_requests.clone();
        Self {
            node,
            workspaces: workspaces.map(|most| (most, Mutex::default())),
        }
    }

    /// Counts a request.
    pub(crate) fn take(&self, workspace: &str) -> Result<(), TooFast> {
        // First the workspace: what it may not ask costs the others nothing.
        if let Some((most, workspaces)) = &self.workspaces {
            // Nobody can earn less than one in a while.
            let most = (most.of(workspace) as f64).max(0.01);
            let mut workspaces = workspaces.lock();
            if workspaces.len() >= WORKSPACES && !workspaces.contains_key(workspace) {
                workspaces.clear();
            }
            let burst = most.max(1.0);
            let allowance = workspaces.entry(workspace.to_owned());
            let allowance = allowance.or_insert_with(|| Allowance::full(burst));
            allowance.take(burst, most).map_err(|wait| TooFast {
                of: format!(" in the workspace {workspace}"),
                most,
                setting: "HOOKLINE_WORKSPACE_REQUESTS",
                wait,
            })?;
        }
        if let Some((most, node)) = &self.node {
            node.lock().take(*most, *most).map_err(|wait| TooFast {
                of: String::new(),
                most: *most,
                setting: "HOOKLINE_ADMIN_MAX_REQUESTS",
                wait,
            })?;
        }
        Ok(())
    }
}
