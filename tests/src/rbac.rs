//! Clusters whose Admin API asks for tokens.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::admin::Admin;
use crate::cluster::{Builder, Cluster};

/// The token of the first super-admin.
pub const PASSWORD: &str = "correct-horse-battery";

/// Of one gateway and one dispatcher, unless it is told otherwise.
#[must_use]
pub fn closed() -> Builder {
    Cluster::builder()
        .gateway_env("HOOKLINE_RBAC", "on")
        .gateway_env("KONG_PASSWORD", PASSWORD)
}

/// The first super-admin, at the first gateway.
#[must_use]
pub fn first(cluster: &Cluster) -> Admin {
    cluster.admin().with_token(PASSWORD)
}

/// A new user with a role, in the workspace of the prefix, such as `/team`.
pub async fn user(boss: &Admin, prefix: &str, name: &str, role: &str) -> Result<Admin> {
    let users = format!("{prefix}/rbac/users");
    let user = boss.post(&users, &json!({ "name": name })).await?;
    let user = user.expect(201)?;
    let token = user["user_token"].as_str().context("a token")?;
    let roles = format!("{users}/{name}/roles");
    let given = boss.post(&roles, &json!({ "roles": role })).await?;
    given.expect(201)?;
    Ok(boss.with_token(token))
}
