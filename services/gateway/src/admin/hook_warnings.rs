//! What is probably wrong with a hook, although it can be made: names that nobody publishes, an address that
//! dispatchers refuse, a body that is no JSON.

use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use serde::de::IgnoredAny;
use serde_json::Value;
use url::{Host, Url};

use hookline_shared::egress::Policy;
use hookline_shared::event::{Event, EventId};
use hookline_shared::hook::custom_request::CustomRequest;
use hookline_shared::hook::{HandlerConfig, Hook, WebhookCustomConfig};
use hookline_shared::nearest::nearest;
use hookline_shared::registry;
use hookline_shared::subject::{DEFAULT_WORKSPACE, event_subject};
use hookline_shared::template;

use crate::schema::Entity;
use crate::store::Store;

/// One sentence, or several.
pub(super) async fn of(store: &Store, hook: &Entity) -> Option<String> {
    let hook = Hook::from_json(&Value::Object(hook.clone())).ok()?;
    let (egress, hook) = (refused_address(store, &hook).await, hook);
    let rendered = tokio::task::spawn_blocking(move || {
        let warnings = [names(&hook.source, hook.event.as_deref()), sample(&hook)];
        warnings.into_iter().flatten().collect::<Vec<_>>()
    });
    let mut warnings = rendered.await.unwrap_or_default();
    warnings.extend(egress);
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

fn names(source: &str, event: Option<&str>) -> Option<String> {
    let Some(events) = registry::events(source) else {
        let all: Vec<_> = registry::sources().collect();
        return Some(match nearest(source, all.iter().copied()) {
            Some(meant) => format!("there is no source '{source}', did you mean '{meant}'?"),
            None => format!(
                "source '{source}' is not built in ({}): the hook hears what is published under it",
                all.join(", ")
            ),
        });
    };
    let event = event?;
    let (name, operation) = registry::parts(source, event);
    if !events.contains(&name) {
        let meant = nearest(name, events.iter().copied());
        let meant = meant.map_or_else(
            || format!("see /event-hooks/sources/{source}"),
            |meant| format!("did you mean '{meant}'?"),
        );
        return Some(format!("source '{source}' has no event '{name}', {meant}"));
    }
    let operation = operation.filter(|one| !registry::OPERATIONS.contains(one))?;
    let meant = nearest(operation, registry::OPERATIONS).map_or_else(
        || format!("there are {}", registry::OPERATIONS.join(", ")),
        |meant| format!("did you mean '{name}:{meant}'?"),
    );
    Some(format!("there is no operation '{operation}', {meant}"))
}

/// Whether examples of its events make sound bodies.
fn sample(hook: &Hook) -> Option<String> {
    let HandlerConfig::WebhookCustom(config) = &hook.handler else {
        return None;
    };
    let request = CustomRequest::compile(config).ok()?;
    let examples = registry::examples(&hook.source, hook.event.as_deref());
    let mut wrong = examples.into_iter();
    wrong.find_map(|example| unsound(hook, config, &request, &example))
}

fn unsound(
    hook: &Hook,
    config: &WebhookCustomConfig,
    request: &CustomRequest,
    example: &Value,
) -> Option<String> {
    let name = hook.event.as_deref().unwrap_or("example");
    let subject = event_subject(DEFAULT_WORKSPACE, &hook.source, name);
    let (id, data) = (EventId::given("example"), Bytes::from(example.to_string()));
    let event = Event::parse_with_id(&subject, None, data, id).ok()?;
    let part = if config.body.is_some() {
        "body"
    } else {
        "payload"
    };
    let about = match example["operation"].as_str() {
        Some(operation) => format!("with an example of an event ({operation})"),
        None => "with an example of an event".to_owned(),
    };
    let rendered = match request.render(&template::context(&event, name)) {
        Ok(rendered) => rendered,
        Err(error) => return Some(format!("{about}, {error}")),
    };
    let content_type = rendered.headers.get("content-type")?.to_str().ok()?;
    if rendered.body.is_empty() || !content_type.to_ascii_lowercase().contains("json") {
        return None;
    }
    let error = serde_json::from_slice::<IgnoredAny>(&rendered.body).err()?;
    Some(format!("{about}, config.{part} is not JSON: {error}"))
}

/// Dispatchers decide, and look names up. Here are only addresses that are written out.
async fn refused_address(store: &Store, hook: &Hook) -> Option<String> {
    let url = match &hook.handler {
        HandlerConfig::Webhook(config) => &config.url,
        HandlerConfig::WebhookCustom(config) => &config.url,
        HandlerConfig::Log(_) | HandlerConfig::Lambda(_) => return None,
    };
    let address = match Url::parse(url).ok()?.host()? {
        Host::Ipv4(address) => IpAddr::from(address),
        Host::Ipv6(address) => IpAddr::from(address),
        Host::Domain("localhost") => IpAddr::from([127, 0, 0, 1]),
        Host::Domain(_) => return None,
    };
    let allowed = store.dispatchers_setting("HOOKLINE_EGRESS_ALLOW").await?;
    let networks: Vec<IpNet> = allowed
        .split(',')
        .filter_map(|net| net.parse().ok())
        .collect();
    let refused = Policy::new(&networks).check(address).err()?;
    Some(format!(
        "dispatchers refuse config.url: {refused}, and HOOKLINE_EGRESS_ALLOW does not list it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_get_a_suggestion() {
        for (source, event, want) in [
            ("crud", None, None),
            ("crud", Some("consumers:update"), None),
            ("dao:crud", Some("create"), None),
            ("curd", Some("consumers"), Some("did you mean 'crud'?")),
            ("crud", Some("consmers"), Some("did you mean 'consumers'?")),
            (
                "crud",
                Some("consumers:updat"),
                Some("did you mean 'consumers:update'?"),
            ),
            (
                "crud",
                Some("consumers:x"),
                Some("there are create, update, delete"),
            ),
            (
                "crud",
                Some("pineapples"),
                Some("see /event-hooks/sources/crud"),
            ),
            ("balancer", Some("healt"), Some("did you mean 'health'?")),
            (
                "payments",
                Some("paid"),
                Some("hears what is published under it"),
            ),
        ] {
            let found = names(source, event);
            match want {
                None => assert_eq!(found, None, "{source} {event:?}"),
                Some(want) => {
                    assert!(
                        found.as_ref().is_some_and(|found| found.contains(want)),
                        "{found:?}"
                    );
                }
            }
        }
    }
}
