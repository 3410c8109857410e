//! Disks of some time ago, at the moments at which only the views tell.

use mirror_core::admin::{Command, Done};

use super::{
    Outcome, Told, answered, come_together, has_left, pair, serve, times, until, well, write,
};
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
    let place = &world.nodes[1];
    let disks = (place.data.media().to_vec(), place.meta.clone());
    let left = place.view().is_sole(id(0));
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
    world.nodes[1].held_off = true;
    world.power_cut(1);
    let place = &mut world.nodes[1];
    place.data.replace(&disks.0);
    place.meta = disks.1;
    place.held_off = false;
    world.power_on(1);
    let before = times(&world, "copy WideningInterrupted");
    come_together(&mut world)?;
    Ok(left && times(&world, "copy WideningInterrupted") > before)
}

fn both_count(world: &World) -> bool {
    (0..2).all(|node| world.nodes[node].view().insync.len() == 2)
}
