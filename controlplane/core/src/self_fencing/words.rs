//! The tables' words, as docs/controlplane.md prints them and `lockstep why` says them.

use core::fmt;

use super::{Before, Ground};

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTakeover => "the arbiter is `manual` or `none`: nobody takes over by itself",
            Self::Alone => "the copies here alone count",
            Self::Granted => "the arbiter granted that they will",
            Self::Leased => "both count, and the lease lasts",
            Self::Unlooked => {
                "this run of `lockstepd`, and those before it, have not looked at the volumes yet, or found them served here and wait for the other node's first word, for less than 3 s together"
            }
            Self::Over => "the lease is over",
        })
    }
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begun => "they began since the volumes are served here, or run already",
            Self::OtherClear => {
                "the other node said since then that nothing of the group is left there"
            }
            Self::Waited => "the takeover wait is over",
            Self::Unknown => "none of these, whoever gave the volumes up",
        })
    }
}
