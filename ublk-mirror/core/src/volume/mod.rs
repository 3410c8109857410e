//! One volume on one node: durable state, link, engine and the changes of view, put together.

mod carried;
mod change;
mod deactivation;
mod diskless;
mod failed;
mod force;
mod gather;
mod granted;
mod grow;
mod invalidate;
mod isolation;
mod keepalive;
mod operator;
mod pause;
mod proved;
mod resolve;
mod serve;
mod session;
mod settle;
mod standby;
mod status;
mod stuck;
mod unique;
mod verify;
mod widen;
mod withdraw;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::admin::{CopyCause, Outcome, Problem, Role};
use crate::auth::Entropy;
use crate::disk::{Metadata, Superblock};
use crate::effect::{DeviceCommand, Effect, Effects};
use crate::engine::{Engine, ReadLease};
use crate::event::{DiskResult, Event, IoOwner};
use crate::intent::Intent;
use crate::keys::Keys;
use crate::limits::VOLUME_NAME_BYTES_MAX;
use crate::mutant::{self, Mutant};
use crate::types::{
    BootId, Epoch, Errno, Incarnation, Instant, NodeId, NodeSet, SessionId, ViewId,
};
use crate::view::{View, ViewMark};
use change::{Change, Kind, Step, Stopping, Then, ViewFlush};
use session::Session;
use standby::PeerOps;
pub use unique::Unique;

/// What the shell knows when it starts a volume.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The volume's name, padded with zero bytes.
    pub volume_name: [u8; VOLUME_NAME_BYTES_MAX],
    /// This node.
    pub node: NodeId,
    /// The other node.
    pub peer: NodeId,
    /// This node's name.
    pub node_name: String,
    /// The other node's name.
    pub peer_name: String,
    /// With what this node and its peer prove that they belong to the cluster.
    pub keys: Keys,
    /// The boot of this machine.
    pub boot: BootId,
    /// This run of the daemon.
    pub incarnation: Incarnation,
    /// 32 bytes from the kernel's random source.
    pub seed: [u8; 32],
    /// Between two keepalives; a third of `link_timeout` at most.
    pub keepalive_interval: Duration,
    /// A peer that is silent for so long is lost.
    pub link_timeout: Duration,
    /// Reads are answered for so long after the keepalive that the peer answered (S5). The same on
    /// both nodes.
    pub read_lease: Duration,
    /// A disk operation that takes longer is given up, and the disk counts as failed. Longer than any disk
    /// that is well takes; independent of `link_timeout`: keepalives do not wait for disks.
    pub disk_timeout: Duration,
    /// What a resync could not read is tried again after this ([`crate::limits::COPY_RETRY_AFTER`]).
    pub copy_retry: Duration,
    /// Extents that may be active, 1..=1000 ([`crate::limits::HOT_EXTENTS_DEFAULT`]).
    pub hot_extents_max: usize,
}

/// What became of the live device of an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAtStart {
    /// There is none.
    None,
    /// ublk user recovery attached it to this process; the kernel hands its requests over again.
    Recovered,
}

/// A volume on this node. See the crate's documentation for who calls what.
#[derive(Debug)]
pub struct Volume {
    settings: Settings,
    entropy: Entropy,
    /// What is durable.
    durable: Superblock,
    /// What was last given to be made durable.
    staged: Superblock,
    persists: VecDeque<(Superblock, Then)>,
    engine: Engine,
    role: Role,
    failed: Option<Errno>,
    /// It is the metadata device that failed, not the disk.
    metadata_only: bool,
    change: Option<Change>,
    sessions: Vec<Session>,
    current: Option<SessionId>,
    peer_ops: PeerOps,
    /// Until then a read lease that this node granted may hold (S5).
    granted_until: Instant,
    last_heard: Option<Instant>,
    /// When the keepalive was sent that the peer answered last.
    last_answered: Option<Instant>,
    last_refusal: Option<Problem>,
    peer_serving: bool,
    /// Progress that the source told, in sectors, and when and how much before that.
    told: Option<Told>,
    view_flush: ViewFlush,
    stopping: Option<Stopping>,
    /// Un-acknowledged writes were failed when the service ended: the copies may differ (S10).
    aborted_writes: bool,
    /// The view that an arbiter granted for the takeover under way.
    granted: Option<ViewMark>,
    /// The command that ends the service by force: its users get errors, whatever happens to the peer meanwhile.
    forced_end: Option<u64>,
    /// This run took over a live device: the kernel may still hand over writes of an earlier run.
    recovered: bool,
    /// The device that was recovered must end.
    end_recovered_device: bool,
    /// Why the last copy that was agreed on runs; a target's status says it.
    copy_cause: Option<CopyCause>,
    leaving: Option<(u64, Instant)>,
    /// An operator wants the copy here to be filled anew: the command, and how long it may take.
    invalidating: Option<(u64, Instant)>,
    /// What an earlier run had in its hands is handed over again by then: until then the copies may differ
    /// where nobody writes.
    handed_over_by: Instant,
    /// Views up to this epoch may be known to the peer.
    told_epoch: Epoch,
    /// The target's marks are being asked for, before the resync begins.
    gathering: Option<gather::Gathering>,
    /// A grow that is being prepared, and its disk operation.
    grow: Option<grow::Preparation>,
    grow_disk: grow::GrowDisk,
    /// How often the backing device was to be measured.
    measures: u64,
    /// What the live device was told to show; 0: not known.
    live_sectors: u64,
    /// Times, and what an operator is told of a split brain.
    words: resolve::Words,
    isolating: isolation::Isolating,
    /// Disk operations under way.
    watch: stuck::Watch,
    /// Where what is written down goes.
    records: carried::Records,
}

/// What a source tells of the resync's progress.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    /// Still to be copied.
    left_sectors: u64,
    /// The most that was to be copied in this session.
    most_sectors: u64,
    rate_bytes_per_s: u64,
}

/// Grants of an earlier run are not remembered: as if one was given just now.
fn may_have_granted(now: Instant, settings: &Settings) -> Instant {
    if mutant::is(Mutant::GrantsForgotten) {
        return now;
    }
    now + lease_with_margin(settings.read_lease)
}

impl Volume {
    /// A volume as its metadata say, without a connection.
    pub fn new(
        settings: Settings,
        metadata: Metadata,
        device: DeviceAtStart,
        now: Instant,
    ) -> Self {
        let intent = Intent::new(&metadata, settings.hot_extents_max);
        let superblock = metadata.superblock;
        let superblock_epoch = superblock.view.epoch;
        let mut engine = Engine::new(superblock.size_sectors, intent);
        engine.set_epoch(superblock.view.epoch);
        let entropy = Entropy::new(&settings.seed);
        let granted_until = may_have_granted(now, &settings);
        let mut volume = Self {
            entropy,
            staged: superblock.clone(),
            durable: superblock,
            persists: VecDeque::new(),
            engine,
            role: Role::Fenced,
            failed: None,
            metadata_only: false,
            change: None,
            sessions: Vec::new(),
            current: None,
            peer_ops: PeerOps::new(),
            granted_until,
            last_heard: None,
            last_answered: None,
            last_refusal: None,
            peer_serving: false,
            told: None,
            view_flush: ViewFlush::None,
            stopping: None,
            aborted_writes: false,
            granted: None,
            forced_end: None,
            recovered: false,
            end_recovered_device: false,
            copy_cause: None,
            leaving: None,
            invalidating: None,
            handed_over_by: now,
            // What earlier runs told is not remembered: all of it may be known.
            told_epoch: superblock_epoch,
            gathering: None,
            grow: None,
            grow_disk: grow::GrowDisk::None,
            measures: 0,
            live_sectors: 0,
            words: resolve::Words::default(),
            isolating: isolation::Isolating::default(),
            watch: stuck::Watch::new(settings.disk_timeout),
            records: carried::Records::default(),
            settings,
        };
        let recovers = device == DeviceAtStart::Recovered
            && volume.durable.view.active == Some(volume.settings.node);
        let inherits = recovers && !mutant::is(Mutant::InheritedFlushed);
        if !(volume.is_member() && volume.peer_counts()) || inherits {
            // Nobody knows which blocks of the active extents are on both copies. Of a live device's not even after
            // a flush of both: a write that an earlier run gave to one of them is perhaps still with the kernel, or
            // waits here.
            volume.engine.intent.diverge();
        }
        volume.set_peer_without_session();
        volume.isolated_at_start();
        if recovers {
            volume.serve_recovered(now);
        }
        volume
    }

    /// The daemon started under a live device that an earlier run served.
    fn serve_recovered(&mut self, now: Instant) {
        self.role = Role::Active;
        self.recovered = true;
        self.handed_over_by = now + self.settings.link_timeout * 3;
        if self.durable.failed {
            // The disk failed under an earlier run: its requests fail, nothing is promised any more.
            self.failed = Some(Errno::EIO);
            return;
        }
        if self.durable.drained && !mutant::is(Mutant::AbortedServesOn) {
            // An earlier run threw writes away and was killed before the device had ended.
            self.aborted_writes = true;
            self.role = Role::Deactivating;
            let (command, failure) = (None, None);
            let kind = Kind::Deactivate { command, failure };
            self.end_recovered_device = self.begin_change(kind, Step::Device, None);
            return;
        }
        self.engine.open();
        let lease = if self.is_sole() || mutant::is(Mutant::RecoveredWithoutLease) {
            ReadLease::NotNeeded
        } else {
            ReadLease::Until(now)
        };
        self.engine.set_lease(now, lease, &mut Vec::new());
    }

    /// Whether this node dials (the one with the higher number); the other listens.
    pub fn dials(&self) -> bool {
        self.settings.node > self.settings.peer
    }

    fn me(&self) -> NodeId {
        self.settings.node
    }

    fn is_sole(&self) -> bool {
        self.durable.view.is_sole(self.me())
    }

    fn is_member(&self) -> bool {
        self.durable.view.insync.contains(self.me())
    }

    fn peer_counts(&self) -> bool {
        self.durable.view.insync.contains(self.settings.peer)
    }

    fn both(&self) -> NodeSet {
        NodeSet::only(self.me()).with(self.settings.peer)
    }

    fn is_blank(&self) -> bool {
        self.staged.volume_id.is_none()
    }

    /// The one door: something happened.
    pub fn handle(&mut self, now: Instant, event: Event<'_>, effects: &mut Effects) {
        let first = effects.len();
        self.watch_event(now, &event);
        match event {
            Event::Tick => {}
            Event::WallClock { unix_s } => self.wall_clock(now, unix_s),
            Event::Request(request) => {
                self.note_write(now, &request);
                self.engine.submit(now, request, effects);
            }
            Event::DiskDone { owner, result } => {
                if self.watch.ended(owner) {
                    self.disk_done(now, owner, result, effects);
                }
            }
            Event::Examined { slot, zero, digest } => {
                if self.engine.verify_has(slot) {
                    let answer = self
                        .engine
                        .verify_examined(now, slot, zero, digest, effects);
                    self.verify_answer(slot, answer, effects);
                } else {
                    let compared = self.engine.copy_examined(now, slot, zero, digest, effects);
                    self.answer_compared(compared, effects);
                }
            }
            Event::Persisted { sequence } => self.persisted(now, sequence, effects),
            Event::BlockWritten { id } => {
                self.engine.intent.written(id);
                self.engine.go_on(now, effects);
            }
            Event::PersistFailed { errno } => self.metadata_failed(now, errno, effects),
            Event::Disowned { kept } => self.disowned(now, kept, effects),
            Event::SessionOpened { session, dialled } => {
                self.session_opened(now, session, dialled, effects)
            }
            Event::Received {
                session,
                frame,
                body,
                buffer,
            } => {
                self.received(now, session, frame, body, buffer, effects);
            }
            Event::SessionClosed { session, reason } => {
                self.session_closed(now, session, reason, effects)
            }
            Event::DeviceStarted => self.device_started(now, effects),
            Event::DeviceStopped => self.device_stopped(now, effects),
            Event::DeviceFailed { errno } => self.device_failed(now, errno, effects),
            Event::DeviceBusy => self.device_busy(effects),
            Event::BackingMeasured { id, sectors } => self.backing_measured(id, sectors, effects),
            Event::Keys(keys) => self.take_keys(keys),
            Event::Isolated(event) => self.isolated_device(now, event, effects),
            Event::Operator {
                command_id,
                command,
            } => self.operator(now, command_id, command, effects),
        }
        self.timers(now, effects);
        self.background(now, effects);
        self.watch_effects(now, first, effects);
    }

    /// Not while the own disk is being left: what it does proves nothing any more.
    fn flushes_in_background(&self) -> bool {
        self.failed.is_none() || self.engine.is_diskless()
    }

    /// What follows from any event: the steps of whatever is under way.
    fn background(&mut self, now: Instant, effects: &mut Effects) {
        if self.flushes_in_background() {
            self.engine.background_steps(now, effects);
            self.note_swept(effects);
        }
        if core::mem::take(&mut self.end_recovered_device) {
            self.device(DeviceCommand::StopLive { force: true }, effects);
        }
        self.resume_deactivation(effects);
        self.grow_steps(effects);
        self.drop_drained(effects);
        self.remember(now, effects);
        self.diskless_steps(now, effects);
        self.remember(now, effects);
        self.restart_isolated(effects);
        self.copy_steps(now, effects);
        self.standby_steps(now, effects);
        self.verify_steps(now, effects);
    }

    fn disk_done(
        &mut self,
        now: Instant,
        owner: IoOwner,
        result: DiskResult,
        effects: &mut Effects,
    ) {
        if let IoOwner::Copy(slot) = owner
            && self.engine.verify_has(slot)
        {
            let answer = self.engine.verify_read_done(now, slot, result, effects);
            return self.verify_answer(slot, answer, effects);
        }
        if let (Err(errno), IoOwner::Application(tag)) = (result, owner) {
            if self.engine.read_failed(now, tag, errno, effects) {
                // It concerns the request alone; nothing that was promised is in doubt.
                if self.is_isolated() {
                    self.isolated_read_failed(errno, effects);
                }
                return;
            }
            // Before the request ends: nothing that waited for it may begin.
            self.disk_failed(now, errno, effects);
        }
        match owner {
            IoOwner::Application(tag) => self.engine.local_done(now, tag, result, effects),
            IoOwner::Peer(slot) => {
                let repair = self.peer_ops.own_repair(slot);
                self.peer_op_done(slot, result, effects);
                if let Some(run) = repair {
                    self.engine.verify_written(now, run, result, effects);
                }
            }
            IoOwner::Copy(slot) => {
                let compared = self.engine.copy_read_done(now, slot, result, effects);
                self.answer_compared(compared, effects);
            }
            IoOwner::ViewFlush => {
                if result.is_ok() {
                    self.view_flushed(now, effects);
                }
            }
            IoOwner::LogFlush => {
                // A disk that failed meanwhile may have lost what was to be flushed.
                if result.is_ok() && self.failed.is_none() {
                    self.engine.background_disk_done(now, effects);
                }
            }
            IoOwner::Serve(slot) => self.served(slot, result, effects),
            IoOwner::Grow => {
                if result.is_ok() {
                    self.grow_disk_done(effects);
                }
            }
        }
        match (result, owner) {
            // A failed request of the application was seen to above, and a range that a resync cannot read was put
            // aside there; whom a failed read was for is told.
            (Ok(()), _)
            | (Err(_), IoOwner::Application(_) | IoOwner::Serve(_) | IoOwner::Copy(_)) => {}
            (
                Err(errno),
                IoOwner::Peer(_) | IoOwner::ViewFlush | IoOwner::LogFlush | IoOwner::Grow,
            ) => self.disk_failed(now, errno, effects),
        }
    }

    /// The bitmap on disk says by itself what the target lacks.
    fn note_swept(&mut self, effects: &mut Effects) {
        if self.change.is_none()
            && self.engine.intent.is_swept()
            && let Some(copy) = self.staged.copy.as_mut()
            && copy.full
        {
            copy.full = false;
            self.persist(Then::Nothing, effects);
        }
    }

    /// Gives the staged superblock to be made durable.
    fn persist(&mut self, then: Then, effects: &mut Effects) {
        self.staged.sequence += 1;
        self.staged.own_boot = self.settings.boot;
        self.staged.incarnation = self.settings.incarnation;
        self.staged.record.last_write_s = self.last_write_s();
        if let Err(fault) = self.staged.is_readable() {
            // Better no daemon than a copy that nobody can open any more: what is on disk is whole.
            panic!(
                "a superblock that no reader takes (S9 I9 I11): {fault}: {:?}",
                self.staged
            );
        }
        if self.keeps_records() {
            effects.push(Effect::Persist(Box::new(self.staged.clone())));
        }
        self.persists.push_back((self.staged.clone(), then));
    }

    fn persisted(&mut self, now: Instant, sequence: u64, effects: &mut Effects) {
        let Some((superblock, then)) = self.persists.pop_front() else {
            return;
        };
        assert_eq!(
            superblock.sequence, sequence,
            "superblocks become durable in their order"
        );
        self.durable = superblock;
        self.engine.set_epoch(self.durable.view.epoch);
        self.after_persist(now, then, effects);
    }

    /// Stages a new view; the old one goes into the history.
    fn stage_view(&mut self, view: View) {
        if self.staged.view.mark() != view.mark() {
            let old = self.staged.view.mark();
            // A view that the peer was never told needs no place: it cannot come back with it.
            let kept = !mutant::is(Mutant::HistoryForgotten);
            if old.epoch != Epoch(0) && old.epoch <= self.told_epoch && kept {
                self.staged.history.push(old);
            }
            if self.staged.view.insync == self.both() && view.insync != self.both() {
                self.staged.base = old;
            }
            self.staged.view = view;
        }
    }

    /// A view that follows everything this node has seen.
    fn next_view(&mut self, active: Option<NodeId>, insync: NodeSet, at_least: Epoch) -> View {
        View {
            epoch: self.next_epoch().max(at_least.next()),
            id: ViewId(self.entropy.bytes16()),
            active,
            insync,
        }
    }

    /// Above every epoch that this node ever saw.
    fn next_epoch(&self) -> Epoch {
        let seen = self.staged.view.epoch.max(self.staged.sealed);
        seen.max(self.floor()).next()
    }

    fn answer(&self, command_id: Option<u64>, outcome: Outcome, effects: &mut Effects) {
        if let Some(command_id) = command_id {
            effects.push(Effect::Reply {
                command_id,
                outcome,
            });
        }
    }

    fn peer_name(&self) -> String {
        self.settings.peer_name.clone()
    }

    fn device(&self, command: DeviceCommand, effects: &mut Effects) {
        effects.push(Effect::Device(command));
    }

    /// The epoch below which this node refuses everything.
    fn floor(&self) -> Epoch {
        self.staged.sealed.max(self.durable.sealed)
    }
}

/// How long the holder of a lease may go on after the grantor's clock says it is over: drift of 1 %.
fn lease_with_margin(lease: Duration) -> Duration {
    if mutant::is(Mutant::LeaseWithoutMargin) {
        return lease;
    }
    lease + lease / 100 + Duration::from_millis(10)
}
