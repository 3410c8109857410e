//! What the shell tells the core. Closed: a new kind of happening is a new variant here.

use crate::admin::Command;
use crate::keys::Keys;
use crate::types::{Errno, SectorRange, SessionId, Tag};
use crate::wire::Frame;

/// What an application asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Read into the tag's buffer.
    Read,
    /// Write from the tag's buffer.
    Write,
    /// Make every write that completed before this request durable (S1).
    Flush,
    /// The range's content is not needed any more; it reads as zeroes afterwards.
    Discard,
    /// The range reads as zeroes afterwards.
    WriteZeroes,
}

/// One request of the ublk queue. Its payload, if any, lies in the tag's buffer and does not
/// change until the core has completed the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The queue slot.
    pub tag: Tag,
    /// What is asked.
    pub kind: RequestKind,
    /// Where; empty for [`RequestKind::Flush`].
    pub range: SectorRange,
    /// Force unit access: durable before it is acknowledged.
    pub fua: bool,
}

/// Whose disk operation it was. Each owner has at most one operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IoOwner {
    /// The request with this tag; its buffer is the tag's.
    Application(Tag),
    /// What the peer asked for; the slot of the shell's receive buffer (or of no buffer).
    Peer(u16),
    /// A run of a resync, by its slot in the pool of copy buffers: what the source sends, or what a target
    /// compares.
    Copy(u16),
    /// The core's own flush before a change of view.
    ViewFlush,
    /// The core's own flush, so that extents may leave the activity log.
    LogFlush,
    /// A read that the peer asked for, by its slot in the pool of buffers for that.
    Serve(u16),
    /// Zeroes on the area behind the volume's end, and their flush, before a grow.
    Grow,
}

/// What became of the read-only device of an isolated copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolatedEvent {
    /// It answers reads and its name points to it.
    Started,
    /// It is gone for ever.
    Stopped,
    /// It could not be started.
    Failed {
        /// Why.
        errno: Errno,
    },
    /// It was not stopped because it is in use (only without `force`).
    Busy,
}

/// Result of one disk operation.
pub type DiskResult = Result<(), Errno>;

/// BLAKE3 of what a copy buffer holds.
pub type Digest = [u8; 32];

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it or the network failed.
    Lost,
    /// Nothing was heard for the link timeout.
    Silent,
    /// The handshake took longer than its limit.
    HandshakeTooSlow,
    /// Bytes that are not a frame of this protocol, or a frame out of place.
    Garbage,
    /// The core ended it (its own reason was told in a notice).
    Local,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Time has passed; due at [`crate::volume::Volume::deadline`] at the latest.
    Tick,
    /// The kernel handed over a request.
    Request(Request),
    /// A disk operation asked for by [`crate::effect::Effect::Disk`] ended. The end of one that was given up
    /// ([`crate::effect::Effect::Abandon`]) is not reported.
    DiskDone {
        /// Whose it was.
        owner: IoOwner,
        /// How it ended. A failed flush is never retried (S1).
        result: DiskResult,
    },
    /// What is in a copy buffer ([`crate::effect::Effect::Examine`]).
    Examined {
        /// The copy buffer.
        slot: u16,
        /// Whether it is all zeroes.
        zero: bool,
        /// Its digest, if one was wanted.
        digest: Option<Digest>,
    },
    /// Superblock `sequence` is durable in both places.
    Persisted {
        /// The superblock's sequence number.
        sequence: u64,
    },
    /// A block asked for by [`crate::effect::Effect::WriteBlock`] is durable.
    BlockWritten {
        /// The block's number.
        id: u64,
    },
    /// Metadata could not be made durable: the core writes none any more, and stops everything that the peer cannot
    /// carry. What was asked for before and is
    /// not reported is not reported any more.
    PersistFailed {
        /// What the metadata device answered.
        errno: Errno,
    },
    /// The mark asked for by [`crate::effect::Effect::Disown`] is there, or cannot be kept.
    Disowned {
        /// Whether a later run of this boot will find it.
        kept: bool,
    },
    /// How large the backing device is now ([`crate::effect::Effect::MeasureBacking`]).
    BackingMeasured {
        /// The number of the question.
        id: u64,
        /// Whole sectors of the device, what lies before the data included.
        sectors: Result<u64, Errno>,
    },
    /// A TCP connection to or from the peer's address stands; nothing was sent on it yet.
    SessionOpened {
        /// The shell's number for it.
        session: SessionId,
        /// Whether this node dialled.
        dialled: bool,
    },
    /// A frame arrived whole; header and payload checksums were right.
    Received {
        /// On which connection.
        session: SessionId,
        /// The frame's header.
        frame: Frame,
        /// The body of a control frame; empty for data frames.
        body: &'a [u8],
        /// The receive buffer slot that holds the payload of a data frame. The core gives it back
        /// with [`crate::effect::Effect::ReleaseBuffer`] exactly once.
        buffer: Option<u16>,
    },
    /// The connection is gone *and* no socket operation of it is in flight any more.
    SessionClosed {
        /// Which one.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// The live ublk device answers I/O and its name points to it.
    DeviceStarted,
    /// The live ublk device is gone for ever; the fenced one has its name.
    DeviceStopped,
    /// The live device could not be started.
    DeviceFailed {
        /// Why.
        errno: Errno,
    },
    /// The live device was not stopped because it is in use (only without `force`).
    DeviceBusy,
    /// The wall clock was read: only the record of operations and the figures of a split brain use it (S6).
    /// The shell hands it in at start, with every connection and before every command.
    WallClock {
        /// Seconds since 1970.
        unix_s: u64,
    },
    /// The cluster's secrets were rotated by a step: from now on these count, also in a handshake that has begun. A connection
    /// that stands goes on. Ignored if they are another cluster's.
    Keys(Keys),
    /// The read-only device of this node's isolated copy. It and the live device never exist together:
    /// its requests come as [`Event::Request`] too.
    Isolated(IsolatedEvent),
    /// An operator's command; answered by [`crate::effect::Effect::Reply`] with the same number.
    Operator {
        /// The shell's number for it.
        command_id: u64,
        /// What is asked.
        command: Command,
    },
}
