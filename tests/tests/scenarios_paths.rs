//! Laws of the two paths of the mirror link, on two simulated nodes that run the real core.

mod common;

use common::{on, takeover, write};
use lockstep_tests::sim::world::{Plan, World};
use mirror_core::admin::{Frozen, Role};
use mirror_core::paths::Standing;

/// The simulated link timeout, and what may be added to it, milliseconds.
const LINK_TIMEOUT_MS: u64 = 2000;
const BOUND_MS: u64 = 500;

/// Two healthy nodes with two paths; node 0 serves.
fn serving(seed: u64) -> World {
    let plan = Plan {
        paths: 2,
        ..Plan::quiet(6000)
    };
    let mut world = World::new(seed, plan);
    assert!(world.run_until(10_000, |world| {
        world.coverage.get("CopyFinished") == Some(&2)
    }));
    on(&mut world, 0);
    assert!(world.run_until(3000, |world| {
        world.path_standing(0) == [Standing::InUse, Standing::Ready]
    }));
    world
}

#[test]
fn a_cut_path_freezes_writes_for_the_link_timeout_at_most_and_changes_no_view() {
    for seed in 0..20 {
        for silent in [[true, true], [true, false], [false, true]] {
            let mut world = serving(seed);
            let view = world.nodes[0].view();
            world.cut_path(0, silent);
            write(&mut world, 0, 0, 64, 8);
            let done = world.run_until(LINK_TIMEOUT_MS + BOUND_MS, |world| world.completed == 1);
            assert!(done, "seed {seed} {silent:?}: {:?}", world.failure);
            assert!(world.run_until(1000, World::healthy));
            assert_eq!(world.nodes[0].view(), view);
            assert_eq!(world.coverage.get("copy Outdated"), None);
            assert_eq!(world.failure, None);
        }
    }
}

#[test]
fn the_session_stays_where_it_is_when_the_first_path_is_back() {
    let mut world = serving(3);
    world.cut_path(0, [true, true]);
    assert!(world.run_until(10_000, |world| {
        world.path_standing(0) == [Standing::Down, Standing::InUse]
    }));
    world.cut_path(0, [false, false]);
    assert!(world.run_until(3000, |world| {
        world.path_standing(0) == [Standing::Ready, Standing::InUse]
    }));
    let lost = world.coverage.get("LinkLost").copied();
    world.run_for(20_000);
    assert_eq!(world.coverage.get("LinkLost").copied(), lost);
    assert_eq!(
        world.path_standing(0),
        [Standing::Ready, Standing::InUse],
        "{:?}",
        world.failure
    );
}

#[test]
fn a_lost_spare_disturbs_nobody_and_is_told_on_both_sides() {
    let mut world = serving(4);
    world.run_for(5000);
    world.cut_path(1, [true, true]);
    world.run_for(8000);
    assert_eq!(world.coverage.get("path told lost"), Some(&2));
    world.cut_path(1, [false, false]);
    world.run_for(8000);
    assert_eq!(world.coverage.get("path told back"), Some(&2));
    assert_eq!(world.coverage.get("LinkLost"), None);
}

#[test]
fn with_both_paths_cut_writes_wait_and_either_path_is_enough_to_go_on() {
    for path in 0..2 {
        let mut world = serving(5);
        world.cut_path(0, [true, true]);
        world.cut_path(1, [true, true]);
        write(&mut world, 0, 0, 64, 8);
        world.run_for(10_000);
        let status = world.status(0).expect("it runs");
        assert_eq!(status.frozen, Some(Frozen::PeerLost));
        assert_eq!(world.completed, 0);
        world.cut_path(path, [false, false]);
        // A try over a dead path ends after a second, the pause lasts another one.
        assert!(world.run_until(2500, |world| world.completed == 1));
        assert_eq!(world.failure, None);
    }
}

#[test]
fn a_takeover_is_refused_while_the_second_path_works() {
    let mut world = serving(6);
    world.cut_path(0, [true, true]);
    world.run_for(LINK_TIMEOUT_MS + BOUND_MS);
    let answer = takeover(&mut world, 1);
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(world.role(0), Some(Role::Active));
}
