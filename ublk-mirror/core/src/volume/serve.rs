//! A standby reads for the active node what that one's disk cannot read.
//!
//! Only a copy that counts, under the view of the session, is read from, and none whose disk has failed: what
//! such a disk reads back proves nothing. A read that fails here is answered with its error; the copy goes on to
//! count, and this node's disk is not said to have failed.

use alloc::vec::Vec;

use crate::admin::Role;
use crate::effect::{DiskOperation, Effect, Effects, PayloadSource};
use crate::engine::ReadAnswer;
use crate::event::{DiskResult, IoOwner};
use crate::limits::{PAYLOAD_BYTES_MAX, SERVED_READS_MAX};
use crate::mutant::{self, Mutant};
use crate::types::{Errno, Instant, SectorRange, SessionId};
use crate::wire::{Frame, FrameKind};

use super::Volume;
use super::session::Taken;

/// A read under way for the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerRead {
    session: SessionId,
    range: SectorRange,
}

impl Volume {
    pub(super) fn read_asked(
        &mut self,
        session: SessionId,
        frame: &Frame,
        effects: &mut Effects,
    ) -> Taken {
        let both = self.staged.view.insync == self.both() && self.is_member();
        let counts = both || self.serves_diskless_peer();
        let outdated = mutant::is(Mutant::ServeReadOutdated);
        let may = (counts || outdated)
            && self.role == Role::Fenced
            && frame.epoch <= self.staged.view.epoch;
        let fits = frame.range.fits(self.staged.size_sectors)
            && frame.range.bytes() <= u64::from(PAYLOAD_BYTES_MAX);
        let slot = u16::try_from(frame.id).unwrap_or(u16::MAX);
        if !may || !fits || slot >= SERVED_READS_MAX {
            return Taken::No;
        }
        let place = &mut self.peer_ops.reads[usize::from(slot)];
        if place.is_some() {
            return Taken::No;
        }
        *place = Some(PeerRead {
            session,
            range: frame.range,
        });
        if let Some(errno) = self.failed {
            self.served(slot, Err(errno), effects);
        } else {
            effects.push(Effect::Disk {
                owner: IoOwner::Serve(slot),
                operation: DiskOperation::Read,
                range: frame.range,
            });
        }
        Taken::Yes
    }

    /// It was read, or could not be.
    pub(super) fn served(&mut self, slot: u16, result: DiskResult, effects: &mut Effects) {
        let place = self.peer_ops.reads.get_mut(usize::from(slot));
        let Some(PeerRead { session, range }) = place.and_then(Option::take) else {
            return;
        };
        if self.up_session() != Some(session) {
            return;
        }
        // What a disk reads that failed meanwhile proves nothing.
        let result = self.failed.map_or(result, Err);
        let mut frame = Frame::new(FrameKind::ReadDone, self.staged.view.epoch, u64::from(slot));
        frame.range = range;
        let payload = match result {
            Ok(()) => {
                frame.length_bytes = u32::try_from(range.bytes()).unwrap_or(0);
                Some(PayloadSource::Serve(slot))
            }
            Err(errno) => {
                frame.status = errno.0;
                None
            }
        };
        effects.push(Effect::Send {
            session,
            frame,
            body: Vec::new(),
            payload,
        });
    }

    /// The other side's answer.
    pub(super) fn read_answered(
        &mut self,
        now: Instant,
        frame: &Frame,
        buffer: Option<u16>,
        effects: &mut Effects,
    ) -> Taken {
        let answer = match (frame.status, buffer) {
            (0, Some(slot)) => ReadAnswer::Data(slot),
            (0, None) => return Taken::No,
            (status, _) => ReadAnswer::Failed(Errno(status)),
        };
        let place = u16::try_from(frame.id).unwrap_or(u16::MAX);
        if self
            .engine
            .read_answered(now, place, frame.range, answer, effects)
        {
            Taken::Yes
        } else {
            Taken::No
        }
    }
}
