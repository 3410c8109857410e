//! Laws of disks that fail on both nodes, on two simulated nodes that run the real core: what an operator then does by
//! docs/operations.md brings back everything that was acknowledged and flushed.

use lockstep_tests::sim::faults::Schedule;
use lockstep_tests::sim::world::{Plan, World};
use mirror_core::admin::CopyState;

fn times(world: &World, what: &str) -> u64 {
    world.coverage.get(what).copied().unwrap_or(0)
}

/// An application works on one of the nodes.
fn used(seed: u64) -> (World, usize) {
    let plan = Plan {
        application: true,
        haste: 5,
        ..Plan::quiet(6000)
    };
    let mut world = World::new(seed, plan);
    world.begin_chaos(&Schedule::default());
    works(&mut world);
    let active = world.active().expect("somebody serves");
    (world, active)
}

/// It has written and flushed.
fn works(world: &mut World) {
    let (writes, flushes) = (times(world, "writes"), times(world, "flushes"));
    assert!(
        world.run_until(20_000, |world| {
            times(world, "writes") > writes + 100 && times(world, "flushes") > flushes + 1
        }),
        "{:?}",
        world.failure
    );
}

fn fails(world: &mut World, node: usize, forgets: bool) {
    world.nodes[node].data.failing = true;
    world.nodes[node].data.forgets = forgets;
}

fn has_failed(world: &World, node: usize) -> bool {
    world.nodes[node].failed_at.is_some()
}

/// Both disks have failed; they work again, and the daemons were started anew.
fn bereft(world: &mut World) {
    for node in 0..2 {
        assert!(
            world.run_until(10_000, |world| has_failed(world, node)),
            "{:?}",
            world.failure
        );
    }
    world.end_chaos();
    assert!(
        world.run_until(30_000, World::is_bereft),
        "{:?} {:?}",
        world.failure,
        [world.status(0), world.status(1)]
    );
    assert!(world.active().is_none(), "nobody serves");
    assert_eq!(times(world, "forced after both disks failed"), 0);
}

fn is_mended(world: &World) {
    assert_eq!(world.failure, None);
    assert_eq!(times(world, "forced after both disks failed"), 1);
    assert_eq!(times(world, "split brain resolved"), 1);
    for node in 0..2 {
        let copy = world.status(node).map(|status| status.copy);
        assert_eq!(copy, Some(CopyState::InSync));
    }
}

#[test]
fn an_active_disk_that_sticks_while_the_standby_drops_out_is_forced_and_has_everything() {
    for forgets in [false, true] {
        let (mut world, active) = used(1);
        world.stick(active, 1650, false);
        // Some operations; the others end, and meet the standby's disk.
        world.nodes[active].data.stuck_share = 10;
        assert!(world.run_until(1000, |world| times(world, "operations held back") > 0));
        fails(&mut world, 1 - active, forgets);
        bereft(&mut world);
        let at = |node: usize| world.nodes[node].failed_at;
        assert!(at(active) > at(1 - active), "the active node failed last");
        world.force_what_failed_last();
        is_mended(&world);
    }
}

#[test]
fn a_standby_whose_disk_fails_while_the_active_disk_is_left_is_forced_and_has_everything() {
    for forgets in [false, true] {
        let (mut world, active) = used(2);
        fails(&mut world, active, forgets);
        while !has_failed(&world, active) {
            world.step();
        }
        fails(&mut world, 1 - active, false);
        bereft(&mut world);
        world.force_what_failed_last();
        is_mended(&world);
    }
}

/// The active disk failed, the service went on through the other one, and then that failed as well.
fn failed_one_after_the_other(seed: u64) -> (World, usize) {
    let (mut world, active) = used(seed);
    fails(&mut world, active, true);
    assert!(world.run_until(5000, |world| times(world, "disk Diskless") == 1));
    works(&mut world);
    fails(&mut world, 1 - active, false);
    bereft(&mut world);
    (world, active)
}

#[test]
fn what_was_served_through_the_other_disk_is_on_the_one_that_failed_last() {
    let (mut world, _) = failed_one_after_the_other(3);
    world.force_what_failed_last();
    is_mended(&world);
}

#[test]
fn forcing_the_disk_that_failed_first_loses_what_was_flushed_and_is_seen() {
    let (mut world, active) = failed_one_after_the_other(3);
    // The operator takes the one log for the other.
    world.force_as_last(active);
    let failure = world.failure.expect("flushed writes are lost");
    assert!(failure.contains("S1"), "{failure}");
}
