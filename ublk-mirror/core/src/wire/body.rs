//! Bodies of control frames, fixed sizes, little endian.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::DecodeError;
use crate::limits::{
    BITMAP_BLOCK_BYTES_MAX, CONTROL_BYTES_MAX, NODES_MAX, NUMBER_AT_START_MAX, VIEW_HISTORY_MAX,
    VOLUME_NAME_BYTES_MAX, VOLUME_SECTORS_MAX,
};
use crate::types::{
    BootId, ClusterId, CopyId, Epoch, Incarnation, NodeId, NodeSet, SECTOR_BYTES, ViewId, VolumeId,
};
use crate::view::{View, ViewHistory, ViewMark};

use super::diskless::checked;

/// Words of 64 marks in one Marks frame.
pub const MARKS_WORDS: usize = 125;
/// `next_word` of the last Marks frame.
const NO_MORE: u64 = u64::MAX;
/// `active` of a view in which nobody is.
const NOBODY: u8 = 0xff;

macro_rules! body {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $type:ty,)* } = $size:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub(super) struct $name { $($field: $type,)* }

        const _: () = assert!(size_of::<$name>() == $size && $size <= CONTROL_BYTES_MAX as usize);
    )*};
}

body! {
    struct ViewBytes { epoch: U64, id: [u8; 16], active: u8, insync: u8, reserved: [u8; 6], } = 32;
    struct MarkBytes { epoch: U64, id: [u8; 16], } = 24;
    struct HelloBytes {
        version_min: U16, version_max: U16, node: u8, peer: u8, reserved: [u8; 2], features: U64,
        cluster_id: [u8; 16], nonce: [u8; 32], volume_name: [u8; VOLUME_NAME_BYTES_MAX],
    } = 128;
    struct AuthBytes { proof: [u8; 32], } = 32;
    struct RefusedBytes { code: U16, reserved: [u8; 6], ours: U64, yours: U64, } = 24;
    struct StateBytes {
        volume_id: [u8; 16], size_sectors: U64, sealed: U64, view: ViewBytes,
        flags: U32, logical_block_bytes: U32, copy_id: [u8; 16], lineage: [u8; 16], base: MarkBytes,
        boot: [u8; 16], known_peer_boot: [u8; 16], incarnation: U64, read_lease_ms: U64,
        history: [MarkBytes; VIEW_HISTORY_MAX], prepared_sectors: U64,
    } = 568;
    struct ProposeBytes { view: ViewBytes, purpose: u8, reserved: [u8; 7], copy_id: [u8; 16], volume_id: [u8; 16], } = 72;
    struct MarksBytes {
        first_word: U64, next_word: U64, block_sectors: U32, reserved: U32, words: [U64; MARKS_WORDS],
    } = 1024;
    struct AcceptBytes { view_id: [u8; 16], refused: U32, reserved: U32, } = 24;
}

pub(super) fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::Body {
        got: bytes.len(),
        expected: size_of::<T>(),
    })
}

fn node(byte: u8, what: &'static str) -> Result<NodeId, DecodeError> {
    NodeId::new(byte).ok_or(DecodeError::Value(what))
}

impl MarkBytes {
    pub(super) fn of(mark: ViewMark) -> Self {
        Self {
            epoch: U64::new(mark.epoch.0),
            id: mark.id.0,
        }
    }

    pub(super) fn mark(&self) -> ViewMark {
        ViewMark {
            epoch: Epoch(self.epoch.get()),
            id: ViewId(self.id),
        }
    }
}

impl ViewBytes {
    pub(super) fn of(view: &View) -> Self {
        Self {
            epoch: U64::new(view.epoch.0),
            id: view.id.0,
            active: view.active.map_or(NOBODY, NodeId::number),
            insync: view.insync.bits(),
            reserved: [0; 6],
        }
    }

    pub(super) fn view(&self) -> Result<View, DecodeError> {
        let active = if self.active == NOBODY {
            None
        } else {
            Some(node(self.active, "view.active")?)
        };
        let insync = NodeSet::from_bits(self.insync);
        if self.epoch.get() > NUMBER_AT_START_MAX {
            return Err(DecodeError::Value("view.epoch"));
        }
        if active.is_some_and(|active| !insync.contains(active)) && insync.len() != 1 {
            return Err(DecodeError::Value("view.insync"));
        }
        Ok(View {
            epoch: Epoch(self.epoch.get()),
            id: ViewId(self.id),
            active,
            insync,
        })
    }
}

/// Who speaks; the first frame of both sides, not yet believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest protocol version understood.
    pub version_min: u16,
    /// Newest protocol version understood.
    pub version_max: u16,
    /// Feature bits offered.
    pub features: u64,
    /// Who speaks.
    pub node: NodeId,
    /// Whom it believes to speak to.
    pub peer: NodeId,
    /// The cluster, derived from the key.
    pub cluster_id: ClusterId,
    /// Random, fresh for this connection.
    pub nonce: [u8; 32],
    /// The volume's name, padded with zero bytes.
    pub volume_name: [u8; VOLUME_NAME_BYTES_MAX],
}

impl Hello {
    /// As bytes of a [`crate::wire::FrameKind::Hello`] body.
    pub fn encode(&self) -> [u8; 128] {
        zerocopy::transmute!(HelloBytes {
            version_min: U16::new(self.version_min),
            version_max: U16::new(self.version_max),
            node: self.node.number(),
            peer: self.peer.number(),
            reserved: [0; 2],
            features: U64::new(self.features),
            cluster_id: self.cluster_id.0,
            nonce: self.nonce,
            volume_name: self.volume_name,
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length or node number.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw: HelloBytes = read(bytes)?;
        Ok(Self {
            version_min: raw.version_min.get(),
            version_max: raw.version_max.get(),
            features: raw.features.get(),
            node: node(raw.node, "hello.node")?,
            peer: node(raw.peer, "hello.peer")?,
            cluster_id: ClusterId(raw.cluster_id),
            nonce: raw.nonce,
            volume_name: raw.volume_name,
        })
    }
}

/// Proof that the sender knows the cluster key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Keyed BLAKE3 over role and both hellos.
    pub proof: [u8; 32],
}

impl Auth {
    /// As bytes of an Auth body.
    pub fn encode(&self) -> [u8; 32] {
        self.proof
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw: AuthBytes = read(bytes)?;
        Ok(Self { proof: raw.proof })
    }
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedCode {
    /// No common protocol version.
    Version,
    /// Another cluster, or a wrong key.
    Key,
    /// Another volume name.
    VolumeName,
    /// Not the node that belongs at the other end.
    Node,
    /// A session with this node stands already.
    SecondPeer,
    /// Metadata of another volume.
    VolumeId,
    /// Sizes differ.
    Size,
    /// Both copies wait to be told what the volume is.
    BothBlank,
    /// Two histories that went apart.
    SplitBrain,
    /// This side's disk failed.
    DiskFailed,
    /// This side is in the middle of a takeover or is sealed.
    Busy,
    /// A frame that is not allowed here.
    Protocol,
    /// Neither side holds a copy that counts.
    NoSource,
    /// Logical block sizes differ.
    BlockSize,
    /// Read leases differ.
    Lease,
    /// This side's metadata device failed; the data may be as good as ever.
    MetadataFailed,
}

impl RefusedCode {
    const ALL: [(u16, Self); 16] = [
        (1, Self::Version),
        (2, Self::Key),
        (3, Self::VolumeName),
        (4, Self::Node),
        (5, Self::SecondPeer),
        (6, Self::VolumeId),
        (7, Self::Size),
        (8, Self::BothBlank),
        (9, Self::SplitBrain),
        (10, Self::DiskFailed),
        (11, Self::Busy),
        (12, Self::Protocol),
        (13, Self::NoSource),
        (14, Self::BlockSize),
        (15, Self::Lease),
        (16, Self::MetadataFailed),
    ];
}

/// The connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub code: RefusedCode,
    /// The sender's value, where two values disagree (version, size in sectors).
    pub ours: u64,
    /// The receiver's value as the sender saw it.
    pub yours: u64,
}

impl Refused {
    /// As bytes of a Refused body.
    pub fn encode(&self) -> [u8; 24] {
        let code = RefusedCode::ALL
            .iter()
            .find(|(_, code)| *code == self.code)
            .map_or(0, |(number, _)| *number);
        zerocopy::transmute!(RefusedBytes {
            code: U16::new(code),
            reserved: [0; 6],
            ours: U64::new(self.ours),
            yours: U64::new(self.yours),
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length or code.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw: RefusedBytes = read(bytes)?;
        let code = RefusedCode::ALL
            .iter()
            .find(|(number, _)| *number == raw.code.get());
        let code = code
            .map(|(_, code)| *code)
            .ok_or(DecodeError::Value("refused.code"))?;
        Ok(Self {
            code,
            ours: raw.ours.get(),
            yours: raw.yours.get(),
        })
    }
}

/// What a side says of itself in [`State`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateFlags {
    /// It serves the volume right now (its live device stands).
    pub serving: bool,
    /// It served and did not come to a clean end: in-flight writes may differ (S10).
    pub unclean: bool,
    /// It served, came to a clean end with nothing in flight, but could not tell the receiver.
    pub drained: bool,
    /// Its copy is the unfinished target of the copy `copy_id`.
    pub copy_target: bool,
    /// Its disk failed: it can only be the target of a resync.
    pub failed: bool,
    /// The receiver told it that the receiver's disk failed, and was not filled anew since.
    pub peer_failed: bool,
    /// An operator marked its copy: it is not believed, and filled anew.
    pub invalidated: bool,
    /// Its copy is isolated: it is not filled before its operator attaches it.
    pub isolated: bool,
}

/// Everything that a rejoin is decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// [`VolumeId::NONE`]: a joining copy that holds nothing yet.
    pub volume_id: VolumeId,
    /// Size of the volume; for a joining copy, the size that it offers.
    pub size_sectors: u64,
    /// Logical block size of the backing device, bytes.
    pub logical_block_bytes: u32,
    /// Everything up to this epoch is refused there (S4).
    pub sealed: Epoch,
    /// The durable view.
    pub view: View,
    /// The views before.
    pub history: ViewHistory,
    /// Its condition.
    pub flags: StateFlags,
    /// The resync of `flags.copy_target`.
    pub copy_id: CopyId,
    /// The last resync that it took part in, finished or not.
    pub lineage: CopyId,
    /// The last view in which both copies counted for it.
    pub base: ViewMark,
    /// The boot of the machine.
    pub boot: BootId,
    /// The boot under which it knows the receiver as a member (S11).
    pub known_peer_boot: BootId,
    /// The run of its daemon.
    pub incarnation: Incarnation,
    /// How long its read leases last, milliseconds; must be equal on both sides (S5).
    pub read_lease_ms: u64,
    /// Its backing device holds nothing but durable zeroes from the volume's end up to here: the size of a
    /// grow that was prepared and perhaps interrupted; 0: none.
    pub prepared_sectors: u64,
}

impl State {
    /// As bytes of a State body.
    pub fn encode(&self) -> [u8; 568] {
        let flags = u32::from(self.flags.serving)
            | u32::from(self.flags.unclean) << 1
            | u32::from(self.flags.copy_target) << 2
            | u32::from(self.flags.drained) << 4
            | u32::from(self.flags.failed) << 5
            | u32::from(self.flags.peer_failed) << 6
            | u32::from(self.flags.invalidated) << 7
            | u32::from(self.flags.isolated) << 9;
        zerocopy::transmute!(StateBytes {
            volume_id: self.volume_id.0,
            size_sectors: U64::new(self.size_sectors),
            sealed: U64::new(self.sealed.0),
            view: ViewBytes::of(&self.view),
            flags: U32::new(flags),
            logical_block_bytes: U32::new(self.logical_block_bytes),
            copy_id: self.copy_id.0,
            lineage: self.lineage.0,
            base: MarkBytes::of(self.base),
            boot: self.boot.0,
            known_peer_boot: self.known_peer_boot.0,
            incarnation: U64::new(self.incarnation.0),
            read_lease_ms: U64::new(self.read_lease_ms),
            history: self.history.0.map(MarkBytes::of),
            prepared_sectors: U64::new(self.prepared_sectors),
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length or an impossible view.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw: StateBytes = read(bytes)?;
        let flags = raw.flags.get();
        if raw.sealed.get() > NUMBER_AT_START_MAX {
            return Err(DecodeError::Value("state.sealed"));
        }
        if !(1..=VOLUME_SECTORS_MAX).contains(&raw.size_sectors.get()) {
            return Err(DecodeError::Value("state.size_sectors"));
        }
        if raw.prepared_sectors.get() > VOLUME_SECTORS_MAX {
            return Err(DecodeError::Value("state.prepared_sectors"));
        }
        Ok(Self {
            volume_id: VolumeId(raw.volume_id),
            size_sectors: raw.size_sectors.get(),
            logical_block_bytes: raw.logical_block_bytes.get(),
            sealed: Epoch(raw.sealed.get()),
            view: checked(raw.view.view()?, flags & 96 != 0)?,
            history: ViewHistory(raw.history.map(|mark| mark.mark())),
            flags: StateFlags {
                serving: flags & 1 != 0,
                unclean: flags & 2 != 0,
                copy_target: flags & 4 != 0,
                drained: flags & 16 != 0,
                failed: flags & 32 != 0,
                peer_failed: flags & 64 != 0,
                invalidated: flags & 128 != 0,
                isolated: flags & 512 != 0,
            },
            copy_id: CopyId(raw.copy_id),
            lineage: CopyId(raw.lineage),
            base: raw.base.mark(),
            boot: BootId(raw.boot),
            known_peer_boot: BootId(raw.known_peer_boot),
            incarnation: Incarnation(raw.incarnation.get()),
            read_lease_ms: raw.read_lease_ms.get(),
            prepared_sectors: raw.prepared_sectors.get(),
        })
    }
}

/// What a proposed view is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Both sides come together again after a handshake.
    Settle,
    /// The sender wants to serve the volume.
    Activate,
    /// The sender has stopped serving: everything is on both copies and flushed.
    Deactivate,
    /// The receiver asked to be dropped.
    Leave,
    /// The receiver's copy is equal and flushed; the sender already demands its answer (S9).
    Widen,
    /// The sender's disk failed: it serves on through the receiver, whose copy alone counts (S2).
    Diskless,
}

impl Purpose {
    const ALL: [(u8, Self); 6] = [
        (1, Self::Settle),
        (2, Self::Activate),
        (3, Self::Deactivate),
        (4, Self::Leave),
        (5, Self::Widen),
        (6, Self::Diskless),
    ];
}

/// A view that the receiver shall make durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propose {
    /// The view.
    pub view: View,
    /// What for.
    pub purpose: Purpose,
    /// If the receiver is not in `view.insync`: the resync that it becomes the target of.
    pub copy_id: CopyId,
    /// The volume, for a joining copy.
    pub volume_id: VolumeId,
}

impl Propose {
    /// As bytes of a Propose body.
    pub fn encode(&self) -> [u8; 72] {
        let purpose = Purpose::ALL
            .iter()
            .find(|(_, p)| *p == self.purpose)
            .map_or(0, |(number, _)| *number);
        zerocopy::transmute!(ProposeBytes {
            view: ViewBytes::of(&self.view),
            purpose,
            reserved: [0; 7],
            copy_id: self.copy_id.0,
            volume_id: self.volume_id.0,
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length, purpose or view.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw: ProposeBytes = read(bytes)?;
        let purpose = Purpose::ALL
            .iter()
            .find(|(number, _)| *number == raw.purpose);
        Ok(Self {
            view: checked(raw.view.view()?, raw.purpose == 6)?,
            purpose: purpose
                .map(|(_, purpose)| *purpose)
                .ok_or(DecodeError::Value("propose.purpose"))?,
            copy_id: CopyId(raw.copy_id),
            volume_id: VolumeId(raw.volume_id),
        })
    }
}

/// Some of a target's marks: blocks where its copy may differ from what it was when it counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Which word of 64 blocks comes first.
    pub first_word: u64,
    /// The next word that holds marks, after those that are sent here; `None`: there are no more.
    pub next_word: Option<u64>,
    /// Sectors of a block, as the sender counts them.
    pub block_sectors: u32,
    /// The marks, the lowest block in the lowest bit.
    pub words: [u64; MARKS_WORDS],
}

impl Marks {
    /// As bytes of a Marks body.
    pub fn encode(&self) -> [u8; 1024] {
        zerocopy::transmute!(MarksBytes {
            first_word: U64::new(self.first_word),
            next_word: U64::new(self.next_word.unwrap_or(NO_MORE)),
            block_sectors: U32::new(self.block_sectors),
            reserved: U32::new(0),
            words: self.words.map(U64::new),
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length, a block size that does not exist, a place that no volume has, or a next word
    /// that would go round in circles.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw: MarksBytes = read(bytes)?;
        let block_sectors = raw.block_sectors.get();
        let block_bytes = u64::from(block_sectors) * SECTOR_BYTES;
        if !block_sectors.is_power_of_two() || block_bytes > BITMAP_BLOCK_BYTES_MAX.into() {
            return Err(DecodeError::Value("marks.block_sectors"));
        }
        let first_word = raw.first_word.get();
        if first_word > VOLUME_SECTORS_MAX {
            return Err(DecodeError::Value("marks.first_word"));
        }
        let next_word = Some(raw.next_word.get()).filter(|next| *next != NO_MORE);
        if next_word.is_some_and(|next| next < first_word + MARKS_WORDS as u64) {
            return Err(DecodeError::Value("marks.next_word"));
        }
        Ok(Self {
            first_word,
            next_word,
            block_sectors,
            words: raw.words.map(U64::get),
        })
    }
}

/// Answer to [`Propose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The proposed view's id: an answer counts only for what was asked.
    pub view_id: ViewId,
    /// Whether the receiver refused; then nothing changed there.
    pub refused: bool,
}

impl Accept {
    /// As bytes of an Accept body.
    pub fn encode(&self) -> [u8; 24] {
        zerocopy::transmute!(AcceptBytes {
            view_id: self.view_id.0,
            refused: U32::new(u32::from(self.refused)),
            reserved: U32::new(0),
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw: AcceptBytes = read(bytes)?;
        Ok(Self {
            view_id: ViewId(raw.view_id),
            refused: raw.refused.get() != 0,
        })
    }
}

const _: () = assert!(NODES_MAX == 8, "insync is one byte");
