//! The activity log in memory: which extents are active, what is running in them, and which of their
//! blocks are not flushed on both copies for sure.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Range;

use crate::blocks::{BlockRange, Geometry};
use crate::disk::{ACTIVE_EXTENTS_MAX, ActivityRecord};
use crate::limits::EXTENT_BLOCKS_MAX;
use crate::mutant::{self, Mutant};

/// Words of the blocks of one extent.
const WORDS: usize = 16;
const _: () = assert!(EXTENT_BLOCKS_MAX == WORDS as u64 * 64);

type Bits = [u64; WORDS];

#[derive(Clone, Debug)]
struct Slot {
    /// Writes that have begun and not ended.
    running: u32,
    /// When it was last written to.
    used: u64,
    /// Blocks written since the last flush that counts began.
    fresh: Bits,
    /// Blocks that the flush under way covers.
    flushing: Bits,
    /// The record that is being written does not name it.
    leaving: bool,
}

impl Slot {
    fn new(used: u64, bits: Bits) -> Self {
        Self {
            running: 0,
            used,
            fresh: bits,
            flushing: [0; WORDS],
            leaving: false,
        }
    }

    fn is_quiet(&self) -> bool {
        self.running == 0 && !self.leaving
    }

    fn is_flushed(&self) -> bool {
        let flushed = self.fresh == [0; WORDS] && self.flushing == [0; WORDS];
        flushed || mutant::is(Mutant::EvictUnflushed)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Log {
    slots: BTreeMap<u32, Slot>,
    capacity: usize,
    sequence: u64,
    clock: u64,
    /// Extents that waiting requests need, in their order.
    wanted: Vec<u32>,
    /// Extents of the first waiting request that lacks one: they stay.
    protected: Range<u32>,
    /// Extents with fresh blocks, and with blocks that a flush covers.
    fresh: BTreeSet<u32>,
    flushing: BTreeSet<u32>,
    flush_runs: bool,
    /// Extents that were not used since this moment are cold, and leave; [`Self::age`] moves it on.
    cold_before: u64,
    last_aged: u64,
    /// The log on disk could not be read, and no new state was written yet.
    lost: bool,
}

impl Log {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.clamp(1, ACTIVE_EXTENTS_MAX),
            ..Self::default()
        }
    }

    /// After a restart nobody knows which blocks of an active extent are flushed.
    pub(super) fn load(&mut self, record: &ActivityRecord, geometry: &Geometry) {
        if !mutant::is(Mutant::LogSequenceRestarts) {
            self.sequence = record.sequence;
        }
        for extent in &record.extents {
            if !geometry.extent(*extent).is_empty() {
                self.slots.insert(*extent, Slot::new(0, [u64::MAX; WORDS]));
                self.fresh.insert(*extent);
            }
        }
    }

    /// The log on disk is lost; the caller marks everything, durably, before the next state is written.
    pub(super) fn load_lost(&mut self, next_sequence: u64) {
        if !mutant::is(Mutant::LogSequenceRestarts) {
            self.sequence = next_sequence - 1;
        }
        self.lost = true;
    }

    /// Whether a new state has to be written so that the log is readable again.
    pub(super) fn is_lost(&self) -> bool {
        self.lost && !mutant::is(Mutant::LostLogNotSwept)
    }

    /// Extents that were not used between the last two calls leave the log as soon as they may: after a
    /// crash they would have to be compared.
    pub(super) fn age(&mut self) {
        self.clock += 1;
        self.cold_before = self.last_aged;
        self.last_aged = self.clock;
    }

    /// Whether nothing is active.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn active(&self, extent: u32) -> bool {
        let used = mutant::is(Mutant::LeavingUsed);
        let slot = self.slots.get(&extent);
        slot.is_some_and(|slot| !slot.leaving || used)
    }

    pub(super) fn covers(&self, mut extents: Range<u32>) -> bool {
        extents.all(|extent| self.active(extent))
    }

    pub(super) fn nothing_wanted(&mut self) {
        self.wanted.clear();
        self.protected = 0..0;
    }

    pub(super) fn want(&mut self, extents: Range<u32>) {
        if self.wanted.is_empty() {
            self.protected = extents.clone();
        }
        for extent in extents {
            let new = !self.active(extent) && !self.wanted.contains(&extent);
            if new && self.wanted.len() < self.capacity {
                self.wanted.push(extent);
            }
        }
    }

    pub(super) fn begin(&mut self, geometry: &Geometry, blocks: &BlockRange) {
        self.clock += 1;
        for extent in geometry.extents(blocks) {
            if let Some(slot) = self.slots.get_mut(&extent) {
                slot.running += 1;
                slot.used = self.clock;
            }
        }
    }

    pub(super) fn end(&mut self, extents: Range<u32>) {
        for extent in extents {
            if let Some(slot) = self.slots.get_mut(&extent) {
                slot.running = slot.running.saturating_sub(1);
            }
        }
    }

    /// These blocks are not flushed on both copies.
    pub(super) fn unflushed(&mut self, geometry: &Geometry, blocks: &BlockRange) {
        debug_assert!(geometry.extent_blocks <= EXTENT_BLOCKS_MAX);
        for extent in geometry.extents(blocks) {
            let place = geometry.extent(extent);
            if let Some(slot) = self.slots.get_mut(&extent) {
                let first = blocks.start.max(place.start) - place.start;
                let last = blocks.end.min(place.end).saturating_sub(place.start);
                for block in first..last {
                    slot.fresh[word(block)] |= 1 << (block % 64);
                }
                self.fresh.insert(extent);
            }
        }
    }

    // --- flushes ------------------------------------------------------------------------------

    pub(super) fn flush_begins(&mut self) -> bool {
        if self.flush_runs {
            return false;
        }
        self.flush_runs = true;
        self.flushing = core::mem::take(&mut self.fresh);
        for extent in &self.flushing {
            if let Some(slot) = self.slots.get_mut(extent) {
                slot.flushing = core::mem::replace(&mut slot.fresh, [0; WORDS]);
            }
        }
        true
    }

    pub(super) fn flush_ended(&mut self, done: bool) {
        if !core::mem::take(&mut self.flush_runs) {
            return;
        }
        for extent in core::mem::take(&mut self.flushing) {
            if let Some(slot) = self.slots.get_mut(&extent) {
                let covered = core::mem::replace(&mut slot.flushing, [0; WORDS]);
                if !done && !mutant::is(Mutant::FlushAbandonedCounts) {
                    for (fresh, covered) in slot.fresh.iter_mut().zip(covered) {
                        *fresh |= covered;
                    }
                    self.fresh.insert(extent);
                }
            }
        }
    }

    pub(super) fn has_unflushed(&self) -> bool {
        !self.fresh.is_empty() || !self.flushing.is_empty()
    }

    pub(super) fn all_flushed(&mut self) {
        self.flush_runs = false;
        self.fresh.clear();
        self.flushing.clear();
        for slot in self.slots.values_mut() {
            slot.fresh = [0; WORDS];
            slot.flushing = [0; WORDS];
        }
    }

    /// The unflushed blocks, which are the caller's from now on.
    pub(super) fn diverge(&mut self, geometry: &Geometry) -> Vec<BlockRange> {
        let mut unsure = Vec::new();
        for (extent, slot) in &self.slots {
            let place = geometry.extent(*extent);
            for block in 0..place.end - place.start {
                let bits = slot.fresh[word(block)] | slot.flushing[word(block)];
                if bits & 1 << (block % 64) != 0 {
                    let at = place.start + block;
                    match unsure.last_mut() {
                        Some(BlockRange { end, .. }) if *end == at => *end += 1,
                        _ => unsure.push(at..at + 1),
                    }
                }
            }
        }
        self.all_flushed();
        unsure
    }

    // --- entering and leaving -----------------------------------------------------------------

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.slots.len())
    }

    fn is_cold(&self, extent: u32) -> bool {
        let slot = self.slots.get(&extent);
        slot.is_some_and(|slot| slot.used < self.cold_before)
    }

    /// No extent is cold any more, or none can leave: the search ends until the next [`Self::age`].
    pub(super) fn rest(&mut self) {
        self.cold_before = 0;
    }

    /// Whether more is wanted than there is room for.
    pub(super) fn is_short(&self) -> bool {
        self.wanted.len() > self.room()
    }

    /// Quiet extents that a record could drop once their marks are on disk, the longest unused first.
    pub(super) fn victims(&self, idle: bool) -> impl Iterator<Item = u32> {
        let mut victims: Vec<(u64, u32)> = Vec::new();
        let any_age = self.is_short() || idle;
        if any_age || self.cold_before > 0 {
            let quiet = self.slots.iter().filter(|(extent, slot)| {
                (any_age || slot.used < self.cold_before)
                    && slot.is_quiet()
                    && slot.is_flushed()
                    && !self.protected.contains(extent)
            });
            victims.extend(quiet.map(|(extent, slot)| (slot.used, *extent)));
            victims.sort_unstable();
        }
        victims.into_iter().map(|(_, extent)| extent)
    }

    pub(super) fn has_flushed_victim(&self) -> bool {
        self.victims(false).next().is_some()
    }

    /// The next state of the log, if something enters or leaves. `on_disk`: an extent's marks are.
    pub(super) fn next_record(
        &mut self,
        idle: bool,
        on_disk: impl Fn(u32) -> bool,
    ) -> Option<ActivityRecord> {
        let mends = core::mem::take(&mut self.lost);
        if self.wanted.is_empty() && !idle && self.cold_before == 0 && !mends {
            return None;
        }
        let mut leaving: Vec<u32> = self
            .victims(idle)
            .filter(|extent| on_disk(*extent) || mutant::is(Mutant::EvictBeforePage))
            .collect();
        if !idle {
            // The cold ones come first, and leave together.
            let cold = leaving.iter().filter(|extent| self.is_cold(**extent));
            let needed = self.wanted.len().saturating_sub(self.room());
            leaving.truncate(cold.count().max(needed));
        }
        let room = self.room() + leaving.len();
        let entering: Vec<u32> = self.wanted.iter().copied().take(room).collect();
        if entering.is_empty() && leaving.is_empty() && !mends {
            return None;
        }
        for extent in &leaving {
            if let Some(slot) = self.slots.get_mut(extent) {
                slot.leaving = true;
            }
        }
        let stay = self
            .slots
            .iter()
            .filter(|(_, slot)| !slot.leaving)
            .map(|(extent, _)| *extent);
        let mut extents: Vec<u32> = stay.chain(entering).collect();
        extents.sort_unstable();
        extents.dedup();
        self.sequence += 1;
        Some(ActivityRecord {
            sequence: self.sequence,
            extents,
        })
    }

    /// A state of the log is durable.
    pub(super) fn written(&mut self, record: &ActivityRecord) {
        self.slots.retain(|_, slot| !slot.leaving);
        self.clock += 1;
        for extent in &record.extents {
            let used = self.clock;
            self.slots
                .entry(*extent)
                .or_insert_with(|| Slot::new(used, [0; WORDS]));
        }
        let slots = &self.slots;
        self.wanted.retain(|extent| !slots.contains_key(extent));
    }
}

fn word(block: u64) -> usize {
    usize::try_from(block / 64).unwrap_or(0).min(WORDS - 1)
}
