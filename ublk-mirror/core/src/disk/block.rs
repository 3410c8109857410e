//! The frame that every block of the activity log and of the bitmaps has: magic, version, place,
//! checksum. A block that was torn, misdirected or never written is told from a good one.

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::FORMAT_VERSION;

/// Bytes of a block of the activity log and of a page of a bitmap; what is written is a whole one.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a block's header.
pub(super) const BLOCK_HEADER_BYTES: usize = 64;
/// What a block has room for.
pub(super) const BLOCK_BODY_BYTES: usize = BLOCK_BYTES - BLOCK_HEADER_BYTES;

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockFault {
    /// All zeroes: never written.
    #[error("was never written")]
    Blank,
    /// Another magic: something else was written there.
    #[error("holds something else")]
    Foreign,
    /// A format that this program does not know.
    #[error("has format version {0}, this program knows {FORMAT_VERSION}")]
    Version(u16),
    /// The checksum is wrong (a torn write, or damage).
    #[error("is damaged (checksum)")]
    Checksum,
    /// The bytes belong to another place.
    #[error("holds the bytes of place {0} (misdirected write)")]
    Misdirected(u64),
    /// A field is impossible although the checksum is right.
    #[error("has an impossible {0}")]
    Value(&'static str),
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BlockBytes {
    magic: [u8; 8],
    version: U16,
    owner: u8,
    reserved0: u8,
    crc: U32,
    sequence: U64,
    place: U64,
    count: U32,
    reserved1: [u8; 28],
    body: [u8; BLOCK_BODY_BYTES],
}

const _: () = assert!(size_of::<BlockBytes>() == BLOCK_BYTES);

/// A block's header and body, checked.
pub(super) struct Block {
    /// Whom it belongs to (a bitmap: the peer's number).
    pub(super) owner: u8,
    /// Number of the write; 0 where it does not matter.
    pub(super) sequence: u64,
    /// Which block of its area it is.
    pub(super) place: u64,
    /// Entries in the body.
    pub(super) count: u32,
    /// The body.
    pub(super) body: [u8; BLOCK_BODY_BYTES],
}

impl Block {
    pub(super) fn encode(&self, magic: [u8; 8]) -> [u8; BLOCK_BYTES] {
        let mut raw = BlockBytes {
            magic,
            version: U16::new(FORMAT_VERSION),
            owner: self.owner,
            reserved0: 0,
            crc: U32::new(0),
            sequence: U64::new(self.sequence),
            place: U64::new(self.place),
            count: U32::new(self.count),
            reserved1: [0; 28],
            body: self.body,
        };
        raw.crc = U32::new(crate::checksum::crc32c(raw.as_bytes()));
        let mut out = [0; BLOCK_BYTES];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    pub(super) fn decode(
        bytes: &[u8; BLOCK_BYTES],
        magic: [u8; 8],
        place: u64,
    ) -> Result<Self, BlockFault> {
        let mut raw = BlockBytes::read_from_bytes(bytes).map_err(|_| BlockFault::Foreign)?;
        if raw.magic != magic {
            let blank = bytes.iter().all(|byte| *byte == 0);
            return Err(if blank {
                BlockFault::Blank
            } else {
                BlockFault::Foreign
            });
        }
        let expected = raw.crc.get();
        raw.crc = U32::new(0);
        if crate::checksum::crc32c(raw.as_bytes()) != expected {
            return Err(BlockFault::Checksum);
        }
        if raw.version.get() != FORMAT_VERSION {
            return Err(BlockFault::Version(raw.version.get()));
        }
        if raw.place.get() != place {
            return Err(BlockFault::Misdirected(raw.place.get()));
        }
        Ok(Self {
            owner: raw.owner,
            sequence: raw.sequence.get(),
            place,
            count: raw.count.get(),
            body: raw.body,
        })
    }
}
