//! What a source cannot read: put aside so that everything else is copied, and tried again now and then.
//!
//! The second try takes single blocks: of a run that holds one bad sector the rest is copied too. The copy
//! does not count before nothing is left (S9).

use alloc::vec::Vec;
use core::time::Duration;

use crate::blocks::BlockRange;
use crate::types::{Errno, Instant};

/// What could not be read is tried again after this: a disk takes seconds for one bad sector.
const RETRY_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Aside {
    /// In order, not touching each other.
    bad: Vec<BlockRange>,
    /// To be tried block by block.
    single: Vec<BlockRange>,
    pub(super) retry_at: Option<Instant>,
    /// The last error.
    pub(super) errno: Errno,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            bad: Vec::new(),
            single: Vec::new(),
            retry_at: None,
            errno: Errno::EIO,
        }
    }
}

impl Aside {
    /// Returns whether nothing was known to be unreadable before.
    pub(super) fn put(&mut self, now: Instant, run: BlockRange, errno: Errno) -> bool {
        self.errno = errno;
        let first = self.bad.is_empty() && self.single.is_empty();
        let place = self.bad.partition_point(|known| known.end < run.start);
        let mut merged = run;
        while let Some(known) = self.bad.get(place)
            && known.start <= merged.end
        {
            merged = merged.start.min(known.start)..merged.end.max(known.end);
            self.bad.remove(place);
        }
        self.bad.insert(place, merged);
        self.retry_at.get_or_insert(now + RETRY_AFTER);
        first
    }

    /// These blocks are read again when their turn comes.
    pub(super) fn forget(&mut self, blocks: &BlockRange) {
        let touches = |known: &BlockRange| known.start < blocks.end && blocks.start < known.end;
        if !self.bad.iter().any(touches) {
            return;
        }
        let parts = core::mem::take(&mut self.bad);
        for known in parts {
            let before = known.start..known.end.min(blocks.start).max(known.start);
            let after = known.start.max(blocks.end).min(known.end)..known.end;
            if touches(&known) {
                self.bad
                    .extend([before, after].into_iter().filter(|part| !part.is_empty()));
            } else {
                self.bad.push(known);
            }
        }
        if self.bad.is_empty() {
            self.retry_at = None;
        }
    }

    /// The end of what is put aside around `block`.
    pub(super) fn end_of(&self, block: u64) -> Option<u64> {
        let known = self.bad.iter().find(|known| known.contains(&block))?;
        Some(known.end)
    }

    /// Where a run that begins with `start` has to end at the latest.
    pub(super) fn limit(&self, start: u64, end: u64) -> u64 {
        if self.single.iter().any(|known| known.contains(&start)) {
            return start + 1;
        }
        let known = self.bad.iter().chain(&self.single);
        let next = known
            .map(|known| known.start)
            .filter(|at| *at > start)
            .min();
        next.map_or(end, |at| at.min(end))
    }

    /// Everything is tried again, block by block, when its time has come.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.single = core::mem::take(&mut self.bad);
        }
    }

    pub(super) fn blocks(&self) -> u64 {
        self.bad.iter().map(|known| known.end - known.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_aside_is_skipped_until_its_time_and_then_taken_block_by_block() {
        let now = Instant::default();
        let mut aside = Aside::default();
        assert!(aside.put(now, 8..16, Errno::EIO));
        assert!(!aside.put(now, 16..20, Errno::EIO));
        assert_eq!(aside.end_of(9), Some(20));
        assert_eq!(aside.end_of(20), None);
        assert_eq!(aside.limit(0, 12), 8);
        aside.retry(now);
        assert_eq!(aside.blocks(), 12);
        aside.retry(now + RETRY_AFTER);
        assert_eq!(aside.end_of(9), None);
        assert_eq!(aside.limit(9, 20), 10);
        assert_eq!(aside.limit(0, 12), 8);
    }

    #[test]
    fn what_was_written_is_not_aside_any_more() {
        let mut aside = Aside::default();
        aside.put(Instant::default(), 8..16, Errno::EIO);
        aside.forget(&(10..11));
        assert_eq!(aside.bad, [8..10, 11..16]);
        aside.forget(&(0..100));
        assert_eq!(aside.retry_at, None);
    }
}
