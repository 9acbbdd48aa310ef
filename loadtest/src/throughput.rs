//! Deliveries per second of one dispatcher, by handler, as a ratio to the bare pipe.
//!
//! Dispatcher and bare pipe take turns at the same number of stored events.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::question::Question;
use crate::receiver::Receiver;
use crate::report::{Goal, Measure, Section, median};
use crate::{limit, rig};

const MIB: f64 = (1 << 20) as f64;
/// The keys that record deliveries.
const MARKS: &str = "hookline:{*}:p:*";
/// Matching events of the sparse measure.
const MATCHES: u64 = 10;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Handlers; all by default.
    #[arg(long, value_delimiter = ',')]
    pub handlers: Vec<Handler>,
    /// Events per run.
    #[arg(long, default_value_t = 20_000)]
    pub events: u64,
    /// Pairs of runs.
    #[arg(long, default_value_t = 5)]
    pub pairs: usize,
    /// Concurrent requests of the bare pipe; the dispatcher keeps its default.
    #[arg(long, default_value_t = 32)]
    pub concurrency: usize,
    /// Events per match, to measure Redis memory where few events match.
    #[arg(long, default_value_t = 10_000)]
    pub sparse: u64,
}

impl Question for Options {
    const NAME: &'static str = "throughput";

    fn full() -> Self {
        Self {
            handlers: Vec::new(),
            events: 60_000,
            pairs: 7,
            concurrency: 32,
            sparse: 10_000,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Handler {
    /// With both signatures.
    Webhook,
    /// With a JSON template.
    WebhookCustom,
    Log,
    /// With a function that reads the event.
    Lambda,
}

impl Handler {
    const fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::WebhookCustom => "webhook-custom",
            Self::Log => "log",
            Self::Lambda => "lambda",
        }
    }

    /// Whether the handler calls a receiver.
    const fn calls(self) -> bool {
        matches!(self, Self::Webhook | Self::WebhookCustom)
    }

    /// Requests when a hook is created.
    const fn pings(self) -> u64 {
        match self {
            Self::Webhook => 1,
            Self::WebhookCustom | Self::Log | Self::Lambda => 0,
        }
    }

    const fn least(self) -> f64 {
        match self {
            Self::Webhook => 0.75,
            Self::WebhookCustom => 0.65,
            Self::Log => 0.25,
            Self::Lambda => 0.20,
        }
    }

    fn config(self, url: &str) -> Value {
        match self {
            Self::Webhook => rig::webhook(url),
            Self::WebhookCustom => json!({
                "url": url, "method": "POST", "secret": "measured with both signatures",
                "headers": {"Content-Type": "application/json"},
                "payload": {"text": "{{ entity.username }} was created, {{ entity.custom_id }}",
                    "source": "{{ source }}"}}),
            Self::Log => json!({}),
            Self::Lambda => json!({"functions": [
                "return function (data, event, source, pid)\n\
                 if data.entity.type ~= 0 then error('no proxy: ' .. data.entity.username) end\n\
                 return true\nend"]}),
        }
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let all = Handler::value_variants();
    let chosen = if options.handlers.is_empty() {
        all
    } else {
        &options.handlers
    };
    let mut measures = Vec::new();
    let (mut memory, mut marks) = (Vec::new(), Vec::new());
    for handler in chosen {
        let mut pairs = Vec::new();
        for pair in 1..=options.pairs {
            let bare = if handler.calls() {
                limit::pipe(options.events, options.concurrency).await?
            } else {
                limit::consume(options.events).await?
            };
            let seen = dispatcher(*handler, options.events).await?;
            println!(
                "  {:<14} {pair}/{}  {:>8.0} /s of {bare:>8.0} /s  {:.2}",
                handler.name(),
                options.pairs,
                seen.rate,
                seen.rate / bare
            );
            pairs.push((seen.rate, bare));
            if handler.calls() {
                memory.push(seen.memory / MIB);
            }
            marks.push(seen.mark);
        }
        let reference = if handler.calls() {
            "bare pipe"
        } else {
            "bare consume"
        };
        let name = format!("{} / {reference}", handler.name());
        let measure = Measure::of_pairs(name, "/s", &pairs);
        measures.push(measure.goal(Goal::AtLeast(handler.least())));
    }
    let most = memory.iter().copied().fold(f64::NAN, f64::max);
    if !memory.is_empty() {
        let measure = Measure::stated(
            "resident memory of a dispatcher under full load",
            most,
            "MiB",
        );
        measures.push(measure.goal(Goal::Value(150.0)));
    }
    let name = "Redis memory per done delivery, dense matches";
    let measure = Measure::stated(name, median(marks), "bytes");
    measures.push(measure.goal(Goal::Value(16.0)));
    let name = format!(
        "Redis memory per done delivery, one match in {}",
        options.sparse
    );
    measures.push(Measure::stated(
        name,
        sparse_mark(options.sparse).await?,
        "bytes",
    ));
    Ok(Section {
        title: "Throughput: one hook, one dispatcher".to_owned(),
        about: format!(
            "{} stored events, {} concurrent requests; with matching, read barrier, claims in Redis, \
             both signatures, metrics and delivery log. Median ratio of {} pairs with the bare pipe.",
            options.events, options.concurrency, options.pairs
        ),
        measures,
        plots: Vec::new(),
    })
}

/// Bytes in Redis per delivery where few events match.
async fn sparse_mark(events: u64) -> Result<f64> {
    let mut cluster = rig::cluster().await?;
    let hook = rig::hook("log", json!({}));
    cluster.admin().create_hook(&hook).await?;
    let context = cluster.nats.jetstream();
    for _ in 0..MATCHES {
        rig::store(&context, rig::OTHER_SUBJECT, events - 1).await?;
        rig::store(&context, rig::SUBJECT, 1).await?;
    }
    cluster.add_dispatcher()?.start()?;
    rig::events_drained(&cluster).await?;
    let marks = rig::redis_memory(&cluster.redis.url(), MARKS).await?;
    cluster.finish_unchecked().await?;
    Ok(marks / MATCHES as f64)
}

struct Seen {
    rate: f64,
    /// The dispatcher's resident bytes.
    memory: f64,
    /// Bytes in Redis per done delivery.
    mark: f64,
}

async fn dispatcher(handler: Handler, events: u64) -> Result<Seen> {
    let mut cluster = rig::cluster().await?;
    let mut receiver = Receiver::start().await?;
    let hook = rig::hook(handler.name(), handler.config(&receiver.url));
    cluster.admin().create_hook(&hook).await?;
    rig::store(&cluster.nats.jetstream(), rig::SUBJECT, events).await?;
    cluster.add_dispatcher()?.start()?;
    let took = if handler.calls() {
        // The event of the hook's creation matches no hook.
        receiver.measure(events + handler.pings()).await?
    } else {
        rig::events_drained(&cluster).await?
    };
    let memory = rig::metric(&cluster, "process_resident_memory_bytes").await?;
    rig::events_drained(&cluster).await?;
    let marks = rig::redis_memory(&cluster.redis.url(), MARKS).await?;
    cluster.finish_unchecked().await?;
    Ok(Seen {
        rate: rig::rate(events, took)?,
        memory,
        mark: marks / events as f64,
    })
}
