//! Laws of what a resync or a verify cannot read: tried again after 30 s, never taken for copied or compared.

mod common;

use common::{on, pair, takeover, wait_answer, write};
use lockstep_tests::sim::world::World;
use mirror_core::admin::{Command, CopyState, Done, VerifyFinding, VerifyState};

fn sound(world: &World) {
    assert_eq!(world.failure, None);
}

fn left_bytes(world: &World) -> u64 {
    let progress = world.status(0).and_then(|status| status.progress);
    progress.map_or(0, |progress| progress.total_bytes - progress.copied_bytes)
}

/// The standby lacks sectors 0 to 255, and sector 9 of them cannot be read.
fn behind(seed: u64) -> World {
    let mut world = pair(seed);
    on(&mut world, 0);
    world.kill(1);
    world.run_for(5000);
    assert_eq!(takeover(&mut world, 0), Ok(Done::Alone));
    for slot in 0..4 {
        write(&mut world, 0, slot, u64::from(slot) * 64, 64);
    }
    assert!(world.run_until(1000, |world| world.completed == 4));
    world.nodes[0].data.unreadable.insert(9);
    world.start(1);
    world
}

#[test]
fn what_a_resync_cannot_read_keeps_nothing_else_waiting_and_is_tried_again() {
    let mut world = behind(1);
    assert!(world.run_until(33_000, |world| left_bytes(world) > 0));
    world.run_for(60_000);
    assert_eq!(left_bytes(&world), 4096, "one block");
    for node in 0..2 {
        let status = world.status(node).expect("it runs");
        assert_eq!(
            status.view.insync,
            ["alpha"],
            "nothing is taken for copied (S9)"
        );
        assert_ne!(status.copy, CopyState::Failed);
    }
    world.nodes[0].data.unreadable.clear();
    assert!(world.run_until(31_000, World::healthy), "tried again");
    world.must_be_equal();
    sound(&world);
}

#[test]
fn a_block_that_is_written_again_need_not_be_read() {
    let mut world = behind(2);
    world.run_for(40_000);
    assert_eq!(left_bytes(&world), 4096, "one block");
    write(&mut world, 0, 0, 8, 8);
    assert!(world.run_until(1000, World::healthy), "at once");
    world.must_be_equal();
    sound(&world);
}

#[test]
fn a_paused_resync_that_has_something_to_try_again_sleeps() {
    let mut world = behind(3);
    assert!(world.run_until(33_000, |world| left_bytes(world) > 0));
    world.run_for(1000);
    let pause = world.command(0, Command::ResyncPause);
    assert_eq!(wait_answer(&mut world, pause), Ok(Done::ResyncPaused));
    world.run_for(60_000);
    sound(&world);
    world.nodes[0].data.unreadable.clear();
    let resume = world.command(0, Command::ResyncResume);
    assert_eq!(wait_answer(&mut world, resume), Ok(Done::ResyncGoesOn));
    assert!(world.run_until(1000, World::healthy));
    sound(&world);
}

#[test]
fn a_verify_lists_the_block_that_it_cannot_read_and_compares_the_rest() {
    for (node, finding) in [
        (0, VerifyFinding::UnreadableHere),
        (1, VerifyFinding::UnreadableThere),
    ] {
        let mut world = pair(4);
        on(&mut world, 0);
        world.nodes[node].data.unreadable.insert(9);
        let verify = Command::Verify {
            repair: true,
            repair_from: None,
            confirm: String::new(),
        };
        let began = world.command(0, verify);
        assert_eq!(wait_answer(&mut world, began), Ok(Done::VerifyBegun));
        let found = |world: &World| world.status(0).and_then(|status| status.verify);
        let over = |world: &World| found(world).is_some_and(|found| found.ended_ms.is_some());
        assert!(world.run_until(60_000, over));
        let found = found(&world).expect("it ran");
        assert_eq!(found.state, VerifyState::Done);
        assert_eq!((found.unreadable_bytes, found.differing_bytes), (4096, 0));
        assert_eq!(found.ranges[0].finding, finding);
        assert_eq!(found.ranges[0].start_bytes, 4096);
        let unreadable = &world.nodes[node].data.unreadable;
        assert_eq!(unreadable.len(), 1, "nothing is written from it or to it");
        sound(&world);
    }
}
