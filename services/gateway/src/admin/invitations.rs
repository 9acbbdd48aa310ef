//! Admins come in by an invitation: `POST /admins` makes one and shows a registration token once, with which the admin
//! registers and gets a token of their own.

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use hookline_shared::clock;

use super::collections::{Collection, Tokens, has_id};
use super::rbac::{place_of, whose, workspaces};
use super::response;
use crate::access::{APPROVED, Caller, Logins, Refused, TOKEN, status, token};
use crate::error::ApiError;
use crate::schema::{Entity, INVITED, Input, Schema, Violations};
use crate::store::{Row, Store};

/// How long an invitation is good for.
const INVITATION_SECONDS: i64 = 72 * 3600;
const REGISTER_TOKEN: &str = "register_token";
const REGISTER_UNTIL: &str = "register_until";

impl Collection<'_> {
    /// `POST /admins`.
    pub(super) async fn invite(&self, mut input: Input) -> Result<Response, ApiError> {
        input.values.insert("status".to_owned(), json!(INVITED));
        let id_given = has_id(&input);
        let (token, set) = self.invitation()?;
        let admin = self.insert(input, set, id_given).await?;
        Ok(response::ok(&self.invited(&admin, &token)))
    }

    /// `GET /admins/{admin}?generate_register_url=true`: another invitation in the place of the last one.
    pub(super) async fn invite_again(&self, key: &str) -> Result<Response, ApiError> {
        let admin = self.find(key).await?;
        let (token, set) = self.invitation()?;
        let changed = self.change(admin, Tokens::Digests, |admin| {
            if status(&admin.entity) != Some(INVITED) {
                return Err(ApiError::BadRequest("this admin has registered already"));
            }
            let mut entity = admin.entity.clone();
            entity.extend(set.clone());
            Ok(entity)
        });
        let admin = changed.await?;
        Ok(response::ok(&self.invited(&admin, &token)))
    }

    fn invited(&self, admin: &Entity, token: &str) -> Value {
        json!({
            "admin": self.schema.response(admin),
            "token": token,
            "token_expires_at": admin.get(REGISTER_UNTIL),
        })
    }

    /// A registration token, and what of it is stored.
    fn invitation(&self) -> Result<(String, Entity), ApiError> {
        let token = token::generate();
        let digest = token::digest_of_generated(&token, &self.store.salt()?);
        let until = clock::now_utc().unix_timestamp() + INVITATION_SECONDS;
        let set = [
            (REGISTER_TOKEN, json!(digest)),
            (REGISTER_UNTIL, json!(until)),
        ];
        let set = set.map(|(name, value)| (name.to_owned(), value));
        Ok((token, Entity::from_iter(set)))
    }
}

pub(super) fn wants_invitation(uri: &Uri) -> bool {
    let arguments = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut wanted = arguments.filter(|(name, _)| name == "generate_register_url");
    wanted.any(|(_, value)| value == "true")
}

/// `POST` or `PUT /admins/register`: `token`, `username`, `email` if the invitation has one, and a `password`, which is
/// the admin's token from then on. Without one a token is generated, and shown this once.
pub(super) async fn register(
    store: &Store,
    logins: &Logins,
    caller: &Caller,
    input: Input,
) -> Result<Response, ApiError> {
    logins.may_try(caller.address)?;
    let text = |name: &str| input.values.get(name).and_then(Value::as_str);
    for field in ["token", "username"] {
        if text(field).is_none_or(str::is_empty) {
            return Err(Violations::of(field, "required field missing").into());
        }
    }
    let schema = Schema::admins();
    let digest = token::digest_of_generated(text("token").unwrap_or_default(), &store.salt()?);
    let found = store.get_anywhere(schema, REGISTER_TOKEN, &digest).await?;
    let is_meant = |admin: &Row| {
        let known = |name: &str| admin.entity.get(name).and_then(Value::as_str);
        let until = admin.entity.get(REGISTER_UNTIL).and_then(Value::as_i64);
        known("username") == text("username")
            && known("email").is_none_or(|email| text("email") == Some(email))
            && until.is_some_and(|until| clock::now_utc().unix_timestamp() < until)
            && status(&admin.entity) == Some(INVITED)
    };
    let Some(admin) = found.filter(|admin| is_meant(admin)) else {
        logins.was_wrong(caller.address);
        return Err(Refused::WrongToken.into());
    };
    let admins = Collection::new(store, schema, place_of(&admin), Arc::new(caller.for_own()));
    let (token, shown) = own_token(text("password"), "password", store).await?;
    let registered = admins.change(admin, Tokens::Digests, |admin| {
        if !is_meant(admin) {
            return Err(Refused::WrongToken.into());
        }
        let mut entity = admin.entity.clone();
        entity.shift_remove(REGISTER_TOKEN);
        entity.shift_remove(REGISTER_UNTIL);
        entity.insert("status".to_owned(), json!(APPROVED));
        entity.insert(TOKEN.to_owned(), json!(token));
        Ok(entity)
    });
    let registered = registered.await?;
    let mut answer = json!({ "admin": schema.response(&registered) });
    if let Some(token) = shown {
        answer["user_token"] = json!(token);
    }
    Ok(response::json(StatusCode::CREATED, &answer))
}

/// `PATCH /admins/self/token`: another token in the place of the one that the request has.
pub(super) async fn replace_own_token(
    store: &Store,
    caller: &Caller,
    input: Input,
) -> Result<Response, ApiError> {
    let user = caller.user.as_ref().ok_or(ApiError::BadRequest(
        "requests need no token here: HOOKLINE_RBAC is off",
    ))?;
    let given = input.values.get("token").and_then(Value::as_str);
    let (token, shown) = own_token(given, "token", store).await?;
    let row = Arc::clone(&user.row);
    let users = Collection::new(
        store,
        row.schema,
        place_of(&row),
        Arc::new(caller.for_own()),
    );
    let changed = users.change(row, Tokens::Digests, |user| {
        let mut entity = user.entity.clone();
        entity.insert(TOKEN.to_owned(), json!(token));
        Ok(entity)
    });
    changed.await?;
    let mut answer = json!({ "message": "Token reset successfully" });
    if let Some(token) = shown {
        answer["token"] = json!(token);
    }
    Ok(response::ok(&answer))
}

/// `GET /userinfo`: who the request's user is, and what they may do where.
pub(super) async fn user_info(store: &Store, caller: &Caller) -> Result<Response, ApiError> {
    let Some(user) = &caller.user else {
        return Err(ApiError::NotFound);
    };
    let schema = user.row.schema;
    Ok(response::ok(&json!({
        whose(schema): schema.response(&user.row.entity),
        "permissions": user.permissions.show(),
        "workspaces": workspaces(store, &user.permissions).await["data"],
    })))
}

/// The digest of the token that somebody chose; without one, of a new one, with it.
async fn own_token(
    given: Option<&str>,
    field: &str,
    store: &Store,
) -> Result<(String, Option<String>), ApiError> {
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        let token = token::generate();
        let digest = token::digest_of_generated(&token, &store.salt()?);
        return Ok((digest, Some(token)));
    };
    crate::schema::check_token(given).map_err(|why| Violations::of(field, why))?;
    let digest = token::digest(given, &store.salt()?).await;
    Ok((digest.map_err(Refused::from)?, None))
}
