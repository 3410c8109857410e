//! Laws of disks that do not answer: the limit here is 1.5 s and a second look an eighth of that later.

mod common;

use common::{on, pair, read, wait_answer, write};
use lockstep_tests::sim::world::World;
use mirror_core::admin::{Command, CopyState, Done, Frozen, LinkState, Role, Status};

/// No operation of these disks ends before.
const LONG_MS: u64 = 60_000;

#[test]
fn a_standby_whose_disk_is_stuck_drops_out_after_its_limit_and_writes_go_on() {
    let mut world = pair(1);
    on(&mut world, 0);
    world.stick(1, LONG_MS, false);
    write(&mut world, 0, 0, 64, 8);
    write(&mut world, 0, 1, 640, 8);
    world.run_for(1450);
    assert_eq!(world.completed, 0, "not before the limit");
    assert!(
        world.run_until(450, |world| world.completed == 2),
        "the limit, a second look, a superblock and a view"
    );
    let status = world.status(0).expect("it runs");
    assert_eq!(status.view.insync, ["alpha"]);
    assert_eq!(status.peer_copy, CopyState::Failed);
    let told = |status: &Status| status.problems.iter().any(|told| told.code == "LS3002");
    assert!(told(&status), "the other node's disk failed: {status:?}");
    assert_eq!(
        world.status(1).map(|status| status.copy),
        Some(CopyState::Failed)
    );
    assert_eq!(count(&world, "operations given up"), 2);
    // What was given up lands late, and is filled over.
    world.run_for(LONG_MS);
    assert_eq!(count(&world, "late write"), 2);
    world.kill(1);
    world.start(1);
    assert!(world.run_until(20_000, World::healthy));
    assert!(!world.status(0).is_some_and(|status| told(&status)));
    world.must_be_equal();
    sound(&world);
}

#[test]
fn an_active_node_whose_disk_is_stuck_goes_on_through_the_peer_and_its_device_can_end() {
    let mut world = pair(2);
    on(&mut world, 0);
    write(&mut world, 0, 0, 64, 8);
    assert!(world.run_until(1000, |world| world.completed == 1));
    world.stick(0, LONG_MS, false);
    write(&mut world, 0, 0, 64, 8);
    read(&mut world, 0, 1, 640, 8);
    assert!(
        world.run_until(1900, |world| world.completed == 3),
        "through the peer, within the limit and a bound"
    );
    assert_eq!(count(&world, "requests failed"), 0);
    let status = world.status(0).expect("it runs");
    assert_eq!(status.view.insync, ["beta"]);
    let end = world.command(0, Command::Deactivate { force: true });
    assert_eq!(wait_answer(&mut world, end), Ok(Done::Fenced));
    assert_eq!(world.role(0), Some(Role::Fenced), "the disk is still stuck");
    assert_eq!(count(&world, "late read"), 0);
    sound(&world);
}

#[test]
fn a_withdrawal_whose_metadata_hang_ends_with_a_closed_link() {
    let mut world = pair(3);
    on(&mut world, 0);
    world.stick(1, LONG_MS, true);
    write(&mut world, 0, 0, 64, 8);
    // The limit of the write, then that of the superblock.
    let refused = |world: &World| {
        let status = world.status(0);
        status.is_some_and(|status| status.link.state == LinkState::Refused)
    };
    assert!(world.run_until(4000, refused));
    assert_eq!(world.completed, 0);
    let status = world.status(0).expect("it runs");
    assert_eq!(
        status.frozen,
        Some(Frozen::PeerLost),
        "the operator has to speak"
    );
    assert_eq!(count(&world, "metadata given up"), 1);
    let alone = common::takeover(&mut world, 0);
    assert_eq!(alone, Ok(Done::Alone));
    assert!(world.run_until(1000, |world| world.completed == 1));
    sound(&world);
}

#[test]
fn a_disk_that_answers_within_the_limit_keeps_its_copy() {
    let mut world = pair(4);
    on(&mut world, 0);
    world.stick(1, 1200, true);
    write(&mut world, 0, 0, 64, 8);
    assert!(world.run_until(2000, |world| world.completed == 1));
    assert!(world.run_until(2000, World::healthy));
    assert_eq!(count(&world, "operations given up"), 0);
    sound(&world);
}

#[test]
fn a_machine_that_stands_still_longer_than_the_limit_gives_nothing_up() {
    let mut world = pair(5);
    on(&mut world, 0);
    for slot in 0..4 {
        write(&mut world, 0, slot, 100 * u64::from(slot), 8);
    }
    world.pause(0, 8000, true);
    assert!(world.run_until(20_000, |world| world.completed == 4));
    assert_eq!(count(&world, "operations given up"), 0);
    sound(&world);
}

fn count(world: &World, what: &str) -> u64 {
    world.coverage.get(what).copied().unwrap_or(0)
}

fn sound(world: &World) {
    assert_eq!(world.failure, None);
}
