//! The metadata device: blocks of 4 KiB, written one after the other in the order in which it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use mirror_core::disk::{
    ActivityFound, ActivityRecord, BLOCK_BYTES, BitmapPage, Metadata, PAGE_BITS, PAGE_WORDS,
    SUPERBLOCK_SLOTS, Superblock, choose,
};
use mirror_core::types::SECTOR_BYTES;

use super::rng::Rng;

const _: () = assert!(BLOCK_BYTES == mirror_core::disk::SUPERBLOCK_BYTES);

type Bytes = [u8; BLOCK_BYTES];

/// Where the words of a page begin, after the head of its block.
const PAGE_HEAD_BYTES: usize = BLOCK_BYTES - PAGE_WORDS * 8;

/// What the core asked for.
#[derive(Clone, Debug)]
enum Job {
    /// Two steps: both slots.
    Superblock(Box<Superblock>),
    /// One step.
    Block {
        id: u64,
        offset_bytes: u64,
        block: Box<Bytes>,
    },
}

/// What is durable now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The superblock with this number, in both slots.
    Superblock(u64),
    /// The block with this number.
    Block {
        /// As the core counts.
        id: u64,
        /// The sectors of marks that it took away: bits of the bitmap, or extents of the log.
        cleared: Vec<Range<u64>>,
    },
}

/// The metadata device of a node.
#[derive(Clone, Debug)]
pub struct MetaDisk {
    /// By offset; what was never written reads as zeroes.
    blocks: BTreeMap<u64, Box<Bytes>>,
    queue: VecDeque<Job>,
    /// The slot under way, if a superblock is.
    slot: u8,
    /// Extents of the activity log that was written last.
    active: Vec<u32>,
    /// Extents that the durable log names, if that is known without reading it.
    named: Option<Vec<u32>>,
    /// The superblock that a reader would choose now.
    chosen: Superblock,
    /// Every write fails.
    pub failing: bool,
    /// Until then writes do not end.
    pub stuck_until: u64,
    /// Global time at which the write under way began.
    pub began: u64,
    /// The write under way was given up.
    pub given_up: bool,
}

fn tear(rng: &mut Rng, old: &mut Bytes, new: &Bytes) {
    let mood = rng.below(3);
    let sector_bytes = usize::try_from(SECTOR_BYTES).unwrap_or(BLOCK_BYTES);
    for (old, new) in old.chunks_mut(sector_bytes).zip(new.chunks(sector_bytes)) {
        if mood == 0 || (mood == 1 && rng.percent(50)) {
            old.copy_from_slice(new);
        }
    }
}

impl MetaDisk {
    /// Formatted: both slots hold `superblock`, nothing is marked.
    pub fn new(superblock: &Superblock) -> Self {
        let mut disk = Self {
            blocks: BTreeMap::new(),
            queue: VecDeque::new(),
            slot: 0,
            active: Vec::new(),
            named: None,
            chosen: superblock.clone(),
            failing: false,
            stuck_until: 0,
            began: 0,
            given_up: false,
        };
        let (layout, me, peer) = (&superblock.layout, superblock.node, superblock.peer);
        for page in 0..BitmapPage::count(layout, layout.growth_sectors) {
            let empty = BitmapPage {
                peer,
                page,
                words: [0; PAGE_WORDS],
            };
            let offset = BitmapPage::offset_bytes(layout, me, peer, page);
            disk.blocks.insert(offset, Box::new(empty.encode()));
        }
        disk.write_slots(superblock);
        disk
    }

    fn write_slots(&mut self, superblock: &Superblock) {
        for slot in 0..2 {
            self.write_slot(superblock, slot);
        }
    }

    fn write_slot(&mut self, superblock: &Superblock, slot: u8) {
        let offset = SUPERBLOCK_SLOTS[usize::from(slot)];
        self.blocks
            .insert(offset, Box::new(superblock.encode(slot)));
    }

    /// Something is to be written; `true` if nothing else was.
    fn push(&mut self, job: Job) -> bool {
        self.queue.push_back(job);
        self.queue.len() == 1
    }

    /// A superblock is to be written; `true` if the device was idle.
    pub fn persist(&mut self, superblock: Box<Superblock>) -> bool {
        self.push(Job::Superblock(superblock))
    }

    /// A block is to be written; `true` if the device was idle.
    pub fn write(&mut self, id: u64, offset_bytes: u64, block: Box<Bytes>) -> bool {
        self.push(Job::Block {
            id,
            offset_bytes,
            block,
        })
    }

    /// What a block is, and whether an extent leaves the activity log by it.
    pub fn kind_of(&mut self, offset_bytes: u64, block: &Bytes) -> (&'static str, bool) {
        let layout = &self.chosen.layout;
        let area = Metadata::activity_area(layout);
        if !area.contains(&offset_bytes) {
            return ("page writes", false);
        }
        let place = (offset_bytes - area.start) / BLOCK_BYTES as u64;
        let next = ActivityRecord::decode(block, place, layout).unwrap_or_default();
        let before = std::mem::replace(&mut self.active, next.extents);
        let evicts = !before.iter().all(|extent| self.active.contains(extent));
        ("log writes", evicts)
    }

    /// What a block or the log names now, and will not once this block is written.
    fn cleared(&mut self, offset_bytes: u64, block: &Bytes) -> Vec<Range<u64>> {
        let layout = &self.chosen.layout;
        let log = Metadata::activity_area(layout);
        if !log.contains(&offset_bytes) {
            return self.cleared_bits(offset_bytes, block);
        }
        let place = (offset_bytes - log.start) / BLOCK_BYTES as u64;
        let Ok(next) = ActivityRecord::decode(block, place, layout) else {
            return Vec::new();
        };
        let named = self.named.take();
        let named =
            named.unwrap_or_else(|| match ActivityRecord::newest(&self.area(log), layout) {
                ActivityFound::Known(record) => record.extents,
                ActivityFound::Lost { .. } => Vec::new(),
            });
        let chunk = u64::from(self.chosen.chunk_sectors);
        let leaves = named.iter().filter(|extent| !next.extents.contains(extent));
        let cleared = leaves
            .map(|extent| u64::from(*extent) * chunk..(u64::from(*extent) + 1) * chunk)
            .collect();
        self.named = Some(next.extents);
        cleared
    }

    fn cleared_bits(&self, offset_bytes: u64, block: &Bytes) -> Vec<Range<u64>> {
        let superblock = &self.chosen;
        let (layout, me, peer) = (&superblock.layout, superblock.node, superblock.peer);
        let first = BitmapPage::offset_bytes(layout, me, peer, 0);
        let page = (offset_bytes - first) / BLOCK_BYTES as u64;
        let sectors = u64::from(layout.bitmap_block_bytes) / SECTOR_BYTES;
        let Some(old) = self.blocks.get(&offset_bytes) else {
            return Vec::new();
        };
        let words = |bytes: &Bytes| -> Vec<u64> {
            let words = bytes[PAGE_HEAD_BYTES..].as_chunks::<8>().0;
            words.iter().map(|word| u64::from_le_bytes(*word)).collect()
        };
        let mut cleared = Vec::new();
        for (number, (old, new)) in (0u64..).zip(words(old).into_iter().zip(words(block))) {
            let mut gone = old & !new;
            while gone != 0 {
                let bit = u64::from(gone.trailing_zeros());
                let start = (page * PAGE_BITS + number * 64 + bit) * sectors;
                cleared.push(start..start + sectors);
                gone &= gone - 1;
            }
        }
        cleared
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a superblock waits or is being written.
    pub fn persists(&self) -> bool {
        let mut jobs = self.queue.iter().skip(usize::from(self.given_up));
        jobs.any(|job| matches!(job, Job::Superblock(_)))
    }

    /// The write under way is given up, what waits for it is forgotten.
    pub fn give_up(&mut self) {
        self.queue.truncate(1);
        self.given_up = !self.queue.is_empty();
    }

    /// The write under way has ended. Returns what is durable by that.
    pub fn step(&mut self) -> Option<Written> {
        if std::mem::take(&mut self.given_up) {
            // It lands after all; nobody waits for it, and its second half was never begun.
            let waits = self.queue.split_off(1);
            self.step();
            self.queue = waits;
            self.slot = 0;
            return None;
        }
        match self.queue.pop_front()? {
            Job::Superblock(superblock) => {
                self.write_slot(&superblock, self.slot);
                self.chosen.clone_from(&superblock);
                self.slot ^= 1;
                if self.slot == 0 {
                    return Some(Written::Superblock(superblock.sequence));
                }
                self.queue.push_front(Job::Superblock(superblock));
                None
            }
            Job::Block {
                id,
                offset_bytes,
                block,
            } => {
                let cleared = self.cleared(offset_bytes, &block);
                self.blocks.insert(offset_bytes, block);
                Some(Written::Block { id, cleared })
            }
        }
    }

    /// The write under way has failed; nothing is tried again.
    pub fn fail(&mut self) {
        self.queue.clear();
        self.slot = 0;
        self.given_up = false;
    }

    /// The process is gone: what it had under way may land, the rest was never asked for.
    pub fn kill(&mut self, rng: &mut Rng) {
        if rng.percent(70) {
            self.step();
        }
        self.queue.clear();
        self.slot = 0;
        self.given_up = false;
    }

    /// Power is gone: the write under way may be torn.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        if let Some(job) = self.queue.pop_front() {
            let (offset_bytes, bytes) = match job {
                Job::Superblock(superblock) => (
                    SUPERBLOCK_SLOTS[usize::from(self.slot)],
                    Box::new(superblock.encode(self.slot)),
                ),
                Job::Block {
                    offset_bytes,
                    block,
                    ..
                } => (offset_bytes, block),
            };
            let old = self
                .blocks
                .entry(offset_bytes)
                .or_insert_with(|| Box::new([0; BLOCK_BYTES]));
            tear(rng, old, &bytes);
        }
        self.queue.clear();
        self.slot = 0;
        self.given_up = false;
        self.chosen = self.choose();
        self.named = None;
    }

    /// The two newest states of the activity log become unreadable. Returns whether there were enough of
    /// them to see that.
    pub fn lose_the_log(&mut self) -> bool {
        let layout = self.chosen.layout;
        let area = Metadata::activity_area(&layout);
        let mut states: Vec<(u64, u64)> = self
            .blocks
            .range(area.clone())
            .filter_map(|(offset, block)| {
                let place = (offset - area.start) / BLOCK_BYTES as u64;
                let record = ActivityRecord::decode(block, place, &layout).ok()?;
                Some((record.sequence, *offset))
            })
            .collect();
        states.sort_unstable();
        if states.len() < 3 {
            return false;
        }
        for (_, offset) in states.iter().rev().take(2) {
            self.blocks.insert(*offset, Box::new([0xee; BLOCK_BYTES]));
        }
        self.named = None;
        true
    }

    fn choose(&self) -> Superblock {
        let slot = |place: usize| &self.blocks[&SUPERBLOCK_SLOTS[place]];
        match choose(slot(0), slot(1)) {
            Ok(found) => found.superblock,
            Err(error) => panic!("no superblock is left: {error}"),
        }
    }

    fn area(&self, range: Range<u64>) -> Vec<u8> {
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut area = vec![0; length];
        for (offset, block) in self.blocks.range(range.clone()) {
            let start = usize::try_from(offset - range.start).unwrap_or(length);
            area[start..start + BLOCK_BYTES].copy_from_slice(block.as_slice());
        }
        area
    }

    /// What a starting daemon finds; both slots hold the same superblock afterwards.
    ///
    /// # Panics
    /// No valid superblock is left: the order of the two writes failed.
    pub fn load(&mut self) -> Metadata {
        let superblock = self.choose();
        self.write_slots(&superblock);
        self.read()
    }

    /// What was written last is not all that is true: a starting daemon writes down what a mark says.
    pub fn mark(&mut self, says: impl FnOnce(&mut Superblock)) {
        let mut superblock = self.choose();
        says(&mut superblock);
        superblock.sequence += 1;
        self.write_slots(&superblock);
        self.chosen = superblock;
    }

    /// Everything durable, from its bytes.
    pub fn read(&self) -> Metadata {
        let superblock = self.chosen.clone();
        let (layout, me, peer) = (&superblock.layout, superblock.node, superblock.peer);
        let activity = self.area(Metadata::activity_area(layout));
        let size_sectors = superblock.size_sectors;
        let bitmap = self.area(Metadata::bitmap_area(layout, me, peer, size_sectors));
        Metadata::read(superblock, &activity, &bitmap)
    }

    /// Whether a sector is named for sure, by an extent of the log or a bit of the bitmap. Quicker than [`Self::read`]; what
    /// is not readable names nothing here.
    pub fn names(&self, sector: u64) -> bool {
        let superblock = &self.chosen;
        let (layout, me, peer) = (&superblock.layout, superblock.node, superblock.peer);
        let extent = sector / u64::from(superblock.chunk_sectors);
        let mut named = self.named.iter().flatten();
        if named.any(|named| u64::from(*named) == extent) {
            return true;
        }
        let block = sector * SECTOR_BYTES / u64::from(layout.bitmap_block_bytes);
        let offset = BitmapPage::offset_bytes(layout, me, peer, block / PAGE_BITS);
        let byte = usize::try_from(block % PAGE_BITS / 8).unwrap_or(0);
        let bits = self.blocks.get(&offset);
        bits.is_some_and(|bits| bits[PAGE_HEAD_BYTES + byte] & (1 << (block % 8)) != 0)
    }

    /// The durable superblock.
    pub fn peek(&self) -> &Superblock {
        &self.chosen
    }
}
