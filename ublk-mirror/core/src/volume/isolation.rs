//! Planned detach and attach: a standby takes its copy out of the view, keeps it as it is at that moment, and
//! answers reads of it; later it gets what it missed.
//!
//! The order: everything acknowledged is done on both copies and flushed by the active node (`Drop`); the
//! standby flushes and writes down, at once, that its copy does not count and is isolated; then the active
//! node writes that down too and goes on. So the image holds every write that was acknowledged until then.

use alloc::vec::Vec;

use crate::admin::{Done, IsolatedStatus, Outcome, Role};
use crate::effect::{DeviceCommand, Effect, Effects};
use crate::event::IsolatedEvent;
use crate::isolation::{IsolationNotice, IsolationRefusal};
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal};
use crate::rejoin::Extent;
use crate::types::{CopyId, Errno, Instant, NodeSet, SessionId};
use crate::wire::{Frame, FrameKind, Propose, Purpose};

use super::Volume;
use super::change::{Kind, Step, Then};
use super::session::Taken;

/// What this node does about its isolated copy; what is durable of it is in the superblock.
#[derive(Debug, Default)]
pub(super) struct Isolating {
    asking: Option<Asking>,
    device: Device,
    waits: Option<Waits>,
    /// The daemon started with an isolated copy: its device is to be made.
    restart: bool,
}

/// The peer was asked to drop this copy.
#[derive(Clone, Copy, Debug)]
struct Asking {
    command: u64,
    since_unix_s: u64,
    until: Instant,
}

/// The read-only device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Device {
    #[default]
    None,
    Starting,
    Up,
    Stopping,
}

/// Who waits for the device.
#[derive(Clone, Copy, Debug)]
enum Waits {
    /// An operator, for its start.
    Start(u64),
    /// The end of the daemon.
    Exit(u64),
}

impl Volume {
    /// Whether this node's copy is isolated, durably.
    pub(super) fn is_isolated(&self) -> bool {
        self.durable.isolation.own.is_some()
    }

    /// Whether the peer was asked to drop this copy: it changes no more by a repair.
    pub(super) fn asks_to_be_isolated(&self) -> bool {
        self.isolating.asking.is_some()
    }

    /// Whether a command about the isolated copy is being carried out.
    pub(super) fn isolation_is_busy(&self) -> bool {
        self.isolating.asking.is_some() || self.isolating.waits.is_some()
    }

    /// The run before this one had an isolated copy.
    pub(super) fn isolated_at_start(&mut self) {
        if mutant::is(Mutant::IsolatedForgotten) {
            self.durable.isolation.own = None;
            self.staged.isolation.own = None;
        }
        self.isolating.restart = self.is_isolated();
    }

    /// What an operator reads of it.
    pub(super) fn isolated_status(&self) -> Option<IsolatedStatus> {
        let isolation = self.durable.isolation;
        let own = isolation
            .own
            .map(|since| (self.settings.node_name.clone(), since));
        let peer = isolation.peer.map(|since| (self.peer_name(), since));
        let (node, since_unix_s) = own.or(peer)?;
        Some(IsolatedStatus {
            node,
            since_unix_s,
            device: None,
        })
    }

    // --- isolate ------------------------------------------------------------------------------

    pub(super) fn isolate(
        &mut self,
        now: Instant,
        id: u64,
        since_unix_s: u64,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        let peer = self.peer_name();
        let refuse = |refusal| Some(Err(Refusal::Isolation(refusal)));
        if self.role != Role::Fenced {
            return refuse(IsolationRefusal::Serving { peer });
        }
        if let Some(obstacle) = self.obstacle() {
            return Some(Err(obstacle));
        }
        if self.is_isolated() {
            return self.isolate_again(id, effects);
        }
        if self.is_blank() {
            return Some(Err(Refusal::Blank { peer }));
        }
        if !self.is_member() {
            let copying = self.durable.copy.is_some();
            return refuse(IsolationRefusal::NotCurrent { copying });
        }
        if !self.peer_counts() {
            return refuse(IsolationRefusal::Last { peer });
        }
        // Alone this node could only stop to count: if the peer is dead, nobody's copy would count then, and
        // if it lives, its writes are frozen until both meet (S2).
        if self.up_session().is_none() {
            return refuse(IsolationRefusal::PeerSilent { peer });
        }
        self.isolating.asking = Some(Asking {
            command: id,
            since_unix_s,
            until: now + self.settings.link_timeout * 2,
        });
        self.tell_isolation(effects);
        None
    }

    /// The copy is isolated already: its device may be missing.
    fn isolate_again(&mut self, id: u64, effects: &mut Effects) -> Option<Outcome> {
        match self.isolating.device {
            Device::Up => Some(Ok(Done::AlreadyIsolated)),
            Device::Starting | Device::Stopping => Some(Err(Refusal::Busy)),
            Device::None => {
                self.start_isolated(Some(id), effects);
                None
            }
        }
    }

    /// Asks to be dropped, or tells that the copy is isolated; repeated with the keepalives.
    pub(super) fn tell_isolation(&mut self, effects: &mut Effects) {
        let asked = self.isolating.asking.map(|asking| asking.since_unix_s);
        let (Some(session), Some(since)) =
            (self.up_session(), asked.or(self.durable.isolation.own))
        else {
            return;
        };
        let frame = Frame::new(FrameKind::Isolate, self.durable.view.epoch, since);
        self.send(session, frame, Vec::new(), effects);
    }

    /// The active node: the standby asks to be dropped, or tells that it is isolated.
    pub(super) fn peer_isolates(
        &mut self,
        id: SessionId,
        since_unix_s: u64,
        effects: &mut Effects,
    ) -> Taken {
        let active = self.role == Role::Active;
        let may = active || (self.role == Role::Fenced && self.isolating.asking.is_none());
        let leaves = self.leaving.is_some() || self.invalidating.is_some();
        let good = self.failed.is_none() && self.is_member() && !leaves;
        if self.change.is_some() || !may || !good {
            return Taken::Yes;
        }
        if self.peer_counts() {
            let me = self.me();
            let view = self.next_view(active.then_some(me), NodeSet::only(me), self.floor());
            let isolated = Some(since_unix_s);
            let kind = Kind::Drop {
                session: id,
                isolated,
            };
            if self.begin_change(kind, Step::Drain, Some(view)) {
                self.engine.hold();
                self.drop_drained(effects);
            }
        } else if self
            .staged
            .isolation
            .peer
            .is_some_and(|known| known != since_unix_s)
        {
            self.staged.isolation.peer = Some(since_unix_s);
            self.persist(Then::Nothing, effects);
        }
        Taken::Yes
    }

    /// Both have flushed and nothing was written since: the copies are equal at this moment, durably.
    pub(super) fn dropped_for_isolation(&mut self, effects: &mut Effects) {
        self.engine.equal_at_isolation();
        self.peer_stays_apart(effects);
    }

    /// What the marks are of while the peer's copy stays apart: of that copy, if they will name what it lacks. If they do
    /// not by now they never will, and nobody has this lineage.
    pub(super) fn lineage_apart(&mut self, extent: Extent) -> CopyId {
        match extent {
            Extent::Full if !mutant::is(Mutant::ApartIsKnown) => CopyId(self.entropy.bytes16()),
            Extent::Full | Extent::Marked => CopyId::NONE,
        }
    }

    /// What the leader of a handshake writes down of the peer's copy.
    /// `apart`: the lineage of the marks from now on, if that copy is isolated.
    pub(super) fn stage_apart(&mut self, apart: Option<CopyId>) {
        self.staged.isolation.peer = apart.map(|_| self.staged.isolation.peer.unwrap_or(0));
        if let Some(lineage) = apart {
            self.forget_copy();
            self.staged.lineage = lineage;
        }
    }

    /// The view is agreed on, and the peer's copy is isolated.
    pub(super) fn peer_stays_apart(&self, effects: &mut Effects) {
        effects.push(Effect::Notice(Notice::Isolation(
            IsolationNotice::PeerBegan,
        )));
    }

    /// The standby: whether it asked for the proposal that drops it, and nothing of the peer's runs here.
    pub(super) fn asked_to_be_isolated(&self) -> bool {
        self.isolating.asking.is_some() && !self.peer_ops.changes()
    }

    /// The proposal that drops this copy came: the image is flushed before it is agreed to.
    pub(super) fn flushes_to_be_isolated(&self, propose: &Propose) -> bool {
        propose.purpose == Purpose::Leave
            && self.isolating.asking.is_some()
            && !mutant::is(Mutant::IsolateWithoutFlush)
    }

    /// What a proposal that this node follows means for its isolated copy.
    pub(super) fn follow_isolation(&mut self, purpose: Purpose) {
        // Who leads has a copy that counts.
        self.staged.isolation.peer = None;
        if let (Purpose::Leave, Some(asking)) = (purpose, self.isolating.asking) {
            self.staged.isolation.own = Some(asking.since_unix_s);
        }
    }

    /// The peer has flushed and waits, and this copy is flushed too: they are equal at this moment.
    pub(super) fn equal_if_isolated(&mut self, purpose: Purpose) {
        if purpose == Purpose::Leave && self.isolating.asking.is_some() {
            self.engine.equal_at_isolation();
        }
    }

    /// The view without this copy, and the mark, are durable. Returns whether that was asked for.
    pub(super) fn isolated(&mut self, effects: &mut Effects) -> bool {
        let Some(asking) = self.isolating.asking.take() else {
            return false;
        };
        effects.push(Effect::Notice(Notice::Isolation(IsolationNotice::Began)));
        self.start_isolated(Some(asking.command), effects);
        true
    }

    fn start_isolated(&mut self, command: Option<u64>, effects: &mut Effects) {
        self.isolating.waits = command.map(Waits::Start);
        self.isolating.device = Device::Starting;
        // The kernel looks at the device while it comes up.
        self.engine.open_isolated();
        self.device(DeviceCommand::StartIsolated, effects);
    }

    /// After a restart of the daemon the device is made anew.
    pub(super) fn restart_isolated(&mut self, effects: &mut Effects) {
        if core::mem::take(&mut self.isolating.restart) && self.failed.is_none() {
            self.start_isolated(None, effects);
        }
    }

    /// Nobody agreed in time, or the connection broke: nothing was changed here.
    pub(super) fn isolation_is_off(&mut self, refusal: Refusal, effects: &mut Effects) {
        let persists = self.change.as_ref().is_some_and(|change| {
            matches!(
                (&change.kind, &change.step),
                (
                    Kind::Follow { .. },
                    Step::Drain | Step::Flush | Step::Persist
                )
            )
        });
        if !persists && let Some(asking) = self.isolating.asking.take() {
            self.answer(Some(asking.command), Err(refusal), effects);
        }
    }

    /// The disk failed: nothing is agreed to any more.
    pub(super) fn isolation_failed(&mut self, effects: &mut Effects) {
        if let Some(asking) = self.isolating.asking.take() {
            self.answer(Some(asking.command), Err(Refusal::DiskFailed), effects);
        }
    }

    pub(super) fn isolation_over(&mut self, now: Instant, effects: &mut Effects) {
        if self.isolation_deadline().is_some_and(|until| now >= until) {
            let peer = self.peer_name();
            self.isolation_is_off(Refusal::PeerRefused { peer }, effects);
            if let Some(asking) = self.isolating.asking.as_mut() {
                asking.until = now + self.settings.link_timeout;
            }
        }
    }

    pub(super) fn isolation_deadline(&self) -> Option<Instant> {
        self.isolating.asking.map(|asking| asking.until)
    }

    // --- attach -------------------------------------------------------------------------------

    pub(super) fn attach(
        &mut self,
        id: u64,
        force: bool,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        // A disk that failed under an earlier run may be mended: then all of it is compared.
        let mended = self.failed.is_none() && self.durable.failed && self.is_isolated();
        match self.obstacle() {
            Some(Refusal::DiskFailed) if mended && self.change.is_none() => {}
            Some(obstacle) => return Some(Err(obstacle)),
            None => {}
        }
        if !self.is_isolated() {
            return Some(Ok(Done::AlreadyAttached));
        }
        // The first write of the resync would fail, and with it the copy, which is only old.
        if self.has_given_up_its_disk() {
            return Some(Err(Refusal::Isolation(IsolationRefusal::GivenUp)));
        }
        let kind = Kind::Attach { command: id };
        let device = self.isolating.device;
        let moves = matches!(device, Device::Starting | Device::Stopping);
        if moves || !self.begin_change(kind, Step::Device, None) {
            return Some(Err(Refusal::Busy));
        }
        match device {
            Device::Up if !mutant::is(Mutant::AttachKeepsDevice) => {
                self.stop_isolated(force, effects);
            }
            Device::Starting | Device::Stopping | Device::Up | Device::None => {
                self.forget_isolation(effects);
            }
        }
        None
    }

    fn stop_isolated(&mut self, force: bool, effects: &mut Effects) {
        self.isolating.device = Device::Stopping;
        self.device(DeviceCommand::StopIsolated { force }, effects);
    }

    /// Nobody reads the image any more: it may change.
    fn forget_isolation(&mut self, effects: &mut Effects) {
        self.staged.isolation.own = None;
        self.set_step(Step::Persist);
        self.persist(Then::Continue, effects);
    }

    /// The mark is gone, durably: the next handshake finds a copy that is to be filled.
    pub(super) fn attached(&mut self, effects: &mut Effects) {
        let command = self.change.take().and_then(|change| change.command());
        effects.push(Effect::Notice(Notice::Isolation(IsolationNotice::Ended)));
        if let Some(session) = self.current_session().filter(|session| session.state_sent) {
            let id = session.id;
            self.close(id, effects);
        }
        self.answer(command, Ok(Done::Attached), effects);
    }

    /// The end of the daemon: the image's readers first. Returns whether the command is answered later.
    pub(super) fn stop_with_isolated(
        &mut self,
        id: u64,
        effects: &mut Effects,
    ) -> Option<Option<Outcome>> {
        match self.isolating.device {
            Device::None => None,
            Device::Starting | Device::Stopping => Some(Some(Err(Refusal::Busy))),
            Device::Up => {
                self.isolating.waits = Some(Waits::Exit(id));
                self.stop_isolated(false, effects);
                Some(None)
            }
        }
    }

    // --- the device ---------------------------------------------------------------------------

    pub(super) fn isolated_device(
        &mut self,
        now: Instant,
        event: IsolatedEvent,
        effects: &mut Effects,
    ) {
        let waits = self.isolating.waits.take();
        let attaches = self.change.as_ref().is_some_and(|change| {
            matches!(
                (&change.kind, &change.step),
                (Kind::Attach { .. }, Step::Device)
            )
        });
        match event {
            IsolatedEvent::Started => {
                self.isolating.device = Device::Up;
                if let Some(Waits::Start(command)) = waits {
                    self.answer(Some(command), Ok(Done::Isolated), effects);
                }
            }
            IsolatedEvent::Failed { errno } => {
                self.isolating.device = Device::None;
                self.engine.shut(now, effects);
                let notice = IsolationNotice::DeviceFailed { errno };
                effects.push(Effect::Notice(Notice::Isolation(notice)));
                if let Some(Waits::Start(command)) = waits {
                    let refusal = Refusal::Isolation(IsolationRefusal::Device { errno });
                    self.answer(Some(command), Err(refusal), effects);
                }
            }
            IsolatedEvent::Stopped => {
                self.isolating.device = Device::None;
                self.engine.shut(now, effects);
                // Asked again: a superblock may be on its way since. A stop that is refused changes nothing.
                if let Some(Waits::Exit(command)) = waits
                    && let Some(outcome) = self.stop(now, command, effects)
                {
                    self.isolating.restart = outcome.is_err() && !attaches;
                    self.answer(Some(command), outcome, effects);
                }
                if attaches {
                    self.forget_isolation(effects);
                }
            }
            IsolatedEvent::Busy => {
                self.isolating.device = Device::Up;
                let refusal = Refusal::Isolation(IsolationRefusal::InUse);
                if let Some(Waits::Exit(command)) = waits {
                    self.answer(Some(command), Err(refusal), effects);
                } else if attaches {
                    let command = self.change.take().and_then(|change| change.command());
                    self.answer(command, Err(refusal), effects);
                }
            }
        }
    }

    /// A read of the image failed: nothing that was promised is in doubt.
    pub(super) fn isolated_read_failed(&self, errno: Errno, effects: &mut Effects) {
        let notice = IsolationNotice::ReadFailed { errno };
        effects.push(Effect::Notice(Notice::Isolation(notice)));
    }

    /// The session over which an isolated peer still agrees to who serves.
    pub(super) fn isolated_session(&self) -> Option<SessionId> {
        self.durable.isolation.peer?;
        self.up_session().filter(|_| !self.peer_counts())
    }
}
