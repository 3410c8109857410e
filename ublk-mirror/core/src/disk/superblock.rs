//! The superblock: everything durable that a node knows of its volume.
//!
//! Two copies in two slots; an update writes slot 0, then slot 1, each durable before the next
//! step, and counts only when both are. The valid copy with the highest sequence is the truth, so a
//! crash in between leaves the state before or the state after.

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Layout;
use super::record::{Record, RecordBytes};
use crate::limits::{
    EXTENT_BLOCKS_MAX, NODES_MAX, NUMBER_AT_START_MAX, NUMBER_MAX, VIEW_HISTORY_MAX,
    VOLUME_NAME_BYTES_MAX, VOLUME_SECTORS_MAX,
};
use crate::types::{
    BackingId, BootId, ClusterId, CopyId, Epoch, Incarnation, NodeId, NodeSet, SECTOR_BYTES,
    ViewId, VolumeId,
};
use crate::view::{View, ViewHistory, ViewMark};

/// Bytes of one superblock.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Version of the on-disk format. Rule for the next one: it reads N-1 and writes N after an
/// operator's `upgrade`; an older program refuses it with [`SlotFault::Version`].
pub const FORMAT_VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"LOCKSTEP";
const NOBODY: u8 = 0xff;
const FLAG_SERVING: u32 = 1;
const FLAG_DRAINED: u32 = 2;
const FLAG_COPY_SOURCE: u32 = 4;
const FLAG_COPY_TARGET: u32 = 8;
const FLAG_FAILED: u32 = 16;
const FLAG_COPY_FULL: u32 = 32;
const FLAG_PEER_FAILED: u32 = 2048;
const FLAG_INVALIDATED: u32 = 64;
const FLAG_ISOLATED: u32 = 512;
const FLAG_PEER_ISOLATED: u32 = 1024;

/// This node's part in a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRole {
    /// It is copied from.
    Source,
    /// It is copied to: not promotable until the copy is complete, flushed and committed (S9).
    Target,
}

/// A resync that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRecord {
    /// Which resync.
    pub id: CopyId,
    /// This node's part.
    pub role: CopyRole,
    /// Source: the bitmap on disk does not yet say everything that the target lacks; every block counts
    /// as marked.
    pub full: bool,
}

/// Copies that were taken out of the view in a planned way, to be used read-only: seconds since 1970 at
/// which the operator said so. At most one of both is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// This node's copy: nothing writes to it, and it does not join again before it is attached.
    pub own: Option<u64>,
    /// The peer's copy, as far as this node knows: for the status alone.
    pub peer: Option<u64>,
}

/// The state of a volume on one node. `sequence` grows with every durable change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Number of this state.
    pub sequence: u64,
    /// The cluster (derived from its key).
    pub cluster_id: ClusterId,
    /// The volume; [`VolumeId::NONE`] until a joining copy was told.
    pub volume_id: VolumeId,
    /// The volume's name, padded with zero bytes.
    pub volume_name: [u8; VOLUME_NAME_BYTES_MAX],
    /// This node.
    pub node: NodeId,
    /// The other node.
    pub peer: NodeId,
    /// Size of the volume (a joining copy: what it offers).
    pub size_sectors: u64,
    /// Where data begins on the backing device, in sectors.
    pub data_start_sectors: u64,
    /// Requests never cross a multiple of this, in sectors.
    pub chunk_sectors: u32,
    /// Logical block size of the backing device at creation, bytes.
    pub logical_block_bytes: u32,
    /// Where the other things are.
    pub layout: Layout,
    /// The view in force.
    pub view: View,
    /// The views before.
    pub history: ViewHistory,
    /// Every message of an epoch up to this is refused (S4).
    pub sealed: Epoch,
    /// A live device exists or existed: cleared only by a clean end.
    pub serving: bool,
    /// The last service ended clean, with nothing in flight, but the peer could not be told. Together
    /// with `serving`: writes were thrown away, the live device must not be recovered.
    pub drained: bool,
    /// The backing device failed: the copy is not promotable and no source until it was filled anew.
    pub failed: bool,
    /// The peer, a member, reported that its disk failed: its copy is filled anew from this one, whatever it
    /// says of itself later (S1).
    pub peer_failed: bool,
    /// An operator marked the copy: it is not promotable and no source until it was filled anew.
    pub invalidated: bool,
    /// The unfinished resync.
    pub copy: Option<CopyRecord>,
    /// The last resync with the peer that this node took part in, finished or not: what the bitmap here
    /// says of the peer's copy is true for a copy that came out of it.
    pub lineage: CopyId,
    /// The last view in which both copies counted: what the bitmap here says of the peer's copy is true
    /// for a copy that was last a member in it.
    pub base: ViewMark,
    /// The boot under which each node is a member, as far as this node knows (S11).
    pub member_boots: [BootId; NODES_MAX as usize],
    /// The boot in which this superblock was written.
    pub own_boot: BootId,
    /// The daemon run that wrote it.
    pub incarnation: Incarnation,
    /// The backing device holds nothing but durable zeroes from the volume's end up to this sector: a grow
    /// to this size was prepared, and perhaps interrupted. 0: none.
    pub prepared_sectors: u64,
    /// The backing device that this copy was made on or an operator adopted. Not known ([`BackingId::NONE`]): any will do.
    pub backing: BackingId,
    /// Operators' words, and when an application last wrote here.
    pub record: Record,
    /// Copies that are isolated.
    pub isolation: Isolation,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SuperblockBytes {
    magic: [u8; 8],
    version: U16,
    slot: u8,
    reserved0: u8,
    crc: U32,
    sequence: U64,
    cluster_id: [u8; 16],
    volume_id: [u8; 16],
    volume_name: [u8; VOLUME_NAME_BYTES_MAX],
    node: u8,
    peer: u8,
    view_active: u8,
    view_insync: u8,
    flags: U32,
    size_sectors: U64,
    data_start_sectors: U64,
    chunk_sectors: U32,
    logical_block_bytes: U32,
    activity_log_start_bytes: U64,
    activity_log_bytes: U64,
    bitmap_start_bytes: U64,
    bitmap_peer_bytes: U64,
    bitmap_block_bytes: U32,
    reserved1: U32,
    growth_sectors: U64,
    metadata_bytes: U64,
    view_epoch: U64,
    view_id: [u8; 16],
    sealed: U64,
    copy_id: [u8; 16],
    lineage: [u8; 16],
    base: MarkBytes,
    own_boot: [u8; 16],
    incarnation: U64,
    member_boots: [[u8; 16]; NODES_MAX as usize],
    history: [MarkBytes; VIEW_HISTORY_MAX],
    record: RecordBytes,
    prepared_sectors: U64,
    backing: [u8; 16],
    reserved2: [u8; 104],
    isolated_unix_s: U64,
    peer_isolated_unix_s: U64,
    reserved3: [u8; 2352],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MarkBytes {
    epoch: U64,
    id: [u8; 16],
}

const _: () = assert!(size_of::<SuperblockBytes>() == SUPERBLOCK_BYTES);

/// What is wrong with one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SlotFault {
    /// No magic: never written, or overwritten by something else.
    #[error("holds no superblock")]
    NotASuperblock,
    /// A format that this program does not know.
    #[error("has format version {0}, this program knows {FORMAT_VERSION}")]
    Version(u16),
    /// The checksum is wrong.
    #[error("is damaged (checksum)")]
    Checksum,
    /// The bytes belong into the other slot.
    #[error("holds the bytes of slot {0} (misdirected write)")]
    Misdirected(u8),
    /// A field is impossible although the checksum is right.
    #[error("has an impossible {0}")]
    Value(&'static str),
}

/// Why no superblock can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// Neither slot is usable.
    #[error("slot 0 {0}; slot 1 {1}")]
    Both(SlotFault, SlotFault),
    /// A slot was written by a newer program: the other one may be out of date.
    #[error("slot {slot} has format version {version}, this program knows {FORMAT_VERSION}")]
    Newer {
        /// Which slot.
        slot: u8,
        /// Its version.
        version: u16,
    },
}

/// The superblock that was found, and what must be repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The truth.
    pub superblock: Superblock,
    /// The slot that is older (a crash between the two writes) and must be rewritten.
    pub stale_slot: Option<u8>,
    /// The slot that is damaged, and how; it must be rewritten, and somebody should look.
    pub damaged_slot: Option<(u8, SlotFault)>,
}

/// Chooses between the two slots.
///
/// # Errors
/// Both are unusable, or one was written by a newer program.
pub fn choose(
    slot0: &[u8; SUPERBLOCK_BYTES],
    slot1: &[u8; SUPERBLOCK_BYTES],
) -> Result<Found, SuperblockError> {
    let decoded = [
        Superblock::decode(slot0, 0).and_then(Superblock::with_room_to_count),
        Superblock::decode(slot1, 1).and_then(Superblock::with_room_to_count),
    ];
    for (slot, result) in (0u8..).zip(&decoded) {
        if let Err(SlotFault::Version(version)) = result
            && *version > FORMAT_VERSION
        {
            return Err(SuperblockError::Newer {
                slot,
                version: *version,
            });
        }
    }
    match decoded {
        [Ok(first), Ok(second)] => {
            let (superblock, stale_slot) = if first.sequence >= second.sequence {
                let stale = first.sequence > second.sequence;
                (first, stale.then_some(1))
            } else {
                (second, Some(0))
            };
            Ok(Found {
                superblock,
                stale_slot,
                damaged_slot: None,
            })
        }
        [Ok(superblock), Err(fault)] => Ok(Found {
            superblock,
            stale_slot: None,
            damaged_slot: Some((1, fault)),
        }),
        [Err(fault), Ok(superblock)] => Ok(Found {
            superblock,
            stale_slot: None,
            damaged_slot: Some((0, fault)),
        }),
        [Err(first), Err(second)] => Err(SuperblockError::Both(first, second)),
    }
}

impl Superblock {
    fn flags(&self) -> u32 {
        let copy = match self.copy.map(|copy| copy.role) {
            Some(CopyRole::Source) => FLAG_COPY_SOURCE,
            Some(CopyRole::Target) => FLAG_COPY_TARGET,
            None => 0,
        };
        let full = self.copy.is_some_and(|copy| copy.full);
        let flags = [
            (self.serving, FLAG_SERVING),
            (self.drained, FLAG_DRAINED),
            (self.failed, FLAG_FAILED),
            (self.peer_failed, FLAG_PEER_FAILED),
            (self.invalidated, FLAG_INVALIDATED),
            (self.isolation.own.is_some(), FLAG_ISOLATED),
            (self.isolation.peer.is_some(), FLAG_PEER_ISOLATED),
            (full, FLAG_COPY_FULL),
        ];
        let set = flags.iter().filter(|(set, _)| *set);
        set.fold(copy, |all, (_, flag)| all | flag)
    }

    /// The bytes for `slot` (0 or 1): the slot's number is part of them.
    pub fn encode(&self, slot: u8) -> [u8; SUPERBLOCK_BYTES] {
        let Isolation { own, peer } = self.isolation;
        let mut raw = SuperblockBytes {
            magic: MAGIC,
            version: U16::new(FORMAT_VERSION),
            slot,
            reserved0: 0,
            crc: U32::new(0),
            sequence: U64::new(self.sequence),
            cluster_id: self.cluster_id.0,
            volume_id: self.volume_id.0,
            volume_name: self.volume_name,
            node: self.node.number(),
            peer: self.peer.number(),
            view_active: self.view.active.map_or(NOBODY, NodeId::number),
            view_insync: self.view.insync.bits(),
            flags: U32::new(self.flags()),
            size_sectors: U64::new(self.size_sectors),
            data_start_sectors: U64::new(self.data_start_sectors),
            chunk_sectors: U32::new(self.chunk_sectors),
            logical_block_bytes: U32::new(self.logical_block_bytes),
            activity_log_start_bytes: U64::new(self.layout.activity_log_start_bytes),
            activity_log_bytes: U64::new(self.layout.activity_log_bytes),
            bitmap_start_bytes: U64::new(self.layout.bitmap_start_bytes),
            bitmap_peer_bytes: U64::new(self.layout.bitmap_peer_bytes),
            bitmap_block_bytes: U32::new(self.layout.bitmap_block_bytes),
            reserved1: U32::new(0),
            growth_sectors: U64::new(self.layout.growth_sectors),
            metadata_bytes: U64::new(self.layout.total_bytes),
            view_epoch: U64::new(self.view.epoch.0),
            view_id: self.view.id.0,
            sealed: U64::new(self.sealed.0),
            copy_id: self.copy.map_or([0; 16], |copy| copy.id.0),
            lineage: self.lineage.0,
            base: MarkBytes {
                epoch: U64::new(self.base.epoch.0),
                id: self.base.id.0,
            },
            own_boot: self.own_boot.0,
            incarnation: U64::new(self.incarnation.0),
            member_boots: self.member_boots.map(|boot| boot.0),
            history: self.history.0.map(|mark| MarkBytes {
                epoch: U64::new(mark.epoch.0),
                id: mark.id.0,
            }),
            record: RecordBytes::of(&self.record),
            prepared_sectors: U64::new(self.prepared_sectors),
            backing: self.backing.0,
            reserved2: [0; 104],
            isolated_unix_s: U64::new(own.unwrap_or(0)),
            peer_isolated_unix_s: U64::new(peer.unwrap_or(0)),
            reserved3: [0; 2352],
        };
        raw.crc = U32::new(crate::checksum::crc32c(raw.as_bytes()));
        let mut out = [0; SUPERBLOCK_BYTES];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    /// Reads the bytes of one slot: magic, version, checksum, place, then every field.
    ///
    /// # Errors
    /// [`SlotFault`] says what is wrong.
    pub fn decode(bytes: &[u8; SUPERBLOCK_BYTES], slot: u8) -> Result<Self, SlotFault> {
        let mut raw =
            SuperblockBytes::read_from_bytes(bytes).map_err(|_| SlotFault::NotASuperblock)?;
        if raw.magic != MAGIC {
            return Err(SlotFault::NotASuperblock);
        }
        let expected = raw.crc.get();
        raw.crc = U32::new(0);
        if crate::checksum::crc32c(raw.as_bytes()) != expected {
            return Err(SlotFault::Checksum);
        }
        if raw.version.get() != FORMAT_VERSION {
            return Err(SlotFault::Version(raw.version.get()));
        }
        if raw.slot != slot {
            return Err(SlotFault::Misdirected(raw.slot));
        }
        raw.superblock()
    }
}

impl SuperblockBytes {
    fn superblock(&self) -> Result<Superblock, SlotFault> {
        let flags = self.flags.get();
        let role = match flags & (FLAG_COPY_SOURCE | FLAG_COPY_TARGET) {
            0 => None,
            FLAG_COPY_SOURCE => Some(CopyRole::Source),
            FLAG_COPY_TARGET => Some(CopyRole::Target),
            _ => return Err(SlotFault::Value("copy role")),
        };
        let superblock = Superblock {
            sequence: self.sequence.get(),
            cluster_id: ClusterId(self.cluster_id),
            volume_id: VolumeId(self.volume_id),
            volume_name: self.volume_name,
            node: NodeId::new(self.node).ok_or(SlotFault::Value("node"))?,
            peer: NodeId::new(self.peer).ok_or(SlotFault::Value("peer"))?,
            size_sectors: self.size_sectors.get(),
            data_start_sectors: self.data_start_sectors.get(),
            chunk_sectors: self.chunk_sectors.get(),
            logical_block_bytes: self.logical_block_bytes.get(),
            layout: Layout {
                activity_log_start_bytes: self.activity_log_start_bytes.get(),
                activity_log_bytes: self.activity_log_bytes.get(),
                bitmap_start_bytes: self.bitmap_start_bytes.get(),
                bitmap_peer_bytes: self.bitmap_peer_bytes.get(),
                bitmap_block_bytes: self.bitmap_block_bytes.get(),
                growth_sectors: self.growth_sectors.get(),
                total_bytes: self.metadata_bytes.get(),
            },
            view: self.view()?,
            history: ViewHistory(self.history.map(|mark| ViewMark {
                epoch: Epoch(mark.epoch.get()),
                id: ViewId(mark.id),
            })),
            sealed: Epoch(self.sealed.get()),
            serving: flags & FLAG_SERVING != 0,
            drained: flags & FLAG_DRAINED != 0,
            failed: flags & FLAG_FAILED != 0,
            peer_failed: flags & FLAG_PEER_FAILED != 0,
            invalidated: flags & FLAG_INVALIDATED != 0,
            copy: role.map(|role| CopyRecord {
                id: CopyId(self.copy_id),
                role,
                full: flags & FLAG_COPY_FULL != 0,
            }),
            lineage: CopyId(self.lineage),
            base: ViewMark {
                epoch: Epoch(self.base.epoch.get()),
                id: ViewId(self.base.id),
            },
            member_boots: self.member_boots.map(BootId),
            own_boot: BootId(self.own_boot),
            incarnation: Incarnation(self.incarnation.get()),
            prepared_sectors: self.prepared_sectors.get(),
            backing: BackingId(self.backing),
            record: self.record.record(),
            isolation: Isolation {
                own: (flags & FLAG_ISOLATED != 0).then_some(self.isolated_unix_s.get()),
                peer: (flags & FLAG_PEER_ISOLATED != 0).then_some(self.peer_isolated_unix_s.get()),
            },
        };
        superblock.check()
    }

    fn view(&self) -> Result<View, SlotFault> {
        let active = match self.view_active {
            NOBODY => None,
            number => Some(NodeId::new(number).ok_or(SlotFault::Value("view.active"))?),
        };
        Ok(View {
            epoch: Epoch(self.view_epoch.get()),
            id: ViewId(self.view_id),
            active,
            insync: NodeSet::from_bits(self.view_insync),
        })
    }
}

impl Superblock {
    /// Whether a reader would take it: what it would refuse must not be written, or the copy is lost.
    ///
    /// # Errors
    /// [`SlotFault::Value`] names the field.
    pub fn is_readable(&self) -> Result<(), SlotFault> {
        self.clone().check().map(|_| ())
    }

    fn numbers(&self) -> [u64; 3] {
        [self.sequence, self.view.epoch.0, self.sealed.0]
    }

    fn with_room_to_count(self) -> Result<Self, SlotFault> {
        let high = |number| number > NUMBER_AT_START_MAX;
        if self.numbers().into_iter().any(high) {
            Err(SlotFault::Value("sequence or epoch"))
        } else {
            Ok(self)
        }
    }

    /// One at least, and no more than the activity log keeps apart.
    fn extent_has_whole_blocks(&self) -> bool {
        let extent_bytes = u64::from(self.chunk_sectors) * SECTOR_BYTES;
        let block_bytes = u64::from(self.layout.bitmap_block_bytes);
        (block_bytes..=block_bytes * EXTENT_BLOCKS_MAX).contains(&extent_bytes)
    }

    fn check(self) -> Result<Self, SlotFault> {
        let sane_chunk = self.chunk_sectors.is_power_of_two();
        let sane_block = self.logical_block_bytes.is_power_of_two()
            && (512..=65536).contains(&self.logical_block_bytes);
        let failed = self.failed || self.peer_failed;
        let sane_active = self.view.active_counts() || (failed && self.view.insync.len() == 1);
        if self.numbers().into_iter().any(|number| number > NUMBER_MAX) {
            Err(SlotFault::Value("sequence or epoch"))
        } else if self.node == self.peer {
            Err(SlotFault::Value("peer"))
        } else if !(1..=VOLUME_SECTORS_MAX).contains(&self.size_sectors) {
            Err(SlotFault::Value("size"))
        } else if self.data_start_sectors > VOLUME_SECTORS_MAX || !sane_chunk || !sane_block {
            Err(SlotFault::Value("geometry"))
        } else if !sane_active {
            Err(SlotFault::Value("view.insync"))
        } else if self.isolation.own.is_some() && self.view.insync.contains(self.node) {
            Err(SlotFault::Value("isolated copy that counts"))
        } else if !self.layout.is_possible()
            || (1..self.layout.total_bytes).contains(&(self.data_start_sectors * SECTOR_BYTES))
            || self.size_sectors.max(self.prepared_sectors) > self.layout.growth_sectors
            || !self.extent_has_whole_blocks()
        {
            Err(SlotFault::Value("metadata geometry"))
        } else {
            Ok(self)
        }
    }
}
