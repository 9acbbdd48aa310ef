//! Every question about speed has an answer. The load is tiny and the build unoptimised: the numbers do
//! not matter.

use anyhow::{Result, ensure};
use hookline_loadtest::chaos::Size;
use hookline_loadtest::question::Question;
use hookline_loadtest::{
    fanout, hooks, latency, limit, neighbours, publish, rbac, scaling, soak, throughput,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bare_pipe_and_its_parts() -> Result<()> {
    let question = limit::Options {
        events: 200,
        runs: 1,
        concurrency: 8,
    };
    answered(&question, 5).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_handler_delivers_what_is_stored() -> Result<()> {
    let question = throughput::Options {
        handlers: Vec::new(),
        events: 200,
        pairs: 1,
        concurrency: 8,
        sparse: 20,
    };
    answered(&question, 4 + 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latencies_are_taken_from_when_an_event_was_due() -> Result<()> {
    let question = latency::Options {
        rate: 50,
        seconds: 1,
        pairs: 1,
    };
    answered(&question, 7).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hooks_have_a_cost() -> Result<()> {
    let question = hooks::Options {
        hooks: vec![1, 5],
        events: 400,
        runs: 1,
    };
    answered(&question, 1 + 1 + 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_goes_to_many_hooks() -> Result<()> {
    let question = fanout::Options {
        hooks: vec![4, 70],
        deliveries: 280,
        pairs: 1,
    };
    answered(&question, 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatchers_share_the_work() -> Result<()> {
    let question = scaling::Options {
        dispatchers: vec![1, 2],
        delay: 5,
        events: 100,
        runs: 1,
    };
    answered(&question, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_hooks_are_compared_with_and_without_sick_ones() -> Result<()> {
    let question = neighbours::Options {
        faults: vec!["refusing".to_owned()],
        pairs: 2,
        size: Size::SHORT,
    };
    answered(&question, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_grow_is_watched() -> Result<()> {
    let question = soak::Options {
        seconds: 2,
        trial: 200,
    };
    answered(&question, 4).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_published_one_by_one_and_in_groups() -> Result<()> {
    let question = publish::Options {
        events: 200,
        pairs: 1,
        writes: 10,
    };
    answered(&question, 1 + 7).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_cost_little() -> Result<()> {
    let question = rbac::Options {
        writes: 20,
        pairs: 1,
    };
    answered(&question, 2).await
}

/// Asserts the number of measures, and that each is finite.
async fn answered(question: &impl Question, count: usize) -> Result<()> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let measures = question.run().await?.measures;
    ensure!(measures.len() == count, "{} measures", measures.len());
    for measure in measures {
        let numbers = [Some(measure.value), measure.reference, measure.ratio];
        let mut numbers = numbers.into_iter().flatten();
        ensure!(numbers.all(f64::is_finite), "{measure:?}");
    }
    Ok(())
}
