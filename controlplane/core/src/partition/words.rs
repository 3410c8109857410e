//! The table's words, as docs/controlplane.md prints them and `lockstep why` says them.

use core::fmt;

use super::{ClaimState, Condition, Contact, Standing, Targets, Wanted};

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving => "serving",
            Self::Frozen => "frozen",
            Self::Standby => "standby",
            Self::Unserved => "unserved",
            Self::Booted => "booted",
            Self::Alone => "alone",
            Self::NotCurrent => "not current",
            Self::Silent => "silent",
            Self::Broken => "broken",
        })
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linked => "linked",
            Self::HeartbeatsOnly => "heartbeats only",
            Self::Unsure => "unsure",
            Self::Dead => "the peer is dead",
        })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runs => "the group runs",
            Self::There => "the group moves, and the other node is ready",
            Self::Nowhere => "the group is stopped",
            Self::NotHere => "this node is suspended",
        })
    }
}

impl fmt::Display for ClaimState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Asked => "asked",
            Self::Granted => "granted",
            Self::Refused => "refused",
        })
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "answer",
            Self::Silent => "are silent",
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything else"),
            Self::Contact(contact) => write!(f, "{contact}"),
            Self::Claim(state) => write!(f, "witness: the claim is {state}"),
            Self::Ping(targets) => write!(f, "ping: the targets {targets}"),
            Self::Manual => f.write_str("manual"),
            Self::Nobody => f.write_str("none"),
            Self::LeaseOver => f.write_str("the lease is over"),
            Self::NoClients => f.write_str("no client network answers"),
            Self::NotAutomatic => f.write_str("the group waits for an operator"),
            Self::LinkedInTurn => f.write_str("linked, and it is this node's turn"),
            Self::Wish(wanted) => write!(f, "{wanted}"),
            Self::LinkedWish(wanted) => write!(f, "linked, and {wanted}"),
        }
    }
}
