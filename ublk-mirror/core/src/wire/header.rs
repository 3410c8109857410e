//! The frame header: 64 bytes before every body or payload.

use thiserror::Error;
use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::{CONTROL_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::types::{Epoch, SECTOR_BYTES, SectorRange};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// "LSML": a Lockstep mirror link.
const MAGIC: u32 = u32::from_le_bytes(*b"LSML");
/// Version of the header's layout. It does not change within a major protocol version: a header
/// of another layout is refused with [`DecodeError::Layout`].
const LAYOUT: u8 = 1;

/// Write and write-zeroes: durable before it is acknowledged. Flush: see [`FLAG_DRAIN`].
pub const FLAG_FUA: u16 = 1;
/// Flush: first let everything complete that was received before it (only at joins and checkpoints).
pub const FLAG_DRAIN: u16 = 2;
/// CopyDone: the target had the same already, nothing was sent.
pub const FLAG_EQUAL: u16 = 4;
/// Leave: an operator marked the copy, it shall be filled anew.
pub const FLAG_INVALIDATED: u16 = 8;
/// With a payload: its checksum is the lower half of XXH64 with seed 0, not CRC-32C. Only to a peer that offers
/// [`crate::wire::FEATURE_XXH64`]. For the two ends of the bytes alone: the core never sees it.
pub const FLAG_XXH64: u16 = 16;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Control, before authentication: who speaks ([`crate::wire::Hello`]).
    Hello,
    /// Control, before authentication: proof of the key ([`crate::wire::Auth`]).
    Auth,
    /// Control: the connection is refused ([`crate::wire::Refused`]); allowed at any time.
    Refused,
    /// Control: everything durable that a rejoin is decided on ([`crate::wire::State`]).
    State,
    /// Control: a new view to be made durable ([`crate::wire::Propose`]).
    Propose,
    /// Control: the view is durable, or refused ([`crate::wire::Accept`]).
    Accept,
    /// Control: the standby asks to be dropped from the view, so that it may stop. No body.
    Leave,
    /// Control: the standby asks to be dropped and keeps its copy as it is then; `id`: when its operator
    /// said so, seconds since 1970. Afterwards, with every keepalive: its copy is isolated. No body.
    Isolate,
    /// Control: asks the target for its marks from the word `id` on (64 blocks a word). No body.
    MarksWanted,
    /// Control: some of the target's marks ([`crate::wire::Marks`]).
    Marks,
    /// With a body: the digest of a run of the resync, 32 bytes. Answered by [`Self::CopyDone`] (equal)
    /// or [`Self::CopyWant`].
    CopyHash,
    /// Control: a step of an online grow ([`crate::wire::Grow`]).
    Grow,
    /// Control: the answer to a step of a grow ([`crate::wire::GrowDone`]).
    GrowDone,
    /// Control: what the sender's history is, before [`Self::Refused`] for a split brain
    /// ([`crate::wire::Evidence`]).
    Evidence,
    /// Data with payload: an application's write.
    Write,
    /// Data with payload: a run of a resync.
    CopyWrite,
    /// Discard a range so that it reads as zeroes.
    Discard,
    /// Write zeroes to a range.
    WriteZeroes,
    /// A run of the resync that is all zeroes; answered by [`Self::CopyDone`].
    CopyZeroes,
    /// Make everything that completed durable.
    Flush,
    /// The receiver's copy of a range is wanted, for a read that the sender's disk could not do; `id` is the place
    /// that waits for it. Answered by [`Self::ReadDone`].
    Read,
    /// Answer to Write, Discard, WriteZeroes and Flush: done, or failed with `status`.
    Done,
    /// Answer to CopyWrite, CopyZeroes and CopyHash: the target has the run; [`FLAG_EQUAL`]: it had it.
    CopyDone,
    /// Answer to CopyHash: the target has something else there, send the run.
    CopyWant,
    /// With a body: the digest of a part of a run of a verify, 32 bytes; zero if the part is all zeroes.
    /// Answered by [`Self::VerifyDone`].
    VerifyHash,
    /// Data with payload: a block that a verify found different. To the other side: it is made durable there and
    /// answered by [`Self::VerifyDone`]. From it: the answer to [`Self::VerifyWant`].
    VerifyWrite,
    /// Answer to VerifyHash ([`FLAG_EQUAL`]: the receiver has the same) and to VerifyWrite, or failed with
    /// `status`; 16 (EBUSY) asks for another try.
    VerifyDone,
    /// The other side's block is wanted; answered by [`Self::VerifyWrite`] or a failed [`Self::VerifyDone`].
    VerifyWant,
    /// Answer to Read, with payload; without it if it failed with `status`.
    ReadDone,
    /// Keepalive; `id` is the sender's clock in nanoseconds. Asks for a read lease (S5).
    Ping,
    /// Answer to Ping with the same `id`. Grants the lease.
    Pong,
}

impl FrameKind {
    const ALL: [(u8, Self); 31] = [
        (1, Self::Hello),
        (2, Self::Auth),
        (3, Self::Refused),
        (4, Self::State),
        (5, Self::Propose),
        (6, Self::Accept),
        (7, Self::Leave),
        (8, Self::MarksWanted),
        (9, Self::Marks),
        (10, Self::CopyHash),
        (11, Self::VerifyHash),
        (12, Self::VerifyWrite),
        (13, Self::Grow),
        (14, Self::GrowDone),
        (15, Self::Evidence),
        (16, Self::Write),
        (17, Self::CopyWrite),
        (18, Self::Discard),
        (19, Self::WriteZeroes),
        (20, Self::Flush),
        (21, Self::CopyZeroes),
        (22, Self::Read),
        (24, Self::Done),
        (25, Self::CopyDone),
        (26, Self::CopyWant),
        (27, Self::ReadDone),
        (28, Self::VerifyDone),
        (29, Self::VerifyWant),
        (30, Self::Isolate),
        (32, Self::Ping),
        (33, Self::Pong),
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(code, _)| *code == byte)
            .map(|(_, kind)| *kind)
    }

    fn to_byte(self) -> u8 {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or(0, |(code, _)| *code)
    }

    /// Whether bytes after the header, if there are any, belong into a data buffer.
    pub fn has_payload(self) -> bool {
        matches!(
            self,
            Self::Write | Self::CopyWrite | Self::VerifyWrite | Self::ReadDone
        )
    }

    /// Whether bytes after the header are a control body.
    pub fn has_body(self) -> bool {
        matches!(
            self,
            Self::Hello
                | Self::Auth
                | Self::Refused
                | Self::State
                | Self::Propose
                | Self::Accept
                | Self::Marks
                | Self::CopyHash
                | Self::Grow
                | Self::GrowDone
                | Self::Evidence
                | Self::VerifyHash
        )
    }

    fn has_range(self) -> bool {
        matches!(
            self,
            Self::Write
                | Self::CopyWrite
                | Self::Discard
                | Self::WriteZeroes
                | Self::CopyZeroes
                | Self::CopyHash
                | Self::VerifyHash
                | Self::VerifyWrite
                | Self::VerifyWant
                | Self::Read
                | Self::ReadDone
        )
    }
}

/// A frame without its checksums and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// `FLAG_*`.
    pub flags: u16,
    /// Bytes after the header.
    pub length_bytes: u32,
    /// The view under which it was sent; 0 before a view is agreed on.
    pub epoch: Epoch,
    /// Pairs an answer with its request.
    pub id: u64,
    /// Where on the volume.
    pub range: SectorRange,
    /// Answers: 0 or a positive Linux error number.
    pub status: i32,
}

impl Frame {
    /// A frame without range, status and bytes.
    pub fn new(kind: FrameKind, epoch: Epoch, id: u64) -> Self {
        Self {
            kind,
            flags: 0,
            length_bytes: 0,
            epoch,
            id,
            range: SectorRange::new(0, 0),
            status: 0,
        }
    }
}

/// Why bytes are no frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The first four bytes are not "LSML".
    #[error("not a Lockstep frame (first bytes {0:#010x})")]
    Magic(u32),
    /// A header layout of another version.
    #[error("frame layout {0}, this program knows {LAYOUT}")]
    Layout(u8),
    /// The header's checksum is wrong.
    #[error("frame header damaged")]
    HeaderChecksum,
    /// A kind that this version does not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Reserved bytes are not zero.
    #[error("reserved bytes of the frame header are not zero")]
    Reserved,
    /// The length is over the bound of its kind or disagrees with the range.
    #[error("frame of {length_bytes} bytes where {allowed} are allowed")]
    Length {
        /// What the header says.
        length_bytes: u32,
        /// What is allowed at most.
        allowed: u32,
    },
    /// A range where none belongs, or none where one belongs.
    #[error("frame with an impossible range ({start}+{count})")]
    Range {
        /// First sector.
        start: u64,
        /// Sectors.
        count: u32,
    },
    /// A body is shorter or longer than its kind's.
    #[error("control body of {got} bytes, {expected} expected")]
    Body {
        /// What came.
        got: usize,
        /// What belongs there.
        expected: usize,
    },
    /// A body holds a value that does not exist.
    #[error("control body: {0} has an impossible value")]
    Value(&'static str),
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    magic: U32,
    layout: u8,
    kind: u8,
    flags: U16,
    length_bytes: U32,
    header_crc: U32,
    payload_crc: U32,
    status: I32,
    epoch: U64,
    id: U64,
    sector: U64,
    sectors: U32,
    reserved: [u8; 12],
}

const _: () = assert!(size_of::<HeaderBytes>() == FRAME_HEADER_BYTES);

/// Writes a header; `payload_crc` is CRC-32C over the bytes that follow (0 for none), or what [`FLAG_XXH64`] says.
pub fn encode_header(frame: &Frame, payload_crc: u32) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = HeaderBytes {
        magic: U32::new(MAGIC),
        layout: LAYOUT,
        kind: frame.kind.to_byte(),
        flags: U16::new(frame.flags),
        length_bytes: U32::new(frame.length_bytes),
        header_crc: U32::new(0),
        payload_crc: U32::new(payload_crc),
        status: I32::new(frame.status),
        epoch: U64::new(frame.epoch.0),
        id: U64::new(frame.id),
        sector: U64::new(frame.range.start),
        sectors: U32::new(frame.range.count),
        reserved: [0; 12],
    };
    header.header_crc = U32::new(crate::checksum::crc32c(header.as_bytes()));
    let mut out = [0; FRAME_HEADER_BYTES];
    out.copy_from_slice(header.as_bytes());
    out
}

/// Reads a header and the checksum that its bytes must have.
///
/// Checksum first, then every field; nothing is allocated, so a frame of any length is refused
/// before a byte is reserved for it.
///
/// # Errors
/// [`DecodeError`] says what is wrong; the connection must be closed.
pub fn decode_header(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<(Frame, u32), DecodeError> {
    let mut header =
        HeaderBytes::read_from_bytes(bytes).map_err(|_| DecodeError::HeaderChecksum)?;
    if header.magic.get() != MAGIC {
        return Err(DecodeError::Magic(header.magic.get()));
    }
    if header.layout != LAYOUT {
        return Err(DecodeError::Layout(header.layout));
    }
    let expected = header.header_crc.get();
    header.header_crc = U32::new(0);
    if crate::checksum::crc32c(header.as_bytes()) != expected {
        return Err(DecodeError::HeaderChecksum);
    }
    let kind = FrameKind::from_byte(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    if header.reserved != [0; 12] {
        return Err(DecodeError::Reserved);
    }
    let frame = Frame {
        kind,
        flags: header.flags.get(),
        length_bytes: header.length_bytes.get(),
        epoch: Epoch(header.epoch.get()),
        id: header.id.get(),
        range: SectorRange::new(header.sector.get(), header.sectors.get()),
        status: header.status.get(),
    };
    check_shape(&frame)?;
    Ok((frame, header.payload_crc.get()))
}

fn check_shape(frame: &Frame) -> Result<(), DecodeError> {
    let SectorRange { start, count } = frame.range;
    if frame.kind.has_range() != (count > 0) || start.checked_add(u64::from(count)).is_none() {
        return Err(DecodeError::Range { start, count });
    }
    let length_bytes = frame.length_bytes;
    let allowed = if frame.kind.has_payload() {
        PAYLOAD_BYTES_MAX
    } else if frame.kind.has_body() {
        CONTROL_BYTES_MAX
    } else {
        0
    };
    if length_bytes > allowed {
        return Err(DecodeError::Length {
            length_bytes,
            allowed,
        });
    }
    if frame.kind == FrameKind::ReadDone && frame.status != 0 {
        // What could not be read is not sent.
        return if length_bytes == 0 {
            Ok(())
        } else {
            Err(DecodeError::Length {
                length_bytes,
                allowed: 0,
            })
        };
    }
    if frame.kind.has_payload() && u64::from(length_bytes) != u64::from(count) * SECTOR_BYTES {
        return Err(DecodeError::Range { start, count });
    }
    Ok(())
}

/// CRC-32C of a frame's body or payload.
pub fn payload_crc(bytes: &[u8]) -> u32 {
    if bytes.is_empty() {
        0
    } else {
        crate::checksum::crc32c(bytes)
    }
}
