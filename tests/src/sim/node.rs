//! A simulated server: power, clock, disks, kernel, and the daemon that may run on it.

use mirror_core::auth::cluster_id;
use mirror_core::disk::{BLOCK_BYTES, Isolation, Layout, Record, Superblock};
use mirror_core::limits::{COPY_INFLIGHT_MAX, PEER_BUFFERS, QUEUE_DEPTH, SERVED_READS_MAX};
use mirror_core::paths::Paths;
use mirror_core::types::{
    BackingId, BootId, CopyId, Epoch, Incarnation, Instant, NodeId, NodeSet, ViewId, VolumeId,
};
use mirror_core::view::{View, ViewHistory, ViewMark};
use mirror_core::volume::Volume;

use super::disk::{DataDisk, Value};
use super::grow::behind;
use super::isolate::Isolated;
use super::kernel::Device;
use super::metadata::MetaDisk;
use super::rng::Rng;
use super::spin::Spin;
use super::whole::Worth;
use super::world::Plan;

/// The cluster's key.
pub const KEY: [u8; 32] = [7; 32];
/// Blocks of the activity log's ring.
const LOG_BLOCKS: u64 = 5;
/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

/// A running daemon.
#[derive(Debug)]
pub struct Process {
    /// Unique over all nodes.
    pub number: u64,
    /// The real core.
    pub volume: Volume,
    /// When its next tick is on the agenda.
    pub tick_at: Option<u64>,
    /// Whether it asks for ticks without end.
    pub spin: Spin,
    /// Receive buffers: content while in use.
    pub receive: Vec<Option<Vec<Value>>>,
    /// Copy buffers.
    pub copy: Vec<Vec<Value>>,
    /// Buffers of reads for the peer.
    pub served: Vec<Vec<Value>>,
    /// Writes and flushes of the disk that failed.
    pub write_errors: u64,
    /// Which path is dialled, ready, used.
    pub paths: Paths,
    /// It said that it ends.
    pub exiting: bool,
    /// How often the memory of each tag was put aside for fresh one.
    pub memory: Vec<u64>,
}

/// A server.
#[derive(Debug)]
pub struct Node {
    /// Whether it has power.
    pub power: bool,
    /// Its boots so far.
    pub boots: u64,
    /// This boot.
    pub boot: BootId,
    /// Reads for the peer that failed.
    pub served_errors: u64,
    /// Global time of this boot.
    pub booted_at: u64,
    /// How fast its clock runs, parts per million.
    pub ppm: u64,
    /// Time that its clock did not see.
    pub hidden: u64,
    /// Nothing happens here until then.
    pub paused_until: u64,
    /// Backing device.
    pub data: DataDisk,
    /// What the backing device offers by now.
    pub backing_sectors: u64,
    /// Metadata device.
    pub meta: MetaDisk,
    /// Both as they were after earlier power cuts.
    pub old_disks: Vec<(Vec<Value>, MetaDisk)>,
    /// Live device.
    pub device: Option<Device>,
    /// The daemon.
    pub process: Option<Process>,
    /// Sessions so far.
    pub sessions: u64,
    /// An operator keeps it off.
    pub held_off: bool,
    /// Model time of the last flush before a change of view.
    pub view_flush: u64,
    /// The same, once that flush is done.
    pub view_flushed: u64,
    /// Its isolated copy.
    pub isolated: Isolated,
    /// Its disk or its metadata failed then, and its copy did not begin to count since.
    pub failed_at: Option<u64>,
    /// Since then its writes wait for the peer, or waited.
    pub frozen_at: u64,
    /// What its metadata are worth.
    pub worth: Worth,
}

/// How much a clock may be wrong, parts per million.
pub fn drift(haste: u64) -> u64 {
    if haste > 1 { 20_000 } else { 8000 }
}

/// How fast a node's clock runs, parts per million: two clocks differ by what the margin of a lease allows
/// (1 % and 10 ms of it), almost.
pub fn clock_speed(rng: &mut Rng, haste: u64) -> u64 {
    let drift = drift(haste);
    match rng.below(4) {
        0 => 1_000_000 - drift,
        1 => 1_000_000 + drift,
        _ => rng.between(1_000_000 - drift, 1_000_000 + drift),
    }
}

/// The node's number as the core knows it.
pub fn id(node: usize) -> NodeId {
    NodeId::new(u8::try_from(node).unwrap_or(0)).unwrap_or_else(|| unreachable!("two nodes"))
}

/// The node's name.
pub fn name(node: usize) -> &'static str {
    ["alpha", "beta"][node]
}

impl Node {
    /// A node with a first (`Some(volume)`) or joining copy.
    pub fn new(rng: &mut Rng, node: usize, plan: &Plan, volume: Option<VolumeId>) -> Self {
        let boot = BootId(rng.bytes16());
        let superblock = format(rng, node, plan, volume, boot);
        let mut data = DataDisk::new(plan.disk_sectors);
        if let Some((from, value)) = behind(node, plan) {
            data.spoil_from(from, value);
        }
        if volume.is_none() && plan.garbage {
            data.spoil();
        }
        Self {
            power: true,
            boots: 1,
            served_errors: 0,
            boot,
            booted_at: 0,
            ppm: 1_000_000,
            hidden: 0,
            paused_until: 0,
            data,
            backing_sectors: plan.sectors,
            meta: MetaDisk::new(&superblock),
            old_disks: Vec::new(),
            device: None,
            process: None,
            sessions: 0,
            held_off: false,
            view_flush: 0,
            view_flushed: 0,
            isolated: Isolated::default(),
            failed_at: None,
            frozen_at: 0,
            worth: Worth::default(),
        }
    }

    /// Its clock at a global time.
    pub fn clock(&self, now: u64) -> Instant {
        let real = now - self.booted_at;
        Instant::from_nanos(
            1_000_000_000 + (real / 1000 * self.ppm / 1000).saturating_sub(self.hidden),
        )
    }

    /// The global time at which its clock shows `instant` or a little more.
    pub fn when(&self, instant: Instant) -> u64 {
        let local = (instant.as_nanos() + self.hidden).saturating_sub(1_000_000_000);
        self.booted_at + (local / self.ppm + 1) * 1_000_000 + 1000
    }

    /// The present process, if it is this one.
    pub fn process_is(&self, number: u64) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.number == number)
    }

    /// The view that is durable here.
    pub fn view(&self) -> View {
        self.meta.peek().view
    }
}

impl Process {
    /// A daemon around a volume.
    pub fn new(number: u64, volume: Volume, paths: Paths) -> Self {
        Self {
            number,
            volume,
            tick_at: None,
            spin: Spin::default(),
            receive: (0..PEER_BUFFERS).map(|_| None).collect(),
            write_errors: 0,
            served: (0..SERVED_READS_MAX).map(|_| Vec::new()).collect(),
            copy: (0..COPY_INFLIGHT_MAX).map(|_| Vec::new()).collect(),
            paths,
            exiting: false,
            memory: vec![0; usize::from(QUEUE_DEPTH)],
        }
    }
}

/// What `create` writes.
pub fn format(
    rng: &mut Rng,
    node: usize,
    plan: &Plan,
    volume: Option<VolumeId>,
    boot: BootId,
) -> Superblock {
    let me = id(node);
    let mut volume_name = [0; 64];
    volume_name[..4].copy_from_slice(b"data");
    let mut member_boots = [BootId::NONE; 8];
    member_boots[me.index()] = boot;
    let view = match volume {
        Some(_) => View {
            epoch: Epoch(1),
            id: ViewId(rng.bytes16()),
            active: None,
            insync: NodeSet::only(me),
        },
        None => View {
            epoch: Epoch(0),
            id: ViewId::NONE,
            active: None,
            insync: NodeSet::EMPTY,
        },
    };
    let mut layout = Layout::for_growth_to(plan.disk_sectors.max(2048), plan.block_bytes(node))
        .unwrap_or_else(|error| panic!("{error}"));
    // A short ring comes round often.
    layout.activity_log_bytes = LOG_BLOCKS * BLOCK_BYTES as u64;
    Superblock {
        sequence: 1,
        cluster_id: cluster_id(&KEY),
        volume_id: volume.unwrap_or(VolumeId::NONE),
        volume_name,
        node: me,
        peer: id(1 - node),
        size_sectors: plan.sectors,
        data_start_sectors: 0,
        chunk_sectors: plan.chunk_sectors,
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
        lineage: CopyId([0; 16]),
        base: ViewMark::default(),
        member_boots,
        own_boot: boot,
        incarnation: Incarnation(0),
        prepared_sectors: 0,
        backing: BackingId::NONE,
        record: Record::default(),
    }
}
