//! What is said about comparing, marking and pausing copies.

use alloc::format;
use alloc::string::{String, ToString};

use super::Level;
use crate::admin::VerifyState;
use crate::types::{Errno, SECTOR_BYTES, SectorRange};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpkeepNotice {
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
}

impl UpkeepNotice {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::VerifyBegan { .. } => "LS2040",
            Self::VerifyDiffers { .. } => "LS2041",
            Self::VerifyEnded { .. } => "LS2042",
            Self::Invalidated => "LS2043",
            Self::PeerInvalidated => "LS2044",
            Self::ResyncPaused => "LS2045",
            Self::ResyncGoesOn => "LS2046",
            Self::VerifyUnreadable { .. } => "LS3045",
        }
    }

    pub(crate) fn level(&self) -> Level {
        match self {
            Self::VerifyBegan { .. }
            | Self::ResyncGoesOn
            | Self::VerifyEnded {
                differing: 0,
                unreadable: 0,
                ..
            } => Level::Info,
            Self::VerifyEnded { .. }
            | Self::Invalidated
            | Self::PeerInvalidated
            | Self::ResyncPaused => Level::Warning,
            Self::VerifyDiffers { .. } | Self::VerifyUnreadable { .. } => Level::Error,
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
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
        }
    }

    pub(crate) fn advice(&self) -> String {
        match self {
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
        }
    }
}

fn verify_words(state: VerifyState) -> &'static str {
    match state {
        VerifyState::Running | VerifyState::Waiting | VerifyState::Done => "is over",
        VerifyState::Stopped => "was stopped by an operator",
        VerifyState::Interrupted => "cannot go on here, and was ended",
    }
}

const INVALIDATED: &str =
    "an operator marked the copy here: it does not count until all of it was copied again";
const PEER_INVALIDATED: &str =
    "an operator marked the other copy: it left the view and will be copied in full";

fn differs_words(range: SectorRange) -> String {
    format!(
        "the copies differ at byte {} ({} bytes), and the application did not do that",
        range.start * SECTOR_BYTES,
        range.bytes()
    )
}

fn ended_words(state: VerifyState, counts: [u64; 3]) -> String {
    let [differing, repaired, unreadable] = counts;
    format!(
        "the verify {}: {differing} blocks differed, {repaired} of them are repaired, {unreadable} could not be read",
        verify_words(state)
    )
}

fn unreadable_words(range: SectorRange, errno: Errno, place: &str) -> String {
    format!(
        "{} bytes at byte {} could not be read {place} (kernel error {}) and were not compared",
        range.bytes(),
        range.start * SECTOR_BYTES,
        errno.0
    )
}
