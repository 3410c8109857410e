//! Write intent and memory of differences: what is durable before a write may begin, and what remembers
//! where the peer's copy may differ (S7).
//!
//! Three things say that a block may differ: the *activity log* on disk names its extent; a *mark* in
//! memory; the mark on disk. An extent enters the log before the first write to it is submitted to either
//! leg, and leaves it only when every write to it is flushed on both copies, or its marks are on disk.
//! What is being written to disk right now counts for neither side: it is not yet there, and what it
//! drops is not active any more.

mod log;
mod pages;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;

use crate::blocks::{BlockRange, BlockSet, Geometry};
use crate::disk::{ActivityFound, ActivityRecord, BitmapPage, Layout, Metadata, PAGE_BITS};
use crate::effect::{Effect, Effects};
use crate::mutant::{self, Mutant};
use crate::types::{NodeId, SectorRange};
use crate::wire::Marks;
use log::Log;
use pages::Pages;

/// What is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Writing {
    Log(ActivityRecord),
    Page(u64),
}

/// The activity log and the bitmap of the peer.
#[derive(Debug)]
pub struct Intent {
    geometry: Geometry,
    layout: Layout,
    me: NodeId,
    peer: NodeId,
    log: Log,
    marks: BlockSet,
    pages: Pages,
    writing: Option<(u64, Writing)>,
    next_id: u64,
    log_writes: u64,
    page_writes: u64,
    /// The metadata failed, and what they say is believed by nobody: nothing waits for them.
    given_up: bool,
}

impl Intent {
    /// As the metadata says. `hot_extents_max` bounds the activity log (1..=1000).
    pub fn new(metadata: &Metadata, hot_extents_max: usize) -> Self {
        let superblock = &metadata.superblock;
        let geometry = Geometry::new(
            superblock.size_sectors,
            superblock.layout.bitmap_block_bytes,
            superblock.chunk_sectors,
        );
        let mut intent = Self {
            geometry,
            layout: superblock.layout,
            me: superblock.node,
            peer: superblock.peer,
            log: Log::new(hot_extents_max),
            marks: BlockSet::new(geometry.blocks()),
            pages: Pages::new(geometry.blocks()),
            writing: None,
            next_id: 1,
            log_writes: 0,
            page_writes: 0,
            given_up: false,
        };
        for (page, found) in (0u64..).zip(&metadata.bitmap) {
            match found {
                Ok(found) => intent.load_page(found),
                Err(_) if mutant::is(Mutant::DamagedPageClean) => {}
                // Nobody knows: every block may differ.
                Err(_) => {
                    intent.mark(page * PAGE_BITS..(page + 1) * PAGE_BITS);
                    intent.pages.found(page);
                }
            }
        }
        match &metadata.activity {
            ActivityFound::Known(record) => intent.log.load(record, &geometry),
            ActivityFound::Lost { next_sequence, .. } => {
                // Until the bitmap on disk says so, the log must stay lost.
                intent.mark_all();
                intent.pages.begin_sweep();
                intent.log.load_lost(*next_sequence);
            }
        }
        if superblock.copy.is_some_and(|copy| copy.full) {
            intent.mark_all();
            intent.pages.begin_sweep();
        }
        intent
    }

    fn load_page(&mut self, found: &BitmapPage) {
        let first = found.page * PAGE_BITS / 64;
        let mut any = false;
        for (word, bits) in (first..).zip(found.words) {
            any |= bits != 0;
            self.marks.insert_word(word, bits);
        }
        if any {
            self.pages.found(found.page);
        }
    }

    /// The volume's size became known, or it grew.
    pub fn set_size(&mut self, size_sectors: u64) {
        self.geometry.size_sectors = size_sectors;
        let blocks = self.geometry.blocks();
        // A joining copy may have offered more.
        self.marks.remove(blocks..u64::MAX);
        self.marks.grow(blocks);
        self.pages.grow(blocks);
    }

    /// How sectors, blocks and extents belong together.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The blocks where the peer's copy may differ, as far as it is known without the log.
    pub fn marks(&self) -> &BlockSet {
        &self.marks
    }

    /// Writes of the activity log and of bitmap pages in this run.
    pub fn writes(&self) -> (u64, u64) {
        (self.log_writes, self.page_writes)
    }

    // --- marks --------------------------------------------------------------------------------

    fn mark(&mut self, blocks: BlockRange) {
        if self.marks.insert(blocks.clone()) {
            self.pages.set(&blocks);
        }
    }

    /// The peer misses a write to `range`, or may miss it.
    pub fn missed(&mut self, range: SectorRange) {
        if mutant::is(Mutant::RoundedInward) {
            let block_sectors = self.geometry.block_sectors;
            let inside = range.start.div_ceil(block_sectors)..range.end() / block_sectors;
            return self.mark(inside.start.min(inside.end)..inside.end);
        }
        self.mark(self.geometry.touched(range));
    }

    /// Every block may differ (a copy that never held this volume, or of which nothing is known). Until
    /// [`Self::is_swept`] the superblock has to say so.
    pub fn mark_all(&mut self) {
        self.mark(0..self.geometry.blocks());
    }

    /// Begins to write every page of the bitmap once.
    pub fn begin_sweep(&mut self) {
        self.pages.begin_sweep();
    }

    /// Whether every page was written since [`Self::begin_sweep`].
    pub fn is_swept(&self) -> bool {
        mutant::is(Mutant::SweptTooEarly)
            || self.pages.is_swept() && !matches!(self.writing, Some((_, Writing::Page(_))))
    }

    /// The target's marks: both sides' are united (S8).
    pub fn unite(&mut self, theirs: &Marks) {
        let own = self.geometry.block_sectors;
        for (word, bits) in (theirs.first_word..).zip(theirs.words) {
            if u64::from(theirs.block_sectors) == own {
                if self.marks.insert_word(word, bits) {
                    self.pages.set(&(word * 64..(word + 1) * 64));
                }
                continue;
            }
            for bit in (0..64).filter(|bit| bits & 1 << bit != 0) {
                let start = (word * 64 + bit) * u64::from(theirs.block_sectors);
                if start < self.geometry.size_sectors {
                    self.missed(SectorRange::new(start, theirs.block_sectors));
                }
            }
        }
    }

    /// Both copies are equal and flushed there.
    pub fn equal(&mut self, blocks: BlockRange) {
        if self.marks.remove(blocks.clone()) {
            self.pages.cleared(&blocks);
        }
    }

    /// Both copies are equal and flushed everywhere, and nobody writes.
    pub fn all_equal(&mut self) {
        self.equal(0..self.geometry.blocks());
        self.log.all_flushed();
    }

    /// Both copies have flushed everything that was ever written.
    pub fn all_flushed(&mut self) {
        self.log.all_flushed();
    }

    /// The marks are equal and flushed; what the log says of newer writes stays.
    pub fn marks_equal(&mut self) {
        self.equal(0..self.geometry.blocks());
    }

    /// The peer's copy does not count any more, or this one does not: what may not be on both copies for
    /// sure becomes a mark.
    pub fn diverge(&mut self) {
        for blocks in self.log.diverge(&self.geometry) {
            if mutant::is(Mutant::DivergeForgotten) {
                break;
            }
            self.mark(blocks);
        }
    }

    // --- the activity log ---------------------------------------------------------------------

    /// Nothing is written any more, and nothing waits for it: this copy does not count, and all of it will be
    /// written again.
    pub fn give_up(&mut self) {
        self.given_up = !mutant::is(Mutant::GivenUpLogWritten);
    }

    /// Whether a write to `range` may begin.
    pub fn covers(&self, range: SectorRange) -> bool {
        if self.given_up {
            return true;
        }
        let extents = self.geometry.extents(&self.geometry.touched(range));
        self.log.covers(extents)
    }

    /// Forgets what was wanted: the waiting requests ask again.
    pub fn nothing_wanted(&mut self) {
        self.log.nothing_wanted();
    }

    /// A request waits for its extents.
    pub fn want(&mut self, range: SectorRange) {
        let extents = self.geometry.extents(&self.geometry.touched(range));
        self.log.want(extents);
    }

    /// A write to `range` begins. `shared`: the peer's copy counts and gets it too.
    pub fn begin(&mut self, range: SectorRange, shared: bool) {
        let blocks = self.geometry.touched(range);
        self.log.begin(&self.geometry, &blocks);
        if shared && !mutant::is(Mutant::BeginNotUnflushed) {
            self.log.unflushed(&self.geometry, &blocks);
        }
    }

    /// A write to `range` that is running is not covered by a flush that begins now.
    pub fn unflushed(&mut self, range: SectorRange) {
        let blocks = self.geometry.touched(range);
        self.log.unflushed(&self.geometry, &blocks);
    }

    /// A write to `range` ended, well or not.
    pub fn end(&mut self, range: SectorRange) {
        let blocks = self.geometry.touched(range);
        self.log.end(self.geometry.extents(&blocks));
    }

    /// A flush of both copies begins; `running` are the writes that it need not cover. Returns whether it
    /// is the one that counts ([`Self::flush_ended`] must follow).
    pub fn flush_begins(&mut self, running: impl Iterator<Item = SectorRange>) -> bool {
        if !self.log.flush_begins() {
            return false;
        }
        for range in running.filter(|_| !mutant::is(Mutant::FlushCoversRunning)) {
            self.unflushed(range);
        }
        true
    }

    /// The flush that counts ended on both copies, or came to nothing.
    pub fn flush_ended(&mut self, done: bool) {
        self.log.flush_ended(done);
    }

    /// Whether there are writes that are not flushed on both copies for sure.
    pub fn has_unflushed(&self) -> bool {
        self.log.has_unflushed()
    }

    /// Whether a request waits for room in the log, which only a flush of both copies makes.
    pub fn wants_flush(&self) -> bool {
        self.log.is_short() && !self.log.has_flushed_victim() && self.log.has_unflushed()
    }

    /// Lets extents go that were not used between the last two calls.
    pub fn age(&mut self) {
        self.log.age();
    }

    /// Whether no extent is active.
    pub fn is_quiet(&self) -> bool {
        self.log.is_empty()
    }

    /// How many extents are active.
    pub fn active_extents(&self) -> usize {
        self.log.len()
    }

    // --- metadata -----------------------------------------------------------------------------

    /// Begins the next write of metadata, if one is due. `idle`: nobody can write here, so that the log
    /// may be emptied.
    pub fn steps(&mut self, idle: bool, effects: &mut Effects) {
        if self.writing.is_some() || self.given_up {
            return;
        }
        if let Some(record) = self.next_record(idle) {
            let block = Box::new(record.encode(&self.layout));
            let offset_bytes = record.offset_bytes(&self.layout);
            self.log_writes += 1;
            if mutant::is(Mutant::LogWritingCounts) {
                self.log.written(&record);
            }
            self.write(Writing::Log(record), offset_bytes, block, effects);
            return;
        }
        let page = self.next_page(idle);
        if page.is_none() {
            self.log.rest();
        }
        if let Some(page) = page {
            let offset_bytes = BitmapPage::offset_bytes(&self.layout, self.me, self.peer, page);
            let block = Box::new(self.page(page).encode());
            self.pages.writes(page, self.marks_in(page));
            self.page_writes += 1;
            self.write(Writing::Page(page), offset_bytes, block, effects);
        }
    }

    fn next_record(&mut self, idle: bool) -> Option<ActivityRecord> {
        if self.log.is_lost() && !self.is_swept() {
            return None;
        }
        let (pages, geometry) = (&self.pages, &self.geometry);
        let on_disk = |extent: u32| pages.on_disk(&geometry.extent(extent));
        self.log.next_record(idle, on_disk)
    }

    fn next_page(&mut self, idle: bool) -> Option<u64> {
        let (pages, geometry) = (&self.pages, &self.geometry);
        let wanted = self.log.victims(idle).find_map(|extent| {
            let blocks = geometry.extent(extent);
            pages.missing(&blocks)
        });
        wanted.or_else(|| pages.next_background())
    }

    fn write(
        &mut self,
        what: Writing,
        offset_bytes: u64,
        block: Box<[u8; crate::disk::BLOCK_BYTES]>,
        effects: &mut Effects,
    ) {
        let id = self.next_id;
        self.next_id += 1;
        self.writing = Some((id, what));
        effects.push(Effect::WriteBlock {
            id,
            offset_bytes,
            block,
        });
    }

    fn page(&self, page: u64) -> BitmapPage {
        let first = page * PAGE_BITS / 64;
        BitmapPage {
            peer: self.peer,
            page,
            words: core::array::from_fn(|word| self.marks.word(first + word as u64)),
        }
    }

    fn marks_in(&self, page: u64) -> bool {
        self.marks.any(page * PAGE_BITS..(page + 1) * PAGE_BITS)
    }

    /// A block of metadata is durable.
    pub fn written(&mut self, id: u64) {
        match self.writing.take() {
            Some((expected, Writing::Log(record))) if expected == id => self.log.written(&record),
            Some((expected, Writing::Page(page))) if expected == id => self.pages.written(page),
            other => self.writing = other,
        }
    }
}
