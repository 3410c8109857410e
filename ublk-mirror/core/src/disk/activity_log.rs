//! The activity log on disk: which extents may hold writes that are not on both copies for sure (S7).
//!
//! A ring of blocks, each of which holds the *complete* set of active extents, so that the newest valid
//! block alone is the truth and a torn write leaves the one before. Nothing is written to an extent
//! before a block that names it is durable.

use alloc::vec::Vec;

use super::block::{BLOCK_BODY_BYTES, Block, BlockFault};
use super::{BLOCK_BYTES, Layout};
use crate::limits::NUMBER_AT_START_MAX;

const MAGIC: [u8; 8] = *b"LSACTLOG";

/// Extents that one block, and therefore the log, has room for.
pub const ACTIVE_EXTENTS_MAX: usize = 1000;

const _: () = assert!(ACTIVE_EXTENTS_MAX * 4 <= BLOCK_BODY_BYTES);

/// One state of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivityRecord {
    /// Grows by one with every write of the log; 0: nothing was ever written.
    pub sequence: u64,
    /// The active extents, at most [`ACTIVE_EXTENTS_MAX`].
    pub extents: Vec<u32>,
}

/// What a log that was read says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivityFound {
    /// These extents were active; nothing, for a log that was never written.
    Known(ActivityRecord),
    /// The newest state is not readable: every extent may have been active.
    Lost {
        /// What is wrong with a block.
        fault: BlockFault,
        /// No block of the ring has this sequence or a later one, readable or not: the next write of the
        /// log has it, so that no older state is ever believed again.
        next_sequence: u64,
    },
}

/// Blocks of the log's ring.
pub fn activity_blocks(layout: &Layout) -> u64 {
    (layout.activity_log_bytes / BLOCK_BYTES as u64).max(1)
}

impl ActivityRecord {
    /// The byte offset in the metadata area where this state belongs.
    pub fn offset_bytes(&self, layout: &Layout) -> u64 {
        let place = self.sequence % activity_blocks(layout);
        layout.activity_log_start_bytes + place * BLOCK_BYTES as u64
    }

    /// The block.
    ///
    /// # Panics
    /// More than [`ACTIVE_EXTENTS_MAX`] extents.
    pub fn encode(&self, layout: &Layout) -> [u8; BLOCK_BYTES] {
        assert!(
            self.extents.len() <= ACTIVE_EXTENTS_MAX,
            "the log's bound is kept by its user"
        );
        let mut body = [0; BLOCK_BODY_BYTES];
        for (place, extent) in body.as_chunks_mut::<4>().0.iter_mut().zip(&self.extents) {
            *place = extent.to_le_bytes();
        }
        Block {
            owner: 0,
            sequence: self.sequence,
            place: self.sequence % activity_blocks(layout),
            count: u32::try_from(self.extents.len()).unwrap_or(0),
            body,
        }
        .encode(MAGIC)
    }

    /// Reads the block at `place` of the ring.
    ///
    /// # Errors
    /// [`BlockFault`] says what is wrong.
    pub fn decode(
        bytes: &[u8; BLOCK_BYTES],
        place: u64,
        layout: &Layout,
    ) -> Result<Self, BlockFault> {
        let block = Block::decode(bytes, MAGIC, place)?;
        let count = usize::try_from(block.count).unwrap_or(usize::MAX);
        if count > ACTIVE_EXTENTS_MAX {
            return Err(BlockFault::Value("number of extents"));
        }
        let counted = (1..=NUMBER_AT_START_MAX).contains(&block.sequence);
        if !counted || block.sequence % activity_blocks(layout) != place {
            return Err(BlockFault::Value("sequence"));
        }
        let entries = block.body.as_chunks::<4>().0.iter().take(count);
        Ok(Self {
            sequence: block.sequence,
            extents: entries.map(|entry| u32::from_le_bytes(*entry)).collect(),
        })
    }

    /// The newest state in the log's area, whole blocks of it. The next write of the log has the
    /// sequence after it.
    pub fn newest(area: &[u8], layout: &Layout) -> ActivityFound {
        let mut found = Self::default();
        let mut faults = Vec::new();
        for (place, bytes) in (0u64..).zip(area.as_chunks::<BLOCK_BYTES>().0) {
            match Self::decode(bytes, place, layout) {
                Ok(record) if record.sequence > found.sequence => found = record,
                Ok(_) | Err(BlockFault::Blank) => {}
                Err(fault) => faults.push((place, fault)),
            }
        }
        let place_after = |count| (found.sequence + count) % activity_blocks(layout);
        // A torn write spoils the block after the newest, and the next write mends it. What else is
        // spoilt is older, unless both blocks after the newest are: then the first of them was durable.
        let torn = |fault: &&(u64, BlockFault)| fault.0 == place_after(1);
        let lost = if found.sequence == 0 {
            faults.iter().find(|fault| !torn(fault))
        } else if faults.iter().any(|fault| fault.0 == place_after(2)) {
            faults.iter().find(torn)
        } else {
            None
        };
        match lost {
            Some((_, fault)) => ActivityFound::Lost {
                fault: *fault,
                // What is not readable was written after the newest that is, at most once round the ring.
                next_sequence: found.sequence + activity_blocks(layout) + 1,
            },
            None => ActivityFound::Known(found),
        }
    }
}
