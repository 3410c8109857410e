//! The side that a verify asks: it reads, compares, and gives a block away. While it reads, its own writes to
//! that place wait.

use alloc::vec::Vec;

use super::Engine;
use crate::effect::{DiskOperation, Effect, Effects, PayloadSource};
use crate::event::{Digest, IoOwner};
use crate::limits::{COPY_CHUNK_BYTES, COPY_INFLIGHT_MAX};
use crate::types::{Epoch, Errno, SectorRange, SessionId};
use crate::wire::{Frame, FrameKind};

/// What the other side asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) session: SessionId,
    pub(super) range: SectorRange,
    /// `None`: the block itself is wanted.
    pub(super) digest: Option<Digest>,
}

/// An answer to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyAnswer {
    /// Whether this node has the same there.
    Compared(bool),
    /// The block is in the copy buffer.
    Block(SectorRange),
    /// It cannot be read.
    Failed(Errno),
}

impl Engine {
    /// A block that was asked for, from the buffer into which it was read.
    pub fn verify_send_block(
        &self,
        session: SessionId,
        epoch: Epoch,
        slot: u16,
        range: SectorRange,
        effects: &mut Effects,
    ) {
        let mut frame = Frame::new(FrameKind::VerifyWrite, epoch, u64::from(slot));
        frame.range = range;
        frame.length_bytes = u32::try_from(range.bytes()).unwrap_or(0);
        effects.push(Effect::Send {
            session,
            frame,
            body: Vec::new(),
            payload: Some(PayloadSource::Copy(slot)),
        });
    }

    /// The other side asks for a comparison, or for a block. Returns `false` if that cannot be looked at now.
    pub fn verify_asked(
        &mut self,
        session: SessionId,
        slot: u16,
        range: SectorRange,
        digest: Option<Digest>,
        effects: &mut Effects,
    ) -> bool {
        let index = usize::from(slot);
        let running = self
            .slots
            .running_changes()
            .any(|running| running.overlaps(range));
        if slot >= COPY_INFLIGHT_MAX
            || self.verify_has(slot)
            || self.copy_reading[index].is_some()
            || range.bytes() > u64::from(COPY_CHUNK_BYTES)
            || running
        {
            return false;
        }
        self.verifying.asked[index] = Some(Asked {
            session,
            range,
            digest,
        });
        effects.push(Effect::Disk {
            owner: IoOwner::Copy(slot),
            operation: DiskOperation::Read,
            range,
        });
        true
    }
}
