//! The bytes of the metadata device. `docs/on-disk-format.md` has the byte tables; a change here
//! changes them, the golden files and [`FORMAT_VERSION`] in the same commit.

mod activity_log;
mod bitmap;
mod block;
mod layout;
mod metadata;
mod record;
mod superblock;

pub use activity_log::{ACTIVE_EXTENTS_MAX, ActivityFound, ActivityRecord, activity_blocks};
pub use bitmap::{BitmapPage, PAGE_BITS, PAGE_WORDS};
pub use block::{BLOCK_BYTES, BlockFault};
pub use layout::{Layout, LayoutError, METADATA_ALIGN_BYTES, SUPERBLOCK_SLOTS};
pub use metadata::Metadata;
pub use record::{OPERATIONS_MAX, Operation, OperationEntry, Operations, RECORD_BYTES, Record};
pub use superblock::{
    CopyRecord, CopyRole, FORMAT_VERSION, Found, Isolation, SUPERBLOCK_BYTES, SlotFault,
    Superblock, SuperblockError, choose,
};
