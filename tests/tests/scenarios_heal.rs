//! Laws of reads that a disk cannot do, on two simulated nodes that run the real core.

mod common;

use common::{flush, on, pair, read, takeover, wait_answer, write};
use lockstep_tests::sim::world::{Mutant, Plan, World};
use mirror_core::admin::{Command, CopyState, Done, Role};
use mirror_core::effect::DiskOperation;
use mirror_core::notice::Refusal;

fn sound(world: &World) {
    assert_eq!(world.failure, None);
}

/// Sectors 0 to 31 were written and acknowledged.
fn written(seed: u64) -> World {
    let mut world = pair(seed);
    on(&mut world, 0);
    write(&mut world, 0, 0, 0, 32);
    assert!(world.run_until(1000, |world| world.completed == 1));
    world
}

fn times(world: &World, what: &str) -> u64 {
    world.coverage.get(what).copied().unwrap_or(0)
}

fn lose(world: &mut World, node: usize) {
    world.nodes[node].data.unreadable.extend(8..16);
}

#[test]
fn what_one_disk_cannot_read_is_read_from_the_other_and_is_good_again() {
    let mut world = written(1);
    lose(&mut world, 0);
    read(&mut world, 0, 0, 0, 32);
    assert!(world.run_until(1000, |world| world.completed == 2));
    assert_eq!(times(&world, "reads healed"), 1);
    assert!(world.nodes[0].data.unreadable.is_empty());
    let status = world.status(0).expect("it runs");
    assert_eq!(status.counters.healed_reads, 1);
    assert_eq!(
        (status.role, status.copy),
        (Role::Active, CopyState::InSync)
    );
    // The peer is not asked again.
    lose(&mut world, 1);
    read(&mut world, 0, 1, 0, 32);
    assert!(world.run_until(1000, |world| world.completed == 3));
    sound(&world);
}

#[test]
fn what_no_disk_can_read_fails_alone() {
    let mut world = written(2);
    lose(&mut world, 0);
    lose(&mut world, 1);
    read(&mut world, 0, 0, 0, 32);
    assert!(
        world.run_until(1000, |world| times(world, "reads that nobody could do")
            == 1)
    );
    for node in 0..2 {
        let status = world.status(node).expect("it runs");
        assert_eq!(status.copy, CopyState::InSync);
    }
    write(&mut world, 0, 1, 8, 8);
    read(&mut world, 0, 2, 0, 8);
    assert!(world.run_until(1000, |world| world.completed == 3));
    sound(&world);
}

#[test]
fn a_read_waits_for_a_peer_that_is_lost_and_fails_when_its_copy_stops_to_count() {
    for comes_back in [true, false] {
        let mut world = written(3);
        world.silence([true, true]);
        lose(&mut world, 0);
        read(&mut world, 0, 0, 0, 32);
        world.run_for(4000);
        assert_eq!(world.completed, 1, "nobody answers yet");
        assert_eq!(times(&world, "reads that nobody could do"), 0);
        if comes_back {
            world.silence([false, false]);
            assert!(world.run_until(10_000, |world| world.completed == 2));
        } else {
            world.power_cut(1);
            assert!(matches!(takeover(&mut world, 0), Ok(Done::Alone)));
            assert!(
                world.run_until(1000, |world| times(world, "reads that nobody could do")
                    == 1)
            );
            assert_eq!(
                world.status(0).map(|status| status.role),
                Some(Role::Active)
            );
        }
        sound(&world);
    }
}

#[test]
fn a_copy_that_does_not_count_is_not_asked() {
    let mut world = written(4);
    world.power_cut(1);
    world.run_for(4000);
    assert!(matches!(takeover(&mut world, 0), Ok(Done::Alone)));
    lose(&mut world, 0);
    read(&mut world, 0, 0, 0, 32);
    assert!(
        world.run_until(1000, |world| times(world, "reads that nobody could do")
            == 1)
    );
    sound(&world);
}

#[test]
fn a_write_to_the_place_waits_until_it_is_good() {
    let mut world = written(5);
    lose(&mut world, 0);
    read(&mut world, 0, 0, 0, 32);
    for slot in 1..5 {
        write(&mut world, 0, slot, 4 + 4 * slot as u64, 8);
    }
    assert!(world.run_until(2000, |world| world.completed == 6));
    world.must_be_equal();
    sound(&world);
}

/// Node 0 serves, and its disk takes no writes any more.
fn failing(seed: u64) -> World {
    let mut world = written(seed);
    world.nodes[0].data.failing = true;
    world
}

#[test]
fn the_service_goes_on_through_the_peer_when_the_own_disk_fails() {
    let mut world = failing(6);
    for slot in 1..6 {
        write(&mut world, 0, slot, 64 * u64::from(slot), 16);
    }
    flush(&mut world, 0, 6);
    assert!(world.run_until(2000, |world| world.completed == 7));
    read(&mut world, 0, 1, 64, 320);
    assert!(world.run_until(1000, |world| world.completed == 8));
    assert_eq!(times(&world, "requests failed"), 0);
    assert!(times(&world, "acknowledged without a disk") > 0);
    let status = world.status(0).expect("it runs");
    assert_eq!(
        (status.role, status.copy),
        (Role::Active, CopyState::Failed)
    );
    assert!(
        status
            .problems
            .iter()
            .any(|problem| problem.code == "LS3007")
    );
    // An orderly end, and the other one serves.
    world.nodes[0].device.as_mut().expect("a device").used = false;
    let ended = world.command(0, Command::Deactivate { force: false });
    assert!(matches!(wait_answer(&mut world, ended), Ok(Done::Fenced)));
    on(&mut world, 1);
    read(&mut world, 1, 0, 0, 400);
    assert!(world.run_until(1000, |world| world.completed == 9));
    sound(&world);
}

/// A flush of the mirror's own is due, and may not begin while the peer's answers are awaited: the daemon does not ask
/// for it all the time (I32).
#[test]
fn a_flush_that_is_due_while_the_disk_is_left_keeps_nobody_busy() {
    let mut world = written(13);
    world.run_for(4500);
    world.nodes[0].data.failing = true;
    world.silence([true, true]);
    write(&mut world, 0, 1, 64, 16);
    world.run_for(1000);
    assert_eq!(times(&world, "disk Diskless"), 0);
    world.silence([false, false]);
    assert!(world.run_until(5000, |world| world.completed == 2));
    assert_eq!(times(&world, "disk Diskless"), 1);
    sound(&world);
}

#[test]
fn a_service_without_a_disk_ends_with_the_connection_and_loses_nothing() {
    let mut world = failing(7);
    write(&mut world, 0, 1, 64, 16);
    assert!(world.run_until(2000, |world| world.completed == 2));
    assert_eq!(times(&world, "disk Diskless"), 1);
    world.silence([true, true]);
    write(&mut world, 0, 1, 128, 16);
    assert!(world.run_until(5000, |world| times(world, "requests failed") == 1));
    assert_eq!(times(&world, "disk DisklessLost"), 1);
    world.run_for(3000);
    on(&mut world, 1);
    read(&mut world, 1, 0, 0, 400);
    assert!(world.run_until(1000, |world| world.completed == 3));
    sound(&world);
}

#[test]
fn a_disk_that_failed_is_filled_from_one_end_to_the_other() {
    let mut world = failing(8);
    write(&mut world, 0, 1, 64, 16);
    assert!(world.run_until(2000, |world| world.completed == 2));
    world.kill(0);
    world.nodes[0].data.failing = false;
    world.run_for(3000);
    world.start(0);
    world.run_for(5000);
    // The device of the run before fails whatever is asked: its service is over.
    world.nodes[0].device.as_mut().expect("a device").used = false;
    let ended = world.command(0, Command::Deactivate { force: true });
    assert!(matches!(wait_answer(&mut world, ended), Ok(Done::Fenced)));
    world.kill(0);
    on(&mut world, 1);
    world.start(0);
    assert!(world.run_until(20_000, World::healthy));
    assert_eq!(times(&world, "copy DiskFailed"), 1);
    world.must_be_equal();
    sound(&world);
}

/// Node 0 serves. A flush is under way on a node's disk, which reports an error for a write, loses what it had not flushed,
/// and works again: the flush will end well. `None` if the flush was faster.
fn flushing(seed: u64, node: usize) -> Option<World> {
    let mut world = written(seed);
    flush(&mut world, 0, 1);
    let flushes = |world: &World| {
        let mut running = world.nodes[node].data.running.iter();
        running.any(|running| running.operation == DiskOperation::Flush)
    };
    while !flushes(&world) {
        world.step();
    }
    let data = &mut world.nodes[node].data;
    (data.failing, data.forgets) = (true, true);
    write(&mut world, 0, 2, 64, 16);
    while times(&world, "disk error") == 0 {
        if !flushes(&world) {
            return None;
        }
        world.step();
    }
    world.nodes[node].data.failing = false;
    (times(&world, "disk went back") == 1 && flushes(&world)).then_some(world)
}

#[test]
fn a_flush_that_ends_well_on_a_disk_that_failed_meanwhile_counts_as_failed() {
    for node in 0..2 {
        let mut worlds = 0;
        for mut world in (20..60).filter_map(|seed| flushing(seed, node)) {
            worlds += 1;
            while world.nodes[0].view().insync.len() == 2 {
                let device = world.nodes[0].device.as_ref().expect("a device");
                assert!(device.slots[1].is_some(), "both count, and one has lost it");
                world.step();
            }
            assert!(world.run_until(5000, |world| world.completed == 3));
            read(&mut world, 0, 1, 0, 32);
            assert!(world.run_until(1000, |world| world.completed == 4));
            assert_eq!(times(&world, "requests failed"), 0);
            sound(&world);
        }
        assert!(worlds > 3, "{worlds} worlds of node {node}");
    }
}

#[test]
fn with_both_disks_failed_nobody_serves_and_nothing_is_acknowledged() {
    let mut world = failing(9);
    world.nodes[1].data.failing = true;
    for slot in 1..4 {
        write(&mut world, 0, slot, 64 * u64::from(slot), 16);
    }
    assert!(world.run_until(10_000, |world| {
        world.completed - 1 + times(world, "requests failed") == 3
    }));
    assert!(
        world
            .status(0)
            .is_some_and(|status| status.copy == CopyState::Failed)
    );
    sound(&world);
}

/// Node 0 serves, and its disk has just failed under three writes; since then so many things have happened. Whether
/// node 0 has not yet left its disk.
fn leaving(steps: usize) -> Option<World> {
    let mut world = failing(10);
    for slot in 1..4 {
        write(&mut world, 0, slot, 64 * u64::from(slot), 16);
    }
    while times(&world, "disk error") == 0 {
        world.step();
    }
    for _ in 0..steps {
        world.step();
    }
    sound(&world);
    (times(&world, "disk Diskless") == 0).then_some(world)
}

/// A command at each step of the change, each in a world of its own.
fn at_each_step(check: impl Fn(World, usize)) {
    let mut steps = 0;
    while let Some(world) = leaving(steps) {
        check(world, steps);
        steps += 1;
    }
    assert!(steps > 10, "{steps} steps");
}

fn use_it(world: &mut World, used: bool) {
    world.nodes[0].device.as_mut().expect("a device").used = used;
}

/// The disk is left, every write is acknowledged, and what an operator then asks for is done.
fn goes_on(world: &mut World) {
    assert!(
        world.run_until(2000, |world| world.completed == 4
            && times(world, "disk Diskless") == 1),
        "{:?}",
        world.status(0)
    );
    assert_eq!(times(world, "requests failed"), 0);
    use_it(world, true);
    let ended = world.command(0, Command::Deactivate { force: false });
    assert_eq!(wait_answer(world, ended), Err(Refusal::InUse));
    write(world, 0, 1, 500, 16);
    assert!(world.run_until(1000, |world| world.completed == 5));
    use_it(world, false);
    let ended = world.command(0, Command::Deactivate { force: false });
    assert_eq!(wait_answer(world, ended), Ok(Done::Fenced));
    on(world, 1);
    read(world, 1, 0, 0, 600);
    assert!(world.run_until(1000, |world| world.completed == 6));
    sound(world);
}

#[test]
fn an_end_that_is_asked_for_while_the_disk_is_left_is_refused_and_done_afterwards() {
    for (used, force) in [(false, false), (true, false), (false, true), (true, true)] {
        at_each_step(|mut world, step| {
            use_it(&mut world, used);
            let end = world.command(0, Command::Deactivate { force });
            let again = world.command(0, Command::Deactivate { force: !force });
            for command in [end, again] {
                let answer = wait_answer(&mut world, command);
                assert_eq!(answer, Err(Refusal::Busy), "step {step}");
            }
            goes_on(&mut world);
        });
    }
}

#[test]
fn a_second_end_of_a_service_without_a_disk_takes_nothing_from_the_first() {
    for force in [false, true] {
        for steps in 0..40 {
            let mut world = failing(11);
            write(&mut world, 0, 1, 64, 16);
            assert!(world.run_until(2000, |world| times(world, "disk Diskless") == 1));
            use_it(&mut world, false);
            let first = world.command(0, Command::Deactivate { force });
            for _ in 0..steps {
                world.step();
            }
            let second = world.command(0, Command::Deactivate { force: false });
            assert_eq!(wait_answer(&mut world, first), Ok(Done::Fenced));
            let second = wait_answer(&mut world, second);
            let ended = matches!(second, Ok(Done::AlreadyFenced));
            assert!(ended || second == Err(Refusal::Busy), "{second:?}");
            on(&mut world, 1);
            sound(&world);
        }
    }
}

#[test]
fn what_else_operators_ask_for_while_the_disk_is_left_changes_nothing() {
    let verify = |repair, from: Option<&str>| Command::Verify {
        repair,
        repair_from: from.map(String::from),
        confirm: "data".to_string(),
    };
    let confirm = |node: usize| format!("{} is off", ["beta", "alpha"][node]);
    let asked = |node: usize| {
        [
            Command::Activate,
            Command::Takeover {
                confirm: confirm(node),
            },
            Command::Isolate { now_unix_s: 7 },
            Command::Attach { force: true },
            Command::Stop,
            Command::Invalidate {
                confirm: "data".to_string(),
            },
            Command::Force {
                confirm: "data".to_string(),
            },
            Command::Grow { size_bytes: None },
            Command::ResyncPause,
            verify(true, None),
            verify(true, Some("beta")),
        ]
    };
    for node in 0..2 {
        for number in 0..asked(node).len() {
            at_each_step(|mut world, step| {
                let command = asked(node)[number].clone();
                use_it(&mut world, true);
                let asked = world.command(node, command.clone());
                let answer = wait_answer(&mut world, asked);
                println!("{node} {command:?} at step {step}: {answer:?}");
                goes_on(&mut world);
            });
        }
    }
}

#[test]
fn what_the_peer_read_is_told_although_it_cannot_be_written_here() {
    for (mutant, says) in [(None, None), (Some(Mutant::SpareWithoutData), Some("S1"))] {
        let mut plan = Plan::quiet(6000);
        plan.mutant = mutant;
        let mut world = World::new(12, plan);
        assert!(world.run_until(10_000, |world| times(world, "CopyFinished") == 2));
        on(&mut world, 0);
        write(&mut world, 0, 0, 0, 32);
        assert!(world.run_until(1000, |world| world.completed == 1));
        lose(&mut world, 0);
        read(&mut world, 0, 0, 0, 32);
        let rewrites = |world: &World| {
            let mut running = world.nodes[0].data.running.iter();
            running.any(|running| running.changes())
        };
        while !rewrites(&world) {
            world.step();
        }
        world.stick(0, 60_000, false);
        world.run_until(3000, |world| world.completed == 2);
        assert_eq!(times(&world, "operations given up"), 1);
        match (says, &world.failure) {
            (None, failure) => {
                assert_eq!(failure, &None);
                assert_eq!(times(&world, "read answered from a spare buffer"), 1);
                // It lands at last, from memory that is still its own.
                world.run_for(60_000);
                assert_eq!(times(&world, "late write"), 1);
                sound(&world);
            }
            (Some(rule), failure) => {
                assert!(failure.as_ref().is_some_and(|text| text.contains(rule)));
            }
        }
    }
}
