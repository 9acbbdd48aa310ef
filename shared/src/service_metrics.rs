//! Metrics that both services have.

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

use crate::metrics::Register;
use crate::{connection, trace, unreadable};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, if whoever built this said so.
const REVISION: &str = match option_env!("HOOKLINE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Clones share the same metrics.
#[derive(Debug, Clone)]
pub struct ServiceMetrics {
    nats_connected: IntGauge,
}

impl ServiceMetrics {
    pub fn register(registry: &Registry, service: &str) -> Result<Self, prometheus::Error> {
        let new = Register(registry);
        let build = Opts::new("hookline_build_info", "1, with what was built");
        let build = new.add(IntGaugeVec::new(
            build,
            &["service", "version", "revision"],
        )?)?;
        build
            .with_label_values(&[service, VERSION, REVISION])
            .set(1);
        new.add(connection::reconnects().clone())?;
        new.add(trace::counts().clone())?;
        new.add(unreadable::buried().clone())?;
        Ok(Self {
            nats_connected: new.gauge("hookline_nats_connected", "1 while NATS is connected")?,
        })
    }

    pub fn nats_connected(&self, connected: bool) {
        self.nats_connected.set(connected.into());
    }
}
