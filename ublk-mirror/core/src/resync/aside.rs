//! What a source cannot read: put aside so that everything else is copied, and tried again now and then.
//!
//! What fails at the second try too is halved at once, down to single blocks: of a run that holds one bad sector the
//! rest is copied. What failed while the disk was out of sorts for a moment is copied in whole runs. The copy does
//! not count before nothing is left (S9).

use alloc::vec::Vec;
use core::time::Duration;

use crate::blocks::BlockRange;
use crate::limits::COPY_RETRY_AFTER;
use crate::mutant::{self, Mutant};
use crate::types::{Errno, Instant};

#[derive(Debug)]
pub(super) struct Aside {
    /// In order, not touching each other.
    bad: Vec<BlockRange>,
    /// Being tried again: no run reaches over the end of one.
    pieces: Vec<BlockRange>,
    pub(super) retry_at: Option<Instant>,
    /// It is tried again after this.
    pub(super) retry_after: Duration,
    /// The last error.
    pub(super) errno: Errno,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            bad: Vec::new(),
            pieces: Vec::new(),
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
            self.pieces.extend([run.start..middle, middle..run.end]);
            return first;
        }
        let place = self.bad.partition_point(|known| known.end < run.start);
        let mut merged = run;
        while let Some(known) = self.bad.get(place)
            && known.start <= merged.end
        {
            merged = merged.start.min(known.start)..merged.end.max(known.end);
            self.bad.remove(place);
        }
        self.bad.insert(place, merged);
        if !mutant::is(Mutant::AsideForgotten) {
            self.retry_at.get_or_insert(now + self.retry_after);
        }
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
        if let Some(piece) = self.pieces.iter().find(|known| known.contains(&start)) {
            return piece.end.min(end);
        }
        let known = self.bad.iter().chain(&self.pieces);
        let next = known
            .map(|known| known.start)
            .filter(|at| *at > start)
            .min();
        next.map_or(end, |at| at.min(end))
    }

    /// Everything is tried again when its time has come.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.pieces.append(&mut self.bad);
        }
    }

    /// These blocks were tried again. Returns whether any was to be.
    pub(super) fn tried(&mut self, run: &BlockRange) -> bool {
        let touches = |piece: &BlockRange| piece.start < run.end && run.start < piece.end;
        if !self.pieces.iter().any(touches) {
            return false;
        }
        for piece in core::mem::take(&mut self.pieces) {
            if touches(&piece) {
                let (before, after) = (piece.start..run.start, run.end..piece.end);
                let rest = [before, after].into_iter();
                self.pieces.extend(rest.filter(|part| !part.is_empty()));
            } else {
                self.pieces.push(piece);
            }
        }
        true
    }

    pub(super) fn blocks(&self) -> u64 {
        self.bad.iter().map(|known| known.end - known.start).sum()
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
            (aside.bad.len(), aside.blocks(), aside.end_of(9)),
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
        assert_eq!(aside.bad, [8..10, 11..16]);
        aside.forget(&(0..100));
        assert_eq!(aside.retry_at, None);
    }
}
