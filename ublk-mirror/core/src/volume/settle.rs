//! Coming together after a handshake: the verdict, the leader's proposal, the follower's consent.

use crate::admin::{CopyCause, Done, Role};
use crate::disk::{CopyRecord, CopyRole};
use crate::effect::{DeviceCommand, Effect, Effects};
use crate::engine::ReadLease;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal};
use crate::rejoin::{Extent, Side, Verdict, decide};
use crate::types::{CopyId, Epoch, Instant, NodeSet, SessionId};
use crate::view::View;
use crate::wire::{Accept, Frame, FrameKind, Propose, Purpose, RefusedCode, State, StateFlags};

use super::Volume;
use super::change::{Kind, Step, Then};
use super::session::Phase;

impl Volume {
    /// What this node says of itself; everything in it is durable.
    pub(super) fn own_state(&self) -> State {
        let durable = &self.durable;
        // After writes were thrown away the copies differ: that is an unclean end, not a service (S10).
        let serving = self.role != Role::Fenced && !self.aborted_writes;
        let target = durable.copy.filter(|copy| copy.role == CopyRole::Target);
        State {
            volume_id: durable.volume_id,
            size_sectors: durable.size_sectors,
            logical_block_bytes: durable.logical_block_bytes,
            sealed: durable.sealed,
            view: durable.view,
            history: durable.history,
            flags: StateFlags {
                serving,
                unclean: durable.serving && !serving,
                drained: durable.drained && !serving,
                failed: durable.failed,
                peer_failed: durable.peer_failed,
                invalidated: durable.invalidated,
                copy_target: target.is_some(),
                isolated: durable.isolation.own.is_some(),
            },
            copy_id: target.map_or(CopyId::NONE, |copy| copy.id),
            lineage: durable.lineage,
            base: durable.base,
            boot: self.settings.boot,
            known_peer_boot: durable.member_boots[self.settings.peer.index()],
            incarnation: self.settings.incarnation,
            read_lease_ms: u64::try_from(self.settings.read_lease.as_millis()).unwrap_or(u64::MAX),
            prepared_sectors: durable.prepared_sectors,
        }
    }

    pub(super) fn state_came(
        &mut self,
        now: Instant,
        id: SessionId,
        state: State,
        effects: &mut Effects,
    ) {
        if self.current != Some(id) {
            return;
        }
        self.peer_serving = state.flags.serving;
        if let Some(session) = self.session(id) {
            session.peer_state = Some(state);
        }
        if mutant::is(Mutant::BootNotedEarly) {
            self.staged.member_boots[self.settings.peer.index()] = state.boot;
            self.persist(Then::Nothing, effects);
        }
        self.settle(now, id, effects);
    }

    /// Both states are told: what has to happen?
    pub(super) fn settle(&mut self, now: Instant, id: SessionId, effects: &mut Effects) {
        let (me, peer) = (self.me(), self.settings.peer);
        let Some(session) = self.session(id) else {
            return;
        };
        let (Some(own), Some(theirs)) = (session.own_state, session.peer_state) else {
            return;
        };
        if session.phase != Phase::State {
            return;
        }
        let verdict = decide(
            Side {
                node: me,
                state: &own,
            },
            Side {
                node: peer,
                state: &theirs,
            },
        );
        if verdict != Verdict::Refuse(RefusedCode::SplitBrain) {
            self.words.split = None;
        }
        match verdict {
            Verdict::Refuse(RefusedCode::SplitBrain) => self.part(now, id, &own, &theirs, effects),
            Verdict::Refuse(code) => {
                let (ours, yours) = if code == RefusedCode::Size {
                    (own.size_sectors, theirs.size_sectors)
                } else if code == RefusedCode::BlockSize {
                    (
                        u64::from(own.logical_block_bytes),
                        u64::from(theirs.logical_block_bytes),
                    )
                } else if code == RefusedCode::Lease {
                    (own.read_lease_ms, theirs.read_lease_ms)
                } else {
                    (own.view.epoch.0, theirs.view.epoch.0)
                };
                self.refuse(id, code, ours, yours, effects);
            }
            Verdict::Equal { leader }
            | Verdict::Copy { source: leader, .. }
            | Verdict::Apart { source: leader, .. } => {
                if let Some(session) = self.session(id) {
                    session.phase = Phase::Settling;
                }
                if let Verdict::Copy { cause, .. } = verdict {
                    self.copy_cause = Some(cause);
                }
                if leader == me {
                    self.lead(id, verdict, &own, &theirs, effects);
                }
            }
        }
    }

    fn lead(
        &mut self,
        id: SessionId,
        verdict: Verdict,
        own: &State,
        theirs: &State,
        effects: &mut Effects,
    ) {
        let me = self.me();
        let active = own.flags.serving.then_some(me);
        let insync = match verdict {
            Verdict::Copy { .. } | Verdict::Apart { .. } => NodeSet::only(me),
            Verdict::Equal { .. } | Verdict::Refuse(_) => self.both(),
        };
        let seen = theirs.view.epoch.max(theirs.sealed);
        let fits = own.view.active == active && own.view.insync == insync;
        let unsealed = own.view.epoch > theirs.sealed && own.view.epoch > own.sealed;
        let newest = unsealed && (own.view.epoch > theirs.view.epoch || own.view == theirs.view);
        let view = if fits && newest {
            own.view
        } else {
            self.next_view(active, insync, seen)
        };
        let copy = match verdict {
            Verdict::Copy { cause, extent, .. } => Some(self.plan_copy(cause, extent, theirs)),
            Verdict::Equal { .. } | Verdict::Apart { .. } | Verdict::Refuse(_) => None,
        };
        let apart = match verdict {
            Verdict::Apart { extent, .. } => Some(self.lineage_apart(extent)),
            Verdict::Equal { .. } | Verdict::Copy { .. } | Verdict::Refuse(_) => None,
        };
        self.put_deactivation_aside();
        let failed = copy.is_some_and(|(_, cause)| cause == CopyCause::DiskFailed);
        let kind = Kind::Lead {
            session: id,
            copy,
            apart,
        };
        if !self.begin_change(kind, Step::Flush, Some(view)) {
            // Whatever is under way ends first: the next meeting finds that.
            self.close(id, effects);
        } else if failed && !self.durable.peer_failed && !mutant::is(Mutant::PeerFailureLate) {
            // Who is filled anew forgets it: if its answer is lost, nobody else would know.
            self.set_step(Step::PeerFailure);
            self.staged.peer_failed = true;
            self.persist(Then::PeerFailure, effects);
        } else {
            self.lead_goes_on(id, view, effects);
        }
    }

    /// A narrower view needs the flush of who stays in before the other writes it down (S2). A view with
    /// both under which nobody serves says that both copies are durable: it is believed after a reboot.
    pub(super) fn needs_flush(&self, view: View) -> bool {
        if mutant::is(Mutant::SettleWithoutFlush) {
            return false;
        }
        let narrows = view.is_sole(self.me()) && self.peer_counts();
        narrows || (view.active.is_none() && view.insync == self.both())
    }

    /// Goes on with an interrupted resync, or begins one.
    fn plan_copy(
        &mut self,
        cause: CopyCause,
        extent: Extent,
        theirs: &State,
    ) -> (CopyRecord, CopyCause) {
        let goes_on = extent == Extent::Marked
            && theirs.flags.copy_target
            && theirs.copy_id == self.staged.lineage;
        let id = if goes_on {
            theirs.copy_id
        } else {
            CopyId(self.entropy.bytes16())
        };
        let unswept = self.staged.copy.is_some_and(|copy| copy.full);
        let record = CopyRecord {
            id,
            role: CopyRole::Source,
            // As long as not every page is written, what is on disk does not say everything.
            full: extent == Extent::Full || unswept,
        };
        (record, cause)
    }

    pub(super) fn proposed_copy_id(&self) -> CopyId {
        match self.change.as_ref().map(|change| &change.kind) {
            Some(Kind::Lead {
                copy: Some((record, _)),
                ..
            }) => record.id,
            _ => CopyId::NONE,
        }
    }

    pub(super) fn lead_settled(&mut self, now: Instant, id: SessionId, effects: &mut Effects) {
        let Some(change) = self.change.take() else {
            return;
        };
        let Kind::Lead { copy, .. } = change.kind else {
            return;
        };
        if copy.is_some() || !self.peer_counts() {
            self.aborted_writes = false;
        }
        if !mutant::is(Mutant::DeposedServes) {
            // Who said in the handshake that it serves has agreed to a view in which it does not.
            self.peer_serving = self.durable.view.active == Some(self.settings.peer);
        }
        let connected = self.current == Some(id);
        let thaws = self.engine.is_frozen();
        self.become_up(id, effects);
        match copy {
            Some((record, cause)) => {
                self.engine.set_lease(now, ReadLease::NotNeeded, effects);
                self.engine.peer_is_out(now, effects);
                if connected {
                    self.begin_gathering(now, id, record.id, cause, effects);
                }
            }
            None if !self.peer_counts() => {
                self.engine.set_lease(now, ReadLease::NotNeeded, effects);
                self.engine.peer_is_out(now, effects);
                self.peer_stays_apart(effects);
            }
            None if connected => {
                self.engine.peer_is_member(now, id, effects);
                self.ping(now, id, effects);
                self.both_durable();
            }
            None => self.set_peer_without_session(),
        }
        if thaws && !self.engine.is_frozen() {
            effects.push(Effect::Notice(Notice::Thawed));
        }
    }

    /// Both sides flushed before they agreed on a view under which both count and nobody serves.
    fn both_durable(&mut self) {
        let view = self.durable.view;
        if view.active.is_none() && view.insync == self.both() {
            self.engine.all_flushed();
        }
    }

    fn become_up(&mut self, id: SessionId, effects: &mut Effects) {
        let epoch = self.durable.view.epoch;
        let Some(session) = self.session(id) else {
            return;
        };
        if session.phase == Phase::Settling {
            session.phase = Phase::Up;
            session.epoch = epoch;
            self.last_refusal = None;
            effects.push(Effect::Notice(Notice::LinkUp { epoch }));
        }
    }

    // --- the follower -------------------------------------------------------------------------

    /// A view is proposed. Returns whether the frame was legal here.
    pub(super) fn proposed(
        &mut self,
        now: Instant,
        id: SessionId,
        propose: Propose,
        effects: &mut Effects,
    ) -> bool {
        if self.current != Some(id) {
            return false;
        }
        self.yield_to(&propose, effects);
        let newer =
            propose.view.epoch > self.staged.view.epoch && propose.view.epoch > self.floor();
        let same = propose.view == self.staged.view && propose.view.epoch > self.floor();
        let settling = self
            .session(id)
            .is_some_and(|session| session.phase == Phase::Settling);
        let fits = (self.change.is_none() || self.waits_for_device())
            && settling == (propose.purpose == Purpose::Settle)
            && (newer || (same && propose.purpose == Purpose::Settle))
            && self.proposal_fits(id, &propose);
        if !fits {
            let body = Accept {
                view_id: propose.view.id,
                refused: true,
            }
            .encode()
            .to_vec();
            self.send(
                id,
                Frame::new(FrameKind::Accept, Epoch(0), 0),
                body,
                effects,
            );
            if propose.purpose == Purpose::Widen && !mutant::is(Mutant::WideningRefusedStays) {
                // Over there it is durable already: what comes next belongs to an epoch that does not hold here.
                self.close(id, effects);
            }
            return true;
        }
        self.put_deactivation_aside();
        let follows = self.role == Role::Fenced || mutant::is(Mutant::DeposedKeepsDevice);
        let kind = Kind::Follow {
            session: id,
            propose,
        };
        let step = if follows { Step::Flush } else { Step::Device };
        if !self.begin_change(kind, step, Some(propose.view)) {
            self.close(id, effects);
        } else if follows {
            if self.flushes_first(&propose) {
                self.flush_for_view(effects);
            } else if self.engine.verify_has_runs() {
                self.set_step(Step::Drain);
            } else {
                self.follow_drained(&propose, effects);
            }
        } else {
            self.depose(now, propose.view.epoch, effects);
        }
        true
    }

    /// Somebody else took over: the device here goes away for ever before this node agrees (S12).
    fn depose(&mut self, now: Instant, epoch: Epoch, effects: &mut Effects) {
        self.role = Role::Deactivating;
        self.engine.shut(now, effects);
        effects.push(Effect::Notice(Notice::Deposed { epoch }));
        match self.stopping {
            None => self.device(DeviceCommand::StopLive { force: true }, effects),
            // Its end was told before both came together, and is not told again.
            Some(stopping) if stopping.gone && !mutant::is(Mutant::GoneDeviceAwaited) => {
                self.device_stopped(now, effects);
            }
            Some(_) => {}
        }
    }

    /// Both nodes ask for the volume at the same moment: the lower number wins.
    fn yield_to(&mut self, propose: &Propose, effects: &mut Effects) {
        let waiting = self.change.as_ref().is_some_and(|change| {
            matches!(change.kind, Kind::Activate { .. }) && matches!(change.step, Step::Accept)
        });
        if propose.purpose == Purpose::Activate && waiting && self.settings.peer < self.me() {
            let command = self.change.take().and_then(|change| change.command());
            let peer = self.peer_name();
            self.answer(command, Err(Refusal::PeerActive { peer }), effects);
        }
    }

    fn proposal_fits(&mut self, id: SessionId, propose: &Propose) -> bool {
        let (me, peer) = (self.me(), self.settings.peer);
        let (view, now) = (propose.view, self.staged.view);
        let fenced = self.role == Role::Fenced;
        match propose.purpose {
            Purpose::Settle => {
                let Some(session) = self.session(id) else {
                    return false;
                };
                let (Some(own), Some(theirs)) = (session.own_state, session.peer_state) else {
                    return false;
                };
                let verdict = decide(
                    Side {
                        node: me,
                        state: &own,
                    },
                    Side {
                        node: peer,
                        state: &theirs,
                    },
                );
                let insync = match verdict {
                    Verdict::Equal { leader } if leader == peer => NodeSet::only(me).with(peer),
                    Verdict::Copy { source, .. } | Verdict::Apart { source, .. }
                        if source == peer =>
                    {
                        NodeSet::only(peer)
                    }
                    Verdict::Equal { .. }
                    | Verdict::Copy { .. }
                    | Verdict::Apart { .. }
                    | Verdict::Refuse(_) => return false,
                };
                let volume = own.volume_id.is_none() || propose.volume_id == own.volume_id;
                view.insync == insync && view.active.is_none_or(|active| active == peer) && volume
            }
            Purpose::Activate => {
                fenced
                    && now.active.is_none_or(|a| a == peer)
                    && view.active == Some(peer)
                    && view.insync == now.insync
            }
            Purpose::Deactivate => fenced && view.active.is_none() && view.insync == now.insync,
            Purpose::Leave => {
                let leaves = self.leaving.is_some()
                    || self.failed.is_some()
                    || self.invalidating.is_some()
                    || self.asked_to_be_isolated();
                fenced && leaves && view.insync == NodeSet::only(peer)
            }
            Purpose::Diskless => self.diskless_fits(view),
            Purpose::Widen => {
                let target = self
                    .staged
                    .copy
                    .is_some_and(|copy| copy.role == CopyRole::Target);
                fenced
                    && target
                    && !self.staged.invalidated
                    && view.insync == NodeSet::only(me).with(peer)
                    && view.active == now.active
            }
        }
    }

    /// Nothing of a verify is under way here: what is left to do before the proposal is written down.
    pub(super) fn follow_drained(&mut self, propose: &Propose, effects: &mut Effects) {
        if self.flushes_to_be_isolated(propose) {
            self.flush_for_view(effects);
        } else {
            self.follow_persist(propose, effects);
        }
    }

    /// Stages what the proposal says and makes it durable.
    pub(super) fn follow_persist(&mut self, propose: &Propose, effects: &mut Effects) {
        self.set_step(Step::Persist);
        if self.staged.volume_id.is_none()
            && let Some(theirs) = self
                .current_session()
                .and_then(|session| session.peer_state)
        {
            self.staged.volume_id = propose.volume_id;
            self.staged.size_sectors = theirs.size_sectors;
            self.engine.set_size(theirs.size_sectors);
        }
        if propose.purpose == Purpose::Settle {
            self.settle_size();
        }
        if propose.purpose == Purpose::Settle {
            self.learn_history(&propose.view);
        }
        self.stage_view(propose.view);
        self.told_epoch = self.told_epoch.max(propose.view.epoch);
        let member = propose.view.insync.contains(self.me());
        self.follow_isolation(propose.purpose);
        // An isolated copy stays what it is, and is not filled.
        let filled = !member && (!self.is_isolated() || mutant::is(Mutant::IsolatedFilled));
        if propose.purpose == Purpose::Settle && filled {
            // Filled anew, it is as good as its disk; until then it is not promotable anyway (S9).
            self.staged.failed = false;
            self.staged.invalidated = false;
            // Who is filled from a copy has no word against it any more: it would depose it once it counts.
            self.staged.peer_failed = false;
        }
        if propose.purpose == Purpose::Leave {
            self.note_invalidated();
        }
        // All of it is copied when that disk is mended.
        self.staged.peer_failed |= propose.purpose == Purpose::Diskless;
        self.staged.copy = match propose.purpose {
            Purpose::Settle if filled && !mutant::is(Mutant::TargetForgotten) => Some(CopyRecord {
                id: propose.copy_id,
                role: CopyRole::Target,
                full: false,
            }),
            Purpose::Settle | Purpose::Widen | Purpose::Leave | Purpose::Diskless => None,
            // Who serves changes; what is being copied goes on.
            Purpose::Activate | Purpose::Deactivate => self.staged.copy,
        };
        if propose.purpose == Purpose::Widen {
            self.stage_mended();
        }
        if let Some(copy) = self.staged.copy {
            self.staged.lineage = copy.id;
        }
        self.staged.serving = false;
        self.staged.drained = false;
        self.note_boots();
        if propose.purpose == Purpose::Diskless && mutant::is(Mutant::CarriedViewForgotten) {
            self.durable = self.staged.clone();
            self.engine.set_epoch(propose.view.epoch);
            let now = self.last_heard.unwrap_or_default();
            return self.after_persist(now, Then::Continue, effects);
        }
        self.persist(Then::Continue, effects);
    }

    pub(super) fn follow_settled(
        &mut self,
        now: Instant,
        id: SessionId,
        propose: &Propose,
        effects: &mut Effects,
    ) {
        self.change = None;
        self.aborted_writes = false;
        self.equal_if_isolated(propose.purpose);
        let view = self.durable.view;
        self.peer_serving = view.active == Some(self.settings.peer);
        if self.current == Some(id) {
            let body = Accept {
                view_id: view.id,
                refused: false,
            }
            .encode()
            .to_vec();
            self.send(
                id,
                Frame::new(FrameKind::Accept, view.epoch, 0),
                body,
                effects,
            );
            if propose.purpose == Purpose::Settle {
                self.become_up(id, effects);
            }
            if self.is_member() && self.peer_counts() {
                self.engine.peer_is_member(now, id, effects);
                if propose.purpose == Purpose::Settle {
                    self.both_durable();
                }
            } else {
                if !self.is_member() {
                    // What an operator paused here goes on being paused when the peer without a disk ends its service.
                    self.engine.forget_pause();
                }
                self.engine.peer_is_out(now, effects);
            }
        } else {
            self.set_peer_without_session();
        }
        match propose.purpose {
            Purpose::Widen => {
                // What this copy had of its own is gone, on both disks.
                self.engine.intent.all_equal();
                effects.push(Effect::Notice(Notice::CopyFinished { epoch: view.epoch }));
            }
            Purpose::Leave if self.failed.is_some() => self.close(id, effects),
            Purpose::Leave if let Some((command, _)) = self.invalidating.take() => {
                self.invalidated(command, effects);
            }
            Purpose::Leave => {
                if !self.isolated(effects) {
                    self.left(Ok(Done::Stopped), effects);
                }
            }
            Purpose::Settle | Purpose::Activate | Purpose::Deactivate | Purpose::Diskless => {}
        }
    }

    /// The view that a takeover commits.
    pub(super) fn takeover_view(&mut self) -> View {
        let me = self.me();
        let floor = self.floor();
        let view = self.next_view(Some(me), NodeSet::only(me), floor);
        // What an arbiter granted is committed as it was granted: it knows this view from then on.
        self.granted.map_or(view, |granted| View {
            epoch: granted.epoch,
            id: granted.id,
            ..view
        })
    }
}
