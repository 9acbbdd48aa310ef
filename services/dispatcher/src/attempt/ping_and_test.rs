//! Answers gateways' requests to `ping` or `test` a hook. Each makes one attempt by the hook's handler, without claim,
//! retry or settlement. Other dispatchers ask whether this one has the same Redis.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message};
use bytes::Bytes;
use futures::StreamExt as _;
use hookline_shared::clock;
use hookline_shared::event::{DeliveryId, Event, EventId};
use hookline_shared::hook::{HandlerConfig, Hook, REDACTED};
use hookline_shared::rpc::{PING, REDIS, Reply, Request, STATUS, Status, TEST};
use hookline_shared::subject::{self, PING_EVENT, PING_SOURCE};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::deliver::attempt;
use crate::admission::circuit_breaker::{Circuits, Verdict};
use crate::cluster::Cluster;
use crate::handler::{Delivery, DeliveryError, Receipt, Response};
use crate::hooks::{Index, Prepared};

/// Requests at the same time.
const PERMITS: usize = 64;
/// Before subscribing again.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers until `shutdown`.
pub(crate) async fn serve(
    client: Client,
    index: Arc<Index>,
    cluster: Cluster,
    circuits: Arc<Circuits>,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(PERMITS));
    loop {
        let group = subject::RPC_GROUP.to_owned();
        match client.queue_subscribe(subject::RPC_SUBJECTS, group).await {
            Ok(mut requests) => loop {
                let request = tokio::select! {
                    () = shutdown.cancelled() => return,
                    request = requests.next() => request,
                };
                let Some(request) = request else { break };
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    return;
                };
                let (client, index) = (client.clone(), Arc::clone(&index));
                let (cluster, circuits) = (cluster.clone(), Arc::clone(&circuits));
                tokio::spawn(async move {
                    let _permit = permit;
                    answer(&client, &index, &cluster, &circuits, request).await;
                });
            },
            Err(error) => tracing::warn!(%error, "cannot subscribe to requests"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

const NOT_UNDERSTOOD: &str = "the request is not understood";
/// With what the inboxes of clients begin.
const INBOXES: &str = "_INBOX";

async fn answer(
    client: &Client,
    index: &Index,
    cluster: &Cluster,
    circuits: &Circuits,
    message: Message,
) {
    // An answer is a write in the name of this service: it goes to inboxes only.
    let reply_to = message.reply.clone();
    let Some(reply_to) = reply_to.filter(|subject| subject.starts_with(INBOXES)) else {
        return;
    };
    let reply = match message.subject.rsplit('.').next().unwrap_or_default() {
        REDIS => seen(cluster, &message.payload).await,
        verb => match serde_json::from_slice::<Request>(&message.payload) {
            Ok(request) => reply(index, circuits, verb, request).await,
            Err(_) => problem(400, NOT_UNDERSTOOD),
        },
    };
    let body = serde_json::to_vec(&reply).unwrap_or_default();
    if let Err(error) = client.publish(reply_to, body.into()).await {
        tracing::warn!(%error, "cannot answer a request");
    }
}

async fn seen(cluster: &Cluster, sign: &[u8]) -> Reply {
    let Ok(sign) = Uuid::try_parse_ascii(sign) else {
        return problem(400, NOT_UNDERSTOOD);
    };
    match cluster.sees(sign).await {
        Some(seen) => Reply {
            status: 200,
            body: json!({ "seen": seen }),
        },
        None => problem(503, "Redis does not answer"),
    }
}

async fn reply(index: &Index, circuits: &Circuits, verb: &str, request: Request) -> Reply {
    if let Err(error) = index.catch_up().await {
        tracing::warn!(%error, "cannot catch up with the hooks to answer a gateway");
        return problem(503, "the dispatcher does not know the hooks yet");
    }
    let snapshot = index.snapshot();
    let Some(hook) = snapshot.get(&request.hook) else {
        return problem(404, "Not found");
    };
    match verb {
        PING => ping(hook).await,
        TEST => test(hook, request.data).await,
        STATUS => status(hook, circuits).await,
        _ => problem(400, NOT_UNDERSTOOD),
    }
}

fn problem(status: u16, message: &str) -> Reply {
    Reply {
        status,
        body: json!({ "message": message }),
    }
}

async fn status(hook: &Prepared, circuits: &Circuits) -> Reply {
    let admission = &hook.admission;
    let verdict = circuits.verdict(&hook.id, admission.revision, &admission.circuit);
    let (circuit, probed_at) = match verdict.await {
        Verdict::Closed => ("closed", None),
        Verdict::HalfOpen => ("half-open", None),
        Verdict::Open(left) => {
            let at = clock::unix_millis() + left.as_millis() as u64;
            ("open", Some(at as f64 / 1_000.0))
        }
    };
    let status = Status {
        circuit: circuit.to_owned(),
        probed_at,
        unusable: hook.unusable,
    };
    Reply {
        status: 200,
        body: serde_json::to_value(status).unwrap_or_default(),
    }
}

/// Sends the ping and answers with it, as Kong does.
async fn ping(hook: &Prepared) -> Reply {
    let data = Map::from_iter([("event_hooks".to_owned(), ping_entity(&hook.hook))]);
    let mut body = data.clone();
    match call(hook, PING_SOURCE, PING_EVENT, data).await {
        Ok(_) => {
            body.insert("source".to_owned(), PING_SOURCE.into());
            body.insert("event".to_owned(), PING_EVENT.into());
            Reply {
                status: 200,
                body: body.into(),
            }
        }
        Err(error) => problem(502, &format!("the ping was not delivered: {error}")),
    }
}

/// The hook as in a ping: without the secret, and with the content type.
fn ping_entity(hook: &Hook) -> Value {
    let mut entity = serde_json::to_value(hook).unwrap_or_default();
    let config = &mut entity["config"];
    if config["secret"].is_string() {
        config["secret"] = REDACTED.into();
    }
    if matches!(hook.handler, HandlerConfig::Webhook(_)) {
        if !config["headers"].is_object() {
            config["headers"] = json!({});
        }
        if let Some(headers) = config["headers"].as_object_mut()
            && !headers
                .keys()
                .any(|name| name.eq_ignore_ascii_case("content-type"))
        {
            headers.insert("content-type".to_owned(), "application/json".into());
        }
    }
    if entity["delivery"].is_null()
        && let Some(fields) = entity.as_object_mut()
    {
        fields.remove("delivery");
    }
    entity
}

/// Makes one attempt with the caller's data. Answers with the data and the receiver's response.
async fn test(hook: &Prepared, data: Map<String, Value>) -> Reply {
    let source = hook.hook.source.clone();
    // A hook for all events of a source has no event name.
    let event = hook.hook.event.clone().unwrap_or_else(|| TEST.to_owned());
    let result = call(hook, &source, &event, data.clone()).await;
    let mut shown = data;
    shown.insert("source".to_owned(), source.into());
    shown.insert("event".to_owned(), event.into());
    // The test was made, whatever came of it.
    let result = match result {
        Ok(Receipt::Response(response)) | Err(DeliveryError::Status { response, .. }) => {
            show(&response)
        }
        Ok(Receipt::Done) => json!({ "delivered": true }),
        Err(error) => json!({ "delivered": false, "error": error.to_string() }),
    };
    Reply {
        status: 200,
        body: json!({ "data": shown, "result": result }),
    }
}

fn show(response: &Response) -> Value {
    let headers: Map<_, _> = response
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.into())))
        .collect();
    json!({
        "status": response.status,
        "headers": headers,
        "body": String::from_utf8_lossy(&response.body),
    })
}

/// Makes one attempt with an event that is in no stream.
async fn call(
    hook: &Prepared,
    source: &str,
    event_name: &str,
    data: Map<String, Value>,
) -> Result<Receipt, DeliveryError> {
    let workspace = match hook.workspace.as_str() {
        subject::ALL_WORKSPACES => subject::DEFAULT_WORKSPACE,
        workspace => workspace,
    };
    let published = subject::event_subject(workspace, source, event_name);
    let data = Bytes::from(Value::Object(data).to_string());
    let event_id = EventId::given(Uuid::new_v4().to_string());
    let event = Event::parse_with_id(&published, None, data, event_id)
        .map_err(|_| DeliveryError::Request("the data is larger than an event's"))?;
    let id = DeliveryId::new(&event, &hook.hook.id);
    attempt(
        hook,
        &Delivery {
            id,
            event: Arc::new(event),
            event_name: event_name.into(),
            trace: None,
        },
    )
    .await
}
