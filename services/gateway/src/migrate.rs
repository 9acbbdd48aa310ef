//! `hookline-gateway migrate`.

use std::io::Write as _;
use std::time::Duration;

use async_nats::jetstream;
use tokio_util::sync::CancellationToken;

use hookline_shared::streams::migrate::{self, Step};
use hookline_shared::{connection, streams};

use crate::{Config, Error, SERVICE};

/// Between two looks at the copies.
const LOOK: Duration = Duration::from_secs(1);

/// The flags of the command.
#[derive(Debug, Clone, Copy)]
pub struct Migrate {
    pub dry_run: bool,
    pub shrink: bool,
    pub drop_delivery_log: bool,
}

/// Changes the streams to what the settings want, or only says what it would change.
pub async fn migrate(
    config: &Config,
    how: Migrate,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let connected = connection::connect(&config.nats, SERVICE, "migrate", &shutdown).await;
    let client = match connected {
        Err(connection::Error::Stopped) => return Ok(()),
        connected => connected.map_err(|error| Error::Streams(error.into()))?,
    };
    let context = jetstream::new(client);
    let dry_run = how.dry_run;
    let plan = migrate::plan(&context, &config.streams, how.shrink).await;
    let mut out = std::io::stdout();
    let (mut changes, mut failed) = (0, 0);
    for migration in plan.map_err(Error::Streams)? {
        write!(out, "{migration}")?;
        if matches!(migration.step, Step::None | Step::Missing) {
            continue;
        }
        changes += 1;
        if dry_run {
            continue;
        }
        match migrate::apply(&context, &migration, how.drop_delivery_log).await {
            Ok(()) => writeln!(out, "{}: done", migration.stream)?,
            Err(error) => {
                failed += 1;
                writeln!(out, "{}: {error}", migration.stream)?;
            }
        }
    }
    match (changes, dry_run) {
        (0, _) => writeln!(out, "all streams are as these settings want them")?,
        (_, true) => writeln!(out, "nothing was changed: run it again without --dry-run")?,
        (_, false) => {}
    }
    if failed > 0 {
        return Err(Error::NotMigrated(failed));
    }
    if !dry_run {
        wait_for_copies(&context, &config.streams, &shutdown).await?;
    }
    Ok(())
}

/// Until then a lost server may stop a stream.
async fn wait_for_copies(
    context: &jetstream::Context,
    options: &streams::Options,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let mut said = Vec::new();
    loop {
        let lagging = migrate::lagging(context, options).await;
        let lagging = lagging.map_err(Error::Streams)?;
        if lagging.is_empty() {
            return Ok(());
        }
        if said != lagging {
            let list = lagging.join(", ");
            writeln!(std::io::stdout(), "waiting for the copies of {list}")?;
            said = lagging;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.cancelled() => return Err(Error::NotMigrated(said.len())),
        }
    }
}
