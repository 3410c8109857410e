//! Laws of an online grow, on two simulated nodes that run the real core.

mod common;

use common::{on, read, takeover, wait_answer, write};
use lockstep_tests::sim::world::{Plan, World};
use mirror_core::admin::{Command, Done, Refusal};
use mirror_core::types::SECTOR_BYTES;

const OLD: u64 = 6000;
const DISK: u64 = 9000;
/// As much as fits, in whole extents of 256 sectors.
const NEW: u64 = DISK / 256 * 256;

/// A volume of [`OLD`] sectors that is served by the first node; the disks may become larger.
fn served(seed: u64) -> World {
    let mut world = fenced(seed);
    on(&mut world, 0);
    world
}

/// The same, and nobody serves it.
fn fenced(seed: u64) -> World {
    let plan = Plan {
        disk_sectors: DISK,
        grows: true,
        ..Plan::quiet(OLD)
    };
    let mut world = World::new(seed, plan);
    assert!(world.run_until(10_000, |world| {
        world.coverage.get("CopyFinished") == Some(&2)
    }));
    world
}

fn enlarge(world: &mut World) {
    for node in &mut world.nodes {
        node.backing_sectors = DISK;
    }
}

fn sizes(world: &World) -> [u64; 2] {
    [0, 1].map(|node: usize| world.nodes[node].meta.peek().size_sectors)
}

fn grow(world: &mut World, node: usize, size: Option<u64>) -> u64 {
    let size_bytes = size.map(|sectors| sectors * SECTOR_BYTES);
    world.command(node, Command::Grow { size_bytes })
}

fn sound(world: &World) {
    assert_eq!(world.failure, None);
}

#[test]
fn volume_grows_on_both_nodes_and_reads_zeroes_behind_its_old_end() {
    let mut world = served(1);
    enlarge(&mut world);
    let command = grow(&mut world, 0, None);
    assert_eq!(wait_answer(&mut world, command), Ok(Done::Grown));
    assert_eq!(sizes(&world), [NEW; 2]);
    let command = world.command(0, Command::Deactivate { force: true });
    assert_eq!(wait_answer(&mut world, command), Ok(Done::Fenced));
    on(&mut world, 1);
    let before = world.completed;
    read(&mut world, 1, 0, OLD, 64);
    write(&mut world, 1, 1, NEW - 8, 8);
    assert!(world.run_until(1000, |world| world.completed == before + 2));
    sound(&world);
}

#[test]
fn volume_never_shrinks_and_grows_no_further_than_both_disks() {
    let mut world = served(2);
    world.nodes[0].backing_sectors = DISK;
    for (size, expected) in [(None, "GrowNoRoom"), (Some(OLD - 1), "GrowShrinks")] {
        let command = grow(&mut world, 0, size);
        let answer = wait_answer(&mut world, command);
        assert!(format!("{answer:?}").contains(expected), "{answer:?}");
    }
    let command = grow(&mut world, 1, None);
    let answer = wait_answer(&mut world, command);
    assert!(matches!(answer, Err(Refusal::PeerActive { .. })));
    assert_eq!(sizes(&world), [OLD; 2]);
    sound(&world);
}

#[test]
fn grow_that_loses_its_connection_comes_to_nothing() {
    let mut world = served(3);
    enlarge(&mut world);
    let command = grow(&mut world, 0, None);
    world.silence([true, true]);
    assert_eq!(
        wait_answer(&mut world, command),
        Err(Refusal::GrowInterrupted)
    );
    world.silence([false, false]);
    assert!(world.run_until(10_000, World::healthy));
    assert_eq!(sizes(&world), [OLD; 2]);
    sound(&world);
}

/// Runs until the second node has the new size and the first has not.
fn torn() -> World {
    for seed in 0..200 {
        let mut world = served(seed);
        enlarge(&mut world);
        grow(&mut world, 0, None);
        if world.run_until(500, |world| sizes(world) == [OLD, NEW]) {
            return world;
        }
    }
    panic!("no seed tears a grow");
}

#[test]
fn an_interrupted_grow_is_completed_when_both_meet() {
    let mut world = torn();
    world.power_cut(0);
    world.run_for(100);
    world.power_on(0);
    assert!(world.run_until(20_000, World::sizes_agree));
    assert_eq!(sizes(&world), [NEW; 2]);
    sound(&world);
}

#[test]
fn who_took_over_in_the_middle_of_a_grow_may_write_behind_the_old_end() {
    let mut world = torn();
    world.power_cut(0);
    world.run_for(3000);
    assert_eq!(takeover(&mut world, 1), Ok(Done::Active));
    let before = world.completed;
    write(&mut world, 1, 0, OLD + 100, 64);
    assert!(world.run_until(1000, |world| world.completed == before + 1));
    world.power_on(0);
    assert!(world.run_until(60_000, World::healthy));
    assert_eq!(sizes(&world), [NEW; 2]);
    world.must_be_equal();
    sound(&world);
}

/// Who asked for the grow writes the new size down last, and its disk is slow; the other one begins a verify of all that
/// it has. Seed 1617955: it was asked about a place that it had not yet durably.
#[test]
fn a_verify_waits_for_the_new_size_to_be_durable_on_both_sides() {
    let mut world = fenced(5);
    enlarge(&mut world);
    grow(&mut world, 1, None);
    for _ in 0..10_000 {
        if world.coverage.contains_key("Grown") {
            break;
        }
        world.step();
    }
    assert_eq!(sizes(&world), [NEW, OLD]);
    world.nodes[1].meta.stuck_until = world.now + 300_000_000;
    let command = world.command(
        0,
        Command::Verify {
            repair: false,
            repair_from: None,
            confirm: String::new(),
        },
    );
    assert_eq!(wait_answer(&mut world, command), Ok(Done::VerifyBegun));
    world.run_for(200);
    assert_eq!(sizes(&world), [NEW, OLD]);
    sound(&world);
    assert!(world.run_until(10_000, |world| {
        world.coverage.get("verify done") == Some(&1)
    }));
    assert_eq!(sizes(&world), [NEW; 2]);
    sound(&world);
}
