//! A resync beside an application that never stops.

use super::{Outcome, Told, is_up, off, pair, serve, times, until, well, write};
use crate::sim::world::World;

pub(super) const BESIDE: Told = Told {
    law: "a_resync_comes_to_its_end_beside_an_application_that_never_stops",
    catches: &["pace-starves"],
    tell: |seed, _| beside(seed),
};

/// What the standby missed, requests of 64 KiB.
const MISSED: u16 = 32;
const REQUEST_SECTORS: u32 = 128;
/// Requests that the application has under way all the time.
const DEPTH: u16 = 4;
const LIMIT_MS: u64 = 10_000;
/// A write waits for a run that is locked against it, and not for the rests between runs.
const WAIT_MS: u64 = 300;

fn beside(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    world.kill(1);
    until(&mut world, 10_000, "its loss is noticed", |world| {
        times(world, "Frozen") == 1
    })?;
    world.command(0, off(0));
    until(&mut world, 5000, "the active node goes on alone", |world| {
        world.nodes[0].view().insync.len() == 1
    })?;
    for number in 0..MISSED {
        let start = u64::from(number) * u64::from(REQUEST_SECTORS);
        write(&mut world, 0, 0, start, REQUEST_SECTORS);
        until(&mut world, 5000, "a write ends", |world| is_free(world, 0))?;
    }
    world.start(1);
    let mut met = false;
    let mut waits = [0; DEPTH as usize];
    for _ in 0..LIMIT_MS {
        let members = world.nodes[0].view().insync.len();
        if members == 2 {
            return Ok(met);
        }
        met |= is_up(&world);
        for tag in 0..DEPTH {
            let wait = &mut waits[usize::from(tag)];
            *wait += 1;
            if *wait > WAIT_MS {
                return Err(format!("a write waits for {wait} ms beside a resync (I9)"));
            }
            if is_free(&world, tag) {
                *wait = 0;
                // The first ones are to blocks that the standby lacks.
                let start = if tag < 2 { 3000 } else { 5000 };
                write(&mut world, 0, tag, start + 8 * u64::from(tag), 8);
            }
        }
        world.run_for(1);
        well(&world)?;
    }
    Err(format!(
        "a resync beside a busy application: not within {LIMIT_MS} ms (I9)"
    ))
}

fn is_free(world: &World, tag: u16) -> bool {
    let device = world.nodes[0].device.as_ref();
    device.is_some_and(|device| device.slots[usize::from(tag)].is_none())
}
