//! Laws of bitmaps whose bits stand for other sizes than 4 KiB, also for another one on each node: marks are rounded outward,
//! and a block that is as large as a run of a resync is copied whole.

mod common;

use common::{flush, on, read, takeover, wait_answer, write};
use lockstep_tests::sim::world::{Plan, World};
use lockstep_tests::sim::{Run, keep_panics_quiet};
use mirror_core::admin::{Command, Done};
use mirror_core::limits::{BITMAP_BLOCK_BYTES_MAX, BITMAP_BLOCK_BYTES_MIN};

const SMALLEST: u32 = BITMAP_BLOCK_BYTES_MIN;
const LARGEST: u32 = BITMAP_BLOCK_BYTES_MAX;
const PAIRS: [[u32; 2]; 6] = [
    [SMALLEST, LARGEST],
    [LARGEST, SMALLEST],
    [4096, 64 * 1024],
    [128 * 1024, 4096],
    [LARGEST, LARGEST],
    [4096, SMALLEST],
];

/// Two nodes whose first copy is finished.
fn pair(seed: u64, [one, other]: [u32; 2]) -> World {
    let mut world = World::new(
        seed,
        Plan {
            chunk_sectors: 1024,
            bitmap_block_bytes: one,
            other_block_bytes: Some(other),
            ..Plan::quiet(20_000)
        },
    );
    assert!(
        world.run_until(60_000, |world| {
            world.coverage.get("CopyFinished") == Some(&2)
        }),
        "{:?}",
        world.failure
    );
    world
}

/// One node is away while the other one is written to; then both are equal again.
fn misses_and_is_filled(seed: u64, blocks: [u32; 2], active: usize) {
    let mut world = pair(seed, blocks);
    on(&mut world, active);
    write(&mut world, active, 0, 4000, 64);
    assert!(world.run_until(1000, |world| world.completed == 1));
    world.power_cut(1 - active);
    assert!(world.run_until(20_000, |world| {
        world
            .status(active)
            .is_some_and(|status| status.frozen.is_some())
    }));
    assert_eq!(takeover(&mut world, active), Ok(Done::Alone));
    for (slot, start) in (1u16..).zip([3, 1023, 4090, 9000, 19_990]) {
        write(&mut world, active, slot, start, 9);
    }
    flush(&mut world, active, 6);
    assert!(
        world.run_until(5000, |world| world.completed == 7),
        "{:?}",
        world.failure
    );
    world.power_on(1 - active);
    assert!(
        world.run_until(60_000, World::healthy),
        "{blocks:?}: {:?} {:?}",
        world.failure,
        world.status(0)
    );
    world.run_for(1000);
    world.nodes[active].device.as_mut().expect("a device").used = false;
    let ended = world.command(active, Command::Deactivate { force: false });
    assert_eq!(wait_answer(&mut world, ended), Ok(Done::Fenced));
    on(&mut world, 1 - active);
    for (slot, start) in (1u16..).zip([3, 1023, 4000, 9000, 19_990]) {
        read(&mut world, 1 - active, slot, start, 9);
    }
    assert!(world.run_until(5000, |world| world.completed == 12));
    assert_eq!(world.failure, None, "{blocks:?}");
}

#[test]
fn a_copy_that_was_away_is_filled_whatever_a_bit_stands_for_on_each_side() {
    for (seed, blocks) in (1u64..).zip(PAIRS) {
        for active in [0, 1] {
            misses_and_is_filled(seed, blocks, active);
        }
    }
}

#[test]
fn trouble_breaks_no_rule_where_the_bitmaps_are_not_alike() {
    keep_panics_quiet();
    let mut failures = Vec::new();
    for seed in 0..48 {
        let blocks = PAIRS[usize::try_from(seed).unwrap() % PAIRS.len()];
        let report = Run::with_blocks(seed, blocks).go();
        // A quiet hook tells of no panic of the test either.
        if let Some((failure, _)) = report.failure {
            failures.push(format!("seed {seed}, {blocks:?}: {failure}"));
        }
    }
    let _ = std::panic::take_hook();
    assert!(failures.is_empty(), "{failures:#?}");
}
