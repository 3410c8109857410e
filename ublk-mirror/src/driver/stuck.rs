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
use crate::front::Front;
use crate::local_disk::{LocalDisk, SPARES_FIRST};
use crate::ring::{Memory, Ring, Span};

/// A tag is answered: a buffer that a disk operation still uses stays with that operation.
pub(super) fn leave_to_the_disk<F: Front>(parts: &mut Parts<F>, tag: Tag) {
    if answer_from_the_spare(&mut parts.ring, &parts.disk, tag) {
        tell_the_device(parts, tag);
    }
}

/// Whether the tag's buffer is still used by an operation that was given up. Then the tag has its spare one from now
/// on, with the same content: what the peer read for it is given to the kernel from there. The operation is a write,
/// and only reads what is in its own.
fn answer_from_the_spare(ring: &mut Ring, disk: &LocalDisk, tag: Tag) -> bool {
    let old = ring.tag_buffer(tag).0;
    let late = disk.is_late(IoOwner::Application(tag)) && old < SPARES_FIRST;
    if late {
        let spare = ring.put_aside(tag).0;
        let bytes = ring.data_pool().size_bytes();
        let span = |buffer| Span {
            memory: Memory::Data,
            buffer,
            offset: 0,
            bytes: bytes.min(REQUEST_BYTES_MAX as usize),
        };
        ring.copy_data(span(old), span(spare));
    }
    late
}

fn tell_the_device<F: Front>(parts: &mut Parts<F>, tag: Tag) {
    if let Some(device) = &mut parts.device {
        device.use_buffer_of(&parts.ring, tag);
    }
}

impl<F: Front> Driver<F> {
    /// The core does not wait for this operation any more.
    pub(super) fn give_up(&mut self, owner: IoOwner) {
        let parts = &mut self.parts;
        let operation = parts.disk.give_up(owner);
        tracing::debug!(?owner, ?operation, "a disk operation was given up");
        if let (Some(DiskOperation::Read), IoOwner::Application(tag)) = (operation, owner) {
            parts.ring.put_aside(tag);
            tell_the_device(parts, tag);
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use mirror_core::types::SectorRange;
    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;
    use crate::local_disk::{DATA_BUFFERS, Ended};
    use crate::ring::{Completion, DATA_FILE, pools};

    const BYTES: u32 = 4096;
    const TAG: Tag = Tag(5);
    const OWNER: IoOwner = IoOwner::Application(TAG);

    fn whole(buffer: u32) -> Span {
        Span {
            memory: Memory::Data,
            buffer,
            offset: 0,
            bytes: BYTES as usize,
        }
    }

    fn ended(ring: &mut Ring, disk: &mut LocalDisk) -> Option<Ended> {
        let mut completions: Vec<Completion> = Vec::new();
        ring.submit_and_wait(Duration::from_millis(200)).unwrap();
        ring.completions(&mut completions);
        let completion = completions.pop()?;
        disk.complete(ring, completion.token.index, completion.outcome())
    }

    /// What the peer read is being written to the own disk, which does not answer any more: a full pipe.
    #[test]
    fn a_tag_is_answered_with_its_data_while_a_write_that_was_given_up_has_its_buffer() {
        let (data, link) = pools(DATA_BUFFERS, BYTES, 1, BYTES).unwrap();
        let mut ring = Ring::new(data, link, 1).unwrap();
        let mut disk = LocalDisk::new(0);
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let size = FcntlArg::F_SETPIPE_SZ(libc::c_int::try_from(BYTES).unwrap());
        let size = usize::try_from(fcntl(&writer, size).unwrap()).unwrap();
        writer.write_all(&vec![1; size]).unwrap();
        ring.register(DATA_FILE, writer.as_raw_fd()).unwrap();

        let old = ring.tag_buffer(TAG).0;
        ring.bytes_mut(whole(old)).fill(7);
        assert!(
            !answer_from_the_spare(&mut ring, &disk, TAG),
            "in nobody's hands"
        );
        assert_eq!(ring.tag_buffer(TAG).0, old);
        let write = DiskOperation::Write { fua: false };
        disk.start(&mut ring, OWNER, write, SectorRange::new(0, 8));
        assert_eq!(ended(&mut ring, &mut disk), None);

        assert_eq!(disk.give_up(OWNER), Some(write));
        assert!(answer_from_the_spare(&mut ring, &disk, TAG));
        let spare = ring.tag_buffer(TAG).0;
        assert_ne!(spare, old);
        assert_eq!(ring.bytes(whole(spare)), [7; BYTES as usize]);
        // The kernel puts the next request's payload there; what is still being written stays as it is.
        ring.bytes_mut(whole(spare)).fill(9);
        assert!(!answer_from_the_spare(&mut ring, &disk, TAG), "once");
        assert_eq!(ring.tag_buffer(TAG).0, spare);

        let mut landed = vec![0; size];
        reader.read_exact(&mut landed).unwrap();
        assert_eq!(
            ended(&mut ring, &mut disk),
            Some(Ended::Late { owner: OWNER })
        );
        let mut landed = [0; BYTES as usize];
        reader.read_exact(&mut landed).unwrap();
        assert_eq!(landed, [7; BYTES as usize]);
    }
}
