//! Why a node does not act on what an arbiter granted.

use alloc::format;
use alloc::string::{String, ToString};

use crate::types::Epoch;

/// Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantRefusal {
    /// The view moved on since, or the granted one is not above every epoch that was seen here.
    OtherView {
        /// About which epoch the grant is.
        granted: Epoch,
        /// The epoch of the view that the copy holds.
        holds: Epoch,
    },
    /// This machine booted since its copy began to count (S11).
    Rebooted {
        /// The peer's name.
        peer: String,
    },
    /// The word came after the time within which it may be carried out.
    Late,
    /// An id is not 32 hexadecimal digits.
    Malformed,
}

impl GrantRefusal {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherView { .. } | Self::Late | Self::Malformed => "LS1080",
            Self::Rebooted { .. } => "LS1081",
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::OtherView { granted, holds } => {
                format!("the grant is about epoch {granted}, and the copy here holds epoch {holds}")
            }
            Self::Rebooted { peer } => format!(
                "this machine booted since its copy began to count: what it had not flushed is lost here, and {peer} may have it"
            ),
            Self::Late => "the word about a grant came too late to be carried out".to_string(),
            Self::Malformed => "the grant names a view that is none".to_string(),
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::OtherView { .. } | Self::Late | Self::Malformed => {
                "the control plane asks its arbiter anew by itself".to_string()
            }
            Self::Rebooted { peer } => format!(
                "bring {peer} back: the two settle it by themselves. If {peer} will never come back, `lockstep volume takeover NAME`"
            ),
        }
    }
}
