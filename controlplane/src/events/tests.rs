//! What is kept is what was said; what finds no room is counted; what is damaged is nothing.

use super::kept::{FILE_BYTES_MAX, line};
use super::layer::SAID_BYTES_MAX;
use super::ring::cost;
use super::*;
use controlplane_api::events::Severity;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;
use tracing_subscriber::layer::SubscriberExt;

fn event(number: u64) -> Event {
    Event {
        node: "node1".to_string(),
        number,
        at_ms: number,
        severity: Severity::Info,
        code: "LS6021".to_string(),
        group: None,
        volume: None,
        text: format!("the {number}th"),
        fields: BTreeMap::new(),
    }
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.number).collect()
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn all(log: &Log) -> Vec<Event> {
    log.page(&Query::default(), usize::MAX).events
}

/// Runs `say` with a log of its own in this file, and gives what is kept once `is` holds of it.
fn kept(path: &Path, say: impl FnOnce(), is: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let (layer, collector) = begin();
    let log = collector.start("node1", path).expect("threads");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
    eventually("kept", || is(&all(&log)));
    all(&log)
}

#[test]
fn lines_with_a_code_are_events_with_what_they_say() {
    let directory = tempfile::tempdir().expect("a directory");
    let say = || {
        tracing::info!("nobody needs to know");
        tracing::info!(code = 3, "no code of ours");
        tracing::warn!(code = "LS6016", group = "pg", lost = 3, say_in = ?Some("a\u{1b}b"), "the {}", "end");
        tracing::error!(code = %"LS6045", volume = %"data", "é{}", "é".repeat(2000));
    };
    let found = kept(&directory.path().join("e"), say, |all| all.len() == 2);
    let first = &found[0];
    assert_eq!(
        (first.code.as_str(), first.text.as_str()),
        ("LS6016", "the end")
    );
    assert_eq!(first.severity, Severity::Warning);
    assert_eq!(first.group.as_deref(), Some("pg"));
    let fields: Vec<_> = first
        .fields
        .iter()
        .map(|(a, b)| format!("{a}={b}"))
        .collect();
    assert_eq!(fields, ["lost=3", "say_in=Some(\"a\\u{1b}b\")"]);
    assert!(first.at_ms > 1_600_000_000_000 && first.number / 1000 >= first.at_ms);
    let second = &found[1];
    assert_eq!(
        (second.severity, second.volume.as_deref()),
        (Severity::Error, Some("data"))
    );
    assert!(second.text.len() <= SAID_BYTES_MAX && second.text.len() > SAID_BYTES_MAX - 20);
    assert!(second.number > first.number);
}

#[test]
fn nothing_that_a_terminal_would_obey_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let say = || tracing::info!(code = "LS6062", error = %"a\u{1b}[31m\nb", "x\u{7}");
    let found = kept(&directory.path().join("e"), say, |all| all.len() == 1);
    assert_eq!(found[0].fields["error"], "a [31m b");
    assert_eq!(found[0].text, "x ");
}

#[test]
fn who_logs_never_waits_and_what_found_no_room_is_told() {
    let (layer, collector) = begin();
    let say = || {
        for number in 0..WAITING_MAX + 5 {
            tracing::info!(code = "LS6021", number, "one");
        }
    };
    // Nobody collects.
    let subscriber = tracing_subscriber::registry().with(layer);
    let guard = tracing::subscriber::set_default(subscriber);
    say();
    assert_eq!(collector.dropped.load(Ordering::Relaxed), 5);
    let directory = tempfile::tempdir().expect("a directory");
    let log = collector.start("node1", &directory.path().join("e"));
    let log = log.expect("threads");
    eventually("kept", || all(&log).len() >= WAITING_MAX);
    drop(guard);
}

#[test]
fn memory_is_bounded_by_number_and_by_bytes_and_the_oldest_go_first() {
    let mut ring = Ring::default();
    for number in 1..=10_000 {
        ring.push(Arc::new(event(number)));
    }
    let (found, left_out) = ring.newest_of(&Query::default(), usize::MAX);
    assert_eq!((found.len(), left_out), (EVENTS_MAX, 0));
    assert_eq!(found[0].number, 10_001 - 4096);
    assert_eq!((ring.newest(), ring.oldest_ms()), (10_000, Some(5905)));
    let long = |number| {
        let text = "x".repeat(3 * 1024);
        Arc::new(Event {
            text,
            ..event(number)
        })
    };
    for number in 10_001..=20_000 {
        ring.push(long(number));
    }
    let (found, _) = ring.newest_of(&Query::default(), usize::MAX);
    let bytes: usize = found.iter().map(|event| cost(event)).sum();
    assert!(
        bytes <= MEMORY_BYTES_MAX && bytes > MEMORY_BYTES_MAX - 2 * 4096,
        "{bytes}"
    );
    assert!(found.len() < EVENTS_MAX);
    // Of what is remembered from before as much as finds room.
    ring.remember((1..=100).map(event).collect());
    let (found, _) = ring.newest_of(&Query::default(), usize::MAX);
    let bytes: usize = found.iter().map(|event| cost(event)).sum();
    assert!(bytes <= MEMORY_BYTES_MAX && found[0].number > 80, "{bytes}");
}

#[test]
fn a_page_has_the_newest_and_says_how_many_it_has_not() {
    let mut ring = Ring::default();
    ring.push(Arc::new(event(50)));
    ring.remember((1..=10).map(event).collect());
    let query = |text: &str| Query::parse(text).expect("a query");
    let found = |text: &str, bytes| {
        let (found, left_out) = ring.newest_of(&query(text), bytes);
        (
            found.iter().map(|it| it.number).collect::<Vec<_>>(),
            left_out,
        )
    };
    assert_eq!(found("count=3", usize::MAX), (vec![9, 10, 50], 8));
    assert_eq!(found("after=9&count=1", usize::MAX), (vec![50], 1));
    assert_eq!(found("", 2 * cost(&event(50))), (vec![10, 50], 9));
    // A clock that was put back: what comes is above all that was.
    let mut ring = Ring::default();
    ring.push(Arc::new(event(3)));
    ring.remember(vec![event(70)]);
    assert_eq!(ring.newest(), 70);
}

#[test]
fn what_was_written_down_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state").join(FILE);
    let first = kept(
        &path,
        || tracing::info!(code = "LS6021", "first"),
        |all| all.len() == 1,
    );
    eventually("written", || path.metadata().is_ok_and(|it| it.len() > 0));
    let second = kept(
        &path,
        || tracing::info!(code = "LS6022", "second"),
        |all| all.len() == 2,
    );
    assert_eq!(second[0], first[0]);
    assert!(second[1].number > first[0].number);
}

fn file(path: &Path) -> Kept {
    Kept::at(path, Arc::new(AtomicU64::new(0)))
}

#[test]
fn a_torn_last_line_is_no_error_and_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE);
    for number in 1..=3 {
        file(&path).write(&event(number));
    }
    let whole = fs::read(&path).expect("lines");
    for torn in 1..line(&event(3)).len() {
        fs::write(&path, &whole[..whole.len() - torn]).expect("torn");
        assert_eq!(numbers(&file(&path).load()), [1, 2]);
        file(&path).write(&event(4));
        assert_eq!(numbers(&file(&path).load()), [1, 2, 4]);
    }
}

#[test]
fn what_is_damaged_is_nothing_wherever_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE);
    for number in 1..=3 {
        file(&path).write(&event(number));
    }
    let whole = fs::read(&path).expect("lines");
    let length = line(&event(1)).len();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x04;
        fs::write(&path, &bytes).expect("damaged");
        let hit = u64::try_from(place / length).expect("small") + 1;
        let found = numbers(&file(&path).load());
        // The end of a line that is lost takes the next one with it.
        assert!(
            found.iter().all(|number| *number != hit)
                && found.iter().all(|it| (1..=3).contains(it))
        );
        assert!(!found.is_empty());
    }
    for rubbish in [&b""[..], b"\n\n", b"hello", &[0xff; 100_000]] {
        fs::write(&path, rubbish).expect("rubbish");
        assert_eq!(file(&path).load(), []);
        file(&path).write(&event(9));
        assert_eq!(numbers(&file(&path).load()), [9]);
    }
}

#[test]
fn two_files_hold_the_newest_and_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE);
    let mut kept = file(&path);
    let (mut written, mut last) = (0, 0);
    while written < 5 * FILE_BYTES_MAX {
        last += 1;
        written += u64::try_from(line(&event(last)).len()).expect("small");
        kept.write(&event(last));
    }
    let files = fs::read_dir(directory.path()).expect("files");
    let sizes: Vec<u64> = files
        .map(|file| file.expect("a file").metadata().expect("a size").len())
        .collect();
    assert_eq!(sizes.len(), 2);
    assert!(
        sizes.iter().all(|size| *size <= FILE_BYTES_MAX),
        "{sizes:?}"
    );
    let found = kept.load();
    assert!(found.is_sorted_by_key(|event| event.number));
    assert_eq!(found.last().map(|event| event.number), Some(last));
}

#[test]
fn a_full_disk_loses_events_in_the_file_and_says_so_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE);
    symlink("/dev/full", &path).expect("a link");
    let say = || {
        for _ in 0..20 {
            tracing::info!(code = "LS6021", "one");
        }
    };
    let (layer, collector) = begin();
    let log = collector.start("node1", &path).expect("threads");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
    eventually("in memory", || all(&log).len() == 20);
    let unwritten = Arc::new(AtomicU64::new(0));
    let mut kept = Kept::at(&path, Arc::clone(&unwritten));
    let (layer, collector) = begin();
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        for number in 1..=20 {
            kept.write(&event(number));
        }
    });
    assert_eq!(unwritten.load(Ordering::Relaxed), 20);
    let told = collector.items.try_iter().count();
    assert_eq!(told, 1, "once");
}

#[tokio::test]
async fn whoever_waits_for_news_hears_of_them_at_once_or_when_the_time_is_over() {
    let log = Log::new("node1");
    let patience = Duration::from_millis(20);
    log.wait(0, patience).await;
    assert_eq!(all(&log), []);
    log.remember(vec![event(7)]);
    log.wait(6, Duration::from_secs(3600)).await;
    log.wait(7, patience).await;
    assert_eq!(log.page(&Query::default(), 0).newest, 7);
}
