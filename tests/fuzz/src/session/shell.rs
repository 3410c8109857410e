//! A shell that keeps count: what the core asks for must make sense at every step.

use std::collections::{BTreeSet, VecDeque};

use mirror_core::disk::{BLOCK_BYTES, Metadata, Superblock};
use mirror_core::effect::{DeviceCommand, DiskOperation, Effect, Effects, PayloadSource};
use mirror_core::event::{DiskResult, Event, IoOwner, IsolatedEvent, Request, RequestKind};
use mirror_core::limits::{CONTROL_BYTES_MAX, PEER_BUFFERS, QUEUE_DEPTH};
use mirror_core::types::{Instant, SectorRange, SessionId, Tag};
use mirror_core::volume::Volume;
use mirror_core::wire::Frame;

/// What one event may lead to: every request fails, every session is told.
const EFFECTS_MAX: usize = 400;
/// Disk operations under way: requests, what the peer asked for, a copy's reads, reads for the peer, two flushes, a grow's.
const DISK_MAX: usize = 64 + 80 + 68 + 8 + 8 + 2 + 1;
const METADATA_MAX: usize = 64;

/// A metadata write under way.
#[derive(Clone, Copy, Debug)]
enum Metawrite {
    Superblock(u64),
    Block(u64),
}

/// A frame that the core sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) session: SessionId,
    pub(super) frame: Frame,
    pub(super) body: Vec<u8>,
}

/// The volume and everything around it.
#[derive(Debug)]
pub(super) struct Shell {
    volume: Volume,
    pub(super) now: Instant,
    /// The newest superblock that was given to be made durable.
    pub(super) superblock: Superblock,
    disk: Vec<(IoOwner, DiskOperation, SectorRange)>,
    metadata: VecDeque<Metawrite>,
    blocks: u64,
    /// Receive buffers: the bytes that are in them.
    buffers: Vec<Option<u64>>,
    tags: Vec<bool>,
    commands: BTreeSet<u64>,
    device: VecDeque<DeviceCommand>,
    /// Copy buffers to look at, and whether a digest is wanted.
    examined: VecDeque<(u16, bool)>,
    /// Questions for the size of the backing device.
    measures: VecDeque<u64>,
    /// Marks to be told as kept.
    disowned: usize,
    live: bool,
    pub(super) open: BTreeSet<SessionId>,
    pub(super) closing: BTreeSet<SessionId>,
    pub(super) sent: VecDeque<Sent>,
    pub(super) ended: bool,
}

impl Shell {
    pub(super) fn new(volume: Volume, superblock: Superblock, live: bool, now: Instant) -> Self {
        Self {
            volume,
            now,
            superblock,
            disk: Vec::new(),
            metadata: VecDeque::new(),
            blocks: 0,
            buffers: vec![None; usize::from(PEER_BUFFERS)],
            tags: vec![false; usize::from(QUEUE_DEPTH)],
            commands: BTreeSet::new(),
            device: VecDeque::new(),
            examined: VecDeque::new(),
            measures: VecDeque::new(),
            disowned: 0,
            live,
            open: BTreeSet::new(),
            closing: BTreeSet::new(),
            sent: VecDeque::new(),
            ended: false,
        }
    }

    /// Tells the core something and does what it says.
    pub(super) fn feed(&mut self, event: Event<'_>) {
        if self.ended {
            return;
        }
        let mut effects = Effects::new();
        self.volume.handle(self.now, event, &mut effects);
        assert!(effects.len() <= EFFECTS_MAX, "{} effects", effects.len());
        for effect in effects {
            self.execute(effect);
        }
        while let Some((slot, digest)) = self.examined.pop_front() {
            self.feed(Event::Examined {
                slot,
                zero: slot % 4 == 3,
                digest: digest.then_some([0x5a; 32]),
            });
        }
        while self.disowned > 0 {
            self.disowned -= 1;
            self.feed(Event::Disowned { kept: true });
        }
        while let Some(id) = self.measures.pop_front() {
            let sectors = Ok(self.superblock.layout.growth_sectors);
            self.feed(Event::BackingMeasured { id, sectors });
        }
        assert!(self.disk.len() <= DISK_MAX, "too many disk operations");
        assert!(self.metadata.len() <= METADATA_MAX, "too many superblocks");
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Complete { tag, .. } => {
                let busy = self.in_flight(IoOwner::Application(tag));
                assert!(!busy, "{tag:?} was completed under a disk operation");
                let taken = std::mem::take(&mut self.tags[usize::from(tag.0)]);
                assert!(taken, "{tag:?} was completed twice");
            }
            Effect::Disk {
                owner,
                operation,
                range,
            } => self.disk_starts(owner, operation, range),
            Effect::Abandon { owner } => {
                assert!(self.in_flight(owner), "{owner:?} was given up twice");
                self.disk.retain(|(other, _, _)| *other != owner);
            }
            Effect::AbandonMetadata => self.metadata.clear(),
            Effect::Disown => self.disowned += 1,
            Effect::DisownWrites | Effect::DisownMembership => {}
            Effect::Examine { slot, digest, .. } => {
                assert!(!self.in_flight(IoOwner::Copy(slot)), "looked at while read");
                self.examined.push_back((slot, digest));
            }
            Effect::Persist(superblock) => self.persist(*superblock),
            Effect::WriteBlock {
                id, offset_bytes, ..
            } => self.write_block(id, offset_bytes),
            Effect::Send {
                session,
                frame,
                body,
                payload,
            } => {
                assert!(body.len() <= CONTROL_BYTES_MAX as usize, "a long body");
                if let Some(PayloadSource::Application(tag)) = payload {
                    assert!(self.tags[usize::from(tag.0)], "{tag:?} is nobody's");
                }
                self.sent.push_back(Sent {
                    session,
                    frame,
                    body,
                });
            }
            Effect::Close { session } => {
                assert!(self.open.contains(&session), "no such session");
                self.closing.insert(session);
            }
            Effect::ReleaseBuffer { slot } => {
                let busy = self.in_flight(IoOwner::Peer(slot));
                assert!(!busy, "buffer {slot} was released while it is in use");
                let freed = self.buffers[usize::from(slot)].take();
                assert!(freed.is_some(), "buffer {slot} was released twice");
            }
            Effect::FillRequest { tag, slot, range } => self.fills(tag, slot, range),
            Effect::MeasureBacking { id } => self.measures.push_back(id),
            // Not answered.
            Effect::Device(DeviceCommand::ResizeLive { size_sectors }) => {
                assert!(
                    size_sectors <= self.superblock.size_sectors,
                    "too large a device"
                );
            }
            Effect::Device(command) => self.device.push_back(command),
            Effect::Reply { command_id, .. } => {
                assert!(self.commands.remove(&command_id), "answered twice");
            }
            Effect::Notice(notice) => {
                let _ = notice.problem();
            }
            Effect::Exit => self.ended = true,
        }
    }

    fn fills(&self, tag: Tag, slot: u16, range: SectorRange) {
        assert!(self.tags[usize::from(tag.0)], "{tag:?} is nobody's");
        let busy = self.in_flight(IoOwner::Application(tag));
        assert!(!busy, "{tag:?} is filled under a disk operation");
        let held = self.buffers[usize::from(slot)];
        assert_eq!(held, Some(range.bytes()), "filled from another's buffer");
    }

    fn in_flight(&self, owner: IoOwner) -> bool {
        self.disk.iter().any(|(other, _, _)| *other == owner)
    }

    fn disk_starts(&mut self, owner: IoOwner, operation: DiskOperation, range: SectorRange) {
        assert!(!self.in_flight(owner), "{owner:?} has two operations");
        let flush = operation == DiskOperation::Flush;
        let superblock = &self.superblock;
        let inside = if owner == IoOwner::Grow {
            range.start >= superblock.size_sectors && range.fits(superblock.layout.growth_sectors)
        } else {
            range.fits(superblock.size_sectors)
        };
        assert!(flush || inside, "{operation:?} of {range:?}");
        if let IoOwner::Peer(slot) = owner {
            assert!(flush || !self.live, "the peer writes to a live volume");
            if matches!(operation, DiskOperation::Write { .. }) {
                let held = self.buffers[usize::from(slot)];
                assert_eq!(held, Some(range.bytes()), "a write from another's buffer");
            }
        }
        if let IoOwner::Serve(_) = owner {
            assert!(!self.live, "a live volume is read for the peer");
        }
        self.disk.push((owner, operation, range));
    }

    /// What is made durable can be read again, and history does not go back.
    fn persist(&mut self, new: Superblock) {
        assert_eq!(
            Superblock::decode(&new.encode(0), 0).as_ref(),
            Ok(&new),
            "a daemon could not start from it"
        );
        let old = &self.superblock;
        assert_eq!(new.sequence, old.sequence + 1);
        assert!(new.view.epoch >= old.view.epoch, "an epoch goes back");
        assert!(new.sealed >= old.sealed, "a seal is broken");
        let joins = old.volume_id.is_none();
        assert!(
            joins || new.size_sectors >= old.size_sectors,
            "the volume shrinks"
        );
        let fits = new.size_sectors <= new.layout.growth_sectors;
        assert!(fits, "the bitmap is too small");
        self.metadata.push_back(Metawrite::Superblock(new.sequence));
        self.superblock = new;
    }

    fn write_block(&mut self, id: u64, offset_bytes: u64) {
        let superblock = &self.superblock;
        let layout = &superblock.layout;
        let bitmap = Metadata::bitmap_area(
            layout,
            superblock.node,
            superblock.peer,
            superblock.size_sectors,
        );
        let inside = Metadata::activity_area(layout).contains(&offset_bytes)
            || bitmap.contains(&offset_bytes);
        assert!(inside, "a block of metadata lands at {offset_bytes}");
        assert!(offset_bytes.is_multiple_of(BLOCK_BYTES as u64));
        assert!(id > self.blocks, "a number is used twice");
        self.blocks = id;
        self.metadata.push_back(Metawrite::Block(id));
    }

    // --- what the input may let happen --------------------------------------------------------

    /// Ends one disk operation.
    pub(super) fn disk_ends(&mut self, which: usize, result: DiskResult) {
        if self.disk.is_empty() {
            return;
        }
        let (owner, _, _) = self.disk.swap_remove(which % self.disk.len());
        self.feed(Event::DiskDone { owner, result });
    }

    /// Ends the oldest metadata write.
    pub(super) fn metadata_ends(&mut self) {
        match self.metadata.pop_front() {
            Some(Metawrite::Superblock(sequence)) => self.feed(Event::Persisted { sequence }),
            Some(Metawrite::Block(id)) => self.feed(Event::BlockWritten { id }),
            None => {}
        }
    }

    /// The metadata device fails.
    pub(super) fn metadata_fails(&mut self) {
        self.metadata.clear();
        let errno = mirror_core::types::Errno::EIO;
        self.feed(Event::PersistFailed { errno });
    }

    /// Lets everything that is under way on disks end.
    pub(super) fn settle(&mut self) {
        for _ in 0..2000 {
            if self.disk.is_empty() && self.metadata.is_empty() {
                return;
            }
            self.metadata_ends();
            self.disk_ends(0, Ok(()));
        }
        panic!("the disks have work without end");
    }

    /// Answers a command about the device.
    pub(super) fn device_answers(&mut self, well: bool) {
        let idle = self.tags.iter().all(|taken| !taken);
        match self.device.front().copied() {
            Some(DeviceCommand::StartLive) if well => {
                self.live = true;
                self.device.pop_front();
                self.feed(Event::DeviceStarted);
            }
            Some(DeviceCommand::StartLive) => {
                self.device.pop_front();
                let errno = mirror_core::types::Errno::EIO;
                self.feed(Event::DeviceFailed { errno });
            }
            Some(DeviceCommand::StopLive { force: false }) if !well => {
                self.device.pop_front();
                self.feed(Event::DeviceBusy);
            }
            Some(DeviceCommand::StopLive { .. }) if idle => {
                self.live = false;
                self.device.pop_front();
                self.feed(Event::DeviceStopped);
            }
            Some(DeviceCommand::StartIsolated) => {
                self.live = true;
                self.device.pop_front();
                self.feed(Event::Isolated(IsolatedEvent::Started));
            }
            Some(DeviceCommand::StopIsolated { .. }) if idle => {
                self.live = false;
                self.device.pop_front();
                self.feed(Event::Isolated(IsolatedEvent::Stopped));
            }
            Some(
                DeviceCommand::StopLive { .. }
                | DeviceCommand::StopIsolated { .. }
                | DeviceCommand::ResizeLive { .. },
            )
            | None => {}
        }
    }

    /// A request of the application.
    pub(super) fn request(&mut self, kind: RequestKind, range: SectorRange) {
        let Some(free) = self.tags.iter().position(|taken| !taken) else {
            return;
        };
        if !self.live || !(kind == RequestKind::Flush || range.fits(self.superblock.size_sectors)) {
            return;
        }
        self.tags[free] = true;
        let tag = Tag(u16::try_from(free).unwrap_or(0));
        self.feed(Event::Request(Request {
            tag,
            kind,
            range,
            fua: false,
        }));
    }

    /// An operator's command.
    pub(super) fn command(&mut self, command_id: u64, command: mirror_core::admin::Command) {
        self.commands.insert(command_id);
        self.feed(Event::Operator {
            command_id,
            command,
        });
    }

    /// A frame; a payload needs a receive buffer.
    pub(super) fn receive(&mut self, session: SessionId, frame: Frame, body: &[u8]) {
        let mut buffer = None;
        if frame.kind.has_payload() && frame.length_bytes > 0 {
            let Some(free) = self.buffers.iter().position(Option::is_none) else {
                return;
            };
            self.buffers[free] = Some(u64::from(frame.length_bytes));
            buffer = u16::try_from(free).ok();
        }
        self.feed(Event::Received {
            session,
            frame,
            body,
            buffer,
        });
    }

    pub(super) fn dials(&self) -> bool {
        self.volume.dials()
    }

    /// Nothing is left in the hands of a connection that is gone.
    pub(super) fn check_end(&mut self) {
        self.settle();
        let _ = self.volume.status(self.now);
        let held = self.buffers.iter().flatten().count();
        assert!(self.ended || held == 0, "{held} receive buffers are lost");
    }
}
