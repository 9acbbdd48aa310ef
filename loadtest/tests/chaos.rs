//! Every fault, for a few seconds and with little load. `make chaos` runs them in full.

use anyhow::{Context as _, Result, ensure};
use hookline_loadtest::chaos::{FAULTS, Size, fault};

async fn holds(name: &str) -> Result<()> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let row = fault(name)
        .context("a fault of that name")?
        .run(Size::SHORT)
        .await?;
    ensure!(row.sent > 0, "nothing was sent");
    ensure!(row.passed(), "{:#}", row.json());
    Ok(())
}

macro_rules! faults {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> Result<()> {
                holds($name).await
            }
        )*

        #[test]
        fn every_fault_that_is_not_too_long_is_here() {
            let here = [$($name),*];
            let short = FAULTS.iter().filter(|fault| !fault.long);
            let all: Vec<_> = short.map(|fault| fault.name).collect();
            assert_eq!(all, here);
        }
    };
}

faults! {
    killed_dispatchers_lose_nothing: "kill",
    a_frozen_dispatcher_changes_nothing_late: "freeze",
    a_rolling_restart_costs_nothing: "rolling",
    dispatchers_that_come_and_go_cost_nothing: "elastic",
    a_killed_nats_server_loses_nothing: "nats-kill",
    a_cut_wire_to_nats_loses_nothing: "nats-cut",
    a_redis_that_comes_back_empty_loses_nothing: "redis-kill",
    a_redis_that_hangs_stops_nothing: "redis-freeze",
    a_redis_cluster_without_a_master_stops_nothing: "redis-cluster",
    a_killed_gateway_neither_loses_nor_invents: "gateway-kill",
    a_refusing_neighbour_costs_nothing: "refusing",
    a_silent_neighbour_costs_nothing: "silent",
    a_slow_neighbour_costs_nothing: "slow",
    many_sick_neighbours_cost_nothing: "many-sick",
    hostile_inputs_cost_nothing: "hostile",
    an_endpoint_that_comes_back_gets_everything: "down",
    bad_answers_are_retried: "bad-answers",
    a_full_event_stream_refuses_and_loses_nothing: "events-full",
    exhausted_storage_loses_nothing: "storage-full",
}
