//! A peer's bitmap on disk: pages of 4 KiB, each with a checksum and its own place.

use super::block::{BLOCK_BODY_BYTES, Block, BlockFault};
use super::{BLOCK_BYTES, Layout};
use crate::limits::NODES_MAX;
use crate::types::NodeId;

const MAGIC: [u8; 8] = *b"LSBITMAP";

/// Blocks that one page tells of.
pub const PAGE_BITS: u64 = BLOCK_BODY_BYTES as u64 * 8;
/// The bits of a page, 64 in a word, the lowest block in the lowest bit.
pub const PAGE_WORDS: usize = BLOCK_BODY_BYTES / 8;

/// A page of the bitmap of what a peer may lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapPage {
    /// Whose bitmap.
    pub peer: NodeId,
    /// Which page.
    pub page: u64,
    /// Its bits.
    pub words: [u64; PAGE_WORDS],
}

impl BitmapPage {
    /// The byte offset in the metadata area of a page of `peer`'s bitmap on node `me`.
    pub fn offset_bytes(layout: &Layout, me: NodeId, peer: NodeId, page: u64) -> u64 {
        // 7 places for 8 nodes: nobody keeps a bitmap of itself.
        let place = u64::from(peer.number()) - u64::from(peer > me);
        debug_assert!(place < u64::from(NODES_MAX - 1), "a bitmap of a peer");
        layout.bitmap_start_bytes + place * layout.bitmap_peer_bytes + page * BLOCK_BYTES as u64
    }

    /// Pages of one peer's bitmap for a volume of `size_sectors`.
    pub fn count(layout: &Layout, size_sectors: u64) -> u64 {
        let block_sectors = u64::from(layout.bitmap_block_bytes) / crate::types::SECTOR_BYTES;
        size_sectors
            .div_ceil(block_sectors.max(1))
            .div_ceil(PAGE_BITS)
    }

    /// The page's bytes.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut body = [0; BLOCK_BODY_BYTES];
        for (place, word) in body.as_chunks_mut::<8>().0.iter_mut().zip(&self.words) {
            *place = word.to_le_bytes();
        }
        Block {
            owner: self.peer.number(),
            sequence: 0,
            place: self.page,
            count: 0,
            body,
        }
        .encode(MAGIC)
    }

    /// Reads the page that belongs to `peer` and `page`.
    ///
    /// # Errors
    /// [`BlockFault`] says what is wrong: the caller takes every bit of the page for set.
    pub fn decode(bytes: &[u8; BLOCK_BYTES], peer: NodeId, page: u64) -> Result<Self, BlockFault> {
        let block = Block::decode(bytes, MAGIC, page)?;
        if block.owner != peer.number() {
            return Err(BlockFault::Misdirected(u64::from(block.owner)));
        }
        let mut words = [0; PAGE_WORDS];
        for (word, place) in words.iter_mut().zip(block.body.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*place);
        }
        Ok(Self { peer, page, words })
    }
}
