//! What the core asks of the shell. The shell executes effects in their order and decides nothing.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::admin::{Notice, Outcome};
use crate::disk::{BLOCK_BYTES, Superblock};
use crate::event::IoOwner;
use crate::types::{Errno, SectorRange, SessionId, Tag};
use crate::wire::Frame;

/// A disk operation on the backing device (volume addresses; the shell adds the data offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// Read the range into the owner's buffer.
    Read,
    /// Write the range from the owner's buffer; with `fua` it is durable when done.
    Write {
        /// Durable when done (`RWF_DSYNC`).
        fua: bool,
    },
    /// Make everything that was written and had completed before durable.
    Flush,
    /// Discard so that the range surely reads as zeroes, or write zeroes.
    Discard,
    /// Make the range read as zeroes; durable when done with `fua`.
    WriteZeroes {
        /// Durable when done.
        fua: bool,
    },
}

/// Which buffer a frame's payload is sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadSource {
    /// The buffer of an application request.
    Application(Tag),
    /// A copy buffer.
    Copy(u16),
    /// A buffer of what was read for the peer.
    Serve(u16),
}

/// What to do with the ublk device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCommand {
    /// Make a fresh device that serves I/O and point the stable name to it (S12).
    StartLive,
    /// Take the live device away for ever; unless `force`, only if nobody uses it.
    StopLive {
        /// Also when it is in use: the application's view of it stays dead (S12).
        force: bool,
    },
    /// The live device shall show this size, larger than before. Not answered: a kernel that cannot do that
    /// leaves the device as it is until the next activation.
    ResizeLive {
        /// The volume's size.
        size_sectors: u64,
    },
    /// Make a fresh read-only device for the isolated copy, with a name of its own (S12).
    StartIsolated,
    /// Take that device away for ever; unless `force`, only if nobody uses it.
    StopIsolated {
        /// Also when it is in use.
        force: bool,
    },
}

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Answer a request of the ublk queue. On success the shell reports the request's full length.
    Complete {
        /// The request.
        tag: Tag,
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// Start a disk operation.
    Disk {
        /// Whose it is, and thereby which buffer.
        owner: IoOwner,
        /// What to do.
        operation: DiskOperation,
        /// Where; empty for a flush.
        range: SectorRange,
    },
    /// The operation of this owner has not ended within the limit and is given up. The kernel may still carry
    /// it out at any later time: the shell hands its memory to nobody before it has ended, and does not
    /// report that end. Follows on one [`Effect::Disk`] exactly once, in place of its
    /// [`crate::event::Event::DiskDone`]; the disk is asked for nothing more.
    Abandon {
        /// Whose it is.
        owner: IoOwner,
    },
    /// The same for the metadata: the write under way is given up, those that wait for it are forgotten.
    /// Nothing newer may be written before it has ended.
    AbandonMetadata,
    /// The metadata failed, and what they say is not true any more: keep a mark outside of their device, at least until
    /// the machine boots, that makes the next run of the daemon take this copy for one whose disk failed (S1). Then
    /// report [`crate::event::Event::Disowned`].
    Disown,
    /// Requests fail of which one copy may have something that the other one has not, and the metadata, which failed,
    /// cannot say so: keep a mark like that of [`Self::Disown`] before any later effect is carried out. The next run of the
    /// daemon takes the live device for one under which writes were thrown away: it ends it, and what may differ is
    /// copied (S7, S10). A mark of [`Self::Disown`] says more and stays.
    DisownWrites,
    /// The peer is asked to go on alone, and the metadata, which failed, cannot say so: keep a mark like that of
    /// [`Self::Disown`] before any later effect is carried out. The next run takes no arbiter's grant before both nodes have
    /// met, as after a boot: the peer may have agreed, and serve (S8, S11). The copy counts as before.
    DisownMembership,
    /// Look at what was read into a copy buffer, then report [`crate::event::Event::Examined`].
    Examine {
        /// The copy buffer.
        slot: u16,
        /// What was read, from the buffer's beginning.
        range: SectorRange,
        /// Whether a digest is wanted; otherwise only whether it is all zeroes.
        digest: bool,
    },
    /// Make this superblock durable in both places, then report [`crate::event::Event::Persisted`].
    Persist(Box<Superblock>),
    /// Make this block of the activity log or of a bitmap durable, after everything of the metadata
    /// that was asked for before, then report [`crate::event::Event::BlockWritten`].
    WriteBlock {
        /// Its number; not used twice.
        id: u64,
        /// Where in the metadata area.
        offset_bytes: u64,
        /// Its bytes.
        block: Box<[u8; BLOCK_BYTES]>,
    },
    /// Send a frame on a connection. The core leaves both checksums to the shell's encoder.
    Send {
        /// Which connection.
        session: SessionId,
        /// The header.
        frame: Frame,
        /// Body of a control frame.
        body: Vec<u8>,
        /// Payload of a data frame, of `frame.range` length.
        payload: Option<PayloadSource>,
    },
    /// Close a connection once what was sent before has gone out (bounded time).
    Close {
        /// Which one.
        session: SessionId,
    },
    /// The receive buffer of this slot is free again.
    ReleaseBuffer {
        /// The slot.
        slot: u16,
    },
    /// Copy what a receive buffer holds to the buffer of an application request.
    FillRequest {
        /// The request.
        tag: Tag,
        /// The receive buffer's slot.
        slot: u16,
        /// How much, from both buffers' beginning.
        range: SectorRange,
    },
    /// Look how large the backing device is now, and use all of it from now on; then report
    /// [`crate::event::Event::BackingMeasured`].
    MeasureBacking {
        /// The number of the question.
        id: u64,
    },
    /// Change the ublk device.
    Device(DeviceCommand),
    /// Answer an operator's command.
    Reply {
        /// Its number.
        command_id: u64,
        /// The answer.
        outcome: Outcome,
    },
    /// Tell the operator (log; later: alerts).
    Notice(Notice),
    /// Everything durable is done: the process may end.
    Exit,
}

/// The effects of one event, in the order in which they must begin.
pub type Effects = Vec<Effect>;
