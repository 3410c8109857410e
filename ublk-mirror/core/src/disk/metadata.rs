//! Everything durable of a node, as it is read at start.

use alloc::vec::Vec;
use core::ops::Range;

use super::{
    ActivityFound, ActivityRecord, BLOCK_BYTES, BitmapPage, BlockFault, Layout, Superblock,
};
use crate::types::NodeId;

/// The superblock, the activity log and the bitmap of the peer.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The superblock that was chosen.
    pub superblock: Superblock,
    /// The newest state of the activity log.
    pub activity: ActivityFound,
    /// The pages of the peer's bitmap, in order; of a damaged page every bit counts as set.
    pub bitmap: Vec<Result<BitmapPage, BlockFault>>,
}

impl Metadata {
    /// Where the activity log lies: bytes of the metadata area.
    pub fn activity_area(layout: &Layout) -> Range<u64> {
        layout.activity_log_start_bytes..layout.activity_log_start_bytes + layout.activity_log_bytes
    }

    /// Where the pages of `peer`'s bitmap lie on node `me`, for a volume of `size_sectors`: bytes of
    /// the metadata area.
    pub fn bitmap_area(layout: &Layout, me: NodeId, peer: NodeId, size_sectors: u64) -> Range<u64> {
        let start = BitmapPage::offset_bytes(layout, me, peer, 0);
        start..start + BitmapPage::count(layout, size_sectors) * BLOCK_BYTES as u64
    }

    /// From the bytes of both areas, read in full.
    pub fn read(superblock: Superblock, activity_area: &[u8], bitmap_area: &[u8]) -> Self {
        let activity = ActivityRecord::newest(activity_area, &superblock.layout);
        let mut metadata = Self {
            superblock,
            activity,
            bitmap: Vec::new(),
        };
        metadata.read_pages(bitmap_area);
        metadata
    }

    /// Takes the next whole pages of the bitmap's area, so that a large one is read in pieces.
    pub fn read_pages(&mut self, bytes: &[u8]) {
        let peer = self.superblock.peer;
        for bytes in bytes.as_chunks::<BLOCK_BYTES>().0 {
            let page = self.bitmap.len() as u64;
            self.bitmap.push(BitmapPage::decode(bytes, peer, page));
        }
    }
}
