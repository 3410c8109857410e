//! The words about isolated copies: a standby's copy that was taken out of the view in a planned way, so
//! that it can be read as it was at that moment. `volume/isolation.rs` has the rules.

use alloc::format;
use alloc::string::{String, ToString};

use crate::notice::Level;
use crate::types::Errno;

/// Why a command about an isolated copy was not carried out. Nothing was changed unless the message says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsolationRefusal {
    /// This node serves the volume, or is about to.
    Serving {
        /// The peer's name.
        peer: String,
    },
    /// This copy does not count: what it holds is no point in time of the volume.
    NotCurrent {
        /// Whether it is the target of a resync.
        copying: bool,
    },
    /// This copy is the only one that counts.
    Last {
        /// The peer's name.
        peer: String,
    },
    /// The peer cannot write down that this copy does not count any more (S2).
    PeerSilent {
        /// The peer's name.
        peer: String,
    },
    /// The copy here is isolated: it is not served, and takes nothing over (S3, S9).
    Isolated {
        /// The peer's name.
        peer: String,
    },
    /// It cannot become the only one that counts as long as its image is kept.
    AttachFirst,
    /// The read-only device is mounted or open.
    InUse,
    /// The disk did not answer in time, so that nothing more is asked of it in this run.
    GivenUp,
    /// The copy is isolated, but its read-only device could not be made.
    Device {
        /// The kernel's answer.
        errno: Errno,
    },
}

impl IsolationRefusal {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Serving { .. } => "LS1070",
            Self::NotCurrent { .. } => "LS1071",
            Self::Last { .. } => "LS1072",
            Self::PeerSilent { .. } => "LS1073",
            Self::Isolated { .. } | Self::AttachFirst => "LS1074",
            Self::InUse => "LS1075",
            Self::GivenUp => "LS1086",
            Self::Device { .. } => "LS1076",
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Serving { .. } => {
                "this node serves the volume; only a standby's copy can be isolated".to_string()
            }
            Self::NotCurrent { copying: true } => {
                "the copy on this node is still being filled: it is a mixture of old and new data".to_string()
            }
            Self::NotCurrent { copying: false } => {
                "the copy on this node is outdated: it does not hold what was acknowledged until now".to_string()
            }
            Self::Last { .. } => {
                "this node's copy is the only one that counts; without it the volume could not be served".to_string()
            }
            Self::PeerSilent { peer } => {
                format!("{peer} does not answer, and must write down that the copy here does not count any more")
            }
            Self::Isolated { peer } => {
                format!("the copy on this node is isolated; {peer} has acknowledged writes without it")
            }
            Self::AttachFirst => {
                "the copy on this node is isolated: its image is kept as it is, and it counts for nothing".to_string()
            }
            Self::InUse => "the read-only device of the isolated copy is mounted or held open".to_string(),
            Self::GivenUp => {
                "the backing device did not answer in time, and this daemon asks nothing more of it: what the copy missed could \
                 not be written"
                    .to_string()
            }
            Self::Device { errno } => {
                format!("the copy is isolated, but its read-only device could not be made (kernel error {})", errno.0)
            }
        }
    }

    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Serving { peer } => format!(
                "run `lockstep volume isolate NAME` on {peer}; to isolate the copy here, serve the volume on {peer} first"
            ),
            Self::NotCurrent { .. } => {
                "wait until `lockstep volume status NAME` shows it in sync, then repeat the command".to_string()
            }
            Self::Last { peer } => {
                format!("bring {peer}'s copy up to date first (`lockstep volume start NAME` or `attach NAME` there)")
            }
            Self::PeerSilent { peer } => {
                format!("restore the connection or start the daemon on {peer}, then repeat the command")
            }
            Self::Isolated { peer } => format!(
                "serve the volume on {peer}; `lockstep volume attach NAME` brings the copy here up to date"
            ),
            Self::AttachFirst => {
                "end the isolation with `lockstep volume attach NAME` (it needs no other node), then repeat the command"
                    .to_string()
            }
            Self::InUse => {
                "unmount it and stop what reads it; --force takes it away from them with I/O errors".to_string()
            }
            Self::GivenUp => "when the disk answers again, run `lockstep volume stop NAME` and `start NAME` here, then repeat the \
                 command: only what the copy missed is copied"
                .to_string(),
            Self::Device { .. } => {
                "see that the kernel has ublk_drv (6.8 or later) and look at the kernel's log, then repeat the command; \
                 or `lockstep volume attach NAME`"
                    .to_string()
            }
        }
    }
}

/// Something that happened to an isolated copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsolationNotice {
    /// The copy here is isolated from now on.
    Began,
    /// The peer's copy is isolated.
    PeerBegan,
    /// The copy here may be brought up to date again.
    Ended,
    /// A read of the isolated copy failed: that request alone.
    ReadFailed {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The read-only device could not be made.
    DeviceFailed {
        /// The kernel's answer.
        errno: Errno,
    },
}

impl IsolationNotice {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Began => "LS2080",
            Self::PeerBegan => "LS2081",
            Self::Ended => "LS2082",
            Self::ReadFailed { .. } => "LS3070",
            Self::DeviceFailed { .. } => "LS3071",
        }
    }

    pub(crate) fn level(&self) -> Level {
        match self {
            Self::Began | Self::Ended => Level::Info,
            Self::PeerBegan => Level::Warning,
            Self::ReadFailed { .. } | Self::DeviceFailed { .. } => Level::Error,
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Began => {
                "the copy here is isolated: it does not change until it is attached".to_string()
            }
            Self::PeerBegan => "the peer's copy is isolated".to_string(),
            Self::Ended => {
                "the copy here is not isolated any more; what it missed is copied".to_string()
            }
            Self::ReadFailed { errno } => {
                format!(
                    "a read of the isolated copy failed (kernel error {})",
                    errno.0
                )
            }
            Self::DeviceFailed { errno } => format!(
                "the read-only device of the isolated copy could not be made (kernel error {})",
                errno.0
            ),
        }
    }

    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Began => {
                "`lockstep volume attach NAME` when it is not needed any more".to_string()
            }
            Self::PeerBegan => {
                "there is one good copy until `lockstep volume attach NAME` is run there"
                    .to_string()
            }
            Self::Ended => "nothing to do".to_string(),
            Self::ReadFailed { .. } => {
                "look at the kernel's log; the image is not complete without what could not be read"
                    .to_string()
            }
            Self::DeviceFailed { .. } => {
                "look at the kernel's log, then run `lockstep volume isolate NAME` again"
                    .to_string()
            }
        }
    }
}

/// Seconds since 1970 as a person reads them, in UTC; in words if 0, which means not known.
pub fn utc(unix_s: u64) -> String {
    if unix_s == 0 {
        return "a time that is not known here".to_string();
    }
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Years that begin in March end with the leap day; 400 of them have 146 097 days.
    let days = days % 3_652_425 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn a_time_is_told_as_people_write_it() {
        assert_eq!(utc(1), "1970-01-01 00:00:01 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_261_445), "2026-11-21 11:44:05 UTC");
        assert_eq!(utc(0), "a time that is not known here");
        // Any number is survived.
        assert!(utc(u64::MAX).ends_with("UTC"));
    }
}
