//! `hookline-gateway new-key` and `rotate-keys`.

use std::io::Write as _;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use hookline_shared::keyring;
use hookline_shared::supervisor::Supervisor;

use crate::store::Resealed;
use crate::{Config, Error, Parts, Readiness};

/// Between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Prints a key for the keyring.
pub fn print_new_key() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", keyring::new_key())?;
    Ok(())
}

/// Seals the secrets of all hooks with the first key, and says how far it is.
pub async fn rotate_keys(
    config: &Config,
    drop_lost: bool,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let key = keyring::sealing_key().ok_or(Error::NoKeyring)?;
    let registry = prometheus::Registry::new();
    let parts = Parts::register(&registry)?;
    let readiness = Readiness::default();
    let mut supervisor = Supervisor::new(readiness.clone());
    let loaded = crate::start(config, &mut supervisor, &readiness, parts, &shutdown).await?;
    let Some(store) = loaded else {
        return Ok(());
    };
    let hooks = store.hooks().await;
    let (all, mut left, mut dropped) = (hooks.len(), 0, 0);
    let mut said = tokio::time::Instant::now();
    for (number, hook) in hooks.into_iter().enumerate() {
        if shutdown.is_cancelled() {
            return Err(Error::Unfinished(number, all));
        }
        match store.reseal(hook, drop_lost).await? {
            Resealed::Done => {}
            Resealed::Dropped => dropped += 1,
            Resealed::Left => left += 1,
        }
        if said.elapsed() >= PROGRESS {
            said = tokio::time::Instant::now();
            tracing::info!(hooks = number + 1, of = all, "sealing");
        }
    }
    if left > 0 {
        return Err(Error::Lost(left));
    }
    tracing::info!(
        hooks = all,
        dropped,
        key,
        "all hooks are sealed with this key: the others may go"
    );
    Ok(())
}
