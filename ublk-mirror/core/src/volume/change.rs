//! Changes of view: one at a time, each a short list of durable steps.
//!
//! Order of the steps (DESIGN §3): who is dropped writes it down first; who is added counts only after
//! its own flush, and the source demands its answers before it learns that it counts.

use crate::admin::{CopyCause, Done, Role};
use crate::disk::{CopyRecord, Operation};
use crate::effect::{DeviceCommand, DiskOperation, Effect, Effects};
use crate::engine::ReadLease;
use crate::event::IoOwner;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal};
use crate::types::{CopyId, Errno, Instant, SectorRange, SessionId};
use crate::view::View;
use crate::wire::{Propose, Purpose};

use super::Volume;

/// Flush ids that do not belong to a request.
pub(super) const FLUSH_JOIN: u64 = u64::MAX;
pub(super) const FLUSH_DEACTIVATE: u64 = u64::MAX - 2;

/// What happens when a superblock is durable.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing waits for it.
    Nothing,
    /// The change under way goes on.
    Continue,
    /// A standby with a failed disk asks to be dropped.
    Withdraw,
    /// Frozen writes fail: it is written down that they were thrown away.
    Abort,
    /// An operator marked a copy that did not count any more.
    Invalidated(u64),
    /// That the disk of the peer failed, which will be filled anew.
    PeerFailure,
}

/// Where a change is. Each waits for one thing.
#[derive(Debug)]
pub(super) enum Step {
    /// The peer's Accept for this view.
    Accept,
    /// The own disk's flush.
    Flush,
    /// It to be durable that the peer's disk failed.
    PeerFailure,
    /// The own superblock.
    Persist,
    /// The live device.
    Device,
    /// Everything that the peer sent before, or that was begun here, to be done.
    Drain,
    /// The seal.
    Seal,
    /// The end of a lease that was granted.
    Lease(Instant),
    /// The peer's flush (and its Accept before that is not wanted yet).
    PeerFlush,
}

/// What is being changed.
#[derive(Debug)]
pub(super) enum Kind {
    /// The handshake's proposal; this node leads.
    Lead {
        session: SessionId,
        copy: Option<(CopyRecord, crate::admin::CopyCause)>,
        /// The lineage of the marks from then on, if the peer's copy stays isolated.
        apart: Option<CopyId>,
    },
    /// The handshake's proposal; this node follows.
    Follow {
        session: SessionId,
        propose: Propose,
    },
    /// An operator activates.
    Activate { command: u64 },
    /// An operator deactivates, or a failed activation is undone.
    Deactivate {
        command: Option<u64>,
        failure: Option<Errno>,
    },
    /// An operator takes over on a standby.
    Takeover { command: u64 },
    /// An operator lets a frozen active node go on alone.
    GoAlone { command: u64 },
    /// The peer asked to be dropped; to be isolated, if a time is there.
    Drop {
        session: SessionId,
        isolated: Option<u64>,
    },
    /// A resync is complete.
    Widen { session: SessionId },
    /// The own disk failed: only the peer's copy counts.
    Diskless { session: SessionId },
    /// Both have prepared a grow. `command`: an operator asked here; otherwise the peer did.
    Grow {
        session: SessionId,
        id: u64,
        to_sectors: u64,
        command: Option<u64>,
    },
    /// An operator discards this copy's history.
    Discard { command: u64 },
    /// An operator makes this incomplete copy the only one.
    Force { command: u64 },
    /// An operator ends the isolation of the copy here.
    Attach { command: u64 },
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) step: Step,
    /// The view that it is about, once it is known.
    pub(super) view: Option<View>,
}

/// A deactivation that waits for its device while both sides come together again: frozen writes keep the
/// device from ending, and only a new session thaws them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    pub(super) command: Option<u64>,
    /// The device is gone meanwhile.
    pub(super) gone: bool,
}

/// The own flush before a change of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewFlush {
    /// None is under way.
    None,
    /// The present change's.
    Running,
    /// One of an earlier change; the present one needs another.
    Stale,
}

impl Change {
    pub(super) fn command(&self) -> Option<u64> {
        match &self.kind {
            Kind::Activate { command }
            | Kind::Takeover { command }
            | Kind::GoAlone { command }
            | Kind::Discard { command }
            | Kind::Force { command }
            | Kind::Attach { command } => Some(*command),
            Kind::Deactivate { command, .. } | Kind::Grow { command, .. } => *command,
            Kind::Lead { .. }
            | Kind::Follow { .. }
            | Kind::Drop { .. }
            | Kind::Diskless { .. }
            | Kind::Widen { .. } => None,
        }
    }
}

impl Volume {
    /// Begins a change, unless one is under way: what that one waits for would never be taken up again, and who
    /// waits for it would wait for ever. Returns whether it began. Callers look beforehand ([`Self::obstacle`]);
    /// one that does not is a fault, which a build with assertions tells.
    #[must_use]
    pub(super) fn begin_change(&mut self, kind: Kind, step: Step, view: Option<View>) -> bool {
        if let Some(change) = &self.change {
            debug_assert!(false, "{change:?} is under way, and {kind:?} begins (I9)");
            return false;
        }
        self.change = Some(Change { kind, step, view });
        true
    }

    /// Whether an operator's deactivation waits for the device.
    pub(super) fn waits_for_device(&self) -> bool {
        self.change.as_ref().is_some_and(|change| {
            matches!(
                (&change.kind, &change.step),
                (Kind::Deactivate { failure: None, .. }, Step::Device)
            )
        })
    }

    /// Makes room for coming together.
    pub(super) fn put_deactivation_aside(&mut self) {
        if self.waits_for_device() {
            let command = self.change.take().and_then(|change| change.command());
            self.stopping = Some(Stopping {
                command,
                gone: false,
            });
        }
    }

    /// Both sides came together, or it came to nothing: the deactivation goes on.
    pub(super) fn resume_deactivation(&mut self, effects: &mut Effects) {
        if self.change.is_some() || self.has_told_state() {
            return;
        }
        if let Some(Stopping { command, gone }) = self.stopping.take() {
            let kind = Kind::Deactivate {
                command,
                failure: None,
            };
            if self.begin_change(kind, Step::Device, None) && gone {
                self.flush_for_view(effects);
            }
        }
    }

    pub(super) fn set_step(&mut self, step: Step) {
        if let Some(change) = self.change.as_mut() {
            change.step = step;
        }
    }

    fn change_view(&self) -> Option<View> {
        self.change.as_ref().and_then(|change| change.view)
    }

    /// Flushes this node's disk as a step of the change.
    pub(super) fn flush_for_view(&mut self, effects: &mut Effects) {
        self.set_step(Step::Flush);
        if self.view_flush == ViewFlush::None {
            self.begin_view_flush(effects);
        } else {
            // That one began for a change that came to nothing; it covers less.
            self.view_flush = ViewFlush::Stale;
            if mutant::is(Mutant::StaleFlushCounts) {
                self.view_flush = ViewFlush::Running;
            }
        }
    }

    fn begin_view_flush(&mut self, effects: &mut Effects) {
        self.view_flush = ViewFlush::Running;
        effects.push(Effect::Disk {
            owner: IoOwner::ViewFlush,
            operation: DiskOperation::Flush,
            range: SectorRange::new(0, 0),
        });
    }

    pub(super) fn view_flushed(&mut self, now: Instant, effects: &mut Effects) {
        let stale = core::mem::replace(&mut self.view_flush, ViewFlush::None) == ViewFlush::Stale;
        let Some(change) = self.change.as_ref() else {
            return;
        };
        if !matches!(change.step, Step::Flush) {
            return;
        }
        if stale {
            self.begin_view_flush(effects);
            return;
        }
        match change.kind {
            Kind::Lead { session, .. } => self.propose_change(session, Purpose::Settle, effects),
            Kind::Drop { session, .. } => self.propose_change(session, Purpose::Leave, effects),
            Kind::Follow { propose, .. } => self.follow_persist(&propose, effects),
            Kind::Widen { session } => {
                self.set_step(Step::PeerFlush);
                if mutant::is(Mutant::WidenWithoutPeerFlush) {
                    return self.special_flush_done(FLUSH_JOIN, session, effects);
                }
                self.send_drain(session, FLUSH_JOIN, effects);
            }
            Kind::GoAlone { .. } => self.persist_change(effects),
            Kind::Takeover { .. } | Kind::Force { .. } => {
                let mut until = self.granted_until;
                if mutant::is(Mutant::LeaseNotAwaited) {
                    until = now;
                }
                self.set_step(Step::Lease(until));
                self.lease_over(now, effects);
            }
            Kind::Deactivate { .. } => self.deactivate_flush_peer(now, effects),
            Kind::Activate { .. }
            | Kind::Attach { .. }
            | Kind::Grow { .. }
            | Kind::Diskless { .. }
            | Kind::Discard { .. } => {}
        }
    }

    /// Asks the peer to write the change's view down.
    pub(super) fn propose_change(
        &mut self,
        session: SessionId,
        purpose: Purpose,
        effects: &mut Effects,
    ) {
        let Some(view) = self.change_view() else {
            return;
        };
        self.set_step(Step::Accept);
        self.propose(session, purpose, view, effects);
    }

    /// The peer wants to leave: everything acknowledged is flushed here before it writes down that its
    /// copy does not count, or else a power cut now would lose what only the peer still has (S2).
    /// A repair that the peer still writes for a verify has to end first, or it would refuse.
    pub(super) fn drop_drained(&mut self, effects: &mut Effects) {
        let waits = self.change.as_ref().is_some_and(|change| {
            matches!(
                (&change.kind, &change.step),
                (Kind::Drop { .. }, Step::Drain)
            )
        });
        let verifies = self.engine.verify_has_runs() && !mutant::is(Mutant::DropWhileVerifying);
        if waits && !self.engine.is_changing() && !verifies {
            if mutant::is(Mutant::DropWithoutFlush) {
                self.set_step(Step::Flush);
                self.view_flush = ViewFlush::Running;
                return self.view_flushed(Instant::default(), effects);
            }
            self.flush_for_view(effects);
        }
    }

    /// Writes the change's view down.
    pub(super) fn persist_change(&mut self, effects: &mut Effects) {
        let Some(view) = self.change_view() else {
            return;
        };
        self.stage_view(view);
        let me = self.me();
        let serving = view.active == Some(me);
        match self.change.as_ref().map(|change| &change.kind) {
            Some(Kind::Lead { copy, apart, .. }) => {
                let (copy, apart) = (*copy, *apart);
                self.settle_size();
                self.stage_copy(copy);
                self.stage_apart(apart);
                self.settle_flags(serving);
            }
            Some(Kind::Drop { isolated, .. }) => {
                self.staged.isolation.peer = *isolated;
                self.forget_copy();
            }
            Some(Kind::GoAlone { .. }) => {
                self.forget_copy();
                let operation = Operation::GoAlone.by_arbiter(self.granted.is_some());
                self.record_operation(operation, view.mark(), false);
            }
            Some(Kind::Discard { .. }) => self.stage_discard(),
            Some(Kind::Force { .. }) => self.stage_force(view),
            Some(Kind::Activate { .. }) => {
                self.staged.serving = true;
                self.staged.drained = false;
            }
            Some(Kind::Takeover { .. }) => {
                self.staged.serving = true;
                self.staged.drained = false;
                self.forget_copy();
                let operation = Operation::Takeover.by_arbiter(self.granted.is_some());
                self.record_operation(operation, view.mark(), false);
            }
            Some(Kind::Deactivate { .. }) => {
                self.staged.serving = false;
                self.staged.drained = false;
            }
            Some(Kind::Widen { session }) => {
                let session = *session;
                self.staged.copy = None;
                self.staged.peer_failed = false;
                self.stage_mended();
                // From here on nobody knows which view a crash finds: the stricter one rules (S4).
                if !mutant::is(Mutant::WideningNotStrict) {
                    self.engine.peer_widened(session);
                }
            }
            Some(Kind::Diskless { .. }) => self.forget_copy(),
            Some(Kind::Follow { .. } | Kind::Grow { .. } | Kind::Attach { .. }) | None => {}
        }
        self.set_step(Step::Persist);
        self.persist(Then::Continue, effects);
    }

    /// The resync that this node will be the source of (S7: if the marks do not say everything, that is
    /// written down first).
    fn stage_copy(&mut self, planned: Option<(CopyRecord, crate::admin::CopyCause)>) {
        if let Some((record, cause)) = planned {
            self.staged.lineage = record.id;
            // Until every block was written again.
            self.staged.peer_failed |= cause == CopyCause::DiskFailed;
            if record.full && self.staged.copy != Some(record) {
                if !mutant::is(Mutant::FullNotMarked) {
                    self.engine.intent.mark_all();
                }
                self.engine.intent.begin_sweep();
            }
        }
        self.staged.copy = planned.map(|(record, _)| record);
    }

    /// The peer is out, and no resync with it has begun: the bitmap tells of the copy that counted last.
    pub(super) fn forget_copy(&mut self) {
        self.staged.copy = None;
        self.staged.lineage = CopyId::NONE;
    }

    fn settle_flags(&mut self, serving: bool) {
        if !serving {
            self.staged.serving = false;
            self.staged.drained = false;
        }
        self.note_boots();
    }

    /// Both are members in their present boots now (S11).
    pub(super) fn note_boots(&mut self) {
        if let Some(boot) = self.current_peer_boot() {
            let (me, peer) = (self.me().index(), self.settings.peer.index());
            self.staged.member_boots[peer] = boot;
            self.staged.member_boots[me] = self.settings.boot;
        }
    }

    pub(super) fn after_persist(&mut self, now: Instant, then: Then, effects: &mut Effects) {
        match then {
            Then::Nothing => {}
            Then::Continue => self.persisted_change(now, effects),
            Then::Withdraw => self.withdraw(effects),
            Then::Abort => self.engine.shut(now, effects),
            Then::Invalidated(id) => self.invalidated(id, effects),
            Then::PeerFailure => self.peer_failure_noted(effects),
        }
    }

    fn persisted_change(&mut self, now: Instant, effects: &mut Effects) {
        let Some(change) = self.change.as_ref() else {
            return;
        };
        match (&change.kind, &change.step) {
            (Kind::Takeover { .. }, Step::Seal) if mutant::is(Mutant::TakeoverWithoutFlush) => {
                self.set_step(Step::Lease(self.granted_until));
                self.lease_over(now, effects);
            }
            (Kind::Takeover { .. } | Kind::Force { .. }, Step::Seal) => {
                self.flush_for_view(effects)
            }
            (_, Step::Persist) => match change.kind {
                Kind::Lead { session, .. } => self.lead_settled(now, session, effects),
                Kind::Follow { session, propose } => {
                    self.follow_settled(now, session, &propose, effects)
                }
                Kind::Activate { .. } | Kind::Takeover { .. } => {
                    self.set_step(Step::Device);
                    self.role = Role::Activating;
                    self.engine.park();
                    self.device(DeviceCommand::StartLive, effects);
                }
                Kind::Deactivate { .. } => self.deactivated(effects),
                Kind::GoAlone { command } => {
                    self.change = None;
                    self.went_alone(now, effects);
                    self.answer(Some(command), Ok(Done::Alone), effects);
                }
                Kind::Drop { isolated, .. } => {
                    self.change = None;
                    if isolated.is_some() {
                        self.dropped_for_isolation(effects);
                    }
                    self.went_alone(now, effects);
                }
                Kind::Diskless { .. } => self.went_diskless(now, effects),
                Kind::Attach { .. } => self.attached(effects),
                Kind::Widen { session } => self.widened(now, session, effects),
                Kind::Grow { .. } => self.size_persisted(effects),
                Kind::Discard { command } => self.discarded(now, command, effects),
                Kind::Force { command } => self.forced(now, command, effects),
            },
            _ => {}
        }
    }

    /// This node is the only member now.
    fn went_alone(&mut self, now: Instant, effects: &mut Effects) {
        self.engine.peer_is_out(now, effects);
        self.engine.set_lease(now, ReadLease::NotNeeded, effects);
        let epoch = self.durable.view.epoch;
        effects.push(Effect::Notice(Notice::Alone { epoch }));
        if self.role == Role::Active {
            effects.push(Effect::Notice(Notice::Thawed));
        }
    }

    /// The peer's answer to a proposal.
    pub(super) fn accepted(
        &mut self,
        now: Instant,
        session: SessionId,
        accept: crate::wire::Accept,
        effects: &mut Effects,
    ) {
        let Some(change) = self.change.as_ref() else {
            return;
        };
        let expected = change.view.is_some_and(|view| view.id == accept.view_id);
        if self.current != Some(session) || !matches!(change.step, Step::Accept) || !expected {
            return;
        }
        if accept.refused {
            self.proposal_refused(session, effects);
            return;
        }
        match change.kind {
            Kind::Lead { .. }
            | Kind::Activate { .. }
            | Kind::Deactivate { .. }
            | Kind::Diskless { .. }
            | Kind::Drop { .. } => {
                self.persist_change(effects);
            }
            Kind::Widen { .. } => {
                self.change = None;
                self.engine.peer_knows(now, effects);
                let epoch = self.durable.view.epoch;
                effects.push(Effect::Notice(Notice::CopyFinished { epoch }));
            }
            Kind::Follow { .. }
            | Kind::Takeover { .. }
            | Kind::GoAlone { .. }
            | Kind::Grow { .. }
            | Kind::Attach { .. }
            | Kind::Discard { .. }
            | Kind::Force { .. } => {}
        }
    }

    fn proposal_refused(&mut self, session: SessionId, effects: &mut Effects) {
        let Some(change) = self.change.take() else {
            return;
        };
        match change.kind {
            Kind::Activate { command } => {
                let peer = self.peer_name();
                self.answer(Some(command), Err(Refusal::PeerRefused { peer }), effects);
            }
            Kind::Deactivate { command, failure } => {
                self.change = Some(Change {
                    kind: Kind::Deactivate { command, failure },
                    step: Step::Accept,
                    view: None,
                });
                self.deactivate_alone(effects);
            }
            Kind::Lead { .. } | Kind::Drop { .. } | Kind::Diskless { .. } | Kind::Widen { .. } => {
                self.close(session, effects)
            }
            Kind::Follow { .. }
            | Kind::Takeover { .. }
            | Kind::GoAlone { .. }
            | Kind::Grow { .. }
            | Kind::Attach { .. }
            | Kind::Discard { .. }
            | Kind::Force { .. } => {}
        }
    }

    /// The session that the change depended on is gone.
    pub(super) fn change_lost_session(&mut self, session: SessionId, effects: &mut Effects) {
        let Some(change) = self.change.as_ref() else {
            return;
        };
        match (&change.kind, &change.step) {
            // Once the peer has agreed, or a superblock is on its way, the change goes on without it.
            (
                Kind::Lead { session: s, .. }
                | Kind::Follow { session: s, .. }
                | Kind::Drop { session: s, .. }
                | Kind::Widen { session: s },
                step,
            ) if *s == session && !matches!(step, Step::Persist | Step::Device) => {
                self.change = None;
                if !mutant::is(Mutant::HeldForEver) {
                    self.engine.resume();
                }
            }
            (Kind::Activate { command }, Step::Accept) => {
                let (command, peer) = (*command, self.peer_name());
                self.change = None;
                self.role = Role::Fenced;
                self.answer(Some(command), Err(Refusal::Ambiguous { peer }), effects);
            }
            (Kind::Grow { command, .. }, Step::Accept) => {
                let (command, peer) = (*command, self.peer_name());
                self.change = None;
                self.answer(command, Err(Refusal::Ambiguous { peer }), effects);
            }
            (Kind::Deactivate { .. }, Step::Accept | Step::PeerFlush) => {
                self.deactivate_alone(effects)
            }
            _ => {}
        }
    }
}
