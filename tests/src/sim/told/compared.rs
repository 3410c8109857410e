//! Copies that are compared, repaired, or marked at a bad moment.

use mirror_core::admin::{Command, CopyState, Done};
use mirror_core::event::IoOwner;

use super::kernel::{half_done, is_with_the_kernel};
use super::{
    Outcome, Told, come_together, off, pair, serve, step_until, times, until, well, write,
};
use crate::sim::node::id;
use crate::sim::upkeep::verify;

pub(super) const COMPARED: Told = Told {
    law: "what_a_killed_run_left_half_done_is_not_compared_before_it_is_done",
    catches: &["verify-jumps-queue"],
    tell: |seed, _| compared(seed),
};

/// A verify begins as soon as both are linked again: the write of the killed run is still with the kernel.
fn compared(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    world.plan.habits.late_hands_ms = 4000;
    half_done(&mut world)?;
    let met = is_with_the_kernel(&world);
    let found = world.verify_now(verify(false));
    well(&world)?;
    if found.is_none_or(|found| found.differing_bytes > 0) {
        return Err("a verify found a difference, and nothing was damaged (I14)".to_string());
    }
    Ok(met)
}

pub(super) const REFUSED: Told = Told {
    law: "a_copy_that_is_marked_while_it_begins_to_count_breaks_no_rule_of_the_connection",
    catches: &["widening-refused-stays"],
    tell: |seed, _| refused(seed),
};

/// An operator marks a copy at the moment at which it is to count: it refuses, and the other side, for which it counts
/// already, has sent it more by then.
fn refused(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    world.power_cut(1);
    until(&mut world, 5000, "it is lost", |world| {
        times(world, "Frozen") == 1
    })?;
    world.command(0, off(0));
    world.run_for(200);
    for tag in 0..8 {
        write(&mut world, 0, tag, 600 * u64::from(tag), 8);
    }
    world.run_for(200);
    world.power_on(1);
    let before = world.nodes[0].view();
    step_until(&mut world, "a resync ends", |world| {
        world.nodes[0].view().insync.len() == 2
    })?;
    world.command(
        1,
        Command::Invalidate {
            confirm: "data".to_string(),
        },
    );
    for tag in 0..8 {
        write(&mut world, 0, tag, 600 * u64::from(tag), 8);
    }
    world.run_for(100);
    well(&world)?;
    if times(&world, "refused Protocol") > 0 {
        return Err("an honest peer is refused for its frames (I9)".to_string());
    }
    let refused = !world.nodes[1].view().insync.contains(id(1));
    come_together(&mut world)?;
    let mended = world.status(1).map(|status| status.copy) == Some(CopyState::InSync);
    Ok(refused && mended && before.is_sole(id(0)))
}

pub(super) const ISOLATED: Told = Told {
    law: "a_copy_that_is_isolated_while_it_is_repaired_keeps_its_connection",
    catches: &["drop-while-verifying"],
    tell: |seed, _| isolated(seed),
};

/// An operator isolates the standby's copy while a repair is being written there: the repair ends first, or the
/// standby would refuse to be dropped and the connection be given up over it, with writes frozen until it is back.
fn isolated(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    world.nodes[1].data.damage(1000);
    world.care.damaged[1].insert(1000);
    world.model.touched.add(1000, 1);
    world.command(0, verify(true));
    step_until(&mut world, "a repair begins", |world| {
        let mut running = world.nodes[1].data.running.iter();
        running.any(|running| matches!(running.owner, IoOwner::Peer(_)))
    })?;
    world.stick(1, 200, false);
    let command = world.command(1, Command::Isolate { now_unix_s: 77 });
    until(&mut world, 10_000, "the copy is isolated", |world| {
        world.answers.contains_key(&command)
    })?;
    if times(&world, "LinkLost") > 0 {
        return Err("the connection is lost over an isolation (I9)".to_string());
    }
    if world.answers[&command] != Ok(Done::Isolated) {
        return Err(format!("{:?} (I9)", world.answers[&command]));
    }
    Ok(world.care.damaged[1].is_empty())
}
