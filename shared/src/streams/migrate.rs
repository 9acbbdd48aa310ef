//! Changes streams that exist to what the settings of this version want: `hookline-gateway migrate`.

use std::fmt;

use async_nats::jetstream::stream::{ClusterInfo, Config, PersistenceMode};
use async_nats::jetstream::{self, ErrorCode};
use futures::TryStreamExt as _;
use serde_json::Value;

use super::{CHECKED, Difference, Error, Options, configs, stream_differences};
use crate::connection::permitted;
use crate::subject::ATTEMPTS_STREAM;

/// What is to be done about one stream.
#[derive(Debug)]
pub struct Migration {
    pub stream: &'static str,
    pub step: Step,
}

#[derive(Debug)]
pub enum Step {
    /// It is as it should be.
    None,
    /// A service makes it when it starts.
    Missing,
    Change {
        differences: Vec<Difference>,
        config: Box<Config>,
    },
    /// The server changes no `persist_mode`, which with copies it does not take: the stream is removed and made again,
    /// without what it holds.
    Replace {
        differences: Vec<Difference>,
        config: Box<Config>,
    },
}

impl fmt::Display for Migration {
    /// A line for each setting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream;
        match &self.step {
            Step::None => writeln!(f, "{stream}: nothing to change"),
            Step::Missing => writeln!(f, "{stream}: missing; a service makes it when it starts"),
            Step::Change { differences, .. } => each(f, stream, differences),
            Step::Replace { differences, .. } => {
                each(f, stream, differences)?;
                writeln!(
                    f,
                    "{stream}: cannot be changed to that: it has to be removed and made again, without what it holds"
                )
            }
        }
    }
}

fn each(f: &mut fmt::Formatter<'_>, stream: &str, differences: &[Difference]) -> fmt::Result {
    differences
        .iter()
        .try_for_each(|one| writeln!(f, "{stream}: {}: {} -> {}", one.name, one.have, one.want))
}

/// What there is to do, stream by stream.
pub async fn plan(
    context: &jetstream::Context,
    options: &Options,
) -> Result<Vec<Migration>, Error> {
    let mut migrations = Vec::new();
    for (stream, want) in configs(options, options.max_event_bytes(&context.client())) {
        use jetstream::context::GetStreamErrorKind as Kind;
        let step = match permitted(stream, context.get_stream(stream)).await? {
            Ok(found) => step(&want, &found.cached_info().config),
            Err(error) => match error.kind() {
                Kind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Step::Missing
                }
                _ => {
                    let reason = error.to_string();
                    return Err(Error::Create {
                        name: stream,
                        reason,
                    });
                }
            },
        };
        migrations.push(Migration { stream, step });
    }
    Ok(migrations)
}

fn step(want: &Config, have: &Config) -> Step {
    let differences = stream_differences(want, have);
    if differences.is_empty() {
        return Step::None;
    }
    let is_async = have.persist_mode == Some(PersistenceMode::Async);
    if is_async && want.num_replicas > 1 {
        let config = Box::new(want.clone());
        return Step::Replace {
            differences,
            config,
        };
    }
    let config = Box::new(changed(want, have));
    Step::Change {
        differences,
        config,
    }
}

/// What Hookline says nothing of stays as it is.
fn changed(want: &Config, have: &Config) -> Config {
    let json = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let (want_all, mut all) = (json(want), json(have));
    if let Value::Object(all) = &mut all {
        for name in CHECKED {
            match want_all.get(name) {
                Some(value) => all.insert(name.to_owned(), value.clone()),
                None => all.remove(name),
            };
        }
    }
    serde_json::from_value(all).unwrap_or_else(|_| want.clone())
}

/// Does it. `drop_delivery_log`: replace the stream of the delivery log too, which loses what it holds.
pub async fn apply(
    context: &jetstream::Context,
    migration: &Migration,
    drop_delivery_log: bool,
) -> Result<(), Error> {
    let name = migration.stream;
    let refused = |error: &dyn fmt::Display| Error::Change {
        name,
        reason: error.to_string(),
    };
    match &migration.step {
        Step::None | Step::Missing => Ok(()),
        Step::Change { config, .. } => {
            let updated = permitted(name, context.update_stream(&**config)).await?;
            updated.map(drop).map_err(|error| refused(&error))
        }
        Step::Replace { config, .. } if name == ATTEMPTS_STREAM && drop_delivery_log => {
            let deleted = permitted(name, context.delete_stream(name)).await?;
            deleted.map_err(|error| refused(&error))?;
            let made = permitted(name, context.get_or_create_stream((**config).clone())).await?;
            made.map(drop).map_err(|error| refused(&error))
        }
        Step::Replace { .. } => Err(refused(
            &"it has to be removed and made again: --drop-delivery-log does so",
        )),
    }
}

/// The streams and consumers whose copies are not all up to date yet: until then a lost server may stop them.
pub async fn lagging(
    context: &jetstream::Context,
    options: &Options,
) -> Result<Vec<String>, Error> {
    let mut lagging = Vec::new();
    for (name, want) in configs(options, options.max_event_bytes(&context.client())) {
        let refused = |error: &dyn fmt::Display| Error::Change {
            name,
            reason: error.to_string(),
        };
        let Ok(stream) = permitted(name, context.get_stream(name)).await? else {
            continue;
        };
        let copies = want.num_replicas.saturating_sub(1);
        let is_current = |cluster: Option<&ClusterInfo>| {
            let others = cluster.map_or(&[][..], |cluster| &cluster.replicas);
            others.len() >= copies && others.iter().all(|one| one.current)
        };
        if !is_current(stream.cached_info().cluster.as_ref()) {
            lagging.push(name.to_owned());
        }
        let mut consumers = stream.consumers();
        while let Some(consumer) = consumers
            .try_next()
            .await
            .map_err(|error| refused(&error))?
        {
            let is_durable = consumer.config.durable_name.is_some();
            if is_durable && !is_current(consumer.cluster.as_ref()) {
                lagging.push(format!("{name}.{}", consumer.name));
            }
        }
    }
    Ok(lagging)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_added_stays() {
        let have = Config {
            name: "S".to_owned(),
            description: Some("mine".to_owned()),
            metadata: [("team".to_owned(), "a".to_owned())].into(),
            max_bytes: 7,
            ..Config::default()
        };
        let want = Config {
            name: "S".to_owned(),
            max_bytes: 8,
            allow_atomic_publish: true,
            ..Config::default()
        };
        let Step::Change {
            differences,
            config,
        } = step(&want, &have)
        else {
            panic!("it is to be changed");
        };
        let names: Vec<_> = differences.iter().map(|one| one.name).collect();
        assert_eq!(names, ["max_bytes", "allow_atomic"]);
        assert_eq!((config.max_bytes, config.allow_atomic_publish), (8, true));
        assert_eq!(config.metadata, have.metadata);
        assert_eq!(config.description, have.description);
        assert!(matches!(step(&want, &config), Step::None));
    }
}
