//! The end of a resync: both sides flush, then the view becomes wider.

use crate::effect::Effects;
use crate::engine::{Peer, ReadLease};
use crate::mutant::{self, Mutant};
use crate::types::{Instant, SessionId};
use crate::wire::{FLAG_DRAIN, Frame, FrameKind, Purpose};

use super::Volume;
use super::change::{FLUSH_DEACTIVATE, FLUSH_JOIN, Kind, Step};

impl Volume {
    /// The last step of a resync that is complete.
    pub(super) fn copy_steps(&mut self, now: Instant, effects: &mut Effects) {
        let Peer::Target(session) = self.engine.peer() else {
            return;
        };
        self.engine.copy_more(now, effects);
        let full = self.staged.copy.is_some_and(|copy| copy.full);
        // A checkpoint under way would answer for a later flush of the same session.
        let ready =
            self.engine.resync_is_complete() && !full && !self.engine.flushes_in_background();
        if ready && self.change.is_none() && self.failed.is_none() {
            // Both sides flush: a view under which nobody serves says that both copies are durable.
            if !self.begin_change(Kind::Widen { session }, Step::Flush, None) {
                return;
            }
            self.engine.peer_is_joining(now, session);
            if mutant::is(Mutant::WidenWithoutOwnFlush) {
                self.set_step(Step::PeerFlush);
                return self.send_drain(session, FLUSH_JOIN, effects);
            }
            self.flush_for_view(effects);
        }
    }

    pub(super) fn send_drain(&mut self, session: SessionId, id: u64, effects: &mut Effects) {
        let mut frame = Frame::new(FrameKind::Flush, self.engine.epoch(), id);
        frame.flags = FLAG_DRAIN;
        self.send(session, frame, alloc::vec::Vec::new(), effects);
    }

    /// The peer has flushed something that is not a request of the device.
    pub(super) fn special_flush_done(
        &mut self,
        id: u64,
        session: SessionId,
        effects: &mut Effects,
    ) {
        let Some(change) = self.change.as_ref() else {
            return;
        };
        match (&change.kind, &change.step) {
            (Kind::Widen { .. }, Step::PeerFlush) if id == FLUSH_JOIN => {
                self.engine.intent.marks_equal();
                let both = self.both();
                let active = self.durable.view.active;
                let view = self.next_view(active, both, self.floor());
                if let Some(change) = self.change.as_mut() {
                    change.view = Some(view);
                }
                self.persist_change(effects);
            }
            (Kind::Deactivate { .. }, Step::PeerFlush) if id == FLUSH_DEACTIVATE => {
                self.engine.all_flushed();
                self.deactivate_propose(session, effects);
            }
            _ => {}
        }
    }

    /// The wider view is durable here: from now on the peer's copy counts.
    pub(super) fn widened(&mut self, now: Instant, session: SessionId, effects: &mut Effects) {
        if self.current != Some(session) {
            // The session broke meanwhile: the next handshake finds both views (WideningInterrupted).
            self.change = None;
            self.set_peer_without_session();
            return;
        }
        self.engine.peer_widened(session);
        if !mutant::is(Mutant::WidenKeepsLease) {
            self.engine.set_lease(now, ReadLease::Until(now), effects);
        }
        self.set_step(Step::Accept);
        let view = self.durable.view;
        self.propose(session, Purpose::Widen, view, effects);
        self.ping(now, session, effects);
    }
}
