//! Looks names up, and drops the addresses that hooks may not connect to.
//!
//! A look-up holds no thread and ends with the attempt that needs it, so a name server that never answers
//! delays only the hooks that ask for its names. Answers are cached for their TTL.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use hookline_shared::egress::Policy;

/// How long one query may take. Two are made, within the time for a connection.
const QUERY: Duration = Duration::from_secs(2);
/// Concurrent queries per name server. The excess would fail at once, so this is more than all permits.
const QUERIES: usize = 65_536;

#[derive(Clone)]
pub(super) struct Resolver {
    names: TokioResolver,
    policy: Policy,
}

impl Resolver {
    /// Asks the system's name servers and hosts file.
    pub(super) fn of_system(policy: &Policy) -> Result<Self, NetError> {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the system's name servers, names are looked up in the hosts file only");
            TokioResolver::builder_with_config(
                ResolverConfig::default(),
                TokioRuntimeProvider::default(),
            )
        });
        Self::build(builder, policy)
    }

    fn build(
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
        policy: &Policy,
    ) -> Result<Self, NetError> {
        let options = builder.options_mut();
        options.timeout = QUERY;
        options.attempts = 2;
        options.max_active_requests = QUERIES;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(Self {
            names: builder.build()?,
            policy: policy.clone(),
        })
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found = this.names.lookup_ip(name.as_str()).await?;
            let mut refused = None;
            let mut permitted = Vec::new();
            for address in found.iter() {
                match this.policy.check(address) {
                    Ok(()) => permitted.push(SocketAddr::new(address, 0)),
                    Err(error) => refused = Some(error),
                }
            }
            match (permitted.is_empty(), refused) {
                (true, Some(refused)) => Err(refused.into()),
                _ => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use futures::FutureExt as _;
    use futures::future::join_all;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;

    use super::*;
    use hookline_shared::egress::Refused;

    /// More than the threads that blocking look-ups would have.
    const TARPITS: usize = 600;

    /// Answers queries for `well.test`, and no others.
    async fn name_server() -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).expect("a query");
                let question = query.queries[0].clone();
                if question.name().to_string() != "well.test." {
                    continue;
                }
                let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
                answer.metadata.response_code = ResponseCode::NoError;
                if question.query_type() == RecordType::A {
                    let address = RData::A(Ipv4Addr::new(93, 184, 216, 34).into());
                    answer.add_answer(Record::from_rdata(question.name().clone(), 60, address));
                }
                answer.add_query(question);
                let bytes = answer.to_vec().expect("an answer");
                socket.send_to(&bytes, peer).await.expect("sent");
            }
        });
        Ok(address)
    }

    fn resolver(server: SocketAddr) -> Resolver {
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(config, provider);
        Resolver::build(builder, &Policy::default()).expect("a resolver")
    }

    fn look_up(resolver: &Resolver, name: &str) -> Resolving {
        resolver.resolve(name.parse().expect("a name"))
    }

    #[tokio::test]
    async fn names_that_nobody_answers_for_delay_no_other_name() {
        let resolver = resolver(name_server().await.expect("a port"));
        let names = (0..TARPITS).map(|number| format!("tarpit-{number}.test"));
        let mut tarpits = join_all(names.map(|name| look_up(&resolver, &name))).boxed();
        assert!(tarpits.as_mut().now_or_never().is_none(), "they wait");
        let well = look_up(&resolver, "well.test");
        tokio::select! {
            biased;
            found = well => {
                let found: Vec<_> = found.expect("an answer").map(|address| address.ip()).collect();
                assert_eq!(found, [IpAddr::from([93, 184, 216, 34])]);
            }
            _ = tarpits => panic!("they were answered first"),
        }
    }

    #[tokio::test]
    async fn a_name_is_refused_by_the_addresses_it_resolves_to() {
        let localhost = async |policy: Policy| {
            let resolver = Resolver::of_system(&policy).expect("a resolver");
            look_up(&resolver, "localhost").await
        };
        let error = localhost(Policy::default()).await.err().expect("refused");
        assert!(error.downcast_ref::<Refused>().is_some(), "{error}");
        let allow = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network"));
        assert!(localhost(Policy::new(&allow)).await.is_ok());
    }
}
