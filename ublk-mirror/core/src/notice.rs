//! Everything the core says to a person: what happened, why, and what to do, with a stable code.
//!
//! `LS1xxx` refusals of commands, `LS2xxx` link and copies, `LS3xxx` disks and metadata.
//! docs/operations.md lists them; a test compares the list with this file.

mod disk;
mod grant;
mod refusals;
mod stuck;
mod upkeep;
mod words;

pub use disk::DiskNotice;
pub use grant::GrantRefusal;
pub use stuck::StuckNotice;
pub use upkeep::UpkeepNotice;

use alloc::format;
use alloc::string::{String, ToString};

use crate::admin::{CopyCause, Problem, utc};
use crate::isolation::{IsolationNotice, IsolationRefusal};
use crate::types::{Epoch, Errno};
use crate::wire::{DecodeError, RefusedCode};
use words::{cause_words, deposed_words, refused_advice, refused_words};

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
    /// What an arbiter granted does not hold here.
    Grant(GrantRefusal),
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
    /// A grow needs both copies to count.
    GrowNeedsBoth {
        /// The peer's name.
        peer: String,
    },
    /// A volume never shrinks.
    GrowShrinks {
        /// Its size.
        size_bytes: u64,
    },
    /// A size that is no multiple of a block.
    GrowUneven {
        /// The block.
        block_bytes: u64,
    },
    /// A backing device, or the metadata's reserve, is too small.
    GrowNoRoom {
        /// On which node.
        node: String,
        /// The largest volume that it has room for.
        room_bytes: u64,
    },
    /// The backing device could not be measured.
    GrowNotMeasured {
        /// The kernel's answer.
        errno: Errno,
    },
    /// Something else changed while a grow was being prepared.
    GrowInterrupted,
    /// The two nodes have not met with two histories.
    NoSplitBrain {
        /// The peer's name.
        peer: String,
    },
    /// A history is discarded on the node whose copy it is.
    DiscardElsewhere {
        /// Whose copy was named.
        wanted: String,
        /// This node's name.
        node: String,
    },
    /// The volume's name was not repeated.
    NotNamed {
        /// Its name.
        volume: String,
    },
    /// This copy can be served as it is.
    Promotable {
        /// It is the only one that counts.
        alone: bool,
    },
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
            Self::Grant(refusal) => refusal.code(),
            Self::InUse => "LS1008",
            Self::FrozenWrites { .. } => "LS1009",
            Self::Busy => "LS1010",
            Self::PeerRefused { .. } => "LS1011",
            Self::Ambiguous { .. } => "LS1012",
            Self::DiskFailed => "LS1013",
            Self::Device { .. } => "LS1014",
            Self::Serving => "LS1015",
            Self::NothingToTakeOver => "LS1016",
            Self::GrowNeedsBoth { .. } => "LS1050",
            Self::GrowShrinks { .. } => "LS1051",
            Self::GrowUneven { .. } => "LS1052",
            Self::GrowNoRoom { .. } => "LS1053",
            Self::GrowNotMeasured { .. } => "LS1054",
            Self::GrowInterrupted => "LS1055",
            Self::NoSplitBrain { .. } => "LS1060",
            Self::DiscardElsewhere { .. } => "LS1061",
            Self::NotNamed { .. } => "LS1062",
            Self::Promotable { .. } => "LS1063",
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
    /// A range could not be read for the resync: the rest is copied, and it is tried again.
    CopyReadFailed {
        /// The kernel's answer.
        errno: Errno,
        /// What could not be read so far.
        bytes: u64,
    },
    /// The metadata could not be written.
    MetadataFailed {
        /// The kernel's answer.
        errno: Errno,
    },
    /// One of two paths of the mirror link does not work; the other one carries the session.
    PathLost {
        /// 1 or 2.
        number: u8,
        /// Address of this node.
        local: String,
        /// Address of the other node.
        remote: String,
    },
    /// Such a path works again.
    PathBack {
        /// 1 or 2.
        number: u8,
        /// Address of this node.
        local: String,
        /// Address of the other node.
        remote: String,
    },
    /// The volume is larger now.
    Grown {
        /// Its size.
        size_bytes: u64,
    },
    /// The live device shows the size from before a grow.
    DeviceSmaller {
        /// What it shows.
        device_bytes: u64,
        /// The volume's size.
        size_bytes: u64,
    },
    /// An operator discarded the history of the copy here.
    Discarded {
        /// Under which epoch.
        epoch: Epoch,
    },
    /// An operator made the copy here, which was not complete, the only one that counts.
    Forced {
        /// When, seconds since 1970; 0: not known.
        at_s: u64,
    },
    /// About isolated copies.
    Isolation(IsolationNotice),
    /// About comparing, marking and pausing.
    Upkeep(UpkeepNotice),
    /// About disks that do not answer.
    Stuck(StuckNotice),
    /// About reads that a disk could not do.
    Disk(DiskNotice),
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
            Self::PathLost { .. } => "LS2070",
            Self::PathBack { .. } => "LS2071",
            Self::Grown { .. } => "LS2050",
            Self::DeviceSmaller { .. } => "LS2051",
            Self::Discarded { .. } => "LS2060",
            Self::Forced { .. } => "LS2061",
            Self::Isolation(notice) => notice.code(),
            Self::Upkeep(notice) => notice.code(),
            Self::Stuck(notice) => notice.code(),
            Self::Disk(notice) => notice.code(),
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
            | Self::Grown { .. }
            | Self::DeviceSmaller { .. }
            | Self::PathBack { .. }
            | Self::CopyFinished { .. } => Level::Info,
            Self::LinkLost
            | Self::Alone { .. }
            | Self::Garbage { .. }
            | Self::Frozen
            | Self::Discarded { .. }
            | Self::PathLost { .. } => Level::Warning,
            Self::RefusedPeer { .. }
            | Self::RefusedByPeer { .. }
            | Self::Deposed { .. }
            | Self::DiskFailed { .. }
            | Self::PeerDiskFailed { .. }
            | Self::CopyReadFailed { .. }
            | Self::Forced { .. }
            | Self::MetadataFailed { .. } => Level::Error,
            Self::Isolation(notice) => notice.level(),
            Self::Upkeep(notice) => notice.level(),
            Self::Stuck(notice) => notice.level(),
            Self::Disk(notice) => notice.level(),
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
            Self::Deposed { epoch } => deposed_words(*epoch),
            Self::DiskFailed { errno } => {
                format!("the backing device failed here (kernel error {})", errno.0)
            }
            Self::PeerDiskFailed { errno } => format!(
                "the peer's backing device failed (kernel error {})",
                errno.0
            ),
            Self::CopyReadFailed { errno, bytes } => format!(
                "{bytes} bytes could not be read for the resync (kernel error {}); the rest is copied, and they are tried again",
                errno.0
            ),
            Self::MetadataFailed { errno } => format!(
                "the metadata could not be written (kernel error {})",
                errno.0
            ),
            Self::PathLost {
                number,
                local,
                remote,
            } => path_words(*number, "does not work", local, remote, ALONE),
            Self::PathBack {
                number,
                local,
                remote,
            } => path_words(*number, "works again", local, remote, ""),
            Self::Grown { size_bytes } => format!("the volume has {size_bytes} bytes now"),
            Self::DeviceSmaller {
                device_bytes,
                size_bytes,
            } => format!(
                "the live device still shows {device_bytes} bytes, the volume has {size_bytes}"
            ),
            Self::Discarded { epoch } => format!(
                "the history of the copy here was discarded by an operator under epoch {epoch}"
            ),
            Self::Forced { at_s } => forced_words(*at_s),
            Self::Isolation(notice) => notice.message(),
            Self::Upkeep(notice) => notice.message(),
            Self::Stuck(notice) => notice.message(),
            Self::Disk(notice) => notice.message(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::LinkUp { .. }
            | Self::Thawed
            | Self::Activated { .. }
            | Self::Deactivated
            | Self::CopyFinished { .. }
            | Self::PathBack { .. } => {
                "nothing to do".to_string()
            }
            Self::CopyStarted { .. } => "nothing to do; `lockstep volume status NAME --watch` shows its progress".to_string(),
            Self::Grown { .. } => "nothing to do".to_string(),
            Self::DeviceSmaller { .. } => {
                "this kernel cannot resize a live device: `lockstep volume deactivate NAME`, then `activate NAME`, shows all of it".to_string()
            }
            Self::LinkLost => "look at the network and at the peer".to_string(),
            Self::PathLost { .. } => {
                "mend that network before the other one fails too: cable, card, switch, and the addresses of both nodes".to_string()
            }
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
                "the other copy does not count before everything was read: look at the kernel's log and the disk, save what can be read to another volume; a block that is written anew can be read again".to_string()
            }
            Self::Discarded { .. } => "nothing to do: it is filled from the other node when they meet".to_string(),
            Self::Forced { .. } => {
                "check every file system and database on it. If the lost copy comes back, decide between the two (`lockstep volume resolve NAME`); a complete resync with the other node ends this notice".to_string()
            }
            Self::MetadataFailed { .. } => "replace the metadata device; the volume does not change its state without it".to_string(),
            Self::Isolation(notice) => notice.advice(),
            Self::Upkeep(notice) => notice.advice(),
            Self::Stuck(notice) => notice.advice(),
            Self::Disk(notice) => notice.advice(),
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

const ALONE: &str = "; the other path carries it alone";

fn path_words(number: u8, what: &str, local: &str, remote: &str, more: &str) -> String {
    format!("path {number} of the mirror link {what}: {local} <-> {remote}{more}")
}

fn forced_words(at_s: u64) -> String {
    format!(
        "recovered by force from an incomplete copy at {}: acknowledged writes are missing, and old and new data may be mixed",
        utc(at_s)
    )
}
