//! How many hooks, and entities, there are.

use std::collections::HashMap;

use parking_lot::Mutex;

use hookline_shared::subject::is_followed_by_dispatchers;

use crate::limits::{self, Counts};

#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    by_workspace: HashMap<String, [u64; 2]>,
    all: [u64; 2],
}

impl Counted {
    pub(super) fn in_workspace(&self, workspace: &str) -> Counts {
        let numbers = self.0.lock();
        let here = numbers.by_workspace.get(workspace);
        Counts {
            of_workspace: here.copied().unwrap_or_default(),
            of_all: numbers.all,
        }
    }

    /// After a table had so many rows of its own.
    pub(super) fn note(&self, workspace: &str, kind: &str, before: u64, after: u64) {
        if before == after {
            return;
        }
        let mut numbers = self.0.lock();
        let Numbers { by_workspace, all } = &mut *numbers;
        let here = by_workspace.entry(workspace.to_owned()).or_default();
        for at in limits::kinds(is_followed_by_dispatchers(kind)) {
            here[at] = here[at] + after - before;
            all[at] = all[at] + after - before;
        }
        if *here == [0, 0] {
            by_workspace.remove(workspace);
        }
    }

    pub(super) fn clear(&self) {
        *self.0.lock() = Numbers::default();
    }
}
