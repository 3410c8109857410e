//! Two real cores that speak with each other in memory: disks, metadata and the network answer at once and keep nothing.
//!
//! What is left is what the rules themselves cost. Nothing here allocates once it runs.

use std::collections::VecDeque;
use std::time::Duration;

use mirror_core::admin::Command;
use mirror_core::auth::cluster_id;
use mirror_core::disk::{
    ActivityFound, ActivityRecord, BitmapPage, Isolation, Layout, Metadata, Record, Superblock,
};
use mirror_core::effect::{DeviceCommand, Effect, Effects};
use mirror_core::event::{Event, IoOwner, Request, RequestKind};
use mirror_core::keys::Keys;
use mirror_core::limits::{COPY_RETRY_AFTER, HOT_EXTENTS_DEFAULT, PEER_BUFFERS, QUEUE_DEPTH};
use mirror_core::types::{
    BackingId, BootId, CopyId, Epoch, Incarnation, Instant, NodeId, NodeSet, SectorRange,
    SessionId, Tag, ViewId, VolumeId,
};
use mirror_core::view::{View, ViewHistory, ViewMark};
use mirror_core::volume::{DeviceAtStart, Settings, Volume};
use mirror_core::wire::Frame;

/// 64 GiB.
pub const SIZE_SECTORS: u64 = 1 << 27;
/// Of an extent of the activity log: 4 MiB.
pub const EXTENT_SECTORS: u32 = 8192;
/// Sectors of a write.
const WRITE_SECTORS: u32 = 8;
/// What is written to in turn: 16 extents, which stay in the activity log.
const HOT_SECTORS: u64 = 16 * EXTENT_SECTORS as u64;
const KEY: [u8; 32] = [7; 32];
const SESSION: SessionId = SessionId(1);
/// Between two writes of a steady application; a keepalive comes every 500 ms.
const WRITE_TAKES: Duration = Duration::from_micros(50);

fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("0 and 1 are nodes")
}

/// What is on the metadata device of a node whose copy is equal to the other one; nobody serves.
///
/// # Panics
/// Never: the numbers here are good ones.
pub fn metadata(me: NodeId, size_sectors: u64) -> Metadata {
    let peer = node(1 - me.number());
    let both = NodeSet::only(me).with(peer);
    let layout = Layout::for_growth_to(size_sectors, 4096).expect("a layout");
    let view = View {
        epoch: Epoch(5),
        id: ViewId([5; 16]),
        active: None,
        insync: both,
    };
    let mut member_boots = [BootId::NONE; 8];
    for one in [me, peer] {
        member_boots[one.index()] = BootId([0x70 + one.number(); 16]);
    }
    let superblock = Superblock {
        sequence: 9,
        cluster_id: cluster_id(&KEY),
        volume_id: VolumeId([0x55; 16]),
        volume_name: name(),
        node: me,
        peer,
        size_sectors,
        data_start_sectors: 0,
        chunk_sectors: EXTENT_SECTORS,
        logical_block_bytes: 512,
        layout,
        view,
        history: ViewHistory::default(),
        sealed: Epoch(0),
        serving: false,
        drained: false,
        failed: false,
        peer_failed: false,
        invalidated: false,
        isolation: Isolation::default(),
        copy: None,
        lineage: CopyId::NONE,
        base: ViewMark::default(),
        member_boots,
        own_boot: member_boots[me.index()],
        incarnation: Incarnation(1),
        prepared_sectors: 0,
        backing: BackingId::NONE,
        record: Record::default(),
    };
    let pages = BitmapPage::count(&layout, size_sectors);
    let clean = |page| {
        Ok(BitmapPage {
            peer,
            page,
            words: [0; mirror_core::disk::PAGE_WORDS],
        })
    };
    Metadata {
        superblock,
        activity: ActivityFound::Known(ActivityRecord {
            sequence: 3,
            extents: Vec::new(),
        }),
        bitmap: (0..pages).map(clean).collect(),
    }
}

fn name() -> [u8; 64] {
    let mut name = [0; 64];
    name[..4].copy_from_slice(b"data");
    name
}

fn settings(me: NodeId) -> Settings {
    Settings {
        volume_name: name(),
        node: me,
        peer: node(1 - me.number()),
        node_name: "here".into(),
        peer_name: "there".into(),
        keys: Keys::first(&KEY),
        boot: BootId([0x70 + me.number(); 16]),
        incarnation: Incarnation(2),
        seed: [me.number(); 32],
        keepalive_interval: Duration::from_millis(500),
        link_timeout: Duration::from_secs(3),
        read_lease: Duration::from_secs(2),
        disk_timeout: Duration::from_secs(45),
        copy_retry: COPY_RETRY_AFTER,
        hot_extents_max: HOT_EXTENTS_DEFAULT,
    }
}

/// What a core waits for, or its peer.
#[derive(Debug)]
enum Due {
    Disk(IoOwner),
    Persisted(u64),
    Block(u64),
    Frame(Frame, Vec<u8>),
    Device(DeviceCommand),
    /// Nobody looks at what a copy holds here.
    Examined(u16),
}

#[derive(Debug)]
struct Side {
    volume: Volume,
    /// What happens to it next, in order.
    due: VecDeque<Due>,
    free_buffers: Vec<u16>,
}

/// See the module.
#[derive(Debug)]
pub struct CorePair {
    now: Instant,
    /// The first one serves.
    sides: [Side; 2],
    effects: Effects,
    idle: Vec<Tag>,
    /// Events that either core was given.
    pub events: u64,
    /// Blocks of metadata that either core had written.
    pub metadata_writes: u64,
    /// Frames that either core sent.
    pub frames: u64,
    at: u64,
    said: Option<bool>,
}

impl CorePair {
    /// Connected, with both copies equal, and served by the first one.
    ///
    /// # Panics
    /// The cores do not come together.
    #[expect(clippy::new_without_default, reason = "it takes a while")]
    pub fn new() -> CorePair {
        let now = Instant::from_nanos(1_000_000_000_000);
        let side = |number| {
            let me = node(number);
            let metadata = metadata(me, SIZE_SECTORS);
            Side {
                volume: Volume::new(settings(me), metadata, DeviceAtStart::None, now),
                due: VecDeque::with_capacity(1024),
                free_buffers: (0..PEER_BUFFERS).collect(),
            }
        };
        let mut pair = CorePair {
            now,
            sides: [side(0), side(1)],
            effects: Effects::with_capacity(256),
            idle: (0..QUEUE_DEPTH).rev().map(Tag).collect(),
            events: 0,
            metadata_writes: 0,
            frames: 0,
            at: 0,
            said: None,
        };
        for place in [1, 0] {
            let dialled = pair.sides[place].volume.dials();
            let session = SESSION;
            pair.feed(place, Event::SessionOpened { session, dialled });
        }
        pair.settle();
        let command = Command::Activate;
        let command_id = 1;
        pair.feed(
            0,
            Event::Operator {
                command_id,
                command,
            },
        );
        pair.settle();
        assert_eq!(pair.said, Some(true), "the volume was not activated");
        pair
    }

    /// So many writes of 4 KiB into 16 extents, `depth` (1 to [`QUEUE_DEPTH`]) at a time.
    ///
    /// # Panics
    /// A write is not acknowledged.
    pub fn writes(&mut self, count: u64, depth: u16) {
        let mut left = count;
        while left > 0 {
            for _ in 0..u64::from(depth).min(left) {
                let tag = self.idle.pop().expect("as many tags as the queue is deep");
                self.now = self.now + WRITE_TAKES;
                let range = self.next_place();
                self.feed(
                    0,
                    Event::Request(Request {
                        tag,
                        kind: RequestKind::Write,
                        range,
                        fua: false,
                    }),
                );
                left -= 1;
            }
            self.settle();
            assert_eq!(self.idle.len(), usize::from(QUEUE_DEPTH), "a write waits");
        }
    }

    /// Another extent and another place in it each time.
    fn next_place(&mut self) -> SectorRange {
        self.at =
            (self.at + 5 * u64::from(EXTENT_SECTORS) + u64::from(WRITE_SECTORS)) % HOT_SECTORS;
        SectorRange::new(self.at, WRITE_SECTORS)
    }

    /// Until neither core waits for anything but time.
    fn settle(&mut self) {
        loop {
            for place in [0, 1] {
                let due = self.sides[place].volume.deadline();
                if due.is_some_and(|due| due <= self.now) {
                    self.feed(place, Event::Tick);
                }
            }
            let next = |side: &mut Side| side.due.pop_front();
            let (place, due) = match next(&mut self.sides[0]) {
                Some(due) => (0, due),
                None => match next(&mut self.sides[1]) {
                    Some(due) => (1, due),
                    None => return,
                },
            };
            self.happens(place, due);
        }
    }

    fn happens(&mut self, place: usize, due: Due) {
        match due {
            Due::Disk(owner) => self.feed(
                place,
                Event::DiskDone {
                    owner,
                    result: Ok(()),
                },
            ),
            Due::Persisted(sequence) => self.feed(place, Event::Persisted { sequence }),
            Due::Block(id) => self.feed(place, Event::BlockWritten { id }),
            Due::Device(DeviceCommand::StartLive) => self.feed(place, Event::DeviceStarted),
            Due::Device(_) => self.feed(place, Event::DeviceStopped),
            Due::Examined(slot) => self.feed(
                place,
                Event::Examined {
                    slot,
                    zero: true,
                    digest: None,
                },
            ),
            Due::Frame(frame, body) => {
                let has_payload = frame.kind.has_payload() && frame.range.count > 0;
                let buffers = &mut self.sides[place].free_buffers;
                let buffer =
                    has_payload.then(|| buffers.pop().expect("the sender keeps its bounds"));
                self.feed(
                    place,
                    Event::Received {
                        session: SESSION,
                        frame,
                        body: &body,
                        buffer,
                    },
                );
            }
        }
    }

    fn feed(&mut self, place: usize, event: Event<'_>) {
        self.events += 1;
        let mut effects = std::mem::take(&mut self.effects);
        self.sides[place]
            .volume
            .handle(self.now, event, &mut effects);
        for effect in effects.drain(..) {
            self.execute(place, effect);
        }
        self.effects = effects;
    }

    fn execute(&mut self, place: usize, effect: Effect) {
        let own = &mut self.sides[place].due;
        match effect {
            Effect::Complete { tag, result } => {
                assert!(result.is_ok(), "{tag:?} failed: {result:?}");
                self.idle.push(tag);
            }
            Effect::Disk { owner, .. } => own.push_back(Due::Disk(owner)),
            Effect::Examine { slot, .. } => own.push_back(Due::Examined(slot)),
            Effect::Persist(superblock) => own.push_back(Due::Persisted(superblock.sequence)),
            Effect::WriteBlock { id, .. } => {
                self.metadata_writes += 1;
                own.push_back(Due::Block(id));
            }
            Effect::Send { frame, body, .. } => {
                self.frames += 1;
                self.sides[1 - place].due.push_back(Due::Frame(frame, body));
            }
            Effect::ReleaseBuffer { slot } => self.sides[place].free_buffers.push(slot),
            Effect::Device(command) => own.push_back(Due::Device(command)),
            Effect::Reply { outcome, .. } => self.said = Some(outcome.is_ok()),
            Effect::Notice(_) => {}
            Effect::Close { .. }
            | Effect::Abandon { .. }
            | Effect::AbandonMetadata
            | Effect::Disown
            | Effect::DisownWrites
            | Effect::DisownMembership
            | Effect::FillRequest { .. }
            | Effect::MeasureBacking { .. }
            | Effect::Exit => panic!("nothing goes wrong here: {effect:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_write_is_five_events_two_frames_and_no_metadata() {
        let mut pair = CorePair::new();
        pair.writes(1000, 16);
        let before = (pair.frames, pair.metadata_writes, pair.events);
        pair.writes(1000, 16);
        let (frames, events) = (pair.frames - before.0, pair.events - before.2);
        // A keepalive may come in between.
        assert!((2000..2010).contains(&frames), "{frames} frames");
        assert!((5000..5020).contains(&events), "{events} events");
        assert_eq!(pair.metadata_writes, before.1);
    }
}
