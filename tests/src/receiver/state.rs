//! The recorded requests, and how each path answers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Request;

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<Recorded>,
    pub(super) connections: AtomicUsize,
    pub(super) events: AtomicUsize,
    pub(super) in_flight: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) requests: Vec<Request>,
    routes: HashMap<String, Route>,
}

#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) codes: VecDeque<u16>,
    pub(super) holds: VecDeque<watch::Receiver<Option<u16>>>,
    pub(super) delay: Duration,
    pub(super) body: String,
    pub(super) headers: Vec<(String, String)>,
}

/// How one request is answered.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) index: usize,
    pub(super) code: u16,
    pub(super) hold: Option<watch::Receiver<Option<u16>>>,
    pub(super) delay: Duration,
    pub(super) body: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Recorded> {
        // A panic elsewhere must not hide the recorded requests.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn route(&self, path: &str, change: impl FnOnce(&mut Route)) {
        change(self.lock().routes.entry(path.to_owned()).or_default());
    }

    pub(super) fn record(&self, request: Request) -> Plan {
        let mut state = self.lock();
        let index = state.requests.len();
        let is_event = request.is_event();
        let route = state.routes.entry(request.path.clone()).or_default();
        let mut plan = Plan {
            index,
            code: 200,
            hold: None,
            delay: Duration::ZERO,
            body: route.body.clone(),
            headers: route.headers.clone(),
        };
        if is_event {
            plan.code = route.next_code();
            plan.hold = route.holds.pop_front();
            plan.delay = route.delay;
        }
        state.requests.push(request);
        plan
    }

    pub(super) fn answered(&self, index: usize, code: u16) {
        self.lock().requests[index].answered = Some(code);
    }
}

impl Route {
    fn next_code(&mut self) -> u16 {
        if self.codes.len() > 1 {
            return self.codes.pop_front().unwrap_or(200);
        }
        self.codes.front().copied().unwrap_or(200)
    }
}
