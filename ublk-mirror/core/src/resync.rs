//! The full copy, on the source's side: what the target has, what is under way, how fast it goes.
//!
//! The grain is a chunk of [`COPY_CHUNK_BYTES`]. A chunk under way is locked against application
//! writes and never begins while one of them overlaps it, so that old data cannot land on new. In
//! chunks that the target has, application writes are mirrored; in the others they are not, the chunk
//! is copied later. See docs/adr/0001 for what is remembered durably (a cursor) and what is not.

use alloc::vec::Vec;
use core::time::Duration;

use crate::admin::{CopyCause, CopyProgress};
use crate::limits::{COPY_CHUNK_BYTES, COPY_INFLIGHT_MAX};
use crate::types::{CopyId, Instant, SECTOR_BYTES, SectorRange};

const CHUNK_SECTORS: u64 = COPY_CHUNK_BYTES as u64 / SECTOR_BYTES;
/// Rates are averaged over about this long.
const RATE_WINDOW: Duration = Duration::from_secs(4);

/// A set of chunks.
#[derive(Clone, Debug, Default)]
struct ChunkSet(Vec<u64>);

impl ChunkSet {
    fn new(chunks: usize) -> Self {
        Self(alloc::vec![0; chunks.div_ceil(64)])
    }

    fn contains(&self, chunk: usize) -> bool {
        self.0
            .get(chunk / 64)
            .is_some_and(|word| word & (1 << (chunk % 64)) != 0)
    }

    fn insert(&mut self, chunk: usize) {
        if let Some(word) = self.0.get_mut(chunk / 64) {
            *word |= 1 << (chunk % 64);
        }
    }

    fn remove(&mut self, chunk: usize) -> bool {
        let had = self.contains(chunk);
        if let Some(word) = self.0.get_mut(chunk / 64) {
            *word &= !(1 << (chunk % 64));
        }
        had
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    /// The first chunk at or after `from` that is not in the set.
    fn first_missing(&self, from: usize) -> Option<usize> {
        let mut before = (1 << (from % 64)) - 1;
        for (index, word) in self.0.iter().enumerate().skip(from / 64) {
            let missing = !(word | before);
            if missing != 0 {
                return Some(index * 64 + usize::try_from(missing.trailing_zeros()).unwrap_or(0));
            }
            before = 0;
        }
        None
    }
}

/// A chunk under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    chunk: usize,
    /// The session on which it was sent or will be sent is still the same.
    wanted: bool,
}

/// The source's knowledge of a full copy. Lives as long as the process, over many sessions.
#[derive(Debug)]
pub struct FullCopy {
    id: CopyId,
    cause: CopyCause,
    size_sectors: u64,
    chunks: usize,
    synced: ChunkSet,
    synced_count: usize,
    /// Chunks that the target got something for since its last flush.
    unflushed: ChunkSet,
    /// The same, for which a flush is under way.
    flushing: ChunkSet,
    slots: [Option<Slot>; COPY_INFLIGHT_MAX as usize],
    /// Every chunk before it is synced.
    frontier: usize,
    /// A chunk that was never free of application writes: new ones wait until it has had its turn.
    reserved: Option<usize>,
    since_checkpoint_bytes: u64,
    /// What the durable cursor may become when the flush under way is done.
    checkpoint_cursor: Option<u64>,
    knows_unflushed: bool,
    rate_from: Option<(Instant, u64)>,
    rate_bytes_per_s: u64,
}

impl FullCopy {
    /// A copy of which the target has everything before `cursor_sectors`, flushed.
    pub fn new(id: CopyId, cause: CopyCause, size_sectors: u64, cursor_sectors: u64) -> Self {
        let chunks = usize::try_from(size_sectors.div_ceil(CHUNK_SECTORS)).unwrap_or(usize::MAX);
        let mut copy = Self {
            id,
            cause,
            size_sectors,
            chunks,
            synced: ChunkSet::new(chunks),
            synced_count: 0,
            unflushed: ChunkSet::new(chunks),
            flushing: ChunkSet::new(chunks),
            slots: [None; COPY_INFLIGHT_MAX as usize],
            frontier: 0,
            reserved: None,
            since_checkpoint_bytes: 0,
            checkpoint_cursor: None,
            knows_unflushed: cursor_sectors == 0,
            rate_from: None,
            rate_bytes_per_s: 0,
        };
        let full = if cursor_sectors >= size_sectors {
            copy.chunks
        } else {
            copy.chunk_of(cursor_sectors)
        };
        for chunk in 0..full {
            copy.synced.insert(chunk);
        }
        copy.synced_count = full;
        copy.frontier = full;
        copy
    }

    /// Which copy it is.
    pub fn id(&self) -> CopyId {
        self.id
    }

    fn chunk_of(&self, sector: u64) -> usize {
        usize::try_from(sector / CHUNK_SECTORS)
            .unwrap_or(usize::MAX)
            .min(self.chunks)
    }

    fn chunks_in(&self, range: SectorRange) -> core::ops::Range<usize> {
        let last = self.chunk_of(range.end().saturating_sub(1));
        self.chunk_of(range.start)..(last + 1).min(self.chunks)
    }

    fn range_of(&self, chunk: usize) -> SectorRange {
        let start = chunk as u64 * CHUNK_SECTORS;
        let count = CHUNK_SECTORS.min(self.size_sectors - start);
        SectorRange::new(start, u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Whether a write to `range` must reach the target too.
    pub fn must_mirror(&self, range: SectorRange) -> bool {
        self.chunks_in(range)
            .any(|chunk| self.synced.contains(chunk))
    }

    /// A write to `range` was sent to the target and is not yet flushed there.
    pub fn note_mirrored(&mut self, range: SectorRange) {
        for chunk in self.chunks_in(range) {
            self.unflushed.insert(chunk);
        }
    }

    /// The target misses a write to `range`. Returns whether it had that chunk before.
    pub fn note_missed(&mut self, range: SectorRange) -> bool {
        let mut had = false;
        for chunk in self.chunks_in(range) {
            if self.synced.remove(chunk) {
                had = true;
                self.synced_count -= 1;
                self.frontier = self.frontier.min(chunk);
            }
        }
        // A checkpoint under way must not cover what was just lost.
        if let Some(cursor) = self.checkpoint_cursor.as_mut() {
            *cursor = (*cursor).min(range.start / CHUNK_SECTORS * CHUNK_SECTORS);
        }
        had
    }

    /// Whether a chunk under way (or next in turn) overlaps `range`.
    pub fn locks(&self, range: SectorRange) -> bool {
        let chunks = self.chunks_in(range);
        self.reserved.is_some_and(|chunk| chunks.contains(&chunk))
            || self
                .slots
                .iter()
                .flatten()
                .any(|slot| chunks.contains(&slot.chunk))
    }

    /// Takes the next chunk that `is_free` allows. `None`: nothing to begin now. `reading` has a bit
    /// for each slot whose buffer a disk read still owns (it may belong to an earlier copy).
    pub fn begin(
        &mut self,
        slots_max: usize,
        reading: u64,
        is_free: impl Fn(SectorRange) -> bool,
    ) -> Option<(u16, SectorRange)> {
        if self.slots.iter().flatten().count() >= slots_max {
            return None;
        }
        let unused =
            |(index, slot): (usize, &Option<Slot>)| slot.is_none() && reading & (1 << index) == 0;
        let free = self.slots.iter().enumerate().position(unused)?;
        let mut busy = None;
        let mut from = self.frontier;
        let chunk = loop {
            let Some(chunk) = self
                .synced
                .first_missing(from)
                .filter(|chunk| *chunk < self.chunks)
            else {
                break None;
            };
            from = chunk + 1;
            if self.slots.iter().flatten().any(|slot| slot.chunk == chunk) {
                continue;
            }
            if is_free(self.range_of(chunk)) {
                break Some(chunk);
            }
            busy = busy.or(Some(chunk));
        };
        let Some(chunk) = chunk else {
            // Only chunks that the application writes to all the time are left: they must have a turn.
            self.reserved = self.reserved.or(busy);
            return None;
        };
        if self.reserved == Some(chunk) {
            self.reserved = None;
        }
        self.slots[free] = Some(Slot {
            chunk,
            wanted: true,
        });
        Some((u16::try_from(free).unwrap_or(0), self.range_of(chunk)))
    }

    /// The range of the chunk in `slot`, if its session still stands.
    pub fn in_slot(&self, slot: u16) -> Option<SectorRange> {
        let entry = (*self.slots.get(usize::from(slot))?)?;
        entry.wanted.then(|| self.range_of(entry.chunk))
    }

    /// The chunk in `slot` has reached the target, or (`false`) came to nothing.
    pub fn finish(&mut self, slot: u16, arrived: Arrived) {
        let Some(entry) = self.slots.get_mut(usize::from(slot)).and_then(Option::take) else {
            return;
        };
        if arrived == Arrived::No || !entry.wanted || self.synced.contains(entry.chunk) {
            return;
        }
        self.synced.insert(entry.chunk);
        self.unflushed.insert(entry.chunk);
        self.synced_count += 1;
        self.since_checkpoint_bytes += self.range_of(entry.chunk).bytes();
        while self.frontier < self.chunks && self.synced.contains(self.frontier) {
            self.frontier += 1;
        }
    }

    /// The session ended: chunks that were sent count for nothing. Those that are still being read
    /// keep their slot (and buffer) until the read is done.
    pub fn session_lost(&mut self, still_reading: impl Fn(u16) -> bool) {
        for (index, slot) in (0u16..).zip(self.slots.iter_mut()) {
            if let Some(entry) = slot {
                entry.wanted = false;
                if !still_reading(index) {
                    *slot = None;
                }
            }
        }
        self.reserved = None;
        self.checkpoint_cursor = None;
        let unflushed = &mut self.unflushed.0;
        for (word, flushing) in unflushed.iter_mut().zip(&self.flushing.0) {
            *word |= flushing;
        }
        self.flushing.clear();
        self.rate_from = None;
    }

    /// The target's machine rebooted: what it had not flushed is gone.
    pub fn target_rebooted(&mut self) {
        for chunk in 0..self.chunks {
            if self.unflushed.contains(chunk) && self.synced.remove(chunk) {
                self.synced_count -= 1;
                self.frontier = self.frontier.min(chunk);
            }
        }
        self.unflushed.clear();
        self.flushing.clear();
    }

    /// Whether this process saw everything that the target may not have flushed. A source that was
    /// restarted did not, until the target has flushed once.
    pub fn knows_unflushed(&self) -> bool {
        self.knows_unflushed
    }

    /// Why it runs, for the status.
    pub fn set_cause(&mut self, cause: CopyCause) {
        self.cause = cause;
    }

    /// Every sector before it is on the target (not necessarily flushed).
    pub fn prefix_sectors(&self) -> u64 {
        (self.frontier as u64 * CHUNK_SECTORS).min(self.size_sectors)
    }

    /// Whether the target has everything and nothing is under way.
    pub fn is_complete(&self) -> bool {
        self.synced_count == self.chunks && self.slots.iter().all(Option::is_none)
    }

    /// Whether a checkpoint is due.
    pub fn wants_checkpoint(&self, every_bytes: u64) -> bool {
        let due = self.since_checkpoint_bytes >= every_bytes || !self.knows_unflushed;
        self.checkpoint_cursor.is_none() && due
    }

    /// A flush with drain is being sent to the target now.
    pub fn checkpoint_sent(&mut self) {
        self.checkpoint_cursor = Some(self.prefix_sectors());
        self.since_checkpoint_bytes = 0;
        core::mem::swap(&mut self.unflushed, &mut self.flushing);
        self.unflushed.clear();
    }

    /// That flush is done; returns the cursor that may become durable.
    pub fn checkpoint_done(&mut self) -> Option<u64> {
        self.flushing.clear();
        self.knows_unflushed = true;
        self.checkpoint_cursor.take()
    }

    /// Progress for the status; also moves the rate on.
    pub fn progress(&self) -> CopyProgress {
        let total_bytes = self.size_sectors * SECTOR_BYTES;
        let copied_bytes =
            (self.synced_count as u64 * u64::from(COPY_CHUNK_BYTES)).min(total_bytes);
        let eta_s = (total_bytes - copied_bytes).checked_div(self.rate_bytes_per_s);
        CopyProgress {
            cause: self.cause,
            source: true,
            copied_bytes,
            total_bytes,
            rate_bytes_per_s: self.rate_bytes_per_s,
            eta_s,
        }
    }

    /// Takes a sample for the rate.
    pub fn sample_rate(&mut self, now: Instant) {
        let copied = self.synced_count as u64 * u64::from(COPY_CHUNK_BYTES);
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

/// Whether a chunk is on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The target confirmed it.
    Yes,
    /// It came to nothing.
    No,
}
