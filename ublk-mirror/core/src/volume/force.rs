//! Forced recovery: an operator makes an incomplete copy the only one that counts (S9).

use crate::admin::{Done, Outcome, Role};
use crate::disk::Operation;
use crate::effect::{Effect, Effects};
use crate::engine::ReadLease;
use crate::isolation::IsolationRefusal;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal};
use crate::types::{CopyId, Epoch, Instant, NodeSet};
use crate::view::{View, ViewHistory, ViewMark};

use super::Volume;
use super::change::{Kind, Step};

/// So far above every epoch that this node has seen begins the new history: the lost one may have gone on
/// for a while without this node.
const FORCE_EPOCH_STEP: u64 = 1000;

impl Volume {
    /// An operator makes this copy the only one that counts, whatever it lacks.
    pub(super) fn force(
        &mut self,
        id: u64,
        confirm: &str,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        let (peer, volume) = (self.peer_name(), self.volume_name());
        if self.role != Role::Fenced {
            return Some(Err(Refusal::Serving));
        }
        if self.failed.is_some() {
            return Some(Err(Refusal::DiskFailed));
        }
        if self.current.is_some() {
            return Some(Err(Refusal::LinkUp { peer }));
        }
        if self.is_changing_or_meeting() {
            return Some(Err(Refusal::Busy));
        }
        if self.is_blank() {
            return Some(Err(Refusal::Blank { peer }));
        }
        if self.is_isolated() && !mutant::is(Mutant::IsolatedForced) {
            // Its image is in use as it is, and no superblock is both isolated and a member.
            return Some(Err(Refusal::Isolation(IsolationRefusal::AttachFirst)));
        }
        if self.is_member() && !self.durable.failed {
            let alone = self.is_sole();
            return Some(Err(Refusal::Promotable { alone }));
        }
        if confirm != volume {
            return Some(Err(Refusal::NotNamed { volume }));
        }
        // As a takeover: what the old source sent is on disk, its epoch is sealed, everything is flushed,
        // and no lease that was granted holds any more.
        if !self.begin_change(Kind::Force { command: id }, Step::Drain, None) {
            return Some(Err(Refusal::Busy));
        }
        self.takeover_drained(effects);
        None
    }

    /// The view that a forced recovery commits: nobody serves, this copy alone counts.
    pub(super) fn force_view(&mut self) -> View {
        let me = NodeSet::only(self.me());
        let theirs = self.words.split.and_then(|split| split.theirs);
        let theirs = theirs.map_or(Epoch(0), |evidence| evidence.view.epoch);
        let seen = self.floor().max(self.staged.view.epoch).max(theirs);
        let far = Epoch(seen.0.saturating_add(FORCE_EPOCH_STEP));
        self.next_view(None, me, far)
    }

    /// The new history knows nothing of the one before, and nothing is known of what any other copy lacks:
    /// no row of the rejoin table takes one for a part of the other (S8).
    pub(super) fn stage_force(&mut self, view: View) {
        self.staged.history = ViewHistory::default();
        if mutant::is(Mutant::ForceKeepsHistory) {
            self.staged.history.push(self.durable.view.mark());
        }
        self.staged.base = ViewMark::default();
        self.staged.lineage = CopyId::NONE;
        self.staged.copy = None;
        self.staged.failed = false;
        // Marked or not, it is the best that there is, and has to be a source.
        self.staged.invalidated = mutant::is(Mutant::ForcedStaysMarked) && self.staged.invalidated;
        self.staged.serving = false;
        self.staged.drained = false;
        self.record_operation(Operation::Force, view.mark(), true);
    }

    pub(super) fn forced(&mut self, now: Instant, command: u64, effects: &mut Effects) {
        self.change = None;
        self.aborted_writes = false;
        self.engine.peer_is_out(now, effects);
        self.engine.set_lease(now, ReadLease::NotNeeded, effects);
        let at_s = self.forced_at_s();
        effects.push(Effect::Notice(Notice::Forced { at_s }));
        self.answer(Some(command), Ok(Done::Forced), effects);
    }

    /// Whether the copy was recovered by force and no resync has mended that.
    pub(super) fn is_forced(&self) -> bool {
        self.durable
            .record
            .operations
            .standing(Operation::Force)
            .is_some()
    }

    /// When that was; 0: not known.
    pub(super) fn forced_at_s(&self) -> u64 {
        let operations = &self.durable.record.operations;
        operations
            .standing(Operation::Force)
            .map_or(0, |entry| entry.at_s)
    }

    /// Both copies are equal from end to end: what a forced recovery had left behind is mended. Staged with
    /// the view that says so.
    pub(super) fn stage_mended(&mut self) {
        self.staged.record.operations.mended(Operation::Force);
    }
}
