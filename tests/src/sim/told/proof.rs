//! A disk that fails with its metadata.

use super::{Outcome, Told, come_together, pair, serve, step_until, times, write};

/// Seed 1158051.
pub(super) const TOLD_AFTER_PROOF: Told = Told {
    law: "a_standby_that_cannot_write_down_that_its_disk_failed_is_not_believed_after_a_restart",
    catches: &["failure-told-unproved"],
    tell: |seed, _| told_after_proof(seed),
};

/// The standby's disk fails, and its metadata with it. The active machine is gone before it hears of that, and is told
/// when it is back: who writes it down is the node whose disk is well.
fn told_after_proof(seed: u64) -> Outcome {
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
    let met = !world.nodes[0].meta.peek().peer_failed && !world.nodes[1].meta.peek().failed;
    world.power_on(0);
    world.run_for(5000);
    world.nodes[1].data.failing = false;
    world.nodes[1].meta.failing = false;
    world.kill(1);
    world.start(1);
    come_together(&mut world)?;
    if times(&world, "copy DiskFailed") == 0 {
        return Err("a copy whose disk failed is believed again (S1)".to_string());
    }
    Ok(met)
}
