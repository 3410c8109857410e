//! Isolated copies: planned detach, one point in time, planned attach.

mod common;

use common::{on, pair, takeover, wait_answer, write};
use lockstep_tests::sim::world::World;
use mirror_core::admin::{Command, CopyState, Done, LinkState, Outcome, Refusal};
use mirror_core::isolation::IsolationRefusal;

fn isolate(world: &mut World, node: usize) -> Outcome {
    let command = world.command(node, Command::Isolate { now_unix_s: 77 });
    wait_answer(world, command)
}

fn attach(world: &mut World, node: usize, force: bool) -> Outcome {
    let command = world.command(node, Command::Attach { force });
    wait_answer(world, command)
}

/// Node 0 serves, node 1 is isolated, and node 0 has written 8 sectors since.
fn isolated(seed: u64) -> World {
    let mut world = pair(seed);
    on(&mut world, 0);
    write(&mut world, 0, 0, 100, 8);
    world.run_for(300);
    assert_eq!(isolate(&mut world, 1), Ok(Done::Isolated));
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    world
}

fn refusal(outcome: Outcome) -> IsolationRefusal {
    match outcome {
        Err(Refusal::Isolation(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn well(world: &World) {
    assert_eq!(world.failure, None);
}

#[test]
fn an_isolated_copy_stays_what_it_was_and_the_active_node_goes_on() {
    let mut world = isolated(1);
    let values = |world: &World, node: usize| {
        let content = &world.nodes[node].data.content;
        (content[100], content[2000])
    };
    let (old, new) = values(&world, 0);
    assert!(old != 0 && new != 0);
    assert_eq!(values(&world, 1), (old, 0));
    world.power_cut(1);
    assert_eq!(values(&world, 1), (old, 0), "it was flushed");
    world.power_on(1);
    world.run_for(5000);
    let status = world.status(1).expect("it runs");
    assert_eq!(status.copy, CopyState::Isolated);
    assert_eq!(status.link.state, LinkState::Up);
    assert_eq!(values(&world, 1), (old, 0));
    let there = world.status(0).and_then(|status| status.isolated);
    let there = there.expect("the active node knows");
    assert_eq!((there.node.as_str(), there.since_unix_s), ("beta", 77));
    well(&world);
}

#[test]
fn attach_copies_only_what_was_written_meanwhile() {
    for seed in 0..10 {
        let mut world = isolated(seed);
        assert_eq!(
            world.status(0).map(|status| status.out_of_sync_bytes),
            Some(4096)
        );
        assert_eq!(attach(&mut world, 1, true), Ok(Done::Attached));
        assert!(
            world.run_until(20_000, World::healthy),
            "{:?}",
            world.failure
        );
        let sent = world
            .status(0)
            .map(|status| status.counters.resync_sent_bytes);
        assert_eq!(sent, Some(4096));
        assert_eq!(world.coverage.get("copy Outdated"), Some(&1));
        assert_eq!(world.status(0).and_then(|status| status.isolated), None);
        world.run_for(1000);
        well(&world);
    }
}

#[test]
fn an_isolated_copy_is_not_promotable() {
    let mut world = isolated(2);
    let command = world.command(1, Command::Activate);
    let answer = wait_answer(&mut world, command);
    assert!(matches!(refusal(answer), IsolationRefusal::Isolated { .. }));
    world.power_cut(0);
    assert!(world.run_until(10_000, |world| {
        world
            .status(1)
            .is_some_and(|status| status.link.state == LinkState::Down)
    }));
    assert!(matches!(
        refusal(takeover(&mut world, 1)),
        IsolationRefusal::Isolated { .. }
    ));
    // After its end neither: it is outdated.
    assert_eq!(attach(&mut world, 1, true), Ok(Done::Attached));
    assert!(matches!(
        takeover(&mut world, 1),
        Err(Refusal::CopyNotCurrent { .. })
    ));
    well(&world);
}

#[test]
fn only_a_standby_that_counts_and_is_connected_is_isolated() {
    let mut world = pair(3);
    on(&mut world, 0);
    assert!(matches!(
        refusal(isolate(&mut world, 0)),
        IsolationRefusal::Serving { .. }
    ));
    world.silence([true, true]);
    let down = |world: &World, node| {
        let link = world.status(node).map(|status| status.link.state);
        link == Some(LinkState::Down)
    };
    let both = |world: &World| down(world, 0) && down(world, 1);
    assert!(world.run_until(10_000, both));
    assert!(matches!(
        refusal(isolate(&mut world, 1)),
        IsolationRefusal::PeerSilent { .. }
    ));
    assert!(matches!(takeover(&mut world, 0), Ok(Done::Alone)));
    world.silence([false, false]);
    assert!(world.run_until(20_000, World::healthy));
    assert_eq!(isolate(&mut world, 1), Ok(Done::Isolated));
    let command = world.command(0, Command::Deactivate { force: true });
    assert!(matches!(wait_answer(&mut world, command), Ok(Done::Fenced)));
    assert!(matches!(
        refusal(isolate(&mut world, 0)),
        IsolationRefusal::Last { .. }
    ));
    assert_eq!(isolate(&mut world, 1), Ok(Done::AlreadyIsolated));
    // The isolated node agrees to who serves, as a copy that is being filled does.
    let view = world.status(1).map(|status| status.view.active);
    assert_eq!(view, Some(None));
    on(&mut world, 0);
    well(&world);
}

/// The standby has written down that it is isolated, and the answer is lost: the active node is frozen until
/// both meet, learns of it then, and goes on.
#[test]
fn an_isolation_whose_answer_is_lost_freezes_only_until_both_meet() {
    let mut hits = 0;
    for seed in 0..40 {
        let mut world = pair(seed);
        on(&mut world, 0);
        world.command(1, Command::Isolate { now_unix_s: 5 });
        let reached = world.run_until(1000, |world| {
            world.nodes[1].meta.peek().isolation.own.is_some()
        });
        assert!(reached, "{:?}", world.failure);
        world.kill(1);
        if world.nodes[0].view().insync.len() == 2 {
            hits += 1;
        }
        world.run_for(500);
        world.start(1);
        write(&mut world, 0, 0, 300, 8);
        let apart = |world: &World| {
            let active = world.status(0).filter(|status| status.frozen.is_none());
            let active = active.is_some_and(|status| status.peer_copy == CopyState::Isolated);
            active
                && world
                    .status(1)
                    .is_some_and(|status| status.copy == CopyState::Isolated)
        };
        assert!(
            world.run_until(20_000, apart),
            "seed {seed}: {:?}",
            world.failure
        );
        world.run_for(3000);
        let since = world.status(0).and_then(|status| status.isolated);
        assert_eq!(since.map(|isolated| isolated.since_unix_s), Some(5));
        assert_eq!(attach(&mut world, 1, true), Ok(Done::Attached));
        assert!(
            world.run_until(20_000, World::healthy),
            "seed {seed}: {:?}",
            world.failure
        );
        well(&world);
    }
    assert!(hits > 0, "no seed lost the answer");
}

#[test]
fn an_isolated_copy_is_neither_marked_nor_compared() {
    let mut world = isolated(1);
    let confirm = "data".to_string();
    let command = world.command(1, Command::Invalidate { confirm });
    let outcome = wait_answer(&mut world, command);
    assert!(matches!(
        refusal(outcome),
        IsolationRefusal::Isolated { .. }
    ));
    for node in 0..2 {
        let verify = Command::Verify {
            repair: true,
            repair_from: None,
            confirm: String::new(),
        };
        let command = world.command(node, verify);
        let outcome = wait_answer(&mut world, command);
        assert!(matches!(outcome, Err(Refusal::NothingToVerify { .. })));
    }
    assert_eq!(attach(&mut world, 1, true), Ok(Done::Attached));
    assert!(world.run_until(60_000, World::healthy));
    well(&world);
}

#[test]
fn an_isolated_copy_is_forced_only_after_it_was_attached_and_can_be_opened_then() {
    let mut world = isolated(2);
    world.nodes[0].held_off = true;
    world.power_cut(0);
    world.run_for(5000);
    let force = |world: &mut World| {
        let confirm = "data".to_string();
        let command = world.command(1, Command::Force { confirm });
        wait_answer(world, command)
    };
    let refused = force(&mut world);
    assert!(matches!(refusal(refused), IsolationRefusal::AttachFirst));
    assert_eq!(attach(&mut world, 1, true), Ok(Done::Attached));
    assert_eq!(force(&mut world), Ok(Done::Forced));
    world.kill(1);
    world.start(1);
    world.run_for(1000);
    let status = world.status(1).expect("its superblock can be read");
    assert_eq!(status.copy, CopyState::InSync);
    on(&mut world, 1);
}

/// Its daemon is asked to stop, and while the read-only device goes the active node asks it to agree to another view: it
/// does not end beside a superblock that is being written (seed 2971397).
#[test]
fn an_isolated_nodes_daemon_ends_beside_no_superblock() {
    let mut busy = 0;
    for seed in 0..60 {
        let mut world = isolated(seed);
        let deactivate = world.command(0, Command::Deactivate { force: true });
        let fenced = wait_answer(&mut world, deactivate);
        assert!(matches!(fenced, Ok(Done::Fenced)), "{fenced:?}");
        let stop = world.command(1, Command::Stop);
        world.run_for(seed % 5);
        world.command(0, Command::Activate);
        let answer = wait_answer(&mut world, stop);
        assert_eq!(world.failure, None, "seed {seed}: {answer:?}");
        match answer {
            // Somebody reads the image.
            Ok(Done::Stopped) | Err(Refusal::Isolation(IsolationRefusal::InUse)) => {}
            Err(Refusal::Busy) => {
                busy += 1;
                let up = |world: &World| world.coverage.get("read-only devices") == Some(&2);
                assert!(
                    world.run_until(1000, up),
                    "seed {seed}: what is refused changes nothing"
                );
            }
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(busy > 0, "no seed hit the moment");
}

/// Its disk did not answer for a while, and one read was given up: the copy is only old, and stays so. An attach before the
/// daemon was started again would let it fail, and be filled from end to end.
#[test]
fn an_isolated_copy_whose_disk_was_given_up_is_attached_by_the_next_run() {
    let mut world = isolated(5);
    world.stick(1, 4000, false);
    let given_up = |world: &World| world.coverage.contains_key("operations given up");
    assert!(world.run_until(4000, given_up));
    world.run_for(5000);
    assert_eq!(
        refusal(attach(&mut world, 1, true)),
        IsolationRefusal::GivenUp
    );
    let copy = world.status(1).map(|status| status.copy);
    assert_eq!(copy, Some(CopyState::Isolated));
    world.kill(1);
    world.start(1);
    let up = |world: &World| world.coverage.get("read-only devices") == Some(&2);
    assert!(world.run_until(5000, up));
    world.run_for(100);
    assert_eq!(attach(&mut world, 1, true), Ok(Done::Attached));
    assert!(world.run_until(20_000, World::healthy));
    assert!(
        !world.coverage.contains_key("copy DiskFailed"),
        "what it missed, and nothing else"
    );
    well(&world);
}
