//! Where things are in the metadata area.
//!
//! ```text
//! 0            superblock, slot 0 (4 KiB)
//! 64 KiB       superblock, slot 1 (4 KiB)
//! 128 KiB      activity log (1 MiB)
//! 2 MiB        bitmaps of 7 peers
//! data_start   the volume's data, if the metadata shares the backing device
//! ```

use thiserror::Error;

use super::{BLOCK_BYTES, BitmapPage, PAGE_BITS};
use crate::limits::{
    BITMAP_BLOCK_BYTES_MAX, BITMAP_BLOCK_BYTES_MIN, NODES_MAX, VOLUME_SECTORS_MAX,
    VOLUME_SECTORS_MIN,
};
use crate::types::SECTOR_BYTES;

/// Byte offsets of the two superblocks, far enough apart for one torn or misdirected write.
pub const SUPERBLOCK_SLOTS: [u64; 2] = [0, 64 * 1024];
/// The metadata area ends, and data begins, at a multiple of this.
pub const METADATA_ALIGN_BYTES: u64 = 1024 * 1024;
const ACTIVITY_LOG_START_BYTES: u64 = 128 * 1024;
const ACTIVITY_LOG_BYTES: u64 = 1024 * 1024;
const BITMAP_START_BYTES: u64 = 2 * 1024 * 1024;
/// No part of an area that was really made is larger, and sums of its parts do not overflow.
const PART_BYTES_MAX: u64 = 1 << 42;
/// The log is read in one piece.
const ACTIVITY_LOG_BYTES_MAX: u64 = 1 << 30;

/// Offsets and sizes within the metadata area, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Start of the activity log's place.
    pub activity_log_start_bytes: u64,
    /// Size of the activity log's place.
    pub activity_log_bytes: u64,
    /// Start of the bitmaps' place.
    pub bitmap_start_bytes: u64,
    /// Size of one peer's bitmap.
    pub bitmap_peer_bytes: u64,
    /// Size of a block that one bit stands for.
    pub bitmap_block_bytes: u32,
    /// Largest volume, in sectors, that the bitmaps have room for.
    pub growth_sectors: u64,
    /// Size of the whole area.
    pub total_bytes: u64,
}

/// Why no layout exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// The volume is too small or too large.
    #[error("a volume of {0} sectors is outside {VOLUME_SECTORS_MIN}..={VOLUME_SECTORS_MAX}")]
    Size(u64),
}

impl Layout {
    /// Room for a volume that may grow to `growth_sectors`, with 7 peers.
    ///
    /// # Errors
    /// [`LayoutError::Size`] if the size is outside the limits.
    pub fn for_growth_to(
        growth_sectors: u64,
        bitmap_block_bytes: u32,
    ) -> Result<Self, LayoutError> {
        if !(VOLUME_SECTORS_MIN..=VOLUME_SECTORS_MAX).contains(&growth_sectors) {
            return Err(LayoutError::Size(growth_sectors));
        }
        let bits = (growth_sectors * SECTOR_BYTES)
            .div_ceil(u64::from(bitmap_block_bytes).max(SECTOR_BYTES));
        let bitmap_peer_bytes = bits.div_ceil(PAGE_BITS) * BLOCK_BYTES as u64;
        let end = BITMAP_START_BYTES + bitmap_peer_bytes * u64::from(NODES_MAX - 1);
        Ok(Self {
            activity_log_start_bytes: ACTIVITY_LOG_START_BYTES,
            activity_log_bytes: ACTIVITY_LOG_BYTES,
            bitmap_start_bytes: BITMAP_START_BYTES,
            bitmap_peer_bytes,
            bitmap_block_bytes,
            growth_sectors,
            total_bytes: end.next_multiple_of(METADATA_ALIGN_BYTES),
        })
    }

    /// Whether an area can be divided like this: whole blocks, parts that do not overlap, a log of two
    /// blocks at least (a torn one leaves the other), room for the bitmaps of the largest volume.
    pub(super) fn is_possible(&self) -> bool {
        let block = BLOCK_BYTES as u64;
        let (log_start, bitmap_start) = (self.activity_log_start_bytes, self.bitmap_start_bytes);
        let (log, bitmap) = (self.activity_log_bytes, self.bitmap_peer_bytes);
        let parts = [log_start, log, bitmap_start, bitmap, self.total_bytes];
        let whole = |bytes: &u64| *bytes <= PART_BYTES_MAX && bytes.is_multiple_of(block);
        let sane_block = self.bitmap_block_bytes.is_power_of_two()
            && (BITMAP_BLOCK_BYTES_MIN..=BITMAP_BLOCK_BYTES_MAX).contains(&self.bitmap_block_bytes);
        parts.iter().all(whole)
            && sane_block
            && self.growth_sectors <= VOLUME_SECTORS_MAX
            && (2 * block..=ACTIVITY_LOG_BYTES_MAX).contains(&log)
            && log_start >= SUPERBLOCK_SLOTS[1] + block
            && bitmap_start >= log_start + log
            && bitmap >= BitmapPage::count(self, self.growth_sectors) * block
            && self.total_bytes >= bitmap_start + bitmap * u64::from(NODES_MAX - 1)
    }
}
