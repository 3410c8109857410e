//! One resource of a group, and what is being done with it.

use core::time::Duration;

use mirror_core::types::Instant;

use super::{Action, Effect, ResourcePolicy, ResourceState};
use crate::limits::CANCEL_GRACE;

/// An action that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) action: Action,
    pub(super) since: Instant,
    pub(super) timeout: Duration,
    /// When it was broken off.
    pub(super) cancelled: Option<Instant>,
    /// It did not end although it was broken off long ago.
    pub(super) stuck: bool,
}

impl Running {
    /// When something must be done about it if it has not ended.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match (self.stuck, self.cancelled) {
            (true, _) => None,
            (false, Some(cancelled)) => Some(cancelled + CANCEL_GRACE),
            (false, None) => Some(self.since + self.timeout + CANCEL_GRACE),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Resource {
    pub(super) policy: ResourcePolicy,
    pub(super) state: ResourceState,
    /// It was looked at, by this run of the daemon.
    pub(super) probed: bool,
    pub(super) running: Option<Running>,
    pub(super) failures: u32,
    /// Of it, because of monitors: they are no failures of it.
    pub(super) restarts: u32,
    pub(super) hard_stops: u32,
    pub(super) rests_until: Instant,
}

impl Running {
    pub(super) fn cancel(&self, resource: usize) -> Effect {
        Effect::Cancel {
            resource,
            number: self.number,
        }
    }
}

impl Resource {
    /// Of which nothing is known yet.
    pub(super) fn new(now: Instant, policy: &ResourcePolicy) -> Self {
        Self {
            policy: *policy,
            state: ResourceState::Unknown,
            probed: false,
            running: None,
            failures: 0,
            restarts: 0,
            hard_stops: 0,
            rests_until: now,
        }
    }
}
