//! What a side of a split brain has alone: which blocks, and under which view. The shell keeps their content
//! before the history is discarded; the core says what they are, and that nothing has changed meanwhile.

use crate::admin::Role;
use crate::blocks::{BlockRange, BlockSet, Geometry};
use crate::disk::KeptHeader;
use crate::limits::VOLUME_NAME_BYTES_MAX;
use crate::mutant::{self, Mutant};
use crate::notice::Refusal;
use crate::types::{Epoch, SECTOR_BYTES};
use crate::view::ViewMark;

use super::Volume;

/// What this copy may have alone. Two of the same volume are equal only if nothing was written between
/// them: whoever serves does so under a view of its own (S3), and a copy is filled under one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// What a file of them begins with; its time is 0.
    pub header: KeptHeader,
    blocks: BlockSet,
    geometry: Geometry,
}

impl Unique {
    /// The runs of blocks, in their order.
    pub fn runs(&self) -> impl Iterator<Item = BlockRange> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let start = self.blocks.first_from(from)?;
            from = self.blocks.first_missing_from(start);
            Some(start..from)
        })
    }

    /// The same on the volume, in bytes, cut off at its end: place and length.
    pub fn runs_bytes(&self) -> impl Iterator<Item = (u64, u64)> {
        let block_bytes = self.geometry.block_sectors * SECTOR_BYTES;
        let size_bytes = self.header.size_bytes;
        self.runs().map(move |blocks| {
            let start = blocks.start * block_bytes;
            (start, (blocks.end * block_bytes).min(size_bytes) - start)
        })
    }

    /// Whether a block is among them.
    pub fn contains(&self, block: u64) -> bool {
        self.blocks.contains(block)
    }
}

impl Volume {
    /// What may be on this copy alone, block by block: what the split status counts. If it is not known where
    /// the histories went apart, that is everything.
    pub fn unique(&self) -> Unique {
        let intent = &self.engine.intent;
        let mut geometry = intent.geometry();
        geometry.size_sectors = self.staged.size_sectors;
        let known = self.knows_what_is_unique();
        let mut blocks = BlockSet::new(geometry.blocks());
        if !known {
            blocks.insert(0..geometry.blocks());
        } else if !mutant::is(Mutant::UniqueForgotten) {
            blocks = intent.marks().clone();
        }
        let mut node_name = [0; VOLUME_NAME_BYTES_MAX];
        for (place, byte) in node_name.iter_mut().zip(self.settings.node_name.bytes()) {
            *place = byte;
        }
        let block_bytes = geometry.block_sectors * SECTOR_BYTES;
        let mut unique = Unique {
            header: KeptHeader {
                volume_id: self.staged.volume_id,
                volume_name: self.settings.volume_name,
                node: self.settings.node,
                peer: self.settings.peer,
                node_name,
                view: self.durable.view.mark(),
                common: if known {
                    self.durable.base
                } else {
                    ViewMark::default()
                },
                size_bytes: geometry.size_sectors * SECTOR_BYTES,
                block_bytes: u32::try_from(block_bytes).unwrap_or(u32::MAX),
                marked_bytes: 0,
                at_s: 0,
            },
            blocks,
            geometry,
        };
        unique.header.marked_bytes = unique.runs_bytes().map(|(_, length)| length).sum();
        unique
    }

    /// Whether the marks tell of a view that the peer was in.
    pub(super) fn knows_what_is_unique(&self) -> bool {
        !self.peer_counts() && self.durable.base.epoch != Epoch(0)
    }

    /// What would be lost if this copy's history were discarded now. While the answer stays the same, the copy
    /// is what it was: nobody serves it, and nothing of the peer is still being written.
    ///
    /// # Errors
    /// Why it cannot be discarded now.
    pub fn to_be_discarded(&self, discard: &str, confirm: &str) -> Result<Unique, Refusal> {
        self.may_discard(discard, confirm)?;
        if !self.peer_ops.is_empty() {
            return Err(Refusal::Busy);
        }
        Ok(self.unique())
    }

    /// What speaks against discarding this copy's history.
    pub(super) fn may_discard(&self, discard: &str, confirm: &str) -> Result<(), Refusal> {
        let node = self.settings.node_name.clone();
        if discard != node {
            let wanted = discard.into();
            return Err(Refusal::DiscardElsewhere { wanted, node });
        }
        if self.role != Role::Fenced {
            return Err(Refusal::Serving);
        }
        if self.failed.is_some() {
            return Err(Refusal::DiskFailed);
        }
        if self.words.split.is_none() {
            let peer = self.peer_name();
            return Err(Refusal::NoSplitBrain { peer });
        }
        if confirm != self.volume_name() {
            let volume = self.volume_name();
            return Err(Refusal::NotNamed { volume });
        }
        // Also while the two meet: what was told must stay true.
        if self.is_changing_or_meeting() {
            return Err(Refusal::Busy);
        }
        Ok(())
    }
}
