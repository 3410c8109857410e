//! Laws of disks that fail as a whole, the metadata with the data: on two simulated nodes that run the real core.

mod common;

use common::{flush, on, pair, read, takeover, wait_answer, write};
use lockstep_tests::sim::whole::Part;
use lockstep_tests::sim::world::World;
use mirror_core::admin::{Command, CopyState, Done, Refusal, Role};

const FOR_EVER_MS: u64 = 600_000;

fn times(world: &World, what: &str) -> u64 {
    world.coverage.get(what).copied().unwrap_or(0)
}

fn sound(world: &World) {
    assert_eq!(world.failure, None);
}

/// Node 0 serves and has written.
fn written(seed: u64) -> World {
    let mut world = pair(seed);
    on(&mut world, 0);
    write(&mut world, 0, 0, 0, 64);
    assert!(world.run_until(1000, |world| world.completed == 1));
    world
}

fn tells(world: &World, node: usize, code: &str) -> bool {
    let status = world.status(node);
    status.is_some_and(|status| status.problems.iter().any(|problem| problem.code == code))
}

/// What the application asks for is done, through node 1, and none of it fails.
fn goes_on(world: &mut World, limit_ms: u64) {
    let before = world.completed;
    for slot in 1..6 {
        // Extents that the activity log does not name yet.
        write(world, 0, slot, 600 * u64::from(slot), 16);
    }
    flush(world, 0, 6);
    assert!(world.run_until(limit_ms, |world| world.completed == before + 6));
    read(world, 0, 1, 600, 32);
    assert!(world.run_until(1000, |world| world.completed == before + 7));
    assert_eq!(times(world, "requests failed"), 0);
    assert_eq!(times(world, "disk Carried"), 1);
    assert!(times(world, "acknowledged without metadata") > 0);
    let status = world.status(0).expect("it runs");
    assert_eq!(
        (status.role, status.copy, status.view.insync.as_slice()),
        (
            Role::Active,
            CopyState::Failed,
            ["beta".to_string()].as_slice()
        )
    );
    for code in ["LS3007", "LS3047"] {
        assert!(tells(world, 0, code), "{code}: {status:?}");
    }
    assert!(
        world.nodes[0].view().insync.len() == 2,
        "it says so on the dead disk"
    );
    sound(world);
}

/// An orderly end, and node 1 serves what node 0 wrote through it.
fn moves(world: &mut World) {
    world.nodes[0].device.as_mut().expect("a device").used = false;
    let ended = world.command(0, Command::Deactivate { force: false });
    assert_eq!(wait_answer(world, ended), Ok(Done::Fenced));
    on(world, 1);
    let before = world.completed;
    read(world, 1, 0, 0, 64);
    read(world, 1, 1, 600, 64);
    assert!(world.run_until(1000, |world| world.completed == before + 2));
    sound(world);
}

#[test]
fn a_whole_disk_that_fails_under_writes_is_no_error_and_the_service_moves() {
    for seed in 1..6 {
        let mut world = written(seed);
        world.fail_whole(0, Part::Whole, FOR_EVER_MS);
        goes_on(&mut world, 500);
        moves(&mut world);
    }
}

#[test]
fn a_whole_disk_that_does_not_answer_is_left_after_twice_its_limit() {
    let mut world = written(7);
    world.fail_whole(0, Part::Stuck, FOR_EVER_MS);
    // For the write of the activity log, or for the data and then for the metadata.
    goes_on(&mut world, 4000);
    moves(&mut world);
}

#[test]
fn metadata_that_fail_alone_end_no_service() {
    let mut world = written(8);
    world.fail_whole(0, Part::Metadata, FOR_EVER_MS);
    goes_on(&mut world, 500);
    // Who replaces a disk must know which one (seed 2602656).
    assert!(tells(&world, 0, "LS3003") && !tells(&world, 0, "LS3001"));
    moves(&mut world);
}

#[test]
fn metadata_that_fail_after_the_disk_was_left_end_no_service() {
    for part in [Part::Metadata, Part::Stuck] {
        let mut world = written(14);
        world.nodes[0].data.failing = true;
        write(&mut world, 0, 1, 64, 16);
        assert!(world.run_until(1000, |world| world.completed == 2));
        assert_eq!(times(&world, "disk Diskless"), 1);
        assert_eq!(
            world.nodes[0].view().insync.len(),
            1,
            "written down here too"
        );
        world.fail_whole(0, part, FOR_EVER_MS);
        for slot in 1..6 {
            write(&mut world, 0, slot, 600 * u64::from(slot), 16);
        }
        assert!(world.run_until(2500, |world| world.completed == 7));
        assert_eq!(times(&world, "requests failed"), 0);
        assert_eq!(times(&world, "disk Carried"), 1);
        sound(&world);
    }
}

/// The disk works again, with the view of before on it, and the daemon is started again in the same boot.
fn restarted(seed: u64) -> World {
    let mut world = written(seed);
    world.fail_whole(0, Part::Whole, FOR_EVER_MS);
    goes_on(&mut world, 500);
    world.silence([true, true]);
    world.kill(0);
    let place = &mut world.nodes[0];
    (place.data.failing, place.data.dead) = (false, false);
    place.meta.failing = false;
    world.start(0);
    world
}

#[test]
fn a_disk_that_lives_again_is_not_believed_by_the_next_run_of_the_daemon() {
    let mut world = restarted(9);
    assert_eq!(times(&world, "daemon started on a disowned copy"), 1);
    world.run_for(3000);
    let status = world.status(0).expect("it runs");
    assert_eq!(status.copy, CopyState::Failed);
    // Neither by the word of an operator.
    assert_eq!(takeover(&mut world, 0), Err(Refusal::DiskFailed));
    // The other one has everything; then this copy is filled from one end to the other.
    world.nodes[0].device.as_mut().expect("a device").used = false;
    let ended = world.command(0, Command::Deactivate { force: true });
    assert_eq!(wait_answer(&mut world, ended), Ok(Done::Fenced));
    let activate = world.command(0, Command::Activate);
    assert_eq!(wait_answer(&mut world, activate), Err(Refusal::DiskFailed));
    world.kill(0);
    on(&mut world, 1);
    world.silence([false, false]);
    world.start(0);
    assert!(world.run_until(20_000, World::healthy));
    assert_eq!(times(&world, "copy DiskFailed"), 1);
    world.must_be_equal();
    sound(&world);
}

#[test]
fn after_a_boot_the_view_of_before_is_served_by_nobody_who_is_not_told_a_wrong_word() {
    let mut world = written(10);
    world.fail_whole(0, Part::Whole, FOR_EVER_MS);
    goes_on(&mut world, 500);
    world.silence([true, true]);
    world.power_cut(0);
    let place = &mut world.nodes[0];
    (place.data.failing, place.data.dead) = (false, false);
    place.meta.failing = false;
    world.power_on(0);
    world.run_for(4000);
    let status = world.status(0).expect("it runs");
    assert_eq!(status.copy, CopyState::InSync, "it knows of nothing");
    let activate = world.command(0, Command::Activate);
    assert!(wait_answer(&mut world, activate).is_err());
    // An arbiter's grant for the view of before, as an agent would ask for it: the machine has booted.
    let granted = Command::Granted {
        until_nanos: u64::MAX,
        basis: world.nodes[0].view().mark().into(),
        next: mirror_core::view::ViewMark {
            epoch: mirror_core::types::Epoch(status.view.next_epoch),
            id: mirror_core::types::ViewId([7; 16]),
        }
        .into(),
    };
    let granted = world.command(0, granted);
    let answer = wait_answer(&mut world, granted);
    assert!(
        matches!(&answer, Err(refusal) if refusal.code() == "LS1081"),
        "{answer:?}"
    );
    // They meet: the view that the other one wrote down is the later one.
    on(&mut world, 1);
    world.silence([false, false]);
    assert!(world.run_until(20_000, World::healthy));
    assert_eq!(times(&world, "copy DiskFailed"), 1);
    world.must_be_equal();
    sound(&world);
}

#[test]
fn nothing_is_disowned_before_the_peer_agrees_while_the_data_are_well() {
    let mut world = written(11);
    // The flush never comes to the other node.
    write(&mut world, 0, 1, 64, 16);
    assert!(world.run_until(1000, |world| world.completed == 2));
    world.silence([true, true]);
    world.power_cut(1);
    world.fail_whole(0, Part::Metadata, FOR_EVER_MS);
    write(&mut world, 0, 1, 4000, 16);
    world.run_for(5000);
    assert_eq!(times(&world, "MetadataFailed"), 1);
    assert_eq!(times(&world, "copy disowned"), 0);
    assert_eq!(times(&world, "disk DisklessLost"), 1);
    // What was acknowledged and not flushed is on this disk alone, and this copy is taken.
    world.kill(0);
    world.nodes[0].meta.failing = false;
    world.silence([false, false]);
    world.start(0);
    world.power_on(1);
    // The write that failed is waited for by nobody: the device ends, and what may differ is copied.
    assert!(world.run_until(20_000, |world| times(world, "CopyFinished") == 4));
    assert_eq!(times(&world, "copy ActiveCrashed"), 1);
    world.run_for(300);
    on(&mut world, 0);
    assert!(world.run_until(20_000, World::healthy));
    read(&mut world, 0, 0, 64, 16);
    assert!(world.run_until(1000, |world| world.completed == 3));
    world.must_be_equal();
    sound(&world);
}

#[test]
fn a_disk_that_fails_after_its_metadata_ended_the_service_is_not_believed_by_the_next_run() {
    let mut world = written(13);
    world.silence([true, true]);
    world.power_cut(1);
    world.run_for(1000);
    // Its last write is under way when the connection ends, and until the limit.
    world.stick(0, 8000, false);
    write(&mut world, 0, 1, 64, 16);
    world.fail_whole(0, Part::Metadata, FOR_EVER_MS);
    write(&mut world, 0, 2, 4000, 16);
    assert!(world.run_until(5000, |world| times(world, "disk DisklessLost") == 1));
    assert_eq!(times(&world, "copy disowned"), 0);
    assert_eq!(times(&world, "operations given up"), 0);
    assert!(world.run_until(5000, |world| times(world, "operations given up") > 0));
    world.run_for(300);
    assert_eq!(times(&world, "copy disowned"), 1);
    world.kill(0);
    world.nodes[0].meta.failing = false;
    world.start(0);
    assert!(world.run_until(20_000, |world| world.status(0).is_some()));
    let copy = world.status(0).map(|status| status.copy);
    assert_eq!(copy, Some(CopyState::Failed));
    sound(&world);
}

#[test]
fn a_service_that_is_carried_ends_with_the_connection_and_loses_nothing() {
    let mut world = written(12);
    world.fail_whole(0, Part::Whole, FOR_EVER_MS);
    goes_on(&mut world, 500);
    let before = world.completed;
    world.silence([true, true]);
    write(&mut world, 0, 1, 128, 16);
    assert!(world.run_until(5000, |world| times(world, "requests failed") == 1));
    assert_eq!(times(&world, "disk DisklessLost"), 1);
    world.run_for(3000);
    on(&mut world, 1);
    read(&mut world, 1, 0, 0, 64);
    read(&mut world, 1, 1, 600, 64);
    assert!(world.run_until(1000, |world| world.completed == before + 2));
    sound(&world);
}

#[test]
fn a_standby_whose_whole_disk_fails_freezes_until_the_operator_speaks() {
    let mut world = written(13);
    world.fail_whole(1, Part::Whole, FOR_EVER_MS);
    write(&mut world, 0, 1, 600, 16);
    world.run_for(3000);
    assert_eq!(world.completed, 1, "it waits");
    assert_eq!(takeover(&mut world, 0), Ok(Done::Alone));
    assert!(world.run_until(1000, |world| world.completed == 2));
    assert_eq!(times(&world, "requests failed"), 0);
    // In the next run of its daemon the standby knows of it.
    let place = &mut world.nodes[1];
    (place.data.failing, place.data.dead) = (false, false);
    place.meta.failing = false;
    world.kill(1);
    world.start(1);
    assert!(world.run_until(20_000, World::healthy));
    assert_eq!(times(&world, "copy DiskFailed"), 1);
    world.must_be_equal();
    sound(&world);
}
