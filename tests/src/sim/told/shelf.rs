//! Disks of some time ago, at the moments at which only the views tell.

use mirror_core::admin::{Command, Done};
use mirror_core::limits::VIEW_HISTORY_MAX;

use super::{
    Outcome, Told, answered, come_together, has_left, off, pair, serve, step_until, times, until,
    well, write,
};
use crate::sim::disk::Value;
use crate::sim::metadata::MetaDisk;
use crate::sim::node::id;
use crate::sim::world::World;

/// The disk of a copy that had left, in the place of the one that was filled and counts since: the marks of the other
/// side were taken away for that one.
pub(super) const LEAVER_RETURNS: Told = Told {
    law: "a_disk_that_left_before_its_copy_was_filled_gets_everything",
    catches: &["leaver-is-target"],
    tell: leaver_returns,
};

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
    let disks = disks(&world);
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
    put_back(&mut world, disks);
    let before = times(&world, "copy WideningInterrupted");
    come_together(&mut world)?;
    Ok(left && times(&world, "copy WideningInterrupted") > before)
}

/// The image that an isolated copy was made for, put back after that copy was attached and filled: it stays isolated
/// for a while, and gets everything once it is attached.
pub(super) const IMAGE_RETURNS: Told = Told {
    law: "an_image_of_an_isolated_copy_that_was_filled_since_gets_everything",
    catches: &["apart-is-known", "joined-is-member"],
    tell: image_returns,
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
    let disks = disks(&world);
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
    put_back(&mut world, disks);
    world.run_for(5000);
    answered(&mut world, 1, attach, Done::Attached)?;
    come_together(&mut world)?;
    Ok(true)
}

/// Who agreed to leave, and whose consent was lost, lacks what is marked and no more.
pub(super) const LEFT_IN_VAIN: Told = Told {
    law: "a_copy_that_agreed_to_leave_in_vain_gets_what_is_marked",
    catches: &[],
    tell: left_in_vain,
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
    tell: long_off,
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

/// What node 1 has by now.
fn disks(world: &World) -> (Vec<Value>, MetaDisk) {
    let place = &world.nodes[1];
    (place.data.media().to_vec(), place.meta.clone())
}

/// Node 1 loses its power, and comes back with these.
fn put_back(world: &mut World, (data, meta): (Vec<Value>, MetaDisk)) {
    world.nodes[1].held_off = true;
    world.power_cut(1);
    world.put_in(1, &data, meta);
    world.nodes[1].held_off = false;
    world.power_on(1);
}

fn both_count(world: &World) -> bool {
    (0..2).all(|node| world.nodes[node].view().insync.len() == 2)
}
