//! Which pages of the bitmap on disk lack marks, or hold marks that are gone.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::blocks::BlockRange;
use crate::disk::PAGE_BITS;
use crate::mutant::{self, Mutant};

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// Memory has marks that the disk lacks.
    stale: bool,
    /// It is being written: what it will hold is not yet there.
    writing: bool,
    /// The disk may hold marks.
    holds: bool,
}

/// The state of every page.
#[derive(Debug)]
pub(super) struct Pages {
    pages: Vec<Page>,
    /// Pages of which marks were taken away: written again when there is nothing else to do.
    cleared: BTreeSet<u64>,
    /// Every page before it was written since the sweep began; `None`: no sweep.
    sweep: Option<u64>,
}

fn pages_of(blocks: &BlockRange) -> core::ops::Range<u64> {
    if blocks.is_empty() {
        0..0
    } else {
        blocks.start / PAGE_BITS..blocks.end.div_ceil(PAGE_BITS)
    }
}

impl Pages {
    pub(super) fn new(blocks: u64) -> Self {
        let mut pages = Self {
            pages: Vec::new(),
            cleared: BTreeSet::new(),
            sweep: None,
        };
        pages.grow(blocks);
        pages
    }

    pub(super) fn grow(&mut self, blocks: u64) {
        let count = usize::try_from(blocks.div_ceil(PAGE_BITS)).unwrap_or(usize::MAX);
        if count > self.pages.len() {
            self.pages.resize(count, Page::default());
        }
    }

    fn each(&mut self, blocks: &BlockRange) -> impl Iterator<Item = (u64, &mut Page)> {
        let range = pages_of(blocks);
        let count = usize::try_from(range.end - range.start).unwrap_or(0);
        let first = usize::try_from(range.start).unwrap_or(usize::MAX);
        (range.start..).zip(self.pages.iter_mut().skip(first).take(count))
    }

    /// A page with marks was read at start.
    pub(super) fn found(&mut self, page: u64) {
        for (_, page) in self.each(&(page * PAGE_BITS..page * PAGE_BITS + 1)) {
            page.holds = true;
        }
    }

    /// Marks were added in memory.
    pub(super) fn set(&mut self, blocks: &BlockRange) {
        for (_, page) in self.each(blocks) {
            page.stale = !mutant::is(Mutant::BitmapForgotten);
        }
    }

    /// Marks were taken away in memory.
    pub(super) fn cleared(&mut self, blocks: &BlockRange) {
        let mut gone = Vec::new();
        for (index, page) in self.each(blocks) {
            if page.holds {
                gone.push(index);
            }
        }
        self.cleared.extend(gone);
    }

    /// Whether every mark of these blocks is on disk.
    pub(super) fn on_disk(&self, blocks: &BlockRange) -> bool {
        self.missing(blocks).is_none() && !self.is_writing(blocks)
    }

    fn is_writing(&self, blocks: &BlockRange) -> bool {
        self.range(blocks).any(|(_, page)| page.writing)
    }

    fn range(&self, blocks: &BlockRange) -> impl Iterator<Item = (u64, &Page)> {
        let range = pages_of(blocks);
        let count = usize::try_from(range.end - range.start).unwrap_or(0);
        let first = usize::try_from(range.start).unwrap_or(usize::MAX);
        (range.start..).zip(self.pages.iter().skip(first).take(count))
    }

    /// A page of these blocks of which marks are not on disk.
    pub(super) fn missing(&self, blocks: &BlockRange) -> Option<u64> {
        self.range(blocks)
            .find(|(_, page)| page.stale)
            .map(|(index, _)| index)
    }

    pub(super) fn begin_sweep(&mut self) {
        self.sweep = Some(0);
    }

    pub(super) fn is_swept(&self) -> bool {
        self.sweep.is_none()
    }

    /// A page to write although nobody waits for it.
    pub(super) fn next_background(&self) -> Option<u64> {
        self.sweep.or_else(|| self.cleared.first().copied())
    }

    /// A page begins to be written with what memory says now.
    pub(super) fn writes(&mut self, index: u64, any: bool) {
        self.cleared.remove(&index);
        for (_, page) in self.each(&(index * PAGE_BITS..index * PAGE_BITS + 1)) {
            page.stale = false;
            page.writing = true;
            page.holds |= any;
        }
        if self.sweep == Some(index) {
            let next = index + 1;
            self.sweep = (next < self.pages.len() as u64).then_some(next);
        }
    }

    /// It is durable.
    pub(super) fn written(&mut self, index: u64) {
        for (_, page) in self.each(&(index * PAGE_BITS..index * PAGE_BITS + 1)) {
            page.writing = false;
        }
    }
}
