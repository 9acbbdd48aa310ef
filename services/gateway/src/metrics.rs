//! Prometheus metrics of a gateway node: names, and one method per observation.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use hookline_shared::metrics::{ATTEMPT, Each, Register, SHORT};
use hookline_shared::workers::Workers;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use strum::{IntoStaticStr, VariantArray as _};

use crate::schema::Schema;

/// Unknown methods share a label, so that clients cannot create more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::VariantArray, IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE")]
enum MethodLabel {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    #[strum(serialize = "other")]
    Other,
}

impl MethodLabel {
    fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::VariantArray, IntoStaticStr)]
pub(crate) enum StatusLabel {
    #[strum(serialize = "2xx")]
    Success,
    #[strum(serialize = "4xx")]
    ClientError,
    #[strum(serialize = "5xx")]
    ServerError,
}

impl StatusLabel {
    pub(crate) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            ..400 => Self::Success,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

/// Why a request was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum RefusedLabel {
    NoToken,
    WrongToken,
    /// Too many wrong ones came from the same address.
    TooMany,
    /// No role permits it.
    Forbidden,
    /// A page of another site made it.
    CrossSite,
    /// More than its workspace, or all of them, may ask in a second.
    TooFast,
}

/// What a change of an entity came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum WriteOutcome {
    Committed,
    /// A unique value was taken, or the entity was changed meanwhile.
    Conflict,
    /// A reference to what is not there, or from what is.
    Reference,
    /// Its result was lost.
    Unknown,
    Failed,
}

/// Paths that lead to no kind of entity: the node itself, and nothing.
const OTHER_KINDS: [&str; 2] = ["node", "none"];

/// Clones share the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    request_duration: Each<MethodLabel, Histogram>,
    refused: Each<RefusedLabel, IntCounter>,
    unrecorded: IntCounter,
    writes: Each<&'static str, Each<WriteOutcome, IntCounter>>,
    write_duration: Each<&'static str, Histogram>,
    retries: Each<&'static str, IntCounter>,
    view_sequence: IntGauge,
    publishing_refused: IntGauge,
}

/// Dispatchers say themselves that they live.
pub(crate) fn register_workers(
    registry: &Registry,
    workers: &Workers,
) -> Result<(), prometheus::Error> {
    let workers = workers.clone();
    Register(registry).computed(
        "hookline_workers",
        "Dispatchers that gave this node a sign of life within 7 s",
        move || workers.alive().len() as f64,
    )
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let new = Register(registry);
        let kinds: Vec<_> = Schema::kinds().map(|schema| schema.kind).collect();
        let requests = new.add(IntCounterVec::new(
            Opts::new(
                "hookline_admin_requests_total",
                "Admin API requests, by kind of entity, method and class of status",
            ),
            &["kind", "method", "status"],
        )?)?;
        for kind in kinds.iter().copied().chain(OTHER_KINDS) {
            for method in MethodLabel::VARIANTS {
                for status in StatusLabel::VARIANTS {
                    requests.with_label_values(&[kind, method.into(), status.into()]);
                }
            }
        }
        Ok(Self {
            requests,
            request_duration: new.histograms(
                "hookline_admin_request_duration_seconds",
                "Time from an Admin API request to its answer",
                "method",
                ATTEMPT,
            )?,
            refused: new.counters(
                "hookline_admin_refused_total",
                "Admin API requests that were not let in, by reason",
                "reason",
            )?,
            unrecorded: new.counter(
                "hookline_audit_unrecorded_total",
                "Refused requests without an audit record, since too many came at once",
            )?,
            writes: new.counters_by(
                "hookline_writes_total",
                "Changes of entities, by kind and outcome",
                ["kind", "outcome"],
                &kinds,
            )?,
            write_duration: new.histograms_of(
                (
                    "hookline_write_duration_seconds",
                    "Time from a change of an entity to its commit, including retries",
                ),
                "kind",
                &kinds,
                SHORT,
            )?,
            retries: new.counters_of(
                "hookline_write_retries_total",
                "Retries of changes that were refused or whose result was lost",
                "kind",
                &kinds,
            )?,
            view_sequence: new.gauge(
                "hookline_view_sequence",
                "Sequence of the change in the bucket up to which this node knows the entities",
            )?,
            publishing_refused: new.gauge(
                "hookline_publishing_refused",
                "1 while this node refuses changes because the event stream is nearly full",
            )?,
        })
    }

    pub(crate) fn answered(&self, kind: &str, method: &Method, status: StatusCode, took: Duration) {
        let (method, status) = (MethodLabel::of(method), StatusLabel::of(status));
        self.requests
            .with_label_values(&[kind, method.into(), status.into()])
            .inc();
        self.request_duration
            .get(method)
            .observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, reason: RefusedLabel) {
        self.refused.get(reason).inc();
    }

    pub(crate) fn unrecorded(&self) {
        self.unrecorded.inc();
    }

    pub(crate) fn wrote(&self, kind: &'static str, outcome: WriteOutcome, took: Duration) {
        self.writes.get(kind).get(outcome).inc();
        self.write_duration.get(kind).observe(took.as_secs_f64());
    }

    pub(crate) fn retried(&self, kind: &'static str) {
        self.retries.get(kind).inc();
    }

    pub(crate) fn view(&self, sequence: u64) {
        self.view_sequence
            .set(i64::try_from(sequence).unwrap_or(i64::MAX));
    }

    pub(crate) fn publishing_refused(&self, refused: bool) {
        self.publishing_refused.set(refused.into());
    }
}
