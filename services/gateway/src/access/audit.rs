//! What an audit record says: who did what, when, from where, in the words of Kong's `/audit/requests`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use hookline_shared::clock;

use super::caller::Caller;

/// Longer paths are cut.
const MAX_PATH: usize = 1_024;

/// A change of an entity.
pub(crate) fn change(caller: &Caller, operation: &str, kind: &str, id: &str) -> Value {
    let mut record = request(caller, caller.success());
    record["operation"] = json!(operation);
    record["entity"] = json!({ "kind": kind, "id": id });
    record
}

/// A request that was answered: refused, or done to something that is no entity.
pub(crate) fn request(caller: &Caller, status: StatusCode) -> Value {
    let user = caller.user.as_ref();
    let path: String = caller.path.chars().take(MAX_PATH).collect();
    json!({
        "request_id": caller.request,
        "request_timestamp": clock::now_utc().unix_timestamp(),
        "client_ip": caller.address,
        "method": caller.method,
        "path": path,
        "workspace": caller.workspace,
        "status": status.as_u16(),
        "rbac_user_id": user.map(|user| &user.row.id),
        "rbac_user_name": user.map(|user| &user.name),
    })
}

impl Caller {
    /// What a change that succeeds is answered.
    fn success(&self) -> StatusCode {
        let is_invitation = self.path.trim_end_matches('/').ends_with("/admins");
        match self.method {
            "POST" if is_invitation => StatusCode::OK,
            "POST" => StatusCode::CREATED,
            "DELETE" => StatusCode::NO_CONTENT,
            _ => StatusCode::OK,
        }
    }
}
