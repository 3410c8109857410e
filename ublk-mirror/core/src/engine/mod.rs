//! The write path: when is a request sent where, and when is it acknowledged?
//!
//! One table of requests by tag. A write goes to the local disk and to the peer at the same time and
//! is acknowledged when both have it (S1); a request that overlaps a write in flight waits for it; when
//! the peer's copy counts and the peer is gone, everything that changes data waits (S2).

mod background;
mod copy;
mod diskless;
mod durable;
mod ending;
mod healing;
mod inflight;
mod pace;
mod pause;
mod peer;
mod slots;
mod verified;
mod verify;

pub use background::FLUSH_BACKGROUND;
pub use copy::Compared;
pub use healing::ReadAnswer;
pub use verified::VerifyAnswer;
pub use verify::NOT_NOW;

use alloc::collections::VecDeque;

use crate::admin::Counters;
use crate::effect::{DiskOperation, Effect, Effects};
use crate::event::{IoOwner, Request, RequestKind};
use crate::intent::Intent;
use crate::limits::{COPY_INFLIGHT_MAX, QUEUE_DEPTH};
use crate::mutant::{self, Mutant};
use crate::resync::Resync;
use crate::types::{CopyId, Epoch, Errno, Instant, SectorRange, SessionId, Tag};
use background::Background;
use copy::Reading;
use diskless::OwnDisk;
use durable::Durable;
use healing::Healing;
use inflight::{InFlight, Leg, Stage};
use pace::Pace;
use slots::Slots;
use verify::Verifying;

/// What the peer means for the acknowledgement of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Its copy does not count and it is not connected.
    Absent,
    /// Its copy counts, but it does not answer: writes freeze (S2).
    Lost,
    /// Its copy counts.
    Member(SessionId),
    /// Its copy is being filled: it gets what belongs to chunks that it has.
    Target(SessionId),
    /// Its copy is complete and about to count: it must have every write and every flush.
    Joining(SessionId),
}

impl Peer {
    fn session(self) -> Option<SessionId> {
        match self {
            Self::Member(session) | Self::Target(session) | Self::Joining(session) => Some(session),
            Self::Absent | Self::Lost => None,
        }
    }
}

/// Whether the device may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Every request fails at once (S12).
    Shut,
    /// The device is being started: requests (somebody's probe of it) wait.
    Starting,
    /// Requests are carried out.
    Open,
    /// The device shows an isolated copy: reads alone, without a lease, for nothing changes.
    Isolated,
}

/// Whether the read lease is needed (S5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLease {
    /// A sole member needs none.
    NotNeeded,
    /// Reads are answered until then.
    Until(Instant),
}

/// The requests of the device and what they wait for.
#[derive(Debug)]
pub struct Engine {
    gate: Gate,
    /// A view change that must not see new writes is under way.
    held: bool,
    peer: Peer,
    epoch: Epoch,
    lease: ReadLease,
    size_sectors: u64,
    slots: Slots,
    waiting: VecDeque<Tag>,
    next_id: u64,
    /// What is durable before a write begins, and what remembers differences (S7).
    pub intent: Intent,
    /// The flush request that frees the activity log when it is done.
    log_freeing: Option<Tag>,
    /// A flush of both copies that nobody asked for.
    background: Option<Background>,
    /// Answers that the peer still owes on this session for background flushes that came to nothing.
    background_owed: u32,
    /// The disk flush of a background flush is under way (perhaps of one that came to nothing).
    background_disk: bool,
    /// Since when something is not flushed on both copies.
    unflushed_since: Option<Instant>,
    /// When extents were last looked at for having become cold.
    aged: Instant,
    /// The resync that this node is the source of, while its session lasts.
    copy: Option<Resync>,
    /// How much the resync had to copy over all its sessions.
    copy_total: Option<(CopyId, u64)>,
    /// What copy buffers are being filled and looked at for, by slot; perhaps for an earlier session.
    copy_reading: [Option<Reading>; COPY_INFLIGHT_MAX as usize],
    /// When the application last asked for something or was answered.
    last_request: Option<Instant>,
    /// How the resync gives way to the application.
    copy_pace: Pace,
    /// It waits for the next session.
    copy_halted: bool,
    /// Since when an operator keeps the resync from going on.
    copy_paused: Option<Instant>,
    /// The comparison of both copies.
    verifying: Verifying,
    /// Reads that the own disk could not do.
    healing: Healing,
    own_disk: OwnDisk,
    /// What no flush covers yet.
    durable: Durable,
    counters: Counters,
}

impl Engine {
    /// An engine whose gate is shut.
    pub fn new(size_sectors: u64, intent: Intent) -> Self {
        Self {
            gate: Gate::Shut,
            held: false,
            peer: Peer::Absent,
            epoch: Epoch(0),
            lease: ReadLease::NotNeeded,
            size_sectors,
            slots: Slots::new(),
            waiting: VecDeque::with_capacity(usize::from(QUEUE_DEPTH)),
            next_id: 1,
            intent,
            log_freeing: None,
            background: None,
            background_owed: 0,
            background_disk: false,
            unflushed_since: None,
            aged: Instant::default(),
            copy: None,
            copy_total: None,
            copy_reading: [None; COPY_INFLIGHT_MAX as usize],
            last_request: None,
            copy_pace: Pace::new(),
            copy_halted: false,
            copy_paused: None,
            verifying: Verifying::default(),
            healing: Healing::default(),
            own_disk: OwnDisk::default(),
            durable: Durable::default(),
            counters: Counters::default(),
        }
    }

    /// The volume's size became known (a joining copy).
    pub fn set_size(&mut self, size_sectors: u64) {
        self.size_sectors = size_sectors;
        self.intent.set_size(size_sectors);
    }

    /// Counters for the status.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        (counters.log_writes, counters.bitmap_writes) = self.intent.writes();
        counters
    }

    /// Requests in flight or waiting.
    pub fn inflight(&self) -> usize {
        self.slots.len()
    }

    /// Whether the peer's copy counts and the peer is gone.
    pub fn is_frozen(&self) -> bool {
        self.gate == Gate::Open && self.peer == Peer::Lost
    }

    /// Whether requests that change data wait for a change of view.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// What the peer means now.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The device is being started: what comes waits for [`Self::open`] or [`Self::shut`].
    pub fn park(&mut self) {
        self.gate = Gate::Starting;
    }

    /// Lets requests in.
    pub fn open(&mut self) {
        self.gate = Gate::Open;
    }

    /// Nothing that changes data begins until [`Self::resume`].
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// The change of view came to nothing: what was held goes on (with the next event).
    pub fn resume(&mut self) {
        self.held = false;
    }

    /// The view under which frames are sent.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Reads are answered until then (S5). Waiting reads go on if the lease was renewed.
    pub fn set_lease(&mut self, now: Instant, lease: ReadLease, effects: &mut Effects) {
        self.lease = lease;
        self.pump(now, effects);
    }

    /// Shuts the gate: everything that is not yet acknowledged fails. Disk operations that are under
    /// way keep their tag until they end: the buffer is still in use.
    pub fn shut(&mut self, now: Instant, effects: &mut Effects) {
        self.gate = Gate::Shut;
        self.held = false;
        self.durable.unsure();
        self.waiting.clear();
        self.abandon_background();
        self.heals_given_up();
        for index in self.slots.indices() {
            let Some(entry) = self.slots.get_mut(index) else {
                continue;
            };
            entry.failure = Some(Errno::EIO);
            if entry.stage == Stage::Waiting || entry.local == Leg::Refused {
                entry.local = Leg::NotNeeded;
            }
            let range = entry.request.range;
            let unsure = entry.stage == Stage::Running
                && entry.writes()
                && matches!(entry.peer, Leg::Unsent | Leg::Sent | Leg::Refused);
            entry.peer = Leg::NotNeeded;
            if unsure {
                // The peer may or may not get it.
                self.missed(range);
            }
            self.finish_if_done(now, index, effects);
        }
    }

    /// A request of the kernel.
    pub fn submit(&mut self, now: Instant, request: Request, effects: &mut Effects) {
        let tag = request.tag;
        let index = usize::from(tag.0);
        assert!(self.slots.is_free(index), "a tag was handed over twice");
        let flush = request.kind == RequestKind::Flush;
        if self.is_refused(&request) || (!flush && !request.range.fits(self.size_sectors)) {
            self.counters.failed += 1;
            effects.push(Effect::Complete {
                tag,
                result: Err(Errno::EIO),
            });
            return;
        }
        self.last_request = Some(now);
        self.pace_passed(now);
        self.slots.put(index, InFlight::new(request, now));
        self.waiting.push_back(tag);
        self.pump(now, effects);
    }

    /// Something that requests may have waited for is done.
    pub fn go_on(&mut self, now: Instant, effects: &mut Effects) {
        self.pump(now, effects);
    }

    /// Begins what waits and may begin, in order of arrival.
    fn pump(&mut self, now: Instant, effects: &mut Effects) {
        self.intent.nothing_wanted();
        let mut position = 0;
        while let Some(tag) = self.waiting.get(position).copied() {
            if self.may_begin(now, tag, position) {
                self.waiting.remove(position);
                self.begin(now, tag, effects);
            } else {
                position += 1;
            }
        }
    }

    fn request(&self, tag: Tag) -> Option<&InFlight> {
        self.slots.get(usize::from(tag.0))
    }

    fn may_begin(&mut self, now: Instant, tag: Tag, position: usize) -> bool {
        let Some(entry) = self.request(tag) else {
            return true;
        };
        let (request, arrived, heals) = (entry.request, entry.arrived, entry.heal.is_some());
        if self.gate == Gate::Starting || self.own_disk == OwnDisk::Leaving {
            return false;
        }
        if request.kind == RequestKind::Read {
            let leased = self.is_leased(now) || self.needs_no_lease() || self.is_diskless();
            let turn = (leased || mutant::is(Mutant::LeaseIgnored))
                && !self.earlier_write_overlaps(request.range, position);
            if self.is_diskless() {
                let member = matches!(self.peer, Peer::Member(_));
                return turn && member && self.healing.has_room();
            }
            if !heals || !turn {
                return turn;
            }
        }
        self.may_change(&request, arrived, position) && (!heals || self.healing.has_room())
    }

    /// Whether what is known here may be told without asking the peer (S5).
    fn is_leased(&self, now: Instant) -> bool {
        match self.lease {
            ReadLease::NotNeeded => true,
            ReadLease::Until(end) => now < end,
        }
    }

    /// Whether a change of data on the own disk, or a flush, may begin.
    fn may_change(&mut self, request: &Request, arrived: Instant, position: usize) -> bool {
        let heals = request.kind == RequestKind::Read;
        let held = self.held && !mutant::is(Mutant::HoldIgnored);
        if held || self.peer == Peer::Lost && !mutant::is(Mutant::NoFreeze) {
            return false;
        }
        if request.kind == RequestKind::Flush {
            return true;
        }
        let running = self
            .slots
            .running_changes()
            .any(|other| other.overlaps(request.range));
        let reading = self.copy_reading.iter().flatten();
        let copying = self
            .copy
            .as_ref()
            .is_some_and(|copy| copy.locks(request.range))
            || reading
                .into_iter()
                .any(|read| read.range.overlaps(request.range))
            || self.verify_locks(request.range, arrived);
        let unlocked = heals && mutant::is(Mutant::HealUnlocked);
        let running = running && !mutant::is(Mutant::OverlappingWrites) && !unlocked;
        let copying = copying && !mutant::is(Mutant::WriteIntoRun);
        if running || copying || self.earlier_write_overlaps(request.range, position) {
            return false;
        }
        // Nothing reaches a disk before the activity log says that it may (S7).
        let covered = self.intent.covers(request.range);
        if !covered {
            self.intent.want(request.range);
        }
        covered
            || mutant::is(Mutant::WriteBeforeLog)
            || (heals && mutant::is(Mutant::HealWithoutLog))
    }

    /// Whether a change of data that came earlier and still waits overlaps.
    fn earlier_write_overlaps(&self, range: SectorRange, position: usize) -> bool {
        self.waiting
            .iter()
            .take(position)
            .filter_map(|tag| self.request(*tag))
            .any(|earlier| earlier.changes_data() && earlier.request.range.overlaps(range))
    }

    fn begin(&mut self, now: Instant, tag: Tag, effects: &mut Effects) {
        let Some(request) = self.request(tag).map(|entry| entry.request) else {
            return;
        };
        let reads = request.kind == RequestKind::Read;
        let local = reads && mutant::is(Mutant::DisklessReadsHere);
        if self.heals(tag) || (self.is_diskless() && reads && !local) {
            return self.begin_heal(now, tag, effects);
        }
        if self.is_diskless() && !local {
            return self.begin_diskless(now, tag, effects);
        }
        // What another node has promised since is its own: without a lease it has to be asked (S4).
        if request.kind == RequestKind::Flush && self.durable.is_all() && self.is_leased(now) {
            return self.flush_nothing(now, tag, effects);
        }
        let (peer, mirrored) = self.peer_leg(&request);
        self.note_begin(now, &request);
        let (fua, covers) = self.durability(&request);
        let operation = match request.kind {
            RequestKind::Read => DiskOperation::Read,
            RequestKind::Write => DiskOperation::Write { fua },
            RequestKind::Flush => DiskOperation::Flush,
            RequestKind::Discard => DiskOperation::Discard,
            RequestKind::WriteZeroes => DiskOperation::WriteZeroes { fua },
        };
        effects.push(Effect::Disk {
            owner: IoOwner::Application(tag),
            operation,
            range: request.range,
        });
        if let Some(entry) = self.slots.get_mut(usize::from(tag.0)) {
            entry.stage = Stage::Running;
            entry.local = Leg::Sent;
            entry.peer = peer;
            entry.mirrored = mirrored;
            (entry.durable, entry.covers) = (fua, covers);
        }
        if peer == Leg::Unsent {
            self.send_to_peer(tag, effects);
        }
    }

    /// Whether the request is to be durable before it is acknowledged; if it is a flush, what it covers.
    fn durability(&mut self, request: &Request) -> (bool, u64) {
        match request.kind {
            RequestKind::Read => (false, 0),
            RequestKind::Flush => (false, self.durable.flush_begins()),
            RequestKind::Discard => {
                self.durable.change_begins(request);
                (false, 0)
            }
            RequestKind::Write | RequestKind::WriteZeroes => {
                let guessed = self.durable.change_begins(request);
                (request.fua || guessed, 0)
            }
        }
    }

    /// Everything that was acknowledged is durable on every copy that counts (S1).
    fn flush_nothing(&mut self, now: Instant, tag: Tag, effects: &mut Effects) {
        let index = usize::from(tag.0);
        let covers = self.durable.flush_begins();
        if let Some(entry) = self.slots.get_mut(index) {
            entry.stage = Stage::Running;
            (entry.local, entry.peer) = (Leg::NotNeeded, Leg::NotNeeded);
            entry.covers = covers;
        }
        self.counters.flushes_for_nothing += 1;
        self.finish_if_done(now, index, effects);
    }

    /// What the activity log has to know of a request that begins.
    fn note_begin(&mut self, now: Instant, request: &Request) {
        let shared = matches!(self.peer, Peer::Member(_) | Peer::Joining(_));
        match request.kind {
            RequestKind::Read => {}
            RequestKind::Flush if shared => {
                let running = self.slots.running_changes();
                if self.intent.flush_begins(running) {
                    self.log_freeing = Some(request.tag);
                    self.unflushed_since = self.intent.has_unflushed().then_some(now);
                }
            }
            RequestKind::Flush => {}
            RequestKind::Write | RequestKind::Discard | RequestKind::WriteZeroes => {
                self.intent.begin(request.range, shared);
                if shared {
                    self.unflushed_since = self.unflushed_since.or(Some(now));
                }
            }
        }
    }

    /// What the peer has to do with a request that begins now, and whether that mirrors it to a target.
    fn peer_leg(&mut self, request: &Request) -> (Leg, bool) {
        let changes = !matches!(request.kind, RequestKind::Read | RequestKind::Flush);
        match (self.peer, request.kind) {
            (_, RequestKind::Read) => (Leg::NotNeeded, false),
            (_, RequestKind::Flush) if mutant::is(Mutant::FlushLocalOnly) => {
                (Leg::NotNeeded, false)
            }
            (Peer::Target(_), _) if changes && mutant::is(Mutant::MirrorMissing) => {
                (Leg::NotNeeded, false)
            }
            (Peer::Member(_) | Peer::Joining(_), _) => (Leg::Unsent, false),
            (Peer::Target(_), _) if changes => match self.copy.as_mut() {
                Some(copy) if copy.must_mirror(request.range) => {
                    // It stays marked until the target has flushed it.
                    if !mutant::is(Mutant::MirroredNotMarked) {
                        self.intent.missed(request.range);
                    }
                    (Leg::Unsent, true)
                }
                _ => {
                    self.missed(request.range);
                    (Leg::NotNeeded, false)
                }
            },
            (Peer::Absent, _) if changes => {
                self.missed(request.range);
                (Leg::NotNeeded, false)
            }
            (Peer::Target(_) | Peer::Absent | Peer::Lost, _) => (Leg::NotNeeded, false),
        }
    }

    /// The peer misses this write, or may miss it. Its extent is active: the mark in memory is enough.
    fn missed(&mut self, range: SectorRange) {
        if !mutant::is(Mutant::MissedNotMarked) {
            self.intent.missed(range);
        }
        if let Some(copy) = self.copy.as_mut() {
            copy.missed(range);
        }
    }
}
