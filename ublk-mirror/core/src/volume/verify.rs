//! A verify: who may run one, what the other side answers, and how it ends.
//!
//! The node that serves compares; if nobody serves, the one with the lower number. So at most one side has
//! runs under way, and its own locks are enough: nobody else writes.

use alloc::string::String;
use alloc::vec::Vec;

use crate::admin::{Done, Outcome, Role, VerifyState, VerifyStatus};
use crate::disk::Operation;
use crate::effect::{DiskOperation, Effect, Effects};
use crate::engine::{NOT_NOW, VerifyAnswer};
use crate::event::{Digest, IoOwner};
use crate::limits::{COPY_CHUNK_BYTES, COPY_INFLIGHT_MAX};
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal, UpkeepNotice};
use crate::types::{Errno, Instant, NodeId, SectorRange, SessionId};
use crate::verify::Repair;
use crate::view::View;
use crate::wire::{DecodeError, FLAG_EQUAL, Frame, FrameKind};

use super::Volume;
use super::change::{Kind, Step, Then};
use super::session::Taken;
use super::standby::PeerOp;

impl Volume {
    // --- the operator -------------------------------------------------------------------------

    fn verifier(&self, view: View) -> NodeId {
        view.active
            .unwrap_or_else(|| self.me().min(self.settings.peer))
    }

    pub(super) fn verify(
        &mut self,
        now: Instant,
        repair: bool,
        from: Option<&str>,
        confirm: &str,
        effects: &mut Effects,
    ) -> Outcome {
        let peer = self.peer_name();
        if self.failed.is_some() {
            return Err(Refusal::DiskFailed);
        }
        let right = match from {
            None => Repair::Peer,
            Some(name) if name == self.settings.node_name => Repair::Peer,
            Some(name) if name == peer => Repair::Own,
            Some(name) => {
                return Err(Refusal::NoSuchNode { name: name.into() });
            }
        };
        if self.up_session().is_none() || !self.peer_counts() || !self.is_member() {
            return Err(Refusal::NothingToVerify { peer });
        }
        if self.verifier(self.durable.view) != self.me() {
            return Err(Refusal::VerifyElsewhere { node: peer });
        }
        if self.engine.verifies() {
            return Err(Refusal::VerifyRuns);
        }
        let volume = self.volume_name();
        if right == Repair::Own && confirm != volume {
            // What applications read here goes away.
            return Err(Refusal::NotNamed { volume });
        }
        let repair = match (repair || from.is_some(), right) {
            (false, _) => Repair::Nothing,
            (true, Repair::Peer) if mutant::is(Mutant::RepairFromWrongSide) => Repair::Own,
            (true, right) => right,
        };
        let not_before = if mutant::is(Mutant::VerifyJumpsQueue) {
            now
        } else {
            self.handed_over_by
        };
        self.engine.verify_begin(now, repair, not_before);
        let repair = repair != Repair::Nothing;
        if repair {
            let view = self.durable.view.mark();
            self.record_operation(Operation::Repair, view, false);
            self.persist(Then::Nothing, effects);
        }
        effects.push(Effect::Notice(Notice::Upkeep(UpkeepNotice::VerifyBegan {
            repair,
        })));
        Ok(Done::VerifyBegun)
    }

    pub(super) fn verify_stop(&mut self) -> Outcome {
        if !self.engine.verifies() {
            return Err(Refusal::NoVerify);
        }
        self.engine.verify_ends(VerifyState::Stopped);
        Ok(Done::VerifyEnds)
    }

    pub(super) fn verify_status(&self, now: Instant) -> Option<VerifyStatus> {
        let verify = self.engine.verify()?;
        let from: Option<String> = match verify.repair() {
            Repair::Nothing => None,
            Repair::Peer => Some(self.settings.node_name.clone()),
            Repair::Own => Some(self.peer_name()),
        };
        Some(verify.status(now, from))
    }

    // --- the side that compares ---------------------------------------------------------------

    pub(super) fn verify_steps(&mut self, now: Instant, effects: &mut Effects) {
        if self.engine.verifies() {
            let views = [self.durable.view, self.staged.view];
            let mine = views
                .into_iter()
                .all(|view| self.verifier(view) == self.me() && view.insync.contains(self.me()));
            let drops = self.change.as_ref();
            let drops = drops.is_some_and(|change| matches!(change.kind, Kind::Drop { .. }));
            let off = drops || self.waits_for_verify() || self.asks_to_be_isolated();
            if !mine || self.failed.is_some() || off {
                self.engine.verify_ends(VerifyState::Interrupted);
            }
            self.engine.verify_steps(now, effects);
        }
        if !self.engine.verify_has_runs()
            && self.waits_for_verify()
            && let Some(Kind::Follow { propose, .. }) =
                self.change.as_ref().map(|change| &change.kind)
        {
            let propose = *propose;
            self.follow_drained(&propose, effects);
        }
    }

    /// The other node wants to serve: it may when no run is under way here any more, or else its writes
    /// would meet them.
    fn waits_for_verify(&self) -> bool {
        self.change.as_ref().is_some_and(|change| {
            matches!(
                (&change.kind, &change.step),
                (Kind::Follow { .. }, Step::Drain)
            )
        })
    }

    /// The other side's word on a run, or on a repair.
    fn verify_answered(&mut self, now: Instant, frame: Frame, effects: &mut Effects) -> Taken {
        let Ok(slot) = u16::try_from(frame.id) else {
            return Taken::No;
        };
        let blind = mutant::is(Mutant::VerifyBlind);
        let result = match frame.status {
            0 => Ok(frame.flags & FLAG_EQUAL != 0 || blind),
            status => Err(Errno(status)),
        };
        self.engine.verify_answered(now, slot, result, effects);
        Taken::Yes
    }

    // --- the side that is asked ---------------------------------------------------------------

    /// The other side asks whether this node has the same. Returns whether the frame was legal.
    pub(super) fn verify_hash_came(
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
        if self.current != Some(session) || frame.epoch <= self.floor() {
            return Ok(false);
        }
        Ok(self.verify_asked(session, frame, Some(digest), effects))
    }

    fn verify_asked(
        &mut self,
        session: SessionId,
        frame: &Frame,
        digest: Option<Digest>,
        effects: &mut Effects,
    ) -> bool {
        let fits = frame.range.fits(self.staged.size_sectors)
            && frame.range.bytes() <= u64::from(COPY_CHUNK_BYTES);
        let slot = u16::try_from(frame.id).unwrap_or(u16::MAX);
        if !fits || slot >= COPY_INFLIGHT_MAX {
            return false;
        }
        let asked = self.may_be_verified(session)
            && self.is_durably_inside(frame.range)
            && self
                .engine
                .verify_asked(session, slot, frame.range, digest, effects);
        if !asked {
            self.send_verify_done(session, frame.id, NOT_NOW.0, 0, effects);
        }
        true
    }

    /// The other side may have written down a larger size before this one has.
    fn is_durably_inside(&self, range: SectorRange) -> bool {
        range.fits(self.durable.size_sectors)
    }

    /// Both copies count, and this node serves nothing.
    fn may_be_verified(&self, session: SessionId) -> bool {
        self.up_session() == Some(session)
            && self.role == Role::Fenced
            && self.failed.is_none()
            && !self.asks_to_be_isolated()
            && self.staged.view.insync == self.both()
    }

    fn send_verify_done(
        &self,
        session: SessionId,
        id: u64,
        status: i32,
        flags: u16,
        effects: &mut Effects,
    ) {
        let mut frame = Frame::new(FrameKind::VerifyDone, self.staged.view.epoch, id);
        (frame.status, frame.flags) = (status, flags);
        self.send(session, frame, Vec::new(), effects);
    }

    /// A buffer was filled or looked at for the other side.
    pub(super) fn verify_answer(
        &mut self,
        slot: u16,
        answer: Option<(SessionId, VerifyAnswer)>,
        effects: &mut Effects,
    ) {
        let Some((session, answer)) = answer else {
            return;
        };
        if self.up_session() != Some(session) {
            return;
        }
        let id = u64::from(slot);
        match answer {
            VerifyAnswer::Compared(equal) => {
                let flags = if equal { FLAG_EQUAL } else { 0 };
                self.send_verify_done(session, id, 0, flags, effects);
            }
            VerifyAnswer::Failed(errno) => {
                self.send_verify_done(session, id, errno.0, 0, effects);
            }
            VerifyAnswer::Block(range) => {
                self.engine
                    .verify_send_block(session, self.staged.view.epoch, slot, range, effects)
            }
        }
    }

    // --- frames without a body ----------------------------------------------------------------

    pub(super) fn verify_frame(
        &mut self,
        now: Instant,
        session: SessionId,
        frame: Frame,
        buffer: Option<u16>,
        effects: &mut Effects,
    ) -> Taken {
        match (frame.kind, buffer) {
            (FrameKind::VerifyDone, _) => self.verify_answered(now, frame, effects),
            (FrameKind::VerifyWant, _) => {
                if self.verify_asked(session, &frame, None, effects) {
                    Taken::Yes
                } else {
                    Taken::No
                }
            }
            (_, Some(buffer)) => self.verify_block_came(session, frame, buffer, effects),
            (_, None) => Taken::No,
        }
    }

    /// A block to be written here: the other side repairs this copy, or this side asked for it.
    fn verify_block_came(
        &mut self,
        session: SessionId,
        frame: Frame,
        buffer: u16,
        effects: &mut Effects,
    ) -> Taken {
        let slot = u16::try_from(frame.id).unwrap_or(u16::MAX);
        if slot >= COPY_INFLIGHT_MAX || !frame.range.fits(self.staged.size_sectors) {
            return Taken::No;
        }
        let wanted = self.engine.verify_block_came(slot, frame.range);
        let may = self.may_be_verified(session) && self.is_durably_inside(frame.range);
        if !wanted && !may {
            self.send_verify_done(session, frame.id, NOT_NOW.0, 0, effects);
            return Taken::Yes;
        }
        let kind = if wanted {
            FrameKind::VerifyWant
        } else {
            FrameKind::VerifyWrite
        };
        if !self
            .peer_ops
            .begin(buffer, PeerOp::new(session, frame.id, kind))
        {
            return Taken::No;
        }
        self.write_repair(buffer, frame.range, effects);
        Taken::WithBuffer
    }

    /// Durable when it is answered.
    fn write_repair(&self, buffer: u16, range: SectorRange, effects: &mut Effects) {
        let fua = !mutant::is(Mutant::RepairNotDurable);
        effects.push(Effect::Disk {
            owner: IoOwner::Peer(buffer),
            operation: DiskOperation::Write { fua },
            range,
        });
    }
}
