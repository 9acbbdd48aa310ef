//! The scripts on a real Redis, as used by two workers.

use std::ops::RangeInclusive;

use anyhow::ensure;
use e2e::{RedisServer, Result};
use hookline_shared::event::{DeliveryId, Event, EventId};
use prometheus::Registry;

use super::*;
use crate::admission::circuit_breaker::{self, CircuitBreaker};
use crate::admission::rate_limit::{GRACE, RateLimit};
use crate::redis::url::RedisUrl;

const SECOND: i128 = 1_000_000_000;
const REVISION: u64 = 7;
const SHORT: Duration = Duration::from_millis(200);

pub(super) fn claim(number: u64, attempt: u32) -> Claim {
    of(&EventId::stored(number, SECOND), number, attempt, 0)
}

/// Of another hook, in a batch.
pub(super) fn claim_of(hook: &str, number: u64, groups: &mut Groups) -> Claim {
    let claim = claim(number, 1);
    let mut group = Arc::into_inner(claim.group).expect("one");
    group.hook = hook.into();
    Claim {
        group: groups.join(group, claim.offset),
        ..claim
    }
}

fn of(id: &EventId, number: u64, attempt: u32, worker: u64) -> Claim {
    let event = Event::parse_with_id("hookline.events.a.b.c", None, "{}".into(), id.clone());
    let delivery = DeliveryId::new(&event.expect("an event"), "hook");
    let (bitmap, offset) = Bitmap::of(id, delivery);
    let group = Group {
        hook: "hook".into(),
        revision: REVISION,
        bitmap,
        attempt,
        token: Token::new(worker, number),
    };
    Claim {
        number,
        group: Arc::new(group),
        offset,
        delivery,
        probe: false,
        marks: None,
        asked: Instant::now(),
        lost: Notify::new(),
    }
}

/// Redis, and two workers.
struct Stage {
    redis: RedisServer,
    _dir: tempfile::TempDir,
    workers: [Claims; 2],
}

impl Stage {
    async fn new(lease: Duration) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut redis = RedisServer::new(dir.path())?;
        redis.start().await?;
        let worker = || -> Result<Claims> {
            let metrics = Metrics::register(&Registry::new(), 0)?;
            let url = RedisUrl::parse(&redis.url())?;
            let (client, keep_up) = RedisClient::new(&url, metrics.clone())?;
            tokio::spawn(keep_up);
            let options = Options {
                lease,
                window: Duration::from_secs(3_600),
                required: false,
            };
            let workers = Workers::new(client.clone());
            Ok(Claims::new(client, workers, options, metrics))
        };
        let workers = [worker()?, worker()?];
        for worker in &workers {
            e2e::eventually(e2e::SOON, "the worker has Redis", async || {
                ensure!(worker.inner.calls.redis.is_up());
                Ok(())
            })
            .await?;
        }
        Ok(Self {
            redis,
            _dir: dir,
            workers,
        })
    }

    /// Claims of stored events that a worker is about to make.
    fn claims(&self, worker: usize, events: RangeInclusive<u64>, attempt: u32) -> Vec<Arc<Claim>> {
        let ids = events.map(|number| EventId::stored(number, SECOND));
        self.claims_of(worker, ids, attempt)
    }

    fn claims_of(
        &self,
        worker: usize,
        ids: impl Iterator<Item = EventId>,
        attempt: u32,
    ) -> Vec<Arc<Claim>> {
        let inner = &self.workers[worker].inner;
        let mut groups = Groups::default();
        ids.map(|id| {
            let number = inner.counter.fetch_add(1, Ordering::Relaxed);
            let claim = of(&id, number, attempt, inner.workers.own());
            let group = Arc::into_inner(claim.group).expect("one");
            Arc::new(Claim {
                group: groups.join(group, claim.offset),
                ..claim
            })
        })
        .collect()
    }

    /// Redis' word for each claim.
    async fn claim(&self, worker: usize, claims: &[Arc<Claim>]) -> Vec<u8> {
        let answers = self.answers(worker, claims).await.into_iter();
        answers.map(|answer| answer.0).collect()
    }

    async fn answers(&self, worker: usize, claims: &[Arc<Claim>]) -> Vec<Answer> {
        let mut answers = vec![None; claims.len()];
        let all = claims.iter().map(|claim| &**claim).enumerate();
        let inner = &self.workers[worker].inner;
        inner.calls.claim_together(all, &mut answers).await;
        let answers: Option<Vec<_>> = answers.into_iter().collect();
        answers.expect("Redis answers")
    }

    /// Returns those that are another worker's.
    async fn done(&self, worker: usize, claims: &[Arc<Claim>]) -> Vec<usize> {
        let inner = &self.workers[worker].inner;
        let claims = claims.iter().map(|claim| &**claim);
        inner.calls.done_together(claims).await
    }

    async fn release(&self, worker: usize, claim: &Claim, release: Release) -> bool {
        let calls = &self.workers[worker].inner.calls;
        let released = calls.release(claim, release).await;
        released.expect("Redis answers")
    }

    async fn ask(&self, command: &str) -> Result<i64> {
        let answer = self.redis.ask(command).await?;
        Ok(answer.trim().trim_start_matches(':').parse()?)
    }
}

#[tokio::test]
async fn a_delivery_that_one_worker_claimed_or_made_is_refused_to_others() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    // They are in two bitmaps.
    let first = stage.claims(0, 101..=200, 1);
    let second = stage.claims(1, 101..=200, 1);
    assert_eq!(stage.claim(0, &first).await, [word::ATTEMPT; 100]);
    assert_eq!(stage.claim(1, &second).await, [word::BUSY; 100]);
    assert_eq!(stage.done(0, &first[..50]).await, [0; 0]);
    let words = stage.claim(1, &second).await;
    assert_eq!(words[..50], [word::DONE; 50]);
    assert_eq!(words[50..], [word::BUSY; 50]);
    let others: Vec<_> = (0..100).collect();
    assert_eq!(stage.done(1, &second).await, others, "it holds none");
    assert_eq!(stage.done(0, &first[50..]).await, [0; 0]);
    assert_eq!(stage.claim(0, &second).await, [word::DONE; 100]);
    assert_eq!(stage.done(0, &first).await, others, "none is done twice");
    for bitmap in 0..2 {
        let length = format!("STRLEN hookline:{{hook}}:p:1:{bitmap}");
        assert_eq!(stage.ask(&length).await?, 32, "no claim is left");
        let left = format!("PTTL hookline:{{hook}}:p:1:{bitmap}");
        let left = stage.ask(&left).await?;
        assert!(left <= 3_600_000, "it is kept for the window: {left}");
    }
    Ok(())
}

#[tokio::test]
async fn expired_claims_are_taken_over_one_by_one() -> Result {
    let stage = Stage::new(SHORT).await?;
    let first = stage.claims(0, 1..=10, 1);
    assert_eq!(stage.claim(0, &first).await, [word::ATTEMPT; 10]);
    tokio::time::sleep(SHORT * 2).await;
    let second = stage.claims(1, 6..=15, 1);
    assert_eq!(stage.claim(1, &second).await, [word::ATTEMPT; 10]);
    assert_eq!(stage.done(0, &first).await, [5, 6, 7, 8, 9]);
    assert!(!stage.release(0, &first[5], Release::Parked(SHORT)).await);
    assert_eq!(stage.done(1, &second).await, [0; 0]);
    assert_eq!(stage.claim(0, &first).await, [word::DONE; 10]);
    Ok(())
}

#[tokio::test]
async fn a_renewal_extends_claims_and_returns_the_lost_ones() -> Result {
    let stage = Stage::new(SHORT).await?;
    let first = stage.claims(0, 1..=10, 1);
    assert_eq!(stage.claim(0, &first).await, [word::ATTEMPT; 10]);
    let second = stage.claims(1, 1..=10, 1);
    for _ in 0..4 {
        tokio::time::sleep(SHORT / 2).await;
        let own = stage.workers[0]
            .inner
            .calls
            .renew_together(&first[..5])
            .await;
        assert_eq!(own, [Some(true); 5]);
    }
    let words = stage.claim(1, &second).await;
    assert_eq!(words[..5], [word::BUSY; 5]);
    assert_eq!(
        words[5..],
        [word::ATTEMPT; 5],
        "the others were not renewed"
    );
    let own = stage.workers[0].inner.calls.renew_together(&first).await;
    assert_eq!(own[..5], [Some(true); 5]);
    assert_eq!(own[5..], [Some(false); 5]);
    Ok(())
}

#[tokio::test]
async fn a_worker_that_was_suspended_checks_its_claims() -> Result {
    let mut stage = Stage::new(Duration::from_secs(1)).await?;
    let first = stage.claims(0, 1..=3, 1);
    assert_eq!(stage.claim(0, &first).await, [word::ATTEMPT; 3]);
    let held = Arc::clone(&stage.workers[0].inner.held);
    let hold = |claim| held.hold(Arc::into_inner(claim).expect("one"));
    let leases: Vec<_> = first.into_iter().map(hold).collect();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let second = stage.claims(1, 1..=4, 1);
    assert_eq!(stage.claim(1, &second[..1]).await, [word::ATTEMPT]);
    assert_eq!(stage.done(1, &second[..1]).await, [0; 0]);

    assert!(!stage.workers[0].still_holds(&leases[0]).await);
    assert!(!stage.workers[0].still_holds(&leases[0]).await, "nor later");
    assert!(stage.workers[0].still_holds(&leases[1]).await);
    let words = [word::BUSY, word::ATTEMPT];
    assert_eq!(stage.claim(1, &second[1..3]).await, words, "it was renewed");
    assert_eq!(stage.claim(1, &second[3..]).await, [word::ATTEMPT]);
    let fresh = hold(stage.claims(0, 4..=4, 1).remove(0));
    assert!(
        stage.workers[0].still_holds(&fresh).await,
        "Redis is not asked"
    );
    stage.redis.kill();
    let unknown = stage.workers[0].still_holds(&leases[2]).await;
    assert!(unknown, "deliveries do not wait for Redis");
    assert!(leases[2].age() > Duration::from_secs(1), "nobody confirmed");
    Ok(())
}

#[tokio::test]
async fn the_age_of_a_claim_counts_from_the_request_that_renewed_it() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let claims = stage.claims(0, 1..=1, 1);
    assert_eq!(stage.claim(0, &claims).await, [word::ATTEMPT]);
    let claim = claims.into_iter().next().and_then(Arc::into_inner);
    let inner = &stage.workers[0].inner;
    let lease = inner.held.hold(claim.expect("one"));
    stage.redis.process().freeze()?;
    let thaw = async {
        tokio::time::sleep(SHORT).await;
        stage.redis.process().thaw()
    };
    let claim = std::slice::from_ref(lease.claim());
    let (_, thawed) = futures::join!(inner.renew(claim), thaw);
    thawed?;
    assert!(lease.age() >= SHORT);
    e2e::eventually(e2e::SOON, "it is renewed", async || {
        let before = Instant::now();
        ensure!(inner.renew(claim).await == [Some(true)]);
        ensure!(lease.age() <= before.elapsed());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_parked_delivery_waits_for_its_next_attempt() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let wait = Duration::from_secs(7_200);
    let first = stage.claims(0, 1..=4, 1);
    assert_eq!(stage.claim(0, &first).await, [word::ATTEMPT; 4]);
    assert!(stage.release(0, &first[0], Release::Parked(wait)).await);
    assert!(stage.release(0, &first[1], Release::Buried).await);
    assert!(stage.release(0, &first[2], Release::GivenBack).await);
    let again = stage.claims(1, 1..=4, 1);
    let words = [word::PARKED, word::PARKED, word::ATTEMPT, word::BUSY];
    assert_eq!(stage.claim(1, &again).await, words);
    assert_eq!(stage.done(1, &again[..1]).await, [0], "it is not its turn");

    let second = stage.claims(1, 1..=1, 2);
    assert_eq!(stage.claim(1, &second).await, [word::ATTEMPT]);
    assert_eq!(stage.claim(0, &first[..1]).await, [word::PARKED]);
    assert!(stage.release(1, &second[0], Release::GivenBack).await);
    assert_eq!(stage.claim(0, &first[..1]).await, [word::PARKED]);
    assert_eq!(stage.claim(1, &second).await, [word::ATTEMPT]);
    // Redis may have forgotten that it was parked.
    let retried = stage.claims(1, 200..=200, 2);
    assert_eq!(stage.claim(1, &retried).await, [word::ATTEMPT]);
    assert!(stage.release(1, &retried[0], Release::GivenBack).await);
    let late = stage.claims(0, 200..=200, 1);
    assert_eq!(stage.claim(0, &late).await, [word::PARKED]);
    assert_eq!(stage.claim(1, &retried).await, [word::ATTEMPT]);

    assert!(stage.release(1, &second[0], Release::Parked(wait)).await);
    // The three others were parked after the first attempt, and claimed by each worker.
    let length = stage.ask("STRLEN hookline:{hook}:p:1:0").await?;
    assert_eq!(length, 32 + 4 * 44, "it is parked once");
    let third = stage.claims(0, 1..=1, 3);
    assert_eq!(stage.claim(0, &third).await, [word::ATTEMPT]);
    assert!(stage.release(0, &third[0], Release::Done).await);
    assert_eq!(stage.claim(1, &second).await, [word::DONE]);

    // Its neighbours do not shorten the time that a parked delivery is kept.
    let left = stage.ask("PTTL hookline:{hook}:p:1:0").await?;
    assert!(left > 7_200_000, "{left}");
    Ok(())
}

#[tokio::test]
async fn an_attempt_without_redis_counts_unless_another_worker_claimed_the_delivery() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let unknown = stage.claims(0, 1..=3, 1);
    let claimed = stage.claims(1, 3..=3, 1);
    assert_eq!(stage.claim(1, &claimed).await, [word::ATTEMPT]);
    assert_eq!(stage.done(0, &unknown).await, [2]);
    let later = stage.claims(1, 1..=3, 1);
    let words = [word::DONE, word::DONE, word::BUSY];
    assert_eq!(stage.claim(1, &later).await, words);
    Ok(())
}

#[tokio::test]
async fn an_id_from_a_publisher_has_its_own_bitmap_and_is_claimed_once() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let ids = ["one", "two", "one"];
    let claims = stage.claims_of(0, ids.iter().map(|id| EventId::given(*id)), 1);
    let words = [word::ATTEMPT, word::ATTEMPT, word::BUSY];
    assert_eq!(stage.claim(0, &claims).await, words);
    assert_eq!(stage.done(0, &claims[..2]).await, [0; 0]);
    assert_eq!(stage.claim(0, &claims).await, [word::DONE; 3]);
    Ok(())
}

#[tokio::test]
async fn one_delivery_probes_a_circuit_and_its_success_closes_it() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let key = "hookline:{hook}:circuit";
    let until = hookline_shared::clock::unix_millis() + 60_000;
    let set = format!("SET {key} {until}:1:{REVISION}");
    stage.redis.ask(&set).await?;
    let claims = stage.claims(0, 1..=20, 1);
    assert_eq!(stage.claim(0, &claims).await, [word::OPEN; 20]);
    stage
        .redis
        .ask(&format!("SET {key} 1:1:{REVISION}"))
        .await?;
    let answers = stage.answers(0, &claims).await;
    assert_eq!(answers[0], Answer(word::ATTEMPT, 1, 0), "it probes");
    assert!(answers[1..].iter().all(|answer| answer.0 == word::PROBED));
    let inner = &stage.workers[0].inner;
    let probe = Arc::into_inner(claims.into_iter().next().expect("one")).expect("one");
    let probe = Claim {
        probe: true,
        ..probe
    };
    assert_eq!(inner.calls.release(&probe, Release::Done).await, Some(true));
    let more = stage.claims(1, 21..=30, 1);
    assert_eq!(stage.claim(1, &more).await, [word::ATTEMPT; 10]);
    Ok(())
}

fn admission(rate: Option<RateLimit>) -> Admission {
    let settings = circuit_breaker::Settings {
        failures: 0,
        failure_rate: 1.0,
        open: SHORT,
    };
    Admission::new(REVISION, CircuitBreaker::new(settings), rate, 1, 1)
}

impl Stage {
    /// Redis' word for a claim of a hook with limits or marks.
    async fn claim_alone(&self, admission: &Admission, claim: &Claim, place: Option<Place>) -> u8 {
        let answer = self.workers[0]
            .inner
            .calls
            .claim(admission, claim, place)
            .await;
        answer.expect("Redis answers").0
    }
}

fn marked(number: u64, marks: Marks) -> Claim {
    Claim {
        marks: Some(marks),
        ..of(&EventId::stored(number, SECOND), number, 1, 1)
    }
}

/// For each of `snooze` and `on_change`: marks with the value "b", the word of what they suppress, and their keys.
fn kinds() -> [(Marks, u8, char); 2] {
    let (about, value) = ("a".to_owned(), "b".to_owned());
    let snooze = Marks {
        snooze: Some((about.clone(), Duration::from_secs(60))),
        change: None,
    };
    let change = Marks {
        snooze: None,
        change: Some((about, value)),
    };
    [(snooze, word::SNOOZED, 's'), (change, word::UNCHANGED, 'c')]
}

#[tokio::test]
async fn what_a_delivery_in_flight_would_suppress_waits_and_is_suppressed_once_it_is_made() -> Result
{
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let admission = admission(None);
    for (marks, silent, key) in kinds() {
        let first = 10 * u64::from(silent);
        let claim = async |claim: &Claim| stage.claim_alone(&admission, claim, None).await;
        let (one, other) = (
            marked(first, marks.clone()),
            marked(first + 1, marks.clone()),
        );
        assert_eq!(claim(&one).await, word::ATTEMPT);
        assert_eq!(claim(&other).await, word::WAITING);
        // The claim is given back, and made again.
        assert!(stage.release(0, &one, Release::GivenBack).await);
        assert_eq!(claim(&one).await, word::ATTEMPT);
        // Until its retry, others wait.
        let wait = Duration::from_secs(30);
        assert!(stage.release(0, &one, Release::Parked(wait)).await);
        let answer = stage.workers[0]
            .inner
            .calls
            .claim(&admission, &other, None)
            .await;
        let Answer(word, number, _) = answer.expect("Redis answers");
        assert_eq!(word, word::WAITING);
        assert!((25_000..=30_000).contains(&number), "{number}");
        // A delivery that fails suppresses no other.
        let retry = Claim {
            marks: Some(marks.clone()),
            ..of(&EventId::stored(first, SECOND), first, 2, 1)
        };
        assert_eq!(claim(&retry).await, word::ATTEMPT);
        assert!(stage.release(0, &retry, Release::Buried).await);
        assert_eq!(claim(&other).await, word::ATTEMPT);
        stage
            .ask(&format!("PEXPIRE hookline:{{hook}}:{key}:a 1000"))
            .await?;
        assert!(stage.release(0, &other, Release::Done).await);
        let left = stage
            .ask(&format!("PTTL hookline:{{hook}}:{key}:a"))
            .await?;
        assert!(left > 50_000, "it suppresses from the delivery on: {left}");
        assert_eq!(claim(&marked(first + 2, marks)).await, silent);
        let left = stage
            .ask(&format!("EXISTS hookline:{{hook}}:{key}n:a"))
            .await?;
        assert_eq!(left, 0, "nothing is in flight");
    }
    Ok(())
}

#[tokio::test]
async fn a_retry_that_finds_another_made_meanwhile_is_suppressed() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let admission = admission(None);
    for (marks, silent, key) in kinds() {
        let first = 10 * u64::from(silent);
        let claim = async |claim: &Claim| stage.claim_alone(&admission, claim, None).await;
        let (one, other) = (
            marked(first, marks.clone()),
            marked(first + 1, marks.clone()),
        );
        assert_eq!(claim(&one).await, word::ATTEMPT);
        assert!(stage.release(0, &one, Release::Parked(SHORT)).await);
        // Nobody came back to it for long.
        stage
            .ask(&format!("DEL hookline:{{hook}}:{key}n:a"))
            .await?;
        assert_eq!(claim(&other).await, word::ATTEMPT);
        assert!(stage.release(0, &other, Release::Done).await);
        let retry = Claim {
            marks: Some(marks),
            ..of(&EventId::stored(first, SECOND), first, 2, 1)
        };
        assert_eq!(claim(&retry).await, silent);
    }
    Ok(())
}

#[tokio::test]
async fn while_another_value_is_in_flight_nobody_knows_the_last_one() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let admission = admission(None);
    let value = |value: &str| Marks {
        snooze: None,
        change: Some(("a".to_owned(), value.to_owned())),
    };
    let claim = async |claim: &Claim| stage.claim_alone(&admission, claim, None).await;
    let one = marked(1, value("1"));
    assert_eq!(claim(&one).await, word::ATTEMPT);
    assert!(stage.release(0, &one, Release::Done).await);
    let two = marked(2, value("2"));
    assert_eq!(claim(&two).await, word::ATTEMPT);
    assert_eq!(claim(&marked(3, value("1"))).await, word::WAITING);
    assert_eq!(claim(&marked(4, value("3"))).await, word::ATTEMPT);
    Ok(())
}

#[tokio::test]
async fn a_delivery_takes_one_place_in_the_rate_limit_until_it_expires() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let admission = admission(RateLimit::per_second(1.0));
    let claims = stage.claims(0, 1..=4, 1);
    let inner = &stage.workers[0].inner;
    let words = async |index: usize, place| {
        let answer = inner.calls.claim(&admission, &claims[index], place).await;
        answer.expect("Redis answers")
    };
    assert_eq!(words(0, None).await.0, word::ATTEMPT);
    let Answer(limited, wait, place) = words(1, None).await;
    assert_eq!(limited, word::LIMITED);
    assert!((1..=1_000).contains(&wait), "{wait}");
    let place = Some(Place(place));
    assert_eq!(words(1, place).await.0, word::ATTEMPT, "it takes no other");
    assert!(stage.release(0, &claims[1], Release::Parked(SHORT)).await);
    assert_eq!(words(2, None).await.0, word::LIMITED);
    let left = stage.ask("PTTL hookline:{hook}:rate").await?;
    assert!(
        (3_000..=4_000).contains(&left),
        "three have a place: {left}"
    );
    // An outage held it back until its place had expired.
    let past = place.map(|Place(at)| Place(at - GRACE.as_millis() as u64 - 2_000));
    assert_eq!(
        words(3, past).await.0,
        word::LIMITED,
        "it takes a new place"
    );
    Ok(())
}

#[tokio::test]
async fn late_deliveries_pass_as_far_as_attempts_leave_room() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let rate = admission(RateLimit::per_second(1.0));
    // Places are given out for a thousand seconds, and nobody came for the last one.
    let now = hookline_shared::clock::unix_millis() * 1_000;
    let value = format!("{}:{now}:{now}", now + 1_000_000_000);
    stage
        .redis
        .ask(&format!("SET hookline:{{hook}}:rate {value}"))
        .await?;
    let claims = stage.claims(0, 1..=2, 1);
    let late = Some(Place(1));
    let first = stage.claim_alone(&rate, &claims[0], late).await;
    assert_eq!(first, word::ATTEMPT);
    let second = stage.claim_alone(&rate, &claims[1], late).await;
    assert_eq!(second, word::LIMITED);
    Ok(())
}

#[tokio::test]
async fn a_clock_that_steps_back_delays_no_delivery() -> Result {
    let stage = Stage::new(SHORT).await?;
    // As if they had been written before the clock stepped back by hours.
    let mut ahead = stage.claims(0, 1..=2, 1);
    let inner = &stage.workers[0].inner;
    let long = Calls {
        redis: inner.calls.redis.clone(),
        scripts: Scripts::new(),
        options: Options {
            lease: Duration::from_secs(36_000),
            ..inner.calls.options
        },
    };
    let mut answers = vec![None; 2];
    let all = ahead.iter().map(|claim| &**claim).enumerate();
    long.claim_together(all, &mut answers).await;
    assert_eq!(answers, [Some(Answer(word::ATTEMPT, 0, 0)); 2]);

    let others = stage.claims(1, 1..=2, 1);
    for Answer(word, wait, _) in stage.answers(1, &others).await {
        assert_eq!(word, word::BUSY);
        assert!(wait <= SHORT.as_millis() as u64, "{wait}");
    }
    e2e::eventually(e2e::SOON, "the claims run out", async || {
        let words = stage.claim(1, &others).await;
        ensure!(words == [word::ATTEMPT; 2], "{words:?}");
        Ok(())
    })
    .await?;
    ahead.clear();

    let admission = admission(RateLimit::per_second(1.0));
    let hours = "9999999999999999:9999999999990000:9999999999999999";
    stage
        .redis
        .ask(&format!("SET hookline:{{hook}}:rate {hours}"))
        .await?;
    let claims = stage.claims(0, 201..=201, 1);
    assert_eq!(
        stage.claim_alone(&admission, &claims[0], None).await,
        word::ATTEMPT
    );

    let until = "9999999999999:1";
    let key = "hookline:{hook}:circuit";
    stage
        .redis
        .ask(&format!("SET {key} {until}:{REVISION}"))
        .await?;
    let claims = stage.claims(0, 301..=301, 1);
    let answers = stage.answers(0, &claims).await;
    assert_eq!(answers[0], Answer(word::ATTEMPT, 1, 0), "it probes");
    Ok(())
}

#[tokio::test]
async fn the_health_check_leaves_the_probes_lock_alone() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    let circuit = format!("SET hookline:{{hook}}:circuit 1:1:{REVISION}");
    stage.redis.ask(&circuit).await?;
    let probe = stage.claims(0, 1..=1, 1);
    assert_eq!(
        stage.answers(0, &probe).await,
        [Answer(word::ATTEMPT, 1, 0)]
    );
    // The client loses Redis for a moment, and checks its health by this hook.
    stage.redis.process().freeze()?;
    let lost = stage.claims(0, 2..=2, 1);
    let mut answers = vec![None];
    let calls = &stage.workers[0].inner.calls;
    calls
        .claim_together(std::iter::once((0, &*lost[0])), &mut answers)
        .await;
    assert_eq!(answers, [None]);
    stage.redis.process().thaw()?;
    e2e::eventually(e2e::SOON, "Redis answers again", async || {
        ensure!(calls.redis.is_up());
        Ok(())
    })
    .await?;
    let left = stage.ask("PTTL hookline:{hook}:probe").await?;
    assert!(left > 100_000, "the lock lasts for three leases: {left}");
    let second = stage.claims(1, 3..=3, 1);
    assert_eq!(stage.claim(1, &second).await, [word::PROBED]);
    Ok(())
}

#[tokio::test]
async fn a_script_that_fails_is_no_outage() -> Result {
    let stage = Stage::new(Duration::from_secs(60)).await?;
    stage.redis.ask("RPUSH hookline:{hook}:p:1:0 junk").await?;
    let sick = stage.claims(0, 1..=1, 1);
    let mut answers = vec![None];
    let calls = &stage.workers[0].inner.calls;
    calls
        .claim_together(std::iter::once((0, &*sick[0])), &mut answers)
        .await;
    assert_eq!(answers, [None]);
    assert!(calls.redis.is_up());
    let well = stage.claims(0, 201..=201, 1);
    assert_eq!(stage.claim(0, &well).await, [word::ATTEMPT]);
    Ok(())
}

#[test]
fn a_cluster_gets_one_call_for_each_hook() {
    let mut groups = Groups::default();
    let claims: Vec<_> = (0..6)
        .map(|number| {
            let hook = ["one", "two", "three"][number as usize % 3];
            // Each in its own bitmap.
            claim_of(hook, 1_000 * number, &mut groups)
        })
        .collect();
    let hooks = |is_cluster| -> Vec<Vec<String>> {
        let mut parts = batch::parts(claims.iter().enumerate());
        let hooks = |call: &[batch::Part<'_>]| {
            let hooks = call.iter().map(|part| part.group.hook.to_string());
            hooks.collect()
        };
        batch::calls(&mut parts, is_cluster).map(hooks).collect()
    };
    assert_eq!(hooks(false).len(), 1);
    let pairs = ["one", "three", "two"].map(|hook| vec![hook; 2]);
    assert_eq!(hooks(true), pairs);
}

#[tokio::test(start_paused = true)]
async fn renewals_are_spread_out() {
    let held = Arc::new(Held::default());
    let due = || {
        let due = held.due(Duration::from_secs(2));
        held.note(&due, Instant::now(), &vec![None; due.len()]);
        due.iter().map(|claim| claim.number).collect::<Vec<_>>()
    };
    let _first = held.hold(claim(1, 1));
    tokio::time::advance(Duration::from_secs(1)).await;
    let second = held.hold(claim(2, 1));
    assert!(due().is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(due(), [1]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(due(), [2]);
    drop(second);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(due(), [1], "a dropped claim is not renewed");
}
