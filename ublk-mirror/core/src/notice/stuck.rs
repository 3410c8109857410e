//! What is said when a disk does not answer.

use alloc::format;
use alloc::string::{String, ToString};

use super::Level;

/// Something that a disk did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StuckNotice {
    /// Operations of the backing device did not end within the limit: nothing more is asked of it.
    Disk {
        /// The limit.
        limit_ms: u64,
        /// How many were given up.
        operations: usize,
        /// The copy is isolated: it does not fail for that.
        isolated: bool,
    },
    /// A write of metadata did not end within the limit.
    Metadata {
        /// The limit.
        limit_ms: u64,
    },
}

impl StuckNotice {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "LS3008",
            Self::Metadata { .. } => "LS3009",
        }
    }

    /// How loud it is.
    pub fn level(&self) -> Level {
        Level::Error
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Disk {
                limit_ms,
                operations,
                ..
            } => format!(
                "the backing device has not answered for {limit_ms} ms; {operations} operations were given up, and nothing \
                 more is asked of it"
            ),
            Self::Metadata { limit_ms } => {
                format!("a write of metadata has not ended for {limit_ms} ms and was given up")
            }
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::Disk { isolated: true, .. } => "look at the kernel's log, the cable, the controller, the path to the storage. The \
                 isolated copy stays what it is, and its reads fail. When the disk answers again, stop the daemon and start it: \
                 the copy can be read and attached then. If the disk is only slow at times, set a longer `disk_timeout_ms`"
                .to_string(),
            Self::Disk { .. } => "look at the kernel's log, the cable, the controller, the path to the storage. When the \
                 disk answers again, stop the daemon and start it: the whole copy is written again. If the disk is only \
                 slow at times, set a longer `disk_timeout_ms`"
                .to_string(),
            Self::Metadata { .. } => "the volume does not change its state without its metadata: mend or replace the metadata \
                 device, then start the daemon again"
                .to_string(),
        }
    }
}
