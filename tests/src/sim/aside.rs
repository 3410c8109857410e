//! What a resync or a verify cannot read.
//!
//! A copy does not count while a block that it lacks could not be read (S9); such a block is tried again, so that in
//! peace, when every sector can be read, the resync comes to its end (I9). A verify lists what cannot be read, and
//! nothing else, and writes nothing from it (I14, I11). No disk counts as failed (I31).

use std::collections::BTreeSet;

use mirror_core::admin::{Command, VerifyFinding, VerifyState};
use mirror_core::types::{NodeSet, SECTOR_BYTES, SectorRange};
use mirror_core::view::View;

use super::disk::{GARBAGE, Running};
use super::node::{id, name};
use super::upkeep::verify;
use super::world::World;

/// By node.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// What the peer lacks, could not be read, and was neither read nor written since.
    sectors: [BTreeSet<u64>; 2],
    /// Since when its copy alone counts.
    since: [Option<u64>; 2],
}

impl Aside {
    /// Another view is durable; whether it says that the node's copy alone counts.
    pub(super) fn alone(&mut self, node: usize, alone: bool, now: u64) {
        if alone {
            self.since[node].get_or_insert(now);
        } else {
            self.since[node] = None;
            self.sectors[node].clear();
        }
    }

    /// This was read or written.
    pub(super) fn holds(&mut self, node: usize, range: SectorRange) {
        let sectors = &mut self.sectors[node];
        if !sectors.is_empty() {
            sectors.retain(|sector| !(range.start..range.end()).contains(sector));
        }
    }

    /// The disk is another one.
    pub(super) fn forget(&mut self, node: usize) {
        self.sectors[node].clear();
    }
}

impl World {
    pub(super) fn everything_can_be_read(&mut self) {
        for place in &mut self.nodes {
            place.data.unreadable.clear();
            place.data.flaky_until = 0;
        }
    }

    /// What was read for a resync or a verify, of either side.
    pub(super) fn copy_read_fails(&mut self, node: usize, slot: u16, running: &Running) {
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.copy[usize::from(slot)] = vec![GARBAGE; running.range.count as usize];
        }
        let alone = self.nodes[node].view().insync == NodeSet::only(id(node));
        let since = self.care.aside.since[node].unwrap_or(0);
        // Once everything is copied a verify may begin, before the view that says so is durable.
        let copies = self
            .status(node)
            .and_then(|status| status.progress)
            .is_some_and(|progress| progress.copied_bytes < progress.total_bytes);
        if alone && copies && running.began > since {
            self.count("reads of a resync that failed");
            let sectors = running.range.start..running.range.end();
            self.care.aside.sectors[node].extend(sectors);
        } else if alone || self.nodes[node].view().insync.len() == 2 {
            self.count("reads of a verify that failed");
        } else {
            self.count("reads of a target that failed");
        }
    }

    /// S9, when the peer's copy begins to count.
    pub(super) fn check_nothing_aside(&mut self, node: usize, before: &View, after: &View) {
        let alone = before.insync == NodeSet::only(id(node));
        let left = &self.care.aside.sectors[node];
        if let Some(sector) = left.first().filter(|_| alone && after.insync.len() == 2) {
            let text = format!(
                "{node}: the peer's copy counts, and {} sectors that it lacks could not be read, the first is {sector} (S9)",
                left.len()
            );
            self.fail(text);
        }
    }
}

/// At rest, some sectors of one copy cannot be read, and one beside them is damaged: a verify lists exactly that, repairs
/// what it may, and writes nothing where it cannot read.
pub(super) fn verify_at_rest(world: &mut World, active: usize) {
    if world.failure.is_some() || !world.healthy() {
        return;
    }
    let block_sectors = u64::from(world.plan.block_bytes(active)) / SECTOR_BYTES;
    let node = world.rng.index(2);
    let unreadable: BTreeSet<u64> = (0..world.rng.between(1, 10))
        .map(|_| {
            let spot = world.rng.index(world.workload.spots.len());
            let sector = world.workload.spots[spot] + world.rng.below(200);
            sector.min(world.plan.sectors - 1)
        })
        .collect();
    let bad = blocks(&unreadable, block_sectors);
    let beside = bad.last().map_or(0, |block| (block + 1) * block_sectors);
    let damaged = Some(beside).filter(|sector| *sector < world.plan.sectors);
    world.note(|| format!("{node} cannot read {unreadable:?}, {damaged:?} is damaged beside"));
    world.count("verify of what cannot be read");
    world.nodes[node].data.unreadable.clone_from(&unreadable);
    if let Some(sector) = damaged {
        let place = usize::try_from(sector).unwrap_or(usize::MAX);
        world.nodes[1 - active].data.damage(place);
        world.care.damaged[1 - active].insert(place);
        world.model.touched.add(sector, 1);
    }
    let from = world.rng.percent(50).then(|| name(active).to_string());
    let found = world.verify_now(Command::Verify {
        repair: true,
        repair_from: from,
        confirm: String::new(),
    });
    let Some(found) = found else {
        world.fail("a verify of a healthy volume is refused (I9)".to_string());
        return;
    };
    let unread = if node == active {
        VerifyFinding::UnreadableHere
    } else {
        VerifyFinding::UnreadableThere
    };
    let listed = |wanted: VerifyFinding| -> BTreeSet<u64> {
        let ranges = found.ranges.iter().filter(|range| range.finding == wanted);
        let sectors = ranges.flat_map(|range| {
            let start = range.start_bytes / SECTOR_BYTES;
            start..start + range.length_bytes / SECTOR_BYTES
        });
        blocks(&sectors.collect(), block_sectors)
    };
    let repaired = blocks(&damaged.into_iter().collect(), block_sectors);
    let right = found.state == VerifyState::Done
        && listed(unread) == bad
        && listed(VerifyFinding::Repaired) == repaired
        && listed(VerifyFinding::Differs).is_empty();
    if !right {
        world.fail(format!(
            "blocks {bad:?} of {node} cannot be read, {repaired:?} differ, a verify found {found:?} (I14)"
        ));
    } else if world.nodes[node].data.unreadable != unreadable {
        world.fail(format!(
            "{node}: a verify wrote what it could not read (I11)"
        ));
    }
    world.everything_can_be_read();
    let again = world.verify_now(verify(false));
    if again.is_some_and(|found| !found.ranges.is_empty()) && world.failure.is_none() {
        world.fail("a repair next to what could not be read left a difference (I11)".to_string());
    }
}

fn blocks(sectors: &BTreeSet<u64>, block_sectors: u64) -> BTreeSet<u64> {
    sectors
        .iter()
        .map(|sector| sector / block_sectors)
        .collect()
}
