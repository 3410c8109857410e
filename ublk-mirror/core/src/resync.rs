//! A resync, on the source's side: what the target lacks, what is under way, how fast it goes.
//!
//! It begins with every mark of both sides (S8) and lives as long as the session. A run of blocks under
//! way is locked against application writes and never begins while one of them overlaps it, so that old
//! data cannot land on new. Where the target has everything, application writes are mirrored; elsewhere
//! they are not, the block is copied later. A mark is taken away only when the target has flushed what it
//! got (S7).

mod aside;

use alloc::vec::Vec;
use core::time::Duration;

use crate::admin::{CopyCause, CopyProgress};
use crate::blocks::{BlockRange, BlockSet, Geometry};
use crate::limits::{COPY_CHUNK_BYTES, COPY_COMPARE_BYTES, COPY_INFLIGHT_MAX, COPY_RUNS_MAX};
use crate::mutant::{self, Mutant};
use crate::notice::Notice;
use crate::types::{Errno, Instant, SECTOR_BYTES, SectorRange};
use aside::Aside;

/// Rates are averaged over about this long.
const RATE_WINDOW: Duration = Duration::from_secs(4);

/// The source's knowledge of a resync.
#[derive(Debug)]
pub struct Resync {
    cause: CopyCause,
    geometry: Geometry,
    chunk_blocks: u64,
    compare_blocks: u64,
    /// Blocks that the target lacks.
    todo: BlockSet,
    /// Blocks that were to be copied, with those that were added since.
    total_blocks: u64,
    slots: [Option<BlockRange>; COPY_INFLIGHT_MAX as usize],
    /// Where to look for the next run.
    cursor: u64,
    /// A run that was never free of application writes: new ones wait until it has had its turn.
    reserved: Option<BlockRange>,
    /// What could not be read here.
    aside: Aside,
    /// What the target got since its last flush.
    arrived: Vec<BlockRange>,
    /// What its flush under way covers.
    flushing: Option<Vec<BlockRange>>,
    arrived_bytes: u64,
    copied_bytes: u64,
    hashing: Hashing,
    small_runs: bool,
    rate_from: Option<(Instant, u64)>,
    rate_bytes_per_s: u64,
}

impl Resync {
    /// A resync of the marked blocks. `total_blocks` is what earlier sessions of the same resync had to
    /// copy; it is at least what is marked now. `likeness`: whether comparing the marked blocks first pays.
    pub fn new(
        cause: CopyCause,
        geometry: Geometry,
        marks: &BlockSet,
        total_blocks: u64,
        likeness: Likeness,
    ) -> Self {
        let block_bytes = geometry.block_sectors * SECTOR_BYTES;
        Self {
            cause,
            geometry,
            chunk_blocks: (u64::from(COPY_CHUNK_BYTES) / block_bytes).max(1),
            compare_blocks: (u64::from(COPY_COMPARE_BYTES) / block_bytes).max(1),
            todo: marks.clone(),
            total_blocks: total_blocks.max(marks.count()),
            slots: [const { None }; COPY_INFLIGHT_MAX as usize],
            cursor: 0,
            reserved: None,
            aside: Aside::default(),
            arrived: Vec::new(),
            flushing: None,
            arrived_bytes: 0,
            copied_bytes: 0,
            hashing: Hashing::new(likeness),
            small_runs: false,
            rate_from: None,
            rate_bytes_per_s: 0,
        }
    }

    /// Blocks that were to be copied over all sessions of this resync.
    pub fn total_blocks(&self) -> u64 {
        self.total_blocks
    }

    /// Whether a write to `range` must reach the target too: it has some of these blocks.
    pub fn must_mirror(&self, range: SectorRange) -> bool {
        let blocks = self.geometry.touched(range);
        self.todo.first_missing_from(blocks.start) < blocks.end
    }

    /// The target misses a write to `range`.
    pub fn missed(&mut self, range: SectorRange) {
        let before = self.todo.count();
        // A block that was written can be read again.
        self.aside.forget(&self.geometry.touched(range));
        self.todo.insert(self.geometry.touched(range));
        self.total_blocks += self.todo.count() - before;
    }

    /// The target has a mirrored write to `range`, not yet flushed.
    pub fn mirrored(&mut self, range: SectorRange) {
        self.note_arrived(self.geometry.touched(range));
    }

    fn note_arrived(&mut self, blocks: BlockRange) {
        self.arrived_bytes += self.geometry.sectors(&blocks).bytes();
        match self.arrived.last_mut() {
            Some(last) if last.end == blocks.start => last.end = blocks.end,
            _ => self.arrived.push(blocks),
        }
        if self.arrived.len() >= 2 * COPY_RUNS_MAX {
            // No flush came for long: what is written again and again counts once.
            self.arrived = merged(core::mem::take(&mut self.arrived));
        }
    }

    /// Whether a run under way (or next in turn) overlaps `range`.
    pub fn locks(&self, range: SectorRange) -> bool {
        let blocks = self.geometry.touched(range);
        let overlaps = |other: &BlockRange| other.start < blocks.end && blocks.start < other.end;
        self.reserved.as_ref().is_some_and(overlaps) || self.slots.iter().flatten().any(overlaps)
    }

    /// Runs under way.
    pub fn under_way(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Takes the next run that `is_free` allows. `None`: nothing to begin now. `unused`: no disk
    /// read owns the slot's buffer any more (one of an earlier session may).
    /// `reserved_only`: none but the one for which new writes wait.
    pub fn begin(
        &mut self,
        slots_max: usize,
        reserved_only: bool,
        unused: impl Fn(usize) -> bool,
        is_free: impl Fn(SectorRange) -> bool,
    ) -> Option<(u16, SectorRange)> {
        // With nothing left but what is put aside there is nothing to look for.
        let nothing = self.todo.count() <= self.aside.blocks();
        if nothing || self.under_way() >= slots_max {
            return None;
        }
        let mut slots = self.slots.iter().enumerate();
        let free = slots.position(|(index, slot)| slot.is_none() && unused(index))?;
        if let Some(run) = self.reserved.clone()
            && is_free(self.geometry.sectors(&run))
        {
            self.reserved = None;
            return Some(self.take(free, run));
        }
        if reserved_only {
            return None;
        }
        let (mut from, mut wrapped, mut busy) = (self.cursor, false, None);
        loop {
            let Some(start) = self.todo.first_from(from) else {
                if wrapped || self.cursor == 0 {
                    break;
                }
                (from, wrapped) = (0, true);
                continue;
            };
            if wrapped && start >= self.cursor {
                break;
            }
            if let Some(end) = self.aside.end_of(start) {
                from = end;
                continue;
            }
            let run = self.run_at(start);
            from = run.end;
            // The reserved run may be of another size: neither may it begin twice.
            let overlaps = |other: &BlockRange| other.start < run.end && run.start < other.end;
            let taken = self.slots.iter().flatten().any(overlaps);
            if taken || self.reserved.as_ref().is_some_and(overlaps) {
                continue;
            }
            if is_free(self.geometry.sectors(&run)) {
                self.cursor = run.end;
                return Some(self.take(free, run));
            }
            busy = busy.or(Some(run));
        }
        // Only runs that the application writes to all the time are left: they must have a turn.
        if self.reserved.is_none() {
            self.reserved = busy;
        }
        None
    }

    /// The longest run of one chunk that begins with `start` and is under way nowhere.
    fn run_at(&self, start: u64) -> BlockRange {
        let chunk_blocks = if self.hashing.on() || self.small_runs {
            self.compare_blocks
        } else {
            self.chunk_blocks
        };
        let chunk_end = (start / chunk_blocks + 1) * chunk_blocks;
        let end = self.todo.first_missing_from(start).min(chunk_end);
        let taken = self.slots.iter().flatten();
        let inside = taken.filter(|slot| slot.start > start && slot.start < end);
        let end = inside.map(|slot| slot.start).min().unwrap_or(end);
        let end = self.aside.limit(start, end);
        match self
            .slots
            .iter()
            .flatten()
            .find(|slot| slot.contains(&start))
        {
            Some(slot) => start..slot.end,
            None => start..end,
        }
    }

    fn take(&mut self, free: usize, run: BlockRange) -> (u16, SectorRange) {
        let range = self.geometry.sectors(&run);
        if mutant::is(Mutant::CompleteInFlight) {
            self.todo.remove(run.clone());
        }
        self.slots[free] = Some(run);
        self.hashing.took_one();
        (u16::try_from(free).unwrap_or(0), range)
    }

    /// While the application works, runs are small: it waits less for the link and the disks.
    pub fn set_small_runs(&mut self, small: bool) {
        self.small_runs = small;
    }

    /// Whether writes wait for a run that has not begun.
    pub fn reserves(&self) -> bool {
        self.reserved.is_some()
    }

    /// No run has to have its turn: the resync stands still.
    pub fn unreserve(&mut self) {
        self.reserved = None;
    }

    /// The sectors of the run in `slot`.
    pub fn in_slot(&self, slot: u16) -> Option<SectorRange> {
        let run = self.slots.get(usize::from(slot))?.as_ref()?;
        Some(self.geometry.sectors(run))
    }

    /// The run in `slot` has reached the target, or came to nothing.
    pub fn finish(&mut self, slot: u16, arrived: Arrived) {
        let Some(run) = self.slots.get_mut(usize::from(slot)).and_then(Option::take) else {
            return;
        };
        if arrived == Arrived::Yes {
            self.aside.tried(&run);
            self.todo.remove(run.clone());
            self.copied_bytes += self.geometry.sectors(&run).bytes();
            self.note_arrived(run);
        }
    }

    /// The run in `slot` cannot be read here: the others go first, and it is tried again later.
    /// Returns whether it is the first one.
    pub fn put_aside(&mut self, now: Instant, slot: u16, errno: Errno) -> bool {
        let run = self.slots.get_mut(usize::from(slot)).and_then(Option::take);
        if mutant::is(Mutant::AsideCountsAsCopied)
            && let Some(run) = run.clone()
        {
            self.todo.remove(run);
        }
        run.is_some_and(|run| self.aside.put(now, run, errno))
    }

    /// What cannot be read is tried again after this.
    pub fn set_retry_after(&mut self, retry_after: Duration) {
        self.aside.retry_after = retry_after;
    }

    /// When what could not be read is tried again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.aside.retry_at
    }

    /// Tries again what could not be read, when its time has come.
    pub fn retry(&mut self, now: Instant) {
        self.aside.retry(now);
    }

    /// What could not be read when it was last tried.
    pub fn unreadable(&self) -> Option<Notice> {
        let bytes = self.aside.blocks() * self.geometry.block_sectors * SECTOR_BYTES;
        let errno = self.aside.errno;
        (bytes > 0).then_some(Notice::CopyReadFailed { errno, bytes })
    }

    /// Whether the target should be asked first if it has a run already.
    pub fn hashes(&self) -> bool {
        self.hashing.on()
    }

    /// It had the run that it was asked for, or not.
    pub fn compared(&mut self, equal: bool) {
        self.hashing.note(equal);
    }

    /// Whether the target has everything and nothing is under way.
    pub fn is_complete(&self) -> bool {
        let early = mutant::is(Mutant::CompleteInFlight);
        self.todo.is_empty() && (early || self.slots.iter().all(Option::is_none))
    }

    /// Whether the target should flush, so that marks can be taken away.
    pub fn wants_checkpoint(&self, every_bytes: u64) -> bool {
        let due = self.arrived_bytes >= every_bytes || self.arrived.len() >= COPY_RUNS_MAX;
        self.flushing.is_none() && due
    }

    /// A flush with drain is being sent to the target now.
    pub fn checkpoint_sent(&mut self) {
        self.arrived_bytes = 0;
        self.flushing = Some(core::mem::take(&mut self.arrived));
    }

    /// That flush is done; returns the runs that are equal on both sides and flushed on the target.
    /// `running` are mirrored writes that have begun and not ended.
    pub fn checkpoint_done(
        &mut self,
        running: impl Iterator<Item = SectorRange>,
    ) -> Vec<BlockRange> {
        self.arrived = merged(core::mem::take(&mut self.arrived));
        let mut newer = self.arrived.clone();
        newer.extend(running.map(|range| self.geometry.touched(range)));
        let mut newer = merged(newer);
        newer.retain(|_| !mutant::is(Mutant::CheckpointIgnoresNewer));
        let mut equal: Vec<BlockRange> = Vec::new();
        if mutant::is(Mutant::CheckpointCoversLater) {
            newer.clear();
            self.flushing
                .get_or_insert_default()
                .append(&mut self.arrived);
        }
        for run in self.flushing.take().unwrap_or_default() {
            for block in run {
                // What was missed or written again since is not covered.
                if self.todo.contains(block) || contains(&newer, block) {
                    continue;
                }
                match equal.last_mut() {
                    Some(last) if last.end == block => last.end += 1,
                    _ => equal.push(block..block + 1),
                }
            }
        }
        equal
    }

    /// Progress for the status.
    pub fn progress(&self) -> CopyProgress {
        let block_bytes = self.geometry.block_sectors * SECTOR_BYTES;
        let total_bytes = self.total_blocks * block_bytes;
        let left_bytes = self.todo.count() * block_bytes;
        CopyProgress {
            cause: self.cause,
            source: true,
            copied_bytes: total_bytes.saturating_sub(left_bytes),
            total_bytes,
            rate_bytes_per_s: self.rate_bytes_per_s,
            eta_s: left_bytes.checked_div(self.rate_bytes_per_s),
            beside: None,
        }
    }

    /// Takes a sample for the rate.
    pub fn sample_rate(&mut self, now: Instant) {
        let copied = self.copied_bytes;
        match self.rate_from {
            None => self.rate_from = Some((now, copied)),
            Some((from, before)) => {
                let passed = now.since(from);
                if passed >= RATE_WINDOW / 4 {
                    let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
                    let rate = copied.saturating_sub(before).saturating_mul(1000) / millis;
                    let old = if self.rate_bytes_per_s == 0 {
                        rate
                    } else {
                        self.rate_bytes_per_s
                    };
                    self.rate_bytes_per_s = (old * 3 + rate) / 4;
                    self.rate_from = Some((now, copied));
                }
            }
        }
    }
}

/// What is known of the blocks that a resync has to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// Many may be equal: the marks of whole extents, or of a copy of unknown state.
    Equal,
    /// They really were written to.
    Different,
    /// What the target's disk reads back proves nothing: it failed, and may answer from a cache what it
    /// never wrote. Every block is written again (S1).
    Distrusted,
}

/// Whether runs are compared by their digests before they are sent. That pays where many are equal: after a
/// crash, when equal disks are copied in full. Where they turn out to differ it stops, and tries again later.
#[derive(Clone, Copy, Debug)]
struct Hashing {
    /// Runs that were compared since the last decision, and how many of them were equal.
    compared: u32,
    equal: u32,
    /// Runs to send without a question before the next try.
    pause: u32,
    /// There is no next try.
    never: bool,
}

/// Runs after which it is decided anew.
const HASH_TRIAL: u32 = 16;
/// Of those, as many must be equal.
const HASH_EQUAL_MIN: u32 = 4;
/// Runs that are sent without a question when too few were equal.
const HASH_PAUSE: u32 = 256;

impl Hashing {
    fn new(likeness: Likeness) -> Self {
        Self {
            compared: 0,
            equal: 0,
            pause: if likeness == Likeness::Equal {
                0
            } else {
                HASH_PAUSE
            },
            never: likeness == Likeness::Distrusted,
        }
    }

    fn on(&self) -> bool {
        self.pause == 0 && !self.never
    }

    fn took_one(&mut self) {
        self.pause = self.pause.saturating_sub(1);
    }

    fn note(&mut self, equal: bool) {
        self.compared += 1;
        self.equal += u32::from(equal);
        if self.compared >= HASH_TRIAL {
            if self.equal < HASH_EQUAL_MIN {
                self.pause = HASH_PAUSE;
            }
            (self.compared, self.equal) = (0, 0);
        }
    }
}

/// The same blocks as runs that are sorted and do not touch.
fn merged(mut runs: Vec<BlockRange>) -> Vec<BlockRange> {
    runs.sort_unstable_by_key(|run| run.start);
    let mut merged: Vec<BlockRange> = Vec::with_capacity(runs.len());
    for run in runs {
        match merged.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => merged.push(run),
        }
    }
    merged
}

/// Whether a block lies in one of the merged runs.
fn contains(merged: &[BlockRange], block: u64) -> bool {
    let after = merged.partition_point(|run| run.start <= block);
    after > 0 && block < merged[after - 1].end
}

/// Whether a run is on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The target confirmed it.
    Yes,
    /// It came to nothing.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_reserved_run_does_not_begin_before_it() {
        let geometry = Geometry::new(8192, 4096, 8192);
        let mut marks = BlockSet::new(geometry.blocks());
        marks.insert(0..128);
        let cause = CopyCause::Outdated;
        let mut copy = Resync::new(cause, geometry, &marks, 0, Likeness::Different);
        let written = SectorRange::new(1000, 8);
        let begun = copy.begin(8, false, |_| true, |range| !range.overlaps(written));
        assert_eq!(begun, None, "an application writes in the only run");
        assert!(copy.locks(written), "which is next in turn");
        copy.set_small_runs(true);
        let begun = copy.begin(8, false, |_| true, |range| !range.overlaps(written));
        assert_eq!(begun, None, "a smaller run would be copied twice at a time");
        let (_, whole) = copy.begin(8, false, |_| true, |_| true).expect("its turn");
        assert_eq!(whole, SectorRange::new(0, 1024));
    }
}
