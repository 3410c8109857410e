//! Everything the core says to a person: what happened, why, and what to do, with a stable code.
//!
//! `LS1xxx` refusals of commands, `LS2xxx` link and copies, `LS3xxx` disks and metadata.
//! docs/operations.md lists them; a test compares the list with this file.

use alloc::format;
use alloc::string::{String, ToString};

use crate::admin::{CopyCause, Problem};
use crate::isolation::{IsolationNotice, IsolationRefusal};
use crate::types::{Epoch, Errno};
use crate::wire::{DecodeError, RefusedCode};

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
            | Self::CopyFinished { .. } => Level::Info,
            Self::LinkLost | Self::Alone { .. } | Self::Garbage { .. } | Self::Frozen => {
                Level::Warning
            }
            Self::RefusedPeer { .. }
            | Self::RefusedByPeer { .. }
            | Self::Deposed { .. }
            | Self::DiskFailed { .. }
            | Self::PeerDiskFailed { .. }
            | Self::CopyReadFailed { .. }
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

fn cause_words(cause: CopyCause) -> &'static str {
    match cause {
        CopyCause::FirstCopy => "the peer's copy never held this volume",
        CopyCause::Outdated => "the peer missed acknowledged writes",
        CopyCause::UnknownState => {
            "what the peer's copy lacks is not known, so all of it is copied"
        }
        CopyCause::MemberRebooted => {
            "the peer's machine rebooted and may lack what it had not flushed"
        }
        CopyCause::ActiveCrashed => "the active node stopped in the middle of its service",
        CopyCause::ActiveRebooted => {
            "the active node rebooted and may lack what it had not flushed"
        }
        CopyCause::WideningInterrupted => "the connection broke when the copy was nearly done",
        CopyCause::DiskFailed => "the peer's disk had failed",
        CopyCause::Resumed => "an interrupted copy goes on where it was",
    }
}

fn refused_words(code: RefusedCode, ours: u64, theirs: u64) -> String {
    match code {
        RefusedCode::Version => {
            format!("no common protocol version (ours {ours}, theirs {theirs})")
        }
        RefusedCode::Key => "the cluster keys differ".to_string(),
        RefusedCode::VolumeName => "the volume names differ".to_string(),
        RefusedCode::Node => format!("node numbers do not fit (ours {ours}, theirs {theirs})"),
        RefusedCode::SecondPeer => {
            "another process with the same node number is connected already".to_string()
        }
        RefusedCode::VolumeId => "its metadata belongs to another volume".to_string(),
        RefusedCode::Size => format!(
            "sizes differ: ours {} bytes, theirs {} bytes",
            ours.saturating_mul(512),
            theirs.saturating_mul(512)
        ),
        RefusedCode::BothBlank => {
            "both copies wait to be filled; neither holds the volume".to_string()
        }
        RefusedCode::SplitBrain => {
            format!("split brain: both sides went on alone (epochs {ours} and {theirs})")
        }
        RefusedCode::DiskFailed => "its disk failed".to_string(),
        RefusedCode::Busy => "a takeover is under way".to_string(),
        RefusedCode::Protocol => "a frame came that does not belong there".to_string(),
        RefusedCode::NoSource => "neither side holds a copy that counts".to_string(),
        RefusedCode::BlockSize => {
            format!("logical block sizes differ: ours {ours} bytes, theirs {theirs} bytes")
        }
        RefusedCode::Lease => format!("read leases differ: ours {ours} ms, theirs {theirs} ms"),
    }
}

fn refused_advice(code: RefusedCode) -> &'static str {
    match code {
        RefusedCode::Version => "install versions of Lockstep that are at most one apart",
        RefusedCode::Key => "put the same cluster key file on both nodes and restart the daemon",
        RefusedCode::VolumeName | RefusedCode::Node => {
            "compare `node`, `peer` and `volume` in both configuration files"
        }
        RefusedCode::SecondPeer => "find the cloned machine or the second daemon and stop it",
        RefusedCode::VolumeId => {
            "both sides were created as first copies, or a disk was swapped; create the copy to be discarded anew with --join"
        }
        RefusedCode::Size => {
            "use backing devices of the same usable size, or create the smaller side with --size"
        }
        RefusedCode::BothBlank => "create the side that holds the data without --join",
        RefusedCode::SplitBrain => {
            "decide whose data to keep; on the other side create the volume anew with --join (its own writes are lost)"
        }
        RefusedCode::DiskFailed => {
            "replace the disk there, then create the volume anew with --join"
        }
        RefusedCode::Busy => "wait; it is tried again",
        RefusedCode::Protocol => "look at the versions of both sides and report it",
        RefusedCode::BlockSize => "use disks with the same logical block size on both nodes",
        RefusedCode::Lease => "set `read_lease_ms` to the same value on both nodes",
        RefusedCode::NoSource => {
            "bring back the node whose copy was last in use; status shows the view of each side"
        }
    }
}
