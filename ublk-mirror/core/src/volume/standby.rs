//! The receiving side: what the peer asks of this node's disk.

use alloc::vec::Vec;

use crate::admin::Role;
use crate::disk::CopyRole;
use crate::effect::{DiskOperation, Effect, Effects};
use crate::event::{Digest, DiskResult, IoOwner};
use crate::limits::{COPY_INFLIGHT_MAX, PEER_BUFFERS, QUEUE_DEPTH, SERVED_READS_MAX};
use crate::mutant::{self, Mutant};
use crate::notice::Notice;
use crate::types::{Epoch, Errno, Instant, SectorRange, SessionId};
use crate::wire::{
    DecodeError, FLAG_DRAIN, FLAG_EQUAL, FLAG_FUA, FLAG_INVALIDATED, Frame, FrameKind,
};

use super::Volume;
use super::change::{FLUSH_DEACTIVATE, FLUSH_JOIN, Then};
use super::serve::PeerRead;
use super::session::Taken;
use crate::engine::{Compared, FLUSH_BACKGROUND};

/// Operations without payload that a peer may have in flight: its queue, and its own flushes.
const BARE_OPS_MAX: usize = QUEUE_DEPTH as usize + 4;
/// Operations of the peer in flight.
pub(super) const PEER_OPS_MAX: usize = PEER_BUFFERS as usize + BARE_OPS_MAX;

/// An operation of the peer on this node's disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerOp {
    session: SessionId,
    id: u64,
    kind: FrameKind,
    /// A draining flush waits for it.
    before_drain: bool,
    /// A draining flush that waits itself.
    parked: bool,
    /// It is to be durable when it is answered: a flush, or a write with FUA.
    durable: bool,
}

impl PeerOp {
    pub(super) fn new(session: SessionId, id: u64, kind: FrameKind) -> Self {
        Self {
            session,
            id,
            kind,
            before_drain: false,
            parked: false,
            durable: matches!(kind, FrameKind::Flush | FrameKind::VerifyWrite),
        }
    }
}

/// All of them, by slot: receive buffers first, then operations without a buffer.
#[derive(Debug)]
pub(super) struct PeerOps {
    slots: Vec<Option<PeerOp>>,
    /// Slots that are not free, and draining flushes that wait: both are asked for with every event.
    used: usize,
    parked: usize,
    /// Reads for the peer, by the slot of their buffer.
    pub(super) reads: [Option<PeerRead>; SERVED_READS_MAX as usize],
    writes_done: u64,
}

impl PeerOps {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..PEER_OPS_MAX).map(|_| None).collect(),
            used: 0,
            parked: 0,
            reads: [None; SERVED_READS_MAX as usize],
            writes_done: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0 && self.reads.iter().all(Option::is_none)
    }

    /// Whether something is being changed for the peer.
    pub(super) fn changes(&self) -> bool {
        let mut ops = self.slots.iter().flatten();
        ops.any(|op| op.kind != FrameKind::Flush)
    }

    pub(super) fn writes_done(&self) -> u64 {
        self.writes_done
    }

    /// Takes a slot. Returns whether it was free.
    pub(super) fn begin(&mut self, slot: u16, op: PeerOp) -> bool {
        let place = self.slots.get_mut(usize::from(slot));
        let Some(place) = place.filter(|place| place.is_none()) else {
            return false;
        };
        *place = Some(op);
        self.used += 1;
        self.parked += usize::from(op.parked);
        true
    }

    fn end(&mut self, slot: u16) -> Option<PeerOp> {
        let op = self.slots.get_mut(usize::from(slot))?.take()?;
        self.used -= 1;
        self.parked -= usize::from(op.parked);
        Some(op)
    }

    /// The run of a verify that this node's own disk is written for.
    pub(super) fn own_repair(&self, slot: u16) -> Option<u16> {
        let op = self.slots.get(usize::from(slot))?.as_ref()?;
        let own = op.kind == FrameKind::VerifyWant;
        u16::try_from(op.id).ok().filter(|_| own)
    }

    fn free_bare(&self) -> Option<u16> {
        let first = usize::from(PEER_BUFFERS);
        let offset = self.slots.get(first..)?.iter().position(Option::is_none)?;
        u16::try_from(first + offset).ok()
    }

    /// Whether draining flushes wait, and wait for nothing any more.
    fn drain_is_over(&self) -> bool {
        self.parked > 0 && !self.slots.iter().flatten().any(|op| op.before_drain)
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
            FrameKind::CopyDone | FrameKind::CopyWant => {
                self.copy_answered(now, id, frame, effects)
            }
            FrameKind::Leave => {
                let failed = (frame.status != 0).then_some(Errno(frame.status));
                let invalidated = frame.flags & FLAG_INVALIDATED != 0;
                self.peer_leaves(id, failed, invalidated, effects)
            }
            FrameKind::VerifyDone | FrameKind::VerifyWant | FrameKind::VerifyWrite => {
                self.verify_frame(now, id, frame, buffer, effects)
            }
            FrameKind::Read => self.read_asked(id, &frame, effects),
            FrameKind::ReadDone => self.read_answered(now, &frame, buffer, effects),
            FrameKind::Isolate => self.peer_isolates(id, frame.id, effects),
            FrameKind::MarksWanted => self.target_is_asked(id, frame, effects),
            FrameKind::Write
            | FrameKind::CopyWrite
            | FrameKind::CopyZeroes
            | FrameKind::Discard
            | FrameKind::WriteZeroes
            | FrameKind::Flush => self.peer_asks(id, frame, buffer, effects),
            FrameKind::Hello
            | FrameKind::Auth
            | FrameKind::Refused
            | FrameKind::State
            | FrameKind::Propose
            | FrameKind::Accept
            | FrameKind::Marks
            | FrameKind::CopyHash
            | FrameKind::Grow
            | FrameKind::GrowDone
            | FrameKind::Evidence
            | FrameKind::VerifyHash
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
        let counts = self.staged.view.insync.contains(self.settings.peer);
        let peer_may = (counts || self.serves_diskless_peer()) && self.role == Role::Fenced;
        let copying = self.staged.copy.is_some();
        let fits = frame.kind == FrameKind::Flush || frame.range.fits(self.staged.size_sectors);
        let copies = matches!(frame.kind, FrameKind::CopyWrite | FrameKind::CopyZeroes);
        let copy_fits = !copies || (copying && !self.is_staged_member());
        // Nothing changes an isolated copy.
        let frozen = frame.kind != FrameKind::Flush
            && self.staged.isolation.own.is_some()
            && !mutant::is(Mutant::IsolatedFilled);
        if !peer_may || frozen || !fits || !copy_fits || frame.epoch > self.staged.view.epoch {
            return Taken::No;
        }
        let slot = match buffer.or_else(|| self.peer_ops.free_bare()) {
            Some(slot) if usize::from(slot) < self.peer_ops.slots.len() => slot,
            _ => return Taken::No,
        };
        let fua = frame.flags & FLAG_FUA != 0;
        let operation = if frame.kind == FrameKind::Write {
            DiskOperation::Write { fua }
        } else if frame.kind == FrameKind::CopyWrite {
            DiskOperation::Write { fua: false }
        } else if matches!(frame.kind, FrameKind::Discard | FrameKind::CopyZeroes) {
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
            durable: fua || operation == DiskOperation::Flush,
        };
        if !self.peer_ops.begin(slot, op) {
            return Taken::No;
        }
        if let Some(errno) = self.failed {
            // The disk is not asked again.
            if buffer.is_some() {
                self.peer_op_done(slot, Err(errno), effects);
                return Taken::WithBuffer;
            }
            self.peer_op_done(slot, Err(errno), effects);
            return Taken::Yes;
        }
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

    fn target_is_asked(
        &mut self,
        session: SessionId,
        frame: Frame,
        effects: &mut Effects,
    ) -> Taken {
        let target = self
            .staged
            .copy
            .is_some_and(|copy| copy.role == CopyRole::Target);
        if !target {
            return Taken::No;
        }
        self.marks_wanted(session, frame.id, effects);
        Taken::Yes
    }

    /// The source of a resync asks whether this node has a run already. Returns whether the frame was
    /// legal here.
    pub(super) fn hash_came(
        &mut self,
        session: SessionId,
        frame: &Frame,
        body: &[u8],
        effects: &mut Effects,
    ) -> Result<bool, DecodeError> {
        let digest = Digest::try_from(body).map_err(|_| DecodeError::Body {
            got: body.len(),
            expected: size_of::<Digest>(),
        })?;
        let target = self.staged.copy.is_some() && !self.is_staged_member();
        let epoch = frame.epoch > self.floor() && frame.epoch <= self.staged.view.epoch;
        let (Ok(slot), true) = (u16::try_from(frame.id), target && epoch) else {
            return Ok(false);
        };
        if slot >= COPY_INFLIGHT_MAX || !frame.range.fits(self.staged.size_sectors) {
            return Ok(false);
        }
        if !self
            .engine
            .compare(session, slot, frame.range, digest, effects)
        {
            let want = Frame::new(FrameKind::CopyWant, self.staged.view.epoch, frame.id);
            self.send(session, want, Vec::new(), effects);
        }
        Ok(true)
    }

    /// A run was compared: tell the source.
    pub(super) fn answer_compared(&mut self, compared: Option<Compared>, effects: &mut Effects) {
        let Some(compared) = compared else { return };
        if self.up_session() != Some(compared.session) {
            return;
        }
        let kind = if compared.equal {
            FrameKind::CopyDone
        } else {
            FrameKind::CopyWant
        };
        let mut frame = Frame::new(kind, self.staged.view.epoch, compared.id);
        frame.flags = if compared.equal { FLAG_EQUAL } else { 0 };
        self.send(compared.session, frame, Vec::new(), effects);
    }

    pub(super) fn is_staged_member(&self) -> bool {
        self.staged.view.insync.contains(self.me())
    }

    /// Draining flushes whose time has come.
    pub(super) fn standby_steps(&mut self, now: Instant, effects: &mut Effects) {
        if self.peer_ops.drain_is_over() {
            for (slot, op) in (0u16..).zip(self.peer_ops.slots.iter_mut()) {
                if let Some(op) = op
                    && op.parked
                {
                    op.parked = false;
                    self.peer_ops.parked -= 1;
                    let owner = IoOwner::Peer(slot);
                    effects.push(Effect::Disk {
                        owner,
                        operation: DiskOperation::Flush,
                        range: SectorRange::new(0, 0),
                    });
                }
            }
        }
        self.send_state_when_drained(now, effects);
        self.takeover_drained(effects);
    }

    pub(super) fn peer_op_done(&mut self, slot: u16, result: DiskResult, effects: &mut Effects) {
        let Some(op) = self.peer_ops.end(slot) else {
            return;
        };
        if slot < PEER_BUFFERS {
            effects.push(Effect::ReleaseBuffer { slot });
        }
        let flush = op.kind == FrameKind::Flush;
        // A disk that failed meanwhile may have lost what was to be durable (S1).
        let durable = if mutant::is(Mutant::FuaProves) {
            flush
        } else {
            op.durable
        };
        let failed = self.failed.filter(|_| durable);
        let result = failed.map_or(result, |errno| result.and(Err(errno)));
        if !flush && result.is_ok() {
            self.peer_ops.writes_done += 1;
        }
        if self.up_session() != Some(op.session) || op.kind == FrameKind::VerifyWant {
            return;
        }
        let kind = if op.kind == FrameKind::VerifyWrite {
            FrameKind::VerifyDone
        } else if matches!(op.kind, FrameKind::CopyWrite | FrameKind::CopyZeroes) {
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
            self.note_peer_failed(effects);
            if matches!(frame.id, FLUSH_JOIN | FLUSH_DEACTIVATE) || !self.peer_counts() {
                self.peer_disk_failed(session, frame.status, effects);
            } else {
                // It will ask to be dropped.
                self.engine.peer_refused(frame.id);
            }
            return Taken::Yes;
        }
        if frame.id == FLUSH_BACKGROUND {
            self.engine.background_peer_done(now, effects);
            return Taken::Yes;
        }
        if matches!(frame.id, FLUSH_JOIN | FLUSH_DEACTIVATE) {
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
        let Ok(slot) = u16::try_from(frame.id) else {
            return Taken::No;
        };
        if frame.kind == FrameKind::CopyWant {
            self.engine.copy_wanted(now, slot, effects);
        } else {
            let equal = frame.flags & FLAG_EQUAL != 0;
            self.engine.copy_chunk_done(now, slot, equal, effects);
        }
        Taken::Yes
    }

    /// A copy whose disk reported an error is written again from one end to the other before it counts, even
    /// if the peer forgets that (S1).
    pub(super) fn note_peer_failed(&mut self, effects: &mut Effects) {
        self.engine.peer_is_failing();
        if !self.staged.peer_failed {
            self.staged.peer_failed = true;
            self.persist(Then::Nothing, effects);
        }
    }

    fn peer_disk_failed(&mut self, session: SessionId, status: i32, effects: &mut Effects) {
        self.note_peer_failed(effects);
        effects.push(Effect::Notice(Notice::PeerDiskFailed {
            errno: Errno(status),
        }));
        self.close(session, effects);
    }
}
