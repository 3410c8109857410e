//! What the kernel still has of a run that was killed.

use mirror_core::admin::Command;
use mirror_core::event::RequestKind;

use super::{Outcome, Told, ask, come_together, is_fenced, is_up, pair, serve, until, write};
use crate::sim::world::World;

/// Seed 1060782.
pub(super) const INHERITED: Told = Told {
    law: "a_flush_says_nothing_of_what_a_killed_run_left_with_the_kernel",
    catches: &["inherited-flushed"],
    tell: |seed, _| inherited(seed),
};

/// A daemon is killed when a write is on its own disk alone. The next run is flushed, on both, before the kernel
/// hands that write over, and then everything is thrown away: that block differs, and has to be named (S7).
fn inherited(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    world.plan.habits.late_hands_ms = 6000;
    half_done(&mut world)?;
    ask(&mut world, 1, 1, RequestKind::Flush, (0, 0));
    until(&mut world, 5000, "a flush ends", |world| {
        world.nodes[1]
            .device
            .as_ref()
            .is_some_and(|device| device.slots[1].is_none())
    })?;
    let met = is_with_the_kernel(&world);
    world.break_connections();
    until(&mut world, 5000, "writes are frozen", |world| {
        world
            .status(1)
            .is_some_and(|status| status.frozen.is_some())
    })?;
    world.command(1, Command::Deactivate { force: true });
    until(&mut world, 20_000, "the service ends", |world| {
        is_fenced(world, 1)
    })?;
    come_together(&mut world)?;
    Ok(met)
}

/// Node 1 serves under a live device, and both are linked again; a write to sector 1000 is on its own disk alone.
pub(super) fn half_done(world: &mut World) -> Result<(), String> {
    serve(world, 1)?;
    world.silence([true, true]);
    write(world, 1, 0, 1000, 8);
    world.run_for(100);
    world.kill(1);
    world.silence([false, false]);
    world.start(1);
    until(world, 20_000, "they are linked", is_up)
}

pub(super) fn is_with_the_kernel(world: &World) -> bool {
    let device = world.nodes[1].device.as_ref();
    let write = device.and_then(|device| device.slots[0].as_ref());
    let process = world.nodes[1].process.as_ref();
    write.map(|write| write.process) != process.map(|process| process.number) && write.is_some()
}
