//! The receiving side: what the peer asks of this node's disk.

use alloc::vec::Vec;

use crate::admin::Role;
use crate::effect::{DiskOperation, Effect, Effects};
use crate::event::{DiskResult, IoOwner};
use crate::limits::{PEER_BUFFERS, QUEUE_DEPTH};
use crate::notice::Notice;
use crate::types::{Epoch, Errno, Instant, SectorRange, SessionId};
use crate::wire::{FLAG_DRAIN, FLAG_FUA, Frame, FrameKind};

use super::Volume;
use super::change::{FLUSH_CHECKPOINT, FLUSH_DEACTIVATE, FLUSH_JOIN};
use super::session::Taken;

/// Operations without payload that a peer may have in flight: its queue, and its own flushes.
const BARE_OPS_MAX: usize = QUEUE_DEPTH as usize + 4;

/// An operation of the peer on this node's disk.
#[derive(Clone, Copy, Debug)]
struct PeerOp {
    session: SessionId,
    id: u64,
    kind: FrameKind,
    /// A draining flush waits for it.
    before_drain: bool,
    /// A draining flush that waits itself.
    parked: bool,
}

/// All of them, by slot: receive buffers first, then operations without a buffer.
#[derive(Debug)]
pub(super) struct PeerOps {
    slots: Vec<Option<PeerOp>>,
    writes_done: u64,
}

impl PeerOps {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..usize::from(PEER_BUFFERS) + BARE_OPS_MAX)
                .map(|_| None)
                .collect(),
            writes_done: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    pub(super) fn writes_done(&self) -> u64 {
        self.writes_done
    }

    fn free_bare(&self) -> Option<u16> {
        let first = usize::from(PEER_BUFFERS);
        let offset = self.slots.get(first..)?.iter().position(Option::is_none)?;
        u16::try_from(first + offset).ok()
    }

    fn drain_is_over(&self) -> bool {
        !self.slots.iter().flatten().any(|op| op.before_drain)
    }
}

impl Volume {
    /// A frame that is neither control nor keepalive.
    pub(super) fn data_frame(
        &mut self,
        now: Instant,
        id: SessionId,
        frame: Frame,
        buffer: Option<u16>,
        effects: &mut Effects,
    ) -> Taken {
        let base = self
            .session(id)
            .map_or(Epoch(u64::MAX), |session| session.epoch);
        if self.current != Some(id) || frame.epoch < base || frame.epoch <= self.floor() {
            return Taken::No;
        }
        match frame.kind {
            FrameKind::Done => self.peer_answered(now, id, frame, effects),
            FrameKind::CopyDone => self.copy_answered(now, id, frame, effects),
            FrameKind::Leave => self.peer_leaves(id, effects),
            FrameKind::Write
            | FrameKind::CopyWrite
            | FrameKind::Discard
            | FrameKind::WriteZeroes
            | FrameKind::Flush => self.peer_asks(id, frame, buffer, effects),
            FrameKind::Hello
            | FrameKind::Auth
            | FrameKind::Refused
            | FrameKind::State
            | FrameKind::Propose
            | FrameKind::Accept
            | FrameKind::Ping
            | FrameKind::Pong => Taken::No,
        }
    }

    fn peer_asks(
        &mut self,
        session: SessionId,
        frame: Frame,
        buffer: Option<u16>,
        effects: &mut Effects,
    ) -> Taken {
        let peer_may =
            self.staged.view.insync.contains(self.settings.peer) && self.role == Role::Fenced;
        let copying = self.staged.copy.is_some();
        let fits = frame.kind == FrameKind::Flush || frame.range.fits(self.staged.size_sectors);
        let copy_fits = frame.kind != FrameKind::CopyWrite || (copying && !self.is_staged_member());
        if !peer_may || !fits || !copy_fits || frame.epoch > self.staged.view.epoch {
            return Taken::No;
        }
        let slot = match buffer.or_else(|| self.peer_ops.free_bare()) {
            Some(slot) if usize::from(slot) < self.peer_ops.slots.len() => slot,
            _ => return Taken::No,
        };
        if self.peer_ops.slots[usize::from(slot)].is_some() {
            return Taken::No;
        }
        let fua = frame.flags & FLAG_FUA != 0;
        let operation = if frame.kind == FrameKind::Write {
            DiskOperation::Write { fua }
        } else if frame.kind == FrameKind::CopyWrite {
            DiskOperation::Write { fua: false }
        } else if frame.kind == FrameKind::Discard {
            DiskOperation::Discard
        } else if frame.kind == FrameKind::WriteZeroes {
            DiskOperation::WriteZeroes { fua }
        } else {
            DiskOperation::Flush
        };
        let parked = operation == DiskOperation::Flush && frame.flags & FLAG_DRAIN != 0;
        if parked {
            for op in self.peer_ops.slots.iter_mut().flatten() {
                op.before_drain |= op.kind != FrameKind::Flush;
            }
        }
        let op = PeerOp {
            session,
            id: frame.id,
            kind: frame.kind,
            before_drain: false,
            parked,
        };
        self.peer_ops.slots[usize::from(slot)] = Some(op);
        if !parked {
            effects.push(Effect::Disk {
                owner: IoOwner::Peer(slot),
                operation,
                range: frame.range,
            });
        }
        if buffer.is_some() {
            Taken::WithBuffer
        } else {
            Taken::Yes
        }
    }

    fn is_staged_member(&self) -> bool {
        self.staged.view.insync.contains(self.me())
    }

    /// Draining flushes whose time has come.
    pub(super) fn standby_steps(&mut self, effects: &mut Effects) {
        if self.peer_ops.drain_is_over() {
            for (slot, op) in (0u16..).zip(self.peer_ops.slots.iter_mut()) {
                if let Some(op) = op
                    && op.parked
                {
                    op.parked = false;
                    let owner = IoOwner::Peer(slot);
                    effects.push(Effect::Disk {
                        owner,
                        operation: DiskOperation::Flush,
                        range: SectorRange::new(0, 0),
                    });
                }
            }
        }
        self.send_state_when_drained(effects);
        self.takeover_drained(effects);
    }

    pub(super) fn peer_op_done(&mut self, slot: u16, result: DiskResult, effects: &mut Effects) {
        let Some(op) = self
            .peer_ops
            .slots
            .get_mut(usize::from(slot))
            .and_then(Option::take)
        else {
            return;
        };
        if slot < PEER_BUFFERS {
            effects.push(Effect::ReleaseBuffer { slot });
        }
        if op.kind != FrameKind::Flush && result.is_ok() {
            self.peer_ops.writes_done += 1;
        }
        if self.up_session() != Some(op.session) {
            return;
        }
        let kind = if op.kind == FrameKind::CopyWrite {
            FrameKind::CopyDone
        } else {
            FrameKind::Done
        };
        let mut frame = Frame::new(kind, self.staged.view.epoch, op.id);
        frame.status = result.err().map_or(0, |errno| errno.0);
        self.send(op.session, frame, Vec::new(), effects);
    }

    fn peer_answered(
        &mut self,
        now: Instant,
        session: SessionId,
        frame: Frame,
        effects: &mut Effects,
    ) -> Taken {
        if frame.status != 0 {
            self.peer_disk_failed(session, frame.status, effects);
            return Taken::Yes;
        }
        if matches!(frame.id, FLUSH_JOIN | FLUSH_CHECKPOINT | FLUSH_DEACTIVATE) {
            self.special_flush_done(frame.id, session, effects);
            return Taken::Yes;
        }
        // An answer to a request that was meanwhile failed (a forced deactivation) is no news.
        self.engine.peer_done(now, frame.id, effects);
        Taken::Yes
    }

    fn copy_answered(
        &mut self,
        now: Instant,
        session: SessionId,
        frame: Frame,
        effects: &mut Effects,
    ) -> Taken {
        if frame.status != 0 {
            self.peer_disk_failed(session, frame.status, effects);
            return Taken::Yes;
        }
        match u16::try_from(frame.id) {
            Ok(slot) => {
                self.engine.copy_chunk_done(now, slot, effects);
                Taken::Yes
            }
            Err(_) => Taken::No,
        }
    }

    fn peer_disk_failed(&mut self, session: SessionId, status: i32, effects: &mut Effects) {
        effects.push(Effect::Notice(Notice::PeerDiskFailed {
            errno: Errno(status),
        }));
        self.close(session, effects);
    }
}
