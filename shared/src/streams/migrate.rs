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
    /// What stays as it is, since to change it might lose something.
    pub kept: Vec<Difference>,
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
        for one in &self.kept {
            let (name, have, want) = (one.name, one.shown(&one.have), one.shown(&one.want));
            let how = match name {
                NEVER_LOWER => "it is never lowered",
                _ => "--shrink lowers it, and may lose messages or copies",
            };
            writeln!(f, "{stream}: {name}: {have} is kept, not {want}: {how}")?;
        }
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
    differences.iter().try_for_each(|one| {
        let (have, want) = (one.shown(&one.have), one.shown(&one.want));
        writeln!(f, "{stream}: {}: {have} -> {want}", one.name)
    })
}

/// What there is to do, stream by stream.
pub async fn plan(
    context: &jetstream::Context,
    options: &Options,
    shrink: bool,
) -> Result<Vec<Migration>, Error> {
    let mut migrations = Vec::new();
    for (stream, want) in configs(options, options.max_event_bytes(&context.client())) {
        use jetstream::context::GetStreamErrorKind as Kind;
        let step = match permitted(stream, context.get_stream(stream)).await? {
            Ok(found) => step(&want, &found.cached_info().config, shrink),
            Err(error) => match error.kind() {
                Kind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    (Step::Missing, Vec::new())
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
        let (step, kept) = step;
        migrations.push(Migration { stream, step, kept });
    }
    Ok(migrations)
}

/// A source of the stream stops at a message that is larger, and a gateway learns of another limit only later.
const NEVER_LOWER: &str = "max_msg_size";

/// Whether less would be kept than now. No limit is -1 or 0, or is left out.
fn is_less(one: &Difference) -> bool {
    let number = |text: &str| match text.parse::<i64>() {
        Ok(limit) if limit > 0 => limit,
        _ => i64::MAX,
    };
    let (have, want) = (number(&one.have), number(&one.want));
    match one.name {
        "max_bytes" | "max_age" | "max_msgs" | "max_msgs_per_subject" | NEVER_LOWER => want < have,
        "num_replicas" => want < have && have < i64::MAX,
        _ => false,
    }
}

/// What to do, and what is kept.
fn step(want: &Config, have: &Config, shrink: bool) -> (Step, Vec<Difference>) {
    let is_kept = |one: &Difference| is_less(one) && (!shrink || one.name == NEVER_LOWER);
    let differences = stream_differences(want, have).into_iter();
    let (kept, differences): (Vec<_>, Vec<_>) = differences.partition(is_kept);
    (to_do(want, have, differences, &kept), kept)
}

fn to_do(want: &Config, have: &Config, differences: Vec<Difference>, kept: &[Difference]) -> Step {
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
    let config = Box::new(changed(want, have, kept));
    Step::Change {
        differences,
        config,
    }
}

/// What Hookline says nothing of stays as it is.
fn changed(want: &Config, have: &Config, kept: &[Difference]) -> Config {
    let json = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let (want_all, mut all) = (json(want), json(have));
    if let Value::Object(all) = &mut all {
        let is_kept = |name: &&str| kept.iter().any(|one| one.name == *name);
        for name in CHECKED.into_iter().filter(|name| !is_kept(name)) {
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
    use std::time::Duration;

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
        let (
            Step::Change {
                differences,
                config,
            },
            _,
        ) = step(&want, &have, false)
        else {
            panic!("it is to be changed");
        };
        let names: Vec<_> = differences.iter().map(|one| one.name).collect();
        assert_eq!(names, ["max_bytes", "allow_atomic"]);
        assert_eq!((config.max_bytes, config.allow_atomic_publish), (8, true));
        assert_eq!(config.metadata, have.metadata);
        assert_eq!(config.description, have.description);
        assert!(matches!(step(&want, &config, false), (Step::None, _)));
    }

    #[test]
    fn nothing_is_lowered_unless_it_is_asked_for() {
        let have = Config {
            name: "S".to_owned(),
            max_bytes: -1,
            max_message_size: 10,
            max_age: Duration::from_secs(100),
            num_replicas: 3,
            ..Config::default()
        };
        let want = Config {
            max_bytes: 8,
            max_message_size: 5,
            max_age: Duration::from_secs(50),
            num_replicas: 1,
            ..have.clone()
        };
        let names = |list: &[Difference]| list.iter().map(|one| one.name).collect::<Vec<_>>();
        let (nothing, kept) = step(&want, &have, false);
        assert!(matches!(nothing, Step::None));
        let all = ["num_replicas", "max_bytes", "max_age", "max_msg_size"];
        assert_eq!(names(&kept), all);
        let (
            Step::Change {
                differences,
                config,
            },
            kept,
        ) = step(&want, &have, true)
        else {
            panic!("it is to be changed");
        };
        assert_eq!(names(&differences), all[..3]);
        assert_eq!(names(&kept), all[3..]);
        assert_eq!((config.max_bytes, config.max_message_size), (8, 10));
        // The other way round all is done.
        let (step, kept) = step(&have, &want, false);
        assert!(matches!(step, Step::Change { .. }) && kept.is_empty());
    }
}
