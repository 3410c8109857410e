//! What a source cannot read: put aside so that everything else is copied, and tried again now and then.
//!
//! What fails at the second try too is halved at once, down to single blocks: of a run that holds one bad sector the
//! rest is copied. What failed while the disk was out of sorts for a moment is copied in whole runs. The copy does
//! not count before nothing is left (S9).

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::blocks::BlockRange;
use crate::limits::{ASIDE_RUNS_MAX, COPY_RETRY_AFTER};
use crate::mutant::{self, Mutant};
use crate::types::{Errno, Instant};

/// Runs of blocks that do not overlap. What is asked of them takes a time that hardly grows with their number: it is
/// asked with every event.
#[derive(Debug, Default)]
struct Runs {
    /// The end of each, by its start.
    ends: BTreeMap<u64, u64>,
    blocks: u64,
}

impl Runs {
    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The last one that begins at `block` or before.
    fn before(&self, block: u64) -> Option<BlockRange> {
        let (start, end) = self.ends.range(..=block).next_back()?;
        Some(*start..*end)
    }

    fn around(&self, block: u64) -> Option<BlockRange> {
        self.before(block).filter(|run| run.contains(&block))
    }

    fn next_start(&self, after: u64) -> Option<u64> {
        let (start, _) = self.ends.range(after.saturating_add(1)..).next()?;
        Some(*start)
    }

    fn insert(&mut self, run: BlockRange) {
        if !run.is_empty() {
            self.blocks += run.end - run.start;
            self.ends.insert(run.start, run.end);
        }
    }

    fn remove(&mut self, run: &BlockRange) {
        self.ends.remove(&run.start);
        self.blocks -= run.end - run.start;
    }

    /// Takes these blocks out. Returns whether any was in.
    fn cut(&mut self, blocks: &BlockRange) -> bool {
        let mut found = false;
        while let Some(known) = self
            .before(blocks.end.saturating_sub(1))
            .filter(|known| known.end > blocks.start)
        {
            found = true;
            self.remove(&known);
            self.insert(blocks.end..known.end.max(blocks.end));
            self.insert(known.start..blocks.start.max(known.start));
        }
        found
    }

    /// Puts these in, as one with those that they touch; with the one before them too if there are too many.
    fn merge(&mut self, run: BlockRange) {
        let mut merged = run;
        while let Some(known) = self.before(merged.end).filter(|known| {
            let full = self.ends.len() >= ASIDE_RUNS_MAX;
            known.end >= merged.start || full
        }) {
            self.remove(&known);
            merged = merged.start.min(known.start)..merged.end.max(known.end);
        }
        self.insert(merged);
    }
}

#[derive(Debug)]
pub(super) struct Aside {
    /// Not touching each other.
    bad: Runs,
    /// Being tried again: no run reaches over the end of one.
    pieces: Runs,
    pub(super) retry_at: Option<Instant>,
    /// It is tried again after this.
    pub(super) retry_after: Duration,
    /// The last error.
    pub(super) errno: Errno,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            bad: Runs::default(),
            pieces: Runs::default(),
            retry_at: None,
            retry_after: COPY_RETRY_AFTER,
            errno: Errno::EIO,
        }
    }
}

impl Aside {
    /// Returns whether nothing was known to be unreadable before.
    pub(super) fn put(&mut self, now: Instant, run: BlockRange, errno: Errno) -> bool {
        self.errno = errno;
        let first = self.bad.is_empty() && self.pieces.is_empty();
        if self.tried(&run) && run.end - run.start > 1 {
            let middle = run.start + (run.end - run.start) / 2;
            self.pieces.insert(run.start..middle);
            self.pieces.insert(middle..run.end);
            return first;
        }
        self.bad.merge(run);
        if !mutant::is(Mutant::AsideForgotten) {
            self.retry_at.get_or_insert(now + self.retry_after);
        }
        first
    }

    /// These blocks are read again when their turn comes.
    pub(super) fn forget(&mut self, blocks: &BlockRange) {
        if self.bad.cut(blocks) && self.bad.is_empty() {
            self.retry_at = None;
        }
    }

    /// The end of what is put aside around `block`.
    pub(super) fn end_of(&self, block: u64) -> Option<u64> {
        self.bad.around(block).map(|known| known.end)
    }

    /// Where a run that begins with `start` has to end at the latest.
    pub(super) fn limit(&self, start: u64, end: u64) -> u64 {
        if let Some(piece) = self.pieces.around(start) {
            return piece.end.min(end);
        }
        let next = [&self.bad, &self.pieces].map(|runs| runs.next_start(start));
        next.into_iter().flatten().fold(end, u64::min)
    }

    /// Everything is tried again when its time has come.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for (start, end) in core::mem::take(&mut self.bad).ends {
                self.pieces.cut(&(start..end));
                self.pieces.insert(start..end);
            }
        }
    }

    /// These blocks were tried again. Returns whether any was to be.
    pub(super) fn tried(&mut self, run: &BlockRange) -> bool {
        self.pieces.cut(run)
    }

    pub(super) fn blocks(&self) -> u64 {
        self.bad.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_aside_is_skipped_until_its_time_and_then_halved_down_to_what_is_bad() {
        let now = Instant::default();
        let mut aside = Aside::default();
        assert!(aside.put(now, 8..16, Errno::EIO));
        assert!(!aside.put(now, 16..20, Errno::EIO));
        assert_eq!(aside.end_of(9), Some(20));
        assert_eq!(aside.end_of(20), None);
        assert_eq!(aside.limit(0, 12), 8);
        aside.retry(now);
        assert_eq!(aside.blocks(), 12);
        aside.retry(now + COPY_RETRY_AFTER);
        assert_eq!(aside.end_of(9), None);
        assert_eq!((aside.limit(8, 16), aside.limit(8, 30)), (16, 20));
        assert_eq!(aside.limit(0, 12), 8);
        // Block 9 alone is bad.
        aside.put(now, 8..16, Errno::EIO);
        assert_eq!((aside.blocks(), aside.limit(8, 16)), (0, 12));
        for (start, end) in [(8, 12), (8, 10), (9, 10)] {
            assert_eq!(aside.limit(start, 16), end);
            aside.put(now, start..end, Errno::EIO);
            assert!(start == 9 || aside.limit(8, 16) == start + (end - start) / 2);
            if end == 10 && start == 8 {
                assert!(aside.tried(&(8..9)), "that one can be read");
            }
        }
        assert_eq!(
            (aside.bad.ends.len(), aside.blocks(), aside.end_of(9)),
            (1, 1, Some(10))
        );
        assert!(aside.retry_at.is_some());
        for good in [10..12, 12..16, 16..20] {
            assert!(aside.tried(&good));
        }
        assert!(aside.pieces.is_empty());
    }

    #[test]
    fn what_was_written_is_not_aside_any_more() {
        let mut aside = Aside::default();
        aside.put(Instant::default(), 8..16, Errno::EIO);
        aside.forget(&(10..11));
        assert!(aside.bad.ends.iter().eq([(&8, &10), (&11, &16)]));
        assert_eq!(aside.blocks(), 7);
        aside.forget(&(0..100));
        assert_eq!(aside.retry_at, None);
    }

    #[test]
    fn a_disk_full_of_bad_blocks_costs_bounded_memory() {
        let mut aside = Aside::default();
        for index in 0..2 * ASIDE_RUNS_MAX as u64 {
            aside.put(Instant::default(), 2 * index..2 * index + 1, Errno::EIO);
        }
        assert_eq!(aside.bad.ends.len(), ASIDE_RUNS_MAX);
        let last = 4 * ASIDE_RUNS_MAX as u64 - 2;
        assert_eq!(aside.end_of(last), Some(last + 1));
        assert_eq!(aside.end_of(1), None);
        aside.retry(Instant::default() + COPY_RETRY_AFTER);
        assert_eq!(aside.blocks(), 0);
        assert!(aside.tried(&(0..last + 1)));
        assert!(aside.pieces.is_empty());
        assert_eq!(aside.pieces.blocks, 0);
    }
}
