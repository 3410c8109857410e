//! A group that fails on two nodes with real keepers, wishes and resources' rules: it moves by itself at most once, to a node
//! that can have it, and is never served by two.

mod bed;

use std::collections::BTreeMap;

use controlplane_core::failing::OnFailure;
use controlplane_core::wish::{Failure, Origin, Subject, Want};
use proptest::prelude::*;

use bed::{Bed, STEP_MS, id, key};

#[test]
fn a_group_that_fails_here_runs_there_by_itself() {
    let mut bed = Bed::new(OnFailure::Failover);
    assert!(bed.nodes[0].runs);
    bed.broken[0] = true;
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves), (Some(1), 1));
    assert!(bed.nodes[1].runs);
    // It ran, broke, and was tried once more.
    assert_eq!((bed.nodes[0].starts, bed.nodes[1].starts), (2, 1));
    for node in &bed.nodes {
        let failure = |of| node.wishes.failure(key(), id(of));
        assert_eq!([failure(0), failure(1)], [Failure::Stands, Failure::None]);
    }
}

/// It failed on both, and one control plane is not there while an operator clears it on the other one: where it was mended it
/// runs as soon as that one is back.
#[test]
fn what_is_forgotten_is_forgotten_by_a_node_that_was_away_as_well() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.broken = [true; 2];
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves), (Some(1), 1));
    bed.down = Some(0);
    bed.pass(5000);
    bed.operator(1, Subject::Failures(key()), Want::Forgotten);
    bed.pass(20_000);
    assert_eq!(bed.nodes[1].starts, 4, "it was tried again");
    bed.broken[0] = false;
    bed.down = None;
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves), (Some(0), 2));
    assert!(bed.nodes[0].runs);
}

#[test]
fn a_fault_that_follows_the_group_costs_one_move_and_clear_forgets_it_on_both() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.broken = [true; 2];
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves), (Some(1), 1));
    let starts = |bed: &Bed| [bed.nodes[0].starts, bed.nodes[1].starts];
    assert_eq!(starts(&bed), [2, 2]);
    bed.pass(300_000);
    assert_eq!((starts(&bed), bed.moves), ([2, 2], 1), "nothing flaps");
    bed.broken = [false; 2];
    bed.operator(0, Subject::Failures(key()), Want::Forgotten);
    bed.pass(5000);
    assert_eq!(starts(&bed), [2, 3]);
    assert!(bed.nodes[1].runs);
    let failure = |of| bed.nodes[0].wishes.failure(key(), id(of));
    assert_eq!([failure(0), failure(1)], [Failure::None; 2]);
    // What was forgotten may move again, and back.
    bed.broken[1] = true;
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves), (Some(0), 2));
}

#[test]
fn a_group_that_shall_wait_waits_and_one_that_an_operator_stopped_stays_stopped() {
    let mut bed = Bed::new(OnFailure::Wait);
    bed.broken[0] = true;
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves), (Some(0), 0));
    let mut bed = Bed::new(OnFailure::Failover);
    let home = None;
    bed.operator(1, Subject::Group(key()), Want::Stopped { home });
    bed.broken[0] = true;
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves), (None, 0));
}

#[test]
fn a_node_that_is_not_ready_is_waited_for_within_the_bound() {
    for late in [false, true] {
        let mut bed = Bed::new(OnFailure::Failover);
        bed.operator(0, Subject::Node(id(1)), Want::Suspended);
        bed.stale = Some(1);
        bed.broken[0] = true;
        bed.pass(60_000);
        bed.operator(0, Subject::Node(id(1)), Want::Resumed);
        bed.pass(60_000);
        assert_eq!(bed.moves, 0);
        if late {
            bed.pass(300_000);
        }
        bed.stale = None;
        bed.pass(20_000);
        let expected = if late { (Some(0), 0) } else { (Some(1), 1) };
        assert_eq!((bed.serving, bed.moves), expected);
    }
}

#[test]
fn a_group_whose_monitor_fails_moves_once_and_runs_on_where_it_fails_on_both() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.ill[0] = true;
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves, bed.condemned), (Some(1), 1, 1));
    bed.ill[1] = true;
    bed.pass(300_000);
    assert_eq!((bed.serving, bed.moves, bed.condemned), (Some(1), 1, 1));
    assert!(bed.nodes[1].runs);
    assert_eq!((bed.nodes[0].starts, bed.nodes[1].starts), (1, 1));
}

#[test]
fn a_monitor_stops_no_group_that_the_other_node_cannot_have_and_moves_it_when_it_can() {
    let mut bed = Bed::new(OnFailure::Wait);
    bed.ill[0] = true;
    bed.pass(60_000);
    assert_eq!((bed.condemned, bed.nodes[0].starts), (0, 1));
    for spoil in [
        |bed: &mut Bed| bed.stale = Some(1),
        |bed: &mut Bed| bed.down = Some(1),
        |bed: &mut Bed| bed.linked = false,
        |bed: &mut Bed| bed.operator(0, Subject::Node(id(1)), Want::Suspended),
    ] {
        let mut bed = Bed::new(OnFailure::Failover);
        spoil(&mut bed);
        bed.ill[0] = true;
        bed.pass(600_000);
        assert_eq!((bed.condemned, bed.nodes[0].starts), (0, 1));
        assert!(bed.nodes[0].runs);
        (bed.stale, bed.down, bed.linked) = (None, None, true);
        bed.operator(0, Subject::Node(id(1)), Want::Resumed);
        bed.pass(20_000);
        assert_eq!((bed.serving, bed.condemned), (Some(1), 1));
    }
}

/// The other node is gone after it was found ready: it is better here than nowhere, and that does not go on for ever.
#[test]
fn a_group_that_a_monitor_stopped_and_that_cannot_move_any_more_runs_here_again() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.ill[0] = true;
    for round in 1..6 {
        for _ in 0..100 {
            bed.pass(STEP_MS);
            if bed.condemned == round {
                break;
            }
        }
        bed.stale = Some(1);
        bed.pass(20_000);
        assert!(bed.nodes[0].runs, "round {round}");
        bed.stale = None;
    }
    assert_eq!((bed.serving, bed.moves, bed.condemned), (Some(0), 0, 2));
}

/// A disk that is busy, as it usually is when monitors fail: one event costs one move.
#[test]
fn a_move_that_is_not_durable_for_long_is_waited_for() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.disk_ms = 3000;
    bed.ill[0] = true;
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves, bed.runs_on), (Some(1), 1, 0));
    assert_eq!((bed.nodes[0].starts, bed.nodes[1].starts), (1, 1));
}

#[test]
fn a_move_of_a_monitor_that_comes_to_nothing_is_tried_again() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.ill[0] = true;
    let settled = |bed: &Bed| {
        let wish = bed.nodes[0].wishes.of(Subject::Group(key()));
        wish.is_some_and(|wish| matches!(wish.origin, Origin::InVain(_)))
    };
    for _ in 0..1000 {
        bed.pass(STEP_MS);
        bed.stale = (bed.moves > 0 && !settled(&bed)).then_some(1);
        if settled(&bed) {
            break;
        }
    }
    assert!(settled(&bed));
    assert_eq!((bed.moves, bed.runs_on), (1, 0));
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves, bed.runs_on), (Some(1), 2, 0));
    assert_eq!((bed.nodes[0].starts, bed.nodes[1].starts), (1, 1));
}

/// A router was away for a minute, nobody cleared that, and days later the resource dies for good.
#[test]
fn a_group_that_fails_moves_to_a_node_on_which_only_a_monitor_failed() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.ill[0] = true;
    bed.pass(20_000);
    bed.ill[0] = false;
    assert_eq!((bed.serving, bed.moves), (Some(1), 1));
    let failure = |bed: &Bed, of| bed.nodes[1].wishes.failure(key(), id(of));
    assert_eq!(failure(&bed, 0), Failure::Monitor);
    bed.broken[1] = true;
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves), (Some(0), 2));
    assert!(bed.nodes[0].runs);
    let failures = [0, 1].map(|of| failure(&bed, of));
    assert_eq!(failures, [Failure::None, Failure::Stands]);
    // A resource's failure bars all.
    bed.ill[0] = true;
    bed.pass(20_000);
    bed.broken[0] = true;
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves, bed.condemned), (Some(0), 2, 1));
}

/// What the first one said was a monitor's word; when the resource does not start there either, it is not any more.
#[test]
fn a_node_on_which_a_monitor_failed_and_then_a_resource_bars_what_fails() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.ill[0] = true;
    while bed.condemned == 0 {
        bed.pass(STEP_MS);
    }
    (bed.stale, bed.broken[0]) = (Some(1), true);
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.runs_on), (Some(0), 1));
    for node in &bed.nodes {
        assert_eq!(node.wishes.failure(key(), id(0)), Failure::Stands);
    }
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Disk(u64),
    Breaks(usize),
    Mends(usize),
    Ill(usize),
    Well(usize),
    Link,
    Stale,
    Suspends(usize, usize),
    Resumes(usize, usize),
    Clears(usize),
    Moves(usize, usize),
    Stops(usize),
    Starts(usize),
    Passes(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let node = || 0..2_usize;
    prop_oneof![
        4 => node().prop_map(Happening::Breaks),
        3 => node().prop_map(Happening::Mends),
        3 => node().prop_map(Happening::Ill),
        1 => (1..80_u64).prop_map(|steps| Happening::Disk(steps * STEP_MS)),
        1 => node().prop_map(Happening::Well),
        2 => Just(Happening::Link),
        2 => Just(Happening::Stale),
        1 => (node(), node()).prop_map(|(by, of)| Happening::Suspends(by, of)),
        2 => (node(), node()).prop_map(|(by, of)| Happening::Resumes(by, of)),
        2 => node().prop_map(Happening::Clears),
        2 => (node(), node()).prop_map(|(by, to)| Happening::Moves(by, to)),
        1 => node().prop_map(Happening::Stops),
        2 => node().prop_map(Happening::Starts),
        9 => (50..6000_u64).prop_map(Happening::Passes),
    ]
}

fn happen(bed: &mut Bed, happening: Happening) {
    let (group, failures) = (Subject::Group(key()), Subject::Failures(key()));
    match happening {
        Happening::Disk(millis) => bed.disk_ms = millis,
        Happening::Breaks(node) => bed.broken[node] = true,
        Happening::Mends(node) => bed.broken[node] = false,
        Happening::Ill(node) => bed.ill[node] = true,
        Happening::Well(node) => bed.ill[node] = false,
        Happening::Link => bed.linked = !bed.linked,
        // Whose copy does not count changes while one serves.
        // It is copied to while somebody serves and both are linked.
        Happening::Stale => {
            if let Some(serving) = bed.serving {
                let copied = bed.stale.is_some() && bed.linked;
                bed.stale = Some(1 - serving).filter(|_| !copied);
            }
        }
        Happening::Suspends(by, of) => bed.operator(by, Subject::Node(id(of)), Want::Suspended),
        Happening::Resumes(by, of) => bed.operator(by, Subject::Node(id(of)), Want::Resumed),
        Happening::Clears(by) => bed.operator(by, failures, Want::Forgotten),
        Happening::Moves(by, to) => bed.operator(by, group, Want::Moves { to: id(to) }),
        Happening::Stops(by) => bed.operator(by, group, Want::Stopped { home: None }),
        Happening::Starts(by) => bed.operator(by, group, Want::Runs { home: None }),
        Happening::Passes(millis) => bed.pass(millis),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The laws are asserted where a group moves, starts, and is given away; and where all trouble is over it runs.
    #[test]
    fn whatever_happens_it_moves_where_it_can_run(all in proptest::collection::vec(happening(), 1..40)) {
        let mut bed = Bed::new(OnFailure::Failover);
        for one in all {
            happen(&mut bed, one);
            bed.pass(STEP_MS);
        }
        (bed.broken, bed.linked, bed.stale) = ([false; 2], true, None);
        bed.disk_ms = STEP_MS;
        bed.pass(30_000);
        for node in 0..2 {
            bed.operator(0, Subject::Node(id(node)), Want::Resumed);
        }
        bed.operator(0, Subject::Group(key()), Want::Runs { home: None });
        bed.pass(30_000);
        bed.operator(0, Subject::Failures(key()), Want::Forgotten);
        bed.pass(30_000);
        let runs: BTreeMap<usize, bool> = (0..2).map(|node| (node, bed.nodes[node].runs)).collect();
        let serving = bed.serving.expect("somebody serves");
        prop_assert!(runs[&serving], "{runs:?}");
        prop_assert!(!runs[&(1 - serving)], "{runs:?}");
        prop_assert_eq!(bed.nodes[0].wishes.digest(), bed.nodes[1].wishes.digest());
    }
}
