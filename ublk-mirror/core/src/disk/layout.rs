//! Where things are in the metadata area.
//!
//! ```text
//! 0            superblock, slot 0 (4 KiB)
//! 64 KiB       superblock, slot 1 (4 KiB)
//! 128 KiB      activity log, reserved (1 MiB), zero in format 1
//! 2 MiB        bitmaps of 7 peers, reserved, zero in format 1
//! data_start   the volume's data, if the metadata shares the backing device
//! ```

use thiserror::Error;

use crate::limits::{NODES_MAX, VOLUME_SECTORS_MAX, VOLUME_SECTORS_MIN};
use crate::types::SECTOR_BYTES;

/// Byte offsets of the two superblocks, far enough apart for one torn or misdirected write.
pub const SUPERBLOCK_SLOTS: [u64; 2] = [0, 64 * 1024];
/// The metadata area ends, and data begins, at a multiple of this.
pub const METADATA_ALIGN_BYTES: u64 = 1024 * 1024;
const ACTIVITY_LOG_START_BYTES: u64 = 128 * 1024;
const ACTIVITY_LOG_BYTES: u64 = 1024 * 1024;
const BITMAP_START_BYTES: u64 = 2 * 1024 * 1024;
/// A bitmap page: 4 KiB of which 64 bytes are header and checksum.
const BITMAP_PAGE_BYTES: u64 = 4096;
const BITMAP_PAGE_BITS: u64 = (BITMAP_PAGE_BYTES - 64) * 8;

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
        let bitmap_peer_bytes = bits.div_ceil(BITMAP_PAGE_BITS) * BITMAP_PAGE_BYTES;
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
}
