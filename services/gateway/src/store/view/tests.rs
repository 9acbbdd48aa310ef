use std::pin::pin;

use futures::poll;
use serde_json::{Value, json};

use super::table::STEP;
use super::*;

fn schema(kind: &str) -> &'static Schema {
    Schema::by_kind(kind).expect("a kind")
}

fn row(kind: &str, id: &str, sequence: u64, entity: Value) -> Row {
    Row {
        schema: schema(kind),
        workspace: "default".into(),
        id: id.into(),
        entity: entity.as_object().expect("an object").clone(),
        sequence,
        created: String::new(),
        deleting: None,
        cascading: false,
        write: None,
        sealed_with: None,
        lost: None,
        as_stored: None,
    }
}

fn consumer(id: &str, sequence: u64, username: &str) -> Row {
    row(
        "consumers",
        id,
        sequence,
        json!({"created_at": 1, "username": username}),
    )
}

fn ids(page: &Page) -> Vec<&str> {
    page.rows.iter().map(|row| row.id.as_str()).collect()
}

#[test]
fn older_states_are_ignored() {
    let view = View::default();
    let consumers = schema("consumers");
    view.put(consumer("a", 5, "new"));
    view.put(consumer("a", 4, "old"));
    assert!(
        view.get_by_unique(consumers, "default", "username", "new")
            .is_some()
    );
    assert!(
        view.get_by_unique(consumers, "default", "username", "old")
            .is_none()
    );
    view.remove(consumers, "default", "a", 3);
    assert!(view.get(consumers, "default", "a").is_some());
    view.remove(consumers, "default", "a", 6);
    assert!(view.get(consumers, "default", "a").is_none());
    assert_eq!(view.sequence(), 6);
    assert_eq!(view.first_kind_in("default"), None);
}

#[test]
fn a_name_that_changed_hands_stays_with_its_new_owner() {
    let view = View::default();
    let consumers = schema("consumers");
    view.put(consumer("a", 1, "x"));
    view.put(consumer("b", 3, "x"));
    view.put(consumer("a", 4, "y"));
    let owner = view
        .get_by_unique(consumers, "default", "username", "x")
        .expect("an owner");
    assert_eq!(owner.id, "b");
}

#[tokio::test]
async fn pages_follow_one_another_without_gaps() {
    let view = View::default();
    for n in 0..25_u64 {
        view.put(consumer(&format!("{n:02}"), n + 1, &format!("u{n}")));
    }
    let mut query = Query {
        size: 10,
        ..Query::default()
    };
    let mut seen = 0;
    loop {
        let page = view.list(schema("consumers"), "default", &query).await;
        seen += page.rows.len();
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, 25);
}

#[tokio::test]
async fn a_full_last_page_says_that_it_is_the_last() {
    let view = View::default();
    view.put(consumer("a", 1, "x"));
    let query = Query {
        size: 1,
        ..Query::default()
    };
    assert_eq!(
        view.list(schema("consumers"), "default", &query).await.next,
        None
    );
}

#[tokio::test]
async fn children_are_found_until_they_are_gone() {
    let view = View::default();
    let routes = schema("routes");
    let route = |id: &str, sequence, service: &str| {
        row(
            "routes",
            id,
            sequence,
            json!({"created_at": 1, "service": {"id": service}}),
        )
    };
    view.put(route("r1", 1, "s"));
    view.put(route("r2", 2, "t"));
    assert!(view.is_referenced(routes, "default", "service", "s"));
    let query = Query {
        size: 10,
        parent: Some(("service", "t".into())),
        ..Query::default()
    };
    assert_eq!(ids(&view.list(routes, "default", &query).await), ["r2"]);
    view.put(route("r1", 3, "t"));
    assert!(!view.is_referenced(routes, "default", "service", "s"));
    assert_eq!(
        ids(&view.list(routes, "default", &query).await),
        ["r1", "r2"]
    );
    view.remove(routes, "default", "r1", 4);
    assert_eq!(ids(&view.list(routes, "default", &query).await), ["r2"]);
}

#[tokio::test]
async fn tags_select() {
    let view = View::default();
    let tagged = |id: &str, sequence, tags: Value| {
        row(
            "consumers",
            id,
            sequence,
            json!({"created_at": 1, "tags": tags}),
        )
    };
    view.put(tagged("a", 1, json!(["x", "y"])));
    view.put(tagged("b", 2, json!(["x"])));
    let list = async |tags| {
        let query = Query {
            size: 10,
            tags: Some(tags),
            ..Query::default()
        };
        view.list(schema("consumers"), "default", &query)
            .await
            .rows
            .len()
    };
    assert_eq!(list(Tags::All(vec!["x".into(), "y".into()])).await, 1);
    assert_eq!(list(Tags::Any(vec!["x".into(), "y".into()])).await, 2);
}

fn tagged(n: u64, tags: &Value) -> Row {
    let entity = json!({"created_at": n / 3, "tags": tags});
    row("consumers", &format!("{n:05}"), n + 1, entity)
}

#[tokio::test]
async fn a_rare_pair_of_tags_lets_writes_in_while_it_is_looked_for() {
    let view = View::default();
    let count = 2 * STEP as u64;
    for n in 0..count {
        let both = n % STEP as u64 == 5;
        let tags = if both {
            json!(["a", "b"])
        } else {
            json!(["a"])
        };
        view.put(tagged(n, &tags));
        view.put(tagged(n + 10 * count, &json!(["b"])));
    }
    let query = Query {
        size: 10,
        tags: Some(Tags::All(vec!["a".into(), "b".into()])),
        ..Query::default()
    };
    let mut list = pin!(view.list(schema("consumers"), "default", &query));
    assert!(poll!(&mut list).is_pending(), "the walk has no pause");
    view.put(tagged(count, &json!(["b", "a"])));
    assert_eq!(ids(&list.await), ["00005", "01029", "02048"]);
}

fn matches(query: &Query, row: &Row) -> bool {
    let has = |wanted: &String| query::tags(row).any(|tag| tag == wanted);
    let has_tags = match &query.tags {
        None => true,
        Some(Tags::All(wanted)) => wanted.iter().all(has),
        Some(Tags::Any(wanted)) => wanted.iter().any(has),
    };
    let parent = query.parent.as_ref();
    let is_child = parent.is_none_or(|(field, id)| row.entity[*field]["id"] == **id);
    has_tags && is_child
}

/// Whatever an index finds is what a walk over all rows finds, in the same order and over several pages.
#[tokio::test]
async fn lists_by_an_index_are_those_of_a_walk() {
    let view = View::default();
    let random = |below: u64| fastrand::u64(..below);
    let mut all = Vec::new();
    for n in 0..3_000 {
        let tags: Vec<_> = ["w", "x", "y", "z"]
            .into_iter()
            .filter(|tag| random(10) < if *tag == "w" { 9 } else { 2 })
            .collect();
        let mut row = tagged(n, &json!(tags));
        row.schema = schema("routes");
        let parent = json!({"id": format!("s{}", random(3))});
        row.entity.insert("service".to_owned(), parent);
        all.push(row.clone());
        view.put(row);
    }
    for n in 0..500_u64 {
        let at = n as usize * 6;
        view.remove(schema("routes"), "default", &all[at].id, 10_000 + n);
    }
    let gone: BTreeSet<_> = (0..500).map(|n| all[n * 6].id.clone()).collect();
    all.retain(|row| !gone.contains(&row.id));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    for tags in [
        None,
        Some(Tags::All(names(&["x"]))),
        Some(Tags::All(names(&["w", "x"]))),
        Some(Tags::All(names(&["x", "nobody"]))),
        Some(Tags::Any(names(&["x", "y", "z"]))),
        Some(Tags::Any(names(&["w", "nobody"]))),
    ] {
        for parent in [None, Some(("service", "s1".to_owned()))] {
            let mut query = Query {
                size: 1 + random(200) as usize,
                tags: tags.as_ref().map(|tags| match tags {
                    Tags::All(tags) => Tags::All(tags.clone()),
                    Tags::Any(tags) => Tags::Any(tags.clone()),
                }),
                parent,
                ..Query::default()
            };
            let walked = all.iter().filter(|row| matches(&query, row));
            let walked: Vec<_> = walked.map(|row| row.id.clone()).collect();
            let mut found = Vec::new();
            loop {
                let page = view.list(schema("routes"), "default", &query).await;
                assert!(page.rows.len() <= query.size);
                found.extend(page.rows.iter().map(|row| row.id.clone()));
                query.after = page.next;
                if query.after.is_none() {
                    break;
                }
            }
            assert_eq!(found, walked, "{tags:?} {:?}", query.parent);
        }
    }
    // What has tags, in pages, is every pair once and in order.
    let (mut pairs, mut after) = (Vec::new(), None);
    loop {
        let page = view.tagged("default", None, after.as_ref(), 97);
        after = page.last().cloned();
        if after.is_none() {
            break;
        }
        pairs.extend(page);
    }
    let count: usize = all.iter().map(|row| query::tags(row).count()).sum();
    assert_eq!(pairs.len(), count);
    assert!(pairs.is_sorted());
    let of_one = view.tagged("default", Some("x"), None, usize::MAX);
    assert!(of_one.len() > 100 && of_one.iter().all(|(tag, ..)| tag == "x"));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_message_is_known_or_time_is_up() {
    let view = Arc::new(View::default());
    assert!(!view.wait_for(3, Duration::from_secs(1)).await);
    let waiting = tokio::spawn({
        let view = Arc::clone(&view);
        async move { view.wait_for(3, Duration::from_secs(1)).await }
    });
    tokio::task::yield_now().await;
    view.advance(2);
    assert!(!waiting.is_finished());
    view.advance(4);
    assert_eq!(waiting.await.ok(), Some(true));
    assert!(view.wait_for(4, Duration::ZERO).await);
}

#[tokio::test(start_paused = true)]
async fn waiters_that_timed_out_are_forgotten() {
    let view = View::default();
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(2));
    let waits = [(3, short), (3, short), (4, short), (4, long)];
    let waits = waits.map(|(sequence, timeout)| view.wait_for(sequence, timeout));
    let (caught_up, ()) = tokio::join!(futures::future::join_all(waits), async {
        tokio::time::sleep(short + short / 2).await;
        let counts = {
            let waiting = &view.progress.lock().waiting;
            Vec::from_iter(waiting.iter().map(|(at, wakes)| (*at, wakes.len())))
        };
        assert_eq!(counts, [(4, 1)]);
        view.advance(4);
    });
    assert_eq!(caught_up, [false, false, false, true]);
}
