//! Whether a request may do what it asks for: who may use a path stands in the table of routes, what a user may do in
//! their roles.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use hookline_shared::http_server::Peer;
use hookline_shared::subject::ALL_WORKSPACES;
use ipnet::IpNet;
use uuid::Uuid;

use super::Admin;
use super::invitations::wants_invitation;
use super::path::Path;
use super::routes::{Access, Target};
use crate::access::{Action, Caller, Refused};
use crate::error::ApiError;
use crate::schema::{Schema, is_uuid};
use crate::store::Store;

const TOKEN: &str = "kong-admin-token";
const FORWARDED_FOR: &str = "x-forwarded-for";

impl Admin {
    /// Who makes a request, before it is known what they may do.
    pub(super) fn caller(&self, path: Option<&Path>, request: &Request) -> Caller {
        Caller {
            user: None,
            address: address(request, &self.trusted_proxies),
            request: Uuid::new_v4(),
            method: name(request.method()),
            path: path.map_or_else(
                || beginning(request.uri().path()),
                |path| path.without_secrets(request.uri().path()),
            ),
            workspace: path.map_or(ALL_WORKSPACES, Path::place).to_owned(),
            asks: None,
        }
    }

    /// Whoever may not do it is told so. Without a path: whoever is nobody.
    pub(super) async fn authorize(
        &self,
        caller: &mut Caller,
        path: Option<&Path>,
        request: &Parts,
    ) -> Result<(), ApiError> {
        let Some(logins) = &self.logins else {
            return Ok(());
        };
        let access = path.map(|path| path.route.access);
        // A browser asks what is offered before it sends a token.
        if request.method == Method::OPTIONS || access == Some(Access::Open) {
            return Ok(());
        }
        let store = self.store.get().ok_or(ApiError::Starting)?;
        let token = token(&request.headers)?;
        let user = logins.user(store, token, caller.address).await?;
        caller.user = Some(user);
        let (Some(path), Some(mut action)) = (path, Action::of(&request.method)) else {
            return Ok(());
        };
        let is_admin = path.route.kind == Schema::admins().kind;
        if is_admin && wants_invitation(&request.uri) {
            action = Action::Update;
        }
        caller.asks = Some((Arc::clone(&path.segments), action));
        let is_permitted = match path.route.access {
            Access::Open | Access::Users => true,
            Access::Visible if action == Action::Read => true,
            Access::Visible | Access::Roles => permits(store, caller, path, action).await?,
        };
        if is_permitted {
            Ok(())
        } else {
            Err(ApiError::forbidden(caller))
        }
    }
}

/// An entity may be named by its id and by its endpoint key: a role that forbids one forbids the other.
async fn permits(
    store: &Store,
    caller: &Caller,
    path: &Path,
    action: Action,
) -> Result<bool, ApiError> {
    let Some(user) = &caller.user else {
        return Ok(false);
    };
    let workspace = path.place();
    let mut names: Vec<Vec<&str>> = path
        .segments
        .iter()
        .map(|segment| vec![segment.as_str()])
        .collect();
    let row = match (path.key_place(), path.route.target) {
        (Some(_), Target::Sources) | (None, _) => None,
        (Some(_), _) if !user.permissions.name_things => None,
        (Some(_), target) => match target.schema() {
            Some(schema) if is_uuid(path.key()) => {
                let id = path.key().to_ascii_lowercase();
                store.get(schema, workspace, &id).await?
            }
            Some(schema) => match schema.endpoint_key {
                Some(field) => {
                    store
                        .get_by_unique(schema, workspace, field, path.key())
                        .await?
                }
                None => None,
            },
            None => None,
        },
    };
    if let (Some(row), Some(place)) = (&row, path.key_place()) {
        names[place].extend(row.name());
        names[place].push(&row.id);
    }
    Ok(user.permissions.allow(workspace, &names, action))
}

/// Of a path that leads nowhere: what follows may be a key.
fn beginning(path: &str) -> String {
    let mut segments = path.trim_matches('/').split('/');
    let first = segments.next().unwrap_or_default();
    let more = if segments.next().is_some() {
        "/..."
    } else {
        ""
    };
    format!("/{first}{more}")
}

fn token(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all(TOKEN).iter();
    let (first, another) = (values.next(), values.next());
    match (first, another) {
        (None, _) => Ok(None),
        (Some(token), None) => token.to_str().map(Some).map_err(|_| Refused::WrongToken),
        (Some(_), Some(_)) => Err(Refused::WrongToken),
    }
}

/// The client's, of which trusted proxies tell: the last one that is no such proxy.
pub(crate) fn address(request: &Request, proxies: &[IpNet]) -> IpAddr {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| {
        peer.0.ip().to_canonical()
    });
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    if !is_proxy(&peer) {
        return peer;
    }
    let mut client = peer;
    let headers = request.headers().get_all(FORWARDED_FOR).iter();
    let said: Vec<_> = headers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for said in said.into_iter().rev() {
        let Ok(address) = said.trim().parse::<IpAddr>() else {
            break;
        };
        client = address.to_canonical();
        if !is_proxy(&client) {
            break;
        }
    }
    client
}

/// Unknown methods have no path.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(peer: &str, forwarded: &[&str]) -> Request {
        let mut request = Request::new(axum::body::Body::empty());
        let peer = peer.parse().expect("an address");
        request.extensions_mut().insert(Peer(peer));
        for value in forwarded {
            let value = value.parse().expect("a value");
            request.headers_mut().append(FORWARDED_FOR, value);
        }
        request
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        let proxies = ["10.0.0.0/8".parse().expect("a network")];
        for (peer, forwarded, client) in [
            ("192.0.2.1:5", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1:5", &[], "10.0.0.1"),
            ("10.0.0.1:5", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1:5", &["1.2.3.4, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1:5", &["198.51.100.7, 10.0.0.9"], "198.51.100.7"),
            ("10.0.0.1:5", &["1.2.3.4", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1:5", &["junk, 10.0.0.9"], "10.0.0.9"),
            ("10.0.0.1:5", &["junk"], "10.0.0.1"),
            ("[::ffff:10.0.0.1]:5", &["2001:db8::1"], "2001:db8::1"),
        ] {
            let request = request(peer, forwarded);
            let client: IpAddr = client.parse().expect("an address");
            assert_eq!(address(&request, &proxies), client, "{peer} {forwarded:?}");
        }
    }
}
