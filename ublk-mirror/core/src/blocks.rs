//! Sets of blocks of a volume: the bitmap in memory.

use alloc::vec::Vec;

use crate::types::{SECTOR_BYTES, SectorRange};

/// A run of blocks, `start..end`.
pub type BlockRange = core::ops::Range<u64>;

/// How sectors, blocks and extents of a volume belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Sectors of the volume.
    pub size_sectors: u64,
    /// Sectors that one bit stands for.
    pub block_sectors: u64,
    /// Blocks of an extent of the activity log.
    pub extent_blocks: u64,
}

impl Geometry {
    /// From what the superblock says.
    pub fn new(size_sectors: u64, block_bytes: u32, extent_sectors: u32) -> Self {
        let block_sectors = (u64::from(block_bytes) / SECTOR_BYTES).max(1);
        Self {
            size_sectors,
            block_sectors,
            extent_blocks: (u64::from(extent_sectors) / block_sectors).max(1),
        }
    }

    /// Blocks of the volume; the last one may reach past its end.
    pub fn blocks(&self) -> u64 {
        self.size_sectors.div_ceil(self.block_sectors)
    }

    /// Every block that shares a sector with `range` (marks are rounded outward, S7).
    pub fn touched(&self, range: SectorRange) -> BlockRange {
        let end = range.end().div_ceil(self.block_sectors).min(self.blocks());
        (range.start / self.block_sectors).min(end)..end
    }

    /// The sectors of a run of blocks, cut off at the end of the volume.
    pub fn sectors(&self, blocks: &BlockRange) -> SectorRange {
        let start = blocks.start * self.block_sectors;
        let end = (blocks.end * self.block_sectors).min(self.size_sectors);
        let count = end.saturating_sub(start);
        SectorRange::new(start, u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The extents that share a block with `blocks`.
    pub fn extents(&self, blocks: &BlockRange) -> core::ops::Range<u32> {
        let first = blocks.start / self.extent_blocks;
        let end = blocks.end.div_ceil(self.extent_blocks).max(first);
        u32::try_from(first).unwrap_or(u32::MAX)..u32::try_from(end).unwrap_or(u32::MAX)
    }

    /// The blocks of an extent, cut off at the end of the volume.
    pub fn extent(&self, extent: u32) -> BlockRange {
        let start = u64::from(extent) * self.extent_blocks;
        let end = (start + self.extent_blocks).min(self.blocks());
        start.min(end)..end
    }
}

/// A set of blocks, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
    blocks: u64,
    count: u64,
}

fn word(block: u64) -> usize {
    usize::try_from(block / 64).unwrap_or(usize::MAX)
}

/// The bits of `range` that lie in the word that begins with block `base`.
fn mask(range: &BlockRange, base: u64) -> u64 {
    let from = range.start.saturating_sub(base);
    let to = range.end.saturating_sub(base);
    if from >= 64 || to == 0 || from >= to {
        return 0;
    }
    let high = if to >= 64 { u64::MAX } else { (1 << to) - 1 };
    high & !((1 << from) - 1)
}

impl BlockSet {
    /// The empty set over `blocks` blocks.
    pub fn new(blocks: u64) -> Self {
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: alloc::vec![0; words],
            blocks,
            count: 0,
        }
    }

    /// Makes room for a volume that grew; new blocks are not in the set.
    pub fn grow(&mut self, blocks: u64) {
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(usize::MAX);
        if blocks > self.blocks {
            self.words.resize(words, 0);
            self.blocks = blocks;
        }
    }

    /// How many blocks are in the set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether no block is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn clip(&self, range: BlockRange) -> BlockRange {
        range.start.min(self.blocks)..range.end.min(self.blocks)
    }

    /// Adds a run. Returns whether any of it was missing.
    pub fn insert(&mut self, range: BlockRange) -> bool {
        let range = self.clip(range);
        let before = self.count;
        for index in word(range.start)..word(range.end + 63) {
            let add = mask(&range, index as u64 * 64) & !self.words[index];
            self.words[index] |= add;
            self.count += u64::from(add.count_ones());
        }
        self.count != before
    }

    /// Takes a run away. Returns whether any of it was there.
    pub fn remove(&mut self, range: BlockRange) -> bool {
        let range = self.clip(range);
        let before = self.count;
        for index in word(range.start)..word(range.end + 63) {
            let gone = mask(&range, index as u64 * 64) & self.words[index];
            self.words[index] &= !gone;
            self.count -= u64::from(gone.count_ones());
        }
        self.count != before
    }

    /// Whether any block of the run is in the set.
    pub fn any(&self, range: BlockRange) -> bool {
        let range = self.clip(range);
        (word(range.start)..word(range.end + 63))
            .any(|index| self.words[index] & mask(&range, index as u64 * 64) != 0)
    }

    /// Whether the block is in the set.
    pub fn contains(&self, block: u64) -> bool {
        self.any(block..block + 1)
    }

    /// The first block at or after `from` that is in the set.
    pub fn first_from(&self, from: u64) -> Option<u64> {
        self.scan(from, |word| word)
            .filter(|block| *block < self.blocks)
    }

    /// The first block at or after `from` that is not in the set; the end if all are.
    pub fn first_missing_from(&self, from: u64) -> u64 {
        self.scan(from, |word| !word)
            .unwrap_or(self.blocks)
            .min(self.blocks)
    }

    fn scan(&self, from: u64, bits: impl Fn(u64) -> u64) -> Option<u64> {
        if from >= self.blocks {
            return None;
        }
        let mut keep = u64::MAX << (from % 64);
        for (index, value) in self.words.iter().enumerate().skip(word(from)) {
            let found = bits(*value) & keep;
            if found != 0 {
                return Some(index as u64 * 64 + u64::from(found.trailing_zeros()));
            }
            keep = u64::MAX;
        }
        None
    }

    /// The first word (see [`Self::word`]) at or after `from` that is not empty.
    pub fn first_word_from(&self, from: u64) -> Option<u64> {
        let from = usize::try_from(from).ok()?;
        let rest = self.words.get(from..)?;
        let found = rest.iter().position(|word| *word != 0)?;
        Some((from + found) as u64)
    }

    /// 64 blocks from `index * 64`, the lowest block in the lowest bit; zero past the end.
    pub fn word(&self, index: u64) -> u64 {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get(index))
            .copied()
            .unwrap_or(0)
    }

    /// Adds the blocks of one word (see [`Self::word`]); bits past the end are ignored.
    pub fn insert_word(&mut self, index: u64, bits: u64) -> bool {
        let base = index.saturating_mul(64);
        let bits = bits & mask(&(0..self.blocks), base);
        let Some(word) = usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get_mut(index))
        else {
            return false;
        };
        let add = bits & !*word;
        *word |= add;
        self.count += u64::from(add.count_ones());
        add != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn touched_blocks_are_rounded_outward() {
        let geometry = Geometry::new(2051, 4096, 64);
        assert_eq!(geometry.blocks(), 257);
        assert_eq!(geometry.touched(SectorRange::new(7, 2)), 0..2);
        assert_eq!(geometry.touched(SectorRange::new(8, 8)), 1..2);
        assert_eq!(geometry.touched(SectorRange::new(2050, 1)), 256..257);
        assert_eq!(geometry.sectors(&(256..257)), SectorRange::new(2048, 3));
        assert_eq!(geometry.extents(&(7..9)), 0..2);
        assert_eq!(geometry.extent(32), 256..257);
    }

    proptest! {
        #[test]
        fn a_set_of_blocks_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0u64..300, 0u64..150), 0..40), from in 0u64..300) {
            let mut set = BlockSet::new(277);
            let mut model = BTreeSet::new();
            for (add, start, length) in steps {
                let range = start..start + length;
                let clipped = start.min(277)..(start + length).min(277);
                let before = model.len();
                let changed = if add {
                    model.extend(clipped);
                    set.insert(range)
                } else {
                    clipped.for_each(|block| { model.remove(&block); });
                    set.remove(range)
                };
                prop_assert_eq!(changed, before != model.len());
            }
            prop_assert_eq!(set.count(), model.len() as u64);
            prop_assert_eq!(set.first_from(from), model.range(from..).next().copied());
            let missing = (from..277).find(|block| !model.contains(block)).unwrap_or(277);
            prop_assert_eq!(set.first_missing_from(from), missing);
            let mut copy = BlockSet::new(277);
            for index in 0..6 {
                copy.insert_word(index, set.word(index));
            }
            prop_assert_eq!(copy, set);
        }
    }
}
