//! Writes that both nodes have when one of them is lost.

use std::cell::Cell;

use mirror_core::event::IoOwner;
use mirror_core::types::Tag;

use super::{Outcome, Told, off, pair, serve, step_until, times, until, well, write};
use crate::sim::node::id;
use crate::sim::world::World;

/// Longer than it takes to notice that the other daemon has ended, shorter than a disk may take.
const STICKS_MS: u64 = 400;

pub(super) const WAITS: Told = Told {
    law: "what_both_have_is_not_acknowledged_between_the_flush_and_going_alone",
    catches: &["ack-while-frozen"],
    tell: |seed, _| waits(seed),
};

fn runs(world: &World, owner: IoOwner) -> bool {
    world.nodes[0]
        .data
        .running
        .iter()
        .any(|op| op.owner == owner)
}

/// The other node has done a write that this disk still works at; that node is lost, and the word comes to go on alone. The
/// flush before that begins, and only then the disk is done with the write: the flush does not cover it.
fn waits(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    // The activity log knows the place then, and nothing else waits for the disk.
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    world.stick(0, STICKS_MS, false);
    write(&mut world, 0, 1, 1000, 8);
    world.run_for(20);
    world.nodes[1].held_off = true;
    world.kill(1);
    until(&mut world, 5000, "the active node waits", |world| {
        times(world, "Frozen") == 1
    })?;
    world.command(0, off(0));
    step_until(&mut world, "the flush begins or is over", |world| {
        runs(world, IoOwner::ViewFlush) || world.nodes[0].view().is_sole(id(0))
    })?;
    let before = runs(&world, IoOwner::Application(Tag(1)));
    let between = Cell::new(false);
    step_until(&mut world, "node 0 goes on alone", |world| {
        let alone = world.nodes[0].view().is_sole(id(0));
        let ended = before && !runs(world, IoOwner::Application(Tag(1)));
        between.set(between.get() || (ended && !alone));
        alone
    })?;
    world.run_for(300);
    well(&world)?;
    Ok(between.get())
}
