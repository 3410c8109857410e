//! What happened on both nodes, asked for on one of them, over restarts and crashes, and while the other one is away.

use std::time::{Duration, Instant};

use controlplane_api::events::{Event, Events, Query, SCHEMA};

use crate::beds::{Bed, eventually};

fn happened(bed: &Bed, node: usize, query: &str) -> Events {
    let events = bed.get(node, &format!("/v1/events?{query}"));
    serde_json::from_str(&events).expect("events")
}

fn of<'a>(events: &'a Events, node: &str, code: &str) -> Vec<&'a Event> {
    let all = events.events.iter();
    all.filter(|event| event.node == node && event.code == code)
        .collect()
}

#[test]
fn both_nodes_tell_what_happened_and_remember_it_over_a_crash() {
    let mut bed = Bed::new();
    bed.start_both();
    bed.says(0, "online");
    let complete = || {
        let told = happened(&bed, 0, "peer=true");
        let heard = |node| !of(&told, node, "LS6011").is_empty();
        heard("node1") && heard("node2") && told.logs.iter().all(|log| log.problem.is_none())
    };
    eventually("both tell", complete);
    let told = happened(&bed, 0, "peer=true");
    assert_eq!(told.schema, SCHEMA);
    assert!(told.events.is_sorted_by_key(|event| event.at_ms));
    assert_eq!(of(&told, "node1", "LS6021").len(), 1);
    assert_eq!(of(&told, "node2", "LS6021").len(), 1);
    let started = of(&told, "node1", "LS6041");
    let group = started[0].group.clone().expect("a group");
    // Only what is asked for.
    let few = happened(&bed, 0, &format!("group={group}&code=LS6041&count=1"));
    assert_eq!((few.events.len(), few.logs.len()), (1, 1));
    let without = happened(&bed, 1, "code=LS6021");
    assert!(without.events.iter().all(|event| event.node == "node2"));
    // A crash: what was told is there, and goes on.
    let first = told.logs[0].newest;
    bed.kill(0);
    bed.start(0);
    eventually("it remembers", || {
        of(&happened(&bed, 0, ""), "node1", "LS6021").len() == 2
    });
    let news = happened(&bed, 0, &format!("after={first}"));
    assert_eq!(of(&news, "node1", "LS6021").len(), 1);
    assert!(news.events.iter().all(|event| event.number > first));
    // The other one ends: what happened here is told all the same, and why nothing else is.
    bed.kill(1);
    bed.says(0, "path=0 state=Down");
    let began = Instant::now();
    let alone = happened(&bed, 0, "peer=true");
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!(!of(&alone, "node1", "LS6012").is_empty());
    let other = &alone.logs[1];
    let problem = other.problem.as_ref().expect("a problem");
    assert_eq!(other.node, "node2");
    assert_eq!(problem.code, "LS6162", "{problem:?}");
}

/// Nothing is asked of the loop that decides: it tells what it told, and is not held up.
#[test]
fn whoever_follows_is_answered_when_something_happens() {
    let mut bed = Bed::new();
    bed.start(0);
    bed.says(0, "online");
    let newest = happened(&bed, 0, "").logs[0].newest;
    let query = Query {
        after: Some(newest),
        code: Some("LS6091".to_string()),
        wait_ms: 30_000,
        ..Query::default()
    };
    // Other events may come first.
    let heard = || {
        let mut query = query.clone();
        loop {
            let told = happened(&bed, 0, &query.text());
            query.after = Some(told.logs[0].newest);
            if let Some(event) = told.events.first() {
                return event.clone();
            }
        }
    };
    let group = bed.group();
    std::thread::scope(|scope| {
        let waits = scope.spawn(heard);
        let said = bed.post(0, &format!("/v1/groups/{group}/stop"), "{}");
        said.expect("said");
        let event = waits.join().expect("an answer");
        assert!(event.number > newest);
        assert_eq!(event.fields["want"], "Stopped { home: Some(NodeId(0)) }");
    });
    let wrong = bed.refused(0, "/v1/events?after=x");
    assert_eq!(wrong, 400);
}
