//! Disks that fail while the copies change their places.

use mirror_core::admin::{Command, CopyState};
use mirror_core::event::{Request, RequestKind};
use mirror_core::types::{SectorRange, Tag};

use super::{
    Outcome, Told, ask, come_together, is_fenced, is_up, off, pair, serve, step_until, times,
    until, well, write,
};
use crate::sim::node::id;
use crate::sim::whole::Part;
use crate::sim::world::{Plan, World};

/// Seeds 1055200 and 1145581.
pub(super) const AGREED_IN_VAIN: Told = Told {
    law: "who_agreed_in_vain_to_be_dropped_takes_the_place_of_a_failed_disk",
    catches: &["consent-in-vain-binds"],
    tell: |seed, _| agreed_in_vain(seed),
};

/// The standby writes down that it does not count, and the active node, whose disk fails then, never hears it: it has
/// acknowledged nothing alone, so the standby has everything. Every other seed loses the consent to that, too.
fn agreed_in_vain(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 1)?;
    write(&mut world, 1, 0, 1000, 8);
    world.run_for(300);
    let before = world.nodes[1].view();
    world.command(0, Command::Stop);
    step_until(&mut world, "the standby is left behind", |world| {
        world.nodes[0].view().is_sole(id(1))
    })?;
    world.silence([true, true]);
    until(&mut world, 5000, "the active node waits", |world| {
        times(world, "Frozen") == 1
    })?;
    let met = world.nodes[1].view() == before;
    world.nodes[1].data.failing = true;
    world.command(1, off(1));
    mended(&mut world, 1)?;
    world.start(0);
    world.silence([false, false]);
    if met && seed.is_multiple_of(2) {
        step_until(&mut world, "the failed copy is to be filled", |world| {
            world.nodes[1].view().is_sole(id(0))
        })?;
        world.silence([true, true]);
        world.run_for(5000);
        world.silence([false, false]);
    }
    come_together(&mut world)?;
    serve(&mut world, 0)?;
    ask(&mut world, 0, 0, RequestKind::Read, (1000, 8));
    world.run_for(300);
    well(&world)?;
    Ok(met)
}

/// The service on a node ends with its disk; the disk is mended and the daemon starts anew.
fn mended(world: &mut World, node: usize) -> Result<(), String> {
    until(world, 5000, "the disk counts as failed", |world| {
        let failed = world.status(node).map(|status| status.copy) == Some(CopyState::Failed);
        failed && world.nodes[node].meta.peek().failed
    })?;
    for _ in 0..100 {
        if is_fenced(world, node) {
            break;
        }
        world.command(node, Command::Deactivate { force: true });
        world.run_for(20);
    }
    until(world, 5000, "the service ends", |world| {
        is_fenced(world, node)
    })?;
    world.nodes[node].data.failing = false;
    world.kill(node);
    world.start(node);
    Ok(())
}

/// Seed 1636002.
pub(super) const FAILED_UNHEARD: Told = Told {
    law: "a_failed_disk_is_written_anew_also_if_its_answer_to_that_is_lost",
    catches: &["peer-failure-late"],
    tell: |seed, _| failed_unheard(seed),
};

/// The standby's disk fails in a flush while both are parted: it has lost what it still reads back. It is mended, both
/// meet, the standby agrees to be filled, and its answer is lost. Every block is written again all the same, so that a
/// power cut shows nothing old.
fn failed_unheard(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 1)?;
    write(&mut world, 1, 0, 1000, 8);
    world.run_for(5);
    world.silence([true, true]);
    world.nodes[0].data.failing = true;
    until(&mut world, 5000, "the active node waits", |world| {
        times(world, "Frozen") == 1
    })?;
    for _ in 0..100 {
        if world.nodes[0].meta.peek().failed {
            break;
        }
        world.command(0, off(0));
        world.run_for(50);
    }
    write(&mut world, 1, 1, 2000, 8);
    for _ in 0..100 {
        if is_fenced(&world, 1) {
            break;
        }
        world.command(1, Command::Deactivate { force: true });
        world.run_for(20);
    }
    world.nodes[0].data.failing = false;
    world.kill(0);
    world.start(0);
    world.silence([false, false]);
    step_until(&mut world, "the failed copy is to be filled", |world| {
        world.nodes[0].view().is_sole(id(1))
    })?;
    let unheard = !world.nodes[1].view().is_sole(id(1));
    world.silence([true, true]);
    world.run_for(5000);
    world.silence([false, false]);
    come_together(&mut world)?;
    world.power_cut(0);
    world.run_for(100);
    well(&world)?;
    world.power_on(0);
    come_together(&mut world)?;
    Ok(unheard)
}

pub(super) const FILLED: Told = Told {
    law: "a_copy_that_is_being_filled_never_takes_the_place_of_its_source",
    catches: &["target-replaces-source"],
    tell: |seed, _| filled(seed),
};

/// The disk of the only copy that counts fails in the middle of the first resync: nobody has everything (S9).
fn filled(seed: u64) -> Outcome {
    let mut world = World::new(seed, Plan::quiet(200 * 1024));
    until(&mut world, 10_000, "a resync begins", |world| {
        times(world, "copy FirstCopy") + times(world, "copy Replaced") > 0
    })?;
    world.run_for(50);
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    if !world.nodes[0].view().is_sole(id(0)) || !is_up(&world) {
        // It was quick.
        return Ok(false);
    }
    world.nodes[0].data.failing = true;
    write(&mut world, 0, 1, 2000, 8);
    mended(&mut world, 0)?;
    world.run_for(10_000);
    if world
        .nodes
        .iter()
        .any(|node| node.view().insync.contains(id(1)))
    {
        return Err("a copy that was being filled counts (S9)".to_string());
    }
    well(&world)?;
    Ok(true)
}

/// Seed 20963 of a change that added disks which fail as a whole.
pub(super) const FAILED_IN_HAND: Told = Told {
    law: "writes_that_failed_with_the_metadata_are_not_waited_for_by_the_next_run",
    catches: &["failed-writes-in-hand"],
    tell: |seed, _| failed_in_hand(seed),
};

/// A write is on its own disk alone when the connection is lost; while both come together again the metadata fail, and so
/// does the write. They work again, and a daemon is started under the same device: the kernel hands that write over to
/// nobody, so that block has to be copied (S7).
fn failed_in_hand(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 1)?;
    write(&mut world, 1, 0, 1000, 8);
    world.run_for(300);
    world.silence([true, true]);
    write(&mut world, 1, 1, 1000, 8);
    until(&mut world, 5000, "the active node waits", |world| {
        times(world, "Frozen") == 1
    })?;
    let met = world.nodes[0].data.content != world.nodes[1].data.content;
    world.fail_whole(1, Part::Metadata, 600_000);
    world.silence([false, false]);
    until(&mut world, 5000, "the write fails", |world| {
        times(world, "requests failed") == 1
    })?;
    world.nodes[1].meta.failing = false;
    world.kill(1);
    world.start(1);
    until(&mut world, 20_000, "the service ends", |world| {
        is_fenced(world, 1)
    })?;
    come_together(&mut world)?;
    Ok(met)
}

pub(super) const DURABLE_BESIDE_A_FAILURE: Told = Told {
    law: "a_durable_write_that_ends_on_a_disk_that_failed_meanwhile_is_not_one",
    catches: &["fua-proves"],
    tell: |seed, _| durable_beside_a_failure(seed),
};

/// Durable writes and one that is not are on a disk, of either node, whose first error comes now: it loses what is in its
/// cache, and does what comes afterwards well. What was in the cache for a durable write is gone, although that ends well.
fn durable_beside_a_failure(seed: u64) -> Outcome {
    let failing = usize::from(seed.is_multiple_of(2));
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    // The log names the extents.
    for tag in 0..4 {
        write(&mut world, 0, tag, 1000 + 16 * u64::from(tag), 8);
    }
    world.run_for(300);
    for tag in 0..4 {
        let request = Request {
            tag: Tag(tag),
            kind: RequestKind::Write,
            range: SectorRange::new(1000 + 16 * u64::from(tag), 8),
            fua: tag > 0,
        };
        world.ask(0, request);
    }
    step_until(&mut world, "some of it is with the disk", |world| {
        world.nodes[failing].data.running.len() >= 2
    })?;
    world.nodes[failing].data.failing = true;
    world.nodes[failing].data.forgets = true;
    step_until(&mut world, "the disk fails", |world| {
        !world.nodes[failing].data.forgets
    })?;
    world.nodes[failing].data.failing = false;
    let met = !world.nodes[failing].data.running.is_empty();
    world.run_for(1000);
    well(&world)?;
    Ok(met)
}
