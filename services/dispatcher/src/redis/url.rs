//! The setting that says where Redis is.
//!
//! ```text
//! redis://user:password@host:6379/0            one server; rediss:// for TLS
//! redis+cluster://user:password@a:6379,b:6379  a cluster and some of its nodes; rediss+cluster://
//! redis+sentinel://user:password@a:26379,b:26379/mymaster   a master and its sentinels; rediss+sentinel://
//! ```

use hookline_shared::tls::{self, Pem};
use redis::sentinel::{
    SentinelClient, SentinelClientBuilder, SentinelNodeConnectionInfo, SentinelServerType,
};
use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates,
    TlsMode,
};

/// Quotes nothing, since the setting may have a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "HOOKLINE_REDIS_URL must be redis://HOST:PORT, redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT,HOST:PORT/MASTER (rediss for TLS)"
    )]
    Form,
    #[error(
        "HOOKLINE_REDIS_URL has an address that cannot be read; a password with special characters must be percent-encoded"
    )]
    Address,
    #[error(
        "HOOKLINE_REDIS_URL must name the master after the sentinels: redis+sentinel://HOST:PORT/MASTER"
    )]
    Master,
    #[error(
        "HOOKLINE_REDIS_TLS_CA, _CERT and _KEY need TLS: HOOKLINE_REDIS_URL must begin with rediss"
    )]
    NoTls,
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

#[derive(Debug, Clone)]
pub struct RedisUrl {
    pub form: Form,
    /// Certificates of files, beside what the URL says.
    pub certificates: Option<TlsCertificates>,
}

#[derive(Debug, Clone)]
pub enum Form {
    One(ConnectionInfo),
    /// Some of its nodes.
    Cluster(Vec<ConnectionInfo>),
    Sentinels(Sentinels),
}

/// Sentinels and the master that they monitor.
#[derive(Debug, Clone)]
pub struct Sentinels {
    sentinels: Vec<ConnectionInfo>,
    master: String,
    node: ConnectionInfo,
    tls: bool,
}

impl RedisUrl {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = text.split_once("://").ok_or(Error::Form)?;
        let tls = scheme.starts_with("rediss");
        let form = match scheme {
            "redis" | "rediss" => Form::One(info(text)?),
            "redis+cluster" | "rediss+cluster" => Form::Cluster(nodes(tls, rest, true)?),
            "redis+sentinel" | "rediss+sentinel" => {
                let (hosts, master) = rest.rsplit_once('/').ok_or(Error::Master)?;
                if master.is_empty() {
                    return Err(Error::Master);
                }
                let mut node = nodes(tls, hosts, true)?;
                Form::Sentinels(Sentinels {
                    sentinels: nodes(tls, hosts, false)?,
                    master: master.to_owned(),
                    node: node.swap_remove(0),
                    tls,
                })
            }
            _ => return Err(Error::Form),
        };
        Ok(Self {
            form,
            certificates: None,
        })
    }

    /// With an authority in the place of those that this host trusts, or a certificate of this client. Only `rediss`
    /// has a use for them.
    pub fn with_certificates(mut self, pem: Pem) -> Result<Self, Error> {
        let is_tls = match &self.form {
            Form::One(info) => is_tls(info),
            Form::Cluster(nodes) => nodes.iter().all(is_tls),
            Form::Sentinels(sentinels) => sentinels.tls,
        };
        if !is_tls {
            return Err(Error::NoTls);
        }
        self.certificates = Some(TlsCertificates {
            client_tls: pem.own.map(|(cert, key)| ClientTlsConfig {
                client_cert: cert,
                client_key: key,
            }),
            root_cert: pem.ca,
        });
        Ok(self)
    }

    /// Hosts and ports, without user and password.
    #[must_use]
    pub fn address(&self) -> String {
        let list = |nodes: &[ConnectionInfo]| {
            let addresses: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
            addresses.join(",")
        };
        match &self.form {
            Form::One(info) => info.addr().to_string(),
            Form::Cluster(nodes) => list(nodes),
            Form::Sentinels(sentinels) => {
                format!("{} of {}", sentinels.master, list(&sentinels.sentinels))
            }
        }
    }
}

impl Sentinels {
    pub fn client(
        &self,
        certificates: Option<&TlsCertificates>,
    ) -> Result<SentinelClient, redis::RedisError> {
        if let Some(certificates) = certificates {
            return self.client_with(certificates);
        }
        let mut node = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(self.node.redis_settings().clone());
        if self.tls {
            node = node.set_tls_mode(TlsMode::Secure);
        }
        SentinelClient::build(
            self.sentinels.clone(),
            self.master.clone(),
            Some(node),
            SentinelServerType::Master,
        )
    }

    fn client_with(
        &self,
        certificates: &TlsCertificates,
    ) -> Result<SentinelClient, redis::RedisError> {
        let addresses = self.sentinels.iter().map(|info| info.addr().clone());
        let settings = self.node.redis_settings();
        let mut builder =
            SentinelClientBuilder::new(addresses, self.master.clone(), SentinelServerType::Master)?
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_db(settings.db())
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(certificates.clone());
        if let Some(user) = settings.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = settings.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        builder.build()
    }
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

/// Parses a list of hosts; `with_user`: each with the user and password before the list.
fn nodes(tls: bool, list: &str, with_user: bool) -> Result<Vec<ConnectionInfo>, Error> {
    let scheme = if tls { "rediss" } else { "redis" };
    let (user, hosts) = match list.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), list),
    };
    let user = if with_user { user.as_str() } else { "" };
    let hosts = hosts.trim_end_matches('/').split(',');
    hosts
        .map(|host| info(&format!("{scheme}://{user}{}", host.trim())))
        .collect()
}

fn info(url: &str) -> Result<ConnectionInfo, Error> {
    url.into_connection_info().map_err(|_| Error::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_shown_without_its_password() {
        let cases = [
            ("redis://127.0.0.1:6379", "127.0.0.1:6379"),
            (
                "rediss://user:s3cret@example.com:6380/2",
                "example.com:6380",
            ),
            ("redis+cluster://:s3cret@a:7000,b:7001", "a:7000,b:7001"),
            (
                "rediss+sentinel://user:s3cret@a:26379,b:26379/main",
                "main of a:26379,b:26379",
            ),
        ];
        for (text, address) in cases {
            let url = RedisUrl::parse(text).expect(text);
            assert_eq!(url.address(), address);
        }
    }

    #[test]
    fn user_and_password_go_to_every_node_but_not_to_sentinels() {
        let url = RedisUrl::parse("redis+cluster://me:s3cret@a:7000,b:7001").expect("a URL");
        let Form::Cluster(nodes) = url.form else {
            panic!("a cluster")
        };
        for node in &nodes {
            assert_eq!(node.redis_settings().username(), Some("me"));
            assert_eq!(node.redis_settings().password(), Some("s3cret"));
        }
        let url = RedisUrl::parse("redis+sentinel://me:s3cret@a:26379/main").expect("a URL");
        let Form::Sentinels(sentinels) = url.form else {
            panic!("sentinels")
        };
        assert_eq!(sentinels.node.redis_settings().password(), Some("s3cret"));
        assert_eq!(sentinels.sentinels[0].redis_settings().password(), None);
        assert!(sentinels.client(None).is_ok());
    }

    #[test]
    fn an_error_quotes_nothing() {
        for text in [
            "s3cret",
            "http://s3cret@a",
            "redis+sentinel://:s3cret@a:1",
            "redis+sentinel://:s3cret@a:1/",
            "redis://:s3cret@a:notaport",
        ] {
            let error = RedisUrl::parse(text).expect_err(text).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
