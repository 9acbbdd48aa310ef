//! How many hooks and entities there may be. What dispatchers keep beside hooks counts with them. A node counts those that it knows and is making; what several nodes make at
//! the same moment may be one too many for each.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Options, PerWorkspace};

/// Of hooks, and of entities.
type Both<T> = [T; 2];

#[derive(Debug)]
pub(crate) struct Quotas {
    most: Both<Most>,
    /// Being made, by workspace.
    pending: Mutex<HashMap<String, Both<u64>>>,
    /// One of them is made, or was not.
    pub(crate) changed: Notify,
}

#[derive(Debug)]
struct Most {
    what: &'static str,
    of_workspace: (PerWorkspace, &'static str),
    /// None: no limit.
    of_all: (Option<u64>, &'static str),
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) of_workspace: Both<u64>,
    pub(crate) of_all: Both<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at most {most} {what} may be{of} ({setting}): delete some, or ask the operator for more")]
pub struct Full {
    what: &'static str,
    most: u64,
    /// Of which workspace, in words.
    of: String,
    setting: &'static str,
    /// Not if some are being made: they may fail, or be counted twice.
    pub(crate) is_certain: bool,
}

/// Room for one entity, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    quotas: Arc<Quotas>,
    workspace: String,
    is_hook: bool,
}

impl Quotas {
    pub(crate) fn new(options: &Options) -> Arc<Self> {
        let hooks = Most {
            what: "hooks and certificates",
            of_workspace: (options.workspace_hooks.clone(), "HOOKLINE_WORKSPACE_HOOKS"),
            of_all: (options.max_hooks, "HOOKLINE_MAX_HOOKS"),
        };
        let entities = Most {
            what: "entities",
            of_workspace: (
                options.workspace_entities.clone(),
                "HOOKLINE_WORKSPACE_ENTITIES",
            ),
            of_all: (options.max_entities, "HOOKLINE_MAX_ENTITIES"),
        };
        Arc::new(Self {
            most: [hooks, entities],
            pending: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// `there`: what exists by now.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        workspace: &str,
        is_hook: bool,
        there: impl FnOnce() -> Counts,
    ) -> Result<Reserved, Full> {
        let mut pending = self.pending.lock();
        let there = there();
        let here = pending.get(workspace).copied().unwrap_or_default();
        for at in kinds(is_hook) {
            let most = &self.most[at];
            let all = pending.values().map(|both| both[at]).sum::<u64>();
            let (of_workspace, its_setting) = &most.of_workspace;
            let limits = [
                (
                    of_workspace.of(workspace),
                    its_setting,
                    there.of_workspace[at],
                    here[at],
                    format!(" in the workspace {workspace}"),
                ),
                (
                    most.of_all.0.unwrap_or(u64::MAX),
                    &most.of_all.1,
                    there.of_all[at],
                    all,
                    String::new(),
                ),
            ];
            for (limit, setting, known, pending, of) in limits {
                if known + pending >= limit {
                    return Err(Full {
                        what: most.what,
                        most: limit,
                        of,
                        setting,
                        is_certain: pending == 0,
                    });
                }
            }
        }
        let mine = pending.entry(workspace.to_owned()).or_default();
        kinds(is_hook).for_each(|at| mine[at] += 1);
        Ok(Reserved {
            quotas: Arc::clone(self),
            workspace: workspace.to_owned(),
            is_hook,
        })
    }
}

/// What one counts as: a hook is an entity as well.
pub(crate) fn kinds(is_hook: bool) -> impl Iterator<Item = usize> {
    (0..2).skip(usize::from(!is_hook))
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut pending = self.quotas.pending.lock();
        if let Some(mine) = pending.get_mut(&self.workspace) {
            kinds(self.is_hook).for_each(|at| mine[at] -= 1);
            if *mine == [0, 0] {
                pending.remove(&self.workspace);
            }
        }
        self.quotas.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::Config;

    #[test]
    fn what_is_being_made_takes_room_until_it_is_there() {
        let config = Config::try_parse_from([
            "hookline-gateway",
            "--workspace-hooks=2,small=1",
            "--workspace-entities=3",
            "--max-hooks=4",
        ]);
        let quotas = Quotas::new(&config.expect("settings").limits);
        let counts = |hooks, entities, all| Counts {
            of_workspace: [hooks, entities],
            of_all: [all, all],
        };
        let hook = |workspace: &str, there: Counts| quotas.reserve(workspace, true, || there);
        let first = hook("a", counts(1, 1, 1)).expect("room");
        let full = hook("a", counts(1, 1, 1)).expect_err("full");
        assert!(!full.is_certain, "one is being made");
        drop(first);
        let full = hook("a", counts(2, 2, 2)).expect_err("full");
        assert!(full.is_certain);
        assert_eq!(
            full.to_string(),
            "at most 2 hooks and certificates may be in the workspace a (HOOKLINE_WORKSPACE_HOOKS): delete some, or ask \
             the operator for more"
        );
        assert!(hook("small", counts(1, 1, 3)).is_err());
        let full = hook("b", counts(0, 0, 4)).expect_err("full");
        assert!(
            full.to_string()
                .starts_with("at most 4 hooks and certificates may be (")
        );
        assert!(quotas.reserve("a", false, || counts(2, 2, 4)).is_ok());
        assert!(quotas.reserve("a", false, || counts(2, 3, 4)).is_err());
    }
}
