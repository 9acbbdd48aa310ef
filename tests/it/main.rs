//! Scenarios on real servers, one file per subject.

mod attempts;
mod consumer_events;
mod dead_letters;
mod duplicates;
mod egress;
mod entities;
mod lambda;
mod limits;
mod log;
mod malformed;
mod outages;
mod outbox;
mod ping;
mod propagation;
mod redis;
mod retries;
mod secrets;
mod sharing;
mod shutdown;
mod signature;
mod startup;
mod storage;
mod tls;
mod webhook;
mod webhook_custom;
mod workspaces;
