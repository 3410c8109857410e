//! The end of a service: both copies flushed, then a view in which nobody is active.

use crate::admin::{Done, Role};
use crate::effect::{Effect, Effects};
use crate::engine::Peer;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal};
use crate::types::{Instant, NodeSet, SessionId};
use crate::wire::{Frame, FrameKind, Purpose};

use super::Volume;
use super::change::{FLUSH_DEACTIVATE, Kind, Step, Then};

impl Volume {
    pub(super) fn deactivate_flush_peer(&mut self, now: Instant, effects: &mut Effects) {
        match self.engine.peer() {
            // The peer lacks what was thrown away: its consent would call unequal copies equal.
            Peer::Member(_) if self.aborted_writes && !mutant::is(Mutant::AbortHandedOver) => {
                self.deactivate_alone(effects)
            }
            Peer::Member(session) if mutant::is(Mutant::EndWithoutPeerFlush) => {
                self.engine.all_flushed();
                self.deactivate_propose(session, effects);
            }
            Peer::Member(session) => {
                self.set_step(Step::PeerFlush);
                let frame = Frame::new(FrameKind::Flush, self.engine.epoch(), FLUSH_DEACTIVATE);
                self.send(session, frame, alloc::vec::Vec::new(), effects);
            }
            Peer::Target(session) => self.deactivate_propose(session, effects),
            Peer::Absent if let Some(session) = self.gathers_from().or(self.isolated_session()) => {
                self.deactivate_propose(session, effects);
            }
            Peer::Absent | Peer::Lost | Peer::Joining(_) => self.deactivate_alone(effects),
        }
        let _ = now;
    }

    pub(super) fn deactivate_propose(&mut self, session: SessionId, effects: &mut Effects) {
        let insync = self.durable.view.insync;
        let view = self.next_view(None, insync, self.floor());
        if let Some(change) = self.change.as_mut() {
            change.view = Some(view);
        }
        self.set_step(Step::Accept);
        self.propose(session, Purpose::Deactivate, view, effects);
    }

    /// The peer cannot be told: a sole member changes the view by itself, otherwise the view stays and
    /// a clean end is remembered, unless writes were thrown away.
    pub(super) fn deactivate_alone(&mut self, effects: &mut Effects) {
        if self.is_sole() {
            let me = NodeSet::only(self.me());
            let view = self.next_view(None, me, self.floor());
            if let Some(change) = self.change.as_mut() {
                change.view = Some(view);
            }
            self.persist_change(effects);
            return;
        }
        self.staged.serving &= self.aborted_writes && !mutant::is(Mutant::UncleanForgotten);
        self.staged.drained = true;
        self.set_step(Step::Persist);
        self.persist(Then::Continue, effects);
    }

    /// The peer is lost while the device ends by force: what waits for the peer fails, or the device's end would wait
    /// for it too. Nobody says it again: a control plane whose lease is over says it once.
    pub(super) fn forced_end_freezes(&mut self, now: Instant, effects: &mut Effects) {
        let ends = self.change.as_ref().is_some_and(|change| {
            let forced = matches!(change.kind, Kind::Deactivate { command, .. }
                if command.is_some() && command == self.forced_end);
            forced && matches!(change.step, Step::Device)
        });
        if ends && !mutant::is(Mutant::ForcedEndWaits) {
            self.abort_writes(now, effects);
        }
    }

    pub(super) fn deactivated(&mut self, effects: &mut Effects) {
        let Some(change) = self.change.take() else {
            return;
        };
        self.role = Role::Fenced;
        self.aborted_writes = false;
        // Writes were thrown away and the copies may differ: the next handshake decides (S10).
        if self.durable.serving
            && let Some(session) = self.current
        {
            self.close(session, effects);
        }
        effects.push(Effect::Notice(Notice::Deactivated));
        let Kind::Deactivate { command, failure } = change.kind else {
            return;
        };
        let outcome = match failure {
            None => Ok(Done::Fenced),
            Some(errno) => Err(Refusal::Device { errno }),
        };
        self.answer(command, outcome, effects);
    }
}
