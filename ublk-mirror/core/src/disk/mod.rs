//! The bytes of the metadata device. `docs/on-disk-format.md` has the byte tables; a change here
//! changes them, the golden files and [`FORMAT_VERSION`] in the same commit.

mod layout;
mod superblock;

pub use layout::{Layout, LayoutError, METADATA_ALIGN_BYTES, SUPERBLOCK_SLOTS};
pub use superblock::{
    CopyRecord, CopyRole, FORMAT_VERSION, Found, SUPERBLOCK_BYTES, SlotFault, Superblock,
    SuperblockError, choose,
};
