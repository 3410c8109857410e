//! Everything the core says to a person: what happened, why, and what to do, with a stable code.
//!
//! `LS1xxx` refusals of commands, `LS2xxx` link and copies, `LS3xxx` disks and metadata.
//! docs/operations.md lists them; a test compares the list with this file.

mod words;

use alloc::format;
use alloc::string::{String, ToString};

use crate::admin::{CopyCause, Problem, VerifyState};
use crate::isolation::{IsolationNotice, IsolationRefusal};
use crate::types::{Epoch, Errno, SectorRange};
use crate::wire::{DecodeError, RefusedCode};
use words::{
    INVALIDATED, PEER_INVALIDATED, cause_words, differs_words, ended_words, refused_advice,
    refused_words, unreadable_words,
};

/// Why a command was not carried out. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The peer serves the volume.
    PeerActive {
        /// Its name.
        peer: String,
    },
    /// The peer's copy counts and the peer does not answer, so that its consent cannot be had.
    PeerSilent {
        /// Its name.
        peer: String,
    },
    /// The link stands: a takeover would be a second writer.
    LinkUp {
        /// The peer's name.
        peer: String,
    },
    /// This copy may lack acknowledged writes (S3, S9).
    CopyNotCurrent {
        /// Whether it is the target of a resync.
        copying: bool,
    },
    /// This copy waits for its first contact.
    Blank {
        /// The peer's name.
        peer: String,
    },
    /// This node did not end its service cleanly and the peer may know more (S10, S11).
    Unclean {
        /// The peer's name.
        peer: String,
    },
    /// The words of the confirmation are missing or others.
    NotConfirmed {
        /// The peer's name.
        peer: String,
    },
    /// The device is mounted or open.
    InUse,
    /// Writes are frozen: a clean end is impossible.
    FrozenWrites {
        /// The peer's name.
        peer: String,
    },
    /// Another command is being carried out.
    Busy,
    /// The peer did not agree.
    PeerRefused {
        /// Its name.
        peer: String,
    },
    /// The connection broke before the answer: the stricter of both views rules.
    Ambiguous {
        /// The peer's name.
        peer: String,
    },
    /// The backing device or the metadata failed.
    DiskFailed,
    /// The ublk device could not be made.
    Device {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The volume is served here: stopping the daemon would take it from its users.
    Serving,
    /// There is nobody to take over from.
    NothingToTakeOver,
    /// A verify runs on the node that serves, or on the first one.
    VerifyElsewhere {
        /// That node.
        node: String,
    },
    /// There are no two copies that count and are connected.
    NothingToVerify {
        /// The peer's name.
        peer: String,
    },
    /// A verify runs already.
    VerifyRuns,
    /// No verify runs.
    NoVerify,
    /// A name that is none of the two nodes.
    NoSuchNode {
        /// What was said.
        name: String,
    },
    /// The copy of a node that serves cannot be given up.
    InvalidateActive {
        /// The peer's name.
        peer: String,
    },
    /// There is no other good copy.
    InvalidateOnlyCopy {
        /// The peer's name.
        peer: String,
    },
    /// The words of the confirmation are not the volume's name.
    InvalidateNotConfirmed,
    /// No copy is to be filled.
    NoResync,
    /// The copy here is the one to be filled: the other node sends.
    ResyncElsewhere {
        /// The other node.
        peer: String,
    },
    /// About isolated copies.
    Isolation(IsolationRefusal),
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PeerActive { .. } => "LS1001",
            Self::PeerSilent { .. } => "LS1002",
            Self::LinkUp { .. } => "LS1003",
            Self::CopyNotCurrent { .. } => "LS1004",
            Self::Blank { .. } => "LS1005",
            Self::Unclean { .. } => "LS1006",
            Self::NotConfirmed { .. } => "LS1007",
            Self::InUse => "LS1008",
            Self::FrozenWrites { .. } => "LS1009",
            Self::Busy => "LS1010",
            Self::PeerRefused { .. } => "LS1011",
            Self::Ambiguous { .. } => "LS1012",
            Self::DiskFailed => "LS1013",
            Self::Device { .. } => "LS1014",
            Self::Serving => "LS1015",
            Self::NothingToTakeOver => "LS1016",
            Self::VerifyElsewhere { .. } => "LS1040",
            Self::NothingToVerify { .. } => "LS1041",
            Self::VerifyRuns => "LS1042",
            Self::NoVerify => "LS1043",
            Self::NoSuchNode { .. } => "LS1044",
            Self::InvalidateActive { .. } => "LS1045",
            Self::InvalidateOnlyCopy { .. } => "LS1046",
            Self::InvalidateNotConfirmed => "LS1047",
            Self::NoResync => "LS1048",
            Self::ResyncElsewhere { .. } => "LS1049",
            Self::Isolation(refusal) => refusal.code(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::PeerActive { peer } => format!("{peer} serves the volume; two nodes never serve it at the same time"),
            Self::PeerSilent { peer } => {
                format!("{peer} does not answer, and its copy counts: it may be serving the volume right now")
            }
            Self::LinkUp { peer } => format!("{peer} is connected and may be serving the volume"),
            Self::CopyNotCurrent { copying: true } => {
                "the copy on this node is still being filled; serving it would show a mixture of old and new data".to_string()
            }
            Self::CopyNotCurrent { copying: false } => {
                "the copy on this node is outdated: writes were acknowledged without it".to_string()
            }
            Self::Blank { peer } => format!("this copy holds nothing yet; it waits for its first contact with {peer}"),
            Self::Unclean { peer } => {
                format!("this node stopped in the middle of its service, and {peer}'s copy may hold newer acknowledged writes")
            }
            Self::NotConfirmed { peer } => {
                format!("a takeover is safe only if {peer} is off; if it still runs, both sides will have different data")
            }
            Self::InUse => "the device is mounted or held open".to_string(),
            Self::FrozenWrites { peer } => format!("writes wait for {peer}; they were not acknowledged and would fail"),
            Self::Busy => "another change of this volume is under way".to_string(),
            Self::PeerRefused { peer } => format!("{peer} did not agree to the change"),
            Self::Ambiguous { peer } => {
                format!("the connection to {peer} broke before its answer; until it is known, the stricter of both views rules")
            }
            Self::DiskFailed => "the backing device or the metadata device failed on this node".to_string(),
            Self::Device { errno } => format!("the block device could not be made (kernel error {})", errno.0),
            Self::Serving => "this node serves the volume".to_string(),
            Self::NothingToTakeOver => "this node's copy is the only one that counts".to_string(),
            Self::VerifyElsewhere { node } => format!("both copies are compared by {node}: it serves the volume, or would be the first to"),
            Self::NothingToVerify { peer } => format!("there are no two copies to compare: {peer} is not connected, or one copy does not count"),
            Self::VerifyRuns => "a verify runs already".to_string(),
            Self::NoVerify => "no verify runs on this node".to_string(),
            Self::NoSuchNode { name } => format!("{name} is neither this node nor the other one"),
            Self::InvalidateActive { .. } => "this node serves the volume".to_string(),
            Self::InvalidateOnlyCopy { peer } => {
                format!("the copy here is the only one that is known to be good: {peer}'s does not count")
            }
            Self::InvalidateNotConfirmed => {
                "the copy here stops to count until all of it is copied again; the volume has one good copy meanwhile".to_string()
            }
            Self::NoResync => "no copy of this volume is being filled, or waits to be".to_string(),
            Self::ResyncElsewhere { peer } => format!("the copy here is the one that is filled; {peer} sends"),
            Self::Isolation(refusal) => refusal.message(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::PeerActive { peer } => {
                format!("to move the volume: on {peer} run `lockstep volume deactivate NAME`, then activate it here")
            }
            Self::PeerSilent { peer } => format!(
                "restore the connection or start the daemon on {peer}; if {peer} is really off, run \
                 `lockstep volume takeover NAME` and confirm it"
            ),
            Self::LinkUp { peer } => {
                format!("to move the volume: on {peer} run `lockstep volume deactivate NAME`, then activate it here")
            }
            Self::CopyNotCurrent { copying: true } => {
                "wait until `lockstep volume status NAME` shows it in sync, or serve it on the other node".to_string()
            }
            Self::CopyNotCurrent { copying: false } => "start the other node and serve the volume there".to_string(),
            Self::Blank { peer } | Self::Unclean { peer } => {
                format!("connect it with {peer}; if {peer} will never come back, `lockstep volume takeover NAME`")
            }
            Self::NotConfirmed { peer } => {
                format!("switch {peer} off, look that it is off, then repeat with --confirm \"{peer} is off\"")
            }
            Self::InUse => "unmount it and stop what uses it; --force takes it away from them with I/O errors".to_string(),
            Self::FrozenWrites { peer } => format!(
                "restore the connection to {peer}; or go on alone with `lockstep volume takeover NAME` if {peer} is off; \
                 or let the writes fail with --force"
            ),
            Self::Busy => "look at `lockstep volume status NAME` and try again".to_string(),
            Self::PeerRefused { peer } => format!("look at `lockstep volume status NAME` on {peer}"),
            Self::Ambiguous { .. } => "wait for the connection, look at the status, then repeat the command".to_string(),
            Self::DiskFailed => "look at the kernel's log; serve the volume on the other node (takeover there)".to_string(),
            Self::Device { .. } => "see that the kernel has ublk_drv (6.8 or later) and look at the kernel's log".to_string(),
            Self::Serving => "run `lockstep volume deactivate NAME` first".to_string(),
            Self::NothingToTakeOver => "run `lockstep volume activate NAME`".to_string(),
            Self::VerifyElsewhere { node } => format!("run the command on {node}"),
            Self::NothingToVerify { .. } => {
                "wait until `lockstep volume status NAME` shows both copies in sync, and the link up".to_string()
            }
            Self::VerifyRuns => "wait for its end, or end it with `lockstep volume verify NAME --stop`".to_string(),
            Self::NoVerify => "look at `lockstep volume status NAME` on the node that serves the volume".to_string(),
            Self::NoSuchNode { .. } => "use the names of the nodes as the status shows them".to_string(),
            Self::InvalidateActive { peer } => {
                format!("run it on the node whose copy shall be filled anew; to give up the copy here, serve the volume on {peer} first")
            }
            Self::InvalidateOnlyCopy { peer } => format!("bring {peer}'s copy up to date first"),
            Self::InvalidateNotConfirmed => "repeat the command with the volume's name: --confirm NAME".to_string(),
            Self::NoResync => "look at `lockstep volume status NAME`".to_string(),
            Self::ResyncElsewhere { peer } => format!("run the command on {peer}"),
            Self::Isolation(refusal) => refusal.advice(),
        }
    }

    /// As the operator gets it.
    pub fn problem(&self) -> Problem {
        Problem {
            code: self.code().to_string(),
            message: self.message(),
            advice: self.advice(),
        }
    }
}

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// An operator-visible change of state.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Error,
}

/// Something that happened, for the log and for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Both sides agreed on a view.
    LinkUp {
        /// The view's epoch.
        epoch: Epoch,
    },
    /// The connection is gone.
    LinkLost,
    /// Writes wait for the peer.
    Frozen,
    /// Writes go on.
    Thawed,
    /// The volume is served here.
    Activated {
        /// Under which epoch.
        epoch: Epoch,
    },
    /// The volume is fenced here.
    Deactivated,
    /// The volume goes on without the peer.
    Alone {
        /// Under which epoch.
        epoch: Epoch,
    },
    /// A resync began.
    CopyStarted {
        /// Why.
        cause: CopyCause,
    },
    /// A resync ended; both copies count.
    CopyFinished {
        /// Under which epoch.
        epoch: Epoch,
    },
    /// We refused the peer.
    RefusedPeer {
        /// Why.
        code: RefusedCode,
        /// Our value where values disagree.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// The peer refused us.
    RefusedByPeer {
        /// Why.
        code: RefusedCode,
        /// Our value where values disagree.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// Bytes from the network that are not our protocol.
    Garbage {
        /// What was wrong.
        error: DecodeError,
    },
    /// Another node took over; this node's service was taken away.
    Deposed {
        /// The other's epoch.
        epoch: Epoch,
    },
    /// The backing device failed here.
    DiskFailed {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The peer's disk failed.
    PeerDiskFailed {
        /// The kernel's answer.
        errno: Errno,
    },
    /// A range could not be read for the resync: it waits, the application goes on.
    CopyReadFailed {
        /// The kernel's answer.
        errno: Errno,
    },
    /// Both copies are being compared.
    VerifyBegan {
        /// Blocks that differ are written.
        repair: bool,
    },
    /// The first block of a verify that differs.
    VerifyDiffers {
        /// Where.
        range: SectorRange,
    },
    /// A verify ended.
    VerifyEnded {
        /// How.
        state: VerifyState,
        /// Blocks that differed.
        differing: u64,
        /// Of those, repaired.
        repaired: u64,
        /// Blocks that could not be read.
        unreadable: u64,
    },
    /// A range could not be read for a verify.
    VerifyUnreadable {
        /// Where.
        range: SectorRange,
        /// The kernel's answer.
        errno: Errno,
        /// On this node, not on the other one.
        here: bool,
    },
    /// An operator marked the copy here: it does not count until all of it was copied.
    Invalidated,
    /// The peer left because an operator marked its copy.
    PeerInvalidated,
    /// An operator paused the resync.
    ResyncPaused,
    /// It goes on.
    ResyncGoesOn,
    /// The metadata could not be written.
    MetadataFailed {
        /// The kernel's answer.
        errno: Errno,
    },
    /// About isolated copies.
    Isolation(IsolationNotice),
}

impl Notice {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::LinkUp { .. } => "LS2001",
            Self::LinkLost => "LS2002",
            Self::Frozen => "LS2003",
            Self::Thawed => "LS2004",
            Self::Activated { .. } => "LS2005",
            Self::Deactivated => "LS2006",
            Self::Alone { .. } => "LS2007",
            Self::CopyStarted { .. } => "LS2008",
            Self::CopyFinished { .. } => "LS2009",
            Self::RefusedPeer { .. } => "LS2010",
            Self::RefusedByPeer { .. } => "LS2011",
            Self::Garbage { .. } => "LS2012",
            Self::Deposed { .. } => "LS2013",
            Self::DiskFailed { .. } => "LS3001",
            Self::PeerDiskFailed { .. } => "LS3002",
            Self::MetadataFailed { .. } => "LS3003",
            Self::CopyReadFailed { .. } => "LS3004",
            Self::VerifyBegan { .. } => "LS2040",
            Self::VerifyDiffers { .. } => "LS2041",
            Self::VerifyEnded { .. } => "LS2042",
            Self::Invalidated => "LS2043",
            Self::PeerInvalidated => "LS2044",
            Self::ResyncPaused => "LS2045",
            Self::ResyncGoesOn => "LS2046",
            Self::VerifyUnreadable { .. } => "LS3045",
            Self::Isolation(notice) => notice.code(),
        }
    }

    /// How loud it is.
    pub fn level(&self) -> Level {
        match self {
            Self::LinkUp { .. }
            | Self::Thawed
            | Self::Activated { .. }
            | Self::Deactivated
            | Self::CopyStarted { .. }
            | Self::VerifyBegan { .. }
            | Self::ResyncGoesOn
            | Self::CopyFinished { .. } => Level::Info,
            Self::VerifyEnded {
                differing: 0,
                unreadable: 0,
                ..
            } => Level::Info,
            Self::VerifyEnded { .. }
            | Self::Invalidated
            | Self::PeerInvalidated
            | Self::ResyncPaused => Level::Warning,
            Self::LinkLost | Self::Alone { .. } | Self::Garbage { .. } | Self::Frozen => {
                Level::Warning
            }
            Self::RefusedPeer { .. }
            | Self::RefusedByPeer { .. }
            | Self::Deposed { .. }
            | Self::DiskFailed { .. }
            | Self::PeerDiskFailed { .. }
            | Self::CopyReadFailed { .. }
            | Self::VerifyDiffers { .. }
            | Self::VerifyUnreadable { .. }
            | Self::MetadataFailed { .. } => Level::Error,
            Self::Isolation(notice) => notice.level(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::LinkUp { epoch } => format!("connected with the peer under epoch {epoch}"),
            Self::LinkLost => "the connection to the peer is gone".to_string(),
            Self::Frozen => {
                "writes are frozen: the peer's copy counts and the peer does not answer".to_string()
            }
            Self::Thawed => "writes go on".to_string(),
            Self::Activated { epoch } => format!("the volume is served here under epoch {epoch}"),
            Self::Deactivated => "the volume is fenced here".to_string(),
            Self::Alone { epoch } => {
                format!("the volume goes on without the peer under epoch {epoch}")
            }
            Self::CopyStarted { cause } => format!("a resync began: {}", cause_words(*cause)),
            Self::CopyFinished { epoch } => {
                format!("the copies are equal; both count from epoch {epoch} on")
            }
            Self::RefusedPeer { code, ours, theirs } => {
                format!("refused the peer: {}", refused_words(*code, *ours, *theirs))
            }
            Self::RefusedByPeer { code, ours, theirs } => {
                format!(
                    "the peer refused this node: {}",
                    refused_words(*code, *ours, *theirs)
                )
            }
            Self::Garbage { error } => {
                format!("closed a connection that does not speak our protocol: {error}")
            }
            Self::Deposed { epoch } => {
                format!(
                    "the other node took over under epoch {epoch}; the device here was taken away, un-acknowledged writes failed"
                )
            }
            Self::DiskFailed { errno } => {
                format!("the backing device failed here (kernel error {})", errno.0)
            }
            Self::PeerDiskFailed { errno } => format!(
                "the peer's backing device failed (kernel error {})",
                errno.0
            ),
            Self::CopyReadFailed { errno } => format!(
                "a range could not be read for the resync (kernel error {}); the resync waits",
                errno.0
            ),
            Self::VerifyBegan { repair: false } => "both copies are being compared".to_string(),
            Self::VerifyBegan { repair: true } => {
                "both copies are being compared, and repaired where they differ".to_string()
            }
            Self::VerifyDiffers { range } => differs_words(*range),
            Self::VerifyEnded {
                state,
                differing,
                repaired,
                unreadable,
            } => ended_words(*state, [*differing, *repaired, *unreadable]),
            Self::VerifyUnreadable { range, errno, here } => unreadable_words(
                *range,
                *errno,
                if *here { "here" } else { "on the other node" },
            ),
            Self::Invalidated => INVALIDATED.to_string(),
            Self::PeerInvalidated => PEER_INVALIDATED.to_string(),
            Self::ResyncPaused => "an operator paused the resync".to_string(),
            Self::ResyncGoesOn => "the resync goes on".to_string(),
            Self::MetadataFailed { errno } => format!(
                "the metadata could not be written (kernel error {})",
                errno.0
            ),
            Self::Isolation(notice) => notice.message(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::LinkUp { .. } | Self::Thawed | Self::Activated { .. } | Self::Deactivated | Self::CopyFinished { .. } => {
                "nothing to do".to_string()
            }
            Self::CopyStarted { .. } => "nothing to do; `lockstep volume status NAME --watch` shows its progress".to_string(),
            Self::LinkLost => "look at the network and at the peer".to_string(),
            Self::Frozen => "restore the connection; or, if the peer is really off, `lockstep volume takeover NAME`".to_string(),
            Self::Alone { .. } => "repair the peer: until it is back there is one good copy".to_string(),
            Self::Garbage { .. } => "see who connects to the mirror port, and close it to strangers".to_string(),
            Self::RefusedPeer { code, .. } | Self::RefusedByPeer { code, .. } => refused_advice(*code).to_string(),
            Self::Deposed { .. } => "unmount what was mounted here; the copy will be brought up to date by itself".to_string(),
            Self::DiskFailed { .. } => "serve the volume on the other node (takeover there), then replace the disk".to_string(),
            Self::PeerDiskFailed { .. } => {
                "the volume goes on without that copy; if it stays frozen, stop the peer's daemon and run `lockstep volume takeover NAME`. Mend or replace the disk, then start the daemon there again: what it missed is copied".to_string()
            }
            Self::CopyReadFailed { .. } => {
                "save what can be read to another volume; the resync is tried again with the next connection".to_string()
            }
            Self::VerifyBegan { .. } => "nothing to do; `lockstep volume status NAME --watch` shows its progress".to_string(),
            Self::VerifyDiffers { .. } => {
                "one of the disks returned other data than it was given: look at both kernels' logs. Decide which copy is right, then `lockstep volume verify NAME --repair`, with `--repair-from NODE` if it is not the one that serves".to_string()
            }
            Self::VerifyEnded { .. } => "`lockstep volume status NAME` lists what was found".to_string(),
            Self::VerifyUnreadable { .. } => {
                "look at the kernel's log there and replace the disk; the other copy is not known to be wrong".to_string()
            }
            Self::Invalidated | Self::PeerInvalidated => {
                "nothing to do: it is copied with the next connection; until then there is one good copy".to_string()
            }
            Self::ResyncPaused => "until `lockstep volume resync NAME --resume` there is one good copy".to_string(),
            Self::ResyncGoesOn => "nothing to do".to_string(),
            Self::MetadataFailed { .. } => "replace the metadata device; the volume does not change its state without it".to_string(),
            Self::Isolation(notice) => notice.advice(),
        }
    }

    /// As the operator gets it.
    pub fn problem(&self) -> Problem {
        Problem {
            code: self.code().to_string(),
            message: self.message(),
            advice: self.advice(),
        }
    }
}
