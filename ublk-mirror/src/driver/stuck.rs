//! What was given up is still in the kernel's hands: its memory is kept apart until its completion comes.
//!
//! A buffer of the peer is given back to the link later. A tag is answered at once and the kernel uses it
//! again, so it gets its spare buffer: for a read before anything else is put there, for a write when it
//! is answered, for until then the payload may have to be sent. A copy buffer is not used again: nothing
//! is asked of that disk any more.

use mirror_core::effect::DiskOperation;
use mirror_core::event::IoOwner;
use mirror_core::limits::{PEER_BUFFERS, REQUEST_BYTES_MAX};
use mirror_core::types::Tag;

use super::{Driver, Parts};
use crate::local_disk::SPARES_FIRST;
use crate::ring::{Memory, Span};

/// A tag is answered: a buffer that a disk operation still uses stays with that operation.
pub(super) fn leave_to_the_disk(parts: &mut Parts, tag: Tag) {
    let old = parts.ring.tag_buffer(tag).0;
    if parts.disk.is_late(IoOwner::Application(tag)) && old < SPARES_FIRST {
        put_aside(parts, tag);
        // What the peer read for this tag is given to the kernel from here; the late write only reads it.
        let span = |buffer| Span {
            memory: Memory::Data,
            buffer,
            offset: 0,
            bytes: REQUEST_BYTES_MAX as usize,
        };
        let spare = parts.ring.tag_buffer(tag).0;
        parts.ring.copy_data(span(old), span(spare));
    }
}

fn put_aside(parts: &mut Parts, tag: Tag) {
    parts.ring.put_aside(tag);
    if let Some(device) = &mut parts.device {
        device.use_buffer_of(&parts.ring, tag);
    }
}

impl Driver {
    /// The core does not wait for this operation any more.
    pub(super) fn give_up(&mut self, owner: IoOwner) {
        let parts = &mut self.parts;
        let operation = parts.disk.give_up(owner);
        tracing::debug!(?owner, ?operation, "a disk operation was given up");
        if let (Some(DiskOperation::Read), IoOwner::Application(tag)) = (operation, owner) {
            put_aside(parts, tag);
        }
    }

    /// A receive buffer is free again, unless the disk still has it.
    pub(super) fn release(&mut self, slot: u16) {
        if !self.parts.disk.is_late(IoOwner::Peer(slot)) {
            self.parts.link.release(slot);
        }
    }

    /// An operation has ended that was given up.
    pub(super) fn ended_late(&mut self, owner: IoOwner) {
        tracing::debug!(?owner, "a disk operation that was given up has ended");
        if let IoOwner::Peer(slot) = owner
            && slot < PEER_BUFFERS
        {
            self.parts.link.release(slot);
        }
    }
}
