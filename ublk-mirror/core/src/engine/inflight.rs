//! One request and what it still waits for.

use crate::event::{Request, RequestKind};
use crate::mutant::{self, Mutant};
use crate::types::{Errno, Instant};

/// One side of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// This side has nothing to do with it.
    NotNeeded,
    /// It has to go there.
    Unsent,
    /// It went there; no answer yet.
    Sent,
    /// It cannot be done there: it waits for a view without that copy.
    Refused,
    /// Done there.
    Done,
}

impl Leg {
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::NotNeeded | Self::Done)
    }
}

/// Whether a request has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for its turn.
    Waiting,
    /// Its disk operation was started.
    Running,
}

/// How far a read is that the own disk could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heal {
    /// The peer is to be asked, when nobody writes there.
    Wanted,
    /// The peer is asked; the place in which its answer is waited for.
    Asked(u16),
    /// The peer's data are here, and are being written to the own disk.
    Writing,
    /// There is no own disk any more: the peer is asked, in this place, and nothing is written here.
    Through(u16),
}

impl Heal {
    /// The place in which the peer's answer is waited for.
    pub(super) fn place(self) -> Option<u16> {
        match self {
            Self::Asked(place) | Self::Through(place) => Some(place),
            Self::Wanted | Self::Writing => None,
        }
    }
}

/// A request of the kernel that is not yet answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) request: Request,
    pub(super) arrived: Instant,
    pub(super) stage: Stage,
    pub(super) local: Leg,
    pub(super) peer: Leg,
    pub(super) wire_id: u64,
    pub(super) failure: Option<Errno>,
    /// It is acknowledged only once it is durable on every copy that it goes to.
    pub(super) durable: bool,
    /// A flush: what it will cover.
    pub(super) covers: u64,
    /// It was sent to a target, whose copy does not count yet.
    pub(super) mirrored: bool,
    /// A read whose block is being made good, and what the own disk had answered.
    pub(super) heal: Option<(Heal, Errno)>,
}

impl InFlight {
    pub(super) fn new(request: Request, arrived: Instant) -> Self {
        Self {
            request,
            arrived,
            stage: Stage::Waiting,
            local: Leg::Unsent,
            peer: Leg::Unsent,
            wire_id: 0,
            failure: None,
            durable: request.fua && request.kind != RequestKind::Discard,
            covers: 0,
            mirrored: false,
            heal: None,
        }
    }

    /// Whether it changes data on some disk right now.
    pub(super) fn is_changing(&self) -> bool {
        self.stage == Stage::Running && self.changes_data()
    }

    /// Whether it changes data on some disk: a healing read writes on the own one.
    pub(super) fn changes_data(&self) -> bool {
        self.writes() || (self.is_healing() && !mutant::is(Mutant::HealUnlocked))
    }

    /// Whether it is a read whose block is being made good.
    pub(super) fn is_healing(&self) -> bool {
        self.heal
            .is_some_and(|(heal, _)| !matches!(heal, Heal::Through(_)))
    }

    /// Whether the application asked for a change of data.
    pub(super) fn writes(&self) -> bool {
        !matches!(self.request.kind, RequestKind::Read | RequestKind::Flush)
    }
}
