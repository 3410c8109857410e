//! What is said about single reads that a disk could not do.

use alloc::format;
use alloc::string::{String, ToString};

use super::Level;
use crate::types::{Errno, SECTOR_BYTES, SectorRange};

/// See the module. Told at most once in [`crate::limits::READ_NOTICE_EVERY`] each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskNotice {
    /// The own disk could not read; the peer did, and the block was written again here.
    ReadHealed {
        /// Where.
        range: SectorRange,
        /// The kernel's answer here.
        errno: Errno,
        /// How many in this run of the daemon.
        count: u64,
    },
    /// The own disk could not read, and nobody else could: the request failed.
    ReadFailed {
        /// Where.
        range: SectorRange,
        /// The kernel's answer here.
        errno: Errno,
        /// The answer there; `None`: the peer's copy does not count.
        peer: Option<Errno>,
    },
    /// The own disk failed: the service goes on through the other node.
    Diskless,
    /// The own disk failed, and then the other node was lost: the service ended.
    DisklessLost,
    /// The metadata failed while the own copy counted, or after the disk: the peer alone has written down that its copy
    /// counts.
    Carried,
    /// The peer said at some time that its disk failed, and its copy was not filled since.
    PeerFailed,
}

impl DiskNotice {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::ReadHealed { .. } => "LS3005",
            Self::ReadFailed { .. } => "LS3006",
            Self::Diskless | Self::DisklessLost => "LS3007",
            Self::Carried => "LS3047",
            Self::PeerFailed => "LS3002",
        }
    }

    pub(crate) fn level(&self) -> Level {
        match self {
            Self::ReadHealed { .. } => Level::Warning,
            Self::ReadFailed { .. }
            | Self::Diskless
            | Self::DisklessLost
            | Self::Carried
            | Self::PeerFailed => Level::Error,
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Diskless => "the disk here has failed: the volume is served through the other node, which has the only good copy".to_string(),
            Self::DisklessLost => "the disk here has failed, and the other node, which has the only good copy, is lost: the service here has ended".to_string(),
            Self::Carried => "the metadata here cannot be written: only the other node has written down that its copy alone counts".to_string(),
            Self::PeerFailed => "the other node's disk has failed: its copy does not count before it is filled anew".to_string(),
            Self::ReadHealed {
                range,
                errno,
                count,
            } => format!(
                "{} could not be read here (kernel error {}); it was read from the other node and written again here ({count} such reads since the daemon started)",
                place(*range),
                errno.0
            ),
            Self::ReadFailed {
                range,
                errno,
                peer: Some(peer),
            } => format!(
                "{} can be read on neither node (kernel errors {} here, {} there): the application got an error",
                place(*range),
                errno.0,
                peer.0
            ),
            Self::ReadFailed {
                range,
                errno,
                peer: None,
            } => format!(
                "{} could not be read here (kernel error {}), and no other copy counts: the application got an error",
                place(*range),
                errno.0
            ),
        }
    }

    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Diskless => {
                "end the service here and go on at the other node soon (`lockstep volume deactivate NAME` here, `activate NAME` there): if that node or the connection is lost, the service here ends. Then replace the disk".to_string()
            }
            Self::DisklessLost => {
                "every acknowledged write is on the other node: when it runs, `lockstep volume activate NAME` there, or `takeover` if it says that the copy here still counts. Here replace the disk and start the daemon again".to_string()
            }
            Self::Carried => {
                "move the service to the other node soon, then replace the disk here. If this machine boots before both nodes have met again, never say here that the other node is off: the copy here would be served as it was before its disk failed".to_string()
            }
            Self::PeerFailed => {
                "mend or replace the disk there, then stop the daemon there and start it: everything is copied".to_string()
            }
            Self::ReadHealed { .. } => {
                "nothing is lost. Look at the kernel's log and at the disk's own error counters here; if it goes on, replace the disk".to_string()
            }
            Self::ReadFailed { .. } => {
                "restore what lies there from a backup: whatever writes it again makes it readable. Replace the disks".to_string()
            }
        }
    }
}

fn place(range: SectorRange) -> String {
    format!(
        "{} bytes at byte {}",
        range.bytes(),
        range.start * SECTOR_BYTES
    )
}
