//! The user of a request, by its token.
//!
//! Tokens that were right are remembered by a digest with a key of this process: a request costs some microseconds
//! then, and how long a look-up takes says nothing about any token. What is remembered is only whose a token is. Whether
//! the user still has it, and what they may do, is read from this node's view each time, so that a change counts as soon
//! as the view has it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use hookline_shared::clock;

use super::permissions::{self, Permissions};
use super::throttle::Throttle;
use super::token::{self, Busy};
use crate::schema::{Entity, Schema};
use crate::store::{self, Row, Store};

/// The field that has a token's digest.
pub(crate) const TOKEN: &str = "user_token";
/// Of an admin who has accepted the invitation.
pub(crate) const APPROVED: i64 = 0;
/// Tokens that are remembered.
const KNOWN: usize = 10_000;

/// Somebody with a token.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) row: Arc<Row>,
    pub(crate) name: String,
    pub(crate) permissions: Permissions,
}

/// Why a request has no user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("Invalid RBAC credentials: the header Kong-Admin-Token is missing")]
    NoToken,
    #[error("Invalid RBAC credentials")]
    WrongToken,
    #[error("too many wrong tokens came from this address, try again later")]
    TooMany(Duration),
    #[error("too many tokens are being looked at, try again")]
    Busy,
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Refused {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<Busy> for Refused {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

#[derive(Debug)]
pub(crate) struct Logins {
    key: [u8; 32],
    known: Mutex<HashMap<[u8; 32], Known>>,
    throttle: Throttle,
}

#[derive(Debug)]
struct Known {
    /// As the bucket has it.
    digest: String,
    /// The user, and the version of the view's access that this is of.
    user: Option<(u64, Arc<User>)>,
}

impl Default for Logins {
    fn default() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has random bytes");
        Self {
            key,
            known: Mutex::default(),
            throttle: Throttle::default(),
        }
    }
}

impl Logins {
    pub(crate) async fn user(
        &self,
        store: &Store,
        token: Option<&str>,
        address: IpAddr,
    ) -> Result<Arc<User>, Refused> {
        let token = token.ok_or(Refused::NoToken)?;
        let key = self.key_of(token);
        let version = store.view().access_version();
        let known = self.known.lock().get(&key).map(|known| match &known.user {
            Some((of, user)) if *of == version => Ok(Arc::clone(user)),
            _ => Err(known.digest.clone()),
        });
        let mut found = None;
        if let Some(known) = known {
            let may = self.throttle.may_use_known(address);
            may.map_err(Refused::TooMany)?;
            found = match known {
                Ok(user) => Some(user),
                Err(digest) => self.look_up(store, key, digest, version).await?,
            };
        }
        // Also one that was right before: in another bucket it has another digest.
        if found.is_none() {
            self.throttle.may_try(address).map_err(Refused::TooMany)?;
            let digest = token::digest(token, &store.salt()?).await?;
            found = self.look_up(store, key, digest, version).await?;
        }
        match found.filter(|user| may_log_in(&user.row)) {
            Some(user) => Ok(user),
            None => {
                self.throttle.was_wrong(address);
                Err(Refused::WrongToken)
            }
        }
    }

    /// Whether an address may try something that only its owner knows.
    pub(crate) fn may_try(&self, address: IpAddr) -> Result<(), Refused> {
        self.throttle.may_try(address).map_err(Refused::TooMany)
    }

    pub(crate) fn was_wrong(&self, address: IpAddr) {
        self.throttle.was_wrong(address);
    }

    async fn look_up(
        &self,
        store: &Store,
        key: [u8; 32],
        digest: String,
        version: u64,
    ) -> Result<Option<Arc<User>>, Refused> {
        let kinds = [Schema::admins(), Schema::rbac_users()];
        let mut kinds_in_view = kinds.iter();
        let mut found =
            kinds_in_view.find_map(|kind| store.view().get_anywhere(kind, TOKEN, &digest));
        for kind in kinds {
            if found.is_none() {
                found = store.get_anywhere(kind, TOKEN, &digest).await?;
            }
        }
        let mut known = self.known.lock();
        let Some(row) = found else {
            known.remove(&key);
            return Ok(None);
        };
        let user = Arc::new(User::of(row, store));
        if known.len() >= KNOWN {
            known.clear();
        }
        let user_now = Some((version, Arc::clone(&user)));
        known.insert(
            key,
            Known {
                digest,
                user: user_now,
            },
        );
        Ok(Some(user))
    }

    fn key_of(&self, token: &str) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.key)
            .chain_update(token)
            .finalize()
            .into()
    }
}

impl User {
    fn of(row: Arc<Row>, store: &Store) -> Self {
        let roles = permissions::roles(&row.entity);
        Self {
            name: row.name().unwrap_or_default().to_owned(),
            permissions: Permissions::of(store.view(), &roles),
            row,
        }
    }
}

fn may_log_in(row: &Row) -> bool {
    let entity = &row.entity;
    let flag = |name: &str| entity.get(name).and_then(Value::as_bool) != Some(false);
    let is_enabled = if row.schema.kind == Schema::admins().kind {
        flag("rbac_token_enabled") && status(entity) == Some(APPROVED)
    } else {
        flag("enabled")
    };
    let expires = entity.get("expires_at").and_then(Value::as_i64);
    let now = clock::now_utc().unix_timestamp();
    is_enabled && expires.is_none_or(|at| now < at)
}

pub(crate) fn status(admin: &Entity) -> Option<i64> {
    admin.get("status").and_then(Value::as_i64)
}
