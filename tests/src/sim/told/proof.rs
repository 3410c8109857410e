//! A disk that fails with its metadata.

use super::{Outcome, Told, come_together, pair, serve, step_until, times, write};
use crate::sim::world::World;

/// Seed 1158051.
pub(super) const TOLD_AFTER_PROOF: Told = Told {
    law: "a_standby_that_cannot_write_down_that_its_disk_failed_is_not_believed_after_a_restart",
    catches: &["failure-told-unproved"],
    tell: |seed, _| told_after_proof(seed),
};

/// The standby's disk fails, and its metadata with it. The active machine is gone before it hears of that, and is told
/// when it is back: who writes it down is the node whose disk is well.
fn told_after_proof(seed: u64) -> Outcome {
    let (mut world, met) = unheard(seed)?;
    world.run_for(5000);
    world.power_cut(1);
    world.nodes[1].data.failing = false;
    world.nodes[1].meta.failing = false;
    world.run_for(200);
    world.power_on(1);
    come_together(&mut world)?;
    if times(&world, "copy DiskFailed") == 0 {
        return Err("a copy whose disk failed is believed again (S1)".to_string());
    }
    Ok(met)
}

pub(super) const BELIEVED_AGAIN: Told = Told {
    law: "who_wrote_down_that_the_other_disk_failed_does_not_believe_it_again",
    catches: &["peer-failure-forgotten"],
    tell: |seed, _| believed_again(seed),
};

/// As before, but the standby's machine loses its power when the other node has just written down that its disk failed, and has not
/// agreed with it yet that it does not count: nobody else knows.
fn believed_again(seed: u64) -> Outcome {
    let (mut world, unknown) = unheard(seed)?;
    step_until(&mut world, "it is written down", |world| {
        world.nodes[0].meta.peek().peer_failed
    })?;
    let met = unknown && world.nodes[0].view().insync.len() == 2;
    world.power_cut(1);
    world.nodes[1].data.failing = false;
    world.nodes[1].meta.failing = false;
    let before = times(&world, "copy DiskFailed");
    world.run_for(200);
    world.power_on(1);
    come_together(&mut world)?;
    if times(&world, "copy DiskFailed") == before {
        return Err("a copy whose disk failed is believed again (S1)".to_string());
    }
    Ok(met)
}

/// The standby's disk has failed with its metadata, and the active machine boots. Says whether neither wrote that down.
fn unheard(seed: u64) -> Result<(World, bool), String> {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    world.nodes[1].data.failing = true;
    world.nodes[1].meta.failing = true;
    write(&mut world, 0, 0, 1000, 8);
    step_until(&mut world, "the standby's disk fails", |world| {
        world.nodes[1].failed_at.is_some()
    })?;
    world.power_cut(0);
    world.run_for(200);
    let unknown = !world.nodes[0].meta.peek().peer_failed && !world.nodes[1].meta.peek().failed;
    world.power_on(0);
    Ok((world, unknown))
}
