//! Laws of the write path and the link, on two simulated nodes that run the real core.

mod common;

use common::{flush, on, pair, read, wait_answer, write};
use lockstep_tests::sim::world::World;
use mirror_core::admin::{Command, Done, Frozen, Refusal, Role};

#[test]
fn write_is_not_acked_before_both_disks_have_it() {
    let mut world = pair(1);
    on(&mut world, 0);
    for slot in 0..8 {
        write(&mut world, 0, slot, 100 * u64::from(slot), 16);
    }
    assert!(world.run_until(1000, |world| world.completed == 8));
    world.silence([true, true]);
    write(&mut world, 0, 0, 5000, 8);
    world.run_for(1900);
    assert_eq!(
        world.completed, 8,
        "the peer has not got it: no acknowledgement"
    );
    sound(&world);
}

#[test]
fn flush_waits_for_both() {
    let mut world = pair(2);
    on(&mut world, 0);
    write(&mut world, 0, 0, 64, 8);
    assert!(world.run_until(1000, |world| world.completed == 1));
    world.silence([false, true]);
    flush(&mut world, 0, 1);
    world.run_for(1500);
    assert_eq!(world.completed, 1, "the peer's answer is not here");
    world.silence([false, false]);
    assert!(world.run_until(10_000, |world| world.completed == 2));
    sound(&world);
}

/// What this node says is lost, what the peer says comes: the time of services may not rest on that (S5).
#[test]
fn a_peer_that_is_heard_and_hears_nothing_answers_nothing() {
    let mut world = pair(21);
    on(&mut world, 0);
    world.run_for(1000);
    let link = |world: &World| world.status(0).expect("it runs").link;
    let answered = |world: &World| link(world).answered_ms.expect("a keepalive was answered");
    assert!(answered(&world) < 600);
    world.silence([true, false]);
    world.run_for(1200);
    let heard = link(&world).last_heard_ms.expect("it is heard");
    assert!(heard < 600, "heard {heard} ms ago");
    assert!(answered(&world) >= 1200, "{}", answered(&world));
    sound(&world);
}

#[test]
fn frozen_writes_go_on_when_the_link_is_back() {
    let mut world = pair(3);
    on(&mut world, 0);
    world.silence([true, true]);
    write(&mut world, 0, 0, 64, 8);
    world.run_for(5000);
    let status = world.status(0).expect("it runs");
    assert_eq!(status.frozen, Some(Frozen::PeerLost));
    assert_eq!(world.completed, 0);
    world.silence([false, false]);
    assert!(world.run_until(10_000, |world| world.completed == 1));
    assert!(world.run_until(10_000, World::healthy));
    assert_eq!(
        world.coverage.get("copy MemberRebooted"),
        None,
        "no copy was needed"
    );
    sound(&world);
}

#[test]
fn an_idle_deactivation_survives_a_blink_of_the_link() {
    let mut world = pair(4);
    on(&mut world, 0);
    world.silence([true, true]);
    write(&mut world, 0, 0, 64, 8);
    world.run_for(1500);
    let command = world.command(0, Command::Deactivate { force: false });
    world.run_for(3000);
    assert_eq!(
        world.role(0),
        Some(Role::Deactivating),
        "a frozen write keeps the device"
    );
    world.silence([false, false]);
    assert!(matches!(wait_answer(&mut world, command), Ok(Done::Fenced)));
    sound(&world);
}

#[test]
fn deactivation_of_a_frozen_volume_needs_force() {
    let mut world = pair(5);
    on(&mut world, 0);
    world.silence([true, true]);
    write(&mut world, 0, 0, 64, 8);
    world.run_for(5000);
    let command = world.command(0, Command::Deactivate { force: false });
    let refused = wait_answer(&mut world, command);
    assert!(
        matches!(refused, Err(Refusal::FrozenWrites { .. })),
        "{refused:?}"
    );
    let command = world.command(0, Command::Deactivate { force: true });
    assert!(matches!(wait_answer(&mut world, command), Ok(Done::Fenced)));
    world.silence([false, false]);
    world.run_for(10_000);
    assert_eq!(
        world.coverage.get("copy ActiveCrashed"),
        Some(&1),
        "writes were thrown away: the copies are made equal before anybody reads (S10)"
    );
    sound(&world);
}

#[test]
fn copy_resumes_after_link_loss() {
    let mut world = common::large(6);
    world.run_for(60);
    assert_eq!(world.coverage.get("CopyFinished"), None, "still copying");
    world.silence([true, true]);
    world.run_for(5000);
    world.silence([false, false]);
    assert!(world.run_until(20_000, |world| {
        world.coverage.contains_key("CopyFinished")
    }));
    assert_eq!(world.coverage.get("copy Resumed"), Some(&1));
    sound(&world);
}

#[test]
fn reads_stop_with_the_lease() {
    let mut world = pair(7);
    on(&mut world, 0);
    write(&mut world, 0, 0, 64, 8);
    assert!(world.run_until(1000, |world| world.completed == 1));
    world.silence([true, true]);
    world.run_for(1600);
    read(&mut world, 0, 1, 64, 8);
    world.run_for(5000);
    assert_eq!(world.completed, 1, "the lease is over");
    world.silence([false, false]);
    assert!(world.run_until(10_000, |world| world.completed == 2));
    sound(&world);
}

fn sound(world: &World) {
    assert_eq!(world.failure, None);
}
