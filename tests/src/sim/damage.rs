//! Damage behind the mirror's back, at the end of some runs: sectors of one copy hold what nobody wrote. A
//! verify must find exactly that, and a repair must make it right again on both, whatever happens meanwhile.
//!
//! While the application works the standby alone is damaged, and never becomes active: what an application may
//! read is judged as ever.

use std::collections::BTreeSet;

use mirror_core::admin::{Command, VerifyState};
use mirror_core::types::SECTOR_BYTES;

use super::model::Judgement;
use super::node::{MS, name};
use super::upkeep::verify;
use super::world::{Happening, World};

/// How often a repair that was interrupted is begun again.
const TRIES: usize = 5;
const DAMAGED_MAX: u64 = 20;

/// The theme. The volume is healthy, the application has ended.
pub(super) fn damage(world: &mut World) {
    if world.failure.is_some() || !world.healthy() {
        return;
    }
    let Some(active) = world.active() else { return };
    // What an operator began before must not find it first.
    if !world.run_until(30_000, |world| !world.verifies()) {
        world.fail("at rest, and a verify does not end (I9)".to_string());
        return;
    }
    world.count("damage");
    let standby = 1 - active;
    // At rest, exactly.
    let spoilt = spoil(world, standby);
    finds_exactly(world, &spoilt, verify(false), 0);
    finds_exactly(world, &spoilt, verify(true), spoilt.len());
    let spoilt = spoil(world, active);
    let from_standby = Command::Verify {
        repair: true,
        repair_from: Some(name(standby).to_string()),
        confirm: "data".to_string(),
    };
    finds_exactly(world, &spoilt, from_standby, spoilt.len());
    if world.failure.is_none() {
        world.must_be_equal();
        right_again(world, &spoilt);
    }
    super::aside::verify_at_rest(world, active);
    under_load(world, standby);
}

/// Ends an isolation that an operator asked for, if it came to one.
fn attach(world: &mut World) {
    world.run_for(1000);
    for _ in 0..20 {
        if world.run_until(1000, World::healthy) || world.failure.is_some() {
            return;
        }
        world.attach_isolated(true);
    }
}

/// The application works, the link breaks, the standby loses its power or is isolated.
fn under_load(world: &mut World, standby: usize) {
    if world.failure.is_some() {
        return;
    }
    world.desk.caring = true;
    world.run_for(200);
    let spoilt = spoil(world, standby);
    for _ in 0..world.rng.between(1, 4) {
        if world.active() == Some(1 - standby) {
            world.command(1 - standby, verify(true));
        }
        let pause = world.rng.between(1, 60);
        world.run_for(pause);
        match world.rng.below(6) {
            0 => world.break_connections(),
            1 => {
                world.kill(standby);
                world.at(20 * MS, Happening::Start { node: standby });
            }
            2 => {
                world.power_cut(standby);
                world.at(50 * MS, Happening::PowerOn { node: standby });
            }
            // A repair is under way: nothing of it may reach the image.
            3 => {
                world.command(standby, Command::Isolate { now_unix_s: 1 });
            }
            _ => {}
        }
    }
    attach(world);
    if !world.run_until(60_000, World::healthy) {
        world.fail("not healthy after damage (I9)".to_string());
        return;
    }
    let done = (0..TRIES).any(|_| {
        let found = world.verify_now(verify(true));
        found.is_some_and(|found| found.state == VerifyState::Done)
    });
    if !done && world.failure.is_none() {
        world.fail("no repair comes to its end (I9)".to_string());
    }
    super::run::rest(world);
    if world.failure.is_none() {
        right_again(world, &spoilt);
    }
}

/// Damages some sectors, apart from each other or not. Returns them.
fn spoil(world: &mut World, node: usize) -> BTreeSet<usize> {
    let mut spoilt = BTreeSet::new();
    if world.failure.is_some() {
        return spoilt;
    }
    let sectors = world.plan.sectors;
    for _ in 0..world.rng.between(1, DAMAGED_MAX) {
        let near = world.rng.percent(30);
        let last: Option<usize> = spoilt.last().copied();
        let spot = world.workload.spots[world.rng.index(world.workload.spots.len())];
        let sector = match last {
            Some(last) if near => last + 1,
            _ if world.rng.percent(50) => usize::try_from(spot + world.rng.below(200)).unwrap_or(0),
            _ => usize::try_from(world.rng.below(sectors)).unwrap_or(0),
        };
        let busy = world.nodes[node].data.running.iter().any(|running| {
            let sector = sector as u64;
            running.changes() && (running.range.start..running.range.end()).contains(&sector)
        });
        let contents = [0, 1].map(|node: usize| world.nodes[node].data.content.get(sector));
        if busy || contents[0] != contents[1] || contents[0].is_none() {
            continue;
        }
        world.nodes[node].data.damage(sector);
        world.care.damaged[node].insert(sector);
        world.model.touched.add(sector as u64, 1);
        spoilt.insert(sector);
    }
    world.note(|| format!("{node} is damaged at {spoilt:?}"));
    spoilt
}

/// Nothing writes meanwhile: what is found is what was damaged, in blocks.
fn finds_exactly(world: &mut World, spoilt: &BTreeSet<usize>, command: Command, repaired: usize) {
    if world.failure.is_some() {
        return;
    }
    let Some(found) = world.verify_now(command) else {
        world.fail("a verify of a healthy volume is refused (I9)".to_string());
        return;
    };
    let block_bytes = u64::from(world.plan.bitmap_block_bytes);
    let blocks: BTreeSet<u64> = spoilt
        .iter()
        .map(|sector| *sector as u64 * SECTOR_BYTES / block_bytes)
        .collect();
    let listed: BTreeSet<u64> = found
        .ranges
        .iter()
        .flat_map(|range| {
            let end = (range.start_bytes + range.length_bytes).div_ceil(block_bytes);
            range.start_bytes / block_bytes..end
        })
        .collect();
    let size = blocks.len() as u64 * block_bytes;
    if found.state != VerifyState::Done || listed != blocks || found.differing_bytes != size {
        world.fail(format!(
            "blocks {blocks:?} are damaged, a verify found {found:?} (I14)"
        ));
        return;
    }
    let expected = if repaired > 0 { size } else { 0 };
    if found.repaired_bytes != expected || found.checked_bytes != found.total_bytes {
        world.fail(format!("{found:?}: not what was to be repaired (I11)"));
    }
}

/// What was damaged holds what was written there, on both.
fn right_again(world: &mut World, spoilt: &BTreeSet<usize>) {
    let asked = world.model.tick();
    for node in 0..2 {
        for sector in spoilt {
            let value = world.nodes[node].data.content[*sector];
            if let Judgement::Wrong(_) = world.model.judge(*sector as u64, value, asked) {
                let history = world.model.explain(*sector as u64);
                world.fail(format!(
                    "{node}: sector {sector} was damaged and is {value:#x} after the repair (I11):{history}"
                ));
                return;
            }
        }
    }
}
