//! One request and what it still waits for.

use crate::event::{Request, RequestKind};
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
    /// It was sent to a target, whose copy does not count yet.
    pub(super) mirrored: bool,
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
            mirrored: false,
        }
    }

    /// Whether it changes data on some disk right now.
    pub(super) fn is_changing(&self) -> bool {
        self.stage == Stage::Running && self.changes_data()
    }

    pub(super) fn changes_data(&self) -> bool {
        !matches!(self.request.kind, RequestKind::Read | RequestKind::Flush)
    }
}
