//! An operator marks the copy of a standby: it leaves the view and says so durably in one step, and is filled
//! anew, in full, when both sides come together again.

use alloc::vec::Vec;

use crate::admin::{Done, Outcome, Role};
use crate::disk::Operation;
use crate::effect::{Effect, Effects};
use crate::isolation::IsolationRefusal;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal, UpkeepNotice};
use crate::types::{Instant, SessionId};
use crate::wire::{FLAG_INVALIDATED, Frame, FrameKind};

use super::Volume;
use super::change::Then;

impl Volume {
    pub(super) fn invalidate(
        &mut self,
        now: Instant,
        id: u64,
        confirm: &str,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        let peer = self.peer_name();
        if self.role != Role::Fenced {
            return Some(Err(Refusal::InvalidateActive { peer }));
        }
        if let Some(refusal) = self.obstacle() {
            return Some(Err(refusal));
        }
        if self.is_isolated() {
            // Its image does not change, and it does not count anyway.
            return Some(Err(Refusal::Isolation(IsolationRefusal::Isolated { peer })));
        }
        if self.is_blank() {
            return Some(Err(Refusal::Blank { peer }));
        }
        let last = self.is_member() && !self.peer_counts();
        if last && !mutant::is(Mutant::InvalidateLastCopy) {
            return Some(Err(Refusal::InvalidateOnlyCopy { peer }));
        }
        if confirm != self.volume_name() {
            return Some(Err(Refusal::InvalidateNotConfirmed));
        }
        if !self.is_member() || last {
            self.stage_invalidated();
            self.persist(Then::Invalidated(id), effects);
            return None;
        }
        if self.durable.serving {
            // Its last service did not end cleanly, and the other side was not yet told of it.
            return Some(Err(Refusal::Unclean { peer }));
        }
        let Some(session) = self.up_session() else {
            return Some(Err(Refusal::PeerSilent { peer }));
        };
        self.invalidating = Some((id, now + self.settings.link_timeout * 2));
        self.ask_to_be_dropped(session, effects);
        None
    }

    fn ask_to_be_dropped(&self, session: SessionId, effects: &mut Effects) {
        let mut frame = Frame::new(FrameKind::Leave, self.durable.view.epoch, 0);
        frame.flags = FLAG_INVALIDATED;
        self.send(session, frame, Vec::new(), effects);
    }

    /// Repeated with the keepalives until the view says so.
    pub(super) fn ask_again_to_be_dropped(&mut self, effects: &mut Effects) {
        if self.invalidating.is_some()
            && self.may_withdraw()
            && let Some(session) = self.up_session()
        {
            self.ask_to_be_dropped(session, effects);
        }
    }

    /// The view without this copy is about to be written down, together with why.
    pub(super) fn note_invalidated(&mut self) {
        if self.invalidating.is_some() && !mutant::is(Mutant::InvalidateForgotten) {
            self.stage_invalidated();
        }
    }

    fn stage_invalidated(&mut self) {
        self.staged.invalidated = true;
        let view = self.durable.view.mark();
        self.record_operation(Operation::Invalidate, view, false);
    }

    /// It is durable that this copy does not count, and why. Both sides come together anew.
    pub(super) fn invalidated(&mut self, id: u64, effects: &mut Effects) {
        effects.push(Effect::Notice(Notice::Upkeep(UpkeepNotice::Invalidated)));
        self.answer(Some(id), Ok(Done::Invalidated), effects);
        if let Some(session) = self.current {
            self.close(session, effects);
        }
    }

    /// Until then the other side may agree; a change that is under way ends by itself.
    pub(super) fn invalidate_deadline(&self) -> Option<Instant> {
        let until = self.invalidating.map(|(_, until)| until);
        until.filter(|_| self.change.is_none())
    }

    /// The other side did not agree in time.
    pub(super) fn invalidate_over(&mut self, now: Instant, effects: &mut Effects) {
        if self.change.is_none()
            && let Some((id, _)) = self.invalidating.take_if(|(_, until)| now >= *until)
        {
            let peer = self.peer_name();
            self.answer(Some(id), Err(Refusal::PeerRefused { peer }), effects);
        }
    }
}
