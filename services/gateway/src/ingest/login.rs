//! The token of a request. It is found by its digest; nobody can guess one, and who tries is slowed down.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hookline_shared::clock;
use hookline_shared::subject::is_internal_source;
use serde_json::Value;

use super::request::{Incoming, Path};
use crate::access::{Throttle, token};
use crate::schema::Schema;
use crate::schema::ingest_tokens::{ANY_SOURCE, OF_CHANGES, TOKEN};
use crate::store::{self, Row, Store};

/// Why a request may not raise its events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "a token is missing: send `Authorization: Bearer TOKEN`, or the token as the password of a user in the URL"
    )]
    NoToken,
    #[error("no such token, or it is disabled or expired")]
    WrongToken,
    #[error("too many wrong tokens came from this address, try again later")]
    TooMany(Duration),
    #[error("the token is of another workspace than {0:?}")]
    Workspace(String),
    #[error("the token does not name the source {0:?}")]
    Source(String),
    #[error("only gateways raise events of {0:?}")]
    Internal(String),
    #[error("other data came with the same idempotency key")]
    OtherData,
    #[error(
        "an event may have at most {0} bytes (HOOKLINE_MAX_EVENT, and NATS' max_payload), its headers included"
    )]
    TooLarge(usize),
    #[error(
        "NATS did not answer in time: the events may or may not be stored, send them again with the same idempotency key"
    )]
    Unsure,
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Refused {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Workspace(_) | Self::Source(_) | Self::Internal(_) => StatusCode::FORBIDDEN,
            Self::OtherData => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsure | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Why events could not be stored.
    pub(super) fn of(error: store::Error) -> Self {
        match error {
            store::Error::Unknown => Self::Unsure,
            store::Error::LargeEvent(most) => Self::TooLarge(most),
            error => Self::Store(error),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Logins {
    throttle: Throttle,
}

/// Who has the token.
#[derive(Debug)]
pub(super) struct Sender(Arc<Row>);

impl Logins {
    pub(super) async fn sender(
        &self,
        store: &Store,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Result<Sender, Refused> {
        let token = given(headers)?;
        if !token::is_generated(&token) {
            return Err(self.wrong(address));
        }
        let digest = token::digest_of_generated(&token, &store.salt()?);
        let kind = Schema::ingest_tokens();
        let mut found = store.view().get_anywhere(kind, TOKEN, &digest);
        if found.is_none() {
            // Another node may have just made it.
            self.throttle.may_try(address).map_err(Refused::TooMany)?;
            found = store.get_anywhere(kind, TOKEN, &digest).await?;
        }
        match found.filter(|row| may_send(row)) {
            Some(row) => Ok(Sender(row)),
            None => Err(self.wrong(address)),
        }
    }

    fn wrong(&self, address: IpAddr) -> Refused {
        if let Err(wait) = self.throttle.may_try(address) {
            return Refused::TooMany(wait);
        }
        self.throttle.was_wrong(address);
        Refused::WrongToken
    }
}

impl Sender {
    pub(super) fn workspace(&self) -> &str {
        &self.0.workspace
    }

    pub(super) fn name(&self) -> &str {
        self.0.name().unwrap_or_default()
    }

    /// Whether the token is for these events.
    pub(super) fn check(&self, path: &Path, events: &[Incoming]) -> Result<(), Refused> {
        if let Some(workspace) = path
            .workspace
            .as_ref()
            .filter(|name| *name != self.workspace())
        {
            return Err(Refused::Workspace(workspace.clone()));
        }
        for event in events {
            if is_internal_source(&event.source) {
                return Err(Refused::Internal(event.source.clone()));
            }
            if !self.names(&event.source) {
                return Err(Refused::Source(event.source.clone()));
            }
        }
        Ok(())
    }

    fn names(&self, source: &str) -> bool {
        let sources = self.0.entity.get("sources").and_then(Value::as_array);
        let has = |name: &str| sources.is_some_and(|list| list.iter().any(|one| one == name));
        has(source) || (has(ANY_SOURCE) && !OF_CHANGES.contains(&source))
    }
}

fn may_send(row: &Row) -> bool {
    let is_enabled = row.entity.get("enabled").and_then(Value::as_bool) != Some(false);
    let expires = row.entity.get("expires_at").and_then(Value::as_i64);
    let now = clock::now_utc().unix_timestamp();
    is_enabled && expires.is_none_or(|at| now < at)
}

/// The token that a request shows: a bearer, or the password of any user.
fn given(headers: &HeaderMap) -> Result<String, Refused> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Refused::NoToken),
        (Some(value), None) => value.to_str().map_err(|_| Refused::WrongToken)?,
        (Some(_), Some(_)) => return Err(Refused::WrongToken),
    };
    let (scheme, rest) = value.split_once(' ').ok_or(Refused::WrongToken)?;
    let rest = rest.trim();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Ok(rest.to_owned()),
        "basic" => {
            let decoded = BASE64_STANDARD.decode(rest).ok();
            let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.ok_or(Refused::WrongToken)?;
            let (_, password) = decoded.split_once(':').ok_or(Refused::WrongToken)?;
            Ok(password.to_owned())
        }
        _ => Err(Refused::WrongToken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_bearer_or_a_password() {
        let given = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a value"));
            given(&headers).ok()
        };
        assert_eq!(given("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(given("bearer  abc").as_deref(), Some("abc"));
        let basic = BASE64_STANDARD.encode("anyone:a:c");
        assert_eq!(given(&format!("Basic {basic}")).as_deref(), Some("a:c"));
        for wrong in ["abc", "Basic !!!", "Digest abc", "Basic YWJj"] {
            assert_eq!(given(wrong), None, "{wrong}");
        }
    }
}
