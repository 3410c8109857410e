//! The bytes of the metadata device. `docs/on-disk-format.md` has the byte tables; a change here
//! changes them, the golden files and [`FORMAT_VERSION`] in the same commit.

mod activity_log;
mod bitmap;
mod block;
mod kept;
mod keys;
mod layout;
mod metadata;
mod record;
mod superblock;

pub use activity_log::{ACTIVE_EXTENTS_MAX, ActivityFound, ActivityRecord, activity_blocks};
pub use bitmap::{BitmapPage, PAGE_BITS, PAGE_WORDS};
pub use block::{BLOCK_BYTES, BlockFault};
pub use kept::{
    KEPT_DATA_BYTES_MAX, KEPT_DIGEST_BYTES, KEPT_HEAD_BYTES, KEPT_HEADER_BYTES, KEPT_MAGIC,
    KeptFault, KeptHead, KeptHeader, KeptReader, KeptWriter, unpadded,
};
pub use keys::{KEY_BYTES_MIN, KEYS_BYTES, KeysFault, keys_bytes, read_keys};
pub use layout::{Layout, LayoutError, METADATA_ALIGN_BYTES, SUPERBLOCK_SLOTS};
pub use metadata::Metadata;
pub use record::{OPERATIONS_MAX, Operation, OperationEntry, Operations, RECORD_BYTES, Record};
pub use superblock::{
    CopyRecord, CopyRole, FORMAT_VERSION, Found, Isolation, SUPERBLOCK_BYTES, SlotFault,
    Superblock, SuperblockError, choose,
};
