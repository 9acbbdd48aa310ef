//! `hookline-gateway new-key` and `rotate-keys`.

use std::io::Write as _;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use hookline_shared::keyring;
use hookline_shared::supervisor::Supervisor;

use crate::store::{Resealed, Store};
use crate::{Config, Error, Parts, Readiness};

/// Between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_secs(2);
/// By then each running process has looked at its keyring's file.
const SETTLES: Duration = Duration::from_secs(10);

/// Prints a key for the keyring.
pub fn print_new_key() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", keyring::new_key())?;
    Ok(())
}

/// Seals all secrets with the first key, and says how far it is.
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
    let mut all = seal(&store, &key, drop_lost, &shutdown).await?;
    tracing::info!(
        "looking once more after {}s for what others sealed with another key",
        SETTLES.as_secs()
    );
    tokio::select! {
        () = tokio::time::sleep(SETTLES) => {}
        () = shutdown.cancelled() => return Err(Error::Unfinished),
    }
    let again = seal(&store, &key, drop_lost, &shutdown).await?;
    all.dropped += again.dropped;
    if again.left > 0 {
        return Err(Error::Lost(again.left));
    }
    let (entities, dropped) = (again.entities, all.dropped);
    tracing::info!(
        entities,
        dropped,
        key,
        "all secrets are sealed with this key: the others may go"
    );
    Ok(())
}

#[derive(Default)]
struct Sealed {
    entities: usize,
    dropped: usize,
    left: usize,
}

async fn seal(
    store: &Store,
    key: &str,
    drop_lost: bool,
    shutdown: &CancellationToken,
) -> Result<Sealed, Error> {
    let entities = store.with_secrets().await;
    let mut sealed = Sealed {
        entities: entities.len(),
        ..Sealed::default()
    };
    let mut said = Instant::now();
    for (number, entity) in entities.into_iter().enumerate() {
        if shutdown.is_cancelled() {
            return Err(Error::Unfinished);
        }
        match store.reseal(entity, key, drop_lost).await? {
            Resealed::Done | Resealed::Already => {}
            Resealed::Dropped => sealed.dropped += 1,
            Resealed::Left => sealed.left += 1,
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            tracing::info!(entities = number + 1, of = sealed.entities, "sealing");
        }
    }
    Ok(sealed)
}
