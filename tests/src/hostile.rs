//! Hostile hooks, events and requests: what each must come to, and an attack with all of them.

mod events;
mod hooks;
mod requests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::message::StreamMessage;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::nats::reason;
use crate::wait::eventually;
use crate::{Cluster, RawNats, Request, admin, wire};

pub use events::UNREADABLE;

/// With this no line of a log may begin.
pub const FORGED: &str = "2026-01-01T00:00:00.000000Z ERROR FORGED";

/// A generous time for all deliveries to end.
const LONG: Duration = Duration::from_secs(240);

/// One input.
#[derive(Debug)]
pub struct Input {
    pub class: &'static str,
    act: Act,
    expect: Expect,
}

#[derive(Debug)]
enum Act {
    /// Creates a hook, and if it is accepted, publishes an event with this data for it alone.
    Hook {
        handler: &'static str,
        config: Value,
        data: Value,
    },
    /// Sends a request to the Admin port as it is, without `Host` and `Content-Length`.
    Request { head: String, body: Vec<u8> },
    /// Publishes a message as it is: subject, headers, body.
    Message(Vec<u8>, Vec<u8>, Vec<u8>),
}

enum Expect {
    /// The Admin API refuses it with this status, in these words.
    Refused(u16, &'static str),
    /// A dead letter, with these words as its reason.
    Dead(&'static str),
    /// The receiver gets a request that is as it should be.
    Made(fn(&Request) -> bool),
    /// It is refused with a 400 that names the template or the function, or it is made, or it is dead with a reason.
    Ends,
}

impl fmt::Debug for Expect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status, says) => write!(formatter, "{status} with {says:?}"),
            Self::Dead(says) => write!(formatter, "a dead letter with {says:?}"),
            Self::Made(_) => write!(formatter, "a sound request"),
            Self::Ends => write!(formatter, "an end"),
        }
    }
}

/// All inputs. Events and requests are of the workspace `default`.
#[must_use]
pub fn inputs() -> Vec<Input> {
    let mut inputs = hooks::inputs();
    inputs.extend(requests::inputs());
    inputs.extend(events::inputs());
    inputs
}

/// All inputs, and what the Admin API made of them.
#[derive(Debug)]
pub struct Attack {
    inputs: Vec<Input>,
    /// The id of each hook that was accepted.
    hooks: Vec<Option<String>>,
    /// What did not come to what it must.
    wrong: Vec<String>,
}

impl Attack {
    /// Tries all inputs, with a pause after each.
    pub async fn start(cluster: &Cluster, pause: Duration) -> Result<Self> {
        let mut attack = Self {
            inputs: inputs(),
            hooks: Vec::new(),
            wrong: Vec::new(),
        };
        let mut raw = RawNats::connect(cluster.nats.port(), "operator").await?;
        for (number, input) in attack.inputs.iter().enumerate() {
            let hook = input.give(number, cluster, &mut raw).await;
            attack.hooks.push(hook.unwrap_or_else(|error| {
                attack.wrong.push(format!("{input}: {error:#}"));
                None
            }));
            tokio::time::sleep(pause).await;
        }
        Ok(attack)
    }

    /// How many inputs there are of each class.
    #[must_use]
    pub fn classes(&self) -> BTreeMap<&'static str, usize> {
        let mut classes = BTreeMap::new();
        for input in &self.inputs {
            *classes.entry(input.class).or_default() += 1;
        }
        classes
    }

    /// Waits until all inputs have come to an end, and names those that came to a wrong one.
    pub async fn ends(mut self, cluster: &Cluster) -> Result<()> {
        eventually(LONG, "every event is acked", async || {
            let open = cluster.nats.open_events().await?;
            ensure!(open == 0, "{open} events are open");
            Ok(())
        })
        .await?;
        // What was parked is attempted again.
        let ended = eventually(LONG, "every input has ended", async || {
            let dead = cluster.nats.messages(wire::DEAD).await?;
            let mut wrong = Vec::new();
            for (number, (input, hook)) in self.inputs.iter().zip(&self.hooks).enumerate() {
                if let Err(error) = input.ended(number, hook.as_deref(), cluster, &dead) {
                    wrong.push(format!("{input}: {error:#}"));
                }
            }
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        });
        if let Err(error) = ended.await {
            self.wrong.push(format!("{error:#}"));
        }
        ensure!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        Ok(())
    }
}

impl Input {
    /// Returns the id of a hook that was accepted.
    async fn give(
        &self,
        number: usize,
        cluster: &Cluster,
        raw: &mut RawNats,
    ) -> Result<Option<String>> {
        let answer = match &self.act {
            Act::Hook {
                handler,
                config,
                data,
            } => {
                let mut config = config.clone();
                if config["url"].is_null() && !self.leaves_no_trace() {
                    config["url"] = json!(cluster.receiver.url(&path(number)));
                }
                let event = format!("hostile-{number}");
                let mut hook = admin::hook("crud", &event, handler, config);
                if matches!(self.expect, Expect::Dead(_)) {
                    hook["delivery"] = json!({ "retry": [] });
                }
                let answer = cluster.admin().post("/event-hooks", &hook).await?;
                if answer.status == 201 {
                    ensure!(
                        !matches!(self.expect, Expect::Refused(..)),
                        "it is accepted"
                    );
                    cluster.publish("crud", &event, data).await?;
                    return Ok(Some(admin::id(&answer.body)?.to_owned()));
                }
                (answer.status, answer.body.to_string())
            }
            Act::Request { head, body } => send(cluster.admin().base(), head, body).await?,
            Act::Message(subject, headers, body) => {
                raw.publish(subject, headers, body).await?;
                return Ok(None);
            }
        };
        let (status, text) = answer;
        match &self.expect {
            Expect::Refused(expected, says) => {
                ensure!(
                    status == *expected && text.contains(says),
                    "{status} {text}"
                );
            }
            Expect::Ends => {
                let named = text.contains("template") || text.contains("function");
                ensure!(status == 400 && named, "{status} {text}");
            }
            Expect::Dead(_) | Expect::Made(_) => anyhow::bail!("{status} {text}"),
        }
        Ok(None)
    }

    /// Fails if there is no sign of its end.
    fn ended(
        &self,
        number: usize,
        hook: Option<&str>,
        cluster: &Cluster,
        dead: &[StreamMessage],
    ) -> Result<()> {
        let is_ours = |letter: &&StreamMessage| match (&self.act, hook) {
            (Act::Message(_, _, body), _) => {
                letter.payload.starts_with(&body[..body.len().min(1_000)])
            }
            (_, Some(hook)) => letter
                .subject
                .starts_with(&format!("hookline.dead.{hook}.")),
            _ => false,
        };
        let letter = || dead.iter().find(is_ours).map(reason);
        let made = || cluster.receiver.events(&path(number)).into_iter().next();
        match &self.expect {
            Expect::Dead(says) => {
                let reason = letter().context("there is no dead letter")?;
                ensure!(reason.contains(says), "it is dead: {reason}");
            }
            Expect::Made(is_sound) => {
                let request = made().context("it is not made")?;
                ensure!(is_sound(&request), "{}", request.text());
            }
            Expect::Ends if hook.is_some() && made().is_none() && !self.leaves_no_trace() => {
                let reason = letter().context("it is neither made nor dead")?;
                ensure!(!reason.is_empty(), "its dead letter has no reason");
            }
            Expect::Ends | Expect::Refused(..) => {}
        }
        Ok(())
    }

    /// Of a function that returns, and of a record in a log.
    fn leaves_no_trace(&self) -> bool {
        matches!(
            self.act,
            Act::Hook {
                handler: "lambda" | "log",
                ..
            }
        )
    }
}

impl fmt::Display for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let act = format!("{:?}", self.act);
        let act: String = act.chars().take(200).collect();
        write!(
            formatter,
            "{} expects {:?} of {act}",
            self.class, self.expect
        )
    }
}

fn path(number: usize) -> String {
    format!("/hostile-{number}")
}

/// Returns the status and the rest of the answer.
async fn send(base: &str, head: &str, body: &[u8]) -> Result<(u16, String)> {
    let address = base.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await?;
    let head = head.replace("{address}", address);
    stream.write_all(head.as_bytes()).await?;
    // The server may answer, and close, before it has read all.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    let _ = read.context("no answer")?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).context("the server hung up")?;
    Ok((status.parse()?, answer))
}
