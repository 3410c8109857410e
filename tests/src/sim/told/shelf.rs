//! Disks of some time ago, at the moments at which only the views tell.

use mirror_core::admin::{Command, Done};
use mirror_core::limits::VIEW_HISTORY_MAX;

use super::{
    Outcome, Told, answered, come_together, has_left, off, pair, pair_of, serve, step_until, times,
    until, well, write,
};
use crate::sim::disk::Value;
use crate::sim::metadata::MetaDisk;
use crate::sim::node::id;
use crate::sim::world::World;

/// The disk of a copy that had left, in the place of the one that was filled and counts since: the marks of the other
/// side were taken away for that one.
pub(super) const LEAVER_RETURNS: Told = Told {
    law: "a_disk_that_left_before_its_copy_was_filled_gets_everything",
    catches: &[],
    tell: |seed, _| leaver_returns(seed),
};

/// The same while no view came after that of the two: it follows the leaver's own view at once, as if the target of a
/// resync had missed its last step.
pub(super) const LEAVER_AT_ONCE: Told = Told {
    law: "a_disk_that_left_in_the_view_before_that_of_both_gets_everything",
    catches: &["leaver-is-target"],
    tell: |seed, _| leaver_at_once(seed),
};

fn leaver_at_once(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    answered(&mut world, 1, Command::Stop, Done::Stopped)?;
    if !world.run_until(5000, has_left) {
        return well(&world).map(|()| false);
    }
    let disks = disks(&world, 1);
    let left = world.nodes[1].view().mark();
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    world.start(1);
    until(&mut world, 60_000, "the standby is filled", both_count)?;
    // The log names other extents by and by, and no view comes.
    for number in 0..24 {
        write(&mut world, 0, 0, 3000 + 100 * number, 8);
        world.run_for(200);
    }
    let direct = world.nodes[0].view().epoch.0 == left.epoch.0 + 1;
    let unnamed = !world.nodes[0].meta.names(2000);
    put_back(&mut world, 1, disks);
    come_together(&mut world)?;
    Ok(direct && unnamed)
}

fn leaver_returns(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    answered(&mut world, 1, Command::Stop, Done::Stopped)?;
    if !world.run_until(5000, has_left) {
        // Its consent was lost with the connection.
        return well(&world).map(|()| false);
    }
    let disks = disks(&world, 1);
    let left = world.nodes[1].view().is_sole(id(0));
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    world.start(1);
    until(&mut world, 60_000, "the standby is filled", both_count)?;
    // Nothing is named any more: neither by marks nor by the log, which is empty once nobody serves.
    answered(
        &mut world,
        0,
        Command::Deactivate { force: true },
        Done::Fenced,
    )?;
    world.run_for(2000);
    put_back(&mut world, 1, disks);
    let before = times(&world, "copy WideningInterrupted");
    come_together(&mut world)?;
    Ok(left && times(&world, "copy WideningInterrupted") > before)
}

/// The image that an isolated copy was made for, put back after that copy was attached and filled: it stays isolated
/// for a while, and gets everything once it is attached.
pub(super) const IMAGE_RETURNS: Told = Told {
    law: "an_image_of_an_isolated_copy_that_was_filled_since_gets_everything",
    catches: &["apart-is-known", "joined-is-member"],
    tell: |seed, _| image_returns(seed),
};

fn image_returns(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    let isolate = Command::Isolate { now_unix_s: 7 };
    let attach = Command::Attach { force: true };
    answered(&mut world, 1, isolate, Done::Isolated)?;
    world.run_for(500);
    let disks = disks(&world, 1);
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    answered(&mut world, 1, attach.clone(), Done::Attached)?;
    until(&mut world, 60_000, "the standby is filled", both_count)?;
    world.run_for(500);
    answered(
        &mut world,
        0,
        Command::Deactivate { force: true },
        Done::Fenced,
    )?;
    world.run_for(2000);
    put_back(&mut world, 1, disks);
    world.run_for(5000);
    answered(&mut world, 1, attach, Done::Attached)?;
    come_together(&mut world)?;
    Ok(true)
}

/// The same while the other side counts alone: the image writes its view down, the answer is lost, and they meet again.
pub(super) const IMAGE_AGREES: Told = Told {
    law: "an_image_that_wrote_the_present_view_down_gets_everything",
    catches: &["joined-is-member"],
    tell: |seed, _| image_agrees(seed),
};

fn image_agrees(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    let isolate = Command::Isolate { now_unix_s: 7 };
    let attach = Command::Attach { force: true };
    answered(&mut world, 1, isolate, Done::Isolated)?;
    world.run_for(500);
    let disks = disks(&world, 1);
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    answered(&mut world, 1, attach.clone(), Done::Attached)?;
    until(&mut world, 60_000, "the standby is filled", both_count)?;
    world.run_for(500);
    world.nodes[1].held_off = true;
    world.power_cut(1);
    world.run_for(5000);
    answered(&mut world, 0, off(0), Done::Alone)?;
    world.run_for(500);
    let alone = world.nodes[0].view();
    put_back(&mut world, 1, disks);
    step_until(&mut world, "the image writes the view down", |world| {
        world.nodes[1].view().mark() == alone.mark()
    })?;
    world.silence([true, true]);
    world.kill(1);
    world.run_for(3000);
    world.silence([false, false]);
    world.start(1);
    world.run_for(5000);
    answered(&mut world, 1, attach, Done::Attached)?;
    come_together(&mut world)?;
    Ok(true)
}

/// The disk of a target as it was in the middle of its resync, put back after that had ended and more views had come.
pub(super) const OLD_TARGET: Told = Told {
    law: "an_old_disk_of_a_target_gets_everything_once_its_resync_has_ended",
    catches: &["old-target-resumes"],
    tell: |seed, _| old_target(seed),
};

fn old_target(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    world.nodes[1].held_off = true;
    world.power_cut(1);
    world.run_for(5000);
    answered(&mut world, 0, off(0), Done::Alone)?;
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    world.nodes[1].held_off = false;
    world.power_on(1);
    step_until(&mut world, "the resync begins", |world| {
        world.nodes[1].meta.peek().copy.is_some() && world.nodes[1].meta.is_idle()
    })?;
    world.power_cut(1);
    let disks = disks(&world, 1);
    world.power_on(1);
    until(&mut world, 60_000, "the standby is filled", both_count)?;
    world.run_for(500);
    answered(
        &mut world,
        0,
        Command::Deactivate { force: true },
        Done::Fenced,
    )?;
    world.run_for(2000);
    put_back(&mut world, 1, disks);
    come_together(&mut world)?;
    Ok(true)
}

/// Who agreed to leave, and whose consent was lost, lacks what is marked and no more.
pub(super) const LEFT_IN_VAIN: Told = Told {
    law: "a_copy_that_agreed_to_leave_in_vain_gets_what_is_marked",
    catches: &["left-is-stranger"],
    tell: |seed, _| left_in_vain(seed),
};

fn left_in_vain(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    world.command(1, Command::Stop);
    step_until(&mut world, "the standby agrees", |world| {
        world.nodes[1].view().is_sole(id(0))
    })?;
    world.silence([true, true]);
    world.kill(1);
    world.run_for(3000);
    if world.nodes[0].view().is_sole(id(0)) {
        return Ok(false);
    }
    let before = times(&world, "copy UnknownState");
    world.silence([false, false]);
    world.start(1);
    come_together(&mut world)?;
    if times(&world, "copy UnknownState") > before {
        return Err("everything is copied (S8)".to_string());
    }
    Ok(true)
}

/// A standby that was off while the other side changed its view more often than a history holds.
pub(super) const LONG_OFF: Told = Told {
    law: "a_standby_that_was_off_for_many_views_is_filled",
    catches: &["base-forgotten"],
    tell: |seed, _| long_off(seed),
};

fn long_off(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    world.nodes[1].held_off = true;
    world.power_cut(1);
    world.run_for(5000);
    answered(&mut world, 0, off(0), Done::Alone)?;
    for _ in 0..VIEW_HISTORY_MAX + 2 {
        world.nodes[0].held_off = true;
        world.power_cut(0);
        world.run_for(500);
        world.nodes[0].held_off = false;
        world.power_on(0);
        world.run_for(1500);
        serve(&mut world, 0)?;
        world.run_for(300);
    }
    let before = times(&world, "copy UnknownState");
    world.nodes[1].held_off = false;
    world.power_on(1);
    come_together(&mut world)?;
    if times(&world, "copy UnknownState") > before {
        return Err("everything is copied (S8)".to_string());
    }
    Ok(true)
}

/// The image of an isolated copy, put back while a new disk in its place is being filled: marks were taken away for that one.
pub(super) const IMAGE_BESIDE_A_FILLING: Told = Told {
    law: "an_image_that_comes_back_while_another_copy_is_filled_gets_everything",
    catches: &["apart-is-known"],
    tell: |seed, _| image_beside_a_filling(seed),
};

fn image_beside_a_filling(seed: u64) -> Outcome {
    let mut world = pair_of(seed, 140 * 1024)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    let isolate = Command::Isolate { now_unix_s: 7 };
    answered(&mut world, 1, isolate, Done::Isolated)?;
    world.run_for(500);
    let disks = disks(&world, 1);
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    answered(
        &mut world,
        0,
        Command::Deactivate { force: true },
        Done::Fenced,
    )?;
    world.nodes[1].held_off = true;
    world.power_cut(1);
    world.new_disks(1);
    world.nodes[1].held_off = false;
    world.power_on(1);
    until(
        &mut world,
        20_000,
        "the new disk is being filled",
        |world| times(world, "copy Replaced") > 0,
    )?;
    // What the image lacks is on the new disk, and not marked any more.
    let copied = world.run_until(20_000, |world| {
        !world.nodes[0].meta.names(2000) || both_count(world)
    });
    well(&world)?;
    if !copied || both_count(&world) {
        return Ok(false);
    }
    put_back(&mut world, 1, disks);
    world.run_for(5000);
    let attach = Command::Attach { force: true };
    answered(&mut world, 1, attach, Done::Attached)?;
    come_together(&mut world)?;
    Ok(true)
}

/// A disk that served alone comes back to the pair that was made of the other node, which had gone alone too.
pub(super) const OTHER_BRANCH: Told = Told {
    law: "a_disk_that_went_alone_is_refused_by_the_pair_made_of_the_other_one",
    catches: &["apart-is-in-vain"],
    tell: |seed, _| other_branch(seed),
};

fn other_branch(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    world.begin_split(1);
    serve(&mut world, 0)?;
    world.nodes[1].held_off = true;
    world.power_cut(1);
    world.run_for(5000);
    answered(&mut world, 0, off(0), Done::Alone)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    let disks = disks(&world, 0);
    world.nodes[0].held_off = true;
    world.power_cut(0);
    world.nodes[1].held_off = false;
    world.power_on(1);
    world.run_for(3000);
    // An operator who takes the disk of node 0 for lost.
    answered(&mut world, 1, off(1), Done::Active)?;
    write(&mut world, 1, 0, 2000, 8);
    world.run_for(300);
    world.new_disks(0);
    world.nodes[0].held_off = false;
    world.power_on(0);
    until(&mut world, 60_000, "the new disk is filled", both_count)?;
    world.run_for(500);
    answered(
        &mut world,
        1,
        Command::Deactivate { force: true },
        Done::Fenced,
    )?;
    let (refused, copies) = (
        times(&world, "refused SplitBrain"),
        times(&world, "CopyFinished"),
    );
    put_back(&mut world, 0, disks);
    let came = world.run_until(10_000, |world| {
        times(world, "refused SplitBrain") > refused || times(world, "CopyFinished") > copies
    });
    well(&world)?;
    if !came || times(&world, "CopyFinished") > copies {
        return Err("what went apart is merged (S1 S8)".to_string());
    }
    Ok(true)
}

/// The disk of a source comes back as it was when it served alone; its copy counted since, and left.
pub(super) const OLD_SOURCE: Told = Told {
    law: "an_old_disk_of_a_source_fills_no_copy_that_counted_later",
    catches: &["old-source-fills"],
    tell: |seed, _| old_source(seed),
};

fn old_source(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    world.nodes[1].held_off = true;
    world.power_cut(1);
    world.run_for(5000);
    answered(&mut world, 0, off(0), Done::Alone)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    let disks = disks(&world, 0);
    world.nodes[1].held_off = false;
    world.power_on(1);
    until(&mut world, 60_000, "the standby is filled", both_count)?;
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    answered(&mut world, 1, Command::Stop, Done::Stopped)?;
    if !world.run_until(5000, has_left) {
        return well(&world).map(|()| false);
    }
    let (refused, copies) = (
        times(&world, "refused NoSource"),
        times(&world, "CopyFinished"),
    );
    put_back(&mut world, 0, disks);
    world.start(1);
    let came = world.run_until(10_000, |world| {
        times(world, "refused NoSource") > refused || times(world, "CopyFinished") > copies
    });
    well(&world)?;
    if !came || times(&world, "CopyFinished") > copies {
        return Err("an old disk is the source (S1 S8)".to_string());
    }
    Ok(true)
}

/// What a node has by now.
fn disks(world: &World, node: usize) -> (Vec<Value>, MetaDisk) {
    let place = &world.nodes[node];
    (place.data.media().to_vec(), place.meta.clone())
}

/// A node loses its power, and comes back with these.
fn put_back(world: &mut World, node: usize, (data, meta): (Vec<Value>, MetaDisk)) {
    world.nodes[node].held_off = true;
    world.power_cut(node);
    world.put_in(node, &data, meta);
    world.nodes[node].held_off = false;
    world.power_on(node);
}

fn both_count(world: &World) -> bool {
    (0..2).all(|node| world.nodes[node].view().insync.len() == 2)
}
