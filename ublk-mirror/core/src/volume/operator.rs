//! Commands of the operator, who is the arbiter of this version (the *manual* arbiter of DESIGN §3).

use alloc::vec::Vec;

use crate::admin::{Command, Done, Outcome, Role};
use crate::effect::{DeviceCommand, Effect, Effects};
use crate::engine::{Peer, ReadLease};
use crate::isolation::IsolationRefusal;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal, UpkeepNotice};
use crate::types::{Errno, Instant, NodeSet, SessionId};
use crate::wire::{Frame, FrameKind, Purpose};

use super::Volume;
use super::change::{Kind, Step, Then};
use super::granted::Word;
use super::session::Taken;

impl Volume {
    pub(super) fn operator(
        &mut self,
        now: Instant,
        id: u64,
        command: Command,
        effects: &mut Effects,
    ) {
        self.note_command(now);
        let outcome = match command {
            Command::Activate => self.activate(now, id, effects),
            Command::Deactivate { force } => self.deactivate(now, id, Force::from(force), effects),
            Command::Takeover { confirm } => {
                self.takeover(now, id, &Word::Operator(confirm), effects)
            }
            Command::Granted {
                basis,
                next,
                until_nanos,
            } => {
                let until = Instant::from_nanos(until_nanos);
                let word = Word::Arbiter { basis, next, until };
                self.takeover(now, id, &word, effects)
            }
            Command::Grow { size_bytes } => self.grow(id, size_bytes, effects),
            Command::Stop => self.stop(now, id, effects),
            Command::Resolve {
                discard, confirm, ..
            } => self.discard(id, &discard, &confirm, effects),
            Command::Force { confirm } => self.force(id, &confirm, effects),
            Command::Verify {
                repair,
                repair_from,
                confirm,
            } => {
                let from = repair_from.as_deref();
                Some(self.verify(now, repair, from, &confirm, effects))
            }
            Command::VerifyStop => Some(self.verify_stop()),
            Command::Invalidate { confirm } => self.invalidate(now, id, &confirm, effects),
            Command::ResyncPause => Some(self.resync_pause(now, effects)),
            Command::ResyncResume => Some(self.resync_resume(now, effects)),
            Command::Isolate { now_unix_s } => self.isolate(now, id, now_unix_s, effects),
            Command::Attach { force } => self.attach(id, force, effects),
        };
        if let Some(outcome) = outcome {
            self.answer(Some(id), outcome, effects);
        }
    }

    /// What speaks against any change right now.
    pub(super) fn obstacle(&self) -> Option<Refusal> {
        if self.failed.is_some() || self.durable.failed {
            Some(Refusal::DiskFailed)
        } else if self.change.is_some()
            || self.is_meeting()
            || !self.persists.is_empty()
            || self.leaving.is_some()
            || self.invalidating.is_some()
            || self.isolation_is_busy()
        {
            Some(Refusal::Busy)
        } else {
            None
        }
    }

    fn activate(&mut self, now: Instant, id: u64, effects: &mut Effects) -> Option<Outcome> {
        let _ = now;
        if self.role == Role::Active {
            return Some(Ok(Done::AlreadyActive));
        }
        if let Some(refusal) = self.obstacle() {
            return Some(Err(refusal));
        }
        let peer = self.peer_name();
        if self.is_blank() {
            return Some(Err(Refusal::Blank { peer }));
        }
        let promotable = mutant::is(Mutant::TargetPromotable)
            || (self.is_isolated() && mutant::is(Mutant::IsolatedPromotable));
        if self.is_isolated() && !promotable {
            return Some(Err(Refusal::Isolation(IsolationRefusal::Isolated { peer })));
        }
        if !self.is_member() && !promotable {
            let copying = self.durable.copy.is_some();
            return Some(Err(if self.peer_serving {
                Refusal::PeerActive { peer }
            } else {
                Refusal::CopyNotCurrent { copying }
            }));
        }
        let up = self.up_session();
        if self.durable.serving && self.peer_counts() {
            return Some(Err(Refusal::Unclean { peer }));
        }
        if up.is_none() && self.peer_counts() {
            return Some(Err(Refusal::PeerSilent { peer }));
        }
        if self.peer_serving && up.is_some() {
            return Some(Err(Refusal::PeerActive { peer }));
        }
        if self.serves_diskless_peer() && !self.is_let_go() {
            // What the other node wrote through this copy has to end first (S4).
            return Some(Err(Refusal::Busy));
        }
        let view = self.next_view(Some(self.me()), self.durable.view.insync, self.floor());
        if !self.begin_change(Kind::Activate { command: id }, Step::Accept, Some(view)) {
            return Some(Err(Refusal::Busy));
        }
        match up {
            Some(session) if !mutant::is(Mutant::ActivateAlone) => {
                self.propose(session, Purpose::Activate, view, effects)
            }
            Some(_) | None => self.persist_change(effects),
        }
        None
    }

    fn deactivate(
        &mut self,
        now: Instant,
        id: u64,
        force: Force,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        match self.role {
            Role::Fenced => return Some(Ok(Done::AlreadyFenced)),
            Role::Deactivating if force == Force::Yes => {
                // The device's end waits for frozen writes: let them fail.
                self.abort_writes(now, effects);
                return Some(Err(Refusal::Busy));
            }
            Role::Deactivating | Role::Activating | Role::Active => {}
        }
        if self.failed.is_some() {
            // Nothing else than a change under way speaks against an end.
            if self.change.is_some() && !mutant::is(Mutant::EndIgnoresChange) {
                return Some(Err(Refusal::Busy));
            }
        } else if let Some(refusal) = self.obstacle() {
            return Some(Err(refusal));
        }
        if self.engine.is_frozen() && force == Force::No {
            let peer = self.peer_name();
            return Some(Err(Refusal::FrozenWrites { peer }));
        }
        let kind = Kind::Deactivate {
            command: Some(id),
            failure: None,
        };
        if !self.begin_change(kind, Step::Device, None) {
            return Some(Err(Refusal::Busy));
        }
        self.forced_end = (force == Force::Yes).then_some(id);
        if self.engine.is_frozen() {
            self.abort_writes(now, effects);
        }
        self.role = Role::Deactivating;
        self.device(
            DeviceCommand::StopLive {
                force: force == Force::Yes,
            },
            effects,
        );
        None
    }

    pub(super) fn abort_writes(&mut self, now: Instant, effects: &mut Effects) {
        // What an earlier run had in hand is perhaps here already, and perhaps still with the kernel.
        if self.engine.has_unfinished_writes() || self.recovered {
            self.aborted_writes = !mutant::is(Mutant::AbortForgotten);
            // What was told or agreed on took these writes for still being in our hands.
            if let Some(session) = self.current
                && !mutant::is(Mutant::AbortHandedOver)
            {
                self.close(session, effects);
            }
            if self.staged.serving && self.failed.is_none() {
                // Durable before they fail: a run after this one must not take them for still in hand.
                if !self.staged.drained {
                    self.staged.drained = true;
                    self.persist(Then::Abort, effects);
                }
                if mutant::is(Mutant::AbortBeforeDurable) {
                    self.engine.shut(now, effects);
                }
                return;
            }
        }
        self.engine.shut(now, effects);
    }

    fn takeover(
        &mut self,
        now: Instant,
        id: u64,
        word: &Word,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        let peer = self.peer_name();
        if let Some(session) = self.current {
            if word.is_of_an_arbiter() {
                // The peer is silent, and the link has not noticed it yet.
                self.close(session, effects);
            }
            return Some(Err(Refusal::LinkUp { peer }));
        }
        if let Some(refusal) = self.obstacle() {
            return Some(Err(refusal));
        }
        if self.is_blank() {
            return Some(Err(Refusal::Blank { peer }));
        }
        let promotable = mutant::is(Mutant::TakeoverByStranger)
            || (self.is_isolated() && mutant::is(Mutant::IsolatedPromotable));
        if self.is_isolated() && !promotable {
            return Some(Err(Refusal::Isolation(IsolationRefusal::Isolated { peer })));
        }
        if !self.is_member() && !promotable {
            return Some(Err(Refusal::CopyNotCurrent {
                copying: self.durable.copy.is_some(),
            }));
        }
        if self.is_sole() {
            return Some(if self.role == Role::Active {
                Ok(Done::AlreadyActive)
            } else {
                Err(Refusal::NothingToTakeOver)
            });
        }
        match self.speaks_of_now(now, word) {
            Ok(granted) => self.granted = granted,
            Err(refusal) => return Some(Err(refusal)),
        }
        if self.role == Role::Active {
            let view = self.takeover_view();
            if !self.begin_change(Kind::GoAlone { command: id }, Step::Flush, Some(view)) {
                return Some(Err(Refusal::Busy));
            }
            if mutant::is(Mutant::AloneBeforeDurable) {
                self.engine.peer_is_out(now, effects);
            }
            if mutant::is(Mutant::AloneWithoutFlush) {
                self.persist_change(effects);
                return None;
            }
            self.flush_for_view(effects);
        } else {
            if !self.begin_change(Kind::Takeover { command: id }, Step::Drain, None) {
                return Some(Err(Refusal::Busy));
            }
            self.takeover_drained(effects);
        }
        let _ = now;
        None
    }

    /// Everything that the old active node sent and that was accepted is on disk: seal (S4).
    /// The same before a forced recovery.
    pub(super) fn takeover_drained(&mut self, effects: &mut Effects) {
        let draining = self.change.as_ref().is_some_and(|change| {
            matches!(
                (&change.kind, &change.step),
                (Kind::Takeover { .. } | Kind::Force { .. }, Step::Drain)
            )
        });
        let drained = self.peer_ops.is_empty() || mutant::is(Mutant::TakeoverWithoutDrain);
        if draining && drained {
            self.set_step(Step::Seal);
            if !mutant::is(Mutant::TakeoverWithoutSeal) {
                self.staged.sealed = self.staged.view.epoch;
            }
            self.persist(Then::Continue, effects);
        }
    }

    pub(super) fn lease_deadline(&self) -> Option<Instant> {
        if let Step::Lease(until) = self.change.as_ref()?.step {
            Some(until)
        } else {
            None
        }
    }

    /// The last lease that was granted has run out: the new view may be committed (S5).
    pub(super) fn lease_over(&mut self, now: Instant, effects: &mut Effects) {
        if self.lease_deadline().is_some_and(|until| now >= until) {
            let change = self.change.as_ref().map(|change| &change.kind);
            let view = if matches!(change, Some(Kind::Force { .. })) {
                self.force_view()
            } else {
                self.takeover_view()
            };
            if let Some(change) = self.change.as_mut() {
                change.view = Some(view);
            }
            self.persist_change(effects);
        }
    }

    // --- the device ---------------------------------------------------------------------------

    pub(super) fn device_started(&mut self, now: Instant, effects: &mut Effects) {
        let Some(change) = self.change.take() else {
            // The disk failed meanwhile.
            self.role = Role::Deactivating;
            self.device(DeviceCommand::StopLive { force: true }, effects);
            return;
        };
        self.role = Role::Active;
        self.live_sectors = self.durable.size_sectors;
        let sole = self.is_sole();
        if sole && (self.current.is_none() || self.engine.peer() == Peer::Lost) {
            self.engine.peer_is_out(now, effects);
        }
        self.engine.open();
        let epoch = self.durable.view.epoch;
        effects.push(Effect::Notice(Notice::Activated { epoch }));
        if sole {
            self.engine.set_lease(now, ReadLease::NotNeeded, effects);
        } else {
            let lease = if mutant::is(Mutant::ActiveWithoutLease) {
                ReadLease::NotNeeded
            } else {
                ReadLease::Until(now)
            };
            self.engine.set_lease(now, lease, effects);
            if let Some(session) = self.up_session() {
                self.ping(now, session, effects);
            }
        }
        if matches!(change.kind, Kind::Takeover { .. }) {
            effects.push(Effect::Notice(Notice::Alone { epoch }));
        }
        self.answer(change.command(), Ok(Done::Active), effects);
    }

    /// Whether the device ends because an operator asked for it without force: the shell looked first whether it is used.
    fn ends_politely(&self) -> bool {
        self.change.as_ref().is_some_and(|change| {
            let Kind::Deactivate { command, failure } = change.kind else {
                return false;
            };
            command.is_some() && command != self.forced_end && failure.is_none()
        })
    }

    pub(super) fn device_failed(&mut self, now: Instant, errno: Errno, effects: &mut Effects) {
        if self.failed.is_some() {
            self.role = Role::Fenced;
            return;
        }
        let command = self.change.take().and_then(|change| change.command());
        let kind = Kind::Deactivate {
            command,
            failure: Some(errno),
        };
        let begun = self.begin_change(kind, Step::Flush, None);
        self.role = Role::Deactivating;
        self.abort_writes(now, effects);
        if begun {
            self.flush_for_view(effects);
        }
    }

    pub(super) fn device_busy(&mut self, effects: &mut Effects) {
        // Somebody asked with force meanwhile: there is no way back.
        let aborted = self.aborted_writes || !self.engine.is_open();
        if let Some(stopping) = self.stopping.take() {
            let deposed = self.change.as_ref().is_some_and(|change| {
                matches!(
                    (&change.kind, &change.step),
                    (Kind::Follow { .. }, Step::Device)
                )
            });
            if aborted && !deposed {
                // Put aside for a change that is under way: it goes on after that one.
                self.stopping = Some(stopping);
                self.device(DeviceCommand::StopLive { force: true }, effects);
                return;
            }
            self.answer(stopping.command, Err(Refusal::InUse), effects);
            if deposed {
                self.device(DeviceCommand::StopLive { force: true }, effects);
            } else {
                self.role = Role::Active;
            }
            return;
        }
        if aborted {
            self.device(DeviceCommand::StopLive { force: true }, effects);
            return;
        }
        let command = self.change.take().and_then(|change| change.command());
        self.role = Role::Active;
        self.answer(command, Err(Refusal::InUse), effects);
    }

    pub(super) fn device_stopped(&mut self, now: Instant, effects: &mut Effects) {
        // Nobody used it, and the kernel handed everything over long ago: nothing of an earlier run can be lost with it.
        if self.ends_politely() && now >= self.handed_over_by {
            self.recovered = false;
        }
        self.abort_writes(now, effects);
        // The kernel has nothing any more: the next activation makes a fresh device (S12).
        self.recovered = false;
        let Some(change) = self.change.as_ref() else {
            self.role = Role::Fenced;
            // Its end was not clean: the next handshake decides what the copies are worth.
            if self.durable.serving
                && let Some(session) = self.current
            {
                self.close(session, effects);
            }
            return;
        };
        let deposed = matches!(change.kind, Kind::Follow { .. });
        if self.failed.is_none() && self.has_told_state() {
            self.put_deactivation_aside();
        }
        match self.stopping.as_mut() {
            Some(stopping) if deposed => {
                let command = stopping.command;
                self.stopping = None;
                self.answer(command, Ok(Done::Fenced), effects);
            }
            Some(stopping) => {
                stopping.gone = true;
                return;
            }
            None => {}
        }
        let Some(change) = self.change.as_ref() else {
            return;
        };
        match change.kind {
            Kind::Deactivate { .. } if mutant::is(Mutant::EndWithoutOwnFlush) => {
                self.deactivate_flush_peer(now, effects)
            }
            Kind::Deactivate { .. } if self.failed.is_none() => self.flush_for_view(effects),
            Kind::Deactivate { .. } if self.is_diskless() && self.up_session().is_some() => {
                self.deactivate_flush_peer(now, effects)
            }
            Kind::Deactivate { .. } => {
                // The disk failed: nothing durable can be promised; the next start finds it unclean.
                let command = self.change.take().and_then(|change| change.command());
                self.role = Role::Fenced;
                self.answer(command, Ok(Done::Fenced), effects);
            }
            Kind::Follow { propose, .. } => {
                self.role = Role::Fenced;
                self.follow_persist(&propose, effects);
            }
            Kind::Lead { .. }
            | Kind::Activate { .. }
            | Kind::Takeover { .. }
            | Kind::GoAlone { .. }
            | Kind::Drop { .. }
            | Kind::Widen { .. }
            | Kind::Grow { .. }
            | Kind::Discard { .. }
            | Kind::Force { .. }
            | Kind::Diskless { .. }
            | Kind::Attach { .. } => {}
        }
    }

    // --- the end of the daemon ----------------------------------------------------------------

    pub(super) fn stop(&mut self, now: Instant, id: u64, effects: &mut Effects) -> Option<Outcome> {
        if self.role != Role::Fenced {
            return Some(Err(Refusal::Serving));
        }
        if !self.persists.is_empty() {
            return Some(Err(Refusal::Busy));
        }
        if self.failed.is_none()
            && let Some(refusal) = self.obstacle()
            && (self.change.is_some() || self.leaving.is_some() || self.isolation_is_busy())
        {
            return Some(Err(refusal));
        }
        if let Some(outcome) = self.stop_with_isolated(id, effects) {
            return outcome;
        }
        match self.up_session() {
            Some(session) if self.peer_serving && self.is_member() && self.failed.is_none() => {
                let patience = self.settings.link_timeout * 2;
                self.leaving = Some((id, now + patience));
                self.send(
                    session,
                    Frame::new(FrameKind::Leave, self.durable.view.epoch, 0),
                    Vec::new(),
                    effects,
                );
                None
            }
            _ => {
                self.answer(Some(id), Ok(Done::Stopped), effects);
                effects.push(Effect::Exit);
                None
            }
        }
    }

    /// The standby asks to be dropped, so that it may stop without freezing this node.
    pub(super) fn peer_leaves(
        &mut self,
        id: SessionId,
        failed: Option<Errno>,
        invalidated: bool,
        effects: &mut Effects,
    ) -> Taken {
        let me = self.me();
        let active = self.role == Role::Active;
        let gives_up = failed.is_some() || invalidated;
        let may = active || (gives_up && self.role == Role::Fenced);
        let good = self.failed.is_none() && self.is_member();
        if failed.is_some() {
            self.note_peer_failed(effects);
        }
        if self.change.is_none() && may && good && self.peer_counts() {
            let view = self.next_view(active.then_some(me), NodeSet::only(me), self.floor());
            if let Some(errno) = failed {
                effects.push(Effect::Notice(Notice::PeerDiskFailed { errno }));
            } else if invalidated {
                effects.push(Effect::Notice(Notice::Upkeep(
                    UpkeepNotice::PeerInvalidated,
                )));
            }
            let kind = Kind::Drop {
                session: id,
                isolated: None,
            };
            if self.begin_change(kind, Step::Drain, Some(view)) {
                self.engine.hold();
                self.drop_drained(effects);
            }
        }
        Taken::Yes
    }

    pub(super) fn leave_over(&mut self, now: Instant, effects: &mut Effects) {
        if self.leaving.is_some_and(|(_, until)| now >= until) {
            let peer = self.peer_name();
            let failed = Err(Refusal::PeerRefused { peer });
            if let Some((id, _)) = self.leaving.take() {
                self.answer(Some(id), failed, effects);
            }
        }
    }

    pub(super) fn left(&mut self, outcome: Outcome, effects: &mut Effects) {
        if let Some((id, _)) = self.leaving.take() {
            self.answer(Some(id), outcome, effects);
            effects.push(Effect::Exit);
        }
    }
}

/// Whether users of the device are put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Force {
    No,
    Yes,
}

impl From<bool> for Force {
    fn from(force: bool) -> Self {
        if force { Self::Yes } else { Self::No }
    }
}
