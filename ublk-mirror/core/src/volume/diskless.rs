//! The own disk failed while this node serves and the peer's copy counts: this node takes itself out of the view,
//! the peer's copy alone counts, and the service goes on through it (S2).
//!
//! This node writes down that its disk failed, lets end what is running, and asks the peer. The peer flushes and
//! writes the view down, and only then anything is acknowledged that is not on both disks. This node never
//! connects again before its daemon was started anew: its copy is then filled from one end to the other. So the
//! service ends with the connection, and nothing that was acknowledged is anywhere but on the peer.
//!
//! If it cannot write anything down because its metadata failed too, see `carried`.

use crate::admin::{Problem, Role};
use crate::effect::{Effect, Effects};
use crate::engine::{Peer, ReadLease};
use crate::mutant::{self, Mutant};
use crate::notice::{DiskNotice, Notice};
use crate::types::{Instant, NodeSet, SessionId};
use crate::wire::{Propose, Purpose};

use super::Volume;
use super::change::{Kind, Step};

impl Volume {
    /// Whether the peer, whose copy counts, can be asked to go on alone.
    fn may_go_diskless(&self) -> Option<SessionId> {
        let session = self.up_session()?;
        let member = self.engine.peer() == Peer::Member(session);
        let quiet = self.change.is_none() && self.stopping.is_none() && !self.isolation_is_busy();
        let both = self.staged.view.insync == self.both() && self.durable.view == self.staged.view;
        let well = !self.staged.peer_failed && self.grow.is_none() && self.role == Role::Active;
        (member && quiet && both && well).then_some(session)
    }

    /// The disk failed just now. Returns whether the service goes on.
    pub(super) fn leave_own_disk(&mut self) -> bool {
        let Some(session) = self.may_go_diskless() else {
            return false;
        };
        let peer = NodeSet::only(self.settings.peer);
        let insync = if mutant::is(Mutant::DisklessCountsItself) {
            self.both()
        } else {
            peer
        };
        let view = self.next_view(Some(self.me()), insync, self.floor());
        let begun = self.begin_change(Kind::Diskless { session }, Step::Drain, Some(view));
        if begun {
            self.engine.leaves_disk();
        }
        begun
    }

    /// Everything that was begun has ended, and it is durable that the disk failed: the peer is asked.
    pub(super) fn diskless_steps(&mut self, now: Instant, effects: &mut Effects) {
        if !self.engine.without_disk() {
            return;
        }
        if self.engine.both_refuse() && self.role == Role::Active {
            return self.diskless_lost(now, effects);
        }
        let Some(Kind::Diskless { session }) = self.change.as_ref().map(|change| &change.kind)
        else {
            return;
        };
        let session = *session;
        let waits = self
            .change
            .as_ref()
            .is_some_and(|change| matches!(change.step, Step::Drain));
        if waits && self.may_ask_peer() && self.engine.is_drained() {
            if !self.keeps_records() && mutant::is(Mutant::CarriedBeforeConsent) {
                return self.persist_change(effects);
            }
            self.disown_membership(effects);
            self.propose_change(session, Purpose::Diskless, effects);
        }
    }

    /// Both sides have the view.
    pub(super) fn went_diskless(&mut self, now: Instant, effects: &mut Effects) {
        self.change = None;
        if self.up_session().is_none() {
            return self.diskless_lost(now, effects);
        }
        self.engine.set_lease(now, ReadLease::NotNeeded, effects);
        self.engine.goes_diskless(now, effects);
        effects.push(Effect::Notice(Notice::Disk(DiskNotice::Diskless)));
        self.tell_carried(effects);
    }

    /// The connection is gone, or the peer's disk failed too: the service ends.
    pub(super) fn diskless_lost(&mut self, now: Instant, effects: &mut Effects) {
        if self.engine.without_disk() && self.engine.is_open() {
            self.stop_everything(now, effects);
            effects.push(Effect::Notice(Notice::Disk(DiskNotice::DisklessLost)));
        }
    }

    /// What an operator has to know of it.
    pub(super) fn diskless_problem(&self) -> Option<Problem> {
        let notice = match (self.engine.without_disk(), self.engine.is_open()) {
            (false, _) => return None,
            (true, true) => DiskNotice::Diskless,
            (true, false) if self.role == Role::Fenced => return None,
            (true, false) => DiskNotice::DisklessLost,
        };
        Some(Notice::Disk(notice).problem())
    }

    /// Whether the peer serves through this node's copy.
    pub(super) fn serves_diskless_peer(&self) -> bool {
        let view = self.staged.view;
        view.active == Some(self.settings.peer) && view.is_sole(self.me())
    }

    /// Whether the connection over which the peer served is gone, and what came over it is on disk (S4).
    pub(super) fn is_let_go(&self) -> bool {
        let drained = self.peer_ops.is_empty() || mutant::is(Mutant::DisklessUndrained);
        self.current.is_none() && drained
    }

    /// Whether this node serves through the peer's copy.
    pub(super) fn is_diskless(&self) -> bool {
        let view = self.durable.view;
        view.active == Some(self.me()) && view.is_sole(self.settings.peer)
    }

    /// Whether this node's disk is flushed before it writes a proposal down (S2).
    pub(super) fn flushes_first(&self, propose: &Propose) -> bool {
        match propose.purpose {
            Purpose::Diskless => !mutant::is(Mutant::DisklessWithoutFlush),
            Purpose::Settle => self.needs_flush(propose.view),
            Purpose::Activate | Purpose::Deactivate | Purpose::Leave | Purpose::Widen => false,
        }
    }

    /// What this node may agree to: its own copy alone counts, and the peer serves on.
    pub(super) fn diskless_fits(&self, view: crate::view::View) -> bool {
        let now = self.staged.view;
        self.role == Role::Fenced
            && self.failed.is_none()
            && now.active == Some(self.settings.peer)
            && now.insync == self.both()
            && view.active == now.active
            && (view.is_sole(self.me()) || mutant::is(Mutant::DisklessCountsItself))
    }
}
