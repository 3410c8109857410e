//! What happened on both nodes, asked for on one of them, over restarts and crashes, and while the other one is away.

use std::time::{Duration, Instant};

use controlplane_api::cluster::Presence;
use controlplane_api::events::{Event, Events, Query, SCHEMA};
use controlplane_api::why::{self, Why};

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

fn asked(bed: &Bed, node: usize) -> Why {
    serde_json::from_str(&bed.get(node, "/v1/why")).expect("reasons")
}

#[test]
fn each_node_tells_why_and_what_it_waits_for() {
    let mut bed = Bed::new();
    bed.start_both();
    bed.says(0, "online");
    eventually("they hear each other", || {
        let found = |node| asked(&bed, node).peer.present.map(|found| found.presence);
        found(0) == Some(Presence::Alive) && found(1) == Some(Presence::Alive)
    });
    let serves = asked(&bed, 0);
    assert_eq!(
        (serves.schema.as_str(), serves.node.as_str()),
        (why::SCHEMA, "node1")
    );
    let group = &serves.groups[0];
    assert_eq!(group.name, bed.group());
    assert_eq!(group.text, "node1 serves its volumes");
    assert!(group.waits.is_none(), "{group:?}");
    let present = group.present.as_ref().expect("a row");
    assert_eq!(
        (present.row, present.decision.as_str()),
        (3, "nothing to do")
    );
    assert_eq!(present.volumes[0].standing.as_deref(), Some("serving"));
    assert_eq!(present.volumes[0].epoch, Some(5));
    let resources = group.resources.as_ref().expect("resources");
    let because = resources.present.as_ref().expect("a reason");
    assert_eq!(
        (because.reason.as_str(), resources.state.as_str()),
        ("served", "online")
    );
    let ground = resources.ground.as_ref().expect("a ground");
    assert_eq!(ground.value, "1", "{ground:?}");
    // Each path with the moment at which the other node was heard on it.
    let paths = &serves.peer.paths;
    assert_eq!(paths.len(), 2);
    assert!(paths[0].heard_ms.is_some_and(|ms| ms < 5000), "{paths:?}");
    // The other node's volume does not answer.
    let waits = asked(&bed, 1);
    let group = &waits.groups[0];
    let missing = group.waits.as_ref().expect("a wait");
    assert_eq!(missing.what, "the volume's daemon");
    assert_eq!(group.present.as_ref().expect("a row").row, 4);
    // It dies: what was found is told with its evidence.
    bed.kill(1);
    bed.says(0, "path=0 state=Down");
    eventually("the path is told", || {
        asked(&bed, 0).peer.paths[0]
            .heard_ms
            .is_some_and(|ms| ms >= 2000)
    });
}
