//! The stream reader on a real server finds the same messages however they are spread over a stream.

use async_nats::jetstream::stream::Config;
use e2e::{NatsServer, Result};
use hookline_shared::stream_reader::{self, Stored};

const STREAM: &str = "SCANNED";
/// More messages than the reader looks at to find the first match.
const MANY: usize = 40;

/// A stream of `others` messages that do not match, then one message for each letter: `m` matches, `o` does
/// not.
async fn stream(others: usize, then: &str) -> Result<(tempfile::TempDir, NatsServer)> {
    let dir = tempfile::tempdir()?;
    let mut nats = NatsServer::new(dir.path())?;
    nats.start().await?;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["scan.>".to_owned()],
        allow_direct: true,
        ..Config::default()
    };
    let jetstream = nats.jetstream();
    jetstream.create_stream(config).await?;
    let all = std::iter::repeat_n('o', others).chain(then.chars());
    for (number, kind) in all.enumerate() {
        let subject = format!("scan.{kind}.{number}");
        let stored = jetstream.publish(subject, number.to_string().into());
        stored.await?.await?;
    }
    Ok((dir, nats))
}

fn bodies(messages: &[Stored]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| std::str::from_utf8(&message.payload).unwrap_or("no text"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_begins_with_the_first_match_and_counts_all() -> Result {
    for (others, then, first) in [
        (0, "mommom", ["0", "2", "3", "5"]),
        (3, "mommom", ["3", "5", "6", "8"]),
        (MANY, "mommom", ["40", "42", "43", "45"]),
    ] {
        let (_dir, nats) = stream(others, then).await?;
        let client = nats.client();
        let (page, count) = stream_reader::beginning(client, STREAM, "scan.m.*", 3).await?;
        assert_eq!((bodies(&page), count), (first[..3].to_vec(), 4));
        let (page, count) = stream_reader::beginning(client, STREAM, "scan.m.*", 100).await?;
        assert_eq!((bodies(&page), count), (first.to_vec(), 4));
        let (page, count) = stream_reader::beginning(client, STREAM, "scan.x.*", 100).await?;
        assert_eq!((page.len(), count), (0, 0));
        assert_eq!(stream_reader::count(client, STREAM, "scan.m.*").await?, 4);
        assert_eq!(
            stream_reader::count(client, STREAM, "scan.*.*").await?,
            others as u64 + 6
        );

        let page = stream_reader::uncounted(client, STREAM, "scan.m.*", 1, 3).await?;
        assert_eq!(bodies(&page), first[..3]);
        let next = page[2].sequence + 1;
        let page = stream_reader::uncounted(client, STREAM, "scan.m.*", next, 3).await?;
        assert_eq!(bodies(&page), first[3..]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_found_across_gaps() -> Result {
    let (_dir, nats) = stream(MANY, "m").await?;
    let mut stream = nats.stream(STREAM).await?;
    stream.purge().sequence(10).await?;
    for sequence in 12..=40 {
        stream.delete_message(sequence).await?;
    }
    assert_eq!(stream.info().await?.state.messages, 3);
    let mut found = Vec::new();
    let mut from = 1;
    loop {
        let few = stream_reader::few(nats.client(), STREAM, "scan.>", from).await?;
        let Some(last) = few.last() else { break };
        from = last.sequence + 1;
        found.extend(few.iter().map(|message| message.sequence));
    }
    assert_eq!(found, [10, 11, 41]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_are_found_however_far_apart() -> Result {
    for (others, then) in [(0, "mmmm"), (MANY, "mmmm"), (1, "mooooooooooommooooom")] {
        let (_dir, nats) = stream(others, then).await?;
        let client = nats.client();
        let all = stream_reader::page(client, STREAM, "scan.m.*", 1, 10).await?;
        let mut newest = bodies(&all);
        newest.reverse();
        let (mut before, mut found) = (u64::MAX, Vec::new());
        for count in [1, 2, 5, 1] {
            let page = stream_reader::newest(client, STREAM, "scan.m.*", before, count).await?;
            before = page.last().map_or(before, |last| last.sequence);
            found.extend(page);
        }
        assert_eq!(bodies(&found), newest);
    }
    Ok(())
}
